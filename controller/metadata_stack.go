package controller

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"

	"planck/network"
	"planck/pipeline"
)

const (
	// metadataMTU is what every link of a VM carries, so that no network's own
	// MTU matters.
	metadataMTU = 1280
	// metadataBacklog is how many connections may be half open, and how many
	// may wait to be accepted.
	metadataBacklog = 512
	// tcpPatience is how long what was sent may stay without acknowledgement.
	tcpPatience = 20 * time.Second
	// tcpLinger and tcpTimeWait are how long a closed connection is remembered.
	tcpLinger, tcpTimeWait = 5 * time.Second, time.Second

	// tcpMaxRTO bounds the pause before something is sent again: so a half-open
	// connection lasts some 15 s.
	tcpMaxRTO = 8 * time.Second

	tcpBuffer = 64 << 10 // bytes, for each direction

	metadataNIC = 1
)

// metadataStack is the TCP/IP stack that has the metadata service's address.
type metadataStack struct {
	ip      *stack.Stack
	link    *metadataLink
	serving sync.WaitGroup
	service *Metadata
}

// newMetadataStack starts the stack and the HTTP server on it.
func newMetadataStack(m *Metadata) (*metadataStack, error) {
	s := &metadataStack{
		link: &metadataLink{service: m, frames: sync.Pool{New: func() any { return new([]byte) }}},
		ip: stack.New(stack.Options{
			NetworkProtocols:   []stack.NetworkProtocolFactory{ipv4.NewProtocol},
			TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol},
		}),
		service: m,
	}
	listener, err := s.listen()
	if err != nil {
		s.ip.Destroy()
		return nil, fmt.Errorf("TCP stack of the metadata service: %w", err)
	}
	s.serving.Go(func() { m.proxy.serve(listener) })
	return s, nil
}

// end closes all connections and waits for what the stack runs. The HTTP server
// is told before.
func (s *metadataStack) end() {
	s.service.proxy.close()
	s.serving.Wait()
	s.ip.Destroy()
}

func (s *metadataStack) listen() (*metadataListener, error) {
	if err := s.configure(); err != nil {
		return nil, err
	}
	l := &metadataListener{service: s.service, closed: make(chan struct{})}
	ep, err := s.ip.NewEndpoint(tcp.ProtocolNumber, ipv4.ProtocolNumber, &l.events)
	if err != nil {
		return nil, stackError(err)
	}
	l.endpoint = ep
	patience := tcpip.TCPUserTimeoutOption(tcpPatience) // connections inherit it
	for _, step := range []func() tcpip.Error{
		func() tcpip.Error { return ep.SetSockOpt(&patience) },
		func() tcpip.Error { return ep.Bind(tcpip.FullAddress{Port: pipeline.MetadataPort}) },
		func() tcpip.Error { return ep.Listen(metadataBacklog) },
	} {
		if err := step(); err != nil {
			ep.Close()
			return nil, stackError(err)
		}
	}
	return l, nil
}

// configure gives the stack its address and its limits. SYN cookies are for when
// the backlog is full only: with them the stack loses data that comes together
// with the acknowledgement that opens a connection.
func (s *metadataStack) configure() error {
	var (
		maxRTO   = tcpip.TCPMaxRTOOption(tcpMaxRTO)
		send     = tcpip.TCPSendBufferSizeRangeOption{Min: 4 << 10, Default: tcpBuffer, Max: tcpBuffer}
		receive  = tcpip.TCPReceiveBufferSizeRangeOption{Min: 4 << 10, Default: tcpBuffer, Max: tcpBuffer}
		moderate = tcpip.TCPModerateReceiveBufferOption(false)
		linger   = tcpip.TCPLingerTimeoutOption(tcpLinger)
		timeWait = tcpip.TCPTimeWaitTimeoutOption(tcpTimeWait)
	)
	for _, option := range []tcpip.SettableTransportProtocolOption{&maxRTO, &send, &receive, &moderate, &linger, &timeWait} {
		if err := s.ip.SetTransportProtocolOption(tcp.ProtocolNumber, option); err != nil {
			return stackError(err)
		}
	}
	if err := s.ip.CreateNIC(metadataNIC, s.link); err != nil {
		return stackError(err)
	}
	address := tcpip.ProtocolAddress{
		Protocol:          ipv4.ProtocolNumber,
		AddressWithPrefix: tcpip.AddrFrom4(pipeline.MetadataAddress.As4()).WithPrefix(),
	}
	if err := s.ip.AddProtocolAddress(metadataNIC, address, stack.AddressProperties{}); err != nil {
		return stackError(err)
	}
	s.ip.SetRouteTable([]tcpip.Route{{Destination: header.IPv4EmptySubnet, NIC: metadataNIC}})
	return nil
}

