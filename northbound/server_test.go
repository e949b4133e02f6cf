package northbound

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"planck/network"
)

func sqlite(t testing.TB) string { return "sqlite://" + t.TempDir() + "/planck.db" }

func TestVersionDiscovery(t *testing.T) {
	a := newAPI(t)
	want := `{"versions": [{"id": "v2.0", "status": "CURRENT", "links": [{"rel": "self", "href": "` + a.url + `/v2.0/"}]}]}`
	if r := a.must(200, admin, "GET", "/", ""); r.raw != want {
		t.Errorf("/: %s", r.raw)
	}
	for _, path := range []string{"/v2.0", "/v2.0/"} {
		r := a.must(200, blue, "GET", path, "")
		link := `{"name": "port", "collection": "ports", "links": [{"rel": "self", "href": "` + a.url + `/v2.0/ports"}]}`
		if !strings.Contains(r.raw, link) {
			t.Errorf("%s: %s", path, r.raw)
		}
	}
	r := a.must(200, headers{"X-Forwarded-Proto": "https"}, "GET", "/", "")
	if !strings.Contains(r.raw, `"https://`) {
		t.Errorf("behind TLS: %s", r.raw)
	}
}

func TestExtensionsAreOneList(t *testing.T) {
	a := newAPI(t)
	var aliases []string
	for _, e := range a.must(200, blue, "GET", "/v2.0/extensions", "").body["extensions"].([]any) {
		e := e.(map[string]any)
		alias := e["alias"].(string)
		aliases = append(aliases, alias)
		one := a.must(200, blue, "GET", "/v2.0/extensions/"+alias, "").body["extension"].(map[string]any)
		for _, key := range []string{"alias", "name", "description", "updated"} {
			if one[key] != e[key] || one[key] == "" {
				t.Errorf("%s: %s is %v and %v", alias, key, e[key], one[key])
			}
		}
		if links, ok := e["links"].([]any); !ok || len(links) != 0 {
			t.Errorf("%s: links are %v", alias, e["links"])
		}
	}
	for _, alias := range []string{"provider", "external-net", "binding", "port-security", "allowed-address-pairs", "extra_dhcp_opt",
		"standard-attr-timestamp", "standard-attr-revisions", "standard-attr-description", "standard-attr-tag", "tag", "tag-ext",
		"net-mtu", "net-mtu-writable", "pagination", "sorting", "project-id", "filter-validation", "empty-string-filtering",
		"revision-if-match", "ip-substring-filtering", "dns-integration", "uplink-status-propagation", "port-mac-address-regenerate", "subnet-service-types",
		"quotas", "quota_details", "security-group", "port-security-groups-filtering", "security-groups-normalized-cidr", "security-groups-shared-filtering", "router", "ext-gw-mode", "extraroute", "extraroute-atomic", "fip-port-details",
		"subnet_allocation", "default-subnetpools", "auto-allocated-topology", "multi-provider"} {
		if !slices.Contains(aliases, alias) {
			t.Errorf("%s is not advertised", alias)
		}
	}
	slices.Sort(aliases)
	if n := len(slices.Compact(slices.Clone(aliases))); n != len(aliases) {
		t.Errorf("an alias is advertised twice: %v", aliases)
	}
	for _, alias := range []string{"dvr", "l3-ha", "security-groups-remote-address-group", "address-scope"} {
		a.refused(blue, "GET", "/v2.0/extensions/"+alias, "", 404, "HTTPNotFound", "Extension with alias "+alias+" does not exist")
	}
}

