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

// Router6 answers for routers what they can't forward: ICMPv6 time exceeded
// and destination unreachable (RFC 4443).
type Router6 struct {
	actions string
	frames  sync.Pool // of *[]byte
}

// NewRouter6 makes the responder of pipeline.FeatureRouter6.
func NewRouter6() *Router6 {
	return &Router6{
		actions: flows.ActionList(flows.Output(flows.PortInPort)),
		frames:  sync.Pool{New: func() any { return new([]byte) }},
	}
}

// Feature implements Responder.
func (*Router6) Feature() pipeline.FeatureID { return pipeline.FeatureRouter6 }

// Respond implements Responder. What is not answered is noted as dropped with its reason.
func (r *Router6) Respond(_ context.Context, in *PacketIn, out *Replies) error {
	var packet ipv6Packet
	if reason := packet.parse(in.Data); reason != "" {
		out.Drop(reason)
		return nil
	}
	router := in.View.RouterByKey(in.RouterKey())
	if router == nil {
		out.Drop(dropUnknownPort)
		return nil
	}
	from := towards6(in, router, packet.ethDst)
	if from == nil || !deservesError6(&packet) {
		out.Drop(dropUnsupported)
		return nil
	}
	frame := r.frames.Get().(*[]byte)
	defer r.frames.Put(frame)
	*frame = appendICMPv6Error((*frame)[:0], &packet, from.MAC, addressTowards6(in.View, from, packet.src), in.tooBig())
	out.answer(in, r.actions, *frame)
	return nil
}

// towards6 is the port of a router to which a host sent: the one with that MAC on
// the network of the sender, or nil.
func towards6(in *PacketIn, r *network.Router, mac network.MAC) *network.Port {
	if sender := in.View.PortByKey(in.PortKey()); sender != nil {
		return interfaceTowards(in.View, r.ID, networkOf(in, sender), mac)
	}
	n := in.View.NetworkByKey(in.NetworkKey())
	if p := gatewayPort(in.View, r.ID); p != nil && n != nil && p.NetworkID == n.ID && p.MAC == mac {
		return p
	}
	return nil
}

// addressTowards6 is the address of a router's port in the subnet of a host, of a
// gateway's port else its first, else its link-local address.
func addressTowards6(v *network.View, p *network.Port, host netip.Addr) netip.Addr {
	from := p.MAC.LinkLocal()
	for _, f := range p.FixedIPs {
		if !f.IP.Is6() {
			continue
		}
		if s := v.Subnet(f.SubnetID); s != nil && s.CIDR.Contains(host) {
			return f.IP
		}
		if p.DeviceOwner == network.OwnerRouterGateway && from.IsLinkLocalUnicast() {
			from = f.IP
		}
	}
	return from
}

// deservesError6 reports whether a packet may be answered by an ICMPv6 error
// (RFC 4443, 2.4): not an error or a redirect itself, not to or from a group.
func deservesError6(p *ipv6Packet) bool {
	if p.dst.IsMulticast() || !unicast(p.src) {
		return false
	}
	if p.protocol != protocolICMPv6 {
		return true
	}
	return len(p.payload) > 0 && p.payload[0] >= icmp6EchoRequest && p.payload[0] != icmp6Redirect
}

const (
	icmp6Unreachable  = 1 // code 0: no route
	icmp6BeyondScope  = 2 // of a source address; code of unreachable
	icmp6TooBig       = 2
	icmp6TimeExceeded = 3
	icmp6Redirect     = 137
	// icmp6ErrorMax is the longest error, as a packet: the least MTU.
	icmp6ErrorMax = 1280
)

func appendICMPv6Error(frame []byte, p *ipv6Packet, mac network.MAC, from netip.Addr, mtu uint16) []byte {
	frame = appendIPv6(frame, p.ethSrc, mac, from, p.src, protocolICMPv6, 64)
	kind, code := byte(icmp6Unreachable), byte(0)
	switch {
	case mtu != 0:
		kind = icmp6TooBig
	case p.src.IsLinkLocalUnicast():
		code = icmp6BeyondScope
	case p.hopLimit <= 1:
		kind = icmp6TimeExceeded
	}
	frame = append(frame, kind, code, 0, 0, 0, 0)
	frame = binary.BigEndian.AppendUint16(frame, mtu)
	frame = append(frame, p.packet[:min(len(p.packet), icmp6ErrorMax-ipv6Len-8)]...)
	finishIPv6(frame, icmpv6Checksum)
	return frame
}
