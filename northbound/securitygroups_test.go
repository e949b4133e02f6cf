package northbound

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"planck/network"
)

// Neutron's list names all protocols that there are, but for "any".
func TestRefusalNamesAllProtocols(t *testing.T) {
	for name := range network.Protocols {
		if listed := strings.Contains(protocolNames, "'"+name+"'"); listed == (name == "any") {
			t.Errorf("%s is in the list: %t", name, listed)
		}
	}
	if n := strings.Count(protocolNames, "'"); n != 2*(len(network.Protocols)-1) {
		t.Errorf("%d names are listed, of %d", n/2, len(network.Protocols)-1)
	}
}

func TestDefaultSecurityGroupOnFirstUse(t *testing.T) {
	onEach(t, func(t *testing.T, a *api) {
		if got := a.list(blue, "security-groups", "", "name"); !cmp.Equal(got, []string{"default"}) {
			t.Fatalf("blue's groups are %v", got)
		}
		id := a.list(blue, "security-groups", "", "id")[0]
		g := a.show(blue, "security-group", id)
		if rules := g["security_group_rules"].([]any); len(rules) != 4 || g["description"] != "Default security group" || g["shared"] != false {
			t.Errorf("it is %v", g)
		}
		if got := a.list(blue, "security-group-rules", "remote_group_id="+id+"&direction=ingress", "ethertype"); len(got) != 2 {
			t.Errorf("rules from itself: %v", got)
		}
		a.refused(red, "GET", "/v2.0/security-groups/"+id, "", 404, "SecurityGroupNotFound", "Security group "+id+" does not exist")
		a.refused(blue, "DELETE", "/v2.0/security-groups/"+id, "", 409, "SecurityGroupCannotRemoveDefault", "Insufficient rights for removing default security group.")
		a.refused(blue, "POST", "/v2.0/security-groups", `{"security_group": {"name": "default"}}`, 409, "SecurityGroupDefaultAlreadyExists", "")
		a.must(204, admin, "DELETE", "/v2.0/security-groups/"+id, "")
		if again := a.list(blue, "security-groups", "", "id"); len(again) != 1 || again[0] == id {
			t.Errorf("after it was deleted: %v", again)
		}
		for what, project := range map[string]string{"is not UTF-8": "%ff", "is too long": strings.Repeat("x", 256)} {
			if got := a.list(admin, "security-groups", "project_id="+project, "id"); len(got) != 0 {
				t.Errorf("groups of a project whose id %s: %v", what, got)
			}
		}
	})
}

func TestPortsHaveTheGroupsTheyWereGiven(t *testing.T) {
	a := newAPI(t)
	net := a.network(blue, "")
	a.subnet(blue, net, "10.0.0.0/24", "")
	groups := func(port string) any { return a.show(blue, "port", port)["security_groups"] }
	standard := a.list(blue, "security-groups", "", "id")[0]
	web := a.create(blue, "security-group", `{"name": "web"}`)["id"].(string)
	reds := a.create(red, "security-group", `{"name": "web"}`)["id"].(string)
	for more, want := range map[string][]any{
		"": {standard}, `, "security_groups": null`: {}, `, "security_groups": []`: {},
		fmt.Sprintf(`, "security_groups": [%q]`, web): {web}, `, "port_security_enabled": false`: {},
	} {
		if got := groups(a.port(blue, net, more)); !cmp.Equal(got, any(want)) {
			t.Errorf("port with %s has the groups %v", more, got)
		}
	}
	port := a.port(blue, net, "")
	path := "/v2.0/ports/" + port
	a.refused(blue, "PUT", path, fmt.Sprintf(`{"port": {"security_groups": [%q]}}`, reds), 404, "SecurityGroupNotFound", "Security group "+reds+" does not exist")
	a.refused(blue, "PUT", path, `{"port": {"port_security_enabled": false}}`, 409, "PortSecurityPortHasSecurityGroup", "")
	if got := a.list(blue, "ports", "security_groups="+web, "id"); len(got) != 1 {
		t.Errorf("ports with the group: %v", got)
	}
	a.refused(blue, "DELETE", "/v2.0/security-groups/"+web, "", 409, "SecurityGroupInUse", "")
	a.put(blue, "port", port, `{"security_groups": [], "port_security_enabled": false}`)
	if got := groups(port); !cmp.Equal(got, any([]any{})) {
		t.Errorf("port without port security has the groups %v", got)
	}
}

func TestGroupIsStatefulUnlessSaidOtherwise(t *testing.T) {
	a := newAPI(t)
	net := a.network(blue, "")
	a.subnet(blue, net, "10.0.0.0/24", "")
	for given, want := range map[string]bool{"": true, `, "stateful": true`: true, `, "stateful": false`: false, `, "stateful": "False"`: false} {
		if got := a.create(blue, "security-group", `{"name": "web"`+given+`}`)["stateful"]; got != want {
			t.Errorf("a group with %s is stateful: %v", given, got)
		}
	}
	web := a.create(blue, "security-group", `{"name": "web"}`)["id"].(string)
	path := "/v2.0/security-groups/" + web
	put := func(attributes string) map[string]any {
		t.Helper()
		return a.must(200, blue, "PUT", path, `{"security_group": {`+attributes+`}}`).body["security_group"].(map[string]any)
	}
	if got := put(`"stateful": false`)["stateful"]; got != false {
		t.Errorf("after PUT it is stateful: %v", got)
	}
	a.refused(blue, "PUT", path, `{"security_group": {"stateful": "perhaps"}}`, 400, "InvalidInput", "Invalid input for operation: 'perhaps' cannot be converted to boolean.")
	port := a.port(blue, net, fmt.Sprintf(`, "security_groups": [%q]`, web))
	a.refused(blue, "PUT", path, `{"security_group": {"stateful": true}}`, 409, "SecurityGroupInUse", "Security Group "+web+" in use.")
	put(`"stateful": false, "name": "still"`)
	a.must(204, blue, "DELETE", "/v2.0/ports/"+port, "")
	put(`"stateful": true`)
}

