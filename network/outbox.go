package network

import (
	"context"
	"database/sql"
	"fmt"
	"hash/fnv"
	"strings"
	"sync"
	"time"
)

// Message is what another program has to be told: it is written in the same
// transaction as its cause, and waits in a queue of the database until a sender
// has delivered it. What was acknowledged is told, at least once.
type Message struct {
	Queue string
	Body  []byte // text
}

// MessageID is the place of a message in its queue: those of an earlier
// revision come first.
type MessageID struct {
	Revision uint64
	N        int
}

// Queued is a message that waits.
type Queued struct {
	ID   MessageID
	Body []byte
}

// Send queues a message with the transaction.
func (tx *Tx) Send(m Message) { tx.messages = append(tx.messages, m) }

// derive queues the messages that follow from what a transaction changed.
func (tx *Tx) derive(cause Cause) {
	if tx.s.cfg.Messages == nil || len(tx.objects) == 0 {
		return
	}
	changes := make([]Change, 0, len(tx.objects))
	for k, w := range tx.objects {
		changes = append(changes, Change{k.kind, k.id, w.before, w.after, nil})
	}
	tx.messages = append(tx.messages, tx.s.cfg.Messages(tx.View, cause, changes)...)
}

// outgoing is a message of a batch.
type outgoing struct {
	MessageID
	Message
}

func (b *batch) saveMessages(ctx context.Context, t *dbTx) error {
	at := time.Now().UTC().Format(time.RFC3339Nano)
	rows := make([][]any, len(b.messages))
	for i, m := range b.messages {
		rows[i] = []any{m.Queue, int64(m.Revision), m.N, at, clean(string(m.Body))}
	}
	return t.execRows(ctx, `INSERT INTO outbox (queue, revision, n, at, body) VALUES `, ``, 5, rows)
}

// Outbox is a queue of messages as its sender sees it. One program at a time
// may read a queue on PostgreSQL; the others wait to take over. It is for one
// goroutine.
type Outbox struct {
	s     *Store
	queue string
	wake  chan struct{}
	conn  *sql.Conn // holds the lock of the queue; nil when it is not held
}

// outboxPoll is how long a message of another program, or the death of another
// sender, may go unnoticed.
const outboxPoll = time.Second

// Outbox returns the reader of a queue; close it in the end.
func (s *Store) Outbox(queue string) *Outbox {
	o := &Outbox{s: s, queue: queue, wake: make(chan struct{}, 1)}
	s.outboxes.add(o)
	return o
}

// Close lets another program read the queue.
func (o *Outbox) Close() {
	o.s.outboxes.drop(o)
	o.release()
}

func (o *Outbox) release() {
	if o.conn == nil {
		return
	}
	// The lock goes with the session, whatever became of the connection.
	_, _ = o.conn.ExecContext(context.Background(), `SELECT pg_advisory_unlock_all()`)
	_ = o.conn.Close()
	o.conn = nil
}

// Wait returns when there may be new messages, or when ctx ends.
func (o *Outbox) Wait(ctx context.Context, most time.Duration) {
	timer := time.NewTimer(min(most, outboxPoll))
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-o.s.ctx.Done():
	case <-o.wake:
	case <-timer.C:
	}
}

// hold makes this program the sender of the queue; false means that another one is.
func (o *Outbox) hold(ctx context.Context) (bool, error) {
	if !o.s.db.postgres {
		return true, nil
	}
	if o.conn != nil {
		if err := o.conn.PingContext(ctx); err == nil {
			return true, nil
		}
		o.release()
	}
	conn, err := o.s.db.Conn(ctx)
	if err != nil {
		return false, err
	}
	key := fnv.New64a()
	key.Write([]byte("planck outbox " + o.queue))
	var held bool
	if err := conn.QueryRowContext(ctx, `SELECT pg_try_advisory_lock($1)`, int64(key.Sum64())).Scan(&held); err != nil || !held {
		_ = conn.Close()
		return false, err
	}
	o.conn = conn
	return true, nil
}

// Read returns the oldest messages behind a place, so many at the most. There
// are none while another program sends them.
func (o *Outbox) Read(ctx context.Context, after MessageID, most int) ([]Queued, error) {
	held, err := o.hold(ctx)
	if err != nil || !held {
		return nil, err
	}
	rows, err := o.s.db.QueryContext(ctx, o.s.db.numbered(`SELECT revision, n, body FROM outbox
		WHERE queue = ? AND (revision, n) > (?, ?) ORDER BY revision, n LIMIT ?`),
		o.queue, int64(after.Revision), after.N, most)
	if err != nil {
		return nil, fmt.Errorf("read the queue %s: %w", o.queue, err)
	}
	defer rows.Close()
	var found []Queued
	for rows.Next() {
		var revision int64
		var q Queued
		var body string
		if err := rows.Scan(&revision, &q.ID.N, &body); err != nil {
			return nil, fmt.Errorf("read the queue %s: %w", o.queue, err)
		}
		q.ID.Revision, q.Body = uint64(revision), []byte(body)
		found = append(found, q)
	}
	return found, rows.Err()
}

// Remove forgets messages that were delivered.
func (o *Outbox) Remove(ctx context.Context, ids []MessageID) error {
	for len(ids) > 0 {
		part := ids[:min(len(ids), rowsPerStatement)]
		ids = ids[len(part):]
		args := []any{o.queue}
		for _, id := range part {
			args = append(args, int64(id.Revision), id.N)
		}
		const pair = `(CAST(? AS BIGINT), CAST(? AS BIGINT))`
		list := pair + strings.Repeat(", "+pair, len(part)-1)
		_, err := o.s.db.ExecContext(ctx, o.s.db.numbered(`DELETE FROM outbox WHERE queue = ? AND (revision, n) IN (VALUES `+list+`)`), args...)
		if err != nil {
			return fmt.Errorf("remove from the queue %s: %w", o.queue, err)
		}
	}
	return nil
}

// Len is how many messages wait.
func (o *Outbox) Len(ctx context.Context) (n int, err error) {
	err = o.s.db.QueryRowContext(ctx, o.s.db.numbered(`SELECT COUNT(*) FROM outbox WHERE queue = ?`), o.queue).Scan(&n)
	return n, err
}

// outboxes are the readers to wake.
type outboxes struct {
	mu   sync.Mutex
	open map[*Outbox]struct{}
}

func (o *outboxes) add(box *Outbox) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.open == nil {
		o.open = map[*Outbox]struct{}{}
	}
	o.open[box] = struct{}{}
}

func (o *outboxes) drop(box *Outbox) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.open, box)
}

func (o *outboxes) tell(messages []outgoing) {
	if len(messages) == 0 {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	for box := range o.open {
		select {
		case box.wake <- struct{}{}:
		default:
		}
	}
}
