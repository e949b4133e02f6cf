package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
)

// events are what a Nova was told.
type events struct {
	mu  sync.Mutex
	got []string
}

// newNova takes events as Nova does.
func newNova(t *testing.T) (*events, string) {
	t.Helper()
	e := &events{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var body struct {
			Events []map[string]string `json:"events"`
		}
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil || r.URL.Path != "/v2.1/os-server-external-events" {
			t.Errorf("%s: %v", r.URL, err)
		}
		e.mu.Lock()
		defer e.mu.Unlock()
		answer := []object{}
		for _, one := range body.Events {
			e.got = append(e.got, one["name"]+" "+one["tag"])
			answer = append(answer, object{"name": one["name"], "server_uuid": one["server_uuid"], "tag": one["tag"], "status": "completed", "code": 200})
		}
		_ = json.NewEncoder(w).Encode(object{"events": answer})
	}))
	t.Cleanup(server.Close)
	return e, server.URL + "/v2.1"
}

// count is how often an event was told.
func (e *events) count(name, portID string) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.got) - len(slices.DeleteFunc(slices.Clone(e.got), func(s string) bool { return s == name+" "+portID }))
}

func (c *cloud) told(e *events, name, portID string, times int) {
	c.Helper()
	c.eventually(fmt.Sprintf("Nova is told %s %d times", name, times), func() error {
		if n := e.count(name, portID); n != times {
			return fmt.Errorf("%d times", n)
		}
		return nil
	})
}

// TestLiveMigrationByBindings is what Nova does (extension binding-extended):
// it binds the port to the destination as well, starts the guest there, waiting,
// and makes the destination's binding the active one when the guest has moved.
func TestLiveMigrationByBindings(t *testing.T) {
	t.Parallel()
	told, url := newNova(t)
	c := newCloud(t, 3, nil, "[nova]\nendpoint_override = "+url+"\n")
	id := c.network("blue", "10.0.0.0/24", nil)
	a, source := c.boot("a", "host1", id, nil), c.boot("source", "host2", id, object{"device_id": "b1a5f2a0-0000-4000-8000-000000000001"})
	c.told(told, "network-vif-plugged", source.id(), 1)
	c.dhcp(a)
	c.dhcp(source)
	c.reaches(a.Node, source.ip())

	bindings := "/v2.0/ports/" + source.id() + "/bindings"
	status, made := c.call(http.MethodPost, bindings, object{"binding": object{"host": "host3", "vnic_type": "normal", "profile": object{}}})
	if status != http.StatusCreated || made["binding"].(object)["status"] != "INACTIVE" {
		t.Fatalf("binding: %d %v", status, made)
	}
	// The network is there before the guest is: its flows are what the move needs.
	target := c.plug("target", "host3", source.port)
	if err := target.SetAddr(t.Context(), source.ip()+"/24"); err != nil {
		t.Fatal(err)
	}
	c.eventually("host3 has the network's flows", func() error {
		if text := c.flows("host3", "br-tun"); !strings.Contains(text, a.mac()) {
			return fmt.Errorf("br-tun: %s", text)
		}
		return nil
	})
	c.told(told, "network-vif-plugged", source.id(), 2)
	arrived, err := target.Capture("eth0", "icmp")
	if err != nil {
		t.Fatal(err)
	}
	announced, err := a.Capture("eth0", "arp and ether src "+source.mac())
	if err != nil {
		t.Fatal(err)
	}
	c.reaches(a.Node, source.ip())
	c.cutOff(target.Node, a.ip())
	if text := arrived.Text(); strings.Contains(text, a.ip()+" > ") {
		t.Errorf("frames came to the host that is not active:\n%s", text)
	}
	if got := c.show("port", source.id()); got["status"] != "ACTIVE" || got["binding:host_id"] != "host2" {
		t.Errorf("the port is no longer at its source: %v", got)
	}

	if status, out := c.call(http.MethodPut, bindings+"/host3/activate", nil); status != http.StatusOK {
		t.Fatalf("activate: %d %v", status, out)
	}
	c.waitStatus(source.id(), "ACTIVE")
	c.told(told, "network-vif-plugged", source.id(), 3)
	if got := c.show("port", source.id())["binding:host_id"]; got != "host3" {
		t.Errorf("bound to %v", got)
	}
	c.eventually("the target answers", func() error {
		if _, received, _ := a.Ping(t.Context(), source.ip(), 1, "-W", "1"); received == 0 {
			return fmt.Errorf("no answer")
		}
		if text := arrived.Text(); !strings.Contains(text, a.ip()+" > "+source.ip()) {
			return fmt.Errorf("the answer was not the target's: %q", text)
		}
		return nil
	})
	if err := announced.WaitFor(t.Context(), "Request who-has "+source.ip()); err != nil {
		t.Errorf("the move is not announced: %v", err)
	}
	c.cutOff(source.Node, a.ip())
	if status, out := c.call(http.MethodDelete, bindings+"/host2", nil); status != http.StatusNoContent {
		t.Fatalf("delete the source's binding: %d %v", status, out)
	}
	c.eventually("host2 forgets the network", func() error {
		if text := c.flows("host2", "br-tun"); strings.Contains(text, a.mac()) {
			return fmt.Errorf("br-tun: %s", text)
		}
		return nil
	})
}
