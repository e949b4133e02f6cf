package northbound

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"planck/test/pg"
)

func (a *api) pool(who headers, more string) string {
	a.t.Helper()
	return a.create(who, "subnetpool", `{"name": "pool", `+more+`}`)["id"].(string)
}

func TestSubnetPoolIsShownAsNeutrons(t *testing.T) {
	onEach(t, func(t *testing.T, a *api) {
		p := a.create(blue, "subnetpool", `{"name": "mine", "prefixes": ["10.1.0.0/16", "10.0.0.0/16", "192.168.3.0/24"], "default_prefixlen": "26"}`)
		id := p["id"].(string)
		for _, varies := range []string{"id", "created_at", "updated_at"} {
			delete(p, varies)
		}
		want := map[string]any{
			"name": "mine", "description": "", "tenant_id": "blue", "project_id": "blue", "revision_number": 0.0, "tags": []any{},
			"prefixes": []any{"10.0.0.0/15", "192.168.3.0/24"}, "ip_version": 4.0, "default_quota": nil,
			"default_prefixlen": "26", "min_prefixlen": "8", "max_prefixlen": "32", "is_default": false, "shared": false,
		}
		if diff := cmp.Diff(want, p); diff != "" {
			t.Errorf("the pool (-want +got):\n%s", diff)
		}
		p = a.put(blue, "subnetpool", id, `{"prefixes": ["10.0.0.0/14", "192.168.3.0/24"], "min_prefixlen": 20, "default_quota": 1024, "name": "more"}`)
		if p["name"] != "more" || p["min_prefixlen"] != "20" || p["default_quota"] != 1024.0 || fmt.Sprint(p["prefixes"]) != "[10.0.0.0/14 192.168.3.0/24]" {
			t.Errorf("after the update: %v", p)
		}
		six := a.create(blue, "subnetpool", `{"name": "six", "prefixes": ["2001:db8::/32"]}`)
		if six["ip_version"] != 6.0 || six["min_prefixlen"] != "64" || six["max_prefixlen"] != "128" || six["default_prefixlen"] != "64" {
			t.Errorf("the IPv6 pool: %v", six)
		}
		if got := a.list(blue, "subnetpools", "ip_version=6", "name"); !slices.Equal(got, []string{"six"}) {
			t.Errorf("pools of IPv6: %v", got)
		}
		a.must(204, blue, "DELETE", "/v2.0/subnetpools/"+id, "")
		a.refused(blue, "GET", "/v2.0/subnetpools/"+id, "", 404, "SubnetPoolNotFound", "Subnet pool "+id+" could not be found.")
	})
}

func TestSubnetsComeFromPools(t *testing.T) {
	onEach(t, func(t *testing.T, a *api) {
		pool := a.pool(blue, `"prefixes": ["10.0.0.0/16"], "default_prefixlen": 24`)
		net := a.network(blue, "")
		take := func(more string) map[string]any {
			t.Helper()
			return a.create(blue, "subnet", fmt.Sprintf(`{"network_id": %q, "ip_version": 4, "subnetpool_id": %q%s}`, net, pool, more))
		}
		first := take("")
		if first["cidr"] != "10.0.0.0/24" || first["gateway_ip"] != "10.0.0.1" || first["subnetpool_id"] != pool {
			t.Errorf("the first subnet: %v", first)
		}
		for _, c := range []struct{ more, want string }{{`, "cidr": "10.0.7.9/24"`, "10.0.7.0/24"}, {`, "prefixlen": 17`, "10.0.128.0/17"}} {
			if s := take(c.more); s["cidr"] != c.want {
				t.Errorf("%s made %v", c.more, s["cidr"])
			}
		}
		if got := a.list(blue, "subnets", "subnetpool_id="+pool, "cidr"); len(got) != 3 {
			t.Errorf("subnets of the pool: %v", got)
		}
		a.refused(blue, "DELETE", "/v2.0/subnetpools/"+pool, "", 400, "SubnetPoolDeleteError", "Unable to delete subnet pool: Subnet pool has existing allocations.")
		id := first["id"].(string)
		a.must(204, blue, "DELETE", "/v2.0/subnets/"+id, "")
		for _, want := range []string{"10.0.6.0/24", "10.0.4.0/24", "10.0.5.0/24", "10.0.0.0/24"} { // the smallest hole first
			if s := take(""); s["cidr"] != want {
				t.Errorf("the pool gave %v, not %s", s["cidr"], want)
			}
		}
		a.must(204, blue, "DELETE", "/v2.0/networks/"+net, "")
		a.must(204, blue, "DELETE", "/v2.0/subnetpools/"+pool, "")
	})
}

