package controller

import (
	"cmp"
	"slices"
	"strconv"

	"planck/flows"
	"planck/network"
	"planck/pipeline"
)

// namedFields hold what has a name, in the order in which matches are written.
var namedFields = [...]flows.Field{flows.Reg2, flows.Reg3, flows.Reg6, flows.Reg7, flows.Reg9, flows.Reg10, flows.Metadata}

// namesOf says what registers and metadata hold in a flow; only br-int has any.
func namesOf(v *network.View, r *FlowRecord, f *flows.Flow) []string {
	names := []string{}
	if r.Feature == "" || r.Bridge != network.BridgeIntegration {
		return names
	}
	var matched [len(namedFields)]flows.Term
	for t := range f.Match.Terms() {
		if i := slices.Index(namedFields[:], t.Field); i >= 0 {
			matched[i] = t
		}
	}
	for _, t := range matched {
		names = addNames(names, v, t)
	}
	return namesIn(names, v, f.Instructions.Actions())
}

// namesIn adds what actions write.
func namesIn(names []string, v *network.View, actions []flows.Action) []string {
	for _, a := range actions {
		if t, ok := a.FieldSet(); ok {
			names = addNames(names, v, t)
		}
		names = namesIn(names, v, a.Nested())
	}
	return names
}

func addNames(names []string, v *network.View, t flows.Term) []string {
	for _, name := range nameRegister(v, t.Field, t.Value.Lo, t.Mask.Lo) {
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

// nameRegister says what the bits of a register under a mask hold; see pipeline.Registers.
func nameRegister(v *network.View, field flows.Field, value, mask uint64) (names []string) {
	key := uint32(value)
	add := func(what, name string) { names = append(names, what+"="+name) }
	switch field {
	case flows.Reg2:
		if p := v.PortByKey(key); p != nil {
			add("src", cmp.Or(p.Name, p.ID))
		}
	case flows.Reg3:
		if p := v.PortByKey(key); p != nil {
			add("dst", cmp.Or(p.Name, p.ID))
		}
	case flows.Reg6:
		if reason, ok := pipeline.DropReasons[pipeline.DropReason(key)]; ok {
			add("drop", strconv.Quote(reason))
		}
	case flows.Reg7:
		if g := v.SecurityGroupByKey(key); g != nil {
			add("group", cmp.Or(g.Name, g.ID))
		}
	case flows.Reg10:
		if g := v.SecurityGroupByKey(key); g != nil {
			add("remote_group", cmp.Or(g.Name, g.ID))
		}
	case flows.Reg9:
		if key != 0 {
			add("vlan", strconv.Itoa(int(key)))
		}
	case flows.Metadata:
		if n := v.NetworkByKey(key); n != nil && uint32(mask) != 0 {
			add("net", cmp.Or(n.Name, n.ID))
		}
		if r := v.RouterByKey(uint32(value >> 32)); r != nil && mask>>32 != 0 {
			add("router", cmp.Or(r.Name, r.ID))
		}
	}
	return names
}
