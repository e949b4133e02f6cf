package northbound

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
)

// nasty are JSON values that no attribute of any kind takes.
var nasty = []string{
	`"` + strings.Repeat("x", 100_000) + `"`,
	`{"x": {"y": []}}`, `[{"x": 1}, [[]]]`, `[null]`, `[1.5e300]`, `["\u0000"]`, `"\u0000"`, `1e300`, `-1e300`, `-99999999999999999999`,
}

// anything are JSON values that an attribute may take or refuse.
var anything = []string{`null`, `true`, `0`, `-1`, `1`, `3.7`, `""`, `" "`, `"x"`, `"\ud800"`, `"🙂"`, `[]`, `{}`, `[""]`, `[{}]`, `"true"`, `"10.0.0.0/24"`, `"::/0"`, `"0.0.0.0"`}

// refuses reports whether an attribute must refuse a value: all that are nasty,
// but for the dictionary of free form.
func refuses(attribute, value string) bool {
	return slices.Contains(nasty, value) && !(attribute == "binding:profile" && value == nasty[1])
}

// TestEveryAttributeRefusesWhatItCanNot walks all attributes of all resources
// with all values in POST and PUT: each is refused with a type of Neutron's and
// changes nothing, or taken. Nothing is ever an internal error.
func TestEveryAttributeRefusesWhatItCanNot(t *testing.T) {
	a := newAPI(t)
	a.hosts("h1")
	net := a.network(admin, `"tenant_id": "blue"`)
	subnet := a.subnet(admin, net, "10.0.0.0/24", "")
	port := a.port(admin, net, "")
	external := a.external("172.24.4.0/24")
	group := a.create(admin, "security-group", `{"name": "g"}`)
	rules := group["security_group_rules"].([]any)
	ids := map[string]string{
		"security_group": group["id"].(string), "security_group_rule": rules[0].(map[string]any)["id"].(string),
		"network": net, "subnet": subnet, "port": port,
		"router": a.router(admin, ""), "floatingip": a.floatingIP(admin, external, ""),
		"subnetpool": a.pool(admin, `"prefixes": ["10.64.0.0/10"]`), "agent": a.list(admin, "agents", "", "id")[0],
	}
	base := map[string]string{
		"network": `"name": "n"`,
		"subnet":  fmt.Sprintf(`"network_id": %q, "ip_version": 4, "cidr": "10.77.0.0/24"`, net),
		"port":    fmt.Sprintf(`"network_id": %q`, net),
		"router":  `"name": "r"`,

		"security_group":      `"name": "h"`,
		"security_group_rule": fmt.Sprintf(`"security_group_id": %q, "direction": "ingress"`, group["id"]),

		"floatingip": fmt.Sprintf(`"floating_network_id": %q`, external),
		"subnetpool": `"name": "p", "prefixes": ["10.0.0.0/16"]`,
	}
	for _, c := range resources() {
		name, _ := c.title()
		collection := strings.TrimPrefix(c.endpoints()[0].path, "/v2.0/")
		for _, r := range c.rows() {
			for _, value := range slices.Concat(nasty, anything) {
				body := fmt.Sprintf(`{%q: {%s, %q: %s}}`, name, base[name], r.name, value)
				a.poke(http.MethodPost, "/v2.0/"+collection, body, refuses(r.name, value))
				body = fmt.Sprintf(`{%q: {%q: %s}}`, name, r.name, value)
				a.poke(http.MethodPut, "/v2.0/"+collection+"/"+ids[name], body, refuses(r.name, value))
			}
		}
	}
}

