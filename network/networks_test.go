package network

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// providerConfig knows two physical networks, one of them without VLANs to allocate.
func providerConfig() Config {
	cfg := DefaultConfig()
	cfg.VLANRanges = map[string][]IDRange{"physnet1": {{100, 101}}, "physnet2": nil}
	cfg.TunnelRanges[TypeGRE] = []IDRange{{1, 2}, {7, 7}}
	return cfg
}

func providerStore(t *testing.T, cfg Config) *Store {
	return open(t, "sqlite://"+filepath.Join(t.TempDir(), "planck.db"), cfg)
}

func provider(typ, physicalNetwork string, id uint32) *Network {
	return &Network{NetworkType: typ, PhysicalNetwork: physicalNetwork, SegmentationID: id}
}

func TestExternalNetworksAreFlatWhereThatIsPossible(t *testing.T) {
	var said bytes.Buffer
	cfg := providerConfig()
	cfg.Log = slog.New(slog.NewTextHandler(&said, nil))
	s := providerStore(t, cfg)
	var got []string
	var last string
	for range 3 {
		if said.Len() > 0 {
			t.Errorf("before the physical networks are used up: %s", said.String())
		}
		n := &Network{External: true}
		update(t, s, func(tx *Tx) error { return tx.CreateNetwork(n) })
		got, last = append(got, n.NetworkType+" "+n.PhysicalNetwork), n.ID
	}
	if !strings.Contains(said.String(), "level=WARN") || !strings.Contains(said.String(), "network_id="+last) {
		t.Errorf("nobody is told of the network that leads nowhere: %q", said.String())
	}
	if want := []string{"flat physnet1", "flat physnet2", "gre "}; !slices.Equal(got, want) {
		t.Errorf("external networks are %q, want %q", got, want)
	}
}

func TestNetworksHaveTheTunnelsThatAreConfigured(t *testing.T) {
	cfg := providerConfig()
	delete(cfg.TunnelRanges, TypeVXLAN)
	s := providerStore(t, cfg)
	for _, id := range []uint32{0, 5} {
		refused(t, s, Invalid, "InvalidInput", func(tx *Tx) error { return tx.CreateNetwork(provider(TypeVXLAN, "", id)) })
		update(t, s, func(tx *Tx) error { return tx.CreateNetwork(provider(TypeGRE, "", id)) })
	}
}

func TestTenantNetworksTakeSegmentsInTurn(t *testing.T) {
	cfg := providerConfig()
	cfg.TenantNetworkTypes = []string{TypeGRE, TypeVLAN}
	s := providerStore(t, cfg)
	var got []string
	var first *Network
	for range 5 {
		n := newNetwork(t, s)
		if first == nil {
			first = n
		}
		got = append(got, fmt.Sprintf("%s %s %d", n.NetworkType, n.PhysicalNetwork, n.SegmentationID))
	}
	want := []string{"gre  1", "gre  2", "gre  7", "vlan physnet1 100", "vlan physnet1 101"}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Fatalf("got %q, want %q", got, want)
	}
	refused(t, s, Unavailable, "NoNetworkAvailable", func(tx *Tx) error { return tx.CreateNetwork(&Network{}) })
	update(t, s, func(tx *Tx) error { return tx.DeleteNetwork(first.ID) })
	if n := newNetwork(t, s); n.SegmentationID != 1 || n.NetworkType != TypeGRE {
		t.Fatalf("after a release: %s %d", n.NetworkType, n.SegmentationID)
	}
}

