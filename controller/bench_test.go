package controller

import (
	"bytes"
	"context"
	"encoding/binary"
	"log/slog"
	"net/netip"
	"testing"

	"planck/flows"
	"planck/pipeline"
)

// manyFlow is the i-th of many flows that look like those of real features.
func manyFlow(i int) *flows.Flow {
	mac := [6]byte{0xfa, 0x16, 0x3e, byte(i >> 16), byte(i >> 8), byte(i)}
	ip := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
	f := &flows.Flow{Cookie: uint64(pipeline.MakeCookie(pipeline.FeatureL2, 0, uint32(i+1)))}
	switch i % 3 {
	case 0:
		f.Table, f.Priority = 60, 100
		f.Match = flows.NewMatch(flows.Metadata.Masked(uint64(i%50), 0xffffffff), flows.EthDst.IsMAC(mac))
		f.Instructions = flows.Do(flows.SetField(flows.Reg1, uint64(i)), flows.SetField(flows.Reg3, uint64(i)), flows.Goto(70))
	case 1:
		f.Table, f.Priority = 10, 90
		f.Match = flows.NewMatch(flows.Reg2.Is(uint64(i)), flows.EthSrc.IsMAC(mac), flows.IPv4, flows.IPv4Src.IsIP(ip))
		f.Instructions = flows.Do(flows.Goto(12))
	default:
		f.Table, f.Priority = 14, 50
		f.Match = flows.NewMatch(flows.Metadata.Masked(uint64(i%50), 0xffffffff), flows.ARP, flows.ARPOp.Is(1), flows.ARPTPA.IsIP(ip))
		f.Instructions = flows.Do(flows.Move(flows.EthSrc, flows.EthDst), flows.SetMAC(flows.EthSrc, mac), flows.SetField(flows.ARPOp, 2),
			flows.Move(flows.ARPSHA, flows.ARPTHA), flows.SetMAC(flows.ARPSHA, mac), flows.Move(flows.ARPSPA, flows.ARPTPA),
			flows.SetIP(flows.ARPSPA, ip), flows.Output(flows.PortInPort))
	}
	return f
}

// BenchmarkPush pushes 10,000 flows into an empty switch, as one bundle.
func BenchmarkPush(b *testing.B) {
	const n = 10000
	items := make([]item, n)
	remove := make([]item, n)
	for i := range items {
		items[i] = item{command: uint16(flows.FlowAdd), flow: manyFlow(i)}
		remove[i] = item{command: uint16(flows.FlowDeleteStrict), flow: items[i].flow}
	}
	s := benchSession(b)
	b.ReportAllocs()
	for b.Loop() {
		if refused, err := s.pushBundle(items); err != nil || len(refused) > 0 {
			b.Fatalf("refused %v: %v", refused, err)
		}
		b.StopTimer()
		if refused, err := s.pushBundle(remove); err != nil || len(refused) > 0 {
			b.Fatalf("refused %v: %v", refused, err)
		}
		b.StartTimer()
	}
	b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "flows/s")
}

// BenchmarkReadBack reads 10,000 flows and finds nothing to do.
func BenchmarkReadBack(b *testing.B) {
	const n = 10000
	desired := flows.NewSet()
	var items []item
	for i := range n {
		f := manyFlow(i)
		desired.AddFlow(f)
		items = append(items, item{command: uint16(flows.FlowAdd), flow: f})
	}
	s := benchSession(b)
	if refused, err := s.pushBundle(items); err != nil || len(refused) > 0 {
		b.Fatalf("refused %v: %v", refused, err)
	}
	b.ReportAllocs()
	for b.Loop() {
		d, err := s.dump()
		if err != nil {
			b.Fatal(err)
		}
		installed, _, _ := sortOut(d, false)
		if delta := flows.Diff(desired, installed, nil, nil, leaveAlone); !delta.Empty() {
			b.Fatalf("%d differences, first %+v", delta.Len(), delta.FlowAdds)
		}
	}
	b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "flows/s")
}

// benchSession is a session with a real switch, without a reconciler.
func benchSession(b *testing.B) *session {
	l := listen(b, "127.0.0.1:0")
	o := startOVS(b)
	o.bridge("br-int", 1, l.Addr().String())
	conn, err := l.Accept()
	if err != nil {
		b.Fatal(err)
	}
	l.Close()
	s := newSession(context.Background(), conn, Timeouts{}, slog.New(slog.DiscardHandler), newMetrics(nil))
	ready, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		s.talk(func() { close(ready) }, func() error { <-s.ctx.Done(); return nil })
	}()
	<-ready
	b.Cleanup(func() {
		s.end(errReplaced)
		<-ended
	})
	return s
}

// BenchmarkPacketIn measures packet-in → packet-out over a real connection,
// with a peer that keeps 64 packets in flight.
func BenchmarkPacketIn(b *testing.B) {
	w := newWorld(b)
	w.host("h1", 1)
	c := w.start(func(o *Options) {
		o.Compiler, o.Responders = newFixed(), []Responder{echo{}}
		o.Logger = slog.New(slog.DiscardHandler)
	})
	p := c.dial()
	const inFlight = 64
	answers := make(chan int, 1)
	wanted := 0
	p.background(dpidInt+1<<16, func(typ uint8, _ uint32, _ []byte) bool {
		if typ == flows.TypePacketOut {
			if wanted++; wanted == inFlight {
				wanted = 0
				answers <- inFlight
			}
		}
		return typ == flows.TypePacketOut
	})
	c.eventuallySynced()
	burst := bytes.Repeat(packetIn(), inFlight)
	b.ReportAllocs()
	packets := 0
	for b.Loop() {
		p.send(burst)
		packets += <-answers
	}
	b.ReportMetric(float64(packets)/b.Elapsed().Seconds(), "packets/s")
}

// packetIn is a packet-in of 60 bytes with an in_port, metadata and a register.
func packetIn() []byte {
	be := binary.BigEndian
	oxm := be.AppendUint32([]byte{0x80, 0x00, 0x00, 0x04}, 10)
	oxm = be.AppendUint64(append(oxm, 0x80, 0x00, 0x04, 0x08), 9)
	oxm = be.AppendUint32(append(oxm, 0x00, 0x01, 0x04, 0x04), 42)
	body := be.AppendUint32(nil, 0xffffffff)
	body = append(be.AppendUint16(body, 60), flows.ReasonAction, 14)
	body = be.AppendUint64(body, uint64(pipeline.MakeCookie(pipeline.FeatureARP, 0, 42)))
	body = append(be.AppendUint16(append(body, 0, 1), uint16(4+len(oxm))), oxm...)
	for len(body)%8 != 0 {
		body = append(body, 0)
	}
	return message(flows.TypePacketIn, 0, append(body, make([]byte, 62)...))
}
