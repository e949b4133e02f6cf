// Package network is the logical model of Planck: networks, subnets, ports and
// the facts about hosts, with address management, invariants, and the store
// that keeps them. It imports no other package of Planck.
package network

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Kind names a type of object in the store and in the change feed.
type Kind string

// The kinds of objects.
const (
	KindNetwork    Kind = "network"
	KindSubnet     Kind = "subnet"
	KindPort       Kind = "port"
	KindPortStatus Kind = "port_status"
	KindHost       Kind = "host"
	KindVIF        Kind = "vif"
	KindPresence   Kind = "presence"
	KindDeparture  Kind = "departure"
	KindRouter     Kind = "router"
	KindFloatingIP Kind = "floatingip"
	KindZone       Kind = "zone"
	KindTransit    Kind = "transit"

	KindFloatingIPWired  Kind = "floatingip_wired"
	KindGatewayPlacement Kind = "gateway_placement"
	KindHostDown         Kind = "host_down"
	KindExternalNeighbor Kind = "external_neighbor"
	KindAddressHolder    Kind = "address_holder"
	KindFlush            Kind = "flush"
	KindReadiness        Kind = "readiness"
	KindQuota            Kind = "quota"
	KindSubnetPool       Kind = "subnetpool"
	KindTopology         Kind = "auto_allocated_topology"
	KindAgent            Kind = "agent"
)

// Object is anything the store keeps. Objects that came out of a View or a
// Change are shared and must not be modified: copy first.
type Object interface {
	// ObjectKind is the kind under which the object is stored.
	ObjectKind() Kind
	// ObjectID is unique within the kind.
	ObjectID() string
}

// Standard holds the attributes that every API resource has
// (Neutron extensions standard-attr-*).
type Standard struct {
	ID             string    `json:"id"`
	ProjectID      string    `json:"project_id"`
	Name           string    `json:"name"`
	Description    string    `json:"description,omitempty"`
	Tags           []string  `json:"tags,omitempty"`
	CreatedAt      time.Time `json:"created_at"`
	UpdatedAt      time.Time `json:"updated_at"`
	RevisionNumber int       `json:"revision_number"`
}

// ObjectID implements Object.
func (s *Standard) ObjectID() string { return s.ID }

// ObjectName is the name that its owner gave it, "" for none.
func (s *Standard) ObjectName() string { return s.Name }

// ObjectProject is the project that has the object.
func (s *Standard) ObjectProject() string { return s.ProjectID }

// Network types, the values of provider:network_type.
const (
	TypeLocal  = "local"
	TypeFlat   = "flat"
	TypeVLAN   = "vlan"
	TypeGRE    = "gre"
	TypeVXLAN  = "vxlan"
	TypeGeneve = "geneve"
)

// Network is an isolated layer-2 segment.
type Network struct {
	Standard
	AdminStateUp        bool     `json:"admin_state_up"`
	Shared              bool     `json:"shared"`
	External            bool     `json:"external"`
	IsDefault           bool     `json:"is_default,omitempty"`
	NetworkType         string   `json:"network_type"`
	PhysicalNetwork     string   `json:"physical_network,omitempty"` // "" for none
	SegmentationID      uint32   `json:"segmentation_id,omitempty"`  // VLAN id or tunnel id; 0 for none
	MTU                 int      `json:"mtu"`                        // bytes
	PortSecurityEnabled bool     `json:"port_security_enabled"`
	DNSDomain           string   `json:"dns_domain,omitempty"`
	AZHints             []string `json:"availability_zone_hints,omitempty"`
	// More are its segments beyond the first, each on another physical network.
	More []Segment `json:"more_segments,omitempty"`
	// Key is the small id of the network in flows: metadata[0..31]. Never 0.
	Key uint32 `json:"key"`
}

// ObjectKind implements Object.
func (*Network) ObjectKind() Kind { return KindNetwork }

// Tunnelled reports whether the network's frames travel in tunnels between hosts.
func (n *Network) Tunnelled() bool {
	return n.NetworkType == TypeGRE || n.NetworkType == TypeVXLAN || n.NetworkType == TypeGeneve
}

