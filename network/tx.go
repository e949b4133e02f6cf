package network

import (
	"reflect"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
)

// Tx is a transaction on the newest state. It embeds a View that shows its own
// writes. An object that is given to a method is completed in place and not
// kept: the caller may go on using it.
type Tx struct {
	*View
	s       *Store
	objects map[objectKey]*written
	claims  map[claimKey]*claimed
	now     time.Time

	messages []Message
}

func newTx(s *Store, t *trees, revision uint64) *Tx {
	return &Tx{
		View:    &View{trees: t, revision: revision},
		s:       s,
		objects: map[objectKey]*written{},
		claims:  map[claimKey]*claimed{},
		now:     time.Now().UTC().Truncate(time.Second),
	}
}

func (tx *Tx) abort() {
	if len(tx.claims) > 0 {
		clear(tx.s.alloc.full)
	}
}

// put writes an object and the claims that follow from it.
func (tx *Tx) put(o Object) error {
	kind, id := o.ObjectKind(), o.ObjectID()
	if id == "" || !storable(id) {
		return Errorf(Invalid, "InvalidInput", "Invalid input for operation: %q is not an id for a %s.", id, kind)
	}
	if r, ok := o.(interface{ standard() *Standard }); ok && !storable(r.standard().ProjectID) {
		return Errorf(Invalid, "InvalidInput", "Invalid input for operation: %q is not the id of a project.", r.standard().ProjectID)
	}
	before := tx.object(kind, id)
	if err := tx.moveClaims(before, o); err != nil {
		return err
	}
	tx.trees.replace(kind, before, o)
	tx.note(kind, id, before, o)
	return nil
}

// storable reports whether every database keeps a text as it is.
func storable(s string) bool { return utf8.ValidString(s) && !strings.ContainsRune(s, 0) }

// resource is an object of the API.
type resource[T any] interface {
	Object
	Clone() T
	trim()
	standard() *Standard
}

func (s *Standard) standard() *Standard { return s }

// replace writes the modified copy of an object, unless nothing differs, which it reports.
func replace[T resource[T]](tx *Tx, old, now T) (changed bool, err error) {
	now.trim()
	s, was := now.standard(), old.standard()
	s.ProjectID, s.CreatedAt = was.ProjectID, was.CreatedAt
	s.UpdatedAt, s.RevisionNumber = was.UpdatedAt, was.RevisionNumber
	if reflect.DeepEqual(now, old) {
		return false, nil
	}
	tx.bump(s, *was)
	return true, tx.put(now.Clone())
}

// remove deletes an object, if it is there, and its claims.
func (tx *Tx) remove(kind Kind, id string) {
	before := tx.object(kind, id)
	if before == nil {
		return
	}
	for _, c := range claimsOf(before) {
		tx.release(c)
	}
	for _, c := range tx.s.foreign[objectKey{kind, id}] {
		if held, _ := tx.claimant(c.Space, c.Key); held == c {
			tx.release(c)
		}
	}
	tx.trees.replace(kind, before, nil)
	tx.note(kind, id, before, nil)
}

func (tx *Tx) note(kind Kind, id string, before, after Object) {
	k := objectKey{kind, id}
	if w, ok := tx.objects[k]; ok {
		w.after = after
		return
	}
	tx.objects[k] = &written{before: before, after: after}
}

func (tx *Tx) moveClaims(before, after Object) error {
	kept := map[Claim]bool{}
	wanted := claimsOf(after)
	for _, c := range wanted {
		kept[c] = false
	}
	if before != nil {
		for _, c := range claimsOf(before) {
			if _, ok := kept[c]; ok {
				kept[c] = true
				continue
			}
			tx.release(c)
		}
	}
	for _, c := range wanted {
		if kept[c] {
			continue
		}
		if err := tx.claim(c); err != nil {
			return err
		}
	}
	return nil
}

func (tx *Tx) claim(c Claim) error {
	if owner, ok := tx.claimant(c.Space, c.Key); ok {
		return c.taken(owner)
	}
	tx.trees.setClaim(c)
	tx.noteClaim(Claim{}, c, c.key())
	return nil
}

func (tx *Tx) release(c Claim) {
	tx.trees.deleteClaim(c)
	tx.noteClaim(c, Claim{}, c.key())
	if c.Space == spaceIP {
		subnetID, _, _ := strings.Cut(c.Key, "/")
		delete(tx.s.alloc.full, subnetID)
	}
}

func (tx *Tx) noteClaim(before, after Claim, k claimKey) {
	if old, ok := tx.claims[k]; ok {
		old.after = after
		return
	}
	tx.claims[k] = &claimed{before, after}
}

// claimant is who holds a claim.
func (v *View) claimant(space, key string) (Claim, bool) {
	return v.trees.claim(space, key)
}

// begin fills what every new resource has.
func (tx *Tx) begin(s *Standard) {
	if s.ID == "" {
		s.ID = uuid.NewString()
	}
	s.CreatedAt, s.UpdatedAt, s.RevisionNumber = tx.now, tx.now, 0
}

// bump makes s the successor of old. Where the clock was set back meanwhile, the
// time of the change is that of the one before.
func (tx *Tx) bump(s *Standard, old Standard) {
	s.ProjectID, s.CreatedAt = old.ProjectID, old.CreatedAt
	s.UpdatedAt, s.RevisionNumber = tx.now, old.RevisionNumber+1
	if s.UpdatedAt.Before(old.UpdatedAt) {
		s.UpdatedAt = old.UpdatedAt
	}
}
