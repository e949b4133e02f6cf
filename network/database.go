package network

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/lib/pq"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

const (
	// notifyChannel is where PostgreSQL tells the others about a new revision.
	notifyChannel = "planck_revision"
	// migrationLock is the advisory lock that serialises schema changes ("PLNK").
	migrationLock = 0x504c4e4b
	// busyTimeout is how many milliseconds a transaction waits while another
	// program writes to the same SQLite file.
	busyTimeout = "10000"
	// maxConnections is how many connections to PostgreSQL there are at once: the
	// lease of the cluster and each queue of messages keep one.
	maxConnections = 12
	// rowsPerStatement bounds the statements that write many rows.
	rowsPerStatement = 500
)

// connectTimeouts are how many seconds a connection may take; a controller asks
// again rather than wait for one that was on its way when the server went away.
var connectTimeouts = map[purpose]int{serving: 3, maintenance: 10, reading: 10}

// idleTimeouts are how long a transaction may stand still.
var idleTimeouts = map[purpose]time.Duration{serving: 5 * time.Second, maintenance: time.Minute, reading: time.Minute}

// database speaks SQL; it knows the difference between SQLite and PostgreSQL.
type database struct {
	*sql.DB
	dsn        string
	postgres   bool
	path       string        // of an SQLite file
	lock       *os.File      // that it is served; nil when it is not
	statements atomic.Uint64 // sent so far
}

// purpose is what a database is connected to for.
type purpose int

const (
	serving     purpose = iota
	maintenance         // statements may take long
	reading             // of what is there, without keeping writers out
)

// openDatabase connects to a database for a Store, and makes or expands its tables.
func openDatabase(ctx context.Context, dsn string, known schema) (*database, error) {
	d, err := connect(dsn, serving)
	if err != nil {
		return nil, err
	}
	if !d.postgres {
		if d.lock, err = lockFile(d.path, false); err != nil {
			return nil, errors.Join(err, d.Close())
		}
	}
	state, err := d.state(ctx)
	if err == nil {
		err = state.serves(known.version())
	}
	if err == nil && state.version > 1 && state.version < known.version() {
		err = expandPatiently(ctx, dsn, known)
	} else if err == nil {
		err = d.migrate(ctx, known)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("database schema: %w", err), d.Close())
	}
	return d, nil
}

// Close ends all connections.
func (d *database) Close() error {
	err := d.DB.Close()
	if d.lock != nil {
		_ = d.lock.Close() // which gives it back
	}
	return err
}

// expandPatiently expands tables that may be large.
func expandPatiently(ctx context.Context, dsn string, known schema) error {
	d, err := connect(dsn, maintenance)
	if err != nil {
		return err
	}
	return errors.Join(d.migrate(ctx, known), d.Close())
}

// connect opens connections when they are needed.
func connect(dsn string, why purpose) (*database, error) {
	d := &database{dsn: dsn}
	var err error
	switch scheme, _, _ := strings.Cut(dsn, "://"); scheme {
	case "sqlite":
		err = d.openSQLite(why)
	case "postgresql", "postgres":
		err = d.openPostgres(why)
	default:
		err = fmt.Errorf("database %q: must be sqlite:///path or postgresql://…", scheme)
	}
	if err != nil {
		return nil, err
	}
	return d, nil
}

func (d *database) openSQLite(why purpose) error {
	path := filepath.Clean(strings.TrimPrefix(d.dsn, "sqlite://"))
	if !filepath.IsAbs(path) {
		return fmt.Errorf("database %s: the path must be absolute", d.dsn)
	}
	d.path = path
	options := url.Values{
		"_txlock": {"immediate"},
		"_pragma": {"busy_timeout(" + busyTimeout + ")", "journal_mode(WAL)", "synchronous(FULL)"},
	}
	if why == reading {
		if _, err := os.Stat(path); err != nil {
			return fmt.Errorf("database: %w", err)
		}
		options = url.Values{"_txlock": {"deferred"}, "_pragma": {"busy_timeout(" + busyTimeout + ")", "query_only(1)"}}
	} else if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("database: %w", err)
	}
	uri := url.URL{Scheme: "file", Path: path, RawQuery: options.Encode()}
	connector, err := sqlite.NewConnector(uri.String())
	if err != nil {
		return fmt.Errorf("database %s: %w", path, err)
	}
	d.DB = sql.OpenDB(counting{preparing{connector}, &d.statements})
	d.SetMaxOpenConns(1)
	return nil
}

