package network

import (
	"cmp"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
)

// Fault is what is wrong with an object of a model.
type Fault struct {
	Kind Kind
	ID   string
	What string
}

// Error implements error.
func (f *Fault) Error() string { return fmt.Sprintf("%s %s: %s", f.Kind, f.ID, f.What) }

// Faults lists where a model is not as transactions leave it: references that
// lead nowhere, and if there are none, what follows from other objects and does
// not agree with them. A model that went through this program alone has none.
func (v *View) Faults() []*Fault {
	c := &checker{View: v}
	c.references()
	if len(c.faults) == 0 {
		c.presences()
		c.dhcpPorts()
		c.routers()
		c.floatingIPs()
		c.placements()
		c.groupPresences()
	}
	slices.SortFunc(c.faults, func(a, b *Fault) int { return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.ID, b.ID)) })
	return c.faults
}

// checker collects faults.
type checker struct {
	*View
	faults []*Fault
}

func (c *checker) fault(o Object, format string, args ...any) {
	c.faults = append(c.faults, &Fault{o.ObjectKind(), o.ObjectID(), fmt.Sprintf(format, args...)})
}

// leads reports a reference that leads nowhere.
func (c *checker) leads(from Object, kind Kind, id string) bool {
	there := c.object(kind, id) != nil
	if !there {
		c.fault(from, "the %s %s is not there", kind, id)
	}
	return there
}

// leadsIf is leads for a reference that may be empty.
func (c *checker) leadsIf(from Object, kind Kind, id string) {
	if id != "" {
		c.leads(from, kind, id)
	}
}

func (c *checker) references() {
	for _, change := range c.everything() {
		switch o := change.After.(type) {
		case *Subnet:
			c.leads(o, KindNetwork, o.NetworkID)
			c.leadsIf(o, KindSubnetPool, o.SubnetPoolID)
		case *Port:
			c.portReferences(o)
		case *PortStatus:
			c.leads(o, KindPort, o.PortID)
		case *SecurityGroupRule:
			c.leads(o, KindSecurityGroup, o.GroupID)
			c.leadsIf(o, KindSecurityGroup, o.RemoteGroupID)
		case *GroupPresence:
			c.leads(o, KindSecurityGroup, o.GroupID)
		case *Router:
			c.leadsIf(o, KindNetwork, o.ExternalNetworkID)
			c.leadsIf(o, KindPort, o.GatewayPortID)
		case *FloatingIP:
			c.leads(o, KindNetwork, o.FloatingNetworkID)
			c.leads(o, KindPort, o.FloatingPortID)
			c.leadsIf(o, KindPort, o.PortID)
			c.leadsIf(o, KindRouter, o.RouterID)
		case *FloatingIPWired:
			c.leads(o, KindFloatingIP, o.FloatingIPID)
		case *GatewayPlacement:
			c.leads(o, KindRouter, o.RouterID)
		case *HostDown:
			c.leads(o, KindHost, o.Host)
		case *VIF:
			c.leads(o, KindHost, o.Host)
		}
	}
}

func (c *checker) portReferences(p *Port) {
	c.leads(p, KindNetwork, p.NetworkID)
	for _, g := range p.SecurityGroups {
		c.leads(p, KindSecurityGroup, g)
	}
	for _, f := range p.FixedIPs {
		if !c.leads(p, KindSubnet, f.SubnetID) {
			continue
		}
		if s := c.Subnet(f.SubnetID); s.NetworkID != p.NetworkID || !s.CIDR.Contains(f.IP) {
			c.fault(p, "its address %s is not of subnet %s, which has %s on network %s", f.IP, s.ID, s.CIDR, s.NetworkID)
		}
	}
}

