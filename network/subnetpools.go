package network

import (
	"cmp"
	"iter"
	"math"
	"net/netip"
	"slices"
)

// Unset stands for a number of a subnet pool that nobody has given: the
// prefix lengths have defaults then, and there is no quota.
const Unset = -1

// SubnetPool is a set of prefixes from which subnets get theirs, so that no two
// of them overlap.
type SubnetPool struct {
	Standard
	Shared    bool `json:"shared"`
	IsDefault bool `json:"is_default"`
	IPVersion int  `json:"ip_version"` // 4 or 6, of all prefixes
	// Prefixes do not overlap, and are as few as can be.
	Prefixes         []netip.Prefix `json:"prefixes"`
	DefaultPrefixLen int            `json:"default_prefixlen"`
	MinPrefixLen     int            `json:"min_prefixlen"`
	MaxPrefixLen     int            `json:"max_prefixlen"`
	// DefaultQuota is how much of the pool a project may have: IPv4 addresses,
	// or IPv6 networks of 64 bits. Unset and 0 are no limit.
	DefaultQuota int `json:"default_quota"`
}

// ObjectKind implements Object.
func (*SubnetPool) ObjectKind() Kind { return KindSubnetPool }

// Clone returns a copy that may be modified.
func (p *SubnetPool) Clone() *SubnetPool {
	c := *p
	c.Standard = p.clone()
	c.Prefixes = slices.Clone(p.Prefixes)
	return &c
}

// SubnetPool returns the subnet pool with this id, or nil.
func (v *View) SubnetPool(id string) *SubnetPool { return byID[SubnetPool](v, KindSubnetPool, id) }

// SubnetPools are all subnet pools.
func (v *View) SubnetPools() iter.Seq[*SubnetPool] { return all[SubnetPool](v, KindSubnetPool) }

// SubnetPoolsOfProject are the subnet pools that a project owns.
func (v *View) SubnetPoolsOfProject(projectID string) iter.Seq[*SubnetPool] {
	return list[SubnetPool](v, KindSubnetPool, IndexSubnetPoolsOfProject, projectID)
}

// SubnetsOfPool are the subnets that have their prefix from a pool; "" lists
// those from none.
func (v *View) SubnetsOfPool(poolID string) iter.Seq[*Subnet] {
	return list[Subnet](v, KindSubnet, IndexSubnetsOfPool, poolID)
}

// DefaultSubnetPool is the pool of an IP version that stands for all of them, or nil.
func (v *View) DefaultSubnetPool(ipVersion int) *SubnetPool {
	for p := range v.SubnetPools() {
		if p.IsDefault && p.IPVersion == ipVersion {
			return p
		}
	}
	return nil
}

// SubnetPoolNotFound is the error for a pool that is not there.
func SubnetPoolNotFound(id string) *Error {
	return Errorf(NotFound, "SubnetPoolNotFound", "Subnet pool %s could not be found.", id)
}

// CreateSubnetPool creates a subnet pool. The IP version is that of its prefixes.
func (tx *Tx) CreateSubnetPool(p *SubnetPool) error {
	tx.begin(&p.Standard)
	if tx.SubnetPool(p.ID) != nil {
		return idTaken(KindSubnetPool, p.ID)
	}
	if err := p.complete(); err != nil {
		return err
	}
	if err := tx.checkOnlyDefault(p); err != nil {
		return err
	}
	p.trim()
	return tx.put(p.Clone())
}

// UpdateSubnetPool replaces a subnet pool by a modified copy. Prefixes can be
// added, and none can be taken away.
func (tx *Tx) UpdateSubnetPool(p *SubnetPool) error {
	old := tx.SubnetPool(p.ID)
	if old == nil {
		return SubnetPoolNotFound(p.ID)
	}
	if err := p.complete(); err != nil {
		return err
	}
	for _, kept := range old.Prefixes {
		if !slices.ContainsFunc(p.Prefixes, func(now netip.Prefix) bool { return covers(now, kept) }) {
			return Errorf(Invalid, "IllegalSubnetPoolPrefixUpdate",
				"Illegal update to prefixes: Existing prefixes must be a subset of the new prefixes.")
		}
	}
	if p.IsDefault && !old.IsDefault {
		if err := tx.checkOnlyDefault(p); err != nil {
			return err
		}
	}
	_, err := replace(tx, old, p)
	return err
}

