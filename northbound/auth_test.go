package northbound

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestNoAuthHeaders(t *testing.T) {
	for _, c := range []struct {
		name    string
		headers map[string]string
		project string
		user    string
		admin   bool
	}{
		{"none is the administrator", nil, "", "", true},
		{"a user alone is the administrator", map[string]string{"X-User-Id": "u"}, "", "u", true},
		{"a project is a member", map[string]string{"X-Project-Id": "p"}, "p", "", false},
		{"a tenant is a member", map[string]string{"X-Tenant-Id": "p"}, "p", "", false},
		{"project goes before tenant", map[string]string{"X-Project-Id": "p", "X-Tenant-Id": "q"}, "p", "", false},
		{"admin in a project", map[string]string{"X-Project-Id": "p", "X-Roles": "member, Admin"}, "p", "", true},
		{"another role in a project", map[string]string{"X-Project-Id": "p", "X-Roles": "member"}, "p", "", false},
		{"another role without a project", map[string]string{"X-Roles": "reader"}, "", "", false},
	} {
		r, _ := http.NewRequest(http.MethodGet, "/", nil)
		for k, v := range c.headers {
			r.Header.Set(k, v)
		}
		who, err := noAuth{}.Authenticate(r)
		if err != nil || who.ProjectID != c.project || who.UserID != c.user || who.HasRole("admin") != c.admin {
			t.Errorf("%s: %+v, %v", c.name, who, err)
		}
	}
}

func TestUnknownAuthStrategyIsAnError(t *testing.T) {
	if _, err := newAuthenticator(Options{AuthStrategy: "magic"}); err == nil || !strings.Contains(err.Error(), `"magic"`) {
		t.Errorf("got %v", err)
	}
}

func TestAdministratorActsForOthers(t *testing.T) {
	a := newAPI(t)
	for _, c := range []struct {
		who        headers
		body, want string
	}{
		{admin, `{}`, ""},
		{admin, `{"tenant_id": "red"}`, "red"},
		{admin, `{"project_id": "red"}`, "red"},
		{headers{"X-Project-Id": "ops", "X-Roles": "admin"}, `{}`, "ops"},
		{headers{"X-Project-Id": "ops", "X-Roles": "admin"}, `{"tenant_id": "red"}`, "red"},
		{blue, `{"tenant_id": "blue"}`, "blue"},
	} {
		n := a.create(c.who, "network", c.body)
		if n["tenant_id"] != c.want || n["project_id"] != c.want {
			t.Errorf("%v %s: owner is %v, %v", c.who, c.body, n["tenant_id"], n["project_id"])
		}
	}
}

// tenants is a cloud with two tenants that share some networks.
type tenants struct {
	*api
	own, shared, external, others map[string]string // network, subnet, port by name
}

func newTenants(t testing.TB) tenants {
	a := newAPI(t)
	make := func(project, more string) map[string]string {
		n := a.network(admin, fmt.Sprintf(`"tenant_id": %q%s`, project, more))
		s := a.subnet(admin, n, "10.0.0.0/24", fmt.Sprintf(`, "tenant_id": %q, "enable_dhcp": false`, project))
		p := a.port(admin, n, fmt.Sprintf(`, "tenant_id": %q`, project))
		return map[string]string{"network": n, "subnet": s, "port": p}
	}
	return tenants{
		api: a, own: make("blue", ""), shared: make("red", `, "shared": true`),
		external: make("red", `, "router:external": true`), others: make("red", ""),
	}
}

func TestTenantsSeeTheirOwnAndWhatIsShared(t *testing.T) {
	a := newTenants(t)
	foreign := a.port(admin, a.own["network"], `, "tenant_id": "red"`)
	for name, want := range map[string][]string{
		"network": {a.own["network"], a.shared["network"], a.external["network"]},
		"subnet":  {a.own["subnet"], a.shared["subnet"]},
		"port":    {a.own["port"], foreign},
	} {
		slices.Sort(want)
		if diff := cmp.Diff(want, a.list(blue, name+"s", "", "id")); diff != "" {
			t.Errorf("%ss (-want +got):\n%s", name, diff)
		}
		for _, group := range []map[string]string{a.own, a.shared, a.external, a.others} {
			id, status := group[name], 404
			if slices.Contains(want, id) {
				status = 200
			}
			a.must(status, blue, "GET", "/v2.0/"+name+"s/"+id, "")
			if got := a.list(blue, name+"s", "id="+id, "id"); (len(got) == 1) != (status == 200) {
				t.Errorf("%s %s: listed %v, shown %d", name, id, got, status)
			}
		}
		if got := a.list(admin, name+"s", "", "id"); len(got) < 4 {
			t.Errorf("an administrator sees only %d %ss", len(got), name)
		}
	}
	for _, query := range []string{"tenant_id=red", "network_id=" + a.others["network"], "device_id=", "binding:host_id=", "fixed_ips=subnet_id=" + a.others["subnet"]} {
		for _, id := range a.list(blue, "ports", query, "id") {
			if id != a.own["port"] && id != foreign {
				t.Errorf("%s leads a tenant to port %s", query, id)
			}
		}
	}
}

