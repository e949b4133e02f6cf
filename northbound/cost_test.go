package northbound

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestStatementsPerCallDoNotGrow counts what each call costs the database:
// reading nothing, since the model is in memory, and a change the same with 10
// ports as with 500.
func TestStatementsPerCallDoNotGrow(t *testing.T) {
	// A change: BEGIN, the revision read, claims deleted and inserted, objects
	// deleted and written, the allocator's cursor, the change log, the revision
	// written, COMMIT, each where there is something to write; PostgreSQL also
	// notifies. What is refused rolls back.
	limits := map[string]uint64{
		"GET one": 0, "GET list": 0, "GET page": 0, "GET by filter": 0, "refused": 3,
		"POST network": 8, "PUT network": 6, "DELETE network": 7,
		"POST subnet": 7, "PUT subnet": 6, "DELETE subnet": 8,
		"POST port": 8, "PUT port": 6, "DELETE port": 7, "POST 100 ports": 8,
		"POST security-group": 8, "PUT security-group": 6, "DELETE security-group": 7,
		"POST security-group-rule": 8, "PUT security-group-rule": 6, "DELETE security-group-rule": 8,
		"POST subnetpool": 6, "PUT subnetpool": 6, "DELETE subnetpool": 6,
	}
	onEach(t, func(t *testing.T, a *api) {
		notify := uint64(0)
		if strings.HasSuffix(t.Name(), "PostgreSQL") {
			notify = 1
		}
		small := a.statements(t, 10)
		large := a.statements(t, 500)
		for _, call := range slices.Sorted(maps.Keys(limits)) {
			t.Logf("%s: %d statements", call, small[call])
			if small[call] != large[call] {
				t.Errorf("%s: %d statements with 10 ports, %d with 500", call, small[call], large[call])
			}
			most := limits[call]
			if strings.HasPrefix(call, "P") || strings.HasPrefix(call, "DELETE") {
				most += notify
			}
			if large[call] > most {
				t.Errorf("%s: %d statements, want %d at the most", call, large[call], most)
			}
		}
	})
}

// statements counts the statements of each call in a cloud with so many ports.
func (a *api) statements(t *testing.T, ports int) map[string]uint64 {
	a.t = t
	n := a.network(admin, "")
	s := a.subnet(admin, n, "10.0.0.0/16", "")
	port := fmt.Sprintf(`{"network_id": %q}`, n)
	for range ports / 10 {
		a.must(201, admin, "POST", "/v2.0/ports", `{"ports": [`+strings.Repeat(port+",", 9)+port+`]}`)
	}
	p := a.port(admin, n, "")
	round := 0
	name := func() string { round++; return fmt.Sprintf("name%d", round) }
	created := func(kind, collection, body string) func() string {
		return func() string {
			return a.must(201, admin, "POST", "/v2.0/"+collection, body).body[strings.ReplaceAll(kind, "-", "_")].(map[string]any)["id"].(string)
		}
	}
	counts := map[string]uint64{}
	read := func(path string) func() { return func() { a.must(200, admin, "GET", path, "") } }
	counts["GET one"] = a.fewest(read("/v2.0/ports/" + p))
	counts["GET list"] = a.fewest(read("/v2.0/ports"))
	counts["GET page"] = a.fewest(read("/v2.0/ports?limit=5&sort_key=name&sort_dir=asc"))
	counts["GET by filter"] = a.fewest(read("/v2.0/ports?network_id=" + n))
	counts["refused"] = a.fewest(func() { a.must(409, admin, "DELETE", "/v2.0/networks/"+n, "") })
	group := a.create(admin, "security-group", `{"name": "g"}`)["id"].(string)
	for i := range ports / 10 {
		a.rule(group, 1000+i)
	}
	rules := 0
	for _, c := range []struct {
		kind, id string
		create   func() string
	}{
		{"security-group", group, created("security-group", "security-groups", `{"security_group": {"name": "h"}}`)},
		{"security-group-rule", a.rule(group, 80), func() string { rules++; return a.rule(group, 2000+rules) }},
		{"subnetpool", a.pool(admin, `"prefixes": ["10.64.0.0/10"]`), created("subnetpool", "subnetpools", `{"subnetpool": {"name": "p", "prefixes": ["10.64.0.0/10"]}}`)},
		{"network", n, created("network", "networks", `{"network": {}}`)},
		{"subnet", s, nil},
		{"port", p, created("port", "ports", `{"port": `+port+`}`)},
	} {
		path := "/v2.0/" + c.kind + "s/"
		if c.create == nil {
			nets := 0
			c.create = func() string {
				nets++
				return a.subnet(admin, n, fmt.Sprintf("10.%d.0.0/16", nets), "")
			}
		}
		var made []string
		counts["POST "+c.kind] = a.fewest(func() { made = append(made, c.create()) })
		counts["PUT "+c.kind] = a.fewest(func() {
			a.must(200, admin, "PUT", path+c.id, fmt.Sprintf(`{%q: {"description": %q}}`, strings.ReplaceAll(c.kind, "-", "_"), name()))
		})
		counts["DELETE "+c.kind] = a.fewest(func() {
			a.must(204, admin, "DELETE", path+made[0], "")
			made = made[1:]
		}, func() { made = append(made, c.create()) })
	}
	counts["POST 100 ports"] = a.fewest(func() {
		a.must(201, admin, "POST", "/v2.0/ports", `{"ports": [`+strings.Repeat(port+",", 99)+port+`]}`)
	})
	return counts
}

// rule makes a rule of a group that lets another port of TCP pass.
func (a *api) rule(group string, port int) string {
	a.t.Helper()
	return a.create(admin, "security-group-rule",
		fmt.Sprintf(`{"security_group_id": %q, "direction": "ingress", "protocol": "tcp", "port_range_min": %d, "port_range_max": %d}`, group, port, port))["id"].(string)
}

// fewest is how many statements a call costs: each second others come, by which
// the store looks for what other controllers wrote, so the least of some counts,
// and of more where calls are slow. What is done first does not count.
func (a *api) fewest(call func(), first ...func()) uint64 {
	least := ^uint64(0)
	for quick, tries := 0, 0; quick < 5 && tries < 40; tries++ {
		for _, do := range first {
			do()
		}
		before, start := a.store.Statements(), time.Now()
		call()
		least = min(least, a.store.Statements()-before)
		if time.Since(start) < 200*time.Millisecond {
			quick++
		}
	}
	return least
}