func TestDefaultPoolStandsForAll(t *testing.T) {
	a := newAPI(t)
	net := a.network(blue, "")
	body := fmt.Sprintf(`{"subnet": {"network_id": %q, "ip_version": 6, "use_default_subnetpool": true}}`, net)
	a.pool(admin, `"prefixes": ["2001:db8:1::/48"], "is_default": true`)
	a.refused(blue, "POST", "/v2.0/subnets", body, 400, "BadRequest", "Bad subnets request: No default subnetpool found for IPv6.")
	id := a.list(admin, "subnetpools", "is_default=True", "id")[0]
	a.put(admin, "subnetpool", id, `{"is_default": false}`)
	shared := a.pool(admin, `"prefixes": ["2001:db8:2::/48"], "is_default": true, "shared": true`)
	a.refused(admin, "PUT", "/v2.0/subnetpools/"+id, `{"subnetpool": {"is_default": true}}`, 400, "InvalidInput",
		"Invalid input for operation: A default subnetpool for this IP family has already been set. Only one default may exist per IP family.")
	a.pool(admin, `"prefixes": ["10.0.0.0/8"], "is_default": true`)
	s := a.must(201, blue, "POST", "/v2.0/subnets", body).body["subnet"].(map[string]any)
	if s["cidr"] != "2001:db8:2::/64" || s["subnetpool_id"] != shared {
		t.Errorf("the subnet: %v", s)
	}
}

func TestSubnetPoolsAreChecked(t *testing.T) {
	a := newAPI(t)
	mine := a.pool(blue, `"prefixes": ["10.0.0.0/16"]`)
	for _, c := range []struct{ body, typ, message string }{
		{`"prefixes": ["10.0.0.0/8"]`, "HTTPBadRequest", "Failed to parse request. Required attribute 'name' not specified"},
		{`"name": "x"`, "HTTPBadRequest", "Failed to parse request. Required attribute 'prefixes' not specified"},
		{`"name": " ", "prefixes": ["10.0.0.0/8"]`, "HTTPBadRequest", "Invalid input for name. Reason: ' ' Blank strings are not permitted."},
		{`"name": "x", "prefixes": []`, "EmptySubnetPoolPrefixList", "Empty subnet pool prefix list."},
		{`"name": "x", "prefixes": null`, "HTTPBadRequest", "Invalid input for prefixes. Reason: 'None' is not a list."},
		{`"name": "x", "prefixes": ["10.0.0.0/8", "2001:db8::/32"]`, "PrefixVersionMismatch", "Cannot mix IPv4 and IPv6 prefixes in a subnet pool."},
		{`"name": "x", "prefixes": ["10.0.0.0/8", "10.0.0.0/8"]`, "HTTPBadRequest", "Invalid input for prefixes. Reason: Duplicate items in the list: '10.0.0.0/8'."},
		{`"name": "x", "prefixes": ["10.0.0.1/8"]`, "HTTPBadRequest",
			"Invalid input for prefixes. Reason: '10.0.0.1/8' isn't a recognized IP subnet cidr, '10.0.0.0/8' is recommended."},
		{`"name": "x", "prefixes": ["10.0.0.1"]`, "HTTPBadRequest",
			"Invalid input for prefixes. Reason: '10.0.0.1' isn't a recognized IP subnet cidr, '10.0.0.1/32' is recommended."},
		{`"name": "x", "prefixes": ["::ffff:10.0.0.0/104"]`, "HTTPBadRequest", ""},
		{`"name": "x", "prefixes": [5]`, "HTTPBadRequest", "Invalid input for prefixes. Reason: '5' is not a valid IP subnet."},
		{`"name": "x", "prefixes": ["10.0.0.0/8"], "min_prefixlen": 25, "max_prefixlen": 24`, "IllegalSubnetPoolPrefixBounds",
			"Illegal prefix bounds: min_prefixlen=25, max_prefixlen=24."},
		{`"name": "x", "prefixes": ["10.0.0.0/8"], "max_prefixlen": 33`, "IllegalSubnetPoolPrefixBounds",
			"Illegal prefix bounds: max_prefixlen=33, ip_version_max=32."},
		{`"name": "x", "prefixes": ["10.0.0.0/8"], "default_prefixlen": 7`, "IllegalSubnetPoolPrefixBounds",
			"Illegal prefix bounds: default_prefixlen=7, min_prefixlen=8."},
		{`"name": "x", "prefixes": ["10.0.0.0/8"], "default_prefixlen": 30, "max_prefixlen": 28`, "IllegalSubnetPoolPrefixBounds",
			"Illegal prefix bounds: default_prefixlen=30, max_prefixlen=28."},
		{`"name": "x", "prefixes": ["10.0.0.0/8"], "default_quota": -1`, "HTTPBadRequest", "Invalid input for default_quota. Reason: '-1' should be non-negative."},
		{`"name": "x", "prefixes": ["10.0.0.0/8"], "min_prefixlen": null`, "InvalidInput", "Invalid input for operation: 'None' is not an integer."},
		{`"name": "x", "prefixes": ["10.0.0.0/8"], "ip_version": 4`, "HTTPBadRequest", "Attribute 'ip_version' not allowed in POST"},
		{`"name": "x", "prefixes": ["10.0.0.0/8"], "address_scope_id": null`, "HTTPBadRequest", "Unrecognized attribute(s) 'address_scope_id'"},
	} {
		a.refused(blue, "POST", "/v2.0/subnetpools", `{"subnetpool": {`+c.body+`}}`, 400, c.typ, c.message)
	}
	for _, attribute := range []string{"shared", "is_default"} {
		a.refused(blue, "POST", "/v2.0/subnetpools", `{"subnetpool": {"name": "x", "prefixes": ["10.0.0.0/8"], "`+attribute+`": true}}`, 403, "PolicyNotAuthorized",
			"(rule:create_subnetpool and rule:create_subnetpool:"+attribute+") is disallowed by policy")
	}
	for _, c := range []struct{ body, typ, message string }{
		{`"prefixes": ["10.1.0.0/16"]`, "IllegalSubnetPoolPrefixUpdate", "Illegal update to prefixes: Existing prefixes must be a subset of the new prefixes."},
		{`"shared": true`, "HTTPBadRequest", "Cannot update read-only attribute shared"},
		{`"max_prefixlen": 7`, "IllegalSubnetPoolPrefixBounds", "Illegal prefix bounds: min_prefixlen=8, max_prefixlen=7."},
	} {
		a.refused(blue, "PUT", "/v2.0/subnetpools/"+mine, `{"subnetpool": {`+c.body+`}}`, 400, c.typ, c.message)
	}
	for _, method := range []string{"GET", "PUT", "DELETE"} {
		body := map[string]string{"PUT": `{"subnetpool": {"name": "x"}}`}[method]
		a.refused(red, method, "/v2.0/subnetpools/"+mine, body, 404, "SubnetPoolNotFound", "Subnet pool "+mine+" could not be found.")
	}
}

