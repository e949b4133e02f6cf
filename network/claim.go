package network

import (
	"fmt"
	"strings"
)

// The spaces in which claims are unique.
const (
	spaceNetworkKey = "network_key"
	spacePortKey    = "port_key"
	spaceHostKey    = "host_key"
	spaceSegment    = "segment"  // type/physical network/id
	spaceMAC        = "mac"      // network/MAC
	spaceIP         = "ip"       // subnet/address
	spaceDHCP       = "dhcp"     // network: the port that serves DHCP
	spaceVLAN       = "vlan"     // host/local VLAN; a network that left may hold it
	spacePresence   = "presence" // host/network
	spaceGroupKey   = "security_group_key"
	spaceRuleKey    = "security_group_rule_key"
	spaceRouterKey  = "router_key"
	spaceFloatKey   = "floatingip_key"
	spaceZone       = "zone"     // host/conntrack zone; an owner that left may hold it
	spaceFloating   = "floating" // external network/port/fixed address
	// spaceDefaultGroup has projects, spaceRule what a rule of a group lets pass.
	spaceDefaultGroup = "default_security_group"
	spaceRule         = "security_group_rule"
)

// Claim is the right of one object to something that exists once. Claims
// follow from objects alone, and are rows of their own with a unique key: two
// writers can't both have one.
type Claim struct {
	Space, Key string
	OwnerKind  Kind
	OwnerID    string
}

type claimKey struct{ space, key string }

func (c Claim) key() claimKey { return claimKey{c.Space, c.Key} }

// claimsOf lists the claims of an object; nil has none.
func claimsOf(o Object) []Claim {
	var claims []Claim
	add := func(space, key string) {
		claims = append(claims, Claim{space, key, o.ObjectKind(), o.ObjectID()})
	}
	switch o := o.(type) {
	case *Network:
		add(spaceNetworkKey, smallKey(o.Key))
		for _, s := range o.Segments() {
			if s.NetworkType != TypeLocal {
				add(spaceSegment, segmentKey(s.NetworkType, s.PhysicalNetwork, s.SegmentationID))
			}
		}
	case *Port:
		add(spacePortKey, smallKey(o.Key))
		add(spaceMAC, macKey(o.NetworkID, o.MAC))
		for _, f := range o.FixedIPs {
			add(spaceIP, ipKey(f))
		}
		if o.servesDHCP() {
			add(spaceDHCP, o.NetworkID)
		}
	case *Host:
		add(spaceHostKey, smallKey(o.Key))
	case *Presence:
		add(spaceVLAN, vlanKey(o.Host, uint32(o.VLAN)))
		add(spacePresence, o.Host+"/"+o.NetworkID)
	case *SecurityGroup:
		add(spaceGroupKey, smallKey(o.Key))
		if o.Default {
			add(spaceDefaultGroup, o.ProjectID)
		}
	case *SecurityGroupRule:
		add(spaceRuleKey, smallKey(o.Key))
		add(spaceRule, o.ContentKey())
	case *Router:
		add(spaceRouterKey, smallKey(o.Key))
	case *FloatingIP:
		add(spaceFloatKey, smallKey(o.Key))
		if o.PortID != "" {
			add(spaceFloating, o.FloatingNetworkID+"/"+o.PortID+"/"+o.FixedIP.String())
		}
	case *Zone:
		add(spaceZone, zoneKey(o.Host, o.Number))
	case *Transit:
		add(spaceSegment, segmentKey(o.NetworkType, o.PhysicalNetwork, o.SegmentationID))
	case *Departure:
		add(spaceVLAN, vlanKey(o.Host, uint32(o.VLAN)))
	}
	return claims
}

func segmentKey(typ, physicalNetwork string, id uint32) string {
	return typ + "/" + physicalNetwork + "/" + smallKey(id)
}

func ipKey(f FixedIP) string { return f.SubnetID + "/" + f.IP.String() }

func zoneKey(host string, number uint16) string { return host + "/" + smallKey(uint32(number)) }

func vlanKey(host string, vlan uint32) string { return host + "/" + smallKey(vlan) }

// taken is the error for a claim that another object holds.
func (c Claim) taken(owner Claim) error {
	parts := strings.Split(c.Key, "/")
	switch c.Space {
	case spaceMAC:
		return Errorf(Conflict, "MacAddressInUse",
			"Unable to complete operation for network %s. The mac address %s is in use.", parts[0], parts[1])
	case spaceIP:
		return Errorf(Conflict, "IpAddressAlreadyAllocated",
			"IP address %s already allocated in subnet %s", parts[1], parts[0])
	case spaceSegment:
		return segmentTaken(c.Key)
	case spaceRule:
		return Errorf(Conflict, "SecurityGroupRuleExists", "Security group rule already exists. Rule id is %s.", owner.OwnerID)
	case spaceDHCP:
		return Errorf(Conflict, "Conflict", "Network %s already has the port %s for DHCP.", c.Key, owner.OwnerID)
	}
	return fmt.Errorf("%s %s: %s %s is held by %s %s",
		c.OwnerKind, c.OwnerID, c.Space, c.Key, owner.OwnerKind, owner.OwnerID)
}

// segmentTaken takes apart the key from both ends: the physical network in its
// middle may hold any character.
func segmentTaken(key string) error {
	typ, rest, _ := strings.Cut(key, "/")
	cut := strings.LastIndexByte(rest, '/')
	physicalNetwork, id := rest[:cut], rest[cut+1:]
	switch typ {
	case TypeFlat:
		return Errorf(Conflict, "FlatNetworkInUse",
			"Unable to create the flat network. Physical network %s is in use.", physicalNetwork)
	case TypeVLAN:
		return Errorf(Conflict, "VlanIdInUse",
			"Unable to create the network. The VLAN %s on physical network %s is in use.", id, physicalNetwork)
	}
	return Errorf(Conflict, "TunnelIdInUse",
		"Unable to create the network. The tunnel ID %s is in use.", id)
}
