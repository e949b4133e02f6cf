package flows

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
)

var be = binary.BigEndian

// Reserved port numbers of OpenFlow 1.3.
const (
	PortMax        uint32 = 0xffffff00
	PortInPort     uint32 = 0xfffffff8
	PortTable      uint32 = 0xfffffff9 // only in packet-outs: through the tables
	PortNormal     uint32 = 0xfffffffa
	PortFlood      uint32 = 0xfffffffb
	PortAll        uint32 = 0xfffffffc
	PortController uint32 = 0xfffffffd
	PortLocal      uint32 = 0xfffffffe
	PortAny        uint32 = 0xffffffff
)

// TableNone in CTSpec means that the packet does not come back from conntrack.
const TableNone uint8 = 0xff

// MaxLenAll as the length for ToController sends whole packets.
const MaxLenAll uint16 = 0xffff

// Kind says what an Action does.
type Kind uint8

// The kinds of actions. Those from KindMeter on are instructions.
const (
	KindNone           Kind = iota
	KindUnknown             // one that we have no name for, kept as bytes
	KindOutput              // output, CONTROLLER, IN_PORT, NORMAL …
	KindOutputReg           // output to the port in a register
	KindGroup               //
	KindSetField            // set_field, all bits or some
	KindLoad                // load, Open vSwitch's older set_field
	KindMove                //
	KindPushVLAN            //
	KindPopVLAN             //
	KindDecTTL              //
	KindResubmit            //
	KindCT                  //
	KindNAT                 // in CT
	KindCTClear             //
	KindConjunction         //
	KindClone               //
	KindSetQueue            //
	KindCheckPktLarger      //
	KindMeter               //
	KindClearActions
	KindWriteActions
	KindWriteMetadata
	KindGoto
	KindUnknownInstruction
)

// Action is one action of a flow, packet-out or bucket. Meter, WriteMetadata and
// Goto are instructions in OpenFlow and are written among the actions here, as in
// ovs-ofctl.
type Action struct {
	kind   Kind
	field  Field // written; read by OutputReg and CT's zone
	src    Field // read by Move
	off    uint16
	srcOff uint16
	bits   uint16
	table  uint8
	id     uint32 // port, group, meter, conjunction, queue
	n      uint16 // maxLen; clause and number of clauses; type of tag
	value  Value
	mask   Value
	ct     *CTSpec
	nat    *NAT
	nested []Action
	raw    string
}

// CTSpec is the argument of CT.
type CTSpec struct {
	Commit bool
	Force  bool
	// Zone is used if ZoneField is none; else the low 16 bits of that field are.
	Zone      uint16
	ZoneField Field
	// Table is where the packet comes back with its state, or TableNone.
	Table  uint8
	NAT    *NAT
	ALG    uint16   // 21 (ftp), 69 (tftp) or 0
	Nested []Action // exec: what to set in the entry
}

// NAT is address translation in CT. The zero NAT translates as the connection's
// entry says.
type NAT struct {
	Src, Dst            bool       // at most one
	First, Last         netip.Addr // Last may be invalid: one address
	FirstPort, LastPort uint16     // 0: any
	Persistent          bool
	Hash                bool
	Random              bool
}

// Output sends the packet out of a port; not to one that it came from, which
// needs PortInPort.
func Output(port uint32) Action { return Action{kind: KindOutput, id: port} }

// OutputReg sends the packet out of the port whose number the register holds.
func OutputReg(f Field) Action {
	return Action{kind: KindOutputReg, field: f, bits: uint16(f.Bits()), n: MaxLenAll}
}

// ToController sends the first maxLen bytes of the packet to the controller.
func ToController(maxLen uint16) Action {
	return Action{kind: KindOutput, id: PortController, n: maxLen}
}

// Punts reports whether the action sends a packet to the controller.
func (a Action) Punts() bool {
	return a.kind == KindOutput && a.id == PortController || a.kind == KindClone && slices.ContainsFunc(a.nested, Action.Punts)
}

// ToGroup sends the packet through a group.
func ToGroup(id uint32) Action { return Action{kind: KindGroup, id: id} }

// SetField sets a field to v.
func SetField(f Field, v uint64) Action { return setAll(f, Value{Lo: v}) }

// SetMAC sets a field to an Ethernet address.
func SetMAC(f Field, m [6]byte) Action { return setAll(f, macValue(m)) }

// SetIP sets a field to an address. It panics if the address is not of the
// field's family.
func SetIP(f Field, a netip.Addr) Action {
	f.mustHold(a)
	return setAll(f, addressValue(a))
}

func setAll(f Field, v Value) Action {
	if f == InPort { // which OpenFlow forbids to set_field
		return Action{kind: KindLoad, field: f, bits: uint16(f.Bits()), value: v}
	}
	return Action{kind: KindSetField, field: f, value: v, mask: ones(f.Bits())}
}

