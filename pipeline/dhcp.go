package pipeline

import (
	"planck/flows"
	"planck/network"
)

// dhcpFeature sends the DHCPv4 requests of VMs to the controller, on networks
// that have a subnet with DHCP. On others they pass like any broadcast.
type dhcpFeature struct{}

func (dhcpFeature) ID() FeatureID { return FeatureDHCP }
func (dhcpFeature) Name() string  { return "dhcp" }

// CompileHost implements HostFeature.
func (dhcpFeature) CompileHost(c *Context) { puntMeter(c, meterDHCP) }

// CompileNetwork implements NetworkFeature.
func (dhcpFeature) CompileNetwork(c *Context, n *network.Network, _ *network.Presence) {
	for _, dst := range dhcpServers(c.View, n.ID) {
		c.Flow(Services, 100, flows.NewMatch(onNetwork(n), dst, flows.IPv4, flows.UDP, flows.UDPDst.Is(udpBootpServer)), punt(c, meterDHCP)...)
	}
}

// dhcpServers matches the destinations at which a network's DHCP server
// listens, none when it has no subnet with DHCP.
func dhcpServers(v *network.View, networkID string) []flows.Term {
	if !servesDHCPv4(v, networkID) {
		return nil
	}
	dsts := []flows.Term{flows.EthDst.IsMAC([6]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff})}
	for p := range v.ServicePortsOf(networkID) {
		if p.DeviceOwner == network.OwnerDHCP {
			dsts = append(dsts, flows.EthDst.IsMAC(p.MAC))
		}
	}
	return dsts
}

func servesDHCPv4(v *network.View, networkID string) bool {
	for s := range v.SubnetsOf(networkID) {
		if s.IPVersion == 4 && s.EnableDHCP {
			return true
		}
	}
	return false
}
