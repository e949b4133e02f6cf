package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"net/http"
	"slices"

	"planck/cluster"
	"planck/controller"
	"planck/network"
)

// hostsAnswer is what GET /planck/v1/hosts answers.
type hostsAnswer struct {
	Hosts []hostView `json:"hosts"`
	// Silent are members of the cluster that did not say what they know of the
	// hosts that they program.
	Silent []silentMember `json:"silent"`
}

// ownerSide is how the owner of a host is connected to it.
type ownerSide struct {
	OVSDB   bool              `json:"ovsdb"`
	Bridges map[string]string `json:"bridges"` // their states, by name
}

// allHosts are the hosts as this member is connected to them, with what only the
// owner of each knows of its switch.
func allHosts(p *parts, r *http.Request) hostsAnswer {
	views := hostViews(p)
	index := make(map[string]*hostView, len(views))
	for i := range views {
		if index[views[i].Name] == nil {
			index[views[i].Name] = &views[i]
		}
	}
	silent := p.gatherAll(r, decoded(func(m cluster.Member, other *hostsAnswer) {
		for i := range other.Hosts {
			theirs := &other.Hosts[i]
			if own := index[theirs.Name]; own != nil && own.Owner == m.Name && theirs.SystemID == own.SystemID {
				own.takeOwners(theirs)
			}
			// Who is well enough for gateways the owner of the empty name judges.
			if own := index[theirs.Name]; own != nil && own.Gateway != nil && theirs.Gateway != nil && p.cluster.OwnerOf("") == m.Name {
				own.Gateway = theirs.Gateway
			}
		}
	}))
	silent = slices.DeleteFunc(silent, func(s silentMember) bool { return len(s.Hosts) == 0 })
	return hostsAnswer{views, silent}
}

// takeOwners takes what the owner of a host knows of its bridges.
func (h *hostView) takeOwners(theirs *hostView) {
	h.Revision = theirs.Revision
	h.AtOwner = &ownerSide{OVSDB: theirs.OVSDB.Connected, Bridges: map[string]string{}}
	for i := range h.Bridges {
		own := &h.Bridges[i]
		at := slices.IndexFunc(theirs.Bridges, func(b controller.BridgeRecord) bool { return b.Name == own.Name })
		if at < 0 {
			continue
		}
		b := theirs.Bridges[at]
		h.AtOwner.Bridges[b.Name] = bridgeState(b, theirs)
		own.Revision, own.Flows, own.Groups, own.Meters, own.ForeignFlows = b.Revision, b.Flows, b.Groups, b.Meters, b.ForeignFlows
		own.FlowMods, own.Refused, own.LastError, own.LastErrorAt = b.FlowMods, b.Refused, b.LastError, b.LastErrorAt
	}
}

// flows reads flows here, and those of hosts that are not connected here by their owners.
func (p *parts) flows(r *http.Request, q controller.FlowQuery) (*controller.FlowDump, error) {
	dump, err := p.controller.Flows(r.Context(), q)
	var e *network.Error
	if isPeer(r) || err != nil && !(errors.As(err, &e) && e.Class == network.Unavailable) {
		return dump, err
	}
	for _, host := range p.awayHere(q) {
		theirs := p.flowsOf(r, host)
		if theirs == nil {
			continue
		}
		if dump == nil {
			dump, err = &controller.FlowDump{Flows: []controller.FlowRecord{}, Problems: []controller.BridgeProblem{}}, nil
		}
		dump.Problems = slices.DeleteFunc(dump.Problems, func(b controller.BridgeProblem) bool { return b.Host == host })
		dump.Flows = slices.DeleteFunc(dump.Flows, func(f controller.FlowRecord) bool { return f.Host == host })
		dump.Flows, dump.Problems = append(dump.Flows, theirs.Flows...), append(dump.Problems, theirs.Problems...)
	}
	if dump != nil {
		slices.SortStableFunc(dump.Flows, func(a, b controller.FlowRecord) int { return cmp.Compare(a.Host, b.Host) })
	}
	return dump, err
}

// awayHere are the hosts that a query is about which other members program and
// this one can't read.
func (p *parts) awayHere(q controller.FlowQuery) (hosts []string) {
	all := p.controller.HostNames()
	if one := cmp.Or(q.Host, p.controller.HostOf(q.Port)); one != "" {
		all = []string{one}
	}
	for _, host := range all {
		if _, other := p.owner(host); other && !p.controller.Reads(host) {
			hosts = append(hosts, host)
		}
	}
	return hosts
}

// flowsOf are the flows of a host as its owner reads them, nil when it does not answer.
func (p *parts) flowsOf(r *http.Request, host string) *controller.FlowDump {
	m, other := p.owner(host)
	if !other {
		return nil
	}
	q := passedOn(r, gatherTimeout)
	q.query.Set("host", host)
	q.query.Del("output") // as JSON
	a := p.ask(r, m, q)
	dump := new(controller.FlowDump)
	if a.err != nil || a.status != http.StatusOK || json.Unmarshal(a.body, dump) != nil {
		return nil
	}
	return dump
}
