package northbound

import (
	"net/netip"
	"strconv"
	"strings"

	"planck/network"
)

var subnetExtensions = []extension{
	{"subnet-service-types", "Subnet service types", "Provides ability to set the subnet service_types field", "2016-03-15T18:00:00-00:00"},
}

// subnets is the resource /v2.0/subnets.
func subnets() *resource[network.Subnet] {
	return &resource[network.Subnet]{
		name: "subnet", collection: "subnets", path: "subnets",
		extensions: subnetExtensions,
		attributes: subnetAttributes(),
		standard:   func(s *network.Subnet) *network.Standard { return &s.Standard },
		get:        (*network.View).Subnet,
		all:        (*network.View).Subnets,
		indexes: []index[network.Subnet]{
			{"network_id", (*network.View).SubnetsOf},
			{"project_id", (*network.View).SubnetsOfProject},
			{"tenant_id", (*network.View).SubnetsOfProject},
		},
		visible:  (*reader).subnetVisible,
		target:   subnetTarget,
		notFound: subnetNotFound,
		clone:    (*network.Subnet).Clone,
		prepare: func(c *change, s *network.Subnet) error {
			if !c.r.networkVisible(c.tx.Network(s.NetworkID)) {
				return networkNotFound(s.NetworkID)
			}
			return nil
		},
		create: createSubnet,
		update: func(c *change, s, old *network.Subnet) error {
			if s.EnableDHCP && !old.EnableDHCP {
				if err := checkServable(s.CIDR); err != nil {
					return err
				}
			}
			return c.tx.UpdateSubnet(s)
		},
		remove: (*network.Tx).DeleteSubnet,
	}
}

func subnetTarget(view *network.View, s *network.Subnet) target {
	return &modelTarget{id: s.ID, projectID: s.ProjectID, networkID: s.NetworkID, view: view}
}

func subnetNotFound(id string) error {
	return network.Errorf(network.NotFound, "SubnetNotFound", "Subnet %s could not be found.", id)
}

func subnetAttributes() []attribute[network.Subnet] {
	type S = network.Subnet
	standard := func(s *S) *network.Standard { return &s.Standard }
	mode := oneOf(network.DHCPv6Stateful, network.DHCPv6Stateless, network.SLAAC)
	list := standardAttributes(standard)
	list = append(list, tagAttributes(standard, 0)...)
	return append(list,
		field("network_id", uuidKind, onPost|required|sortable|filterable, func(s *S) *string { return &s.NetworkID }),
		field("ip_version", ipVersion(), onPost|required|sortable|filterable, func(s *S) *int { return &s.IPVersion }),
		field("cidr", cidr, onPost|sortable|filterable, func(s *S) *netip.Prefix { return &s.CIDR }),
		argument[S]("prefixlen", integer(0, 128), onPost, nil),
		argument("subnetpool_id", uuidOrNull, onPost|filterable|sortable, func(_ *reader, s *S) string { return s.SubnetPoolID }),
		argument[S]("use_default_subnetpool", boolean, onPost, nil).withDefault(false),
		argument("segment_id", uuidOrNull, onPost|filterable|sortable, func(*reader, *S) string { return "" }),
		field("gateway_ip", addrOrNull, readWrite|sortable|filterable, func(s *S) *netip.Addr { return &s.GatewayIP }),
		field("allocation_pools", pools(), readWrite, func(s *S) *[]network.Range { return &s.AllocationPools }),
		field("dns_nameservers", nameservers(), readWrite, func(s *S) *[]netip.Addr { return &s.DNSNameservers }),
		field("host_routes", hostRoutes(), readWrite, func(s *S) *[]network.Route { return &s.HostRoutes }),
		field("enable_dhcp", boolean, readWrite|sortable|filterable, func(s *S) *bool { return &s.EnableDHCP }).withDefault(true),
		field("ipv6_ra_mode", mode, onPost|sortable|filterable, func(s *S) *string { return &s.IPv6RAMode }),
		field("ipv6_address_mode", mode, onPost|sortable|filterable, func(s *S) *string { return &s.IPv6AddressMode }),
		field("service_types", serviceTypes(), readWrite|byPolicy, func(s *S) *[]string { return &s.ServiceTypes }),
		filterOnly("shared", matchShared),
	)
}

func matchShared(values []string) (func(*reader, *network.Subnet) bool, error) {
	matches, err := boolean.match(values)
	return func(r *reader, s *network.Subnet) bool {
		n := r.view.Network(s.NetworkID)
		return n != nil && matches(n.Shared)
	}, err
}

func createSubnet(c *change, s *network.Subnet) error {
	if err := settlePool(c, s); err != nil {
		return err
	}
	if segment, _ := valueOf[string](c.in, "segment_id"); segment != "" {
		return network.Errorf(network.NotFound, "SegmentNotFound", "Segment %s could not be found.", segment)
	}
	specific := s.CIDR.IsValid()
	if specific && s.EnableDHCP {
		if err := checkServable(s.CIDR); err != nil {
			return err
		}
	}
	if c.in.has("gateway_ip") && !s.GatewayIP.IsValid() {
		s.GatewayIP = network.NoGateway
	}
	if err := c.tx.CreateSubnet(s); err != nil {
		return err
	}
	if specific || !s.EnableDHCP {
		return nil
	}
	return checkServable(s.CIDR)
}

