package verify

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"planck/flows"
	"planck/network"
	"planck/trace"
)

// ports verifies what holds for each port that is plugged.
func (v *verifier) ports() error {
	var vifs []*network.VIF
	for _, h := range v.fabric.hosts {
		for vif := range v.View.VIFsOn(h.Name) {
			vifs = append(vifs, vif)
		}
	}
	slices.SortFunc(vifs, func(a, b *network.VIF) int { return cmp.Compare(a.PortID, b.PortID) })
	for _, vif := range vifs {
		p := v.View.Port(vif.PortID)
		if p == nil || v.View.WiredHost(p) != vif.Host || v.fabric.at[place{vif.Host, network.BridgeIntegration}] == nil {
			continue
		}
		v.report.Ports++
		if p.PortSecurityEnabled {
			v.spoofs(vif, p)
		}
		if s := v.View.PortStatus(p.ID); s != nil && s.Status == network.StatusActive {
			v.reaches(vif, p)
		}
	}
	return nil
}

// question is what a port must get an answer to.
type question struct {
	kind   Kind
	what   string
	packet flows.Packet
	ok     func(*trace.Result) bool
}

// reaches asks for a port's gateway and its DHCP server as its machine would.
func (v *verifier) reaches(vif *network.VIF, p *network.Port) {
	n := v.View.Network(p.NetworkID)
	if n == nil || !n.AdminStateUp || !p.AdminStateUp {
		return
	}
	for _, q := range v.questionsOf(p, n) {
		way, err := v.packets.Run(trace.Frame(vif, q.packet, false))
		if err == nil && (q.ok(way) || v.refuses(way)) {
			continue
		}
		f := Finding{Kind: q.kind, From: p, Sent: q.packet, Way: way}
		f.Text = fmt.Sprintf("port %s of network %s %s", title(p), v.networkName(n.ID), q.what)
		if err != nil {
			f.Text += ": " + err.Error()
		}
		f.Blame = v.blame(vif, q.packet, false, way, lastDrop(way))
		v.add(f)
	}
}

// add counts a finding with another one, where one flow is the fault of both.
func (v *verifier) add(f Finding) {
	for i := range v.report.Findings {
		have := &v.report.Findings[i]
		if have.Kind == f.Kind && have.Blame != nil && f.Blame != nil && have.Blame.Host == f.Blame.Host &&
			have.Blame.Bridge == f.Blame.Bridge && have.Blame.Flow.Key() == f.Blame.Flow.Key() {
			have.Like++
			return
		}
	}
	v.report.Findings = append(v.report.Findings, f)
}

// lastDrop is the hop at whose end a packet is dropped.
func lastDrop(way *trace.Result) []trace.Hop {
	for i := range way.Hops {
		h := way.Hops[len(way.Hops)-1-i]
		for _, e := range way.Ends {
			if e.How == trace.Dropped && e.Host == h.Host && e.Bridge == h.Bridge {
				return []trace.Hop{h}
			}
		}
	}
	return way.Hops
}

// refuses reports whether a port's own security groups let nothing of the kind
// out: the model wants that.
func (v *verifier) refuses(way *trace.Result) bool {
	for _, h := range way.Hops {
		for _, s := range h.Steps {
			if s.Flow != nil && v.Layout.Refused(s.Flow) {
				return true
			}
		}
	}
	return false
}

var broadcast = [6]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

// beyond is an address that is on no network of the cloud (RFC 2544, RFC 5180).
var beyond4, beyond6 = netip.AddrFrom4([4]byte{198, 18, 0, 1}), netip.MustParseAddr("2001:2::1")

func (v *verifier) questionsOf(p *network.Port, n *network.Network) (all []question) {
	for _, fixed := range p.FixedIPs {
		s := v.View.Subnet(fixed.SubnetID)
		if s == nil {
			continue
		}
		if s.IPVersion == 4 && s.EnableDHCP {
			all = append(all, question{DHCP, "does not reach the DHCP server", discover(p), punted})
		}
		r, via := v.gatewayOf(n, s)
		if r == nil || v.View.PortByIP(n.ID, s.GatewayIP).ID == p.ID {
			continue
		}
		asks := fmt.Sprintf("gets no answer to its question for its gateway %s, of router %s", s.GatewayIP, routerName(r))
		all = append(all, question{Gateway, asks, whoHas(p, fixed.IP, s.GatewayIP), answered(p)})
		asks = fmt.Sprintf("does not get packets to its gateway %s, of router %s", s.GatewayIP, routerName(r))
		all = append(all, question{Gateway, asks, beyondGateway(p, fixed.IP, via.MAC), v.isRouted})
	}
	return all
}

