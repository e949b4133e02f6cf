package flows

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
)

var (
	addr4 = netip.MustParseAddr("10.1.2.3")
	addr6 = netip.MustParseAddr("2001:db8::1:2")
	mac   = [6]byte{0xfa, 0x16, 0x3e, 1, 2, 3}
)

// needed are the terms that a match on the field needs.
func needed(f Field) []Term {
	var terms []Term
	for n := fields[f].needs; n != nil; n = n.and {
		if one := n.of[0]; !slices.Contains(terms, one.field.Is(one.value)) {
			terms = append(terms, one.field.Is(one.value))
		}
	}
	if f == CtNwSrc || f == CtNwDst {
		return append(terms, IPv4, CtState.Masked(0x22, 0x22))
	}
	if f == CtIPv6Src || f == CtIPv6Dst {
		return append(terms, IPv6, CtState.Masked(0x22, 0x22))
	}
	if f == CtNwProto || f == CtTpSrc || f == CtTpDst {
		terms = append(terms, IPv4, CtState.Masked(0x22, 0x22))
	}
	if f == CtTpSrc || f == CtTpDst {
		terms = append(terms, CtNwProto.Is(protoTCP))
	}
	return terms
}

// sample is a value that the field can have, and a mask with holes.
func sample(f Field) (v, mask Value) {
	all := ones(f.Bits())
	pattern := Value{0x20010db800000000, 0x0a0102030a010203}
	switch f {
	case ICMPv6Type:
		return Value{Lo: 135}, all
	case EthType:
		return Value{Lo: 0x88cc}, all
	case VLANVID:
		return Value{Lo: 0x1005}, Value{Lo: 0x1005}
	case IPFrag:
		return Value{Lo: 1}, Value{Lo: 1}
	case ARPOp:
		return Value{Lo: 2}, Value{Lo: 3}
	case InPort:
		return Value{Lo: 1}, all
	case CtState:
		return Value{Lo: 0x22}, Value{Lo: 0x2a}
	case CtNwProto:
		return Value{Lo: protoTCP}, all
	}
	return pattern.and(all), Value{0xffff0000ffff00ff, 0xff00ff00ffff0f03}.and(all)
}

// matchSamples has matches on every field: exact, by mask, and 0.
func matchSamples() map[string]Match {
	all := map[string]Match{
		"everything":    {},
		"no tag":        NewMatch(VLANVID.Is(0)),
		"any tag":       NewMatch(VLANVID.Masked(VLANPresent, VLANPresent)),
		"priority":      NewMatch(VLANPCP.Is(5)),
		"tag":           NewMatch(VLANVID.Is(VLANPresent|5), VLANPCP.Is(3)),
		"odd tag":       NewMatch(VLANVID.Masked(VLANPresent|1, VLANPresent|1), VLANPCP.Is(3)),
		"prefix":        NewMatch(IPv4, IPv4Src.InPrefix(netip.MustParsePrefix("10.0.0.0/8"))),
		"prefix 6":      NewMatch(IPv6, IPv6Dst.InPrefix(netip.MustParsePrefix("2001:db8::/33"))),
		"multicast":     NewMatch(EthDst.MaskedMAC([6]byte{1}, [6]byte{1})),
		"rarp":          NewMatch(EthType.Is(etherTypeRARP), ARPTHA.IsMAC(mac)),
		"ct state":      NewMatch(CtState.Is(0x21)),
		"no ct state":   NewMatch(CtState.Is(0)),
		"later":         NewMatch(IPv4, IPFrag.Is(3)),
		"first":         NewMatch(IPv4, IPFrag.Is(1)),
		"not fragment":  NewMatch(IPv4, IPFrag.Is(0)),
		"not later":     NewMatch(IPv4, IPFrag.Masked(0, 2)),
		"wide":          NewMatch(XXReg3.IsIP(addr6)),
		"wide prefix":   NewMatch(XXReg1.InPrefix(netip.MustParsePrefix("2001:db8::/40"))),
		"from local":    NewMatch(InPort.Is(uint64(PortLocal))),
		"other proto":   NewMatch(IPv4, IPProto.Is(47)),
		"other proto 6": NewMatch(IPv6, IPProto.Is(89)),
		"tcp6":          NewMatch(IPv6, TCP, TCPDst.Is(443), TCPFlags.Masked(2, 0x12)),
		"udp6":          NewMatch(IPv6, UDP, UDPSrc.Is(546)),
		"sctp6":         NewMatch(IPv6, SCTP, SCTPSrc.Is(7)),
		"neighbour":     NewMatch(IPv6, ICMPv6, ICMPv6Type.Is(136), ICMPv6Code.Is(0), NDTarget.IsIP(addr6), NDTLL.IsMAC(mac)),
		"wide protocol": NewMatch(IPProto.Is(protoTCP), IPv4, EthSrc.IsMAC(mac), InPort.Is(1), Metadata.Is(7), Reg0.Is(0), TunnelID.Is(0)),
	}
	for f := ConjID; f <= XXReg3; f++ {
		v, mask := sample(f)
		all[f.Name()+" exact"] = NewMatch(append(needed(f), Term{f, v, ones(f.Bits())})...)
		if fields[f].maskable {
			all[f.Name()+" masked"] = NewMatch(append(needed(f), Term{f, v, mask})...)
		}
		if len(needed(f)) == 0 || fields[f].bits >= 32 || fields[f].format == decimal && f != ICMPv6Type && f != CtNwProto {
			all[f.Name()+" zero"] = NewMatch(append(needed(f), f.Is(0))...)
		}
	}
	return all
}

