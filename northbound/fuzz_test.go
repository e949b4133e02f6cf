package northbound

import (
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
)

var blueAdmin = headers{"X-Project-Id": "blue", "X-Roles": "admin"}

// refusedOrDone fails for an answer that no client's request may get.
func refusedOrDone(t *testing.T, what string, r reply) {
	t.Helper()
	if r.status >= 500 && !strings.Contains(r.raw, "NoNetworkAvailable") {
		t.Errorf("%s: %d %s", what, r.status, r.raw)
	}
}

// FuzzBody sends any bytes as the body of each kind of request. NETWORK, SUBNET
// and PORT in them are ids of objects that are there.
func FuzzBody(f *testing.F) {
	for _, seed := range []string{
		`{"network": {"name": "x", "mtu": 1}}`, `{"networks": [{}, {}]}`, `{"tags": ["a"]}`, `[`, `{"port": null}`, `{"ports": [{"network_id": "NETWORK"}, {"port": {}}]}`,
		`{"network": {"provider:network_type": "vlan", "provider:physical_network": "physnet1", "provider:segmentation_id": 100, "shared": "True"}}`,
		`{"port": {"network_id": "NETWORK", "fixed_ips": [{"ip_address": "10.0.0.9"}, {"subnet_id": "SUBNET"}], "mac_address": "fa:16:3e:00:00:01"}}`,
		`{"port": {"binding:profile": {"a": [1e3, -0.0, null, {"b": 1e400}]}, "binding:host_id": null, "allowed_address_pairs": [{"ip_address": "0.0.0.0/0"}]}}`,
		`{"port": {"extra_dhcp_opts": [{"opt_name": "67", "opt_value": null, "ip_version": "4"}], "security_groups": [], "device_owner": "network:dhcp"}}`,
		`{"subnet": {"cidr": "10.0.1.0/24", "ip_version": 4, "network_id": "NETWORK", "allocation_pools": [{"start": "10.0.1.2", "end": "10.0.1.2"}]}}`,
		`{"subnet": {"cidr": "2001:db8::/64", "ip_version": 6, "network_id": "NETWORK", "ipv6_address_mode": "slaac", "ipv6_ra_mode": "slaac"}}`,
		`{"subnet": {"gateway_ip": null, "dns_nameservers": ["8.8.8.8"], "host_routes": [{"destination": "::/0", "nexthop": "::1"}], "service_types": ["compute:x"]}}`,
	} {
		f.Add(seed)
	}
	a := newAPI(f)
	net := a.network(admin, "")
	ids := strings.NewReplacer("NETWORK", net, "SUBNET", a.subnet(admin, net, "10.0.0.0/24", ""), "PORT", a.port(admin, net, ""))
	f.Fuzz(func(t *testing.T, body string) {
		a.t = t
		body = ids.Replace(body)
		for _, path := range []string{"networks", "subnets", "ports"} {
			r := a.send(blueAdmin, http.MethodPost, "/v2.0/"+path, body)
			refusedOrDone(t, "POST "+path, r)
			a.unmake(path, r)
		}
		for _, path := range []string{"networks/NETWORK", "subnets/SUBNET", "ports/PORT", "networks/NETWORK/tags"} {
			refusedOrDone(t, "PUT "+path, a.send(blueAdmin, http.MethodPut, "/v2.0/"+ids.Replace(path), body))
		}
	})
}

// unmake deletes what a POST made, which must work.
func (a *api) unmake(path string, made reply) {
	a.t.Helper()
	if made.status != http.StatusCreated {
		return
	}
	list, _ := made.body[strings.ReplaceAll(path, "-", "_")].([]any)
	for o := range maps.Values(made.body) {
		if one, ok := o.(map[string]any); ok {
			list = append(list, one)
		}
	}
	for _, o := range list {
		o := o.(map[string]any)
		id, ok := o["id"].(string)
		if !ok {
			id = url.PathEscape(o["host"].(string)) // of a binding
		}
		a.must(http.StatusNoContent, admin, http.MethodDelete, "/v2.0/"+path+"/"+id, "")
	}
}

// FuzzQuery sends any query string with each list.
func FuzzQuery(f *testing.F) {
	for _, seed := range []string{
		"name=x&name=y", "fixed_ips=ip_address=1", "limit=1&marker=x&page_reverse=true", "sort_key=id&sort_dir=asc", "fields=id",
		"tags=a,b&not-tags-any=c", "shared=maybe", "%zz", "a;b", "mtu=1e9", "cidr=::/0",
	} {
		f.Add(seed)
	}
	a := newAPI(f)
	net := a.network(admin, "")
	a.subnet(admin, net, "10.0.0.0/24", "")
	f.Fuzz(func(t *testing.T, query string) {
		a.t = t
		// What no client can put on a request line.
		if strings.ContainsFunc(query, func(r rune) bool { return r <= ' ' || r == '#' || r == 0x7f }) {
			query = url.QueryEscape(query)
		}
		if _, err := url.Parse("http://h/?" + query); err != nil {
			query = url.QueryEscape(query)
		}
		for _, collection := range []string{"networks", "subnets", "ports"} {
			refusedOrDone(t, collection, a.send(blue, http.MethodGet, "/v2.0/"+collection+"?"+query, ""))
		}
	})
}

// FuzzRequest sends any method, path and caller.
func FuzzRequest(f *testing.F) {
	for _, seed := range [][4]string{
		{"GET", "/v2.0/networks/x/tags/%2F", "blue", ""}, {"PUT", "/v2.0/ports/..%2F/tags/a", "blu\xe4", "admin"}, {"HEAD", "//v2.0/./networks.json", "", ","},
		{"DELETE", "/v2.0/subnets/%00", "", "ADMIN"}, {"POST", "/v2.0/extensions/x/", "a b", "member"}, {"BREW", "/planck/v1/hosts", "", ""}, {"GET", "*", "", ""},
	} {
		f.Add(seed[0], seed[1], seed[2], seed[3])
	}
	a := newAPI(f)
	f.Fuzz(func(t *testing.T, method, path, project, roles string) {
		u, err := url.ParseRequestURI(path)
		if err != nil {
			return
		}
		r := &http.Request{Method: method, URL: u, Host: "h", Header: http.Header{"X-Project-Id": {project}, "X-Roles": {roles}}, Body: http.NoBody}
		w := httptest.NewRecorder()
		a.handler.ServeHTTP(w, r.WithContext(t.Context()))
		refusedOrDone(t, method+" "+path, reply{status: w.Code, raw: w.Body.String()})
	})
}

// FuzzPolicyRule compiles any rule. One that compiles has an answer.
func FuzzPolicyRule(f *testing.F) {
	for _, rule := range defaultPolicy {
		f.Add(rule)
	}
	for _, rule := range []string{"not (role:a or !) and @", "rule:x", "field:a:b=~(", "tenant_id:%(tenant_id)s", "((((", "user_id:%(user_id)s)"} {
		f.Add(rule)
	}
	f.Fuzz(func(t *testing.T, rule string) {
		p, err := newPolicy(map[string]string{"x": rule, "context_is_admin": "role:admin"})
		if err != nil {
			return
		}
		who := &Identity{ProjectID: "blue", Roles: []string{"member"}}
		if p.allows("x", who, noTarget{}) && p.has("x") {
			p.aboutTarget("x")
		}
	})
}
