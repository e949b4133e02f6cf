package northbound

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// naming are the attributes by which one object names another, or a project.
var naming = map[string]string{
	"network_id": "%q", "subnet_id": "%q", "port_id": "%q", "floating_network_id": "%q", "security_group_id": "%q", "remote_group_id": "%q",
	"tenant_id": "%q", "project_id": "%q", "security_groups": "[%q]", "fixed_ips": `[{"subnet_id": %q}]`,
	"external_gateway_info": `{"network_id": %q}`,
}

// TestObjectsOfOtherProjectsCanNotBeNamed walks all attributes that name an
// object, as a tenant, with the id of each object of another project, in POST
// and PUT: each is a refusal of Neutron's that changes nothing.
func TestObjectsOfOtherProjectsCanNotBeNamed(t *testing.T) {
	a := newAPI(t)
	external := a.external("172.24.4.0/24")
	own, others := objectsOf(a, blue, external), objectsOf(a, red, external)
	base := map[string]string{
		"network": `"name": "n"`, "router": `"name": "r"`, "security_group": `"name": "h"`,
		"subnet":              fmt.Sprintf(`"network_id": %q, "ip_version": 4, "cidr": "10.77.0.0/24"`, own["network"]),
		"port":                fmt.Sprintf(`"network_id": %q`, own["network"]),
		"floatingip":          fmt.Sprintf(`"floating_network_id": %q`, external),
		"security_group_rule": fmt.Sprintf(`"security_group_id": %q, "direction": "ingress", "protocol": "udp"`, own["security_group"]),
	}
	asked := 0
	for _, c := range resources() {
		name, collection := c.title()
		path := "/v2.0/" + strings.ReplaceAll(collection, "_", "-")
		for _, r := range c.rows() {
			form, ok := naming[r.name]
			if !ok {
				continue
			}
			for _, id := range append([]string{"red"}, sortedValues(others)...) {
				value := fmt.Sprintf(form, id)
				body := fmt.Sprintf(`{%q: {%s, %q: %s}}`, name, base[name], r.name, value)
				a.mustRefuse(blue, http.MethodPost, path, body)
				body = fmt.Sprintf(`{%q: {%q: %s}}`, name, r.name, value)
				a.mustRefuse(blue, http.MethodPut, path+"/"+own[name], body)
				asked += 2
			}
		}
		for kind, id := range others {
			a.mustRefuse(blue, http.MethodPut, path+"/"+id, fmt.Sprintf(`{%q: {"description": %q}}`, name, kind))
			a.mustRefuse(blue, http.MethodDelete, path+"/"+id, "")
		}
	}
	if asked < 100 {
		t.Errorf("only %d requests were made", asked)
	}
}

// objectsOf makes an object of each resource for a project: ids by resource.
func objectsOf(a *api, who headers, external string) map[string]string {
	a.t.Helper()
	n := a.network(who, "")
	return map[string]string{
		"network": n, "subnet": a.subnet(who, n, "10.0.0.0/24", ""), "port": a.port(who, n, ""), "router": a.router(who, ""),
		"floatingip": a.floatingIP(who, external, ""), "security_group": a.create(who, "security-group", `{"name": "g"}`)["id"].(string),
		"security_group_rule": a.ruleOf(who),
	}
}

func sortedValues(m map[string]string) []string {
	var values []string
	for _, k := range sortedKeys(m) {
		values = append(values, m[k])
	}
	return values
}

func (a *api) mustRefuse(who headers, method, path, body string) {
	a.t.Helper()
	before := a.store.View().Revision()
	r := a.send(who, method, path, body)
	e, _ := r.body["NeutronError"].(map[string]any)
	if r.status < 400 || r.status >= 500 || e["type"] == "" || e["type"] == nil || e["message"] == "" {
		a.t.Errorf("%s %s %s: %d %s", method, path, body, r.status, r.raw)
	}
	if a.store.View().Revision() != before {
		a.t.Errorf("%s %s %s: changed something", method, path, body)
	}
}

// ruleOf is a rule of a security group of a project.
func (a *api) ruleOf(who headers) string {
	a.t.Helper()
	r := a.must(http.StatusOK, who, http.MethodGet, "/v2.0/security-group-rules", "")
	return r.body["security_group_rules"].([]any)[0].(map[string]any)["id"].(string)
}
