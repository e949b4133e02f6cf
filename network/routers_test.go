package network

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
)

func newExternal(t testing.TB, s *Store, cidrs ...string) *Network {
	t.Helper()
	n := &Network{External: true}
	update(t, s, func(tx *Tx) error { return tx.CreateNetwork(n) })
	for _, cidr := range cidrs {
		newSubnet(t, s, n, cidr)
	}
	return n
}

func subnetOf(s *Store, n *Network, version int) string {
	for sub := range s.View().SubnetsOf(n.ID) {
		if sub.IPVersion == version {
			return sub.ID
		}
	}
	return ""
}

// newRouter makes a router, with a gateway unless external is nil, on subnets.
func newRouter(t testing.TB, s *Store, external *Network, subnets ...string) *Router {
	t.Helper()
	r := &Router{AdminStateUp: true, EnableSNAT: true}
	if external != nil {
		r.ExternalNetworkID = external.ID
	}
	update(t, s, func(tx *Tx) error { return tx.CreateRouter(r) })
	for _, id := range subnets {
		join(t, s, r, id)
	}
	return r
}

func join(t testing.TB, s *Store, r *Router, subnetID string) *Port {
	t.Helper()
	var p *Port
	update(t, s, func(tx *Tx) (err error) {
		p, err = tx.AddRouterInterface(r.ID, subnetID, "")
		return err
	})
	return p
}

func part(t testing.TB, s *Store, r *Router, subnetID string) {
	t.Helper()
	update(t, s, func(tx *Tx) error {
		_, err := tx.RemoveRouterInterface(r.ID, subnetID, "")
		return err
	})
	checkInvariants(t, s)
}

// newJoined makes a network with one subnet on a router.
func newJoined(t testing.TB, s *Store, r *Router, cidr string) *Network {
	t.Helper()
	n := newNetwork(t, s)
	join(t, s, r, newSubnet(t, s, n, cidr).ID)
	return n
}

func changeRouter(id string, change func(*Router), external ...FixedIP) func(*Tx) error {
	return func(tx *Tx) error {
		r := tx.Router(id).Clone()
		change(r)
		return tx.UpdateRouter(r, external...)
	}
}

func adding(r *Router, subnetID, portID string) func(*Tx) error {
	return func(tx *Tx) error {
		_, err := tx.AddRouterInterface(r.ID, subnetID, portID)
		return err
	}
}

func removing(r *Router, subnetID, portID string) func(*Tx) error {
	return func(tx *Tx) error {
		_, err := tx.RemoveRouterInterface(r.ID, subnetID, portID)
		return err
	}
}

func expectMessage(t testing.TB, e *Error, want string) {
	t.Helper()
	if e.Message != want {
		t.Fatalf("message\n got %q\nwant %q", e.Message, want)
	}
}

func expectActive(t testing.TB, s *Store, portID string) {
	t.Helper()
	if st := s.View().PortStatus(portID); st == nil || st.Status != StatusActive {
		t.Fatalf("the status of port %s is %+v", portID, st)
	}
}

