package controller

import (
	"context"
	"encoding/binary"

	"planck/flows"
	"planck/network"
)

// moves is what the tracker knows of ports that move between hosts.
type moves struct {
	waiting map[string]uint64   // port → revision that the hosts it may move to must have
	moved   map[string]struct{} // ports that moved and have not announced it
}

func newMoves() moves {
	return moves{waiting: make(map[string]uint64), moved: make(map[string]struct{})}
}

// movedBy reports whether a change moves a port from one host to another.
func movedBy(ch network.Change) bool {
	before, ok := ch.Before.(*network.Port)
	if !ok || ch.After == nil {
		return false
	}
	after := ch.After.(*network.Port)
	return before.Binding.Host != "" && after.Binding.Host != "" && before.Binding.Host != after.Binding.Host
}

// ready finds the hosts that have all flows for ports that may move there. The
// ports whose hosts still lack some go on waiting.
func (k *tracker) ready(v *network.View) []network.Readiness {
	var found []network.Readiness
	for id, revision := range k.moves.waiting {
		p, waits := v.Port(id), false
		if p == nil {
			delete(k.moves.waiting, id)
			delete(k.moves.moved, id)
			continue
		}
		for _, b := range p.Inactive {
			switch {
			case !v.AwaitedOn(p, b.Host) || v.ReadyOn(id, b.Host):
			case k.isReady(v, p, b.Host, revision):
				found = append(found, network.Readiness{PortID: id, Host: b.Host})
			default:
				waits = true
			}
		}
		if !waits {
			delete(k.moves.waiting, id)
		}
	}
	return found
}

func (k *tracker) isReady(v *network.View, p *network.Port, name string, revision uint64) bool {
	h, n := v.Host(name), v.Network(p.NetworkID)
	return h != nil && n != nil && v.Presence(n.ID, name) != nil && k.hosts.hostHas(h, n, revision)
}

// writeReady tells the model which ports can move where.
func (k *tracker) writeReady(ctx context.Context, v *network.View) error {
	found := k.ready(v)
	if len(found) == 0 {
		return nil
	}
	_, err := k.store.Update(ctx, network.Cause{Operation: "ready for a move"}, func(tx *network.Tx) error {
		for _, r := range found {
			if err := tx.SetReady(r.PortID, r.Host); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		for _, r := range found {
			k.moves.waiting[r.PortID] = v.Revision()
		}
		return err
	}
	for _, r := range found {
		k.log.Debug("port is ready to move", "port_id", r.PortID, "host", r.Host)
	}
	return nil
}

// announceMoved lets a port that became ACTIVE tell the wire where it is, if it moved.
func (k *tracker) announceMoved(v *network.View, portID string) {
	if _, moved := k.moves.moved[portID]; !moved {
		return
	}
	delete(k.moves.moved, portID)
	if p := v.Port(portID); p != nil {
		k.hosts.announce(v, p)
	}
}

// announce implements hosts: the host of a port sends what its VM would, so that
// switches of physical networks learn at once where its MAC is.
func (c *Controller) announce(v *network.View, p *network.Port) {
	t, vif := c.bridge(p.Binding.Host, network.BridgeIntegration), v.VIF(p.ID, p.Binding.Host)
	if t == nil || vif == nil {
		return
	}
	s := t.connected()
	if s == nil {
		return
	}
	actions := flows.ActionList(flows.Output(flows.PortTable))
	var messages []byte
	for _, frame := range announcements(p) {
		messages = flows.AppendPacketOut(messages, xidUnmatched, vif.OFPort, actions, frame)
	}
	if !s.out.trySend(messages) {
		c.log.Debug("a move is not announced: the switch is slow", "port_id", p.ID, "host", p.Binding.Host)
	}
}

// etherTypeRARP and reverseRequest are of RFC 903.
const (
	etherTypeRARP  = 0x8035
	reverseRequest = 3
)

// announcements are a gratuitous ARP request for each IPv4 address of a port
// (RFC 5227), or the reverse ARP request that hypervisors send when there is none.
func announcements(p *network.Port) [][]byte {
	var frames [][]byte
	for _, f := range p.FixedIPs {
		if !f.IP.Is4() {
			continue
		}
		frame := broadcastFrom(p.MAC, etherTypeARP, arpRequest)
		putAddress4(frame[ethernetLen+14:], f.IP)
		putAddress4(frame[ethernetLen+24:], f.IP)
		frames = append(frames, frame)
	}
	if len(frames) == 0 {
		frame := broadcastFrom(p.MAC, etherTypeRARP, reverseRequest)
		copy(frame[ethernetLen+18:], p.MAC[:])
		frames = append(frames, frame)
	}
	return frames
}

func broadcastFrom(mac network.MAC, etherType uint16, operation uint64) []byte {
	frame := make([]byte, arpLen)
	copy(frame, []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff})
	copy(frame[6:], mac[:])
	binary.BigEndian.PutUint16(frame[12:], etherType)
	binary.BigEndian.PutUint64(frame[ethernetLen:], arpHeader|operation)
	copy(frame[ethernetLen+8:], mac[:])
	return frame
}
