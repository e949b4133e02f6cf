package controller

import (
	"bytes"
	"encoding/binary"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/insomniacslk/dhcp/dhcpv6"
	"github.com/insomniacslk/dhcp/iana"

	"planck/network"
)

// newClient6 is a client with fd00::5 on a network with DHCPv6 in a mode.
func newClient6(t testing.TB, mode string, extra ...network.DHCPOption) *answering {
	t.Helper()
	return newAnswering(t, func(a *answering) {
		a.network.DNSDomain = "cloud.test."
		a.subnets = []*network.Subnet{{
			IPVersion: 6, CIDR: netip.MustParsePrefix("fd00::/64"), GatewayIP: ip6("fd00::1"), EnableDHCP: true,
			DNSNameservers: []netip.Addr{ip6("fd00::53"), ip6("fd00::54")}, IPv6AddressMode: mode, IPv6RAMode: mode,
		}}
		a.port.FixedIPs = []network.FixedIP{{IP: ip6("fd00::5")}}
		if mode == network.DHCPv6Stateless || mode == network.SLAAC {
			a.port.FixedIPs = nil
		}
		a.port.ExtraDHCPOpts = extra
	})
}

var (
	clientDUID = &dhcpv6.DUIDLL{HWType: iana.HWTypeEthernet, LinkLayerAddr: testMAC[:]}
	otherDUID  = &dhcpv6.DUIDLL{HWType: iana.HWTypeEthernet, LinkLayerAddr: otherMAC[:]}
)

// ia is an identity association with the addresses that a client says it has.
func ia(id byte, addresses ...string) dhcpv6.Option {
	o := &dhcpv6.OptIANA{IaId: [4]byte{0, 0, 0, id}}
	for _, a := range addresses {
		o.Options.Add(&dhcpv6.OptIAAddress{IPv6Addr: net.ParseIP(a)})
	}
	return o
}

// message6 is a client's message: with its DUID, and with the server's where that belongs.
func (a *answering) message6(kind dhcpv6.MessageType, options ...dhcpv6.Option) *dhcpv6.Message {
	m := &dhcpv6.Message{MessageType: kind, TransactionID: dhcpv6.TransactionID{1, 2, 3}}
	m.AddOption(dhcpv6.OptClientID(clientDUID))
	switch kind {
	case dhcpv6.MessageTypeRequest, dhcpv6.MessageTypeRenew, dhcpv6.MessageTypeRelease, dhcpv6.MessageTypeDecline:
		mac := a.store.View().DHCPPort(a.network.ID).MAC
		m.AddOption(dhcpv6.OptServerID(&dhcpv6.DUIDLL{HWType: iana.HWTypeEthernet, LinkLayerAddr: mac[:]}))
	}
	for _, o := range options {
		m.AddOption(o)
	}
	return m
}

func frame6(m *dhcpv6.Message) []byte {
	message := m.ToBytes()
	frame := appendIPv6(nil, network.MAC{0x33, 0x33, 0, 1, 0, 2}, testMAC, testMAC.LinkLocal(), dhcpv6Servers, protocolUDP, 1)
	frame = binary.BigEndian.AppendUint16(frame, dhcpv6ClientPort)
	frame = binary.BigEndian.AppendUint16(frame, dhcpv6ServerPort)
	frame = binary.BigEndian.AppendUint16(frame, uint16(udpLen+len(message)))
	frame = append(append(frame, 0, 0), message...)
	finishIPv6(frame, udpChecksum)
	return frame
}

// ask6 gives the server's answer, nil when there is none, and why.
func (a *answering) ask6(d *DHCPv6, frame []byte) (*dhcpv6.Message, string) {
	a.t.Helper()
	data, reason := a.respond(d, frame)
	if data == nil {
		return nil, reason
	}
	var p ipv6Packet
	if reason := p.parse(data); reason != "" {
		a.t.Fatalf("the answer is bad: %s", reason)
	}
	server := a.store.View().DHCPPort(a.network.ID)
	if checksum(pseudoSum(p.src, p.dst, protocolUDP, len(p.payload)), p.payload) != 0 || p.src != server.MAC.LinkLocal() || p.ethSrc != server.MAC ||
		p.ethDst != testMAC || binary.BigEndian.Uint16(p.payload) != 547 || binary.BigEndian.Uint16(p.payload[2:]) != 546 {
		a.t.Fatalf("the answer is bad: %x", data)
	}
	m, err := dhcpv6.MessageFromBytes(p.payload[udpLen:])
	if err != nil {
		a.t.Fatal(err)
	}
	return m, ""
}

// leased are the addresses that live in a message, and those that end.
func leased(m *dhcpv6.Message) (live, ended []string) {
	for _, ia := range m.Options.IANA() {
		for _, a := range ia.Options.Addresses() {
			if a.ValidLifetime == 0 {
				ended = append(ended, a.IPv6Addr.String())
				continue
			}
			live = append(live, a.IPv6Addr.String())
		}
	}
	return live, ended
}