func TestSecurityGroupRuleAttributes(t *testing.T) {
	a := newAPI(t)
	web := a.create(blue, "security-group", `{"name": "web", "description": "d"}`)["id"].(string)
	r := a.create(blue, "security-group-rule", fmt.Sprintf(
		`{"security_group_id": %q, "direction": "ingress", "protocol": "TCP", "port_range_min": "80", "port_range_max": 81, "remote_ip_prefix": "10.0.0.5/24"}`, web))
	id := r["id"].(string)
	for _, name := range []string{"id", "created_at", "updated_at"} {
		delete(r, name)
	}
	want := map[string]any{
		"tenant_id": "blue", "project_id": "blue", "description": "", "revision_number": 0.0, "tags": []any{}, "security_group_id": web,
		"direction": "ingress", "ethertype": "IPv4", "protocol": "tcp", "port_range_min": 80.0, "port_range_max": 81.0,
		"remote_ip_prefix": "10.0.0.5/24", "normalized_cidr": "10.0.0.0/24", "remote_group_id": nil, "belongs_to_default_sg": false,
	}
	if diff := cmp.Diff(want, r); diff != "" {
		t.Errorf("created rule (-want +got):\n%s", diff)
	}
	if g := a.show(blue, "security-group", web); g["revision_number"] != 1.0 {
		t.Errorf("a group with a new rule has the revision %v", g["revision_number"])
	}
	rule := func(more string) string {
		return fmt.Sprintf(`{"security_group_id": %q, "direction": "ingress"%s}`, web, more)
	}
	post := func(body, typ string, status int, message string) {
		t.Helper()
		a.refused(blue, "POST", "/v2.0/security-group-rules", body, status, typ, message)
	}
	one := func(more string) string { return `{"security_group_rule": ` + rule(more) + `}` }
	post(one(`, "protocol": "6", "port_range_min": 80, "port_range_max": 81, "remote_ip_prefix": "10.0.0.5/24"`), "SecurityGroupRuleExists", 409,
		"Security group rule already exists. Rule id is "+id+".")
	post(one(`, "protocol": "teleport"`), "SecurityGroupRuleInvalidProtocol", 400, "")
	post(one(`, "port_range_min": -1, "protocol": "tcp"`), "SecurityGroupInvalidPortValue", 400, "Invalid value for port -1")
	post(one(`, "remote_ip_prefix": "bogus"`), "InvalidCIDR", 400, "Invalid CIDR bogus given as IP prefix.")
	post(one(`, "ethertype": "IPX"`), "SecurityGroupRuleInvalidEtherType", 400, "")
	bulk := `{"security_group_rules": [` + rule(`, "protocol": "udp"`) + ", " + rule(`, "protocol": "17"`) + `]}`
	post(bulk, "DuplicateSecurityGroupRuleInPost", 409, "Duplicate Security Group Rule in POST.")
	a.must(204, blue, "DELETE", "/v2.0/security-group-rules/"+id, "")
	a.refused(blue, "DELETE", "/v2.0/security-group-rules/"+id, "", 404, "SecurityGroupRuleNotFound", "Security group rule "+id+" does not exist")
}

func TestQuotasCountGroupsAndTheirRules(t *testing.T) {
	a := withQuotas(t, sqlite(t), &Quotas{Default: unlimited, Limits: map[string]int{"security_group": 2, "security_group_rule": 8}})
	web := a.create(blue, "security-group", `{"name": "web"}`)["id"].(string) // beside the default one
	a.refused(blue, "POST", "/v2.0/security-groups", `{"security_group": {"name": "db"}}`, 409, "OverQuota", "Quota exceeded for resources: ['security_group'].")
	a.refused(admin, "POST", "/v2.0/security-groups", `{"security_group": {"name": "db", "tenant_id": "blue"}}`, 409, "OverQuota", "")
	a.create(red, "security-group", `{"name": "web"}`)

	// Four rules of the default group and two of the other are there.
	rule := func(port int) string {
		return fmt.Sprintf(`{"security_group_id": %q, "direction": "ingress", "protocol": "tcp", "port_range_min": %[2]d, "port_range_max": %[2]d}`, web, port)
	}
	one, many := `{"security_group_rule": `+rule(1)+`}`, `{"security_group_rules": [`+rule(1)+", "+rule(2)+", "+rule(3)+`]}`
	const over = "Quota exceeded for resources: ['security_group_rule']."
	a.refused(blue, "POST", "/v2.0/security-group-rules", many, 409, "OverQuota", over)
	a.must(201, blue, "POST", "/v2.0/security-group-rules", `{"security_group_rules": [`+rule(2)+", "+rule(3)+`]}`)
	a.refused(blue, "POST", "/v2.0/security-group-rules", one, 409, "OverQuota", over)
	details := ofQuota(a.must(200, blue, "GET", "/v2.0/quotas/blue/details.json", ""))
	for resource, used := range map[string]float64{"security_group": 2, "security_group_rule": 8} {
		if diff := cmp.Diff(map[string]any{"limit": used, "used": used, "reserved": 0.0}, details[resource]); diff != "" {
			t.Errorf("details of %s (-want +got):\n%s", resource, diff)
		}
	}
	a.must(204, blue, "DELETE", "/v2.0/security-group-rules/"+a.list(blue, "security-group-rules", "protocol=tcp", "id")[0], "")
	a.must(201, blue, "POST", "/v2.0/security-group-rules", one)
	a.must(204, blue, "DELETE", "/v2.0/security-groups/"+web, "")
	a.create(blue, "security-group", `{"name": "db"}`)
}

