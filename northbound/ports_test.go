package northbound

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"planck/network"
)

func TestPortLifeOnEachDatabase(t *testing.T) {
	onEach(t, func(t *testing.T, a *api) {
		net := a.network(blue, "")
		subnet := a.subnet(blue, net, "10.0.0.0/24", "")
		p := a.create(admin, "port", fmt.Sprintf(`{"network_id": %q, "tenant_id": "blue", "name": "p", "mac_address": "FA-16-3E-01-02-03",
			"fixed_ips": [{"ip_address": "10.0.0.9"}], "device_id": "d", "device_owner": "compute:nova", "tags": ["b", "a"],
			"allowed_address_pairs": [{"ip_address": "10.0.0.100"}, {"ip_address": "10.2.0.0/16", "mac_address": "00:00:5e:00:01:01"}],
			"extra_dhcp_opts": [{"opt_name": "bootfile-name", "opt_value": "x.0"}, {"opt_name": "67", "opt_value": null}],
			"binding:profile": {"a": [1, 2.5, "x", {}, null, true]}, "security_groups": []}`, net))
		id := p["id"].(string)
		for _, name := range []string{"id", "created_at", "updated_at"} {
			delete(p, name)
		}
		want := map[string]any{
			"name": "p", "tenant_id": "blue", "project_id": "blue", "description": "", "revision_number": 0.0, "tags": []any{"b", "a"},
			"network_id": net, "status": "DOWN", "admin_state_up": true, "mac_address": "fa:16:3e:01:02:03",
			"fixed_ips": []any{map[string]any{"subnet_id": subnet, "ip_address": "10.0.0.9"}},
			"device_id": "d", "device_owner": "compute:nova", "security_groups": []any{}, "port_security_enabled": true,
			"allowed_address_pairs": []any{
				map[string]any{"ip_address": "10.0.0.100", "mac_address": "fa:16:3e:01:02:03"},
				map[string]any{"ip_address": "10.2.0.0/16", "mac_address": "00:00:5e:00:01:01"},
			},
			"extra_dhcp_opts": []any{map[string]any{"opt_name": "bootfile-name", "opt_value": "x.0", "ip_version": 4.0}},
			"binding:host_id": "", "binding:vnic_type": "normal", "binding:vif_type": "unbound", "binding:vif_details": map[string]any{},
			"binding:profile": map[string]any{"a": []any{1.0, 2.5, "x", map[string]any{}, nil, true}},
			"ip_allocation":   "immediate",
			"dns_name":        "", "dns_assignment": []any{map[string]any{"ip_address": "10.0.0.9", "hostname": "host-10-0-0-9", "fqdn": "host-10-0-0-9"}},
			"propagate_uplink_status": true,
		}
		if diff := cmp.Diff(want, p); diff != "" {
			t.Errorf("created port (-want +got):\n%s", diff)
		}
		p = a.put(admin, "port", id, `{"device_id": "", "device_owner": "", "binding:host_id": null, "binding:profile": {},
			"fixed_ips": [], "allowed_address_pairs": null,
			"extra_dhcp_opts": [{"opt_name": "bootfile-name", "opt_value": null}, {"opt_name": "router", "opt_value": "", "ip_version": "4"}]}`)
		for name, value := range map[string]any{
			"device_id": "", "device_owner": "", "binding:host_id": "", "binding:profile": map[string]any{}, "fixed_ips": []any{},
			"allowed_address_pairs": []any{}, "ip_allocation": "none",
			"extra_dhcp_opts": []any{map[string]any{"opt_name": "router", "opt_value": "", "ip_version": 4.0}},
		} {
			if diff := cmp.Diff(value, p[name]); diff != "" {
				t.Errorf("changed %s (-want +got):\n%s", name, diff)
			}
		}
		a.refused(blue, "DELETE", "/v2.0/networks/"+net, "", 409, "NetworkInUse", "")
		a.must(204, blue, "DELETE", "/v2.0/ports/"+id, "")
		a.refused(blue, "GET", "/v2.0/ports/"+id, "", 404, "PortNotFound", "Port "+id+" could not be found.")
	})
}

