package controller

import (
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"planck/network"
	"planck/pipeline"
)

// Explanation is what `planck explain` says of a port: where it stands, and what
// keeps it from being reached.
type Explanation struct {
	Resource  Resource  `json:"resource"`
	Status    string    `json:"status"`
	Network   Resource  `json:"network"`
	MAC       string    `json:"mac_address"`
	Addresses []string  `json:"addresses"`
	BoundTo   string    `json:"bound_to"` // a host, "" for none
	VIFType   string    `json:"vif_type"`
	PluggedOn []string  `json:"plugged_on"` // hosts
	Findings  []Finding `json:"findings"`   // what is wrong, causes before what follows from them
}

// Finding is something that is wrong.
type Finding struct {
	What string `json:"what"`
	Mend string `json:"mend,omitempty"` // what would mend it
}

// Explain tells about the port with an id or a name.
func (c *Controller) Explain(port string) (*Explanation, error) {
	view := c.view.Load()
	if view == nil {
		return nil, network.Errorf(network.Unavailable, "NotReady", "the model is not read yet")
	}
	p, err := findPort(view, port)
	if err != nil {
		return nil, err
	}
	return explain(view, p, c), nil
}

func findPort(v *network.View, name string) (*network.Port, error) {
	return findNamed(v.Port(name), v.Ports(), name, "Port")
}

// namedObject is an object with a name.
type namedObject interface {
	comparable
	network.Object
	ObjectName() string
}

// findNamed is the object that has a name as its id, which is then given, or as
// its name. The error says that there is none, or several.
func findNamed[T namedObject](byID T, all iter.Seq[T], name, kind string) (T, error) {
	var none T
	if byID != none {
		return byID, nil
	}
	var found []T
	for o := range all {
		if name != "" && o.ObjectName() == name {
			found = append(found, o)
		}
	}
	switch len(found) {
	case 0:
		return none, network.Errorf(network.NotFound, kind+"NotFound", "%s %s could not be found.", kind, name)
	case 1:
		return found[0], nil
	}
	ids := make([]string, len(found))
	for i, o := range found {
		ids[i] = o.ObjectID()
	}
	slices.Sort(ids)
	return none, network.Errorf(network.Conflict, kind+"NotUnique", "several of kind %s have the name %s: %s", kind, name, strings.Join(ids, ", "))
}

func explain(v *network.View, p *network.Port, h hosts) *Explanation {
	e := &Explanation{
		Resource: Resource{"port", p.ID, p.Name}, Status: statusOf(v, p.ID).Status, MAC: p.MAC.String(),
		Addresses: []string{}, BoundTo: p.Binding.Host, VIFType: p.Binding.VIFType, PluggedOn: []string{}, Findings: []Finding{},
	}
	for _, ip := range p.FixedIPs {
		e.Addresses = append(e.Addresses, ip.IP.String())
	}
	for vif := range v.VIFsOf(p.ID) {
		e.PluggedOn = append(e.PluggedOn, vif.Host)
	}
	slices.Sort(e.PluggedOn)
	n := v.Network(p.NetworkID)
	if n == nil {
		return e
	}
	e.Network = Resource{"network", n.ID, n.Name}
	e.Findings = append(e.Findings, switchedOff(p, n)...)
	if !p.Service() {
		e.Findings = append(e.Findings, unbound(v, p, n)...)
		e.Findings = append(e.Findings, unplugged(v, p)...)
		e.Findings = append(e.Findings, unwired(v, p, n, h)...)
		e.Findings = append(e.Findings, unserved(v, p)...)
		e.Findings = append(e.Findings, unrouted(v, p)...)
	}
	return e
}

func switchedOff(p *network.Port, n *network.Network) (found []Finding) {
	if !p.AdminStateUp {
		found = append(found, Finding{"admin_state_up of the port is false: its packets are dropped", "set admin_state_up of the port to true"})
	}
	if !n.AdminStateUp {
		found = append(found, Finding{"admin_state_up of its network is false: its packets are dropped", "set admin_state_up of network " + n.ID + " to true"})
	}
	return found
}