func TestTenantsChangeOnlyTheirOwn(t *testing.T) {
	a := newTenants(t)
	for _, name := range []string{"network", "subnet", "port"} {
		for _, c := range []struct {
			group  map[string]string
			status int
			typ    string
		}{
			{a.others, 404, map[string]string{"network": "NetworkNotFound", "subnet": "SubnetNotFound", "port": "PortNotFound"}[name]},
			{a.shared, 403, "PolicyNotAuthorized"},
		} {
			if name == "port" && c.status == 403 {
				continue // ports on a shared network are not shared
			}
			path := "/v2.0/" + name + "s/" + c.group[name]
			a.refused(blue, "PUT", path, `{"`+name+`": {"name": "mine"}}`, c.status, c.typ, "")
			a.refused(blue, "DELETE", path, "", c.status, c.typ, "")
			tags := c.typ
			if c.status == 404 {
				tags = "TagResourceNotFound"
			}
			a.refused(blue, "PUT", path+"/tags/x", "", c.status, tags, "")
		}
	}
	foreign := a.port(admin, a.own["network"], `, "tenant_id": "red"`)
	a.refused(blue, "PUT", "/v2.0/ports/"+foreign, `{"port": {"name": "mine"}}`, 403, "PolicyNotAuthorized", "rule:update_port is disallowed by policy")
	a.must(204, blue, "DELETE", "/v2.0/ports/"+foreign, "")
}

func TestPolicyOfAttributes(t *testing.T) {
	a := newTenants(t)
	on := func(network, more string) string { return fmt.Sprintf(`"network_id": %q%s`, network, more) }
	for _, c := range []struct{ name, body, rule string }{
		{"network", `"shared": true`, "(rule:create_network and rule:create_network:shared)"},
		{"network", `"router:external": true`, "(rule:create_network and rule:create_network:router:external)"},
		{"network", `"provider:network_type": "gre"`, "(rule:create_network and rule:create_network:provider:network_type)"},
		{"network", `"provider:segmentation_id": 5`, "(rule:create_network and rule:create_network:provider:segmentation_id)"},
		{"network", `"is_default": true`, "(rule:create_network and rule:create_network:is_default)"},
		{"subnet", on(a.shared["network"], `, "ip_version": 4, "cidr": "10.7.0.0/24"`), "rule:create_subnet"},
		{"subnet", on(a.own["network"], `, "ip_version": 4, "cidr": "10.7.0.0/24", "service_types": ["compute:nova"]`), "(rule:create_subnet and rule:create_subnet:service_types)"},
		{"port", on(a.external["network"], ""), "rule:create_port"},
		{"port", on(a.own["network"], `, "binding:host_id": "h"`), "(rule:create_port and rule:create_port:binding:host_id)"},
		{"port", on(a.own["network"], `, "binding:profile": {"a": 1}`), "(rule:create_port and rule:create_port:binding:profile)"},
		{"port", on(a.shared["network"], `, "mac_address": "fa:16:3e:00:00:05"`), "(rule:create_port and rule:create_port:mac_address)"},
		{"port", on(a.shared["network"], `, "fixed_ips": [{"ip_address": "10.0.0.50"}]`),
			"(rule:create_port and (rule:create_port:fixed_ips and rule:create_port:fixed_ips:ip_address))"},
		{"port", on(a.shared["network"], `, "port_security_enabled": false`), "(rule:create_port and rule:create_port:port_security_enabled)"},
		{"port", on(a.shared["network"], `, "device_owner": "network:router_interface"`), "(rule:create_port and rule:create_port:device_owner)"},
		{"port", on(a.shared["network"], `, "allowed_address_pairs": [{"ip_address": "10.0.0.50"}]`),
			"(rule:create_port and (rule:create_port:allowed_address_pairs and rule:create_port:allowed_address_pairs:ip_address))"},
	} {
		a.refused(blue, "POST", "/v2.0/"+c.name+"s", `{"`+c.name+`": {`+c.body+`}}`, 403, "PolicyNotAuthorized", c.rule+" is disallowed by policy")
	}
	a.refused(blue, "POST", "/v2.0/ports", `{"port": {`+on(a.others["network"], "")+`}}`, 404, "NetworkNotFound", "Network "+a.others["network"]+" could not be found.")
	a.refused(blue, "POST", "/v2.0/subnets", `{"subnet": {`+on(a.others["network"], `, "ip_version": 4, "cidr": "10.7.0.0/24"`)+`}}`, 404, "NetworkNotFound", "")
	a.refused(blue, "PUT", "/v2.0/networks/"+a.own["network"], `{"network": {"shared": true}}`, 403, "PolicyNotAuthorized",
		"(rule:update_network and rule:update_network:shared) is disallowed by policy")

	// What a tenant may do all the same.
	a.network(blue, `"shared": false, "router:external": "no", "mtu": 1300, "port_security_enabled": false`)
	a.port(blue, a.shared["network"], fmt.Sprintf(`, "fixed_ips": [{"subnet_id": %q}], "device_owner": "compute:x", "device_id": "d"`, a.shared["subnet"]))
	a.port(blue, a.own["network"], `, "fixed_ips": [{"ip_address": "10.0.0.50"}], "mac_address": "fa:16:3e:00:00:05", "port_security_enabled": false, "binding:vnic_type": "normal"`)
}