func TestDHCPv6Conversations(t *testing.T) {
	rapid := &dhcpv6.OptionGeneric{OptionCode: dhcpv6.OptionRapidCommit}
	for _, c := range []struct {
		name    string
		mode    string
		kind    dhcpv6.MessageType
		options []dhcpv6.Option
		want    dhcpv6.MessageType
		live    []string
		ended   []string
		status  iana.StatusCode // of the message, or of the first association that has one
	}{
		{"solicit", network.DHCPv6Stateful, dhcpv6.MessageTypeSolicit, []dhcpv6.Option{ia(1)}, dhcpv6.MessageTypeAdvertise, []string{"fd00::5"}, nil, 0},
		{"solicit without modes", "", dhcpv6.MessageTypeSolicit, []dhcpv6.Option{ia(1)}, dhcpv6.MessageTypeAdvertise, []string{"fd00::5"}, nil, 0},
		{"rapid commit", network.DHCPv6Stateful, dhcpv6.MessageTypeSolicit, []dhcpv6.Option{ia(1), rapid}, dhcpv6.MessageTypeReply, []string{"fd00::5"}, nil, 0},
		{"solicit where addresses are automatic", network.DHCPv6Stateless, dhcpv6.MessageTypeSolicit, []dhcpv6.Option{ia(1)}, dhcpv6.MessageTypeAdvertise, nil, nil, iana.StatusNoAddrsAvail},
		{"rapid commit where addresses are automatic", network.DHCPv6Stateless, dhcpv6.MessageTypeSolicit, []dhcpv6.Option{ia(1), rapid}, dhcpv6.MessageTypeAdvertise, nil, nil, iana.StatusNoAddrsAvail},
		{"solicit for two", network.DHCPv6Stateful, dhcpv6.MessageTypeSolicit, []dhcpv6.Option{ia(1), ia(2)}, dhcpv6.MessageTypeAdvertise, []string{"fd00::5"}, nil, iana.StatusNoAddrsAvail},
		{"solicit with a wish", network.DHCPv6Stateful, dhcpv6.MessageTypeSolicit, []dhcpv6.Option{ia(1, "fd00::99")}, dhcpv6.MessageTypeAdvertise, []string{"fd00::5"}, nil, 0},
		{"request", network.DHCPv6Stateful, dhcpv6.MessageTypeRequest, []dhcpv6.Option{ia(1, "fd00::5")}, dhcpv6.MessageTypeReply, []string{"fd00::5"}, nil, 0},
		{"request of another's", network.DHCPv6Stateful, dhcpv6.MessageTypeRequest, []dhcpv6.Option{ia(1, "fd00::99")}, dhcpv6.MessageTypeReply, []string{"fd00::5"}, []string{"fd00::99"}, 0},
		{"renew", network.DHCPv6Stateful, dhcpv6.MessageTypeRenew, []dhcpv6.Option{ia(1, "fd00::5", "fd00::4")}, dhcpv6.MessageTypeReply, []string{"fd00::5"}, []string{"fd00::4"}, 0},
		{"rebind", network.DHCPv6Stateful, dhcpv6.MessageTypeRebind, []dhcpv6.Option{ia(1, "fd00::5")}, dhcpv6.MessageTypeReply, []string{"fd00::5"}, nil, 0},
		{"confirm", network.DHCPv6Stateful, dhcpv6.MessageTypeConfirm, []dhcpv6.Option{ia(1, "fd00::5")}, dhcpv6.MessageTypeReply, nil, nil, 0},
		{"confirm elsewhere", network.DHCPv6Stateful, dhcpv6.MessageTypeConfirm, []dhcpv6.Option{ia(1, "fd01::5")}, dhcpv6.MessageTypeReply, nil, nil, iana.StatusNotOnLink},
		{"release", network.DHCPv6Stateful, dhcpv6.MessageTypeRelease, []dhcpv6.Option{ia(1, "fd00::5")}, dhcpv6.MessageTypeReply, nil, nil, 0},
		{"release of another's", network.DHCPv6Stateful, dhcpv6.MessageTypeRelease, []dhcpv6.Option{ia(1, "fd00::6")}, dhcpv6.MessageTypeReply, nil, nil, iana.StatusNoBinding},
		{"decline", network.DHCPv6Stateful, dhcpv6.MessageTypeDecline, []dhcpv6.Option{ia(1, "fd00::5")}, dhcpv6.MessageTypeReply, nil, nil, 0},
		{"information", network.DHCPv6Stateless, dhcpv6.MessageTypeInformationRequest, nil, dhcpv6.MessageTypeReply, nil, nil, 0},
		{"prefix", network.DHCPv6Stateful, dhcpv6.MessageTypeSolicit, []dhcpv6.Option{&dhcpv6.OptIAPD{}}, dhcpv6.MessageTypeAdvertise, nil, nil, iana.StatusNoPrefixAvail},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := newClient6(t, c.mode)
			m, reason := a.ask6(NewDHCPv6(DHCPConfig{Lease: time.Hour}), frame6(a.message6(c.kind, c.options...)))
			if m == nil {
				t.Fatalf("no answer: %s", reason)
			}
			live, ended := leased(m)
			if m.MessageType != c.want || m.TransactionID != (dhcpv6.TransactionID{1, 2, 3}) || !m.Options.ClientID().Equal(clientDUID) ||
				!slices.Equal(live, c.live) || !slices.Equal(ended, c.ended) || status6(m) != c.status {
				t.Errorf("%s", m.Summary())
			}
			if ia := m.Options.OneIANA(); len(live) > 0 && (ia.T1 != 30*time.Minute || ia.T2 != 48*time.Minute || ia.Options.OneAddress().ValidLifetime != time.Hour) {
				t.Errorf("lifetimes: %s", m.Summary())
			}
			configures := c.kind != dhcpv6.MessageTypeConfirm && c.kind != dhcpv6.MessageTypeRelease && c.kind != dhcpv6.MessageTypeDecline
			if dns := m.Options.DNS(); configures && (len(dns) != 2 || dns[0].String() != "fd00::53" || m.Options.DomainSearchList().Labels[0] != "cloud.test") {
				t.Errorf("options: %s", m.Summary())
			}
			if c.kind == dhcpv6.MessageTypeSolicit && m.MessageType == dhcpv6.MessageTypeReply && m.GetOneOption(dhcpv6.OptionRapidCommit) == nil {
				t.Errorf("no rapid commit: %s", m.Summary())
			}
		})
	}
}