// nested are values inside of attributes, by resource.
var nested = map[string][]string{
	"network": {`"segments": [{"provider:network_type": %s}]`, `"segments": [{"provider:network_type": "vlan", "provider:physical_network": %s}]`,
		`"segments": [{"provider:network_type": "gre", "provider:segmentation_id": %s}]`, `"tags": [%s]`, `"availability_zone_hints": [%s]`},
	"subnet": {`"allocation_pools": [{"start": %s, "end": "10.77.0.9"}]`, `"allocation_pools": [{"start": "10.77.0.2", "end": %s}]`,
		`"host_routes": [{"destination": %s, "nexthop": "10.77.0.2"}]`, `"host_routes": [{"destination": "10.9.0.0/16", "nexthop": %s}]`,
		`"dns_nameservers": [%s]`, `"service_types": [%s]`},
	"port": {`"fixed_ips": [{"ip_address": %s}]`, `"fixed_ips": [{"subnet_id": %s}]`, `"security_groups": [%s]`,
		`"allowed_address_pairs": [{"ip_address": %s}]`, `"allowed_address_pairs": [{"ip_address": "10.0.0.9", "mac_address": %s}]`,
		`"extra_dhcp_opts": [{"opt_name": %s, "opt_value": "x"}]`, `"extra_dhcp_opts": [{"opt_name": "mtu", "opt_value": %s}]`,
		`"extra_dhcp_opts": [{"opt_name": "mtu", "opt_value": "1", "ip_version": %s}]`},
	"subnetpool": {`"prefixes": [%s]`, `"prefixes": ["10.0.0.0/16", %s]`},
	"router": {`"external_gateway_info": {"network_id": %s}`, `"external_gateway_info": {"network_id": "EXTERNAL", "enable_snat": %s}`,
		`"external_gateway_info": {"network_id": "EXTERNAL", "external_fixed_ips": [{"ip_address": %s}]}`,
		`"external_gateway_info": {"network_id": "EXTERNAL", "external_fixed_ips": %s}`,
		`"routes": [{"destination": %s, "nexthop": "10.0.0.9"}]`, `"routes": [{"destination": "10.9.0.0/16", "nexthop": %s}]`},
}

// TestNestedValuesAreRefused walks the values inside of attributes, likewise, and
// sees that a bulk request with one of them makes nothing.
func TestNestedValuesAreRefused(t *testing.T) {
	a := newAPI(t)
	net, external := a.network(admin, ""), a.external("172.24.4.0/24")
	ids := map[string]string{"network": net, "subnet": a.subnet(admin, net, "10.0.0.0/24", ""), "port": a.port(admin, net, ""), "router": a.router(admin, ""),
		"subnetpool": a.pool(admin, `"prefixes": ["10.64.0.0/10"]`)}
	base := map[string]string{
		"subnetpool": `"name": "p"`,
		"network":    `"name": "n"`, "router": `"name": "r"`, "port": fmt.Sprintf(`"network_id": %q`, net),
		"subnet": fmt.Sprintf(`"network_id": %q, "ip_version": 4, "cidr": "10.77.0.0/24"`, net),
	}
	for name, forms := range nested {
		path := "/v2.0/" + name + "s"
		for _, form := range forms {
			form = strings.ReplaceAll(form, "EXTERNAL", external)
			for _, value := range slices.Concat(nasty, anything) {
				attribute, mustFail := fmt.Sprintf(form, value), slices.Contains(nasty, value)
				object := fmt.Sprintf(`{%s, %s}`, base[name], attribute)
				a.poke(http.MethodPost, path, fmt.Sprintf(`{%q: %s}`, name, object), mustFail)
				a.poke(http.MethodPut, path+"/"+ids[name], fmt.Sprintf(`{%q: {%s}}`, name, attribute), mustFail)
				if mustFail {
					a.poke(http.MethodPost, path, fmt.Sprintf(`{"%ss": [{%s}, %s]}`, name, base[name], object), true)
				}
			}
		}
	}
}

