package pipeline

import (
	"net/netip"
	"slices"

	"planck/flows"
	"planck/network"
)

// gatewayFeature leads what leaves a router for its external network to the
// host that has the router's gateway, and translates it there to the gateway's
// address (DESIGN 2.4).
type gatewayFeature struct{}

func (gatewayFeature) ID() FeatureID { return FeatureGateway }
func (gatewayFeature) Name() string  { return "gateway" }

// Priorities of what a router's gateway and its floating IPs have in the same tables.
const (
	natUnresolved = 200 // the MAC of the next hop is not known
	natFloating   = 100 // a floating IP that lives here
	natTransit    = 60  // steered to this host by another one
	natToFloating = 55
	natGateway    = 50
	natElsewhere  = 10
)

// routeOwn is above all routes: what reaches a gateway's address from outside and
// belongs to no connection is not routed back to where it came from.
const routeOwn = 400

// CompileHost implements HostFeature.
func (gatewayFeature) CompileHost(c *Context) {
	c.Flow(UnNat, 0, everything, To(Dnat))
	c.Flow(Dnat, 0, everything, To(Route))
	c.Flow(GatewaySteer, 0, everything, To(L2Lookup))
	c.Flow(Snat, 0, everything, To(L2Lookup))
	c.feature = FeatureNeighbor
	c.Flow(Snat, natUnresolved, flows.NewMatch(unresolved), punt(c, meterNeighbor)...)
}

var unresolved = RegFlags.Masked(flagUnresolved, flagUnresolved)

// CompileNetwork implements NetworkFeature: the next hops on an external
// network that are none of our ports. With an unknown one, only a packet that
// would leave here makes the controller ask: others go on to the gateway's host.
func (gatewayFeature) CompileNetwork(c *Context, n *network.Network, _ *network.Presence) {
	if !n.External {
		return
	}
	c.Flow(Neighbor, natElsewhere, flows.NewMatch(onNetwork(n)), flows.SetMasked(RegFlags, flagUnresolved, flagUnresolved), To(GatewaySteer))
	for e := range c.View.ExternalNeighborsOf(n.ID) {
		if mac, ok := c.View.ExternalNeighbor(n.ID, e.IP); ok && e.IP.Is4() {
			c.Flow(Neighbor, 100, flows.NewMatch(onNetwork(n), RegNextHop.Is(ipv4Bits(e.IP))), flows.SetMAC(flows.EthDst, mac), To(GatewaySteer))
		}
	}
	compileExternalNeighbors6(c, n)
}

// gateway is a router's gateway as one host sees it.
type gateway struct {
	router   *network.Router
	port     *network.Port
	network  *network.Network  // the external one
	presence *network.Presence // of the external network on this host; nil where it is not
	transit  *network.Presence // of the transit segment on this host
	host     string            // that has the gateway, "" for none
	here     bool              // this host has it
	standby  bool              // this host has it or may get it
	smaller  narrow            // MTUs by which the router forwards
	mtu      int               // towards the external network, from here
}

func gatewayOf(c *Context, r *network.Router, transit *network.Presence) (gateway, bool) {
	g := gateway{router: r, port: c.View.Port(r.GatewayPortID), network: c.Network(r.ExternalNetworkID), transit: transit}
	if !r.AdminStateUp || g.port == nil || g.network == nil || !g.network.AdminStateUp {
		return g, false
	}
	g.presence = c.View.Presence(g.network.ID, c.Host.Name)
	g.host = c.View.GatewayHost(r.ID)
	g.here = g.host == c.Host.Name && g.presence != nil
	g.standby = g.presence != nil && c.View.MayHaveGateway(r.ID, c.Host.Name)
	g.smaller, g.mtu = narrowOf(c, r), gatewayMTU(c, r, g.network, widestOf(c.View, r))
	return g, true
}

// leaving matches what leaves the router by its gateway, or came in that way.
func leaving(r *network.Router, external *network.Network, terms ...flows.Term) flows.Match {
	return flows.NewMatch(append(terms, flows.Metadata.Is(uint64(r.Key)<<32|uint64(external.Key)), flows.IPv4)...)
}

// CompileRouter implements RouterFeature.
func (gatewayFeature) CompileRouter(c *Context, r *network.Router, transit *network.Presence) {
	g, ok := gatewayOf(c, r, transit)
	if !ok {
		return
	}
	way := compileTransit(c, g)
	compileGateway6(c, g, way)
	if g.standby {
		compileSNAT(c, g)
	}
	if g.here {
		compileGatewayAddress(c, g)
		return
	}
	if len(way) == 0 && g.presence == nil {
		return // no route: the sender is told
	}
	if len(way) == 0 {
		way = Drop(DropNoGateway)
	}
	c.Flow(GatewaySteer, natGateway, leaving(r, g.network), way...)
	compileGatewayRoutes(c, g)
}

