package network

import (
	"fmt"
	"net/netip"
	"testing"
)

func ranges(pairs ...string) []Range {
	r := []Range{}
	for i := 0; i < len(pairs); i += 2 {
		r = append(r, Range{mustAddr(pairs[i]), mustAddr(pairs[i+1])})
	}
	return r
}

func TestSubnetDefaults(t *testing.T) {
	for _, c := range []struct {
		cidr    string
		gateway netip.Addr
		want    string
	}{
		{"10.0.0.77/24", netip.Addr{}, "10.0.0.0/24 10.0.0.1 [10.0.0.2-10.0.0.254]"},
		{"10.0.0.0/24", NoGateway, "10.0.0.0/24 invalid IP [10.0.0.1-10.0.0.254]"},
		{"10.0.0.0/24", mustAddr("10.0.0.254"), "10.0.0.0/24 10.0.0.254 [10.0.0.1-10.0.0.253]"},
		{"10.0.0.0/24", mustAddr("10.0.0.9"), "10.0.0.0/24 10.0.0.9 [10.0.0.1-10.0.0.8 10.0.0.10-10.0.0.254]"},
		{"10.0.0.0/24", mustAddr("10.0.1.1"), "10.0.0.0/24 10.0.1.1 [10.0.0.1-10.0.0.254]"},
		{"10.0.0.0/30", netip.Addr{}, "10.0.0.0/30 10.0.0.1 [10.0.0.2-10.0.0.2]"},
		{"10.0.0.0/31", netip.Addr{}, "10.0.0.0/31 10.0.0.1 [10.0.0.0-10.0.0.0]"},
		{"10.0.0.7/32", netip.Addr{}, "10.0.0.7/32 invalid IP [10.0.0.7-10.0.0.7]"},
		{"2001:db8::/64", netip.Addr{}, "2001:db8::/64 2001:db8::1 [2001:db8::2-2001:db8::ffff:ffff:ffff:ffff]"},
	} {
		s := &Subnet{CIDR: netip.MustParsePrefix(c.cidr), GatewayIP: c.gateway}
		if err := s.normalise(); err != nil {
			t.Fatal(err)
		}
		if err := s.check(); err != nil {
			t.Fatalf("%s: %v", c.cidr, err)
		}
		if got := fmt.Sprint(s.CIDR, s.GatewayIP, s.AllocationPools); got != c.want {
			t.Errorf("%s with gateway %s: got %s, want %s", c.cidr, c.gateway, got, c.want)
		}
	}
}

