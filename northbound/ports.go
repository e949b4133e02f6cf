package northbound

import (
	"iter"
	"net/netip"
	"slices"
	"strings"

	"planck/network"
)

var portExtensions = []extension{
	{"binding", "Port Binding", "Expose port bindings of a virtual port to external application", "2014-02-03T10:00:00-00:00"},
	bindingsExtension,
	{"allowed-address-pairs", "Allowed Address Pairs", "Provides allowed address pairs", "2013-07-23T10:00:00-00:00"},
	{"aap-reject-multicast", "Allowed address pairs reject multicast extension", "Reject multicast addresses in Allowed Address Pairs", "2026-04-01T00:00:00-00:00"},
	{"extra_dhcp_opt", "Neutron Extra DHCP options", "Extra options configuration for DHCP. For example PXE boot options to DHCP clients can be specified (e.g. tftp-server, server-ip-address, bootfile-name)", "2013-03-17T12:00:00-00:00"},
	{"ip_allocation", "IP Allocation", "IP allocation extension.", "2016-06-10T23:00:00-00:00"},
	{"ip-substring-filtering", "IP address substring filtering", "Provides IP address substring filtering when listing ports", "2017-11-28T09:00:00-00:00"},
	{"port-mac-address-regenerate", "Neutron Port MAC address regenerate", "Network port MAC address regenerate", "2018-05-03T10:00:00-00:00"},
	dnsExtension,
	{"uplink-status-propagation", "Uplink status propagation extension", "Provides ability to propagate port uplink status.", "2018-05-31T18:00:00-00:00"},
	{"uplink-status-propagation-updatable", "Uplink status propagation updatable extension", "Provides ability to update the port uplink status.", "2024-09-03T18:00:00-00:00"},
	{"tag-ports-during-bulk-creation", "Tag Ports During Bulk Creation", "Allow to tag ports during bulk creation", "2019-12-29T19:00:00-00:00"},
}

// ports is the resource /v2.0/ports.
func ports() *resource[network.Port] {
	return &resource[network.Port]{
		name: "port", collection: "ports", path: "ports",
		extensions: portExtensions,
		attributes: portAttributes(),
		standard:   func(p *network.Port) *network.Standard { return &p.Standard },
		get:        (*network.View).Port,
		all:        (*network.View).Ports,
		indexes: []index[network.Port]{
			{"device_id", (*network.View).PortsOfDevice},
			{"network_id", (*network.View).PortsOf},
			{"fixed_ips", portsBySubnet},
			{"binding:host_id", (*network.View).PortsBoundTo},
			{"project_id", (*network.View).PortsOfProject},
			{"tenant_id", (*network.View).PortsOfProject},
		},
		reachable: portsReachable,
		visible:   (*reader).portVisible,
		target:    portTarget,
		notFound:  portNotFound,
		clone:     (*network.Port).Clone,
		prepare:   preparePort,
		create: func(c *change, p *network.Port) error {
			if err := settlePort(c, p); err != nil {
				return err
			}
			if err := defaultGroups(c, p); err != nil {
				return err
			}
			return c.tx.CreatePort(p)
		},
		update: func(c *change, p, _ *network.Port) error {
			if err := settlePort(c, p); err != nil {
				return err
			}
			return c.tx.UpdatePort(p)
		},
		remove: (*network.Tx).DeletePort,
	}
}

func portTarget(view *network.View, p *network.Port) target {
	return &modelTarget{id: p.ID, projectID: p.ProjectID, deviceOwner: p.DeviceOwner, networkID: p.NetworkID, view: view}
}

func portNotFound(id string) error {
	return network.Errorf(network.NotFound, "PortNotFound", "Port %s could not be found.", id)
}