// compileSNAT sends out what was steered here and, on the gateway's host, what
// was routed here.
func compileSNAT(c *Context, g gateway) {
	out := []flows.Action{flows.DecTTL(), To(Snat)}
	c.Flow(GatewaySteer, natTransit, leaving(g.router, g.network, RegFlags.Masked(flagFromTransit, flagFromTransit)), out...)
	if g.here {
		c.Flow(GatewaySteer, natGateway, leaving(g.router, g.network), out...)
	}
	compileGatewayRoutes(c, g)
	zone := c.View.Zone(network.RouterSNATZone(g.router.ID), c.Host.Name)
	ip := g.port.FirstIPv4()
	if g.router.EnableSNAT && ip.IsValid() && zone != 0 {
		translateSource(c, natGateway, leaving(g.router, g.network), g.port.MAC, zone, ip)
		return
	}
	c.Flow(Snat, natGateway, leaving(g.router, g.network), flows.SetMAC(flows.EthSrc, g.port.MAC), To(L2Lookup))
	if ip.IsValid() && zone != 0 {
		compileToFloating(c, g, zone, ip)
	}
}

// compileToFloating translates the sources of what goes to the router's own
// floating IPs, also where nothing else is translated: the way of a reply that
// is routed directly does not lead past the translation of its own address.
func compileToFloating(c *Context, g gateway, zone uint16, ip netip.Addr) {
	for f := range c.View.FloatingIPsOfRouter(g.router.ID) {
		if f.FloatingNetworkID == g.network.ID {
			translateSource(c, natToFloating, leaving(g.router, g.network, flows.IPv4Dst.IsIP(f.Address)), g.port.MAC, zone, ip)
		}
	}
}

// translateSource sends packets out with another source. Those that go around
// on this host are looked up again after it: they are translated once more, and
// ct_clear works on what came back from ct only.
func translateSource(c *Context, priority uint16, match flows.Match, mac network.MAC, zone uint16, ip netip.Addr) {
	translate := func(next uint8) flows.Action {
		return flows.CT(flows.CTSpec{Commit: true, Zone: zone, Table: next, NAT: &flows.NAT{Src: true, First: ip}})
	}
	c.Flow(Snat, priority, match, flows.SetMAC(flows.EthSrc, mac), translate(flows.TableNone), To(L2Lookup))
	around := flows.NewMatch(append(slices.Collect(match.Terms()), RegFlags.Masked(flagReenters, flagReenters))...)
	c.Flow(Snat, priority+1, around, flows.SetMAC(flows.EthSrc, mac), translate(L2Lookup.ID))
}

// compileGatewayRoutes routes by the gateway: to the subnets of the external
// network, by extra routes and by default.
func compileGatewayRoutes(c *Context, g gateway) {
	route := func(to netip.Prefix, connected bool, nextHop flows.Action) {
		actions := []flows.Action{flows.SetField(flows.InPort, 0), nextHop, setNetwork(g.network)}
		next := GatewaySteer
		if g.presence != nil {
			actions = append(actions, flows.SetField(RegLocalVLAN, uint64(g.presence.VLAN)))
			next = Neighbor
		}
		c.route(g.smaller, g.mtu, routePriority(to, connected), toPrefix(g.router, to), append(actions, To(next))...)
	}
	for s := range c.View.SubnetsOf(g.network.ID) {
		if s.IPVersion != 4 || insideToo(c.View, g.router, s.CIDR) {
			continue
		}
		route(s.CIDR, true, flows.Move(flows.IPv4Dst, RegNextHop))
		for _, extra := range extraRoutes(g.router) {
			if s.CIDR.Contains(extra.NextHop) {
				route(extra.Destination, false, flows.SetField(RegNextHop, ipv4Bits(extra.NextHop)))
			}
		}
	}
	if ip := defaultGateway(c.View, g); ip.IsValid() {
		route(netip.PrefixFrom(netip.IPv4Unspecified(), 0), false, flows.SetField(RegNextHop, ipv4Bits(ip)))
	}
	for _, f := range g.port.FixedIPs {
		if f.IP.Is4() {
			c.Flow(Route, routeOwn, leaving(g.router, g.network, flows.IPv4Dst.IsIP(f.IP)), Drop(DropNotTranslated)...)
		}
	}
}

// insideToo reports whether addresses of an external subnet are on a network
// inside the router too, which goes before: the subnet was made after both.
func insideToo(v *network.View, r *network.Router, external netip.Prefix) bool {
	for p := range v.InterfacesOf(r.ID) {
		for _, f := range p.FixedIPs {
			if s := v.Subnet(f.SubnetID); s != nil && s.CIDR.Overlaps(external) {
				return true
			}
		}
	}
	return false
}

// defaultGateway is the gateway of the external subnet in which the router has
// its first address, unless an extra route leads everywhere.
func defaultGateway(v *network.View, g gateway) netip.Addr {
	for _, extra := range g.router.Routes {
		if extra.Destination.Bits() == 0 && extra.NextHop.Is4() {
			return netip.Addr{}
		}
	}
	for _, f := range g.port.FixedIPs {
		if s := v.Subnet(f.SubnetID); s != nil && s.IPVersion == 4 && s.GatewayIP.IsValid() {
			return s.GatewayIP
		}
	}
	return netip.Addr{}
}

