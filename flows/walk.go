package flows

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Walker is a simulator of a switch's flow tables and groups, for tests of
// pipelines: where does a packet go, and how does it look then? It has no clock,
// no meters and no connections: conntrack says of every packet what ConnState
// says, whose tuple is the packet's own, turned round for a reply, unless Began
// says otherwise, and takes it for the first of a connection where it translates
// addresses.
type Walker struct {
	// ConnState is the ct_state with which packets come back from ct.
	ConnState uint64
	// Began is the packet that began the connection to which all packets are
	// related, as ICMP errors are; nil for those that are part of it.
	Began *Packet
	// Length is how many bytes all packets have, with their Ethernet header.
	Length uint16
	tables [256][]*Flow // by priority, highest first
	groups map[uint32]*Group
}

// Step is a look-up in a table. Flow is nil if none matched.
type Step struct {
	Table uint8
	Flow  *Flow
}

// Sent is a packet that left the switch. Port may be one of the reserved ones:
// PortController, PortLocal, PortNormal, PortFlood, PortAll.
type Sent struct {
	Port   uint32
	Packet Packet
}

// Trace is what became of a packet.
type Trace struct {
	Steps          []Step
	Sent           []Sent
	Recirculations int
}

// Limits of Open vSwitch.
const (
	maxDepth   = 64
	maxLookups = 4096
)

// ErrLoop says that look-ups do not end.
var ErrLoop = errors.New("too deep, a loop")

// NewWalker makes a walker of what a switch has. The set must not change.
func NewWalker(s *Set) *Walker {
	w := &Walker{groups: s.Groups}
	for _, f := range s.SortedFlows() {
		w.tables[f.Table] = append(w.tables[f.Table], f)
	}
	return w
}

// Walk sends a packet through the tables from table 0 on. An error means that a
// switch would not process it so, or in no defined way: two flows of the same
// priority match and differ, there is a loop, an action is not simulated.
func (w *Walker) Walk(p Packet) (Trace, error) {
	k := walk{Walker: w, packet: p}
	err := k.table(0)
	return k.trace, err
}

// errStop ends a list of actions, as a TTL that ran out does.
var errStop = errors.New("the list of actions ends")

// walk is one packet on its way.
type walk struct {
	*Walker
	packet Packet
	// translated is what ct changed in the packet itself: the tables go on with
	// what they knew, until the packet comes back from a ct.
	translated []translation
	trace      Trace
	depth      int
}

// translation is an address that ct put into a packet.
type translation struct {
	field Field
	value Value
}

// translate is the translation of a new connection.
func (n *NAT) translate() (t translation, ok bool) {
	if n == nil || !n.First.IsValid() {
		return t, false
	}
	fields := [2]Field{IPv4Src, IPv4Dst}
	if n.First.Is6() {
		fields = [2]Field{IPv6Src, IPv6Dst}
	}
	t = translation{fields[0], addressValue(n.First)}
	if n.Dst {
		t.field = fields[1]
	}
	return t, true
}

// asSent is the packet with what ct changed.
func (k *walk) asSent() Packet {
	p := k.packet
	for _, t := range k.translated {
		p.set(t.field, t.value, ones(t.field.Bits()))
	}
	return p
}

func (k *walk) table(id uint8) error {
	k.depth++
	defer func() { k.depth-- }()
	if k.depth > maxDepth || len(k.trace.Steps) >= maxLookups {
		return fmt.Errorf("table %d: %w", id, ErrLoop)
	}
	f, err := k.lookup(id)
	k.trace.Steps = append(k.trace.Steps, Step{id, f})
	if err != nil || f == nil {
		return err
	}
	if err := k.do(f.Instructions.Actions()); err != nil {
		return fmt.Errorf("%w, in %s", err, f)
	}
	return nil
}

func (k *walk) lookup(id uint8) (*Flow, error) {
	for i, f := range k.tables[id] {
		if !k.packet.Matches(f.Match) {
			continue
		}
		for _, g := range k.tables[id][i+1:] {
			if g.Priority == f.Priority && g.Instructions != f.Instructions && k.packet.Matches(g.Match) {
				return f, fmt.Errorf("two flows of one priority match: %s and %s", f, g)
			}
		}
		return f, nil
	}
	return nil, nil
}

