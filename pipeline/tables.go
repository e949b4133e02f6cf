package pipeline

import (
	"slices"

	"planck/flows"
)

// BridgeKind names one of the three pipelines.
type BridgeKind string

// The pipelines.
const (
	Integration BridgeKind = "br-int"
	Tunnel      BridgeKind = "br-tun"
	// Provider is the pipeline of every bridge of a host's bridge mappings.
	Provider BridgeKind = "br-ex"
)

// Table declares one table of a pipeline. The number and the name are contract:
// the same on every host and in every version.
type Table struct {
	ID      uint8
	Name    string
	Bridge  BridgeKind
	Purpose string
	Matches []flows.Field // what flows of the table may match on
	Sets    []flows.Field // what their actions may write
	Next    []*Table      // where they may go, by goto or resubmit
	Outputs bool          // whether they may output, punt or use groups
	Miss    string        // what happens to a packet that nothing matches
}

// Tables of br-int.
var (
	Classify      = &Table{ID: 0, Name: "Classify", Bridge: Integration, Purpose: "where the packet comes from: in_port, or patch port and local VLAN → network, port, class; ARP questions of the host itself about addresses that are here: answered", Miss: "drop"}
	PortSecurity  = &Table{ID: 10, Name: "PortSecurity", Bridge: Integration, Purpose: "MAC, IP, ARP sender and ND target are the port's own or an allowed address pair; no DHCP server and no router advertisement from a VM", Miss: "drop"}
	Services      = &Table{ID: 12, Name: "Services", Bridge: Integration, Purpose: "requests that the controller answers by packet-in, metered: DHCPv4, DHCPv6, router solicitations, metadata; it sees which port names an address that moves as its own by ARP", Miss: "→ ArpNd"}
	ArpNd         = &Table{ID: 14, Name: "ArpNd", Bridge: Integration, Purpose: "ARP and ND questions: answered from cached replies, else by the controller", Miss: "→ EgressCt"}
	NdReply       = &Table{ID: 15, Name: "NdReply", Bridge: Integration, Purpose: "a neighbour advertisement that ArpNd made of the question: sent back", Miss: "drop"}
	EgressCt      = &Table{ID: 20, Name: "EgressCt", Bridge: Integration, Purpose: "out of a port with security groups: conntrack on every port that has stateful ones", Miss: "→ RouterAdmit"}
	EgressRules   = &Table{ID: 22, Name: "EgressRules", Bridge: Integration, Purpose: "port → its security groups; (group, remote group, connection) → allowed", Miss: "not allowed by this group"}
	EgressGroups  = &Table{ID: 23, Name: "EgressGroups", Bridge: Integration, Purpose: "group → its rules and remote groups; (remote group, address) → member", Miss: "not a member"}
	EgressCommit  = &Table{ID: 24, Name: "EgressCommit", Bridge: Integration, Purpose: "allowed: remember a new connection, go on; not by a stateless group: conntrack, where a stateful one may", Miss: "drop"}
	RouterAdmit   = &Table{ID: 30, Name: "RouterAdmit", Bridge: Integration, Purpose: "pings of DHCP servers and routers: answered by IPv4, by IPv6 → packet-in; packets to a router's MAC → router; TTL", Miss: "→ L2Lookup"}
	UnNat         = &Table{ID: 32, Name: "UnNat", Bridge: Integration, Purpose: "packets to the address of a router's gateway: replies are translated back", Miss: "→ Dnat"}
	Dnat          = &Table{ID: 34, Name: "Dnat", Bridge: Integration, Purpose: "floating IP → fixed address", Miss: "→ Route"}
	Route         = &Table{ID: 36, Name: "Route", Bridge: Integration, Purpose: "longest prefix: connected subnets, extra routes → network, next hop, source MAC", Miss: "drop"}
	RouterICMP    = &Table{ID: 37, Name: "RouterICMP", Bridge: Integration, Purpose: "packets that a router can't forward → packet-in: time exceeded, unreachable, too big", Miss: "controller"}
	Neighbor      = &Table{ID: 38, Name: "Neighbor", Bridge: Integration, Purpose: "(network, next hop) → destination MAC", Miss: "drop"}
	GatewaySteer  = &Table{ID: 40, Name: "GatewaySteer", Bridge: Integration, Purpose: "what leaves by a gateway: floating IP or gateway here → Snat, else to the gateway's host by the router's transit segment", Miss: "→ L2Lookup"}
	Snat          = &Table{ID: 42, Name: "Snat", Bridge: Integration, Purpose: "fixed address → floating IP or the gateway's address", Miss: "→ L2Lookup"}
	L2Lookup      = &Table{ID: 60, Name: "L2Lookup", Bridge: Integration, Purpose: "(network, destination MAC) → port here or on another host; broadcast → the network's group; unknown unicast → wire and unknown-MAC ports where the network has them", Miss: "drop"}
	IngressCt     = &Table{ID: 70, Name: "IngressCt", Bridge: Integration, Purpose: "into a port with security groups: conntrack on every port that has stateful ones", Miss: "→ Qos"}
	IngressRules  = &Table{ID: 72, Name: "IngressRules", Bridge: Integration, Purpose: "as EgressRules", Miss: "not allowed by this group"}
	IngressGroups = &Table{ID: 73, Name: "IngressGroups", Bridge: Integration, Purpose: "as EgressGroups", Miss: "not a member"}
	IngressCommit = &Table{ID: 74, Name: "IngressCommit", Bridge: Integration, Purpose: "as EgressCommit", Miss: "drop"}
	Qos           = &Table{ID: 80, Name: "Qos", Bridge: Integration, Purpose: "meter per port and direction; passes everything until there are any", Miss: "→ Output"}
	Output        = &Table{ID: 90, Name: "Output", Bridge: Integration, Purpose: "push the local VLAN towards other bridges, output", Miss: "drop"}
	Dropped       = &Table{ID: 250, Name: "Dropped", Bridge: Integration, Purpose: "all drops come here, counted by reason", Miss: "drop"}
	Canary        = &Table{ID: 253, Name: "Canary", Bridge: Integration, Purpose: "one drop flow, whose cookie has the revision that was applied last", Miss: "drop"}
)

