package verify

import (
	"context"
	"maps"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"planck/flows"
	"planck/network"
)

// graph is all that may happen to any packet: sets of packets at tables, and how
// one leads to the next.
type graph struct {
	sites   []*site
	nodes   []*vertex
	crossed []*crossing
	deep    []*vertex // where resubmits go too deep
	odd     map[string]bool
}

// site is what happens on one host. Hosts are explored side by side: what goes to
// another one waits until all have done what they can.
type site struct {
	stepper
	host    string
	ids     map[string]*vertex
	key     []byte
	nodes   []*vertex
	next    int     // of the nodes: the first that is not expanded
	from    *vertex // that is being expanded
	in      flows.Symbolic
	by      *rule
	away    []departure
	crossed []*crossing
	merge   map[uint8][]flows.Field
	deep    []*vertex
	odd     map[string]bool
}

// departure is packets that go to another host.
type departure struct {
	to   *bridge
	key  string
	edge edge // its end is not known yet
}

// vertex is packets that are to be looked up in a table.
type vertex struct {
	at    *bridge
	table uint8
	then  *rest
	key   string // what is known of them, see appendState
	index int
	root  *root // nil where packets come from another table
	into  []edge
	out   []edge
}

// ghost is where the packets of a vertex really are.
func (v *vertex) ghost() ghost {
	return readState(v.key, new(flows.Symbolic))
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

// explore follows all packets, of machines and from outside, to all ends. The order
// of what it finds is the same each time.
func (v *verifier) explore(f *fabric) (*graph, error) {
	g := &graph{odd: map[string]bool{}}
	at := map[string]*site{}
	for _, h := range f.hosts {
		s := &site{host: h.Name, ids: map[string]*vertex{}, odd: map[string]bool{}, merge: v.Layout.Merge}
		s.stepper = stepper{fabric: f, rests: rests{}, course: s, coarse: true}
		g.sites, at[h.Name] = append(g.sites, s), s
	}
	for _, b := range f.bridges {
		at[b.host].roots(b)
	}
	var visited atomic.Int64
	for more := true; more; more = g.exchange(at) {
		inParallel(len(g.sites), func(i int) { g.sites[i].expandAll(v, &visited) })
		if err := v.gaveUp(); err != nil {
			return nil, err
		}
		if v.tooMany(visited.Load()) {
			v.unproven("anything of what is behind the first %d sets of packets: the cloud has more", v.MostStates)
			break
		}
	}
	g.collect()
	return g, nil
}

// gaveUp is why nobody waits for the proof any more, nil if somebody does.
func (v *verifier) gaveUp() error {
	if v.Context == nil {
		return nil
	}
	return context.Cause(v.Context)
}

func (v *verifier) tooMany(visited int64) bool {
	return v.MostStates > 0 && visited > int64(v.MostStates)
}

// inParallel does n things, as many at once as there are cores.
func inParallel(n int, do func(i int)) {
	var next atomic.Int64
	var work sync.WaitGroup
	for range min(n, runtime.GOMAXPROCS(0)) {
		work.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				do(i)
			}
		})
	}
	work.Wait()
}

// exchange hands over what goes to other hosts, in the order of the hosts. It is
// false where nothing is new.
func (g *graph) exchange(at map[string]*site) (more bool) {
	for _, s := range g.sites {
		for _, d := range s.away {
			to := at[d.to.host]
			before := len(to.nodes)
			d.edge.to = to.vertex(d.to, 0, nil, d.key)
			d.edge.link()
			more = more || len(to.nodes) > before
		}
		s.away = nil
	}
	return more
}

// collect joins what the hosts have found.
func (g *graph) collect() {
	for _, s := range g.sites {
		for _, v := range s.nodes {
			v.index = len(g.nodes)
			g.nodes = append(g.nodes, v)
		}
		g.crossed, g.deep = append(g.crossed, s.crossed...), append(g.deep, s.deep...)
		maps.Copy(g.odd, s.odd)
	}
}