func routerName(r *network.Router) string { return cmp.Or(r.Name, r.ID) }

// gatewayOf is the router that has the gateway address of a subnet.
func (v *verifier) gatewayOf(n *network.Network, s *network.Subnet) (*network.Router, *network.Port) {
	if !s.GatewayIP.IsValid() {
		return nil, nil
	}
	p := v.View.PortByIP(n.ID, s.GatewayIP)
	if p == nil || p.DeviceOwner != network.OwnerRouterInterface || !p.AdminStateUp {
		return nil, nil
	}
	r := v.View.Router(p.DeviceID)
	if r == nil || !r.AdminStateUp {
		return nil, nil
	}
	return r, p
}

func discover(p *network.Port) flows.Packet {
	zero := netip.IPv4Unspecified()
	return flows.NewPacket(flows.EthSrc.IsMAC(p.MAC), flows.EthDst.IsMAC(broadcast), flows.IPv4, flows.IPv4Src.IsIP(zero),
		flows.IPv4Dst.IsIP(netip.AddrFrom4([4]byte{255, 255, 255, 255})), flows.IPTTL.Is(64), flows.UDP, flows.UDPSrc.Is(68), flows.UDPDst.Is(67))
}

// whoHas is the question of ARP, or of neighbour discovery.
func whoHas(p *network.Port, own, wanted netip.Addr) flows.Packet {
	if wanted.Is4() {
		return flows.NewPacket(flows.EthSrc.IsMAC(p.MAC), flows.EthDst.IsMAC(broadcast), flows.ARP, flows.ARPOp.Is(1),
			flows.ARPSHA.IsMAC(p.MAC), flows.ARPSPA.IsIP(own), flows.ARPTPA.IsIP(wanted))
	}
	b := wanted.As16()
	node := netip.AddrFrom16([16]byte{0xff, 2, 11: 1, 12: 0xff, 13: b[13], 14: b[14], 15: b[15]})
	return flows.NewPacket(flows.EthSrc.IsMAC(p.MAC), flows.EthDst.IsMAC([6]byte{0x33, 0x33, 0xff, b[13], b[14], b[15]}),
		flows.IPv6, flows.IPv6Src.IsIP(own), flows.IPv6Dst.IsIP(node), flows.IPTTL.Is(255), flows.ICMPv6, flows.ICMPv6Type.Is(135),
		flows.NDTarget.IsIP(wanted), flows.NDSLL.IsMAC(p.MAC))
}

func beyondGateway(p *network.Port, own netip.Addr, gateway network.MAC) flows.Packet {
	packet := flows.NewPacket(flows.EthSrc.IsMAC(p.MAC), flows.EthDst.IsMAC(gateway), flows.IPTTL.Is(64), flows.UDP, flows.UDPSrc.Is(49152), flows.UDPDst.Is(33434))
	if own.Is4() {
		packet.Set(flows.IPv4, flows.IPv4Src.IsIP(own), flows.IPv4Dst.IsIP(beyond4))
	} else {
		packet.Set(flows.IPv6, flows.IPv6Src.IsIP(own), flows.IPv6Dst.IsIP(beyond6))
	}
	return packet
}

func punted(way *trace.Result) bool {
	return slices.ContainsFunc(way.Ends, func(e trace.End) bool { return e.How == trace.Punted })
}

// answered: by the switch or by the controller.
func answered(p *network.Port) func(*trace.Result) bool {
	return func(way *trace.Result) bool {
		return punted(way) || slices.ContainsFunc(way.Ends, func(e trace.End) bool { return e.How == trace.Delivered && e.Port != nil && e.Port.ID == p.ID })
	}
}

// isRouted: a router looks for a route, wherever that leads.
func (v *verifier) isRouted(way *trace.Result) bool {
	for _, h := range way.Hops {
		if h.Bridge != network.BridgeIntegration {
			continue
		}
		for _, s := range h.Steps {
			if s.Table == v.Layout.Route {
				return true
			}
		}
	}
	return false
}
