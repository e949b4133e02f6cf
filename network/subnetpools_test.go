package network

import (
	"net/netip"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// TestPoolGivesWhatABitmapGives takes and returns prefixes at random, and
// compares with a bitmap of the addresses: a pool has room for a prefix exactly
// when an aligned block is free, and takes it out of the smallest free block.
func TestPoolGivesWhatABitmapGives(t *testing.T) {
	s := open(t, "sqlite://"+t.TempDir()+"/planck.db", DefaultConfig())
	rapid.Check(t, func(rt *rapid.T) {
		p := drawPool(rt)
		update(t, s, func(tx *Tx) error { return tx.CreateSubnetPool(p) })
		checkCompact(rt, p.Prefixes)
		var taken []*Subnet
		free := bitmap(p.Prefixes)
		rt.Repeat(map[string]func(*rapid.T){
			"take": func(rt *rapid.T) {
				length := rapid.IntRange(26, 32).Draw(rt, "length")
				want, room := smallestHole(free, length)
				sub := &Subnet{SubnetPoolID: p.ID, PrefixLen: length, IPVersion: 4, GatewayIP: NoGateway}
				err := take(t, s, sub)
				if room != (err == nil) || room && sub.CIDR != want {
					rt.Fatalf("a /%d of %v without %v: %v, %v, want %v", length, p.Prefixes, cidrs(taken), sub.CIDR, err, want)
				}
				if room {
					taken = append(taken, sub)
					mark(free, sub.CIDR, false)
				}
			},
			"take this": func(rt *rapid.T) {
				cidr := drawPrefix(rt)
				sub := &Subnet{SubnetPoolID: p.ID, CIDR: cidr, IPVersion: 4, GatewayIP: NoGateway}
				room := true
				for a := range 256 {
					room = room && (free[a] || !cidr.Contains(address24(a)))
				}
				if err := take(t, s, sub); room != (err == nil) {
					rt.Fatalf("%s of %v without %v: %v", cidr, p.Prefixes, cidrs(taken), err)
				}
				if room {
					taken = append(taken, sub)
					mark(free, cidr, false)
				}
			},
			"return": func(rt *rapid.T) {
				if len(taken) == 0 {
					return
				}
				i := rapid.IntRange(0, len(taken)-1).Draw(rt, "which")
				update(t, s, func(tx *Tx) error { return tx.DeleteNetwork(taken[i].NetworkID) })
				mark(free, taken[i].CIDR, true)
				taken = slices.Delete(taken, i, i+1)
			},
		})
		update(t, s, func(tx *Tx) error {
			for _, sub := range taken {
				if err := tx.DeleteNetwork(sub.NetworkID); err != nil {
					return err
				}
			}
			return tx.DeleteSubnetPool(p.ID)
		})
	})
	checkInvariants(t, s)
}

// take makes a subnet on a network of its own.
func take(t *testing.T, s *Store, sub *Subnet) error {
	_, err := s.Update(t.Context(), Cause{}, func(tx *Tx) error {
		n := &Network{}
		if err := tx.CreateNetwork(n); err != nil {
			return err
		}
		sub.NetworkID = n.ID
		return tx.CreateSubnet(sub)
	})
	return err
}

func drawPrefix(rt *rapid.T) netip.Prefix {
	length := rapid.IntRange(25, 32).Draw(rt, "length")
	return netip.PrefixFrom(address24(rapid.IntRange(0, 255).Draw(rt, "address")), length).Masked()
}

func drawPool(rt *rapid.T) *SubnetPool {
	p := &SubnetPool{Standard: Standard{Name: "pool"}, MinPrefixLen: Unset, MaxPrefixLen: Unset, DefaultPrefixLen: Unset, DefaultQuota: Unset}
	for range rapid.IntRange(1, 5).Draw(rt, "prefixes") {
		p.Prefixes = append(p.Prefixes, drawPrefix(rt))
	}
	return p
}

func address24(a int) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, 0, byte(a)}) }

func bitmap(prefixes []netip.Prefix) []bool {
	free := make([]bool, 256)
	for _, p := range prefixes {
		mark(free, p, true)
	}
	return free
}

func mark(free []bool, p netip.Prefix, to bool) {
	for a := range free {
		if p.Contains(address24(a)) {
			free[a] = to
		}
	}
}

// smallestHole is the first prefix of a length in the smallest aligned free
// block that has room for it.
func smallestHole(free []bool, length int) (netip.Prefix, bool) {
	whole := func(first, size int) bool { return !slices.Contains(free[first:first+size], false) }
	for size := 1 << (32 - length); size <= 256; size *= 2 {
		for first := 0; first < 256; first += size {
			partOfMore := size < 256 && whole(first&^(2*size-1), 2*size)
			if whole(first, size) && !partOfMore {
				return netip.PrefixFrom(address24(first), length), true
			}
		}
	}
	return netip.Prefix{}, false
}

// checkCompact sees to it that prefixes are in order, apart, and can't be merged.
func checkCompact(rt *rapid.T, prefixes []netip.Prefix) {
	for i := 1; i < len(prefixes); i++ {
		a, b := prefixes[i-1], prefixes[i]
		if a.Overlaps(b) || !a.Addr().Less(b.Addr()) || siblings(a, b) {
			rt.Fatalf("not compact: %v", prefixes)
		}
	}
}

func cidrs(subnets []*Subnet) []netip.Prefix {
	var list []netip.Prefix
	for _, s := range subnets {
		list = append(list, s.CIDR)
	}
	return list
}

func TestEveryAddressOfIPv6FitsIntoAPool(t *testing.T) {
	onEachStore(t, func(t *testing.T, s *Store) {
		p := &SubnetPool{Prefixes: []netip.Prefix{mustPrefix("8000::/1"), mustPrefix("::/1")}, MinPrefixLen: 0, MaxPrefixLen: Unset, DefaultPrefixLen: 127}
		update(t, s, func(tx *Tx) error { return tx.CreateSubnetPool(p) })
		if len(p.Prefixes) != 1 || p.Prefixes[0] != mustPrefix("::/0") {
			t.Errorf("the prefixes are %v", p.Prefixes)
		}
		last := newSubnet(t, s, newNetwork(t, s), "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128", func(sub *Subnet) { sub.SubnetPoolID = p.ID })
		sub := &Subnet{NetworkID: newNetwork(t, s).ID, SubnetPoolID: p.ID, PrefixLen: Unset, GatewayIP: NoGateway}
		update(t, s, func(tx *Tx) error { return tx.CreateSubnet(sub) })
		if sub.CIDR != mustPrefix("ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffc/127") || sub.IPVersion != 6 {
			t.Errorf("beside %s the pool gives %s", last.CIDR, sub.CIDR)
		}
		refused(t, s, Invalid, "SubnetPoolDeleteError", func(tx *Tx) error { return tx.DeleteSubnetPool(p.ID) })
	})
}