// roots are where packets come into a bridge that no other one sends.
func (s *site) roots(b *bridge) {
	begin := func(port uint32, r *root, gh ghost) {
		p := &packets{at: b, in: flows.NewSymbolic(flows.InPort.Is(uint64(port))), ghost: gh}
		if r.vif == nil {
			p.in.Forget(flows.TunnelID, flows.TunSrc, flows.TunDst)
		}
		s.vertex(b, 0, nil, string(appendState(nil, b, 0, nil, b.live[0], &p.in, gh))).root = r
	}
	for vif := range s.view.VIFsOn(b.host) {
		if p := s.view.Port(vif.PortID); p != nil && b.bridge == network.BridgeIntegration {
			if n := s.view.Network(p.NetworkID); n != nil {
				begin(vif.OFPort, &root{vif, p}, ghost{network: n.Key})
			}
		}
	}
	outside := ghost{outside: true}
	switch b.bridge {
	case network.BridgeIntegration:
	case network.BridgeTunnel:
		for _, port := range slices.Sorted(maps.Keys(b.tunnels)) {
			begin(port, &root{}, outside)
		}
		begin(b.freePort(s.view.Host(b.host)), &root{}, outside)
	default:
		begin(b.freePort(s.view.Host(b.host)), &root{}, outside)
		begin(flows.PortLocal, &root{}, outside)
	}
}

func (s *site) vertex(at *bridge, table uint8, then *rest, key string) *vertex {
	v := s.ids[key]
	if v == nil {
		v = &vertex{at: at, table: table, then: then, key: key}
		s.ids[key] = v
		s.nodes = append(s.nodes, v)
	}
	return v
}

// link adds an edge to both of its ends, once. Edges by a rule come one after the
// other: a table may have 20,000 rules that all lead to the same sets.
func (e edge) link() {
	for i := len(e.from.out) - 1; i >= 0 && e.from.out[i].by == e.by; i-- {
		if e.from.out[i] == e {
			return
		}
	}
	e.to.into, e.from.out = append(e.to.into, e), append(e.from.out, e)
}

// lookEvery is how many sets of packets pass until somebody who gave up is noticed.
const lookEvery = 1024

// expandAll does what can be done without the other hosts.
func (s *site) expandAll(v *verifier, visited *atomic.Int64) {
	for ; s.next < len(s.nodes); s.next++ {
		if v.tooMany(visited.Add(1)) || s.next%lookEvery == 0 && v.gaveUp() != nil {
			return
		}
		s.expand(s.nodes[s.next])
	}
}

// expand does what the flows of a table do to packets.
func (s *site) expand(v *vertex) {
	s.from = v
	in := &s.in
	gh := readState(v.key, in)
	for r := range v.at.candidates(v.table, in) {
		all, some := r.meets(in)
		if !some {
			continue
		}
		r.reached = true
		s.by = r
		p := s.begin(v, in, gh)
		r.narrow(&p.in)
		s.do(p, r.actions, v.then)
		s.free(p)
		if all {
			return
		}
	}
	// Nothing may match: what is left to do after a resubmit goes on.
	if v.then != nil {
		s.by = nil
		p := s.begin(v, in, gh)
		s.do(p, v.then.actions, v.then.next)
		s.free(p)
	}
}

// begin makes packets, until they are freed.
func (s *site) begin(v *vertex, in *flows.Symbolic, g ghost) *packets {
	p := s.blank()
	p.at, p.table, p.ghost, p.hop, p.translated = v.at, v.table, g, false, false
	p.in = *in
	return p
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
func (s *site) lookup(p *packets, table uint8, then *rest) {
	if then != nil && then.depth > maxDepth {
		s.deep = append(s.deep, s.from)
		return
	}
	if p.at.bridge == network.BridgeIntegration {
		s.forget(p, s.merge[table])
	}
	live := p.at.live[table]
	for r := then; r != nil; r = r.next {
		p.at.readsAll(&live, p.table, r.actions)
	}
	s.key = appendState(s.key[:0], p.at, table, then, live, &p.in, p.ghost)
	e := edge{from: s.from, by: s.by, hop: p.hop}
	if p.at.host != s.host {
		s.away = append(s.away, departure{p.at, string(s.key), e})
		return
	}
	if e.to = s.ids[string(s.key)]; e.to == nil {
		e.to = s.vertex(p.at, table, then, string(s.key))
	}
	e.link()
}

// forget makes packets alike that come from different machines.
func (s *site) forget(p *packets, fields []flows.Field) {
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
func (s *site) delivered(p *packets, to *network.Port) {
	if n := s.view.Network(to.NetworkID); !p.ghost.outside && n != nil && n.Key != p.ghost.network {
		s.crossed = append(s.crossed, &crossing{s.from, s.by, to})
	}
}

// left implements course.
func (s *site) left(*packets) {}

// unclear implements course.
func (s *site) unclear(p *packets, a flows.Action) {
	if s.by != nil {
		s.odd["what "+a.String()+" does is not followed: host "+p.at.host+" "+p.at.bridge+": "+s.by.flow.String()] = true
	}
}