func portAttributes() []attribute[network.Port] {
	type P = network.Port
	standard := func(p *P) *network.Standard { return &p.Standard }
	list := standardAttributes(standard)
	list = append(list, tagAttributes(standard, onPost)...)
	return append(list,
		field("network_id", uuidKind, onPost|required|sortable|filterable, func(p *P) *string { return &p.NetworkID }),
		derived("status", text(16), sortable|filterable, portStatus),
		field("admin_state_up", boolean, readWrite|sortable|filterable, func(p *P) *bool { return &p.AdminStateUp }).withDefault(true),
		field("mac_address", portMAC(), readWrite|sortable|filterable|byPolicy, func(p *P) *network.MAC { return &p.MAC }),
		fixedIPs(),
		field("device_id", text(deviceSize), readWrite|sortable|filterable|byPolicy, func(p *P) *string { return &p.DeviceID }).withDefault(""),
		field("device_owner", text(deviceSize), readWrite|sortable|filterable|byPolicy, func(p *P) *string { return &p.DeviceOwner }).withDefault(""),
		portGroups(),
		field("port_security_enabled", boolean, readWrite|byPolicy, func(p *P) *bool { return &p.PortSecurityEnabled }),
		addressPairs(),
		argument("extra_dhcp_opts", dhcpOptions(), readWrite, shownDHCPOptions),
		field("binding:host_id", refusedLater(textOrNull(nameSize)), readWrite|filterable|byPolicy, func(p *P) *string { return &p.Binding.Host }),
		field("binding:vnic_type", oneOf(vnicTypes...), readWrite|byPolicy, func(p *P) *string { return &p.Binding.VNICType }).withDefault("normal"),
		field("binding:profile", dict(4095), readWrite|byPolicy, func(p *P) *map[string]any { return &p.Binding.Profile }),
		derived("binding:vif_type", text(64), 0, vifType),
		derived("binding:vif_details", dict(4095), 0, func(_ *reader, p *P) map[string]any { return p.Binding.VIFDetails }),
		derived("ip_allocation", text(16), sortable|filterable, ipAllocation),
		field("dns_name", dnsName(), readWrite, func(p *P) *string { return &p.DNSName }).withDefault(""),
		dnsAssignment(),
		uplinkStatus(),
	)
}

// uplinkStatus is propagate_uplink_status, which is true unless said otherwise.
func uplinkStatus() attribute[network.Port] {
	a := argument("propagate_uplink_status", boolean, readWrite, func(_ *reader, p *network.Port) bool { return !p.KeepUplinkStatus })
	a.set = func(p *network.Port, v any) { p.KeepUplinkStatus = !v.(bool) }
	return a
}

// vnicTypes are the values of binding:vnic_type.
var vnicTypes = []string{"normal", "direct", "macvtap", "baremetal", "direct-physical", "virtio-forwarder", "smart-nic",
	"vdpa", "accelerator-direct", "accelerator-direct-physical", "remote-managed"}

func portStatus(r *reader, p *network.Port) string {
	if s := r.view.PortStatus(p.ID); s != nil {
		return s.Status
	}
	return network.StatusDown
}

func vifType(_ *reader, p *network.Port) string {
	if p.Binding.VIFType == "" {
		return network.VIFTypeUnbound
	}
	return p.Binding.VIFType
}

func ipAllocation(_ *reader, p *network.Port) string {
	if len(p.FixedIPs) == 0 {
		return "none"
	}
	return "immediate"
}

// portsReachable are the ports of a tenant and of its networks.
func portsReachable(r *reader) iter.Seq[*network.Port] {
	return func(yield func(*network.Port) bool) {
		for p := range r.view.PortsOfProject(r.who.ProjectID) {
			if !yield(p) {
				return
			}
		}
		for n := range r.view.NetworksOfProject(r.who.ProjectID) {
			for p := range r.view.PortsOf(n.ID) {
				if !r.owns(p.ProjectID) && !yield(p) {
					return
				}
			}
		}
	}
}

func portsBySubnet(view *network.View, filter string) iter.Seq[*network.Port] {
	if id, ok := strings.CutPrefix(filter, "subnet_id="); ok {
		return view.PortsOfSubnet(id)
	}
	return view.Ports()
}

// preparePort sees to it that the caller can see the network, and takes the
// network's port security where the client said nothing.
func preparePort(c *change, p *network.Port) error {
	n := c.tx.Network(p.NetworkID)
	if !c.r.networkVisible(n) {
		return networkNotFound(p.NetworkID)
	}
	if !c.in.has("port_security_enabled") {
		p.PortSecurityEnabled = n.PortSecurityEnabled
	}
	if p.Service() {
		p.PortSecurityEnabled = false
	}
	return nil
}