// SetMasked sets the bits of a field where mask has ones.
func SetMasked(f Field, v, mask uint64) Action {
	return setMasked(f, Value{Lo: v}, Value{Lo: mask})
}

func setMasked(f Field, v, mask Value) Action {
	return Action{kind: KindSetField, field: f, value: v.and(mask), mask: mask}
}

// Move copies src to dst, as many of the low bits as both have.
func Move(src, dst Field) Action {
	return MoveBits(src, 0, dst, 0, uint(min(src.partBits(), dst.partBits())))
}

// MoveBits copies n bits of src from bit srcOff on to dst from bit dstOff on.
func MoveBits(src Field, srcOff uint, dst Field, dstOff, n uint) Action {
	return Action{kind: KindMove, src: src, srcOff: uint16(srcOff), field: dst, off: uint16(dstOff), bits: uint16(n)}
}

// PushVLAN adds a VLAN tag with id and priority 0.
func PushVLAN() Action { return Action{kind: KindPushVLAN, n: 0x8100} }

// PopVLAN takes the outer VLAN tag off.
func PopVLAN() Action { return Action{kind: KindPopVLAN} }

// DecTTL takes one from the TTL or hop limit; a packet with none left goes to
// the controller and nowhere else.
func DecTTL() Action { return Action{kind: KindDecTTL} }

// Resubmit looks the packet up in a table and then goes on with the actions
// behind it.
func Resubmit(table uint8) Action {
	return Action{kind: KindResubmit, id: PortInPort & 0xffff, table: table}
}

// CT sends the packet through conntrack.
func CT(spec CTSpec) Action {
	if spec.NAT != nil {
		spec.NAT = spec.NAT.canonical()
	}
	a := Action{kind: KindCT, ct: &spec, field: spec.ZoneField, table: spec.Table}
	if spec.ZoneField != 0 {
		a.bits = uint16(min(16, spec.ZoneField.Bits()))
	}
	return a
}

// CTClear takes the conntrack state off the packet.
func CTClear() Action { return Action{kind: KindCTClear} }

// Conjunction makes the flow one of those for a clause, from 1 to n, of the
// conjunctive match id.
func Conjunction(id uint32, clause, n uint8) Action {
	return Action{kind: KindConjunction, id: id, n: uint16(clause)<<8 | uint16(n)}
}

// Clone does the actions to a copy of the packet.
func Clone(actions ...Action) Action { return Action{kind: KindClone, nested: actions} }

// CheckPktLarger writes whether the packet, with its Ethernet header, is longer
// than so many bytes into one bit of a field.
func CheckPktLarger(length uint16, f Field, bit uint) Action {
	return Action{kind: KindCheckPktLarger, n: length, field: f, off: uint16(bit), bits: 1}
}

// SetQueue chooses the queue for outputs that follow.
func SetQueue(id uint32) Action { return Action{kind: KindSetQueue, id: id} }

// Goto continues in a later table, after the flow's actions.
func Goto(table uint8) Action { return Action{kind: KindGoto, table: table} }

// WriteMetadata sets the bits of metadata where mask has ones, after the flow's
// other actions.
func WriteMetadata(v, mask uint64) Action {
	return Action{kind: KindWriteMetadata, field: Metadata, value: Value{Lo: v & mask}, mask: Value{Lo: mask}}
}

// ApplyMeter sends the packet through a meter before the flow's actions.
func ApplyMeter(id uint32) Action { return Action{kind: KindMeter, id: id} }

// Kind says what the action does.
func (a Action) Kind() Kind { return a.kind }

// Port is where an Output goes.
func (a Action) Port() uint32 { return a.id }

// ID is the group, meter, queue or conjunction of the action.
func (a Action) ID() uint32 { return a.id }

// Writes is the field that a set_field, load, move, write_metadata or
// check_pkt_larger writes, else 0.
func (a Action) Writes() Field {
	switch a.kind {
	case KindSetField, KindLoad, KindMove, KindWriteMetadata, KindCheckPktLarger:
		return a.field
	}
	return 0
}

// FieldSet is what a set_field writes.
func (a Action) FieldSet() (t Term, ok bool) {
	if a.kind != KindSetField {
		return Term{}, false
	}
	return Term{a.field, a.value, a.mask}, true
}

// Reads is the field that a move, output or ct reads, else 0.
func (a Action) Reads() Field {
	switch a.kind {
	case KindMove:
		return a.src
	case KindOutputReg, KindCT:
		return a.field
	}
	return 0
}

