package network

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func putHost(t testing.TB, s *Store, name string, mappings ...string) {
	t.Helper()
	h := withTunnels(&Host{Name: name, DatapathType: "netdev", BridgeMappings: map[string]string{}})
	for _, m := range mappings {
		h.BridgeMappings[m] = "br-" + m
	}
	update(t, s, func(tx *Tx) error { return tx.PutHost(h) })
}

// withTunnels adds what networks between hosts need.
func withTunnels(h *Host) *Host {
	h.TunnelIP = mustAddr("192.0.2.1")
	if h.Bridges == nil {
		h.Bridges = map[string]Bridge{}
	}
	h.Bridges[BridgeTunnel] = Bridge{DatapathID: 2, Tunnels: map[string]uint32{TypeGRE: 1, TypeVXLAN: 2, TypeGeneve: 3}}
	return h
}

func plug(t testing.TB, s *Store, host string, ports ...*Port) *View {
	t.Helper()
	var vifs []VIF
	for i, p := range ports {
		vifs = append(vifs, VIF{PortID: p.ID, Name: "tap" + p.ID[:11], OFPort: uint32(i + 1)})
	}
	v := update(t, s, func(tx *Tx) error { return tx.SyncVIFs(host, vifs) })
	checkInvariants(t, s)
	return v
}

func bound(host string) func(*Port) { return func(p *Port) { p.Binding.Host = host } }

func setActive(t testing.TB, s *Store, p *Port) *PortStatus {
	t.Helper()
	return update(t, s, func(tx *Tx) error {
		return tx.SetPortStatus(PortStatus{PortID: p.ID, Status: StatusActive})
	}).PortStatus(p.ID)
}

func expectBinding(t testing.TB, s *Store, p *Port, host, vifType string) {
	t.Helper()
	checkInvariants(t, s)
	b := s.View().Port(p.ID).Binding
	if b.Host != host || b.VIFType != vifType {
		t.Fatalf("binding %+v, want host %q, vif_type %s", b, host, vifType)
	}
}

func TestFactsThatAreKnownMakeNoRevision(t *testing.T) {
	onEachStore(t, func(t *testing.T, s *Store) {
		_, p := fill(t, s)
		before := s.View()
		update(t, s, func(tx *Tx) error {
			h := tx.Host("h1").Clone()
			h.Key = 0
			if err := tx.PutHost(h); err != nil {
				return err
			}
			if h.Key == 0 {
				t.Error("the key is not filled in")
			}
			return tx.SyncVIFs("h1", []VIF{{PortID: "unknown", OFPort: 6}, {PortID: p.ID, Name: "tap", OFPort: 5}})
		})
		if s.View() != before && s.View().Revision() != before.Revision() {
			t.Fatalf("revision %d became %d", before.Revision(), s.View().Revision())
		}
	})
}

func TestBindingDetailsAreWhatNovaNeeds(t *testing.T) {
	onEachStore(t, func(t *testing.T, s *Store) {
		n := newNetwork(t, s)
		putHost(t, s, "h1")
		update(t, s, func(tx *Tx) error { return tx.PutHost(withTunnels(&Host{Name: "h2"})) })
		want := map[string]any{
			"port_filter": true, "ovs_hybrid_plug": false, "datapath_type": "netdev", "bridge_name": "br-int",
			"connectivity": "l2", "bound_drivers": map[string]any{"0": "ovs"},
		}
		p := newPort(t, s, n, bound("h1"))
		if diff := cmp.Diff(want, p.Binding.VIFDetails); diff != "" {
			t.Fatalf("netdev (-want +got):\n%s", diff)
		}
		want["datapath_type"], want["ovs_create_tap"] = "system", true
		q := newPort(t, s, n, bound("h2"))
		if diff := cmp.Diff(want, q.Binding.VIFDetails); diff != "" {
			t.Fatalf("system (-want +got):\n%s", diff)
		}
		if q.Binding.VNICType != "normal" {
			t.Fatalf("%+v", q.Binding)
		}
	})
}

func TestPortIsBoundByTheAPI(t *testing.T) {
	onEachStore(t, func(t *testing.T, s *Store) {
		n := newNetwork(t, s)
		p := newPort(t, s, n)
		expectBinding(t, s, p, "", VIFTypeUnbound)
		update(t, s, changePort(p.ID, bound("h1")))
		expectBinding(t, s, p, "h1", VIFTypeBindingFailed)
		putHost(t, s, "h1")
		expectBinding(t, s, p, "h1", VIFTypeOVS)
		direct := newPort(t, s, n, func(p *Port) { p.Binding = Binding{Host: "h1", VNICType: "direct"} })
		expectBinding(t, s, direct, "h1", VIFTypeBindingFailed)
		update(t, s, changePort(p.ID, bound("")))
		expectBinding(t, s, p, "", VIFTypeUnbound)
		if d := s.View().Port(p.ID).Binding.VIFDetails; d != nil {
			t.Fatalf("details of an unbound port: %v", d)
		}
	})
}

