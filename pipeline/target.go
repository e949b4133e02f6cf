package pipeline

import (
	"fmt"
	"slices"

	"planck/flows"
)

// target is the wanted state of a bridge.
type target struct {
	desired, permitted layer
}

// layer is a set of flows, groups and meters. More than one unit may want the
// same flow: the others wait in spare until the first one no longer wants it.
type layer struct {
	set   *flows.Set
	spare map[flows.Key][]*flows.Flow
}

func newTarget() *target {
	return &target{desired: newLayer(), permitted: newLayer()}
}

func newLayer() layer {
	return layer{set: flows.NewSet(), spare: make(map[flows.Key][]*flows.Flow)}
}

func (t *target) empty() bool {
	d := t.desired.set
	return len(d.Flows)+len(d.Groups)+len(d.Meters)+len(t.permitted.set.Flows) == 0
}

func (t *target) layer(permitted bool) layer {
	if permitted {
		return t.permitted
	}
	return t.desired
}

// remove takes out one flow, by identity; a spare takes its place.
func (l layer) remove(f *flows.Flow) {
	key := f.Key()
	spare := l.spare[key]
	i := slices.Index(spare, f)
	if i < 0 && len(spare) == 0 {
		delete(l.set.Flows, key)
		return
	}
	if i < 0 {
		i = 0
		l.set.Flows[key] = spare[0]
	}
	if l.spare[key] = slices.Delete(spare, i, i+1); len(l.spare[key]) == 0 {
		delete(l.spare, key)
	}
}

// kept is what a unit wants, as it is kept.
type kept struct {
	flows  []keptFlow
	others []other
}

// keptFlow is a flow of a bridge, which many hosts may share.
type keptFlow struct {
	flow      *flows.Flow
	bridge    uint16 // see shard.bridge
	permitted bool
}

// place is where a unit puts a flow.
type place struct {
	bridge    uint16
	permitted bool
	key       flows.Key
}

func (k *keptFlow) samePlace(o keptFlow) bool {
	return k.bridge == o.bridge && k.permitted == o.permitted &&
		k.flow.Table == o.flow.Table && k.flow.Priority == o.flow.Priority && k.flow.Match == o.flow.Match
}

func (k *keptFlow) place() place { return place{k.bridge, k.permitted, k.flow.Key()} }

// keeps reports whether what is kept is what was emitted.
func (k *keptFlow) keeps(bridge uint16, e *emitted) bool {
	return k.bridge == bridge && k.permitted == e.permitted && *k.flow == e.flow
}

// writer changes the targets of one host and notes what became dirty.
type writer struct {
	s    *shard
	host string
	why  *flows.Cause
}

// target is a target to be changed. All of one that is new is dirty.
func (w *writer) target(bridge string) (*target, *flows.Dirty) {
	t := Target{w.host, bridge}
	tg, ok := w.s.targets[t]
	if !ok {
		tg = newTarget()
		w.s.targets[t] = tg
	}
	d := w.s.out.Dirty[t]
	if d == nil {
		d = &flows.Dirty{All: !ok}
		w.s.out.Dirty[t] = d
	}
	return tg, d
}

// flows brings the targets from what a unit wanted before to what it wants now,
// and returns the latter without duplicates. What is in both stays as it is,
// with the old flow, so that nothing becomes dirty. What the same object's unit
// of another host has is used again.
func (w *writer) flows(before []keptFlow, now []emitted, example []keptFlow) []keptFlow {
	if w.unchanged(before, now) {
		return before
	}
	old := make(map[place]*flows.Flow, len(before))
	for i := range before {
		old[before[i].place()] = before[i].flow
	}
	all, added := make([]keptFlow, 0, len(now)), make([]int, 0, len(now))
	for i := range now {
		e := &now[i]
		k := keptFlow{&e.flow, w.s.bridge(e.bridge), e.permitted}
		if o, ok := old[k.place()]; ok && *o == e.flow {
			k.flow = o
			delete(old, k.place())
		} else {
			k.flow = w.shared(example, i, k.bridge, e)
			added = append(added, len(all))
		}
		all = append(all, k)
	}
	for p, f := range old {
		tg, dirty := w.target(w.s.bridges[p.bridge])
		tg.layer(p.permitted).remove(f)
		dirty.AddFlow(p.key, w.why)
	}
	return w.add(all, added)
}

