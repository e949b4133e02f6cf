package controller

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/link/channel"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"

	"planck/flows"
	"planck/network"
	"planck/pipeline"
)

const testSecret = "s3cret"

// metadataWorld is a model with a metadata service and a Nova.
type metadataWorld struct {
	*world
	service *Metadata
	nova    *httptest.Server
	stop    func()
}

// newMetadataWorld starts the service in front of a Nova that answers as nova does.
func newMetadataWorld(t *testing.T, nova http.HandlerFunc) *metadataWorld {
	t.Helper()
	m := &metadataWorld{world: newWorld(t), nova: httptest.NewServer(nova)}
	t.Cleanup(m.nova.Close)
	where, err := url.Parse(m.nova.URL)
	if err != nil {
		t.Fatal(err)
	}
	m.service = NewMetadata(MetadataConfig{
		Nova: where, SharedSecret: testSecret, View: m.store.View, Logger: slog.New(slog.NewTextHandler(testLog{t}, nil)),
	})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- m.service.Run(ctx) }()
	m.stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(20 * time.Second):
			t.Error("the metadata service does not end")
		}
	})
	t.Cleanup(m.stop)
	m.host("h1", 1)
	return m
}

// guest is a VM with a TCP/IP stack of its own, whose packets come up from a switch.
type guest struct {
	m      *metadataWorld
	port   *network.Port
	ip     *stack.Stack
	link   *channel.Endpoint
	mac    network.MAC
	inPort uint32
	frames atomic.Int64 // sent up
	lost   func(frame []byte) bool
}

const guestGateway = "\xfa\x16\x3e\x00\x00\x01"

// guest makes a network, and on it a port with an address that belongs to an instance.
func (m *metadataWorld) guest(instance, project, address string) *guest {
	m.t.Helper()
	n := m.network(project)
	g := &guest{m: m, mac: network.MAC{0xfa, 0x16, 0x3e, 1, 0, byte(n.Key)}, inPort: 10 + n.Key}
	p := &network.Port{
		Standard: network.Standard{ProjectID: project}, NetworkID: n.ID, AdminStateUp: true, MAC: g.mac, DeviceID: instance,
		Binding: network.Binding{Host: "h1", VNICType: "normal"}, FixedIPs: []network.FixedIP{{IP: ip4(address)}},
	}
	m.update(func(tx *network.Tx) error {
		prefix := netip.PrefixFrom(ip4(address), 24).Masked()
		if err := tx.CreateSubnet(&network.Subnet{NetworkID: n.ID, CIDR: prefix, IPVersion: 4}); err != nil {
			return err
		}
		if err := tx.CreatePort(p); err != nil {
			return err
		}
		vifs := []network.VIF{{PortID: p.ID, Name: "tap" + instance, OFPort: g.inPort}}
		for v := range tx.VIFsOn("h1") {
			vifs = append(vifs, *v)
		}
		return tx.SyncVIFs("h1", vifs)
	})
	g.port = m.store.View().Port(p.ID)
	g.boot(address)
	return g
}

// boot starts the guest's stack.
func (g *guest) boot(address string) {
	t := g.m.t
	g.link = channel.New(1024, 1458, "")
	g.ip = stack.New(stack.Options{
		NetworkProtocols:   []stack.NetworkProtocolFactory{ipv4.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol},
	})
	if err := g.ip.CreateNIC(1, g.link); err != nil {
		t.Fatal(err)
	}
	if err := g.ip.AddProtocolAddress(1, tcpip.ProtocolAddress{Protocol: ipv4.ProtocolNumber,
		AddressWithPrefix: tcpip.AddrFrom4(ip4(address).As4()).WithPrefix()}, stack.AddressProperties{}); err != nil {
		t.Fatal(err)
	}
	g.ip.SetRouteTable([]tcpip.Route{{Destination: header.IPv4EmptySubnet, NIC: 1}})
	ctx, cancel := context.WithCancel(context.Background())
	var pump sync.WaitGroup
	pump.Go(func() {
		for pkt := g.link.ReadContext(ctx); pkt != nil; pkt = g.link.ReadContext(ctx) {
			frame := append(append([]byte(guestGateway), g.mac[:]...), 8, 0)
			for _, part := range pkt.AsSlices() {
				frame = append(frame, part...)
			}
			pkt.DecRef()
			if g.lost == nil || !g.lost(frame) {
				g.sendUp(frame)
			}
		}
	})
	t.Cleanup(func() {
		cancel()
		pump.Wait()
		g.ip.Destroy()
	})
}

