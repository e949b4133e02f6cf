package northbound

import (
	"planck/network"
)

// theZone is the one availability zone: DHCP and routers are on every host.
const theZone = "nova"

var (
	zoneExtensions = []extension{
		{"availability_zone", "Availability Zone", "The availability zone extension.", "2015-01-01T10:00:00-00:00"},
		{"availability_zone_filter", "Availability Zone Filter Extension", "Add filter parameters to AvailabilityZone resource", "2018-06-22T10:00:00-00:00"},
	}
	networkZones = extension{"network_availability_zone", "Network Availability Zone", "Availability zone support for network.", "2015-01-01T10:00:00-00:00"}
	routerZones  = extension{"router_availability_zone", "Router Availability Zone", "Availability zone support for router.", "2015-01-01T10:00:00-00:00"}
)

// zone is the availability zone for one kind of resource.
type zone struct{ network.Standard }

// zones is the resource /v2.0/availability_zones.
func zones() collection {
	standard := func(z *zone) *network.Standard { return &z.Standard }
	str := func(name string, of func(*zone) string) attribute[zone] {
		return derived(name, textKind(nil), filterable|sortable, func(_ *reader, z *zone) string { return of(z) })
	}
	rs := &resource[zone]{
		name: "availability_zone", collection: "availability_zones", path: "availability_zones",
		extensions: zoneExtensions,
		attributes: []attribute[zone]{
			str("name", func(*zone) string { return theZone }),
			str("resource", func(z *zone) string { return z.ID }),
			str("state", func(*zone) string { return "available" }),
		},
		standard: standard,
		visible:  func(*reader, *zone) bool { return true },
		target:   computedTarget(standard),
		notFound: func(id string) error { return zoneNotFound(id) },
	}
	return readOnly[zone]{resource: computed(rs, func(*network.View) []*zone {
		return []*zone{{network.Standard{ID: "network"}}, {network.Standard{ID: "router"}}}
	}), listOnly: true}
}

func zoneNotFound(name string) error {
	return network.Errorf(network.NotFound, "AvailabilityZoneNotFound", "AvailabilityZone %s could not be found.", clip(name))
}

// zoneHints is a list of zones to be scheduled in.
func zoneHints() kind[[]string] {
	k := stringsKind(nameSize)
	parse := k.parse
	k.parse = func(v any) ([]string, error) {
		hints, err := parse(v)
		for _, hint := range hints {
			if err == nil && hint != theZone {
				err = zoneNotFound(hint)
			}
		}
		return hints, err
	}
	return k
}

// networkZonesOf are the zones of a network: that of its DHCP server.
func networkZonesOf(r *reader, n *network.Network) []string {
	if r.view.DHCPPort(n.ID) == nil {
		return nil
	}
	return []string{theZone}
}

// routerZonesOf are the zones of a router, once it has something to route.
func routerZonesOf(r *reader, o *network.Router) []string {
	if o.GatewayPortID != "" {
		return []string{theZone}
	}
	for range r.view.InterfacesOf(o.ID) {
		return []string{theZone}
	}
	return nil
}