// A group comes with rules, which count: nobody gets more of them by more groups.
func TestQuotaOfRulesHoldsForThoseOfNewGroups(t *testing.T) {
	a := withQuotas(t, sqlite(t), &Quotas{Default: unlimited, Limits: map[string]int{"security_group_rule": 8}})
	const over = "Quota exceeded for resources: ['security_group_rule']."
	group := func(name string) string { return fmt.Sprintf(`{"security_group": {"name": %q}}`, name) }
	a.create(blue, "security-group", `{"name": "web"}`) // two rules, and four of the default group
	db := a.create(blue, "security-group", `{"name": "db"}`)["id"].(string)
	a.refused(blue, "POST", "/v2.0/security-groups", group("dns"), 409, "OverQuota", over)
	a.refused(admin, "POST", "/v2.0/security-groups", `{"security_group": {"name": "dns", "tenant_id": "blue"}}`, 409, "OverQuota", over)
	if got := a.list(blue, "security-groups", "", "name"); len(got) != 3 {
		t.Errorf("groups: %v", got)
	}
	rules := a.list(blue, "security-group-rules", "security_group_id="+db, "id")
	a.must(204, blue, "DELETE", "/v2.0/security-group-rules/"+rules[0], "")
	a.refused(blue, "POST", "/v2.0/security-groups", group("dns"), 409, "OverQuota", over)
	a.must(204, blue, "DELETE", "/v2.0/security-group-rules/"+rules[1], "")
	a.create(blue, "security-group", `{"name": "dns"}`)

	// Two groups together are both made or none.
	a.must(200, admin, "PUT", "/v2.0/quotas/red", `{"quota": {"security_group_rule": 7}}`)
	a.refused(red, "POST", "/v2.0/security-groups", `{"security_groups": [{"name": "one"}, {"name": "two"}]}`, 409, "OverQuota", over)
	if got := a.list(red, "security-groups", "", "name"); len(got) != 1 || got[0] != "default" {
		t.Errorf("groups: %v", got)
	}
	a.create(red, "security-group", `{"name": "one"}`)

	// The default group is made where it is used, whatever the limit.
	a.must(200, admin, "PUT", "/v2.0/quotas/green", `{"quota": {"security_group_rule": 0}}`)
	network := a.create(admin, "network", `{"tenant_id": "green"}`)["id"].(string)
	if p := a.create(admin, "port", fmt.Sprintf(`{"network_id": %q, "tenant_id": "green"}`, network)); len(p["security_groups"].([]any)) != 1 {
		t.Errorf("groups of the port: %v", p["security_groups"])
	}
	a.refused(admin, "POST", "/v2.0/security-groups", `{"security_group": {"name": "web", "tenant_id": "green"}}`, 409, "OverQuota", over)
}

func TestGroupsTogetherAreAllMadeOrNone(t *testing.T) {
	onEach(t, func(t *testing.T, a *api) {
		names := func() string {
			return strings.Join(a.list(blue, "security-groups", "sort_key=name&sort_dir=asc", "name"), " ")
		}
		const path = "/v2.0/security-groups"
		a.refused(blue, "POST", path, `{"security_groups": [{"name": "web"}, {"name": "Default"}]}`, 409, "SecurityGroupDefaultAlreadyExists", "")
		a.refused(blue, "POST", path, `{"security_groups": [{"name": "web"}, {"colour": "red"}]}`, 400, "HTTPBadRequest", "")
		if got := names(); got != "default" {
			t.Errorf("groups after refusals: %q", got)
		}
		made := a.must(201, blue, "POST", path, `{"security_groups": [{"name": "web"}, {"name": "db", "stateful": false}]}`).body["security_groups"].([]any)
		if len(made) != 2 {
			t.Errorf("%d groups were made", len(made))
		}
		if got := names(); got != "db default web" {
			t.Errorf("groups: %q", got)
		}
	})
}

