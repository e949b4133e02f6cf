package e2e

import (
	"encoding/binary"
	"net"
	"net/netip"
	"testing"

	"planck/test/lab"
)

const (
	everybody = "ff:ff:ff:ff:ff:ff"

	etherIPv4 = 0x0800
	etherARP  = 0x0806
	etherVLAN = 0x8100
	etherIPv6 = 0x86dd
	// etherMarker is that of reverse ARP, which passes wherever ARP does: a frame that no
	// program sends, whose arrival says that the ones before it would be there.
	etherMarker = 0x8035
)

// send sends one frame from a VM as it is.
func (c *cloud) send(v *vm, frame []byte) {
	c.Helper()
	if err := v.SendFrame("eth0", frame); err != nil {
		c.Fatal(err)
	}
}

// mark sends a frame to all of the VM's network that captures recognize.
func (c *cloud) mark(v *vm) {
	c.Helper()
	c.send(v, ethernet(c.T, everybody, v.mac(), etherMarker, make([]byte, 46)))
}

// watch starts to capture on a VM's link. The function that it returns waits
// for a marker and returns what came until then.
func (c *cloud) watch(v *vm) (seen func() string) {
	c.Helper()
	capture, err := v.Capture("eth0", "")
	if err != nil {
		c.Fatal(err)
	}
	return func() string {
		c.Helper()
		if err := capture.WaitFor(c.within(settle), "0x8035"); err != nil {
			c.Fatal(err)
		}
		text, err := capture.Stop()
		if err != nil {
			c.Fatal(err)
		}
		return text
	}
}

// capture starts a tcpdump on a node's link.
func (c *cloud) capture(n *lab.Node, link, filter string) *lab.Capture {
	c.Helper()
	capture, err := n.Capture(link, filter)
	if err != nil {
		c.Fatal(err)
	}
	return capture
}

// captured ends a capture and returns its text.
func (c *cloud) captured(capture *lab.Capture) string {
	c.Helper()
	text, err := capture.Stop()
	if err != nil {
		c.Fatal(err)
	}
	return text
}

func ethernet(t testing.TB, dst, src string, etherType uint16, payload []byte) []byte {
	t.Helper()
	frame := append(hardware(t, dst), hardware(t, src)...)
	return append(binary.BigEndian.AppendUint16(frame, etherType), payload...)
}

func hardware(t testing.TB, address string) []byte {
	t.Helper()
	mac, err := net.ParseMAC(address)
	if err != nil {
		t.Fatal(err)
	}
	return mac
}

// arpPacket is one for IPv4 on Ethernet.
func arpPacket(t testing.TB, operation uint16, sha, spa, tha, tpa string) []byte {
	t.Helper()
	p := []byte{0, 1, 8, 0, 6, 4}
	p = binary.BigEndian.AppendUint16(p, operation)
	p = append(append(p, hardware(t, sha)...), netip.MustParseAddr(spa).AsSlice()...)
	return append(append(p, hardware(t, tha)...), netip.MustParseAddr(tpa).AsSlice()...)
}

// udp4 is a UDP datagram in an IPv4 packet.
func udp4(src, dst string, from, to uint16, payload []byte) []byte {
	ip := []byte{0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0}
	ip = append(append(ip, netip.MustParseAddr(src).AsSlice()...), netip.MustParseAddr(dst).AsSlice()...)
	binary.BigEndian.PutUint16(ip[2:], uint16(len(ip)+8+len(payload)))
	binary.BigEndian.PutUint16(ip[10:], internetChecksum(ip))
	ip = binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(ip, from), to)
	ip = binary.BigEndian.AppendUint16(ip, uint16(8+len(payload)))
	return append(append(ip, 0, 0), payload...) // without a checksum
}

// neighborAdvertisement is an IPv6 packet that says that mac has the address target.
func neighborAdvertisement(t testing.TB, src, target, mac string) []byte {
	t.Helper()
	message := append([]byte{136, 0, 0, 0, 0x20, 0, 0, 0}, netip.MustParseAddr(target).AsSlice()...)
	return icmp6(src, "ff02::1", append(append(message, 2, 1), hardware(t, mac)...))
}

// routerAdvertisement is an ICMPv6 message that gives a router and a prefix.
func routerAdvertisement(prefix string) []byte {
	message := []byte{134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0, 3, 4, 64, 0xc0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0}
	return append(message, netip.MustParseAddr(prefix).AsSlice()...)
}

// icmp6 is an IPv6 packet with an ICMPv6 message, whose checksum it sets.
func icmp6(src, dst string, message []byte) []byte { return ipv6(src, dst, 58, 2, message) }

// udp6 is a UDP datagram in an IPv6 packet.
func udp6(src, dst string, from, to uint16, payload []byte) []byte {
	udp := binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, from), to)
	udp = binary.BigEndian.AppendUint16(udp, uint16(8+len(payload)))
	return ipv6(src, dst, 17, 6, append(append(udp, 0, 0), payload...))
}

// ipv6 is an IPv6 packet whose payload, of an even length, has a checksum at an offset.
func ipv6(src, dst string, protocol byte, checksum int, payload []byte) []byte {
	ip := binary.BigEndian.AppendUint16([]byte{0x60, 0, 0, 0}, uint16(len(payload)))
	ip = append(append(ip, protocol, 255), netip.MustParseAddr(src).AsSlice()...)
	ip = append(ip, netip.MustParseAddr(dst).AsSlice()...)
	pseudo := append(append([]byte{}, ip[8:]...), 0, 0, 0, byte(len(payload)), 0, 0, 0, protocol)
	binary.BigEndian.PutUint16(payload[checksum:], internetChecksum(append(pseudo, payload...)))
	return append(ip, payload...)
}

// internetChecksum is that of RFC 1071, over an even number of bytes.
func internetChecksum(b []byte) uint16 {
	var sum uint32
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}

// discover is a DHCPDISCOVER of a client with this MAC; further options follow the type.
func discover(t testing.TB, mac string, options ...byte) []byte {
	t.Helper()
	b := make([]byte, 240, 300)
	b[0], b[1], b[2] = 1, 1, 6
	copy(b[4:], "xid1")
	copy(b[28:], hardware(t, mac))
	binary.BigEndian.PutUint32(b[236:], 0x63825363)
	b = append(append(b, 53, 1, 1), options...)
	return append(b, 255)
}

// linkLocal is the address that a VM with this MAC makes itself (RFC 4291).
func linkLocal(t testing.TB, mac string) string {
	t.Helper()
	m := hardware(t, mac)
	return netip.AddrFrom16([16]byte{0xfe, 0x80, 8: m[0] ^ 2, m[1], m[2], 0xff, 0xfe, m[3], m[4], m[5]}).String()
}
