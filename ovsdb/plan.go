package ovsdb

import (
	"fmt"
	"maps"
	"slices"

	"github.com/ovn-kubernetes/libovsdb/client"
	"github.com/ovn-kubernetes/libovsdb/model"
	"github.com/ovn-kubernetes/libovsdb/ovsdb"

	"planck/ovsdb/vswitch"
)

// plan collects the operations of one transaction, which make the difference
// between what a database has and what it should have. Sets and maps are
// changed by mutation, so that nobody else's entries are lost.
type plan struct {
	api      client.Client
	ops      []ovsdb.Operation
	done     []string // what the operations do, for the log
	problems []string // what stands in the way, in words
	edits    map[string]*bridgeEdit
	named    int
	err      error
}

func newPlan(api client.Client) *plan {
	return &plan{api: api, edits: map[string]*bridgeEdit{}}
}

func (p *plan) note(format string, args ...any) {
	p.done = append(p.done, fmt.Sprintf(format, args...))
}

func (p *plan) problem(format string, args ...any) {
	p.problems = append(p.problems, fmt.Sprintf(format, args...))
}

// name is a new name for a row within the transaction.
func (p *plan) name() string {
	p.named++
	return fmt.Sprintf("row%d", p.named)
}

func (p *plan) add(ops []ovsdb.Operation, err error) {
	if err != nil && p.err == nil {
		p.err = err
	}
	p.ops = append(p.ops, ops...)
}

func (p *plan) create(row model.Model) { p.add(p.api.Create(row)) }

func (p *plan) update(row model.Model, fields ...any) { p.add(p.api.Where(row).Update(row, fields...)) }

func (p *plan) mutate(row model.Model, mutations ...model.Mutation) {
	if len(mutations) > 0 {
		p.add(p.api.Where(row).Mutate(row, mutations...))
	}
}

// mutations collects changes of sets and maps of one row.
type mutations []model.Mutation

func (m *mutations) insertSet(field *[]string, values []string) {
	if len(values) > 0 {
		*m = append(*m, model.Mutation{Field: field, Mutator: ovsdb.MutateOperationInsert, Value: values})
	}
}

func (m *mutations) deleteSet(field *[]string, values []string) {
	if len(values) > 0 {
		*m = append(*m, model.Mutation{Field: field, Mutator: ovsdb.MutateOperationDelete, Value: values})
	}
}

// change makes a map have the given entries; "" removes a key. Inserting into
// a map keeps an existing key's value, so that one is removed first.
func (m *mutations) change(field *map[string]string, now, want map[string]string) {
	var drop []string
	add := map[string]string{}
	for _, k := range slices.Sorted(maps.Keys(want)) {
		old, there := now[k]
		if there && old != want[k] {
			drop = append(drop, k)
		}
		if want[k] != "" && old != want[k] {
			add[k] = want[k]
		}
	}
	if len(drop) > 0 {
		*m = append(*m, model.Mutation{Field: field, Mutator: ovsdb.MutateOperationDelete, Value: drop})
	}
	if len(add) > 0 {
		*m = append(*m, model.Mutation{Field: field, Mutator: ovsdb.MutateOperationInsert, Value: add})
	}
}

// bridgeEdit is what a plan does to one bridge.
type bridgeEdit struct {
	old  *bridgeRows // nil: the bridge is created
	name string

	datapathType       *string
	failMode           **string // to nil or a mode
	protocols          []string // added
	otherConfig        map[string]string
	externalIDs        map[string]string // "" removes a key
	addPorts, delPorts []string          // row ids
	addControllers     []string
	delControllers     []string
}

func (p *plan) edit(name string, old *bridgeRows) *bridgeEdit {
	e := p.edits[name]
	if e == nil {
		e = &bridgeEdit{old: old, name: name, otherConfig: map[string]string{}, externalIDs: map[string]string{}}
		p.edits[name] = e
	}
	return e
}

// finish turns the edits of bridges into operations.
func (p *plan) finish(root *vswitch.OpenvSwitch) {
	var created []string
	for _, name := range slices.Sorted(maps.Keys(p.edits)) {
		e := p.edits[name]
		if e.old == nil {
			created = append(created, p.createBridge(e))
			continue
		}
		p.changeBridge(e)
	}
	if len(created) > 0 {
		r := &vswitch.OpenvSwitch{UUID: root.UUID}
		var m mutations
		m.insertSet(&r.Bridges, created)
		p.mutate(r, m...)
	}
}

func (p *plan) createBridge(e *bridgeEdit) string {
	local := &vswitch.Interface{UUID: p.name(), Name: e.name, Type: "internal"}
	port := &vswitch.Port{UUID: p.name(), Name: e.name, Interfaces: []string{local.UUID}}
	row := &vswitch.Bridge{
		UUID:        p.name(),
		Name:        e.name,
		Protocols:   e.protocols,
		OtherConfig: e.otherConfig,
		ExternalIDs: maps.Collect(nonEmpty(e.externalIDs)),
		Ports:       append(e.addPorts, port.UUID),
		Controller:  e.addControllers,
	}
	if e.datapathType != nil {
		row.DatapathType = *e.datapathType
	}
	if e.failMode != nil {
		row.FailMode = *e.failMode
	}
	p.create(local)
	p.create(port)
	p.create(row)
	p.note("create bridge %s", e.name)
	return row.UUID
}

func (p *plan) changeBridge(e *bridgeEdit) {
	row := &vswitch.Bridge{UUID: e.old.UUID}
	var fields []any
	if e.datapathType != nil {
		row.DatapathType = *e.datapathType
		fields = append(fields, &row.DatapathType)
	}
	if e.failMode != nil {
		row.FailMode = *e.failMode
		fields = append(fields, &row.FailMode)
	}
	if len(fields) > 0 {
		p.update(row, fields...)
	}
	var m mutations
	m.deleteSet(&row.Ports, e.delPorts)
	m.insertSet(&row.Ports, e.addPorts)
	m.deleteSet(&row.Controller, e.delControllers)
	m.insertSet(&row.Controller, e.addControllers)
	m.insertSet(&row.Protocols, e.protocols)
	m.change(&row.OtherConfig, e.old.OtherConfig, e.otherConfig)
	m.change(&row.ExternalIDs, e.old.ExternalIDs, e.externalIDs)
	p.mutate(row, m...)
}

func nonEmpty(m map[string]string) func(func(string, string) bool) {
	return func(yield func(string, string) bool) {
		for k, v := range m {
			if v != "" && !yield(k, v) {
				return
			}
		}
	}
}
