package controller

import (
	"context"
	"encoding/binary"
	"net/netip"
	"slices"
	"sync"
	"time"

	"planck/network"
)

// Times of announcements.
const (
	// announceTimes is how often an address that came to a host is announced,
	// since a frame may get lost, with announcePause between.
	announceTimes = 3
	announcePause = time.Second
	// announceWait is how long an announcement waits for the host's flows.
	announceWait = 5 * time.Second
	// announceArrival is how long an interface of a router counts as new.
	announceArrival = time.Minute
	// announcePace is the least time between two looks, each of which sends no
	// more than announceBurst.
	announcePace  = 50 * time.Millisecond
	announceBurst = 200
)

// announcer tells external networks by gratuitous ARP, and its like for IPv6, which host has an address
// now: the switches there learn by which wire its MAC is reached. And it tells a
// network that a router has come to it: its VMs may know another MAC for the address. It compares
// which host has each address (activeAddresses) with which host it was announced
// from last. A controller that starts announces each address once: it can't know
// whether another one came to do it.
type announcer struct {
	ctl  *Controller
	kick chan struct{}

	mu       sync.Mutex
	caughtUp bool     // with the changes that came before this controller
	arrived  []string // ports of routers that are new on their networks

	// Of the goroutine that runs.
	announced map[externalAddress]*announced
	started   bool
}

// externalAddress is an address that a host may have on an external network.
type externalAddress struct {
	networkID string
	mac       network.MAC
	ip        netip.Addr
}

// announced is how far the announcement of an address is.
type announced struct {
	host     string
	revision uint64 // at which the host was seen to have the address
	since    time.Time
	left     int // announcements that are still to be made
	next     time.Time
	portID   string // of a router's interface, which all hosts have; "" for an external address
}

func newAnnouncer(c *Controller) *announcer {
	return &announcer{ctl: c, kick: make(chan struct{}, 1), announced: map[externalAddress]*announced{}}
}

// activeAddresses tells which host has which address on an external network.
func activeAddresses(v *network.View, visit func(a externalAddress, host string)) {
	for g := range v.GatewayPlacements() {
		r := v.Router(g.RouterID)
		if r == nil || !r.AdminStateUp {
			continue
		}
		if p, host := v.Port(r.GatewayPortID), v.GatewayHost(r.ID); p != nil && host != "" {
			visitAddresses(p, host, visit)
		}
	}
	for f := range v.FloatingIPs() {
		if r := v.Router(f.RouterID); r == nil || !r.AdminStateUp {
			continue
		}
		if p, host := v.Port(f.FloatingPortID), v.FloatingHost(f); p != nil && host != "" {
			visitAddresses(p, host, visit)
		}
	}
}

// visitAddresses visits the addresses of a port.
func visitAddresses(p *network.Port, host string, visit func(a externalAddress, host string)) {
	for _, f := range p.FixedIPs {
		visit(externalAddress{p.NetworkID, p.MAC, f.IP}, host)
	}
}

// announcedKinds are the kinds of objects on which activeAddresses depends.
var announcedKinds = map[network.Kind]bool{
	network.KindRouter: true, network.KindGatewayPlacement: true, network.KindHostDown: true,
	network.KindFloatingIP: true, network.KindPresence: true, network.KindVIF: true, network.KindPort: true,
}

// note looks again when something changed that may matter.
func (a *announcer) note(b network.Batch) {
	a.noteInterfaces(b)
	for _, ch := range b.Changes {
		if announcedKinds[ch.Kind] {
			a.wake()
			return
		}
	}
}

// noteInterfaces takes the interfaces of routers that came to a network, or have
// another address there.
func (a *announcer) noteInterfaces(b network.Batch) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, ch := range b.Changes {
		p, ok := ch.After.(*network.Port)
		if !ok || p.DeviceOwner != network.OwnerRouterInterface || !a.caughtUp {
			continue
		}
		if was, ok := ch.Before.(*network.Port); !ok || was.MAC != p.MAC || !slices.Equal(was.FixedIPs, p.FixedIPs) {
			a.arrived = append(a.arrived, p.ID)
		}
	}
	a.caughtUp = true
}

