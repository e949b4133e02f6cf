package network

import (
	"errors"
	"fmt"
	"slices"
)

// Topology is what was made for a project that asked for a network without
// naming one: a network with subnets of the default pools, behind a router to
// the default external network.
type Topology struct {
	ProjectID string `json:"project_id"`
	NetworkID string `json:"network_id"`
	RouterID  string `json:"router_id"`
}

// ObjectKind implements Object.
func (*Topology) ObjectKind() Kind { return KindTopology }

// ObjectID implements Object.
func (t *Topology) ObjectID() string { return t.ProjectID }

// Topology returns what was made for a project, as long as its network is
// there; else nil.
func (v *View) Topology(projectID string) *Topology {
	t := byID[Topology](v, KindTopology, projectID)
	if t == nil || v.Network(t.NetworkID) == nil {
		return nil
	}
	return t
}

// AutoAllocationFailure is the error for what a deployment lacks for topologies.
func AutoAllocationFailure(why string) *Error {
	return Errorf(Conflict, "AutoAllocationFailure", "Deployment error: %s.", why)
}

// CreateTopology makes a network with a subnet of each pool, and a router
// between them and an external network.
func (tx *Tx) CreateTopology(projectID, externalNetworkID string, pools []*SubnetPool) (*Topology, error) {
	n := &Network{Standard: owned(projectID, "auto_allocated_network"), AdminStateUp: true, PortSecurityEnabled: true}
	if err := tx.CreateNetwork(n); err != nil {
		return nil, err
	}
	subnets, err := tx.topologySubnets(n, pools)
	if err != nil {
		return nil, unsuited(err, "Unable to provide tenant private network")
	}
	r := &Router{Standard: owned(projectID, "auto_allocated_router"), AdminStateUp: true, EnableSNAT: true, ExternalNetworkID: externalNetworkID}
	if err := tx.CreateRouter(r); err != nil {
		return nil, unsuited(err, "Unable to provide external connectivity")
	}
	for _, s := range subnets {
		if _, err := tx.AddRouterInterface(r.ID, s.ID, ""); err != nil {
			return nil, unsuited(err, "Unable to provide external connectivity")
		}
	}
	t := &Topology{ProjectID: projectID, NetworkID: n.ID, RouterID: r.ID}
	return t, tx.put(t)
}

func owned(projectID, name string) Standard { return Standard{ProjectID: projectID, Name: name} }

func (tx *Tx) topologySubnets(n *Network, pools []*SubnetPool) ([]*Subnet, error) {
	var subnets []*Subnet
	for _, p := range pools {
		s := &Subnet{
			Standard:  owned(n.ProjectID, fmt.Sprintf("auto_allocated_subnet_v%d", p.IPVersion)),
			NetworkID: n.ID, SubnetPoolID: p.ID, PrefixLen: Unset, IPVersion: p.IPVersion, EnableDHCP: true,
		}
		if err := tx.CreateSubnet(s); err != nil {
			return nil, err
		}
		subnets = append(subnets, s)
	}
	return subnets, nil
}

// unsuited turns what is wrong with the pools or the external network into an
// error of the deployment; what is wrong otherwise, such as a quota, stays.
func unsuited(err error, why string) error {
	e, ok := errors.AsType[*Error](err)
	if ok && (e.Class == Invalid || e.Class == NotFound || e.Type == "SubnetAllocationError") {
		return AutoAllocationFailure(why)
	}
	return err
}

// DeleteTopology deletes what was made for a project, if something was. What
// the project has added since is in the way.
func (tx *Tx) DeleteTopology(projectID string) error {
	t := tx.Topology(projectID)
	tx.remove(KindTopology, projectID)
	if t == nil {
		return nil
	}
	if tx.Router(t.RouterID) != nil {
		for _, p := range slices.Collect(tx.InterfacesOf(t.RouterID)) {
			if p.NetworkID != t.NetworkID {
				continue
			}
			if _, err := tx.RemoveRouterInterface(t.RouterID, "", p.ID); err != nil {
				return err
			}
		}
		if err := tx.DeleteRouter(t.RouterID); err != nil {
			return err
		}
	}
	return tx.DeleteNetwork(t.NetworkID)
}
