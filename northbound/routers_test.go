package northbound

import (
	"fmt"
	"net/http"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func gateway(networkID, more string) string {
	return fmt.Sprintf(`"external_gateway_info": {"network_id": %q%s}`, networkID, more)
}

func TestRouterLifeOnEachDatabase(t *testing.T) {
	onEach(t, func(t *testing.T, a *api) {
		public := a.external("172.24.4.0/24")
		outside := a.list(admin, "subnets", "network_id="+public, "id")[0]
		o := a.create(blue, "router", `{"name": "router1", `+gateway(public, "")+`}`)
		id := o["id"].(string)
		for _, name := range []string{"id", "created_at", "updated_at"} {
			delete(o, name)
		}
		want := map[string]any{
			"name": "router1", "tenant_id": "blue", "project_id": "blue", "description": "", "revision_number": 0.0, "tags": []any{},
			"status": "ACTIVE", "admin_state_up": true, "routes": []any{}, "flavor_id": nil,
			"availability_zone_hints": []any{}, "availability_zones": []any{"nova"},
			"external_gateway_info": map[string]any{"network_id": public, "enable_snat": true,
				"external_fixed_ips": []any{map[string]any{"subnet_id": outside, "ip_address": "172.24.4.2"}}},
		}
		if diff := cmp.Diff(want, o); diff != "" {
			t.Errorf("created router (-want +got):\n%s", diff)
		}
		if o := a.show(admin, "router", id); o["distributed"] != false || o["ha"] != false {
			t.Errorf("to an administrator: %v", o)
		}
		net := a.network(blue, "")
		subnet := a.subnet(blue, net, "10.0.0.0/24", "")
		a.put(blue, "router", id, `{"name": "r1", "admin_state_up": false}`)
		added := a.addInterface(blue, id, subnet)
		port := added["port_id"].(string)
		want = map[string]any{
			"id": id, "tenant_id": "blue", "project_id": "blue", "port_id": port, "network_id": net,
			"subnet_id": subnet, "subnet_ids": []any{subnet}, "tags": []any{},
		}
		if diff := cmp.Diff(want, added); diff != "" {
			t.Errorf("added interface (-want +got):\n%s", diff)
		}
		p := a.show(blue, "port", port)
		if p["status"] != "ACTIVE" || p["device_owner"] != "network:router_interface" || p["device_id"] != id || p["tenant_id"] != "blue" {
			t.Errorf("the interface is %v", p)
		}
		if got := a.list(admin, "ports", "device_id="+id+"&device_owner=network:router_gateway", "status"); !cmp.Equal(got, []string{"ACTIVE"}) {
			t.Errorf("the gateways are %v", got)
		}
		if got := a.list(blue, "ports", "device_id="+id, "id"); !cmp.Equal(got, []string{port}) {
			t.Errorf("the tenant sees the ports %v", got)
		}
		a.refused(blue, "DELETE", "/v2.0/routers/"+id, "", 409, "RouterInUse", "Router "+id+" has ports still attached: "+port)
		a.refused(blue, "DELETE", "/v2.0/ports/"+port, "", 409, "ServicePortInUse",
			"Port "+port+" cannot be deleted directly via the port API: has device owner network:router_interface.")
		a.refused(blue, "PUT", "/v2.0/routers/"+id+"/add_router_interface", fmt.Sprintf(`{"subnet_id": %q}`, subnet), 400, "BadRequest",
			"Bad router request: Router already has a port on subnet "+subnet+".")
		removed := a.must(200, blue, "PUT", "/v2.0/routers/"+id+"/remove_router_interface", fmt.Sprintf(`{"port_id": %q}`, port)).body
		if diff := cmp.Diff(want, removed); diff != "" {
			t.Errorf("removed interface (-want +got):\n%s", diff)
		}
		a.refused(blue, "PUT", "/v2.0/routers/"+id+"/remove_router_interface", fmt.Sprintf(`{"subnet_id": %q}`, subnet), 404,
			"RouterInterfaceNotFoundForSubnet", "Router "+id+" has no interface on subnet "+subnet)
		own := a.port(blue, net, "")
		a.must(200, blue, "PUT", "/v2.0/routers/"+id+"/add_router_interface", fmt.Sprintf(`{"port_id": %q}`, own))
		a.must(200, blue, "PUT", "/v2.0/routers/"+id+"/remove_router_interface", fmt.Sprintf(`{"subnet_id": %q}`, subnet))
		for _, none := range []string{`{}`, `null`} {
			a.put(blue, "router", id, `{`+gateway(public, "")+`}`)
			if o := a.put(blue, "router", id, `{"external_gateway_info": `+none+`}`); o["external_gateway_info"] != nil {
				t.Errorf("with %s it has %v", none, o["external_gateway_info"])
			}
		}
		a.must(201, blue, "PUT", "/v2.0/routers/"+id+"/tags/a", "")
		a.must(204, blue, "DELETE", "/v2.0/routers/"+id, "")
		a.refused(blue, "GET", "/v2.0/routers/"+id, "", 404, "RouterNotFound", "Router "+id+" could not be found")
		a.must(204, admin, "DELETE", "/v2.0/networks/"+public, "")
	})
}

func TestRouterGatewayAsked(t *testing.T) {
	a := newAPI(t)
	public, inside := a.external("172.24.4.0/24"), a.network(admin, `"shared": true`)
	outside := a.list(admin, "subnets", "network_id="+public, "id")[0]
	id := a.router(admin, `"tenant_id": "blue"`)
	o := a.put(admin, "router", id, fmt.Sprintf(`{%s}`, gateway(public, fmt.Sprintf(
		`, "enable_snat": "False", "external_fixed_ips": [{"subnet_id": %q, "ip_address": "172.24.4.77"}]`, outside))))
	want := map[string]any{"network_id": public, "enable_snat": false,
		"external_fixed_ips": []any{map[string]any{"subnet_id": outside, "ip_address": "172.24.4.77"}}}
	if diff := cmp.Diff(want, o["external_gateway_info"]); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	// What is not given stays.
	o = a.put(blue, "router", id, `{`+gateway(public, "")+`}`)
	if diff := cmp.Diff(want, o["external_gateway_info"]); diff != "" {
		t.Errorf("again (-want +got):\n%s", diff)
	}
	for _, c := range []struct {
		info, typ, message string
		status             int
	}{
		{`"x"`, "HTTPBadRequest", "Invalid input for external_gateway_info. Reason: 'x' is not a dictionary.", 400},
		{`{"enable_snat": true}`, "HTTPBadRequest", "Invalid input for external_gateway_info. Reason: Validation of dictionary's keys failed. " +
			"Expected keys: ['network_id'] Provided keys: ['enable_snat'].", 400},
		{`{"network_id": "x"}`, "HTTPBadRequest", "Invalid input for external_gateway_info. Reason: 'x' is not a valid UUID.", 400},
		{`{"network_id": "` + public + `", "qos_policy_id": null}`, "HTTPBadRequest",
			"Invalid input for external_gateway_info. Reason: Unexpected keys supplied: qos_policy_id.", 400},
		{`{"network_id": "` + public + `", "enable_snat": "maybe"}`, "InvalidInput", "", 400},
		{`{"network_id": "` + inside + `"}`, "BadRequest", "Bad router request: Network " + inside + " is not an external network.", 400},
		{`{"network_id": "00000000-0000-4000-8000-000000000000"}`, "NetworkNotFound", "", 404},
		{`{"network_id": "` + public + `", "external_fixed_ips": [{"ip_address": "172.24.4.1"}]}`, "BadRequest",
			"Bad router request: External IP 172.24.4.1 is the same as the gateway IP.", 400},
		{`{"network_id": "` + public + `", "external_fixed_ips": [{"ip_address": "10.0.0.1"}]}`, "InvalidIpForNetwork", "", 400},
	} {
		a.refused(admin, http.MethodPut, "/v2.0/routers/"+id, `{"router": {"external_gateway_info": `+c.info+`}}`, c.status, c.typ, c.message)
	}
	a.refused(admin, http.MethodPut, "/v2.0/networks/"+public, `{"network": {"router:external": false}}`, 409, "ExternalNetworkInUse", "")
	a.refused(admin, http.MethodDelete, "/v2.0/networks/"+public, "", 409, "NetworkInUse", "")
	for _, name := range []string{"distributed", "ha"} {
		a.put(admin, "router", id, `{"`+name+`": false}`)
		a.refused(admin, http.MethodPut, "/v2.0/routers/"+id, `{"router": {"`+name+`": true}}`, 400, "HTTPBadRequest", "")
	}
}

func TestRoutersBelongToTheirTenants(t *testing.T) {
	a := newAPI(t)
	public := a.external("172.24.4.0/24")
	mine, theirs := a.router(blue, ""), a.router(red, "")
	if got := a.list(blue, "routers", "", "id"); !cmp.Equal(got, []string{mine}) {
		t.Errorf("the tenant sees %v", got)
	}
	a.refused(blue, "PUT", "/v2.0/routers/"+theirs, `{"router": {"name": "x"}}`, 404, "RouterNotFound", "")
	hidden := a.subnet(red, a.network(red, ""), "10.0.0.0/24", "")
	shared := a.network(admin, `"shared": true`)
	open := a.subnet(admin, shared, "10.1.0.0/24", "")
	add := func(router string) string { return "/v2.0/routers/" + router + "/add_router_interface" }
	of := func(id string) string { return fmt.Sprintf(`{"subnet_id": %q}`, id) }
	a.refused(blue, "PUT", add(theirs), of(open), 404, "RouterNotFound", "Router "+theirs+" could not be found")
	a.refused(blue, "PUT", add(mine), of(hidden), 404, "SubnetNotFound", "")
	a.refused(blue, "PUT", add(mine), of(open), 400, "BadRequest",
		"Bad router request: Cannot add interface to router because subnet "+open+" is not owned by project making the request.")
	a.refused(blue, "PUT", add(mine), fmt.Sprintf(`{"port_id": %q}`, a.port(red, shared, "")), 404, "PortNotFound", "")
	// By a port with an address of the pool they may; an administrator may by all.
	a.must(200, blue, "PUT", add(mine), fmt.Sprintf(`{"port_id": %q}`, a.port(blue, shared, "")))
	if p := a.addInterface(admin, theirs, open); p["tenant_id"] != "red" {
		t.Errorf("the interface on the shared network: %v", p)
	}
	a.refused(blue, "PUT", add(mine), `{}`, 400, "BadRequest", "Bad router request: Either subnet_id or port_id must be specified.")
	a.refused(blue, "PUT", add(mine), `{"subnet_id": "x"}`, 400, "BadRequest", "Bad router request: 'x' is not a valid UUID.")
	a.refused(blue, "PUT", add(mine), fmt.Sprintf(`{"subnet_id": %q, "port_id": %q}`, open, open), 400, "BadRequest", "")
	a.put(blue, "router", mine, `{`+gateway(public, "")+`}`)
	for _, more := range []string{`, "enable_snat": true`, `, "external_fixed_ips": []`} {
		a.refused(blue, "PUT", "/v2.0/routers/"+mine, `{"router": {`+gateway(public, more)+`}}`, 403, "PolicyNotAuthorized", "")
		a.refused(blue, "POST", "/v2.0/routers", `{"router": {`+gateway(public, more)+`}}`, 403, "PolicyNotAuthorized", "")
	}
	a.refused(blue, "POST", "/v2.0/routers", `{"router": {"distributed": false}}`, 403, "PolicyNotAuthorized",
		"(rule:create_router and rule:create_router:distributed) is disallowed by policy")
	private := a.network(red, "")
	a.refused(blue, "PUT", "/v2.0/routers/"+mine, `{"router": {`+gateway(private, "")+`}}`, 404, "NetworkNotFound", "")
}

func TestExtraRoutes(t *testing.T) {
	onEach(t, func(t *testing.T, a *api) {
		id := a.router(blue, "")
		subnet := a.subnet(blue, a.network(blue, ""), "10.0.0.0/24", "")
		a.addInterface(blue, id, subnet)
		route := func(destination, nexthop string) string {
			return fmt.Sprintf(`{"destination": %q, "nexthop": %q}`, destination, nexthop)
		}
		first, second := route("10.7.0.0/16", "10.0.0.9"), route("10.8.0.0/16", "10.0.0.10")
		expect := func(o map[string]any, destinations ...any) {
			t.Helper()
			got := []any{}
			for _, r := range o["routes"].([]any) {
				got = append(got, r.(map[string]any)["destination"])
			}
			if !cmp.Equal(got, append([]any{}, destinations...)) {
				t.Fatalf("routes to %v, want %v", got, destinations)
			}
		}
		do := func(action, routes string) map[string]any {
			t.Helper()
			r := a.must(200, blue, "PUT", "/v2.0/routers/"+id+"/"+action, `{"router": {"routes": [`+routes+`]}}`)
			return r.body["router"].(map[string]any)
		}
		expect(a.put(blue, "router", id, `{"routes": [`+first+`]}`), "10.7.0.0/16")
		expect(do("add_extraroutes", second+", "+first), "10.7.0.0/16", "10.8.0.0/16")
		a.refused(blue, "PUT", "/v2.0/routers/"+id+"/remove_router_interface", fmt.Sprintf(`{"subnet_id": %q}`, subnet), 409, "RouterInterfaceInUseByRoute", "")
		expect(do("remove_extraroutes", first+", "+route("10.9.0.0/16", "10.0.0.9")), "10.8.0.0/16")
		a.refused(blue, "PUT", "/v2.0/routers/"+id, `{"router": {"routes": [`+route("10.9.0.0/16", "10.3.0.9")+`]}}`, 400, "InvalidRoutes",
			"Invalid format for routes: [{'destination': '10.9.0.0/16', 'nexthop': '10.3.0.9'}], the nexthop is not connected with router")
		for body, message := range map[string]string{
			`{}`:                           "Unable to find 'router' in request body",
			`{"router": {}}`:               "Failed to parse request. Required attribute 'routes' not specified",
			`{"router": {"name": "x"}}`:    "Unrecognized attribute(s) 'name'",
			`{"router": {"routes": "x"}}`:  "",
			`{"router": {"routes": [{}]}}`: "",
			`{"router": {"routes": [` + first + `, ` + first + `]}}`: "",
		} {
			a.refused(blue, "PUT", "/v2.0/routers/"+id+"/add_extraroutes", body, 400, "HTTPBadRequest", message)
		}
		a.refused(red, "PUT", "/v2.0/routers/"+id+"/add_extraroutes", `{"router": {"routes": []}}`, 404, "RouterNotFound", "")
		expect(a.put(blue, "router", id, `{"routes": null}`))
		a.refused(blue, "POST", "/v2.0/routers", `{"router": {"routes": []}}`, 400, "HTTPBadRequest", "Attribute 'routes' not allowed in POST")
	})
}
