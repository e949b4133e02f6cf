package controller

import (
	"context"
	"encoding/binary"
	"log/slog"
	"math"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	"planck/flows"
	"planck/network"
	"planck/pipeline"
)

// DefaultLease is Neutron's dhcp_lease_duration.
const DefaultLease = 24 * time.Hour

// DHCPConfig is what the DHCP server takes from the configuration files.
type DHCPConfig struct {
	// Lease is dhcp_lease_duration: 0 means DefaultLease, negative means that
	// leases don't end.
	Lease time.Duration
	// Domain is dns_domain, which networks without one of their own hand out;
	// "" hands out none.
	Domain string
	Logger *slog.Logger // default: slog.Default()
}

func (c *DHCPConfig) logger() *slog.Logger {
	if c.Logger == nil {
		return slog.Default()
	}
	return c.Logger
}

// DHCP is the DHCPv4 server of all networks: it answers from the model alone,
// and keeps no leases, since a port's addresses are its own for as long as it
// exists. To a client it is the network:dhcp port of the network.
//
// Of the options that a client can be given, dns-server is absent for subnets
// without dns_nameservers, and router for subnets without a gateway.
type DHCP struct {
	lease    uint32 // seconds; all ones for ever
	domain   string
	actions  string // to the port that asked
	exchange sync.Pool
	log      *slog.Logger
	logged   onceLog
}

// onceLog remembers what is not logged again. The zero value is ready for use.
type onceLog struct {
	mu     sync.Mutex
	logged map[logKey]struct{}
}

// logKey is something to tell about a port.
type logKey struct{ portID, what, value string }

// maxLogged bounds what is remembered as logged; beyond, it is logged again.
const maxLogged = 4096

// NewDHCP makes the responder of pipeline.FeatureDHCP.
func NewDHCP(cfg DHCPConfig) *DHCP {
	return &DHCP{
		lease:    leaseSeconds(cfg.Lease),
		domain:   strings.Trim(cfg.Domain, "."),
		actions:  flows.ActionList(flows.Output(flows.PortInPort)),
		exchange: sync.Pool{New: func() any { return new(dhcpExchange) }},
		log:      cfg.logger(),
	}
}

func leaseSeconds(lease time.Duration) uint32 {
	if lease == 0 {
		lease = DefaultLease
	}
	if lease < 0 || lease/time.Second >= math.MaxUint32 {
		return math.MaxUint32
	}
	return max(1, uint32(lease/time.Second))
}

// Feature implements Responder.
func (d *DHCP) Feature() pipeline.FeatureID { return pipeline.FeatureDHCP }

// Respond implements Responder. What is not answered is noted as dropped with its reason.
func (d *DHCP) Respond(_ context.Context, in *PacketIn, out *Replies) error {
	x := d.exchange.Get().(*dhcpExchange)
	defer d.exchange.Put(x)
	if reason := d.answer(x, in); reason != "" {
		out.Drop(reason)
		return nil
	}
	out.PacketOut(in.InPort, d.actions, x.frame)
	return nil
}

// dhcpExchange is one request and its reply, with buffers that are used again.
type dhcpExchange struct {
	packet  ipv4Packet
	message dhcpMessage
	port    *network.Port // the sender
	network *network.Network
	server  *network.Port
	lease   dhcpLease
	extras  extraOptions

	frame   []byte
	limit   int       // length that the frame may reach
	sent    [4]uint64 // codes of the options in the frame, as bits
	scratch []byte    // value of an option
}

// dhcpLease is an address of a port, with the subnet and the server's address there.
type dhcpLease struct {
	address netip.Addr
	server  netip.Addr
	subnet  *network.Subnet
}

