package network

import (
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
)

// maxRoutes limits a router's extra routes, as in Neutron.
const maxRoutes = 30

func routerNotFound(id string) *Error {
	return Errorf(NotFound, "RouterNotFound", "Router %s could not be found", id)
}

// badRequest is Neutron's BadRequest exception, which names what was bad.
func badRequest(resource, format string, args ...any) *Error {
	return Errorf(Invalid, "BadRequest", "Bad %s request: %s.", resource, fmt.Sprintf(format, args...))
}

func portInUse(p *Port) *Error {
	return Errorf(Conflict, "PortInUse",
		"Unable to complete operation on port %s for network %s. Port already has an attached device %s.",
		p.ID, p.NetworkID, p.DeviceID)
}

func deviceNotOwned(id string) *Error {
	return Errorf(Conflict, "DeviceIDNotOwnedByTenant",
		"The following device_id %s is not owned by your tenant or matches another tenants router.", id)
}

// CreateRouter creates a router. With ExternalNetworkID it gets a gateway,
// whose addresses are chosen unless external has some; an entry may have only
// a subnet or only an address. GatewayPortID is filled in.
func (tx *Tx) CreateRouter(r *Router, external ...FixedIP) error {
	tx.begin(&r.Standard)
	if tx.Router(r.ID) != nil {
		return idTaken(KindRouter, r.ID)
	}
	if err := tx.settleGateway(&Router{}, r, external); err != nil {
		return err
	}
	if err := tx.checkRouterRoutes(r); err != nil {
		return err
	}
	key, err := tx.smallID(spaceRouterKey)
	if err != nil {
		return err
	}
	r.Key = key
	r.trim()
	if err := tx.put(r.Clone()); err != nil {
		return err
	}
	return tx.settleRouter(r.ID, nil)
}

// UpdateRouter replaces a router by a modified copy. The gateway's addresses
// stay unless external has some or ExternalNetworkID changes.
func (tx *Tx) UpdateRouter(r *Router, external ...FixedIP) error {
	old := tx.Router(r.ID)
	if old == nil {
		return routerNotFound(r.ID)
	}
	r.GatewayPortID = old.GatewayPortID
	gateway, before, placed := tx.Port(old.GatewayPortID), tx.routerPlaces(r.ID), tx.gatewayHosts(r.ID)
	if err := tx.settleGateway(old, r, external); err != nil {
		return err
	}
	moved := gateway != tx.Port(r.GatewayPortID)
	if moved || !slices.Equal(r.Routes, old.Routes) {
		if err := tx.checkRouterRoutes(r); err != nil {
			return err
		}
	}
	r.Key = old.Key
	r.trim()
	r.ProjectID, r.CreatedAt = old.ProjectID, old.CreatedAt
	r.UpdatedAt, r.RevisionNumber = old.UpdatedAt, old.RevisionNumber
	if !moved && reflect.DeepEqual(r, old) {
		return nil
	}
	tx.bump(&r.Standard, old.Standard)
	if err := tx.put(r.Clone()); err != nil {
		return err
	}
	if !moved && r.AdminStateUp == old.AdminStateUp && slices.Equal(r.Routes, old.Routes) {
		return nil
	}
	if err := tx.settleRouter(r.ID, before); err != nil {
		return err
	}
	if now := tx.Port(r.GatewayPortID); moved && gateway != nil && now != nil && gateway.FirstIPv4() != now.FirstIPv4() {
		return tx.forgetGateway(r.ID, append(placed, tx.gatewayHosts(r.ID)...))
	}
	return nil
}

// gatewayHosts are those that have the gateway of a router, or may get it.
func (tx *Tx) gatewayHosts(routerID string) []string {
	if g := tx.GatewayPlacement(routerID); g != nil {
		return slices.Clone(g.Hosts)
	}
	return nil
}

// forgetGateway makes hosts forget connections that are translated to an address
// that the router had: it may be another's soon.
func (tx *Tx) forgetGateway(routerID string, hosts []string) error {
	for _, host := range hosts {
		if err := tx.flushZone(RouterSNATZone(routerID), host); err != nil {
			return err
		}
	}
	return nil
}

