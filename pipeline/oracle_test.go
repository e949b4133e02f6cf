package pipeline

import (
	"net/netip"
	"slices"

	"planck/network"
)

// oracle says who gets a packet, by what Neutron's API promises about networks,
// subnets, ports, routers and floating IPs. It knows nothing of hosts, flows or
// how Planck goes about it, but whether a port is plugged, and whether anything
// leads to an external network at all.
type oracle struct {
	view      *network.View
	outsiders []outsider
	crossed   int // routers so far
}

// maxRouters ends routes that lead in circles, as the TTL does.
const maxRouters = 30

// sent is who gets what a VM sends.
func (o *oracle) sent(p *network.Port, f frame) []string {
	if !o.works(p) || f.ethSrc != p.MAC || !slices.ContainsFunc(p.FixedIPs, func(own network.FixedIP) bool { return own.IP == f.src }) {
		return nil
	}
	if len(p.SecurityGroups) == 0 || f.ethDst == p.MAC {
		return nil // nothing is allowed; a link gives nothing back
	}
	return o.onNetwork(o.view.Network(p.NetworkID), f)
}

// works reports whether a VM's port can send and receive.
func (o *oracle) works(p *network.Port) bool {
	return p.AdminStateUp && o.view.Network(p.NetworkID).AdminStateUp && p.Binding.VIFType == network.VIFTypeOVS && o.view.VIF(p.ID, p.Binding.Host) != nil
}

// onNetwork is who gets a frame that is on a network: whose MAC it is for.
func (o *oracle) onNetwork(n *network.Network, f frame) []string {
	if !n.AdminStateUp {
		return nil
	}
	for _, out := range o.outsiders {
		if out.network == n.ID && out.mac == f.ethDst && len(o.reaching(n)) > 0 {
			return []string{delivered("outside "+n.ID, f.src, f.dst)}
		}
	}
	p := o.view.PortByMAC(n.ID, f.ethDst)
	if p == nil || !p.AdminStateUp {
		return nil
	}
	if p.Service() && f.dst.Is4() && !firstIPv4(p).IsValid() {
		return nil
	}
	switch p.DeviceOwner {
	case network.OwnerRouterInterface:
		return o.routed(o.view.Router(p.DeviceID), n, f)
	case network.OwnerRouterGateway:
		return o.enters(o.view.Router(p.DeviceID), n, f)
	case network.OwnerFloatingIP:
		floating := o.view.FloatingIP(p.DeviceID)
		if floating.PortID == "" {
			return nil
		}
		return o.enters(o.view.Router(floating.RouterID), n, f)
	case network.OwnerDHCP:
		return nil
	}
	if !o.works(p) || len(p.SecurityGroups) == 0 {
		return nil
	}
	return []string{delivered(p.ID, f.src, f.dst)}
}

// enters is a packet that comes to a router from its external network.
func (o *oracle) enters(r *network.Router, n *network.Network, f frame) []string {
	for floating := range o.view.FloatingIPsOfRouter(r.ID) {
		if floating.Address == f.dst && floating.FloatingNetworkID == n.ID {
			f.dst = floating.FixedIP
		}
	}
	return o.routed(r, n, f)
}

// hop is where a router sends a packet: to a next hop on a network.
type hop struct {
	port    *network.Port // of the router
	nextHop netip.Addr
	bits    int // of the prefix
}

// routed is a packet that a router got from a network.
func (o *oracle) routed(r *network.Router, from *network.Network, f frame) []string {
	if o.crossed++; r == nil || !r.AdminStateUp || o.crossed > maxRouters {
		return nil
	}
	best := hop{bits: -1}
	for p := range o.view.PortsOfDevice(r.ID) {
		for _, own := range p.FixedIPs {
			if own.IP == f.dst {
				return nil // for the router itself, which does not speak UDP
			}
		}
		best = o.better(best, o.hopBy(r, p, f.dst))
	}
	if best.port == nil {
		return nil
	}
	n := o.view.Network(best.port.NetworkID)
	if !n.AdminStateUp {
		return nil
	}
	f.ethSrc = best.port.MAC
	if best.port.DeviceOwner == network.OwnerRouterGateway {
		if len(o.reaching(n)) == 0 {
			return nil
		}
		f.src = o.leavesAs(r, n, f)
	}
	mac, ok := o.macOf(n, best.nextHop)
	if !ok {
		return nil
	}
	f.ethDst = mac
	return o.onNetwork(n, f)
}

func (o *oracle) better(a, b hop) hop {
	if b.port != nil && b.bits > a.bits {
		return b
	}
	return a
}

// hopBy is the best way to a destination that leads through a port of a router.
func (o *oracle) hopBy(r *network.Router, p *network.Port, dst netip.Addr) hop {
	best := hop{bits: -1}
	through := []*network.Subnet{}
	for _, own := range p.FixedIPs {
		through = append(through, o.view.Subnet(own.SubnetID))
	}
	external := p.DeviceOwner == network.OwnerRouterGateway
	if external {
		through = slices.Collect(o.view.SubnetsOf(p.NetworkID))
	}
	for _, s := range through {
		if s.CIDR.Contains(dst) {
			best = o.better(best, hop{p, dst, s.CIDR.Bits()})
		}
		for _, route := range r.Routes {
			if route.Destination.Contains(dst) && s.CIDR.Contains(route.NextHop) {
				best = o.better(best, hop{p, route.NextHop, route.Destination.Bits()})
			}
		}
	}
	if !external {
		return best
	}
	for _, own := range p.FixedIPs {
		if gateway := o.view.Subnet(own.SubnetID).GatewayIP; gateway.IsValid() && gateway.Is4() == dst.Is4() {
			best = o.better(best, hop{p, gateway, 0})
		}
	}
	return best
}

// leavesAs is the source that a packet has outside: of the floating IP for its
// address, or of the router where it hides its networks or the reply would not
// come by it again.
func (o *oracle) leavesAs(r *network.Router, n *network.Network, f frame) netip.Addr {
	if f.src.Is6() {
		return f.src
	}
	hides := r.EnableSNAT
	for floating := range o.view.FloatingIPsOfRouter(r.ID) {
		if floating.FloatingNetworkID != n.ID {
			continue
		}
		if floating.FixedIP == f.src {
			return floating.Address
		}
		hides = hides || floating.Address == f.dst
	}
	for _, own := range o.view.Port(r.GatewayPortID).FixedIPs {
		if own.IP.Is4() && hides {
			return own.IP
		}
	}
	return f.src
}

// macOf resolves an address on a network.
func (o *oracle) macOf(n *network.Network, ip netip.Addr) (network.MAC, bool) {
	if p := o.view.PortByIP(n.ID, ip); p != nil {
		return p.MAC, true
	}
	return o.view.ExternalNeighbor(n.ID, ip)
}

// reaching are the hosts that have a way to an external network.
func (o *oracle) reaching(n *network.Network) (hosts []string) {
	for h := range o.view.Hosts() {
		if _, ok := h.BridgeMappings[n.PhysicalNetwork]; ok {
			hosts = append(hosts, h.Name)
		}
	}
	return hosts
}
