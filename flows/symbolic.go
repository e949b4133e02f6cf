package flows

import "math/bits"

// Symbolic is a set of packets that are all on the same way: what is known of
// their fields now and, for those made by NewSymbolic, what that says of the
// packet as it was first. It errs to more packets than there are, never to fewer.
type Symbolic struct {
	cells [numFields]cell
	inner cell // the tag under the outermost one, where there is one
	first *condition
	avoid *avoided
}

// avoided is terms on the first packet that are not all true, and others of the kind.
type avoided struct {
	terms []Term
	next  *avoided
}

// cell is what is known of a field. The bits that are not known are those of a
// field of the first packet, from bit shift on; of none where origin is 0.
type cell struct {
	value, known Value
	origin       Field
	shift        uint8
}

// condition is what is known of the packet as it was first. It is not changed
// once it is shared.
type condition struct{ value, known [numFields]Value }

// NewSymbolic is all packets with the values of the terms: any headers, and
// registers and the rest of what only a switch knows 0.
func NewSymbolic(terms ...Term) Symbolic {
	s := Unknown()
	s.first = &condition{}
	for f := InPort; f < XXReg0; f++ {
		switch {
		case isHeader(f):
			s.cells[f] = cell{origin: f}
		default:
			s.cells[f] = cell{known: ones(f.Bits())}
		}
	}
	for _, t := range terms {
		s.write(t.Field, t.Value, t.Mask)
	}
	return s
}

// Unknown is all packets.
func Unknown() Symbolic { return Symbolic{} }

func isHeader(f Field) bool { return f > InPort && f <= ARPTHA }

func (s *Symbolic) at(f Field) (value, known Value) {
	c := s.cells[f]
	if c.origin == 0 {
		return c.value, c.known
	}
	more := s.first.known[c.origin].shiftRight(uint(c.shift)).and(ones(f.Bits())).andNot(c.known)
	return c.value.or(s.first.value[c.origin].shiftRight(uint(c.shift)).and(more)), c.known.or(more)
}

// Know is the bits of a field that are known, and which those are.
func (s *Symbolic) Know(f Field) (value, known uint64) {
	v, k := s.at(f)
	return v.Lo, k.Lo
}

// KnowAddress is a field of 128 bits, if all of it is known.
func (s *Symbolic) KnowAddress(f Field) (Value, bool) {
	v, k := s.at(f)
	return v, k == ones(f.Bits())
}

// Learn adds to what is known of a field.
func (s *Symbolic) Learn(t Term) {
	c := &s.cells[t.Field]
	c.value, c.known = c.value.or(t.Value), c.known.or(t.Mask)
}

// SingleTag reports whether there is no tag under the outermost one.
func (s *Symbolic) SingleTag() bool { return s.inner == untagged }

// LearnSingleTag says so.
func (s *Symbolic) LearnSingleTag() { s.inner = untagged }

var untagged = cell{known: ones(VLANVID.Bits())}

// Forget makes fields unknown.
func (s *Symbolic) Forget(fields ...Field) {
	for _, f := range fields {
		s.cells[f] = cell{}
	}
}

// Narrow keeps the packets that meet all terms. It is false if none do.
func (s *Symbolic) Narrow(terms []Term) bool {
	for _, t := range terms {
		if _, some := s.Meets(t); !some {
			return false
		}
	}
	shared := s.first
	for _, t := range terms {
		v, k := s.at(t.Field)
		if v.and(t.Mask) != t.Value.and(k) {
			return false
		}
		rest := t.Mask.andNot(k)
		if rest.isZero() {
			continue
		}
		c := &s.cells[t.Field]
		if c.origin == 0 {
			c.value, c.known = c.value.or(t.Value.and(rest)), c.known.or(rest)
			continue
		}
		if s.first == shared {
			first := *shared
			s.first = &first
		}
		s.first.value[c.origin] = s.first.value[c.origin].or(t.Value.and(rest).shiftLeft(uint(c.shift)))
		s.first.known[c.origin] = s.first.known[c.origin].or(rest.shiftLeft(uint(c.shift)))
	}
	return true
}

// Meets reports whether all packets meet a term, and whether some may.
func (s *Symbolic) Meets(t Term) (all, some bool) {
	v, k := s.at(t.Field)
	some = v.and(t.Mask) == t.Value.and(k)
	return some && t.Mask.andNot(k).isZero(), some
}

