package pipeline

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"planck/flows"
	"planck/network"
)

// Ports that each host has, beside those of its VMs: see host.
const (
	patchToTunnel, patchToWire = 101, 102 // of br-int
	patchOfTunnel              = 103      // of br-tun, towards br-int
	patchOfWire                = 104      // of br-ex, towards br-int
	wirePort                   = 105      // of br-ex
)

// frame is a UDP packet as it goes over a link.
type frame struct {
	ethSrc, ethDst network.MAC
	vlan           uint16 // 0 for none
	src, dst       netip.Addr
	ttl            uint8
	sport, dport   uint16
}

func (f frame) String() string {
	return fmt.Sprintf("%s→%s vlan %d %s:%d→%s:%d ttl %d", f.ethSrc, f.ethDst, f.vlan, f.src, f.sport, f.dst, f.dport, f.ttl)
}

// arrival is a frame that comes to a port of a bridge.
type arrival struct {
	host, bridge string
	port         uint32
	key          uint32 // of the tunnel that it came by
	peer         netip.Addr
	frame
}

// terms is the packet as it comes to table 0.
func (a arrival) terms() []flows.Term {
	f := a.frame
	terms := []flows.Term{
		flows.InPort.Is(uint64(a.port)), flows.EthSrc.IsMAC(f.ethSrc), flows.EthDst.IsMAC(f.ethDst), flows.IPTTL.Is(uint64(f.ttl)),
		flows.UDP, flows.UDPSrc.Is(uint64(f.sport)), flows.UDPDst.Is(uint64(f.dport)),
	}
	if f.vlan != 0 {
		terms = append(terms, flows.VLANVID.Is(vlanPresent|uint64(f.vlan)))
	}
	if a.peer.IsValid() {
		terms = append(terms, flows.TunnelID.Is(uint64(a.key)), flows.TunSrc.IsIP(a.peer))
	}
	if f.src.Is4() {
		return append(terms, flows.IPv4, flows.IPv4Src.IsIP(f.src), flows.IPv4Dst.IsIP(f.dst))
	}
	return append(terms, flows.IPv6, flows.IPv6Src.IsIP(f.src), flows.IPv6Dst.IsIP(f.dst))
}

// departure is a frame that leaves a host by a port of a bridge, to a peer when
// that port is one of tunnels.
type departure struct {
	bridge string
	port   uint32
	key    uint32
	peer   netip.Addr
	frame
}

// forwarder is the switches of all hosts, each of which forwards alone.
type forwarder interface {
	// forward tells what leaves a host, or goes to the controller, for what
	// arrived there; and how that came about, in words.
	forward(a arrival) ([]departure, string)
}

// outsider is what is beyond a network: the next hop of all that leaves the cloud.
type outsider struct {
	network string
	vlan    uint16 // 0 for a flat network
	mac     network.MAC
}

// fabric connects the hosts: tunnels from address to address, and one wire that
// takes each frame to all bridges and to what is outside.
type fabric struct {
	*testing.T
	view      *network.View
	outsiders []outsider
	forwarder
}

// maxHops is far more than any frame takes that does not go in circles.
const maxHops = 40

// travel follows a frame until all of its copies are delivered or lost. It tells
// who got it, as the oracle does, and the way.
func (f *fabric) travel(from ...arrival) (reached []string, way string) {
	f.Helper()
	for hops := 0; len(from) > 0; hops++ {
		if hops > maxHops {
			f.Fatalf("the frame goes in circles\n%s", way)
		}
		at := from[0]
		from = from[1:]
		departures, text := f.forward(at)
		way += fmt.Sprintf("--- %s %s port %d key %d: %s\n%s", at.host, at.bridge, at.port, at.key, at.frame, text)
		for _, d := range departures {
			got, on := f.depart(at.host, d)
			reached, from = append(reached, got...), append(from, on...)
		}
	}
	slices.Sort(reached)
	return slices.Compact(reached), way
}

// depart is where a frame gets to that left a host.
func (f *fabric) depart(host string, d departure) (reached []string, on []arrival) {
	switch {
	case d.port >= flows.PortMax:
		return nil, nil // the controller, or the host itself
	case d.bridge == network.BridgeIntegration:
		for v := range f.view.VIFsOn(host) {
			if v.OFPort == d.port {
				return []string{delivered(v.PortID, d.src, d.dst)}, nil
			}
		}
		f.Fatalf("%s of %s has no port %d", d.bridge, host, d.port)
	case d.bridge == network.BridgeTunnel:
		for h := range f.view.Hosts() {
			if h.TunnelIP == d.peer {
				on = append(on, arrival{host: h.Name, bridge: d.bridge, port: d.port, key: d.key, peer: f.view.Host(host).TunnelIP, frame: d.frame})
			}
		}
		return nil, on
	}
	for _, o := range f.outsiders {
		if o.vlan == d.vlan && o.mac == d.ethDst {
			reached = append(reached, delivered("outside "+o.network, d.src, d.dst))
		}
	}
	return reached, f.onWire(host, d.frame)
}

// onWire is where a frame comes to that is on the physical network, sent by a
// host or by none.
func (f *fabric) onWire(host string, on frame) (all []arrival) {
	for h := range f.view.Hosts() {
		if _, ok := h.Bridges["br-ex"]; ok && h.Name != host {
			all = append(all, arrival{host: h.Name, bridge: "br-ex", port: wirePort, frame: on})
		}
	}
	return all
}

