package controller

import (
	"encoding/binary"
	"net/netip"

	"planck/network"
)

const (
	ipv6Len        = 40
	etherTypeIPv6  = 0x86dd
	protocolICMPv6 = 58
	// hopLimitLink is the hop limit of what must come from the link itself (RFC 4861).
	hopLimitLink = 255
)

var (
	allNodes    = netip.MustParseAddr("ff02::1")
	allNodesMAC = network.MAC{0x33, 0x33, 0, 0, 0, 1}
)

// ipv6Packet is a whole IPv6 packet in an Ethernet frame, without extension
// headers. Its slices alias the frame.
type ipv6Packet struct {
	ethDst, ethSrc network.MAC
	src, dst       netip.Addr
	protocol       byte
	hopLimit       byte
	packet         []byte // with its header
	payload        []byte
}

// parse reads an untagged frame; it returns why it could not, or "".
func (p *ipv6Packet) parse(frame []byte) string {
	if len(frame) < ethernetLen+ipv6Len {
		return dropTruncated
	}
	switch binary.BigEndian.Uint16(frame[12:]) {
	case etherTypeIPv6:
	case etherTypeVLAN, etherTypeQinQ:
		return dropTagged
	default:
		return dropOtherType
	}
	ip := frame[ethernetLen:]
	if ip[0]>>4 != 6 {
		return dropMalformed
	}
	length := ipv6Len + int(binary.BigEndian.Uint16(ip[4:]))
	if len(ip) < length {
		return dropTruncated
	}
	p.ethDst, p.ethSrc = network.MAC(frame[0:6]), network.MAC(frame[6:12])
	p.protocol, p.hopLimit = ip[6], ip[7]
	p.src, p.dst = address16(ip[8:]), address16(ip[24:])
	p.packet, p.payload = ip[:length], ip[ipv6Len:length]
	return ""
}

func address16(b []byte) netip.Addr { return netip.AddrFrom16([16]byte(b[:16])) }

// icmpv6 checks that the payload is an ICMPv6 message of at least size bytes; it
// returns why it is not, or "".
func (p *ipv6Packet) icmpv6(size int) string {
	if p.protocol != protocolICMPv6 {
		return dropOtherType
	}
	if len(p.payload) < size {
		return dropTruncated
	}
	if checksum(pseudoSum(p.src, p.dst, protocolICMPv6, len(p.payload)), p.payload) != 0 {
		return dropMalformed
	}
	return ""
}

// pseudoSum is the partial checksum of IPv6's pseudo-header (RFC 8200, 8.1).
func pseudoSum(src, dst netip.Addr, protocol byte, length int) uint32 {
	s, d := src.As16(), dst.As16()
	return onesSum(onesSum(uint32(protocol)+uint32(length), s[:]), d[:])
}

// appendIPv6 appends the headers of a frame; finishIPv6 completes them.
func appendIPv6(frame []byte, ethDst, ethSrc network.MAC, src, dst netip.Addr, protocol, hopLimit byte) []byte {
	frame = append(frame, ethDst[:]...)
	frame = append(frame, ethSrc[:]...)
	frame = binary.BigEndian.AppendUint16(frame, etherTypeIPv6)
	frame = append(frame, 0x60, 0, 0, 0, 0, 0, protocol, hopLimit)
	frame = appendAddress16(frame, src)
	return appendAddress16(frame, dst)
}

func appendAddress16(b []byte, a netip.Addr) []byte {
	v := a.As16()
	return append(b, v[:]...)
}

// finishIPv6 writes the length and the checksum of what follows the headers of
// a frame, which is at the offset at in it and is 0.
func finishIPv6(frame []byte, at int) {
	ip := frame[ethernetLen:]
	payload := ip[ipv6Len:]
	binary.BigEndian.PutUint16(ip[4:], uint16(len(payload)))
	sum := checksum(pseudoSum(address16(ip[8:]), address16(ip[24:]), ip[6], len(payload)), payload)
	if sum == 0 { // 0 says in UDP that there is none
		sum = 0xffff
	}
	binary.BigEndian.PutUint16(payload[at:], sum)
}

// icmpv6Checksum is where ICMPv6 has its checksum.
const icmpv6Checksum = 2

// ndOption is the value of the first option of this type among the options of
// neighbour discovery; ok is false when they are malformed.
func ndOption(options []byte, kind byte) (value []byte, ok bool) {
	for len(options) > 0 {
		if len(options) < 8 || options[1] == 0 || len(options) < 8*int(options[1]) {
			return nil, false
		}
		if value == nil && options[0] == kind {
			value = options[2 : 8*int(options[1])]
		}
		options = options[8*int(options[1]):]
	}
	return value, true
}
