package ovsdb

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/ovn-kubernetes/libovsdb/cache"
	"github.com/ovn-kubernetes/libovsdb/client"
	"github.com/ovn-kubernetes/libovsdb/model"
	"github.com/ovn-kubernetes/libovsdb/ovsdb"

	"planck/network"
	"planck/ovsdb/vswitch"
)

const (
	// handshakeTimeout is how long a switch may send nothing before the first rows.
	handshakeTimeout = 15 * time.Second
	// transactTimeout bounds a transaction.
	transactTimeout = 15 * time.Second
	// probeInterval is how often an idle connection is probed, and probeTimeout
	// how long it may send nothing then: a host that lost its power is noticed.
	probeInterval = 5 * time.Second
	probeTimeout  = 5 * time.Second
	// maxRetry bounds the pause after a transaction or a write that failed.
	maxRetry = 8 * time.Second
	// maxRounds is how many transactions in a row may find more to do before
	// they are slowed down: somebody else may want the opposite.
	maxRounds = 8
)

var (
	errSilent   = errors.New("no answer")
	errSchema   = errors.New("database does not fit")
	errReplaced = errors.New("the host has another connection")
)

// connection is the OVSDB connection of one switch.
type connection struct {
	s      *Server
	log    *slog.Logger
	remote net.Conn
	since  time.Time

	splice  *splice
	client  client.Client
	rows    *cache.TableCache
	changed chan struct{} // holds one token when the database may have changed
	stop    context.CancelCauseFunc
	ended   chan struct{} // closed at the very end

	host, systemID string // once it is known; guarded by Server.mu
	problems       []string

	takeovers *takeovers
	facts     facts
	rounds    int   // transactions since the host was last right
	setUp     retry // of transactions
	telling   retry // of writes into the model
}

// retry spaces out attempts after a failure.
type retry struct {
	pause     time.Duration
	notBefore time.Time
	why       string // the last failure; "" for none
}

// due says how long to wait for the next attempt; 0 or less: none.
func (r *retry) due() time.Duration { return time.Until(r.notBefore) }

func (r *retry) failed(err error) {
	r.pause = min(max(2*r.pause, 500*time.Millisecond), maxRetry)
	r.notBefore = time.Now().Add(r.pause)
	r.why = err.Error()
}

func (r *retry) succeeded() { *r = retry{} }

// run serves the connection until it ends, and says why it did.
func (c *connection) run(ctx context.Context, dir string, serial uint64) error {
	defer close(c.ended)
	var err error
	if c.splice, err = newSplice(c.remote, dir, serial, c.s.schemas); err != nil {
		c.remote.Close()
		return err
	}
	defer c.splice.close(nil)
	unwatch := context.AfterFunc(ctx, func() { c.splice.end(context.Cause(ctx)) })
	defer unwatch()
	gone, err := c.connect(ctx)
	if gone != nil {
		defer c.waitClient(gone)
	}
	if err == nil {
		err = c.serve(ctx)
	}
	// What ended the connection explains more than what failed because of it,
	// unless that is our own client.
	reason := c.splice.reason()
	if reason == nil || err != nil && errors.Is(reason, errClient) {
		return err
	}
	return reason
}

// waitClient waits for the goroutines of libovsdb, which end with the splice.
func (c *connection) waitClient(gone <-chan struct{}) {
	c.splice.close(nil)
	select {
	case <-gone:
	case <-time.After(probeTimeout):
		c.log.Warn("the OVSDB client did not end in time")
	}
}

