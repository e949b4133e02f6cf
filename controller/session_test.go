package controller

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"planck/flows"
	"planck/network"
)

// peer is a switch written by hand, to say what a real one never says.
type peer struct {
	t    testing.TB
	conn net.Conn
}

func (r *running) dial() *peer {
	r.t.Helper()
	conn, err := net.Dial("tcp", r.opt.Listeners[0].Addr().String())
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { conn.Close() })
	return &peer{t: r.t, conn: conn}
}

func (p *peer) send(b []byte) {
	// The controller may have closed the connection already: what the test
	// looks at tells.
	_, _ = p.conn.Write(b)
}

// message is one message of a peer, from a type and a body.
func message(typ uint8, xid uint32, body []byte) []byte {
	b := binary.BigEndian.AppendUint16([]byte{flows.Version, typ}, uint16(8+len(body)))
	return append(binary.BigEndian.AppendUint32(b, xid), body...)
}

func (p *peer) read() (typ uint8, xid uint32, body []byte, err error) {
	var header [8]byte
	if _, err := io.ReadFull(p.conn, header[:]); err != nil {
		return 0, 0, nil, err
	}
	body = make([]byte, binary.BigEndian.Uint16(header[2:])-8)
	_, err = io.ReadFull(p.conn, body)
	return header[1], binary.BigEndian.Uint32(header[4:]), body, err
}

// answer handles one message of the controller as a switch without flows does.
func (p *peer) answer(typ uint8, xid uint32, body []byte, dpid uint64) {
	switch typ {
	case flows.TypeHello:
		p.send(flows.AppendHello(nil, 1))
	case flows.TypeFeaturesRequest:
		features := binary.BigEndian.AppendUint64(nil, dpid)
		p.send(message(flows.TypeFeaturesReply, xid, append(features, make([]byte, 16)...)))
	case flows.TypeEchoRequest:
		p.send(flows.AppendEchoReply(nil, xid, body))
	case flows.TypeRoleRequest:
		p.send(message(flows.TypeRoleReply, xid, body))
	case flows.TypeMultipartRequest:
		p.send(message(flows.TypeMultipartReply, xid, append(body[:2:2], make([]byte, 6)...)))
	case flows.TypeBarrierRequest:
		p.send(message(flows.TypeBarrierReply, xid, nil))
	case flows.TypeExperimenter:
		if control, err := flows.DecodeBundleControl(body); err == nil {
			reply := flows.AppendBundleControl(nil, xid, control.ID, control.Type+1, control.Flags)
			p.send(reply)
		}
	}
}

// serve answers until the connection ends. A hook that returns true has dealt
// with a message itself.
func (p *peer) serve(dpid uint64, hook func(typ uint8, xid uint32, body []byte) bool) error {
	for {
		typ, xid, body, err := p.read()
		if err != nil {
			return err
		}
		if hook == nil || !hook(typ, xid, body) {
			p.answer(typ, xid, body, dpid)
		}
	}
}

// background serves in the background; the channel has the end.
func (p *peer) background(dpid uint64, hook func(typ uint8, xid uint32, body []byte) bool) <-chan error {
	ended := make(chan error, 1)
	go func() { ended <- p.serve(dpid, hook) }()
	return ended
}

// closedByController waits for the controller to end the connection.
func (p *peer) closedByController() {
	p.t.Helper()
	p.conn.SetReadDeadline(time.Now().Add(patience))
	if _, err := io.Copy(io.Discard, p.conn); isTimeout(err) {
		p.t.Errorf("the connection is still open after %s", patience)
	}
}

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

// lines is a log that can be searched.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

func (l *lines) with(text string) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var found []string
	for line := range strings.Lines(l.buf.String()) {
		if strings.Contains(line, text) {
			found = append(found, strings.TrimSpace(line))
		}
	}
	return found
}

// lonely is a controller without a switch, with short timeouts and a log.
func lonely(t *testing.T, change func(*Options)) (*running, *world, *lines) {
	w, log := newWorld(t), &lines{}
	c := w.start(func(o *Options) {
		o.Logger = slog.New(slog.NewTextHandler(log, nil))
		o.Timeouts = Timeouts{Handshake: 2 * time.Second, Reply: 2 * time.Second, Probe: 2 * time.Second, Write: 2 * time.Second}
		if change != nil {
			change(o)
		}
	})
	return c, w, log
}

