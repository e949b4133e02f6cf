package pipeline

import (
	"cmp"
	"net/netip"
	"slices"

	"planck/flows"
	"planck/network"
)

// securityGroupFeature lets pass what the security groups of a port allow, in
// both directions, by conntrack.
//
// A packet comes back from ct with the tuple that began its connection, however
// it belongs to it: new, in either direction, as a fragment or as an ICMP error.
// The rules judge that tuple, each time: so they are written once, and what they
// no longer allow stops, established or not. A packet that is part of the
// connection of the other direction (a reply) goes through the rules of that.
//
// The groups of a port are asked one after the other: RegGroup says which one,
// RegRemoteGroup as a member of which of its remote groups, 0 for none. So a
// rule is one flow for all ports, and a member one for all rules.
type securityGroupFeature struct{}

// FeatureSecurityGroups is the feature in cookies. Flows for a group or a rule
// say so by their flag.
const FeatureSecurityGroups FeatureID = 40

func (securityGroupFeature) ID() FeatureID { return FeatureSecurityGroups }
func (securityGroupFeature) Name() string  { return "security-groups" }

// Bits of ct_state.
const (
	ctNew     = 1 << 0
	ctReply   = 1 << 3
	ctInvalid = 1 << 4
	ctTracked = 1 << 5
)

// Priorities in EgressCt and IngressCt.
const (
	ctBasic = 200 // what every server needs, whatever its groups
	ctIP    = 60
	ctOther = 50
)

// Priorities in the tables of rules, groups and commits.
const (
	groupAllowed  = 200 // allowed already: the next groups need not be asked
	rulesInvalid  = 150
	rulesRule     = 100
	groupMember   = 100
	rulesPort     = 50
	groupEntry    = 50
	commitNew     = 100
	commitAllowed = 90
	commitRefused = 10
)

// gate is the tables of one direction.
type gate struct {
	direction                 string
	ct, rules, groups, commit *Table
	next                      *Table
	port, zone                flows.Field
	remote4, remote6          flows.Field // the other side, in the tuple of a connection of this direction
	refused                   DropReason
}

var (
	egressGate = &gate{
		direction: network.Egress, ct: EgressCt, rules: EgressRules, groups: EgressGroups, commit: EgressCommit, next: RouterAdmit,
		port: RegSource, zone: RegSourceZone, remote4: flows.CtNwDst, remote6: flows.CtIPv6Dst, refused: DropEgressRules,
	}
	ingressGate = &gate{
		direction: network.Ingress, ct: IngressCt, rules: IngressRules, groups: IngressGroups, commit: IngressCommit, next: Qos,
		port: RegDest, zone: RegDestZone, remote4: flows.CtNwSrc, remote6: flows.CtIPv6Src, refused: DropIngressRules,
	}
	gates = []*gate{egressGate, ingressGate}
)

func (g *gate) other() *gate {
	if g == egressGate {
		return ingressGate
	}
	return egressGate
}

// family is one of the two of IP.
type family struct {
	ethertype string
	match     flows.Term
}

var families = []family{{network.IPv4, flows.IPv4}, {network.IPv6, flows.IPv6}}

// ICMPv6 that always passes, out of a server and into it: multicast listeners,
// solicitations and advertisements.
var (
	basicICMPv6Out = []uint64{130, 131, 132, 133, 135, 136, 143}
	basicICMPv6In  = []uint64{130, 131, 132, 134, 135, 136, 143}
)

const etherTypeRARP = 0x8035

