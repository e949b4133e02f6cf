package trace

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"net/netip"

	"planck/flows"
	"planck/network"
)

// Question is the packet that is asked about.
type Question struct {
	From     *network.Port // whose machine sends it; nil for somebody outside
	Src      netip.Addr    // its source; the zero Addr for the port's own
	Dst      netip.Addr
	Protocol uint8  // of IP
	SrcPort  uint16 // of TCP, UDP and SCTP
	DstPort  uint16 // or the type of ICMP
}

// First is the packet as it comes to the first bridge, or why it does not.
type First struct {
	Src     netip.Addr
	NextHop netip.Addr // whose MAC the sender needs, the zero Addr outside
	visits  []visit
	ends    []End
	known   bool // conntrack knows its connection
}

// Packet is the packet as its machine sends it, and the interface by which; false
// where it does not come to a bridge.
func (f *First) Packet() (p flows.Packet, host string, port uint32, ok bool) {
	if len(f.visits) == 0 || f.visits[0].via != ViaVIF {
		return p, "", 0, false
	}
	v := f.visits[0]
	return v.packet, v.host, uint32(v.packet.Get(flows.InPort).Lo), true
}

// Frame is a packet that a machine sends, whatever its IP would send. With known,
// it is one of a connection that there is already.
func Frame(vif *network.VIF, packet flows.Packet, known bool) *First {
	packet.Set(flows.InPort.Is(uint64(vif.OFPort)))
	return &First{visits: []visit{{place{vif.Host, network.BridgeIntegration}, ViaVIF, "", packet}}, known: known}
}

// Protocols of IP.
const (
	ICMP   = 1
	TCP    = 6
	UDP    = 17
	ICMPv6 = 58
	SCTP   = 132
)

const firstTTL = 64

// Begin makes the packet of a question as its sender's IP would: with its own
// address, and the MAC of who answers for the next hop. The error says what
// about the question can't be.
func Begin(view *network.View, q Question) (*First, error) {
	if q.From == nil {
		return fromOutside(view, q)
	}
	src, subnet, err := sourceOf(view, q)
	if err != nil {
		return nil, err
	}
	if src == q.Dst {
		return nil, fmt.Errorf("%s is the sender's own address: its machine keeps the packet", src)
	}
	f := &First{Src: src}
	vif := view.VIF(q.From.ID, view.WiredHost(q.From))
	if vif == nil {
		f.lost("the machine of port " + q.From.ID + " is not plugged into the host that it is bound to: planck explain " + q.From.ID)
		return f, nil
	}
	mac, ok := groupMAC(subnet, q.Dst)
	if !ok {
		if f.NextHop = nextHop(subnet, q.Dst); !f.NextHop.IsValid() {
			f.lost(fmt.Sprintf("the machine has no route to %s: subnet %s has no gateway, and no host route to it", q.Dst, cmp.Or(subnet.Name, subnet.ID)))
			return f, nil
		}
		if mac, ok = neighbor(view, q.From.NetworkID, f.NextHop); !ok {
			f.lost(fmt.Sprintf("nobody on network %s has the address %s: the machine gets no answer to its question for it", nameOf(view, q.From.NetworkID), f.NextHop))
			return f, nil
		}
	}
	packet := q.packet(src, q.From.MAC, mac)
	packet.Set(flows.InPort.Is(uint64(vif.OFPort)))
	f.visits = []visit{{place{vif.Host, network.BridgeIntegration}, ViaVIF, "", packet}}
	return f, nil
}

func (f *First) lost(why string) { f.ends = append(f.ends, End{How: Lost, Why: why}) }

// sourceOf is the address that the sender sends from, and its subnet.
func sourceOf(view *network.View, q Question) (src netip.Addr, s *network.Subnet, err error) {
	for _, ip := range q.From.FixedIPs {
		own := view.Subnet(ip.SubnetID)
		if own == nil || ip.IP.Is4() != q.Dst.Is4() {
			continue
		}
		if ip.IP == q.Src {
			return ip.IP, own, nil
		}
		if s == nil || own.CIDR.Contains(q.Dst) {
			src, s = ip.IP, own
		}
	}
	if s == nil {
		return src, nil, fmt.Errorf("port %s has no address of the family of %s", q.From.ID, q.Dst)
	}
	if q.Src.IsValid() {
		src = q.Src
	}
	return src, s, nil
}

// metadataIP is where machines ask for their metadata.
var metadataIP = netip.AddrFrom4([4]byte{169, 254, 169, 254})

// nextHop is what a machine on the subnet sends to for an address: as DHCP and
// router advertisements tell it.
func nextHop(s *network.Subnet, dst netip.Addr) netip.Addr {
	if s.CIDR.Contains(dst) {
		return dst
	}
	next, bits := s.GatewayIP, -1
	for _, r := range s.HostRoutes {
		if r.Destination.Contains(dst) && r.Destination.Bits() > bits {
			next, bits = r.NextHop, r.Destination.Bits()
		}
	}
	if !next.IsValid() && dst == metadataIP {
		return dst
	}
	return next
}

