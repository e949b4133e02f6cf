package verify

import (
	"planck/flows"
	"planck/network"
)

// packets are packets that are alike, in a bridge.
type packets struct {
	at    *bridge
	table uint8 // whose actions are done
	in    flows.Symbolic
	ghost ghost
	hop   bool // the TTL was counted since the last look-up
	// translated: ct has changed addresses of what is sent.
	translated bool
}

// rest is what is still to be done after a resubmit.
type rest struct {
	actions []flows.Action
	next    *rest
	depth   int
	number  uint64 // from 1 on
}

// id tells rests of a host apart, and none from any.
func (r *rest) id() uint64 {
	if r == nil {
		return 0
	}
	return r.number
}

type restKey struct {
	first *flows.Action
	next  *rest
}

// rests has each rest once, to be compared by address.
type rests map[restKey]*rest

func (r rests) of(actions []flows.Action, next *rest) *rest {
	if len(actions) == 0 {
		return next
	}
	key := restKey{&actions[0], next}
	if r[key] == nil {
		depth := 1
		if next != nil {
			depth += next.depth
		}
		r[key] = &rest{actions, next, depth, uint64(len(r) + 1)}
	}
	return r[key]
}

// course takes what becomes of packets.
type course interface {
	lookup(p *packets, table uint8, then *rest)
	delivered(p *packets, to *network.Port)
	left(p *packets) // sent anywhere
	unclear(p *packets, a flows.Action)
}

// stepper does actions.
type stepper struct {
	*fabric
	rests
	course
	// coarse forgets destination MACs that are written, and headers between bridges:
	// only what a table of the bridge has matched on is known of them.
	coarse bool
	spare  []*packets
}

// take copies packets, until they are freed: there are many, and each is large.
func (s *stepper) take(p *packets) *packets {
	on := s.blank()
	*on = *p
	return on
}

// blank is packets of which nothing is said yet.
func (s *stepper) blank() *packets {
	n := len(s.spare)
	if n == 0 {
		return new(packets)
	}
	p := s.spare[n-1]
	s.spare = s.spare[:n-1]
	return p
}

func (s *stepper) free(p *packets) { s.spare = append(s.spare, p) }

// do does the actions of a flow, and then what is left to do after it.
func (s *stepper) do(p *packets, actions []flows.Action, then *rest) {
	for {
		for i := range actions {
			if !s.act(p, &actions[i], actions[i+1:], then) {
				return
			}
		}
		if then == nil {
			return
		}
		actions, then = then.actions, then.next
	}
}

// act does an action. It is false where others go on.
func (s *stepper) act(p *packets, a *flows.Action, after []flows.Action, then *rest) bool {
	switch a.Kind() {
	case flows.KindGoto:
		s.lookup(p, a.NextTableID(), then)
		return false
	case flows.KindResubmit:
		if !a.SameInPort() {
			s.unclear(p, *a)
		}
		to, ok := a.NextTable()
		if !ok {
			to = p.table
		}
		s.lookup(p, to, s.of(after, then))
		return false
	case flows.KindOutput:
		s.output(p, a.Port())
	case flows.KindOutputReg:
		if port, known := p.in.OutputPort(*a); known {
			s.output(p, port)
		} else {
			s.everywhere(p)
		}
	case flows.KindGroup:
		for _, bucket := range p.at.buckets[a.ID()] {
			on := s.take(p)
			s.do(on, bucket, nil)
			s.free(on)
		}
	case flows.KindClone:
		on := s.take(p)
		s.do(on, a.Nested(), nil)
		s.free(on)
	case flows.KindCT:
		s.conntrack(p, a)
	default:
		if !p.in.Apply(*a) {
			s.unclear(p, *a)
			return true
		}
		if a.Kind() == flows.KindDecTTL {
			p.hop = true
		}
		switch {
		case a.Writes() == flows.Metadata:
			s.follow(p)
		case a.Writes() == flows.EthDst && s.coarse:
			p.in.Forget(flows.EthDst)
		}
	}
	return true
}

// addresses are the fields that ct may translate.
var addresses = []flows.Field{
	flows.IPv4Src, flows.IPv4Dst, flows.IPv6Src, flows.IPv6Dst, flows.TCPSrc, flows.TCPDst, flows.UDPSrc, flows.UDPDst, flows.SCTPSrc, flows.SCTPDst,
}

