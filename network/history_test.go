package network

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestModelIsKeptAsItWas(t *testing.T) {
	onEach(t, func(t *testing.T, dsn string) {
		cfg := DefaultConfig()
		cfg.ViewsKept = 3
		s := open(t, dsn, cfg)
		n := newNetwork(t, s)
		var revisions []uint64
		for _, name := range []string{"a", "b", "c", "d"} {
			v := update(t, s, func(tx *Tx) error {
				now := tx.Network(n.ID).Clone()
				now.Name = name
				return tx.UpdateNetwork(now)
			})
			revisions = append(revisions, v.Revision())
		}
		for i, name := range []string{"b", "c", "d"} {
			v, err := s.ViewAt(revisions[i+1])
			if err != nil {
				t.Fatal(err)
			}
			if v.Revision() != revisions[i+1] || v.Network(n.ID).Name != name {
				t.Errorf("at revision %d: revision %d, name %q, want %q", revisions[i+1], v.Revision(), v.Network(n.ID).Name, name)
			}
		}
		if s.Oldest() != revisions[1] {
			t.Errorf("the oldest is %d, want %d", s.Oldest(), revisions[1])
		}
		for revision, says := range map[uint64]string{revisions[0]: "is not kept", revisions[3] + 1: "is not there yet"} {
			var e *Error
			if _, err := s.ViewAt(revision); !errors.As(err, &e) || e.Class != NotFound || !strings.Contains(e.Message, says) || !strings.Contains(e.Message, "revisions") {
				t.Errorf("revision %d: %v", revision, err)
			}
		}
	})
}

func TestEveryRevisionOfABatchIsKept(t *testing.T) {
	s := open(t, "sqlite://"+t.TempDir()+"/planck.db", DefaultConfig())
	n := newNetwork(t, s)
	const writers = 50
	views := make(chan *View, writers)
	for i := range writers {
		go func() {
			v, err := s.Update(t.Context(), Cause{}, func(tx *Tx) error {
				now := tx.Network(n.ID).Clone()
				now.Name = strings.Repeat("x", i+1)
				return tx.UpdateNetwork(now)
			})
			if err != nil {
				t.Error(err)
			}
			views <- v
		}()
	}
	for range writers {
		v := <-views
		if v == nil {
			continue
		}
		kept, err := s.ViewAt(v.Revision())
		if err != nil || kept.Network(n.ID) != v.Network(n.ID) {
			t.Errorf("revision %d: %v", v.Revision(), err)
		}
	}
}

func TestOldViewsGo(t *testing.T) {
	h := history{most: 10, age: time.Minute}
	start := time.Now()
	h.add(start, []*View{{revision: 1}, {revision: 2}})
	h.add(start.Add(time.Second), []*View{{revision: 5}})
	h.expire(start.Add(time.Minute + time.Millisecond))
	if _, below, above := h.at(4); below != 0 || above != 5 {
		t.Errorf("beside 4 are %d and %d", below, above)
	}
	h.expire(start.Add(time.Hour))
	if v, _, _ := h.at(5); v == nil {
		t.Error("the newest is gone")
	}
	h.add(start.Add(time.Hour), []*View{{revision: 6}, {revision: 3}}) // as after a restore
	if _, below, above := h.at(2); below != 0 || above != 3 || h.oldest() != 3 {
		t.Errorf("beside 2 are %d and %d, the oldest is %d", below, above, h.oldest())
	}
}

func TestChangeLogIsRead(t *testing.T) {
	onEachStore(t, func(t *testing.T, s *Store) {
		var ids []string
		for _, request := range []string{"req-1", "req-2", "req-3"} {
			n := &Network{Standard: Standard{ProjectID: "blue"}}
			cause := Cause{RequestID: request, ProjectID: "blue", UserID: "ann", Operation: "create_network"}
			if _, err := s.Update(t.Context(), cause, func(tx *Tx) error { return tx.CreateNetwork(n) }); err != nil {
				t.Fatal(err)
			}
			ids = append(ids, n.ID)
		}
		newest := s.View().Revision()
		list, err := s.Logged(t.Context(), LogQuery{Most: 2})
		if err != nil || len(list) != 2 || list[0].Revision != newest || list[1].Revision != newest-1 {
			t.Fatalf("the newest two: %v, %v", list, err)
		}
		if l := list[0]; l.Cause != (Cause{"req-3", "blue", "ann", "create_network"}) ||
			!slices.Contains(l.Objects, Ref{KindNetwork, ids[2]}) || time.Since(l.At) > time.Hour || time.Since(l.At) < -time.Hour {
			t.Errorf("the newest: %+v", l)
		}
		for _, c := range []struct {
			query LogQuery
			want  string
		}{
			{LogQuery{Before: newest, Most: 1}, "req-2"},
			{LogQuery{RequestID: "req-1", Most: 10}, "req-1"},
		} {
			if list, err := s.Logged(t.Context(), c.query); err != nil || len(list) != 1 || list[0].Cause.RequestID != c.want {
				t.Errorf("%+v: %v, %v, want %s", c.query, list, err, c.want)
			}
		}
		for _, q := range []LogQuery{{RequestID: "req-9", Most: 10}, {Before: 1, Most: 10}} {
			if list, err := s.Logged(t.Context(), q); err != nil || len(list) != 0 {
				t.Errorf("%+v: %v, %v", q, list, err)
			}
		}
	})
}

// TestChangesHaveTheirRevisions: those of another program, too.
func TestChangesHaveTheirRevisions(t *testing.T) {
	onEach(t, func(t *testing.T, dsn string) {
		s, other := open(t, dsn, DefaultConfig()), open(t, dsn, DefaultConfig())
		n := newNetwork(t, s)
		rename := func(by *Store, name string) uint64 {
			return update(t, by, func(tx *Tx) error {
				now := tx.Network(n.ID).Clone()
				now.Name = name
				return tx.UpdateNetwork(now)
			}).Revision()
		}
		f := s.Follow()
		defer f.Close()
		next(t, f)
		want := []uint64{rename(s, "a"), rename(other, "b"), rename(other, "c"), rename(s, "d")}
		b := next(t, f)
		if len(b.Changes) != 1 || !slices.Equal(b.Changes[0].Revisions, want) {
			t.Errorf("changes %+v, want one of the revisions %v", b.Changes, want)
		}
	})
}
