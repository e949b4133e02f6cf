// Package trace follows a packet that a machine would send, through the tables
// of every bridge of every host on its way: over patch ports, tunnels and the
// physical network, by the flows that it is given. It sends nothing and does no I/O.
//
// Connections are new: conntrack takes each packet for the first of one, and
// translates addresses as it would for that.
package trace

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"planck/flows"
	"planck/network"
)

// Tables gives what a bridge of a host has, or an error that says why that is not known.
type Tables func(host, bridge string) (*flows.Set, error)

// Via is how a packet comes to a bridge.
type Via string

// The ways to a bridge.
const (
	ViaVIF    Via = "vif"    // from a machine
	ViaPatch  Via = "patch"  // from another bridge of the host
	ViaTunnel Via = "tunnel" // from another host
	ViaWire   Via = "wire"   // from the physical network
)

// Hop is a packet's way through one bridge.
type Hop struct {
	Host, Bridge string
	Via          Via
	From         string // the host or bridge that it comes from, "" for a machine or the outside
	Packet       flows.Packet
	Steps        []flows.Step
}

// How a packet, or a copy of it, may end.
const (
	Delivered = "delivered" // to the machine behind a port
	Outside   = "outside"   // left on the physical network, to somebody who is not of the cloud
	Punted    = "punted"    // the controller answers it
	Local     = "local"     // the host itself has it
	Dropped   = "dropped"   // by a flow
	Lost      = "lost"      // there is no way on
)

// End is where a packet, or a copy of it, ended.
type End struct {
	How          string
	Host, Bridge string
	Port         *network.Port // that has it, of Delivered
	Flow         *flows.Flow   // that dropped or punted it, nil for none
	Table        uint8         // the last one, of what was dropped or punted
	Packet       flows.Packet  // as it was then
	Physical     string        // the physical network, of Outside
	Why          string        // of Lost
}

// Result is a packet's way and its ends.
type Result struct {
	Hops []Hop
	Ends []End
}

// maxHops is far more than any packet takes that does not go in circles.
const maxHops = 64

const (
	ctNew         = 1 << 0
	ctEstablished = 1 << 1
	ctTracked     = 1 << 5
)

// Fabric is the switches of all hosts, each read once.
type Fabric struct {
	view    *network.View
	tables  Tables
	length  uint16
	walkers map[place]*flows.Walker
}

// NewFabric makes one. Length is that of all packets with their Ethernet header,
// in bytes.
func NewFabric(view *network.View, tables Tables, length uint16) *Fabric {
	return &Fabric{view, tables, length, map[place]*flows.Walker{}}
}

// Run follows a packet as Fabric.Run does, for one packet.
func Run(view *network.View, tables Tables, first *First, length uint16) (*Result, error) {
	return NewFabric(view, tables, length).Run(first)
}

// Places names the bridges of the way, each once, and says how many hops are new.
func (r *Result) Places() (names []string, fresh int) {
	fresh = len(r.Hops)
	for i, h := range r.Hops {
		at := fmt.Sprintf("%s of host %s", h.Bridge, h.Host)
		if !slices.Contains(names, at) {
			names = append(names, at)
		} else if fresh == len(r.Hops) {
			fresh = i + 1
		}
	}
	return names, fresh
}

// ErrCircles says that a packet never ends.
var ErrCircles = errors.New("the packet goes in circles")

// Run follows a packet until all of its copies have ended. The error says which
// tables could not be read, or that there is no end: how far it came is told too.
func (f *Fabric) Run(first *First) (*Result, error) {
	r := &run{Fabric: f, state: ctTracked | ctNew}
	if first.known {
		r.state = ctTracked | ctEstablished
	}
	r.queue = first.visits
	r.Ends = append(r.Ends, first.ends...)
	for len(r.queue) > 0 {
		v := r.queue[0]
		r.queue = r.queue[1:]
		if len(r.Hops) == maxHops {
			return &r.Result, ErrCircles
		}
		if err := r.visit(v); err != nil {
			return &r.Result, err
		}
	}
	return &r.Result, nil
}