func TestRulesTogetherAreAllMadeOrNone(t *testing.T) {
	onEach(t, func(t *testing.T, a *api) {
		web := a.create(blue, "security-group", `{"name": "web"}`)["id"].(string)
		db := a.create(blue, "security-group", `{"name": "db"}`)["id"].(string)
		rule := func(group, protocol, more string) string {
			return fmt.Sprintf(`{"security_group_id": %q, "direction": "ingress", "protocol": %q%s}`, group, protocol, more)
		}
		post := func(who headers, status int, typ, message string, rules ...string) {
			t.Helper()
			body := `{"security_group_rules": [` + strings.Join(rules, ", ") + `]}`
			if status != 201 {
				a.refused(who, "POST", "/v2.0/security-group-rules", body, status, typ, message)
				return
			}
			if made := a.must(201, who, "POST", "/v2.0/security-group-rules", body).body["security_group_rules"].([]any); len(made) != len(rules) {
				t.Errorf("of %d rules %d were made", len(rules), len(made))
			}
		}
		post(blue, 201, "", "", rule(web, "tcp", ""), rule(web, "udp", ""), rule(web, "icmp", `, "remote_group_id": "`+db+`"`))
		post(blue, 400, "SecurityGroupNotSingleGroupRules", "Only allowed to update rules for one security profile at a time", rule(web, "sctp", ""), rule(db, "sctp", ""))
		post(admin, 400, "SecurityGroupRulesNotSingleTenant", "Multiple tenant_ids in bulk security group rule create not allowed",
			rule(web, "sctp", `, "tenant_id": "blue"`), rule(web, "gre", `, "tenant_id": "red"`))
		post(blue, 409, "SecurityGroupRuleExists", "", rule(web, "sctp", ""), rule(web, "6", ""))
		post(blue, 409, "DuplicateSecurityGroupRuleInPost", "", rule(web, "sctp", ""), rule(web, "132", ""))
		post(blue, 400, "SecurityGroupProtocolRequiredWithPorts", "", rule(web, "sctp", ""),
			fmt.Sprintf(`{"security_group_id": %q, "direction": "ingress", "port_range_min": 1, "port_range_max": 1}`, web))
		post(red, 404, "SecurityGroupNotFound", "", rule(web, "sctp", ""), rule(web, "gre", ""))
		if got := len(a.list(blue, "security-group-rules", "security_group_id="+web, "id")); got != 2+3 {
			t.Errorf("the group has %d rules", got)
		}
	})
}