// presences: networks, and routers for their transit segments, are present where
// they have wired or awaited ports, or where routers need them.
func (c *checker) presences() {
	want := c.wired()
	wired := maps.Clone(want)
	routed := func(host string, ids ...string) {
		for _, id := range ids {
			if at := PresenceID(id, host); !want[at] {
				want[at] = false
			}
		}
	}
	for r := range c.Routers() {
		if !r.AdminStateUp {
			continue
		}
		joined := c.networksOf(r.ID)
		for id := range wired {
			if networkID, host, _ := strings.Cut(id, "@"); slices.Contains(joined, networkID) {
				routed(host, joined...)
				if r.ExternalNetworkID != "" {
					routed(host, r.ID)
				}
			}
		}
		if g := c.GatewayPlacement(r.ID); g != nil {
			for _, host := range g.Hosts {
				routed(host, append(joined, r.ExternalNetworkID, r.ID)...)
			}
		}
	}
	for f := range c.FloatingIPs() {
		if c.Router(f.RouterID) == nil || !c.Router(f.RouterID).AdminStateUp {
			continue
		}
		if host := c.floatingHostOf(f, c.Port(f.PortID)); host != "" {
			routed(host, f.FloatingNetworkID)
		}
	}
	c.compare(KindPresence, want, func(o Object) bool { return o.(*Presence).Wired })
}

// compare reports objects that a kind has and should not, or the reverse, and
// those that differ in one respect.
func (c *checker) compare(kind Kind, want map[string]bool, respect func(Object) bool) {
	c.trees.all(kind, func(o Object) bool {
		wanted, there := want[o.ObjectID()]
		switch {
		case !there:
			c.fault(o, "nothing that is there makes it so")
		case wanted != respect(o):
			c.fault(o, "wired is %t, not %t", respect(o), wanted)
		}
		return true
	})
	for id := range want {
		if c.object(kind, id) == nil {
			c.faults = append(c.faults, &Fault{kind, id, "it is missing"})
		}
	}
}

// wired are the presences by wired and awaited ports.
func (c *checker) wired() map[string]bool {
	want := map[string]bool{}
	for p := range c.Ports() {
		b := p.Binding
		if b.VIFType == VIFTypeOVS && c.VIF(p.ID, b.Host) != nil {
			want[PresenceID(p.NetworkID, b.Host)] = true
		} else if st := c.PortStatus(p.ID); st != nil && st.Status == StatusActive && !p.Service() {
			c.fault(p, "it is ACTIVE and not wired on host %q", b.Host)
		}
		for _, b := range p.Inactive {
			if c.AwaitedOn(p, b.Host) {
				want[PresenceID(p.NetworkID, b.Host)] = true
			}
			if b.Host == p.Binding.Host {
				c.fault(p, "it has an active and an inactive binding to host %s", b.Host)
			}
		}
		for r := range c.ReadinessOf(p.ID) {
			if !c.AwaitedOn(p, r.Host) {
				c.fault(r, "the port is not awaited there")
			}
		}
	}
	return want
}

func (c *checker) dhcpPorts() {
	for n := range c.Networks() {
		has := false
		for s := range c.SubnetsOf(n.ID) {
			has = has || s.EnableDHCP
		}
		if there := c.DHCPPort(n.ID) != nil; there != has {
			c.fault(n, "it has subnets with DHCP: %t, a port for it: %t", has, there)
		}
	}
}

func (c *checker) routers() {
	tx := &Tx{View: c.View}
	for r := range c.Routers() {
		if (r.GatewayPortID != "") != (r.ExternalNetworkID != "") || r.ExternalNetworkID == "" && !r.EnableSNAT {
			c.fault(r, "external network %q, gateway port %q, SNAT %t do not agree", r.ExternalNetworkID, r.GatewayPortID, r.EnableSNAT)
		}
		var connected []*Subnet
		for _, p := range tx.portsOfRouter(r) {
			gateway := p.DeviceOwner == OwnerRouterGateway
			if p.DeviceID != r.ID || gateway != (p.ID == r.GatewayPortID) || gateway && (p.NetworkID != r.ExternalNetworkID || !c.Network(p.NetworkID).External) {
				c.fault(p, "it is no port of router %s, which counts it", r.ID)
			}
			// A port may have several addresses of a subnet.
			var own []*Subnet
			for _, f := range p.FixedIPs {
				if s := c.Subnet(f.SubnetID); !slices.Contains(own, s) {
					own = append(own, s)
				}
			}
			connected = append(connected, own...)
		}
		for i, s := range connected {
			for _, other := range connected[:i] {
				if other.CIDR.Overlaps(s.CIDR) {
					c.fault(r, "it has %s of subnet %s and %s of subnet %s", s.CIDR, s.ID, other.CIDR, other.ID)
				}
			}
		}
		if err := tx.checkRouterRoutes(r); err != nil {
			c.fault(r, "%v", err)
		}
	}
	for p := range c.Ports() {
		if r := c.Router(p.DeviceID); r != nil && p.DeviceOwner == OwnerRouterGateway && r.GatewayPortID != p.ID {
			c.fault(p, "it is not the gateway port of router %s", r.ID)
		}
	}
}

