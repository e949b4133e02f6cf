package controller

import (
	"context"
	"encoding/binary"
	"net/netip"

	"planck/flows"
	"planck/network"
	"planck/pipeline"
)

// ND answers neighbour solicitations as ARP answers ARP questions (RFC 4861):
// about the addresses of the ports of a network and the link-local addresses
// that follow from their MACs.
type ND struct {
	cached  bool
	actions string // to the port that asked
}

// NewND makes the responder of pipeline.FeatureND for a mode of pipeline.Options.
func NewND(mode string) *ND {
	return &ND{
		cached:  mode != pipeline.ARPPacketIn && mode != pipeline.ARPProactive,
		actions: flows.ActionList(flows.Output(flows.PortInPort)),
	}
}

// Feature implements Responder.
func (*ND) Feature() pipeline.FeatureID { return pipeline.FeatureND }

const (
	icmpNeighborSolicitation  = 135
	icmpNeighborAdvertisement = 136
	// ndTarget is where the target of both stands, ndOptions what follows it.
	ndTarget, ndOptions = 8, 24

	optionSourceLinkLayer = 1
	optionTargetLinkLayer = 2

	ndRouter    = 1 << 31
	ndSolicited = 1 << 30
	ndOverride  = 1 << 29

	// advertisementLen is the length of the frame of an answer.
	advertisementLen = ethernetLen + ipv6Len + ndOptions + 8
)

// Respond implements Responder. What is not answered is noted as dropped with its reason.
func (a *ND) Respond(_ context.Context, in *PacketIn, out *Replies) error {
	var q ndQuestion
	if reason := q.parse(in.Data); reason != "" {
		out.Drop(reason)
		return nil
	}
	target, reason := findNDTarget(in, q.target)
	if reason != "" {
		out.Drop(reason)
		return nil
	}
	var frame [advertisementLen]byte
	out.PacketOut(in.InPort, a.actions, q.appendReply(frame[:0], target))
	if a.cached && !q.bare {
		out.Install(pipeline.NDReplyKey(in.NetworkKey(), q.target))
	}
	return nil
}

// findNDTarget finds the port that has the address asked about; it returns why
// the question has no answer, or "".
func findNDTarget(in *PacketIn, a netip.Addr) (*network.Port, string) {
	net := in.View.NetworkByKey(in.NetworkKey())
	sender := in.View.PortByKey(in.PortKey())
	if net == nil || sender == nil || sender.NetworkID != net.ID {
		return nil, dropUnknownPort
	}
	if portHasAddress(sender, a) || sender.MAC.LinkLocal() == a {
		return nil, dropOwnAddress
	}
	target := in.View.PortByIP(net.ID, a)
	if mac := network.MACOfLinkLocal(a); target == nil && mac != (network.MAC{}) {
		target = in.View.PortByMAC(net.ID, mac)
	}
	if target == nil {
		return nil, dropUnknownAddress
	}
	if isShared(in.View, target, a) || isPairMAC(in.View, net.ID, a) {
		return nil, dropSharedAddress
	}
	return target, ""
}

// isPairMAC reports whether a link-local address is that of a MAC which moves
// between ports.
func isPairMAC(view *network.View, networkID string, a netip.Addr) bool {
	for p := range view.PairPortsOf(networkID) {
		for _, pair := range p.AllowedAddressPairs {
			if pair.MAC != p.MAC && pair.MAC.LinkLocal() == a {
				return true
			}
		}
	}
	return false
}

// ndQuestion is a neighbour solicitation.
type ndQuestion struct {
	ethSrc network.MAC
	src    netip.Addr
	target netip.Addr
	// bare says that the asker gave no link-layer address: it probes whether
	// the address is free, or asks a neighbour that it knows.
	bare bool
}

// parse reads a frame; it returns why it is no valid question (RFC 4861, 7.1.1), or "".
func (q *ndQuestion) parse(frame []byte) string {
	var p ipv6Packet
	if reason := p.parse(frame); reason != "" {
		return reason
	}
	if reason := p.icmpv6(ndOptions); reason != "" {
		return reason
	}
	if p.payload[0] != icmpNeighborSolicitation {
		return dropOtherType
	}
	q.ethSrc, q.src, q.target = p.ethSrc, p.src, address16(p.payload[ndTarget:])
	source, ok := ndOption(p.payload[ndOptions:], optionSourceLinkLayer)
	if !ok || p.payload[1] != 0 || p.hopLimit != hopLimitLink || !unicast(q.target) || p.src.IsMulticast() {
		return dropMalformed
	}
	probe := p.src.IsUnspecified()
	if probe && (source != nil || p.dst != solicitedNode(q.target)) {
		return dropMalformed
	}
	q.bare = source == nil
	return ""
}

func unicast(a netip.Addr) bool { return !a.IsMulticast() && !a.IsUnspecified() && !a.IsLoopback() }

// solicitedNode is the group that an address listens to (RFC 4291, 2.7.1).
func solicitedNode(a netip.Addr) netip.Addr {
	b := a.As16()
	return netip.AddrFrom16([16]byte{0xff, 2, 11: 1, 12: 0xff, 13: b[13], 14: b[14], 15: b[15]})
}

// appendReply appends the answer: the address asked about is the target's. Who
// has no address yet is answered through the group of all nodes.
func (q *ndQuestion) appendReply(frame []byte, target *network.Port) []byte {
	flags := uint32(ndSolicited | ndOverride)
	dst, mac := q.src, q.ethSrc
	if q.src.IsUnspecified() {
		flags, dst, mac = ndOverride, allNodes, allNodesMAC
	}
	if target.DeviceOwner == network.OwnerRouterInterface || target.DeviceOwner == network.OwnerRouterGateway {
		flags |= ndRouter
	}
	frame = appendIPv6(frame, mac, target.MAC, q.target, dst, protocolICMPv6, hopLimitLink)
	frame = append(frame, icmpNeighborAdvertisement, 0, 0, 0)
	frame = binary.BigEndian.AppendUint32(frame, flags)
	frame = appendAddress16(frame, q.target)
	frame = append(frame, optionTargetLinkLayer, 1)
	frame = append(frame, target.MAC[:]...)
	finishIPv6(frame, icmpv6Checksum)
	return frame
}
