package northbound

import (
	"math"
	"reflect"
	"time"

	"planck/network"
)

// ability says what may be done with an attribute.
type ability uint16

const (
	onPost     ability = 1 << iota // may be given in POST
	onPut                          // may be given in PUT
	required                       // must be given in POST
	sortable                       // may be a sort_key
	filterable                     // may be a filter
	byPolicy                       // giving it needs the rule create_<resource>:<name> or update_<resource>:<name>
	hidden                         // never shown
	byKeys                         // the keys of its dictionary have rules, too
)

const readWrite = onPost | onPut

// attribute is one row of a resource's table.
type attribute[T any] struct {
	name  string
	flags ability
	// def is the value that POST takes when the client gives none; with nil it
	// stays as the model makes it.
	def     any
	parse   func(v any) (any, error)
	set     func(o *T, v any)
	write   func(b []byte, r *reader, o *T) []byte
	match   func(values []string) (func(r *reader, o *T) bool, error)
	compare func(r *reader, a, b *T) int
	shown   func(o *T) bool // whether an object has it; nil for always
}

func (a *attribute[T]) is(f ability) bool { return a.flags&f != 0 }

// isDefault reports whether v is what POST would have taken anyway.
func (a *attribute[T]) isDefault(v any) bool {
	return a.def != nil && reflect.DeepEqual(v, a.def)
}

// withDefault gives an attribute the value that POST takes for it.
func (a attribute[T]) withDefault(v any) attribute[T] {
	a.def = v
	return a
}

// shownIf leaves an attribute out of objects that have none.
func (a attribute[T]) shownIf(has func(*T) bool) attribute[T] {
	a.shown = has
	return a
}

// field is an attribute that is kept in a field of the object.
func field[T, V any](name string, k kind[V], flags ability, at func(*T) *V) attribute[T] {
	a := derived(name, k, flags, func(_ *reader, o *T) V { return *at(o) })
	a.parse = func(v any) (any, error) {
		value, err := k.parse(v)
		return value, err
	}
	a.set = func(o *T, v any) {
		value := v.(V)
		if k.clone != nil {
			value = k.clone(value)
		}
		*at(o) = value
	}
	return a
}

// derived is an attribute that is computed, and can't be given.
func derived[T, V any](name string, k kind[V], flags ability, of func(*reader, *T) V) attribute[T] {
	a := attribute[T]{
		name:  name,
		flags: flags,
		write: func(b []byte, r *reader, o *T) []byte { return k.write(b, of(r, o)) },
	}
	if k.match != nil {
		a.match = func(values []string) (func(*reader, *T) bool, error) {
			matches, err := k.match(values)
			return func(r *reader, o *T) bool { return matches(of(r, o)) }, err
		}
	}
	if k.compare != nil {
		a.compare = func(r *reader, x, y *T) int { return k.compare(of(r, x), of(r, y)) }
	}
	return a
}

// argument is an attribute that a resource reads from the input itself; with
// show it is shown as well.
func argument[T, V any](name string, k kind[V], flags ability, show func(*reader, *T) V) attribute[T] {
	var a attribute[T]
	if show != nil {
		a = derived(name, k, flags, show)
	} else {
		a = attribute[T]{name: name, flags: flags | hidden}
	}
	a.parse = func(v any) (any, error) {
		value, err := k.parse(v)
		return value, err
	}
	a.set = func(*T, any) {}
	return a
}

// filterOnly is a filter that is not an attribute.
func filterOnly[T any](name string, match func(values []string) (func(*reader, *T) bool, error)) attribute[T] {
	return attribute[T]{name: name, flags: filterable | hidden, match: match}
}

// standardAttributes are those of every resource: the first ones of its table.
func standardAttributes[T any](of func(*T) *network.Standard) []attribute[T] {
	str := func(name string, k kind[string], flags ability, at func(*network.Standard) *string) attribute[T] {
		return field(name, k, flags, func(o *T) *string { return at(of(o)) })
	}
	return []attribute[T]{
		str("id", uuidKind, sortable|filterable, func(s *network.Standard) *string { return &s.ID }),
		str("name", nameText(nameSize), readWrite|sortable|filterable,
			func(s *network.Standard) *string { return &s.Name }).withDefault(""),
		str("tenant_id", text(projectSize), onPost|sortable|filterable,
			func(s *network.Standard) *string { return &s.ProjectID }),
		str("project_id", text(projectSize), onPost|sortable|filterable,
			func(s *network.Standard) *string { return &s.ProjectID }),
		str("description", text(descriptionSize), readWrite|filterable,
			func(s *network.Standard) *string { return &s.Description }).withDefault(""),
		derived("created_at", timestamp, sortable, func(_ *reader, o *T) time.Time { return of(o).CreatedAt }),
		derived("updated_at", timestamp, sortable, func(_ *reader, o *T) time.Time { return of(o).UpdatedAt }),
		derived("revision_number", integer(0, math.MaxInt32), filterable|sortable,
			func(_ *reader, o *T) int { return of(o).RevisionNumber }),
	}
}
