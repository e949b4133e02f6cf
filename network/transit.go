package network

import (
	"iter"
	"maps"
	"slices"
)

// Transit is the segment on which the packets of a router travel from the host
// that routed them to the host of its gateway: a segment of its own, since
// those packets are on none of the router's networks. It exists as long as the
// router has a gateway and there is an id for it, and is not in the API.
type Transit struct {
	RouterID        string `json:"router_id"`
	NetworkType     string `json:"network_type"`               // tunnelled, or VLAN
	PhysicalNetwork string `json:"physical_network,omitempty"` // of a VLAN
	SegmentationID  uint32 `json:"segmentation_id"`
	MTU             int    `json:"mtu,omitempty"` // bytes; 0 in a database of an earlier version
}

// ObjectKind implements Object.
func (*Transit) ObjectKind() Kind { return KindTransit }

// ObjectID implements Object.
func (t *Transit) ObjectID() string { return t.RouterID }

// Network is a network with the segment of the transit, and nothing else.
func (t *Transit) Network() *Network {
	return &Network{NetworkType: t.NetworkType, PhysicalNetwork: t.PhysicalNetwork, SegmentationID: t.SegmentationID, AdminStateUp: true}
}

// Transit returns the transit segment of a router, or nil.
func (v *View) Transit(routerID string) *Transit { return byID[Transit](v, KindTransit, routerID) }

// MayHaveGateway reports whether a host has the gateway of a router, or stands by for it.
func (v *View) MayHaveGateway(routerID, host string) bool {
	g := v.GatewayPlacement(routerID)
	return g != nil && slices.Contains(g.Hosts, host)
}

// FloatingHost is the host on which a floating IP is translated: that of the
// port it stands for, where the external network is at hand, else that of the
// router's gateway, which also stands in for a wire without a link. It is ""
// while it stands for no port.
func (v *View) FloatingHost(f *FloatingIP) string {
	if f.PortID == "" {
		return ""
	}
	host := v.floatingHostOf(f, v.Port(f.PortID))
	if host != "" && !v.unwired(host) {
		return host
	}
	if gateway := v.GatewayHost(f.RouterID); host == "" || gateway != "" && !v.unwired(gateway) {
		return gateway
	}
	return host
}

// unwired reports whether the external bridge of a host has no link.
func (v *View) unwired(host string) bool {
	d := v.HostDown(host)
	return d != nil && d.Unwired
}

// floatingHostOf is the host of a port if it can translate a floating IP there, else "".
func (v *View) floatingHostOf(f *FloatingIP, p *Port) string {
	if p == nil {
		return ""
	}
	h, n := v.Host(v.WiredHost(p)), v.Network(f.FloatingNetworkID)
	if h == nil || n == nil || !n.Provider() || !h.carries(n) {
		return ""
	}
	return h.Name
}

// settleRouter does what follows from a router that was written or deleted:
// where its gateway is placed, its transit segment, and what is present where.
// before are its places as it was.
func (tx *Tx) settleRouter(routerID string, before []place) error {
	if r := tx.Router(routerID); r == nil {
		tx.remove(KindGatewayPlacement, routerID)
	} else if err := tx.settlePlacement(r); err != nil {
		return err
	}
	return tx.settleReach(routerID, before)
}

// settleReach is settleRouter for the placement that there is.
func (tx *Tx) settleReach(routerID string, before []place) error {
	if err := tx.settleTransit(routerID); err != nil {
		return err
	}
	if err := tx.settlePlaces(append(before, tx.routerPlaces(routerID)...)); err != nil {
		return err
	}
	return tx.settleRouterZonesEverywhere(routerID)
}

// settleTransit makes the transit segment of a router fit its gateway. One that
// all hosts of the placement reach stays, whatever its type.
func (tx *Tx) settleTransit(routerID string) error {
	r, old := tx.Router(routerID), tx.Transit(routerID)
	if r == nil || r.ExternalNetworkID == "" {
		tx.remove(KindTransit, routerID)
		return nil
	}
	hosts := tx.placementHosts(routerID)
	if old != nil && reachedByAll(hosts, old.Network()) {
		t := *old
		if t.MTU = tx.s.cfg.maxMTU(t.NetworkType); t == *old {
			return nil
		}
		return tx.put(&t)
	}
	for _, n := range tx.transitTypes(r) {
		if !reachedByAll(hosts, n) || tx.allocateID(n, tx.idRanges(n)) != nil {
			continue
		}
		return tx.put(&Transit{
			RouterID: routerID, NetworkType: n.NetworkType, PhysicalNetwork: n.PhysicalNetwork, SegmentationID: n.SegmentationID,
			MTU: tx.s.cfg.maxMTU(n.NetworkType),
		})
	}
	if old == nil {
		tx.s.log.Warn("no segment leads to the gateway of the router: only its own host reaches it", "router_id", routerID)
	}
	return nil
}

// placementHosts are the hosts in the placement of a router's gateway.
func (tx *Tx) placementHosts(routerID string) []*Host {
	var hosts []*Host
	if g := tx.GatewayPlacement(routerID); g != nil {
		for _, name := range g.Hosts {
			if h := tx.Host(name); h != nil {
				hosts = append(hosts, h)
			}
		}
	}
	return hosts
}

func reachedByAll(hosts []*Host, n *Network) bool {
	return !slices.ContainsFunc(hosts, func(h *Host) bool { return !h.reaches(n) })
}

