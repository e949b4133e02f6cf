package controller

import (
	"cmp"
	"iter"
	"net/netip"
	"slices"
	"strings"

	"planck/network"
)

// Kinds of resources that can be explained, as in Resource.
const (
	kindPort       = "port"
	kindNetwork    = "network"
	kindSubnet     = "subnet"
	kindRouter     = "router"
	kindFloatingIP = "floatingip"
	kindGroup      = "security_group"
	kindHost       = "host"
)

// ExplainedKinds are the kinds of resources that Explain tells about.
var ExplainedKinds = []string{kindPort, kindNetwork, kindSubnet, kindRouter, kindFloatingIP, kindGroup, kindHost}

// findResource is the one resource of a kind, or of any, that something names.
func findResource(v *network.View, kind, name string) (Resource, error) {
	if kind != "" && !slices.Contains(ExplainedKinds, kind) {
		return Resource{}, network.Errorf(network.Invalid, "HTTPBadRequest", "%q is no kind of resource: one of %s", kind, strings.Join(ExplainedKinds, ", "))
	}
	found := everythingCalled(v, name)
	found = slices.DeleteFunc(found, func(r Resource) bool { return kind != "" && r.Kind != kind })
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return Resource{}, notFound(v, kind, name)
	}
	list := make([]string, len(found))
	for i, r := range found {
		list[i] = strings.ReplaceAll(r.Kind, "_", " ") + " " + called(r.Name, r.ID) + distinguished(v, r)
	}
	return Resource{}, network.Errorf(network.Conflict, "ResourceNotUnique", "%s is several things, name one by its kind and id: %s", name, strings.Join(list, "; "))
}

// distinguished tells apart what has one name or address: of which network a port
// is, and of which project anything else.
func distinguished(v *network.View, r Resource) string {
	if p := v.Port(r.ID); r.Kind == kindPort && p != nil {
		if n := v.Network(p.NetworkID); n != nil {
			return " of network " + called(n.Name, n.ID)
		}
	}
	for _, project := range []string{
		projectOf(v.Network(r.ID)), projectOf(v.Subnet(r.ID)), projectOf(v.Router(r.ID)),
		projectOf(v.FloatingIP(r.ID)), projectOf(v.SecurityGroup(r.ID)),
	} {
		if project != "" {
			return " of project " + project
		}
	}
	return ""
}

func projectOf[T namedObject](o T) string {
	var none T
	if o == none {
		return ""
	}
	return o.ObjectProject()
}

// notFound says that there is nothing, and of an address what is known of it.
func notFound(v *network.View, kind, name string) error {
	what := "Resource"
	if kind != "" {
		what = strings.ReplaceAll(strings.ToUpper(kind[:1])+kind[1:], "_", " ")
	}
	if ip, err := netip.ParseAddr(name); err == nil {
		var subnets []string
		for s := range v.Subnets() {
			if s.CIDR.Contains(ip) {
				subnets = append(subnets, called(s.Name, s.ID)+" ("+s.CIDR.String()+")")
			}
		}
		if len(subnets) > 0 {
			return network.Errorf(network.NotFound, "ResourceNotFound", "nothing has the address %s, which is of subnet %s", name, some(subnets))
		}
	}
	return network.Errorf(network.NotFound, "ResourceNotFound", "%s %s could not be found.", what, name)
}