// Avoid keeps the packets that don't meet all of the terms. It is false if none
// are known to be left.
func (s *Symbolic) Avoid(terms []Term) bool {
	var rest []Term
	opaque := false
	for _, t := range terms {
		all, some := s.Meets(t)
		if !some {
			return true
		}
		if all {
			continue
		}
		c := s.cells[t.Field]
		if c.origin == 0 {
			opaque = true
			continue
		}
		_, k := s.at(t.Field)
		open := t.Mask.andNot(k)
		rest = append(rest, Term{c.origin, t.Value.and(open).shiftLeft(uint(c.shift)), open.shiftLeft(uint(c.shift))})
	}
	if opaque {
		return true
	}
	if len(rest) == 0 {
		return false
	}
	s.avoid = &avoided{rest, s.avoid}
	return true
}

// NarrowFirst keeps those that met all terms as they were first.
func (s *Symbolic) NarrowFirst(terms []Term) bool {
	first := *s.first
	for _, t := range terms {
		if first.contradicts(t) {
			return false
		}
		first.value[t.Field], first.known[t.Field] = first.value[t.Field].or(t.Value), first.known[t.Field].or(t.Mask)
	}
	s.first = &first
	return true
}

// AvoidFirst keeps those that did not meet all of the terms as they were first. It
// is false if none are left.
func (s *Symbolic) AvoidFirst(terms []Term) bool {
	var rest []Term
	for _, t := range terms {
		if s.first.contradicts(t) {
			return true
		}
		if open := t.Mask.andNot(s.first.known[t.Field]); !open.isZero() {
			rest = append(rest, Term{t.Field, t.Value.and(open), open})
		}
	}
	if len(rest) == 0 {
		return false
	}
	s.avoid = &avoided{rest, s.avoid}
	return true
}

// write sets the bits of a field under the mask.
func (s *Symbolic) write(f Field, v, mask Value) {
	if f >= XXReg0 {
		for r := range Field(4) {
			shift := uint(96 - 32*r)
			if part := mask.shiftRight(shift).and(ones(32)); !part.isZero() {
				s.write(Reg0+4*(f-XXReg0)+r, v.shiftRight(shift).and(ones(32)), part)
			}
		}
		return
	}
	c := &s.cells[f]
	c.value, c.known = c.value.andNot(mask).or(v.and(mask)), c.known.or(mask)
	if c.known == ones(f.Bits()) {
		c.origin, c.shift = 0, 0
	}
}

// blur makes bits of a field unknown.
func (s *Symbolic) blur(f Field, mask Value) {
	v, k := s.at(f)
	s.cells[f] = cell{value: v.andNot(mask), known: k.andNot(mask)}
}

// Apply does an action that changes nothing but the packet. It is false for one
// that sends it somewhere, or that is not known.
func (s *Symbolic) Apply(a Action) bool {
	switch a.kind {
	case KindSetField, KindWriteMetadata:
		s.write(a.field, a.value, a.mask)
	case KindLoad:
		s.write(a.field, a.value.shiftLeft(uint(a.off)), ones(int(a.bits)).shiftLeft(uint(a.off)))
	case KindMove:
		s.move(a)
	case KindCheckPktLarger:
		s.blur(a.field, Value{Lo: 1}.shiftLeft(uint(a.off)))
	case KindPushVLAN:
		v, k := s.at(VLANVID)
		s.inner = cell{value: v, known: k}
		s.cells[VLANVID] = cell{value: Value{Lo: VLANPresent}, known: ones(VLANVID.Bits())}
		s.cells[VLANPCP] = cell{known: ones(VLANPCP.Bits())}
	case KindPopVLAN:
		s.cells[VLANVID], s.inner = s.inner, cell{}
		s.cells[VLANPCP] = cell{}
	case KindDecTTL:
		s.cells[IPTTL] = cell{}
	case KindCTClear:
		for _, f := range append([]Field{CtState, CtZone, CtMark, CtLabel}, tupleFields...) {
			s.cells[f] = cell{known: ones(f.Bits())}
		}
	case KindMeter, KindSetQueue:
	default:
		return false
	}
	return true
}

func (s *Symbolic) move(a Action) {
	mask := ones(int(a.bits)).shiftLeft(uint(a.off))
	if a.field < XXReg0 && a.src < XXReg0 {
		s.moveBits(a.src, uint(a.srcOff), a.field, uint(a.off), int(a.bits))
		return
	}
	if a.field >= XXReg0 && a.src < XXReg0 && a.bits == 128 {
		for r := range Field(4) {
			s.moveBits(a.src, uint(96-32*r), Reg0+4*(a.field-XXReg0)+r, 0, 32)
		}
		return
	}
	for r := range Field(4) {
		if a.field >= XXReg0 {
			s.cells[Reg0+4*(a.field-XXReg0)+r] = cell{}
		}
	}
	if a.field < XXReg0 {
		s.blur(a.field, mask)
	}
}

