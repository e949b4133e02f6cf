package pipeline

import (
	"cmp"
	"encoding/binary"
	"net/netip"
	"slices"

	"planck/flows"
	"planck/network"
)

// routerFeature routes between the networks of a router on the host of the
// sender: the router has the same MACs everywhere, and a routed packet is
// delivered on the destination's network like any other.
type routerFeature struct{}

func (routerFeature) ID() FeatureID { return FeatureRouter }
func (routerFeature) Name() string  { return "router" }

// Priorities in RouterAdmit.
const (
	admitSilenced  = 150 // pings of a port that punts too many
	admitLocalPing = 131 // of an address that Planck stands for, from a port on this host
	admitPing      = 130 // of the router's own external address
	admitExpired   = 120 // TTL is used up
	admitRouted    = 100
)

// routePriority makes longer prefixes win, and of equal ones a connected subnet.
func routePriority(p netip.Prefix, connected bool) uint16 {
	priority := uint16(100 + 4*p.Bits())
	if connected {
		priority += 2
	}
	return priority
}

// CompileHost implements HostFeature.
func (routerFeature) CompileHost(c *Context) {
	puntMeter(c, meterRouter)
	c.Flow(Route, 0, everything, Drop(DropNoRoute)...)
	c.Flow(RouterICMP, 0, everything, punt(c, meterRouter)...)
	c.Flow(Neighbor, 0, everything, Drop(DropUnknownNeighbor)...)
}

// CompilePort implements PortFeature.
func (routerFeature) CompilePort(c *Context, p *PortContext) {
	if p.DeviceOwner == network.OwnerRouterInterface {
		compileInterface(c, p)
	}
	if p.Up() && (p.Network.External || routed(c.View, p.NetworkID)) {
		compileNeighbor(c, p)
	}
}

// routed reports whether a network has a router.
func routed(v *network.View, networkID string) bool {
	for p := range v.ServicePortsOf(networkID) {
		if p.DeviceOwner == network.OwnerRouterInterface {
			return true
		}
	}
	return false
}

// compileInterface makes the flows of a router's port: what is sent to its MAC
// is routed, and its subnets can be reached from the router's other networks.
func compileInterface(c *Context, p *PortContext) {
	r := c.View.Router(p.DeviceID)
	if r == nil || !r.AdminStateUp || !p.AdminStateUp {
		return
	}
	if !p.Network.AdminStateUp {
		compileDeadEnds(c, p, r)
		return
	}
	smaller := narrowOf(c, r)
	admitInternal(c, r, p, smaller)
	c.masquerade(p)
	c.flags, c.object = FlagRouter, r.Key
	c.Flow(Route, 1, flows.NewMatch(onRouter(r), flows.IPv4), To(RouterICMP))
	c.flags, c.object = 0, p.Key
	for _, f := range p.FixedIPs {
		s := c.View.Subnet(f.SubnetID)
		if s == nil || s.IPVersion != 4 {
			continue
		}
		c.route(smaller, p.Network.MTU, routePriority(s.CIDR, true), toPrefix(r, s.CIDR),
			out(c, p, flows.Move(flows.IPv4Dst, RegNextHop))...)
		for _, route := range extraRoutes(r) {
			if s.CIDR.Contains(route.NextHop) {
				c.route(smaller, p.Network.MTU, routePriority(route.Destination, false), toPrefix(r, route.Destination),
					out(c, p, flows.SetField(RegNextHop, ipv4Bits(route.NextHop)))...)
			}
		}
	}
}

// admitInternal takes in the IPv4 packets that are sent to an interface's MAC. An
// interface without an IPv4 address does not route them: it could not say from
// whom an error comes.
func admitInternal(c *Context, r *network.Router, p *PortContext, smaller narrow) {
	toRouter := func(terms ...flows.Term) flows.Match {
		return flows.NewMatch(append(terms, onNetwork(p.Network), flows.EthDst.IsMAC(p.MAC), flows.IPv4)...)
	}
	if !p.Port.FirstIPv4().IsValid() {
		c.Flow(RouterAdmit, admitRouted, toRouter(), Drop(DropUnknownDestination)...)
		return
	}
	for ttl := range uint64(2) {
		c.Flow(RouterAdmit, admitExpired, toRouter(flows.IPTTL.Is(ttl)), setRouter(r), To(RouterICMP))
	}
	c.Flow(RouterAdmit, admitRouted, toRouter(), admit(r, smaller.measure(p.Network.MTU), Route)...)
	if joined(c.View, p) {
		c.readmit(r, p, flows.IPv4)
	}
}

// admit is the actions that give a packet to a router: it is measured, and goes on.
func admit(r *network.Router, measure []flows.Action, next *Table) []flows.Action {
	return append(append([]flows.Action{setRouter(r)}, measure...), To(next))
}

// joined reports whether the network of a router's interface has another router,
// that may send to this one.
func joined(v *network.View, p *PortContext) bool {
	for other := range v.RouterPortsOf(p.NetworkID) {
		if other.DeviceID != p.DeviceID && v.Router(other.DeviceID) != nil {
			return true
		}
	}
	return false
}