// transitTypes are the segments without an id that a router's transit may be
// on: tunnels of the types that its networks have or that are configured, then
// VLANs, which are scarce.
func (tx *Tx) transitTypes(r *Router) []*Network {
	var types []*Network
	add := func(n *Network) {
		if n.Tunnelled() {
			types = append(types, &Network{NetworkType: n.NetworkType})
		}
	}
	for _, id := range tx.networksOf(r.ID) {
		add(tx.Network(id))
	}
	for _, typ := range tx.s.cfg.TenantNetworkTypes {
		add(&Network{NetworkType: typ})
	}
	for _, name := range slices.Sorted(maps.Keys(tx.s.cfg.VLANRanges)) {
		types = append(types, &Network{NetworkType: TypeVLAN, PhysicalNetwork: name})
	}
	return types
}

func (tx *Tx) idRanges(n *Network) []IDRange {
	if n.NetworkType == TypeVLAN {
		return tx.s.cfg.VLANRanges[n.PhysicalNetwork]
	}
	return tx.s.cfg.TunnelRanges[n.NetworkType]
}

// transitOn reports whether a host needs the transit segment of a router: it
// may have its gateway, or it has wired ports of one of its networks, or of a
// router that leads to it.
func (tx *Tx) transitOn(r *Router, host string) bool {
	if !r.AdminStateUp || r.ExternalNetworkID == "" {
		return false
	}
	if tx.MayHaveGateway(r.ID, host) {
		return true
	}
	return slices.ContainsFunc(tx.leadingTo(r.ID), func(id string) bool { return tx.routes(id) && tx.routesFrom(id, "", host) })
}

// externalOn reports whether an external network is needed on a host: for a
// gateway that is or may be there, or for the floating IP of a port there.
func (tx *Tx) externalOn(networkID, host string) bool {
	for g := range tx.GatewayPlacementsOn(host) {
		if g.NetworkID == networkID && tx.routes(g.RouterID) {
			return true
		}
	}
	for id := range tx.FloatingNetworksOn(host) {
		if id == networkID {
			return true
		}
	}
	return false
}

// FloatingNetworksOn are the external networks of the floating IPs of ports on a
// host that are translated there while its wire is well; one may come repeatedly.
func (v *View) FloatingNetworksOn(host string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for vif := range v.VIFsOn(host) {
			for f := range v.FloatingIPsOfPort(vif.PortID) {
				if v.routes(f.RouterID) && v.floatingHostOf(f, v.Port(f.PortID)) == host && !yield(f.FloatingNetworkID) {
					return
				}
			}
		}
	}
}

// routes reports whether a router exists and is up.
func (v *View) routes(routerID string) bool {
	r := v.Router(routerID)
	return r != nil && r.AdminStateUp
}

// settleFloating settles the presence of the external networks of a port's
// floating IPs on hosts that the port came to or left.
func (tx *Tx) settleFloating(portID string, hosts ...string) error {
	for _, f := range slices.Collect(tx.FloatingIPsOfPort(portID)) {
		for _, host := range hosts {
			if host == "" {
				continue
			}
			if err := tx.settleRouted(f.FloatingNetworkID, host); err != nil {
				return err
			}
		}
	}
	return nil
}

// settleFloatingOn settles the presence of external networks on a host whose
// bridges changed.
func (tx *Tx) settleFloatingOn(host string) error {
	for _, v := range slices.Collect(tx.VIFsOn(host)) {
		if err := tx.settleFloating(v.PortID, host); err != nil {
			return err
		}
	}
	return nil
}

// settleAssociation settles the presence of an external network where a port is
// plugged, after one of its floating IPs came or went.
func (tx *Tx) settleAssociation(networkID, portID string) error {
	for _, v := range slices.Collect(tx.VIFsOf(portID)) {
		if err := tx.settleRouted(networkID, v.Host); err != nil {
			return err
		}
	}
	return nil
}

// interfacePlaces are routerPlaces of the router that a port is an interface of,
// whose address others may have as a next hop; nil when it is none.
func (tx *Tx) interfacePlaces(p *Port) []place {
	if !p.isRouter() || tx.Router(p.DeviceID) == nil {
		return nil
	}
	return tx.routerPlaces(p.DeviceID)
}

// routerPlaces are where the presence of something may depend on a router: of
// its networks and its transit, those of routers to which it leads, and its
// external network.
func (tx *Tx) routerPlaces(routerID string) []place {
	var ids []string
	for _, id := range tx.ledTo(routerID) {
		ids = append(append(ids, tx.networksOf(id)...), id)
	}
	if r := tx.Router(routerID); r != nil && r.ExternalNetworkID != "" {
		ids = append(ids, r.ExternalNetworkID)
	}
	hosts := map[string]bool{}
	for _, id := range ids {
		for p := range tx.PresencesOf(id) {
			hosts[p.Host] = true
		}
	}
	for _, id := range tx.leadingTo(routerID) {
		for _, networkID := range tx.networksOf(id) {
			for p := range tx.PresencesOf(networkID) {
				hosts[p.Host] = true
			}
		}
		for _, h := range tx.placementHosts(id) {
			hosts[h.Name] = true
		}
	}
	var places []place
	for _, host := range slices.Sorted(maps.Keys(hosts)) {
		for _, id := range ids {
			places = append(places, place{id, host})
		}
	}
	return places
}