// addArrived makes the interfaces of routers that came be announced, each from
// one host: the flood reaches the others.
func (a *announcer) addArrived(v *network.View, now time.Time) {
	a.mu.Lock()
	arrived := a.arrived
	a.arrived = nil
	a.mu.Unlock()
	for _, id := range arrived {
		p := v.Port(id)
		if p == nil {
			continue
		}
		if r := v.Router(p.DeviceID); r == nil || !r.AdminStateUp {
			continue
		}
		visitAddresses(p, a.speaker(v, p.NetworkID), func(address externalAddress, host string) {
			a.announced[address] = &announced{host: host, revision: v.Revision(), since: now, left: a.times(host), next: now, portID: id}
		})
	}
}

// stillArriving reports whether an interface of a router has its address and is
// to be announced again. One whose host is away by now speaks through another.
func (a *announcer) stillArriving(v *network.View, address externalAddress, is *announced, now time.Time) bool {
	p := v.Port(is.portID)
	if p == nil || p.MAC != address.mac || is.left == 0 || now.Sub(is.since) > announceArrival {
		return false
	}
	if !a.ctl.hostLive(is.host) {
		is.host = a.speaker(v, p.NetworkID)
	}
	return slices.ContainsFunc(p.FixedIPs, func(f network.FixedIP) bool { return f.IP == address.ip })
}

// speaker is the first host by name that is connected and has a network.
func (a *announcer) speaker(v *network.View, networkID string) (host string) {
	for pr := range v.PresencesOf(networkID) {
		if (host == "" || pr.Host < host) && a.ctl.hostLive(pr.Host) {
			host = pr.Host
		}
	}
	return host
}

func (a *announcer) wake() {
	select {
	case a.kick <- struct{}{}:
	default:
	}
}

// run announces what is due until ctx ends.
func (a *announcer) run(ctx context.Context) error {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-a.kick:
		case <-timer.C:
		}
		again := time.Hour
		if v := a.ctl.view.Load(); v != nil {
			again = a.look(v, time.Now())
		}
		if pause(ctx, announcePace) != nil {
			return nil
		}
		timer.Reset(max(again-announcePace, 0))
	}
}

// look announces what is due and says when to look again.
func (a *announcer) look(v *network.View, now time.Time) time.Duration {
	active := map[externalAddress]bool{}
	activeAddresses(v, func(address externalAddress, host string) {
		active[address] = true
		is := a.announced[address]
		if is == nil || is.host != host {
			a.announced[address] = &announced{host: host, revision: v.Revision(), since: now, left: a.times(host), next: now}
		}
	})
	a.addArrived(v, now)
	a.started = true
	again, sent := time.Hour, 0
	for address, is := range a.announced {
		if !active[address] && !a.stillArriving(v, address, is, now) {
			delete(a.announced, address)
			continue
		}
		if is.left == 0 {
			continue
		}
		if wait := is.next.Sub(now); wait > 0 {
			again = min(again, wait)
			continue
		}
		if sent == announceBurst || !a.ready(is, now) {
			again = announcePace
			continue
		}
		sent++
		is.next = now.Add(announcePause)
		if a.send(v, address, is.host) {
			is.left--
		}
		again = min(again, announcePause)
	}
	return again
}

// times is how often an address is announced that was not on its host before:
// by the controller that programs the host.
func (a *announcer) times(host string) int {
	if !a.ctl.opt.Cluster.Owns(host) {
		return 0
	}
	if !a.started {
		return 1
	}
	return announceTimes
}

// ready reports whether a host has its flows for an address: what is drawn to
// it earlier would be lost.
func (a *announcer) ready(is *announced, now time.Time) bool {
	return a.ctl.hostApplied(is.host, is.revision) || now.Sub(is.since) > announceWait
}

func (a *announcer) send(v *network.View, address externalAddress, host string) bool {
	n, presence := v.Network(address.networkID), v.Presence(address.networkID, host)
	if n == nil || presence == nil {
		return false
	}
	if !a.ctl.flood(host, n.Key, presence.VLAN, announcement(address.mac, address.ip)) {
		return false
	}
	a.ctl.metrics.announcements.Inc()
	return true
}

// putGratuitousARP writes an announcement: a question about an address from
// that address (RFC 5227, 3).
func putGratuitousARP(frame *[arpLen]byte, mac network.MAC, ip netip.Addr) {
	copy(frame[0:], broadcastMAC[:])
	copy(frame[6:], mac[:])
	binary.BigEndian.PutUint16(frame[12:], etherTypeARP)
	b := frame[ethernetLen:]
	binary.BigEndian.PutUint64(b, arpHeader|arpRequest)
	copy(b[8:], mac[:])
	putAddress4(b[14:], ip)
	putAddress4(b[24:], ip)
}
