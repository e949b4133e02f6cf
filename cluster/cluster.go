// Package cluster lets several controllers share the switches, by way of the
// PostgreSQL that they share anyway: it says which controllers live, and gives
// each host to one of them.
//
// Each member holds a lease, an advisory lock of a session of its own, and
// shows a sign of life several times a second. Whoever does so judges the
// others as well, in the same transaction, and raises the generation when the
// set of members that own hosts has changed. A member takes the OpenFlow role
// MASTER with the generation in which it became the owner: a switch refuses an
// older one, and makes the earlier master a slave. So a member that was stopped,
// or that can't reach the database, may believe what it likes, it can't write.
// Nobody gives up its hosts only because the database is away: nobody else can
// have got them.
package cluster

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Database is what members share.
type Database interface {
	// Postgres is the pool of connections to it.
	Postgres() *sql.DB
	// Listen calls heard with each notification on a channel, and with "" when
	// some may have been missed, until ctx ends.
	Listen(ctx context.Context, channel string, heard func(payload string))
}

// Options of a Cluster. Database and Name must be set.
type Options struct {
	Database Database
	Name     string // of this member; it keeps it over a restart
	API      string // where its API listens
	Version  string
	Schema   int // of the database, that this program knows
	Logger   *slog.Logger
	Registry prometheus.Registerer // nil for none
}

// Times of members.
const (
	// beatEvery is how often a member shows a sign of life.
	beatEvery = 250 * time.Millisecond
	// beatTimeout bounds one of them.
	beatTimeout = 5 * time.Second
	retryPause  = 200 * time.Millisecond
	// idleTimeout is how long a transaction of a member may stand still.
	idleTimeout = time.Second
	// overdue is when a sign of life is so late that clients had better ask
	// another member. The others have this one's hosts since a while.
	overdue = 3 * time.Second
)

// silence is when a member counts as dead.
var silence = limits{Lease: time.Second, Grace: 600 * time.Millisecond, Gap: 2 * beatEvery}

// Cluster is this controller's membership.
type Cluster struct {
	opt      Options
	log      *slog.Logger
	metrics  *metrics
	view     atomic.Pointer[view] // nil until it has joined
	kick     chan struct{}
	progress *progress
	switches Switches // nil for none
	sight    atomic.Pointer[vision]

	mu      sync.Mutex
	changed chan struct{} // closed and made anew when the view changes
	leaving bool
	problem string // why the last beat failed, "" when it did not
}

// view is what this member knows since its last beat.
type view struct {
	state
	session  int64
	revision uint64 // of the model, when the owners last changed
	owners   owners
	at       time.Time // by the own clock
}

// New returns a membership that Run begins.
func New(opt Options) (*Cluster, error) {
	if opt.Logger == nil {
		opt.Logger = slog.Default()
	}
	c := &Cluster{opt: opt, log: opt.Logger, kick: make(chan struct{}, 1), changed: make(chan struct{}), progress: newProgress()}
	var err error
	if c.metrics, err = newMetrics(opt.Registry, c); err != nil {
		return nil, fmt.Errorf("cluster: metrics: %w", err)
	}
	return c, nil
}

// Run is a member until ctx ends. It comes back by itself when the database was
// away or the others took it for dead.
func (c *Cluster) Run(ctx context.Context) error {
	var parts sync.WaitGroup
	defer parts.Wait()
	parts.Go(func() { c.opt.Database.Listen(ctx, progressChannel, c.hear) })
	parts.Go(func() { c.publish(ctx) })
	parts.Go(func() { c.look(ctx) })
	for {
		held, err := c.member(ctx)
		if ctx.Err() != nil {
			return nil
		}
		c.trouble(err)
		if held {
			c.metrics.lost.Inc()
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(retryPause):
		}
	}
}

// trouble logs why this member has no lease, once.
func (c *Cluster) trouble(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.problem != err.Error() {
		c.log.Warn("cluster: no lease, trying again", "member", c.opt.Name, "error", err)
	}
	c.problem = err.Error()
}