// compileGatewayAddress takes in what comes to the gateway's address: replies
// are translated back; what comes to other addresses is routed, and replies to
// it are not translated.
func compileGatewayAddress(c *Context, g gateway) {
	if g.port.FirstIPv4().IsValid() {
		admitExternal(c, g.router, g.network, g.port, g.smaller, UnNat)
	} else {
		c.Flow(RouterAdmit, admitRouted, flows.NewMatch(onNetwork(g.network), flows.EthDst.IsMAC(g.port.MAC), flows.IPv4), Drop(DropUnknownDestination)...)
	}
	zone := c.View.Zone(network.RouterSNATZone(g.router.ID), c.Host.Name)
	for _, f := range g.port.FixedIPs {
		if !f.IP.Is4() {
			continue
		}
		compileExternalPing(c, g.network, g.port, f.IP)
		if zone != 0 {
			c.Flow(UnNat, natFloating, leaving(g.router, g.network, flows.IPv4Dst.IsIP(f.IP)),
				flows.CT(flows.CTSpec{Zone: zone, Table: Route.ID, NAT: &flows.NAT{}}))
			compileLargeReplies(c, g, f.IP)
		}
	}
	if g.router.EnableSNAT && zone != 0 {
		c.Flow(UnNat, natGateway, leaving(g.router, g.network), flows.CT(flows.CTSpec{Commit: true, Zone: zone, Table: flows.TableNone}), To(Dnat))
	}
	compileWireAddress(c, g.network, g.presence, g.port)
}

// compileLargeReplies tells who replies to a gateway's address by too large
// packets. Only behind the translation it is known to which network they go, and
// there the sender's packet is not what it was: so the smallest MTU counts.
func compileLargeReplies(c *Context, g gateway, ip netip.Addr) {
	if len(g.smaller) == 0 {
		return
	}
	least := g.smaller[0]
	if larger, ok := g.smaller.exceeds(least); ok {
		c.Flow(UnNat, natFloating+1, leaving(g.router, g.network, flows.IPv4Dst.IsIP(ip), larger), tooBig(least)...)
	}
}

// admitExternal takes in what comes to a MAC on an external network that a
// router has here, and sends what this host itself has for it around.
func admitExternal(c *Context, r *network.Router, n *network.Network, p *network.Port, smaller narrow, next *Table) {
	toPort := func(terms ...flows.Term) flows.Match {
		return flows.NewMatch(append(terms, onNetwork(n), flows.EthDst.IsMAC(p.MAC))...)
	}
	for ttl := range uint64(2) {
		c.Flow(RouterAdmit, admitExpired, toPort(flows.IPv4, flows.IPTTL.Is(ttl)), setRouter(r), To(RouterICMP))
	}
	c.Flow(RouterAdmit, admitRouted, toPort(flows.IPv4), admit(r, smaller.measure(n.MTU), next)...)
	c.Flow(L2Lookup, 100, toPort(flows.IPv4),
		flows.CTClear(), flows.SetField(flows.InPort, 0), flows.SetField(RegFlags, 0), flows.SetField(RegMTU, 0), flows.SetField(RegSource, 0), flows.Resubmit(RouterAdmit.ID))
}

// compileWireAddress makes a provider bridge answer for a port's addresses and
// hand in what comes to its MAC.
func compileWireAddress(c *Context, n *network.Network, presence *network.Presence, p *network.Port) {
	w, ok := wireOf(c, n, presence)
	if !ok {
		return
	}
	for _, f := range p.FixedIPs {
		if f.IP.Is4() {
			c.ProviderFlow(w.bridge, WireArpNd, 100, w.here(flows.ARP, flows.ARPOp.Is(arpRequest), flows.ARPTPA.IsIP(f.IP)), answer(p.MAC, f.IP)...)
			compileHostQuestion(c, n, w, p.MAC, f.IP)
		}
	}
	c.ProviderFlow(w.bridge, WireAdmit, 100, w.here(flows.EthDst.IsMAC(p.MAC)), w.admit()...)
	w.claim(c, p.MAC)
}

// compileHostQuestion answers the host itself. In-band control of the provider
// bridge gives its ARP questions to NORMAL before any flow sees them (Open
// vSwitch, "Design Decisions": in-band control): a copy comes here, unmarked.
func compileHostQuestion(c *Context, n *network.Network, w wire, mac network.MAC, ip netip.Addr) {
	patch, ok := c.Patch(network.BridgeIntegration, w.bridge)
	if !ok {
		return
	}
	tag := uint64(0)
	if !w.flat {
		tag = vlanPresent | uint64(n.SegmentationID)
	}
	c.Flow(Classify, 110, flows.NewMatch(flows.InPort.Is(uint64(patch)), flows.VLANVID.Is(tag), flows.PktMark.Is(0),
		flows.ARP, flows.ARPOp.Is(arpRequest), flows.ARPTPA.IsIP(ip)), answer(mac, ip)...)
}
