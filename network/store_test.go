package network

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"planck/test/pg"
)

// onEach runs a test on an empty database of each kind.
func onEach(t *testing.T, test func(t *testing.T, dsn string)) {
	t.Run("SQLite", func(t *testing.T) { test(t, "sqlite://"+filepath.Join(t.TempDir(), "planck.db")) })
	t.Run("PostgreSQL", func(t *testing.T) { test(t, pg.Start(t)) })
}

// onEachStore is onEach with a store of the default configuration.
func onEachStore(t *testing.T, test func(t *testing.T, s *Store)) {
	onEach(t, func(t *testing.T, dsn string) { test(t, open(t, dsn, DefaultConfig())) })
}

func open(t testing.TB, dsn string, cfg Config) *Store {
	t.Helper()
	s, err := Open(t.Context(), dsn, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func update(t testing.TB, s *Store, fn func(*Tx) error) *View {
	t.Helper()
	v, err := s.Update(t.Context(), Cause{Operation: t.Name()}, fn)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// refused runs fn, which must fail with this type, and change nothing.
func refused(t testing.TB, s *Store, class Class, typ string, fn func(*Tx) error) *Error {
	t.Helper()
	before := s.View()
	_, err := s.Update(t.Context(), Cause{}, fn)
	var e *Error
	if !errors.As(err, &e) || e.Class != class || e.Type != typ {
		t.Fatalf("got %#v (%v), want class %d type %s", err, err, class, typ)
	}
	if s.View().Revision() != before.Revision() {
		t.Fatalf("a refused call made revision %d of %d", s.View().Revision(), before.Revision())
	}
	return e
}

// tester is what testing.TB and rapid.T have in common here.
type tester interface {
	Helper()
	Fatal(...any)
	Fatalf(string, ...any)
}

func mustAddr(s string) netip.Addr     { return netip.MustParseAddr(s) }
func mustPrefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

func newNetwork(t testing.TB, s *Store) *Network {
	t.Helper()
	n := &Network{Standard: Standard{Name: "net", ProjectID: "blue"}, AdminStateUp: true, PortSecurityEnabled: true}
	update(t, s, func(tx *Tx) error { return tx.CreateNetwork(n) })
	return n
}

func newSubnet(t testing.TB, s *Store, n *Network, cidr string, with ...func(*Subnet)) *Subnet {
	t.Helper()
	sub := &Subnet{NetworkID: n.ID, CIDR: mustPrefix(cidr), Standard: Standard{ProjectID: n.ProjectID}}
	for _, w := range with {
		w(sub)
	}
	update(t, s, func(tx *Tx) error { return tx.CreateSubnet(sub) })
	return sub
}

func newPort(t testing.TB, s *Store, n *Network, with ...func(*Port)) *Port {
	t.Helper()
	p := &Port{NetworkID: n.ID, Standard: Standard{ProjectID: n.ProjectID}, AdminStateUp: true, PortSecurityEnabled: true}
	for _, w := range with {
		w(p)
	}
	update(t, s, func(tx *Tx) error { return tx.CreatePort(p) })
	return p
}

func dump(v *View) []Object {
	var all []Object
	for _, c := range v.everything() {
		all = append(all, c.After)
	}
	return all
}

var compareObjects = cmp.Options{
	cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{}, time.Time{}),
}

func sameView(t tester, what string, want, got *View) {
	t.Helper()
	if diff := cmp.Diff(dump(want), dump(got), compareObjects); diff != "" {
		t.Fatalf("%s (-want +got):\n%s", what, diff)
	}
}

// checkInvariants compares what is derived with what it is derived from, in
// memory and in the database.
func checkInvariants(t tester, s *Store) {
	t.Helper()
	v := s.View()
	want := map[Claim]bool{}
	for _, o := range dump(v) {
		for _, c := range claimsOf(o) {
			if want[c] {
				t.Fatalf("claim %v twice", c)
			}
			want[c] = true
		}
	}
	inMemory := map[Claim]bool{}
	v.trees.claims.Scan(func(_ string, c Claim) bool {
		inMemory[c] = true
		return true
	})
	if diff := cmp.Diff(want, inMemory); diff != "" {
		t.Fatalf("claims in memory (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(want, claimRows(t, s)); diff != "" {
		t.Fatalf("claims in the database (-want +got):\n%s", diff)
	}
	for _, f := range v.Faults() {
		t.Fatal(f)
	}
}

func claimRows(t tester, s *Store) map[Claim]bool {
	t.Helper()
	rows, err := s.db.Query(`SELECT space, key, owner_kind, owner_id FROM claims`)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	claims := map[Claim]bool{}
	for rows.Next() {
		var c Claim
		if err := rows.Scan(&c.Space, &c.Key, &c.OwnerKind, &c.OwnerID); err != nil {
			t.Fatal(err)
		}
		claims[c] = true
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return claims
}

func TestUpdateIsSeenByItsCallerAndByLaterViews(t *testing.T) {
	onEachStore(t, func(t *testing.T, s *Store) {
		old := s.View()
		n := &Network{}
		v := update(t, s, func(tx *Tx) error {
			if err := tx.CreateNetwork(n); err != nil {
				return err
			}
			if tx.Network(n.ID) == nil {
				t.Error("the transaction does not see its own write")
			}
			return nil
		})
		if v.Network(n.ID) == nil || s.View().Network(n.ID) == nil {
			t.Fatal("the network is not there")
		}
		if old.Network(n.ID) != nil || old.Revision() != 0 || v.Revision() != 1 {
			t.Fatalf("the old view changed, or revisions are %d, %d", old.Revision(), v.Revision())
		}
	})
}

func TestFailedUpdateChangesNothingAndSparesItsBatch(t *testing.T) {
	onEachStore(t, func(t *testing.T, s *Store) {
		boom := errors.New("boom")
		var wg sync.WaitGroup
		for i := range 40 {
			wg.Go(func() {
				_, err := s.Update(context.Background(), Cause{}, func(tx *Tx) error {
					if err := tx.CreateNetwork(&Network{Standard: Standard{Name: fmt.Sprint(i)}}); err != nil {
						return err
					}
					if i%2 == 0 {
						return boom
					}
					return nil
				})
				if (i%2 == 0) != errors.Is(err, boom) {
					t.Errorf("update %d: %v", i, err)
				}
			})
		}
		wg.Wait()
		if got := len(slices.Collect(s.View().Networks())); got != 20 {
			t.Fatalf("%d networks, want 20", got)
		}
		if s.View().Revision() != 20 {
			t.Fatalf("revision %d, want 20", s.View().Revision())
		}
		checkInvariants(t, s)
	})
}

func TestPanicInUpdateReachesItsCallerOnly(t *testing.T) {
	onEachStore(t, func(t *testing.T, s *Store) {
		func() {
			defer func() {
				if recover() == nil {
					t.Error("no panic")
				}
			}()
			_, _ = s.Update(t.Context(), Cause{}, func(*Tx) error { panic("here") })
		}()
		newNetwork(t, s)
	})
}

func TestUpdateWithoutAWriteMakesNoRevision(t *testing.T) {
	onEachStore(t, func(t *testing.T, s *Store) {
		n := newNetwork(t, s)
		v := update(t, s, func(tx *Tx) error { return tx.UpdateNetwork(tx.Network(n.ID).Clone()) })
		if v.Revision() != 1 {
			t.Fatalf("revision %d", v.Revision())
		}
	})
}

func TestCancelledUpdateIsAnsweredAtOnce(t *testing.T) {
	onEachStore(t, func(t *testing.T, s *Store) {
		entered, leave := make(chan struct{}), make(chan struct{})
		var wg sync.WaitGroup
		wg.Go(func() {
			_, err := s.Update(context.Background(), Cause{}, func(*Tx) error {
				close(entered)
				<-leave
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		})
		<-entered
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := s.Update(ctx, Cause{}, func(tx *Tx) error { return tx.CreateNetwork(&Network{}) })
		if !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		close(leave)
		wg.Wait()
		newNetwork(t, s)
		if got := len(slices.Collect(s.View().Networks())); got != 1 {
			t.Fatalf("%d networks: the cancelled write happened", got)
		}
	})
}

// deleteAll deletes everything by the calls that are meant for it.
func deleteAll(tx *Tx) error {
	for f := range tx.FloatingIPs() {
		if err := tx.DeleteFloatingIP(f.ID); err != nil {
			return err
		}
	}
	for _, r := range slices.Collect(tx.Routers()) {
		if err := deleteRouter(tx, r.Clone()); err != nil {
			return err
		}
	}
	for p := range tx.Ports() {
		if p.DeviceOwner != OwnerDHCP {
			if err := tx.DeletePort(p.ID); err != nil {
				return err
			}
		}
	}
	for n := range tx.Networks() {
		if err := tx.DeleteNetwork(n.ID); err != nil {
			return err
		}
	}
	for h := range tx.Hosts() {
		if err := tx.DeleteHost(h.Name); err != nil {
			return err
		}
	}
	return nil
}

func deleteRouter(tx *Tx, r *Router) error {
	r.Routes = nil
	if err := tx.UpdateRouter(r); err != nil {
		return err
	}
	for _, p := range slices.Collect(tx.InterfacesOf(r.ID)) {
		if _, err := tx.RemoveRouterInterface(r.ID, "", p.ID); err != nil {
			return err
		}
	}
	return tx.DeleteRouter(r.ID)
}

func TestReopenedStoreHasTheSameView(t *testing.T) {
	onEach(t, func(t *testing.T, dsn string) {
		s := open(t, dsn, DefaultConfig())
		fill(t, s)
		again := open(t, dsn, DefaultConfig())
		sameView(t, "after reopening", s.View(), again.View())
		if s.View().Revision() != again.View().Revision() {
			t.Fatalf("revision %d became %d", s.View().Revision(), again.View().Revision())
		}
		checkInvariants(t, again)
	})
}

// fill makes one of everything.
func fill(t testing.TB, s *Store) (*Network, *Port) {
	t.Helper()
	update(t, s, func(tx *Tx) error {
		return tx.PutHost(withTunnels(&Host{
			Name: "h1", SystemID: "s", DatapathType: "netdev", BridgeMappings: map[string]string{"physnet1": "br-ex"},
			Bridges: map[string]Bridge{"br-int": {DatapathID: 1<<64 - 1, Patches: map[string]uint32{"br-tun": 1}}, "br-ex": {DatapathID: 3}},
		}))
	})
	n := newNetwork(t, s)
	newSubnet(t, s, n, "10.0.0.0/24", func(s *Subnet) { s.EnableDHCP = true })
	newSubnet(t, s, n, "2001:db8::/64", func(s *Subnet) { s.EnableDHCP, s.IPv6AddressMode, s.Tags = true, SLAAC, []string{"a"} })
	fillRouter(t, s, n)
	p := newPort(t, s, n, func(p *Port) {
		p.Binding = Binding{Host: "h1", Profile: map[string]any{"a": []any{"b", 1.5, int64(1<<62 + 1)}}}
		p.AllowedAddressPairs = []AddressPair{{IP: mustPrefix("10.0.0.0/24")}}
		p.ExtraDHCPOpts = []DHCPOption{{Name: "67", Value: "x", IPVersion: 4}}
	})
	update(t, s, func(tx *Tx) error {
		if err := tx.SyncVIFs("h1", []VIF{{PortID: p.ID, Name: "tap", OFPort: 5}, {PortID: "unknown", OFPort: 6}}); err != nil {
			return err
		}
		return tx.SetPortStatus(PortStatus{PortID: p.ID, Status: StatusActive})
	})
	return n, p
}

// fillRouter makes a router on a network, with a gateway, and a floating IP.
func fillRouter(t testing.TB, s *Store, n *Network) {
	t.Helper()
	external := newExternal(t, s, "172.24.4.0/24")
	r := newRouter(t, s, external, subnetOf(s, n, 4))
	vm := newPort(t, s, n, func(p *Port) { p.FixedIPs = []FixedIP{{SubnetID: subnetOf(s, n, 4)}} })
	newFloatingIP(t, s, external, vm)
	update(t, s, func(tx *Tx) error {
		r := tx.Router(r.ID).Clone()
		r.Routes = []Route{{mustPrefix("10.77.0.0/16"), mustAddr("10.0.0.200")}}
		return tx.UpdateRouter(r)
	})
}

func TestDeletingEverythingLeavesNoClaim(t *testing.T) {
	onEachStore(t, func(t *testing.T, s *Store) {
		fill(t, s)
		update(t, s, deleteAll)
		if left := dump(s.View()); len(left) > 0 {
			t.Fatalf("left: %v", left)
		}
		if left := claimRows(t, s); len(left) > 0 {
			t.Fatalf("claims left: %v", left)
		}
	})
}

func TestStoresOnOneDatabaseFollowEachOther(t *testing.T) {
	onEach(t, func(t *testing.T, dsn string) {
		a, b := open(t, dsn, DefaultConfig()), open(t, dsn, DefaultConfig())
		f := b.Follow()
		defer f.Close()
		if _, err := f.Next(t.Context()); err != nil {
			t.Fatal(err)
		}
		n := newNetwork(t, a)
		batch, err := f.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if len(batch.Changes) != 1 || batch.Changes[0].ID != n.ID || batch.Changes[0].Before != nil {
			t.Fatalf("changes %+v", batch.Changes)
		}
		update(t, b, func(tx *Tx) error { return tx.DeleteNetwork(n.ID) })
		// Without waiting: an update always starts from the newest state.
		update(t, a, func(tx *Tx) error {
			if tx.Network(n.ID) != nil {
				t.Error("the transaction does not see what another store wrote")
			}
			return nil
		})
	})
}

func TestNotificationsArriveBeforeThePoll(t *testing.T) {
	dsn := pg.Start(t)
	a, b := open(t, dsn, DefaultConfig()), open(t, dsn, DefaultConfig())
	f := b.Follow()
	defer f.Close()
	if _, err := f.Next(t.Context()); err != nil {
		t.Fatal(err)
	}
	var fastest time.Duration = time.Hour
	for range 10 {
		newNetwork(t, a)
		start := time.Now()
		if _, err := f.Next(t.Context()); err != nil {
			t.Fatal(err)
		}
		fastest = min(fastest, time.Since(start))
	}
	if fastest > pollInterval/4 {
		t.Fatalf("the fastest of ten changes took %v", fastest)
	}
}

func TestStoreThatFellBehindTheChangeLogReadsEverything(t *testing.T) {
	onEach(t, func(t *testing.T, dsn string) {
		a, b := open(t, dsn, DefaultConfig()), open(t, dsn, DefaultConfig())
		n := newNetwork(t, a)
		update(t, b, func(tx *Tx) error { return tx.CreateNetwork(&Network{}) })
		update(t, b, func(tx *Tx) error { return tx.DeleteNetwork(n.ID) })
		if _, err := b.db.Exec(`DELETE FROM changes`); err != nil {
			t.Fatal(err)
		}
		update(t, a, func(tx *Tx) error { return tx.CreateNetwork(&Network{}) })
		update(t, b, func(*Tx) error { return nil })
		sameView(t, "two stores", a.View(), b.View())
		checkInvariants(t, a)
	})
}

func TestConcurrentStoresNeverAllocateTheSame(t *testing.T) {
	dsn := pg.Start(t)
	first := open(t, dsn, DefaultConfig())
	n := newNetwork(t, first)
	newSubnet(t, first, n, "10.0.0.0/24")
	stores := []*Store{first, open(t, dsn, DefaultConfig()), open(t, dsn, DefaultConfig())}
	var wg sync.WaitGroup
	var mu sync.Mutex
	exhausted := 0
	for _, s := range stores {
		for range 4 {
			wg.Go(func() {
				for range 25 {
					_, err := s.Update(context.Background(), Cause{}, func(tx *Tx) error {
						return tx.CreatePort(&Port{NetworkID: n.ID})
					})
					var e *Error
					switch {
					case err == nil:
					case errors.As(err, &e) && e.Type == "IpAddressGenerationFailure":
						mu.Lock()
						exhausted++
						mu.Unlock()
					default:
						t.Error(err)
					}
				}
			})
		}
	}
	wg.Wait()
	if exhausted != 300-253 {
		t.Errorf("%d of 300 ports found no address, want 47", exhausted)
	}
	for _, s := range stores {
		update(t, s, func(*Tx) error { return nil })
		checkInvariants(t, s)
		sameView(t, "stores on one database", first.View(), s.View())
	}
}

// A database that has a claim that the replica has not must win.
func TestClaimThatOnlyTheDatabaseKnowsIsRespected(t *testing.T) {
	onEachStore(t, func(t *testing.T, s *Store) {
		s.alloc.cursors[spaceNetworkKey] = 6
		if _, err := s.db.Exec(`INSERT INTO claims (space, key, owner_kind, owner_id) VALUES ('network_key', '7', 'network', 'x')`); err != nil {
			t.Fatal(err)
		}
		n := newNetwork(t, s)
		if n.Key == 7 {
			t.Fatal("a claimed key was given out again")
		}
	})
}

func TestAcknowledgedWritesOutliveTheServer(t *testing.T) {
	server := pg.StartServer(t)
	dsn := server.Database(t)
	s := open(t, dsn, DefaultConfig())
	f := s.Follow()
	defer f.Close()
	before := newNetwork(t, s)
	server.Kill(t)
	_, err := s.Update(t.Context(), Cause{}, func(tx *Tx) error { return tx.CreateNetwork(&Network{}) })
	var e *Error
	if !errors.As(err, &e) || e.Class != Unavailable {
		t.Fatalf("got %v", err)
	}
	if s.Ready() == nil {
		t.Error("the store is ready without its database")
	}
	if s.View().Network(before.ID) == nil {
		t.Error("the view is gone with the database")
	}
	server.Restart(t)
	after := newNetwork(t, s)
	if err := s.Ready(); err != nil {
		t.Errorf("not ready: %v", err)
	}
	other := open(t, dsn, DefaultConfig())
	if other.View().Network(before.ID) == nil || other.View().Network(after.ID) == nil {
		t.Fatal("an acknowledged write is lost")
	}
	// Notifications come back by themselves.
	batch, err := f.Next(t.Context())
	if err != nil || len(batch.Changes) != 2 {
		t.Fatalf("%+v, %v", batch.Changes, err)
	}
	newNetwork(t, other)
	if _, err := f.Next(t.Context()); err != nil {
		t.Fatal(err)
	}
	checkInvariants(t, s)
}

func TestClosedStoreRefuses(t *testing.T) {
	onEach(t, func(t *testing.T, dsn string) {
		s, err := Open(t.Context(), dsn, DefaultConfig())
		if err != nil {
			t.Fatal(err)
		}
		f := s.Follow()
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				_, err := s.Update(context.Background(), Cause{}, func(tx *Tx) error { return tx.CreateNetwork(&Network{}) })
				var e *Error
				if err != nil && (!errors.As(err, &e) || e.Class != Unavailable) {
					t.Errorf("got %v", err)
				}
			})
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		wg.Wait()
		if _, err := f.Next(t.Context()); err != nil {
			t.Fatalf("the first batch: %v", err)
		}
		if _, err := f.Next(t.Context()); !errors.Is(err, ErrClosed) {
			t.Fatalf("got %v", err)
		}
		if !errors.Is(s.Ready(), ErrClosed) {
			t.Fatal("a closed store is ready")
		}
	})
}

func TestChangeLogIsPruned(t *testing.T) {
	cfg := DefaultConfig()
	cfg.ChangesKept = 100
	s := open(t, "sqlite://"+filepath.Join(t.TempDir(), "a", "planck.db"), cfg)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 150 {
				if _, err := s.Update(context.Background(), Cause{}, func(tx *Tx) error { return tx.CreateNetwork(&Network{}) }); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	var kept int
	if err := s.db.QueryRow(`SELECT count(*) FROM changes`).Scan(&kept); err != nil {
		t.Fatal(err)
	}
	if kept < cfg.ChangesKept || kept >= 1200 {
		t.Fatalf("%d changes kept", kept)
	}
}

func TestOpenRefusesWhatItCannotRead(t *testing.T) {
	for _, dsn := range []string{"", "mysql://x/y", "sqlite://relative.db", "/var/lib/x.db", "postgresql://h:x/"} {
		if _, err := Open(t.Context(), dsn, DefaultConfig()); err == nil {
			t.Errorf("%q was opened", dsn)
		}
	}
}

func TestTimeOfAChangeNeverGoesBack(t *testing.T) {
	s := open(t, "sqlite://"+filepath.Join(t.TempDir(), "planck.db"), DefaultConfig())
	n := newNetwork(t, s)
	change := func(by time.Duration, name string) *Network {
		t.Helper()
		v, err := s.Update(t.Context(), Cause{}, func(tx *Tx) error {
			tx.now = tx.now.Add(by)
			changed := tx.Network(n.ID).Clone()
			changed.Name = name
			return tx.UpdateNetwork(changed)
		})
		if err != nil {
			t.Fatal(err)
		}
		return v.Network(n.ID)
	}
	ahead := change(5*time.Hour, "ahead")
	back := change(0, "back")
	if back.Name != "back" || !back.UpdatedAt.Equal(ahead.UpdatedAt) || !back.CreatedAt.Equal(ahead.CreatedAt) {
		t.Errorf("a change at %v after one at %v: %+v", back.UpdatedAt, ahead.UpdatedAt, back)
	}
}
