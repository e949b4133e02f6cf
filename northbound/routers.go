package northbound

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"planck/network"
)

var routerExtensions = []extension{
	{"router", "Neutron L3 Router", "Router abstraction for basic L3 forwarding between L2 Neutron networks and access to external networks via a NAT gateway.", "2012-07-20T10:00:00-00:00"},
	routerZones,
	{"extraroute", "Neutron Extra Route", "Extra routes configuration for L3 router", "2013-02-01T10:00:00-00:00"},
	{"extraroute-atomic", "Atomically add/remove extra routes", "Edit extra routes of a router on server side by atomically adding/removing extra routes", "2019-07-10T00:00:00+00:00"},
	{"ext-gw-mode", "Neutron L3 Configurable external gateway mode", "Extension of the router abstraction for specifying whether SNAT should occur on the external gateway", "2013-03-28T10:00:00-00:00"},
}

// routers is the resource /v2.0/routers.
func routers() *resource[network.Router] {
	rs := &resource[network.Router]{
		name: "router", collection: "routers", path: "routers",
		extensions: routerExtensions,
		attributes: routerAttributes(),
		standard:   func(o *network.Router) *network.Standard { return &o.Standard },
		get:        (*network.View).Router,
		all:        (*network.View).Routers,
		indexes: []index[network.Router]{
			{"project_id", (*network.View).RoutersOfProject},
			{"tenant_id", (*network.View).RoutersOfProject},
		},
		visible: func(r *reader, o *network.Router) bool { return r.owns(o.ProjectID) },
		target: func(view *network.View, o *network.Router) target {
			return &modelTarget{id: o.ID, projectID: o.ProjectID, view: view}
		},
		notFound: func(id string) error {
			return network.Errorf(network.NotFound, "RouterNotFound", "Router %s could not be found", id)
		},
		clone: (*network.Router).Clone,
		prepare: func(c *change, o *network.Router) error {
			o.EnableSNAT = true
			return setGateway(c, o)
		},
		create: func(c *change, o *network.Router) error {
			return c.tx.CreateRouter(o, gatewayAddresses(c)...)
		},
		update: func(c *change, o, _ *network.Router) error {
			if err := setGateway(c, o); err != nil {
				return err
			}
			return c.tx.UpdateRouter(o, gatewayAddresses(c)...)
		},
		remove: (*network.Tx).DeleteRouter,
	}
	rs.actions = map[string]handler{
		"add_router_interface":    interfaceAction(rs, "add_router_interface", addInterface),
		"remove_router_interface": interfaceAction(rs, "remove_router_interface", removeInterface),
		"add_extraroutes":         routesAction(rs, "add_extraroutes", withRoutes),
		"remove_extraroutes":      routesAction(rs, "remove_extraroutes", withoutRoutes),
	}
	return rs
}

func routerAttributes() []attribute[network.Router] {
	type R = network.Router
	standard := func(o *R) *network.Standard { return &o.Standard }
	list := standardAttributes(standard)
	list = append(list, tagAttributes(standard, 0)...)
	return append(list,
		derived("status", text(16), sortable|filterable, func(*reader, *R) string { return network.StatusActive }),
		field("admin_state_up", boolean, readWrite|sortable|filterable, func(o *R) *bool { return &o.AdminStateUp }).withDefault(true),
		argument("external_gateway_info", gatewayKind(), readWrite|byPolicy|byKeys, gatewayOf).withDefault(gatewayInfo{}),
		field("routes", hostRoutes(), onPut, func(o *R) *[]network.Route { return &o.Routes }),
		argument("distributed", onlyFalse(), readWrite|byPolicy, func(*reader, *R) bool { return false }),
		argument("ha", onlyFalse(), readWrite|byPolicy, func(*reader, *R) bool { return false }),
		derived("flavor_id", nullable(text(36)), 0, func(*reader, *R) string { return "" }),
		field("availability_zone_hints", zoneHints(), onPost, func(o *R) *[]string { return &o.AZHints }),
		derived("availability_zones", stringsKind(nameSize), 0, routerZonesOf),
	)
}

// onlyFalse is a choice that Neutron's agents give and that there is none of
// here: every router is on every host, and has more than one gateway host.
func onlyFalse() kind[bool] {
	k := kind[bool]{write: strconv.AppendBool}
	k.parse = func(v any) (bool, error) {
		b, err := parseBool(v)
		if err == nil && b {
			err = notValid(v, "is not supported: how routers are placed can't be chosen")
		}
		return false, err
	}
	return k
}

// gatewayInfo is external_gateway_info; the zero value is null.
type gatewayInfo struct {
	networkID  string
	enableSNAT *bool // nil when it was not given
	ips        []network.FixedIP
}

func gatewayOf(r *reader, o *network.Router) gatewayInfo {
	info := gatewayInfo{networkID: o.ExternalNetworkID, enableSNAT: &o.EnableSNAT}
	if p := r.view.Port(o.GatewayPortID); p != nil {
		info.ips = p.FixedIPs
	}
	return info
}

