package bench

import (
	"context"
	"net/netip"
	"testing"

	"planck/network"
)

// TestOneMorePortCostsTheSameAtEverySize counts what one more port leads to:
// neither the units compiled nor the messages to switches grow with the cloud.
func TestOneMorePortCostsTheSameAtEverySize(t *testing.T) {
	const hosts = 20
	var first step
	for _, size := range []int{30, 1000, 10_000} {
		w, _, _ := newCompiled(t, newCloud(t, hosts, size))
		one := w.onePort(w.ports)
		t.Logf("%d ports: %d units, %d messages", size, one.units, one.changed)
		one.cpu = 0
		if first == (step{}) {
			first = one
		}
		if one != first {
			t.Errorf("one more port at %d ports leads to %d units and %d messages, at 30 ports to %d and %d",
				size, one.units, one.changed, first.units, first.changed)
		}
		if perHost := 12; one.changed > perHost*portsPerNetwork {
			t.Errorf("one more port leads to %d messages to %d hosts", one.changed, portsPerNetwork)
		}
	}
}

// spread is what one transaction led to, on all hosts and on the one with the
// most of it.
type spread struct{ units, hosts, messages, most int }

func (w *compiled) spread(fn func(tx *network.Tx) error) spread {
	w.Helper()
	w.do(fn)
	batch, err := w.follower.Next(context.Background())
	if err != nil {
		w.Fatal(err)
	}
	out := w.compiler.Apply(batch)
	perHost := map[string]int{}
	for target, dirty := range out.Dirty {
		perHost[target.Host] += len(dirty.Flows) + len(dirty.Groups) + len(dirty.Meters)
	}
	s := spread{units: out.Units, hosts: len(perHost)}
	for _, n := range perHost {
		s.messages += n
		s.most = max(s.most, n)
	}
	return s
}

const alone = "10.9.0.0/24" // of a subnet that no router has yet

// newRouted makes a cloud in which each network but the last has a router with a
// gateway, and the external network is on every host, by a floating IP there.
func newRouted(tb testing.TB, hosts, ports int) *compiled {
	tb.Helper()
	c := newCloud(tb, hosts, ports)
	last := c.ports/portsPerNetwork - 1
	c.do(func(tx *network.Tx) error {
		for i := range hosts {
			if err := tx.PutHost(withExternalBridge(modelHost(i))); err != nil {
				return err
			}
		}
		public := &network.Network{Standard: network.Standard{ID: "public"}, NetworkType: network.TypeFlat, PhysicalNetwork: "physnet1", External: true, AdminStateUp: true}
		if err := tx.CreateNetwork(public); err != nil {
			return err
		}
		if err := createSubnet(tx, "public", "203.0.112.0/20"); err != nil {
			return err
		}
		return createSubnet(tx, networkID(last), alone)
	})
	c.do(func(tx *network.Tx) error {
		for n := range last {
			r := &network.Router{Standard: network.Standard{ID: routerID(n)}, AdminStateUp: true, EnableSNAT: true, ExternalNetworkID: "public"}
			if err := tx.CreateRouter(r); err != nil {
				return err
			}
			if _, err := tx.AddRouterInterface(r.ID, subnetIn(tx, n, "10.0.0.0/24"), ""); err != nil {
				return err
			}
		}
		for i := range hosts {
			if err := createFloatingIP(tx, i); err != nil {
				return err
			}
		}
		return nil
	})
	w, _, _ := newCompiled(tb, c)
	return w
}

func routerID(n int) string { return "router" + networkID(n) }

func withExternalBridge(h *network.Host) *network.Host {
	h.BridgeMappings = map[string]string{"physnet1": "br-ex"}
	h.Bridges["br-ex"] = network.Bridge{DatapathID: h.Bridges[network.BridgeIntegration].DatapathID + 2, Patches: map[string]uint32{network.BridgeIntegration: 1}}
	h.Bridges[network.BridgeIntegration].Patches["br-ex"] = 0xfe01
	return h
}

func createSubnet(tx *network.Tx, networkID, cidr string) error {
	prefix := netip.MustParsePrefix(cidr)
	return tx.CreateSubnet(&network.Subnet{NetworkID: networkID, CIDR: prefix, IPVersion: 4, GatewayIP: prefix.Addr().Next()})
}

// subnetIn is the id of the subnet of a network with some addresses.
func subnetIn(tx *network.Tx, n int, cidr string) string {
	for s := range tx.SubnetsOf(networkID(n)) {
		if s.CIDR == netip.MustParsePrefix(cidr) {
			return s.ID
		}
	}
	return ""
}

func createFloatingIP(tx *network.Tx, port int) error {
	return tx.CreateFloatingIP(&network.FloatingIP{FloatingNetworkID: "public", PortID: portID(port)})
}

// TestRoutersAndFloatingIPsCostTheSameAtEverySize counts what a router's
// interface and a floating IP lead to: as much on a host of a small cloud as on
// one of a large cloud.
func TestRoutersAndFloatingIPsCostTheSameAtEverySize(t *testing.T) {
	const hosts = 20
	small := map[string]spread{}
	for _, size := range []int{40, 1000} {
		w := newRouted(t, hosts, size)
		var floating string
		counts := map[string]spread{
			"router interface added": w.spread(func(tx *network.Tx) error {
				_, err := tx.AddRouterInterface(routerID(0), subnetIn(tx, size/portsPerNetwork-1, alone), "")
				return err
			}),
			"floating IP created": w.spread(func(tx *network.Tx) error {
				f := &network.FloatingIP{FloatingNetworkID: "public"}
				err := tx.CreateFloatingIP(f)
				floating = f.ID
				return err
			}),
			"floating IP associated": w.spread(func(tx *network.Tx) error {
				f := tx.FloatingIP(floating).Clone()
				f.PortID = portID(hosts)
				return tx.UpdateFloatingIP(f)
			}),
		}
		for what, s := range counts {
			t.Logf("%d ports, %s: %d units; %d messages to %d hosts, %d to one", size, what, s.units, s.messages, s.hosts, s.most)
			if small[what] == (spread{}) {
				small[what] = s
			}
			if first := small[what]; s.units > first.units || s.most > first.most || s.hosts > first.hosts {
				t.Errorf("%s at %d ports leads to %+v, at 40 ports to %+v", what, size, s, first)
			}
		}
	}
}