func TestSharedPoolIsSeenAndUsedByAllAndChangedByItsOwner(t *testing.T) {
	a := newAPI(t)
	shared := a.pool(admin, `"prefixes": ["10.0.0.0/16"], "shared": true`)
	private := a.pool(red, `"prefixes": ["10.0.0.0/16"]`)
	if got := a.list(blue, "subnetpools", "", "id"); !slices.Equal(got, []string{shared}) {
		t.Errorf("a tenant sees the pools %v", got)
	}
	a.refused(blue, "PUT", "/v2.0/subnetpools/"+shared, `{"subnetpool": {"name": "x"}}`, 403, "PolicyNotAuthorized", "rule:update_subnetpool is disallowed by policy")
	a.refused(blue, "DELETE", "/v2.0/subnetpools/"+shared, "", 403, "PolicyNotAuthorized", "rule:delete_subnetpool is disallowed by policy")
	net := a.network(blue, "")
	body := `{"subnet": {"network_id": "` + net + `", "ip_version": 4, "prefixlen": 24, "subnetpool_id": "%s"}}`
	a.refused(blue, "POST", "/v2.0/subnets", fmt.Sprintf(body, private), 404, "SubnetPoolNotFound", "Subnet pool "+private+" could not be found.")
	a.must(201, blue, "POST", "/v2.0/subnets", fmt.Sprintf(body, shared))
}

