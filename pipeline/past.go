package pipeline

import (
	"errors"
	"slices"

	"planck/network"
)

// Compile is the wanted state of each bridge of one host, made from a view alone:
// what a Compiler that follows the store has at that revision.
func (c *Compiler) Compile(v *network.View, host string) (map[string]State, error) {
	s := newShard(0, c.options)
	s.why = &causes{}
	each := func(kind network.Kind, id string) {
		o := &origin{kind: kind, id: id, examples: make([]*unit, 1)}
		if hosts, _ := hostsOf(v, o); !slices.Contains(hosts, host) {
			return
		}
		u := &unit{of: o, host: host}
		var now output
		if err := s.output(v, u, &now); err != nil {
			s.out.Errors = append(s.out.Errors, err)
			return
		}
		s.replace(u, now)
	}
	for p := range v.Ports() {
		each(network.KindPort, p.ID)
	}
	for n := range v.Networks() {
		each(network.KindNetwork, n.ID)
	}
	for r := range v.Routers() {
		each(network.KindRouter, r.ID)
	}
	for f := range v.FloatingIPs() {
		each(network.KindFloatingIP, f.ID)
	}
	for g := range v.SecurityGroups() {
		each(network.KindSecurityGroup, g.ID)
	}
	each(network.KindHost, host)
	states := map[string]State{}
	for t, state := range s.targets {
		states[t.Bridge] = State{Revision: v.Revision(), Desired: state.desired.set, Permitted: state.permitted.set}
	}
	return states, errors.Join(s.out.Errors...)
}
