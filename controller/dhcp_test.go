package controller

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"math"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/insomniacslk/dhcp/dhcpv4"

	"planck/flows"
	"planck/network"
)

// answering is a network with one client port in a store of its own.
type answering struct {
	t       testing.TB
	store   *network.Store
	network *network.Network
	subnets []*network.Subnet
	port    *network.Port // the client
	inPort  uint32
}

var testMAC = network.MAC{0xfa, 0x16, 0x3e, 0, 0, 5}

// newAnswering makes a network with 10.0.0.0/24 and a client with 10.0.0.5,
// after change has had its way with them.
func newAnswering(t testing.TB, change func(*answering)) *answering {
	t.Helper()
	ctx := context.Background()
	store, err := network.Open(ctx, "sqlite:///"+filepath.Join(t.TempDir(), "planck.db"), network.DefaultConfig())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	a := &answering{t: t, store: store, inPort: 7}
	a.network = &network.Network{AdminStateUp: true, PortSecurityEnabled: true}
	a.network.ProjectID = "p1"
	a.subnets = []*network.Subnet{{
		IPVersion: 4, CIDR: netip.MustParsePrefix("10.0.0.0/24"), GatewayIP: ip4("10.0.0.1"), EnableDHCP: true,
		DNSNameservers: []netip.Addr{ip4("8.8.8.8"), ip4("1.1.1.1")},
	}}
	a.port = &network.Port{MAC: testMAC, AdminStateUp: true, PortSecurityEnabled: true,
		FixedIPs: []network.FixedIP{{IP: ip4("10.0.0.5")}}}
	a.port.ProjectID = "p1"
	if change != nil {
		change(a)
	}
	a.add(a.network, a.subnets, a.port)
	return a
}