// touchRouter counts a change of a router's interfaces as one of the router.
func (tx *Tx) touchRouter(old *Router) error {
	r := old.Clone()
	tx.bump(&r.Standard, old.Standard)
	return tx.put(r)
}

// DeleteRouter deletes a router with its gateway. Interfaces are in the way.
func (tx *Tx) DeleteRouter(id string) error {
	r := tx.Router(id)
	if r == nil {
		return routerNotFound(id)
	}
	if attached := slices.Collect(tx.InterfacesOf(id)); len(attached) > 0 {
		return Errorf(Conflict, "RouterInUse", "Router %s has ports still attached: %s", id, strings.Join(idsByAge(attached), ", "))
	}
	before := tx.routerPlaces(id)
	if err := tx.removeGateway(r); err != nil {
		return err
	}
	tx.remove(KindGatewayPlacement, id)
	tx.remove(KindRouter, id)
	return tx.settleRouter(id, before)
}

// settleGateway makes, moves or removes the gateway port of a router.
func (tx *Tx) settleGateway(old, r *Router, external []FixedIP) error {
	if r.ExternalNetworkID == "" {
		r.EnableSNAT = true
	}
	if old.ExternalNetworkID == r.ExternalNetworkID {
		return tx.readdressGateway(r, external)
	}
	// What is wrong with the new one is told before what the old one is needed for.
	if err := tx.checkGatewayNetwork(r.ExternalNetworkID); err != nil {
		return err
	}
	if err := tx.removeGateway(old); err != nil {
		return err
	}
	r.GatewayPortID = ""
	if r.ExternalNetworkID == "" {
		return nil
	}
	return tx.createGateway(r, external)
}

func (tx *Tx) removeGateway(r *Router) error {
	if r.GatewayPortID == "" {
		return nil
	}
	for range tx.FloatingIPsOfRouter(r.ID) {
		return Errorf(Conflict, "RouterExternalGatewayInUseByFloatingIp",
			"Gateway cannot be updated for router %s, since a gateway to external network %s is required by one or more floating IPs.",
			r.ID, r.ExternalNetworkID)
	}
	return tx.removePort(tx.Port(r.GatewayPortID))
}

// checkGatewayNetwork refuses what can't be the network of a gateway; "" is none.
func (tx *Tx) checkGatewayNetwork(id string) error {
	if id == "" {
		return nil
	}
	n := tx.Network(id)
	if n == nil {
		return networkNotFound(id)
	}
	if !n.External {
		return badRequest("router", "Network %s is not an external network", n.ID)
	}
	return nil
}

func (tx *Tx) createGateway(r *Router, external []FixedIP) error {
	n := tx.Network(r.ExternalNetworkID)
	if err := tx.checkRouterSubnets(r, slices.Collect(tx.SubnetsOf(n.ID)), nil); err != nil {
		return err
	}
	p := &Port{
		NetworkID:    n.ID,
		DeviceOwner:  OwnerRouterGateway,
		DeviceID:     r.ID,
		AdminStateUp: true,
		FixedIPs:     slices.Clone(orNil(external)),
	}
	if err := tx.createPort(p); err != nil {
		return err
	}
	r.GatewayPortID = p.ID
	return tx.checkGatewayPort(r, p)
}

func (tx *Tx) readdressGateway(r *Router, external []FixedIP) error {
	if r.ExternalNetworkID == "" || len(external) == 0 {
		return nil
	}
	old := tx.Port(r.GatewayPortID)
	p := old.Clone()
	p.FixedIPs = slices.Clone(external)
	ips, err := tx.completeAddresses(p, old.FixedIPs)
	if err != nil || sameAddresses(ips, old.FixedIPs) {
		return err
	}
	if err := tx.setAddresses(old, ips); err != nil {
		return err
	}
	return tx.checkGatewayPort(r, tx.Port(p.ID))
}

// sameAddresses compares lists of different addresses, in whatever order.
func sameAddresses(a, b []FixedIP) bool {
	return len(a) == len(b) && !slices.ContainsFunc(a, func(f FixedIP) bool { return !slices.Contains(b, f) })
}

