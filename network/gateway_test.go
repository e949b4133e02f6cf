package network

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// putGatewayHost notes a host that has the bridge of physnet1 under control.
func putGatewayHost(t testing.TB, s *Store, name string) {
	t.Helper()
	h := withTunnels(&Host{Name: name, BridgeMappings: map[string]string{"physnet1": "br-ex"}})
	h.Bridges["br-ex"] = Bridge{DatapathID: 3}
	update(t, s, func(tx *Tx) error { return tx.PutHost(h) })
}

func newFlat(t testing.TB, s *Store) *Network {
	t.Helper()
	n := &Network{External: true, NetworkType: TypeFlat, PhysicalNetwork: "physnet1"}
	update(t, s, func(tx *Tx) error { return tx.CreateNetwork(n) })
	newSubnet(t, s, n, "203.0.113.0/24")
	return n
}

// leaders are the first hosts of the routers' placements.
func leaders(v *View) map[string]string {
	m := map[string]string{}
	for g := range v.GatewayPlacements() {
		m[g.RouterID] = ""
		if len(g.Hosts) > 0 {
			m[g.RouterID] = g.Hosts[0]
		}
	}
	return m
}

// difference is between the hosts with the most and the least routers.
func difference(leads map[string]string, hosts []string) int {
	least := len(leads)
	for _, h := range hosts {
		least = min(least, onHost(leads, h))
	}
	return busiest(leads) - least
}

// TestGatewaysAreSpreadAndStable lets hosts come and go, and routers come. After
// each step the routers are spread over the hosts; those whose host is still
// there stay on it, but for the share that a host takes that came.
func TestGatewaysAreSpreadAndStable(t *testing.T) {
	s := providerStore(t, providerConfig())
	n := newFlat(t, s)
	undone := errors.New("undone")
	rapid.Check(t, func(rt *rapid.T) {
		steps := rapid.SliceOfN(rapid.Custom(drawPlacementStep), 1, 20).Draw(rt, "steps")
		var failure error
		_, err := s.Update(t.Context(), Cause{}, func(tx *Tx) error {
			failure = tryPlacements(tx, n, steps)
			return undone
		})
		if !errors.Is(err, undone) || failure != nil {
			rt.Fatal(err, failure)
		}
	})
}

// placementStep lets some routers come, or a host come or go.
type placementStep struct {
	routers int
	host    string
	goes    bool
}

func drawPlacementStep(rt *rapid.T) placementStep {
	return placementStep{
		routers: rapid.IntRange(0, 9).Draw(rt, "routers"),
		host:    fmt.Sprintf("h%d", rapid.IntRange(0, 7).Draw(rt, "host")),
		goes:    rapid.IntRange(0, 2).Draw(rt, "goes") == 0,
	}
}

// tryPlacements makes the steps and says what is wrong after one of them.
func tryPlacements(tx *Tx, n *Network, steps []placementStep) error {
	hosts := map[string]bool{}
	even := true // no host went
	for _, step := range steps {
		for range step.routers {
			if err := tx.CreateRouter(&Router{AdminStateUp: true, ExternalNetworkID: n.ID}); err != nil {
				return err
			}
		}
		was, came := leaders(tx.View), ""
		if !step.goes && !hosts[step.host] {
			came = step.host
		}
		even = even && (!step.goes || !hosts[step.host])
		h := withTunnels(&Host{Name: step.host, BridgeMappings: map[string]string{"physnet1": "br-ex"}})
		if hosts[step.host] = !step.goes; hosts[step.host] {
			h.Bridges["br-ex"] = Bridge{DatapathID: 3}
		}
		if err := tx.PutHost(h); err != nil {
			return err
		}
		now := leaders(tx.View)
		for id, before := range was {
			if hosts[before] && now[id] != before && now[id] != came {
				return fmt.Errorf("router %s moved from %s to %s, %q came", id, before, now[id], came)
			}
		}
		present := slices.DeleteFunc(slices.Sorted(maps.Keys(hosts)), func(h string) bool { return !hosts[h] })
		if d := difference(now, present); even && len(present) > 0 && d > 1 {
			return fmt.Errorf("routers are on %v of %v", now, present)
		}
		if most, share := busiest(now), onHost(now, came); came != "" && most-share > 1 {
			return fmt.Errorf("%s came and leads %d routers, another %d", came, share, most)
		}
	}
	return nil
}