// add puts a network with its subnets and ports into the store.
func (a *answering) add(n *network.Network, subnets []*network.Subnet, ports ...*network.Port) {
	a.t.Helper()
	_, err := a.store.Update(context.Background(), network.Cause{Operation: "test"}, func(tx *network.Tx) error {
		if err := tx.CreateNetwork(n); err != nil {
			return err
		}
		for _, s := range subnets {
			s.NetworkID, s.ProjectID = n.ID, n.ProjectID
			if err := tx.CreateSubnet(s); err != nil {
				return err
			}
		}
		for _, p := range ports {
			p.NetworkID = n.ID
			if err := tx.CreatePort(p); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		a.t.Fatal(err)
	}
}

// server is the network's DHCP port and its address in the first subnet.
func (a *answering) server() (network.MAC, net.IP) {
	a.t.Helper()
	p := a.store.View().DHCPPort(a.network.ID)
	if p == nil {
		a.t.Fatal("the network has no network:dhcp port")
	}
	ip, ok := addressIn(p, a.subnets[0].ID)
	if !ok {
		a.t.Fatalf("the DHCP port has no address in the first subnet: %v", p.FixedIPs)
	}
	return p.MAC, ip.AsSlice()
}

// packetIn is how the client's frame comes up.
func (a *answering) packetIn(frame []byte) *PacketIn {
	in := &PacketIn{Host: "h1", Bridge: "br-int", InPort: a.inPort, Metadata: uint64(a.network.Key), Data: frame, View: a.store.View()}
	in.Regs[regSourcePort] = a.port.Key
	return in
}

// respond gives the one frame that is sent back to the client, or nil and why there is none.
func (a *answering) respond(r Responder, frame []byte) ([]byte, string) {
	a.t.Helper()
	var out Replies
	if err := r.Respond(context.Background(), a.packetIn(frame), &out); err != nil {
		a.t.Fatalf("Respond: %v", err)
	}
	outs := slices.Collect(out.PacketOuts())
	if len(outs) == 0 {
		if out.Dropped() == "" {
			a.t.Fatal("neither an answer nor a reason")
		}
		return nil, out.Dropped()
	}
	if len(outs) != 1 || out.Dropped() != "" {
		a.t.Fatalf("%d packets and reason %q, want one packet", len(outs), out.Dropped())
	}
	if want := flows.ActionList(flows.Output(flows.PortInPort)); outs[0].InPort != a.inPort || outs[0].Actions != want {
		a.t.Fatalf("packet-out with in_port %d, actions %x, want %d, %x", outs[0].InPort, outs[0].Actions, a.inPort, want)
	}
	return outs[0].Data, ""
}

func ip4(s string) netip.Addr { return netip.MustParseAddr(s) }

// dhcpFrame wraps a client's message as broadcast from an unknown address, or
// as unicast from its own to the server.
func dhcpFrame(t testing.TB, m *dhcpv4.DHCPv4, dstMAC network.MAC, src, dst net.IP) []byte {
	t.Helper()
	eth := &layers.Ethernet{SrcMAC: m.ClientHWAddr, DstMAC: dstMAC[:], EthernetType: layers.EthernetTypeIPv4}
	ip := &layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolUDP, SrcIP: src, DstIP: dst}
	udp := &layers.UDP{SrcPort: 68, DstPort: 67}
	udp.SetNetworkLayerForChecksum(ip)
	return serializeLayers(t, eth, ip, udp, gopacket.Payload(m.ToBytes()))
}

func serializeLayers(t testing.TB, l ...gopacket.SerializableLayer) []byte {
	t.Helper()
	b := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(b, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, l...); err != nil {
		t.Fatal(err)
	}
	return bytes.Clone(b.Bytes())
}

func broadcastFrame(t testing.TB, m *dhcpv4.DHCPv4) []byte {
	return dhcpFrame(t, m, broadcastMAC, net.IPv4zero, net.IPv4bcast)
}

// clientMessage is a client's message of a type.
func clientMessage(t testing.TB, kind dhcpv4.MessageType, with ...dhcpv4.Modifier) *dhcpv4.DHCPv4 {
	t.Helper()
	with = append([]dhcpv4.Modifier{dhcpv4.WithHwAddr(testMAC[:]), dhcpv4.WithMessageType(kind)}, with...)
	m, err := dhcpv4.New(with...)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func requestedIP(ip string) dhcpv4.Modifier {
	return dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(net.ParseIP(ip)))
}

func serverID(ip net.IP) dhcpv4.Modifier {
	return dhcpv4.WithOption(dhcpv4.OptServerIdentifier(ip))
}

func clientIP(ip string) dhcpv4.Modifier { return dhcpv4.WithClientIP(net.ParseIP(ip)) }

// decodedReply is a reply as other decoders see it.
type decodedReply struct {
	*dhcpv4.DHCPv4
	eth *layers.Ethernet
	ip  *layers.IPv4
}

func decodeReply(t testing.TB, frame []byte) *decodedReply {
	t.Helper()
	p := gopacket.NewPacket(frame, layers.LayerTypeEthernet, gopacket.Default)
	eth, _ := p.Layer(layers.LayerTypeEthernet).(*layers.Ethernet)
	ip, _ := p.Layer(layers.LayerTypeIPv4).(*layers.IPv4)
	udp, _ := p.Layer(layers.LayerTypeUDP).(*layers.UDP)
	if eth == nil || ip == nil || udp == nil {
		t.Fatalf("not Ethernet, IPv4, UDP:\n%s", p)
	}
	if err := udp.SetNetworkLayerForChecksum(ip); err != nil {
		t.Fatal(err)
	}
	if err, wrong := p.VerifyChecksums(); err != nil || len(wrong) > 0 {
		t.Fatalf("checksums: %v %v\n%s", err, wrong, p)
	}
	if udp.SrcPort != 67 || udp.DstPort != 68 || int(udp.Length) != len(udp.Payload)+8 || int(ip.Length) != len(frame)-14 {
		t.Fatalf("ports or lengths are wrong:\n%s", p)
	}
	m, err := dhcpv4.FromBytes(udp.Payload)
	if err != nil {
		t.Fatalf("reply does not decode: %v\n%s", err, p)
	}
	if len(udp.Payload) < 300 {
		t.Errorf("reply of %d bytes is below BOOTP's 300", len(udp.Payload))
	}
	return &decodedReply{DHCPv4: m, eth: eth, ip: ip}
}

// String says what kind of reply it is, with what addresses, and where it goes.
func (r *decodedReply) String() string {
	mac := r.eth.DstMAC.String()
	switch {
	case bytes.Equal(r.eth.DstMAC, testMAC[:]):
		mac = "client"
	case bytes.Equal(r.eth.DstMAC, broadcastMAC[:]):
		mac = "all"
	}
	s := r.MessageType().String()
	if !r.YourIPAddr.IsUnspecified() {
		s += " yiaddr " + r.YourIPAddr.String()
	}
	if !r.ClientIPAddr.IsUnspecified() {
		s += " ciaddr " + r.ClientIPAddr.String()
	}
	return s + " to " + r.ip.DstIP.String() + " " + mac
}

// ask sends a message and decodes the answer, which must come from the server.
func (a *answering) ask(d *DHCP, frame []byte) string {
	a.t.Helper()
	data, reason := a.respond(d, frame)
	if data == nil {
		return "nothing: " + reason
	}
	mac, ip := a.server()
	r := decodeReply(a.t, data)
	if !bytes.Equal(r.eth.SrcMAC, mac[:]) || !r.ip.SrcIP.Equal(ip) || !r.ServerIdentifier().Equal(ip) {
		a.t.Errorf("answer from %s %s as %s, want %s %s", r.eth.SrcMAC, r.ip.SrcIP, r.ServerIdentifier(), mac, ip)
	}
	return r.String()
}

// askFor sends a message by broadcast and wants an answer.
func (a *answering) askFor(d *DHCP, m *dhcpv4.DHCPv4) *decodedReply {
	a.t.Helper()
	data, reason := a.respond(d, broadcastFrame(a.t, m))
	if data == nil {
		a.t.Fatalf("no answer: %s", reason)
	}
	r := decodeReply(a.t, data)
	if r.TransactionID != m.TransactionID {
		a.t.Errorf("xid %s, want %s", r.TransactionID, m.TransactionID)
	}
	if !bytes.Equal(r.ClientHWAddr, m.ClientHWAddr) {
		a.t.Errorf("chaddr %s, want %s", r.ClientHWAddr, m.ClientHWAddr)
	}
	return r
}

// withTwoSubnets gives the network a second subnet, where the client has an address too.
func withTwoSubnets(a *answering) {
	a.subnets = append(a.subnets, &network.Subnet{IPVersion: 4, CIDR: netip.MustParsePrefix("10.0.1.0/25"),
		GatewayIP: ip4("10.0.1.1"), EnableDHCP: true})
	a.port.FixedIPs = append(a.port.FixedIPs, network.FixedIP{IP: ip4("10.0.1.9")})
}

func TestDHCPConversations(t *testing.T) {
	a := newAnswering(t, nil)
	d := NewDHCP(DHCPConfig{})
	mac, ip := a.server()
	other := net.IPv4(192, 0, 2, 1)
	all := func(m *dhcpv4.DHCPv4) []byte { return broadcastFrame(t, m) }
	toServer := func(m *dhcpv4.DHCPv4) []byte { return dhcpFrame(t, m, mac, m.ClientIPAddr, ip) }
	flag := dhcpv4.WithBroadcast(true)
	for _, c := range []struct {
		name  string
		frame []byte
		want  string
	}{
		{"discover", all(clientMessage(t, dhcpv4.MessageTypeDiscover)), "OFFER yiaddr 10.0.0.5 to 10.0.0.5 client"},
		{"discover by a client that needs broadcast", all(clientMessage(t, dhcpv4.MessageTypeDiscover, flag)), "OFFER yiaddr 10.0.0.5 to 255.255.255.255 all"},
		{"discover that asks for another's address", all(clientMessage(t, dhcpv4.MessageTypeDiscover, requestedIP("10.0.0.77"))), "OFFER yiaddr 10.0.0.5 to 10.0.0.5 client"},
		{"discover with a stray ciaddr", all(clientMessage(t, dhcpv4.MessageTypeDiscover, clientIP("10.9.9.9"))), "OFFER yiaddr 10.0.0.5 to 10.0.0.5 client"},
		{"selecting", all(clientMessage(t, dhcpv4.MessageTypeRequest, serverID(ip), requestedIP("10.0.0.5"))), "ACK yiaddr 10.0.0.5 to 10.0.0.5 client"},
		{"selecting by a client that needs broadcast", all(clientMessage(t, dhcpv4.MessageTypeRequest, flag, serverID(ip), requestedIP("10.0.0.5"))), "ACK yiaddr 10.0.0.5 to 255.255.255.255 all"},
		{"selecting another server", all(clientMessage(t, dhcpv4.MessageTypeRequest, serverID(other), requestedIP("10.0.0.5"))), "nothing: other server"},
		{"selecting an address that was not offered", all(clientMessage(t, dhcpv4.MessageTypeRequest, serverID(ip), requestedIP("10.0.0.6"))), "NAK to 255.255.255.255 all"},
		{"selecting no address", all(clientMessage(t, dhcpv4.MessageTypeRequest, serverID(ip))), "nothing: malformed"},
		{"init-reboot", all(clientMessage(t, dhcpv4.MessageTypeRequest, requestedIP("10.0.0.5"))), "ACK yiaddr 10.0.0.5 to 10.0.0.5 client"},
		{"init-reboot with another's address", all(clientMessage(t, dhcpv4.MessageTypeRequest, requestedIP("10.0.0.77"))), "NAK to 255.255.255.255 all"},
		{"init-reboot on the wrong network", all(clientMessage(t, dhcpv4.MessageTypeRequest, requestedIP("192.168.7.5"))), "NAK to 255.255.255.255 all"},
		{"renewing", toServer(clientMessage(t, dhcpv4.MessageTypeRequest, clientIP("10.0.0.5"))), "ACK yiaddr 10.0.0.5 ciaddr 10.0.0.5 to 10.0.0.5 client"},
		{"renewing, option 50 as well", toServer(clientMessage(t, dhcpv4.MessageTypeRequest, clientIP("10.0.0.5"), requestedIP("10.0.0.5"))), "ACK yiaddr 10.0.0.5 ciaddr 10.0.0.5 to 10.0.0.5 client"},
		{"renewing what it no longer has", toServer(clientMessage(t, dhcpv4.MessageTypeRequest, clientIP("10.0.0.6"))), "NAK to 255.255.255.255 all"},
		{"rebinding", all(clientMessage(t, dhcpv4.MessageTypeRequest, clientIP("10.0.0.5"))), "ACK yiaddr 10.0.0.5 ciaddr 10.0.0.5 to 10.0.0.5 client"},
		{"selecting with a stray ciaddr", all(clientMessage(t, dhcpv4.MessageTypeRequest, serverID(ip), requestedIP("10.0.0.5"), clientIP("10.9.9.9"))), "ACK yiaddr 10.0.0.5 to 10.0.0.5 client"},
		{"rebinding with the broadcast flag", all(clientMessage(t, dhcpv4.MessageTypeRequest, flag, clientIP("10.0.0.5"))), "ACK yiaddr 10.0.0.5 ciaddr 10.0.0.5 to 10.0.0.5 client"},
		{"rebinding what it no longer has", all(clientMessage(t, dhcpv4.MessageTypeRequest, clientIP("10.0.0.6"))), "NAK to 255.255.255.255 all"},
		{"inform", toServer(clientMessage(t, dhcpv4.MessageTypeInform, clientIP("10.0.0.5"))), "ACK ciaddr 10.0.0.5 to 10.0.0.5 client"},
		{"inform with a static address of the subnet", all(clientMessage(t, dhcpv4.MessageTypeInform, clientIP("10.0.0.200"))), "ACK ciaddr 10.0.0.200 to 10.0.0.200 client"},
		{"inform from elsewhere", all(clientMessage(t, dhcpv4.MessageTypeInform, clientIP("192.168.7.5"))), "nothing: address is not the port's"},
		{"inform without an address", all(clientMessage(t, dhcpv4.MessageTypeInform)), "nothing: malformed"},
		{"decline", all(clientMessage(t, dhcpv4.MessageTypeDecline, serverID(ip), requestedIP("10.0.0.5"))), "nothing: declined"},
		{"decline to another server", all(clientMessage(t, dhcpv4.MessageTypeDecline, serverID(other), requestedIP("10.0.0.5"))), "nothing: other server"},
		{"release", toServer(clientMessage(t, dhcpv4.MessageTypeRelease, serverID(ip), clientIP("10.0.0.5"))), "nothing: released"},
		{"lease query", all(clientMessage(t, 10, clientIP("10.0.0.5"))), "nothing: unsupported message"},
		{"an offer from a VM", all(clientMessage(t, dhcpv4.MessageTypeOffer)), "nothing: unsupported message"},
		{"relayed", all(clientMessage(t, dhcpv4.MessageTypeDiscover, dhcpv4.WithGatewayIP(net.IPv4(10, 0, 0, 1)))), "nothing: relayed"},
		{"another client's MAC", all(clientMessage(t, dhcpv4.MessageTypeDiscover, dhcpv4.WithHwAddr(net.HardwareAddr{0xfa, 0x16, 0x3e, 9, 9, 9}))), "nothing: client address is not the port's"},
		{"to another address", dhcpFrame(t, clientMessage(t, dhcpv4.MessageTypeRequest, clientIP("10.0.0.5")), mac, net.IPv4(10, 0, 0, 5), other), "nothing: other server"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a.t = t
			if got := a.ask(d, c.frame); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

func TestDHCPRefusalsAreWhole(t *testing.T) {
	a := newAnswering(t, nil)
	id := []byte{1, 0xfa, 0x16, 0x3e, 0, 0, 5}
	r := a.askFor(NewDHCP(DHCPConfig{}), clientMessage(t, dhcpv4.MessageTypeRequest, requestedIP("10.0.0.77"),
		dhcpv4.WithGeneric(dhcpv4.OptionClientIdentifier, id)))
	_, ip := a.server()
	if !r.ServerIdentifier().Equal(ip) || r.Message() == "" || !bytes.Equal(r.Options.Get(dhcpv4.OptionClientIdentifier), id) {
		t.Errorf("NAK without server id, message or client id:\n%s", r.Summary())
	}
	if r.IPAddressLeaseTime(0) != 0 || r.SubnetMask() != nil {
		t.Errorf("NAK with a lease:\n%s", r.Summary())
	}
}

// optionsText lists what a reply says, in the order of the codes.
func optionsText(m *dhcpv4.DHCPv4) string {
	var s []string
	for code := range 255 {
		if v, ok := m.Options[uint8(code)]; ok {
			s = append(s, fmt.Sprintf("%d=%x", code, v))
		}
	}
	return strings.Join(s, " ")
}

func TestDHCPOptionsComeFromTheModel(t *testing.T) {
	const lease = "51=00015180 54=0a000002 58=0000a8c0 59=00012750"
	for _, c := range []struct {
		name   string
		change func(*answering)
		config DHCPConfig
		with   []dhcpv4.Modifier
		want   string // without message type, server and times, which are the same
	}{
		{
			name: "ordinary", config: DHCPConfig{Domain: "openstacklocal."},
			want: "1=ffffff00 3=0a000001 6=0808080801010101 12=" + hexText("host-10-0-0-5") + " 15=" + hexText("openstacklocal") + " 26=05b2 28=0a0000ff 121=20a9fea9fe0a000002000a000001",
		},
		{
			name:   "no gateway, no name servers, no domain",
			change: func(a *answering) { a.subnets[0].GatewayIP, a.subnets[0].DNSNameservers = network.NoGateway, nil },
			want:   "1=ffffff00 12=" + hexText("host-10-0-0-5") + " 26=05b2 28=0a0000ff 121=20a9fea9fe0a000002",
		},
		{
			name: "names of the port and the network", config: DHCPConfig{Domain: "openstacklocal"},
			change: func(a *answering) {
				a.subnets[0].DNSNameservers = []netip.Addr{ip4("0.0.0.0")}
				a.port.DNSName, a.network.DNSDomain = "web", "example.org."
			},
			want: "1=ffffff00 3=0a000001 12=" + hexText("web") + " 15=" + hexText("example.org") + " 26=05b2 28=0a0000ff 121=20a9fea9fe0a000002000a000001",
		},
		{
			name: "host routes bring the default route along",
			change: func(a *answering) {
				a.subnets[0].DNSNameservers = nil
				a.subnets[0].HostRoutes = []network.Route{
					{Destination: netip.MustParsePrefix("192.168.128.0/17"), NextHop: ip4("10.0.0.9")},
					{Destination: netip.MustParsePrefix("0.0.0.0/0"), NextHop: ip4("10.0.0.8")},
				}
			},
			want: "1=ffffff00 3=0a000001 12=" + hexText("host-10-0-0-5") + " 26=05b2 28=0a0000ff 121=11c0a8800a00000920a9fea9fe0a000002000a000001",
		},
		{
			name: "a default host route stands in for the gateway, Windows asks for its own option",
			with: []dhcpv4.Modifier{dhcpv4.WithRequestedOptions(dhcpv4.GenericOptionCode(249))},
			change: func(a *answering) {
				a.subnets[0].DNSNameservers, a.subnets[0].GatewayIP = nil, network.NoGateway
				a.subnets[0].HostRoutes = []network.Route{
					{Destination: netip.MustParsePrefix("172.16.5.4/32"), NextHop: ip4("10.0.0.9")},
					{Destination: netip.MustParsePrefix("0.0.0.0/0"), NextHop: ip4("10.0.0.8")},
				}
			},
			want: "1=ffffff00 3=0a000008 12=" + hexText("host-10-0-0-5") + " 26=05b2 28=0a0000ff 121=20ac1005040a00000920a9fea9fe0a000002000a000008 249=20ac1005040a00000920a9fea9fe0a000002000a000008",
		},
		{
			name: "the network's other subnets are on-link",
			change: func(a *answering) {
				a.subnets[0].DNSNameservers = nil
				a.subnets = append(a.subnets, &network.Subnet{IPVersion: 4, CIDR: netip.MustParsePrefix("10.0.1.0/25"), GatewayIP: ip4("10.0.1.1")})
			},
			want: "1=ffffff00 3=0a000001 12=" + hexText("host-10-0-0-5") + " 26=05b2 28=0a0000ff 121=190a0001000000000020a9fea9fe0a000002000a000001",
		},
		{
			name: "the subnet's own route to the metadata service goes before",
			change: func(a *answering) {
				a.subnets[0].DNSNameservers = nil
				a.subnets[0].HostRoutes = []network.Route{{Destination: netip.MustParsePrefix("169.254.169.254/32"), NextHop: ip4("10.0.0.9")}}
			},
			want: "1=ffffff00 3=0a000001 12=" + hexText("host-10-0-0-5") + " 26=05b2 28=0a0000ff 121=20a9fea9fe0a000009000a000001",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := newAnswering(t, func(a *answering) {
				a.network.MTU = 1458
				a.subnets[0].AllocationPools = []network.Range{{Start: ip4("10.0.0.2"), End: ip4("10.0.0.254")}}
				if c.change != nil {
					c.change(a)
				}
			})
			d := NewDHCP(c.config)
			r := a.askFor(d, clientMessage(t, dhcpv4.MessageTypeDiscover, c.with...))
			got := optionsText(r.DHCPv4)
			if r.MessageType() != dhcpv4.MessageTypeOffer || !strings.Contains(got, "51=00015180") {
				t.Fatalf("no offer with a lease of a day: %s", got)
			}
			_, ip := a.server()
			r.DeleteOption(dhcpv4.OptionDHCPMessageType)
			fixed := strings.Replace(lease, "54=0a000002", fmt.Sprintf("54=%x", []byte(ip.To4())), 1)
			for part := range strings.FieldsSeq(fixed) {
				if !strings.Contains(got, part) {
					t.Errorf("%s is not in %s", part, got)
				}
			}
			for _, code := range []uint8{51, 54, 58, 59} {
				delete(r.Options, code)
			}
			if got := optionsText(r.DHCPv4); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

func hexText(s string) string { return fmt.Sprintf("%x", s) }

func TestDHCPInformHasNoLease(t *testing.T) {
	a := newAnswering(t, nil)
	r := a.askFor(NewDHCP(DHCPConfig{}), clientMessage(t, dhcpv4.MessageTypeInform, clientIP("10.0.0.5")))
	for _, code := range []uint8{51, 58, 59} {
		if _, there := r.Options[code]; there {
			t.Errorf("option %d in the answer to an INFORM", code)
		}
	}
	if r.SubnetMask() == nil || len(r.Router()) != 1 {
		t.Errorf("no configuration:\n%s", r.Summary())
	}
}

func TestDHCPLeaseTime(t *testing.T) {
	a := newAnswering(t, nil)
	for _, c := range []struct {
		configured time.Duration
		asked      uint32
		want       string
	}{
		{0, 0, "86400/43200/75600"},
		{10 * time.Minute, 0, "600/300/525"},
		{10 * time.Minute, 3600, "600/300/525"},
		{10 * time.Minute, 300, "300/150/262"},
		{10 * time.Minute, 1, "120/60/105"},
		{10 * time.Minute, math.MaxUint32, "600/300/525"},
		{-time.Second, 0, "4294967295/0/0"},
		{-time.Second, 300, "300/150/262"},
	} {
		var with []dhcpv4.Modifier
		if c.asked != 0 {
			with = append(with, dhcpv4.WithLeaseTime(c.asked))
		}
		r := a.askFor(NewDHCP(DHCPConfig{Lease: c.configured}), clientMessage(t, dhcpv4.MessageTypeDiscover, with...))
		seconds := func(code uint8) uint32 {
			if v := r.Options[code]; len(v) == 4 {
				return binary.BigEndian.Uint32(v)
			}
			return 0
		}
		if got := fmt.Sprintf("%d/%d/%d", seconds(51), seconds(58), seconds(59)); got != c.want {
			t.Errorf("configured %v, asked for %d: lease/T1/T2 %s, want %s", c.configured, c.asked, got, c.want)
		}
	}
}

func TestDHCPGivesTheAddressAskedForOfSeveral(t *testing.T) {
	a := newAnswering(t, withTwoSubnets)
	d := NewDHCP(DHCPConfig{})
	r := a.askFor(d, clientMessage(t, dhcpv4.MessageTypeDiscover))
	if !r.YourIPAddr.Equal(net.IPv4(10, 0, 0, 5)) {
		t.Errorf("first address is %s, want 10.0.0.5", r.YourIPAddr)
	}
	r = a.askFor(d, clientMessage(t, dhcpv4.MessageTypeDiscover, requestedIP("10.0.1.9")))
	server, _ := addressIn(a.store.View().DHCPPort(a.network.ID), a.subnets[1].ID)
	if !r.YourIPAddr.Equal(net.IPv4(10, 0, 1, 9)) || !r.ServerIdentifier().Equal(server.AsSlice()) ||
		!r.Router()[0].Equal(net.IPv4(10, 0, 1, 1)) || net.IP(r.SubnetMask()).String() != "255.255.255.128" {
		t.Errorf("not all of the second subnet:\n%s", r.Summary())
	}
	_, first := a.server()
	r = a.askFor(d, clientMessage(t, dhcpv4.MessageTypeRequest, requestedIP("10.0.1.9"), serverID(first)))
	if r.MessageType() != dhcpv4.MessageTypeAck || !r.YourIPAddr.Equal(net.IPv4(10, 0, 1, 9)) {
		t.Errorf("second address through the server's first: %s", r)
	}
}

func TestDHCPIsSilentWithoutAnAddressToGive(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*answering)
		want   string
	}{
		{"enable_dhcp is false", func(a *answering) { a.subnets[0].EnableDHCP = false }, dropNoServer},
		{"port has no address", func(a *answering) { a.port.FixedIPs = []network.FixedIP{} }, dropNoAddress},
		{"port's subnet has no DHCP, another has", func(a *answering) {
			withTwoSubnets(a)
			a.subnets[0].EnableDHCP = false
			a.port.FixedIPs = a.port.FixedIPs[:1]
		}, dropNoAddress},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := newAnswering(t, c.change)
			for _, m := range []*dhcpv4.DHCPv4{
				clientMessage(t, dhcpv4.MessageTypeDiscover), clientMessage(t, dhcpv4.MessageTypeRequest, requestedIP("10.0.0.5")),
				clientMessage(t, dhcpv4.MessageTypeInform, clientIP("10.0.0.5")),
			} {
				if data, reason := a.respond(NewDHCP(DHCPConfig{}), broadcastFrame(t, m)); data != nil || reason != c.want {
					t.Errorf("%s: answer %x, reason %q, want none and %q", m.MessageType(), data, reason, c.want)
				}
			}
		})
	}
}

func TestDHCPTenantsWithTheSameAddresses(t *testing.T) {
	a := newAnswering(t, nil)
	b := &answering{t: t, store: a.store, inPort: 9, network: &network.Network{AdminStateUp: true}}
	b.network.ProjectID = "p2"
	b.subnets = []*network.Subnet{{IPVersion: 4, CIDR: netip.MustParsePrefix("10.0.0.0/24"), GatewayIP: ip4("10.0.0.254"), EnableDHCP: true}}
	b.port = &network.Port{MAC: testMAC, FixedIPs: []network.FixedIP{{IP: ip4("10.0.0.5")}}}
	b.add(b.network, b.subnets, b.port)
	d := NewDHCP(DHCPConfig{})
	for _, c := range []struct {
		tenant  *answering
		gateway net.IP
	}{{a, net.IPv4(10, 0, 0, 1)}, {b, net.IPv4(10, 0, 0, 254)}} {
		r := c.tenant.askFor(d, clientMessage(t, dhcpv4.MessageTypeDiscover))
		if !r.YourIPAddr.Equal(net.IPv4(10, 0, 0, 5)) || !r.Router()[0].Equal(c.gateway) {
			t.Errorf("got %s with router %v, want 10.0.0.5 with %s", r.YourIPAddr, r.Router(), c.gateway)
		}
	}
	in := a.packetIn(broadcastFrame(t, clientMessage(t, dhcpv4.MessageTypeDiscover)))
	in.Metadata = uint64(b.network.Key)
	var out Replies
	if err := d.Respond(context.Background(), in, &out); err != nil || out.Dropped() != dropUnknownPort {
		t.Errorf("a port on another's network: reason %q, error %v", out.Dropped(), err)
	}
}

func TestDHCPExtraOptions(t *testing.T) {
	a := newAnswering(t, func(a *answering) {
		a.port.ExtraDHCPOpts = []network.DHCPOption{
			{Name: "bootfile-name", Value: "undionly.kpxe", IPVersion: 4},
			{Name: "tftp-server", Value: "192.0.2.9", IPVersion: 4},
			{Name: "server-ip-address", Value: "192.0.2.10", IPVersion: 4},
			{Name: "mtu", Value: "1400", IPVersion: 4},
			{Name: "router", Value: "", IPVersion: 4},
			{Name: "42", Value: "192.0.2.1, 0.0.0.0", IPVersion: 4},
			{Name: "dns-server", Value: "2001:db8::1", IPVersion: 6},
		}
	})
	_, ip := a.server()
	r := a.askFor(NewDHCP(DHCPConfig{}), clientMessage(t, dhcpv4.MessageTypeDiscover))
	if r.BootFileName != "undionly.kpxe" || r.ServerHostName != "192.0.2.9" || r.ServerIPAddr.String() != "192.0.2.10" {
		t.Errorf("boot fields: file %q, sname %q, siaddr %s", r.BootFileName, r.ServerHostName, r.ServerIPAddr)
	}
	if got := r.BootFileNameOption(); got != "undionly.kpxe" {
		t.Errorf("bootfile-name %q", got)
	}
	if got := binary.BigEndian.Uint16(r.Options[26]); got != 1400 {
		t.Errorf("mtu %d, want the port's 1400", got)
	}
	if len(r.Router()) != 0 {
		t.Errorf("router %v, want it suppressed by the empty value", r.Router())
	}
	if got := r.NTPServers(); len(got) != 2 || !got[1].Equal(ip) {
		t.Errorf("ntp-server %v, want 192.0.2.1 and the server %s", got, ip)
	}
	if got := r.DNS(); len(got) != 2 {
		t.Errorf("dns-server %v, want the subnet's two", got)
	}
}

func TestDHCPExtraOptionsForIPXE(t *testing.T) {
	a := newAnswering(t, func(a *answering) {
		a.port.ExtraDHCPOpts = []network.DHCPOption{
			{Name: "tag:!ipxe,67", Value: "undionly.kpxe", IPVersion: 4},
			{Name: "tag:ipxe,67", Value: "http://192.0.2.9/boot.ipxe", IPVersion: 4},
			{Name: "tag:other,option:ntp-server", Value: "192.0.2.1", IPVersion: 4},
		}
	})
	d := NewDHCP(DHCPConfig{})
	for _, c := range []struct {
		with dhcpv4.Modifier
		want string
	}{
		{dhcpv4.WithOption(dhcpv4.OptClassIdentifier("PXEClient")), "undionly.kpxe"},
		{dhcpv4.WithUserClass("iPXE", false), "http://192.0.2.9/boot.ipxe"},
		{dhcpv4.WithUserClass("iPXE", true), "http://192.0.2.9/boot.ipxe"},
		{dhcpv4.WithGeneric(dhcpv4.GenericOptionCode(175), []byte{1, 1, 1}), "http://192.0.2.9/boot.ipxe"},
	} {
		r := a.askFor(d, clientMessage(t, dhcpv4.MessageTypeDiscover, c.with))
		if got := r.BootFileNameOption(); got != c.want || len(r.NTPServers()) != 0 {
			t.Errorf("bootfile-name %q, ntp-server %v, want %q and none", got, r.NTPServers(), c.want)
		}
	}
}

func TestDHCPLeavesOutWrongExtraOptionsAndSaysSoOnce(t *testing.T) {
	a := newAnswering(t, func(a *answering) {
		a.port.ExtraDHCPOpts = []network.DHCPOption{
			{Name: "mtu", Value: "many", IPVersion: 4}, {Name: "no-such-option", Value: "1", IPVersion: 4},
			{Name: "53", Value: "6", IPVersion: 4}, {Name: "0", Value: "1", IPVersion: 4},
		}
	})
	a.network.MTU = a.store.View().Network(a.network.ID).MTU
	var logged bytes.Buffer
	d := NewDHCP(DHCPConfig{Logger: slog.New(slog.NewTextHandler(&logged, nil))})
	for range 3 {
		r := a.askFor(d, clientMessage(t, dhcpv4.MessageTypeDiscover))
		if r.MessageType() != dhcpv4.MessageTypeOffer || int(binary.BigEndian.Uint16(r.Options[26])) != a.network.MTU {
			t.Errorf("not an offer with the network's mtu:\n%s", r.Summary())
		}
	}
	if got := strings.Count(logged.String(), "port_id="+a.port.ID); got != 4 {
		t.Errorf("%d lines in the log, want one for each of 4 options:\n%s", got, &logged)
	}
}

func TestDHCPOptionValues(t *testing.T) {
	server := ip4("10.0.0.2")
	for _, c := range []struct{ name, value, want string }{
		{"router", "10.0.0.1,10.0.0.2", "0a0000010a000002"},
		{"router", "0.0.0.0", "0a000002"},
		{"router", "10.0.0", "error"},
		{"router", ",", "error"},
		{"router", "2001:db8::1", "error"},
		{"option:router", "10.0.0.1", "0a000001"},
		{"ROUTER", "10.0.0.1", "0a000001"},
		{"static-route", "10.1.0.0,10.0.0.1", "0a0100000a000001"},
		{"static-route", "10.1.0.0", "error"},
		{"time-offset", "-3600", "fffff1f0"},
		{"default-ttl", "64", "40"},
		{"default-ttl", "256", "error"},
		{"mtu", "1400", "0578"},
		{"mtu", "-1", "error"},
		{"arp-timeout", "0x10", "00000010"},
		{"T1", "2h", "00001c20"},
		{"T1", "infinite", "ffffffff"},
		{"T1", "9999999w", "error"},
		{"T1", "h", "error"},
		{"hostname", "web", hexText("web")},
		{"domain-name", "exa\x00mple", "error"},
		{"domain-search", "example.org, b.example.", "076578616d706c65036f72670001620765" + hexText("xample") + "00"},
		{"domain-search", "a..b", "error"},
		{"domain-search", strings.Repeat("x", 64) + ".org", "error"},
		{"sip-server", "192.0.2.1", "01c0000201"},
		{"sip-server", "sip.org", "000373697003" + hexText("org") + "00"},
		{"classless-static-route", "10.1.0.0/16,10.0.0.1,0.0.0.0/0,10.0.0.1", "100a010a000001000a000001"},
		{"121", "10.1.2.3,0.0.0.0", "200a01020300000000"},
		{"249", "10.1.0.0/33,10.0.0.1", "error"},
		{"121", "10.1.0.0/16", "error"},
		{"tftp-server-address", "192.0.2.1,192.0.2.2", "c0000201c0000202"},
		{"43", "01:04:c0:00:02:01", "0104c0000201"},
		{"224", "192.0.2.1", "c0000201"},
		{"224", "7", "07"},
		{"224", "70000", "00011170"},
		{"252", "http://wpad.example/wpad.dat", hexText("http://wpad.example/wpad.dat")},
		{"114", "::", hexText("::")},
		{"tag:ipxe", "x", "error"},
		{"tag:a,", "x", "error"},
		{"256", "x", "error"},
		{"0", "x", "error"},
		{"lease-time", "60", "error"},
		{"82", "60", "error"},
	} {
		code, _, err := parseOptionName(c.name, false)
		var b []byte
		if err == nil {
			b, err = appendOption(nil, code, c.value, server)
		}
		got := fmt.Sprintf("%x", b)
		if err != nil {
			got = "error"
		}
		if got != c.want {
			t.Errorf("%s=%s: got %s (%v), want %s", c.name, c.value, got, err, c.want)
		}
	}
}

func TestDHCPOptionTableHasEachCodeOnce(t *testing.T) {
	seen := map[byte]bool{}
	for _, o := range optionTypes {
		if seen[o.code] {
			t.Errorf("option %d is there twice", o.code)
		}
		seen[o.code] = true
	}
}

func TestDHCPLongOptionsAreSplit(t *testing.T) {
	long := strings.Repeat("0123456789", 60)
	a := newAnswering(t, func(a *answering) {
		a.port.ExtraDHCPOpts = []network.DHCPOption{{Name: "224", Value: "x" + long, IPVersion: 4}}
	})
	d := NewDHCP(DHCPConfig{})
	r := a.askFor(d, clientMessage(t, dhcpv4.MessageTypeDiscover, dhcpv4.WithOption(dhcpv4.OptMaxMessageSize(1400))))
	if got := string(r.Options[224]); got != "x"+long {
		t.Errorf("option of %d bytes came as %d", len(long)+1, len(got))
	}
	r = a.askFor(d, clientMessage(t, dhcpv4.MessageTypeDiscover))
	if _, there := r.Options[224]; there || r.SubnetMask() == nil {
		t.Errorf("a client that takes 576 bytes got:\n%s", r.Summary())
	}
}

func TestDHCPRespectsTheClientsMessageSize(t *testing.T) {
	a := newAnswering(t, func(a *answering) {
		for i := range 20 {
			a.subnets[0].HostRoutes = append(a.subnets[0].HostRoutes, network.Route{
				Destination: netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 168, byte(i), 0}), 24), NextHop: ip4("10.0.0.9")})
		}
		a.port.ExtraDHCPOpts = []network.DHCPOption{{Name: "17", Value: strings.Repeat("r", 200), IPVersion: 4}}
	})
	d := NewDHCP(DHCPConfig{Domain: "openstacklocal"})
	for _, size := range []uint16{0, 100, 576, 700, 1000, 1500, 9000} {
		frame := broadcastFrame(t, clientMessage(t, dhcpv4.MessageTypeDiscover, dhcpv4.WithOption(dhcpv4.OptMaxMessageSize(size)),
			dhcpv4.WithRequestedOptions(dhcpv4.OptionRootPath)))
		data, reason := a.respond(d, frame)
		if data == nil {
			t.Fatalf("size %d: %s", size, reason)
		}
		if limit := min(max(int(size), 576), 1500); len(data)-14 > limit {
			t.Errorf("client takes %d bytes, got %d", limit, len(data)-14)
		}
		r := decodeReply(t, data)
		if len(r.RootPath()) != 200 || r.IPAddressLeaseTime(0) == 0 || len(r.Router()) != 1 {
			t.Errorf("size %d: an option that was asked for, or is needed, is missing:\n%s", size, r.Summary())
		}
		if routes := len(r.ClasslessStaticRoute()); routes != 0 && routes != 22 {
			t.Errorf("size %d: %d of 22 routes", size, routes)
		}
	}
}

