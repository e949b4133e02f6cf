package controller

import (
	"context"
	"encoding/binary"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"planck/flows"
	"planck/network"
	"planck/pipeline"
)

// Times of the resolver.
const (
	// neighborRefresh is how long an answer counts before it is asked for again.
	neighborRefresh = 30 * time.Second
	// neighborRetry is how long an answer may take before the question is repeated.
	neighborRetry = time.Second
	// neighborTries is how many questions without an answer make a neighbor
	// silent. It is asked more rarely then; one that no route needs is forgotten.
	neighborTries = 5
	neighborPause = 5 * time.Second
	// neighborPace is the least time between two looks at all neighbors.
	neighborPace = 100 * time.Millisecond
	// maxNeighborRequests bounds the addresses that packets of a router ask for: who
	// scans a network does not keep other routers from asking there.
	maxNeighborRequests = 1024
)

// Why an ARP packet from an external network is not learnt.
const (
	dropUnasked    = "unasked"
	dropTooMany    = "too many"
	dropNotOnLink  = "not on link"
	dropSpoofedMAC = "our own MAC"
)

// resolver finds the MACs of the neighbors on external networks: of the next
// hops of routers, and of the addresses beside them that packets ask for. It
// asks by ARP, or by a neighbour solicitation, from the host that has the gateway, with the gateway's address,
// and learns from answers to its own questions only. What it learnt is in the
// store; what it knows of the age of that is not, so that a controller that
// starts asks again and changes nothing meanwhile.
type resolver struct {
	ctl  *Controller
	log  *slog.Logger
	kick chan struct{}

	mu      sync.Mutex
	entries map[neighborKey]*neighborEntry
	asked   map[uint32]int // entries that packets of a router asked for, by its key
	answers []network.ExternalNeighbor
}

type neighborKey struct {
	networkID string
	ip        netip.Addr
}

// neighborEntry is what is known of the age of a neighbor.
type neighborEntry struct {
	needed   bool   // a route leads by it
	known    bool   // its MAC is in the store
	router   uint32 // key of the router whose packet asked first
	answered time.Time
	askedAt  time.Time
	tries    int   // questions since the last answer
	by       asker // who asked last
	silent   bool
}

// silentNextHop implements witness.
func (c *Controller) silentNextHop(_, networkID string, ip netip.Addr) bool {
	c.resolver.mu.Lock()
	defer c.resolver.mu.Unlock()
	e := c.resolver.entries[neighborKey{networkID, ip}]
	return e != nil && e.silent && e.needed
}

// asker is a gateway address from which a question may be asked.
type asker struct {
	host   string
	mac    network.MAC
	ip     netip.Addr
	onLink netip.Prefix
	key    uint32 // of the external network
	vlan   uint16 // local VLAN of the external network on the host
}

func newResolver(c *Controller) *resolver {
	return &resolver{
		ctl: c, log: c.log, kick: make(chan struct{}, 1),
		entries: map[neighborKey]*neighborEntry{}, asked: map[uint32]int{},
	}
}

// Feature implements Responder.
func (*resolver) Feature() pipeline.FeatureID { return pipeline.FeatureNeighbor }

// Respond implements Responder: it takes answers to its questions, and packets
// whose destination is not known yet, which are lost.
func (r *resolver) Respond(_ context.Context, in *PacketIn, out *Replies) error {
	n := in.View.NetworkByKey(in.NetworkKey())
	if n == nil {
		out.Drop(dropUnknownPort)
		return nil
	}
	if !n.External {
		if reason := r.ctl.holders.request(in, n); reason != "" {
			out.Drop(reason)
		}
		return nil
	}
	var a arpAnswer
	reason := a.parse(in.Data)
	if reason == dropOtherType && etherType(in.Data) == etherTypeIPv6 {
		reason = a.parse6(in.Data)
	}
	switch {
	case reason == "":
		reason = r.learn(in, n, &a)
	case reason == dropOtherType:
		reason = r.request(in, n)
	}
	if reason != "" {
		out.Drop(reason)
	}
	return nil
}

