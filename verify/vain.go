package verify

import (
	"fmt"
	"slices"

	"planck/flows"
	"planck/network"
)

// flowsInVain looks for flows that no packet meets. Of what the model wants, some
// is in reserve, for what is not now: that is counted. It is a finding where
// something that the model does not want is the reason.
func (v *verifier) flowsInVain() {
	var soundly map[place]map[flows.Key]bool
	if v.wanted != nil && v.drifted() {
		v.explore(v.wanted)
		soundly = reachedIn(v.wanted)
	}
	shadowed := make([]map[*rule]*rule, len(v.fabric.bridges))
	inParallel(len(shadowed), func(i int) { shadowed[i] = shadows(v.fabric.bridges[i]) })
	for i, b := range v.fabric.bridges {
		v.report.Flows += len(b.set.Flows)
		for t := range b.tables {
			for _, r := range b.tables[t] {
				v.inVain(b, r, shadowed[i][r], soundly)
			}
		}
	}
}

// drifted reports whether any bridge has flows other than the model wants.
func (v *verifier) drifted() bool {
	for _, b := range v.fabric.bridges {
		for _, f := range b.set.Flows {
			if !v.isWanted(b, f) {
				return true
			}
		}
		if w := v.wanted.at[b.place]; w != nil {
			for k := range w.set.Flows {
				if b.set.Flows[k] == nil {
					return true
				}
			}
		}
	}
	return false
}

func reachedIn(f *fabric) map[place]map[flows.Key]bool {
	all := map[place]map[flows.Key]bool{}
	for _, b := range f.bridges {
		all[b.place] = map[flows.Key]bool{}
		for t := range b.tables {
			for _, r := range b.tables[t] {
				if r.reached {
					all[b.place][r.flow.Key()] = true
				}
			}
		}
	}
	return all
}

func (v *verifier) inVain(b *bridge, r *rule, by *rule, soundly map[place]map[flows.Key]bool) {
	if by == nil && r.reached {
		return
	}
	wanted := v.isWanted(b, r.flow)
	if wanted {
		v.report.InReserve++
	} else if b.bridge != network.BridgeIntegration && b.bridge != network.BridgeTunnel {
		return // the operator's own
	}
	f := Finding{Kind: InVain, Blame: where(b, r.flow)}
	switch {
	case by != nil && !(wanted && v.isWanted(b, by.flow)):
		f.By = where(b, by.flow)
		f.Sent = flows.NewPacket(slices.Collect(r.flow.Match.Terms())...)
		f.Text = "no packet meets a flow: one of a higher priority takes all"
	case by == nil && !wanted:
		f.Text = "no packet meets a flow: none comes there"
	case by == nil && soundly[b.place][r.flow.Key()]:
		f.Text = "no packet meets a flow that the model wants: none comes there any more"
	default:
		return
	}
	v.report.Findings = append(v.report.Findings, f)
}

// shape is which bits of which fields matches look at.
type shape struct {
	fields map[flows.Field]flows.Value
	rules  map[flows.Match]*rule
}

// shadows finds for each rule of a bridge one of higher priority that takes all of
// its packets: one whose terms are all among its own, or looser.
func shadows(b *bridge) map[*rule]*rule {
	by := map[*rule]*rule{}
	for t := range b.tables {
		var shapes []*shape
		index := map[string]*shape{}
		rules := b.tables[t]
		for i := 0; i < len(rules); {
			end := i
			for end < len(rules) && rules[end].flow.Priority == rules[i].flow.Priority {
				if g := shadowOf(rules[end], shapes); g != nil {
					by[rules[end]] = g
				}
				end++
			}
			for ; i < end; i++ {
				key := ""
				fields := map[flows.Field]flows.Value{}
				for _, term := range rules[i].terms {
					key += fmt.Sprintf("%d/%x,", term.Field, term.Mask)
					fields[term.Field] = term.Mask
				}
				if index[key] == nil {
					index[key] = &shape{fields, map[flows.Match]*rule{}}
					shapes = append(shapes, index[key])
				}
				if index[key].rules[rules[i].flow.Match] == nil {
					index[key].rules[rules[i].flow.Match] = rules[i]
				}
			}
		}
	}
	return by
}

func shadowOf(r *rule, shapes []*shape) *rule {
	var buf [24]flows.Term
	for _, s := range shapes {
		looser := buf[:0]
		for _, t := range r.terms {
			mask, ok := s.fields[t.Field]
			if !ok {
				continue
			}
			if !t.Covers(mask) {
				break
			}
			looser = append(looser, t.Under(mask))
		}
		if len(looser) != len(s.fields) {
			continue
		}
		if g := s.rules[flows.NewMatch(looser...)]; g != nil {
			return g
		}
	}
	return nil
}
