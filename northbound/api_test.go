package northbound

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"planck/network"
	"planck/test/pg"
)

// api is a server on a store of its own, and a client of it.
type api struct {
	t       testing.TB
	store   *network.Store
	handler http.Handler
	url     string
}

// headers say who makes a request.
type headers map[string]string

var (
	admin headers
	blue  = headers{"X-Project-Id": "blue"}
	red   = headers{"X-Project-Id": "red"}
)

func testConfig() network.Config {
	cfg := network.DefaultConfig()
	cfg.VLANRanges["physnet1"] = []network.IDRange{{First: 100, Last: 199}}
	return cfg
}

func newAPI(t testing.TB) *api {
	t.Helper()
	return newAPIOn(t, "sqlite://"+filepath.Join(t.TempDir(), "planck.db"), Options{})
}

func newAPIOn(t testing.TB, dsn string, o Options) *api {
	t.Helper()
	store, err := network.Open(t.Context(), dsn, testConfig())
	if err != nil {
		t.Fatal(err)
	}
	a := &api{t: t, store: store}
	o.Store, o.AuthStrategy = store, cmp.Or(o.AuthStrategy, "noauth")
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	h, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(h)
	a.handler, a.url = h, srv.URL
	t.Cleanup(func() {
		srv.Close()
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	return a
}

// onEach runs a test on an empty database of each kind.
func onEach(t *testing.T, test func(t *testing.T, a *api)) {
	onEachWith(t, Options{}, test)
}

func onEachWith(t *testing.T, o Options, test func(t *testing.T, a *api)) {
	t.Run("SQLite", func(t *testing.T) { test(t, newAPIOn(t, "sqlite://"+filepath.Join(t.TempDir(), "planck.db"), o)) })
	t.Run("PostgreSQL", func(t *testing.T) { test(t, newAPIOn(t, pg.Start(t), o)) })
}

// reply is an answer of the API.
type reply struct {
	status int
	header http.Header
	raw    string
	body   map[string]any
}

func (a *api) send(who headers, method, path, body string) reply {
	a.t.Helper()
	req, err := http.NewRequestWithContext(a.t.Context(), method, a.url+path, strings.NewReader(body))
	if err != nil {
		a.t.Fatal(err)
	}
	for k, v := range who {
		req.Header.Set(k, v)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		a.t.Fatal(err)
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		a.t.Fatal(err)
	}
	r := reply{status: res.StatusCode, header: res.Header, raw: string(raw)}
	if res.Header.Get("Content-Type") == "application/json" && method != http.MethodHead {
		if err := json.Unmarshal(raw, &r.body); err != nil {
			a.t.Fatalf("%s %s: not JSON: %v: %s", method, path, err, raw)
		}
	}
	return r
}

// must sends a request that has to have this status.
func (a *api) must(status int, who headers, method, path, body string) reply {
	a.t.Helper()
	r := a.send(who, method, path, body)
	if r.status != status {
		a.t.Fatalf("%s %s %s: status %d, want %d: %s", method, path, body, r.status, status, r.raw)
	}
	return r
}

// refused sends a request that has to fail with this status, type and message,
// and change nothing. An empty message is any.
func (a *api) refused(who headers, method, path, body string, status int, typ, message string) {
	a.t.Helper()
	before := a.store.View().Revision()
	r := a.must(status, who, method, path, body)
	e, _ := r.body["NeutronError"].(map[string]any)
	if e["type"] != typ || message != "" && e["message"] != message || e["detail"] != "" {
		a.t.Fatalf("%s %s %s:\n got %s\nwant %s: %s", method, path, body, r.raw, typ, message)
	}
	if now := a.store.View().Revision(); now != before {
		a.t.Fatalf("%s %s %s was refused and made revision %d of %d", method, path, body, now, before)
	}
}

// create posts one object and returns it.
func (a *api) create(who headers, name, body string) map[string]any {
	a.t.Helper()
	key := strings.ReplaceAll(name, "-", "_")
	r := a.must(http.StatusCreated, who, http.MethodPost, "/v2.0/"+name+"s", `{"`+key+`": `+body+`}`)
	return r.body[key].(map[string]any)
}

func (a *api) network(who headers, more string) string {
	a.t.Helper()
	return a.create(who, "network", "{"+more+"}")["id"].(string)
}

func (a *api) subnet(who headers, networkID, cidr, more string) string {
	a.t.Helper()
	version := 4
	if strings.Contains(cidr, ":") {
		version = 6
	}
	body := fmt.Sprintf(`{"network_id": %q, "cidr": %q, "ip_version": %d`, networkID, cidr, version)
	return a.create(who, "subnet", body+more+"}")["id"].(string)
}

func (a *api) port(who headers, networkID, more string) string {
	a.t.Helper()
	return a.create(who, "port", fmt.Sprintf(`{"network_id": %q%s}`, networkID, more))["id"].(string)
}

func (a *api) show(who headers, name, id string) map[string]any {
	a.t.Helper()
	return a.must(http.StatusOK, who, http.MethodGet, "/v2.0/"+name+"s/"+id, "").body[strings.ReplaceAll(name, "-", "_")].(map[string]any)
}

func (a *api) put(who headers, name, id, body string) map[string]any {
	a.t.Helper()
	key := strings.ReplaceAll(name, "-", "_")
	r := a.must(http.StatusOK, who, http.MethodPut, "/v2.0/"+name+"s/"+id, `{"`+key+`": `+body+`}`)
	return r.body[key].(map[string]any)
}

// list returns one attribute of each object of a list.
func (a *api) list(who headers, collection, query, attribute string) []string {
	a.t.Helper()
	r := a.must(http.StatusOK, who, http.MethodGet, "/v2.0/"+collection+"?"+query, "")
	found := []string{}
	for _, o := range r.body[strings.ReplaceAll(collection, "-", "_")].([]any) {
		found = append(found, fmt.Sprint(o.(map[string]any)[attribute]))
	}
	return found
}

// external makes an external network with one subnet.
func (a *api) external(cidr string) string {
	a.t.Helper()
	id := a.network(admin, `"router:external": true, "name": "public"`)
	a.subnet(admin, id, cidr, `, "enable_dhcp": false`)
	return id
}

func (a *api) router(who headers, more string) string {
	a.t.Helper()
	return a.create(who, "router", "{"+more+"}")["id"].(string)
}

func (a *api) floatingIP(who headers, networkID, more string) string {
	a.t.Helper()
	return a.create(who, "floatingip", fmt.Sprintf(`{"floating_network_id": %q%s}`, networkID, more))["id"].(string)
}

// addInterface attaches a router to a subnet and returns the answer.
func (a *api) addInterface(who headers, routerID, subnetID string) map[string]any {
	a.t.Helper()
	return a.must(http.StatusOK, who, http.MethodPut, "/v2.0/routers/"+routerID+"/add_router_interface",
		fmt.Sprintf(`{"subnet_id": %q}`, subnetID)).body
}
