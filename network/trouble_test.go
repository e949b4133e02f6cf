package network

import (
	"context"
	"database/sql"
	"errors"
	"math"
	"path/filepath"
	"testing"
	"time"
)

// A database that can be read, but not written, is not ready: not until it can
// be written again, which nobody has to try.
func TestStoreIsReadyAgainOnlyWhenTheDatabaseTakesChanges(t *testing.T) {
	path := filepath.Join(t.TempDir(), "planck.db")
	s := open(t, "sqlite://"+path, DefaultConfig())
	unlock := lockSQLite(t, path)
	trouble := errors.New("disk full")
	s.trouble.Store(&trouble)
	poke := func() {
		s.heard.Store(math.MaxUint64)
		s.poke <- struct{}{}
	}
	for range 3 {
		poke() // taken when the one before has been dealt with
	}
	if s.Ready() == nil {
		t.Error("the store is ready though the database is locked")
	}
	unlock()
	poke()
	deadline := time.Now().Add(time.Minute)
	for s.Ready() != nil {
		if time.Now().After(deadline) {
			t.Fatalf("not ready after the lock is gone: %v", s.Ready())
		}
		time.Sleep(time.Millisecond)
	}
	newNetwork(t, s)
}

// Who asks while a change waits for the database is answered with it, and does
// not wait as long again.
func TestUpdatesThatWaitForALockedDatabaseAreRefusedTogether(t *testing.T) {
	const patience = 4 * time.Second
	path := filepath.Join(t.TempDir(), "planck.db")
	s := open(t, "sqlite://"+path, DefaultConfig())
	if _, err := s.db.Exec(`PRAGMA busy_timeout = 4000`); err != nil { // of its one connection
		t.Fatal(err)
	}
	unlock := lockSQLite(t, path)
	defer unlock()
	ends := make(chan time.Time)
	try := func() {
		_, err := s.Update(context.Background(), Cause{}, func(tx *Tx) error { return tx.CreateNetwork(&Network{}) })
		if refusal := new(Error); !errors.As(err, &refusal) || refusal.Class != Unavailable {
			t.Errorf("got %v, want an error of class Unavailable", err)
		}
		ends <- time.Now()
	}
	go try()
	time.Sleep(patience / 4) // while it is being tried
	go try()
	first := <-ends
	if apart := (<-ends).Sub(first); apart > patience/2 {
		t.Errorf("the second was refused %v after the first", apart)
	}
}

// lockSQLite keeps all other writers out until the returned function is called.
func lockSQLite(t *testing.T, path string) (unlock func()) {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+path+"?_txlock=immediate")
	if err != nil {
		t.Fatal(err)
	}
	tx, err := db.BeginTx(context.Background(), nil)
	if err != nil {
		t.Fatal(err)
	}
	return func() {
		t.Helper()
		if err := errors.Join(tx.Rollback(), db.Close()); err != nil {
			t.Fatal(err)
		}
	}
}
