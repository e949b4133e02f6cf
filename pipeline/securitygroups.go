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
// The rules of a stateless group judge the packet itself instead. Where a port has
// both, those are asked first, and conntrack sees what they do not allow.
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
	commitTrack   = 20
	commitRefused = 10
)

// gate is the tables of one direction.
type gate struct {
	direction                 string
	ct, rules, groups, commit *Table
	next                      *Table
	port, zone                flows.Field
	connection, packet        judged
	refused                   DropReason
}

// judged is what the rules of a direction look at: the tuple of a connection, or
// a packet by itself.
type judged struct {
	state            flows.Term  // tells the two apart
	remote4, remote6 flows.Field // the other side
	protocol         flows.Field
	tracked          bool
}

// tracked are the packets that belong to a connection, old or new: only they have
// a tuple to match on.
var tracked, untracked = flows.CtState.Masked(ctTracked, ctInvalid|ctTracked), flows.CtState.Masked(0, ctTracked)

var (
	egressGate = &gate{
		direction: network.Egress, ct: EgressCt, rules: EgressRules, groups: EgressGroups, commit: EgressCommit, next: RouterAdmit,
		port: RegSource, zone: RegSourceZone, refused: DropEgressRules,
		connection: judged{tracked, flows.CtNwDst, flows.CtIPv6Dst, flows.CtNwProto, true},
		packet:     judged{untracked, flows.IPv4Dst, flows.IPv6Dst, flows.IPProto, false},
	}
	ingressGate = &gate{
		direction: network.Ingress, ct: IngressCt, rules: IngressRules, groups: IngressGroups, commit: IngressCommit, next: Qos,
		port: RegDest, zone: RegDestZone, refused: DropIngressRules,
		connection: judged{tracked, flows.CtNwSrc, flows.CtIPv6Src, flows.CtNwProto, true},
		packet:     judged{untracked, flows.IPv4Src, flows.IPv6Src, flows.IPProto, false},
	}
	gates = []*gate{egressGate, ingressGate}
)

// judges is what the rules of a group look at.
func (g *gate) judges(stateless bool) *judged {
	if stateless {
		return &g.packet
	}
	return &g.connection
}

func (g *gate) other() *gate {
	if g == egressGate {
		return ingressGate
	}
	return egressGate
}

// families are the two of IP.
var families = []flows.Term{flows.IPv4, flows.IPv6}

