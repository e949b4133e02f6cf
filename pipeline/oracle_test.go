package pipeline

import (
	"net/netip"
	"slices"

	"planck/network"
)

// oracle says who gets a packet, by what Neutron's API promises about networks,
// subnets, ports, address pairs, routers and floating IPs. It knows nothing of
// hosts, flows or how Planck goes about it, but whether a port is plugged, and
// whether anything leads to an external network at all.
type oracle struct {
	view      *network.View
	outsiders []outsider
	said      map[addressOn]announced
	crossed   int      // routers so far
	overheard []string // who may get a copy besides, as a neighbour on the same link
	held      bool     // whether a port's word decided where it goes
}

// addressOn is an address of a network.
type addressOn struct {
	networkID string
	ip        netip.Addr
}

// announced is which port was the last to say by ARP that it has an address, and
// at which MAC.
type announced struct {
	portID string
	mac    network.MAC
}

// maxRouters ends routes that lead in circles, as the TTL does.
const maxRouters = 30

// sent is who gets what a VM sends.
func (o *oracle) sent(p *network.Port, f frame) []string {
	if !o.works(p) || !maySendFrom(p, f.src, f.ethSrc) || !o.passes(p) || f.ethDst == p.MAC {
		return nil // a link gives nothing back
	}
	reached := o.onNetwork(o.view.Network(p.NetworkID), f)
	if o.crossed == 0 {
		reached = slices.DeleteFunc(reached, func(r string) bool { return r == delivered(p.ID, f.src, f.dst) })
	}
	return reached
}

// maySendFrom is what port security says of a source.
func maySendFrom(p *network.Port, ip netip.Addr, mac network.MAC) bool {
	if !p.PortSecurityEnabled || mac == p.MAC && slices.ContainsFunc(p.FixedIPs, func(own network.FixedIP) bool { return own.IP == ip }) {
		return true
	}
	return slices.ContainsFunc(p.AllowedAddressPairs, func(pair network.AddressPair) bool { return pair.MAC == mac && pair.IP.Contains(ip) })
}

// passes reports whether anything passes a port: without port security all does,
// else what its groups allow.
func (o *oracle) passes(p *network.Port) bool {
	return !p.PortSecurityEnabled || len(p.SecurityGroups) > 0
}

// mayHold reports whether what a port says of an address counts: it may send from
// it, and takes it from no port that uses it, unless its pair names just this one.
func (o *oracle) mayHold(p *network.Port, ip netip.Addr, mac network.MAC) bool {
	if p == nil || !p.AdminStateUp || !o.plugged(p) || !maySendFrom(p, ip, mac) {
		return false
	}
	owner := o.view.PortByIP(p.NetworkID, ip)
	if owner == nil {
		return slices.ContainsFunc(slices.Collect(o.view.SubnetsOf(p.NetworkID)), func(s *network.Subnet) bool { return s.CIDR.Contains(ip) })
	}
	if owner.ID == p.ID {
		return true
	}
	if owner.Service() || !o.plugged(owner) {
		return !owner.Service()
	}
	return slices.ContainsFunc(p.AllowedAddressPairs, func(pair network.AddressPair) bool { return pair.IP.IsSingleIP() && pair.IP.Addr() == ip })
}

func (o *oracle) plugged(p *network.Port) bool {
	return p.Binding.VIFType == network.VIFTypeOVS && o.view.VIF(p.ID, p.Binding.Host) != nil
}

// works reports whether a VM's port can send and receive.
func (o *oracle) works(p *network.Port) bool {
	return p.AdminStateUp && o.view.Network(p.NetworkID).AdminStateUp && o.plugged(p)
}

// onNetwork is who gets a frame that is on a network: whose MAC it is for.
func (o *oracle) onNetwork(n *network.Network, f frame) []string {
	if !n.AdminStateUp {
		return nil
	}
	everybody, promiscuous := o.linkOf(n, f)
	for _, out := range o.outsiders {
		if out.network == n.ID && out.mac == f.ethDst && len(o.reaching(n)) > 0 {
			o.overheard = append(o.overheard, promiscuous...)
			return []string{delivered("outside "+n.ID, f.src, f.dst)}
		}
	}
	p := o.view.PortByMAC(n.ID, f.ethDst)
	if p != nil && !p.Service() && o.works(p) {
		return o.takenBy(p, f)
	}
	if p == nil && o.pairMAC(n, f.ethDst) {
		o.overheard = append(o.overheard, everybody...)
		return o.holding(n, f)
	}
	if p == nil {
		return promiscuous // nobody's MAC
	}
	if n.External {
		o.overheard = append(o.overheard, promiscuous...)
	}
	if !p.Service() {
		return promiscuous // nobody uses it now
	}
	if !p.AdminStateUp || f.dst.Is4() && !p.FirstIPv4().IsValid() {
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
	}
	return nil
}

func (o *oracle) takenBy(p *network.Port, f frame) []string {
	if !o.works(p) || !o.passes(p) {
		return nil
	}
	return []string{delivered(p.ID, f.src, f.dst)}
}

// linkOf is who sees a frame that floods on a network: all VMs there, and those of
// them that take frames for any MAC, since their ports have no port security.
func (o *oracle) linkOf(n *network.Network, f frame) (everybody, promiscuous []string) {
	for _, p := range sortedPorts(o.view.PortsOf(n.ID)) {
		if p.Service() {
			continue
		}
		everybody = append(everybody, o.takenBy(p, f)...)
		if !p.PortSecurityEnabled {
			promiscuous = append(promiscuous, o.takenBy(p, f)...)
		}
	}
	slices.Sort(promiscuous)
	return everybody, promiscuous
}

// pairMAC reports whether a MAC is one that moves between ports of a network.
func (o *oracle) pairMAC(n *network.Network, mac network.MAC) bool {
	for p := range o.view.PortsOf(n.ID) {
		if slices.ContainsFunc(p.AllowedAddressPairs, func(pair network.AddressPair) bool { return pair.MAC == mac }) {
			return true
		}
	}
	return false
}

// holding is who has a MAC that moves between ports: who said so.
func (o *oracle) holding(n *network.Network, f frame) (reached []string) {
	for at, by := range o.said {
		p := o.view.Port(by.portID)
		if at.networkID == n.ID && by.mac == f.ethDst && o.mayHold(p, at.ip, by.mac) {
			reached = append(reached, o.takenBy(p, f)...)
		}
	}
	slices.Sort(reached)
	return slices.Compact(reached)
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

// macOf resolves an address on a network: the last one to say that it has it, else
// the port that has it, if that can answer.
func (o *oracle) macOf(n *network.Network, ip netip.Addr) (network.MAC, bool) {
	if by, ok := o.said[addressOn{n.ID, ip}]; ok && !n.External && o.mayHold(o.view.Port(by.portID), ip, by.mac) {
		o.held = true
		return by.mac, true
	}
	if p := o.view.PortByIP(n.ID, ip); p != nil {
		return p.MAC, p.Service() || o.works(p)
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
