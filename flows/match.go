package flows

import (
	"fmt"
	"iter"
	"net/netip"
)

// Term is one condition of a match: the bits of the field under the mask have
// the bits of the value. The zero Term is always true.
type Term struct {
	Field Field
	Value Value
	Mask  Value
}

// Covers reports whether the term looks at all bits of a mask.
func (t Term) Covers(mask Value) bool { return mask.andNot(t.Mask).isZero() }

// Under is the term for the bits of a mask alone.
func (t Term) Under(mask Value) Term {
	return Term{t.Field, t.Value.and(mask), t.Mask.and(mask)}
}

// Is matches packets whose field has this value.
func (f Field) Is(v uint64) Term {
	return Term{f, Value{Lo: v}, ones(f.Bits())}
}

// Masked matches packets whose field has the bits of v where mask has ones.
func (f Field) Masked(v, mask uint64) Term {
	return Term{f, Value{Lo: v}, Value{Lo: mask}}
}

// IsMAC matches packets whose field is this Ethernet address.
func (f Field) IsMAC(m [6]byte) Term {
	return Term{f, macValue(m), ones(48)}
}

// MaskedMAC matches packets whose field has the bits of m where mask has ones.
func (f Field) MaskedMAC(m, mask [6]byte) Term {
	return Term{f, macValue(m), macValue(mask)}
}

// IsIP matches packets whose field is this address. It panics if the address is
// not of the field's family.
func (f Field) IsIP(a netip.Addr) Term {
	f.mustHold(a)
	return Term{f, addressValue(a), ones(f.Bits())}
}

// InPrefix matches packets whose field lies in the prefix; a prefix of length 0
// gives the zero Term. It panics if the prefix is not of the field's family.
func (f Field) InPrefix(p netip.Prefix) Term {
	f.mustHold(p.Addr())
	if p.Bits() == 0 {
		return Term{}
	}
	mask := prefixMask(p.Bits(), f.Bits())
	return Term{f, addressValue(p.Addr()).and(mask), mask}
}

func (f Field) mustHold(a netip.Addr) {
	if !a.IsValid() || a.BitLen() != f.Bits() || a.Zone() != "" {
		panic(fmt.Sprintf("flows: %s can't hold the address %s", f.Name(), a))
	}
}

// Terms for the protocols; a match on their fields needs them.
var (
	IPv4   = EthType.Is(etherTypeIPv4)
	IPv6   = EthType.Is(etherTypeIPv6)
	ARP    = EthType.Is(etherTypeARP)
	TCP    = IPProto.Is(protoTCP)
	UDP    = IPProto.Is(protoUDP)
	ICMP   = IPProto.Is(protoICMP)
	ICMPv6 = IPProto.Is(protoICMPv6)
	SCTP   = IPProto.Is(protoSCTP)
)

// Match says which packets a flow is for: those that meet all of its terms. It
// may be compared and be the key of a map. The zero Match is for all packets.
type Match struct{ oxm string }

// NewMatch makes a Match of terms in any order. It panics on what can only be a
// mistake in the program: two different terms for one field, a value that is
// wider than its field, a mask where the field takes none.
func NewMatch(terms ...Term) Match {
	m, err := newMatch(terms)
	if err != nil {
		panic("flows: " + err.Error())
	}
	return m
}

func newMatch(terms []Term) (Match, error) {
	var sorted [numFields]Term
	for _, t := range terms {
		if err := place(&sorted, t); err != nil {
			return Match{}, err
		}
	}
	canonicalVLAN(&sorted)
	var buf [512]byte
	b := buf[:0]
	for _, t := range &sorted {
		if t.Field != 0 {
			b = appendOXM(b, t.Field, t.Value, t.Mask)
		}
	}
	return Match{string(b)}, nil
}

// ctStateBits is how much of ct_state has a meaning.
const ctStateBits = 8

func place(sorted *[numFields]Term, t Term) error {
	if t.Field == 0 || t.Mask.isZero() {
		return nil
	}
	if t.Field >= XXReg0 && t.Field <= XXReg3 {
		return placeRegisters(sorted, t)
	}
	if t.Field == CtState {
		t.Mask = t.Mask.and(ones(ctStateBits)) // all that Open vSwitch keeps of it
	}
	all := ones(t.Field.Bits())
	if !t.Value.andNot(all).isZero() || !t.Mask.andNot(all).isZero() {
		return fmt.Errorf("%s has %d bits, not room for %#x/%#x", t.Field.Name(), t.Field.Bits(), t.Value, t.Mask)
	}
	if t.Mask != all && !fields[t.Field].maskable {
		return fmt.Errorf("%s can't be matched by mask", t.Field.Name())
	}
	t.Value = t.Value.and(t.Mask)
	if old := sorted[t.Field]; old.Field != 0 && old != t {
		return fmt.Errorf("two terms for %s: %#x/%#x and %#x/%#x", t.Field.Name(), old.Value, old.Mask, t.Value, t.Mask)
	}
	sorted[t.Field] = t
	return nil
}

