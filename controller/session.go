package controller

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	of "github.com/netrack/openflow"
	"github.com/netrack/openflow/ofp"

	"planck/flows"
)

const (
	version13  = flows.Version
	headerSize = flows.HeaderSize
	// noBuffer asks for whole packets in packet-ins (OFPCML_NO_BUFFER).
	noBuffer = 0xffff
	// maxReply bounds one multipart reply: a switch with more flows than this holds is broken or hostile.
	maxReply = 512 << 20
	// isSlave is a code of ErrTypeBadRequest: only a master may ask for this (OFPBRC_IS_SLAVE).
	isSlave = 10
	// staleRole is a code of ErrTypeRoleRequestFailed: the generation is an older one (OFPRRFC_STALE).
	staleRole = 0
	// noGeneration is that of a switch on which nobody has taken a role.
	noGeneration = 1<<64 - 1
	// readBuffer and keptFrame are what a connection that is idle keeps: with a
	// thousand hosts there are thousands of them. What is larger is read past the
	// buffer, into a frame that goes with the next small message.
	readBuffer = 8 << 10
	keptFrame  = 8 << 10
	// maxHello bounds a HELLO, so that what is not OpenFlow is found at its first bytes.
	maxHello = 1024
)

// Why sessions end, beside errors of the network.
var (
	errNoReply  = errors.New("switch did not answer in time")
	errSilent   = errors.New("switch is silent: no answer to echo requests")
	errReplaced = errors.New("replaced by a newer connection of the same switch")
)

// protocolError is something that a correct switch never sends.
type protocolError struct{ text string }

func (e protocolError) Error() string { return e.text }

func protocolErrorf(format string, args ...any) error {
	return protocolError{fmt.Sprintf(format, args...)}
}

// Timeouts of a session; zero values get the defaults.
type Timeouts struct {
	Handshake time.Duration // from accept to the features reply; default 5 s
	Reply     time.Duration // for a bundle, a read or a barrier; default 30 s
	Echo      time.Duration // between echo requests; three unanswered end the session; default 5 s
	Probe     time.Duration // for the echo that tells whether an older connection of a switch lives; default 2 s
	Write     time.Duration // for 128 KiB to leave; default 10 s
}

func (t Timeouts) withDefaults() Timeouts {
	set := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	set(&t.Handshake, 5*time.Second)
	set(&t.Reply, 30*time.Second)
	set(&t.Echo, 5*time.Second)
	set(&t.Probe, 2*time.Second)
	set(&t.Write, 10*time.Second)
	return t
}

// session is one OpenFlow 1.3 connection: framing, handshake, requests and
// their replies. What is sent over it, and when, is decided by its reconciler.
type session struct {
	conn     net.Conn
	in       *bufio.Reader
	out      *outbox
	xs       exchanges
	timeouts Timeouts
	log      *slog.Logger
	metrics  *metrics
	ctx      context.Context // ends with the session; its cause is why
	cancel   context.CancelCauseFunc
	dispatch atomic.Pointer[dispatcher] // nil until the switch is known

	dpid     uint64
	workers  sync.WaitGroup // that answer packet-ins
	known    *slog.Logger   // once its bridge is known; of the goroutine that programs it
	started  time.Time
	seen     atomic.Int64 // age at the last message
	flowMods atomic.Uint64
	bundleID uint32 // used by the reconciler only
	frame    []byte
	done     chan struct{} // closed when everything of the session has ended
}

func newSession(ctx context.Context, conn net.Conn, timeouts Timeouts, log *slog.Logger, m *metrics) *session {
	s := &session{
		conn: conn, in: bufio.NewReaderSize(conn, readBuffer), out: newOutbox(), timeouts: timeouts.withDefaults(),
		log: log.With("remote", conn.RemoteAddr().String()), metrics: m, started: time.Now(), done: make(chan struct{}),
	}
	s.ctx, s.cancel = context.WithCancelCause(ctx)
	return s
}

// age is the time since the session began. Like all that decides something, it
// is by the monotonic clock: the wall clock may jump.
func (s *session) age() time.Duration { return time.Since(s.started) }

// end ends the session; the first reason given is the one that counts.
func (s *session) end(err error) { s.cancel(err) }

// shut closes the connection and fails whatever waits for it.
func (s *session) shut() {
	err := context.Cause(s.ctx)
	s.out.end(err)
	s.xs.end(err)
	s.conn.Close()
}

// talk runs the session until it ends and returns why. use is what is done over
// it once the switch has said who it is.
func (s *session) talk(greeted func(), use func() error) error {
	stop := context.AfterFunc(s.ctx, s.shut)
	defer stop()
	var parts sync.WaitGroup
	spawn := func(part func() error) { parts.Go(func() { s.end(guarded(part)) }) }

	spawn(func() error { return s.out.run(s.conn, s.timeouts.Write) })
	err := guarded(s.handshake)
	greeted()
	if err != nil {
		s.end(err)
	} else {
		spawn(s.read)
		spawn(s.keepalive)
		spawn(use)
	}
	parts.Wait()
	s.workers.Wait()
	return context.Cause(s.ctx)
}

