package verify

import (
	"fmt"
	"maps"
	"slices"
	"strings"

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
	groups := vain{of: map[cause]int{}}
	shadowed := make([]map[*rule]*rule, len(v.fabric.bridges))
	inParallel(len(shadowed), func(i int) { shadowed[i] = shadows(v.fabric.bridges[i]) })
	for i, b := range v.fabric.bridges {
		v.report.Flows += len(b.set.Flows)
		for t := range b.tables {
			for _, r := range b.tables[t] {
				v.inVain(&groups, b, r, shadowed[i][r], soundly)
			}
		}
	}
	v.report.Findings = append(v.report.Findings, groups.findings...)
}

// vain is findings of flows in vain, one for each cause.
type vain struct {
	of       map[cause]int // index of its finding
	findings []Finding
}

// cause is why flows are in vain: a flow that takes all, a table to which nothing
// comes, or with all empty what the switches lack.
type cause struct {
	by    *rule
	at    place
	table uint8
}

func (g *vain) add(c cause, f Finding) {
	if i, known := g.of[c]; known {
		g.findings[i].Like++
		return
	}
	g.of[c] = len(g.findings)
	g.findings = append(g.findings, f)
}

// lacks says which flows that the model wants the switches have not.
func (v *verifier) lacks() string {
	var places []string
	for _, w := range v.wanted.bridges {
		b := v.fabric.at[w.place]
		lost := map[uint8]int{}
		for key, f := range w.set.Flows {
			if b != nil && b.set.Flows[key] == nil {
				lost[f.Table]++
			}
		}
		for _, table := range slices.Sorted(maps.Keys(lost)) {
			places = append(places, fmt.Sprintf("%s %s lacks %d of table %d", w.host, w.bridge, lost[table], table))
		}
	}
	if more := len(places) - maxLacks; more > 0 {
		places = append(places[:maxLacks], fmt.Sprintf("and %d more tables", more))
	}
	if len(places) == 0 {
		return "what the model does not want leads all elsewhere"
	}
	return strings.Join(places, ", ")
}

// maxLacks is how many tables are named that lack flows.
const maxLacks = 6

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

func (v *verifier) inVain(groups *vain, b *bridge, r *rule, by *rule, soundly map[place]map[flows.Key]bool) {
	if by == nil && r.reached {
		return
	}
	wanted := v.isWanted(b, r.flow)
	if wanted {
		v.report.InReserve++
	} else if b.bridge != network.BridgeIntegration && b.bridge != network.BridgeTunnel {
		return // the operator's own
	}
	f, why := Finding{Kind: InVain, Blame: where(b, r.flow)}, cause{}
	switch {
	case by != nil && !(wanted && v.isWanted(b, by.flow)):
		f.By, why.by = where(b, by.flow), by
		f.Sent = flows.NewPacket(slices.Collect(r.flow.Match.Terms())...)
		f.Text = "no packet meets a flow: one of a higher priority takes all"
	case by == nil && !wanted:
		f.Text = "no packet meets a flow: none comes there"
		why.at, why.table = b.place, r.flow.Table
	case by == nil && soundly[b.place][r.flow.Key()]:
		f.Text = "no packet meets a flow that the model wants: none comes there any more"
		if _, known := groups.of[why]; !known {
			f.Text += ": " + v.lacks()
		}
	default:
		return
	}
	groups.add(why, f)
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
