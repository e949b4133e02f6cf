package pipeline

import (
	"planck/flows"
	"planck/network"
)

// raFeature sends the router solicitations of VMs to the controller, on
// networks where a router advertises itself. On others they flood.
type raFeature struct{}

func (raFeature) ID() FeatureID { return FeatureRA }
func (raFeature) Name() string  { return "ra" }

const icmpRouterSolicitation = 133

// CompileHost implements HostFeature.
func (raFeature) CompileHost(c *Context) { puntMeter(c, meterRA) }

// CompileNetwork implements NetworkFeature.
func (raFeature) CompileNetwork(c *Context, n *network.Network, _ *network.Presence) {
	for p := range c.View.RouterPortsOf(n.ID) {
		if len(Advertised(c.View, p)) > 0 {
			c.Flow(Services, 100, flows.NewMatch(onNetwork(n), flows.IPv6, flows.ICMPv6, flows.ICMPv6Type.Is(icmpRouterSolicitation)), punt(c, meterRA)...)
			return
		}
	}
}

// Advertised are the subnets that a router advertises through an interface:
// those with an ipv6_ra_mode, while both are up.
func Advertised(v *network.View, p *network.Port) []*network.Subnet {
	r := v.Router(p.DeviceID)
	if r == nil || !r.AdminStateUp || !p.AdminStateUp {
		return nil
	}
	var subnets []*network.Subnet
	for _, f := range p.FixedIPs {
		if s := v.Subnet(f.SubnetID); s != nil && s.IPVersion == 6 && s.IPv6RAMode != "" {
			subnets = append(subnets, s)
		}
	}
	return subnets
}