// answer leaves the reply in x.frame; it returns why there is none, or "".
func (d *DHCP) answer(x *dhcpExchange, in *PacketIn) string {
	if reason := x.packet.parse(in.Data); reason != "" {
		return reason
	}
	x.port, x.network = in.View.PortByKey(in.PortKey()), in.View.NetworkByKey(in.NetworkKey())
	if x.port == nil || x.network == nil || x.port.NetworkID != x.network.ID {
		return dropUnknownPort
	}
	x.server = in.View.DHCPPort(x.network.ID)
	if x.server == nil {
		return dropNoServer
	}
	if x.packet.protocol != protocolUDP {
		return dropOtherType
	}
	x.message = dhcpMessage{}
	if reason := x.message.parse(x.packet.payload); reason != "" {
		return reason
	}
	if x.message.chaddr != x.port.MAC {
		return dropForgedClient
	}
	if x.packet.dst != broadcastIP && !portHasAddress(x.server, x.packet.dst) {
		return dropOtherServer
	}
	return d.converse(x, in)
}

func portHasAddress(p *network.Port, a netip.Addr) bool {
	for _, f := range p.FixedIPs {
		if f.IP == a {
			return true
		}
	}
	return false
}

// converse is the server's side of RFC 2131, section 4.3.
func (d *DHCP) converse(x *dhcpExchange, in *PacketIn) string {
	switch m := &x.message; m.kind {
	case dhcpDiscover:
		m.ciaddr = netip.Addr{} // must be 0
		if found, _ := x.findLease(in.View, m.requested); !found {
			return dropNoAddress
		}
		d.reply(x, in.View, dhcpOffer)
		return ""
	case dhcpRequest:
		return d.request(x, in.View)
	case dhcpInform:
		return d.inform(x, in.View)
	case dhcpDecline:
		if !x.forUs() {
			return dropOtherServer
		}
		d.logDecline(x.port.ID, in.Host, m.requested)
		return dropDeclined
	case dhcpRelease:
		return dropReleased // the address stays the port's
	}
	return dropUnsupported
}

// logDecline logs, once, that somebody else seems to use a port's address.
func (d *DHCP) logDecline(portID, host string, address netip.Addr) {
	if d.logged.first(logKey{portID, "DHCPDECLINE", address.String()}) {
		d.log.Warn("DHCP client declined its address, which somebody else uses", "port_id", portID, "host", host, "address", address)
	}
}

// forUs reports whether the message names no server, or this one.
func (x *dhcpExchange) forUs() bool {
	return !x.message.serverID.IsValid() || portHasAddress(x.server, x.message.serverID)
}

// request answers a DHCPREQUEST: the client is selecting when it names a
// server; else renewing or rebinding when it says that it has an address, and
// rebooting when it only asks for one. Each port's address is known here, so
// that any other one is refused.
func (d *DHCP) request(x *dhcpExchange, view *network.View) string {
	m := &x.message
	if !x.forUs() {
		return dropOtherServer
	}
	want := m.requested
	if m.ciaddr.IsValid() && !m.serverID.IsValid() || !want.IsValid() {
		want = m.ciaddr
	}
	if !want.IsValid() {
		return dropMalformed
	}
	found, exact := x.findLease(view, want)
	if !found {
		return dropNoAddress
	}
	if !exact {
		d.refuse(x)
		return ""
	}
	if m.ciaddr != want { // must be 0 when selecting and rebooting
		m.ciaddr = netip.Addr{}
	}
	d.reply(x, view, dhcpACK)
	return ""
}

// inform answers a client that has its address from elsewhere and asks for the rest.
func (d *DHCP) inform(x *dhcpExchange, view *network.View) string {
	m := &x.message
	if !m.ciaddr.IsValid() {
		m.ciaddr = specified(x.packet.src)
	}
	if !m.ciaddr.IsValid() {
		return dropMalformed
	}
	found, exact := x.findLease(view, m.ciaddr)
	if !found {
		return dropNoAddress
	}
	if !exact && !x.lease.subnet.CIDR.Contains(m.ciaddr) {
		return dropNotOurs
	}
	d.reply(x, view, dhcpACK)
	return ""
}

