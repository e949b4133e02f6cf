package controller

import (
	"bytes"
	"context"
	"encoding/binary"
	"log/slog"
	"math"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv6"
	"github.com/insomniacslk/dhcp/iana"

	"planck/flows"
	"planck/network"
	"planck/pipeline"
)

// DHCPv6 is the DHCPv6 server of all networks (RFC 8415): like DHCP, it answers
// from the model alone and keeps no leases. To a client it is the network:dhcp
// port of the network; its DUID is made of that port's MAC. A client is known
// by the port that it sends from, whatever its DUID.
type DHCPv6 struct {
	lease   time.Duration
	domain  string
	actions string // to the port that asked
	log     *slog.Logger
	logged  onceLog
}

// NewDHCPv6 makes the responder of pipeline.FeatureDHCPv6.
func NewDHCPv6(cfg DHCPConfig) *DHCPv6 {
	return &DHCPv6{
		lease:   time.Duration(leaseSeconds(cfg.Lease)) * time.Second,
		domain:  strings.Trim(cfg.Domain, "."),
		actions: flows.ActionList(flows.Output(flows.PortInPort)),
		log:     cfg.logger(),
	}
}

// Feature implements Responder.
func (*DHCPv6) Feature() pipeline.FeatureID { return pipeline.FeatureDHCPv6 }

const (
	dhcpv6ServerPort = 547
	dhcpv6ClientPort = 546
	// udpChecksum is where UDP has its checksum.
	udpChecksum = 6
	// maxDUID is the length of the longest DUID.
	maxDUID = 130
)

// infinite is the lifetime of what does not end.
const infinite = math.MaxUint32 * time.Second

var dhcpv6Servers = netip.MustParseAddr("ff02::1:2")

// dhcpv6Exchange is one request and what is known of its sender.
type dhcpv6Exchange struct {
	packet   ipv6Packet
	request  dhcpv6.Message
	clientID []byte
	serverID []byte // nil for none

	view    *network.View
	host    string
	port    *network.Port
	network *network.Network
	server  *network.Port
	leases  []netip.Addr
}

// Respond implements Responder. What is not answered is noted as dropped with its reason.
func (d *DHCPv6) Respond(_ context.Context, in *PacketIn, out *Replies) error {
	x := dhcpv6Exchange{view: in.View, host: in.Host}
	if reason := x.read(in); reason != "" {
		out.Drop(reason)
		return nil
	}
	reply, reason := d.converse(&x)
	if reason != "" {
		out.Drop(reason)
		return nil
	}
	out.PacketOut(in.InPort, d.actions, x.frame(reply))
	return nil
}

// read reads the request and finds its sender; it returns why there is no answer, or "".
func (x *dhcpv6Exchange) read(in *PacketIn) string {
	if reason := x.packet.parse(in.Data); reason != "" {
		return reason
	}
	x.port, x.network = in.View.PortByKey(in.PortKey()), in.View.NetworkByKey(in.NetworkKey())
	if x.port == nil || x.network == nil || x.port.NetworkID != x.network.ID {
		return dropUnknownPort
	}
	if x.server = in.View.DHCPPort(x.network.ID); x.server == nil || !servesDHCPv6(in.View, x.network.ID) {
		return dropNoServer
	}
	if x.packet.ethSrc != x.port.MAC {
		return dropForgedClient
	}
	if x.packet.dst != dhcpv6Servers {
		return dropOtherServer
	}
	x.leases = leasesOf(in.View, x.port)
	return x.parse()
}

func servesDHCPv6(v *network.View, networkID string) bool {
	for s := range v.SubnetsOf(networkID) {
		if s.ServesDHCPv6() {
			return true
		}
	}
	return false
}

// leasesOf are the addresses of a port that DHCPv6 hands out.
func leasesOf(v *network.View, p *network.Port) []netip.Addr {
	var leases []netip.Addr
	for _, f := range p.FixedIPs {
		if s := v.Subnet(f.SubnetID); s != nil && s.LeasesDHCPv6() {
			leases = append(leases, f.IP)
		}
	}
	return leases
}

// parse reads the payload of the packet. The UDP checksum is not looked at, as
// with DHCPv4.
func (x *dhcpv6Exchange) parse() string {
	payload := x.packet.payload
	if x.packet.protocol != protocolUDP {
		return dropOtherType
	}
	if len(payload) < udpLen+dhcpv6.MessageHeaderSize {
		return dropTruncated
	}
	if binary.BigEndian.Uint16(payload[2:]) != dhcpv6ServerPort {
		return dropOtherType
	}
	length := int(binary.BigEndian.Uint16(payload[4:]))
	if length > len(payload) {
		return dropTruncated
	}
	if length < udpLen+dhcpv6.MessageHeaderSize || !unicast(x.packet.src) {
		return dropMalformed
	}
	message := payload[udpLen:length]
	x.request.MessageType = dhcpv6.MessageType(message[0])
	x.request.TransactionID = dhcpv6.TransactionID(message[1:4])
	switch x.request.MessageType {
	case dhcpv6.MessageTypeRelayForward, dhcpv6.MessageTypeRelayReply:
		return dropRelayed
	}
	if err := x.request.Options.FromBytesWithParser(message[dhcpv6.MessageHeaderSize:], parseDHCPv6Option); err != nil {
		return dropMalformed
	}
	return x.identify()
}

