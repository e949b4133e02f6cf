package verify

import (
	"iter"

	"planck/flows"
)

// index finds rules of a table by what of all is known of packets that come there:
// where they are from.
type index struct {
	on
	by   map[uint64][]*rule // by the value of the field
	rest []*rule            // that don't look at it
}

// on is some bits of a field.
type on struct {
	field flows.Field
	mask  uint64
}

// indexed are fields that tables are indexed by.
var indexed = [...]flows.Field{flows.InPort, flows.VLANVID, flows.TunnelID, flows.TunSrc, flows.Reg1, flows.Reg2, flows.Reg3, flows.Reg7, flows.Reg9, flows.Reg10, flows.Metadata}

// fewRules is how many are looked at one by one.
const fewRules = 8

// newIndex indexes a table by what the most rules have in common and tells the
// most of them apart; nil for a table with few.
func newIndex(rules []*rule) *index {
	if len(rules) <= fewRules {
		return nil
	}
	values := map[on]map[uint64]int{}
	for _, r := range rules {
		for _, t := range r.terms {
			for _, f := range indexed {
				if o := (on{f, t.Mask.Lo}); f == t.Field {
					if values[o] == nil {
						values[o] = map[uint64]int{}
					}
					values[o][t.Value.Lo]++
				}
			}
		}
	}
	best, least := on{}, len(rules)*len(rules)
	for o, count := range values {
		// As if packets met all values alike: the rules that are left to look at.
		left, covered := 0, 0
		for _, n := range count {
			left, covered = left+n*n, covered+n
		}
		left += (len(rules) - covered) * len(rules)
		if left < least || left == least && (o.field < best.field || o.field == best.field && o.mask < best.mask) {
			best, least = o, left
		}
	}
	if best.field == 0 {
		return nil
	}
	x := &index{on: best, by: map[uint64][]*rule{}}
	for _, r := range rules {
		if value, ok := best.of(r); ok {
			x.by[value] = append(x.by[value], r)
		} else {
			x.rest = append(x.rest, r)
		}
	}
	return x
}

// of is the value of the bits that a rule asks for, if it looks at just those.
func (o on) of(r *rule) (value uint64, ok bool) {
	for _, t := range r.terms {
		if t.Field == o.field && t.Mask.Lo == o.mask {
			return t.Value.Lo, true
		}
	}
	return 0, false
}

// candidates are the rules of a table that packets may meet, and perhaps others, by
// priority. What is known of the packets must not change to less meanwhile.
func (b *bridge) candidates(table uint8, in *flows.Symbolic) iter.Seq[*rule] {
	x := b.indexes[table]
	if x == nil {
		return each(b.tables[table])
	}
	value, known := in.Know(x.field)
	if known&x.mask != x.mask {
		return each(b.tables[table])
	}
	return merged(x.by[value&x.mask], x.rest)
}

func each(rules []*rule) iter.Seq[*rule] {
	return func(yield func(*rule) bool) {
		for _, r := range rules {
			if !yield(r) {
				return
			}
		}
	}
}

// merged are the rules of two lists in their order.
func merged(a, b []*rule) iter.Seq[*rule] {
	return func(yield func(*rule) bool) {
		for len(a)+len(b) > 0 {
			from := &a
			if len(a) == 0 || len(b) > 0 && b[0].order < a[0].order {
				from = &b
			}
			r := (*from)[0]
			*from = (*from)[1:]
			if !yield(r) {
				return
			}
		}
	}
}
