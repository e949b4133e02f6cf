package pipeline

import (
	"net/netip"

	"planck/flows"
	"planck/network"
)

// dhcpv6Feature sends the DHCPv6 requests of VMs to the controller, on networks
// that have a subnet with DHCPv6. On others they flood.
type dhcpv6Feature struct{}

func (dhcpv6Feature) ID() FeatureID { return FeatureDHCPv6 }
func (dhcpv6Feature) Name() string  { return "dhcpv6" }

// dhcpv6Servers is the group of all relay agents and servers (RFC 8415, 7.1).
var dhcpv6Servers = netip.MustParseAddr("ff02::1:2")

// CompileHost implements HostFeature.
func (dhcpv6Feature) CompileHost(c *Context) { puntMeter(c, meterDHCPv6) }

// CompileNetwork implements NetworkFeature.
func (dhcpv6Feature) CompileNetwork(c *Context, n *network.Network, _ *network.Presence) {
	for s := range c.View.SubnetsOf(n.ID) {
		if s.ServesDHCPv6() {
			c.Flow(Services, 100, flows.NewMatch(onNetwork(n), flows.IPv6, flows.IPv6Dst.IsIP(dhcpv6Servers), flows.UDP, flows.UDPDst.Is(udpDHCPv6Server)),
				punt(c, meterDHCPv6)...)
			return
		}
	}
}
