package flows

import (
	"slices"
	"strings"
	"testing"
)

// edited is a copy of b with some bytes changed.
func edited(b []byte, at int, with ...byte) []byte {
	b = slices.Clone(b)
	copy(b[at:], with)
	return b
}

func TestMalformedBodiesAreErrors(t *testing.T) {
	flow := flowStatsBody(&Flow{Match: NewMatch(IPv4), Instructions: Do(Output(1))}) // match at 48, instructions at 64, actions at 72
	group := append([]byte{0, 40, 0, 0, 0, 0, 0, 1}, NewGroup(1, GroupAll, Bucket{Actions: []Action{Output(1)}}).Buckets...)
	meter := append([]byte{0, 24, 0, 2, 0, 0, 0, 1}, NewMeterPPS(1, 2, 3).Bands...)
	packetIn := append(appendMatch(make([]byte, 16), NewMatch(InPort.Is(1))), 0, 0)
	flowRemoved := appendMatch(make([]byte, 40), NewMatch(IPv4))
	decoders := map[string]func([]byte) error{
		"header":         func(b []byte) error { _, err := DecodeHeader(b); return err },
		"hello":          func(b []byte) error { _, err := DecodeHello(b); return err },
		"error":          func(b []byte) error { _, err := DecodeError(b); return err },
		"features":       func(b []byte) error { _, err := DecodeFeatures(b); return err },
		"role":           func(b []byte) error { _, _, err := DecodeRole(b); return err },
		"bundle control": func(b []byte) error { _, err := DecodeBundleControl(b); return err },
		"multipart":      func(b []byte) error { _, err := DecodeMultipart(b); return err },
		"flow stats":     func(b []byte) error { _, err := DecodeFlowStats(b); return err },
		"group":          func(b []byte) error { _, err := DecodeGroupDesc(b); return err },
		"meter":          func(b []byte) error { _, err := DecodeMeterConfig(b); return err },
		"table":          func(b []byte) error { _, err := DecodeTableStats(b); return err },
		"port":           func(b []byte) error { _, err := DecodePortDesc(b); return err },
		"port status":    func(b []byte) error { _, err := DecodePortStatus(b); return err },
		"packet-in":      func(b []byte) error { return DecodePacketIn(b, &PacketIn{}) },
		"flow-removed":   func(b []byte) error { _, err := DecodeFlowRemoved(b); return err },
	}
	for name, good := range map[string][]byte{"flow stats": flow, "group": group, "meter": meter, "packet-in": packetIn, "flow-removed": flowRemoved} {
		if err := decoders[name](good); err != nil {
			t.Fatalf("%s: %s", name, err)
		}
		for n := 1; n < len(good); n++ {
			if err := decoders[name](good[:n]); err == nil {
				t.Errorf("%s: the first %d of %d bytes are no error", name, n, len(good))
			}
		}
	}
	for _, c := range []struct {
		decoder string
		body    []byte
		want    string
	}{
		{"header", []byte{4, 0, 0, 7, 0, 0, 0, 0}, "length of 7"},
		{"header", []byte{4, 0, 0}, "shorter than a header"},
		{"hello", []byte{0, 1, 0, 3}, "says 3 of 4"},
		{"hello", []byte{0, 1}, "hello element"},
		{"error", []byte{0, 1, 0}, "error of 3 bytes"},
		{"error", []byte{0xff, 0xff, 0, 1, 0}, "experimenter error"},
		{"features", make([]byte, 23), "features reply of 23"},
		{"role", make([]byte, 17), "role reply of 17"},
		{"bundle control", make([]byte, 15), "of 15 bytes"},
		{"bundle control", make([]byte, 16), "is no bundle control"},
		{"multipart", make([]byte, 7), "of 7 bytes"},
		{"table", make([]byte, 25), "not a multiple"},
		{"port", make([]byte, 65), "not a multiple"},
		{"port status", make([]byte, 71), "of 71 bytes"},
		{"flow stats", edited(flow, 0, 0xff, 0xff), "says 65535"},
		{"flow stats", edited(flow, 48, 0, 2), "match of type 2"},
		{"flow stats", edited(flow, 50, 0, 3), "says 3"},
		{"flow stats", edited(flow, 55, 200), "malformed field"},
		{"flow stats", edited(flow, 55, 1), "malformed field"},
		{"flow stats", edited(flow, 66, 0, 7), "instruction says 7"},
		{"flow stats", edited(flow, 66, 0xff), "instruction says"},
		{"flow stats", edited(flow, 74, 0, 0), "action says 0"},
		{"flow stats", edited(flow, 74, 0, 12), "not a multiple of 8"},
		{"group", edited(group, 8, 0, 15), "bucket says 15"},
		{"group", edited(group, 26, 0, 9), "not a multiple of 8"},
		{"meter", edited(meter, 10, 0, 15), "meter band says 15"},
		{"flow-removed", append(slices.Clone(flowRemoved), 0), "1 bytes behind the match"},
	} {
		if err := decoders[c.decoder](c.body); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s %x: got %v, want %q", c.decoder, c.body, err, c.want)
		}
	}
}