func stackError(err tcpip.Error) error { return errors.New(err.String()) }

// receive gives the stack a VM's packet, as from an inside address. Checksums
// are not looked at, since a VM may leave them to its interface, so they need
// not be mended either.
func (s *metadataStack) receive(p *ipv4Packet, from netip.Addr) {
	data := buffer.MakeWithData(p.header)
	data.Append(buffer.NewViewWithData(p.payload))
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: data})
	defer pkt.DecRef()
	if header, ok := pkt.Data().PullUp(len(p.header)); ok {
		putAddress4(header[ipv4Source:], from)
		s.link.deliver(pkt)
	}
}

// Offsets in an IPv4 header, and in a TCP header.
const (
	ipv4Checksum    = 10
	ipv4Source      = 12
	ipv4Destination = 16
	tcpChecksum     = 16
)

// metadataLink is the stack's link: what is written to it goes to the VM that
// the inside address stands for.
type metadataLink struct {
	service *Metadata
	frames  sync.Pool // of *[]byte

	mu         sync.RWMutex
	dispatcher stack.NetworkDispatcher
}

func (l *metadataLink) deliver(pkt *stack.PacketBuffer) {
	l.mu.RLock()
	d := l.dispatcher
	l.mu.RUnlock()
	if d != nil {
		d.DeliverNetworkPacket(ipv4.ProtocolNumber, pkt)
	}
}

// WritePackets implements stack.LinkWriter. What can't be sent is lost, as on
// any link.
func (l *metadataLink) WritePackets(packets stack.PacketBufferList) (int, tcpip.Error) {
	frame := l.frames.Get().(*[]byte)
	defer l.frames.Put(frame)
	for _, pkt := range packets.AsSlice() {
		*frame = append((*frame)[:0], make([]byte, ethernetLen)...)
		for _, part := range pkt.AsSlices() {
			*frame = append(*frame, part...)
		}
		l.send(*frame)
	}
	return packets.Len(), nil
}

// send completes a frame, which has no Ethernet header yet and an inside
// address for its destination, and sends it.
func (l *metadataLink) send(frame []byte) {
	ip := frame[ethernetLen:]
	if len(ip) < ipv4Len+tcpLen {
		return
	}
	vm, way, ok := l.service.wayTo(address4(ip[ipv4Destination:]))
	if !ok {
		return
	}
	finishMetadataFrame(frame, way.vm, way.addressed, vm)
	way.to.PacketOut(way.inPort, l.service.actions, frame)
}

// finishMetadataFrame writes the addresses of a frame with TCP over IPv4, and
// its checksums.
func finishMetadataFrame(frame []byte, dst, src network.MAC, to netip.Addr) {
	copy(frame[0:], dst[:])
	copy(frame[6:], src[:])
	binary.BigEndian.PutUint16(frame[12:], etherTypeIPv4)
	ip := frame[ethernetLen:]
	headerLen := int(ip[0]&15) * 4
	putAddress4(ip[ipv4Destination:], to)
	binary.BigEndian.PutUint16(ip[ipv4Checksum:], 0)
	binary.BigEndian.PutUint16(ip[ipv4Checksum:], checksum(0, ip[:headerLen]))
	segment := ip[headerLen:]
	binary.BigEndian.PutUint16(segment[tcpChecksum:], 0)
	pseudo := onesSum(uint32(protocolTCP)+uint32(len(segment)), ip[ipv4Source:ipv4Source+8])
	binary.BigEndian.PutUint16(segment[tcpChecksum:], checksum(pseudo, segment))
}

