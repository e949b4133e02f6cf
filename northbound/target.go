package northbound

import "planck/network"

// modelTarget is what rules may ask about an object.
type modelTarget struct {
	id          string
	projectID   string
	deviceOwner string
	network     *network.Network // itself; else it is the one with this id
	networkID   string
	view        *network.View
}

func (t *modelTarget) attribute(name string) (string, bool) {
	switch name {
	case "id":
		return t.id, true
	case "project_id":
		return t.projectID, true
	case "device_owner":
		return t.deviceOwner, true
	}
	n := t.network
	if n == nil {
		n = t.view.Network(t.networkID)
	}
	if n == nil {
		return "", false
	}
	switch name {
	case "network:project_id", "network_project_id":
		return n.ProjectID, true
	case "shared":
		return pythonBool(n.Shared), true
	case "router:external":
		return pythonBool(n.External), true
	}
	return "", false
}

func pythonBool(b bool) string { return repr(b) }

// owns reports whether a project is the caller's. Nobody owns what has none.
func (r *reader) owns(projectID string) bool {
	return projectID != "" && projectID == r.who.ProjectID
}

// networkVisible reports whether the caller may know of a network; a nil one does not exist.
func (r *reader) networkVisible(n *network.Network) bool {
	return n != nil && (r.all || r.owns(n.ProjectID) || n.Shared || n.External)
}

// portVisible reports whether a tenant may know of a port.
func (r *reader) portVisible(p *network.Port) bool {
	if r.owns(p.ProjectID) {
		return true
	}
	n := r.view.Network(p.NetworkID)
	return n != nil && r.owns(n.ProjectID)
}

// subnetVisible reports whether a tenant may know of a subnet.
func (r *reader) subnetVisible(s *network.Subnet) bool {
	n := r.view.Network(s.NetworkID)
	return r.owns(s.ProjectID) || n != nil && (r.owns(n.ProjectID) || n.Shared)
}

// seesPort reports whether the caller may refer to a port; a nil one does not exist.
func (r *reader) seesPort(p *network.Port) bool {
	return p != nil && (r.all || r.portVisible(p)) && r.policy.allows("get_port", r.who, portTarget(r.view, p))
}

// seesSubnet reports whether the caller may refer to a subnet; a nil one does not exist.
func (r *reader) seesSubnet(s *network.Subnet) bool {
	return s != nil && (r.all || r.subnetVisible(s)) && r.policy.allows("get_subnet", r.who, subnetTarget(r.view, s))
}

func networkNotFound(id string) error {
	return network.Errorf(network.NotFound, "NetworkNotFound", "Network %s could not be found.", id)
}
