// Package pipeline turns the network model into flows: the tables of br-int,
// br-tun and the provider bridges declared as data, one file for each feature,
// and the compiler that keeps the desired flows of every bridge up to date.
// It does no I/O.
package pipeline

import (
	"slices"

	"planck/flows"
	"planck/network"
)

// FeatureID is the number of a feature in cookies. Numbers are contract: they
// never change and are never used again.
type FeatureID uint8

// The features.
const (
	FeatureBase FeatureID = iota + 1
	FeatureClassify
	FeaturePortSecurity
	FeatureDHCP
	FeatureARP
	FeatureL2
	FeatureTunnel
	FeatureProvider
	FeatureCanary
	FeaturePing
	FeatureRouter
	FeatureND
	FeaturePing6
	FeatureRA
	FeatureRouter6
	FeatureDHCPv6
	FeatureGateway
	FeatureFloatingIP
)

// FeatureNeighbor is the resolution of next hops on external networks.
const FeatureNeighbor FeatureID = 32

// FeatureHolder is the way to addresses that move between ports.
const FeatureHolder FeatureID = 33

// Feature is one capability of the pipelines. It implements one or more of
// HostFeature, NetworkFeature, PortFeature, RouterFeature and FloatingFeature.
type Feature interface {
	ID() FeatureID
	Name() string
}

// HostFeature makes flows that depend on a host alone.
type HostFeature interface {
	CompileHost(c *Context)
}

// NetworkFeature makes flows for a network on each host where it is present.
type NetworkFeature interface {
	CompileNetwork(c *Context, n *network.Network, p *network.Presence)
}

// RouterFeature makes flows for a router with a gateway on each host that has its
// transit segment.
type RouterFeature interface {
	CompileRouter(c *Context, r *network.Router, transit *network.Presence)
}

// FloatingFeature makes flows for a floating IP on the host where it lives.
type FloatingFeature interface {
	CompileFloatingIP(c *Context, f *network.FloatingIP)
}

// PortFeature makes flows for a port on its own host and on each other host
// where its network is present.
type PortFeature interface {
	CompilePort(c *Context, p *PortContext)
}

// MemberFeature makes flows for a port on each host that has something to do
// with it, also where its network is not present.
type MemberFeature interface {
	CompileMember(c *Context, p *network.Port)
}

// Features is the one list of features, in the order of the tables.
var Features = []Feature{
	baseFeature{},
	classifyFeature{},
	portSecurityFeature{},
	securityGroupFeature{},
	dhcpFeature{},
	dhcpv6Feature{},
	pingFeature{},
	ping6Feature{},
	raFeature{},
	metadataFeature{},
	arpFeature{},
	ndFeature{},
	routerFeature{},
	router6Feature{},
	neighborFeature{},
	holderFeature{},
	gatewayFeature{},
	floatingFeature{},
	l2Feature{},
	tunnelFeature{},
	providerFeature{},
}

// FeatureName is the name of a feature, "" for an unknown one.
func FeatureName(id FeatureID) string {
	if id == FeatureCanary {
		return "canary"
	}
	for _, f := range Features {
		if f.ID() == id {
			return f.Name()
		}
	}
	return ""
}

// ARP responder modes, as [openflow] arp_responder names them.
const (
	ARPCached    = "cached"
	ARPPacketIn  = "packet-in"
	ARPProactive = "proactive"
)

// Options of the pipelines.
type Options struct {
	ARPMode string // ARPCached (default), ARPPacketIn or ARPProactive
	// PuntRatePerHost limits the packets per second of each class (DHCP, ARP)
	// that a host sends to the controller; 0 is no limit.
	PuntRatePerHost uint32
	// PeerType is the type of the tunnel ports towards gateway hosts, "" for gre.
	PeerType string
}

// Context is what a feature compiles with: the model, the host, and where to put flows.
type Context struct {
	View    *network.View // records what is read
	Host    *network.Host
	Options Options

	feature FeatureID
	flags   uint8
	object  uint32
	out     *output

	instructions *flows.Interner
}

// output is what a unit wants while it is compiled.
type output struct {
	flows  []emitted
	others []other
}

type emitted struct {
	bridge    string
	flow      flows.Flow
	permitted bool
}

// Flow wants a flow in a table of br-int or br-tun.
func (c *Context) Flow(t *Table, priority uint16, match flows.Match, actions ...flows.Action) {
	c.emit(string(t.Bridge), t, priority, match, actions, 0)
}

// ProviderFlow wants a flow in a table of a provider bridge.
func (c *Context) ProviderFlow(bridge string, t *Table, priority uint16, match flows.Match, actions ...flows.Action) {
	c.emit(bridge, t, priority, match, actions, 0)
}

