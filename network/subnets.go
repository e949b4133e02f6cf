package network

import (
	"net/netip"
	"slices"
	"strings"
)

// Limits of a subnet's lists, as in Neutron.
const (
	maxNameservers = 5
	maxHostRoutes  = 20
)

func subnetNotFound(id string) *Error {
	return Errorf(NotFound, "SubnetNotFound", "Subnet %s could not be found.", id)
}

// NoGateway, as the GatewayIP given to CreateSubnet, asks for a subnet without
// a gateway; the zero value asks for the first address.
var NoGateway = netip.IPv4Unspecified()

// CreateSubnet creates a subnet. CIDR loses its host bits; with SubnetPoolID it
// must be free there, and is the next free one when it is zero. GatewayIP is the
// first address if it is zero and none if it is NoGateway. AllocationPools are
// everything but gateway, network and broadcast if nil.
func (tx *Tx) CreateSubnet(s *Subnet) error {
	tx.begin(&s.Standard)
	if tx.Subnet(s.ID) != nil {
		return idTaken(KindSubnet, s.ID)
	}
	n := tx.Network(s.NetworkID)
	if n == nil {
		return networkNotFound(s.NetworkID)
	}
	if s.SubnetPoolID != "" {
		if err := tx.allocatePrefix(s, s.PrefixLen); err != nil {
			return err
		}
	}
	s.PrefixLen = 0
	if err := s.normalise(); err != nil {
		return err
	}
	if s.IPVersion == 6 && n.MTU < minMTUv6 {
		return mtuTooSmallForIPv6(n)
	}
	if err := tx.checkOverlap(s); err != nil {
		return err
	}
	if err := tx.checkPoolAffinity(s); err != nil {
		return err
	}
	if err := s.check(); err != nil {
		return err
	}
	s.trim()
	if err := tx.put(s.Clone()); err != nil {
		return err
	}
	if err := tx.touchNetwork(s.NetworkID); err != nil {
		return err
	}
	if err := tx.settleDHCPPort(s.NetworkID); err != nil {
		return err
	}
	if err := tx.addAutomaticAddresses(s); err != nil {
		return err
	}
	return tx.addGatewayAddresses(s)
}

// normalise fills what a new subnet's request left out.
func (s *Subnet) normalise() error {
	if !s.CIDR.IsValid() {
		return invalidInput("a subnet needs a cidr")
	}
	if s.CIDR.Addr().Is4In6() {
		return invalidInput("'%s' is not a valid IP subnet", s.CIDR)
	}
	s.CIDR = s.CIDR.Masked()
	version := 6
	if s.CIDR.Addr().Is4() {
		version = 4
	}
	if s.IPVersion == 0 {
		s.IPVersion = version
	}
	if s.IPVersion != version {
		return invalidInput("%s '%s' does not match the ip_version '%d'", "cidr", s.CIDR, s.IPVersion)
	}
	switch {
	case s.GatewayIP == NoGateway:
		s.GatewayIP = netip.Addr{}
	case !s.GatewayIP.IsValid():
		s.GatewayIP = s.defaultGateway()
	}
	if s.AllocationPools == nil {
		s.AllocationPools = s.defaultPools()
	}
	return nil
}

func (s *Subnet) defaultGateway() netip.Addr {
	if s.CIDR.IsSingleIP() {
		return netip.Addr{}
	}
	return s.CIDR.Addr().Next()
}

// hosts are the addresses that ports can have.
func (s *Subnet) hosts() Range {
	r := Range{s.CIDR.Addr(), lastAddr(s.CIDR)}
	if s.CIDR.Bits() >= s.CIDR.Addr().BitLen()-1 {
		return r
	}
	r.Start = r.Start.Next()
	if s.IPVersion == 4 {
		r.End = r.End.Prev()
	}
	return r
}

