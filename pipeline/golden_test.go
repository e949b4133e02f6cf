package pipeline

import (
	"context"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"planck/flows"
	"planck/network"
)

var update = flag.Bool("update", false, "rewrite golden files and generated documents")

// world is a model with a compiler that follows it.
type world struct {
	*testing.T
	store    *network.Store
	follower *network.Follower
	compiler *Compiler
}

func newWorld(t *testing.T, o Options) *world {
	t.Helper()
	cfg := network.DefaultConfig()
	cfg.VLANRanges = map[string][]network.IDRange{"physnet1": nil}
	store, err := network.Open(t.Context(), "sqlite://"+filepath.Join(t.TempDir(), "planck.db"), cfg)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{T: t, store: store, follower: store.Follow(), compiler: NewCompiler(o)}
	t.Cleanup(func() {
		w.follower.Close()
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	w.compile()
	return w
}

// do runs a transaction and compiles what it changed.
func (w *world) do(fn func(tx *network.Tx) error) Outcome {
	w.Helper()
	if _, err := w.store.Update(w.Context(), network.Cause{}, fn); err != nil {
		w.Fatal(err)
	}
	return w.compile()
}

// compile follows to the newest revision, and checks every flow against its table.
func (w *world) compile() Outcome {
	w.Helper()
	b, err := w.follower.Next(context.Background())
	if err != nil {
		w.Fatal(err)
	}
	out := w.compiler.Apply(b)
	for _, err := range out.Errors {
		w.Error(err)
	}
	for target := range out.Dirty {
		w.compiler.Read(target, func(s State) {
			for _, set := range []*flows.Set{s.Desired, s.Permitted} {
				for _, f := range set.Flows {
					if err := Verify(target.Bridge, f); err != nil {
						w.Error(err)
					}
				}
			}
		})
	}
	return out
}

// host joins a hypervisor with br-int, br-tun and br-ex.
func host(name string, n byte) *network.Host {
	return &network.Host{
		Name: name, SystemID: name, TunnelIP: netip.AddrFrom4([4]byte{10, 250, 0, n}), DatapathType: "netdev",
		BridgeMappings: map[string]string{"physnet1": "br-ex"},
		Bridges: map[string]network.Bridge{
			"br-int": {DatapathID: uint64(n)<<8 | 1, Patches: map[string]uint32{"br-tun": 101, "br-ex": 102}},
			"br-tun": {DatapathID: uint64(n)<<8 | 2, Patches: map[string]uint32{"br-int": 103}, Tunnels: map[string]uint32{"gre": 111, "vxlan": 112, "geneve": 113}},
			"br-ex":  {DatapathID: uint64(n)<<8 | 3, Patches: map[string]uint32{"br-int": 104}},
		},
	}
}

func (w *world) hosts(n int) {
	w.Helper()
	w.do(func(tx *network.Tx) error {
		for i := range n {
			if err := tx.PutHost(host(fmt.Sprintf("host%d", i+1), byte(i+1))); err != nil {
				return err
			}
		}
		return nil
	})
}

func (w *world) network(n *network.Network, cidr string) {
	w.Helper()
	n.AdminStateUp, n.PortSecurityEnabled = true, true
	w.do(func(tx *network.Tx) error {
		if err := tx.CreateNetwork(n); err != nil || cidr == "" {
			return err
		}
		prefix := netip.MustParsePrefix(cidr)
		err := tx.CreateSubnet(&network.Subnet{
			Standard: network.Standard{ID: "subnet-" + n.ID}, NetworkID: n.ID, CIDR: prefix, IPVersion: 4,
			GatewayIP: prefix.Addr().Next(), EnableDHCP: true,
		})
		if err != nil {
			return err
		}
		return w.fixedServer(tx, n.ID)
	})
}

// port makes a port and plugs it on a host.
func (w *world) port(p *network.Port, host string) Outcome {
	w.Helper()
	w.do(func(tx *network.Tx) error { return tx.CreatePort(p) })
	return w.plug(host, p.ID)
}

// plug adds interfaces to those that a host has.
func (w *world) plug(host string, portIDs ...string) Outcome {
	w.Helper()
	return w.do(func(tx *network.Tx) error {
		vifs := []network.VIF{}
		next := uint32(1)
		for v := range tx.VIFsOn(host) {
			vifs = append(vifs, *v)
			next = max(next, v.OFPort+1)
		}
		for _, id := range portIDs {
			vifs = append(vifs, network.VIF{PortID: id, Host: host, Name: "tap" + id, OFPort: next})
			next++
		}
		return tx.SyncVIFs(host, vifs)
	})
}

// subnet6 adds an IPv6 subnet in a mode to a network without another.
func (w *world) subnet6(networkID, cidr, mode string) {
	w.Helper()
	w.do(func(tx *network.Tx) error {
		prefix := netip.MustParsePrefix(cidr)
		err := tx.CreateSubnet(&network.Subnet{
			Standard: network.Standard{ID: "subnet-" + networkID}, NetworkID: networkID, CIDR: prefix, IPVersion: 6,
			GatewayIP: prefix.Addr().Next(), EnableDHCP: true, IPv6AddressMode: mode, IPv6RAMode: mode,
		})
		if err != nil {
			return err
		}
		return w.fixedServer(tx, networkID)
	})
}

// fixedServer gives a network's DHCP port a MAC that is always the same.
func (w *world) fixedServer(tx *network.Tx, networkID string) error {
	server := *tx.DHCPPort(networkID)
	server.MAC = network.MAC{0xfa, 0x16, 0x3e, 0xdc, 0, byte(tx.Network(networkID).Key)}
	return tx.UpdatePort(&server)
}

// router makes a router with interfaces on subnets and one extra route.
func (w *world) router(id string, nextHop netip.Addr, subnets ...string) {
	w.Helper()
	w.do(func(tx *network.Tx) error {
		r := &network.Router{Standard: network.Standard{ID: id}, AdminStateUp: true}
		if err := tx.CreateRouter(r); err != nil {
			return err
		}
		for i, s := range subnets {
			added, err := tx.AddRouterInterface(id, s, "")
			if err != nil {
				return err
			}
			p := added.Clone() // its MAC is random
			p.MAC = network.MAC{0xfa, 0x16, 0x3e, 0x22, 0, byte(i)}
			if err := tx.UpdatePort(p); err != nil {
				return err
			}
		}
		r = tx.Router(id).Clone()
		destination := netip.MustParsePrefix("172.16.0.0/12")
		if nextHop.Is6() {
			destination = netip.MustParsePrefix("2001:db8::/32")
		}
		r.Routes = []network.Route{{Destination: destination, NextHop: nextHop}}
		return tx.UpdateRouter(r)
	})
}

// external makes a flat external network, and gives a router its gateway there.
func (w *world) external(routerID string, snat bool) {
	w.Helper()
	w.network(&network.Network{Standard: network.Standard{ID: "public"}, NetworkType: "flat", PhysicalNetwork: "physnet1", External: true}, "203.0.113.0/24")
	w.gateway(routerID, snat, "203.0.113.1")
}

// external6 gives a router a gateway on an external network with IPv6 only.
func (w *world) external6(routerID string) {
	w.Helper()
	w.network(&network.Network{Standard: network.Standard{ID: "public"}, NetworkType: "flat", PhysicalNetwork: "physnet1", External: true}, "")
	w.subnet6("public", "2001:db8:ff::/64", "")
	w.gateway(routerID, true, "2001:db8:ff::1")
}

// gateway gives a router a gateway on the network public, with a known next hop.
func (w *world) gateway(routerID string, snat bool, nextHop string) {
	w.Helper()
	w.do(func(tx *network.Tx) error {
		r := tx.Router(routerID).Clone()
		r.ExternalNetworkID, r.EnableSNAT = "public", snat
		if err := tx.UpdateRouter(r); err != nil {
			return err
		}
		p := tx.Port(r.GatewayPortID).Clone() // its MAC is random
		p.MAC = network.MAC{0xfa, 0x16, 0x3e, 0x99, 0, 1}
		if err := tx.UpdatePort(p); err != nil {
			return err
		}
		return tx.PutExternalNeighbor(network.ExternalNeighbor{NetworkID: "public", IP: netip.MustParseAddr(nextHop), MAC: network.MAC{2, 0, 0, 0, 0, 1}})
	})
}

// floatingIP gives a port a floating IP.
func (w *world) floatingIP(id, portID, address string) {
	w.Helper()
	w.do(func(tx *network.Tx) error {
		f := &network.FloatingIP{Standard: network.Standard{ID: id}, FloatingNetworkID: "public", Address: netip.MustParseAddr(address), PortID: portID}
		if err := tx.CreateFloatingIP(f); err != nil {
			return err
		}
		p := tx.Port(f.FloatingPortID).Clone() // its MAC is random
		p.MAC = network.MAC{0xfa, 0x16, 0x3e, 0x77, 0, byte(f.Key)}
		return tx.UpdatePort(p)
	})
}

func newPort(id, networkID, mac, ip string) *network.Port {
	m, err := network.ParseMAC(mac)
	if err != nil {
		panic(err)
	}
	return &network.Port{
		Standard: network.Standard{ID: id}, NetworkID: networkID, MAC: m, AdminStateUp: true, PortSecurityEnabled: true,
		FixedIPs: []network.FixedIP{{IP: netip.MustParseAddr(ip)}},
	}
}

// text is the whole state of all bridges.
func (w *world) text() string {
	var b strings.Builder
	for target := range w.compiler.Targets() {
		w.compiler.Read(target, func(s State) {
			name := func(id uint8) string { return TableName(target.Bridge, id) }
			fmt.Fprintf(&b, "# %s %s\n%s", target.Host, target.Bridge, s.Desired.Text(name))
			if len(s.Permitted.Flows) > 0 {
				fmt.Fprintf(&b, "# %s %s, permitted\n%s", target.Host, target.Bridge, s.Permitted.Text(name))
			}
		})
	}
	return b.String()
}

func checkGolden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", file, diff)
	}
}

