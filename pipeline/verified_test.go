package pipeline

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"strings"
	"testing"

	"planck/flows"
	"planck/network"
	"planck/verify"
)

// verifiedClouds is how many random clouds TestRandomCloudsAreProven makes.
const verifiedClouds = 8

// switches are what all bridges have.
type switches map[Target]*flows.Set

// desired is what is wanted of all bridges now.
func (w *world) desired() switches {
	all := switches{}
	for target := range w.compiler.Targets() {
		w.compiler.Read(target, func(s State) {
			all[target] = &flows.Set{Flows: maps.Clone(s.Desired.Flows), Groups: maps.Clone(s.Desired.Groups)}
		})
	}
	return all
}

// read implements trace.Tables.
func (s switches) read(host, bridge string) (*flows.Set, error) {
	if set := s[Target{host, bridge}]; set != nil {
		return set, nil
	}
	return flows.NewSet(), nil
}

// allActive says of all plugged ports that they are ACTIVE.
func (w *world) allActive() {
	w.Helper()
	_, err := w.store.Update(w.Context(), network.Cause{}, func(tx *network.Tx) error {
		for p := range tx.Ports() {
			if tx.WiredHost(p) == "" {
				continue
			}
			if err := tx.SetPortStatus(network.PortStatus{PortID: p.ID, Status: network.StatusActive}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		w.Fatal(err)
	}
	if w.store.View().Revision() != w.compiler.Revision() {
		w.compile()
	}
}

func (w *world) verify(in verify.Input) *verify.Report {
	w.Helper()
	in.View, in.Layout = w.store.View(), VerifyLayout
	r, err := verify.Run(in)
	if err != nil {
		w.Fatal(err)
	}
	return r
}

// Whatever the model, what is compiled of it is proven right.
func TestRandomCloudsAreProven(t *testing.T) {
	states, ports := 0, 0
	for s := *seed; s < *seed+verifiedClouds; s++ {
		c := newTopology(t, s)
		c.build()
		for range 1 + changes {
			c.allActive()
			r := c.verify(verify.Input{Tables: c.desired().read})
			for _, f := range r.Findings {
				t.Errorf("seed %d: %s: %s", s, f.Kind, f.Text)
			}
			for _, u := range r.Unproven {
				t.Errorf("seed %d: not proven: %s", s, u)
			}
			if t.Failed() {
				t.Fatal(c.describe())
			}
			states, ports = states+r.States, ports+r.Ports
			c.change()
		}
	}
	t.Logf("%d sets of packets of %d ports", states, ports)
}

// plantedCloud is two hosts and two tenants with the same addresses, each with a
// machine on both hosts, a router and a gateway on one external network.
func plantedCloud(t *testing.T) *world {
	t.Helper()
	w := newWorld(t, Options{})
	w.hosts(2)
	w.openGroup()
	for i, tenant := range []string{"blue", "red"} {
		w.network(&network.Network{Standard: network.Standard{ID: tenant}, NetworkType: network.TypeGRE}, "10.0.0.0/24")
		for k := range 2 {
			w.port(&network.Port{
				Standard: network.Standard{ID: fmt.Sprint(tenant, k+1)}, NetworkID: tenant, AdminStateUp: true, PortSecurityEnabled: true,
				MAC: network.MAC{0xfa, 0x16, 0x3e, 0, byte(i), byte(10 + k)}, SecurityGroups: []string{"open"},
			}, fmt.Sprint("host", k+1))
		}
		w.router(tenant+"-router", netip.MustParseAddr("10.0.0.10"), "subnet-"+tenant)
	}
	w.external("blue-router", true)
	w.do(func(tx *network.Tx) error {
		r := tx.Router("red-router").Clone()
		r.ExternalNetworkID = "public"
		return tx.UpdateRouter(r)
	})
	w.allActive()
	return w
}

// planted is what was done to the flows of a switch.
type planted struct {
	*world
	switches
	touched map[flows.Key]bool // any of which is to blame
}

// find is the first flow of a table of br-int on host1 that has a text in it.
func (p *planted) find(table *Table, text string) *flows.Flow {
	p.Helper()
	for _, f := range p.switches[Target{"host1", "br-int"}].SortedFlows() {
		if f.Table == table.ID && strings.Contains(f.String(), text) {
			return f
		}
	}
	p.Fatalf("table %s of host1 has no flow with %q", table.Name, text)
	return nil
}

func (p *planted) remove(f *flows.Flow) {
	delete(p.switches[Target{"host1", "br-int"}].Flows, f.Key())
	p.touched[f.Key()] = true
}

func (p *planted) add(bridge, text string) {
	p.Helper()
	f, err := flows.ParseFlow(text)
	if err != nil {
		p.Fatal(err)
	}
	p.switches[Target{"host1", bridge}].AddFlow(&f)
	p.touched[f.Key()] = true
}

func (p *planted) port(id string) *network.Port { return p.store.View().Port(id) }

func (p *planted) ofport(id string) uint32 { return p.store.View().VIF(id, "host1").OFPort }

// Hosts are explored side by side, and yet each proof says the same.
func TestProofsAreTheSameEachTime(t *testing.T) {
	w := plantedCloud(t)
	p := &planted{w, w.desired(), map[flows.Key]bool{}}
	blue, red := w.store.View().Network("blue").Key, w.store.View().Network("red").Key
	f := *p.find(Classify, fmt.Sprintf("in_port=%d,", p.ofport("blue1")))
	p.add("br-int", strings.Replace(f.String(), fmt.Sprintf("set_field:%#x/0xffffffff->metadata", blue), fmt.Sprintf("set_field:%#x/0xffffffff->metadata", red), 1))
	p.remove(p.find(PortSecurity, "priority=85,ip actions"))
	said := func() string {
		r := w.verify(verify.Input{Tables: p.switches.read, Desired: w.desired().read})
		text := fmt.Sprintln(r.States, r.InReserve, r.Unproven)
		for _, f := range r.Findings {
			text += fmt.Sprintln(f.Kind, f.Text, f.Like, f.Sent)
		}
		return text
	}
	first := said()
	for range 5 {
		if again := said(); again != first {
			t.Fatalf("first\n%s\nthen\n%s", first, again)
		}
	}
}

// What was not looked at is not proven, and nobody waits for what nobody wants to know.
func TestProofsEndEarly(t *testing.T) {
	w := plantedCloud(t)
	r := w.verify(verify.Input{Tables: w.desired().read, MostStates: 100})
	if len(r.Unproven) == 0 || !strings.Contains(r.Unproven[0], "the first 100 sets of packets") {
		t.Errorf("not proven: %q", r.Unproven)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	gone := errors.New("the client went away")
	cancel(gone)
	if _, err := verify.Run(verify.Input{Context: ctx, View: w.store.View(), Tables: w.desired().read, Layout: VerifyLayout}); !errors.Is(err, gone) {
		t.Errorf("the error of a proof that nobody waits for: %v", err)
	}
}

// Each fault that is planted is named, with the flow that is at fault and a packet
// that shows it.
func TestFaultsAreNamed(t *testing.T) {
	w := plantedCloud(t)
	if r := w.verify(verify.Input{Tables: w.desired().read, Desired: w.desired().read}); len(r.Findings)+len(r.Unproven) > 0 {
		t.Fatalf("without a fault: %+v", r)
	}
	blue, red := w.store.View().Network("blue").Key, w.store.View().Network("red").Key
	for name, fault := range map[string]struct {
		kind  verify.Kind
		plant func(p *planted)
	}{
		"a machine on another network": {verify.Crossing, func(p *planted) {
			f := *p.find(Classify, fmt.Sprintf("in_port=%d,", p.ofport("blue1")))
			text := strings.Replace(f.String(), fmt.Sprintf("set_field:%#x/0xffffffff->metadata", blue), fmt.Sprintf("set_field:%#x/0xffffffff->metadata", red), 1)
			p.add("br-int", text)
		}},
		"an output to a machine of another network": {verify.Crossing, func(p *planted) {
			p.add("br-int", fmt.Sprintf("table=60,priority=30000,metadata=%#x/0xffffffff,dl_dst=02:00:00:00:00:77 actions=output:%d", blue, p.ofport("red1")))
		}},
		"a tunnel of another network": {verify.Crossing, func(p *planted) {
			vlan := p.store.View().Presence("blue", "host1").VLAN
			p.add("br-tun", fmt.Sprintf("table=10,priority=30000,dl_vlan=%d,udp actions=pop_vlan,set_field:%d->tun_id,set_field:10.250.0.2->tun_dst,output:111",
				vlan, p.store.View().Network("red").SegmentationID))
		}},
		"a tunnel that ends in another network": {verify.Crossing, func(p *planted) {
			p.add("br-tun", fmt.Sprintf("table=20,priority=30000,tun_id=%d actions=push_vlan:0x8100,set_field:%d->vlan_vid,goto_table:22",
				p.store.View().Network("blue").SegmentationID, 0x1000|p.store.View().Presence("red", "host1").VLAN))
		}},
		"a tunnel of one source that ends in another network": {verify.Crossing, func(p *planted) {
			p.add("br-tun", fmt.Sprintf("table=22,priority=30000,tun_src=10.250.0.2,dl_vlan=%d actions=set_field:%d->vlan_vid,output:103",
				p.store.View().Presence("blue", "host1").VLAN, 0x1000|p.store.View().Presence("red", "host1").VLAN))
		}},
		"a route to another tenant": {verify.Crossing, func(p *planted) {
			p.add("br-int", fmt.Sprintf("table=36,priority=30000,ip,metadata=%#x/0xffffffff00000000,nw_dst=10.9.9.9 actions=dec_ttl,set_field:%#x/0xffffffff->metadata,set_field:%s->eth_dst,goto_table:60",
				uint64(p.store.View().Router("blue-router").Key)<<32, red, p.port("red1").MAC))
		}},
		"a leak for one tagged frame": {verify.Crossing, func(p *planted) {
			p.add("br-int", fmt.Sprintf("table=0,priority=30000,in_port=%d,dl_vlan=77,dl_type=0x88b5,dl_src=02:00:00:00:00:00/03:00:00:00:00:00 actions=pop_vlan,output:%d", p.ofport("blue1"), p.ofport("red1")))
		}},
		"no drop of forged IPv4 addresses": {verify.Spoofed, func(p *planted) {
			p.remove(p.find(PortSecurity, "priority=85,ip actions"))
		}},
		"a MAC too many": {verify.Spoofed, func(p *planted) {
			p.add("br-int", fmt.Sprintf("table=10,priority=30000,reg2=%#x,dl_src=02:00:00:00:00:55 actions=goto_table:12", p.port("blue1").Key))
		}},
		"no way to the gateway": {verify.Gateway, func(p *planted) {
			p.remove(p.find(RouterAdmit, fmt.Sprintf("priority=100,ip,metadata=%#x/", blue)))
		}},
		"no ARP": {verify.Gateway, func(p *planted) {
			p.add("br-int", "table=14,priority=30000,arp,arp_tpa=10.0.0.1 actions=drop")
		}},
		"no DHCP": {verify.DHCP, func(p *planted) {
			p.add("br-int", "table=12,priority=30000,udp,tp_dst=67 actions=drop")
		}},
		"a loop between br-int and br-tun": {verify.Loop, func(p *planted) {
			vlan := p.store.View().Presence("blue", "host1").VLAN
			p.add("br-tun", fmt.Sprintf("table=0,priority=30000,in_port=103,dl_vlan=%d actions=IN_PORT", vlan))
			p.add("br-int", fmt.Sprintf("table=0,priority=30000,in_port=101,dl_vlan=%d actions=IN_PORT", vlan))
		}},
		"a table that leads to itself": {verify.Loop, func(p *planted) {
			p.add("br-int", "table=60,priority=30000,tcp,tp_dst=7 actions=resubmit(,30)")
		}},
		"a flow that takes all of another": {verify.InVain, func(p *planted) {
			p.touched[p.find(L2Lookup, fmt.Sprintf("metadata=%#x/0xffffffff,dl_dst=%s", blue, p.port("blue1").MAC)).Key()] = true
			p.add("br-int", fmt.Sprintf("table=60,priority=30000,dl_dst=%s actions=drop", p.port("blue1").MAC))
		}},
		"a flow where nothing comes": {verify.InVain, func(p *planted) {
			p.add("br-int", "table=60,priority=30000,metadata=0x777/0xffffffff actions=drop")
		}},
	} {
		t.Run(name, func(t *testing.T) {
			p := &planted{w, w.desired(), map[flows.Key]bool{}}
			fault.plant(p)
			r := w.verify(verify.Input{Tables: p.switches.read, Desired: w.desired().read})
			for _, f := range r.Findings {
				t.Logf("%s: %s: %v", f.Kind, f.Text, f.Sent)
				if f.Kind != fault.kind || f.Blame == nil || !p.touched[f.Blame.Flow.Key()] {
					continue
				}
				if f.Kind == verify.Loop && (strings.Count(f.Text, "circles") != 1 || !strings.Contains(f.Text, ", over br-")) {
					t.Errorf("it says %q", f.Text)
				}
				if f.Kind != verify.InVain && len(f.Way.Hops) == 0 {
					t.Errorf("%s without a way", f.Text)
				}
				return
			}
			t.Errorf("no finding of kind %q names what was planted; not proven: %q", fault.kind, r.Unproven)
		})
	}
}

// A table that is gone leaves many flows without packets: that is one finding, and
// it says which one is gone.
func TestFlowsInVainAreToldByTheirCause(t *testing.T) {
	w := plantedCloud(t)
	p := &planted{w, w.desired(), map[flows.Key]bool{}}
	gone := 0
	set := p.switches[Target{"host1", "br-int"}]
	for key, f := range set.Flows {
		if f.Table == PortSecurity.ID {
			delete(set.Flows, key)
			gone++
		}
	}
	r := w.verify(verify.Input{Tables: p.switches.read, Desired: w.desired().read})
	want := fmt.Sprintf("none comes there any more: host1 br-int lacks %d of table %d", gone, PortSecurity.ID)
	told, flowsInVain := 0, 0
	for _, f := range r.Findings {
		if f.Kind != verify.InVain {
			continue
		}
		told, flowsInVain = told+1, flowsInVain+1+f.Like
		if !strings.HasSuffix(f.Text, want) {
			t.Errorf("it says %q, not %q", f.Text, want)
		}
	}
	if told != 1 || flowsInVain < 10 {
		t.Errorf("%d findings of %d flows in vain", told, flowsInVain)
	}
}
