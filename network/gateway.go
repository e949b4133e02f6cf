package network

import (
	"cmp"
	"hash/fnv"
	"iter"
	"slices"
)

// maxGatewayHosts is how many hosts stand in the placement of one router: each
// of them has its flows ready, and its health is watched.
const maxGatewayHosts = 5

// GatewayPlacement says which hosts may carry the gateway of a router. It
// exists as long as the router has a gateway, and follows from the hosts that
// reach the external network: it is not in the API.
type GatewayPlacement struct {
	RouterID  string `json:"router_id"`
	NetworkID string `json:"network_id"` // the external network
	// Hosts are in the order of preference; the first one that is not down has
	// the gateway (View.GatewayHost). Empty when no host reaches the network.
	Hosts []string `json:"hosts,omitempty"`
}

// ObjectKind implements Object.
func (*GatewayPlacement) ObjectKind() Kind { return KindGatewayPlacement }

// ObjectID implements Object.
func (g *GatewayPlacement) ObjectID() string { return g.RouterID }

// HostDown says that a host can't carry gateways now. It is a judgement with a
// hold-down, so that it does not come and go with each lost packet.
type HostDown struct {
	Host   string `json:"host"`
	Reason string `json:"reason"` // in words for an operator
	// Unwired says that the host itself is well: its external bridge has no link.
	Unwired bool `json:"unwired,omitempty"`
}

// ObjectKind implements Object.
func (*HostDown) ObjectKind() Kind { return KindHostDown }

// ObjectID implements Object.
func (d *HostDown) ObjectID() string { return d.Host }

// GatewayPlacement returns the placement of a router's gateway; nil without a gateway.
func (v *View) GatewayPlacement(routerID string) *GatewayPlacement {
	return byID[GatewayPlacement](v, KindGatewayPlacement, routerID)
}

// GatewayPlacements are the placements of all routers with a gateway.
func (v *View) GatewayPlacements() iter.Seq[*GatewayPlacement] {
	return all[GatewayPlacement](v, KindGatewayPlacement)
}

// GatewayPlacementsOn are the placements in which a host stands, in whatever place.
func (v *View) GatewayPlacementsOn(host string) iter.Seq[*GatewayPlacement] {
	return list[GatewayPlacement](v, KindGatewayPlacement, IndexGatewayPlacementsOn, host)
}

// HostDown returns why a host can't carry gateways now; nil when it can.
func (v *View) HostDown(host string) *HostDown { return byID[HostDown](v, KindHostDown, host) }

// HostsDown are all hosts that can't carry gateways now.
func (v *View) HostsDown() iter.Seq[*HostDown] { return all[HostDown](v, KindHostDown) }

// GatewayHost is the host that has the gateway of a router now: the first of
// its placement that is not down, or the first when all are. It is "" for a
// router without a gateway, and where no host reaches the external network.
func (v *View) GatewayHost(routerID string) string {
	g := v.GatewayPlacement(routerID)
	if g == nil || len(g.Hosts) == 0 {
		return ""
	}
	for _, host := range g.Hosts {
		if v.HostDown(host) == nil {
			return host
		}
	}
	return g.Hosts[0]
}

// SetHostDown notes that a host can't carry gateways, and why. A host that is
// down already stays as it is, unless its wire dies as well.
func (tx *Tx) SetHostDown(d HostDown) error {
	if tx.Host(d.Host) == nil {
		return hostNotFound(d.Host)
	}
	if is := tx.HostDown(d.Host); is != nil && (is.Unwired || !d.Unwired) {
		return nil
	}
	return tx.put(&d)
}

// SetHostUp notes that a host can carry gateways.
func (tx *Tx) SetHostUp(host string) { tx.remove(KindHostDown, host) }

// settlePlacement makes the placement of a router's gateway fit the router.
func (tx *Tx) settlePlacement(r *Router) error {
	old := tx.GatewayPlacement(r.ID)
	switch {
	case r.ExternalNetworkID == "":
		tx.remove(KindGatewayPlacement, r.ID)
		return nil
	case old != nil && old.NetworkID == r.ExternalNetworkID:
		return nil
	}
	tx.remove(KindGatewayPlacement, r.ID)
	candidates := tx.gatewayCandidates(tx.Network(r.ExternalNetworkID))
	return tx.put(&GatewayPlacement{
		RouterID:  r.ID,
		NetworkID: r.ExternalNetworkID,
		Hosts:     tx.newOrder(r, candidates),
	})
}