// DeleteSubnetPool deletes a subnet pool. Subnets with a prefix of it are in the way.
func (tx *Tx) DeleteSubnetPool(id string) error {
	if tx.SubnetPool(id) == nil {
		return SubnetPoolNotFound(id)
	}
	for range tx.SubnetsOfPool(id) {
		return Errorf(Invalid, "SubnetPoolDeleteError", "Unable to delete subnet pool: Subnet pool has existing allocations.")
	}
	tx.remove(KindSubnetPool, id)
	return nil
}

// complete validates a pool by itself, and fills in what follows from the rest.
func (p *SubnetPool) complete() error {
	if len(p.Prefixes) == 0 {
		return Errorf(Invalid, "EmptySubnetPoolPrefixList", "Empty subnet pool prefix list.")
	}
	for _, prefix := range p.Prefixes {
		if !prefix.IsValid() || prefix.Addr().Is4In6() {
			return invalidInput("'%s' is not a valid IP subnet", prefix)
		}
		if prefix.Addr().Is4() != p.Prefixes[0].Addr().Is4() {
			return Errorf(Invalid, "PrefixVersionMismatch", "Cannot mix IPv4 and IPv6 prefixes in a subnet pool.")
		}
	}
	p.Prefixes = compact(p.Prefixes)
	p.IPVersion = 6
	lowest, most := 64, 128
	if p.Prefixes[0].Addr().Is4() {
		p.IPVersion = 4
		lowest, most = 8, 32
	}
	for _, n := range []struct {
		length *int
		deflt  int
	}{{&p.MinPrefixLen, lowest}, {&p.MaxPrefixLen, most}} {
		if *n.length == Unset {
			*n.length = n.deflt
		}
	}
	if p.DefaultPrefixLen == Unset {
		p.DefaultPrefixLen = p.MinPrefixLen
	}
	return p.checkBounds(most)
}

func (p *SubnetPool) checkBounds(most int) error {
	for _, b := range []struct {
		low, high int
		what, by  string
		of, bound int
	}{
		{p.MinPrefixLen, p.MaxPrefixLen, "min_prefixlen", "max_prefixlen", p.MinPrefixLen, p.MaxPrefixLen},
		{p.MaxPrefixLen, most, "max_prefixlen", "ip_version_max", p.MaxPrefixLen, most},
		{p.MinPrefixLen, p.DefaultPrefixLen, "default_prefixlen", "min_prefixlen", p.DefaultPrefixLen, p.MinPrefixLen},
		{p.DefaultPrefixLen, p.MaxPrefixLen, "default_prefixlen", "max_prefixlen", p.DefaultPrefixLen, p.MaxPrefixLen},
	} {
		if b.low > b.high {
			return Errorf(Invalid, "IllegalSubnetPoolPrefixBounds", "Illegal prefix bounds: %s=%d, %s=%d.", b.what, b.of, b.by, b.bound)
		}
	}
	return nil
}

// checkOnlyDefault sees to it that each IP version has one default pool at the most.
func (tx *Tx) checkOnlyDefault(p *SubnetPool) error {
	if !p.IsDefault || tx.DefaultSubnetPool(p.IPVersion) == nil {
		return nil
	}
	return invalidInput("A default subnetpool for this IP family has already been set. Only one default may exist per IP family")
}

func covers(outer, inner netip.Prefix) bool {
	return outer.Bits() <= inner.Bits() && outer.Overlaps(inner)
}

// compact are the fewest prefixes with the same addresses, in order.
func compact(prefixes []netip.Prefix) []netip.Prefix {
	sorted := slices.Clone(prefixes)
	for i := range sorted {
		sorted[i] = sorted[i].Masked()
	}
	slices.SortFunc(sorted, func(a, b netip.Prefix) int {
		return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
	})
	var list []netip.Prefix
	for _, p := range sorted {
		if n := len(list); n > 0 && covers(list[n-1], p) {
			continue
		}
		list = append(list, p)
		for n := len(list); n > 1 && siblings(list[n-2], list[n-1]); n = len(list) {
			list = append(list[:n-2], parent(list[n-2]))
		}
	}
	return list
}

func siblings(a, b netip.Prefix) bool {
	return a.Bits() == b.Bits() && a.Bits() > 0 && parent(a) == parent(b)
}

func parent(p netip.Prefix) netip.Prefix {
	return netip.PrefixFrom(p.Addr(), p.Bits()-1).Masked()
}

// halves are the two prefixes that make up p.
func halves(p netip.Prefix) (low, high netip.Prefix) {
	low = netip.PrefixFrom(p.Addr(), p.Bits()+1)
	return low, netip.PrefixFrom(lastAddr(low).Next(), low.Bits())
}