// placeRegisters turns a match on a wide register into what Open vSwitch makes
// of it.
func placeRegisters(sorted *[numFields]Term, t Term) error {
	first := Reg0 + 4*(t.Field-XXReg0)
	for i := range Field(4) {
		shift := uint(96 - 32*i)
		part := Term{first + i, t.Value.shiftRight(shift).and(ones(32)), t.Mask.shiftRight(shift).and(ones(32))}
		if err := place(sorted, part); err != nil {
			return err
		}
	}
	return nil
}

// canonicalVLAN: a priority is that of a tag, and without a tag there is none.
func canonicalVLAN(sorted *[numFields]Term) {
	if sorted[VLANPCP].Field == 0 {
		return
	}
	vid := &sorted[VLANVID]
	if vid.Mask.Lo&VLANPresent != 0 && vid.Value.Lo&VLANPresent == 0 {
		sorted[VLANPCP] = Term{}
		return
	}
	*vid = VLANVID.Masked(vid.Value.Lo|VLANPresent, vid.Mask.Lo|VLANPresent)
}

// appendOXM writes the field as in matches and set_field.
func appendOXM(b []byte, f Field, v, mask Value) []byte {
	return appendTLV(b, fields[f].match, f, v, mask)
}

func appendTLV(b []byte, t tlv, f Field, v, mask Value) []byte {
	n := f.bytes()
	masked := mask != ones(f.Bits())
	length := n
	if masked {
		length += n
	}
	b = appendTLVHeader(b, t, masked, length)
	b = appendValue(b, v, n)
	if masked {
		b = appendValue(b, mask, n)
	}
	return b
}

func appendTLVHeader(b []byte, t tlv, masked bool, length int) []byte {
	typ := t.typ << 1
	if masked {
		typ |= 1
	}
	if t.class == classExp {
		length += 4
	}
	b = append(b, byte(t.class>>8), byte(t.class), typ, byte(length))
	if t.class == classExp {
		b = be.AppendUint32(b, experimenterONF)
	}
	return b
}

// element is one TLV of a match or a set_field.
type element struct {
	tlv    tlv
	field  Field // 0: one that we have no name for
	masked bool
	value  Value
	mask   Value
	size   int // of all of it
}

// readTLV reads the first TLV of b. It is false if b is too short.
func readTLV[T bytesOrString](b T) (element, bool) {
	e, body, ok := readTLVHeader(b)
	if !ok || len(body) < e.size-(len(b)-len(body)) {
		return e, false
	}
	body = body[:e.size-(len(b)-len(body))]
	if e.field == 0 {
		return e, true
	}
	n := e.field.bytes()
	all := ones(e.field.Bits())
	switch {
	case !e.masked && len(body) == n:
		e.value, e.mask = valueOf(body), all
	case e.masked && len(body) == 2*n:
		e.value, e.mask = valueOf(body[:n]), valueOf(body[n:])
	default:
		return e, false
	}
	if !e.value.or(e.mask).andNot(all).isZero() {
		e.field = 0 // bits that the field doesn't have: keep it as it is
	}
	return e, true
}

// readTLVHeader reads a TLV's header and returns what comes behind it, which may
// be less than the TLV's size.
func readTLVHeader[T bytesOrString](b T) (e element, body T, ok bool) {
	if len(b) < 4 {
		return e, b, false
	}
	e.tlv = tlv{uint16(b[0])<<8 | uint16(b[1]), b[2] >> 1}
	e.masked = b[2]&1 != 0
	e.size = 4 + int(b[3])
	e.field = fieldOf[e.tlv]
	body = b[4:]
	if e.tlv.class != classExp {
		return e, body, true
	}
	if e.size < 8 || len(b) < 8 {
		return e, b, false
	}
	if valueOf(b[4:8]).Lo != experimenterONF {
		e.field = 0
	}
	return e, b[8:], true
}

// Terms yields the terms of the match in canonical order. What a switch sent and
// we have no Field for is left out.
func (m Match) Terms() iter.Seq[Term] {
	return func(yield func(Term) bool) {
		for rest := m.oxm; rest != ""; {
			e, ok := readTLV(rest)
			if !ok {
				return
			}
			rest = rest[e.size:]
			if e.field != 0 && !yield(Term{e.field, e.value, e.mask}) {
				return
			}
		}
	}
}

// Get returns what the match says about a field.
func (m Match) Get(f Field) (value, mask Value, ok bool) {
	for t := range m.Terms() {
		if t.Field == f {
			return t.Value, t.Mask, true
		}
	}
	return Value{}, Value{}, false
}

// Check tells which term lacks what it needs, such as tcp_dst without tcp: a
// switch refuses such a match.
func (m Match) Check() error {
	for t := range m.Terms() {
		for n := fields[t.Field].needs; n != nil; n = n.and {
			if !m.has(n) {
				return fmt.Errorf("%s without %s", t.Field.Name(), n.text)
			}
		}
	}
	return nil
}

func (m Match) has(n *need) bool {
	for _, alternative := range n.of {
		value, mask, ok := m.Get(alternative.field)
		if ok && value.Lo == alternative.value && mask == ones(alternative.field.Bits()) {
			return true
		}
	}
	return false
}