// gatewayCandidates are the hosts that can carry gateways on an external
// network, by name. Where some of them have tunnels, those that have none are
// out: other hosts could not reach them.
func (tx *Tx) gatewayCandidates(n *Network) []string {
	var plain, tunnelled []string
	for h := range tx.Hosts() {
		switch {
		case !h.carries(n):
		case h.TunnelIP.IsValid():
			tunnelled = append(tunnelled, h.Name)
		default:
			plain = append(plain, h.Name)
		}
	}
	if len(tunnelled) > 0 {
		return tunnelled
	}
	return plain
}

// carries reports whether a host has what an external network needs: its bridge
// mapping, and that bridge under control.
func (h *Host) carries(n *Network) bool {
	n = n.On(h)
	if !n.Provider() {
		return h.reaches(n)
	}
	_, ok := h.Bridges[h.BridgeMappings[n.PhysicalNetwork]]
	return ok
}

// carriesLike reports whether a host carries gateways alike in both states.
func (h *Host) carriesLike(o *Host) bool {
	if h.TunnelIP != o.TunnelIP || len(h.BridgeMappings) != len(o.BridgeMappings) ||
		len(h.Bridges[BridgeTunnel].Tunnels) != len(o.Bridges[BridgeTunnel].Tunnels) {
		return false
	}
	for name, bridge := range h.BridgeMappings {
		_, was := h.Bridges[bridge]
		_, is := o.Bridges[o.BridgeMappings[name]]
		if o.BridgeMappings[name] == "" || was != is {
			return false
		}
	}
	return true
}

// newOrder puts candidates in order for a router that has no placement: first
// the one that leads the fewest routers of the network, then the one that
// stands in for it least often, so that its load is shared when it dies.
func (tx *Tx) newOrder(r *Router, candidates []string) []string {
	leads, seconds, total := map[string]int{}, map[[2]string]int{}, map[string]int{}
	for g := range tx.GatewayPlacements() {
		if len(g.Hosts) == 0 {
			continue
		}
		total[g.Hosts[0]]++
		if g.NetworkID != r.ExternalNetworkID {
			continue
		}
		leads[g.Hosts[0]]++
		if len(g.Hosts) > 1 {
			seconds[[2]string{g.Hosts[0], g.Hosts[1]}]++
		}
	}
	order := byAffinity(r.ID, candidates)
	toFront(order, func(host string) int { return leads[host] }, func(host string) int { return total[host] })
	if len(order) > 2 {
		toFront(order[1:], func(host string) int { return seconds[[2]string{order[0], host}] })
	}
	return orNil(order[:min(len(order), maxGatewayHosts)])
}

// toFront moves the host with the least load to the front: later loads count
// where earlier ones are equal.
func toFront(hosts []string, loads ...func(string) int) {
	if len(hosts) == 0 {
		return
	}
	least := 0
	for i := range hosts {
		for _, load := range loads {
			c := cmp.Compare(load(hosts[i]), load(hosts[least]))
			if c < 0 {
				least = i
			}
			if c != 0 {
				break
			}
		}
	}
	front := hosts[least]
	copy(hosts[1:], hosts[:least])
	hosts[0] = front
}

// byAffinity sorts hosts in an order of the router's own, which does not depend
// on which other hosts there are.
func byAffinity(routerID string, hosts []string) []string {
	return slices.SortedFunc(slices.Values(hosts), func(a, b string) int {
		return compareAffinity(affinity(routerID, a), affinity(routerID, b), a, b)
	})
}

// affinity is a number that says where a host stands in the order of something else.
func affinity(id, host string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(id + "/" + host))
	// FNV's upper bits hardly depend on the last bytes.
	x := h.Sum64()
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	return x ^ x>>33
}

func compareAffinity(weightA, weightB uint64, a, b string) int {
	return cmp.Or(cmp.Compare(weightA, weightB), cmp.Compare(a, b))
}

