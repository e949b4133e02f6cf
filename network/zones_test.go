package network

import (
	"slices"
	"testing"
)

func TestPortHasAConntrackZoneWhileItIsWired(t *testing.T) {
	onEach(t, func(t *testing.T, dsn string) {
		s := open(t, dsn, DefaultConfig())
		putHost(t, s, "h1")
		a, b := newPort(t, s, newNetwork(t, s)), newPort(t, s, newNetwork(t, s))
		if z := s.View().Zone(PortZone(a.ID), "h1"); z != 0 {
			t.Fatalf("a port that is not wired has zone %d", z)
		}
		had := plug(t, s, "h1", a).Zone(PortZone(a.ID), "h1")
		s = reopened(t, s, dsn)
		v := plug(t, s, "h1", b)
		other := v.Zone(PortZone(b.ID), "h1")
		if had == 0 || other == 0 || had == other || v.Zone(PortZone(a.ID), "h1") != 0 {
			t.Fatalf("zones %d and then %d, the first one's now is %d", had, other, v.Zone(PortZone(a.ID), "h1"))
		}
		if ended := slices.Collect(v.EndedZonesOn("h1")); len(ended) != 1 || ended[0].Number != had || ended[0].Ended != v.Revision() {
			t.Fatalf("ended zones: %+v, want %d at revision %d", ended, had, v.Revision())
		}
		if again := plug(t, s, "h1", a, b).Zone(PortZone(a.ID), "h1"); again != had {
			t.Fatalf("a port that came back has zone %d, it had %d", again, had)
		}
		update(t, s, func(tx *Tx) error { return tx.DeletePort(a.ID) })
		endDepartures(t, s)
		if ended := slices.Collect(s.View().EndedZonesOn("h1")); len(ended) > 0 {
			t.Fatalf("zones are left: %+v", ended)
		}
		checkInvariants(t, s)
	})
}

func TestRouterWithAGatewayHasZonesWhereItsNetworksAre(t *testing.T) {
	s := providerStore(t, providerConfig())
	putHost(t, s, "h1")
	putHost(t, s, "h2")
	n := newNetwork(t, s)
	sub := newSubnet(t, s, n, "10.0.0.0/24")
	external := provider(TypeFlat, "physnet1", 0) // which no host reaches
	external.External = true
	update(t, s, func(tx *Tx) error { return tx.CreateNetwork(external) })
	newSubnet(t, s, external, "203.0.113.0/24")
	p := newPort(t, s, n)
	plug(t, s, "h1", p)
	r := &Router{AdminStateUp: true, EnableSNAT: true}
	update(t, s, func(tx *Tx) error {
		if err := tx.CreateRouter(r); err != nil {
			return err
		}
		_, err := tx.AddRouterInterface(r.ID, sub.ID, "")
		return err
	})
	zones := func(host string) (snat, dnat uint16) {
		v := s.View()
		return v.Zone(RouterSNATZone(r.ID), host), v.Zone(RouterDNATZone(r.ID), host)
	}
	if snat, dnat := zones("h1"); snat != 0 || dnat != 0 {
		t.Fatalf("a router without a gateway has zones %d and %d", snat, dnat)
	}
	set := func(network string) {
		update(t, s, func(tx *Tx) error {
			now := tx.Router(r.ID).Clone()
			now.ExternalNetworkID = network
			return tx.UpdateRouter(now)
		})
	}
	set(external.ID)
	snat, dnat := zones("h1")
	if snat == 0 || dnat == 0 || snat == dnat || snat == s.View().Zone(PortZone(p.ID), "h1") {
		t.Fatalf("zones %d and %d", snat, dnat)
	}
	if snat, dnat := zones("h2"); snat != 0 || dnat != 0 {
		t.Fatalf("zones %d and %d where no network of the router is", snat, dnat)
	}
	set("")
	if snat, dnat := zones("h1"); snat != 0 || dnat != 0 {
		t.Fatalf("without its gateway the router has zones %d and %d", snat, dnat)
	}
	checkInvariants(t, s)
	set(external.ID)
	plug(t, s, "h1")
	if snat, dnat := zones("h1"); snat != 0 || dnat != 0 {
		t.Fatalf("zones %d and %d where no network of the router is any more", snat, dnat)
	}
	update(t, s, func(tx *Tx) error { return tx.DeleteHost("h1") })
	if left := slices.Collect(list[Zone](s.View(), KindZone, IndexZonesOn, "h1")); len(left) > 0 {
		t.Fatalf("a forgotten host has zones: %+v", left)
	}
	checkInvariants(t, s)
}