// delivered says that something got a packet from a source to a destination.
func delivered(to string, src, dst netip.Addr) string {
	return fmt.Sprintf("%s gets %s→%s", to, src, dst)
}

// walked forwards by the walker.
type walked struct {
	testing.TB
	walkers map[Target]*flows.Walker
	most    int // recirculations on one host
}

// forward follows the patch ports of a host, over which headers and pkt_mark go
// and nothing else.
func (w *walked) forward(a arrival) (all []departure, way string) {
	w.Helper()
	type visit struct {
		bridge         string
		packet         flows.Packet
		recirculations int
	}
	visits := []visit{{a.bridge, flows.NewPacket(a.terms()...), 0}}
	for len(visits) > 0 {
		v := visits[0]
		visits = visits[1:]
		walker := w.walkers[Target{a.host, v.bridge}]
		if walker == nil {
			continue // nothing is wanted there: it drops everything
		}
		trace, err := walker.Walk(v.packet)
		way += v.bridge + "\n" + trace.String()
		if err != nil {
			w.Fatalf("%s %s: %s\n%s", a.host, v.bridge, err, way)
		}
		v.recirculations += trace.Recirculations
		limit := maxRecirculations
		if a.peer.IsValid() {
			limit = maxAfterTunnel
		}
		if w.most = max(w.most, v.recirculations); v.recirculations > limit {
			w.Fatalf("%d recirculations, more than %d\n%s", v.recirculations, limit, way)
		}
		for _, d := range departures(v.bridge, v.packet, &trace) {
			bridge, port := patchPeer(v.bridge, d.port)
			if bridge == "" {
				all = append(all, d.departure)
				continue
			}
			on := arrival{host: a.host, bridge: bridge, port: port, frame: d.frame}
			visits = append(visits, visit{bridge, flows.NewPacket(append(on.terms(), flows.PktMark.Is(d.mark))...), v.recirculations})
		}
	}
	return all, way
}

// marked is a departure with the mark that a patch port does not take off.
type marked struct {
	departure
	mark uint64
}

// departures is what a walk sent; a bridge that has learnt nothing floods with NORMAL.
func departures(bridge string, in flows.Packet, trace *flows.Trace) (all []marked) {
	for _, s := range trace.Sent {
		d := marked{departure{bridge: bridge, port: s.Port, key: uint32(s.Packet.Get(flows.TunnelID).Lo), frame: frameOf(s.Packet)}, s.Packet.Get(flows.PktMark).Lo}
		if to := s.Packet.Get(flows.TunDst).Lo; to != 0 {
			d.peer = ipv4Of(to)
		}
		if s.Port != flows.PortNormal {
			all = append(all, d)
			continue
		}
		for _, port := range []uint32{patchOfWire, wirePort} {
			if d.port = port; uint64(port) != in.Get(flows.InPort).Lo {
				all = append(all, d)
			}
		}
	}
	return all
}

// patchPeer is the other end of a patch port, "" when the port is none.
func patchPeer(bridge string, port uint32) (string, uint32) {
	switch {
	case bridge == network.BridgeIntegration && port == patchToTunnel:
		return network.BridgeTunnel, patchOfTunnel
	case bridge == network.BridgeIntegration && port == patchToWire:
		return "br-ex", patchOfWire
	case bridge == network.BridgeTunnel && port == patchOfTunnel:
		return network.BridgeIntegration, patchToTunnel
	case bridge == "br-ex" && port == patchOfWire:
		return network.BridgeIntegration, patchToWire
	}
	return "", 0
}

func frameOf(p flows.Packet) frame {
	f := frame{
		ethSrc: macOf(p.Get(flows.EthSrc).Lo), ethDst: macOf(p.Get(flows.EthDst).Lo), vlan: uint16(p.Get(flows.VLANVID).Lo &^ vlanPresent),
		ttl: uint8(p.Get(flows.IPTTL).Lo), sport: uint16(p.Get(flows.UDPSrc).Lo), dport: uint16(p.Get(flows.UDPDst).Lo),
	}
	if p.Get(flows.EthType).Lo == 0x0800 {
		f.src, f.dst = ipv4Of(p.Get(flows.IPv4Src).Lo), ipv4Of(p.Get(flows.IPv4Dst).Lo)
		return f
	}
	f.src, f.dst = ipv6Of(p.Get(flows.IPv6Src)), ipv6Of(p.Get(flows.IPv6Dst))
	return f
}

func macOf(v uint64) network.MAC {
	return network.MAC{byte(v >> 40), byte(v >> 32), byte(v >> 24), byte(v >> 16), byte(v >> 8), byte(v)}
}

func ipv4Of(v uint64) netip.Addr {
	return netip.AddrFrom4([4]byte{byte(v >> 24), byte(v >> 16), byte(v >> 8), byte(v)})
}

func ipv6Of(v flows.Value) netip.Addr {
	var b [16]byte
	for i := range 8 {
		b[i], b[8+i] = byte(v.Hi>>(56-8*i)), byte(v.Lo>>(56-8*i))
	}
	return netip.AddrFrom16(b)
}
