package controller

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"planck/flows"
	"planck/network"
	"planck/pipeline"
)

// world is a store with a host, and what it takes to run controllers on it.
type world struct {
	t     testing.TB
	store *network.Store
	addr  string // where the controller listens
}

func newWorld(t testing.TB) *world {
	t.Helper()
	store, err := network.Open(t.Context(), "sqlite:///"+t.TempDir()+"/planck.db", network.DefaultConfig())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	l := listen(t, "127.0.0.1:0")
	addr := l.Addr().String()
	l.Close()
	return &world{t: t, store: store, addr: addr}
}

func listen(t testing.TB, addr string) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func (w *world) update(fn func(tx *network.Tx) error) *network.View {
	w.t.Helper()
	v, err := w.store.Update(context.Background(), network.Cause{Operation: "test"}, fn)
	if err != nil {
		w.t.Fatal(err)
	}
	return v
}

const (
	dpidInt = 0x0000aaaa00000001
	dpidTun = 0x0000aaaa00000002
	dpidEx  = 0x0000aaaa00000003
)

// host puts a host with all three bridges into the model.
func (w *world) host(name string, index uint64) {
	w.t.Helper()
	w.update(func(tx *network.Tx) error {
		return tx.PutHost(&network.Host{
			Name: name, SystemID: name, TunnelIP: netip.AddrFrom4([4]byte{10, 250, 0, byte(index)}), DatapathType: "netdev",
			BridgeMappings: map[string]string{"physnet1": "br-ex"},
			Bridges: map[string]network.Bridge{
				"br-int": {DatapathID: dpidInt + index<<16, Patches: map[string]uint32{"br-tun": 1, "br-ex": 2}},
				"br-tun": {DatapathID: dpidTun + index<<16, Patches: map[string]uint32{"br-int": 1}, Tunnels: map[string]uint32{"gre": 2}},
				"br-ex":  {DatapathID: dpidEx + index<<16, Patches: map[string]uint32{"br-int": 1}},
			},
		})
	})
}

func (w *world) network(name string) *network.Network {
	w.t.Helper()
	n := &network.Network{Standard: network.Standard{Name: name, ProjectID: "p"}, AdminStateUp: true, PortSecurityEnabled: true}
	w.update(func(tx *network.Tx) error { return tx.CreateNetwork(n) })
	return n
}

func (w *world) vm(n *network.Network, host string) *network.Port {
	w.t.Helper()
	p := &network.Port{
		Standard: network.Standard{ProjectID: "p"}, NetworkID: n.ID, AdminStateUp: true, PortSecurityEnabled: true,
		Binding: network.Binding{Host: host, VNICType: "normal"},
	}
	w.update(func(tx *network.Tx) error { return tx.CreatePort(p) })
	return w.store.View().Port(p.ID)
}

// plug tells of all interfaces that are plugged on a host.
func (w *world) plug(host string, ports ...*network.Port) {
	w.t.Helper()
	w.update(func(tx *network.Tx) error {
		var vifs []network.VIF
		for i, p := range ports {
			vifs = append(vifs, network.VIF{PortID: p.ID, Name: fmt.Sprintf("tap%d", i), OFPort: uint32(10 + i)})
		}
		return tx.SyncVIFs(host, vifs)
	})
}

func (w *world) status(p *network.Port) network.PortStatus { return statusOf(w.store.View(), p.ID) }

func (w *world) eventuallyStatus(p *network.Port, want string) {
	w.t.Helper()
	eventually(w.t, 20*time.Second, func() error {
		if got := w.status(p); got.Status != want {
			return fmt.Errorf("port is %s (%s), want %s", got.Status, got.Reason, want)
		}
		return nil
	})
}

// running is a controller that runs.
type running struct {
	*Controller
	t        testing.TB
	registry *prometheus.Registry
	stop     func()
}

func (w *world) start(change func(*Options)) *running {
	w.t.Helper()
	registry := prometheus.NewRegistry()
	opt := Options{
		Store: w.store, Compiler: pipeline.NewCompiler(pipeline.Options{}), Listeners: []net.Listener{listen(w.t, w.addr)},
		Logger: slog.New(slog.NewTextHandler(testLog{w.t}, &slog.HandlerOptions{Level: slog.LevelDebug})), Registry: registry,
		AuditInterval: time.Hour,
	}
	if change != nil {
		change(&opt)
	}
	ctx, cancel := context.WithCancel(context.Background())
	c := New(opt)
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	r := &running{Controller: c, t: w.t, registry: registry}
	r.stop = sync.OnceFunc(func() {
		start := time.Now()
		cancel()
		if err := <-ended; err != nil {
			w.t.Errorf("the controller ended with: %v", err)
		}
		if took := time.Since(start); took > 10*time.Second {
			w.t.Errorf("the controller took %s to stop", took)
		}
	})
	w.t.Cleanup(r.stop)
	return r
}