// settlePort applies what the input says about several attributes at once.
func settlePort(c *change, p *network.Port) error {
	if options, ok := valueOf[[]dhcpOption](c.in, "extra_dhcp_opts"); ok {
		p.ExtraDHCPOpts = mergeDHCPOptions(p.ExtraDHCPOpts, options)
	}
	if c.in.has("binding:host_id") {
		p.Binding.ByPlug = false
	}
	if c.in.has("dns_name") {
		if err := checkDNSName(c.r, p); err != nil {
			return err
		}
	}
	return checkGroups(c, p)
}

// portMAC is the MAC of a port; null asks for a new one.
func portMAC() kind[network.MAC] {
	k := macKind
	k.parse = func(v any) (network.MAC, error) {
		if v == nil {
			return network.MAC{}, nil
		}
		mac, err := parseMAC(v)
		if err == nil && mac[0]&1 == 1 {
			err = notValid(v, "is not a valid MAC address")
		}
		return mac, err
	}
	return k
}

func portGroups() attribute[network.Port] {
	k := listOf("'%s' is not a list", parseUUID, appendString)
	k = unique(k, func(id string) string { return "Duplicate items in the list: '" + id + "'" })
	a := field("security_groups", k, readWrite, func(p *network.Port) *[]string { return &p.SecurityGroups })
	a.flags |= filterable
	a.match = func(values []string) (func(*reader, *network.Port) bool, error) {
		return func(_ *reader, p *network.Port) bool { return hasAny(p.SecurityGroups, values) }, nil
	}
	return a
}

func fixedIPs() attribute[network.Port] {
	a := field("fixed_ips", fixedIPList(), readWrite|filterable|byPolicy, func(p *network.Port) *[]network.FixedIP { return &p.FixedIPs })
	a.match = matchFixedIPs
	return a
}

// fixedIPList is a list of addresses, each wanted by itself, by its subnet, or both.
func fixedIPList() kind[[]network.FixedIP] {
	k := listOf("Invalid data format for fixed IP: '%s'", parseFixedIP, func(b []byte, f network.FixedIP) []byte {
		b = appendString(append(b, `{"subnet_id": `...), f.SubnetID)
		b = appendAddr(append(b, `, "ip_address": `...), f.IP)
		return append(b, '}')
	})
	parse := notNull(k, "Invalid data format for fixed IP: '%s'").parse
	k.parse = func(v any) ([]network.FixedIP, error) {
		list, err := parse(v)
		if err != nil {
			return nil, err
		}
		seen := map[netip.Addr]bool{}
		for _, f := range list {
			if f.IP.IsValid() && seen[f.IP] {
				return nil, reason("Duplicate IP address '" + f.IP.String() + "'")
			}
			seen[f.IP] = true
		}
		return list, nil
	}
	return k
}

func parseFixedIP(v any) (network.FixedIP, error) {
	var f network.FixedIP
	m, ok := v.(map[string]any)
	if !ok {
		return f, reason("Invalid data format for fixed IP: '" + show(v) + "'")
	}
	if unknown := unknownKeys(m, "ip_address", "subnet_id"); unknown != "" {
		return f, reason("Unrecognized attribute(s) '" + unknown + "'")
	}
	if len(m) == 0 {
		return f, invalidInput("IP allocation requires subnet_id or ip_address")
	}
	var err error
	if raw, ok := m["ip_address"]; ok {
		if f.IP, err = parseAddr(raw); err != nil {
			return f, err
		}
	}
	if raw, ok := m["subnet_id"]; ok {
		f.SubnetID, err = parseUUID(raw)
	}
	return f, err
}

func unknownKeys(m map[string]any, known ...string) string {
	unknown := slices.DeleteFunc(sortedKeys(m), func(key string) bool { return slices.Contains(known, key) })
	return clip(strings.Join(unknown, ", "))
}

