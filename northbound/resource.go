package northbound

import (
	"cmp"
	"fmt"
	"iter"
	"net/http"
	"slices"
	"sync"

	"planck/network"
)

// resource is everything that the engine has to know about one type of object
// of the API. Adding one to the API is a file that makes such a table, and a
// line in resources.
type resource[T any] struct {
	name       string // of the body and in rules: "network"
	collection string // of the body: "networks"
	path       string // below /v2.0/
	extensions []extension
	attributes []attribute[T]

	standard func(*T) *network.Standard
	get      func(*network.View, string) *T
	all      func(*network.View) iter.Seq[*T]
	// indexes are the filters that need not look at every object, best first.
	indexes []index[T]
	// reachable is at least all that a caller who is no administrator may see;
	// nil is every object.
	reachable func(*reader) iter.Seq[*T]
	// visible is tenant isolation: whether a caller who is no administrator may
	// know of the object. Rules may only narrow it.
	visible  func(*reader, *T) bool
	target   func(*network.View, *T) target
	notFound func(id string) error

	clone func(*T) *T
	// prepare completes a new object before the rules are asked about it, and
	// refuses what is about an object that the caller can't see; or nil.
	prepare func(*change, *T) error
	create  func(*change, *T) error
	update  func(c *change, o, old *T) error
	remove  func(tx *network.Tx, id string) error
	// keep refuses that a caller deletes an object; or nil.
	keep func(*change, *T) error
	// bulk refuses what may not be created together; or nil.
	bulk func([]input) error
	// before is done before a list is read; or nil.
	before func(*call, query) error
	// actions are the calls PUT <path>/<id>/<name>.
	actions map[string]handler
}

// index lists the objects whose attribute has a value.
type index[T any] struct {
	attribute string
	of        func(*network.View, string) iter.Seq[*T]
}

// collection is what the server needs of a resource[T].
type collection interface {
	endpoints() []endpoint
	advertised() []extension
	title() (name, collection string)
	rows() []row
	owned() ownedBy
}

// row is one attribute for the compatibility document.
type row struct {
	name  string
	flags ability
}

func (rs *resource[T]) advertised() []extension { return rs.extensions }

func (rs *resource[T]) title() (string, string) { return rs.name, rs.collection }

func (rs *resource[T]) rows() []row {
	rows := make([]row, len(rs.attributes))
	for i, a := range rs.attributes {
		rows[i] = row{a.name, a.flags}
	}
	return rows
}

func (rs *resource[T]) attribute(name string) *attribute[T] {
	for i := range rs.attributes {
		if rs.attributes[i].name == name {
			return &rs.attributes[i]
		}
	}
	return nil
}

func (rs *resource[T]) endpoints() []endpoint {
	base := "/v2.0/" + rs.path
	list := []endpoint{
		{path: base, resource: rs.collection, refuse: rs.refuseWhole, methods: methods{
			http.MethodGet: rs.list, http.MethodPost: rs.post}},
		{path: base + "/{id}", resource: rs.collection, methods: methods{
			http.MethodGet: rs.show, http.MethodPut: rs.put, http.MethodDelete: rs.delete}},
		{path: base + "/{id}/tags", resource: rs.collection, methods: methods{
			http.MethodGet: rs.listTags, http.MethodPut: rs.replaceTags,
			http.MethodPost: rs.addTags, http.MethodDelete: rs.deleteTags}},
		{path: base + "/{id}/tags/{tag}", resource: rs.collection, methods: methods{
			http.MethodGet: rs.showTag, http.MethodPut: rs.putTag, http.MethodDelete: rs.deleteTag}},
	}
	for _, name := range sortedKeys(rs.actions) {
		list = append(list, endpoint{path: base + "/{id}/" + name, resource: rs.collection,
			methods: methods{http.MethodPut: rs.actions[name]}})
	}
	return list
}

// reader is a view of the model as one caller sees it.
type reader struct {
	view   *network.View
	who    *Identity
	policy *policy
	all    bool   // sees every project's objects
	domain string // of ports whose network has none: "example.org.", or ""
	alive  func(host string) bool
	joined func(host string) bool
	net    *network.Network
}