// request notes that a packet asks for an address.
func (r *resolver) request(in *PacketIn, n *network.Network) string {
	key := neighborKey{n.ID, nextHop(in)}
	if !onLink(in.View, key) {
		return dropNotOnLink
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.entries[key] != nil {
		return ""
	}
	if r.asked[in.RouterKey()] >= maxNeighborRequests {
		return dropTooMany
	}
	r.asked[in.RouterKey()]++
	r.entries[key] = &neighborEntry{router: in.RouterKey()}
	r.wake()
	return ""
}

// nextHop is the next hop of a packet that was routed.
func nextHop(in *PacketIn) netip.Addr { return hopOf(in.Data, &in.Regs) }

// hopOf is the next hop that the registers hold, of a frame's family.
func hopOf(frame []byte, regs *[16]uint32) netip.Addr {
	var b [16]byte
	if etherType(frame) == etherTypeIPv6 {
		for i, word := range regs[regNextHop6 : regNextHop6+4] {
			binary.BigEndian.PutUint32(b[4*i:], word)
		}
		return netip.AddrFrom16(b)
	}
	binary.BigEndian.PutUint32(b[:], regs[regNextHop])
	return address4(b[:])
}

// The numbers of the registers that hold the next hop; that of IPv6 takes four.
const (
	regNextHop  = pipeline.RegNextHop - flows.Reg0
	regNextHop6 = 4 * (pipeline.RegNextHop6 - flows.XXReg0)
)

// onLink reports whether an address may be that of a neighbor.
func onLink(v *network.View, key neighborKey) bool {
	if v.PortByIP(key.networkID, key.ip) != nil {
		return false
	}
	for s := range v.SubnetsOf(key.networkID) {
		if s.CIDR.Contains(key.ip) {
			return true
		}
	}
	return false
}

// learn takes an answer; it returns why it did not, or "".
func (r *resolver) learn(in *PacketIn, n *network.Network, a *arpAnswer) string {
	if in.View.PortByMAC(n.ID, a.sha) != nil {
		return dropSpoofedMAC
	}
	key := neighborKey{n.ID, a.spa}
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.entries[key]
	mac, known := in.View.ExternalNeighbor(n.ID, a.spa)
	if e == nil || e.tries == 0 || e.by.host != in.Host || e.by.mac != a.tha || e.by.ip != a.tpa || e.by.mac != a.ethDst {
		if e != nil && known && mac != a.sha {
			e.answered = time.Time{} // it is said to have moved: ask it now
			r.wake()
		}
		return dropUnasked
	}
	if e.silent {
		r.log.Info("a neighbor answers again", "network_id", n.ID, "ip", a.spa, "mac", a.sha)
	}
	e.tries, e.silent, e.answered = 0, false, time.Now()
	if known && mac == a.sha {
		r.ctl.metrics.neighborAnswers.WithLabelValues("same").Inc()
		return ""
	}
	r.ctl.metrics.neighborAnswers.WithLabelValues("learnt").Inc()
	r.answers = append(r.answers, network.ExternalNeighbor{NetworkID: n.ID, IP: a.spa, MAC: a.sha})
	r.wake()
	return ""
}

func (r *resolver) wake() {
	select {
	case r.kick <- struct{}{}:
	default:
	}
}

// note looks at the model again when something changed that may matter.
func (r *resolver) note(b network.Batch) {
	for _, ch := range b.Changes {
		switch ch.Kind {
		case network.KindRouter, network.KindSubnet, network.KindGatewayPlacement, network.KindHostDown,
			network.KindExternalNeighbor, network.KindNetwork:
			r.wake()
			return
		}
	}
}

// run asks what is due, and writes what was learnt, until ctx ends.
func (r *resolver) run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-r.kick:
		case <-timer.C:
		}
		again := neighborPause
		if v := r.ctl.view.Load(); v != nil {
			learnt := r.takeAnswers()
			silent, wait := r.look(v, time.Now())
			again = wait
			if err := r.write(ctx, learnt, silent); err != nil {
				r.log.Warn("neighbors are not written, trying again", "error", err)
				r.putBack(learnt)
				again = statusRetry
			}
		}
		if pause(ctx, neighborPace) != nil {
			return nil
		}
		timer.Reset(max(again-neighborPace, 0))
	}
}

