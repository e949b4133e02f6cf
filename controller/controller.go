package controller

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"planck/flows"
	"planck/network"
	"planck/pipeline"
)

// Store is what the controller needs of *network.Store.
type Store interface {
	View() *network.View
	Update(ctx context.Context, cause network.Cause, fn func(*network.Tx) error) (*network.View, error)
	Follow() *network.Follower
	MaxMTU(networkType string) int
	ViewAt(revision uint64) (*network.View, error)
	Oldest() uint64
	Logged(ctx context.Context, q network.LogQuery) ([]network.Logged, error)
}

// Compiler is what the controller needs of *pipeline.Compiler.
type Compiler interface {
	Apply(network.Batch) pipeline.Outcome
	Read(pipeline.Target, func(pipeline.State))
	Compile(v *network.View, host string) (map[string]pipeline.State, error)
}

// Tracer follows revisions on their way to the switches; from is the one before
// those that a step was for, and to the last of them.
type Tracer interface {
	Compiled(from, to uint64, began time.Time, units int)
	// Applied tells that a switch has acknowledged what changed, by a barrier.
	Applied(host, bridge string, from, to uint64, began time.Time, messages int)
}

// Options of a Controller. Store and Compiler must be set.
type Options struct {
	Store      Store
	Compiler   Compiler
	Responders []Responder
	// Listeners are where switches dial in. Run closes them.
	Listeners []net.Listener
	Logger    *slog.Logger          // default: slog.Default()
	Registry  prometheus.Registerer // nil: metrics are not registered
	// AuditInterval is how often a switch is read as a whole to find what was
	// changed behind the controller's back. Default 60 s.
	AuditInterval time.Duration
	// PuntRatePerPort limits the packets per second of one class that a port
	// may send to the controller; 0 is no limit.
	PuntRatePerPort float64
	// Cluster says which hosts this controller programs. Default: all.
	Cluster Cluster
	// Tracer is told how far revisions are; nil is nobody.
	Tracer Tracer
	// Generation is that of a controller without a Cluster, 1 at least.
	Generation uint64
	Timeouts   Timeouts
}

const (
	defaultAuditInterval = time.Minute
	// maxGreetings is how many connections may be in their handshake at once.
	maxGreetings = 1024
	// maxComparing is how many switches are read and compared as a whole at once:
	// when a whole cloud comes, what happens meanwhile must not wait for all of it,
	// least of all signs of life.
	maxComparing = 16
	// maxStandbys is how many further connections of one switch are kept.
	maxStandbys = 4
	// maxConflictLogs is how many conflicts of one compilation are logged.
	maxConflictLogs = 10
)

// errTooMany refuses a connection of a switch that has enough of them.
var errTooMany = errors.New("the switch has too many connections")

// Controller programs the switches.
type Controller struct {
	opt        Options
	log        *slog.Logger
	metrics    *metrics
	responders [256]Responder // by feature
	tracker    *tracker
	resolver   *resolver
	holders    *holders
	announcer  *announcer
	floatings  *floatings
	health     *health
	journal    *journal
	view       atomic.Pointer[network.View] // of the newest compilation
	greetings  chan struct{}
	reads      chan struct{} // held by callers of Flows
	verifies   chan struct{} // held by the caller of Verify
	comparing  chan struct{} // held by a pass over a whole switch
	pings      chan struct{} // held by the caller of Ping

	// applying is held for writing from a compilation until its outcome is
	// noted at the targets, so that a pass sees both or neither.
	applying sync.RWMutex

	mu       sync.RWMutex
	ready    bool // the store is caught up and everything is compiled
	hosts    map[string]map[string]*target
	byDPID   map[uint64][]*target
	changed  chan struct{}         // closed and made anew when ready or byDPID change
	sessions map[uint64][]*session // by datapath id; the first one is in use
	joined   chan struct{}         // closed and made anew when a session comes
}

