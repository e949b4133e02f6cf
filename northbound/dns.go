package northbound

import (
	"net/netip"
	"strconv"
	"strings"

	"planck/network"
)

var dnsExtension = extension{"dns-integration", "DNS Integration", "Provides integration with DNS.", "2015-08-15T18:00:00-00:00"}

// nameMost is the longest DNS name, in characters.
const nameMost = 255

// dnsKind is a DNS name in lower case, or "".
func dnsKind(check func(name string) error) kind[string] {
	return textKind(func(v any) (string, error) {
		s, ok := v.(string)
		if !ok {
			return "", invalidInput("Input value %s must be string type", show(v))
		}
		s = strings.ToLower(s)
		if s == "" {
			return "", nil
		}
		return s, check(s)
	})
}

// dnsDomain is the fully qualified name of a domain, or "".
func dnsDomain() kind[string] {
	return dnsKind(func(name string) error {
		if !strings.HasSuffix(name, ".") {
			return notValid(name, "is not a FQDN")
		}
		if len(name) > nameMost-2 {
			return notValid(name, "contains "+strconv.Itoa(len(name))+" characters. Adding a sub-domain will cause it to exceed the "+
				"maximum length of a FQDN of '"+strconv.Itoa(nameMost)+"'")
		}
		return checkName(name)
	})
}

// dnsName is the name of a host, or "". One that ends with a dot has its domain in it.
func dnsName() kind[string] { return dnsKind(checkName) }

// relativeName is the name that a floating IP has in its domain, or "".
func relativeName() kind[string] {
	return dnsKind(func(name string) error {
		if strings.HasSuffix(name, ".") {
			return notValid(name, "is a FQDN. It should be a relative domain name")
		}
		if err := checkName(name); err != nil {
			return err
		}
		if len(name) > nameMost-3 {
			return notValid(name, "contains "+strconv.Itoa(len(name))+" characters. Adding a domain name will cause it to exceed the "+
				"maximum length of a FQDN of '"+strconv.Itoa(nameMost)+"'")
		}
		return nil
	})
}

// checkPublished sees to it that a floating IP has a name in a domain, or neither.
func checkPublished(f *network.FloatingIP) error {
	switch {
	case f.DNSDomain != "" && f.DNSName == "":
		return badResource("floatingip", "dns_domain cannot be specified without a dns_name")
	case f.DNSName != "" && f.DNSDomain == "":
		return badResource("floatingip", "dns_name cannot be specified without a dns_domain")
	}
	return nil
}

// checkName is Neutron's _validate_dns_format (RFC 1123, section 2.1).
func checkName(name string) error {
	bad := func(why string) error { return notValid(name, "not a valid PQDN or FQDN. Reason: "+why) }
	trimmed := strings.TrimSuffix(name, ".")
	if len(trimmed) > nameMost {
		return bad("'" + clip(trimmed) + "' exceeds the " + strconv.Itoa(nameMost) + " character FQDN limit")
	}
	labels := strings.Split(trimmed, ".")
	for _, label := range labels {
		switch {
		case label == "":
			return bad("Encountered an empty component")
		case strings.HasPrefix(label, "-") || strings.HasSuffix(label, "-"):
			return bad("Name '" + label + "' must not start or end with a hyphen")
		case len(label) > 63 || strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-") != "":
			return bad("Name '" + label + "' must be 1-63 characters long, each of which can only be alphanumeric or a hyphen")
		}
	}
	if top := labels[len(labels)-1]; len(labels) > 1 && strings.Trim(top, "0123456789") == "" {
		return bad("TLD '" + top + "' must not be all numeric")
	}
	return nil
}

// domainOf is the domain of a port, with a dot at its end; "" for none. DHCP
// tells VMs the same one.
func (r *reader) domainOf(p *network.Port) string {
	if n := r.network(p.NetworkID); n != nil && n.DNSDomain != "" {
		return n.DNSDomain
	}
	return r.domain
}

// checkDNSName sees to it that the name of a port fits its domain.
func checkDNSName(r *reader, p *network.Port) error {
	name, domain := p.DNSName, r.domainOf(p)
	if name == "" || domain == "" {
		return nil
	}
	if !strings.HasSuffix(name, ".") {
		if len(name)+1+len(domain) > nameMost {
			return badRequest("Invalid input for dns_name. Reason: The dns_name passed is a PQDN and its size is '%d'. "+
				"Concatenated with the dns_domain %s to form a FQDN it exceeds the maximum size of '%d'.", len(name), domain, nameMost)
		}
		return nil
	}
	if !strings.HasSuffix(name, "."+domain) {
		return badRequest("Invalid input for dns_name. Reason: The dns_name passed is a FQDN. Its higher level labels must be equal to "+
			"the dns_domain, that has been set to '%[1]s'. It must also include one or more valid DNS labels to the left of '%[1]s'.", domain)
	}
	return nil
}

// dnsAssignment is the attribute dns_assignment: the name of each address.
func dnsAssignment() attribute[network.Port] {
	return attribute[network.Port]{
		name: "dns_assignment",
		write: func(b []byte, r *reader, p *network.Port) []byte {
			domain := r.domainOf(p)
			return appendList(b, p.FixedIPs, func(b []byte, f network.FixedIP) []byte {
				b = appendAddr(append(b, `{"ip_address": `...), f.IP)
				b = append(b, `, "hostname": "`...)
				begin := len(b)
				b = appendHostname(b, p.DNSName, f.IP)
				end := len(b)
				b = append(b, `", "fqdn": "`...)
				b = append(b, b[begin:end]...)
				if domain != "" && b[len(b)-1] != '.' {
					b = append(append(b, '.'), domain...)
				}
				return append(b, `"}`...)
			})
		},
	}
}

// appendHostname writes the port's name, or one made of its address: host-10-0-0-5.
func appendHostname(b []byte, name string, ip netip.Addr) []byte {
	if name != "" {
		return append(b, name...)
	}
	b = append(b, "host-"...)
	begin := len(b)
	b = ip.AppendTo(b)
	for i := begin; i < len(b); i++ {
		if b[i] == '.' || b[i] == ':' {
			b[i] = '-'
		}
	}
	return b
}
