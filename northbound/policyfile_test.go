package northbound

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// policyFile is a file that a test changes.
func policyFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "policy.json")
	writePolicy(t, path, text)
	return path
}

// writePolicy replaces a file in one step, as an editor does.
func writePolicy(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path+"~", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+"~", path); err != nil {
		t.Fatal(err)
	}
}

func withPolicy(t *testing.T, path string) *api {
	t.Helper()
	return newAPIOn(t, sqlite(t), Options{PolicyFile: path})
}

func TestPolicyOfTheGuide(t *testing.T) {
	a := withPolicy(t, "testdata/guide_policy.json")
	own := a.network(blue, "")
	shared := a.network(admin, `"tenant_id": "red", "shared": true`)
	other := a.network(red, "")
	a.must(403, blue, "POST", "/v2.0/networks", `{"network": {"shared": true}}`)
	a.must(404, blue, "GET", "/v2.0/networks/"+other, "")
	a.must(200, blue, "GET", "/v2.0/networks/"+shared, "")
	a.must(403, blue, "PUT", "/v2.0/networks/"+shared, `{"network": {"name": "x"}}`)
	a.subnet(blue, own, "10.0.0.0/24", "")
	a.must(403, blue, "POST", "/v2.0/subnets", fmt.Sprintf(`{"subnet": {"network_id": %q, "cidr": "10.1.0.0/24", "ip_version": 4}}`, shared))
	a.port(blue, own, `, "mac_address": "fa:16:3e:00:00:01", "fixed_ips": [{"ip_address": "10.0.0.9"}]`)
	a.subnet(red, shared, "10.1.0.0/24", "")
	a.port(blue, shared, "")
	a.must(403, blue, "POST", "/v2.0/ports", fmt.Sprintf(`{"port": {"network_id": %q, "mac_address": "fa:16:3e:00:00:02"}}`, shared))
	a.must(403, blue, "POST", "/v2.0/ports", fmt.Sprintf(`{"port": {"network_id": %q, "fixed_ips": [{"ip_address": "10.1.0.9"}]}}`, shared))
	a.port(red, shared, `, "mac_address": "fa:16:3e:00:00:02"`)
	// Any role will do, as at the time of the guide.
	a.network(headers{"X-Project-Id": "blue", "X-Roles": "Member-of-old"}, "")
}

func TestPolicyOfTheGuideForNetworksOnly(t *testing.T) {
	a := withPolicy(t, "testdata/guide_policy_admin.json")
	n := a.network(blue, "")
	a.refused(blue, "POST", "/v2.0/subnets", fmt.Sprintf(`{"subnet": {"network_id": %q, "cidr": "10.1.0.0/24", "ip_version": 4}}`, n), 403, "PolicyNotAuthorized", "")
	a.refused(blue, "POST", "/v2.0/ports", fmt.Sprintf(`{"port": {"network_id": %q}}`, n), 403, "PolicyNotAuthorized", "rule:create_port is disallowed by policy")
	p := a.port(admin, n, `, "tenant_id": "blue"`)
	a.must(200, blue, "GET", "/v2.0/ports/"+p, "")
	a.refused(blue, "PUT", "/v2.0/ports/"+p, `{"port": {"name": "x"}}`, 403, "PolicyNotAuthorized", "")
	a.refused(blue, "DELETE", "/v2.0/ports/"+p, "", 403, "PolicyNotAuthorized", "")
	a.must(204, blue, "DELETE", "/v2.0/networks/"+a.network(blue, ""), "")
}

