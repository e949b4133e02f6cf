package controller

import (
	"fmt"
	"slices"
	"strings"

	"planck/network"
)

// reasonsOf keeps the flows that say why packets of a port pass or not.
func reasonsOf(v *network.View, p *network.Port) func(FlowRecord) bool {
	return func(r FlowRecord) bool {
		switch r.Resource.Kind {
		case "port":
			return r.Resource.ID == p.ID && r.Drops != ""
		case "security_group_rule":
			rule := v.SecurityGroupRule(r.Resource.ID)
			return rule != nil && slices.Contains(p.SecurityGroups, rule.GroupID)
		}
		return false
	}
}

// ruleText says what a rule lets pass: "web: ingress IPv4 tcp 80-81 from 10.0.0.0/8".
func ruleText(v *network.View, r *network.SecurityGroupRule) string {
	parts := []string{r.Direction, r.Ethertype}
	if r.Protocol != "" {
		parts = append(parts, r.Protocol)
	}
	if r.PortMin != network.NoPort {
		text := fmt.Sprint(r.PortMin)
		if r.PortMax != network.NoPort && r.PortMax != r.PortMin {
			text += fmt.Sprint("-", r.PortMax)
		}
		parts = append(parts, text)
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

func groupName(v *network.View, id string) string {
	if g := v.SecurityGroup(id); g != nil {
		return g.Name
	}
	return id
}
