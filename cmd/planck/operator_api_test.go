package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"planck/controller"
	"planck/network"
	"planck/ovsdb"
)

func TestOperatorAPIAnswersErrorsAsTheRestOfTheAPI(t *testing.T) {
	store, err := network.Open(t.Context(), "sqlite://"+t.TempDir()+"/planck.db", network.DefaultConfig())
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	p := &parts{controller: controller.New(controller.Options{Store: store})}
	if p.ovsdb, err = ovsdb.New(ovsdb.Options{Store: store, OpenFlowPort: 6653}); err != nil {
		t.Fatal(err)
	}
	for request, want := range map[string]string{
		"GET /planck/v1/flows?host=h1":     `404 {"NeutronError": {"type": "HostNotFound", "message": "host \"h1\" is not known", "detail": ""}}`,
		"DELETE /planck/v1/hosts/h1":       `404 {"NeutronError": {"type": "HostNotFound", "message": "Host h1 could not be found.", "detail": ""}}`,
		"GET /planck/v1/hosts":             `200 {"hosts":[],"silent":[]}`,
		"DELETE /planck/v1/cluster/m1":     `404 {"NeutronError": {"type": "ClusterNotFound", "message": "This controller is the only one: its database is SQLite.", "detail": ""}}`,
		"GET /planck/v1/flows":             `400 {"NeutronError": {"type": "HTTPBadRequest", "message": "the query has no host, and nothing that the flows shall stand for", "detail": ""}}`,
		"GET /planck/v1/diff":              `400 {"NeutronError": {"type": "HTTPBadRequest", "message": "the query has no host", "detail": ""}}`,
		"GET /planck/v1/diff?host=h1":      `404 {"NeutronError": {"type": "HostNotFound", "message": "host \"h1\" is not known", "detail": ""}}`,
		"GET /planck/v1/explain":           `400 {"NeutronError": {"type": "HTTPBadRequest", "message": "the query has no resource", "detail": ""}}`,
		"GET /planck/v1/nothing":           `404 {"NeutronError": {"type": "HTTPNotFound", "message": "The resource could not be found.", "detail": ""}}`,
		"GET /planck/v1/diff?host=h1&at=x": `400 {"NeutronError": {"type": "HTTPBadRequest", "message": "at is \"x\", not a revision", "detail": ""}}`,
		"GET /planck/v1/changes":           `503 {"NeutronError": {"type": "NotReady", "message": "the model is not read yet", "detail": ""}}`,
		"GET /planck/v1/changes?limit=x":   `400 {"NeutronError": {"type": "HTTPBadRequest", "message": "limit is \"x\", not a number above 0", "detail": ""}}`,
		"POST /planck/v1/hosts": `405 {"NeutronError": {"type": "HTTPMethodNotAllowed",` +
			` "message": "The server could not comply with the request since it is either malformed or otherwise incorrect.", "detail": ""}}`,
	} {
		method, path, _ := strings.Cut(request, " ")
		w := httptest.NewRecorder()
		operatorAPI(p).ServeHTTP(w, httptest.NewRequest(method, path, nil))
		if got := fmt.Sprint(w.Code, " ", strings.TrimSpace(w.Body.String())); got != want || w.Header().Get("Content-Type") != "application/json" {
			t.Errorf("%s: %s (%s), want %s", request, got, w.Header(), want)
		}
	}
}

// A controller alone is no error: the console asks whether there is a cluster.
func TestAControllerAloneSaysSo(t *testing.T) {
	mux := http.NewServeMux()
	clusterAPI(mux, &parts{})
	api := httptest.NewServer(mux)
	defer api.Close()
	for _, c := range []struct{ output, says string }{{"text", onlyOne + "\n"}, {"json", `"alone": "` + onlyOne}, {"json", `"members": []`}} {
		var out strings.Builder
		if code := run([]string{"cluster", "-o", c.output, "--url", api.URL}, &out, &out); code != 0 || !strings.Contains(out.String(), c.says) {
			t.Errorf("-o %s: exit code %d, %s, want %s", c.output, code, out.String(), c.says)
		}
	}
}

func TestHostsAreShownWithTheConnectionOfTheirOwnMachine(t *testing.T) {
	record := func(name, id string) controller.HostRecord { return controller.HostRecord{Name: name, SystemID: id} }
	connected := func(name, id string) ovsdb.HostState {
		return ovsdb.HostState{Name: name, SystemID: id, Connected: true}
	}
	refused := func(name, id string) ovsdb.HostState {
		return ovsdb.HostState{Name: name, SystemID: id, Problem: "the name is taken"}
	}
	for _, c := range []struct {
		what    string
		records []controller.HostRecord
		states  []ovsdb.HostState
		want    []string
	}{
		{"one host", []controller.HostRecord{record("h1", "b")}, []ovsdb.HostState{connected("h1", "b")}, []string{"h1 b: b true"}},
		{"another machine was refused, and comes first", []controller.HostRecord{record("h1", "b")},
			[]ovsdb.HostState{refused("h1", "a"), connected("h1", "b")}, []string{"h1 b: b true", "h1 a: a false"}},
		{"the machine itself dialled twice", []controller.HostRecord{record("h1", "b")},
			[]ovsdb.HostState{refused("h1", "b"), connected("h1", "b")}, []string{"h1 b: b true", "h1 b: b false"}},
		{"the machine itself dialled twice, the other order", []controller.HostRecord{record("h1", "b")},
			[]ovsdb.HostState{connected("h1", "b"), refused("h1", "b")}, []string{"h1 b: b true", "h1 b: b false"}},
		{"another machine takes the place of a silent one", []controller.HostRecord{record("h1", "b")},
			[]ovsdb.HostState{connected("h1", "c")}, []string{"h1 b: c true"}},
		{"a machine that joins", nil, []ovsdb.HostState{connected("h2", "d")}, []string{"h2 d: d true"}},
	} {
		var got []string
		for _, v := range joinHosts(c.records, c.states) {
			got = append(got, fmt.Sprintf("%s %s: %s %v", v.Name, v.SystemID, v.OVSDB.SystemID, v.OVSDB.Connected))
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: got %v, want %v", c.what, got, c.want)
		}
	}
}
