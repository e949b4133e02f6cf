package flows

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

func walkerOf(t *testing.T, entries ...any) *Walker {
	t.Helper()
	return NewWalker(setOf(t, entries...))
}

func TestWalk(t *testing.T) {
	arp := NewPacket(InPort.Is(1), ARP, ARPOp.Is(1), EthSrc.IsMAC(mac))
	udp := NewPacket(InPort.Is(1), IPv4, UDP, UDPDst.Is(67), IPTTL.Is(1), EthSrc.IsMAC(mac))
	tagged := NewPacket(InPort.Is(2), VLANVID.Is(VLANPresent|5), VLANPCP.Is(3))
	for _, c := range []struct {
		what    string
		packet  Packet
		entries []any
		tables  []uint8
		sent    []string
		wantErr string
	}{
		{what: "what matches nothing is dropped", packet: arp,
			entries: []any{"udp actions=output:2"}, tables: []uint8{0}},
		{what: "the highest priority wins", packet: arp,
			entries: []any{"priority=1,arp actions=output:2", "priority=2,arp actions=output:3"}, tables: []uint8{0},
			sent: []string{"3 in_port=1"}},
		{what: "goto comes after the actions, resubmit in between", packet: arp,
			entries: []any{"arp actions=load:5->NXM_NX_REG0[0..15],resubmit(,9),move:NXM_NX_REG1[]->NXM_NX_REG2[],goto_table:5",
				"table=9,reg0=0x5/0xffff actions=set_field:0x7->reg1", "table=5,reg2=0x7 actions=output:NXM_NX_REG2[]"},
			tables: []uint8{0, 9, 5}, sent: []string{"7 reg0=0x5,reg1=0x7,reg2=0x7,in_port=1"}},
		{what: "each bucket has a copy", packet: arp,
			entries: []any{"arp actions=group:1,output:4", NewGroup(1, GroupAll,
				Bucket{Actions: []Action{SetField(Reg0, 1), Output(2)}}, Bucket{Actions: []Action{Output(3)}})},
			tables: []uint8{0}, sent: []string{"2 reg0=0x1,in_port=1", "3 in_port=1", "4 in_port=1"}},
		{what: "an indirect group has one bucket", packet: arp,
			entries: []any{"arp actions=group:1", NewGroup(1, GroupIndirect, Bucket{Actions: []Action{Resubmit(3)}}), "table=3 actions=output:2"},
			tables:  []uint8{0, 3}, sent: []string{"2 in_port=1"}},
		{what: "a packet does not go back where it came from, but by IN_PORT", packet: arp,
			entries: []any{"arp actions=output:1,IN_PORT"}, tables: []uint8{0}, sent: []string{"1 in_port=1"}},
		{what: "with in_port 0 it does", packet: arp,
			entries: []any{flow0(SetField(InPort, 0), Output(1))}, tables: []uint8{0}, sent: []string{"1 "}},
		{what: "tags are pushed and popped", packet: tagged,
			entries: []any{"dl_vlan=5 actions=push_vlan:0x8100,set_field:4103->vlan_vid,output:3,pop_vlan,output:4,pop_vlan,output:5"},
			tables:  []uint8{0}, sent: []string{"3 in_port=2,dl_vlan=7", "4 in_port=2,dl_vlan=5,dl_vlan_pcp=3", "5 in_port=2"}},
		{what: "a TTL that runs out goes to the controller and ends the list", packet: udp,
			entries: []any{"ip actions=resubmit(,1),output:3", "table=1,ip actions=dec_ttl,output:2"}, tables: []uint8{0, 1},
			sent: []string{"CONTROLLER ", "3 "}},
		{what: "a packet is longer or not", packet: arp,
			entries: []any{"arp actions=check_pkt_larger(99)->NXM_NX_REG0[3],check_pkt_larger(100)->NXM_NX_REG0[4],output:3"}, tables: []uint8{0},
			sent: []string{"3 reg0=0x8,in_port=1"}},
		{what: "a clone's changes are its own", packet: arp,
			entries: []any{"arp actions=clone(set_field:0x1->reg0,output:2),output:3"}, tables: []uint8{0},
			sent: []string{"2 reg0=0x1,in_port=1", "3 in_port=1"}},
		{what: "metadata is written under its mask", packet: arp,
			entries: []any{"arp actions=set_field:0xf0->metadata,write_metadata:0x5/0xf,goto_table:2", "table=2,metadata=0xf5 actions=output:2"},
			tables:  []uint8{0, 2}, sent: []string{"2 metadata=0xf5,in_port=1"}},
		{what: "wide registers are four registers", packet: arp,
			entries: []any{"arp actions=set_field:0x1000000020000000300000004->xxreg1,move:NXM_NX_XXREG1[32..95]->NXM_NX_XXREG0[0..63],output:2"},
			tables:  []uint8{0}, sent: []string{"2 reg2=0x2,reg3=0x3,reg4=0x1,reg5=0x2,reg6=0x3,reg7=0x4,in_port=1"}},
		{what: "a packet comes back from conntrack with its state", packet: udp,
			entries: []any{"ip actions=ct(zone=7,table=2)", "table=2,ct_state=+trk+est,ct_zone=7,ip actions=ct_clear,output:2"},
			tables:  []uint8{0, 2}, sent: []string{"2 "}},
		{what: "a source that is translated in passing is seen outside and after ct only", packet: NewPacket(InPort.Is(1), IPv4, IPv4Src.IsIP(netip.MustParseAddr("10.0.0.1"))),
			entries: []any{"ip actions=ct(commit,zone=7,nat(src=203.0.113.9)),output:2,goto_table:2",
				"table=2,ip,nw_src=10.0.0.1 actions=ct(commit,zone=7,nat(dst=10.0.0.2),table=3)",
				"table=3,ct_state=+trk+est,ip,nw_src=203.0.113.9,nw_dst=10.0.0.2 actions=ct_clear,output:3"},
			tables: []uint8{0, 2, 3}, sent: []string{"2 in_port=1,nw_src=203.0.113.9", "3 in_port=1,nw_src=203.0.113.9,nw_dst=10.0.0.2"}},
		{what: "the controller may have it too", packet: arp,
			entries: []any{"arp actions=CONTROLLER:65535,NORMAL"}, tables: []uint8{0}, sent: []string{"CONTROLLER in_port=1", "NORMAL in_port=1"}},
		{what: "two flows of one priority are a mistake", packet: arp,
			entries: []any{"priority=5,arp actions=output:2", "priority=5,in_port=1 actions=drop"}, wantErr: "two flows of one priority"},
		{what: "a loop is a mistake", packet: arp,
			entries: []any{"arp actions=resubmit(,0)"}, wantErr: "a loop"},
		{what: "a group that is not there is a mistake", packet: arp,
			entries: []any{"arp actions=group:5"}, wantErr: "no group 5"},
		{what: "what is not simulated is told", packet: arp,
			entries: []any{"arp actions=write_actions(output:2)"}, wantErr: "not simulated"},
	} {
		w := walkerOf(t, c.entries...)
		w.ConnState, w.Length = 0x22, 100
		trace, err := w.Walk(c.packet)
		if c.wantErr != "" {
			if err == nil || !strings.Contains(err.Error(), c.wantErr) {
				t.Errorf("%s: got %v, want %q", c.what, err, c.wantErr)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %s", c.what, err)
		}
		var sent []string
		for _, s := range trace.Sent {
			port, fields, _ := strings.Cut(formatPort(s.Port)+" "+withoutHeaders(s.Packet), "\n")
			sent = append(sent, port+fields)
		}
		if !slices.Equal(trace.Tables(), c.tables) || !slices.Equal(sent, c.sent) {
			t.Errorf("%s: tables %v sent %q, want %v %q\n%s", c.what, trace.Tables(), sent, c.tables, c.sent, &trace)
		}
	}
}

// An error is judged by the connection that it is about, in either direction.
func TestWalkOfWhatIsRelatedHasTheTupleOfItsConnection(t *testing.T) {
	a, b := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")
	began := NewPacket(IPv4, UDP, IPv4Src.IsIP(a), IPv4Dst.IsIP(b), UDPSrc.Is(4000), UDPDst.Is(53))
	w := walkerOf(t, "ip actions=ct(zone=7,table=2)",
		"table=2,ct_state=+rel+trk,ct_nw_src=10.0.0.1,ct_nw_dst=10.0.0.2,ct_nw_proto=17,ct_tp_src=4000,ct_tp_dst=53,ip actions=output:2")
	for _, c := range []struct {
		state    uint64
		src, dst netip.Addr
		about    *Packet
		passes   bool
	}{{0x24, a, b, &began, true}, {0x2c, b, a, &began, true}, {0x2c, b, a, nil, false}} {
		w.ConnState, w.Began = c.state, c.about
		trace, err := w.Walk(NewPacket(InPort.Is(1), IPv4, ICMP, IPv4Src.IsIP(c.src), IPv4Dst.IsIP(c.dst), ICMPType.Is(3), ICMPCode.Is(3)))
		if err != nil || (len(trace.Sent) == 1) != c.passes {
			t.Errorf("an error from %s, state %#x, about a connection %t: %v\n%s", c.src, c.state, c.about != nil, err, &trace)
		}
	}
}

// flow0 is a flow of table 0 as text.
func flow0(actions ...Action) string { return (&Flow{Instructions: Do(actions...)}).String() }

// withoutHeaders leaves out what the tests' packets have in common.
func withoutHeaders(p Packet) string {
	if !p.Get(IPTTL).isZero() {
		return ""
	}
	for _, f := range []Field{EthType, EthSrc, ARPOp} {
		p.fields[f] = Value{}
	}
	return p.String()
}

// TestWalkerAgreesWithOpenVSwitch sends random packets through random tables,
// here and in ofproto/trace of a real switch.
func TestWalkerAgreesWithOpenVSwitch(t *testing.T) {
	const rounds, packets = 25, 12
	s := startSwitch(t)
	ports := s.datapathPorts()
	random := rand.New(rand.NewPCG(1, 2))
	seen := map[int]int{} // by number of tables
	for round := range rounds {
		set := randomSet(random)
		s.replace(set)
		w := NewWalker(set)
		for range packets {
			p := randomPacket(random)
			want, err := w.Walk(p)
			if err != nil {
				t.Fatalf("round %d: %s\n%s", round, err, set.Text(nil))
			}
			out := s.run("ovs-appctl", "-t", s.path("ovs-vswitchd.ctl"), "ofproto/trace", "br0",
				strings.ReplaceAll(p.String(), ",tp_", ",udp_"))
			tables, sent := readTrace(out, ports)
			var wantSent []string
			for _, one := range want.Sent {
				wantSent = append(wantSent, formatPort(one.Port))
			}
			slices.Sort(sent)
			slices.Sort(wantSent)
			if !slices.Equal(tables, want.Tables()) || !slices.Equal(sent, wantSent) {
				t.Fatalf("round %d: %s\nwalker: tables %v, sent to %v\nswitch: tables %v, sent to %v\n%s\n%s",
					round, p, want.Tables(), wantSent, tables, sent, &want, out+set.Text(nil))
			}
			seen[len(tables)]++
		}
	}
	if len(seen) < 4 {
		t.Errorf("the packets of the test go through too few tables: %v", seen)
	}
}

// datapathPorts maps the datapath's port numbers to those of OpenFlow.
func (s *testSwitch) datapathPorts() map[string]string {
	s.t.Helper()
	out := s.run("ovs-appctl", "-t", s.path("ovs-vswitchd.ctl"), "dpif/show")
	ports := map[string]string{}
	for _, m := range regexp.MustCompile(`(?m)^\s+\S+ (\d+)/(\d+): `).FindAllStringSubmatch(out, -1) {
		ports[m[2]] = m[1]
		if m[1] == "65534" {
			ports[m[2]] = formatPort(PortLocal)
		}
	}
	return ports
}

var (
	traceTable  = regexp.MustCompile(`(?m)^ *(\d+)\. `)
	traceResult = regexp.MustCompile(`(?m)^Datapath actions: (.*)$`)
	traceSet    = regexp.MustCompile(`set\([^()]*(\([^()]*\))*[^()]*\)|(push_vlan|userspace)\([^()]*(\([^()]*(\([^()]*\))*\))*[^()]*\)`)
)

// readTrace finds the tables and where the packet is sent.
func readTrace(out string, ports map[string]string) (tables []uint8, sent []string) {
	for _, m := range traceTable.FindAllStringSubmatch(out, -1) {
		n, _ := strconv.ParseUint(m[1], 10, 8)
		tables = append(tables, uint8(n))
	}
	actions := traceResult.FindStringSubmatch(out)[1]
	for range strings.Count(actions, "userspace(") {
		sent = append(sent, formatPort(PortController))
	}
	actions = traceSet.ReplaceAllString(actions, "x")
	for _, word := range strings.FieldsFunc(actions, func(r rune) bool { return strings.ContainsRune(",() ", r) }) {
		if port, ok := ports[word]; ok {
			sent = append(sent, port)
		}
	}
	return tables, sent
}

// replace makes the switch have the set and nothing else.
func (s *testSwitch) replace(set *Set) {
	s.t.Helper()
	var b bytes.Buffer
	b.Write(AppendFlowMod(nil, s.nextXID(), FlowDelete, &Flow{Table: AllTables}))
	b.Write(AppendGroupMod(nil, s.nextXID(), CommandDelete, &Group{ID: AllGroups}))
	delta := Diff(set, NewSet(), nil, nil, nil)
	for _, g := range delta.GroupAdds {
		b.Write(AppendGroupMod(nil, s.nextXID(), CommandAdd, g))
	}
	for _, f := range delta.FlowAdds {
		b.Write(AppendFlowMod(nil, s.nextXID(), FlowAdd, f))
	}
	barrier := s.nextXID()
	s.send(AppendBarrierRequest(b.Bytes(), barrier))
	for {
		h, body := s.receive()
		if err := refusal(h, body); err != nil {
			s.t.Fatalf("xid %d: %s\n%s", h.XID, err, set.Text(nil))
		}
		if h.XID == barrier {
			return
		}
	}
}

// Random tables are dense enough in values for packets to meet several of them.
func randomSet(r *rand.Rand) *Set {
	set := NewSet()
	for id := uint32(1); id <= 3; id++ {
		var buckets []Bucket
		for range 1 + r.IntN(3) {
			buckets = append(buckets, randomBucket(r))
		}
		set.AddGroup(NewGroup(id, GroupAll, buckets...))
	}
	priority := uint16(0)
	for table := range uint8(10) {
		for range 6 {
			priority++
			terms := append(randomTerms(r), IPv4)
			actions := randomActions(r, table, 10)
			if next := table + 1 + uint8(r.IntN(4)); next < 10 {
				actions = append(actions, Goto(next))
			}
			set.AddFlow(&Flow{Table: table, Priority: priority, Match: NewMatch(terms...), Instructions: Do(actions...)})
		}
	}
	return set
}

func randomBucket(r *rand.Rand) Bucket {
	actions := append(randomActions(r, 8, 10), Output(uint32(1+r.IntN(2))))
	if r.IntN(4) == 0 {
		actions = append(actions, PushVLAN())
	}
	actions = slices.DeleteFunc(actions, func(a Action) bool { return a.kind == KindGroup })
	var set []Action
	for _, i := range actionSet(actions) {
		set = append(set, actions[i])
	}
	return Bucket{Actions: set}
}

func randomTerms(r *rand.Rand) []Term {
	var terms []Term
	for _, t := range []Term{
		InPort.Is(uint64(1 + r.IntN(2))),
		Reg0.Masked(uint64(r.IntN(4)), uint64(r.IntN(4))),
		Reg15.Is(uint64(r.IntN(2))),
		XXReg3.Masked(uint64(r.IntN(2)), 1),
		Metadata.Masked(uint64(r.IntN(4))<<30, uint64(r.IntN(4))<<30),
		IPv4Src.Masked(uint64(10<<24|r.IntN(4)), uint64(0xff000000|r.IntN(4))),
		EthDst.Masked(uint64(r.IntN(2)), 1),
		VLANVID.Masked(uint64(r.IntN(2))<<12, VLANPresent),
		PktMark.Is(uint64(r.IntN(2))),
		TunnelID.Masked(uint64(r.IntN(2)), 1),
	} {
		if r.IntN(5) == 0 && !slices.ContainsFunc(terms, func(u Term) bool { return u.Field == Reg15 && t.Field == XXReg3 }) {
			terms = append(terms, t)
		}
	}
	return terms
}

func randomActions(r *rand.Rand, table, tables uint8) []Action {
	var all []Action
	for range r.IntN(5) {
		choices := []Action{
			Output(uint32(1 + r.IntN(2))),
			Output(PortInPort),
			Output(PortLocal),
			ToController(MaxLenAll),
			SetField(Reg0, uint64(r.IntN(4))),
			SetMasked(Reg0, uint64(r.IntN(4)), uint64(1+r.IntN(3))),
			SetField(XXReg3, uint64(r.IntN(4))),
			SetMasked(Metadata, uint64(r.IntN(4))<<30, 3<<30),
			MoveBits(IPv4Src, 0, Reg0, 0, 2),
			MoveBits(Reg0, 0, Metadata, 30, 2),
			MoveBits(Reg15, 0, EthDst, 0, 1),
			Move(EthSrc, EthDst),
			SetField(IPv4Src, uint64(10<<24|r.IntN(4))),
			SetField(InPort, uint64(r.IntN(3))),
			SetField(PktMark, uint64(r.IntN(2))),
			SetField(TunnelID, uint64(r.IntN(2))),
			DecTTL(),
			CTClear(),
			Clone(SetField(Reg0, uint64(r.IntN(4))), Output(uint32(1+r.IntN(2)))),
		}
		if table+1 < tables { // a bucket may resubmit to the last one
			choices = append(choices, ToGroup(uint32(1+r.IntN(3))))
		}
		if table == 0 && len(all) == 0 { // a switch takes two tags at the most
			choices = append(choices, PushVLAN())
		}
		if table+1 < tables {
			choices = append(choices, Resubmit(table+1+uint8(r.IntN(int(tables-table-1)))), Clone(Resubmit(tables-1)))
		}
		a := choices[r.IntN(len(choices))]
		all = append(all, a)
	}
	return all
}

func randomPacket(r *rand.Rand) Packet {
	return NewPacket(IPv4, UDP, InPort.Is(uint64(1+r.IntN(2))), EthSrc.Is(0x020000000001), EthDst.Is(0x020000000002+uint64(r.IntN(2))),
		IPv4Src.Is(uint64(10<<24|r.IntN(4))), IPv4Dst.Is(10<<24|99), IPTTL.Is(uint64(1+r.IntN(3))), UDPSrc.Is(1), UDPDst.Is(2))
}

func ExampleWalker() {
	set := NewSet()
	set.AddFlow(&Flow{Priority: 1, Match: NewMatch(InPort.Is(1)), Instructions: Do(SetField(Reg0, 7), Goto(10))})
	set.AddFlow(&Flow{Table: 10, Match: NewMatch(Reg0.Is(7)), Instructions: Do(Output(2))})
	trace, err := NewWalker(set).Walk(NewPacket(InPort.Is(1), ARP))
	fmt.Print(&trace)
	if err != nil {
		fmt.Println(err)
	}
	// Output:
	// priority=1,in_port=1 actions=set_field:0x7->reg0,goto_table:10
	// table=10, priority=0,reg0=0x7 actions=output:2
	// → 2: arp,reg0=0x7,in_port=1
}
