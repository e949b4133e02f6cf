package northbound

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"planck/network"
)

func TestNetworkLifeOnEachDatabase(t *testing.T) {
	onEach(t, func(t *testing.T, a *api) {
		n := a.create(blue, "network", `{"name": "net1"}`)
		id := n["id"].(string)
		for _, name := range []string{"id", "created_at", "updated_at"} {
			if n[name] == nil || n[name] == "" {
				t.Errorf("%s is %v", name, n[name])
			}
			delete(n, name)
		}
		want := map[string]any{
			"name": "net1", "tenant_id": "blue", "project_id": "blue", "description": "", "revision_number": 0.0,
			"tags": []any{}, "status": "ACTIVE", "admin_state_up": true, "subnets": []any{}, "shared": false,
			"router:external": false, "is_default": false, "mtu": 1458.0, "port_security_enabled": true, "dns_domain": "",
			"availability_zone_hints": []any{}, "availability_zones": []any{},
			"ipv4_address_scope": nil, "ipv6_address_scope": nil,
		}
		if diff := cmp.Diff(want, n); diff != "" {
			t.Errorf("created network (-want +got):\n%s", diff)
		}
		changed := a.put(blue, "network", id, `{"name": "net2", "admin_state_up": "false", "dns_domain": "Example.org."}`)
		if changed["name"] != "net2" || changed["admin_state_up"] != false || changed["dns_domain"] != "example.org." || changed["revision_number"] != 1.0 {
			t.Errorf("changed network: %v", changed)
		}
		subnet := a.subnet(blue, id, "10.0.0.0/24", "")
		if got := a.show(blue, "network", id)["subnets"]; !cmp.Equal(got, []any{subnet}) {
			t.Errorf("subnets are %v", got)
		}
		a.must(http.StatusNoContent, blue, http.MethodDelete, "/v2.0/networks/"+id, "")
		a.refused(blue, http.MethodGet, "/v2.0/networks/"+id, "", 404, "NetworkNotFound", "Network "+id+" could not be found.")
		a.refused(blue, http.MethodGet, "/v2.0/subnets/"+subnet, "", 404, "SubnetNotFound", "Subnet "+subnet+" could not be found.")
	})
}

func TestNetworkProviderAttributes(t *testing.T) {
	a := newAPI(t)
	n := a.create(admin, "network", `{"tenant_id": "blue", "provider:network_type": "vlan",
		"provider:physical_network": "physnet1", "provider:segmentation_id": "105", "shared": 1, "router:external": "True"}`)
	want := map[string]any{
		"provider:network_type": "vlan", "provider:physical_network": "physnet1", "provider:segmentation_id": 105.0,
		"shared": true, "router:external": true, "mtu": 1500.0, "tenant_id": "blue", "project_id": "blue",
	}
	for k, v := range want {
		if n[k] != v {
			t.Errorf("%s is %v, want %v", k, n[k], v)
		}
	}
	flat := a.create(admin, "network", `{"provider:network_type": "flat", "provider:physical_network": "physnet1"}`)
	if v, ok := flat["provider:segmentation_id"]; v != nil || !ok {
		t.Errorf("segmentation id of a flat network is %v", v)
	}
	gre := a.create(admin, "network", `{"provider:network_type": "gre", "provider:segmentation_id": 0}`)
	if v, ok := gre["provider:physical_network"]; v != nil || !ok {
		t.Errorf("physical network of a gre network is %v", v)
	}
	for _, c := range []struct {
		body    string
		status  int
		typ     string
		message string
	}{
		{`"provider:network_type": "vlan", "provider:physical_network": "physnet1", "provider:segmentation_id": 105`, 409, "VlanIdInUse",
			"Unable to create the network. The VLAN 105 on physical network physnet1 is in use."},
		{`"provider:network_type": "flat", "provider:physical_network": "physnet1"`, 409, "FlatNetworkInUse",
			"Unable to create the flat network. Physical network physnet1 is in use."},
		{`"provider:network_type": "vlan", "provider:physical_network": "physnet9"`, 400, "InvalidInput",
			"Invalid input for operation: physical_network 'physnet9' unknown for VLAN provider network."},
		{`"provider:network_type": "vlan", "provider:physical_network": "physnet1", "provider:segmentation_id": 4095`, 400, "InvalidInput", ""},
		{`"provider:network_type": "vlan", "provider:physical_network": "physnet1", "provider:segmentation_id": 0`, 400, "InvalidInput", ""},
		{`"provider:network_type": "vlan", "provider:segmentation_id": 7`, 400, "InvalidInput",
			"Invalid input for operation: segmentation_id requires physical_network for VLAN provider network."},
		{`"provider:network_type": "gre", "provider:physical_network": "physnet1"`, 400, "InvalidInput",
			"Invalid input for operation: provider:physical_network specified for gre network."},
		{`"provider:network_type": "token-ring"`, 400, "InvalidInput", ""},
		{`"provider:network_type": ""`, 400, "InvalidInput", "Invalid input for operation: network_type value '' not supported."},
		{`"provider:segmentation_id": 5`, 400, "InvalidInput", ""},
	} {
		a.refused(admin, http.MethodPost, "/v2.0/networks", `{"network": {`+c.body+`}}`, c.status, c.typ, c.message)
	}
	a.refused(admin, http.MethodPut, "/v2.0/networks/"+gre["id"].(string),
		`{"network": {"provider:segmentation_id": 77}}`, 400, "InvalidInput", "")
}

