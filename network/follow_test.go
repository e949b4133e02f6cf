package network

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"
)

func next(t *testing.T, f *Follower) Batch {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	b, err := f.Next(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestFollowerStartsWithEverything(t *testing.T) {
	onEachStore(t, func(t *testing.T, s *Store) {
		fill(t, s)
		f := s.Follow()
		defer f.Close()
		b := next(t, f)
		if len(b.Changes) != len(dump(s.View())) {
			t.Fatalf("%d changes of %d objects", len(b.Changes), len(dump(s.View())))
		}
		for _, c := range b.Changes {
			if c.Before != nil || c.After == nil {
				t.Fatalf("%+v is not a creation", c)
			}
		}
	})
}

func TestFollowerMergesWhatItMissed(t *testing.T) {
	onEachStore(t, func(t *testing.T, s *Store) {
		kept := newNetwork(t, s)
		f := s.Follow()
		defer f.Close()
		next(t, f)
		rename := func(name string) {
			update(t, s, func(tx *Tx) error {
				n := tx.Network(kept.ID).Clone()
				n.Name = name
				return tx.UpdateNetwork(n)
			})
		}
		rename("one")
		rename("two")
		gone := newNetwork(t, s)
		update(t, s, func(tx *Tx) error { return tx.DeleteNetwork(gone.ID) })
		b := next(t, f)
		if len(b.Changes) != 1 {
			t.Fatalf("%+v", b.Changes)
		}
		before, after := b.Changes[0].Before.(*Network), b.Changes[0].After.(*Network)
		if before.Name != "net" || after.Name != "two" || b.View.Revision() != s.View().Revision() {
			t.Fatalf("%q became %q", before.Name, after.Name)
		}
		rename("three")
		if b := next(t, f); b.Changes[0].Before.(*Network).Name != "two" {
			t.Fatalf("%+v", b.Changes)
		}
	})
}

func TestFollowerStopsWhenItIsTold(t *testing.T) {
	onEachStore(t, func(t *testing.T, s *Store) {
		f := s.Follow()
		next(t, f)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := f.Next(ctx); !errors.Is(err, context.Canceled) {
			t.Fatalf("got %v", err)
		}
		f.Close()
		f.Close()
		if _, err := f.Next(t.Context()); !errors.Is(err, ErrClosed) {
			t.Fatalf("got %v", err)
		}
	})
}

// TestTouchedCoversEveryReadThatChanged is the promise that compilation rests
// on: if a read through a recording view has another result after a change,
// then the change touches something that was recorded.
func TestTouchedCoversEveryReadThatChanged(t *testing.T) {
	s := open(t, "sqlite://"+t.TempDir()+"/planck.db", DefaultConfig())
	f := s.Follow()
	defer f.Close()
	next(t, f)
	n, p := fill(t, s)
	var r *Router
	for r = range s.View().Routers() {
	}
	var f1 *FloatingIP
	for f1 = range s.View().FloatingIPs() {
	}
	reads := map[string]func(*View) any{
		"network":     func(v *View) any { return v.Network(n.ID) },
		"host":        func(v *View) any { return v.Host("h2") },
		"subnets of":  func(v *View) any { return slices.Collect(v.SubnetsOf(n.ID)) },
		"ports of":    func(v *View) any { return slices.Collect(v.PortsOf(n.ID)) },
		"ports":       func(v *View) any { return slices.Collect(v.Ports()) },
		"bound to h1": func(v *View) any { return slices.Collect(v.PortsBoundTo("h1")) },
		"bound to h2": func(v *View) any { return slices.Collect(v.PortsBoundTo("h2")) },
		"of device":   func(v *View) any { return slices.Collect(v.PortsOfDevice("d")) },
		"of project":  func(v *View) any { return slices.Collect(v.PortsOfProject("blue")) },
		"by ip":       func(v *View) any { return v.PortByIP(n.ID, mustAddr("10.0.0.77")) },
		"by key":      func(v *View) any { return v.PortByKey(p.Key) },
		"vifs of":     func(v *View) any { return slices.Collect(v.VIFsOf(p.ID)) },
		"vifs on":     func(v *View) any { return slices.Collect(v.VIFsOn("h2")) },
		"presences":   func(v *View) any { return slices.Collect(v.PresencesOf(n.ID)) },
		"presence":    func(v *View) any { return v.Presence(n.ID, "h2") },
		"status":      func(v *View) any { return v.PortStatus(p.ID) },
		"hosts":       func(v *View) any { return slices.Collect(v.Hosts()) },

		"router":          func(v *View) any { return v.Router(r.ID) },
		"router by key":   func(v *View) any { return v.RouterByKey(r.Key) },
		"routers":         func(v *View) any { return slices.Collect(v.Routers()) },
		"routers on":      func(v *View) any { return slices.Collect(v.RoutersOn(f1.FloatingNetworkID)) },
		"routers via":     func(v *View) any { return slices.Collect(v.RoutersVia(mustAddr("10.0.0.77"))) },
		"routers of":      func(v *View) any { return slices.Collect(v.RoutersOfProject("blue")) },
		"interfaces":      func(v *View) any { return slices.Collect(v.InterfacesOf(r.ID)) },
		"router ports":    func(v *View) any { return slices.Collect(v.RouterPortsOf(n.ID)) },
		"floating":        func(v *View) any { return v.FloatingIP(f1.ID) },
		"floating by key": func(v *View) any { return v.FloatingIPByKey(f1.Key) },
		"floating at":     func(v *View) any { return v.FloatingIPByAddress(f1.FloatingNetworkID, f1.Address) },
		"floating of":     func(v *View) any { return slices.Collect(v.FloatingIPsOfPort(f1.PortID)) },
		"floating behind": func(v *View) any { return slices.Collect(v.FloatingIPsOfRouter(r.ID)) },
		"floating on":     func(v *View) any { return slices.Collect(v.FloatingIPsOn(f1.FloatingNetworkID)) },
		"floating blue":   func(v *View) any { return slices.Collect(v.FloatingIPsOfProject("blue")) },
		"floating all":    func(v *View) any { return slices.Collect(v.FloatingIPs()) },
	}
	changePort := func(change func(*Port)) func(*Tx) error {
		return func(tx *Tx) error {
			c := tx.Port(p.ID).Clone()
			change(c)
			return tx.UpdatePort(c)
		}
	}
	steps := []func(*Tx) error{
		func(tx *Tx) error { return tx.PutHost(withTunnels(&Host{Name: "h2"})) },
		changePort(func(p *Port) { p.FixedIPs = append(p.FixedIPs, FixedIP{IP: mustAddr("10.0.0.77")}) }),
		func(tx *Tx) error {
			c := tx.Router(r.ID).Clone()
			c.Routes = []Route{{Destination: mustPrefix("192.0.2.0/24"), NextHop: mustAddr("10.0.0.77")}}
			return tx.UpdateRouter(c)
		},
		changePort(func(p *Port) { p.DeviceID = "d" }),
		changePort(func(p *Port) { p.Binding.Host = "h2" }),
		func(tx *Tx) error { return tx.SyncVIFs("h2", []VIF{{PortID: p.ID, Name: "tap", OFPort: 9}}) },
		func(tx *Tx) error { return tx.SetPortStatus(PortStatus{PortID: p.ID, Status: StatusActive}) },
		func(tx *Tx) error { return tx.CreatePort(&Port{NetworkID: n.ID}) },
		func(tx *Tx) error {
			return tx.CreateSubnet(&Subnet{NetworkID: n.ID, CIDR: mustPrefix("10.9.0.0/24")})
		},
		func(tx *Tx) error { return tx.SyncVIFs("h2", nil) },
		func(tx *Tx) error { return tx.DeletePort(p.ID) },
		func(tx *Tx) error { return tx.CreateRouter(&Router{Standard: Standard{ProjectID: "blue"}}) },
		func(tx *Tx) error {
			return tx.CreateFloatingIP(&FloatingIP{Standard: Standard{ProjectID: "blue"}, FloatingNetworkID: f1.FloatingNetworkID})
		},
		func(tx *Tx) error { return tx.DeleteFloatingIP(f1.ID) },
		func(tx *Tx) error { return deleteRouter(tx, tx.Router(r.ID).Clone()) },
	}
	next(t, f)
	changed := map[string]bool{}
	for i, step := range steps {
		before := s.View()
		update(t, s, step)
		touched := map[Dep]bool{}
		b := next(t, f)
		b.Touched(func(d Dep, _ []int) {
			if touched[d] {
				t.Fatalf("step %d: %v is visited twice", i, d)
			}
			touched[d] = true
		})
		for name, read := range reads {
			hit := false
			old := read(before.Recording(func(d Dep) { hit = hit || touched[d] }))
			if sameResult(old, read(b.View)) {
				continue
			}
			changed[name] = true
			if !hit {
				t.Errorf("step %d changed %q, but touched nothing of it: %v", i, name, touched)
			}
		}
	}
	for name := range reads {
		if !changed[name] {
			t.Errorf("no step changed %q", name)
		}
	}
}

func sameResult(a, b any) bool {
	switch a := a.(type) {
	case []*Port:
		return slices.Equal(a, b.([]*Port))
	case []*Subnet:
		return slices.Equal(a, b.([]*Subnet))
	case []*VIF:
		return slices.Equal(a, b.([]*VIF))
	case []*Presence:
		return slices.Equal(a, b.([]*Presence))
	case []*Router:
		return slices.Equal(a, b.([]*Router))
	case []*FloatingIP:
		return slices.Equal(a, b.([]*FloatingIP))
	case []*Host:
		return slices.Equal(a, b.([]*Host))
	}
	return a == b
}

func TestStatusTouchesNoPort(t *testing.T) {
	onEachStore(t, func(t *testing.T, s *Store) {
		_, p := fill(t, s)
		f := s.Follow()
		defer f.Close()
		next(t, f)
		update(t, s, func(tx *Tx) error {
			return tx.SetPortStatus(PortStatus{PortID: p.ID, Status: StatusError, Reason: "refused"})
		})
		next(t, f).Touched(func(d Dep, _ []int) {
			if d.Index != IndexPortStatus {
				t.Errorf("a status touches %v", d)
			}
		})
	})
}