func TestRouterInterfacesComeAndGo(t *testing.T) {
	onEachStore(t, func(t *testing.T, s *Store) {
		n := newNetwork(t, s)
		sub := newSubnet(t, s, n, "10.0.0.0/24")
		r := newRouter(t, s, nil)
		p := join(t, s, r, sub.ID)
		checkInvariants(t, s)
		if p.DeviceOwner != OwnerRouterInterface || p.DeviceID != r.ID || addresses(p) != "10.0.0.1" || p.PortSecurityEnabled {
			t.Fatalf("the interface is %+v", p)
		}
		expectActive(t, s, p.ID)
		if rev := s.View().Router(r.ID).RevisionNumber; rev != 1 {
			t.Fatalf("the router's revision number is %d", rev)
		}
		refused(t, s, Conflict, "RouterInUse", func(tx *Tx) error { return tx.DeleteRouter(r.ID) })
		refused(t, s, Conflict, "NetworkInUse", func(tx *Tx) error { return tx.DeleteNetwork(n.ID) })
		refused(t, s, Conflict, "SubnetInUse", func(tx *Tx) error { return tx.DeleteSubnet(sub.ID) })
		refused(t, s, Conflict, "GatewayIpInUse", changeSubnet(sub.ID, func(s *Subnet) { s.GatewayIP = netip.Addr{} }))
		e := refused(t, s, Conflict, "ServicePortInUse", func(tx *Tx) error { return tx.DeletePort(p.ID) })
		expectMessage(t, e, "Port "+p.ID+" cannot be deleted directly via the port API: has device owner network:router_interface.")
		part(t, s, r, sub.ID)
		if s.View().Port(p.ID) != nil {
			t.Fatal("the interface is left")
		}
		// By a port of any address, and removed by it.
		q := newPort(t, s, n, func(p *Port) { p.PortSecurityEnabled = true })
		update(t, s, adding(r, "", q.ID))
		checkInvariants(t, s)
		refused(t, s, Invalid, "SubnetMismatchForPort", removing(r, newSubnet(t, s, n, "10.0.1.0/24").ID, q.ID))
		update(t, s, removing(r, sub.ID, q.ID))
		refused(t, s, NotFound, "RouterInterfaceNotFound", removing(r, "", q.ID))
		refused(t, s, NotFound, "RouterInterfaceNotFoundForSubnet", removing(r, sub.ID, ""))
		update(t, s, func(tx *Tx) error { return tx.DeleteRouter(r.ID) })
		refused(t, s, NotFound, "RouterNotFound", func(tx *Tx) error { return tx.DeleteRouter(r.ID) })
		refused(t, s, NotFound, "RouterNotFound", adding(r, sub.ID, ""))
		refused(t, s, NotFound, "RouterNotFound", removing(r, sub.ID, ""))
		refused(t, s, NotFound, "RouterNotFound", func(tx *Tx) error { return tx.UpdateRouter(r) })
	})
}

func TestRouterRefusesInterfacesThatItCanNotHave(t *testing.T) {
	onEachStore(t, func(t *testing.T, s *Store) {
		n, other := newNetwork(t, s), newNetwork(t, s)
		a, b := newSubnet(t, s, n, "10.0.0.0/24"), newSubnet(t, s, n, "10.0.1.0/24")
		overlapping := newSubnet(t, s, other, "10.0.0.128/25")
		headless := newSubnet(t, s, other, "10.9.0.0/24", func(s *Subnet) { s.GatewayIP = NoGateway })
		foreign := newSubnet(t, s, other, "2001:db8:9::/64", func(s *Subnet) { s.IPv6AddressMode, s.EnableDHCP = SLAAC, true })
		r := newRouter(t, s, nil, a.ID)
		bad := func(subnetID, portID, message string) {
			t.Helper()
			expectMessage(t, refused(t, s, Invalid, "BadRequest", adding(r, subnetID, portID)), "Bad router request: "+message+".")
		}
		bad(a.ID, "", "Router already has a port on subnet "+a.ID)
		bad(overlapping.ID, "", fmt.Sprintf("Cidr 10.0.0.128/25 of subnet %s overlaps with cidr 10.0.0.0/24 of subnet %s", overlapping.ID, a.ID))
		bad(headless.ID, "", "Subnet for router interface must have a gateway IP")
		bad(foreign.ID, "", "IPv6 subnet "+foreign.ID+" configured to receive RAs from an external router cannot be added to Neutron Router.")
		bad("", "", "Either subnet_id or port_id must be specified")
		bad(a.ID, "x", "Cannot specify both subnet-id and port-id")
		bare := newPort(t, s, n, func(p *Port) { p.FixedIPs = []FixedIP{} })
		bad("", bare.ID, "Router port must have at least one fixed IP")
		onA := newPort(t, s, n, func(p *Port) { p.FixedIPs = []FixedIP{{SubnetID: a.ID}} })
		bad("", onA.ID, "Router already has a port on subnet "+a.ID)
		double := newPort(t, s, other, func(p *Port) { p.FixedIPs = []FixedIP{{SubnetID: headless.ID}, {SubnetID: headless.ID}} })
		bad("", double.ID, "Cannot have multiple IPv4 subnets on router port")
		used := newPort(t, s, n, func(p *Port) { p.DeviceID = "vm" })
		refused(t, s, Conflict, "PortInUse", adding(r, "", used.ID))
		refused(t, s, NotFound, "PortNotFound", adding(r, "", "none"))
		refused(t, s, NotFound, "SubnetNotFound", adding(r, "none", ""))
		refused(t, s, NotFound, "SubnetNotFound", removing(r, "none", ""))
		// The gateway address of a subnet is had once.
		newPort(t, s, n, func(p *Port) { p.FixedIPs = []FixedIP{{SubnetID: b.ID, IP: mustAddr("10.0.1.1")}} })
		refused(t, s, Conflict, "IpAddressAlreadyAllocated", adding(r, b.ID, ""))
		checkInvariants(t, s)
	})
}