// sendUp is what the switch does with a frame; it returns why nothing comes of it.
func (g *guest) sendUp(frame []byte) string {
	g.frames.Add(1)
	view := g.m.store.View()
	in := &PacketIn{Host: "h1", Bridge: "br-int", InPort: g.inPort, Data: frame, View: view, Switch: g}
	in.Regs[regSourcePort] = g.port.Key
	var out Replies
	if err := g.m.service.Respond(context.Background(), in, &out); err != nil {
		g.m.t.Error(err)
	}
	return out.Dropped()
}

var backToPort = flows.ActionList(flows.Output(flows.PortInPort))

// PacketOut implements Switch: it checks what the VM would, and hands the packet in.
func (g *guest) PacketOut(inPort uint32, actions string, data []byte) bool {
	ip := data[ethernetLen:]
	switch {
	case inPort != g.inPort || actions != backToPort:
		g.m.t.Errorf("packet-out to port %d, want %d", inPort, g.inPort)
	case !bytes.Equal(data[:6], g.mac[:]) || string(data[6:12]) != guestGateway:
		g.m.t.Errorf("frame to %x from %x", data[:6], data[6:12])
	case checksum(0, ip[:ipv4Len]) != 0:
		g.m.t.Error("IPv4 checksum is wrong")
	case address4(ip[ipv4Source:]) != pipeline.MetadataAddress:
		g.m.t.Errorf("packet from %s", address4(ip[ipv4Source:]))
	}
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithData(ip)}) // its TCP checksum is verified by the stack
	defer pkt.DecRef()
	g.link.InjectInbound(ipv4.ProtocolNumber, pkt)
	return true
}

func (g *guest) dial(ctx context.Context) (net.Conn, error) {
	return gonet.DialContextTCP(ctx, g.ip, tcpip.FullAddress{NIC: 1, Addr: tcpip.AddrFrom4(pipeline.MetadataAddress.As4()), Port: 80}, ipv4.ProtocolNumber)
}

// connected is a connection that has had an answer, so that the service has it
// on its accounts.
func (g *guest) connected() net.Conn {
	t := g.m.t
	t.Helper()
	c, err := g.dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	if _, err := c.Read(make([]byte, 1000)); err != nil {
		t.Fatal(err)
	}
	return c
}

// dialFrom dials from a port of the guest's choice.
func (g *guest) dialFrom(ctx context.Context, address string, port uint16) (net.Conn, error) {
	return gonet.DialTCPWithBind(ctx, g.ip, tcpip.FullAddress{NIC: 1, Addr: tcpip.AddrFrom4(ip4(address).As4()), Port: port},
		tcpip.FullAddress{NIC: 1, Addr: tcpip.AddrFrom4(pipeline.MetadataAddress.As4()), Port: 80}, ipv4.ProtocolNumber)
}

func (g *guest) client() *http.Client {
	return &http.Client{Timeout: 60 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return g.dial(ctx) },
	}}
}

