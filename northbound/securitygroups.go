package northbound

import (
	"cmp"
	"encoding/json"
	"iter"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"planck/network"
)

var securityGroupExtensions = []extension{
	{"security-group", "security-group", "The security groups extension.", "2012-10-05T10:00:00-00:00"},
	{"stateful-security-group", "Stateful security group", "Indicates if the security group is stateful or not", "2019-11-26T09:00:00-00:00"},
	{"port-security-groups-filtering", "Port filtering on security groups", "Provides security groups filtering when listing ports", "2018-01-09T09:00:00-00:00"},
	{"security-groups-shared-filtering", "Security group filtering on the shared field", "Support filtering security groups on the shared field", "2021-10-05T09:00:00-00:00"},
}

var ruleExtensions = []extension{
	{"security-groups-normalized-cidr", "Normalized CIDR field for security group rules", "Add new field with normalized remote_ip_prefix cidr in SG rule", "2019-10-01T10:00:00-00:00"},
	{"security-groups-rules-belongs-to-default-sg", "Security group rules belongs to the project's default security group", "Flag to determine if the security group rule belongs to the project's default security group", "2022-12-19T10:00:00-00:00"},
}

// securityGroups is the resource /v2.0/security-groups.
func securityGroups() *resource[network.SecurityGroup] {
	return &resource[network.SecurityGroup]{
		name: "security_group", collection: "security_groups", path: "security-groups",
		extensions: securityGroupExtensions,
		attributes: securityGroupAttributes(),
		standard:   func(g *network.SecurityGroup) *network.Standard { return &g.Standard },
		get:        (*network.View).SecurityGroup,
		all:        (*network.View).SecurityGroups,
		indexes: []index[network.SecurityGroup]{
			{"project_id", (*network.View).SecurityGroupsOfProject},
			{"tenant_id", (*network.View).SecurityGroupsOfProject},
		},
		reachable: func(r *reader) iter.Seq[*network.SecurityGroup] {
			return r.view.SecurityGroupsOfProject(r.who.ProjectID)
		},
		visible: func(r *reader, g *network.SecurityGroup) bool { return r.owns(g.ProjectID) },
		target:  securityGroupTarget,
		notFound: func(id string) error {
			return network.SecurityGroupNotFound(id)
		},
		clone:  (*network.SecurityGroup).Clone,
		create: createGroup,
		update: updateGroup,
		keep:   keepDefaultGroup,
		remove: (*network.Tx).DeleteSecurityGroup,
		before: ensureDefaultGroup,
	}
}

// createGroup counts the rules that a new group comes with, too. A default group
// that is made on the way of other calls is not in their way.
func createGroup(c *change, g *network.SecurityGroup) error {
	if err := c.quotas.check(c.tx.View, "security_group_rule", g.ProjectID, c.tx.RulesWithNewGroup(g.ProjectID)); err != nil {
		return err
	}
	return c.tx.CreateSecurityGroup(g)
}

func securityGroupTarget(view *network.View, g *network.SecurityGroup) target {
	return &modelTarget{id: g.ID, projectID: g.ProjectID, view: view}
}

// updateGroup takes even the name that a default group has for a new one.
func updateGroup(c *change, g, old *network.SecurityGroup) error {
	if old.Default && c.in.has("name") {
		return network.Errorf(network.Conflict, "SecurityGroupCannotUpdateDefault", "Updating default security group not allowed.")
	}
	return c.tx.UpdateSecurityGroup(g)
}

// keepDefaultGroup lets administrators alone delete a default group. One in use
// nobody can: that is said first.
func keepDefaultGroup(c *change, g *network.SecurityGroup) error {
	if g.Default && !c.r.policy.admin(c.r.who) && !c.tx.SecurityGroupInUse(g.ID) {
		return network.Errorf(network.Conflict, "SecurityGroupCannotRemoveDefault",
			"Insufficient rights for removing default security group.")
	}
	return nil
}

// ensureDefaultGroup makes the default group of the project whose groups or
// rules are listed: using it begins with looking at it.
func ensureDefaultGroup(c *call, q query) error {
	project := cmp.Or(q.values.Get("project_id"), q.values.Get("tenant_id"), c.who.ProjectID)
	if project == "" || project != c.who.ProjectID && !c.rules().admin(c.who) {
		return nil
	}
	if _, err := parseText(project, projectSize); err != nil {
		return nil // no project has such an id: the list is empty
	}
	if c.server.store.View().HasDefaultSecurityGroup(project) {
		return nil
	}
	_, err := c.update("create_security_group", func(tx *network.Tx) error {
		_, err := tx.DefaultSecurityGroup(project)
		return err
	})
	return err
}