func TestOneRouterPortHasAllIPv6SubnetsOfANetwork(t *testing.T) {
	onEachStore(t, func(t *testing.T, s *Store) {
		n := newNetwork(t, s)
		slaac := func(s *Subnet) { s.IPv6AddressMode, s.IPv6RAMode, s.EnableDHCP = SLAAC, SLAAC, true }
		v4 := newSubnet(t, s, n, "10.0.0.0/24")
		a, b := newSubnet(t, s, n, "2001:db8:a::/64", slaac), newSubnet(t, s, n, "2001:db8:b::/64")
		r := newRouter(t, s, nil)
		p4, pa, pb := join(t, s, r, v4.ID), join(t, s, r, a.ID), join(t, s, r, b.ID)
		if p4.ID == pa.ID || pa.ID != pb.ID || addresses(pb) != "2001:db8:a::1 2001:db8:b::1" {
			t.Fatalf("ports %s %s and %s with %s", p4.ID, pa.ID, pb.ID, addresses(pb))
		}
		c := newSubnet(t, s, n, "2001:db8:c::/64")
		q := newPort(t, s, n, func(p *Port) { p.FixedIPs = []FixedIP{{SubnetID: c.ID}} })
		e := refused(t, s, Invalid, "BadRequest", adding(r, "", q.ID))
		expectMessage(t, e, "Bad router request: Router already contains IPv6 port "+pa.ID+" belonging to network id "+n.ID+
			". Only one IPv6 port from the same network subnet can be connected to a router..")
		part(t, s, r, a.ID)
		if got := addresses(s.View().Port(pa.ID)); got != "2001:db8:b::1" {
			t.Fatalf("without a: %s", got)
		}
		part(t, s, r, b.ID)
		if s.View().Port(pa.ID) != nil || s.View().Port(p4.ID) == nil {
			t.Fatal("the IPv6 port is left, or the other is not")
		}
	})
}