func TestDHCPRequestedOptionsComeFirst(t *testing.T) {
	a := newAnswering(t, nil)
	data, _ := a.respond(NewDHCP(DHCPConfig{Domain: "x"}), broadcastFrame(t, clientMessage(t, dhcpv4.MessageTypeDiscover,
		dhcpv4.WithRequestedOptions(dhcpv4.OptionDomainName, dhcpv4.OptionInterfaceMTU))))
	if got, want := optionCodes(data)[:7], []byte{53, 54, 51, 58, 59, 15, 26}; !bytes.Equal(got, want) {
		t.Errorf("options begin with %v, want %v", got, want)
	}
}

// optionCodes lists the codes of a reply's options in their order.
func optionCodes(frame []byte) []byte {
	var codes []byte
	for b := frame[headersLen+bootpOptions:]; b[0] != optionEnd; b = b[2+int(b[1]):] {
		codes = append(codes, b[0])
	}
	return codes
}

func TestDHCPReadsOverloadedAndSplitOptions(t *testing.T) {
	a := newAnswering(t, nil)
	m := clientMessage(t, dhcpv4.MessageTypeDiscover)
	m.DeleteOption(dhcpv4.OptionDHCPMessageType)
	m.UpdateOption(dhcpv4.OptGeneric(dhcpv4.OptionOptionOverload, []byte{3}))
	m.BootFileName = "\x35\x01\x01\xff"
	m.ServerHostName = "\x37\x01\x1a\x37\x01\x0f\xff"
	data, reason := a.respond(NewDHCP(DHCPConfig{Domain: "x"}), broadcastFrame(t, m))
	if data == nil {
		t.Fatalf("not understood: %s", reason)
	}
	if got, want := optionCodes(data)[5:7], []byte{26, 15}; !bytes.Equal(got, want) {
		t.Errorf("after the lease come %v, want %v", got, want)
	}
}

