package flows

import (
	"math/rand/v2"
	"testing"
)

// A packet that was solved meets what it must, and nothing that it must not; where
// there is none, trying all packets finds none either.
func TestSolveAgreesWithTryingAll(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 1))
	fields := []Field{VLANPCP, ICMPType}
	term := func() Term {
		f := fields[random.IntN(len(fields))]
		mask := random.Uint64N(8)
		return f.Masked(random.Uint64N(8)&mask, mask)
	}
	met := func(p *Packet, terms []Term) bool {
		for _, u := range terms {
			if p.Get(u.Field).and(u.Mask) != u.Value {
				return false
			}
		}
		return true
	}
	none := 0
	for range 2000 {
		s := NewSymbolic()
		must := []Term{term()}
		var not [][]Term
		possible := s.Narrow(must)
		for range random.IntN(7) {
			not = append(not, []Term{term(), term()})
			possible = possible && s.Avoid(not[len(not)-1])
		}
		right := func(p *Packet) bool {
			for _, n := range not {
				if met(p, n) {
					return false
				}
			}
			return met(p, must)
		}
		p, ok, _ := s.Solve(ICMPType.Is(5))
		if possible && ok && !right(&p) {
			t.Fatalf("%v is not %v without %v", p, must, not)
		}
		if possible && ok {
			continue
		}
		none++
		for i := range uint64(64) {
			if q := NewPacket(VLANPCP.Is(i%8), ICMPType.Is(i/8)); right(&q) {
				t.Fatalf("%v is %v without %v, and was not found", q, must, not)
			}
		}
	}
	if none == 0 {
		t.Error("there was always a packet: that tells too little")
	}
}

// What is moved to a register and matched there is known of the packet that was sent.
func TestSymbolicKnowsWhatWasMoved(t *testing.T) {
	s := NewSymbolic(InPort.Is(1))
	s.Apply(Move(IPv4Dst, Reg8))
	s.Apply(SetField(IPv4Dst, 0x01020304))
	if !s.Narrow([]Term{Reg8.Is(0x0a000005)}) {
		t.Fatal("no packet is left")
	}
	if s.Narrow([]Term{IPv4Dst.Is(5)}) {
		t.Error("what was written is not known")
	}
	p, ok, _ := s.Solve()
	if !ok || p.Get(IPv4Dst).Lo != 0x0a000005 {
		t.Errorf("the packet is %v, %t", p, ok)
	}
	if s.Avoid([]Term{Reg8.Is(0x0a000005)}) {
		t.Error("it can avoid what it is")
	}
}