// Every way in which a rule can be wrong, by the name that Neutron has for it.
func TestWrongRulesAreRefusedByName(t *testing.T) {
	a := newAPI(t)
	web := a.create(blue, "security-group", `{"name": "web"}`)["id"].(string)
	reds := a.create(red, "security-group", `{"name": "web"}`)["id"].(string)
	const nowhere = "5ddc9e3c-4a3e-4a7e-8d3c-9a5e2ba6f3b1"
	a.create(blue, "security-group-rule", fmt.Sprintf(`{"security_group_id": %q, "direction": "ingress", "protocol": "tcp"}`, web))
	for _, c := range []struct {
		attributes, typ string
		status          int
		message         string
	}{
		{`"protocol": 6`, "SecurityGroupRuleExists", 409, ""},
		{`"protocol": "pigeon"`, "SecurityGroupRuleInvalidProtocol", 400, "Security group rule protocol pigeon not supported. Only protocol values " +
			protocolNames + " and integer representations [0 to 255] are supported."},
		{`"protocol": 256`, "SecurityGroupRuleInvalidProtocol", 400, ""},
		{`"ethertype": "IPv5"`, "SecurityGroupRuleInvalidEtherType", 400, "Security group rule for ethertype 'IPv5' not supported. Allowed values are ['IPv4', 'IPv6']."},
		{`"protocol": "icmpv6"`, "SecurityGroupEthertypeConflictWithProtocol", 400, "Invalid ethertype IPv4 for protocol icmpv6."},
		{`"remote_ip_prefix": "fd00::/8"`, "SecurityGroupRuleParameterConflict", 400, "Conflicting value ethertype IPv4 for CIDR fd00::/8"},
		{`"remote_ip_prefix": "10.0.0.0/33"`, "InvalidCIDR", 400, "Invalid CIDR 10.0.0.0/33 given as IP prefix."},
		{`"remote_ip_prefix": "10.0.0.0/8", "remote_group_id": "` + web + `"`, "SecurityGroupMultipleRemoteEntites", 400, "Only one of remote_ip_prefix or remote_group_id or remote_address_group_id may be provided."},
		{`"port_range_min": 80, "port_range_max": 80`, "SecurityGroupProtocolRequiredWithPorts", 400, "Must also specify protocol if port range is given."},
		{`"protocol": "gre", "port_range_min": 80, "port_range_max": 80`, "SecurityGroupInvalidProtocolForPort", 400,
			"Ports cannot be specified for protocol 47. Ports are only supported for DCCP, SCTP, TCP, UDP, UDPLITE."},
		{`"protocol": "ah", "port_range_min": 1`, "SecurityGroupInvalidProtocolForPort", 400, ""},
		{`"protocol": 89, "port_range_max": 1`, "SecurityGroupInvalidProtocolForPort", 400, ""},
		{`"protocol": "hopopt", "port_range_min": 1, "port_range_max": 2`, "SecurityGroupInvalidProtocolForPort", 400, ""},
		{`"protocol": "sctp", "port_range_max": 80`, "SecurityGroupInvalidPortRange", 400, "For TCP/UDP protocols, port_range_min must be <= port_range_max"},
		{`"protocol": 33, "port_range_min": 2, "port_range_max": 1`, "SecurityGroupInvalidPortRange", 400, ""},
		{`"protocol": "udplite", "port_range_min": 0, "port_range_max": 0`, "SecurityGroupInvalidPortValue", 400, "Invalid value for port 0"},
		{`"protocol": "tcp", "port_range_min": "http", "port_range_max": 80`, "SecurityGroupInvalidPortValue", 400, "Invalid value for port http"},
		{`"protocol": "tcp", "port_range_min": 80.5, "port_range_max": 81`, "SecurityGroupInvalidPortValue", 400, ""},
		{`"protocol": -1`, "SecurityGroupRuleInvalidProtocol", 400, ""},
		{`"protocol": ["tcp"]`, "SecurityGroupRuleInvalidProtocol", 400, ""},
		{`"protocol": "ipv6-route"`, "SecurityGroupEthertypeConflictWithProtocol", 400, "Invalid ethertype IPv4 for protocol ipv6-route."},
		{`"protocol": 41`, "SecurityGroupEthertypeConflictWithProtocol", 400, "Invalid ethertype IPv4 for protocol 41."},
		{`"ethertype": null`, "SecurityGroupRuleInvalidEtherType", 400, ""},
		{`"ethertype": "IPv6", "remote_ip_prefix": "10.0.0.0/8"`, "SecurityGroupRuleParameterConflict", 400, "Conflicting value ethertype IPv6 for CIDR 10.0.0.0/8"},
		{`"protocol": "udp", "port_range_min": 81, "port_range_max": 80`, "SecurityGroupInvalidPortRange", 400, ""},
		{`"protocol": "udp", "port_range_min": 80`, "SecurityGroupInvalidPortRange", 400, ""},
		{`"protocol": "udp", "port_range_min": 0, "port_range_max": 80`, "SecurityGroupInvalidPortValue", 400, "Invalid value for port 0"},
		{`"protocol": "udp", "port_range_min": 1, "port_range_max": 65536`, "SecurityGroupInvalidPortValue", 400, "Invalid value for port 65536"},
		{`"protocol": "icmp", "port_range_min": 256`, "SecurityGroupInvalidIcmpValue", 400, "Invalid value for ICMP type (port_range_min) 256. It must be 0 to 255."},
		{`"protocol": "icmp", "port_range_min": 8, "port_range_max": 256`, "SecurityGroupInvalidIcmpValue", 400, ""},
		{`"protocol": "icmp", "port_range_max": 0`, "SecurityGroupMissingIcmpType", 400, ""},
		{`"protocol": "58", "port_range_min": 128`, "SecurityGroupEthertypeConflictWithProtocol", 400, "Invalid ethertype IPv4 for protocol 58."},
		{`"protocol": 58, "ethertype": "IPv6", "port_range_min": 300, "port_range_max": 300`, "SecurityGroupInvalidIcmpValue", 400, "Invalid value for ICMP type (port_range_min) 300. It must be 0 to 255."},
		{`"protocol": "icmp", "ethertype": "IPv6", "port_range_min": 128, "port_range_max": 256`, "SecurityGroupInvalidIcmpValue", 400, "Invalid value for ICMP code (port_range_max) 256. It must be 0 to 255."},
		{`"protocol": "ipv6-icmp", "ethertype": "IPv6", "port_range_max": 58`, "SecurityGroupMissingIcmpType", 400, "ICMP code (port-range-max) 58 is provided but ICMP type (port-range-min) is missing."},
		{`"protocol": 0, "port_range_min": 80, "port_range_max": 80`, "SecurityGroupInvalidProtocolForPort", 400, ""},
		{`"protocol": "any", "port_range_min": 80, "port_range_max": 80`, "SecurityGroupProtocolRequiredWithPorts", 400, ""},
		{`"remote_group_id": "` + reds + `"`, "SecurityGroupNotFound", 404, "Security group " + reds + " does not exist"},
		{`"remote_group_id": "` + nowhere + `"`, "SecurityGroupNotFound", 404, ""},
		{`"remote_group_id": "web"`, "SecurityGroupNotFound", 404, "Security group web does not exist"},
		{`"security_group_id": "web"`, "SecurityGroupNotFound", 404, "Security group web does not exist"},
		{`"remote_group_id": ""`, "HTTPBadRequest", 400, ""},
		{`"security_group_id": "` + reds + `"`, "SecurityGroupNotFound", 404, ""},
		{`"direction": "sideways"`, "HTTPBadRequest", 400, ""},
		{`"colour": "red"`, "HTTPBadRequest", 400, "Unrecognized attribute(s) 'colour'"},
	} {
		body := fmt.Sprintf(`{"security_group_id": %q, "direction": "ingress", %s}`, web, c.attributes)
		a.refused(blue, "POST", "/v2.0/security-group-rules", `{"security_group_rule": `+body+`}`, c.status, c.typ, c.message)
		a.refused(blue, "POST", "/v2.0/security-group-rules", `{"security_group_rules": [`+body+`]}`, c.status, c.typ, c.message)
		if c.status == 400 {
			nobodys := strings.Replace(body, web, nowhere, 1)
			a.refused(blue, "POST", "/v2.0/security-group-rules", `{"security_group_rule": `+nobodys+`}`, 400, c.typ, c.message)
		}
	}
	standard := a.list(blue, "security-groups", "name=default", "id")[0]
	a.refused(blue, "PUT", "/v2.0/security-groups/"+standard, `{"security_group": {"name": "other"}}`, 409, "SecurityGroupCannotUpdateDefault", "Updating default security group not allowed.")
	a.refused(blue, "PUT", "/v2.0/security-groups/"+web, `{"security_group": {"name": "default"}}`, 409, "SecurityGroupDefaultAlreadyExists", "")
	rule := a.list(blue, "security-group-rules", "protocol=tcp", "id")[0]
	a.refused(blue, "PUT", "/v2.0/security-group-rules/"+rule, `{"security_group_rule": {"protocol": "udp"}}`, 400, "HTTPBadRequest", "")
	for _, method := range []string{"GET", "DELETE"} {
		a.refused(red, method, "/v2.0/security-group-rules/"+rule, "", 404, "SecurityGroupRuleNotFound", "Security group rule "+rule+" does not exist")
		a.refused(red, method, "/v2.0/security-groups/"+web, "", 404, "SecurityGroupNotFound", "")
	}
}