var stories = []struct {
	name    string
	options Options
	tell    func(w *world)
}{
	{"host_alone", Options{}, func(w *world) { w.hosts(1) }},
	{"gre_two_hosts", Options{PuntRatePerHost: 1000}, func(w *world) {
		w.hosts(2)
		w.network(&network.Network{Standard: network.Standard{ID: "blue"}, NetworkType: "gre", SegmentationID: 5}, "10.0.0.0/24")
		w.port(newPort("a", "blue", "fa:16:3e:00:00:0a", "10.0.0.10"), "host1")
		w.port(newPort("b", "blue", "fa:16:3e:00:00:0b", "10.0.0.11"), "host2")
	}},
	{"arp_proactive", Options{ARPMode: ARPProactive}, func(w *world) {
		w.hosts(1)
		w.network(&network.Network{Standard: network.Standard{ID: "blue"}, NetworkType: "local"}, "10.0.0.0/24")
		w.port(newPort("a", "blue", "fa:16:3e:00:00:0a", "10.0.0.10"), "host1")
	}},
	{"address_pairs_and_no_port_security", Options{}, func(w *world) {
		w.hosts(1)
		w.network(&network.Network{Standard: network.Standard{ID: "blue"}, NetworkType: "gre", SegmentationID: 5}, "10.0.0.0/24")
		paired := newPort("paired", "blue", "fa:16:3e:00:00:0a", "10.0.0.10")
		paired.AllowedAddressPairs = []network.AddressPair{
			{IP: netip.MustParsePrefix("10.0.0.100/32"), MAC: network.MAC{0, 0, 0x5e, 0, 1, 1}},
			{IP: netip.MustParsePrefix("fd00::/64"), MAC: paired.MAC},
		}
		w.port(paired, "host1")
		loose := newPort("loose", "blue", "fa:16:3e:00:00:0b", "10.0.0.11")
		loose.PortSecurityEnabled = false
		w.port(loose, "host1")
	}},
	{"addresses_that_move", Options{PuntRatePerHost: 1000}, func(w *world) {
		w.hosts(1)
		w.network(&network.Network{Standard: network.Standard{ID: "front"}, NetworkType: "gre", SegmentationID: 5}, "10.0.0.0/24")
		w.network(&network.Network{Standard: network.Standard{ID: "wide"}, NetworkType: "gre", SegmentationID: 6}, "10.0.1.0/24")
		w.do(func(tx *network.Tx) error {
			return tx.CreatePort(newPort("reserved", "front", "fa:16:3e:00:00:64", "10.0.0.100"))
		})
		for i, id := range []string{"one", "two"} {
			p := newPort(id, "front", fmt.Sprintf("fa:16:3e:00:00:0%d", i+1), fmt.Sprintf("10.0.0.1%d", i+1))
			p.AllowedAddressPairs = []network.AddressPair{{IP: netip.MustParsePrefix("10.0.0.100/32")}, {IP: netip.MustParsePrefix("10.0.0.101/32")}}
			w.port(p, "host1")
		}
		loose := newPort("loose", "wide", "fa:16:3e:00:00:03", "10.0.1.13")
		loose.PortSecurityEnabled = false
		w.port(loose, "host1")
		w.router("r", netip.MustParseAddr("10.0.0.101"), "subnet-front", "subnet-wide")
		w.do(func(tx *network.Tx) error {
			return tx.SetAddressHolder(network.AddressHolder{NetworkID: "front", IP: netip.MustParseAddr("10.0.0.100"), PortID: "two", MAC: tx.Port("two").MAC})
		})
	}},
	{"vlan_and_flat", Options{}, func(w *world) {
		w.hosts(1)
		w.network(&network.Network{Standard: network.Standard{ID: "ops"}, NetworkType: "vlan", PhysicalNetwork: "physnet1", SegmentationID: 101}, "192.168.57.0/24")
		w.network(&network.Network{Standard: network.Standard{ID: "public"}, NetworkType: "flat", PhysicalNetwork: "physnet1"}, "203.0.113.0/24")
		w.port(newPort("a", "ops", "fa:16:3e:00:00:0a", "192.168.57.10"), "host1")
		w.port(newPort("b", "public", "fa:16:3e:00:00:0b", "203.0.113.10"), "host1")
	}},
	{"network_of_two_segments", Options{}, func(w *world) {
		w.hosts(1)
		w.do(func(tx *network.Tx) error { // host2 is on another physical network
			h := host("host2", 2)
			h.BridgeMappings = map[string]string{"physnet2": "br-ex"}
			return tx.PutHost(h)
		})
		wide := &network.Network{Standard: network.Standard{ID: "wide"}}
		wide.SetSegments([]network.Segment{{NetworkType: "vlan", PhysicalNetwork: "physnet1", SegmentationID: 101}, {NetworkType: "vlan", PhysicalNetwork: "physnet2", SegmentationID: 202}})
		w.network(wide, "10.0.0.0/24")
		w.port(newPort("a", "wide", "fa:16:3e:00:00:0a", "10.0.0.10"), "host1")
		w.port(newPort("b", "wide", "fa:16:3e:00:00:0b", "10.0.0.11"), "host2")
	}},
	{"router_between_gre_and_vlan", Options{PuntRatePerHost: 1000}, func(w *world) {
		w.hosts(2)
		w.network(&network.Network{Standard: network.Standard{ID: "blue"}, NetworkType: "gre", SegmentationID: 5}, "10.0.0.0/24")
		w.network(&network.Network{Standard: network.Standard{ID: "green"}, NetworkType: "vlan", PhysicalNetwork: "physnet1", SegmentationID: 101}, "10.0.1.0/24")
		w.router("r", netip.MustParseAddr("10.0.0.10"), "subnet-blue", "subnet-green")
		w.port(newPort("a", "blue", "fa:16:3e:00:00:0a", "10.0.0.10"), "host1")
		w.port(newPort("b", "green", "fa:16:3e:00:00:0b", "10.0.1.11"), "host2")
	}},
	{"ipv6_router_between_gre_and_vlan", Options{}, func(w *world) {
		w.hosts(2)
		w.network(&network.Network{Standard: network.Standard{ID: "blue"}, NetworkType: "gre", SegmentationID: 5}, "")
		w.network(&network.Network{Standard: network.Standard{ID: "green"}, NetworkType: "vlan", PhysicalNetwork: "physnet1", SegmentationID: 101}, "")
		w.subnet6("blue", "fd00:1::/64", network.SLAAC)
		w.subnet6("green", "fd00:2::/64", network.DHCPv6Stateful)
		w.router("r", netip.MustParseAddr("fd00:1::f816:3eff:fe00:a"), "subnet-blue", "subnet-green")
		w.port(newPort("a", "blue", "fa:16:3e:00:00:0a", "fd00:1::f816:3eff:fe00:a"), "host1")
		w.port(newPort("b", "green", "fa:16:3e:00:00:0b", "fd00:2::b"), "host2")
	}},
	{"gateway_and_floating_ip", Options{PuntRatePerHost: 1000}, func(w *world) {
		w.hosts(1)
		w.do(func(tx *network.Tx) error { // host2 has no external bridge
			h := host("host2", 2)
			h.BridgeMappings = nil
			delete(h.Bridges, "br-ex")
			delete(h.Bridges["br-int"].Patches, "br-ex")
			return tx.PutHost(h)
		})
		w.network(&network.Network{Standard: network.Standard{ID: "blue"}, NetworkType: "gre", SegmentationID: 5}, "10.0.0.0/24")
		w.router("r", netip.MustParseAddr("10.0.0.10"), "subnet-blue")
		w.external("r", true)
		w.port(newPort("a", "blue", "fa:16:3e:00:00:0a", "10.0.0.10"), "host1")
		w.port(newPort("b", "blue", "fa:16:3e:00:00:0b", "10.0.0.11"), "host2")
		w.floatingIP("fa", "a", "203.0.113.50")
		w.floatingIP("fb", "b", "203.0.113.51")
	}},
	{"gateway_without_snat", Options{}, func(w *world) {
		w.hosts(1)
		w.network(&network.Network{Standard: network.Standard{ID: "blue"}, NetworkType: "gre", SegmentationID: 5}, "10.0.0.0/24")
		w.router("r", netip.MustParseAddr("10.0.0.10"), "subnet-blue")
		w.external("r", false)
		w.port(newPort("a", "blue", "fa:16:3e:00:00:0a", "10.0.0.10"), "host1")
		w.floatingIP("fa", "a", "203.0.113.50")
	}},
	{"ipv6_gateway", Options{}, func(w *world) {
		w.hosts(2)
		w.network(&network.Network{Standard: network.Standard{ID: "blue"}, NetworkType: "gre", SegmentationID: 5}, "")
		w.subnet6("blue", "fd00:1::/64", network.SLAAC)
		w.router("r", netip.MustParseAddr("fd00:1::f816:3eff:fe00:a"), "subnet-blue")
		w.external6("r")
		w.port(newPort("a", "blue", "fa:16:3e:00:00:0a", "fd00:1::f816:3eff:fe00:a"), "host1")
		w.port(newPort("b", "blue", "fa:16:3e:00:00:0b", "fd00:1::f816:3eff:fe00:b"), "host2")
	}},
	{"security_groups", Options{}, tellSecurityGroups},
	{"stateless_security_group", Options{}, tellStatelessGroup},
	{"admin_down", Options{}, func(w *world) {
		w.hosts(1)
		w.network(&network.Network{Standard: network.Standard{ID: "blue"}, NetworkType: "gre", SegmentationID: 5}, "10.0.0.0/24")
		down := newPort("a", "blue", "fa:16:3e:00:00:0a", "10.0.0.10")
		down.AdminStateUp = false
		w.port(down, "host1")
	}},
}

