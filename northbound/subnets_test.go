package northbound

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestSubnetLifeOnEachDatabase(t *testing.T) {
	onEach(t, func(t *testing.T, a *api) {
		net := a.network(blue, "")
		s := a.create(blue, "subnet", fmt.Sprintf(`{"network_id": %q, "cidr": "10.0.0.7/24", "ip_version": "4", "name": "s",
			"dns_nameservers": ["8.8.8.8"], "host_routes": [{"destination": "10.9.0.0/16", "nexthop": "10.0.0.2"}]}`, net))
		id := s["id"].(string)
		for _, name := range []string{"id", "created_at", "updated_at"} {
			delete(s, name)
		}
		want := map[string]any{
			"name": "s", "tenant_id": "blue", "project_id": "blue", "description": "", "revision_number": 0.0, "tags": []any{},
			"network_id": net, "ip_version": 4.0, "cidr": "10.0.0.0/24", "gateway_ip": "10.0.0.1", "enable_dhcp": true,
			"allocation_pools": []any{map[string]any{"start": "10.0.0.2", "end": "10.0.0.254"}},
			"dns_nameservers":  []any{"8.8.8.8"},
			"host_routes":      []any{map[string]any{"destination": "10.9.0.0/16", "nexthop": "10.0.0.2"}},
			"ipv6_ra_mode":     nil, "ipv6_address_mode": nil, "subnetpool_id": nil, "service_types": []any{},
		}
		if diff := cmp.Diff(want, s); diff != "" {
			t.Errorf("created subnet (-want +got):\n%s", diff)
		}
		s = a.put(blue, "subnet", id, `{"gateway_ip": null, "dns_nameservers": null, "host_routes": [], "enable_dhcp": false,
			"allocation_pools": [{"start": "10.0.0.50", "end": "10.0.0.60"}]}`)
		for name, value := range map[string]any{
			"gateway_ip": nil, "dns_nameservers": []any{}, "host_routes": []any{}, "enable_dhcp": false,
			"allocation_pools": []any{map[string]any{"start": "10.0.0.50", "end": "10.0.0.60"}}, "revision_number": 1.0,
		} {
			if diff := cmp.Diff(value, s[name]); diff != "" {
				t.Errorf("changed %s (-want +got):\n%s", name, diff)
			}
		}
		if s := a.show(blue, "subnet", a.subnet(blue, net, "10.1.0.0/24", `, "gateway_ip": null`)); s["gateway_ip"] != nil {
			t.Errorf("a subnet without gateway has %v", s["gateway_ip"])
		}
		port := a.port(blue, net, fmt.Sprintf(`, "fixed_ips": [{"subnet_id": %q}]`, id))
		a.refused(blue, "DELETE", "/v2.0/subnets/"+id, "", 409, "SubnetInUse", "")
		a.must(204, blue, "DELETE", "/v2.0/ports/"+port, "")
		a.must(204, blue, "DELETE", "/v2.0/subnets/"+id, "")
	})
}

func TestSubnetOfIPv6(t *testing.T) {
	a := newAPI(t)
	net := a.network(blue, "")
	id := a.subnet(blue, net, "2001:DB8:0::/64", `, "ipv6_ra_mode": "slaac", "ipv6_address_mode": "slaac"`)
	s := a.show(blue, "subnet", id)
	if s["cidr"] != "2001:db8::/64" || s["gateway_ip"] != "2001:db8::1" || s["ipv6_ra_mode"] != "slaac" || s["ip_version"] != 6.0 {
		t.Errorf("subnet: %v", s)
	}
	p := a.create(blue, "port", fmt.Sprintf(`{"network_id": %q, "mac_address": "00-16-3E-aa-bb-cc"}`, net))
	want := []any{map[string]any{"subnet_id": id, "ip_address": "2001:db8::216:3eff:feaa:bbcc"}}
	if diff := cmp.Diff(want, p["fixed_ips"]); diff != "" {
		t.Errorf("addresses (-want +got):\n%s", diff)
	}
}