func status6(m *dhcpv6.Message) iana.StatusCode {
	if s := m.Options.Status(); s != nil && s.StatusCode != iana.StatusSuccess {
		return s.StatusCode
	}
	for _, ia := range m.Options.IANA() {
		if s := ia.Options.Status(); s != nil {
			return s.StatusCode
		}
	}
	for _, ia := range m.Options.IAPD() {
		if s := ia.Options.Status(); s != nil {
			return s.StatusCode
		}
	}
	return iana.StatusSuccess
}

func TestDHCPv6IsSilent(t *testing.T) {
	a := newClient6(t, network.DHCPv6Stateful)
	good := frame6(a.message6(dhcpv6.MessageTypeSolicit, ia(1)))
	set := func(at int, v ...byte) []byte {
		b := bytes.Clone(good)
		copy(b[at:], v)
		return b
	}
	without := func(m *dhcpv6.Message, code dhcpv6.OptionCode) []byte {
		m.Options.Del(code)
		return frame6(m)
	}
	forAnother := a.message6(dhcpv6.MessageTypeRequest, ia(1))
	forAnother.UpdateOption(dhcpv6.OptServerID(otherDUID))
	udp := ethernetLen + ipv6Len
	for _, c := range []struct {
		name  string
		frame []byte
		want  string
	}{
		{"another client's MAC", set(6, otherMAC[:]...), dropForgedClient},
		{"to one address", set(38, ip6("fd00::2").AsSlice()...), dropOtherServer},
		{"another port", set(udp+2, 0, 53), dropOtherType},
		{"a length that is too long", set(udp+4, 9, 9), dropTruncated},
		{"a length that is too short", set(udp+4, 0, 9), dropMalformed},
		{"a relayed message", set(udp+udpLen, 12), dropRelayed},
		{"a reply", set(udp+udpLen, 7), dropUnsupported},
		{"an option that is too long", set(udp+udpLen+6, 9, 9), dropMalformed},
		{"from a group", set(22, ip6("ff02::1").AsSlice()...), dropMalformed},
		{"no client identifier", without(a.message6(dhcpv6.MessageTypeSolicit, ia(1)), dhcpv6.OptionClientID), dropMalformed},
		{"a request of no server", without(a.message6(dhcpv6.MessageTypeRequest, ia(1)), dhcpv6.OptionServerID), dropMalformed},
		{"a request of another server", frame6(forAnother), dropOtherServer},
		{"a solicit of a server", frame6(a.message6(dhcpv6.MessageTypeSolicit, ia(1), dhcpv6.OptServerID(otherDUID))), dropMalformed},
		{"information and addresses", frame6(a.message6(dhcpv6.MessageTypeInformationRequest, ia(1))), dropMalformed},
		{"a confirm of nothing", frame6(a.message6(dhcpv6.MessageTypeConfirm, ia(1))), dropNoAddress},
		{"IPv4", set(12, 8, 0), dropOtherType},
	} {
		if m, reason := a.ask6(NewDHCPv6(DHCPConfig{}), c.frame); m != nil || reason != c.want {
			t.Errorf("%s: answered by %v, reason %q, want %q", c.name, m, reason, c.want)
		}
	}
	b := newClient6(t, network.SLAAC)
	b.t = t
	if m, reason := b.ask6(NewDHCPv6(DHCPConfig{}), frame6(b.message6(dhcpv6.MessageTypeInformationRequest))); m != nil || reason != dropNoServer {
		t.Errorf("slaac: answered by %v, reason %q", m, reason)
	}
}