// ICMPv6 that always passes, out of a server and into it: questions for multicast
// listeners, solicitations and advertisements, as in Neutron. And what listeners
// report: conntrack takes that for invalid, and a switch that does not hear it
// sends them no multicast, so no neighbour solicitations.
var (
	basicICMPv6Out = []uint64{130, 131, 132, 133, 135, 136, 143}
	basicICMPv6In  = []uint64{130, 134, 135, 136}
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
			c.Flow(g.commit, commitNew, flows.NewMatch(allowed, flows.CtState.Masked(ctNew|ctTracked, ctNew|ctTracked), f),
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
	groups := groupsHere(c, p.Port)
	zone := uint64(c.View.Zone(network.PortZone(p.ID), c.Host.Name))
	for _, g := range gates {
		of := g.port.Is(uint64(p.Key))
		c.Flow(g.ct, ctOther, flows.NewMatch(of), Drop(DropEtherType)...)
		for _, f := range families {
			compileEntry(c, g, groups, f, of, zone)
		}
		if groups.none() {
			continue
		}
		c.Flow(g.commit, commitRefused, flows.NewMatch(of), Drop(g.refused)...)
		if groups.stateful == nil {
			continue
		}
		c.Flow(g.rules, rulesInvalid, flows.NewMatch(of, flows.CtState.Masked(ctInvalid|ctTracked, ctInvalid|ctTracked)), Drop(DropInvalid)...)
		c.Flow(g.rules, rulesPort, flows.NewMatch(of, RegGroup.Is(0), flows.CtState.Masked(ctTracked, ctReply|ctTracked)), askGroups(g, g, groups.stateful)...)
		c.Flow(g.rules, rulesPort, flows.NewMatch(of, RegGroup.Is(0), flows.CtState.Masked(ctReply|ctTracked, ctReply|ctTracked)), askGroups(g, g.other(), groups.stateful)...)
	}
}

// compileEntry says what becomes of the packets of a family that come to the gate
// of a port: of is the match on the port.
func compileEntry(c *Context, g *gate, groups groupsOf, f, of flows.Term, zone uint64) {
	match := flows.NewMatch(of, f)
	track := []flows.Action{flows.SetField(g.zone, zone), flows.CT(flows.CTSpec{ZoneField: g.zone, Table: g.rules.ID})}
	switch {
	case groups.none():
		c.Flow(g.ct, ctIP, match, Drop(g.refused)...)
	case groups.stateful != nil && zone == 0:
		c.Flow(g.ct, ctIP, match, Drop(DropNoZone)...)
	case groups.stateless == nil:
		c.Flow(g.ct, ctIP, match, track...)
	default:
		// It may have come from the ct of its sender.
		c.Flow(g.ct, ctIP, match, append([]flows.Action{flows.CTClear()}, askGroups(g, g, groups.stateless)...)...)
		if groups.stateful != nil {
			c.Flow(g.commit, commitTrack, flows.NewMatch(of, f, untracked), track...)
		}
	}
}

// groupsOf are the groups of a port that are on its host.
type groupsOf struct {
	stateful, stateless []*network.GroupPresence
}

func groupsHere(c *Context, p *network.Port) groupsOf {
	var of groupsOf
	for _, id := range p.SecurityGroups {
		gp := c.View.GroupPresence(id, c.Host.Name)
		if gp == nil {
			continue
		}
		if gp.Stateless {
			of.stateless = append(of.stateless, gp)
		} else {
			of.stateful = append(of.stateful, gp)
		}
	}
	byKey := func(a, b *network.GroupPresence) int { return cmp.Compare(a.Key, b.Key) }
	slices.SortFunc(of.stateful, byKey)
	slices.SortFunc(of.stateless, byKey)
	return of
}

func (o groupsOf) none() bool { return o.stateful == nil && o.stateless == nil }

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
	if awaitsPlug(c.View, p) {
		return
	}
	for _, id := range p.SecurityGroups {
		gp := c.View.GroupPresence(id, c.Host.Name)
		if gp == nil {
			continue
		}
		// Ports with the same address want the same flow.
		c.flags, c.object = FlagSecurityGroup, gp.Key
		for _, g := range gates {
			for _, stateless := range []bool{false, true} {
				if gp.Remote(g.direction, stateless) {
					compileMember(c, g, g.judges(stateless), gp, p)
				}
			}
		}
	}
}

// awaitsPlug reports whether a port is bound to a host of ours on which nothing
// is plugged for it, so that it neither sends nor receives: what others need for
// it is sent with the rest of its flows, once.
// Not so an address that it only reserves, and another port may hold.
func awaitsPlug(v *network.View, p *network.Port) bool {
	if p.Binding.Host == "" || p.Binding.VIFType != network.VIFTypeOVS || v.WiredHost(p) != "" {
		return false
	}
	return !slices.ContainsFunc(p.FixedIPs, func(f network.FixedIP) bool { return v.AddressShared(p, f.IP) })
}

func compileMember(c *Context, g *gate, j *judged, gp *network.GroupPresence, p *network.Port) {
	member := func(prefix netip.Prefix) {
		terms := append(j.from(prefix), RegRemoteGroup.Is(uint64(gp.Key)))
		c.Flow(g.groups, groupMember, flows.NewMatch(terms...), flows.Resubmit(g.rules.ID))
	}
	for _, f := range p.FixedIPs {
		member(hostPrefix(f.IP))
	}
	for _, pair := range p.AllowedAddressPairs {
		member(pair.IP.Masked())
	}
}

// from matches what has its other side in a block.
func (j *judged) from(prefix netip.Prefix) []flows.Term {
	f, field := families[0], j.remote4
	if prefix.Addr().Is6() {
		f, field = families[1], j.remote6
	}
	if prefix.Bits() == 0 {
		return j.of(f)
	}
	return append(j.of(f), field.InPrefix(prefix.Masked()))
}

