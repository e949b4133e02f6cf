package northbound

import (
	"math"
	"net/netip"
	"strconv"
	"strings"

	"planck/network"
)

// subnetPools is the resource /v2.0/subnetpools.
func subnetPools() *resource[network.SubnetPool] {
	return &resource[network.SubnetPool]{
		name: "subnetpool", collection: "subnetpools", path: "subnetpools",
		extensions: []extension{
			{"subnet_allocation", "Subnet Allocation", "Enables allocation of subnets from a subnet pool", "2015-03-30T10:00:00-00:00"},
			{"default-subnetpools", "Default Subnetpools", "Provides ability to mark and use a subnetpool as the default.", "2016-02-18T18:00:00-00:00"},
			autoAllocation,
		},
		attributes: subnetPoolAttributes(),
		standard:   func(p *network.SubnetPool) *network.Standard { return &p.Standard },
		get:        (*network.View).SubnetPool,
		all:        (*network.View).SubnetPools,
		indexes: []index[network.SubnetPool]{
			{"project_id", (*network.View).SubnetPoolsOfProject},
			{"tenant_id", (*network.View).SubnetPoolsOfProject},
		},
		visible:  (*reader).poolVisible,
		target:   func(_ *network.View, p *network.SubnetPool) target { return poolTarget{p} },
		notFound: func(id string) error { return network.SubnetPoolNotFound(id) },
		clone:    (*network.SubnetPool).Clone,
		create:   func(c *change, p *network.SubnetPool) error { return c.tx.CreateSubnetPool(p) },
		update:   func(c *change, p, _ *network.SubnetPool) error { return c.tx.UpdateSubnetPool(p) },
		remove:   (*network.Tx).DeleteSubnetPool,
	}
}

// poolVisible reports whether a tenant may know of a pool.
func (r *reader) poolVisible(p *network.SubnetPool) bool { return p.Shared || r.owns(p.ProjectID) }

// seesPool reports whether the caller may take subnets from a pool; a nil one does not exist.
func (r *reader) seesPool(p *network.SubnetPool) bool { return p != nil && (r.all || r.poolVisible(p)) }

// defaultPool is the default pool of an IP version, if there is one that the caller may use.
func (r *reader) defaultPool(ipVersion int) *network.SubnetPool {
	p := r.view.DefaultSubnetPool(ipVersion)
	if !r.seesPool(p) {
		return nil
	}
	return p
}

// poolTarget is what rules may ask about a subnet pool.
type poolTarget struct{ pool *network.SubnetPool }

func (t poolTarget) attribute(name string) (string, bool) {
	switch name {
	case "id":
		return t.pool.ID, true
	case "project_id":
		return t.pool.ProjectID, true
	case "shared":
		return pythonBool(t.pool.Shared), true
	}
	return "", false
}

func subnetPoolAttributes() []attribute[network.SubnetPool] {
	type P = network.SubnetPool
	standard := func(p *P) *network.Standard { return &p.Standard }
	number := func(name string, k kind[int], at func(*P) *int) attribute[P] {
		return field(name, k, readWrite|sortable|filterable, at).withDefault(network.Unset)
	}
	list := standardAttributes(standard)
	for i := range list {
		if list[i].name == "name" {
			list[i] = field("name", notBlank(nameSize), readWrite|required|sortable|filterable, func(p *P) *string { return &p.Name })
		}
	}
	list = append(list, tagAttributes(standard, 0)...)
	return append(list,
		field("prefixes", prefixList(), readWrite|required, func(p *P) *[]netip.Prefix { return &p.Prefixes }),
		number("default_quota", poolQuota(), func(p *P) *int { return &p.DefaultQuota }),
		derived("ip_version", ipVersion(), sortable|filterable, func(_ *reader, p *P) int { return p.IPVersion }),
		number("default_prefixlen", prefixLength(), func(p *P) *int { return &p.DefaultPrefixLen }),
		number("min_prefixlen", prefixLength(), func(p *P) *int { return &p.MinPrefixLen }),
		number("max_prefixlen", prefixLength(), func(p *P) *int { return &p.MaxPrefixLen }),
		field("is_default", boolean, readWrite|sortable|filterable|byPolicy, func(p *P) *bool { return &p.IsDefault }).withDefault(false),
		field("shared", boolean, onPost|sortable|filterable|byPolicy, func(p *P) *bool { return &p.Shared }).withDefault(false),
	)
}