func TestGroupsAndRulesAreFiltered(t *testing.T) {
	a := newAPI(t)
	web := a.create(blue, "security-group", `{"name": "web", "description": "servers"}`)["id"].(string)
	db := a.create(blue, "security-group", `{"name": "db", "stateful": false}`)["id"].(string)
	a.create(red, "security-group", `{"name": "web"}`)
	for query, want := range map[string]string{
		"name=web": "web", "name=web&name=db": "db web", "description=servers": "web", "id=" + db: "db", "stateful=false": "db", "stateful=True": "default web", "shared=true": "", "shared=false": "db default web",
		"project_id=blue": "db default web", "tenant_id=red": "", "name=nothing": "",
	} {
		if got := strings.Join(a.list(blue, "security-groups", query+"&sort_key=name&sort_dir=asc", "name"), " "); got != want {
			t.Errorf("groups with %s: %q, want %q", query, got, want)
		}
	}
	add := func(description, attributes string) {
		a.create(blue, "security-group-rule", fmt.Sprintf(`{"security_group_id": %q, "description": %q, %s}`, web, description, attributes))
	}
	add("http", `"direction": "ingress", "protocol": "tcp", "port_range_min": 80, "port_range_max": 88, "remote_ip_prefix": "10.0.0.0/8"`)
	add("sql", `"direction": "egress", "protocol": "tcp", "port_range_min": 5432, "port_range_max": 5432, "remote_group_id": "`+db+`"`)
	add("ping6", `"direction": "ingress", "protocol": "ipv6-icmp", "ethertype": "IPv6", "port_range_min": 128`)
	for query, want := range map[string]string{
		"direction=ingress": "http ping6", "direction=egress&protocol=tcp": "sql", "ethertype=IPv6&direction=ingress": "ping6", "protocol=tcp": "http sql",
		"port_range_min=80": "http", "port_range_max=5432": "sql", "remote_ip_prefix=10.0.0.0/8": "http", "remote_ip_prefix=10.1.2.3/8": "", "remote_group_id=" + db: "sql",
		"description=http&description=sql": "http sql", "belongs_to_default_sg=true&protocol=tcp": "", "tenant_id=red": "",
	} {
		list := a.list(blue, "security-group-rules", "security_group_id="+web+"&"+query, "description")
		slices.Sort(list)
		if got := strings.TrimSpace(strings.Join(list, " ")); got != want {
			t.Errorf("rules with %s: %q, want %q", query, got, want)
		}
	}
	add("far", `"direction": "ingress", "protocol": "udp", "remote_ip_prefix": "172.16.9.9/12"`)
	add("near", `"direction": "ingress", "protocol": "udp", "remote_ip_prefix": "10.9.9.9/16"`)
	for query, want := range map[string]string{
		"normalized_cidr=172.16.0.0/12": "far", "normalized_cidr=172.16.9.9/12": "", "normalized_cidr=10.9.0.0/16&normalized_cidr=10.0.0.0/8": "http near",
		"protocol=udp&sort_key=normalized_cidr&sort_dir=asc": "near far", "protocol=udp&sort_key=normalized_cidr&sort_dir=desc": "far near",
	} {
		list := a.list(blue, "security-group-rules", "security_group_id="+web+"&"+query, "description")
		if !strings.Contains(query, "sort_key") {
			slices.Sort(list)
		}
		if got := strings.Join(list, " "); got != want {
			t.Errorf("rules with %s: %q, want %q", query, got, want)
		}
	}
	r := a.must(200, blue, "GET", "/v2.0/security-groups?fields=id&fields=name&name=web", "")
	if diff := cmp.Diff([]any{map[string]any{"id": web, "name": "web"}}, r.body["security_groups"]); diff != "" {
		t.Errorf("chosen fields (-want +got):\n%s", diff)
	}
}