func onHost(leads map[string]string, host string) int {
	count := 0
	for _, h := range leads {
		if h == host {
			count++
		}
	}
	return count
}

func busiest(leads map[string]string) int {
	most := 0
	for _, h := range leads {
		most = max(most, onHost(leads, h))
	}
	return most
}

func TestRoutersOfADeadHostAreSharedAmongTheOthers(t *testing.T) {
	s := providerStore(t, providerConfig())
	n := newFlat(t, s)
	for range 5 {
		newRouter(t, s, n)
	}
	names := []string{"h1", "h2", "h3", "h4"}
	for _, name := range names {
		putGatewayHost(t, s, name)
	}
	for range 19 {
		newRouter(t, s, n)
	}
	if d := difference(leaders(s.View()), names); d > 1 {
		t.Fatalf("routers are on %v", leaders(s.View()))
	}
	before := leaders(s.View())
	v := update(t, s, func(tx *Tx) error { return tx.SetHostDown(HostDown{Host: "h2", Reason: "no sign of life"}) })
	active := map[string]string{}
	for r := range v.Routers() {
		active[r.ID] = v.GatewayHost(r.ID)
		if was := before[r.ID]; was != "h2" && active[r.ID] != was {
			t.Errorf("router %s moved from %s to %s when h2 died", r.ID, was, active[r.ID])
		}
	}
	if d := difference(active, []string{"h1", "h3", "h4"}); d > 2 {
		t.Errorf("after h2 died routers are on %v", active)
	}
	// That it is forgotten changes nothing more.
	v = update(t, s, func(tx *Tx) error { return tx.DeleteHost("h2") })
	checkInvariants(t, s)
	for id, host := range active {
		if now := v.GatewayHost(id); now != host {
			t.Errorf("router %s moved from %s to %s when h2 was forgotten", id, host, now)
		}
	}
}

func TestGatewayHostIsTheFirstThatIsNotDown(t *testing.T) {
	onEach(t, func(t *testing.T, dsn string) {
		s := open(t, dsn, providerConfig())
		putGatewayHost(t, s, "h1")
		putGatewayHost(t, s, "h2")
		r := newRouter(t, s, newFlat(t, s))
		order := s.View().GatewayPlacement(r.ID).Hosts
		down := func(host string) {
			t.Helper()
			update(t, s, func(tx *Tx) error { return tx.SetHostDown(HostDown{Host: host, Reason: "no sign of life"}) })
		}
		expect := func(when, want string) {
			t.Helper()
			var deps []Dep
			got := s.View().Recording(func(d Dep) { deps = append(deps, d) }).GatewayHost(r.ID)
			if got != want {
				t.Errorf("%s: the gateway is on %q, want %q", when, got, want)
			}
			if !slices.Contains(deps, Dep{IndexGatewayPlacement, r.ID}) || !slices.Contains(deps, Dep{IndexHostDown, order[0]}) {
				t.Errorf("%s: recorded only %v", when, deps)
			}
		}
		expect("at first", order[0])
		down(order[1])
		expect("the stand-by is down", order[0])
		down(order[0])
		expect("all are down", order[0])
		update(t, s, func(tx *Tx) error { tx.SetHostUp(order[1]); return nil })
		expect("the first is down", order[1])
		s = reopened(t, s, dsn)
		expect("after a restart", order[1])
		update(t, s, func(tx *Tx) error { tx.SetHostUp(order[0]); return nil })
		expect("the first is back", order[0])
		update(t, s, changeRouter(r.ID, func(r *Router) { r.ExternalNetworkID = "" }))
		if g := s.View().GatewayPlacement(r.ID); g != nil {
			t.Errorf("without a gateway the router is placed: %+v", g)
		}
		checkInvariants(t, s)
	})
}

