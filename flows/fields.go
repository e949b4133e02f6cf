// Package flows has the types of OpenFlow 1.3 with Open vSwitch's extensions:
// matches, actions, flows, groups and meters, their text in the syntax of
// ovs-ofctl, their wire format, and the difference between two sets of them.
//
// Matches and instructions are kept as the bytes that Open vSwitch itself sends
// in a dump. So comparing is comparing strings, sending is copying, and what a
// switch sends back is compared byte for byte. The package does no I/O.
package flows

import "fmt"

// Field is a header field, register or piece of metadata that a flow matches on
// or an action reads or writes. The order of the constants is the order in which
// Open vSwitch writes matches; the zero Field is none.
type Field uint8

// The fields, by the names of the OpenFlow specification.
const (
	_ Field = iota
	ConjID
	InPort
	EthSrc
	EthDst
	EthType
	VLANVID // bit 12 (VLANPresent) says that there is a tag
	VLANPCP
	IPv4Src
	IPv4Dst
	IPv6Src
	IPv6Dst
	IPFrag
	IPDSCP
	IPECN
	IPTTL
	IPv6Label
	IPProto
	TCPSrc
	TCPDst
	TCPFlags
	UDPSrc
	UDPDst
	SCTPSrc
	SCTPDst
	ICMPType
	ICMPCode
	ICMPv6Type
	ICMPv6Code
	NDTarget
	NDSLL
	NDTLL
	NDReserved    // flags of a neighbour advertisement
	NDOptionsType // of the first option
	ARPOp
	ARPSPA
	ARPTPA
	ARPSHA
	ARPTHA
	TunnelID
	TunSrc
	TunDst
	TunIPv6Src
	TunIPv6Dst
	Reg0
	Reg1
	Reg2
	Reg3
	Reg4
	Reg5
	Reg6
	Reg7
	Reg8
	Reg9
	Reg10
	Reg11
	Reg12
	Reg13
	Reg14
	Reg15
	PktMark
	CtState
	CtZone
	CtMark
	CtLabel
	CtNwSrc
	CtIPv6Src
	CtNwDst
	CtIPv6Dst
	CtNwProto
	CtTpSrc
	CtTpDst
	Metadata
	// XXRegs are four registers each, the first one most significant. A match on
	// one becomes matches on its registers.
	XXReg0
	XXReg1
	XXReg2
	XXReg3
	numFields
)

// VLANPresent is the bit of VLANVID that says that the packet has a tag.
const VLANPresent = 0x1000

// Classes of OXM and NXM.
const (
	classNXM0 = 0x0000
	classNXM1 = 0x0001
	classOVS  = 0x1000 // Open vSwitch has it for the rest of neighbour discovery
	classOXM  = 0x8000
	classExp  = 0xffff
)

const (
	experimenterNicira = 0x00002320
	experimenterONF    = 0x4f4e4600
)

type format uint8

const (
	decimal format = iota
	hexadecimal
	ipv4Address
	ipv6Address
	macAddress
	portNumber
	fragment
	ctState
	tcpFlags
)

// tlv is a type of OXM or NXM. Class 0xffff is that of the ONF.
type tlv struct {
	class uint16
	typ   uint8
}

type fieldInfo struct {
	name     string // in set_field
	legacy   string // in move, load and output, which keep the names of NXM
	match    tlv    // in matches and set_field
	action   tlv    // in move, load, output and ct, which keep to NXM where it has the field
	bits     uint8
	format   format
	maskable bool
	needs    *need
}

// need is what a match must have for a field to have a meaning: a value for one
// of these fields.
type need struct {
	text string
	of   []fieldValue
	and  *need
}

// fieldValue is an exact value of a narrow field.
type fieldValue struct {
	field Field
	value uint64
}

func nxm0(t uint8) tlv { return tlv{classNXM0, t} }
func nxm1(t uint8) tlv { return tlv{classNXM1, t} }
func oxm(t uint8) tlv  { return tlv{classOXM, t} }

const (
	etherTypeIPv4 = 0x0800
	etherTypeARP  = 0x0806
	etherTypeRARP = 0x8035
	etherTypeIPv6 = 0x86dd

	protoICMP   = 1
	protoTCP    = 6
	protoUDP    = 17
	protoICMPv6 = 58
	protoSCTP   = 132
)