func TestRouterGatewayComesMovesAndGoes(t *testing.T) {
	onEachStore(t, func(t *testing.T, s *Store) {
		public, other := newExternal(t, s, "172.24.4.0/24", "2001:db8:f::/64"), newExternal(t, s, "192.0.2.0/24")
		inside := newNetwork(t, s)
		r := newRouter(t, s, public, newSubnet(t, s, inside, "10.0.0.0/24").ID)
		checkInvariants(t, s)
		gateway := func() *Port { return s.View().Port(s.View().Router(r.ID).GatewayPortID) }
		if p := gateway(); addresses(p) != "172.24.4.2 2001:db8:f::2" || p.ProjectID != "" || p.DeviceOwner != OwnerRouterGateway {
			t.Fatalf("the gateway is %+v", p)
		}
		first := gateway().ID
		expectActive(t, s, first)
		before := s.View().Revision()
		update(t, s, changeRouter(r.ID, func(*Router) {}, gateway().FixedIPs[1], gateway().FixedIPs[0]))
		if s.View().Revision() != before {
			t.Fatal("the addresses that it had changed something")
		}
		update(t, s, changeRouter(r.ID, func(*Router) {}, FixedIP{IP: mustAddr("172.24.4.99")}))
		if p := gateway(); p.ID != first || addresses(p) != "172.24.4.99" {
			t.Fatalf("the gateway that was moved is %+v", p)
		}
		e := refused(t, s, Invalid, "BadRequest", changeRouter(r.ID, func(*Router) {}, FixedIP{IP: mustAddr("172.24.4.1")}))
		expectMessage(t, e, "Bad router request: External IP 172.24.4.1 is the same as the gateway IP.")
		refused(t, s, Invalid, "InvalidIpForNetwork", changeRouter(r.ID, func(*Router) {}, FixedIP{IP: mustAddr("10.0.0.9")}))
		e = refused(t, s, Invalid, "BadRequest", changeRouter(r.ID, func(r *Router) { r.ExternalNetworkID = inside.ID }))
		expectMessage(t, e, "Bad router request: Network "+inside.ID+" is not an external network.")
		refused(t, s, NotFound, "NetworkNotFound", changeRouter(r.ID, func(r *Router) { r.ExternalNetworkID = "none" }))
		e = refused(t, s, Conflict, "ExternalNetworkInUse", func(tx *Tx) error {
			n := tx.Network(public.ID).Clone()
			n.External = false
			return tx.UpdateNetwork(n)
		})
		expectMessage(t, e, "External network "+public.ID+" cannot be updated to be made non-external, since it has existing gateway ports.")
		refused(t, s, Conflict, "ServicePortInUse", func(tx *Tx) error { return tx.DeletePort(first) })
		update(t, s, changeRouter(r.ID, func(r *Router) { r.ExternalNetworkID, r.EnableSNAT = other.ID, false }))
		checkInvariants(t, s)
		if p := gateway(); p.ID == first || p.NetworkID != other.ID || s.View().Port(first) != nil || s.View().Router(r.ID).EnableSNAT {
			t.Fatalf("the gateway on another network is %+v", p)
		}
		update(t, s, changeRouter(r.ID, func(r *Router) { r.ExternalNetworkID = "" }))
		checkInvariants(t, s)
		if got := s.View().Router(r.ID); got.GatewayPortID != "" || !got.EnableSNAT {
			t.Fatalf("without a gateway: %+v", got)
		}
		overlap := newExternal(t, s, "10.0.0.0/16")
		refused(t, s, Invalid, "BadRequest", changeRouter(r.ID, func(r *Router) { r.ExternalNetworkID = overlap.ID }))
		update(t, s, func(tx *Tx) error { return deleteRouter(tx, tx.Router(r.ID).Clone()) })
		checkInvariants(t, s)
	})
}

func TestGatewayTakesAddressesOfSubnetsThatComeLater(t *testing.T) {
	onEachStore(t, func(t *testing.T, s *Store) {
		public := newExternal(t, s)
		r := newRouter(t, s, public)
		gateway := func() string { return addresses(s.View().Port(r.GatewayPortID)) }
		if got := gateway(); got != "" {
			t.Fatalf("without a subnet it has %s", got)
		}
		newSubnet(t, s, public, "172.24.4.0/24")
		newSubnet(t, s, public, "172.24.5.0/24")
		newSubnet(t, s, public, "2001:db8:f::/64")
		if got := gateway(); got != "172.24.4.2 2001:db8:f::2" {
			t.Fatalf("it has %s", got)
		}
		checkInvariants(t, s)
	})
}

func TestGatewayTakesNoAddressThatOverlapsWithAnInterface(t *testing.T) {
	onEachStore(t, func(t *testing.T, s *Store) {
		public, inside := newExternal(t, s, "172.24.4.0/24"), newNetwork(t, s)
		r := newRouter(t, s, public)
		for _, cidr := range []string{"10.0.0.0/24", "2001:db8:1::/64"} {
			join(t, s, r, newSubnet(t, s, inside, cidr).ID)
		}
		newSubnet(t, s, public, "10.0.0.0/16")
		newSubnet(t, s, public, "2001:db8:1::/64", func(s *Subnet) { s.IPv6AddressMode, s.IPv6RAMode, s.EnableDHCP = SLAAC, SLAAC, true })
		checkInvariants(t, s)
		if got := addresses(s.View().Port(r.GatewayPortID)); got != "172.24.4.2" {
			t.Fatalf("the gateway has %s", got)
		}
		taking := []FixedIP{{IP: mustAddr("10.0.99.9")}}
		refused(t, s, Invalid, "BadRequest", changeRouter(r.ID, func(*Router) {}, taking...))
		refused(t, s, Invalid, "BadRequest", changePort(r.GatewayPortID, func(p *Port) { p.FixedIPs = taking }))
	})
}

