package controller

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"time"

	"planck/flows"
	"planck/network"
	"planck/pipeline"
)

// RA advertises routers (RFC 4861, 6.2): from each interface that has subnets
// with an ipv6_ra_mode, to the ports of its network on all hosts, from time to
// time, when what there is to say changes, and to who asks. The source is the
// link-local address of the interface's MAC.
type RA struct {
	actions string // to the port that asked

	mu      sync.Mutex
	adverts map[string]map[string]*advert // by network, interface
}

// advert is what an interface advertises.
type advert struct {
	frame   []byte
	due     time.Time
	initial int // how many more come at the short interval
}

// NewRA makes the responder of pipeline.FeatureRA.
func NewRA() *RA {
	return &RA{actions: flows.ActionList(flows.Output(flows.PortInPort)), adverts: make(map[string]map[string]*advert)}
}

// Feature implements Responder.
func (*RA) Feature() pipeline.FeatureID { return pipeline.FeatureRA }

// Times of advertisements, as Neutron configures radvd, and RFC 4861, 6.2.1.
const (
	raMinInterval     = 30 * time.Second
	raMaxInterval     = 100 * time.Second
	raInitialInterval = 16 * time.Second
	raInitialCount    = 2 // after the first
	// raLifetime is how long a router counts as one, and its DNS servers.
	raLifetime = 3 * raMaxInterval
	// Lifetimes of prefixes.
	raValid     = 24 * time.Hour
	raPreferred = 4 * time.Hour

	raTick = time.Second
	// raPortsTogether is how many ports one message names.
	raPortsTogether = 1000
)

const (
	icmpRouterSolicitation  = 133
	icmpRouterAdvertisement = 134
	// raLifetimeAt is where an advertisement has the router's lifetime.
	raLifetimeAt = 6

	optionPrefix  = 3
	optionLinkMTU = 5
	optionRDNSS   = 25

	raManaged, raOther     = 0x80, 0x40
	raOnLink, raAutonomous = 0x80, 0x40
)

// Respond implements Responder. What is not answered is noted as dropped with its reason.
func (a *RA) Respond(_ context.Context, in *PacketIn, out *Replies) error {
	var p ipv6Packet
	if reason := p.solicitsRouter(in.Data); reason != "" {
		out.Drop(reason)
		return nil
	}
	n := in.View.NetworkByKey(in.NetworkKey())
	if n == nil {
		out.Drop(dropUnknownPort)
		return nil
	}
	dst, mac := p.src, p.ethSrc
	if p.src.IsUnspecified() {
		dst, mac = allNodes, allNodesMAC
	}
	for router := range in.View.RouterPortsOf(n.ID) {
		if frame := advertisement(in.View, n, router, mac, dst); frame != nil {
			out.PacketOut(in.InPort, a.actions, frame)
		}
	}
	if len(out.outs) == 0 {
		out.Drop(dropNoServer)
	}
	return nil
}

// solicitsRouter reads a frame; it returns why it is no valid router
// solicitation (RFC 4861, 6.1.1), or "".
func (p *ipv6Packet) solicitsRouter(frame []byte) string {
	if reason := p.parse(frame); reason != "" {
		return reason
	}
	if reason := p.icmpv6(8); reason != "" {
		return reason
	}
	if p.payload[0] != icmpRouterSolicitation {
		return dropOtherType
	}
	source, ok := ndOption(p.payload[8:], optionSourceLinkLayer)
	if !ok || p.payload[1] != 0 || p.hopLimit != hopLimitLink || p.src.IsMulticast() || p.src.IsUnspecified() && source != nil {
		return dropMalformed
	}
	return ""
}

// advertisement is the frame that advertises a router through an interface, nil
// when it advertises nothing.
func advertisement(v *network.View, n *network.Network, router *network.Port, ethDst network.MAC, dst netip.Addr) []byte {
	subnets := pipeline.Advertised(v, router)
	if len(subnets) == 0 || !n.AdminStateUp {
		return nil
	}
	frame := appendIPv6(make([]byte, 0, 256), ethDst, router.MAC, router.MAC.LinkLocal(), dst, protocolICMPv6, hopLimitLink)
	frame = append(frame, icmpRouterAdvertisement, 0, 0, 0, 64, raFlags(subnets))
	frame = binary.BigEndian.AppendUint16(frame, uint16(raLifetime/time.Second))
	frame = append(frame, 0, 0, 0, 0, 0, 0, 0, 0, optionSourceLinkLayer, 1)
	frame = append(frame, router.MAC[:]...)
	frame = append(frame, optionLinkMTU, 1, 0, 0)
	frame = binary.BigEndian.AppendUint32(frame, uint32(n.MTU))
	for _, s := range subnets {
		frame = appendPrefix(frame, s)
	}
	frame = appendRDNSS(frame, subnets)
	finishIPv6(frame, icmpv6Checksum)
	return frame
}

// raFlags says whether DHCPv6 gives addresses, or other things only.
func raFlags(subnets []*network.Subnet) byte {
	var flags byte
	for _, s := range subnets {
		switch s.IPv6RAMode {
		case network.DHCPv6Stateful:
			flags |= raManaged
		case network.DHCPv6Stateless:
			flags |= raOther
		}
	}
	return flags
}

func appendPrefix(frame []byte, s *network.Subnet) []byte {
	flags := byte(raOnLink)
	if s.EUI64() {
		flags |= raAutonomous
	}
	frame = append(frame, optionPrefix, 4, byte(s.CIDR.Bits()), flags)
	frame = binary.BigEndian.AppendUint32(frame, uint32(raValid/time.Second))
	frame = binary.BigEndian.AppendUint32(frame, uint32(raPreferred/time.Second))
	return appendAddress16(append(frame, 0, 0, 0, 0), s.CIDR.Addr())
}

