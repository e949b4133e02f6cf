package controller

import (
	"context"

	"planck/flows"
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