// Who may not give an attribute is told so, whatever the value, where Neutron
// looks at that after its rules; others are told what is wrong with it.
func TestRulesComeBeforeValues(t *testing.T) {
	a := newAPI(t)
	own, others := a.network(blue, ""), a.network(red, "")
	for _, c := range []struct{ attribute, given, typ, message string }{
		{"provider:network_type", `""`, "InvalidInput", "Invalid input for operation: network_type value '' not supported."},
		{"provider:network_type", `"teleport"`, "InvalidInput", ""},
		{"provider:segmentation_id", `-1`, "InvalidInput", "Invalid input for operation: segmentation_id out of range (1 through 4294967295)."},
		{"segments", `[{"provider:network_type": null}]`, "InvalidInput", "Invalid input for operation: network_type required."},
	} {
		body := fmt.Sprintf(`{"network": {%q: %s}}`, c.attribute, c.given)
		a.refused(blue, "POST", "/v2.0/networks", body, 403, "PolicyNotAuthorized", "")
		a.refused(blue, "PUT", "/v2.0/networks/"+own, body, 403, "PolicyNotAuthorized", "")
		a.refused(blue, "PUT", "/v2.0/networks/"+others, body, 404, "NetworkNotFound", "")
		a.refused(admin, "POST", "/v2.0/networks", body, 400, c.typ, c.message)
		a.refused(admin, "PUT", "/v2.0/networks/"+own, body, 400, c.typ, c.message)
	}
	port := fmt.Sprintf(`{"port": {"network_id": %q, "binding:host_id": 5}}`, own)
	a.refused(blue, "POST", "/v2.0/ports", port, 403, "PolicyNotAuthorized", "(rule:create_port and rule:create_port:binding:host_id) is disallowed by policy")
	a.refused(admin, "POST", "/v2.0/ports", port, 400, "HTTPBadRequest", "Invalid input for binding:host_id. Reason: '5' is not a valid string.")
	// What is no number, no text or no boolean Neutron refuses before it asks a rule.
	for given, typ := range map[string]string{
		`"provider:segmentation_id": "x"`: "InvalidInput", `"provider:network_type": 5`: "HTTPBadRequest",
		`"provider:physical_network": 5`: "HTTPBadRequest", `"shared": "maybe"`: "InvalidInput",
	} {
		a.refused(blue, "POST", "/v2.0/networks", `{"network": {`+given+`}}`, 400, typ, "")
	}
}

func TestMembersDoNotSeeWhatIsForAdministrators(t *testing.T) {
	a := newTenants(t)
	hidden := map[string][]string{
		"network": {"provider:network_type", "provider:physical_network", "provider:segmentation_id"},
		"port":    {"binding:host_id", "binding:profile", "binding:vif_type", "binding:vif_details"},
	}
	for name, attributes := range hidden {
		forBlue, forAdmin := a.show(blue, name, a.own[name]), a.show(admin, name, a.own[name])
		for _, attribute := range attributes {
			if _, ok := forBlue[attribute]; ok {
				t.Errorf("a member sees %s", attribute)
			}
			if _, ok := forAdmin[attribute]; !ok {
				t.Errorf("an administrator does not see %s", attribute)
			}
		}
	}
}
