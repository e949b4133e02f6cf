package cluster

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/lib/pq"
)

// Each change of the one row of the table cluster is one statement, so that no
// member holds it while it waits for a processor: what was read before is
// compared with what is there.

// snapshot is the state as the database had it at a moment.
type snapshot struct {
	state
	clocks
	revision uint64 // of the model
	leases   []int64
	text     string // members, as they are written
}

func (s *snapshot) held(session int64) bool { return slices.Contains(s.leases, session) }

const revisionStatement = `SELECT value FROM meta WHERE name = 'revision'`

// columns make a snapshot. A lock with a key of 64 bits has objsubid 1.
const columns = `generation, members, clock_timestamp(), pg_postmaster_start_time(),
	(` + revisionStatement + `),
	ARRAY(SELECT (classid::bigint << 32) | objid::bigint FROM pg_locks
		WHERE locktype = 'advisory' AND objsubid = 1 AND granted
		AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))`

const readStatement = `SELECT ` + columns + ` FROM cluster`

// table is the table cluster by way of a connection. The statements are prepared,
// which saves a round trip of each: that, too, waits for a processor.
type table struct{ reading, signing, swapping, dating *sql.Stmt }

func openTable(ctx context.Context, conn *sql.Conn) (*table, error) {
	ctx, cancel := context.WithTimeout(ctx, beatTimeout)
	defer cancel()
	t := &table{}
	for _, statement := range []struct {
		to   **sql.Stmt
		text string
	}{{&t.reading, readStatement}, {&t.signing, signStatement}, {&t.swapping, swapStatement}, {&t.dating, revisionStatement}} {
		var err error
		if *statement.to, err = conn.PrepareContext(ctx, statement.text); err != nil {
			t.close()
			return nil, fmt.Errorf("prepare for the table cluster: %w", err)
		}
	}
	return t, nil
}

// close fails only with the connection, which shows by itself.
func (t *table) close() {
	for _, s := range []*sql.Stmt{t.reading, t.signing, t.swapping, t.dating} {
		if s != nil {
			s.Close()
		}
	}
}

func (t *table) read(ctx context.Context) (*snapshot, error) {
	return scan(t.reading.QueryRowContext(ctx))
}

// revision is that of the model.
func (t *table) revision(ctx context.Context) (uint64, error) {
	var revision uint64
	if err := t.dating.QueryRowContext(ctx).Scan(&revision); err != nil {
		return 0, fmt.Errorf("revision of the model: %w", err)
	}
	return revision, nil
}

func scan(row *sql.Row) (*snapshot, error) {
	s := &snapshot{}
	if err := row.Scan(&s.Generation, &s.text, &s.now, &s.started, &s.revision, pq.Array(&s.leases)); err != nil {
		return nil, fmt.Errorf("the table cluster: %w", err)
	}
	if err := json.Unmarshal([]byte(s.text), &s.Members); err != nil {
		return nil, fmt.Errorf("members of the cluster: %w", err)
	}
	return s, nil
}

// sign notes a sign of life of a member whose session is alive, and returns
// what is there then. It need not wait for the disk.
func (t *table) sign(ctx context.Context, name string, session int64) (*snapshot, error) {
	s, err := scan(t.signing.QueryRowContext(ctx, name, session))
	if errors.Is(err, sql.ErrNoRows) {
		return t.read(ctx)
	}
	return s, err
}

const signStatement = `UPDATE cluster SET members = (
			SELECT jsonb_agg(CASE WHEN m->>'name' = $1
				THEN jsonb_set(m, '{beat}', to_jsonb(to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')))
				ELSE m END ORDER BY i)
			FROM jsonb_array_elements(members::jsonb) WITH ORDINALITY AS entry(m, i))
		WHERE set_config('synchronous_commit', 'off', true) = 'off' AND members::jsonb @>
			jsonb_build_array(jsonb_build_object('name', $1::text, 'session', $2::bigint, 'alive', true))
		RETURNING ` + columns

// The members, there and as they were read, without the signs of life of some.
const (
	withoutSigns = `(SELECT jsonb_agg(CASE WHEN m->>'name' = ANY($1) THEN m - 'beat' ELSE m END ORDER BY i) FROM jsonb_array_elements(`
	ofThese      = `::jsonb) WITH ORDINALITY AS entry(m, i))`
)

const swapStatement = `UPDATE cluster SET generation = $2, members = coalesce((
		SELECT jsonb_agg(CASE WHEN m->>'name' = ANY($1) THEN jsonb_set(m, '{beat}', old->'beat') ELSE m END ORDER BY i)
		FROM jsonb_array_elements($3::jsonb) WITH ORDINALITY AS entry(m, i)
		LEFT JOIN jsonb_array_elements(members::jsonb) old ON old->>'name' = m->>'name'), '[]')
	WHERE generation = $4 AND ` + withoutSigns + `members` + ofThese + ` IS NOT DISTINCT FROM ` + withoutSigns + `$5` + ofThese

// swap writes a state that was made of a snapshot, and reports whether nobody
// else had changed that. Members that live on may show signs of life meanwhile,
// those that are taken for dead may not.
func (t *table) swap(ctx context.Context, old *snapshot, next *state, me string) (bool, error) {
	members, err := json.Marshal(next.Members)
	if err != nil {
		return false, err
	}
	result, err := t.swapping.ExecContext(ctx, pq.Array(others(next, me)), int64(next.Generation), string(members), int64(old.Generation), old.text)
	if err != nil {
		return false, fmt.Errorf("change the table cluster: %w", err)
	}
	n, err := result.RowsAffected()
	return n > 0, err
}

// others are the members besides one that a state has as alive.
func others(s *state, me string) []string {
	names := []string{}
	for _, m := range s.Members {
		if m.Alive && m.Name != me {
			names = append(names, m.Name)
		}
	}
	return names
}

// Members are all members as the database has them, each judged now: one whose
// lease is held lives, though it may be stopped. It changes nothing.
func Members(ctx context.Context, tx *sql.Tx) ([]Member, error) {
	s, err := scan(tx.QueryRowContext(ctx, readStatement))
	if err != nil {
		return nil, err
	}
	for i := range s.Members {
		m := &s.Members[i]
		m.Alive = s.held(m.Session) || m.Alive && !m.dead(s.clocks, silence, 0, s.held)
	}
	return s.Members, nil
}

// Forget removes a dead member for good. It fails when there is no such member,
// or when it is alive.
func (c *Cluster) Forget(ctx context.Context, name string) error {
	conn, err := c.opt.Database.Postgres().Conn(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	t, err := openTable(ctx, conn)
	if err != nil {
		return err
	}
	defer t.close()
	for {
		old, err := t.read(ctx)
		if err != nil {
			return err
		}
		next := old.clone()
		if !next.forget(name) {
			return ErrNotDead
		}
		if swapped, err := t.swap(ctx, old, &next, ""); swapped || err != nil {
			return err
		}
	}
}

// ErrNotDead refuses to forget a member.
var ErrNotDead = errors.New("no dead member has this name")
