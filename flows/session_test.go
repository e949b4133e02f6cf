package flows

import (
	"bytes"
	"slices"
	"testing"
)

func TestBundleInstallsFlowsAndGroupsAtOnce(t *testing.T) {
	s := startSwitch(t)
	const id, flags = 7, BundleAtomic | BundleOrdered
	group := NewGroup(9, GroupAll, Bucket{Actions: []Action{Output(1)}})
	flow := &Flow{Table: 4, Priority: 5, Match: NewMatch(IPv4, TCP, TCPDst.Is(80)), Instructions: Do(ToGroup(9))}
	message := AppendFlowMod(nil, 102, FlowAdd, &Flow{Table: 5})

	b := AppendBundleControl(nil, 100, id, BundleOpen, flags)
	b = AppendBundleGroupMod(b, 101, id, flags, CommandAdd, group)
	b = AppendBundleAdd(b, 102, id, flags, message)
	b = AppendBundleFlowMod(b, 103, id, flags, FlowAdd, flow)
	b = AppendBundleControl(b, 104, id, BundleClose, flags)
	b = AppendBundleControl(b, 105, id, BundleCommit, flags)
	s.send(b)
	for _, want := range []BundleControl{{id, BundleOpen + 1, flags}, {id, BundleClose + 1, flags}, {id, BundleCommit + 1, flags}} {
		h, body := s.receive()
		if err := refusal(h, body); err != nil {
			t.Fatalf("xid %d: %s", h.XID, err)
		}
		got, err := DecodeBundleControl(body)
		if err != nil || got.ID != want.ID || got.Type != want.Type {
			t.Fatalf("xid %d: got %+v %v, want %+v", h.XID, got, err, want)
		}
	}
	if got := s.flows(); len(got) != 2 || got[flow.Key()].Instructions != flow.Instructions {
		t.Errorf("after the commit the switch has %v", got)
	}
	if got := s.groups(); got[9] != *group {
		t.Errorf("after the commit the switch has %v", got)
	}
}

func TestModifyAndDelete(t *testing.T) {
	s := startSwitch(t)
	must := func(message func(b []byte, xid uint32) []byte) {
		t.Helper()
		if _, _, err := s.request(message); err != nil {
			t.Fatal(err)
		}
	}
	s.addSamples()
	meter, group := NewMeterPPS(1, 7, 3), NewGroup(1, GroupAll)
	flow := &Flow{Table: 3, Priority: 1, Instructions: Do(Output(2))}
	must(func(b []byte, xid uint32) []byte { return AppendMeterMod(b, xid, CommandModify, meter) })
	must(func(b []byte, xid uint32) []byte { return AppendGroupMod(b, xid, CommandModify, group) })
	must(func(b []byte, xid uint32) []byte { return AppendFlowMod(b, xid, FlowModifyStrict, flow) })
	if got := s.meters()[1]; got != *meter {
		t.Errorf("meter is %s, want %s", &got, meter)
	}
	if got := s.groups()[1]; got != *group {
		t.Errorf("group is %s, want %s", &got, group)
	}
	if got := s.flows()[flow.Key()]; got.Instructions != flow.Instructions || got.IdleTimeout != 300 {
		t.Errorf("flow is %s", &got.Flow)
	}

	must(func(b []byte, xid uint32) []byte { return AppendFlowMod(b, xid, FlowDeleteStrict, flow) })
	if _, ok := s.flows()[flow.Key()]; ok {
		t.Error("the deleted flow is still there")
	}
	must(func(b []byte, xid uint32) []byte { return AppendGroupMod(b, xid, CommandDelete, &Group{ID: 1}) })
	must(func(b []byte, xid uint32) []byte { return AppendGroupMod(b, xid, CommandDelete, &Group{ID: AllGroups}) })
	must(func(b []byte, xid uint32) []byte { return AppendMeterMod(b, xid, CommandDelete, &Meter{ID: 1}) })
	must(func(b []byte, xid uint32) []byte { return AppendMeterMod(b, xid, CommandDelete, &Meter{ID: AllMeters}) })
	must(func(b []byte, xid uint32) []byte { return AppendFlowMod(b, xid, FlowDelete, &Flow{Table: AllTables}) })
	if f, g, m := s.flows(), s.groups(), s.meters(); len(f)+len(g)+len(m) != 0 {
		t.Errorf("after deleting everything: %v %v %v", f, g, m)
	}
}

