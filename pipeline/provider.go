package pipeline

import (
	"planck/flows"
	"planck/network"
)

// providerFeature connects flat and vlan networks to the operator's bridges.
// Those bridges switch with their NORMAL action; frames for what lives here are
// handed to br-int besides, tagged with the local VLAN and marked.
type providerFeature struct{}

func (providerFeature) ID() FeatureID { return FeatureProvider }
func (providerFeature) Name() string  { return "provider" }

// Priorities in Classify of a provider bridge. The operator's own flows are
// often priority 0 or Open vSwitch's default, 32768: frames for what lives here
// go before those, everything else after. A flow of the operator's for anything
// of priority 0 stays in place of ours.
const (
	wireFromPatch = 65000
	wireForUs     = 40000
	wireAnything  = 0
)

// wire is a provider network's place on one host.
type wire struct {
	bridge string
	patch  uint32 // towards br-int
	flat   bool
	vlan   uint16 // local
}

func wireOf(c *Context, n *network.Network, p *network.Presence) (wire, bool) {
	if !n.Provider() || !n.AdminStateUp {
		return wire{}, false
	}
	bridge, _, ok := c.ProviderBridge(n.PhysicalNetwork)
	if !ok {
		return wire{}, false
	}
	patch, ok := c.Patch(bridge, network.BridgeIntegration)
	return wire{bridge: bridge, patch: patch, flat: n.NetworkType == network.TypeFlat, vlan: p.VLAN}, ok
}

// admit is the actions that hand a frame to br-int.
func (w wire) admit() []flows.Action {
	var actions []flows.Action
	if w.flat {
		actions = append(actions, flows.PushVLAN())
	}
	return append(actions,
		flows.SetField(flows.VLANVID, vlanPresent|uint64(w.vlan)),
		flows.SetField(flows.PktMark, wireMark),
		flows.Output(w.patch))
}

// copyIn hands a copy to br-int and leaves the frame to the operator's switch as well.
func (w wire) copyIn() []flows.Action {
	return append([]flows.Action{flows.Output(flows.PortNormal)}, w.admit()...)
}

// broadcast matches what all of the network is to see: on a flat network that
// leaves the operator's unicast frames alone.
func (w wire) broadcast(tag uint64) flows.Match {
	if w.flat {
		return flows.NewMatch(flows.VLANVID.Is(tag), broadcastBit())
	}
	return flows.NewMatch(flows.VLANVID.Is(tag))
}

// here matches frames of the network. Open vSwitch lets a flow change a tag only
// when it matches on there being one.
func (w wire) here(terms ...flows.Term) flows.Match {
	if !w.flat {
		terms = append(terms, flows.VLANVID.Masked(vlanPresent, vlanPresent))
	}
	return flows.NewMatch(append(terms, RegLocalVLAN.Is(uint64(w.vlan)))...)
}

// CompilePort implements PortFeature.
func (providerFeature) CompilePort(c *Context, p *PortContext) {
	w, ok := wireOf(c, p.Network, p.Presence)
	if !ok || p.VIF == nil || !p.Up() {
		return
	}
	c.ProviderFlow(w.bridge, WireAdmit, 100, w.here(flows.EthDst.IsMAC(p.MAC)), w.admit()...)
	w.claim(c, p.MAC)
	w.unmasquerade(c, p)
	c.flags, c.object = FlagNetwork, p.Network.Key
	for _, pair := range p.AllowedAddressPairs {
		if pair.MAC != p.MAC {
			w.claim(c, pair.MAC)
			c.ProviderFlow(w.bridge, WireAdmit, 95, w.here(flows.EthDst.IsMAC(pair.MAC)), w.copyIn()...)
		}
	}
	if !p.PortSecurityEnabled {
		c.ProviderFlow(w.bridge, WireAdmit, 10, w.here(), w.copyIn()...)
	}
}

// unmasquerade shows a port the router's MAC in place of the chassis MAC with
// which another host sent what it routed.
func (w wire) unmasquerade(c *Context, p *PortContext) {
	for r := range c.View.RouterPortsOf(p.NetworkID) {
		if c.View.Router(r.DeviceID) == nil {
			continue
		}
		c.ProviderFlow(w.bridge, WireMac, 100, flows.NewMatch(RegLocalVLAN.Is(uint64(w.vlan)), anyChassis, flows.EthDst.IsMAC(p.MAC)),
			flows.SetMAC(flows.EthSrc, r.MAC), To(WireAdmit))
		return
	}
}

// claim takes the unicast frames for a MAC of a flat network, before any flow of
// the operator that catches all.
func (w wire) claim(c *Context, mac network.MAC) {
	if w.flat {
		c.ProviderFlow(w.bridge, WireClassify, wireForUs, flows.NewMatch(flows.VLANVID.Is(0), flows.EthDst.IsMAC(mac)), To(WireVlan))
	}
}

// CompileNetwork implements NetworkFeature.
func (providerFeature) CompileNetwork(c *Context, n *network.Network, p *network.Presence) {
	w, ok := wireOf(c, n, p)
	if !ok {
		return
	}
	tag := vlanPresent | uint64(n.SegmentationID)
	toWire := []flows.Action{flows.SetField(flows.VLANVID, tag), To(Masquerade)}
	if w.flat {
		tag, toWire = 0, []flows.Action{flows.PopVLAN(), To(Masquerade)}
	}
	c.ProviderFlow(w.bridge, WireClassify, wireForUs, w.broadcast(tag), To(WireVlan))
	c.ProviderFlow(w.bridge, WireVlan, 100, flows.NewMatch(flows.VLANVID.Is(tag)), flows.SetField(RegLocalVLAN, uint64(w.vlan)), To(WireArpNd))
	c.ProviderFlow(w.bridge, WireAdmit, 90, w.here(broadcastBit()), w.copyIn()...)
	c.ProviderFlow(w.bridge, ToWire, 100, flows.NewMatch(flows.VLANVID.Is(vlanPresent|uint64(w.vlan))), toWire...)
}
