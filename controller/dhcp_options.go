package controller

import (
	"encoding/binary"
	"fmt"
	"math"
	"net/netip"
	"strconv"
	"strings"

	"planck/network"
)

// Codes of DHCP options (RFC 2132, RFC 3397, RFC 3442, RFC 5859 and IANA's list).
const (
	optionPad               = 0
	optionSubnetMask        = 1
	optionRouter            = 3
	optionDNS               = 6
	optionHostname          = 12
	optionDomain            = 15
	optionMTU               = 26
	optionBroadcast         = 28
	optionRequestedAddress  = 50
	optionLeaseTime         = 51
	optionOverload          = 52
	optionMessageType       = 53
	optionServerID          = 54
	optionParameters        = 55
	optionMessage           = 56
	optionMaxSize           = 57
	optionT1                = 58
	optionT2                = 59
	optionClientID          = 61
	optionTFTPServer        = 66
	optionBootfile          = 67
	optionUserClass         = 77
	optionClassless         = 121
	optionTFTPServerAddress = 150
	optionIPXE              = 175
	optionMSClassless       = 249 // the same as 121, for Windows clients of before RFC 3442
	optionEnd               = 255

	// optionNextServer stands for siaddr, which dnsmasq treats as an option.
	optionNextServer = optionEnd
)

// defaultOptions are sent whether the client asks for them or not, after those
// that it asks for.
var defaultOptions = [...]byte{
	optionSubnetMask, optionRouter, optionClassless, optionDNS, optionMTU,
	optionBroadcast, optionDomain, optionHostname,
}

// optionKind says how the text of an extra_dhcp_opt becomes bytes.
type optionKind uint8

const (
	kindGuess     optionKind = iota // addresses, hex bytes with colons, a number, else text: as dnsmasq
	kindAddresses                   // 0.0.0.0 is the DHCP server
	kindPairs                       // an even number of addresses
	kindText
	kindUint8
	kindUint16
	kindUint32
	kindInt32
	kindTime    // seconds; s, m, h, d, w or infinite
	kindDomains // RFC 3397
	kindSIP     // RFC 3361: addresses or domain names
	kindRoutes  // RFC 3442: prefix,next hop,…
	kindServers // the server's own: refused
	kindIgnored // accepted and not sent
)

// optionType is an option that extra_dhcp_opts can name.
type optionType struct {
	code byte
	name string // dnsmasq's; "" when only its number is known
	kind optionKind
}

var optionTypes = [...]optionType{
	{1, "netmask", kindAddresses},
	{2, "time-offset", kindInt32},
	{3, "router", kindAddresses},
	{6, "dns-server", kindAddresses},
	{7, "log-server", kindAddresses},
	{9, "lpr-server", kindAddresses},
	{12, "hostname", kindText},
	{13, "boot-file-size", kindUint16},
	{15, "domain-name", kindText},
	{16, "swap-server", kindAddresses},
	{17, "root-path", kindText},
	{18, "extension-path", kindText},
	{19, "ip-forward-enable", kindUint8},
	{20, "non-local-source-routing", kindUint8},
	{21, "policy-filter", kindPairs},
	{22, "max-datagram-reassembly", kindUint16},
	{23, "default-ttl", kindUint8},
	{26, "mtu", kindUint16},
	{27, "all-subnets-local", kindUint8},
	{28, "broadcast", kindAddresses},
	{31, "router-discovery", kindUint8},
	{32, "router-solicitation", kindAddresses},
	{33, "static-route", kindPairs},
	{34, "trailer-encapsulation", kindUint8},
	{35, "arp-timeout", kindUint32},
	{36, "ethernet-encap", kindUint8},
	{37, "tcp-ttl", kindUint8},
	{38, "tcp-keepalive", kindUint32},
	{40, "nis-domain", kindText},
	{41, "nis-server", kindAddresses},
	{42, "ntp-server", kindAddresses},
	{43, "vendor-encap", kindGuess},
	{44, "netbios-ns", kindAddresses},
	{45, "netbios-dd", kindAddresses},
	{46, "netbios-nodetype", kindUint8},
	{47, "netbios-scope", kindGuess},
	{48, "x-windows-fs", kindAddresses},
	{49, "x-windows-dm", kindAddresses},
	{50, "requested-address", kindServers},
	{51, "lease-time", kindServers},
	{52, "option-overload", kindServers},
	{53, "message-type", kindServers},
	{54, "server-identifier", kindServers},
	{55, "parameter-request", kindServers},
	{56, "message", kindServers},
	{57, "max-message-size", kindServers},
	{58, "T1", kindTime},
	{59, "T2", kindTime},
	{60, "vendor-class", kindGuess},
	{61, "client-id", kindIgnored}, // Neutron: selects the host, is not sent; we go by the port
	{64, "nis+-domain", kindText},
	{65, "nis+-server", kindAddresses},
	{66, "tftp-server", kindText},
	{67, "bootfile-name", kindText},
	{68, "mobile-ip-home", kindAddresses},
	{69, "smtp-server", kindAddresses},
	{70, "pop3-server", kindAddresses},
	{71, "nntp-server", kindAddresses},
	{74, "irc-server", kindAddresses},
	{77, "user-class", kindGuess},
	{80, "rapid-commit", kindServers},
	{81, "FQDN", kindServers},
	{82, "agent-info", kindServers},
	{93, "client-arch", kindUint16},
	{94, "client-interface-id", kindGuess},
	{97, "client-machine-id", kindGuess},
	{100, "posix-timezone", kindText},
	{101, "tzdb-timezone", kindText},
	{108, "ipv6-only", kindUint32},
	{118, "subnet-select", kindServers},
	{119, "domain-search", kindDomains},
	{120, "sip-server", kindSIP},
	{121, "classless-static-route", kindRoutes},
	{125, "vendor-id-encap", kindGuess},
	{150, "tftp-server-address", kindAddresses},
	{249, "", kindRoutes},
	{255, "server-ip-address", kindAddresses},
}