type testLog struct{ t testing.TB }

func (l testLog) Write(b []byte) (int, error) {
	l.t.Log(strings.TrimSpace(string(b)))
	return len(b), nil
}

// metric is the sum of a metric over the labels that match.
func (r *running) metric(name string, labels map[string]string) float64 {
	r.t.Helper()
	families, err := r.registry.Gather()
	if err != nil {
		r.t.Fatal(err)
	}
	sum := 0.0
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			have := make(map[string]string)
			for _, l := range m.GetLabel() {
				have[l.GetName()] = l.GetValue()
			}
			matches := true
			for k, v := range labels {
				matches = matches && have[k] == v
			}
			if matches {
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return sum
}

func (r *running) eventuallyMetric(name string, labels map[string]string, least float64) {
	r.t.Helper()
	eventually(r.t, 20*time.Second, func() error {
		if got := r.metric(name, labels); got < least {
			return fmt.Errorf("%s%v is %v, want at least %v", name, labels, got, least)
		}
		return nil
	})
}

// eventuallyRight waits until every connected bridge of a host has what is wanted.
func (r *running) eventuallyRight(host string, bridges ...string) {
	r.t.Helper()
	eventually(r.t, 20*time.Second, func() error {
		for _, h := range r.Hosts() {
			if h.Name != host {
				continue
			}
			for _, b := range h.Bridges {
				if slices.Contains(bridges, b.Name) && (!b.Synced || b.Revision < r.view.Load().Revision()) {
					return fmt.Errorf("bridge %+v is not right", b)
				}
			}
			return r.wrongFlows(host, bridges)
		}
		return fmt.Errorf("host %s is not known", host)
	})
}

// wrongFlows reads the switch and compares it with what is desired.
func (r *running) wrongFlows(host string, bridges []string) error {
	for _, bridge := range bridges {
		dump, err := r.Flows(context.Background(), FlowQuery{Host: host, Bridge: bridge})
		if err != nil {
			return err
		}
		wanted := 0
		r.opt.Compiler.Read(pipeline.Target{Host: host, Bridge: bridge}, func(s pipeline.State) { wanted = len(s.Desired.Flows) })
		found := 0
		for _, f := range dump.Flows {
			if f.Feature == "" && bridge == "br-ex" || f.Feature == "canary" {
				continue
			}
			if !f.Desired {
				return fmt.Errorf("%s has a flow that nobody wants: %+v", bridge, f)
			}
			if cookie, _ := strconv.ParseUint(f.Cookie, 0, 64); pipeline.Cookie(cookie).Flags()&pipeline.FlagPermitted == 0 {
				found++
			}
		}
		if found != wanted {
			return fmt.Errorf("%s has %d flows, want %d", bridge, found, wanted)
		}
	}
	return nil
}

var allBridges = []string{"br-ex", "br-int", "br-tun"}

func (w *world) switches(index uint64) *openvswitch {
	o := startOVS(w.t)
	o.bridge("br-int", dpidInt+index<<16, w.addr)
	o.bridge("br-tun", dpidTun+index<<16, w.addr)
	o.bridge("br-ex", dpidEx+index<<16, w.addr)
	return o
}

func TestRestartedControllerSendsNoFlowMod(t *testing.T) {
	w := newWorld(t)
	w.host("h1", 1)
	n := w.network("net1")
	a, b := w.vm(n, "h1"), w.vm(n, "h1")
	w.plug("h1", a, b)
	o := w.switches(1)

	first := w.start(nil)
	first.eventuallyRight("h1", allBridges...)
	w.eventuallyStatus(a, network.StatusActive)
	if sent := first.metric("planck_flow_mods_total", nil); sent == 0 {
		t.Fatal("the first controller sent no FLOW_MOD")
	}
	before := o.flows("br-int")
	first.stop()

	revision := w.store.View().Revision()
	second := w.start(nil)
	second.eventuallyRight("h1", allBridges...)
	if sent := second.metric("planck_flow_mods_total", nil); sent != 0 {
		t.Errorf("the second controller sent %v FLOW_MODs to switches that were right", sent)
	}
	if sent := second.metric("planck_group_mods_total", nil) + second.metric("planck_meter_mods_total", nil); sent != 0 {
		t.Errorf("the second controller sent %v group and meter mods to switches that were right", sent)
	}
	if after := o.flows("br-int"); !slices.Equal(before, after) {
		t.Errorf("the flows changed from\n%s\nto\n%s", strings.Join(before, "\n"), strings.Join(after, "\n"))
	}
	if now := w.store.View().Revision(); now != revision {
		t.Errorf("the restart wrote to the store: revision %d became %d", revision, now)
	}
}

func TestRestartedSwitchGetsItsFlowsBack(t *testing.T) {
	w := newWorld(t)
	w.host("h1", 1)
	p := w.vm(w.network("net1"), "h1")
	w.plug("h1", p)
	o := w.switches(1)
	c := w.start(nil)
	c.eventuallyRight("h1", allBridges...)
	w.eventuallyStatus(p, network.StatusActive)

	o.killVswitch()
	eventually(t, 10*time.Second, func() error {
		if c.metric("planck_openflow_sessions", nil) > 0 {
			return fmt.Errorf("the controller believes that the dead switch is connected")
		}
		return nil
	})
	start := time.Now()
	o.startVswitch()
	c.eventuallyRight("h1", allBridges...)
	if took := time.Since(start); took > 20*time.Second {
		t.Errorf("the restarted switch was whole after %s", took)
	}
	if got := w.status(p).Status; got != network.StatusActive {
		t.Errorf("the restart of a switch made the port %s", got)
	}
}

func TestForeignFlowsAreRemovedFromOurBridgesOnly(t *testing.T) {
	w := newWorld(t)
	w.host("h1", 1)
	w.plug("h1", w.vm(w.network("net1"), "h1"))
	o := w.switches(1)
	c := w.start(func(o *Options) { o.AuditInterval = 300 * time.Millisecond })
	c.eventuallyRight("h1", allBridges...)

	foreign := "table=3,priority=77,udp,tp_dst=4242 actions=drop"
	o.ofctl("add-flow", "br-int", foreign)
	o.ofctl("add-flow", "br-ex", foreign)
	o.ofctl("del-flows", "br-tun", "table=20")
	o.ofctl("mod-flows", "br-int", "table=60,actions=drop")
	c.eventuallyMetric("planck_drift_total", map[string]string{"kind": "missing"}, 1)
	c.eventuallyMetric("planck_drift_total", map[string]string{"kind": "unexpected"}, 1)
	c.eventuallyMetric("planck_drift_total", map[string]string{"kind": "changed"}, 1)
	c.eventuallyRight("h1", allBridges...)

	if have := strings.Join(o.flows("br-int"), "\n"); strings.Contains(have, "4242") {
		t.Errorf("br-int still has the foreign flow:\n%s", have)
	}
	if have := strings.Join(o.flows("br-ex"), "\n"); !strings.Contains(have, "4242") {
		t.Errorf("the operator's flow on br-ex is gone:\n%s", have)
	}
	c.eventuallyMetric("planck_foreign_flows", map[string]string{"bridge": "br-ex"}, 1)
}

func TestOperatorsFlowsStayWhereOursWouldReplaceThem(t *testing.T) {
	w := newWorld(t)
	w.host("h1", 1)
	o := w.switches(1)
	o.ofctl("add-flow", "br-ex", "table=0,priority=0,actions=drop")
	c := w.start(func(o *Options) { o.AuditInterval = 300 * time.Millisecond })
	c.eventuallyRight("h1", "br-int", "br-tun")
	c.eventuallyMetric("planck_foreign_flows", map[string]string{"bridge": "br-ex"}, 1)
	catchAll := func(actions string) {
		t.Helper()
		eventually(t, 10*time.Second, func() error {
			have := o.ofctl("dump-flows", "br-ex", "table=0", "--no-stats")
			for line := range strings.Lines(have) {
				if strings.HasSuffix(strings.TrimSpace(line), "priority=0 actions="+actions) {
					return nil
				}
			}
			return fmt.Errorf("want actions=%s: %s", actions, have)
		})
	}
	reads := func() float64 { return c.metric("planck_switch_reads_total", map[string]string{"cause": readAudit}) }
	c.eventuallyMetric("planck_switch_reads_total", map[string]string{"cause": readAudit}, reads()+6)
	catchAll("drop")
	if n := c.metric("planck_refused_flows_total", nil); n != 0 {
		t.Errorf("%v flows counted as refused", n)
	}
	o.ofctl("del-flows", "br-ex", "--strict", "table=0,priority=0")
	catchAll("goto_table:10")
	// The audit, and what was put back by RestoreFlows, find that it is theirs again.
	if err := c.RestoreFlows(t.Context(), dpidEx+1<<16, "table=0, priority=0 actions=drop\n"); err != nil {
		t.Fatal(err)
	}
	c.eventuallyMetric("planck_switch_reads_total", map[string]string{"cause": readRestored}, 1)
	c.eventuallyMetric("planck_switch_reads_total", map[string]string{"cause": readAudit}, reads()+6)
	catchAll("drop")
}

func TestPortWhoseFlowsGiveWayToTheOperatorsIsInError(t *testing.T) {
	w := newWorld(t)
	w.host("h1", 1)
	n := &network.Network{
		Standard: network.Standard{ProjectID: "p"}, AdminStateUp: true, PortSecurityEnabled: true,
		NetworkType: network.TypeVLAN, PhysicalNetwork: "physnet1", SegmentationID: 101,
	}
	w.update(func(tx *network.Tx) error { return tx.CreateNetwork(n) })
	p := w.vm(n, "h1")
	w.plug("h1", p)
	o := w.switches(1)
	o.ofctl("add-flow", "br-ex", "table=0,priority=40000,dl_vlan=101,actions=drop")
	c := w.start(func(o *Options) { o.AuditInterval = 300 * time.Millisecond })
	w.eventuallyStatus(p, network.StatusError)
	if reason := w.status(p).Reason; !strings.Contains(reason, errHeld.Error()) {
		t.Errorf("the reason is %q", reason)
	}
	o.ofctl("del-flows", "br-ex", "--strict", "table=0,priority=40000,dl_vlan=101")
	w.eventuallyStatus(p, network.StatusActive)
	c.eventuallyRight("h1", allBridges...)
}

func TestChangesReachOnlyTheSwitchesConcernedWithFewFlowMods(t *testing.T) {
	w := newWorld(t)
	w.host("h1", 1)
	n := w.network("net1")
	var ports []*network.Port
	for range 5 {
		ports = append(ports, w.vm(n, "h1"))
	}
	w.plug("h1", ports[:4]...)
	w.switches(1)
	c := w.start(nil)
	c.eventuallyRight("h1", allBridges...)
	before := c.metric("planck_flow_mods_total", nil)
	w.plug("h1", ports...)
	w.eventuallyStatus(ports[4], network.StatusActive)
	c.eventuallyRight("h1", allBridges...)
	if sent := c.metric("planck_flow_mods_total", nil) - before; sent == 0 || sent > 60 {
		t.Errorf("one more port took %v FLOW_MODs", sent)
	}
	w.update(func(tx *network.Tx) error { return tx.SyncVIFs("h1", nil) })
	w.eventuallyStatus(ports[0], network.StatusDown)
	for _, p := range ports {
		w.update(func(tx *network.Tx) error { return tx.DeletePort(p.ID) })
	}
	c.eventuallyRight("h1", allBridges...)
}

func TestUnknownSwitchWaitsAndGetsNothing(t *testing.T) {
	w := newWorld(t)
	c := w.start(nil)
	o := w.switches(1)
	c.eventuallyMetric("planck_openflow_connections", nil, 3)
	if have := o.flows("br-int"); len(have) != 0 {
		t.Errorf("an unknown switch got flows: %s", have)
	}
	w.host("h1", 1)
	c.eventuallyRight("h1", allBridges...)
}

func TestSwitchFollowsItsDatapathIDToAnotherHost(t *testing.T) {
	w := newWorld(t)
	w.host("h1", 1)
	o := w.switches(1)
	c := w.start(nil)
	c.eventuallyRight("h1", allBridges...)
	w.update(func(tx *network.Tx) error { return tx.DeleteHost("h1") })
	w.host("h2", 1)
	c.eventuallyRight("h2", allBridges...)
	if have := strings.Join(o.flows("br-int"), "\n"); !strings.Contains(have, "cookie=0x504c") {
		t.Errorf("br-int has no flows of ours:\n%s", have)
	}
}

// fixed is a compiler for flows that no feature makes.
type fixed struct {
	mu       sync.Mutex
	revision uint64
	sets     map[pipeline.Target]*flows.Set
	permit   map[pipeline.Target]*flows.Set
	changes  []func() // since the last batch
	dirty    map[pipeline.Target]*flows.Dirty
}

func newFixed() *fixed {
	return &fixed{sets: make(map[pipeline.Target]*flows.Set), permit: make(map[pipeline.Target]*flows.Set)}
}

func (f *fixed) of(t pipeline.Target) (desired, permitted *flows.Set) {
	if f.sets[t] == nil {
		f.sets[t], f.permit[t] = flows.NewSet(), flows.NewSet()
	}
	return f.sets[t], f.permit[t]
}

func (f *fixed) Apply(b network.Batch) pipeline.Outcome {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.revision = b.View.Revision()
	f.dirty = make(map[pipeline.Target]*flows.Dirty)
	for _, change := range f.changes {
		change()
	}
	f.changes = nil
	return pipeline.Outcome{Revision: f.revision, Dirty: f.dirty}
}

func (f *fixed) Read(t pipeline.Target, fn func(pipeline.State)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	desired, permitted := f.of(t)
	fn(pipeline.State{Revision: f.revision, Desired: desired, Permitted: permitted})
}

// Compile is what is desired now, at any revision.
func (f *fixed) Compile(v *network.View, host string) (map[string]pipeline.State, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	states := map[string]pipeline.State{}
	for t, desired := range f.sets {
		if t.Host == host {
			states[t.Bridge] = pipeline.State{Revision: v.Revision(), Desired: desired, Permitted: f.permit[t]}
		}
	}
	return states, nil
}

// change changes what is desired; the next batch tells of it.
func (f *fixed) change(t pipeline.Target, fn func(desired, permitted *flows.Set)) {
	f.touch(t, func(desired, permitted *flows.Set, dirty *flows.Dirty) {
		fn(desired, permitted)
		dirty.All = true
	})
}

// touch is change for a function that says what is dirty. What it did is not
// seen before the batch.
func (f *fixed) touch(t pipeline.Target, fn func(desired, permitted *flows.Set, dirty *flows.Dirty)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.changes = append(f.changes, func() {
		desired, permitted := f.of(t)
		if f.dirty[t] == nil {
			f.dirty[t] = &flows.Dirty{}
		}
		fn(desired, permitted, f.dirty[t])
	})
}

var brInt = pipeline.Target{Host: "h1", Bridge: "br-int"}

func portFlow(p *network.Port, priority uint16, actions ...flows.Action) *flows.Flow {
	return &flows.Flow{
		Table: 5, Priority: priority, Match: flows.NewMatch(flows.Reg2.Is(uint64(p.Key))), Instructions: flows.Do(actions...),
		Cookie: uint64(pipeline.MakeCookie(pipeline.FeatureL2, 0, p.Key)),
	}
}

func TestRefusedFlowBlocksNoOtherAndMakesItsPortERROR(t *testing.T) {
	w := newWorld(t)
	w.host("h1", 1)
	n := w.network("net1")
	bad, good := w.vm(n, "h1"), w.vm(n, "h1")
	w.plug("h1", bad, good)
	compiler := newFixed()
	compiler.change(brInt, func(desired, _ *flows.Set) {
		desired.AddFlow(portFlow(bad, 1, flows.ToGroup(12345))) // there is no such group
		desired.AddFlow(portFlow(bad, 2, flows.ApplyMeter(777)))
		desired.AddFlow(portFlow(bad, 3, flows.Output(7)))
		desired.AddFlow(portFlow(good, 1, flows.Output(7)))
	})
	o := w.switches(1)
	c := w.start(func(o *Options) { o.Compiler = compiler })
	w.eventuallyStatus(good, network.StatusActive)
	w.eventuallyStatus(bad, network.StatusError)
	if reason := w.status(bad).Reason; !strings.Contains(reason, "h1") || !strings.Contains(reason, "BadAction") && !strings.Contains(reason, "Meter") {
		t.Errorf("the reason does not say what was refused: %q", reason)
	}
	if have := o.flows("br-int"); len(have) != 3 {
		t.Errorf("want the two good flows and the canary, have:\n%s", strings.Join(have, "\n"))
	}
	if got := c.metric("planck_refused_flows_total", nil); got != 2 {
		t.Errorf("%v refused flows were counted, want 2", got)
	}

	compiler.change(brInt, func(desired, _ *flows.Set) {
		desired.AddGroup(flows.NewGroup(12345, flows.GroupAll, flows.Bucket{Actions: []flows.Action{flows.Output(7)}}))
		desired.AddMeter(flows.NewMeterPPS(777, 10, 10))
	})
	w.network("another") // a batch
	w.eventuallyStatus(bad, network.StatusActive)
	if have := o.flows("br-int"); len(have) != 5 {
		t.Errorf("want four flows and the canary, have:\n%s", strings.Join(have, "\n"))
	}
	before := c.metric("planck_meter_mods_total", nil)
	compiler.change(brInt, func(desired, _ *flows.Set) {
		clear(desired.Flows)
		clear(desired.Groups)
		clear(desired.Meters)
	})
	w.network("a third")
	eventually(t, 10*time.Second, func() error {
		if have := o.flows("br-int"); len(have) != 1 {
			return fmt.Errorf("want the canary only, have:\n%s", strings.Join(have, "\n"))
		}
		if meters := o.ofctl("dump-meters", "br-int"); strings.Contains(meters, "meter=777") {
			return fmt.Errorf("the meter is still there: %s", meters)
		}
		return nil
	})
	if c.metric("planck_meter_mods_total", nil) == before {
		t.Error("the meter that went was not counted")
	}
}

// TestRefusalOfWhatAllPortsNeedMakesThemERROR: what stands for the host, and
// groups and meters, have no port of their own.
func TestRefusalOfWhatAllPortsNeedMakesThemERROR(t *testing.T) {
	host := func(f *flows.Flow) *flows.Flow {
		f.Cookie = uint64(pipeline.MakeCookie(pipeline.FeatureBase, pipeline.FlagHost, 1))
		return f
	}
	bucket := flows.Bucket{Actions: []flows.Action{flows.Output(7)}}
	for name, c := range map[string]struct {
		bridge      string
		desire      func(desired *flows.Set, tunnelled, wired *network.Port)
		tunnelledIs string
		wiredIs     string
		want        string
	}{
		"a flow of the host on br-int": {"br-int", func(desired *flows.Set, p, _ *network.Port) {
			desired.AddFlow(host(portFlow(p, 9, flows.ToGroup(12345))))
		}, network.StatusError, network.StatusError, "br-int"},
		"a flow of the host on br-tun": {"br-tun", func(desired *flows.Set, p, _ *network.Port) {
			desired.AddFlow(host(portFlow(p, 9, flows.ToGroup(12345))))
		}, network.StatusError, network.StatusActive, "br-tun"},
		"a flow of the host on br-ex": {"br-ex", func(desired *flows.Set, p, _ *network.Port) {
			desired.AddFlow(host(portFlow(p, 9, flows.ToGroup(12345))))
		}, network.StatusActive, network.StatusError, "br-ex"},
		"a meter": {"br-int", func(desired *flows.Set, _, _ *network.Port) {
			meter := flows.NewMeterPPS(5, 10, 10)
			meter.Bands = "\x00\x63" + meter.Bands[2:] // a type of band that there is not
			desired.AddMeter(meter)
		}, network.StatusError, network.StatusError, "meter 5"},
		"a group of a network": {"br-int", func(desired *flows.Set, _, p *network.Port) {
			desired.AddGroup(flows.NewGroup(5<<24|2, flows.GroupIndirect, bucket, bucket)) // it may have one
		}, network.StatusActive, network.StatusError, "group 83886082"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.host("h1", 1)
			flat := &network.Network{AdminStateUp: true, NetworkType: network.TypeFlat, PhysicalNetwork: "physnet1"}
			tunnelled := w.vm(w.network("net1"), "h1")
			w.update(func(tx *network.Tx) error { return tx.CreateNetwork(flat) })
			wired := w.vm(flat, "h1")
			w.plug("h1", tunnelled, wired)
			compiler := newFixed()
			target := pipeline.Target{Host: "h1", Bridge: c.bridge}
			compiler.change(target, func(desired, _ *flows.Set) { c.desire(desired, tunnelled, wired) })
			w.switches(1)
			w.start(func(o *Options) { o.Compiler = compiler })
			for port, want := range map[*network.Port]string{tunnelled: c.tunnelledIs, wired: c.wiredIs} {
				w.eventuallyStatus(port, want)
				if got := w.status(port); want == network.StatusError && !strings.Contains(got.Reason, c.want) {
					t.Errorf("the reason does not say what was refused: %q", got.Reason)
				}
			}
			compiler.change(target, func(desired, _ *flows.Set) {
				clear(desired.Flows)
				clear(desired.Groups)
				clear(desired.Meters)
			})
			w.network("another") // a batch
			w.eventuallyStatus(tunnelled, network.StatusActive)
			w.eventuallyStatus(wired, network.StatusActive)
		})
	}
}