// NextTable is the table where a goto, resubmit or ct continues.
func (a Action) NextTable() (table uint8, ok bool) {
	switch a.kind {
	case KindGoto, KindResubmit, KindCT:
		return a.table, a.table != TableNone
	}
	return 0, false
}

// NextTableID is the table of a goto.
func (a Action) NextTableID() uint8 { return a.table }

// SameInPort reports whether a resubmit looks up with the in_port that the packet has.
func (a Action) SameInPort() bool { return widenPort(uint16(a.id)) == PortInPort }

// Nested are the actions within a clone, ct or write_actions.
func (a Action) Nested() []Action {
	if a.kind == KindCT {
		return a.ct.Nested
	}
	return a.nested
}

// CT is the argument of a CT action, else nil.
func (a Action) CT() *CTSpec { return a.ct }

// check finds what can't be encoded, or not be told from something else in text.
func (a Action) check() error {
	switch a.kind {
	case KindNone:
		return fmt.Errorf("an action of no kind")
	case KindSetField:
		if err := checkFits(a.field, a.value.or(a.mask)); err != nil {
			return err
		}
		if a.mask.isZero() || !a.value.andNot(a.mask).isZero() {
			return fmt.Errorf("set_field of %s: %#x is not within the mask %#x", a.field.Name(), a.value, a.mask)
		}
	case KindOutput:
		if a.id != PortController && a.n != 0 {
			return fmt.Errorf("output to port %d with a length", a.id)
		}
	case KindLoad:
		if !a.value.andNot(ones(int(a.bits))).isZero() {
			return fmt.Errorf("load of %#x into %d bits", a.value, a.bits)
		}
		return checkRange(a.field, a.off, a.bits, 64)
	case KindMove:
		if err := checkRange(a.src, a.srcOff, a.bits, 128); err != nil {
			return err
		}
		return checkRange(a.field, a.off, a.bits, 128)
	case KindOutputReg:
		if a.n != MaxLenAll {
			return fmt.Errorf("output to %s with a length of %d", a.field.Name(), a.n)
		}
		return checkRange(a.field, a.off, a.bits, 64)
	case KindCheckPktLarger:
		if a.bits != 1 {
			return fmt.Errorf("check_pkt_larger to %d bits", a.bits)
		}
		return checkRange(a.field, a.off, a.bits, 128)
	case KindNAT:
		return a.nat.check()
	case KindCT:
		return a.ct.check(a)
	case KindConjunction:
		if clause, n := a.n>>8, a.n&0xff; clause < 1 || clause > n || n < 2 || n > 64 {
			return fmt.Errorf("conjunction %d: clause %d of %d", a.id, clause, n)
		}
	}
	return nil
}

func checkFits(f Field, v Value) error {
	if f == 0 || f >= numFields {
		return fmt.Errorf("no field %d", f)
	}
	if !v.andNot(ones(f.Bits())).isZero() {
		return fmt.Errorf("%s has %d bits, not room for %#x", f.Name(), f.Bits(), v)
	}
	return nil
}

func checkRange(f Field, off, n uint16, limit int) error {
	if f == 0 || f >= numFields {
		return fmt.Errorf("no field %d", f)
	}
	if n < 1 || int(n) > limit || int(off)+int(n) > f.partBits() {
		return fmt.Errorf("%s has %d bits, not %d from bit %d on", f.Name(), f.partBits(), n, off)
	}
	return nil
}

func (c *CTSpec) check(a Action) error {
	if a.field != 0 {
		if err := checkRange(a.field, a.off, a.bits, 16); err != nil {
			return fmt.Errorf("ct zone: %w", err)
		}
	}
	if c.NAT == nil {
		return nil
	}
	return c.NAT.check()
}

// canonical writes a range of one as one.
func (n NAT) canonical() *NAT {
	if n.Last == n.First {
		n.Last = netip.Addr{}
	}
	if n.LastPort == n.FirstPort {
		n.LastPort = 0
	}
	return &n
}

func (n *NAT) check() error {
	switch {
	case *n != *n.canonical():
		return fmt.Errorf("nat to a range of one")
	case n.Src && n.Dst:
		return fmt.Errorf("nat of both source and destination")
	case !n.Src && !n.Dst && *n != (NAT{}):
		return fmt.Errorf("nat to an address is of source or destination")
	case !n.First.IsValid() && (n.Last.IsValid() || n.FirstPort != 0 || n.Persistent || n.Hash || n.Random):
		return fmt.Errorf("nat without an address")
	case n.Last.IsValid() && n.Last.Is4() != n.First.Is4():
		return fmt.Errorf("nat to %s-%s: two families", n.First, n.Last)
	case n.FirstPort == 0 && n.LastPort != 0:
		return fmt.Errorf("nat with a last port only")
	}
	return nil
}
