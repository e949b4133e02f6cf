package pipeline

import (
	"net/netip"

	"planck/flows"
	"planck/network"
)

// IPv6 takes the same way to a router's gateway as IPv4, and is not translated:
// what comes to the gateway's MAC is routed, and the operator's routers have to
// know the way to it.

// routeOwn6 is above all routes of IPv6.
const routeOwn6 = 800

// admitSolicitation is above what goes to routers, since a question about an
// address may come to any MAC.
const admitSolicitation = 135

func firstIPv6(p *network.Port) netip.Addr {
	for _, f := range p.FixedIPs {
		if f.IP.Is6() {
			return f.IP
		}
	}
	return netip.Addr{}
}

func leaving6(g gateway, terms ...flows.Term) flows.Match {
	return flows.NewMatch(append(terms, flows.Metadata.Is(uint64(g.router.Key)<<32|uint64(g.network.Key)), flows.IPv6)...)
}

// compileGateway6 makes a router's gateway for IPv6; way leads to its host.
func compileGateway6(c *Context, g gateway, way []flows.Action) {
	if !firstIPv6(g.port).IsValid() {
		return
	}
	send := []flows.Action{flows.DecTTL(), To(Snat)}
	if g.standby {
		c.Flow(GatewaySteer, natTransit, leaving6(g, RegFlags.Masked(flagFromTransit, flagFromTransit)), send...)
		c.Flow(Snat, natGateway, leaving6(g), flows.SetMAC(flows.EthSrc, g.port.MAC), To(L2Lookup))
	}
	switch {
	case g.here:
		c.Flow(GatewaySteer, natGateway, leaving6(g), send...)
		compileGatewayAddress6(c, g)
	case len(way) > 0:
		c.Flow(GatewaySteer, natGateway, leaving6(g), way...)
	case g.presence == nil:
		return // no route: the sender is told
	default:
		c.Flow(GatewaySteer, natGateway, leaving6(g), Drop(DropNoGateway)...)
	}
	compileGatewayRoutes6(c, g)
}

// compileGatewayRoutes6 routes by the gateway: to the subnets of the external
// network, by extra routes and by default.
func compileGatewayRoutes6(c *Context, g gateway) {
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
		if s.IPVersion != 6 || insideToo(c.View, g.router, s.CIDR) {
			continue
		}
		route(s.CIDR, true, flows.Move(flows.IPv6Dst, RegNextHop6))
		for _, extra := range extraRoutes(g.router) {
			if s.CIDR.Contains(extra.NextHop) {
				route(extra.Destination, false, flows.SetIP(RegNextHop6, extra.NextHop))
			}
		}
	}
	if ip := defaultGateway6(c.View, g); ip.IsValid() {
		route(netip.PrefixFrom(netip.IPv6Unspecified(), 0), false, flows.SetIP(RegNextHop6, ip))
	}
	for _, f := range g.port.FixedIPs {
		if f.IP.Is6() {
			c.Flow(Route, routeOwn6, flows.NewMatch(onRouter(g.router), flows.IPv6, flows.IPv6Dst.IsIP(f.IP)), Drop(DropNotTranslated)...)
		}
	}
}

// defaultGateway6 is the gateway of the external subnet in which the router has
// its first IPv6 address, unless an extra route leads everywhere.
func defaultGateway6(v *network.View, g gateway) netip.Addr {
	for _, extra := range g.router.Routes {
		if extra.Destination.Bits() == 0 && extra.NextHop.Is6() {
			return netip.Addr{}
		}
	}
	for _, f := range g.port.FixedIPs {
		if s := v.Subnet(f.SubnetID); s != nil && s.IPVersion == 6 && s.GatewayIP.IsValid() {
			return s.GatewayIP
		}
	}
	return netip.Addr{}
}

// compileGatewayAddress6 takes in what comes to the gateway's MAC on its
// external network, and answers there for its addresses.
func compileGatewayAddress6(c *Context, g gateway) {
	toPort := func(terms ...flows.Term) flows.Match {
		return flows.NewMatch(append(terms, onNetwork(g.network), flows.EthDst.IsMAC(g.port.MAC), flows.IPv6)...)
	}
	addresses := []netip.Addr{g.port.MAC.LinkLocal()}
	for _, f := range g.port.FixedIPs {
		if f.IP.Is6() {
			addresses = append(addresses, f.IP)
		}
	}
	for _, a := range addresses {
		c.Flow(RouterAdmit, admitSolicitation, solicitation(g.network.Key, a, RegFlags.Masked(flagFromWire, flagFromWire)),
			append(advertise(g.port, a), flows.Resubmit(NdReply.ID))...)
		puntExternalPing6(c, toPort, a)
	}
	c.feature = FeatureNeighbor
	c.Flow(RouterAdmit, admitSolicitation, toPort(flows.ICMPv6, flows.ICMPv6Type.Is(icmpNeighborAdvertisement)), punt(c, meterNeighborAnswer)...)
	c.feature = FeatureGateway
	c.Flow(RouterAdmit, admitExpired+2, toPort(flows.IPv6Dst.InPrefix(linkLocalNet)), Drop(DropUnknownDestination)...)
	c.Flow(RouterAdmit, admitExpired+1, toPort(flows.IPv6Src.InPrefix(linkLocalNet)), Drop(DropNoRoute)...)
	for limit := range uint64(2) {
		c.Flow(RouterAdmit, admitExpired, toPort(flows.IPTTL.Is(limit)), setRouter(g.router), To(RouterICMP))
	}
	c.Flow(RouterAdmit, admitRouted, toPort(), admit(g.router, g.smaller.measure(g.network.MTU), Route)...)
	c.Flow(L2Lookup, 100, toPort(), flows.CTClear(), flows.SetField(flows.InPort, 0),
		flows.SetField(RegFlags, 0), flows.SetField(RegMTU, 0), flows.SetField(RegSource, 0), flows.Resubmit(RouterAdmit.ID))
}

// puntExternalPing6 lets the controller answer pings of a gateway's address that
// come from its external network.
func puntExternalPing6(c *Context, toPort func(...flows.Term) flows.Match, a netip.Addr) {
	c.feature = FeaturePing6
	c.Flow(RouterAdmit, admitPing, toPort(flows.IPv6Dst.IsIP(a), flows.ICMPv6, flows.ICMPv6Type.Is(icmp6EchoRequest)), punt(c, meterPing)...)
	c.feature = FeatureGateway
}

// compileExternalNeighbors6 gives the MACs of next hops on an external network
// that are none of our ports.
func compileExternalNeighbors6(c *Context, n *network.Network) {
	for e := range c.View.ExternalNeighborsOf(n.ID) {
		if mac, ok := c.View.ExternalNeighbor(n.ID, e.IP); ok && e.IP.Is6() {
			c.Flow(Neighbor, 100, flows.NewMatch(onNetwork(n), RegNextHop6.IsIP(e.IP)), flows.SetMAC(flows.EthDst, mac), To(GatewaySteer))
		}
	}
}