func (c *checker) floatingIPs() {
	for f := range c.FloatingIPs() {
		p := c.Port(f.FloatingPortID)
		if p.NetworkID != f.FloatingNetworkID || p.DeviceID != f.ID || len(p.FixedIPs) != 1 || p.FixedIPs[0].IP != f.Address {
			c.fault(f, "its port %s does not have its address alone, or is another's", p.ID)
		}
		if f.PortID == "" {
			if f.RouterID != "" || f.FixedIP.IsValid() {
				c.fault(f, "it stands for no port and has a router or a fixed address")
			}
			continue
		}
		fixed, r := c.Port(f.PortID), c.Router(f.RouterID)
		switch {
		case !hasAddress(fixed.FixedIPs, f.FixedIP):
			c.fault(f, "port %s does not have the address %s", fixed.ID, f.FixedIP)
		case r == nil || r.ExternalNetworkID != f.FloatingNetworkID || !slices.Contains(c.networksOf(r.ID), fixed.NetworkID):
			c.fault(f, "router %q does not lead from its network to port %s", f.RouterID, fixed.ID)
		}
	}
}

// placements: each router with a gateway has a placement of hosts that reach its
// external network, as many as there may be.
func (c *checker) placements() {
	tx := &Tx{View: c.View}
	for g := range c.GatewayPlacements() {
		if r := c.Router(g.RouterID); r.ExternalNetworkID == "" || r.ExternalNetworkID != g.NetworkID {
			c.fault(g, "the router's external network is %q, not %q", r.ExternalNetworkID, g.NetworkID)
		}
	}
	for r := range c.Routers() {
		if r.ExternalNetworkID == "" {
			continue
		}
		g := c.GatewayPlacement(r.ID)
		if g == nil {
			c.fault(r, "it has a gateway and no placement")
			continue
		}
		candidates := tx.gatewayCandidates(c.Network(r.ExternalNetworkID))
		for i, host := range g.Hosts {
			if !slices.Contains(candidates, host) || slices.Contains(g.Hosts[:i], host) {
				c.fault(g, "it is on %v, candidates are %v", g.Hosts, candidates)
				break
			}
		}
		if want := min(len(candidates), maxGatewayHosts); len(g.Hosts) != want {
			c.fault(g, "it is on %v, %d of %v could be", g.Hosts, want, candidates)
		}
	}
}

// groupPresences compares what hosts know of security groups with what follows
// from their wired ports.
func (c *checker) groupPresences() {
	want := map[string]*GroupPresence{}
	at := func(groupID, host string) *GroupPresence {
		id := GroupPresenceID(groupID, host)
		if want[id] == nil {
			want[id] = &GroupPresence{GroupID: groupID, Host: host, Key: c.SecurityGroup(groupID).Key}
		}
		return want[id]
	}
	for p := range c.Ports() {
		host := c.WiredHost(p)
		if host == "" {
			continue
		}
		for _, g := range p.SecurityGroups {
			stateless := c.SecurityGroup(g).Stateless
			at(g, host).Wired, at(g, host).Stateless = true, stateless
			for r := range c.RulesOf(g) {
				if r.RemoteGroupID == "" {
					continue
				}
				*at(r.RemoteGroupID, host).remote(r.Direction, stateless) = true
			}
		}
	}
	c.trees.all(KindGroupPresence, func(o Object) bool {
		switch wanted := want[o.ObjectID()]; {
		case wanted == nil:
			c.fault(o, "nothing that is there makes it so")
		case !reflect.DeepEqual(o, Object(wanted)):
			c.fault(o, "it is %+v, not %+v", *o.(*GroupPresence), *wanted)
		}
		return true
	})
	for id := range want {
		if c.object(KindGroupPresence, id) == nil {
			c.faults = append(c.faults, &Fault{KindGroupPresence, id, "it is missing"})
		}
	}
}
