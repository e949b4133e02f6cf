package controller

import (
	"bytes"
	"net/netip"
	"slices"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"planck/network"
)

// routing is a client at a router with interfaces in two IPv4 subnets and one
// IPv6 subnet of the client's network, and a gateway of IPv6 alone.
type routing struct {
	*answering
	router   *network.Router
	external *network.Network
}

func newRouting(t testing.TB) *routing {
	t.Helper()
	a := newAnswering(t, func(a *answering) {
		withTwoSubnets(a)
		a.subnets = append(a.subnets, &network.Subnet{IPVersion: 6, CIDR: netip.MustParsePrefix("fd00::/64"), GatewayIP: ip6("fd00::1")})
	})
	r := &routing{answering: a, router: &network.Router{AdminStateUp: true}}
	r.external = &network.Network{External: true, AdminStateUp: true}
	r.add(r.external, []*network.Subnet{{IPVersion: 6, CIDR: netip.MustParsePrefix("2001:db8::/64"), GatewayIP: ip6("2001:db8::1")}})
	_, err := r.store.Update(t.Context(), network.Cause{}, func(tx *network.Tx) error {
		r.router.ExternalNetworkID = r.external.ID
		if err := tx.CreateRouter(r.router); err != nil {
			return err
		}
		for _, s := range r.subnets {
			if _, err := tx.AddRouterInterface(r.router.ID, s.ID, ""); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// at is the router's interface with an address.
func (r *routing) at(ip string) *network.Port {
	r.t.Helper()
	p := r.store.View().PortByIP(r.network.ID, netip.MustParseAddr(ip))
	if p == nil {
		r.t.Fatalf("nothing has %s", ip)
	}
	return p
}

// lost is how a packet comes up that the router can't forward.
func (r *routing) lost(frame []byte) *PacketIn {
	in := r.packetIn(frame)
	in.Metadata |= uint64(r.store.View().Router(r.router.ID).Key) << 32
	return in
}

// says is what the router says of a packet, or nil and why it says nothing.
func (r *routing) says(to Responder, in *PacketIn) ([]byte, string) {
	r.t.Helper()
	var out Replies
	if err := to.Respond(r.t.Context(), in, &out); err != nil {
		r.t.Fatal(err)
	}
	for o := range out.PacketOuts() {
		return bytes.Clone(o.Data), ""
	}
	if out.Dropped() == "" {
		r.t.Fatal("neither an answer nor a reason")
	}
	return nil, out.Dropped()
}

func lostFrame(t testing.TB, mac network.MAC, src, dst string, ttl uint8, protocol layers.IPProtocol, payload ...byte) []byte {
	t.Helper()
	return serializeLayers(t,
		&layers.Ethernet{SrcMAC: testMAC[:], DstMAC: mac[:], EthernetType: layers.EthernetTypeIPv4},
		&layers.IPv4{Version: 4, IHL: 5, TTL: ttl, Protocol: protocol, SrcIP: ip4(src).AsSlice(), DstIP: ip4(dst).AsSlice()},
		gopacket.Payload(payload))
}

func TestRouterSaysWhyItForwardsNotFromTheInterfaceThatWasSentTo(t *testing.T) {
	r := newRouting(t)
	quoted := []byte{1, 2, 3, 4, 5, 6, 7, 8, 9}
	for _, c := range []struct {
		name, src, gateway, from string
		ttl                      uint8
		mtu                      uint32
		kind, code               uint8
	}{
		{"no hop left", "10.0.0.5", "10.0.0.1", "10.0.0.1", 1, 0, icmpTimeExceeded, 0},
		{"no hop left, other subnet", "10.0.1.9", "10.0.1.1", "10.0.1.1", 1, 0, icmpTimeExceeded, 0},
		{"no route", "10.0.0.5", "10.0.0.1", "10.0.0.1", 64, 0, icmpUnreachable, 0},
		{"by the other subnet's interface", "10.0.0.5", "10.0.1.1", "10.0.1.1", 64, 0, icmpUnreachable, 0},
		{"too large", "10.0.0.5", "10.0.0.1", "10.0.0.1", 64, 1400, icmpUnreachable, icmpTooBig},
	} {
		mac := r.at(c.gateway).MAC
		in := r.lost(lostFrame(t, mac, c.src, "192.0.2.9", c.ttl, layers.IPProtocolUDP, quoted...))
		in.Regs[regMTU] = c.mtu << 16
		data, reason := r.says(NewRouter(), in)
		var p ipv4Packet
		if data == nil || p.parse(data) != "" || checksum(0, p.payload) != 0 {
			t.Fatalf("%s: %x %s", c.name, data, reason)
		}
		mtu := uint32(p.payload[6])<<8 | uint32(p.payload[7])
		if p.src != ip4(c.from) || p.dst != ip4(c.src) || p.ethSrc != mac || p.ethDst != testMAC || p.protocol != protocolICMP ||
			p.payload[0] != c.kind || p.payload[1] != c.code || mtu != c.mtu || !slices.Equal(p.payload[8+ipv4Len:], quoted[:icmpQuoted]) {
			t.Errorf("%s: %x", c.name, data)
		}
	}
}

// An interface of IPv6 has no address from which an error of IPv4 could come.
func TestRouterWithoutAnIPv4AddressIsSilent(t *testing.T) {
	r := newRouting(t)
	in := r.lost(lostFrame(t, r.at("fd00::1").MAC, "10.0.0.5", "192.0.2.9", 1, layers.IPProtocolUDP, 0))
	if data, reason := r.says(NewRouter(), in); data != nil || reason != dropUnsupported {
		t.Errorf("to the interface of IPv6: %x %q", data, reason)
	}
	gateway := r.store.View().Port(r.store.View().Router(r.router.ID).GatewayPortID)
	in = r.lost(lostFrame(t, gateway.MAC, "192.0.2.1", "192.0.2.9", 1, layers.IPProtocolUDP, 0))
	in.Metadata = in.Metadata>>32<<32 | uint64(r.external.Key)
	in.Regs[regSourcePort] = 0
	if data, reason := r.says(NewRouter(), in); data != nil || reason != dropUnsupported {
		t.Errorf("from the wire to a gateway of IPv6: %x %q", data, reason)
	}
}

func TestRouterAnswersNoErrorsAndNoGroups(t *testing.T) {
	r := newRouting(t)
	mac := r.at("10.0.0.1").MAC
	udp := func(src, dst string) []byte { return lostFrame(t, mac, src, dst, 1, layers.IPProtocolUDP, 0) }
	icmp := func(kind byte) []byte {
		return lostFrame(t, mac, "10.0.0.5", "192.0.2.9", 1, layers.IPProtocolICMPv4, kind, 0, 0, 0, 0, 0, 0, 0)
	}
	for _, kind := range []byte{icmpEchoRequest, icmpEchoReply} {
		if data, reason := r.says(NewRouter(), r.lost(icmp(kind))); data == nil {
			t.Errorf("an echo of type %d is not answered: %s", kind, reason)
		}
	}
	later := udp("10.0.0.5", "192.0.2.9")
	later[ethernetLen+7] = 1 // fragment offset
	for name, frame := range map[string][]byte{
		"time exceeded":        icmp(icmpTimeExceeded),
		"unreachable":          icmp(icmpUnreachable),
		"ICMP without a type":  lostFrame(t, mac, "10.0.0.5", "192.0.2.9", 1, layers.IPProtocolICMPv4),
		"to a group":           udp("10.0.0.5", "224.0.0.9"),
		"to all":               udp("10.0.0.5", "255.255.255.255"),
		"from no one":          udp("0.0.0.0", "192.0.2.9"),
		"from a group":         udp("224.0.0.9", "192.0.2.9"),
		"from all":             udp("255.255.255.255", "192.0.2.9"),
		"from itself":          udp("127.0.0.1", "192.0.2.9"),
		"to another MAC":       lostFrame(t, otherMAC, "10.0.0.5", "192.0.2.9", 1, layers.IPProtocolUDP, 0),
		"not a first fragment": fixIPChecksum(later),
		"cut short":            udp("10.0.0.5", "192.0.2.9")[:30],
		"empty":                nil,
	} {
		if data, reason := r.says(NewRouter(), r.lost(frame)); data != nil || reason == "" {
			t.Errorf("%s: answered by %x", name, data)
		}
	}
}

// FuzzRouter has any frame come up from a client, from the wire and by another
// router. What is said goes to who sent it, and is no longer than an error may be.
func FuzzRouter(f *testing.F) {
	r := newRouting(f)
	for _, ip := range []string{"10.0.0.1", "10.0.1.1", "fd00::1"} {
		mac := r.at(ip).MAC
		f.Add(lostFrame(f, mac, "10.0.0.5", "192.0.2.9", 1, layers.IPProtocolUDP, 1, 2, 3), true)
		f.Add(lostFrame(f, mac, "10.0.0.5", "192.0.2.9", 1, layers.IPProtocolICMPv4, icmpEchoRequest, 0, 0, 0), false)
		f.Add(routedFrame(r.at(ip), ip6("fd00::5"), ip6("2001:db8:9::1"), 1, protocolUDP, 1, 2, 3), true)
	}
	f.Add([]byte{}, false)
	f.Fuzz(func(t *testing.T, frame []byte, fromPort bool) {
		r.t = t
		for _, data := range [][]byte{frame, fixIPChecksum(bytes.Clone(frame))} {
			in := r.lost(data)
			if !fromPort {
				in.Metadata = in.Metadata>>32<<32 | uint64(r.external.Key)
				in.Regs[regSourcePort] = 0
			}
			if reply, _ := r.says(NewRouter(), in); reply != nil && (len(reply) > ethernetLen+ipv4Len+8+60+icmpQuoted ||
				!bytes.Equal(reply[:6], data[6:12]) || !bytes.Equal(reply[30:34], data[26:30])) {
				t.Errorf("of %x is said %x", data, reply)
			}
			if reply, _ := r.says(NewRouter6(), in); reply != nil && (len(reply) > ethernetLen+icmp6ErrorMax ||
				!bytes.Equal(reply[:6], data[6:12]) || !bytes.Equal(reply[38:54], data[22:38])) {
				t.Errorf("of %x is said %x", data, reply)
			}
		}
	})
}