func TestPolicyOfListsLeavesWhatItDoesNotNameToItsDefault(t *testing.T) {
	old := headers{"X-Project-Id": "blue", "X-Roles": "Member-of-old"}
	router, group := `{"router": {}}`, `{"security_group": {"name": "web"}}`
	owners := withPolicy(t, "testdata/guide_policy.json")
	id := owners.must(201, old, "POST", "/v2.0/routers", router).body["router"].(map[string]any)["id"].(string)
	owners.must(404, headers{"X-Project-Id": "red", "X-Roles": "Member-of-old"}, "GET", "/v2.0/routers/"+id, "")
	owners.must(201, old, "POST", "/v2.0/security-groups", group)

	admins := withPolicy(t, policyFile(t, `{"admin_only": [["role:admin"]], "default": [["rule:admin_only"]], "create_network": [], "get_network": [["tenant_id:%(tenant_id)s"]]}`))
	admins.network(old, "")
	admins.must(403, blue, "POST", "/v2.0/routers", router)
	admins.must(403, blue, "POST", "/v2.0/security-groups", group)
	admins.must(201, admin, "POST", "/v2.0/routers", router)

	// Today's rules are in place of single ones.
	strings := withPolicy(t, policyFile(t, `{"default": "role:admin", "create_network": "role:admin"}`))
	strings.must(403, blue, "POST", "/v2.0/networks", `{"network": {}}`)
	strings.must(201, blue, "POST", "/v2.0/routers", router)
}

