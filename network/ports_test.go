package network

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
)

func addresses(p *Port) string {
	var ips []string
	for _, f := range p.FixedIPs {
		ips = append(ips, f.IP.String())
	}
	return strings.Join(ips, " ")
}

func TestPortTakesOneAddressOfEachVersion(t *testing.T) {
	onEachStore(t, func(t *testing.T, s *Store) {
		n := newNetwork(t, s)
		if p := newPort(t, s, n); addresses(p) != "" {
			t.Fatalf("addresses %q without a subnet", addresses(p))
		}
		first := newSubnet(t, s, n, "10.0.0.0/30")
		newSubnet(t, s, n, "10.0.1.0/30")
		newSubnet(t, s, n, "2001:db8::/64", ipv6(func(s *Subnet) { s.IPv6AddressMode = DHCPv6Stateful }))
		newSubnet(t, s, n, "2001:db8:1::/64", ipv6(func(s *Subnet) {
			s.CIDR, s.IPv6AddressMode = mustPrefix("2001:db8:1::/64"), DHCPv6Stateless
		}))
		mac := func(p *Port) { p.MAC = MAC{2, 0, 0, 0, 0, 1} }
		a := newPort(t, s, n, mac)
		if addresses(a) != "10.0.0.2 2001:db8::3 2001:db8:1::ff:fe00:1" {
			t.Fatalf("addresses %q", addresses(a))
		}
		b := newPort(t, s, n)
		if !strings.HasPrefix(addresses(b), "10.0.1.2 2001:db8::4 2001:db8:1:") {
			t.Fatalf("the first subnet is used up, addresses %q", addresses(b))
		}
		e := refused(t, s, Conflict, "IpAddressGenerationFailure", func(tx *Tx) error { return tx.CreatePort(&Port{NetworkID: n.ID}) })
		if e.Message != "No more IP addresses available on network "+n.ID+"." {
			t.Fatal(e.Message)
		}
		update(t, s, func(tx *Tx) error { return tx.DeletePort(a.ID) })
		if c := newPort(t, s, n); !strings.HasPrefix(addresses(c), "10.0.0.2 ") {
			t.Fatalf("a released address is not found: %q", addresses(c))
		}
		if got := s.View().PortByIP(n.ID, mustAddr("10.0.0.2")); got == nil || got.FixedIPs[0].SubnetID != first.ID {
			t.Fatalf("port by address: %+v", got)
		}
		checkInvariants(t, s)
	})
}

func TestAddressesAreGivenOutInTurn(t *testing.T) {
	onEachStore(t, func(t *testing.T, s *Store) {
		n := newNetwork(t, s)
		newSubnet(t, s, n, "10.0.0.0/29")
		for _, want := range []string{"10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6", "10.0.0.2"} {
			p := newPort(t, s, n)
			if addresses(p) != want {
				t.Fatalf("got %s, want %s", addresses(p), want)
			}
			update(t, s, func(tx *Tx) error { return tx.DeletePort(p.ID) })
		}
	})
}

func TestExhaustionInAnAbortedCallIsForgotten(t *testing.T) {
	onEachStore(t, func(t *testing.T, s *Store) {
		n := newNetwork(t, s)
		newSubnet(t, s, n, "10.0.0.0/30")
		refused(t, s, Conflict, "IpAddressGenerationFailure", func(tx *Tx) error {
			if err := tx.CreatePort(&Port{NetworkID: n.ID}); err != nil {
				return err
			}
			return tx.CreatePort(&Port{NetworkID: n.ID})
		})
		if p := newPort(t, s, n); addresses(p) != "10.0.0.2" {
			t.Fatalf("addresses %q", addresses(p))
		}
	})
}

