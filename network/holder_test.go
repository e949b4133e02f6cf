package network

import (
	"net/netip"
	"testing"
)

// newPlugged makes a port that is plugged on a host of its own.
func newPlugged(t testing.TB, s *Store, n *Network, host string, with func(*Port)) *Port {
	t.Helper()
	p := newPort(t, s, n, func(p *Port) {
		p.AdminStateUp, p.PortSecurityEnabled = true, true
		if with != nil {
			with(p)
		}
	})
	update(t, s, func(tx *Tx) error {
		if err := tx.PutHost(withTunnels(&Host{Name: host})); err != nil {
			return err
		}
		return tx.SyncVIFs(host, []VIF{{PortID: p.ID, Host: host, Name: "tap", OFPort: 1}})
	})
	return s.View().Port(p.ID)
}

func pair(ip string) func(*Port) {
	return func(p *Port) { p.AllowedAddressPairs = []AddressPair{{IP: netip.MustParsePrefix(ip)}} }
}

func TestOnlyWhoMaySendFromAnAddressThatMovesHoldsIt(t *testing.T) {
	onEachStore(t, func(t *testing.T, s *Store) {
		n := newNetwork(t, s)
		newSubnet(t, s, n, "10.0.0.0/24", func(s *Subnet) { s.IPVersion, s.EnableDHCP = 4, true })
		address := func(ip string) func(*Port) { return func(p *Port) { p.FixedIPs = []FixedIP{{IP: mustAddr(ip)}} } }
		reserved := newPort(t, s, n, address("10.0.0.100"))
		one, two := newPlugged(t, s, n, "h1", pair("10.0.0.100/32")), newPlugged(t, s, n, "h2", pair("10.0.0.0/24"))
		plain := newPlugged(t, s, n, "h3", nil)
		loose := newPlugged(t, s, n, "h4", func(p *Port) { p.PortSecurityEnabled = false })
		unplugged := newPort(t, s, n, pair("10.0.0.100/32"))
		other := MAC{2, 0, 0, 0, 0, 9}
		for _, c := range []struct {
			what string
			p    *Port
			ip   string
			mac  MAC
			want bool
		}{
			{"the only address of a pair", one, "10.0.0.100", one.MAC, true},
			{"one of a wide pair, that a port reserves", two, "10.0.0.100", two.MAC, true},
			{"one of a wide pair, that is nobody's", two, "10.0.0.200", two.MAC, true},
			{"one of a wide pair, of a port that is plugged", two, addresses(plain), two.MAC, false},
			{"no port security, nobody's address", loose, "10.0.0.200", other, true},
			{"no port security, the address of a port that is plugged", loose, addresses(plain), loose.MAC, false},
			{"no port security, an address that a port reserves", loose, "10.0.0.100", loose.MAC, true},
			{"its own address", plain, addresses(plain), plain.MAC, true},
			{"another MAC", one, "10.0.0.100", other, false},
			{"no pair", plain, "10.0.0.100", plain.MAC, false},
			{"an address of no subnet", loose, "192.0.2.1", loose.MAC, false},
			{"nothing is plugged", unplugged, "10.0.0.100", unplugged.MAC, false},
			{"the DHCP server's address", loose, addresses(s.View().DHCPPort(n.ID)), loose.MAC, false},
		} {
			if got := s.View().MayHold(c.p, mustAddr(c.ip), c.mac); got != c.want {
				t.Errorf("%s: %t", c.what, got)
			}
		}
		if s.View().AddressMoves(n.ID, mustAddr(addresses(plain))) || !s.View().AddressMoves(n.ID, mustAddr(addresses(reserved))) {
			t.Error("which addresses move is wrong")
		}
	})
}

func TestHolderOfAnAddressIsKeptUntilAnotherComes(t *testing.T) {
	onEachStore(t, func(t *testing.T, s *Store) {
		n := newNetwork(t, s)
		newSubnet(t, s, n, "10.0.0.0/24")
		vip := mustAddr("10.0.0.100")
		one, two := newPlugged(t, s, n, "h1", pair("10.0.0.100/32")), newPlugged(t, s, n, "h2", pair("10.0.0.100/32"))
		set := func(p *Port) func(*Tx) error {
			return func(tx *Tx) error {
				return tx.SetAddressHolder(AddressHolder{NetworkID: n.ID, IP: vip, PortID: p.ID, MAC: p.MAC})
			}
		}
		holds := func(when, want string) {
			t.Helper()
			got := ""
			if h := s.View().AddressHolder(n.ID, vip); h != nil {
				got = h.PortID
			}
			if got != want {
				t.Errorf("%s: %q holds it, want %q", when, got, want)
			}
			for h := range s.View().AddressHoldersOf(n.ID) {
				if want == "" {
					t.Errorf("%s: %+v is listed", when, h)
				}
			}
		}
		holds("at first", "")
		update(t, s, set(one))
		holds("the first said so", one.ID)
		before := s.View().Revision()
		update(t, s, set(one))
		if now := s.View().Revision(); now != before {
			t.Errorf("saying so again made revision %d of %d", now, before)
		}
		update(t, s, set(two))
		holds("the other said so", two.ID)

		unplug := func(vifs ...VIF) func(*Tx) error { return func(tx *Tx) error { return tx.SyncVIFs("h2", vifs) } }
		update(t, s, unplug())
		holds("the holder is unplugged", "")
		refused(t, s, Invalid, "InvalidInput", set(two))
		update(t, s, unplug(VIF{PortID: two.ID, Host: "h2", Name: "tap", OFPort: 1}))
		holds("it is back", two.ID)
		update(t, s, changePort(two.ID, func(p *Port) { p.AllowedAddressPairs = nil }))
		holds("it has no pair any more", "")
		update(t, s, changePort(two.ID, pair("10.0.0.100/32")))
		holds("what it held before counts no more", "")
		update(t, s, set(two))
		update(t, s, func(tx *Tx) error { return tx.DeletePort(two.ID) })
		for h := range s.View().AddressHolders() {
			t.Errorf("a port that is deleted left %+v", h)
		}
	})
}

func TestPortHoldsABoundedNumberOfAddresses(t *testing.T) {
	s := providerStore(t, DefaultConfig())
	n := newNetwork(t, s)
	newSubnet(t, s, n, "10.0.0.0/16")
	p := newPlugged(t, s, n, "h1", func(p *Port) { p.PortSecurityEnabled = false })
	hold := func(i int) func(*Tx) error {
		return func(tx *Tx) error {
			return tx.SetAddressHolder(AddressHolder{NetworkID: n.ID, IP: netip.AddrFrom4([4]byte{10, 0, 9, byte(i)}), PortID: p.ID, MAC: p.MAC})
		}
	}
	for i := range maxHeldAddresses {
		update(t, s, hold(i))
	}
	refused(t, s, Invalid, "InvalidInput", hold(maxHeldAddresses))
	update(t, s, hold(0))
}