func TestSubnetsAreValidated(t *testing.T) {
	onEachStore(t, func(t *testing.T, s *Store) {
		n := newNetwork(t, s)
		newSubnet(t, s, n, "10.1.0.0/16")
		many := make([]netip.Addr, 6)
		for i := range many {
			many[i] = mustAddr("10.0.0.1")
		}
		routes := make([]Route, 21)
		for i := range routes {
			routes[i] = Route{mustPrefix("0.0.0.0/0"), mustAddr("10.0.0.1")}
		}
		for _, bad := range []struct {
			what  string
			class Class
			typ   string
			with  func(*Subnet)
		}{
			{"unknown network", NotFound, "NetworkNotFound", func(s *Subnet) { s.NetworkID = "x" }},
			{"no cidr", Invalid, "InvalidInput", func(s *Subnet) { s.CIDR = netip.Prefix{} }},
			{"overlap", Invalid, "InvalidInput", func(s *Subnet) { s.CIDR = mustPrefix("10.1.7.0/24") }},
			{"version", Invalid, "InvalidInput", func(s *Subnet) { s.IPVersion = 6 }},
			{"gateway is the network", Invalid, "InvalidInput", func(s *Subnet) { s.GatewayIP = mustAddr("10.0.0.0") }},
			{"gateway is the broadcast", Invalid, "InvalidInput", func(s *Subnet) { s.GatewayIP = mustAddr("10.0.0.255") }},
			{"gateway of the other version", Invalid, "InvalidInput", func(s *Subnet) { s.GatewayIP = mustAddr("2001:db8::1") }},
			{"gateway in a pool", Conflict, "GatewayConflictWithAllocationPools", func(s *Subnet) {
				s.AllocationPools = ranges("10.0.0.1", "10.0.0.9")
			}},
			{"pool outside", Invalid, "OutOfBoundsAllocationPool", func(s *Subnet) { s.AllocationPools = ranges("10.0.0.9", "10.0.1.9") }},
			{"pool with the broadcast", Invalid, "OutOfBoundsAllocationPool", func(s *Subnet) { s.AllocationPools = ranges("10.0.0.9", "10.0.0.255") }},
			{"overlapping pools", Conflict, "OverlappingAllocationPools", func(s *Subnet) {
				s.AllocationPools = ranges("10.0.0.30", "10.0.0.40", "10.0.0.9", "10.0.0.30")
			}},
			{"pool backwards", Invalid, "InvalidAllocationPool", func(s *Subnet) { s.AllocationPools = ranges("10.0.0.9", "10.0.0.8") }},
			{"pool of the other version", Invalid, "InvalidAllocationPool", func(s *Subnet) { s.AllocationPools = ranges("10.0.0.9", "2001:db8::1") }},
			{"name servers", Invalid, "DNSNameServersExhausted", func(s *Subnet) { s.DNSNameservers = many }},
			{"name server of the other version", Invalid, "InvalidInput", func(s *Subnet) { s.DNSNameservers = []netip.Addr{mustAddr("::1")} }},
			{"routes", Invalid, "HostRoutesExhausted", func(s *Subnet) { s.HostRoutes = routes }},
			{"route of the other version", Invalid, "InvalidInput", func(s *Subnet) {
				s.HostRoutes = []Route{{mustPrefix("::/0"), mustAddr("10.0.0.1")}}
			}},
			{"mode on IPv4", Invalid, "InvalidInput", func(s *Subnet) { s.EnableDHCP, s.IPv6AddressMode = true, SLAAC }},
			{"unknown mode", Invalid, "InvalidInput", ipv6(func(s *Subnet) { s.IPv6AddressMode = "x" })},
			{"mode without DHCP", Invalid, "InvalidInput", ipv6(func(s *Subnet) { s.EnableDHCP, s.IPv6AddressMode = false, SLAAC })},
			{"modes differ", Invalid, "InvalidInput", ipv6(func(s *Subnet) { s.IPv6AddressMode, s.IPv6RAMode = SLAAC, DHCPv6Stateful })},
			{"EUI-64 in another prefix", Invalid, "InvalidInput", ipv6(func(s *Subnet) {
				s.CIDR, s.IPv6AddressMode = mustPrefix("2001:db8::/65"), SLAAC
			})},
		} {
			sub := &Subnet{NetworkID: n.ID, CIDR: mustPrefix("10.0.0.0/24")}
			bad.with(sub)
			t.Log(bad.what)
			refused(t, s, bad.class, bad.typ, func(tx *Tx) error { return tx.CreateSubnet(sub.Clone()) })
		}
		checkInvariants(t, s)
	})
}

func ipv6(with func(*Subnet)) func(*Subnet) {
	return func(s *Subnet) {
		s.CIDR, s.EnableDHCP = mustPrefix("2001:db8::/64"), true
		with(s)
	}
}

func TestOverlapAcrossNetworksIsAsConfigured(t *testing.T) {
	for _, allowed := range []bool{true, false} {
		cfg := DefaultConfig()
		cfg.AllowOverlappingIPs = allowed
		s := providerStore(t, cfg)
		newSubnet(t, s, newNetwork(t, s), "10.0.0.0/24")
		other := newNetwork(t, s)
		create := func(tx *Tx) error {
			return tx.CreateSubnet(&Subnet{NetworkID: other.ID, CIDR: mustPrefix("10.0.0.128/25")})
		}
		if allowed {
			update(t, s, create)
		} else {
			refused(t, s, Invalid, "InvalidInput", create)
		}
	}
}

func changeSubnet(id string, change func(*Subnet)) func(*Tx) error {
	return func(tx *Tx) error {
		c := tx.Subnet(id).Clone()
		change(c)
		return tx.UpdateSubnet(c)
	}
}

