package controller

import (
	"errors"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"planck/flows"
	"planck/network"
	"planck/pipeline"
)

// changeFilter says which changes are asked for.
type changeFilter struct {
	past
	query ChangesQuery
	// resources are what the query names: each must be what a revision wrote, or
	// what its flows stand for.
	resources []wanted
	flow      func(*flows.Flow) bool // nil for all
	cookie    pipeline.Cookie        // of the flow that is asked for, 0 where it is not told
	missing   error                  // why a resource was taken for one that is gone
}

// wanted is a resource of a kind, with what belongs to it.
type wanted struct {
	kind network.Kind
	id   string
}

func newChangeFilter(p past, q ChangesQuery) (*changeFilter, error) {
	f := &changeFilter{past: p, query: q}
	for _, named := range []struct {
		kind network.Kind
		name string
		find func(*network.View, string) (string, error)
	}{
		{network.KindPort, q.Port, portID},
		{network.KindNetwork, q.Network, func(v *network.View, name string) (string, error) {
			return idOf(findNamed(v.Network(name), v.Networks(), name, "Network"))
		}},
		{network.KindRouter, q.Router, func(v *network.View, name string) (string, error) {
			return idOf(findNamed(v.Router(name), v.Routers(), name, "Router"))
		}},
		{network.KindSecurityGroup, q.Group, func(v *network.View, name string) (string, error) {
			return idOf(findNamed(v.SecurityGroup(name), v.SecurityGroups(), name, "SecurityGroup"))
		}},
	} {
		if named.name == "" {
			continue
		}
		id, err := named.find(p.now, named.name)
		var e *network.Error
		if errors.As(err, &e) && e.Class == network.NotFound {
			id, err = f.idOfOld(named.name, named.find), nil
			if id == "" {
				id, f.missing = named.name, e
			}
		}
		if err != nil {
			return nil, err
		}
		f.resources = append(f.resources, wanted{named.kind, id})
	}
	if q.Flow != "" {
		f.flow, f.cookie = flowLike(q.Flow)
	}
	return f, nil
}

// idOfOld finds what is not there any more in the oldest model that is kept, ""
// when it is not there.
func (f *changeFilter) idOfOld(name string, find func(*network.View, string) (string, error)) string {
	v := f.at(f.store.Oldest())
	if v == nil {
		return ""
	}
	id, err := find(v, name)
	if err != nil {
		return "" // the query is answered with why it is not there now
	}
	return id
}

func portID(v *network.View, name string) (string, error) {
	p, err := findPort(v, name)
	if err != nil {
		return "", err
	}
	return p.ID, nil
}

func idOf[T network.Object](o T, err error) (string, error) {
	if err != nil {
		return "", err
	}
	return o.ObjectID(), nil
}

// tableName is what the tools write behind the number of a table.
var tableName = regexp.MustCompile(`(\d)\([A-Z][A-Za-z0-9]*\)`)

// flowLike finds flows by a cookie, by what ovs-ofctl or our tools print, or by a
// part of it.
func flowLike(text string) (like func(*flows.Flow) bool, cookie pipeline.Cookie) {
	text = tableName.ReplaceAllString(strings.TrimSpace(text), "$1")
	if n, err := strconv.ParseUint(strings.TrimPrefix(text, "cookie="), 0, 64); err == nil {
		return func(f *flows.Flow) bool { return f.Cookie == n }, pipeline.Cookie(n)
	}
	if strings.Contains(text, "actions=") {
		if want, err := flows.ParseFlow(text); err == nil {
			key := want.Key()
			return func(f *flows.Flow) bool { return f.Key() == key }, pipeline.Cookie(want.Cookie)
		}
	}
	return func(f *flows.Flow) bool { return strings.Contains(f.String(), text) }, 0
}

// ofFlows reports whether something is asked of flows, or of the objects in
// their place.
func (f *changeFilter) ofFlows() bool {
	return f.query.Host != "" || f.flow != nil || len(f.resources) > 0
}

// ofRequests reports whether what no revision is the reason for is not asked for.
func (f *changeFilter) ofRequests() bool {
	return f.query.Request != "" || f.query.Project != "" || f.query.Revision != 0
}

// passes reports whether something that was sent is asked for.
func (f *changeFilter) passes(p *pass, x *sent) bool {
	if f.query.Host != "" && p.of.Host != f.query.Host || f.flow != nil && (x.flow == nil || !f.flow(x.flow)) {
		return false
	}
	if len(f.resources) == 0 {
		return true
	}
	if x.flow == nil || !pipeline.Cookie(x.flow.Cookie).Ours() {
		return false
	}
	r := f.resource(pipeline.Cookie(x.flow.Cookie), sentIn{p, x})
	views := f.around(p.revision)
	return !slices.ContainsFunc(f.resources, func(w wanted) bool { return !w.is(network.Ref{Kind: network.Kind(r.Kind), ID: r.ID}, views) })
}

// objects reports whether what a revision wrote is all that is asked for.
func (f *changeFilter) objects(l *network.Logged) bool {
	if f.flow != nil {
		return false
	}
	wrote := func(is func(network.Ref) bool) bool { return slices.ContainsFunc(l.Objects, is) }
	if host := f.query.Host; host != "" && !wrote(func(o network.Ref) bool { return onHost(o, host) }) {
		return false
	}
	if len(f.resources) == 0 {
		return true
	}
	views := f.around(l.Revision)
	return !slices.ContainsFunc(f.resources, func(w wanted) bool {
		return !wrote(func(o network.Ref) bool { return w.is(o, views) })
	})
}

// onHost reports whether an object is a host, or something of one.
func onHost(o network.Ref, host string) bool {
	_, on, _ := strings.Cut(o.ID, "@")
	return o.Kind == network.KindHost && o.ID == host || on == host
}

// is reports whether an object is the resource, is part of it, or says something
// of it; views are those where the object may be found.
func (w wanted) is(o network.Ref, views []*network.View) bool {
	if of, _, _ := strings.Cut(o.ID, "@"); of == w.id {
		return true // its status, its interface on a host, …
	}
	if w.kind == network.KindPort {
		return false
	}
	for _, v := range views {
		switch x := v.Object(o).(type) {
		case *network.Port:
			return w.kind == network.KindNetwork && x.NetworkID == w.id || w.kind == network.KindRouter && x.DeviceID == w.id
		case *network.Subnet:
			return w.kind == network.KindNetwork && x.NetworkID == w.id
		case *network.FloatingIP:
			return w.kind == network.KindRouter && x.RouterID == w.id
		case *network.SecurityGroupRule:
			return w.kind == network.KindSecurityGroup && x.GroupID == w.id
		}
	}
	return false
}

// ofFlow asks for the resource of the flow in its place; false when it has none.
func (f *changeFilter) ofFlow() bool {
	for _, v := range []*network.View{f.now, f.at(f.store.Oldest())} {
		if v == nil || f.cookie == 0 {
			continue
		}
		if r := resourceOf(v, f.cookie); r.ID != "" && !gone(r) {
			f.flow = nil
			f.resources = append(f.resources, wanted{network.Kind(r.Kind), r.ID})
			return true
		}
	}
	return false
}
