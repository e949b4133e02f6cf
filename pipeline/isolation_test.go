package pipeline

import (
	"flag"
	"fmt"
	"iter"
	"maps"
	"math/rand/v2"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"planck/flows"
	"planck/network"
)

var (
	topologies = flag.Int("topologies", 40, "how many random topologies TestIsolation makes")
	seed       = flag.Uint64("seed", 1, "seed of the first one; each has the next")
)

const (
	isolatedHosts = 3
	vmsOnHost     = 20
	changes       = 3  // to a topology, each followed by probes
	probes        = 60 // of each state
	tracedProbes  = 10 // of these, also by a switch
)

// TestIsolation builds random clouds of several tenants, who use the same
// addresses, and changes them. An oracle over the model, the walker and a real
// switch agree on who gets the packets that VMs and the outside send, true or
// forged, and with which addresses.
func TestIsolation(t *testing.T) {
	sw := startTracedHosts(t, isolatedHosts, vmsOnHost)
	sum := probeTally{}
	for s := *seed; s < *seed+uint64(*topologies); s++ {
		if !t.Run(fmt.Sprint("seed=", s), func(t *testing.T) { isolate(t, s, sw, &sum) }) {
			t.Fatalf("once more: go test ./pipeline -run TestIsolation -seed %d -topologies 1", s)
		}
	}
	t.Logf("%d states of %d topologies, from seed %d on: %d packets, of which %d arrived (%d at who said that it has the address, %d from an address of no port or another one), and %d in a switch too; %d recirculations at the most",
		sum.states, *topologies, *seed, sum.packets, sum.arrived, sum.held, sum.odd, sum.traced, sum.recirculations)
	if *topologies >= 20 && (sum.arrived < sum.packets/10 || sum.arrived > sum.packets*9/10 || sum.held == 0 || sum.odd == 0) {
		t.Errorf("of %d packets %d arrived, %d and %d by and from addresses that move: they tell too little", sum.packets, sum.arrived, sum.held, sum.odd)
	}
}

type probeTally struct {
	states, packets, arrived, traced, recirculations int
	held, odd                                        int // of those that arrived: by what a port said, from an address that is not the port's own
}

func count(is bool) int {
	if is {
		return 1
	}
	return 0
}

func isolate(t *testing.T, seed uint64, sw *tracedHosts, sum *probeTally) {
	c := newTopology(t, seed)
	defer func() {
		if t.Failed() {
			t.Log(c.describe())
		}
	}()
	c.build()
	for range 1 + changes {
		c.check(sw, sum)
		c.change()
	}
}

// check probes a state of the cloud, and compares its flows with those of a
// compiler that sees it for the first time.
func (c *topology) check(sw *tracedHosts, sum *probeTally) {
	c.Helper()
	c.compareWithFresh()
	view := c.store.View()
	w := &walked{TB: c.T, walkers: map[Target]*flows.Walker{}}
	for target := range c.compiler.Targets() {
		c.compiler.Read(target, func(s State) {
			w.walkers[target] = flows.NewWalker(s.Desired)
			w.walkers[target].ConnState = ctTracked | ctNew
		})
	}
	sw.T = c.T
	for _, conn := range sw.conns {
		conn.TB = c.T
	}
	sw.load(c.compiler, isolatedHosts)
	walker, real := fabric{c.T, view, c.outsiders, w}, fabric{c.T, view, c.outsiders, sw}
	ports := sortedPorts(view.Ports())
	for i := range probes {
		p := c.probe(view, ports)
		o := oracle{view: view, outsiders: c.outsiders, said: c.said}
		want := p.expect(&o)
		walked, way := walker.travel(p.arrivals(&walker)...)
		if !between(walked, want, o.overheard) {
			c.Fatalf("%s\nthe oracle says %q and maybe %q, the walker %q\n%s", p, want, o.overheard, walked, way)
		}
		sum.packets++
		if len(want) > 0 {
			sum.arrived++
			sum.held += count(o.held)
			sum.odd += count(p.sender != nil && view.PortByIP(p.sender.NetworkID, p.src) != p.sender)
		}
		if i >= tracedProbes {
			continue
		}
		sum.traced++
		if got, way := real.travel(p.arrivals(&real)...); !slices.Equal(got, walked) {
			c.Fatalf("%s\nthe oracle and the walker say %q, a switch %q\n%s", p, walked, got, way)
		}
	}
	sum.states++
	sum.recirculations = max(sum.recirculations, w.most)
}

// between reports whether all got a packet who must, and none but those who may.
func between(got, must, may []string) bool {
	for _, m := range must {
		if !slices.Contains(got, m) {
			return false
		}
	}
	return !slices.ContainsFunc(got, func(g string) bool { return !slices.Contains(must, g) && !slices.Contains(may, g) })
}

