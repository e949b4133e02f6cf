package pipeline

import (
	"net/netip"

	"planck/flows"
	"planck/network"
)

// pingFeature answers pings of the addresses that Planck itself stands for: of
// DHCP servers, and of all addresses of a router that is up, its gateway's too, from each of
// its networks. The switch turns a request into its reply: a dead controller does
// not look like a dead router. The security groups of the sender have judged the
// request by then; its answer goes back whatever they say, as all that Planck sends.
type pingFeature struct{}

func (pingFeature) ID() FeatureID { return FeaturePing }
func (pingFeature) Name() string  { return "ping" }

const (
	icmpEchoRequest = 8
	icmpEchoReply   = 0
	// replyTTL is the TTL of what Planck itself sends.
	replyTTL = 64
)

// CompilePort implements PortFeature.
func (pingFeature) CompilePort(c *Context, p *PortContext) {
	if !standsFor(c.View, p) {
		return
	}
	answerPings(c, p, p.Port)
	if p.DeviceOwner != network.OwnerRouterInterface {
		return
	}
	for other := range c.View.InterfacesOf(p.DeviceID) {
		if other.ID != p.ID {
			answerPings(c, p, other)
		}
	}
	if r := c.View.Router(p.DeviceID); r != nil && r.GatewayPortID != "" {
		if gateway := c.View.Port(r.GatewayPortID); gateway != nil {
			answerPings(c, p, gateway)
		}
	}
}

// standsFor reports whether Planck answers for a port itself: of a DHCP server, or
// of a router that is up. What comes to a floating IP goes to the port behind it.
func standsFor(v *network.View, p *PortContext) bool {
	if !p.Up() {
		return false
	}
	switch p.DeviceOwner {
	case network.OwnerDHCP:
		return true
	case network.OwnerRouterInterface, network.OwnerRouterGateway:
		r := v.Router(p.DeviceID)
		return r != nil && r.AdminStateUp
	}
	return false
}

// answerPings answers what goes to the MAC of one port and an address of another.
func answerPings(c *Context, p *PortContext, addressed *network.Port) {
	for _, f := range addressed.FixedIPs {
		if f.IP.Is4() {
			c.Flow(RouterAdmit, admitLocalPing, pingOf(p.Port, f.IP, fromLocal(p.Network)...), append(echo(p.Port, f.IP), flows.Output(flows.PortInPort))...)
		}
	}
}

// fromLocal matches what a port on this host sent to its network, and no router
// has taken yet: its answer can leave by the port that it came from.
func fromLocal(n *network.Network) []flows.Term {
	return []flows.Term{flows.Metadata.Is(uint64(n.Key)), RegFlags.Masked(0, flagFromTunnel|flagFromWire)}
}

// pingOf matches pings of an address that are sent to the MAC of a port.
func pingOf(p *network.Port, ip netip.Addr, from ...flows.Term) flows.Match {
	return flows.NewMatch(append(from, flows.EthDst.IsMAC(p.MAC), flows.IPv4, flows.IPv4Dst.IsIP(ip),
		flows.ICMP, flows.ICMPType.Is(icmpEchoRequest))...)
}

// echo is the actions that turn a ping into its answer.
func echo(p *network.Port, ip netip.Addr) []flows.Action {
	return []flows.Action{
		flows.Move(flows.EthSrc, flows.EthDst), flows.SetMAC(flows.EthSrc, p.MAC),
		flows.Move(flows.IPv4Src, flows.IPv4Dst), flows.SetIP(flows.IPv4Src, ip),
		flows.SetField(flows.ICMPType, icmpEchoReply), flows.SetField(flows.IPTTL, replyTTL),
	}
}

// compileExternalPing answers pings of a gateway's address that come from its
// external network.
func compileExternalPing(c *Context, n *network.Network, p *network.Port, ip netip.Addr) {
	feature := c.feature
	c.feature = FeaturePing
	c.Flow(RouterAdmit, admitPing, pingOf(p, ip, onNetwork(n)), append(echo(p, ip), flows.SetField(flows.InPort, 0), To(L2Lookup))...)
	c.feature = feature
}