// connect makes libovsdb's client and fills its cache. The channel, when there
// is one, is closed when the client has ended.
func (c *connection) connect(life context.Context) (gone <-chan struct{}, err error) {
	ctx, cancel := c.splice.attentive(life, handshakeTimeout)
	defer cancel()
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%w: libovsdb: %v", errGarbage, r)
		}
	}()
	tables, err := vswitch.FullDatabaseModel()
	if err != nil {
		return nil, err
	}
	c.client, err = client.NewOVSDBClient(tables, client.WithEndpoint(c.splice.endpoint()))
	if err != nil {
		return nil, err
	}
	if err := c.client.Connect(ctx); err != nil {
		return nil, c.explain(ctx, err)
	}
	ended := make(chan struct{})
	go func() {
		<-c.client.DisconnectNotify()
		close(ended)
	}()
	c.splice.trust()
	// The client drops its cache when it is disconnected.
	if c.rows = c.client.Cache(); c.rows == nil {
		return ended, client.ErrNotConnected
	}
	c.rows.AddEventHandler(c)
	monitor := c.client.NewMonitor(monitored()...)
	// Here, since it has shown that it is a database: whoever says nothing must not
	// take turns from others.
	select {
	case c.s.joining <- struct{}{}:
		defer func() { <-c.s.joining }()
	case <-c.splice.done:
	case <-life.Done():
	}
	ctx, cancelRows := c.splice.attentive(life, handshakeTimeout)
	defer cancelRows()
	if ctx.Err() != nil {
		c.client.Close()
		return ended, c.explain(ctx, ctx.Err())
	}
	if err := c.splice.blank(); err != nil {
		return ended, err
	}
	// libovsdb looks at the reply of a call that is given up, while its reader may
	// be writing it: it loses its connection instead.
	unwatch := context.AfterFunc(ctx, func() {
		c.splice.release()
		if life.Err() == nil {
			c.splice.end(fmt.Errorf("%w within %v", errSilent, handshakeTimeout))
		}
	})
	defer unwatch()
	_, err = c.client.Monitor(context.WithoutCancel(ctx), monitor)
	c.splice.release()
	return ended, c.explain(ctx, err)
}

// explain says what an error of libovsdb during the handshake means. What
// libovsdb refuses comes first: it hangs up then, which ends the context too.
func (c *connection) explain(ctx context.Context, err error) error {
	switch {
	case err == nil:
		return nil
	case strings.Contains(err.Error(), "validation error"), strings.Contains(err.Error(), "target database"):
		return fmt.Errorf("%w: Open vSwitch 2.12 or later is needed: %w", errSchema, err)
	case ctx.Err() != nil:
		return fmt.Errorf("%w within %v", errSilent, handshakeTimeout)
	}
	return err
}

// OnAdd, OnUpdate and OnDelete make connection an event handler of the cache.
// libovsdb may drop events, so they only say that something changed.

// OnAdd implements cache.EventHandler.
func (c *connection) OnAdd(string, model.Model) { c.poke() }

// OnUpdate implements cache.EventHandler.
func (c *connection) OnUpdate(string, model.Model, model.Model) { c.poke() }

// OnDelete implements cache.EventHandler.
func (c *connection) OnDelete(string, model.Model) { c.poke() }

var _ cache.EventHandler = (*connection)(nil)

func (c *connection) poke() {
	select {
	case c.changed <- struct{}{}:
	default:
	}
}

// serve finds out who the host is, and looks after it until the end.
func (c *connection) serve(ctx context.Context) error {
	if err := c.identify(ctx); err != nil {
		return err
	}
	defer c.s.leave(c)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	c.takeovers = newTakeovers(&c.s.opts, c.poke)
	defer c.takeovers.wg.Wait()
	defer cancel()
	c.log.Info("host connected")
	c.poke()
	wake := time.NewTimer(probeInterval)
	defer wake.Stop()
	received := int64(0)
	probeAt := time.Now().Add(probeInterval)
	for {
		select {
		case <-c.splice.done:
			return c.splice.reason()
		case <-c.changed:
		case <-wake.C:
		}
		again, err := c.pass(ctx)
		if err != nil {
			return err
		}
		if n := c.splice.received.Load(); n != received {
			received = n
			probeAt = time.Now().Add(probeInterval)
		}
		if !time.Now().Before(probeAt) {
			if err := c.probe(ctx); err != nil {
				return err
			}
			probeAt = time.Now().Add(probeInterval)
		}
		next := time.Until(probeAt)
		if again > 0 {
			next = min(next, again)
		}
		wake.Reset(max(next, time.Millisecond))
	}
}

// identify waits until the host says who it is, and asks the server whether
// it may be that.
func (c *connection) identify(ctx context.Context) error {
	for {
		s, err := takeSnapshot(c.rows)
		if err == nil {
			id := readSettings(s.root)
			if id.host != "" {
				return c.s.enter(ctx, c, id.host, id.systemID)
			}
			c.s.report(c, append(id.problems, "neither external_ids:hostname nor external_ids:system-id is set"))
		}
		select {
		case <-c.splice.done:
			return c.splice.reason()
		case <-c.changed:
		case <-time.After(probeInterval):
			if err := c.probe(ctx); err != nil {
				return err
			}
		}
	}
}

