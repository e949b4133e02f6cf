package fleet

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
)

// row is a row of a table. It is never changed: a change makes a new one.
type row struct {
	table *table
	cells []cell // but those with their initial value
}

type cell struct {
	column *column
	value  datum
}

func (r *row) get(name string) datum {
	for _, c := range r.cells {
		if c.column.name == name {
			return c.value
		}
	}
	if c := r.table.byName[name]; c != nil {
		return c.initial
	}
	return nil
}

// with is the row with another value in a column.
func (r *row) with(name string, value datum) (*row, error) {
	c := r.table.byName[name]
	switch {
	case c == nil:
		return nil, fmt.Errorf("no column %s in table %s", name, r.table.name)
	case len(value) < c.min || c.max > 0 && len(value) > c.max:
		return nil, fmt.Errorf("%s.%s can't have %d values", r.table.name, name, len(value))
	}
	out := &row{table: r.table, cells: make([]cell, 0, len(r.cells)+1)}
	for _, old := range r.cells {
		if old.column != c {
			out.cells = append(out.cells, old)
		}
	}
	if !value.equal(c.initial) {
		out.cells = append(out.cells, cell{c, value})
	}
	return out, nil
}

// database is a small ovsdb-server: rows, transactions, and what changed in one.
type database struct {
	*schema
	rows map[uuid]*row
}

// change is what a transaction did to a row: before is nil for a new one, after
// for one that is gone.
type change struct {
	id            uuid
	before, after *row
}

// transaction is a change of a database that is not made yet.
type transaction struct {
	db    *database
	now   map[uuid]*row // nil: deleted
	named map[string]uuid
}

func (db *database) begin() *transaction {
	return &transaction{db: db, now: map[uuid]*row{}, named: map[string]uuid{}}
}

func (t *transaction) row(id uuid) *row {
	if r, ok := t.now[id]; ok {
		return r
	}
	return t.db.rows[id]
}

// each calls fn with the rows of a table, as they are in the transaction.
func (t *transaction) each(table string, fn func(uuid, *row)) {
	for id, r := range t.db.rows {
		if _, changed := t.now[id]; !changed && r.table.name == table {
			fn(id, r)
		}
	}
	for id, r := range t.now {
		if r != nil && r.table.name == table {
			fn(id, r)
		}
	}
}

func newUUID() uuid {
	hi, lo := rand.Uint64(), rand.Uint64()
	return uuid(fmt.Sprintf("%08x-%04x-4%03x-%04x-%012x", hi>>32, hi>>16&0xffff, hi&0xfff, 0x8000|lo>>48&0x3fff, lo&(1<<48-1)))
}

// insert adds a row with columns in turn with their values.
func (t *transaction) insert(table string, values ...any) (uuid, error) {
	r := &row{table: t.db.tables[table]}
	id := newUUID()
	t.now[id] = r
	return id, t.set(id, values...)
}

// set gives columns of a row new values, in turn.
func (t *transaction) set(id uuid, values ...any) error {
	r := t.row(id)
	for i := 0; i+1 < len(values); i += 2 {
		var err error
		if r, err = r.with(values[i].(string), values[i+1].(datum)); err != nil {
			return err
		}
	}
	t.now[id] = r
	return nil
}

// commit makes the change and tells what it was.
func (t *transaction) commit() ([]change, error) {
	t.sweep()
	if err := t.check(); err != nil {
		return nil, err
	}
	var changes []change
	for id, after := range t.now {
		before := t.db.rows[id]
		switch {
		case before == nil && after == nil || before != nil && after != nil && before.equal(after):
			continue
		case after == nil:
			delete(t.db.rows, id)
		default:
			t.db.rows[id] = after
		}
		changes = append(changes, change{id, before, after})
	}
	return changes, nil
}

func (r *row) equal(o *row) bool {
	return len(r.cells) == len(o.cells) && !slices.ContainsFunc(r.cells, func(c cell) bool { return !o.get(c.column.name).equal(c.value) })
}

// sweep deletes the rows that nothing refers to.
func (t *transaction) sweep() {
	reached := map[uuid]bool{}
	var reach func(id uuid, r *row)
	reach = func(id uuid, r *row) {
		if r == nil || reached[id] {
			return
		}
		reached[id] = true
		for _, c := range r.cells {
			if c.column.refTable == "" {
				continue
			}
			for _, p := range c.value {
				to := p.key.(uuid)
				reach(to, t.row(to))
			}
		}
	}
	for _, table := range t.db.tables {
		if table.root {
			t.each(table.name, reach)
		}
	}
	for id := range t.db.rows {
		if !reached[id] {
			t.now[id] = nil
		}
	}
	for id := range t.now {
		if !reached[id] {
			t.now[id] = nil
		}
	}
}

