package flows

import (
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// ParseFlow reads a flow in the syntax of ovs-ofctl, as it prints it in a dump
// (statistics are skipped) or takes it from an operator. A word that it does not
// know is an error that names it.
func ParseFlow(text string) (Flow, error) {
	head, actions, ok := cutActions(text)
	if !ok {
		return Flow{}, fmt.Errorf("flow %q has no actions=", text)
	}
	p := flowParser{flow: Flow{Priority: DefaultPriority}}
	for _, word := range strings.FieldsFunc(head, func(r rune) bool { return r == ',' || r == ' ' || r == '\t' }) {
		if err := p.word(word); err != nil {
			return Flow{}, fmt.Errorf("flow %q: %w", text, err)
		}
	}
	var err error
	if p.flow.Match, err = p.match(); err != nil {
		return Flow{}, fmt.Errorf("flow %q: %w", text, err)
	}
	list, err := parseActions(actions)
	if err == nil {
		p.flow.Instructions, err = newInstructions(list)
	}
	if err != nil {
		return Flow{}, fmt.Errorf("flow %q: %w", text, err)
	}
	return p.flow, nil
}

func cutActions(text string) (head, actions string, ok bool) {
	text = strings.TrimSpace(text)
	if strings.HasPrefix(text, "actions=") {
		return "", text[len("actions="):], true
	}
	at := strings.IndexAny(text, ", \t")
	for at >= 0 {
		if strings.HasPrefix(text[at+1:], "actions=") {
			return text[:at], text[at+1+len("actions="):], true
		}
		next := strings.IndexAny(text[at+1:], ", \t")
		if next < 0 {
			break
		}
		at += 1 + next
	}
	return "", "", false
}

type flowParser struct {
	flow  Flow
	terms []Term
	later []setting // those whose field depends on the protocol
	oxm   string    // the whole match, if it has something that we have no name for
}

type setting struct{ name, value string }

func (p *flowParser) word(word string) error {
	name, value, assigned := strings.Cut(word, "=")
	if !assigned {
		return p.keyword(word)
	}
	switch name {
	case "duration", "n_packets", "n_bytes", "idle_age", "hard_age":
		return nil
	case "cookie":
		return parseUint(name, value, 64, func(v uint64) { p.flow.Cookie = v })
	case "table":
		return parseUint(name, value, 8, func(v uint64) { p.flow.Table = uint8(v) })
	case "priority":
		return parseUint(name, value, 16, func(v uint64) { p.flow.Priority = uint16(v) })
	case "idle_timeout":
		return parseUint(name, value, 16, func(v uint64) { p.flow.IdleTimeout = uint16(v) })
	case "hard_timeout":
		return parseUint(name, value, 16, func(v uint64) { p.flow.HardTimeout = uint16(v) })
	case "oxm":
		return p.raw(value)
	case "dl_vlan", "vlan_tci", "nw_tos":
		return p.legacy(name, value)
	case "nw_src", "nw_dst", "nw_proto", "tp_src", "tp_dst", "icmp_type", "icmp_code":
		p.later = append(p.later, setting{name, value})
		return nil
	}
	f, ok := fieldNames[strings.ToLower(name)]
	if !ok {
		return fmt.Errorf("unknown field %q", name)
	}
	return p.term(f, value)
}

func (p *flowParser) term(f Field, text string) error {
	v, mask, err := parseValue(f, text)
	if err != nil {
		return err
	}
	p.terms = append(p.terms, Term{f, v, mask})
	return nil
}

func (p *flowParser) keyword(word string) error {
	for _, name := range protocolNames {
		if name.name != word {
			continue
		}
		p.terms = append(p.terms, EthType.Is(name.etherType))
		if name.proto != 0 {
			p.terms = append(p.terms, IPProto.Is(name.proto))
		}
		return nil
	}
	for _, flag := range flagNames {
		if flag.name == word {
			p.flow.Flags |= flag.bit
			return nil
		}
	}
	return fmt.Errorf("unknown word %q", word)
}

// legacy reads fields of OpenFlow 1.0 that are parts of those of 1.3.
func (p *flowParser) legacy(name, value string) error {
	const noTag = 0xffff
	text, maskText, masked := strings.Cut(value, "/")
	v, err := strconv.ParseUint(text, 0, 16)
	mask := uint64(0xffff)
	if err == nil && masked {
		mask, err = strconv.ParseUint(maskText, 0, 16)
	}
	if err != nil || masked && name != "vlan_tci" {
		return fmt.Errorf("%s=%s: not a number", name, value)
	}
	switch {
	case name == "nw_tos" && v&^0xfc == 0:
		p.terms = append(p.terms, IPDSCP.Is(v>>2))
	case name == "dl_vlan" && v == noTag:
		p.terms = append(p.terms, VLANVID.Is(0))
	case name == "dl_vlan" && v <= 0xfff:
		p.terms = append(p.terms, VLANVID.Is(v|VLANPresent))
	case name == "vlan_tci":
		p.terms = append(p.terms, VLANVID.Masked(v&0x1fff, mask&0x1fff))
		if v&mask&VLANPresent != 0 {
			p.terms = append(p.terms, VLANPCP.Masked(v>>13, mask>>13))
		}
	default:
		return fmt.Errorf("%s=%s is out of range", name, value)
	}
	return nil
}

// match resolves the names that stand for different fields of different
// protocols, and makes the match.
func (p *flowParser) match() (Match, error) {
	for _, s := range p.later {
		f, err := p.resolve(s.name)
		if err != nil {
			return Match{}, err
		}
		if err := p.term(f, s.value); err != nil {
			return Match{}, err
		}
	}
	m, err := newMatch(p.terms)
	if err != nil {
		return Match{}, err
	}
	if p.oxm == "" {
		return m, m.Check()
	}
	whole := Match{p.oxm}
	named, err := newMatch(slices.Collect(whole.Terms()))
	if err == nil && named != m {
		err = fmt.Errorf("oxm= says %q beside what it has no name for", named)
	}
	return whole, err
}

// raw reads what a match with something unknown ends with.
func (p *flowParser) raw(text string) error {
	b, err := hex.DecodeString(text)
	if err != nil {
		return fmt.Errorf("oxm=%s: %w", text, err)
	}
	p.oxm = string(b)
	return checkTLVs(b)
}

func (p *flowParser) resolve(name string) (Field, error) {
	switch {
	case p.has(ARP) || p.has(EthType.Is(etherTypeRARP)):
		switch name {
		case "nw_src":
			return ARPSPA, nil
		case "nw_dst":
			return ARPTPA, nil
		case "nw_proto":
			return ARPOp, nil
		}
	case name == "nw_src":
		return IPv4Src, nil
	case name == "nw_dst":
		return IPv4Dst, nil
	case name == "nw_proto":
		return IPProto, nil
	}
	proto := p.get(IPProto)
	for _, l4 := range []struct {
		proto    uint64
		src, dst Field
	}{{protoTCP, TCPSrc, TCPDst}, {protoUDP, UDPSrc, UDPDst}, {protoSCTP, SCTPSrc, SCTPDst}} {
		switch {
		case proto == l4.proto && name == "tp_src":
			return l4.src, nil
		case proto == l4.proto && name == "tp_dst":
			return l4.dst, nil
		}
	}
	for _, icmp := range []struct {
		proto     uint64
		typ, code Field
	}{{protoICMP, ICMPType, ICMPCode}, {protoICMPv6, ICMPv6Type, ICMPv6Code}} {
		switch {
		case proto == icmp.proto && name == "icmp_type":
			return icmp.typ, nil
		case proto == icmp.proto && name == "icmp_code":
			return icmp.code, nil
		}
	}
	return 0, fmt.Errorf("%s without a protocol that has it", name)
}

func (p *flowParser) has(t Term) bool { return slices.Contains(p.terms, t) }

// get is the value that the match has for a field, named or numbered.
func (p *flowParser) get(f Field) uint64 {
	for _, t := range p.terms {
		if t.Field == f {
			return t.Value.Lo
		}
	}
	for _, s := range p.later {
		if v, err := strconv.ParseUint(s.value, 0, 8); s.name == "nw_proto" && f == IPProto && err == nil {
			return v
		}
	}
	return 0
}

// fieldNames has every name of a field, in lower case.
var fieldNames = func() map[string]Field {
	names := map[string]Field{
		"in_port": InPort, "dl_src": EthSrc, "dl_dst": EthDst, "dl_type": EthType, "dl_vlan_pcp": VLANPCP,
		"nw_src": IPv4Src, "nw_dst": IPv4Dst, "nw_proto": IPProto, "ip_proto": IPProto, "nw_frag": IPFrag,
		"ip_ecn": IPECN, "ip_ttl": IPTTL, "tunnel_id": TunnelID, "tun_ipv4_src": TunSrc, "tun_ipv4_dst": TunDst,
	}
	for f := ConjID; f < numFields; f++ {
		names[fields[f].name] = f
		names[strings.ToLower(fields[f].legacy)] = f
	}
	return names
}()

func parseUint(name, text string, bits int, set func(uint64)) error {
	v, err := strconv.ParseUint(text, 0, bits)
	if err != nil {
		return fmt.Errorf("%s=%s: not a number of %d bits", name, text, bits)
	}
	set(v)
	return nil
}

// parseValue reads what formatValue writes.
func parseValue(f Field, text string) (v, mask Value, err error) {
	valueText, maskText, masked := strings.Cut(text, "/")
	mask = ones(f.Bits())
	switch fields[f].format {
	case portNumber:
		var port uint32
		port, err = parsePort(text)
		return Value{Lo: uint64(port)}, mask, err
	case fragment:
		return parseFragment(text)
	case ctState:
		return parseFlags(f, text, ctStateNames)
	case tcpFlags:
		return parseFlags(f, text, tcpFlagNames)
	}
	if v, err = parseOne(f, valueText, false); err != nil || !masked {
		return v, mask, err
	}
	mask, err = parseOne(f, maskText, true)
	return v.and(mask), mask, err
}

func parseOne(f Field, text string, isMask bool) (Value, error) {
	var v Value
	ok := false
	switch format := fields[f].format; format {
	case ipv4Address, ipv6Address:
		v, ok = parseAddress(text, f.Bits(), isMask)
	case macAddress:
		m, err := net.ParseMAC(text)
		if ok = err == nil && len(m) == 6; ok {
			v = macValue([6]byte(m))
		}
	default:
		v, ok = parseNumber(text)
		if err := checkFits(f, v); ok && err != nil {
			return Value{}, err
		}
	}
	if !ok {
		return Value{}, fmt.Errorf("%s: %q is not a value of it", f.Name(), text)
	}
	return v, nil
}

func parseAddress(text string, width int, isMask bool) (Value, bool) {
	if n, err := strconv.ParseUint(text, 10, 8); isMask && err == nil {
		return prefixMask(min(int(n), width), width), int(n) <= width
	}
	a, err := netip.ParseAddr(text)
	if err != nil || a.BitLen() != width || a.Zone() != "" {
		return Value{}, false
	}
	return addressValue(a), true
}

func parseNumber(text string) (Value, bool) {
	if strings.ContainsAny(text, "_+-") {
		return Value{}, false
	}
	n, ok := new(big.Int).SetString(text, 0)
	if !ok || n.BitLen() > 128 {
		return Value{}, false
	}
	return valueOf(n.Bytes()), true
}

func parsePort(text string) (uint32, error) {
	if n, err := strconv.ParseUint(text, 0, 32); err == nil {
		return uint32(n), nil
	}
	for port, name := range portNames {
		if strings.EqualFold(name, text) {
			return port, nil
		}
	}
	return 0, fmt.Errorf("unknown port %q", text)
}

func parseFragment(text string) (v, mask Value, err error) {
	for _, f := range fragmentNames {
		if f.name == text {
			return Value{Lo: f.value}, Value{Lo: f.mask}, nil
		}
	}
	valueText, maskText, _ := strings.Cut(text, "/")
	v, ok1 := parseNumber(valueText)
	mask, ok2 := parseNumber(maskText)
	if !ok1 || !ok2 {
		return v, mask, fmt.Errorf("unknown fragment %q", text)
	}
	return v, mask, checkFits(IPFrag, v.or(mask))
}

// parseFlags reads +syn-ack, syn|ack, 0x2 and 0x2/0x12.
func parseFlags(f Field, text string, names []string) (v, mask Value, err error) {
	all := ones(len(names))
	valueText, maskText, masked := strings.Cut(text, "/")
	if n, ok := parseNumber(valueText); ok {
		if !masked {
			return n, all, checkFits(f, n)
		}
		mask, ok := parseNumber(maskText)
		if !ok {
			return v, mask, fmt.Errorf("%s: %q is not a mask", f.Name(), maskText)
		}
		return n.and(mask), mask, checkFits(f, n.or(mask))
	}
	if !strings.HasPrefix(text, "+") && !strings.HasPrefix(text, "-") {
		for name := range strings.SplitSeq(text, "|") {
			bit, err := flagBit(f, name, names)
			if err != nil {
				return v, mask, err
			}
			v = v.or(bit)
		}
		return v, all, nil
	}
	for rest := text; rest != ""; {
		end := strings.IndexAny(rest[1:], "+-") + 1
		if end == 0 {
			end = len(rest)
		}
		bit, err := flagBit(f, rest[1:end], names)
		if err != nil {
			return v, mask, err
		}
		if rest[0] == '+' {
			v = v.or(bit)
		}
		mask, rest = mask.or(bit), rest[end:]
	}
	return v, mask, nil
}

func flagBit(f Field, name string, names []string) (Value, error) {
	i := slices.Index(names, name)
	if i < 0 {
		return Value{}, fmt.Errorf("%s: unknown flag %q", f.Name(), name)
	}
	return Value{Lo: 1 << i}, nil
}

// parseActions reads a list of actions; "drop" and "" are the empty one.
func parseActions(text string) ([]Action, error) {
	text = strings.TrimSpace(text)
	if text == "drop" || text == "" {
		return nil, nil
	}
	words, err := splitActions(text)
	if err != nil {
		return nil, err
	}
	var all []Action
	for _, word := range words {
		a, err := parseOneAction(strings.TrimSpace(word))
		if err != nil {
			return nil, err
		}
		all = append(all, a)
	}
	return all, nil
}

// maxNesting is how deep actions may lie within each other.
const maxNesting = 32

// splitActions splits at the commas that are not within parentheses.
func splitActions(text string) ([]string, error) {
	var words []string
	depth, start := 0, 0
	for i := range len(text) {
		switch text[i] {
		case '(':
			depth++
		case ')':
			depth--
		case ',':
			if depth == 0 {
				words = append(words, text[start:i])
				start = i + 1
			}
		}
		if depth < 0 || depth > maxNesting {
			return nil, fmt.Errorf("parentheses of %q", text)
		}
	}
	if depth != 0 {
		return nil, fmt.Errorf("parentheses of %q", text)
	}
	return append(words, text[start:]), nil
}

// checkPktLarger is the name in check_pkt_larger(1472)->NXM_NX_REG0[5].
const checkPktLarger = "check_pkt_larger"

// cutAction splits name:argument, name(argument) and name(argument)->target.
func cutAction(word string) (name, argument string, hasArgument bool) {
	at := strings.IndexAny(word, ":(")
	if at < 0 {
		return word, "", false
	}
	if word[at] == '(' {
		if before, after, ok := strings.Cut(word, ")->"); ok && word[:at] == checkPktLarger {
			return word[:at], before[at+1:] + "->" + after, true
		}
		inner, ok := strings.CutSuffix(word[at+1:], ")")
		if !ok {
			return word, "", false
		}
		return word[:at], inner, true
	}
	return word[:at], word[at+1:], true
}

// plainActions have no argument.
var plainActions = map[string]Action{
	"pop_vlan": PopVLAN(), "strip_vlan": PopVLAN(), "dec_ttl": DecTTL(), "ct_clear": CTClear(),
	"clear_actions": {kind: KindClearActions},
}

// settersOf are words of OpenFlow 1.0 for set_field.
var settersOf = map[string]Field{
	"mod_dl_src": EthSrc, "mod_dl_dst": EthDst, "mod_nw_src": IPv4Src, "mod_nw_dst": IPv4Dst,
	"mod_nw_ttl": IPTTL, "set_tunnel": TunnelID, "set_tunnel64": TunnelID,
}

func parseOneAction(word string) (Action, error) {
	name, argument, hasArgument := cutAction(word)
	if !hasArgument {
		if a, ok := plainActions[word]; ok {
			return a, nil
		}
		return parseOutput(word)
	}
	a, err := parseActionArgument(name, argument)
	if err != nil {
		return a, fmt.Errorf("action %q: %w", word, err)
	}
	return a, a.checkParsed()
}

func (a Action) checkParsed() error {
	if a.kind >= KindMeter {
		return nil
	}
	return a.check()
}

func parseOutput(word string) (Action, error) {
	port, err := parsePort(word)
	if err != nil {
		return Action{}, fmt.Errorf("unknown action %q", word)
	}
	if port == PortController {
		return ToController(MaxLenAll), nil
	}
	return Output(port), nil
}

func parseActionArgument(name, argument string) (Action, error) {
	if f, ok := settersOf[name]; ok {
		return parseSet(f, argument)
	}
	switch name {
	case "output":
		if strings.Contains(argument, "[") {
			f, off, n, err := parseSubfield(argument)
			return Action{kind: KindOutputReg, field: f, off: off, bits: n, n: MaxLenAll}, err
		}
		return parseOutput(argument)
	case "CONTROLLER", "controller":
		n, err := strconv.ParseUint(strings.TrimPrefix(argument, "max_len="), 10, 16)
		return ToController(uint16(n)), err
	case "group", "set_queue", "meter", "goto_table", "push_vlan":
		return parseNumbered(name, argument)
	case "set_field":
		value, field, ok := cutArrow(argument)
		f, known := fieldNames[strings.ToLower(field)]
		if !ok || !known {
			return Action{}, fmt.Errorf("unknown field %q", field)
		}
		return parseSet(f, value)
	case "load":
		return parseLoad(argument)
	case checkPktLarger:
		return parseCheckPktLarger(argument)
	case "move":
		return parseMove(argument)
	case "write_metadata":
		v, mask, err := parseValue(Metadata, argument)
		return WriteMetadata(v.Lo, mask.Lo), err
	case "resubmit":
		return parseResubmit(argument)
	case "conjunction":
		return parseConjunction(argument)
	case "clone":
		nested, err := parseActions(argument)
		return Clone(nested...), err
	case "write_actions":
		return parseWriteActions(argument)
	case "ct":
		return parseCTText(argument)
	case "raw", "raw_instruction":
		return parseRaw(name, argument)
	}
	return Action{}, fmt.Errorf("unknown action %q", name)
}

func parseNumbered(name, argument string) (Action, error) {
	bits := map[string]int{"goto_table": 8, "push_vlan": 16}[name]
	if bits == 0 {
		bits = 32
	}
	n, err := strconv.ParseUint(argument, 0, bits)
	if err != nil {
		return Action{}, fmt.Errorf("%q is not a number of %d bits", argument, bits)
	}
	switch name {
	case "group":
		return ToGroup(uint32(n)), nil
	case "set_queue":
		return SetQueue(uint32(n)), nil
	case "meter":
		return ApplyMeter(uint32(n)), nil
	case "goto_table":
		return Goto(uint8(n)), nil
	}
	return Action{kind: KindPushVLAN, n: uint16(n)}, nil
}

func cutArrow(text string) (before, after string, ok bool) {
	at := strings.LastIndex(text, "->")
	if at < 0 {
		return text, "", false
	}
	return text[:at], text[at+2:], true
}

func parseSet(f Field, text string) (Action, error) {
	v, mask, err := parseValue(f, text)
	return setMasked(f, v, mask), err
}

func parseLoad(argument string) (Action, error) {
	value, target, _ := cutArrow(argument)
	f, off, n, err := parseSubfield(target)
	if err != nil {
		return Action{}, err
	}
	v, ok := parseNumber(value)
	if !ok || !v.andNot(ones(min(int(n), 64))).isZero() {
		return Action{}, fmt.Errorf("%q is not a number of %d bits", value, n)
	}
	return Action{kind: KindLoad, field: f, off: off, bits: n, value: v}, nil
}

func parseCheckPktLarger(argument string) (Action, error) {
	length, target, _ := cutArrow(argument)
	f, off, n, err := parseSubfield(target)
	if err != nil {
		return Action{}, err
	}
	bytes, err := strconv.ParseUint(length, 10, 16)
	if err != nil || n != 1 {
		return Action{}, fmt.Errorf("%q is not a length and one bit", argument)
	}
	return CheckPktLarger(uint16(bytes), f, uint(off)), nil
}

func parseMove(argument string) (Action, error) {
	from, to, _ := cutArrow(argument)
	src, srcOff, n, err := parseSubfield(from)
	if err != nil {
		return Action{}, err
	}
	dst, dstOff, m, err := parseSubfield(to)
	if err != nil {
		return Action{}, err
	}
	if n != m {
		return Action{}, fmt.Errorf("%d bits to %d", n, m)
	}
	return MoveBits(src, uint(srcOff), dst, uint(dstOff), uint(n)), nil
}

// parseSubfield reads REG0[], REG0[3], REG0[0..15].
func parseSubfield(text string) (f Field, off, n uint16, err error) {
	name, bits, ok := strings.Cut(text, "[")
	f, known := fieldNames[strings.ToLower(name)]
	if !known {
		return 0, 0, 0, fmt.Errorf("unknown field %q", name)
	}
	bits, closed := strings.CutSuffix(bits, "]")
	if !ok || !closed {
		return 0, 0, 0, fmt.Errorf("%q has no bits in brackets", text)
	}
	if bits == "" {
		return f, 0, uint16(f.partBits()), nil
	}
	first, last, isRange := strings.Cut(bits, "..")
	if !isRange {
		last = first
	}
	from, err1 := strconv.ParseUint(first, 10, 8)
	to, err2 := strconv.ParseUint(last, 10, 8)
	if err1 != nil || err2 != nil || to < from || int(to) >= f.partBits() {
		return 0, 0, 0, fmt.Errorf("%s has no bits [%s]", name, bits)
	}
	return f, uint16(from), uint16(to - from + 1), nil
}

func parseConjunction(argument string) (Action, error) {
	idText, clauses, _ := strings.Cut(argument, ",")
	clauseText, nText, _ := strings.Cut(clauses, "/")
	id, err1 := strconv.ParseUint(idText, 0, 32)
	clause, err2 := strconv.ParseUint(clauseText, 10, 8)
	n, err3 := strconv.ParseUint(nText, 10, 8)
	if err := errors.Join(err1, err2, err3); err != nil {
		return Action{}, fmt.Errorf("not an id,k/n: %w", err)
	}
	return Conjunction(uint32(id), uint8(clause), uint8(n)), nil
}

func parseResubmit(argument string) (Action, error) {
	a := Resubmit(TableNone)
	portText, tableText, hasTable := strings.Cut(argument, ",")
	if portText != "" {
		port, err := parsePort(portText)
		if err != nil {
			return a, err
		}
		if port > 0xfeff && port < 0xffffff00 {
			return a, fmt.Errorf("%d is not a port", port)
		}
		a.id = port & 0xffff
	}
	if !hasTable || tableText == "" {
		return a, nil
	}
	table, err := strconv.ParseUint(tableText, 0, 8)
	a.table = uint8(table)
	return a, err
}

func parseWriteActions(argument string) (Action, error) {
	nested, err := parseActions(argument)
	if err != nil {
		return Action{}, err
	}
	b, err := appendActions([]byte{0, instructionWriteActions, 0, 0, 0, 0, 0, 0}, nested)
	if err != nil {
		return Action{}, err
	}
	if len(b) > maxInstructions {
		return Action{}, fmt.Errorf("%d bytes are too many", len(b))
	}
	be.PutUint16(b[2:], uint16(len(b)))
	return Action{kind: KindWriteActions, nested: nested, raw: string(b)}, nil
}

func parseRaw(name, argument string) (Action, error) {
	b, err := hex.DecodeString(argument)
	if err != nil {
		return Action{}, err
	}
	check, read := checkActions, readActions
	if name == "raw_instruction" {
		check, read = checkInstructions, readInstruction
	}
	if err := check(b); err != nil {
		return Action{}, err
	}
	if all := read(string(b)); len(all) == 1 {
		return all[0], nil
	}
	return Action{}, fmt.Errorf("not one action")
}

func parseCTText(argument string) (Action, error) {
	c := CTSpec{Table: TableNone}
	a := Action{}
	words, err := splitActions(argument)
	if err != nil {
		return a, err
	}
	for _, word := range words {
		if err := c.word(word, &a); err != nil {
			return a, err
		}
	}
	full := CT(c)
	if a.field != 0 {
		full.field, full.off, full.bits = a.field, a.off, a.bits
	}
	return full, nil
}

// word reads one argument of ct; the zone's bits go to a.
func (c *CTSpec) word(word string, a *Action) error {
	if name, argument, ok := cutAction(word); ok && name == "nat" {
		n, err := parseNATText(argument)
		c.NAT = n
		return err
	} else if ok && name == "exec" {
		var err error
		c.Nested, err = parseActions(argument)
		return err
	}
	name, value, _ := strings.Cut(word, "=")
	switch name {
	case "":
		return nil
	case "commit":
		c.Commit = true
		return nil
	case "force":
		c.Force = true
		return nil
	case "nat":
		c.NAT = &NAT{}
		return nil
	case "table":
		return parseUint(name, value, 8, func(v uint64) { c.Table = uint8(v) })
	case "alg":
		return c.parseALG(value)
	case "zone":
		if !strings.Contains(value, "[") {
			return parseUint(name, value, 16, func(v uint64) { c.Zone = uint16(v) })
		}
		var err error
		a.field, a.off, a.bits, err = parseSubfield(value)
		c.ZoneField = a.field
		return err
	}
	return fmt.Errorf("unknown word %q", word)
}

func (c *CTSpec) parseALG(text string) error {
	switch text {
	case "ftp":
		c.ALG = 21
	case "tftp":
		c.ALG = 69
	default:
		return parseUint("alg", text, 16, func(v uint64) { c.ALG = uint16(v) })
	}
	return nil
}

func parseNATText(argument string) (*NAT, error) {
	n := &NAT{}
	for word := range strings.SplitSeq(argument, ",") {
		name, value, _ := strings.Cut(word, "=")
		switch name {
		case "":
		case "src":
			n.Src = true
		case "dst":
			n.Dst = true
		case "persistent":
			n.Persistent = true
		case "hash":
			n.Hash = true
		case "random":
			n.Random = true
		default:
			return nil, fmt.Errorf("unknown word %q", word)
		}
		if value == "" {
			continue
		}
		if err := n.parseRange(value); err != nil {
			return nil, err
		}
	}
	return n, nil
}

// parseRange reads 10.0.0.1-10.0.0.9:1000-2000 and [fd00::1]-[fd00::9]:1000.
func (n *NAT) parseRange(text string) error {
	addresses, ports := text, ""
	if at := strings.LastIndex(text, "]:"); at >= 0 {
		addresses, ports = text[:at+1], text[at+2:]
	} else if strings.Count(text, ":") == 1 {
		addresses, ports, _ = strings.Cut(text, ":")
	}
	first, last, isRange := strings.Cut(strings.NewReplacer("[", "", "]", "").Replace(addresses), "-")
	var err error
	if n.First, err = netip.ParseAddr(first); err == nil && isRange {
		n.Last, err = netip.ParseAddr(last)
	}
	if err != nil || n.First.Zone() != "" || n.Last.Zone() != "" {
		return fmt.Errorf("%q is not a range of addresses", addresses)
	}
	if ports == "" {
		return nil
	}
	from, to, isRange := strings.Cut(ports, "-")
	if err := parseUint("port", from, 16, func(v uint64) { n.FirstPort = uint16(v) }); err != nil || !isRange {
		return err
	}
	return parseUint("port", to, 16, func(v uint64) { n.LastPort = uint16(v) })
}