// What looks at groups, or at their rules, finds the default one of its project,
// and makes none for others.
func TestDefaultGroupIsThereForWhoeverLooks(t *testing.T) {
	a := newAPI(t)
	reader := headers{"X-Project-Id": "green", "X-Roles": "reader"}
	for _, c := range []struct {
		who           headers
		path, project string
	}{
		{admin, "security-groups?tenant_id=one&fields=id&fields=name", "one"},
		{admin, "security-groups?project_id=two", "two"},
		{admin, "security-group-rules?tenant_id=three", "three"},
		{headers{"X-Project-Id": "four", "X-Roles": "admin"}, "security-groups", "four"},
		{blue, "security-groups?name=default", "blue"},
		{red, "security-group-rules?direction=ingress", "red"},
		{reader, "security-groups", "green"},
	} {
		path, query, _ := strings.Cut(c.path, "?")
		if got := a.list(c.who, path, query, "id"); len(got) == 0 {
			t.Errorf("GET %s shows nothing", c.path)
		}
		if got := a.list(admin, "security-groups", "project_id="+c.project, "name"); !cmp.Equal(got, []string{"default"}) {
			t.Errorf("after GET %s the groups of %s are %v", c.path, c.project, got)
		}
	}
	if got := a.list(blue, "security-groups", "tenant_id=other", "id"); len(got) != 0 {
		t.Errorf("blue sees the groups %v of another project", got)
	}
	if got := a.list(admin, "security-groups", "", "project_id"); slices.Contains(got, "other") || len(got) != 7 {
		t.Errorf("projects with groups: %v", got)
	}
}

// Ports are looked at before rights: nobody can delete a default group in use.
func TestDefaultGroupIsDeletedByAdministratorsWhenNoPortHasIt(t *testing.T) {
	a := newAPI(t)
	net := a.network(blue, "")
	a.subnet(blue, net, "10.0.0.0/24", "")
	port := a.port(blue, net, "")
	path := "/v2.0/security-groups/" + a.list(blue, "security-groups", "", "id")[0]
	for _, who := range []headers{blue, admin} {
		a.refused(who, "DELETE", path, "", 409, "SecurityGroupInUse", "")
	}
	a.must(204, blue, "DELETE", "/v2.0/ports/"+port, "")
	a.refused(blue, "DELETE", path, "", 409, "SecurityGroupCannotRemoveDefault", "")
	a.refused(blue, "PUT", path, `{"security_group": {"name": "default"}}`, 409, "SecurityGroupCannotUpdateDefault", "")
	a.must(200, blue, "PUT", path, `{"security_group": {"description": "for all"}}`)
	a.must(204, admin, "DELETE", path, "")
}

// Administrators may use one project's groups for another, on ports and in rules;
// its members see what is theirs.
func TestAdministratorsMayMixGroupsOfProjects(t *testing.T) {
	a := newAPI(t)
	net := a.network(blue, "")
	a.subnet(blue, net, "10.0.0.0/24", "")
	blues := a.create(blue, "security-group", `{"name": "web"}`)["id"].(string)
	reds := a.create(red, "security-group", `{"name": "web"}`)["id"].(string)
	with := func(group string) string { return fmt.Sprintf(`{"port": {"security_groups": [%q]}}`, group) }
	port := a.port(blue, net, "")
	a.refused(blue, "PUT", "/v2.0/ports/"+port, with(reds), 404, "SecurityGroupNotFound", "Security group "+reds+" does not exist")
	a.refused(blue, "POST", "/v2.0/ports", fmt.Sprintf(`{"port": {"network_id": %q, "security_groups": [%q]}}`, net, reds), 404, "SecurityGroupNotFound", "")
	a.must(200, admin, "PUT", "/v2.0/ports/"+port, with(reds))
	a.must(201, admin, "POST", "/v2.0/ports", fmt.Sprintf(`{"port": {"network_id": %q, "tenant_id": "blue", "security_groups": [%q, %q]}}`, net, reds, blues))
	if got := a.show(blue, "port", port)["security_groups"]; !cmp.Equal(got, any([]any{reds})) {
		t.Errorf("groups of the port: %v", got)
	}
	a.refused(blue, "GET", "/v2.0/security-groups/"+reds, "", 404, "SecurityGroupNotFound", "")
	a.put(blue, "port", port, `{"name": "still"}`)
	a.refused(red, "DELETE", "/v2.0/security-groups/"+reds, "", 409, "SecurityGroupInUse", "")

	// A rule that an administrator adds to a tenant's group is that tenant's to delete.
	rule := a.create(admin, "security-group-rule", fmt.Sprintf(
		`{"security_group_id": %q, "direction": "ingress", "remote_group_id": %q, "tenant_id": "operators"}`, blues, reds))["id"].(string)
	if got := a.list(blue, "security-group-rules", "remote_group_id="+reds, "project_id"); !cmp.Equal(got, []string{"operators"}) {
		t.Errorf("projects of the rules that blue sees: %v", got)
	}
	a.refused(red, "DELETE", "/v2.0/security-group-rules/"+rule, "", 404, "SecurityGroupRuleNotFound", "")
	a.must(204, blue, "DELETE", "/v2.0/security-group-rules/"+rule, "")
}

