package network

import (
	"iter"
	"slices"
)

// Zone is a conntrack zone of a host. A port has one on the host that it is
// wired on; a router with a gateway has two on each host where one of its
// networks is present. It stays claimed after its owner left until the host no
// longer has flows that use it and its connections were flushed: the next owner
// must not see them.
type Zone struct {
	Owner  string `json:"owner"` // PortZone, RouterSNATZone or RouterDNATZone
	Host   string `json:"host"`
	Number uint16 `json:"number"` // never 0
	// Ended is the revision at which the owner left, 0 while it is there.
	Ended uint64 `json:"ended,omitempty"`
}

// ObjectKind implements Object.
func (*Zone) ObjectKind() Kind { return KindZone }

// ObjectID implements Object.
func (z *Zone) ObjectID() string { return zoneID(z.Owner, z.Host) }

func zoneID(owner, host string) string { return owner + "@" + host }

// PortZone is the owner of the zone in which the connections of a port are tracked.
func PortZone(portID string) string { return "port/" + portID }

// RouterSNATZone is the owner of the zone in which a router translates to the
// address of its gateway.
func RouterSNATZone(routerID string) string { return "router/" + routerID + "/snat" }

// RouterDNATZone is the owner of the zone in which a router translates floating IPs.
func RouterDNATZone(routerID string) string { return "router/" + routerID + "/dnat" }

// zoneNumbers are the conntrack zones that a host can give out: not 0, in which
// packets are that were tracked by nobody.
var zoneNumbers = []IDRange{{1, 1<<16 - 1}}

// Zone is the number of an owner's conntrack zone on a host, 0 when it has none there.
func (v *View) Zone(owner, host string) uint16 {
	z := byID[Zone](v, KindZone, zoneID(owner, host))
	if z == nil || z.Ended != 0 {
		return 0
	}
	return z.Number
}

// EndedZonesOn are the zones of a host whose owner left.
func (v *View) EndedZonesOn(host string) iter.Seq[*Zone] {
	return list[Zone](v, KindZone, IndexEndedZonesOn, host)
}

// Flush asks for the connections of a conntrack zone to be forgotten once its
// host has what changed at a revision: what they translate to is another's by
// then. The zone goes on.
type Flush struct {
	Host     string `json:"host"`
	Zone     uint16 `json:"zone"`
	Revision uint64 `json:"revision"`
}

// ObjectKind implements Object.
func (*Flush) ObjectKind() Kind { return KindFlush }

// ObjectID implements Object.
func (f *Flush) ObjectID() string { return zoneKey(f.Host, f.Zone) }

// FlushesOn are the zones of a host whose connections shall be forgotten.
func (v *View) FlushesOn(host string) iter.Seq[*Flush] {
	return list[Flush](v, KindFlush, IndexFlushesOn, host)
}

// flushZone makes a host forget the connections of an owner's zone there.
func (tx *Tx) flushZone(owner, host string) error {
	number := tx.Zone(owner, host)
	if number == 0 {
		return nil
	}
	return tx.put(&Flush{Host: host, Zone: number, Revision: tx.revision})
}

// EndFlushes notes that zones were flushed.
func (tx *Tx) EndFlushes(flushed []*Flush) {
	for _, f := range flushed {
		if now := byID[Flush](tx.View, KindFlush, f.ObjectID()); now != nil && *now == *f {
			tx.remove(KindFlush, f.ObjectID())
		}
	}
}

// settleZone gives an owner a zone on a host, or ends the one that it has. One
// that comes back has the number that it had.
func (tx *Tx) settleZone(owner, host string, wanted bool) error {
	old := byID[Zone](tx.View, KindZone, zoneID(owner, host))
	switch {
	case wanted == (old != nil && old.Ended == 0) || !wanted && old == nil:
		return nil
	case old != nil:
		z := *old
		z.Ended = 0
		if !wanted {
			z.Ended = tx.revision
		}
		return tx.put(&z)
	}
	number, ok := tx.s.alloc.number(spaceZone+"/"+host, zoneNumbers, func(n uint32) bool {
		_, used := tx.claimant(spaceZone, zoneKey(host, uint16(n)))
		return !used
	})
	if !ok {
		tx.s.log.Error("no conntrack zone is left", "host", host, "owner", owner)
		return nil
	}
	return tx.put(&Zone{Owner: owner, Host: host, Number: uint16(number)})
}

// settlePortZone gives a port a zone on a host while it is wired there.
func (tx *Tx) settlePortZone(p *Port, host string) error {
	if host == "" {
		return nil
	}
	return tx.settleZone(PortZone(p.ID), host, tx.WiredHost(p) == host)
}

// settleRouterZones gives a router its zones on a host while it has a gateway
// and one of its networks is present there.
func (tx *Tx) settleRouterZones(routerID, host string) error {
	wanted := tx.translatesOn(routerID, host)
	if err := tx.settleZone(RouterSNATZone(routerID), host, wanted); err != nil {
		return err
	}
	return tx.settleZone(RouterDNATZone(routerID), host, wanted)
}

func (tx *Tx) translatesOn(routerID, host string) bool {
	r := tx.Router(routerID)
	if r == nil || r.GatewayPortID == "" {
		return false
	}
	return slices.ContainsFunc(tx.portsOfRouter(r), func(p *Port) bool { return tx.Presence(p.NetworkID, host) != nil })
}

// settleRouterZonesEverywhere settles the zones of a router after its gateway
// or its interfaces changed.
func (tx *Tx) settleRouterZonesEverywhere(routerID string) error {
	hosts := map[string]bool{}
	for z := range list[Zone](tx.View, KindZone, IndexZonesOf, RouterSNATZone(routerID)) {
		hosts[z.Host] = true
	}
	if r := tx.Router(routerID); r != nil {
		for _, p := range tx.portsOfRouter(r) {
			for pr := range tx.PresencesOf(p.NetworkID) {
				hosts[pr.Host] = true
			}
		}
	}
	for host := range hosts {
		if err := tx.settleRouterZones(routerID, host); err != nil {
			return err
		}
	}
	return nil
}

// settleNetworkZones settles the zones of a network's routers on a host where
// the network became present, or ceased to be.
func (tx *Tx) settleNetworkZones(networkID, host string) error {
	var routers []string
	for p := range tx.RouterPortsOf(networkID) {
		routers = append(routers, p.DeviceID)
	}
	for r := range tx.RoutersOn(networkID) {
		routers = append(routers, r.ID)
	}
	for _, id := range routers {
		if err := tx.settleRouterZones(id, host); err != nil {
			return err
		}
	}
	return nil
}

// FreeZones gives up zones whose owner left. Their host must have flushed them
// and have what changed at the revision of their end.
func (tx *Tx) FreeZones(zones []*Zone) {
	for _, z := range zones {
		now := byID[Zone](tx.View, KindZone, z.ObjectID())
		if now != nil && *now == *z && z.Ended != 0 {
			tx.remove(KindZone, z.ObjectID())
		}
	}
}

// forgetZones removes the zones of a host that is forgotten.
func (tx *Tx) forgetZones(host string) {
	for _, z := range slices.Collect(list[Zone](tx.View, KindZone, IndexZonesOn, host)) {
		tx.remove(KindZone, z.ObjectID())
	}
	for _, f := range slices.Collect(tx.FlushesOn(host)) {
		tx.remove(KindFlush, f.ObjectID())
	}
}
