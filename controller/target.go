package controller

import (
	"fmt"
	"sync"
	"time"

	"planck/flows"
	"planck/pipeline"
)

// target is a bridge of the model, connected or not, and how far its switch is.
type target struct {
	name pipeline.Target
	dpid uint64
	gone chan struct{} // closed when the model no longer has the bridge under this datapath id

	mu      sync.Mutex
	kick    chan struct{} // has a value when there is something to look at
	session *session      // that programs the bridge; nil when it is not connected, or another's
	waiting *session      // that waits for its turn
	dirty   *flows.Dirty
	// The flows that changed at dirtyFrom and later are not sent yet; those of
	// sendingFrom are on their way. 0 for none.
	dirtyFrom   uint64
	sendingFrom uint64
	synced      bool   // compared as a whole since it connected
	reread      bool   // flows were put back there, which may have replaced ours
	applied     uint64 // revision that the last barrier acknowledged
	lastError   string
	lastErrorAt time.Time
	counts      bridgeCounts
	refused     map[refusedKey]refusedItem
	silences    map[uint32]silence // by port key
}

// silence is that a port sent more packets of a feature than the controller takes.
type silence struct {
	feature  pipeline.FeatureID
	at, told time.Time
}

const (
	// silenceMemory is how long a port counts as loud after its last silence,
	// silenceLog how often one is logged, maxSilences how many are kept.
	silenceMemory = time.Minute
	silenceLog    = time.Minute
	maxSilences   = 1024
)

// noteSilence notes that a port is silenced; it reports whether to say so.
func (t *target) noteSilence(portKey uint32, feature pipeline.FeatureID, now time.Time) (tell bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s, known := t.silences[portKey]
	if t.silences == nil || !known && len(t.silences) >= maxSilences {
		t.silences = map[uint32]silence{}
	}
	tell = now.Sub(s.told) >= silenceLog
	if tell {
		s.told = now
	}
	s.feature, s.at = feature, now
	t.silences[portKey] = s
	return tell
}

// silenceOf is the last silence of a port, nil when there was none of late.
func (t *target) silenceOf(portKey uint32, now time.Time) *silence {
	t.mu.Lock()
	defer t.mu.Unlock()
	if s, ok := t.silences[portKey]; ok && now.Sub(s.at) < silenceMemory {
		return &s
	}
	return nil
}

// bridgeCounts is what the reconciler knows of a switch after its last pass.
type bridgeCounts struct {
	flows, groups, meters, foreign int
}

func newTarget(name pipeline.Target, dpid uint64) *target {
	return &target{name: name, dpid: dpid, gone: make(chan struct{}), kick: make(chan struct{}, 1)}
}

func (t *target) wake() {
	select {
	case t.kick <- struct{}{}:
	default:
	}
}

// mark notes that desired flows changed at a revision. It keeps d.
func (t *target) mark(d *flows.Dirty, revision uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.session == nil {
		return // a connect compares everything
	}
	if t.dirty == nil {
		t.dirty = d
	} else {
		t.dirty.Merge(d)
	}
	if t.dirtyFrom == 0 {
		t.dirtyFrom = revision
	}
	t.wake()
}

// readAgain makes the switch be read: flows of others were put back there.
func (t *target) readAgain() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.reread = true
	t.wake()
}

// reading is why the switch is to be read now, "" when it is not.
func (t *target) reading() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.reread {
		return ""
	}
	t.reread = false
	return readRestored
}

// take hands over what is dirty; it counts as on its way until settle or fail.
func (t *target) take() *flows.Dirty {
	t.mu.Lock()
	defer t.mu.Unlock()
	d := t.dirty
	if t.sendingFrom == 0 {
		t.sendingFrom = t.dirtyFrom
	}
	t.dirty, t.dirtyFrom = nil, 0
	return d
}

// sending is the first revision that is on its way, 0 for none.
func (t *target) sending() uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.sendingFrom
}

// settle notes that the switch has acknowledged a revision.
func (t *target) settle(revision uint64, counts bridgeCounts) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sendingFrom, t.synced, t.applied, t.counts = 0, true, revision, counts
}

func (t *target) fail(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.lastError, t.lastErrorAt = err.Error(), time.Now()
}

func (t *target) attach(s *session) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.session, t.synced, t.reread, t.dirty, t.dirtyFrom, t.sendingFrom = s, false, false, nil, 0, 0
}

func (t *target) detach() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.session, t.synced = nil, false
}

// stand notes a session that waits until this controller may program the bridge.
func (t *target) stand(s *session) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.waiting = s
}

// step notes that it waits no more.
func (t *target) step(s *session) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.waiting == s {
		t.waiting = nil
	}
}

// standby reports whether the switch is connected, and another controller's.
func (t *target) standby() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.waiting != nil
}

// readable is the session by which the switch can be read, or nil.
func (t *target) readable() *session {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.session != nil {
		return t.session
	}
	return t.waiting
}

// lags tells the first revision of which the switch may lack something; 0 when
// nothing is known of it.
func (t *target) lags() (from uint64, lags bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.session == nil || !t.synced:
		return 0, true
	case t.sendingFrom != 0:
		return t.sendingFrom, true
	}
	return t.dirtyFrom, t.dirtyFrom != 0
}

// has reports whether the switch is known to have what changed up to a revision.
func (t *target) has(revision uint64) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	before := func(from uint64) bool { return from == 0 || revision < from }
	return t.session != nil && t.synced && before(t.dirtyFrom) && before(t.sendingFrom)
}

// connected is the session that programs the bridge, or nil.
func (t *target) connected() *session {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.session
}

// acknowledged is the revision that the last barrier acknowledged, 0 for none.
func (t *target) acknowledged() uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.applied
}

// revision is the newest revision that the switch is known to have, when the
// flows were last compiled from the revision current.
func (t *target) revision(current uint64) uint64 {
	if t.has(current) {
		return current
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.applied
}

// noteRefused replaces what is known about what a pass looked at: what was
// refused, and what was not. It returns the cookies for which that changed
// anything.
func (t *target) noteRefused(looked *flows.Dirty, refused []refusedItem) []pipeline.Cookie {
	t.mu.Lock()
	defer t.mu.Unlock()
	var changed []pipeline.Cookie
	for key, r := range t.refused {
		if key.in(looked) {
			delete(t.refused, key)
			changed = append(changed, r.cookie())
		}
	}
	if t.refused == nil && len(refused) > 0 {
		t.refused = make(map[refusedKey]refusedItem)
	}
	for _, r := range refused {
		t.refused[r.key()] = r
		changed = append(changed, r.cookie())
	}
	return changed
}

// refusalOf returns why something was refused that a port needs: what stands
// for the port, its network or the whole host. It is nil if nothing was.
func (t *target) refusalOf(portKey, networkKey uint32) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, r := range t.refused {
		if !concerns(r.cookie(), portKey, networkKey) {
			continue
		}
		what := r.String()
		if r.flow != nil {
			what = pipeline.TableName(t.name.Bridge, r.flow.Table)
		}
		return fmt.Errorf("%s %s: %w", t.name.Bridge, what, r.err)
	}
	return nil
}

func concerns(c pipeline.Cookie, portKey, networkKey uint32) bool {
	switch {
	case c.Feature() == pipeline.FeatureCanary:
		return false
	case c.Flags()&pipeline.FlagHost != 0 || c.Shared():
		return true
	case c.Flags()&pipeline.FlagNetwork != 0:
		return c.Object() == networkKey
	}
	return c.Object() == portKey
}
