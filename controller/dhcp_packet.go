package controller

import (
	"encoding/binary"
	"net/netip"

	"planck/network"
)

// Why a packet is not answered: values of the metric's label.
const (
	dropMalformed    = "malformed"
	dropTruncated    = "truncated"
	dropTagged       = "vlan tagged"
	dropFragment     = "fragment"
	dropOtherType    = "other protocol"
	dropUnknownPort  = "unknown port"
	dropForgedClient = "client address is not the port's"
	dropRelayed      = "relayed"
	dropNoServer     = "no server"
	dropNoAddress    = "no address"
	dropOtherServer  = "other server"
	dropNotOurs      = "address is not the port's"
	dropUnsupported  = "unsupported message"
	dropDeclined     = "declined"
	dropReleased     = "released"
)

const (
	ethernetLen = 14
	ipv4Len     = 20
	udpLen      = 8
	headersLen  = ethernetLen + ipv4Len + udpLen

	etherTypeIPv4 = 0x0800
	etherTypeARP  = 0x0806
	etherTypeVLAN = 0x8100
	etherTypeQinQ = 0x88a8

	protocolICMP = 1
	protocolUDP  = 17

	dhcpServerPort = 67
	dhcpClientPort = 68
)

// Offsets in a BOOTP message (RFC 951, RFC 2131).
const (
	bootpXID       = 4
	bootpFlags     = 10
	bootpCiaddr    = 12
	bootpYiaddr    = 16
	bootpSiaddr    = 20
	bootpGiaddr    = 24
	bootpChaddr    = 28
	bootpSname     = 44
	bootpFile      = 108
	bootpCookie    = 236
	bootpOptions   = 240
	bootpMinLen    = 300 // shorter replies are padded (RFC 1542)
	bootpRequest   = 1
	bootpReply     = 2
	bootpBroadcast = 0x8000
	dhcpMagic      = 0x63825363
)

// DHCP message types (option 53).
const (
	dhcpDiscover = 1
	dhcpOffer    = 2
	dhcpRequest  = 3
	dhcpDecline  = 4
	dhcpACK      = 5
	dhcpNAK      = 6
	dhcpRelease  = 7
	dhcpInform   = 8
)

// minimumMaxSize is the size of the IP datagram that every client takes (RFC 2131, section 2).
const minimumMaxSize = 576

var (
	broadcastMAC = network.MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	broadcastIP  = netip.AddrFrom4([4]byte{255, 255, 255, 255})
)

// ipv4Packet is a whole IPv4 packet in an Ethernet frame. Its slices alias the frame.
type ipv4Packet struct {
	ethDst, ethSrc network.MAC
	src, dst       netip.Addr
	protocol       byte
	header         []byte
	payload        []byte
}

// parse reads an untagged, unfragmented frame; it returns why it could not, or "".
func (p *ipv4Packet) parse(frame []byte) string {
	if len(frame) < ethernetLen+ipv4Len {
		return dropTruncated
	}
	switch binary.BigEndian.Uint16(frame[12:]) {
	case etherTypeIPv4:
	case etherTypeVLAN, etherTypeQinQ:
		return dropTagged
	default:
		return dropOtherType
	}
	ip := frame[ethernetLen:]
	headerLen, totalLen := int(ip[0]&15)*4, int(binary.BigEndian.Uint16(ip[2:]))
	if ip[0]>>4 != 4 || headerLen < ipv4Len || totalLen < headerLen {
		return dropMalformed
	}
	if len(ip) < totalLen {
		return dropTruncated
	}
	if checksum(0, ip[:headerLen]) != 0 {
		return dropMalformed
	}
	p.ethDst, p.ethSrc = network.MAC(frame[0:6]), network.MAC(frame[6:12])
	p.src, p.dst = address4(ip[12:]), address4(ip[16:])
	p.protocol = ip[9]
	p.header, p.payload = ip[:headerLen], ip[headerLen:totalLen]
	if binary.BigEndian.Uint16(ip[6:])&0x3fff != 0 { // more fragments, or not the first
		return dropFragment
	}
	return ""
}

