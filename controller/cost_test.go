package controller

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"io"
	"log/slog"
	"runtime"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"planck/flows"
	"planck/pipeline"
)

// TestPacketInAllocatesLittleOnItsWholeWay counts what a packet-in costs from
// the bytes that a switch sends to those that it is sent: read, dispatched,
// answered and written over a real connection.
func TestPacketInAllocatesLittleOnItsWholeWay(t *testing.T) {
	a := newAsking(t, nil)
	w := &world{t: t, store: a.store, addr: "127.0.0.1:0"}
	w.host("h1", 1)
	c := w.start(func(o *Options) {
		o.Compiler = newFixed()
		o.Responders = []Responder{NewARP(pipeline.ARPPacketIn), NewDHCP(DHCPConfig{Domain: "openstacklocal"})}
		o.Logger = slog.New(slog.DiscardHandler)
	})
	p := c.dial()
	answered := make(chan struct{}, 1<<16)
	go p.count(dpidInt+1<<16, answered)
	c.eventuallySynced()
	for _, kind := range []struct {
		name    string
		feature pipeline.FeatureID
		frame   []byte
		most    float64
	}{
		{"ARP", pipeline.FeatureARP, arpFrame(t, 1, "10.0.0.5", "10.0.0.6"), 7},
		{"DHCP", pipeline.FeatureDHCP, broadcastFrame(t, clientMessage(t, dhcpv4.MessageTypeDiscover)), 12},
	} {
		message := a.message(kind.feature, kind.frame)
		if n := p.allocations(message, answered); n > kind.most {
			t.Errorf("%s: %.1f allocations for a packet-in, want %v at the most", kind.name, n, kind.most)
		} else {
			t.Logf("%s: %.1f allocations for a packet-in", kind.name, n)
		}
	}
}

// message is the packet-in that brings a frame of the client up.
func (a *answering) message(feature pipeline.FeatureID, frame []byte) []byte {
	be := binary.BigEndian
	oxm := be.AppendUint32([]byte{0x80, 0x00, 0x00, 0x04}, a.inPort)
	oxm = be.AppendUint64(append(oxm, 0x80, 0x00, 0x04, 0x08), uint64(a.network.Key))
	oxm = be.AppendUint32(append(oxm, 0x00, 0x01, 2*byte(regSourcePort), 0x04), a.port.Key)
	body := be.AppendUint32(nil, 0xffffffff)
	body = append(be.AppendUint16(body, uint16(len(frame))), flows.ReasonAction, pipeline.ArpNd.ID)
	body = be.AppendUint64(body, uint64(pipeline.MakeCookie(feature, 0, 42)))
	body = append(be.AppendUint16(append(body, 0, 1), uint16(4+len(oxm))), oxm...)
	for len(body)%8 != 0 {
		body = append(body, 0)
	}
	return message(flows.TypePacketIn, 0, append(append(body, 0, 0), frame...))
}

// count serves as a switch without flows and tells of each packet-out; itself it
// allocates nothing for one.
func (p *peer) count(dpid uint64, packetOuts chan<- struct{}) {
	in := bufio.NewReaderSize(p.conn, 64<<10)
	buffer := make([]byte, 64<<10)
	for {
		header := buffer[:8]
		if _, err := io.ReadFull(in, header); err != nil {
			return
		}
		typ, xid := header[1], binary.BigEndian.Uint32(header[4:])
		body := buffer[8:binary.BigEndian.Uint16(header[2:])]
		if _, err := io.ReadFull(in, body); err != nil {
			return
		}
		if typ == flows.TypePacketOut {
			packetOuts <- struct{}{}
			continue
		}
		p.answer(typ, xid, bytes.Clone(body), dpid)
	}
}

// allocations is how often the whole process allocates for a packet-in and its
// answer. What else it does only adds to that, so the least of some counts is taken.
func (p *peer) allocations(message []byte, answered <-chan struct{}) float64 {
	p.t.Helper()
	const inFlight, bursts = 64, 50
	burst := bytes.Repeat(message, inFlight)
	least := 0.0
	for round := range 4 {
		var before, after runtime.MemStats
		late := time.After(patience)
		runtime.ReadMemStats(&before)
		for range bursts {
			p.send(burst)
			for range inFlight {
				select {
				case <-answered:
				case <-late:
					p.t.Fatal("a packet-in was not answered")
				}
			}
		}
		runtime.ReadMemStats(&after)
		n := float64(after.Mallocs-before.Mallocs) / (bursts * inFlight)
		if round == 0 || n < least {
			least = n
		}
	}
	return least
}
