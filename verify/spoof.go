package verify

import (
	"fmt"
	"net/netip"

	"planck/flows"
	"planck/network"
	"planck/trace"
)

// pretence is packets that a port may not send: those that meet all terms, and
// none of the exceptions.
type pretence struct {
	what  string
	terms []flows.Term
	but   [][]flows.Term
}

// spoofs looks for packets that port security lets pass and must not.
func (v *verifier) spoofs(vif *network.VIF, p *network.Port) {
	n := v.View.Network(p.NetworkID)
	if n == nil {
		return
	}
	all := v.pretences(p)
	s := newSearch(v.fabric)
	root := &root{vif, p}
	pass := func(at *packets) {
		for _, pr := range all {
			if f := v.passes(root, at, pr, s); f != nil {
				s.found = true
				v.add(*f)
				return
			}
		}
	}
	s.stop = func(at *packets, table uint8) bool {
		if at.at.bridge == network.BridgeIntegration && table <= v.Layout.PortSecurity || table == v.Layout.Dropped {
			return false
		}
		if at.at.bridge == network.BridgeIntegration { // else it was seen when it was sent
			pass(at)
		}
		return true
	}
	s.sent = pass
	s.begin(vif, ghost{network: n.Key})
	if s.short {
		v.unproven("that port %s sends from no address that is not its own: there are too many ways", p.ID)
	}
}

// passes makes a packet of those that have passed and are a pretence.
func (v *verifier) passes(r *root, at *packets, pr pretence, s *search) *Finding {
	in := at.in
	if !in.NarrowFirst(pr.terms) {
		return nil
	}
	for _, terms := range pr.but {
		if !in.AvoidFirst(terms) {
			return nil
		}
	}
	packet, ok, sure := in.Solve(natural(r)...)
	if !ok {
		s.short = s.short || !sure
		return nil
	}
	packet = tidy(packet)
	way, err := v.packets.Run(trace.Frame(r.vif, packet, false))
	if err != nil && way == nil || !v.isPast(way) {
		v.unproven("that port %s sends from no address that is not its own: a packet that might, %s, did not when it was followed by itself", r.to.ID, packet)
		return nil
	}
	f := &Finding{Kind: Spoofed, From: r.to, Sent: packet, Way: way}
	f.Text = fmt.Sprintf("port %s sends %s: port security lets it pass", title(r.to), pr.what)
	f.Blame = v.blame(r.vif, packet, false, way, v.secured(way))
	return f
}

// isPast reports whether a packet came past port security.
func (v *verifier) isPast(way *trace.Result) bool {
	for _, e := range way.Ends {
		if e.How != trace.Dropped {
			return true
		}
	}
	for _, h := range way.Hops {
		for _, s := range h.Steps {
			if s.Table > v.Layout.PortSecurity && s.Table != v.Layout.Dropped {
				return true
			}
		}
	}
	return false
}

// secured is the first hop up to port security.
func (v *verifier) secured(way *trace.Result) []trace.Hop {
	h := way.Hops[0]
	for i, s := range h.Steps {
		if s.Table > v.Layout.PortSecurity {
			h.Steps = h.Steps[:i]
			break
		}
	}
	return []trace.Hop{h}
}

// own is an address that a port may send from.
type own struct {
	mac network.MAC
	ip  netip.Prefix
}

// pretences is what Neutron's port security forbids a port.
func (v *verifier) pretences(p *network.Port) []pretence {
	macs, owns := ownOf(p)
	mac := pretence{what: "from a MAC that is not its own"}
	ip4 := pretence{what: "from an IPv4 address that is not its own", terms: []flows.Term{flows.IPv4}}
	ip6 := pretence{what: "from an IPv6 address that is not its own", terms: []flows.Term{flows.IPv6}}
	arp := pretence{what: "ARP for an address that is not its own", terms: []flows.Term{flows.ARP}}
	nd := pretence{what: "a neighbour advertisement for an address that is not its own", terms: []flows.Term{flows.IPv6, flows.ICMPv6, flows.ICMPv6Type.Is(136)}}
	dhcp := []flows.Term{flows.IPv4, flows.UDP, flows.UDPSrc.Is(68), flows.UDPDst.Is(67)}
	for _, m := range macs {
		from := flows.EthSrc.IsMAC(m)
		mac.but = append(mac.but, []flows.Term{from})
		ip4.but = append(ip4.but, append([]flows.Term{from, flows.IPv4Src.IsIP(netip.IPv4Unspecified())}, dhcp...))
		arp.but = append(arp.but, []flows.Term{from, flows.ARPSHA.IsMAC(m), flows.ARPSPA.IsIP(netip.IPv4Unspecified())})
		for _, t := range []uint64{130, 131, 132, 135, 143} {
			ip6.but = append(ip6.but, []flows.Term{from, flows.IPv6Src.IsIP(netip.IPv6Unspecified()), flows.ICMPv6, flows.ICMPv6Type.Is(t)})
		}
	}
	ip4.but = append(ip4.but, v.toDHCP(p, dhcp)...)
	for _, o := range owns {
		from := flows.EthSrc.IsMAC(o.mac)
		if o.ip.Addr().Is4() {
			ip4.but = append(ip4.but, with(from, flows.IPv4Src.InPrefix(o.ip)))
			arp.but = append(arp.but, with(from, flows.ARPSHA.IsMAC(o.mac), flows.ARPSPA.InPrefix(o.ip)))
			continue
		}
		ip6.but = append(ip6.but, with(from, flows.IPv6Src.InPrefix(o.ip)))
		nd.but = append(nd.but, with(from, flows.NDTarget.InPrefix(o.ip)))
	}
	return []pretence{
		mac, ip4, ip6, arp, nd,
		{what: "as a DHCP server", terms: []flows.Term{flows.IPv4, flows.UDP, flows.UDPSrc.Is(67), flows.UDPDst.Is(68)}},
		{what: "as a DHCPv6 server", terms: []flows.Term{flows.IPv6, flows.UDP, flows.UDPSrc.Is(547), flows.UDPDst.Is(546)}},
		{what: "router advertisements", terms: []flows.Term{flows.IPv6, flows.ICMPv6, flows.ICMPv6Type.Is(134)}},
	}
}

// with leaves out terms that are always true.
func with(terms ...flows.Term) (all []flows.Term) {
	for _, t := range terms {
		if t.Field != 0 {
			all = append(all, t)
		}
	}
	return all
}

// toDHCP: a client may ask the server from an address that it has lost.
func (v *verifier) toDHCP(p *network.Port, dhcp []flows.Term) (all [][]flows.Term) {
	servers := [][6]byte{broadcast}
	if s := v.View.DHCPPort(p.NetworkID); s != nil {
		servers = append(servers, s.MAC)
	}
	for _, mac := range servers {
		all = append(all, append([]flows.Term{flows.EthSrc.IsMAC(p.MAC), flows.EthDst.IsMAC(mac)}, dhcp...))
	}
	return all
}

func ownOf(p *network.Port) (macs []network.MAC, owns []own) {
	host := func(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }
	macs = []network.MAC{p.MAC}
	owns = []own{{p.MAC, host(p.MAC.LinkLocal())}}
	for _, f := range p.FixedIPs {
		owns = append(owns, own{p.MAC, host(f.IP)})
	}
	for _, pair := range p.AllowedAddressPairs {
		macs = append(macs, pair.MAC)
		owns = append(owns, own{pair.MAC, pair.IP.Masked()}, own{pair.MAC, host(pair.MAC.LinkLocal())})
	}
	return macs, owns
}
