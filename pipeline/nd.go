package pipeline

import (
	"net/netip"

	"planck/flows"
	"planck/network"
)

// ndFeature answers neighbour solicitations of VMs as arpFeature does ARP
// questions, on networks with an IPv6 subnet. On others they flood.
type ndFeature struct{}

func (ndFeature) ID() FeatureID { return FeatureND }
func (ndFeature) Name() string  { return "nd" }

const (
	icmpNeighborSolicitation = 135
	optionTargetLinkLayer    = 2
	// Flags of a neighbour advertisement (RFC 4861, 4.4).
	ndRouter    = 1 << 31
	ndSolicited = 1 << 30
	ndOverride  = 1 << 29
)

// CompileHost implements HostFeature. An action writes an option's address only
// where the flow matches on an advertisement: so the last step is in a table of
// its own. A solicitation without a link-layer address has no room for one in
// the answer, and one from no address is answered to all nodes: the controller
// does both.
func (ndFeature) CompileHost(c *Context) {
	puntMeter(c, meterND)
	bare := flows.SetMasked(RegFlags, flagBareSolicitation, flagBareSolicitation)
	c.Flow(Services, 51, flows.NewMatch(solicits, flows.IPv6, flows.ICMPv6, flows.IPv6Src.IsIP(netip.IPv6Unspecified())), bare, To(ArpNd))
	c.Flow(Services, 50, flows.NewMatch(solicits, flows.IPv6, flows.ICMPv6, flows.NDSLL.IsMAC(network.MAC{})), bare, To(ArpNd))
	c.Flow(NdReply, 100, flows.NewMatch(flows.IPv6, flows.ICMPv6, flows.ICMPv6Type.Is(icmpNeighborAdvertisement)),
		flows.Move(flows.EthSrc, flows.NDTLL), flows.Output(flows.PortInPort))
	c.Flow(NdReply, 110, flows.NewMatch(flows.IPv6, flows.ICMPv6, flows.ICMPv6Type.Is(icmpNeighborAdvertisement), RegFlags.Masked(flagFromWire, flagFromWire)),
		flows.Move(flows.EthSrc, flows.NDTLL), flows.PushVLAN(), flows.MoveBits(RegLocalVLAN, 0, flows.VLANVID, 0, 12), flows.Output(flows.PortInPort))
}

var solicits = flows.ICMPv6Type.Is(icmpNeighborSolicitation)

// CompileNetwork implements NetworkFeature.
func (ndFeature) CompileNetwork(c *Context, n *network.Network, _ *network.Presence) {
	if !hasIPv6(c.View, n.ID) {
		return
	}
	for p := range c.View.PairPortsOf(n.ID) {
		for _, pair := range p.AllowedAddressPairs {
			if pair.IP.IsSingleIP() && pair.IP.Addr().Is6() {
				c.Flow(ArpNd, arpPair, solicitation(n.Key, pair.IP.Addr()), To(EgressCt))
			}
			if pair.MAC != p.MAC {
				c.Flow(ArpNd, arpPair, solicitation(n.Key, pair.MAC.LinkLocal()), To(EgressCt))
			}
		}
	}
	if !open(c.View, n) {
		c.Flow(ArpNd, arpAny, flows.NewMatch(onNetwork(n), flows.IPv6, flows.ICMPv6, solicits), punt(c, meterND)...)
	}
}

// CompilePort implements PortFeature.
func (ndFeature) CompilePort(c *Context, p *PortContext) {
	if !hasIPv6(c.View, p.NetworkID) {
		return
	}
	compileNDAddress(c, p, p.MAC.LinkLocal())
	for _, f := range p.FixedIPs {
		if f.IP.Is6() {
			compileNDAddress(c, p, f.IP)
		}
	}
}

func compileNDAddress(c *Context, p *PortContext, ip netip.Addr) {
	if p.VIF != nil {
		c.Flow(ArpNd, arpOwn, flows.NewMatch(RegSource.Is(uint64(p.Key)), flows.IPv6, flows.ICMPv6, solicits, flows.NDTarget.IsIP(ip)), To(EgressCt))
	}
	if reserved(c.View, p, ip) {
		c.Flow(ArpNd, arpReserved, solicitation(p.Network.Key, ip), To(EgressCt))
		return
	}
	reply := NDReplyKey(p.Network.Key, ip).Match
	switch {
	case c.Options.ARPMode == ARPPacketIn:
	case c.Options.ARPMode == ARPProactive, advertisesFrom(c.View, p, ip):
		c.Flow(ArpNd, arpReply, reply, append(advertise(p.Port, ip), To(NdReply))...)
	default:
		c.Permit(ArpNd, arpReply, reply, append(advertise(p.Port, ip), To(NdReply))...)
	}
	if open(c.View, p.Network) {
		c.Flow(ArpNd, arpAddress, solicitation(p.Network.Key, ip), punt(c, meterND)...)
	}
}

// advertisesFrom reports whether a router advertises itself from an address: who
// learnt of it that way never asked, so that no reply was cached, and must find
// it again without a controller.
func advertisesFrom(v *network.View, p *PortContext, ip netip.Addr) bool {
	return p.DeviceOwner == network.OwnerRouterInterface && ip == p.MAC.LinkLocal() && len(Advertised(v, p.Port)) > 0
}

// hasIPv6 reports whether a network has an IPv6 subnet.
func hasIPv6(v *network.View, networkID string) bool {
	for s := range v.SubnetsOf(networkID) {
		if s.IPVersion == 6 {
			return true
		}
	}
	return false
}

// NDReplyKey is the key of the reply flow for an address of a network.
func NDReplyKey(networkKey uint32, ip netip.Addr) flows.Key {
	return flows.Key{Table: ArpNd.ID, Priority: arpReply, Match: solicitation(networkKey, ip,
		flows.ICMPv6Code.Is(0), RegFlags.Masked(0, flagBareSolicitation))}
}

func solicitation(networkKey uint32, ip netip.Addr, terms ...flows.Term) flows.Match {
	return flows.NewMatch(append(terms, flows.Metadata.Masked(uint64(networkKey), allBits), flows.IPv6, flows.ICMPv6, solicits, flows.NDTarget.IsIP(ip))...)
}

// advertise makes the answer of a question, but for the link-layer address in
// it, which NdReply writes.
func advertise(p *network.Port, ip netip.Addr) []flows.Action {
	flags := uint64(ndSolicited | ndOverride)
	if p.DeviceOwner == network.OwnerRouterInterface || p.DeviceOwner == network.OwnerRouterGateway {
		flags |= ndRouter
	}
	return []flows.Action{
		flows.Move(flows.EthSrc, flows.EthDst),
		flows.SetMAC(flows.EthSrc, p.MAC),
		flows.Move(flows.IPv6Src, flows.IPv6Dst),
		flows.SetIP(flows.IPv6Src, ip),
		flows.SetField(flows.ICMPv6Type, icmpNeighborAdvertisement),
		flows.SetField(flows.NDReserved, flags),
		flows.SetField(flows.NDOptionsType, optionTargetLinkLayer),
	}
}
