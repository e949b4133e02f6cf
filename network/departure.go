package network

import (
	"iter"
	"slices"
)

// Departure says that a network has left a host whose bridges may still have
// flows for it. Its local VLAN is not given to another network before all of
// them have what followed from that: one that lags behind would take the
// other's frames for its own.
type Departure struct {
	NetworkID string `json:"network_id"`
	Host      string `json:"host"`
	VLAN      uint16 `json:"vlan"`
	Revision  uint64 `json:"revision"` // at which the network left
}

// ObjectKind implements Object.
func (*Departure) ObjectKind() Kind { return KindDeparture }

// ObjectID implements Object.
func (d *Departure) ObjectID() string { return PresenceID(d.NetworkID, d.Host) }

// DeparturesOn are the networks that have left a host.
func (v *View) DeparturesOn(host string) iter.Seq[*Departure] {
	return list[Departure](v, KindDeparture, IndexDeparturesOn, host)
}

// EndDepartures frees the local VLANs of networks that have left hosts. The
// bridges of those hosts must all have the revision of the departure. Networks
// that wait for a local VLAN there get one.
func (tx *Tx) EndDepartures(departures []*Departure) error {
	var hosts []string
	for _, d := range departures {
		now := byID[Departure](tx.View, KindDeparture, d.ObjectID())
		if now == nil || *now != *d {
			continue // it came back meanwhile
		}
		tx.remove(KindDeparture, d.ObjectID())
		if !slices.Contains(hosts, d.Host) {
			hosts = append(hosts, d.Host)
		}
	}
	for _, host := range hosts {
		if err := tx.enterWaiting(host); err != nil {
			return err
		}
	}
	return nil
}

// enterWaiting makes networks present that found no local VLAN on a host.
func (tx *Tx) enterWaiting(host string) error {
	done := map[string]bool{}
	for _, v := range slices.Collect(tx.VIFsOn(host)) {
		p := tx.Port(v.PortID)
		if p == nil || done[p.NetworkID] || tx.WiredHost(p) != host && !tx.AwaitedOn(p, host) {
			continue
		}
		done[p.NetworkID] = true
		if err := tx.settlePresence(p.NetworkID, host); err != nil {
			return err
		}
		if !tx.wiredOn(p.NetworkID, host) {
			return nil
		}
		for _, other := range tx.routedWith(p.NetworkID) {
			if err := tx.settleRouted(other, host); err != nil {
				return err
			}
		}
	}
	return nil
}

// enter makes a network present on a host. One that comes back takes the local
// VLAN that it had.
func (tx *Tx) enter(networkID, host string, wired bool) error {
	id := PresenceID(networkID, host)
	if d := byID[Departure](tx.View, KindDeparture, id); d != nil {
		tx.remove(KindDeparture, id)
		return tx.put(&Presence{NetworkID: networkID, Host: host, VLAN: d.VLAN, Wired: wired})
	}
	vlan, ok := tx.s.alloc.number(spaceVLAN+"/"+host, localVLANs, func(n uint32) bool {
		_, used := tx.claimant(spaceVLAN, vlanKey(host, n))
		return !used
	})
	if !ok {
		tx.s.log.Error("no local VLAN is left for another network", "host", host, "network_id", networkID)
		return nil
	}
	return tx.put(&Presence{NetworkID: networkID, Host: host, VLAN: uint16(vlan), Wired: wired})
}

// leave ends the presence of a network on a host; nil is none.
func (tx *Tx) leave(was *Presence) error {
	if was == nil {
		return nil
	}
	tx.remove(KindPresence, was.ObjectID())
	return tx.put(&Departure{NetworkID: was.NetworkID, Host: was.Host, VLAN: was.VLAN, Revision: tx.revision})
}
