package northbound

import (
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
)

// bodies is a cloud with one of everything, and requests that take a body.
type bodies struct {
	*api
	ids   *strings.Replacer // of the objects: their names in capitals stand for them
	posts []string          // collections
	puts  []string          // paths
	after func(path string, r reply)
}

// newBodies makes the objects whose ids seeds name in capitals.
func newBodies(f *testing.F) *bodies {
	a := newAPI(f)
	a.hosts("h1", "h2", "h3")
	external := a.external("203.0.113.0/24")
	net, router := a.routed(blueAdmin, external, "10.0.0.0/24")
	port := a.port(blueAdmin, net, `, "device_owner": "compute:nova", "device_id": "vm", "binding:host_id": "h1"`)
	a.must(http.StatusCreated, blueAdmin, http.MethodPost, "/v2.0/ports/"+port+"/bindings", `{"binding": {"host": "h2"}}`)
	group := a.create(blueAdmin, "security-group", `{"name": "g"}`)["id"].(string)
	agent := a.list(admin, "agents", "host=h3", "id")[0]
	pool := a.pool(blueAdmin, `"prefixes": ["10.64.0.0/10"], "default_prefixlen": 24`)
	objects := map[string]string{
		"AGENT": agent, "POOL": pool,
		"EXTERNAL": external, "NETWORK": net, "ROUTER": router, "PORT": port, "GROUP": group, "RULE": a.ruleOf(blueAdmin),
		"SUBNET":   a.subnet(blueAdmin, a.network(blueAdmin, ""), "10.0.1.0/24", ""),
		"FLOATING": a.floatingIP(blueAdmin, external, ""),
	}
	var pairs []string
	for _, name := range slices.Sorted(maps.Keys(objects)) {
		pairs = append(pairs, name, objects[name])
	}
	return &bodies{api: a, ids: strings.NewReplacer(pairs...)}
}

// fuzz sends any body in each of the requests. What a POST made is deleted again,
// which must work.
func (b *bodies) fuzz(f *testing.F, seeds ...string) {
	for _, seed := range append(seeds, `[`, `{}`, `null`) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, body string) {
		b.t = t
		body = b.ids.Replace(body)
		for _, path := range b.posts {
			path = b.ids.Replace(path)
			b.unmake(path, b.request(t, http.MethodPost, "/v2.0/"+path, body))
		}
		for _, path := range b.puts {
			path = "/v2.0/" + b.ids.Replace(path)
			r := b.request(t, http.MethodPut, path, body)
			if b.after != nil && r.status == http.StatusOK {
				b.after(path, r)
			}
		}
	})
}

// request sends a body. What is refused must say why, and change nothing.
func (b *bodies) request(t *testing.T, method, path, body string) reply {
	t.Helper()
	before := b.store.View().Revision()
	r := b.send(blueAdmin, method, path, body)
	if r.status < http.StatusBadRequest {
		return r
	}
	refusedOrDone(t, method+" "+path, r)
	if e, _ := r.body["NeutronError"].(map[string]any); e["type"] == nil || e["message"] == "" {
		t.Errorf("%s %s: %d %s", method, path, r.status, r.raw)
	}
	if b.store.View().Revision() != before {
		t.Errorf("%s %s was refused by %d, and changed something", method, path, r.status)
	}
	return r
}