func (d *database) openPostgres(why purpose) error {
	u, err := url.Parse(d.dsn)
	if err != nil {
		// The error would show the password.
		return errors.New("database: the postgresql:// address can't be parsed")
	}
	q := u.Query()
	if !q.Has("sslmode") {
		q.Set("sslmode", "prefer")
	}
	if !q.Has("application_name") {
		q.Set("application_name", "planck")
	}
	if !q.Has("connect_timeout") {
		q.Set("connect_timeout", strconv.Itoa(connectTimeouts[why]))
	}
	if !q.Has("idle_in_transaction_session_timeout") {
		// A controller that is stopped while it writes must not stop the others.
		q.Set("idle_in_transaction_session_timeout", strconv.FormatInt(idleTimeouts[why].Milliseconds(), 10))
	}
	u.RawQuery = q.Encode()
	d.dsn = u.String()
	d.postgres = true
	connector, err := pq.NewConnector(d.dsn)
	if err != nil {
		return fmt.Errorf("database %s: %w", u.Redacted(), err)
	}
	if why == serving {
		connector.Dialer(impatient{aware()})
	}
	d.DB = sql.OpenDB(counting{connector, &d.statements})
	d.SetMaxOpenConns(maxConnections)
	return nil
}

// listen calls seen with each revision that another program tells about, and
// with 0 when some may have been missed. It returns when ctx ends. SQLite has
// no such thing: there the poll must do.
func (d *database) listen(ctx context.Context, log *slog.Logger, seen func(uint64)) {
	if !d.postgres {
		return
	}
	d.hear(ctx, log, notifyChannel, func(payload string) {
		if payload == "" {
			seen(0)
			return
		}
		revision, err := strconv.ParseUint(payload, 10, 64)
		if err != nil {
			log.Warn("a notification is not a revision", "payload", payload)
			return
		}
		seen(revision)
	})
}

// hear calls heard with each notification on a channel, and with "" when some
// may have been missed. It returns when ctx ends.
func (d *database) hear(ctx context.Context, log *slog.Logger, channel string, heard func(string)) {
	interrupted := false // it is tried each second: one line is enough
	l := pq.NewDialListener(dialer{ctx}, d.dsn, 50*time.Millisecond, time.Second, func(_ pq.ListenerEventType, err error) {
		switch {
		case err == nil && interrupted:
			log.Info("listening for changes of other controllers goes on", "channel", channel)
		case err != nil && !interrupted && ctx.Err() == nil:
			log.Warn("listening for changes of other controllers was interrupted", "channel", channel, "error", err)
		}
		interrupted = err != nil
	})
	closed := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(closed)
		_ = l.Close() // fails only if it is closed already
	})
	receive(l, log, channel, heard)
	if stop() {
		_ = l.Close()
	} else {
		<-closed
	}
	for range l.NotificationChannel() {
		// The listener's own goroutine ends when it has delivered what it had.
	}
}

// receive returns when the listener is closed.
func receive(l *pq.Listener, log *slog.Logger, channel string, heard func(string)) {
	if err := l.Listen(channel); err != nil {
		if !errors.Is(err, net.ErrClosed) {
			log.Error("notifications of other controllers are not heard", "channel", channel, "error", err)
		}
		return
	}
	heard("")
	for n := range l.NotificationChannel() {
		if n == nil {
			heard("")
			continue
		}
		heard(n.Extra)
	}
}

// dialer gives up when its context ends, and closes what it connected, so that
// closing a store does not wait for a server that is out of reach: pq holds the
// lock that Close needs while it waits for the answer to a LISTEN.
type dialer struct{ ctx context.Context }

func (d dialer) Dial(network, address string) (net.Conn, error) {
	return d.DialTimeout(network, address, 0)
}

func (d dialer) DialTimeout(network, address string, timeout time.Duration) (net.Conn, error) {
	n := aware()
	n.Timeout = timeout
	conn, err := n.DialContext(d.ctx, network, address)
	if err != nil {
		return nil, err
	}
	return tied{conn, context.AfterFunc(d.ctx, func() { conn.Close() })}, nil
}