// New returns a controller that Run starts.
func New(opt Options) *Controller {
	if opt.Logger == nil {
		opt.Logger = slog.Default()
	}
	if opt.AuditInterval <= 0 {
		opt.AuditInterval = defaultAuditInterval
	}
	if opt.Cluster == nil {
		opt.Cluster = alone(max(opt.Generation, 1))
	}
	c := &Controller{
		opt: opt, log: opt.Logger, metrics: newMetrics(opt.Registry),
		greetings: make(chan struct{}, maxGreetings), reads: make(chan struct{}, maxFlowReads), verifies: make(chan struct{}, 1), comparing: make(chan struct{}, maxComparing), pings: make(chan struct{}, 1),
		hosts: make(map[string]map[string]*target), byDPID: make(map[uint64][]*target),
		changed: make(chan struct{}), joined: make(chan struct{}), sessions: make(map[uint64][]*session),
	}
	c.countHosts(opt.Registry)
	for _, r := range opt.Responders {
		c.responders[r.Feature()] = r
	}
	c.tracker = newTracker(opt.Store, c, c.log, c.metrics)
	c.resolver = newResolver(c)
	c.holders = newHolders(c)
	c.announcer = newAnnouncer(c)
	c.floatings = newFloatings(c)
	c.health = newHealth(c)
	c.journal = newJournal()
	watchJournal(opt.Registry, c.journal)
	c.responders[c.resolver.Feature()] = c.resolver
	c.responders[c.holders.Feature()] = c.holders
	return c
}

// Watch tells the controller what hosts see of each other; without it, no host
// is judged. It is called before Run.
func (c *Controller) Watch(w Watch) { c.health.watch = w }

// Run programs switches until ctx ends (nil is returned then; the switches keep
// their flows), or until the store or a listener fails.
func (c *Controller) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return c.follow(ctx) })
	g.Go(func() error { return c.tracker.run(ctx) })
	for _, r := range c.opt.Responders {
		if active, ok := r.(Active); ok {
			g.Go(func() error { return active.Run(ctx, c) })
		}
	}
	g.Go(func() error { return c.resolver.run(ctx) })
	g.Go(func() error { return c.holders.run(ctx) })
	g.Go(func() error { return c.announcer.run(ctx) })
	g.Go(func() error { return c.floatings.run(ctx) })
	g.Go(func() error { return c.health.run(ctx) })
	g.Go(func() error { return c.watchCluster(ctx) })
	for _, l := range c.opt.Listeners {
		g.Go(func() error { return c.accept(ctx, l) })
		stop := context.AfterFunc(ctx, func() { l.Close() })
		defer stop()
	}
	return g.Wait()
}

// Ready is nil once the store is caught up and all flows are compiled.
func (c *Controller) Ready() error {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if !c.ready {
		return errors.New("the flows are not compiled yet")
	}
	return nil
}

