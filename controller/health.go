package controller

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"planck/network"
)

// Times of the judgement on gateway hosts.
const (
	// healthStart is how long hosts have to come back after a start of the
	// controller: before, none is judged down unless all are back.
	healthStart = 15 * time.Second
	// healthNewPeer is how long a BFD session that was never up is taken for new.
	healthNewPeer = 15 * time.Second
	// healthSession is how long the OpenFlow session of a host that nobody
	// watches must be gone: with and without a sign of life of its OVSDB.
	healthSession     = time.Second
	healthSessionDark = 10 * time.Second
	// healthHold is how long a host must be well before it carries gateways again;
	// each relapse within healthRelapse doubles it, up to healthHoldMax.
	healthHold    = 20 * time.Second
	healthHoldMax = 5 * time.Minute
	healthRelapse = 10 * time.Minute
	// healthPace is the least time between two looks.
	healthPace  = 50 * time.Millisecond
	healthEvery = 500 * time.Millisecond
)

// Watch tells what hosts see of each other and of themselves.
type Watch interface {
	// PeerReports is what the connected hosts see of their BFD peers.
	PeerReports() []network.PeerReport
	// Connected reports whether a host has its OVSDB connection.
	Connected(host string) bool
	// Unwired is the bridges of a host that lead to physical networks and have no link.
	Unwired(host string) []string
	// Interfaces are those that the database of a host has with the id of a port.
	Interfaces(host, portID string) []network.InterfaceReport
	// WireMTU is the least MTU of the wires of a mapped bridge, and which has it; 0 when it is not known.
	WireMTU(host, bridge string) (mtu int, wire string)
}

// health judges which hosts can carry gateways, and writes that down as
// network.HostDown. What counts is what other hosts see of a host by BFD: that
// is the path of its packets. Its OpenFlow session counts where nobody watches
// it, or where those who do can't be believed.
type health struct {
	ctl     *Controller
	log     *slog.Logger
	watch   Watch
	kick    chan struct{}
	started time.Time // when hosts could come back

	// Of the goroutine that runs.
	peerSince map[[2]string]time.Time // when a session that was never up was first seen
	lostSince map[string]time.Time    // OpenFlow sessions that this controller had
	had       map[string]bool
	goodSince map[string]time.Time // hosts that are down in the model
	relapses  map[string]relapse

	mu       sync.Mutex
	verdicts map[string]verdict // for the operator
}

type relapse struct {
	hold time.Duration
	at   time.Time
}

// verdict is what is thought of a host now, without regard to what it was before.
type verdict struct {
	state   hostState
	reason  string
	unwired bool // it is well, but for its wire
}

type hostState int

const (
	hostUnknown hostState = iota
	hostGood
	hostBad
)

func newHealth(c *Controller) *health {
	return &health{
		ctl: c, log: c.log, kick: make(chan struct{}, 1),
		peerSince: map[[2]string]time.Time{}, lostSince: map[string]time.Time{}, had: map[string]bool{},
		goodSince: map[string]time.Time{}, relapses: map[string]relapse{},
	}
}

func (h *health) wake() {
	select {
	case h.kick <- struct{}{}:
	default:
	}
}

// PeersChanged tells that what the Watch says changed.
func (c *Controller) PeersChanged() { c.health.wake() }

// run judges whenever something may have changed, until ctx ends.
func (h *health) run(ctx context.Context) error {
	if h.watch == nil {
		return nil
	}
	if err := h.settle(ctx); err != nil {
		return nil
	}
	// Hosts are not served before: with many flows to compile that takes a while.
	if err := h.ctl.AwaitReady(ctx); err != nil {
		return nil
	}
	h.started = time.Now()
	tick := time.NewTicker(healthEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-h.kick:
		case <-tick.C:
		}
		if v := h.ctl.view.Load(); v != nil && h.ctl.opt.Cluster.Owns(judge) {
			down, up := h.look(v, time.Now())
			if err := h.write(ctx, down, up); err != nil {
				h.log.Warn("the health of gateway hosts is not written, trying again", "error", err)
			}
		}
		if pause(ctx, healthPace) != nil {
			return nil
		}
	}
}

// settle makes the placements that a database of an earlier version lacks.
func (h *health) settle(ctx context.Context) error {
	for {
		_, err := h.ctl.opt.Store.Update(ctx, network.Cause{Operation: "place gateways"}, (*network.Tx).SettleGateways)
		if err == nil || ctx.Err() != nil {
			return ctx.Err()
		}
		h.log.Warn("gateways are not placed, trying again", "error", err)
		if err := pause(ctx, statusRetry); err != nil {
			return err
		}
	}
}