// tied is a connection that ends with a context.
type tied struct {
	net.Conn
	untie func() bool
}

// Close implements net.Conn.
func (t tied) Close() error {
	t.untie()
	return t.Conn.Close()
}

// NotUpYet reports whether a database could not be opened because nobody takes
// connections where it should be: it may be about to start.
func NotUpYet(err error) bool {
	var p *pq.Error
	if errors.As(err, &p) {
		return p.Code == "57P03" // cannot_connect_now
	}
	var timeout net.Error
	return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.EHOSTUNREACH) || errors.Is(err, syscall.ENETUNREACH) ||
		errors.As(err, &timeout) && timeout.Timeout()
}

// interfered reports whether a transaction failed because of another writer,
// so that it can succeed when it is run again.
func interfered(err error) bool {
	var p *pq.Error
	if errors.As(err, &p) {
		switch p.Code {
		case "23505", "40001", "40P01": // unique_violation, serialization_failure, deadlock_detected
			return true
		}
		return false
	}
	var s *sqlite.Error
	if errors.As(err, &s) {
		switch s.Code() {
		case sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY, sqlite3.SQLITE_CONSTRAINT_UNIQUE, sqlite3.SQLITE_BUSY_SNAPSHOT:
			return true
		}
	}
	return false
}

// dbTx is a database transaction; revision is the newest one that it sees.
type dbTx struct {
	*sql.Tx
	d        *database
	revision uint64
}

// begin starts a transaction that sees one state: for writing, by keeping all
// other writers out; for reading, by a snapshot.
func (d *database) begin(ctx context.Context, write bool) (*dbTx, error) {
	options := &sql.TxOptions{}
	query := `SELECT value FROM meta WHERE name = 'revision'`
	if d.postgres {
		if write {
			query += ` FOR UPDATE`
		} else {
			options = &sql.TxOptions{Isolation: sql.LevelRepeatableRead, ReadOnly: true}
		}
	}
	tx, err := d.BeginTx(ctx, options)
	if err != nil {
		return nil, fmt.Errorf("begin: %w", err)
	}
	t := &dbTx{Tx: tx, d: d}
	if err := tx.QueryRowContext(ctx, query).Scan(&t.revision); err != nil {
		t.end()
		return nil, fmt.Errorf("read the revision: %w", err)
	}
	return t, nil
}

// currentRevision is what is committed now.
func (d *database) currentRevision(ctx context.Context) (revision uint64, err error) {
	err = d.QueryRowContext(ctx, `SELECT value FROM meta WHERE name = 'revision'`).Scan(&revision)
	return revision, err
}

// tryWrite writes something: a number that changes, since SQLite does not write
// what is there already. It does not wait for other writers to
// an SQLite file, since it may stand in the way of writes that do.
func (d *database) tryWrite(ctx context.Context) error {
	if !d.postgres {
		if _, err := d.ExecContext(ctx, `PRAGMA busy_timeout = 0`); err != nil {
			return err
		}
		defer d.ExecContext(context.WithoutCancel(ctx), `PRAGMA busy_timeout = `+busyTimeout) //nolint:errcheck // of the one connection; a new one has it anyway
	}
	tx, err := d.begin(ctx, true)
	if err != nil {
		return err
	}
	defer tx.end()
	const count = `INSERT INTO meta (name, value) VALUES ('tried', 1) ON CONFLICT (name) DO UPDATE SET value = meta.value + 1`
	if err := tx.exec(ctx, count); err != nil {
		return err
	}
	return tx.Commit()
}

// end rolls back what was not committed.
func (t *dbTx) end() { _ = t.Rollback() }

// exec runs a statement that is written with ? for its arguments.
func (t *dbTx) exec(ctx context.Context, query string, args ...any) error {
	_, err := t.ExecContext(ctx, t.d.numbered(query), args...)
	return err
}

func (t *dbTx) query(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	return t.QueryContext(ctx, t.d.numbered(query), args...)
}

