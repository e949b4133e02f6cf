package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// runQuantum runs a command line with the given environment.
func runQuantum(t *testing.T, env map[string]string, line string) (out, errOut string, code int) {
	t.Helper()
	var o, e strings.Builder
	code = run(context.Background(), strings.Fields(line), func(k string) string { return env[k] }, &o, &e)
	return o.String(), e.String(), code
}

// serve starts a server that answers every request with one handler.
func serve(t *testing.T, handler http.HandlerFunc) string {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return server.URL
}

func TestErrorsAreTheServersMessageAndExitCode1(t *testing.T) {
	tests := []struct {
		status     int
		body, want string
	}{
		{409, `{"NeutronError": {"type": "OverQuota", "message": "Quota exceeded for resources: ['network'].", "detail": ""}}`,
			"Quota exceeded for resources: ['network'].\n"},
		{404, `{"NeutronError": {"type": "X", "message": "not here", "detail": "look elsewhere"}}`, "not here\nlook elsewhere\n"},
		{401, `{"error": {"code": 401, "title": "Unauthorized", "message": "The request you have made requires authentication."}}`,
			"The request you have made requires authentication.\n"},
		{401, `Authentication required`, "401-Authentication required\n"},
		{500, ``, "500-\n"},
		{503, `{"x": 1}`, "503-{\"x\": 1}\n"},
	}
	for _, test := range tests {
		url := serve(t, func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(test.status)
			io.WriteString(w, test.body)
		})
		out, errOut, code := runQuantum(t, map[string]string{"OS_URL": url}, "net-create test_net")
		if out != "" || errOut != test.want || code != 1 {
			t.Errorf("%d %s: exit %d, stdout %q, stderr %q", test.status, test.body, code, out, errOut)
		}
	}
}

func TestADeadServerIsSaidPlainly(t *testing.T) {
	server := httptest.NewServer(http.NotFoundHandler())
	server.Close()
	_, errOut, code := runQuantum(t, nil, "net-list --os-url "+server.URL)
	if code != 1 || !strings.HasPrefix(errOut, "Connection to quantum failed: ") || !strings.Contains(errOut, "refused") {
		t.Errorf("exit %d, stderr %q", code, errOut)
	}
}

func TestAServerThatDoesNotAnswerIsGivenUp(t *testing.T) {
	asked := make(chan struct{})
	silent := serve(t, func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // so that the end of the connection is seen
		<-r.Context().Done()
		close(asked)
	})
	_, errOut, code := runQuantum(t, nil, "net-list --http-timeout 0.2 --os-url "+silent)
	if code != 1 || !strings.Contains(errOut, "does not answer within 200ms") {
		t.Errorf("exit %d, stderr %q", code, errOut)
	}
	<-asked
	_, errOut, code = runQuantum(t, map[string]string{"OS_NETWORK_TIMEOUT": "0.2"}, "net-list --os-url http://"+unreachable(t))
	if code != 1 || !strings.Contains(errOut, "can't be reached: no answer within 200ms") {
		t.Errorf("exit %d, stderr %q", code, errOut)
	}
	if _, errOut, code := runQuantum(t, nil, "net-list --http-timeout soon"); code != 2 || !strings.Contains(errOut, "--http-timeout") {
		t.Errorf("exit %d, stderr %q", code, errOut)
	}
}

// unreachable is an address where connections are neither accepted nor refused:
// the kernel drops what does not fit into the backlog.
func unreachable(t *testing.T) string {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Close(fd) })
	if err := errors.Join(syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}), syscall.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	name, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	address := fmt.Sprintf("127.0.0.1:%d", name.(*syscall.SockaddrInet4).Port)
	for range 20 {
		conn, err := net.DialTimeout("tcp", address, 500*time.Millisecond)
		if err != nil {
			return address
		}
		t.Cleanup(func() { conn.Close() })
	}
	t.Fatal("a backlog that is full still takes connections")
	return ""
}

func TestAReplyThatIsNoObjectIsAnError(t *testing.T) {
	for _, body := range []string{"[]", "<html>", "{"} {
		url := serve(t, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, body) })
		if _, errOut, code := runQuantum(t, map[string]string{"OS_URL": url}, "net-list"); code != 1 || !strings.Contains(errOut, "malformed") {
			t.Errorf("%q: exit %d, stderr %q", body, code, errOut)
		}
	}
}