var optionsByName, optionKinds = indexOptionTypes()

func indexOptionTypes() (map[string]byte, [256]optionKind) {
	names, kinds := make(map[string]byte, len(optionTypes)), [256]optionKind{}
	for _, t := range optionTypes {
		kinds[t.code] = t.kind
		if t.name != "" {
			names[strings.ToLower(t.name)] = t.code
		}
	}
	return names, kinds
}

// parseOptionName reads the opt_name of an extra_dhcp_opt: dnsmasq's name or
// the number, after "option:" and any number of "tag:NAME," or "tag:!NAME,".
// The one tag that a client can have is ipxe; applies is false when the tags
// exclude this client.
func parseOptionName(name string, ipxe bool) (code byte, applies bool, err error) {
	applies = true
	rest := strings.TrimSpace(name)
	for strings.HasPrefix(rest, "tag:") {
		tag, after, found := strings.Cut(rest[len("tag:"):], ",")
		if !found {
			return 0, false, fmt.Errorf("DHCP option %q has tags only", name)
		}
		negated := strings.HasPrefix(tag, "!")
		has := ipxe && strings.TrimPrefix(tag, "!") == "ipxe"
		applies = applies && has != negated
		rest = strings.TrimSpace(after)
	}
	rest = strings.TrimPrefix(rest, "option:")
	if n, err := strconv.ParseUint(rest, 10, 8); err == nil && n > optionPad && n <= optionEnd {
		return byte(n), applies, nil
	}
	if c, ok := optionsByName[rest]; ok {
		return c, applies, nil
	}
	if c, ok := optionsByName[strings.ToLower(rest)]; ok {
		return c, applies, nil
	}
	return 0, false, fmt.Errorf("DHCP option %q is not known", name)
}

// appendOption appends the bytes that the text of an extra_dhcp_opt stands for;
// the text is not blank.
func appendOption(b []byte, code byte, text string, server netip.Addr) ([]byte, error) {
	text = strings.TrimSpace(text)
	switch optionKinds[code] {
	case kindAddresses:
		return appendAddresses(b, text, server)
	case kindPairs:
		return appendPairs(b, text)
	case kindText:
		return appendText(b, text)
	case kindUint8:
		return appendNumber(b, text, 1)
	case kindUint16:
		return appendNumber(b, text, 2)
	case kindUint32:
		return appendNumber(b, text, 4)
	case kindInt32:
		n, err := strconv.ParseInt(text, 0, 32)
		return binary.BigEndian.AppendUint32(b, uint32(n)), err
	case kindTime:
		return appendTime(b, text)
	case kindDomains:
		return appendDomains(b, text)
	case kindSIP:
		return appendSIP(b, text, server)
	case kindRoutes:
		return appendRoutesText(b, text)
	case kindServers:
		return b, fmt.Errorf("DHCP option %d is the server's own", code)
	}
	return appendGuess(b, text, server)
}