func TestDHCPv6ExtraOptions(t *testing.T) {
	v6 := func(name, value string) network.DHCPOption {
		return network.DHCPOption{Name: name, Value: value, IPVersion: 6}
	}
	a := newClient6(t, network.DHCPv6Stateful,
		v6("dns-server", "[fd00::99]"), v6("domain-search", ""), v6("option6:ntp-server", "fd00::77,ntp.example"), v6("59", "http://[fd00::1]/boot"),
		v6("bootfile-param", "a=1,b"), v6("information-refresh-time", "2h"), v6("31", "nonsense"), v6("server-id", "x"),
		network.DHCPOption{Name: "dns-server", Value: "10.0.0.1", IPVersion: 4})
	m, reason := a.ask6(NewDHCPv6(DHCPConfig{}), frame6(a.message6(dhcpv6.MessageTypeSolicit, ia(1))))
	if m == nil {
		t.Fatal(reason)
	}
	if dns := m.Options.DNS(); len(dns) != 1 || dns[0].String() != "fd00::99" {
		t.Errorf("DNS servers %v", dns)
	}
	if m.Options.DomainSearchList() != nil || m.Options.SNTP() != nil {
		t.Errorf("an option that is suppressed, or wrong, was sent: %s", m.Summary())
	}
	if ntp := m.Options.NTPServers(); len(ntp) != 1 || ntp[0].String() != "fd00::77" {
		t.Errorf("NTP servers %v", ntp)
	}
	if m.Options.BootFileURL() != "http://[fd00::1]/boot" || !slices.Equal(m.Options.BootFileParam(), []string{"a=1", "b"}) {
		t.Errorf("boot file %s", m.Summary())
	}
	if refresh := m.Options.InformationRefreshTime(0); refresh != 2*time.Hour {
		t.Errorf("refresh %v", refresh)
	}
}

func FuzzDHCPv6(f *testing.F) {
	a := newClient6(f, network.DHCPv6Stateful)
	for kind := dhcpv6.MessageTypeSolicit; kind <= dhcpv6.MessageTypeInformationRequest; kind++ {
		f.Add(frame6(a.message6(kind, ia(1, "fd00::5"), &dhcpv6.OptIAPD{}, &dhcpv6.OptIATA{}, dhcpv6.OptRequestedOption(23, 24))))
	}
	f.Add([]byte{})
	d := NewDHCPv6(DHCPConfig{Domain: "openstacklocal"})
	f.Fuzz(func(t *testing.T, frame []byte) {
		a.t = t
		m, _ := a.ask6(d, frame)
		if m == nil {
			return
		}
		if live, _ := leased(m); len(live) > 1 || len(live) == 1 && live[0] != "fd00::5" {
			t.Errorf("%x was answered by %s", frame, m.Summary())
		}
	})
}

func FuzzDHCPv6Option(f *testing.F) {
	for _, o := range [][2]string{
		{"23", "[fd00::1], fd00::2"}, {"domain-search", "a.example"}, {"option6:59", "http://x"}, {"ntp-server", "fd00::1,ntp.example"},
		{"bootfile-param", "a,b"}, {"information-refresh-time", "1h"}, {"21", ""}, {"1000", "00:01:ff"}, {"server-id", "x"}, {"tzdb-timezone", "UTC"},
	} {
		f.Add(o[0], o[1])
	}
	a := newClient6(f, network.DHCPv6Stateful)
	d := NewDHCPv6(DHCPConfig{})
	f.Fuzz(func(t *testing.T, name, value string) {
		if !utf8.ValidString(name) || !utf8.ValidString(value) {
			return // the API takes no such text
		}
		a.t = t
		_, err := a.store.Update(t.Context(), network.Cause{}, func(tx *network.Tx) error {
			p := tx.Port(a.port.ID).Clone()
			p.ExtraDHCPOpts = []network.DHCPOption{{Name: name, Value: value, IPVersion: 6}}
			return tx.UpdatePort(p)
		})
		if err != nil {
			t.Fatal(err)
		}
		if m, reason := a.ask6(d, frame6(a.message6(dhcpv6.MessageTypeSolicit, ia(1)))); m == nil {
			t.Fatalf("option %q=%q: no answer: %s", name, value, reason)
		}
	})
}
