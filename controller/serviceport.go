package controller

import (
	"net/netip"

	"planck/network"
)

// servicePort is the port of a network with this MAC that Planck itself stands for, or nil.
func servicePort(v *network.View, networkID string, mac network.MAC) *network.Port {
	for p := range v.ServicePortsOf(networkID) {
		if p.MAC == mac {
			return p
		}
	}
	return nil
}

// gatewayPort is the port of a router on its external network, or nil.
func gatewayPort(v *network.View, routerID string) *network.Port {
	r := v.Router(routerID)
	if r == nil || r.GatewayPortID == "" {
		return nil
	}
	return v.Port(r.GatewayPortID)
}

// standsFor reports whether an address is the port's own, or another one of its router.
func standsFor(v *network.View, p *network.Port, a netip.Addr) bool {
	if portHasAddress(p, a) {
		return true
	}
	if p.DeviceOwner != network.OwnerRouterInterface {
		return false
	}
	for other := range v.InterfacesOf(p.DeviceID) {
		if portHasAddress(other, a) {
			return true
		}
	}
	gateway := gatewayPort(v, p.DeviceID)
	return gateway != nil && portHasAddress(gateway, a)
}

const (
	icmpEchoRequest = 8
	icmpEchoReply   = 0
)
