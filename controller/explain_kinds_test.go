package controller

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"planck/network"
)

// explained is a small cloud of which each kind of resource is explained.
type explained struct {
	*tracked
	net      *network.Network
	subnet   *network.Subnet
	vm       *network.Port
	external *network.Network
	router   *network.Router
}

func newExplained(t *testing.T) *explained {
	t.Helper()
	x := &explained{tracked: newTracked(t)}
	x.host("h1", 1)
	x.acknowledge("h1")
	x.net = x.network("web")
	x.subnet = x.tracked.subnet(x.net, "10.0.0.0/24")
	x.vm = x.tracked.vm(x.net, "h1")
	x.plug("h1", x.vm)
	x.eventuallyStatus(x.vm, network.StatusActive)
	x.router = &network.Router{Standard: network.Standard{Name: "edge"}, AdminStateUp: true}
	x.external = &network.Network{Standard: network.Standard{Name: "public"}, AdminStateUp: true, External: true, NetworkType: network.TypeFlat, PhysicalNetwork: "physnet1"}
	x.update(func(tx *network.Tx) error {
		if err := tx.CreateRouter(x.router); err != nil {
			return err
		}
		if _, err := tx.AddRouterInterface(x.router.ID, x.subnet.ID, ""); err != nil {
			return err
		}
		return tx.CreateNetwork(x.external)
	})
	return x
}

// finds explains what a name means, and checks that a finding says so.
func (x *explained) finds(kind, name, want string) *Explanation {
	x.t.Helper()
	v := x.store.View()
	r, err := findResource(v, kind, name)
	if err != nil {
		x.t.Errorf("%s %s: %v", kind, name, err)
		return nil
	}
	e := explainResource(v, r, x.fleet)
	says := func(f Finding) bool { return strings.Contains(f.What, want) }
	if want != "" && !slices.ContainsFunc(e.Findings, says) {
		x.t.Errorf("%s %s: findings %+v, want %q", kind, name, e.Findings, want)
	}
	return e
}

func TestExplainTellsOfEveryKindOfResource(t *testing.T) {
	x := newExplained(t)
	x.finds("", "public", "it has no subnet")
	x.finds("subnet", x.subnet.ID, "enable_dhcp is false")
	x.finds("router", "edge", "")
	x.finds("host", "h1", "")
	x.set(func() { x.dead["h1"] = true })
	x.finds("", "h1", "br-int is not connected")
	x.set(func() { x.dead["h1"] = false })

	x.update(func(tx *network.Tx) error {
		down := tx.Router(x.router.ID).Clone()
		down.AdminStateUp = false
		return tx.UpdateRouter(down)
	})
	x.finds("router", "edge", "admin_state_up of router edge")
	x.finds("port", "10.0.0.1", "admin_state_up of router edge")

	group := &network.SecurityGroup{Standard: network.Standard{ProjectID: "q", Name: "ours"}}
	x.update(func(tx *network.Tx) error { return tx.CreateSecurityGroup(group) })
	x.finds("security_group", "ours", "it lets nothing pass for anybody")
	x.finds("", "ours", "it has no ingress rule")
}

func TestExplainSaysThatASubnetIsFull(t *testing.T) {
	x := newExplained(t)
	small := x.network("small")
	subnet := x.tracked.subnet(small, "10.9.0.0/30")
	last := x.tracked.vm(small, "h1")
	x.finds("subnet", subnet.ID, "is full: all 1 addresses of its allocation pools are taken (1 by machines)")
	x.finds("network", "small", "is full")
	x.update(func(tx *network.Tx) error {
		p := tx.Port(last.ID).Clone()
		p.FixedIPs = nil
		return tx.UpdatePort(p)
	})
	if e := x.finds("subnet", subnet.ID, ""); !slices.Contains(e.About, "1 of 1 addresses of its allocation pools are free") {
		t.Errorf("about %q", e.About)
	}
}

