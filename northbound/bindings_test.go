package northbound

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"planck/network"
)

// hosts joins hypervisors that any tunnel reaches.
func (a *api) hosts(names ...string) {
	a.t.Helper()
	a.change(func(tx *network.Tx) error {
		for i, name := range names {
			err := tx.PutHost(&network.Host{Name: name, SystemID: name, TunnelIP: netip.AddrFrom4([4]byte{192, 0, 2, byte(i + 1)}),
				Bridges: map[string]network.Bridge{network.BridgeTunnel: {DatapathID: uint64(i), Tunnels: map[string]uint32{"gre": 1}}}})
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// change does what is not done by the API.
func (a *api) change(fn func(tx *network.Tx) error) {
	a.t.Helper()
	if _, err := a.store.Update(a.t.Context(), network.Cause{Operation: "test"}, fn); err != nil {
		a.t.Fatal(err)
	}
}

func TestLiveMigrationByBindings(t *testing.T) {
	onEach(t, func(t *testing.T, a *api) {
		a.hosts("h1", "h2.example.org")
		net := a.network(blue, "")
		port := a.port(admin, net, `, "tenant_id": "blue", "device_owner": "compute:nova", "device_id": "vm", "binding:host_id": "h1"`)
		base := "/v2.0/ports/" + port + "/bindings"
		details := map[string]any{"port_filter": true, "ovs_hybrid_plug": false, "datapath_type": "system", "bridge_name": "br-int",
			"connectivity": "l2", "ovs_create_tap": true, "bound_drivers": map[string]any{"0": "ovs"}}
		want := map[string]any{"host": "h2.example.org", "vif_type": "ovs", "vif_details": details, "vnic_type": "normal",
			"profile": map[string]any{"migrating_to": "h2"}, "status": "INACTIVE"}
		got := a.must(201, admin, "POST", base, `{"binding": {"host": "h2.example.org", "vnic_type": "normal", "profile": {"migrating_to": "h2"}}}`).body["binding"]
		if diff := cmp.Diff(any(want), got); diff != "" {
			t.Errorf("created binding (-want +got):\n%s", diff)
		}
		if p := a.show(admin, "port", port); p["binding:host_id"] != "h1" || p["binding:vif_type"] != "ovs" {
			t.Errorf("the source is no longer bound: %v", p)
		}
		listed := func(query string, want ...string) {
			t.Helper()
			hosts := []string{}
			for _, b := range a.must(200, admin, "GET", base+query, "").body["bindings"].([]any) {
				b := b.(map[string]any)
				hosts = append(hosts, fmt.Sprint(b["host"], " ", b["status"]))
			}
			if diff := cmp.Diff(want, hosts); diff != "" {
				t.Errorf("bindings%s (-want +got):\n%s", query, diff)
			}
		}
		listed("", "h1 ACTIVE", "h2.example.org INACTIVE")
		listed("?status=INACTIVE", "h2.example.org INACTIVE")
		listed("?host=h1&host=h3&fields=host&fields=status", "h1 ACTIVE")
		if b := a.must(200, admin, "GET", base+"/h2.example.org?fields=host", "").body["binding"]; !cmp.Equal(b, any(map[string]any{"host": "h2.example.org"})) {
			t.Errorf("one field of one binding: %v", b)
		}
		// A binding that was left behind does not block the next try.
		a.must(201, admin, "POST", base, `{"binding": {"host": "h2.example.org"}}`)
		b := a.must(200, admin, "PUT", base+"/h2.example.org", `{"binding": {"profile": {"a": 1}}}`).body["binding"].(map[string]any)
		if !cmp.Equal(b["profile"], any(map[string]any{"a": 1.0})) || b["status"] != "INACTIVE" {
			t.Errorf("changed binding: %v", b)
		}
		active := a.must(200, admin, "PUT", base+"/h2.example.org/activate", "").body
		if active["host"] != "h2.example.org" || active["status"] != "ACTIVE" || active["vif_type"] != "ovs" {
			t.Errorf("activated binding: %v", active)
		}
		if p := a.show(admin, "port", port); p["binding:host_id"] != "h2.example.org" || p["binding:vif_type"] != "ovs" || p["status"] != "DOWN" {
			t.Errorf("the port did not move: %v", p)
		}
		listed("", "h2.example.org ACTIVE", "h1 INACTIVE")
		a.refused(admin, "PUT", base+"/h2.example.org/activate", "", 409, "PortBindingAlreadyActive",
			"Binding for port "+port+" on host h2.example.org is already active.")
		a.must(204, admin, "DELETE", base+"/h1", "")
		a.refused(admin, "DELETE", base+"/h1", "", 404, "PortBindingNotFound", "Binding for port "+port+" for host h1 could not be found.")
		a.must(200, admin, "PUT", base+"/h2.example.org", `{"binding": {"vnic_type": "direct"}}`)
		if p := a.show(admin, "port", port); p["binding:vnic_type"] != "direct" || p["binding:vif_type"] != "binding_failed" {
			t.Errorf("a change of the active binding is one of the port: %v", p)
		}
		a.must(204, admin, "DELETE", base+"/h2.example.org", "")
		if p := a.show(admin, "port", port); p["binding:host_id"] != "" || p["binding:vif_type"] != "unbound" {
			t.Errorf("without its active binding the port is unbound: %v", p)
		}
	})
}

func TestBindingsAreChecked(t *testing.T) {
	a := newAPI(t)
	a.hosts("h1", "h2")
	net := a.network(blue, "")
	port := a.port(admin, net, `, "tenant_id": "blue", "device_owner": "compute:nova", "binding:host_id": "h1"`)
	base := "/v2.0/ports/" + port + "/bindings"
	for _, c := range []struct {
		who                headers
		method, path, body string
		status             int
		typ                string
	}{
		{admin, "POST", base, `{"binding": {"host": "h1"}}`, 409, "PortBindingAlreadyExists"},
		{admin, "POST", base, `{"binding": {"host": "nowhere"}}`, 409, "PortBindingError"},
		{admin, "POST", base, `{"binding": {}}`, 400, "HTTPBadRequest"},
		{admin, "POST", base, `{"binding": {"host": ""}}`, 400, "HTTPBadRequest"},
		{admin, "POST", base, `{"binding": {"host": 5}}`, 400, "HTTPBadRequest"},
		{admin, "POST", base, `{"binding": {"host": "h2", "vnic_type": "warp"}}`, 400, "HTTPBadRequest"},
		{admin, "POST", base, `{"binding": {"host": "h2", "profile": 5}}`, 400, "HTTPBadRequest"},
		{admin, "POST", base, `{"binding": {"host": "h2", "status": "ACTIVE"}}`, 400, "HTTPBadRequest"},
		{admin, "POST", base, `{"bindings": []}`, 400, "HTTPBadRequest"},
		{admin, "PUT", base + "/h2", `{"binding": {}}`, 404, "PortBindingNotFound"},
		{admin, "PUT", base + "/h1", `{"binding": {"host": "h2"}}`, 400, "BadRequest"},
		{admin, "PUT", base + "/h2/activate", ``, 404, "PortBindingNotFound"},
		{admin, "GET", base + "/h2", ``, 404, "PortBindingNotFound"},
		{admin, "GET", base + "?color=blue", ``, 400, "HTTPBadRequest"},
		{admin, "POST", "/v2.0/ports/none/bindings", `{"binding": {"host": "h2"}}`, 404, "PortNotFound"},
		{admin, "POST", "/v2.0/ports/" + a.port(blue, net, "") + "/bindings", `{"binding": {"host": "h2"}}`, 400, "BadRequest"},
		{blue, "POST", base, `{"binding": {"host": "h2"}}`, 403, "PolicyNotAuthorized"},
		{blue, "GET", base, ``, 404, "HTTPNotFound"},
		{red, "POST", base, `{"binding": {"host": "h2"}}`, 404, "PortNotFound"},
	} {
		a.refused(c.who, c.method, c.path, c.body, c.status, c.typ, "")
	}
}
