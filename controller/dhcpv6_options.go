package controller

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/insomniacslk/dhcp/dhcpv6"

	"planck/network"
)

// option6Kind says how the text of an extra_dhcp_opt with ip_version 6 becomes bytes.
type option6Kind uint8

const (
	kind6Guess     option6Kind = iota // addresses, hex bytes with colons, else text
	kind6Addresses                    // in brackets or not, as dnsmasq
	kind6Domains                      // as DNS writes them
	kind6Text
	kind6Time       // seconds; s, m, h, d, w or infinite
	kind6NTP        // RFC 5908: addresses or domain names, each a suboption
	kind6Parameters // RFC 5970: each with its length
	kind6Servers    // the server's own: refused
)

// option6Types are the options that extra_dhcp_opts can name, by dnsmasq's
// names; others have a number.
var option6Types = []struct {
	code uint16
	name string
	kind option6Kind
}{
	{1, "client-id", kind6Servers},
	{2, "server-id", kind6Servers},
	{3, "ia-na", kind6Servers},
	{4, "ia-ta", kind6Servers},
	{5, "iaaddr", kind6Servers},
	{6, "oro", kind6Servers},
	{7, "preference", kind6Servers},
	{8, "", kind6Servers},  // elapsed time
	{9, "", kind6Servers},  // relay message
	{11, "", kind6Servers}, // authentication
	{12, "unicast", kind6Servers},
	{13, "status", kind6Servers},
	{14, "rapid-commit", kind6Servers},
	{15, "user-class", kind6Guess},
	{16, "vendor-class", kind6Guess},
	{17, "vendor-opts", kind6Guess},
	{18, "", kind6Servers}, // interface id
	{21, "sip-server-domain", kind6Domains},
	{22, "sip-server", kind6Addresses},
	{23, "dns-server", kind6Addresses},
	{24, "domain-search", kind6Domains},
	{25, "", kind6Servers}, // prefix delegation
	{26, "", kind6Servers},
	{27, "nis-server", kind6Addresses},
	{28, "nis+-server", kind6Addresses},
	{29, "nis-domain", kind6Domains},
	{30, "nis+-domain", kind6Domains},
	{31, "sntp-server", kind6Addresses},
	{32, "information-refresh-time", kind6Time},
	{39, "fqdn", kind6Servers},
	{41, "posix-timezone", kind6Text},
	{42, "tzdb-timezone", kind6Text},
	{56, "ntp-server", kind6NTP},
	{59, "bootfile-url", kind6Text},
	{60, "bootfile-param", kind6Parameters},
}

// parseExtra6 reads an extra_dhcp_opt: dnsmasq's name or the number, after
// "option6:" or "option:"; a blank value gives an option of no bytes.
func parseExtra6(o network.DHCPOption) (*dhcpv6.OptionGeneric, error) {
	code, kind, err := findOption6(o.Name)
	if err != nil {
		return nil, err
	}
	if kind == kind6Servers {
		return nil, fmt.Errorf("DHCPv6 option %q is the server's own", o.Name)
	}
	option := &dhcpv6.OptionGeneric{OptionCode: dhcpv6.OptionCode(code)}
	text := strings.TrimSpace(o.Value)
	if text == "" {
		return option, nil
	}
	option.OptionData, err = appendOption6(nil, kind, text)
	if err == nil && len(option.OptionData) > maxOptionLen {
		err = fmt.Errorf("DHCPv6 option %q is longer than %d bytes", o.Name, maxOptionLen)
	}
	if err == nil { // no client is to choke on it
		_, err = dhcpv6.ParseOption(option.OptionCode, option.OptionData)
	}
	return option, err
}

func findOption6(name string) (code uint16, kind option6Kind, err error) {
	rest := strings.ToLower(strings.TrimSpace(name))
	rest = strings.TrimPrefix(strings.TrimPrefix(rest, "option6:"), "option:")
	number, err := strconv.ParseUint(rest, 10, 16)
	numbered := err == nil && number > 0
	for _, t := range option6Types {
		if numbered && uint64(t.code) == number || !numbered && rest != "" && t.name == rest {
			return t.code, t.kind, nil
		}
	}
	if !numbered {
		return 0, 0, fmt.Errorf("DHCPv6 option %q is not known", name)
	}
	return uint16(number), kind6Guess, nil
}

func appendOption6(b []byte, kind option6Kind, text string) ([]byte, error) {
	switch kind {
	case kind6Addresses:
		return appendAddresses6(b, text)
	case kind6Domains:
		return appendDomains(b, text)
	case kind6Text:
		return appendText(b, text)
	case kind6Time:
		return appendTime(b, text)
	case kind6NTP:
		return appendNTP(b, text)
	case kind6Parameters:
		return appendParameters(b, text)
	}
	if out, err := appendAddresses6(b, text); err == nil {
		return out, nil
	}
	if out, ok := appendHex(b, text); ok {
		return out, nil
	}
	return appendText(b, text)
}

func parseIPv6(text string) (netip.Addr, error) {
	a, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(text, "["), "]"))
	if err == nil && (!a.Is6() || a.Zone() != "") {
		err = fmt.Errorf("%s is not an IPv6 address", text)
	}
	return a, err
}

func appendAddresses6(b []byte, text string) ([]byte, error) {
	err := eachField(text, func(field string) error {
		a, err := parseIPv6(field)
		if err == nil {
			b = appendAddress16(b, a)
		}
		return err
	})
	return b, err
}

// Suboptions of the option for NTP servers.
const (
	ntpAddress = 1
	ntpGroup   = 2
	ntpName    = 3
)

func appendNTP(b []byte, text string) ([]byte, error) {
	err := eachField(text, func(field string) error {
		kind, value := uint16(ntpName), []byte(nil)
		a, err := parseIPv6(field)
		if err == nil {
			if kind = ntpAddress; a.IsMulticast() {
				kind = ntpGroup
			}
			value = a.AsSlice()
		} else if value, err = appendDomain(nil, field); err != nil {
			return err
		}
		b = binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(b, kind), uint16(len(value)))
		b = append(b, value...)
		return nil
	})
	return b, err
}

func appendParameters(b []byte, text string) ([]byte, error) {
	for parameter := range strings.SplitSeq(text, ",") {
		value, err := appendText(nil, parameter)
		if err != nil {
			return b, err
		}
		b = append(binary.BigEndian.AppendUint16(b, uint16(len(value))), value...)
	}
	return b, nil
}
