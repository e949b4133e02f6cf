package flows

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
)

var benchmarkFlow = Flow{
	Table: 60, Priority: 100, Cookie: 0x504c000000000001,
	Match:        NewMatch(Metadata.Masked(42, 0xffffffff), EthDst.IsMAC(mac), IPv4),
	Instructions: Do(SetField(Reg1, 7), SetField(TunnelID, 9), SetIP(TunDst, addr4), Goto(90)),
}

func TestAppendAllocatesNothing(t *testing.T) {
	b := make([]byte, 0, 4096)
	group, meter := sampleGroups()[0], sampleMeters()[0]
	actions := ActionList(SetField(Reg0, 1), Output(PortTable))
	data := make([]byte, 100)
	for name, f := range map[string]func(){
		"flow mod":           func() { AppendFlowMod(b, 1, FlowAdd, &benchmarkFlow) },
		"group mod":          func() { AppendGroupMod(b, 1, CommandAdd, group) },
		"meter mod":          func() { AppendMeterMod(b, 1, CommandAdd, meter) },
		"packet out":         func() { AppendPacketOut(b, 1, PortController, actions, data) },
		"bundled flow mod":   func() { AppendBundleFlowMod(b, 1, 2, BundleAtomic, FlowAdd, &benchmarkFlow) },
		"bundled group mod":  func() { AppendBundleGroupMod(b, 1, 2, BundleAtomic, CommandAdd, group) },
		"bundle add":         func() { AppendBundleAdd(b, 1, 2, BundleAtomic, data) },
		"bundle control":     func() { AppendBundleControl(b, 1, 2, BundleOpen, BundleAtomic) },
		"flow stats request": func() { AppendFlowStatsRequest(b, 1, AllTables, 0, 0) },
		"multipart request":  func() { AppendMultipartRequest(b, 1, MultipartMeterConfig) },
		"hello":              func() { AppendHello(b, 1) },
		"echo":               func() { AppendEchoReply(b, 1, data) },
		"barrier":            func() { AppendBarrierRequest(b, 1) },
		"role":               func() { AppendRoleRequest(b, 1, RoleMaster, 2) },
		"config":             func() { AppendSetConfig(b, 1, 0, MaxLenAll) },
	} {
		if n := testing.AllocsPerRun(100, f); n != 0 {
			t.Errorf("%s allocates %v times", name, n)
		}
	}
}

func TestDecodePacketInAllocatesNothing(t *testing.T) {
	body := make([]byte, 16, 200)
	body = append(appendMatch(body, NewMatch(InPort.Is(1), Metadata.Is(5), Reg0.Is(1))), 0, 0, 1, 2, 3)
	var p PacketIn
	n := testing.AllocsPerRun(100, func() {
		if err := DecodePacketIn(body, &p); err != nil {
			t.Fatal(err)
		}
	})
	if n != 0 || p.Metadata != 5 {
		t.Errorf("%v allocations, %+v", n, p)
	}
}

func TestMistakesPanicAndSayWhat(t *testing.T) {
	for _, c := range []struct {
		want string
		f    func()
	}{
		{"two terms for ip_src", func() {
			NewMatch(IPv4Src.IsIP(addr4), IPv4Src.InPrefix(netip.MustParsePrefix("10.0.0.0/8")))
		}},
		{"nw_proto has 8 bits", func() { NewMatch(IPProto.Is(256)) }},
		{"nw_proto can't be matched by mask", func() { NewMatch(IPProto.Masked(1, 1)) }},
		{"can't hold the address", func() { IPv4Src.IsIP(addr6) }},
		{"can't hold the address", func() { SetIP(IPv6Src, netip.Addr{}) }},
		{"two instructions goto_table:2", func() { Do(Goto(1), Goto(2)) }},
		{"goto_table:1 is an instruction", func() { ActionList(Goto(1)) }},
		{"goto_table:1 is an instruction", func() { Do(Clone(Goto(1))) }},
		{"reg0 has 32 bits", func() { Do(SetField(Reg0, 1<<32)) }},
		{"reg1 has 32 bits, not 20 from bit 16 on", func() { Do(MoveBits(Reg0, 0, Reg1, 16, 20)) }},
		{"no field 0", func() { Do(SetField(0, 1)) }},
		{"action of no kind", func() { Do(Action{}) }},
		{"conjunction 1: clause 3 of 2", func() { Do(Conjunction(1, 3, 2)) }},
		{"both source and destination", func() { Do(CT(CTSpec{Table: TableNone, NAT: &NAT{Src: true, Dst: true}})) }},
		{"too many", func() { Do(make100000()...) }},
		{"not in its order", func() { NewGroup(5, GroupAll, Bucket{Actions: []Action{Output(1), Output(2)}}) }},
		{"not in its order", func() { NewGroup(5, GroupAll, Bucket{Actions: []Action{Output(1), SetField(Reg0, 1)}}) }},
		{"not in its order", func() { NewGroup(5, GroupAll, Bucket{Actions: []Action{Clone(Output(1))}}) }},
		{"not in its order", func() { NewGroup(5, GroupAll, Bucket{Actions: []Action{OutputReg(Reg0)}}) }},
		{"group 5", func() { NewGroup(5, GroupAll, Bucket{Actions: []Action{Goto(1)}}) }},
	} {
		func() {
			defer func() {
				if r := recover(); r == nil || !strings.Contains(fmt.Sprint(r), c.want) {
					t.Errorf("got %v, want %q", r, c.want)
				}
			}()
			c.f()
		}()
	}
}

func make100000() []Action {
	all := make([]Action, 6000)
	for i := range all {
		all[i] = Output(1)
	}
	return all
}

func BenchmarkAppendFlowMod(b *testing.B) {
	buf := make([]byte, 0, 4096)
	b.ReportAllocs()
	for b.Loop() {
		AppendFlowMod(buf, 1, FlowAdd, &benchmarkFlow)
	}
}

func BenchmarkNewFlow(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		f := Flow{
			Match:        NewMatch(Metadata.Masked(42, 0xffffffff), EthDst.IsMAC(mac), IPv4),
			Instructions: Do(SetField(Reg1, 7), SetField(TunnelID, 9), SetIP(TunDst, addr4), Goto(90)),
		}
		_ = f
	}
}

func BenchmarkDecodeFlowStats(b *testing.B) {
	body := flowStatsBody(&benchmarkFlow)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := DecodeFlowStats(body); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDiffOfARightSwitch(b *testing.B) {
	desired, installed := NewSet(), NewSet()
	for i := range 50000 {
		f := benchmarkFlow
		f.Match = NewMatch(Metadata.Is(uint64(i)))
		desired.AddFlow(&f)
		g := f
		installed.AddFlow(&g)
	}
	b.ReportAllocs()
	for b.Loop() {
		if d := Diff(desired, installed, nil, nil, nil); !d.Empty() {
			b.Fatal(d)
		}
	}
}