func TestPolicyFileIsReadAgainWhenItChanges(t *testing.T) {
	path := policyFile(t, `{"create_network": "rule:admin_only"}`)
	var log syncBuffer
	a := newAPIOn(t, sqlite(t), Options{PolicyFile: path, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	create := func() int { return a.send(blue, "POST", "/v2.0/networks", `{"network": {}}`).status }
	if got := create(); got != 403 {
		t.Fatalf("status %d under the first file", got)
	}
	writePolicy(t, path, `{"create_network": "@"}`)
	eventually(t, "the second file to be read", func() bool { return create() == 201 })
	for _, broken := range []string{`{"create_network": "!"`, `{"create_network": "rule:create_network"}`, `{"create_network": 1}`} {
		before := strings.Count(log.String(), "is broken")
		writePolicy(t, path, broken)
		eventually(t, "the broken file to be noticed", func() bool { create(); return strings.Count(log.String(), "is broken") > before })
		if got := create(); got != 201 {
			t.Errorf("%s: status %d", broken, got)
		}
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	time.Sleep(2 * policyInterval)
	if got := create(); got != 201 {
		t.Errorf("status %d without the file", got)
	}
	writePolicy(t, path, `{"create_network": "!"}`)
	eventually(t, "the file to be read that came back", func() bool { return create() == 403 })
	if !strings.Contains(log.String(), "policy read again") || !strings.Contains(log.String(), path) {
		t.Errorf("log:\n%s", log.String())
	}
}

func TestPolicyIsReadAgainOnDemand(t *testing.T) {
	path := policyFile(t, `{"x": "@"}`)
	s, err := newPolicySource(path, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	before := s.current.Load()
	s.refresh(false)
	if s.current.Load() != before {
		t.Error("a file that did not change was read again")
	}
	s.refresh(true)
	if s.current.Load() == before {
		t.Error("the file was not read again")
	}
}

func TestBadPolicyFileStopsTheStart(t *testing.T) {
	for text, says := range map[string]string{
		`{"a": "role:x"`:                 "line 1",
		"{\n\"a\": \"role:x\",\n}":       "line 3",
		`{"a": "magic:x"}`:               `policy "a"`,
		`{"a": [["role:x", 3]]}`:         "not a check",
		`{"a": [["role:x", ""]]}`:        "not a check",
		`{"a": {"b": 1}}`:                "neither a string nor a list",
		`["role:x"]`:                     "policy file",
		"a: [unclosed":                   "policy file",
		`{"a": "rule:b", "b": "rule:a"}`: "refers to itself",
		`{"default": "rule:nobody"}`:     "refers to itself",
	} {
		path := policyFile(t, text)
		if _, err := newPolicySource(path, slog.Default()); err == nil || !strings.Contains(err.Error(), says) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", text, err)
		}
	}
	if _, err := newPolicySource("/nonexistent", slog.Default()); err == nil {
		t.Error("a missing file is no error")
	}
}

func TestPolicyFilesOfEachForm(t *testing.T) {
	member := &Identity{ProjectID: "p", Roles: []string{"member"}}
	object := testTarget{"project_id": "p", "network_project_id": "q"}
	for text, want := range map[string]bool{
		`{"it": []}`:                true,
		`{"it": [[]]}`:              false,
		`{"it": ""}`:                true,
		`{"it": [["role:member"]]}`: true,
		`{"it": ["role:member"]}`:   true,
		`{"it": [["role:admin", "role:member"], ["role:x"]]}`:          false,
		`{"it": [["role:admin"], ["role:member"]]}`:                    true,
		`{"it": [["tenant_id:%(network_tenant_id)s"]]}`:                false,
		`{"it": [["tenant_id:%(tenant_id)s", "not role:admin or !"]]}`: true,
		"it: role:member and not role:admin\n":                         true,
		"# a comment\n\"it\": \"rule:admin_only\"\n":                   false,
		"\"it\": \"(role:member) and\n  project_id:%(project_id)s\"":   true,
		"it:\n- [role:admin]\n- [role:member]\n":                       true,
		"":                                                             false,
	} {
		f, err := parsePolicyFile([]byte(text))
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		f.rules["admin_only"], f.rules["default"] = "role:admin", "!"
		p, err := newPolicy(f.rules)
		if err != nil || p.allows("it", member, object) != want {
			t.Errorf("%s: %v, want %v", text, err, want)
		}
	}
}

func TestPolicyFileHidesAttributes(t *testing.T) {
	a := withPolicy(t, policyFile(t, `{
		"get_network:provider:segmentation_id": "role:operator",
		"get_network:mtu": "rule:admin_only",
		"get_port:binding:host_id": "@",
		"update_network:shared": "role:operator"
	}`))
	n := a.network(blue, "")
	operator := headers{"X-Project-Id": "blue", "X-Roles": "member,operator"}
	has := func(who headers, kind, id, attribute string) bool {
		_, ok := a.show(who, kind, id)[attribute]
		return ok
	}
	p := a.port(blue, n, "")
	for _, c := range []struct {
		who             headers
		kind, attribute string
		want            bool
	}{
		{blue, "network", "provider:segmentation_id", false}, {admin, "network", "provider:segmentation_id", false},
		{operator, "network", "provider:segmentation_id", true}, {blue, "network", "mtu", false}, {admin, "network", "mtu", true},
		{blue, "port", "binding:host_id", true}, {blue, "port", "binding:vif_type", false},
	} {
		id := map[string]string{"network": n, "port": p}[c.kind]
		if got := has(c.who, c.kind, id, c.attribute); got != c.want {
			t.Errorf("%v sees %s: %v", c.who, c.attribute, got)
		}
	}
	a.refused(blue, "PUT", "/v2.0/networks/"+n, `{"network": {"shared": true}}`, 403, "PolicyNotAuthorized", "")
	a.must(200, operator, "PUT", "/v2.0/networks/"+n, `{"network": {"shared": true}}`)
}

// TestReadersChangeNothing is Neutron's default: a reader of a project sees what
// it owns, a member changes it too.
func TestReadersChangeNothing(t *testing.T) {
	a := newTenants(t)
	reader := headers{"X-Project-Id": "blue", "X-Roles": "reader"}
	nobody := headers{"X-Project-Id": "blue", "X-Roles": "nothing-special"}
	for _, name := range []string{"network", "subnet", "port"} {
		path := "/v2.0/" + name + "s/" + a.own[name]
		a.must(200, reader, "GET", path, "")
		a.must(404, nobody, "GET", path, "")
		a.refused(reader, "PUT", path, `{"`+name+`": {"name": "x"}}`, 403, "PolicyNotAuthorized", "rule:update_"+name+" is disallowed by policy")
		a.refused(reader, "DELETE", path, "", 403, "PolicyNotAuthorized", "")
		a.refused(reader, "PUT", path+"/tags/x", "", 403, "PolicyNotAuthorized", "")
	}
	for name, body := range map[string]string{
		"network": `{}`, "router": `{}`, "security-group": `{"name": "x"}`,
		"subnet":     fmt.Sprintf(`{"network_id": %q, "cidr": "10.9.0.0/24", "ip_version": 4}`, a.own["network"]),
		"port":       fmt.Sprintf(`{"network_id": %q}`, a.shared["network"]),
		"floatingip": fmt.Sprintf(`{"floating_network_id": %q}`, a.external["network"]),
	} {
		key := strings.ReplaceAll(name, "-", "_")
		for _, who := range []headers{reader, nobody} {
			a.must(403, who, "POST", "/v2.0/"+name+"s", `{"`+key+`": `+body+`}`)
		}
	}
}
