package northbound

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"planck/test/pg"
)

func withQuotas(t testing.TB, dsn string, o *Quotas) *api {
	t.Helper()
	return newAPIOn(t, dsn, Options{Quotas: o})
}

func ofQuota(r reply) map[string]any { return r.body["quota"].(map[string]any) }

func TestQuotaLimitsWhatAProjectOwns(t *testing.T) {
	a := withQuotas(t, sqlite(t), &Quotas{Default: unlimited, Limits: map[string]int{"network": 2, "port": 3, "subnet": 1, "router": 1, "floatingip": 1}})
	n := a.network(blue, "")
	a.network(blue, "")
	a.refused(blue, "POST", "/v2.0/networks", `{"network": {}}`, 409, "OverQuota", "Quota exceeded for resources: ['network'].")
	a.refused(admin, "POST", "/v2.0/networks", `{"network": {"tenant_id": "blue"}}`, 409, "OverQuota", "")
	a.network(red, "")
	a.network(admin, "")
	a.subnet(blue, n, "10.0.0.0/24", `, "enable_dhcp": false`)
	a.refused(blue, "POST", "/v2.0/subnets", fmt.Sprintf(`{"subnet": {"network_id": %q, "cidr": "10.0.1.0/24", "ip_version": 4}}`, n), 409, "OverQuota", "Quota exceeded for resources: ['subnet'].")
	three := fmt.Sprintf(`{"ports": [{"network_id": %[1]q}, {"network_id": %[1]q}, {"network_id": %[1]q}]}`, n)
	p := a.port(blue, n, "")
	a.refused(blue, "POST", "/v2.0/ports", three, 409, "OverQuota", "Quota exceeded for resources: ['port'].")
	a.must(204, blue, "DELETE", "/v2.0/ports/"+p, "")
	a.must(201, blue, "POST", "/v2.0/ports", three)
	a.router(blue, "")
	a.refused(blue, "POST", "/v2.0/routers", `{"router": {}}`, 409, "OverQuota", "Quota exceeded for resources: ['router'].")
	external := a.external("172.24.4.0/24")
	a.floatingIP(blue, external, "")
	a.refused(blue, "POST", "/v2.0/floatingips", fmt.Sprintf(`{"floatingip": {"floating_network_id": %q}}`, external), 409, "OverQuota", "")
}

func TestQuotaCalls(t *testing.T) {
	a := withQuotas(t, sqlite(t), &Quotas{Default: 7, Limits: map[string]int{"network": 2, "port": -5}})
	defaults := map[string]any{"network": 2.0, "subnet": 7.0, "port": -1.0, "router": 7.0, "floatingip": 7.0,
		"security_group": 7.0, "security_group_rule": 7.0, "subnetpool": 7.0}
	for _, path := range []string{"/v2.0/quotas/blue", "/v2.0/quotas/blue/default", "/v2.0/quotas/blue.json", "/v2.0/quotas/blue/default.json"} {
		for _, who := range []headers{admin, blue} {
			if diff := cmp.Diff(defaults, ofQuota(a.must(200, who, "GET", path, ""))); diff != "" {
				t.Errorf("%s (-want +got):\n%s", path, diff)
			}
		}
		a.refused(red, "GET", path, "", 403, "PolicyNotAuthorized", "rule:get_quota is disallowed by policy")
	}
	if r := a.must(200, blue, "GET", "/v2.0/quotas/tenant", ""); r.raw != `{"tenant":{"project_id":"blue","tenant_id":"blue"}}` {
		t.Errorf("/quotas/tenant: %s", r.raw)
	}
	a.refused(admin, "GET", "/v2.0/quotas/tenant", "", 400, "QuotaMissingTenant", "Tenant-id was missing from quota request.")
	a.refused(admin, "POST", "/v2.0/quotas", "{}", 501, "HTTPNotImplemented", "")

	changed := ofQuota(a.must(200, admin, "PUT", "/v2.0/quotas/blue", `{"quota": {"network": 1, "port": "3"}}`))
	if changed["network"] != 1.0 || changed["port"] != 3.0 || changed["subnet"] != 7.0 {
		t.Errorf("after PUT: %v", changed)
	}
	a.must(200, admin, "PUT", "/v2.0/quotas/blue", `{"quota": {"subnet": 0}}`)
	want := []any{map[string]any{"tenant_id": "blue", "project_id": "blue", "network": 1.0, "subnet": 0.0, "port": 3.0, "router": 7.0, "floatingip": 7.0,
		"security_group": 7.0, "security_group_rule": 7.0, "subnetpool": 7.0}}
	if diff := cmp.Diff(want, a.must(200, admin, "GET", "/v2.0/quotas", "").body["quotas"]); diff != "" {
		t.Errorf("list (-want +got):\n%s", diff)
	}
	a.network(blue, "")
	a.refused(blue, "POST", "/v2.0/networks", `{"network": {}}`, 409, "OverQuota", "")
	a.refused(red, "GET", "/v2.0/quotas/blue/details", "", 403, "AdminRequired",
		"User does not have admin privileges: Only admin is authorized to access quotas for another project.")
	a.must(200, admin, "GET", "/v2.0/quotas/blue/details", "")
	details := ofQuota(a.must(200, blue, "GET", "/v2.0/quotas/blue/details.json", ""))
	if diff := cmp.Diff(map[string]any{"limit": 1.0, "used": 1.0, "reserved": 0.0}, details["network"]); diff != "" {
		t.Errorf("details (-want +got):\n%s", diff)
	}
	a.refused(admin, "PUT", "/v2.0/quotas/blue", `{"quota": {"network": 0, "check_limit": true}}`, 400, "HTTPBadRequest",
		"Quota limit 0 for network must be greater than or equal to already used 1")
	a.must(200, admin, "PUT", "/v2.0/quotas/blue", `{"quota": {"network": 0, "force": true}}`)
	a.must(200, admin, "PUT", "/v2.0/quotas/blue", `{"quota": {"network": -1}}`)
	a.network(blue, "")

	for _, c := range []struct{ body, typ string }{
		{`{}`, "BadRequest"}, {`{"quota": []}`, "BadRequest"}, {`{"quota": {"elephant": 1}}`, "HTTPBadRequest"},
		{`{"quota": {"tenant_id": "x"}}`, "HTTPBadRequest"}, {`{"quota": {"network": -2}}`, "HTTPBadRequest"},
		{`{"quota": {"network": 2147483648}}`, "HTTPBadRequest"}, {`{"quota": {"network": null}}`, "InvalidInput"},
		{`{"quota": {"network": "many"}}`, "InvalidInput"}, {`{"quota": {"network": [1]}}`, "InvalidInput"}, {`{"quota": {"force": "x"}}`, "InvalidInput"},
	} {
		a.refused(admin, "PUT", "/v2.0/quotas/blue", c.body, 400, c.typ, "")
	}
	a.refused(admin, "PUT", "/v2.0/quotas/"+strings.Repeat("x", 256), `{"quota": {"network": 1}}`, 400, "BadRequest", "")
	for _, method := range []string{"PUT", "DELETE"} {
		a.refused(blue, method, "/v2.0/quotas/blue", `{"quota": {"network": 99}}`, 403, "PolicyNotAuthorized", "")
	}
	a.refused(blue, "GET", "/v2.0/quotas", "", 403, "PolicyNotAuthorized", "")
	a.must(204, admin, "DELETE", "/v2.0/quotas/blue", "")
	a.refused(admin, "DELETE", "/v2.0/quotas/blue", "", 404, "TenantQuotaNotFound", "Quota for tenant blue could not be found.")
	if diff := cmp.Diff(defaults, ofQuota(a.must(200, blue, "GET", "/v2.0/quotas/blue", ""))); diff != "" {
		t.Errorf("after DELETE (-want +got):\n%s", diff)
	}
	for _, e := range quotaExtensions {
		a.must(200, blue, "GET", "/v2.0/extensions/"+e.alias, "")
	}
}

