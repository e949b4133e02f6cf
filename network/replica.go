package network

import (
	"context"
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"
)

// load fills the replica for the first time.
func (s *Store) load(ctx context.Context) error {
	s.view.Store(&View{trees: newTrees()})
	tx, err := s.db.begin(ctx, false)
	if err != nil {
		return err
	}
	defer tx.end()
	return s.readAll(ctx, tx)
}

// revisionSeen is called, by one goroutine, when another program may have
// written; 0 says that something may have been missed.
func (s *Store) revisionSeen(revision uint64) {
	if revision == 0 {
		revision = math.MaxUint64
	}
	if revision <= s.View().Revision() {
		return
	}
	s.heard.Store(max(revision, s.heard.Load()))
	select {
	case s.poke <- struct{}{}:
	default:
	}
}

// catchUpWithHeard reads what others wrote. This program hears of its own
// revisions too, maybe before they are published here: they cost nothing.
func (s *Store) catchUpWithHeard() {
	if s.heard.Swap(0) > s.View().Revision() {
		s.catchUp()
	}
}

// catchUp brings the replica to what the database has. A database that did not
// take a change is out of order until it takes one: that it can be read proves
// nothing.
func (s *Store) catchUp() {
	err := s.tryCatchUp()
	if err == nil && s.trouble.Load() != nil {
		err = s.tryWrite()
	}
	s.noteTrouble(err)
	if err != nil {
		s.refuseQueued()
	}
}

func (s *Store) tryWrite() error {
	ctx, cancel := context.WithTimeout(context.Background(), batchTimeout)
	defer cancel()
	return s.db.tryWrite(ctx)
}

func (s *Store) tryCatchUp() error {
	ctx, cancel := context.WithTimeout(context.Background(), batchTimeout)
	defer cancel()
	revision, err := s.db.currentRevision(ctx)
	if err != nil || revision == s.View().Revision() {
		return err
	}
	tx, err := s.db.begin(ctx, false)
	if err != nil {
		return err
	}
	defer tx.end()
	return s.follow(ctx, tx)
}

// reload reads everything again.
func (s *Store) reload() error {
	ctx, cancel := context.WithTimeout(context.Background(), batchTimeout)
	defer cancel()
	tx, err := s.db.begin(ctx, false)
	if err != nil {
		return err
	}
	defer tx.end()
	return s.readAll(ctx, tx)
}

// follow applies what other programs wrote since.
func (s *Store) follow(ctx context.Context, tx *dbTx) error {
	revision := s.View().Revision()
	if tx.revision == revision {
		return nil
	}
	written, complete, err := tx.changesSince(ctx, revision)
	if err != nil {
		return fmt.Errorf("read the change log: %w", err)
	}
	wasBehind := s.behind()
	if err := s.readProgress(ctx, tx); err != nil {
		return err
	}
	if !complete || s.behind() != wasBehind {
		return s.readAll(ctx, tx)
	}
	keys := slices.Collect(maps.Keys(written))
	objects, err := tx.objects(ctx, keys)
	if err != nil {
		return fmt.Errorf("read changed objects: %w", err)
	}
	var claims []Claim
	if s.behind() {
		if claims, err = tx.claimsOf(ctx, keys); err != nil {
			return fmt.Errorf("read claims: %w", err)
		}
	}
	s.apply(keys, objects, claims, tx.revision, written)
	return nil
}

// readProgress reads what the table meta says, and whether it still serves this
// program.
func (s *Store) readProgress(ctx context.Context, tx *dbTx) error {
	cursors, state, err := tx.progress(ctx)
	if err != nil {
		return fmt.Errorf("read cursors: %w", err)
	}
	if err := state.serves(s.known.version()); err != nil {
		s.leave()
		return err
	}
	s.state, s.alloc.cursors = state, cursors
	clear(s.alloc.moved)
	return nil
}

func (s *Store) readAll(ctx context.Context, tx *dbTx) error {
	objects, err := tx.allObjects(ctx)
	if err != nil {
		return fmt.Errorf("read objects: %w", err)
	}
	if err := s.readProgress(ctx, tx); err != nil {
		return err
	}
	var claims []Claim
	if s.behind() {
		if claims, err = tx.allClaims(ctx); err != nil {
			return fmt.Errorf("read claims: %w", err)
		}
	}
	keys := make([]objectKey, 0, len(objects))
	for _, c := range s.View().everything() {
		keys = append(keys, objectKey{c.Kind, c.ID})
	}
	for _, o := range objects {
		keys = append(keys, objectKey{o.ObjectKind(), o.ObjectID()})
	}
	for k := range s.foreign {
		keys = append(keys, k)
	}
	s.apply(keys, objects, claims, tx.revision, nil)
	return nil
}

// apply makes the replica hold objects under keys, and nothing for the keys
// that have no object, and publishes that. Claims are all that keys have; it is
// nil when they are those that follow from the objects. written has the revisions
// that changed the keys, nil when that is not known.
func (s *Store) apply(keys []objectKey, objects []Object, claims []Claim, revision uint64, written map[objectKey][]uint64) {
	view := s.View()
	now := view.trees.fork()
	after := make(map[objectKey]Object, len(objects))
	for _, o := range objects {
		after[objectKey{o.ObjectKind(), o.ObjectID()}] = o
	}
	// All claims go before any comes: one may have changed hands.
	changes := make([]Change, 0, len(keys))
	seen := make(map[objectKey]bool, len(keys))
	for _, k := range keys {
		if seen[k] {
			continue
		}
		seen[k] = true
		s.dropForeign(now, k)
		if tableOf[k.kind] == nil {
			continue
		}
		c := Change{k.kind, k.id, view.object(k.kind, k.id), after[k], written[k]}
		if reflect.DeepEqual(c.Before, c.After) {
			continue
		}
		changes = append(changes, c)
		if c.Before != nil {
			for _, claim := range claimsOf(c.Before) {
				now.deleteClaim(claim)
			}
		}
	}
	for _, c := range changes {
		now.replace(c.Kind, c.Before, c.After)
		if c.After == nil {
			continue
		}
		for _, claim := range claimsOf(c.After) {
			now.setClaim(claim)
		}
	}
	s.addForeign(now, claims)
	clear(s.alloc.full)
	now.seal()
	s.publish([]*View{{trees: now, revision: revision}}, changes)
}
