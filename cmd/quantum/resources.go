package main

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
)

// resources are what the commands work on; each has create, list, show, update
// and delete.
var resources = []*resource{
	{
		kind: "network", prefix: "net",
		columns:    []string{"id", "name", "subnets"},
		create:     []*option{adminDownOption, sharedOption},
		createArgs: []positional{{metavar: "NAME", help: "name of network to create", attr: "name"}},
		update:     []*option{adminDownOption, sharedOption},
		describe:   addSubnetCIDRs,
	},
	{
		kind: "subnet", prefix: "subnet",
		columns: []string{"id", "name", "cidr", "allocation_pools"},
		create:  append([]*option{ipVersionOption}, subnetOptions...),
		createArgs: []positional{
			{metavar: "NETWORK", help: "network id or name this subnet belongs to", attr: "network_id", lookup: "network"},
			{metavar: "CIDR", help: "cidr of subnet to create", attr: "cidr"},
		},
		update:   subnetOptions,
		defaults: map[string]any{"ip_version": 4},
		check:    oneGateway,
	},
	{
		kind: "port", prefix: "port",
		columns: []string{"id", "name", "mac_address", "fixed_ips"},
		create:  portOptions,
		createArgs: []positional{
			{metavar: "NETWORK", help: "network id or name this port belongs to", attr: "network_id", lookup: "network"},
		},
		update: append([]*option{
			{name: "no-security-groups", help: "remove security groups from port", attr: "security_groups", value: []any{}},
		}, portOptions...),
	},
	{
		kind: "security_group", prefix: "security-group",
		columns:    []string{"id", "name", "description"},
		create:     []*option{descriptionOption},
		createArgs: []positional{{metavar: "NAME", help: "name of security group to create", attr: "name"}},
		update:     []*option{{name: "name", metavar: "NAME", help: "name of this security group", attr: "name"}, descriptionOption},
	},
	{
		kind: "security_group_rule", prefix: "security-group-rule", byID: true,
		columns: []string{"id", "security_group", "direction", "protocol", "remote_ip_prefix", "remote_group"},
		aliases: ruleAliases,
		list:    []*option{{name: "no-nameconv", help: "show security groups by ID, not by name"}},
		create:  ruleOptions,
		createArgs: []positional{
			{metavar: "SECURITY_GROUP", help: "security group id or name this rule belongs to", attr: "security_group_id", lookup: "security_group"},
		},
		defaults: map[string]any{"direction": "ingress"},
		describe: addGroupNames,
	},
	{
		kind: "router", prefix: "router",
		columns:    []string{"id", "name", "external_gateway_info"},
		create:     []*option{adminDownOption},
		createArgs: []positional{{metavar: "NAME", help: "name of router to create", attr: "name"}},
		update:     append([]*option{adminDownOption}, routesOptions...),
	},
	{
		kind: "floatingip", prefix: "floatingip", byID: true,
		columns: []string{"id", "fixed_ip_address", "floating_ip_address", "port_id"},
		create: []*option{
			{name: "port-id", metavar: "PORT_ID", help: "port to be associated with the floatingip", attr: "port_id", resolve: findAs("port")},
			fixedAddressOption,
		},
		createArgs: []positional{
			{metavar: "FLOATING_NETWORK", help: "network name or id to allocate floating IP from", attr: "floating_network_id", lookup: "network"},
		},
	},
}