// everythingCalled is everything with an id, a name, an address or a MAC. An id names one
// thing; an address of a router or a floating IP is not its port's besides.
func everythingCalled(v *network.View, name string) (found []Resource) {
	if name == "" {
		return nil
	}
	if ip, err := netip.ParseAddr(name); err == nil {
		return ofAddress(v, ip)
	}
	if mac, err := network.ParseMAC(name); err == nil {
		for p := range v.Ports() {
			if p.MAC == mac {
				found = append(found, Resource{kindPort, p.ID, p.Name})
			}
		}
		return sorted(found)
	}
	for _, of := range [][]Resource{
		ofName(v.Port(name), v.Ports(), kindPort, name), ofName(v.Network(name), v.Networks(), kindNetwork, name),
		ofName(v.Subnet(name), v.Subnets(), kindSubnet, name), ofName(v.Router(name), v.Routers(), kindRouter, name),
		ofName(v.FloatingIP(name), v.FloatingIPs(), kindFloatingIP, name),
		ofName(v.SecurityGroup(name), v.SecurityGroups(), kindGroup, name),
	} {
		found = append(found, of...)
	}
	if h := v.Host(name); h != nil {
		found = append(found, Resource{kindHost, h.Name, ""})
	}
	return found
}

func ofName[T namedObject](byID T, all iter.Seq[T], kind, name string) (found []Resource) {
	var none T
	if byID != none {
		return []Resource{{kind, byID.ObjectID(), byID.ObjectName()}}
	}
	for o := range all {
		if o.ObjectName() == name {
			found = append(found, Resource{kind, o.ObjectID(), name})
		}
	}
	return sorted(found)
}

func sorted(list []Resource) []Resource {
	slices.SortFunc(list, func(a, b Resource) int { return strings.Compare(a.Kind+a.ID, b.Kind+b.ID) })
	return list
}

// ofAddress is what has an address.
func ofAddress(v *network.View, ip netip.Addr) (found []Resource) {
	for f := range v.FloatingIPs() {
		if f.Address == ip {
			found = append(found, Resource{kindFloatingIP, f.ID, f.Name})
		}
	}
	for p := range v.Ports() {
		has := slices.ContainsFunc(p.FixedIPs, func(f network.FixedIP) bool { return f.IP == ip })
		if has && p.DeviceOwner != network.OwnerFloatingIP {
			found = append(found, Resource{kindPort, p.ID, p.Name})
		}
	}
	for h := range v.Hosts() {
		if h.TunnelIP == ip {
			found = append(found, Resource{kindHost, h.Name, ""})
		}
	}
	return sorted(found)
}

// findPort is the port with an id, a name, an address or a MAC.
func findPort(v *network.View, name string) (*network.Port, error) {
	if _, err := netip.ParseAddr(name); err != nil {
		if _, err := network.ParseMAC(name); err != nil {
			return findNamed(v.Port(name), v.Ports(), name, "Port")
		}
	}
	r, err := findResource(v, kindPort, name)
	if err != nil {
		return nil, err
	}
	return v.Port(r.ID), nil
}

// namedObject is an object with a name.
type namedObject interface {
	comparable
	network.Object
	ObjectName() string
	ObjectProject() string
}

// findNamed is the object that has a name as its id, which is then given, or as
// its name. The error says that there is none, or several.
func findNamed[T namedObject](byID T, all iter.Seq[T], name, kind string) (T, error) {
	var none T
	if byID != none {
		return byID, nil
	}
	var found []T
	for o := range all {
		if name != "" && o.ObjectName() == name {
			found = append(found, o)
		}
	}
	switch len(found) {
	case 0:
		return none, network.Errorf(network.NotFound, kind+"NotFound", "%s %s could not be found.", kind, name)
	case 1:
		return found[0], nil
	}
	ids := make([]string, len(found))
	for i, o := range found {
		ids[i] = o.ObjectID()
		if project := o.ObjectProject(); project != "" {
			ids[i] += " of project " + project
		}
	}
	slices.Sort(ids)
	return none, network.Errorf(network.Conflict, kind+"NotUnique", "several have the name %s, name one by its id: %s", name, strings.Join(ids, ", "))
}

// HostOf is the host of the port with an id, a name or an address, "" for none.
func (c *Controller) HostOf(port string) string {
	view := c.view.Load()
	if view == nil {
		return ""
	}
	p, _, err := tracedSender(view, port)
	if err != nil || p == nil {
		return ""
	}
	return cmp.Or(view.WiredHost(p), p.Binding.Host)
}
