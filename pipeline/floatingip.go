package pipeline

import (
	"planck/flows"
	"planck/network"
)

// floatingFeature translates floating IPs on the host where they live: source
// addresses of what leaves the router, destinations of what comes in (DESIGN 2.4).
type floatingFeature struct{}

func (floatingFeature) ID() FeatureID { return FeatureFloatingIP }
func (floatingFeature) Name() string  { return "floating-ip" }

// CompileFloatingIP implements FloatingFeature.
func (floatingFeature) CompileFloatingIP(c *Context, f *network.FloatingIP) {
	r, p := c.View.Router(f.RouterID), c.View.Port(f.FloatingPortID)
	n := c.Network(f.FloatingNetworkID)
	if r == nil || p == nil || n == nil || !r.AdminStateUp || !n.AdminStateUp {
		return
	}
	presence := c.View.Presence(n.ID, c.Host.Name)
	zone := c.View.Zone(network.RouterDNATZone(r.ID), c.Host.Name)
	if presence == nil || zone == 0 {
		return
	}
	smaller := narrowOf(c, r)
	admitExternal(c, r, n, p, smaller, Dnat)
	compileLargeToFloating(c, r, f, smaller)
	c.Flow(Dnat, natFloating, leaving(r, n, flows.IPv4Dst.IsIP(f.Address)),
		flows.CT(flows.CTSpec{Commit: true, Zone: zone, Table: Route.ID, NAT: &flows.NAT{Dst: true, First: f.FixedIP}}))
	c.Flow(GatewaySteer, natFloating, leaving(r, n, flows.IPv4Src.IsIP(f.FixedIP)), flows.DecTTL(), To(Snat))
	translateSource(c, natFloating, leaving(r, n, flows.IPv4Src.IsIP(f.FixedIP)), p.MAC, zone, f.Address)
	compileWireAddress(c, n, presence, p)
}

// compileLargeToFloating tells who sends to a floating IP what is too large for
// the network of the fixed address, while it is as it was sent.
func compileLargeToFloating(c *Context, r *network.Router, f *network.FloatingIP, smaller narrow) {
	p, external := c.View.Port(f.PortID), c.Network(f.FloatingNetworkID)
	if p == nil {
		return
	}
	n := c.Network(p.NetworkID)
	if larger, ok := smaller.exceeds(n.MTU); ok {
		c.Flow(Dnat, natFloating+1, leaving(r, external, flows.IPv4Dst.IsIP(f.Address), larger), tooBig(n.MTU)...)
	}
}