var (
	adminDownOption = &option{name: "admin-state-down", help: "set admin state up to false", attr: "admin_state_up", value: false}
	sharedOption    = &option{name: "shared", help: "set the network as shared", attr: "shared", value: true}

	ipVersionOption = &option{name: "ip-version", metavar: "{4,6}", help: "IP version, 4 unless given",
		choices: []string{"4", "6"}, attr: "ip_version", parse: number}
	subnetOptions = []*option{
		{name: "name", metavar: "NAME", help: "name of this subnet", attr: "name"},
		{name: "gateway", metavar: "GATEWAY_IP", help: "gateway ip of this subnet", attr: "gateway_ip"},
		{name: "no-gateway", help: "no distribution of gateway", attr: "gateway_ip"},
		{name: "allocation-pool", metavar: "start=IP_ADDR,end=IP_ADDR", help: "allocation pool of this subnet, can be repeated",
			many: true, attr: "allocation_pools", parse: dict},
		{name: "host-route", metavar: "destination=CIDR,nexthop=IP_ADDR", help: "additional route, can be repeated",
			many: true, attr: "host_routes", parse: dict},
		{name: "dns-nameserver", metavar: "DNS_NAMESERVER", help: "DNS name server for this subnet, can be repeated",
			many: true, attr: "dns_nameservers"},
		{name: "disable-dhcp", help: "disable DHCP for this subnet", attr: "enable_dhcp", value: false},
	}

	portOptions = []*option{
		{name: "name", metavar: "NAME", help: "name of this port", attr: "name"},
		adminDownOption,
		{name: "mac-address", metavar: "MAC_ADDRESS", help: "mac address of this port", attr: "mac_address"},
		{name: "device-id", metavar: "DEVICE_ID", help: "device id of this port", attr: "device_id"},
		{name: "fixed-ip", metavar: "subnet_id=SUBNET,ip_address=IP_ADDR", help: "desired IP for this port, can be repeated",
			many: true, attr: "fixed_ips", parse: dict, resolve: findSubnet},
		{name: "security-group", metavar: "SECURITY_GROUP", help: "security group of the port, can be repeated",
			many: true, attr: "security_groups", resolve: findAs("security_group")},
	}

	descriptionOption = &option{name: "description", metavar: "DESCRIPTION", help: "description of this security group", attr: "description"}

	// ruleAliases has what a list of rules shows the names of groups under.
	ruleAliases = map[string]string{"security_group_id": "security_group", "remote_group_id": "remote_group"}

	ruleOptions = []*option{
		{name: "direction", metavar: "{ingress,egress}", help: "direction of traffic, ingress unless given",
			choices: []string{"ingress", "egress"}, attr: "direction"},
		{name: "ethertype", metavar: "{IPv4,IPv6}", help: "IPv4 unless given", attr: "ethertype"},
		{name: "protocol", metavar: "PROTOCOL", help: "protocol by name or number", attr: "protocol"},
		{name: "port-range-min", metavar: "PORT", help: "first port, or the type of ICMP", attr: "port_range_min"},
		{name: "port-range-max", metavar: "PORT", help: "last port, or the code of ICMP", attr: "port_range_max"},
		{name: "remote-ip-prefix", metavar: "CIDR", help: "addresses of the other side", attr: "remote_ip_prefix"},
		{name: "remote-group-id", metavar: "SECURITY_GROUP", help: "security group of the other side, by id or name",
			attr: "remote_group_id", resolve: findAs("security_group")},
	}

	fixedAddressOption = &option{name: "fixed-ip-address", metavar: "IP_ADDR", help: "IP address on the port, if it has several",
		attr: "fixed_ip_address"}
)

// oneGateway refuses --gateway together with --no-gateway.
func oneGateway(args *arguments) error {
	if args.has("gateway") && args.flag("no-gateway") {
		return usagef("--gateway option and --no-gateway option can not be used same time")
	}
	return nil
}

// findAs resolves the name of an object of a kind.
func findAs(kind string) func(*call, any) (any, error) {
	return func(c *call, v any) (any, error) {
		name, _ := v.(string)
		return c.api.find(c.ctx, kind, name)
	}
}

// findSubnet resolves the name of the subnet of a fixed IP.
func findSubnet(c *call, v any) (any, error) {
	fixed, _ := v.(map[string]any)
	name, ok := fixed["subnet_id"].(string)
	if !ok {
		return fixed, nil
	}
	id, err := c.api.find(c.ctx, "subnet", name)
	fixed["subnet_id"] = id
	return fixed, err
}

// idsPerRequest keeps the URL of a list by ids below what servers accept.
const idsPerRequest = 100

// addSubnetCIDRs shows people each subnet of a list of networks as "id cidr".
func addSubnetCIDRs(c *call, networks []object) error {
	if !c.human() {
		return nil
	}
	var ids []string
	for _, n := range networks {
		subnets, _ := n.get("subnets").([]any)
		for _, id := range subnets {
			ids = append(ids, cell(id))
		}
	}
	cidrs := map[string]string{}
	for chunk := range slices.Chunk(ids, idsPerRequest) {
		subnets, err := c.api.list(c.ctx, "subnet", url.Values{"fields": {"id", "cidr"}, "id": chunk})
		if err != nil {
			return err
		}
		for _, s := range subnets {
			cidrs[s.text("id")] = s.text("cidr")
		}
	}
	for _, n := range networks {
		subnets, _ := n.get("subnets").([]any)
		for i, id := range subnets {
			if cidr := cidrs[cell(id)]; cidr != "" {
				subnets[i] = cell(id) + " " + cidr
			}
		}
	}
	return nil
}

