package network

import (
	"iter"
	"net/netip"
)

// View is a read-only snapshot of the model at one revision. It is safe for
// concurrent use and stays as it is. What it returns is shared: copy before
// modifying. Sequences are ordered by id.
type View struct {
	trees    *trees
	revision uint64
	record   func(Dep)
}

// Counts is how many objects of each kind there are.
func (v *View) Counts() map[Kind]int {
	counts := make(map[Kind]int, len(v.trees.objects))
	for kind, objects := range v.trees.objects {
		counts[kind] = objects.Len()
	}
	return counts
}

// Revision is the revision of the store that the view shows.
func (v *View) Revision() uint64 { return v.revision }

// Recording returns the same view, which calls record for everything that is
// read through it, present or absent. The same Dep may be recorded repeatedly.
func (v *View) Recording(record func(Dep)) *View {
	return &View{trees: v.trees, revision: v.revision, record: record}
}

func (v *View) note(ix Index, key string) {
	if v.record != nil {
		v.record(Dep{ix, key})
	}
}

// Network returns the network with this id, or nil.
func (v *View) Network(id string) *Network { return byID[Network](v, KindNetwork, id) }

// Subnet returns the subnet with this id, or nil.
func (v *View) Subnet(id string) *Subnet { return byID[Subnet](v, KindSubnet, id) }

// Port returns the port with this id, or nil.
func (v *View) Port(id string) *Port { return byID[Port](v, KindPort, id) }

// PortStatus returns the status of a port; nil stands for DOWN.
func (v *View) PortStatus(portID string) *PortStatus {
	return byID[PortStatus](v, KindPortStatus, portID)
}

// Host returns the host with this name, or nil.
func (v *View) Host(name string) *Host { return byID[Host](v, KindHost, name) }

// VIF returns the interface that is plugged for a port on a host, or nil.
func (v *View) VIF(portID, host string) *VIF { return byID[VIF](v, KindVIF, VIFID(portID, host)) }

// Presence returns the presence of a network on a host, or nil.
func (v *View) Presence(networkID, host string) *Presence {
	return byID[Presence](v, KindPresence, PresenceID(networkID, host))
}

// Router returns the router with this id, or nil.
func (v *View) Router(id string) *Router { return byID[Router](v, KindRouter, id) }

// FloatingIP returns the floating IP with this id, or nil.
func (v *View) FloatingIP(id string) *FloatingIP { return byID[FloatingIP](v, KindFloatingIP, id) }

// Networks are all networks.
func (v *View) Networks() iter.Seq[*Network] { return all[Network](v, KindNetwork) }

// Subnets are all subnets.
func (v *View) Subnets() iter.Seq[*Subnet] { return all[Subnet](v, KindSubnet) }

// Ports are all ports.
func (v *View) Ports() iter.Seq[*Port] { return all[Port](v, KindPort) }

// Hosts are all hosts, alive or not.
func (v *View) Hosts() iter.Seq[*Host] { return all[Host](v, KindHost) }

// Routers are all routers.
func (v *View) Routers() iter.Seq[*Router] { return all[Router](v, KindRouter) }

// FloatingIPs are all floating IPs.
func (v *View) FloatingIPs() iter.Seq[*FloatingIP] { return all[FloatingIP](v, KindFloatingIP) }

// NetworksOfProject are the networks that a project owns.
func (v *View) NetworksOfProject(projectID string) iter.Seq[*Network] {
	return list[Network](v, KindNetwork, IndexNetworksOfProject, projectID)
}

// SubnetsOfProject are the subnets that a project owns.
func (v *View) SubnetsOfProject(projectID string) iter.Seq[*Subnet] {
	return list[Subnet](v, KindSubnet, IndexSubnetsOfProject, projectID)
}

// SubnetsOf are the subnets of a network.
func (v *View) SubnetsOf(networkID string) iter.Seq[*Subnet] {
	return list[Subnet](v, KindSubnet, IndexSubnetsOf, networkID)
}

// PortsOfProject are the ports that a project owns.
func (v *View) PortsOfProject(projectID string) iter.Seq[*Port] {
	return list[Port](v, KindPort, IndexPortsOfProject, projectID)
}

// PortsOf are the ports of a network.
func (v *View) PortsOf(networkID string) iter.Seq[*Port] {
	return list[Port](v, KindPort, IndexPortsOf, networkID)
}

