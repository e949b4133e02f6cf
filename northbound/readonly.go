package northbound

import (
	"cmp"
	"iter"
	"net/http"
	"slices"

	"planck/network"
)

// readOnly is a collection of what Planck computes: there is nothing to create.
type readOnly[T any] struct {
	*resource[T]
	listOnly bool // single objects have no path
}

func (r readOnly[T]) endpoints() []endpoint {
	base := "/v2.0/" + r.path
	list := []endpoint{{path: base, resource: r.collection, methods: methods{http.MethodGet: r.list}}}
	if !r.listOnly {
		list[0].refuse = r.refuseWhole
		list = append(list, endpoint{path: base + "/{id}", resource: r.collection, methods: methods{http.MethodGet: r.show}})
	}
	return list
}

// computed completes the table of a collection of computed objects. of makes
// them all.
func computed[T any](rs *resource[T], of func(*network.View) []*T) *resource[T] {
	rs.all = func(view *network.View) iter.Seq[*T] {
		list := of(view)
		slices.SortFunc(list, func(a, b *T) int { return cmp.Compare(rs.standard(a).ID, rs.standard(b).ID) })
		return slices.Values(list)
	}
	rs.get = func(view *network.View, id string) *T {
		for o := range rs.all(view) {
			if rs.standard(o).ID == id {
				return o
			}
		}
		return nil
	}
	return rs
}

// computedTarget is for rules about a computed object.
func computedTarget[T any](of func(*T) *network.Standard) func(*network.View, *T) target {
	return func(view *network.View, o *T) target {
		return &modelTarget{id: of(o).ID, projectID: of(o).ProjectID, view: view}
	}
}
