package network

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
)

// Index names a way to read the model: an object kind by id, the whole of a
// kind, or a list or lookup by some other key.
type Index uint8

// The indexes. Those named after one object read it by its id.
const (
	IndexNetwork Index = iota + 1
	IndexSubnet
	IndexPort
	IndexPortStatus
	IndexHost
	IndexVIF
	IndexPresence
	IndexDeparture
	IndexRouter
	IndexFloatingIP
	IndexFloatingIPWired
	IndexZone
	IndexTransit
	IndexGatewayPlacement
	IndexHostDown
	IndexExternalNeighbor
	IndexAddressHolder
	IndexReadiness
	IndexSecurityGroup
	IndexSecurityGroupRule
	IndexGroupPresence
	IndexQuota
	IndexSubnetPool
	IndexTopology
	IndexAgent

	// The whole of a kind; the key is "".
	IndexNetworks
	IndexSubnets
	IndexPorts
	IndexHosts
	IndexRouters
	IndexFloatingIPs
	IndexGatewayPlacements
	IndexHostsDown
	IndexAddressHolders
	IndexSecurityGroups
	IndexSecurityGroupRules
	IndexQuotas
	IndexSubnetPools

	IndexNetworksOfProject
	IndexSubnetsOfProject
	IndexPortsOfProject
	IndexSubnetsOf
	IndexSubnetsOfPool
	IndexSubnetPoolsOfProject
	IndexPortsOf
	IndexPortsOfDevice
	IndexPortsOfSubnet
	IndexPortsBoundTo
	IndexPortsOfOn
	IndexInactivePortsOn
	IndexPortsOfGroup
	indexPortsOfGroupOn
	IndexLoosePortsOf
	IndexPairPortsOf
	IndexServicePortsOf
	IndexVIFsOf
	IndexVIFsOn
	IndexPresencesOf
	IndexGroupPresencesOf
	IndexSecurityGroupsOfProject
	IndexSecurityGroupRulesOfProject
	IndexRulesOf
	IndexRulesNaming
	IndexDeparturesOn
	IndexInterfacesOf
	IndexRouterPortsOf
	IndexRoutersOfProject
	IndexRoutersOn
	IndexRoutersVia
	IndexFloatingIPsOfProject
	IndexFloatingIPsOn
	IndexFloatingIPsOfPort
	IndexFloatingIPsOfRouter
	IndexFlush
	IndexFlushesOn
	IndexZonesOf
	IndexZonesOn
	IndexEndedZonesOn
	IndexGatewayPlacementsOn
	IndexExternalNeighborsOf
	IndexAddressHoldersOf
	indexHeldBy
	IndexReadinessOf

	// Lookups that find at most one object.
	IndexNetworkByKey
	IndexPortByKey
	IndexPortByIP
	IndexPortByMAC
	IndexHostByKey
	IndexSecurityGroupByKey
	IndexSecurityGroupRuleByKey
	IndexRouterByKey
	IndexFloatingIPByKey
	IndexFloatingIPByAddress

	indexCount // how many there are, and one
)

// Dep is something that was read from a View: an object by its id, or the
// membership of a list. It is comparable.
type Dep struct {
	Index Index
	Key   string
}

// String is for logs and tests.
func (d Dep) String() string { return fmt.Sprintf("%d:%s", d.Index, d.Key) }

// secondary is an index of a table other than the one by id.
type secondary struct {
	index Index
	keys  func(Object) []string
}

// table declares how objects of a kind are indexed. The trees in memory and
// the dependencies that a change touches are both made from it.
type table struct {
	kind   Kind
	byID   Index
	all    Index // 0 for none
	others []secondary
}

