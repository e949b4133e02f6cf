package network

import (
	"bytes"
	"context"
	"encoding/json"
	"maps"
	"reflect"
	"strings"
)

// A database may be ahead of this program: a newer one has expanded it and works
// with it. Objects of kinds that are not known here are left alone, what is not
// known of the others outlives their changes, and claims that do not follow from
// what is known are respected. All of that costs nothing as long as nobody is
// ahead.

// behind reports whether the tables are ahead of this program.
func (s *Store) behind() bool { return s.state.version > s.known.version() }

// dropForeign forgets the foreign claims of an owner.
func (s *Store) dropForeign(t *trees, owner objectKey) {
	for _, c := range s.foreign[owner] {
		if held, _ := t.claim(c.Space, c.Key); held == c {
			t.deleteClaim(c)
		}
	}
	delete(s.foreign, owner)
}

// addForeign notes claims that do not follow from objects.
func (s *Store) addForeign(t *trees, claims []Claim) {
	for _, c := range claims {
		if _, taken := t.claim(c.Space, c.Key); taken {
			continue
		}
		t.setClaim(c)
		owner := objectKey{c.OwnerKind, c.OwnerID}
		s.foreign[owner] = append(s.foreign[owner], c)
	}
}

// claimsOf reads the claims of owners.
func (t *dbTx) claimsOf(ctx context.Context, owners []objectKey) ([]Claim, error) {
	var claims []Claim
	err := byKeys(owners, func(list string, args []any) error {
		some, err := t.readClaims(ctx, ` WHERE (owner_kind, owner_id) IN `+list, args...)
		claims = append(claims, some...)
		return err
	})
	return claims, err
}

// allClaims reads every claim.
func (t *dbTx) allClaims(ctx context.Context) ([]Claim, error) { return t.readClaims(ctx, ``) }

func (t *dbTx) readClaims(ctx context.Context, where string, args ...any) ([]Claim, error) {
	rows, err := t.query(ctx, `SELECT space, key, owner_kind, owner_id FROM claims`+where, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var claims []Claim
	for rows.Next() {
		var c Claim
		if err := rows.Scan(&c.Space, &c.Key, &c.OwnerKind, &c.OwnerID); err != nil {
			return nil, err
		}
		claims = append(claims, c)
	}
	return claims, rows.Err()
}

// storedBodies are the objects that a batch changes as the database has them; nil
// when it has nothing in them that is not known here.
func (b *batch) storedBodies(ctx context.Context, t *dbTx) (map[objectKey][]byte, error) {
	if !b.s.behind() {
		return nil, nil
	}
	var keys []objectKey
	for k, w := range b.objects {
		if w.before != nil && w.after != nil {
			keys = append(keys, k)
		}
	}
	bodies := map[objectKey][]byte{}
	err := byKeys(keys, func(list string, args []any) error {
		rows, err := t.query(ctx, `SELECT kind, id, body FROM objects WHERE (kind, id) IN `+list, args...)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var kind, id, body string
			if err := rows.Scan(&kind, &id, &body); err != nil {
				return err
			}
			bodies[objectKey{Kind(kind), id}] = []byte(body)
		}
		return rows.Err()
	})
	return bodies, err
}

// keepUnknown is the new JSON text of an object with what the old one has and its
// type does not know.
func keepUnknown(o Object, old, now []byte) ([]byte, error) {
	return merge(reflect.TypeOf(o).Elem(), old, now)
}

// merge keeps in the new text of a value of a type what only the old one has. Of
// a list it does so for the elements that are the same in what is known of them.
func merge(t reflect.Type, old, now json.RawMessage) (json.RawMessage, error) {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if reflect.PointerTo(t).Implements(textUnmarshaler) || bytes.Equal(old, now) {
		return now, nil
	}
	switch t.Kind() {
	case reflect.Struct:
		return mergeStruct(t, old, now)
	case reflect.Map:
		return mergeMap(t.Elem(), old, now)
	case reflect.Slice:
		return mergeSlice(t.Elem(), old, now)
	}
	return now, nil
}

var textUnmarshaler = reflect.TypeFor[interface{ UnmarshalText([]byte) error }]()

func mergeStruct(t reflect.Type, old, now json.RawMessage) (json.RawMessage, error) {
	was, is, err := both[map[string]json.RawMessage](old, now)
	if err != nil || was == nil || is == nil {
		return now, err
	}
	fields := fieldsOf(t)
	for name, value := range was {
		field, known := fields[name]
		if !known {
			is[name] = value
			continue
		}
		if _, there := is[name]; !there {
			continue
		}
		if is[name], err = merge(field, value, is[name]); err != nil {
			return nil, err
		}
	}
	return json.Marshal(is)
}

func mergeMap(element reflect.Type, old, now json.RawMessage) (json.RawMessage, error) {
	was, is, err := both[map[string]json.RawMessage](old, now)
	if err != nil || was == nil || is == nil {
		return now, err
	}
	for name, value := range is {
		if before, there := was[name]; there {
			if is[name], err = merge(element, before, value); err != nil {
				return nil, err
			}
		}
	}
	return json.Marshal(is)
}

func mergeSlice(element reflect.Type, old, now json.RawMessage) (json.RawMessage, error) {
	if element.Kind() != reflect.Struct || reflect.PointerTo(element).Implements(textUnmarshaler) {
		return now, nil
	}
	was, is, err := both[[]json.RawMessage](old, now)
	if err != nil || is == nil {
		return now, err
	}
	unused := map[string][]json.RawMessage{} // by what is known of them
	for _, value := range was {
		known, err := knownOf(element, value)
		if err != nil {
			return nil, err
		}
		unused[known] = append(unused[known], value)
	}
	for i, value := range is {
		known, err := knownOf(element, value)
		if err != nil {
			return nil, err
		}
		if same := unused[known]; len(same) > 0 {
			is[i], unused[known] = same[0], same[1:]
		}
	}
	return json.Marshal(is)
}

// knownOf is a JSON text without what its type does not know.
func knownOf(t reflect.Type, text json.RawMessage) (string, error) {
	v := reflect.New(t)
	if err := json.Unmarshal(text, v.Interface()); err != nil {
		return "", err
	}
	known, err := json.Marshal(v.Interface())
	return string(known), err
}

func both[T any](old, now json.RawMessage) (was, is T, err error) {
	if err = json.Unmarshal(old, &was); err == nil {
		err = json.Unmarshal(now, &is)
	}
	return was, is, err
}

// fieldsOf are the fields of a struct by their names in JSON.
func fieldsOf(t reflect.Type) map[string]reflect.Type {
	fields := map[string]reflect.Type{}
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case f.Anonymous && name == "":
			maps.Copy(fields, fieldsOf(f.Type))
		case name != "-" && name != "":
			fields[name] = f.Type
		}
	}
	return fields
}
