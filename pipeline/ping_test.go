package pipeline

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"planck/network"
)

// answeredPings are the addresses whose pings the switches answer, or send up to
// be answered, by the network that they come from.
func (w *world) answeredPings() []string {
	var found []string
	for target := range w.compiler.Targets() {
		w.compiler.Read(target, func(s State) {
			for _, f := range s.Desired.Flows {
				feature := Cookie(f.Cookie).Feature()
				if f.Table != RouterAdmit.ID || feature != FeaturePing && feature != FeaturePing6 {
					continue
				}
				for _, term := range strings.Split(f.Match.String(), ",") {
					if strings.HasPrefix(term, "nw_dst=") || strings.HasPrefix(term, "ipv6_dst=") {
						found = append(found, term)
					}
				}
			}
		})
	}
	slices.Sort(found)
	return slices.Compact(found)
}

func TestPingsAreAnsweredForDHCPServersAndRoutersThatAreUp(t *testing.T) {
	w := newWorld(t, Options{})
	w.hosts(1)
	w.network(&network.Network{Standard: network.Standard{ID: "blue"}, NetworkType: "gre", SegmentationID: 5}, "10.0.0.0/24")
	w.port(newPort("a", "blue", "fa:16:3e:00:00:0a", "10.0.0.10"), "host1")
	w.router("r", netip.MustParseAddr("10.0.0.10"), "subnet-blue")
	w.external("r", true)
	w.port(newPort("outside", "public", "fa:16:3e:00:00:0b", "203.0.113.20"), "host1")
	w.floatingIP("f", "a", "203.0.113.30")
	gateway := w.store.View().Port(w.store.View().Router("r").GatewayPortID).FixedIPs[0].IP.String()
	server := w.store.View().DHCPPort("public").FixedIPs[0].IP.String()
	expect := func(when string, want ...string) {
		t.Helper()
		for i := range want {
			want[i] = "nw_dst=" + want[i]
		}
		slices.Sort(want)
		if got := w.answeredPings(); !slices.Equal(got, want) {
			t.Errorf("%s: %v are answered, want %v", when, got, want)
		}
	}
	expect("all is up", "10.0.0.1", "10.0.0.2", gateway, server)
	w.do(func(tx *network.Tx) error {
		r := tx.Router("r").Clone()
		r.AdminStateUp = false
		return tx.UpdateRouter(r)
	})
	expect("the router is down", "10.0.0.2", server)
}
