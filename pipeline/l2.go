package pipeline

import (
	"planck/flows"
	"planck/network"
)

// l2Feature finds the port of a destination MAC, and floods broadcasts within
// their network.
type l2Feature struct{}

func (l2Feature) ID() FeatureID { return FeatureL2 }
func (l2Feature) Name() string  { return "l2" }

// CompilePort implements PortFeature.
func (l2Feature) CompilePort(c *Context, p *PortContext) {
	if !p.Up() {
		return
	}
	match := flows.NewMatch(onNetwork(p.Network), flows.EthDst.IsMAC(p.MAC))
	if p.DeviceOwner == network.OwnerRouterInterface || p.DeviceOwner == network.OwnerDHCP {
		endHere(c, p, match)
		return
	}
	if p.VIF != nil {
		c.Flow(L2Lookup, 100, match, append(toPort(p.Port, p.VIF), To(IngressCt))...)
		return
	}
	if p.Remote == nil {
		return
	}
	if patch, _, _ := networkPatch(c, p.Network); patch != 0 {
		c.Flow(L2Lookup, 100, match, flows.SetField(RegOutput, uint64(patch)), To(Output))
	}
}

// endHere ends what nobody took of what is sent to a router or a DHCP server: they
// are on every host. It must not flood as if the MAC were unknown.
func endHere(c *Context, p *PortContext, match flows.Match) {
	if open(c.View, p.Network) {
		c.Flow(L2Lookup, 95, match, Drop(DropUnknownDestination)...)
	}
}

// CompileNetwork implements NetworkFeature.
func (l2Feature) CompileNetwork(c *Context, n *network.Network, _ *network.Presence) {
	if !n.AdminStateUp {
		return
	}
	c.Flood(Integration, n.Key, floodBuckets(c, n))
	c.Flow(L2Lookup, 90, flows.NewMatch(onNetwork(n), broadcastBit()), flows.ToGroup(n.Key))

	// A MAC of an address pair may be at any of its candidates.
	for p := range c.View.PairPortsOf(n.ID) {
		for _, pair := range p.AllowedAddressPairs {
			if pair.MAC != p.MAC {
				c.Flow(L2Lookup, 80, flows.NewMatch(onNetwork(n), flows.EthDst.IsMAC(pair.MAC)), flows.ToGroup(n.Key))
			}
		}
	}
	if unknown := unknownActions(c, n); len(unknown) > 0 {
		c.Flow(L2Lookup, 10, flows.NewMatch(onNetwork(n)), unknown...)
	}
}

// floodBuckets sends a copy to each port of the network on this host, and one
// to where its other members are.
func floodBuckets(c *Context, n *network.Network) []flows.Bucket {
	var buckets []flows.Bucket
	for p := range c.View.PortsOfOn(n.ID, c.Host.Name) {
		vif := c.View.VIF(p.ID, c.Host.Name)
		if vif == nil || !p.AdminStateUp {
			continue
		}
		buckets = append(buckets, flows.Bucket{Actions: append(toPort(p, vif), flows.Resubmit(IngressCt.ID))})
	}
	if patch, _, _ := networkPatch(c, n); patch != 0 && (n.Provider() || elsewhere(c, n)) {
		buckets = append(buckets, flows.Bucket{Actions: toPatch(patch)})
	}
	return buckets
}

// unknownActions sends an unknown unicast to the wire and to the ports that may
// have any MAC, on this host and on others. It is empty where all MACs are known.
func unknownActions(c *Context, n *network.Network) []flows.Action {
	var actions []flows.Action
	remote := n.Provider()
	for p := range c.View.LoosePortsOf(n.ID) {
		if p.PortSecurityEnabled {
			continue
		}
		vif := c.View.VIF(p.ID, c.Host.Name)
		if vif == nil || p.Binding.Host != c.Host.Name {
			remote = true
			continue
		}
		if p.AdminStateUp {
			actions = append(append(actions, toPort(p, vif)...), flows.Resubmit(IngressCt.ID))
		}
	}
	if patch, _, _ := networkPatch(c, n); remote && patch != 0 {
		actions = append(actions, toPatch(patch)...)
	}
	return actions
}

func toPort(p *network.Port, vif *network.VIF) []flows.Action {
	return []flows.Action{flows.SetField(RegOutput, uint64(vif.OFPort)), flows.SetField(RegDest, uint64(p.Key))}
}

func toPatch(patch uint32) []flows.Action {
	return []flows.Action{flows.SetField(RegOutput, uint64(patch)), flows.SetField(RegDest, 0), flows.Resubmit(Output.ID)}
}

// elsewhere reports whether the network has wired ports on another host.
func elsewhere(c *Context, n *network.Network) bool {
	for p := range c.View.PresencesOf(n.ID) {
		if p.Wired && p.Host != c.Host.Name {
			return true
		}
	}
	return false
}
