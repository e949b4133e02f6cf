package pipeline

import (
	"net/netip"

	"planck/flows"
	"planck/network"
)

// tunnelFeature carries the frames of gre, vxlan and geneve networks between
// hosts, through one flow-based tunnel port for each type.
type tunnelFeature struct{}

func (tunnelFeature) ID() FeatureID { return FeatureTunnel }
func (tunnelFeature) Name() string  { return "tunnel" }

// tunnelPort is the port of br-tun for a network's type, 0 when the network is
// not tunnelled or the host has none.
func tunnelPort(c *Context, n *network.Network) uint32 {
	if !n.Tunnelled() {
		return 0
	}
	return c.Host.Bridges[network.BridgeTunnel].Tunnels[n.NetworkType]
}

// CompilePort implements PortFeature: the way to a port on another host.
func (tunnelFeature) CompilePort(c *Context, p *PortContext) {
	port := tunnelPort(c, p.Network)
	if port == 0 || !p.Up() || p.Remote == nil || !reachable(c.Host, p.Remote) {
		return
	}
	c.Flow(EncapUnicast, 100, flows.NewMatch(flows.VLANVID.Is(vlanPresent|uint64(p.Presence.VLAN)), flows.EthDst.IsMAC(p.MAC)),
		flows.PopVLAN(),
		flows.SetField(flows.TunnelID, uint64(p.Network.SegmentationID)),
		setTunnelDestination(p.Remote.TunnelIP),
		flows.Output(port))
}

// CompileNetwork implements NetworkFeature: what comes in, and the flood to the
// other hosts of the network.
func (tunnelFeature) CompileNetwork(c *Context, n *network.Network, p *network.Presence) {
	port := tunnelPort(c, n)
	if port == 0 || !n.AdminStateUp {
		return
	}
	c.Flow(Decap, 100, flows.NewMatch(flows.InPort.Is(uint64(port)), flows.TunnelID.Is(uint64(n.SegmentationID))),
		flows.PushVLAN(),
		flows.SetField(flows.VLANVID, vlanPresent|uint64(p.VLAN)),
		To(DecapGuard))

	var members []flows.Bucket
	for member := range c.View.PresencesOf(n.ID) {
		h := c.View.Host(member.Host)
		if h == nil || h.Name == c.Host.Name || !reachable(c.Host, h) {
			continue
		}
		admitPeer(c, h)
		if !member.Wired {
			continue // it only routes to the network: nobody there listens
		}
		members = append(members, flows.Bucket{Actions: []flows.Action{setTunnelDestination(h.TunnelIP), flows.Output(port)}})
	}
	if len(members) == 0 {
		return
	}
	c.Flood(Tunnel, n.Key, members)
	c.Flow(EncapFlood, 100, flows.NewMatch(flows.VLANVID.Is(vlanPresent|uint64(p.VLAN))),
		flows.PopVLAN(),
		flows.SetField(flows.TunnelID, uint64(n.SegmentationID)),
		flows.ToGroup(n.Key))
}

// admitPeer lets frames in from a host that shares a network with this one, or
// the transit of a router. All that they share want the same flow.
func admitPeer(c *Context, peer *network.Host) {
	patch, ok := c.Patch(network.BridgeTunnel, network.BridgeIntegration)
	if !ok {
		return
	}
	feature, flags, object := c.feature, c.flags, c.object
	c.feature, c.flags, c.object = FeatureTunnel, FlagHost, peer.Key
	c.Flow(DecapGuard, 100, flows.NewMatch(tunnelSource(peer.TunnelIP)), flows.Output(patch))
	c.feature, c.flags, c.object = feature, flags, object
}

// reachable reports whether two hosts have tunnel addresses of the same family.
func reachable(a, b *network.Host) bool {
	return a.TunnelIP.IsValid() && b.TunnelIP.IsValid() && a.TunnelIP.Is4() == b.TunnelIP.Is4()
}

func tunnelSource(a netip.Addr) flows.Term {
	if a.Is4() {
		return flows.TunSrc.IsIP(a)
	}
	return flows.TunIPv6Src.IsIP(a)
}

func setTunnelDestination(a netip.Addr) flows.Action {
	if a.Is4() {
		return flows.SetIP(flows.TunDst, a)
	}
	return flows.SetIP(flows.TunIPv6Dst, a)
}