func TestExplicitAddresses(t *testing.T) {
	onEachStore(t, func(t *testing.T, s *Store) {
		n := newNetwork(t, s)
		a := newSubnet(t, s, n, "10.0.0.0/24")
		b := newSubnet(t, s, n, "10.1.0.0/24")
		slaac := newSubnet(t, s, n, "2001:db8::/64", ipv6(func(s *Subnet) { s.IPv6AddressMode = SLAAC }))
		other := newSubnet(t, s, newNetwork(t, s), "10.5.0.0/24")
		ask := func(ips ...FixedIP) func(*Tx) error {
			return func(tx *Tx) error { return tx.CreatePort(&Port{NetworkID: n.ID, FixedIPs: ips}) }
		}
		p := newPort(t, s, n, func(p *Port) {
			p.FixedIPs = []FixedIP{{IP: mustAddr("10.1.0.9")}, {SubnetID: a.ID}, {SubnetID: a.ID, IP: mustAddr("10.0.0.1")}, {SubnetID: a.ID}}
		})
		if addresses(p) != "10.1.0.9 10.0.0.2 10.0.0.1 10.0.0.3" || p.FixedIPs[0].SubnetID != b.ID {
			t.Fatalf("addresses %v", p.FixedIPs)
		}
		if none := newPort(t, s, n, func(p *Port) { p.FixedIPs = []FixedIP{} }); addresses(none) != "" {
			t.Fatalf("addresses %q", addresses(none))
		}
		refused(t, s, Conflict, "IpAddressAlreadyAllocated", ask(FixedIP{IP: mustAddr("10.1.0.9")}))
		refused(t, s, Invalid, "InvalidIpForNetwork", ask(FixedIP{IP: mustAddr("10.2.0.9")}))
		refused(t, s, Invalid, "InvalidIpForNetwork", ask(FixedIP{IP: mustAddr("10.0.0.255")}))
		refused(t, s, Invalid, "InvalidIpForSubnet", ask(FixedIP{SubnetID: a.ID, IP: mustAddr("10.1.0.10")}))
		refused(t, s, Invalid, "InvalidIpForSubnet", ask(FixedIP{SubnetID: a.ID, IP: mustAddr("10.0.0.0")}))
		refused(t, s, Invalid, "InvalidInput", ask(FixedIP{SubnetID: other.ID}))
		refused(t, s, NotFound, "SubnetNotFound", ask(FixedIP{SubnetID: "x"}))
		refused(t, s, Invalid, "InvalidInput", ask(FixedIP{}))
		refused(t, s, Invalid, "InvalidInput", ask(FixedIP{IP: mustAddr("10.0.0.50")}, FixedIP{IP: mustAddr("10.0.0.50")}))
		refused(t, s, Invalid, "AllocationOnAutoAddressSubnet", ask(FixedIP{SubnetID: slaac.ID, IP: mustAddr("2001:db8::7")}))
		refused(t, s, Invalid, "InvalidInput", ask(make([]FixedIP, 6)...))
		checkInvariants(t, s)
	})
}

func TestServiceTypesKeepOthersOut(t *testing.T) {
	onEachStore(t, func(t *testing.T, s *Store) {
		n := newNetwork(t, s)
		newSubnet(t, s, n, "10.0.0.0/24", func(s *Subnet) { s.ServiceTypes = []string{"compute:nova"} })
		refused(t, s, Conflict, "IpAddressGenerationFailureNoMatchingSubnet", func(tx *Tx) error {
			return tx.CreatePort(&Port{NetworkID: n.ID, DeviceOwner: "compute:other"})
		})
		p := newPort(t, s, n, func(p *Port) { p.DeviceOwner = "compute:nova" })
		if addresses(p) != "10.0.0.2" {
			t.Fatalf("addresses %q", addresses(p))
		}
	})
}

func changePort(id string, change func(*Port)) func(*Tx) error {
	return func(tx *Tx) error {
		c := tx.Port(id).Clone()
		change(c)
		return tx.UpdatePort(c)
	}
}

func TestUpdatePortMovesAddresses(t *testing.T) {
	onEachStore(t, func(t *testing.T, s *Store) {
		n := newNetwork(t, s)
		sub := newSubnet(t, s, n, "10.0.0.0/24")
		p, q := newPort(t, s, n), newPort(t, s, n)
		update(t, s, changePort(p.ID, func(p *Port) {
			p.FixedIPs = append([]FixedIP{{IP: mustAddr("10.0.0.99")}}, FixedIP{SubnetID: sub.ID})
		}))
		if got := addresses(s.View().Port(p.ID)); got != "10.0.0.99 10.0.0.2" {
			t.Fatalf("addresses %q: the one that it had is not kept", got)
		}
		refused(t, s, Conflict, "IpAddressAlreadyAllocated", changePort(q.ID, func(q *Port) {
			q.FixedIPs[0].IP = mustAddr("10.0.0.99")
		}))
		update(t, s, changePort(p.ID, func(p *Port) { p.FixedIPs = nil }))
		update(t, s, changePort(q.ID, func(q *Port) { q.FixedIPs[0].IP = mustAddr("10.0.0.99") }))
		checkInvariants(t, s)
		refused(t, s, NotFound, "PortNotFound", func(tx *Tx) error { return tx.UpdatePort(&Port{}) })
		refused(t, s, Invalid, "InvalidInput", changePort(q.ID, func(q *Port) { q.NetworkID = "x" }))
		refused(t, s, NotFound, "PortNotFound", func(tx *Tx) error { return tx.DeletePort("x") })
	})
}