func TestPortsAreChecked(t *testing.T) {
	a := newAPI(t)
	net := a.network(blue, "")
	subnet := a.subnet(blue, net, "10.0.0.0/24", "")
	other := a.subnet(blue, a.network(blue, ""), "10.1.0.0/24", "")
	a.port(blue, net, `, "mac_address": "fa:16:3e:00:00:01", "fixed_ips": [{"ip_address": "10.0.0.9"}]`)
	for _, c := range []struct {
		body, typ, message string
		status             int
	}{
		{`"mac_address": "fa:16:3e:00:00:01"`, "MacAddressInUse", "Unable to complete operation for network " + net + ". The mac address fa:16:3e:00:00:01 is in use.", 409},
		{`"mac_address": "x"`, "HTTPBadRequest", "Invalid input for mac_address. Reason: 'x' is not a valid MAC address.", 400},
		{`"mac_address": "00:00:00:00:00:00"`, "HTTPBadRequest", "Invalid input for mac_address. Reason: '00:00:00:00:00:00' is not a valid MAC address.", 400},
		{`"mac_address": "01:00:5e:00:00:01"`, "HTTPBadRequest", "Invalid input for mac_address. Reason: '01:00:5e:00:00:01' is not a valid MAC address.", 400},
		{`"fixed_ips": [{"ip_address": "10.0.0.9"}]`, "IpAddressAlreadyAllocated", "", 409},
		{`"fixed_ips": [{"ip_address": "10.9.0.9"}]`, "InvalidIpForNetwork", "IP address 10.9.0.9 is not a valid IP for any of the subnets on the specified network.", 400},
		{fmt.Sprintf(`"fixed_ips": [{"subnet_id": %q, "ip_address": "10.9.0.9"}]`, subnet), "InvalidIpForSubnet", "IP address 10.9.0.9 is not a valid IP for the specified subnet.", 400},
		{fmt.Sprintf(`"fixed_ips": [{"subnet_id": %q}]`, other), "InvalidInput", "", 400},
		{`"fixed_ips": [{"subnet_id": "00000000-0000-0000-0000-000000000001"}]`, "SubnetNotFound", "", 404},
		{`"fixed_ips": null`, "HTTPBadRequest", "Invalid input for fixed_ips. Reason: Invalid data format for fixed IP: 'None'.", 400},
		{`"fixed_ips": [5]`, "HTTPBadRequest", "Invalid input for fixed_ips. Reason: Invalid data format for fixed IP: '5'.", 400},
		{`"fixed_ips": [{}]`, "InvalidInput", "Invalid input for operation: IP allocation requires subnet_id or ip_address.", 400},
		{`"fixed_ips": [{"ip": "10.0.0.1"}]`, "HTTPBadRequest", "Invalid input for fixed_ips. Reason: Unrecognized attribute(s) 'ip'.", 400},
		{`"fixed_ips": [{"ip_address": "10.0.0.7"}, {"ip_address": "10.0.0.7"}]`, "HTTPBadRequest", "Invalid input for fixed_ips. Reason: Duplicate IP address '10.0.0.7'.", 400},
		{`"fixed_ips": [{"ip_address": "10.0.0.7"}, {"ip_address": "10.0.0.8"}, {"ip_address": "10.0.0.10"}, {"ip_address": "10.0.0.11"}, {"ip_address": "10.0.0.12"}, {"ip_address": "10.0.0.13"}]`,
			"InvalidInput", "Invalid input for operation: Exceeded maximum amount of fixed ips per port.", 400},
		{`"device_id": null`, "HTTPBadRequest", "Invalid input for device_id. Reason: 'None' is not a valid string.", 400},
		{`"binding:vnic_type": "warp"`, "HTTPBadRequest", "", 400},
		{`"binding:vif_type": "ovs"`, "HTTPBadRequest", "Attribute 'binding:vif_type' not allowed in POST", 400},
		{`"security_groups": ["00000000-0000-0000-0000-000000000001"]`, "SecurityGroupNotFound", "Security group 00000000-0000-0000-0000-000000000001 does not exist", 404},
		{`"security_groups": ["default"]`, "HTTPBadRequest", "Invalid input for security_groups. Reason: 'default' is not a valid UUID.", 400},
		{`"security_groups": ["00000000-0000-0000-0000-000000000001"], "port_security_enabled": false`, "PortSecurityAndIPRequiredForSecurityGroups",
			"Port security must be enabled and port must have an IP address in order to use security groups.", 400},
		{`"allowed_address_pairs": [{"ip_address": "10.0.0.1"}], "port_security_enabled": false`, "AddressPairAndPortSecurityRequired",
			"Port Security must be enabled in order to have allowed address pairs on a port.", 409},
		{`"allowed_address_pairs": 5`, "HTTPBadRequest", "Allowed address pairs must be a list.", 400},
		{`"allowed_address_pairs": [5]`, "HTTPBadRequest", "Invalid input for allowed_address_pairs. Reason: '5' is not a dictionary.", 400},
		{`"allowed_address_pairs": [{"mac_address": "00:00:5e:00:01:01"}]`, "AllowedAddressPairsMissingIP", "AllowedAddressPair must contain ip_address", 400},
		{`"allowed_address_pairs": [{"ip_address": "10.0.0.300"}]`, "HTTPBadRequest", "'10.0.0.300' is not a valid IP address", 400},
		{`"allowed_address_pairs": [{"ip_address": "10.0.0.0/40"}]`, "HTTPBadRequest", "'10.0.0.0/40' is not a valid IP subnet", 400},
		{`"allowed_address_pairs": [{"ip_address": "224.0.0.18"}]`, "HTTPBadRequest", "IP 224.0.0.18 is a multicast address, which is not supported.", 400},
		{`"allowed_address_pairs": [{"ip_address": "10.0.0.1", "mac_address": null}]`, "HTTPBadRequest", "'None' is not a valid MAC address", 400},
		{`"allowed_address_pairs": [{"ip_address": "10.0.0.1", "x": 1}]`, "HTTPBadRequest", "Unrecognized attribute(s) 'x'", 400},
		{`"allowed_address_pairs": [{"ip_address": "10.0.0.1"}, {"ip_address": "10.0.0.1"}]`, "DuplicateAddressPairInRequest",
			"Request contains duplicate address pair: mac_address None ip_address 10.0.0.1.", 400},
		{`"allowed_address_pairs": [` + pairs(11) + `]`, "AllowedAddressPairExhausted", "The number of allowed address pair exceeds the maximum 10.", 400},
		{`"extra_dhcp_opts": 5`, "InvalidInput", "Invalid input for operation: '5' is not a list.", 400},
		{`"extra_dhcp_opts": [{"opt_name": "x"}]`, "InvalidInput", "Invalid input for operation: No valid key specs matched for: {'opt_name': 'x'}.", 400},
		{`"extra_dhcp_opts": [{"opt_name": "x", "opt_value": 5}]`, "InvalidInput", "", 400},
		{`"extra_dhcp_opts": [{"opt_name": "x", "opt_value": "a\nb"}]`, "InvalidInput", "", 400},
		{`"extra_dhcp_opts": [{"opt_name": "x", "opt_value": "a", "ip_version": 5}]`, "InvalidInput", "", 400},
		{`"extra_dhcp_opts": [{"opt_name": "x", "opt_value": "a"}, {"opt_name": "x", "opt_value": "b"}]`, "InvalidInput", "Invalid input for operation: Duplicate items in the list: 'x'.", 400},
		{`"tags": ["a", "a"]`, "HTTPBadRequest", "Invalid input for tags. Reason: Duplicate items in the list: 'a'.", 400},
	} {
		a.refused(blue, "POST", "/v2.0/ports", fmt.Sprintf(`{"port": {"network_id": %q, %s}}`, net, c.body), c.status, c.typ, c.message)
	}
	for _, profile := range []string{`5`, `{"a": 1e999}`, `{"a": "\u0000"}`, `{"a": "` + strings.Repeat("x", 5000) + `"}`} {
		a.refused(admin, "POST", "/v2.0/ports", fmt.Sprintf(`{"port": {"network_id": %q, "binding:profile": %s}}`, net, profile), 400, "HTTPBadRequest", "")
	}
}

