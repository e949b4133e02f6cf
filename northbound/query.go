package northbound

import (
	"cmp"
	"fmt"
	"iter"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"planck/network"
)

// query is the query string of a GET.
type query struct {
	values url.Values
	raw    string
}

func (c *call) query() (query, error) {
	raw := c.request.URL.RawQuery
	values, err := url.ParseQuery(raw)
	if err != nil {
		return query{}, badRequest("The query string can't be read: %s", clip(err.Error()))
	}
	return query{values, raw}, nil
}

// fields are the attributes asked for; none means all.
func (q query) fields() []string { return nonEmpty(q.values["fields"]) }

func nonEmpty(list []string) []string {
	return slices.DeleteFunc(slices.Clone(list), func(s string) bool { return s == "" })
}

// paging are the parameters of a list that are not filters.
var paging = []string{"fields", "sort_key", "sort_dir", "limit", "marker", "page_reverse"}

// page is the part of a list that was asked for.
type page struct {
	limit   int // 0 for all
	marker  string
	reverse bool
}

func (c *call) page(q query) (page, error) {
	limit, err := strconv.Atoi(strings.TrimSpace(cmp.Or(q.values.Get("limit"), "0")))
	if err != nil || limit < 0 {
		return page{}, badResource("limit", "Limit must be an integer 0 or greater and not '%s'", clip(q.values.Get("limit")))
	}
	if most := c.server.limits.MaxPage; most > 0 && (limit == 0 || limit > most) {
		limit = most
	}
	if limit == 0 {
		return page{}, nil
	}
	return page{
		limit:   limit,
		marker:  q.values.Get("marker"),
		reverse: strings.EqualFold(q.values.Get("page_reverse"), "true"),
	}, nil
}

func (rs *resource[T]) list(c *call) (int, []byte, error) {
	q, err := c.query()
	if err != nil {
		return 0, nil, err
	}
	p, err := c.page(q)
	if err != nil {
		return 0, nil, err
	}
	order, err := rs.order(q)
	if err != nil {
		return 0, nil, err
	}
	filters, err := rs.filters(q)
	if err != nil {
		return 0, nil, err
	}
	r := c.reader(c.server.store.View())
	if p.marker != "" {
		if _, err := rs.find(r, p.marker); err != nil {
			return 0, nil, err
		}
	}
	if rs.before != nil {
		if err := rs.before(c, q); err != nil {
			return 0, nil, err
		}
		r = c.reader(c.server.store.View())
	}
	list := rs.selected(r, q, filters)
	if len(order) > 0 {
		slices.SortStableFunc(list, func(a, b *T) int { return compareBy(order, r, a, b) })
	}
	list = rs.cut(list, p)
	return http.StatusOK, rs.encodeList(r, list, q.fields(), rs.links(c, q, list, p)), nil
}

// filters makes a test for each parameter that names an attribute.
func (rs *resource[T]) filters(q query) ([]func(*reader, *T) bool, error) {
	var tests []func(*reader, *T) bool
	var unknown []string
	for _, name := range sortedKeys(q.values) {
		if slices.Contains(paging, name) {
			continue
		}
		a := rs.attribute(name)
		if a == nil || !a.is(filterable) {
			unknown = append(unknown, name)
			continue
		}
		test, err := a.match(q.values[name])
		if why, ok := err.(reason); ok {
			return nil, badRequest("Invalid input for %s. Reason: %s.", name, why)
		}
		if err != nil {
			return nil, err
		}
		tests = append(tests, test)
	}
	if len(unknown) > 0 {
		return nil, badRequest("%s is invalid attribute for filtering", reprStrings(unknown))
	}
	return tests, nil
}

// selected are the objects that the caller may see and that pass the filters, by id.
func (rs *resource[T]) selected(r *reader, q query, filters []func(*reader, *T) bool) []*T {
	candidates, unordered := rs.candidates(r, q.values)
	var list []*T
next:
	for o := range candidates {
		for _, test := range filters {
			if !test(r, o) {
				continue next
			}
		}
		if rs.sees(r, o) {
			list = append(list, o)
		}
	}
	if unordered {
		byID := func(a, b *T) int { return cmp.Compare(rs.standard(a).ID, rs.standard(b).ID) }
		slices.SortFunc(list, byID)
		list = slices.CompactFunc(list, func(a, b *T) bool { return byID(a, b) == 0 })
	}
	return list
}

// candidates are the objects among which those selected are: by an index, if
// a filter has one. They are ordered by id and different unless unordered.
func (rs *resource[T]) candidates(r *reader, filters url.Values) (list iter.Seq[*T], unordered bool) {
	if ids, ok := filters["id"]; ok {
		return joined(ids, func(id string) iter.Seq[*T] { return single(rs.get(r.view, id)) }), true
	}
	for _, ix := range rs.indexes {
		values, ok := filters[ix.attribute]
		if !ok {
			continue
		}
		if len(values) == 1 {
			return ix.of(r.view, values[0]), false
		}
		return joined(values, func(v string) iter.Seq[*T] { return ix.of(r.view, v) }), true
	}
	if !r.all && rs.reachable != nil {
		return rs.reachable(r), true
	}
	return rs.all(r.view), false
}

func single[T any](o *T) iter.Seq[*T] {
	return func(yield func(*T) bool) {
		if o != nil {
			yield(o)
		}
	}
}

