package network

import (
	"context"
	"slices"
	"testing"
)

// endDepartures does what the controller does when all hosts have applied everything.
func endDepartures(t tester, s *Store) {
	t.Helper()
	_, err := s.Update(context.Background(), Cause{}, func(tx *Tx) error {
		for h := range tx.Hosts() {
			tx.FreeZones(slices.Collect(tx.EndedZonesOn(h.Name)))
			if err := tx.EndDepartures(slices.Collect(tx.DeparturesOn(h.Name))); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func reopened(t *testing.T, s *Store, dsn string) *Store {
	t.Helper()
	again := open(t, dsn, DefaultConfig())
	sameView(t, "after reopening", s.View(), again.View())
	return again
}

func TestNumbersAreNotUsedAgainAtOnceAfterARestart(t *testing.T) {
	onEach(t, func(t *testing.T, dsn string) {
		s := open(t, dsn, DefaultConfig())
		n := newNetwork(t, s)
		p := newPort(t, s, n)
		update(t, s, func(tx *Tx) error { return tx.DeletePort(p.ID) })
		update(t, s, func(tx *Tx) error { return tx.DeleteNetwork(n.ID) })
		s = reopened(t, s, dsn)
		m := newNetwork(t, s)
		q := newPort(t, s, m)
		if m.Key == n.Key || m.SegmentationID == n.SegmentationID || q.Key == p.Key {
			t.Fatalf("the network %d with tunnel id %d, the port %d: those of the deleted ones", m.Key, m.SegmentationID, q.Key)
		}
		// Another controller goes on where this one stopped.
		other := open(t, dsn, DefaultConfig())
		gone := newNetwork(t, other)
		update(t, other, func(tx *Tx) error { return tx.DeleteNetwork(gone.ID) })
		if o := newNetwork(t, s); o.Key != m.Key+2 {
			t.Fatalf("the other store's key was used again: %d after %d", o.Key, m.Key+1)
		}
	})
}

func TestLocalVLANIsFreeOnceTheHostHasAppliedThatItsNetworkLeft(t *testing.T) {
	onEach(t, func(t *testing.T, dsn string) {
		s := open(t, dsn, DefaultConfig())
		putHost(t, s, "h1")
		a, b := newPort(t, s, newNetwork(t, s)), newPort(t, s, newNetwork(t, s))
		v := plug(t, s, "h1", a)
		had := v.Presence(a.NetworkID, "h1").VLAN
		// All others are taken: there is nothing to be had but the one that is left.
		update(t, s, func(tx *Tx) error {
			for vlan := uint32(minVLAN); vlan <= maxVLAN; vlan++ {
				if vlan == uint32(had) {
					continue
				}
				if err := tx.put(&Departure{NetworkID: smallKey(vlan), Host: "h1", VLAN: uint16(vlan)}); err != nil {
					return err
				}
			}
			return nil
		})
		plug(t, s, "h1")
		left := s.View().Revision()
		s = reopened(t, s, dsn)
		v = update(t, s, func(tx *Tx) error { return tx.SyncVIFs("h1", []VIF{{PortID: b.ID, OFPort: 1}}) })
		if v.Presence(b.NetworkID, "h1") != nil {
			t.Fatal("a local VLAN was used again at once")
		}
		of := func(id string) func(*Departure) bool { return func(d *Departure) bool { return d.NetworkID == id } }
		departures := slices.Collect(v.DeparturesOn("h1"))
		i := slices.IndexFunc(departures, of(a.NetworkID))
		if i < 0 || departures[i].VLAN != had || departures[i].Revision != left {
			t.Fatalf("departures %v, want VLAN %d at revision %d among them", departures, had, left)
		}
		stale := *departures[i]
		stale.Revision--
		update(t, s, func(tx *Tx) error { return tx.EndDepartures([]*Departure{&stale}) })
		if s.View().Presence(b.NetworkID, "h1") != nil {
			t.Fatal("an older departure ended a newer one")
		}
		v = update(t, s, func(tx *Tx) error { return tx.EndDepartures(departures[i : i+1]) })
		if pr := v.Presence(b.NetworkID, "h1"); pr == nil || pr.VLAN != had {
			t.Fatalf("the network that waited for a local VLAN has %+v", pr)
		}
		checkInvariants(t, s)
		endDepartures(t, s)
		checkInvariants(t, s)
	})
}

func TestNetworkThatComesBackHasItsLocalVLANAgain(t *testing.T) {
	s := providerStore(t, DefaultConfig())
	putHost(t, s, "h1")
	p := newPort(t, s, newNetwork(t, s))
	before := plug(t, s, "h1", p).Presence(p.NetworkID, "h1").VLAN
	plug(t, s, "h1")
	v := plug(t, s, "h1", p)
	if now := v.Presence(p.NetworkID, "h1").VLAN; now != before {
		t.Errorf("local VLAN %d became %d", before, now)
	}
	if left := slices.Collect(v.DeparturesOn("h1")); len(left) > 0 {
		t.Errorf("departures left: %v", left)
	}
}

func TestForgottenHostHoldsNoLocalVLAN(t *testing.T) {
	s := providerStore(t, DefaultConfig())
	putHost(t, s, "h1")
	p := newPort(t, s, newNetwork(t, s))
	plug(t, s, "h1", p)
	v := update(t, s, func(tx *Tx) error { return tx.DeleteHost("h1") })
	checkInvariants(t, s)
	if left := slices.Collect(v.DeparturesOn("h1")); len(left) > 0 {
		t.Errorf("departures left: %v", left)
	}
}