func (r *resolver) takeAnswers() []network.ExternalNeighbor {
	r.mu.Lock()
	defer r.mu.Unlock()
	learnt := r.answers
	r.answers = nil
	return learnt
}

func (r *resolver) putBack(learnt []network.ExternalNeighbor) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answers = append(learnt, r.answers...)
}

func (r *resolver) write(ctx context.Context, learnt []network.ExternalNeighbor, silent []neighborKey) error {
	if len(learnt)+len(silent) == 0 {
		return nil
	}
	_, err := r.ctl.opt.Store.Update(ctx, network.Cause{Operation: "external neighbors"}, func(tx *network.Tx) error {
		for _, key := range silent {
			tx.DeleteExternalNeighbor(key.networkID, key.ip)
		}
		for _, e := range learnt {
			if n := tx.Network(e.NetworkID); n == nil || !n.External {
				continue // it went meanwhile
			}
			if err := tx.PutExternalNeighbor(e); err != nil {
				return err
			}
		}
		return nil
	})
	return err
}

// look makes the entries those that the model needs, asks what is due, and
// returns which neighbors are to be forgotten and when to look again.
func (r *resolver) look(v *network.View, now time.Time) (silent []neighborKey, again time.Duration) {
	askers, needed := neighborsNeeded(v)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.settle(v, askers, needed, now)
	again = neighborRefresh
	unanswered := 0
	for key, e := range r.entries {
		due := e.due(now)
		if due <= 0 && e.tries >= neighborTries && !e.needed {
			silent = append(silent, key)
			r.drop(key)
			continue
		}
		if e.tries >= neighborTries && !e.silent {
			e.silent = true
			r.log.Warn("a next hop does not answer", "network_id", key.networkID, "ip", key.ip, "host", e.by.host)
		}
		if e.silent {
			unanswered++
		}
		if due <= 0 {
			r.ask(v, key, e, askers[key.networkID], now)
			due = e.due(now)
		}
		again = min(again, max(due, neighborPace))
	}
	r.ctl.metrics.neighbors.WithLabelValues("answering").Set(float64(len(r.entries) - unanswered))
	r.ctl.metrics.neighbors.WithLabelValues("silent").Set(float64(unanswered))
	return silent, again
}

// due is how long it is until the neighbor has to be asked.
func (e *neighborEntry) due(now time.Time) time.Duration {
	switch {
	case e.tries == 0:
		// Asked without a question sent: no host of a gateway is connected.
		retry, refresh := e.askedAt.Add(neighborRetry), e.answered.Add(neighborRefresh)
		return max(retry.Sub(now), refresh.Sub(now))
	case e.tries < neighborTries || !e.needed && !e.silent:
		return e.askedAt.Add(neighborRetry).Sub(now)
	}
	return e.askedAt.Add(neighborPause).Sub(now)
}

// settle makes the entries those that routes need, that are in the store, and
// that packets asked for.
func (r *resolver) settle(v *network.View, askers map[string][]asker, needed map[neighborKey]bool, now time.Time) {
	for key := range needed {
		if r.entries[key] == nil {
			r.entries[key] = &neighborEntry{}
		}
	}
	known := map[neighborKey]bool{}
	for networkID := range askers {
		for n := range v.ExternalNeighborsOf(networkID) {
			key := neighborKey{networkID, n.IP}
			known[key] = true
			if r.entries[key] == nil && !needed[key] {
				// Learnt before this controller started: as fresh as can be.
				r.entries[key] = &neighborEntry{answered: now}
			}
		}
	}
	for key, e := range r.entries {
		e.needed, e.known = needed[key], known[key]
		if len(askers[key.networkID]) == 0 || v.PortByIP(key.networkID, key.ip) != nil {
			r.drop(key)
		}
	}
	clear(r.asked)
	for _, e := range r.entries {
		if !e.needed {
			r.asked[e.router]++
		}
	}
}

func (r *resolver) drop(key neighborKey) { delete(r.entries, key) }

