package controller

import (
	"cmp"
	"context"
	"crypto/tls"
	"encoding/binary"
	"log/slog"
	"net/netip"
	"net/url"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"planck/flows"
	"planck/network"
	"planck/pipeline"
)

// MetadataConfig is what the metadata service takes from the configuration files.
type MetadataConfig struct {
	// Nova is where Nova's metadata service listens.
	Nova *url.URL
	// SharedSecret signs the instance id; Nova has the same one.
	SharedSecret string
	// TLS is how Nova's certificate is verified, and ours shown; nil for the defaults.
	TLS *tls.Config
	// Patience is how long Nova may take until it begins to answer; 0 is 30 seconds.
	Patience time.Duration
	// View gives the newest revision of the model.
	View     func() *network.View
	Logger   *slog.Logger          // default: slog.Default()
	Registry prometheus.Registerer // nil: metrics are not registered
}

// Limits on what VMs may hold of the metadata service.
const (
	maxMetadataConnections = 4096 // of all ports
	maxPortConnections     = 64   // of one port
	maxPortRequests        = 16   // of one port that Nova works on
	maxPortSources         = 8    // addresses from which one port asks
	// metadataQuiet is how long a source without a connection is remembered:
	// longer than its last packets are sent again.
	metadataQuiet = 2 * tcpPatience
	// handshakeTime is how long room is kept for a connection that was asked for.
	handshakeTime = 10 * time.Second
	metadataSweep = 10 * time.Second
)

// Metadata is the metadata service of all networks. The packets that VMs send
// to 169.254.169.254 come up from the switches; a TCP stack in this process
// ends their connections, and each request goes on to Nova with the instance
// that the port belongs to.
//
// Who asks is known from the switch and the port's key in the packet-in alone.
// Since ports of different networks may have the same address, each source (a
// port with one of its addresses) is a host of its own to the stack, by an
// address that it is given here.
type Metadata struct {
	cfg     MetadataConfig
	log     *slog.Logger
	metrics *metadataMetrics
	proxy   *metadataProxy
	actions string // to the port that asked

	mu        sync.Mutex
	sources   map[sourceKey]*metadataSource
	byAddress map[netip.Addr]*metadataSource // by the address that the stack knows it by
	ports     map[string]*metadataUse        // by port id
	open      int                            // connections
	asked     int                            // connections that are asked for
	next      uint32                         // where to look for a free address
	stack     *metadataStack                 // nil until the first packet
	ended     bool
}

// sourceKey tells sources apart.
type sourceKey struct {
	portID  string
	address netip.Addr
}

// metadataUse is what one port holds. Connections that it asked for have their
// place kept, so that those of many for which there is no room are not answered,
// and asked for again, rather than reset.
type metadataUse struct {
	sources, open int
	asked         map[netip.AddrPort]time.Time
	requests      chan struct{} // holds one for each request that Nova works on
}

// metadataSource is a port that asks from one of its addresses. What may change
// is guarded by Metadata.mu.
type metadataSource struct {
	sourceKey
	inside netip.Addr // the address by which the stack knows it
	use    *metadataUse

	seen        time.Time
	connections map[*metadataConn]struct{}
	way         metadataWay
}

// metadataWay is the way back to a source: that of its last packet.
type metadataWay struct {
	to        Switch
	inPort    uint32
	vm        network.MAC
	addressed network.MAC // what the VM sent to: a gateway, a DHCP server or metadataMAC
}

// NewMetadata makes the responder of pipeline.FeatureMetadata.
func NewMetadata(cfg MetadataConfig) *Metadata {
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	cfg.Patience = cmp.Or(cfg.Patience, novaPatience)
	m := &Metadata{
		cfg: cfg, log: cfg.Logger, metrics: newMetadataMetrics(cfg.Registry),
		actions: flows.ActionList(flows.Output(flows.PortInPort)),
		sources: make(map[sourceKey]*metadataSource), byAddress: make(map[netip.Addr]*metadataSource),
		ports: make(map[string]*metadataUse),
	}
	m.proxy = newMetadataProxy(m)
	return m
}

