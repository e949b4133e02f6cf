package network

import (
	"slices"
	"testing"
)

func inactiveHosts(s *Store, p *Port) []string {
	var hosts []string
	for _, b := range s.View().Port(p.ID).Inactive {
		hosts = append(hosts, b.Host+" "+b.VIFType)
	}
	return hosts
}

func expectInactive(t *testing.T, s *Store, p *Port, want ...string) {
	t.Helper()
	checkInvariants(t, s)
	if got := inactiveHosts(s, p); !slices.Equal(got, want) {
		t.Fatalf("inactive bindings %q, want %q", got, want)
	}
}

func TestPortMovesByItsBindings(t *testing.T) {
	onEachStore(t, func(t *testing.T, s *Store) {
		n := newNetwork(t, s)
		putHost(t, s, "h1")
		putHost(t, s, "h2")
		p := newPort(t, s, n, bound("h1"))
		plug(t, s, "h1", p)
		setActive(t, s, p)

		// The plug on the other host comes first: nothing is made ready for it.
		plug(t, s, "h2", p)
		if s.View().Presence(n.ID, "h2") != nil {
			t.Fatal("a plug where the port has no binding brings its network there")
		}
		create := func(host string) func(tx *Tx) error {
			return func(tx *Tx) error { return tx.CreateBinding(p.ID, Binding{Host: host, VNICType: "normal"}) }
		}
		update(t, s, create("h2"))
		expectBinding(t, s, p, "h1", VIFTypeOVS)
		expectInactive(t, s, p, "h2 ovs")
		v := s.View()
		if pr := v.Presence(n.ID, "h2"); pr == nil || !pr.Wired || v.WiredHost(v.Port(p.ID)) != "h1" {
			t.Fatalf("presence on the awaiting host: %+v", pr)
		}
		if v.PortStatus(p.ID).Status != StatusActive {
			t.Fatal("an inactive binding took the port's ACTIVE")
		}
		update(t, s, func(tx *Tx) error { return tx.SetReady(p.ID, "h2") })
		if !s.View().ReadyOn(p.ID, "h2") {
			t.Fatal("the port is not ready on h2")
		}

		// What was left behind does not stand in the way of the next try.
		update(t, s, create("h2"))
		refused(t, s, Conflict, "PortBindingAlreadyExists", create("h1"))
		refused(t, s, Conflict, "PortBindingError", create("nowhere"))
		activate := func(host string) func(tx *Tx) error {
			return func(tx *Tx) error { return tx.ActivateBinding(p.ID, host) }
		}
		refused(t, s, Conflict, "PortBindingAlreadyActive", activate("h1"))
		refused(t, s, NotFound, "PortBindingNotFound", activate("nowhere"))

		update(t, s, activate("h2"))
		expectBinding(t, s, p, "h2", VIFTypeOVS)
		expectInactive(t, s, p, "h1 unbound")
		v = s.View()
		if v.PortStatus(p.ID) != nil || v.ReadyOn(p.ID, "h2") || v.Presence(n.ID, "h1") != nil {
			t.Fatalf("after the move: status %+v, ready %v, presence on the old host %+v",
				v.PortStatus(p.ID), v.ReadyOn(p.ID, "h2"), v.Presence(n.ID, "h1"))
		}
		// And back again.
		update(t, s, activate("h1"))
		expectBinding(t, s, p, "h1", VIFTypeOVS)
		expectInactive(t, s, p, "h2 unbound")
		update(t, s, func(tx *Tx) error { return tx.DeleteBinding(p.ID, "h2") })
		expectInactive(t, s, p)
		refused(t, s, NotFound, "PortBindingNotFound", func(tx *Tx) error { return tx.DeleteBinding(p.ID, "h2") })
	})
}

func TestReadinessEndsWithThePlug(t *testing.T) {
	onEachStore(t, func(t *testing.T, s *Store) {
		n := newNetwork(t, s)
		putHost(t, s, "h1")
		putHost(t, s, "h2")
		p := newPort(t, s, n, bound("h1"))
		ready := func(tx *Tx) error { return tx.SetReady(p.ID, "h2") }
		update(t, s, func(tx *Tx) error { return tx.CreateBinding(p.ID, Binding{Host: "h2"}) })
		update(t, s, ready)
		if s.View().ReadyOn(p.ID, "h2") {
			t.Fatal("ready without a plug")
		}
		plug(t, s, "h2", p)
		update(t, s, ready)
		plug(t, s, "h2")
		if s.View().ReadyOn(p.ID, "h2") || s.View().Presence(n.ID, "h2") != nil {
			t.Fatal("ready though the interface is gone")
		}
		plug(t, s, "h2", p)
		update(t, s, ready)
		update(t, s, func(tx *Tx) error { return tx.DeletePort(p.ID) })
		checkInvariants(t, s)
		if s.View().ReadyOn(p.ID, "h2") || s.View().Presence(n.ID, "h2") != nil {
			t.Fatal("ready though the port is gone")
		}
	})
}

func TestBindingThePortElsewhereUsesUpTheInactiveBinding(t *testing.T) {
	onEachStore(t, func(t *testing.T, s *Store) {
		n := newNetwork(t, s)
		putHost(t, s, "h1")
		putHost(t, s, "h2")
		p := newPort(t, s, n, bound("h1"))
		update(t, s, func(tx *Tx) error { return tx.CreateBinding(p.ID, Binding{Host: "h2"}) })
		update(t, s, changePort(p.ID, bound("h2")))
		expectBinding(t, s, p, "h2", VIFTypeOVS)
		expectInactive(t, s, p)
		update(t, s, func(tx *Tx) error { return tx.DeleteBinding(p.ID, "h2") })
		expectBinding(t, s, p, "", VIFTypeUnbound)
	})
}