func TestGarbageEndsTheConnectionWithOneLogLine(t *testing.T) {
	hello := flows.AppendHello(nil, 1)
	features := message(flows.TypeFeaturesReply, 2, make([]byte, 24))
	for name, bytes := range map[string][]byte{
		"HTTP":                    []byte("GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
		"TLS":                     {0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xfc},
		"zeros":                   make([]byte, 100),
		"ones":                    {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff},
		"long hello":              {4, 0, 0xff, 0xff, 0, 0, 0, 0},
		"no hello":                features,
		"length below the header": append(hello[:len(hello):len(hello)], 4, flows.TypeEchoRequest, 0, 7, 0, 0, 0, 0),
		"version":                 append(hello[:len(hello):len(hello)], 5, flows.TypeEchoRequest, 0, 8, 0, 0, 0, 0),
		"type":                    append(hello[:len(hello):len(hello)], 4, 200, 0, 8, 0, 0, 0, 0),
		"short features":          append(hello[:len(hello):len(hello)], message(flows.TypeFeaturesReply, 2, make([]byte, 5))...),
		"short error":             append(append(hello[:len(hello):len(hello)], features...), message(flows.TypeError, 9, []byte{0})...),
	} {
		t.Run(name, func(t *testing.T) {
			c, _, log := lonely(t, func(o *Options) { o.Timeouts.Handshake = time.Minute })
			p := c.dial()
			p.send(bytes)
			p.closedByController()
			c.eventuallyMetric("planck_openflow_closed_total", map[string]string{"reason": "garbage"}, 1)
			if found := log.with("connection ended"); len(found) != 1 {
				t.Errorf("want one log line, have %q", found)
			}
			if n := c.metric("planck_openflow_connections", nil); n != 0 {
				t.Errorf("%v connections are left", n)
			}
		})
	}
}

func TestMessageCutShortIsGarbage(t *testing.T) {
	c, _, _ := lonely(t, nil)
	p := c.dial()
	p.send(flows.AppendHello(nil, 1)[:12])
	p.conn.(*net.TCPConn).CloseWrite()
	p.closedByController()
	c.eventuallyMetric("planck_openflow_closed_total", map[string]string{"reason": "garbage"}, 1)
}

func TestSilentPeerIsClosedAfterTheHandshakeTimeout(t *testing.T) {
	c, _, _ := lonely(t, nil)
	p := c.dial()
	p.closedByController()
	c.eventuallyMetric("planck_openflow_closed_total", map[string]string{"reason": "timeout"}, 1)
}

func TestVersionMismatchSaysWhatToDo(t *testing.T) {
	c, _, log := lonely(t, nil)
	p := c.dial()
	p.send([]byte{1, flows.TypeHello, 0, 8, 0, 0, 0, 7})
	refused := false
	for {
		typ, xid, body, err := p.read()
		if err != nil {
			break
		}
		if e, err := flows.DecodeError(body); typ == flows.TypeError && err == nil {
			refused = e.Type == 0 && e.Code == 0 && xid == 7
		}
	}
	if !refused {
		t.Error("the switch got no HELLO_FAILED")
	}
	eventually(t, 5*time.Second, func() error {
		if len(log.with("OpenFlow13")) != 1 {
			return fmt.Errorf("the log does not say what to do: %q", log.with(""))
		}
		return nil
	})
}

func TestDeadConnectionOfASwitchIsReplaced(t *testing.T) {
	c, w, _ := lonely(t, nil)
	w.host("h1", 1)
	first := c.dial()
	dead := make(chan struct{})
	ended := first.background(dpidInt+1<<16, func(uint8, uint32, []byte) bool {
		select {
		case <-dead:
			return true // says nothing any more
		default:
			return false
		}
	})
	c.eventuallyMetric("planck_openflow_sessions", nil, 1)
	close(dead)
	second := c.dial()
	second.background(dpidInt+1<<16, nil)
	<-ended
	c.eventuallyMetric("planck_openflow_closed_total", map[string]string{"reason": "replaced"}, 1)
	c.eventuallyMetric("planck_openflow_sessions", nil, 1)
	c.eventuallySynced()
}

func (r *running) eventuallySynced() {
	r.t.Helper()
	eventually(r.t, 10*time.Second, func() error {
		for _, h := range r.Hosts() {
			for _, b := range h.Bridges {
				if b.Name == "br-int" && b.Synced && b.Revision == r.view.Load().Revision() {
					return nil
				}
			}
		}
		return fmt.Errorf("br-int is not synced: %+v", r.Hosts())
	})
}

func TestSecondConnectionOfALivingSwitchStandsBy(t *testing.T) {
	c, w, log := lonely(t, nil)
	w.host("h1", 1)
	first, second := c.dial(), c.dial()
	first.background(dpidInt+1<<16, nil)
	c.eventuallySynced()
	second.background(dpidInt+1<<16, nil)
	eventually(t, 5*time.Second, func() error {
		if len(log.with("stands by")) != 1 {
			return errors.New("the second connection does not stand by")
		}
		return nil
	})
	c.eventuallySynced()
	first.conn.Close()
	eventually(t, 5*time.Second, func() error {
		for _, h := range c.Hosts() {
			for _, b := range h.Bridges {
				if b.Name == "br-int" && b.Remote == second.conn.LocalAddr().String() && b.Synced {
					return nil
				}
			}
		}
		return errors.New("the second connection did not take over")
	})
}

func TestSwitchThatStopsAnsweringIsGivenUp(t *testing.T) {
	c, w, _ := lonely(t, func(o *Options) { o.Timeouts.Echo = 50 * time.Millisecond })
	w.host("h1", 1)
	p := c.dial()
	p.background(dpidInt+1<<16, func(typ uint8, _ uint32, _ []byte) bool { return typ == flows.TypeEchoRequest })
	c.eventuallyMetric("planck_openflow_closed_total", map[string]string{"reason": "timeout"}, 1)
}

func TestEchoRequestIsAnsweredWithItsData(t *testing.T) {
	c, _, _ := lonely(t, nil)
	p := c.dial()
	greeted, got := make(chan struct{}), make(chan string, 1)
	p.background(5, func(typ uint8, xid uint32, body []byte) bool {
		switch typ {
		case flows.TypeEchoReply:
			got <- fmt.Sprint(xid, string(body))
		case flows.TypeFeaturesRequest:
			close(greeted) // a request before our hello would be garbage
			return false
		case flows.TypeHello:
			return false
		}
		return true
	})
	wait := time.NewTimer(time.Minute)
	defer wait.Stop()
	select {
	case <-greeted:
	case <-wait.C:
		t.Fatal("the controller does not greet")
	}
	p.send(flows.AppendEchoRequest(nil, 77, []byte("are you there")))
	select {
	case answer := <-got:
		if answer != "77are you there" {
			t.Errorf("the answer is %q", answer)
		}
	case <-wait.C:
		t.Error("there is no answer")
	}
}

// desireSome makes the fixed compiler want n flows on br-int.
func desireSome(n int) *fixed {
	compiler := newFixed()
	compiler.change(brInt, func(desired, _ *flows.Set) {
		for i := range n {
			desired.AddFlow(manyFlow(i))
		}
	})
	return compiler
}

func TestBundleWithoutAnswerIsReadAgain(t *testing.T) {
	c, w, log := lonely(t, func(o *Options) { o.Compiler = desireSome(3) })
	w.host("h1", 1)
	p := c.dial()
	committed, silent := false, false
	p.background(dpidInt+1<<16, func(typ uint8, _ uint32, body []byte) bool {
		if control, err := flows.DecodeBundleControl(body); err == nil && typ == flows.TypeExperimenter && control.Type == flows.BundleCommit {
			committed = true
		}
		if silent || !committed || typ != flows.TypeBarrierRequest {
			return false
		}
		silent = true
		return true
	})
	c.eventuallyMetric("planck_bundle_unknown_total", nil, 1)
	c.eventuallyMetric("planck_switch_reads_total", map[string]string{"cause": "unknown"}, 1)
	c.eventuallySynced()
	if len(log.with("not known")) == 0 {
		t.Error("the log does not say so")
	}
}

func TestBundleRefusedWithoutBlameGoesOneByOne(t *testing.T) {
	c, w, _ := lonely(t, func(o *Options) { o.Compiler = desireSome(3) })
	w.host("h1", 1)
	p := c.dial()
	single := make(chan struct{}, 10)
	p.background(dpidInt+1<<16, func(typ uint8, xid uint32, body []byte) bool {
		if typ == flows.TypeFlowMod {
			single <- struct{}{}
		}
		if typ != flows.TypeExperimenter {
			return false
		}
		control, err := flows.DecodeBundleControl(body)
		if err != nil || control.Type != flows.BundleCommit {
			return false
		}
		p.send(message(flows.TypeError, xid, []byte{0xff, 0xff, 0x09, 0x09, 0x4f, 0x4e, 0x46, 0}))
		return true
	})
	c.eventuallySynced()
	if len(single) != 4 {
		t.Errorf("%d FLOW_MODs came outside of bundles, want 3 and the canary", len(single))
	}
}

func TestBrokenRepliesEndTheSession(t *testing.T) {
	for name, reply := range map[string]func(kind, xid uint32) []byte{
		"flow stats that say more than they have": func(kind, xid uint32) []byte {
			return message(flows.TypeMultipartReply, xid, append([]byte{0, byte(kind), 0, 0, 0, 0, 0, 0}, 0xff, 0xff, 1, 2, 3, 4, 5, 6))
		},
		"another type": func(_, xid uint32) []byte {
			return message(flows.TypeMultipartReply, xid, []byte{0, 99, 0, 0, 0, 0, 0, 0})
		},
		"no header": func(_, xid uint32) []byte { return message(flows.TypeMultipartReply, xid, []byte{0}) },
	} {
		t.Run(name, func(t *testing.T) {
			c, w, _ := lonely(t, nil)
			w.host("h1", 1)
			p := c.dial()
			p.background(dpidInt+1<<16, func(typ uint8, xid uint32, body []byte) bool {
				if typ != flows.TypeMultipartRequest {
					return false
				}
				p.send(reply(uint32(body[1]), xid))
				return true
			})
			c.eventuallyMetric("planck_openflow_closed_total", map[string]string{"reason": "garbage"}, 1)
		})
	}
}

func TestBrokenPacketInIsCountedAndIgnored(t *testing.T) {
	c, w, _ := lonely(t, nil)
	w.host("h1", 1)
	p := c.dial()
	p.background(dpidInt+1<<16, nil)
	c.eventuallySynced()
	p.send(message(flows.TypePacketIn, 0, []byte{1, 2, 3}))
	p.send(message(flows.TypePacketIn, 0, append(make([]byte, 16), 0, 1, 0, 4, 0, 0, 0, 0, 0, 0, 1, 2, 3)))
	c.eventuallyMetric("planck_packet_ins_total", map[string]string{"outcome": "broken"}, 1)
	c.eventuallyMetric("planck_packet_ins_total", map[string]string{"outcome": "unknown"}, 1)
	c.eventuallySynced()
}

func TestStaleGenerationIsRefusedPlainly(t *testing.T) {
	c, w, log := lonely(t, nil)
	w.host("h1", 1)
	p := c.dial()
	p.background(dpidInt+1<<16, func(typ uint8, xid uint32, _ []byte) bool {
		if typ == flows.TypeRoleRequest {
			p.send(message(flows.TypeError, xid, []byte{0, 11, 0, 0}))
		}
		return typ == flows.TypeRoleRequest
	})
	eventually(t, 5*time.Second, func() error {
		if len(log.with("RoleRequestFailed/Stale")) == 0 {
			return fmt.Errorf("no such line in %q", log.with(""))
		}
		return nil
	})
}

// scripted is a cluster that says what a test sets.
type scripted struct {
	alone
	mu         sync.Mutex
	generation uint64
	changed    chan struct{}
}

func (s *scripted) Generation() (generation, revision uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.generation, 0
}

func (s *scripted) Changed() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.changed
}

