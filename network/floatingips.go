package network

import (
	"net/netip"
	"reflect"
	"slices"
)

func floatingIPNotFound(id string) *Error {
	return Errorf(NotFound, "FloatingIPNotFound", "Floating IP %s could not be found", id)
}

// CreateFloatingIP takes an address of an external network: Address, or one of
// SubnetID, or any. With PortID it is associated with FixedIP, or with the only
// IPv4 address of the port. The rest is filled in.
func (tx *Tx) CreateFloatingIP(f *FloatingIP) error {
	tx.begin(&f.Standard)
	if tx.FloatingIP(f.ID) != nil {
		return idTaken(KindFloatingIP, f.ID)
	}
	if err := tx.createFloatingPort(f); err != nil {
		return err
	}
	f.SubnetID = ""
	if err := tx.associate(f); err != nil {
		return err
	}
	key, err := tx.smallID(spaceFloatKey)
	if err != nil {
		return err
	}
	f.Key = key
	f.trim()
	if err := tx.put(f.Clone()); err != nil {
		return err
	}
	if err := tx.settleAssociation(f.FloatingNetworkID, f.PortID); err != nil {
		return err
	}
	return tx.forgetTranslations(f)
}

// createFloatingPort makes the port that has the address.
func (tx *Tx) createFloatingPort(f *FloatingIP) error {
	n := tx.Network(f.FloatingNetworkID)
	if n == nil {
		return networkNotFound(f.FloatingNetworkID)
	}
	if !n.External {
		return badRequest("floatingip", "Network %s is not a valid external network", n.ID)
	}
	ip, err := tx.floatingAddress(f)
	if err != nil {
		return err
	}
	p := &Port{
		NetworkID:    n.ID,
		DeviceOwner:  OwnerFloatingIP,
		DeviceID:     f.ID,
		AdminStateUp: true,
		FixedIPs:     []FixedIP{ip},
	}
	if err := tx.createPort(p); err != nil {
		return err
	}
	f.FloatingPortID, f.Address = p.ID, p.FixedIPs[0].IP
	if !f.Address.Is4() {
		return externalAddressExhausted(n.ID)
	}
	return tx.checkNotGateway("floatingip", p)
}

func externalAddressExhausted(networkID string) *Error {
	return Errorf(Invalid, "ExternalIpAddressExhausted",
		"Unable to find any IP address on external network %s.", networkID)
}

// floatingAddress is what a floating IP wants, or the next free IPv4 address.
func (tx *Tx) floatingAddress(f *FloatingIP) (FixedIP, error) {
	var serving []*Subnet
	any4 := false
	for s := range tx.SubnetsOf(f.FloatingNetworkID) {
		if s.IPVersion != 4 {
			continue
		}
		any4 = true
		if s.serves(OwnerFloatingIP) {
			serving = append(serving, s)
		}
	}
	switch {
	case !any4:
		return FixedIP{}, badRequest("floatingip", "Network %s does not contain any IPv4 subnet", f.FloatingNetworkID)
	case f.SubnetID != "" || f.Address.IsValid():
		return FixedIP{f.SubnetID, f.Address}, nil
	case len(serving) == 0:
		return FixedIP{}, externalAddressExhausted(f.FloatingNetworkID)
	}
	ip, ok := tx.nextOf(serving)
	if !ok {
		return FixedIP{}, addressesExhausted(f.FloatingNetworkID)
	}
	return ip, nil
}

// UpdateFloatingIP replaces a floating IP by a modified copy. Its address and
// network can't change. Without PortID it is disassociated; with a zero FixedIP
// it is associated with the only IPv4 address of the port.
func (tx *Tx) UpdateFloatingIP(f *FloatingIP) error {
	old := tx.FloatingIP(f.ID)
	if old == nil {
		return floatingIPNotFound(f.ID)
	}
	if f.FloatingNetworkID != old.FloatingNetworkID || f.Address != old.Address {
		return invalidInput("the address and the network of floating IP %s can't be changed", f.ID)
	}
	f.FloatingPortID, f.RouterID, f.SubnetID, f.Key = old.FloatingPortID, old.RouterID, "", old.Key
	if f.PortID != old.PortID || f.FixedIP != old.FixedIP {
		if err := tx.associate(f); err != nil {
			return err
		}
	}
	moved := f.PortID != old.PortID || f.FixedIP != old.FixedIP // the address may have been filled in
	if moved {
		tx.remove(KindFloatingIPWired, f.ID)
		if err := tx.forgetTranslations(old); err != nil {
			return err
		}
	}
	f.trim()
	f.ProjectID, f.CreatedAt = old.ProjectID, old.CreatedAt
	f.UpdatedAt, f.RevisionNumber = old.UpdatedAt, old.RevisionNumber
	if reflect.DeepEqual(f, old) {
		return nil
	}
	tx.bump(&f.Standard, old.Standard)
	if err := tx.put(f.Clone()); err != nil {
		return err
	}
	if err := tx.settleAssociation(f.FloatingNetworkID, old.PortID); err != nil {
		return err
	}
	if err := tx.settleAssociation(f.FloatingNetworkID, f.PortID); err != nil || !moved {
		return err
	}
	return tx.forgetTranslations(f)
}

// forgetTranslations makes the host of a floating IP forget whom it stood for:
// connections that go on would lead there for ever. Those of other floating IPs
// of the router go on, since their translation is the same again.
func (tx *Tx) forgetTranslations(f *FloatingIP) error {
	if f.PortID == "" {
		return nil
	}
	return tx.flushZone(RouterDNATZone(f.RouterID), tx.FloatingHost(f))
}

