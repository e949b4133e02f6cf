package controller

import (
	"context"
	"slices"

	"planck/flows"
	"planck/network"
	"planck/pipeline"
)

// Difference is something that a switch has not as the model wants it.
type Difference struct {
	Bridge string `json:"bridge"`
	Kind   string `json:"kind"`  // flow, group or meter
	State  string `json:"state"` // missing, changed or unexpected
	// Table, TableName, Feature and Resource are those of a flow.
	Table     uint8    `json:"table"`
	TableName string   `json:"table_name"`
	Feature   string   `json:"feature"`
	Resource  Resource `json:"resource"`
	Desired   string   `json:"desired"`   // as ovs-ofctl writes it; "" for what is unexpected
	Installed string   `json:"installed"` // the same; "" for what is missing
}

// HostDiff is what the bridges of a host have not as the model wants it.
type HostDiff struct {
	Differences []Difference    `json:"differences"` // by bridge
	Problems    []BridgeProblem `json:"problems"`    // of the bridges that were not read
}

// Diff reads a host's bridges, or one of them, and compares them with the model,
// as it is or, unless at is 0, as it was at that revision. What is on its way to a
// switch at that moment is a difference.
func (c *Controller) Diff(ctx context.Context, host, bridge string, at uint64) (*HostDiff, error) {
	view, done, err := c.beginRead(ctx, host)
	if err != nil {
		return nil, err
	}
	defer done()
	wanted, views := c.opt.Compiler.Read, []*network.View{view}
	if at != 0 {
		var then *network.View
		if then, wanted, err = c.wantedAt(at, host); err != nil {
			return nil, err
		}
		views = []*network.View{then, view}
	}
	targets, err := c.targetsOf(host, bridge)
	if err != nil {
		return nil, err
	}
	answer := &HostDiff{Differences: []Difference{}, Problems: []BridgeProblem{}}
	for _, t := range targets {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if err := c.diffBridge(views, t, wanted, answer); err != nil {
			answer.Problems = append(answer.Problems, BridgeProblem{t.name.Host, t.name.Bridge, err.Error()})
		}
	}
	return answer, nil
}

// wantedAt is what the model wanted of a host at a revision.
func (c *Controller) wantedAt(revision uint64, host string) (*network.View, func(pipeline.Target, func(pipeline.State)), error) {
	view, err := c.opt.Store.ViewAt(revision)
	if err != nil {
		return nil, nil, err
	}
	if view.Host(host) == nil {
		return nil, nil, network.Errorf(network.NotFound, "HostNotFound", "host %q was not known at revision %d", host, revision)
	}
	states, err := c.opt.Compiler.Compile(view, host)
	if err != nil {
		return nil, nil, network.Errorf(network.Conflict, "NotCompiled", "revision %d: %s", revision, err)
	}
	return view, func(t pipeline.Target, fn func(pipeline.State)) {
		s, ok := states[t.Bridge]
		if !ok {
			s = pipeline.State{Revision: revision, Desired: flows.NewSet(), Permitted: flows.NewSet()}
		}
		fn(s)
	}, nil
}

func (c *Controller) diffBridge(views []*network.View, t *target, wanted func(pipeline.Target, func(pipeline.State)), answer *HostDiff) error {
	s := t.readable()
	if s == nil {
		return network.Errorf(network.Unavailable, "BridgeNotConnected", "it is not connected")
	}
	d, err := s.dump()
	if err != nil {
		return err
	}
	mapped := isMapped(t.name.Bridge)
	installed, held, _ := sortOut(d, mapped)
	wanted(t.name, func(state pipeline.State) {
		if mapped {
			onlyIn(installed.Groups, state.Desired.Groups)
			onlyIn(installed.Meters, state.Desired.Meters)
		}
		delta := flows.Diff(state.Desired, installed, state.Permitted, nil, leaveAlone)
		delta.FlowAdds = slices.DeleteFunc(delta.FlowAdds, func(f *flows.Flow) bool {
			_, taken := held[f.Key()]
			return taken && pipeline.Cookie(f.Cookie).Flags()&pipeline.FlagHost != 0 // the operator's choice, see giveWay
		})
		answer.Differences = append(answer.Differences, differences(views, t.name.Bridge, &delta, installed)...)
	})
	return nil
}

// differences puts a delta into words; the resources of flows are in one of views.
func differences(views []*network.View, bridge string, d *flows.Delta, installed *flows.Set) (list []Difference) {
	for _, want := range d.FlowAdds {
		list = append(list, flowDifference(views, bridge, want, installed.Flows[want.Key()]))
	}
	for _, have := range d.FlowDeletes {
		list = append(list, flowDifference(views, bridge, nil, have))
	}
	add := func(kind, desired, installed string) {
		list = append(list, Difference{Bridge: bridge, Kind: kind, State: stateOf(desired, installed), Desired: desired, Installed: installed})
	}
	for _, g := range d.GroupAdds {
		add("group", g.String(), "")
	}
	for _, g := range d.GroupMods {
		add("group", g.String(), installed.Groups[g.ID].String())
	}
	for _, id := range d.GroupDeletes {
		add("group", "", installed.Groups[id].String())
	}
	for _, m := range d.MeterAdds {
		add("meter", m.String(), "")
	}
	for _, m := range d.MeterMods {
		add("meter", m.String(), installed.Meters[m.ID].String())
	}
	for _, id := range d.MeterDeletes {
		add("meter", "", installed.Meters[id].String())
	}
	return list
}

func flowDifference(views []*network.View, bridge string, want, have *flows.Flow) Difference {
	d := Difference{Bridge: bridge, Kind: "flow", Desired: flowText(want), Installed: flowText(have)}
	d.State = stateOf(d.Desired, d.Installed)
	f := want
	if f == nil {
		f = have
	}
	d.Table, d.TableName = f.Table, pipeline.TableName(bridge, f.Table)
	if cookie := pipeline.Cookie(f.Cookie); cookie.Ours() {
		d.Feature, d.Resource = pipeline.FeatureName(cookie.Feature()), resourceIn(views, cookie)
	}
	return d
}

func stateOf(desired, installed string) string {
	switch {
	case installed == "":
		return driftMissing
	case desired == "":
		return driftUnexpected
	}
	return driftChanged
}

func flowText(f *flows.Flow) string {
	if f == nil {
		return ""
	}
	return f.String()
}
