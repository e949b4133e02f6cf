package network

import (
	"net/netip"
	"testing"
)

func newFloatingIP(t testing.TB, s *Store, external *Network, p *Port) *FloatingIP {
	t.Helper()
	f := &FloatingIP{FloatingNetworkID: external.ID}
	if p != nil {
		f.PortID = p.ID
	}
	update(t, s, func(tx *Tx) error { return tx.CreateFloatingIP(f) })
	return f
}

func changeFloatingIP(id string, change func(*FloatingIP)) func(*Tx) error {
	return func(tx *Tx) error {
		f := tx.FloatingIP(id).Clone()
		change(f)
		return tx.UpdateFloatingIP(f)
	}
}

func floating(f FloatingIP) func(*Tx) error {
	return func(tx *Tx) error { return tx.CreateFloatingIP(&f) }
}

func TestFloatingIPIsAssociatedMovedAndFreed(t *testing.T) {
	onEachStore(t, func(t *testing.T, s *Store) {
		public := newExternal(t, s, "172.24.4.0/24", "2001:db8:f::/64")
		n := newNetwork(t, s)
		sub := newSubnet(t, s, n, "10.0.0.0/24")
		r := newRouter(t, s, public, sub.ID)
		p, q := newPort(t, s, n), newPort(t, s, n)
		f := newFloatingIP(t, s, public, nil)
		if f.Address != mustAddr("172.24.4.3") || s.View().FloatingIPStatus(f) != StatusDown || f.Key == 0 {
			t.Fatalf("created %+v", f)
		}
		expectActive(t, s, f.FloatingPortID)
		if port := s.View().Port(f.FloatingPortID); port.ProjectID != "" || port.DeviceOwner != OwnerFloatingIP || addresses(port) != "172.24.4.3" {
			t.Fatalf("its port is %+v", port)
		}
		to := func(port *Port) func(*FloatingIP) {
			return func(f *FloatingIP) { f.PortID, f.FixedIP = port.ID, netip.Addr{} }
		}
		for _, port := range []*Port{p, q} {
			update(t, s, changeFloatingIP(f.ID, to(port)))
			checkInvariants(t, s)
			got := s.View().FloatingIP(f.ID)
			if got.PortID != port.ID || got.FixedIP != port.FixedIPs[0].IP || got.RouterID != r.ID || s.View().FloatingIPStatus(got) != StatusDown {
				t.Fatalf("associated: %+v", got)
			}
			// What a host acknowledged too late, for another port, does not count.
			late := *got
			late.PortID = r.ID
			update(t, s, func(tx *Tx) error { return tx.SetFloatingIPWired(&late) })
			if got := s.View().FloatingIPStatus(got); got != StatusDown {
				t.Fatalf("not wired yet: %s", got)
			}
			update(t, s, func(tx *Tx) error { return tx.SetFloatingIPWired(got) })
			checkInvariants(t, s)
			if got := s.View().FloatingIPStatus(got); got != StatusActive {
				t.Fatalf("wired: %s", got)
			}
		}
		if got := s.View().FloatingIPByAddress(public.ID, f.Address); got == nil || got.ID != f.ID {
			t.Fatalf("by its address: %+v", got)
		}
		second := newFloatingIP(t, s, public, nil)
		e := refused(t, s, Conflict, "FloatingIPPortAlreadyAssociated", changeFloatingIP(second.ID, to(q)))
		expectMessage(t, e, "Cannot associate floating IP 172.24.4.4 ("+second.ID+") with port "+q.ID+" using fixed IP "+q.FixedIPs[0].IP.String()+
			", as that fixed IP already has a floating IP on external network "+public.ID+".")
		refused(t, s, Conflict, "RouterInterfaceInUseByFloatingIP", removing(r, sub.ID, ""))
		refused(t, s, Conflict, "RouterExternalGatewayInUseByFloatingIp", changeRouter(r.ID, func(r *Router) { r.ExternalNetworkID = "" }))
		refused(t, s, Conflict, "FipAssociated", changePort(q.ID, func(p *Port) { p.FixedIPs = []FixedIP{{SubnetID: sub.ID, IP: mustAddr("10.0.0.99")}} }))
		refused(t, s, Conflict, "ServicePortInUse", func(tx *Tx) error { return tx.DeletePort(f.FloatingPortID) })
		refused(t, s, Conflict, "PortInUse", changePort(f.FloatingPortID, func(p *Port) { p.FixedIPs = []FixedIP{{IP: mustAddr("172.24.4.9")}} }))
		refused(t, s, Invalid, "InvalidInput", changeFloatingIP(f.ID, func(f *FloatingIP) { f.Address = mustAddr("172.24.4.9") }))
		// With its port it is free again.
		update(t, s, func(tx *Tx) error { return tx.DeletePort(q.ID) })
		checkInvariants(t, s)
		if got := s.View().FloatingIP(f.ID); got.PortID != "" || s.View().FloatingIPStatus(got) != StatusDown {
			t.Fatalf("after the port: %+v", got)
		}
		update(t, s, changeFloatingIP(f.ID, to(p)))
		update(t, s, changeFloatingIP(f.ID, func(f *FloatingIP) { f.PortID, f.FixedIP = "", netip.Addr{} }))
		checkInvariants(t, s)
		update(t, s, func(tx *Tx) error { return tx.DeleteFloatingIP(f.ID) })
		checkInvariants(t, s)
		if s.View().Port(f.FloatingPortID) != nil {
			t.Fatal("its port is left")
		}
		refused(t, s, NotFound, "FloatingIPNotFound", func(tx *Tx) error { return tx.DeleteFloatingIP(f.ID) })
		refused(t, s, NotFound, "FloatingIPNotFound", func(tx *Tx) error { return tx.UpdateFloatingIP(f) })
	})
}

