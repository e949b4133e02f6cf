package flows

import (
	"encoding/binary"
	"net/netip"
)

// Packet is a packet in the pipeline of a switch, as the values of its fields:
// headers, registers and the rest. Those that it doesn't have are 0.
type Packet struct {
	fields [numFields]Value
	inner  []vlanTag // under the outermost tag, the deepest first
}

type vlanTag struct{ vid, pcp Value }

// NewPacket makes a packet with the values of the terms.
func NewPacket(terms ...Term) Packet {
	var p Packet
	for _, t := range terms {
		if t.Field != 0 {
			p.set(t.Field, t.Value, t.Mask)
		}
	}
	return p
}

// Get is the value of a field.
func (p *Packet) Get(f Field) Value {
	if f < XXReg0 {
		return p.fields[f]
	}
	var v Value
	for r := range Field(4) {
		v = v.shiftLeft(32).or(p.fields[Reg0+4*(f-XXReg0)+r])
	}
	return v
}

// set writes the bits under the mask.
func (p *Packet) set(f Field, v, mask Value) {
	v = p.Get(f).andNot(mask).or(v.and(mask))
	if f < XXReg0 {
		p.fields[f] = v
		return
	}
	for r := range Field(4) {
		p.fields[Reg0+4*(f-XXReg0)+r] = v.shiftRight(uint(96 - 32*r)).and(ones(32))
	}
}

// bits reads n bits of a field.
func (p *Packet) bits(f Field, off, n uint16) Value {
	return p.Get(f).shiftRight(uint(off)).and(ones(int(n)))
}

// setBits writes n bits of a field.
func (p *Packet) setBits(f Field, off, n uint16, v Value) {
	p.set(f, v.shiftLeft(uint(off)), ones(int(n)).shiftLeft(uint(off)))
}

// Matches tells whether the packet meets all terms of a match.
func (p *Packet) Matches(m Match) bool {
	for t := range m.Terms() {
		if p.Get(t.Field).and(t.Mask) != t.Value {
			return false
		}
	}
	return true
}

func (p *Packet) pushVLAN() {
	if p.fields[VLANVID].Lo != 0 {
		// A copy: packets that were cloned share the slice.
		p.inner = append(p.inner[:len(p.inner):len(p.inner)], vlanTag{p.fields[VLANVID], p.fields[VLANPCP]})
	}
	p.fields[VLANVID], p.fields[VLANPCP] = Value{Lo: VLANPresent}, Value{}
}

func (p *Packet) popVLAN() {
	p.fields[VLANVID], p.fields[VLANPCP] = Value{}, Value{}
	if n := len(p.inner); n > 0 {
		p.fields[VLANVID], p.fields[VLANPCP] = p.inner[n-1].vid, p.inner[n-1].pcp
		p.inner = p.inner[:n-1]
	}
}

// String has the fields that are not 0, in the syntax of ovs-ofctl.
func (p Packet) String() string {
	var terms []Term
	for f := ConjID; f < XXReg0; f++ {
		if v := p.fields[f]; !v.isZero() {
			terms = append(terms, Term{f, v, ones(f.Bits())})
		}
	}
	return NewMatch(terms...).String()
}

// Beyond is the packet as another bridge gets it from this one: headers, pkt_mark
// where that bridge is of the same switch, and nothing else, at the port inPort there.
func (p Packet) Beyond(inPort uint32, sameSwitch bool) Packet {
	for f := TunnelID; f <= Metadata; f++ {
		if f != PktMark || !sameSwitch {
			p.fields[f] = Value{}
		}
	}
	p.fields[ConjID] = Value{}
	p.fields[InPort] = Value{Lo: uint64(inPort)}
	return p
}

// Set writes the values of the terms.
func (p *Packet) Set(terms ...Term) {
	for _, t := range terms {
		p.set(t.Field, t.Value, t.Mask)
	}
}

// IP is the address in a field of the packet, the zero Addr where it has none of
// the field's family.
func (p *Packet) IP(f Field) netip.Addr {
	v := p.Get(f)
	if v.isZero() {
		return netip.Addr{}
	}
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], v.Hi)
	binary.BigEndian.PutUint64(b[8:], v.Lo)
	if f.Bits() == 32 {
		return netip.AddrFrom4([4]byte(b[12:]))
	}
	return netip.AddrFrom16(b)
}

// MAC is the Ethernet address in a field of the packet.
func (p *Packet) MAC(f Field) (m [6]byte) {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], p.Get(f).Lo)
	return [6]byte(b[2:])
}