func TestExtraRoutesNeedANeighbour(t *testing.T) {
	onEachStore(t, func(t *testing.T, s *Store) {
		public := newExternal(t, s, "172.24.4.0/24")
		r := newRouter(t, s, public)
		sub := newSubnet(t, s, newNetwork(t, s), "10.0.0.0/24")
		join(t, s, r, sub.ID)
		route := func(destination, nexthop string) func(*Tx) error {
			return changeRouter(r.ID, func(r *Router) {
				r.Routes = append(r.Routes, Route{mustPrefix(destination), mustAddr(nexthop)})
			})
		}
		e := refused(t, s, Invalid, "InvalidRoutes", route("10.7.0.0/16", "10.1.0.9"))
		expectMessage(t, e, "Invalid format for routes: [{'destination': '10.7.0.0/16', 'nexthop': '10.1.0.9'}], the nexthop is not connected with router")
		e = refused(t, s, Invalid, "InvalidRoutes", route("10.7.0.0/16", "10.0.0.1"))
		expectMessage(t, e, "Invalid format for routes: [{'destination': '10.7.0.0/16', 'nexthop': '10.0.0.1'}], the nexthop is used by router")
		refused(t, s, Invalid, "InvalidRoutes", route("2001:db8::/64", "10.0.0.9"))
		update(t, s, route("10.7.0.0/16", "10.0.0.9"))
		update(t, s, route("10.8.0.0/16", "172.24.4.9"))
		refused(t, s, Conflict, "RouterInterfaceInUseByRoute", removing(r, sub.ID, ""))
		refused(t, s, Invalid, "InvalidRoutes", changeRouter(r.ID, func(r *Router) { r.ExternalNetworkID = "" }))
		e = refused(t, s, Invalid, "RoutesExhausted", changeRouter(r.ID, func(r *Router) {
			for i := range maxRoutes {
				r.Routes = append(r.Routes, Route{mustPrefix(fmt.Sprintf("10.9.%d.0/24", i)), mustAddr("10.0.0.9")})
			}
		}))
		expectMessage(t, e, "Unable to complete operation for "+r.ID+". The number of routes exceeds the maximum 30.")
		update(t, s, changeRouter(r.ID, func(r *Router) { r.Routes = nil }))
		part(t, s, r, sub.ID)
	})
}

func TestPortsBelongToARouterByItsCallsOnly(t *testing.T) {
	onEachStore(t, func(t *testing.T, s *Store) {
		public := newExternal(t, s, "172.24.4.0/24")
		r := newRouter(t, s, public)
		n := newNetwork(t, s)
		a, b := newSubnet(t, s, n, "10.0.0.0/24"), newSubnet(t, s, n, "10.0.1.0/24")
		p := join(t, s, r, a.ID)
		for _, owner := range []string{OwnerRouterInterface, OwnerRouterGateway} {
			refused(t, s, Conflict, "DeviceIDNotOwnedByTenant", func(tx *Tx) error {
				return tx.CreatePort(&Port{NetworkID: n.ID, DeviceOwner: owner, DeviceID: r.ID})
			})
		}
		vm := newPort(t, s, n, func(p *Port) { p.DeviceOwner = OwnerRouterInterface })
		refused(t, s, Conflict, "DeviceIDNotOwnedByTenant", changePort(vm.ID, func(p *Port) { p.DeviceID = r.ID }))
		refused(t, s, Conflict, "PortInUse", changePort(p.ID, func(p *Port) { p.DeviceID = "" }))
		refused(t, s, Conflict, "PortInUse", changePort(r.GatewayPortID, func(p *Port) { p.DeviceOwner = "" }))
		update(t, s, changePort(p.ID, func(p *Port) { p.Name = "if" }))
		// It may move, but not where it can't be.
		update(t, s, changePort(p.ID, func(p *Port) { p.FixedIPs = []FixedIP{{SubnetID: b.ID}} }))
		checkInvariants(t, s)
		refused(t, s, Invalid, "BadRequest", changePort(p.ID, func(p *Port) { p.FixedIPs = []FixedIP{} }))
		refused(t, s, Invalid, "BadRequest", changePort(p.ID, func(p *Port) { p.FixedIPs = []FixedIP{{SubnetID: a.ID}, {SubnetID: b.ID}} }))
		refused(t, s, Invalid, "BadRequest", changePort(r.GatewayPortID, func(p *Port) { p.FixedIPs = []FixedIP{{IP: mustAddr("172.24.4.1")}} }))
		update(t, s, changePort(r.GatewayPortID, func(p *Port) { p.FixedIPs = []FixedIP{{IP: mustAddr("172.24.4.7")}} }))
		checkInvariants(t, s)
	})
}