// FuzzRouterBody sends any bytes in requests about routers, their interfaces and
// routes, and floating IPs.
func FuzzRouterBody(f *testing.F) {
	b := newBodies(f)
	b.posts = []string{"routers", "floatingips"}
	b.puts = []string{
		"routers/ROUTER", "routers/ROUTER/add_extraroutes", "routers/ROUTER/remove_extraroutes",
		"routers/ROUTER/remove_router_interface", "routers/ROUTER/add_router_interface", "floatingips/FLOATING",
	}
	b.after = func(path string, r reply) {
		if base, added := strings.CutSuffix(path, "add_router_interface"); added {
			body := `{"port_id": "` + r.body["port_id"].(string) + `"}`
			b.request(b.t.(*testing.T), http.MethodPut, base+"remove_router_interface", body)
		}
	}
	b.fuzz(f,
		`{"router": {"name": "r", "external_gateway_info": {"network_id": "EXTERNAL", "enable_snat": false}}}`,
		`{"router": {"external_gateway_info": {"network_id": "EXTERNAL", "external_fixed_ips": [{"ip_address": "203.0.113.9"}, {"subnet_id": "SUBNET"}]}}}`,
		`{"router": {"external_gateway_info": null, "admin_state_up": "no", "distributed": true, "ha": null}}`,
		`{"router": {"routes": [{"destination": "10.9.0.0/16", "nexthop": "10.0.0.9"}, {"destination": "::/0", "nexthop": "::1"}]}}`,
		`{"routers": [{}, {"name": null}]}`, `{"subnet_id": "SUBNET"}`, `{"port_id": "PORT"}`, `{"subnet_id": "SUBNET", "port_id": "PORT"}`, `{"subnet_id": null}`,
		`{"floatingip": {"floating_network_id": "EXTERNAL", "port_id": "PORT", "fixed_ip_address": "10.0.0.2"}}`,
		`{"floatingip": {"floating_network_id": "EXTERNAL", "floating_ip_address": "203.0.113.77", "subnet_id": "SUBNET"}}`,
		`{"floatingip": {"floating_network_id": "EXTERNAL", "port_id": "PORT"}}`, `{"floatingip": {"floating_network_id": "EXTERNAL"}}`, `{"floatingip": {"port_id": "PORT"}}`,
		`{"router": {"routes": [{"destination": "10.9.0.0/16", "nexthop": "10.0.0.9"}]}}`,
		`{"floatingip": {"port_id": null, "description": "x"}}`, `{"floatingip": {"port_id": "", "fixed_ip_address": "::1"}}`,
	)
}

// FuzzGroupBody sends any bytes in requests about security groups and rules.
func FuzzGroupBody(f *testing.F) {
	b := newBodies(f)
	b.posts = []string{"security-groups", "security-group-rules"}
	b.puts = []string{"security-groups/GROUP", "security-group-rules/RULE"}
	b.fuzz(f,
		`{"security_group": {"name": "web", "stateful": false}}`, `{"security_groups": [{"name": "default"}, {}]}`,
		`{"security_group_rule": {"security_group_id": "GROUP", "direction": "ingress", "protocol": "tcp", "port_range_min": 80, "port_range_max": "443", "remote_ip_prefix": "10.0.0.1/8"}}`,
		`{"security_group_rule": {"security_group_id": "GROUP", "direction": "egress", "ethertype": "IPv6", "protocol": 58, "port_range_min": 255, "port_range_max": null}}`,
		`{"security_group_rule": {"security_group_id": "GROUP", "direction": "ingress", "remote_group_id": "GROUP", "protocol": "-1"}}`,
		`{"security_group_rules": [{"security_group_id": "GROUP", "direction": "ingress", "protocol": "icmp", "port_range_min": 8, "port_range_max": 0}, {"security_group_id": "GROUP"}]}`,
	)
}

// FuzzSmallBody sends any bytes in requests about quotas, bindings and tags.
func FuzzSmallBody(f *testing.F) {
	b := newBodies(f)
	b.posts = []string{"ports/PORT/bindings"}
	b.puts = []string{"quotas/blue", "ports/PORT/bindings/h1", "ports/PORT/bindings/h2/activate", "ports/PORT/bindings/h1/activate"}
	for _, object := range []string{"networks/NETWORK", "subnets/SUBNET", "ports/PORT", "routers/ROUTER", "floatingips/FLOATING", "security-groups/GROUP",
		"security-group-rules/RULE", "subnetpools/POOL"} {
		b.puts = append(b.puts, object+"/tags")
	}
	b.after = func(path string, _ reply) {
		if strings.Contains(path, "/quotas/") {
			b.must(http.StatusNoContent, admin, http.MethodDelete, path, "")
		}
	}
	b.fuzz(f,
		`{"quota": {"network": 0, "port": -1, "subnet": "7", "router": null}}`, `{"quota": {"network": 1e10, "tenant_id": "red"}}`, `{"quotas": {}}`,
		`{"binding": {"host": "h1", "vnic_type": "direct", "profile": {"a": {"b": [1.5e300]}}}}`, `{"binding": {"host": "h3"}}`, `{"binding": {"host": "", "profile": null}}`,
		`{"quota": {"network": 0, "port": -1, "subnet": "7"}}`,
		`{"tags": ["a", "b"]}`, `{"tags": []}`, `{"tags": ["a", "a", ",", ""]}`, `{"tags": [1, null]}`,
	)
}

