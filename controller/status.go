package controller

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"planck/network"
	"planck/pipeline"
)

const (
	// slowHostWait is how long a live host other than the bound one may hold a
	// port back from ACTIVE.
	slowHostWait = 2 * time.Second
	// statusBatch is how many ports one transaction writes.
	statusBatch = 256
	statusRetry = time.Second
)

// hosts is what the tracker asks about switches.
type hosts interface {
	// hostHas reports whether a host has acknowledged what changed up to a
	// revision on the bridges that a network needs.
	hostHas(h *network.Host, n *network.Network, revision uint64) bool
	hostLive(name string) bool
	// reports tells whether the database of a host is connected.
	reports(name string) bool
	// silenced is that a port of a host was kept from sending to the controller a
	// short while ago, nil if it was not.
	silenced(host string, portKey uint32) *silence
	// owns reports whether the status of what is bound to a host is this
	// controller's to write; "" is for what is not bound.
	owns(name string) bool
	// hostApplied reports whether all bridges of a host have acknowledged what
	// changed up to a revision.
	hostApplied(name string, revision uint64) bool
	// flushZones makes a host forget the connections in conntrack zones, before
	// anything that is sent to it later. It reports whether the host is there.
	flushZones(host string, zones []uint16) bool
	// hostRefused is why a host refused what a port of a network needs, nil if it did not.
	hostRefused(h *network.Host, n *network.Network, portKey uint32) error
	// announce lets a port tell its network from its host.
	announce(v *network.View, p *network.Port)
}

// tracker writes what follows from that hosts have their flows: the status of
// ports, where ports are ready to move, and that local VLANs are free again. It
// decides from the state, not from events: events only tell which ports and
// hosts to look at.
type tracker struct {
	store   Store
	hosts   hosts
	log     *slog.Logger
	metrics *metrics
	kick    chan struct{}
	// patience is how long slow hosts are waited for: slowHostWait, but in tests.
	patience time.Duration

	mu       sync.Mutex
	view     *network.View
	incoming map[string]uint64 // port → revision that its hosts must have
	cookies  []hostCookie
	arrived  map[string]struct{} // hosts of which something became known
	taken    []string            // hosts that became this controller's
	moved    []string            // ports that moved to another host

	// Of the goroutine that runs.
	waiting map[string]*waiting
	freeing map[string]struct{} // hosts whose departures are to be looked at
	// flushing has when zones were flushed for the first time that shall be again.
	flushing map[network.Flush]time.Time
	moves    moves

	pending atomic.Int64 // how many ports wait
}

// hostCookie is a resource for which a host began or ceased to refuse flows.
type hostCookie struct {
	host   string
	cookie pipeline.Cookie
}

type waiting struct {
	revision uint64
	ownSince time.Time // when the bound host was first seen to have its flows
	others   []string  // the other hosts that need them, found when the bound one has them
}

func newTracker(store Store, h hosts, log *slog.Logger, m *metrics) *tracker {
	return &tracker{
		store: store, hosts: h, log: log, metrics: m, kick: make(chan struct{}, 1),
		incoming: make(map[string]uint64), waiting: make(map[string]*waiting),
		arrived: make(map[string]struct{}), freeing: make(map[string]struct{}), flushing: make(map[network.Flush]time.Time),
		moves: newMoves(), patience: slowHostWait,
	}
}

func (k *tracker) wake() {
	select {
	case k.kick <- struct{}{}:
	default:
	}
}

// note takes what a batch changed and what was compiled for it.
func (k *tracker) note(b network.Batch, out pipeline.Outcome) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.view = b.View
	for _, ch := range b.Changes {
		if id := portOfChange(ch); id != "" {
			k.incoming[id] = out.Revision
		}
		if movedBy(ch) {
			k.moved = append(k.moved, ch.ID)
		}
	}
	for id := range out.Ports {
		k.incoming[id] = out.Revision
	}
	k.noteDepartures(b)
	k.wake()
}

// portOfChange is the port whose status a change may matter to, "" for none.
func portOfChange(ch network.Change) string {
	switch after := ch.After.(type) {
	case *network.Port:
		return after.ID
	case *network.VIF:
		return after.PortID
	case *network.PortStatus:
		return after.PortID
	}
	if before, ok := ch.Before.(*network.VIF); ok {
		return before.PortID
	}
	return ""
}

