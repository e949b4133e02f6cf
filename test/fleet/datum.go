package fleet

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
)

type uuid string

// datum is the value of a column: one pair for each of its elements, without
// values unless the column is a map. Keys and values are string, float64, bool
// or uuid. It is never changed once it is in a row.
type datum []pair

type pair struct{ key, value any }

func (d datum) equal(e datum) bool {
	return len(d) == len(e) && !slices.ContainsFunc(d, func(p pair) bool { return !slices.Contains(e, p) })
}

func (d datum) index(key any) int {
	return slices.IndexFunc(d, func(p pair) bool { return p.key == key })
}

// text is the value of a key of a map, or of a column without a key.
func (d datum) text(key ...string) string {
	if len(key) == 0 {
		if len(d) != 1 {
			return ""
		}
		s, _ := d[0].key.(string)
		return s
	}
	if i := d.index(key[0]); i >= 0 {
		s, _ := d[i].value.(string)
		return s
	}
	return ""
}

func (d datum) number() int {
	if len(d) != 1 {
		return 0
	}
	n, _ := d[0].key.(float64)
	return int(n)
}

func textOf(s string) datum { return datum{{key: s}} }
func numberOf(n int) datum  { return datum{{key: float64(n)}} }
func boolOf(b bool) datum   { return datum{{key: b}} }
func refOf(ids ...uuid) (d datum) {
	for _, id := range ids {
		d = append(d, pair{key: id})
	}
	return d
}

// MapOf is a map of keys and values in turn.
func mapOf(pairs ...string) (d datum) {
	for i := 0; i+1 < len(pairs); i += 2 {
		d = append(d, pair{pairs[i], pairs[i+1]})
	}
	return d
}

// readDatum reads a value of RFC 7047, 5.1; named has the rows that the same
// transaction makes.
func readDatum(raw any, named map[string]uuid) (datum, error) {
	list, ok := raw.([]any)
	if !ok || len(list) != 2 {
		return datum{{key: raw}}, nil
	}
	elements, _ := list[1].([]any)
	var d datum
	switch list[0] {
	case "set":
		for _, e := range elements {
			k, err := readAtom(e, named)
			if err != nil {
				return nil, err
			}
			d = append(d, pair{key: k})
		}
		return d, nil
	case "map":
		for _, e := range elements {
			kv, _ := e.([]any)
			if len(kv) != 2 {
				return nil, fmt.Errorf("a map with the element %v", e)
			}
			k, err := readAtom(kv[0], named)
			if err != nil {
				return nil, err
			}
			v, err := readAtom(kv[1], named)
			if err != nil {
				return nil, err
			}
			d = append(d, pair{k, v})
		}
		return d, nil
	}
	k, err := readAtom(raw, named)
	return datum{{key: k}}, err
}

func readAtom(raw any, named map[string]uuid) (any, error) {
	list, ok := raw.([]any)
	if !ok {
		return raw, nil
	}
	if len(list) != 2 {
		return nil, fmt.Errorf("an atom with %d parts", len(list))
	}
	name, _ := list[1].(string)
	switch list[0] {
	case "uuid":
		return uuid(name), nil
	case "named-uuid":
		id, ok := named[name]
		if !ok {
			return nil, fmt.Errorf("no row is named %q", name)
		}
		return id, nil
	}
	return nil, fmt.Errorf("an atom that begins with %v", list[0])
}

// append writes the value as ovsdb-server does: a set with one element is that
// element alone.
func (d datum) append(b []byte, c *column) []byte {
	if !c.isMap && len(d) == 1 {
		return appendAtom(b, d[0].key)
	}
	kind := "set"
	if c.isMap {
		kind = "map"
	}
	b = append(b, `["`+kind+`",[`...)
	for i, p := range d {
		if i > 0 {
			b = append(b, ',')
		}
		if !c.isMap {
			b = appendAtom(b, p.key)
			continue
		}
		b = append(appendAtom(append(b, '['), p.key), ',')
		b = append(appendAtom(b, p.value), ']')
	}
	return append(b, "]]"...)
}

func appendAtom(b []byte, a any) []byte {
	switch a := a.(type) {
	case uuid:
		return append(append(append(b, `["uuid","`...), a...), `"]`...)
	case float64:
		return strconv.AppendFloat(b, a, 'f', -1, 64)
	case bool:
		return strconv.AppendBool(b, a)
	}
	text, _ := json.Marshal(a)
	return append(b, text...)
}

// with is a set or map with more elements; of a map those whose keys it has stay.
func (d datum) with(more datum) datum {
	out := slices.Clone(d)
	for _, p := range more {
		if out.index(p.key) < 0 {
			out = append(out, p)
		}
	}
	return out
}

// without leaves elements out: of a map by key, or by key and value where that
// is given.
func (d datum) without(less datum) datum {
	return slices.DeleteFunc(slices.Clone(d), func(p pair) bool {
		i := less.index(p.key)
		return i >= 0 && (less[i].value == nil || less[i].value == p.value)
	})
}

// difference is what monitors are told of a change: of a plain column the new
// value, of a set the elements that came or went, of a map likewise, with the
// new value where a key stays.
func (c *column) difference(before, after datum) datum {
	if c.plain() {
		return after
	}
	var d datum
	for _, p := range before {
		if after.index(p.key) < 0 {
			d = append(d, p)
		}
	}
	for _, p := range after {
		if !slices.Contains(before, p) {
			d = append(d, p)
		}
	}
	return d
}
