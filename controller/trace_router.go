package controller

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"net/netip"

	"planck/flows"
	"planck/network"
	"planck/pipeline"
	"planck/trace"
)

// punted says what the controller does with a packet: that of a router that can't
// forward it gets an error only.
func (t *tracer) punted(e *trace.End, result *trace.Result) (verdict, summary string) {
	onRouter := e.Bridge == network.BridgeIntegration
	switch {
	case onRouter && e.Table == pipeline.RouterICMP.ID:
		return t.notForwarded(e)
	case onRouter && e.Flow != nil && pipeline.Cookie(e.Flow.Cookie).Feature() == pipeline.FeatureNeighbor:
		return t.unresolved(e)
	}
	return e.How, fmt.Sprintf("goes to the controller from table %s of host %s: %s answers", pipeline.TableName(e.Bridge, e.Table), e.Host, t.lastFeature(result))
}

// notForwarded says why a router sends an error back.
func (t *tracer) notForwarded(e *trace.End) (verdict, summary string) {
	router := t.view.RouterByKey(uint32(e.Packet.Get(flows.Metadata).Lo >> 32))
	if router == nil {
		return trace.Lost, "lost: the router that it was sent to is not known"
	}
	name := cmp.Or(router.Name, router.ID)
	if mtu := pipeline.ToldMTU(&e.Packet); mtu != 0 {
		return trace.Dropped, fmt.Sprintf("dropped on host %s by router %s: it is longer than the MTU of the network behind, %d bytes; the router tells the sender so", e.Host, name, mtu)
	}
	if e.Packet.Get(flows.IPTTL).Lo <= 1 {
		return trace.Dropped, fmt.Sprintf("dropped on host %s by router %s: its TTL ends there; the router tells the sender so", e.Host, name)
	}
	why := "no subnet of its interfaces, no extra route and no gateway leads there"
	if router.GatewayPortID == "" {
		why = "it has no gateway, and no subnet of its interfaces and no extra route leads there"
	}
	return trace.Lost, fmt.Sprintf("lost: router %s has no route to %s: %s; it tells the sender that the network is unreachable", name, destinationOf(&e.Packet), why)
}

// unresolved says who a router asks for, since it does not know the MAC yet.
func (t *tracer) unresolved(e *trace.End) (verdict, summary string) {
	n := t.view.NetworkByKey(uint32(e.Packet.Get(flows.Metadata).Lo))
	if n == nil {
		return trace.Lost, "lost: the network that it was routed to is not known"
	}
	hop := routedTo(&e.Packet)
	name := cmp.Or(n.Name, n.ID)
	switch {
	case !n.External:
		return trace.Lost, fmt.Sprintf("lost: no port of network %s has the address %s; its ports are asked whether one holds it as an allowed address", name, hop)
	case t.of != nil && t.of.silentNextHop(e.Host, n.ID, hop):
		return trace.Lost, fmt.Sprintf("lost: nobody on the external network %s answers for %s", name, hop)
	}
	return trace.Lost, fmt.Sprintf("lost: nobody is known to have %s on the external network %s; a first packet makes host %s ask for it, and those that follow get there if there is an answer: planck ping shows", hop, name, e.Host)
}

func destinationOf(p *flows.Packet) netip.Addr {
	if ip := p.IP(flows.IPv4Dst); ip.IsValid() {
		return ip
	}
	return p.IP(flows.IPv6Dst)
}

// routedTo is the next hop that the registers of a packet hold.
func routedTo(p *flows.Packet) netip.Addr {
	if p.IP(flows.IPv4Dst).IsValid() {
		var b [4]byte
		binary.BigEndian.PutUint32(b[:], uint32(p.Get(pipeline.RegNextHop).Lo))
		return netip.AddrFrom4(b)
	}
	v := p.Get(pipeline.RegNextHop6)
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], v.Hi)
	binary.BigEndian.PutUint64(b[8:], v.Lo)
	return netip.AddrFrom16(b)
}
