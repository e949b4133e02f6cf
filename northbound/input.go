package northbound

import (
	"errors"
	"strings"
)

// input is what a client gave for an object, checked and converted, by attribute.
type input map[string]given

type given struct {
	raw     any   // the JSON value
	value   any   // as the attribute's kind parsed it
	refused error // why the caller can't have it, once rules allow to ask for it
}

// afterRules is a refusal of a value that must not come before that of a rule:
// who may not give an attribute at all is told so, whatever the value.
type afterRules struct{ error }

// refusedLater makes what a kind refuses an afterRules.
func refusedLater[V any](k kind[V]) kind[V] {
	parse := k.parse
	k.parse = func(v any) (V, error) {
		value, err := parse(v)
		if err != nil {
			err = afterRules{err}
		}
		return value, err
	}
	return k
}

func (in input) has(name string) bool { _, ok := in[name]; return ok }

// valueOf returns the value of an argument and whether it was given.
func valueOf[V any](in input, name string) (V, bool) {
	g, ok := in[name]
	if !ok {
		var zero V
		return zero, false
	}
	return g.value.(V), true
}

// parseItem checks one object of a body against the table.
func (rs *resource[T]) parseItem(c *call, item any, post bool) (input, error) {
	if item == nil {
		return nil, badRequest("Unable to find '%s' in request body", rs.name)
	}
	given, ok := item.(map[string]any)
	if !ok {
		return nil, badRequest("Object '%s' contains invalid data", rs.name)
	}
	if err := c.checkProject(given, post); err != nil {
		return nil, err
	}
	if err := rs.checkNames(given, post); err != nil {
		return nil, err
	}
	return rs.convert(given)
}

// checkProject sees to it that tenant_id and project_id are both there, equal,
// and the caller's own unless the caller is an administrator.
func (c *call) checkProject(item map[string]any, post bool) error {
	tenant, hasTenant := item["tenant_id"]
	project, hasProject := item["project_id"]
	switch {
	case hasTenant && hasProject:
		if repr(tenant) != repr(project) {
			return badRequest("'project_id' and 'tenant_id' do not match")
		}
	case hasTenant:
		item["project_id"] = tenant
	case hasProject:
		item["tenant_id"] = project
	case post && c.who.NeedsProject:
		return badRequest("Running without keystone AuthN requires that tenant_id is specified")
	case post:
		item["tenant_id"], item["project_id"] = c.who.ProjectID, c.who.ProjectID
	}
	if !hasTenant && !hasProject || c.rules().admin(c.who) || c.who.HasRole("service") {
		return nil
	}
	if item["project_id"] != any(c.who.ProjectID) {
		return badRequest("Specifying 'project_id' other than the authenticated project in request is not allowed for the current user.")
	}
	return nil
}

func (rs *resource[T]) checkNames(item map[string]any, post bool) error {
	var unknown []string
	for _, name := range sortedKeys(item) {
		if a := rs.attribute(name); a == nil || a.is(hidden) && a.parse == nil {
			unknown = append(unknown, name)
		}
	}
	if len(unknown) > 0 {
		return badRequest("Unrecognized attribute(s) '%s'", clip(strings.Join(unknown, ", ")))
	}
	for i := range rs.attributes {
		a := &rs.attributes[i]
		_, has := item[a.name]
		switch {
		case !has && post && a.is(required):
			return badRequest("Failed to parse request. Required attribute '%s' not specified", a.name)
		case has && post && !a.is(onPost):
			return badRequest("Attribute '%s' not allowed in POST", a.name)
		case has && !post && !a.is(onPut):
			return badRequest("Cannot update read-only attribute %s", a.name)
		}
	}
	return nil
}

func (rs *resource[T]) convert(item map[string]any) (input, error) {
	in := make(input, len(item))
	for i := range rs.attributes {
		a := &rs.attributes[i]
		raw, ok := item[a.name]
		if !ok {
			continue
		}
		value, err := a.parse(raw)
		later, isLater := errors.AsType[afterRules](err)
		if isLater {
			err = later.error
		}
		if why, ok := errors.AsType[reason](err); ok {
			err = badRequest("Invalid input for %s. Reason: %s.", a.name, why)
		}
		if err != nil && !isLater {
			return nil, err
		}
		in[a.name] = given{raw: raw, value: value, refused: err}
	}
	return in, nil
}

// authorize applies the rule of an action and those of the attributes and
// sub-attributes that were given, and then refuses values. action is "create" or "update".
func (rs *resource[T]) authorize(c *change, action string, on target) error {
	action += "_" + rs.name
	rules := []string{action}
	said := "rule:" + action
	for i := range rs.attributes {
		a := &rs.attributes[i]
		g, ok := c.in[a.name]
		if !ok || !a.is(byPolicy) || strings.HasPrefix(action, "create_") && a.isDefault(g.value) {
			continue
		}
		name := action + ":" + a.name
		rules = append(rules, name)
		part := "rule:" + name
		for _, key := range a.subKeys(g.raw) {
			rules = append(rules, name+":"+key)
			part = "(" + part + " and rule:" + name + ":" + key + ")"
		}
		said = "(" + said + " and " + part + ")"
	}
	for _, rule := range rules {
		if !c.r.policy.allows(rule, c.r.who, on) {
			return notAuthorized(said)
		}
	}
	for i := range rs.attributes {
		if err := c.in[rs.attributes[i].name].refused; err != nil {
			return err
		}
	}
	return nil
}

// subKeys are the keys of the dictionaries in a list, or of the dictionary
// itself where they have rules of their own.
func (a *attribute[T]) subKeys(raw any) []string {
	if m, ok := raw.(map[string]any); ok && a.is(byKeys) {
		return sortedKeys(m)
	}
	list, _ := raw.([]any)
	keys := map[string]bool{}
	for _, item := range list {
		m, _ := item.(map[string]any)
		for k := range m {
			keys[k] = true
		}
	}
	return sortedKeys(keys)
}
