package pipeline

import (
	"net/netip"

	"planck/flows"
	"planck/network"
)

// arpFeature answers ARP questions of VMs about known addresses: by a reply
// flow where there is one, else by the controller.
type arpFeature struct{}

func (arpFeature) ID() FeatureID { return FeatureARP }
func (arpFeature) Name() string  { return "arp" }

const arpRequest = 1

// Priorities in ArpNd.
const (
	arpMetadata = 70 // nobody but the metadata service has its address
	arpOwn      = 60 // a port's question about itself is never answered
	arpPair     = 55 // nor one about an address of an address pair: it floods to its candidates
	arpReserved = 54 // nor about one that a port only reserves
	arpReply    = 50
	arpPuntDrop = 48
	arpAddress  = 47 // on open networks: a question about a known address
	arpAny      = 30 // on closed networks: any question
)

// CompileHost implements HostFeature.
func (arpFeature) CompileHost(c *Context) { puntMeter(c, meterARP) }

// CompileNetwork implements NetworkFeature.
func (arpFeature) CompileNetwork(c *Context, n *network.Network, _ *network.Presence) {
	for p := range c.View.PairPortsOf(n.ID) {
		for _, pair := range p.AllowedAddressPairs {
			if pair.IP.IsSingleIP() && pair.IP.Addr().Is4() {
				c.Flow(ArpNd, arpPair, question(n.Key, pair.IP.Addr()), To(EgressCt))
			}
		}
	}
	if !open(c.View, n) {
		c.Flow(ArpNd, arpAny, flows.NewMatch(onNetwork(n), flows.ARP, flows.ARPOp.Is(arpRequest)), punt(c, meterARP)...)
	}
}

// CompilePort implements PortFeature.
func (arpFeature) CompilePort(c *Context, p *PortContext) {
	for _, f := range p.FixedIPs {
		if f.IP.Is4() {
			compileARPAddress(c, p, f.IP)
		}
	}
}

func compileARPAddress(c *Context, p *PortContext, ip netip.Addr) {
	if p.VIF != nil {
		c.Flow(ArpNd, arpOwn, flows.NewMatch(RegSource.Is(uint64(p.Key)), flows.ARP, flows.ARPOp.Is(arpRequest), flows.ARPTPA.IsIP(ip)), To(EgressCt))
	}
	match := question(p.Network.Key, ip)
	if reserved(c.View, p, ip) {
		c.Flow(ArpNd, arpReserved, match, To(EgressCt))
		return
	}
	switch c.Options.ARPMode {
	case ARPProactive:
		c.Flow(ArpNd, arpReply, match, answer(p.MAC, ip)...)
		return
	case ARPPacketIn:
	default:
		c.Permit(ArpNd, arpReply, match, answer(p.MAC, ip)...)
	}
	if open(c.View, p.Network) {
		c.Flow(ArpNd, arpAddress, match, punt(c, meterARP)...)
	}
}

// reserved reports whether an address belongs to a port that is wired nowhere
// and lies in another port's address pair: it is a virtual address that some VM
// holds, and only the VM can answer.
func reserved(v *network.View, p *PortContext, ip netip.Addr) bool {
	if p.VIF != nil || p.Remote != nil || p.Service() {
		return false
	}
	return v.AddressShared(p.Port, ip)
}

// ARPReplyKey is the key of the reply flow for an address of a network.
func ARPReplyKey(networkKey uint32, ip netip.Addr) flows.Key {
	return flows.Key{Table: ArpNd.ID, Priority: arpReply, Match: question(networkKey, ip)}
}

func question(networkKey uint32, ip netip.Addr) flows.Match {
	return flows.NewMatch(flows.Metadata.Masked(uint64(networkKey), allBits), flows.ARP, flows.ARPOp.Is(arpRequest), flows.ARPTPA.IsIP(ip))
}

func answer(mac network.MAC, ip netip.Addr) []flows.Action {
	return []flows.Action{
		flows.Move(flows.EthSrc, flows.EthDst),
		flows.SetMAC(flows.EthSrc, mac),
		flows.SetField(flows.ARPOp, 2),
		flows.Move(flows.ARPSHA, flows.ARPTHA),
		flows.SetMAC(flows.ARPSHA, mac),
		flows.Move(flows.ARPSPA, flows.ARPTPA),
		flows.SetIP(flows.ARPSPA, ip),
		flows.Output(flows.PortInPort),
	}
}

// open reports whether a network may have addresses that Planck did not give
// out: on a physical network, or when a port may use any. Questions about
// unknown addresses flood there, and unknown destinations too.
func open(v *network.View, n *network.Network) bool {
	if n.Provider() {
		return true
	}
	for range v.LoosePortsOf(n.ID) {
		return true
	}
	return false
}
