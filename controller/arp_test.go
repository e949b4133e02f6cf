package controller

import (
	"bytes"
	"context"
	"net"
	"net/netip"
	"slices"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"planck/flows"
	"planck/network"
	"planck/pipeline"
)

var (
	otherMAC   = network.MAC{0xfa, 0x16, 0x3e, 0, 0, 6}
	virtualMAC = network.MAC{0, 0, 0x5e, 0, 1, 1}
)

// newAsking is a client with 10.0.0.5 and another port with 10.0.0.6 on one network.
func newAsking(t testing.TB, change func(other *network.Port)) *answering {
	t.Helper()
	a := newAnswering(t, nil)
	other := &network.Port{NetworkID: a.network.ID, MAC: otherMAC, PortSecurityEnabled: true, FixedIPs: []network.FixedIP{{IP: ip4("10.0.0.6")}}}
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

// arpFrame is an ARP packet of the client.
func arpFrame(t testing.TB, op uint16, spa, tpa string) []byte {
	t.Helper()
	return serializeLayers(t,
		&layers.Ethernet{SrcMAC: testMAC[:], DstMAC: broadcastMAC[:], EthernetType: layers.EthernetTypeARP},
		&layers.ARP{AddrType: layers.LinkTypeEthernet, Protocol: layers.EthernetTypeIPv4, HwAddressSize: 6, ProtAddressSize: 4, Operation: op,
			SourceHwAddress: testMAC[:], SourceProtAddress: ip4(spa).AsSlice(), DstHwAddress: make([]byte, 6), DstProtAddress: ip4(tpa).AsSlice()})
}

func TestARPAnswersForKnownAddresses(t *testing.T) {
	a := newAsking(t, nil)
	serverMAC, serverIP := a.server()
	for _, c := range []struct {
		name, spa, tpa string
		want           network.MAC
	}{
		{"another port", "10.0.0.5", "10.0.0.6", otherMAC},
		{"a probe about another's address", "0.0.0.0", "10.0.0.6", otherMAC},
		{"the DHCP server", "10.0.0.5", serverIP.String(), serverMAC},
	} {
		t.Run(c.name, func(t *testing.T) {
			a.t = t
			data, reason := a.respond(NewARP(pipeline.ARPCached), arpFrame(t, 1, c.spa, c.tpa))
			if data == nil {
				t.Fatalf("no answer: %s", reason)
			}
			p := gopacket.NewPacket(data, layers.LayerTypeEthernet, gopacket.Default)
			eth, _ := p.Layer(layers.LayerTypeEthernet).(*layers.Ethernet)
			arp, _ := p.Layer(layers.LayerTypeARP).(*layers.ARP)
			if eth == nil || arp == nil {
				t.Fatalf("not ARP:\n%s", p)
			}
			if !bytes.Equal(eth.DstMAC, testMAC[:]) || !bytes.Equal(eth.SrcMAC, c.want[:]) || arp.Operation != layers.ARPReply ||
				!bytes.Equal(arp.SourceHwAddress, c.want[:]) || net.IP(arp.SourceProtAddress).String() != c.tpa ||
				!bytes.Equal(arp.DstHwAddress, testMAC[:]) || net.IP(arp.DstProtAddress).String() != c.spa {
				t.Errorf("want %s is at %s:\n%s", c.tpa, c.want, p)
			}
		})
	}
}

func TestARPModesInstallTheReplyFlowOnlyWhenCached(t *testing.T) {
	a := newAsking(t, nil)
	want := pipeline.ARPReplyKey(a.network.Key, ip4("10.0.0.6"))
	for mode, keys := range map[string][]flows.Key{"": {want}, pipeline.ARPCached: {want}, pipeline.ARPPacketIn: nil, pipeline.ARPProactive: nil} {
		var out Replies
		if err := NewARP(mode).Respond(context.Background(), a.packetIn(arpFrame(t, 1, "10.0.0.5", "10.0.0.6")), &out); err != nil {
			t.Fatal(err)
		}
		if len(slices.Collect(out.PacketOuts())) != 1 || !slices.Equal(out.Installs(), keys) {
			t.Errorf("mode %q installs %v, want %v", mode, out.Installs(), keys)
		}
	}
}

func TestARPSilence(t *testing.T) {
	shared := func(p *network.Port) {
		p.AllowedAddressPairs = []network.AddressPair{{IP: netip.MustParsePrefix("10.0.0.6/32"), MAC: virtualMAC}}
	}
	routing := func(p *network.Port) {
		p.AllowedAddressPairs = []network.AddressPair{{IP: netip.MustParsePrefix("10.0.0.0/24"), MAC: virtualMAC}}
	}
	good := arpFrame(t, 1, "10.0.0.5", "10.0.0.6")
	set := func(at int, v ...byte) []byte {
		b := bytes.Clone(good)
		copy(b[at:], v)
		return b
	}
	for _, c := range []struct {
		name   string
		change func(*network.Port)
		frame  []byte
		want   string
	}{
		{"a client asks whether its address is free", nil, arpFrame(t, 1, "0.0.0.0", "10.0.0.5"), dropOwnAddress},
		{"a client asks about itself", nil, arpFrame(t, 1, "10.0.0.9", "10.0.0.5"), dropOwnAddress},
		{"a client announces its address", nil, arpFrame(t, 1, "10.0.0.5", "10.0.0.5"), dropGratuitous},
		{"nobody has the address", nil, arpFrame(t, 1, "10.0.0.5", "10.0.0.99"), dropUnknownAddress},
		{"an address that moves between ports", shared, good, dropSharedAddress},
		{"a port may use its neighbours' addresses", routing, good, ""},
		{"a reply", nil, arpFrame(t, 2, "10.0.0.5", "10.0.0.6"), dropMalformed},
		{"RARP", nil, set(12, 0x80, 0x35), dropOtherType},
		{"tagged", nil, slices.Concat(good[:12], []byte{0x81, 0, 0, 5}, good[12:]), dropTagged},
		{"empty", nil, nil, dropTruncated},
		{"truncated", nil, good[:40], dropTruncated},
		{"hardware type 6", nil, set(14, 0, 6), dropMalformed},
		{"protocol IPv6", nil, set(16, 0x86, 0xdd), dropMalformed},
		{"hardware length 8", nil, set(18, 8), dropMalformed},
		{"protocol length 16", nil, set(19, 16), dropMalformed},
		{"operation 9", nil, set(20, 0, 9), dropMalformed},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := newAsking(t, c.change)
			data, reason := a.respond(NewARP(pipeline.ARPCached), c.frame)
			if reason != c.want || (data != nil) != (c.want == "") {
				t.Errorf("answer %x, reason %q, want reason %q", data, reason, c.want)
			}
		})
	}
}

