package pipeline

import (
	"planck/flows"
	"planck/network"
)

// compileTransit connects a host to the transit segment of a router. It returns
// the actions of GatewaySteer that lead to the gateway's host, none when there
// is no way.
func compileTransit(c *Context, g gateway) []flows.Action {
	t := c.View.Transit(g.router.ID)
	if t == nil {
		return nil
	}
	n := t.Network()
	patch, flag, terms := networkPatch(c, n)
	if patch == 0 {
		return nil
	}
	if g.standby {
		terms = append(terms, flows.InPort.Is(uint64(patch)), flows.VLANVID.Is(vlanPresent|uint64(g.transit.VLAN)))
		// It may leave by the patch port that it came from.
		c.Flow(Classify, 100, flows.NewMatch(terms...),
			flows.PopVLAN(), flows.SetField(flows.PktMark, 0), flows.SetField(flows.InPort, 0),
			setRouter(g.router), flows.SetField(RegFlags, flag|flagFromTransit), To(Route))
	}
	to := c.View.Host(g.host)
	if !n.Tunnelled() {
		return transitWire(c, g, n, to, patch)
	}
	return transitTunnel(c, g, n, to, patch)
}

// transitTunnel is the transit segment in tunnels.
func transitTunnel(c *Context, g gateway, n *network.Network, to *network.Host, patch uint32) []flows.Action {
	port := tunnelPort(c, n)
	if port == 0 {
		return nil
	}
	if g.standby {
		c.Flow(Decap, 100, flows.NewMatch(flows.InPort.Is(uint64(port)), flows.TunnelID.Is(uint64(n.SegmentationID))),
			flows.PushVLAN(),
			flows.SetField(flows.VLANVID, vlanPresent|uint64(g.transit.VLAN)),
			To(DecapGuard))
		for peer := range c.View.PresencesOf(g.router.ID) {
			if h := c.View.Host(peer.Host); h != nil && h.Name != c.Host.Name && reachable(c.Host, h) {
				admitPeer(c, h)
			}
		}
	}
	if g.here || to == nil || !reachable(c.Host, to) {
		return nil
	}
	c.Flow(EncapUnicast, 100, flows.NewMatch(flows.VLANVID.Is(vlanPresent|uint64(g.transit.VLAN))),
		flows.PopVLAN(),
		flows.SetField(flows.TunnelID, uint64(n.SegmentationID)),
		setTunnelDestination(to.TunnelIP),
		flows.Output(port))
	return steer(g, patch, chassisMAC(c.Host), chassisMAC(to))
}

// transitWire is the transit segment in a VLAN of a physical network.
func transitWire(c *Context, g gateway, n *network.Network, to *network.Host, patch uint32) []flows.Action {
	w, ok := wireOf(c, n, g.transit)
	if !ok {
		return nil
	}
	if g.standby {
		tag := vlanPresent | uint64(n.SegmentationID)
		c.ProviderFlow(w.bridge, WireClassify, wireForUs, w.broadcast(tag), To(WireVlan))
		c.ProviderFlow(w.bridge, WireVlan, 100, flows.NewMatch(flows.VLANVID.Is(tag)), flows.SetField(RegLocalVLAN, uint64(w.vlan)), To(WireArpNd))
		c.ProviderFlow(w.bridge, WireAdmit, 100, w.here(flows.EthDst.IsMAC(chassisMAC(c.Host))), w.admit()...)
	}
	if g.here || to == nil {
		return nil
	}
	c.ProviderFlow(w.bridge, ToWire, 100, flows.NewMatch(flows.VLANVID.Is(vlanPresent|uint64(w.vlan))),
		flows.SetField(flows.VLANVID, vlanPresent|uint64(n.SegmentationID)), To(Masquerade))
	return steer(g, patch, chassisMAC(c.Host), chassisMAC(to))
}

// steer sends a packet into the transit segment, from host to host.
func steer(g gateway, patch uint32, from, to network.MAC) []flows.Action {
	return []flows.Action{
		flows.SetMAC(flows.EthSrc, from),
		flows.SetMAC(flows.EthDst, to),
		flows.SetField(RegLocalVLAN, uint64(g.transit.VLAN)),
		flows.SetField(RegOutput, uint64(patch)),
		To(Output),
	}
}
