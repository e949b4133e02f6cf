package network

import (
	"iter"
	"net/netip"
	"slices"
)

// AddressHolder says which port holds an address that may be with one port or
// another: a virtual address (VRRP) that allowed address pairs name, or any that
// a port without port security uses. The port said so by ARP. It stays until
// another port says it, also across a restart of the controller.
type AddressHolder struct {
	NetworkID string     `json:"network_id"`
	IP        netip.Addr `json:"ip_address"`
	PortID    string     `json:"port_id"`
	MAC       MAC        `json:"mac_address"`
}

// ObjectKind implements Object.
func (*AddressHolder) ObjectKind() Kind { return KindAddressHolder }

// ObjectID implements Object.
func (h *AddressHolder) ObjectID() string { return addressKey(h.NetworkID, h.IP) }

// maxHeldAddresses bounds the addresses that one port holds.
const maxHeldAddresses = 64

// AddressHolder returns who holds an address of a network, nil where nobody is
// known to who is plugged and may hold it still.
func (v *View) AddressHolder(networkID string, ip netip.Addr) *AddressHolder {
	h := byID[AddressHolder](v, KindAddressHolder, addressKey(networkID, ip))
	if h == nil || !v.stillHolds(h) {
		return nil
	}
	return h
}

func (v *View) stillHolds(h *AddressHolder) bool {
	p := v.Port(h.PortID)
	return p != nil && p.NetworkID == h.NetworkID && v.MayHold(p, h.IP, h.MAC)
}

// AddressHolders are all that are known, also those that may not hold their
// address any more.
func (v *View) AddressHolders() iter.Seq[*AddressHolder] {
	return all[AddressHolder](v, KindAddressHolder)
}

// AddressHoldersOf are the holders of addresses of a network.
func (v *View) AddressHoldersOf(networkID string) iter.Seq[*AddressHolder] {
	return func(yield func(*AddressHolder) bool) {
		for h := range list[AddressHolder](v, KindAddressHolder, IndexAddressHoldersOf, networkID) {
			if v.stillHolds(h) && !yield(h) {
				return
			}
		}
	}
}

// heldBy are the addresses that a port held last.
func (v *View) heldBy(portID string) iter.Seq[*AddressHolder] {
	return list[AddressHolder](v, KindAddressHolder, indexHeldBy, portID)
}

// MayHold reports whether a port that is plugged may say that it holds an
// address, with a MAC: it may send from both, and from nobody else's address that
// it does not share.
func (v *View) MayHold(p *Port, ip netip.Addr, mac MAC) bool {
	if p.Service() || !p.AdminStateUp || !p.sendsFrom(ip, mac) || v.WiredHost(p) == "" {
		return false
	}
	switch owner := v.PortByIP(p.NetworkID, ip); {
	case owner == nil:
		return v.onSubnet(p.NetworkID, ip)
	case owner.ID == p.ID:
		return true
	default:
		return p.shares(ip, v.WiredHost(owner) == "") && !owner.Service()
	}
}

// shares reports whether a port may hold an address of another one. Who has an
// address pair of just this address may. Who may use it among others may only
// while nothing is plugged for the address's own port, which reserves it then: a
// port that routes for a whole prefix doesn't own its neighbours' addresses.
func (p *Port) shares(ip netip.Addr, reserved bool) bool {
	if !p.PortSecurityEnabled {
		return reserved
	}
	return slices.ContainsFunc(p.AllowedAddressPairs, func(pair AddressPair) bool {
		return pair.IP.Contains(ip) && (reserved || pair.IP.IsSingleIP())
	})
}

// sendsFrom reports whether port security lets a port send from an address.
func (p *Port) sendsFrom(ip netip.Addr, mac MAC) bool {
	if !p.PortSecurityEnabled || mac == p.MAC && hasAddress(p.FixedIPs, ip) {
		return true
	}
	return slices.ContainsFunc(p.AllowedAddressPairs, func(pair AddressPair) bool {
		return pair.MAC == mac && pair.IP.Contains(ip)
	})
}

// AddressMoves reports whether an address of a network may be with one port or
// another: it is no port's fixed address, or one that another port shares.
func (v *View) AddressMoves(networkID string, ip netip.Addr) bool {
	if owner := v.PortByIP(networkID, ip); owner != nil {
		return v.AddressShared(owner, ip)
	}
	return v.onSubnet(networkID, ip)
}

func (v *View) onSubnet(networkID string, ip netip.Addr) bool {
	for s := range v.SubnetsOf(networkID) {
		if s.CIDR.Contains(ip) {
			return true
		}
	}
	return false
}

// AddressShared reports whether the address pairs of another port, or that it has
// no port security, let it hold a fixed address of a port.
func (v *View) AddressShared(owner *Port, ip netip.Addr) bool {
	if owner.Service() {
		return false
	}
	reserved := v.WiredHost(owner) == ""
	for p := range v.PairPortsOf(owner.NetworkID) {
		if p.ID != owner.ID && p.shares(ip, reserved) {
			return true
		}
	}
	if !reserved {
		return false
	}
	for p := range v.LoosePortsOf(owner.NetworkID) {
		if p.ID != owner.ID && p.shares(ip, reserved) {
			return true
		}
	}
	return false
}

// SetAddressHolder notes which port holds an address, if the port may.
func (tx *Tx) SetAddressHolder(h AddressHolder) error {
	if !tx.stillHolds(&h) {
		return invalidInput("port %s may not hold %s at %s", h.PortID, h.IP, h.MAC)
	}
	if old := byID[AddressHolder](tx.View, KindAddressHolder, h.ObjectID()); old != nil && *old == h {
		return nil
	}
	held := 0
	for other := range tx.heldBy(h.PortID) {
		if other.ObjectID() != h.ObjectID() {
			held++
		}
	}
	if held >= maxHeldAddresses {
		return invalidInput("port %s holds %d addresses, which is the maximum", h.PortID, held)
	}
	return tx.put(&h)
}

// DeleteAddressHolder forgets that a port holds an address, unless another one
// holds it by now.
func (tx *Tx) DeleteAddressHolder(h AddressHolder) {
	if is := byID[AddressHolder](tx.View, KindAddressHolder, h.ObjectID()); is != nil && *is == h {
		tx.remove(KindAddressHolder, h.ObjectID())
	}
}

// settleHeld forgets that a port holds what it may not send from any more.
func (tx *Tx) settleHeld(portID string) {
	p := tx.Port(portID)
	for _, h := range slices.Collect(tx.heldBy(portID)) {
		if p == nil || !p.sendsFrom(h.IP, h.MAC) {
			tx.remove(KindAddressHolder, h.ObjectID())
		}
	}
}
