package network

import (
	"cmp"
	"net/netip"
	"slices"
)

func addressesExhausted(networkID string) *Error {
	return Errorf(Conflict, "IpAddressGenerationFailure", "No more IP addresses available on network %s.", networkID)
}

// automaticAddresses chooses the addresses of a port that did not ask for any:
// one of an IPv4 subnet, one of an IPv6 subnet, and those that follow from the
// MAC on all subnets where they do.
func (tx *Tx) automaticAddresses(p *Port) ([]FixedIP, error) {
	all := slices.Collect(tx.SubnetsOf(p.NetworkID))
	slices.SortFunc(all, func(a, b *Subnet) int {
		return cmp.Or(a.CreatedAt.Compare(b.CreatedAt), a.CIDR.Addr().Compare(b.CIDR.Addr()))
	})
	var v4, v6, eui64 []*Subnet
	for _, s := range all {
		switch {
		case !s.serves(p.DeviceOwner):
		case s.EUI64():
			eui64 = append(eui64, s)
		case s.IPVersion == 4:
			v4 = append(v4, s)
		default:
			v6 = append(v6, s)
		}
	}
	if len(all) > 0 && len(v4)+len(v6)+len(eui64) == 0 {
		return nil, Errorf(Conflict, "IpAddressGenerationFailureNoMatchingSubnet",
			"No valid service subnet for the given device owner, network %s, service type %s.", p.NetworkID, p.DeviceOwner)
	}
	var ips []FixedIP
	for _, subnets := range [][]*Subnet{v4, v6} {
		if len(subnets) == 0 {
			continue
		}
		f, ok := tx.nextOf(subnets)
		if !ok {
			return nil, addressesExhausted(p.NetworkID)
		}
		ips = append(ips, f)
	}
	if p.isRouter() {
		return ips, nil
	}
	for _, s := range eui64 {
		ips = append(ips, FixedIP{s.ID, eui64Address(s.CIDR, p.MAC)})
	}
	return ips, nil
}

// serves reports whether ports of a device owner may take an address of the
// subnet without naming it.
func (s *Subnet) serves(deviceOwner string) bool {
	return len(s.ServiceTypes) == 0 || deviceOwner == OwnerDHCP || slices.Contains(s.ServiceTypes, deviceOwner)
}

func (tx *Tx) nextOf(subnets []*Subnet) (FixedIP, bool) {
	for _, s := range subnets {
		if ip, ok := tx.nextAddress(s, nil); ok {
			return FixedIP{s.ID, ip}, true
		}
	}
	return FixedIP{}, false
}

// eui64Address is the address that a host makes of its MAC (RFC 4291, appendix A).
func eui64Address(prefix netip.Prefix, m MAC) netip.Addr {
	a := prefix.Addr().As16()
	a[8], a[9], a[10], a[11] = m[0]^2, m[1], m[2], 0xff
	a[12], a[13], a[14], a[15] = 0xfe, m[3], m[4], m[5]
	return netip.AddrFrom16(a)
}

// nextAddress finds the next free address in the pools of a subnet, after the
// one that was given out last. Addresses in taken count as used.
func (tx *Tx) nextAddress(s *Subnet, taken []FixedIP) (netip.Addr, bool) {
	a := tx.s.alloc
	if _, full := a.full[s.ID]; full {
		return netip.Addr{}, false
	}
	free := func(ip netip.Addr) bool {
		f := FixedIP{s.ID, ip}
		_, used := tx.claimant(spaceIP, ipKey(f))
		return !used && !slices.Contains(taken, f)
	}
	last := a.ips[s.ID]
	ip, ok := firstFreeAddress(s.AllocationPools, func(ip netip.Addr) bool { return last.Less(ip) }, last, free)
	if !ok && last.IsValid() {
		ip, ok = firstFreeAddress(s.AllocationPools, func(ip netip.Addr) bool { return !last.Less(ip) }, netip.Addr{}, free)
	}
	switch {
	case ok:
		a.ips[s.ID] = ip
	case len(taken) == 0:
		a.full[s.ID] = struct{}{}
	}
	return ip, ok
}

// firstFreeAddress goes through the part of the pools that lies after last, or
// all of it if last is zero, while the addresses are within.
func firstFreeAddress(pools []Range, within func(netip.Addr) bool, last netip.Addr, free func(netip.Addr) bool) (netip.Addr, bool) {
	for _, r := range pools {
		ip := r.Start
		if last.IsValid() && !last.Less(ip) {
			ip = last.Next()
		}
		for ; ip.IsValid() && !r.End.Less(ip) && within(ip); ip = ip.Next() {
			if free(ip) {
				return ip, true
			}
		}
	}
	return netip.Addr{}, false
}

// completeAddresses turns what a request says about addresses into addresses.
// Those that the port had stay as they are; an entry with only a subnet keeps
// an address that the port had there.
func (tx *Tx) completeAddresses(p *Port, had []FixedIP) ([]FixedIP, error) {
	if slices.Equal(p.FixedIPs, had) {
		return p.FixedIPs, nil
	}
	if len(p.FixedIPs) > tx.s.cfg.MaxFixedIPsPerPort && !p.Service() {
		return nil, invalidInput("Exceeded maximum amount of fixed ips per port")
	}
	ips := slices.Clone(p.FixedIPs)
	for i, f := range ips {
		if !f.IP.IsValid() || slices.Contains(had, f) {
			continue
		}
		s, err := tx.subnetFor(p, f)
		if err != nil {
			return nil, err
		}
		if err := s.checkAddress(p, f.IP); err != nil {
			return nil, err
		}
		ips[i].SubnetID = s.ID
	}
	for i, f := range ips {
		if f.IP.IsValid() {
			continue
		}
		ip, err := tx.addressIn(p, f.SubnetID, ips, had)
		if err != nil {
			return nil, err
		}
		ips[i].IP = ip
	}
	return ips, checkDistinct(ips)
}