func TestUpdateSubnetChangesGatewayAndPools(t *testing.T) {
	onEachStore(t, func(t *testing.T, s *Store) {
		n := newNetwork(t, s)
		sub := newSubnet(t, s, n, "10.0.0.0/24", func(s *Subnet) { s.AllocationPools = ranges("10.0.0.2", "10.0.0.3") })
		a, b := newPort(t, s, n), newPort(t, s, n)
		full := func(tx *Tx) error { return tx.CreatePort(&Port{NetworkID: n.ID}) }
		refused(t, s, Conflict, "IpAddressGenerationFailure", full)
		refused(t, s, Conflict, "GatewayConflictWithAllocationPools",
			changeSubnet(sub.ID, func(s *Subnet) { s.GatewayIP = mustAddr("10.0.0.3") }))
		update(t, s, changeSubnet(sub.ID, func(s *Subnet) {
			s.GatewayIP, s.AllocationPools = mustAddr("10.0.0.2"), ranges("10.0.0.100", "10.0.0.100")
		}))
		c := newPort(t, s, n)
		if got := fmt.Sprint(a.FixedIPs[0].IP, b.FixedIPs[0].IP, c.FixedIPs[0].IP); got != "10.0.0.2 10.0.0.3 10.0.0.100" {
			t.Fatalf("addresses %s", got)
		}
		refused(t, s, Conflict, "IpAddressGenerationFailure", full)
		update(t, s, changeSubnet(sub.ID, func(s *Subnet) { s.GatewayIP = netip.Addr{} }))
		if got := s.View().Subnet(sub.ID); got.GatewayIP.IsValid() || got.RevisionNumber != 2 {
			t.Fatalf("%+v", got)
		}
		refused(t, s, Invalid, "InvalidInput", changeSubnet(sub.ID, func(s *Subnet) { s.CIDR = mustPrefix("10.0.0.0/25") }))
		refused(t, s, NotFound, "SubnetNotFound", func(tx *Tx) error { return tx.UpdateSubnet(&Subnet{}) })
		checkInvariants(t, s)
	})
}

func TestGatewayThatARouterHasStays(t *testing.T) {
	onEachStore(t, func(t *testing.T, s *Store) {
		n := newNetwork(t, s)
		sub := newSubnet(t, s, n, "10.0.0.0/24")
		newPort(t, s, n, func(p *Port) {
			p.DeviceOwner, p.FixedIPs = OwnerRouterInterface, []FixedIP{{SubnetID: sub.ID, IP: mustAddr("10.0.0.1")}}
		})
		refused(t, s, Conflict, "GatewayIpInUse", changeSubnet(sub.ID, func(s *Subnet) { s.GatewayIP = netip.Addr{} }))
	})
}

func TestDHCPPortFollowsTheSubnets(t *testing.T) {
	onEachStore(t, func(t *testing.T, s *Store) {
		dhcp := func(s *Subnet) { s.EnableDHCP = true }
		n := newNetwork(t, s)
		expect := func(want ...string) {
			t.Helper()
			checkInvariants(t, s)
			p := s.View().DHCPPort(n.ID)
			if p == nil {
				if want != nil {
					t.Fatalf("no DHCP port, want %v", want)
				}
				return
			}
			var got []string
			for _, f := range p.FixedIPs {
				got = append(got, f.IP.String())
			}
			if fmt.Sprint(got) != fmt.Sprint(want) || want == nil {
				t.Fatalf("DHCP addresses %v, want %v", got, want)
			}
			if p.ProjectID != "blue" || p.DeviceOwner != OwnerDHCP || s.View().PortStatus(p.ID).Status != StatusActive {
				t.Fatalf("%+v", p)
			}
		}
		newSubnet(t, s, n, "10.9.0.0/24")
		expect()
		a := newSubnet(t, s, n, "10.0.0.0/24", dhcp)
		expect("10.0.0.2")
		b := newSubnet(t, s, n, "2001:db8::/64", dhcp)
		expect("10.0.0.2", "2001:db8::2")
		slaac := newSubnet(t, s, n, "2001:db8:1::/64", ipv6(func(s *Subnet) { s.CIDR, s.IPv6RAMode = mustPrefix("2001:db8:1::/64"), SLAAC }))
		expect("10.0.0.2", "2001:db8::2")
		update(t, s, changeSubnet(a.ID, func(s *Subnet) { s.EnableDHCP = false }))
		expect("2001:db8::2")
		update(t, s, changeSubnet(a.ID, func(s *Subnet) { s.EnableDHCP = true }))
		expect("2001:db8::2", "10.0.0.3")
		update(t, s, func(tx *Tx) error { return tx.DeletePort(tx.DHCPPort(n.ID).ID) })
		if p := s.View().DHCPPort(n.ID); p == nil || len(p.FixedIPs) != 2 {
			t.Fatalf("after its deletion the DHCP port is %+v", p)
		}
		for _, sub := range []*Subnet{a, b, slaac} {
			update(t, s, func(tx *Tx) error { return tx.DeleteSubnet(sub.ID) })
		}
		expect()
	})
}

