package controller

import (
	"fmt"
	"slices"

	"planck/network"
)

// explainNetwork tells where a network is, and what is wrong with all of it.
func explainNetwork(v *network.View, n *network.Network, w witness) *Explanation {
	e := newExplanation(Resource{kindNetwork, n.ID, n.Name})
	e.Status = network.StatusActive
	if !n.AdminStateUp {
		e.Status = network.StatusDown
		e.find("admin_state_up is false: packets of its ports are dropped", "set admin_state_up of the network to true")
	}
	e.about("%s, MTU %d", segmentOf(n), n.MTU)
	subnets := slices.Collect(v.SubnetsOf(n.ID))
	for _, s := range subnets {
		e.about("subnet %s, %s", called(s.Name, s.ID), s.CIDR)
	}
	var hosts []string
	for p := range v.PresencesOf(n.ID) {
		hosts = append(hosts, p.Host)
	}
	if len(hosts) > 0 {
		e.about("on hosts %s", some(hosts))
	}
	e.found(tooWide(n, w)...)
	if len(subnets) == 0 {
		e.find("it has no subnet: its ports get no addresses", "quantum subnet-create "+n.ID+" CIDR")
	}
	for _, s := range subnets {
		e.found(fullSubnet(s, poolOf(v, s))...)
		if s.EnableDHCP {
			e.found(unservedSubnet(v, s)...)
		}
	}
	e.found(notActive(v, slices.Collect(v.PortsOf(n.ID)))...)
	return e
}

// segmentOf is the type and the segment of a network.
func segmentOf(n *network.Network) string {
	text := n.NetworkType
	if n.SegmentationID != 0 {
		text += fmt.Sprintf(" %d", n.SegmentationID)
	}
	if n.PhysicalNetwork != "" {
		text += " on physical network " + n.PhysicalNetwork
	}
	return text
}

// notActive is how many of the bound ports are not ACTIVE.
func notActive(v *network.View, ports []*network.Port) []Finding {
	var names []string
	bound := 0
	for _, p := range ports {
		if p.Service() || p.Binding.Host == "" {
			continue
		}
		if bound++; statusOf(v, p.ID).Status != network.StatusActive {
			names = append(names, portName(p))
		}
	}
	if len(names) == 0 {
		return nil
	}
	return []Finding{{fmt.Sprintf("%d of %d ports that are bound to a host are not ACTIVE: %s", len(names), bound, some(names)), "planck explain PORT says of each why"}}
}