func TestProviderNetworkNeedsAMappingOnTheHost(t *testing.T) {
	cfg := providerConfig()
	s := providerStore(t, cfg)
	n := provider(TypeVLAN, "physnet1", 5)
	update(t, s, func(tx *Tx) error { return tx.CreateNetwork(n) })
	putHost(t, s, "h1")
	p := newPort(t, s, n, bound("h1"))
	plug(t, s, "h1", p)
	expectBinding(t, s, p, "h1", VIFTypeBindingFailed)
	putHost(t, s, "h1", "physnet1")
	expectBinding(t, s, p, "h1", VIFTypeOVS)
	if s.View().Presence(n.ID, "h1") == nil {
		t.Fatal("the network is not present though its port is wired")
	}
	// What was made stays: a mapping may be gone for a moment.
	putHost(t, s, "h1")
	expectBinding(t, s, p, "h1", VIFTypeOVS)
}

func TestTunnelledNetworkNeedsATunnelOfItsTypeOnTheHost(t *testing.T) {
	s := providerStore(t, DefaultConfig())
	n, local := newNetwork(t, s), provider(TypeLocal, "", 0)
	update(t, s, func(tx *Tx) error { return tx.CreateNetwork(local) })
	h := withTunnels(&Host{Name: "h1"})
	for what, without := range map[string]func(*Host){
		"nothing":             func(h *Host) { h.TunnelIP, h.Bridges = netip.Addr{}, nil },
		"no tunnel address":   func(h *Host) { h.TunnelIP = netip.Addr{} },
		"no gre tunnel":       func(h *Host) { h.Bridges[BridgeTunnel] = Bridge{Tunnels: map[string]uint32{TypeVXLAN: 2}} },
		"no tunnel has begun": func(h *Host) { h.Bridges[BridgeTunnel] = Bridge{DatapathID: 2} },
	} {
		t.Run(what, func(t *testing.T) {
			facts := h.Clone()
			without(facts)
			update(t, s, func(tx *Tx) error { return tx.PutHost(facts.Clone()) })
			p, q := newPort(t, s, n, bound("h1")), newPort(t, s, local, bound("h1"))
			plug(t, s, "h1", p, q)
			expectBinding(t, s, p, "h1", VIFTypeBindingFailed)
			expectBinding(t, s, q, "h1", VIFTypeOVS)
			update(t, s, func(tx *Tx) error { return tx.PutHost(h.Clone()) })
			expectBinding(t, s, p, "h1", VIFTypeOVS)
			if s.View().Presence(n.ID, "h1") == nil {
				t.Fatal("the network is not present though its port is wired")
			}
			// What was made stays: a tunnel may be gone for a moment.
			update(t, s, func(tx *Tx) error { return tx.PutHost(facts.Clone()) })
			expectBinding(t, s, p, "h1", VIFTypeOVS)
		})
	}
}

func TestUnboundPortIsBoundByItsPlug(t *testing.T) {
	onEachStore(t, func(t *testing.T, s *Store) {
		n := newNetwork(t, s)
		putHost(t, s, "h1")
		putHost(t, s, "h2")
		p := newPort(t, s, n)
		plug(t, s, "h1", p)
		expectBinding(t, s, p, "h1", VIFTypeOVS)
		// A second plug does not steal it, but it moves when the first is gone.
		plug(t, s, "h2", p)
		expectBinding(t, s, p, "h1", VIFTypeOVS)
		plug(t, s, "h1")
		expectBinding(t, s, p, "h2", VIFTypeOVS)
		// It stays when all are gone, and follows the next plug.
		plug(t, s, "h2")
		expectBinding(t, s, p, "h2", VIFTypeOVS)
		plug(t, s, "h1", p)
		expectBinding(t, s, p, "h1", VIFTypeOVS)
		// An unbinding by the API holds until something is plugged again.
		update(t, s, changePort(p.ID, bound("")))
		plug(t, s, "h1", p)
		expectBinding(t, s, p, "", VIFTypeUnbound)
		plug(t, s, "h1")
		plug(t, s, "h1", p)
		expectBinding(t, s, p, "h1", VIFTypeOVS)
		// What the API bound, no plug moves.
		update(t, s, changePort(p.ID, func(p *Port) { p.Binding.ByPlug = false }))
		plug(t, s, "h1")
		plug(t, s, "h2", p)
		expectBinding(t, s, p, "h1", VIFTypeOVS)
	})
}

func TestPlugMayComeBeforeThePort(t *testing.T) {
	onEachStore(t, func(t *testing.T, s *Store) {
		n := newNetwork(t, s)
		putHost(t, s, "h1")
		p := &Port{Standard: Standard{ID: "11111111-1111-1111-1111-111111111111"}, NetworkID: n.ID}
		plug(t, s, "h1", p)
		update(t, s, func(tx *Tx) error { return tx.CreatePort(p) })
		expectBinding(t, s, p, "h1", VIFTypeOVS)
		if s.View().Presence(n.ID, "h1") == nil {
			t.Fatal("the network is not present")
		}
	})
}