// echo answers ARP punts: the packet goes back, and a permitted flow is asked for.
type echo struct {
	install flows.Key
	seen    chan PacketIn
	fail    func()
}

func (echo) Feature() pipeline.FeatureID { return pipeline.FeatureARP }

func (e echo) Respond(_ context.Context, in *PacketIn, out *Replies) error {
	if e.fail != nil {
		e.fail()
	}
	select {
	case e.seen <- PacketIn{Host: in.Host, Bridge: in.Bridge, InPort: in.InPort, Metadata: in.Metadata, Regs: in.Regs, Cookie: in.Cookie, Data: slices.Clone(in.Data), View: in.View}:
	default:
	}
	out.PacketOut(flows.PortController, flows.ActionList(flows.Output(in.InPort)), in.Data)
	out.Install(e.install)
	return nil
}

// puntWorld has one switch that sends every ARP packet of port 10 up, as from
// the port with key 42 on the network with key 9.
func puntWorld(t *testing.T, change func(*Options), e echo) (*running, *openvswitch, *fixed) {
	w := newWorld(t)
	w.host("h1", 1)
	compiler := newFixed()
	compiler.change(brInt, func(desired, permitted *flows.Set) {
		desired.AddFlow(&flows.Flow{
			Table: 0, Priority: 5, Match: flows.NewMatch(flows.InPort.Is(10)), Cookie: uint64(pipeline.MakeCookie(pipeline.FeatureClassify, 0, 42)),
			Instructions: flows.Do(flows.SetField(flows.Reg2, 42), flows.WriteMetadata(9, 0xffffffff), flows.Goto(pipeline.ArpNd.ID)),
		})
		desired.AddFlow(&flows.Flow{
			Table: pipeline.ArpNd.ID, Priority: 5, Match: flows.NewMatch(flows.ARP), Cookie: uint64(pipeline.MakeCookie(pipeline.FeatureARP, pipeline.FlagNetwork, 9)),
			Instructions: flows.Do(flows.ToController(0xffff)),
		})
		permitted.AddFlow(&flows.Flow{
			Table: 5, Priority: 9, Match: flows.NewMatch(flows.ARP), Instructions: flows.Do(),
			Cookie: uint64(pipeline.MakeCookie(pipeline.FeatureARP, pipeline.FlagPermitted, 9)),
		})
	})
	o := w.switches(1)
	o.port("br-int", "p10", 10)
	c := w.start(func(o *Options) {
		o.Compiler, o.Responders = compiler, []Responder{e}
		if change != nil {
			change(o)
		}
	})
	c.eventuallyRight("h1", "br-int")
	return c, o, compiler
}