func TestExplainComparesMTUs(t *testing.T) {
	x := newExplained(t)
	id := x.vm.ID
	mtu := x.store.View().Network(x.net.ID).MTU
	for _, c := range []struct {
		report network.InterfaceReport
		want   string
	}{
		{network.InterfaceReport{Name: "tap0", Bridge: "br-int", OFPort: 1, MTU: mtu - 8}, "larger packets to the machine are lost"},
		{network.InterfaceReport{Name: "tap0", Bridge: "br-int", OFPort: 1, MTU: mtu + 8}, "sends packets that get lost"},
		{network.InterfaceReport{Name: "tap0", Bridge: "br-int", OFPort: 1, AttachedMAC: "fa:16:3e:99:99:99"}, "was plugged for the MAC fa:16:3e:99:99:99"},
	} {
		x.plugged = map[string][]network.InterfaceReport{"h1": {c.report}}
		x.finds("port", id, c.want)
	}
	x.plugged = map[string][]network.InterfaceReport{"h1": {{Name: "tap0", Bridge: "br-int"}, {Name: "tap1", Bridge: "br-int"}}}
	x.finds("port", id, "2 interfaces of host h1 have its id (tap0, tap1)")
	x.plugged = nil
	x.mtu = mtu - 100
	x.finds("network", "web", "its packets have room for")

	x.plug("h1")
	x.plugged = map[string][]network.InterfaceReport{"h1": {{Name: "tap0", Bridge: "br-int", Error: "could not open network device tap0"}}}
	x.finds("port", id, "does not have its interface tap0: could not open network device tap0")
	x.plugged = map[string][]network.InterfaceReport{"h1": {{Name: "tap0", Bridge: "br-x", OFPort: 1}}}
	x.finds("port", id, "is in br-x of host h1, not in br-int")
}

func TestExplainListsWhatANameMeans(t *testing.T) {
	x := newExplained(t)
	x.update(func(tx *network.Tx) error {
		return tx.CreateRouter(&network.Router{Standard: network.Standard{Name: "web"}, AdminStateUp: true})
	})
	v := x.store.View()
	for _, c := range []struct{ kind, name, want string }{
		{"", "web", "web is several things, name one by its kind and id: network web " + x.net.ID + " of project p; router web "},
		{"", "pigeon", "pigeon could not be found"},
		{"pigeon", "web", `"pigeon" is no kind of resource`},
		{"", "10.0.0.77", "nothing has the address 10.0.0.77, which is of subnet "},
		{"", "fa:16:3e:00:00:99", "could not be found"},
		{"", "", "could not be found"},
	} {
		if _, err := findResource(v, c.kind, c.name); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s %s: %v, want %q", c.kind, c.name, err, c.want)
		}
	}
	for name, want := range map[string]string{
		x.vm.MAC.String(): x.vm.ID, x.vm.FixedIPs[0].IP.String(): x.vm.ID, x.net.ID: x.net.ID, v.Host("h1").TunnelIP.String(): "h1",
	} {
		if r, err := findResource(v, "", name); err != nil || r.ID != want {
			t.Errorf("%s: %v, %v", name, r, err)
		}
	}
}

func TestExplainSaysWhoDoesNotAnswerOutside(t *testing.T) {
	x := newExplained(t)
	outside := x.tracked.subnet(x.external, "203.0.113.0/24")
	x.update(func(tx *network.Tx) error {
		r := tx.Router(x.router.ID).Clone()
		r.ExternalNetworkID = x.external.ID
		return tx.UpdateRouter(r)
	})
	x.wordless = map[netip.Addr]bool{netip.MustParseAddr("203.0.113.1"): true}
	x.finds("router", "edge", "203.0.113.1, by which router edge")
	x.finds("port", x.vm.ID, "does not answer questions for its MAC")
	floating := &network.FloatingIP{FloatingNetworkID: x.external.ID, SubnetID: outside.ID}
	x.update(func(tx *network.Tx) error { return tx.CreateFloatingIP(floating) })
	x.finds("", floating.Address.String(), "it stands for no port")
}