// AwaitReady waits until Ready is nil. It fails when ctx ends first.
func (c *Controller) AwaitReady(ctx context.Context) error {
	for {
		c.mu.RLock()
		ready, changed := c.ready, c.changed
		c.mu.RUnlock()
		if ready {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// follow compiles what changes and marks it dirty at the targets.
func (c *Controller) follow(ctx context.Context) error {
	f := c.opt.Store.Follow()
	defer f.Close()
	for {
		batch, err := f.Next(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("following the store: %w", err)
		}
		start := time.Now()
		out := c.apply(batch)
		c.opt.Cluster.Progressed()
		c.tracker.note(batch, out)
		c.resolver.note(batch)
		c.announcer.note(batch)
		c.floatings.note(batch)
		if took := time.Since(start); took > gatherFrom {
			_ = pause(ctx, min(took, gatherMost)) // what ctx ends, Next tells
		}
	}
}

// A large change is seldom the last one. As long as one took to compile, so long
// others may gather, so that what they have in common is compiled and sent once.
const (
	gatherFrom = 10 * time.Millisecond
	gatherMost = 100 * time.Millisecond
)

func (c *Controller) apply(batch network.Batch) pipeline.Outcome {
	c.applying.Lock()
	defer c.applying.Unlock()
	start := time.Now()
	out := c.opt.Compiler.Apply(batch)
	c.metrics.apply.Observe(time.Since(start).Seconds())
	if before := c.view.Load(); c.opt.Tracer != nil && before != nil {
		c.opt.Tracer.Compiled(before.Revision(), out.Revision, start, out.Units)
	}
	c.metrics.units.Add(float64(out.Units))
	c.metrics.revision.Set(float64(out.Revision))
	c.metrics.conflicts.Set(float64(len(out.Errors)))
	for _, err := range out.Errors[:min(len(out.Errors), maxConflictLogs)] {
		c.log.Error("a feature of the pipelines is wrong", "revision", out.Revision, "error", err)
	}
	c.view.Store(batch.View)
	c.updateHosts(batch)
	c.mark(out, portHosts(batch))
	return out
}

// mark notes what is dirty at the targets, those of some hosts first.
func (c *Controller) mark(out pipeline.Outcome, first map[string]bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	for _, turn := range [...]bool{true, false} {
		for name, dirty := range out.Dirty {
			if t := c.hosts[name.Host][name.Bridge]; t != nil && first[name.Host] == turn {
				t.mark(dirty, out.Revision)
			}
		}
	}
}

// portHosts are the hosts of the ports that a batch changed: theirs is the
// longest way to ACTIVE.
func portHosts(b network.Batch) map[string]bool {
	hosts := make(map[string]bool)
	for _, ch := range b.Changes {
		switch after := ch.After.(type) {
		case *network.Port:
			hosts[after.Binding.Host] = true
		case *network.VIF:
			hosts[after.Host] = true
		}
	}
	return hosts
}

// updateHosts keeps the targets equal to the bridges of the model.
func (c *Controller) updateHosts(batch network.Batch) {
	c.mu.Lock()
	defer c.mu.Unlock()
	changed := !c.ready
	c.ready = true
	for _, ch := range batch.Changes {
		if ch.Kind == network.KindHost {
			changed = c.updateHost(ch.ID, batch.View.Host(ch.ID)) || changed
			c.warnOfTunnelIP(batch.View, ch)
		}
	}
	if changed {
		tell(&c.changed)
	}
}

// warnOfTunnelIP logs that a host came to have the tunnel address of another.
func (c *Controller) warnOfTunnelIP(v *network.View, ch network.Change) {
	h, before := v.Host(ch.ID), netip.Addr{}
	if was, ok := ch.Before.(*network.Host); ok {
		before = was.TunnelIP
	}
	if h == nil || h.TunnelIP == before {
		return
	}
	if others := sharesTunnelIP(v, h); len(others) > 0 {
		c.log.Warn("host has a problem", "host", h.Name, "problem", sharedTunnelIP(h, others))
	}
}

// tell wakes those who wait on a channel, and replaces it.
func tell(waiting *chan struct{}) {
	close(*waiting)
	*waiting = make(chan struct{})
}

func (c *Controller) updateHost(name string, h *network.Host) bool {
	var bridges map[string]network.Bridge
	if h != nil {
		bridges = h.Bridges
	}
	changed := false
	for bridge, t := range c.hosts[name] {
		if b, ok := bridges[bridge]; !ok || b.DatapathID != t.dpid {
			c.dropTarget(t)
			changed = true
		}
	}
	for bridge, b := range bridges {
		if b.DatapathID == 0 || c.hosts[name][bridge] != nil {
			continue
		}
		c.addTarget(newTarget(pipeline.Target{Host: name, Bridge: bridge}, b.DatapathID))
		changed = true
	}
	return changed
}

func (c *Controller) addTarget(t *target) {
	host := c.hosts[t.name.Host]
	if host == nil {
		host = make(map[string]*target)
		c.hosts[t.name.Host] = host
	}
	host[t.name.Bridge] = t
	c.byDPID[t.dpid] = append(c.byDPID[t.dpid], t)
	if others := c.byDPID[t.dpid]; len(others) > 1 {
		c.log.Error("two bridges have the same datapath id: new connections of either wait", "datapath_id", dpidText(t.dpid),
			"host", t.name.Host, "bridge", t.name.Bridge, "other_host", others[0].name.Host, "other_bridge", others[0].name.Bridge)
	}
}

func (c *Controller) dropTarget(t *target) {
	close(t.gone)
	c.metrics.foreign.DeleteLabelValues(t.name.Host, t.name.Bridge)
	delete(c.hosts[t.name.Host], t.name.Bridge)
	if len(c.hosts[t.name.Host]) == 0 {
		delete(c.hosts, t.name.Host)
	}
	leave(c.byDPID, t.dpid, t)
}

// leave takes one out of the list of a datapath id. The list may be in use: it
// is made anew.
func leave[V comparable](lists map[uint64][]V, dpid uint64, one V) {
	left := slices.DeleteFunc(slices.Clone(lists[dpid]), func(o V) bool { return o == one })
	if len(left) == 0 {
		delete(lists, dpid)
		return
	}
	lists[dpid] = left
}

// dpidText is a datapath id as Open vSwitch writes it.
func dpidText(dpid uint64) string { return fmt.Sprintf("%016x", dpid) }

// accept serves the switches that dial in, until ctx ends.
func (c *Controller) accept(ctx context.Context, l net.Listener) error {
	var serving sync.WaitGroup
	defer serving.Wait()
	for {
		select {
		case c.greetings <- struct{}{}:
		case <-ctx.Done():
			return nil
		}
		conn, err := l.Accept()
		if ctx.Err() != nil {
			return nil
		}
		if errors.Is(err, net.ErrClosed) {
			return fmt.Errorf("OpenFlow listener %s: %w", l.Addr(), err)
		}
		if err != nil {
			// Most likely out of file descriptors, which passes.
			<-c.greetings
			c.log.Error("accepting an OpenFlow connection", "error", err)
			if err := pause(ctx, acceptPause); err != nil {
				return nil
			}
			continue
		}
		serving.Go(func() { c.serve(ctx, conn) })
	}
}

const acceptPause = 100 * time.Millisecond

// serve runs one connection to its end and says why it ended.
func (c *Controller) serve(ctx context.Context, conn net.Conn) {
	c.metrics.connections.Inc()
	defer c.metrics.connections.Dec()
	s := newSession(ctx, conn, c.opt.Timeouts, c.log, c.metrics)
	err := s.talk(func() { <-c.greetings }, func() error { return c.program(s) })
	c.leave(s)
	close(s.done)
	reason := closeReason(err)
	level := slog.LevelInfo
	switch {
	case reason == "garbage" || reason == "error":
		level = slog.LevelWarn
	case s.dpid == 0:
		level = slog.LevelDebug // it gave up before it said who it is
	}
	log := s.log
	if s.known != nil {
		log = s.known
	}
	log.Log(ctx, level, "OpenFlow connection ended", "datapath_id", dpidText(s.dpid), "reason", reason, "error", err)
	c.metrics.closed.WithLabelValues(reason).Inc()
}

// program waits until the switch is known, its flows are compiled and its host
// is this controller's, then keeps it right until that ends or the session does.
func (c *Controller) program(s *session) error {
	if err := c.becomeFirst(s); err != nil {
		return err
	}
	t, err := c.awaitTarget(s)
	if err != nil {
		return err
	}
	for {
		generation, err := c.awaitTurn(s, t)
		if err != nil {
			return err
		}
		switch err := c.master(s, t, generation); {
		case errors.Is(err, errHandedOver):
			s.known.Info("another controller programs the switch now")
		case errors.Is(err, errOutranked):
			if err := c.awaitNewer(s, t, generation, err); err != nil {
				return err
			}
		default:
			return err
		}
	}
}

// master keeps a switch right as its master, until the session ends or another
// controller has the role.
func (c *Controller) master(s *session, t *target, generation uint64) error {
	ctx, cancel := context.WithCancelCause(s.ctx)
	defer cancel(nil)
	r := newReconciler(c, t, s)
	s.known = r.log
	t.attach(s)
	c.metrics.sessions.Inc()
	defer c.metrics.sessions.Dec()
	defer c.tracker.wake()
	defer c.health.wake()
	defer t.detach()
	// As soon as the switch has this master, it sends its packets here.
	d := newDispatcher(ctx, r)
	s.dispatch.Store(d)
	defer s.dispatch.Store(nil)
	if err := c.answerBeside(ctx, s, d, generation); err != nil {
		return err
	}
	if err := s.takeRole(flows.RoleMaster, generation); err != nil {
		return err
	}
	var watching sync.WaitGroup
	defer watching.Wait()
	defer cancel(nil)
	watching.Go(func() { cancel(c.awaitHandOver(ctx, s, t, generation)) })
	r.log.Info("switch connected", "datapath_id", dpidText(s.dpid))
	return r.run(ctx)
}

// becomeFirst returns when s is the connection of its switch that is in use. An
// older one is asked for a sign of life, and ended when it gives none.
func (c *Controller) becomeFirst(s *session) error {
	told := false
	for {
		first, err := c.enter(s)
		if err != nil || first == s {
			return err
		}
		if !first.alive(s.ctx) {
			first.end(errReplaced)
		} else if !told {
			s.log.Info("switch has an older connection that lives, this one stands by", "datapath_id", dpidText(s.dpid))
			told = true
		}
		select {
		case <-first.done:
		case <-s.ctx.Done():
			return context.Cause(s.ctx)
		}
	}
}

// enter registers a session and returns the one of its switch that is in use.
func (c *Controller) enter(s *session) (*session, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := c.sessions[s.dpid]
	for _, o := range all {
		if o == s {
			return all[0], nil
		}
	}
	if len(all) > maxStandbys {
		return nil, errTooMany
	}
	c.sessions[s.dpid] = append(all, s)
	tell(&c.joined)
	return c.sessions[s.dpid][0], nil
}

func (c *Controller) leave(s *session) {
	c.mu.Lock()
	defer c.mu.Unlock()
	leave(c.sessions, s.dpid, s)
}

// awaitTarget returns the bridge that the switch is, once the model knows it.
func (c *Controller) awaitTarget(s *session) (*target, error) {
	told := false
	for {
		c.mu.RLock()
		ready, known, changed := c.ready, c.byDPID[s.dpid], c.changed
		c.mu.RUnlock()
		if ready && len(known) == 1 {
			return known[0], nil
		}
		if ready && !told {
			s.log.Info("switch is not known yet, it waits and gets nothing", "datapath_id", dpidText(s.dpid), "bridges", len(known))
			told = true
		}
		select {
		case <-changed:
		case <-s.ctx.Done():
			return nil, context.Cause(s.ctx)
		}
	}
}

// bridge is the target of a bridge, or nil.
func (c *Controller) bridge(host, bridge string) *target {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.hosts[host][bridge]
}

// hostHas implements hosts. Of the mapped bridges only that of the network's
// own physical network counts.
func (c *Controller) hostHas(h *network.Host, n *network.Network, revision uint64) bool {
	if !c.opt.Cluster.Owns(h.Name) {
		return c.opt.Cluster.Has(h.Name, revision)
	}
	for _, name := range bridgesFor(h, n) {
		if t := c.bridge(h.Name, name); t == nil || !t.has(revision) {
			return false
		}
	}
	return true
}

// hostLive implements hosts.
func (c *Controller) hostLive(name string) bool {
	t := c.bridge(name, network.BridgeIntegration)
	return t != nil && (t.connected() != nil || t.standby())
}

// programs reports whether this controller has br-int of a host under control.
func (c *Controller) programs(name string) bool {
	t := c.bridge(name, network.BridgeIntegration)
	return t != nil && t.connected() != nil
}

// owns implements hosts.
func (c *Controller) owns(name string) bool { return c.opt.Cluster.Owns(name) }

// reports implements hosts.
func (c *Controller) reports(name string) bool {
	return c.health.watch == nil || c.health.watch.Connected(name)
}

// silenced implements hosts.
func (c *Controller) silenced(host string, portKey uint32) *silence {
	if t := c.bridge(host, network.BridgeIntegration); t != nil {
		return t.silenceOf(portKey, time.Now())
	}
	return nil
}

// hostRefused implements hosts.
func (c *Controller) hostRefused(h *network.Host, n *network.Network, portKey uint32) error {
	for _, name := range bridgesFor(h, n) {
		if t := c.bridge(h.Name, name); t != nil {
			if err := t.refusalOf(portKey, n.Key); err != nil {
				return err
			}
		}
	}
	return nil
}

// bridgesFor are the bridges of a host that carry a network.
func bridgesFor(h *network.Host, n *network.Network) []string {
	names := []string{network.BridgeIntegration}
	other := ""
	n = n.On(h)
	switch {
	case n.Tunnelled():
		other = network.BridgeTunnel
	case n.Provider():
		other = h.BridgeMappings[n.PhysicalNetwork]
	}
	if _, ok := h.Bridges[other]; ok {
		names = append(names, other)
	}
	return names
}