// unbound is why a port has no host that could wire it.
func unbound(v *network.View, p *network.Port, n *network.Network) []Finding {
	b := p.Binding
	if b.Host == "" {
		return []Finding{{"it is not bound to a host", "set binding:host_id, or plug an interface with external_ids:iface-id=" + p.ID}}
	}
	if b.VIFType == network.VIFTypeOVS {
		return nil
	}
	f := Finding{What: fmt.Sprintf("host %s can't have it (vif_type %s)", b.Host, b.VIFType)}
	host := v.Host(b.Host)
	n = n.On(host)
	switch {
	case host == nil:
		f.What = fmt.Sprintf("binding:host_id is %s, and no host of that name has joined", b.Host)
		f.Mend = "let it join (ovs-vsctl set-manager), or set binding:host_id to one of planck hosts"
	case n.Tunnelled() && host.Bridges[network.BridgeTunnel].Tunnels[n.NetworkType] == 0:
		f.What = fmt.Sprintf("host %s has no %s tunnels, which its network needs", b.Host, n.NetworkType)
		f.Mend = "set external_ids:planck-local-ip on the host; [OVS] tunnel_types must not leave " + n.NetworkType + " out"
	case n.Provider() && host.BridgeMappings[n.PhysicalNetwork] == "":
		f.What = fmt.Sprintf("host %s has no bridge on physical network %s, which its network needs", b.Host, n.PhysicalNetwork)
		f.Mend = "set external_ids:planck-bridge-mappings on the host"
	case b.VNICType != "":
		f.Mend = "binding:vnic_type is " + b.VNICType + ": only normal is wired"
	}
	return []Finding{f}
}

// unplugged is what is wrong with the interfaces of a port.
func unplugged(v *network.View, p *network.Port) []Finding {
	var elsewhere []string
	for vif := range v.VIFsOf(p.ID) {
		if vif.Host != p.Binding.Host {
			elsewhere = append(elsewhere, vif.Host+" ("+vif.Name+")")
		}
	}
	slices.Sort(elsewhere)
	if len(elsewhere) > 0 && p.Binding.Host != "" && v.VIF(p.ID, p.Binding.Host) == nil {
		return []Finding{{
			fmt.Sprintf("it is plugged on %s, and bound to %s: only there it is wired", strings.Join(elsewhere, ", "), p.Binding.Host),
			"set binding:host_id to the host where it is, or activate its binding there",
		}}
	}
	if p.Binding.VIFType == network.VIFTypeOVS && v.VIF(p.ID, p.Binding.Host) == nil {
		return []Finding{{
			fmt.Sprintf("no interface with external_ids:iface-id=%s is plugged on host %s", p.ID, p.Binding.Host),
			"look at ovs-vsctl list Interface there: it must be in br-int, with an ofport above 0",
		}}
	}
	return nil
}