// readOnly are the fields that no action writes.
var readOnly = []Field{ConjID, EthType, IPFrag, IPProto, TCPFlags, CtState, CtZone, CtNwSrc, CtIPv6Src, CtNwDst, CtIPv6Dst, CtNwProto, CtTpSrc, CtTpDst}

type instructionSample struct {
	match        Match
	instructions Instructions
}

// instructionSamples has every action, and each that writes or reads a field for
// every field.
func instructionSamples() map[string]instructionSample {
	all := map[string]instructionSample{}
	add := func(name string, m Match, actions ...Action) {
		all[name] = instructionSample{m, Do(actions...)}
	}
	tagged := NewMatch(VLANVID.Masked(VLANPresent, VLANPresent))
	add("drop", Match{})
	add("ports", Match{}, Output(1), Output(PortInPort), Output(PortLocal), Output(PortNormal), Output(PortFlood), Output(PortAll))
	add("controller", Match{}, ToController(MaxLenAll))
	add("controller, cut", Match{}, ToController(128), Output(PortController))
	add("table", Match{}, Output(PortTable))
	add("register", Match{}, OutputReg(Reg1))
	add("group", Match{}, ToGroup(1))
	add("queue", Match{}, SetQueue(3), Output(1))
	add("push", Match{}, PushVLAN(), SetField(VLANVID, VLANPresent|5), Output(1))
	add("pop", tagged, PopVLAN(), Output(1))
	add("ttl", NewMatch(IPv4), DecTTL(), Output(1))
	add("ttl 6", NewMatch(IPv6), DecTTL(), Output(1))
	add("resubmit", Match{}, Resubmit(9), Resubmit(0))
	add("resubmit port", Match{}, Action{kind: KindResubmit, id: 2, table: 9}, Action{kind: KindResubmit, id: 2, table: TableNone})
	add("clone", Match{}, Clone(SetField(Reg0, 1), Clone(Output(1)), Resubmit(4)), Output(2))
	add("conjunction", NewMatch(IPv4), Conjunction(77, 1, 2), Conjunction(78, 3, 64))
	add("all instructions", Match{}, Goto(200), SetField(Reg0, 1), ApplyMeter(1), WriteMetadata(5, 0xff), Output(1))
	add("metadata", Match{}, WriteMetadata(5, ^uint64(0)))
	add("metadata 0", Match{}, WriteMetadata(0, 0xff00))
	add("meter", Match{}, ApplyMeter(1), Goto(200))
	add("write actions", Match{}, mustParse("clear_actions,write_actions(group:1,output:2)")...)
	add("load", Match{}, mustParse("load:0x1->NXM_NX_REG0[],load:0->NXM_NX_REG1[3],load:0x5->OXM_OF_METADATA[8..15]")...)
	add("move bits", Match{}, MoveBits(Reg0, 4, Metadata, 40, 12), MoveBits(XXReg3, 64, XXReg0, 0, 64), Move(EthSrc, EthDst), Move(InPort, Reg1))
	add("move arp", NewMatch(ARP), Move(ARPSPA, ARPTPA), Move(ARPSHA, ARPTHA), Move(EthSrc, ARPSHA), SetIP(ARPSPA, addr4), SetField(ARPOp, 2))
	add("check length", Match{}, CheckPktLarger(1472, Reg0, 5), CheckPktLarger(65535, XXReg3, 127), CheckPktLarger(0, Metadata, 63))
	add("hairpin", Match{}, SetField(InPort, 0), Output(1))
	add("from local", Match{}, SetField(InPort, uint64(PortLocal)), Resubmit(5))
	add("local vlan", Match{}, PushVLAN(), MoveBits(Reg9, 0, VLANVID, 0, 12), Output(1))
	addConntrack(add)
	for f := EthSrc; f <= XXReg3; f++ {
		v, mask := sample(f)
		if slices.Contains(readOnly, f) {
			continue
		}
		m := NewMatch(needed(f)...)
		if f == VLANVID || f == VLANPCP {
			m = tagged
		}
		if f != CtMark && f != CtLabel {
			add("set "+f.Name(), m, setAll(f, v))
			add("set some "+f.Name(), m, setMasked(f, v.and(mask), mask))
			if f != VLANVID { // it must keep VLANPresent
				add("clear "+f.Name(), m, setAll(f, Value{}))
			}
			add("move to "+f.Name(), m, MoveBits(XXReg0, 0, f, 0, uint(f.partBits())))
		}
		add("move from "+f.Name(), m, MoveBits(f, 0, XXReg1, 3, uint(min(f.partBits(), 100))))
	}
	return all
}