func securityGroupAttributes() []attribute[network.SecurityGroup] {
	type G = network.SecurityGroup
	standard := func(g *G) *network.Standard { return &g.Standard }
	list := standardAttributes(standard)
	list = append(list, tagAttributes(standard, 0)...)
	return append(list,
		groupRules(),
		stateful(),
		derived("shared", boolean, filterable, func(*reader, *G) bool { return false }),
	)
}

// stateful is true unless said otherwise.
func stateful() attribute[network.SecurityGroup] {
	a := argument("stateful", boolean, readWrite|filterable, func(_ *reader, g *network.SecurityGroup) bool { return !g.Stateless })
	a.set = func(g *network.SecurityGroup, v any) { g.Stateless = !v.(bool) }
	return a
}

// groupRules shows the rules of a group, oldest first.
func groupRules() attribute[network.SecurityGroup] {
	rules := securityGroupRules()
	return attribute[network.SecurityGroup]{
		name: "security_group_rules",
		write: func(b []byte, r *reader, g *network.SecurityGroup) []byte {
			list := slices.SortedFunc(r.view.RulesOf(g.ID), func(x, y *network.SecurityGroupRule) int {
				return cmp.Or(x.CreatedAt.Compare(y.CreatedAt), cmp.Compare(x.Key, y.Key))
			})
			cols := rules.columns(r, nil)
			return appendList(b, list, func(b []byte, rule *network.SecurityGroupRule) []byte { return rules.encode(b, r, cols, rule) })
		},
	}
}

// securityGroupRules is the resource /v2.0/security-group-rules.
func securityGroupRules() *resource[network.SecurityGroupRule] {
	return &resource[network.SecurityGroupRule]{
		name: "security_group_rule", collection: "security_group_rules", path: "security-group-rules",
		extensions: ruleExtensions,
		attributes: ruleAttributes(),
		standard:   func(r *network.SecurityGroupRule) *network.Standard { return &r.Standard },
		get:        (*network.View).SecurityGroupRule,
		all:        (*network.View).SecurityGroupRules,
		indexes: []index[network.SecurityGroupRule]{
			{"security_group_id", (*network.View).RulesOf},
			{"remote_group_id", (*network.View).RulesNaming},
			{"project_id", (*network.View).SecurityGroupRulesOfProject},
			{"tenant_id", (*network.View).SecurityGroupRulesOfProject},
		},
		reachable: rulesReachable,
		visible:   ruleVisible,
		target:    ruleTarget,
		notFound: func(id string) error {
			return network.Errorf(network.NotFound, "SecurityGroupRuleNotFound", "Security group rule %s does not exist", id)
		},
		clone:   (*network.SecurityGroupRule).Clone,
		prepare: prepareRule,
		create:  func(c *change, r *network.SecurityGroupRule) error { return c.tx.CreateSecurityGroupRule(r) },
		update:  func(c *change, r, _ *network.SecurityGroupRule) error { return c.tx.UpdateSecurityGroupRule(r) },
		remove:  (*network.Tx).DeleteSecurityGroupRule,
		bulk:    checkRules,
		before:  ensureDefaultGroup,
	}
}

func rulesReachable(r *reader) iter.Seq[*network.SecurityGroupRule] {
	return func(yield func(*network.SecurityGroupRule) bool) {
		for rule := range r.view.SecurityGroupRulesOfProject(r.who.ProjectID) {
			if !yield(rule) {
				return
			}
		}
		for g := range r.view.SecurityGroupsOfProject(r.who.ProjectID) {
			for rule := range r.view.RulesOf(g.ID) {
				if !r.owns(rule.ProjectID) && !yield(rule) {
					return
				}
			}
		}
	}
}

func ruleVisible(r *reader, rule *network.SecurityGroupRule) bool {
	g := r.view.SecurityGroup(rule.GroupID)
	return r.owns(rule.ProjectID) || g != nil && r.owns(g.ProjectID)
}

// ruleTargetOf is what policies may ask about a rule: also who owns its group.
type ruleTargetOf struct {
	modelTarget
	groupProjectID string
}

func (t *ruleTargetOf) attribute(name string) (string, bool) {
	if name == "security_group:project_id" || name == "security_group_project_id" {
		return t.groupProjectID, true
	}
	return t.modelTarget.attribute(name)
}

