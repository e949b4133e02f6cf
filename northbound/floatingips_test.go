package northbound

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// routed makes a network with a subnet on a router with a gateway.
func (a *api) routed(who headers, external, cidr string) (net, router string) {
	a.t.Helper()
	net = a.network(who, "")
	router = a.router(who, gateway(external, ""))
	a.addInterface(who, router, a.subnet(who, net, cidr, ""))
	return net, router
}

func TestFloatingIPLifeOnEachDatabase(t *testing.T) {
	onEach(t, func(t *testing.T, a *api) {
		public := a.external("172.24.4.0/24")
		net, router := a.routed(blue, public, "10.0.0.0/24")
		port := a.port(blue, net, `, "name": "p", "device_id": "vm"`)
		f := a.create(blue, "floatingip", fmt.Sprintf(`{"floating_network_id": %q}`, public))
		id := f["id"].(string)
		for _, name := range []string{"id", "created_at", "updated_at"} {
			delete(f, name)
		}
		want := map[string]any{
			"tenant_id": "blue", "project_id": "blue", "description": "", "revision_number": 0.0, "tags": []any{},
			"floating_network_id": public, "floating_ip_address": "172.24.4.3", "port_id": nil, "fixed_ip_address": nil,
			"router_id": nil, "status": "DOWN", "port_details": nil, "dns_name": "", "dns_domain": "",
		}
		if diff := cmp.Diff(want, f); diff != "" {
			t.Errorf("created floating IP (-want +got):\n%s", diff)
		}
		f = a.put(blue, "floatingip", id, fmt.Sprintf(`{"port_id": %q}`, port))
		p := a.show(blue, "port", port)
		for name, value := range map[string]any{
			"port_id": port, "fixed_ip_address": p["fixed_ips"].([]any)[0].(map[string]any)["ip_address"], "router_id": router, "status": "DOWN",
			"port_details": map[string]any{"name": "p", "network_id": net, "mac_address": p["mac_address"], "admin_state_up": true,
				"status": "DOWN", "device_id": "vm", "device_owner": ""},
		} {
			if diff := cmp.Diff(value, f[name]); diff != "" {
				t.Errorf("associated: %s (-want +got):\n%s", name, diff)
			}
		}
		for _, query := range []string{"port_id=" + port, "router_id=" + router, "floating_network_id=" + public + "&status=DOWN",
			"fixed_ip_address=" + f["fixed_ip_address"].(string) + "&port_id=" + port, "floating_ip_address=172.24.4.3"} {
			if got := a.list(blue, "floatingips", query, "id"); !cmp.Equal(got, []string{id}) {
				t.Errorf("%s finds %v", query, got)
			}
		}
		// An update about something else, or the same, keeps it.
		a.put(blue, "floatingip", id, `{"description": "web"}`)
		a.put(blue, "floatingip", id, fmt.Sprintf(`{"port_id": %q}`, port))
		a.must(201, blue, "PUT", "/v2.0/floatingips/"+id+"/tags/a", "")
		if f := a.show(blue, "floatingip", id); f["port_id"] != port || f["description"] != "web" {
			t.Errorf("it is %v", f)
		}
		a.refused(blue, "PUT", "/v2.0/routers/"+router, `{"router": {"external_gateway_info": null}}`, 409, "RouterExternalGatewayInUseByFloatingIp",
			"Gateway cannot be updated for router "+router+", since a gateway to external network "+public+" is required by one or more floating IPs.")
		subnet := p["fixed_ips"].([]any)[0].(map[string]any)["subnet_id"].(string)
		a.refused(blue, "PUT", "/v2.0/routers/"+router+"/remove_router_interface", fmt.Sprintf(`{"subnet_id": %q}`, subnet), 409,
			"RouterInterfaceInUseByFloatingIP", "Router interface for subnet "+subnet+" on router "+router+
				" cannot be deleted, as it is required by one or more floating IPs.")
		if f := a.put(blue, "floatingip", id, `{"port_id": null}`); f["port_id"] != nil || f["status"] != "DOWN" || f["router_id"] != nil {
			t.Errorf("disassociated: %v", f)
		}
		a.put(blue, "floatingip", id, fmt.Sprintf(`{"port_id": %q}`, port))
		a.must(204, blue, "DELETE", "/v2.0/ports/"+port, "")
		if f := a.show(blue, "floatingip", id); f["port_id"] != nil {
			t.Errorf("after its port: %v", f)
		}
		a.must(204, blue, "DELETE", "/v2.0/floatingips/"+id, "")
		a.refused(blue, "GET", "/v2.0/floatingips/"+id, "", 404, "FloatingIPNotFound", "Floating IP "+id+" could not be found")
	})
}