// network is View.Network that remembers the last one: in a list, objects of
// one network often follow each other.
func (r *reader) network(id string) *network.Network {
	if r.net == nil || r.net.ID != id {
		r.net = r.view.Network(id)
	}
	return r.net
}

func (c *call) reader(view *network.View) *reader {
	p := c.rules()
	all := p.admin(c.who) || p.allows("context_is_advsvc", c.who, noTarget{})
	return &reader{view: view, who: c.who, policy: p, all: all, domain: c.server.domain, alive: c.server.alive, joined: c.server.joined}
}

func (rs *resource[T]) sees(r *reader, o *T) bool {
	if !r.all && !rs.visible(r, o) {
		return false
	}
	return r.policy.allows("get_"+rs.name, r.who, rs.target(r.view, o))
}

// find returns the object that a path names. One that the caller may not see
// is not found.
func (rs *resource[T]) find(r *reader, id string) (*T, error) {
	o := rs.get(r.view, id)
	if o == nil || !rs.sees(r, o) {
		return nil, rs.notFound(id)
	}
	return o, nil
}

// change is what a resource's create and update hooks work with: one object of
// one request in one transaction. It must not be kept.
type change struct {
	tx     *network.Tx
	r      *reader // the transaction's state as the caller sees it
	in     input
	quotas *quotas // of a POST
}

// apply makes the object of a POST.
func (rs *resource[T]) apply(in input) *T {
	o := new(T)
	for i := range rs.attributes {
		a := &rs.attributes[i]
		if g, ok := in[a.name]; ok {
			a.set(o, g.value)
		} else if a.def != nil && a.is(onPost) {
			a.set(o, a.def)
		}
	}
	return o
}

func (rs *resource[T]) post(c *call) (int, []byte, error) {
	body, err := c.body()
	if err != nil {
		return 0, nil, err
	}
	items, bulk, err := rs.itemsOf(c, body)
	if err != nil {
		return 0, nil, err
	}
	inputs := make([]input, len(items))
	for i, item := range items {
		if inputs[i], err = rs.parseItem(c, item, true); err != nil {
			return 0, nil, err
		}
	}
	if bulk && rs.bulk != nil {
		if err := rs.bulk(inputs); err != nil {
			return 0, nil, err
		}
	}
	ids := make([]string, len(inputs))
	view, err := c.update("create_"+rs.name, func(tx *network.Tx) error {
		for i, in := range inputs {
			id, err := rs.createOne(&change{tx: tx, r: c.reader(tx.View), in: in, quotas: c.quotas()})
			if err != nil {
				return err
			}
			ids[i] = id
		}
		rs.notifyCreated(c, tx, ids, bulk)
		return nil
	})
	if err != nil {
		return 0, nil, err
	}
	return http.StatusCreated, rs.encodeCreated(c.reader(view), ids, bulk), nil
}

func (rs *resource[T]) createOne(c *change) (string, error) {
	o := rs.apply(c.in)
	if rs.prepare != nil {
		if err := rs.prepare(c, o); err != nil {
			return "", err
		}
	}
	if err := rs.authorize(c, "create", rs.target(c.tx.View, o)); err != nil {
		return "", err
	}
	if err := c.quotas.check(c.tx.View, rs.name, rs.standard(o).ProjectID, 1); err != nil {
		return "", err
	}
	if err := rs.create(c, o); err != nil {
		return "", err
	}
	return rs.standard(o).ID, nil
}

// itemsOf finds the one object of a body, or the several of a bulk request.
func (rs *resource[T]) itemsOf(c *call, body map[string]any) (items []any, bulk bool, err error) {
	list, bulk := body[rs.collection]
	if !bulk {
		return []any{body[rs.name]}, false, nil
	}
	if !c.server.limits.Bulk {
		return nil, true, badRequest("Bulk operation not supported")
	}
	items, ok := list.([]any)
	if !ok && list != nil {
		return nil, true, badRequest("Body contains invalid data")
	}
	if len(items) == 0 {
		return nil, true, badRequest("Resources required")
	}
	items = slices.Clone(items)
	for i, item := range items {
		if m, ok := item.(map[string]any); ok {
			if inner, ok := m[rs.name]; ok {
				items[i] = inner
			}
		}
	}
	return items, true, nil
}

