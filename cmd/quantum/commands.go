package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
)

// command is one word of the command line, such as net-create.
type command struct {
	name        string
	help        string
	options     []*option
	positionals []positional
	extras      bool // unknown options go to the server
	run         func(*call) error
}

// call is one run of a command.
type call struct {
	ctx  context.Context
	cmd  *command
	args *arguments
	api  *client
	out  io.Writer
}

// resource is a kind of object that the server keeps.
type resource struct {
	kind    string   // as in bodies: "security_group"
	prefix  string   // of the commands: "security-group"
	byID    bool     // objects have no name to be found by
	columns []string // of a list, unless -c chooses others
	// aliases has attributes that a list may show, and be asked for, by another name.
	aliases map[string]string

	create     []*option
	createArgs []positional
	update     []*option
	list       []*option      // beside those of every list
	defaults   map[string]any // attributes of a new object that nobody gave
	// check finds options that exclude each other; it may be nil.
	check func(*arguments) error
	// describe completes the objects of a list; it may be nil.
	describe func(*call, []object) error
}

// commands are the five commands of every resource.
func (r *resource) commands() []*command {
	one := positional{metavar: metavar(r.kind), help: "ID or name of " + r.kind, lookup: r.kind}
	if r.byID {
		one.help, one.lookup = "ID of "+r.kind, ""
	}
	several := one
	several.many = true
	create := append(slices.Clone(r.create), tenantOption)
	return []*command{
		{name: r.prefix + "-create", help: "Create a " + r.kind + " for a given tenant.",
			options: append(create, showOptions...), positionals: r.createArgs, extras: true, run: r.runCreate},
		{name: r.prefix + "-list", help: "List " + r.kind + "s that belong to a given tenant.",
			options: slices.Concat(r.list, listOptions), extras: true, run: r.runList},
		{name: r.prefix + "-show", help: "Show information of a given " + r.kind + ".",
			options: append([]*option{fieldOption, detailsOption}, showOptions...), positionals: []positional{one}, run: r.runShow},
		{name: r.prefix + "-update", help: "Update " + r.kind + "'s information.",
			options: r.update, positionals: []positional{one}, extras: true, run: r.runUpdate},
		{name: r.prefix + "-delete", help: "Delete a given " + r.kind + ".",
			positionals: []positional{several}, run: r.runDelete},
	}
}

func metavar(kind string) string {
	return map[string]string{"network": "NETWORK", "subnet": "SUBNET", "port": "PORT", "router": "ROUTER",
		"floatingip": "FLOATINGIP_ID", "security_group": "SECURITY_GROUP", "security_group_rule": "SECURITY_GROUP_RULE_ID"}[kind]
}

var (
	tenantOption  = &option{name: "tenant-id", metavar: "TENANT_ID", help: "the owner tenant ID", attr: "tenant_id"}
	fieldOption   = &option{name: "field", short: "F", metavar: "FIELD", help: "field to be returned by the server, can be repeated", many: true}
	detailsOption = &option{name: "show-details", short: "D", help: "show all fields"}
	columnOption  = &option{name: "column", short: "c", metavar: "COLUMN", help: "column to show, can be repeated", many: true}
	formatOption  = &option{name: "request-format", metavar: "FORMAT", help: "json", choices: []string{"json"}}

	showOptions = []*option{
		{name: "format", short: "f", metavar: "FORMAT", help: "output format", choices: showFormats},
		columnOption, formatOption,
		{name: "variable", metavar: "VARIABLE", help: "same as --column", many: true},
		{name: "prefix", metavar: "PREFIX", help: "prefix of the names of -f shell"},
	}
	listOptions = []*option{
		{name: "format", short: "f", metavar: "FORMAT", help: "output format", choices: listFormats},
		columnOption, formatOption, fieldOption, detailsOption,
		{name: "fields", metavar: "FIELD", help: "same as --field", many: true},
		{name: "quote", metavar: "QUOTE", help: "what -f csv quotes", choices: []string{"all", "minimal", "none", "nonnumeric"}},
		{name: "page-size", short: "P", metavar: "SIZE", help: "objects per request", parse: number},
		{name: "sort-key", metavar: "FIELD", help: "sort by this field, can be repeated", many: true},
		{name: "sort-dir", metavar: "DIRECTION", help: "direction of each --sort-key", many: true, choices: []string{"asc", "desc"}},
	}
)

// known is every option that the command understands, the global ones included.
func (c *command) known() []*option { return append(slices.Clone(c.options), globalOptions...) }