// eachField calls do for each of the fields between commas and spaces.
func eachField(text string, do func(string) error) error {
	fields := 0
	for field := range strings.FieldsFuncSeq(text, func(r rune) bool { return r == ',' || r == ' ' }) {
		if err := do(field); err != nil {
			return err
		}
		fields++
	}
	if fields == 0 {
		return fmt.Errorf("%q has no value", text)
	}
	return nil
}

func parseIPv4(text string) (netip.Addr, error) {
	a, err := netip.ParseAddr(text)
	if err == nil && !a.Is4() {
		err = fmt.Errorf("%s is not an IPv4 address", text)
	}
	return a, err
}

func appendAddress(b []byte, a netip.Addr) []byte {
	v := a.As4()
	return append(b, v[:]...)
}

func appendAddresses(b []byte, text string, server netip.Addr) ([]byte, error) {
	err := eachField(text, func(field string) error {
		a, err := parseIPv4(field)
		if err != nil {
			return err
		}
		if a.IsUnspecified() && server.Is4() {
			a = server
		}
		b = appendAddress(b, a)
		return nil
	})
	return b, err
}

func appendPairs(b []byte, text string) ([]byte, error) {
	out, err := appendAddresses(b, text, netip.Addr{})
	if err == nil && (len(out)-len(b))%8 != 0 {
		err = fmt.Errorf("%q is not a list of pairs of addresses", text)
	}
	return out, err
}

func appendText(b []byte, text string) ([]byte, error) {
	for i := range len(text) {
		if text[i] < ' ' || text[i] == 0x7f {
			return b, fmt.Errorf("%q has a control character", text)
		}
	}
	return append(b, text...), nil
}

// appendNumber appends an unsigned number of size bytes.
func appendNumber(b []byte, text string, size int) ([]byte, error) {
	n, err := strconv.ParseUint(text, 0, size*8)
	for i := size - 1; i >= 0; i-- {
		b = append(b, byte(n>>(8*i)))
	}
	return b, err
}

func appendTime(b []byte, text string) ([]byte, error) {
	if text == "infinite" {
		return binary.BigEndian.AppendUint32(b, math.MaxUint32), nil
	}
	unit := uint64(1)
	if i := strings.IndexByte("smhdw", text[len(text)-1]); i >= 0 {
		unit, text = [...]uint64{1, 60, 3600, 86400, 604800}[i], text[:len(text)-1]
	}
	n, err := strconv.ParseUint(text, 10, 32)
	if err == nil && n*unit > math.MaxUint32 {
		err = fmt.Errorf("%s is too long a time", text)
	}
	return binary.BigEndian.AppendUint32(b, uint32(n*unit)), err
}

func appendDomains(b []byte, text string) ([]byte, error) {
	err := eachField(text, func(domain string) (err error) {
		b, err = appendDomain(b, domain)
		return err
	})
	return b, err
}

// appendDomain appends a domain name as DNS writes it (RFC 1035, section 3.1), uncompressed.
func appendDomain(b []byte, domain string) ([]byte, error) {
	domain = strings.TrimSuffix(domain, ".")
	if len(domain) == 0 || len(domain) > 253 {
		return b, fmt.Errorf("%q is not a domain name", domain)
	}
	for label := range strings.SplitSeq(domain, ".") {
		if len(label) == 0 || len(label) > 63 || !isLabel(label) {
			return b, fmt.Errorf("%q is not a domain name", domain)
		}
		b = append(append(b, byte(len(label))), label...)
	}
	return append(b, 0), nil
}

func isLabel(label string) bool {
	for i := range len(label) {
		c := label[i] | 0x20
		if (c < 'a' || c > 'z') && (label[i] < '0' || label[i] > '9') && label[i] != '-' && label[i] != '_' {
			return false
		}
	}
	return true
}

func appendSIP(b []byte, text string, server netip.Addr) ([]byte, error) {
	if out, err := appendAddresses(append(b, 1), text, server); err == nil {
		return out, nil
	}
	return appendDomains(append(b, 0), text)
}