func TestProviderAttributesAreValidated(t *testing.T) {
	s := providerStore(t, providerConfig())
	update(t, s, func(tx *Tx) error {
		return tx.PutHost(&Host{Name: "h", BridgeMappings: map[string]string{"physnet3": "br-ex"}})
	})
	for _, n := range []*Network{
		provider(TypeVLAN, "physnet1", 5),
		provider(TypeVLAN, "physnet2", 5),
		provider(TypeVLAN, "physnet1", 0),
		provider(TypeFlat, "physnet1", 0),
		provider(TypeFlat, "physnet3", 0),
		provider(TypeGRE, "", 99),
		provider(TypeVXLAN, "", 99),
		provider(TypeGeneve, "", 0),
		provider(TypeGRE, "", 1<<32-1),
		provider(TypeLocal, "", 0),
		provider(TypeLocal, "", 0),
	} {
		update(t, s, func(tx *Tx) error { return tx.CreateNetwork(n) })
	}
	for _, bad := range []struct {
		n     *Network
		class Class
		typ   string
	}{
		{provider(TypeVLAN, "", 5), Invalid, "InvalidInput"},
		{provider(TypeVLAN, "nowhere", 5), Invalid, "InvalidInput"},
		{provider(TypeVLAN, "physnet1", 4095), Invalid, "InvalidInput"},
		{provider(TypeVLAN, "physnet1", 5), Conflict, "VlanIdInUse"},
		{provider(TypeVLAN, "physnet2", 0), Unavailable, "NoNetworkAvailable"},
		{provider(TypeFlat, "", 0), Invalid, "InvalidInput"},
		{provider(TypeFlat, "nowhere", 0), Invalid, "InvalidInput"},
		{provider(TypeFlat, "physnet1", 3), Invalid, "InvalidInput"},
		{provider(TypeFlat, "physnet1", 0), Conflict, "FlatNetworkInUse"},
		{provider(TypeGRE, "", 99), Conflict, "TunnelIdInUse"},
		{provider(TypeGRE, "physnet1", 1), Invalid, "InvalidInput"},
		{provider(TypeVXLAN, "", 1<<24), Invalid, "InvalidInput"},
		{provider(TypeLocal, "", 1), Invalid, "InvalidInput"},
		{provider(TypeLocal, "physnet1", 0), Invalid, "InvalidInput"},
		{provider("", "physnet1", 0), Invalid, "InvalidInput"},
		{provider("token-ring", "", 0), Invalid, "InvalidInput"},
	} {
		t.Logf("%s %q %d", bad.n.NetworkType, bad.n.PhysicalNetwork, bad.n.SegmentationID)
		refused(t, s, bad.class, bad.typ, func(tx *Tx) error { return tx.CreateNetwork(bad.n.Clone()) })
	}
	checkInvariants(t, s)
}

func TestMTUFollowsFromTheNetworkType(t *testing.T) {
	cfg := providerConfig()
	cfg.GlobalPhysnetMTU, cfg.PathMTU = 9000, 1550
	s := providerStore(t, cfg)
	for typ, want := range map[string]int{TypeGRE: 1508, TypeVXLAN: 1500, TypeGeneve: 1492, TypeVLAN: 9000, TypeFlat: 9000, TypeLocal: 9000} {
		n := provider(typ, "", 0)
		if n.Provider() {
			n.PhysicalNetwork = "physnet1"
		}
		update(t, s, func(tx *Tx) error { return tx.CreateNetwork(n) })
		if n.MTU != want {
			t.Errorf("%s: MTU %d, want %d", typ, n.MTU, want)
		}
	}
	n := provider(TypeVXLAN, "", 0)
	for _, mtu := range []int{1501, 67, -1} {
		n.MTU = mtu
		refused(t, s, Invalid, "InvalidInput", func(tx *Tx) error { return tx.CreateNetwork(n.Clone()) })
	}
	n.MTU = 1280
	update(t, s, func(tx *Tx) error { return tx.CreateNetwork(n) })
	newSubnet(t, s, n, "2001:db8::/64")
	n.MTU = 1279
	refused(t, s, Conflict, "NetworkMTUSubnetConflict", func(tx *Tx) error { return tx.UpdateNetwork(n.Clone()) })
}

