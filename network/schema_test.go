package network

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// nextSchema is that of a program to come: it has another table and column, what
// it notes about ports, and an object that owns what others may want.
var nextSchema = append(slices.Clone(ownSchema), migration{
	expand: []string{
		`CREATE TABLE trunks (id TEXT PRIMARY KEY)`,
		`ALTER TABLE claims ADD COLUMN note TEXT NOT NULL DEFAULT ''`,
		`UPDATE objects SET body = '{"hint":{"depth":7},' || substr(body, 2) WHERE kind = 'port'`,
		`INSERT INTO objects (kind, id, revision, body) VALUES ('trunk', 't1', 1, '{"id":"t1"}')`,
		`INSERT INTO claims (space, key, owner_kind, owner_id) VALUES ('network_key', '2', 'trunk', 't1'), ('trunk', 'x', 'trunk', 't1')`,
	},
	contract: []string{`ALTER TABLE claims DROP COLUMN note`},
})

func openNext(t *testing.T, dsn string) *Store {
	t.Helper()
	s, err := openKnowing(t.Context(), dsn, DefaultConfig(), nextSchema)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func text(t *testing.T, s *Store, query string) string {
	t.Helper()
	var out string
	if err := s.db.QueryRow(query).Scan(&out); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return out
}

func count(t *testing.T, s *Store, query string) (n int) {
	t.Helper()
	if err := s.db.QueryRow(query).Scan(&n); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return n
}

func TestOlderProgramGoesOnBesideANewerOne(t *testing.T) {
	onEach(t, func(t *testing.T, dsn string) {
		older := open(t, dsn, DefaultConfig())
		n := newNetwork(t, older) // has the network key 1
		newSubnet(t, older, n, "10.0.0.0/24")
		p, gone := newPort(t, older, n), newPort(t, older, n)
		newer := openNext(t, dsn)

		// It was running when the tables were expanded, and one starts after that.
		for _, s := range []*Store{older, open(t, dsn, DefaultConfig())} {
			other := newNetwork(t, s)
			if other.Key <= 2 {
				t.Fatalf("the key %d was given out, that of an object that is not known", other.Key)
			}
			update(t, s, func(tx *Tx) error {
				changed := tx.Port(p.ID).Clone()
				changed.Name += "renamed"
				return tx.UpdatePort(changed)
			})
			var port struct {
				Name string
				Hint map[string]int
			}
			if err := json.Unmarshal([]byte(text(t, s, `SELECT body FROM objects WHERE kind = 'port' AND id = '`+p.ID+`'`)), &port); err != nil {
				t.Fatal(err)
			}
			if !strings.HasSuffix(port.Name, "renamed") || port.Hint["depth"] != 7 {
				t.Fatalf("an older program wrote the port as %+v", port)
			}
		}
		update(t, older, func(tx *Tx) error { return tx.DeletePort(gone.ID) })
		if count(t, older, `SELECT COUNT(*) FROM objects WHERE kind = 'trunk'`) != 1 || count(t, older, `SELECT COUNT(*) FROM claims WHERE owner_kind = 'trunk'`) != 2 {
			t.Error("an older program lost an object that it does not know")
		}
		update(t, newer, func(*Tx) error { return nil })
		sameView(t, "an older and a newer program", older.View(), newer.View())
	})
}

func TestClaimsOfWhatIsNotKnownComeAndGo(t *testing.T) {
	onEach(t, func(t *testing.T, dsn string) {
		older := open(t, dsn, DefaultConfig())
		n := newNetwork(t, older)
		openNext(t, dsn)
		// What a newer program writes later: another object, and a claim of a network.
		note := func(statements ...string) {
			t.Helper()
			tx, err := older.db.begin(t.Context(), true)
			if err != nil {
				t.Fatal(err)
			}
			defer tx.end()
			entries := fmt.Sprintf(`[["trunk","t1"],["trunk","t2"],["network",%q]]`, n.ID)
			for _, s := range append(statements, fmt.Sprintf(`INSERT INTO changes (revision, at, request_id, project_id, user_id, operation, entries) VALUES (%d, '', '', '', '', '', '%s')`, tx.revision+1, entries)) {
				if err := tx.exec(t.Context(), s); err != nil {
					t.Fatal(err)
				}
			}
			if err := errors.Join(tx.setRevision(t.Context(), tx.revision+1), tx.Commit()); err != nil {
				t.Fatal(err)
			}
		}
		held := func(key string) bool {
			update(t, older, func(*Tx) error { return nil })
			_, held := older.View().claimant(spaceNetworkKey, key)
			return held
		}
		note(`DELETE FROM claims WHERE owner_id = 't1'`, `DELETE FROM objects WHERE id = 't1'`,
			`INSERT INTO objects (kind, id, revision, body) VALUES ('trunk', 't2', 1, '{}')`,
			`INSERT INTO claims (space, key, owner_kind, owner_id) VALUES ('network_key', '50', 'trunk', 't2'), ('network_key', '51', 'network', '`+n.ID+`')`)
		if held("2") || !held("50") || !held("51") {
			t.Errorf("claims: 2 %v, 50 %v, 51 %v", held("2"), held("50"), held("51"))
		}
		update(t, older, func(tx *Tx) error { return tx.DeleteNetwork(n.ID) })
		if held("51") || count(t, older, `SELECT COUNT(*) FROM claims WHERE key = '51'`) != 0 {
			t.Error("a claim of a network outlives it")
		}
	})
}

func TestContractionWaitsForOlderMembers(t *testing.T) {
	onEach(t, func(t *testing.T, dsn string) {
		older := open(t, dsn, DefaultConfig())
		members := []Member{{"a", "v1", ownSchema.version()}, {"b", "v2", nextSchema.version()}}
		living := func(context.Context, *sql.Tx) ([]Member, error) { return members, nil }
		step := func(contracted int, older ...string) {
			t.Helper()
			m, err := migrateTo(t.Context(), dsn, nextSchema, living)
			if err != nil {
				t.Fatal(err)
			}
			var names []string
			for _, o := range m.Older {
				names = append(names, o.Name)
			}
			if m.To != (tableRange{nextSchema.version(), contracted}) || !slices.Equal(names, older) {
				t.Fatalf("from %+v to %+v, waiting for %v; want %d contracted and %v", m.From, m.To, names, contracted, older)
			}
		}
		if older.db.postgres {
			step(1, "a")
			members = members[1:]
		} else {
			// Who works with SQLite is not known.
			step(1, "the controller")
		}
		newNetwork(t, older)
		if !older.db.postgres {
			if err := older.Close(); err != nil {
				t.Fatal(err)
			}
		}
		step(nextSchema.version())
		step(nextSchema.version())
		_, err := Open(t.Context(), dsn, DefaultConfig())
		if outdated, ok := errors.AsType[*OutdatedError](err); !ok || outdated.Contracted != nextSchema.version() {
			t.Errorf("an older program opened contracted tables: %v", err)
		}
		openNext(t, dsn)
		if !older.db.postgres {
			return
		}
		// One that was about to join finds out, and writes nothing.
		_, err = older.Update(t.Context(), Cause{}, func(tx *Tx) error { return tx.CreateNetwork(&Network{}) })
		if e, ok := errors.AsType[*Error](err); !ok || e.Class != Unavailable {
			t.Errorf("an older program wrote into contracted tables: %v", err)
		}
		select {
		case <-older.Outdated():
		case <-time.After(time.Minute):
			t.Error("an older program does not know that it must end")
		}
	})
}

// Who waits for a revision must see it though nothing that is known changed.
func TestRevisionWithoutAKnownChangeReachesFollowers(t *testing.T) {
	onEach(t, func(t *testing.T, dsn string) {
		s := open(t, dsn, DefaultConfig())
		f := s.Follow()
		defer f.Close()
		if _, err := f.Next(t.Context()); err != nil {
			t.Fatal(err)
		}
		openNext(t, dsn)
		b, err := f.Next(t.Context())
		if err != nil || b.View.Revision() != 1 || len(b.Changes) != 0 {
			t.Fatalf("revision %d, changes %v, %v", b.View.Revision(), b.Changes, err)
		}
	})
}

func TestMigrationThatFailsChangesNothing(t *testing.T) {
	onEach(t, func(t *testing.T, dsn string) {
		s := open(t, dsn, DefaultConfig())
		n := newNetwork(t, s)
		broken := append(slices.Clone(ownSchema), migration{expand: []string{`CREATE TABLE trunks (id TEXT)`, `DELETE FROM objects`, `nonsense`}})
		if _, err := openKnowing(t.Context(), dsn, DefaultConfig(), broken); err == nil || !strings.Contains(err.Error(), "expand to version 2") {
			t.Errorf("opened, or %v", err)
		}
		if again := open(t, dsn, DefaultConfig()); again.View().Network(n.ID) == nil || again.View().Revision() != 1 {
			t.Error("a migration that failed has changed something")
		}
		openNext(t, dsn)
	})
}

func TestDatabaseOfAnotherProgramIsLeftAlone(t *testing.T) {
	onEach(t, func(t *testing.T, dsn string) {
		d, err := connect(dsn, maintenance)
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		if _, err := d.ExecContext(t.Context(), `CREATE TABLE accounts (id TEXT)`); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(t.Context(), dsn, DefaultConfig()); err == nil || !strings.Contains(err.Error(), "another program has tables in this database (accounts)") {
			t.Errorf("opened, or %v", err)
		}
		if state, err := d.state(t.Context()); err != nil || state.version != 0 {
			t.Errorf("it has tables of ours now: %+v %v", state, err)
		}
	})
}

func TestUnknownFieldsOutliveAChange(t *testing.T) {
	const host = `{"name":"h","system_id":"s","tunnel_ip":"","datapath_type":"","ovs_version":"","key":1,"bridges":{"br-int":{"datapath_id":1,"new":1},"br-x":{"datapath_id":2,"new":2}}}`
	for what, c := range map[string]struct {
		object   Object
		old, new string // what is written by who knows it, and by who does not
		want     string
	}{
		"a field": {&Agent{}, `{"host":"h","admin_state_up":true,"description":"d","new":{"a":[1]}}`, `{"host":"h","admin_state_up":false}`,
			`{"admin_state_up":false,"host":"h","new":{"a":[1]}}`},
		"of an embedded struct": {&Network{}, `{"id":"n","name":"a","new":1}`, `{"id":"n","name":"b"}`, `{"id":"n","name":"b","new":1}`},
		"of a struct inside":    {&Port{}, `{"binding":{"host":"h","new":1}}`, `{"binding":{"host":"g"}}`, `{"binding":{"host":"g","new":1}}`},
		"of elements that stay": {&Port{}, `{"fixed_ips":[{"subnet_id":"a","ip_address":"10.0.0.1","new":1},{"subnet_id":"b","ip_address":"10.0.1.1","new":2}]}`,
			`{"fixed_ips":[{"subnet_id":"b","ip_address":"10.0.1.1"},{"subnet_id":"c","ip_address":"10.0.2.1"}]}`,
			`{"fixed_ips":[{"subnet_id":"b","ip_address":"10.0.1.1","new":2},{"subnet_id":"c","ip_address":"10.0.2.1"}]}`},
		"of a map's values": {&Host{}, host, strings.ReplaceAll(strings.ReplaceAll(host, `,"new":1`, ``), `,"br-x":{"datapath_id":2,"new":2}`, ``),
			`{"bridges":{"br-int":{"datapath_id":1,"new":1}},"datapath_type":"","key":1,"name":"h","ovs_version":"","system_id":"s","tunnel_ip":""}`},
		"not of free dictionaries": {&Port{}, `{"binding":{"profile":{"a":1,"b":2}}}`, `{"binding":{"profile":{"a":1}}}`, `{"binding":{"profile":{"a":1}}}`},
	} {
		got, err := keepUnknown(c.object, []byte(c.old), []byte(c.new))
		if err != nil || string(got) != c.want {
			t.Errorf("%s: %v\n%s, want\n%s", what, err, got, c.want)
		}
	}
}