func TestGolden(t *testing.T) {
	for _, s := range stories {
		t.Run(s.name, func(t *testing.T) {
			w := newWorld(t, s.options)
			s.tell(w)
			checkGolden(t, s.name+".txt", w.text())
		})
	}
}

func TestIncrementalCompilationEqualsCompilationFromScratch(t *testing.T) {
	for _, s := range stories {
		t.Run(s.name, func(t *testing.T) {
			w := newWorld(t, s.options)
			s.tell(w)
			fresh := &world{T: t, store: w.store, follower: w.store.Follow(), compiler: NewCompiler(s.options)}
			defer fresh.follower.Close()
			fresh.compile()
			if diff := cmp.Diff(fresh.text(), w.text()); diff != "" {
				t.Errorf("from scratch (-), step by step (+):\n%s", diff)
			}
		})
	}
}

func TestDeletingEverythingLeavesTheBaseFlows(t *testing.T) {
	w := newWorld(t, Options{})
	w.hosts(2)
	base := w.text()
	w.network(&network.Network{Standard: network.Standard{ID: "blue"}, NetworkType: "gre", SegmentationID: 5}, "10.0.0.0/24")
	w.port(newPort("a", "blue", "fa:16:3e:00:00:0a", "10.0.0.10"), "host1")
	w.port(newPort("b", "blue", "fa:16:3e:00:00:0b", "10.0.0.11"), "host2")
	w.do(func(tx *network.Tx) error {
		for _, id := range []string{"a", "b"} {
			if err := tx.DeletePort(id); err != nil {
				return err
			}
		}
		return tx.DeleteNetwork("blue")
	})
	if diff := cmp.Diff(base, w.text()); diff != "" {
		t.Errorf("before (-), after (+):\n%s", diff)
	}
	if n := len(w.compiler.origins[network.KindPort]) + len(w.compiler.origins[network.KindNetwork]); n != 0 {
		t.Errorf("the compiler still knows %d objects", n)
	}
}

