package pipeline

import (
	"net/netip"

	"planck/flows"
	"planck/network"
)

// portSecurityFeature lets a port send only with its own addresses and those of
// its allowed address pairs (Neutron extensions port-security and
// allowed-address-pairs). Ports without port security never enter the table.
type portSecurityFeature struct{}

func (portSecurityFeature) ID() FeatureID { return FeaturePortSecurity }
func (portSecurityFeature) Name() string  { return "port-security" }

const (
	udpBootpServer, udpBootpClient   = 67, 68
	udpDHCPv6Server, udpDHCPv6Client = 547, 546
	icmpRouterAdvertisement          = 134
	icmpNeighborAdvertisement        = 136
)

// CompileHost implements HostFeature: what no port may send.
func (portSecurityFeature) CompileHost(c *Context) {
	c.Flow(PortSecurity, 200, flows.NewMatch(flows.IPv4, flows.UDP, flows.UDPSrc.Is(udpBootpServer), flows.UDPDst.Is(udpBootpClient)), Drop(DropDHCPServer)...)
	c.Flow(PortSecurity, 200, flows.NewMatch(flows.IPv6, flows.UDP, flows.UDPSrc.Is(udpDHCPv6Server), flows.UDPDst.Is(udpDHCPv6Client)), Drop(DropDHCPServer)...)
	c.Flow(PortSecurity, 200, flows.NewMatch(flows.IPv6, flows.ICMPv6, flows.ICMPv6Type.Is(icmpRouterAdvertisement)), Drop(DropRouterAdvertisement)...)

	c.Flow(PortSecurity, 94, flows.NewMatch(flows.IPv6, flows.ICMPv6, flows.ICMPv6Type.Is(icmpNeighborAdvertisement)), Drop(DropForgedND)...)
	c.Flow(PortSecurity, 85, flows.NewMatch(flows.IPv4), Drop(DropForgedIPv4)...)
	c.Flow(PortSecurity, 85, flows.NewMatch(flows.IPv6), Drop(DropForgedIPv6)...)
	c.Flow(PortSecurity, 85, flows.NewMatch(flows.ARP), Drop(DropForgedARP)...)
}

// source is an address that a port may send from.
type source struct {
	mac network.MAC
	ip  netip.Prefix
}

// CompilePort implements PortFeature.
func (portSecurityFeature) CompilePort(c *Context, p *PortContext) {
	if p.VIF == nil || !p.Up() || !p.PortSecurityEnabled {
		return
	}
	securePortDHCP(c, p)
	sources := sourcesOf(p.Port)
	for _, mac := range macsOf(sources, p.MAC) {
		securePortMAC(c, p, mac)
	}
	for _, s := range sources {
		if s.ip.Addr().Is4() {
			securePortIPv4(c, p, s)
			continue
		}
		securePortIPv6(c, p, s, sources)
	}
}

// sourcesOf lists what a port may send from, each once: its fixed addresses,
// its address pairs and the link-local address of each of its MACs.
func sourcesOf(p *network.Port) []source {
	var sources []source
	seen := make(map[source]bool)
	add := func(s source) {
		if !seen[s] {
			seen[s] = true
			sources = append(sources, s)
		}
	}
	add(source{p.MAC, hostPrefix(p.MAC.LinkLocal())})
	for _, f := range p.FixedIPs {
		add(source{p.MAC, hostPrefix(f.IP)})
	}
	for _, pair := range p.AllowedAddressPairs {
		add(source{pair.MAC, hostPrefix(pair.MAC.LinkLocal())})
		add(source{pair.MAC, pair.IP.Masked()})
	}
	return sources
}

func macsOf(sources []source, own network.MAC) []network.MAC {
	macs := []network.MAC{own}
	seen := map[network.MAC]bool{own: true}
	for _, s := range sources {
		if !seen[s.mac] {
			seen[s.mac] = true
			macs = append(macs, s.mac)
		}
	}
	return macs
}

// securePortMAC admits what has no address of the port yet, and what is neither IP nor ARP.
func securePortMAC(c *Context, p *PortContext, mac network.MAC) {
	own := func(terms ...flows.Term) flows.Match {
		return flows.NewMatch(append(terms, RegSource.Is(uint64(p.Key)), flows.EthSrc.IsMAC(mac))...)
	}
	c.Flow(PortSecurity, 90, own(flows.ARP, flows.ARPSPA.IsIP(netip.IPv4Unspecified()), flows.ARPSHA.IsMAC(mac)), To(Services))
	c.Flow(PortSecurity, 90, own(flows.IPv4, flows.IPv4Src.IsIP(netip.IPv4Unspecified()), flows.UDP, flows.UDPSrc.Is(udpBootpClient), flows.UDPDst.Is(udpBootpServer)), To(Services))
	// Duplicate address detection and multicast listener reports (RFC 4862, RFC 3810).
	for _, icmpType := range []uint64{130, 131, 132, 135, 143} {
		c.Flow(PortSecurity, 90, own(flows.IPv6, flows.IPv6Src.IsIP(netip.IPv6Unspecified()), flows.ICMPv6, flows.ICMPv6Type.Is(icmpType)), To(Services))
	}
	c.Flow(PortSecurity, 80, own(), To(Services))
}

// securePortDHCP admits what goes to the DHCP server from any address: a client
// that still uses one which its port has lost must be told so.
func securePortDHCP(c *Context, p *PortContext) {
	for _, dst := range dhcpServers(c.View, p.Network.ID) {
		c.Flow(PortSecurity, 90, flows.NewMatch(RegSource.Is(uint64(p.Key)), flows.EthSrc.IsMAC(p.MAC), dst,
			flows.IPv4, flows.UDP, flows.UDPSrc.Is(udpBootpClient), flows.UDPDst.Is(udpBootpServer)), To(Services))
	}
}

func securePortIPv4(c *Context, p *PortContext, s source) {
	c.Flow(PortSecurity, 90, flows.NewMatch(RegSource.Is(uint64(p.Key)), flows.EthSrc.IsMAC(s.mac), flows.IPv4, flows.IPv4Src.InPrefix(s.ip)), To(Services))
	c.Flow(PortSecurity, 90, flows.NewMatch(RegSource.Is(uint64(p.Key)), flows.EthSrc.IsMAC(s.mac), flows.ARP, flows.ARPSPA.InPrefix(s.ip), flows.ARPSHA.IsMAC(s.mac)), To(Services))
}

func securePortIPv6(c *Context, p *PortContext, s source, targets []source) {
	c.Flow(PortSecurity, 90, flows.NewMatch(RegSource.Is(uint64(p.Key)), flows.EthSrc.IsMAC(s.mac), flows.IPv6, flows.IPv6Src.InPrefix(s.ip)), To(Services))
	for _, t := range targets {
		if t.mac != s.mac || t.ip.Addr().Is4() {
			continue
		}
		c.Flow(PortSecurity, 95, flows.NewMatch(RegSource.Is(uint64(p.Key)), flows.EthSrc.IsMAC(s.mac), flows.IPv6, flows.IPv6Src.InPrefix(s.ip),
			flows.ICMPv6, flows.ICMPv6Type.Is(icmpNeighborAdvertisement), flows.NDTarget.InPrefix(t.ip)), To(Services))
	}
}

func hostPrefix(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }
