package controller

import (
	"bytes"
	"context"
	"net/netip"
	"slices"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"planck/flows"
	"planck/network"
	"planck/pipeline"
)

func ip6(s string) netip.Addr { return netip.MustParseAddr(s) }

// newSolicited is a client with fd00::5 and another port with fd00::6 on one network.
func newSolicited(t testing.TB, change func(other *network.Port)) *answering {
	t.Helper()
	a := newAnswering(t, func(a *answering) {
		a.subnets = append(a.subnets, &network.Subnet{IPVersion: 6, CIDR: netip.MustParsePrefix("fd00::/64"), GatewayIP: ip6("fd00::1"), EnableDHCP: true})
		a.port.FixedIPs = append(a.port.FixedIPs, network.FixedIP{IP: ip6("fd00::5")})
	})
	other := &network.Port{NetworkID: a.network.ID, MAC: otherMAC, PortSecurityEnabled: true, FixedIPs: []network.FixedIP{{IP: ip6("fd00::6")}}}
	if change != nil {
		change(other)
	}
	_, err := a.store.Update(context.Background(), network.Cause{Operation: "test"}, func(tx *network.Tx) error {
		return tx.CreatePort(other)
	})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// icmp6Frame is an ICMPv6 message of the client; its checksum is right.
func icmp6Frame(src, dst netip.Addr, message []byte) []byte {
	frame := appendIPv6(nil, network.MAC{0x33, 0x33, 0xff, 0, 0, 6}, testMAC, src, dst, protocolICMPv6, 255)
	frame = append(frame, message...)
	if len(message) >= 4 {
		finishIPv6(frame, icmpv6Checksum)
	}
	return frame
}

func solicitation(src, target string) []byte {
	message := append([]byte{icmpNeighborSolicitation, 0, 0, 0, 0, 0, 0, 0}, ip6(target).AsSlice()...)
	if src != "::" {
		message = append(append(message, optionSourceLinkLayer, 1), testMAC[:]...)
	}
	return icmp6Frame(ip6(src), solicitedNode(ip6(target)), message)
}

func TestNDAnswersForKnownAddresses(t *testing.T) {
	a := newSolicited(t, nil)
	server := a.store.View().DHCPPort(a.network.ID)
	serverIP := server.FixedIPs[slices.IndexFunc(server.FixedIPs, func(f network.FixedIP) bool { return f.IP.Is6() })].IP
	for _, c := range []struct {
		name, src, target string
		want              network.MAC
		dst               string
		flags             uint8
	}{
		{"another port", "fd00::5", "fd00::6", otherMAC, "fd00::5", 0x60},
		{"a link-local address", testMAC.LinkLocal().String(), otherMAC.LinkLocal().String(), otherMAC, testMAC.LinkLocal().String(), 0x60},
		{"a probe about another's address", "::", "fd00::6", otherMAC, "ff02::1", 0x20},
		{"the DHCP server", "fd00::5", serverIP.String(), server.MAC, "fd00::5", 0x60},
	} {
		t.Run(c.name, func(t *testing.T) {
			a.t = t
			data, reason := a.respond(NewND(pipeline.ARPCached), solicitation(c.src, c.target))
			if data == nil {
				t.Fatalf("no answer: %s", reason)
			}
			var p ipv6Packet
			if reason := p.parse(data) + p.icmpv6(32); reason != "" {
				t.Fatalf("the answer is bad: %s", reason)
			}
			packet := gopacket.NewPacket(data, layers.LayerTypeEthernet, gopacket.Default)
			na, _ := packet.Layer(layers.LayerTypeICMPv6NeighborAdvertisement).(*layers.ICMPv6NeighborAdvertisement)
			if na == nil || na.TargetAddress.String() != c.target || na.Flags != c.flags || p.hopLimit != 255 || p.ethSrc != c.want ||
				len(na.Options) != 1 || !bytes.Equal(na.Options[0].Data, c.want[:]) || p.dst != ip6(c.dst) || p.src != ip6(c.target) {
				t.Errorf("want %s is at %s to %s:\n%s", c.target, c.want, c.dst, packet)
			}
		})
	}
}

func TestNDModesInstallTheReplyFlowOnlyWhenCached(t *testing.T) {
	a := newSolicited(t, nil)
	want := pipeline.NDReplyKey(a.network.Key, ip6("fd00::6"))
	for mode, keys := range map[string][]flows.Key{"": {want}, pipeline.ARPCached: {want}, pipeline.ARPPacketIn: nil, pipeline.ARPProactive: nil} {
		var out Replies
		if err := NewND(mode).Respond(context.Background(), a.packetIn(solicitation("fd00::5", "fd00::6")), &out); err != nil {
			t.Fatal(err)
		}
		if len(slices.Collect(out.PacketOuts())) != 1 || !slices.Equal(out.Installs(), keys) {
			t.Errorf("mode %q installs %v, want %v", mode, out.Installs(), keys)
		}
	}
}

func TestNDSilence(t *testing.T) {
	shared := func(p *network.Port) {
		p.AllowedAddressPairs = []network.AddressPair{{IP: netip.MustParsePrefix("fd00::6/128"), MAC: virtualMAC}}
	}
	good := solicitation("fd00::5", "fd00::6")
	set := func(at int, v ...byte) []byte {
		b := bytes.Clone(good)
		copy(b[at:], v)
		return b
	}
	repaired := func(b []byte) []byte {
		copy(b[ethernetLen+ipv6Len+icmpv6Checksum:], []byte{0, 0})
		finishIPv6(b, icmpv6Checksum)
		return b
	}
	icmp := ethernetLen + ipv6Len
	for _, c := range []struct {
		name   string
		change func(*network.Port)
		frame  []byte
		want   string
	}{
		{"a client probes its own address", nil, solicitation("::", "fd00::5"), dropOwnAddress},
		{"a client probes its link-local address", nil, solicitation("::", testMAC.LinkLocal().String()), dropOwnAddress},
		{"nobody has the address", nil, solicitation("fd00::5", "fd00::99"), dropUnknownAddress},
		{"nobody has the MAC of the link-local address", nil, solicitation("fd00::5", "fe80::f816:3eff:fe00:77"), dropUnknownAddress},
		{"an address that moves between ports", shared, good, dropSharedAddress},
		{"the link-local address of a MAC that moves", shared, solicitation("fd00::5", virtualMAC.LinkLocal().String()), dropUnknownAddress},
		{"from beyond a router", nil, set(21, 64), dropMalformed},
		{"a code", nil, repaired(set(icmp+1, 1)), dropMalformed},
		{"a wrong checksum", nil, set(icmp+2, 0, 0), dropMalformed},
		{"a multicast target", nil, repaired(set(icmp+ndTarget, 0xff)), dropMalformed},
		{"an option of no length", nil, repaired(set(icmp+ndOptions+1, 0)), dropMalformed},
		{"an option that is too long", nil, repaired(set(icmp+ndOptions+1, 2)), dropMalformed},
		{"an advertisement", nil, repaired(set(icmp, icmpNeighborAdvertisement)), dropOtherType},
		{"cut short", nil, good[:icmp+20], dropTruncated},
		{"IPv4", nil, set(12, 8, 0), dropOtherType},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := newSolicited(t, c.change)
			if data, reason := a.respond(NewND(pipeline.ARPCached), c.frame); data != nil || reason != c.want {
				t.Errorf("answered by %x, reason %q, want %q", data, reason, c.want)
			}
		})
	}
}

func FuzzND(f *testing.F) {
	a := newSolicited(f, nil)
	f.Add(solicitation("fd00::5", "fd00::6"))
	f.Add(solicitation("::", "fd00::6"))
	f.Add(solicitation("fd00::5", testMAC.LinkLocal().String()))
	f.Add([]byte{})
	r := NewND(pipeline.ARPCached)
	f.Fuzz(func(t *testing.T, frame []byte) {
		a.t = t
		for _, data := range [][]byte{frame, fixIPv6Checksum(bytes.Clone(frame), icmpv6Checksum)} {
			reply, _ := a.respond(r, data)
			if reply != nil && !bytes.Equal(reply[22:38], data[62:78]) {
				t.Errorf("%x was answered by %x", data, reply)
			}
		}
	})
}

// fixIPv6Checksum mends the checksum at an offset of the payload where there is room for one.
func fixIPv6Checksum(frame []byte, at int) []byte {
	var p ipv6Packet
	if p.parse(frame) != "" || len(p.payload) < at+2 {
		return frame
	}
	copy(p.payload[at:], []byte{0, 0})
	finishIPv6(frame[:ethernetLen+len(p.packet)], at)
	return frame
}
