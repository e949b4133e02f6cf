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
// gateway there, or leads by an extra route to one that joins it, or the network
// is external and its own. The id of a router stands for its transit segment.
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
		for _, id := range tx.leadingTo(p.DeviceID) {
			if tx.routes(id) && (tx.MayHaveGateway(id, host) || tx.routesFrom(id, networkID, host)) {
				return true
			}
		}
	}
	return false
}

// routesFrom reports whether a router joins a network that is wired on a host,
// other than one.
func (tx *Tx) routesFrom(routerID, except, host string) bool {
	for p := range tx.InterfacesOf(routerID) {
		if p.NetworkID != except && tx.wiredOn(p.NetworkID, host) {
			return true
		}
	}
	return false
}

// leadingTo lists a router and those whose extra routes lead to it, directly or
// over others: what they route comes to it on the host of the sender.
func (v *View) leadingTo(routerID string) []string {
	ids := []string{routerID}
	for i := 0; i < len(ids); i++ {
		for p := range v.InterfacesOf(ids[i]) {
			for _, f := range p.FixedIPs {
				for r := range v.RoutersVia(f.IP) {
					if !slices.Contains(ids, r.ID) && slices.Contains(v.networksOf(r.ID), p.NetworkID) {
						ids = append(ids, r.ID)
					}
				}
			}
		}
	}
	return ids
}

// ledTo lists a router and those to which its extra routes lead, directly or
// over others.
func (v *View) ledTo(routerID string) []string {
	ids := []string{routerID}
	for i := 0; i < len(ids); i++ {
		r := v.Router(ids[i])
		if r == nil {
			continue
		}
		for _, route := range r.Routes {
			for _, networkID := range v.networksOf(r.ID) {
				p := v.PortByIP(networkID, route.NextHop)
				if p != nil && p.isRouter() && !slices.Contains(ids, p.DeviceID) {
					ids = append(ids, p.DeviceID)
				}
			}
		}
	}
	return ids
}

// routedWith lists the other networks of the routers of a network and of those
// to which they lead, and the routers for their transit segments.
func (tx *Tx) routedWith(networkID string) []string {
	var ids []string
	for p := range tx.RouterPortsOf(networkID) {
		for _, id := range tx.ledTo(p.DeviceID) {
			if tx.Router(id) != nil {
				ids = append(append(ids, tx.networksOf(id)...), id)
			}
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
