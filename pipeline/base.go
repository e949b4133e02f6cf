package pipeline

import (
	"cmp"

	"planck/flows"
	"planck/network"
)

// baseFeature makes the flows that every host has: which table follows which,
// the output to other bridges, the drop counters, the guard of the tunnels.
type baseFeature struct{}

func (baseFeature) ID() FeatureID { return FeatureBase }
func (baseFeature) Name() string  { return "base" }

var everything = flows.NewMatch()

// CompileHost implements HostFeature.
func (baseFeature) CompileHost(c *Context) {
	baseIntegration(c)
	baseTunnel(c)
	for _, bridge := range c.ProviderBridges() {
		baseProvider(c, bridge)
	}
}

func baseIntegration(c *Context) {
	c.Flow(Classify, 0, everything, Drop(DropUnknownSource)...)
	c.Flow(PortSecurity, 0, everything, Drop(DropForgedMAC)...)
	c.Flow(Services, 0, everything, To(ArpNd))
	c.Flow(ArpNd, 0, everything, To(EgressCt))
	c.Flow(EgressCt, 0, everything, To(RouterAdmit))
	c.Flow(RouterAdmit, 0, everything, To(L2Lookup))
	c.Flow(L2Lookup, 0, everything, Drop(DropUnknownDestination)...)
	c.Flow(IngressCt, 0, everything, To(Qos))
	c.Flow(Qos, 0, everything, To(Output))

	for _, peer := range append([]string{network.BridgeTunnel}, c.ProviderBridges()...) {
		patch, ok := c.Patch(network.BridgeIntegration, peer)
		if !ok {
			continue
		}
		c.Flow(Output, 100, flows.NewMatch(RegOutput.Is(uint64(patch))),
			flows.PushVLAN(), flows.MoveBits(RegLocalVLAN, 0, flows.VLANVID, 0, 12), flows.Output(patch))
	}
	c.Flow(Output, 10, everything, flows.OutputReg(RegOutput))
	c.Flow(Output, 90, flows.NewMatch(RegOutput.Is(0)))

	for reason := DropUnknownSource; int(reason) <= len(DropReasons); reason++ {
		c.Flow(Dropped, 10, flows.NewMatch(RegDropReason.Is(uint64(reason))))
	}
	c.Flow(Dropped, 0, everything)
}

func baseTunnel(c *Context) {
	patch, ok := c.Patch(network.BridgeTunnel, network.BridgeIntegration)
	if !ok {
		return
	}
	c.Flow(TunClassify, 0, everything, fromPeer(c)...)
	c.Flow(TunClassify, 100, flows.NewMatch(flows.InPort.Is(uint64(patch))), To(EncapUnicast))
	c.Flow(EncapUnicast, 0, everything, To(EncapFlood))
	c.Flow(EncapFlood, 0, everything)
	c.Flow(Decap, 0, everything)
	c.Flow(DecapGuard, 0, everything)
	for _, port := range c.Host.Bridges[network.BridgeTunnel].Tunnels {
		c.Flow(TunClassify, 100, flows.NewMatch(flows.InPort.Is(uint64(port))), To(Decap))
	}
}

// fromPeer takes in what comes by a tunnel port towards a gateway host, which is
// there for BFD but draws the data of that host as well: as if it came by the
// flow-based port of the type. All other ports of br-tun have flows of their own.
func fromPeer(c *Context) []flows.Action {
	port := c.Host.Bridges[network.BridgeTunnel].Tunnels[cmp.Or(c.Options.PeerType, network.TypeGRE)]
	if port == 0 {
		return nil
	}
	return []flows.Action{flows.SetField(flows.InPort, uint64(port)), To(Decap)}
}

// A provider bridge goes on being the operator's switch: what is not for us is
// left to its NORMAL action.
func baseProvider(c *Context, bridge string) {
	patch, ok := c.Patch(bridge, network.BridgeIntegration)
	if !ok {
		return
	}
	c.ProviderFlow(bridge, WireClassify, wireFromPatch, flows.NewMatch(flows.InPort.Is(uint64(patch))), To(ToWire))
	c.ProviderFlow(bridge, WireClassify, wireAnything, everything, To(WireVlan))
	c.ProviderFlow(bridge, WireVlan, 0, everything, flows.Output(flows.PortNormal))
	c.ProviderFlow(bridge, WireArpNd, 0, everything, To(WireMac))
	c.ProviderFlow(bridge, WireMac, 0, everything, To(WireAdmit))
	c.ProviderFlow(bridge, WireAdmit, 0, everything, flows.Output(flows.PortNormal))
	c.ProviderFlow(bridge, ToWire, 0, everything)
	c.ProviderFlow(bridge, Masquerade, 0, everything, flows.Output(flows.PortNormal))
}