func gatewayKind() kind[gatewayInfo] {
	addresses := fixedIPList()
	return kind[gatewayInfo]{
		parse: func(v any) (gatewayInfo, error) {
			return parseGateway(v, addresses)
		},
		write: func(b []byte, info gatewayInfo) []byte {
			if info.networkID == "" {
				return append(b, "null"...)
			}
			b = appendString(append(b, `{"network_id": `...), info.networkID)
			b = addresses.write(append(b, `, "external_fixed_ips": `...), info.ips)
			b = strconv.AppendBool(append(b, `, "enable_snat": `...), *info.enableSNAT)
			return append(b, '}')
		},
	}
}

func parseGateway(v any, addresses kind[[]network.FixedIP]) (gatewayInfo, error) {
	var info gatewayInfo
	if v == nil {
		return info, nil
	}
	m, ok := v.(map[string]any)
	if !ok {
		return info, notValid(v, "is not a dictionary")
	}
	if len(m) == 0 {
		return info, nil
	}
	if unknown := unknownKeys(m, "network_id", "enable_snat", "external_fixed_ips"); unknown != "" {
		return info, reason("Unexpected keys supplied: " + unknown)
	}
	id, ok := m["network_id"]
	if !ok {
		return info, reason("Validation of dictionary's keys failed. Expected keys: ['network_id'] Provided keys: " + reprStrings(sortedKeys(m)))
	}
	var err error
	if info.networkID, err = parseUUID(id); err != nil {
		return info, err
	}
	if raw, ok := m["enable_snat"]; ok {
		on, err := parseBool(raw)
		if err != nil {
			return info, err
		}
		info.enableSNAT = &on
	}
	if raw, ok := m["external_fixed_ips"]; ok {
		info.ips, err = addresses.parse(raw)
	}
	return info, err
}

// setGateway takes what the input says about the gateway, but its addresses.
func setGateway(c *change, o *network.Router) error {
	info, given := valueOf[gatewayInfo](c.in, "external_gateway_info")
	if !given {
		return nil
	}
	if info.networkID != "" && !c.r.networkVisible(c.tx.Network(info.networkID)) {
		return networkNotFound(info.networkID)
	}
	o.ExternalNetworkID = info.networkID
	if info.enableSNAT != nil {
		o.EnableSNAT = *info.enableSNAT
	}
	return nil
}

func gatewayAddresses(c *change) []network.FixedIP {
	info, _ := valueOf[gatewayInfo](c.in, "external_gateway_info")
	return info.ips
}

// routerInterface is the body of add_router_interface and
// remove_router_interface; what was not given is "".
type routerInterface struct {
	subnetID, portID string
}

func parseInterface(body map[string]any) (routerInterface, error) {
	var in routerInterface
	for name, id := range map[string]*string{"subnet_id": &in.subnetID, "port_id": &in.portID} {
		raw, ok := body[name]
		if !ok {
			continue
		}
		var err error
		if *id, err = parseUUID(raw); err != nil {
			return in, badResource("router", "%s", err)
		}
	}
	if in == (routerInterface{}) {
		return in, badResource("router", "Either subnet_id or port_id must be specified")
	}
	return in, nil
}

// interfaceEvents are the notifications of the calls that change interfaces.
var interfaceEvents = map[string]string{
	"add_router_interface": "router.interface.create", "remove_router_interface": "router.interface.delete",
}

// interfaceAction makes the handler of a call that changes a router's
// interfaces. do returns the port and the subnets that it is about.
func interfaceAction(rs *resource[network.Router], name string,
	do func(ch *change, o *network.Router, in routerInterface) (*network.Port, []string, error)) handler {
	return func(c *call) (int, []byte, error) {
		body, err := c.body()
		if err != nil {
			return 0, nil, err
		}
		in, err := parseInterface(body)
		if err != nil {
			return 0, nil, err
		}
		var answer []byte
		_, err = rs.modifyOnly(c, name, func(ch *change, o *network.Router) error {
			if !ch.r.policy.allows(name, ch.r.who, rs.target(ch.tx.View, o)) {
				return notAuthorized("rule:" + name)
			}
			p, subnets, err := do(ch, o, in)
			if err == nil {
				answer = encodeInterface(o, p, subnets)
				c.notify(ch.tx, interfaceEvents[name], fmt.Appendf(nil, `{"router_interface": %s}`, answer))
			}
			return err
		})
		return http.StatusOK, answer, err
	}
}

