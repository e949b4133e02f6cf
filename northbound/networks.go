package northbound

import (
	"iter"
	"math"
	"slices"
	"strconv"

	"planck/network"
)

var networkExtensions = []extension{
	{"provider", "Provider Network", "Expose mapping of virtual networks to physical networks", "2012-09-07T10:00:00-00:00"},
	{"external-net", "Neutron external network", "Adds external network attribute to network resource.", "2013-01-14T10:00:00-00:00"},
	{"net-mtu", "Network MTU", "Provides MTU attribute for a network resource.", "2015-03-25T10:00:00-00:00"},
	{"net-mtu-writable", "Network MTU (writable)", "Provides a writable MTU attribute for a network resource.", "2017-07-12T00:00:00-00:00"},
	{"multi-provider", "Multi Provider Network", "Expose mapping of virtual networks to multiple physical networks", "2013-06-27T10:00:00-00:00"},
	networkZones,
	{"port-security", "Port Security", "Provides port security", "2012-07-23T10:00:00-00:00"},
}

// providerAttributes are those of a segment.
var providerAttributes = []string{"provider:network_type", "provider:physical_network", "provider:segmentation_id"}

// Sizes of provider attributes, in characters.
const (
	networkTypeSize     = 32
	physicalNetworkSize = 64
)

// networks is the resource /v2.0/networks.
func networks() *resource[network.Network] {
	return &resource[network.Network]{
		name: "network", collection: "networks", path: "networks",
		extensions: networkExtensions,
		attributes: networkAttributes(),
		standard:   func(n *network.Network) *network.Standard { return &n.Standard },
		get:        (*network.View).Network,
		all:        (*network.View).Networks,
		indexes: []index[network.Network]{
			{"project_id", (*network.View).NetworksOfProject},
			{"tenant_id", (*network.View).NetworksOfProject},
		},
		visible:  (*reader).networkVisible,
		target:   networkTarget,
		notFound: networkNotFound,
		clone:    (*network.Network).Clone,
		create: func(c *change, n *network.Network) error {
			if err := settleNetwork(c, n); err != nil {
				return err
			}
			return c.tx.CreateNetwork(n)
		},
		update: func(c *change, n, _ *network.Network) error {
			if err := settleNetwork(c, n); err != nil {
				return err
			}
			return c.tx.UpdateNetwork(n)
		},
		remove: (*network.Tx).DeleteNetwork,
	}
}

func networkTarget(_ *network.View, n *network.Network) target {
	return &modelTarget{id: n.ID, projectID: n.ProjectID, network: n}
}

func networkAttributes() []attribute[network.Network] {
	type N = network.Network
	standard := func(n *N) *network.Standard { return &n.Standard }
	flag := func(name string, flags ability, def bool, at func(*N) *bool) attribute[N] {
		return field(name, boolean, readWrite|flags, at).withDefault(def)
	}
	list := standardAttributes(standard)
	list = append(list, tagAttributes(standard, 0)...)
	return append(list,
		derived("status", text(16), sortable|filterable, func(*reader, *N) string { return network.StatusActive }),
		flag("admin_state_up", sortable|filterable, true, func(n *N) *bool { return &n.AdminStateUp }),
		derived("subnets", stringsKind(36), 0, subnetsOf),
		flag("shared", filterable|byPolicy, false, func(n *N) *bool { return &n.Shared }),
		flag("router:external", filterable|byPolicy, false, func(n *N) *bool { return &n.External }),
		flag("is_default", filterable|byPolicy, false, func(n *N) *bool { return &n.IsDefault }),
		field("mtu", mtuKind(), readWrite|sortable|filterable|byPolicy,
			func(n *N) *int { return &n.MTU }).withDefault(0),
		flag("port_security_enabled", byPolicy, true, func(n *N) *bool { return &n.PortSecurityEnabled }),
		field("provider:network_type", networkType(), readWrite|filterable|byPolicy,
			func(n *N) *string { return &n.NetworkType }).shownIf(hasOneSegment),
		field("provider:physical_network", nullable(text(physicalNetworkSize)), readWrite|filterable|byPolicy,
			func(n *N) *string { return &n.PhysicalNetwork }).shownIf(hasOneSegment),
		field("provider:segmentation_id", segmentationID(), readWrite|filterable|byPolicy,
			func(n *N) *uint32 { return &n.SegmentationID }).shownIf(hasOneSegment),
		argument("segments", segmentsKind(), readWrite|byPolicy,
			func(_ *reader, n *N) []network.Segment { return n.Segments() }).shownIf(func(n *N) bool { return !hasOneSegment(n) }),
		field("dns_domain", dnsDomain(), readWrite, func(n *N) *string { return &n.DNSDomain }).withDefault(""),
		field("availability_zone_hints", zoneHints(), onPost, func(n *N) *[]string { return &n.AZHints }),
		derived("availability_zones", stringsKind(nameSize), 0, networkZonesOf),
		derived("ipv4_address_scope", nullable(text(36)), 0, func(*reader, *N) string { return "" }),
		derived("ipv6_address_scope", nullable(text(36)), 0, func(*reader, *N) string { return "" }),
	)
}

