package controller

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"planck/network"
)

func TestExplainNamesWhatIsWrongWithAPort(t *testing.T) {
	k := newTracked(t)
	k.host("h1", 1)
	k.host("h2", 2)
	k.acknowledge("h1", "h2")
	n := k.network("net1")
	subnet := &network.Subnet{Standard: network.Standard{ProjectID: "p"}, NetworkID: n.ID, IPVersion: 4, CIDR: netip.MustParsePrefix("10.0.0.0/24"), EnableDHCP: true}
	k.update(func(tx *network.Tx) error { return tx.CreateSubnet(subnet) })
	p := k.vm(n, "h1")
	change := func(fn func(p *network.Port)) {
		k.update(func(tx *network.Tx) error {
			changed := tx.Port(p.ID).Clone()
			fn(changed)
			return tx.UpdatePort(changed)
		})
	}
	// says checks that the findings are these, each by a part of it.
	says := func(want ...string) {
		t.Helper()
		v := k.store.View()
		e := explainPort(v, v.Port(p.ID), k.fleet)
		if len(e.Findings) != len(want) {
			t.Errorf("findings %+v, want %q", e.Findings, want)
			return
		}
		for i, f := range e.Findings {
			if !strings.Contains(f.What, want[i]) {
				t.Errorf("finding %q, want %q", f.What, want[i])
			}
		}
	}
	const noGroup = "no security group"

	says("is plugged on host h1", noGroup)
	k.plug("h2", p)
	says("plugged on h2 (tap0), and bound to h1", noGroup)
	k.plug("h2")
	k.plug("h1", p)
	k.eventuallyStatus(p, network.StatusActive)
	change(func(p *network.Port) { p.PortSecurityEnabled = false })
	says()

	k.set(func() {
		k.fleet.plugged = map[string][]network.InterfaceReport{"h1": {{Name: "tap0", Bridge: "br-int", NoLink: true}}}
	})
	says("the link of its interface tap0 on host h1 is down")
	k.set(func() { k.fleet.plugged = nil })

	k.set(func() { k.dead["h1"] = true })
	says("host h1 is away")
	k.set(func() { k.dead["h1"], k.refused["h1"] = false, errors.New("table is full") })
	says("host h1 refuses flows that it needs: table is full")
	k.set(func() { delete(k.refused, "h1") })

	change(func(p *network.Port) { p.AdminStateUp = false })
	says("admin_state_up of the port is false")
	change(func(p *network.Port) { p.AdminStateUp = true })
	k.eventuallyStatus(p, network.StatusActive)
	k.update(func(tx *network.Tx) error {
		without := tx.Subnet(subnet.ID).Clone()
		without.EnableDHCP = false
		return tx.UpdateSubnet(without)
	})
	says("enable_dhcp of its subnets is false")
	change(func(p *network.Port) { p.FixedIPs = nil })
	says("it has no address")

	k.plug("h1")
	change(func(p *network.Port) { p.Binding.Host = "" })
	says("not bound to a host", "it has no address")
	change(func(p *network.Port) { p.Binding.Host = "pigeon" })
	says("no host of that name has joined", "it has no address")
	change(func(p *network.Port) { p.Binding.Host, p.Binding.VNICType = "h1", "direct" })
	says("host h1 can't have it (vif_type binding_failed)", "it has no address")
}

func TestExplainWaitsForHostsThatLackThePortsFlows(t *testing.T) {
	k := newTrackedWith(t, waitForEver)
	k, here, _ := twoHostsOf(k)
	k.plug("h1", here)
	k.set(func() { k.has["h1"], k.has["h2"] = 1<<60, 0 })
	v := k.store.View()
	e := explainPort(v, v.Port(here.ID), k.fleet)
	if len(e.Findings) == 0 || e.Findings[0].What != "host h2 has not acknowledged its flows yet" {
		t.Errorf("findings %+v", e.Findings)
	}
	if e.Status != network.StatusDown || e.BoundTo != "h1" || len(e.PluggedOn) != 1 || e.PluggedOn[0] != "h1" || e.Network.Name != "net1" {
		t.Errorf("explanation %+v", e)
	}
}

func TestExplainFindsPortsByName(t *testing.T) {
	w := newWorld(t)
	n := w.network("net1")
	named := func(name string) *network.Port {
		p := &network.Port{Standard: network.Standard{ProjectID: "p", Name: name}, NetworkID: n.ID}
		w.update(func(tx *network.Tx) error { return tx.CreatePort(p) })
		return p
	}
	web, one, two := named("web"), named("twin"), named("twin")
	v := w.store.View()
	for _, name := range []string{"web", web.ID} {
		if p, err := findPort(v, name); err != nil || p.ID != web.ID {
			t.Errorf("%s: %v, %v", name, p, err)
		}
	}
	var refused *network.Error
	if _, err := findPort(v, "twin"); !errors.As(err, &refused) || refused.Class != network.Conflict ||
		!strings.Contains(refused.Error(), one.ID) || !strings.Contains(refused.Error(), two.ID) {
		t.Errorf("two of a name: %v", err)
	}
	for _, name := range []string{"", "pigeon"} {
		if _, err := findPort(v, name); !errors.As(err, &refused) || refused.Class != network.NotFound {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestExplainNamesWhatIsWrongWithTheRouterOfAPort(t *testing.T) {
	k := newTracked(t)
	k.host("h1", 1)
	k.acknowledge("h1")
	n := k.network("net1")
	subnet := k.subnet(n, "10.0.0.0/24")
	p := k.vm(n, "h1")
	k.plug("h1", p)
	k.eventuallyStatus(p, network.StatusActive)
	router := &network.Router{Standard: network.Standard{ID: "r1", Name: "edge"}, AdminStateUp: true}
	k.update(func(tx *network.Tx) error {
		changed := tx.Port(p.ID).Clone()
		changed.PortSecurityEnabled = false
		if err := tx.UpdatePort(changed); err != nil {
			return err
		}
		served := tx.Subnet(subnet.ID).Clone()
		served.EnableDHCP = true
		if err := tx.UpdateSubnet(served); err != nil {
			return err
		}
		if err := tx.CreateRouter(router); err != nil {
			return err
		}
		_, err := tx.AddRouterInterface(router.ID, subnet.ID, "")
		return err
	})
	findings := func() (all []Finding) {
		v := k.store.View()
		return explainPort(v, v.Port(p.ID), k.fleet).Findings
	}
	if all := findings(); len(all) != 0 {
		t.Errorf("a router that is well: %+v", all)
	}
	k.update(func(tx *network.Tx) error {
		down := tx.Router(router.ID).Clone()
		down.AdminStateUp = false
		return tx.UpdateRouter(down)
	})
	if all := findings(); len(all) != 1 || !strings.Contains(all[0].What, "router edge r1 is false") {
		t.Errorf("a router that is down: %+v", all)
	}
}