// checkGatewayPort validates the addresses that a router's gateway port got.
func (tx *Tx) checkGatewayPort(r *Router, p *Port) error {
	var subnets []*Subnet
	for _, f := range p.FixedIPs {
		subnets = append(subnets, tx.Subnet(f.SubnetID))
	}
	if err := tx.checkRouterSubnets(r, subnets, p); err != nil {
		return err
	}
	return tx.checkNotGateway("router", p)
}

// checkNotGateway keeps the gateway of an external subnet from being given out.
func (tx *Tx) checkNotGateway(resource string, p *Port) error {
	for _, f := range p.FixedIPs {
		if f.IP == tx.Subnet(f.SubnetID).GatewayIP {
			return badRequest(resource, "External IP %s is the same as the gateway IP", f.IP)
		}
	}
	return nil
}

// fits reports whether a port, if it is a router's gateway, can have an
// address of a subnet beside the router's other ports.
func (tx *Tx) fits(p *Port, s *Subnet) bool {
	r := tx.Router(p.DeviceID)
	return p.DeviceOwner != OwnerRouterGateway || r == nil || tx.checkRouterSubnets(r, []*Subnet{s}, p) == nil
}

// addGatewayAddresses gives the gateways on a network an address of a new
// subnet, where they had none of its IP version that does not follow from
// their MAC. Those that can't have one go without.
func (tx *Tx) addGatewayAddresses(s *Subnet) error {
	if s.EUI64() {
		return nil
	}
	for _, r := range slices.Collect(tx.RoutersOn(s.NetworkID)) {
		p := tx.Port(r.GatewayPortID)
		if tx.hasChosenAddress(p, s.IPVersion) || !s.serves(p.DeviceOwner) || !tx.fits(p, s) {
			continue
		}
		ip, ok := tx.nextAddress(s, nil)
		if !ok {
			return nil
		}
		if err := tx.setAddresses(p, append(slices.Clone(p.FixedIPs), FixedIP{s.ID, ip})); err != nil {
			return err
		}
	}
	return nil
}

func (tx *Tx) hasChosenAddress(p *Port, version int) bool {
	return slices.ContainsFunc(p.FixedIPs, func(f FixedIP) bool {
		s := tx.Subnet(f.SubnetID)
		return s.IPVersion == version && !s.EUI64()
	})
}

// portsOfRouter are the interfaces and the gateway of a router.
func (tx *Tx) portsOfRouter(r *Router) []*Port {
	ports := slices.Collect(tx.InterfacesOf(r.ID))
	if p := tx.Port(r.GatewayPortID); p != nil {
		ports = append(ports, p)
	}
	return ports
}

// checkRouterSubnets refuses subnets that a router has on one of its ports,
// other than except, or that overlap with those.
func (tx *Tx) checkRouterSubnets(r *Router, subnets []*Subnet, except *Port) error {
	for _, p := range tx.portsOfRouter(r) {
		if except != nil && p.ID == except.ID {
			continue
		}
		for _, f := range p.FixedIPs {
			if err := tx.Subnet(f.SubnetID).checkApart(subnets); err != nil {
				return err
			}
		}
	}
	return nil
}

// checkApart refuses subnets that can't be on the same router as s.
func (s *Subnet) checkApart(subnets []*Subnet) error {
	for _, other := range subnets {
		if other.ID == s.ID {
			return badRequest("router", "Router already has a port on subnet %s", s.ID)
		}
		if other.CIDR.Overlaps(s.CIDR) {
			return badRequest("router", "Cidr %s of subnet %s overlaps with cidr %s of subnet %s",
				other.CIDR, other.ID, s.CIDR, s.ID)
		}
	}
	return nil
}