// check finds references to nothing and names that are taken.
func (t *transaction) check() error {
	for id, r := range t.now {
		if r == nil {
			continue
		}
		for _, c := range r.cells {
			for _, p := range c.value {
				to, ok := p.key.(uuid)
				if ok && c.column.refTable != "" && t.row(to) == nil {
					return fmt.Errorf("referential integrity violation: %s.%s has %s", r.table.name, c.column.name, to)
				}
			}
		}
		if r.table.unique == "" {
			continue
		}
		var err error
		t.each(r.table.name, func(other uuid, o *row) {
			if other != id && o.get(r.table.unique).equal(r.get(r.table.unique)) {
				err = fmt.Errorf("constraint violation: two rows of %s have the %s %v", r.table.name, r.table.unique, r.get(r.table.unique))
			}
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// operation is one of a transaction of a client (RFC 7047, 5.2).
type operation struct {
	Op        string
	Table     string
	Row       map[string]any
	UUIDName  string `json:"uuid-name"`
	Where     [][]any
	Mutations [][]any
	Columns   []string
}

// perform does what a client asks for, and answers as ovsdb-server does.
func (t *transaction) perform(raw []json.RawMessage) (results []any, err error) {
	ops := make([]operation, len(raw))
	for i := range raw {
		if err := json.Unmarshal(raw[i], &ops[i]); err != nil {
			return nil, err
		}
		if ops[i].UUIDName != "" { // names may be used before
			t.named[ops[i].UUIDName] = newUUID()
		}
	}
	for i := range ops {
		result, err := t.do(&ops[i])
		if err != nil {
			return append(results, map[string]any{"error": "constraint violation", "details": err.Error()}), err
		}
		results = append(results, result)
	}
	return results, nil
}

func (t *transaction) do(op *operation) (any, error) {
	if op.Op == "comment" {
		return map[string]any{}, nil
	}
	if t.db.tables[op.Table] == nil {
		return nil, fmt.Errorf("no table %q", op.Table)
	}
	if op.Op == "insert" {
		id, ok := t.named[op.UUIDName]
		if !ok {
			id = newUUID()
		}
		t.now[id] = &row{table: t.db.tables[op.Table]}
		return map[string]any{"uuid": []any{"uuid", id}}, t.update(id, op.Row)
	}
	found, err := t.find(op.Table, op.Where)
	if err != nil {
		return nil, err
	}
	if op.Op == "select" {
		return map[string]any{"rows": t.selected(found, op.Columns)}, nil
	}
	for _, id := range found {
		switch op.Op {
		case "update":
			err = t.update(id, op.Row)
		case "mutate":
			err = t.mutate(id, op.Mutations)
		case "delete":
			t.now[id] = nil
		default:
			err = fmt.Errorf("unknown operation %q", op.Op)
		}
		if err != nil {
			return nil, err
		}
	}
	return map[string]any{"count": len(found)}, nil
}

// find has the rows that meet conditions: == and != are all that is asked for.
func (t *transaction) find(table string, where [][]any) (found []uuid, err error) {
	t.each(table, func(id uuid, r *row) {
		for _, w := range where {
			if len(w) != 3 {
				err = fmt.Errorf("a condition with %d parts", len(w))
				return
			}
			want, e := readDatum(w[2], t.named)
			if e != nil {
				err = e
				return
			}
			have := datum{{key: id}}
			if w[0] != "_uuid" {
				have = r.get(fmt.Sprint(w[0]))
			}
			switch w[1] {
			case "==":
				if !have.equal(want) {
					return
				}
			case "!=":
				if have.equal(want) {
					return
				}
			default:
				err = fmt.Errorf("unknown function %v", w[1])
				return
			}
		}
		found = append(found, id)
	})
	return found, err
}

func (t *transaction) selected(found []uuid, columns []string) []json.RawMessage {
	rows := []json.RawMessage{}
	for _, id := range found {
		r := t.row(id)
		b := append(append([]byte(`{"_uuid":["uuid","`), id...), `"]`...)
		for _, c := range r.table.columns {
			if columns == nil || slices.Contains(columns, c.name) {
				b = append(append(append(b, `,"`...), c.name...), `":`...)
				b = r.get(c.name).append(b, c)
			}
		}
		rows = append(rows, append(b, '}'))
	}
	return rows
}

func (t *transaction) update(id uuid, values map[string]any) error {
	for name, raw := range values {
		value, err := readDatum(raw, t.named)
		if err != nil {
			return err
		}
		if err := t.set(id, name, value); err != nil {
			return err
		}
	}
	return nil
}

func (t *transaction) mutate(id uuid, mutations [][]any) error {
	for _, m := range mutations {
		if len(m) != 3 {
			return fmt.Errorf("a mutation with %d parts", len(m))
		}
		name, value := fmt.Sprint(m[0]), t.row(id).get(fmt.Sprint(m[0]))
		by, err := readDatum(m[2], t.named)
		if err != nil {
			return err
		}
		switch m[1] {
		case "insert":
			value = value.with(by)
		case "delete":
			value = value.without(by)
		case "+=":
			value = numberOf(value.number() + by.number())
		default:
			return fmt.Errorf("unknown mutator %v", m[1])
		}
		if err := t.set(id, name, value); err != nil {
			return err
		}
	}
	return nil
}
