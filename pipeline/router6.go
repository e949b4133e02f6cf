package pipeline

import (
	"net/netip"

	"planck/flows"
	"planck/network"
)

// router6Feature routes IPv6 as routerFeature does IPv4, with the next hop in
// xxreg3. There is no translation.
type router6Feature struct{}

func (router6Feature) ID() FeatureID { return FeatureRouter6 }
func (router6Feature) Name() string  { return "router6" }

var linkLocalNet = netip.MustParsePrefix("fe80::/10")

// CompileHost implements HostFeature.
func (router6Feature) CompileHost(c *Context) {
	c.Flow(RouterICMP, 10, flows.NewMatch(flows.IPv6), punt(c, meterRouter)...)
}

// CompilePort implements PortFeature.
func (router6Feature) CompilePort(c *Context, p *PortContext) {
	if !p.Up() || !hasIPv6(c.View, p.NetworkID) {
		return
	}
	if p.DeviceOwner == network.OwnerRouterInterface {
		compileInterface6(c, p)
	}
	if p.Network.External || routed(c.View, p.NetworkID) {
		compileNeighbor6(c, p)
	}
}

func compileInterface6(c *Context, p *PortContext) {
	r := c.View.Router(p.DeviceID)
	if r == nil || !r.AdminStateUp {
		return
	}
	toRouter := func(terms ...flows.Term) flows.Match {
		return flows.NewMatch(append(terms, onNetwork(p.Network), flows.EthDst.IsMAC(p.MAC), flows.IPv6)...)
	}
	// What has a link-local address stays on its link (RFC 4291, 2.5.6).
	c.Flow(RouterAdmit, admitExpired+2, toRouter(flows.IPv6Dst.InPrefix(linkLocalNet)), Drop(DropUnknownDestination)...)
	c.Flow(RouterAdmit, admitExpired+1, toRouter(flows.IPv6Src.InPrefix(linkLocalNet)), setRouter(r), To(RouterICMP))
	for limit := range uint64(2) {
		c.Flow(RouterAdmit, admitExpired, toRouter(flows.IPTTL.Is(limit)), setRouter(r), To(RouterICMP))
	}
	smaller := narrowOf(c, r)
	c.Flow(RouterAdmit, admitRouted, toRouter(), admit(r, smaller.measure(p.Network.MTU), Route)...)
	if joined(c.View, p) {
		c.readmit(r, p, flows.IPv6)
	}
	c.flags, c.object = FlagRouter, r.Key
	c.Flow(Route, 1, flows.NewMatch(onRouter(r), flows.IPv6), To(RouterICMP))
	c.flags, c.object = 0, p.Key
	for _, f := range p.FixedIPs {
		if s := c.View.Subnet(f.SubnetID); s != nil && s.IPVersion == 6 {
			compileRoutes6(c, p, r, s, smaller)
		}
	}
}

// compileRoutes6 makes the routes that leave a router through a subnet.
func compileRoutes6(c *Context, p *PortContext, r *network.Router, s *network.Subnet, smaller narrow) {
	c.route(smaller, p.Network.MTU, routePriority(s.CIDR, true), toPrefix(r, s.CIDR), out(c, p, flows.Move(flows.IPv6Dst, RegNextHop6))...)
	for _, route := range extraRoutes(r) {
		if s.CIDR.Contains(route.NextHop) {
			c.route(smaller, p.Network.MTU, routePriority(route.Destination, false), toPrefix(r, route.Destination), out(c, p, flows.SetIP(RegNextHop6, route.NextHop))...)
		}
	}
}

// compileNeighbor6 gives the MAC of an address on a network that is routed.
func compileNeighbor6(c *Context, p *PortContext) {
	next := L2Lookup
	if p.Network.External {
		next = GatewaySteer
	}
	for _, f := range p.FixedIPs {
		if f.IP.Is6() {
			c.Flow(Neighbor, 100, flows.NewMatch(onNetwork(p.Network), RegNextHop6.IsIP(f.IP)), flows.SetMAC(flows.EthDst, p.MAC), To(next))
		}
	}
}
