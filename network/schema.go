package network

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"
)

// migration brings the tables from the version before to its own, the one that
// is its place in the list, in two steps. Statements are the same on SQLite and
// PostgreSQL.
type migration struct {
	// expand adds what the version needs. Programs of the version before go on:
	// every column that comes has a default, no field of an object changes its
	// meaning or its type, and nothing that they read or write goes.
	expand []string
	// contract takes away what only they needed. It changes nothing that a program
	// of this version reads.
	contract []string
}

// schema is all versions of the tables that a program knows.
type schema []migration

// version is the newest one.
func (s schema) version() int { return len(s) }

// ownSchema is what this program knows.
var ownSchema = schema{{expand: firstSchema}}

// SchemaVersion is the version of the tables that this program makes and reads.
func SchemaVersion() int { return ownSchema.version() }

var firstSchema = []string{
	`CREATE TABLE IF NOT EXISTS meta (
		name TEXT PRIMARY KEY,
		value BIGINT NOT NULL)`,
	`CREATE TABLE IF NOT EXISTS objects (
		kind TEXT NOT NULL,
		id TEXT NOT NULL,
		revision BIGINT NOT NULL,
		body TEXT NOT NULL,
		PRIMARY KEY (kind, id))`,
	`CREATE TABLE IF NOT EXISTS claims (
		space TEXT NOT NULL,
		key TEXT NOT NULL,
		owner_kind TEXT NOT NULL,
		owner_id TEXT NOT NULL,
		PRIMARY KEY (space, key))`,
	`CREATE TABLE IF NOT EXISTS changes (
		revision BIGINT PRIMARY KEY,
		at TEXT NOT NULL,
		request_id TEXT NOT NULL,
		project_id TEXT NOT NULL,
		user_id TEXT NOT NULL,
		operation TEXT NOT NULL,
		entries TEXT NOT NULL)`,
	`CREATE TABLE IF NOT EXISTS outbox (
		queue TEXT NOT NULL,
		revision BIGINT NOT NULL,
		n BIGINT NOT NULL,
		at TEXT NOT NULL,
		body TEXT NOT NULL,
		PRIMARY KEY (queue, revision, n))`,
	`CREATE TABLE IF NOT EXISTS cluster (
		id BIGINT PRIMARY KEY,
		generation BIGINT NOT NULL,
		members TEXT NOT NULL)`,
	`INSERT INTO cluster (id, generation, members) VALUES (1, 1, '[]') ON CONFLICT DO NOTHING`,
	`INSERT INTO meta (name, value) VALUES ('schema', 1), ('revision', 0) ON CONFLICT DO NOTHING`,
}

// Names of rows in the table meta.
const (
	metaRevision   = "revision"
	metaSchema     = "schema"
	metaContracted = "contracted"
)

// tableState is how far the tables of a database are.
type tableState struct {
	version    int // expanded to; 0 without tables
	contracted int // the oldest program that they serve; 0 without tables
}

// OutdatedError says that a database has left a program behind.
type OutdatedError struct{ Contracted, Known int }

// Error implements error.
func (e *OutdatedError) Error() string {
	return fmt.Sprintf("the database is contracted to version %d, this program knows %d: a newer one is needed", e.Contracted, e.Known)
}

// serves is nil when a program of a version can work with the tables.
func (s tableState) serves(version int) error {
	if s.contracted > version {
		return &OutdatedError{s.contracted, version}
	}
	return nil
}

// lockTimeout is how long a migration waits for transactions of others to end,
// while all that come later wait for it.
const lockTimeout = "10s"

// beginMigration starts a transaction that keeps other migrations and all
// writers out, once there are tables.
func (d *database) beginMigration(ctx context.Context) (*dbTx, tableState, error) {
	tx, err := d.BeginTx(ctx, nil)
	if err != nil {
		return nil, tableState{}, err
	}
	t := &dbTx{Tx: tx, d: d}
	state, err := t.lockTables(ctx)
	if err != nil {
		t.end()
		return nil, tableState{}, err
	}
	return t, state, nil
}