// readmit lets a router take what another one on this host sent to it, and drops
// what it sent to itself. The port that it came from stays known: it is told
// when the packet can't be forwarded.
func (c *Context) readmit(r *network.Router, p *PortContext, family flows.Term) {
	c.Flow(L2Lookup, 100, flows.NewMatch(onNetwork(p.Network), flows.EthDst.IsMAC(p.MAC), family),
		flows.CTClear(), flows.SetField(flows.InPort, 0), flows.SetField(RegFlags, 0), flows.SetField(RegMTU, 0), flows.Resubmit(RouterAdmit.ID))
	c.Flow(L2Lookup, 101, flows.NewMatch(flows.Metadata.Is(uint64(r.Key)<<32|uint64(p.Network.Key)), flows.EthDst.IsMAC(p.MAC), family),
		Drop(DropUnknownDestination)...)
}

// compileDeadEnds ends what a router would send to a network that is down: a
// route that leads elsewhere, to the router's gateway, must not take it.
func compileDeadEnds(c *Context, p *PortContext, r *network.Router) {
	for _, f := range p.FixedIPs {
		s := c.View.Subnet(f.SubnetID)
		if s == nil {
			continue
		}
		c.Flow(Route, routePriority(s.CIDR, true), toPrefix(r, s.CIDR), Drop(DropNetworkDown)...)
		for _, route := range extraRoutes(r) {
			if s.CIDR.Contains(route.NextHop) {
				c.Flow(Route, routePriority(route.Destination, false), toPrefix(r, route.Destination), Drop(DropNetworkDown)...)
			}
		}
	}
}

// extraRoutes are a router's extra routes, one for each destination: of several,
// which the API takes, the one with the lowest next hop counts.
func extraRoutes(r *network.Router) []network.Route {
	if len(r.Routes) < 2 {
		return r.Routes
	}
	routes := slices.SortedFunc(slices.Values(r.Routes), func(a, b network.Route) int {
		return cmp.Or(cmp.Compare(a.Destination.Bits(), b.Destination.Bits()), a.Destination.Masked().Addr().Compare(b.Destination.Masked().Addr()), a.NextHop.Compare(b.NextHop))
	})
	return slices.CompactFunc(routes, func(a, b network.Route) bool { return a.Destination.Masked() == b.Destination.Masked() })
}

// toPrefix matches what a router shall send to some addresses.
func toPrefix(r *network.Router, p netip.Prefix) flows.Match {
	if p.Addr().Is4() {
		return flows.NewMatch(onRouter(r), flows.IPv4, flows.IPv4Dst.InPrefix(p))
	}
	return flows.NewMatch(onRouter(r), flows.IPv6, flows.IPv6Dst.InPrefix(p))
}

// masquerade keeps the router's MAC off a physical network, where switches
// learn MACs: this host's chassis MAC stands for it.
func (c *Context) masquerade(p *PortContext) {
	if !p.Network.Provider() {
		return
	}
	if bridge, _, ok := c.ProviderBridge(p.Network.PhysicalNetwork); ok {
		c.ProviderFlow(bridge, Masquerade, 100, flows.NewMatch(flows.EthSrc.IsMAC(p.MAC)),
			flows.SetMAC(flows.EthSrc, chassisMAC(c.Host)), flows.Output(flows.PortNormal))
	}
}

// chassisMAC is a host's own MAC on physical networks, made of its key.
func chassisMAC(h *network.Host) network.MAC {
	return network.MAC{0x0e, 0x50, 0x4c, byte(h.Key >> 16), byte(h.Key >> 8), byte(h.Key)}
}

// anyChassis matches what was sent with the chassis MAC of any host.
var anyChassis = flows.EthSrc.MaskedMAC([6]byte{0x0e, 0x50, 0x4c}, [6]byte{0xff, 0xff, 0xff})

// out is the actions that leave a router through an interface to a next hop. The
// packet may leave by the port that it came from.
func out(c *Context, p *PortContext, nextHop flows.Action) []flows.Action {
	return []flows.Action{
		flows.SetField(flows.InPort, 0),
		flows.DecTTL(),
		nextHop,
		flows.SetMAC(flows.EthSrc, p.MAC),
		setNetwork(p.Network),
		flows.SetField(RegLocalVLAN, uint64(p.Presence.VLAN)),
		To(Neighbor),
	}
}

// compileNeighbor gives the MAC of an address on a network that is routed.
func compileNeighbor(c *Context, p *PortContext) {
	last := []flows.Action{To(L2Lookup)}
	if p.Network.External {
		last = []flows.Action{To(GatewaySteer)}
	}
	if p.Here && p.Service() {
		last = append([]flows.Action{flows.SetMasked(RegFlags, flagReenters, flagReenters)}, last...)
	}
	for _, f := range p.FixedIPs {
		if f.IP.Is4() && !reserved(c.View, p, f.IP) {
			c.Flow(Neighbor, 100, flows.NewMatch(onNetwork(p.Network), RegNextHop.Is(ipv4Bits(f.IP))), append([]flows.Action{flows.SetMAC(flows.EthDst, p.MAC)}, last...)...)
		}
	}
}

// ipv4Bits is an IPv4 address as a register holds it.
func ipv4Bits(a netip.Addr) uint64 {
	b := a.As4()
	return uint64(binary.BigEndian.Uint32(b[:]))
}

// onRouter matches the packets that a router has admitted.
func onRouter(r *network.Router) flows.Term {
	return flows.Metadata.Masked(uint64(r.Key)<<32, allBits<<32)
}

func setRouter(r *network.Router) flows.Action {
	return flows.SetMasked(flows.Metadata, uint64(r.Key)<<32, allBits<<32)
}
