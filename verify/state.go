package verify

import (
	"encoding/binary"

	"planck/flows"
)

// slots are the fields that are followed through the tables. Headers are not:
// whether a packet crosses networks must not depend on what a machine writes there.
var slots = func() (all []slot) {
	for _, f := range []flows.Field{
		flows.InPort, flows.VLANVID, flows.EthType, flows.EthDst, flows.ARPOp, flows.ICMPType, flows.ICMPv6Type,
		flows.TunnelID, flows.TunSrc, flows.TunDst, flows.TunIPv6Src, flows.TunIPv6Dst,
		flows.Reg0, flows.Reg1, flows.Reg2, flows.Reg3, flows.Reg4, flows.Reg5, flows.Reg6, flows.Reg7, flows.Reg9, flows.Reg10, flows.Reg11,
		flows.PktMark, flows.Metadata,
	} {
		all = append(all, slot{f, f == flows.ARPOp || f == flows.ICMPType || f == flows.ICMPv6Type, f.Is(0).Mask.Lo})
	}
	return all
}()

type slot struct {
	field flows.Field
	set   bool   // it is followed only from where a flow writes it
	all   uint64 // its bits, of which it has at most 64 that are followed
}

const noSlot = 255

var slotOf = func() (of [256]uint8) {
	for i := range of {
		of[i] = noSlot
	}
	for i, s := range slots {
		of[s.field] = uint8(i)
	}
	return of
}()

// slotSet is some of the slots.
type slotSet uint32

func (s *slotSet) add(f flows.Field) {
	if i := slotOf[f]; i != noSlot {
		*s |= 1 << i
	}
}

// ghost is what a packet's place really is, whatever registers say: the network
// that it was sent on, or that a router has led it to.
type ghost struct {
	network, router uint32 // keys
	outside         bool   // no machine of the cloud has sent it
}

// appendState writes down packets that are to be looked up in a table: where, and of
// what is known of them the part that the tables to come look at. Packets are the
// same set where this is the same. It holds most fields in two or three bytes: a
// large cloud has some hundred thousand sets.
func appendState(b []byte, at *bridge, table uint8, then *rest, live slotSet, in *flows.Symbolic, g ghost) []byte {
	b = append(b, table, flag(g.outside)|flag(in.SingleTag())<<1)
	for _, n := range []uint64{uint64(at.number), then.id(), uint64(g.network), uint64(g.router)} {
		b = binary.AppendUvarint(b, n)
	}
	for i := range slots {
		if live&(1<<i) == 0 {
			continue
		}
		value, known := in.Know(slots[i].field)
		switch {
		case known == 0:
		case known == slots[i].all:
			b = binary.AppendUvarint(append(b, byte(i)), value)
		default:
			b = binary.AppendUvarint(append(b, byte(i)|partly), known)
			b = binary.AppendUvarint(b, value)
		}
	}
	return b
}

// partly marks a field some bits of which are not known.
const partly = 0x80

func flag(set bool) byte {
	if set {
		return 1
	}
	return 0
}

// readState reads what is known of packets.
func readState(key string, in *flows.Symbolic) (g ghost) {
	*in = flows.Unknown()
	at := 2
	next := func() (n uint64) {
		for shift := 0; ; shift += 7 {
			c := key[at]
			at++
			n |= uint64(c&0x7f) << shift
			if c < 0x80 {
				return n
			}
		}
	}
	next()
	next()
	g = ghost{network: uint32(next()), router: uint32(next()), outside: key[1]&1 != 0}
	if key[1]&2 != 0 {
		in.LearnSingleTag()
	}
	for at < len(key) {
		i := key[at]
		at++
		slot := &slots[i&^partly]
		known := slot.all
		if i&partly != 0 {
			known = next()
		}
		in.Learn(flows.Term{Field: slot.field, Value: flows.Value{Lo: next()}, Mask: flows.Value{Lo: known}})
	}
	return g
}

// findLive finds what each table, and those that may follow it, look at.
func (b *bridge) findLive() {
	next := [256][256]bool{}
	for t := range b.tables {
		for _, r := range b.tables[t] {
			for _, term := range r.terms {
				b.live[t].add(term.Field)
			}
			b.reads(&b.live[t], &next[t], uint8(t), r.actions)
		}
	}
	for changed := true; changed; {
		changed = false
		for t := range next {
			for to, leads := range next[t] {
				if all := b.live[t] | b.live[to]; leads && all != b.live[t] {
					b.live[t], changed = all, true
				}
			}
		}
	}
}

// readsOf adds what matters of packets that are sent to a port: that they don't go
// back, and what is kept of them where they come to. A machine gets them whatever
// they are, the controller and the host itself don't send them on.
func (b *bridge) readsOf(set *slotSet, port uint32) {
	_, patch := b.patches[port]
	_, tunnel := b.tunnels[port]
	anywhere := false
	switch {
	case port == flows.PortController, port == flows.PortLocal, port == 0:
		return
	case port == flows.PortInPort, port == flows.PortNormal, port == flows.PortFlood, port == flows.PortAll:
		anywhere = true
	}
	set.add(flows.InPort)
	if b.vifs[port] != nil {
		return
	}
	// Bridges forget the EtherType and the destination of what comes to them, see enter.
	for _, f := range []flows.Field{flows.VLANVID, flows.ARPOp, flows.ICMPType, flows.ICMPv6Type} {
		set.add(f)
	}
	if patch || anywhere {
		set.add(flows.PktMark)
	}
	if tunnel || anywhere && len(b.tunnels) > 0 {
		set.add(flows.TunnelID)
		set.add(flows.TunDst)
		set.add(flows.TunIPv6Dst)
	}
}

// reads adds what actions of a table look at, and the tables that they lead to.
func (b *bridge) reads(set *slotSet, next *[256]bool, table uint8, actions []flows.Action) {
	for _, a := range actions {
		if f := a.Reads(); f != 0 {
			set.add(f)
		}
		if to, ok := a.NextTable(); ok {
			next[to] = true
		} else if a.Kind() == flows.KindResubmit {
			next[table] = true
		}
		switch a.Kind() {
		case flows.KindOutput:
			b.readsOf(set, a.Port())
		case flows.KindOutputReg:
			b.readsOf(set, flows.PortAll)
		case flows.KindGroup:
			for _, bucket := range b.buckets[a.ID()] {
				b.reads(set, next, table, bucket)
			}
		}
		b.reads(set, next, table, a.Nested())
	}
}