// Tables of br-tun.
var (
	TunClassify  = &Table{ID: 0, Name: "Classify", Bridge: Tunnel, Purpose: "from br-int or from a tunnel", Miss: "as from the flow-based tunnel port: it came by the port towards a gateway host"}
	EncapUnicast = &Table{ID: 10, Name: "EncapUnicast", Bridge: Tunnel, Purpose: "(local VLAN, MAC) → tunnel id, tunnel destination, output", Miss: "→ EncapFlood"}
	EncapFlood   = &Table{ID: 12, Name: "EncapFlood", Bridge: Tunnel, Purpose: "local VLAN → group of the hosts that have the network", Miss: "drop"}
	Decap        = &Table{ID: 20, Name: "Decap", Bridge: Tunnel, Purpose: "(tunnel type, tunnel id) → local VLAN", Miss: "drop"}
	DecapGuard   = &Table{ID: 22, Name: "DecapGuard", Bridge: Tunnel, Purpose: "the tunnel's source must be a host that shares a network with this one; never back into a tunnel", Miss: "drop"}
	TunCanary    = &Table{ID: 253, Name: "Canary", Bridge: Tunnel, Purpose: "as on br-int", Miss: "drop"}
)

// Tables of provider bridges.
var (
	WireClassify = &Table{ID: 0, Name: "Classify", Bridge: Provider, Purpose: "from br-int, else from a wire or from the host itself (LOCAL)", Miss: "drop"}
	WireVlan     = &Table{ID: 10, Name: "WireVlan", Bridge: Provider, Purpose: "provider VLAN or untagged → local VLAN of a network that is here", Miss: "NORMAL: the operator's own traffic"}
	WireArpNd    = &Table{ID: 12, Name: "WireArpNd", Bridge: Provider, Purpose: "ARP questions about floating IPs and gateways that are here: answered", Miss: "→ WireMac"}
	WireMac      = &Table{ID: 14, Name: "WireMac", Bridge: Provider, Purpose: "another host's chassis MAC → router MAC, towards a port that is here", Miss: "→ WireAdmit"}
	WireAdmit    = &Table{ID: 16, Name: "WireAdmit", Bridge: Provider, Purpose: "only what lives here → br-int, marked by pkt_mark", Miss: "NORMAL"}
	ToWire       = &Table{ID: 20, Name: "ToWire", Bridge: Provider, Purpose: "local VLAN → provider VLAN", Miss: "drop"}
	Masquerade   = &Table{ID: 22, Name: "Masquerade", Bridge: Provider, Purpose: "router MAC → this host's chassis MAC", Miss: "NORMAL"}
	WireCanary   = &Table{ID: 253, Name: "Canary", Bridge: Provider, Purpose: "as on br-int", Miss: "drop"}
)

