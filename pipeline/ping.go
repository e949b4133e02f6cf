package pipeline

import (
	"planck/flows"
	"planck/network"
)

// pingFeature sends pings of the addresses that Planck itself stands for to the
// controller: of DHCP servers, and of all addresses of a router, its gateway's
// too, from each of its networks.
type pingFeature struct{}

func (pingFeature) ID() FeatureID { return FeaturePing }
func (pingFeature) Name() string  { return "ping" }

const icmpEchoRequest = 8

// CompileHost implements HostFeature.
func (pingFeature) CompileHost(c *Context) { puntMeter(c, meterPing) }

// CompilePort implements PortFeature.
func (pingFeature) CompilePort(c *Context, p *PortContext) {
	if !p.Service() {
		return
	}
	puntPings(c, p, p.Port)
	if p.DeviceOwner != network.OwnerRouterInterface {
		return
	}
	for other := range c.View.InterfacesOf(p.DeviceID) {
		if other.ID != p.ID {
			puntPings(c, p, other)
		}
	}
	if r := c.View.Router(p.DeviceID); r != nil && r.GatewayPortID != "" {
		if gateway := c.View.Port(r.GatewayPortID); gateway != nil {
			puntPings(c, p, gateway)
		}
	}
}

// puntPings sends up what goes to the MAC of one port and an address of another.
func puntPings(c *Context, p *PortContext, addressed *network.Port) {
	for _, f := range addressed.FixedIPs {
		if f.IP.Is4() {
			c.Flow(Services, 100, flows.NewMatch(onNetwork(p.Network), flows.EthDst.IsMAC(p.MAC), flows.IPv4, flows.IPv4Dst.IsIP(f.IP),
				flows.ICMP, flows.ICMPType.Is(icmpEchoRequest)), punt(c, meterPing)...)
		}
	}
}