// findLease sets x.lease to the port's lease of the address want, else to its
// first one. found is false when the port has no address that DHCP hands out.
func (x *dhcpExchange) findLease(view *network.View, want netip.Addr) (found, exact bool) {
	x.lease = dhcpLease{}
	for _, f := range x.port.FixedIPs {
		if !f.IP.Is4() || found && f.IP != want {
			continue
		}
		subnet := view.Subnet(f.SubnetID)
		if subnet == nil || !subnet.EnableDHCP {
			continue
		}
		server, ok := addressIn(x.server, f.SubnetID)
		if !ok {
			continue
		}
		x.lease, found = dhcpLease{address: f.IP, server: server, subnet: subnet}, true
		if f.IP == want {
			return true, true
		}
	}
	return found, false
}

func addressIn(p *network.Port, subnetID string) (netip.Addr, bool) {
	for _, f := range p.FixedIPs {
		if f.SubnetID == subnetID && f.IP.Is4() {
			return f.IP, true
		}
	}
	return netip.Addr{}, false
}

// refuse makes a DHCPNAK.
func (d *DHCP) refuse(x *dhcpExchange) {
	m := &x.message
	x.begin()
	x.put(optionMessageType, []byte{dhcpNAK})
	x.putAddress(optionServerID, x.lease.server)
	x.putClientID()
	x.put(optionMessage, []byte("address is not the port's"))
	m.broadcast, m.ciaddr = true, netip.Addr{} // always by broadcast (RFC 2131, section 4.1)
	x.finish(broadcastIP)
}

// reply makes a DHCPOFFER or DHCPACK.
func (d *DHCP) reply(x *dhcpExchange, view *network.View, kind byte) {
	m := &x.message
	x.begin()
	x.extras.read(x.port.ExtraDHCPOpts, m.fromIPXE, x.lease.server, func(o network.DHCPOption, err error) {
		d.logRefused(x.port.ID, o, err)
	})
	x.put(optionMessageType, []byte{kind})
	x.putAddress(optionServerID, x.lease.server)
	x.putClientID()
	if m.kind != dhcpInform {
		copy(x.bootp()[bootpYiaddr:], x.lease.address.AsSlice())
		d.putLease(x)
	}
	if m.ciaddr.IsValid() {
		putAddress4(x.bootp()[bootpCiaddr:], m.ciaddr)
	}
	x.putBoot()
	for _, code := range m.parameters {
		d.putOption(x, view, code)
	}
	for _, code := range defaultOptions {
		d.putOption(x, view, code)
	}
	for _, o := range x.extras.list {
		d.putOption(x, view, o.code)
	}
	x.finish(x.destination())
}

// logRefused logs an extra_dhcp_opt that can't be sent, once.
func (d *DHCP) logRefused(portID string, o network.DHCPOption, err error) {
	if d.logged.first(logKey{portID, o.Name, o.Value}) {
		d.log.Warn("DHCP option of a port is left out", "port_id", portID, "opt_name", o.Name, "error", err)
	}
}

// first reports whether this has not been logged yet.
func (o *onceLog) first(k logKey) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if _, known := o.logged[k]; known {
		return false
	}
	if o.logged == nil || len(o.logged) >= maxLogged {
		o.logged = make(map[logKey]struct{})
	}
	o.logged[k] = struct{}{}
	return true
}

// putLease puts the lease's time, which is the one that the client asks for
// when that is shorter, and when to renew it.
func (d *DHCP) putLease(x *dhcpExchange) {
	lease := d.lease
	if asked := x.message.leaseTime; asked != 0 {
		lease = min(lease, max(asked, minimumLease))
	}
	x.putUint32(optionLeaseTime, lease)
	if lease == math.MaxUint32 {
		return
	}
	x.putExtraOr(optionT1, lease/2)
	x.putExtraOr(optionT2, uint32(uint64(lease)*7/8))
}

// minimumLease is the shortest lease that a client is given because it asks, in seconds.
const minimumLease = 120

func (x *dhcpExchange) putExtraOr(code byte, seconds uint32) {
	if _, there := x.extras.get(code); !there {
		x.putUint32(code, seconds)
	}
}