func TestBodiesAreChecked(t *testing.T) {
	a := newAPI(t)
	id := a.network(blue, "")
	long := strings.Repeat("é", 256)
	for _, c := range []struct {
		method, body, message string
	}{
		{"POST", ``, "Unable to find 'network' in request body"},
		{"POST", `{}`, "Unable to find 'network' in request body"},
		{"POST", `{"network": null}`, "Unable to find 'network' in request body"},
		{"POST", `{"network": [1]}`, "Object 'network' contains invalid data"},
		{"POST", `[]`, "Body contains invalid data"},
		{"POST", `{"network": {}`, "Body contains invalid data"},
		{"POST", `{"network": {}} x`, "Body contains invalid data"},
		{"POST", "{\"network\": {\"name\": \"\xff\"}}", "Body contains invalid data"},
		{"POST", `{"networks": 5}`, "Body contains invalid data"},
		{"POST", `{"networks": []}`, "Resources required"},
		{"POST", `{"networks": [{}, 5]}`, "Object 'network' contains invalid data"},
		{"POST", `{"network": {"b": 1, "a": 2}}`, "Unrecognized attribute(s) 'a, b'"},
		{"POST", `{"network": {"tags-any": "x"}}`, "Unrecognized attribute(s) 'tags-any'"},
		{"POST", `{"network": {"id": "x"}}`, "Attribute 'id' not allowed in POST"},
		{"POST", `{"network": {"status": "ACTIVE"}}`, "Attribute 'status' not allowed in POST"},
		{"POST", `{"network": {"revision_number": 1}}`, "Attribute 'revision_number' not allowed in POST"},
		{"POST", `{"network": {"name": 5}}`, "Invalid input for name. Reason: '5' is not a valid string."},
		{"POST", `{"network": {"name": null}}`, "Invalid input for name. Reason: 'None' is not a valid string."},
		{"POST", `{"network": {"name": {"a": [true, "x"]}}}`, "Invalid input for name. Reason: '{'a': [True, 'x']}' is not a valid string."},
		{"POST", `{"network": {"name": " x"}}`, "Invalid input for name. Reason: ' x' is not a valid string."},
		{"POST", `{"network": {"name": "a\u0000"}}`, "Invalid input for name. Reason: 'a\x00' is not a valid string."},
		{"POST", `{"network": {"description": "` + long + `"}}`, "Invalid input for description. Reason: '" + clip(long) + "' exceeds maximum length of 255."},
		{"POST", `{"network": {"mtu": -1}}`, "Invalid input for mtu. Reason: '-1' should be non-negative."},
		{"POST", `{"network": {"tenant_id": "blue", "project_id": "red"}}`, "'project_id' and 'tenant_id' do not match"},
		{"POST", `{"network": {"tenant_id": "red"}}`, "Specifying 'project_id' other than the authenticated project in request is not allowed for the current user."},
		{"PUT", ``, "Unable to find 'network' in request body"},
		{"PUT", `{"network": {"id": "x"}}`, "Cannot update read-only attribute id"},
		{"PUT", `{"network": {"tenant_id": "blue"}}`, "Cannot update read-only attribute tenant_id"},
		{"PUT", `{"network": {"subnets": []}}`, "Cannot update read-only attribute subnets"},
		{"PUT", `{"networks": [{}]}`, "Bulk operation not supported"},
		{"PUT", `{"network": {"nonsense": 1}}`, "Unrecognized attribute(s) 'nonsense'"},
		{"PUT", `{"network": {"dns_domain": "no-dot"}}`, "Invalid input for dns_domain. Reason: 'no-dot' is not a FQDN."},
		{"DELETE", `{}`, "Request body is not supported in DELETE."},
	} {
		path := "/v2.0/networks"
		if c.method != "POST" {
			path += "/" + id
		}
		a.refused(blue, c.method, path, c.body, 400, "HTTPBadRequest", c.message)
	}
	for body, message := range map[string]string{
		`{"admin_state_up": null}`:    "Invalid input for operation: 'None' cannot be converted to boolean.",
		`{"admin_state_up": "maybe"}`: "Invalid input for operation: 'maybe' cannot be converted to boolean.",
		`{"admin_state_up": [true]}`:  "Invalid input for operation: '[True]' cannot be converted to boolean.",
		`{"mtu": "big"}`:              "Invalid input for operation: 'big' is not an integer.",
		`{"mtu": null}`:               "Invalid input for operation: 'None' is not an integer.",
		`{"mtu": 9000}`:               "Invalid input for operation: Requested MTU is too big, maximum is 1458.",
	} {
		a.refused(blue, "POST", "/v2.0/networks", `{"network": `+body+`}`, 400, "InvalidInput", message)
	}
}

