package pipeline

import (
	"strings"
	"testing"

	"planck/flows"
)

// What punts is taken from the flows of all stories.
func TestEveryPuntCanBeSilenced(t *testing.T) {
	punting := map[FeatureID]bool{}
	for _, s := range stories {
		w := newWorld(t, s.options)
		s.tell(w)
		for target := range w.compiler.Targets() {
			w.compiler.Read(target, func(s State) {
				for _, set := range []*flows.Set{s.Desired, s.Permitted} {
					for _, f := range set.Flows {
						if punts(f) {
							punting[Cookie(f.Cookie).Feature()] = true
						}
					}
				}
			})
		}
	}
	for _, f := range Features {
		flow, ok := PuntDrop(f.ID(), 7)
		if ok != punting[f.ID()] {
			t.Errorf("%s: punts %t, can be silenced %t", f.Name(), punting[f.ID()], ok)
		}
		if !ok {
			continue
		}
		if err := Verify(string(Integration), &flow); err != nil {
			t.Errorf("%s: %v", f.Name(), err)
		}
		if err := flow.Match.Check(); err != nil {
			t.Errorf("%s: %v", f.Name(), err)
		}
	}
	if len(punting) < 8 {
		t.Errorf("only %d features punt in all stories", len(punting))
	}
}

func punts(f *flows.Flow) bool { return strings.Contains(f.Instructions.String(), "CONTROLLER") }
