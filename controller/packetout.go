package controller

import (
	"context"

	"planck/flows"
	"planck/pipeline"
)

// Active is a responder that also sends packets of its own accord. Run returns
// when ctx ends.
type Active interface {
	Responder
	Run(ctx context.Context, c *Controller) error
}

// PacketOut sends a packet from a bridge through an encoded action list. It
// reports whether the bridge is connected here and takes it.
func (c *Controller) PacketOut(host, bridge string, actions string, data []byte) bool {
	t := c.bridge(host, bridge)
	if t == nil {
		return false
	}
	s := t.connected()
	return s != nil && s.out.trySend(flows.AppendPacketOut(nil, xidUnmatched, flows.PortController, actions, data))
}

// toWire is the actions that send a packet back to where one came from that is
// not from a port of this host: with the network's local VLAN.
func (in *PacketIn) toWire() string {
	vlan := uint64(in.Regs[pipeline.RegLocalVLAN-flows.Reg0])
	return flows.ActionList(flows.PushVLAN(), flows.SetField(flows.VLANVID, flows.VLANPresent|vlan), flows.Output(flows.PortInPort))
}
