package northbound

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

func TestConsoleIsServed(t *testing.T) {
	a := newAPI(t)
	index := a.must(200, nil, "GET", "/console", "") // and on, to /console/
	if index.header.Get("Content-Type") != "text/html; charset=utf-8" || !strings.Contains(index.raw, "<main") {
		t.Errorf("/console: %v %.100s", index.header, index.raw)
	}
	if policy := index.header.Get("Content-Security-Policy"); !strings.HasPrefix(policy, "default-src 'self';") {
		t.Errorf("the page may ask others: %q", policy)
	}
	if strings.Contains(index.raw, "<script>") || strings.Contains(index.raw, "style=") {
		t.Error("the page has scripts or styles within it, which its policy forbids")
	}
	files := regexp.MustCompile(`(?:src|href)="([a-z.]+)"`).FindAllStringSubmatch(index.raw, -1)
	if len(files) < 4 {
		t.Fatalf("the page needs %q only", files)
	}
	for _, f := range files {
		a.consoleFile(f[1])
	}
}

// consoleFile checks a file of the page, and those that it imports.
func (a *api) consoleFile(name string) {
	a.t.Helper()
	r := a.must(200, nil, "GET", "/console/"+name, "")
	want := map[string]string{".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8", ".svg": "image/svg+xml"}[filepath.Ext(name)]
	if got := r.header.Get("Content-Type"); got != want || r.header.Get("X-Content-Type-Options") != "nosniff" {
		a.t.Errorf("%s has type %q, not %q", name, got, want)
	}
	tag := r.header.Get("ETag")
	if again := a.must(304, headers{"If-None-Match": tag}, "GET", "/console/"+name, ""); tag == "" || again.raw != "" {
		a.t.Errorf("%s is sent again to who has it: %q", name, tag)
	}
	if head := a.must(200, nil, "HEAD", "/console/"+name, ""); head.header.Get("Content-Length") != fmt.Sprint(len(r.raw)) {
		a.t.Errorf("HEAD of %s: %v", name, head.header)
	}
	for _, imported := range regexp.MustCompile(`from '\./([a-z]+\.js)'`).FindAllStringSubmatch(r.raw, -1) {
		a.must(200, nil, "GET", "/console/"+imported[1], "")
	}
}

func TestConsoleRefusesWhatIsNotThere(t *testing.T) {
	a := newAPI(t)
	a.refused(nil, "GET", "/console/nothing.js", "", 404, "HTTPNotFound", "")
	a.refused(nil, "GET", "/console/../server.go", "", 404, "HTTPNotFound", "")
	a.refused(nil, "GET", "/console/assets/app.js", "", 404, "HTTPNotFound", "")
	a.refused(nil, "POST", "/console/app.js", "", 405, "HTTPMethodNotAllowed", "")
	// Without Keystone nobody can log in.
	if r := a.send(nil, "POST", "/console/login", "{}"); r.status != 404 {
		t.Errorf("a log-in without Keystone: %d %s", r.status, r.raw)
	}
}

func TestConsoleLearnsRevisions(t *testing.T) {
	a := newAPI(t)
	if r := a.must(200, nil, "GET", "/console/config.json", ""); r.body["auth_strategy"] != "noauth" {
		t.Errorf("config.json: %s", r.raw)
	}
	before := a.must(200, nil, "GET", "/console/revision.json", "").body["revision"].(float64)
	a.network(admin, "")
	if after := a.must(200, nil, "GET", "/console/revision.json", "").body["revision"].(float64); after <= before {
		t.Errorf("revision %v after %v and a change", after, before)
	}
}

func TestConsoleLogsInWithKeystone(t *testing.T) {
	status := http.StatusCreated
	var asked string
	keystone := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		asked = string(body)
		w.Header().Set("X-Subject-Token", "secret")
		w.WriteHeader(status)
		fmt.Fprintf(w, `{"token": {"expires_at": "%s", "user": {"id": "u"}, "project": {"id": "p"}, "roles": [{"name": "member"}]}}`,
			time.Now().Add(time.Hour).UTC().Format(time.RFC3339))
	}))
	defer keystone.Close()
	a := newAPIOn(t, "sqlite://"+filepath.Join(t.TempDir(), "planck.db"), Options{
		AuthStrategy: "keystone", Keystone: &KeystoneOptions{AuthURL: keystone.URL, Username: "planck", ProjectName: "service"},
	})
	typed := headers{"Content-Type": "application/json"}
	form := `{"username": "ann", "password": "sesame", "project": "blue", "domain": "Sales"}`
	r := a.must(200, typed, "POST", "/console/login", form)
	if r.body["token"] != "secret" || r.body["project_id"] != "p" || r.header.Get("Cache-Control") != "no-store" {
		t.Errorf("logged in: %v %s", r.header, r.raw)
	}
	for _, want := range []string{`"name":"ann"`, `"password":"sesame"`, `"project":{"domain":{"name":"Sales"},"name":"blue"}`} {
		if !strings.Contains(asked, want) {
			t.Errorf("Keystone was asked %s, without %s", asked, want)
		}
	}
	a.refused(typed, "POST", "/console/login", `{"username": "ann"}`, 400, "HTTPBadRequest", "A login needs username, password and project")
	a.refused(typed, "POST", "/console/login", `[`, 400, "HTTPBadRequest", "")
	a.refused(nil, "POST", "/console/login", form, 400, "HTTPBadRequest", "The content type of a login is application/json")
	a.refused(typed, "GET", "/console/login", "", 405, "HTTPMethodNotAllowed", "")
	for said, answered := range map[int]int{401: 401, 403: 401, 400: 400, 500: 503, 404: 503} {
		status = said
		if r := a.send(typed, "POST", "/console/login", form); r.status != answered || r.body["NeutronError"] == nil {
			t.Errorf("Keystone says %d, the console is told %d: %s", said, r.status, r.raw)
		}
	}
	keystone.Close()
	a.refused(typed, "POST", "/console/login", form, 503, "ServiceUnavailable", "The Keystone service is temporarily unavailable.")
}