// get asks for a path; header lists names and values.
func (g *guest) get(path string, header ...string) (int, string, error) {
	r, err := http.NewRequest(http.MethodGet, "http://169.254.169.254"+path, nil)
	if err != nil {
		return 0, "", err
	}
	for i := 0; i+1 < len(header); i += 2 {
		r.Header[header[i]] = []string{header[i+1]}
	}
	answer, err := g.client().Do(r)
	if err != nil {
		return 0, "", err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	return answer.StatusCode, string(body), err
}

// novaSays answers with who asks, when the signature is right.
func novaSays(w http.ResponseWriter, r *http.Request) {
	mac := hmac.New(sha256.New, []byte(testSecret))
	mac.Write([]byte(r.Header.Get("X-Instance-ID")))
	if r.Header.Get("X-Instance-ID-Signature") != hex.EncodeToString(mac.Sum(nil)) {
		http.Error(w, "signature", http.StatusForbidden)
		return
	}
	fmt.Fprintf(w, "%s %s %s %s", r.Header.Get("X-Instance-ID"), r.Header.Get("X-Tenant-ID"), r.Header.Get("X-Forwarded-For"), r.URL.RequestURI())
}

func TestMetadataTellsPortsWithTheSameAddressApart(t *testing.T) {
	m := newMetadataWorld(t, novaSays)
	blue, red := m.guest("i-blue", "blue", "10.0.0.5"), m.guest("i-red", "red", "10.0.0.5")
	// The same address and port at the same time: to any TCP these would be one connection.
	ctx := t.Context()
	conns := map[*guest]net.Conn{}
	for _, g := range []*guest{blue, red} {
		c, err := g.dialFrom(ctx, "10.0.0.5", 40000)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		conns[g] = c
	}
	for range 3 {
		for g, want := range map[*guest]string{blue: "i-blue blue 10.0.0.5 /a?b=c", red: "i-red red 10.0.0.5 /a?b=c"} {
			fmt.Fprint(conns[g], "GET /a?b=c HTTP/1.1\r\nHost: x\r\n\r\n")
			buf := make([]byte, 4096)
			n, err := conns[g].Read(buf)
			if err != nil || !strings.HasSuffix(string(buf[:n]), want) {
				t.Errorf("%s got %q, %v", want, buf[:n], err)
			}
		}
	}
}

func TestMetadataDoesNotBelieveTheVM(t *testing.T) {
	m := newMetadataWorld(t, func(w http.ResponseWriter, r *http.Request) {
		_ = r.Header.Write(w)
	})
	g := m.guest("i-1", "blue", "10.0.0.5")
	_, plain, err := g.get("/")
	if err != nil {
		t.Fatal(err)
	}
	_, got, err := g.get("/", "X-Instance-ID", "i-2", "x-instance-id", "i-3", "X_Instance_ID", "i-4", "X-Tenant-ID", "red",
		"X-Forwarded-For", "10.0.0.9", "X-Instance-ID-Signature", "00", "X-Metadata-Provider", "p", "Connection", "X-Instance-ID, X-Tenant-ID", "Forwarded", "for=1.2.3.4")
	if err != nil {
		t.Fatal(err)
	}
	if got != plain || !strings.Contains(plain, "X-Instance-Id: i-1\r\n") || !strings.Contains(plain, "X-Forwarded-For: 10.0.0.5\r\n") {
		t.Errorf("Nova heard\n%s\nwithout the VM's headers\n%s", got, plain)
	}
}

func TestMetadataForUnknownInstances(t *testing.T) {
	m := newMetadataWorld(t, novaSays)
	g := m.guest("", "blue", "10.0.0.5")
	if status, body, err := g.get("/"); status != http.StatusNotFound {
		t.Errorf("a port without an instance: %d %q %v", status, body, err)
	}
	syn := g.syn(40000)
	stranger := &guest{m: m, port: &network.Port{Key: 999}, inPort: g.inPort}
	if reason := stranger.sendUp(syn); reason != dropUnknownPort {
		t.Errorf("a port that is not there: %q", reason)
	}
	other := m.guest("i-1", "red", "10.0.0.5")
	m.update(func(tx *network.Tx) error { return tx.SyncVIFs("h1", nil) })
	if reason := other.sendUp(syn); reason != dropUnknownPort {
		t.Errorf("a port that is not wired on the switch's host: %q", reason)
	}
}

// syn is the frame that asks for a connection from a port.
func (g *guest) syn(port uint16) []byte { return g.segment("10.0.0.5", port, tcpSYN) }

func (g *guest) segment(from string, port uint16, flags byte) []byte {
	frame := append(append([]byte(guestGateway), g.mac[:]...), 8, 0)
	frame = append(frame, make([]byte, ipv4Len+tcpLen)...)
	ip := frame[ethernetLen:]
	putIPv4Header(ip, protocolTCP, ip4(from), pipeline.MetadataAddress)
	tcp := ip[ipv4Len:]
	binary.BigEndian.PutUint16(tcp, port)
	binary.BigEndian.PutUint16(tcp[2:], 80)
	tcp[12], tcp[tcpFlags] = 5<<4, flags
	binary.BigEndian.PutUint16(tcp[14:], 65535)
	return frame
}

func TestMetadataSurvivesLoss(t *testing.T) {
	large := strings.Repeat("0123456789abcdef", 8<<10) // 128 KiB
	m := newMetadataWorld(t, func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, large) })
	g := m.guest("i-1", "blue", "10.0.0.5")
	var n atomic.Int64
	g.lost = func([]byte) bool { return n.Add(1)%7 == 0 }
	if status, body, err := g.get("/"); err != nil || status != http.StatusOK || body != large {
		t.Errorf("%d, %d bytes of %d, %v", status, len(body), len(large), err)
	}
}

