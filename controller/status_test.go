package controller

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"testing"
	"time"

	"planck/network"
	"planck/pipeline"
)

// fleet is what the tracker sees of switches, set by hand.
type fleet struct {
	mu      sync.Mutex
	has     map[string]uint64
	dead    map[string]bool
	refused map[string]error

	announced []string

	// What explanations ask besides.
	plugged  map[string][]network.InterfaceReport // by host
	wire     int                                  // the MTU of each
	mtu      int                                  // the largest; 0 for any
	wordless map[netip.Addr]bool                  // next hops that do not answer
}

func (f *fleet) interfaces(host, _ string) []network.InterfaceReport { return f.plugged[host] }

func (f *fleet) wireMTU(string, string) (int, string) { return f.wire, "eth1" }

func (f *fleet) maxMTU(string) int { return cmp.Or(f.mtu, 1<<16) }

func (f *fleet) silentNextHop(_, _ string, ip netip.Addr) bool { return f.wordless[ip] }

func (f *fleet) set(fn func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	fn()
}

func (f *fleet) hostHas(h *network.Host, _ *network.Network, revision uint64) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.has[h.Name] >= revision
}

func (f *fleet) owns(string) bool { return true }

func (f *fleet) reports(string) bool { return true }

func (f *fleet) silenced(string, uint32) *silence { return nil }

func (f *fleet) hostLive(name string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return !f.dead[name]
}

func (f *fleet) hostApplied(name string, revision uint64) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.has[name] >= revision
}

func (f *fleet) flushZones(string, []uint16) bool { return true }

func (f *fleet) announce(_ *network.View, p *network.Port) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.announced = append(f.announced, p.ID+"@"+p.Binding.Host)
}

func (f *fleet) hostRefused(h *network.Host, _ *network.Network, _ uint32) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.refused[h.Name]
}

// tracked is a world whose statuses are kept by a tracker on a fleet.
type tracked struct {
	*world
	*fleet
	tracker  *tracker
	compiler *pipeline.Compiler
}

func newTracked(t *testing.T) *tracked { return newTrackedWith(t, func(*tracker) {}) }

func newTrackedWith(t *testing.T, change func(*tracker)) *tracked {
	w := newWorld(t)
	f := &fleet{has: make(map[string]uint64), dead: make(map[string]bool), refused: make(map[string]error)}
	k := &tracked{world: w, fleet: f, compiler: pipeline.NewCompiler(pipeline.Options{})}
	k.tracker = newTracker(w.store, f, slog.New(slog.NewTextHandler(testLog{t}, nil)), newMetrics(nil))
	change(k.tracker)
	ctx, cancel := context.WithCancel(context.Background())
	var parts sync.WaitGroup
	parts.Go(func() {
		if err := k.tracker.run(ctx); err != nil {
			t.Errorf("the tracker ended with %v", err)
		}
	})
	parts.Go(func() {
		feed := w.store.Follow()
		defer feed.Close()
		for {
			batch, err := feed.Next(ctx)
			if err != nil {
				return
			}
			k.tracker.note(batch, k.compiler.Apply(batch))
		}
	})
	t.Cleanup(func() {
		cancel()
		parts.Wait()
	})
	return k
}

// acknowledge makes hosts have every revision.
func (k *tracked) acknowledge(hosts ...string) {
	k.set(func() {
		for _, h := range hosts {
			k.has[h] = 1 << 60
		}
	})
	k.tracker.wake()
}

