package network

import (
	"iter"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// The kinds of objects that security groups are made of.
const (
	KindSecurityGroup     Kind = "security_group"
	KindSecurityGroupRule Kind = "security_group_rule"
	KindGroupPresence     Kind = "group_presence"
)

// SecurityGroup is a set of rules for ports (extension security-group).
type SecurityGroup struct {
	Standard
	// Default says that it is the group of the project's ports that did not ask for one.
	Default bool `json:"default,omitempty"`
	// Stateless says that its rules judge each packet by itself: what answers to
	// one that they allow needs a rule, too (extension stateful-security-group).
	Stateless bool `json:"stateless,omitempty"`
	// Key is the small id of the group in flows. Never 0.
	Key uint32 `json:"key"`
}

// ObjectKind implements Object.
func (*SecurityGroup) ObjectKind() Kind { return KindSecurityGroup }

// Directions of rules, as the port's server sees them.
const (
	Ingress = "ingress"
	Egress  = "egress"
)

// Ethertypes of rules.
const (
	IPv4 = "IPv4"
	IPv6 = "IPv6"
)

// NoPort is the PortMin or PortMax of a rule that has none.
const NoPort = -1

// SecurityGroupRule lets the connections pass that it describes.
type SecurityGroupRule struct {
	Standard
	GroupID   string `json:"security_group_id"`
	Direction string `json:"direction"`
	Ethertype string `json:"ethertype"`
	// Protocol is a name or a number, as the client gave it; "" is any.
	Protocol string `json:"protocol,omitempty"`
	// PortMin and PortMax are destination ports, or the type and code of ICMP; or NoPort.
	PortMin int `json:"port_range_min"`
	PortMax int `json:"port_range_max"`
	// RemotePrefix may have bits beyond its length, as the client gave it; zero for none.
	RemotePrefix  netip.Prefix `json:"remote_ip_prefix"`
	RemoteGroupID string       `json:"remote_group_id,omitempty"`
	// Key is the small id of the rule in cookies. Never 0.
	Key uint32 `json:"key"`
}

// ObjectKind implements Object.
func (*SecurityGroupRule) ObjectKind() Kind { return KindSecurityGroupRule }

// GroupPresence says what a host has to know of a security group: because
// ports with the group are wired there, or because the rules of groups that
// are wired there name it as their remote group.
type GroupPresence struct {
	GroupID string `json:"security_group_id"`
	Host    string `json:"host"`
	Key     uint32 `json:"key"` // of the group
	Wired   bool   `json:"wired,omitempty"`
	// Stateless is that of a wired group.
	Stateless bool `json:"stateless,omitempty"`
	// RemoteIngress and RemoteEgress say in which direction there are such rules
	// of stateful groups, RemoteStatelessIngress and RemoteStatelessEgress of
	// stateless ones.
	RemoteIngress          bool `json:"remote_ingress,omitempty"`
	RemoteEgress           bool `json:"remote_egress,omitempty"`
	RemoteStatelessIngress bool `json:"remote_stateless_ingress,omitempty"`
	RemoteStatelessEgress  bool `json:"remote_stateless_egress,omitempty"`
}

// ObjectKind implements Object.
func (*GroupPresence) ObjectKind() Kind { return KindGroupPresence }

// ObjectID implements Object.
func (p *GroupPresence) ObjectID() string { return GroupPresenceID(p.GroupID, p.Host) }

// GroupPresenceID is the id of a GroupPresence object.
func GroupPresenceID(groupID, host string) string { return groupID + "@" + host }

// Remote reports whether stateless, or stateful, groups that are wired on the
// host name the group in rules for a direction.
func (p *GroupPresence) Remote(direction string, stateless bool) bool {
	return *p.remote(direction, stateless)
}

func (p *GroupPresence) remote(direction string, stateless bool) *bool {
	switch {
	case direction == Ingress && stateless:
		return &p.RemoteStatelessIngress
	case direction == Ingress:
		return &p.RemoteIngress
	case stateless:
		return &p.RemoteStatelessEgress
	}
	return &p.RemoteEgress
}

// Named reports whether rules of groups that are wired on the host name the group.
func (p *GroupPresence) Named() bool {
	return p.RemoteIngress || p.RemoteEgress || p.RemoteStatelessIngress || p.RemoteStatelessEgress
}

// Clone returns a copy that may be modified.
func (g *SecurityGroup) Clone() *SecurityGroup {
	c := *g
	c.Standard = g.clone()
	return &c
}

// Clone returns a copy that may be modified.
func (r *SecurityGroupRule) Clone() *SecurityGroupRule {
	c := *r
	c.Standard = r.clone()
	return &c
}

// The protocols that have a meaning here, by number.
const (
	ProtocolICMP    = 1
	ProtocolTCP     = 6
	ProtocolUDP     = 17
	ProtocolDCCP    = 33
	ProtocolICMPv6  = 58
	ProtocolSCTP    = 132
	ProtocolUDPLite = 136
)

// Protocols has the numbers of the protocols that a rule may name.
var Protocols = map[string]uint8{
	"any": 0, "ip": 0, "ah": 51, "dccp": ProtocolDCCP, "egp": 8, "esp": 50, "gre": 47, "hopopt": 0,
	"icmp": ProtocolICMP, "icmpv6": ProtocolICMPv6, "igmp": 2, "ipip": 4, "ipv6-encap": 41, "ipv6-frag": 44,
	"ipv6-icmp": ProtocolICMPv6, "ipv6-nonxt": 59, "ipv6-opts": 60, "ipv6-route": 43, "ospf": 89, "pgm": 113,
	"rsvp": 46, "sctp": ProtocolSCTP, "tcp": ProtocolTCP, "udp": ProtocolUDP, "udplite": ProtocolUDPLite, "vrrp": 112,
}

// ProtocolNumber is the protocol's number; some is false for any protocol, and for
// one that is not known.
func (r *SecurityGroupRule) ProtocolNumber() (n uint8, some bool) {
	if r.Protocol == "" {
		return 0, false
	}
	n, named := Protocols[r.Protocol]
	if !named {
		v, err := strconv.ParseUint(r.Protocol, 10, 8)
		if err != nil {
			return 0, false
		}
		n = uint8(v)
	}
	return n, n != 0
}

// ProtocolKnown reports whether the protocol is any, or one that has a number.
func (r *SecurityGroupRule) ProtocolKnown() bool {
	if _, named := Protocols[r.Protocol]; named || r.Protocol == "" {
		return true
	}
	_, err := strconv.ParseUint(r.Protocol, 10, 8)
	return err == nil
}

// hasPorts reports whether the range of a rule with this protocol is one of ports.
func hasPorts(protocol uint8) bool {
	switch protocol {
	case ProtocolTCP, ProtocolUDP, ProtocolDCCP, ProtocolSCTP, ProtocolUDPLite:
		return true
	}
	return false
}

// SecurityGroup returns the security group with this id, or nil.
func (v *View) SecurityGroup(id string) *SecurityGroup {
	return byID[SecurityGroup](v, KindSecurityGroup, id)
}

// SecurityGroupRule returns the rule with this id, or nil.
func (v *View) SecurityGroupRule(id string) *SecurityGroupRule {
	return byID[SecurityGroupRule](v, KindSecurityGroupRule, id)
}

// SecurityGroups are all security groups.
func (v *View) SecurityGroups() iter.Seq[*SecurityGroup] {
	return all[SecurityGroup](v, KindSecurityGroup)
}

// SecurityGroupRules are all rules of all groups.
func (v *View) SecurityGroupRules() iter.Seq[*SecurityGroupRule] {
	return all[SecurityGroupRule](v, KindSecurityGroupRule)
}

// SecurityGroupsOfProject are the security groups that a project owns.
func (v *View) SecurityGroupsOfProject(projectID string) iter.Seq[*SecurityGroup] {
	return list[SecurityGroup](v, KindSecurityGroup, IndexSecurityGroupsOfProject, projectID)
}

// SecurityGroupRulesOfProject are the rules that a project owns.
func (v *View) SecurityGroupRulesOfProject(projectID string) iter.Seq[*SecurityGroupRule] {
	return list[SecurityGroupRule](v, KindSecurityGroupRule, IndexSecurityGroupRulesOfProject, projectID)
}

// RulesOf are the rules of a security group.
func (v *View) RulesOf(groupID string) iter.Seq[*SecurityGroupRule] {
	return list[SecurityGroupRule](v, KindSecurityGroupRule, IndexRulesOf, groupID)
}

// RulesNaming are the rules whose remote group is a security group.
func (v *View) RulesNaming(remoteGroupID string) iter.Seq[*SecurityGroupRule] {
	return list[SecurityGroupRule](v, KindSecurityGroupRule, IndexRulesNaming, remoteGroupID)
}

// PortsOfGroup are the ports that have a security group.
func (v *View) PortsOfGroup(groupID string) iter.Seq[*Port] {
	return list[Port](v, KindPort, IndexPortsOfGroup, groupID)
}

// portsOfGroupOn are the ports of a security group whose active binding names the host.
func (v *View) portsOfGroupOn(groupID, host string) iter.Seq[*Port] {
	return list[Port](v, KindPort, indexPortsOfGroupOn, GroupPresenceID(groupID, host))
}

// GroupPresence returns the presence of a security group on a host, or nil.
func (v *View) GroupPresence(groupID, host string) *GroupPresence {
	return byID[GroupPresence](v, KindGroupPresence, GroupPresenceID(groupID, host))
}

// GroupPresencesOf are the presences of a security group.
func (v *View) GroupPresencesOf(groupID string) iter.Seq[*GroupPresence] {
	return list[GroupPresence](v, KindGroupPresence, IndexGroupPresencesOf, groupID)
}

// SecurityGroupByKey returns the security group with this small id, or nil.
func (v *View) SecurityGroupByKey(key uint32) *SecurityGroup {
	return lookup[SecurityGroup](v, KindSecurityGroup, IndexSecurityGroupByKey, smallKey(key))
}

// SecurityGroupRuleByKey returns the rule with this small id, or nil.
func (v *View) SecurityGroupRuleByKey(key uint32) *SecurityGroupRule {
	return lookup[SecurityGroupRule](v, KindSecurityGroupRule, IndexSecurityGroupRuleByKey, smallKey(key))
}

// portGroupsOn lists a port under each of its groups on the host it is bound to.
func portGroupsOn(o Object) []string {
	p := o.(*Port)
	keys := make([]string, len(p.SecurityGroups))
	for i, g := range p.SecurityGroups {
		keys[i] = GroupPresenceID(g, p.Binding.Host)
	}
	return keys
}

// ruleRemote lists a rule under its remote group.
func ruleRemote(o Object) []string {
	r := o.(*SecurityGroupRule)
	if r.RemoteGroupID == "" {
		return nil
	}
	return []string{r.RemoteGroupID}
}

// SecurityGroupNotFound is the error for groups that are not there.
func SecurityGroupNotFound(ids ...string) *Error {
	return Errorf(NotFound, "SecurityGroupNotFound", "Security group %s does not exist", strings.Join(ids, ", "))
}

func ruleNotFound(id string) *Error {
	return Errorf(NotFound, "SecurityGroupRuleNotFound", "Security group rule %s does not exist", id)
}

// defaultGroupName is reserved for the group that each project has.
const defaultGroupName = "default"

// DefaultSecurityGroup returns the default group of a project, which is made on
// first use: its members may reach anybody, and each other.
func (tx *Tx) DefaultSecurityGroup(projectID string) (*SecurityGroup, error) {
	if c, ok := tx.claimant(spaceDefaultGroup, projectID); ok {
		return tx.SecurityGroup(c.OwnerID), nil
	}
	g := &SecurityGroup{
		Standard: Standard{ProjectID: projectID, Name: defaultGroupName, Description: "Default security group"},
		Default:  true,
	}
	if err := tx.createGroup(g); err != nil {
		return nil, err
	}
	for _, ethertype := range []string{IPv4, IPv6} {
		r := newRule(g, Ingress, ethertype)
		r.RemoteGroupID = g.ID
		if err := tx.CreateSecurityGroupRule(r); err != nil {
			return nil, err
		}
	}
	return g, nil
}

// HasDefaultSecurityGroup reports whether a project has its default group yet.
func (v *View) HasDefaultSecurityGroup(projectID string) bool {
	_, ok := v.claimant(spaceDefaultGroup, projectID)
	return ok
}

// RulesWithNewGroup is how many rules come with one more group of a project: two
// of its own, and the four of the default group if that has to be made first.
func (v *View) RulesWithNewGroup(projectID string) int {
	if v.HasDefaultSecurityGroup(projectID) {
		return 2
	}
	return 2 + 4
}

// CreateSecurityGroup creates a group whose members may reach anybody, by two
// rules that can be deleted. The project has its default group then, too.
func (tx *Tx) CreateSecurityGroup(g *SecurityGroup) error {
	if strings.EqualFold(g.Name, defaultGroupName) {
		return Errorf(Conflict, "SecurityGroupDefaultAlreadyExists", "Default security group already exists.")
	}
	if _, err := tx.DefaultSecurityGroup(g.ProjectID); err != nil {
		return err
	}
	g.Default = false
	return tx.createGroup(g)
}

func (tx *Tx) createGroup(g *SecurityGroup) error {
	tx.begin(&g.Standard)
	if tx.SecurityGroup(g.ID) != nil {
		return idTaken(KindSecurityGroup, g.ID)
	}
	key, err := tx.smallID(spaceGroupKey)
	if err != nil {
		return err
	}
	g.Key = key
	g.trim()
	if err := tx.put(g.Clone()); err != nil {
		return err
	}
	for _, ethertype := range []string{IPv4, IPv6} {
		if err := tx.putRule(newRule(g, Egress, ethertype)); err != nil {
			return err
		}
	}
	return nil
}

func newRule(g *SecurityGroup, direction, ethertype string) *SecurityGroupRule {
	return &SecurityGroupRule{
		Standard: Standard{ProjectID: g.ProjectID}, GroupID: g.ID,
		Direction: direction, Ethertype: ethertype, PortMin: NoPort, PortMax: NoPort,
	}
}

// UpdateSecurityGroup replaces a group by a modified copy. The default group
// keeps its name, and a group that ports have stays stateful, or stateless.
func (tx *Tx) UpdateSecurityGroup(g *SecurityGroup) error {
	old := tx.SecurityGroup(g.ID)
	if old == nil {
		return SecurityGroupNotFound(g.ID)
	}
	if g.Name != old.Name {
		if old.Default {
			return Errorf(Conflict, "SecurityGroupCannotUpdateDefault", "Updating default security group not allowed.")
		}
		if strings.EqualFold(g.Name, defaultGroupName) {
			return Errorf(Conflict, "SecurityGroupDefaultAlreadyExists", "Default security group already exists.")
		}
	}
	if g.Stateless != old.Stateless {
		if err := tx.checkGroupUnused(g.ID); err != nil {
			return err
		}
	}
	g.Default, g.Key = old.Default, old.Key
	_, err := replace(tx, old, g)
	return err
}

// SecurityGroupInUse reports whether a port has the security group.
func (v *View) SecurityGroupInUse(id string) bool {
	for range v.PortsOfGroup(id) {
		return true
	}
	return false
}

func (tx *Tx) checkGroupUnused(id string) error {
	if tx.SecurityGroupInUse(id) {
		return Errorf(Conflict, "SecurityGroupInUse", "Security Group %s in use.", id)
	}
	return nil
}

// DeleteSecurityGroup deletes a group that no port has, its rules, and the
// rules of other groups that name it.
func (tx *Tx) DeleteSecurityGroup(id string) error {
	if tx.SecurityGroup(id) == nil {
		return SecurityGroupNotFound(id)
	}
	if err := tx.checkGroupUnused(id); err != nil {
		return err
	}
	for _, r := range slices.Concat(slices.Collect(tx.RulesOf(id)), slices.Collect(tx.RulesNaming(id))) {
		if tx.SecurityGroupRule(r.ID) == nil {
			continue
		}
		if err := tx.DeleteSecurityGroupRule(r.ID); err != nil {
			return err
		}
	}
	tx.remove(KindSecurityGroup, id)
	return nil
}

// CreateSecurityGroupRule adds a rule to a group.
func (tx *Tx) CreateSecurityGroupRule(r *SecurityGroupRule) error {
	if err := r.Check(); err != nil {
		return err
	}
	if tx.SecurityGroup(r.GroupID) == nil {
		return SecurityGroupNotFound(r.GroupID)
	}
	if r.RemoteGroupID != "" && tx.SecurityGroup(r.RemoteGroupID) == nil {
		return SecurityGroupNotFound(r.RemoteGroupID)
	}
	if err := tx.putRule(r); err != nil {
		return err
	}
	return tx.ruleChanged(r)
}

func (tx *Tx) putRule(r *SecurityGroupRule) error {
	tx.begin(&r.Standard)
	if tx.SecurityGroupRule(r.ID) != nil {
		return idTaken(KindSecurityGroupRule, r.ID)
	}
	key, err := tx.smallID(spaceRuleKey)
	if err != nil {
		return err
	}
	r.Key = key
	r.trim()
	return tx.put(r.Clone())
}

// UpdateSecurityGroupRule changes what does not matter to packets, such as the
// description.
func (tx *Tx) UpdateSecurityGroupRule(r *SecurityGroupRule) error {
	old := tx.SecurityGroupRule(r.ID)
	if old == nil {
		return ruleNotFound(r.ID)
	}
	now := old.Clone()
	now.Description, now.Tags = r.Description, r.Tags
	_, err := replace(tx, old, now)
	return err
}

// DeleteSecurityGroupRule deletes a rule.
func (tx *Tx) DeleteSecurityGroupRule(id string) error {
	r := tx.SecurityGroupRule(id)
	if r == nil {
		return ruleNotFound(id)
	}
	tx.remove(KindSecurityGroupRule, id)
	return tx.ruleChanged(r)
}

// ruleChanged does what follows from a rule that is new or gone.
func (tx *Tx) ruleChanged(r *SecurityGroupRule) error {
	old := tx.SecurityGroup(r.GroupID)
	g := old.Clone()
	tx.bump(&g.Standard, old.Standard)
	if err := tx.put(g); err != nil {
		return err
	}
	if r.RemoteGroupID == "" {
		return nil
	}
	for _, p := range slices.Collect(tx.GroupPresencesOf(r.GroupID)) {
		if err := tx.settleGroup(r.RemoteGroupID, p.Host); err != nil {
			return err
		}
	}
	return nil
}

// Check validates a rule and brings it into Neutron's canonical form.
func (r *SecurityGroupRule) Check() error {
	if r.Ethertype == IPv6 {
		switch r.Protocol {
		case "icmp", "icmpv6":
			r.Protocol = "ipv6-icmp"
		case "1":
			r.Protocol = "58"
		}
	}
	if n, some := r.ProtocolNumber(); r.PortMin == 1 && r.PortMax == 65535 && (!some || hasPorts(n)) {
		r.PortMin, r.PortMax = NoPort, NoPort
	}
	if !r.ProtocolKnown() {
		return Errorf(Invalid, "SecurityGroupRuleInvalidProtocol", "Security group rule protocol %s not supported.", r.Protocol)
	}
	if err := r.checkRange(); err != nil {
		return err
	}
	if r.RemotePrefix.IsValid() && r.RemotePrefix.Addr().Is4() != (r.Ethertype == IPv4) {
		return Errorf(Invalid, "SecurityGroupRuleParameterConflict",
			"Conflicting value ethertype %s for CIDR %s", r.Ethertype, r.RemotePrefix)
	}
	if n, some := r.ProtocolNumber(); some && r.Ethertype == IPv4 && onlyIPv6(n) {
		return Errorf(Invalid, "SecurityGroupEthertypeConflictWithProtocol",
			"Invalid ethertype %s for protocol %s.", r.Ethertype, r.Protocol)
	}
	if r.RemotePrefix.IsValid() && r.RemoteGroupID != "" {
		return Errorf(Invalid, "SecurityGroupMultipleRemoteEntites",
			"Only one of remote_ip_prefix or remote_group_id or remote_address_group_id may be provided.")
	}
	return nil
}

func onlyIPv6(protocol uint8) bool {
	switch protocol {
	case 41, 43, 44, ProtocolICMPv6, 59, 60:
		return true
	}
	return false
}

func (r *SecurityGroupRule) checkRange() error {
	if r.PortMin == NoPort && r.PortMax == NoPort {
		return nil
	}
	n, some := r.ProtocolNumber()
	switch {
	case r.Protocol == "":
		return Errorf(Invalid, "SecurityGroupProtocolRequiredWithPorts", "Must also specify protocol if port range is given.")
	case some && hasPorts(n):
		return r.checkPorts()
	case n == ProtocolICMP || n == ProtocolICMPv6:
		return r.checkICMP()
	}
	return Errorf(Invalid, "SecurityGroupInvalidProtocolForPort",
		"Ports cannot be specified for protocol %d. Ports are only supported for DCCP, SCTP, TCP, UDP, UDPLITE.", n)
}

func (r *SecurityGroupRule) checkPorts() error {
	if r.PortMin == 0 || r.PortMax == 0 {
		return Errorf(Invalid, "SecurityGroupInvalidPortValue", "Invalid value for port 0")
	}
	if r.PortMin == NoPort || r.PortMax == NoPort || r.PortMin > r.PortMax {
		return Errorf(Invalid, "SecurityGroupInvalidPortRange", "For TCP/UDP protocols, port_range_min must be <= port_range_max")
	}
	return nil
}

func (r *SecurityGroupRule) checkICMP() error {
	for _, part := range []struct {
		value       int
		attr, field string
	}{{r.PortMin, "port_range_min", "type"}, {r.PortMax, "port_range_max", "code"}} {
		if part.value > 255 {
			return Errorf(Invalid, "SecurityGroupInvalidIcmpValue",
				"Invalid value for ICMP %s (%s) %d. It must be 0 to 255.", part.field, part.attr, part.value)
		}
	}
	if r.PortMin == NoPort {
		return Errorf(Invalid, "SecurityGroupMissingIcmpType",
			"ICMP code (port-range-max) %d is provided but ICMP type (port-range-min) is missing.", r.PortMax)
	}
	return nil
}

// ContentKey is equal for rules of one group that let the same pass.
func (r *SecurityGroupRule) ContentKey() string {
	protocol := ""
	if n, some := r.ProtocolNumber(); some {
		protocol = smallKey(uint32(n))
	}
	remote := r.RemoteGroupID
	if r.RemotePrefix.IsValid() && r.RemotePrefix.Bits() > 0 {
		remote = r.RemotePrefix.String()
	}
	return strings.Join([]string{r.GroupID, r.Direction, r.Ethertype, protocol,
		strconv.Itoa(r.PortMin), strconv.Itoa(r.PortMax), remote}, "/")
}

// checkGroups refuses groups that are not there, and groups without port security.
func (tx *Tx) checkGroups(old, p *Port) error {
	if len(p.SecurityGroups) == 0 {
		return nil
	}
	if !p.PortSecurityEnabled {
		if old != nil && len(old.SecurityGroups) > 0 {
			return Errorf(Conflict, "PortSecurityPortHasSecurityGroup",
				"Port has security group associated. Cannot disable port security or IP address until security group is removed.")
		}
		return Errorf(Invalid, "PortSecurityAndIPRequiredForSecurityGroups",
			"Port security must be enabled and port must have an IP address in order to use security groups.")
	}
	slices.Sort(p.SecurityGroups)
	p.SecurityGroups = slices.Compact(p.SecurityGroups)
	var missing []string
	for _, id := range p.SecurityGroups {
		if tx.SecurityGroup(id) == nil {
			missing = append(missing, id)
		}
	}
	if missing != nil {
		return SecurityGroupNotFound(missing...)
	}
	return nil
}

// settleGroups makes hosts know, or forget, the groups of a port that was
// written, wired or deleted; either state may be nil.
func (tx *Tx) settleGroups(old, now *Port) error {
	var groups, hosts []string
	for _, p := range []*Port{old, now} {
		if p == nil {
			continue
		}
		groups = append(groups, p.SecurityGroups...)
		hosts = append(hosts, p.Binding.Host)
	}
	slices.Sort(groups)
	slices.Sort(hosts)
	for _, g := range slices.Compact(groups) {
		for _, host := range slices.Compact(hosts) {
			if err := tx.settleGroupWiring(g, host); err != nil {
				return err
			}
		}
	}
	return nil
}

// settleGroupWiring settles a group on a host after the wiring of a port of it
// may have changed there, and the groups that its rules name.
func (tx *Tx) settleGroupWiring(groupID, host string) error {
	if host == "" {
		return nil
	}
	wired := tx.hasGroupPort(groupID, host)
	if tx.groupWired(groupID, host) == wired {
		return nil
	}
	if err := tx.placeGroup(groupID, host, wired); err != nil {
		return err
	}
	var remotes []string
	for r := range tx.RulesOf(groupID) {
		if r.RemoteGroupID != "" && r.RemoteGroupID != groupID {
			remotes = append(remotes, r.RemoteGroupID)
		}
	}
	slices.Sort(remotes)
	for _, remote := range slices.Compact(remotes) {
		if err := tx.settleGroup(remote, host); err != nil {
			return err
		}
	}
	return nil
}

func (tx *Tx) groupWired(groupID, host string) bool {
	p := tx.GroupPresence(groupID, host)
	return p != nil && p.Wired
}

func (tx *Tx) hasGroupPort(groupID, host string) bool {
	for p := range tx.portsOfGroupOn(groupID, host) {
		if tx.WiredHost(p) != "" {
			return true
		}
	}
	return false
}

// settleGroup settles the presence of a group on a host after something changed
// about its rules or those that name it. Whether it is wired, settleGroupWiring
// alone says, which sees to the groups that its rules name.
func (tx *Tx) settleGroup(groupID, host string) error {
	return tx.placeGroup(groupID, host, tx.groupWired(groupID, host))
}

// placeGroup writes or removes the presence of a group on a host.
func (tx *Tx) placeGroup(groupID, host string, wired bool) error {
	g := tx.SecurityGroup(groupID)
	now := GroupPresence{GroupID: groupID, Host: host, Key: g.Key, Wired: wired, Stateless: wired && g.Stateless}
	for r := range tx.RulesNaming(groupID) {
		of := &now
		if r.GroupID != groupID {
			of = tx.GroupPresence(r.GroupID, host)
		}
		if of != nil && of.Wired {
			*now.remote(r.Direction, of.Stateless) = true
		}
	}
	old := tx.GroupPresence(groupID, host)
	switch {
	case !now.Wired && !now.Named():
		tx.remove(KindGroupPresence, now.ObjectID())
		return nil
	case old != nil && *old == now:
		return nil
	}
	return tx.put(&now)
}