func subnetsOf(r *reader, n *network.Network) []string {
	return idsOf(r.view.SubnetsOf(n.ID))
}

func idsOf(list iter.Seq[*network.Subnet]) []string {
	var found []string
	for s := range list {
		found = append(found, s.ID)
	}
	return found
}

// mtuKind is a number that is not negative. What is too big for a network says the model.
func mtuKind() kind[int] {
	k := integer(0, math.MaxInt32)
	k.parse = func(v any) (int, error) {
		n, err := convertInt(v)
		if err == nil && n < 0 {
			err = notValid(v, "should be non-negative")
		}
		return int(min(n, math.MaxInt32)), err
	}
	return k
}

// networkType is the name of a type; the model knows which there are.
func networkType() kind[string] {
	k := text(networkTypeSize)
	parse := k.parse
	k.parse = func(v any) (string, error) {
		s, err := parse(v)
		if err == nil && s == "" {
			err = afterRules{invalidInput("network_type value '' not supported")}
		}
		return s, err
	}
	return k
}

// segmentationID is a VLAN or tunnel id; there is none on flat and local networks.
// Clients write 0 for none, too.
func segmentationID() kind[uint32] {
	number := integer(0, math.MaxUint32)
	return kind[uint32]{
		parse: func(v any) (uint32, error) {
			n, err := number.parse(v)
			if _, ok := err.(reason); ok {
				err = afterRules{invalidInput("segmentation_id out of range (%d through %d)", 1, uint32(math.MaxUint32))}
			}
			return uint32(n), err
		},
		write: func(b []byte, id uint32) []byte {
			if id == 0 {
				return append(b, "null"...)
			}
			return strconv.AppendUint(b, uint64(id), 10)
		},
		match: func(values []string) (func(uint32) bool, error) {
			matches, err := number.match(values)
			return func(id uint32) bool { return matches(int(id)) }, err
		},
	}
}

// hasOneSegment tells networks that show their segment as provider attributes
// from those that show a list of them.
func hasOneSegment(n *network.Network) bool { return len(n.More) == 0 }

// segmentsKind is the list of segments of the extension multi-provider.
func segmentsKind() kind[[]network.Segment] {
	return notNull(listOf("'%s' is not a list", parseSegment, appendSegment), "'%s' is not a list")
}

func appendSegment(b []byte, s network.Segment) []byte {
	b = appendString(append(b, `{"provider:network_type": `...), s.NetworkType)
	b = textOrNull(physicalNetworkSize).write(append(b, `, "provider:physical_network": `...), s.PhysicalNetwork)
	b = segmentationID().write(append(b, `, "provider:segmentation_id": `...), s.SegmentationID)
	return append(b, '}')
}

// parseSegment reads the provider attributes of one segment.
func parseSegment(v any) (network.Segment, error) {
	var n network.Segment
	m, ok := v.(map[string]any)
	if !ok {
		return n, notValid(v, "is not a dictionary")
	}
	if unknown := unknownKeys(m, providerAttributes...); unknown != "" {
		return n, badRequest("Unrecognized attribute(s) '%s'", unknown)
	}
	if m["provider:network_type"] == nil {
		return n, afterRules{invalidInput("network_type required")}
	}
	var err error
	if n.NetworkType, err = parseText(m["provider:network_type"], networkTypeSize); err != nil {
		return n, err
	}
	if n.PhysicalNetwork, err = textOrNull(physicalNetworkSize).parse(m["provider:physical_network"]); err != nil {
		return n, err
	}
	if id := m["provider:segmentation_id"]; id != nil {
		if n.SegmentationID, err = segmentationID().parse(id); err == nil {
			err = checkVLAN(n)
			if err != nil {
				err = afterRules{err}
			}
		}
	}
	return n, err
}

// checkVLAN refuses 0, where a VLAN id was given: it means none elsewhere.
func checkVLAN(s network.Segment) error {
	if s.NetworkType == network.TypeVLAN && s.SegmentationID == 0 {
		return invalidInput("segmentation_id out of range (1 through 4094)")
	}
	return nil
}

// settleNetwork applies what the input says about several attributes at once,
// and about other networks.
func settleNetwork(c *change, n *network.Network) error {
	if err := checkDefault(c, n); err != nil {
		return err
	}
	if c.in.has("provider:segmentation_id") {
		if err := checkVLAN(n.Segments()[0]); err != nil {
			return err
		}
	}
	segments, _ := valueOf[[]network.Segment](c.in, "segments")
	if len(segments) == 0 {
		return nil
	}
	if slices.ContainsFunc(providerAttributes, c.in.has) {
		return network.Errorf(network.Invalid, "SegmentsSetInConjunctionWithProviders", "Segments and provider values cannot both be set.")
	}
	n.SetSegments(segments)
	return nil
}

// checkDefault sees to it that there is one default external network at the most.
func checkDefault(c *change, n *network.Network) error {
	if isDefault, given := valueOf[bool](c.in, "is_default"); !given || !isDefault {
		return nil
	}
	for other := range c.tx.Networks() {
		if other.IsDefault && other.ID != n.ID {
			return network.Errorf(network.Conflict, "DefaultExternalNetworkExists",
				"A default external network already exists: %s.", other.ID)
		}
	}
	return nil
}