func addConntrack(add func(string, Match, ...Action)) {
	ip, ip6 := NewMatch(IPv4), NewMatch(IPv6)
	last4, last6 := netip.MustParseAddr("10.1.2.9"), netip.MustParseAddr("2001:db8::9:9")
	add("ct", ip, CT(CTSpec{Zone: 5, Table: 22}))
	add("ct commit", ip, CT(CTSpec{Commit: true, Force: true, Zone: 65535, Table: TableNone}))
	add("ct register", ip, CT(CTSpec{ZoneField: Reg4, Table: 22}))
	add("ct exec", ip, CT(CTSpec{Commit: true, ZoneField: Reg5, Table: TableNone, Nested: []Action{
		SetField(CtMark, 7), SetMasked(CtMark, 1, 3), setAll(CtLabel, addressValue(addr6)), SetMasked(CtLabel, 5, 0xff),
		Move(Reg2, CtMark), MoveBits(XXReg1, 0, CtLabel, 0, 64)}}))
	add("ct alg", NewMatch(IPv4, TCP), CT(CTSpec{Commit: true, Table: TableNone, ALG: 21}))
	add("ct nat", ip, CT(CTSpec{Zone: 1, Table: 22, NAT: &NAT{}}))
	add("ct nat and exec", ip, CT(CTSpec{Commit: true, Zone: 1, Table: 22, NAT: &NAT{Src: true, First: addr4}, Nested: []Action{SetField(CtMark, 1)}}))
	add("ct dnat", ip, CT(CTSpec{Commit: true, Table: 22, NAT: &NAT{Dst: true, First: addr4, Last: last4, FirstPort: 80}}))
	add("ct snat", ip, CT(CTSpec{Commit: true, Table: 22, NAT: &NAT{Src: true, First: addr4, FirstPort: 1024, LastPort: 65535, Random: true, Persistent: true}}))
	add("ct snat hash", ip, CT(CTSpec{Commit: true, Table: 22, NAT: &NAT{Src: true, First: addr4, Hash: true}}))
	add("ct snat to one", ip, CT(CTSpec{Commit: true, Table: 22, NAT: &NAT{Src: true, First: addr4, Last: addr4, FirstPort: 80, LastPort: 80}}))
	add("ct snat of nothing", ip, CT(CTSpec{Commit: true, Table: 22, NAT: &NAT{Src: true}}))
	add("ct snat 6", ip6, CT(CTSpec{Commit: true, Table: 22, NAT: &NAT{Src: true, First: addr6, Last: last6}}))
	add("ct dnat 6", ip6, CT(CTSpec{Commit: true, Table: 22, NAT: &NAT{Dst: true, First: addr6, Last: last6, FirstPort: 80, LastPort: 81}}))
	add("ct clear", ip, CTClear(), Resubmit(30))
}

func mustParse(text string) []Action {
	all, err := parseActions(text)
	if err != nil {
		panic(err)
	}
	return all
}

func sampleGroups() []*Group {
	return []*Group{
		NewGroup(1, GroupAll, Bucket{Actions: []Action{Output(1)}}, Bucket{Actions: []Action{SetField(TunnelID, 7), SetIP(TunDst, addr4), Output(2)}}),
		NewGroup(2, GroupSelect, Bucket{Weight: 1, Actions: []Action{Output(1)}}, Bucket{Weight: 100, Actions: []Action{Output(2)}}),
		NewGroup(3, GroupIndirect, Bucket{Actions: []Action{Resubmit(5)}}),
		NewGroup(4, GroupFF, Bucket{WatchPort: 1, Actions: []Action{Output(1)}}, Bucket{WatchPort: 2, Actions: []Action{Output(2)}}),
		NewGroup(5, GroupAll),
		NewGroup(6, GroupAll, Bucket{Actions: []Action{ToGroup(1)}}, Bucket{}),
	}
}

func sampleMeters() []*Meter {
	return []*Meter{NewMeterPPS(1, 100, 20), NewMeterPPS(2, 1, 1), NewMeterKbps(262144, 10000, 800)}
}

