package pipeline

import (
	"net/netip"
	"slices"

	"planck/flows"
	"planck/network"
)

// holderFeature leads routers to addresses that may be with one port or another:
// those of address pairs, and those of ports without port security. It shows the
// controller what such ports say of themselves by ARP; who holds an address is a
// fact of the model then.
type holderFeature struct{}

func (holderFeature) ID() FeatureID { return FeatureHolder }
func (holderFeature) Name() string  { return "holder" }

const meterHolder = 34

// Priorities in Services of ARP packets, by what sender they name.
const (
	claimSilenced = 150 // they go on unseen
	claimShared   = 62  // the port's own address, that another port may have
	claimOwn      = 61
	claimOther    = 60
)

// neighborMoving is above the MACs of the ports that have an address.
const neighborMoving = 110

// CompileHost implements HostFeature.
func (holderFeature) CompileHost(c *Context) { puntMeter(c, meterHolder) }

// CompileNetwork implements NetworkFeature: the next hops that move. A packet for
// one that nobody is known to hold makes the controller ask for it.
func (holderFeature) CompileNetwork(c *Context, n *network.Network, _ *network.Presence) {
	if !holds(c.View, n) {
		return
	}
	held := map[netip.Addr]bool{}
	for h := range c.View.AddressHoldersOf(n.ID) {
		if h.IP.Is4() {
			held[h.IP] = true
			c.Flow(Neighbor, neighborMoving, nextHopIs(n, h.IP), flows.SetMAC(flows.EthDst, h.MAC), To(L2Lookup))
		}
	}
	for p := range c.View.PairPortsOf(n.ID) {
		for _, pair := range p.AllowedAddressPairs {
			if ip := pair.IP.Addr(); pair.IP.IsSingleIP() && ip.Is4() {
				compileShared(c, n, p, ip, held)
			}
		}
	}
	for range c.View.LoosePortsOf(n.ID) {
		c.Flow(Neighbor, natElsewhere, flows.NewMatch(onNetwork(n), flows.IPv4), ask()...)
		break
	}
}

// holds reports whether routers look for addresses on a network by themselves.
// On an external one the neighbors are those of its gateways.
func holds(v *network.View, n *network.Network) bool {
	return !n.External && n.AdminStateUp && routed(v, n.ID)
}

// compileShared makes the flows of an address that an address pair of a port
// names: it is asked for where no port has it that is plugged; one that has it
// here says so too, to have it back.
func compileShared(c *Context, n *network.Network, p *network.Port, ip netip.Addr, held map[netip.Addr]bool) {
	owner := c.View.PortByIP(n.ID, ip)
	if owner != nil && (owner.Service() || owner.ID == p.ID) {
		return
	}
	if owner != nil && c.View.WiredHost(owner) != "" {
		if c.View.WiredHost(owner) == c.Host.Name {
			showClaims(c, owner, claimShared, flows.ARPSPA.IsIP(ip))
		}
		return
	}
	if !held[ip] {
		held[ip] = true
		c.Flow(Neighbor, neighborMoving, nextHopIs(n, ip), ask()...)
	}
}

func nextHopIs(n *network.Network, ip netip.Addr) flows.Match {
	return flows.NewMatch(onNetwork(n), RegNextHop.Is(ipv4Bits(ip)))
}

// ask is the actions of a packet whose next hop is not known: Snat sends it up.
func ask() []flows.Action {
	return []flows.Action{flows.SetMasked(RegFlags, flagUnresolved, flagUnresolved), To(Snat)}
}

// CompilePort implements PortFeature.
func (holderFeature) CompilePort(c *Context, p *PortContext) {
	if p.VIF == nil || !p.Up() || p.Service() || !holds(c.View, p.Network) {
		return
	}
	if !p.PortSecurityEnabled {
		showClaims(c, p.Port, claimOther)
	}
	loose := !p.PortSecurityEnabled
	for _, pair := range p.AllowedAddressPairs {
		if pair.IP.Addr().Is4() && !ownPair(p.Port, pair.IP) {
			showClaims(c, p.Port, claimOther, flows.ARPSPA.InPrefix(pair.IP.Masked()))
			loose = loose || !pair.IP.IsSingleIP()
		}
	}
	if loose {
		c.Flow(Services, claimOwn, claimOf(p.Key, flows.ARPSPA.IsIP(netip.IPv4Unspecified())), To(ArpNd))
	}
	for _, f := range p.FixedIPs {
		if loose && f.IP.Is4() {
			c.Flow(Services, claimOwn, claimOf(p.Key, flows.ARPSPA.IsIP(f.IP)), To(ArpNd))
		}
	}
}

// ownPair reports whether an address pair is a fixed address of the port itself.
func ownPair(p *network.Port, pair netip.Prefix) bool {
	return pair.IsSingleIP() && slices.ContainsFunc(p.FixedIPs, func(f network.FixedIP) bool { return f.IP == pair.Addr() })
}

func showClaims(c *Context, p *network.Port, priority uint16, sender ...flows.Term) {
	c.Flow(Services, priority, claimOf(p.Key, sender...), append(punt(c, meterHolder), To(ArpNd))...)
}

// claimOf matches ARP packets by which a port says that it has an address.
func claimOf(portKey uint32, sender ...flows.Term) flows.Match {
	return flows.NewMatch(append(sender, RegSource.Is(uint64(portKey)), flows.ARP)...)
}
