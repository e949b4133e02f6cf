package network

import (
	"cmp"
	"crypto/rand"
	"net/netip"
	"slices"
)

// maxAddressPairs limits a port's allowed address pairs, as in Neutron.
const maxAddressPairs = 10

// macAttempts is how many random MACs are tried; more collisions than that
// mean that the prefix is used up.
const macAttempts = 64

func portNotFound(id string) *Error {
	return Errorf(NotFound, "PortNotFound", "Port %s could not be found.", id)
}

// idsByAge are the ids of ports, the oldest first as far as their keys tell it,
// so that an error says the same each time.
func idsByAge(ports []*Port) []string {
	slices.SortFunc(ports, func(a, b *Port) int { return cmp.Compare(a.Key, b.Key) })
	ids := make([]string, len(ports))
	for i, p := range ports {
		ids[i] = p.ID
	}
	return ids
}

func (p *Port) isRouter() bool { return p.DeviceOwner == OwnerRouterInterface }

// CreatePort creates a port. FixedIPs nil lets the addresses be chosen, empty
// means none; entries may have only a subnet or only an address. Of Binding,
// Host, VNICType and Profile are input. The ports of routers and floating IPs
// are made with these only.
func (tx *Tx) CreatePort(p *Port) error {
	if tx.attached(p) {
		return deviceNotOwned(p.DeviceID)
	}
	return tx.createPort(p)
}

func (tx *Tx) createPort(p *Port) error {
	tx.begin(&p.Standard)
	if tx.Port(p.ID) != nil {
		return idTaken(KindPort, p.ID)
	}
	n := tx.Network(p.NetworkID)
	if n == nil {
		return networkNotFound(p.NetworkID)
	}
	if err := tx.chooseMAC(p); err != nil {
		return err
	}
	if err := p.checkPairs(); err != nil {
		return err
	}
	if err := tx.checkGroups(nil, p); err != nil {
		return err
	}
	ips, err := tx.firstAddresses(p)
	if err != nil {
		return err
	}
	p.FixedIPs = ips
	p.Binding.ByPlug = false
	if v := tx.anyVIF(p.ID); p.Binding.Host == "" && v != nil {
		p.Binding.Host, p.Binding.ByPlug = v.Host, true
	}
	tx.bind(n, &p.Binding)
	key, err := tx.smallID(spacePortKey)
	if err != nil {
		return err
	}
	p.Key = key
	p.trim()
	if err := tx.put(p.Clone()); err != nil {
		return err
	}
	return tx.settlePort(nil, p)
}

func (tx *Tx) firstAddresses(p *Port) ([]FixedIP, error) {
	if p.FixedIPs == nil {
		return tx.automaticAddresses(p)
	}
	return tx.completeAddresses(p, nil)
}

// anyVIF is an interface that is plugged for a port, the first by host name.
func (tx *Tx) anyVIF(portID string) *VIF {
	for v := range tx.VIFsOf(portID) {
		return v
	}
	return nil
}

// UpdatePort replaces a port by a modified copy. Its network can't change. Of
// Binding, Host, VNICType and Profile are input, and ByPlug may be cleared to
// say that the API wants the host that the plug chose.
func (tx *Tx) UpdatePort(p *Port) error {
	old := tx.Port(p.ID)
	if old == nil {
		return portNotFound(p.ID)
	}
	if p.NetworkID != old.NetworkID {
		return invalidInput("the network of port %s can't be changed", p.ID)
	}
	if err := tx.checkDevice(old, p); err != nil {
		return err
	}
	if err := tx.checkMACChange(old, p); err != nil {
		return err
	}
	if err := p.checkPairs(); err != nil {
		return err
	}
	if err := tx.checkGroups(old, p); err != nil {
		return err
	}
	ips, err := tx.completeAddresses(p, old.FixedIPs)
	if err != nil {
		return err
	}
	p.FixedIPs = tx.withAutomaticAddresses(p, ips, old.FixedIPs)
	if p.MAC != old.MAC {
		tx.moveAutomaticAddresses(p, old.MAC)
	}
	tx.rebind(old, p)
	p.Key = old.Key
	before := tx.interfacePlaces(old)
	if changed, err := replace(tx, old, p); err != nil || !changed {
		return err
	}
	if err := tx.checkReaddressed(old, p); err != nil {
		return err
	}
	if err := tx.settlePort(old, p); err != nil {
		return err
	}
	if before != nil && !slices.Equal(old.FixedIPs, p.FixedIPs) {
		return tx.settlePlaces(append(before, tx.interfacePlaces(p)...))
	}
	if !old.servesDHCP() {
		return nil
	}
	return tx.settleDHCPPort(p.NetworkID)
}

// rebind makes the binding anew when its input changed or it had failed.
func (tx *Tx) rebind(old, p *Port) {
	b, was := &p.Binding, old.Binding
	if b.Host != was.Host {
		b.ByPlug = false
		p.dropInactive(b.Host)
	}
	if b.Host == was.Host && b.VNICType == was.VNICType && was.VIFType != VIFTypeBindingFailed {
		b.VIFType, b.VIFDetails = was.VIFType, was.VIFDetails
		return
	}
	tx.bind(tx.Network(p.NetworkID), b)
}

func (tx *Tx) checkMACChange(old, p *Port) error {
	if p.MAC == old.MAC {
		return nil
	}
	if old.Binding.VIFType == VIFTypeOVS {
		return Errorf(Conflict, "PortBound",
			"Unable to complete operation on port %s, port is already bound, port type: %s, old_mac %s, new_mac %s.",
			p.ID, old.Binding.VIFType, old.MAC, p.MAC)
	}
	return tx.chooseMAC(p)
}

