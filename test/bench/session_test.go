package bench

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"planck/controller"
	"planck/flows"
	"planck/network"
	"planck/pipeline"
)

// realFlows are the first n of the flows of br-int that the pipelines make for
// a host of a large cloud, without those that need a group.
func realFlows(tb testing.TB, n int) []*flows.Flow {
	tb.Helper()
	const flowsPerPort = 5
	w, _, _ := newCompiled(tb, newCloud(tb, 3, max(n/flowsPerPort, portsPerNetwork)))
	var list []*flows.Flow
	w.compiler.Read(pipeline.Target{Host: hostName(0), Bridge: network.BridgeIntegration}, func(s pipeline.State) {
		for _, f := range s.Desired.SortedFlows() {
			if len(list) < n && f.Table != pipeline.L2Lookup.ID {
				list = append(list, f)
			}
		}
	})
	w.follower.Close()
	if len(list) < n {
		tb.Fatalf("only %d flows", len(list))
	}
	return list
}

// programmed is a switch and a controller in this process, which gives its
// bridge the flows that the benchmark says.
type programmed struct {
	testing.TB
	host       *dummyHost
	listener   *cuttable
	store      *network.Store
	controller *controller.Controller
	desired    *desired
}

const datapathID = 0x10

func newProgrammed(tb testing.TB) *programmed {
	tb.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	store, err := network.Open(context.Background(), "sqlite://"+filepath.Join(tb.TempDir(), "planck.db"), network.DefaultConfig())
	if err != nil {
		tb.Fatal(err)
	}
	p := &programmed{
		TB: tb, host: startHosts(tb, 1, 0)[0], listener: &cuttable{Listener: listener}, store: store,
		desired: &desired{target: pipeline.Target{Host: hostName(0), Bridge: network.BridgeIntegration}, set: flows.NewSet()},
	}
	p.controller = controller.New(controller.Options{
		Store: store, Compiler: p.desired, Listeners: []net.Listener{p.listener},
		Logger: slog.New(slog.DiscardHandler), AuditInterval: time.Hour,
	})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- p.controller.Run(ctx) }()
	tb.Cleanup(func() {
		cancel()
		if err := errors.Join(<-ended, store.Close()); err != nil {
			tb.Error(err)
		}
	})
	p.vsctl("add-br", "br-int", "--", "set", "Bridge", "br-int", "protocols=OpenFlow10,OpenFlow13", "fail-mode=secure",
		fmt.Sprintf("other-config:datapath-id=%016x", datapathID), "other-config:disable-in-band=true",
		"--", "set-controller", "br-int", "tcp:"+listener.Addr().String(),
		"--", "set", "Controller", "br-int", "max_backoff=1000",
		"--", "add-br", "br-peer", "--", "set", "Bridge", "br-peer", "protocols=OpenFlow10,OpenFlow13", "fail-mode=secure")
	p.update(func(tx *network.Tx) error {
		return tx.PutHost(&network.Host{
			Name: hostName(0), SystemID: hostName(0),
			Bridges: map[string]network.Bridge{network.BridgeIntegration: {DatapathID: datapathID}},
		})
	})
	p.wait(0)
	return p
}

func (p *programmed) vsctl(args ...string) {
	p.Helper()
	args = append([]string{"--timeout=60", "--db=unix:" + p.host.file("db.sock")}, args...)
	if out, err := p.host.command("ovs-vsctl", args...).CombinedOutput(); err != nil {
		p.Fatalf("ovs-vsctl: %v: %s", err, out)
	}
}

func (p *programmed) update(fn func(tx *network.Tx) error) {
	p.Helper()
	if _, err := p.store.Update(context.Background(), network.Cause{}, fn); err != nil {
		p.Fatal(err)
	}
}

// want makes the bridge's flows those of the list. It tells how long the session
// took to bring that about, and the CPU of both sides.
func (p *programmed) want(list []*flows.Flow) (took, ours, theirs time.Duration) {
	p.Helper()
	set := flows.NewSet()
	for _, f := range list {
		set.AddFlow(f)
	}
	p.desired.becomes(set)
	ours, theirs = ownCPU(), p.switchCPU()
	// Any change of the model makes the controller look.
	p.update(func(tx *network.Tx) error { return tx.CreateNetwork(&network.Network{}) })
	done := p.wait(len(list))
	return done.Sub(p.desired.told()), ownCPU() - ours, p.switchCPU() - theirs
}

func (p *programmed) switchCPU() time.Duration { return processCPU(p.TB, p.host.vswitchd.Process.Pid) }

// wait waits until the switch has acknowledged the newest revision, and has so
// many flows. One that was read from the switch counts too: the canary.
func (p *programmed) wait(flows int) time.Time {
	p.Helper()
	deadline := time.Now().Add(patience)
	for time.Now().Before(deadline) {
		revision := p.store.View().Revision()
		for _, h := range p.controller.Hosts() {
			b := h.Bridges[0]
			if b.Synced && b.Revision == revision && (b.Flows == flows || b.Flows == flows+1) {
				return time.Now()
			}
		}
		time.Sleep(500 * time.Microsecond)
	}
	p.Fatalf("the bridge does not have its %d flows within %v: %+v", flows, patience, p.controller.Hosts())
	return time.Time{}
}

// bridge is what the controller knows of the bridge.
func (p *programmed) bridge() controller.BridgeRecord { return p.controller.Hosts()[0].Bridges[0] }

// desired is a compiler that wants what it is told.
type desired struct {
	target pipeline.Target

	mu       sync.Mutex
	revision uint64
	set      *flows.Set
	changed  bool
	at       time.Time // of the Apply that handed out the change
}

func (d *desired) becomes(set *flows.Set) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.set, d.changed = set, true
}

func (d *desired) told() time.Time {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.at
}

// Apply implements controller.Compiler.
func (d *desired) Apply(b network.Batch) pipeline.Outcome {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := pipeline.Outcome{Revision: b.View.Revision()}
	d.revision = out.Revision
	if d.changed {
		d.changed, d.at = false, time.Now()
		out.Dirty = map[pipeline.Target]*flows.Dirty{d.target: {All: true}}
	}
	return out
}

// Read implements controller.Compiler.
func (d *desired) Read(t pipeline.Target, fn func(pipeline.State)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := pipeline.State{Revision: d.revision, Desired: flows.NewSet(), Permitted: flows.NewSet()}
	if t == d.target {
		s.Desired = d.set
	}
	fn(s)
}

// Compile implements controller.Compiler.
func (d *desired) Compile(*network.View, string) (map[string]pipeline.State, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return map[string]pipeline.State{d.target.Bridge: {Revision: d.revision, Desired: d.set, Permitted: flows.NewSet()}}, nil
}

// cuttable is a listener whose connections can be cut.
type cuttable struct {
	net.Listener
	mu       sync.Mutex
	open     []net.Conn
	accepted time.Time // when the last one came
}

// Accept implements net.Listener.
func (c *cuttable) Accept() (net.Conn, error) {
	conn, err := c.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.open, c.accepted = append(c.open, conn), time.Now()
	return conn, nil
}

// cut ends the connections that there are.
func (c *cuttable) cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, conn := range c.open {
		conn.Close()
	}
	c.open = nil
}

func (c *cuttable) lastAccept() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.accepted
}