func TestWiredPortThatIsAnInterfaceTakesTheOthersAlong(t *testing.T) {
	onEachStore(t, func(t *testing.T, s *Store) {
		putHost(t, s, "h1")
		r := newRouter(t, s, nil)
		other := newJoined(t, s, r, "10.0.1.0/24")
		n := newNetwork(t, s)
		newSubnet(t, s, n, "10.0.0.0/24")
		p := newPort(t, s, n)
		update(t, s, adding(r, "", p.ID))
		plug(t, s, "h1", p)
		if got := present(s, other); got != "h1 " {
			t.Fatalf("the other network is on %q", got)
		}
		update(t, s, removing(r, "", p.ID))
		checkInvariants(t, s)
		if got := present(s, other); got != "" {
			t.Fatalf("the other network is left on %q", got)
		}
	})
}

// present lists where a network is, with a plus where it has wired ports.
func present(s *Store, n *Network) string {
	text := ""
	for p := range s.View().PresencesOf(n.ID) {
		if p.Wired {
			text += "+"
		}
		text += p.Host + " "
	}
	return text
}

func TestNetworksArePresentWhereTheirRouterHasOthers(t *testing.T) {
	onEachStore(t, func(t *testing.T, s *Store) {
		for _, h := range []string{"h1", "h2", "h3"} {
			putHost(t, s, h)
		}
		r := newRouter(t, s, nil)
		a, b, c := newJoined(t, s, r, "10.0.0.0/24"), newJoined(t, s, r, "10.0.1.0/24"), newNetwork(t, s)
		far := newRouter(t, s, nil)
		d := newJoined(t, s, far, "10.0.3.0/24")
		expect := func(what, onA, onB, onC, onD string) {
			t.Helper()
			checkInvariants(t, s)
			got := fmt.Sprintf("%q", []string{present(s, a), present(s, b), present(s, c), present(s, d)})
			if want := fmt.Sprintf("%q", []string{onA, onB, onC, onD}); got != want {
				t.Fatalf("%s: %s, want %s", what, got, want)
			}
		}
		pa, pb, pc := newPort(t, s, a), newPort(t, s, b), newPort(t, s, c)
		expect("nothing plugged", "", "", "", "")
		plug(t, s, "h1", pa)
		expect("a on h1", "+h1 ", "h1 ", "", "")
		vlan := s.View().Presence(b.ID, "h1").VLAN
		plug(t, s, "h2", pb)
		plug(t, s, "h3", pc)
		expect("b on h2, c on h3", "+h1 h2 ", "h1 +h2 ", "+h3 ", "")
		// A routed-in presence keeps its local VLAN when it gets ports.
		plug(t, s, "h1", pa, newPort(t, s, b))
		expect("b on h1", "+h1 h2 ", "+h1 +h2 ", "+h3 ", "")
		if got := s.View().Presence(b.ID, "h1").VLAN; got != vlan {
			t.Fatalf("the local VLAN became %d of %d", got, vlan)
		}
		plug(t, s, "h1", pa)
		expect("no b on h1", "+h1 h2 ", "h1 +h2 ", "+h3 ", "")
		subC := newSubnet(t, s, c, "10.0.2.0/24")
		join(t, s, r, subC.ID)
		expect("c joined", "+h1 h2 h3 ", "h1 +h2 h3 ", "h1 h2 +h3 ", "")
		// Two routers on a network do not carry each other's networks.
		update(t, s, func(tx *Tx) error {
			p := &Port{NetworkID: c.ID}
			if err := tx.CreatePort(p); err != nil {
				return err
			}
			_, err := tx.AddRouterInterface(far.ID, "", p.ID)
			return err
		})
		expect("d joined with c", "+h1 h2 h3 ", "h1 +h2 h3 ", "h1 h2 +h3 ", "h3 ")
		part(t, s, r, subC.ID)
		expect("c parted", "+h1 h2 ", "h1 +h2 ", "+h3 ", "h3 ")
		update(t, s, changeRouter(r.ID, func(r *Router) { r.AdminStateUp = false }))
		expect("router down", "+h1 ", "+h2 ", "+h3 ", "h3 ")
		update(t, s, changeRouter(r.ID, func(r *Router) { r.AdminStateUp = true }))
		expect("router up", "+h1 h2 ", "h1 +h2 ", "+h3 ", "h3 ")
		update(t, s, func(tx *Tx) error { return tx.DeletePort(pa.ID) })
		expect("a deleted", "h2 ", "+h2 ", "+h3 ", "h3 ")
		update(t, s, changePort(pb.ID, bound("h1")))
		expect("b bound to where it is not plugged", "", "", "+h3 ", "h3 ")
		plug(t, s, "h1", pb)
		expect("b on h1", "h1 ", "+h1 ", "+h3 ", "h3 ")
		update(t, s, func(tx *Tx) error { return tx.DeleteHost("h1") })
		expect("h1 gone", "", "", "+h3 ", "h3 ")
	})
}

