package network

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"planck/test/pg"
)

// breakCommit makes the connection break at the next COMMIT, and no other one
// succeed for a while.
func breakCommit(w *pg.Way, when pg.Lost, away time.Duration) (broken *atomic.Bool) {
	broken = new(atomic.Bool)
	lose := func(data []byte) pg.Lost {
		if !bytes.Contains(data, []byte("COMMIT\x00")) || broken.Swap(true) {
			return pg.LostNever
		}
		if away > 0 {
			w.Down.Store(true)
			time.AfterFunc(away, func() { w.Down.Store(false) })
		}
		return when
	}
	w.Lose.Store(&lose)
	return broken
}

func TestCommitWhoseAnswerIsLostIsLookedUp(t *testing.T) {
	for name, c := range map[string]struct {
		when pg.Lost
		away time.Duration
		want bool
	}{
		"it was done":                            {pg.LostAfter, 0, true},
		"it was done and the database goes away": {pg.LostAfter, 500 * time.Millisecond, true},
		"it was not done":                        {pg.LostBefore, 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			dsn := pg.Start(t)
			way := pg.NewWay(t, dsn)
			s := open(t, way.DSN, DefaultConfig())
			before := newNetwork(t, s)
			broken := breakCommit(way, c.when, c.away)
			n := &Network{Standard: Standard{Name: "doubtful"}}
			view, err := s.Update(t.Context(), Cause{}, func(tx *Tx) error { return tx.CreateNetwork(n) })
			if !broken.Load() {
				t.Fatal("the connection did not break")
			}
			if refusal := new(Error); c.want && err != nil || !c.want && (!errors.As(err, &refusal) || refusal.Class != Unavailable) {
				t.Fatalf("the change was made: %t; got %v", c.want, err)
			}
			if c.want && view.Network(n.ID) == nil {
				t.Error("the caller does not see what it wrote")
			}
			other := open(t, dsn, DefaultConfig())
			for what, v := range map[string]*View{"the store": s.View(), "another": other.View()} {
				if v.Network(before.ID) == nil || (v.Network(n.ID) != nil) != c.want {
					t.Errorf("%s has the change: %t, want %t", what, v.Network(n.ID) != nil, c.want)
				}
			}
			after := newNetwork(t, s)
			if want := before.Key + 2; after.Key != want && c.want {
				t.Errorf("the next network has the key %d, want %d", after.Key, want)
			}
			checkInvariants(t, s)
			if err := s.Ready(); err != nil {
				t.Errorf("the store is not ready: %v", err)
			}
		})
	}
}

func TestAnotherWriterIsNotTakenForOneselfAfterALostCommit(t *testing.T) {
	dsn := pg.Start(t)
	way := pg.NewWay(t, dsn)
	s, other := open(t, way.DSN, DefaultConfig()), open(t, dsn, DefaultConfig())
	breakCommit(way, pg.LostBefore, 500*time.Millisecond)
	refused := make(chan error)
	go func() {
		_, err := s.Update(context.Background(), Cause{}, func(tx *Tx) error { return tx.CreateNetwork(&Network{}) })
		refused <- err
	}()
	// It takes the revision that the other one did not get.
	for !way.Down.Load() {
		time.Sleep(time.Millisecond)
	}
	n := newNetwork(t, other)
	if err := <-refused; err == nil {
		t.Fatal("a change that was not made was confirmed")
	}
	update(t, s, func(*Tx) error { return nil })
	if s.View().Network(n.ID) == nil || s.View().Revision() != other.View().Revision() {
		t.Errorf("revision %d, the other store's is %d", s.View().Revision(), other.View().Revision())
	}
	checkInvariants(t, s)
}

// A commit that is in doubt may take long to be looked up. Others don't wait for it.
func TestUpdatesAreRefusedWhileACommitIsLookedUp(t *testing.T) {
	way := pg.NewWay(t, pg.Start(t))
	s := open(t, way.DSN, DefaultConfig())
	breakCommit(way, pg.LostAfter, time.Hour)
	create := func() error {
		_, err := s.Update(context.Background(), Cause{}, func(tx *Tx) error { return tx.CreateNetwork(&Network{}) })
		return err
	}
	doubtful := make(chan error, 1)
	go func() { doubtful <- create() }()
	for s.Ready() == nil {
		time.Sleep(time.Millisecond)
	}
	if err, refusal := create(), new(Error); !errors.As(err, &refusal) || refusal.Class != Unavailable || strings.Contains(refusal.Message, "not known") {
		t.Errorf("the other one got %v, want a refusal without doubt", err)
	}
	select {
	case err := <-doubtful:
		t.Errorf("the other one waited for the commit that is looked up, which got %v", err)
	default:
	}
	way.Down.Store(false)
	if err := <-doubtful; err != nil {
		t.Errorf("the change was made; got %v", err)
	}
}

func TestCommitThatCannotBeLookedUpIsSaidToBeUnknown(t *testing.T) {
	way := pg.NewWay(t, pg.Start(t))
	s, err := Open(t.Context(), way.DSN, DefaultConfig())
	if err != nil {
		t.Fatal(err)
	}
	broken := breakCommit(way, pg.LostAfter, time.Hour)
	answer := make(chan error)
	go func() {
		_, err := s.Update(context.Background(), Cause{}, func(tx *Tx) error { return tx.CreateNetwork(&Network{}) })
		answer <- err
	}()
	for !broken.Load() {
		time.Sleep(time.Millisecond)
	}
	closed := time.Now()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	err = <-answer
	if refusal := new(Error); !errors.As(err, &refusal) || refusal.Class != Unavailable || !strings.Contains(refusal.Message, "not known") {
		t.Errorf("got %v", err)
	}
	if took := time.Since(closed); took > 10*time.Second {
		t.Errorf("closing took %s", took)
	}
}