// Provider reports whether the network's frames travel on a physical network.
func (n *Network) Provider() bool {
	return n.NetworkType == TypeFlat || n.NetworkType == TypeVLAN
}

// Range is an inclusive range of addresses.
type Range struct {
	Start netip.Addr `json:"start"`
	End   netip.Addr `json:"end"`
}

// Contains reports whether a lies in the range.
func (r Range) Contains(a netip.Addr) bool {
	return r.Start.Compare(a) <= 0 && a.Compare(r.End) <= 0
}

// String is the form of Neutron's messages.
func (r Range) String() string { return r.Start.String() + "-" + r.End.String() }

// Route is a host route of a subnet, or an extra route of a router.
type Route struct {
	Destination netip.Prefix `json:"destination"`
	NextHop     netip.Addr   `json:"nexthop"`
}

// IPv6 address and router advertisement modes.
const (
	SLAAC           = "slaac"
	DHCPv6Stateful  = "dhcpv6-stateful"
	DHCPv6Stateless = "dhcpv6-stateless"
)

// Subnet is a block of addresses on a network.
type Subnet struct {
	Standard
	NetworkID       string       `json:"network_id"`
	IPVersion       int          `json:"ip_version"` // 4 or 6
	CIDR            netip.Prefix `json:"cidr"`
	GatewayIP       netip.Addr   `json:"gateway_ip"` // zero for none
	DNSNameservers  []netip.Addr `json:"dns_nameservers,omitempty"`
	AllocationPools []Range      `json:"allocation_pools"`
	HostRoutes      []Route      `json:"host_routes,omitempty"`
	EnableDHCP      bool         `json:"enable_dhcp"`
	IPv6AddressMode string       `json:"ipv6_address_mode,omitempty"`
	IPv6RAMode      string       `json:"ipv6_ra_mode,omitempty"`
	ServiceTypes    []string     `json:"service_types,omitempty"`
	// SubnetPoolID is the pool that CIDR is of, "" for none.
	SubnetPoolID string `json:"subnetpool_id,omitempty"`
	// PrefixLen is input for CreateSubnet only: how long the prefix from the pool
	// shall be where CIDR is zero; Unset is the pool's default.
	PrefixLen int `json:"-"`
}

// ObjectKind implements Object.
func (*Subnet) ObjectKind() Kind { return KindSubnet }

// EUI64 reports whether ports derive their addresses on this subnet from their MAC.
func (s *Subnet) EUI64() bool {
	return s.IPVersion == 6 && (automatic(s.IPv6AddressMode) || automatic(s.IPv6RAMode))
}

func automatic(mode string) bool { return mode == SLAAC || mode == DHCPv6Stateless }

// FixedIP is an address of a port.
type FixedIP struct {
	SubnetID string     `json:"subnet_id"`
	IP       netip.Addr `json:"ip_address"`
}

// AddressPair is an additional source that a port may use
// (extension allowed-address-pairs). MAC is the port's own when it was not given.
type AddressPair struct {
	IP  netip.Prefix `json:"ip_address"`
	MAC MAC          `json:"mac_address"`
}

// DHCPOption is an extra option for a port's DHCP replies (extension extra_dhcp_opt).
type DHCPOption struct {
	Name      string `json:"opt_name"` // dnsmasq's name or the number, e.g. "bootfile-name", "67"
	Value     string `json:"opt_value"`
	IPVersion int    `json:"ip_version"`
}

// VIF types of a binding.
const (
	VIFTypeUnbound       = "unbound"
	VIFTypeOVS           = "ovs"
	VIFTypeBindingFailed = "binding_failed"
)

// Binding ties a port to a host (extension binding).
type Binding struct {
	Host       string         `json:"host"`
	VNICType   string         `json:"vnic_type"`
	Profile    map[string]any `json:"profile,omitempty"`
	VIFType    string         `json:"vif_type"`
	VIFDetails map[string]any `json:"vif_details,omitempty"`
	// ByPlug says that plugging the interface made the binding, not the API.
	ByPlug bool `json:"by_plug,omitempty"`
}