// guarded calls part and makes an error of a panic, so that what one switch
// sends can only end its own session.
func guarded(part func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	return part()
}

// PacketOut implements Switch.
func (s *session) PacketOut(inPort uint32, actions string, data []byte) bool {
	return s.out.trySend(flows.AppendPacketOut(nil, xidUnmatched, inPort, actions, data))
}

// next reads one message. The body is valid until the next call.
func (s *session) next() (typ of.Type, xid uint32, body []byte, err error) {
	var header [headerSize]byte
	if _, err := io.ReadFull(s.in, header[:]); err != nil {
		return 0, 0, nil, err
	}
	typ, xid = of.Type(header[1]), binary.BigEndian.Uint32(header[4:])
	length := int(binary.BigEndian.Uint16(header[2:]))
	if err := checkHeader(header[0], typ, length); err != nil {
		return 0, 0, nil, err
	}
	if cap(s.frame) < length || cap(s.frame) > keptFrame && length <= keptFrame {
		s.frame = make([]byte, max(length, 4096))
	}
	body = s.frame[:length-headerSize]
	if _, err := io.ReadFull(s.in, body); err != nil {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return 0, 0, nil, protocolErrorf("message of %d bytes is cut short", length)
		}
		return 0, 0, nil, err
	}
	s.seen.Store(int64(s.age()))
	return typ, xid, body, nil
}

func checkHeader(version uint8, typ of.Type, length int) error {
	if length < headerSize {
		return protocolErrorf("message with a length of %d", length)
	}
	if typ == of.TypeHello {
		if version == 0 || length > maxHello {
			return protocolErrorf("hello with version %#x and length %d", version, length)
		}
		return nil
	}
	if version != version13 {
		return protocolErrorf("message with version %#x, type %d", version, typ)
	}
	if typ > of.TypeMeterMod {
		return protocolErrorf("message of unknown type %d", typ)
	}
	return nil
}

// handshake exchanges hellos, asks for the datapath id and sets the switch to
// send whole packets. The outbox must be running.
func (s *session) handshake() error {
	if err := s.conn.SetReadDeadline(time.Now().Add(s.timeouts.Handshake)); err != nil {
		return err
	}
	if err := s.out.send(flows.AppendHello(nil, xidUnmatched)); err != nil {
		return err
	}
	if err := s.negotiate(); err != nil {
		return err
	}
	hello := flows.AppendSetConfig(nil, xidUnmatched, 0, noBuffer)
	hello = flows.AppendFeaturesRequest(hello, xidUnmatched)
	if err := s.out.send(hello); err != nil {
		return err
	}
	for {
		typ, xid, body, err := s.next()
		if err != nil {
			return err
		}
		switch typ {
		case of.TypeFeaturesReply:
			features, err := flows.DecodeFeatures(body)
			if err != nil {
				return protocolErrorf("features reply: %v", err)
			}
			s.dpid = features.DatapathID
			return s.conn.SetReadDeadline(time.Time{})
		case of.TypeEchoRequest:
			if err := s.out.send(flows.AppendEchoReply(nil, xid, body)); err != nil {
				return err
			}
		case of.TypeError:
			e, err := decodeError(xid, body)
			if err != nil {
				return err
			}
			return fmt.Errorf("handshake: %w", e)
		}
	}
}

// negotiate reads the switch's hello and checks that it speaks OpenFlow 1.3.
func (s *session) negotiate() error {
	header, err := s.in.Peek(2)
	if err != nil {
		return err
	}
	if of.Type(header[1]) != of.TypeHello {
		return protocolErrorf("first message has version %#x and type %d: not an OpenFlow hello", header[0], header[1])
	}
	theirs := header[0]
	_, xid, body, err := s.next()
	if err != nil {
		return err
	}
	if speaks13(theirs, body) {
		return nil
	}
	err = fmt.Errorf("switch speaks OpenFlow up to version %#x, but not 1.3 (0x4): add OpenFlow13 to the bridge's protocols", theirs)
	refusal := of.NewRequest(of.TypeError, &ofp.Error{
		Type: ofp.ErrTypeHelloFailed, Code: ofp.ErrCodeHelloFailedIncompatible, Data: []byte("only OpenFlow 1.3 is supported"),
	})
	refusal.Header.Transaction = xid
	// Written here and not through the outbox, since the connection is closed
	// at once; a switch that does not take it learns nothing more.
	_, _ = refusal.WriteTo(s.conn)
	return err
}

// speaks13 looks at the versions that a hello lists; a switch that lists none
// speaks every version up to the one in the header.
func speaks13(version uint8, body []byte) bool {
	versions, err := flows.DecodeHello(body)
	if err != nil || versions == 0 {
		return version >= version13
	}
	return versions&(1<<version13) != 0
}

// read handles messages in the order of their arrival until the connection ends.
func (s *session) read() error {
	for {
		typ, xid, body, err := s.next()
		if err != nil {
			return err
		}
		if err := s.handle(typ, xid, body); err != nil {
			return err
		}
	}
}