// leads reports whether a fragment is the first of its packet.
func (p *ipv4Packet) leads() bool {
	return binary.BigEndian.Uint16(p.header[6:])&0x1fff == 0
}

// dhcpMessage is what a client says. Its slices alias the frame.
type dhcpMessage struct {
	bootp       []byte // the whole message, at least bootpOptions long
	kind        byte   // option 53
	broadcast   bool   // the client can't take unicast before it has an address
	chaddr      network.MAC
	ciaddr      netip.Addr // zero for 0.0.0.0
	requested   netip.Addr // option 50; zero for none
	serverID    netip.Addr // option 54; zero for none
	leaseTime   uint32     // option 51, seconds; 0 for none
	maxSize     int        // option 57, bytes of the IP datagram
	clientID    []byte     // option 61
	parameters  []byte     // option 55
	fromIPXE    bool       // options 175 and 77
	overload    byte       // option 52
	badOption   bool       // an option whose length can't be right
	paramBuffer [256]byte
}

// parse reads the payload of an IPv4 packet; it returns why it could not, or "".
//
// The UDP checksum is not looked at: a VM that leaves checksums to its
// interface sends a partial one.
func (m *dhcpMessage) parse(payload []byte) string {
	if len(payload) < udpLen {
		return dropTruncated
	}
	length := int(binary.BigEndian.Uint16(payload[4:]))
	if binary.BigEndian.Uint16(payload[2:]) != dhcpServerPort {
		return dropOtherType
	}
	if length > len(payload) {
		return dropTruncated
	}
	if length < udpLen+bootpOptions {
		return dropMalformed
	}
	b := payload[udpLen:length]
	if b[0] != bootpRequest || b[1] != 1 || b[2] != 6 || binary.BigEndian.Uint32(b[bootpCookie:]) != dhcpMagic {
		return dropMalformed
	}
	if binary.BigEndian.Uint32(b[bootpGiaddr:]) != 0 {
		return dropRelayed
	}
	m.bootp = b
	m.broadcast = binary.BigEndian.Uint16(b[bootpFlags:])&bootpBroadcast != 0
	m.chaddr = network.MAC(b[bootpChaddr : bootpChaddr+6])
	m.ciaddr = specified(address4(b[bootpCiaddr:]))
	m.maxSize = minimumMaxSize
	m.readOptions(b[bootpOptions:])
	if m.overload&1 != 0 {
		m.readOptions(b[bootpFile:bootpCookie])
	}
	if m.overload&2 != 0 {
		m.readOptions(b[bootpSname:bootpFile])
	}
	if m.badOption || m.kind == 0 {
		return dropMalformed
	}
	return ""
}

// readOptions reads one field of options: the options proper, or file or sname (option 52).
func (m *dhcpMessage) readOptions(b []byte) {
	for len(b) > 0 {
		code := b[0]
		if code == optionPad {
			b = b[1:]
			continue
		}
		if code == optionEnd {
			return
		}
		if len(b) < 2 || len(b) < 2+int(b[1]) {
			m.badOption = true
			return
		}
		value := b[2 : 2+int(b[1])]
		b = b[2+len(value):]
		m.readOption(code, value)
	}
}