// parseDHCPv6Option decodes what the server understands and keeps the rest as it is.
func parseDHCPv6Option(code dhcpv6.OptionCode, data []byte) (dhcpv6.Option, error) {
	switch code {
	case dhcpv6.OptionIANA, dhcpv6.OptionIATA, dhcpv6.OptionIAPD, dhcpv6.OptionORO:
		return dhcpv6.ParseOption(code, data)
	}
	return &dhcpv6.OptionGeneric{OptionCode: code, OptionData: data}, nil
}

// raw is the value of an option that is kept as it is, nil for none.
func (x *dhcpv6Exchange) raw(code dhcpv6.OptionCode) []byte {
	if o, ok := x.request.Options.GetOne(code).(*dhcpv6.OptionGeneric); ok {
		return append([]byte{}, o.OptionData...)
	}
	return nil
}

// identify checks the identifiers that a message must and must not have (RFC
// 8415, 16); it returns why the message is not for this server, or "".
func (x *dhcpv6Exchange) identify() string {
	x.clientID, x.serverID = x.raw(dhcpv6.OptionClientID), x.raw(dhcpv6.OptionServerID)
	if x.clientID != nil && (len(x.clientID) < 3 || len(x.clientID) > maxDUID) {
		return dropMalformed
	}
	informs := x.request.MessageType == dhcpv6.MessageTypeInformationRequest
	if x.clientID == nil && !informs {
		return dropMalformed
	}
	switch x.request.MessageType {
	case dhcpv6.MessageTypeSolicit, dhcpv6.MessageTypeConfirm, dhcpv6.MessageTypeRebind:
		if x.serverID != nil {
			return dropMalformed
		}
	case dhcpv6.MessageTypeRequest, dhcpv6.MessageTypeRenew, dhcpv6.MessageTypeRelease, dhcpv6.MessageTypeDecline:
		if x.serverID == nil {
			return dropMalformed
		}
	}
	if x.serverID != nil && !bytes.Equal(x.serverID, serverDUID(x.server.MAC)) {
		return dropOtherServer
	}
	return ""
}

// serverDUID is the DUID of a server with this MAC: its link-layer address (RFC 8415, 11.4).
func serverDUID(mac network.MAC) []byte {
	return append([]byte{0, byte(dhcpv6.DUID_LL), 0, byte(iana.HWTypeEthernet)}, mac[:]...)
}

// converse is the server's side of RFC 8415, section 18.3.
func (d *DHCPv6) converse(x *dhcpv6Exchange) (*dhcpv6.Message, string) {
	switch x.request.MessageType {
	case dhcpv6.MessageTypeSolicit:
		return d.solicited(x), ""
	case dhcpv6.MessageTypeRequest, dhcpv6.MessageTypeRenew, dhcpv6.MessageTypeRebind:
		reply := x.reply(dhcpv6.MessageTypeReply)
		d.assign(x, reply)
		d.configure(x, reply)
		return reply, ""
	case dhcpv6.MessageTypeConfirm:
		return d.confirm(x)
	case dhcpv6.MessageTypeRelease, dhcpv6.MessageTypeDecline:
		return d.giveUp(x), ""
	case dhcpv6.MessageTypeInformationRequest:
		if len(x.request.Options.IANA())+len(x.request.Options.IATA())+len(x.request.Options.IAPD()) > 0 {
			return nil, dropMalformed
		}
		reply := x.reply(dhcpv6.MessageTypeReply)
		d.configure(x, reply)
		return reply, ""
	}
	return nil, dropUnsupported
}

func (d *DHCPv6) solicited(x *dhcpv6Exchange) *dhcpv6.Message {
	rapid := x.raw(dhcpv6.OptionRapidCommit) != nil && len(x.leases) > 0
	kind := dhcpv6.MessageTypeAdvertise
	if rapid {
		kind = dhcpv6.MessageTypeReply
	}
	reply := x.reply(kind)
	if rapid {
		reply.AddOption(&dhcpv6.OptionGeneric{OptionCode: dhcpv6.OptionRapidCommit})
	}
	// There is no other server: the client need not wait for one.
	reply.AddOption(dhcpv6.OptPreference(math.MaxUint8))
	d.assign(x, reply)
	d.configure(x, reply)
	return reply
}