var (
	needIPv4   = &need{text: "ip", of: []fieldValue{{EthType, etherTypeIPv4}}}
	needIPv6   = &need{text: "ipv6", of: []fieldValue{{EthType, etherTypeIPv6}}}
	needIP     = &need{text: "ip or ipv6", of: []fieldValue{{EthType, etherTypeIPv4}, {EthType, etherTypeIPv6}}}
	needARP    = &need{text: "arp", of: []fieldValue{{EthType, etherTypeARP}, {EthType, etherTypeRARP}}}
	needTCP    = &need{text: "tcp", of: []fieldValue{{IPProto, protoTCP}}, and: needIP}
	needUDP    = &need{text: "udp", of: []fieldValue{{IPProto, protoUDP}}, and: needIP}
	needSCTP   = &need{text: "sctp", of: []fieldValue{{IPProto, protoSCTP}}, and: needIP}
	needICMP   = &need{text: "icmp", of: []fieldValue{{IPProto, protoICMP}}, and: needIPv4}
	needICMPv6 = &need{text: "icmp6", of: []fieldValue{{IPProto, protoICMPv6}}, and: needIPv6}
	needND     = &need{text: "icmp_type 135 or 136", of: []fieldValue{{ICMPv6Type, 135}, {ICMPv6Type, 136}}, and: needICMPv6}
	needNS     = &need{text: "icmp_type 135", of: []fieldValue{{ICMPv6Type, 135}}, and: needICMPv6}
	needNA     = &need{text: "icmp_type 136", of: []fieldValue{{ICMPv6Type, 136}}, and: needICMPv6}
)