// look judges all hosts that may carry gateways, and the wires of those with
// floating IPs: which are down from now on,
// and why, and which are not any more.
func (h *health) look(v *network.View, now time.Time) (down map[string]verdict, up []string) {
	hosts := gatewayHosts(v)
	evidence := h.evidence(v, hosts, now)
	down = map[string]verdict{}
	verdicts := map[string]verdict{}
	for _, name := range hosts {
		is := evidence.judge(name)
		if bridge := h.unwired(v, name); bridge != "" && is.state != hostBad {
			is = noLink(bridge)
		}
		verdicts[name] = h.ofWire(v, name, is)
	}
	for _, name := range h.edges(v, hosts) {
		hosts = append(hosts, name)
		is := verdict{state: hostGood}
		if bridge := h.unwired(v, name); bridge != "" {
			is = noLink(bridge)
		}
		verdicts[name] = h.ofWire(v, name, is)
	}
	for _, name := range hosts {
		is := verdicts[name]
		if v.HostDown(name) == nil {
			delete(h.goodSince, name)
			if is.state == hostBad {
				down[name] = is
			}
			continue
		}
		if is.state != hostGood {
			delete(h.goodSince, name)
			if is.unwired && !v.HostDown(name).Unwired {
				down[name] = is // its floating IPs have to go as well
			}
			continue
		}
		since, known := h.goodSince[name]
		if !known {
			h.goodSince[name] = now
		} else if now.Sub(since) >= h.hold(name) {
			up = append(up, name)
		}
	}
	for d := range v.HostsDown() {
		if !slices.Contains(hosts, d.Host) {
			up = append(up, d.Host) // it carries nothing that could be lost
		}
	}
	if !h.ready(v, now) {
		clear(down)
	}
	for name := range down {
		if v.HostDown(name) == nil {
			h.relapse(name, now)
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.verdicts = verdicts
	return down, up
}

// gatewayHosts are the hosts that may carry gateways, by name.
func gatewayHosts(v *network.View) []string {
	var hosts []string
	for h := range v.Hosts() {
		for range v.GatewayPlacementsOn(h.Name) {
			hosts = append(hosts, h.Name)
			break
		}
	}
	return hosts
}

func noLink(bridge string) verdict {
	return verdict{state: hostBad, reason: "no link on " + bridge, unwired: true}
}

// ofWire is what is thought of a host whose wire was dead: while its database is
// away, nobody knows whether it is back.
func (h *health) ofWire(v *network.View, name string, is verdict) verdict {
	if d := v.HostDown(name); is.state == hostGood && d != nil && d.Unwired && !h.watch.Connected(name) {
		return verdict{state: hostUnknown, reason: d.Reason + " when its database was last connected"}
	}
	return is
}

// edges are the hosts besides the gateways' whose wires count: those without a
// link, on which a VM has a floating IP, and those that were such last.
func (h *health) edges(v *network.View, gateways []string) []string {
	var hosts []string
	for host := range v.Hosts() {
		if slices.Contains(gateways, host.Name) {
			continue
		}
		down := v.HostDown(host.Name)
		if len(h.watch.Unwired(host.Name)) == 0 && (down == nil || !down.Unwired) {
			continue
		}
		for range v.FloatingNetworksOn(host.Name) {
			hosts = append(hosts, host.Name)
			break
		}
	}
	return hosts
}

// unwired is a bridge of a host without a link to the external network of a
// gateway that the host may carry, or of a floating IP of a VM there, or "".
func (h *health) unwired(v *network.View, name string) string {
	dead := h.watch.Unwired(name)
	if len(dead) == 0 {
		return ""
	}
	host := v.Host(name)
	isDead := func(networkID string) bool {
		n := v.Network(networkID).On(host)
		return n != nil && n.Provider() && slices.Contains(dead, host.BridgeMappings[n.PhysicalNetwork])
	}
	for g := range v.GatewayPlacementsOn(name) {
		if isDead(g.NetworkID) {
			return host.BridgeMappings[v.Network(g.NetworkID).On(host).PhysicalNetwork]
		}
	}
	for networkID := range v.FloatingNetworksOn(name) {
		if isDead(networkID) {
			return host.BridgeMappings[v.Network(networkID).On(host).PhysicalNetwork]
		}
	}
	return ""
}

// ready reports whether the hosts had time to come back since the controller
// started: one that has just lost its controller did not die.
func (h *health) ready(v *network.View, now time.Time) bool {
	if now.Sub(h.started) >= healthStart {
		return true
	}
	for name := range v.GatewayWatch() {
		if !h.watch.Connected(name) {
			return false
		}
	}
	return now.Sub(h.started) >= healthSession
}

func (h *health) hold(host string) time.Duration { return max(h.relapses[host].hold, healthHold) }

func (h *health) relapse(host string, now time.Time) {
	was, again := h.relapses[host]
	if !again || now.Sub(was.at) > healthRelapse+was.hold {
		h.relapses[host] = relapse{healthHold, now}
		return
	}
	h.relapses[host] = relapse{min(2*was.hold, healthHoldMax), now}
}

func (h *health) write(ctx context.Context, down map[string]verdict, up []string) error {
	if len(down)+len(up) == 0 {
		return nil
	}
	_, err := h.ctl.opt.Store.Update(ctx, network.Cause{Operation: "health of gateway hosts"}, func(tx *network.Tx) error {
		for _, name := range up {
			tx.SetHostUp(name)
		}
		for name, is := range down {
			if tx.Host(name) == nil {
				continue
			}
			if err := tx.SetHostDown(network.HostDown{Host: name, Reason: is.reason, Unwired: is.unwired}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for name, is := range down {
		h.log.Warn("host can't carry gateways", "host", name, "reason", is.reason)
		h.ctl.metrics.failovers.Inc()
	}
	for _, name := range up {
		h.log.Info("host can carry gateways again", "host", name)
	}
	return nil
}

// evidence is what is known about hosts at one moment.
type evidence struct {
	up, down map[string][]string // who sees a host, and who does not
	session  map[string]bool     // OpenFlow session
	gone     map[string]bool     // its session is gone for so long that it counts
}

func (h *health) evidence(v *network.View, hosts []string, now time.Time) *evidence {
	e := &evidence{up: map[string][]string{}, down: map[string][]string{}, session: map[string]bool{}, gone: map[string]bool{}}
	fresh := map[[2]string]time.Time{}
	for _, r := range h.watch.PeerReports() {
		key := [2]string{r.Host, r.Peer}
		if !r.Up && !r.Ever {
			since, known := h.peerSince[key]
			if !known {
				since = now
			}
			fresh[key] = since
			if now.Sub(since) < healthNewPeer {
				continue
			}
		}
		if r.Up {
			e.up[r.Peer] = append(e.up[r.Peer], r.Host)
		} else {
			e.down[r.Peer] = append(e.down[r.Peer], r.Host)
		}
	}
	h.peerSince = fresh
	alive := 0
	for host := range v.Hosts() {
		if e.session[host.Name] = h.ctl.hostLive(host.Name); e.session[host.Name] {
			alive++
			h.had[host.Name] = true
			delete(h.lostSince, host.Name)
		}
	}
	for _, name := range hosts {
		// All sessions gone at once is the controller's own trouble.
		if alive > 0 && !e.session[name] && h.had[name] {
			e.gone[name] = h.goneLong(name, h.watch.Connected(name), now)
		}
	}
	return e
}

func (h *health) goneLong(host string, connected bool, now time.Time) bool {
	since, known := h.lostSince[host]
	if !known {
		since = now
		h.lostSince[host] = now
	}
	if connected {
		return now.Sub(since) >= healthSession
	}
	return now.Sub(since) >= healthSessionDark
}

// isolated reports whether all who watch a host have lost it. What such a host
// says about others is worth nothing: it may be its own link.
func (e *evidence) isolated(host string) bool {
	return len(e.down[host]) > 0 && len(e.up[host]) == 0
}

// judge tells what is thought of a host.
func (e *evidence) judge(host string) verdict {
	seen, lost := e.believed(e.up[host]), e.believed(e.down[host])
	switch {
	case len(seen) > 0:
		return verdict{state: hostGood}
	case len(lost) > 0:
		return verdict{state: hostBad, reason: "no BFD from it at " + strings.Join(lost, ", ")}
	case e.isolated(host):
		// They can't all be right: who has lost its session as well is dead.
		watchers := slices.ContainsFunc(e.down[host], func(w string) bool { return e.session[w] })
		if e.gone[host] && watchers {
			return verdict{state: hostBad, reason: "neither BFD nor OpenFlow from it"}
		}
		return verdict{state: hostUnknown, reason: "no BFD, but from others neither"}
	case e.gone[host]:
		return verdict{state: hostBad, reason: "no OpenFlow from it"}
	case e.session[host]:
		return verdict{state: hostGood}
	}
	return verdict{state: hostUnknown, reason: "no sign of life, and nobody watches it"}
}

func (e *evidence) believed(reporters []string) []string {
	credible := slices.DeleteFunc(slices.Clone(reporters), e.isolated)
	slices.Sort(credible)
	return credible
}

// describe is the health of a host in words for an operator, and why.
func (h *health) describe(v *network.View, host string) (state, reason string) {
	h.mu.Lock()
	is := h.verdicts[host]
	h.mu.Unlock()
	down := v.HostDown(host)
	switch {
	case down != nil && is.state == hostGood:
		return "returning", down.Reason
	case down != nil:
		return "down", down.Reason
	case is.state == hostGood, !h.ctl.opt.Cluster.Owns(judge): // the judge says in the model who is down
		return "up", ""
	}
	return "unknown", is.reason
}
