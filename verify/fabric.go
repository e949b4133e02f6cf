package verify

import (
	"maps"
	"slices"

	"planck/flows"
	"planck/network"
	"planck/trace"
)

type place struct{ host, bridge string }

// bridge is the tables of a bridge, and where its ports lead.
type bridge struct {
	place
	number  int // from 0 on, of all bridges
	set     *flows.Set
	tables  [256][]*rule // by priority, highest first
	indexes [256]*index  // of the tables, nil where there is none
	buckets map[uint32][][]flows.Action
	live    [256]slotSet // what the tables from there on look at
	patches map[uint32]arrival
	vifs    map[uint32]*network.Port
	tunnels map[uint32]string // type
	ports   []uint32          // all of the above, in the same order each time
	wires   []arrival         // of a provider bridge: where its frames come to
}

// arrival is a port of a bridge.
type arrival struct {
	bridge *bridge
	port   uint32
}

// rule is a flow of a table, taken apart.
type rule struct {
	flow    *flows.Flow
	terms   []flows.Term
	actions []flows.Action
	order   int // in its table
	reached bool
}

// fabric is all bridges of all hosts.
type fabric struct {
	view    *network.View
	hosts   []*network.Host
	at      map[place]*bridge
	bridges []*bridge
	joins   map[[2]uint32]bool // (router, network): the router has a port there
}

func newFabric(view *network.View, tables trace.Tables) (*fabric, error) {
	f := &fabric{view: view, at: map[place]*bridge{}, joins: map[[2]uint32]bool{}}
	for h := range view.Hosts() {
		f.hosts = append(f.hosts, h)
		names := make([]string, 0, len(h.Bridges))
		for name := range h.Bridges {
			names = append(names, name)
		}
		slices.Sort(names)
		for _, name := range names {
			set, err := tables(h.Name, name)
			if err != nil {
				return nil, err
			}
			b := &bridge{place: place{h.Name, name}, number: len(f.bridges), set: set}
			f.at[b.place], f.bridges = b, append(f.bridges, b)
		}
	}
	inParallel(len(f.bridges), func(i int) { f.bridges[i].takeApart() })
	for _, h := range f.hosts {
		f.connect(h)
	}
	inParallel(len(f.bridges), func(i int) {
		b := f.bridges[i]
		b.ports = slices.Concat(slices.Sorted(maps.Keys(b.patches)), slices.Sorted(maps.Keys(b.tunnels)), slices.Sorted(maps.Keys(b.vifs)))
		b.findLive()
	})
	for r := range view.Routers() {
		for p := range view.PortsOfDevice(r.ID) {
			if n := view.Network(p.NetworkID); n != nil {
				f.joins[[2]uint32{r.Key, n.Key}] = true
			}
		}
		if n := view.Network(r.ExternalNetworkID); n != nil {
			f.joins[[2]uint32{r.Key, n.Key}] = true
		}
	}
	return f, nil
}

// takeApart takes the flows and groups of a bridge apart.
func (b *bridge) takeApart() {
	b.buckets, b.patches, b.vifs, b.tunnels = map[uint32][][]flows.Action{}, map[uint32]arrival{}, map[uint32]*network.Port{}, map[uint32]string{}
	for _, f := range b.set.SortedFlows() {
		rules := &b.tables[f.Table]
		*rules = append(*rules, &rule{flow: f, terms: slices.Collect(f.Match.Terms()), actions: f.Instructions.Actions(), order: len(*rules)})
	}
	for t := range b.tables {
		b.indexes[t] = newIndex(b.tables[t])
	}
	for id, g := range b.set.Groups {
		b.buckets[id] = g.BucketActions()
	}
}

// connect finds where the ports of a host's bridges lead.
func (f *fabric) connect(h *network.Host) {
	for name, facts := range h.Bridges {
		b := f.at[place{h.Name, name}]
		for other, port := range facts.Patches {
			if to := f.at[place{h.Name, other}]; to != nil {
				b.patches[port] = arrival{to, h.Bridges[other].Patches[name]}
			}
		}
		for kind, port := range facts.Tunnels {
			b.tunnels[port] = kind
		}
	}
	for vif := range f.view.VIFsOn(h.Name) {
		if b, p := f.at[place{h.Name, network.BridgeIntegration}], f.view.Port(vif.PortID); b != nil && p != nil {
			b.vifs[vif.OFPort] = p
		}
	}
	for physical, name := range h.BridgeMappings {
		b := f.at[place{h.Name, name}]
		if b == nil {
			continue
		}
		for _, other := range f.hosts {
			if to := f.at[place{other.Name, other.BridgeMappings[physical]}]; to != nil && other.Name != h.Name {
				b.wires = append(b.wires, arrival{to, to.freePort(other)})
			}
		}
	}
}

// freePort is a port that leads to no other bridge: all wires are alike to flows.
func (b *bridge) freePort(h *network.Host) uint32 {
	facts := h.Bridges[b.bridge]
	port := uint32(1)
	taken := func() bool {
		for _, m := range []map[string]uint32{facts.Patches, facts.Tunnels} {
			for _, p := range m {
				if p == port {
					return true
				}
			}
		}
		return false
	}
	for taken() {
		port++
	}
	return port
}

// tunnelled is where a packet comes to that leaves by a tunnel: an address that
// is not known may be that of any host.
func (f *fabric) tunnelled(b *bridge, kind string, s *flows.Symbolic) (all []arrival) {
	for _, h := range f.hosts {
		if h.Name == b.host || !h.TunnelIP.IsValid() || !mayBeFor(s, h) {
			continue
		}
		to := f.at[place{h.Name, network.BridgeTunnel}]
		if port := h.Bridges[network.BridgeTunnel].Tunnels[kind]; to != nil && port != 0 {
			all = append(all, arrival{to, port})
		}
	}
	return all
}

// mayBeFor reports whether the tunnel's destination may be a host: an IPv6 address
// counts where there is no IPv4 address.
func mayBeFor(s *flows.Symbolic, h *network.Host) bool {
	if to, known := s.Know(flows.TunDst); to != 0 || known != allOnes {
		if h.TunnelIP.Is4() {
			_, some := s.Meets(flows.TunDst.IsIP(h.TunnelIP))
			return some
		}
		if to != 0 {
			return false
		}
	}
	if h.TunnelIP.Is4() {
		return false
	}
	_, some := s.Meets(flows.TunIPv6Dst.IsIP(h.TunnelIP))
	return some
}