// checkRouterRoutes sees to it that the next hops of a router's extra routes
// are neighbours, and not the router itself.
func (tx *Tx) checkRouterRoutes(r *Router) error {
	if len(r.Routes) > maxRoutes {
		return Errorf(Invalid, "RoutesExhausted",
			"Unable to complete operation for %s. The number of routes exceeds the maximum %d.", r.ID, maxRoutes)
	}
	if len(r.Routes) == 0 {
		return nil
	}
	var connected []netip.Prefix
	own := map[netip.Addr]bool{}
	for _, p := range tx.portsOfRouter(r) {
		for _, f := range p.FixedIPs {
			connected = append(connected, tx.Subnet(f.SubnetID).CIDR)
			own[f.IP] = true
		}
	}
	for _, route := range r.Routes {
		switch {
		case !route.Destination.IsValid() || route.Destination.Addr().Is4() != route.NextHop.Is4():
			return invalidRoutes(r, "the destination and the nexthop are not of one IP version")
		case !slices.ContainsFunc(connected, func(c netip.Prefix) bool { return c.Contains(route.NextHop) }):
			return invalidRoutes(r, "the nexthop is not connected with router")
		case own[route.NextHop]:
			return invalidRoutes(r, "the nexthop is used by router")
		}
	}
	return nil
}

func invalidRoutes(r *Router, why string) *Error {
	texts := make([]string, len(r.Routes))
	for i, route := range r.Routes {
		texts[i] = fmt.Sprintf("{'destination': '%s', 'nexthop': '%s'}", route.Destination, route.NextHop)
	}
	return Errorf(Invalid, "InvalidRoutes", "Invalid format for routes: [%s], %s", strings.Join(texts, ", "), why)
}

// AddRouterInterface attaches a router to a subnet, with the subnet's gateway
// address, or by a port that has no device yet; the other argument is "". It
// returns the port. An IPv6 subnet joins the router's port on its network, if
// there is one with IPv6.
func (tx *Tx) AddRouterInterface(routerID, subnetID, portID string) (*Port, error) {
	r := tx.Router(routerID)
	if r == nil {
		return nil, routerNotFound(routerID)
	}
	var p *Port
	var err error
	switch {
	case subnetID != "" && portID != "":
		return nil, badRequest("router", "Cannot specify both subnet-id and port-id")
	case portID != "":
		p, err = tx.attachPort(r, portID)
	case subnetID != "":
		p, err = tx.attachSubnet(r, subnetID)
	default:
		return nil, badRequest("router", "Either subnet_id or port_id must be specified")
	}
	if err != nil {
		return nil, err
	}
	if err := tx.touchRouter(r); err != nil {
		return nil, err
	}
	return p, tx.settleRouter(r.ID, nil)
}

func (tx *Tx) attachSubnet(r *Router, subnetID string) (*Port, error) {
	s := tx.Subnet(subnetID)
	if s == nil {
		return nil, subnetNotFound(subnetID)
	}
	if !s.GatewayIP.IsValid() {
		return nil, badRequest("router", "Subnet for router interface must have a gateway IP")
	}
	if err := s.checkRoutable(); err != nil {
		return nil, err
	}
	if err := tx.checkRouterSubnets(r, []*Subnet{s}, nil); err != nil {
		return nil, err
	}
	ip := FixedIP{s.ID, s.GatewayIP}
	if p := tx.ipv6Interface(r, s.NetworkID); p != nil && s.IPVersion == 6 {
		return tx.addPrefix(p, ip)
	}
	p := &Port{
		Standard:     Standard{ProjectID: r.ProjectID},
		NetworkID:    s.NetworkID,
		DeviceOwner:  OwnerRouterInterface,
		DeviceID:     r.ID,
		AdminStateUp: true,
		FixedIPs:     []FixedIP{ip},
	}
	return p, tx.createPort(p)
}

// checkRoutable refuses a subnet that another router advertises.
func (s *Subnet) checkRoutable() error {
	if s.IPVersion == 6 && s.IPv6RAMode == "" && s.IPv6AddressMode != "" {
		return badRequest("router", "IPv6 subnet %s configured to receive RAs from an external router cannot be added to Neutron Router.", s.ID)
	}
	return nil
}

func (p *Port) hasIPv6() bool {
	return slices.ContainsFunc(p.FixedIPs, func(f FixedIP) bool { return f.IP.Is6() })
}

// ipv6Interface is the interface of a router on a network that has IPv6, or nil.
func (tx *Tx) ipv6Interface(r *Router, networkID string) *Port {
	for p := range tx.InterfacesOf(r.ID) {
		if p.NetworkID == networkID && p.hasIPv6() {
			return p
		}
	}
	return nil
}