func (k *walk) do(actions []Action) error {
	for _, a := range actions {
		err := k.action(a)
		if errors.Is(err, errStop) {
			return nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (k *walk) action(a Action) error {
	p := &k.packet
	switch a.kind {
	case KindOutput:
		return k.output(a.id)
	case KindOutputReg:
		return k.output(uint32(p.bits(a.field, a.off, a.bits).Lo))
	case KindGroup:
		return k.group(a.id)
	case KindSetField, KindWriteMetadata:
		p.set(a.field, a.value, a.mask)
	case KindLoad:
		p.setBits(a.field, a.off, a.bits, a.value)
	case KindMove:
		p.setBits(a.field, a.off, a.bits, p.bits(a.src, a.srcOff, a.bits))
	case KindCheckPktLarger:
		larger := Value{}
		if k.Length > a.n {
			larger.Lo = 1
		}
		p.setBits(a.field, a.off, a.bits, larger)
	case KindPushVLAN:
		p.pushVLAN()
	case KindPopVLAN:
		p.popVLAN()
	case KindDecTTL:
		return k.decTTL()
	case KindResubmit:
		return k.resubmit(a)
	case KindClone:
		return k.onCopy(a.nested)
	case KindCT:
		return k.conntrack(a)
	case KindCTClear:
		for _, f := range append([]Field{CtState, CtZone, CtMark, CtLabel}, tupleFields...) {
			p.fields[f] = Value{}
		}
	case KindGoto:
		return k.table(a.table)
	case KindMeter, KindSetQueue:
	default:
		return fmt.Errorf("%s is not simulated", a)
	}
	return nil
}

// output leaves out the port that the packet came from, as a switch does, and
// port 0, which does not exist.
func (k *walk) output(port uint32) error {
	in := uint32(k.packet.Get(InPort).Lo)
	switch {
	case port == PortInPort:
		port = in
	case port == PortTable:
		return k.table(0)
	case port == in && port != PortController:
		return nil
	}
	if port != 0 {
		k.trace.Sent = append(k.trace.Sent, Sent{port, k.asSent()})
	}
	return nil
}

// onCopy does actions to a copy of the packet.
func (k *walk) onCopy(actions []Action) error {
	saved, translated := k.packet, k.translated
	err := k.do(actions)
	k.packet, k.translated = saved, translated
	return err
}

// group takes the first bucket of all groups but those of type all: all ports are
// up, and any bucket may be the one that a hash selects.
func (k *walk) group(id uint32) error {
	g := k.groups[id]
	if g == nil {
		return fmt.Errorf("no group %d", id)
	}
	k.depth++
	defer func() { k.depth-- }()
	if k.depth > maxDepth {
		return fmt.Errorf("group %d: %w", id, ErrLoop)
	}
	for rest := g.Buckets; len(rest) >= 16; {
		n := int(uint16At(rest, 0))
		actions := readActions(rest[16:n])
		var set []Action
		for _, i := range actionSet(actions) {
			set = append(set, actions[i])
		}
		if err := k.onCopy(set); err != nil {
			return err
		}
		if g.Type != GroupAll {
			return nil
		}
		rest = rest[n:]
	}
	return nil
}

func (k *walk) decTTL() error {
	ttl := k.packet.Get(IPTTL).Lo
	if ttl <= 1 {
		k.trace.Sent = append(k.trace.Sent, Sent{PortController, k.packet})
		return errStop
	}
	k.packet.fields[IPTTL].Lo = ttl - 1
	return nil
}

// resubmit looks up with another in_port, which does not outlast it.
func (k *walk) resubmit(a Action) error {
	in := k.packet.fields[InPort]
	if port := widenPort(uint16(a.id)); port != PortInPort {
		k.packet.fields[InPort] = Value{Lo: uint64(port)}
		defer func() { k.packet.fields[InPort] = in }()
	}
	if a.table == TableNone {
		return k.table(k.trace.Steps[len(k.trace.Steps)-1].Table)
	}
	return k.table(a.table)
}

// conntrack: a copy comes back in the table with its state, and the packet goes
// on without.
func (k *walk) conntrack(a Action) error {
	own, translates := a.ct.NAT.translate()
	if a.table == TableNone {
		if translates {
			k.translated = append(slices.Clip(k.translated), own)
		}
		return nil
	}
	saved, before := k.packet, k.translated
	k.packet, k.translated = k.asSent(), nil
	k.trace.Recirculations++
	k.packet.fields[CtState] = Value{Lo: k.ConnState}
	k.packet.fields[CtZone] = Value{Lo: uint64(a.ct.Zone)}
	if a.field != 0 {
		k.packet.fields[CtZone] = saved.bits(a.field, a.off, a.bits)
	}
	k.setTuple()
	if translates {
		k.packet.set(own.field, own.value, ones(own.field.Bits()))
	}
	err := k.table(a.table)
	k.packet, k.translated = saved, before
	return err
}

// ctReply is the bit of ct_state for packets of the direction that did not begin
// the connection.
const ctReply = 1 << 3

// icmpRequests has the type that each reply of ICMP answers.
var icmpRequests = map[Field]map[uint64]uint64{
	ICMPType:   {0: 8, 14: 13, 16: 15},
	ICMPv6Type: {129: 128},
}

var tupleFields = []Field{CtNwSrc, CtIPv6Src, CtNwDst, CtIPv6Dst, CtNwProto, CtTpSrc, CtTpDst}

// setTuple gives the packet the tuple of its connection.
func (k *walk) setTuple() {
	if k.Began == nil {
		k.packet.setTuple(k.ConnState&ctReply != 0)
		return
	}
	began := *k.Began
	began.setTuple(false)
	for _, f := range tupleFields {
		k.packet.fields[f] = began.fields[f]
	}
}

// setTuple gives the packet the tuple of a connection that it began, or replies to.
func (p *Packet) setTuple(reply bool) {
	src, dst := [2]Field{CtNwSrc, CtIPv6Src}, [2]Field{CtNwDst, CtIPv6Dst}
	from, to := [2]Field{IPv4Src, IPv6Src}, [2]Field{IPv4Dst, IPv6Dst}
	ports := map[uint64][2]Field{protoTCP: {TCPSrc, TCPDst}, protoUDP: {UDPSrc, UDPDst}, protoSCTP: {SCTPSrc, SCTPDst}}
	protocol := p.fields[IPProto]
	l4 := ports[protocol.Lo]
	if reply {
		from, to = to, from
		l4[0], l4[1] = l4[1], l4[0]
	}
	for i := range src {
		p.fields[src[i]], p.fields[dst[i]] = p.fields[from[i]], p.fields[to[i]]
	}
	p.fields[CtNwProto] = protocol
	p.fields[CtTpSrc], p.fields[CtTpDst] = p.fields[l4[0]], p.fields[l4[1]]
	for proto, icmp := range map[uint64][2]Field{protoICMP: {ICMPType, ICMPCode}, protoICMPv6: {ICMPv6Type, ICMPv6Code}} {
		if protocol.Lo != proto {
			continue
		}
		p.fields[CtTpSrc], p.fields[CtTpDst] = p.fields[icmp[0]], p.fields[icmp[1]]
		if request, ok := icmpRequests[icmp[0]][p.fields[icmp[0]].Lo]; ok && reply {
			p.fields[CtTpSrc] = Value{Lo: request}
		}
	}
}

// Tables are the numbers of the tables that the packet went through.
func (t *Trace) Tables() []uint8 {
	var all []uint8
	for _, s := range t.Steps {
		all = append(all, s.Table)
	}
	return all
}

// Ports are those that the packet left by, sorted.
func (t *Trace) Ports() []uint32 {
	var all []uint32
	for _, s := range t.Sent {
		all = append(all, s.Port)
	}
	slices.Sort(all)
	return all
}

// String is the trace for the message of a test that failed.
func (t *Trace) String() string {
	var b strings.Builder
	for _, s := range t.Steps {
		text := fmt.Sprintf("table=%d, no match", s.Table)
		if s.Flow != nil {
			text = s.Flow.String()
		}
		b.WriteString(text + "\n")
	}
	for _, s := range t.Sent {
		fmt.Fprintf(&b, "→ %s: %s\n", formatPort(s.Port), s.Packet)
	}
	if len(t.Sent) == 0 {
		b.WriteString("→ dropped\n")
	}
	return b.String()
}
