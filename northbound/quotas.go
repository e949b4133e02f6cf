package northbound

import (
	"encoding/json"
	"iter"
	"maps"
	"net/http"
	"slices"
	"strings"

	"planck/network"
)

// unlimited is the limit of a resource that a project may have any number of.
const unlimited = -1

// Quotas say how much a project may own.
type Quotas struct {
	// Limits are by the name of a resource: "network", "floatingip". Those that
	// are missing have Default.
	Limits  map[string]int
	Default int
	// Off are resources without a quota: they are neither limited nor shown.
	Off []string
	// Fixed says that all projects have the same limits, which nobody can
	// change (ConfDriver).
	Fixed bool
}

// DefaultQuotas are Neutron's.
func DefaultQuotas() *Quotas {
	return &Quotas{Default: unlimited, Limits: map[string]int{
		"network": 100, "subnet": 100, "port": 500, "router": 10, "floatingip": 50,
		"security_group": 10, "security_group_rule": 100, "subnetpool": unlimited,
	}}
}

var quotaExtensions = []extension{
	{"quotas", "Quota management support", "Expose functions for quotas management per tenant", "2012-07-29T10:00:00-00:00"},
	{"quota_details", "Quota details management support", "Expose functions for quotas usage statistics per project", "2017-02-10T10:00:00-00:00"},
	{"quota-check-limit", "Quota engine limit check", "Support for checking the resource usage before applying a new quota limit", "2021-10-20T19:00:00-00:00"},
}

// counted is a resource of which projects may own so many.
type counted struct {
	name    string
	deflt   int
	used    func(view *network.View, projectID string) int
	reached func(view *network.View, projectID string, limit int) bool
}

// quotas are the limits in force.
type quotas struct {
	fixed     bool
	resources []counted // by name
}

func newQuotas(o *Quotas, collections []collection) *quotas {
	if o == nil {
		o = DefaultQuotas()
	}
	q := &quotas{fixed: o.Fixed}
	for _, c := range collections {
		name, _ := c.title()
		owned := c.owned()
		if owned == nil || slices.Contains(o.Off, name) {
			continue
		}
		limit, ok := o.Limits[name]
		if !ok {
			limit = o.Default
		}
		q.resources = append(q.resources, counted{name, max(limit, unlimited), counter(owned), atLeast(owned)})
	}
	slices.SortFunc(q.resources, func(a, b counted) int { return strings.Compare(a.name, b.name) })
	return q
}

// ownedBy lists something for each object that a project owns.
type ownedBy func(view *network.View, projectID string) iter.Seq[struct{}]

// owned is nil for resources that are not listed by project.
func (rs *resource[T]) owned() ownedBy {
	at := slices.IndexFunc(rs.indexes, func(ix index[T]) bool { return ix.attribute == "project_id" })
	if at < 0 {
		return nil
	}
	of := rs.indexes[at].of
	return func(view *network.View, projectID string) iter.Seq[struct{}] {
		return func(yield func(struct{}) bool) {
			for range of(view, projectID) {
				if !yield(struct{}{}) {
					return
				}
			}
		}
	}
}

func counter(owned ownedBy) func(*network.View, string) int {
	return func(view *network.View, projectID string) int {
		n := 0
		for range owned(view, projectID) {
			n++
		}
		return n
	}
}

// atLeast reports whether a project owns so many, and counts no further.
func atLeast(owned ownedBy) func(*network.View, string, int) bool {
	return func(view *network.View, projectID string, limit int) bool {
		n := 0
		for range owned(view, projectID) {
			if n++; n >= limit {
				return true
			}
		}
		return n >= limit
	}
}

func (q *quotas) resource(name string) *counted {
	i := slices.IndexFunc(q.resources, func(r counted) bool { return r.name == name })
	if i < 0 {
		return nil
	}
	return &q.resources[i]
}

// limit is what a project may own of a resource.
func (q *quotas) limit(view *network.View, r *counted, projectID string) int {
	if own := view.Quota(projectID); own != nil && !q.fixed {
		if limit, ok := own.Limits[r.name]; ok {
			return limit
		}
	}
	return r.deflt
}

