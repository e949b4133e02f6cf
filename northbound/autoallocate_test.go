package northbound

import (
	"fmt"
	"slices"
	"sync"
	"testing"
)

const topologyPath = "/v2.0/auto-allocated-topology/"

func TestAutoAllocatedTopologySaysWhatIsMissing(t *testing.T) {
	a := newAPI(t)
	for _, path := range []string{topologyPath + "blue", topologyPath + "blue?fields=dry-run", topologyPath + "None"} {
		a.refused(blue, "GET", path, "", 409, "AutoAllocationFailure", "Deployment error: No default router:external network.")
	}
	a.network(admin, `"router:external": true, "is_default": true`)
	a.pool(admin, `"prefixes": ["10.0.0.0/8"], "is_default": true`)
	for _, path := range []string{topologyPath + "blue", topologyPath + "blue?fields=dry-run"} {
		a.refused(blue, "GET", path, "", 409, "AutoAllocationFailure", "Deployment error: No default subnetpools defined.")
	}
	a.refused(blue, "GET", topologyPath+"blue?fields=id", "", 400, "BadRequest", "Bad auto_allocate request: Unrecognized field.")
	a.refused(red, "GET", topologyPath+"blue", "", 403, "NotAuthorized", "Not authorized.")
	a.must(204, blue, "DELETE", topologyPath+"blue", "")
}

// withDefaults makes what topologies are made of.
func (a *api) withDefaults(prefixLength int) {
	a.t.Helper()
	public := a.network(admin, `"router:external": true, "is_default": true`)
	a.subnet(admin, public, "203.0.113.0/24", `, "enable_dhcp": false`)
	a.pool(admin, fmt.Sprintf(`"prefixes": ["10.0.0.0/24"], "is_default": true, "shared": true, "default_prefixlen": %d`, prefixLength))
	a.pool(admin, `"prefixes": ["2001:db8::/48"], "is_default": true, "shared": true`)
}

func TestAutoAllocatedTopologyIsMadeOnceAndDeleted(t *testing.T) {
	onEach(t, func(t *testing.T, a *api) {
		a.withDefaults(26)
		dry := a.must(200, blue, "GET", topologyPath+"None?fields=dry-run", "").body["auto_allocated_topology"].(map[string]any)
		if dry["id"] != "dry-run=pass" || dry["tenant_id"] != "blue" || len(a.list(blue, "routers", "", "id")) != 0 {
			t.Errorf("the dry run: %v", dry)
		}
		made := a.must(200, blue, "GET", topologyPath+"blue", "").body["auto_allocated_topology"].(map[string]any)
		net := made["id"].(string)
		if made["tenant_id"] != "blue" || made["project_id"] != "blue" {
			t.Errorf("the topology: %v", made)
		}
		if n := a.show(blue, "network", net); n["name"] != "auto_allocated_network" || n["admin_state_up"] != true || n["project_id"] != "blue" {
			t.Errorf("the network: %v", n)
		}
		names := a.list(blue, "subnets", "network_id="+net+"&sort_key=name&sort_dir=asc", "name")
		cidrs := a.list(blue, "subnets", "network_id="+net+"&sort_key=name&sort_dir=asc", "cidr")
		if !slices.Equal(names, []string{"auto_allocated_subnet_v4", "auto_allocated_subnet_v6"}) || !slices.Equal(cidrs, []string{"10.0.0.0/26", "2001:db8::/64"}) {
			t.Errorf("the subnets: %v %v", names, cidrs)
		}
		routers := a.list(blue, "routers", "name=auto_allocated_router", "id")
		if ports := a.list(admin, "ports", "device_owner=network:router_interface&device_id="+routers[0], "network_id"); !slices.Equal(slices.Compact(ports), []string{net}) {
			t.Errorf("the interfaces of the router are on %v", ports)
		}
		before := a.store.View().Revision()
		if again := a.must(200, admin, "GET", topologyPath+"blue", "").body["auto_allocated_topology"].(map[string]any); again["id"] != net || a.store.View().Revision() != before {
			t.Errorf("a second time: %v", again)
		}
		port := a.port(blue, net, "")
		a.refused(blue, "DELETE", topologyPath+"blue", "", 409, "NetworkInUse", "")
		a.must(204, blue, "DELETE", "/v2.0/ports/"+port, "")
		a.must(204, blue, "DELETE", topologyPath+"blue", "")
		for _, collection := range []string{"networks", "subnets", "routers"} {
			if left := a.list(blue, collection, "tenant_id=blue", "id"); len(left) != 0 {
				t.Errorf("%s that are left: %v", collection, left)
			}
		}
	})
}

func TestAutoAllocatedTopologyIsMadeAnewWhenItsNetworkWasDeleted(t *testing.T) {
	a := newAPI(t)
	a.withDefaults(25)
	topology := func(who headers, project string) string {
		t.Helper()
		return a.must(200, who, "GET", topologyPath+project, "").body["auto_allocated_topology"].(map[string]any)["id"].(string)
	}
	first := topology(blue, "blue")
	router := a.list(blue, "routers", "", "id")[0]
	for _, s := range a.list(blue, "subnets", "network_id="+first, "id") {
		a.must(200, blue, "PUT", "/v2.0/routers/"+router+"/remove_router_interface", `{"subnet_id": "`+s+`"}`)
	}
	a.must(204, blue, "DELETE", "/v2.0/networks/"+first, "")
	if second := topology(blue, "blue"); second == first {
		t.Error("the network that was deleted is told again")
	}
	topology(red, "red")
	a.refused(headers{"X-Project-Id": "green"}, "GET", topologyPath+"green", "", 409, "AutoAllocationFailure",
		"Deployment error: Unable to provide tenant private network.")
	a.must(204, blue, "DELETE", "/v2.0/routers/"+router, "")
	a.must(204, blue, "DELETE", topologyPath+"blue", "")
	topology(headers{"X-Project-Id": "green"}, "green")
}

// TestTopologyAskedForByManyAtOnceIsOne lets many clients of one project race.
func TestTopologyAskedForByManyAtOnceIsOne(t *testing.T) {
	onEach(t, func(t *testing.T, a *api) {
		a.withDefaults(26)
		var wg sync.WaitGroup
		ids := make([]any, 8)
		for i := range ids {
			wg.Go(func() {
				r := a.send(blue, "GET", topologyPath+"blue", "")
				if r.status != 200 {
					t.Errorf("%d %s", r.status, r.raw)
					return
				}
				ids[i] = r.body["auto_allocated_topology"].(map[string]any)["id"]
			})
		}
		wg.Wait()
		if different := slices.Compact(ids); len(different) != 1 {
			t.Errorf("topologies: %v", different)
		}
		for collection, want := range map[string]int{"networks": 1, "routers": 1, "subnets": 2} {
			if got := a.list(blue, collection, "tenant_id=blue", "id"); len(got) != want {
				t.Errorf("%d %s, want %d", len(got), collection, want)
			}
		}
	})
}