func TestSubnetsAreChecked(t *testing.T) {
	a := newAPI(t)
	net := a.network(blue, "")
	a.subnet(blue, net, "10.0.0.0/24", "")
	head := fmt.Sprintf(`"network_id": %q, "ip_version": 4`, net)
	withCIDR := head + `, "cidr": "10.5.0.0/24"`
	for _, c := range []struct {
		body, typ, message string
		status             int
	}{
		{`"ip_version": 4`, "HTTPBadRequest", "Failed to parse request. Required attribute 'network_id' not specified", 400},
		{fmt.Sprintf(`"network_id": %q`, net), "HTTPBadRequest", "Failed to parse request. Required attribute 'ip_version' not specified", 400},
		{`"network_id": "x", "ip_version": 4`, "HTTPBadRequest", "Invalid input for network_id. Reason: 'x' is not a valid UUID.", 400},
		{`"network_id": "00000000-0000-0000-0000-000000000001", "ip_version": 4, "cidr": "10.5.0.0/24"`, "NetworkNotFound",
			"Network 00000000-0000-0000-0000-000000000001 could not be found.", 404},
		{head, "BadRequest", "Bad subnets request: a subnetpool must be specified in the absence of a cidr.", 400},
		{withCIDR + `, "prefixlen": 24`, "BadRequest", "Bad subnets request: cidr and prefixlen must not be supplied together.", 400},
		{head + `, "subnetpool_id": "00000000-0000-0000-0000-000000000001"`, "SubnetPoolNotFound",
			"Subnet pool 00000000-0000-0000-0000-000000000001 could not be found.", 404},
		{head + `, "cidr": "10.0.0.0/33"`, "InvalidInput", "Invalid input for operation: 10.0.0.0/33 is not in a CIDR format.", 400},
		{head + `, "cidr": null`, "InvalidInput", "Invalid input for operation: None is not in a CIDR format.", 400},
		{head + `, "cidr": "2001:db8::/64"`, "InvalidInput", "Invalid input for operation: cidr '2001:db8::/64' does not match the ip_version '4'.", 400},
		{head + `, "cidr": "10.0.0.128/25"`, "InvalidInput", "", 400},
		{head + `, "cidr": "10.6.0.0/31"`, "InvalidInput", "Invalid input for operation: Subnet has a prefix length that is incompatible with DHCP service enabled.", 400},
		{head + `, "cidr": "224.1.0.0/16"`, "InvalidInput", "Invalid input for operation: Multicast IP subnet is not supported if enable_dhcp is True.", 400},
		{head + `, "cidr": "127.0.0.0/8"`, "InvalidInput", "Invalid input for operation: Loopback IP subnet is not supported if enable_dhcp is True.", 400},
		{fmt.Sprintf(`"network_id": %q, "ip_version": 5, "cidr": "10.0.0.0/24"`, net), "HTTPBadRequest", "Invalid input for ip_version. Reason: '5' is not in [4, 6].", 400},
		{withCIDR + `, "gateway_ip": "x"`, "HTTPBadRequest", "Invalid input for gateway_ip. Reason: 'x' is not a valid IP address.", 400},
		{withCIDR + `, "gateway_ip": "10.5.0.0"`, "InvalidInput", "Invalid input for operation: Gateway is not valid on subnet.", 400},
		{withCIDR + `, "gateway_ip": "10.5.0.9", "allocation_pools": [{"start": "10.5.0.5", "end": "10.5.0.10"}]`,
			"GatewayConflictWithAllocationPools", "Gateway ip 10.5.0.9 conflicts with allocation pool 10.5.0.5-10.5.0.10.", 409},
		{withCIDR + `, "allocation_pools": [{"start": "10.6.0.5", "end": "10.6.0.10"}]`, "OutOfBoundsAllocationPool", "", 400},
		{withCIDR + `, "allocation_pools": [{"start": "10.5.0.5"}]`, "HTTPBadRequest",
			"Invalid input for allocation_pools. Reason: Validation of dictionary's keys failed. Expected keys: ['start', 'end'] Provided keys: ['start'].", 400},
		{withCIDR + `, "allocation_pools": null`, "HTTPBadRequest", "Invalid input for allocation_pools. Reason: Invalid data format for IP pool: 'None'.", 400},
		{withCIDR + `, "host_routes": [{"destination": "10.9.0.5/16", "nexthop": "10.5.0.5"}]`, "HTTPBadRequest",
			"Invalid input for host_routes. Reason: '10.9.0.5/16' is not a recognized CIDR, '10.9.0.0/16' is recommended.", 400},
		{withCIDR + `, "ipv6_ra_mode": "slaac"`, "InvalidInput", "Invalid input for operation: ipv6_ra_mode is not valid when ip_version is 4.", 400},
		{withCIDR + `, "allocation_pools": 5`, "HTTPBadRequest", "Invalid input for allocation_pools. Reason: Invalid data format for IP pool: '5'.", 400},
		{withCIDR + `, "dns_nameservers": ["8.8.8.8", "8.8.8.8"]`, "HTTPBadRequest", "Invalid input for dns_nameservers. Reason: Duplicate nameserver '8.8.8.8'.", 400},
		{withCIDR + `, "dns_nameservers": ["ns.example.org"]`, "HTTPBadRequest",
			"Invalid input for dns_nameservers. Reason: 'ns.example.org' is not a valid nameserver. 'ns.example.org' is not a valid IP address.", 400},
		{withCIDR + `, "host_routes": [{"destination": "10.9.0.1/16", "nexthop": "10.5.0.2"}]`, "HTTPBadRequest",
			"Invalid input for host_routes. Reason: '10.9.0.1/16' is not a recognized CIDR, '10.9.0.0/16' is recommended.", 400},
		{withCIDR + `, "host_routes": [{"destination": "127.0.0.0/8", "nexthop": "10.5.0.2"}]`, "HTTPBadRequest",
			"Invalid input for host_routes. Reason: '127.0.0.0/8' is not a routable CIDR.", 400},
		{withCIDR + `, "ipv6_ra_mode": "fast"`, "HTTPBadRequest",
			"Invalid input for ipv6_ra_mode. Reason: 'fast' is not in ['dhcpv6-stateful', 'dhcpv6-stateless', 'slaac'].", 400},
		{withCIDR + `, "ipv6_ra_mode": "slaac"`, "InvalidInput", "", 400},
	} {
		a.refused(blue, "POST", "/v2.0/subnets", `{"subnet": {`+c.body+`}}`, c.status, c.typ, c.message)
	}
	a.refused(admin, "POST", "/v2.0/subnets", `{"subnet": {`+withCIDR+`, "service_types": ["disk:x"]}}`, 400,
		"InvalidSubnetServiceType", "Subnet service type disk:x does not correspond to a valid device owner.")
	a.refused(admin, "POST", "/v2.0/subnets", `{"subnet": {`+withCIDR+`, "service_types": "compute:x"}}`, 400,
		"HTTPBadRequest", "Subnet service types must be a list.")
	a.refused(admin, "POST", "/v2.0/subnets", `{"subnet": {`+withCIDR+`, "service_types": [5]}}`, 400,
		"InvalidInputSubnetServiceType", "Subnet service type 5 is not a string.")
	id := a.list(blue, "subnets", "cidr=10.0.0.0/24", "id")[0]
	a.refused(blue, "PUT", "/v2.0/subnets/"+id, `{"subnet": {"cidr": "10.0.0.0/25"}}`, 400, "HTTPBadRequest", "Cannot update read-only attribute cidr")
	small := a.subnet(blue, net, "10.7.0.0/31", `, "enable_dhcp": false`)
	a.refused(blue, "PUT", "/v2.0/subnets/"+small, `{"subnet": {"enable_dhcp": true}}`, 400, "InvalidInput", "")
}