func checkDistinct(ips []FixedIP) error {
	for i, f := range ips {
		if slices.Contains(ips[:i], f) {
			return invalidInput("Duplicate IP address '%s'", f.IP)
		}
	}
	return nil
}

// subnetFor finds the subnet that an explicit address belongs to.
func (tx *Tx) subnetFor(p *Port, f FixedIP) (*Subnet, error) {
	if f.SubnetID != "" {
		s, err := tx.subnetOfPort(p, f.SubnetID)
		if err != nil {
			return nil, err
		}
		if !s.CIDR.Contains(f.IP) || !s.hosts().Contains(f.IP) {
			return nil, Errorf(Invalid, "InvalidIpForSubnet", "IP address %s is not a valid IP for the specified subnet.", f.IP)
		}
		return s, nil
	}
	for s := range tx.SubnetsOf(p.NetworkID) {
		if s.CIDR.Contains(f.IP) && s.hosts().Contains(f.IP) {
			return s, nil
		}
	}
	return nil, Errorf(Invalid, "InvalidIpForNetwork",
		"IP address %s is not a valid IP for any of the subnets on the specified network.", f.IP)
}

func (tx *Tx) subnetOfPort(p *Port, id string) (*Subnet, error) {
	if id == "" {
		return nil, invalidInput("IP allocation requires subnet_id or ip_address")
	}
	s := tx.Subnet(id)
	if s == nil {
		return nil, subnetNotFound(id)
	}
	if s.NetworkID != p.NetworkID {
		return nil, invalidInput("Failed to create port on network %s, because fixed_ips included invalid subnet %s", p.NetworkID, id)
	}
	return s, nil
}

// checkAddress validates an explicit address that a port did not have yet.
func (s *Subnet) checkAddress(p *Port, ip netip.Addr) error {
	if s.EUI64() && !p.isRouter() && ip != eui64Address(s.CIDR, p.MAC) {
		return Errorf(Invalid, "AllocationOnAutoAddressSubnet",
			"IPv6 address %s cannot be directly assigned to a port on subnet %s as the subnet is configured for automatic addresses",
			ip, s.ID)
	}
	return nil
}

// addressIn chooses an address in a subnet.
func (tx *Tx) addressIn(p *Port, subnetID string, ips, had []FixedIP) (netip.Addr, error) {
	s, err := tx.subnetOfPort(p, subnetID)
	if err != nil {
		return netip.Addr{}, err
	}
	for _, f := range had {
		if f.SubnetID == subnetID && !slices.Contains(ips, f) {
			return f.IP, nil
		}
	}
	if s.EUI64() && !p.isRouter() {
		return eui64Address(s.CIDR, p.MAC), nil
	}
	ip, ok := tx.nextAddress(s, ips)
	if !ok {
		return netip.Addr{}, addressesExhausted(p.NetworkID)
	}
	return ip, nil
}

// addAutomaticAddresses gives the ports of a network their address on a new
// subnet where it follows from the MAC.
func (tx *Tx) addAutomaticAddresses(s *Subnet) error {
	if !s.EUI64() {
		return nil
	}
	for _, p := range slices.Collect(tx.PortsOf(s.NetworkID)) {
		if p.isRouter() || p.DeviceOwner == OwnerDHCP || p.DeviceOwner == OwnerFloatingIP || !tx.fits(p, s) {
			continue
		}
		ips := append(slices.Clone(p.FixedIPs), FixedIP{s.ID, eui64Address(s.CIDR, p.MAC)})
		if err := tx.setAddresses(p, ips); err != nil {
			return err
		}
	}
	return nil
}

// withAutomaticAddresses adds those that a port had and that follow from its
// MAC: the VM gives itself such an address, whether it is asked for or not.
func (tx *Tx) withAutomaticAddresses(p *Port, ips, had []FixedIP) []FixedIP {
	if p.isRouter() {
		return ips
	}
	for _, f := range had {
		if s := tx.Subnet(f.SubnetID); s.EUI64() && !containsSubnet(ips, s.ID) {
			ips = append(slices.Clone(ips), f)
		}
	}
	return ips
}

// moveAutomaticAddresses changes those addresses of a port that follow from its MAC.
func (tx *Tx) moveAutomaticAddresses(p *Port, from MAC) {
	for i, f := range p.FixedIPs {
		s := tx.Subnet(f.SubnetID)
		if s != nil && s.EUI64() && f.IP == eui64Address(s.CIDR, from) {
			p.FixedIPs[i].IP = eui64Address(s.CIDR, p.MAC)
		}
	}
}

func (tx *Tx) setAddresses(old *Port, ips []FixedIP) error {
	p := old.Clone()
	p.FixedIPs = orNil(ips)
	tx.bump(&p.Standard, old.Standard)
	if err := tx.put(p); err != nil {
		return err
	}
	return tx.disassociateFrom(p.ID, p.FixedIPs)
}