// fields is indexed by Field.
var fields = [numFields]fieldInfo{
	ConjID:        {"conj_id", "NXM_NX_CONJ_ID", nxm1(37), nxm1(37), 32, decimal, false, nil},
	InPort:        {"in_port_oxm", "OXM_OF_IN_PORT", oxm(0), oxm(0), 32, portNumber, false, nil},
	EthSrc:        {"eth_src", "NXM_OF_ETH_SRC", oxm(4), nxm0(2), 48, macAddress, true, nil},
	EthDst:        {"eth_dst", "NXM_OF_ETH_DST", oxm(3), nxm0(1), 48, macAddress, true, nil},
	EthType:       {"eth_type", "NXM_OF_ETH_TYPE", oxm(5), nxm0(3), 16, hexadecimal, false, nil},
	VLANVID:       {"vlan_vid", "OXM_OF_VLAN_VID", oxm(6), oxm(6), 13, decimal, true, nil},
	VLANPCP:       {"vlan_pcp", "OXM_OF_VLAN_PCP", oxm(7), oxm(7), 3, decimal, false, nil},
	IPv4Src:       {"ip_src", "NXM_OF_IP_SRC", oxm(11), nxm0(7), 32, ipv4Address, true, needIPv4},
	IPv4Dst:       {"ip_dst", "NXM_OF_IP_DST", oxm(12), nxm0(8), 32, ipv4Address, true, needIPv4},
	IPv6Src:       {"ipv6_src", "NXM_NX_IPV6_SRC", oxm(26), nxm1(19), 128, ipv6Address, true, needIPv6},
	IPv6Dst:       {"ipv6_dst", "NXM_NX_IPV6_DST", oxm(27), nxm1(20), 128, ipv6Address, true, needIPv6},
	IPFrag:        {"ip_frag", "NXM_NX_IP_FRAG", nxm1(26), nxm1(26), 2, fragment, true, needIP},
	IPDSCP:        {"ip_dscp", "OXM_OF_IP_DSCP", oxm(8), oxm(8), 6, decimal, false, needIP},
	IPECN:         {"nw_ecn", "NXM_NX_IP_ECN", oxm(9), nxm1(28), 2, decimal, false, needIP},
	IPTTL:         {"nw_ttl", "NXM_NX_IP_TTL", nxm1(29), nxm1(29), 8, decimal, false, needIP},
	IPv6Label:     {"ipv6_label", "NXM_NX_IPV6_LABEL", oxm(28), nxm1(27), 20, hexadecimal, true, needIPv6},
	IPProto:       {"nw_proto", "NXM_OF_IP_PROTO", oxm(10), nxm0(6), 8, decimal, false, needIP},
	TCPSrc:        {"tcp_src", "NXM_OF_TCP_SRC", oxm(13), nxm0(9), 16, decimal, true, needTCP},
	TCPDst:        {"tcp_dst", "NXM_OF_TCP_DST", oxm(14), nxm0(10), 16, decimal, true, needTCP},
	TCPFlags:      {"tcp_flags", "NXM_NX_TCP_FLAGS", tlv{classExp, 42}, nxm1(34), 12, tcpFlags, true, needTCP},
	UDPSrc:        {"udp_src", "NXM_OF_UDP_SRC", oxm(15), nxm0(11), 16, decimal, true, needUDP},
	UDPDst:        {"udp_dst", "NXM_OF_UDP_DST", oxm(16), nxm0(12), 16, decimal, true, needUDP},
	SCTPSrc:       {"sctp_src", "OXM_OF_SCTP_SRC", oxm(17), oxm(17), 16, decimal, true, needSCTP},
	SCTPDst:       {"sctp_dst", "OXM_OF_SCTP_DST", oxm(18), oxm(18), 16, decimal, true, needSCTP},
	ICMPType:      {"icmp_type", "NXM_OF_ICMP_TYPE", oxm(19), nxm0(13), 8, decimal, false, needICMP},
	ICMPCode:      {"icmp_code", "NXM_OF_ICMP_CODE", oxm(20), nxm0(14), 8, decimal, false, needICMP},
	ICMPv6Type:    {"icmpv6_type", "NXM_NX_ICMPV6_TYPE", oxm(29), nxm1(21), 8, decimal, false, needICMPv6},
	ICMPv6Code:    {"icmpv6_code", "NXM_NX_ICMPV6_CODE", oxm(30), nxm1(22), 8, decimal, false, needICMPv6},
	NDTarget:      {"nd_target", "NXM_NX_ND_TARGET", oxm(31), nxm1(23), 128, ipv6Address, true, needND},
	NDSLL:         {"nd_sll", "NXM_NX_ND_SLL", oxm(32), nxm1(24), 48, macAddress, true, needNS},
	NDTLL:         {"nd_tll", "NXM_NX_ND_TLL", oxm(33), nxm1(25), 48, macAddress, true, needNA},
	NDReserved:    {"nd_reserved", "ERICOXM_OF_ICMPV6_ND_RESERVED", tlv{classOVS, 1}, tlv{classOVS, 1}, 32, decimal, false, needND},
	NDOptionsType: {"nd_options_type", "ERICOXM_OF_ICMPV6_ND_OPTIONS_TYPE", tlv{classOVS, 2}, tlv{classOVS, 2}, 8, decimal, false, needND},
	ARPOp:         {"arp_op", "NXM_OF_ARP_OP", oxm(21), nxm0(15), 16, decimal, false, needARP},
	ARPSPA:        {"arp_spa", "NXM_OF_ARP_SPA", oxm(22), nxm0(16), 32, ipv4Address, true, needARP},
	ARPTPA:        {"arp_tpa", "NXM_OF_ARP_TPA", oxm(23), nxm0(17), 32, ipv4Address, true, needARP},
	ARPSHA:        {"arp_sha", "NXM_NX_ARP_SHA", oxm(24), nxm1(17), 48, macAddress, true, needARP},
	ARPTHA:        {"arp_tha", "NXM_NX_ARP_THA", oxm(25), nxm1(18), 48, macAddress, true, needARP},
	TunnelID:      {"tun_id", "NXM_NX_TUN_ID", oxm(38), nxm1(16), 64, hexadecimal, true, nil},
	TunSrc:        {"tun_src", "NXM_NX_TUN_IPV4_SRC", nxm1(31), nxm1(31), 32, ipv4Address, true, nil},
	TunDst:        {"tun_dst", "NXM_NX_TUN_IPV4_DST", nxm1(32), nxm1(32), 32, ipv4Address, true, nil},
	TunIPv6Src:    {"tun_ipv6_src", "NXM_NX_TUN_IPV6_SRC", nxm1(109), nxm1(109), 128, ipv6Address, true, nil},
	TunIPv6Dst:    {"tun_ipv6_dst", "NXM_NX_TUN_IPV6_DST", nxm1(110), nxm1(110), 128, ipv6Address, true, nil},
	Reg0:          register(0),
	Reg1:          register(1),
	Reg2:          register(2),
	Reg3:          register(3),
	Reg4:          register(4),
	Reg5:          register(5),
	Reg6:          register(6),
	Reg7:          register(7),
	Reg8:          register(8),
	Reg9:          register(9),
	Reg10:         register(10),
	Reg11:         register(11),
	Reg12:         register(12),
	Reg13:         register(13),
	Reg14:         register(14),
	Reg15:         register(15),
	PktMark:       {"pkt_mark", "NXM_NX_PKT_MARK", nxm1(33), nxm1(33), 32, hexadecimal, true, nil},
	CtState:       {"ct_state", "NXM_NX_CT_STATE", nxm1(105), nxm1(105), 32, ctState, true, nil},
	CtZone:        {"ct_zone", "NXM_NX_CT_ZONE", nxm1(106), nxm1(106), 16, hexadecimal, false, nil},
	CtMark:        {"ct_mark", "NXM_NX_CT_MARK", nxm1(107), nxm1(107), 32, hexadecimal, true, nil},
	CtLabel:       {"ct_label", "NXM_NX_CT_LABEL", nxm1(108), nxm1(108), 128, hexadecimal, true, nil},
	CtNwSrc:       {"ct_nw_src", "NXM_NX_CT_NW_SRC", nxm1(120), nxm1(120), 32, ipv4Address, true, nil},
	CtIPv6Src:     {"ct_ipv6_src", "NXM_NX_CT_IPV6_SRC", nxm1(122), nxm1(122), 128, ipv6Address, true, nil},
	CtNwDst:       {"ct_nw_dst", "NXM_NX_CT_NW_DST", nxm1(121), nxm1(121), 32, ipv4Address, true, nil},
	CtIPv6Dst:     {"ct_ipv6_dst", "NXM_NX_CT_IPV6_DST", nxm1(123), nxm1(123), 128, ipv6Address, true, nil},
	CtNwProto:     {"ct_nw_proto", "NXM_NX_CT_NW_PROTO", nxm1(119), nxm1(119), 8, decimal, false, nil},
	CtTpSrc:       {"ct_tp_src", "NXM_NX_CT_TP_SRC", nxm1(124), nxm1(124), 16, decimal, true, nil},
	CtTpDst:       {"ct_tp_dst", "NXM_NX_CT_TP_DST", nxm1(125), nxm1(125), 16, decimal, true, nil},
	Metadata:      {"metadata", "OXM_OF_METADATA", oxm(2), oxm(2), 64, hexadecimal, true, nil},
	XXReg0:        wideRegister(0),
	XXReg1:        wideRegister(1),
	XXReg2:        wideRegister(2),
	XXReg3:        wideRegister(3),
}