func (s *scripted) set(generation uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.generation = generation
	close(s.changed)
	s.changed = make(chan struct{})
}

// A connection that ended here would be missed by whoever looks which switches
// are heard.
func TestMemberThatIsOutrankedWaitsForANewerGeneration(t *testing.T) {
	cluster := &scripted{generation: 3, changed: make(chan struct{})}
	c, w, _ := lonely(t, func(o *Options) { o.Cluster = cluster })
	w.host("h1", 1)
	p := c.dial()
	outranked := make(chan struct{}, 10)
	p.background(dpidInt+1<<16, func(typ uint8, xid uint32, body []byte) bool {
		if typ != flows.TypeRoleRequest {
			return false
		}
		role, generation, err := flows.DecodeRole(body)
		stale := err == nil && role == flows.RoleMaster && generation < 5
		if stale {
			p.send(message(flows.TypeError, xid, []byte{0, 11, 0, 0}))
			outranked <- struct{}{}
		}
		return stale
	})
	<-outranked
	cluster.set(4)
	<-outranked
	cluster.set(5)
	c.eventuallySynced()
	if len(outranked) > 0 {
		t.Errorf("%d more requests for the role with generations that were refused", len(outranked))
	}
	if n := c.metric("planck_openflow_closed_total", nil); n != 0 {
		t.Errorf("%v connections ended", n)
	}
}

