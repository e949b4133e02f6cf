package controller

import (
	"bytes"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/prometheus/client_golang/prometheus"

	"planck/flows"
	"planck/network"
)

// FuzzSession plays a switch that says anything once it has been greeted, while
// its flows, groups and meters are asked for.
func FuzzSession(f *testing.F) {
	reply := func(n uint32, kind uint16, more bool, body []byte) []byte {
		head := []byte{byte(kind >> 8), byte(kind), 0, 0, 0, 0, 0, 0}
		if more {
			head[3] = 1
		}
		return message(flows.TypeMultipartReply, firstXID+n, append(head, body...))
	}
	f.Add(reply(0, flows.MultipartMeterConfig, false, nil))
	f.Add(bytes.Join([][]byte{reply(0, flows.MultipartMeterConfig, true, nil), reply(0, flows.MultipartMeterConfig, false, nil),
		reply(1, flows.MultipartGroupDesc, false, []byte{0, 8, 0, 0, 0, 0, 0, 1}), reply(2, flows.MultipartFlow, false, nil)}, nil))
	f.Add(reply(0, flows.MultipartFlow, false, nil))
	f.Add(message(flows.TypeError, firstXID, []byte{0, 1, 0, 2, 4, 18, 0, 16, 0, 0, 0, 16}))
	f.Add(append(flows.AppendEchoReply(nil, 1, []byte("x")), message(flows.TypeExperimenter, firstXID, make([]byte, 16))...))
	f.Add(message(flows.TypePacketIn, 0, make([]byte, 34)))
	m := newMetrics(prometheus.NewRegistry())
	f.Fuzz(func(t *testing.T, stream []byte) {
		ours, theirs := net.Pipe()
		s := newSession(t.Context(), ours, Timeouts{Reply: time.Second}, slog.New(slog.DiscardHandler), m)
		var wg sync.WaitGroup
		wg.Go(func() { _, _ = io.Copy(io.Discard, theirs) })
		wg.Go(func() {
			defer theirs.Close()
			hello := append(flows.AppendHello(nil, 1), message(flows.TypeFeaturesReply, 2, make([]byte, 24))...)
			_, _ = theirs.Write(append(hello, stream...))
		})
		err := s.talk(func() {}, func() error {
			_, err := s.dump()
			return err
		})
		wg.Wait()
		if err != nil && strings.HasPrefix(err.Error(), "panic") {
			t.Fatal(err)
		}
	})
}

// FuzzDHCPOption has extra_dhcp_opts as a tenant can give them: the option may
// be refused, but the client gets its offer.
func FuzzDHCPOption(f *testing.F) {
	for _, o := range [][2]string{
		{"67", "pxelinux.0"}, {"bootfile-name", "x"}, {"tag:ipxe,67", "http://x"}, {"router", ""}, {"classless-static-route", "40.0.0.0/8,10.0.0.2"},
		{"150", "1.2.3.4, 5.6.7.8"}, {"domain-search", "a.example,b.example"}, {"lease-time", "1h"}, {"mtu", "1400"}, {"sip-server", "10.0.0.1"},
		{"tag:x", ""}, {"option:42", "0.0.0.0"}, {"43", "01:02:ff"}, {"53", "6"}, {"server-ip-address", "10.0.0.3"}, {"T1", "infinite"}, {"250", "a:b:c"},
	} {
		f.Add(o[0], o[1])
	}
	a := newAnswering(f, nil)
	d := NewDHCP(DHCPConfig{Domain: "openstacklocal"})
	ask := broadcastFrame(f, clientMessage(f, dhcpv4.MessageTypeDiscover, dhcpv4.WithUserClass("iPXE", true)))
	f.Fuzz(func(t *testing.T, name, value string) {
		if !utf8.ValidString(name) || !utf8.ValidString(value) {
			return // the API takes no such text
		}
		a.t = t
		_, err := a.store.Update(t.Context(), network.Cause{}, func(tx *network.Tx) error {
			p := tx.Port(a.port.ID).Clone()
			p.ExtraDHCPOpts = []network.DHCPOption{{Name: name, Value: value, IPVersion: 4}, {Name: "66", Value: "after it", IPVersion: 4}}
			return tx.UpdatePort(p)
		})
		if err != nil {
			t.Fatal(err)
		}
		reply, reason := a.respond(d, ask)
		if reply == nil {
			t.Fatalf("option %q=%q: no offer: %s", name, value, reason)
		}
		offer := decodeReply(t, reply)
		if offer.MessageType() != dhcpv4.MessageTypeOffer {
			t.Fatalf("option %q=%q: answered by %s", name, value, offer.Summary())
		}
	})
}