// counts are the fewest and the most positionals; most is -1 for any number.
func (c *command) counts() (least, most int) {
	n := len(c.positionals)
	if n > 0 && c.positionals[n-1].many {
		return n, -1
	}
	return n, n
}

// human reports whether the output is for people rather than for programs.
func (c *call) human() bool {
	f := c.args.text("format")
	return f == "" || f == "table"
}

func (r *resource) runCreate(c *call) error {
	body, err := r.body(c)
	if err != nil {
		return err
	}
	for attr, value := range r.defaults {
		if _, given := body[attr]; !given {
			body[attr] = value
		}
	}
	reply, err := c.api.call(c.ctx, http.MethodPost, collectionPath(r.kind), nil, map[string]any{r.kind: body})
	if err != nil {
		return err
	}
	created, _ := reply.get(r.kind).(object)
	if c.human() {
		fmt.Fprintf(c.out, "Created a new %s:\n", r.kind)
	}
	return writeShow(c.out, c.args, created)
}

// body is the attributes that the command line gives.
func (r *resource) body(c *call) (map[string]any, error) {
	if r.check != nil {
		if err := r.check(c.args); err != nil {
			return nil, err
		}
	}
	body := map[string]any{}
	for i, p := range c.cmd.positionals {
		if p.attr == "" {
			continue
		}
		p, text := p.chosen(c.args.positionals[i])
		id, err := c.lookup(p, text)
		if err != nil {
			return nil, err
		}
		body[p.attr] = id
	}
	for _, o := range c.cmd.options {
		if o.attr == "" || !c.args.has(o.name) {
			continue
		}
		value, given, err := o.attribute(c)
		if err != nil {
			return nil, err
		}
		if given {
			body[o.attr] = value
		}
	}
	for _, e := range c.args.extras {
		body[e.attr] = merge(body[e.attr], e.value)
	}
	return body, nil
}

// merge appends a list to a list; anything else replaces.
func merge(old, new any) any {
	a, isList := old.([]any)
	b, both := new.([]any)
	if isList && both {
		return append(a, b...)
	}
	return new
}

// attribute is the value that the option gives its attribute. given is false
// for a flag that was turned off and is no boolean.
func (o *option) attribute(c *call) (value any, given bool, err error) {
	if o.flag() {
		on := c.args.flag(o.name)
		if b, isBool := o.value.(bool); isBool {
			return b == on, true, nil
		}
		return o.value, on, nil
	}
	var values []any
	for _, text := range c.args.given[o.name] {
		value, err := o.read(c, text)
		if err != nil {
			return nil, false, err
		}
		values = append(values, value)
	}
	if o.many {
		return values, true, nil
	}
	return values[len(values)-1], true, nil
}

func (o *option) read(c *call, text string) (any, error) {
	var value any = text
	if o.parse != nil {
		var err error
		if value, err = o.parse(text); err != nil {
			return nil, usagef("argument --%s: %v", o.name, err)
		}
	}
	if o.resolve != nil {
		return o.resolve(c, value)
	}
	return value, nil
}

// lookup is the id that a positional stands for, or its text.
func (c *call) lookup(p positional, text string) (string, error) {
	if p.lookup == "" {
		return text, nil
	}
	return c.api.find(c.ctx, p.lookup, text)
}

func (r *resource) runList(c *call) error {
	query, err := listQuery(c.args)
	if err != nil {
		return err
	}
	for i, field := range query["fields"] {
		query["fields"][i] = r.attribute(field)
	}
	var found []object
	if size := c.args.text("page-size"); size != "" {
		if _, err := number(size); err != nil {
			return usagef("argument --page-size: %v", err)
		}
		found, err = c.api.listPages(c.ctx, r.kind, query, size)
	} else {
		found, err = c.api.list(c.ctx, r.kind, query)
	}
	if err != nil {
		return err
	}
	if r.describe != nil {
		if err := r.describe(c, found); err != nil {
			return err
		}
	}
	return writeList(c.out, c.args, r.makeTable(found, c.args))
}

// attribute is what the server calls a column.
func (r *resource) attribute(column string) string {
	for attr, alias := range r.aliases {
		if column == alias {
			return attr
		}
	}
	return column
}

// column is what a list that has some columns calls one of them.
func (r *resource) column(have []string, column string) string {
	attr := r.attribute(column)
	if alias, ok := r.aliases[attr]; ok && slices.Contains(have, alias) {
		return alias
	}
	return attr
}