// matchFixedIPs reads fixed_ips=ip_address=…, subnet_id=… and ip_address_substr=…:
// one address of the port must satisfy all keys that are given. Other keys say
// nothing, as in Neutron.
func matchFixedIPs(values []string) (func(*reader, *network.Port) bool, error) {
	wanted := map[string][]string{}
	for _, filter := range values {
		key, value, ok := strings.Cut(filter, "=")
		key = strings.TrimSpace(key)
		if !ok || key == "" {
			return nil, invalidInput("'%s' is not of the form <key>=[value]", clip(filter))
		}
		if slices.Contains([]string{"ip_address", "subnet_id", "ip_address_substr"}, key) {
			wanted[key] = append(wanted[key], strings.TrimSpace(value))
		}
	}
	if len(wanted) == 0 {
		return func(*reader, *network.Port) bool { return true }, nil
	}
	addresses := map[netip.Addr]bool{}
	for _, text := range wanted["ip_address"] {
		if a, err := parseAddr(text); err == nil {
			addresses[a] = true
		}
	}
	fits := func(f network.FixedIP) bool {
		if wanted["ip_address"] != nil && !addresses[f.IP] {
			return false
		}
		if of := wanted["subnet_id"]; of != nil && !slices.Contains(of, f.SubnetID) {
			return false
		}
		parts := wanted["ip_address_substr"]
		return parts == nil || slices.ContainsFunc(parts, func(part string) bool { return strings.Contains(f.IP.String(), part) })
	}
	return func(_ *reader, p *network.Port) bool { return slices.ContainsFunc(p.FixedIPs, fits) }, nil
}

func addressPairs() attribute[network.Port] {
	k := kind[[]network.AddressPair]{parse: parseAddressPairs, clone: slices.Clone[[]network.AddressPair]}
	a := field("allowed_address_pairs", k, readWrite|byPolicy, func(p *network.Port) *[]network.AddressPair { return &p.AllowedAddressPairs })
	a.write = func(b []byte, _ *reader, p *network.Port) []byte {
		return appendList(b, p.AllowedAddressPairs, func(b []byte, pair network.AddressPair) []byte {
			return appendAddressPair(b, pair, p.MAC)
		})
	}
	return a
}

func appendAddressPair(b []byte, pair network.AddressPair, own network.MAC) []byte {
	b = append(b, `{"ip_address": `...)
	if pair.IP.IsSingleIP() {
		b = appendAddr(b, pair.IP.Addr())
	} else {
		b = appendPrefix(b, pair.IP)
	}
	mac := pair.MAC
	if mac == (network.MAC{}) {
		mac = own
	}
	b = appendMAC(append(b, `, "mac_address": `...), mac)
	return append(b, '}')
}

func parseAddressPairs(v any) ([]network.AddressPair, error) {
	if v == nil {
		return []network.AddressPair{}, nil
	}
	raw, ok := v.([]any)
	if !ok {
		return nil, badRequest("Allowed address pairs must be a list.")
	}
	pairs := make([]network.AddressPair, 0, len(raw))
	seen := map[network.AddressPair]bool{}
	for _, item := range raw {
		pair, err := parseAddressPair(item)
		if err != nil {
			return nil, err
		}
		if seen[pair] {
			m := item.(map[string]any)
			return nil, network.Errorf(network.Invalid, "DuplicateAddressPairInRequest",
				"Request contains duplicate address pair: mac_address %s ip_address %s.", show(m["mac_address"]), show(m["ip_address"]))
		}
		seen[pair] = true
		pairs = append(pairs, pair)
	}
	return pairs, nil
}

func parseAddressPair(v any) (network.AddressPair, error) {
	var pair network.AddressPair
	m, ok := v.(map[string]any)
	if !ok {
		return pair, notValid(v, "is not a dictionary")
	}
	var err error
	if raw, ok := m["mac_address"]; ok {
		if pair.MAC, err = parseMAC(raw); err != nil {
			return pair, badRequest("%s", err)
		}
	}
	raw, ok := m["ip_address"]
	if !ok {
		return pair, network.Errorf(network.Invalid, "AllowedAddressPairsMissingIP", "AllowedAddressPair must contain ip_address")
	}
	if unknown := unknownKeys(m, "ip_address", "mac_address"); unknown != "" {
		return pair, badRequest("Unrecognized attribute(s) '%s'", unknown)
	}
	if pair.IP, err = parseAddressOrBlock(raw); err != nil {
		return pair, badRequest("%s", err)
	}
	if pair.IP.Addr().IsMulticast() {
		return pair, badRequest("IP %s is a multicast address, which is not supported.", show(raw))
	}
	if pair.MAC[0]&1 == 1 {
		return pair, badRequest("MAC address %s is a multicast address, which is not supported.", show(m["mac_address"]))
	}
	return pair, nil
}

