package network

import (
	"cmp"
	"context"
	"errors"
	"slices"
)

// ErrClosed is what a closed Store or Follower answers.
var ErrClosed = errors.New("the store is closed")

// Change is an object before and after; nil stands for absent.
type Change struct {
	Kind   Kind
	ID     string
	Before Object
	After  Object
	// Revisions are those that changed it, oldest first; nil when they are not known.
	Revisions []uint64
}

// mostRevisions is how many revisions of a change are told apart.
const mostRevisions = 64

// joinRevisions are those of two changes of an object that became one, the later
// one last; nil when they are not known, or too many.
func joinRevisions(a, b []uint64) []uint64 {
	if a == nil || b == nil || len(a)+len(b) > mostRevisions {
		return nil
	}
	return append(slices.Clip(a), b...)
}

// Batch is what changed up to a revision.
type Batch struct {
	View *View
	// Changes has each changed object once, ordered by kind and id.
	Changes []Change
}

// Touched calls visit once for every Dep that changes touch, with the indexes of
// those changes.
func (b Batch) Touched(visit func(d Dep, by []int)) {
	type touched struct {
		dep Dep
		by  []int
	}
	list := make([]touched, 0, 4*len(b.Changes))
	seen := make(map[Dep]int, 4*len(b.Changes))
	each := make([]int, len(b.Changes)) // so that most need no list of their own
	for i, c := range b.Changes {
		each[i] = i
		tableOf[c.Kind].touched(c.Before, c.After, func(d Dep) {
			n, ok := seen[d]
			if !ok {
				seen[d] = len(list)
				list = append(list, touched{d, each[i : i+1 : i+1]})
			} else if by := list[n].by; by[len(by)-1] != i {
				list[n].by = append(by, i)
			}
		})
	}
	for _, t := range list {
		visit(t.dep, t.by)
	}
}

// objectKey identifies an object of the store.
type objectKey struct {
	kind Kind
	id   string
}

// Follower tells one reader what changed. While the reader is busy, changes
// are merged, so that none is lost and at most one is kept for each object.
type Follower struct {
	s    *Store
	wake chan struct{}
	done chan struct{}

	// Guarded by s.mu.
	started bool
	closed  bool
	seen    uint64 // the revision of the last batch
	pending map[objectKey]seenObject
}

// seenObject is an object as a reader saw it last, and what changed it since.
type seenObject struct {
	before    Object
	revisions []uint64
}

// Follow starts a change feed. Its first batch has everything as created.
func (s *Store) Follow() *Follower {
	f := &Follower{
		s:       s,
		wake:    make(chan struct{}, 1),
		done:    make(chan struct{}),
		pending: map[objectKey]seenObject{},
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.followers[f] = struct{}{}
	return f
}

// Close ends the feed; a waiting Next returns ErrClosed.
func (f *Follower) Close() {
	f.s.mu.Lock()
	defer f.s.mu.Unlock()
	if f.closed {
		return
	}
	f.closed = true
	close(f.done)
	delete(f.s.followers, f)
}

// Next waits for something to happen and returns everything since the last
// call, which may be a newer revision alone: others may have written what this
// program does not know. It fails only when ctx ends or the store or the follower
// is closed.
func (f *Follower) Next(ctx context.Context) (Batch, error) {
	for {
		if b, ok := f.take(); ok {
			return b, nil
		}
		select {
		case <-f.wake:
		case <-ctx.Done():
			return Batch{}, ctx.Err()
		case <-f.done:
			return Batch{}, ErrClosed
		case <-f.s.ctx.Done():
			return Batch{}, ErrClosed
		}
	}
}

func (f *Follower) take() (Batch, bool) {
	f.s.mu.Lock()
	view, pending, first := f.s.View(), f.pending, !f.started
	if !first && len(pending) == 0 && view.revision == f.seen {
		f.s.mu.Unlock()
		return Batch{}, false
	}
	f.started, f.seen, f.pending = true, view.revision, map[objectKey]seenObject{}
	f.s.mu.Unlock()
	if first {
		return Batch{View: view, Changes: view.everything()}, true
	}
	changes := make([]Change, 0, len(pending))
	for k, seen := range pending {
		after := view.object(k.kind, k.id)
		if seen.before != after {
			changes = append(changes, Change{k.kind, k.id, seen.before, after, seen.revisions})
		}
	}
	slices.SortFunc(changes, func(a, b Change) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.ID, b.ID))
	})
	return Batch{View: view, Changes: changes}, true
}

// note merges changes into what the reader gets next. The caller holds s.mu.
func (f *Follower) note(changes []Change) {
	for _, c := range changes {
		k := objectKey{c.Kind, c.ID}
		seen, ok := f.pending[k]
		if !ok {
			f.pending[k] = seenObject{c.Before, c.Revisions}
			continue
		}
		seen.revisions = joinRevisions(seen.revisions, c.Revisions)
		f.pending[k] = seen
	}
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// everything is the whole view as changes from nothing.
func (v *View) everything() []Change {
	var changes []Change
	for _, t := range tables {
		v.trees.all(t.kind, func(o Object) bool {
			changes = append(changes, Change{Kind: t.kind, ID: o.ObjectID(), After: o})
			return true
		})
	}
	return changes
}