func TestSwitchThatDoesNotReadIsGivenUp(t *testing.T) {
	c, w, _ := lonely(t, func(o *Options) {
		o.Compiler = desireSome(60000)
		o.Timeouts.Reply = time.Minute
	})
	w.host("h1", 1)
	p := c.dial()
	p.conn.(*net.TCPConn).SetReadBuffer(4096)
	stuck := make(chan struct{})
	t.Cleanup(func() { close(stuck) })
	p.background(dpidInt+1<<16, func(typ uint8, _ uint32, _ []byte) bool {
		if typ == flows.TypeExperimenter {
			<-stuck
		}
		return false
	})
	c.eventuallyMetric("planck_openflow_closed_total", map[string]string{"reason": "timeout"}, 1)
}

func TestXIDsWrapWithoutMeetingReservedOnes(t *testing.T) {
	var xs exchanges
	xs.next = xidUnmatched - 5
	a, err := xs.begin(10, nil)
	if err != nil {
		t.Fatal(err)
	}
	if a.first < firstXID || a.last >= xidUnmatched || a.last-a.first != 9 {
		t.Errorf("xids %d to %d", a.first, a.last)
	}
	if _, err := xs.begin(math.MaxUint16, nil); err != nil {
		t.Fatal(err)
	}
}

func TestErrorsAreNamedAsInTheSpecification(t *testing.T) {
	for want, e := range map[string]SwitchError{
		"switch refused: BadAction/OutGroup (type 2 code 9)":           {Type: 2, Code: 9},
		"switch refused: BundleFailed/MsgFailed (ONF 2313)":            {Type: 0xffff, Code: 2313, Experimenter: onfExperimenter},
		"switch refused: Nicira error 42":                              {Type: 0xffff, Code: 42, Experimenter: niciraExperimenter},
		"switch refused: experimenter 0x7 error 42":                    {Type: 0xffff, Code: 42, Experimenter: 7},
		"switch refused: FlowModFailed/TableFull (type 5 code 1)":      {Type: 5, Code: 1},
		"switch refused: MeterModFailed/UnknownMeter (type 12 code 3)": {Type: 12, Code: 3},
	} {
		if got := e.Error(); got != want {
			t.Errorf("%+v is %q, want %q", e, got, want)
		}
	}
}

func TestSwitchWithTheDatapathIDOfTwoBridgesGetsNothing(t *testing.T) {
	c, w, log := lonely(t, nil)
	w.host("h1", 1)
	w.update(func(tx *network.Tx) error {
		h := tx.Host("h1").Clone()
		h.Name, h.SystemID = "clone", "clone"
		return tx.PutHost(h)
	})
	says := func(text string) {
		t.Helper()
		eventually(t, 5*time.Second, func() error {
			if len(log.with(text)) == 0 {
				return fmt.Errorf("the log does not say %q: %q", text, log.with(""))
			}
			return nil
		})
	}
	says("same datapath id")
	p := c.dial()
	p.background(dpidInt+1<<16, nil)
	says("waits and gets nothing")
	w.update(func(tx *network.Tx) error { return tx.DeleteHost("clone") })
	c.eventuallySynced()
}