// DeleteFloatingIP gives the address of a floating IP back.
func (tx *Tx) DeleteFloatingIP(id string) error {
	f := tx.FloatingIP(id)
	if f == nil {
		return floatingIPNotFound(id)
	}
	if err := tx.forgetTranslations(f); err != nil {
		return err
	}
	tx.remove(KindFloatingIP, id)
	tx.remove(KindFloatingIPWired, id)
	if err := tx.settleAssociation(f.FloatingNetworkID, f.PortID); err != nil {
		return err
	}
	return tx.removePort(tx.Port(f.FloatingPortID))
}

// associate fills in the fixed address and the router that follow from PortID.
func (tx *Tx) associate(f *FloatingIP) error {
	if f.PortID == "" {
		if f.FixedIP.IsValid() {
			return badRequest("floatingip", "fixed_ip_address cannot be specified without a port_id")
		}
		f.RouterID = ""
		return nil
	}
	p := tx.Port(f.PortID)
	if p == nil {
		return portNotFound(f.PortID)
	}
	fixed, err := p.floatTarget(f.FixedIP)
	if err != nil {
		return err
	}
	r := tx.routerBetween(p, fixed.SubnetID, f.FloatingNetworkID)
	if r == nil {
		return Errorf(NotFound, "ExternalGatewayForFloatingIPNotFound",
			"External network %s is not reachable from subnet %s.  Therefore, cannot associate Port %s with a Floating IP.",
			f.FloatingNetworkID, fixed.SubnetID, p.ID)
	}
	for other := range tx.FloatingIPsOfPort(p.ID) {
		if other.ID != f.ID && other.FixedIP == fixed.IP && other.FloatingNetworkID == f.FloatingNetworkID {
			return Errorf(Conflict, "FloatingIPPortAlreadyAssociated",
				"Cannot associate floating IP %s (%s) with port %s using fixed IP %s, as that fixed IP already has a floating IP on external network %s.",
				f.Address, f.ID, p.ID, fixed.IP, f.FloatingNetworkID)
		}
	}
	f.FixedIP, f.RouterID = fixed.IP, r.ID
	return nil
}

// floatTarget is the address of a port that a floating IP shall stand for.
func (p *Port) floatTarget(wanted netip.Addr) (FixedIP, error) {
	if wanted.IsValid() && !wanted.Is4() {
		return FixedIP{}, badRequest("floatingip",
			"Cannot process floating IP association with %s, since that is not an IPv4 address", wanted)
	}
	var v4 []FixedIP
	for _, f := range p.FixedIPs {
		if f.IP.Is4() && (f.IP == wanted || !wanted.IsValid()) {
			v4 = append(v4, f)
		}
	}
	switch {
	case len(v4) == 1:
		return v4[0], nil
	case wanted.IsValid():
		return FixedIP{}, badRequest("floatingip", "Port %s does not have fixed ip %s", p.ID, wanted)
	case len(v4) == 0:
		return FixedIP{}, badRequest("floatingip", "Cannot add floating IP to port %s that has no fixed IPv4 addresses", p.ID)
	}
	return FixedIP{}, badRequest("floatingip",
		"Port %s has multiple fixed IPv4 addresses.  Must provide a specific IPv4 address when assigning a floating IP", p.ID)
}

// routerBetween finds the router between the subnet of a port and an external
// network: the one with the subnet's gateway address, else the first.
func (tx *Tx) routerBetween(p *Port, subnetID, externalNetworkID string) *Router {
	var first *Router
	gateway := tx.Subnet(subnetID).GatewayIP
	for q := range tx.RouterPortsOf(p.NetworkID) {
		r := tx.Router(q.DeviceID)
		if r == nil || r.ExternalNetworkID != externalNetworkID || !containsSubnet(q.FixedIPs, subnetID) {
			continue
		}
		if slices.Contains(q.FixedIPs, FixedIP{subnetID, gateway}) {
			return r
		}
		if first == nil {
			first = r
		}
	}
	return first
}

// disassociateFrom ends the association of a port's floating IPs, except those
// with the addresses that it keeps.
func (tx *Tx) disassociateFrom(portID string, kept []FixedIP) error {
	for _, old := range slices.Collect(tx.FloatingIPsOfPort(portID)) {
		if hasAddress(kept, old.FixedIP) {
			continue
		}
		if err := tx.forgetTranslations(old); err != nil {
			return err
		}
		f := old.Clone()
		f.PortID, f.FixedIP, f.RouterID = "", netip.Addr{}, ""
		tx.bump(&f.Standard, old.Standard)
		tx.remove(KindFloatingIPWired, f.ID)
		if err := tx.put(f); err != nil {
			return err
		}
		if err := tx.settleAssociation(f.FloatingNetworkID, portID); err != nil {
			return err
		}
	}
	return nil
}

// FloatingIPStatus is ACTIVE when a floating IP stands for an address and its
// host has the flows, else DOWN.
func (v *View) FloatingIPStatus(f *FloatingIP) string {
	if f.PortID == "" || byID[FloatingIPWired](v, KindFloatingIPWired, f.ID) == nil {
		return StatusDown
	}
	return StatusActive
}

// SetFloatingIPWired notes that a floating IP is wired, unless it is gone or
// stands for something else by now.
func (tx *Tx) SetFloatingIPWired(f *FloatingIP) error {
	now := tx.FloatingIP(f.ID)
	if now == nil || now.PortID == "" || now.PortID != f.PortID || now.FixedIP != f.FixedIP || tx.FloatingIPStatus(now) == StatusActive {
		return nil
	}
	return tx.put(&FloatingIPWired{FloatingIPID: f.ID})
}