// CompileHost implements HostFeature.
func (securityGroupFeature) CompileHost(c *Context) {
	basics := func(g *gate, icmpTypes []uint64, src4, dst4, src6, dst6 uint64) {
		for _, t := range icmpTypes {
			c.Flow(g.ct, ctBasic, flows.NewMatch(flows.IPv6, flows.ICMPv6, flows.ICMPv6Type.Is(t)), To(g.next))
		}
		c.Flow(g.ct, ctBasic, flows.NewMatch(flows.IPv4, flows.UDP, flows.UDPSrc.Is(src4), flows.UDPDst.Is(dst4)), To(g.next))
		c.Flow(g.ct, ctBasic, flows.NewMatch(flows.IPv6, flows.UDP, flows.UDPSrc.Is(src6), flows.UDPDst.Is(dst6)), To(g.next))
		c.Flow(g.ct, ctBasic, flows.NewMatch(flows.ARP), To(g.next))
		c.Flow(g.ct, ctBasic, flows.NewMatch(flows.EthType.Is(etherTypeRARP)), To(g.next))
	}
	basics(egressGate, basicICMPv6Out, udpBootpClient, udpBootpServer, udpDHCPv6Client, udpDHCPv6Server)
	basics(ingressGate, basicICMPv6In, udpBootpServer, udpBootpClient, udpDHCPv6Server, udpDHCPv6Client)
	for _, g := range gates {
		allowed := RegFlags.Masked(flagAllowed, flagAllowed)
		forget := flows.SetMasked(RegFlags, 0, flagAllowed)
		c.Flow(g.groups, groupAllowed, flows.NewMatch(allowed))
		for _, f := range families {
			c.Flow(g.commit, commitNew, flows.NewMatch(allowed, flows.CtState.Masked(ctNew|ctTracked, ctNew|ctTracked), f.match),
				forget, flows.CT(flows.CTSpec{Commit: true, ZoneField: g.zone, Table: flows.TableNone}), To(g.next))
		}
		c.Flow(g.commit, commitAllowed, flows.NewMatch(allowed), forget, To(g.next))
		c.Flow(g.commit, 0, everything, Drop(g.refused)...)
		c.Flow(g.rules, 0, everything)
		c.Flow(g.groups, 0, everything)
	}
}

// CompilePort implements PortFeature.
func (securityGroupFeature) CompilePort(c *Context, p *PortContext) {
	if p.VIF == nil || !p.Up() || !p.PortSecurityEnabled {
		return
	}
	var groups []*network.GroupPresence
	var open network.Openness
	for _, id := range p.SecurityGroups {
		if gp := c.View.GroupPresence(id, c.Host.Name); gp != nil {
			groups = append(groups, gp)
			open = open.Or(gp.Open)
		}
	}
	slices.SortFunc(groups, func(a, b *network.GroupPresence) int { return cmp.Compare(a.Key, b.Key) })
	zone := uint64(c.View.Zone(network.PortZone(p.ID), c.Host.Name))
	tracked := false
	for _, g := range gates {
		of := g.port.Is(uint64(p.Key))
		c.Flow(g.ct, ctOther, flows.NewMatch(of), Drop(DropEtherType)...)
		for _, f := range families {
			match := flows.NewMatch(of, f.match)
			switch {
			case len(groups) == 0:
				c.Flow(g.ct, ctIP, match, Drop(g.refused)...)
			case opened(open, f.ethertype):
				c.Flow(g.ct, ctIP, match, To(g.next))
			case zone == 0:
				c.Flow(g.ct, ctIP, match, Drop(DropNoZone)...)
			default:
				tracked = true
				c.Flow(g.ct, ctIP, match, flows.SetField(g.zone, zone),
					flows.CT(flows.CTSpec{ZoneField: g.zone, Table: g.rules.ID}))
			}
		}
	}
	if !tracked {
		return
	}
	for _, g := range gates {
		of := g.port.Is(uint64(p.Key))
		c.Flow(g.rules, rulesInvalid, flows.NewMatch(of, flows.CtState.Masked(ctInvalid|ctTracked, ctInvalid|ctTracked)), Drop(DropInvalid)...)
		c.Flow(g.rules, rulesPort, flows.NewMatch(of, RegGroup.Is(0), flows.CtState.Masked(ctTracked, ctReply|ctTracked)), askGroups(g, g, groups)...)
		c.Flow(g.rules, rulesPort, flows.NewMatch(of, RegGroup.Is(0), flows.CtState.Masked(ctReply|ctTracked, ctReply|ctTracked)), askGroups(g, g.other(), groups)...)
		c.Flow(g.commit, commitRefused, flows.NewMatch(of), Drop(g.refused)...)
	}
}