func TestDumpIsFilteredByTableAndCookie(t *testing.T) {
	s := startSwitch(t)
	for _, f := range []*Flow{{Table: 1, Cookie: 0x504c000000000001}, {Table: 1, Priority: 1, Cookie: 5}, {Table: 2, Cookie: 0x504c000000000002}} {
		if err := s.add(f); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		table        uint8
		cookie, mask uint64
		want         int
	}{{AllTables, 0, 0, 3}, {1, 0, 0, 2}, {AllTables, 0x504c << 48, 0xffff << 48, 2}, {2, 5, ^uint64(0), 0}} {
		_, body, err := s.request(func(b []byte, xid uint32) []byte {
			return AppendFlowStatsRequest(b, xid, c.table, c.cookie, c.mask)
		})
		if err != nil {
			t.Fatal(err)
		}
		m, err := DecodeMultipart(body)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := DecodeFlowStats(m.Body); err != nil || len(got) != c.want {
			t.Errorf("table %d cookie %#x/%#x: %d flows, want %d (%v)", c.table, c.cookie, c.mask, len(got), c.want, err)
		}
	}
}

func TestHandshakeMessages(t *testing.T) {
	s := startSwitch(t)
	_, body, err := s.request(AppendFeaturesRequest)
	if err != nil {
		t.Fatal(err)
	}
	if f, err := DecodeFeatures(body); err != nil || f.DatapathID == 0 || f.Tables < 254 {
		t.Errorf("features %+v: %v", f, err)
	}
	_, body, err = s.request(func(b []byte, xid uint32) []byte { return AppendRoleRequest(b, xid, RoleMaster, 42) })
	if err != nil {
		t.Fatal(err)
	}
	if role, generation, err := DecodeRole(body); err != nil || role != RoleMaster || generation != 42 {
		t.Errorf("role %d generation %d: %v", role, generation, err)
	}
	if _, _, err := s.request(func(b []byte, xid uint32) []byte { return AppendSetConfig(b, xid, 0, MaxLenAll) }); err != nil {
		t.Error(err)
	}
	h, body, err := s.request(func(b []byte, xid uint32) []byte { return AppendEchoRequest(b, xid, []byte("hello")) })
	if err != nil || h.Type != TypeEchoReply || string(body) != "hello" {
		t.Errorf("echo: %+v %q %v", h, body, err)
	}
	_, _, err = s.request(func(b []byte, xid uint32) []byte {
		return AppendFlowMod(b, xid, FlowAdd, &Flow{Match: NewMatch(TCPDst.Is(80))})
	})
	if err == nil {
		t.Error("the switch took tcp_dst without tcp")
	}
}