func lastAddr(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < 8*len(b); i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// defaultPools are the host addresses without the gateway.
func (s *Subnet) defaultPools() []Range {
	r := s.hosts()
	g := s.GatewayIP
	if !g.IsValid() || !r.Contains(g) {
		return []Range{r}
	}
	pools := []Range{}
	if r.Start.Less(g) {
		pools = append(pools, Range{r.Start, g.Prev()})
	}
	if g.Less(r.End) {
		pools = append(pools, Range{g.Next(), r.End})
	}
	return pools
}

// UpdateSubnet replaces a subnet by a modified copy. CIDR, network, IP version
// and IPv6 modes can't change. A zero GatewayIP is none.
func (tx *Tx) UpdateSubnet(s *Subnet) error {
	old := tx.Subnet(s.ID)
	if old == nil {
		return subnetNotFound(s.ID)
	}
	s.PrefixLen = 0
	if s.NetworkID != old.NetworkID || s.SubnetPoolID != old.SubnetPoolID || s.CIDR != old.CIDR || s.IPVersion != old.IPVersion ||
		s.IPv6AddressMode != old.IPv6AddressMode || s.IPv6RAMode != old.IPv6RAMode {
		return invalidInput("network, subnet pool, cidr, ip_version and IPv6 modes of subnet %s can't be changed", s.ID)
	}
	if s.GatewayIP == NoGateway {
		s.GatewayIP = netip.Addr{}
	}
	if s.AllocationPools == nil {
		s.AllocationPools = s.defaultPools()
	}
	if err := s.check(); err != nil {
		return err
	}
	if err := tx.checkGatewayChange(old, s); err != nil {
		return err
	}
	if changed, err := replace(tx, old, s); err != nil || !changed {
		return err
	}
	delete(tx.s.alloc.full, s.ID)
	if s.EnableDHCP == old.EnableDHCP {
		return nil
	}
	return tx.settleDHCPPort(s.NetworkID)
}

func (tx *Tx) checkGatewayChange(old, s *Subnet) error {
	if s.GatewayIP == old.GatewayIP || !old.GatewayIP.IsValid() {
		return nil
	}
	p := tx.PortByIP(s.NetworkID, old.GatewayIP)
	if p == nil || p.DeviceOwner != OwnerRouterInterface {
		return nil
	}
	return Errorf(Conflict, "GatewayIpInUse",
		"Current gateway ip %s already in use by port %s. Unable to update.", old.GatewayIP, p.ID)
}

// check validates what a subnet says, by itself.
func (s *Subnet) check() error {
	for _, check := range []func() error{s.checkModes, s.checkPools, s.checkGateway, s.checkServers, s.checkRoutes} {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

func (s *Subnet) sameVersion(a netip.Addr) bool { return a.IsValid() && a.Is4() == (s.IPVersion == 4) }

func (s *Subnet) checkPools() error {
	hosts := s.hosts()
	slices.SortFunc(s.AllocationPools, func(a, b Range) int { return a.Start.Compare(b.Start) })
	for i, r := range s.AllocationPools {
		if !s.sameVersion(r.Start) || !s.sameVersion(r.End) || r.End.Less(r.Start) {
			return Errorf(Invalid, "InvalidAllocationPool", "The allocation pool {'start': '%s', 'end': '%s'} is not valid.", r.Start, r.End)
		}
		if !hosts.Contains(r.Start) || !hosts.Contains(r.End) {
			return Errorf(Invalid, "OutOfBoundsAllocationPool",
				"The allocation pool %s spans beyond the subnet cidr %s.", r, s.CIDR)
		}
		if i > 0 && s.AllocationPools[i-1].Contains(r.Start) {
			return Errorf(Conflict, "OverlappingAllocationPools",
				"Found overlapping allocation pools: %s %s for subnet %s.", s.AllocationPools[i-1], r, s.CIDR)
		}
	}
	return nil
}

func (s *Subnet) checkGateway() error {
	g := s.GatewayIP
	if !g.IsValid() {
		return nil
	}
	if !s.sameVersion(g) {
		return invalidInput("gateway_ip '%s' does not match the ip_version '%d'", g, s.IPVersion)
	}
	if s.CIDR.Contains(g) && !s.hosts().Contains(g) || g.IsMulticast() || g.IsLoopback() || g.IsUnspecified() {
		return invalidInput("Gateway is not valid on subnet")
	}
	for _, r := range s.AllocationPools {
		if r.Contains(g) {
			return Errorf(Conflict, "GatewayConflictWithAllocationPools",
				"Gateway ip %s conflicts with allocation pool %s.", g, r)
		}
	}
	return nil
}

func (s *Subnet) checkServers() error {
	if len(s.DNSNameservers) > maxNameservers {
		return Errorf(Invalid, "DNSNameServersExhausted",
			"Unable to complete operation for %s. The number of DNS nameservers exceeds the limit %d.", s.ID, maxNameservers)
	}
	for _, a := range s.DNSNameservers {
		if !s.sameVersion(a) {
			return invalidInput("dns_nameserver '%s' does not match the ip_version '%d'", a, s.IPVersion)
		}
	}
	return nil
}

func (s *Subnet) checkRoutes() error {
	if len(s.HostRoutes) > maxHostRoutes {
		return Errorf(Invalid, "HostRoutesExhausted",
			"Unable to complete operation for %s. The number of host routes exceeds the limit %d.", s.ID, maxHostRoutes)
	}
	for _, r := range s.HostRoutes {
		if !r.Destination.IsValid() || !s.sameVersion(r.Destination.Addr()) || !s.sameVersion(r.NextHop) {
			return invalidInput("host route to '%s' by '%s' does not match the ip_version '%d'", r.Destination, r.NextHop, s.IPVersion)
		}
	}
	return nil
}

func (s *Subnet) checkModes() error {
	modes := []string{"", SLAAC, DHCPv6Stateful, DHCPv6Stateless}
	if !slices.Contains(modes, s.IPv6AddressMode) || !slices.Contains(modes, s.IPv6RAMode) {
		return invalidInput("ipv6_address_mode '%s' and ipv6_ra_mode '%s' must be of %s",
			s.IPv6AddressMode, s.IPv6RAMode, strings.Join(modes[1:], ", "))
	}
	if s.IPv6AddressMode == "" && s.IPv6RAMode == "" {
		return nil
	}
	if s.IPVersion == 4 {
		attribute := "ipv6_ra_mode"
		if s.IPv6RAMode == "" {
			attribute = "ipv6_address_mode"
		}
		return invalidInput("%s is not valid when ip_version is 4", attribute)
	}
	if !s.EnableDHCP {
		return invalidInput("ipv6_ra_mode or ipv6_address_mode cannot be set when enable_dhcp is set to False")
	}
	if s.IPv6AddressMode != "" && s.IPv6RAMode != "" && s.IPv6AddressMode != s.IPv6RAMode {
		return invalidInput("ipv6_ra_mode set to '%s' with ipv6_address_mode set to '%s' is not valid. "+
			"If both attributes are set, they must be the same value", s.IPv6RAMode, s.IPv6AddressMode)
	}
	if s.EUI64() && s.CIDR.Bits() != 64 {
		return invalidInput("Invalid CIDR %s for IPv6 address mode. OpenStack uses the EUI-64 address format, "+
			"which requires the prefix to be /64", s.CIDR)
	}
	return nil
}

func (tx *Tx) checkOverlap(s *Subnet) error {
	for other := range tx.SubnetsOf(s.NetworkID) {
		if other.CIDR.Overlaps(s.CIDR) {
			return invalidInput("Requested subnet with cidr: %s for network: %s overlaps with another subnet", s.CIDR, s.NetworkID)
		}
	}
	if tx.s.cfg.AllowOverlappingIPs {
		return nil
	}
	for other := range tx.Subnets() {
		if other.CIDR.Overlaps(s.CIDR) {
			return invalidInput("Requested subnet with cidr: %s for network: %s overlaps with subnet %s, and allow_overlapping_ips is False",
				s.CIDR, s.NetworkID, other.ID)
		}
	}
	return nil
}

// DeleteSubnet deletes a subnet. Ports with an address of it are in the way,
// except those for DHCP and, where addresses follow from the MAC, all but
// routers: these lose the address.
func (tx *Tx) DeleteSubnet(id string) error {
	s := tx.Subnet(id)
	if s == nil {
		return subnetNotFound(id)
	}
	ports := slices.Collect(tx.PortsOfSubnet(id))
	for _, p := range ports {
		if p.DeviceOwner != OwnerDHCP && (!s.EUI64() || p.isRouter()) {
			return Errorf(Conflict, "SubnetInUse",
				"Unable to complete operation on subnet %s: One or more ports have an IP allocation from this subnet.", id)
		}
	}
	for _, p := range ports {
		if err := tx.setAddresses(p, without(p.FixedIPs, id)); err != nil {
			return err
		}
	}
	tx.removeSubnet(s)
	if err := tx.touchNetwork(s.NetworkID); err != nil {
		return err
	}
	return tx.settleDHCPPort(s.NetworkID)
}

func without(ips []FixedIP, subnetID string) []FixedIP {
	return slices.DeleteFunc(slices.Clone(ips), func(f FixedIP) bool { return f.SubnetID == subnetID })
}

func (tx *Tx) removeSubnet(s *Subnet) {
	tx.remove(KindSubnet, s.ID)
	delete(tx.s.alloc.full, s.ID)
	delete(tx.s.alloc.ips, s.ID)
}
