package controller

import (
	"bytes"
	"context"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"planck/network"
)

// advertised is a network with a router and a subnet with this mode.
func advertised(t testing.TB, mode string) (*answering, *network.Port) {
	t.Helper()
	a := newAnswering(t, func(a *answering) {
		a.subnets = []*network.Subnet{{
			IPVersion: 6, CIDR: netip.MustParsePrefix("fd00::/64"), GatewayIP: ip6("fd00::1"), EnableDHCP: true,
			DNSNameservers: []netip.Addr{ip6("2001:4860::8888"), ip6("2001:4860::8844")}, IPv6AddressMode: mode, IPv6RAMode: mode,
		}}
		a.port.FixedIPs = nil
	})
	_, err := a.store.Update(context.Background(), network.Cause{Operation: "test"}, func(tx *network.Tx) error {
		r := &network.Router{AdminStateUp: true}
		if err := tx.CreateRouter(r); err != nil {
			return err
		}
		_, err := tx.AddRouterInterface(r.ID, a.subnets[0].ID, "")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for p := range a.store.View().RouterPortsOf(a.network.ID) {
		return a, p
	}
	t.Fatal("no router interface")
	return nil, nil
}

func routerSolicitation(src string) []byte {
	message := []byte{icmpRouterSolicitation, 0, 0, 0, 0, 0, 0, 0}
	if src != "::" {
		message = append(append(message, optionSourceLinkLayer, 1), testMAC[:]...)
	}
	return icmp6Frame(ip6(src), ip6("ff02::2"), message)
}

func TestRASaysWhatTheSubnetsMode(t *testing.T) {
	for _, c := range []struct {
		mode       string
		flags      uint8
		autonomous byte
		servers    int
	}{
		{network.SLAAC, 0, raAutonomous, 2},
		{network.DHCPv6Stateless, raOther, raAutonomous, 2},
		{network.DHCPv6Stateful, raManaged, 0, 0},
	} {
		t.Run(c.mode, func(t *testing.T) {
			a, router := advertised(t, c.mode)
			data, reason := a.respond(NewRA(), routerSolicitation(testMAC.LinkLocal().String()))
			var p ipv6Packet
			if data == nil || p.parse(data)+p.icmpv6(16) != "" {
				t.Fatalf("no good answer: %s %x", reason, data)
			}
			packet := gopacket.NewPacket(data, layers.LayerTypeEthernet, gopacket.Default)
			ra, _ := packet.Layer(layers.LayerTypeICMPv6RouterAdvertisement).(*layers.ICMPv6RouterAdvertisement)
			if ra == nil || ra.Flags != c.flags || ra.RouterLifetime != 300 || p.src != router.MAC.LinkLocal() || p.dst != testMAC.LinkLocal() ||
				p.ethDst != testMAC || p.ethSrc != router.MAC || p.hopLimit != 255 {
				t.Fatalf("%s", packet)
			}
			options := p.payload[16:]
			prefix, _ := ndOption(options, optionPrefix)
			want := append([]byte{64, raOnLink | c.autonomous, 0, 1, 0x51, 0x80, 0, 0, 0x38, 0x40, 0, 0, 0, 0}, ip6("fd00::").AsSlice()...)
			if !bytes.Equal(prefix, want) {
				t.Errorf("prefix %x, want %x", prefix, want)
			}
			mtu, _ := ndOption(options, optionLinkMTU)
			if n := a.store.View().Network(a.network.ID); !bytes.Equal(mtu, []byte{0, 0, 0, 0, byte(n.MTU >> 8), byte(n.MTU)}) {
				t.Errorf("MTU %x, want %d", mtu, n.MTU)
			}
			source, _ := ndOption(options, optionSourceLinkLayer)
			if !bytes.Equal(source, router.MAC[:]) {
				t.Errorf("source %x", source)
			}
			dns, _ := ndOption(options, optionRDNSS)
			if got := max(0, (len(dns)-6)/16); got != c.servers {
				t.Errorf("%d DNS servers: %x", got, dns)
			}
		})
	}
}

func TestRAIsSilent(t *testing.T) {
	a, router := advertised(t, network.SLAAC)
	good := routerSolicitation(testMAC.LinkLocal().String())
	set := func(at int, v byte) []byte {
		b := bytes.Clone(good)
		b[at] = v
		return fixIPv6Checksum(b, icmpv6Checksum)
	}
	icmp := ethernetLen + ipv6Len
	probing := bytes.Clone(good)
	copy(probing[22:], make([]byte, 16))
	for name, frame := range map[string][]byte{
		"from beyond a router": set(21, 64),
		"a code":               set(icmp+1, 1),
		"a bad option":         set(icmp+9, 0),
		"no address but a MAC": fixIPv6Checksum(probing, icmpv6Checksum),
		"an advertisement":     set(icmp, icmpRouterAdvertisement),
		"cut short":            good[:icmp+6],
		"a wrong checksum":     append(bytes.Clone(good[:len(good)-1]), 0x77),
		"not for IPv6":         set(12, 8),
	} {
		if data, reason := a.respond(NewRA(), frame); data != nil || reason == "" {
			t.Errorf("%s: answered by %x", name, data)
		}
	}
	_, err := a.store.Update(context.Background(), network.Cause{Operation: "test"}, func(tx *network.Tx) error {
		r := tx.Router(router.DeviceID).Clone()
		r.AdminStateUp = false
		return tx.UpdateRouter(r)
	})
	if err != nil {
		t.Fatal(err)
	}
	if data, reason := a.respond(NewRA(), good); data != nil || reason != dropNoServer {
		t.Errorf("a router that is down advertises: %x %s", data, reason)
	}
}

func TestRetirementIsTheAdvertisementWithoutALifetime(t *testing.T) {
	a, router := advertised(t, network.SLAAC)
	frame := advertisement(a.store.View(), a.store.View().Network(a.network.ID), router, allNodesMAC, allNodes)
	last := retirement(frame)
	var p ipv6Packet
	if p.parse(last)+p.icmpv6(16) != "" || p.dst != allNodes || p.ethDst != allNodesMAC {
		t.Fatalf("%x", last)
	}
	if !slices.Equal(p.payload[raLifetimeAt:raLifetimeAt+2], []byte{0, 0}) {
		t.Errorf("lifetime %x", p.payload[6:8])
	}
}

func FuzzRA(f *testing.F) {
	a, router := advertised(f, network.SLAAC)
	f.Add(routerSolicitation(testMAC.LinkLocal().String()))
	f.Add(routerSolicitation("::"))
	f.Add([]byte{})
	r := NewRA()
	f.Fuzz(func(t *testing.T, frame []byte) {
		a.t = t
		for _, data := range [][]byte{frame, fixIPv6Checksum(bytes.Clone(frame), icmpv6Checksum)} {
			if reply, _ := a.respond(r, data); reply != nil && !bytes.Equal(reply[6:12], router.MAC[:]) {
				t.Errorf("%x was answered by %x", data, reply)
			}
		}
	})
}

func TestRAFollowsTheModel(t *testing.T) {
	a, router := advertised(t, network.SLAAC)
	ctl := New(Options{Store: a.store, Compiler: nil})
	ra, now := NewRA(), time.Now()
	settle := func() *advert {
		ra.settle(a.store.View(), a.network.ID, ctl, now)
		return ra.adverts[a.network.ID][router.ID]
	}
	ctl.view.Store(a.store.View())
	first := settle()
	if first == nil || !first.due.Equal(now) {
		t.Fatalf("a new advertisement is not due: %+v", first)
	}
	for range raInitialCount {
		ra.sendDue(ctl, first.due)
	}
	if wait := first.due.Sub(now); wait != raInitialCount*raInitialInterval {
		t.Errorf("the last of the first advertisements is due after %v", wait)
	}
	for range 100 {
		before := first.due
		ra.sendDue(ctl, before)
		if wait := first.due.Sub(before); wait < raMinInterval || wait >= raMaxInterval {
			t.Fatalf("the next advertisement is due after %v", wait)
		}
	}
	if settle() != first {
		t.Error("what did not change is sent at once")
	}
	change := func(fn func(tx *network.Tx) error) {
		t.Helper()
		if _, err := a.store.Update(t.Context(), network.Cause{}, fn); err != nil {
			t.Fatal(err)
		}
	}
	change(func(tx *network.Tx) error {
		s := *tx.Subnet(a.subnets[0].ID)
		s.DNSNameservers = nil
		return tx.UpdateSubnet(&s)
	})
	if second := settle(); second == first || !second.due.Equal(now) || len(second.frame) >= len(first.frame) {
		t.Error("a change is not sent at once")
	}
	change(func(tx *network.Tx) error {
		_, err := tx.RemoveRouterInterface(router.DeviceID, a.subnets[0].ID, "")
		return err
	})
	if settle() != nil || len(ra.adverts) != 0 {
		t.Error("a router that is gone is advertised")
	}
}
