package pipeline

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"planck/network"
)

// wayTo are the flows of host1 that match one of some destinations, in order.
func (w *world) wayTo(destinations ...string) (lines []string) {
	w.Helper()
	w.compiler.Read(Target{"host1", "br-int"}, func(s State) {
		for line := range strings.Lines(s.Desired.Text(nil)) {
			if slices.ContainsFunc(destinations, func(d string) bool { return strings.Contains(line, "_dst="+d) }) {
				lines = append(lines, strings.TrimSpace(line))
			}
		}
	})
	return lines
}

func TestOfTwoRoutesToOneDestinationTheLowestNextHopCounts(t *testing.T) {
	routes := []network.Route{
		{Destination: netip.MustParsePrefix("172.16.0.0/12"), NextHop: netip.MustParseAddr("10.0.1.9")},
		{Destination: netip.MustParsePrefix("172.16.0.0/12"), NextHop: netip.MustParseAddr("10.0.0.9")},
		{Destination: netip.MustParsePrefix("2001:db8::/32"), NextHop: netip.MustParseAddr("fd00:1::9")},
		{Destination: netip.MustParsePrefix("2001:db8::/32"), NextHop: netip.MustParseAddr("fd00:1::8")},
	}
	w := newWorld(t, Options{})
	w.hosts(1)
	w.network(&network.Network{Standard: network.Standard{ID: "blue"}, NetworkType: "gre", SegmentationID: 5}, "10.0.0.0/24")
	w.network(&network.Network{Standard: network.Standard{ID: "green"}, NetworkType: "gre", SegmentationID: 6}, "10.0.1.0/24")
	w.network(&network.Network{Standard: network.Standard{ID: "six"}, NetworkType: "gre", SegmentationID: 7}, "")
	w.subnet6("six", "fd00:1::/64", network.SLAAC)
	w.router("r", netip.MustParseAddr("10.0.0.10"), "subnet-blue", "subnet-green", "subnet-six")
	w.port(newPort("a", "blue", "fa:16:3e:00:00:0a", "10.0.0.10"), "host1")
	lead := func() []string {
		w.do(func(tx *network.Tx) error {
			r := tx.Router("r").Clone()
			r.Routes = slices.Clone(routes)
			return tx.UpdateRouter(r)
		})
		return w.wayTo("172.16.0.0/12", "2001:db8::/32")
	}
	one := lead()
	slices.Reverse(routes)
	if other := lead(); len(one) != 2 || !slices.Equal(one, other) {
		t.Errorf("in one order %q, in the other %q", one, other)
	}
	if text := strings.Join(one, "\n"); !strings.Contains(text, "0xa000009->reg8") {
		t.Errorf("not by the lowest next hop:\n%s", text)
	}
}

// The API takes an external subnet with the addresses of an interface that was
// there before.
func TestInterfaceGoesBeforeAnExternalSubnetWithItsAddresses(t *testing.T) {
	w := newWorld(t, Options{})
	w.hosts(1)
	w.network(&network.Network{Standard: network.Standard{ID: "blue"}, NetworkType: "gre", SegmentationID: 5}, "10.0.0.0/24")
	w.router("r", netip.MustParseAddr("10.0.0.10"), "subnet-blue")
	w.external("r", true)
	w.port(newPort("a", "blue", "fa:16:3e:00:00:0a", "10.0.0.10"), "host1")
	before := w.wayTo("10.0.0.0/24", "172.16.0.0/12")
	w.do(func(tx *network.Tx) error {
		return tx.CreateSubnet(&network.Subnet{NetworkID: "public", CIDR: netip.MustParsePrefix("10.0.0.0/24"), IPVersion: 4, GatewayIP: netip.MustParseAddr("10.0.0.1")})
	})
	if after := w.wayTo("10.0.0.0/24", "172.16.0.0/12"); len(before) < 2 || !slices.Equal(before, after) {
		t.Errorf("before %q, after %q", before, after)
	}
}
