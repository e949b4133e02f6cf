package controller

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// MergeChanges joins the answers of several controllers to the same question:
// they know the same revisions, and each what it sent to switches itself.
func MergeChanges(q ChangesQuery, answers []*Changes) (*Changes, error) {
	q.bound()
	answers = foundBest(answers)
	m := &Changes{Changes: []ChangeRecord{}}
	byPosition := map[Position]*ChangeRecord{}
	var horizon Position // up to which all answers are whole
	for i, a := range answers {
		m.Note, m.FlowFound = cmp.Or(m.Note, a.Note), m.FlowFound || a.FlowFound
		m.FlowsSince = latest(m.FlowsSince, a.FlowsSince)
		if i == 0 || a.ModelSince < m.ModelSince {
			m.ModelSince = a.ModelSince
		}
		if a.Next != "" {
			next, err := ParsePosition(a.Next)
			if err != nil {
				return nil, fmt.Errorf("next is %q: %w", a.Next, err)
			}
			if next.Compare(horizon) > 0 {
				horizon = next
			}
		}
		for k := range a.Changes {
			if err := joinRecord(byPosition, &a.Changes[k]); err != nil {
				return nil, err
			}
		}
	}
	for p, r := range byPosition {
		if p.Compare(horizon) >= 0 {
			r.sortFlows(q.MostFlows)
			m.Changes = append(m.Changes, *r)
		}
	}
	slices.SortFunc(m.Changes, func(a, b ChangeRecord) int { return b.position.Compare(a.position) })
	if horizon != (Position{}) {
		m.Next = horizon.String()
	}
	if len(m.Changes) > q.Most {
		m.Changes = m.Changes[:q.Most]
		m.Next = m.Changes[q.Most-1].Position
	}
	return m, nil
}

// foundBest leaves out what was answered in the place of a flow, where somebody
// has that flow itself.
func foundBest(answers []*Changes) []*Changes {
	if !slices.ContainsFunc(answers, func(a *Changes) bool { return a.FlowFound }) {
		return answers
	}
	return slices.DeleteFunc(slices.Clone(answers), func(a *Changes) bool { return a.Note != "" })
}

// joinRecord adds a record, or what it says more of a revision that is there.
func joinRecord(byPosition map[Position]*ChangeRecord, r *ChangeRecord) error {
	position, err := ParsePosition(r.Position)
	if err != nil {
		return fmt.Errorf("position is %q: %w", r.Position, err)
	}
	have := byPosition[position]
	if have == nil {
		own := *r
		own.position, own.Flows, own.Objects = position, slices.Clone(r.Flows), slices.Clone(r.Objects)
		byPosition[position] = &own
		return nil
	}
	have.Flows, have.MoreFlows = append(have.Flows, r.Flows...), have.MoreFlows+r.MoreFlows
	for i := range have.Objects {
		o := &have.Objects[i]
		known := slices.IndexFunc(r.Objects, func(x ObjectChange) bool { return x.Kind == o.Kind && x.ID == o.ID })
		if known < 0 {
			continue
		}
		// Each keeps the models that it has seen.
		if o.Change == "" {
			o.Change, o.Attributes = r.Objects[known].Change, r.Objects[known].Attributes
		}
		o.Name = cmp.Or(o.Name, r.Objects[known].Name)
	}
	return nil
}

// sortFlows orders the flows by host and bridge, and leaves the most there may be.
func (r *ChangeRecord) sortFlows(most int) {
	slices.SortStableFunc(r.Flows, func(a, b FlowChange) int {
		return cmp.Or(cmp.Compare(a.Host, b.Host), cmp.Compare(a.Bridge, b.Bridge), a.At.Compare(b.At))
	})
	if n := len(r.Flows); n > most {
		r.Flows, r.MoreFlows = r.Flows[:most], r.MoreFlows+n-most
	}
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
