package verify

import (
	"planck/flows"
	"planck/network"
)

// search follows the packets of one machine exactly, by some of the rules only,
// and makes a packet of each way that shall be looked at. Sets of packets are not
// joined: so it knows of each one what the first packet was.
type search struct {
	stepper
	only    map[*rule]bool // nil for all
	stop    func(p *packets, table uint8) bool
	arrived func(p *packets, to *network.Port) bool
	circles func(p *packets) bool // asked where a rule is met again
	sent    func(p *packets)
	budget  int
	path    []*rule
	hops    []bool
	found   bool
	short   bool // the budget did not suffice, or something is not followed
}

// maxLookups is how many look-ups a search may take.
const maxLookups = 6000

func newSearch(f *fabric) *search {
	s := &search{budget: maxLookups}
	s.stepper = stepper{fabric: f, rests: rests{}, course: s}
	return s
}

// begin sends all packets of a machine.
func (s *search) begin(vif *network.VIF, g ghost) {
	b := s.at[place{vif.Host, network.BridgeIntegration}]
	s.lookup(&packets{at: b, in: flows.NewSymbolic(flows.InPort.Is(uint64(vif.OFPort))), ghost: g}, 0, nil)
}

// lookup implements course.
func (s *search) lookup(p *packets, table uint8, then *rest) {
	if s.found || s.stop != nil && s.stop(p, table) {
		return
	}
	if s.budget--; s.budget < 0 || len(s.path) > 8*maxDepth {
		s.short = true
		return
	}
	in := s.take(p)
	in.table, in.hop = table, false
	s.meet(in, table, then, p.hop)
	s.free(in)
}

// meet does what the flows of a table do to packets. They are changed.
func (s *search) meet(p *packets, table uint8, then *rest, hop bool) {
	for r := range p.at.candidates(table, &p.in) {
		if s.found {
			return
		}
		if _, some := r.meets(&p.in); !some {
			continue
		}
		if s.only == nil || s.only[r] {
			taken := s.take(p)
			if taken.in.Narrow(r.terms) && taken.in.Possible() {
				s.met(taken, r, then, hop)
			}
			s.free(taken)
		}
		if !p.in.Avoid(r.terms) {
			return
		}
	}
	if then != nil && !s.found {
		s.do(p, then.actions, then.next)
	}
}

// met goes on by a rule.
func (s *search) met(p *packets, r *rule, then *rest, hop bool) {
	if s.circles != nil && s.again(r) && s.circles(p) {
		s.found = true
		return
	}
	s.path, s.hops = append(s.path, r), append(s.hops, hop)
	s.do(p, r.actions, then)
	s.path, s.hops = s.path[:len(s.path)-1], s.hops[:len(s.hops)-1]
}

// again reports whether a rule has been met twice on this way, and the TTL was not
// counted since.
func (s *search) again(r *rule) bool {
	met := 0
	for i := len(s.path) - 1; i >= 0; i-- {
		if s.path[i] == r {
			met++
		}
		if met == 2 {
			return true
		}
		if s.hops[i] {
			return false
		}
	}
	return false
}

// delivered implements course.
func (s *search) delivered(p *packets, to *network.Port) {
	if s.arrived != nil && !s.found && s.arrived(p, to) {
		s.found = true
	}
}

// left implements course.
func (s *search) left(p *packets) {
	if s.sent != nil && !s.found {
		s.sent(p)
	}
}

// unclear implements course.
func (s *search) unclear(*packets, flows.Action) { s.short = true }