// UnmarshalJSON reads numbers of the dictionaries as they were given, int64
// where they are whole: a float64 has no room for large ones.
func (b *Binding) UnmarshalJSON(data []byte) error {
	type plain Binding
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	if err := dec.Decode((*plain)(b)); err != nil {
		return err
	}
	for _, m := range []map[string]any{b.Profile, b.VIFDetails} {
		for k, v := range m {
			m[k] = withNumbers(v)
		}
	}
	return nil
}

func withNumbers(v any) any {
	switch v := v.(type) {
	case json.Number:
		if n, err := v.Int64(); err == nil {
			return n
		}
		f, _ := v.Float64()
		return f
	case []any:
		for i := range v {
			v[i] = withNumbers(v[i])
		}
	case map[string]any:
		for k := range v {
			v[k] = withNumbers(v[k])
		}
	}
	return v
}

// Device owners with a meaning here.
const (
	OwnerDHCP            = "network:dhcp"
	OwnerRouterInterface = "network:router_interface"
	OwnerRouterGateway   = "network:router_gateway"
	OwnerFloatingIP      = "network:floatingip"
)

// Port is an attachment to a network.
type Port struct {
	Standard
	NetworkID           string        `json:"network_id"`
	MAC                 MAC           `json:"mac_address"`
	FixedIPs            []FixedIP     `json:"fixed_ips,omitempty"`
	DeviceID            string        `json:"device_id,omitempty"`
	DeviceOwner         string        `json:"device_owner,omitempty"`
	AdminStateUp        bool          `json:"admin_state_up"`
	SecurityGroups      []string      `json:"security_groups,omitempty"`
	PortSecurityEnabled bool          `json:"port_security_enabled"`
	AllowedAddressPairs []AddressPair `json:"allowed_address_pairs,omitempty"`
	ExtraDHCPOpts       []DHCPOption  `json:"extra_dhcp_opts,omitempty"`
	// Binding has the Host "" when the port is unbound.
	Binding Binding `json:"binding"`
	// Inactive are the bindings to hosts that the port may move to, or has left,
	// by host; none is to the host of Binding.
	Inactive []Binding `json:"inactive_bindings,omitempty"`
	// DNSName is the name of the host in lower case; one that ends with a dot
	// has its domain in it.
	DNSName string `json:"dns_name,omitempty"`
	// KeepUplinkStatus says that propagate_uplink_status is False. It is kept
	// for the client: a port of Open vSwitch has no uplink of its own.
	KeepUplinkStatus bool `json:"keep_uplink_status,omitempty"`
	// Key is the small id of the port in flows: reg2, reg3, cookies. Never 0.
	Key uint32 `json:"key"`
}

// ObjectKind implements Object.
func (*Port) ObjectKind() Kind { return KindPort }

// FirstIPv4 is the address that a router translates to, where the port is its
// gateway: the zero Addr for none.
func (p *Port) FirstIPv4() netip.Addr {
	for _, f := range p.FixedIPs {
		if f.IP.Is4() {
			return f.IP
		}
	}
	return netip.Addr{}
}

// Service reports whether the port is part of the network itself, not of
// somebody's server: its owner is network:dhcp, network:router_interface and
// the like. Planck answers for it, and nothing is plugged for it.
func (p *Port) Service() bool { return strings.HasPrefix(p.DeviceOwner, "network:") }

// loose reports whether the port may send from addresses that are not known one by one.
func (p *Port) loose() bool {
	if p.Service() {
		return false
	}
	wide := func(a AddressPair) bool { return !a.IP.IsSingleIP() }
	return !p.PortSecurityEnabled || slices.ContainsFunc(p.AllowedAddressPairs, wide)
}

// Port states.
const (
	StatusActive = "ACTIVE"
	StatusDown   = "DOWN"
	StatusError  = "ERROR"
)

// PortStatus is kept apart from its port, so that a change of status does not
// count as a change of what the flows are made of. A port without one is DOWN.
type PortStatus struct {
	PortID string `json:"port_id"`
	Status string `json:"status"`
	Reason string `json:"reason,omitempty"` // why it is not ACTIVE, in words for an operator
}