// Feature implements Responder.
func (*Metadata) Feature() pipeline.FeatureID { return pipeline.FeatureMetadata }

// Run ends the service when ctx ends. Until the first packet of a VM there is
// nothing to end.
func (m *Metadata) Run(ctx context.Context) error {
	tick := time.NewTicker(metadataSweep)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			m.end()
			return nil
		case now := <-tick.C:
			m.sweep(now)
		}
	}
}

func (m *Metadata) end() {
	m.mu.Lock()
	m.ended = true
	s := m.stack
	m.mu.Unlock()
	if s != nil {
		s.end()
	}
	m.proxy.end()
}

// Why a packet to the metadata service is dropped: values of the metric's label.
const (
	dropConnections = "too many connections"
	dropSources     = "too many source addresses"
	dropEnded       = "service ended"
)

// Respond implements Responder: it hands the packet to the TCP stack, which
// answers by itself.
func (m *Metadata) Respond(_ context.Context, in *PacketIn, out *Replies) error {
	var packet ipv4Packet
	if reason := packet.parse(in.Data); reason != "" {
		out.Drop(reason)
		return nil
	}
	if reason := checkMetadataPacket(&packet); reason != "" {
		out.Drop(reason)
		return nil
	}
	port := in.View.PortByKey(in.PortKey())
	// A switch speaks for the ports that are wired on its own host only.
	if port == nil || in.View.WiredHost(port) != in.Host {
		out.Drop(dropUnknownPort)
		return nil
	}
	stack, inside, reason, err := m.admit(in, port, &packet)
	if err != nil {
		return err
	}
	if reason != "" {
		out.Drop(reason)
		return nil
	}
	out.Later()
	stack.receive(&packet, inside)
	return nil
}

const (
	protocolTCP = 6
	tcpLen      = 20 // of a TCP header without options
	tcpFlags    = 13 // offset
	tcpSYN      = 1 << 1
	tcpRST      = 1 << 2
	tcpACK      = 1 << 4
)

func checkMetadataPacket(p *ipv4Packet) string {
	switch {
	case p.protocol != protocolTCP || p.dst != pipeline.MetadataAddress:
		return dropOtherType
	case len(p.payload) < tcpLen:
		return dropTruncated
	case p.ethDst[0]&1 != 0, !p.src.IsGlobalUnicast() && !p.src.IsLinkLocalUnicast(), p.src == broadcastIP, p.src == p.dst:
		return dropMalformed
	}
	return ""
}

// admit finds or makes the source of a packet and notes the way back to it.
func (m *Metadata) admit(in *PacketIn, port *network.Port, p *ipv4Packet) (stack *metadataStack, inside netip.Addr, reason string, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ended {
		return nil, netip.Addr{}, dropEnded, nil
	}
	if m.stack == nil {
		if m.stack, err = newMetadataStack(m); err != nil {
			return nil, netip.Addr{}, "", err
		}
	}
	s, reason := m.source(port, p.src)
	if reason != "" {
		return nil, netip.Addr{}, reason, nil
	}
	now := time.Now()
	from := netip.AddrPortFrom(s.address, binary.BigEndian.Uint16(p.payload))
	switch flags := p.payload[tcpFlags]; {
	case flags&tcpRST != 0:
		m.unask(s.use, from)
	case flags&(tcpSYN|tcpACK) == tcpSYN && !m.ask(s.use, from, now):
		return nil, netip.Addr{}, dropConnections, nil
	}
	s.seen = now
	s.way = metadataWay{to: in.Switch, inPort: in.InPort, vm: p.ethSrc, addressed: p.ethDst}
	return m.stack, s.inside, "", nil
}

// ask keeps a place for a connection, unless there is none.
func (m *Metadata) ask(u *metadataUse, from netip.AddrPort, now time.Time) bool {
	if _, again := u.asked[from]; again {
		return true
	}
	if u.full() {
		m.expire(u, now)
	}
	if u.full() || m.full() {
		return false
	}
	u.asked[from] = now
	m.asked++
	return true
}

func (m *Metadata) full() bool { return m.open+m.asked >= maxMetadataConnections }