func TestDHCPOddRequestsAreDroppedWithAReason(t *testing.T) {
	a := newAnswering(t, nil)
	good := broadcastFrame(t, clientMessage(t, dhcpv4.MessageTypeDiscover))
	dhcp := headersLen
	odd := func(change func(b []byte) []byte) []byte { return fixIPChecksum(change(bytes.Clone(good))) }
	set := func(at int, v ...byte) []byte {
		return odd(func(b []byte) []byte { copy(b[at:], v); return b })
	}
	for _, c := range []struct {
		name  string
		frame []byte
		want  string
	}{
		{"empty", nil, dropTruncated},
		{"half an Ethernet header", good[:7], dropTruncated},
		{"half an IP header", good[:25], dropTruncated},
		{"half a message", good[:200], dropTruncated},
		{"tagged", slices.Concat(good[:12], []byte{0x81, 0, 0, 5}, good[12:]), dropTagged},
		{"IPv6", set(12, 0x86, 0xdd), dropOtherType},
		{"IP version 6", set(14, 0x65), dropMalformed},
		{"IP header of 16 bytes", set(14, 0x44), dropMalformed},
		{"wrong IP checksum", func() []byte { b := bytes.Clone(good); b[24]++; return b }(), dropMalformed},
		{"first fragment", set(20, 0x20, 0), dropFragment},
		{"last fragment", set(20, 0, 9), dropFragment},
		{"TCP", set(23, 6), dropOtherType},
		{"to another UDP port", set(36, 0, 68), dropOtherType},
		{"UDP longer than the packet", set(38, 0xff, 0xff), dropTruncated},
		{"UDP shorter than its header", set(38, 0, 4), dropMalformed},
		{"UDP shorter than BOOTP", set(38, 0, 100), dropMalformed},
		{"a reply", set(dhcp, 2), dropMalformed},
		{"token ring", set(dhcp+1, 6), dropMalformed},
		{"hlen 16", set(dhcp+2, 16), dropMalformed},
		{"hlen 0", set(dhcp+2, 0), dropMalformed},
		{"no magic cookie", set(dhcp+236, 0), dropMalformed},
		{"no message type", set(dhcp+240, 255), dropMalformed},
		{"message type of two bytes", set(dhcp+240, 53, 2, 1, 1, 255), dropMalformed},
		{"option beyond the end", set(dhcp+240, 53, 1, 1, 61, 200), dropMalformed},
		{"requested address of 3 bytes", set(dhcp+240, 53, 1, 1, 50, 3, 1, 1, 1, 255), dropMalformed},
	} {
		if data, reason := a.respond(NewDHCP(DHCPConfig{}), c.frame); data != nil || reason != c.want {
			t.Errorf("%s: answer %x, reason %q, want none and %q", c.name, data, reason, c.want)
		}
	}
	padded := append(bytes.Clone(good), make([]byte, 100)...)
	if data, reason := a.respond(NewDHCP(DHCPConfig{}), padded); data == nil {
		t.Errorf("a frame with padding behind it: %s", reason)
	}
	if data, reason := a.respond(NewDHCP(DHCPConfig{}), set(40, 0x12, 0x34)); data == nil {
		t.Errorf("a partial UDP checksum, as interfaces with offload leave it: %s", reason)
	}
}