func ruleTarget(view *network.View, r *network.SecurityGroupRule) target {
	t := &ruleTargetOf{modelTarget: modelTarget{id: r.ID, projectID: r.ProjectID, view: view}}
	if g := view.SecurityGroup(r.GroupID); g != nil {
		t.groupProjectID = g.ProjectID
	}
	return t
}

// prepareRule sees to it that a rule says something, and that the caller may know
// of its groups.
func prepareRule(c *change, r *network.SecurityGroupRule) error {
	if err := r.Check(); err != nil {
		return err
	}
	for _, id := range []string{r.GroupID, r.RemoteGroupID} {
		if id == "" {
			continue
		}
		if g := c.tx.SecurityGroup(id); g == nil || !c.r.all && !c.r.owns(g.ProjectID) {
			return network.SecurityGroupNotFound(id)
		}
	}
	return nil
}

// checkRules refuses rules that may not be created together.
func checkRules(inputs []input) error {
	groups, projects, contents := map[string]bool{}, map[string]bool{}, map[string]bool{}
	resource := securityGroupRules()
	rules := make([]*network.SecurityGroupRule, len(inputs))
	for i, in := range inputs {
		r := resource.apply(in)
		rules[i] = r
		groups[r.GroupID], projects[r.ProjectID] = true, true
		if len(groups) > 1 {
			return network.Errorf(network.Invalid, "SecurityGroupNotSingleGroupRules",
				"Only allowed to update rules for one security profile at a time")
		}
		if len(projects) > 1 {
			return network.Errorf(network.Invalid, "SecurityGroupRulesNotSingleTenant",
				"Multiple tenant_ids in bulk security group rule create not allowed")
		}
	}
	for _, r := range rules {
		if err := r.Check(); err != nil {
			return err
		}
	}
	for _, r := range rules {
		key := r.ContentKey()
		if contents[key] {
			return network.Errorf(network.Conflict, "DuplicateSecurityGroupRuleInPost", "Duplicate Security Group Rule in POST.")
		}
		contents[key] = true
	}
	return nil
}

func ruleAttributes() []attribute[network.SecurityGroupRule] {
	type R = network.SecurityGroupRule
	standard := func(r *R) *network.Standard { return &r.Standard }
	list := slices.DeleteFunc(standardAttributes(standard), func(a attribute[R]) bool { return a.name == "name" })
	list = append(list, tagAttributes(standard, 0)...)
	return append(list,
		field("security_group_id", textKind(parseGroupID), onPost|required|sortable|filterable, func(r *R) *string { return &r.GroupID }),
		field("direction", oneOf(network.Ingress, network.Egress), onPost|required|sortable|filterable, func(r *R) *string { return &r.Direction }),
		field("ethertype", ethertype(), onPost|sortable|filterable, func(r *R) *string { return &r.Ethertype }).withDefault(network.IPv4),
		field("protocol", protocol(), onPost|sortable|filterable, func(r *R) *string { return &r.Protocol }),
		field("port_range_min", portNumber(), onPost|sortable|filterable, func(r *R) *int { return &r.PortMin }).withDefault(network.NoPort),
		field("port_range_max", portNumber(), onPost|sortable|filterable, func(r *R) *int { return &r.PortMax }).withDefault(network.NoPort),
		field("remote_ip_prefix", ipPrefix(), onPost|sortable|filterable, func(r *R) *netip.Prefix { return &r.RemotePrefix }),
		field("remote_group_id", groupOrNull, onPost|sortable|filterable, func(r *R) *string { return &r.RemoteGroupID }),
		derived("normalized_cidr", ipPrefix(), sortable|filterable, func(_ *reader, r *R) netip.Prefix { return r.RemotePrefix.Masked() }),
		derived("belongs_to_default_sg", boolean, filterable, belongsToDefault),
	)
}

// groupOrNull is the id of a group, or null for none.
var groupOrNull = nullable(textKind(func(v any) (string, error) {
	if v == nil {
		return "", nil
	}
	return parseGroupID(v)
}))

// parseGroupID takes what is no id, too: of a group that is not there.
func parseGroupID(v any) (string, error) {
	if id, err := parseUUID(v); err == nil {
		return id, nil
	}
	const uuidSize = 36
	id, err := parseText(v, uuidSize)
	if err == nil && id == "" {
		err = notValid(v, "is not a valid UUID")
	}
	return id, err
}

func belongsToDefault(r *reader, rule *network.SecurityGroupRule) bool {
	g := r.view.SecurityGroup(rule.GroupID)
	return g != nil && g.Default
}

