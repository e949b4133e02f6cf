package controller

import (
	"errors"
	"strings"
	"testing"
	"time"

	"planck/network"
)

func (r *running) mustRead(q FlowQuery) *FlowDump {
	r.t.Helper()
	dump, err := r.Flows(r.t.Context(), q)
	if err != nil {
		r.t.Fatal(err)
	}
	return dump
}

func TestOperatorSeesHostsAndTheirFlows(t *testing.T) {
	w := newWorld(t)
	w.host("h1", 1)
	w.host("h2", 2)
	p := w.vm(w.network("net1"), "h1")
	w.plug("h1", p)
	o := w.switches(1)
	c := w.start(nil)
	c.eventuallyRight("h1", allBridges...)
	w.eventuallyStatus(p, network.StatusActive)
	c.eventuallyRight("h1", allBridges...)

	hosts := c.Hosts()
	if len(hosts) != 2 {
		t.Fatalf("%+v", hosts)
	}
	h1, h2 := hosts[0], hosts[1]
	if !h1.Connected || h1.VIFs != 1 || len(h1.Bridges) != 3 || h1.Revision != w.store.View().Revision() {
		t.Errorf("h1 is shown as %+v", h1)
	}
	if b := h1.Bridges[1]; b.Name != "br-int" || b.Flows == 0 || b.FlowMods == 0 || b.Remote == "" || b.DatapathID != "0000aaaa00010001" {
		t.Errorf("br-int is shown as %+v", b)
	}
	if h2.Connected || h2.Revision != 0 {
		t.Errorf("h2 is shown as %+v", h2)
	}

	o.ofctl("add-flow", "br-ex", "table=9,tcp,actions=drop")
	table := c.mustRead(FlowQuery{Host: "h1"})
	bridges, foreign, canaries := make(map[string]int), 0, 0
	for _, f := range table.Flows {
		bridges[f.Bridge]++
		switch {
		case f.Feature == "":
			foreign++
		case f.TableName == "":
			t.Errorf("no table name: %+v", f)
		case f.Feature == "canary":
			canaries++
		case !f.Desired || f.Actions == "" || f.Resource.Kind == "":
			t.Errorf("flow is shown as %+v", f)
		}
	}
	if bridges["br-int"] == 0 || bridges["br-tun"] == 0 || bridges["br-ex"] == 0 || foreign != 1 || canaries != 3 {
		t.Errorf("flows by bridge %v, %d foreign, %d canaries", bridges, foreign, canaries)
	}

	table = c.mustRead(FlowQuery{Host: "h1", Bridge: "br-int", Port: p.ID})
	if len(table.Flows) == 0 {
		t.Error("the port has no flows")
	}
	for _, f := range table.Flows {
		if f.Resource.ID != p.ID || f.Bridge != "br-int" {
			t.Errorf("not a flow of the port on br-int: %+v", f)
		}
	}
}

func TestOperatorIsToldWhatIsNotThere(t *testing.T) {
	w := newWorld(t)
	w.host("h1", 1)
	c := w.start(nil)
	eventually(t, 5e9, c.Ready)
	for query, want := range map[FlowQuery]struct {
		class network.Class
		text  string
	}{
		{}:                             {network.Invalid, "host"},
		{Network: "nope"}:              {network.NotFound, "nope"},
		{Feature: "nope"}:              {network.NotFound, "nope"},
		{Host: "nope"}:                 {network.NotFound, "nope"},
		{Host: "h1", Bridge: "br0"}:    {network.NotFound, "br0"},
		{Host: "h1", Port: "nope"}:     {network.NotFound, "nope"},
		{Host: "h1", Bridge: "br-int"}: {network.Unavailable, "not connected"},
		{Host: "h1"}:                   {network.Unavailable, "not connected"},
	} {
		_, err := c.Flows(t.Context(), query)
		if e, ok := errors.AsType[*network.Error](err); !ok || e.Class != want.class || !strings.Contains(e.Message, want.text) {
			t.Errorf("%+v: %v, want class %d and %q", query, err, want.class, want.text)
		}
	}
}

func TestFlowsOfTheOtherBridgesAreShownWhenOneIsNotConnected(t *testing.T) {
	w := newWorld(t)
	w.host("h1", 1)
	o := startOVS(t)
	o.bridge("br-int", dpidInt+1<<16, w.addr)
	o.bridge("br-ex", dpidEx+1<<16, w.addr)
	c := w.start(nil)
	c.eventuallyRight("h1", "br-int", "br-ex")
	dump := c.mustRead(FlowQuery{Host: "h1"})
	bridges := make(map[string]int)
	for _, f := range dump.Flows {
		bridges[f.Bridge]++
	}
	if len(bridges) != 2 || bridges["br-int"] == 0 || bridges["br-ex"] == 0 {
		t.Errorf("flows by bridge: %v", bridges)
	}
	if len(dump.Problems) != 1 || dump.Problems[0].Bridge != "br-tun" || !strings.Contains(dump.Problems[0].Problem, "not connected") {
		t.Errorf("problems: %+v", dump.Problems)
	}
}

func TestATextWithoutFlowsIsRefused(t *testing.T) {
	w := newWorld(t)
	w.host("h1", 1)
	c := w.start(nil)
	eventually(t, time.Minute, func() error {
		if c.view.Load() == nil {
			return errors.New("the model is not read yet")
		}
		return nil
	})
	const flow = " cookie=0x0, duration=5.1s, table=0, n_packets=3, n_bytes=300, priority=1,in_port=2 actions=output:3\n"
	dump, err := c.ReadFlows(FlowQuery{Host: "h1", Bridge: "br-int"}, strings.NewReader("OFPST_FLOW reply (OF1.3) (xid=0x2):\n"+flow))
	if err != nil || len(dump.Flows) != 1 || dump.Flows[0].Packets != 3 {
		t.Errorf("%+v, %v", dump, err)
	}
	for text, want := range map[string]string{
		"":               "no flow in it: ovs-ofctl dump-flows --no-names",
		"dear planck,\n": "no flow in it",
		"\n table=Classify, priority=1,ip actions=drop\n":                   "line 2: ",
		" table=0, priority=1,in_port=\"int-br-ex\" actions=drop\n":         "dump it with --no-names",
		" table=0, priority=1,ip actions=output:\"tap0\"\n":                 "dump it with --no-names",
		" table=0, priority=1,ip actions=resubmit(,Egress)\n":               "dump it with --no-names",
		" table=0, priority=1,ip actions=goto_table:7,in_port=banana nan\n": "line 1: ",
	} {
		if _, err := c.ReadFlows(FlowQuery{Host: "h1", Bridge: "br-int"}, strings.NewReader(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
}