type place struct{ host, bridge string }

type run struct {
	*Fabric
	Result
	state uint64 // of connections
	queue []visit
}

// visit is a packet that comes to a bridge.
type visit struct {
	place
	via    Via
	from   string
	packet flows.Packet
}

func (r *run) walker(at place) (*flows.Walker, error) {
	w := r.walkers[at]
	if w == nil {
		set, err := r.tables(at.host, at.bridge)
		if err != nil {
			return nil, err
		}
		w = flows.NewWalker(set)
		w.Length = r.length
		r.walkers[at] = w
	}
	w.ConnState = r.state
	return w, nil
}

func (r *run) visit(v visit) error {
	w, err := r.walker(v.place)
	if err != nil {
		return err
	}
	way, err := w.Walk(v.packet)
	if err != nil {
		r.Hops = append(r.Hops, Hop{v.host, v.bridge, v.via, v.from, v.packet, way.Steps})
		return fmt.Errorf("host %s bridge %s: %w", v.host, v.bridge, err)
	}
	hop := Hop{v.host, v.bridge, v.via, v.from, v.packet, way.Steps}
	if v.via != ViaWire {
		r.Hops = append(r.Hops, hop)
		r.sent(v, &way)
		return nil
	}
	// Whoever is on the wire sees the frame: it is on its way where it is let in.
	if r.taken(v, &way) {
		r.Hops = append(r.Hops, hop)
		r.sent(v, &way)
	}
	return nil
}

// taken reports whether a provider bridge does something with a frame of the
// wire, beside what it does with those of others.
func (r *run) taken(v visit, way *flows.Trace) bool {
	for _, s := range way.Sent {
		if s.Port != flows.PortNormal {
			return true
		}
	}
	return false
}

// sent goes on with what left a bridge.
func (r *run) sent(v visit, way *flows.Trace) {
	if len(way.Sent) == 0 {
		last := way.Steps[len(way.Steps)-1]
		r.end(End{How: Dropped, Host: v.host, Bridge: v.bridge, Flow: last.Flow, Table: last.Table, Packet: v.packet})
		return
	}
	for _, s := range way.Sent {
		r.output(v, way, s)
	}
}

func (r *run) end(e End) { r.Ends = append(r.Ends, e) }

func (r *run) output(v visit, way *flows.Trace, s flows.Sent) {
	end := End{Host: v.host, Bridge: v.bridge, Packet: s.Packet}
	host := r.view.Host(v.host)
	switch {
	case s.Port == flows.PortController:
		last := way.Steps[len(way.Steps)-1]
		end.How, end.Flow, end.Table = Punted, last.Flow, last.Table
		r.end(end)
	case s.Port == flows.PortLocal:
		end.How = Local
		r.end(end)
	case host == nil:
		end.How, end.Why = Lost, "host "+v.host+" is not known"
		r.end(end)
	case r.overPatch(v, host, s):
	case v.bridge == network.BridgeIntegration:
		r.toVIF(v, s, end)
	case v.bridge == network.BridgeTunnel:
		r.overTunnel(v, host, s, end)
	default:
		r.overWire(v, host, s, end)
	}
}

// overPatch goes on in another bridge of the host, when the port leads to one.
func (r *run) overPatch(v visit, host *network.Host, s flows.Sent) bool {
	for other, port := range host.Bridges[v.bridge].Patches {
		if port != s.Port {
			continue
		}
		in := host.Bridges[other].Patches[v.bridge]
		r.queue = append(r.queue, visit{place{v.host, other}, ViaPatch, v.bridge, s.Packet.Beyond(in, true)})
		return true
	}
	return false
}

func (r *run) toVIF(v visit, s flows.Sent, end End) {
	for vif := range r.view.VIFsOn(v.host) {
		if vif.OFPort == s.Port {
			end.How, end.Port = Delivered, r.view.Port(vif.PortID)
		}
	}
	if end.Port == nil {
		end.How, end.Why = Lost, fmt.Sprintf("nothing that is known is plugged into port %d of br-int", s.Port)
	}
	r.end(end)
}