func TestPortIsDownWhenItIsNoLongerWired(t *testing.T) {
	onEachStore(t, func(t *testing.T, s *Store) {
		n := newNetwork(t, s)
		putHost(t, s, "h1")
		putHost(t, s, "h2")
		p := newPort(t, s, n, bound("h1"))
		if st := setActive(t, s, p); st != nil {
			t.Fatalf("status %+v before the plug", st)
		}
		for what, unwire := range map[string]func(){
			"unplug": func() { plug(t, s, "h1") },
			"rebind": func() { update(t, s, changePort(p.ID, bound("h2"))) },
			"unbind": func() { update(t, s, changePort(p.ID, bound(""))) },
		} {
			plug(t, s, "h1", p)
			update(t, s, changePort(p.ID, bound("h1")))
			if st := setActive(t, s, p); st == nil || st.Status != StatusActive {
				t.Fatalf("status %+v of a wired port", st)
			}
			unwire()
			if st := s.View().PortStatus(p.ID); st != nil {
				t.Fatalf("status %+v after %s", st, what)
			}
			checkInvariants(t, s)
		}
		refused(t, s, NotFound, "PortNotFound", func(tx *Tx) error { return tx.SetPortStatus(PortStatus{PortID: "x"}) })
		refused(t, s, Invalid, "InvalidInput", func(tx *Tx) error {
			return tx.SetPortStatus(PortStatus{PortID: p.ID, Status: "BUILD"})
		})
	})
}

func TestPresencesHaveTheirLocalVLAN(t *testing.T) {
	onEachStore(t, func(t *testing.T, s *Store) {
		a, b := newNetwork(t, s), newNetwork(t, s)
		putHost(t, s, "h1")
		putHost(t, s, "h2")
		p, q, r := newPort(t, s, a), newPort(t, s, a), newPort(t, s, b)
		v := plug(t, s, "h1", p, q, r)
		vlans := fmt.Sprint(v.Presence(a.ID, "h1").VLAN, v.Presence(b.ID, "h1").VLAN)
		if vlans != "1 2" && vlans != "2 1" {
			t.Fatalf("local VLANs %s", vlans)
		}
		if v := plug(t, s, "h1", q, r); v.Presence(a.ID, "h1") == nil {
			t.Fatal("the network left with the first of its two ports")
		}
		if v := plug(t, s, "h1", r); v.Presence(a.ID, "h1") != nil {
			t.Fatal("the network is present without a port")
		}
		// On another host the same numbers are free.
		s2 := newPort(t, s, a)
		if v := plug(t, s, "h2", s2); v.Presence(a.ID, "h2").VLAN != 1 {
			t.Fatalf("local VLAN %d on h2", v.Presence(a.ID, "h2").VLAN)
		}
		update(t, s, func(tx *Tx) error { return tx.DeletePort(r.ID) })
		checkInvariants(t, s)
		update(t, s, func(tx *Tx) error { return tx.DeleteHost("h2") })
		checkInvariants(t, s)
		expectBinding(t, s, s2, "h2", VIFTypeOVS)
		refused(t, s, NotFound, "HostNotFound", func(tx *Tx) error { return tx.DeleteHost("h2") })
		refused(t, s, NotFound, "HostNotFound", func(tx *Tx) error { return tx.SyncVIFs("h2", nil) })
	})
}

func TestHostWithoutALocalVLANLeftKeepsTheRest(t *testing.T) {
	s := providerStore(t, DefaultConfig())
	putHost(t, s, "h1")
	first, second := newNetwork(t, s), newNetwork(t, s)
	p, q := newPort(t, s, first), newPort(t, s, second)
	update(t, s, func(tx *Tx) error {
		for vlan := uint32(2); vlan <= maxVLAN; vlan++ {
			if err := tx.claim(Claim{spaceVLAN, vlanKey("h1", vlan), KindPresence, "others"}); err != nil {
				return err
			}
		}
		return tx.SyncVIFs("h1", []VIF{{PortID: p.ID, OFPort: 1}})
	})
	update(t, s, func(tx *Tx) error {
		return tx.SyncVIFs("h1", []VIF{{PortID: p.ID, OFPort: 1}, {PortID: q.ID, OFPort: 2}})
	})
	v := s.View()
	if got := v.Presence(first.ID, "h1"); got == nil || got.VLAN != 1 {
		t.Fatalf("the first network: %+v", got)
	}
	if got := v.Presence(second.ID, "h1"); got != nil {
		t.Fatalf("the second network: %+v", got)
	}
	if v.VIF(q.ID, "h1") == nil {
		t.Fatal("the plug is not known")
	}
}

func TestNamesThatNoDatabaseTakesAreRefused(t *testing.T) {
	onEachStore(t, func(t *testing.T, s *Store) {
		for _, name := range []string{"", "a\x00b", "a\xff"} {
			refused(t, s, Invalid, "InvalidInput", func(tx *Tx) error { return tx.PutHost(&Host{Name: name}) })
		}
		_, err := s.Update(t.Context(), Cause{RequestID: "a\x00\xff"}, func(tx *Tx) error {
			return tx.CreateNetwork(&Network{Standard: Standard{Name: "a\x00b"}})
		})
		if err != nil {
			t.Fatal(err)
		}
	})
}