func TestMetadataDeadNovaIsServiceUnavailable(t *testing.T) {
	m := newMetadataWorld(t, novaSays)
	m.nova.Close()
	g := m.guest("i-1", "blue", "10.0.0.5")
	if status, body, err := g.get("/"); status != http.StatusServiceUnavailable {
		t.Errorf("%d %q %v", status, body, err)
	}
}

func TestMetadataSlowNovaIsServiceUnavailableInTime(t *testing.T) {
	release := make(chan struct{})
	m := newMetadataWorld(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			<-release
			return
		}
		novaSays(w, r)
	})
	defer close(release)
	const patience = 3 * time.Second
	m.service.cfg.Patience = patience
	blue, red := m.guest("i-blue", "blue", "10.0.0.5"), m.guest("i-red", "red", "10.0.0.5")
	slow := make(chan error, 1)
	begin := time.Now()
	go func() {
		status, body, err := blue.get("/slow")
		if status != http.StatusServiceUnavailable {
			err = fmt.Errorf("%d %q %v", status, body, err)
		}
		slow <- err
	}()
	for range 5 {
		if status, body, err := red.get("/"); status != http.StatusOK {
			t.Errorf("another VM: %d %q %v", status, body, err)
		}
	}
	if err := <-slow; err != nil {
		t.Error(err)
	}
	if took := time.Since(begin); took < patience || took > 10*patience {
		t.Errorf("it took %v", took)
	}
}

// TestMetadataSlowNovaIsWaitedFor has a Nova that takes longer than a VM may
// take for its request.
func TestMetadataSlowNovaIsWaitedFor(t *testing.T) {
	t.Parallel() // it does nothing most of the time
	m := newMetadataWorld(t, func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(metadataReadTime + 2*time.Second)
		novaSays(w, r)
	})
	m.service.cfg.Patience = metadataTime // the machine may be busy, too
	g := m.guest("i-1", "blue", "10.0.0.5")
	if status, body, err := g.get("/"); status != http.StatusOK || !strings.Contains(body, "i-1") {
		t.Errorf("%d %q %v", status, body, err)
	}
}

func TestMetadataBodies(t *testing.T) {
	m := newMetadataWorld(t, func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%d %v", len(body), err)
	})
	g := m.guest("i-1", "blue", "10.0.0.5")
	for size, want := range map[int]int{1000: http.StatusOK, metadataBody: http.StatusOK, metadataBody + 1: http.StatusRequestEntityTooLarge} {
		for _, known := range []bool{true, false} {
			var body io.Reader = strings.NewReader(strings.Repeat("p", size))
			if !known {
				body = io.MultiReader(body) // chunked
			}
			answer, err := g.client().Post("http://169.254.169.254/password", "text/plain", body)
			if err != nil {
				t.Errorf("%d bytes: %v", size, err)
				continue
			}
			text, _ := io.ReadAll(answer.Body)
			answer.Body.Close()
			if answer.StatusCode != want || want == http.StatusOK && string(text) != fmt.Sprintf("%d <nil>", size) {
				t.Errorf("%d bytes, length known %v: %d %q", size, known, answer.StatusCode, text)
			}
		}
	}
}

func TestMetadataConnectionsOfAPortAreLimited(t *testing.T) {
	m := newMetadataWorld(t, novaSays)
	greedy, other := m.guest("i-1", "blue", "10.0.0.5"), m.guest("i-2", "red", "10.0.0.5")
	for range maxPortConnections {
		greedy.connected()
	}
	if reason := greedy.sendUp(greedy.syn(60000)); reason != dropConnections {
		t.Errorf("one more connection: %q", reason)
	}
	if status, body, err := other.get("/"); status != http.StatusOK {
		t.Errorf("another VM: %d %q %v", status, body, err)
	}
}