// Tables lists every table, in the order of the pipelines.
var Tables = []*Table{
	Classify, PortSecurity, Services, ArpNd, NdReply, EgressCt, EgressRules, EgressGroups, EgressCommit, RouterAdmit, UnNat, Dnat, Route, RouterICMP, Neighbor, GatewaySteer, Snat, L2Lookup, IngressCt, IngressRules, IngressGroups, IngressCommit, Qos, Output, Dropped, Canary,
	TunClassify, EncapUnicast, EncapFlood, Decap, DecapGuard, TunCanary,
	WireClassify, WireVlan, WireArpNd, WireMac, WireAdmit, ToWire, Masquerade, WireCanary,
}

// Registers by the name of what they hold.
const (
	RegFlags       = flows.Reg0   // reg0: flags below
	RegOutput      = flows.Reg1   // reg1: OpenFlow port to output to
	RegSource      = flows.Reg2   // reg2: key of the source port
	RegDest        = flows.Reg3   // reg3: key of the destination port
	RegSourceZone  = flows.Reg4   // reg4: conntrack zone of the source port
	RegDestZone    = flows.Reg5   // reg5: conntrack zone of the destination port
	RegDropReason  = flows.Reg6   // reg6: DropReason
	RegGroup       = flows.Reg7   // reg7: key of the security group that is asked
	RegNextHop     = flows.Reg8   // reg8: IPv4 address of the next hop
	RegNextHop6    = flows.XXReg3 // xxreg3 (reg12 to reg15): IPv6 address of the next hop
	RegMTU         = flows.Reg11  // reg11: comparisons with MTUs, and the MTU to tell a sender
	RegRemoteGroup = flows.Reg10  // reg10: key of the remote group whose rules are asked
	RegLocalVLAN   = flows.Reg9   // reg9: local VLAN of the network on this host
)

// Register documents a register of the pipelines.
type Register struct {
	Field   flows.Field
	Bits    string
	Bridge  BridgeKind
	Meaning string
}

