package e2e

import (
	"context"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	"planck/test/lab"
)

// conversation is a TCP connection on which nothing is sent but what the story says.
type conversation struct {
	*cloud
	what           string
	client, server *voice
}

// voice is one end of a conversation.
type voice struct {
	conn  net.Conn
	said  int64
	heard atomic.Int64
	last  atomic.Int64 // when, in ns
	gap   atomic.Int64 // the longest between two times, in ns
}

const conversationPort = 7000

// converse begins a conversation with a server on conversationPort.
func (c *cloud) converse(from, to *lab.Node, address string) *conversation {
	c.Helper()
	where := net.JoinHostPort(address, fmt.Sprint(conversationPort))
	listener, err := to.Listen(c.Context(), where)
	if err != nil {
		c.Fatal(err)
	}
	defer listener.Close()
	t := &conversation{cloud: c, what: fmt.Sprintf("the connection from %s to %s", from.Name(), to.Name())}
	c.eventually(t.what+" begins", func() error {
		ctx, cancel := context.WithTimeout(c.Context(), 2*time.Second)
		defer cancel()
		conn, err := from.Dial(ctx, where)
		if err != nil {
			return err
		}
		t.client = c.voice(conn)
		return nil
	})
	conn, err := listener.Accept()
	if err != nil {
		c.Fatal(err)
	}
	t.server = c.voice(conn)
	t.goesOn("it began")
	return t
}

func (c *cloud) voice(conn net.Conn) *voice {
	v := &voice{conn: conn}
	c.Cleanup(func() { conn.Close() })
	go func() {
		for word := make([]byte, 64); ; {
			n, err := conn.Read(word)
			if err != nil {
				return
			}
			now := time.Now().UnixNano()
			if last := v.last.Swap(now); last != 0 {
				v.gap.Store(max(v.gap.Load(), now-last))
			}
			v.heard.Add(int64(n))
		}
	}()
	return v
}

// hears reports whether a voice hears in time what the other one says, and has said before.
func (v *voice) hears(other *voice, within time.Duration) (bool, error) {
	if _, err := other.conn.Write([]byte("x")); err != nil {
		return false, err
	}
	other.said++
	for end := time.Now().Add(within); v.heard.Load() < other.said; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			return false, nil
		}
	}
	return true, nil
}

// patience is how long a word is waited for that must not be heard.
const patience = time.Second

// goesOn checks that both ends hear each other. The server speaks first: what it
// says passes only as part of the connection.
func (t *conversation) goesOn(after string) {
	t.Helper()
	if heard, err := t.client.hears(t.server, settle); err != nil || !heard {
		t.Errorf("after %s the client of %s does not hear the server: %v", after, t.what, err)
	}
	if heard, err := t.server.hears(t.client, settle); err != nil || !heard {
		t.Errorf("after %s the server of %s does not hear the client: %v", after, t.what, err)
	}
}

// isCut waits until neither end hears the other.
func (t *conversation) isCut(after string) {
	t.Helper()
	t.eventually(t.what+" is cut after "+after, func() error {
		if heard, err := t.server.hears(t.client, patience); heard || err != nil {
			return fmt.Errorf("the server hears the client: %v", err)
		}
		return nil
	})
	if heard, err := t.client.hears(t.server, patience); heard || err != nil {
		t.Errorf("after %s the client of %s hears the server: %v", after, t.what, err)
	}
}

// talks lets the client say something each millisecond until the story ends.
func (t *conversation) talks() {
	go func() {
		for word := make([]byte, 1024); ; time.Sleep(time.Millisecond) {
			if _, err := t.client.conn.Write(word); err != nil {
				return
			}
		}
	}()
}

// hush waits until the server has heard nothing for a while, and tells when the last word came.
func (t *conversation) hush(during time.Duration) time.Time {
	t.Helper()
	var last time.Time
	t.eventually(t.what+" falls silent", func() error {
		last = time.Unix(0, t.server.last.Load())
		if quiet := time.Since(last); quiet < during {
			return fmt.Errorf("silent for %v", quiet)
		}
		return nil
	})
	return last
}
