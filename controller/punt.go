package controller

import (
	"context"
	"encoding/binary"
	"iter"

	"planck/flows"
	"planck/network"
	"planck/pipeline"
)

// PacketIn is a packet that a switch sent up, with what is known of its sender.
// The sender is identified by Host, Bridge, InPort and the registers that the
// pipeline set; never by the addresses in the packet.
//
// A PacketIn and its Data belong to the dispatcher and are used again for the
// next packet: a responder that needs anything after it returned copies it.
type PacketIn struct {
	Host     string
	Bridge   string
	InPort   uint32
	Table    uint8
	Metadata uint64
	Regs     [16]uint32
	TunnelID uint64
	Cookie   pipeline.Cookie // of the flow that sent the packet up
	Data     []byte          // the Ethernet frame; may be longer than its headers say
	// View is the newest revision of the model that the flows were compiled from.
	View *network.View
	// Switch is the one that sent the packet up. A responder may keep it, to
	// answer later.
	Switch Switch
}

// Switch takes packets to send.
type Switch interface {
	// PacketOut sends data through the encoded action list with the given
	// in_port; false means that the switch is gone, or too slow to take it.
	PacketOut(inPort uint32, actions string, data []byte) bool
}

// NetworkKey is the key of the network that the packet is on, 0 for none.
func (in *PacketIn) NetworkKey() uint32 { return uint32(in.Metadata) }

// RouterKey is the key of the router that has the packet, 0 for none.
func (in *PacketIn) RouterKey() uint32 { return uint32(in.Metadata >> 32) }

// PortKey is the key of the port that sent the packet, 0 when it came from a
// wire or a tunnel.
func (in *PacketIn) PortKey() uint32 { return in.Regs[regSourcePort] }

// etherType is the EtherType of a frame, 0 when it has none.
func etherType(frame []byte) uint16 {
	if len(frame) < ethernetLen {
		return 0
	}
	return binary.BigEndian.Uint16(frame[12:])
}

// regSourcePort is the number of the register that holds the source port key.
const regSourcePort = pipeline.RegSource - flows.Reg0

// regLocalVLAN is the number of the register that holds the local VLAN.
const regLocalVLAN = pipeline.RegLocalVLAN - flows.Reg0

// regMTU is the number of the register that holds the MTU to tell a sender.
const regMTU = pipeline.RegMTU - flows.Reg0

// Responder answers the packets that one feature of the pipeline sends up.
// Several workers call Respond at once.
type Responder interface {
	// Feature is the feature whose punting flows this responder answers.
	Feature() pipeline.FeatureID
	// Respond adds to out what is to be sent. An error is logged at debug level
	// and counted; nothing is sent then.
	Respond(ctx context.Context, in *PacketIn, out *Replies) error
}

// Replies collects what a responder wants done at the switch that sent a packet
// up. The zero value is ready for use.
type Replies struct {
	outs     []replyOut
	data     []byte
	installs []flows.Key
	dropped  string
}

type replyOut struct {
	inPort     uint32
	actions    string
	start, end int
}

// PacketOut sends data through the encoded action list (flows.ActionList) with
// the given in_port. data is copied.
func (r *Replies) PacketOut(inPort uint32, actions string, data []byte) {
	start := len(r.data)
	r.data = append(r.data, data...)
	r.outs = append(r.outs, replyOut{inPort: inPort, actions: actions, start: start, end: len(r.data)})
}

// forwarded reports whether a router forwarded the packet on its host before: it
// is not on the network of the port that it came from.
func (in *PacketIn) forwarded() bool {
	sender, n := in.View.PortByKey(in.PortKey()), in.View.NetworkByKey(in.NetworkKey())
	return sender != nil && n != nil && sender.NetworkID != n.ID
}

// answer sends a frame back to who sent the packet: to its port, or into the
// network on which it came from a wire or a tunnel.
func (r *Replies) answer(in *PacketIn, toPort string, frame []byte) {
	if in.PortKey() == 0 {
		r.PacketOut(flows.PortController, intoNetwork(in.NetworkKey(), in.Regs[regLocalVLAN]), frame)
		return
	}
	if !in.forwarded() {
		r.PacketOut(in.InPort, toPort, frame)
		return
	}
	// Through the routers on the way back conntrack would refuse it: the packet
	// that it is about was not let out yet.
	sender := in.View.PortByKey(in.PortKey())
	if vif := in.View.VIF(sender.ID, in.Host); vif != nil {
		copy(frame, sender.MAC[:])
		r.PacketOut(flows.PortController, flows.ActionList(flows.Output(vif.OFPort)), frame)
	}
}

// intoNetwork is the actions that deliver a frame on a network of a host.
func intoNetwork(networkKey, localVLAN uint32) string {
	return flows.ActionList(
		flows.SetField(flows.Metadata, uint64(networkKey)),
		flows.SetField(pipeline.RegLocalVLAN, uint64(localVLAN)),
		flows.Resubmit(pipeline.L2Lookup.ID))
}

// Install asks for the permitted flow with this key (for example a cached ARP
// reply). It is installed as the compiler has it, or not at all when the model
// no longer permits it.
func (r *Replies) Install(key flows.Key) { r.installs = append(r.installs, key) }

// Drop notes why the packet is not answered: a short constant, since it becomes
// the value of a metric's label.
func (r *Replies) Drop(reason string) { r.dropped = reason }

// Later notes that the answer follows, through the Switch of the packet.
func (r *Replies) Later() { r.dropped = outcomeLater }

// PacketOut is one packet to send.
type PacketOut struct {
	InPort  uint32
	Actions string // encoded action list
	Data    []byte // valid until the Replies is used again
}

// PacketOuts yields the packets to send, in order.
func (r *Replies) PacketOuts() iter.Seq[PacketOut] {
	return func(yield func(PacketOut) bool) {
		for _, o := range r.outs {
			if !yield(PacketOut{InPort: o.inPort, Actions: o.actions, Data: r.data[o.start:o.end]}) {
				return
			}
		}
	}
}

// Installs are the keys of the permitted flows asked for.
func (r *Replies) Installs() []flows.Key { return r.installs }

// Dropped is the reason given to Drop, "" for none.
func (r *Replies) Dropped() string { return r.dropped }

func (r *Replies) reset() {
	r.outs, r.data, r.installs, r.dropped = r.outs[:0], r.data[:0], r.installs[:0], ""
}