func TestPageSizeReadsAllPages(t *testing.T) {
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		from := map[string]int{"": 0, "p1": 2, "p3": 4}[r.URL.Query().Get("marker")]
		reply := m{}
		var ports []m
		for i := from; i < min(from+2, 5); i++ {
			ports = append(ports, m{"id": fmt.Sprintf("p%d", i)})
		}
		reply["ports"] = ports
		if from < 4 {
			reply["ports_links"] = []m{{"rel": "next", "href": fmt.Sprintf("http://x/v2.0/ports?limit=2&marker=p%d", from+1)}}
		}
		if r.URL.Query().Get("limit") != "2" {
			w.WriteHeader(http.StatusBadRequest)
		}
		json.NewEncoder(w).Encode(reply)
	})
	out, errOut, _ := runQuantum(t, map[string]string{"OS_URL": url}, "port-list -P 2 -f value -c id")
	if want := "p0\np1\np2\np3\np4\n"; out != want {
		t.Errorf("got %q (%s), want %q", out, errOut, want)
	}
}

// keystone is a Keystone v3 that knows one user and tells of one network service.
func keystone(t *testing.T, network string) (url string, asked func() any) {
	t.Helper()
	var last any
	url = serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost || r.URL.Path != "/identity/v3/auth/tokens" {
			http.NotFound(w, r)
			return
		}
		var body m
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		last = body["auth"]
		if strings.Contains(fmt.Sprint(last), "wrong") {
			w.WriteHeader(http.StatusUnauthorized)
			io.WriteString(w, `{"error": {"message": "The request you have made requires authentication."}}`)
			return
		}
		w.Header().Set("X-Subject-Token", "secret-token")
		w.WriteHeader(http.StatusCreated)
		json.NewEncoder(w).Encode(m{"token": m{"catalog": []m{
			{"type": "compute", "endpoints": []m{{"interface": "public", "region": "one", "url": "http://nova"}}},
			{"type": "network", "endpoints": []m{
				{"interface": "admin", "region": "one", "url": "http://admin"},
				{"interface": "public", "region": "two", "url": "http://elsewhere"},
				{"interface": "public", "region": "one", "url": network + "/v2.0/"},
			}},
		}}})
	})
	return url + "/identity", func() any { return last }
}

func TestKeystonePasswordGivesTokenAndEndpoint(t *testing.T) {
	network := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Auth-Token") != "secret-token" || r.URL.Path != "/v2.0/networks" {
			w.WriteHeader(http.StatusUnauthorized)
		}
		io.WriteString(w, `{"networks": [{"id": "n1", "name": "net1", "subnets": []}]}`)
	})
	url, asked := keystone(t, network)
	for _, suffix := range []string{"", "/", "/v2.0", "/v2.0/", "/v3"} {
		env := map[string]string{"OS_AUTH_URL": url + suffix, "OS_USERNAME": "demo", "OS_PASSWORD": "pw",
			"OS_TENANT_NAME": "service", "OS_REGION_NAME": "one"}
		out, errOut, code := runQuantum(t, env, "net-list -f value -c name")
		if out != "net1\n" || code != 0 {
			t.Fatalf("OS_AUTH_URL ending in %q: exit %d, %q, %q", suffix, code, out, errOut)
		}
	}
	want := m{
		"identity": m{"methods": []any{"password"}, "password": m{"user": m{"name": "demo", "password": "pw", "domain": m{"id": "default"}}}},
		"scope":    m{"project": m{"name": "service", "domain": m{"id": "default"}}},
	}
	if diff := cmp.Diff(any(want), asked()); diff != "" {
		t.Errorf("asked of Keystone (-want +got):\n%s", diff)
	}
}

func TestOptionsGoBeforeTheEnvironment(t *testing.T) {
	network := serve(t, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, `{"networks": []}`) })
	url, asked := keystone(t, network)
	env := map[string]string{"OS_AUTH_URL": "http://127.0.0.1:1", "OS_USERNAME": "demo", "OS_PASSWORD": "wrong",
		"OS_PROJECT_ID": "p1", "OS_USER_DOMAIN_NAME": "d", "OS_REGION_NAME": "two"}
	_, errOut, code := runQuantum(t, env, "--os_auth_url "+url+" net-list --os-password pw --os-url "+network)
	if code != 0 {
		t.Fatalf("exit %d, %q", code, errOut)
	}
	want := m{
		"identity": m{"methods": []any{"password"}, "password": m{"user": m{"name": "demo", "password": "pw", "domain": m{"name": "d"}}}},
		"scope":    m{"project": m{"id": "p1"}},
	}
	if diff := cmp.Diff(any(want), asked()); diff != "" {
		t.Errorf("asked of Keystone (-want +got):\n%s", diff)
	}
}