const arpWho = "eth(src=fa:16:3e:00:00:01,dst=ff:ff:ff:ff:ff:ff),eth_type(0x0806),arp(sip=10.0.0.1,tip=10.0.0.2,op=1,sha=fa:16:3e:00:00:01,tha=00:00:00:00:00:00)"

func cachedKey() flows.Key {
	return flows.Key{Table: 5, Priority: 9, Match: flows.NewMatch(flows.ARP)}
}

func TestPacketInReachesItsResponderAndTheAnswerLeavesThePort(t *testing.T) {
	e := echo{install: cachedKey(), seen: make(chan PacketIn, 10)}
	c, o, compiler := puntWorld(t, nil, e)
	o.appctl("netdev-dummy/receive", "p10", "in_port(10),"+arpWho)
	in := <-e.seen
	if in.Host != "h1" || in.Bridge != "br-int" || in.InPort != 10 || in.NetworkKey() != 9 || in.PortKey() != 42 ||
		in.Cookie.Feature() != pipeline.FeatureARP || in.View == nil || len(in.Data) < 42 {
		t.Errorf("the responder saw %+v", in)
	}
	eventually(t, 10*time.Second, func() error {
		if stats := o.ofctl("dump-ports", "br-int", "p10"); !strings.Contains(stats, "tx pkts=1") {
			return fmt.Errorf("the answer did not leave the port: %s", stats)
		}
		return nil
	})
	c.eventuallyMetric("planck_packet_ins_total", map[string]string{"feature": "arp", "outcome": "answered"}, 1)

	cached := func(want bool) {
		t.Helper()
		eventually(t, 10*time.Second, func() error {
			if have := strings.Join(o.flows("br-int"), "\n"); strings.Contains(have, "table=5") != want {
				return fmt.Errorf("cached reply present: want %v, have\n%s", want, have)
			}
			return nil
		})
	}
	cached(true)
	compiler.change(brInt, func(_, permitted *flows.Set) { clear(permitted.Flows) })
	(&world{t: t, store: c.opt.Store.(*network.Store)}).network("batch")
	cached(false)
}