func (s *session) handle(typ of.Type, xid uint32, body []byte) error {
	switch typ {
	case of.TypePacketIn:
		if d := s.dispatch.Load(); d != nil {
			d.take(body)
		}
	case of.TypeEchoRequest:
		s.out.trySend(flows.AppendEchoReply(nil, xid, body))
	case of.TypeMultipartReply, of.TypeBarrierReply, of.TypeRoleReply, of.TypeExperiment:
		return s.xs.reply(xid, body)
	case of.TypeError:
		e, err := decodeError(xid, body)
		if err != nil {
			return err
		}
		if e.Type == uint16(ofp.ErrTypeBadRequest) && e.Code == isSlave && xid != xidUnmatched {
			return errSlave // but for answers to packets, which another master has as well
		}
		if !s.xs.refuse(e) {
			s.log.Debug("switch refused a message", "error", e)
		}
	}
	return nil
}

func decodeError(xid uint32, body []byte) (SwitchError, error) {
	e, err := flows.DecodeError(body)
	if err != nil {
		return SwitchError{}, protocolErrorf("error message: %v", err)
	}
	return SwitchError{XID: xid, Type: e.Type, Code: e.Code, Experimenter: e.Experimenter}, nil
}

// keepalive asks for a sign of life when there was none for an interval, and
// gives the switch up after three.
func (s *session) keepalive() error {
	tick := time.NewTicker(s.timeouts.Echo)
	defer tick.Stop()
	for {
		select {
		case <-s.ctx.Done():
			return nil
		case <-tick.C:
		}
		idle := s.age() - time.Duration(s.seen.Load())
		if idle > 3*s.timeouts.Echo {
			return errSilent
		}
		if idle >= s.timeouts.Echo/2 {
			s.out.trySend(flows.AppendEchoRequest(nil, xidUnmatched, nil))
		}
	}
}

// alive asks the switch for a sign of life and waits for one.
func (s *session) alive(ctx context.Context) bool {
	asked := int64(s.age())
	s.out.trySend(flows.AppendEchoRequest(nil, xidUnmatched, nil))
	deadline := time.NewTimer(s.timeouts.Probe)
	defer deadline.Stop()
	look := time.NewTicker(s.timeouts.Probe / 20)
	defer look.Stop()
	for s.seen.Load() < asked {
		select {
		case <-ctx.Done():
			return true
		case <-s.done:
			return false
		case <-deadline.C:
			return false
		case <-look.C:
		}
	}
	return true
}

// wait waits for the end of an exchange. errNoReply means that it is not known
// what the switch did.
func (s *session) wait(x *exchange) error {
	timer := time.NewTimer(s.timeouts.Reply)
	defer timer.Stop()
	select {
	case <-x.done:
		return x.err
	case <-s.ctx.Done():
		s.xs.abandon(x)
		return context.Cause(s.ctx)
	case <-timer.C:
		s.xs.abandon(x)
		return errNoReply
	}
}

// takeRole takes the role MASTER or SLAVE with a generation. It fails with
// errOutranked when another controller took the role MASTER with a newer one.
func (s *session) takeRole(role uint32, generation uint64) error {
	_, _, err := s.askRole(role, generation)
	var refused SwitchError
	switch {
	case errors.As(err, &refused) && refused.Type == uint16(ofp.ErrTypeRoleRequestFailed) && refused.Code == staleRole:
		return fmt.Errorf("role %d with generation %d: %w: %w", role, generation, errOutranked, err)
	case err != nil:
		return fmt.Errorf("role %d with generation %d: %w", role, generation, err)
	}
	return nil
}

// askRole asks for a role and returns the one that the switch gave, and the newest
// generation that it knows, which is noGeneration at first.
func (s *session) askRole(role uint32, generation uint64) (given uint32, newest uint64, err error) {
	given, newest = role, noGeneration
	x, err := s.xs.begin(1, func(body []byte) (final bool, err error) {
		given, newest, err = flows.DecodeRole(body)
		return true, err
	})
	if err != nil {
		return given, newest, err
	}
	if err := s.out.send(flows.AppendRoleRequest(nil, x.first, role, generation)); err != nil {
		return given, newest, err
	}
	if err := s.wait(x); err != nil {
		return given, newest, err
	}
	return given, newest, x.failed()
}

// closeReason is the label under which the end of a session is counted.
func closeReason(err error) string {
	var garbage protocolError
	var timeout net.Error
	switch {
	case errors.As(err, &garbage):
		return "garbage"
	case errors.Is(err, errReplaced):
		return "replaced"
	case errors.Is(err, errSlave):
		return "slave"
	case errors.Is(err, errSilent), errors.As(err, &timeout) && timeout.Timeout():
		return "timeout"
	case errors.Is(err, context.Canceled):
		return "shutdown"
	case errors.Is(err, io.EOF), errors.Is(err, net.ErrClosed):
		return "closed"
	}
	return "error"
}