var tables = []*table{
	{KindNetwork, IndexNetwork, IndexNetworks, []secondary{
		{IndexNetworksOfProject, by(func(n *Network) string { return n.ProjectID })},
		{IndexNetworkByKey, by(func(n *Network) string { return smallKey(n.Key) })},
	}},
	{KindSubnet, IndexSubnet, IndexSubnets, []secondary{
		{IndexSubnetsOfProject, by(func(s *Subnet) string { return s.ProjectID })},
		{IndexSubnetsOf, by(func(s *Subnet) string { return s.NetworkID })},
		{IndexSubnetsOfPool, by(func(s *Subnet) string { return s.SubnetPoolID })},
	}},
	{KindPort, IndexPort, IndexPorts, []secondary{
		{IndexPortsOfProject, by(func(p *Port) string { return p.ProjectID })},
		{IndexPortsOf, by(func(p *Port) string { return p.NetworkID })},
		{IndexPortsOfDevice, by(func(p *Port) string { return p.DeviceID })},
		{IndexPortsOfSubnet, portSubnets},
		{IndexPortsBoundTo, by(func(p *Port) string { return p.Binding.Host })},
		{IndexPortsOfOn, by(func(p *Port) string { return PresenceID(p.NetworkID, p.Binding.Host) })},
		{IndexInactivePortsOn, portInactive},
		{IndexPortsOfGroup, func(o Object) []string { return o.(*Port).SecurityGroups }},
		{indexPortsOfGroupOn, portGroupsOn},
		{IndexLoosePortsOf, portNetworkIf((*Port).loose)},
		{IndexPairPortsOf, portNetworkIf(func(p *Port) bool { return len(p.AllowedAddressPairs) > 0 })},
		{IndexServicePortsOf, portNetworkIf((*Port).Service)},
		{IndexInterfacesOf, portInterfaces},
		{IndexRouterPortsOf, portNetworkIf((*Port).isRouter)},
		{IndexPortByKey, by(func(p *Port) string { return smallKey(p.Key) })},
		{IndexPortByIP, portIPs},
		{IndexPortByMAC, by(func(p *Port) string { return macKey(p.NetworkID, p.MAC) })},
	}},
	{KindPortStatus, IndexPortStatus, 0, nil},
	{KindQuota, IndexQuota, IndexQuotas, nil},
	{KindSubnetPool, IndexSubnetPool, IndexSubnetPools, []secondary{
		{IndexSubnetPoolsOfProject, by(func(p *SubnetPool) string { return p.ProjectID })},
	}},
	{KindTopology, IndexTopology, 0, nil},
	{KindAgent, IndexAgent, 0, nil},
	{KindHost, IndexHost, IndexHosts, []secondary{
		{IndexHostByKey, by(func(h *Host) string { return smallKey(h.Key) })},
	}},
	{KindVIF, IndexVIF, 0, []secondary{
		{IndexVIFsOf, by(func(v *VIF) string { return v.PortID })},
		{IndexVIFsOn, by(func(v *VIF) string { return v.Host })},
	}},
	{KindPresence, IndexPresence, 0, []secondary{
		{IndexPresencesOf, by(func(p *Presence) string { return p.NetworkID })},
	}},
	{KindDeparture, IndexDeparture, 0, []secondary{
		{IndexDeparturesOn, by(func(d *Departure) string { return d.Host })},
	}},
	{KindSecurityGroup, IndexSecurityGroup, IndexSecurityGroups, []secondary{
		{IndexSecurityGroupsOfProject, by(func(g *SecurityGroup) string { return g.ProjectID })},
		{IndexSecurityGroupByKey, by(func(g *SecurityGroup) string { return smallKey(g.Key) })},
	}},
	{KindSecurityGroupRule, IndexSecurityGroupRule, IndexSecurityGroupRules, []secondary{
		{IndexSecurityGroupRulesOfProject, by(func(r *SecurityGroupRule) string { return r.ProjectID })},
		{IndexRulesOf, by(func(r *SecurityGroupRule) string { return r.GroupID })},
		{IndexRulesNaming, ruleRemote},
		{IndexSecurityGroupRuleByKey, by(func(r *SecurityGroupRule) string { return smallKey(r.Key) })},
	}},
	{KindGroupPresence, IndexGroupPresence, 0, []secondary{
		{IndexGroupPresencesOf, by(func(p *GroupPresence) string { return p.GroupID })},
	}},
	{KindRouter, IndexRouter, IndexRouters, []secondary{
		{IndexRoutersOfProject, by(func(r *Router) string { return r.ProjectID })},
		{IndexRoutersOn, by(func(r *Router) string { return r.ExternalNetworkID })},
		{IndexRoutersVia, routerNextHops},
		{IndexRouterByKey, by(func(r *Router) string { return smallKey(r.Key) })},
	}},
	{KindFloatingIP, IndexFloatingIP, IndexFloatingIPs, []secondary{
		{IndexFloatingIPsOfProject, by(func(f *FloatingIP) string { return f.ProjectID })},
		{IndexFloatingIPsOn, by(func(f *FloatingIP) string { return f.FloatingNetworkID })},
		{IndexFloatingIPsOfPort, by(func(f *FloatingIP) string { return f.PortID })},
		{IndexFloatingIPsOfRouter, by(func(f *FloatingIP) string { return f.RouterID })},
		{IndexFloatingIPByKey, by(func(f *FloatingIP) string { return smallKey(f.Key) })},
		{IndexFloatingIPByAddress, by(func(f *FloatingIP) string { return addressKey(f.FloatingNetworkID, f.Address) })},
	}},
	{KindFloatingIPWired, IndexFloatingIPWired, 0, nil},
	{KindZone, IndexZone, 0, []secondary{
		{IndexZonesOf, by(func(z *Zone) string { return z.Owner })},
		{IndexZonesOn, by(func(z *Zone) string { return z.Host })},
		{IndexEndedZonesOn, endedZoneHost},
	}},
	{KindFlush, IndexFlush, 0, []secondary{
		{IndexFlushesOn, by(func(f *Flush) string { return f.Host })},
	}},
	{KindTransit, IndexTransit, 0, nil},
	{KindGatewayPlacement, IndexGatewayPlacement, IndexGatewayPlacements, []secondary{
		{IndexGatewayPlacementsOn, func(o Object) []string { return o.(*GatewayPlacement).Hosts }},
	}},
	{KindHostDown, IndexHostDown, IndexHostsDown, nil},
	{KindExternalNeighbor, IndexExternalNeighbor, 0, []secondary{
		{IndexExternalNeighborsOf, by(func(e *ExternalNeighbor) string { return e.NetworkID })},
	}},
	{KindAddressHolder, IndexAddressHolder, IndexAddressHolders, []secondary{
		{IndexAddressHoldersOf, by(func(h *AddressHolder) string { return h.NetworkID })},
		{indexHeldBy, by(func(h *AddressHolder) string { return h.PortID })},
	}},
	{KindReadiness, IndexReadiness, 0, []secondary{
		{IndexReadinessOf, by(func(r *Readiness) string { return r.PortID })},
	}},
}