func TestFloatingIPsAreChecked(t *testing.T) {
	a := newAPI(t)
	public := a.external("172.24.4.0/24")
	net, _ := a.routed(blue, public, "10.0.0.0/24")
	port := a.port(blue, net, "")
	beyond := a.network(blue, "")
	unreachable := a.subnet(blue, beyond, "10.9.0.0/24", "")
	lonely := a.port(blue, beyond, "")
	foreign := a.port(red, a.network(red, ""), "")
	post := func(who headers, more string, status int, typ, message string) {
		t.Helper()
		a.refused(who, "POST", "/v2.0/floatingips", fmt.Sprintf(`{"floatingip": {"floating_network_id": %q%s}}`, public, more), status, typ, message)
	}
	post(blue, fmt.Sprintf(`, "port_id": %q`, lonely), 404, "ExternalGatewayForFloatingIPNotFound",
		"External network "+public+" is not reachable from subnet "+unreachable+".  Therefore, cannot associate Port "+lonely+" with a Floating IP.")
	post(blue, fmt.Sprintf(`, "port_id": %q`, foreign), 404, "PortNotFound", "Port "+foreign+" could not be found.")
	post(blue, `, "fixed_ip_address": "10.0.0.2"`, 400, "BadRequest", "Bad floatingip request: fixed_ip_address cannot be specified without a port_id.")
	post(blue, `, "floating_ip_address": "172.24.4.9"`, 403, "PolicyNotAuthorized", "")
	post(blue, `, "dns_name": "web"`, 400, "BadRequest", "Bad floatingip request: dns_name cannot be specified without a dns_domain.")
	post(blue, `, "dns_domain": "example.org."`, 400, "BadRequest", "Bad floatingip request: dns_domain cannot be specified without a dns_name.")
	post(blue, `, "dns_name": "web.", "dns_domain": "example.org."`, 400, "HTTPBadRequest",
		"Invalid input for dns_name. Reason: 'web.' is a FQDN. It should be a relative domain name.")
	post(blue, `, "dns_name": "web", "dns_domain": "example.org"`, 400, "HTTPBadRequest",
		"Invalid input for dns_domain. Reason: 'example.org' is not a FQDN.")
	post(blue, `, "dns_name": "`+strings.Repeat("a", 63)+strings.Repeat(".aa", 64)+`", "dns_domain": "example.org."`, 400, "HTTPBadRequest", "")
	post(blue, `, "name": "x"`, 400, "HTTPBadRequest", "Unrecognized attribute(s) 'name'")
	post(blue, `, "router_id": null`, 400, "HTTPBadRequest", "Attribute 'router_id' not allowed in POST")
	a.refused(blue, "POST", "/v2.0/floatingips", fmt.Sprintf(`{"floatingip": {"floating_network_id": %q}}`, net), 400, "BadRequest",
		"Bad floatingip request: Network "+net+" is not a valid external network.")
	a.refused(red, "POST", "/v2.0/floatingips", fmt.Sprintf(`{"floatingip": {"floating_network_id": %q}}`, net), 404, "NetworkNotFound", "")
	a.refused(blue, "POST", "/v2.0/floatingips", `{"floatingip": {}}`, 400, "HTTPBadRequest",
		"Failed to parse request. Required attribute 'floating_network_id' not specified")
	outside := a.list(admin, "subnets", "network_id="+public, "id")[0]
	chosen := a.create(admin, "floatingip", fmt.Sprintf(`{"tenant_id": "blue", "floating_network_id": %q, "subnet_id": %q, "floating_ip_address": "172.24.4.9"}`,
		public, outside))
	if chosen["floating_ip_address"] != "172.24.4.9" || chosen["tenant_id"] != "blue" {
		t.Errorf("the chosen address: %v", chosen)
	}
	post(admin, `, "floating_ip_address": "172.24.4.9"`, 409, "IpAddressAlreadyAllocated", "")
	post(admin, `, "floating_ip_address": "10.0.0.9"`, 400, "InvalidIpForNetwork", "")
	// One with its port at once; a second has no place there.
	f := a.floatingIP(blue, public, fmt.Sprintf(`, "port_id": %q`, port))
	id := chosen["id"].(string)
	a.refused(blue, "PUT", "/v2.0/floatingips/"+id, fmt.Sprintf(`{"floatingip": {"port_id": %q}}`, port), 409, "FloatingIPPortAlreadyAssociated", "")
	a.refused(blue, "PUT", "/v2.0/floatingips/"+f, `{"floatingip": {"fixed_ip_address": "10.0.0.2"}}`, 400, "BadRequest",
		"Bad floatingip request: fixed_ip_address cannot be specified without a port_id.")
	a.refused(blue, "PUT", "/v2.0/floatingips/"+f, `{"floatingip": {"dns_name": "web", "dns_domain": "example.org."}}`, 400, "HTTPBadRequest",
		"Cannot update read-only attribute dns_name")
	named := a.create(blue, "floatingip", fmt.Sprintf(`{"floating_network_id": %q, "dns_name": "Web", "dns_domain": "example.org."}`, public))
	if named["dns_name"] != "web" || named["dns_domain"] != "example.org." {
		t.Errorf("the names of a floating IP: %v", named)
	}
	a.refused(blue, "PUT", "/v2.0/floatingips/"+f, `{"floatingip": {"floating_ip_address": "172.24.4.10"}}`, 400, "HTTPBadRequest",
		"Cannot update read-only attribute floating_ip_address")
	a.refused(red, "GET", "/v2.0/floatingips/"+f, "", 404, "FloatingIPNotFound", "")
	// The owner of a network sees all its ports, and may not give them addresses of its own.
	shared := a.create(admin, "network", `{"tenant_id": "blue", "shared": true}`)["id"].(string)
	a.addInterface(admin, a.router(blue, gateway(public, "")), a.subnet(blue, shared, "10.5.0.0/24", ""))
	guest := a.port(red, shared, "")
	a.refused(blue, "PUT", "/v2.0/floatingips/"+id, fmt.Sprintf(`{"floatingip": {"port_id": %q}}`, guest), 400, "BadRequest",
		"Bad floatingip request: Cannot process floating IP association with Port "+guest+", since that port is owned by a different tenant.")
	a.put(admin, "floatingip", id, fmt.Sprintf(`{"port_id": %q}`, guest))
	a.refused(admin, "DELETE", "/v2.0/networks/"+public, "", 409, "NetworkInUse", "")
}