// probe makes sure that the host is still there.
func (c *connection) probe(ctx context.Context) error {
	ctx, cancel := c.splice.attentive(ctx, probeTimeout)
	defer cancel()
	if err := c.echo(ctx); err != nil {
		err = fmt.Errorf("%w to a probe within %v", errSilent, probeTimeout)
		c.splice.end(err)
		return err
	}
	return nil
}

// pass looks at the whole database once: it changes what is not as it should
// be there, and what is not as it is there in the model. It says when to look
// again without a change.
func (c *connection) pass(ctx context.Context) (time.Duration, error) {
	s, err := takeSnapshot(c.rows)
	if err != nil {
		return maxRetry, nil
	}
	id := readSettings(s.root)
	if id.host != c.host || id.systemID != c.systemID {
		return 0, fmt.Errorf("the host calls itself %q (system-id %q) now", id.host, id.systemID)
	}
	id.keep(c.s.opts.Store.View().Host(c.host))
	want := c.contract(id)
	owns := c.s.opts.Owns(c.host)
	certain := owns && c.s.opts.Certain()
	want.makesPorts = certain
	if !owns && !want.setUp(s) {
		c.s.report(c, []string{settingUp})
		return 0, nil
	}
	p := want.difference(c.client, s)
	right := len(p.ops) == 0 && p.err == nil
	if !right && c.setUp.due() <= 0 && c.change(ctx, p) {
		// What it leads to comes as updates.
		c.poke()
		return 0, nil
	}
	if right {
		c.rounds = 0
		c.setUp.succeeded()
	}
	c.s.notePeers(c, readPeers(c.host, s.bridges[network.BridgeTunnel]), readUnwired(want, s))
	var again time.Duration
	var problems []string
	// One that was stopped may still have what the host was like then.
	if certain {
		c.takeovers.look(ctx, want, s)
		again, problems = c.tellWhenDue(ctx, want, s)
	}
	if !right {
		again = sooner(again, c.setUp.due())
	}
	if owns && !certain {
		again = sooner(again, time.Second)
	}
	c.s.report(c, slices.Concat(p.problems, problems, c.takeovers.current(), failures(c.setUp, c.telling)))
	return again, nil
}

// sooner is the shorter of two waits, of which 0 and less mean never.
func sooner(a, b time.Duration) time.Duration {
	if a <= 0 || b > 0 && b < a {
		return b
	}
	return a
}

func failures(retries ...retry) []string {
	var out []string
	for _, r := range retries {
		if r.why != "" {
			out = append(out, r.why)
		}
	}
	return out
}

// change carries a plan out and reports whether that worked.
func (c *connection) change(ctx context.Context, p *plan) bool {
	err := c.transact(ctx, p)
	if err == nil {
		if c.rounds++; c.rounds > maxRounds {
			c.setUp.notBefore = time.Now().Add(time.Second)
		}
		return true
	}
	c.setUp.failed(err)
	c.takeovers.stale()
	if ctx.Err() == nil {
		c.log.Error("host set-up failed", "error", err, "retry_in", c.setUp.pause)
	}
	return false
}

// tellWhenDue is tell, with the pause that a failure makes.
func (c *connection) tellWhenDue(ctx context.Context, want *contract, s *snapshot) (time.Duration, []string) {
	if wait := c.telling.due(); wait > 0 {
		return wait, nil
	}
	again, problems, err := c.tell(ctx, want, s)
	if err == nil {
		c.telling.succeeded()
		return again, problems
	}
	c.telling.failed(err)
	if ctx.Err() == nil {
		c.log.Error("host facts were not written", "error", err, "retry_in", c.telling.pause)
	}
	return sooner(again, c.telling.pause), problems
}

func (c *connection) contract(id settings) *contract {
	want := &contract{settings: id, owner: c.s.opts.Name}
	host, port := c.s.openFlowAddress(c.remote.LocalAddr())
	ip, err := netip.ParseAddr(host)
	want.inBandWorks = err == nil && ip.Is4()
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	want.target = fmt.Sprintf("%s:%s:%s", c.s.opts.OpenFlowProto, host, port)
	want.serviceTarget = fmt.Sprintf("%s:%s:0%s", c.s.opts.OpenFlowProto, host, port)
	want.tunnelTypes = c.s.opts.TunnelTypes
	if len(want.tunnelTypes) == 0 {
		want.tunnelIP = netip.Addr{}
	}
	want.peers, want.peerType = c.s.peersOf(c.host), c.s.opts.PeerType
	want.members = c.s.opts.Members()
	c.takeovers.fill(want)
	return want
}

