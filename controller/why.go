package controller

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"planck/flows"
	"planck/network"
	"planck/pipeline"
)

// reasons knows the flows that say why packets of a port pass or not.
type reasons struct {
	view  *network.View
	port  *network.Port
	ports map[string]int          // ports on the host with each of its groups
	rules map[ruleFlow][]Resource // that each flow stands for
}

// Whose packets a flow counts.
const (
	countsPort = "this port"
	countsHost = "the whole host"
)

// ruleFlow is a flow of a rule.
type ruleFlow struct {
	table uint8
	match flows.Match
}

func reasonsOf(v *network.View, p *network.Port, host string) *reasons {
	r := &reasons{view: v, port: p, ports: map[string]int{}, rules: map[ruleFlow][]Resource{}}
	for _, group := range p.SecurityGroups {
		for other := range v.PortsOfGroup(group) {
			if v.WiredHost(other) == host {
				r.ports[group]++
			}
		}
		rules := slices.SortedFunc(v.RulesOf(group), func(a, b *network.SecurityGroupRule) int { return cmp.Compare(a.Key, b.Key) })
		for _, rule := range rules {
			table, matches := pipeline.RuleMatches(v, host, rule)
			for _, m := range matches {
				at := ruleFlow{table.ID, m}
				r.rules[at] = append(r.rules[at], Resource{"security_group_rule", rule.ID, ruleText(v, rule)})
			}
		}
	}
	return r
}

// keep keeps the rules of the port's groups, its own drops, and what the host
// dropped of all of its ports; and says what each counts.
func (s *reasons) keep(r *FlowRecord, f *flows.Flow) bool {
	switch r.Resource.Kind {
	case "port":
		r.Counts = countsPort
		return r.Resource.ID == s.port.ID && r.Drops != ""
	case "host":
		r.Counts = countsHost
		return r.Bridge == network.BridgeIntegration && r.Drops != "" && r.Packets > 0
	case "security_group_rule":
		rule := s.view.SecurityGroupRule(r.Resource.ID)
		if rule == nil || !slices.Contains(s.port.SecurityGroups, rule.GroupID) {
			return false
		}
		r.Counts, r.Rules = countsPort, s.rules[ruleFlow{f.Table, f.Match}]
		if n := s.ports[rule.GroupID]; n != 1 {
			r.Counts = fmt.Sprintf("%d ports of the host", n)
		}
		return true
	}
	return false
}

// ruleText says what a rule lets pass: "web: ingress IPv4 tcp 80-81 from
// 10.0.0.0/8", "web: ingress IPv4 icmp type 3 code 4".
func ruleText(v *network.View, r *network.SecurityGroupRule) string {
	parts := []string{r.Direction, r.Ethertype}
	if r.Protocol != "" {
		parts = append(parts, r.Protocol)
	}
	if r.PortMin != network.NoPort {
		parts = append(parts, rangeText(r))
	}
	side := "from"
	if r.Direction == network.Egress {
		side = "to"
	}
	switch {
	case r.RemotePrefix.IsValid():
		parts = append(parts, side, r.RemotePrefix.String())
	case r.RemoteGroupID != "":
		parts = append(parts, side, groupName(v, r.RemoteGroupID))
	}
	return groupName(v, r.GroupID) + ": " + strings.Join(parts, " ")
}

// rangeText is the ports of a rule, or the type and the code of ICMP.
func rangeText(r *network.SecurityGroupRule) string {
	protocol, _ := r.ProtocolNumber()
	icmp := protocol == network.ProtocolICMP || protocol == network.ProtocolICMPv6
	switch {
	case icmp && r.PortMax == network.NoPort:
		return fmt.Sprint("type ", r.PortMin)
	case icmp:
		return fmt.Sprintf("type %d code %d", r.PortMin, r.PortMax)
	case r.PortMax == r.PortMin:
		return fmt.Sprint(r.PortMin)
	}
	return fmt.Sprintf("%d-%d", r.PortMin, r.PortMax)
}

func groupName(v *network.View, id string) string {
	if g := v.SecurityGroup(id); g != nil {
		return g.Name
	}
	return id
}