// SettleGateways makes the placements fit routers and hosts. Whatever changes
// them does so by itself: this is for a database of an earlier version.
func (tx *Tx) SettleGateways() error { return tx.settlePlacements("") }

// settlePlacements makes the placements on all external networks fit the hosts,
// after one of them came, changed or went. Only routers whose first host went,
// and the share that a host takes that came, are led by another than before.
func (tx *Tx) settlePlacements(host string) error {
	routers := map[string][]*Router{}
	for r := range tx.Routers() {
		if r.ExternalNetworkID != "" {
			routers[r.ExternalNetworkID] = append(routers[r.ExternalNetworkID], r)
		}
	}
	for networkID, on := range routers {
		if err := tx.settleNetworkPlacements(on, tx.gatewayCandidates(tx.Network(networkID)), host); err != nil {
			return err
		}
	}
	return nil
}

func (tx *Tx) settleNetworkPlacements(routers []*Router, candidates []string, host string) error {
	came := slices.Contains(candidates, host)
	orders := make([][]string, len(routers))
	for i, r := range routers {
		var was []string
		if g := tx.GatewayPlacement(r.ID); g != nil {
			was = g.Hosts
		}
		orders[i] = refill(r.ID, was, candidates)
		came = came && (len(was) == 0 || was[0] != host)
	}
	if came {
		level(orders, 0, candidates, []string{host})
	}
	tx.levelStandbys(orders, candidates)
	for i, r := range routers {
		old := tx.GatewayPlacement(r.ID)
		if old != nil && slices.Equal(orders[i], old.Hosts) {
			continue
		}
		before := tx.routerPlaces(r.ID)
		if err := tx.put(&GatewayPlacement{RouterID: r.ID, NetworkID: r.ExternalNetworkID, Hosts: orders[i]}); err != nil {
			return err
		}
		if err := tx.settleReach(r.ID, before); err != nil {
			return err
		}
	}
	return nil
}

// levelStandbys shares the routers of each host among those that stand in for
// it. While it is down they do so, and stay.
func (tx *Tx) levelStandbys(orders [][]string, candidates []string) {
	for _, leader := range candidates {
		if tx.HostDown(leader) != nil {
			continue
		}
		var led [][]string
		var indexes []int
		for i, order := range orders {
			if len(order) > 0 && order[0] == leader {
				led, indexes = append(led, order), append(indexes, i)
			}
		}
		others := slices.DeleteFunc(slices.Clone(candidates), func(h string) bool { return h == leader })
		level(led, 1, others, others)
		for i, at := range indexes {
			orders[at] = led[i]
		}
	}
}

// refill keeps the order of those hosts that are candidates still, and fills it
// up with others.
func refill(routerID string, was, candidates []string) []string {
	var order []string
	for _, host := range was {
		if slices.Contains(candidates, host) {
			order = append(order, host)
		}
	}
	for _, host := range byAffinity(routerID, candidates) {
		if len(order) == maxGatewayHosts {
			break
		}
		if !slices.Contains(order, host) {
			order = append(order, host)
		}
	}
	return order
}

// level evens out how often hosts have a place in the orders: as long as one
// has it two times more often than a receiver, that one gets it instead.
func level(orders [][]string, place int, hosts, receivers []string) {
	if len(hosts) < 2 || len(receivers) == 0 {
		return
	}
	holds := map[string]int{}
	for _, order := range orders {
		holds[order[place]]++
	}
	byHolds := func(a, b string) int { return cmp.Compare(holds[a], holds[b]) }
	for {
		from, to := slices.MaxFunc(hosts, byHolds), slices.MinFunc(receivers, byHolds)
		if holds[from]-holds[to] < 2 {
			return
		}
		i := slices.IndexFunc(orders, func(order []string) bool { return order[place] == from })
		orders[i] = bring(orders[i], to, place)
		holds[from]--
		holds[to]++
	}
}

// bring puts a host at a place of an order.
func bring(order []string, host string, place int) []string {
	order = slices.DeleteFunc(order, func(h string) bool { return h == host })
	order = slices.Insert(order, place, host)
	return order[:min(len(order), maxGatewayHosts)]
}