// member holds a lease until it is lost, and reports whether it ever did.
func (c *Cluster) member(ctx context.Context) (held bool, err error) {
	conn, err := c.opt.Database.Postgres().Conn(ctx)
	if err != nil {
		return false, err
	}
	// The lease goes with the connection: it must not go back into the pool.
	defer conn.Raw(func(any) error { return driver.ErrBadConn }) //nolint:errcheck // that is the error
	session := 1 + rand.Int64N(1<<62)
	// A member that is stopped in its transaction must not stop the others.
	if err := execWithin(ctx, conn, fmt.Sprintf(`SET idle_in_transaction_session_timeout = %d`, idleTimeout.Milliseconds())); err != nil {
		return false, err
	}
	if err := execWithin(ctx, conn, `SELECT pg_advisory_lock($1)`, session); err != nil {
		return false, err
	}
	tick := time.NewTicker(beatEvery)
	defer tick.Stop()
	for {
		if err := c.beat(ctx, conn, session); err != nil {
			return held, err
		}
		held = true
		select {
		case <-ctx.Done():
			return held, ctx.Err()
		case <-c.kick:
		case <-tick.C:
		}
	}
}

func execWithin(ctx context.Context, conn *sql.Conn, query string, args ...any) error {
	ctx, cancel := context.WithTimeout(ctx, beatTimeout)
	defer cancel()
	_, err := conn.ExecContext(ctx, query, args...)
	return err
}

// beat shows a sign of life and judges the others, in one transaction.
func (c *Cluster) beat(ctx context.Context, conn *sql.Conn, session int64) error {
	ctx, cancel := context.WithTimeout(ctx, beatTimeout)
	defer cancel()
	t, err := begin(ctx, conn)
	if err != nil {
		return err
	}
	defer t.Rollback() //nolint:errcheck // after a commit it has nothing to do
	changed, err := t.state.beat(c.me(session), t.clocks, silence, t.held)
	if err != nil {
		return err
	}
	if err := t.save(ctx, changed); err != nil {
		return err
	}
	c.metrics.beats.Inc()
	c.see(&view{state: t.state, session: session, revision: t.revision, owners: t.state.owners(), at: time.Now()})
	return nil
}

func (c *Cluster) me(session int64) Member {
	c.mu.Lock()
	defer c.mu.Unlock()
	me := Member{Name: c.opt.Name, Session: session, API: c.opt.API, Version: c.opt.Version, Schema: c.opt.Schema, Leaving: c.leaving}
	if v := c.sight.Load(); v != nil {
		me.Blind, me.Sees = v.blind, v.sees
	}
	return me
}

// see notes what a beat found, and tells those who wait when owners changed.
func (c *Cluster) see(v *view) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.problem = ""
	old := c.view.Load()
	if old != nil && old.Generation == v.Generation {
		v.revision = old.revision
		c.view.Store(v)
		return
	}
	c.view.Store(v)
	close(c.changed)
	c.changed = make(chan struct{})
	names := make([]string, len(v.owners.ranked))
	for i, o := range v.owners.ranked {
		names[i] = o.name
	}
	c.log.Info("cluster: who owns hosts has changed", "member", c.opt.Name, "generation", v.Generation, "owners", names, "moved", len(v.owners.moved))
}

// Changed is closed when owners change after the call.
func (c *Cluster) Changed() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.changed
}

// Owns reports whether this member owns a host, as far as it knows. Any other
// text that members have to agree about has an owner likewise.
func (c *Cluster) Owns(host string) bool {
	v := c.view.Load()
	return v != nil && v.owners.of(host) == owner{c.opt.Name, v.session}
}

// Certain reports whether what Owns says is certain: this member showed a sign of
// life so recently that nobody can have taken it for dead since.
func (c *Cluster) Certain() bool {
	v := c.view.Load()
	return v != nil && time.Since(v.at) < silence.Grace
}

// Current is nil while this member's signs of life reach the database.
func (c *Cluster) Current() error {
	v := c.view.Load()
	if v == nil {
		return errors.New("the cluster is not joined yet")
	}
	if age := time.Since(v.at); age > overdue {
		return fmt.Errorf("the last sign of life that reached the database is %v old", age.Round(100*time.Millisecond))
	}
	return nil
}

