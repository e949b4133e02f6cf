package pipeline

import (
	"fmt"
	"slices"

	"planck/flows"
)

// Verify checks a flow of ours against the declaration of its table: what it
// matches on, writes, where it goes, and that it outputs only where that is allowed.
func Verify(bridge string, f *flows.Flow) error {
	t := findTable(KindOfBridge(bridge), f.Table)
	if t == nil {
		return fmt.Errorf("%s: table %d is not declared: %s", bridge, f.Table, f)
	}
	for term := range f.Match.Terms() {
		if !slices.Contains(t.Matches, term.Field) {
			return fmt.Errorf("%s: table %s may not match on %s: %s", bridge, t.Name, term.Field.Name(), f)
		}
	}
	return t.verifyActions(bridge, f, f.Instructions.Actions())
}

func (t *Table) verifyActions(bridge string, f *flows.Flow, actions []flows.Action) error {
	for _, a := range actions {
		if next, ok := a.NextTable(); ok && !slices.ContainsFunc(t.Next, func(n *Table) bool { return n.ID == next }) {
			return fmt.Errorf("%s: table %s may not go to table %d: %s", bridge, t.Name, next, f)
		}
		if w := a.Writes(); w != 0 && !slices.Contains(t.Sets, w) {
			return fmt.Errorf("%s: table %s may not write %s: %s", bridge, t.Name, w.Name(), f)
		}
		if emits(a.Kind()) && !t.Outputs {
			return fmt.Errorf("%s: table %s may not output: %s", bridge, t.Name, f)
		}
		if err := t.verifyActions(bridge, f, a.Nested()); err != nil {
			return err
		}
	}
	return nil
}

func emits(k flows.Kind) bool {
	return k == flows.KindOutput || k == flows.KindOutputReg || k == flows.KindGroup
}

func findTable(kind BridgeKind, id uint8) *Table {
	for _, t := range Tables {
		if t.Bridge == kind && t.ID == id {
			return t
		}
	}
	return nil
}
