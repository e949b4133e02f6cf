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

// meterNeighbor is beside the meters of the other punts.
const meterNeighbor = 32

const arpAnswer = 2 // ARP's operation "reply"

// admitAnswer in RouterAdmit is above what goes to routers.
const admitAnswer = 130

// CompileHost implements HostFeature.
func (neighborFeature) CompileHost(c *Context) { puntMeter(c, meterNeighbor) }

// CompileNetwork implements NetworkFeature. The replies go on besides: they may
// be for a port of the network.
func (neighborFeature) CompileNetwork(c *Context, n *network.Network, _ *network.Presence) {
	if !n.External || !n.AdminStateUp {
		return
	}
	c.Flow(RouterAdmit, admitAnswer, flows.NewMatch(onNetwork(n), flows.ARP, flows.ARPOp.Is(arpAnswer)),
		append(punt(c, meterNeighbor), To(L2Lookup))...)
}