// Generation is what to take the role MASTER with, and Revision is what the
// model must have reached before: what the earlier owner may have sent.
func (c *Cluster) Generation() (generation, revision uint64) {
	if v := c.view.Load(); v != nil {
		return v.Generation, v.revision
	}
	return 0, 0
}

// Leave gives this member's hosts to the others, if there are any. It is still
// a member until Run ends.
func (c *Cluster) Leave() {
	c.mu.Lock()
	c.leaving = true
	c.mu.Unlock()
	c.beatNow()
}

func (c *Cluster) beatNow() {
	select {
	case c.kick <- struct{}{}:
	default:
	}
}

// Forget removes a dead member for good. It fails when there is no such member,
// or when it is alive.
func (c *Cluster) Forget(ctx context.Context, name string) error {
	conn, err := c.opt.Database.Postgres().Conn(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	t, err := begin(ctx, conn)
	if err != nil {
		return err
	}
	defer t.Rollback() //nolint:errcheck // after a commit it has nothing to do
	if !t.state.forget(name) {
		return ErrNotDead
	}
	return t.save(ctx, true)
}

// ErrNotDead refuses to forget a member.
var ErrNotDead = errors.New("no dead member has this name")

// transaction keeps other members out while one changes the state.
type transaction struct {
	*sql.Tx
	state    state
	clocks   clocks
	revision uint64
	leases   map[int64]bool
}

func (t *transaction) held(session int64) bool { return t.leases[session] }

// Members are all members as the database has them, each judged now: one whose
// lease is held lives, though it may be stopped. It changes nothing, and holds
// nobody up.
func Members(ctx context.Context, tx *sql.Tx) ([]Member, error) {
	t := &transaction{Tx: tx}
	if err := errors.Join(t.read(ctx, ""), t.loadLeases(ctx)); err != nil {
		return nil, err
	}
	for i := range t.state.Members {
		m := &t.state.Members[i]
		m.Alive = t.held(m.Session) || m.Alive && !m.dead(t.clocks, silence, 0, t.held)
	}
	return t.state.Members, nil
}

func begin(ctx context.Context, conn *sql.Conn) (*transaction, error) {
	tx, err := conn.BeginTx(ctx, nil)
	if err != nil {
		return nil, err
	}
	t := &transaction{Tx: tx}
	if err := errors.Join(t.read(ctx, "FOR UPDATE"), t.loadLeases(ctx)); err != nil {
		return nil, errors.Join(err, tx.Rollback())
	}
	return t, nil
}

func (t *transaction) read(ctx context.Context, lock string) error {
	var members []byte
	err := t.QueryRowContext(ctx, `SELECT generation, members, clock_timestamp(), pg_postmaster_start_time(),
		(SELECT value FROM meta WHERE name = 'revision') FROM cluster `+lock).
		Scan(&t.state.Generation, &members, &t.clocks.now, &t.clocks.started, &t.revision)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(members, &t.state.Members); err != nil {
		return fmt.Errorf("members of the cluster: %w", err)
	}
	return nil
}

func (t *transaction) loadLeases(ctx context.Context) error {
	// A lock with a key of 64 bits has objsubid 1.
	rows, err := t.QueryContext(ctx, `SELECT (classid::bigint << 32) | objid::bigint FROM pg_locks
		WHERE locktype = 'advisory' AND objsubid = 1 AND granted
		AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`)
	if err != nil {
		return err
	}
	defer rows.Close()
	t.leases = map[int64]bool{}
	for rows.Next() {
		var session int64
		if err := rows.Scan(&session); err != nil {
			return err
		}
		t.leases[session] = true
	}
	return rows.Err()
}

// save writes the state. A sign of life alone need not wait for the disk; a
// generation must never be lost.
func (t *transaction) save(ctx context.Context, durable bool) error {
	if !durable {
		if _, err := t.ExecContext(ctx, `SET LOCAL synchronous_commit = off`); err != nil {
			return err
		}
	}
	members, err := json.Marshal(t.state.Members)
	if err != nil {
		return err
	}
	if _, err := t.ExecContext(ctx, `UPDATE cluster SET generation = $1, members = $2`, int64(t.state.Generation), string(members)); err != nil {
		return err
	}
	return t.Commit()
}
