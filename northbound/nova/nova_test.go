package nova

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"planck/network"
	"planck/test/pg"
)

const server1 = "11111111-1111-1111-1111-111111111111"

// compute is a Nova that checks what it is sent, and a Keystone that leads to it.
type compute struct {
	*httptest.Server
	t *testing.T

	mu     sync.Mutex
	taken  []string
	codes  map[string][]int // port → codes to answer before 200
	refuse func(events []Event) (status int)
	token  string
	logins int
}

func newCompute(t *testing.T) *compute {
	n := &compute{t: t, codes: map[string][]int{}}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v2.1/os-server-external-events", n.events)
	mux.HandleFunc("POST /identity/v3/auth/tokens", n.login)
	n.Server = httptest.NewServer(mux)
	t.Cleanup(n.Close)
	return n
}

func (n *compute) events(w http.ResponseWriter, r *http.Request) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.token != "" && r.Header.Get("X-Auth-Token") != n.token {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	var body struct {
		Events []Event `json:"events"`
	}
	decoder := json.NewDecoder(r.Body)
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&body); err != nil || len(body.Events) == 0 {
		n.t.Errorf("events: %v", err)
	}
	if n.refuse != nil {
		if status := n.refuse(body.Events); status != 0 {
			w.WriteHeader(status)
			return
		}
	}
	status := http.StatusOK
	answer := []map[string]any{}
	for _, e := range body.Events {
		n.check(e)
		code := http.StatusOK
		if codes := n.codes[e.Tag]; len(codes) > 0 {
			code, n.codes[e.Tag] = codes[0], codes[1:]
		}
		said := "completed"
		if code == http.StatusOK {
			n.taken = append(n.taken, strings.TrimSpace(e.Name+" "+e.Tag+" "+e.Status))
		} else {
			status, said = http.StatusMultiStatus, "failed"
		}
		answer = append(answer, map[string]any{"name": e.Name, "server_uuid": e.ServerUUID, "tag": e.Tag, "status": said, "code": code})
	}
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{"events": answer})
}

// check is Nova's schema of an event.
func (n *compute) check(e Event) {
	_, err := uuid.Parse(e.ServerUUID)
	names := []string{"network-changed", "network-vif-plugged", "network-vif-unplugged", "network-vif-deleted"}
	if err != nil || !slices.Contains(names, e.Name) || !slices.Contains([]string{"", "completed", "failed"}, e.Status) {
		n.t.Errorf("not an event of Nova's: %+v", e)
	}
}

func (n *compute) login(w http.ResponseWriter, r *http.Request) {
	n.mu.Lock()
	defer n.mu.Unlock()
	var body map[string]any
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
		n.t.Error(err)
	}
	want := `map[auth:map[identity:map[methods:[password] password:map[user:map[domain:map[id:default] name:planck password:secret]]] ` +
		`scope:map[project:map[domain:map[name:Default] name:service]]]]`
	if got := fmt.Sprint(body); got != want {
		n.t.Errorf("login:\n got %s\nwant %s", got, want)
	}
	n.logins++
	n.token = fmt.Sprint("token", n.logins)
	w.Header().Set("X-Subject-Token", n.token)
	w.WriteHeader(http.StatusCreated)
	endpoint := func(kind, url string) map[string]any {
		return map[string]any{"interface": kind, "region": "here", "url": url}
	}
	_ = json.NewEncoder(w).Encode(map[string]any{"token": map[string]any{
		"expires_at": time.Now().Add(time.Hour).UTC().Format(time.RFC3339),
		"catalog": []any{
			map[string]any{"type": "network", "endpoints": []any{endpoint("internal", "http://127.0.0.1:1")}},
			map[string]any{"type": "compute", "endpoints": []any{endpoint("public", "http://127.0.0.1:1"), endpoint("internal", n.URL+"/v2.1/")}},
		},
	}})
}

