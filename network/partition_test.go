package network

import (
	"context"
	"errors"
	"testing"
	"time"

	"planck/test/pg"
)

// A database that neither answers nor hangs up must not keep anybody waiting
// for longer than a transaction may take.
func TestDatabaseOutOfReachRefusesUpdatesInTime(t *testing.T) {
	t.Parallel()
	way := pg.NewWay(t, pg.Start(t))
	s := open(t, way.DSN, DefaultConfig())
	n := newNetwork(t, s)
	way.Silent.Store(true)
	begin := time.Now()
	_, err := s.Update(context.Background(), Cause{}, func(tx *Tx) error { return tx.CreateNetwork(&Network{}) })
	if refusal := new(Error); !errors.As(err, &refusal) || refusal.Class != Unavailable {
		t.Errorf("got %v, want an error of class Unavailable", err)
	}
	if took := time.Since(begin); took > 2*batchTimeout {
		t.Errorf("it took %v", took)
	}
	if s.Ready() == nil {
		t.Error("the store is ready")
	}
	if s.View().Network(n.ID) == nil {
		t.Error("the store can't be read")
	}
	way.Silent.Store(false)
	begin = time.Now()
	for {
		_, err := s.Update(context.Background(), Cause{}, func(tx *Tx) error { return tx.CreateNetwork(&Network{}) })
		if err == nil {
			break
		}
		if time.Since(begin) > 2*batchTimeout {
			t.Fatalf("after it is in reach again: %v", err)
		}
	}
	t.Logf("writes %v after it was in reach again", time.Since(begin).Round(time.Millisecond))
}
