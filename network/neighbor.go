package network

import (
	"iter"
	"net/netip"
)

// ExternalNeighbor is the MAC of an address on an external network that is none
// of our ports: of the provider's router, or of a machine beside it. It was
// learnt from an answer on the wire, and is kept until one that is asked again
// does not answer, also across a restart of the controller.
type ExternalNeighbor struct {
	NetworkID string     `json:"network_id"`
	IP        netip.Addr `json:"ip_address"`
	MAC       MAC        `json:"mac_address"`
}

// ObjectKind implements Object.
func (*ExternalNeighbor) ObjectKind() Kind { return KindExternalNeighbor }

// ObjectID implements Object.
func (e *ExternalNeighbor) ObjectID() string { return addressKey(e.NetworkID, e.IP) }

// ExternalNeighbor returns the MAC of an address on an external network, where
// it is known and the address belongs to no port.
func (v *View) ExternalNeighbor(networkID string, ip netip.Addr) (MAC, bool) {
	if v.PortByIP(networkID, ip) != nil {
		return MAC{}, false
	}
	e := byID[ExternalNeighbor](v, KindExternalNeighbor, addressKey(networkID, ip))
	if e == nil {
		return MAC{}, false
	}
	return e.MAC, true
}

// ExternalNeighborsOf are all that were learnt on an external network, also
// those whose addresses have become ports' meanwhile.
func (v *View) ExternalNeighborsOf(networkID string) iter.Seq[*ExternalNeighbor] {
	return list[ExternalNeighbor](v, KindExternalNeighbor, IndexExternalNeighborsOf, networkID)
}

// PutExternalNeighbor notes the MAC of an address on an external network.
func (tx *Tx) PutExternalNeighbor(e ExternalNeighbor) error {
	n := tx.Network(e.NetworkID)
	if n == nil {
		return networkNotFound(e.NetworkID)
	}
	if !n.External || !e.IP.IsValid() || e.MAC == (MAC{}) || e.MAC[0]&1 != 0 {
		return invalidInput("%s at %s is no neighbor on network %s", e.IP, e.MAC, e.NetworkID)
	}
	if old := byID[ExternalNeighbor](tx.View, KindExternalNeighbor, e.ObjectID()); old != nil && *old == e {
		return nil
	}
	return tx.put(&e)
}

// DeleteExternalNeighbor forgets an address on an external network.
func (tx *Tx) DeleteExternalNeighbor(networkID string, ip netip.Addr) {
	tx.remove(KindExternalNeighbor, addressKey(networkID, ip))
}
