package network

import (
	"cmp"
	"fmt"
	"slices"
	"sync"
	"time"
)

// history has the last views. They share what did not change between them.
type history struct {
	most int
	age  time.Duration

	mu    sync.Mutex
	views []datedView // by revision
}

// datedView is a view with when it came.
type datedView struct {
	*View
	at time.Time
}

// add keeps views, the newest last, and drops those that are too many or too old.
func (h *history) add(now time.Time, views []*View) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, v := range views {
		// What was there is read again, or a backup was restored.
		for n := len(h.views) - 1; n >= 0 && h.views[n].revision >= v.revision; n-- {
			h.views[n] = datedView{}
			h.views = h.views[:n]
		}
		h.views = append(h.views, datedView{v, now})
	}
	h.drop(len(h.views) - max(h.most, 1))
	h.dropOld(now)
}

// expire drops what is too old.
func (h *history) expire(now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.dropOld(now)
}

// dropOld leaves the newest view, which is in memory anyway.
func (h *history) dropOld(now time.Time) {
	old := 0
	for old < len(h.views)-1 && now.Sub(h.views[old].at) > h.age {
		old++
	}
	h.drop(old)
}

// drop forgets the n oldest views.
func (h *history) drop(n int) {
	if n <= 0 {
		return
	}
	clear(h.views[:n]) // the array goes only when it is full
	h.views = h.views[n:]
}

// at is the view at a revision; without it, below and above are the kept
// revisions beside it, 0 for none.
func (h *history) at(revision uint64) (v *View, below, above uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	i, found := slices.BinarySearchFunc(h.views, revision, func(d datedView, r uint64) int {
		return cmp.Compare(d.revision, r)
	})
	if found {
		return h.views[i].View, revision, revision
	}
	if i > 0 {
		below = h.views[i-1].revision
	}
	if i < len(h.views) {
		above = h.views[i].revision
	}
	return nil, below, above
}

// oldest is the first kept revision.
func (h *history) oldest() uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.views[0].revision
}

// Oldest is the first revision that ViewAt has; it has most of those since.
func (s *Store) Oldest() uint64 { return s.history.oldest() }

// ViewAt is the model as it was at a revision. It fails with an Error that says
// which revisions are kept: the last ones, without those that this program
// learnt of together with later ones.
func (s *Store) ViewAt(revision uint64) (*View, error) {
	v, below, above := s.history.at(revision)
	if v != nil {
		return v, nil
	}
	oldest, newest := s.history.oldest(), s.View().Revision()
	kept := fmt.Sprintf("the model is kept as it was at revisions %d to %d", oldest, newest)
	switch {
	case revision > newest:
		return nil, Errorf(NotFound, "RevisionNotFound", "revision %d is not there yet: %s", revision, kept)
	case below == 0:
		return nil, Errorf(NotFound, "RevisionNotFound", "revision %d is not kept: %s", revision, kept)
	}
	return nil, Errorf(NotFound, "RevisionNotFound",
		"revision %d is not kept, it came together with later ones: %s, and the nearest are %d and %d", revision, kept, below, above)
}