func TestPortsAndTables(t *testing.T) {
	s := startSwitch(t)
	var ports []Port
	for _, part := range s.multipart(MultipartPortDesc) {
		some, err := DecodePortDesc(part)
		if err != nil {
			t.Fatal(err)
		}
		ports = append(ports, some...)
	}
	slices.SortFunc(ports, func(a, b Port) int { return int(a.Number) - int(b.Number) })
	if len(ports) != 3 || ports[0].Name != "p1" || ports[0].Number != 1 || ports[2].Number != PortLocal || ports[0].MAC == [6]byte{} {
		t.Errorf("ports: %+v", ports)
	}
	if err := s.add(&Flow{Table: 7}); err != nil {
		t.Fatal(err)
	}
	var tables []TableStats
	for _, part := range s.multipart(MultipartTable) {
		some, err := DecodeTableStats(part)
		if err != nil {
			t.Fatal(err)
		}
		tables = append(tables, some...)
	}
	if len(tables) < 254 || tables[7].Table != 7 || tables[7].Active != 1 {
		t.Errorf("%d tables, the eighth is %+v", len(tables), tables[7])
	}

	s.askForAsync()
	s.run("ovs-vsctl", "--db=unix:"+s.path("db.sock"), "del-port", "p2")
	h, body := s.receive()
	got, err := DecodePortStatus(body)
	if h.Type != TypePortStatus || err != nil || got.Reason != PortDeleted || got.Port.Name != "p2" {
		t.Errorf("after del-port: type %d %+v %v", h.Type, got, err)
	}
}

func TestPacketInCarriesThePipelinesFields(t *testing.T) {
	s := startSwitch(t)
	s.askForAsync()
	f := &Flow{Table: 0, Cookie: 0x504c000000000099, Priority: 9, Match: NewMatch(InPort.Is(1)), Instructions: Do(
		SetField(Reg0, 1), SetField(Reg15, 0xffff0001), SetField(TunnelID, 77), SetField(PktMark, 3), WriteMetadata(0x1234567890, ^uint64(0)), Goto(12))}
	punt := &Flow{Table: 12, Cookie: 0x504c0000000000aa, Priority: 1, Instructions: Do(ToController(MaxLenAll))}
	for _, f := range []*Flow{f, punt} {
		if err := s.add(f); err != nil {
			t.Fatal(err)
		}
	}
	frame := bytes.Repeat([]byte{0x52}, 60)
	frame[12], frame[13] = 0x88, 0xcc
	s.send(AppendPacketOut(nil, s.nextXID(), 1, ActionList(Output(PortTable)), frame))
	h, body := s.receive()
	if err := refusal(h, body); err != nil {
		t.Fatal(err)
	}
	var p PacketIn
	if err := DecodePacketIn(body, &p); err != nil || h.Type != TypePacketIn {
		t.Fatalf("type %d: %v", h.Type, err)
	}
	want := PacketIn{Reason: ReasonAction, Table: 12, TotalLen: 60, Cookie: punt.Cookie, InPort: 1, Metadata: 0x1234567890, TunnelID: 77, PktMark: 3}
	want.Regs[0], want.Regs[15] = 1, 0xffff0001
	data := p.Data
	p.Data = nil
	if !bytes.Equal(data, frame) || !equalPacketIns(p, want) {
		t.Errorf("got %+v, want %+v, %x", p, want, data)
	}
}

func equalPacketIns(a, b PacketIn) bool {
	return a.Reason == b.Reason && a.Table == b.Table && a.TotalLen == b.TotalLen && a.Cookie == b.Cookie &&
		a.InPort == b.InPort && a.Metadata == b.Metadata && a.TunnelID == b.TunnelID && a.PktMark == b.PktMark && a.Regs == b.Regs
}

func TestFlowRemovedNamesTheFlow(t *testing.T) {
	s := startSwitch(t)
	s.askForAsync()
	f := &Flow{Table: 14, Priority: 77, Cookie: 0x504c05, Match: NewMatch(ARP, ARPTPA.IsIP(addr4)), HardTimeout: 1, Flags: SendFlowRem}
	if err := s.add(f); err != nil {
		t.Fatal(err)
	}
	h, body := s.receive() // within the connection's deadline
	got, err := DecodeFlowRemoved(body)
	if h.Type != TypeFlowRemoved || err != nil {
		t.Fatalf("type %d: %v", h.Type, err)
	}
	if got.Key() != f.Key() || got.Cookie != f.Cookie || got.Reason != RemovedHard || got.HardTimeout != 1 || got.Duration < 500e6 {
		t.Errorf("got %+v for %s", got, f)
	}
}