func joined[T, V any](keys []V, of func(V) iter.Seq[*T]) iter.Seq[*T] {
	return func(yield func(*T) bool) {
		for _, key := range keys {
			for o := range of(key) {
				if !yield(o) {
					return
				}
			}
		}
	}
}

// ordering is one sort_key with its sort_dir.
type ordering[T any] struct {
	compare    func(r *reader, a, b *T) int
	descending bool
}

func compareBy[T any](order []ordering[T], r *reader, a, b *T) int {
	for _, o := range order {
		if n := o.compare(r, a, b); n != 0 {
			if o.descending {
				return -n
			}
			return n
		}
	}
	return 0
}

func (rs *resource[T]) order(q query) ([]ordering[T], error) {
	keys, dirs := nonEmpty(q.values["sort_key"]), nonEmpty(q.values["sort_dir"])
	if len(keys) != len(dirs) {
		return nil, badRequest("The number of sort_keys and sort_dirs must be same")
	}
	bad := slices.DeleteFunc(slices.Clone(keys), func(key string) bool {
		a := rs.attribute(key)
		return a != nil && a.is(sortable)
	})
	if len(bad) > 0 {
		return nil, badRequest("%s is invalid attribute for sort_keys", reprStrings(bad))
	}
	bad = slices.DeleteFunc(slices.Clone(dirs), func(dir string) bool { return dir == "asc" || dir == "desc" })
	if len(bad) > 0 {
		return nil, badRequest("%s is invalid value for sort_dirs, valid value is 'asc' and 'desc'", reprStrings(bad))
	}
	order := make([]ordering[T], len(keys))
	for i, key := range keys {
		order[i] = ordering[T]{rs.attribute(key).compare, dirs[i] == "desc"}
	}
	return order, nil
}

// cut takes the page out of the whole list.
func (rs *resource[T]) cut(list []*T, p page) []*T {
	if p.limit == 0 {
		return list
	}
	from, to := 0, len(list)
	if p.marker != "" {
		at := slices.IndexFunc(list, func(o *T) bool { return rs.standard(o).ID == p.marker })
		switch {
		case at < 0:
			return nil
		case p.reverse:
			to = at
		default:
			from = at + 1
		}
	}
	if p.reverse {
		return list[max(from, to-p.limit):to]
	}
	return list[from:min(from+p.limit, to)]
}

// links are the pages before and after this one, as Neutron tells them: there
// may be nothing on them.
func (rs *resource[T]) links(c *call, q query, list []*T, p page) []byte {
	if p.limit == 0 {
		return nil
	}
	full := len(list) >= p.limit
	var links []string
	if full || p.reverse {
		links = append(links, c.pageLink(q, "next", rs.edge(list, len(list)-1), ""))
	}
	if full || !p.reverse {
		links = append(links, c.pageLink(q, "previous", rs.edge(list, 0), "page_reverse=True"))
	}
	return []byte("[" + strings.Join(links, ", ") + "]")
}

func (rs *resource[T]) edge(list []*T, i int) string {
	if len(list) == 0 {
		return ""
	}
	return rs.standard(list[i]).ID
}

func (c *call) pageLink(q query, rel, marker, more string) string {
	var params []string
	for param := range strings.SplitSeq(q.raw, "&") {
		key, _, _ := strings.Cut(param, "=")
		if param != "" && key != "marker" && key != "page_reverse" {
			params = append(params, param)
		}
	}
	if marker != "" {
		params = append(params, "marker="+url.QueryEscape(marker))
	}
	if more != "" {
		params = append(params, more)
	}
	href := c.baseURL() + c.request.URL.EscapedPath() + "?" + strings.Join(params, "&")
	b := fmt.Appendf(nil, `{"rel": "%s", "href": `, rel)
	return string(append(appendString(b, href), '}'))
}

// ifMatch reads the revision number that a client demands; -1 for none.
func ifMatch(headers []string) (int, error) {
	revision := -1
	for tag := range strings.SplitSeq(strings.Join(headers, ","), ",") {
		tag = strings.Trim(strings.TrimPrefix(strings.TrimSpace(tag), "W/"), `"`)
		text, ok := strings.CutPrefix(tag, "revision_number=")
		if !ok {
			continue
		}
		if revision >= 0 {
			return 0, badResource("if-match", "Multiple revision_number etags are not supported.")
		}
		n, err := strconv.Atoi(text)
		if err != nil || n < 0 {
			return 0, badResource("if-match", "Revision number etag must be in the format of revision_number=<int>")
		}
		revision = n
	}
	return revision, nil
}

// matchTags makes one of the four filters by tags: each value holds tags
// joined by commas.
func matchTags[T any](of func(*T) *network.Standard, holds func(has, wanted []string) bool) func([]string) (func(*reader, *T) bool, error) {
	return func(values []string) (func(*reader, *T) bool, error) {
		wanted := strings.Split(strings.Join(values, ","), ",")
		return func(_ *reader, o *T) bool { return holds(of(o).Tags, wanted) }, nil
	}
}

func hasAll(has, wanted []string) bool {
	return !slices.ContainsFunc(wanted, func(tag string) bool { return !slices.Contains(has, tag) })
}

func hasAny(has, wanted []string) bool {
	return slices.ContainsFunc(wanted, func(tag string) bool { return slices.Contains(has, tag) })
}
