package northbound

import (
	"cmp"
	"fmt"
	"path/filepath"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
)

func TestHostsAreShownAsAgents(t *testing.T) {
	a := newAPIOn(t, "sqlite://"+filepath.Join(t.TempDir(), "planck.db"), Options{Alive: func(host string) bool { return host != "h2" }})
	a.hosts("h1", "h2")
	for query, want := range map[string]string{
		"":                    "[h1 h2]",
		"alive=False":         "[h2]",
		"host=h1":             "[h1]",
		"agent_type=DHCP":     "[]",
		"admin_state_up=true": "[h1 h2]",
	} {
		if got := fmt.Sprint(a.list(admin, "agents", query+"&sort_key=host&sort_dir=asc", "host")); got != want {
			t.Errorf("agents?%s: %s, want %s", query, got, want)
		}
	}
	if got := a.list(blue, "agents", "", "host"); len(got) != 0 {
		t.Errorf("a tenant sees agents: %v", got)
	}
	id := a.list(admin, "agents", "host=h2", "id")[0]
	agent := a.show(admin, "agent", id)
	if agent["alive"] != false || agent["heartbeat_timestamp"] != nil || agent["agent_type"] != "Open vSwitch agent" ||
		agent["configurations"].(map[string]any)["tunneling_ip"] != "192.0.2.2" {
		t.Errorf("agent: %v", agent)
	}
	a.refused(blue, "GET", "/v2.0/agents/"+id, "", 404, "AgentNotFound", "Agent "+id+" could not be found.")
	a.refused(admin, "POST", "/v2.0/agents", "{}", 405, "HTTPMethodNotAllowed", "")
}

// A host whose switch is away for a moment comes back by what its database says.
func TestAgentOfAHostWhoseDatabaseIsConnectedStays(t *testing.T) {
	a := newAPIOn(t, "sqlite://"+filepath.Join(t.TempDir(), "planck.db"), Options{
		Alive: func(string) bool { return false }, Joined: func(host string) bool { return host == "h1" },
	})
	a.hosts("h1", "h2")
	joined, gone := a.list(admin, "agents", "host=h1", "id")[0], a.list(admin, "agents", "host=h2", "id")[0]
	a.refused(admin, "DELETE", "/v2.0/agents/"+joined, "", 409, "HostInUse", "Host h1 is connected.")
	a.must(204, admin, "DELETE", "/v2.0/agents/"+gone, "")
}

func TestAgentsAreChangedAndThoseOfDeadHostsDeleted(t *testing.T) {
	onEachWith(t, Options{Alive: func(host string) bool { return host != "h2" }}, func(t *testing.T, a *api) {
		a.hosts("h1", "h2")
		live, dead := a.list(admin, "agents", "host=h1", "id")[0], a.list(admin, "agents", "host=h2", "id")[0]
		a.put(admin, "agent", dead, `{"admin_state_up": "False", "description": "being repaired"}`)
		if got := a.list(admin, "agents", "admin_state_up=False", "description"); fmt.Sprint(got) != "[being repaired]" {
			t.Errorf("agents that are down: %v", got)
		}
		if agent := a.put(admin, "agent", dead, `{"description": null}`); agent["description"] != nil || agent["admin_state_up"] != false {
			t.Errorf("agent: %v", agent)
		}
		for body, message := range map[string]string{
			`{"agent": {"admin_state_up": "perhaps"}}`: "",
			`{"agent": {"alive": true}}`:               "Cannot update read-only attribute alive",
			`{"agent": {"nonsense": 1}}`:               "Unrecognized attribute(s) 'nonsense'",
		} {
			a.refused(admin, "PUT", "/v2.0/agents/"+dead, body, 400, cmp.Or(map[string]string{"": "InvalidInput"}[message], "HTTPBadRequest"), message)
		}
		a.refused(blue, "PUT", "/v2.0/agents/"+dead, `{"agent": {"admin_state_up": false}}`, 404, "AgentNotFound", "")
		a.refused(blue, "DELETE", "/v2.0/agents/"+dead, "", 404, "AgentNotFound", "")
		a.refused(admin, "DELETE", "/v2.0/agents/"+live, "", 409, "HostInUse", "Host h1 is connected.")
		a.must(204, admin, "DELETE", "/v2.0/agents/"+dead, "")
		a.refused(admin, "DELETE", "/v2.0/agents/"+dead, "", 404, "AgentNotFound", "Agent "+dead+" could not be found.")
		if got := fmt.Sprint(a.list(admin, "agents", "", "host")); got != "[h1]" {
			t.Errorf("hosts that are left: %s", got)
		}
		a.hosts("h2")
		if agent := a.show(admin, "agent", dead); agent["admin_state_up"] != true {
			t.Errorf("a host that comes back: %v", agent)
		}
	})
}

func TestAddressesAreCounted(t *testing.T) {
	a := newAPI(t)
	net := a.network(blue, `"name": "n"`)
	four := a.subnet(blue, net, "10.0.0.0/24", `, "name": "four"`)
	six := a.subnet(blue, net, "2001:db8::/64", "")
	a.port(blue, net, fmt.Sprintf(`, "fixed_ips": [{"subnet_id": %q}, {"subnet_id": %q}]`, four, four))
	used := len(a.list(blue, "ports", "fixed_ips=subnet_id="+six, "id"))
	got := a.must(200, admin, "GET", "/v2.0/network-ip-availabilities/"+net, "").body["network_ip_availability"].(map[string]any)
	want := map[string]any{
		"network_id": net, "network_name": "n", "tenant_id": "blue", "project_id": "blue",
		"total_ips": 18446744073709551867.0, "used_ips": float64(3 + used),
	}
	subnets := got["subnet_ip_availability"].([]any)
	delete(got, "subnet_ip_availability")
	if diff := gocmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if len(subnets) != 2 {
		t.Errorf("subnets: %v", subnets)
	}
	if got := a.list(admin, "network-ip-availabilities", "ip_version=6&network_name=n", "network_id"); len(got) != 1 || got[0] != net {
		t.Errorf("by version: %v", got)
	}
	if got := a.list(blue, "network-ip-availabilities", "", "network_id"); len(got) != 0 {
		t.Errorf("a tenant counts: %v", got)
	}
}