func by[T Object](key func(T) string) func(Object) []string {
	return func(o Object) []string { return []string{key(o.(T))} }
}

// portNetworkIf lists a port under its network when it is of a certain sort.
func portNetworkIf(is func(*Port) bool) func(Object) []string {
	return func(o Object) []string {
		p := o.(*Port)
		if !is(p) {
			return nil
		}
		return []string{p.NetworkID}
	}
}

// portInterfaces lists a router interface under its router.
func portInterfaces(o Object) []string {
	p := o.(*Port)
	if !p.isRouter() {
		return nil
	}
	return []string{p.DeviceID}
}

func endedZoneHost(o Object) []string {
	z := o.(*Zone)
	if z.Ended == 0 {
		return nil
	}
	return []string{z.Host}
}

// portInactive lists a port under its network on each host of an inactive binding.
func portInactive(o Object) []string {
	p := o.(*Port)
	keys := make([]string, len(p.Inactive))
	for i, b := range p.Inactive {
		keys[i] = PresenceID(p.NetworkID, b.Host)
	}
	return keys
}

func portSubnets(o Object) []string {
	p := o.(*Port)
	keys := make([]string, 0, len(p.FixedIPs))
	for i, f := range p.FixedIPs {
		if !containsSubnet(p.FixedIPs[:i], f.SubnetID) {
			keys = append(keys, f.SubnetID)
		}
	}
	return keys
}

func containsSubnet(ips []FixedIP, id string) bool {
	for _, f := range ips {
		if f.SubnetID == id {
			return true
		}
	}
	return false
}

func portIPs(o Object) []string {
	p := o.(*Port)
	keys := make([]string, len(p.FixedIPs))
	for i, f := range p.FixedIPs {
		keys[i] = addressKey(p.NetworkID, f.IP)
	}
	return keys
}

// routerNextHops lists a router under the next hops of its extra routes.
func routerNextHops(o Object) []string {
	var keys []string
	for _, route := range o.(*Router).Routes {
		keys = append(keys, route.NextHop.String())
	}
	slices.Sort(keys)
	return slices.Compact(keys)
}

func macKey(networkID string, m MAC) string { return networkID + "/" + m.String() }

func addressKey(networkID string, ip netip.Addr) string { return networkID + "/" + ip.String() }

func smallKey(k uint32) string { return strconv.FormatUint(uint64(k), 10) }

// touched calls visit for what a change of o from before to after touches;
// either may be nil.
func (t *table) touched(before, after Object, visit func(Dep)) {
	id := anyOf(before, after).ObjectID()
	visit(Dep{t.byID, id})
	if t.all != 0 && (before == nil || after == nil) {
		visit(Dep{t.all, ""})
	}
	for _, ix := range t.others {
		old, now := keysOf(ix, before), keysOf(ix, after)
		visitMissing(ix.index, old, now, visit)
		visitMissing(ix.index, now, old, visit)
	}
}

func anyOf(a, b Object) Object {
	if a != nil {
		return a
	}
	return b
}

func keysOf(ix secondary, o Object) []string {
	if o == nil {
		return nil
	}
	return ix.keys(o)
}

// visitMissing visits the keys of a that b does not have.
func visitMissing(ix Index, a, b []string, visit func(Dep)) {
next:
	for _, k := range a {
		for _, other := range b {
			if k == other {
				continue next
			}
		}
		visit(Dep{ix, k})
	}
}

var tableOf = func() map[Kind]*table {
	m := make(map[Kind]*table, len(tables))
	for _, t := range tables {
		m[t.kind] = t
	}
	return m
}()