// putBoot fills siaddr, sname and file, which old boot ROMs read instead of the options.
func (x *dhcpExchange) putBoot() {
	name, _ := x.extras.get(optionTFTPServer)
	file, _ := x.extras.get(optionBootfile)
	next, _ := x.extras.get(optionNextServer)
	if len(next) == 0 {
		next, _ = x.extras.get(optionTFTPServerAddress)
	}
	if len(next) == 0 {
		if a, err := parseIPv4(string(name)); err == nil {
			next = a.AsSlice()
		}
	}
	b := x.bootp()
	if len(next) >= 4 {
		copy(b[bootpSiaddr:], next[:4])
	}
	if len(name) < bootpFile-bootpSname {
		copy(b[bootpSname:], name)
	}
	if len(file) < bootpCookie-bootpFile {
		copy(b[bootpFile:], file)
	}
}

// putOption puts an option that depends on the port or its subnet, once, if
// there is such a one for the client and room for it.
func (d *DHCP) putOption(x *dhcpExchange, view *network.View, code byte) {
	if x.sent[code>>6]&(1<<(code&63)) != 0 || code == optionPad || code == optionEnd {
		return
	}
	value, there := x.extras.get(code)
	if code == optionMSClassless && !there {
		value, there = x.extras.get(optionClassless)
	}
	if !there {
		x.scratch = d.appendValue(x.scratch[:0], x, view, code)
		value = x.scratch
	}
	if len(value) > 0 {
		x.put(code, value)
	}
}

// appendValue appends the value that an option has from the model, nothing for none.
func (d *DHCP) appendValue(b []byte, x *dhcpExchange, view *network.View, code byte) []byte {
	subnet := x.lease.subnet
	switch code {
	case optionSubnetMask:
		return binary.BigEndian.AppendUint32(b, netmask(subnet.CIDR))
	case optionRouter:
		if gateway := gatewayOf(subnet); gateway.IsValid() {
			return appendAddress(b, gateway)
		}
	case optionDNS:
		for _, a := range subnet.DNSNameservers {
			if a.Is4() && !a.IsUnspecified() { // Neutron: 0.0.0.0 says that there is none
				b = appendAddress(b, a)
			}
		}
	case optionMTU:
		if mtu := x.network.MTU; mtu >= minimumMTU && mtu <= math.MaxUint16 {
			return binary.BigEndian.AppendUint16(b, uint16(mtu))
		}
	case optionBroadcast:
		if subnet.CIDR.Bits() < 31 {
			base := binary.BigEndian.Uint32(subnet.CIDR.Masked().Addr().AsSlice())
			return binary.BigEndian.AppendUint32(b, base|^netmask(subnet.CIDR))
		}
	case optionHostname:
		return appendHostname(b, x.port.DNSName, x.lease.address)
	case optionDomain:
		return append(b, d.domainOf(x.network)...)
	case optionClassless, optionMSClassless:
		return appendRoutes(b, view, &x.lease)
	}
	return b
}

// minimumMTU is the smallest value of option 26 (RFC 2132, section 5.1).
const minimumMTU = 68

func netmask(p netip.Prefix) uint32 { return ^uint32(math.MaxUint32 >> p.Bits()) }

// gatewayOf is the subnet's gateway, else the next hop of its default host
// route, as Neutron has it.
func gatewayOf(subnet *network.Subnet) netip.Addr {
	if subnet.GatewayIP.Is4() {
		return subnet.GatewayIP
	}
	for _, r := range subnet.HostRoutes {
		if r.Destination.Bits() == 0 && r.NextHop.Is4() {
			return r.NextHop
		}
	}
	return netip.Addr{}
}

// appendRoutes appends the classless routes of a lease: its subnet's host
// routes, the network's other subnets on-link, the way to the metadata service,
// and then the default route too, because a client that takes these ignores the
// router option (RFC 3442).
func appendRoutes(b []byte, view *network.View, lease *dhcpLease) []byte {
	start, subnet := len(b), lease.subnet
	for _, r := range subnet.HostRoutes {
		if r.Destination.Addr().Is4() && r.Destination.Bits() > 0 && r.NextHop.Is4() {
			b = appendRoute(b, r.Destination, r.NextHop)
		}
	}
	for s := range view.SubnetsOf(subnet.NetworkID) {
		if s.IPVersion == 4 && s.CIDR != subnet.CIDR {
			b = appendRoute(b, s.CIDR, netip.IPv4Unspecified())
		}
	}
	b = appendMetadataRoute(b, view, lease)
	if gateway := gatewayOf(subnet); len(b) > start && gateway.IsValid() {
		b = appendRoute(b, netip.PrefixFrom(netip.IPv4Unspecified(), 0), gateway)
	}
	return b
}