// Registers lists what registers and metadata hold.
var Registers = []Register{
	{flows.Metadata, "0..31", Integration, "key of the network"},
	{flows.Metadata, "32..63", Integration, "key of the router"},
	{RegFlags, "0", Integration, "the packet came through a tunnel"},
	{RegFlags, "1", Integration, "the packet came from a provider bridge"},
	{RegFlags, "8", Integration, "a neighbour solicitation that no reply flow may answer"},
	{RegFlags, "2", Integration, "the packet came by a router's transit segment"},
	{RegFlags, "3", Integration, "the MAC of the next hop is not known"},
	{RegFlags, "16", Integration, "a security group allows the packet"},
	{RegFlags, "4", Integration, "the next hop is a router's external address on this host"},
	{RegOutput, "0..31", Integration, "OpenFlow port to output to"},
	{RegSource, "0..31", Integration, "key of the source port"},
	{RegDest, "0..31", Integration, "key of the destination port"},
	{RegSourceZone, "0..15", Integration, "conntrack zone of the source port"},
	{RegDestZone, "0..15", Integration, "conntrack zone of the destination port"},
	{RegDropReason, "0..31", Integration, "why the packet is dropped"},
	{RegGroup, "0..31", Integration, "key of the security group that is asked"},
	{RegMTU, "0..3", Integration, "the packet is larger than the first, second … of the router's smaller MTUs"},
	{RegMTU, "16..31", Integration, "the MTU that the sender is told of"},
	{RegRemoteGroup, "0..31", Integration, "key of the remote group whose rules are asked, 0 for those that name none"},
	{RegNextHop, "0..31", Integration, "IPv4 address of the next hop"},
	{RegNextHop6, "0..127", Integration, "IPv6 address of the next hop"},
	{RegLocalVLAN, "0..11", Integration, "local VLAN of the network on this host"},
	{RegLocalVLAN, "0..11", Provider, "local VLAN of the network on this host"},
	{flows.PktMark, "0..31", Provider, "wireMark on frames that WireAdmit hands to br-int; 0 elsewhere"},
}

// Bits of reg0.
const (
	flagFromTunnel = 1 << iota
	flagFromWire
	flagFromTransit
	flagUnresolved
	flagReenters
)

// flagBareSolicitation marks a neighbour solicitation without a link-layer
// address, which duplicate address detection sends.
const flagBareSolicitation = 1 << 8

// flagAllowed says that a security group allows the packet.
const flagAllowed = 1 << 16

const (
	// vlanPresent is the bit of vlan_vid that says that there is a tag (OFPVID_PRESENT).
	vlanPresent = 0x1000
	// wireMark tells br-int that WireAdmit let the frame in: the NORMAL action of
	// a provider bridge floods unmarked copies to the patch port as well.
	wireMark = 0x504C
	allBits  = 0xffffffff
)

// DropReason says in reg6 why a packet went to Dropped.
type DropReason uint8

// The reasons for drops.
const (
	DropUnknownSource DropReason = iota + 1
	DropForgedMAC
	DropForgedIPv4
	DropForgedIPv6
	DropForgedARP
	DropForgedND
	DropDHCPServer
	DropRouterAdvertisement
	DropUnknownDestination
	DropNoRoute
	DropUnknownNeighbor
	DropNotTranslated
	DropNoGateway
	DropEgressRules
	DropIngressRules
	DropInvalid
	DropEtherType
	DropNoZone
	DropNetworkDown
)

// DropReasons describes every reason in words.
var DropReasons = map[DropReason]string{
	DropUnknownSource:       "no wired port sends from there",
	DropForgedMAC:           "source MAC is not the port's",
	DropForgedIPv4:          "source IPv4 address is not the port's",
	DropForgedIPv6:          "source IPv6 address is not the port's",
	DropForgedARP:           "ARP sender is not the port's",
	DropForgedND:            "neighbour advertisement for an address that is not the port's",
	DropDHCPServer:          "a VM may not be a DHCP server",
	DropRouterAdvertisement: "a VM may not advertise itself as a router",
	DropUnknownDestination:  "no port of the network has the destination MAC",
	DropNoRoute:             "the router has no route to the destination",
	DropUnknownNeighbor:     "no port of the network has the next hop's address",
	DropNotTranslated:       "no connection of the router's external address",
	DropNoGateway:           "no host can have the router's gateway",
	DropEgressRules:         "no security group of the sender allows it",
	DropIngressRules:        "no security group of the receiver allows it",
	DropInvalid:             "conntrack can't make sense of it",
	DropEtherType:           "neither IP nor ARP, on a port with port security",
	DropNoZone:              "the port has no conntrack zone",
	DropNetworkDown:         "the network that the router would send it to is down",
}

func init() {
	declareIntegration()
	declareTunnel()
	declareProvider()
}

// The allowed matches, sets and next tables are set here, since tables refer to each other.