func TestDeleteSubnetInUseIsRefused(t *testing.T) {
	onEachStore(t, func(t *testing.T, s *Store) {
		n := newNetwork(t, s)
		sub := newSubnet(t, s, n, "10.0.0.0/24", func(s *Subnet) { s.EnableDHCP = true })
		p := newPort(t, s, n)
		refused(t, s, Conflict, "SubnetInUse", func(tx *Tx) error { return tx.DeleteSubnet(sub.ID) })
		update(t, s, func(tx *Tx) error { return tx.DeletePort(p.ID) })
		update(t, s, func(tx *Tx) error { return tx.DeleteSubnet(sub.ID) })
		refused(t, s, NotFound, "SubnetNotFound", func(tx *Tx) error { return tx.DeleteSubnet(sub.ID) })
		checkInvariants(t, s)
	})
}

func TestAutomaticAddressesComeAndGoWithTheirSubnet(t *testing.T) {
	onEachStore(t, func(t *testing.T, s *Store) {
		n := newNetwork(t, s)
		p := newPort(t, s, n, func(p *Port) { p.MAC = MAC{0xfa, 0x16, 0x3e, 1, 2, 3} })
		sub := newSubnet(t, s, n, "2001:db8::/64", ipv6(func(s *Subnet) { s.IPv6AddressMode, s.IPv6RAMode = SLAAC, SLAAC }))
		got := s.View().Port(p.ID)
		if fmt.Sprint(got.FixedIPs) != fmt.Sprintf("[{%s 2001:db8::f816:3eff:fe01:203}]", sub.ID) {
			t.Fatalf("addresses %v", got.FixedIPs)
		}
		late := newPort(t, s, n)
		if len(late.FixedIPs) != 1 {
			t.Fatalf("addresses %v", late.FixedIPs)
		}
		update(t, s, func(tx *Tx) error {
			c := tx.Port(p.ID).Clone()
			c.MAC = MAC{0xfa, 0x16, 0x3e, 9, 9, 9}
			return tx.UpdatePort(c)
		})
		if got := s.View().Port(p.ID).FixedIPs[0].IP.String(); got != "2001:db8::f816:3eff:fe09:909" {
			t.Fatalf("after a new MAC the address is %s", got)
		}
		checkInvariants(t, s)
		// The limit is for requests: what came by itself does not stop other changes.
		for i := range 6 {
			newSubnet(t, s, n, fmt.Sprintf("2001:db8:%d::/64", i+1), func(s *Subnet) { s.EnableDHCP, s.IPv6AddressMode = true, SLAAC })
		}
		update(t, s, changePort(p.ID, func(p *Port) { p.Name = "renamed" }))
		update(t, s, changePort(p.ID, func(p *Port) { p.FixedIPs = p.FixedIPs[:1] }))
		update(t, s, func(tx *Tx) error { return tx.DeleteSubnet(sub.ID) })
		// What follows from the MAC stays when other addresses are changed.
		if got := s.View().Port(p.ID).FixedIPs; len(got) != 6 || containsSubnet(got, sub.ID) {
			t.Fatalf("addresses %v after subnet %s was deleted", got, sub.ID)
		}
		checkInvariants(t, s)
	})
}