// One more port costs the same in a small cloud and in a large one.
func TestCostOfOnePortDoesNotGrowWithTheCloud(t *testing.T) {
	cost := func(networks, ports int) (units, keys int) {
		w := newWorld(t, Options{})
		w.hosts(4)
		for n := range networks {
			id := fmt.Sprintf("net%d", n)
			w.network(&network.Network{Standard: network.Standard{ID: id}, NetworkType: "gre", SegmentationID: uint32(n + 1)}, "10.0.0.0/16")
			var plugged [4][]string
			w.do(func(tx *network.Tx) error {
				for p := range ports {
					port := newPort(fmt.Sprintf("p%d-%d", n, p), id, fmt.Sprintf("fa:16:3e:%02x:%02x:%02x", n, p>>8, p&255), fmt.Sprintf("10.0.%d.%d", 1+p>>8, p&255))
					if err := tx.CreatePort(port); err != nil {
						return err
					}
					plugged[p%4] = append(plugged[p%4], port.ID)
				}
				return nil
			})
			for h, ids := range plugged {
				w.plug(fmt.Sprintf("host%d", h+1), ids...)
			}
		}
		add := func(id, mac, ip string) Outcome {
			return w.port(newPort(id, "net0", mac, ip), "host1")
		}
		add("warm", "fa:16:3e:ff:00:01", "10.0.200.1")
		out := add("one", "fa:16:3e:ff:00:02", "10.0.200.2")
		for _, d := range out.Dirty {
			keys += len(d.Flows) + len(d.Groups)
		}
		return out.Units, keys
	}
	smallUnits, smallKeys := cost(1, 8)
	bigUnits, bigKeys := cost(10, 300)
	if bigUnits > smallUnits || bigKeys > smallKeys {
		t.Errorf("one more port: %d units and %d flows among 8 ports, %d and %d among 3,000", smallUnits, smallKeys, bigUnits, bigKeys)
	}
	t.Logf("one more port: %d units, %d flows and groups", bigUnits, bigKeys)
}

func TestDocumentIsFresh(t *testing.T) {
	file := filepath.Join("..", "docs", "pipelines.md")
	if *update {
		if err := os.WriteFile(file, []byte(Document()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if string(have) != Document() {
		t.Errorf("%s is stale: run go test ./pipeline -run TestDocumentIsFresh -update", file)
	}
}

func TestTableNumbersAreUniqueOnTheirBridge(t *testing.T) {
	var seen []string
	for _, table := range Tables {
		name := fmt.Sprintf("%s %d", table.Bridge, table.ID)
		if slices.Contains(seen, name) {
			t.Errorf("%s is declared twice", name)
		}
		seen = append(seen, name)
	}
}
