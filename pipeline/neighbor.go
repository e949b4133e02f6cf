package pipeline

import (
	"planck/flows"
	"planck/network"
)

// neighborFeature shows the controller the ARP replies on external networks: it
// asks there for the MACs of next hops.
type neighborFeature struct{}

func (neighborFeature) ID() FeatureID { return FeatureNeighbor }
func (neighborFeature) Name() string  { return "neighbor" }

// Beside the meters of the other punts: packets whose next hop is not known do
// not use up what answers may take.
const (
	meterNeighbor       = 32 // packets for unknown next hops
	meterNeighborAnswer = 33
)

const arpAnswer = 2 // ARP's operation "reply"

// admitAnswer in RouterAdmit is above what goes to routers.
const admitAnswer = 130

// CompileHost implements HostFeature.
func (neighborFeature) CompileHost(c *Context) {
	puntMeter(c, meterNeighbor)
	puntMeter(c, meterNeighborAnswer)
}

// CompileNetwork implements NetworkFeature. The replies go on besides: they may
// be for a port of the network.
func (neighborFeature) CompileNetwork(c *Context, n *network.Network, _ *network.Presence) {
	if !n.External || !n.AdminStateUp {
		return
	}
	c.Flow(RouterAdmit, admitAnswer, flows.NewMatch(onNetwork(n), flows.ARP, flows.ARPOp.Is(arpAnswer)),
		append(punt(c, meterNeighborAnswer), To(L2Lookup))...)
}
