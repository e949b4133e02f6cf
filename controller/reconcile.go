package controller

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"planck/flows"
	"planck/network"
	"planck/pipeline"
)

// Why a switch is read as a whole.
const (
	readConnect  = "connect"
	readAudit    = "audit"
	readUnknown  = "unknown"
	readRestored = "restored" // the operator's flows were put back
)

// Pauses before a switch is read again after its state became unknown.
const (
	minBackoff = 500 * time.Millisecond
	maxBackoff = 30 * time.Second
)

// errReassigned ends a session when its datapath id has come to mean another bridge.
var errReassigned = errors.New("datapath id belongs to another bridge now")

// reconciler makes one connected switch equal to what is desired of its bridge.
// It is level-triggered: a pass looks at what is dirty and compares.
type reconciler struct {
	ctl     *Controller
	target  *target
	session *session
	log     *slog.Logger

	// mu makes "look up, note in the mirror, queue" one step for the flows that
	// responders install, so that a pass sees each of them entirely or not at all.
	mu     sync.Mutex
	mirror *flows.Set // what the switch has, without the flows of others
	// installed collects the permitted flows that are queued while a pass or a
	// read is under way: whether those came first is not known.
	installed map[flows.Key]*flows.Flow
	foreign   int
	// unsettled is what the model changed of what was sent without an answer.
	unsettled *flows.Dirty
	// held are the keys of the flows of others at the last read: they stay, and
	// ours of the same table, priority and match gives way.
	held map[flows.Key]struct{}
}

func newReconciler(c *Controller, t *target, s *session) *reconciler {
	return &reconciler{
		ctl: c, target: t, session: s, mirror: flows.NewSet(), installed: make(map[flows.Key]*flows.Flow),
		log: s.log.With("host", t.name.Host, "bridge", t.name.Bridge),
	}
}

// run keeps the switch right until the session ends.
func (r *reconciler) run(ctx context.Context) error {
	cause, backoff := readConnect, minBackoff
	audit := time.NewTimer(r.ctl.auditDelay())
	defer audit.Stop()
	for {
		err := r.turn(ctx, cause)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if errors.Is(err, errHandedOver) {
			return err
		}
		if err != nil {
			r.target.fail(err)
			r.log.Warn("state of the switch is not known, reading it again", "error", err)
			if err := pause(ctx, backoff); err != nil {
				return err
			}
			cause, backoff = readUnknown, min(2*backoff, maxBackoff)
			continue
		}
		cause, backoff = "", minBackoff
		r.ctl.tracker.applied(r.target.name.Host)
		r.ctl.opt.Cluster.Progressed()
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-r.target.gone:
			return errReassigned
		case <-r.target.kick:
			cause = r.target.reading()
		case <-audit.C:
			cause = readAudit
			audit.Reset(r.ctl.auditDelay())
		}
	}
}

// pause waits; it fails when ctx ends first.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}

// auditDelay is the audit interval with a jitter of a fifth, so that switches
// that came together are not read together.
func (c *Controller) auditDelay() time.Duration {
	d := c.opt.AuditInterval
	return d - d/10 + time.Duration(rand.Int64N(int64(d/5)+1))
}

