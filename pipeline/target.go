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

// add returns the flow that had the key before, nil when it was free.
func (l layer) add(f *flows.Flow) (first *flows.Flow) {
	key := f.Key()
	first = l.set.Flows[key]
	if first == nil {
		l.set.Flows[key] = f
		return nil
	}
	l.spare[key] = append(l.spare[key], f)
	return first
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

// writer changes the targets of one host and notes what became dirty.
type writer struct {
	c    *Compiler
	host string
	out  *Outcome
}

func (w *writer) target(bridge string) (*target, *flows.Dirty) {
	t := Target{w.host, bridge}
	tg, ok := w.c.targets[t]
	if !ok {
		tg = newTarget()
		w.c.targets[t] = tg
	}
	d, ok := w.out.Dirty[t]
	if !ok {
		d = &flows.Dirty{}
		w.out.Dirty[t] = d
	}
	return tg, d
}

// place is where a unit puts a flow.
type place struct {
	bridge    string
	permitted bool
	key       flows.Key
}

func (e *emitted) place() place { return place{e.bridge, e.permitted, e.flow.Key()} }

// flows brings the targets from what a unit wanted before to what it wants now,
// and returns the latter without duplicates. What is in both stays as it is,
// with the old flow, so that nothing becomes dirty.
func (w *writer) flows(before, now []emitted) []emitted {
	old := make(map[place]*flows.Flow, len(before))
	for i := range before {
		old[before[i].place()] = before[i].flow
	}
	seen := make(map[place]*flows.Flow, len(now))
	kept, added := now[:0], []emitted(nil)
	for _, e := range now {
		p := e.place()
		if first, again := seen[p]; again {
			w.compare(e, first)
			continue
		}
		if o, ok := old[p]; ok && *o == *e.flow {
			e.flow = o
			delete(old, p)
		} else {
			added = append(added, e)
		}
		seen[p] = e.flow
		kept = append(kept, e)
	}
	for p, f := range old {
		tg, dirty := w.target(p.bridge)
		tg.layer(p.permitted).remove(f)
		dirty.AddFlow(p.key)
	}
	for _, e := range added {
		tg, dirty := w.target(e.bridge)
		if first := tg.layer(e.permitted).add(e.flow); first != nil {
			w.compare(e, first)
		}
		dirty.AddFlow(e.flow.Key())
	}
	return kept
}

// compare reports a flow whose key another one has with other actions.
func (w *writer) compare(e emitted, first *flows.Flow) {
	if *first != *e.flow {
		w.out.Errors = append(w.out.Errors, fmt.Errorf("host %s, bridge %s: different flows are wanted: %s; %s", w.host, e.bridge, first, e.flow))
	}
}

// others are groups and meters. They belong to one unit each: their ids are
// made of the keys of objects.
func (w *writer) others(before, now []other) {
	for _, o := range before {
		if !slices.ContainsFunc(now, func(n other) bool { return n.bridge == o.bridge && n.sameID(o) }) {
			tg, dirty := w.target(o.bridge)
			o.drop(tg.desired.set, dirty)
		}
	}
	for _, n := range now {
		tg, dirty := w.target(n.bridge)
		n.put(tg.desired.set, dirty)
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

func (o other) drop(set *flows.Set, dirty *flows.Dirty) {
	if o.group != nil {
		delete(set.Groups, o.group.ID)
		dirty.AddGroup(o.group.ID)
		return
	}
	delete(set.Meters, o.meter.ID)
	dirty.AddMeter(o.meter.ID)
}

func (o other) put(set *flows.Set, dirty *flows.Dirty) {
	if o.group != nil {
		if old := set.Groups[o.group.ID]; old == nil || *old != *o.group {
			set.AddGroup(o.group)
			dirty.AddGroup(o.group.ID)
		}
		return
	}
	if old := set.Meters[o.meter.ID]; old == nil || *old != *o.meter {
		set.AddMeter(o.meter)
		dirty.AddMeter(o.meter.ID)
	}
}