func (s *Symbolic) moveBits(src Field, srcOff uint, dst Field, dstOff uint, n int) {
	v, k := s.at(src)
	all := ones(n)
	v, k = v.shiftRight(srcOff).and(all), k.shiftRight(srcOff).and(all)
	from := s.cells[src]
	if n == dst.Bits() {
		s.cells[dst] = cell{value: v.and(k), known: k, origin: from.origin, shift: from.shift + uint8(srcOff)}
		return
	}
	s.blur(dst, all.shiftLeft(dstOff))
	s.write(dst, v.shiftLeft(dstOff), k.shiftLeft(dstOff))
}

// OutputPort is the port of an output to a register, if it is known.
func (s *Symbolic) OutputPort(a Action) (port uint32, known bool) {
	mask := ones(int(a.bits))
	v, k := s.at(a.field)
	v, k = v.shiftRight(uint(a.off)), k.shiftRight(uint(a.off))
	return uint32(v.and(mask).Lo), k.and(mask) == mask
}

// Pass makes the packets what another bridge gets of them, as Packet.Beyond does.
func (s *Symbolic) Pass(inPort uint32, sameSwitch bool) {
	for f := TunnelID; f <= Metadata; f++ {
		if f != PktMark || !sameSwitch {
			s.cells[f] = cell{known: ones(f.Bits())}
		}
	}
	s.write(InPort, Value{Lo: uint64(inPort)}, ones(InPort.Bits()))
}

// maxTries is how often Solve decides before it gives up.
const maxTries = 2000

// Solve finds one of the packets as it was first, like those that are preferred
// where it may. It is false when it finds none; sure tells whether there is none.
func (s *Symbolic) Solve(prefer ...Term) (p Packet, ok, sure bool) {
	known := *s.first
	for _, t := range prefer {
		if known.contradicts(t) {
			continue
		}
		with := known
		with.value[t.Field], with.known[t.Field] = with.value[t.Field].or(t.Value), with.known[t.Field].or(t.Mask)
		attempt, tries := with, maxTries
		if attempt.search(s.avoid, &tries) {
			known = with
		}
	}
	tries := maxTries
	if !known.search(s.avoid, &tries) {
		return p, false, tries >= 0
	}
	p.fields = known.value
	return p, true, true
}

// search decides bits of the first packet until it meets nothing that it avoids.
// What leaves least to decide goes first.
func (c *condition) search(all *avoided, tries *int) bool {
	var tightest []Term
	least := 0
	for a := all; a != nil; a = a.next {
		n, escapes := c.open(a.terms)
		if escapes {
			continue
		}
		if n == 0 {
			return false
		}
		if tightest == nil || n < least {
			tightest, least = a.terms, n
		}
	}
	return tightest == nil || c.decide(tightest, all, tries)
}

// Possible reports whether nothing that is avoided is sure to be met: a look at
// each alone, which is quick.
func (s *Symbolic) Possible() bool {
	for a := s.avoid; a != nil; a = a.next {
		if n, escapes := s.first.open(a.terms); n == 0 && !escapes {
			return false
		}
	}
	return true
}

// open is how many bits of some terms are not decided, unless one is false.
func (c *condition) open(terms []Term) (n int, escapes bool) {
	for _, t := range terms {
		if c.contradicts(t) {
			return 0, true
		}
		rest := t.Mask.andNot(c.known[t.Field])
		n += bits.OnesCount64(rest.Hi) + bits.OnesCount64(rest.Lo)
	}
	return n, false
}

func (c *condition) contradicts(t Term) bool {
	return c.value[t.Field].and(t.Mask) != t.Value.and(c.known[t.Field])
}

// decide makes one bit of some terms differ; those that were tried in vain are as
// in the terms from then on.
func (c *condition) decide(terms []Term, all *avoided, tries *int) bool {
	for _, t := range terms {
		for bit := range uint(t.Field.Bits()) {
			one := Value{Lo: 1}.shiftLeft(bit)
			if t.Mask.andNot(c.known[t.Field]).and(one).isZero() {
				continue
			}
			if *tries--; *tries < 0 {
				return false
			}
			c.known[t.Field] = c.known[t.Field].or(one)
			with := *c
			with.value[t.Field] = with.value[t.Field].or(one.andNot(t.Value))
			if with.search(all, tries) {
				*c = with
				return true
			}
			c.value[t.Field] = c.value[t.Field].or(one.and(t.Value))
		}
	}
	return false
}

// BucketActions are the actions of each of a group's buckets, as a switch does them.
func (g *Group) BucketActions() (all [][]Action) {
	for rest := g.Buckets; len(rest) >= 16; {
		n := int(uint16At(rest, 0))
		if n < 16 || n > len(rest) {
			break
		}
		actions := readActions(rest[16:n])
		var set []Action
		for _, i := range actionSet(actions) {
			set = append(set, actions[i])
		}
		all = append(all, set)
		rest = rest[n:]
	}
	return all
}