func TestSubnetsHaveNoSegmentAndNoPool(t *testing.T) {
	a := newAPI(t)
	net := a.network(blue, "")
	s := a.create(admin, "subnet", fmt.Sprintf(`{"network_id": %q, "ip_version": 4, "cidr": "10.0.0.0/24", "segment_id": null, "subnetpool_id": null,
		"use_default_subnetpool": false}`, net))
	for _, name := range []string{"segment_id", "subnetpool_id"} {
		if v, shown := s[name]; !shown || v != nil {
			t.Errorf("%s is %v, shown %v", name, v, shown)
		}
	}
	if _, shown := a.show(blue, "subnet", s["id"].(string))["segment_id"]; shown {
		t.Error("a tenant sees segment_id")
	}
	other := "00000000-0000-0000-0000-000000000001"
	for _, c := range []struct {
		more, typ, message string
		status             int
	}{
		{`, "segment_id": "` + other + `"`, "SegmentNotFound", "Segment " + other + " could not be found.", 404},
		{`, "subnetpool_id": "` + other + `"`, "SubnetPoolNotFound", "Subnet pool " + other + " could not be found.", 404},
		{`, "use_default_subnetpool": true`, "BadRequest", "Bad subnets request: No default subnetpool found for IPv4.", 400},
		{`, "use_default_subnetpool": true, "subnetpool_id": "` + other + `"`, "BadRequest",
			"Bad subnets request: subnetpool_id and use_default_subnetpool cannot both be specified.", 400},
	} {
		a.refused(admin, "POST", "/v2.0/subnets", fmt.Sprintf(`{"subnet": {"network_id": %q, "ip_version": 4, "cidr": "10.1.0.0/24"%s}}`, net, c.more),
			c.status, c.typ, c.message)
	}
}