// numbered writes the arguments as the database wants them.
func (d *database) numbered(query string) string {
	if !d.postgres {
		return query
	}
	var b strings.Builder
	n := 0
	for _, c := range query {
		if c != '?' {
			b.WriteRune(c)
			continue
		}
		n++
		b.WriteByte('$')
		b.WriteString(strconv.Itoa(n))
	}
	return b.String()
}

// execRows runs a statement with a list of rows between head and tail.
func (t *dbTx) execRows(ctx context.Context, head, tail string, columns int, rows [][]any) error {
	row := "(" + strings.Repeat("?, ", columns-1) + "?)"
	for len(rows) > 0 {
		part := rows[:min(len(rows), rowsPerStatement)]
		rows = rows[len(part):]
		args := make([]any, 0, columns*len(part))
		for _, r := range part {
			args = append(args, r...)
		}
		list := row + strings.Repeat(", "+row, len(part)-1)
		if err := t.exec(ctx, head+list+tail, args...); err != nil {
			return err
		}
	}
	return nil
}

// save writes a batch and commits it.
func (b *batch) save(ctx context.Context, t *dbTx) error {
	if err := b.saveClaims(ctx, t); err != nil {
		return fmt.Errorf("write claims: %w", err)
	}
	if err := b.saveObjects(ctx, t); err != nil {
		return fmt.Errorf("write objects: %w", err)
	}
	if err := b.saveCursors(ctx, t); err != nil {
		return fmt.Errorf("write cursors: %w", err)
	}
	if err := b.saveMessages(ctx, t); err != nil {
		return fmt.Errorf("write messages: %w", err)
	}
	if err := b.saveLog(ctx, t); err != nil {
		return fmt.Errorf("write the change log: %w", err)
	}
	if err := t.Commit(); err != nil {
		return &commitError{err}
	}
	return nil
}

// commitError leaves open whether a transaction was committed.
type commitError struct{ err error }

// Error implements error.
func (e *commitError) Error() string { return "commit: " + e.err.Error() }

// Unwrap leads to the database's error.
func (e *commitError) Unwrap() error { return e.err }

// committed reports whether a batch is in the database. It waits for the end of
// the batch's own transaction, which keeps other writers out as long as it lives.
func (b *batch) committed(ctx context.Context) (bool, error) {
	t, err := b.s.db.begin(ctx, true)
	if err != nil {
		return false, err
	}
	defer t.end()
	if t.revision < b.revision {
		return false, nil
	}
	last := b.log[len(b.log)-1]
	wrote, err := json.Marshal(last.entries)
	if err != nil {
		return false, err
	}
	var at, entries string
	err = t.QueryRowContext(ctx, b.s.db.numbered(`SELECT at, entries FROM changes WHERE revision = ?`), int64(last.revision)).Scan(&at, &entries)
	if err != nil {
		return false, fmt.Errorf("read the change log at revision %d: %w", last.revision, err)
	}
	return at == b.at && entries == string(wrote), nil
}

func (b *batch) saveObjects(ctx context.Context, t *dbTx) error {
	stored, err := b.storedBodies(ctx, t)
	if err != nil {
		return err
	}
	var gone, there [][]any
	for k, w := range b.objects {
		if w.after == nil {
			gone = append(gone, []any{string(k.kind), k.id})
			continue
		}
		body, err := json.Marshal(w.after)
		if err != nil {
			return fmt.Errorf("%s %s: %w", k.kind, k.id, err)
		}
		if old, ok := stored[k]; ok {
			if body, err = keepUnknown(w.after, old, body); err != nil {
				return fmt.Errorf("%s %s: %w", k.kind, k.id, err)
			}
		}
		there = append(there, []any{string(k.kind), k.id, int64(w.revisions[len(w.revisions)-1]), string(body)})
	}
	if err := t.execRows(ctx, `DELETE FROM objects WHERE (kind, id) IN (VALUES `, `)`, 2, gone); err != nil {
		return err
	}
	return t.execRows(ctx, `INSERT INTO objects (kind, id, revision, body) VALUES `,
		` ON CONFLICT (kind, id) DO UPDATE SET revision = excluded.revision, body = excluded.body`, 4, there)
}