// checkServable refuses DHCP where there is nothing to hand out.
func checkServable(block netip.Prefix) error {
	first := block.Addr()
	switch {
	case block.Bits() > first.BitLen()-2:
		return invalidInput("Subnet has a prefix length that is incompatible with DHCP service enabled")
	case first.IsMulticast():
		return invalidInput("Multicast IP subnet is not supported if enable_dhcp is True")
	case first.IsLoopback():
		return invalidInput("Loopback IP subnet is not supported if enable_dhcp is True")
	case first.IsUnspecified():
		return invalidInput("First IP '%s' of network is not supported if enable_dhcp is True", first)
	}
	return nil
}

func ipVersion() kind[int] {
	k := integer(0, 255)
	k.parse = func(v any) (int, error) {
		n, err := convertInt(v)
		if err != nil {
			return 0, err
		}
		if n != 4 && n != 6 {
			return 0, notValid(v, "is not in [4, 6]")
		}
		return int(n), nil
	}
	return k
}

func pools() kind[[]network.Range] {
	item := func(v any) (network.Range, error) {
		m, err := dictOf(v, "start", "end")
		if err != nil {
			return network.Range{}, err
		}
		start, err := parseAddr(m["start"])
		if err != nil {
			return network.Range{}, err
		}
		end, err := parseAddr(m["end"])
		return network.Range{Start: start, End: end}, err
	}
	const notPools = "Invalid data format for IP pool: '%s'"
	k := listOf(notPools, item, func(b []byte, r network.Range) []byte {
		b = appendAddr(append(b, `{"start": `...), r.Start)
		b = appendAddr(append(b, `, "end": `...), r.End)
		return append(b, '}')
	})
	return notNull(k, notPools)
}

func nameservers() kind[[]netip.Addr] {
	item := func(v any) (netip.Addr, error) {
		a, err := parseAddr(v)
		if err != nil {
			err = notValid(v, "is not a valid nameserver. "+err.Error())
		}
		return a, err
	}
	k := listOf("Invalid data format for nameserver: '%s'", item, appendAddr)
	return unique(k, func(a netip.Addr) string { return "Duplicate nameserver '" + a.String() + "'" })
}

func hostRoutes() kind[[]network.Route] {
	item := func(v any) (network.Route, error) {
		m, err := dictOf(v, "destination", "nexthop")
		if err != nil {
			return network.Route{}, err
		}
		destination, err := parseDestination(m["destination"])
		if err != nil {
			return network.Route{}, err
		}
		nexthop, err := parseAddr(m["nexthop"])
		return network.Route{Destination: destination, NextHop: nexthop}, err
	}
	k := listOf("Invalid data format for hostroute: '%s'", item, func(b []byte, r network.Route) []byte {
		b = appendPrefix(append(b, `{"destination": `...), r.Destination)
		b = appendAddr(append(b, `, "nexthop": `...), r.NextHop)
		return append(b, '}')
	})
	return unique(k, func(r network.Route) string {
		return "Duplicate hostroute '{'destination': '" + r.Destination.String() + "', 'nexthop': '" + r.NextHop.String() + "'}'"
	})
}

// parseDestination is Neutron's validate_route_cidr: a block without host bits.
func parseDestination(v any) (netip.Prefix, error) {
	s, _ := v.(string)
	p, err := netip.ParsePrefix(s)
	if err == nil && p != p.Masked() {
		return netip.Prefix{}, notValid(v, "is not a recognized CIDR, '"+p.Masked().String()+"' is recommended")
	}
	if err != nil || p.Addr().Is4In6() {
		return netip.Prefix{}, notValid(v, "is not a valid CIDR")
	}
	if p.Addr().IsLoopback() {
		return netip.Prefix{}, notValid(v, "is not a routable CIDR")
	}
	return p, nil
}

// servicePrefixes begin the device owners that a subnet may be kept for.
var servicePrefixes = []string{"network:", "neutron:", "compute:"}

func serviceTypes() kind[[]string] {
	item := func(v any) (string, error) {
		s, ok := v.(string)
		if !ok {
			return "", network.Errorf(network.Invalid, "InvalidInputSubnetServiceType",
				"Subnet service type %s is not a string.", show(v))
		}
		if _, err := parseText(v, deviceSize); err != nil {
			return "", err
		}
		for _, prefix := range servicePrefixes {
			if strings.HasPrefix(s, prefix) {
				return s, nil
			}
		}
		return "", network.Errorf(network.Invalid, "InvalidSubnetServiceType",
			"Subnet service type %s does not correspond to a valid device owner.", show(v))
	}
	k := listOf("", item, appendString)
	parse := k.parse
	k.parse = func(v any) ([]string, error) {
		if _, ok := v.([]any); v != nil && !ok {
			return nil, badRequest("Subnet service types must be a list.")
		}
		return parse(v)
	}
	return unique(k, func(s string) string { return "Duplicate items in the list: " + strconv.Quote(clip(s)) })
}