// opened reports whether groups let everything of a family pass in both
// directions: then no connection has to be remembered.
func opened(o network.Openness, ethertype string) bool {
	if ethertype == network.IPv4 {
		return o.IngressIPv4 && o.EgressIPv4
	}
	return o.IngressIPv6 && o.EgressIPv6
}

// askGroups is the actions of a port that ask its groups one by one, in the
// direction of the connection, and go on in the direction of the packet.
func askGroups(packet, connection *gate, groups []*network.GroupPresence) []flows.Action {
	var actions []flows.Action
	for _, gp := range groups {
		actions = append(actions, flows.SetField(RegGroup, uint64(gp.Key)), flows.SetField(RegRemoteGroup, 0), flows.Resubmit(connection.groups.ID))
	}
	return append(actions, flows.SetField(RegGroup, 0), To(packet.commit))
}

// CompileMember implements MemberFeature: the addresses of a port where its
// groups are the remote groups of others.
func (securityGroupFeature) CompileMember(c *Context, p *network.Port) {
	for _, id := range p.SecurityGroups {
		gp := c.View.GroupPresence(id, c.Host.Name)
		if gp == nil {
			continue
		}
		// Ports with the same address want the same flow.
		c.flags, c.object = FlagSecurityGroup, gp.Key
		for _, g := range gates {
			if g == ingressGate && gp.RemoteIngress || g == egressGate && gp.RemoteEgress {
				compileMember(c, g, gp, p)
			}
		}
	}
}

func compileMember(c *Context, g *gate, gp *network.GroupPresence, p *network.Port) {
	member := func(prefix netip.Prefix) {
		terms := append(g.from(prefix), RegRemoteGroup.Is(uint64(gp.Key)))
		c.Flow(g.groups, groupMember, flows.NewMatch(terms...), flows.Resubmit(g.rules.ID))
	}
	for _, f := range p.FixedIPs {
		member(hostPrefix(f.IP))
	}
	for _, pair := range p.AllowedAddressPairs {
		member(pair.IP.Masked())
	}
}

// from matches the connections of a direction with the other side in a block.
func (g *gate) from(prefix netip.Prefix) []flows.Term {
	f, field := families[0], g.remote4
	if prefix.Addr().Is6() {
		f, field = families[1], g.remote6
	}
	if prefix.Bits() == 0 {
		return f.tracked()
	}
	return append(f.tracked(), field.InPrefix(prefix.Masked()))
}

// tracked matches the packets of a family that belong to a connection, old or
// new: only they have a tuple to match on.
func (f family) tracked() []flows.Term {
	return []flows.Term{f.match, flows.CtState.Masked(ctTracked, ctInvalid|ctTracked)}
}

// compileGroup makes the flows of a security group that ports on the host have.
func compileGroup(c *Context, id string) {
	g, gp := c.View.SecurityGroup(id), c.View.GroupPresence(id, c.Host.Name)
	if g == nil || gp == nil || !gp.Wired {
		return
	}
	rules := slices.SortedFunc(c.View.RulesOf(id), func(a, b *network.SecurityGroupRule) int { return cmp.Compare(a.Key, b.Key) })
	for _, gate := range gates {
		own := slices.DeleteFunc(slices.Clone(rules), func(r *network.SecurityGroupRule) bool { return r.Direction != gate.direction })
		compileGroupRules(c, gate, g, own)
	}
}

