package controller

import (
	"encoding/binary"
	"net/netip"

	"planck/network"
)

// question is the frame by which a gateway's address asks for the MAC of another.
func question(mac network.MAC, ip, about netip.Addr) []byte {
	if about.Is4() {
		var frame [arpLen]byte
		putARPRequest(&frame, mac, ip, about)
		return frame[:]
	}
	group := solicitedNode(about)
	frame := appendIPv6(make([]byte, 0, advertisementLen), groupMAC(group), mac, ip, group, protocolICMPv6, hopLimitLink)
	frame = append(frame, icmpNeighborSolicitation, 0, 0, 0, 0, 0, 0, 0)
	frame = appendAddress16(frame, about)
	frame = append(append(frame, optionSourceLinkLayer, 1), mac[:]...)
	finishIPv6(frame, icmpv6Checksum)
	return frame
}

// groupMAC is the Ethernet address of an IPv6 group (RFC 2464, 7).
func groupMAC(group netip.Addr) network.MAC {
	b := group.As16()
	return network.MAC{0x33, 0x33, b[12], b[13], b[14], b[15]}
}

// announcement is the frame that tells all of a network that an address is at a MAC.
func announcement(mac network.MAC, ip netip.Addr) []byte {
	if ip.Is4() {
		var frame [arpLen]byte
		putGratuitousARP(&frame, mac, ip)
		return frame[:]
	}
	frame := appendIPv6(make([]byte, 0, advertisementLen), allNodesMAC, mac, ip, allNodes, protocolICMPv6, hopLimitLink)
	frame = append(frame, icmpNeighborAdvertisement, 0, 0, 0)
	frame = binary.BigEndian.AppendUint32(frame, ndOverride|ndRouter)
	frame = appendAddress16(frame, ip)
	frame = append(append(frame, optionTargetLinkLayer, 1), mac[:]...)
	finishIPv6(frame, icmpv6Checksum)
	return frame
}

// parse6 reads a solicited neighbour advertisement (RFC 4861, 7.1.2); it returns
// why it is none, or "".
func (a *arpAnswer) parse6(frame []byte) string {
	var p ipv6Packet
	if reason := p.parse(frame); reason != "" {
		return reason
	}
	if p.protocol != protocolICMPv6 || len(p.payload) == 0 || p.payload[0] != icmpNeighborAdvertisement {
		return dropOtherType
	}
	if reason := p.icmpv6(ndOptions); reason != "" {
		return reason
	}
	flags := binary.BigEndian.Uint32(p.payload[4:])
	target, ok := ndOption(p.payload[ndOptions:], optionTargetLinkLayer)
	if !ok || p.payload[1] != 0 || p.hopLimit != hopLimitLink || flags&ndSolicited == 0 || len(target) != 6 || p.ethSrc[0]&1 != 0 {
		return dropMalformed
	}
	a.ethDst, a.tha, a.sha = p.ethDst, p.ethDst, network.MAC(target)
	a.spa, a.tpa = address16(p.payload[ndTarget:]), p.dst
	if a.sha == (network.MAC{}) || a.sha[0]&1 != 0 {
		return dropMalformed
	}
	return ""
}
