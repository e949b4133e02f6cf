package network

import (
	"slices"

	"github.com/google/uuid"
)

// dhcpHost stands where Neutron has the name-based UUID of the agent's host:
// here one server serves everywhere.
var dhcpHost = uuid.NewSHA1(uuid.NameSpaceDNS, []byte("planck")).String()

// DHCPDeviceID is the device_id of the port that serves DHCP on a network.
func DHCPDeviceID(networkID string) string { return "dhcp" + dhcpHost + "-" + networkID }

// servesDHCP reports whether this is the port whose addresses and MAC the DHCP
// server of its network uses.
func (p *Port) servesDHCP() bool {
	return p.DeviceOwner == OwnerDHCP && p.DeviceID == DHCPDeviceID(p.NetworkID)
}

// DHCPPort returns the port whose addresses and MAC the DHCP server of a
// network uses, or nil.
func (v *View) DHCPPort(networkID string) *Port {
	for p := range v.PortsOfDevice(DHCPDeviceID(networkID)) {
		if p.servesDHCP() && p.NetworkID == networkID {
			return p
		}
	}
	return nil
}

// settleDHCPPort makes a network have a port for DHCP while it has subnets
// with DHCP, with an address of each whose addresses do not follow from MACs.
// A subnet without a free address goes without.
func (tx *Tx) settleDHCPPort(networkID string) error {
	p := tx.DHCPPort(networkID)
	subnets := tx.dhcpSubnets(networkID)
	switch {
	case len(subnets) == 0 && p == nil:
		return nil
	case len(subnets) == 0:
		return tx.removePort(p)
	case p == nil:
		return tx.createDHCPPort(networkID, subnets)
	}
	if ips := tx.dhcpAddresses(p.FixedIPs, subnets); !slices.Equal(ips, p.FixedIPs) {
		return tx.setAddresses(p, ips)
	}
	return nil
}

func (tx *Tx) dhcpSubnets(networkID string) []*Subnet {
	var subnets []*Subnet
	for s := range tx.SubnetsOf(networkID) {
		if s.EnableDHCP {
			subnets = append(subnets, s)
		}
	}
	return subnets
}

func (tx *Tx) createDHCPPort(networkID string, subnets []*Subnet) error {
	p := &Port{
		Standard:     Standard{ProjectID: tx.Network(networkID).ProjectID},
		NetworkID:    networkID,
		DeviceOwner:  OwnerDHCP,
		DeviceID:     DHCPDeviceID(networkID),
		AdminStateUp: true,
		FixedIPs:     tx.dhcpAddresses([]FixedIP{}, subnets),
	}
	return tx.CreatePort(p)
}

// dhcpAddresses keeps the addresses of subnets with DHCP and adds what is missing.
func (tx *Tx) dhcpAddresses(had []FixedIP, subnets []*Subnet) []FixedIP {
	ips := slices.DeleteFunc(slices.Clone(had), func(f FixedIP) bool {
		return !slices.ContainsFunc(subnets, func(s *Subnet) bool { return s.ID == f.SubnetID })
	})
	for _, s := range subnets {
		if s.EUI64() || containsSubnet(ips, s.ID) {
			continue
		}
		if ip, ok := tx.nextAddress(s, nil); ok {
			ips = append(ips, FixedIP{s.ID, ip})
		}
	}
	return ips
}

// ServesDHCPv6 reports whether the DHCP server answers by DHCPv6 on the subnet:
// with addresses, or where hosts make their own, with everything else. Without
// any mode it does as well, as in Neutron.
func (s *Subnet) ServesDHCPv6() bool {
	if s.IPVersion != 6 || !s.EnableDHCP {
		return false
	}
	return s.IPv6AddressMode == DHCPv6Stateful || s.IPv6AddressMode == DHCPv6Stateless || s.IPv6AddressMode == "" && s.IPv6RAMode == ""
}

// LeasesDHCPv6 reports whether it gives ports their addresses on the subnet.
func (s *Subnet) LeasesDHCPv6() bool { return s.ServesDHCPv6() && !s.EUI64() }