func declareIntegration() {
	Classify.Matches = []flows.Field{flows.InPort, flows.VLANVID, flows.PktMark, flows.EthType, flows.ARPOp, flows.ARPTPA}
	Classify.Sets = []flows.Field{
		flows.InPort, flows.Metadata, flows.PktMark, RegFlags, RegSource, RegLocalVLAN, RegDropReason,
		flows.EthSrc, flows.EthDst, flows.ARPOp, flows.ARPSHA, flows.ARPTHA, flows.ARPSPA, flows.ARPTPA,
	}
	Classify.Outputs = true
	Classify.Next = []*Table{PortSecurity, Services, EgressCt, RouterAdmit, Route, L2Lookup, Dropped}

	PortSecurity.Matches = []flows.Field{
		RegSource, flows.EthSrc, flows.EthDst, flows.EthType, flows.IPProto, flows.IPv4Src, flows.IPv6Src,
		flows.UDPSrc, flows.UDPDst, flows.ARPSPA, flows.ARPSHA, flows.ICMPv6Type, flows.NDTarget,
	}
	PortSecurity.Sets = []flows.Field{RegDropReason}
	PortSecurity.Next = []*Table{Services, Dropped}

	Services.Matches = []flows.Field{flows.Metadata, flows.EthDst, flows.EthType, flows.IPProto, flows.UDPDst, flows.TCPDst, flows.IPv4Dst, RegSource, flows.ICMPv6Type, flows.IPv6Src, flows.IPv6Dst, flows.NDSLL, flows.ARPSPA}
	Services.Sets = []flows.Field{RegFlags}
	Services.Next = []*Table{ArpNd}
	Services.Outputs = true

	ArpNd.Matches = []flows.Field{
		flows.Metadata, RegSource, RegFlags, flows.EthType, flows.ARPOp, flows.ARPTPA,
		flows.IPProto, flows.ICMPv6Type, flows.ICMPv6Code, flows.NDTarget,
	}
	ArpNd.Sets = []flows.Field{
		flows.EthSrc, flows.EthDst, flows.ARPOp, flows.ARPSHA, flows.ARPTHA, flows.ARPSPA, flows.ARPTPA,
		flows.IPv6Src, flows.IPv6Dst, flows.ICMPv6Type, flows.NDReserved, flows.NDOptionsType,
	}
	ArpNd.Next = []*Table{NdReply, EgressCt}
	ArpNd.Outputs = true

	NdReply.Matches = []flows.Field{RegFlags, flows.EthType, flows.IPProto, flows.ICMPv6Type}
	NdReply.Sets = []flows.Field{flows.NDTLL, flows.VLANVID}
	NdReply.Outputs = true

	declareGate(egressGate)
	RouterAdmit.Matches = []flows.Field{
		flows.Metadata, RegFlags, RegSource, flows.EthDst, flows.EthType, flows.IPTTL, flows.IPv4Dst, flows.IPv6Src, flows.IPv6Dst, flows.IPProto, flows.ICMPType,
		flows.ICMPv6Type, flows.NDTarget, flows.ARPOp,
	}
	RouterAdmit.Sets = []flows.Field{
		flows.Metadata, RegMTU, RegDropReason, flows.EthSrc, flows.EthDst, flows.InPort, flows.IPv4Src, flows.IPv4Dst, flows.ICMPType, flows.IPTTL, flows.IPv6Src, flows.IPv6Dst, flows.ICMPv6Type, flows.NDReserved, flows.NDOptionsType,
	}
	RouterAdmit.Next = []*Table{NdReply, UnNat, Dnat, Route, RouterICMP, L2Lookup, Dropped}
	RouterAdmit.Outputs = true

	UnNat.Matches = []flows.Field{flows.Metadata, RegMTU, flows.EthType, flows.IPv4Dst}
	UnNat.Sets = []flows.Field{RegMTU}
	UnNat.Next = []*Table{Dnat, Route, RouterICMP}

	Dnat.Matches = []flows.Field{flows.Metadata, RegMTU, flows.EthType, flows.IPv4Dst}
	Dnat.Sets = []flows.Field{RegMTU}
	Dnat.Next = []*Table{Route, RouterICMP}

	Route.Matches = []flows.Field{flows.Metadata, RegMTU, flows.EthType, flows.IPv4Dst, flows.IPv6Dst}
	Route.Sets = []flows.Field{RegMTU, flows.InPort, flows.Metadata, flows.EthSrc, RegNextHop, RegNextHop6, RegLocalVLAN, RegDropReason}
	Route.Next = []*Table{RouterICMP, Neighbor, GatewaySteer, Dropped}

	RouterICMP.Matches = []flows.Field{RegSource, flows.EthType}
	RouterICMP.Outputs = true

	Neighbor.Matches = []flows.Field{flows.Metadata, flows.EthType, RegNextHop, flows.Reg12, flows.Reg13, flows.Reg14, flows.Reg15}
	Neighbor.Sets = []flows.Field{flows.EthDst, RegFlags, RegDropReason}
	Neighbor.Next = []*Table{GatewaySteer, Snat, L2Lookup, Dropped}

	GatewaySteer.Matches = []flows.Field{flows.Metadata, RegFlags, flows.EthType, flows.IPv4Src}
	GatewaySteer.Sets = []flows.Field{flows.EthSrc, flows.EthDst, RegLocalVLAN, RegOutput, RegDropReason}
	GatewaySteer.Next = []*Table{Snat, L2Lookup, Output, Dropped}

	Snat.Matches = []flows.Field{flows.Metadata, RegFlags, RegSource, flows.EthType, flows.IPv4Src, flows.IPv4Dst}
	Snat.Sets = []flows.Field{flows.EthSrc}
	Snat.Next = []*Table{L2Lookup}
	Snat.Outputs = true

	L2Lookup.Matches = []flows.Field{flows.Metadata, flows.EthDst, flows.EthType}
	L2Lookup.Sets = []flows.Field{flows.InPort, RegFlags, RegMTU, RegSource, RegOutput, RegDest, RegDropReason}
	L2Lookup.Next = []*Table{RouterAdmit, IngressCt, Output, Dropped}
	L2Lookup.Outputs = true

	declareGate(ingressGate)
	Qos.Next = []*Table{Output}

	Output.Matches = []flows.Field{RegOutput}
	Output.Sets = []flows.Field{flows.VLANVID}
	Output.Outputs = true

	Dropped.Matches = []flows.Field{RegDropReason}
}

