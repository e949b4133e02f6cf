package controller

import (
	"bytes"
	"net/netip"
	"testing"

	"planck/network"
)

// lost is how a packet comes up that a router can't forward.
func (a *answering) lost(t *testing.T, router *network.Port, frame []byte) ([]byte, string) {
	t.Helper()
	in := a.packetIn(frame)
	in.Metadata |= uint64(a.store.View().Router(router.DeviceID).Key) << 32
	var out Replies
	if err := NewRouter6().Respond(t.Context(), in, &out); err != nil {
		t.Fatal(err)
	}
	for o := range out.PacketOuts() {
		return bytes.Clone(o.Data), ""
	}
	return nil, out.Dropped()
}

func routedFrame(router *network.Port, src, dst netip.Addr, hopLimit, protocol byte, payload ...byte) []byte {
	frame := appendIPv6(nil, router.MAC, testMAC, src, dst, protocol, hopLimit)
	frame = append(frame, payload...)
	frame[ethernetLen+4], frame[ethernetLen+5] = byte(len(payload)>>8), byte(len(payload))
	return frame
}

func TestRouter6SaysWhyItForwardsNot(t *testing.T) {
	a, router := advertised(t, network.SLAAC)
	global, far := ip6("fd00::f816:3eff:fe00:5"), ip6("2001:db8::1")
	for _, c := range []struct {
		name       string
		src        netip.Addr
		hopLimit   byte
		payload    int
		kind, code byte
		from       netip.Addr
	}{
		{"no hop left", global, 1, 12, icmp6TimeExceeded, 0, ip6("fd00::1")},
		{"no route", global, 64, 12, icmp6Unreachable, 0, ip6("fd00::1")},
		{"no route, large", global, 64, 1400, icmp6Unreachable, 0, ip6("fd00::1")},
		{"from a link-local address", testMAC.LinkLocal(), 64, 12, icmp6Unreachable, icmp6BeyondScope, router.MAC.LinkLocal()},
	} {
		frame := routedFrame(router, c.src, far, c.hopLimit, protocolUDP, make([]byte, c.payload)...)
		data, reason := a.lost(t, router, frame)
		var p ipv6Packet
		if data == nil || p.parse(data)+p.icmpv6(8) != "" {
			t.Fatalf("%s: %s %x", c.name, reason, data)
		}
		if p.payload[0] != c.kind || p.payload[1] != c.code || p.src != c.from || p.dst != c.src || p.ethDst != testMAC || p.ethSrc != router.MAC ||
			len(p.packet) > icmp6ErrorMax || !bytes.HasPrefix(frame[ethernetLen:], p.payload[8:]) {
			t.Errorf("%s: %x", c.name, data)
		}
	}
	for name, frame := range map[string][]byte{
		"an error":       routedFrame(router, global, far, 64, protocolICMPv6, icmp6TimeExceeded, 0, 0, 0),
		"a redirect":     routedFrame(router, global, far, 64, protocolICMPv6, icmp6Redirect, 0, 0, 0),
		"to a group":     routedFrame(router, global, ip6("ff0e::1"), 64, protocolUDP, 0),
		"from no one":    routedFrame(router, netip.IPv6Unspecified(), far, 64, protocolUDP, 0),
		"to another MAC": append(bytes.Clone(otherMAC[:]), routedFrame(router, global, far, 64, protocolUDP, 0)[6:]...),
		"cut short":      routedFrame(router, global, far, 64, protocolUDP, 0)[:40],
	} {
		if data, reason := a.lost(t, router, frame); data != nil || reason == "" {
			t.Errorf("%s: answered by %x", name, data)
		}
	}
}