func parseAddressOrBlock(v any) (netip.Prefix, error) {
	s, _ := v.(string)
	if !strings.Contains(s, "/") {
		a, err := parseAddr(v)
		return netip.PrefixFrom(a, a.BitLen()), err
	}
	p, err := netip.ParsePrefix(s)
	if err != nil || p.Addr().Is4In6() {
		return netip.Prefix{}, notValid(v, "is not a valid IP subnet")
	}
	return p, nil
}

// dhcpOption is one extra_dhcp_opts of a request; without a value it removes the option.
type dhcpOption struct {
	network.DHCPOption
	remove bool
}

// blankOptions are the options whose value may be empty.
var blankOptions = []string{"router", "classless-static-route"}

// Sizes of a DHCP option, in characters.
const (
	dhcpNameSize  = 64
	dhcpValueSize = 255
)

func dhcpOptions() kind[[]dhcpOption] {
	k := listOf("'%s' is not a list", parseDHCPOption, func(b []byte, o dhcpOption) []byte {
		b = appendString(append(b, `{"opt_name": `...), o.Name)
		b = appendString(append(b, `, "opt_value": `...), o.Value)
		b = appendInt(append(b, `, "ip_version": `...), o.IPVersion)
		return append(b, '}')
	})
	parse := k.parse
	k.parse = func(v any) ([]dhcpOption, error) {
		list, err := parse(v)
		if why, ok := err.(reason); ok {
			return nil, invalidInput("%s", why)
		}
		if err != nil {
			return nil, err
		}
		seen := map[dhcpOption]bool{}
		for _, o := range list {
			o := dhcpOption{DHCPOption: network.DHCPOption{Name: o.Name, IPVersion: o.IPVersion}}
			if seen[o] {
				return nil, invalidInput("Duplicate items in the list: '%s'", clip(o.Name))
			}
			seen[o] = true
		}
		return list, nil
	}
	return k
}

func parseDHCPOption(v any) (dhcpOption, error) {
	o := dhcpOption{DHCPOption: network.DHCPOption{IPVersion: 4}}
	bad := reason("No valid key specs matched for: " + show(v))
	m, ok := v.(map[string]any)
	if !ok || unknownKeys(m, "opt_name", "opt_value", "ip_version") != "" {
		return o, bad
	}
	var err error
	if o.Name, err = parseText(m["opt_name"], dhcpNameSize); err != nil || !oneLine(o.Name) {
		return o, bad
	}
	if raw, ok := m["ip_version"]; ok {
		if o.IPVersion, err = ipVersion().parse(raw); err != nil {
			return o, bad
		}
	}
	raw, ok := m["opt_value"]
	if !ok {
		return o, bad
	}
	if raw == nil {
		o.remove = true
		return o, nil
	}
	if o.Value, err = parseText(raw, dhcpValueSize); err != nil {
		return o, bad
	}
	if !oneLine(o.Value) && !slices.Contains(blankOptions, o.Name) {
		return o, bad
	}
	return o, nil
}

func oneLine(s string) bool { return strings.TrimSpace(s) != "" && !strings.ContainsAny(s, "\r\n\v\f") }

// mergeDHCPOptions applies a request to the options of a port: each one given
// is set or removed, all others stay.
func mergeDHCPOptions(have []network.DHCPOption, change []dhcpOption) []network.DHCPOption {
	merged := slices.Clone(have)
	for _, o := range change {
		at := slices.IndexFunc(merged, func(h network.DHCPOption) bool { return h.Name == o.Name && h.IPVersion == o.IPVersion })
		switch {
		case o.remove && at >= 0:
			merged = slices.Delete(merged, at, at+1)
		case o.remove:
		case at >= 0:
			merged[at] = o.DHCPOption
		default:
			merged = append(merged, o.DHCPOption)
		}
	}
	return merged
}

func shownDHCPOptions(_ *reader, p *network.Port) []dhcpOption {
	list := make([]dhcpOption, len(p.ExtraDHCPOpts))
	for i, o := range p.ExtraDHCPOpts {
		list[i].DHCPOption = o
	}
	return list
}