// encodeInterface writes Neutron's answer, which names one of the subnets by itself.
func encodeInterface(o *network.Router, p *network.Port, subnets []string) []byte {
	b := appendString([]byte(`{"id": `), o.ID)
	b = appendString(append(b, `, "tenant_id": `...), p.ProjectID)
	b = appendString(append(b, `, "project_id": `...), p.ProjectID)
	b = appendString(append(b, `, "port_id": `...), p.ID)
	b = appendString(append(b, `, "network_id": `...), p.NetworkID)
	b = appendString(append(b, `, "subnet_id": `...), subnets[len(subnets)-1])
	b = appendList(append(b, `, "subnet_ids": `...), subnets, appendString)
	b = appendList(append(b, `, "tags": `...), o.Tags, appendString)
	return append(b, '}')
}

func addInterface(ch *change, o *network.Router, in routerInterface) (*network.Port, []string, error) {
	if err := in.checkVisible(ch); err != nil {
		return nil, nil, err
	}
	p, err := ch.tx.AddRouterInterface(o.ID, in.subnetID, in.portID)
	if err != nil {
		return nil, nil, err
	}
	return p, in.subnetsOn(p), nil
}

func removeInterface(ch *change, o *network.Router, in routerInterface) (*network.Port, []string, error) {
	p, err := ch.tx.RemoveRouterInterface(o.ID, in.subnetID, in.portID)
	if err != nil {
		return nil, nil, err
	}
	return p, in.subnetsOn(p), nil
}

// subnetsOn are the subnets of a port that the call is about.
func (in routerInterface) subnetsOn(p *network.Port) []string {
	if in.portID == "" {
		return []string{in.subnetID}
	}
	ids := make([]string, len(p.FixedIPs))
	for i, f := range p.FixedIPs {
		ids[i] = f.SubnetID
	}
	return ids
}

// checkVisible keeps tenants from what they can't see, and from taking the
// gateway address of a subnet that is shared with them.
func (in routerInterface) checkVisible(ch *change) error {
	switch {
	case in.portID != "" && in.subnetID != "":
		return badResource("router", "Cannot specify both subnet-id and port-id")
	case in.portID != "":
		return checkPort(ch, in.portID)
	}
	s := ch.tx.Subnet(in.subnetID)
	if !ch.r.seesSubnet(s) {
		return subnetNotFound(in.subnetID)
	}
	if !ch.r.all && !ch.r.owns(s.ProjectID) {
		return subnetNotOwned(s)
	}
	return nil
}

func checkPort(ch *change, id string) error {
	p := ch.tx.Port(id)
	if !ch.r.seesPort(p) {
		return portNotFound(id)
	}
	if ch.r.all {
		return nil
	}
	for _, f := range p.FixedIPs {
		s := ch.tx.Subnet(f.SubnetID)
		inPool := slices.ContainsFunc(s.AllocationPools, func(pool network.Range) bool { return pool.Contains(f.IP) })
		if !inPool && !ch.r.owns(s.ProjectID) {
			return subnetNotOwned(s)
		}
	}
	return nil
}

func subnetNotOwned(s *network.Subnet) error {
	return badResource("router", "Cannot add interface to router because subnet %s is not owned by project making the request", s.ID)
}

// routesAction makes the handler of a call that changes some of a router's
// extra routes. merge makes the new list of the old one and those given.
func routesAction(rs *resource[network.Router], name string, merge func(have, given []network.Route) []network.Route) handler {
	return func(c *call) (int, []byte, error) {
		body, err := c.body()
		if err != nil {
			return 0, nil, err
		}
		given, err := rs.routesOf(body)
		if err != nil {
			return 0, nil, err
		}
		return rs.modify(c, name, func(ch *change, old *network.Router) error {
			if !ch.r.policy.allows(name, ch.r.who, rs.target(ch.tx.View, old)) {
				return notAuthorized("rule:" + name)
			}
			o := old.Clone()
			o.Routes = merge(o.Routes, given)
			return ch.tx.UpdateRouter(o)
		})
	}
}

// routesOf reads the list of routes of a body, which has nothing else.
func (rs *resource[T]) routesOf(body map[string]any) ([]network.Route, error) {
	item, ok := body[rs.name].(map[string]any)
	if !ok {
		return nil, badRequest("Unable to find '%s' in request body", rs.name)
	}
	if unknown := unknownKeys(item, "routes"); unknown != "" {
		return nil, badRequest("Unrecognized attribute(s) '%s'", unknown)
	}
	if len(item) == 0 {
		return nil, badRequest("Failed to parse request. Required attribute '%s' not specified", "routes")
	}
	routes, err := hostRoutes().parse(item["routes"])
	if why, ok := err.(reason); ok {
		return nil, badRequest("Invalid input for %s. Reason: %s.", "routes", strings.TrimSuffix(string(why), "."))
	}
	return routes, err
}

func withRoutes(have, given []network.Route) []network.Route {
	for _, r := range given {
		if !slices.Contains(have, r) {
			have = append(have, r)
		}
	}
	return have
}

func withoutRoutes(have, given []network.Route) []network.Route {
	return slices.DeleteFunc(have, func(r network.Route) bool { return slices.Contains(given, r) })
}
