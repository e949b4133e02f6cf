package pg

import (
	"context"
	"io"
	"net"
	"net/url"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
)

// Way is a way to a server that can break.
type Way struct {
	DSN string // of the database, by this way
	// Silent makes it take what it is given and pass nothing on, and hang up on
	// nobody.
	Silent atomic.Bool
	// Down makes it refuse new connections.
	Down atomic.Bool
	// Lose, if set, is asked about all that goes to the server, and cuts the
	// connection, before that is passed on or after it was answered.
	Lose atomic.Pointer[func(data []byte) Lost]

	ctx  context.Context
	mu   sync.Mutex
	held chan struct{} // closed when it is not cut any more, nil when it is not
	open map[net.Conn]bool
}

// Lost is when a connection breaks.
type Lost int

// When a connection breaks.
const (
	LostNever Lost = iota
	LostBefore
	LostAfter
)

// NewWay makes a way to the server of a database, until the test ends.
func NewWay(tb testing.TB, dsn string) *Way {
	tb.Helper()
	u, err := url.Parse(dsn)
	if err != nil {
		tb.Fatal(err)
	}
	const socket = ".s.PGSQL.5432"
	query := u.Query()
	server := filepath.Join(query.Get("host"), socket)
	dir := tb.TempDir()
	l, err := net.Listen("unix", filepath.Join(dir, socket))
	if err != nil {
		tb.Fatal(err)
	}
	query.Set("host", dir)
	u.RawQuery = query.Encode()
	ctx, cancel := context.WithCancel(context.Background())
	w := &Way{DSN: u.String(), ctx: ctx, open: map[net.Conn]bool{}}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			running.Go(func() { w.pass(conn, server) })
		}
	})
	tb.Cleanup(func() {
		cancel()
		l.Close()
		running.Wait()
	})
	return w
}

// Cut stops all that is on the way, as a broken cable does: it goes on with
// Mend, for those who still wait for it.
func (w *Way) Cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.held == nil {
		w.held = make(chan struct{})
	}
}

// Break hangs up on everybody, and refuses new connections until Mend.
func (w *Way) Break() {
	w.Down.Store(true)
	w.mu.Lock()
	defer w.mu.Unlock()
	for conn := range w.open {
		conn.Close()
	}
}

// Mend ends Cut and Break.
func (w *Way) Mend() {
	w.Down.Store(false)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.held != nil {
		close(w.held)
		w.held = nil
	}
}

// wait returns when the way is not cut.
func (w *Way) wait() {
	w.mu.Lock()
	held := w.held
	w.mu.Unlock()
	if held == nil {
		return
	}
	select {
	case <-held:
	case <-w.ctx.Done():
	}
}

func (w *Way) pass(from net.Conn, server string) {
	w.wait()
	if w.Down.Load() {
		from.Close()
		return
	}
	to, err := net.Dial("unix", server)
	if err != nil {
		from.Close()
		return
	}
	w.mu.Lock()
	w.open[from] = true
	w.mu.Unlock()
	shut := func() {
		from.Close()
		to.Close()
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.open, from)
	}
	defer context.AfterFunc(w.ctx, shut)()
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
	w        *Way
	to       io.Writer
	toServer bool
	deaf     *atomic.Bool // the next answer is not passed on
}

// Write implements io.Writer.
func (e wayEnd) Write(b []byte) (int, error) {
	if e.w.wait(); e.w.Silent.Load() {
		return len(b), nil
	}
	if !e.toServer && e.deaf.Load() {
		return 0, net.ErrClosed
	}
	if lose := e.w.Lose.Load(); e.toServer && lose != nil {
		switch (*lose)(b) {
		case LostBefore:
			return 0, net.ErrClosed
		case LostAfter:
			e.deaf.Store(true)
		}
	}
	return e.to.Write(b)
}