// reply begins a message with the identifiers.
func (x *dhcpv6Exchange) reply(kind dhcpv6.MessageType) *dhcpv6.Message {
	reply := &dhcpv6.Message{MessageType: kind, TransactionID: x.request.TransactionID}
	if x.clientID != nil {
		reply.AddOption(&dhcpv6.OptionGeneric{OptionCode: dhcpv6.OptionClientID, OptionData: x.clientID})
	}
	reply.AddOption(&dhcpv6.OptionGeneric{OptionCode: dhcpv6.OptionServerID, OptionData: serverDUID(x.server.MAC)})
	return reply
}

// assign answers each identity association: the first has the port's addresses,
// and any other address that the client says it has ends.
func (d *DHCPv6) assign(x *dhcpv6Exchange, reply *dhcpv6.Message) {
	leases := x.leases
	for _, asked := range x.request.Options.IANA() {
		ia := &dhcpv6.OptIANA{IaId: asked.IaId}
		for _, a := range leases {
			ia.Options.Add(&dhcpv6.OptIAAddress{IPv6Addr: a.AsSlice(), PreferredLifetime: d.lease, ValidLifetime: d.lease})
		}
		if x.request.MessageType != dhcpv6.MessageTypeSolicit {
			addLost(ia, asked, leases)
		}
		if len(leases) > 0 {
			ia.T1, ia.T2 = d.renewal()
		} else {
			ia.Options.Add(&dhcpv6.OptStatusCode{StatusCode: iana.StatusNoAddrsAvail, StatusMessage: "the port has no more addresses"})
		}
		leases = nil
		reply.AddOption(ia)
	}
	for _, asked := range x.request.Options.IATA() {
		ia := &dhcpv6.OptIATA{IaId: asked.IaId}
		ia.Options.Add(&dhcpv6.OptStatusCode{StatusCode: iana.StatusNoAddrsAvail, StatusMessage: "there are no temporary addresses"})
		reply.AddOption(ia)
	}
	for _, asked := range x.request.Options.IAPD() {
		ia := &dhcpv6.OptIAPD{IaId: asked.IaId}
		ia.Options.Add(&dhcpv6.OptStatusCode{StatusCode: iana.StatusNoPrefixAvail, StatusMessage: "prefixes are not delegated"})
		reply.AddOption(ia)
	}
}

// addLost gives a lifetime of 0 to what a client has and its port has not.
func addLost(ia, asked *dhcpv6.OptIANA, leases []netip.Addr) {
	for _, o := range asked.Options.Addresses() {
		if a, ok := netip.AddrFromSlice(o.IPv6Addr); ok && !slices.Contains(leases, a) {
			ia.Options.Add(&dhcpv6.OptIAAddress{IPv6Addr: o.IPv6Addr})
		}
	}
}

// renewal is when a client renews and rebinds.
func (d *DHCPv6) renewal() (t1, t2 time.Duration) {
	if d.lease == infinite {
		return infinite, infinite
	}
	return d.lease / 2, d.lease / 5 * 4
}

// confirm tells a client that may have moved whether its addresses are still its own.
func (d *DHCPv6) confirm(x *dhcpv6Exchange) (*dhcpv6.Message, string) {
	status := &dhcpv6.OptStatusCode{StatusCode: iana.StatusSuccess, StatusMessage: "the addresses are the port's"}
	addresses := 0
	for _, asked := range x.request.Options.IANA() {
		for _, o := range asked.Options.Addresses() {
			addresses++
			if a, ok := netip.AddrFromSlice(o.IPv6Addr); !ok || !slices.Contains(x.leases, a) {
				status = &dhcpv6.OptStatusCode{StatusCode: iana.StatusNotOnLink, StatusMessage: "an address is not the port's"}
			}
		}
	}
	if addresses == 0 {
		return nil, dropNoAddress
	}
	reply := x.reply(dhcpv6.MessageTypeReply)
	reply.AddOption(status)
	return reply, ""
}

// giveUp answers a client that does not want its addresses: they stay the port's.
func (d *DHCPv6) giveUp(x *dhcpv6Exchange) *dhcpv6.Message {
	reply := x.reply(dhcpv6.MessageTypeReply)
	reply.AddOption(&dhcpv6.OptStatusCode{StatusCode: iana.StatusSuccess})
	for _, asked := range x.request.Options.IANA() {
		known := false
		for _, o := range asked.Options.Addresses() {
			a, ok := netip.AddrFromSlice(o.IPv6Addr)
			if !ok || !slices.Contains(x.leases, a) {
				continue
			}
			known = true
			if x.request.MessageType == dhcpv6.MessageTypeDecline {
				d.logDecline(x, a)
			}
		}
		if !known {
			ia := &dhcpv6.OptIANA{IaId: asked.IaId}
			ia.Options.Add(&dhcpv6.OptStatusCode{StatusCode: iana.StatusNoBinding, StatusMessage: "the addresses are not the port's"})
			reply.AddOption(ia)
		}
	}
	return reply
}