// conntrack: packets come back in whatever state, and with whatever addresses
// where it translates.
func (s *stepper) conntrack(p *packets, a *flows.Action) {
	to, back := a.NextTable()
	translates := a.CT().NAT != nil
	if !back {
		p.translated = p.translated || translates
		return
	}
	on := s.take(p)
	on.in.Forget(flows.CtState, flows.CtZone, flows.CtMark, flows.CtLabel, flows.CtNwSrc, flows.CtNwDst, flows.CtIPv6Src, flows.CtIPv6Dst, flows.CtNwProto, flows.CtTpSrc, flows.CtTpDst)
	if translates || on.translated {
		on.in.Forget(addresses...)
	}
	s.lookup(on, to, nil)
	s.free(on)
}

const allOnes = 1<<32 - 1

// follow keeps the ghost of packets: a router that has a port on their network may
// take them, and lead them to another network where it has one.
func (f *fabric) follow(p *packets) {
	value, known := p.in.Know(flows.Metadata)
	if r := uint32(value >> 32); known>>32 == allOnes && r != 0 && r != p.ghost.router {
		p.ghost.router = 0
		if f.joins[[2]uint32{r, p.ghost.network}] {
			p.ghost.router = r
		}
	}
	if n := uint32(value); uint32(known) == allOnes && n != p.ghost.network && f.joins[[2]uint32{p.ghost.router, n}] {
		p.ghost.network = n
	}
}

// output sends packets to a port, unless they came from there.
func (s *stepper) output(p *packets, port uint32) {
	in, known := p.in.Know(flows.InPort)
	switch port {
	case flows.PortController, flows.PortLocal, 0:
		s.left(p)
		return
	case flows.PortNormal, flows.PortFlood, flows.PortAll:
		s.everywhere(p)
		return
	case flows.PortInPort:
		if known != allOnes {
			s.everywhere(p)
			return
		}
		port = uint32(in)
	default:
		if known == allOnes && uint32(in) == port {
			return
		}
	}
	s.left(p)
	s.send(p, port)
}

// everywhere sends packets to all ports but the one that they came from.
func (s *stepper) everywhere(p *packets) {
	for _, port := range p.at.ports {
		s.output(p, port)
	}
	if len(p.at.wires) == 0 {
		return
	}
	in, known := p.in.Know(flows.InPort)
	if _, patch := p.at.patches[uint32(in)]; known == allOnes && !patch && uint32(in) != flows.PortLocal {
		return // it is on the wire already
	}
	s.left(p)
	s.wire(p)
}

func (s *stepper) send(p *packets, port uint32) {
	if to, ok := p.at.patches[port]; ok {
		s.arrive(p, to, true)
		return
	}
	if kind, ok := p.at.tunnels[port]; ok {
		s.tunnel(p, kind)
		return
	}
	if to := p.at.vifs[port]; to != nil {
		s.delivered(p, to)
		return
	}
	if p.at.bridge != network.BridgeIntegration && p.at.bridge != network.BridgeTunnel {
		s.wire(p)
	}
}

func (s *stepper) wire(p *packets) {
	for _, to := range p.at.wires {
		s.arrive(p, to, false)
	}
}

func (s *stepper) tunnel(p *packets, kind string) {
	id, known := p.in.Know(flows.TunnelID)
	for _, to := range s.tunnelled(p.at, kind, &p.in) {
		on := s.take(p)
		on.in.Pass(to.port, false)
		on.in.Forget(flows.TunnelID)
		on.in.Learn(flows.Term{Field: flows.TunnelID, Value: flows.Value{Lo: id}, Mask: flows.Value{Lo: known}})
		if from := s.view.Host(p.at.host).TunnelIP; from.Is4() {
			on.in.Forget(flows.TunSrc)
			on.in.Learn(flows.TunSrc.IsIP(from))
		} else {
			on.in.Forget(flows.TunIPv6Src)
			on.in.Learn(flows.TunIPv6Src.IsIP(from))
		}
		s.enter(on, to.bridge)
		s.free(on)
	}
}

func (s *stepper) arrive(p *packets, to arrival, sameSwitch bool) {
	on := s.take(p)
	on.in.Pass(to.port, sameSwitch)
	s.enter(on, to.bridge)
	s.free(on)
}

// enter begins with the tables of another bridge.
func (s *stepper) enter(p *packets, b *bridge) {
	p.at = b
	if s.coarse {
		p.in.Forget(flows.EthDst, flows.EthType)
	}
	if p.translated {
		p.in.Forget(addresses...)
		p.translated = false
	}
	s.lookup(p, 0, nil)
}