func (tx *Tx) addPrefix(old *Port, ip FixedIP) (*Port, error) {
	p := old.Clone()
	p.FixedIPs = append(p.FixedIPs, ip)
	ips, err := tx.completeAddresses(p, old.FixedIPs)
	if err != nil {
		return nil, err
	}
	if err := tx.setAddresses(old, ips); err != nil {
		return nil, err
	}
	return tx.Port(p.ID), nil
}

func (tx *Tx) attachPort(r *Router, portID string) (*Port, error) {
	old := tx.Port(portID)
	if old == nil {
		return nil, portNotFound(portID)
	}
	if old.DeviceID != "" {
		return nil, portInUse(old)
	}
	if err := tx.checkInterface(r, old); err != nil {
		return nil, err
	}
	p := old.Clone()
	p.DeviceID, p.DeviceOwner = r.ID, OwnerRouterInterface
	p.PortSecurityEnabled, p.AllowedAddressPairs, p.SecurityGroups = false, nil, nil
	tx.bump(&p.Standard, old.Standard)
	if err := tx.put(p); err != nil {
		return nil, err
	}
	return p, tx.settlePort(old, p)
}

// checkInterface validates the addresses of a port as those of an interface.
func (tx *Tx) checkInterface(r *Router, p *Port) error {
	if len(p.FixedIPs) == 0 {
		return badRequest("router", "Router port must have at least one fixed IP")
	}
	if other := tx.ipv6Interface(r, p.NetworkID); other != nil && other.ID != p.ID && p.hasIPv6() {
		return badRequest("router", "Router already contains IPv6 port %s belonging to network id %s. "+
			"Only one IPv6 port from the same network subnet can be connected to a router.", other.ID, p.NetworkID)
	}
	var subnets []*Subnet
	v4 := 0
	for _, f := range p.FixedIPs {
		s := tx.Subnet(f.SubnetID)
		if err := s.checkRoutable(); err != nil {
			return err
		}
		subnets = append(subnets, s)
		if s.IPVersion == 4 {
			v4++
		}
	}
	if err := tx.checkRouterSubnets(r, subnets, p); err != nil {
		return err
	}
	if v4 > 1 {
		return badRequest("router", "Cannot have multiple IPv4 subnets on router port")
	}
	return nil
}

// RemoveRouterInterface detaches a router from a subnet, or from all those of
// a port; when both are given, the port must be on the subnet. It returns the
// port as it was; the port is deleted, unless other subnets remain on it.
func (tx *Tx) RemoveRouterInterface(routerID, subnetID, portID string) (*Port, error) {
	r := tx.Router(routerID)
	if r == nil {
		return nil, routerNotFound(routerID)
	}
	p, err := tx.interfaceOf(r, subnetID, portID)
	if err != nil {
		return nil, err
	}
	var left []FixedIP
	gone := p.FixedIPs
	if portID == "" {
		left = without(p.FixedIPs, subnetID)
		gone = slices.DeleteFunc(slices.Clone(gone), func(f FixedIP) bool { return f.SubnetID != subnetID })
	}
	for _, f := range gone {
		if err := tx.checkDetach(r, tx.Subnet(f.SubnetID)); err != nil {
			return nil, err
		}
	}
	// Before the port goes: it may be one that was wired itself.
	before := tx.routerPlaces(r.ID)
	if err := tx.detach(p, left); err != nil {
		return nil, err
	}
	if err := tx.touchRouter(r); err != nil {
		return nil, err
	}
	return p, tx.settleRouter(r.ID, before)
}

// interfaceOf finds an interface of a router by its port, by a subnet, or by both.
func (tx *Tx) interfaceOf(r *Router, subnetID, portID string) (*Port, error) {
	switch {
	case portID == "" && subnetID == "":
		return nil, badRequest("router", "Either subnet_id or port_id must be specified")
	case portID == "":
		return tx.interfaceOnSubnet(r, subnetID)
	}
	p := tx.Port(portID)
	if p == nil || !p.isRouter() || p.DeviceID != r.ID {
		return nil, Errorf(NotFound, "RouterInterfaceNotFound",
			"Router %s does not have an interface with id %s", r.ID, portID)
	}
	if subnetID != "" && !containsSubnet(p.FixedIPs, subnetID) {
		return nil, Errorf(Invalid, "SubnetMismatchForPort",
			"Subnet on port %s does not match the requested subnet %s.", portID, subnetID)
	}
	return p, nil
}