// appendRoutesText appends routes that are written as prefix,next hop,prefix,next hop,…
func appendRoutesText(b []byte, text string) ([]byte, error) {
	var destination netip.Prefix
	err := eachField(text, func(field string) error {
		if !destination.IsValid() {
			p, err := parseIPv4Prefix(field)
			destination = p
			return err
		}
		hop, err := parseIPv4(field)
		if err != nil {
			return err
		}
		b = appendRoute(b, destination, hop)
		destination = netip.Prefix{}
		return nil
	})
	if err == nil && destination.IsValid() {
		err = fmt.Errorf("%q: the route to %s has no next hop", text, destination)
	}
	return b, err
}

func parseIPv4Prefix(text string) (netip.Prefix, error) {
	if !strings.Contains(text, "/") {
		a, err := parseIPv4(text)
		return netip.PrefixFrom(a, 32), err
	}
	p, err := netip.ParsePrefix(text)
	if err == nil && !p.Addr().Is4() {
		err = fmt.Errorf("%s is not an IPv4 prefix", text)
	}
	return p, err
}

// appendRoute appends a route as RFC 3442 writes it: the prefix length, the
// octets of the prefix that count, the next hop (0.0.0.0 for on-link).
func appendRoute(b []byte, destination netip.Prefix, hop netip.Addr) []byte {
	a := destination.Masked().Addr().As4()
	b = append(b, byte(destination.Bits()))
	b = append(b, a[:(destination.Bits()+7)/8]...)
	return appendAddress(b, hop)
}

// appendGuess reads the value of an option of unknown type as dnsmasq does.
func appendGuess(b []byte, text string, server netip.Addr) ([]byte, error) {
	if out, err := appendAddresses(b, text, server); err == nil {
		return out, nil
	}
	if out, ok := appendHex(b, text); ok {
		return out, nil
	}
	if n, err := strconv.ParseUint(text, 10, 32); err == nil {
		switch {
		case n > math.MaxUint16:
			return binary.BigEndian.AppendUint32(b, uint32(n)), nil
		case n > math.MaxUint8:
			return binary.BigEndian.AppendUint16(b, uint16(n)), nil
		}
		return append(b, byte(n)), nil
	}
	return appendText(b, text)
}

// appendHex reads bytes in hexadecimal between colons; there are at least two.
func appendHex(b []byte, text string) ([]byte, bool) {
	if !strings.Contains(text, ":") {
		return b, false
	}
	for field := range strings.SplitSeq(text, ":") {
		n, err := strconv.ParseUint(field, 16, 8)
		if err != nil {
			return b, false
		}
		b = append(b, byte(n))
	}
	return b, true
}

// extraOption is an extra_dhcp_opt that applies to a client.
type extraOption struct {
	code       byte
	start, end int // in the arena
}

// extraOptions are the extra_dhcp_opts of a port that apply to one client.
type extraOptions struct {
	list  []extraOption
	arena []byte
}

// read takes what applies from opts; refused hears of each that is wrong, which is left out.
func (e *extraOptions) read(opts []network.DHCPOption, ipxe bool, server netip.Addr, refused func(network.DHCPOption, error)) {
	e.list, e.arena = e.list[:0], e.arena[:0]
	for _, o := range opts {
		if o.IPVersion == 6 {
			continue
		}
		code, applies, err := parseOptionName(o.Name, ipxe)
		if err != nil {
			refused(o, err)
			continue
		}
		if _, there := e.get(code); there || !applies || optionKinds[code] == kindIgnored {
			continue
		}
		start := len(e.arena)
		arena, err := e.arena, error(nil)
		if strings.TrimSpace(o.Value) != "" {
			arena, err = appendOption(e.arena, code, o.Value, server)
		}
		if err == nil && len(arena)-start > maxOptionLen {
			err = fmt.Errorf("DHCP option %q is longer than %d bytes", o.Name, maxOptionLen)
		}
		if err != nil {
			refused(o, err)
			continue
		}
		e.arena = arena
		e.list = append(e.list, extraOption{code: code, start: start, end: len(arena)})
	}
}

// maxOptionLen is more than any reply has room for.
const maxOptionLen = 1500

// get is the value for code; an empty value suppresses the option.
func (e *extraOptions) get(code byte) (value []byte, there bool) {
	for _, o := range e.list {
		if o.code == code {
			return e.arena[o.start:o.end], true
		}
	}
	return nil, false
}