func (b *batch) saveClaims(ctx context.Context, t *dbTx) error {
	var gone, there [][]any
	for k, c := range b.claims {
		if c.before == c.after {
			continue
		}
		if c.before != (Claim{}) {
			gone = append(gone, []any{k.space, k.key})
		}
		if c.after != (Claim{}) {
			there = append(there, []any{k.space, k.key, string(c.after.OwnerKind), c.after.OwnerID})
		}
	}
	if err := t.execRows(ctx, `DELETE FROM claims WHERE (space, key) IN (VALUES `, `)`, 2, gone); err != nil {
		return err
	}
	return t.execRows(ctx, `INSERT INTO claims (space, key, owner_kind, owner_id) VALUES `, ``, 4, there)
}

// cursorName begins the names of cursors in the table meta.
const cursorName = "cursor/"

func (b *batch) saveCursors(ctx context.Context, t *dbTx) error {
	var rows [][]any
	for name := range b.s.alloc.moved {
		rows = append(rows, []any{cursorName + name, int64(b.s.alloc.cursors[name])})
	}
	return t.execRows(ctx, `INSERT INTO meta (name, value) VALUES `,
		` ON CONFLICT (name) DO UPDATE SET value = excluded.value`, 2, rows)
}

// progress is what a transaction reads of the table meta beside the revision:
// where the last allocations were made, by name, and how far the tables are.
func (t *dbTx) progress(ctx context.Context) (cursors map[string]uint64, state tableState, err error) {
	rows, err := t.query(ctx, `SELECT name, value FROM meta WHERE name LIKE ? OR name IN (?, ?)`, cursorName+"%", metaSchema, metaContracted)
	if err != nil {
		return nil, tableState{}, err
	}
	values, err := scanMeta(rows)
	if err != nil {
		return nil, tableState{}, err
	}
	cursors = map[string]uint64{}
	for name, value := range values {
		if name, ok := strings.CutPrefix(name, cursorName); ok {
			cursors[name] = uint64(value)
		}
	}
	return cursors, stateOf(values), nil
}

func (b *batch) saveLog(ctx context.Context, t *dbTx) error {
	b.at = time.Now().UTC().Format(time.RFC3339Nano)
	rows := make([][]any, len(b.log))
	for i, l := range b.log {
		entries, err := json.Marshal(l.entries)
		if err != nil {
			return err
		}
		c := l.cause
		rows[i] = []any{int64(l.revision), b.at, clean(c.RequestID), clean(c.ProjectID), clean(c.UserID), clean(c.Operation), string(entries)}
	}
	if err := t.execRows(ctx, `INSERT INTO changes (revision, at, request_id, project_id, user_id, operation, entries) VALUES `,
		``, 7, rows); err != nil {
		return err
	}
	if err := b.prune(ctx, t); err != nil {
		return err
	}
	return t.setRevision(ctx, b.revision)
}

// pruneEvery is how many revisions pass between looks at the change log's length.
const pruneEvery = 1000

func (b *batch) prune(ctx context.Context, t *dbTx) error {
	keep := uint64(b.s.cfg.ChangesKept)
	if t.revision/pruneEvery == b.revision/pruneEvery || b.revision <= keep {
		return nil
	}
	return t.exec(ctx, `DELETE FROM changes WHERE revision <= ?`, int64(b.revision-keep))
}

// clean makes a caller's text fit for any database.
func clean(s string) string {
	return strings.ToValidUTF8(strings.ReplaceAll(s, "\x00", ""), "\uFFFD")
}

// MarshalJSON writes a pair.
func (k objectKey) MarshalJSON() ([]byte, error) {
	return json.Marshal([2]string{string(k.kind), k.id})
}

// UnmarshalJSON reads a pair.
func (k *objectKey) UnmarshalJSON(b []byte) error {
	var pair [2]string
	if err := json.Unmarshal(b, &pair); err != nil {
		return err
	}
	k.kind, k.id = Kind(pair[0]), pair[1]
	return nil
}