// Permit allows a flow in a table of br-int that a responder may install.
func (c *Context) Permit(t *Table, priority uint16, match flows.Match, actions ...flows.Action) {
	c.emit(string(t.Bridge), t, priority, match, actions, FlagPermitted)
}

func (c *Context) emit(bridge string, t *Table, priority uint16, match flows.Match, actions []flows.Action, flag uint8) {
	c.out.flows = append(c.out.flows, emitted{
		bridge: bridge,
		flow: flows.Flow{
			Table: t.ID, Priority: priority, Match: match, Instructions: c.instructions.Do(actions...),
			Cookie: uint64(MakeCookie(c.feature, c.flags|flag, c.object)),
		},
		permitted: flag&FlagPermitted != 0,
	})
}

// Flood wants a group that sends a copy through each bucket. What does not fit
// into one group continues in another, whose id has a serial in the bits that
// the key of a network leaves free.
func (c *Context) Flood(bridge BridgeKind, key uint32, buckets []flows.Bucket) {
	for serial := uint32(0); ; serial++ {
		n, size := 0, continuation(0).Size()
		for n < len(buckets) {
			if size += buckets[n].Size(); size > flows.MaxGroupSize {
				break
			}
			n++
		}
		part := buckets[:n:n]
		buckets = buckets[n:]
		if len(buckets) > 0 {
			part = append(part, continuation(groupID(key, serial+1)))
		}
		c.out.others = append(c.out.others, other{bridge: string(bridge), group: flows.NewGroup(groupID(key, serial), flows.GroupAll, part...)})
		if len(buckets) == 0 {
			return
		}
	}
}

func continuation(id uint32) flows.Bucket {
	return flows.Bucket{Actions: []flows.Action{flows.ToGroup(id)}}
}

func groupID(key, serial uint32) uint32 { return serial<<24 | key }

// NetworkOfGroup is the key of the network for which a group was made.
func NetworkOfGroup(id uint32) uint32 { return id & (1<<24 - 1) }

// Meter wants a meter on a bridge.
func (c *Context) Meter(bridge BridgeKind, m *flows.Meter) {
	c.out.others = append(c.out.others, other{bridge: string(bridge), meter: m})
}

// Patch is the OpenFlow port of the host's patch port on a bridge towards another.
func (c *Context) Patch(bridge, peer string) (uint32, bool) {
	p, ok := c.Host.Bridges[bridge].Patches[peer]
	return p, ok
}

// Network is a network with the segment that the host uses, or nil.
func (c *Context) Network(id string) *network.Network { return c.View.Network(id).On(c.Host) }

// ProviderBridge is the bridge of the host that is mapped to a physical
// network, when that bridge is there and patched to br-int.
func (c *Context) ProviderBridge(physicalNetwork string) (bridge string, patch uint32, ok bool) {
	bridge, ok = c.Host.BridgeMappings[physicalNetwork]
	if !ok {
		return "", 0, false
	}
	patch, ok = c.Patch(network.BridgeIntegration, bridge)
	return bridge, patch, ok
}

// ProviderBridges are the names of the host's mapped bridges that are there, in order.
func (c *Context) ProviderBridges() []string {
	var names []string
	for _, b := range c.Host.BridgeMappings {
		if _, ok := c.Patch(network.BridgeIntegration, b); ok && !slices.Contains(names, b) {
			names = append(names, b)
		}
	}
	slices.Sort(names)
	return names
}

// Drop is the actions that send a packet to the table Dropped.
func Drop(reason DropReason) []flows.Action {
	return []flows.Action{flows.SetField(RegDropReason, uint64(reason)), To(Dropped)}
}

// reasons has the instructions of each drop.
var reasons = func() map[flows.Instructions]DropReason {
	m := make(map[flows.Instructions]DropReason, len(DropReasons))
	for r := range DropReasons {
		m[flows.Do(Drop(r)...)] = r
	}
	return m
}()

// ReasonOf tells for what reason a flow drops; false when it does not.
func ReasonOf(f *flows.Flow) (DropReason, bool) {
	r, ok := reasons[f.Instructions]
	return r, ok
}

// To continues in a table.
func To(t *Table) flows.Action { return flows.Goto(t.ID) }

// onNetwork matches the packets of a network.
func onNetwork(n *network.Network) flows.Term {
	return flows.Metadata.Masked(uint64(n.Key), allBits)
}

// setNetwork puts a network's key into metadata.
func setNetwork(n *network.Network) flows.Action {
	return flows.SetMasked(flows.Metadata, uint64(n.Key), allBits)
}

