package controller

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"planck/network"
	"planck/pipeline"
)

// explainPort tells why a port is DOWN or out of reach.
func explainPort(v *network.View, p *network.Port, h witness) *Explanation {
	e := newExplanation(Resource{kindPort, p.ID, p.Name})
	e.Status = statusOf(v, p.ID).Status
	e.Place = &Place{MAC: p.MAC.String(), Addresses: []string{}, BoundTo: p.Binding.Host, VIFType: p.Binding.VIFType, PluggedOn: []string{}}
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
	e.Network = Resource{kindNetwork, n.ID, n.Name}
	e.found(switchedOff(p, n)...)
	if p.Service() {
		e.serves(v, p, h)
		return e
	}
	for _, found := range [][]Finding{
		unbound(v, p, n), unplugged(v, p, h), unlinked(v, p, h), unwired(v, p, n, h), unserved(v, p, n), unfitting(v, p, n, h), doubled(v, p, h), unrouted(v, p, h),
	} {
		e.found(found...)
	}
	e.reaches(v, p, n)
	e.floatsBy(v, p)
	return e
}

// reaches tells what is no fault by itself, and surprises: a gateway that nobody
// has, and interfaces that are not wired.
func (e *Explanation) reaches(v *network.View, p *network.Port, n *network.Network) {
	for _, ip := range p.FixedIPs {
		if s := v.Subnet(ip.SubnetID); s != nil && n.Tunnelled() && s.GatewayIP.IsValid() && v.PortByIP(n.ID, s.GatewayIP) == nil {
			e.about("nobody has the gateway_ip %s of its subnet %s: it reaches nothing beyond its network", s.GatewayIP, cmp.Or(s.Name, s.ID))
		}
	}
	for vif := range v.VIFsOf(p.ID) {
		if vif.Host != p.Binding.Host && v.VIF(p.ID, p.Binding.Host) != nil {
			e.about("it is plugged on host %s too (%s): only on host %s it is wired", vif.Host, vif.Name, p.Binding.Host)
		}
	}
}

// serves says what a port of the network itself is part of, and what is wrong with that.
func (e *Explanation) serves(v *network.View, p *network.Port, w witness) {
	switch r := v.Router(p.DeviceID); {
	case p.DeviceOwner == network.OwnerDHCP:
		e.about("it is the DHCP server of its network, which the controller answers for on all hosts")
	case p.DeviceOwner == network.OwnerFloatingIP:
		e.about("it is the address of floating IP %s", p.DeviceID)
	case r != nil && r.GatewayPortID == p.ID:
		e.about("it is the gateway of router %s", called(r.Name, r.ID))
		e.found(unleading(v, r, w)...)
	case r != nil:
		e.about("it is an interface of router %s", called(r.Name, r.ID))
		e.found(unleading(v, r, w)...)
	}
}

// floatsBy tells the floating IPs of a port.
func (e *Explanation) floatsBy(v *network.View, p *network.Port) {
	for f := range v.FloatingIPsOfPort(p.ID) {
		e.about("floating IP %s stands for %s, on host %s", f.Address, f.FixedIP, cmp.Or(v.FloatingHost(f), "none"))
	}
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
func unplugged(v *network.View, p *network.Port, w witness) []Finding {
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
		return []Finding{notPlugged(p, w)}
	}
	return nil
}

// notPlugged says what the database of its host has of a port that is not plugged there.
func notPlugged(p *network.Port, w witness) Finding {
	host := p.Binding.Host
	for _, i := range w.interfaces(host, p.ID) {
		switch {
		case i.Bridge != network.BridgeIntegration:
			return Finding{fmt.Sprintf("its interface %s is in %s of host %s, not in br-int", i.Name, i.Bridge, host), "plug it into br-int"}
		case i.Error != "":
			return Finding{fmt.Sprintf("the switch of host %s does not have its interface %s: %s", host, i.Name, i.Error), "the device must be there: is the machine started?"}
		case i.OFPort == 0:
			return Finding{fmt.Sprintf("its interface %s on host %s has no OpenFlow port", i.Name, host), "is ovs-vswitchd running there? See ovs-vsctl list Interface " + i.Name}
		}
	}
	return Finding{
		fmt.Sprintf("no interface with external_ids:iface-id=%s is plugged on host %s", p.ID, host),
		"start the machine; ovs-vsctl list Interface must show the interface in br-int, with an ofport above 0",
	}
}

// unlinked is which interface of a wired port has no link.
func unlinked(v *network.View, p *network.Port, w witness) (found []Finding) {
	host := v.WiredHost(p)
	if host == "" {
		return nil
	}
	for _, i := range w.interfaces(host, p.ID) {
		if i.Bridge == network.BridgeIntegration && i.NoLink {
			found = append(found, Finding{
				fmt.Sprintf("the link of its interface %s on host %s is down: nothing comes from the machine, nothing gets there", i.Name, host),
				fmt.Sprintf("ip link set %s up on the host; is the machine running?", i.Name),
			})
		}
	}
	return found
}

// unwired is what keeps hosts from having its flows.
func unwired(v *network.View, p *network.Port, n *network.Network, h witness) (found []Finding) {
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
	if down := v.HostDown(host.Name); down != nil && !down.Unwired && n.Tunnelled() {
		found = append(found, cutOff(host.Name, down))
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