func (m *dhcpMessage) readOption(code byte, v []byte) {
	switch code {
	case optionMessageType:
		if m.sized(v, 1) {
			m.kind = v[0]
		}
	case optionOverload:
		if m.sized(v, 1) {
			m.overload = v[0]
		}
	case optionRequestedAddress:
		if m.sized(v, 4) {
			m.requested = specified(address4(v))
		}
	case optionServerID:
		if m.sized(v, 4) {
			m.serverID = address4(v)
		}
	case optionLeaseTime:
		if m.sized(v, 4) {
			m.leaseTime = binary.BigEndian.Uint32(v)
		}
	case optionMaxSize:
		if m.sized(v, 2) {
			m.maxSize = max(minimumMaxSize, int(binary.BigEndian.Uint16(v)))
		}
	case optionClientID:
		m.clientID = v
	case optionParameters: // in several pieces when it is long (RFC 3396)
		n := copy(m.paramBuffer[len(m.parameters):], v)
		m.parameters = m.paramBuffer[:len(m.parameters)+n]
	case optionIPXE:
		m.fromIPXE = true
	case optionUserClass:
		m.fromIPXE = m.fromIPXE || isIPXEClass(v)
	}
}

func (m *dhcpMessage) sized(v []byte, size int) bool {
	if len(v) != size {
		m.badOption = true
	}
	return len(v) == size
}

// isIPXEClass knows iPXE by its user class, with the length of RFC 3004 or, as it sends it, without.
func isIPXEClass(v []byte) bool {
	return string(v) == "iPXE" || string(v) == "\x04iPXE"
}

// finishDHCP completes a frame whose Ethernet addresses and DHCP message are
// written, with the lengths, the IPv4 and UDP headers and their checksums.
func finishDHCP(frame []byte, src, dst netip.Addr) {
	binary.BigEndian.PutUint16(frame[12:], etherTypeIPv4)
	ip := frame[ethernetLen:]
	putIPv4Header(ip, protocolUDP, src, dst)
	udp := ip[ipv4Len:]
	binary.BigEndian.PutUint16(udp[0:], dhcpServerPort)
	binary.BigEndian.PutUint16(udp[2:], dhcpClientPort)
	binary.BigEndian.PutUint16(udp[4:], uint16(len(udp)))
	binary.BigEndian.PutUint16(udp[6:], 0)
	pseudo := onesSum(uint32(protocolUDP)+uint32(len(udp)), ip[12:20])
	sum := checksum(pseudo, udp)
	if sum == 0 { // 0 on the wire means that there is none
		sum = 0xffff
	}
	binary.BigEndian.PutUint16(udp[6:], sum)
}

// putIPv4Header writes the header of a packet that fills ip.
func putIPv4Header(ip []byte, protocol byte, src, dst netip.Addr) {
	ip[0], ip[1] = 0x45, 0
	binary.BigEndian.PutUint16(ip[2:], uint16(len(ip)))
	binary.BigEndian.PutUint32(ip[4:], 0) // identification and fragment offset
	ip[8], ip[9] = 64, protocol
	binary.BigEndian.PutUint16(ip[10:], 0)
	putAddress4(ip[12:], src)
	putAddress4(ip[16:], dst)
	binary.BigEndian.PutUint16(ip[10:], checksum(0, ip[:ipv4Len]))
}

// onesSum adds b to the partial Internet checksum s; b is shorter than 64 KiB.
func onesSum(s uint32, b []byte) uint32 {
	for len(b) >= 2 {
		s += uint32(b[0])<<8 | uint32(b[1])
		b = b[2:]
	}
	if len(b) == 1 {
		s += uint32(b[0]) << 8
	}
	return s
}

// checksum is the Internet checksum (RFC 1071) of b on top of the partial sum s.
func checksum(s uint32, b []byte) uint16 {
	s = onesSum(s, b)
	for s > 0xffff {
		s = s>>16 + s&0xffff
	}
	return ^uint16(s)
}

func address4(b []byte) netip.Addr { return netip.AddrFrom4([4]byte(b[:4])) }

func putAddress4(b []byte, a netip.Addr) {
	v := a.As4()
	copy(b, v[:])
}

// specified turns 0.0.0.0 into the zero Addr.
func specified(a netip.Addr) netip.Addr {
	if a.IsUnspecified() {
		return netip.Addr{}
	}
	return a
}
