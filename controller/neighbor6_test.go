package controller

import (
	"bytes"
	"testing"

	"planck/network"
)

func TestNextHopIsAskedForByIPv6AndOnlyASolicitedAnswerCounts(t *testing.T) {
	gateway, hop := network.MAC{0xfa, 0x16, 0x3e, 0x99, 0, 1}, network.MAC{2, 0, 0, 0, 0, 1}
	var q ndQuestion
	asked := question(gateway, ip6("2001:db8::3"), ip6("2001:db8::1"))
	if reason := q.parse(asked); reason != "" || q.bare || q.ethSrc != gateway || q.src != ip6("2001:db8::3") || q.target != ip6("2001:db8::1") ||
		network.MAC(asked[:6]) != (network.MAC{0x33, 0x33, 0xff, 0, 0, 1}) {
		t.Fatalf("asked %x: %s", asked, reason)
	}
	answer := q.appendReply(nil, &network.Port{MAC: hop})
	var a arpAnswer
	if reason := a.parse6(answer); reason != "" || a.sha != hop || a.spa != ip6("2001:db8::1") || a.tha != gateway || a.tpa != ip6("2001:db8::3") {
		t.Fatalf("answered %x: %s, %+v", answer, reason, a)
	}
	icmp := ethernetLen + ipv6Len
	set := func(at int, v ...byte) []byte {
		b := bytes.Clone(answer)
		copy(b[at:], v)
		return fixIPv6Checksum(b, icmpv6Checksum)
	}
	for name, frame := range map[string][]byte{
		"an announcement":        announcement(hop, ip6("2001:db8::1")),
		"from beyond a router":   set(21, 64),
		"a code":                 set(icmp+1, 1),
		"a group's MAC":          set(icmp+ndOptions+2, 1),
		"no MAC":                 set(icmp+ndOptions+2, 0, 0, 0, 0, 0, 0),
		"another option":         set(icmp+ndOptions, optionSourceLinkLayer),
		"an option of no length": set(icmp+ndOptions+1, 0),
		"a question":             asked,
		"cut short":              answer[:icmp+20],
		"a wrong checksum":       append(bytes.Clone(answer[:len(answer)-1]), 9),
	} {
		if reason := a.parse6(frame); reason == "" {
			t.Errorf("%s counts as an answer", name)
		}
	}
}

func TestNextHopOfAPacketIsThatOfItsFamily(t *testing.T) {
	in := PacketIn{Data: make([]byte, 64)}
	in.Regs[8], in.Regs[12], in.Regs[15] = 0xcb007101, 0x20010db8, 1
	in.Data[12], in.Data[13] = 0x08, 0x00
	if hop := nextHop(&in); hop != ip4("203.0.113.1") {
		t.Errorf("IPv4: %s", hop)
	}
	in.Data[12], in.Data[13] = 0x86, 0xdd
	if hop := nextHop(&in); hop != ip6("2001:db8::1") {
		t.Errorf("IPv6: %s", hop)
	}
	ping := icmp6Frame(ip6("fd00::5"), ip6("2001:db8::9"), []byte{icmp6EchoRequest, 0, 0, 0, 0, 1, 0, 1})
	var a arpAnswer
	if reason := a.parse6(ping); reason != dropOtherType {
		t.Errorf("a short ping is no answer because of %q", reason)
	}
}

func FuzzNeighborAdvertisement(f *testing.F) {
	q := ndQuestion{ethSrc: testMAC, src: ip6("fd00::5"), target: ip6("fd00::6")}
	f.Add(q.appendReply(nil, &network.Port{MAC: otherMAC}))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, frame []byte) {
		for _, data := range [][]byte{frame, fixIPv6Checksum(bytes.Clone(frame), icmpv6Checksum)} {
			var a arpAnswer
			if a.parse6(data) == "" && (a.sha[0]&1 != 0 || !bytes.Equal(a.spa.AsSlice(), data[62:78])) {
				t.Errorf("%x is read as %+v", data, a)
			}
		}
	})
}