// changesSince has, for what was written after a revision, the revisions that did
// it. It reports false when the log does not go back that far.
func (t *dbTx) changesSince(ctx context.Context, revision uint64) (map[objectKey][]uint64, bool, error) {
	if t.revision < revision {
		return nil, false, nil
	}
	rows, err := t.query(ctx, `SELECT revision, entries FROM changes WHERE revision > ? ORDER BY revision`, int64(revision))
	if err != nil {
		return nil, false, err
	}
	defer rows.Close()
	written := map[objectKey][]uint64{}
	count := uint64(0)
	for ; rows.Next(); count++ {
		var at uint64
		var text string
		if err := rows.Scan(&at, &text); err != nil {
			return nil, false, err
		}
		var entries []objectKey
		if err := json.Unmarshal([]byte(text), &entries); err != nil {
			return nil, false, err
		}
		for _, k := range entries {
			before, seen := written[k]
			if !seen {
				written[k] = []uint64{at}
				continue
			}
			written[k] = joinRevisions(before, []uint64{at})
		}
	}
	return written, count == t.revision-revision, rows.Err()
}

// byKeys runs a query on keys, so many at once as one statement may have; list
// is what stands behind IN.
func byKeys(keys []objectKey, query func(list string, args []any) error) error {
	for len(keys) > 0 {
		part := keys[:min(len(keys), rowsPerStatement)]
		keys = keys[len(part):]
		args := make([]any, 0, 2*len(part))
		for _, k := range part {
			args = append(args, string(k.kind), k.id)
		}
		if err := query(`(VALUES (?, ?)`+strings.Repeat(", (?, ?)", len(part)-1)+`)`, args); err != nil {
			return err
		}
	}
	return nil
}

// objects reads objects; those that are absent are left out.
func (t *dbTx) objects(ctx context.Context, keys []objectKey) ([]Object, error) {
	var objects []Object
	err := byKeys(keys, func(list string, args []any) error {
		some, err := t.read(ctx, `SELECT kind, id, body FROM objects WHERE (kind, id) IN `+list, args...)
		objects = append(objects, some...)
		return err
	})
	return objects, err
}

// allObjects reads every object of a kind that this program knows.
func (t *dbTx) allObjects(ctx context.Context) ([]Object, error) {
	return t.read(ctx, `SELECT kind, id, body FROM objects`)
}

func (t *dbTx) read(ctx context.Context, query string, args ...any) ([]Object, error) {
	rows, err := t.query(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var objects []Object
	for rows.Next() {
		var kind, id, body string
		if err := rows.Scan(&kind, &id, &body); err != nil {
			return nil, err
		}
		o, err := decodeObject(Kind(kind), body)
		if err != nil {
			return nil, fmt.Errorf("object %s %s: %w", kind, id, err)
		}
		if o != nil {
			objects = append(objects, o)
		}
	}
	return objects, rows.Err()
}

// decodeObject reads an object; it is nil when it is of a kind of a newer program.
func decodeObject(kind Kind, body string) (Object, error) {
	o := newObject(kind)
	if o == nil {
		return nil, nil
	}
	return o, json.Unmarshal([]byte(body), o)
}

func newObject(k Kind) Object {
	switch k {
	case KindNetwork:
		return &Network{}
	case KindSubnet:
		return &Subnet{}
	case KindPort:
		return &Port{}
	case KindPortStatus:
		return &PortStatus{}
	case KindHost:
		return &Host{}
	case KindVIF:
		return &VIF{}
	case KindPresence:
		// Those written before there were routers do not say it: all were.
		return &Presence{Wired: true}
	case KindDeparture:
		return &Departure{}
	case KindSecurityGroup:
		return &SecurityGroup{}
	case KindSecurityGroupRule:
		return &SecurityGroupRule{}
	case KindGroupPresence:
		return &GroupPresence{}
	case KindRouter:
		return &Router{}
	case KindQuota:
		return &Quota{}
	case KindSubnetPool:
		return &SubnetPool{}
	case KindAgent:
		return &Agent{}
	case KindTopology:
		return &Topology{}
	case KindFloatingIP:
		return &FloatingIP{}
	case KindFloatingIPWired:
		return &FloatingIPWired{}
	case KindZone:
		return &Zone{}
	case KindTransit:
		return &Transit{}
	case KindGatewayPlacement:
		return &GatewayPlacement{}
	case KindHostDown:
		return &HostDown{}
	case KindExternalNeighbor:
		return &ExternalNeighbor{}
	case KindAddressHolder:
		return &AddressHolder{}
	case KindFlush:
		return &Flush{}
	case KindReadiness:
		return &Readiness{}
	}
	return nil
}