// check refuses so many more objects of a resource. It is asked in the transaction
// that makes the object, so that many at once can't pass together. What belongs
// to no project is not limited.
func (q *quotas) check(view *network.View, name, projectID string, more int) error {
	r := q.resource(name)
	if r == nil || projectID == "" {
		return nil
	}
	limit := q.limit(view, r, projectID)
	if limit < 0 || !r.reached(view, projectID, limit-more+1) {
		return nil
	}
	return network.Errorf(network.Conflict, "OverQuota", "Quota exceeded for resources: ['%s'].", name)
}

// limits are those of a project; with "" the defaults.
func (q *quotas) limits(view *network.View, projectID string) map[string]int {
	limits := map[string]int{}
	for i := range q.resources {
		r := &q.resources[i]
		limits[r.name] = q.limit(view, r, projectID)
	}
	return limits
}

func (s *server) quotaEndpoints() []endpoint {
	const base = "/v2.0/quotas"
	get := func(h handler) methods { return methods{http.MethodGet: h} }
	notThere := func(*call) (int, []byte, error) {
		return 0, nil, &apiError{status: http.StatusNotImplemented, typ: "HTTPNotImplemented",
			message: "POST requests are not supported on this resource."}
	}
	return []endpoint{
		{path: base, resource: "quotas", methods: methods{http.MethodGet: listQuotas, http.MethodPost: notThere}},
		{path: base + "/tenant", resource: "quotas", methods: get(showQuotaProject("tenant"))},
		{path: base + "/project", resource: "quotas", methods: get(showQuotaProject("project"))},
		{path: base + "/{id}", resource: "quotas", methods: methods{
			http.MethodGet: showQuota, http.MethodPut: updateQuota, http.MethodDelete: deleteQuota}},
		{path: base + "/{id}/default", resource: "quotas", methods: get(showDefaultQuota)},
		{path: base + "/{id}/details", resource: "quotas", methods: get(showQuotaDetails)},
		{path: base + "/{id}/details.json", resource: "quotas", methods: get(showQuotaDetails)},
	}
}

// mayQuota asks a rule about quotas for the caller.
func (c *call) mayQuota(rule string) error {
	if c.rules().allows(rule, c.who, quotaTarget(c.id)) {
		return nil
	}
	return notAuthorized("rule:" + rule)
}

// maySeeQuota lets everybody see the quota of the own project.
func (c *call) maySeeQuota() error {
	if c.id != "" && c.id == c.who.ProjectID {
		return nil
	}
	return c.mayQuota("get_quota")
}

// quotaTarget is the target of rules about quotas: they are owned by their project.
type quotaTarget string

func (t quotaTarget) attribute(name string) (string, bool) { return string(t), name == "project_id" }

func (c *call) quotas() *quotas { return c.server.quotas }

func encodeQuota(name string, v any) (int, []byte, error) {
	body, err := json.Marshal(map[string]any{name: v})
	return http.StatusOK, body, err
}

func showQuotaProject(name string) handler {
	return func(c *call) (int, []byte, error) {
		if c.who.ProjectID == "" {
			return 0, nil, network.Errorf(network.Invalid, "QuotaMissingTenant", "Tenant-id was missing from quota request.")
		}
		return encodeQuota(name, map[string]string{"tenant_id": c.who.ProjectID, "project_id": c.who.ProjectID})
	}
}

func listQuotas(c *call) (int, []byte, error) {
	if err := c.mayQuota("get_quota"); err != nil {
		return 0, nil, err
	}
	view := c.server.store.View()
	list := []map[string]any{}
	for own := range view.Quotas() {
		row := map[string]any{"tenant_id": own.ProjectID, "project_id": own.ProjectID}
		for name, limit := range c.quotas().limits(view, own.ProjectID) {
			row[name] = limit
		}
		list = append(list, row)
	}
	return encodeQuota("quotas", list)
}

func showQuota(c *call) (int, []byte, error) {
	if err := c.maySeeQuota(); err != nil {
		return 0, nil, err
	}
	return encodeQuota("quota", c.quotas().limits(c.server.store.View(), c.id))
}