func pairs(n int) string {
	list := make([]string, n)
	for i := range list {
		list[i] = fmt.Sprintf(`{"ip_address": "10.0.1.%d"}`, i)
	}
	return strings.Join(list, ",")
}

func TestPortSecurityRules(t *testing.T) {
	a := newAPI(t)
	open := a.network(blue, `"port_security_enabled": false`)
	closed := a.network(blue, "")
	if p := a.show(blue, "port", a.port(blue, open, "")); p["port_security_enabled"] != false {
		t.Error("a port did not take port_security_enabled from its network")
	}
	if p := a.show(admin, "port", a.port(admin, closed, `, "device_owner": "network:vip"`)); p["port_security_enabled"] != false {
		t.Error("a port of the network itself has port security")
	}
	id := a.port(blue, closed, `, "allowed_address_pairs": [{"ip_address": "10.0.0.1"}]`)
	a.refused(blue, "PUT", "/v2.0/ports/"+id, `{"port": {"port_security_enabled": false}}`, 409, "AddressPairAndPortSecurityRequired", "")
	p := a.put(blue, "port", id, `{"port_security_enabled": false, "allowed_address_pairs": [], "security_groups": []}`)
	if p["port_security_enabled"] != false {
		t.Error("port security can't be turned off together with the address pairs")
	}
	a.refused(blue, "PUT", "/v2.0/ports/"+id, `{"port": {"allowed_address_pairs": [{"ip_address": "10.0.0.1"}]}}`, 409, "AddressPairAndPortSecurityRequired", "")
}

