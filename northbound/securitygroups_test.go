package northbound

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

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
		"": {standard}, `, "security_groups": null`: {standard}, `, "security_groups": []`: {},
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