func TestMetadataKeepsLittleOfAFloodOfSYNs(t *testing.T) {
	m := newMetadataWorld(t, novaSays)
	g := m.guest("i-1", "blue", "10.0.0.5")
	for port := range uint16(5_000) {
		g.sendUp(g.syn(port + 1))
	}
	// The guest resets what it did not ask for: its place is free before the
	// stack has taken the endpoint away.
	eventually(t, time.Minute, func() error {
		if n := len(m.service.stack.ip.RegisteredEndpoints()); n > 1+maxPortConnections {
			return fmt.Errorf("the stack holds %d endpoints", n)
		}
		return nil
	})
	for i := range 2 * maxPortSources {
		reason, want := g.sendUp(g.segment(fmt.Sprintf("10.0.1.%d", i), 1, tcpACK)), outcomeLater
		if i >= maxPortSources-1 {
			want = dropSources
		}
		if reason != want {
			t.Errorf("source %d: %q, want %q", i, reason, want)
		}
	}
	if status, body, err := g.get("/"); status != http.StatusOK {
		t.Errorf("after the flood: %d %q %v", status, body, err)
	}
}

func TestMetadataForgetsQuietSourcesAndPortsThatAreGone(t *testing.T) {
	m := newMetadataWorld(t, novaSays)
	quiet, gone := m.guest("i-1", "blue", "10.0.0.5"), m.guest("i-2", "red", "10.0.0.5")
	if _, _, err := quiet.get("/"); err != nil {
		t.Fatal(err)
	}
	gone.connected()
	m.update(func(tx *network.Tx) error { return tx.DeletePort(gone.port.ID) })
	eventually(t, 20*time.Second, func() error {
		m.service.sweep(time.Now().Add(metadataQuiet))
		m.service.mu.Lock()
		defer m.service.mu.Unlock()
		if len(m.service.sources)+len(m.service.byAddress)+len(m.service.ports)+m.service.open+m.service.asked != 0 {
			return fmt.Errorf("%d sources, %d connections are left", len(m.service.sources), m.service.open)
		}
		return nil
	})
}

func TestMetadataEndsWithConnectionsOpen(t *testing.T) {
	waiting := make(chan struct{}, 1)
	m := newMetadataWorld(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/wait" {
			waiting <- struct{}{}
			<-r.Context().Done()
		}
	})
	g := m.guest("i-1", "blue", "10.0.0.5")
	answered := make(chan error, 1)
	go func() {
		_, _, err := g.get("/wait")
		answered <- err
	}()
	idle := g.connected()
	<-waiting
	m.stop()
	if reason := g.sendUp(g.syn(1)); reason != dropEnded {
		t.Errorf("a packet after the end: %q", reason)
	}
	if err := <-answered; err == nil {
		t.Error("the request was answered")
	}
	if _, err := idle.Read(make([]byte, 1)); err == nil {
		t.Error("the idle connection is open")
	}
}

func TestMetadataRefusesWhatIsNoTCPToIt(t *testing.T) {
	m := newMetadataWorld(t, novaSays)
	g := m.guest("i-1", "blue", "10.0.0.5")
	change := func(at int, v ...byte) []byte {
		b := g.syn(1)
		copy(b[at:], v)
		ip := b[ethernetLen:]
		binary.BigEndian.PutUint16(ip[ipv4Checksum:], 0)
		binary.BigEndian.PutUint16(ip[ipv4Checksum:], checksum(0, ip[:ipv4Len]))
		return b
	}
	for _, c := range []struct {
		name  string
		frame []byte
		want  string
	}{
		{"good", g.syn(1), outcomeLater},
		{"short frame", g.syn(1)[:30], dropTruncated},
		{"UDP", change(ethernetLen+9, 17), dropOtherType},
		{"another address", change(ethernetLen+16, 10, 0, 0, 1), dropOtherType},
		{"to a group MAC", change(0, 0xff), dropMalformed},
		{"from a group", change(ethernetLen+12, 224, 0, 0, 1), dropMalformed},
		{"from the service's own address", change(ethernetLen+12, 169, 254, 169, 254), dropMalformed},
		{"from nowhere", change(ethernetLen+12, 0, 0, 0, 0), dropMalformed},
		{"a TCP header that is cut", change(ethernetLen+3, ipv4Len+tcpLen-1), dropTruncated},
	} {
		if got := g.sendUp(c.frame); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}