func TestPortMACIsMadeAnewForNull(t *testing.T) {
	a := newAPI(t)
	id := a.port(blue, a.network(blue, ""), `, "mac_address": "fa:16:3e:00:00:01"`)
	a.refused(blue, "PUT", "/v2.0/ports/"+id, `{"port": {"mac_address": null}}`, 403, "PolicyNotAuthorized",
		"(rule:update_port and rule:update_port:mac_address) is disallowed by policy")
	p := a.put(admin, "port", id, `{"mac_address": null}`)
	if mac := p["mac_address"].(string); mac == "fa:16:3e:00:00:01" || !strings.HasPrefix(mac, "fa:16:3e:") {
		t.Errorf("the new MAC is %s", mac)
	}
}

func TestPortBinding(t *testing.T) {
	a := newAPI(t)
	a.update(func(tx *network.Tx) error {
		return tx.PutHost(&network.Host{
			Name: "hv1", SystemID: "s1", TunnelIP: netip.MustParseAddr("10.250.0.1"),
			Bridges: map[string]network.Bridge{network.BridgeTunnel: {Tunnels: map[string]uint32{network.TypeGRE: 1}}},
		})
	})
	id := a.port(admin, a.network(admin, ""), "")
	p := a.put(admin, "port", id, `{"binding:host_id": "hv1", "binding:profile": {"x": "y"}}`)
	if p["binding:vif_type"] != "ovs" || p["binding:vif_details"].(map[string]any)["bridge_name"] != "br-int" {
		t.Errorf("bound port: %v %v", p["binding:vif_type"], p["binding:vif_details"])
	}
	a.refused(admin, "PUT", "/v2.0/ports/"+id, `{"port": {"mac_address": "fa:16:3e:00:00:09"}}`, 409, "PortBound", "")
	p = a.put(admin, "port", id, `{"binding:host_id": "nowhere"}`)
	if p["binding:vif_type"] != "binding_failed" {
		t.Errorf("port on an unknown host: %v", p["binding:vif_type"])
	}
	p = a.put(admin, "port", id, `{"binding:host_id": null}`)
	if p["binding:vif_type"] != "unbound" || p["binding:host_id"] != "" {
		t.Errorf("unbound port: %v", p)
	}
	if got := a.list(admin, "ports", "binding:host_id=", "id"); !cmp.Equal(got, []string{id}) {
		t.Errorf("unbound ports are %v", got)
	}
}

// update writes to the store beside the API.
func (a *api) update(fn func(tx *network.Tx) error) {
	a.t.Helper()
	if _, err := a.store.Update(a.t.Context(), network.Cause{Operation: a.t.Name()}, fn); err != nil {
		a.t.Fatal(err)
	}
}

func TestPortStatusIsShown(t *testing.T) {
	a := newAPI(t)
	id := a.port(admin, a.network(admin, ""), "")
	a.update(func(tx *network.Tx) error {
		return tx.SetPortStatus(network.PortStatus{PortID: id, Status: network.StatusError, Reason: "refused"})
	})
	if p := a.show(admin, "port", id); p["status"] != "ERROR" || p["revision_number"] != 0.0 {
		t.Errorf("port: %v", p)
	}
	if got := a.list(admin, "ports", "status=ERROR", "id"); !cmp.Equal(got, []string{id}) {
		t.Errorf("ports with an error: %v", got)
	}
}

func TestUplinkStatusIsKept(t *testing.T) {
	a := newAPI(t)
	net := a.network(blue, "")
	p := a.create(blue, "port", fmt.Sprintf(`{"network_id": %q, "propagate_uplink_status": "False"}`, net))
	id := p["id"].(string)
	if p["propagate_uplink_status"] != false || a.show(blue, "port", id)["propagate_uplink_status"] != false {
		t.Errorf("made with %v", p["propagate_uplink_status"])
	}
	if p = a.put(blue, "port", id, `{"propagate_uplink_status": true}`); p["propagate_uplink_status"] != true {
		t.Errorf("changed to %v", p["propagate_uplink_status"])
	}
}