// A port that is plugged nowhere may reserve an address for others, who have
// it in an address pair as a part of a range.
func TestARPReservedAddressIsNotAnsweredForUnlessItsPortIsWired(t *testing.T) {
	a := newAsking(t, nil)
	ask := func() string {
		_, reason := a.respond(NewARP(""), arpFrame(t, 1, "10.0.0.5", "10.0.0.6"))
		return reason
	}
	do := func(fn func(*network.Tx) error) {
		t.Helper()
		if _, err := a.store.Update(t.Context(), network.Cause{}, fn); err != nil {
			t.Fatal(err)
		}
	}
	if got := ask(); got != "" {
		t.Fatalf("reason %q though no port has an address pair", got)
	}
	do(func(tx *network.Tx) error {
		return tx.CreatePort(&network.Port{
			NetworkID: a.network.ID, PortSecurityEnabled: true,
			AllowedAddressPairs: []network.AddressPair{{IP: netip.MustParsePrefix("10.0.0.0/28")}},
		})
	})
	if got := ask(); got != dropSharedAddress {
		t.Errorf("reason %q, want %q", got, dropSharedAddress)
	}
	_, serverIP := a.server()
	if data, reason := a.respond(NewARP(""), arpFrame(t, 1, "10.0.0.5", net.IP(serverIP).String())); data == nil {
		t.Errorf("no answer about the DHCP server, which nobody plugs: %s", reason)
	}
	do(func(tx *network.Tx) error {
		if err := tx.PutHost(&network.Host{
			Name: "h1", TunnelIP: ip4("10.250.0.1"),
			Bridges: map[string]network.Bridge{network.BridgeTunnel: {Tunnels: map[string]uint32{network.TypeGRE: 1}}},
		}); err != nil {
			return err
		}
		owner := tx.PortByIP(a.network.ID, ip4("10.0.0.6"))
		return tx.SyncVIFs("h1", []network.VIF{{PortID: owner.ID, OFPort: 1}})
	})
	if got := ask(); got != "" {
		t.Errorf("reason %q though the address's own port is wired", got)
	}
}