// allocatePrefix checks the prefix that a subnet wants of a pool, or gives it
// one with the length wanted; Unset is the pool's default.
func (tx *Tx) allocatePrefix(s *Subnet, length int) error {
	p := tx.SubnetPool(s.SubnetPoolID)
	if p == nil {
		return SubnetPoolNotFound(s.SubnetPoolID)
	}
	specific := s.CIDR.IsValid()
	switch {
	case specific:
		s.CIDR = s.CIDR.Masked()
		length = s.CIDR.Bits()
	case length == Unset:
		length = p.DefaultPrefixLen
	}
	if s.IPVersion == 0 {
		s.IPVersion = p.IPVersion
	}
	if err := tx.checkAllocation(p, s, length); err != nil {
		return err
	}
	free := tx.freePrefixes(p)
	if specific {
		if !slices.ContainsFunc(free, func(f netip.Prefix) bool { return covers(f, s.CIDR) }) {
			return allocationFailed("Cannot allocate requested subnet from the available set of prefixes")
		}
		return nil
	}
	// The smallest block that has room, so that large ones stay whole.
	slices.SortStableFunc(free, func(a, b netip.Prefix) int { return cmp.Compare(b.Bits(), a.Bits()) })
	at := slices.IndexFunc(free, func(f netip.Prefix) bool { return f.Bits() <= length })
	if at < 0 {
		return allocationFailed("Insufficient prefix space to allocate subnet size /%d", length)
	}
	s.CIDR = netip.PrefixFrom(free[at].Addr(), length)
	return nil
}

// allocationFailed is a conflict with what others have, though Neutron answers 500.
func allocationFailed(format string, args ...any) *Error {
	e := Errorf(Conflict, "SubnetAllocationError", format, args...)
	e.Message = "Failed to allocate subnet: " + e.Message + "."
	return e
}

func (tx *Tx) checkAllocation(p *SubnetPool, s *Subnet, length int) error {
	const unable = "Unable to allocate subnet with prefix length %d, %s allowed prefix is %d."
	switch {
	case s.IPVersion != p.IPVersion:
		return badRequest("subnets", "Cannot allocate IPv%d subnet from IPv%d subnet pool", s.IPVersion, p.IPVersion)
	case length > p.MaxPrefixLen:
		return Errorf(Invalid, "MaxPrefixSubnetAllocationError", unable, length, "maximum", p.MaxPrefixLen)
	case length < p.MinPrefixLen:
		return Errorf(Invalid, "MinPrefixSubnetAllocationError", unable, length, "minimum", p.MinPrefixLen)
	case p.DefaultQuota <= 0:
		return nil
	}
	used := p.units(length)
	for other := range tx.SubnetsOfPool(p.ID) {
		if other.ProjectID == s.ProjectID {
			used += p.units(other.CIDR.Bits())
		}
	}
	if used > float64(p.DefaultQuota) {
		return Errorf(Conflict, "SubnetPoolQuotaExceeded", "Per-tenant subnet pool prefix quota exceeded.")
	}
	return nil
}

// units is what a prefix of some length counts for in a quota.
func (p *SubnetPool) units(length int) float64 {
	one := 64
	if p.IPVersion == 4 {
		one = 32
	}
	return math.Ldexp(1, one-length)
}

// freePrefixes is what no subnet has of a pool, in order, as few as can be.
func (tx *Tx) freePrefixes(p *SubnetPool) []netip.Prefix {
	var used []netip.Prefix
	for s := range tx.SubnetsOfPool(p.ID) {
		used = append(used, s.CIDR)
	}
	var free []netip.Prefix
	for _, prefix := range p.Prefixes {
		free = appendUnused(free, prefix, used)
	}
	return free
}

func appendUnused(free []netip.Prefix, p netip.Prefix, used []netip.Prefix) []netip.Prefix {
	var inside []netip.Prefix
	for _, u := range used {
		if covers(u, p) {
			return free
		}
		if covers(p, u) {
			inside = append(inside, u)
		}
	}
	if len(inside) == 0 {
		return append(free, p)
	}
	low, high := halves(p)
	return appendUnused(appendUnused(free, low, inside), high, inside)
}

// checkPoolAffinity sees to it that the subnets of a network and an IP version
// are all from one pool, or all from none.
func (tx *Tx) checkPoolAffinity(s *Subnet) error {
	for other := range tx.SubnetsOf(s.NetworkID) {
		if other.IPVersion == s.IPVersion && other.SubnetPoolID != s.SubnetPoolID {
			return Errorf(Invalid, "NetworkSubnetPoolAffinityError",
				"Subnets hosted on the same network must be allocated from the same subnet pool.")
		}
	}
	return nil
}