// sampleFlows gives each sample a table or a priority of its own, so that a
// switch takes all of them.
func sampleFlows() map[string]*Flow {
	all := map[string]*Flow{}
	for name, m := range matchSamples() {
		all["match "+name] = &Flow{Table: 100, Match: m, Cookie: 0x504c000000000001}
	}
	for name, i := range instructionSamples() {
		all[name] = &Flow{Match: i.match, Instructions: i.instructions}
	}
	for i, name := range sortedKeys(all) {
		all[name].Priority = uint16(i + 1)
	}
	all["default priority"] = &Flow{Table: 3, Priority: DefaultPriority, Match: NewMatch(ARP)}
	all["default priority for all"] = &Flow{Priority: DefaultPriority}
	all["timeouts"] = &Flow{Table: 3, Priority: 1, IdleTimeout: 300, HardTimeout: 65535, Flags: SendFlowRem, Cookie: 1}
	return all
}

func sortedKeys[V any](m map[string]V) []string {
	var keys []string
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// addSamples pushes all that the package can make to the switch.
func (s *testSwitch) addSamples() map[string]*Flow {
	s.t.Helper()
	for _, m := range sampleMeters() {
		if _, _, err := s.request(func(b []byte, xid uint32) []byte { return AppendMeterMod(b, xid, CommandAdd, m) }); err != nil {
			s.t.Errorf("%s: %s", m, err)
		}
	}
	for _, g := range sampleGroups() {
		if _, _, err := s.request(func(b []byte, xid uint32) []byte { return AppendGroupMod(b, xid, CommandAdd, g) }); err != nil {
			s.t.Errorf("%s: %s", g, err)
		}
	}
	all := sampleFlows()
	for _, name := range sortedKeys(all) {
		if err := s.add(all[name]); err != nil {
			s.t.Errorf("%s: %s: %s", name, all[name], err)
		}
	}
	return all
}

func TestSwitchReturnsWhatWeSend(t *testing.T) {
	s := startSwitch(t)
	sent := s.addSamples()

	got := s.flows()
	for name, f := range sent {
		installed, ok := got[f.Key()]
		switch {
		case !ok:
			t.Errorf("%s: %s is not in the dump, under %x", name, f, f.Match.oxm)
		case !f.equal(&installed.Flow):
			t.Errorf("%s: sent %s\n got %s\n%x\n%x", name, f, &installed.Flow, f.Instructions.raw, installed.Instructions.raw)
		}
		delete(got, f.Key())
	}
	for _, f := range got {
		t.Errorf("the dump has %s, which we didn't send: %x", &f.Flow, f.Match.oxm)
	}

	groups := s.groups()
	for _, g := range sampleGroups() {
		if installed := groups[g.ID]; installed != *g {
			t.Errorf("sent %s\n got %s\n%x\n%x", g, &installed, g.Buckets, installed.Buckets)
		}
	}
	meters := s.meters()
	for _, m := range sampleMeters() {
		if installed := meters[m.ID]; installed != *m {
			t.Errorf("sent %s\n got %s", m, &installed)
		}
	}
}

func TestTextIsThatOfOvsOfctl(t *testing.T) {
	s := startSwitch(t)
	sent := s.addSamples()

	var want []string
	for _, f := range sent {
		want = append(want, f.String())
	}
	compareLines(t, s.ofctl("dump-flows"), want)
	want = nil
	for _, g := range sampleGroups() {
		want = append(want, g.String())
	}
	compareLines(t, s.ofctl("dump-groups"), want)
	want = nil
	for _, m := range sampleMeters() {
		want = append(want, strings.Split(m.String(), " type=")[0], "type="+strings.Split(m.String(), " type=")[1])
	}
	compareLines(t, s.ofctl("dump-meters"), want)
}

func compareLines(t *testing.T, switchSays, weSay []string) {
	t.Helper()
	for _, line := range weSay {
		if !slices.Contains(switchSays, line) {
			t.Errorf("we say, ovs-ofctl doesn't: %s", line)
		}
	}
	for _, line := range switchSays {
		if !slices.Contains(weSay, line) {
			t.Errorf("ovs-ofctl says, we don't:  %s", line)
		}
	}
}

func TestParseFlowReadsAllThatWePrint(t *testing.T) {
	for name, f := range sampleFlows() {
		got, err := ParseFlow(f.String())
		if err != nil {
			t.Errorf("%s: %s", name, err)
			continue
		}
		if got != *f {
			t.Errorf("%s: %s\nreads as %s\n%x %x\n%x %x", name, f, &got, f.Match.oxm, f.Instructions.raw, got.Match.oxm, got.Instructions.raw)
		}
	}
}
