package pipeline

import (
	"net/netip"
	"testing"

	"planck/flows"
	"planck/network"
)

// A switch in user space drops a packet at its seventh recirculation, and at its
// sixth when it came by a tunnel.
const maxRecirculations, maxAfterTunnel = 6, 5

// TestLongestPathsStayWithinTheRecirculationsOfASwitch follows packets that are
// translated twice on one host, from one floating IP to another, and that
// security groups look at on both ends.
func TestLongestPathsStayWithinTheRecirculationsOfASwitch(t *testing.T) {
	w := newWorld(t, Options{})
	w.hosts(2)
	w.network(&network.Network{Standard: network.Standard{ID: "blue"}, NetworkType: "gre", SegmentationID: 5}, "10.0.0.0/24")
	w.router("r", netip.MustParseAddr("10.0.0.10"), "subnet-blue")
	w.external("r", true)
	w.group("any")
	w.rule("in", "any", func(*network.SecurityGroupRule) {})
	w.rule("out", "any", func(r *network.SecurityGroupRule) { r.Direction = network.Egress })
	w.port(grouped(newPort("a", "blue", "fa:16:3e:00:00:0a", "10.0.0.10"), "any"), "host1")
	w.port(grouped(newPort("b", "blue", "fa:16:3e:00:00:0b", "10.0.0.11"), "any"), "host1")
	w.floatingIP("fa", "a", "203.0.113.50")
	w.floatingIP("fb", "b", "203.0.113.51")
	view := w.store.View()
	if at := view.GatewayHost("r"); at != "host1" {
		t.Fatalf("the gateway is on %q: packets don't go around on host1", at)
	}
	toFloating := func(terms ...flows.Term) flows.Packet {
		return flows.NewPacket(append(terms, flows.IPv4, flows.IPTTL.Is(64), flows.UDP, flows.IPv4Dst.IsIP(netip.MustParseAddr("203.0.113.51")))...)
	}
	transit := view.Presence("r", "host1")
	for _, c := range []struct {
		what   string
		packet flows.Packet
		source string
		most   int
	}{
		{"from a floating IP beside it", toFloating(flows.InPort.Is(1), flows.EthSrc.IsMAC(network.MAC{0xfa, 0x16, 0x3e, 0, 0, 0x0a}),
			flows.EthDst.IsMAC(network.MAC{0xfa, 0x16, 0x3e, 0x22, 0, 0}), flows.IPv4Src.IsIP(netip.MustParseAddr("10.0.0.10"))),
			"203.0.113.50", maxRecirculations},
		{"from itself", toFloating(flows.InPort.Is(2), flows.EthSrc.IsMAC(network.MAC{0xfa, 0x16, 0x3e, 0, 0, 0x0b}),
			flows.EthDst.IsMAC(network.MAC{0xfa, 0x16, 0x3e, 0x22, 0, 0}), flows.IPv4Src.IsIP(netip.MustParseAddr("10.0.0.11"))),
			"203.0.113.51", maxRecirculations},
		{"from a VM of another host, by the gateway", toFloating(flows.InPort.Is(101), flows.VLANVID.Is(flows.VLANPresent|uint64(transit.VLAN)),
			flows.IPv4Src.IsIP(netip.MustParseAddr("10.0.0.99"))), "203.0.113.3", maxAfterTunnel},
	} {
		w.compiler.Read(Target{"host1", "br-int"}, func(s State) {
			walker := flows.NewWalker(s.Desired)
			walker.ConnState = 0x21 // tracked, new
			trace, err := walker.Walk(c.packet)
			if err != nil {
				t.Fatalf("%s: %s\n%s", c.what, err, &trace)
			}
			if trace.Recirculations > c.most {
				t.Errorf("%s: %d recirculations, more than %d\n%s", c.what, trace.Recirculations, c.most, &trace)
			}
			if len(trace.Sent) != 1 || trace.Sent[0].Port != 2 {
				t.Fatalf("%s: it did not reach its VM\n%s", c.what, &trace)
			}
			want := flows.NewMatch(flows.IPv4Src.IsIP(netip.MustParseAddr(c.source)), flows.IPv4Dst.IsIP(netip.MustParseAddr("10.0.0.11")))
			if !trace.Sent[0].Packet.Matches(want) {
				t.Errorf("%s: it arrives as %s, want %s", c.what, trace.Sent[0].Packet, want)
			}
		})
	}
}