// of matches what is of a family.
func (j *judged) of(f flows.Term) []flows.Term { return []flows.Term{f, j.state} }

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
		remote, ok := remoteOf(c.View, c.Host.Name, r)
		if !ok {
			continue
		}
		remotes[remote] = true
		c.feature, c.flags, c.object = FeatureSecurityGroups, FlagSecurityGroupRule, r.Key
		for _, match := range g.matches(group, r, remote) {
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

// remoteOf is the key of the remote group of a rule, 0 when it names none; false
// when the host does not know that group.
func remoteOf(v *network.View, host string, r *network.SecurityGroupRule) (key uint32, ok bool) {
	if r.RemoteGroupID == "" {
		return 0, true
	}
	gp := v.GroupPresence(r.RemoteGroupID, host)
	if gp == nil {
		return 0, false
	}
	return gp.Key, true
}

// matches is what the flows of a rule match.
func (g *gate) matches(group *network.SecurityGroup, r *network.SecurityGroupRule, remote uint32) []flows.Match {
	var all []flows.Match
	for _, terms := range g.judges(group.Stateless).terms(r) {
		all = append(all, flows.NewMatch(append(terms, RegGroup.Is(uint64(group.Key)), RegRemoteGroup.Is(uint64(remote)))...))
	}
	return all
}

// RuleMatches is what the flows of a rule match on a host where its group is
// wired, and their table. Rules that come to the same flow share it.
func RuleMatches(v *network.View, host string, r *network.SecurityGroupRule) (*Table, []flows.Match) {
	g := egressGate
	if r.Direction == network.Ingress {
		g = ingressGate
	}
	remote, ok := remoteOf(v, host, r)
	if !ok {
		return g.rules, nil
	}
	return g.rules, g.matches(v.SecurityGroup(r.GroupID), r, remote)
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

// terms is what a rule matches, once for each block that its port range is made
// of. A later fragment has no ports to match on in the user-space datapath: it
// passes where a first one could, without which nobody can use it. By itself no
// fragment has ports: only rules that name none let it pass.
func (j *judged) terms(r *network.SecurityGroupRule) [][]flows.Term {
	if !r.ProtocolKnown() {
		return nil
	}
	terms := j.of(families[0])
	switch {
	case r.RemotePrefix.IsValid():
		terms = j.from(r.RemotePrefix)
	case r.Ethertype == network.IPv6:
		terms = j.of(families[1])
	}
	protocol, some := r.ProtocolNumber()
	if !some {
		return [][]flows.Term{terms}
	}
	terms = append(terms, j.protocol.Is(uint64(protocol)))
	if r.PortMin == network.NoPort {
		return [][]flows.Term{terms}
	}
	var all [][]flows.Term
	with := func(more ...flows.Term) { all = append(all, append(slices.Clone(terms), more...)) }
	if j.tracked {
		with(laterFragment)
	}
	if t, code, ok := j.icmp(protocol); ok {
		exact := []flows.Term{t.Is(uint64(r.PortMin))}
		if r.PortMax != network.NoPort {
			exact = append(exact, code.Is(uint64(r.PortMax)))
		}
		if !j.tracked {
			exact = append(exact, noFragment) // a fragment looks like type 0
		}
		with(exact...)
		return all
	}
	if port, ok := j.port(protocol); ok {
		for _, b := range portBlocks(uint32(r.PortMin), uint32(r.PortMax)) {
			with(port.Masked(b.value, b.mask))
		}
	}
	return all
}

// laterFragment matches the fragments of a packet after the first, noFragment a
// packet that is whole.
var laterFragment, noFragment = flows.IPFrag.Is(3), flows.IPFrag.Is(0)

// icmp is where the type and the code are, if the protocol has them: conntrack
// keeps them where others have ports.
func (j *judged) icmp(protocol uint8) (typ, code flows.Field, ok bool) {
	switch {
	case protocol != network.ProtocolICMP && protocol != network.ProtocolICMPv6:
		return 0, 0, false
	case j.tracked:
		return flows.CtTpSrc, flows.CtTpDst, true
	case protocol == network.ProtocolICMP:
		return flows.ICMPType, flows.ICMPCode, true
	}
	return flows.ICMPv6Type, flows.ICMPv6Code, true
}

var destinationPorts = map[uint8]flows.Field{
	network.ProtocolTCP: flows.TCPDst, network.ProtocolUDP: flows.UDPDst, network.ProtocolSCTP: flows.SCTPDst,
}

// port is where the destination port is, if a switch knows that of the protocol.
func (j *judged) port(protocol uint8) (field flows.Field, ok bool) {
	if j.tracked {
		return flows.CtTpDst, true
	}
	field, ok = destinationPorts[protocol]
	return field, ok
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