func (c *topology) compareWithFresh() {
	c.Helper()
	fresh := &world{T: c.T, store: c.store, follower: c.store.Follow(), compiler: NewCompiler(Options{})}
	defer fresh.follower.Close()
	fresh.compile()
	all := map[Target]*flows.Set{}
	for target := range fresh.compiler.Targets() {
		fresh.compiler.Read(target, func(s State) { all[target] = s.Desired })
	}
	for target := range c.compiler.Targets() {
		c.compiler.Read(target, func(s State) {
			want := all[target]
			delete(all, target)
			if want == nil {
				want = flows.NewSet()
			}
			if d := flows.Diff(want, s.Desired, nil, nil, nil); !d.Empty() {
				name := func(id uint8) string { return TableName(target.Bridge, id) }
				c.Fatalf("%s %s: from scratch (-), step by step (+):\n%s", target.Host, target.Bridge, cmp.Diff(want.Text(name), s.Desired.Text(name)))
			}
		})
	}
	for target := range all {
		c.Fatalf("%s %s has no flows, from scratch it has", target.Host, target.Bridge)
	}
}

// probe is a packet that somebody sends.
type probe struct {
	sender *network.Port // nil for the outside of a network
	from   outsider
	frame
}

func (p probe) String() string {
	if p.sender == nil {
		return fmt.Sprintf("from outside %s: %s", p.from.network, p.frame)
	}
	return fmt.Sprintf("from %s: %s", p.sender.ID, p.frame)
}

func (p probe) expect(o *oracle) []string {
	if p.sender != nil {
		return o.sent(p.sender, p.frame)
	}
	n := o.view.Network(p.from.network)
	if len(o.reaching(n)) == 0 {
		return nil
	}
	return o.onNetwork(n, p.frame)
}

func (p probe) arrivals(f *fabric) []arrival {
	if p.sender == nil {
		return f.onWire("", p.frame)
	}
	v := f.view.VIF(p.sender.ID, p.sender.Binding.Host)
	if v == nil {
		return nil
	}
	return []arrival{{host: v.Host, bridge: network.BridgeIntegration, port: v.OFPort, frame: p.frame}}
}

// topology is a random cloud.
type topology struct {
	*world
	*rand.Rand
	external  []string
	outsiders []outsider
	said      map[addressOn]announced
	history   []string // what was done, and came to
}