// stays fails if a port leaves a status within a while.
func (k *tracked) stays(p *network.Port, want string, d time.Duration) {
	k.t.Helper()
	end := time.Now().Add(d)
	for time.Now().Before(end) {
		if got := k.status(p); got.Status != want {
			k.t.Fatalf("port is %s (%s), want it to stay %s", got.Status, got.Reason, want)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// waitForEver makes a tracker wait for slow hosts for ever.
func waitForEver(k *tracker) { k.patience = time.Hour }

func twoHosts(t *testing.T) (k *tracked, here, there *network.Port) {
	return twoHostsOf(newTracked(t))
}

func twoHostsOf(k *tracked) (_ *tracked, here, there *network.Port) {
	k.host("h1", 1)
	k.host("h2", 2)
	n := k.network("net1")
	here, there = k.vm(n, "h1"), k.vm(n, "h2")
	k.plug("h2", there)
	k.acknowledge("h2")
	k.eventuallyStatus(there, network.StatusActive)
	return k, here, there
}

func TestPortIsActiveOnceItsHostHasAcknowledged(t *testing.T) {
	k, here, _ := twoHosts(t)
	k.stays(here, network.StatusDown, 50*time.Millisecond)
	k.plug("h1", here)
	k.stays(here, network.StatusDown, 100*time.Millisecond)
	k.acknowledge("h1")
	k.eventuallyStatus(here, network.StatusActive)
	k.plug("h1")
	k.eventuallyStatus(here, network.StatusDown)
}

func TestSlowOtherHostHoldsAPortBackTwoSecondsAtMost(t *testing.T) {
	k, here, there := twoHosts(t)
	k.acknowledge("h1")
	k.set(func() { k.has["h2"] = 0 })
	start := time.Now()
	k.plug("h1", here)
	k.eventuallyStatus(here, network.StatusActive)
	if took := time.Since(start); took < slowHostWait {
		t.Errorf("the port was ACTIVE after %s, want %s", took, slowHostWait)
	}
	if got := k.status(there).Status; got != network.StatusActive {
		t.Errorf("the trouble of a host took its port's ACTIVE: %s", got)
	}
}

func TestDeadOtherHostHoldsNothingBack(t *testing.T) {
	k, here, _ := twoHostsOf(newTrackedWith(t, waitForEver))
	k.acknowledge("h1")
	k.set(func() { k.has["h2"], k.dead["h2"] = 0, true })
	k.plug("h1", here)
	k.eventuallyStatus(here, network.StatusActive)
}

func TestFastOtherHostEndsTheWait(t *testing.T) {
	k, here, _ := twoHostsOf(newTrackedWith(t, waitForEver))
	k.acknowledge("h1")
	k.set(func() { k.has["h2"] = 0 })
	k.plug("h1", here)
	k.stays(here, network.StatusDown, 100*time.Millisecond)
	k.acknowledge("h2")
	k.eventuallyStatus(here, network.StatusActive)
}

func TestAdminStateDownMakesAPortDown(t *testing.T) {
	k, _, there := twoHosts(t)
	set := func(up bool) {
		k.update(func(tx *network.Tx) error {
			p := *tx.Port(there.ID)
			p.AdminStateUp = up
			return tx.UpdatePort(&p)
		})
	}
	set(false)
	k.eventuallyStatus(there, network.StatusDown)
	k.stays(there, network.StatusDown, 50*time.Millisecond)
	set(true)
	k.eventuallyStatus(there, network.StatusActive)
}

func TestPortWithoutALocalVLANStaysDownAndSaysWhy(t *testing.T) {
	k := newTracked(t)
	k.host("h1", 1)
	k.acknowledge("h1")
	// 4,094 networks were here, and br-tun, say, has not heard yet that they left.
	k.set(func() { k.has["h1"] = 0 })
	var ports []*network.Port
	// In pieces, since a transaction has a time limit.
	for len(ports) < 4094 {
		ports = append(ports, k.networksWithAPort(min(512, 4094-len(ports)), "h1")...)
		k.plug("h1", ports...)
	}
	last := k.networksWithAPort(1, "h1")[0]
	k.plug("h1", last)
	eventually(t, 20*time.Second, func() error {
		if got := k.status(last); got.Status != network.StatusDown || got.Reason != "no local VLAN is left on host h1" {
			return fmt.Errorf("the port is %+v", got)
		}
		return nil
	})
	k.stays(last, network.StatusDown, 50*time.Millisecond)
	k.set(func() { k.has["h1"] = 1 << 60 })
	k.tracker.applied("h1")
	k.eventuallyStatus(last, network.StatusActive)
	if reason := k.status(last).Reason; reason != "" {
		t.Errorf("the reason %q is left", reason)
	}
}

// networksWithAPort makes local networks with a port each, bound to a host.
func (k *tracked) networksWithAPort(count int, host string) (ports []*network.Port) {
	k.update(func(tx *network.Tx) error {
		ports = nil
		for range count {
			n := &network.Network{NetworkType: network.TypeLocal, AdminStateUp: true}
			if err := tx.CreateNetwork(n); err != nil {
				return err
			}
			p := &network.Port{NetworkID: n.ID, AdminStateUp: true, Binding: network.Binding{Host: host}}
			if err := tx.CreatePort(p); err != nil {
				return err
			}
			ports = append(ports, p)
		}
		return nil
	})
	return ports
}

func TestRefusalMakesAPortERRORUntilItIsTaken(t *testing.T) {
	k, _, there := twoHosts(t)
	cookie := pipeline.MakeCookie(pipeline.FeatureL2, 0, there.Key)
	k.set(func() { k.refused["h2"] = errors.New("table is full") })
	k.tracker.refusals("h2", []pipeline.Cookie{cookie})
	k.eventuallyStatus(there, network.StatusError)
	if got, want := k.status(there).Reason, "host h2: table is full"; got != want {
		t.Errorf("the reason is %q, want %q", got, want)
	}
	k.set(func() { delete(k.refused, "h2") })
	k.tracker.refusals("h2", []pipeline.Cookie{pipeline.MakeCookie(pipeline.FeatureL2, pipeline.FlagNetwork, k.store.View().Network(there.NetworkID).Key)})
	k.eventuallyStatus(there, network.StatusActive)
}

func TestRefusalOnAnotherHostChangesNothing(t *testing.T) {
	k, _, there := twoHosts(t)
	k.set(func() { k.refused["h1"] = errors.New("table is full") })
	k.tracker.refusals("h1", []pipeline.Cookie{pipeline.MakeCookie(pipeline.FeatureL2, 0, there.Key)})
	k.stays(there, network.StatusActive, 100*time.Millisecond)
}

func TestManyPortsBecomeActiveInFewTransactions(t *testing.T) {
	k := newTracked(t)
	k.host("h1", 1)
	n := k.network("net1")
	var ports []*network.Port
	k.update(func(tx *network.Tx) error {
		ports = ports[:0]
		for range 200 {
			p := &network.Port{
				Standard: network.Standard{ProjectID: "p"}, NetworkID: n.ID, AdminStateUp: true,
				Binding: network.Binding{Host: "h1", VNICType: "normal"},
			}
			if err := tx.CreatePort(p); err != nil {
				return err
			}
			ports = append(ports, p)
		}
		return nil
	})
	k.plug("h1", ports...)
	before := k.store.View().Revision()
	k.acknowledge("h1")
	for _, p := range ports {
		k.eventuallyStatus(p, network.StatusActive)
	}
	if wrote := k.store.View().Revision() - before; wrote > 5 {
		t.Errorf("%d ports took %d transactions", len(ports), wrote)
	}
	eventually(t, 5*time.Second, func() error {
		k.tracker.wake()
		if n := k.tracker.pending.Load(); n != 0 {
			return fmt.Errorf("%d ports are still looked at", n)
		}
		return nil
	})
}
