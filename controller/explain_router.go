package controller

import (
	"cmp"
	"fmt"
	"slices"

	"planck/network"
)

// explainRouter tells what a router joins, and what keeps it from forwarding.
func explainRouter(v *network.View, r *network.Router, w witness) *Explanation {
	e := newExplanation(Resource{kindRouter, r.ID, r.Name})
	interfaces := 0
	for p := range v.InterfacesOf(r.ID) {
		interfaces++
		for _, ip := range p.FixedIPs {
			e.about("interface %s on network %s", ip.IP, titleOf(v.Network(p.NetworkID)))
		}
	}
	slices.Sort(e.About)
	e.tellGateway(v, r)
	for _, route := range r.Routes {
		e.about("route to %s by %s", route.Destination, route.NextHop)
	}
	e.found(unleading(v, r, w)...)
	if interfaces == 0 {
		e.find("it has no interface: it joins no network", "quantum router-interface-add "+r.ID+" SUBNET")
	}
	for p := range v.InterfacesOf(r.ID) {
		if n := v.Network(p.NetworkID); n != nil && !n.AdminStateUp {
			e.find(fmt.Sprintf("admin_state_up of network %s, which it joins, is false: nothing comes from there or goes there", called(n.Name, n.ID)), "set admin_state_up of the network to true")
		}
	}
	for _, route := range r.Routes {
		if !reachesHop(v, r, route) {
			e.find(fmt.Sprintf("the next hop %s of its route to %s is on none of its networks: the route is left out", route.NextHop, route.Destination), "give it an interface there, or another next hop")
		}
	}
	return e
}

func (e *Explanation) tellGateway(v *network.View, r *network.Router) {
	gateway := v.Port(r.GatewayPortID)
	if gateway == nil {
		e.about("no gateway: it leads to nothing outside")
		return
	}
	for _, ip := range gateway.FixedIPs {
		e.about("gateway %s on network %s, on host %s", ip.IP, titleOf(v.Network(gateway.NetworkID)), cmp.Or(v.GatewayHost(r.ID), "none"))
	}
}

// reachesHop reports whether the next hop of a route is on a network of its router.
func reachesHop(v *network.View, r *network.Router, route network.Route) bool {
	ports := slices.Collect(v.InterfacesOf(r.ID))
	if g := v.Port(r.GatewayPortID); g != nil {
		ports = append(ports, g)
	}
	return slices.ContainsFunc(ports, func(p *network.Port) bool {
		return slices.ContainsFunc(p.FixedIPs, func(f network.FixedIP) bool {
			s := v.Subnet(f.SubnetID)
			return s != nil && s.CIDR.Contains(route.NextHop)
		})
	})
}

// unrouted is what is wrong with the routers by which a port leaves its networks.
func unrouted(v *network.View, p *network.Port, w witness) (found []Finding) {
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
			found = append(found, unleading(v, r, w)...)
		}
	}
	return found
}

// unleading is what keeps a router from forwarding, or from leading outside.
func unleading(v *network.View, r *network.Router, w witness) []Finding {
	title := called(r.Name, r.ID)
	if !r.AdminStateUp {
		return []Finding{{"admin_state_up of router " + title + " is false: it forwards nothing", "set admin_state_up of the router to true"}}
	}
	external := v.Network(r.ExternalNetworkID)
	if external == nil {
		return nil
	}
	if !external.AdminStateUp {
		return []Finding{{
			fmt.Sprintf("admin_state_up of network %s, to which router %s leads, is false: nothing comes from there or leaves by it", external.ID, title),
			"set admin_state_up of the network to true",
		}}
	}
	host := v.GatewayHost(r.ID)
	if host == "" {
		return []Finding{{
			fmt.Sprintf("no host can have the gateway of router %s: nothing leaves by it that has no floating IP", title),
			"a host needs a bridge on physical network " + external.PhysicalNetwork + " (external_ids:planck-bridge-mappings) and must be up; see planck hosts",
		}}
	}
	var found []Finding
	if down := v.HostDown(host); down != nil {
		found = append(found, Finding{
			fmt.Sprintf("host %s has the gateway of router %s, is down (%s), and no other host can take it over", host, title, down.Reason),
			"planck explain host " + host,
		})
	}
	if v.Transit(r.ID) == nil {
		found = append(found, Finding{
			fmt.Sprintf("no segment leads to host %s, which has the gateway of router %s: only the machines there get out", host, title),
			"the hosts of the gateway need external_ids:planck-local-ip, or network_vlan_ranges a free VLAN",
		})
	}
	return append(found, wordless(v, r, external, w)...)
}

// wordless is which next hops of a router on its external network do not answer.
func wordless(v *network.View, r *network.Router, external *network.Network, w witness) (found []Finding) {
	gateway := v.Port(r.GatewayPortID)
	if gateway == nil {
		return nil
	}
	for _, ip := range gateway.FixedIPs {
		s := v.Subnet(ip.SubnetID)
		if s == nil || !s.GatewayIP.IsValid() || !w.silentNextHop(v.GatewayHost(r.ID), external.ID, s.GatewayIP) {
			continue
		}
		found = append(found, Finding{
			fmt.Sprintf("%s, by which router %s leaves network %s, does not answer questions for its MAC", s.GatewayIP, called(r.Name, r.ID), called(external.Name, external.ID)),
			"is it there, on physical network " + external.PhysicalNetwork + ", and gateway_ip of subnet " + s.ID + " right?",
		})
	}
	return found
}

func titleOf(n *network.Network) string {
	if n == nil {
		return "none"
	}
	return cmp.Or(n.Name, n.ID)
}