// TestCallsBesideTheCollectionsRefuseWhatTheyCanNot walks what the other calls
// take, likewise.
func TestCallsBesideTheCollectionsRefuseWhatTheyCanNot(t *testing.T) {
	a := newAPI(t)
	a.hosts("h1", "h2")
	net := a.network(admin, `"tenant_id": "blue"`)
	a.subnet(admin, net, "10.0.0.0/24", "")
	port := a.port(admin, net, `, "device_owner": "compute:nova", "binding:host_id": "h1"`)
	router := "/v2.0/routers/" + a.router(admin, "")
	bindings := "/v2.0/ports/" + port + "/bindings"
	calls := []struct{ method, path, body string }{
		{"POST", bindings, `{"binding": %s}`},
		{"POST", bindings, `{"binding": {"host": %s}}`},
		{"POST", bindings, `{"binding": {"host": "h2", "vnic_type": %s}}`},
		{"PUT", bindings + "/h1", `{"binding": {"host": %s}}`},
		{"PUT", bindings + "/h1", `{"binding": {"vnic_type": %s}}`},
		{"PUT", "/v2.0/quotas/blue", `{"quota": %s}`},
		{"PUT", "/v2.0/quotas/blue", `{"quota": {"network": %s}}`},
		{"PUT", "/v2.0/quotas/blue", `{"quota": {"network": 1, "nonsense": %s}}`},
		{"PUT", "/v2.0/quotas/blue", `{"quota": {"network": 1, "check_limit": %s}}`},
		{"PUT", "/v2.0/networks/" + net + "/tags", `{"tags": %s}`},
		{"PUT", "/v2.0/networks/" + net + "/tags", `{"tags": [%s]}`},
		{"POST", "/v2.0/networks/" + net + "/tags", `{"tags": %s}`},
		{"PUT", router + "/add_router_interface", `{"subnet_id": %s}`},
		{"PUT", router + "/add_router_interface", `{"port_id": %s}`},
		{"PUT", router + "/add_router_interface", `%s`},
		{"PUT", router + "/remove_router_interface", `{"subnet_id": %s}`},
		{"PUT", router + "/remove_router_interface", `{"port_id": %s}`},
		{"PUT", router + "/add_extraroutes", `{"router": %s}`},
		{"PUT", router + "/add_extraroutes", `{"router": {"routes": %s}}`},
		{"PUT", router + "/add_extraroutes", `{"router": {"routes": [{"destination": %s, "nexthop": "10.0.0.9"}]}}`},
		{"PUT", router + "/remove_extraroutes", `{"router": {"routes": %s}}`},
	}
	for _, c := range calls {
		for _, value := range slices.Concat(nasty, anything) {
			a.poke(c.method, c.path, fmt.Sprintf(c.body, value), slices.Contains(nasty, value))
		}
	}
}

// poke sends a request whose answer must be a success or a proper refusal.
func (a *api) poke(method, path, body string, mustFail bool) {
	a.t.Helper()
	before := a.store.View().Revision()
	r := a.send(admin, method, path, body)
	shown := body[:min(len(body), 200)]
	if r.status < 400 {
		if mustFail {
			a.t.Errorf("%s %s %s: was taken: %s", method, path, shown, r.raw[:min(len(r.raw), 200)])
		}
		a.undo(method, r)
		return
	}
	e, _ := r.body["NeutronError"].(map[string]any)
	if r.status >= 500 || e["type"] == "" || e["type"] == nil || e["message"] == "" {
		a.t.Errorf("%s %s %s: %d %s", method, path, shown, r.status, r.raw)
	}
	if len(r.raw) > 2000 {
		a.t.Errorf("%s %s %s: the refusal has %d bytes", method, path, shown, len(r.raw))
	}
	if a.store.View().Revision() != before {
		a.t.Errorf("%s %s %s: refused, and changed something", method, path, shown)
	}
}

// undo deletes what a POST made, so that the next one meets the same state.
func (a *api) undo(method string, r reply) {
	a.t.Helper()
	if method != http.MethodPost {
		return
	}
	for name, o := range r.body {
		if o, ok := o.(map[string]any); ok {
			a.must(http.StatusNoContent, admin, http.MethodDelete, "/v2.0/"+strings.ReplaceAll(name, "_", "-")+"s/"+o["id"].(string), "")
		}
	}
}

// TestEveryAttributeIsListed walks all attributes with each kind of query.
func TestEveryAttributeIsListed(t *testing.T) {
	a := newAPI(t)
	net := a.network(admin, "")
	a.subnet(admin, net, "10.0.0.0/24", "")
	a.port(admin, net, "")
	for _, c := range resources() {
		collection := strings.TrimPrefix(c.endpoints()[0].path, "/v2.0/")
		for _, r := range c.rows() {
			for _, value := range []string{"", "x", "true", "1", "-1", "%00", "%ff", "10.0.0.2", "null", "a=b", "ip_address=", strings.Repeat("9", 400)} {
				for _, query := range []string{r.name + "=" + value, "fields=" + r.name + "&" + r.name + "=" + value + "&" + r.name + "=1"} {
					res := a.send(admin, "GET", "/v2.0/"+collection+"?"+query, "")
					if res.status != 200 && res.status != 400 || r.flags&filterable == 0 && res.status != 400 {
						t.Errorf("%s?%s: %d %s", collection, query, res.status, res.raw)
					}
				}
			}
			for _, dir := range []string{"asc", "desc"} {
				want := 400
				if r.flags&sortable != 0 {
					want = 200
				}
				a.must(want, admin, "GET", "/v2.0/"+collection+"?sort_key="+r.name+"&sort_dir="+dir, "")
			}
		}
	}
}
