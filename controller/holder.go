package controller

import (
	"context"
	"encoding/binary"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"sync"
	"time"

	"planck/network"
	"planck/pipeline"
)

// Times of addresses that move between ports.
const (
	// holderPace is the least time between two looks: a failover waits for one.
	holderPace = 50 * time.Millisecond
	// holderPause is how long an address stays where it moved to: two ports that
	// fight for one do not keep the switches busy.
	holderPause = 500 * time.Millisecond
	// holderDirect is how many questions go to the port that held an address last,
	// before all are asked.
	holderDirect = 2
	// maxClaims bounds what waits to be written.
	maxClaims = 4096
)

// Why what a port says of itself is not believed.
const dropNotAllowed = "not allowed to hold"

// holders finds which ports hold the addresses that move between ports
// (network.AddressHolder). Packets that a router has for one that nobody holds
// make it ask by ARP, with the router's address, from the host of the packet. What
// a port says of itself, to a router or to all, counts if the port may hold the
// address; the last one to say so has it. Holders are asked again now and then,
// from their own hosts: an address may move without a word.
//
// Who holds what is in the store; only how old that is, is not, so that a
// controller that starts changes nothing.
type holders struct {
	ctl  *Controller
	log  *slog.Logger
	kick chan struct{}

	mu     sync.Mutex
	asked  map[uint32]map[neighborKey]time.Time  // for packets, by the router's key
	claims map[neighborKey]network.AddressHolder // that are not written yet
	moved  map[neighborKey]time.Time             // addresses that may not move again yet
	probes map[neighborKey]*probe
}

// probe is what is known of the age of a holder.
type probe struct {
	answered, askedAt time.Time
	tries             int // questions since the last answer
}

func newHolders(c *Controller) *holders {
	return &holders{
		ctl: c, log: c.log, kick: make(chan struct{}, 1),
		asked: map[uint32]map[neighborKey]time.Time{}, claims: map[neighborKey]network.AddressHolder{},
		moved: map[neighborKey]time.Time{}, probes: map[neighborKey]*probe{},
	}
}

// Feature implements Responder.
func (*holders) Feature() pipeline.FeatureID { return pipeline.FeatureHolder }

// Respond implements Responder: it takes what a port says of itself by ARP.
func (h *holders) Respond(_ context.Context, in *PacketIn, out *Replies) error {
	var a arpClaim
	reason := a.parse(in.Data)
	if reason == "" {
		reason = h.claim(in, &a)
	}
	if reason != "" {
		out.Drop(reason)
	}
	return nil
}

// claim takes what a port says; it returns why it is not believed, or "".
func (h *holders) claim(in *PacketIn, a *arpClaim) string {
	v := in.View
	n, p := v.NetworkByKey(in.NetworkKey()), v.PortByKey(in.PortKey())
	if n == nil || p == nil || p.NetworkID != n.ID || v.WiredHost(p) != in.Host {
		return dropUnknownPort
	}
	if !v.MayHold(p, a.spa, a.sha) {
		return dropNotAllowed
	}
	key, is := neighborKey{n.ID, a.spa}, v.AddressHolder(n.ID, a.spa)
	h.mu.Lock()
	defer h.mu.Unlock()
	if is != nil && is.PortID == p.ID && is.MAC == a.sha {
		delete(h.claims, key)
		if pr := h.probes[key]; pr != nil {
			pr.answered, pr.tries = time.Now(), 0
		}
		return ""
	}
	owner := v.PortByIP(n.ID, a.spa)
	if is == nil && owner == p {
		delete(h.claims, key)
		return "" // as everybody thinks
	}
	if is == nil && owner == nil && !named(v, n.ID, a.spa) && !(a.reply && isRouter(v, n.ID, a.tha)) {
		return dropUnasked
	}
	if _, pending := h.claims[key]; !pending && len(h.claims) >= maxClaims {
		return dropTooMany
	}
	h.claims[key] = network.AddressHolder{NetworkID: n.ID, IP: a.spa, PortID: p.ID, MAC: a.sha}
	h.wake()
	return ""
}

// named reports whether an address pair is for just this address.
func named(v *network.View, networkID string, ip netip.Addr) bool {
	for p := range v.PairPortsOf(networkID) {
		for _, pair := range p.AllowedAddressPairs {
			if pair.IP.IsSingleIP() && pair.IP.Addr() == ip {
				return true
			}
		}
	}
	return false
}

