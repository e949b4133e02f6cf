package network

import "slices"

// maxWatchers is how many hosts watch one gateway host at the most: enough to
// tell its death from theirs, and not more sessions than needed in a large cloud.
const maxWatchers = 8

// PeerReport is what a host sees of another one that it exchanges BFD with.
type PeerReport struct {
	Host, Peer string
	Up         bool
	Ever       bool // it was up before, since the reporting switch started
}

// InterfaceReport is what the database of a host tells of an interface that has
// the id of a port.
type InterfaceReport struct {
	Name, Bridge string
	OFPort       uint32 // 0 for none
	MTU          int    // in bytes; 0 when it is not told
	NoLink       bool
	AttachedMAC  string // as whoever plugged it says; "" for nothing
	Error        string // why the switch does not have it
}

// GatewayWatch tells which hosts exchange BFD with which: each host that may
// carry the gateway of a router, where another one could take over, with up to
// eight others. Both directions are listed, in order.
func (v *View) GatewayWatch() map[string][]string {
	watch := map[string][]string{}
	gateways := v.replaceableGateways()
	if len(gateways) == 0 {
		return watch
	}
	hosts := slices.Collect(v.Hosts())
	add := func(a, b string) {
		if !slices.Contains(watch[a], b) {
			watch[a] = append(watch[a], b)
		}
	}
	for _, gateway := range gateways {
		for _, w := range v.watchersOf(v.Host(gateway), hosts) {
			add(gateway, w)
			add(w, gateway)
		}
	}
	for _, peers := range watch {
		slices.Sort(peers)
	}
	return watch
}

// replaceableGateways are the hosts in placements that have more than one.
func (v *View) replaceableGateways() []string {
	found := map[string]bool{}
	var gateways []string
	for g := range v.GatewayPlacements() {
		if len(g.Hosts) < 2 {
			continue
		}
		for _, host := range g.Hosts {
			if !found[host] {
				found[host] = true
				gateways = append(gateways, host)
			}
		}
	}
	return gateways
}

// watchersOf are the hosts that watch a gateway host: those that it comes first
// for, so that all hosts watch about as many.
func (v *View) watchersOf(gateway *Host, hosts []*Host) []string {
	if gateway == nil || !gateway.TunnelIP.IsValid() {
		return nil
	}
	var can []string
	for _, h := range hosts {
		if h.Name != gateway.Name && h.TunnelIP.IsValid() && h.TunnelIP != gateway.TunnelIP && h.TunnelIP.Is4() == gateway.TunnelIP.Is4() {
			can = append(can, h.Name)
		}
	}
	return nearest(gateway.Name, can, maxWatchers)
}

// nearest are the first ones in the order of byAffinity.
func nearest(id string, hosts []string, count int) []string {
	if len(hosts) <= count {
		return hosts
	}
	type weighed struct {
		host   string
		weight uint64
	}
	best := make([]weighed, 0, count+1)
	for _, host := range hosts {
		w := weighed{host, affinity(id, host)}
		at, _ := slices.BinarySearchFunc(best, w, func(a, b weighed) int { return compareAffinity(a.weight, b.weight, a.host, b.host) })
		if at == count {
			continue
		}
		best = slices.Insert(best, at, w)
		best = best[:min(len(best), count)]
	}
	names := make([]string, len(best))
	for i, w := range best {
		names[i] = w.host
	}
	return names
}
