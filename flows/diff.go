package flows

import (
	"cmp"
	"slices"
)

// Dirty says which entries may have changed, and why.
type Dirty struct {
	All    bool // everything: the sets below don't matter
	Flows  map[Key]*Cause
	Groups map[uint32]*Cause
	Meters map[uint32]*Cause
}

// AddFlow notes that the flow under the key may have changed.
func (d *Dirty) AddFlow(k Key, why *Cause) {
	if !d.All {
		note(&d.Flows, k, why)
	}
}

// AddGroup notes that the group may have changed.
func (d *Dirty) AddGroup(id uint32, why *Cause) {
	if !d.All {
		note(&d.Groups, id, why)
	}
}

// AddMeter notes that the meter may have changed.
func (d *Dirty) AddMeter(id uint32, why *Cause) {
	if !d.All {
		note(&d.Meters, id, why)
	}
}

// Merge notes all that o notes.
func (d *Dirty) Merge(o *Dirty) {
	if o == nil {
		return
	}
	d.All = d.All || o.All
	merge(&d.Flows, o.Flows)
	merge(&d.Groups, o.Groups)
	merge(&d.Meters, o.Meters)
}

// Empty tells that nothing changed.
func (d *Dirty) Empty() bool {
	return !d.All && len(d.Flows) == 0 && len(d.Groups) == 0 && len(d.Meters) == 0
}

func note[K comparable](set *map[K]*Cause, k K, why *Cause) {
	if *set == nil {
		*set = map[K]*Cause{}
	}
	if before, ok := (*set)[k]; ok {
		why = before.join(why)
	}
	(*set)[k] = why
}

func merge[K comparable](set *map[K]*Cause, from map[K]*Cause) {
	for k, why := range from {
		note(set, k, why)
	}
}

// Delta is what to send to a switch, field by field in this order: nothing that
// a flow refers to goes before it, nor comes after it. Adds overwrite: a changed
// flow is a FlowAdd and keeps its counters; groups and meters that exist already
// are Mods, since OpenFlow refuses to add them.
type Delta struct {
	MeterAdds    []*Meter
	MeterMods    []*Meter
	GroupAdds    []*Group
	GroupMods    []*Group
	FlowAdds     []*Flow
	FlowDeletes  []*Flow // as installed
	GroupDeletes []uint32
	MeterDeletes []uint32
}

// Len is the number of messages that the delta takes.
func (d *Delta) Len() int {
	return len(d.MeterAdds) + len(d.MeterMods) + len(d.GroupAdds) + len(d.GroupMods) +
		len(d.FlowAdds) + len(d.FlowDeletes) + len(d.GroupDeletes) + len(d.MeterDeletes)
}

// Empty tells that there is nothing to send.
func (d *Delta) Empty() bool { return d.Len() == 0 }

// Apply makes of what a switch had what it has once it took the delta.
func (d *Delta) Apply(s *Set) {
	for _, meters := range [][]*Meter{d.MeterAdds, d.MeterMods} {
		for _, m := range meters {
			s.AddMeter(m)
		}
	}
	for _, groups := range [][]*Group{d.GroupAdds, d.GroupMods} {
		for _, g := range groups {
			s.AddGroup(g)
		}
	}
	for _, f := range d.FlowAdds {
		s.AddFlow(f)
	}
	for _, f := range d.FlowDeletes {
		delete(s.Flows, f.Key())
	}
	for _, id := range d.GroupDeletes {
		delete(s.Groups, id)
	}
	for _, id := range d.MeterDeletes {
		delete(s.Meters, id)
	}
}

// Diff is what turns installed into desired, looking only at what is dirty. An
// installed flow that is not desired stays if it is the one that permitted has
// under its key, or if it is foreign. Installed must not have groups and meters
// of others. Permitted, dirty (everything) and foreign (none) may be nil. The
// delta's lists are sorted.
func Diff(desired, installed, permitted *Set, dirty *Dirty, foreign func(*Flow) bool) Delta {
	if dirty == nil {
		dirty = &Dirty{All: true}
	}
	var d Delta
	eachChanged(dirty.All, dirty.Flows, desired.Flows, installed.Flows, func(want, have *Flow) {
		d.flow(want, have, permitted, foreign)
	})
	eachChanged(dirty.All, dirty.Groups, desired.Groups, installed.Groups, func(want, have *Group) {
		switch {
		case want == nil:
			d.GroupDeletes = append(d.GroupDeletes, have.ID)
		case have == nil:
			d.GroupAdds = append(d.GroupAdds, want)
		case *want != *have:
			d.GroupMods = append(d.GroupMods, want)
		}
	})
	eachChanged(dirty.All, dirty.Meters, desired.Meters, installed.Meters, func(want, have *Meter) {
		switch {
		case want == nil:
			d.MeterDeletes = append(d.MeterDeletes, have.ID)
		case have == nil:
			d.MeterAdds = append(d.MeterAdds, want)
		case *want != *have:
			d.MeterMods = append(d.MeterMods, want)
		}
	})
	d.sort()
	return d
}

// eachChanged calls f with what is desired and what is installed under each dirty
// key, or under all of them; at least one of the two is not nil.
func eachChanged[K comparable, V any](all bool, dirty map[K]*Cause, desired, installed map[K]*V, f func(want, have *V)) {
	if !all {
		for k := range dirty {
			if want, have := desired[k], installed[k]; want != nil || have != nil {
				f(want, have)
			}
		}
		return
	}
	for k, want := range desired {
		f(want, installed[k])
	}
	for k, have := range installed {
		if desired[k] == nil {
			f(nil, have)
		}
	}
}

func (d *Delta) flow(want, have *Flow, permitted *Set, foreign func(*Flow) bool) {
	switch {
	case want != nil && (have == nil || !want.equal(have)):
		d.FlowAdds = append(d.FlowAdds, want)
	case want != nil:
	case permitted != nil && permitted.has(have):
	case foreign != nil && foreign(have):
	default:
		d.FlowDeletes = append(d.FlowDeletes, have)
	}
}

func (s *Set) has(f *Flow) bool {
	g := s.Flows[f.Key()]
	return g != nil && g.equal(f)
}

func (d *Delta) sort() {
	byKey := func(a, b *Flow) int { return compareKeys(a.Key(), b.Key()) }
	byGroup := func(a, b *Group) int { return cmp.Compare(a.ID, b.ID) }
	byMeter := func(a, b *Meter) int { return cmp.Compare(a.ID, b.ID) }
	slices.SortFunc(d.FlowAdds, byKey)
	slices.SortFunc(d.FlowDeletes, byKey)
	slices.SortFunc(d.GroupAdds, byGroup)
	slices.SortFunc(d.GroupMods, byGroup)
	slices.SortFunc(d.MeterAdds, byMeter)
	slices.SortFunc(d.MeterMods, byMeter)
	slices.Sort(d.GroupDeletes)
	slices.Sort(d.MeterDeletes)
}
