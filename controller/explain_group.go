package controller

import (
	"fmt"
	"slices"

	"planck/network"
)

// explainGroup tells what a security group lets pass, and for whom.
func explainGroup(v *network.View, g *network.SecurityGroup) *Explanation {
	e := newExplanation(Resource{kindGroup, g.ID, g.Name})
	var ports []string
	for p := range v.PortsOfGroup(g.ID) {
		ports = append(ports, portName(p))
	}
	if len(ports) == 0 {
		e.find("no port has it: it lets nothing pass for anybody", "give ports security_groups with it")
	} else {
		e.about("%d ports have it: %s", len(ports), some(ports))
	}
	count := map[string]int{}
	rules := slices.SortedFunc(v.RulesOf(g.ID), func(a, b *network.SecurityGroupRule) int { return int(a.Key) - int(b.Key) })
	for _, r := range rules {
		count[r.Direction]++
		e.about("%s", ruleText(v, r))
		if r.RemoteGroupID != "" && !v.SecurityGroupInUse(r.RemoteGroupID) {
			e.find(fmt.Sprintf("rule %s (%s) matches nothing: no port has the group %s", r.ID, ruleText(v, r), groupName(v, r.RemoteGroupID)), "give the peers that group, or name them by remote_ip_prefix")
		}
	}
	if count[network.Ingress] == 0 {
		e.find("it has no ingress rule: only answers come in", "quantum security-group-rule-create "+g.ID+" --direction ingress …")
	}
	if count[network.Egress] == 0 {
		e.find("it has no egress rule: only answers go out", "quantum security-group-rule-create "+g.ID+" --direction egress …")
	}
	for _, way := range []string{network.Ingress, network.Egress} {
		if !lets(rules, way, "IPv4") && count[way] > 0 {
			e.find("it has no "+way+" rule for IPv4", "rules are for the ethertype that they name")
		}
	}
	return e
}

// lets reports whether a rule is for a direction and an ethertype.
func lets(rules []*network.SecurityGroupRule, direction, ethertype string) bool {
	return slices.ContainsFunc(rules, func(r *network.SecurityGroupRule) bool { return r.Direction == direction && r.Ethertype == ethertype })
}