func TestPathsAndMethods(t *testing.T) {
	a := newAPI(t)
	id := a.network(blue, "")
	for _, path := range []string{"/v2.0/networks/", "/v2.0/networks.json", "/v2.0/networks/" + id + ".json", "/v2.0/networks/" + id + "/"} {
		a.must(200, blue, "GET", path, "")
	}
	for _, path := range []string{"/v2.0/trunks", "/v2.0/networks/" + id + "/ports", "/v3", "/v2.0//networks", "/v2.0/networks/%2e%2e/ports", "/nowhere"} {
		typ := "HTTPNotFound"
		a.refused(blue, "GET", path, "", 404, typ, "The resource could not be found.")
	}
	a.refused(blue, "GET", "/v2.0/networks/..%2Fports", "", 404, "NetworkNotFound", "Network ../ports could not be found.")
	for path, allow := range map[string]string{
		"/v2.0/networks":                       "GET, POST, HEAD",
		"/v2.0/networks/" + id:                 "DELETE, GET, PUT, HEAD",
		"/v2.0/networks/" + id + "/tags":       "DELETE, GET, POST, PUT, HEAD",
		"/v2.0/networks/" + id + "/tags/a":     "DELETE, GET, PUT, HEAD",
		"/v2.0/extensions":                     "GET, HEAD",
		"/":                                    "GET, HEAD",
		"/v2.0/extensions/binding":             "GET, HEAD",
		"/v2.0/subnets/" + id + "?fields=name": "DELETE, GET, PUT, HEAD",
	} {
		a.refused(blue, "PATCH", path, "{}", 405, "HTTPMethodNotAllowed", "The server could not comply with the request since it is either malformed or otherwise incorrect.")
		if r := a.send(blue, "PATCH", path, ""); r.header.Get("Allow") != allow {
			t.Errorf("%s allows %q, want %q", path, r.header.Get("Allow"), allow)
		}
	}
	for _, c := range []struct{ path, body, typ, message string }{
		{"networks", `{"network": {"name": "x"}}`, "NetworkNotFound", "Network None could not be found."},
		{"networks", `{}`, "NetworkNotFound", "Network None could not be found."},
		{"networks", `{"network": {"id": "x"}}`, "HTTPBadRequest", "Cannot update read-only attribute id"},
		{"networks", `{"networks": [{"name": "x"}]}`, "HTTPBadRequest", "Bulk operation not supported"},
		{"networks", `nonsense`, "HTTPBadRequest", "Body contains invalid data"},
		{"subnets", "", "SubnetNotFound", "Subnet None could not be found."},
		{"ports", "", "PortNotFound", "Port None could not be found."},
		{"routers", "", "RouterNotFound", "Router None could not be found"},
		{"floatingips", "", "FloatingIPNotFound", "Floating IP None could not be found"},
		{"security-groups", "", "SecurityGroupNotFound", "Security group None does not exist"},
		{"security-group-rules", "", "SecurityGroupRuleNotFound", "Security group rule None does not exist"},
		{"subnetpools", "", "SubnetPoolNotFound", "Subnet pool None could not be found."},
		{"agents", "", "AgentNotFound", "Agent None could not be found."},
		{"network-ip-availabilities", "", "NetworkNotFound", "Network None could not be found."},
	} {
		status := map[string]int{"HTTPBadRequest": 400}[c.typ]
		a.refused(blue, "PUT", "/v2.0/"+c.path, c.body, cmp.Or(status, 404), c.typ, c.message)
		if status == 0 {
			a.refused(blue, "DELETE", "/v2.0/"+c.path, "", 404, c.typ, c.message)
		}
	}
	a.refused(blue, "PUT", "/v2.0/availability_zones", "{}", 405, "HTTPMethodNotAllowed", "")
	get, head := a.must(200, blue, "GET", "/v2.0/networks", ""), a.must(200, blue, "HEAD", "/v2.0/networks", "")
	if head.raw != "" || head.header.Get("Content-Length") != get.header.Get("Content-Length") {
		t.Errorf("HEAD answers %q with length %s", head.raw, head.header.Get("Content-Length"))
	}
}

func TestBodySizeIsBounded(t *testing.T) {
	limits := DefaultLimits()
	limits.MaxBody = 1000
	a := newAPIOn(t, sqlite(t), Options{Limits: limits})
	a.refused(blue, "POST", "/v2.0/networks", `{"network": {"description": "`+strings.Repeat("x", 2000)+`"}}`,
		413, "HTTPRequestEntityTooLarge", "The request body is larger than 1000 bytes.")
}

// syncBuffer is a buffer for a logger of several goroutines.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func TestRequestIDsLeadFromTheAnswerToTheLog(t *testing.T) {
	var log syncBuffer
	a := newAPIOn(t, sqlite(t), Options{Logger: slog.New(slog.NewTextHandler(&log, nil))})
	shape := regexp.MustCompile(`^req-[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`)
	global := "req-00000000-0000-4000-8000-000000000001"
	seen := map[string]bool{}
	for _, path := range []string{"/", "/healthz", "/v2.0/networks", "/nowhere", "/metrics", "/planck/v1/hosts"} {
		r := a.send(headers{"X-Project-Id": "blue", requestIDHeader: global}, "GET", path, "")
		id := r.header.Get(requestIDHeader)
		if !shape.MatchString(id) || seen[id] {
			t.Errorf("%s: request id %q", path, id)
		}
		seen[id] = true
		line := fmt.Sprintf("request_id=%s project_id=", id)
		if logged := strings.Contains(log.String(), line); logged != (path != "/healthz" && path != "/metrics") {
			t.Errorf("%s: logged: %v", path, logged)
		}
	}
	text := log.String()
	for _, want := range []string{"project_id=blue method=GET path=/v2.0/networks status=200 duration=", "status=404", "global_request_id=" + global} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in the log:\n%s", want, text)
		}
	}
	a.send(headers{requestIDHeader: "req-x\" forged=1"}, "GET", "/v2.0/networks", "")
	if strings.Contains(log.String(), "forged") {
		t.Error("a malformed request id got into the log")
	}
}

func TestHealthAndReadiness(t *testing.T) {
	var trouble error
	a := newAPIOn(t, sqlite(t), Options{Ready: func() error { return trouble }})
	if r := a.must(200, admin, "GET", "/healthz", ""); r.raw != "ok\n" {
		t.Errorf("healthz: %q", r.raw)
	}
	a.must(200, admin, "GET", "/readyz", "")
	trouble = errors.New("the OpenFlow listener is not up")
	if r := a.must(503, admin, "GET", "/readyz", ""); r.raw != trouble.Error()+"\n" {
		t.Errorf("readyz: %q", r.raw)
	}
	a.must(405, admin, "POST", "/readyz", "")
}