func TestUpdatePortKeepsAddressesThatFollowFromItsMAC(t *testing.T) {
	onEachStore(t, func(t *testing.T, s *Store) {
		n := newNetwork(t, s)
		newSubnet(t, s, n, "10.0.0.0/24")
		newSubnet(t, s, n, "2001:db8::/64", ipv6(func(s *Subnet) { s.IPv6AddressMode = SLAAC }))
		p := newPort(t, s, n, func(p *Port) { p.MAC = MAC{0xfa, 0x16, 0x3e, 0, 0, 1} })
		for want, ips := range map[string][]FixedIP{
			"10.0.0.9 2001:db8::f816:3eff:fe00:1": {{IP: mustAddr("10.0.0.9")}},
			"2001:db8::f816:3eff:fe00:1":          {},
		} {
			update(t, s, changePort(p.ID, func(p *Port) { p.FixedIPs = ips }))
			if got := addresses(s.View().Port(p.ID)); got != want {
				t.Errorf("after an update to %v: %q, want %q", ips, got, want)
			}
		}
		checkInvariants(t, s)
	})
}

func TestMACs(t *testing.T) {
	cfg := DefaultConfig()
	cfg.BaseMAC = MAC{0xfa, 0x16, 0x3e, 0x4f}
	s := providerStore(t, cfg)
	n := newNetwork(t, s)
	p := newPort(t, s, n)
	if !strings.HasPrefix(p.MAC.String(), "fa:16:3e:4f:") {
		t.Fatalf("MAC %s", p.MAC)
	}
	ask := func(m MAC) func(*Tx) error {
		return func(tx *Tx) error { return tx.CreatePort(&Port{NetworkID: n.ID, MAC: m}) }
	}
	e := refused(t, s, Conflict, "MacAddressInUse", ask(p.MAC))
	if want := fmt.Sprintf("Unable to complete operation for network %s. The mac address %s is in use.", n.ID, p.MAC); e.Message != want {
		t.Fatalf("got %q, want %q", e.Message, want)
	}
	refused(t, s, Invalid, "InvalidInput", ask(MAC{1, 0, 0x5e, 0, 0, 1}))
	// The same MAC is fine on another network.
	newPort(t, s, newNetwork(t, s), func(q *Port) { q.MAC = p.MAC })
	update(t, s, func(tx *Tx) error { return tx.PutHost(withTunnels(&Host{Name: "h"})) })
	update(t, s, changePort(p.ID, func(p *Port) { p.MAC, p.Binding.Host = MAC{2, 0, 0, 0, 0, 1}, "h" }))
	refused(t, s, Conflict, "PortBound", changePort(p.ID, func(p *Port) { p.MAC = MAC{2, 0, 0, 0, 0, 2} }))
}

func TestAllowedAddressPairs(t *testing.T) {
	s := providerStore(t, DefaultConfig())
	n := newNetwork(t, s)
	pair := AddressPair{IP: netip.MustParsePrefix("10.0.0.0/24")}
	p := newPort(t, s, n, func(p *Port) { p.AllowedAddressPairs = []AddressPair{pair} })
	if p.AllowedAddressPairs[0].MAC != p.MAC {
		t.Fatalf("the pair's MAC is %s, the port's %s", p.AllowedAddressPairs[0].MAC, p.MAC)
	}
	ask := func(secure bool, pairs ...AddressPair) func(*Tx) error {
		return func(tx *Tx) error {
			return tx.CreatePort(&Port{NetworkID: n.ID, PortSecurityEnabled: secure, AllowedAddressPairs: pairs})
		}
	}
	refused(t, s, Conflict, "AddressPairAndPortSecurityRequired", ask(false, pair))
	refused(t, s, Invalid, "DuplicateAddressPairInRequest", ask(true, pair, pair))
	refused(t, s, Invalid, "AllowedAddressPairExhausted", ask(true, make([]AddressPair, 11)...))
	refused(t, s, Invalid, "InvalidInput", ask(true, AddressPair{}))
}