// appendRDNSS appends the DNS servers of subnets whose hosts make their own
// addresses (RFC 8106); others hear of them by DHCPv6.
func appendRDNSS(frame []byte, subnets []*network.Subnet) []byte {
	servers := raServers(subnets)
	if len(servers) == 0 {
		return frame
	}
	frame = append(frame, optionRDNSS, byte(1+2*len(servers)), 0, 0)
	frame = binary.BigEndian.AppendUint32(frame, uint32(raLifetime/time.Second))
	for _, a := range servers {
		frame = appendAddress16(frame, a)
	}
	return frame
}

// maxRDNSS is as many servers as an option has room for.
const maxRDNSS = 127

func raServers(subnets []*network.Subnet) []netip.Addr {
	var servers []netip.Addr
	for _, s := range subnets {
		if !s.EUI64() {
			continue
		}
		for _, a := range s.DNSNameservers {
			if unicast(a) && !slices.Contains(servers, a) {
				servers = append(servers, a)
			}
		}
	}
	return servers[:min(len(servers), maxRDNSS)]
}

// Run implements Active.
func (a *RA) Run(ctx context.Context, c *Controller) error {
	var following sync.WaitGroup
	defer following.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	failed := make(chan error, 1)
	following.Go(func() { failed <- a.follow(ctx, c) })
	tick := time.NewTicker(raTick)
	defer tick.Stop()
	for {
		select {
		case err := <-failed:
			return err
		case <-tick.C:
			a.sendDue(c, time.Now())
		}
	}
}

// follow keeps the advertisements equal to the model.
func (a *RA) follow(ctx context.Context, c *Controller) error {
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
		for id := range concerned(batch) {
			a.settle(batch.View, id, c, time.Now())
		}
	}
}

// concerned are the networks on which a batch may have changed what is advertised.
func concerned(b network.Batch) map[string]struct{} {
	ids := make(map[string]struct{})
	for _, change := range b.Changes {
		for _, o := range []network.Object{change.Before, change.After} {
			switch o := o.(type) {
			case *network.Network:
				ids[o.ID] = struct{}{}
			case *network.Subnet:
				ids[o.NetworkID] = struct{}{}
			case *network.Port:
				if o.DeviceOwner == network.OwnerRouterInterface {
					ids[o.NetworkID] = struct{}{}
				}
			case *network.Router:
				for p := range b.View.InterfacesOf(o.ID) {
					ids[p.NetworkID] = struct{}{}
				}
			}
		}
	}
	return ids
}

// settle notes what is to be advertised on a network. What is new is due at
// once; who no longer advertises says so.
func (a *RA) settle(v *network.View, networkID string, c *Controller, now time.Time) {
	frames := make(map[string][]byte)
	if n := v.Network(networkID); n != nil {
		for router := range v.RouterPortsOf(networkID) {
			if frame := advertisement(v, n, router, allNodesMAC, allNodes); frame != nil {
				frames[router.ID] = frame
			}
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	known := a.adverts[networkID]
	for id, old := range known {
		if frames[id] == nil {
			delete(known, id)
			multicast(v, networkID, c, retirement(old.frame))
		}
	}
	for id, frame := range frames {
		if old := known[id]; old != nil && slices.Equal(old.frame, frame) {
			continue
		}
		if known == nil {
			known = make(map[string]*advert)
			a.adverts[networkID] = known
		}
		known[id] = &advert{frame: frame, due: now, initial: raInitialCount}
	}
	if len(known) == 0 {
		delete(a.adverts, networkID)
	}
}

// retirement is an advertisement of a router that is none any more.
func retirement(frame []byte) []byte {
	frame = slices.Clone(frame)
	icmp := frame[ethernetLen+ipv6Len:]
	binary.BigEndian.PutUint16(icmp[raLifetimeAt:], 0)
	binary.BigEndian.PutUint16(icmp[icmpv6Checksum:], 0)
	finishIPv6(frame, icmpv6Checksum)
	return frame
}

func (a *RA) sendDue(c *Controller, now time.Time) {
	v := c.view.Load()
	if v == nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for networkID, adverts := range a.adverts {
		for _, ad := range adverts {
			if ad.due.After(now) {
				continue
			}
			multicast(v, networkID, c, ad.frame)
			ad.schedule(now)
		}
	}
}

func (ad *advert) schedule(now time.Time) {
	wait := raMinInterval + rand.N(raMaxInterval-raMinInterval)
	if ad.initial > 0 {
		ad.initial--
		wait = raInitialInterval
	}
	ad.due = now.Add(wait)
}

// multicast sends a frame to the ports of a network on all hosts that are
// connected here.
func multicast(v *network.View, networkID string, c *Controller, frame []byte) {
	for place := range v.PresencesOf(networkID) {
		if !place.Wired {
			continue
		}
		for ports := range slices.Chunk(listeners(v, networkID, place.Host), raPortsTogether) {
			c.PacketOut(place.Host, network.BridgeIntegration, flows.ActionList(ports...), frame)
		}
	}
}

// listeners are outputs to the ports of a network that are up on a host.
func listeners(v *network.View, networkID, host string) []flows.Action {
	var outputs []flows.Action
	for p := range v.PortsOfOn(networkID, host) {
		if vif := v.VIF(p.ID, host); vif != nil && p.AdminStateUp {
			outputs = append(outputs, flows.Output(vif.OFPort))
		}
	}
	return outputs
}
