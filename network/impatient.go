package network

import (
	"context"
	"net"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ioTimeout is how long PostgreSQL may take over a piece of an answer, or for
// taking a piece of a question.
const ioTimeout = 10 * time.Second

// unreachable is how long a server may acknowledge nothing, be it what was sent
// or a probe of an idle connection, until the connection counts as lost. TCP alone
// goes on for minutes, and then waits ever longer before it tries again.
const unreachable = 3 * time.Second

// aware is a Dialer whose connections end when the server is out of reach.
func aware() net.Dialer {
	return net.Dialer{
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: time.Second, Interval: time.Second, Count: int(unreachable / time.Second)},
		Control: func(network, _ string, conn syscall.RawConn) error {
			if !strings.HasPrefix(network, "tcp") {
				return nil
			}
			var refused error
			err := conn.Control(func(fd uintptr) {
				refused = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(unreachable.Milliseconds()))
			})
			if err != nil {
				return err
			}
			return refused
		},
	}
}

// impatient dials connections that fail when nothing moves for ioTimeout. The
// end of a context does not help against a server that is out of reach: lib/pq
// then asks the server to cancel the query, and waits for its answer.
type impatient struct{ net.Dialer }

// Dial implements pq.Dialer.
func (d impatient) Dial(network, address string) (net.Conn, error) {
	return d.DialContext(context.Background(), network, address)
}

// DialTimeout implements pq.Dialer.
func (d impatient) DialTimeout(network, address string, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	return d.DialContext(ctx, network, address)
}

// DialContext implements pq.DialerContext.
func (d impatient) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := d.Dialer.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return impatientConn{conn}, nil
}

type impatientConn struct{ net.Conn }

// Read implements net.Conn.
func (c impatientConn) Read(b []byte) (int, error) {
	if err := c.SetReadDeadline(time.Now().Add(ioTimeout)); err != nil {
		return 0, err
	}
	return c.Conn.Read(b)
}

// Write implements net.Conn.
func (c impatientConn) Write(b []byte) (int, error) {
	if err := c.SetWriteDeadline(time.Now().Add(ioTimeout)); err != nil {
		return 0, err
	}
	return c.Conn.Write(b)
}
