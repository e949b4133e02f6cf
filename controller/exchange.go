package controller

import (
	"fmt"
	"strings"
	"sync"

	"github.com/netrack/openflow/ofp"
)

// SwitchError is an OFPT_ERROR message.
type SwitchError struct {
	XID  uint32
	Type uint16
	Code uint16
	// Experimenter is set with Type 0xffff; Code is its exp_type then.
	Experimenter uint32
}

// Error names type and code as the OpenFlow specification does.
func (e SwitchError) Error() string {
	if e.Type == uint16(ofp.ErrTypeExperimenter) {
		return "switch refused: " + experimenterError(e.Experimenter, e.Code)
	}
	typ := strings.TrimPrefix(ofp.ErrType(e.Type).String(), "ErrType")
	code := ofp.Error{Type: ofp.ErrType(e.Type), Code: ofp.ErrCode(e.Code)}.String()
	code = strings.TrimPrefix(strings.TrimPrefix(code, "ErrCode"), typ)
	return fmt.Sprintf("switch refused: %s/%s (type %d code %d)", typ, code, e.Type, e.Code)
}

const (
	onfExperimenter    = 0x4f4e4600
	niciraExperimenter = 0x00002320
)

// bundleErrors are the codes of the ONF bundle extension for OpenFlow 1.3, from 2300 on.
var bundleErrors = []string{
	"Unknown", "Eperm", "BadID", "BundleExist", "BundleClosed", "OutOfBundles", "BadType", "BadFlags",
	"MsgBadLen", "MsgBadXID", "MsgUnsup", "MsgConflict", "MsgTooMany", "MsgFailed", "Timeout", "BundleInProgress",
}

const firstBundleError = 2300

func experimenterError(experimenter uint32, code uint16) string {
	i := int(code) - firstBundleError
	if experimenter == onfExperimenter && i >= 0 && i < len(bundleErrors) {
		return fmt.Sprintf("BundleFailed/%s (ONF %d)", bundleErrors[i], code)
	}
	if experimenter == niciraExperimenter {
		return fmt.Sprintf("Nicira error %d", code)
	}
	return fmt.Sprintf("experimenter %#x error %d", experimenter, code)
}

// exchange is a run of messages with consecutive xids that is over when the
// last of them is answered. Errors that the switch sends for any of them are
// collected, in order.
type exchange struct {
	first, last uint32
	// part takes the body of a reply to the last message and tells whether it
	// was the final one; nil when any reply is. It runs in the reader, so the
	// body is only valid during the call.
	part func(body []byte) (final bool, err error)
	// errors and err may be read once done is closed.
	errors []SwitchError
	done   chan struct{}
	err    error // why it ended without its reply
}

// failed is the error of the last message itself, if it was refused.
func (x *exchange) failed() error {
	for _, e := range x.errors {
		if e.XID == x.last {
			return e
		}
	}
	return nil
}

// exchanges are those under way on one connection; there are never many.
type exchanges struct {
	mu     sync.Mutex
	next   uint32
	active []*exchange
	ended  error
}

const (
	// xidUnmatched is used for messages whose errors belong to no exchange:
	// packet-outs, echo, flows on behalf of a packet-in.
	xidUnmatched = 0xffffff00
	firstXID     = 16
)

// begin reserves n xids and starts to collect what comes back for them.
func (xs *exchanges) begin(n int, part func([]byte) (bool, error)) (*exchange, error) {
	xs.mu.Lock()
	defer xs.mu.Unlock()
	if xs.ended != nil {
		return nil, xs.ended
	}
	if xs.next < firstXID || uint64(xs.next)+uint64(n) >= xidUnmatched {
		xs.next = firstXID
	}
	x := &exchange{first: xs.next, last: xs.next + uint32(n) - 1, part: part, done: make(chan struct{})}
	xs.next += uint32(n)
	xs.active = append(xs.active, x)
	return x, nil
}

// abandon forgets an exchange that nobody waits for any more.
func (xs *exchanges) abandon(x *exchange) {
	xs.mu.Lock()
	defer xs.mu.Unlock()
	xs.remove(x)
}

func (xs *exchanges) remove(x *exchange) bool {
	for i, a := range xs.active {
		if a == x {
			xs.active = append(xs.active[:i], xs.active[i+1:]...)
			return true
		}
	}
	return false
}

func (xs *exchanges) find(xid uint32) *exchange {
	for _, x := range xs.active {
		if xid >= x.first && xid <= x.last {
			return x
		}
	}
	return nil
}

// reply hands a reply to its exchange. An error means that the reply itself is
// broken, and with it the connection. A reply that nobody waits for is ignored:
// its exchange may have been given up.
func (xs *exchanges) reply(xid uint32, body []byte) error {
	xs.mu.Lock()
	defer xs.mu.Unlock()
	x := xs.find(xid)
	if x == nil || xid != x.last {
		return nil
	}
	if x.part != nil {
		final, err := x.part(body)
		if err != nil || !final {
			return err
		}
	}
	xs.finish(x, nil)
	return nil
}

// refuse notes an error message; it reports whether it belongs to an exchange.
func (xs *exchanges) refuse(e SwitchError) bool {
	xs.mu.Lock()
	defer xs.mu.Unlock()
	x := xs.find(e.XID)
	if x == nil {
		return false
	}
	x.errors = append(x.errors, e)
	if e.XID == x.last {
		xs.finish(x, nil)
	}
	return true
}

func (xs *exchanges) finish(x *exchange, err error) {
	if xs.remove(x) {
		x.err = err
		close(x.done)
	}
}

// end fails every exchange and refuses new ones.
func (xs *exchanges) end(err error) {
	xs.mu.Lock()
	defer xs.mu.Unlock()
	if xs.ended == nil {
		xs.ended = err
	}
	for len(xs.active) > 0 {
		xs.finish(xs.active[0], err)
	}
}