func TestPermittedFlowsOutliveARestartOfTheController(t *testing.T) {
	e := echo{install: cachedKey(), seen: make(chan PacketIn, 10)}
	c, o, compiler := puntWorld(t, nil, e)
	o.appctl("netdev-dummy/receive", "p10", "in_port(10),"+arpWho)
	c.eventuallyMetric("planck_flow_mods_total", map[string]string{"kind": "permitted"}, 1)
	eventually(t, 10*time.Second, func() error {
		if have := strings.Join(o.flows("br-int"), "\n"); !strings.Contains(have, "table=5") {
			return fmt.Errorf("the reply is not cached:\n%s", have)
		}
		return nil
	})
	c.stop()
	w := &world{t: t, store: c.opt.Store.(*network.Store), addr: c.opt.Listeners[0].Addr().String()}
	second := w.start(func(o *Options) { o.Compiler = compiler })
	second.eventuallyRight("h1", "br-int")
	if sent := second.metric("planck_flow_mods_total", nil); sent != 0 {
		t.Errorf("the restart sent %v FLOW_MODs", sent)
	}
	if have := strings.Join(o.flows("br-int"), "\n"); !strings.Contains(have, "table=5") {
		t.Errorf("the cached reply is gone:\n%s", have)
	}
}

func TestPortThatPuntsTooMuchIsSilencedForAWhile(t *testing.T) {
	e := echo{seen: make(chan PacketIn, 1000)}
	c, o, _ := puntWorld(t, func(o *Options) { o.PuntRatePerPort = 5 }, e)
	for range 20 {
		o.appctl("netdev-dummy/receive", "p10", "in_port(10),"+arpWho)
	}
	c.eventuallyMetric("planck_packet_ins_total", map[string]string{"feature": "arp", "outcome": "limited"}, 1)
	c.eventuallyMetric("planck_flow_mods_total", map[string]string{"kind": "punt-drop"}, 1)
	if answered := c.metric("planck_packet_ins_total", map[string]string{"feature": "arp", "outcome": "answered"}); answered > 10 {
		t.Errorf("%v packets were answered at 5 a second", answered)
	}
	eventually(t, 10*time.Second, func() error {
		if have := strings.Join(o.flows("br-int"), "\n"); strings.Contains(have, "hard_timeout") {
			return fmt.Errorf("the drop flow did not expire:\n%s", have)
		}
		return nil
	})
}

