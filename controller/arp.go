package controller

import (
	"context"
	"encoding/binary"
	"net/netip"

	"planck/flows"
	"planck/network"
	"planck/pipeline"
)

// ARP answers questions about the addresses of the ports of a network, for all
// of them, whether they are up or not. A question about an address that the
// asking port has itself is never answered, since that is how a client finds
// out whether somebody else uses its address.
type ARP struct {
	cached  bool   // the answer leaves a flow that gives the next ones
	actions string // to the port that asked
}

// NewARP makes the responder of pipeline.FeatureARP for a mode of pipeline.Options.
func NewARP(mode string) *ARP {
	return &ARP{
		cached:  mode != pipeline.ARPPacketIn && mode != pipeline.ARPProactive,
		actions: flows.ActionList(flows.Output(flows.PortInPort)),
	}
}

// Feature implements Responder.
func (a *ARP) Feature() pipeline.FeatureID { return pipeline.FeatureARP }

// Why a question is not answered: values of the metric's label.
const (
	dropGratuitous     = "gratuitous"
	dropOwnAddress     = "own address"
	dropUnknownAddress = "unknown address"
	dropSharedAddress  = "allowed address pair"
)

// arpLen is the length of an Ethernet frame with an ARP packet for IPv4.
const arpLen = ethernetLen + 28

const (
	arpRequest = 1
	arpReply   = 2
)

// Respond implements Responder. What is not answered is noted as dropped with its reason.
func (a *ARP) Respond(_ context.Context, in *PacketIn, out *Replies) error {
	var q arpQuestion
	if reason := q.parse(in.Data); reason != "" {
		out.Drop(reason)
		return nil
	}
	target, reason := findARPTarget(in, &q)
	if reason != "" {
		out.Drop(reason)
		return nil
	}
	var frame [arpLen]byte
	q.reply(&frame, target.MAC)
	out.PacketOut(in.InPort, a.actions, frame[:])
	if a.cached {
		out.Install(pipeline.ARPReplyKey(in.NetworkKey(), q.tpa))
	}
	return nil
}

// findARPTarget finds the port that has the address asked about; it returns
// why the question has no answer, or "".
func findARPTarget(in *PacketIn, q *arpQuestion) (*network.Port, string) {
	net := in.View.NetworkByKey(in.NetworkKey())
	if net == nil {
		return nil, dropUnknownPort
	}
	if key := in.PortKey(); key != 0 { // 0: asked from a wire
		sender := in.View.PortByKey(key)
		if sender == nil || sender.NetworkID != net.ID {
			return nil, dropUnknownPort
		}
		if portHasAddress(sender, q.tpa) {
			return nil, dropOwnAddress
		}
	}
	target := in.View.PortByIP(net.ID, q.tpa)
	if target == nil {
		return nil, dropUnknownAddress
	}
	if isShared(in.View, target, q.tpa) {
		return nil, dropSharedAddress
	}
	return target, ""
}

// isShared reports whether an address of a port moves between ports (VRRP), so
// that only they can say which one has it. The flows don't send such questions
// up; a change may be on its way. As in the flows, a range of addresses and ports
// without port security count only while nothing is plugged for the address's own
// port, which reserves it then: a port that routes for a whole prefix doesn't own
// its neighbours' addresses.
func isShared(view *network.View, owner *network.Port, a netip.Addr) bool {
	inUse := owner.Service() || view.WiredHost(owner) != ""
	for p := range view.PairPortsOf(owner.NetworkID) {
		for _, pair := range p.AllowedAddressPairs {
			if pair.IP.IsSingleIP() && pair.IP.Addr() == a {
				return true
			}
			if !inUse && p.ID != owner.ID && pair.IP.Contains(a) {
				return true
			}
		}
	}
	if inUse {
		return false
	}
	for p := range view.LoosePortsOf(owner.NetworkID) {
		if p.ID != owner.ID && !p.PortSecurityEnabled {
			return true
		}
	}
	return false
}

// arpQuestion is an ARP request.
type arpQuestion struct {
	ethSrc   network.MAC
	sha      network.MAC
	spa, tpa netip.Addr
}

// parse reads an untagged frame; it returns why it is no question, or "".
func (q *arpQuestion) parse(frame []byte) string {
	if len(frame) < ethernetLen {
		return dropTruncated
	}
	switch binary.BigEndian.Uint16(frame[12:]) {
	case etherTypeARP:
	case etherTypeVLAN, etherTypeQinQ:
		return dropTagged
	default:
		return dropOtherType
	}
	if len(frame) < arpLen {
		return dropTruncated
	}
	b := frame[ethernetLen:]
	if binary.BigEndian.Uint64(b) != arpHeader|arpRequest {
		return dropMalformed
	}
	q.ethSrc, q.sha = network.MAC(frame[6:12]), network.MAC(b[8:14])
	q.spa, q.tpa = address4(b[14:]), address4(b[24:])
	if q.spa == q.tpa {
		return dropGratuitous
	}
	return ""
}

// arpHeader is how an ARP packet about IPv4 on Ethernet begins: hardware type
// 1, protocol 0x0800, lengths 6 and 4, then the operation in the low 16 bits.
const arpHeader = 0x0001_0800_0604_0000

// reply writes the answer: the address asked about has mac.
func (q *arpQuestion) reply(frame *[arpLen]byte, mac network.MAC) {
	copy(frame[0:], q.ethSrc[:])
	copy(frame[6:], mac[:])
	binary.BigEndian.PutUint16(frame[12:], etherTypeARP)
	b := frame[ethernetLen:]
	binary.BigEndian.PutUint64(b, arpHeader|arpReply)
	copy(b[8:], mac[:])
	putAddress4(b[14:], q.tpa)
	copy(b[18:], q.sha[:])
	putAddress4(b[24:], q.spa)
}