// transact sends a plan to the host.
func (c *connection) transact(ctx context.Context, p *plan) error {
	if p.err != nil {
		return fmt.Errorf("plan: %w", p.err)
	}
	ctx, cancel := context.WithTimeout(ctx, transactTimeout)
	defer cancel()
	results, err := c.client.Transact(ctx, p.ops...)
	if err == nil {
		err = checkResults(results, p.ops)
	}
	if err != nil {
		c.s.metrics.transactions.WithLabelValues("error").Inc()
		return fmt.Errorf("transaction: %w", err)
	}
	c.s.metrics.transactions.WithLabelValues("ok").Inc()
	for _, done := range p.done {
		if strings.HasSuffix(done, ": take control") {
			c.s.metrics.takeovers.Inc()
		}
	}
	c.log.Info("host set up", "operations", len(p.ops), "changes", strings.Join(p.done, "; "))
	return nil
}

// checkResults is needed because libovsdb's Transact reports no error for
// operations that failed.
func checkResults(results []ovsdb.OperationResult, ops []ovsdb.Operation) error {
	failed, err := ovsdb.CheckOperationResults(results, ops)
	for _, f := range failed {
		err = fmt.Errorf("%w: %s of %s: %w", err, f.Operation().Op, f.Operation().Table, f)
	}
	return err
}

// tell writes the facts of the host into the model, when they differ.
func (c *connection) tell(ctx context.Context, want *contract, s *snapshot) (again time.Duration, problems []string, err error) {
	view := c.s.opts.Store.View()
	before := view.Host(c.host)
	var plugged []network.VIF
	for v := range view.VIFsOn(c.host) {
		plugged = append(plugged, *v)
	}
	r := c.facts.read(time.Now(), want, s, before, plugged)
	if r.host == nil {
		return r.again, append(r.problems, settingUp), nil
	}
	if before != nil {
		r.host.Key = before.Key
	}
	slices.SortFunc(plugged, func(a, b network.VIF) int { return strings.Compare(a.PortID, b.PortID) })
	if before != nil && reflect.DeepEqual(before, r.host) && slices.Equal(plugged, r.vifs) {
		return r.again, r.problems, nil
	}
	if err := uniqueDatapaths(view, r.host); err != nil {
		return r.again, append(r.problems, err.Error()), nil
	}
	cause := network.Cause{Operation: "host " + c.host}
	_, err = c.s.opts.Store.Update(ctx, cause, func(tx *network.Tx) error {
		host := *r.host
		if err := tx.PutHost(&host); err != nil {
			return err
		}
		return tx.SyncVIFs(c.host, slices.Clone(r.vifs))
	})
	if err != nil {
		c.s.metrics.writes.WithLabelValues("error").Inc()
		return r.again, r.problems, err
	}
	c.s.metrics.writes.WithLabelValues("ok").Inc()
	return r.again, r.problems, nil
}

// uniqueDatapaths refuses a host whose bridges can't be told from another's:
// on an OpenFlow connection a switch says its datapath id and nothing else.
func uniqueDatapaths(view *network.View, h *network.Host) error {
	mine := map[uint64]string{}
	for name, b := range h.Bridges {
		if other := mine[b.DatapathID]; other != "" {
			return fmt.Errorf("%s and %s have the same datapath id %016x", name, other, b.DatapathID)
		}
		mine[b.DatapathID] = name
	}
	for other := range view.Hosts() {
		if other.Name == h.Name {
			continue
		}
		for name, b := range other.Bridges {
			if own := mine[b.DatapathID]; own != "" {
				return fmt.Errorf("%s has the datapath id %016x, which %s of host %s has already", own, b.DatapathID, name, other.Name)
			}
		}
	}
	return nil
}

// alive reports whether the host answers.
func (c *connection) alive(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	return c.echo(ctx) == nil
}

// echo waits until the host answers, or ctx ends. libovsdb looks at the reply of a
// call that is given up, while its reader may be writing it: so the call goes on
// until the host answers or the connection ends.
func (c *connection) echo(ctx context.Context) error {
	answer := make(chan error, 1)
	go func() { answer <- c.client.Echo(context.WithoutCancel(ctx)) }()
	select {
	case err := <-answer:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// quiet reports whether an error is the ordinary end of a connection.
func quiet(err error) bool {
	return err == nil || errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) || errors.Is(err, context.Canceled)
}