func TestFloatingIPsAreValidated(t *testing.T) {
	onEachStore(t, func(t *testing.T, s *Store) {
		public, empty := newExternal(t, s, "172.24.4.0/29", "2001:db8:f::/64"), newExternal(t, s)
		n := newNetwork(t, s)
		sub := newSubnet(t, s, n, "10.0.0.0/24")
		lonely := newNetwork(t, s)
		newSubnet(t, s, lonely, "10.1.0.0/24")
		r := newRouter(t, s, public, sub.ID)
		outside := newPort(t, s, lonely)
		bad := func(f FloatingIP, message string) {
			t.Helper()
			expectMessage(t, refused(t, s, Invalid, "BadRequest", floating(f)), "Bad floatingip request: "+message+".")
		}
		bad(FloatingIP{FloatingNetworkID: n.ID}, "Network "+n.ID+" is not a valid external network")
		bad(FloatingIP{FloatingNetworkID: empty.ID}, "Network "+empty.ID+" does not contain any IPv4 subnet")
		refused(t, s, NotFound, "NetworkNotFound", floating(FloatingIP{FloatingNetworkID: "none"}))
		refused(t, s, NotFound, "PortNotFound", floating(FloatingIP{FloatingNetworkID: public.ID, PortID: "none"}))
		e := refused(t, s, NotFound, "ExternalGatewayForFloatingIPNotFound", floating(FloatingIP{FloatingNetworkID: public.ID, PortID: outside.ID}))
		expectMessage(t, e, "External network "+public.ID+" is not reachable from subnet "+outside.FixedIPs[0].SubnetID+
			".  Therefore, cannot associate Port "+outside.ID+" with a Floating IP.")
		bad(FloatingIP{FloatingNetworkID: public.ID, FixedIP: mustAddr("10.0.0.9")}, "fixed_ip_address cannot be specified without a port_id")
		two := newPort(t, s, n, func(p *Port) { p.FixedIPs = []FixedIP{{SubnetID: sub.ID}, {SubnetID: sub.ID}} })
		bare := newPort(t, s, n, func(p *Port) { p.FixedIPs = []FixedIP{} })
		bad(FloatingIP{FloatingNetworkID: public.ID, PortID: two.ID}, "Port "+two.ID+" has multiple fixed IPv4 addresses.  "+
			"Must provide a specific IPv4 address when assigning a floating IP")
		bad(FloatingIP{FloatingNetworkID: public.ID, PortID: bare.ID}, "Cannot add floating IP to port "+bare.ID+" that has no fixed IPv4 addresses")
		bad(FloatingIP{FloatingNetworkID: public.ID, PortID: two.ID, FixedIP: mustAddr("10.0.0.99")}, "Port "+two.ID+" does not have fixed ip 10.0.0.99")
		bad(FloatingIP{FloatingNetworkID: public.ID, PortID: two.ID, FixedIP: mustAddr("2001:db8::9")},
			"Cannot process floating IP association with 2001:db8::9, since that is not an IPv4 address")
		bad(FloatingIP{FloatingNetworkID: public.ID, Address: mustAddr("172.24.4.1")}, "External IP 172.24.4.1 is the same as the gateway IP")
		refused(t, s, Invalid, "InvalidIpForNetwork", floating(FloatingIP{FloatingNetworkID: public.ID, Address: mustAddr("10.0.0.9")}))
		refused(t, s, Invalid, "ExternalIpAddressExhausted", floating(FloatingIP{FloatingNetworkID: public.ID, Address: mustAddr("2001:db8:f::9")}))
		refused(t, s, Conflict, "IpAddressAlreadyAllocated", floating(FloatingIP{FloatingNetworkID: public.ID, Address: mustAddr("172.24.4.2")}))
		// Each address of a port may have its own, chosen or not; then the pool is used up.
		update(t, s, floating(FloatingIP{FloatingNetworkID: public.ID, Address: mustAddr("172.24.4.6"), PortID: two.ID, FixedIP: two.FixedIPs[0].IP}))
		update(t, s, floating(FloatingIP{FloatingNetworkID: public.ID, SubnetID: subnetOf(s, public, 4), PortID: two.ID, FixedIP: two.FixedIPs[1].IP}))
		checkInvariants(t, s)
		update(t, s, floating(FloatingIP{FloatingNetworkID: public.ID}))
		update(t, s, floating(FloatingIP{FloatingNetworkID: public.ID}))
		refused(t, s, Conflict, "IpAddressGenerationFailure", floating(FloatingIP{FloatingNetworkID: public.ID}))
		// An external network goes with those that stand for nothing, and not with the others.
		refused(t, s, Conflict, "NetworkInUse", func(tx *Tx) error { return tx.DeleteNetwork(public.ID) })
		update(t, s, func(tx *Tx) error { return tx.DeletePort(two.ID) })
		update(t, s, func(tx *Tx) error { return deleteRouter(tx, tx.Router(r.ID).Clone()) })
		update(t, s, func(tx *Tx) error { return tx.DeleteNetwork(public.ID) })
		checkInvariants(t, s)
		for f := range s.View().FloatingIPs() {
			t.Fatalf("left: %+v", f)
		}
	})
}

func TestFloatingIPPrefersTheRouterThatIsTheGateway(t *testing.T) {
	onEachStore(t, func(t *testing.T, s *Store) {
		public := newExternal(t, s, "172.24.4.0/24")
		n := newNetwork(t, s)
		sub := newSubnet(t, s, n, "10.0.0.0/24")
		for range 4 {
			beside := newRouter(t, s, public)
			p := newPort(t, s, n)
			update(t, s, adding(beside, "", p.ID))
		}
		vm := newPort(t, s, n)
		if f := newFloatingIP(t, s, public, vm); f.RouterID == "" {
			t.Fatalf("without the gateway: %+v", f)
		}
		update(t, s, func(tx *Tx) error { return tx.DeletePort(vm.ID) })
		r := newRouter(t, s, public, sub.ID)
		if f := newFloatingIP(t, s, public, newPort(t, s, n)); f.RouterID != r.ID {
			t.Fatalf("with the gateway: %+v", f)
		}
	})
}