// addGroupNames shows the groups of a list of rules by name, unless it is told
// not to.
func addGroupNames(c *call, rules []object) error {
	if c.args.flag("no-nameconv") {
		return nil
	}
	var ids []string
	for _, r := range rules {
		for attr := range ruleAliases {
			if id := r.text(attr); id != "" {
				ids = append(ids, id)
			}
		}
	}
	slices.Sort(ids)
	names := map[string]string{}
	for chunk := range slices.Chunk(slices.Compact(ids), idsPerRequest) {
		groups, err := c.api.list(c.ctx, "security_group", url.Values{"fields": {"id", "name"}, "id": chunk})
		if err != nil {
			return err
		}
		for _, g := range groups {
			names[g.text("id")] = g.text("name")
		}
	}
	for _, r := range rules {
		for i, m := range r {
			alias, isGroup := ruleAliases[m.key]
			if !isGroup {
				continue
			}
			id, _ := m.value.(string)
			r[i].key = alias
			if name := names[id]; name != "" {
				r[i].value = name
			}
		}
	}
	return nil
}

// agents can be looked at only.
var agents = &resource{kind: "agent", columns: []string{"id", "agent_type", "host", "alive", "admin_state_up"}, describe: smileys}

// smileys shows people in a list whether agents live.
func smileys(c *call, found []object) error {
	if !c.human() {
		return nil
	}
	for _, a := range found {
		for i := range a {
			if alive, ok := a[i].value.(bool); ok && a[i].key == "alive" {
				a[i].value = map[bool]string{true: ":-)", false: "xxx"}[alive]
			}
		}
	}
	return nil
}

// allCommands are those of every resource and the special ones, by name.
func allCommands() map[string]*command {
	all := map[string]*command{}
	add := func(c *command) { all[c.name] = c }
	byPrefix := map[string]*resource{}
	for _, r := range resources {
		byPrefix[r.prefix] = r
		for _, c := range r.commands() {
			add(c)
		}
	}
	delete(all, "floatingip-update") // floatingip-associate does that
	add(&command{name: "net-external-list", help: "List external networks that belong to a given tenant.",
		options: listOptions, extras: true, run: func(c *call) error {
			c.args.extras = append(c.args.extras, extra{attr: "router:external", value: true})
			return byPrefix["net"].runList(c)
		}})
	add(&command{name: "router-port-list", help: "List ports that belong to a given router.",
		options: listOptions, positionals: []positional{routerArg}, extras: true, run: func(c *call) error {
			id, err := c.lookup(routerArg, c.args.positionals[0])
			if err != nil {
				return err
			}
			c.args.extras = append(c.args.extras, extra{attr: "device_id", value: id})
			return byPrefix["port"].runList(c)
		}})
	add(&command{name: "agent-list", help: "List agents: the hypervisors.", options: listOptions, extras: true, run: agents.runList})
	add(&command{name: "agent-show", help: "Show information of a given agent.",
		options:     append([]*option{fieldOption, detailsOption}, showOptions...),
		positionals: []positional{{metavar: "AGENT", help: "ID of agent"}}, run: agents.runShow})
	add(&command{name: "ext-list", help: "List all extensions.", options: listOptions, run: func(c *call) error {
		extensions := &resource{kind: "extension", columns: []string{"alias", "name"}}
		return extensions.runList(c)
	}})
	add(&command{name: "ext-show", help: "Show information of a given extension.", options: showOptions,
		positionals: []positional{{metavar: "EXT-ALIAS", help: "the extension alias"}},
		run:         func(c *call) error { return showObject(c, "extension", c.args.positionals[0], nil) }})
	for _, c := range quotaCommands() {
		add(c)
	}
	for _, v := range verbs {
		for _, c := range v.commands() {
			add(c)
		}
	}
	return all
}

// verb is a command that changes one object by PUT and says one sentence.
type verb struct {
	names       []string // the first is the usual one
	help        string
	kind        string // of the first positional, which is sought by name unless byID
	byID        bool
	action      string // below the object's path, "" for the object itself
	options     []*option
	positionals []positional // after the first
	body        func(attributes map[string]any) any
	done        string // what is said, before the first positional
}