// Every protocol by its name and by its number: who has ports, whose name is for
// IPv6 alone, and that both are the same rule.
func TestRulesNameProtocolsAsNeutronDoes(t *testing.T) {
	a := newAPI(t)
	web := a.create(blue, "security-group", `{"name": "web"}`)["id"].(string)
	for _, c := range []struct {
		name   string
		number int
		only6  bool
		ports  string // that a rule for it may have
	}{
		{name: "ah", number: 51}, {name: "dccp", number: 33, ports: "1 2"}, {name: "egp", number: 8}, {name: "esp", number: 50}, {name: "gre", number: 47},
		{name: "icmp", number: 1, ports: "3 4"}, {name: "igmp", number: 2}, {name: "ipip", number: 4}, {name: "ospf", number: 89}, {name: "pgm", number: 113},
		{name: "rsvp", number: 46}, {name: "sctp", number: 132, ports: "7 7"}, {name: "tcp", number: 6, ports: "1 65534"}, {name: "udp", number: 17, ports: "65535 65535"},
		{name: "udplite", number: 136, ports: "1 2"}, {name: "vrrp", number: 112},
		{name: "ipv6-encap", number: 41, only6: true}, {name: "ipv6-frag", number: 44, only6: true}, {name: "ipv6-icmp", number: 58, only6: true, ports: "128 0"},
		{name: "ipv6-nonxt", number: 59, only6: true}, {name: "ipv6-opts", number: 60, only6: true}, {name: "ipv6-route", number: 43, only6: true},
	} {
		ethertype := "IPv4"
		if c.only6 {
			ethertype = "IPv6"
		}
		body := func(protocol, ports string) string {
			text := fmt.Sprintf(`{"security_group_id": %q, "direction": "ingress", "ethertype": %q, "protocol": %s`, web, ethertype, protocol)
			if low, high, some := strings.Cut(ports, " "); some {
				text += fmt.Sprintf(`, "port_range_min": %s, "port_range_max": %s`, low, high)
			}
			return text + "}"
		}
		name, number := fmt.Sprintf("%q", strings.ToUpper(c.name)), fmt.Sprint(c.number)
		for _, ports := range slices.Compact([]string{"", c.ports}) {
			r := a.create(blue, "security-group-rule", body(name, ports))
			if r["protocol"] != c.name {
				t.Errorf("protocol %s is shown as %v", name, r["protocol"])
			}
			a.refused(blue, "POST", "/v2.0/security-group-rules", `{"security_group_rule": `+body(number, ports)+`}`, 409, "SecurityGroupRuleExists",
				fmt.Sprintf("Security group rule already exists. Rule id is %v.", r["id"]))
			a.must(204, blue, "DELETE", fmt.Sprint("/v2.0/security-group-rules/", r["id"]), "")
			if r := a.create(blue, "security-group-rule", body(number, ports)); r["protocol"] != number {
				t.Errorf("protocol %s is shown as %v", number, r["protocol"])
			}
		}
		if c.ports == "" {
			a.refused(blue, "POST", "/v2.0/security-group-rules", `{"security_group_rule": `+body(name, "1 2")+`}`, 400, "SecurityGroupInvalidProtocolForPort", "")
		}
	}
}

// Neutron shows rules in a form of its own, by which it also finds equal ones.
func TestRulesHaveOneForm(t *testing.T) {
	a := newAPI(t)
	web := a.create(blue, "security-group", `{"name": "web"}`)["id"].(string)
	for _, c := range []struct{ given, protocol, ports, again string }{
		{`"protocol": "any", "remote_ip_prefix": "10.0.0.1"`, "<nil>", "<nil> <nil>", `"remote_ip_prefix": "10.0.0.1/32"`},
		{`"protocol": "tcp", "port_range_min": 1, "port_range_max": 65535`, "tcp", "<nil> <nil>", `"protocol": 6`},
		{`"protocol": 17, "port_range_min": 1, "port_range_max": 65534`, "17", "1 65534", `"protocol": "UDP", "port_range_min": "1", "port_range_max": "65534"`},
		{`"protocol": "icmp", "ethertype": "ipv6"`, "ipv6-icmp", "<nil> <nil>", `"protocol": 58, "ethertype": "IPv6"`},
		{`"protocol": 1, "ethertype": "IPv6", "port_range_min": 128`, "58", "128 <nil>", `"protocol": "icmpv6", "ethertype": "IPv6", "port_range_min": 128`},
		{`"protocol": "icmp", "port_range_min": 0, "port_range_max": 0`, "icmp", "0 0", `"protocol": "1", "port_range_min": 0, "port_range_max": 0`},
		{`"remote_ip_prefix": "0.0.0.0/0"`, "<nil>", "<nil> <nil>", `"protocol": null`},
	} {
		body := func(rule string) string {
			return fmt.Sprintf(`{"security_group_id": %q, "direction": "ingress", %s}`, web, rule)
		}
		both := fmt.Sprintf(`{"security_group_rules": [%s, %s]}`, body(c.given), body(c.again))
		a.refused(blue, "POST", "/v2.0/security-group-rules", both, 409, "DuplicateSecurityGroupRuleInPost", "")
		r := a.create(blue, "security-group-rule", body(c.given))
		if got := fmt.Sprint(r["protocol"]); got != c.protocol {
			t.Errorf("protocol of a rule with %s: %s, want %s", c.given, got, c.protocol)
		}
		if got := fmt.Sprint(r["port_range_min"], r["port_range_max"]); got != c.ports {
			t.Errorf("ports of a rule with %s: %s, want %s", c.given, got, c.ports)
		}
		a.refused(blue, "POST", "/v2.0/security-group-rules", `{"security_group_rule": `+body(c.again)+`}`, 409, "SecurityGroupRuleExists", "")
	}
}
