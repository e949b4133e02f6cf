package controller

import (
	"context"
	"encoding/binary"
	"net/netip"
	"sync"

	"planck/flows"
	"planck/network"
	"planck/pipeline"
)

// Ping answers ICMP echo requests to the addresses that Planck itself stands
// for: those of DHCP servers and of routers (RFC 792).
type Ping struct {
	actions string
	frames  sync.Pool // of *[]byte
}

// NewPing makes the responder of pipeline.FeaturePing.
func NewPing() *Ping {
	return &Ping{
		actions: flows.ActionList(flows.Output(flows.PortInPort)),
		frames:  sync.Pool{New: func() any { return new([]byte) }},
	}
}

// Feature implements Responder.
func (*Ping) Feature() pipeline.FeatureID { return pipeline.FeaturePing }

// Respond implements Responder. What is not answered is noted as dropped with its reason.
func (p *Ping) Respond(_ context.Context, in *PacketIn, out *Replies) error {
	var request ipv4Packet
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
	if target == nil || !standsFor(in.View, target, request.dst) {
		out.Drop(dropOtherServer)
		return nil
	}
	frame := p.frames.Get().(*[]byte)
	defer p.frames.Put(frame)
	var reason string
	if *frame, reason = appendEchoReply((*frame)[:0], &request, target.MAC); reason != "" {
		out.Drop(reason)
		return nil
	}
	out.answer(in, p.actions, *frame)
	return nil
}

// servicePort is the port of a network with this MAC that Planck itself stands for, or nil.
func servicePort(v *network.View, networkID string, mac network.MAC) *network.Port {
	for p := range v.ServicePortsOf(networkID) {
		if p.MAC == mac {
			return p
		}
	}
	return nil
}

// gatewayPort is the port of a router on its external network, or nil.
func gatewayPort(v *network.View, routerID string) *network.Port {
	r := v.Router(routerID)
	if r == nil || r.GatewayPortID == "" {
		return nil
	}
	return v.Port(r.GatewayPortID)
}

// standsFor reports whether an address is the port's own, or another one of its router.
func standsFor(v *network.View, p *network.Port, a netip.Addr) bool {
	if portHasAddress(p, a) {
		return true
	}
	if p.DeviceOwner != network.OwnerRouterInterface {
		return false
	}
	for other := range v.InterfacesOf(p.DeviceID) {
		if portHasAddress(other, a) {
			return true
		}
	}
	gateway := gatewayPort(v, p.DeviceID)
	return gateway != nil && portHasAddress(gateway, a)
}

const (
	icmpEchoRequest = 8
	icmpEchoReply   = 0
)

func appendEchoReply(frame []byte, request *ipv4Packet, from network.MAC) ([]byte, string) {
	if request.protocol != protocolICMP || len(request.payload) < 8 || request.payload[0] != icmpEchoRequest || request.payload[1] != 0 {
		return frame, dropUnsupported
	}
	if checksum(0, request.payload) != 0 {
		return frame, dropMalformed
	}
	frame = append(frame, request.ethSrc[:]...)
	frame = append(frame, from[:]...)
	frame = binary.BigEndian.AppendUint16(frame, etherTypeIPv4)
	frame = append(frame, request.header[:ipv4Len]...) // options are left out
	frame = append(frame, request.payload...)
	ip := frame[ethernetLen:]
	putIPv4Header(ip, protocolICMP, request.dst, request.src)
	icmp := ip[ipv4Len:]
	icmp[0] = icmpEchoReply
	binary.BigEndian.PutUint16(icmp[2:], 0)
	binary.BigEndian.PutUint16(icmp[2:], checksum(0, icmp))
	return frame, ""
}