var (
	routerArg = positional{metavar: "ROUTER", help: "ID or name of the router", lookup: "router"}
	subnetArg = positional{metavar: "SUBNET", help: "ID or name of the internal subnet", attr: "subnet_id", lookup: "subnet"}
	portArg   = positional{metavar: "PORT", help: "ID or name of the internal port", attr: "port_id", lookup: "port"}

	interfaceArg = positional{metavar: "INTERFACE", help: "ID or name of the internal subnet, or subnet=SUBNET, or port=PORT",
		attr: "subnet_id", lookup: "subnet", others: []positional{subnetArg, portArg}}

	gatewayOptions = []*option{
		{name: "disable-snat", help: "do not translate what leaves by the gateway", attr: "enable_snat", value: false},
		{name: "fixed-ip", metavar: "subnet_id=SUBNET,ip_address=IP_ADDR", help: "desired address of the gateway, can be repeated",
			many: true, attr: "external_fixed_ips", parse: dict, resolve: findSubnet},
	}

	routesOptions = []*option{
		{name: "route", metavar: "destination=CIDR,nexthop=IP_ADDR", help: "extra route, can be repeated", many: true, attr: "routes", parse: dict},
		{name: "no-routes", help: "remove all extra routes", attr: "routes", value: []any{}},
	}
)

var verbs = []verb{
	{names: []string{"router-interface-add"}, help: "Add an internal network interface to a router.", kind: "router",
		action: "/add_router_interface", positionals: []positional{interfaceArg}, body: plainBody,
		done: "Added interface to router"},
	{names: []string{"router-interface-delete", "router-interface-remove"}, help: "Remove an internal network interface from a router.",
		kind: "router", action: "/remove_router_interface", positionals: []positional{interfaceArg}, body: plainBody,
		done: "Removed interface from router"},
	{names: []string{"router-gateway-set"}, help: "Set the external network gateway for a router.", kind: "router", options: gatewayOptions,
		positionals: []positional{{metavar: "EXTERNAL_NETWORK", help: "ID or name of the external network", attr: "network_id", lookup: "network"}},
		body: func(attributes map[string]any) any {
			return map[string]any{"router": map[string]any{"external_gateway_info": attributes}}
		},
		done: "Set gateway for router"},
	{names: []string{"router-gateway-clear"}, help: "Remove an external network gateway from a router.", kind: "router",
		body: func(map[string]any) any {
			return map[string]any{"router": map[string]any{"external_gateway_info": map[string]any{}}}
		},
		done: "Removed gateway from router"},
	{names: []string{"floatingip-associate"}, help: "Create a mapping between a floating ip and a fixed ip.", kind: "floatingip", byID: true,
		options:     []*option{fixedAddressOption},
		positionals: []positional{{metavar: "PORT", help: "ID or name of the port", attr: "port_id", lookup: "port"}},
		body:        func(attributes map[string]any) any { return map[string]any{"floatingip": attributes} },
		done:        "Associated floatingip"},
	{names: []string{"floatingip-disassociate"}, help: "Remove a mapping from a floating ip to a fixed ip.", kind: "floatingip", byID: true,
		body: func(map[string]any) any {
			return map[string]any{"floatingip": map[string]any{"port_id": nil}}
		},
		done: "Disassociated floatingip"},
}

func plainBody(attributes map[string]any) any { return attributes }

// commands are the verb under each of its names.
func (v *verb) commands() []*command {
	first := positional{metavar: metavar(v.kind), help: "ID or name of " + v.kind, lookup: v.kind}
	if v.byID {
		first.help, first.lookup = "ID of "+v.kind, ""
	}
	var all []*command
	for _, name := range v.names {
		all = append(all, &command{name: name, help: v.help, options: v.options,
			positionals: append([]positional{first}, v.positionals...), run: v.run})
	}
	return all
}

func (v *verb) run(c *call) error {
	id, err := c.lookup(c.cmd.positionals[0], c.args.positionals[0])
	if err != nil {
		return err
	}
	attributes, err := (&resource{}).body(c)
	if err != nil {
		return err
	}
	if _, err := c.api.call(c.ctx, http.MethodPut, objectPath(v.kind, id)+v.action, nil, v.body(attributes)); err != nil {
		return err
	}
	_, err = fmt.Fprintf(c.out, "%s %s\n", v.done, c.args.positionals[0])
	return err
}
