package northbound

import (
	"fmt"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestListFilters(t *testing.T) {
	onEach(t, func(t *testing.T, a *api) {
		n1 := a.network(admin, `"name": "n1", "tenant_id": "blue", "shared": true, "description": "first"`)
		n2 := a.network(admin, `"name": "n2", "tenant_id": "red", "admin_state_up": false, "mtu": 1400`)
		a.network(admin, `"tenant_id": "red", "router:external": true, "provider:network_type": "vlan", "provider:physical_network": "physnet1", "provider:segmentation_id": 150`)
		s1 := a.subnet(admin, n1, "10.0.0.0/24", `, "name": "s1"`)
		s2 := a.subnet(admin, n2, "10.0.0.0/24", `, "name": "s2", "enable_dhcp": false`)
		s3 := a.subnet(admin, n1, "10.1.0.0/24", `, "name": "s3", "gateway_ip": null`)
		a.port(admin, n1, `, "name": "p1", "device_id": "d", "fixed_ips": [{"ip_address": "10.0.0.15"}, {"ip_address": "10.1.0.15"}], "mac_address": "fa:16:3e:00:00:01"`)
		a.port(admin, n2, `, "name": "p2", "device_id": "d", "fixed_ips": [{"ip_address": "10.0.0.25"}], "tags": ["x", "y"]`)
		a.port(admin, n2, `, "name": "p3", "fixed_ips": [], "tags": ["y"]`)
		for _, c := range []struct{ collection, query, want string }{
			{"networks", "", "|n1|n2"},
			{"networks", "name=n1", "n1"},
			{"networks", "name=n2&name=n1&name=zz", "n1|n2"},
			{"networks", "name=", ""},
			{"networks", "id=" + n1 + "&id=" + n2 + "&id=" + n1, "n1|n2"},
			{"networks", "id=" + n1 + "&name=n2", "-"},
			{"networks", "tenant_id=red", "|n2"},
			{"networks", "project_id=blue&project_id=red", "|n1|n2"},
			{"networks", "shared=True", "n1"},
			{"networks", "shared=1&shared=0", "|n1|n2"},
			{"networks", "admin_state_up=false", "n2"},
			{"networks", "router:external=true", ""},
			{"networks", "router%3Aexternal=False", "n1|n2"},
			{"networks", "mtu=1400", "n2"},
			{"networks", "description=first", "n1"},
			{"networks", "status=ACTIVE", "|n1|n2"},
			{"networks", "status=DOWN", "-"},
			{"networks", "provider:network_type=vlan", ""},
			{"networks", "provider:segmentation_id=150", ""},
			{"networks", "provider:physical_network=physnet1", ""},
			{"subnets", "network_id=" + n1, "s1|s3"},
			{"subnets", "cidr=10.0.0.0/24", "s1|s2"},
			{"subnets", "ip_version=4", "s1|s2|s3"},
			{"subnets", "ip_version=6", "-"},
			{"subnets", "gateway_ip=10.0.0.1", "s1|s2"},
			{"subnets", "gateway_ip=", "-"},
			{"subnets", "enable_dhcp=no", "s2"},
			{"subnets", "shared=true", "s1|s3"},
			{"ports", "device_id=d", "p1|p2"},
			{"ports", "device_id=d&network_id=" + n2, "p2"},
			{"ports", "device_id=&network_id=" + n2, "p3"},
			{"ports", "mac_address=FA:16:3E:00:00:01", "p1"},
			{"ports", "mac_address=x", "-"},
			{"ports", "fixed_ips=ip_address%3D10.0.0.25", "p2"},
			{"ports", "fixed_ips=ip_address=10.0.0.25&fixed_ips=ip_address=10.0.0.15", "p1|p2"},
			{"ports", "fixed_ips=subnet_id=" + s2, "p2"},
			{"ports", "device_id=d&fixed_ips=subnet_id=" + s1 + "&fixed_ips=subnet_id=" + s3, "p1"},
			{"ports", "fixed_ips=subnet_id=" + s2 + "&fixed_ips=ip_address=10.0.0.15", "-"},
			{"ports", "fixed_ips=subnet_id=" + s1 + "&fixed_ips=ip_address=10.1.0.15", "-"},
			{"ports", "fixed_ips=ip_address_substr=0.25", "p2"},
			{"ports", "network_id=" + n2 + "&fixed_ips=color=blue", "p2|p3"},
			{"ports", "device_id=d&fixed_ips=ip_address_substr=10.0.0.", "p1|p2"},
			{"ports", "ip_allocation=none", "p3"},
			{"ports", "tags=x,y", "p2"},
			{"ports", "tags=y", "p2|p3"},
			{"ports", "tags-any=x,z", "p2"},
			{"ports", "network_id=" + n2 + "&not-tags=x,y", "p3"},
			{"ports", "network_id=" + n2 + "&not-tags-any=x", "p3"},
			{"ports", "network_id=" + n2 + "&not-tags-any=y", "-"},
			{"ports", "security_groups=00000000-0000-0000-0000-000000000001", "-"},
			{"ports", "binding:host_id=nowhere", "-"},
		} {
			found := a.list(admin, c.collection, c.query+"&sort_key=name&sort_dir=asc", "name")
			got := strings.Join(found, "|")
			if len(found) == 0 {
				got = "-"
			}
			if got != c.want {
				t.Errorf("%s?%s: got %s, want %s", c.collection, c.query, got, c.want)
			}
		}
	})
}

func TestListFiltersAreChecked(t *testing.T) {
	a := newAPI(t)
	for _, c := range []struct{ path, typ, message string }{
		{"networks?color=blue", "HTTPBadRequest", "['color'] is invalid attribute for filtering"},
		{"networks?subnets=x&color=blue", "HTTPBadRequest", "['color', 'subnets'] is invalid attribute for filtering"},
		{"networks?shared=maybe", "InvalidInput", "Invalid input for operation: 'maybe' cannot be converted to boolean."},
		{"subnets?cidr=x", "InvalidInput", "Invalid input for operation: x is not in a CIDR format."},
		{"networks?mtu=x", "InvalidInput", "Invalid input for operation: 'x' is not an integer."},
		{"ports?fixed_ips=10.0.0.1", "InvalidInput", "Invalid input for operation: '10.0.0.1' is not of the form <key>=[value]."},
		{"networks?limit=x", "BadRequest", "Bad limit request: Limit must be an integer 0 or greater and not 'x'."},
		{"networks?limit=-1", "BadRequest", "Bad limit request: Limit must be an integer 0 or greater and not '-1'."},
		{"networks?sort_key=name", "HTTPBadRequest", "The number of sort_keys and sort_dirs must be same"},
		{"networks?sort_key=subnets&sort_dir=asc", "HTTPBadRequest", "['subnets'] is invalid attribute for sort_keys"},
		{"networks?sort_key=name&sort_dir=up", "HTTPBadRequest", "['up'] is invalid value for sort_dirs, valid value is 'asc' and 'desc'"},
		{"networks?a=%zz", "HTTPBadRequest", ""},
		{"networks?a=1;b=2", "HTTPBadRequest", ""},
	} {
		a.refused(admin, "GET", "/v2.0/"+c.path, "", 400, c.typ, c.message)
	}
	a.refused(admin, "GET", "/v2.0/networks/"+a.network(admin, "")+"?color=blue", "", 400, "HTTPBadRequest", "['color'] is invalid attribute for filtering")
	a.refused(admin, "GET", "/v2.0/networks?limit=1&marker=00000000-0000-0000-0000-000000000001", "", 404, "NetworkNotFound", "")
}

func TestFieldsNarrowTheAnswer(t *testing.T) {
	a := newAPI(t)
	id := a.network(blue, `"name": "x"`)
	for query, want := range map[string]string{
		"?fields=id&fields=name": fmt.Sprintf(`{"id": %q, "name": "x"}`, id),
		"?fields=nonsense":       "{}",
		"?fields=mtu&fields=":    `{"mtu": 1458}`,
		// Members may not see provider attributes, and asking does not change that.
		"?fields=provider:network_type": "{}",
	} {
		if r := a.must(200, blue, "GET", "/v2.0/networks"+query, ""); r.raw != `{"networks": [`+want+`]}` {
			t.Errorf("list %s: %s", query, r.raw)
		}
		if r := a.must(200, blue, "GET", "/v2.0/networks/"+id+query, ""); r.raw != `{"network": `+want+`}` {
			t.Errorf("show %s: %s", query, r.raw)
		}
	}
}

func TestSorting(t *testing.T) {
	a := newAPI(t)
	for _, n := range []string{"b", "a", "c", "a"} {
		a.network(blue, fmt.Sprintf(`"name": %q, "admin_state_up": %v`, n, n != "c"))
	}
	for query, want := range map[string]string{
		"sort_key=name&sort_dir=asc":                                       "a a b c",
		"sort_key=name&sort_dir=desc":                                      "c b a a",
		"sort_key=admin_state_up&sort_dir=asc&sort_key=name&sort_dir=desc": "c b a a",
		"sort_dir=asc&sort_key=name&fields=name&sort_key=id&sort_dir=asc":  "a a b c",
	} {
		if got := strings.Join(a.list(blue, "networks", query, "name"), " "); got != want {
			t.Errorf("%s: got %s, want %s", query, got, want)
		}
	}
	byID := a.list(blue, "networks", "sort_key=id&sort_dir=asc", "id")
	if got := a.list(blue, "networks", "", "id"); !cmp.Equal(got, byID) {
		t.Error("a list without sort_key is not ordered by id")
	}
}

// pages follows the links of a list in one direction.
func (a *api) pages(path, rel string) [][]string {
	a.t.Helper()
	var pages [][]string
	for path != "" {
		r := a.must(200, blue, "GET", path, "")
		names := []string{}
		for _, o := range r.body["networks"].([]any) {
			names = append(names, o.(map[string]any)["name"].(string))
		}
		pages = append(pages, names)
		path = ""
		links, _ := r.body["networks_links"].([]any)
		for _, l := range links {
			if link := l.(map[string]any); link["rel"] == rel && len(names) > 0 {
				href, err := url.Parse(link["href"].(string))
				if err != nil || !strings.HasPrefix(link["href"].(string), a.url+"/v2.0/networks?") {
					a.t.Fatalf("link %v: %v", link, err)
				}
				path = href.RequestURI()
			}
		}
		if len(pages) > 20 {
			a.t.Fatal("the links lead round and round")
		}
	}
	return pages
}

func TestPagesLeadThroughTheWholeList(t *testing.T) {
	a := newAPI(t)
	for i := range 5 {
		a.network(blue, fmt.Sprintf(`"name": "n%d", "description": "a&b"`, i))
	}
	a.network(red, `"name": "n9"`)
	const query = "/v2.0/networks?description=a%26b&limit=2&sort_key=name&sort_dir="
	for path, want := range map[string][][]string{
		query + "asc":  {{"n0", "n1"}, {"n2", "n3"}, {"n4"}},
		query + "desc": {{"n4", "n3"}, {"n2", "n1"}, {"n0"}},
		"/v2.0/networks?sort_key=name&sort_dir=asc&limit=5": {{"n0", "n1", "n2", "n3", "n4"}, {}},
	} {
		if diff := cmp.Diff(want, a.pages(path, "next")); diff != "" {
			t.Errorf("next of %s (-want +got):\n%s", path, diff)
		}
	}
	want := [][]string{{"n3", "n4"}, {"n1", "n2"}, {"n0"}}
	if diff := cmp.Diff(want, a.pages(query+"asc&page_reverse=True", "previous")); diff != "" {
		t.Errorf("previous (-want +got):\n%s", diff)
	}
	r := a.must(200, blue, "GET", "/v2.0/networks", "")
	if _, ok := r.body["networks_links"]; ok {
		t.Error("a list without limit has links")
	}
}

func TestPageSizeIsLimitedByConfiguration(t *testing.T) {
	limits := DefaultLimits()
	limits.MaxPage = 2
	a := newAPIOn(t, "sqlite://"+t.TempDir()+"/p.db", Options{Limits: limits})
	for range 3 {
		a.network(blue, "")
	}
	for _, query := range []string{"", "limit=0", "limit=100"} {
		if got := a.list(blue, "networks", query, "id"); len(got) != 2 {
			t.Errorf("%q: %d networks on a page of 2", query, len(got))
		}
	}
	if got := a.list(blue, "networks", "limit=1", "id"); len(got) != 1 {
		t.Errorf("%d networks on a page of 1", len(got))
	}
}
