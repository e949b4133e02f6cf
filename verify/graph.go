package verify

import (
	"context"
	"slices"

	"planck/flows"
	"planck/network"
)

// graph is all that may happen to any packet: sets of packets at tables, and how
// one leads to the next.
type graph struct {
	stepper
	ids     map[node]*vertex
	nodes   []*vertex
	from    *vertex // that is being expanded, nil for roots
	by      *rule
	crossed []*crossing
	merge   map[uint8][]flows.Field
	deep    []*vertex // where resubmits go too deep
	odd     map[string]bool
}

// node is packets that are to be looked up in a table.
type node struct {
	at    *bridge
	table uint8
	then  *rest
	state state
}

type vertex struct {
	node
	index int
	root  *root // nil where packets come from another table
	into  []edge
	out   []edge
}

// edge leads from one vertex to another by a rule.
type edge struct {
	from, to *vertex
	by       *rule
	hop      bool // the TTL was counted
}

// root is where packets come from.
type root struct {
	vif *network.VIF // nil for those from outside
	to  *network.Port
}

// crossing is packets that are delivered on a network that they can't have come to.
type crossing struct {
	from *vertex
	by   *rule
	to   *network.Port
}

// maxDepth is that of resubmits, of Open vSwitch.
const maxDepth = 64

// explore follows all packets, of machines and from outside, to all ends.
func (v *verifier) explore(f *fabric) (*graph, error) {
	g := &graph{ids: map[node]*vertex{}, odd: map[string]bool{}, merge: v.Layout.Merge}
	g.stepper = stepper{f, rests{}, g, true}
	for _, b := range f.bridges {
		g.roots(b)
	}
	for i := 0; i < len(g.nodes); i++ {
		if i%lookEvery == 0 && v.Context != nil && v.Context.Err() != nil {
			return nil, context.Cause(v.Context)
		}
		if v.MostStates > 0 && i == v.MostStates {
			v.unproven("anything of what is behind the first %d sets of packets: the cloud has more", i)
			break
		}
		g.expand(g.nodes[i])
	}
	return g, nil
}

// lookEvery is how many sets of packets pass until somebody who gave up is noticed.
const lookEvery = 1024

// roots are where packets come into a bridge that no other one sends.
func (g *graph) roots(b *bridge) {
	begin := func(port uint32, r *root, gh ghost) {
		p := &packets{at: b, in: flows.NewSymbolic(flows.InPort.Is(uint64(port))), ghost: gh}
		if r.vif == nil {
			p.in.Forget(flows.TunnelID, flows.TunSrc, flows.TunDst)
		}
		st := stateOf(&p.in, b.live[0], gh)
		g.vertex(node{b, 0, nil, st}).root = r
	}
	for vif := range g.view.VIFsOn(b.host) {
		if p := g.view.Port(vif.PortID); p != nil && b.bridge == network.BridgeIntegration {
			if n := g.view.Network(p.NetworkID); n != nil {
				begin(vif.OFPort, &root{vif, p}, ghost{network: n.Key})
			}
		}
	}
	outside := ghost{outside: true}
	switch b.bridge {
	case network.BridgeIntegration:
	case network.BridgeTunnel:
		for port := range b.tunnels {
			begin(port, &root{}, outside)
		}
		begin(b.freePort(g.view.Host(b.host)), &root{}, outside)
	default:
		begin(b.freePort(g.view.Host(b.host)), &root{}, outside)
		begin(flows.PortLocal, &root{}, outside)
	}
}

func (g *graph) vertex(n node) *vertex {
	v := g.ids[n]
	if v == nil {
		v = &vertex{node: n, index: len(g.nodes)}
		g.ids[n] = v
		g.nodes = append(g.nodes, v)
	}
	return v
}

// expand does what the flows of a table do to packets.
func (g *graph) expand(v *vertex) {
	g.from = v
	in := v.state.symbolic()
	for _, r := range v.at.tables[v.table] {
		all, some := r.meets(&in)
		if !some {
			continue
		}
		r.reached = true
		g.by = r
		p := &packets{at: v.at, table: v.table, in: in, ghost: v.state.ghost}
		r.narrow(&p.in)
		g.do(p, r.actions, v.then)
		if all {
			return
		}
	}
	// Nothing may match: what is left to do after a resubmit goes on.
	if v.then != nil {
		g.by = nil
		p := &packets{at: v.at, table: v.table, in: in, ghost: v.state.ghost}
		g.do(p, v.then.actions, v.then.next)
	}
}

// meets reports whether all of some packets meet a rule, and whether any may.
func (r *rule) meets(in *flows.Symbolic) (all, some bool) {
	all = true
	for _, t := range r.terms {
		every, any := in.Meets(t)
		if !any {
			return false, false
		}
		all = all && every
	}
	return all, true
}

// narrow keeps of packets what a rule takes, as far as it is followed.
func (r *rule) narrow(in *flows.Symbolic) {
	for i := range r.terms {
		if k := slotOf[r.terms[i].Field]; k != noSlot && !slots[k].set {
			in.Narrow(r.terms[i : i+1])
		}
	}
}

// lookup implements course.
func (g *graph) lookup(p *packets, table uint8, then *rest) {
	if then != nil && then.depth > maxDepth {
		g.deep = append(g.deep, g.from)
		return
	}
	if p.at.bridge == network.BridgeIntegration {
		g.forget(p, g.merge[table])
	}
	live := p.at.live[table]
	for r := then; r != nil; r = r.next {
		p.at.readsAll(&live, p.table, r.actions)
	}
	to := g.vertex(node{p.at, table, then, stateOf(&p.in, live, p.ghost)})
	e := edge{g.from, to, g.by, p.hop}
	if slices.Contains(g.from.out, e) {
		return
	}
	to.into, g.from.out = append(to.into, e), append(g.from.out, e)
}

// forget makes packets alike that come from different machines.
func (g *graph) forget(p *packets, fields []flows.Field) {
	for _, f := range fields {
		if f == flows.InPort {
			in, _ := p.in.Know(f)
			if p.at.vifs[uint32(in)] == nil {
				continue // it still matters that nothing goes back there
			}
		}
		p.in.Forget(f)
	}
}

// readsAll adds what actions and the tables that they lead to look at.
func (b *bridge) readsAll(set *slotSet, table uint8, actions []flows.Action) {
	var next [256]bool
	b.reads(set, &next, table, actions)
	for t, leads := range next {
		if leads {
			*set |= b.live[t]
		}
	}
}

// delivered implements course.
func (g *graph) delivered(p *packets, to *network.Port) {
	if n := g.view.Network(to.NetworkID); !p.ghost.outside && n != nil && n.Key != p.ghost.network {
		g.crossed = append(g.crossed, &crossing{g.from, g.by, to})
	}
}

// left implements course.
func (g *graph) left(*packets) {}

// unclear implements course.
func (g *graph) unclear(p *packets, a flows.Action) {
	if g.by != nil {
		g.odd["what "+a.String()+" does is not followed: host "+p.at.host+" "+p.at.bridge+": "+g.by.flow.String()] = true
	}
}
