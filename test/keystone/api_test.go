package keystone

import (
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"planck/network"
	"planck/northbound"
)

// api is a server of the networking API that asks Keystone, and a client of it.
type api struct {
	t     *testing.T
	store *network.Store
	url   string
}

func newAPI(t *testing.T, options *northbound.KeystoneOptions) *api {
	t.Helper()
	store, err := network.Open(t.Context(), "sqlite://"+filepath.Join(t.TempDir(), "planck.db"), network.DefaultConfig())
	if err != nil {
		t.Fatal(err)
	}
	handler, err := northbound.New(northbound.Options{
		Store: store, AuthStrategy: "keystone", Keystone: options, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(handler)
	t.Cleanup(func() {
		srv.Close()
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	return &api{t: t, store: store, url: srv.URL}
}

// headers say who makes a request.
type headers map[string]string

type reply struct {
	status int
	header http.Header
	raw    string
	body   map[string]any
}

func (a *api) send(who headers, method, path, body string) reply {
	a.t.Helper()
	req, err := http.NewRequest(method, a.url+path, strings.NewReader(body))
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
	if res.Header.Get("Content-Type") == "application/json" {
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

// eventually sends a request until it gets the status.
func (a *api) eventually(status int, who headers, method, path string) {
	a.t.Helper()
	deadline := time.Now().Add(time.Minute)
	for {
		r := a.send(who, method, path, "")
		if r.status == status {
			return
		}
		if time.Now().After(deadline) {
			a.t.Fatalf("%s %s: status %d, want %d: %s", method, path, r.status, status, r.raw)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// refused sends a request that has to fail with this type and change nothing.
func (a *api) refused(who headers, method, path, body string, status int, typ string) {
	a.t.Helper()
	before := a.store.View().Revision()
	r := a.must(status, who, method, path, body)
	if e, _ := r.body["NeutronError"].(map[string]any); e["type"] != typ {
		a.t.Fatalf("%s %s %s: got %s, want %s", method, path, body, r.raw, typ)
	}
	if a.store.View().Revision() != before {
		a.t.Fatalf("%s %s %s was refused and changed something", method, path, body)
	}
}

func (a *api) network(who headers, attributes string) map[string]any {
	a.t.Helper()
	return a.must(201, who, "POST", "/v2.0/networks", `{"network": {`+attributes+`}}`).body["network"].(map[string]any)
}

// keystoneOptions are those of a server whose own user is a, an administrator.
func keystoneOptions(s *Server, a Account, cache time.Duration) *northbound.KeystoneOptions {
	return &northbound.KeystoneOptions{
		AuthURL: s.URL, WWWAuthenticateURI: "http://keystone.example.org:5000", Username: a.User, Password: a.Password,
		ProjectName: a.Project, CacheTime: cache, ServiceTokenRoles: []string{"service"}, Timeout: time.Minute,
	}
}

func withToken(token string) headers { return headers{"X-Auth-Token": token} }

// TestKeystone drives the API with tokens of a real Keystone. It is one test,
// since it stops the Keystone that the tests share.
func TestKeystone(t *testing.T) {
	ks := Start(t)
	own := ks.Account(t, "quantum", "admin", "service")
	blue, red := ks.Account(t, "blue", "member"), ks.Account(t, "red", "member")
	reader := ks.Account(t, "reader", "reader")
	start := func(cache time.Duration) *api {
		return newAPI(t, keystoneOptions(ks, own, cache))
	}
	a := start(time.Hour)
	blueToken, redToken, adminToken := ks.Token(t, blue), ks.Token(t, red), ks.Token(t, own)

	t.Run("a token says project and roles", func(t *testing.T) {
		n := a.network(withToken(blueToken), `"name": "n"`)
		if n["tenant_id"] != blue.ProjectID {
			t.Errorf("the network belongs to %v, not %s", n["tenant_id"], blue.ProjectID)
		}
		path := "/v2.0/networks/" + n["id"].(string)
		a.must(404, withToken(redToken), "GET", path, "")
		if shown := a.must(200, withToken(adminToken), "GET", path, "").body["network"].(map[string]any); shown["provider:network_type"] != "gre" {
			t.Errorf("the administrator sees %v", shown)
		}
		a.refused(withToken(blueToken), "POST", "/v2.0/networks", `{"network": {"shared": true}}`, 403, "PolicyNotAuthorized")
		a.must(200, withToken(ks.Token(t, reader)), "GET", "/v2.0/networks", "")
		// What the headers of noauth say counts for nothing.
		a.must(404, headers{"X-Auth-Token": redToken, "X-Roles": "admin", "X-Project-Id": blue.ProjectID}, "GET", path, "")
	})
	t.Run("a token of no project creates nothing without an owner", func(t *testing.T) {
		token := ks.Token(t, Account{User: blue.User, Password: blue.Password})
		a.refused(withToken(token), "POST", "/v2.0/networks", `{"network": {}}`, 400, "HTTPBadRequest")
		if got := a.must(200, withToken(token), "GET", "/v2.0/networks", "").body["networks"].([]any); len(got) != 0 {
			t.Errorf("it sees %v", got)
		}
	})
	t.Run("no token and a bad one are 401", func(t *testing.T) {
		for _, who := range []headers{nil, withToken(""), withToken("nonsense"), withToken(blueToken + "x"), {"X-Project-Id": "blue"},
			{"X-Auth-Token": blueToken, "X-Service-Token": "nonsense"}} {
			r := a.must(401, who, "GET", "/v2.0/networks", "")
			if got := r.header.Get("WWW-Authenticate"); got != `Keystone uri="http://keystone.example.org:5000"` {
				t.Errorf("WWW-Authenticate: %s", got)
			}
			want := `{"error": {"code": 401, "title": "Unauthorized", "message": "The request you have made requires authentication."}}`
			if r.raw != want {
				t.Errorf("body: %s", r.raw)
			}
		}
		a.must(200, nil, "GET", "/", "")
		a.must(200, nil, "GET", "/healthz", "")
	})
	t.Run("the token of a service goes along", func(t *testing.T) {
		a.must(200, headers{"X-Auth-Token": blueToken, "X-Service-Token": adminToken}, "GET", "/v2.0/networks", "")
	})
	t.Run("a revoked token goes on for the cache time at the most", func(t *testing.T) {
		short := start(2 * time.Second)
		token := ks.Token(t, red)
		short.must(200, withToken(token), "GET", "/v2.0/networks", "")
		ks.Revoke(t, token)
		deadline := time.Now().Add(time.Minute)
		for short.send(withToken(token), "GET", "/v2.0/networks", "").status != 401 {
			if time.Now().After(deadline) {
				t.Fatal("the revoked token is still taken")
			}
			time.Sleep(20 * time.Millisecond)
		}
		start(0).must(401, withToken(token), "GET", "/v2.0/networks", "")
	})
	t.Run("our own token is renewed when it was revoked", func(t *testing.T) {
		b := start(0)
		b.must(200, withToken(blueToken), "GET", "/v2.0/networks", "")
		// A password that is set ends all tokens of the user.
		ks.Call(t, http.MethodPatch, "/users/"+own.UserID, map[string]any{"user": map[string]any{"password": own.Password}}, http.StatusOK)
		// Keystone counts in seconds: a token of the very second in which the
		// others were ended is ended, too.
		b.eventually(200, withToken(blueToken), "GET", "/v2.0/networks")
	})
	t.Run("our own user may be wrong", func(t *testing.T) {
		wrong := own
		wrong.Password = "wrong"
		b := newAPI(t, keystoneOptions(ks, wrong, 0))
		b.refused(withToken(blueToken), "GET", "/v2.0/networks", "", 503, "ServiceUnavailable")
	})
	t.Run("without Keystone known tokens go on", func(t *testing.T) {
		fresh := ks.Token(t, blue)
		ks.Kill(t)
		a.network(withToken(blueToken), "")
		a.refused(withToken(fresh), "GET", "/v2.0/networks", "", 503, "ServiceUnavailable")
		ks.Restart(t)
		a.must(200, withToken(fresh), "GET", "/v2.0/networks", "")
	})
}