// isRouter reports whether a router's interface on a network has a MAC.
func isRouter(v *network.View, networkID string, mac network.MAC) bool {
	p := v.PortByMAC(networkID, mac)
	return p != nil && p.DeviceOwner == network.OwnerRouterInterface
}

// request asks for the next hop of a packet that a router can't send on; it
// returns why it does not, or "".
func (h *holders) request(in *PacketIn, n *network.Network) string {
	key := neighborKey{n.ID, nextHop(in)}
	if !key.ip.Is4() || !in.View.AddressMoves(n.ID, key.ip) {
		return dropNotOnLink
	}
	now := time.Now()
	h.mu.Lock()
	defer h.mu.Unlock()
	asked := h.asked[in.RouterKey()]
	if now.Sub(asked[key]) < holderPause {
		return ""
	}
	if len(asked) >= maxNeighborRequests {
		forgetAsked(asked, now)
	}
	if len(asked) >= maxNeighborRequests {
		return dropTooMany
	}
	if asked == nil {
		asked = map[neighborKey]time.Time{}
		h.asked[in.RouterKey()] = asked
	}
	asked[key] = now
	h.ask(in.View, in.Host, key, nil)
	return ""
}

// forgetAsked forgets the questions of a router that may be asked again.
func forgetAsked(asked map[neighborKey]time.Time, now time.Time) {
	for key, at := range asked {
		if now.Sub(at) >= holderPause {
			delete(asked, key)
		}
	}
}

// forgetQuestions forgets what no router has to wait for any more.
func (h *holders) forgetQuestions(now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for router, asked := range h.asked {
		if forgetAsked(asked, now); len(asked) == 0 {
			delete(h.asked, router)
		}
	}
}

// ask sends a question for a router into a network, to all or to one MAC.
func (h *holders) ask(v *network.View, host string, key neighborKey, to *network.MAC) {
	n, presence, by := v.Network(key.networkID), v.Presence(key.networkID, host), askerFor(v, key)
	if n == nil || presence == nil || by == nil {
		return
	}
	frame := question(by.MAC, addressTowards(v, by, key.ip), key.ip)
	if to != nil {
		copy(frame, to[:])
	}
	if h.ctl.flood(host, n.Key, presence.VLAN, frame) {
		h.ctl.metrics.holderQuestions.Inc()
	}
}

// askerFor is the router's interface that asks for an address: one with an
// address beside it, else any.
func askerFor(v *network.View, key neighborKey) *network.Port {
	var first *network.Port
	for p := range v.RouterPortsOf(key.networkID) {
		r := v.Router(p.DeviceID)
		from := addressTowards(v, p, key.ip)
		if r == nil || !r.AdminStateUp || !from.IsValid() {
			continue
		}
		for _, f := range p.FixedIPs {
			if s := v.Subnet(f.SubnetID); f.IP == from && s != nil && s.CIDR.Contains(key.ip) {
				return p
			}
		}
		if first == nil {
			first = p
		}
	}
	return first
}

func (h *holders) wake() {
	select {
	case h.kick <- struct{}{}:
	default:
	}
}

// run writes who holds what and asks those who have not been heard of for long,
// until ctx ends.
func (h *holders) run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-h.kick:
		case <-timer.C:
		}
		again := neighborRetry
		if v := h.ctl.view.Load(); v != nil {
			now := time.Now()
			h.forgetQuestions(now)
			claims, wait := h.due(now)
			if err := h.write(ctx, claims, h.probe(v, now)); err != nil {
				h.log.Warn("holders of addresses are not written, trying again", "error", err)
				h.putBack(claims)
				wait = statusRetry
			}
			again = min(again, wait)
		}
		if pause(ctx, holderPace) != nil {
			return nil
		}
		timer.Reset(max(again-holderPace, 0))
	}
}

// due takes the claims that may be written now, and says when the next may be.
func (h *holders) due(now time.Time) (claims []network.AddressHolder, again time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for key, at := range h.moved {
		if now.Sub(at) >= holderPause {
			delete(h.moved, key)
		}
	}
	again = neighborRetry
	for key, claim := range h.claims {
		if at, moved := h.moved[key]; moved {
			again = min(again, holderPause-now.Sub(at))
			continue
		}
		claims = append(claims, claim)
		h.moved[key] = now
		delete(h.claims, key)
	}
	return claims, again
}