func compileGroupRules(c *Context, g *gate, group *network.SecurityGroup, rules []*network.SecurityGroupRule) {
	remotes := map[uint32]bool{0: false} // whether there are rules for it; 0 is anybody
	seen := map[flows.Match]bool{}
	for _, r := range rules {
		remote := uint32(0)
		if r.RemoteGroupID != "" {
			gp := c.View.GroupPresence(r.RemoteGroupID, c.Host.Name)
			if gp == nil {
				continue
			}
			remote = gp.Key
		}
		remotes[remote] = true
		c.feature, c.flags, c.object = FeatureSecurityGroups, FlagSecurityGroupRule, r.Key
		for _, terms := range ruleTerms(g, r) {
			match := flows.NewMatch(append(terms, RegGroup.Is(uint64(group.Key)), RegRemoteGroup.Is(uint64(remote)))...)
			// Ranges that overlap share flows.
			if !seen[match] {
				seen[match] = true
				c.Flow(g.rules, rulesRule, match, flows.SetMasked(RegFlags, flagAllowed, flagAllowed))
			}
		}
	}
	if len(rules) == 0 {
		return
	}
	c.feature, c.flags, c.object = FeatureSecurityGroups, FlagSecurityGroup, group.Key
	c.Flow(g.groups, groupEntry, flows.NewMatch(RegGroup.Is(uint64(group.Key)), RegRemoteGroup.Is(0)), askRemotes(g, remotes)...)
}

// askRemotes is the actions of a group that go through its rules: those for
// anybody, then those for the members of each remote group.
func askRemotes(g *gate, remotes map[uint32]bool) []flows.Action {
	var keys []uint32
	for key := range remotes {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	var actions []flows.Action
	for _, key := range keys {
		switch {
		case key != 0:
			actions = append(actions, flows.SetField(RegRemoteGroup, uint64(key)), flows.Resubmit(g.groups.ID))
		case remotes[0]:
			actions = append(actions, flows.Resubmit(g.rules.ID))
		}
	}
	return actions
}

// ruleTerms is what a rule matches, once for each block that its port range is
// made of. A later fragment has no ports to match on in the user-space datapath:
// it passes where a first one could, without which nobody can use it.
func ruleTerms(g *gate, r *network.SecurityGroupRule) [][]flows.Term {
	f := families[0]
	if r.Ethertype == network.IPv6 {
		f = families[1]
	}
	terms := f.tracked()
	if r.RemotePrefix.IsValid() {
		terms = g.from(r.RemotePrefix)
	}
	protocol, some := r.ProtocolNumber()
	if !some {
		return [][]flows.Term{terms}
	}
	terms = append(terms, flows.CtNwProto.Is(uint64(protocol)))
	if protocol == network.ProtocolICMP || protocol == network.ProtocolICMPv6 {
		if r.PortMin == network.NoPort {
			return [][]flows.Term{terms}
		}
		return [][]flows.Term{append(slices.Clone(terms), icmpTerms(r)...), append(slices.Clone(terms), laterFragment)}
	}
	if r.PortMin == network.NoPort {
		return [][]flows.Term{terms}
	}
	all := [][]flows.Term{append(slices.Clone(terms), laterFragment)}
	for _, b := range portBlocks(uint32(r.PortMin), uint32(r.PortMax)) {
		all = append(all, append(slices.Clone(terms), flows.CtTpDst.Masked(b.value, b.mask)))
	}
	return all
}

// laterFragment matches the fragments of a packet after the first.
var laterFragment = flows.IPFrag.Is(3)

// icmpTerms: conntrack keeps the type and code where others have ports.
func icmpTerms(r *network.SecurityGroupRule) []flows.Term {
	terms := []flows.Term{flows.CtTpSrc.Is(uint64(r.PortMin))}
	if r.PortMax != network.NoPort {
		terms = append(terms, flows.CtTpDst.Is(uint64(r.PortMax)))
	}
	return terms
}

// block is the ports that agree with value where mask has ones.
type block struct{ value, mask uint64 }

// portBlocks is the fewest blocks that make up a range: 30 at the most.
func portBlocks(low, high uint32) []block {
	var blocks []block
	for low <= high {
		size := uint32(1)
		for low&(2*size-1) == 0 && low+2*size-1 <= high && size < 1<<16 {
			size *= 2
		}
		blocks = append(blocks, block{uint64(low), uint64(0x10000-size) & 0xffff})
		low += size
	}
	return blocks
}