// Other switches may order their matches in another way.
func TestMatchesOfADumpAreMadeCanonical(t *testing.T) {
	want := NewMatch(InPort.Is(1), IPv4, IPv4Src.Masked(0x0a000000, 0xff000000))
	var odd []byte
	odd = appendOXM(odd, IPv4Src, Value{Lo: 0x0a010203}, Value{Lo: 0xff000000})
	odd = appendOXM(odd, EthType, Value{Lo: etherTypeIPv4}, ones(16))
	odd = appendOXM(odd, InPort, Value{Lo: 1}, ones(32))
	all, err := DecodeFlowStats(flowStatsBody(&Flow{Match: Match{string(odd)}}))
	if err != nil || all[0].Match != want {
		t.Errorf("got %v %v, want %s", all, err, want)
	}
}

func TestActionsTellWhatTheyDo(t *testing.T) {
	actions := Do(SetField(Reg0, 1), Move(Reg1, Metadata), OutputReg(Reg2), ToGroup(7), Output(3),
		Clone(Resubmit(9)), CT(CTSpec{ZoneField: Reg4, Table: 22, Nested: []Action{SetField(CtMark, 1)}}),
		CT(CTSpec{Commit: true, Table: TableNone}), ApplyMeter(5), WriteMetadata(1, 1), Goto(30)).Actions()
	type told struct {
		kind          Kind
		writes, reads Field
		next          int // -1: none
		nested        int
	}
	var got []told
	for _, a := range actions {
		next := -1
		if table, ok := a.NextTable(); ok {
			next = int(table)
		}
		got = append(got, told{a.Kind(), a.Writes(), a.Reads(), next, len(a.Nested())})
	}
	want := []told{
		{KindMeter, 0, 0, -1, 0},
		{KindSetField, Reg0, 0, -1, 0},
		{KindMove, Metadata, Reg1, -1, 0},
		{KindOutputReg, 0, Reg2, -1, 0},
		{KindGroup, 0, 0, -1, 0},
		{KindOutput, 0, 0, -1, 0},
		{KindClone, 0, 0, -1, 1},
		{KindCT, 0, Reg4, 22, 1},
		{KindCT, 0, 0, -1, 0},
		{KindWriteMetadata, Metadata, 0, -1, 0},
		{KindGoto, 0, 0, 30, 0},
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
	if actions[0].ID() != 5 || actions[5].Port() != 3 || !actions[8].CT().Commit {
		t.Errorf("meter %d, port %d, ct %+v", actions[0].ID(), actions[5].Port(), actions[8].CT())
	}
}

func TestBucketSizesTellWhetherAGroupFits(t *testing.T) {
	bucket := Bucket{Actions: []Action{SetMAC(EthDst, mac), Output(1)}}
	n := MaxGroupSize / bucket.Size()
	buckets := slices.Repeat([]Bucket{bucket}, n)
	if g := NewGroup(1, GroupAll, buckets...); len(g.Buckets) != n*bucket.Size() {
		t.Errorf("%d buckets of %d bytes are %d", n, bucket.Size(), len(g.Buckets))
	}
	if got := len(AppendBundleGroupMod(nil, 1, 1, 0, CommandAdd, NewGroup(1, GroupAll, buckets...))); got > 65535 {
		t.Errorf("a full group is a message of %d bytes", got)
	}
	defer func() {
		if recover() == nil {
			t.Error("one bucket more is no panic")
		}
	}()
	NewGroup(1, GroupAll, append(buckets, bucket)...)
}