// PortsOfSubnet are the ports that have an address of a subnet.
func (v *View) PortsOfSubnet(subnetID string) iter.Seq[*Port] {
	return list[Port](v, KindPort, IndexPortsOfSubnet, subnetID)
}

// PortsOfDevice are the ports of a device, for instance of a server.
func (v *View) PortsOfDevice(deviceID string) iter.Seq[*Port] {
	return list[Port](v, KindPort, IndexPortsOfDevice, deviceID)
}

// PortsBoundTo are the ports whose active binding names the host, whether the
// binding succeeded or not; "" lists the unbound ones.
func (v *View) PortsBoundTo(host string) iter.Seq[*Port] {
	return list[Port](v, KindPort, IndexPortsBoundTo, host)
}

// PortsOfOn are the ports of a network whose active binding names the host.
func (v *View) PortsOfOn(networkID, host string) iter.Seq[*Port] {
	return list[Port](v, KindPort, IndexPortsOfOn, PresenceID(networkID, host))
}

// LoosePortsOf are the ports of a network that may have unknown addresses: VMs
// without port security or with an address pair wider than one address.
func (v *View) LoosePortsOf(networkID string) iter.Seq[*Port] {
	return list[Port](v, KindPort, IndexLoosePortsOf, networkID)
}

// PairPortsOf are the ports of a network that have allowed address pairs.
func (v *View) PairPortsOf(networkID string) iter.Seq[*Port] {
	return list[Port](v, KindPort, IndexPairPortsOf, networkID)
}

// ServicePortsOf are the ports of a network that Planck itself answers for (Port.Service).
func (v *View) ServicePortsOf(networkID string) iter.Seq[*Port] {
	return list[Port](v, KindPort, IndexServicePortsOf, networkID)
}

// WiredHost is the host on which a port is bound and plugged, "" when there is none.
func (v *View) WiredHost(p *Port) string {
	if p.Binding.VIFType != VIFTypeOVS || v.VIF(p.ID, p.Binding.Host) == nil {
		return ""
	}
	return p.Binding.Host
}

// VIFsOf are the interfaces that are plugged for a port, on whatever host.
func (v *View) VIFsOf(portID string) iter.Seq[*VIF] {
	return list[VIF](v, KindVIF, IndexVIFsOf, portID)
}

// VIFsOn are the interfaces that are plugged on a host.
func (v *View) VIFsOn(host string) iter.Seq[*VIF] {
	return list[VIF](v, KindVIF, IndexVIFsOn, host)
}

// PresencesOf are the presences of a network.
func (v *View) PresencesOf(networkID string) iter.Seq[*Presence] {
	return list[Presence](v, KindPresence, IndexPresencesOf, networkID)
}

// InterfacesOf are the interfaces of a router: its ports on the networks that
// it joins, without the gateway.
func (v *View) InterfacesOf(routerID string) iter.Seq[*Port] {
	return list[Port](v, KindPort, IndexInterfacesOf, routerID)
}

// RouterPortsOf are the router interfaces on a network, without gateways. The
// DeviceID of one that is not attached names no router.
func (v *View) RouterPortsOf(networkID string) iter.Seq[*Port] {
	return list[Port](v, KindPort, IndexRouterPortsOf, networkID)
}

// RoutersOfProject are the routers that a project owns.
func (v *View) RoutersOfProject(projectID string) iter.Seq[*Router] {
	return list[Router](v, KindRouter, IndexRoutersOfProject, projectID)
}

// RoutersOn are the routers whose gateway is on an external network; "" lists
// those without a gateway.
func (v *View) RoutersOn(externalNetworkID string) iter.Seq[*Router] {
	return list[Router](v, KindRouter, IndexRoutersOn, externalNetworkID)
}

// RoutersVia are the routers with an extra route over a next hop, on whatever network.
func (v *View) RoutersVia(nextHop netip.Addr) iter.Seq[*Router] {
	return list[Router](v, KindRouter, IndexRoutersVia, nextHop.String())
}

// FloatingIPsOfProject are the floating IPs that a project owns.
func (v *View) FloatingIPsOfProject(projectID string) iter.Seq[*FloatingIP] {
	return list[FloatingIP](v, KindFloatingIP, IndexFloatingIPsOfProject, projectID)
}