func declareGate(g *gate) {
	g.ct.Matches = []flows.Field{g.port, flows.EthType, flows.IPProto, flows.UDPSrc, flows.UDPDst, flows.ICMPv6Type}
	g.ct.Sets = []flows.Field{g.zone, RegGroup, RegRemoteGroup, RegDropReason}
	g.ct.Next = []*Table{g.rules, g.groups, g.commit, g.next, Dropped}

	remote := []flows.Field{flows.EthType, flows.CtState, g.connection.remote4, g.connection.remote6, g.packet.remote4, g.packet.remote6}
	g.rules.Matches = slices.Concat([]flows.Field{g.port, RegGroup, RegRemoteGroup, flows.IPFrag}, remote, []flows.Field{
		flows.CtNwProto, flows.CtTpSrc, flows.CtTpDst, flows.IPProto, flows.TCPDst, flows.UDPDst, flows.SCTPDst,
		flows.ICMPType, flows.ICMPCode, flows.ICMPv6Type, flows.ICMPv6Code,
	})
	g.rules.Sets = []flows.Field{RegFlags, RegGroup, RegRemoteGroup, RegDropReason}
	g.rules.Next = []*Table{EgressGroups, IngressGroups, g.commit, Dropped}

	g.groups.Matches = append([]flows.Field{RegFlags, RegGroup, RegRemoteGroup}, remote...)
	g.groups.Sets = []flows.Field{RegRemoteGroup}
	g.groups.Next = []*Table{g.rules, g.groups}

	g.commit.Matches = []flows.Field{g.port, RegFlags, flows.CtState, flows.EthType}
	g.commit.Sets = []flows.Field{RegFlags, g.zone, RegDropReason}
	g.commit.Next = []*Table{g.rules, g.next, Dropped}
}

