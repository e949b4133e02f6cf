package controller

import (
	"context"
	"net/netip"
	"sync"

	"planck/flows"
	"planck/network"
	"planck/pipeline"
)

// Ping6 is Ping for ICMPv6 (RFC 4443).
type Ping6 struct {
	actions string
	frames  sync.Pool // of *[]byte
}

// NewPing6 makes the responder of pipeline.FeaturePing6.
func NewPing6() *Ping6 {
	return &Ping6{
		actions: flows.ActionList(flows.Output(flows.PortInPort)),
		frames:  sync.Pool{New: func() any { return new([]byte) }},
	}
}

// Feature implements Responder.
func (*Ping6) Feature() pipeline.FeatureID { return pipeline.FeaturePing6 }

// Respond implements Responder. What is not answered is noted as dropped with its reason.
func (p *Ping6) Respond(_ context.Context, in *PacketIn, out *Replies) error {
	var request ipv6Packet
	if reason := request.parse(in.Data); reason != "" {
		out.Drop(reason)
		return nil
	}
	n := in.View.NetworkByKey(in.NetworkKey())
	if n == nil {
		out.Drop(dropUnknownPort)
		return nil
	}
	target := servicePort(in.View, n.ID, request.ethDst)
	if target == nil || !standsFor6(in.View, target, request.dst) {
		out.Drop(dropOtherServer)
		return nil
	}
	if reason := request.echo6(); reason != "" {
		out.Drop(reason)
		return nil
	}
	frame := p.frames.Get().(*[]byte)
	defer p.frames.Put(frame)
	*frame = appendEchoReply6((*frame)[:0], &request, target.MAC)
	actions := p.actions
	if in.PortKey() == 0 {
		actions = in.toWire()
	}
	out.PacketOut(in.InPort, actions, *frame)
	return nil
}

// standsFor6 is standsFor, and knows link-local addresses and the gateway's.
func standsFor6(v *network.View, p *network.Port, a netip.Addr) bool {
	if a == p.MAC.LinkLocal() || standsFor(v, p, a) {
		return true
	}
	r := v.Router(p.DeviceID)
	if p.DeviceOwner != network.OwnerRouterInterface || r == nil {
		return false
	}
	gateway := v.Port(r.GatewayPortID)
	return gateway != nil && portHasAddress(gateway, a)
}

const (
	icmp6EchoRequest = 128
	icmp6EchoReply   = 129
)

// echo6 checks an echo request; it returns why it gets no answer, or "".
func (p *ipv6Packet) echo6() string {
	if reason := p.icmpv6(8); reason != "" {
		return reason
	}
	if p.payload[0] != icmp6EchoRequest || p.payload[1] != 0 || !unicast(p.src) {
		return dropUnsupported
	}
	return ""
}

func appendEchoReply6(frame []byte, request *ipv6Packet, from network.MAC) []byte {
	frame = appendIPv6(frame, request.ethSrc, from, request.dst, request.src, protocolICMPv6, 64)
	frame = append(frame, request.payload...)
	icmp := frame[ethernetLen+ipv6Len:]
	icmp[0], icmp[2], icmp[3] = icmp6EchoReply, 0, 0
	finishIPv6(frame, icmpv6Checksum)
	return frame
}
