package controller

import (
	"strings"
	"testing"

	"planck/network"
)

func TestWhatPortSecurityDroppedIsNamedForThePort(t *testing.T) {
	flow := func(table string, packets uint64) FlowRecord {
		return FlowRecord{Bridge: network.BridgeIntegration, Feature: "f", TableName: table, Packets: packets}
	}
	own := &FlowDump{Flows: []FlowRecord{flow("Classify", 100), flow("PortSecurity", 60), flow("PortSecurity", 34), flow("L2Lookup", 7)}}
	host := func(why string, packets uint64) Dropped {
		return Dropped{TableName: "PortSecurity", Counts: countsHost, Why: why, Packets: packets}
	}
	drops := []Dropped{host("source MAC is not the port's", 5), host("ARP sender is not the port's", 4), {TableName: "IngressRules", Counts: countsPort, Packets: 9}}
	f := forgedIn(own, drops)
	if f.packets != 6 || len(f.why) != 2 {
		t.Errorf("%+v", f)
	}
	p := &network.Port{PortSecurityEnabled: true}
	for _, c := range []struct {
		f    forged
		says string
	}{
		{f.since(f), "port security dropped 6 packets that its machine sent, none just now: ARP sender is not the port's, or source MAC is not the port's"},
		{f.since(forged{packets: 4}), "port security dropped 6 packets that its machine sent, and goes on: "},
		{f.since(forged{packets: 9}), ", none just now: "},
	} {
		if found := forgedBy(p, c.f); len(found) != 1 || !strings.Contains(found[0].What, c.says) || !strings.Contains(found[0].Mend, "allowed_address_pairs") {
			t.Errorf("%+v: %+v, want %s", c.f, found, c.says)
		}
	}
	// Flows that are gone have counted the rest: it is not known who was dropped.
	gone := &FlowDump{Flows: []FlowRecord{flow("Classify", 100), flow("PortSecurity", 4)}}
	if f := forgedIn(gone, drops); f.packets != 0 || forgedBy(p, f) != nil {
		t.Errorf("it says more than it knows: %+v", f)
	}
	if f := forgedIn(&FlowDump{Flows: []FlowRecord{flow("Classify", 3), flow("PortSecurity", 4)}}, drops); f.packets != 0 {
		t.Errorf("counters that were read while they grew: %+v", f)
	}
}

func TestDropsThatGoOnComeBeforeThoseThatEnded(t *testing.T) {
	w := newWorld(t)
	p := w.vm(w.network("net1"), "h1")
	g := &network.SecurityGroup{Standard: network.Standard{ID: "web", Name: "web", ProjectID: "p"}}
	w.update(func(tx *network.Tx) error { return tx.CreateSecurityGroup(g) })
	p = p.Clone()
	p.SecurityGroups = []string{"web"}
	drop := func(way string, packets uint64) Dropped {
		return Dropped{TableName: way, Counts: countsPort, Why: "no security group of the " + way + " allows it", Packets: packets, Age: 60}
	}
	before := []Dropped{drop("receiver", 9), drop("sender", 3)}
	found := droppedFor(w.store.View(), p, recently(before, []Dropped{drop("receiver", 9), drop("sender", 5)}))
	if len(found) != 2 || !strings.Contains(found[0].What, "dropped 5 packets from it in the last 1m0s: no rule allows them, and goes on") ||
		!strings.Contains(found[1].What, "dropped 9 packets to it in the last 1m0s: no rule allows them, none just now") {
		t.Errorf("%+v", found)
	}
}