// refusals tells that a host began or ceased to refuse flows of these resources.
func (k *tracker) refusals(host string, cookies []pipeline.Cookie) {
	if len(cookies) == 0 {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, c := range cookies {
		k.cookies = append(k.cookies, hostCookie{host, c})
	}
	k.wake()
}

// run looks at the waiting ports whenever something happened that may concern them.
func (k *tracker) run(ctx context.Context) error {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-k.kick:
		case <-timer.C:
		}
		v := k.intake()
		if v == nil {
			continue
		}
		wanted, again := k.look(v, time.Now())
		if err := k.writeReady(ctx, v); err != nil {
			k.log.Warn("readiness for moves is not written, trying again", "error", err)
			again = statusRetry
		}
		if err := k.write(ctx, v, wanted); err != nil {
			k.log.Warn("port status is not written, trying again", "ports", len(wanted), "error", err)
			again = statusRetry
		}
		wait, err := k.endDepartures(ctx, v, time.Now())
		if err != nil {
			k.log.Warn("local VLANs and conntrack zones are not freed, trying again", "error", err)
			wait = statusRetry
		}
		again = min(again, wait)
		k.pending.Store(int64(len(k.waiting)))
		k.metrics.statusPending.Set(float64(len(k.waiting)))
		timer.Reset(again)
	}
}

// intake moves what came in to the waiting ports.
func (k *tracker) intake() *network.View {
	k.mu.Lock()
	defer k.mu.Unlock()
	for id, revision := range k.incoming {
		w := k.waiting[id]
		if w == nil {
			w = &waiting{}
			k.waiting[id] = w
		}
		w.revision, w.others = revision, nil
		k.moves.waiting[id] = revision
	}
	clear(k.incoming)
	for _, id := range k.moved {
		k.moves.moved[id] = struct{}{}
	}
	k.moved = k.moved[:0]
	for _, host := range k.taken {
		k.expandHost(host)
	}
	k.taken = k.taken[:0]
	for _, c := range k.cookies {
		k.expand(c)
	}
	k.cookies = k.cookies[:0]
	maps.Copy(k.freeing, k.arrived)
	clear(k.arrived)
	return k.view
}

// took makes the ports of a host wait that has become this controller's.
func (k *tracker) took(host string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.taken = append(k.taken, host)
	k.arrived[host] = struct{}{}
}

// expandHost makes all ports of a host wait.
func (k *tracker) expandHost(host string) {
	if k.view == nil {
		return
	}
	for p := range k.view.PortsBoundTo(host) {
		k.ensure(p.ID)
	}
}

// expand makes the ports wait that a refusal on their host concerns.
func (k *tracker) expand(c hostCookie) {
	if k.view == nil || c.cookie.Feature() == pipeline.FeatureCanary {
		return
	}
	if c.cookie.Flags()&pipeline.FlagHost != 0 || c.cookie.Shared() {
		k.expandHost(c.host)
		return
	}
	if c.cookie.Flags()&pipeline.FlagNetwork == 0 {
		if p := k.view.PortByKey(c.cookie.Object()); p != nil && p.Binding.Host == c.host {
			k.ensure(p.ID)
		}
		return
	}
	n := k.view.NetworkByKey(c.cookie.Object())
	if n == nil {
		return
	}
	for p := range k.view.PortsOfOn(n.ID, c.host) {
		k.ensure(p.ID)
	}
}

func (k *tracker) ensure(portID string) {
	if k.waiting[portID] == nil {
		k.waiting[portID] = &waiting{revision: k.view.Revision()}
	}
}

// look decides about every waiting port: what to write, and when to look again
// if nothing happens.
func (k *tracker) look(v *network.View, now time.Time) (wanted []network.PortStatus, again time.Duration) {
	again = time.Hour
	for id, w := range k.waiting {
		want, wait := k.judge(v, id, w, now)
		if wait > 0 {
			again = min(again, wait)
			continue
		}
		if want != nil {
			wanted = append(wanted, *want)
			continue
		}
		delete(k.waiting, id)
	}
	return wanted, again
}

