package fleet

import (
	"net"
	"sync"
)

// outbox writes to a connection without keeping its callers, by a goroutine
// that is there only while there is something to write.
type outbox struct {
	conn    net.Conn
	mu      sync.Mutex
	pending []byte
	writing bool
}

// send takes a copy of whole messages.
func (o *outbox) send(messages []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.pending = append(o.pending, messages...)
	if !o.writing && len(o.pending) > 0 {
		o.writing = true
		go o.flush()
	}
}

func (o *outbox) flush() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for len(o.pending) > 0 {
		b := o.pending
		o.pending = nil
		o.mu.Unlock()
		_, err := o.conn.Write(b)
		o.mu.Lock()
		if err != nil {
			o.pending = nil // its reader finds out
		}
	}
	o.writing = false
}