func TestConfDriverHasTheSameQuotaForAll(t *testing.T) {
	a := withQuotas(t, sqlite(t), &Quotas{Fixed: true, Default: unlimited, Limits: map[string]int{"network": 1}, Off: []string{"subnet"}})
	a.refused(admin, "PUT", "/v2.0/quotas/blue", `{"quota": {"network": 5}}`, 403, "HTTPForbidden", "")
	a.refused(admin, "DELETE", "/v2.0/quotas/blue", "", 403, "HTTPForbidden", "")
	a.must(404, admin, "GET", "/v2.0/extensions/quotas", "")
	shown := ofQuota(a.must(200, blue, "GET", "/v2.0/quotas/blue", ""))
	if _, ok := shown["subnet"]; ok || shown["network"] != 1.0 {
		t.Errorf("shown: %v", shown)
	}
	a.network(blue, "")
	a.refused(blue, "POST", "/v2.0/networks", `{"network": {}}`, 409, "OverQuota", "")
}

// TestQuotaIsExactWhenManyCreateAtOnce lets many clients race, of one
// controller and of two that share a database.
func TestQuotaIsExactWhenManyCreateAtOnce(t *testing.T) {
	limits := &Quotas{Default: unlimited, Limits: map[string]int{"network": 10}}
	t.Run("SQLite", func(t *testing.T) {
		race(t, withQuotas(t, sqlite(t), limits))
	})
	t.Run("two controllers on PostgreSQL", func(t *testing.T) {
		dsn := pg.Start(t)
		race(t, withQuotas(t, dsn, limits), withQuotas(t, dsn, limits))
	})
}

// race sends 50 requests at once, half of them for two networks.
func race(t *testing.T, servers ...*api) {
	t.Helper()
	var wg sync.WaitGroup
	for i := range 50 {
		a := servers[i%len(servers)]
		body := `{"network": {}}`
		if i%4 > 1 {
			body = `{"networks": [{}, {}]}`
		}
		wg.Go(func() {
			if r := a.send(blue, "POST", "/v2.0/networks", body); r.status != 201 && !strings.Contains(r.raw, "OverQuota") {
				t.Errorf("%d %s", r.status, r.raw)
			}
		})
	}
	wg.Wait()
	for _, a := range servers {
		eventually(t, "all changes to be seen", func() bool { return len(a.list(blue, "networks", "", "id")) >= 10 })
		if n := len(a.list(blue, "networks", "", "id")); n != 10 {
			t.Errorf("%d networks at a limit of 10", n)
		}
	}
}
