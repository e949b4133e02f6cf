package flows

import (
	"bytes"
	"slices"
	"testing"
)

// flowStatsBody is a part of a dump with one flow.
func flowStatsBody(f *Flow) []byte {
	b := []byte{0, 0, f.Table, 0, 0, 0, 0, 1, 0, 0, 0, 2}
	b = be.AppendUint16(b, f.Priority)
	b = be.AppendUint16(b, f.IdleTimeout)
	b = be.AppendUint16(b, f.HardTimeout)
	b = be.AppendUint16(b, f.Flags)
	b = be.AppendUint64(append(b, 0, 0, 0, 0), f.Cookie)
	b = be.AppendUint64(b, 3)
	b = be.AppendUint64(b, 4)
	b = append(appendMatch(b, f.Match), f.Instructions.raw...)
	be.PutUint16(b, uint16(len(b)))
	return b
}

func FuzzDecodeFlowStats(f *testing.F) {
	for _, flow := range sampleFlows() {
		f.Add(flowStatsBody(flow))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		all, err := DecodeFlowStats(body)
		if err != nil {
			return
		}
		for _, s := range all {
			_ = s.String()
			if isCanonical(&s.Flow) && s.Match.Check() == nil {
				checkReadsBack(t, &s.Flow)
			}
		}
	})
}

// isCanonical: switches that do not are not Open vSwitch, and their flows are
// repaired.
func isCanonical(f *Flow) bool {
	instructions, err1 := newInstructions(f.Instructions.Actions())
	match, err2 := newMatch(slices.Collect(f.Match.Terms()))
	return f.Flags < 32 && err1 == nil && err2 == nil && instructions == f.Instructions && match == f.Match
}

// checkReadsBack: our text of a flow reads as that flow.
func checkReadsBack(t *testing.T, f *Flow) {
	t.Helper()
	again, err := ParseFlow(f.String())
	if err != nil {
		t.Fatal(err)
	}
	if again != *f {
		t.Errorf("%s\nreads as\n%s\n%x\n%x", f, &again, f.Instructions.raw, again.Instructions.raw)
	}
}

func FuzzParseFlow(f *testing.F) {
	for _, flow := range sampleFlows() {
		f.Add(flow.String())
	}
	f.Add(" cookie=0x0, duration=12.5s, table=3, n_packets=0, n_bytes=0, idle_age=4, tcp,tp_dst=80 actions=mod_dl_src:00:00:00:00:00:01,NORMAL")
	f.Add("dl_vlan=5 actions=raw(ffff001000002320000100000000000a),raw_instruction(000600080000000a)")
	f.Fuzz(func(t *testing.T, text string) {
		flow, err := ParseFlow(text)
		if err != nil {
			return
		}
		again, err := ParseFlow(flow.String())
		if err != nil {
			t.Fatalf("%q reads as %q, which does not read: %s", text, flow.String(), err)
		}
		if again.String() != flow.String() {
			t.Errorf("%q reads as %q, which reads as %q", text, flow.String(), again.String())
		}
		stats, err := DecodeFlowStats(flowStatsBody(&flow))
		if err != nil || len(stats) != 1 || stats[0].Match != flow.Match || stats[0].Instructions != flow.Instructions {
			t.Errorf("%q is not decoded as it is encoded: %v", text, err)
		}
	})
}

func FuzzDecodeGroupDesc(f *testing.F) {
	for _, g := range sampleGroups() {
		b := be.AppendUint32([]byte{0, 0, g.Type, 0}, g.ID)
		b = append(b, g.Buckets...)
		be.PutUint16(b, uint16(len(b)))
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		all, err := DecodeGroupDesc(body)
		for _, g := range all {
			_ = g.String()
		}
		if err == nil && len(body) > 0 && len(all) == 0 {
			t.Error("no group and no error")
		}
	})
}

func FuzzDecodeMeterConfig(f *testing.F) {
	for _, m := range sampleMeters() {
		b := be.AppendUint16([]byte{0, 0}, m.Flags)
		b = append(be.AppendUint32(b, m.ID), m.Bands...)
		be.PutUint16(b, uint16(len(b)))
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		all, err := DecodeMeterConfig(body)
		for _, m := range all {
			_ = m.String()
		}
		if err == nil && len(body) > 0 && len(all) == 0 {
			t.Error("no meter and no error")
		}
	})
}

func FuzzDecodePacketIn(f *testing.F) {
	for _, m := range matchSamples() {
		b := []byte{0xff, 0xff, 0xff, 0xff, 0, 4, 1, 2, 0, 0, 0, 0, 0, 0, 0, 9}
		f.Add(append(appendMatch(b, m), 0, 0, 1, 2, 3, 4))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		var p PacketIn
		if err := DecodePacketIn(body, &p); err == nil && !bytes.HasSuffix(body, p.Data) {
			t.Errorf("data %x is not the end of %x", p.Data, body)
		}
	})
}

// FuzzDecodeSmallMessages has all decoders whose bodies are of fixed form.
func FuzzDecodeSmallMessages(f *testing.F) {
	hello := AppendHello(nil, 1)
	f.Add(hello)
	f.Add(hello[HeaderSize:])
	f.Add(AppendBundleControl(nil, 1, 2, BundleOpen, BundleAtomic)[HeaderSize:])
	f.Add(AppendRoleRequest(nil, 1, RoleMaster, 2)[HeaderSize:])
	f.Add(AppendMultipartRequest(nil, 1, MultipartTable)[HeaderSize:])
	f.Add([]byte{0xff, 0xff, 0, 1, 0x4f, 0x4e, 0x46, 0, 1, 2})
	f.Add(make([]byte, 72))
	f.Add(appendMatch(make([]byte, 40), NewMatch(IPv4, TCP, TCPDst.Is(80))))
	f.Fuzz(func(t *testing.T, body []byte) {
		if h, err := DecodeHeader(body); err == nil && h.Length < HeaderSize {
			t.Errorf("header %+v", h)
		}
		DecodeHello(body)
		DecodeError(body)
		DecodeFeatures(body)
		DecodeRole(body)
		DecodeBundleControl(body)
		DecodeMultipart(body)
		DecodeTableStats(body)
		DecodePortDesc(body)
		DecodePortStatus(body)
		if r, err := DecodeFlowRemoved(body); err == nil {
			_ = r.Match.String()
		}
	})
}