// ObjectKind implements Object.
func (*PortStatus) ObjectKind() Kind { return KindPortStatus }

// ObjectID implements Object.
func (s *PortStatus) ObjectID() string { return s.PortID }

// Bridge is what is known of a bridge of a host.
type Bridge struct {
	DatapathID uint64 `json:"datapath_id"`
	// Patches has the OpenFlow port of the patch port towards each other bridge.
	Patches map[string]uint32 `json:"patches,omitempty"`
	// Tunnels has the OpenFlow port of the flow-based tunnel port of each network type (br-tun).
	Tunnels map[string]uint32 `json:"tunnels,omitempty"`
}

// The bridges that belong to Planck on each host.
const (
	BridgeIntegration = "br-int"
	BridgeTunnel      = "br-tun"
)

// Host is a hypervisor, as its Open vSwitch database tells. It stays in the
// model while the host is away, so that nothing changes because of that.
type Host struct {
	Name           string            `json:"name"` // external_ids:hostname, else the system-id
	SystemID       string            `json:"system_id"`
	TunnelIP       netip.Addr        `json:"tunnel_ip"` // external_ids:planck-local-ip; zero for none
	DatapathType   string            `json:"datapath_type"`
	OVSVersion     string            `json:"ovs_version"`
	BridgeMappings map[string]string `json:"bridge_mappings,omitempty"` // physical network → bridge
	Bridges        map[string]Bridge `json:"bridges,omitempty"`         // by name
	// Key is the small id of the host, from which its chassis MAC is made. Never 0.
	Key uint32 `json:"key"`
}

// ObjectKind implements Object.
func (*Host) ObjectKind() Kind { return KindHost }

// ObjectID implements Object.
func (h *Host) ObjectID() string { return h.Name }

// VIF is a virtual interface that is plugged into br-int of a host.
type VIF struct {
	PortID string `json:"port_id"` // external_ids:iface-id
	Host   string `json:"host"`
	Name   string `json:"name"`   // of the Interface row
	OFPort uint32 `json:"ofport"` // never 0
}

// ObjectKind implements Object.
func (*VIF) ObjectKind() Kind { return KindVIF }

// ObjectID implements Object.
func (v *VIF) ObjectID() string { return VIFID(v.PortID, v.Host) }

// VIFID is the id of a VIF object.
func VIFID(portID, host string) string { return portID + "@" + host }

// Presence says that the frames of a network live on a host, and with which
// local VLAN they cross the patch ports of that host: since at least one port
// of the network is wired there (bound there and plugged there) or awaited
// there (AwaitedOn), or since a router that is up joins it with a network of
// which that is true, or leads to such a router by extra routes, for the source
// host routes. A router has a presence too,
// for its transit segment.
type Presence struct {
	NetworkID string `json:"network_id"` // or the id of a router
	Host      string `json:"host"`
	VLAN      uint16 `json:"vlan"` // 1 to 4094
	// Wired says that the network has wired or awaited ports of its own on the host.
	Wired bool `json:"wired"`
}

// ObjectKind implements Object.
func (*Presence) ObjectKind() Kind { return KindPresence }

// ObjectID implements Object.
func (p *Presence) ObjectID() string { return PresenceID(p.NetworkID, p.Host) }

// PresenceID is the id of a Presence object.
func PresenceID(networkID, host string) string { return networkID + "@" + host }

// Router joins networks by its interfaces, which are ports with the owner
// OwnerRouterInterface and its id as their device, and has at most one gateway.
type Router struct {
	Standard
	AdminStateUp bool `json:"admin_state_up"`
	// ExternalNetworkID is the network of the gateway, "" for none.
	ExternalNetworkID string   `json:"external_network_id,omitempty"`
	GatewayPortID     string   `json:"gateway_port_id,omitempty"`
	EnableSNAT        bool     `json:"enable_snat"` // true without a gateway
	Routes            []Route  `json:"routes,omitempty"`
	AZHints           []string `json:"availability_zone_hints,omitempty"`
	// Key is the small id of the router in flows: metadata[32..63]. Never 0.
	Key uint32 `json:"key"`
}

