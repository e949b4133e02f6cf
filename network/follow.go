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
}

// Batch is what changed up to a revision.
type Batch struct {
	View *View
	// Changes has each changed object once, ordered by kind and id.
	Changes []Change
}

// Touched calls visit once for every Dep that the changes touch.
func (b Batch) Touched(visit func(Dep)) {
	seen := make(map[Dep]struct{}, 4*len(b.Changes))
	once := func(d Dep) {
		if _, ok := seen[d]; ok {
			return
		}
		seen[d] = struct{}{}
		visit(d)
	}
	for _, c := range b.Changes {
		tableOf[c.Kind].touched(c.Before, c.After, once)
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
	seen    uint64               // the revision of the last batch
	pending map[objectKey]Object // what the reader saw last
}

// Follow starts a change feed. Its first batch has everything as created.
func (s *Store) Follow() *Follower {
	f := &Follower{
		s:       s,
		wake:    make(chan struct{}, 1),
		done:    make(chan struct{}),
		pending: map[objectKey]Object{},
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
	f.started, f.seen, f.pending = true, view.revision, map[objectKey]Object{}
	f.s.mu.Unlock()
	if first {
		return Batch{View: view, Changes: view.everything()}, true
	}
	changes := make([]Change, 0, len(pending))
	for k, before := range pending {
		after := view.object(k.kind, k.id)
		if before != after {
			changes = append(changes, Change{k.kind, k.id, before, after})
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
		if _, ok := f.pending[k]; !ok {
			f.pending[k] = c.Before
		}
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
