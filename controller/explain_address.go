package controller

import (
	"fmt"
	"slices"
	"strings"

	"planck/network"
)

// unserved is what keeps the machine behind a wired port from talking.
func unserved(v *network.View, p *network.Port, n *network.Network) (found []Finding) {
	if len(p.FixedIPs) == 0 {
		return []Finding{withoutAddress(v, p, n)}
	}
	dhcp := func(ip network.FixedIP) bool { s := v.Subnet(ip.SubnetID); return s != nil && s.EnableDHCP }
	if !slices.ContainsFunc(p.FixedIPs, dhcp) {
		found = append(found, Finding{"no DHCP: enable_dhcp of its subnets is false", "configure the address in the machine, or set enable_dhcp of the subnet"})
	}
	found = append(found, serverless(v, p)...)
	if p.PortSecurityEnabled && len(p.SecurityGroups) == 0 {
		found = append(found, Finding{"it has no security group: no IP packet passes but DHCP and neighbour discovery", "give it security_groups"})
	}
	return found
}

// withoutAddress is why a port has no address.
func withoutAddress(v *network.View, p *network.Port, n *network.Network) Finding {
	f := Finding{"it has no address: nothing is handed out by DHCP", "give it fixed_ips"}
	subnets := slices.Collect(v.SubnetsOf(p.NetworkID))
	if len(subnets) == 0 {
		return Finding{f.What + "; its network has no subnet", "give network " + called(n.Name, n.ID) + " a subnet, then the port fixed_ips"}
	}
	free := func(s *network.Subnet) bool { return poolOf(v, s).free() > 0 }
	if slices.ContainsFunc(subnets, free) {
		return f
	}
	full := make([]string, len(subnets))
	for i, s := range subnets {
		full[i] = called(s.Name, s.ID)
	}
	return Finding{f.What + "; the subnets of its network are full: " + some(full), "widen allocation_pools, or add a subnet; then give the port fixed_ips"}
}

// serverless is which subnets of a port no DHCP server serves.
func serverless(v *network.View, p *network.Port) (found []Finding) {
	server := v.DHCPPort(p.NetworkID)
	for _, ip := range p.FixedIPs {
		s := v.Subnet(ip.SubnetID)
		if s == nil || !s.EnableDHCP || s.EUI64() {
			continue
		}
		serves := func(f network.FixedIP) bool { return f.SubnetID == s.ID }
		if server == nil || !slices.ContainsFunc(server.FixedIPs, serves) {
			found = append(found, Finding{
				"no DHCP on subnet " + called(s.Name, s.ID) + ": the network's DHCP server has no address there",
				"free an address of the subnet, then set enable_dhcp to false and to true",
			})
		}
	}
	return found
}

// unfitting is what is wrong with the MTU of a port's network and interface.
func unfitting(v *network.View, p *network.Port, n *network.Network, w witness) (found []Finding) {
	found = tooWide(n, w)
	host := v.Host(v.WiredHost(p))
	if host == nil {
		return found
	}
	for _, i := range w.interfaces(host.Name, p.ID) {
		if i.Bridge != network.BridgeIntegration || i.MTU == 0 || i.MTU == n.MTU {
			continue
		}
		what := fmt.Sprintf("the MTU of its interface %s is %d, that of its network %d: ", i.Name, i.MTU, n.MTU)
		if i.MTU < n.MTU {
			what += "larger packets to the machine are lost"
		} else {
			what += "a machine that does not take the network's, by DHCP, sends packets that get lost"
		}
		found = append(found, Finding{what, fmt.Sprintf("ovs-vsctl set Interface %s mtu_request=%d", i.Name, n.MTU)})
	}
	on := n.On(host)
	if !on.Provider() {
		return found
	}
	if mtu, wire := w.wireMTU(host.Name, host.BridgeMappings[on.PhysicalNetwork]); mtu != 0 && mtu < n.MTU {
		found = append(found, Finding{
			fmt.Sprintf("the MTU of its network is %d, that of the wire %s of host %s %d: larger packets are lost", n.MTU, wire, host.Name, mtu),
			"give the wire the MTU of the network, or the network a smaller mtu",
		})
	}
	return found
}

// tooWide says that a network's MTU is more than the configuration allows by now.
func tooWide(n *network.Network, w witness) []Finding {
	most := w.maxMTU(n.NetworkType)
	if n.MTU <= most {
		return nil
	}
	return []Finding{{
		fmt.Sprintf("the MTU of network %s is %d, and its packets have room for %d: larger ones are lost", called(n.Name, n.ID), n.MTU, most),
		fmt.Sprintf("set mtu of the network to %d, or path_mtu and global_physnet_mtu to what the wires carry", most),
	}}
}

// doubled is who else has the MAC, an address or the interface of a port.
func doubled(v *network.View, p *network.Port, w witness) (found []Finding) {
	host := v.WiredHost(p)
	if host == "" {
		return nil
	}
	var names []string
	for _, i := range w.interfaces(host, p.ID) {
		names = append(names, i.Name)
		if i.AttachedMAC != "" && !strings.EqualFold(i.AttachedMAC, p.MAC.String()) {
			found = append(found, Finding{
				fmt.Sprintf("its interface %s was plugged for the MAC %s, and the port has %s: port security drops what the machine sends", i.Name, i.AttachedMAC, p.MAC),
				"set mac_address of the port, or plug the machine again",
			})
		}
	}
	if len(names) > 1 {
		found = append(found, Finding{
			fmt.Sprintf("%d interfaces of host %s have its id (%s): %s is wired", len(names), host, strings.Join(names, ", "), v.VIF(p.ID, host).Name),
			"take external_ids:iface-id from the others",
		})
	}
	for _, ip := range p.FixedIPs {
		if h := v.AddressHolder(p.NetworkID, ip.IP); h != nil && h.MAC != p.MAC {
			found = append(found, Finding{
				fmt.Sprintf("its address %s is held by port %s (%s), as that says by ARP", ip.IP, h.PortID, h.MAC),
				"look at the machine of that port; allowed_address_pairs, or a port without port security, let it",
			})
		} else if mac, ok := v.ExternalNeighbor(p.NetworkID, ip.IP); ok && mac != p.MAC {
			found = append(found, Finding{
				fmt.Sprintf("its address %s is also that of somebody outside (%s), as that says by ARP", ip.IP, mac),
				"give one of the two another address; allocation_pools must leave out what is used outside",
			})
		}
	}
	return found
}