func (t *dbTx) lockTables(ctx context.Context) (tableState, error) {
	if t.d.postgres {
		if err := t.exec(ctx, `SELECT pg_advisory_xact_lock(?)`, migrationLock); err != nil {
			return tableState{}, err
		}
		if err := t.exec(ctx, `SET LOCAL lock_timeout = '`+lockTimeout+`'`); err != nil {
			return tableState{}, err
		}
	}
	state, err := t.tableState(ctx)
	if err != nil || state.version == 0 {
		return state, err
	}
	query := `SELECT value FROM meta WHERE name = 'revision'`
	if t.d.postgres {
		query += ` FOR UPDATE`
	}
	if err := t.QueryRowContext(ctx, query).Scan(&t.revision); err != nil {
		return tableState{}, fmt.Errorf("read the revision: %w", err)
	}
	return state, nil
}

// tableState reads how far the tables are.
func (t *dbTx) tableState(ctx context.Context) (tableState, error) {
	query := `SELECT COUNT(*) FROM sqlite_master WHERE type = 'table' AND name = 'meta'`
	if t.d.postgres {
		query = `SELECT COUNT(*) FROM pg_class WHERE oid = to_regclass('meta')`
	}
	var tables int
	if err := t.QueryRowContext(ctx, query).Scan(&tables); err != nil || tables == 0 {
		return tableState{}, err
	}
	rows, err := t.query(ctx, `SELECT name, value FROM meta WHERE name IN (?, ?)`, metaSchema, metaContracted)
	if err != nil {
		return tableState{}, err
	}
	values, err := scanMeta(rows)
	return stateOf(values), err
}

// scanMeta reads rows of the table meta.
func scanMeta(rows *sql.Rows) (map[string]int64, error) {
	defer rows.Close()
	values := map[string]int64{}
	for rows.Next() {
		var name string
		var value int64
		if err := rows.Scan(&name, &value); err != nil {
			return nil, err
		}
		values[name] = value
	}
	return values, rows.Err()
}

func stateOf(meta map[string]int64) tableState {
	s := tableState{version: int(meta[metaSchema]), contracted: int(meta[metaContracted])}
	if s.version > 0 {
		s.contracted = max(s.contracted, 1)
	}
	return s
}

// migrate makes the tables, or expands them to what a program knows. Tables that
// are ahead of it are left as they are, as long as they serve it.
func (d *database) migrate(ctx context.Context, known schema) error {
	t, state, err := d.beginMigration(ctx)
	if err != nil {
		return err
	}
	defer t.end()
	if err := state.serves(known.version()); err != nil {
		return err
	}
	if state.version == 0 {
		if err := t.refuseTablesOfOthers(ctx); err != nil {
			return err
		}
	}
	if state.version <= 1 { // the first version grew while there was no other
		if err := t.run(ctx, known[0].expand); err != nil {
			return err
		}
		state.version = 1
	}
	if err := t.expand(ctx, state, known); err != nil {
		return err
	}
	return t.Commit()
}

// refuseTablesOfOthers fails when a database without tables of ours has any: its
// address may be wrong.
func (t *dbTx) refuseTablesOfOthers(ctx context.Context) error {
	query := `SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name LIMIT 1`
	if t.d.postgres {
		query = `SELECT tablename FROM pg_tables WHERE schemaname = current_schema() ORDER BY tablename LIMIT 1`
	}
	var table string
	switch err := t.QueryRowContext(ctx, query).Scan(&table); {
	case errors.Is(err, sql.ErrNoRows):
		return nil
	case err != nil:
		return err
	}
	return fmt.Errorf("another program has tables in this database (%s): give Planck one of its own", table)
}

func (t *dbTx) run(ctx context.Context, statements []string) error {
	for _, s := range statements {
		if _, err := t.ExecContext(ctx, s); err != nil {
			return err
		}
	}
	return nil
}

// expand brings tables that are there forward.
func (t *dbTx) expand(ctx context.Context, state tableState, known schema) error {
	if state.version >= known.version() {
		return nil
	}
	for v := state.version + 1; v <= known.version(); v++ {
		if err := t.run(ctx, known[v-1].expand); err != nil {
			return fmt.Errorf("expand to version %d: %w", v, err)
		}
	}
	return t.noteMigration(ctx, "expand_schema", metaSchema, known.version())
}

// contract takes away what programs older than a version needed.
func (t *dbTx) contract(ctx context.Context, state tableState, known schema) error {
	if state.contracted >= known.version() {
		return nil
	}
	for v := state.contracted + 1; v <= known.version(); v++ {
		if err := t.run(ctx, known[v-1].contract); err != nil {
			return fmt.Errorf("contract to version %d: %w", v, err)
		}
	}
	return t.noteMigration(ctx, "contract_schema", metaContracted, known.version())
}