func (tx *Tx) interfaceOnSubnet(r *Router, subnetID string) (*Port, error) {
	if tx.Subnet(subnetID) == nil {
		return nil, subnetNotFound(subnetID)
	}
	for p := range tx.InterfacesOf(r.ID) {
		if containsSubnet(p.FixedIPs, subnetID) {
			return p, nil
		}
	}
	return nil, Errorf(NotFound, "RouterInterfaceNotFoundForSubnet",
		"Router %s has no interface on subnet %s", r.ID, subnetID)
}

// detach leaves a router interface only some of its addresses, or deletes it.
func (tx *Tx) detach(p *Port, left []FixedIP) error {
	if len(left) > 0 {
		return tx.setAddresses(p, left)
	}
	return tx.removePort(p)
}

// checkDetach sees to it that nothing needs a router's interface on a subnet.
func (tx *Tx) checkDetach(r *Router, s *Subnet) error {
	for f := range tx.FloatingIPsOfRouter(r.ID) {
		if slices.Contains(tx.Port(f.PortID).FixedIPs, FixedIP{s.ID, f.FixedIP}) {
			return Errorf(Conflict, "RouterInterfaceInUseByFloatingIP",
				"Router interface for subnet %s on router %s cannot be deleted, as it is required by one or more floating IPs.",
				s.ID, r.ID)
		}
	}
	for _, route := range r.Routes {
		if s.CIDR.Contains(route.NextHop) {
			return Errorf(Conflict, "RouterInterfaceInUseByRoute",
				"Router interface for subnet %s on router %s cannot be deleted, as it is required by one or more routes.",
				s.ID, r.ID)
		}
	}
	return nil
}

// attached reports whether a port says that it belongs to a router or a
// floating IP that exists.
func (tx *Tx) attached(p *Port) bool {
	switch p.DeviceOwner {
	case OwnerRouterInterface, OwnerRouterGateway:
		return tx.Router(p.DeviceID) != nil
	case OwnerFloatingIP:
		return tx.FloatingIP(p.DeviceID) != nil
	}
	return false
}

// checkDevice keeps ports from coming to a router or a floating IP, or leaving
// it, but by its own calls.
func (tx *Tx) checkDevice(old, p *Port) error {
	if p.DeviceID == old.DeviceID && p.DeviceOwner == old.DeviceOwner {
		return nil
	}
	if tx.attached(old) {
		return portInUse(old)
	}
	if tx.attached(p) {
		return deviceNotOwned(p.DeviceID)
	}
	return nil
}

// checkReaddressed validates the new addresses of a port, which is written
// already, for the router and the floating IPs that it has to do with.
func (tx *Tx) checkReaddressed(old, p *Port) error {
	if slices.Equal(old.FixedIPs, p.FixedIPs) {
		return nil
	}
	for f := range tx.FloatingIPsOfPort(p.ID) {
		if !hasAddress(p.FixedIPs, f.FixedIP) {
			return Errorf(Conflict, "FipAssociated",
				"Unable to complete the operation on port %q because the port still has an associated floating IP.", p.ID)
		}
	}
	if !tx.attached(p) {
		return nil
	}
	if p.DeviceOwner == OwnerFloatingIP {
		return portInUse(old)
	}
	r := tx.Router(p.DeviceID)
	if p.DeviceOwner == OwnerRouterGateway {
		if err := tx.checkGatewayPort(r, p); err != nil {
			return err
		}
		return tx.checkRouterRoutes(r)
	}
	for _, f := range old.FixedIPs {
		if containsSubnet(p.FixedIPs, f.SubnetID) {
			continue
		}
		if err := tx.checkDetach(r, tx.Subnet(f.SubnetID)); err != nil {
			return err
		}
	}
	if err := tx.checkInterface(r, p); err != nil {
		return err
	}
	return tx.checkRouterRoutes(r)
}

func hasAddress(ips []FixedIP, ip netip.Addr) bool {
	return slices.ContainsFunc(ips, func(f FixedIP) bool { return f.IP == ip })
}