// putBack takes claims that were not written, unless there are newer ones.
func (h *holders) putBack(claims []network.AddressHolder) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, claim := range claims {
		key := neighborKey{claim.NetworkID, claim.IP}
		delete(h.moved, key)
		if _, newer := h.claims[key]; !newer {
			h.claims[key] = claim
		}
	}
}

func (h *holders) write(ctx context.Context, claims, silent []network.AddressHolder) error {
	if len(claims)+len(silent) == 0 {
		return nil
	}
	var written []network.AddressHolder
	_, err := h.ctl.opt.Store.Update(ctx, network.Cause{Operation: "holders of addresses"}, func(tx *network.Tx) error {
		written = written[:0]
		for _, is := range silent {
			tx.DeleteAddressHolder(is)
		}
		for _, claim := range claims {
			if err := tx.SetAddressHolder(claim); err != nil {
				h.log.Debug("a port does not hold an address", "port_id", claim.PortID, "error", err)
				continue
			}
			written = append(written, claim)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, claim := range written {
		h.ctl.metrics.holderMoves.Inc()
		h.log.Info("a port holds an address now", "network_id", claim.NetworkID, "ip", claim.IP, "port_id", claim.PortID, "mac", claim.MAC)
	}
	return nil
}

// probe asks the holders on hosts that are connected here when they have not been
// heard of for long, and returns which are to be forgotten: those that do not
// answer, and whose address no address pair names.
func (h *holders) probe(v *network.View, now time.Time) (silent []network.AddressHolder) {
	h.mu.Lock()
	defer h.mu.Unlock()
	known := map[neighborKey]bool{}
	for is := range v.AddressHolders() {
		key := neighborKey{is.NetworkID, is.IP}
		p := v.Port(is.PortID)
		if p == nil || v.AddressHolder(is.NetworkID, is.IP) == nil || !h.ctl.programs(v.WiredHost(p)) {
			continue
		}
		known[key] = true
		pr := h.probes[key]
		if pr == nil {
			// As fresh as can be, and not all at once.
			pr = &probe{answered: now.Add(-rand.N(neighborRefresh))}
			h.probes[key] = pr
		}
		if pr.due(now) > 0 {
			continue
		}
		if pr.tries >= neighborTries {
			pr.answered, pr.tries = now, 0 // all were asked: not again for a while
			if !named(v, is.NetworkID, is.IP) {
				silent = append(silent, *is)
			}
			continue
		}
		var to *network.MAC
		if pr.tries < holderDirect {
			to = &is.MAC
		}
		pr.tries++
		pr.askedAt = now
		h.ask(v, v.WiredHost(p), key, to)
	}
	for key := range h.probes {
		if !known[key] {
			delete(h.probes, key)
		}
	}
	return silent
}

// due is how long it is until a holder has to be asked.
func (p *probe) due(now time.Time) time.Duration {
	if p.tries == 0 || p.answered.After(p.askedAt) {
		return p.answered.Add(neighborRefresh).Sub(now)
	}
	return p.askedAt.Add(neighborRetry).Sub(now)
}

// arpClaim is an ARP packet, as far as it says something of its sender.
type arpClaim struct {
	sha, tha network.MAC
	spa      netip.Addr
	reply    bool
}

// parse reads an untagged frame; it returns why it says nothing, or "".
func (a *arpClaim) parse(frame []byte) string {
	switch {
	case len(frame) < ethernetLen:
		return dropTruncated
	case etherType(frame) != etherTypeARP:
		return dropOtherType
	case len(frame) < arpLen:
		return dropTruncated
	}
	b := frame[ethernetLen:]
	switch binary.BigEndian.Uint64(b) {
	case arpHeader | arpRequest:
	case arpHeader | arpReply:
		a.reply = true
	default:
		return dropMalformed
	}
	a.sha, a.spa, a.tha = network.MAC(b[8:14]), address4(b[14:]), network.MAC(b[18:24])
	if a.sha == (network.MAC{}) || a.sha[0]&1 != 0 || !a.spa.IsValid() || a.spa.IsUnspecified() {
		return dropMalformed
	}
	return ""
}