func TestPresencesOfAnEarlierVersionAreWired(t *testing.T) {
	onEach(t, func(t *testing.T, dsn string) {
		s := open(t, dsn, DefaultConfig())
		n, _ := fill(t, s)
		if _, err := s.db.Exec(`UPDATE objects SET body = replace(body, ',"wired":true', '') WHERE kind = 'presence'`); err != nil {
			t.Fatal(err)
		}
		again := open(t, dsn, DefaultConfig())
		if p := again.View().Presence(n.ID, "h1"); p == nil || !p.Wired {
			t.Fatalf("the presence is %+v", p)
		}
	})
}

// TestRoutedPresencesCostWhatTheRouterJoins: adding an interface writes nothing
// about networks and hosts that the router has nothing to do with.
func TestRoutedPresencesCostWhatTheRouterJoins(t *testing.T) {
	s := open(t, "sqlite://"+t.TempDir()+"/planck.db", DefaultConfig())
	for i := range 20 {
		host := fmt.Sprintf("h%02d", i)
		putHost(t, s, host)
		r := newRouter(t, s, nil)
		plug(t, s, host, newPort(t, s, newJoined(t, s, r, "10.0.0.0/24")), newPort(t, s, newJoined(t, s, r, "10.0.1.0/24")))
	}
	putHost(t, s, "h20")
	r := newRouter(t, s, nil)
	n := newJoined(t, s, r, "10.0.0.0/24")
	plug(t, s, "h20", newPort(t, s, n))
	other := newSubnet(t, s, newNetwork(t, s), "10.0.1.0/24")
	f := s.Follow()
	defer f.Close()
	next(t, f)
	join(t, s, r, other.ID)
	var kinds []Kind
	for _, c := range next(t, f).Changes {
		kinds = append(kinds, c.Kind)
	}
	if want := []Kind{KindPort, KindPortStatus, KindPresence, KindRouter}; !slices.Equal(kinds, want) {
		t.Fatalf("changed %v, want %v", kinds, want)
	}
}