func TestFloatingIPOfAPortWithSeveralAddresses(t *testing.T) {
	a := newAPI(t)
	public := a.external("172.24.4.0/24")
	net, _ := a.routed(blue, public, "10.0.0.0/24")
	subnet := a.list(blue, "subnets", "network_id="+net, "id")[0]
	port := a.port(blue, net, fmt.Sprintf(`, "fixed_ips": [{"subnet_id": %q}, {"subnet_id": %q}]`, subnet, subnet))
	a.refused(blue, "POST", "/v2.0/floatingips", fmt.Sprintf(`{"floatingip": {"floating_network_id": %q, "port_id": %q}}`, public, port), 400, "BadRequest",
		"Bad floatingip request: Port "+port+" has multiple fixed IPv4 addresses.  Must provide a specific IPv4 address when assigning a floating IP.")
	var ids []string
	for _, ip := range a.show(blue, "port", port)["fixed_ips"].([]any) {
		address := ip.(map[string]any)["ip_address"].(string)
		f := a.create(blue, "floatingip", fmt.Sprintf(`{"floating_network_id": %q, "port_id": %q, "fixed_ip_address": %q}`, public, port, address))
		if f["fixed_ip_address"] != address {
			t.Errorf("%s: %v", address, f)
		}
		ids = append(ids, f["id"].(string))
	}
	if got := a.list(blue, "floatingips", "port_id="+port, "id"); len(got) != len(ids) {
		t.Errorf("the port has %v", got)
	}
	a.refused(blue, "PUT", "/v2.0/floatingips/"+ids[0], fmt.Sprintf(`{"floatingip": {"port_id": %q}}`, port), 400, "BadRequest", "")
	a.refused(blue, "PUT", "/v2.0/floatingips/"+ids[0],
		fmt.Sprintf(`{"floatingip": {"port_id": %q, "fixed_ip_address": "10.0.0.99"}}`, port), 400, "BadRequest",
		"Bad floatingip request: Port "+port+" does not have fixed ip 10.0.0.99.")
}
