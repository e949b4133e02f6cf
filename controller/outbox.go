package controller

import (
	"net"
	"sync"
	"time"
)

const (
	// outboxLimit bounds what waits to be written to one switch. Beyond it a
	// worker waits and packet-outs are dropped.
	outboxLimit = 1 << 20
	// writeChunk is what one write deadline covers: a slow switch that still
	// reads is not cut off.
	writeChunk = 128 << 10
	// keptBuffer is the largest buffer that an idle connection keeps.
	keptBuffer = 16 << 10
)

// outbox collects messages while the previous ones are being written, so that
// many messages leave in one write and none waits for a timer.
type outbox struct {
	mu      sync.Mutex
	filled  sync.Cond // there is something to write, or the end
	drained sync.Cond // there is room again, or the end
	pending []byte
	err     error
}

func newOutbox() *outbox {
	o := &outbox{}
	o.filled.L, o.drained.L = &o.mu, &o.mu
	return o
}

// send queues whole messages, waiting for room.
func (o *outbox) send(messages []byte) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	for o.err == nil && len(o.pending) > outboxLimit {
		o.drained.Wait()
	}
	return o.put(messages)
}

// trySend queues whole messages unless the switch is slow in reading.
func (o *outbox) trySend(messages []byte) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.pending) > outboxLimit {
		return false
	}
	return o.put(messages) == nil
}

func (o *outbox) put(messages []byte) error {
	if o.err != nil {
		return o.err
	}
	o.pending = append(o.pending, messages...)
	o.filled.Signal()
	return nil
}

// end makes every present and later call return err; what is pending is lost.
func (o *outbox) end(err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.err == nil {
		o.err = err
	}
	o.filled.Broadcast()
	o.drained.Broadcast()
}

// run writes until the outbox ends or a write fails, and returns why.
func (o *outbox) run(conn net.Conn, timeout time.Duration) error {
	var writing []byte
	for {
		o.mu.Lock()
		for o.err == nil && len(o.pending) == 0 {
			o.filled.Wait()
		}
		if o.err != nil {
			o.mu.Unlock()
			return o.err
		}
		writing, o.pending = o.pending, recycled(writing)
		o.drained.Broadcast()
		o.mu.Unlock()
		if err := writeAll(conn, writing, timeout); err != nil {
			o.end(err)
			return err
		}
	}
}

// recycled returns the buffer for the next round, unless a burst made it large.
func recycled(b []byte) []byte {
	if cap(b) > keptBuffer {
		return nil
	}
	return b[:0]
}

func writeAll(conn net.Conn, b []byte, timeout time.Duration) error {
	for len(b) > 0 {
		n := min(len(b), writeChunk)
		if err := conn.SetWriteDeadline(time.Now().Add(timeout)); err != nil {
			return err
		}
		if _, err := conn.Write(b[:n]); err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}
