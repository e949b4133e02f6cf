package network

import "slices"

// settlePresence makes a network present on a host, or not, after a port of it
// was wired or unwired there, and the networks that routers join with it.
func (tx *Tx) settlePresence(networkID, host string) error {
	if host == "" {
		return nil
	}
	was, is := tx.wiredOn(networkID, host), tx.hasWiredPort(networkID, host)
	if was == is {
		return nil
	}
	if err := tx.placeNetwork(networkID, host, is); err != nil {
		return err
	}
	if tx.wiredOn(networkID, host) == was {
		return nil
	}
	for _, other := range tx.routedWith(networkID) {
		if err := tx.settleRouted(other, host); err != nil {
			return err
		}
	}
	return nil
}

// settlePresences is settlePresence on several hosts.
func (tx *Tx) settlePresences(networkID string, hosts []string) error {
	for i, host := range hosts {
		if slices.Contains(hosts[:i], host) {
			continue
		}
		if err := tx.settlePresence(networkID, host); err != nil {
			return err
		}
	}
	return nil
}

// wiredOn reports whether a network is present on a host by ports of its own.
func (tx *Tx) wiredOn(networkID, host string) bool {
	p := tx.Presence(networkID, host)
	return p != nil && p.Wired
}

func (tx *Tx) hasWiredPort(networkID, host string) bool {
	for p := range tx.PortsOfOn(networkID, host) {
		if tx.WiredHost(p) != "" {
			return true
		}
	}
	for p := range tx.InactivePortsOn(networkID, host) {
		if tx.AwaitedOn(p, host) {
			return true
		}
	}
	return false
}

// settleRouted makes a network present on a host, or not, after something
// changed about the networks that routers join with it.
func (tx *Tx) settleRouted(networkID, host string) error {
	return tx.placeNetwork(networkID, host, tx.wiredOn(networkID, host))
}

// placeNetwork writes or removes the presence of a network on a host.
func (tx *Tx) placeNetwork(networkID, host string, wired bool) error {
	old := tx.Presence(networkID, host)
	switch {
	case !wired && !tx.routedTo(networkID, host):
		if err := tx.leave(old); err != nil {
			return err
		}
		return tx.settleNetworkZones(networkID, host)
	case old == nil:
		if err := tx.enter(networkID, host, wired); err != nil {
			return err
		}
		return tx.settleNetworkZones(networkID, host)
	case old.Wired == wired:
		return nil
	}
	p := *old
	p.Wired = wired
	return tx.put(&p)
}

// routedTo reports whether routers that are up need a network on a host where
// it has no wired ports: one joins it with a network that has, or may have its
// gateway there, or the network is external and its own. The id of a router
// stands for its transit segment.
func (tx *Tx) routedTo(networkID, host string) bool {
	if r := tx.Router(networkID); r != nil {
		return tx.transitOn(r, host)
	}
	if tx.externalOn(networkID, host) {
		return true
	}
	for p := range tx.RouterPortsOf(networkID) {
		if !tx.routes(p.DeviceID) {
			continue
		}
		if tx.MayHaveGateway(p.DeviceID, host) {
			return true
		}
		for q := range tx.InterfacesOf(p.DeviceID) {
			if q.NetworkID != networkID && tx.wiredOn(q.NetworkID, host) {
				return true
			}
		}
	}
	return false
}

// routedWith lists the other networks of the routers of a network, and those
// routers for their transit segments.
func (tx *Tx) routedWith(networkID string) []string {
	var ids []string
	for p := range tx.RouterPortsOf(networkID) {
		if tx.Router(p.DeviceID) != nil {
			ids = append(append(ids, tx.networksOf(p.DeviceID)...), p.DeviceID)
		}
	}
	slices.Sort(ids)
	return slices.DeleteFunc(slices.Compact(ids), func(id string) bool { return id == networkID })
}

// networksOf lists the networks that a router joins.
func (v *View) networksOf(routerID string) []string {
	var ids []string
	for p := range v.InterfacesOf(routerID) {
		if !slices.Contains(ids, p.NetworkID) {
			ids = append(ids, p.NetworkID)
		}
	}
	return ids
}

// place is a network on a host.
type place struct{ networkID, host string }

// settlePlaces settles presences after a router began or ceased to join networks.
func (tx *Tx) settlePlaces(places []place) error {
	for _, at := range places {
		if err := tx.settleRouted(at.networkID, at.host); err != nil {
			return err
		}
	}
	return nil
}