func newTopology(t *testing.T, seed uint64) *topology {
	t.Helper()
	cfg := network.DefaultConfig()
	cfg.VLANRanges = map[string][]network.IDRange{"physnet1": {{First: 300, Last: 399}}}
	store, err := network.Open(t.Context(), "sqlite://"+filepath.Join(t.TempDir(), "planck.db"), cfg)
	if err != nil {
		t.Fatal(err)
	}
	c := &topology{world: &world{T: t, store: store, follower: store.Follow(), compiler: NewCompiler(Options{})}, Rand: rand.New(rand.NewPCG(seed, 0)), said: map[addressOn]announced{}}
	t.Cleanup(func() {
		c.follower.Close()
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	c.compile()
	return c
}

// likely is true so many times of a hundred.
func (c *topology) likely(percent int) bool { return c.IntN(100) < percent }

func (c *topology) one(of ...string) string { return of[c.IntN(len(of))] }

// try does something that may be refused: the cloud is as before then.
func (c *topology) try(what string, fn func(tx *network.Tx) error) bool {
	c.Helper()
	_, err := c.store.Update(c.Context(), network.Cause{}, fn)
	c.history = append(c.history, fmt.Sprintf("%s: %v", what, err))
	if err == nil && c.store.View().Revision() != c.compiler.Revision() {
		c.compile()
	}
	return err == nil
}

func (c *topology) describe() string { return strings.Join(c.history, "\n") }

func (c *topology) build() {
	c.Helper()
	tunnels, wires := c.likely(75), c.likely(50)
	c.try("hosts", func(tx *network.Tx) error {
		for i := range isolatedHosts {
			h := host(fmt.Sprint("host", i+1), byte(i+1))
			if !tunnels {
				h.TunnelIP = netip.Addr{}
				delete(h.Bridges, network.BridgeTunnel)
				delete(h.Bridges[network.BridgeIntegration].Patches, network.BridgeTunnel)
			}
			if tunnels && !wires && c.likely(40) {
				h.BridgeMappings = nil
				delete(h.Bridges, "br-ex")
				delete(h.Bridges[network.BridgeIntegration].Patches, "br-ex")
			}
			if err := tx.PutHost(h); err != nil {
				return err
			}
		}
		return nil
	})
	types := []string{network.TypeGRE, network.TypeGRE, network.TypeVXLAN, network.TypeGeneve}
	if wires {
		types = append(types, network.TypeVLAN)
	}
	if !tunnels {
		types = []string{network.TypeVLAN}
	}
	c.openGroup()
	c.buildExternal()
	tenants := 2 + c.IntN(2)
	for i := range tenants {
		c.buildTenant(fmt.Sprint("t", i), types)
	}
	c.buildVMs()
	c.buildFloatingIPs()
}

// openGroup makes a security group that lets everything pass.
func (w *world) openGroup() {
	w.group("open")
	for _, d := range []string{network.Ingress, network.Egress} {
		for _, e := range []string{network.IPv4, network.IPv6} {
			w.rule(d+e, "open", func(r *network.SecurityGroupRule) { r.Direction, r.Ethertype = d, e })
		}
	}
}

func (c *topology) subnet(tx *network.Tx, id, networkID, cidr string) error {
	prefix := netip.MustParsePrefix(cidr)
	s := &network.Subnet{Standard: network.Standard{ID: id}, NetworkID: networkID, CIDR: prefix, IPVersion: 4, GatewayIP: prefix.Addr().Next()}
	if prefix.Addr().Is6() {
		s.IPVersion, s.IPv6AddressMode, s.IPv6RAMode = 6, network.SLAAC, network.SLAAC
	}
	s.EnableDHCP = c.likely(50)
	if s.IPVersion == 6 {
		s.EnableDHCP = true
	}
	return tx.CreateSubnet(s)
}

func (c *topology) buildExternal() {
	nets := []*network.Network{{Standard: network.Standard{ID: "public"}, NetworkType: network.TypeFlat}}
	if c.likely(50) {
		nets = append(nets, &network.Network{Standard: network.Standard{ID: "second"}, NetworkType: network.TypeVLAN, SegmentationID: 900})
	}
	for i, n := range nets {
		n.PhysicalNetwork, n.External, n.AdminStateUp = "physnet1", true, c.likely(95)
		cidr := []string{"203.0.113.0/24", "198.51.100.0/24"}[i]
		out := outsider{n.ID, uint16(n.SegmentationID), network.MAC{2, 0, 0, 0, 0, byte(i + 1)}}
		v6 := c.likely(50)
		c.try("external network "+n.ID, func(tx *network.Tx) error {
			if err := tx.CreateNetwork(n); err != nil {
				return err
			}
			if err := c.subnet(tx, n.ID+"-4", n.ID, cidr); err != nil {
				return err
			}
			gateways := []netip.Addr{netip.MustParsePrefix(cidr).Addr().Next()}
			if v6 {
				prefix := netip.MustParsePrefix(fmt.Sprintf("2001:db8:%d::/64", i+1))
				s := &network.Subnet{Standard: network.Standard{ID: n.ID + "-6"}, NetworkID: n.ID, CIDR: prefix, IPVersion: 6, GatewayIP: prefix.Addr().Next()}
				if err := tx.CreateSubnet(s); err != nil {
					return err
				}
				gateways = append(gateways, s.GatewayIP)
			}
			for _, ip := range gateways {
				if err := tx.PutExternalNeighbor(network.ExternalNeighbor{NetworkID: n.ID, IP: ip, MAC: out.mac}); err != nil {
					return err
				}
			}
			return nil
		})
		c.external, c.outsiders = append(c.external, n.ID), append(c.outsiders, out)
	}
}

// buildTenant makes networks with the addresses of all other tenants, and
// routers that join them; a second router hangs on the first.
func (c *topology) buildTenant(tenant string, types []string) {
	var subnets []string
	for i := range 1 + c.IntN(3) {
		n := &network.Network{
			Standard: network.Standard{ID: fmt.Sprintf("%s-net%d", tenant, i), ProjectID: tenant}, NetworkType: c.one(types...), AdminStateUp: c.likely(95),
		}
		if n.NetworkType == network.TypeVLAN {
			n.PhysicalNetwork = "physnet1"
		}
		cidrs := []string{fmt.Sprintf("10.0.%d.0/24", i)}
		if c.likely(25) {
			cidrs = append(cidrs, fmt.Sprintf("10.1.%d.0/25", i))
		}
		if c.likely(40) {
			cidrs = append(cidrs, fmt.Sprintf("fd00:%d::/64", i+1))
		}
		c.try(fmt.Sprintf("network %s, %s, up %t, %v", n.ID, n.NetworkType, n.AdminStateUp, cidrs), func(tx *network.Tx) error {
			if err := tx.CreateNetwork(n); err != nil {
				return err
			}
			for k, cidr := range cidrs {
				id := fmt.Sprintf("%s-%d", n.ID, k)
				subnets = append(subnets, id)
				if err := c.subnet(tx, id, n.ID, cidr); err != nil {
					return err
				}
			}
			return nil
		})
	}
	first := c.buildRouter(tenant+"-r0", 85)
	left := []string{}
	for _, s := range subnets {
		if !c.likely(80) || !c.try("interface of "+first+" on "+s, func(tx *network.Tx) error { _, err := tx.AddRouterInterface(first, s, ""); return err }) {
			left = append(left, s)
		}
	}
	if c.likely(40) {
		c.buildSecondRouter(tenant, first, subnets, left)
	}
}

func (c *topology) buildRouter(id string, gateway int) string {
	r := &network.Router{Standard: network.Standard{ID: id}, AdminStateUp: c.likely(93), EnableSNAT: true}
	if c.likely(gateway) {
		r.ExternalNetworkID, r.EnableSNAT = c.one(c.external...), c.likely(70)
	}
	c.try(fmt.Sprintf("router %s, up %t, gateway on %q, SNAT %t", id, r.AdminStateUp, r.ExternalNetworkID, r.EnableSNAT),
		func(tx *network.Tx) error { return tx.CreateRouter(r) })
	return id
}

// buildSecondRouter has the subnets that the first has not, and one with it;
// each knows the way to what is behind the other.
func (c *topology) buildSecondRouter(tenant, first string, subnets, left []string) {
	second := c.buildRouter(tenant+"-r1", 30)
	shared := c.one(subnets...)
	c.try("interface of "+second+" on "+shared+" by port", func(tx *network.Tx) error {
		s := tx.Subnet(shared)
		p := &network.Port{NetworkID: s.NetworkID, AdminStateUp: true, FixedIPs: []network.FixedIP{{SubnetID: s.ID}}}
		if err := tx.CreatePort(p); err != nil {
			return err
		}
		_, err := tx.AddRouterInterface(second, "", p.ID)
		return err
	})
	for _, s := range left {
		c.try("interface of "+second+" on "+s, func(tx *network.Tx) error { _, err := tx.AddRouterInterface(second, s, ""); return err })
	}
	for _, way := range [][2]string{{first, second}, {second, first}} {
		c.try("routes of "+way[0]+" to "+way[1], func(tx *network.Tx) error { return c.learnRoutes(tx, way[0], way[1]) })
	}
}

// learnRoutes leads what is behind another router to it.
func (c *topology) learnRoutes(tx *network.Tx, from, to string) error {
	r := tx.Router(from).Clone()
	own := map[string]bool{}
	for p := range tx.InterfacesOf(from) {
		for _, f := range p.FixedIPs {
			own[f.SubnetID] = true
		}
	}
	var nextHop netip.Addr
	var behind []*network.Subnet
	for p := range tx.InterfacesOf(to) {
		for _, f := range p.FixedIPs {
			if own[f.SubnetID] {
				nextHop = f.IP
				continue
			}
			behind = append(behind, tx.Subnet(f.SubnetID))
		}
	}
	for _, s := range behind {
		if nextHop.IsValid() && nextHop.Is4() == s.CIDR.Addr().Is4() {
			r.Routes = append(r.Routes, network.Route{Destination: s.CIDR, NextHop: nextHop})
		}
	}
	return tx.UpdateRouter(r)
}

// buildVMs gives each network some, with the MACs of those on other networks.
func (c *topology) buildVMs() {
	plugs := map[string][]string{}
	for _, n := range sortedByID(c.store.View().Networks()) {
		count := 1 + c.IntN(3)
		if n.External && !c.likely(30) {
			count = 0
		}
		for i := range count {
			id := fmt.Sprintf("%s-vm%d", n.ID, i)
			p := &network.Port{
				Standard: network.Standard{ID: id, ProjectID: n.ProjectID}, NetworkID: n.ID, MAC: network.MAC{0xfa, 0x16, 0x3e, 0, 0, byte(10 + i)},
				AdminStateUp: c.likely(93), PortSecurityEnabled: true,
			}
			if c.likely(93) {
				p.SecurityGroups = []string{"open"}
			}
			if c.likely(12) {
				p.PortSecurityEnabled, p.SecurityGroups = false, nil
			}
			for _, s := range sortedByID(c.store.View().SubnetsOf(n.ID)) {
				if s.IPVersion == 4 && (len(p.FixedIPs) == 0 || c.likely(40)) {
					p.FixedIPs = append(p.FixedIPs, network.FixedIP{SubnetID: s.ID, IP: addressIn(s.CIDR, 10+i)})
				}
			}
			if p.PortSecurityEnabled && c.likely(35) {
				p.AllowedAddressPairs = c.pairs(n.ID)
			}
			at := fmt.Sprint("host", 1+c.IntN(isolatedHosts))
			if c.likely(93) {
				plugs[at] = append(plugs[at], id)
			}
			c.try(fmt.Sprintf("VM %s on %s, up %t, %v, port security %t, pairs %v", id, at, p.AdminStateUp, p.SecurityGroups, p.PortSecurityEnabled, p.AllowedAddressPairs), func(tx *network.Tx) error { return tx.CreatePort(p) })
		}
	}
	for _, at := range slices.Sorted(maps.Keys(plugs)) {
		c.plug(at, plugs[at]...)
	}
	for _, n := range sortedByID(c.store.View().Networks()) {
		if !n.External && c.likely(40) {
			c.reserve(n)
		}
	}
	for _, r := range sortedByID(c.store.View().Routers()) {
		if c.likely(40) {
			c.changeRouter(r, "route by a virtual address", func(r *network.Router) {
				r.Routes = append(r.Routes, network.Route{Destination: farAway, NextHop: c.nextHopOf(r)})
			})
		}
	}
	for range 10 {
		c.announce()
	}
}

// Virtual addresses are the same in each subnet, so are their MACs in each network.
const virtualAddress, nobodys = 100, 200

var (
	virtualMAC = network.MAC{0, 0, 0x5e, 0, 1, 1}
	nobodysMAC = network.MAC{2, 0, 0, 0, 0, 0x99}
	farAway    = netip.MustParsePrefix("172.16.0.0/12") // behind extra routes
)

// reserve makes a port that nobody plugs, for a virtual address.
func (c *topology) reserve(n *network.Network) {
	p := &network.Port{Standard: network.Standard{ID: n.ID + "-vip", ProjectID: n.ProjectID}, NetworkID: n.ID, AdminStateUp: true, PortSecurityEnabled: true}
	for _, s := range sortedByID(c.store.View().SubnetsOf(n.ID)) {
		if s.IPVersion == 4 && len(p.FixedIPs) == 0 {
			p.FixedIPs = []network.FixedIP{{SubnetID: s.ID, IP: addressIn(s.CIDR, virtualAddress)}}
		}
	}
	c.try("reserved port "+p.ID, func(tx *network.Tx) error { return tx.CreatePort(p) })
}

// nextHopOf is a virtual address, or now and then a VM's, beside a router.
func (c *topology) nextHopOf(r *network.Router) netip.Addr {
	view := c.store.View()
	p, some := pickFrom(c, sortedPorts(view.InterfacesOf(r.ID)))
	if !some {
		return netip.Addr{}
	}
	hop := virtualAddress
	if c.likely(20) {
		hop = 10
	}
	return addressIn(view.Subnet(p.FixedIPs[0].SubnetID).CIDR, hop)
}

// pairs are address pairs for a port: virtual addresses, with its own MAC or one
// that moves with them, another VM's address, or a whole subnet.
func (c *topology) pairs(networkID string) (pairs []network.AddressPair) {
	for _, s := range sortedByID(c.store.View().SubnetsOf(networkID)) {
		if s.IPVersion != 4 || c.likely(20) {
			continue
		}
		pair := network.AddressPair{IP: hostPrefix(addressIn(s.CIDR, virtualAddress))}
		switch c.IntN(6) {
		case 0:
			pair.IP = hostPrefix(addressIn(s.CIDR, 10+c.IntN(3)))
		case 1:
			pair.IP = s.CIDR
		case 2, 3:
			pair.MAC = virtualMAC
		}
		pairs = append(pairs, pair)
	}
	return pairs
}

// announce lets a VM say by ARP that it has an address, which counts if it may.
func (c *topology) announce() {
	c.Helper()
	view := c.store.View()
	p, some := pickFrom(c, slices.DeleteFunc(sortedPorts(view.Ports()), func(p *network.Port) bool {
		return p.Service() || view.Network(p.NetworkID).External || p.PortSecurityEnabled && len(p.AllowedAddressPairs) == 0 && c.likely(90)
	}))
	if !some {
		return
	}
	s, some := pickFrom(c, slices.DeleteFunc(sortedByID(view.SubnetsOf(p.NetworkID)), func(s *network.Subnet) bool { return s.IPVersion != 4 }))
	if !some {
		return
	}
	mac := p.MAC
	for _, pair := range p.AllowedAddressPairs {
		mac = pair.MAC
	}
	if c.likely(10) {
		mac = []network.MAC{virtualMAC, nobodysMAC, p.MAC}[c.IntN(3)]
	}
	ip := addressIn(s.CIDR, []int{1, 10, 11, 12, virtualAddress, virtualAddress, virtualAddress, nobodys}[c.IntN(8)])
	at := addressOn{p.NetworkID, ip}
	o := oracle{view: view}
	want := o.mayHold(p, ip, mac)
	got := c.try(fmt.Sprintf("%s holds %s at %s", p.ID, ip, mac), func(tx *network.Tx) error {
		return tx.SetAddressHolder(network.AddressHolder{NetworkID: p.NetworkID, IP: ip, PortID: p.ID, MAC: mac})
	})
	if got != want {
		c.Fatalf("%s may hold %s at %s: %t, the oracle says %t", p.ID, ip, mac, got, want)
	}
	if got {
		c.said[at] = announced{p.ID, mac}
	}
}

// forget is what a port said and may not say any more.
func (c *topology) forget() {
	view := c.store.View()
	for at, by := range c.said {
		if p := view.Port(by.portID); p == nil || !maySendFrom(p, at.ip, by.mac) {
			delete(c.said, at)
		}
	}
}

func addressIn(p netip.Prefix, n int) netip.Addr {
	a := p.Addr()
	for range n {
		a = a.Next()
	}
	return a
}

func (c *topology) buildFloatingIPs() {
	for _, p := range sortedPorts(c.store.View().Ports()) {
		if p.Service() {
			continue
		}
		for _, f := range p.FixedIPs {
			if f.IP.Is4() && c.likely(40) {
				c.associate(p.ID, f.IP, c.one(c.external...))
			}
		}
	}
	for _, n := range c.external {
		c.associate("", netip.Addr{}, n)
	}
}

func (c *topology) associate(portID string, fixed netip.Addr, external string) bool {
	return c.try(fmt.Sprintf("floating IP on %s for %s of %q", external, fixed, portID), func(tx *network.Tx) error {
		return tx.CreateFloatingIP(&network.FloatingIP{Standard: network.Standard{ID: fmt.Sprint("floating-", len(c.history))}, FloatingNetworkID: external, PortID: portID, FixedIP: fixed})
	})
}

// sortedByID makes a list of objects that does not depend on the order of trees.
func sortedByID[T network.Object](all func(func(T) bool)) []T {
	return slices.SortedFunc(all, func(a, b T) int { return strings.Compare(a.ObjectID(), b.ObjectID()) })
}

// change does one thing to the cloud that is not refused.
func (c *topology) change() {
	c.Helper()
	for range 20 {
		if c.tryChange() {
			c.forget()
			return
		}
	}
}

// sortedPorts are in an order that does not depend on ids and MACs, which are random.
func sortedPorts(all iter.Seq[*network.Port]) []*network.Port {
	keys := map[*network.Port]string{}
	for p := range all {
		keys[p] = fmt.Sprint(p.NetworkID, p.DeviceOwner, p.FixedIPs)
	}
	return slices.SortedFunc(maps.Keys(keys), func(a, b *network.Port) int { return strings.Compare(keys[a], keys[b]) })
}

func pickFrom[T any](c *topology, all []T) (T, bool) {
	var none T
	if len(all) == 0 {
		return none, false
	}
	return all[c.IntN(len(all))], true
}

func (c *topology) tryChange() bool {
	view := c.store.View()
	r, _ := pickFrom(c, sortedByID(view.Routers()))
	vm, _ := pickFrom(c, slices.DeleteFunc(sortedPorts(view.Ports()), (*network.Port).Service))
	f, some := pickFrom(c, sortedByID(view.FloatingIPs()))
	at := fmt.Sprint("host", 1+c.IntN(isolatedHosts))
	if r == nil || vm == nil {
		return false
	}
	switch c.IntN(17) {
	case 12, 13, 14:
		before := maps.Clone(c.said)
		c.announce()
		return !maps.Equal(before, c.said)
	case 15:
		return c.changePort(vm, func(p *network.Port) { p.AllowedAddressPairs = c.pairs(p.NetworkID) })
	case 16:
		return c.changePort(vm, func(p *network.Port) {
			p.PortSecurityEnabled = !p.PortSecurityEnabled
			p.SecurityGroups, p.AllowedAddressPairs = nil, nil
			if p.PortSecurityEnabled {
				p.SecurityGroups = []string{"open"}
			}
		})
	case 0:
		return c.changeRouter(r, "up or down", func(r *network.Router) { r.AdminStateUp = !r.AdminStateUp })
	case 1:
		return c.changeRouter(r, "SNAT", func(r *network.Router) {
			r.EnableSNAT = !r.EnableSNAT && r.ExternalNetworkID != "" || r.ExternalNetworkID == ""
		})
	case 2:
		return c.changeRouter(r, "gateway away", func(r *network.Router) { r.ExternalNetworkID = "" })
	case 3:
		external := c.one(c.external...)
		return c.changeRouter(r, "gateway on "+external, func(r *network.Router) { r.ExternalNetworkID = external })
	case 4:
		n, _ := pickFrom(c, sortedByID(view.Networks()))
		now := n.Clone()
		now.AdminStateUp = !now.AdminStateUp
		return c.try(fmt.Sprintf("network %s up %t", n.ID, now.AdminStateUp), func(tx *network.Tx) error { return tx.UpdateNetwork(now) })
	case 5:
		now := vm.Clone()
		now.AdminStateUp = !now.AdminStateUp
		return c.try(fmt.Sprintf("port %s up %t", vm.ID, now.AdminStateUp), func(tx *network.Tx) error { return tx.UpdatePort(now) })
	case 6:
		return c.try("delete "+vm.ID, func(tx *network.Tx) error { return tx.DeletePort(vm.ID) })
	case 7:
		return c.move(vm.ID, at)
	case 8:
		down := view.HostDown(at) != nil
		return c.try(fmt.Sprintf("%s down %t", at, !down), func(tx *network.Tx) error {
			if down {
				tx.SetHostUp(at)
				return nil
			}
			return tx.SetHostDown(network.HostDown{Host: at, Reason: "test"})
		})
	case 9:
		if !some {
			return false
		}
		now := f.Clone()
		now.PortID, now.FixedIP = vm.ID, netip.Addr{}
		return c.try(fmt.Sprintf("floating IP %s to %s", f.Address, vm.ID), func(tx *network.Tx) error { return tx.UpdateFloatingIP(now) })
	case 10:
		return some && c.try("delete floating IP "+f.Address.String(), func(tx *network.Tx) error { return tx.DeleteFloatingIP(f.ID) })
	}
	p, some := pickFrom(c, sortedPorts(view.InterfacesOf(r.ID)))
	return some && c.try("remove an interface of "+r.ID, func(tx *network.Tx) error { _, err := tx.RemoveRouterInterface(r.ID, "", p.ID); return err })
}

func (c *topology) changePort(p *network.Port, change func(*network.Port)) bool {
	now := p.Clone()
	change(now)
	return c.try(fmt.Sprintf("%s: port security %t, pairs %v", p.ID, now.PortSecurityEnabled, now.AllowedAddressPairs), func(tx *network.Tx) error { return tx.UpdatePort(now) })
}

func (c *topology) changeRouter(r *network.Router, what string, change func(*network.Router)) bool {
	now := r.Clone()
	change(now)
	return c.try(fmt.Sprintf("router %s: %s", r.ID, what), func(tx *network.Tx) error { return tx.UpdateRouter(now) })
}

// move unplugs a VM, and plugs it on another host, to which it is bound.
func (c *topology) move(id, to string) bool {
	return c.try(fmt.Sprintf("%s moves to %s", id, to), func(tx *network.Tx) error {
		for i := range isolatedHosts {
			at := fmt.Sprint("host", i+1)
			var vifs []network.VIF
			free := uint32(1)
			for _, v := range sortedByID(tx.VIFsOn(at)) {
				if v.PortID != id {
					vifs = append(vifs, *v)
					free = max(free, v.OFPort+1)
				}
			}
			if at == to {
				vifs = append(vifs, network.VIF{PortID: id, Host: at, Name: "tap" + id, OFPort: free})
			}
			if err := tx.SyncVIFs(at, vifs); err != nil {
				return err
			}
		}
		return nil
	})
}

// probe is what a VM or the outside may send: most of it what an honest one
// would, to any address that there is.
func (c *topology) probe(view *network.View, ports []*network.Port) probe {
	vms := slices.DeleteFunc(slices.Clone(ports), (*network.Port).Service)
	sender, _ := pickFrom(c, vms)
	target, _ := pickFrom(c, ports)
	if near := nearTo(sender, ports); c.likely(60) {
		target, _ = pickFrom(c, near)
	}
	p := probe{frame: frame{ttl: 64, sport: 1000, dport: 2000}}
	p.dst = netip.MustParseAddr("192.0.2.9")
	if c.likely(95) && len(target.FixedIPs) > 0 {
		p.dst = target.FixedIPs[c.IntN(len(target.FixedIPs))].IP
	} else if c.likely(30) {
		p.dst = netip.MustParseAddr(c.one("2001:db8:9::9", "203.0.113.250", "203.0.113.1", "10.0.0.200", "2001:db8:1::77", "172.16.0.9"))
	}
	if c.likely(10) && len(c.said) > 0 {
		p.dst, _ = pickFrom(c, c.saidAddresses())
	}
	if c.likely(15) {
		c.fromOutside(view, &p, ports)
		return p
	}
	p.sender, p.ethSrc = sender, sender.MAC
	p.src = c.sourceOf(sender, p.dst)
	c.useOtherSource(view, &p)
	next := p.dst
	for _, f := range sender.FixedIPs {
		if s := view.Subnet(f.SubnetID); f.IP == p.src && !s.CIDR.Contains(p.dst) {
			next = s.GatewayIP
		}
	}
	if by, ok := c.said[addressOn{sender.NetworkID, next}]; ok {
		p.ethDst = by.mac
	} else if owner := view.PortByIP(sender.NetworkID, next); owner != nil {
		p.ethDst = owner.MAC
	} else {
		p.ethDst, _ = view.ExternalNeighbor(sender.NetworkID, next)
	}
	if p.ethDst == (network.MAC{}) || c.likely(10) {
		p.ethDst = c.anyMAC(view, ports)
	}
	if c.likely(4) {
		p.src = c.sourceOf(target, p.dst)
	}
	return p
}

// saidAddresses are those of which a port said that it has them, in order.
func (c *topology) saidAddresses() (all []netip.Addr) {
	for at := range c.said {
		all = append(all, at.ip)
	}
	slices.SortFunc(all, netip.Addr.Compare)
	return slices.Compact(all)
}

// useOtherSource lets a VM send from an address that it holds, or without port
// security from any that is no other VM's.
func (c *topology) useOtherSource(view *network.View, p *probe) {
	var own []announced
	var from []netip.Addr
	for _, ip := range c.saidAddresses() {
		if by := c.said[addressOn{p.sender.NetworkID, ip}]; by.portID == p.sender.ID && ip.Is4() == p.dst.Is4() {
			own, from = append(own, by), append(from, ip)
		}
	}
	if len(own) > 0 && c.likely(50) {
		i := c.IntN(len(own))
		p.ethSrc, p.src = own[i].mac, from[i]
	}
	if !p.sender.PortSecurityEnabled && c.likely(20) && p.dst.Is4() {
		p.ethSrc, p.src = nobodysMAC, netip.MustParseAddr(c.one("10.0.0.222", "172.31.1.1", "192.0.2.77"))
	}
}

// nearTo are the ports of a VM's tenant, and those on external networks.
func nearTo(vm *network.Port, ports []*network.Port) []*network.Port {
	tenant, _, _ := strings.Cut(vm.NetworkID, "-")
	return slices.DeleteFunc(slices.Clone(ports), func(p *network.Port) bool {
		owner, _, tenants := strings.Cut(p.NetworkID, "-")
		return tenants && owner != tenant
	})
}

// sourceOf is an address of a port of the family of another one.
func (c *topology) sourceOf(p *network.Port, dst netip.Addr) netip.Addr {
	var own []netip.Addr
	for _, f := range p.FixedIPs {
		if f.IP.Is4() == dst.Is4() {
			own = append(own, f.IP)
		}
	}
	if a, some := pickFrom(c, own); some {
		return a
	}
	if dst.Is4() {
		return netip.MustParseAddr("10.9.9.9")
	}
	return netip.MustParseAddr("fd00:9::9")
}

// anyMAC is one that somebody has: a port of whatever network, a host, the outside.
func (c *topology) anyMAC(view *network.View, ports []*network.Port) network.MAC {
	switch c.IntN(10) {
	case 2:
		return virtualMAC
	case 3:
		return nobodysMAC
	case 0:
		return chassisMAC(view.Host(fmt.Sprint("host", 1+c.IntN(isolatedHosts))))
	case 1:
		o, _ := pickFrom(c, c.outsiders)
		return o.mac
	}
	p, _ := pickFrom(c, ports)
	return p.MAC
}

// fromOutside sends to a floating IP, to a gateway, or through one to what is
// behind it.
func (c *topology) fromOutside(view *network.View, p *probe, ports []*network.Port) {
	p.from, _ = pickFrom(c, c.outsiders)
	p.ethSrc, p.vlan, p.src = p.from.mac, p.from.vlan, netip.MustParseAddr("192.0.2.9")
	if p.dst.Is6() {
		p.src = netip.MustParseAddr("2001:db8:9::9")
	}
	var external, gateways []*network.Port
	for _, port := range ports {
		if port.NetworkID != p.from.network {
			continue
		}
		external = append(external, port)
		if port.DeviceOwner == network.OwnerRouterGateway {
			gateways = append(gateways, port)
		}
	}
	through, some := pickFrom(c, gateways)
	if owner := view.PortByIP(p.from.network, p.dst); owner != nil {
		through, some = owner, true
	} else if c.likely(50) {
		if to, any := pickFrom(c, external); any && len(to.FixedIPs) > 0 && to.FixedIPs[0].IP.Is4() == p.src.Is4() {
			through, some, p.dst = to, true, to.FixedIPs[0].IP
		}
	}
	p.ethDst = network.MAC{0xfa, 0x16, 0x3e, 0xff, 0xff, 0xff}
	if some {
		p.ethDst = through.MAC
	}
}
