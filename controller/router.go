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

// Router answers for routers what they can't forward: ICMP time exceeded and
// destination unreachable (RFC 792, RFC 1812), from the router's address on the
// sender's network.
type Router struct {
	actions string
	frames  sync.Pool // of *[]byte
}

// NewRouter makes the responder of pipeline.FeatureRouter.
func NewRouter() *Router {
	return &Router{
		actions: flows.ActionList(flows.Output(flows.PortInPort)),
		frames:  sync.Pool{New: func() any { return new([]byte) }},
	}
}

// Feature implements Responder.
func (*Router) Feature() pipeline.FeatureID { return pipeline.FeatureRouter }

// Respond implements Responder. What is not answered is noted as dropped with its reason.
func (r *Router) Respond(_ context.Context, in *PacketIn, out *Replies) error {
	var packet ipv4Packet
	if reason := packet.parse(in.Data); reason != "" && (reason != dropFragment || !packet.leads()) {
		out.Drop(reason)
		return nil
	}
	port, reason := routerPort(in, packet.ethDst)
	if reason != "" {
		out.Drop(reason)
		return nil
	}
	from := addressTowards(in.View, port, packet.src)
	if !from.IsValid() || !deservesError(&packet) {
		out.Drop(dropUnsupported)
		return nil
	}
	// It leaves with the MAC that the packet was sent to: on an external network
	// that may be a floating IP's, which is on this host when the gateway is not.
	frame := r.frames.Get().(*[]byte)
	defer r.frames.Put(frame)
	*frame = appendICMPError((*frame)[:0], &packet, packet.ethDst, from, in.tooBig())
	out.answer(in, r.actions, *frame)
	return nil
}

// routerPort is the router's port to which a packet was sent: of those on the
// network of a VM or of another router the one with the MAC; its gateway when a
// machine on the external network sent it. It returns why there is none, or "".
func routerPort(in *PacketIn, mac network.MAC) (*network.Port, string) {
	router := in.View.RouterByKey(in.RouterKey())
	if router == nil {
		return nil, dropUnknownPort
	}
	if in.PortKey() == 0 {
		p := gatewayPort(in.View, router.ID)
		if n := in.View.NetworkByKey(in.NetworkKey()); p == nil || n == nil || p.NetworkID != n.ID {
			return nil, dropUnsupported
		}
		return p, ""
	}
	sender := in.View.PortByKey(in.PortKey())
	if sender == nil {
		return nil, dropUnknownPort
	}
	if p := interfaceTowards(in.View, router.ID, networkOf(in, sender), mac); p != nil {
		return p, ""
	}
	return nil, dropUnsupported
}

// networkOf is the network on which a router got a packet of a port: the port's
// own, or the one on which another router sent it on.
func networkOf(in *PacketIn, sender *network.Port) string {
	if in.forwarded() {
		return in.View.NetworkByKey(in.NetworkKey()).ID
	}
	return sender.NetworkID
}

// interfaceTowards is the interface of a router to which a host of a network
// sent: the one with that MAC, or nil.
func interfaceTowards(v *network.View, routerID, networkID string, mac network.MAC) *network.Port {
	for p := range v.InterfacesOf(routerID) {
		if p.NetworkID == networkID && p.MAC == mac {
			return p
		}
	}
	return nil
}

// addressTowards is the address of a router's port in the subnet of a host, else its first;
// the zero Addr when it has none of IPv4.
func addressTowards(v *network.View, p *network.Port, host netip.Addr) netip.Addr {
	var first netip.Addr
	for _, f := range p.FixedIPs {
		if !f.IP.Is4() {
			continue
		}
		if s := v.Subnet(f.SubnetID); s != nil && s.CIDR.Contains(host) {
			return f.IP
		}
		if !first.IsValid() {
			first = f.IP
		}
	}
	return first
}

// deservesError reports whether a packet may be answered by an ICMP error
// (RFC 1122, 3.2.2): not an ICMP error itself, not to or from a group.
func deservesError(p *ipv4Packet) bool {
	if p.dst.IsMulticast() || p.dst == broadcastIP || !p.src.IsGlobalUnicast() {
		return false
	}
	if p.protocol != protocolICMP {
		return true
	}
	return len(p.payload) > 0 && (p.payload[0] == icmpEchoRequest || p.payload[0] == icmpEchoReply)
}

const (
	icmpUnreachable  = 3 // code 0: network
	icmpTooBig       = 4 // code of unreachable: fragmentation needed
	icmpTimeExceeded = 11
	// icmpQuoted is how much of the packet's payload an error quotes.
	icmpQuoted = 8
	// ttlOffset is where the TTL stands in an IPv4 header.
	ttlOffset = 8
)

// tooBig is the MTU that the packet exceeds, of the network that a router would
// send it to; 0 when that is not what is wrong with it.
func (in *PacketIn) tooBig() uint16 { return uint16(in.Regs[regMTU] >> 16) }

// appendICMPError writes what a router says of a packet. Fragmentation needed is
// also said of packets that may be fragmented, which a switch can't do: senders
// then do it themselves.
func appendICMPError(frame []byte, p *ipv4Packet, mac network.MAC, from netip.Addr, mtu uint16) []byte {
	frame = append(frame, p.ethSrc[:]...)
	frame = append(frame, mac[:]...)
	frame = binary.BigEndian.AppendUint16(frame, etherTypeIPv4)
	frame = append(frame, 0x45, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
	frame = append(frame, make([]byte, 8)...)
	kind, code := byte(icmpUnreachable), byte(0)
	switch {
	case mtu != 0:
		code = icmpTooBig
	case p.header[ttlOffset] <= 1:
		kind = icmpTimeExceeded
	}
	frame = append(frame, kind, code, 0, 0, 0, 0)
	frame = binary.BigEndian.AppendUint16(frame, mtu)
	frame = append(frame, p.header...)
	frame = append(frame, p.payload[:min(len(p.payload), icmpQuoted)]...)
	ip := frame[ethernetLen:]
	putIPv4Header(ip, protocolICMP, from, p.src)
	icmp := ip[ipv4Len:]
	binary.BigEndian.PutUint16(icmp[2:], checksum(0, icmp))
	return frame
}