func TestNoHostReachesTheExternalNetwork(t *testing.T) {
	s := providerStore(t, providerConfig())
	n := newFlat(t, s)
	r := newRouter(t, s, n)
	if host := s.View().GatewayHost(r.ID); host != "" {
		t.Fatalf("the gateway is on %q", host)
	}
	putHost(t, s, "h1", "physnet1") // the mapping, but no bridge yet
	if host := s.View().GatewayHost(r.ID); host != "" {
		t.Fatalf("the gateway is on %q, whose bridge is not under control", host)
	}
	putGatewayHost(t, s, "h1")
	if host := s.View().GatewayHost(r.ID); host != "h1" {
		t.Fatalf("the gateway is on %q", host)
	}
	checkInvariants(t, s)
}

func TestExternalNeighborIsNoPortAndGoesWithItsNetwork(t *testing.T) {
	onEach(t, func(t *testing.T, dsn string) {
		s := open(t, dsn, providerConfig())
		n := newFlat(t, s)
		router, beside := mustAddr("203.0.113.1"), mustAddr("203.0.113.9")
		mac := MAC{2, 0, 0, 0, 0, 1}
		learn := func(ip netip.Addr) {
			t.Helper()
			update(t, s, func(tx *Tx) error { return tx.PutExternalNeighbor(ExternalNeighbor{n.ID, ip, mac}) })
		}
		learn(router)
		learn(beside)
		revision := s.View().Revision()
		learn(router)
		if now := s.View().Revision(); now != revision {
			t.Errorf("what was known already made revision %d from %d", now, revision)
		}
		s = reopened(t, s, dsn)
		if got, ok := s.View().ExternalNeighbor(n.ID, router); !ok || got != mac {
			t.Errorf("%s is at %s, %v", router, got, ok)
		}
		p := newPort(t, s, n, func(p *Port) { p.FixedIPs = []FixedIP{{subnetOf(s, n, 4), beside}} })
		if got, ok := s.View().ExternalNeighbor(n.ID, beside); ok {
			t.Errorf("the address of port %s is at %s", p.ID, got)
		}
		_, err := s.Update(t.Context(), Cause{}, func(tx *Tx) error {
			return tx.PutExternalNeighbor(ExternalNeighbor{n.ID, router, MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}})
		})
		if err == nil {
			t.Error("a broadcast address was taken for a neighbor's")
		}
		update(t, s, func(tx *Tx) error { tx.DeleteExternalNeighbor(n.ID, beside); return nil })
		if len(slices.Collect(s.View().ExternalNeighborsOf(n.ID))) != 1 {
			t.Error("a neighbor was not forgotten")
		}
		update(t, s, func(tx *Tx) error { return tx.DeletePort(p.ID) })
		update(t, s, func(tx *Tx) error { return tx.DeleteNetwork(n.ID) })
		if left := slices.Collect(s.View().ExternalNeighborsOf(n.ID)); len(left) > 0 {
			t.Errorf("the network is gone, and %v left", left)
		}
	})
}

func TestPlacementsOfAnEarlierVersionAreMade(t *testing.T) {
	onEach(t, func(t *testing.T, dsn string) {
		s := open(t, dsn, providerConfig())
		putGatewayHost(t, s, "h1")
		r := newRouter(t, s, newFlat(t, s))
		if _, err := s.db.Exec(`DELETE FROM objects WHERE kind = 'gateway_placement'`); err != nil {
			t.Fatal(err)
		}
		s = open(t, dsn, providerConfig())
		update(t, s, func(tx *Tx) error { return tx.SettleGateways() })
		if host := s.View().GatewayHost(r.ID); host != "h1" {
			t.Fatalf("the gateway is on %q", host)
		}
	})
}
