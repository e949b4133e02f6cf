package cluster

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"planck/network"
	"planck/test/pg"
)

// member is a connection of one.
type member struct {
	*sql.Conn
	*table
}

func newStore(t *testing.T) *network.Store {
	t.Helper()
	store, err := network.Open(t.Context(), pg.Start(t), network.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	return store
}

func newMember(t *testing.T, store *network.Store) member {
	t.Helper()
	conn, err := store.Shared().Postgres().Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	table, err := openTable(t.Context(), conn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(table.close)
	return member{conn, table}
}

// write puts a state into the table, whatever is there.
func (m member) write(t *testing.T, s *state) {
	t.Helper()
	members, err := json.Marshal(s.Members)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.ExecContext(t.Context(), `UPDATE cluster SET generation = $1, members = $2`, int64(s.Generation), string(members)); err != nil {
		t.Fatal(err)
	}
}

// randomState is one of three members.
func randomState(r *rand.Rand) state {
	s := state{Generation: 5}
	for i := range 3 {
		m := Member{
			Name: string(rune('a' + i)), Session: 1<<61 + int64(i), Alive: r.IntN(4) > 0, Leaving: r.IntN(8) == 0,
			Joined: epoch, Beat: epoch.Add(time.Duration(r.Int64N(int64(time.Minute)))).Truncate(time.Microsecond),
		}
		if r.IntN(3) == 0 {
			m.Blind = []string{"host1"}
		}
		if r.IntN(4) == 0 {
			m.unknown = map[string]json.RawMessage{"zone": json.RawMessage(`"rack3"`)}
		}
		s.Members = append(s.Members, m)
	}
	return s
}

// disturb changes what was read, or does not.
func disturb(r *rand.Rand, s *state) {
	m := &s.Members[r.IntN(len(s.Members))]
	switch r.IntN(6) {
	case 0, 1, 2:
		m.Beat = m.Beat.Add(time.Second)
	case 3:
		m.Session++
	case 4:
		s.Generation++
	}
}

// The simulation proves something of what PostgreSQL does only as far as both do
// the same.
func TestStatementsDoWhatIsSimulated(t *testing.T) {
	m := newMember(t, newStore(t))
	r := rand.New(rand.NewPCG(1, 1))
	swaps := 0
	if _, err := m.ExecContext(t.Context(), `UPDATE meta SET value = 7 WHERE name = 'revision'`); err != nil {
		t.Fatal(err)
	}
	for i := range 400 {
		was := randomState(r)
		m.write(t, &was)
		old, err := m.read(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if !old.equal(&was, "") {
			t.Fatalf("%d: read %+v, written %+v", i, old.state, was)
		}
		now, next := was.clone(), was.clone()
		disturb(r, &now)
		m.write(t, &now)
		next.Generation++
		next.Members[0].Beat = next.Members[0].Beat.Add(time.Minute)
		next.Members[1+r.IntN(2)].Alive = false
		swapped, err := m.swap(t.Context(), old, &next, "a")
		if err != nil {
			t.Fatal(err)
		}
		if want := refresh(&next, &old.state, &now, "a"); swapped != want {
			t.Fatalf("%d: swapped %v, want %v: read %+v, then %+v, judged %+v", i, swapped, want, was, now, next)
		}
		want := &now
		if swapped {
			want = &next
			swaps++
		}
		if revision, err := m.revision(t.Context()); err != nil || revision != 7 || old.revision != 7 {
			t.Fatalf("revision %d and %d, want 7, %v", revision, old.revision, err)
		}
		if got, err := m.read(t.Context()); err != nil || !got.equal(want, "") {
			t.Fatalf("%d: %+v, want %+v, %v", i, got.state, want, err)
		}
	}
	if swaps < 50 || swaps > 350 {
		t.Errorf("%d of 400 were swapped: the test does not try both", swaps)
	}
}

func TestOnlyALivingSessionShowsSigns(t *testing.T) {
	m := newMember(t, newStore(t))
	was := state{Generation: 5, Members: []Member{{Name: "a", Session: 1 << 61, Alive: true, Beat: epoch}, {Name: "b", Session: 7, Beat: epoch}}}
	for _, test := range []struct {
		name    string
		session int64
		signed  bool
	}{{"a", 1 << 61, true}, {"a", 1<<61 + 1, false}, {"b", 7, false}, {"c", 1 << 61, false}} {
		m.write(t, &was)
		got, err := m.sign(t.Context(), test.name, test.session)
		if err != nil {
			t.Fatal(err)
		}
		signed := !got.equal(&was, "")
		if signed != test.signed || !got.equal(&was, "a") {
			t.Errorf("%s in session %d: signed %v, %+v", test.name, test.session, signed, got.state)
		}
		if age := got.now.Sub(got.shown("a")); signed && (age < 0 || age > time.Minute) {
			t.Errorf("the sign of life is %v old by the clock of the database", age)
		}
	}
}

// Members that show signs of life while others judge must not lose any, nor stop
// them from coming to an end.
func TestSignsOfLifeAreNotLost(t *testing.T) {
	store := newStore(t)
	m := newMember(t, store)
	const each = 100
	names := []string{"a", "b", "c"}
	s := state{Generation: 1}
	for i, name := range names {
		s.Members = append(s.Members, Member{Name: name, Session: int64(i + 1), Alive: true, Beat: epoch})
	}
	m.write(t, &s)
	var running sync.WaitGroup
	for i, name := range names {
		own := newMember(t, store)
		running.Go(func() {
			if err := own.signAndSwap(t.Context(), name, int64(i+1), each); err != nil {
				t.Error(err)
			}
		})
	}
	running.Wait()
	got, err := m.read(t.Context())
	if err != nil || got.Generation != 1+uint64(len(names)*each) {
		t.Errorf("generation %d after %d changes, %v", got.Generation, len(names)*each, err)
	}
}

// signAndSwap makes changes of a member, each between two signs of life.
func (m member) signAndSwap(ctx context.Context, name string, session int64, changes int) error {
	last := epoch
	for changes > 0 {
		old, err := m.sign(ctx, name, session)
		if err != nil {
			return err
		}
		if now := old.shown(name); !now.After(last) {
			return fmt.Errorf("the sign of life of %s is of %v, the one before of %v", name, now, last)
		}
		last = old.shown(name)
		next := old.clone()
		next.Generation++
		swapped, err := m.swap(ctx, old, &next, name)
		if err != nil {
			return err
		}
		if swapped {
			changes--
		}
	}
	return nil
}
