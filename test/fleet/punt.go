package fleet

import (
	"errors"
	"fmt"
	"slices"

	"planck/flows"
)

// newConnection is the ct_state with which a packet comes back from conntrack:
// tracked, and the first of its connection.
const newConnection = 0x21

// walker is what the flows of a bridge do with packets, for one version of them.
type walker struct {
	*flows.Walker
	version uint64
}

var errNoController = errors.New("no controller takes packets of the bridge")

// send lets a frame come in by a port. It goes to the controllers where a flow
// says so, and nowhere else: there are no other ports.
func (b *bridge) send(port uint32, frame []byte) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !slices.ContainsFunc(b.sessions, (*ofSession).hears) {
		return errNoController
	}
	if b.walker == nil || b.walker.version != b.version {
		set, err := b.set()
		if err != nil {
			return err
		}
		b.walker = &walker{flows.NewWalker(set), b.version}
		b.walker.ConnState, b.walker.Length = newConnection, uint16(len(frame))
	}
	terms, err := fieldsOf(frame)
	if err != nil {
		return err
	}
	trace, err := b.walker.Walk(flows.NewPacket(append(terms, flows.InPort.Is(uint64(port)))...))
	if err != nil {
		return err
	}
	for _, sent := range trace.Sent {
		if sent.Port == flows.PortController {
			return b.packetIn(&trace, &sent, frame)
		}
	}
	return fmt.Errorf("%s: no flow sends the packet to a controller:\n%s", b.name, &trace)
}

// set is what the switch has, as the walker wants it.
func (b *bridge) set() (*flows.Set, error) {
	set := flows.NewSet()
	for _, text := range b.flows {
		list, err := flows.DecodeFlowStats([]byte(text))
		if err != nil {
			return nil, err
		}
		set.AddFlow(&list[0].Flow)
	}
	for _, text := range b.groups {
		list, err := flows.DecodeGroupDesc([]byte(text))
		if err != nil {
			return nil, err
		}
		set.AddGroup(&list[0])
	}
	return set, nil
}

// packetIn tells the controllers that are no slaves. b.mu is held.
func (b *bridge) packetIn(trace *flows.Trace, sent *flows.Sent, frame []byte) error {
	by := punting(trace)
	if by == nil {
		return fmt.Errorf("%s: no flow of the trace has the controller among its actions", b.name)
	}
	m := message(flows.TypePacketIn, 0, 128+len(frame))
	m = be.AppendUint32(m, 0xffffffff)
	m = be.AppendUint16(m, uint16(len(frame)))
	m = append(m, flows.ReasonAction, by.Table)
	m = be.AppendUint64(m, by.Cookie)
	m = pipelineFields(&sent.Packet).Append(m)
	m = finish(append(append(m, 0, 0), frame...))
	for _, s := range b.sessions {
		if s.hears() {
			s.out.send(m)
		}
	}
	return nil
}

// hears reports whether a controller is sent packets.
func (s *ofSession) hears() bool { return s.role != flows.RoleSlave }

// punting is the last flow of a trace that sends to the controller.
func punting(trace *flows.Trace) *flows.Flow {
	for _, step := range slices.Backward(trace.Steps) {
		if step.Flow != nil && slices.ContainsFunc(step.Flow.Instructions.Actions(), flows.Action.Punts) {
			return step.Flow
		}
	}
	return nil
}

// pipelineFields are the fields of a packet that a packet-in tells.
func pipelineFields(p *flows.Packet) flows.Match {
	told := []flows.Field{flows.InPort, flows.TunnelID, flows.PktMark, flows.Metadata}
	for f := flows.Reg0; f <= flows.Reg15; f++ {
		told = append(told, f)
	}
	var terms []flows.Term
	for _, f := range told {
		if v := p.Get(f); v.Lo != 0 {
			terms = append(terms, f.Is(v.Lo))
		}
	}
	return flows.NewMatch(terms...)
}

// packetOut delivers a packet to the ports that a controller names, and to
// IN_PORT; other ways through a switch lead to nobody here. b.mu is held.
func (b *bridge) packetOut(body []byte) *refusal {
	if len(body) < 16 || 16+int(be.Uint16(body[8:])) > len(body) {
		return badLength
	}
	in, actions := be.Uint32(body[4:]), body[16:16+be.Uint16(body[8:])]
	frame := body[16+len(actions):]
	for len(actions) >= 8 {
		n := int(be.Uint16(actions[2:]))
		if n < 8 || n > len(actions) {
			return badLength
		}
		if port := be.Uint32(actions[4:]); be.Uint16(actions) == 0 && b.received != nil {
			if port == flows.PortInPort {
				port = in
			}
			b.received(port, frame)
		}
		actions = actions[n:]
	}
	return nil
}

// fieldsOf reads an Ethernet frame with ARP, or UDP over IPv4.
func fieldsOf(frame []byte) ([]flows.Term, error) {
	if len(frame) < 42 {
		return nil, fmt.Errorf("a frame of %d bytes", len(frame))
	}
	terms := []flows.Term{
		flows.EthDst.IsMAC([6]byte(frame)), flows.EthSrc.IsMAC([6]byte(frame[6:])), flows.EthType.Is(uint64(be.Uint16(frame[12:]))),
	}
	body := frame[14:]
	switch be.Uint16(frame[12:]) {
	case 0x0806:
		return append(terms, flows.ARPOp.Is(uint64(be.Uint16(body[6:]))),
			flows.ARPSHA.IsMAC([6]byte(body[8:])), flows.ARPSPA.Is(uint64(be.Uint32(body[14:]))),
			flows.ARPTHA.IsMAC([6]byte(body[18:])), flows.ARPTPA.Is(uint64(be.Uint32(body[24:])))), nil
	case 0x0800:
		if body[0] != 0x45 || body[9] != 17 {
			return nil, errors.New("only UDP without options is understood")
		}
		return append(terms, flows.IPTTL.Is(uint64(body[8])), flows.IPProto.Is(17),
			flows.IPv4Src.Is(uint64(be.Uint32(body[12:]))), flows.IPv4Dst.Is(uint64(be.Uint32(body[16:]))),
			flows.UDPSrc.Is(uint64(be.Uint16(body[20:]))), flows.UDPDst.Is(uint64(be.Uint16(body[22:])))), nil
	}
	return nil, fmt.Errorf("a frame of type %#x", be.Uint16(frame[12:]))
}