func TestUpdateNetworkCountsRevisionsAndKeepsWhatIsFixed(t *testing.T) {
	onEachStore(t, func(t *testing.T, s *Store) {
		n := newNetwork(t, s)
		if n.RevisionNumber != 0 || n.Key != 1 || n.CreatedAt.IsZero() || n.CreatedAt.Nanosecond() != 0 {
			t.Fatalf("%+v", n)
		}
		c := n.Clone()
		c.Name, c.Key, c.ProjectID = "other", 77, "red"
		update(t, s, func(tx *Tx) error { return tx.UpdateNetwork(c) })
		got := s.View().Network(n.ID)
		if got.Name != "other" || got.Key != 1 || got.ProjectID != "blue" || got.RevisionNumber != 1 {
			t.Fatalf("%+v", got)
		}
		newSubnet(t, s, n, "10.0.0.0/24")
		if got := s.View().Network(n.ID).RevisionNumber; got != 2 {
			t.Fatalf("revision_number %d after a subnet came", got)
		}
		c.SegmentationID++
		refused(t, s, Invalid, "InvalidInput", func(tx *Tx) error { return tx.UpdateNetwork(c) })
		refused(t, s, NotFound, "NetworkNotFound", func(tx *Tx) error { return tx.UpdateNetwork(&Network{}) })
		refused(t, s, Conflict, "Conflict", func(tx *Tx) error { return tx.CreateNetwork(n.Clone()) })
	})
}

func TestSharedNetworkInUseByOthersStaysShared(t *testing.T) {
	onEachStore(t, func(t *testing.T, s *Store) {
		n := &Network{Standard: Standard{ProjectID: "blue"}, Shared: true}
		update(t, s, func(tx *Tx) error { return tx.CreateNetwork(n) })
		unshare := func(tx *Tx) error {
			c := tx.Network(n.ID).Clone()
			c.Shared = false
			return tx.UpdateNetwork(c)
		}
		p := newPort(t, s, n, func(p *Port) { p.ProjectID = "red" })
		refused(t, s, Conflict, "InvalidSharedSetting", unshare)
		update(t, s, func(tx *Tx) error { return tx.DeletePort(p.ID) })
		newPort(t, s, n)
		update(t, s, unshare)
	})
}

func TestDeleteNetworkTakesSubnetsAndDHCPPortAlong(t *testing.T) {
	onEachStore(t, func(t *testing.T, s *Store) {
		n := newNetwork(t, s)
		newSubnet(t, s, n, "10.0.0.0/24", func(s *Subnet) { s.EnableDHCP = true })
		p := newPort(t, s, n)
		q := newPort(t, s, n)
		e := refused(t, s, Conflict, "NetworkInUse", func(tx *Tx) error { return tx.DeleteNetwork(n.ID) })
		if want := "id for these ports is: " + p.ID + "," + q.ID + "."; !strings.HasSuffix(e.Message, want) {
			t.Errorf("%q does not end with %q", e.Message, want)
		}
		update(t, s, func(tx *Tx) error { return errors.Join(tx.DeletePort(p.ID), tx.DeletePort(q.ID)) })
		update(t, s, func(tx *Tx) error { return tx.DeleteNetwork(n.ID) })
		if left := dump(s.View()); len(left) > 0 {
			t.Fatalf("left: %v", left)
		}
		checkInvariants(t, s)
		refused(t, s, NotFound, "NetworkNotFound", func(tx *Tx) error { return tx.DeleteNetwork(n.ID) })
	})
}

func TestSmallIDsAreNotUsedAgainAtOnce(t *testing.T) {
	onEachStore(t, func(t *testing.T, s *Store) {
		a := newNetwork(t, s)
		update(t, s, func(tx *Tx) error { return tx.DeleteNetwork(a.ID) })
		if b := newNetwork(t, s); a.Key != 1 || b.Key != 2 {
			t.Fatalf("keys %d, %d", a.Key, b.Key)
		}
		if got := s.View().NetworkByKey(2); got == nil {
			t.Fatal("no network by its key")
		}
	})
}

func TestNumbersWrapAround(t *testing.T) {
	a := newAllocator()
	used := map[uint32]bool{}
	free := func(n uint32) bool { return !used[n] }
	ranges := []IDRange{{2, 3}, {5, 5}}
	for _, want := range []uint32{2, 3, 5} {
		n, ok := a.number("x", ranges, free)
		if !ok || n != want {
			t.Fatalf("got %d, %t, want %d", n, ok, want)
		}
		used[n] = true
	}
	if n, ok := a.number("x", ranges, free); ok {
		t.Fatalf("got %d of a used-up range", n)
	}
	used[3] = false
	if n, ok := a.number("x", ranges, free); !ok || n != 3 {
		t.Fatalf("got %d, %t", n, ok)
	}
}