func TestPanickingResponderEndsOnlyItsSession(t *testing.T) {
	var once sync.Once
	e := echo{seen: make(chan PacketIn, 10), fail: func() { once.Do(func() { panic("broken responder") }) }}
	c, o, _ := puntWorld(t, nil, e)
	o.appctl("netdev-dummy/receive", "p10", "in_port(10),"+arpWho)
	c.eventuallyMetric("planck_openflow_closed_total", map[string]string{"reason": "error"}, 1)
	c.eventuallyRight("h1", "br-int")
	o.appctl("netdev-dummy/receive", "p10", "in_port(10),"+arpWho)
	<-e.seen
}

func TestOperatorsFlowsAreReadBeforeTheJoinAndPutBack(t *testing.T) {
	w := newWorld(t)
	c := w.start(nil)
	o := w.switches(1)
	for _, f := range []string{"priority=0,actions=NORMAL", "table=0,priority=9,tcp,tp_dst=80 actions=output:4", "table=7,cookie=0x99,ip,nw_src=10.1.0.0/16 actions=drop"} {
		o.ofctl("add-flow", "br-ex", f)
	}
	text, err := c.ForeignFlows(t.Context(), dpidEx+1<<16)
	if err != nil {
		t.Fatal(err)
	}
	before := o.flows("br-ex")
	o.ofctl("del-flows", "br-ex")
	w.host("h1", 1)
	c.eventuallyRight("h1", allBridges...)
	if err := c.RestoreFlows(t.Context(), dpidEx+1<<16, text); err != nil {
		t.Fatal(err)
	}
	after := strings.Join(o.flows("br-ex"), "\n")
	for _, f := range before {
		if !strings.Contains(f, "NORMAL") && !strings.Contains(after, f) {
			t.Errorf("%s was not put back; have\n%s", f, after)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := c.ForeignFlows(ctx, 77); err == nil {
		t.Error("the flows of a switch that never connects were read")
	}
}

// TestMirrorStaysTrueWhileRespondersInstall changes what is desired and permitted
// while flows are installed for responders, and never reads the switch again.
func TestMirrorStaysTrueWhileRespondersInstall(t *testing.T) {
	w := newWorld(t)
	w.host("h1", 1)
	compiler := newFixed()
	o := w.switches(1)
	c := w.start(func(o *Options) {
		o.Compiler = compiler
		o.Logger = slog.New(slog.NewTextHandler(testLog{t}, nil))
	})
	c.eventuallyRight("h1", "br-int")
	const keys = 40
	flow := func(i int, permitted bool) *flows.Flow {
		flag := uint8(0)
		if permitted {
			flag = pipeline.FlagPermitted
		}
		return &flows.Flow{
			Table: 5, Priority: uint16(i), Match: flows.NewMatch(), Instructions: flows.Do(),
			Cookie: uint64(pipeline.MakeCookie(pipeline.FeatureARP, flag, uint32(i))),
		}
	}
	r := c.bridge("h1", "br-int").connected().dispatch.Load().r
	stop := make(chan struct{})
	var installers sync.WaitGroup
	for range 2 {
		installers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					f := flow(rand.IntN(keys), true)
					r.install(f.Key())
				}
			}
		})
	}
	for round := range 5000 {
		compiler.touch(brInt, func(desired, permitted *flows.Set, dirty *flows.Dirty) {
			for range 3 {
				i := rand.IntN(keys)
				f := flow(i, true)
				dirty.AddFlow(f.Key(), nil)
				delete(desired.Flows, f.Key())
				delete(permitted.Flows, f.Key())
				switch rand.IntN(3) {
				case 0:
					permitted.AddFlow(f)
				case 1:
					desired.AddFlow(flow(i, false))
				}
			}
		})
		c.apply(network.Batch{View: w.store.View()})
		if round%50 == 0 {
			time.Sleep(time.Millisecond) // let passes of many sizes happen
		}
	}
	close(stop)
	installers.Wait()
	c.eventuallyRight("h1", "br-int")
	if reads := c.metric("planck_switch_reads_total", map[string]string{"cause": "unknown"}); reads != 0 {
		t.Errorf("the switch was read %v times more", reads)
	}
	if have := len(o.flows("br-int")); have == 0 {
		t.Error("nothing is left to compare")
	}
}
