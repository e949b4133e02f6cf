package flows

import (
	"encoding/binary"
	"math/bits"
	"net/netip"
)

// Value is a field's value or mask, up to 128 bits, as a number.
type Value struct{ Hi, Lo uint64 }

// ones is a Value with the low n bits set.
func ones(n int) Value {
	switch {
	case n > 64:
		return Value{1<<(n-64) - 1, ^uint64(0)}
	case n == 64:
		return Value{0, ^uint64(0)}
	default:
		return Value{0, 1<<n - 1}
	}
}

func (v Value) and(w Value) Value    { return Value{v.Hi & w.Hi, v.Lo & w.Lo} }
func (v Value) or(w Value) Value     { return Value{v.Hi | w.Hi, v.Lo | w.Lo} }
func (v Value) andNot(w Value) Value { return Value{v.Hi &^ w.Hi, v.Lo &^ w.Lo} }
func (v Value) isZero() bool         { return v == Value{} }

func (v Value) shiftLeft(n uint) Value {
	if n >= 64 {
		return Value{v.Lo << (n - 64), 0}
	}
	return Value{v.Hi<<n | v.Lo>>(64-n), v.Lo << n}
}

func (v Value) shiftRight(n uint) Value {
	if n >= 64 {
		return Value{0, v.Hi >> (n - 64)}
	}
	return Value{v.Hi >> n, v.Lo>>n | v.Hi<<(64-n)}
}

// prefixLength tells how many leading ones of width bits v has, if it has
// nothing but zeros behind them.
func (v Value) prefixLength(width int) (int, bool) {
	n := bits.OnesCount64(v.Hi) + bits.OnesCount64(v.Lo)
	return n, v == prefixMask(n, width)
}

// prefixMask is n ones followed by zeros, width bits in all.
func prefixMask(n, width int) Value { return ones(width).andNot(ones(width - n)) }

func appendValue(b []byte, v Value, n int) []byte {
	var buf [16]byte
	binary.BigEndian.PutUint64(buf[:8], v.Hi)
	binary.BigEndian.PutUint64(buf[8:], v.Lo)
	return append(b, buf[16-n:]...)
}

// bytesOrString lets decoders read canonical strings and received bytes alike.
type bytesOrString interface{ ~[]byte | ~string }

func valueOf[T bytesOrString](b T) Value {
	var v Value
	for i := range len(b) {
		v = v.shiftLeft(8)
		v.Lo |= uint64(b[i])
	}
	return v
}

func macValue(m [6]byte) Value { return valueOf(m[:]) }

func addressValue(a netip.Addr) Value {
	if a.Is4() {
		b := a.As4()
		return valueOf(b[:])
	}
	b := a.As16()
	return valueOf(b[:])
}

// MAC is the value as an Ethernet address.
func (v Value) MAC() [6]byte {
	var m [6]byte
	copy(m[:], appendValue(nil, v, 6))
	return m
}

// IPv4 is the value as an IPv4 address.
func (v Value) IPv4() netip.Addr {
	return netip.AddrFrom4([4]byte(appendValue(nil, v, 4)))
}

// IPv6 is the value as an IPv6 address.
func (v Value) IPv6() netip.Addr {
	return netip.AddrFrom16([16]byte(appendValue(nil, v, 16)))
}
