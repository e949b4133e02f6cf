package pipeline

import (
	"math"
	"slices"

	"planck/flows"
	"planck/network"
)

// The networks of a router may have different MTUs. What comes from one with a
// larger MTU is measured where the router takes it in, against each smaller one
// (CheckPktLarger), and Route sends it to the controller, which tells the sender
// (RFC 1191, RFC 4443). A router whose networks all have one MTU has none of this.

// maxNarrow is how many MTUs packets are compared with: each comparison may
// double the actions of a flow in the datapath.
const maxNarrow = 4

const (
	ethernetHeader = 14
	// mtuShift is where the MTU stands in RegMTU that the sender is told.
	mtuShift = 16
)

// narrow are the MTUs on a host by which a router forwards and that something
// that comes to it there may exceed, smallest first.
type narrow []int

// narrowOf finds them for a router.
func narrowOf(c *Context, r *network.Router) narrow {
	var all narrow
	for p := range c.View.InterfacesOf(r.ID) {
		if n := c.Network(p.NetworkID); n != nil {
			all = append(all, n.MTU)
		}
	}
	widest := widestOf(c.View, r)
	if external := c.Network(r.ExternalNetworkID); external != nil {
		all = append(all, gatewayMTU(c, r, external, widest))
		if c.View.Presence(external.ID, c.Host.Name) != nil {
			widest = max(widest, external.MTU)
		}
	}
	slices.Sort(all)
	all = slices.DeleteFunc(slices.Compact(all), func(mtu int) bool { return mtu >= widest })
	return all[:min(len(all), maxNarrow)]
}

// widestOf is the largest MTU of a router's own networks.
func widestOf(v *network.View, r *network.Router) int {
	widest := 0
	for p := range v.InterfacesOf(r.ID) {
		if n := v.Network(p.NetworkID); n != nil {
			widest = max(widest, n.MTU)
		}
	}
	return widest
}

// gatewayMTU is the MTU towards a router's external network for what comes from
// networks with an MTU up to widest: from a host that has not its gateway, also
// that of the transit segment counts.
func gatewayMTU(c *Context, r *network.Router, external *network.Network, widest int) int {
	t := c.View.Transit(r.ID)
	if t == nil || t.MTU == 0 || t.MTU >= min(external.MTU, widest) || c.View.GatewayHost(r.ID) == c.Host.Name {
		return external.MTU
	}
	return t.MTU
}

// measure is the actions that compare what comes from a network with the MTUs
// that are smaller than the network's.
func (n narrow) measure(mtu int) []flows.Action {
	var actions []flows.Action
	for i, least := range n {
		if least < mtu {
			actions = append(actions, flows.CheckPktLarger(uint16(min(least+ethernetHeader, math.MaxUint16)), RegMTU, uint(i)))
		}
	}
	return actions
}

// exceeds matches what was found larger than an MTU; false when nothing is
// compared with it.
func (n narrow) exceeds(mtu int) (flows.Term, bool) {
	i := slices.Index(n, mtu)
	if i < 0 {
		return flows.Term{}, false
	}
	return RegMTU.Masked(1<<i, 1<<i), true
}

// tooBig is the actions that tell a sender of an MTU.
func tooBig(mtu int) []flows.Action {
	return []flows.Action{flows.SetMasked(RegMTU, uint64(mtu)<<mtuShift, 0xffff<<mtuShift), To(RouterICMP)}
}

// route wants a route of a router that leads over an MTU. Priorities of routes
// leave room for what is too large for it.
func (c *Context) route(n narrow, mtu int, priority uint16, match flows.Match, actions ...flows.Action) {
	c.Flow(Route, priority, match, actions...)
	if larger, ok := n.exceeds(mtu); ok {
		c.Flow(Route, priority+1, flows.NewMatch(append(slices.Collect(match.Terms()), larger)...), tooBig(mtu)...)
	}
}

// ToldMTU is the MTU that a router tells the sender of a packet, of the network
// that it would send it to, in bytes; 0 when that is not what is wrong with it.
func ToldMTU(p *flows.Packet) int { return int(p.Get(RegMTU).Lo >> mtuShift) }