// unwired is what keeps hosts from having its flows.
func unwired(v *network.View, p *network.Port, n *network.Network, h hosts) (found []Finding) {
	host := v.Host(p.Binding.Host)
	if host == nil {
		return nil
	}
	if !h.hostLive(host.Name) {
		found = append(found, Finding{
			"host " + host.Name + " is away: its br-int is not connected by OpenFlow; it goes on with the flows that it has",
			"is ovs-vswitchd running there, and does it reach the controller? See planck hosts",
		})
	}
	if !h.reports(host.Name) {
		found = append(found, Finding{
			"the database of host " + host.Name + " is not connected: what is plugged there is not known, and its switch may stand still",
			"is ovsdb-server running there, and does it reach the controller? See planck hosts",
		})
	}
	if others := sharesTunnelIP(v, host); n.Tunnelled() && len(others) > 0 {
		found = append(found, Finding{"host " + host.Name + ": " + sharedTunnelIP(host, others), "give each host its own external_ids:planck-local-ip"})
	}
	if v.WiredHost(p) == "" {
		return found
	}
	if s := h.silenced(host.Name, p.Key); s != nil {
		found = append(found, Finding{
			fmt.Sprintf("it sent more %s packets than the controller takes from one port: the switch drops them for a second at a time, last at %s",
				pipeline.FeatureName(s.feature), s.at.Format(time.TimeOnly)),
			"look at what the machine sends; [openflow] punt_rate_per_port is the limit",
		})
	}
	if v.Presence(n.ID, host.Name) == nil {
		found = append(found, Finding{noLocalVLAN + host.Name, "a host has room for 4,094 networks"})
	}
	if err := h.hostRefused(host, n, p.Key); err != nil {
		found = append(found, Finding{"host " + host.Name + " refuses flows that it needs: " + err.Error(), "the log of the controller has each message that was refused"})
	}
	if statusOf(v, p.ID).Status != network.StatusDown || !p.AdminStateUp {
		return found
	}
	for _, name := range pipeline.PortHosts(v, p.ID) {
		if o := v.Host(name); o != nil && h.hostLive(name) && !h.hostHas(o, n, v.Revision()) {
			found = append(found, Finding{What: "host " + name + " has not acknowledged its flows yet"})
		}
	}
	return found
}

// unserved is what keeps the machine behind a wired port from talking.
func unserved(v *network.View, p *network.Port) (found []Finding) {
	if len(p.FixedIPs) == 0 {
		return []Finding{{"it has no address: nothing is handed out by DHCP", "give it fixed_ips, and its network a subnet"}}
	}
	dhcp := func(ip network.FixedIP) bool { s := v.Subnet(ip.SubnetID); return s != nil && s.EnableDHCP }
	if !slices.ContainsFunc(p.FixedIPs, dhcp) {
		found = append(found, Finding{"no DHCP: enable_dhcp of its subnets is false", "configure the address in the machine, or set enable_dhcp of the subnet"})
	}
	if p.PortSecurityEnabled && len(p.SecurityGroups) == 0 {
		found = append(found, Finding{"it has no security group: no IP packet passes but DHCP and neighbour discovery", "give it security_groups"})
	}
	return found
}

// unrouted is what is wrong with the routers by which a port leaves its networks.
func unrouted(v *network.View, p *network.Port) (found []Finding) {
	for _, ip := range p.FixedIPs {
		s := v.Subnet(ip.SubnetID)
		if s == nil || !s.GatewayIP.IsValid() {
			continue
		}
		gateway := v.PortByIP(p.NetworkID, s.GatewayIP)
		if gateway == nil {
			continue // somebody else's router, or none: that is no fault
		}
		if r := v.Router(gateway.DeviceID); r != nil {
			found = append(found, unleading(v, r)...)
		}
	}
	return found
}

// unleading is what keeps a router from forwarding, or from leading outside.
func unleading(v *network.View, r *network.Router) []Finding {
	title := strings.TrimSpace(r.Name + " " + r.ID)
	if !r.AdminStateUp {
		return []Finding{{"admin_state_up of its router " + title + " is false: it forwards nothing", "set admin_state_up of the router to true"}}
	}
	external := v.Network(r.ExternalNetworkID)
	if external == nil {
		return nil
	}
	if !external.AdminStateUp {
		return []Finding{{
			fmt.Sprintf("admin_state_up of network %s, to which its router %s leads, is false: nothing comes from there or leaves by it", external.ID, title),
			"set admin_state_up of the network to true",
		}}
	}
	if v.GatewayHost(r.ID) == "" {
		return []Finding{{
			fmt.Sprintf("no host can have the gateway of its router %s: nothing leaves by it that has no floating IP", title),
			"a host needs a bridge on physical network " + external.PhysicalNetwork + " (external_ids:planck-bridge-mappings) and must be up; see planck hosts",
		}}
	}
	return nil
}