func ethertype() kind[string] {
	k := textKind(func(v any) (string, error) {
		for _, e := range []string{network.IPv4, network.IPv6} {
			if s, ok := v.(string); ok && strings.EqualFold(s, e) {
				return e, nil
			}
		}
		return "", network.Errorf(network.Invalid, "SecurityGroupRuleInvalidEtherType",
			"Security group rule for ethertype '%s' not supported. Allowed values are ['IPv4', 'IPv6'].", show(v))
	})
	return k
}

// protocolNames are the names of protocols as Neutron lists them in its refusal.
const protocolNames = "[None, 'ah', 'dccp', 'egp', 'esp', 'gre', 'hopopt', 'icmp', 'igmp', 'ip', 'ipip', 'ipv6-encap', 'ipv6-frag', " +
	"'ipv6-icmp', 'icmpv6', 'ipv6-nonxt', 'ipv6-opts', 'ipv6-route', 'ospf', 'pgm', 'rsvp', 'sctp', 'tcp', 'udp', 'udplite', 'vrrp']"

// protocol is the name or the number of an IP protocol, or null for any.
func protocol() kind[string] {
	return nullable(textKind(func(v any) (string, error) {
		if v == nil {
			return "", nil
		}
		name := strings.ToLower(show(v))
		if name == "any" {
			return "", nil
		}
		if _, ok := network.Protocols[name]; ok && name != "" {
			return name, nil
		}
		if n, err := strconv.ParseUint(name, 10, 8); err == nil && isScalar(v) {
			return strconv.FormatUint(n, 10), nil
		}
		return "", network.Errorf(network.Invalid, "SecurityGroupRuleInvalidProtocol",
			"Security group rule protocol %s not supported. Only protocol values %s and integer representations [0 to 255] are supported.",
			show(v), protocolNames)
	}))
}

// portNumber is one end of a range, or null for none.
func portNumber() kind[int] {
	parse := func(v any) (int, error) {
		if v == nil {
			return network.NoPort, nil
		}
		_, isNumber := v.(json.Number)
		_, isText := v.(string)
		n, err := strconv.Atoi(show(v))
		if !isNumber && !isText || err != nil || n < 0 || n > 65535 {
			return 0, network.Errorf(network.Invalid, "SecurityGroupInvalidPortValue", "Invalid value for port %s", show(v))
		}
		return n, nil
	}
	return kind[int]{
		parse: parse,
		write: func(b []byte, n int) []byte {
			if n == network.NoPort {
				return append(b, "null"...)
			}
			return appendInt(b, n)
		},
		match:   matchValid(parse),
		compare: cmp.Compare[int],
	}
}

// ipPrefix is an address or a block of addresses, with bits beyond its length as given; or null.
func ipPrefix() kind[netip.Prefix] {
	parse := func(v any) (netip.Prefix, error) {
		if v == nil || v == "" {
			return netip.Prefix{}, nil
		}
		p, err := parseAddressOrBlock(v)
		if err != nil {
			return p, network.Errorf(network.Invalid, "InvalidCIDR", "Invalid CIDR %s given as IP prefix.", show(v))
		}
		return p, nil
	}
	return kind[netip.Prefix]{
		parse: parse,
		write: func(b []byte, p netip.Prefix) []byte {
			if !p.IsValid() {
				return append(b, "null"...)
			}
			return appendPrefix(b, p)
		},
		match:   matchValid(parse),
		compare: comparePrefixes,
	}
}

// checkGroups keeps tenants from each other's groups.
func checkGroups(c *change, p *network.Port) error {
	if !c.in.has("security_groups") || !p.PortSecurityEnabled {
		return nil
	}
	var missing []string
	for _, id := range p.SecurityGroups {
		if g := c.tx.SecurityGroup(id); g == nil || !c.r.policy.admin(c.r.who) && g.ProjectID != p.ProjectID {
			missing = append(missing, id)
		}
	}
	if missing != nil {
		return network.SecurityGroupNotFound(missing...)
	}
	return nil
}

// defaultGroups is what a new port has when the client said nothing about groups:
// null is none of them.
func defaultGroups(c *change, p *network.Port) error {
	if c.in.has("security_groups") || p.Service() || !p.PortSecurityEnabled {
		return nil
	}
	g, err := c.tx.DefaultSecurityGroup(p.ProjectID)
	if err != nil {
		return err
	}
	p.SecurityGroups = []string{g.ID}
	return nil
}