// ObjectKind implements Object.
func (*Router) ObjectKind() Kind { return KindRouter }

// FloatingIP is an address of an external network that stands for a fixed
// address of a port, or for none while PortID is "".
type FloatingIP struct {
	Standard
	FloatingNetworkID string     `json:"floating_network_id"`
	Address           netip.Addr `json:"floating_ip_address"`
	// FloatingPortID is the port that has the address on the external network.
	FloatingPortID string     `json:"floating_port_id"`
	PortID         string     `json:"port_id,omitempty"`
	FixedIP        netip.Addr `json:"fixed_ip_address"` // zero for none
	// RouterID is the router between the port's subnet and the external network.
	RouterID string `json:"router_id,omitempty"`
	// DNSName and DNSDomain are kept for whoever publishes them: both or neither.
	DNSName   string `json:"dns_name,omitempty"`
	DNSDomain string `json:"dns_domain,omitempty"`
	// SubnetID is input for CreateFloatingIP only: of which subnet the address shall be.
	SubnetID string `json:"-"`
	// Key is the small id of the floating IP in flows. Never 0.
	Key uint32 `json:"key"`
}

// ObjectKind implements Object.
func (*FloatingIP) ObjectKind() Kind { return KindFloatingIP }

// FloatingIPWired says that the host of a floating IP has the flows for the
// address that it stands for. It is kept apart, as PortStatus is, and ends with
// the association.
type FloatingIPWired struct {
	FloatingIPID string `json:"floatingip_id"`
}

// ObjectKind implements Object.
func (*FloatingIPWired) ObjectKind() Kind { return KindFloatingIPWired }

// ObjectID implements Object.
func (w *FloatingIPWired) ObjectID() string { return w.FloatingIPID }

// MAC is an Ethernet address; the zero value is none.
type MAC [6]byte

// ParseMAC reads six hex bytes separated by colons.
func ParseMAC(s string) (MAC, error) {
	var m MAC
	if len(s) != 17 {
		return m, fmt.Errorf("%q is not a MAC address", s)
	}
	for i := range 6 {
		hi, lo := hexDigit(s[3*i]), hexDigit(s[3*i+1])
		if hi < 0 || lo < 0 || i < 5 && s[3*i+2] != ':' {
			return MAC{}, fmt.Errorf("%q is not a MAC address", s)
		}
		m[i] = byte(hi<<4 | lo)
	}
	return m, nil
}

func hexDigit(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c >= 'a' && c <= 'f':
		return int(c-'a') + 10
	case c >= 'A' && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}

// String is the lower-case form with colons.
func (m MAC) String() string {
	const digits = "0123456789abcdef"
	var b [17]byte
	for i, v := range m {
		b[3*i], b[3*i+1] = digits[v>>4], digits[v&15]
		if i < 5 {
			b[3*i+2] = ':'
		}
	}
	return string(b[:])
}

// LinkLocal is the link-local address that a host with the MAC makes itself (RFC 4291, appendix A).
func (m MAC) LinkLocal() netip.Addr { return eui64Address(linkLocalPrefix, m) }

var linkLocalPrefix = netip.MustParsePrefix("fe80::/64")

// MACOfLinkLocal is the MAC of which a link-local address is made, the zero MAC
// when it is made otherwise.
func MACOfLinkLocal(a netip.Addr) MAC {
	b := a.As16()
	m := MAC{b[8] ^ 2, b[9], b[10], b[13], b[14], b[15]}
	if m.LinkLocal() != a {
		return MAC{}
	}
	return m
}

// MarshalText implements encoding.TextMarshaler.
func (m MAC) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler; the empty text is the zero MAC.
func (m *MAC) UnmarshalText(b []byte) error {
	if len(b) == 0 {
		*m = MAC{}
		return nil
	}
	v, err := ParseMAC(string(b))
	if err != nil {
		return err
	}
	*m = v
	return nil
}
