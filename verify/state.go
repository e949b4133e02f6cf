package verify

import "planck/flows"

// slots are the fields that are followed through the tables. Headers are not:
// whether a packet crosses networks must not depend on what a machine writes there.
var slots = [...]struct {
	field flows.Field
	// set is followed only from where a flow writes it.
	set bool
}{
	{flows.InPort, false}, {flows.VLANVID, false}, {flows.EthType, false}, {flows.EthDst, false}, {flows.ARPOp, true}, {flows.ICMPType, true}, {flows.ICMPv6Type, true},
	{flows.TunnelID, false}, {flows.TunSrc, false}, {flows.TunDst, false}, {flows.TunIPv6Src, false}, {flows.TunIPv6Dst, false},
	{flows.Reg0, false}, {flows.Reg1, false}, {flows.Reg2, false}, {flows.Reg3, false}, {flows.Reg4, false}, {flows.Reg5, false},
	{flows.Reg6, false}, {flows.Reg7, false}, {flows.Reg9, false}, {flows.Reg10, false}, {flows.Reg11, false},
	{flows.PktMark, false}, {flows.Metadata, false},
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

// state is a set of packets at a table.
type state struct {
	value, known [len(slots)]uint64
	single       bool // under the outermost tag is none
	ghost        ghost
}

// stateOf keeps of some packets what the tables to come look at.
func stateOf(s *flows.Symbolic, live slotSet, g ghost) state {
	st := state{ghost: g, single: s.SingleTag()}
	for i := range slots {
		if live&(1<<i) != 0 {
			st.value[i], st.known[i] = s.Know(slots[i].field)
		}
	}
	return st
}

func (st *state) symbolic() flows.Symbolic {
	s := flows.Unknown()
	if st.single {
		s.LearnSingleTag()
	}
	for i := range slots {
		if k := st.known[i]; k != 0 {
			s.Learn(flows.Term{Field: slots[i].field, Value: flows.Value{Lo: st.value[i]}, Mask: flows.Value{Lo: k}})
		}
	}
	return s
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
		case flows.KindOutput, flows.KindOutputReg:
			set.add(flows.InPort)
			set.add(flows.VLANVID)
			set.add(flows.PktMark)
			for _, f := range []flows.Field{flows.TunnelID, flows.TunDst, flows.TunIPv6Dst, flows.EthType, flows.ARPOp, flows.ICMPType, flows.ICMPv6Type} {
				set.add(f)
			}
		case flows.KindGroup:
			for _, bucket := range b.buckets[a.ID()] {
				b.reads(set, next, table, bucket)
			}
		}
		b.reads(set, next, table, a.Nested())
	}
}