func TestWhatKeystoneNeedsIsAskedFor(t *testing.T) {
	url, _ := keystone(t, "http://127.0.0.1:1")
	all := map[string]string{"OS_AUTH_URL": url, "OS_USERNAME": "demo", "OS_PASSWORD": "pw", "OS_TENANT_NAME": "t"}
	tests := []struct{ name, value, want string }{
		{"OS_USERNAME", "", "you must provide a username via either --os-username or env[OS_USERNAME]\n"},
		{"OS_PASSWORD", "", "you must provide a password via either --os-password or env[OS_PASSWORD]\n"},
		{"OS_TENANT_NAME", "", "you must provide a tenant_name via either --os-tenant-name or via env[OS_TENANT_NAME]\n"},
		{"OS_PASSWORD", "wrong", "authenticate: The request you have made requires authentication.\n"},
		{"OS_REGION_NAME", "three", "could not find Service or Region in Service Catalog\n"},
	}
	for _, test := range tests {
		env := map[string]string{test.name: test.value}
		for k, v := range all {
			if k != test.name {
				env[k] = v
			}
		}
		if _, errOut, code := runQuantum(t, env, "net-list"); code != 1 || errOut != test.want {
			t.Errorf("%s=%q: exit %d, %q, want %q", test.name, test.value, code, errOut, test.want)
		}
	}
}

func TestHeadersOfEachWayToAuthenticate(t *testing.T) {
	var got http.Header
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		got = r.Header.Clone()
		io.WriteString(w, `{"networks": []}`)
	})
	tests := []struct {
		env            map[string]string
		token, project string
	}{
		{map[string]string{"OS_URL": url}, "", ""},
		{map[string]string{"OS_URL": url + "/v2.0", "OS_TOKEN": "tok"}, "tok", ""},
		{map[string]string{"OS_URL": url + "/", "OS_TENANT_ID": "p"}, "", "p"},
		{map[string]string{"OS_URL": url, "OS_TOKEN": "tok", "OS_AUTH_STRATEGY": "noauth"}, "", ""},
		{map[string]string{"OS_URL": url, "OS_AUTH_URL": "http://127.0.0.1:1", "OS_AUTH_STRATEGY": "noauth", "OS_PROJECT_ID": "p"}, "", "p"},
	}
	for _, test := range tests {
		if _, errOut, code := runQuantum(t, test.env, "net-list"); code != 0 {
			t.Errorf("%v: exit %d, %q", test.env, code, errOut)
		}
		if got.Get("X-Auth-Token") != test.token || got.Get("X-Project-Id") != test.project {
			t.Errorf("%v: sent token %q, project %q", test.env, got.Get("X-Auth-Token"), got.Get("X-Project-Id"))
		}
	}
}

func TestDebugShowsRequestsWithoutSecrets(t *testing.T) {
	network := serve(t, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, `{"networks": []}`) })
	url, _ := keystone(t, network)
	env := map[string]string{"OS_AUTH_URL": url, "OS_USERNAME": "demo", "OS_PASSWORD": `p"w`, "OS_TENANT_NAME": "service", "OS_REGION_NAME": "one"}
	_, errOut, code := runQuantum(t, env, "--debug net-list")
	if code != 0 || !strings.Contains(errOut, "REQ: curl -i -X GET '"+network+"/v2.0/networks'") || !strings.Contains(errOut, "RESP: 200 OK") {
		t.Errorf("exit %d, %s", code, errOut)
	}
	for _, secret := range []string{`p\"w`, "secret-token"} {
		if strings.Contains(errOut, secret) {
			t.Errorf("%q is shown: %s", secret, errOut)
		}
	}
}

func TestHelpNamesCommandsAndOptions(t *testing.T) {
	tests := map[string]string{
		"":                   "net-external-list",
		"help":               "subnet-create",
		"--help":             "Commands for API v2.0:",
		"help net-create":    "usage: quantum net-create [options] NAME",
		"subnet-create -h":   "--allocation-pool start=IP_ADDR,end=IP_ADDR",
		"port-delete --help": "usage: quantum port-delete [options] PORT ...",
		"--version":          "quantum dev",
		"bash-completion":    "--fixed-ip",
	}
	for line, want := range tests {
		out, errOut, code := runQuantum(t, nil, line)
		if code != 0 || !strings.Contains(out, want) {
			t.Errorf("quantum %s: exit %d, %q %q, want %q in it", line, code, out, errOut, want)
		}
	}
}

func TestUsageErrorsExitWith2(t *testing.T) {
	for _, line := range []string{"net-frob", "--frob net-list", "net-create", "net-show a --frob x", "ext-list --x=1",
		"subnet-create --gateway 1.1.1.1 --no-gateway n 1.1.1.0/24", "net-list -P many", "net-list --x action=clear"} {
		out, errOut, code := runQuantum(t, map[string]string{"OS_URL": "http://127.0.0.1:1"}, line)
		if code != 2 || !strings.HasPrefix(errOut, "quantum: error: ") || out != "" {
			t.Errorf("quantum %s: exit %d, %q %q", line, code, out, errOut)
		}
	}
}