// logDecline logs, once, that somebody else seems to use a port's address.
func (d *DHCPv6) logDecline(x *dhcpv6Exchange, address netip.Addr) {
	if d.logged.first(logKey{x.port.ID, "Decline", address.String()}) {
		d.log.Warn("DHCPv6 client declined its address, which somebody else uses", "port_id", x.port.ID, "host", x.host, "address", address)
	}
}

// configure adds what a client is told beside its addresses: the port's own
// options first, then what follows from the model.
func (d *DHCPv6) configure(x *dhcpv6Exchange, reply *dhcpv6.Message) {
	room := max(x.network.MTU, minimumMTU6) - ipv6Len - udpLen - len(reply.ToBytes())
	put := func(o dhcpv6.Option) {
		if size := len(o.ToBytes()); size > 0 && size+4 <= room {
			room -= size + 4
			reply.AddOption(o)
		}
	}
	extras := d.extras(x)
	for _, o := range extras {
		put(o)
	}
	for _, o := range d.defaults(x) {
		if !slices.ContainsFunc(extras, func(e *dhcpv6.OptionGeneric) bool { return e.OptionCode == o.Code() }) {
			put(o)
		}
	}
}

// minimumMTU6 is the least MTU of a link with IPv6.
const minimumMTU6 = 1280

// extras are the port's extra_dhcp_opts; what can't be sent is logged, once. An
// empty one suppresses a default.
func (d *DHCPv6) extras(x *dhcpv6Exchange) []*dhcpv6.OptionGeneric {
	var extras []*dhcpv6.OptionGeneric
	for _, o := range x.port.ExtraDHCPOpts {
		if o.IPVersion != 6 {
			continue
		}
		option, err := parseExtra6(o)
		if err != nil {
			if d.logged.first(logKey{x.port.ID, o.Name, o.Value}) {
				d.log.Warn("DHCPv6 option of a port is left out", "port_id", x.port.ID, "opt_name", o.Name, "error", err)
			}
			continue
		}
		if !slices.ContainsFunc(extras, func(e *dhcpv6.OptionGeneric) bool { return e.OptionCode == option.OptionCode }) {
			extras = append(extras, option)
		}
	}
	return extras
}

// defaults are the options that follow from the model.
func (d *DHCPv6) defaults(x *dhcpv6Exchange) []dhcpv6.Option {
	var options []dhcpv6.Option
	if servers := d.nameservers(x); len(servers) > 0 {
		options = append(options, dhcpv6.OptDNS(servers...))
	}
	domain := d.domain
	if x.network.DNSDomain != "" {
		domain = strings.Trim(x.network.DNSDomain, ".")
	}
	if labels, err := appendDomains(nil, domain); err == nil {
		options = append(options, &dhcpv6.OptionGeneric{OptionCode: dhcpv6.OptionDomainSearchList, OptionData: labels})
	}
	if x.request.MessageType == dhcpv6.MessageTypeInformationRequest {
		options = append(options, dhcpv6.OptInformationRefreshTime(d.lease))
	}
	return options
}

// nameservers are those of the subnets with DHCPv6 on which the port has an
// address, else of all of the network.
func (d *DHCPv6) nameservers(x *dhcpv6Exchange) []net.IP {
	var own, all []net.IP
	for s := range x.view.SubnetsOf(x.network.ID) {
		if !s.ServesDHCPv6() {
			continue
		}
		on := slices.ContainsFunc(x.port.FixedIPs, func(f network.FixedIP) bool { return f.SubnetID == s.ID })
		for _, a := range s.DNSNameservers {
			if !unicast(a) {
				continue
			}
			all = append(all, a.AsSlice())
			if on {
				own = append(own, a.AsSlice())
			}
		}
	}
	if len(own) > 0 {
		return own
	}
	return all
}

// frame is the frame that carries a reply.
func (x *dhcpv6Exchange) frame(reply *dhcpv6.Message) []byte {
	message := reply.ToBytes()
	frame := appendIPv6(make([]byte, 0, ethernetLen+ipv6Len+udpLen+len(message)),
		x.packet.ethSrc, x.server.MAC, x.server.MAC.LinkLocal(), x.packet.src, protocolUDP, 64)
	frame = binary.BigEndian.AppendUint16(frame, dhcpv6ServerPort)
	frame = binary.BigEndian.AppendUint16(frame, dhcpv6ClientPort)
	frame = binary.BigEndian.AppendUint16(frame, uint16(udpLen+len(message)))
	frame = append(append(frame, 0, 0), message...)
	finishIPv6(frame, udpChecksum)
	return frame
}
