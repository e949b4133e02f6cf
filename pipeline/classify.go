package pipeline

import (
	"planck/flows"
	"planck/network"
)

// classifyFeature tells where a packet comes from: its network, its port, and
// whether port security looks at it.
type classifyFeature struct{}

func (classifyFeature) ID() FeatureID { return FeatureClassify }
func (classifyFeature) Name() string  { return "classify" }

// CompilePort implements PortFeature: untagged frames from the port's interface.
func (classifyFeature) CompilePort(c *Context, p *PortContext) {
	if p.VIF == nil || !p.Up() {
		return
	}
	next := Services
	if p.PortSecurityEnabled {
		next = PortSecurity
	}
	c.Flow(Classify, 100, flows.NewMatch(flows.InPort.Is(uint64(p.VIF.OFPort)), flows.VLANVID.Is(0)),
		flows.SetField(flows.PktMark, 0),
		setNetwork(p.Network),
		flows.SetField(RegSource, uint64(p.Key)),
		flows.SetField(RegLocalVLAN, uint64(p.Presence.VLAN)),
		To(next))
}

// CompileNetwork implements NetworkFeature: frames of the network from br-tun
// or from its provider bridge.
func (classifyFeature) CompileNetwork(c *Context, n *network.Network, p *network.Presence) {
	if !n.AdminStateUp {
		return
	}
	patch, flag, terms := networkPatch(c, n)
	if patch == 0 {
		return
	}
	terms = append(terms, flows.InPort.Is(uint64(patch)), flows.VLANVID.Is(vlanPresent|uint64(p.VLAN)))
	c.Flow(Classify, 100, flows.NewMatch(terms...),
		flows.PopVLAN(),
		flows.SetField(flows.PktMark, 0),
		setNetwork(n),
		flows.SetField(RegFlags, flag),
		flows.SetField(RegLocalVLAN, uint64(p.VLAN)),
		To(RouterAdmit))
}

// networkPatch is the patch port on br-int through which a network's frames
// reach other hosts, 0 when there is none; the class of what comes in there and
// what else must match then.
func networkPatch(c *Context, n *network.Network) (port uint32, flag uint64, terms []flows.Term) {
	if n.Tunnelled() {
		port, _ = c.Patch(network.BridgeIntegration, network.BridgeTunnel)
		return port, flagFromTunnel, nil
	}
	if !n.Provider() {
		return 0, 0, nil
	}
	_, port, _ = c.ProviderBridge(n.PhysicalNetwork)
	return port, flagFromWire, []flows.Term{flows.PktMark.Is(wireMark)}
}