// judge tells what a port's status has to become (nil: stay), or that it has to
// wait, for so long at the most until it is looked at again.
func (k *tracker) judge(v *network.View, id string, w *waiting, now time.Time) (*network.PortStatus, time.Duration) {
	p := v.Port(id)
	if p == nil || p.Service() {
		return nil, 0
	}
	if !k.hosts.owns(p.Binding.Host) {
		delete(k.moves.moved, id)
		return nil, 0
	}
	n, have := v.Network(p.NetworkID), statusOf(v, id)
	host := v.Host(p.Binding.Host)
	if why := notWired(v, p); why != "" || n == nil || host == nil {
		return changed(have, network.PortStatus{PortID: id, Status: network.StatusDown, Reason: why}), 0
	}
	if err := k.hosts.hostRefused(host, n, p.Key); err != nil {
		return changed(have, network.PortStatus{PortID: id, Status: network.StatusError, Reason: "host " + host.Name + ": " + err.Error()}), 0
	}
	if have.Status == network.StatusActive {
		return nil, 0
	}
	if !k.hosts.hostHas(host, n, w.revision) {
		return nil, time.Hour
	}
	if w.ownSince.IsZero() {
		w.ownSince = now
	}
	if w.others == nil {
		w.others = otherHosts(v, p)
	}
	if left := w.ownSince.Add(k.patience).Sub(now); left > 0 && k.heldBack(v, n, w) {
		return nil, left
	}
	return changed(have, network.PortStatus{PortID: id, Status: network.StatusActive}), 0
}

func otherHosts(v *network.View, p *network.Port) []string {
	return slices.DeleteFunc(pipeline.PortHosts(v, p.ID), func(h string) bool { return h == p.Binding.Host })
}

// heldBack reports whether a live host other than the bound one lacks the port's flows.
func (k *tracker) heldBack(v *network.View, n *network.Network, w *waiting) bool {
	for _, name := range w.others {
		if !k.hosts.hostLive(name) {
			continue
		}
		if h := v.Host(name); h != nil && !k.hosts.hostHas(h, n, w.revision) {
			return true
		}
	}
	return false
}

func statusOf(v *network.View, portID string) network.PortStatus {
	if s := v.PortStatus(portID); s != nil {
		return *s
	}
	return network.PortStatus{PortID: portID, Status: network.StatusDown}
}

// notWired is why a port cannot be ACTIVE whatever the switches have, "" when it can.
func notWired(v *network.View, p *network.Port) string {
	switch {
	case !p.AdminStateUp:
		return "admin_state_up is false"
	case p.Binding.Host == "":
		return "not bound to a host"
	case p.Binding.VIFType != network.VIFTypeOVS:
		return "vif_type is " + p.Binding.VIFType
	case v.WiredHost(p) == "":
		return "not plugged on host " + p.Binding.Host
	case v.Presence(p.NetworkID, p.Binding.Host) == nil:
		return noLocalVLAN + p.Binding.Host
	}
	return ""
}

const noLocalVLAN = "no local VLAN is left on host "

// changed is the status to write, if any. The reasons for being DOWN that
// everybody can see from the port are not worth a write.
func changed(have, want network.PortStatus) *network.PortStatus {
	if have == want {
		return nil
	}
	if have.Status == network.StatusDown && want.Status == network.StatusDown && have.Reason == "" && !strings.HasPrefix(want.Reason, noLocalVLAN) {
		return nil
	}
	return &want
}

// write stores the wanted statuses, many in a transaction, and stops waiting for them.
func (k *tracker) write(ctx context.Context, v *network.View, wanted []network.PortStatus) error {
	for len(wanted) > 0 {
		batch := wanted[:min(len(wanted), statusBatch)]
		wanted = wanted[len(batch):]
		_, err := k.store.Update(ctx, network.Cause{Operation: "port status"}, func(tx *network.Tx) error {
			return setStatuses(tx, batch)
		})
		if err != nil {
			return err
		}
		for _, s := range batch {
			delete(k.waiting, s.PortID)
			k.metrics.statusWrites.WithLabelValues(s.Status).Inc()
			if s.Status == network.StatusActive {
				k.announceMoved(v, s.PortID)
			}
			if s.Status == network.StatusError {
				k.log.Warn("port is in state ERROR", "port_id", s.PortID, "reason", s.Reason)
			} else {
				k.log.Debug("port changed its status", "port_id", s.PortID, "status", s.Status)
			}
		}
	}
	return nil
}

// setStatuses writes what still holds in the newest state: a port that was
// unplugged since must not become ACTIVE, nor one that was plugged DOWN.
func setStatuses(tx *network.Tx, batch []network.PortStatus) error {
	for _, s := range batch {
		p := tx.Port(s.PortID)
		if p == nil || (s.Status == network.StatusDown) != (notWired(tx.View, p) != "") {
			continue
		}
		if err := tx.SetPortStatus(s); err != nil {
			return err
		}
	}
	return nil
}