// takes waits until Nova has taken these events and no others.
func (n *compute) takes(want ...string) {
	n.t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for {
		n.mu.Lock()
		got := slices.Clone(n.taken)
		n.mu.Unlock()
		if slices.Equal(got, want) {
			return
		}
		if time.Now().After(deadline) || len(got) > len(want) {
			n.t.Fatalf("Nova took\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func (n *compute) set(fn func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	fn()
}

// cloud is a store whose events go to a Nova.
type cloud struct {
	t     *testing.T
	store *network.Store
	stop  func()
	net   string
}

func openCloud(t *testing.T, dsn string, o Options) *cloud {
	t.Helper()
	o.Triggers = Triggers{StatusChanges: true, DataChanges: true}
	cfg := network.DefaultConfig()
	cfg.Messages = o.Triggers.Messages
	cfg.Log = slog.New(slog.DiscardHandler)
	store, err := network.Open(t.Context(), dsn, cfg)
	if err != nil {
		t.Fatal(err)
	}
	sender, err := NewSender(store, &o, cfg.Log, prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = sender.Run(ctx) })
	c := &cloud{t: t, store: store}
	c.stop = sync.OnceFunc(func() {
		cancel()
		wg.Wait()
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(c.stop)
	return c
}

func newCloud(t *testing.T, o Options) *cloud {
	t.Helper()
	c := openCloud(t, "sqlite://"+filepath.Join(t.TempDir(), "planck.db"), o)
	c.prepare()
	return c
}

// prepare makes a network and two hosts.
func (c *cloud) prepare() {
	c.t.Helper()
	n := &network.Network{Standard: network.Standard{ProjectID: "blue"}, AdminStateUp: true}
	c.update(func(tx *network.Tx) error {
		for i, name := range []string{"h1", "h2"} {
			err := tx.PutHost(&network.Host{Name: name, TunnelIP: netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}),
				Bridges: map[string]network.Bridge{network.BridgeTunnel: {DatapathID: uint64(i), Tunnels: map[string]uint32{"gre": 1}}}})
			if err != nil {
				return err
			}
		}
		return tx.CreateNetwork(n)
	})
	c.net = n.ID
}

func (c *cloud) update(fn func(tx *network.Tx) error) {
	c.t.Helper()
	if _, err := c.store.Update(context.Background(), network.Cause{}, fn); err != nil {
		c.t.Fatal(err)
	}
}

func (c *cloud) port(id, device string) {
	c.t.Helper()
	c.update(func(tx *network.Tx) error {
		return tx.CreatePort(&network.Port{Standard: network.Standard{ID: id, ProjectID: "blue"}, NetworkID: c.net, AdminStateUp: true,
			DeviceID: device, DeviceOwner: "compute:nova", Binding: network.Binding{Host: "h1"}})
	})
}

func (c *cloud) plug(host string, ports ...string) {
	c.t.Helper()
	c.update(func(tx *network.Tx) error {
		var vifs []network.VIF
		for i, id := range ports {
			vifs = append(vifs, network.VIF{PortID: id, Name: "tap", OFPort: uint32(i + 1)})
		}
		return tx.SyncVIFs(host, vifs)
	})
}

func (c *cloud) status(id, status string) {
	c.t.Helper()
	c.update(func(tx *network.Tx) error { return tx.SetPortStatus(network.PortStatus{PortID: id, Status: status}) })
}

func (c *cloud) change(id string, fn func(p *network.Port)) {
	c.t.Helper()
	c.update(func(tx *network.Tx) error {
		p := tx.Port(id).Clone()
		fn(p)
		return tx.UpdatePort(p)
	})
}

func TestNovaIsToldOfTheLifeOfAPort(t *testing.T) {
	n := newCompute(t)
	c := newCloud(t, Options{EndpointOverride: n.URL + "/v2.1/"})
	c.port("p", server1)
	c.port("somebody-elses", "not-a-uuid")
	c.plug("h1", "p", "somebody-elses")
	c.status("p", network.StatusActive)
	c.status("somebody-elses", network.StatusActive)
	want := []string{"network-vif-plugged p completed"}
	n.takes(want...)

	c.change("p", func(p *network.Port) { p.Name = "renamed" })
	want = append(want, "network-changed p")
	n.takes(want...)

	// A move by bindings: the destination is ready, then the port is there.
	c.update(func(tx *network.Tx) error { return tx.CreateBinding("p", network.Binding{Host: "h2"}) })
	c.plug("h2", "p")
	c.update(func(tx *network.Tx) error { return tx.SetReady("p", "h2") })
	want = append(want, "network-vif-plugged p completed")
	n.takes(want...)
	c.update(func(tx *network.Tx) error { return tx.ActivateBinding("p", "h2") })
	want = append(want, "network-vif-unplugged p completed", "network-changed p")
	n.takes(want...)
	c.status("p", network.StatusActive)
	want = append(want, "network-vif-plugged p completed")
	n.takes(want...)

	c.status("p", network.StatusError)
	want = append(want, "network-vif-plugged p failed")
	n.takes(want...)
	c.update(func(tx *network.Tx) error { return tx.DeletePort("p") })
	want = append(want, "network-vif-deleted p")
	n.takes(want...)
}

func TestEachEventIsTriedOnItsOwn(t *testing.T) {
	n := newCompute(t)
	c := newCloud(t, Options{EndpointOverride: n.URL + "/v2.1"})
	n.set(func() {
		n.codes["unknown"] = []int{404}
		n.codes["bad"] = []int{400}
		n.codes["unscheduled"] = []int{422, 422}
	})
	ids := []string{"unknown", "unscheduled", "bad", "fine"}
	for _, id := range ids {
		c.port(id, server1)
	}
	c.plug("h1", ids...)
	c.update(func(tx *network.Tx) error {
		for _, id := range ids {
			if err := tx.SetPortStatus(network.PortStatus{PortID: id, Status: network.StatusActive}); err != nil {
				return err
			}
		}
		return nil
	})
	c.plug("h1", "unknown", "bad", "fine") // behind the event that waits
	n.takes("network-vif-plugged fine completed", "network-vif-plugged unscheduled completed", "network-vif-unplugged unscheduled completed")
}

func TestOneEventThatNovaCannotReadSparesTheOthers(t *testing.T) {
	n := newCompute(t)
	c := newCloud(t, Options{EndpointOverride: n.URL + "/v2.1"})
	n.set(func() {
		n.refuse = func(events []Event) int {
			if slices.ContainsFunc(events, func(e Event) bool { return e.Tag == "poison" }) {
				return http.StatusBadRequest
			}
			return 0
		}
	})
	ids := []string{"a", "poison", "b"}
	for _, id := range ids {
		c.port(id, server1)
	}
	c.update(func(tx *network.Tx) error {
		for _, id := range ids {
			if err := tx.DeletePort(id); err != nil {
				return err
			}
		}
		return nil
	})
	n.takes("network-vif-deleted a", "network-vif-deleted b")
}

func TestEventsOutliveADeadNovaAndTheController(t *testing.T) {
	for name, dsn := range map[string]string{"SQLite": "sqlite://" + filepath.Join(t.TempDir(), "planck.db"), "PostgreSQL": pg.Start(t)} {
		t.Run(name, func(t *testing.T) {
			n := newCompute(t)
			n.set(func() { n.refuse = func([]Event) int { return http.StatusServiceUnavailable } })
			c := openCloud(t, dsn, Options{EndpointOverride: "http://127.0.0.1:1/v2.1"})
			c.prepare()
			start := time.Now()
			c.port("p", server1)
			c.plug("h1", "p")
			c.status("p", network.StatusActive)
			for i := range 50 {
				c.change("p", func(p *network.Port) { p.Name = fmt.Sprint("name", i) })
			}
			if took := time.Since(start); took > 10*time.Second {
				t.Errorf("a dead Nova slows changes: they took %s", took)
			}
			c.stop()

			c = openCloud(t, dsn, Options{EndpointOverride: n.URL + "/v2.1"})
			time.AfterFunc(100*time.Millisecond, func() { n.set(func() { n.refuse = nil }) })
			// The fifty changes are one for Nova, which asks when it is told.
			n.takes("network-vif-plugged p completed", "network-changed p")

			c.stop()
		})
	}
}

func TestNovaIsFoundByKeystonesCatalog(t *testing.T) {
	n := newCompute(t)
	c := newCloud(t, Options{AuthURL: n.URL + "/identity/v3", Username: "planck", Password: "secret", ProjectName: "service",
		ProjectDomainName: "Default", RegionName: "here", EndpointType: "internal"})
	c.port("p", server1)
	c.change("p", func(p *network.Port) { p.Name = "one" })
	n.takes("network-changed p")
	n.set(func() { n.token = "revoked" }) // and everything signed before
	c.change("p", func(p *network.Port) { p.Name = "two" })
	n.takes("network-changed p", "network-changed p")
	n.set(func() {
		if n.logins != 2 {
			t.Errorf("%d logins, want 2", n.logins)
		}
	})
}
