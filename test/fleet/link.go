package fleet

import (
	"context"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Times of the connections of a switch, as Planck sets them.
const (
	// backoff is max_backoff: the pause before it dials again.
	backoff = time.Second
	// probe is inactivity_probe: after so long a silence it asks for a sign of
	// life, and gives the connection up when there is none for as long again.
	probe = 5 * time.Second
)

// link dials a target again and again, until it is cut.
type link struct {
	target string // tcp:ADDRESS:PORT
	cancel context.CancelFunc
	ended  chan struct{}

	up      atomic.Bool // it has shaken hands
	heard   atomic.Int64
	asked   atomic.Bool
	mu      sync.Mutex
	conn    net.Conn
	askLife func()
}

// newLink starts a link. talk serves one connection; it ends when that fails.
func newLink(target string, talk func(*link, net.Conn)) *link {
	ctx, cancel := context.WithCancel(context.Background())
	l := &link{target: target, cancel: cancel, ended: make(chan struct{})}
	go l.run(ctx, talk)
	return l
}

func (l *link) run(ctx context.Context, talk func(*link, net.Conn)) {
	defer close(l.ended)
	dialer := net.Dialer{Timeout: backoff, KeepAlive: -1}
	for ctx.Err() == nil {
		conn, err := dialer.DialContext(ctx, "tcp", strings.TrimPrefix(l.target, "tcp:"))
		if err == nil {
			l.serve(ctx, conn, talk)
		}
		select {
		case <-ctx.Done():
		case <-time.After(backoff):
		}
	}
}

func (l *link) serve(ctx context.Context, conn net.Conn, talk func(*link, net.Conn)) {
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	l.mu.Lock()
	l.conn = conn
	l.mu.Unlock()
	l.hear()
	talk(l, conn)
	conn.Close()
	l.up.Store(false)
	l.mu.Lock()
	l.conn, l.askLife = nil, nil
	l.mu.Unlock()
}

// hear notes a sign of life of the other end.
func (l *link) hear() {
	l.heard.Store(time.Now().UnixNano())
	l.asked.Store(false)
}

// onSilence says how to ask for a sign of life.
func (l *link) onSilence(ask func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.askLife = ask
}

// look asks for a sign of life when there was none for long, or hangs up.
func (l *link) look(now time.Time) {
	silent := now.Sub(time.Unix(0, l.heard.Load()))
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.conn == nil || silent < probe:
	case silent > 2*probe && l.asked.Load():
		l.conn.Close()
	case l.askLife != nil && l.asked.CompareAndSwap(false, true):
		l.askLife()
	}
}

// hangUp ends the connection that there is; the link dials again.
func (l *link) hangUp() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conn != nil {
		l.conn.Close()
	}
}

// cut ends the link. It waits until nothing of it runs.
func (l *link) cut() {
	l.cancel()
	<-l.ended
}