func TestARPUnknownSenders(t *testing.T) {
	a := newAsking(t, nil)
	for _, c := range []struct {
		name          string
		port, network uint32
		want          string
	}{
		{"from a wire", 0, a.network.Key, ""},
		{"a port that is gone", 9999, a.network.Key, dropUnknownPort},
		{"no network", a.port.Key, 0, dropUnknownPort},
		{"a network that is gone", a.port.Key, 9999, dropUnknownPort},
	} {
		in := a.packetIn(arpFrame(t, 1, "10.0.0.5", "10.0.0.6"))
		in.Metadata, in.Regs[regSourcePort] = uint64(c.network), c.port
		var out Replies
		if err := NewARP("").Respond(context.Background(), in, &out); err != nil || out.Dropped() != c.want {
			t.Errorf("%s: reason %q, error %v, want %q", c.name, out.Dropped(), err, c.want)
		}
	}
}

func TestARPTenantsWithTheSameAddresses(t *testing.T) {
	a := newAsking(t, nil)
	mac := network.MAC{0xfa, 0x16, 0x3e, 0, 7, 7}
	b := &answering{t: t, store: a.store, inPort: 9, network: &network.Network{AdminStateUp: true}}
	b.network.ProjectID = "p2"
	b.port = &network.Port{MAC: testMAC, PortSecurityEnabled: true, FixedIPs: []network.FixedIP{{IP: ip4("10.0.0.5")}}}
	subnets := []*network.Subnet{{IPVersion: 4, CIDR: netip.MustParsePrefix("10.0.0.0/24")}}
	b.add(b.network, subnets, b.port, &network.Port{MAC: mac, FixedIPs: []network.FixedIP{{IP: ip4("10.0.0.6")}}})
	for _, c := range []struct {
		tenant *answering
		want   network.MAC
	}{{a, otherMAC}, {b, mac}} {
		data, reason := c.tenant.respond(NewARP(""), arpFrame(t, 1, "10.0.0.5", "10.0.0.6"))
		if data == nil || network.MAC(data[6:12]) != c.want {
			t.Errorf("answer %x (%s), want from %s", data, reason, c.want)
		}
	}
}

func FuzzARP(f *testing.F) {
	a := newAsking(f, nil)
	f.Add(arpFrame(f, 1, "10.0.0.5", "10.0.0.6"))
	f.Add(arpFrame(f, 1, "0.0.0.0", "10.0.0.5"))
	f.Add([]byte{})
	r := NewARP("")
	f.Fuzz(func(t *testing.T, frame []byte) {
		a.t = t
		data, _ := a.respond(r, frame)
		if data != nil && (len(data) != arpLen || !bytes.Equal(data[28:32], frame[38:42]) || bytes.Equal(frame[38:42], []byte{10, 0, 0, 5})) {
			t.Errorf("%x was answered by %x", frame, data)
		}
	})
}

func TestARPAllocatesLittle(t *testing.T) {
	a := newAsking(t, nil)
	in := a.packetIn(arpFrame(t, 1, "10.0.0.5", "10.0.0.6"))
	var out Replies
	r := NewARP(pipeline.ARPPacketIn)
	allocs := testing.AllocsPerRun(100, func() {
		out.reset()
		if err := r.Respond(context.Background(), in, &out); err != nil {
			t.Fatal(err)
		}
	})
	if allocs > 40 { // the View's look-ups make all of them
		t.Errorf("%v allocations for a reply", allocs)
	}
}

func BenchmarkARPReply(b *testing.B) {
	a := newAsking(b, nil)
	in := a.packetIn(arpFrame(b, 1, "10.0.0.5", "10.0.0.6"))
	var out Replies
	r := NewARP(pipeline.ARPCached)
	b.ReportAllocs()
	for b.Loop() {
		out.reset()
		if err := r.Respond(context.Background(), in, &out); err != nil || out.Dropped() != "" {
			b.Fatal(err, out.Dropped())
		}
	}
}