func TestSubnetsOfPoolsAreChecked(t *testing.T) {
	a := newAPI(t)
	pool := a.pool(blue, `"prefixes": ["10.0.0.0/24"], "min_prefixlen": 24, "max_prefixlen": 31, "default_quota": 384`)
	other := a.pool(blue, `"prefixes": ["10.0.0.0/24"], "min_prefixlen": 20`)
	net := a.network(blue, "")
	for _, c := range []struct {
		more, typ, message string
		status             int
	}{
		{`, "prefixlen": 23`, "MinPrefixSubnetAllocationError", "Unable to allocate subnet with prefix length 23, minimum allowed prefix is 24.", 400},
		{`, "prefixlen": 32`, "MaxPrefixSubnetAllocationError", "Unable to allocate subnet with prefix length 32, maximum allowed prefix is 31.", 400},
		{`, "prefixlen": 31`, "InvalidInput", "Invalid input for operation: Subnet has a prefix length that is incompatible with DHCP service enabled.", 400},
		{`, "cidr": "10.1.0.0/24"`, "SubnetAllocationError",
			"Failed to allocate subnet: Cannot allocate requested subnet from the available set of prefixes.", 409},
		{`, "cidr": "10.0.0.0/25", "prefixlen": 25`, "BadRequest", "Bad subnets request: cidr and prefixlen must not be supplied together.", 400},
		{`, "allocation_pools": [{"start": "10.0.0.5", "end": "10.0.0.9"}]`, "BadRequest",
			"Bad subnets request: allocation_pools allowed only for specific subnet requests.", 400},
	} {
		a.refused(blue, "POST", "/v2.0/subnets", fmt.Sprintf(`{"subnet": {"network_id": %q, "ip_version": 4, "subnetpool_id": %q%s}}`, net, pool, c.more),
			c.status, c.typ, c.message)
	}
	a.refused(blue, "POST", "/v2.0/subnets", fmt.Sprintf(`{"subnet": {"network_id": %q, "ip_version": 6, "subnetpool_id": %q}}`, net, pool),
		400, "BadRequest", "Bad subnets request: Cannot allocate IPv6 subnet from IPv4 subnet pool.")
	a.create(blue, "subnet", fmt.Sprintf(`{"network_id": %q, "ip_version": 4, "subnetpool_id": %q, "prefixlen": 25}`, net, pool))
	a.refused(blue, "POST", "/v2.0/subnets", fmt.Sprintf(`{"subnet": {"network_id": %q, "ip_version": 4, "subnetpool_id": %q, "prefixlen": 24}}`, net, pool),
		409, "SubnetAllocationError", "Failed to allocate subnet: Insufficient prefix space to allocate subnet size /24.")
	a.put(blue, "subnetpool", pool, `{"prefixes": ["10.0.0.0/23"]}`)
	a.create(blue, "subnet", fmt.Sprintf(`{"network_id": %q, "ip_version": 4, "subnetpool_id": %q, "prefixlen": 24}`, net, pool))
	a.refused(blue, "POST", "/v2.0/subnets", fmt.Sprintf(`{"subnet": {"network_id": %q, "ip_version": 4, "subnetpool_id": %q, "prefixlen": 25}}`, net, pool),
		409, "SubnetPoolQuotaExceeded", "Per-tenant subnet pool prefix quota exceeded.")
	const affinity = "Subnets hosted on the same network must be allocated from the same subnet pool."
	a.refused(blue, "POST", "/v2.0/subnets", fmt.Sprintf(`{"subnet": {"network_id": %q, "ip_version": 4, "cidr": "192.168.0.0/24"}}`, net),
		400, "NetworkSubnetPoolAffinityError", affinity)
	a.refused(blue, "POST", "/v2.0/subnets", fmt.Sprintf(`{"subnet": {"network_id": %q, "ip_version": 4, "subnetpool_id": %q, "cidr": "10.0.0.128/26"}}`, net, other),
		400, "NetworkSubnetPoolAffinityError", affinity)
	a.subnet(blue, net, "2001:db8::/64", "")
}

// TestPoolGivesNothingTwice has many take from one pool at once, by two controllers.
func TestPoolGivesNothingTwice(t *testing.T) {
	dsn := pg.Start(t)
	apis := []*api{newAPIOn(t, dsn, Options{}), newAPIOn(t, dsn, Options{})}
	pool := apis[0].pool(admin, `"prefixes": ["10.0.0.0/24"], "default_prefixlen": 28, "shared": true`)
	const takers = 24
	cidrs := make([]string, takers)
	var wg sync.WaitGroup
	for i := range takers {
		wg.Go(func() {
			a := apis[i%2]
			net := a.send(blue, "POST", "/v2.0/networks", `{"network": {}}`).body["network"].(map[string]any)["id"]
			r := a.send(blue, "POST", "/v2.0/subnets", fmt.Sprintf(`{"subnet": {"network_id": %q, "ip_version": 4, "subnetpool_id": %q}}`, net, pool))
			if s, ok := r.body["subnet"].(map[string]any); ok {
				cidrs[i] = s["cidr"].(string)
			} else if !strings.Contains(r.raw, "SubnetAllocationError") {
				t.Errorf("refused by %s", r.raw)
			}
		})
	}
	wg.Wait()
	slices.Sort(cidrs)
	given := slices.Compact(slices.DeleteFunc(slices.Clone(cidrs), func(s string) bool { return s == "" }))
	if len(given) != 16 || cidrs[takers-16-1] != "" {
		t.Errorf("16 prefixes were given as %v", cidrs)
	}
}