// FloatingIPsOn are the floating IPs of an external network.
func (v *View) FloatingIPsOn(floatingNetworkID string) iter.Seq[*FloatingIP] {
	return list[FloatingIP](v, KindFloatingIP, IndexFloatingIPsOn, floatingNetworkID)
}

// FloatingIPsOfPort are the floating IPs that stand for addresses of a port;
// "" lists those that are not associated.
func (v *View) FloatingIPsOfPort(portID string) iter.Seq[*FloatingIP] {
	return list[FloatingIP](v, KindFloatingIP, IndexFloatingIPsOfPort, portID)
}

// FloatingIPsOfRouter are the floating IPs that a router translates.
func (v *View) FloatingIPsOfRouter(routerID string) iter.Seq[*FloatingIP] {
	return list[FloatingIP](v, KindFloatingIP, IndexFloatingIPsOfRouter, routerID)
}

// PortByIP returns the port of a network with this fixed address, or nil.
func (v *View) PortByIP(networkID string, ip netip.Addr) *Port {
	return lookup[Port](v, KindPort, IndexPortByIP, addressKey(networkID, ip))
}

// PortByMAC returns the port of a network with this MAC, or nil.
func (v *View) PortByMAC(networkID string, mac MAC) *Port {
	return lookup[Port](v, KindPort, IndexPortByMAC, macKey(networkID, mac))
}

// PortByKey returns the port with this small id, or nil.
func (v *View) PortByKey(key uint32) *Port {
	return lookup[Port](v, KindPort, IndexPortByKey, smallKey(key))
}

// NetworkByKey returns the network with this small id, or nil.
func (v *View) NetworkByKey(key uint32) *Network {
	return lookup[Network](v, KindNetwork, IndexNetworkByKey, smallKey(key))
}

// HostByKey returns the host with this small id, or nil.
func (v *View) HostByKey(key uint32) *Host {
	return lookup[Host](v, KindHost, IndexHostByKey, smallKey(key))
}

// RouterByKey returns the router with this small id, or nil.
func (v *View) RouterByKey(key uint32) *Router {
	return lookup[Router](v, KindRouter, IndexRouterByKey, smallKey(key))
}

// FloatingIPByKey returns the floating IP with this small id, or nil.
func (v *View) FloatingIPByKey(key uint32) *FloatingIP {
	return lookup[FloatingIP](v, KindFloatingIP, IndexFloatingIPByKey, smallKey(key))
}

// FloatingIPByAddress returns the floating IP with this address on an external network, or nil.
func (v *View) FloatingIPByAddress(networkID string, ip netip.Addr) *FloatingIP {
	return lookup[FloatingIP](v, KindFloatingIP, IndexFloatingIPByAddress, addressKey(networkID, ip))
}

func byID[T any](v *View, k Kind, id string) *T {
	v.note(tableOf[k].byID, id)
	return as[T](v.trees.object(k, id))
}

func lookup[T any](v *View, k Kind, ix Index, key string) *T {
	v.note(ix, key)
	o := v.trees.first(k, ix, key)
	if o != nil && v.record != nil {
		v.record(Dep{tableOf[k].byID, o.ObjectID()})
	}
	return as[T](o)
}

// as asserts the type of an object, which may be nil.
func as[T any](o Object) *T {
	if o == nil {
		return nil
	}
	return o.(any).(*T)
}

func all[T any](v *View, k Kind) iter.Seq[*T] {
	return func(yield func(*T) bool) {
		v.note(tableOf[k].all, "")
		v.trees.all(k, yieldAs(v, k, yield))
	}
}

func list[T any](v *View, k Kind, ix Index, key string) iter.Seq[*T] {
	return func(yield func(*T) bool) {
		v.note(ix, key)
		v.trees.list(k, ix, key, yieldAs(v, k, yield))
	}
}

// yieldAs records what is yielded.
func yieldAs[T any](v *View, k Kind, yield func(*T) bool) func(Object) bool {
	return func(o Object) bool {
		if v.record != nil {
			v.record(Dep{tableOf[k].byID, o.ObjectID()})
		}
		return yield(as[T](o))
	}
}

// object is an object of any kind, or nil.
func (v *View) object(k Kind, id string) Object { return v.trees.object(k, id) }