func (r *run) overTunnel(v visit, host *network.Host, s flows.Sent, end End) {
	to := s.Packet.IP(flows.TunDst)
	if !to.IsValid() {
		to = s.Packet.IP(flows.TunIPv6Dst)
	}
	kind := ""
	for t, port := range host.Bridges[v.bridge].Tunnels {
		if port == s.Port {
			kind = t
		}
	}
	for h := range r.view.Hosts() {
		if h.TunnelIP != to || h.Name == host.Name || !to.IsValid() {
			continue
		}
		in := h.Bridges[network.BridgeTunnel].Tunnels[kind]
		if in == 0 {
			break
		}
		packet := s.Packet.Beyond(in, false)
		packet.Set(flows.TunnelID.Is(s.Packet.Get(flows.TunnelID).Lo), source(host.TunnelIP))
		r.queue = append(r.queue, visit{place{h.Name, network.BridgeTunnel}, ViaTunnel, host.Name, packet})
		return
	}
	end.How, end.Why = Lost, fmt.Sprintf("no host has a %s tunnel at %s", kind, to)
	r.end(end)
}

func source(a netip.Addr) flows.Term {
	if a.Is4() {
		return flows.TunSrc.IsIP(a)
	}
	return flows.TunIPv6Src.IsIP(a)
}

// overWire is a frame that a provider bridge puts on the physical network. What
// NORMAL would do with one from the wire is the operator's matter.
func (r *run) overWire(v visit, host *network.Host, s flows.Sent, end End) {
	if s.Port == flows.PortNormal && v.via == ViaWire {
		return
	}
	for physical, bridge := range host.BridgeMappings {
		if bridge == v.bridge {
			end.Physical = physical
		}
	}
	on := wire(r.view, end.Physical, host.Name, s.Packet)
	taken := false
	for _, next := range on {
		w, err := r.walker(next.place)
		if err != nil {
			continue // a host that is not read can't be told to take it
		}
		if way, err := w.Walk(next.packet); err == nil && r.taken(next, &way) {
			r.queue, taken = append(r.queue, next), true
		}
	}
	if taken {
		return
	}
	end.How = Outside
	if owner := r.owner(end.Physical, s.Packet); owner != nil {
		end.How, end.Why = Lost, "no host takes it from the wire for port "+owner.ID
	}
	r.end(end)
}

// owner is the port of the cloud that has the destination MAC of a frame on a
// physical network.
func (r *run) owner(physical string, p flows.Packet) *network.Port {
	vlan := uint32(p.Get(flows.VLANVID).Lo &^ flows.VLANPresent)
	for n := range r.view.Networks() {
		if n.Provider() && n.PhysicalNetwork == physical && n.SegmentationID == vlan {
			if owner := r.view.PortByMAC(n.ID, p.MAC(flows.EthDst)); owner != nil {
				return owner
			}
		}
	}
	return nil
}

// wire is where a frame comes to that is on a physical network, put there by a
// host or, with "", from outside.
func wire(view *network.View, physical, sender string, frame flows.Packet) (all []visit) {
	for h := range view.Hosts() {
		bridge, ok := h.BridgeMappings[physical]
		if !ok || h.Name == sender {
			continue
		}
		all = append(all, visit{place{h.Name, bridge}, ViaWire, sender, frame.Beyond(wirePort(h, bridge), false)})
	}
	return all
}

// wirePort is a port of a provider bridge that leads to no bridge: which one does
// not matter to its flows.
func wirePort(h *network.Host, bridge string) uint32 {
	port := uint32(1)
	for taken := true; taken; {
		taken = false
		for _, patch := range h.Bridges[bridge].Patches {
			if patch == port {
				port, taken = port+1, true
			}
		}
	}
	return port
}