// unchanged reports whether a unit wants what it wanted before, in that order.
func (w *writer) unchanged(before []keptFlow, now []emitted) bool {
	if len(before) != len(now) {
		return false
	}
	for i := range now {
		if !before[i].keeps(w.s.bridge(now[i].bridge), &now[i]) {
			return false
		}
	}
	return true
}

// shared is the flow that was emitted as the i-th: the one of the example, if
// that is the same.
func (w *writer) shared(example []keptFlow, i int, bridge uint16, e *emitted) *flows.Flow {
	if i < len(example) && example[i].keeps(bridge, e) {
		return example[i].flow
	}
	f := e.flow
	return &f
}

// add puts the flows at some indexes of all into the targets, and returns all
// without those whose place the unit itself has taken.
func (w *writer) add(all []keptFlow, indexes []int) []keptFlow {
	var repeated []int
	for _, i := range indexes {
		k := &all[i]
		bridge := w.s.bridges[k.bridge]
		tg, dirty := w.target(bridge)
		l, key := tg.layer(k.permitted), k.flow.Key()
		first := l.set.Flows[key]
		if first == nil {
			l.set.Flows[key] = k.flow
			dirty.AddFlow(key, w.why)
			continue
		}
		w.compare(bridge, k.flow, first)
		if repeats(all, indexes, i) {
			repeated = append(repeated, i)
			continue
		}
		l.spare[key] = append(l.spare[key], k.flow)
		dirty.AddFlow(key, w.why)
	}
	for _, i := range slices.Backward(repeated) {
		all = slices.Delete(all, i, i+1)
	}
	return all
}

// repeats reports whether the unit itself has the place of its i-th flow, which
// is one of those at indexes: by one that stays, or one that came before it.
func repeats(all []keptFlow, indexes []int, i int) bool {
	if slices.ContainsFunc(all[:i], all[i].samePlace) {
		return true
	}
	for j := i + 1; j < len(all); j++ {
		if _, added := slices.BinarySearch(indexes, j); all[i].samePlace(all[j]) && !added {
			return true
		}
	}
	return false
}

// compare reports a flow whose key another one has with other actions.
func (w *writer) compare(bridge string, f, first *flows.Flow) {
	if *first != *f {
		w.s.out.Errors = append(w.s.out.Errors, fmt.Errorf("host %s, bridge %s: different flows are wanted: %s; %s", w.host, bridge, first, f))
	}
}

// others are groups and meters. They belong to one unit each: their ids are
// made of the keys of objects.
func (w *writer) others(before, now []other) {
	for _, o := range before {
		if !slices.ContainsFunc(now, func(n other) bool { return n.bridge == o.bridge && n.sameID(o) }) {
			tg, dirty := w.target(o.bridge)
			o.drop(tg.desired.set, dirty, w.why)
		}
	}
	for _, n := range now {
		tg, dirty := w.target(n.bridge)
		n.put(tg.desired.set, dirty, w.why)
	}
}

// other is a group or a meter of a bridge: one of the two is set.
type other struct {
	bridge string
	group  *flows.Group
	meter  *flows.Meter
}

func (o other) sameID(p other) bool {
	if o.group != nil {
		return p.group != nil && o.group.ID == p.group.ID
	}
	return p.meter != nil && o.meter.ID == p.meter.ID
}

func (o other) drop(set *flows.Set, dirty *flows.Dirty, why *flows.Cause) {
	if o.group != nil {
		delete(set.Groups, o.group.ID)
		dirty.AddGroup(o.group.ID, why)
		return
	}
	delete(set.Meters, o.meter.ID)
	dirty.AddMeter(o.meter.ID, why)
}

func (o other) put(set *flows.Set, dirty *flows.Dirty, why *flows.Cause) {
	if o.group != nil {
		if old := set.Groups[o.group.ID]; old == nil || *old != *o.group {
			set.AddGroup(o.group)
			dirty.AddGroup(o.group.ID, why)
		}
		return
	}
	if old := set.Meters[o.meter.ID]; old == nil || *old != *o.meter {
		set.AddMeter(o.meter)
		dirty.AddMeter(o.meter.ID, why)
	}
}