func (u *metadataUse) full() bool { return u.open+len(u.asked) >= maxPortConnections }

// expire gives up the places of connections that were not opened in time.
func (m *Metadata) expire(u *metadataUse, now time.Time) {
	for from, since := range u.asked {
		if now.Sub(since) > handshakeTime {
			m.unask(u, from)
		}
	}
}

func (m *Metadata) unask(u *metadataUse, from netip.AddrPort) bool {
	if _, there := u.asked[from]; !there {
		return false
	}
	delete(u.asked, from)
	m.asked--
	return true
}

// source finds or makes the source of a packet, or says why there is none.
func (m *Metadata) source(port *network.Port, address netip.Addr) (*metadataSource, string) {
	key := sourceKey{port.ID, address}
	if s := m.sources[key]; s != nil {
		return s, ""
	}
	use := m.ports[port.ID]
	if use == nil {
		use = &metadataUse{asked: make(map[netip.AddrPort]time.Time), requests: make(chan struct{}, maxPortRequests)}
		m.ports[port.ID] = use
	}
	if use.sources >= maxPortSources {
		return nil, dropSources
	}
	use.sources++
	s := &metadataSource{sourceKey: key, inside: m.freeAddress(), use: use, connections: make(map[*metadataConn]struct{})}
	m.sources[key], m.byAddress[s.inside] = s, s
	return s, ""
}

// freeAddress is an address of 10.0.0.0/8 that no source has. They are given
// out in turn, so that none is used again soon.
func (m *Metadata) freeAddress() netip.Addr {
	for {
		m.next = (m.next + 1) & 0xffffff
		a := netip.AddrFrom4([4]byte{10, byte(m.next >> 16), byte(m.next >> 8), byte(m.next)})
		if _, taken := m.byAddress[a]; !taken && m.next != 0 {
			return a
		}
	}
}

// sweep forgets the sources that are quiet, and with their connections those
// whose port is gone.
func (m *Metadata) sweep(now time.Time) {
	for _, c := range m.forget(now, m.cfg.View()) {
		c.abort()
	}
}

// forget returns the connections that are to be aborted.
func (m *Metadata) forget(now time.Time, view *network.View) (orphans []*metadataConn) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, use := range m.ports {
		m.expire(use, now)
	}
	for _, s := range m.sources {
		gone := view.Port(s.portID) == nil
		if !gone && (len(s.connections) > 0 || now.Sub(s.seen) < metadataQuiet) {
			continue
		}
		for c := range s.connections {
			m.drop(s, c)
			orphans = append(orphans, c)
		}
		delete(m.sources, s.sourceKey)
		delete(m.byAddress, s.inside)
		if s.use.sources--; s.use.sources == 0 {
			m.asked -= len(s.use.asked)
			delete(m.ports, s.portID)
		}
	}
	return orphans
}

// drop takes a connection off the accounts.
func (m *Metadata) drop(s *metadataSource, c *metadataConn) {
	if _, there := s.connections[c]; !there {
		return
	}
	delete(s.connections, c)
	s.use.open--
	m.open--
	m.metrics.connections.Set(float64(m.open))
}

// enter puts a connection from an inside address on the accounts; nil when
// there is no room for it.
func (m *Metadata) enter(inside netip.AddrPort, c *metadataConn) *metadataSource {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.byAddress[inside.Addr()]
	if s == nil || m.ended {
		return nil
	}
	kept := m.unask(s.use, netip.AddrPortFrom(s.address, inside.Port()))
	if !kept && (s.use.full() || m.full()) {
		return nil
	}
	s.connections[c] = struct{}{}
	s.use.open++
	m.open++
	m.metrics.connections.Set(float64(m.open))
	return s
}

// leave takes a connection that is closed off the accounts.
func (m *Metadata) leave(s *metadataSource, c *metadataConn) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.drop(s, c)
}

// wayTo is the address of the source that the stack knows by an inside
// address, and the way there.
func (m *Metadata) wayTo(inside netip.Addr) (netip.Addr, metadataWay, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.byAddress[inside]
	if s == nil {
		return netip.Addr{}, metadataWay{}, false
	}
	return s.address, s.way, true
}