// appendHostname appends the port's dns_name, or a name made of its address as
// Neutron does: host-10-0-0-5.
func appendHostname(b []byte, name string, address netip.Addr) []byte {
	if name != "" {
		return append(b, strings.TrimSuffix(name, ".")...)
	}
	b = append(b, "host"...)
	for _, v := range address.As4() {
		b = strconv.AppendUint(append(b, '-'), uint64(v), 10)
	}
	return b
}

func (d *DHCP) domainOf(n *network.Network) string {
	if n.DNSDomain != "" {
		return strings.Trim(n.DNSDomain, ".")
	}
	return d.domain
}

// begin starts the reply with what it repeats from the request.
func (x *dhcpExchange) begin() {
	x.sent = [4]uint64{}
	x.limit = ethernetLen + min(x.message.maxSize, max(x.network.MTU, minimumMaxSize), maxOptionLen)
	if cap(x.frame) < ethernetLen+maxOptionLen {
		x.frame = make([]byte, ethernetLen+maxOptionLen)
	}
	x.frame = x.frame[:headersLen+bootpOptions]
	clear(x.frame)
	b, request := x.bootp(), x.message.bootp
	b[0], b[1], b[2] = bootpReply, 1, 6
	copy(b[bootpXID:bootpXID+4], request[bootpXID:])
	copy(b[bootpFlags:bootpFlags+2], request[bootpFlags:])
	copy(b[bootpChaddr:bootpSname], request[bootpChaddr:])
	binary.BigEndian.PutUint32(b[bootpCookie:], dhcpMagic)
}

func (x *dhcpExchange) bootp() []byte { return x.frame[headersLen:] }

// put appends an option, in pieces when it is long (RFC 3396), unless the
// client has no room for it.
func (x *dhcpExchange) put(code byte, value []byte) {
	pieces := max(1, (len(value)+254)/255)
	if len(x.frame)+len(value)+2*pieces+1 > x.limit {
		return
	}
	x.sent[code>>6] |= 1 << (code & 63)
	for range pieces {
		n := min(len(value), 255)
		x.frame = append(append(x.frame, code, byte(n)), value[:n]...)
		value = value[n:]
	}
}

func (x *dhcpExchange) putAddress(code byte, a netip.Addr) {
	v := a.As4()
	x.put(code, v[:])
}

func (x *dhcpExchange) putUint32(code byte, v uint32) {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], v)
	x.put(code, b[:])
}

// putClientID repeats the client's identifier (RFC 6842).
func (x *dhcpExchange) putClientID() {
	if id := x.message.clientID; len(id) > 0 {
		x.put(optionClientID, id)
	}
}

// destination is where the reply goes (RFC 2131, section 4.1).
func (x *dhcpExchange) destination() netip.Addr {
	switch m := &x.message; {
	case m.ciaddr.IsValid():
		return m.ciaddr
	case m.broadcast:
		return broadcastIP
	}
	return x.lease.address
}

// finish ends the options, pads the message and writes the headers.
func (x *dhcpExchange) finish(dst netip.Addr) {
	x.frame = append(x.frame, optionEnd)
	if n := len(x.frame); n < headersLen+bootpMinLen {
		x.frame = x.frame[:headersLen+bootpMinLen]
		clear(x.frame[n:])
	}
	mac := x.message.chaddr
	if dst == broadcastIP {
		mac = broadcastMAC
	}
	copy(x.frame[0:6], mac[:])
	copy(x.frame[6:12], x.server.MAC[:])
	finishDHCP(x.frame, x.lease.server, dst)
}