// broadcastBit matches broadcast and multicast destinations.
func broadcastBit() flows.Term {
	return flows.EthDst.MaskedMAC([6]byte{1}, [6]byte{1})
}

// PortContext is a port as one host sees it.
type PortContext struct {
	*network.Port
	Network  *network.Network
	Presence *network.Presence // of the network on the context's host
	VIF      *network.VIF      // the port's interface on the context's host; nil when it is wired elsewhere or nowhere
	Here     bool              // the port is on this host: wired, or the address of a router that is active here
	Remote   *network.Host     // the other host on which the port is wired; nil when it is here or nowhere
}

// Up reports whether the port may send and receive.
func (p *PortContext) Up() bool { return p.AdminStateUp && p.Network.AdminStateUp }

// PortHosts lists the hosts that need flows of a port: the one that it is wired
// on first, then the others on which its network is present or rules name one
// of its security groups.
func PortHosts(v *network.View, portID string) []string {
	p := v.Port(portID)
	if p == nil {
		return nil
	}
	var hosts []string
	own := v.WiredHost(p)
	if own != "" && v.Presence(p.NetworkID, own) != nil {
		hosts = append(hosts, own)
	}
	for pr := range v.PresencesOf(p.NetworkID) {
		if pr.Host != own {
			hosts = append(hosts, pr.Host)
		}
	}
	for _, id := range p.SecurityGroups {
		for gp := range v.GroupPresencesOf(id) {
			if gp.Named() && !slices.Contains(hosts, gp.Host) {
				hosts = append(hosts, gp.Host)
			}
		}
	}
	return hosts
}

func compilePort(c *Context, id string) {
	p := c.View.Port(id)
	if p == nil {
		return
	}
	for _, f := range Features {
		if mf, ok := f.(MemberFeature); ok {
			c.feature, c.flags, c.object = f.ID(), 0, p.Key
			mf.CompileMember(c, p)
		}
	}
	pc := &PortContext{Port: p, Network: c.Network(p.NetworkID), Presence: c.View.Presence(p.NetworkID, c.Host.Name)}
	if pc.Network == nil || pc.Presence == nil {
		return
	}
	switch own := hostOf(c.View, p); own {
	case "":
	case c.Host.Name:
		pc.VIF, pc.Here = c.View.VIF(id, own), true
	default:
		pc.Remote = c.View.Host(own)
	}
	for _, f := range Features {
		if pf, ok := f.(PortFeature); ok {
			c.feature, c.flags, c.object = f.ID(), 0, p.Key
			pf.CompilePort(c, pc)
		}
	}
}

// hostOf is the host on which a port is: where it is wired, or where the gateway
// or the floating IP is whose address it has; "" for none.
func hostOf(v *network.View, p *network.Port) string {
	switch p.DeviceOwner {
	case network.OwnerRouterGateway:
		return v.GatewayHost(p.DeviceID)
	case network.OwnerFloatingIP:
		if f := v.FloatingIP(p.DeviceID); f != nil {
			return v.FloatingHost(f)
		}
	}
	return v.WiredHost(p)
}

func compileRouter(c *Context, id string) {
	r, transit := c.View.Router(id), c.View.Presence(id, c.Host.Name)
	if r == nil || transit == nil {
		return
	}
	for _, f := range Features {
		if rf, ok := f.(RouterFeature); ok {
			c.feature, c.flags, c.object = f.ID(), FlagRouter, r.Key
			rf.CompileRouter(c, r, transit)
		}
	}
}

// compileFloatingIP makes flows that stand for the port of the floating IP.
func compileFloatingIP(c *Context, id string) {
	f := c.View.FloatingIP(id)
	if f == nil || c.View.FloatingHost(f) != c.Host.Name {
		return
	}
	p := c.View.Port(f.FloatingPortID)
	if p == nil {
		return
	}
	for _, feature := range Features {
		if ff, ok := feature.(FloatingFeature); ok {
			c.feature, c.flags, c.object = feature.ID(), 0, p.Key
			ff.CompileFloatingIP(c, f)
		}
	}
}

func compileNetwork(c *Context, networkID string) {
	n, p := c.Network(networkID), c.View.Presence(networkID, c.Host.Name)
	if n == nil || p == nil {
		return
	}
	for _, f := range Features {
		if nf, ok := f.(NetworkFeature); ok {
			c.feature, c.flags, c.object = f.ID(), FlagNetwork, n.Key
			nf.CompileNetwork(c, n, p)
		}
	}
}

func compileHost(c *Context) {
	for _, f := range Features {
		if hf, ok := f.(HostFeature); ok {
			c.feature, c.flags, c.object = f.ID(), FlagHost, c.Host.Key
			hf.CompileHost(c)
		}
	}
}