func showDefaultQuota(c *call) (int, []byte, error) {
	if err := c.maySeeQuota(); err != nil {
		return 0, nil, err
	}
	return encodeQuota("quota", c.quotas().limits(c.server.store.View(), ""))
}

func showQuotaDetails(c *call) (int, []byte, error) {
	if c.id != c.who.ProjectID && !c.rules().admin(c.who) {
		return 0, nil, network.Errorf(network.Forbidden, "AdminRequired",
			"User does not have admin privileges: Only admin is authorized to access quotas for another project.")
	}
	view := c.server.store.View()
	details := map[string]map[string]int{}
	for i := range c.quotas().resources {
		r := &c.quotas().resources[i]
		// Nothing is reserved: a limit is checked as the object is made.
		details[r.name] = map[string]int{"limit": c.quotas().limit(view, r, c.id), "used": r.used(view, c.id), "reserved": 0}
	}
	return encodeQuota("quota", details)
}

// mayChangeQuotas is for PUT and DELETE, which ConfDriver does not know.
func (c *call) mayChangeQuotas(rule string) error {
	if err := c.mayQuota(rule); err != nil {
		return err
	}
	if c.quotas().fixed {
		return network.Errorf(network.Forbidden, "HTTPForbidden", "Access was denied to this resource.")
	}
	if _, err := parseText(c.id, projectSize); err != nil || c.id == "" {
		return badResource("quota", "the id of the project is not a text of 1 to %d characters", projectSize)
	}
	return nil
}

func updateQuota(c *call) (int, []byte, error) {
	if err := c.mayChangeQuotas("update_quota"); err != nil {
		return 0, nil, err
	}
	limits, checked, err := c.quotaOfBody()
	if err != nil {
		return 0, nil, err
	}
	view, err := c.update("update_quota", func(tx *network.Tx) error {
		if checked {
			if err := c.quotas().checkUse(tx.View, c.id, limits); err != nil {
				return err
			}
		}
		return tx.SetQuota(c.id, limits)
	})
	if err != nil {
		return 0, nil, err
	}
	return encodeQuota("quota", c.quotas().limits(view, c.id))
}

// checkUse refuses limits below what a project owns already.
func (q *quotas) checkUse(view *network.View, projectID string, limits map[string]int) error {
	for _, name := range slices.Sorted(maps.Keys(limits)) {
		limit, used := limits[name], q.resource(name).used(view, projectID)
		if limit >= 0 && used > limit {
			return badRequest("Quota limit %d for %s must be greater than or equal to already used %d", limit, name, used)
		}
	}
	return nil
}

// quotaOfBody reads {"quota": {"network": 5}}, and whether check_limit is there.
func (c *call) quotaOfBody() (limits map[string]int, checked bool, err error) {
	body, err := c.body()
	if err != nil {
		return nil, false, err
	}
	given, ok := body["quota"].(map[string]any)
	if !ok {
		return nil, false, badResource("quota", "Unable to find 'quota' in request body")
	}
	limits = map[string]int{}
	for _, name := range sortedKeys(given) {
		switch {
		case name == "force" || name == "check_limit":
			on, err := parseBool(given[name])
			if err != nil {
				return nil, false, err
			}
			checked = checked || on && name == "check_limit"
		case c.quotas().resource(name) == nil:
			return nil, false, badRequest("Unrecognized attribute(s) '%s'", clip(name))
		default:
			limit, err := integer(unlimited, maxLimit).parse(given[name])
			if why, ok := err.(reason); ok {
				err = badRequest("Invalid input for %s. Reason: %s.", name, why)
			}
			if err != nil {
				return nil, false, err
			}
			limits[name] = limit
		}
	}
	return limits, checked, nil
}

// maxLimit is the largest number of Neutron's database column.
const maxLimit = 1<<31 - 1

func deleteQuota(c *call) (int, []byte, error) {
	if err := c.mayChangeQuotas("delete_quota"); err != nil {
		return 0, nil, err
	}
	_, err := c.update("delete_quota", func(tx *network.Tx) error { return tx.DeleteQuota(c.id) })
	return http.StatusNoContent, nil, err
}