// encodeCreated answers a POST. An object that somebody deleted meanwhile is left out.
func (rs *resource[T]) encodeCreated(r *reader, ids []string, bulk bool) []byte {
	var made []*T
	for _, id := range ids {
		if o := rs.get(r.view, id); o != nil {
			made = append(made, o)
		}
	}
	if bulk {
		return rs.encodeList(r, made, nil, nil)
	}
	if len(made) == 0 {
		return []byte("{}")
	}
	return rs.encodeOne(r, made[0], nil)
}

// refuseWhole answers PUT and DELETE of a collection as Neutron does: it looks
// for the one object of a path that names none.
func (rs *resource[T]) refuseWhole(c *call) error {
	switch c.request.Method {
	case http.MethodPut:
		body, err := c.body()
		if err != nil {
			return err
		}
		_, one := body[rs.name]
		_, several := body[rs.collection]
		if one || several {
			if _, err := rs.parseUpdate(c, body); err != nil {
				return err
			}
		}
	case http.MethodDelete:
	default:
		return nil
	}
	return rs.notFound("None")
}

// parseUpdate reads the body of a PUT.
func (rs *resource[T]) parseUpdate(c *call, body map[string]any) (input, error) {
	if _, bulk := body[rs.collection]; bulk {
		return nil, badRequest("Bulk operation not supported")
	}
	return rs.parseItem(c, body[rs.name], false)
}

func (rs *resource[T]) put(c *call) (int, []byte, error) {
	body, err := c.body()
	if err != nil {
		return 0, nil, err
	}
	in, err := rs.parseUpdate(c, body)
	if err != nil {
		return 0, nil, err
	}
	return rs.modify(c, "update_"+rs.name, func(ch *change, old *T) error {
		ch.in = in
		o := rs.clone(old)
		for i := range rs.attributes {
			a := &rs.attributes[i]
			if g, ok := in[a.name]; ok {
				a.set(o, g.value)
			}
		}
		if err := rs.authorize(ch, "update", rs.target(ch.tx.View, o)); err != nil {
			return err
		}
		if err := rs.update(ch, o, old); err != nil {
			return err
		}
		rs.notifyUpdated(c, ch.tx)
		return nil
	})
}

// modify runs fn on the object that the path names, in a transaction, and
// answers with the object as it is then.
func (rs *resource[T]) modify(c *call, operation string, fn func(ch *change, old *T) error) (int, []byte, error) {
	view, err := rs.modifyOnly(c, operation, fn)
	if err != nil {
		return 0, nil, err
	}
	o := rs.get(view, c.id)
	if o == nil {
		return 0, nil, rs.notFound(c.id)
	}
	return http.StatusOK, rs.encodeOne(c.reader(view), o, nil), nil
}

func (rs *resource[T]) modifyOnly(c *call, operation string, fn func(ch *change, old *T) error) (*network.View, error) {
	revision, err := ifMatch(c.request.Header.Values("If-Match"))
	if err != nil {
		return nil, err
	}
	return c.update(operation, func(tx *network.Tx) error {
		r := c.reader(tx.View)
		old, err := rs.find(r, c.id)
		if err != nil {
			return err
		}
		if now := rs.standard(old).RevisionNumber; revision >= 0 && revision != now {
			return network.Errorf(network.Precondition, "RevisionNumberConstraintFailed",
				"Constrained to %d, but current revision is %d", revision, now)
		}
		return fn(&change{tx: tx, r: r}, old)
	})
}

func (rs *resource[T]) delete(c *call) (int, []byte, error) {
	if data, err := c.readBody(); err != nil || len(data) > 0 {
		return 0, nil, cmp.Or(err, badRequest("Request body is not supported in DELETE."))
	}
	action := "delete_" + rs.name
	_, err := rs.modifyOnly(c, action, func(ch *change, old *T) error {
		if !ch.r.policy.allows(action, ch.r.who, rs.target(ch.tx.View, old)) {
			return notAuthorized("rule:" + action)
		}
		if rs.keep != nil {
			if err := rs.keep(ch, old); err != nil {
				return err
			}
		}
		rs.notifyDeleted(c, ch, old)
		return rs.remove(ch.tx, c.id)
	})
	return http.StatusNoContent, nil, err
}