func register(n uint8) fieldInfo {
	return fieldInfo{fmt.Sprintf("reg%d", n), fmt.Sprintf("NXM_NX_REG%d", n), nxm1(n), nxm1(n), 32, hexadecimal, true, nil}
}

func wideRegister(n uint8) fieldInfo {
	return fieldInfo{fmt.Sprintf("xxreg%d", n), fmt.Sprintf("NXM_NX_XXREG%d", n), nxm1(111 + n), nxm1(111 + n), 128, hexadecimal, true, nil}
}

// fieldOf finds a field by a type of OXM or NXM, in matches or in actions.
var fieldOf = func() map[tlv]Field {
	m := make(map[tlv]Field, 2*numFields)
	for f := ConjID; f < numFields; f++ {
		m[fields[f].match] = f
		m[fields[f].action] = f
	}
	return m
}()

// Name is the field's name as ovs-ofctl prints it in set_field, such as "eth_src"
// or "reg0".
func (f Field) Name() string {
	if f == 0 || f >= numFields {
		return fmt.Sprintf("field %d", uint8(f))
	}
	return fields[f].name
}

// String is Name.
func (f Field) String() string { return f.Name() }

// Bits is the width of the field in bits.
func (f Field) Bits() int {
	if f >= numFields {
		return 0
	}
	return int(fields[f].bits)
}

// partBits is the width of the field for actions on some of its bits: they don't
// reach the bit of VLANVID that says that there is a tag.
func (f Field) partBits() int {
	if f == VLANVID {
		return 12
	}
	return f.Bits()
}

// bytes is the width of the field's value on the wire.
func (f Field) bytes() int {
	switch f {
	case IPv6Label:
		return 4
	default:
		return (f.Bits() + 7) / 8
	}
}