func TestMetricsCountCalls(t *testing.T) {
	registry := prometheus.NewRegistry()
	a := newAPIOn(t, sqlite(t), Options{Registry: registry})
	a.network(blue, "")
	a.must(404, blue, "GET", "/v2.0/networks/x", "")
	a.send(blue, "BREW", "/v2.0/networks", "")
	a.send(blue, "GET", "/v2.0/anything/at/all", "")
	r := a.must(200, nil, "GET", "/metrics", "")
	for _, want := range []string{
		`planck_api_requests_total{code="201",method="POST",resource="networks"} 1`,
		`planck_api_requests_total{code="404",method="GET",resource="networks"} 1`,
		`planck_api_requests_total{code="405",method="other",resource="networks"} 1`,
		`planck_api_requests_total{code="404",method="GET",resource="unknown"} 1`,
		`planck_api_request_duration_seconds_count{method="POST",resource="networks"} 1`,
	} {
		if !strings.Contains(r.raw, want+"\n") {
			t.Errorf("no %s", want)
		}
	}
}

func TestOperatorAPIIsForAdministrators(t *testing.T) {
	operator := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "path ", r.URL.Path) })
	a := newAPIOn(t, sqlite(t), Options{Operator: operator})
	if r := a.must(200, admin, "GET", "/planck/v1/flows/hv1", ""); r.raw != "path /planck/v1/flows/hv1" {
		t.Errorf("got %q", r.raw)
	}
	a.refused(blue, "GET", "/planck/v1/hosts", "", 403, "PolicyNotAuthorized", "rule:planck_operator is disallowed by policy")
	newAPI(t).refused(admin, "GET", "/planck/v1/hosts", "", 404, "HTTPNotFound", "")
}

func TestPanicBecomesInternalServerError(t *testing.T) {
	var log syncBuffer
	boom := http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("the secret of the inside") })
	a := newAPIOn(t, sqlite(t), Options{Operator: boom, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	r := a.must(500, admin, "GET", "/planck/v1/x", "")
	if !strings.Contains(r.raw, "HTTPInternalServerError") || strings.Contains(r.raw, "secret") {
		t.Errorf("answer: %s", r.raw)
	}
	if !strings.Contains(log.String(), "the secret of the inside") || !strings.Contains(log.String(), r.header.Get(requestIDHeader)) {
		t.Errorf("log: %s", log.String())
	}
	a.must(200, admin, "GET", "/v2.0/networks", "")
}

func TestErrorsHaveNeutronsStatus(t *testing.T) {
	for _, c := range []struct {
		err    error
		status int
		typ    string
	}{
		{network.Errorf(network.Invalid, "A", "m"), 400, "A"},
		{fmt.Errorf("port p: %w", network.Errorf(network.Conflict, "B", "m")), 409, "B"},
		{network.Errorf(network.Unavailable, "C", "m"), 503, "C"},
		{network.Errorf(network.Class(99), "D", "m"), 500, "HTTPInternalServerError"},
		{errors.New("pq: password authentication failed"), 500, "HTTPInternalServerError"},
		{fmt.Errorf("create: %w", context.Canceled), 503, "ServiceUnavailable"},
	} {
		e := asAPIError(c.err)
		if e.status != c.status || e.typ != c.typ || strings.Contains(string(e.body()), "password") {
			t.Errorf("%v: %d %s", c.err, e.status, e.body())
		}
	}
}

func TestClosedStoreIsUnavailable(t *testing.T) {
	store, err := network.Open(t.Context(), sqlite(t), testConfig())
	if err != nil {
		t.Fatal(err)
	}
	h, err := New(Options{Store: store, AuthStrategy: "noauth", Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("POST", "/v2.0/networks", strings.NewReader(`{"network": {}}`)))
	if body, _ := io.ReadAll(w.Result().Body); w.Code != 503 {
		t.Errorf("%d: %s", w.Code, body)
	}
}

func TestManyClientsAtOnce(t *testing.T) {
	a := newAPI(t)
	net := a.network(blue, "")
	a.subnet(blue, net, "10.0.0.0/24", "")
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for range 10 {
				r := a.send(blue, "POST", "/v2.0/ports", fmt.Sprintf(`{"port": {"network_id": %q, "name": "p%d"}}`, net, i))
				a.send(blue, "GET", "/v2.0/ports?network_id="+net, "")
				if r.status != 201 {
					t.Errorf("status %d: %s", r.status, r.raw)
					continue
				}
				id := r.body["port"].(map[string]any)["id"].(string)
				a.send(blue, "PUT", "/v2.0/ports/"+id, `{"port": {"name": "x"}}`)
			}
		})
	}
	wg.Wait()
	seen := map[string]bool{}
	for _, ip := range a.list(blue, "ports", "name=x", "fixed_ips") {
		seen[ip] = true
	}
	if len(seen) != 80 {
		t.Errorf("%d different addresses for 80 ports", len(seen))
	}
}