// fixIPChecksum writes the header checksum of an IPv4 frame, if it is one.
func fixIPChecksum(b []byte) []byte {
	if len(b) >= headersLen {
		n := min(len(b)-14, max(20, int(b[14]&15)*4))
		b[24], b[25] = 0, 0
		binary.BigEndian.PutUint16(b[24:], checksum(0, b[14:14+n]))
	}
	return b
}

// Who may, can make ports with the owner network:dhcp.
func TestDHCPServerIsTheOneThatTheNetworkHasForIt(t *testing.T) {
	a := newAnswering(t, nil)
	for i := range 8 { // ids are random: one of these comes first
		_, err := a.store.Update(t.Context(), network.Cause{}, func(tx *network.Tx) error {
			return tx.CreatePort(&network.Port{NetworkID: a.network.ID, DeviceOwner: network.OwnerDHCP, DeviceID: fmt.Sprint(i)})
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if got := a.ask(NewDHCP(DHCPConfig{}), broadcastFrame(t, clientMessage(t, dhcpv4.MessageTypeDiscover))); !strings.HasPrefix(got, "OFFER") {
		t.Error(got)
	}
}

func TestDHCPUnknownSenders(t *testing.T) {
	a := newAnswering(t, nil)
	d := NewDHCP(DHCPConfig{})
	for _, c := range []struct{ port, network uint32 }{{0, a.network.Key}, {9999, a.network.Key}, {a.port.Key, 0}, {a.port.Key, 9999}} {
		in := a.packetIn(broadcastFrame(t, clientMessage(t, dhcpv4.MessageTypeDiscover)))
		in.Metadata, in.Regs[regSourcePort] = uint64(c.network), c.port
		var out Replies
		if err := d.Respond(context.Background(), in, &out); err != nil || out.Dropped() != dropUnknownPort {
			t.Errorf("port %d on network %d: reason %q, error %v", c.port, c.network, out.Dropped(), err)
		}
	}
}

func FuzzDHCP(f *testing.F) {
	a := newAnswering(f, func(a *answering) {
		withTwoSubnets(a)
		a.port.ExtraDHCPOpts = []network.DHCPOption{{Name: "tag:ipxe,67", Value: "x", IPVersion: 4}, {Name: "150", Value: "1.2.3.4", IPVersion: 4}}
	})
	_, ip := a.server()
	for _, m := range []*dhcpv4.DHCPv4{
		clientMessage(f, dhcpv4.MessageTypeDiscover, dhcpv4.WithUserClass("iPXE", true), dhcpv4.WithOption(dhcpv4.OptMaxMessageSize(1400))),
		clientMessage(f, dhcpv4.MessageTypeRequest, serverID(ip), requestedIP("10.0.1.9"), dhcpv4.WithRequestedOptions(dhcpv4.OptionInterfaceMTU)),
		clientMessage(f, dhcpv4.MessageTypeRequest, clientIP("10.0.0.5")), clientMessage(f, dhcpv4.MessageTypeRequest, requestedIP("10.0.0.77")),
		clientMessage(f, dhcpv4.MessageTypeInform, clientIP("10.0.0.5")), clientMessage(f, dhcpv4.MessageTypeDecline),
	} {
		f.Add(broadcastFrame(f, m))
	}
	f.Add([]byte{})
	d := NewDHCP(DHCPConfig{Domain: "openstacklocal"})
	f.Fuzz(func(t *testing.T, frame []byte) {
		a.t = t
		before := bytes.Clone(frame)
		// With the checksum right, more of the frames get past the IP header.
		for _, data := range [][]byte{frame, fixIPChecksum(bytes.Clone(frame))} {
			reply, _ := a.respond(d, data)
			if reply != nil && data[23] == protocolUDP {
				decodeReply(t, reply)
			}
		}
		if !bytes.Equal(before, frame) {
			t.Error("the frame was changed")
		}
	})
}

func TestDHCPExchangeAllocatesLittle(t *testing.T) {
	a := newAnswering(t, nil)
	d := NewDHCP(DHCPConfig{Domain: "openstacklocal"})
	in := a.packetIn(broadcastFrame(t, clientMessage(t, dhcpv4.MessageTypeDiscover)))
	var out Replies
	allocs := testing.AllocsPerRun(100, func() {
		out.reset()
		if err := d.Respond(context.Background(), in, &out); err != nil {
			t.Fatal(err)
		}
	})
	if allocs > 12 {
		t.Errorf("%v allocations for an offer", allocs)
	}
}

func BenchmarkDHCPExchange(b *testing.B) {
	a := newAnswering(b, nil)
	_, ip := a.server()
	d := NewDHCP(DHCPConfig{Domain: "openstacklocal"})
	params := dhcpv4.WithRequestedOptions(dhcpv4.OptionSubnetMask, dhcpv4.OptionRouter, dhcpv4.OptionDomainNameServer, dhcpv4.OptionHostName,
		dhcpv4.OptionDomainName, dhcpv4.OptionInterfaceMTU, dhcpv4.OptionBroadcastAddress, dhcpv4.OptionClasslessStaticRoute, dhcpv4.OptionNTPServers)
	discover := a.packetIn(broadcastFrame(b, clientMessage(b, dhcpv4.MessageTypeDiscover, params)))
	request := a.packetIn(broadcastFrame(b, clientMessage(b, dhcpv4.MessageTypeRequest, params, serverID(ip), requestedIP("10.0.0.5"))))
	var out Replies
	b.ReportAllocs()
	for b.Loop() {
		for _, in := range []*PacketIn{discover, request} {
			out.reset()
			if err := d.Respond(context.Background(), in, &out); err != nil || out.Dropped() != "" {
				b.Fatal(err, out.Dropped())
			}
		}
	}
}