// Attach implements stack.LinkEndpoint.
func (l *metadataLink) Attach(d stack.NetworkDispatcher) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dispatcher = d
}

// IsAttached implements stack.LinkEndpoint.
func (l *metadataLink) IsAttached() bool {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.dispatcher != nil
}

// Capabilities implements stack.LinkEndpoint: checksums are not the stack's.
func (*metadataLink) Capabilities() stack.LinkEndpointCapabilities {
	return stack.CapabilityRXChecksumOffload | stack.CapabilityTXChecksumOffload
}

// MTU implements stack.LinkEndpoint.
func (*metadataLink) MTU() uint32 { return metadataMTU }

// SetMTU implements stack.LinkEndpoint.
func (*metadataLink) SetMTU(uint32) {}

// MaxHeaderLength implements stack.LinkEndpoint.
func (*metadataLink) MaxHeaderLength() uint16 { return 0 }

// LinkAddress implements stack.LinkEndpoint.
func (*metadataLink) LinkAddress() tcpip.LinkAddress { return "" }

// SetLinkAddress implements stack.LinkEndpoint.
func (*metadataLink) SetLinkAddress(tcpip.LinkAddress) {}

// ARPHardwareType implements stack.LinkEndpoint.
func (*metadataLink) ARPHardwareType() header.ARPHardwareType { return header.ARPHardwareNone }

// AddHeader implements stack.LinkEndpoint.
func (*metadataLink) AddHeader(*stack.PacketBuffer) {}

// ParseHeader implements stack.LinkEndpoint.
func (*metadataLink) ParseHeader(*stack.PacketBuffer) bool { return true }

// Wait implements stack.LinkEndpoint.
func (*metadataLink) Wait() {}

// Close implements stack.LinkEndpoint.
func (*metadataLink) Close() {}

// SetOnCloseAction implements stack.LinkEndpoint.
func (*metadataLink) SetOnCloseAction(func()) {}

// metadataListener accepts the connections of VMs.
type metadataListener struct {
	service  *Metadata
	endpoint tcpip.Endpoint
	events   waiter.Queue
	once     sync.Once
	closed   chan struct{}
}

// Accept implements net.Listener. A connection for which there is no room is
// reset.
func (l *metadataListener) Accept() (net.Conn, error) {
	ready, notify := waiter.NewChannelEntry(waiter.ReadableEvents)
	l.events.EventRegister(&ready)
	defer l.events.EventUnregister(&ready)
	for {
		var remote tcpip.FullAddress
		endpoint, events, err := l.endpoint.Accept(&remote)
		switch err.(type) {
		case nil:
			c := &metadataConn{TCPConn: gonet.NewTCPConn(events, endpoint), endpoint: endpoint, service: l.service}
			if c.source = l.service.enter(netip.AddrPortFrom(netip.AddrFrom4(remote.Addr.As4()), remote.Port), c); c.source != nil {
				return c, nil
			}
			l.service.metrics.refused.Inc()
			endpoint.Abort()
			continue
		case *tcpip.ErrWouldBlock:
		default:
			return nil, stackError(err)
		}
		select {
		case <-notify:
		case <-l.closed:
			return nil, net.ErrClosed
		}
	}
}

// Close implements net.Listener.
func (l *metadataListener) Close() error {
	l.once.Do(func() {
		close(l.closed)
		l.endpoint.Close()
	})
	return nil
}

// Addr implements net.Listener.
func (*metadataListener) Addr() net.Addr {
	return net.TCPAddrFromAddrPort(netip.AddrPortFrom(pipeline.MetadataAddress, pipeline.MetadataPort))
}

// metadataConn is the connection of a source.
type metadataConn struct {
	*gonet.TCPConn
	endpoint tcpip.Endpoint
	service  *Metadata
	source   *metadataSource
}

// Close implements net.Conn.
func (c *metadataConn) Close() error {
	c.service.leave(c.source, c)
	_ = c.SetDeadline(time.Now()) // wakes who reads or writes; it can't fail
	return c.TCPConn.Close()
}

// abort resets the connection; whoever reads from it gets an error.
func (c *metadataConn) abort() { c.endpoint.Abort() }