func TestBooleansAndNumbersAreConverted(t *testing.T) {
	a := newAPI(t)
	for _, c := range []struct {
		given string
		want  bool
	}{
		{"true", true}, {`"True"`, true}, {`"TRUE"`, true}, {"1", true}, {`"1"`, true}, {`"yes"`, true}, {`" on "`, true},
		{"false", false}, {`"False"`, false}, {"0", false}, {`"no"`, false}, {`"off"`, false},
	} {
		n := a.create(blue, "network", `{"admin_state_up": `+c.given+`}`)
		if n["admin_state_up"] != c.want {
			t.Errorf("%s became %v", c.given, n["admin_state_up"])
		}
	}
	for given, want := range map[string]float64{`"1400"`: 1400, "1400.9": 1400, "1.4e3": 1400, " 1300": 1300, "0": 1458} {
		if n := a.create(blue, "network", `{"mtu": `+given+`}`); n["mtu"] != want {
			t.Errorf("%s became %v", given, n["mtu"])
		}
	}
}

func TestNoMTUIsTheLargestOne(t *testing.T) {
	a := newAPI(t)
	id := a.network(blue, `"mtu": 1300`)
	if n := a.put(blue, "network", id, `{"mtu": 0}`); n["mtu"] != 1458.0 {
		t.Errorf("mtu 0 became %v", n["mtu"])
	}
}

func TestBulkCreateIsAllOrNothing(t *testing.T) {
	onEach(t, func(t *testing.T, a *api) {
		r := a.must(201, blue, "POST", "/v2.0/networks", `{"networks": [{"name": "a"}, {"network": {"name": "b"}}]}`)
		made := r.body["networks"].([]any)
		if len(made) != 2 || made[0].(map[string]any)["name"] != "a" || made[1].(map[string]any)["name"] != "b" {
			t.Fatalf("made %v", made)
		}
		id := made[0].(map[string]any)["id"].(string)
		a.subnet(blue, id, "10.0.0.0/29", "") // 5 addresses, one of them for DHCP
		port := fmt.Sprintf(`{"network_id": %q}`, id)
		a.refused(blue, "POST", "/v2.0/ports", `{"ports": [`+strings.Repeat(port+",", 4)+port+`]}`,
			409, "IpAddressGenerationFailure", "No more IP addresses available on network "+id+".")
		a.must(201, blue, "POST", "/v2.0/ports", `{"ports": [`+strings.Repeat(port+",", 3)+port+`]}`)
	})
}

func TestBulkCanBeForbidden(t *testing.T) {
	limits := DefaultLimits()
	limits.Bulk = false
	a := newAPIOn(t, "sqlite://"+t.TempDir()+"/p.db", Options{Limits: limits})
	a.refused(blue, "POST", "/v2.0/networks", `{"networks": [{}]}`, 400, "HTTPBadRequest", "Bulk operation not supported")
}

