package northbound

import (
	"net/netip"
	"slices"
	"strconv"

	"planck/network"
)

var floatingIPExtensions = []extension{
	{"fip-port-details", "Floating IP Port Details Extension", "Add port_details attribute to Floating IP resource", "2018-04-09T10:00:00-00:00"},
}

// floatingIPs is the resource /v2.0/floatingips.
func floatingIPs() *resource[network.FloatingIP] {
	return &resource[network.FloatingIP]{
		name: "floatingip", collection: "floatingips", path: "floatingips",
		extensions: floatingIPExtensions,
		attributes: floatingIPAttributes(),
		standard:   func(f *network.FloatingIP) *network.Standard { return &f.Standard },
		get:        (*network.View).FloatingIP,
		all:        (*network.View).FloatingIPs,
		indexes: []index[network.FloatingIP]{
			{"port_id", (*network.View).FloatingIPsOfPort},
			{"router_id", (*network.View).FloatingIPsOfRouter},
			{"project_id", (*network.View).FloatingIPsOfProject},
			{"tenant_id", (*network.View).FloatingIPsOfProject},
			{"floating_network_id", (*network.View).FloatingIPsOn},
		},
		visible: func(r *reader, f *network.FloatingIP) bool { return r.owns(f.ProjectID) },
		target: func(view *network.View, f *network.FloatingIP) target {
			return &modelTarget{id: f.ID, projectID: f.ProjectID, view: view}
		},
		notFound: func(id string) error {
			return network.Errorf(network.NotFound, "FloatingIPNotFound", "Floating IP %s could not be found", id)
		},
		clone: (*network.FloatingIP).Clone,
		prepare: func(c *change, f *network.FloatingIP) error {
			if !c.r.networkVisible(c.tx.Network(f.FloatingNetworkID)) {
				return networkNotFound(f.FloatingNetworkID)
			}
			if err := checkPublished(f); err != nil {
				return err
			}
			return checkAssociation(c, f)
		},
		create: func(c *change, f *network.FloatingIP) error { return c.tx.CreateFloatingIP(f) },
		update: updateFloatingIP,
		remove: (*network.Tx).DeleteFloatingIP,
	}
}

func floatingIPAttributes() []attribute[network.FloatingIP] {
	type F = network.FloatingIP
	standard := func(f *F) *network.Standard { return &f.Standard }
	list := slices.DeleteFunc(standardAttributes(standard), func(a attribute[F]) bool { return a.name == "name" })
	list = append(list, tagAttributes(standard, 0)...)
	return append(list,
		field("floating_network_id", uuidKind, onPost|required|sortable|filterable, func(f *F) *string { return &f.FloatingNetworkID }),
		field("floating_ip_address", addrOrNull, onPost|sortable|filterable|byPolicy, func(f *F) *netip.Addr { return &f.Address }).withDefault(netip.Addr{}),
		field("subnet_id", uuidOrNull, onPost|hidden, func(f *F) *string { return &f.SubnetID }),
		field("port_id", uuidOrNull, readWrite|filterable, func(f *F) *string { return &f.PortID }),
		field("fixed_ip_address", addrOrNull, readWrite|sortable|filterable, func(f *F) *netip.Addr { return &f.FixedIP }),
		derived("router_id", nullable(text(36)), sortable|filterable, func(_ *reader, f *F) string { return f.RouterID }),
		derived("status", text(16), sortable|filterable, func(r *reader, f *F) string { return r.view.FloatingIPStatus(f) }),
		portDetails(),
		field("dns_name", relativeName(), onPost, func(f *F) *string { return &f.DNSName }).withDefault(""),
		field("dns_domain", dnsDomain(), onPost, func(f *F) *string { return &f.DNSDomain }).withDefault(""),
	)
}

// portDetails shows the port that a floating IP stands for, or null.
func portDetails() attribute[network.FloatingIP] {
	return attribute[network.FloatingIP]{
		name: "port_details",
		write: func(b []byte, r *reader, f *network.FloatingIP) []byte {
			p := r.view.Port(f.PortID)
			if p == nil {
				return append(b, "null"...)
			}
			b = appendString(append(b, `{"name": `...), p.Name)
			b = appendString(append(b, `, "network_id": `...), p.NetworkID)
			b = appendMAC(append(b, `, "mac_address": `...), p.MAC)
			b = strconv.AppendBool(append(b, `, "admin_state_up": `...), p.AdminStateUp)
			b = appendString(append(b, `, "status": `...), portStatus(r, p))
			b = appendString(append(b, `, "device_id": `...), p.DeviceID)
			b = appendString(append(b, `, "device_owner": `...), p.DeviceOwner)
			return append(b, '}')
		},
	}
}

func updateFloatingIP(c *change, f, _ *network.FloatingIP) error {
	port, given := valueOf[string](c.in, "port_id")
	fixed, _ := valueOf[netip.Addr](c.in, "fixed_ip_address")
	if fixed.IsValid() && port == "" {
		return badResource("floatingip", "fixed_ip_address cannot be specified without a port_id")
	}
	if given {
		f.FixedIP = fixed
		if err := checkAssociation(c, f); err != nil {
			return err
		}
	}
	return c.tx.UpdateFloatingIP(f)
}

// checkAssociation keeps tenants from each other's ports.
func checkAssociation(c *change, f *network.FloatingIP) error {
	if f.PortID == "" {
		return nil
	}
	p := c.tx.Port(f.PortID)
	if !c.r.seesPort(p) {
		return portNotFound(f.PortID)
	}
	if p.ProjectID != f.ProjectID && !c.r.all {
		return badResource("floatingip",
			"Cannot process floating IP association with Port %s, since that port is owned by a different tenant", p.ID)
	}
	return nil
}