// listQuery makes filters of the unknown options, and the fields and the order
// of the known ones.
func listQuery(args *arguments) (url.Values, error) {
	query := url.Values{}
	for _, e := range args.extras {
		texts, err := filterTexts(e.value)
		if err != nil {
			return nil, usagef("argument --%s: %v", e.attr, err)
		}
		query[e.attr] = append(query[e.attr], texts...)
	}
	for _, field := range slices.Concat(args.given["field"], args.given["fields"]) {
		query.Add("fields", field)
	}
	keys, dirs := args.given["sort-key"], args.given["sort-dir"]
	for i, key := range keys {
		query.Add("sort_key", key)
		dir := "asc"
		if i < len(dirs) {
			dir = dirs[i]
		}
		query.Add("sort_dir", dir)
	}
	return query, nil
}

// filterTexts is a filter's value as text, each item of a list by itself.
func filterTexts(v any) ([]string, error) {
	switch v := v.(type) {
	case []any:
		var texts []string
		for _, item := range v {
			one, err := filterTexts(item)
			if err != nil {
				return nil, err
			}
			texts = append(texts, one...)
		}
		return texts, nil
	case map[string]any:
		var texts []string
		for _, key := range slices.Sorted(maps.Keys(v)) {
			texts = append(texts, fmt.Sprintf("%s=%v", key, v[key]))
		}
		return texts, nil
	case nil:
		return nil, errors.New("a filter needs a value")
	case bool:
		return []string{cell(v)}, nil
	}
	return []string{fmt.Sprint(v)}, nil
}

// makeTable chooses the columns: those that -c names, else the usual ones of
// the resource, else all; only such as the server sent.
func (r *resource) makeTable(found []object, args *arguments) table {
	if len(found) == 0 {
		return table{}
	}
	var have []string
	for _, m := range found[0] {
		have = append(have, m.key)
	}
	slices.Sort(have)
	wanted := args.given["column"]
	switch {
	case len(wanted) > 0:
	case len(r.columns) > 0 && !args.flag("show-details"):
		wanted = r.columns
	default:
		wanted = have
	}
	t := table{}
	for _, column := range wanted {
		if column = r.column(have, column); slices.Contains(have, column) {
			t.columns = append(t.columns, column)
		}
	}
	for _, o := range found {
		row := make([]any, len(t.columns))
		for i, column := range t.columns {
			row[i] = o.get(column)
		}
		t.rows = append(t.rows, row)
	}
	return t
}

func (r *resource) runShow(c *call) error {
	id, err := c.lookup(c.cmd.positionals[0], c.args.positionals[0])
	if err != nil {
		return err
	}
	query := url.Values{}
	if fields := c.args.given["field"]; len(fields) > 0 {
		query["fields"] = fields
	}
	return showObject(c, r.kind, id, query)
}

func showObject(c *call, kind, id string, query url.Values) error {
	reply, err := c.api.call(c.ctx, http.MethodGet, objectPath(kind, id), query, nil)
	if err != nil {
		return err
	}
	shown, _ := reply.get(kind).(object)
	return writeShow(c.out, c.args, shown)
}

func (r *resource) runUpdate(c *call) error {
	body, err := r.body(c)
	if err != nil {
		return err
	}
	if len(body) == 0 {
		return refusal("Must specify new values to update " + r.kind)
	}
	id, err := c.lookup(c.cmd.positionals[0], c.args.positionals[0])
	if err != nil {
		return err
	}
	if _, err := c.api.call(c.ctx, http.MethodPut, objectPath(r.kind, id), nil, map[string]any{r.kind: body}); err != nil {
		return err
	}
	_, err = fmt.Fprintf(c.out, "Updated %s: %s\n", r.kind, c.args.positionals[0])
	return err
}

func (r *resource) runDelete(c *call) error {
	var errs []error
	for _, name := range c.args.positionals {
		if err := r.deleteOne(c, name); err != nil {
			errs = append(errs, err)
			continue
		}
		fmt.Fprintf(c.out, "Deleted %s: %s\n", r.kind, name)
	}
	return errors.Join(errs...)
}

func (r *resource) deleteOne(c *call, name string) error {
	id, err := c.lookup(c.cmd.positionals[0], name)
	if err != nil {
		return err
	}
	_, err = c.api.call(c.ctx, http.MethodDelete, objectPath(r.kind, id), nil, nil)
	return err
}