func TestIfMatchGuardsAgainstLostUpdates(t *testing.T) {
	a := newAPI(t)
	id := a.network(blue, "")
	at := func(tag string) headers { return headers{"X-Project-Id": "blue", "If-Match": tag} }
	path, body := "/v2.0/networks/"+id, `{"network": {"name": "x"}}`
	a.refused(at("revision_number=7"), "PUT", path, body, 412, "RevisionNumberConstraintFailed", "Constrained to 7, but current revision is 0")
	a.refused(at("revision_number=7"), "DELETE", path, "", 412, "RevisionNumberConstraintFailed", "Constrained to 7, but current revision is 0")
	a.refused(at("revision_number=7"), "PUT", path+"/tags/t", "", 412, "RevisionNumberConstraintFailed", "")
	a.refused(at("revision_number=x"), "PUT", path, body, 400, "BadRequest", "Bad if-match request: Revision number etag must be in the format of revision_number=<int>.")
	a.refused(at("revision_number=1, revision_number=2"), "PUT", path, body, 400, "BadRequest", "Bad if-match request: Multiple revision_number etags are not supported..")
	a.must(200, at("revision_number=0"), "PUT", path, body)
	a.must(200, at(`"revision_number=1"`), "PUT", path, `{"network": {"name": "y"}}`)
	a.must(204, at("revision_number=2"), "DELETE", path, "")
}

func TestOneDefaultExternalNetwork(t *testing.T) {
	a := newAPI(t)
	first := a.network(admin, `"router:external": true, "is_default": true`)
	second := a.network(admin, `"router:external": true`)
	a.refused(admin, "PUT", "/v2.0/networks/"+second, `{"network": {"is_default": true}}`,
		409, "DefaultExternalNetworkExists", "A default external network already exists: "+first+".")
	a.put(admin, "network", first, `{"is_default": false}`)
	a.put(admin, "network", second, `{"is_default": true}`)
}

func TestThereIsOneAvailabilityZone(t *testing.T) {
	a := newAPI(t)
	a.refused(blue, "POST", "/v2.0/networks", `{"network": {"availability_zone_hints": ["nova", "mars"]}}`,
		404, "AvailabilityZoneNotFound", "AvailabilityZone mars could not be found.")
	net := a.network(blue, `"availability_zone_hints": ["nova"]`)
	shows := func(name, id, hints, zones string) {
		t.Helper()
		o := a.show(blue, name, id)
		if got := fmt.Sprint(o["availability_zone_hints"], o["availability_zones"]); got != hints+" "+zones {
			t.Errorf("%s: %s, want %s %s", name, got, hints, zones)
		}
	}
	shows("network", net, "[nova]", "[]")
	subnet := a.subnet(blue, net, "10.0.0.0/24", "")
	shows("network", net, "[nova]", "[nova]")
	router := a.router(blue, "")
	shows("router", router, "[]", "[]")
	a.addInterface(blue, router, subnet)
	shows("router", router, "[]", "[nova]")
	if got := fmt.Sprint(a.list(blue, "availability_zones", "resource=router", "name")); got != "[nova]" {
		t.Errorf("zones of routers: %s", got)
	}
}

