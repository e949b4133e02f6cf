package controller

import (
	"fmt"
	"math"
	"math/big"
	"net/netip"
	"slices"

	"planck/network"
)

// pool is how many addresses of the allocation pools of a subnet there are, and
// how many are taken.
type pool struct {
	size, taken uint64 // math.MaxUint64 for more than that
	owners      map[string]int
}

func (p pool) free() uint64 { return p.size - min(p.taken, p.size) }

func poolOf(v *network.View, s *network.Subnet) pool {
	p := pool{owners: map[string]int{}}
	for _, r := range s.AllocationPools {
		p.size = saturating(p.size, sizeOf(r))
	}
	for port := range v.PortsOfSubnet(s.ID) {
		for _, f := range port.FixedIPs {
			inPools := slices.ContainsFunc(s.AllocationPools, func(r network.Range) bool { return r.Contains(f.IP) })
			if f.SubnetID == s.ID && inPools {
				p.taken++
				p.owners[ownerOf(port)]++
			}
		}
	}
	return p
}

func ownerOf(p *network.Port) string {
	if p.Service() {
		return p.DeviceOwner
	}
	return "machines"
}

func sizeOf(r network.Range) uint64 {
	number := func(a netip.Addr) *big.Int { return new(big.Int).SetBytes(a.AsSlice()) }
	n := new(big.Int).Sub(number(r.End), number(r.Start))
	if n.Add(n, big.NewInt(1)); !n.IsUint64() {
		return math.MaxUint64
	}
	return n.Uint64()
}

func saturating(a, b uint64) uint64 {
	if a > math.MaxUint64-b {
		return math.MaxUint64
	}
	return a + b
}

// explainSubnet tells how many addresses a subnet has left, and who serves it.
func explainSubnet(v *network.View, s *network.Subnet) *Explanation {
	e := newExplanation(Resource{kindSubnet, s.ID, s.Name})
	n := v.Network(s.NetworkID)
	e.about("%s on network %s", s.CIDR, titleOf(n))
	p := poolOf(v, s)
	if p.size == math.MaxUint64 {
		e.about("%d addresses are taken", p.taken)
	} else {
		e.about("%d of %d addresses of its allocation pools are free", p.free(), p.size)
	}
	e.found(fullSubnet(s, p)...)
	e.found(unroutedSubnet(v, s, n, e)...)
	e.found(unservedSubnet(v, s)...)
	if n != nil && !n.AdminStateUp {
		e.find("admin_state_up of its network "+called(n.Name, n.ID)+" is false: packets of its ports are dropped", "set admin_state_up of the network to true")
	}
	return e
}

func fullSubnet(s *network.Subnet, p pool) []Finding {
	if s.EUI64() || p.free() > 0 {
		return nil
	}
	var who []string
	for owner, n := range p.owners {
		who = append(who, fmt.Sprintf("%d by %s", n, owner))
	}
	return []Finding{{
		fmt.Sprintf("subnet %s is full: all %d addresses of its allocation pools are taken (%s): new ports get none there", called(s.Name, s.ID), p.size, some(who)),
		"delete ports that are not used, widen allocation_pools, or add another subnet to the network",
	}}
}

// unroutedSubnet is what is wrong with the gateway of a subnet.
func unroutedSubnet(v *network.View, s *network.Subnet, n *network.Network, e *Explanation) []Finding {
	if !s.GatewayIP.IsValid() {
		e.about("no gateway_ip: machines have no way out of it but by host_routes")
		return nil
	}
	gateway := v.PortByIP(s.NetworkID, s.GatewayIP)
	if gateway == nil {
		e.about("nobody here has its gateway_ip %s", s.GatewayIP)
		if n == nil || !n.Tunnelled() {
			return nil
		}
		return []Finding{{
			fmt.Sprintf("no router has its gateway_ip %s: its machines reach nothing beyond the network", s.GatewayIP),
			"quantum router-interface-add ROUTER " + s.ID + ", if they shall",
		}}
	}
	r := v.Router(gateway.DeviceID)
	if r == nil {
		e.about("its gateway_ip %s is that of port %s", s.GatewayIP, called(gateway.Name, gateway.ID))
		return nil
	}
	e.about("its gateway_ip %s is router %s", s.GatewayIP, called(r.Name, r.ID))
	if !r.AdminStateUp {
		return []Finding{{"admin_state_up of router " + called(r.Name, r.ID) + " is false: it forwards nothing", "set admin_state_up of the router to true"}}
	}
	return nil
}

// unservedSubnet is why DHCP does not serve a subnet.
func unservedSubnet(v *network.View, s *network.Subnet) []Finding {
	if !s.EnableDHCP {
		return []Finding{{"no DHCP: enable_dhcp is false", "set enable_dhcp of the subnet, or configure addresses in the machines"}}
	}
	server := v.DHCPPort(s.NetworkID)
	serves := func(f network.FixedIP) bool { return f.SubnetID == s.ID }
	if s.EUI64() || server != nil && slices.ContainsFunc(server.FixedIPs, serves) {
		return nil
	}
	return []Finding{{"no DHCP: the network's DHCP server has no address on it", "free an address of the subnet, then set enable_dhcp to false and to true"}}
}
