package controller

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"planck/network"
)

func TestLocalVLANIsKeptUntilAllBridgesOfTheHostHaveApplied(t *testing.T) {
	w := newWorld(t)
	w.host("h1", 1)
	first, second := w.vm(w.network("net1"), "h1"), w.vm(w.network("net2"), "h1")
	w.plug("h1", first)
	o := w.switches(1)
	c := w.start(nil)
	w.eventuallyStatus(first, network.StatusActive)
	c.eventuallyRight("h1", allBridges...)
	departures := func() int { return len(slices.Collect(w.store.View().DeparturesOn("h1"))) }
	vlan := func(p *network.Port) uint16 { return w.store.View().Presence(p.NetworkID, "h1").VLAN }
	had := vlan(first)

	// br-tun lags behind: it may take frames in the local VLAN for the first network's.
	o.vsctl("set-controller", "br-tun", "tcp:127.0.0.1:1")
	eventually(t, 10*time.Second, func() error {
		if c.bridge("h1", "br-tun").connected() != nil {
			return fmt.Errorf("br-tun is still connected")
		}
		return nil
	})
	w.plug("h1", second)
	c.eventuallyRight("h1", "br-int", "br-ex")
	time.Sleep(100 * time.Millisecond) // in which nothing may happen
	if departures() != 1 || vlan(second) == had {
		t.Fatalf("%d departures, local VLAN %d after %d", departures(), vlan(second), had)
	}

	o.vsctl("set-controller", "br-tun", "tcp:"+w.addr)
	gone := func() error {
		if n := departures(); n != 0 {
			return fmt.Errorf("%d departures are left", n)
		}
		return nil
	}
	eventually(t, 20*time.Second, gone)
	w.eventuallyStatus(second, network.StatusActive)

	// With all of them there, it takes no more than the next pass.
	w.plug("h1", first)
	eventually(t, 10*time.Second, gone)
	w.plug("h1")
	eventually(t, 10*time.Second, gone)
}

func TestDeparturesEndAfterARestartOfTheController(t *testing.T) {
	w := newWorld(t)
	w.host("h1", 1)
	p := w.vm(w.network("net1"), "h1")
	w.plug("h1", p)
	w.plug("h1")
	w.switches(1)
	w.start(nil)
	eventually(t, 10*time.Second, func() error {
		if left := slices.Collect(w.store.View().DeparturesOn("h1")); len(left) > 0 {
			return fmt.Errorf("departures are left: %v", left)
		}
		return nil
	})
}
