package northbound

import (
	"math/big"
	"net/netip"
	"strconv"

	"planck/network"
)

// availability is how many addresses a network has, and how many are used.
type availability struct {
	network.Standard // of the network
	subnets          []subnetAvailability
}

type subnetAvailability struct {
	*network.Subnet
	total *big.Int
	used  int
}

// ipAvailabilities is the resource /v2.0/network-ip-availabilities.
func ipAvailabilities() collection {
	type A = availability
	standard := func(a *A) *network.Standard { return &a.Standard }
	str := func(name string, of func(*A) string) attribute[A] {
		return derived(name, textKind(nil), filterable|sortable, func(_ *reader, a *A) string { return of(a) })
	}
	rs := &resource[A]{
		name: "network_ip_availability", collection: "network_ip_availabilities", path: "network-ip-availabilities",
		extensions: []extension{{"network-ip-availability", "Network IP Availability",
			"Provides IP availability data for each network and subnet.", "2015-09-24T00:00:00-00:00"}},
		attributes: []attribute[A]{
			str("network_id", func(a *A) string { return a.ID }),
			str("network_name", func(a *A) string { return a.Name }),
			str("tenant_id", func(a *A) string { return a.ProjectID }),
			str("project_id", func(a *A) string { return a.ProjectID }),
			{name: "total_ips", write: func(b []byte, _ *reader, a *A) []byte { return a.total().Append(b, 10) }},
			derived("used_ips", integer(0, 0), 0, func(_ *reader, a *A) int { return a.used() }),
			{name: "subnet_ip_availability", write: func(b []byte, _ *reader, a *A) []byte {
				return appendList(b, a.subnets, appendSubnetAvailability)
			}},
			filterOnly("ip_version", func(values []string) (func(*reader, *A) bool, error) {
				matches, err := ipVersion().match(values)
				return func(_ *reader, a *A) bool {
					for _, s := range a.subnets {
						if matches(s.IPVersion) {
							return true
						}
					}
					return false
				}, err
			}),
		},
		standard: standard,
		visible:  func(*reader, *A) bool { return false },
		target:   computedTarget(standard),
		notFound: networkNotFound,
	}
	return readOnly[A]{resource: computed(rs, availabilitiesOf)}
}

func availabilitiesOf(view *network.View) []*availability {
	var list []*availability
	for n := range view.Networks() {
		a := &availability{Standard: n.Standard}
		for s := range view.SubnetsOf(n.ID) {
			a.subnets = append(a.subnets, subnetAvailability{s, poolSize(s), usedOf(view, s)})
		}
		list = append(list, a)
	}
	return list
}

// poolSize is how many addresses a subnet may hand out: all when it has no pools.
func poolSize(s *network.Subnet) *big.Int {
	total := new(big.Int)
	for _, p := range s.AllocationPools {
		total.Add(total, new(big.Int).Sub(number(p.End), number(p.Start)))
		total.Add(total, big.NewInt(1))
	}
	if len(s.AllocationPools) == 0 {
		total.Lsh(big.NewInt(1), uint(s.CIDR.Addr().BitLen()-s.CIDR.Bits()))
	}
	return total
}

func number(a netip.Addr) *big.Int { return new(big.Int).SetBytes(a.AsSlice()) }

func usedOf(view *network.View, s *network.Subnet) int {
	used := 0
	for p := range view.PortsOfSubnet(s.ID) {
		for _, f := range p.FixedIPs {
			if f.SubnetID == s.ID {
				used++
			}
		}
	}
	return used
}

func (a *availability) total() *big.Int {
	sum := new(big.Int)
	for _, s := range a.subnets {
		sum.Add(sum, s.total)
	}
	return sum
}

func (a *availability) used() int {
	sum := 0
	for _, s := range a.subnets {
		sum += s.used
	}
	return sum
}

func appendSubnetAvailability(b []byte, s subnetAvailability) []byte {
	b = appendString(append(b, `{"subnet_id": `...), s.ID)
	b = appendString(append(b, `, "subnet_name": `...), s.Name)
	b = appendPrefix(append(b, `, "cidr": `...), s.CIDR)
	b = appendInt(append(b, `, "ip_version": `...), s.IPVersion)
	b = s.total.Append(append(b, `, "total_ips": `...), 10)
	b = strconv.AppendInt(append(b, `, "used_ips": `...), int64(s.used), 10)
	return append(b, '}')
}