func nameOf(view *network.View, networkID string) string {
	if n := view.Network(networkID); n != nil {
		return cmp.Or(n.Name, n.ID)
	}
	return networkID
}

// groupMAC is the MAC of a broadcast or multicast address (RFC 1112, RFC 2464),
// which is nobody's.
func groupMAC(s *network.Subnet, dst netip.Addr) (mac network.MAC, is bool) {
	b := dst.AsSlice()
	switch {
	case dst.Is4() && (dst == limitedBroadcast || dst == lastOf(s.CIDR)):
		return network.MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, true
	case !dst.IsMulticast():
		return mac, false
	case dst.Is4():
		return network.MAC{0x01, 0, 0x5e, b[1] & 0x7f, b[2], b[3]}, true
	}
	return network.MAC{0x33, 0x33, b[12], b[13], b[14], b[15]}, true
}

var limitedBroadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})

// lastOf is the broadcast address of an IPv4 subnet, the zero Addr where there is none.
func lastOf(p netip.Prefix) netip.Addr {
	if !p.Addr().Is4() || p.Bits() > 30 {
		return netip.Addr{}
	}
	b := p.Masked().Addr().As4()
	binary.BigEndian.PutUint32(b[:], binary.BigEndian.Uint32(b[:])|1<<(32-p.Bits())-1)
	return netip.AddrFrom4(b)
}

// neighbor is the MAC that ARP and neighbour discovery find for an address. Of a
// physical network others may be there than those that are known.
func neighbor(view *network.View, networkID string, ip netip.Addr) (mac network.MAC, ok bool) {
	if ip == metadataIP {
		if p := view.DHCPPort(networkID); p != nil {
			return p.MAC, true
		}
	}
	if h := view.AddressHolder(networkID, ip); h != nil {
		return h.MAC, true
	}
	if p := view.PortByIP(networkID, ip); p != nil {
		return p.MAC, true
	}
	if mac, ok = view.ExternalNeighbor(networkID, ip); ok {
		return mac, true
	}
	n := view.Network(networkID)
	return UnknownMAC, n != nil && n.Provider()
}

// UnknownMAC stands for that of a machine outside of which nothing is known.
var UnknownMAC = network.MAC{0x02, 0, 0, 0, 0, 0x01}

// fromOutside sends to an address of a provider network, from its wire.
func fromOutside(view *network.View, q Question) (*First, error) {
	if !q.Src.IsValid() || q.Src.Is4() != q.Dst.Is4() {
		return nil, fmt.Errorf("the source %s and the destination %s are not addresses of one family", q.Src, q.Dst)
	}
	for n := range view.Networks() {
		if !n.Provider() {
			continue
		}
		mac, ok := neighbor(view, n.ID, q.Dst)
		if !ok || mac == UnknownMAC {
			continue
		}
		from, known := view.ExternalNeighbor(n.ID, q.Src)
		if !known {
			from = UnknownMAC
		}
		frame := q.packet(q.Src, from, mac)
		if n.NetworkType == network.TypeVLAN {
			frame.Set(flows.VLANVID.Is(flows.VLANPresent | uint64(n.SegmentationID)))
		}
		f := &First{Src: q.Src, visits: wire(view, n.PhysicalNetwork, "", frame)}
		if len(f.visits) == 0 {
			f.lost("no host has a bridge on physical network " + n.PhysicalNetwork)
		}
		return f, nil
	}
	return nil, fmt.Errorf("no port, router or floating IP on a physical network has the address %s", q.Dst)
}

func (q Question) packet(src netip.Addr, from, to network.MAC) flows.Packet {
	p := flows.NewPacket(flows.EthSrc.IsMAC(from), flows.EthDst.IsMAC(to), flows.IPTTL.Is(firstTTL), flows.IPProto.Is(uint64(q.Protocol)))
	if q.Dst.Is4() {
		p.Set(flows.IPv4, flows.IPv4Src.IsIP(src), flows.IPv4Dst.IsIP(q.Dst))
	} else {
		p.Set(flows.IPv6, flows.IPv6Src.IsIP(src), flows.IPv6Dst.IsIP(q.Dst))
	}
	ports := map[uint8][2]flows.Field{
		TCP: {flows.TCPSrc, flows.TCPDst}, UDP: {flows.UDPSrc, flows.UDPDst}, SCTP: {flows.SCTPSrc, flows.SCTPDst},
	}[q.Protocol]
	switch {
	case ports[0] != 0:
		p.Set(ports[0].Is(uint64(q.SrcPort)), ports[1].Is(uint64(q.DstPort)))
	case q.Protocol == ICMP:
		p.Set(flows.ICMPType.Is(uint64(q.DstPort)))
	case q.Protocol == ICMPv6:
		p.Set(flows.ICMPv6Type.Is(uint64(q.DstPort)))
	}
	return p
}