func (rs *resource[T]) show(c *call) (int, []byte, error) {
	query, err := c.query()
	if err != nil {
		return 0, nil, err
	}
	if _, err := rs.filters(query); err != nil {
		return 0, nil, err
	}
	r := c.reader(c.server.store.View())
	o, err := rs.find(r, c.id)
	if err != nil {
		return 0, nil, err
	}
	return http.StatusOK, rs.encodeOne(r, o, query.fields()), nil
}

// column is an attribute that is shown to a caller.
type column[T any] struct {
	key  string // `"name": `
	attr *attribute[T]
	rule string // asked for each object, since its answer depends on it; or ""
}

// columns are the attributes that the caller may see, of those asked for.
func (rs *resource[T]) columns(r *reader, fields []string) []column[T] {
	cols := make([]column[T], 0, len(rs.attributes))
	for i := range rs.attributes {
		a := &rs.attributes[i]
		if a.is(hidden) || len(fields) > 0 && !slices.Contains(fields, a.name) {
			continue
		}
		rule := "get_" + rs.name + ":" + a.name
		col := column[T]{key: `"` + a.name + `": `, attr: a}
		switch {
		case !r.policy.has(rule):
		case r.policy.aboutTarget(rule):
			col.rule = rule
		case !r.policy.allows(rule, r.who, noTarget{}):
			continue
		}
		cols = append(cols, col)
	}
	return cols
}

func (rs *resource[T]) encode(b []byte, r *reader, cols []column[T], o *T) []byte {
	b = append(b, '{')
	first := true
	for i := range cols {
		col := &cols[i]
		if col.attr.shown != nil && !col.attr.shown(o) || col.rule != "" && !r.policy.allows(col.rule, r.who, rs.target(r.view, o)) {
			continue
		}
		if !first {
			b = append(b, ", "...)
		}
		first = false
		b = append(b, col.key...)
		b = col.attr.write(b, r, o)
	}
	return append(b, '}')
}

func (rs *resource[T]) encodeOne(r *reader, o *T, fields []string) []byte {
	b := make([]byte, 0, objectSize)
	b = fmt.Appendf(b, `{"%s": `, rs.name)
	b = rs.encode(b, r, rs.columns(r, fields), o)
	return append(b, '}')
}

// objectSize is about the size of an encoded object, in bytes.
const objectSize = 1024

// answers keeps the memory of large answers for the next ones.
var answers sync.Pool

const (
	// smallAnswer is what is not worth keeping, and hugeAnswer what should not
	// be kept, in bytes.
	smallAnswer = 64 << 10
	hugeAnswer  = 16 << 20
)

// answer is an empty buffer for about size bytes.
func answer(size int) []byte {
	if size < smallAnswer {
		return make([]byte, 0, size)
	}
	if kept, ok := answers.Get().(*[]byte); ok && cap(*kept) >= size/2 {
		return (*kept)[:0]
	}
	return make([]byte, 0, size)
}

// recycle takes back an answer that was sent.
func recycle(b []byte) {
	if n := cap(b); n >= smallAnswer && n <= hugeAnswer {
		answers.Put(&b)
	}
}

func (rs *resource[T]) encodeList(r *reader, list []*T, fields []string, links []byte) []byte {
	size := objectSize
	if len(fields) > 0 {
		size = 64 * len(fields)
	}
	b := answer(len(list)*size + 256)
	b = fmt.Appendf(b, `{"%s": [`, rs.collection)
	cols := rs.columns(r, fields)
	for i, o := range list {
		if i > 0 {
			b = append(b, ", "...)
		}
		b = rs.encode(b, r, cols, o)
	}
	b = append(b, ']')
	if links != nil {
		b = fmt.Appendf(b, `, "%s_links": `, rs.collection)
		b = append(b, links...)
	}
	return append(b, '}')
}
