package controller

import (
	"bytes"
	"net/netip"
	"testing"

	"planck/network"
)

// pinged is a network with a DHCP server at an IPv6 address.
func pinged(t testing.TB) (a *answering, server *network.Port, address netip.Addr) {
	a = newSolicited(t, nil)
	server = a.store.View().DHCPPort(a.network.ID)
	for _, f := range server.FixedIPs {
		if f.IP.Is6() {
			address = f.IP
		}
	}
	return a, server, address
}

func ping6Frame(mac network.MAC, dst netip.Addr) []byte {
	frame := icmp6Frame(ip6("fd00::5"), dst, []byte{icmp6EchoRequest, 0, 0, 0, 0, 7, 0, 9, 'x'})
	copy(frame, mac[:])
	return frame
}

func TestPing6AnswersForTheAddressesOfPlanckAlone(t *testing.T) {
	a, server, address := pinged(t)
	for _, dst := range []netip.Addr{address, server.MAC.LinkLocal()} {
		data, reason := a.respond(NewPing6(), ping6Frame(server.MAC, dst))
		var p ipv6Packet
		if data == nil || p.parse(data)+p.icmpv6(8) != "" {
			t.Fatalf("ping of %s: %x %s", dst, data, reason)
		}
		if p.src != dst || p.dst != ip6("fd00::5") || p.ethSrc != server.MAC || p.ethDst != testMAC ||
			!bytes.Equal(p.payload[4:], []byte{0, 7, 0, 9, 'x'}) || p.payload[0] != icmp6EchoReply {
			t.Errorf("ping of %s is answered by %x", dst, data)
		}
	}
	for name, frame := range map[string][]byte{
		"another port's address": ping6Frame(server.MAC, ip6("fd00::6")),
		"another port's MAC":     ping6Frame(otherMAC, address),
		"wrong checksum":         append(ping6Frame(server.MAC, address)[:62], 'y'),
		"cut short":              ping6Frame(server.MAC, address)[:58],
	} {
		if data, reason := a.respond(NewPing6(), frame); data != nil || reason == "" {
			t.Errorf("%s: answered by %x", name, data)
		}
	}
}

func FuzzPing6(f *testing.F) {
	a, server, address := pinged(f)
	f.Add(ping6Frame(server.MAC, address))
	f.Add([]byte{})
	r := NewPing6()
	f.Fuzz(func(t *testing.T, frame []byte) {
		a.t = t
		for _, data := range [][]byte{frame, fixIPv6Checksum(bytes.Clone(frame), icmpv6Checksum)} {
			reply, _ := a.respond(r, data)
			if reply != nil && (len(reply) > len(data) || !bytes.Equal(reply[22:38], data[38:54]) || !bytes.Equal(reply[38:54], data[22:38])) {
				t.Errorf("%x was answered by %x", data, reply)
			}
		}
	})
}
