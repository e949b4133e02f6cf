package pipeline

import (
	"net/netip"

	"planck/flows"
	"planck/network"
)

// ping6Feature sends pings by IPv6 to the controller, of the addresses that
// pingFeature answers for and of the link-local addresses of those ports, as far
// as the security groups of the sender allow them.
type ping6Feature struct{}

func (ping6Feature) ID() FeatureID { return FeaturePing6 }
func (ping6Feature) Name() string  { return "ping6" }

const icmp6EchoRequest = 128

// CompileHost implements HostFeature.
func (ping6Feature) CompileHost(c *Context) { puntMeter(c, meterPing) }

// CompilePort implements PortFeature.
func (ping6Feature) CompilePort(c *Context, p *PortContext) {
	if !standsFor(c.View, p) || !hasIPv6(c.View, p.NetworkID) {
		return
	}
	puntPing6(c, p, p.MAC.LinkLocal())
	puntPings6(c, p, p.Port)
	if p.DeviceOwner != network.OwnerRouterInterface {
		return
	}
	for other := range c.View.InterfacesOf(p.DeviceID) {
		if other.ID != p.ID {
			puntPings6(c, p, other)
		}
	}
	if r := c.View.Router(p.DeviceID); r != nil && r.GatewayPortID != "" {
		if gateway := c.View.Port(r.GatewayPortID); gateway != nil {
			puntPings6(c, p, gateway)
		}
	}
}

// puntPings6 sends up what goes to the MAC of one port and an address of another.
func puntPings6(c *Context, p *PortContext, addressed *network.Port) {
	for _, f := range addressed.FixedIPs {
		if f.IP.Is6() {
			puntPing6(c, p, f.IP)
		}
	}
}

func puntPing6(c *Context, p *PortContext, ip netip.Addr) {
	c.Flow(RouterAdmit, admitLocalPing, flows.NewMatch(append(fromLocal(p.Network), flows.EthDst.IsMAC(p.MAC), flows.IPv6, flows.IPv6Dst.IsIP(ip),
		flows.ICMPv6, flows.ICMPv6Type.Is(icmp6EchoRequest))...), punt(c, meterPing)...)
}