func TestTags(t *testing.T) {
	onEach(t, func(t *testing.T, a *api) {
		id := a.network(blue, "")
		path := "/v2.0/networks/" + id + "/tags"
		if r := a.must(200, blue, "PUT", path, `{"tags": ["b", "a"]}`); r.raw != `{"tags": ["a", "b"]}` {
			t.Errorf("replaced: %s", r.raw)
		}
		a.must(201, blue, "PUT", path+"/c%2Fd.json", "")
		a.must(201, blue, "PUT", path+"/c%2Fd.json", "")
		if r := a.must(200, blue, "GET", path, ""); r.raw != `{"tags": ["a", "b", "c/d.json"]}` {
			t.Errorf("listed: %s", r.raw)
		}
		if got := fmt.Sprint(a.show(blue, "network", id)["tags"]); got != "[a b c/d.json]" {
			t.Errorf("shown: %s", got)
		}
		a.must(204, blue, "GET", path+"/a", "")
		a.refused(blue, "GET", path+"/x", "", 404, "TagNotFound", "Tag x could not be found.")
		a.refused(blue, "DELETE", path+"/x", "", 404, "TagNotFound", "Tag x could not be found.")
		a.must(204, blue, "DELETE", path+"/a", "")
		a.must(200, blue, "POST", path, `{"tags": ["z"]}`)
		if r := a.must(200, blue, "GET", path, ""); r.raw != `{"tags": ["b", "c/d.json", "z"]}` {
			t.Errorf("after one was deleted and one added: %s", r.raw)
		}
		a.must(204, blue, "DELETE", path, "")
		if r := a.must(200, blue, "GET", path, ""); r.raw != `{"tags": []}` {
			t.Errorf("after all were deleted: %s", r.raw)
		}
		a.refused(red, "GET", path, "", 404, "TagResourceNotFound", "")
		a.refused(red, "PUT", path+"/a", "", 404, "TagResourceNotFound", "")
		a.refused(blue, "PUT", path, `{"tag": []}`, 400, "InvalidInput", "Invalid input for operation: Invalid tags body.")
		a.refused(blue, "PUT", path, `{"tags": ["a", "a"]}`, 400, "InvalidInput", "Invalid input for operation: Duplicate items in the list: 'a'.")
		a.refused(blue, "PUT", path, `{"tags": [5]}`, 400, "InvalidInput", "Invalid input for operation: '5' is not a valid string.")
		a.refused(blue, "PUT", path+"/"+strings.Repeat("x", 256), "", 400, "InvalidInput", "")
		many := make([]string, 51)
		for i := range many {
			many[i] = fmt.Sprintf("%q", fmt.Sprint("t", i))
		}
		a.refused(blue, "PUT", path, `{"tags": [`+strings.Join(many, ",")+`]}`, 400, "BadRequest",
			"Bad networks request: The number of tags exceed the per-resource limit of 50.")
	})
}

func TestOneSegmentIsProviderAttributes(t *testing.T) {
	a := newAPI(t)
	vlan := `{"provider:network_type": "vlan", "provider:physical_network": "physnet1", "provider:segmentation_id": "101"}`
	n := a.create(admin, "network", `{"segments": [`+vlan+`]}`)
	for name, want := range map[string]any{"provider:network_type": "vlan", "provider:physical_network": "physnet1", "provider:segmentation_id": 101.0} {
		if n[name] != want {
			t.Errorf("%s is %v, want %v", name, n[name], want)
		}
	}
	if _, shown := n["segments"]; shown {
		t.Error("a network with one segment shows segments")
	}
	id := n["id"].(string)
	a.put(admin, "network", id, `{"segments": [`+vlan+`]}`)
	a.refused(admin, "PUT", "/v2.0/networks/"+id, `{"network": {"segments": [{"provider:network_type": "gre"}]}}`, 400, "InvalidInput",
		"Invalid input for operation: Plugin does not support updating the following provider network attributes: provider:network_type, provider:physical_network, provider:segmentation_id.")
	if r := a.must(200, admin, "GET", "/v2.0/networks/"+id+"?fields=segments", ""); r.raw != `{"network": {}}` {
		t.Errorf("fields=segments: %s", r.raw)
	}
	for _, c := range []struct {
		body, typ, message string
	}{
		{`"segments": [` + vlan + `, {"provider:network_type": "gre"}]`, "InvalidInput",
			"Invalid input for operation: a network of several segments has flat and vlan segments here, and one is of the type 'gre'."},
		{`"segments": [` + vlan + `, {"provider:network_type": "flat", "provider:physical_network": "physnet1"}]`, "InvalidInput",
			"Invalid input for operation: each of several segments needs a physical network of its own here, and two are on 'physnet1'."},
		{`"segments": [` + vlan + `, ` + vlan + `]`, "SegmentsContainDuplicateEntry", "Duplicate segment entry in request."},
		{`"segments": [` + vlan + `, {"provider:network_type": "flat", "provider:physical_network": "nowhere"}]`, "InvalidInput",
			"Invalid input for operation: physical_network 'nowhere' unknown for flat provider network."},
		{`"segments": [` + vlan + `], "provider:network_type": "gre"`, "SegmentsSetInConjunctionWithProviders", "Segments and provider values cannot both be set."},
		{`"segments": [{"provider:physical_network": "physnet1"}]`, "InvalidInput", "Invalid input for operation: network_type required."},
		{`"segments": [{"provider:network_type": "gre", "mtu": 5}]`, "HTTPBadRequest", "Unrecognized attribute(s) 'mtu'"},
		{`"segments": [{"provider:network_type": "gre", "provider:segmentation_id": -1}]`, "InvalidInput",
			"Invalid input for operation: segmentation_id out of range (1 through 4294967295)."},
		{`"segments": [5]`, "HTTPBadRequest", "Invalid input for segments. Reason: '5' is not a dictionary."},
		{`"segments": null`, "HTTPBadRequest", "Invalid input for segments. Reason: 'None' is not a list."},
	} {
		a.refused(admin, "POST", "/v2.0/networks", `{"network": {`+c.body+`}}`, 400, c.typ, c.message)
	}
	a.refused(blue, "POST", "/v2.0/networks", `{"network": {"segments": [`+vlan+`]}}`, 403, "PolicyNotAuthorized", "")
	a.refused(admin, "POST", "/v2.0/networks", `{"network": {"segments": [{"provider:network_type": "vlan", "provider:physical_network": "physnet1",
		"provider:segmentation_id": 0}]}}`, 400, "InvalidInput", "Invalid input for operation: segmentation_id out of range (1 through 4094).")
	a.network(admin, `"segments": []`)
	a.network(admin, `"segments": [{"provider:network_type": "flat", "provider:physical_network": "physnet1", "provider:segmentation_id": 0}]`)
}

