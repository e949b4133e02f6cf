package flows

import (
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// The text is that of ovs-ofctl 3.1 (lib/match.c, lib/ofp-actions.c,
// lib/meta-flow.c of Open vSwitch), to the letter.

var ctStateNames = []string{"new", "est", "rel", "rpl", "inv", "trk", "snat", "dnat"}

var tcpFlagNames = []string{"fin", "syn", "rst", "psh", "ack", "urg", "ece", "cwr", "ns", "[200]", "[400]", "[800]"}

var portNames = map[uint32]string{
	PortInPort: "IN_PORT", PortTable: "TABLE", PortNormal: "NORMAL", PortFlood: "FLOOD",
	PortAll: "ALL", PortController: "CONTROLLER", PortLocal: "LOCAL", PortAny: "ANY",
}

// matchText writes the terms of a match; each ends with a comma.
type matchText struct {
	strings.Builder
	terms [numFields]Term
}

// String is the match in the syntax of ovs-ofctl; "" matches all packets. If there
// is something in it that we have no name for, oxm= and the whole match in hex
// follow.
func (m Match) String() string {
	var t matchText
	for term := range m.Terms() {
		t.terms[term.Field] = term
	}
	t.metadata()
	protocol := t.protocol()
	t.registers()
	t.tunnel()
	t.number("metadata", Metadata)
	t.format("in_port", InPort)
	t.vlan()
	t.format("dl_src", EthSrc)
	t.format("dl_dst", EthDst)
	if !protocol.typeShown {
		t.number4("dl_type", EthType)
	}
	t.network(protocol.protoShown)
	t.transport()
	t.unknown(m)
	return strings.TrimSuffix(t.Builder.String(), ",")
}

func (t *matchText) has(f Field) bool { return t.terms[f].Field != 0 }

func (t *matchText) is(f Field, v uint64) bool { return t.terms[f] == f.Is(v) }

func (t *matchText) add(name, value string) {
	t.WriteString(name + "=" + value + ",")
}

// format writes a field the way set_field does.
func (t *matchText) format(name string, f Field) {
	if t.has(f) {
		t.add(name, formatValue(f, t.terms[f].Value, t.terms[f].Mask))
	}
}

// number writes 0x1 or 0x1/0xff, and 0 without 0x.
func (t *matchText) number(name string, f Field) {
	if !t.has(f) {
		return
	}
	term := t.terms[f]
	text := hexOrZero(term.Value.Lo)
	if term.Mask != ones(f.Bits()) {
		text += "/" + hexOrZero(term.Mask.Lo)
	}
	t.add(name, text)
}

func (t *matchText) number4(name string, f Field) {
	if t.has(f) {
		t.add(name, fmt.Sprintf("0x%04x", t.terms[f].Value.Lo))
	}
}

// port writes 80 or 0x50/0xfff0.
func (t *matchText) port(name string, f Field) {
	if !t.has(f) {
		return
	}
	term := t.terms[f]
	if term.Mask == ones(f.Bits()) {
		t.add(name, strconv.FormatUint(term.Value.Lo, 10))
		return
	}
	t.add(name, fmt.Sprintf("0x%x/0x%x", term.Value.Lo, term.Mask.Lo))
}

func hexOrZero(v uint64) string {
	if v == 0 {
		return "0"
	}
	return "0x" + strconv.FormatUint(v, 16)
}

func (t *matchText) metadata() {
	t.number("pkt_mark", PktMark)
	t.format("conj_id", ConjID)
	t.format("ct_state", CtState)
	t.port("ct_zone", CtZone)
	t.number("ct_mark", CtMark)
	t.format("ct_label", CtLabel)
	t.format("ct_nw_src", CtNwSrc)
	t.format("ct_ipv6_src", CtIPv6Src)
	t.format("ct_nw_dst", CtNwDst)
	t.format("ct_ipv6_dst", CtIPv6Dst)
	t.format("ct_nw_proto", CtNwProto)
	t.port("ct_tp_src", CtTpSrc)
	t.port("ct_tp_dst", CtTpDst)
}

// protocolName is a word for an eth_type and an ip_proto; 0 is no ip_proto.
type protocolName struct {
	name      string
	etherType uint64
	proto     uint64
}

var protocolNames = []protocolName{
	{"icmp", etherTypeIPv4, protoICMP},
	{"tcp", etherTypeIPv4, protoTCP},
	{"udp", etherTypeIPv4, protoUDP},
	{"sctp", etherTypeIPv4, protoSCTP},
	{"icmp6", etherTypeIPv6, protoICMPv6},
	{"tcp6", etherTypeIPv6, protoTCP},
	{"udp6", etherTypeIPv6, protoUDP},
	{"sctp6", etherTypeIPv6, protoSCTP},
	{"ip", etherTypeIPv4, 0},
	{"ipv6", etherTypeIPv6, 0},
	{"arp", etherTypeARP, 0},
	{"rarp", etherTypeRARP, 0},
}

type shown struct{ typeShown, protoShown bool }

func (t *matchText) protocol() shown {
	for _, p := range protocolNames {
		if !t.is(EthType, p.etherType) || p.proto != 0 && !t.is(IPProto, p.proto) {
			continue
		}
		t.WriteString(p.name + ",")
		return shown{true, p.proto != 0}
	}
	return shown{}
}

func (t *matchText) registers() {
	for r := Reg0; r <= Reg15; r++ {
		t.number(r.Name(), r)
	}
}

func (t *matchText) tunnel() {
	t.number("tun_id", TunnelID)
	for _, f := range []Field{TunSrc, TunDst, TunIPv6Src, TunIPv6Dst} {
		t.format(f.Name(), f)
	}
}

func (t *matchText) vlan() {
	vid, pcp := t.terms[VLANVID], t.terms[VLANPCP]
	if vid.Field == 0 {
		return
	}
	tag := VLANVID.Masked(VLANPresent, VLANPresent)
	switch {
	case vid.Mask == ones(13) && vid.Value.Lo&VLANPresent != 0:
		t.add("dl_vlan", strconv.FormatUint(vid.Value.Lo&0xfff, 10))
		t.format("dl_vlan_pcp", VLANPCP)
	case vid == tag && pcp.Field != 0:
		t.format("dl_vlan_pcp", VLANPCP)
	default:
		value, mask := vid.Value.Lo|pcp.Value.Lo<<13, vid.Mask.Lo|pcp.Mask.Lo<<13
		t.add("vlan_tci", fmt.Sprintf("0x%04x/0x%04x", value, mask))
	}
}

func (t *matchText) network(protoShown bool) {
	t.format("ipv6_src", IPv6Src)
	t.format("ipv6_dst", IPv6Dst)
	if label := t.terms[IPv6Label]; label.Field != 0 {
		text := fmt.Sprintf("0x%05x", label.Value.Lo)
		if label.Mask != ones(20) {
			text += fmt.Sprintf("/0x%05x", label.Mask.Lo)
		}
		t.add("ipv6_label", text)
	}
	t.format("arp_spa", ARPSPA)
	t.format("arp_tpa", ARPTPA)
	t.format("nw_src", IPv4Src)
	t.format("nw_dst", IPv4Dst)
	if !protoShown {
		t.format("nw_proto", IPProto)
	}
	for _, f := range []Field{ARPOp, ARPSHA, ARPTHA} {
		t.format(f.Name(), f)
	}
	if t.has(IPDSCP) {
		t.add("nw_tos", strconv.FormatUint(t.terms[IPDSCP].Value.Lo<<2, 10))
	}
	t.format("nw_ecn", IPECN)
	t.format("nw_ttl", IPTTL)
	t.format("nw_frag", IPFrag)
}

func (t *matchText) transport() {
	for _, f := range []Field{ICMPType, ICMPv6Type} {
		t.port("icmp_type", f)
	}
	for _, f := range []Field{ICMPCode, ICMPv6Code} {
		t.port("icmp_code", f)
	}
	for _, f := range []Field{NDTarget, NDSLL, NDTLL, NDReserved, NDOptionsType} {
		t.format(f.Name(), f)
	}
	for _, f := range []Field{TCPSrc, UDPSrc, SCTPSrc} {
		t.port("tp_src", f)
	}
	for _, f := range []Field{TCPDst, UDPDst, SCTPDst} {
		t.port("tp_dst", f)
	}
	t.format("tcp_flags", TCPFlags)
}

// unknown adds all of a match that has something that we have no name for, so
// that nothing is lost.
func (t *matchText) unknown(m Match) {
	for rest := m.oxm; rest != ""; {
		e, ok := readTLV(rest)
		if !ok || e.field == 0 {
			t.add("oxm", hex.EncodeToString([]byte(m.oxm)))
			return
		}
		rest = rest[e.size:]
	}
}

// formatValue writes a value as in set_field: 1, 0x1/0xff, 10.0.0.0/8 …
func formatValue(f Field, v, mask Value) string {
	info := &fields[f]
	all := mask == ones(f.Bits())
	switch info.format {
	case ipv4Address:
		return formatAddress(v.IPv4().String(), mask.IPv4().String(), mask, 32)
	case ipv6Address:
		return formatAddress(v.IPv6().String(), mask.IPv6().String(), mask, 128)
	case macAddress:
		if all {
			return formatMAC(v)
		}
		return formatMAC(v) + "/" + formatMAC(mask)
	case portNumber:
		return formatPort(uint32(v.Lo))
	case fragment:
		return formatFragment(v.Lo, mask.Lo)
	case ctState:
		return formatFlags(v.Lo, mask.Lo, ctStateNames, mask == ones(ctStateBits))
	case tcpFlags:
		return formatFlags(v.Lo, mask.Lo, tcpFlagNames, all)
	}
	text := formatHex(v)
	if info.format == decimal {
		text = strconv.FormatUint(v.Lo, 10)
	}
	if !all {
		text += "/" + formatHex(mask)
	}
	return text
}

func formatAddress(a, maskText string, mask Value, width int) string {
	n, ok := mask.prefixLength(width)
	switch {
	case ok && n == width:
		return a
	case ok:
		return fmt.Sprintf("%s/%d", a, n)
	}
	return a + "/" + maskText
}

func formatMAC(v Value) string {
	m := v.MAC()
	return fmt.Sprintf("%02x:%02x:%02x:%02x:%02x:%02x", m[0], m[1], m[2], m[3], m[4], m[5])
}

func formatHex(v Value) string {
	if v.Hi == 0 {
		return hexOrZero(v.Lo)
	}
	return fmt.Sprintf("0x%x%016x", v.Hi, v.Lo)
}

func formatPort(p uint32) string {
	if name, ok := portNames[p]; ok {
		return name
	}
	return strconv.FormatUint(uint64(p), 10)
}

// fragmentNames leaves out what ovs-ofctl prints like something else: 0/1 as no and
// 2/2 as later.
var fragmentNames = []struct {
	name        string
	value, mask uint64
}{
	{"no", 0, 3}, {"first", 1, 3}, {"later", 3, 3}, {"yes", 1, 1}, {"not_later", 0, 2},
}

func formatFragment(v, mask uint64) string {
	for _, f := range fragmentNames {
		if f.value == v && f.mask == mask {
			return f.name
		}
	}
	return fmt.Sprintf("%#x/%#x", v, mask)
}

// formatFlags writes syn|ack or, with a mask, +syn-ack.
func formatFlags(v, mask uint64, names []string, all bool) string {
	var b strings.Builder
	for i, name := range names {
		bit := uint64(1) << i
		switch {
		case all && v&bit != 0:
			b.WriteString("|" + name)
		case all || mask&bit == 0:
		case v&bit != 0:
			b.WriteString("+" + name)
		default:
			b.WriteString("-" + name)
		}
	}
	if all && b.Len() == 0 {
		return "0"
	}
	return strings.TrimPrefix(b.String(), "|")
}

// String is the instructions in the syntax of ovs-ofctl, such as
// "set_field:0x1->reg0,goto_table:10" or "drop".
func (i Instructions) String() string { return formatActions(i.Actions()) }

// FormatActionList is an encoded action list in the syntax of ovs-ofctl.
func FormatActionList(actions string) string { return formatActions(readActions(actions)) }

func formatActions(actions []Action) string {
	if len(actions) == 0 {
		return "drop"
	}
	var b strings.Builder
	for i, a := range actions {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(a.String())
	}
	return b.String()
}

// String is the action in the syntax of ovs-ofctl.
func (a Action) String() string {
	switch a.kind {
	case KindUnknown:
		return "raw(" + hex.EncodeToString([]byte(a.raw)) + ")"
	case KindUnknownInstruction:
		return "raw_instruction(" + hex.EncodeToString([]byte(a.raw)) + ")"
	case KindOutput:
		return a.outputString()
	case KindOutputReg:
		return "output:" + formatSubfield(a.field, a.off, a.bits)
	case KindGroup:
		return fmt.Sprintf("group:%d", a.id)
	case KindSetQueue:
		return fmt.Sprintf("set_queue:%d", a.id)
	case KindSetField:
		return "set_field:" + formatValue(a.field, a.value, a.mask) + "->" + a.field.Name()
	case KindLoad:
		return "load:" + hexOrZero(a.value.Lo) + "->" + formatSubfield(a.field, a.off, a.bits)
	case KindMove:
		return "move:" + formatSubfield(a.src, a.srcOff, a.bits) + "->" + formatSubfield(a.field, a.off, a.bits)
	case KindCheckPktLarger:
		return fmt.Sprintf("check_pkt_larger(%d)->%s", a.n, formatSubfield(a.field, a.off, a.bits))
	case KindPushVLAN:
		return fmt.Sprintf("push_vlan:0x%04x", a.n)
	case KindPopVLAN:
		return "pop_vlan"
	case KindDecTTL:
		return "dec_ttl"
	case KindResubmit:
		return a.resubmitString()
	case KindCT:
		return a.ctString()
	case KindNAT:
		return a.nat.String()
	case KindCTClear:
		return "ct_clear"
	case KindConjunction:
		return fmt.Sprintf("conjunction(%d,%d/%d)", a.id, a.n>>8, a.n&0xff)
	case KindClone:
		return "clone(" + formatActions(a.nested) + ")"
	case KindMeter:
		return fmt.Sprintf("meter:%d", a.id)
	case KindClearActions:
		return "clear_actions"
	case KindWriteActions:
		return "write_actions(" + formatActions(a.nested) + ")"
	case KindWriteMetadata:
		return a.writeMetadataString()
	case KindGoto:
		return fmt.Sprintf("goto_table:%d", a.table)
	}
	return "none"
}

func (a Action) outputString() string {
	switch {
	case a.id == PortController:
		return fmt.Sprintf("CONTROLLER:%d", a.n)
	case a.id >= PortMax:
		return formatPort(a.id)
	}
	return fmt.Sprintf("output:%d", a.id)
}

func (a Action) resubmitString() string {
	port := formatPort(widenPort(uint16(a.id)))
	switch {
	case widenPort(uint16(a.id)) == PortInPort:
		port = ""
	case a.table == TableNone:
		return "resubmit:" + port
	}
	if a.table == TableNone {
		return "resubmit(" + port + ",)"
	}
	return fmt.Sprintf("resubmit(%s,%d)", port, a.table)
}

// widenPort makes a port number of OpenFlow 1.3 from one of OpenFlow 1.0.
func widenPort(p uint16) uint32 {
	if p >= 0xff00 {
		return 0xffff0000 | uint32(p)
	}
	return uint32(p)
}

func (a Action) writeMetadataString() string {
	text := "write_metadata:" + hexOrZero(a.value.Lo)
	if a.mask != ones(64) {
		text += "/" + hexOrZero(a.mask.Lo)
	}
	return text
}

func (a Action) ctString() string {
	c := a.ct
	var parts []string
	if c.Commit {
		parts = append(parts, "commit")
	}
	if c.Force {
		parts = append(parts, "force")
	}
	if a.table != TableNone {
		parts = append(parts, fmt.Sprintf("table=%d", a.table))
	}
	switch {
	case a.field != 0:
		parts = append(parts, "zone="+formatSubfield(a.field, a.off, a.bits))
	case c.Zone != 0:
		parts = append(parts, fmt.Sprintf("zone=%d", c.Zone))
	}
	if c.NAT != nil {
		parts = append(parts, c.NAT.String())
	}
	if len(c.Nested) > 0 {
		parts = append(parts, "exec("+formatActions(c.Nested)+")")
	}
	if c.ALG != 0 {
		parts = append(parts, "alg="+formatALG(c.ALG))
	}
	return "ct(" + strings.Join(parts, ",") + ")"
}

func formatALG(port uint16) string {
	switch port {
	case 21:
		return "ftp"
	case 69:
		return "tftp"
	}
	return strconv.Itoa(int(port))
}

// String is the NAT in the syntax of ovs-ofctl.
func (n *NAT) String() string {
	var text string
	switch {
	case n.Src:
		text = "src"
	case n.Dst:
		text = "dst"
	default:
		return "nat"
	}
	if n.First.IsValid() {
		text += "=" + n.rangeString()
	}
	for _, flag := range []struct {
		set  bool
		name string
	}{{n.Persistent, "persistent"}, {n.Hash, "hash"}, {n.Random, "random"}} {
		if flag.set {
			text += "," + flag.name
		}
	}
	return "nat(" + text + ")"
}

func (n *NAT) rangeString() string {
	address := func(s string) string {
		if n.First.Is6() && n.FirstPort != 0 {
			return "[" + s + "]"
		}
		return s
	}
	text := address(n.First.String())
	if n.Last.IsValid() && n.Last != n.First {
		text += "-" + address(n.Last.String())
	}
	if n.FirstPort == 0 {
		return text
	}
	text += fmt.Sprintf(":%d", n.FirstPort)
	if n.LastPort != 0 && n.LastPort != n.FirstPort {
		text += fmt.Sprintf("-%d", n.LastPort)
	}
	return text
}

func formatSubfield(f Field, off, n uint16) string {
	name := fields[f].legacy
	switch {
	case off == 0 && int(n) == f.partBits():
		return name + "[]"
	case n == 1:
		return fmt.Sprintf("%s[%d]", name, off)
	}
	return fmt.Sprintf("%s[%d..%d]", name, off, off+n-1)
}

// String is the flow as ovs-ofctl dump-flows --no-stats prints it.
func (f *Flow) String() string {
	table := ""
	if f.Table != 0 {
		table = strconv.Itoa(int(f.Table))
	}
	return f.text(table)
}

func (f *Flow) text(table string) string {
	var b strings.Builder
	if f.Cookie != 0 {
		fmt.Fprintf(&b, "cookie=0x%x, ", f.Cookie)
	}
	if table != "" {
		b.WriteString("table=" + table + ", ")
	}
	if f.IdleTimeout != 0 {
		fmt.Fprintf(&b, "idle_timeout=%d, ", f.IdleTimeout)
	}
	if f.HardTimeout != 0 {
		fmt.Fprintf(&b, "hard_timeout=%d, ", f.HardTimeout)
	}
	for _, flag := range flagNames {
		if f.Flags&flag.bit != 0 {
			b.WriteString(flag.name + " ")
		}
	}
	match := f.Match.String()
	if f.Priority != DefaultPriority {
		match = strings.TrimSuffix(fmt.Sprintf("priority=%d,%s", f.Priority, match), ",")
	}
	if match != "" {
		b.WriteString(match + " ")
	}
	b.WriteString("actions=" + f.Instructions.String())
	return b.String()
}

var flagNames = []struct {
	bit  uint16
	name string
}{
	{1, "send_flow_rem"}, {2, "check_overlap"}, {4, "reset_counts"}, {8, "no_packet_counts"}, {16, "no_byte_counts"},
}

var groupTypes = []string{"all", "select", "indirect", "ff"}

// String is the group as ovs-ofctl dump-groups prints it.
func (g *Group) String() string {
	typ := strconv.Itoa(int(g.Type))
	if int(g.Type) < len(groupTypes) {
		typ = groupTypes[g.Type]
	}
	text := fmt.Sprintf("group_id=%d,type=%s", g.ID, typ)
	for rest := g.Buckets; len(rest) >= 16; {
		n := int(uint16At(rest, 0))
		if n < 16 || n > len(rest) {
			break
		}
		text += ",bucket=" + formatBucket(rest[:n], g.Type)
		rest = rest[n:]
	}
	return text
}

func formatBucket(raw string, typ uint8) string {
	text := ""
	if weight := uint16At(raw, 2); typ == GroupSelect && weight != 1 {
		text = fmt.Sprintf("weight:%d,", weight)
	}
	if port := uint32(valueOf(raw[4:8]).Lo); port != NoPort {
		text += "watch_port:" + formatPort(port) + ","
	}
	if group := uint32(valueOf(raw[8:12]).Lo); group != PortAny {
		text += fmt.Sprintf("watch_group:%d,", group)
	}
	return text + "actions=" + formatActions(readActions(raw[16:]))
}

// String is the meter as ovs-ofctl dump-meters prints it, on one line.
func (m *Meter) String() string {
	text := fmt.Sprintf("meter=%d ", m.ID)
	for _, flag := range meterFlagNames {
		if m.Flags&flag.bit != 0 {
			text += flag.name + " "
		}
	}
	text += "bands="
	for rest := m.Bands; len(rest) >= 16; {
		n := int(uint16At(rest, 2))
		if n < 16 || n > len(rest) {
			break
		}
		text += formatBand(rest[:n], m.Flags)
		rest = rest[n:]
	}
	return text
}

func formatBand(raw string, flags uint16) string {
	typ := strconv.Itoa(int(uint16At(raw, 0)))
	if uint16At(raw, 0) == bandDrop {
		typ = "drop"
	}
	text := fmt.Sprintf(" type=%s rate=%d", typ, valueOf(raw[4:8]).Lo)
	if flags&MeterBurst != 0 {
		text += fmt.Sprintf(" burst_size=%d", valueOf(raw[8:12]).Lo)
	}
	return text
}

var meterFlagNames = []struct {
	bit  uint16
	name string
}{{MeterKbps, "kbps"}, {MeterPPS, "pktps"}, {MeterBurst, "burst"}, {MeterStats, "stats"}}

// Text is the whole set, a line for each meter, group and flow, in order. Tables
// have the names that tableName gives them; without one, their numbers.
func (s *Set) Text(tableName func(uint8) string) string {
	var b strings.Builder
	for _, id := range slices.Sorted(maps.Keys(s.Meters)) {
		b.WriteString(s.Meters[id].String() + "\n")
	}
	for _, id := range slices.Sorted(maps.Keys(s.Groups)) {
		b.WriteString(s.Groups[id].String() + "\n")
	}
	for _, f := range s.SortedFlows() {
		table := strconv.Itoa(int(f.Table))
		if tableName != nil {
			table = tableName(f.Table)
		}
		b.WriteString(f.text(table) + "\n")
	}
	return b.String()
}