// FuzzPoolBody sends any bytes in requests about subnet pools, subnets of them,
// and agents.
func FuzzPoolBody(f *testing.F) {
	b := newBodies(f)
	b.posts = []string{"subnetpools", "subnets"}
	b.puts = []string{"subnetpools/POOL", "agents/AGENT"}
	b.fuzz(f,
		`{"subnetpool": {"name": "p", "prefixes": ["10.0.0.0/8", "10.1.0.0/16"], "default_prefixlen": "26", "min_prefixlen": 8, "max_prefixlen": 32}}`,
		`{"subnetpool": {"name": "p", "prefixes": ["2001:db8::/48"], "is_default": true, "shared": "yes", "default_quota": 1}}`,
		`{"subnetpool": {"name": null, "prefixes": []}}`, `{"subnetpool": {"name": "p", "prefixes": ["10.0.0.0/8", "::/0"]}}`,
		`{"subnetpool": {"prefixes": ["10.64.0.0/10", "10.0.0.0/8"], "default_quota": -1}}`, `{"subnetpools": [{"name": "a", "prefixes": ["0.0.0.0/0"]}, {"name": "b"}]}`,
		`{"subnet": {"network_id": "NETWORK", "ip_version": 4, "subnetpool_id": "POOL"}}`, `{"subnet": {"network_id": "NETWORK", "ip_version": 4, "subnetpool_id": "POOL", "prefixlen": 33}}`,
		`{"subnet": {"network_id": "NETWORK", "ip_version": 4, "subnetpool_id": "POOL", "cidr": "10.64.7.0/24", "prefixlen": null}}`,
		`{"subnet": {"network_id": "NETWORK", "ip_version": 6, "use_default_subnetpool": true}}`,
		`{"agent": {"admin_state_up": "False", "description": "x"}}`, `{"agent": {"admin_state_up": null, "host": "h1"}}`,
	)
}

// FuzzPolicyFile reads any policy file. One that is taken has an answer for each
// action.
func FuzzPolicyFile(f *testing.F) {
	for _, seed := range []string{
		`{"context_is_admin": [["role:admin"]], "admin_or_owner": [["rule:context_is_admin"], ["tenant_id:%(tenant_id)s"]], "default": [["rule:admin_or_owner"]]}`,
		`{"create_network": "role:member and not role:reader", "get_port": "!", "x": null, "y": []}`,
		"# comment\ncreate_port: role:a or (role:b and @)\n\"get_network\": 'field:networks:shared=True'\n", "a: &a [[x:y]]\nb: *a\n", "{\"a\": [[]]}", "- a", "a: {b: c}", "\x00", "---\n...\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		given, err := parsePolicyFile(data)
		if err != nil {
			return
		}
		rules := maps.Clone(defaultPolicy)
		if given.ofLists {
			leaveToDefault(rules)
		}
		maps.Copy(rules, given.rules)
		p, err := newPolicy(rules)
		if err != nil {
			return
		}
		who := &Identity{ProjectID: "blue", Roles: []string{"member"}}
		for _, action := range []string{"create_network", "get_port", "update_router:routes", "delete_floatingip"} {
			if p.allows(action, who, noTarget{}) && p.has(action) {
				p.aboutTarget(action)
			}
		}
	})
}