// checkMAC refuses what can't be the address of one interface.
func (p *Port) checkMAC() error {
	if p.MAC == (MAC{}) || p.MAC[0]&1 != 0 {
		return invalidInput("'%s' is not a valid MAC address for a port", p.MAC)
	}
	return nil
}

func (tx *Tx) chooseMAC(p *Port) error {
	if p.MAC != (MAC{}) {
		return p.checkMAC()
	}
	fixed := 3
	if tx.s.cfg.BaseMAC[3] != 0 {
		fixed = 4
	}
	for range macAttempts {
		m := tx.s.cfg.BaseMAC
		_, _ = rand.Read(m[fixed:]) // never fails
		if _, used := tx.claimant(spaceMAC, macKey(p.NetworkID, m)); !used {
			p.MAC = m
			return nil
		}
	}
	return Errorf(Unavailable, "MacAddressGenerationFailure", "Unable to generate unique mac on network %s.", p.NetworkID)
}

// checkPairs validates the allowed address pairs and fills their MACs.
func (p *Port) checkPairs() error {
	if len(p.AllowedAddressPairs) == 0 {
		return nil
	}
	if !p.PortSecurityEnabled {
		return Errorf(Conflict, "AddressPairAndPortSecurityRequired",
			"Port Security must be enabled in order to have allowed address pairs on a port.")
	}
	if len(p.AllowedAddressPairs) > maxAddressPairs {
		return Errorf(Invalid, "AllowedAddressPairExhausted",
			"The number of allowed address pair exceeds the maximum %d.", maxAddressPairs)
	}
	for i := range p.AllowedAddressPairs {
		pair := &p.AllowedAddressPairs[i]
		if !pair.IP.IsValid() {
			return invalidInput("an allowed address pair needs an ip_address")
		}
		if pair.MAC == (MAC{}) {
			pair.MAC = p.MAC
		}
		if slices.Contains(p.AllowedAddressPairs[:i], *pair) {
			return Errorf(Invalid, "DuplicateAddressPairInRequest",
				"Request contains duplicate address pair: mac_address %s ip_address %s.", pair.MAC, pairText(pair.IP))
		}
	}
	return nil
}

func pairText(p netip.Prefix) string {
	if p.IsSingleIP() {
		return p.Addr().String()
	}
	return p.String()
}

// DeletePort deletes a port and releases what it had, its floating IPs among
// it. The port for DHCP comes back, as another one, while its network has DHCP.
// The ports of routers and floating IPs go with these only.
func (tx *Tx) DeletePort(id string) error {
	p := tx.Port(id)
	if p == nil {
		return portNotFound(id)
	}
	if tx.attached(p) {
		return Errorf(Conflict, "ServicePortInUse",
			"Port %s cannot be deleted directly via the port API: has device owner %s.", id, p.DeviceOwner)
	}
	if err := tx.removePort(p); err != nil || !p.servesDHCP() {
		return err
	}
	return tx.settleDHCPPort(p.NetworkID)
}

func (tx *Tx) removePort(p *Port) error {
	tx.remove(KindPort, p.ID)
	tx.remove(KindPortStatus, p.ID)
	tx.settleReadiness(p)
	tx.settleHeld(p.ID)
	if err := tx.disassociateFrom(p.ID, nil); err != nil {
		return err
	}
	if err := tx.settleZone(PortZone(p.ID), p.Binding.Host, false); err != nil {
		return err
	}
	if err := tx.settleGroups(p, nil); err != nil {
		return err
	}
	return tx.settlePresences(p.NetworkID, p.hostsOf())
}

// settlePort does what follows from a port that was written: its status and
// the presence of its network on the hosts that it left and came to.
func (tx *Tx) settlePort(old, p *Port) error {
	if err := tx.settleStatus(old, p); err != nil {
		return err
	}
	if err := tx.settleGroups(old, p); err != nil {
		return err
	}
	if err := tx.settlePortZone(p, p.Binding.Host); err != nil {
		return err
	}
	if old != nil && old.Binding.Host != p.Binding.Host {
		if err := tx.settlePortZone(p, old.Binding.Host); err != nil {
			return err
		}
	}
	if err := tx.settleFloating(p.ID, append(old.hostsOf(), p.hostsOf()...)...); err != nil {
		return err
	}
	tx.settleReadiness(p)
	tx.settleHeld(p.ID)
	return tx.settlePresences(p.NetworkID, append(old.hostsOf(), p.hostsOf()...))
}

func (tx *Tx) settleStatus(old, p *Port) error {
	if p.Service() {
		return tx.putStatus(PortStatus{PortID: p.ID, Status: StatusActive})
	}
	moved := old != nil && (old.Binding.Host != p.Binding.Host || old.Service())
	st := tx.PortStatus(p.ID)
	if moved || st != nil && st.Status == StatusActive && tx.WiredHost(p) == "" {
		tx.remove(KindPortStatus, p.ID)
	}
	return nil
}

func (tx *Tx) putStatus(st PortStatus) error {
	if old := tx.PortStatus(st.PortID); old != nil && *old == st {
		return nil
	}
	return tx.put(&st)
}

// SetPortStatus notes the status of a port. ACTIVE is ignored while nothing is
// plugged for the port on the host that it is bound to.
func (tx *Tx) SetPortStatus(st PortStatus) error {
	p := tx.Port(st.PortID)
	if p == nil {
		return portNotFound(st.PortID)
	}
	switch st.Status {
	case StatusActive:
		if !p.Service() && tx.WiredHost(p) == "" {
			return nil
		}
	case StatusDown:
		if st.Reason == "" {
			tx.remove(KindPortStatus, p.ID)
			return nil
		}
	case StatusError:
	default:
		return invalidInput("'%s' is not a status of a port", st.Status)
	}
	return tx.putStatus(st)
}
