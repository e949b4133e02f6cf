package ovsdb

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"
)

const (
	// flowsTimeout bounds one attempt to read or put back the flows of a bridge:
	// the switch may first have to dial the OpenFlow port.
	flowsTimeout = 10 * time.Second
	// flowsRetry is the pause after a failed attempt; it doubles up to
	// maxFlowsRetry.
	flowsRetry    = time.Second
	maxFlowsRetry = 30 * time.Second
	// maxForeignFlows bounds the text that is kept in the database of a host.
	maxForeignFlows = 16 << 20
)

// takeovers does the part of taking over mapped bridges that needs OpenFlow,
// beside the loop of the connection, which it pokes when something is done.
type takeovers struct {
	read    func(ctx context.Context, datapathID uint64) (string, error)
	restore func(ctx context.Context, datapathID uint64, flows string) error
	poke    func()

	mu       sync.Mutex
	running  map[string]bool // by bridge, as all of these
	foreign  map[string]string
	restored map[string]bool
	problems map[string]string
	retry    map[string]time.Duration // the last pause
	wg       sync.WaitGroup
}

func newTakeovers(o *Options, poke func()) *takeovers {
	return &takeovers{
		read: o.ForeignFlows, restore: o.RestoreFlows, poke: poke,
		running: map[string]bool{}, foreign: map[string]string{}, restored: map[string]bool{}, problems: map[string]string{},
		retry: map[string]time.Duration{},
	}
}

// possible says whether flows can be kept across a takeover.
func (t *takeovers) possible() bool { return t.read != nil && t.restore != nil }

// fill gives a contract what was read and put back so far.
func (t *takeovers) fill(c *contract) {
	t.mu.Lock()
	defer t.mu.Unlock()
	c.preserve = t.possible()
	c.foreign, c.restored = maps.Clone(t.foreign), maps.Clone(t.restored)
}

// look starts what the mapped bridges need next, and drops what they don't
// need any more.
func (t *takeovers) look(ctx context.Context, c *contract, s *snapshot) {
	if !t.possible() {
		return
	}
	mapped := c.mapped()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.dropOthers(mapped)
	for _, name := range mapped {
		b := s.bridges[name]
		id, ok := datapath(b)
		if !ok {
			continue
		}
		dpid, _ := strconv.ParseUint(id, 16, 64)
		flows := b.ExternalIDs[keyPendingFlows]
		_, read := t.foreign[name]
		switch {
		case !c.controlled(b) && !read && len(c.marked(b, markService)) > 0:
			t.start(ctx, name, func(ctx context.Context) error { return t.readFlows(ctx, name, dpid) })
		case c.controlled(b) && flows != "" && !t.restored[name] && s.root.CurCfg >= s.root.NextCfg:
			t.start(ctx, name, func(ctx context.Context) error { return t.restoreFlows(ctx, name, dpid, flows) })
		case c.controlled(b) && flows == "":
			t.drop(name)
		}
	}
}

// dropOthers forgets bridges that are mapped no more. t.mu is held.
func (t *takeovers) dropOthers(mapped []string) {
	for _, name := range slices.Concat(slices.Collect(maps.Keys(t.foreign)), slices.Collect(maps.Keys(t.restored)), slices.Collect(maps.Keys(t.problems))) {
		if !slices.Contains(mapped, name) {
			t.drop(name)
		}
	}
}

func (t *takeovers) drop(name string) {
	delete(t.foreign, name)
	delete(t.restored, name)
	delete(t.problems, name)
	delete(t.retry, name)
}

// start runs work for a bridge, unless some is under way. t.mu is held.
func (t *takeovers) start(ctx context.Context, name string, work func(context.Context) error) {
	if t.running[name] {
		return
	}
	t.running[name] = true
	t.wg.Go(func() {
		t.attempt(ctx, name, work)
		t.poke()
	})
}

func (t *takeovers) readFlows(ctx context.Context, name string, dpid uint64) error {
	flows, err := t.read(ctx, dpid)
	if err != nil {
		return fmt.Errorf("its flows can't be read over OpenFlow, so it is left as it is: %w", err)
	}
	if len(flows) > maxForeignFlows {
		return fmt.Errorf("its flows are %d bytes, more than can be kept (%d), so it is left as it is", len(flows), maxForeignFlows)
	}
	t.mu.Lock()
	t.foreign[name] = flows
	t.mu.Unlock()
	return nil
}

func (t *takeovers) restoreFlows(ctx context.Context, name string, dpid uint64, flows string) error {
	if err := t.restore(ctx, dpid, flows); err != nil {
		return fmt.Errorf("its own flows are not back yet: %w", err)
	}
	t.mu.Lock()
	t.restored[name] = true
	t.mu.Unlock()
	return nil
}

// stale makes the flows be read again: they were not used at once.
func (t *takeovers) stale() {
	t.mu.Lock()
	defer t.mu.Unlock()
	clear(t.foreign)
}

func (t *takeovers) attempt(ctx context.Context, name string, work func(context.Context) error) {
	limited, cancel := context.WithTimeout(ctx, flowsTimeout)
	err := work(limited)
	cancel()
	if wait := t.outcome(name, err); wait > 0 {
		pause(ctx, wait)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.running, name)
}

// outcome notes how an attempt went, and how long to wait for the next.
func (t *takeovers) outcome(name string, err error) time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err == nil {
		delete(t.problems, name)
		delete(t.retry, name)
		return 0
	}
	t.problems[name] = fmt.Sprintf("%s: %v", name, err)
	t.retry[name] = min(max(2*t.retry[name], flowsRetry), maxFlowsRetry)
	return t.retry[name]
}

func (t *takeovers) current() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Sorted(maps.Values(t.problems))
}
