package network

import (
	"strings"

	"github.com/tidwall/btree"
)

// trees are the model in memory at one moment: the objects of each kind by
// their id, for every other index its keys, and the claims. A fork shares with
// its origin all that it does not change, so that both cost little and stay as
// they are.
type trees struct {
	objects map[Kind]*btree.Map[string, Object]
	// entries has "key \x00 id" for each object in an index that is not by id.
	entries [indexCount]*btree.Map[string, struct{}]
	claims  *btree.Map[string, Claim]

	// What was changed since the fork is nobody else's, and written in place.
	ownObjects map[Kind]bool
	ownEntries [indexCount]bool
	ownClaims  bool
}

// degree of the trees: small, since a transaction copies the nodes on its way.
const degree = 16

func newTrees() *trees {
	t := &trees{objects: make(map[Kind]*btree.Map[string, Object], len(tables)), claims: btree.NewMap[string, Claim](degree)}
	for _, table := range tables {
		t.objects[table.kind] = btree.NewMap[string, Object](degree)
		for _, ix := range table.others {
			t.entries[ix.index] = btree.NewMap[string, struct{}](degree)
		}
	}
	return t
}

// fork returns trees that may be changed. Only one goroutine at a time may fork
// what was forked from the same origin; t must be sealed.
func (t *trees) fork() *trees {
	f := &trees{objects: make(map[Kind]*btree.Map[string, Object], len(t.objects)), entries: t.entries, claims: t.claims, ownObjects: map[Kind]bool{}}
	for kind, tree := range t.objects {
		f.objects[kind] = tree
	}
	return f
}

// seal ends the changes: from now on any number of goroutines may read t, which
// copies nothing then.
func (t *trees) seal() { t.ownObjects, t.ownEntries, t.ownClaims = nil, [indexCount]bool{}, false }

func (t *trees) writableObjects(kind Kind) *btree.Map[string, Object] {
	if !t.ownObjects[kind] {
		t.objects[kind], t.ownObjects[kind] = t.objects[kind].Copy(), true
	}
	return t.objects[kind]
}

func (t *trees) writableEntries(ix Index) *btree.Map[string, struct{}] {
	if !t.ownEntries[ix] {
		t.entries[ix], t.ownEntries[ix] = t.entries[ix].Copy(), true
	}
	return t.entries[ix]
}

func (t *trees) writableClaims() *btree.Map[string, Claim] {
	if !t.ownClaims {
		t.claims, t.ownClaims = t.claims.Copy(), true
	}
	return t.claims
}

// object is an object by its id, or nil.
func (t *trees) object(kind Kind, id string) Object {
	o, _ := t.objects[kind].Get(id)
	return o
}

// replace puts an object in the place of what was there under its id; either
// may be nil.
func (t *trees) replace(kind Kind, before, after Object) {
	if after == nil {
		t.writableObjects(kind).Delete(before.ObjectID())
	} else {
		t.writableObjects(kind).Set(after.ObjectID(), after)
	}
	for _, ix := range tableOf[kind].others {
		old, now := keysOf(ix, before), keysOf(ix, after)
		for _, k := range old {
			if !contains(now, k) {
				t.writableEntries(ix.index).Delete(entryKey(k, before.ObjectID()))
			}
		}
		for _, k := range now {
			if !contains(old, k) {
				t.writableEntries(ix.index).Set(entryKey(k, after.ObjectID()), struct{}{})
			}
		}
	}
}

func contains(keys []string, key string) bool {
	for _, k := range keys {
		if k == key {
			return true
		}
	}
	return false
}

func entryKey(key, id string) string { return key + "\x00" + id }

// all calls yield for the objects of a kind, in the order of their ids, until
// it returns false. What is changed meanwhile is not seen.
func (t *trees) all(kind Kind, yield func(Object) bool) {
	tree := t.objects[kind]
	if t.ownObjects[kind] {
		tree = tree.Copy()
	}
	tree.Scan(func(_ string, o Object) bool { return yield(o) })
}

// list is all for the objects that an index has under a key.
func (t *trees) list(kind Kind, ix Index, key string, yield func(Object) bool) {
	entries, objects := t.entries[ix], t.objects[kind]
	if t.ownEntries[ix] {
		entries = entries.Copy()
	}
	if t.ownObjects[kind] {
		objects = objects.Copy()
	}
	prefix := entryKey(key, "")
	entries.Ascend(prefix, func(entry string, _ struct{}) bool {
		id, ok := strings.CutPrefix(entry, prefix)
		if !ok {
			return false
		}
		// A key with a zero in it is another one: ids have none.
		if strings.IndexByte(id, 0) >= 0 {
			return true
		}
		o, _ := objects.Get(id)
		return yield(o)
	})
}

// first is the first of list, or nil.
func (t *trees) first(kind Kind, ix Index, key string) (first Object) {
	prefix := entryKey(key, "")
	t.entries[ix].Ascend(prefix, func(entry string, _ struct{}) bool {
		id, ok := strings.CutPrefix(entry, prefix)
		if ok && strings.IndexByte(id, 0) >= 0 {
			return true
		}
		if ok {
			first = t.object(kind, id)
		}
		return false
	})
	return first
}

// claim is the claim with a key in a space; false when nobody has it.
func (t *trees) claim(space, key string) (Claim, bool) { return t.claims.Get(claimPath(space, key)) }

func (t *trees) setClaim(c Claim) { t.writableClaims().Set(claimPath(c.Space, c.Key), c) }

func (t *trees) deleteClaim(c Claim) { t.writableClaims().Delete(claimPath(c.Space, c.Key)) }

func claimPath(space, key string) string { return space + "/" + key }