func TestSeveralSegmentsAreOnPhysicalNetworksOfTheirOwn(t *testing.T) {
	a := newAPI(t)
	for host, physicalNetwork := range map[string]string{"h1": "physnet1", "h2": "physnet2", "h3": "physnet3"} {
		a.change(func(tx *network.Tx) error {
			return tx.PutHost(&network.Host{Name: host, BridgeMappings: map[string]string{physicalNetwork: "br-ex"}})
		})
	}
	const (
		vlan = `{"provider:network_type": "vlan", "provider:physical_network": "physnet1", "provider:segmentation_id": 101}`
		flat = `{"provider:network_type": "flat", "provider:physical_network": "physnet2"}`
	)
	n := a.create(admin, "network", `{"segments": [`+vlan+`, `+flat+`], "shared": true}`)
	id := n["id"].(string)
	want := `{"network": {"segments": [{"provider:network_type": "vlan", "provider:physical_network": "physnet1", "provider:segmentation_id": 101}, ` +
		`{"provider:network_type": "flat", "provider:physical_network": "physnet2", "provider:segmentation_id": null}]}}`
	if r := a.must(200, admin, "GET", "/v2.0/networks/"+id+"?fields=segments&fields=provider:network_type", ""); r.raw != want {
		t.Errorf("segments are shown as %s, want %s", r.raw, want)
	}
	if r := a.must(200, blue, "GET", "/v2.0/networks/"+id+"?fields=segments", ""); r.raw != `{"network": {}}` {
		t.Errorf("a project sees segments: %s", r.raw)
	}
	for host, vif := range map[string]string{"h1": "ovs", "h2": "ovs", "h3": "binding_failed"} {
		if p := a.create(admin, "port", `{"network_id": "`+id+`", "binding:host_id": "`+host+`"}`); p["binding:vif_type"] != vif {
			t.Errorf("a port on %s has the vif_type %v, want %s", host, p["binding:vif_type"], vif)
		}
	}
	a.put(admin, "network", id, `{"segments": [`+vlan+`, `+flat+`], "name": "n"}`)
	a.refused(admin, "PUT", "/v2.0/networks/"+id, `{"network": {"segments": [`+vlan+`]}}`, 400, "InvalidInput",
		"Invalid input for operation: Plugin does not support updating the following provider network attributes: segments.")
	a.refused(admin, "POST", "/v2.0/networks", `{"network": {"segments": [{"provider:network_type": "flat", "provider:physical_network": "physnet3"}, `+flat+`]}}`,
		409, "FlatNetworkInUse", "Unable to create the flat network. Physical network physnet2 is in use.")
	for _, port := range a.list(admin, "ports", "network_id="+id, "id") {
		a.must(204, admin, "DELETE", "/v2.0/ports/"+port, "")
	}
	a.must(204, admin, "DELETE", "/v2.0/networks/"+id, "")
	a.network(admin, `"segments": [`+flat+`]`)
	a.network(admin, `"segments": [`+vlan+`]`)
}
