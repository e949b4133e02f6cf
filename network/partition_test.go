package network

import (
	"context"
	"errors"
	"io"
	"net"
	"net/url"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"planck/test/pg"
)

// A database that neither answers nor hangs up must not keep anybody waiting
// for longer than a transaction may take.
func TestDatabaseOutOfReachRefusesUpdatesInTime(t *testing.T) {
	t.Parallel()
	way := newWay(t, pg.Start(t))
	s := open(t, way.dsn, DefaultConfig())
	n := newNetwork(t, s)
	way.silent.Store(true)
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
	way.silent.Store(false)
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

// way is a detour to a database that can go silent: it takes what it is given,
// passes nothing on, and hangs up on nobody.
type way struct {
	dsn    string
	silent atomic.Bool
	// lose, if set, is asked about all that goes to the server, and cuts the
	// connection, before that is passed on or after it was answered.
	lose atomic.Pointer[func(data []byte) lost]
	down atomic.Bool // new connections are refused
}

// lost is when a connection breaks.
type lost int

const (
	lostNever lost = iota
	lostBefore
	lostAfter
)

func newWay(t *testing.T, dsn string) *way {
	t.Helper()
	u, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	const socket = ".s.PGSQL.5432"
	query := u.Query()
	server := filepath.Join(query.Get("host"), socket)
	dir := t.TempDir()
	l, err := net.Listen("unix", filepath.Join(dir, socket))
	if err != nil {
		t.Fatal(err)
	}
	query.Set("host", dir)
	u.RawQuery = query.Encode()
	w := &way{dsn: u.String()}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			running.Go(func() { w.pass(ctx, conn, server) })
		}
	})
	t.Cleanup(func() {
		cancel()
		l.Close()
		running.Wait()
	})
	return w
}

func (w *way) pass(ctx context.Context, from net.Conn, server string) {
	if w.down.Load() {
		from.Close()
		return
	}
	to, err := net.Dial("unix", server)
	if err != nil {
		from.Close()
		return
	}
	shut := func() {
		from.Close()
		to.Close()
	}
	defer context.AfterFunc(ctx, shut)()
	var both sync.WaitGroup
	deaf := new(atomic.Bool)
	for _, end := range []struct {
		to   wayEnd
		from net.Conn
	}{{wayEnd{w, to, true, deaf}, from}, {wayEnd{w, from, false, deaf}, to}} {
		both.Go(func() {
			_, _ = io.Copy(end.to, end.from) // its error is the end of a connection
			shut()
		})
	}
	both.Wait()
}

type wayEnd struct {
	w        *way
	to       io.Writer
	toServer bool
	deaf     *atomic.Bool // the next answer is not passed on
}

// Write implements io.Writer.
func (e wayEnd) Write(b []byte) (int, error) {
	if e.w.silent.Load() {
		return len(b), nil
	}
	if !e.toServer && e.deaf.Load() {
		return 0, net.ErrClosed
	}
	if lose := e.w.lose.Load(); e.toServer && lose != nil {
		switch (*lose)(b) {
		case lostBefore:
			return 0, net.ErrClosed
		case lostAfter:
			e.deaf.Store(true)
		}
	}
	return e.to.Write(b)
}
