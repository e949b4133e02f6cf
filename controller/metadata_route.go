package controller

import (
	"net/netip"

	"planck/network"
	"planck/pipeline"
)

var metadataPrefix = netip.PrefixFrom(pipeline.MetadataAddress, 32)

// appendMetadataRoute appends the route to the metadata service, as Neutron has
// it: through the gateway where that is a router of ours, else through the DHCP
// server's own address. A host route of the subnet goes before.
func appendMetadataRoute(b []byte, view *network.View, lease *dhcpLease) []byte {
	subnet := lease.subnet
	for _, r := range subnet.HostRoutes {
		if r.Destination == metadataPrefix {
			return b
		}
	}
	hop := lease.server
	if subnet.GatewayIP.Is4() && routedBy(view, subnet) {
		hop = subnet.GatewayIP
	}
	return appendRoute(b, metadataPrefix, hop)
}

// routedBy reports whether the gateway of a subnet is a router's port.
func routedBy(view *network.View, subnet *network.Subnet) bool {
	p := view.PortByIP(subnet.NetworkID, subnet.GatewayIP)
	return p != nil && p.DeviceOwner == network.OwnerRouterInterface
}