// turn is a pass, which waits for others when it is over a whole switch. An
// audit does not: what is dirty must not wait with it, and it comes again.
func (r *reconciler) turn(ctx context.Context, cause string) error {
	switch cause {
	case "":
		return r.pass(cause)
	case readAudit:
		if !r.ctl.mastered(r.session) {
			return errHandedOver
		}
		select {
		case r.ctl.comparing <- struct{}{}:
		default:
			return r.pass("")
		}
	default:
		select {
		case r.ctl.comparing <- struct{}{}:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	defer func() { <-r.ctl.comparing }()
	return r.pass(cause)
}

// pass compares and sends: everything when there is a cause to read the switch,
// otherwise what is dirty.
func (r *reconciler) pass(cause string) error {
	if cause != "" {
		if err := r.read(cause); err != nil {
			return err
		}
	}
	r.ctl.applying.RLock()
	dirty := r.target.take()
	why := r.changedSince(dirty)
	if cause != "" {
		dirty = &flows.Dirty{All: true}
	}
	delta, revision := r.compare(dirty)
	r.ctl.applying.RUnlock()
	if dirty == nil {
		return nil
	}
	began, first := time.Now(), r.target.sending()
	refused, err := r.push(&delta, revision)
	r.rememberSent(cause, why, &delta, refused, revision, err)
	if err != nil {
		r.unsettled = why
		return err
	}
	r.unsettled = nil
	if tracer := r.ctl.opt.Tracer; tracer != nil && first != 0 && !delta.Empty() {
		tracer.Applied(r.target.name.Host, r.target.name.Bridge, first-1, revision, began, delta.Len())
	}
	r.finish(dirty, &delta, refused, revision)
	if cause == readConnect {
		r.log.Info("switch is up to date", "revision", revision, "messages", delta.Len(), "foreign_flows", r.foreign)
	}
	return nil
}

// changedSince adds what is dirty to what is unsettled.
func (r *reconciler) changedSince(dirty *flows.Dirty) *flows.Dirty {
	if r.unsettled == nil {
		return dirty
	}
	r.unsettled.Merge(dirty)
	return r.unsettled
}

// compare finds the difference and begins to collect what responders install meanwhile.
func (r *reconciler) compare(dirty *flows.Dirty) (delta flows.Delta, revision uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	clear(r.installed)
	r.ctl.opt.Compiler.Read(r.target.name, func(s pipeline.State) {
		revision = s.Revision
		if dirty == nil {
			return
		}
		delta = flows.Diff(s.Desired, r.mirror, s.Permitted, dirty, leaveAlone)
	})
	return delta, revision
}

// leaveAlone reports whether a flow of ours that is neither desired nor
// permitted by the model may stay: the canary, and drops that expire soon.
func leaveAlone(f *flows.Flow) bool {
	if pipeline.IsCanary(f) {
		return f.Key() == canaryKey
	}
	c := pipeline.Cookie(f.Cookie)
	if !c.Ours() || c.Flags()&pipeline.FlagPuntDrop == 0 {
		return false
	}
	drop, ok := pipeline.PuntDrop(c.Feature(), c.Object())
	return ok && drop == *f
}

var canaryKey = func() flows.Key { f := pipeline.CanaryFlow(0); return f.Key() }()

// push sends a delta: meters first, then the bundle, then the meters that go.
func (r *reconciler) push(d *flows.Delta, revision uint64) ([]refusedItem, error) {
	if d.Empty() {
		return nil, nil
	}
	r.log.Debug("sending the difference", "revision", revision, "messages", d.Len())
	refused := r.giveWay(d)
	before, bundled, after := items(d, revision)
	more, err := r.session.pushMeters(before)
	if err != nil {
		return nil, r.unknown("meters", err)
	}
	refused = append(refused, more...)
	more, err = r.session.pushBundles(bundled)
	if err != nil {
		return nil, r.unknown("bundle", err)
	}
	refused = append(refused, more...)
	more, err = r.session.pushMeters(after)
	if err != nil {
		return nil, r.unknown("meters", err)
	}
	return append(refused, more...), nil
}

var errHeld = errors.New("the operator has a flow with the same table, priority and match")

// giveWay takes out of a delta what would replace flows of the operator. It
// returns them as refused, except those that stand for no port and no network:
// what becomes of the rest of the traffic is the operator's choice.
func (r *reconciler) giveWay(d *flows.Delta) []refusedItem {
	var refused []refusedItem
	d.FlowAdds = slices.DeleteFunc(d.FlowAdds, func(f *flows.Flow) bool {
		_, held := r.held[f.Key()]
		if held && pipeline.Cookie(f.Cookie).Flags()&pipeline.FlagHost == 0 {
			refused = append(refused, refusedItem{item: item{command: uint16(flows.FlowAdd), flow: f}, err: errHeld})
		}
		return held
	})
	return refused
}

func (r *reconciler) unknown(what string, err error) error {
	if errors.Is(err, errNoReply) {
		r.ctl.metrics.bundleUnknown.Inc()
	}
	return fmt.Errorf("%s: %w", what, err)
}

// finish notes in the mirror what the switch has now, and what it refused.
func (r *reconciler) finish(dirty *flows.Dirty, d *flows.Delta, refused []refusedItem, revision uint64) {
	r.report(refused, revision)
	r.mu.Lock()
	before := r.remember(refused)
	d.Apply(r.mirror)
	r.restore(refused, before)
	r.mergeInstalled(d)
	counts := bridgeCounts{flows: len(r.mirror.Flows), groups: len(r.mirror.Groups), meters: len(r.mirror.Meters), foreign: r.foreign}
	r.mu.Unlock()

	cookies := r.target.noteRefused(dirty, refused)
	r.target.settle(revision, counts)
	r.ctl.tracker.refusals(r.target.name.Host, cookies)
}

// mergeInstalled notes what responders installed while a delta was on its way.
// Where the delta deletes the same key it is not known which came first: as if
// the flow was there, since deleting what is not there does no harm. Where it
// adds another flow, the mirror gets one that equals none, so that the next pass
// replaces or deletes it: the key is dirty, since it was desired and is permitted now.
func (r *reconciler) mergeInstalled(d *flows.Delta) {
	for _, f := range r.installed {
		r.mirror.AddFlow(f)
	}
	for _, f := range d.FlowAdds {
		if in := r.installed[f.Key()]; in != nil {
			either := *in
			either.Cookie = ^in.Cookie
			r.mirror.AddFlow(&either)
		}
	}
}

// remember is what the mirror has under the keys of refused items.
func (r *reconciler) remember(refused []refusedItem) *flows.Set {
	before := flows.NewSet()
	for _, i := range refused {
		switch {
		case i.flow != nil:
			keep(before.Flows, r.mirror.Flows, i.flow.Key())
		case i.group != nil:
			keep(before.Groups, r.mirror.Groups, i.group.ID)
		default:
			keep(before.Meters, r.mirror.Meters, i.meter.ID)
		}
	}
	return before
}

func keep[K comparable, V any](to, from map[K]V, key K) {
	if v, ok := from[key]; ok {
		to[key] = v
	}
}

// restore takes refused items out of the mirror and puts back what was there.
func (r *reconciler) restore(refused []refusedItem, before *flows.Set) {
	for _, i := range refused {
		switch {
		case i.flow != nil:
			delete(r.mirror.Flows, i.flow.Key())
		case i.group != nil:
			delete(r.mirror.Groups, i.group.ID)
		default:
			delete(r.mirror.Meters, i.meter.ID)
		}
	}
	maps.Copy(r.mirror.Flows, before.Flows)
	maps.Copy(r.mirror.Groups, before.Groups)
	maps.Copy(r.mirror.Meters, before.Meters)
}

// maxRefusedLogs is how many refused messages of one pass are logged.
const maxRefusedLogs = 10

// report logs and counts what was refused.
func (r *reconciler) report(refused []refusedItem, revision uint64) {
	if len(refused) == 0 {
		return
	}
	r.ctl.metrics.refused.Add(float64(len(refused)))
	r.target.fail(fmt.Errorf("%d messages refused, the first: %s: %w", len(refused), &refused[0].item, refused[0].err))
	view := r.ctl.view.Load()
	for i := range refused[:min(len(refused), maxRefusedLogs)] {
		it := &refused[i]
		attrs := []any{"revision", revision, "message", it.String(), "error", it.err}
		if it.flow != nil {
			res := resourceOf(view, pipeline.Cookie(it.flow.Cookie))
			attrs = append(attrs, "table", pipeline.TableName(r.target.name.Bridge, it.flow.Table), "resource", res.Kind+" "+res.ID)
		}
		r.log.Error("switch refused a message", attrs...)
	}
	if more := len(refused) - maxRefusedLogs; more > 0 {
		r.log.Error("switch refused more messages", "revision", revision, "count", more)
	}
}

// items turns a delta into messages: meters that come, the bundle in its order,
// meters that go.
func items(d *flows.Delta, revision uint64) (before, bundled, after []item) {
	for _, m := range d.MeterAdds {
		before = append(before, item{command: flows.CommandAdd, meter: m})
	}
	for _, m := range d.MeterMods {
		before = append(before, item{command: flows.CommandModify, meter: m})
	}
	bundled = make([]item, 0, d.Len()+1)
	for _, g := range d.GroupAdds {
		bundled = append(bundled, item{command: flows.CommandAdd, group: g})
	}
	for _, g := range d.GroupMods {
		bundled = append(bundled, item{command: flows.CommandModify, group: g})
	}
	for _, f := range d.FlowAdds {
		bundled = append(bundled, item{command: uint16(flows.FlowAdd), flow: f})
	}
	for _, f := range d.FlowDeletes {
		bundled = append(bundled, item{command: uint16(flows.FlowDeleteStrict), flow: f})
	}
	for _, id := range d.GroupDeletes {
		bundled = append(bundled, item{command: flows.CommandDelete, group: &flows.Group{ID: id}})
	}
	if len(bundled) > 0 {
		canary := pipeline.CanaryFlow(revision)
		bundled = append(bundled, item{command: uint16(flows.FlowAdd), flow: &canary})
	}
	for _, id := range d.MeterDeletes {
		after = append(after, item{command: flows.CommandDelete, meter: &flows.Meter{ID: id}})
	}
	return before, bundled, after
}

// install sends a permitted flow for a responder, as the compiler has it now.
// It reports whether the model permits the flow.
func (r *reconciler) install(key flows.Key) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	var flow *flows.Flow
	r.ctl.opt.Compiler.Read(r.target.name, func(s pipeline.State) {
		if s.Desired.Flows[key] == nil {
			flow = s.Permitted.Flows[key]
		}
	})
	if flow == nil {
		return false
	}
	if r.session.sendFlow(flow, modsPermitted) {
		r.mirror.Flows[key] = flow
		r.installed[key] = flow
	}
	return true
}

// silence sends the drop flow for a port that punts too much.
func (r *reconciler) silence(feature pipeline.FeatureID, portKey uint32) {
	drop, ok := pipeline.PuntDrop(feature, portKey)
	if !ok {
		return
	}
	r.session.sendFlow(&drop, modsPuntDrop)
	if v := r.ctl.view.Load(); r.target.noteSilence(portKey, feature, time.Now()) && v != nil {
		id := ""
		if p := v.PortByKey(portKey); p != nil {
			id = p.ID
		}
		r.log.Warn("a port sends more than the controller takes from one, its packets are dropped for a second at a time",
			"port_id", id, "feature", pipeline.FeatureName(feature))
	}
}

// mapped reports whether the bridge is the operator's: flows of others stay there.
func (r *reconciler) mapped() bool {
	return isMapped(r.target.name.Bridge)
}

func isMapped(bridge string) bool {
	return bridge != network.BridgeIntegration && bridge != network.BridgeTunnel
}