func declareTunnel() {
	TunClassify.Matches = []flows.Field{flows.InPort}
	TunClassify.Sets = []flows.Field{flows.InPort}
	TunClassify.Next = []*Table{EncapUnicast, Decap}

	EncapUnicast.Matches = []flows.Field{flows.VLANVID, flows.EthDst}
	EncapUnicast.Sets = []flows.Field{flows.TunnelID, flows.TunDst, flows.TunIPv6Dst}
	EncapUnicast.Next = []*Table{EncapFlood}
	EncapUnicast.Outputs = true

	EncapFlood.Matches = []flows.Field{flows.VLANVID}
	EncapFlood.Sets = []flows.Field{flows.TunnelID, flows.TunDst, flows.TunIPv6Dst}
	EncapFlood.Outputs = true

	Decap.Matches = []flows.Field{flows.InPort, flows.TunnelID}
	Decap.Sets = []flows.Field{flows.VLANVID}
	Decap.Next = []*Table{DecapGuard}

	DecapGuard.Matches = []flows.Field{flows.TunSrc, flows.TunIPv6Src}
	DecapGuard.Outputs = true
}

func declareProvider() {
	WireClassify.Matches = []flows.Field{flows.InPort, flows.VLANVID, flows.EthDst}
	WireClassify.Next = []*Table{WireVlan, ToWire}

	WireVlan.Matches = []flows.Field{flows.VLANVID}
	WireVlan.Sets = []flows.Field{RegLocalVLAN}
	WireVlan.Next = []*Table{WireArpNd}
	WireVlan.Outputs = true

	WireArpNd.Matches = []flows.Field{RegLocalVLAN, flows.VLANVID, flows.EthType, flows.ARPOp, flows.ARPTPA}
	WireArpNd.Sets = ArpNd.Sets
	WireArpNd.Next = []*Table{WireMac}
	WireArpNd.Outputs = true

	WireMac.Matches = []flows.Field{RegLocalVLAN, flows.EthSrc, flows.EthDst}
	WireMac.Sets = []flows.Field{flows.EthSrc}
	WireMac.Next = []*Table{WireAdmit}

	WireAdmit.Matches = []flows.Field{RegLocalVLAN, flows.VLANVID, flows.EthDst}
	WireAdmit.Sets = []flows.Field{flows.VLANVID, flows.PktMark}
	WireAdmit.Outputs = true

	ToWire.Matches = []flows.Field{flows.VLANVID}
	ToWire.Sets = []flows.Field{flows.VLANVID}
	ToWire.Next = []*Table{Masquerade}

	Masquerade.Matches = []flows.Field{flows.EthSrc}
	Masquerade.Sets = []flows.Field{flows.EthSrc}
	Masquerade.Outputs = true
}

// TableName is the name of a table of a bridge, "" for one that is not declared.
// Every bridge that is neither br-int nor br-tun is a provider bridge.
func TableName(bridge string, id uint8) string {
	if t := findTable(KindOfBridge(bridge), id); t != nil {
		return t.Name
	}
	return ""
}

// TableMiss is what happens to a packet that nothing matches in a table of a
// bridge, "" for a table that is not declared.
func TableMiss(bridge string, id uint8) string {
	if t := findTable(KindOfBridge(bridge), id); t != nil {
		return t.Miss
	}
	return ""
}

// KindOfBridge tells which pipeline a bridge has.
func KindOfBridge(name string) BridgeKind {
	switch name {
	case string(Integration):
		return Integration
	case string(Tunnel):
		return Tunnel
	}
	return Provider
}
