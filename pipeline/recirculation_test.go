package pipeline

import (
	"net/netip"
	"slices"
	"testing"

	"planck/flows"
	"planck/network"
)

// A switch in user space drops a packet at its seventh recirculation, and at its
// sixth when it came by a tunnel.
const maxRecirculations, maxAfterTunnel = 6, 5

// TestLongestPathsStayWithinTheRecirculationsOfASwitch follows packets that are
// translated twice on one host, from one floating IP to another, and that
// security groups look at on both ends. The walker counts as a real switch does.
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
	sw := startTracedHosts(t, 2, 2)
	sw.load(w.compiler, 2)
	transit := view.Presence("r", "host1")
	toFloating := func(port uint32, f frame) arrival {
		f.ethDst, f.dst, f.ttl, f.sport, f.dport = network.MAC{0xfa, 0x16, 0x3e, 0x22, 0, 0}, netip.MustParseAddr("203.0.113.51"), 64, 1000, 2000
		return arrival{host: "host1", bridge: "br-int", port: port, frame: f}
	}
	for _, c := range []struct {
		what    string
		arrival arrival
		source  string
		most    int
	}{
		{"from a floating IP beside it", toFloating(1, frame{ethSrc: network.MAC{0xfa, 0x16, 0x3e, 0, 0, 0x0a}, src: netip.MustParseAddr("10.0.0.10")}),
			"203.0.113.50", maxRecirculations},
		{"from itself", toFloating(2, frame{ethSrc: network.MAC{0xfa, 0x16, 0x3e, 0, 0, 0x0b}, src: netip.MustParseAddr("10.0.0.11")}),
			"203.0.113.51", maxRecirculations},
		{"from a VM of another host, by the gateway", toFloating(patchToTunnel, frame{vlan: transit.VLAN, src: netip.MustParseAddr("10.0.0.99")}),
			"203.0.113.3", maxAfterTunnel},
	} {
		want := delivered("b", netip.MustParseAddr(c.source), netip.MustParseAddr("10.0.0.11"))
		walker := walked{t, map[Target]*flows.Walker{}, 0}
		w.compiler.Read(Target{"host1", "br-int"}, func(s State) {
			walker.walkers[Target{"host1", "br-int"}] = flows.NewWalker(s.Desired)
			walker.walkers[Target{"host1", "br-int"}].ConnState = ctTracked | ctNew
		})
		for name, f := range map[string]forwarder{"the walker": &walker, "a switch": sw} {
			got, way := (&fabric{t, view, nil, f}).travel(c.arrival)
			if !slices.Equal(got, []string{want}) {
				t.Fatalf("%s, by %s: %q, want %q\n%s", c.what, name, got, want, way)
			}
		}
		_, said := sw.forward(c.arrival)
		if most := len(resumes.FindAllString(said, -1)); most != walker.most || most > c.most {
			t.Errorf("%s: a switch makes %d recirculations, the walker %d, more than %d are too many\n%s", c.what, most, walker.most, c.most, said)
		}
		t.Logf("%s: %d recirculations", c.what, walker.most)
	}
}
