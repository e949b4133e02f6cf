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
func (w *way) breakCommit(when lost, away time.Duration) (broken *atomic.Bool) {
	broken = new(atomic.Bool)
	lose := func(data []byte) lost {
		if !bytes.Contains(data, []byte("COMMIT\x00")) || broken.Swap(true) {
			return lostNever
		}
		if away > 0 {
			w.down.Store(true)
			time.AfterFunc(away, func() { w.down.Store(false) })
		}
		return when
	}
	w.lose.Store(&lose)
	return broken
}

func TestCommitWhoseAnswerIsLostIsLookedUp(t *testing.T) {
	for name, c := range map[string]struct {
		when lost
		away time.Duration
		want bool
	}{
		"it was done":                            {lostAfter, 0, true},
		"it was done and the database goes away": {lostAfter, 500 * time.Millisecond, true},
		"it was not done":                        {lostBefore, 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			dsn := pg.Start(t)
			way := newWay(t, dsn)
			s := open(t, way.dsn, DefaultConfig())
			before := newNetwork(t, s)
			broken := way.breakCommit(c.when, c.away)
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
	way := newWay(t, dsn)
	s, other := open(t, way.dsn, DefaultConfig()), open(t, dsn, DefaultConfig())
	way.breakCommit(lostBefore, 500*time.Millisecond)
	refused := make(chan error)
	go func() {
		_, err := s.Update(context.Background(), Cause{}, func(tx *Tx) error { return tx.CreateNetwork(&Network{}) })
		refused <- err
	}()
	// It takes the revision that the other one did not get.
	for !way.down.Load() {
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
	way := newWay(t, pg.Start(t))
	s := open(t, way.dsn, DefaultConfig())
	way.breakCommit(lostAfter, time.Hour)
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
	way.down.Store(false)
	if err := <-doubtful; err != nil {
		t.Errorf("the change was made; got %v", err)
	}
}

func TestCommitThatCannotBeLookedUpIsSaidToBeUnknown(t *testing.T) {
	way := newWay(t, pg.Start(t))
	s, err := Open(t.Context(), way.dsn, DefaultConfig())
	if err != nil {
		t.Fatal(err)
	}
	broken := way.breakCommit(lostAfter, time.Hour)
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