// notBlank is Neutron's type:not_empty_string.
func notBlank(size int) kind[string] {
	return textKind(func(v any) (string, error) {
		s, err := parseText(v, size)
		if err == nil && strings.TrimSpace(s) == "" {
			err = notValid(v, "Blank strings are not permitted")
		}
		return s, err
	})
}

// prefixLength is a number that is not negative, which Neutron shows as a string.
func prefixLength() kind[int] {
	k := mtuKind()
	parse := k.parse
	k.parse = func(v any) (int, error) {
		n, err := parse(v)
		if err == nil && n == math.MaxInt32 { // or more
			err = notValid(v, "is too large")
		}
		return n, err
	}
	k.write = func(b []byte, n int) []byte { return appendString(b, strconv.Itoa(n)) }
	return k
}

// poolQuota is a number that is not negative, and null where none was given.
func poolQuota() kind[int] {
	k := mtuKind()
	parse := k.parse
	k.parse = func(v any) (int, error) {
		n, err := parse(v)
		if err == nil && n == math.MaxInt32 { // or more
			err = notValid(v, "is too large")
		}
		return n, err
	}
	k.write = func(b []byte, n int) []byte {
		if n == network.Unset {
			return append(b, "null"...)
		}
		return appendInt(b, n)
	}
	return k
}

// prefixList is Neutron's type:subnet_list.
func prefixList() kind[[]netip.Prefix] {
	k := listOf("'%s' is not a list", parseSubnet, appendPrefix)
	k = unique(k, func(p netip.Prefix) string { return "Duplicate items in the list: '" + p.String() + "'" })
	return notNull(k, "'%s' is not a list")
}

// parseSubnet is Neutron's type:subnet: a block without host bits.
func parseSubnet(v any) (netip.Prefix, error) {
	s, _ := v.(string)
	p, err := netip.ParsePrefix(s)
	if a, bare := netip.ParseAddr(s); bare == nil && a.Zone() == "" {
		return p, notValid(v, "isn't a recognized IP subnet cidr, '"+netip.PrefixFrom(a, a.BitLen()).String()+"' is recommended")
	}
	if err != nil || p.Addr().Is4In6() {
		return p, notValid(v, "is not a valid IP subnet")
	}
	if p != p.Masked() {
		return p, notValid(v, "isn't a recognized IP subnet cidr, '"+p.Masked().String()+"' is recommended")
	}
	return p, nil
}

// poolOf is the pool that a new subnet shall have its prefix from, "" for none.
func poolOf(c *change, s *network.Subnet) (string, error) {
	id, _ := valueOf[string](c.in, "subnetpool_id")
	useDefault, _ := valueOf[bool](c.in, "use_default_subnetpool")
	switch {
	case id != "" && useDefault:
		return "", badResource("subnets", "subnetpool_id and use_default_subnetpool cannot both be specified")
	case id != "":
		if !c.r.seesPool(c.tx.SubnetPool(id)) {
			return "", network.SubnetPoolNotFound(id)
		}
		return id, nil
	case !useDefault:
		return "", nil
	}
	version := s.IPVersion
	if s.CIDR.IsValid() {
		version = ipVersionOf(s.CIDR.Addr())
	}
	p := c.r.defaultPool(version)
	if p == nil {
		return "", badResource("subnets", "No default subnetpool found for IPv%d", version)
	}
	return p.ID, nil
}

func ipVersionOf(a netip.Addr) int {
	if a.Is4() {
		return 4
	}
	return 6
}

// settlePool takes what the input of a new subnet says about pools.
func settlePool(c *change, s *network.Subnet) error {
	specific := c.in.has("cidr")
	length, given := valueOf[int](c.in, "prefixlen")
	if specific && given {
		return badResource("subnets", "cidr and prefixlen must not be supplied together")
	}
	pool, err := poolOf(c, s)
	switch {
	case err != nil:
		return err
	case pool == "" && !specific:
		return badResource("subnets", "a subnetpool must be specified in the absence of a cidr")
	case pool != "" && !specific && s.AllocationPools != nil:
		return badResource("subnets", "allocation_pools allowed only for specific subnet requests")
	}
	s.SubnetPoolID, s.PrefixLen = pool, network.Unset
	if given {
		s.PrefixLen = length
	}
	return nil
}