// neighborsNeeded lists the gateway addresses from which can be asked, by
// external network, and the next hops that must be known.
func neighborsNeeded(v *network.View) (askers map[string][]asker, needed map[neighborKey]bool) {
	askers, needed = map[string][]asker{}, map[neighborKey]bool{}
	for g := range v.GatewayPlacements() {
		r := v.Router(g.RouterID)
		if r == nil || !r.AdminStateUp || len(g.Hosts) == 0 {
			continue
		}
		n, p, host := v.Network(g.NetworkID), v.Port(r.GatewayPortID), v.GatewayHost(r.ID)
		if n == nil || p == nil || !n.AdminStateUp {
			continue
		}
		presence := v.Presence(n.ID, host)
		if presence == nil {
			continue
		}
		for _, f := range p.FixedIPs {
			s := v.Subnet(f.SubnetID)
			if s == nil {
				continue
			}
			askers[n.ID] = append(askers[n.ID], asker{host: host, mac: p.MAC, ip: f.IP, onLink: s.CIDR, key: n.Key, vlan: presence.VLAN})
			need := func(ip netip.Addr) {
				if ip.IsValid() && ip.Is4() == f.IP.Is4() && v.PortByIP(n.ID, ip) == nil {
					needed[neighborKey{n.ID, ip}] = true
				}
			}
			need(s.GatewayIP)
			for _, route := range r.Routes {
				if s.CIDR.Contains(route.NextHop) {
					need(route.NextHop)
				}
			}
		}
	}
	return askers, needed
}

// ask sends one question. Another gateway of the network asks each time, so that
// one host without a link does not make the neighbor silent.
func (r *resolver) ask(v *network.View, key neighborKey, e *neighborEntry, askers []asker, now time.Time) {
	askers = slices.DeleteFunc(slices.Clone(askers), func(a asker) bool { return a.ip.Is4() != key.ip.Is4() })
	can := slices.DeleteFunc(slices.Clone(askers), func(a asker) bool { return !a.onLink.Contains(key.ip) })
	if len(can) == 0 {
		can = askers
	}
	e.askedAt = now
	for i := range can {
		by := can[(e.tries+i)%len(can)]
		if r.ctl.flood(by.host, by.key, by.vlan, question(by.mac, by.ip, key.ip)) {
			e.tries++
			e.by = by
			r.ctl.metrics.neighborProbes.Inc()
			return
		}
	}
}

// flood sends a frame to all of a network as its host would: to the wire or the
// tunnels, and to the ports of the network there. It reports whether the host's
// switch is connected.
func (c *Controller) flood(host string, networkKey uint32, vlan uint16, frame []byte) bool {
	t := c.bridge(host, network.BridgeIntegration)
	if t == nil {
		return false
	}
	s := t.connected()
	if s == nil {
		return false
	}
	return s.out.trySend(flows.AppendPacketOut(nil, xidUnmatched, flows.PortController, intoNetwork(networkKey, uint32(vlan)), frame))
}

// arpAnswer is an ARP reply.
type arpAnswer struct {
	ethDst   network.MAC
	sha, tha network.MAC
	spa, tpa netip.Addr
}

// parse reads an untagged frame; it returns why it is no answer, or "".
func (a *arpAnswer) parse(frame []byte) string {
	if len(frame) < ethernetLen {
		return dropTruncated
	}
	if binary.BigEndian.Uint16(frame[12:]) != etherTypeARP {
		return dropOtherType
	}
	if len(frame) < arpLen {
		return dropTruncated
	}
	b := frame[ethernetLen:]
	if binary.BigEndian.Uint64(b) != arpHeader|arpReply {
		return dropMalformed
	}
	a.ethDst = network.MAC(frame[0:6])
	a.sha, a.spa, a.tha, a.tpa = network.MAC(b[8:14]), address4(b[14:]), network.MAC(b[18:24]), address4(b[24:])
	if a.sha == (network.MAC{}) || a.sha[0]&1 != 0 || frame[6]&1 != 0 {
		return dropMalformed
	}
	return ""
}

// putARPRequest writes a question of mac with the address ip about another one.
func putARPRequest(frame *[arpLen]byte, mac network.MAC, ip, about netip.Addr) {
	putGratuitousARP(frame, mac, ip)
	putAddress4(frame[ethernetLen+24:], about)
}