// noteMigration writes how far the tables are, at a revision: every program
// follows the change log before it writes, and so learns of it in time.
func (t *dbTx) noteMigration(ctx context.Context, operation, name string, version int) error {
	const set = `INSERT INTO meta (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value`
	if err := t.exec(ctx, set, name, version); err != nil {
		return err
	}
	t.revision++
	entries, err := json.Marshal([]objectKey{})
	if err != nil {
		return err
	}
	if err := t.exec(ctx, `INSERT INTO changes (revision, at, request_id, project_id, user_id, operation, entries) VALUES (?, ?, '', '', '', ?, ?)`,
		int64(t.revision), time.Now().UTC().Format(time.RFC3339Nano), operation, string(entries)); err != nil {
		return err
	}
	return t.setRevision(ctx, t.revision)
}

// setRevision writes the newest revision, and tells the others when the
// transaction is committed.
func (t *dbTx) setRevision(ctx context.Context, revision uint64) error {
	if err := t.exec(ctx, `UPDATE meta SET value = ? WHERE name = 'revision'`, int64(revision)); err != nil {
		return err
	}
	if !t.d.postgres {
		return nil
	}
	return t.exec(ctx, `SELECT pg_notify('`+notifyChannel+`', ?)`, strconv.FormatUint(revision, 10))
}

// Member is a program that works with a database.
type Member struct {
	Name    string
	Version string // of the program
	Schema  int    // that it knows
}

// Living lists the members that live. One that joins meanwhile finds out by
// itself when the database has left it behind.
type Living func(ctx context.Context, tx *sql.Tx) ([]Member, error)

// Migration is what Migrate did.
type Migration struct {
	From, To tableRange
	// Older are the members for which the contraction waits.
	Older []Member
}

// tableRange is tableState for those who are told.
type tableRange struct {
	Schema     int `json:"schema"`
	Contracted int `json:"contracted"`
}

func (s tableState) told() tableRange { return tableRange{s.version, s.contracted} }

// ErrInUse says that a program works with an SQLite database.
var ErrInUse = errors.New("a controller works with the database")

// Migrate makes the tables of a database, or expands them, and contracts them
// unless an older program works with them.
func Migrate(ctx context.Context, dsn string, living Living) (*Migration, error) {
	return migrateTo(ctx, dsn, ownSchema, living)
}

func migrateTo(ctx context.Context, dsn string, known schema, living Living) (*Migration, error) {
	d, err := connect(dsn, maintenance)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	m := &Migration{}
	before, err := d.state(ctx)
	if err != nil {
		return nil, err
	}
	m.From = before.told()
	if err := d.migrate(ctx, known); err != nil {
		return nil, fmt.Errorf("database schema: %w", err)
	}
	if m.Older, err = d.contract(ctx, known, living); err != nil {
		return nil, fmt.Errorf("database schema: %w", err)
	}
	after, err := d.state(ctx)
	m.To = after.told()
	return m, err
}

func (d *database) state(ctx context.Context) (tableState, error) {
	tx, err := d.BeginTx(ctx, nil)
	if err != nil {
		return tableState{}, err
	}
	t := &dbTx{Tx: tx, d: d}
	defer t.end()
	return t.tableState(ctx)
}

// contract contracts the tables, or tells whom it waits for.
func (d *database) contract(ctx context.Context, known schema, living Living) (older []Member, err error) {
	t, state, err := d.beginMigration(ctx)
	if err != nil {
		return nil, err
	}
	defer t.end()
	if state.contracted >= known.version() {
		return nil, nil
	}
	release, members, err := t.keepOut(ctx, living)
	if err != nil {
		return nil, err
	}
	defer release()
	for _, m := range members {
		if m.Schema < known.version() {
			older = append(older, m)
		}
	}
	if len(older) > 0 {
		return older, nil
	}
	if err := t.contract(ctx, state, known); err != nil {
		return nil, err
	}
	return nil, t.Commit()
}

// keepOut lists who works with the database, and keeps others from beginning
// until it is released. On SQLite nobody knows who it is.
func (t *dbTx) keepOut(ctx context.Context, living Living) (release func(), members []Member, err error) {
	if t.d.postgres {
		members, err = living(ctx, t.Tx)
		return func() {}, members, err
	}
	lock, err := lockFile(t.d.path, true)
	if errors.Is(err, ErrInUse) {
		return func() {}, []Member{{Name: "the controller"}}, nil
	}
	if err != nil {
		return nil, nil, err
	}
	return func() { lock.Close() }, nil, nil
}
