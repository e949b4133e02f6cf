package network_test

import (
	"cmp"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"planck/network"
	"planck/northbound"
)

// client makes random calls of the API, good and bad ones.
type client struct {
	store *network.Store
	api   http.Handler
}

// TestAnyAPICallsKeepTheInvariants makes random calls through the handler of
// the API, for several projects. After each: no answer is a 500, a refused call
// and a GET changed nothing, an accepted one made one revision at most and
// touched only what the caller may touch, revision numbers grow, addresses,
// segments and keys are unique, claims are those of the objects. At the end a
// store that is opened anew sees the same, and deleting everything by the API
// leaves nothing.
func TestAnyAPICallsKeepTheInvariants(t *testing.T) {
	network.OnEach(t, func(t *testing.T, dsn string) {
		cfg := network.DefaultConfig()
		cfg.Log = slog.New(slog.DiscardHandler)
		cfg.VLANRanges["physnet1"] = []network.IDRange{{First: 100, Last: 102}}
		cfg.TunnelRanges[network.TypeGRE] = []network.IDRange{{First: 1, Last: 8}}
		store, err := network.Open(t.Context(), dsn, cfg)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := store.Close(); err != nil {
				t.Error(err)
			}
		})
		api, err := northbound.New(northbound.Options{Store: store, AuthStrategy: "noauth", Logger: cfg.Log})
		if err != nil {
			t.Fatal(err)
		}
		c := &client{store: store, api: api}
		c.putHosts(t)
		rapid.Check(t, func(rt *rapid.T) {
			c.deleteEverything(rt)
			rt.Repeat(map[string]func(*rapid.T){
				"":            func(rt *rapid.T) { c.check(rt) },
				"create":      c.create,
				"create more": c.create,
				"create much": c.create,
				"update":      c.update,
				"update more": c.update,
				"tag":         c.tag,
				"delete":      c.delete,
				"read":        c.read,
				"garbage":     c.garbage,
				"attach":      c.attach,
				"plug":        c.plug,
			})
			again, err := network.Open(t.Context(), dsn, cfg)
			if err != nil {
				rt.Fatal(err)
			}
			network.SameView(rt, "after reopening", store.View(), again.View())
			if err := again.Close(); err != nil {
				rt.Fatal(err)
			}
			c.deleteEverything(rt)
		})
	})
}

func (c *client) putHosts(t *testing.T) {
	t.Helper()
	_, err := c.store.Update(t.Context(), network.Cause{}, func(tx *network.Tx) error {
		for _, name := range []string{"h1", "h2"} {
			h := &network.Host{Name: name, SystemID: name, DatapathType: "netdev", TunnelIP: netip.MustParseAddr("192.0.2.1")}
			h.Bridges = map[string]network.Bridge{network.BridgeTunnel: {Tunnels: map[string]uint32{network.TypeGRE: 1}}}
			if name == "h1" {
				h.BridgeMappings = map[string]string{"physnet1": "br-ex"}
			}
			if err := tx.PutHost(h); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// request is one call of the API.
type request struct {
	who          http.Header
	method, path string
	body         string
}

func (q request) String() string {
	return fmt.Sprintf("%s %s %s as %v", q.method, q.path, q.body, q.who)
}

// send makes a call and checks what must hold for each.
func (c *client) send(rt *rapid.T, q request) *httptest.ResponseRecorder {
	before := c.store.View()
	r, err := http.NewRequestWithContext(rt.Context(), q.method, "http://planck"+q.path, strings.NewReader(q.body))
	if err != nil {
		rt.Fatalf("%s: %v", q, err)
	}
	r.Header = q.who.Clone()
	w := httptest.NewRecorder()
	c.api.ServeHTTP(w, r)
	after := c.store.View()
	if w.Code >= 500 && !strings.Contains(w.Body.String(), "NoNetworkAvailable") {
		rt.Fatalf("%s: %d %s", q, w.Code, w.Body)
	}
	if w.Body.Len() > 0 && !json.Valid(w.Body.Bytes()) {
		rt.Fatalf("%s: not JSON: %s", q, w.Body)
	}
	if w.Code >= 300 && (after.Revision() != before.Revision() || !slices.Equal(network.Dump(before), network.Dump(after))) {
		rt.Fatalf("%s: refused with %d, and changed something", q, w.Code)
	}
	checkStep(rt, q, before, after)
	return w
}

// checkStep compares the model before and after an accepted call.
func checkStep(rt *rapid.T, q request, before, after *network.View) {
	grown := after.Revision() - before.Revision()
	if grown > 1 || grown == 1 && q.reads() {
		rt.Fatalf("%s: revision %d became %d", q, before.Revision(), after.Revision())
	}
	old := map[string]network.Object{}
	for _, o := range network.Dump(before) {
		old[objectName(o)] = o
	}
	changes := 0
	for _, o := range network.Dump(after) {
		was, there := old[objectName(o)]
		delete(old, objectName(o))
		if there && was == o {
			continue
		}
		changes++
		mayTouch(rt, q, after, o)
		if there {
			mayTouch(rt, q, before, was)
			checkRevision(rt, q, was, o)
		}
	}
	for _, gone := range old {
		mayTouch(rt, q, before, gone)
	}
	if (changes+len(old) > 0) != (grown == 1) {
		rt.Fatalf("%s: %d objects changed and %d went with %d revisions", q, changes, len(old), grown)
	}
}

// reads reports whether a call may not change anything. To list security groups
// is to use them, and makes the default one.
func (q request) reads() bool {
	return (q.method == http.MethodGet || q.method == http.MethodHead) && !strings.HasPrefix(q.path, "/v2.0/security-group")
}

func objectName(o network.Object) string { return string(o.ObjectKind()) + " " + o.ObjectID() }

func standardOf(o network.Object) *network.Standard {
	switch o := o.(type) {
	case *network.Network:
		return &o.Standard
	case *network.Subnet:
		return &o.Standard
	case *network.Port:
		return &o.Standard
	case *network.SecurityGroup:
		return &o.Standard
	case *network.SecurityGroupRule:
		return &o.Standard
	case *network.Router:
		return &o.Standard
	case *network.FloatingIP:
		return &o.Standard
	}
	return nil
}

func checkRevision(rt *rapid.T, q request, was, now network.Object) {
	a, b := standardOf(was), standardOf(now)
	if a == nil {
		return
	}
	if b.RevisionNumber <= a.RevisionNumber || b.UpdatedAt.Before(a.UpdatedAt) || !b.CreatedAt.Equal(a.CreatedAt) || b.ProjectID != a.ProjectID {
		rt.Fatalf("%s: %s was changed: %+v became %+v", q, objectName(now), a, b)
	}
}

// mayTouch: a member changes what is its project's, what is on networks of it,
// and what follows for a network and its ports when a subnet of the project goes.
func mayTouch(rt *rapid.T, q request, view *network.View, o network.Object) {
	s := standardOf(o)
	project := cmp.Or(q.who.Get("X-Project-Id"), q.who.Get("X-Tenant-Id"))
	if s == nil || project == "" || q.who.Get("X-Roles") == "admin" || s.ProjectID == project {
		return
	}
	on := ""
	switch o := o.(type) {
	case *network.Network:
		on = o.ID
	case *network.Port:
		on = o.NetworkID
		// Ports of gateways and floating IPs are nobody's.
		if s.ProjectID == "" && (strings.HasPrefix(q.path, "/v2.0/routers") || strings.HasPrefix(q.path, "/v2.0/floatingips")) {
			return
		}
	case *network.Subnet:
		on = o.NetworkID
	}
	if n := view.Network(on); n != nil && n.ProjectID == project {
		return
	}
	// Rules of others that name a group go with it, and a group counts the changes of its rules.
	if strings.HasPrefix(string(o.ObjectKind()), "security_group") && strings.HasPrefix(q.path, "/v2.0/security-group") {
		return
	}
	if o.ObjectKind() != network.KindSubnet && strings.HasPrefix(q.path, "/v2.0/subnets/") {
		return
	}
	rt.Fatalf("%s: changed %s of project %q", q, objectName(o), s.ProjectID)
}

// check looks at the whole model.
func (c *client) check(rt *rapid.T) {
	network.CheckInvariants(rt, c.store)
	v := c.store.View()
	taken := map[string]string{}
	take := func(owner string, format string, args ...any) {
		key := fmt.Sprintf(format, args...)
		if other, there := taken[key]; there {
			rt.Fatalf("%s and %s have %s", other, owner, key)
		}
		taken[key] = owner
	}
	for n := range v.Networks() {
		take(n.ID, "network key %d", n.Key)
		if n.NetworkType != network.TypeLocal {
			take(n.ID, "segment %s %s %d", n.NetworkType, n.PhysicalNetwork, n.SegmentationID)
		}
		checkSubnets(rt, v, n)
	}
	for p := range v.Ports() {
		take(p.ID, "port key %d", p.Key)
		take(p.ID, "MAC %s on %s", p.MAC, p.NetworkID)
		for _, f := range p.FixedIPs {
			take(p.ID, "address %s on %s", f.IP, p.NetworkID)
			s := v.Subnet(f.SubnetID)
			if s == nil || s.NetworkID != p.NetworkID || !s.CIDR.Contains(f.IP) {
				rt.Fatalf("port %s on %s has %s of %+v", p.ID, p.NetworkID, f.IP, s)
			}
		}
	}
}

func checkSubnets(rt *rapid.T, v *network.View, n *network.Network) {
	subnets := slices.Collect(v.SubnetsOf(n.ID))
	for i, s := range subnets {
		for _, other := range subnets[:i] {
			if s.CIDR.Overlaps(other.CIDR) {
				rt.Fatalf("subnets %s and %s of network %s overlap", s.CIDR, other.CIDR, n.ID)
			}
		}
		for _, r := range s.AllocationPools {
			if !s.CIDR.Contains(r.Start) || !s.CIDR.Contains(r.End) || s.GatewayIP.IsValid() && r.Contains(s.GatewayIP) {
				rt.Fatalf("subnet %s with gateway %s has the pool %s", s.CIDR, s.GatewayIP, r)
			}
		}
	}
}

// kind is a collection of the API, with what a body may say about an object, in
// pieces of JSON. NETWORK, SUBNET, PORT and SECURITY_GROUP in them are replaced by
// ids, EXTERNAL by that of an external network where there is one.
type kind struct {
	name       string
	first      []string // what every new object has
	good, poor []string // more of it; poor is wrong always or often
	filters    []string
}

func (k *kind) path() string { return "/v2.0/" + strings.ReplaceAll(k.name, "_", "-") + "s" }

var (
	long       = strings.Repeat("ä", 300)
	commonGood = []string{`"name": ""`, `"name": "a"`, `"name": "ü/\u2028"`, `"description": "d"`, `"admin_state_up": true`, `"admin_state_up": "False"`}
	commonPoor = []string{`"name": "\u0000"`, `"name": "\ud800"`, `"name": null`, `"name": 5`, `"name": "` + long + `"`, `"description": "` + long + `"`,
		`"tenant_id": "blue"`, `"tenant_id": "red"`, `"tenant_id": null`, `"tenant_id": "\u0000"`, `"tenant_id": {}`, `"project_id": "blue", "tenant_id": "red"`,
		`"admin_state_up": 2`, `"id": "x"`, `"unknown": 1`, `"revision_number": 1`, `"status": "ACTIVE"`}
	kinds = []*kind{
		{
			name:  "network",
			first: []string{`"name": "n"`},
			good: append([]string{`"shared": true`, `"shared": false`, `"router:external": true`, `"is_default": true`, `"is_default": false`,
				`"mtu": 1400`, `"mtu": 1280`, `"mtu": "1000"`, `"port_security_enabled": false`, `"dns_domain": "a.example."`,
				`"provider:network_type": "vlan", "provider:physical_network": "physnet1"`,
				`"provider:network_type": "vlan", "provider:physical_network": "physnet1", "provider:segmentation_id": 100`,
				`"provider:network_type": "flat", "provider:physical_network": "physnet1"`,
				`"provider:network_type": "gre", "provider:segmentation_id": 5`, `"provider:network_type": "vxlan"`, `"provider:network_type": "local"`,
			}, commonGood...),
			poor: append([]string{`"shared": "maybe"`, `"mtu": 68`, `"mtu": -1`, `"mtu": 1e3`, `"mtu": 99999999999999999999`, `"provider:network_type": "x"`,
				`"provider:network_type": null`, `"provider:physical_network": "nowhere"`, `"provider:segmentation_id": 0`, `"provider:segmentation_id": 4294967296`,
				`"provider:network_type": "vlan", "provider:physical_network": "physnet1", "provider:segmentation_id": 4095`, `"dns_domain": "-"`,
			}, commonPoor...),
			filters: []string{"shared=True", "mtu=1400", "provider:segmentation_id=100", "name=a", "tags=a,b"},
		},
		{
			name: "subnet",
			first: []string{
				`"network_id": "NETWORK", "ip_version": 4, "cidr": "10.0.0.0/29"`, `"network_id": "NETWORK", "ip_version": 4, "cidr": "10.0.0.0/30"`,
				`"network_id": "NETWORK", "ip_version": 4, "cidr": "10.0.1.5/24"`, `"network_id": "NETWORK", "ip_version": "4", "cidr": "10.0.2.0/31"`,
				`"network_id": "NETWORK", "ip_version": 6, "cidr": "2001:db8::/64"`, `"network_id": "NETWORK", "ip_version": 6, "cidr": "2001:db8:1::/120"`,
				`"network_id": "NETWORK", "ip_version": 6, "cidr": "2001:db8:2::/64", "ipv6_address_mode": "slaac", "ipv6_ra_mode": "slaac"`,
				`"network_id": "NETWORK", "ip_version": 6, "cidr": "2001:db8:3::/64", "ipv6_address_mode": "dhcpv6-stateful"`,
			},
			good: append([]string{`"gateway_ip": null`, `"gateway_ip": "10.0.0.1"`, `"gateway_ip": "10.0.1.254"`, `"enable_dhcp": true`, `"enable_dhcp": false`,
				`"allocation_pools": [{"start": "10.0.0.2", "end": "10.0.0.2"}]`, `"allocation_pools": []`,
				`"allocation_pools": [{"start": "10.0.1.9", "end": "10.0.1.9"}, {"start": "10.0.1.2", "end": "10.0.1.8"}]`,
				`"dns_nameservers": ["8.8.8.8", "8.8.4.4"]`, `"dns_nameservers": []`, `"host_routes": [{"destination": "40.0.1.0/24", "nexthop": "10.0.0.2"}]`,
				`"service_types": ["compute:nova"]`, `"service_types": []`,
			}, commonGood...),
			poor: append([]string{`"network_id": "x"`, `"network_id": null`, `"cidr": "0.0.0.0/0"`, `"cidr": "::/0"`, `"cidr": "::ffff:10.0.0.0/120"`, `"cidr": "224.0.0.0/24"`,
				`"cidr": "10.0.0.0/33"`, `"cidr": "10.0.2.1/32"`, `"cidr": ""`, `"cidr": null`, `"ip_version": 5`, `"ip_version": 4.0`, `"ip_version": null`,
				`"gateway_ip": "10.0.0.0"`, `"gateway_ip": "fe80::1"`, `"gateway_ip": "224.0.0.1"`, `"gateway_ip": "0.0.0.0"`, `"gateway_ip": ""`,
				`"enable_dhcp": null`, `"allocation_pools": null`, `"allocation_pools": [{"start": "10.0.0.3", "end": "10.0.0.2"}]`, `"allocation_pools": [{"start": "10.0.0.2"}]`,
				`"allocation_pools": [{"start": "10.0.0.2", "end": "10.0.0.2"}, {"start": "10.0.0.2", "end": "10.0.0.3"}]`,
				`"allocation_pools": [{"start": "::", "end": "ffff::"}]`, `"allocation_pools": [null]`, `"dns_nameservers": ["8.8.8.8", "8.8.8.8"]`, `"dns_nameservers": "8.8.8.8"`,
				`"host_routes": [{"destination": "::/0", "nexthop": "2001:db8::2"}]`, `"host_routes": [{}]`, `"ipv6_ra_mode": "x"`, `"ipv6_ra_mode": "slaac"`, `"service_types": ["x"]`,
			}, commonPoor...),
			filters: []string{"cidr=10.0.0.0/29", "enable_dhcp=1", "ip_version=6", "gateway_ip=10.0.0.1", "network_id=NETWORK"},
		},
		{
			name:  "port",
			first: []string{`"network_id": "NETWORK"`},
			good: append([]string{`"fixed_ips": []`, `"fixed_ips": [{"ip_address": "10.0.0.3"}]`, `"fixed_ips": [{"ip_address": "10.0.1.9"}]`, `"fixed_ips": [{"subnet_id": "SUBNET"}]`,
				`"fixed_ips": [{"subnet_id": "SUBNET"}, {"ip_address": "10.0.1.10"}]`, `"fixed_ips": [{"ip_address": "2001:db8:1::9"}]`,
				`"mac_address": "02:00:00:00:00:01"`, `"mac_address": "02-00-00-00-00-02"`, `"mac_address": null`,
				`"device_owner": ""`, `"device_owner": "compute:nova"`, `"device_owner": "network:router_interface"`, `"device_id": "vm"`,
				`"allowed_address_pairs": [{"ip_address": "10.0.0.0/24"}]`, `"allowed_address_pairs": []`,
				`"allowed_address_pairs": [{"ip_address": "10.0.0.9", "mac_address": "02:00:00:00:00:09"}]`,
				`"extra_dhcp_opts": [{"opt_name": "67", "opt_value": "x"}]`, `"extra_dhcp_opts": [{"opt_name": "67", "opt_value": null}]`,
				`"binding:host_id": "h1"`, `"binding:host_id": "h2"`, `"binding:host_id": "nowhere"`, `"binding:host_id": ""`, `"binding:vnic_type": "direct"`,
				`"binding:profile": {"a": [1, {"b": null}]}`, `"binding:profile": {"": 12345678901234567890.5}`, `"binding:profile": {}`, `"port_security_enabled": false`,
				`"security_groups": []`, `"security_groups": ["SECURITY_GROUP"]`, `"security_groups": ["SECURITY_GROUP", "SECURITY_GROUP"]`,
			}, commonGood...),
			poor: append([]string{`"network_id": "x"`, `"network_id": null`, `"fixed_ips": [{"subnet_id": "SUBNET"}, {"subnet_id": "SUBNET"}]`,
				`"fixed_ips": [{"subnet_id": "SUBNET", "ip_address": "10.0.0.2"}]`, `"fixed_ips": [{"ip_address": "10.0.0.3"}, {"ip_address": "10.0.0.3"}]`,
				`"fixed_ips": [{"ip_address": "10.0.0.7"}]`, `"fixed_ips": [{"ip_address": "0.0.0.0"}]`, `"fixed_ips": [{"ip_address": "::ffff:10.0.0.3"}]`, `"fixed_ips": [{}]`,
				`"fixed_ips": null`, `"fixed_ips": [5]`, `"mac_address": "ff:ff:ff:ff:ff:ff"`, `"mac_address": "00:00:00:00:00:00"`, `"mac_address": "x"`,
				`"device_owner": "network:dhcp"`, `"device_owner": "network:floatingip"`, `"device_owner": null`, `"device_id": "` + long + `"`,
				`"allowed_address_pairs": [{"ip_address": "10.0.0.9"}, {"ip_address": "10.0.0.9"}]`, `"allowed_address_pairs": [{"mac_address": "02:00:00:00:00:09"}]`,
				`"allowed_address_pairs": {}`, `"extra_dhcp_opts": [{"opt_name": "a", "opt_value": "1", "ip_version": "6"}]`, `"extra_dhcp_opts": [{}]`,
				`"binding:host_id": "\u0000"`, `"binding:vnic_type": "x"`, `"binding:profile": {"a": 1e400}`, `"binding:profile": {"\u0000": "\u0000"}`, `"binding:profile": []`,
				`"security_groups": ["x"]`, `"security_groups": ["00000000-0000-4000-8000-000000000000"]`, `"tags": [""]`, `"tags": ["a", "b"]`,
			}, commonPoor...),
			filters: []string{"fixed_ips=subnet_id=SUBNET", "fixed_ips=ip_address_substr=10", "mac_address=02:00:00:00:00:01", "device_owner=&device_id=vm",
				"network_id=NETWORK", "binding:host_id=h1", "status=ACTIVE", "id=PORT", "security_groups=SECURITY_GROUP"},
		},
		{
			name:    "security_group",
			first:   []string{`"name": "g"`},
			good:    []string{`"name": ""`, `"name": "a"`, `"description": "d"`, `"stateful": false`, `"stateful": true`},
			poor:    []string{`"name": "default"`, `"stateful": null`, `"name": null`, `"security_group_rules": []`, `"tenant_id": "blue"`, `"tenant_id": "red"`, `"shared": true`, `"unknown": 1`},
			filters: []string{"name=default", "shared=True", "tags=a,b", "tenant_id=blue", "tenant_id=red", "project_id=%ff"},
		},
		{
			name: "security_group_rule",
			first: []string{
				`"security_group_id": "SECURITY_GROUP", "direction": "ingress"`, `"security_group_id": "SECURITY_GROUP", "direction": "egress"`,
				`"security_group_id": "SECURITY_GROUP", "direction": "ingress", "remote_group_id": "SECURITY_GROUP"`,
			},
			good: []string{`"protocol": "tcp"`, `"protocol": 17`, `"protocol": "icmp"`, `"protocol": "tcp", "port_range_min": 22, "port_range_max": 23`,
				`"protocol": "icmp", "port_range_min": 8`, `"ethertype": "IPv6"`, `"ethertype": "ipv4"`, `"remote_ip_prefix": "10.0.0.5/24"`,
				`"remote_ip_prefix": "0.0.0.0/0"`, `"remote_group_id": "SECURITY_GROUP"`, `"description": "d"`},
			poor: []string{`"protocol": "x"`, `"protocol": 256`, `"protocol": -1`, `"port_range_min": 5`, `"port_range_max": 70000`, `"port_range_min": "x"`, `"ethertype": "x"`,
				`"remote_ip_prefix": "x"`, `"remote_ip_prefix": "::/0"`, `"remote_group_id": "x"`, `"direction": "x"`, `"tenant_id": "red"`, `"normalized_cidr": "x"`},
			filters: []string{"direction=ingress", "security_group_id=SECURITY_GROUP", "remote_group_id=SECURITY_GROUP", "protocol=tcp", "port_range_min=22", "remote_ip_prefix=0.0.0.0/0"},
		},
		{
			name:  "router",
			first: []string{`"name": "r"`, `"external_gateway_info": {"network_id": "EXTERNAL"}`},
			good: append([]string{`"external_gateway_info": {"network_id": "EXTERNAL"}`, `"external_gateway_info": {"network_id": "EXTERNAL", "enable_snat": false}`,
				`"external_gateway_info": null`, `"external_gateway_info": {}`, `"external_gateway_info": {"network_id": "EXTERNAL", "external_fixed_ips": [{"ip_address": "10.0.0.3"}]}`,
				`"routes": [{"destination": "40.0.1.0/24", "nexthop": "10.0.0.2"}]`, `"routes": []`,
			}, commonGood...),
			poor: append([]string{`"external_gateway_info": {"network_id": "NETWORK"}`, `"external_gateway_info": {"network_id": "x"}`, `"external_gateway_info": {"enable_snat": 2}`,
				`"external_gateway_info": []`, `"external_gateway_info": {"network_id": "EXTERNAL", "external_fixed_ips": [{"subnet_id": "SUBNET"}]}`,
				`"routes": [{"destination": "40.0.1.0/24"}]`, `"routes": [{"destination": "::/0", "nexthop": "10.0.0.2"}]`, `"routes": null`, `"distributed": true`, `"ha": "x"`,
			}, commonPoor...),
			filters: []string{"name=r", "external_gateway_info=x", "admin_state_up=True", "tags=a,b"},
		},
		{
			name:  "floatingip",
			first: []string{`"floating_network_id": "EXTERNAL"`},
			good: []string{`"port_id": "PORT"`, `"port_id": null`, `"port_id": "PORT", "fixed_ip_address": "10.0.0.3"`, `"fixed_ip_address": "10.0.1.9"`,
				`"floating_ip_address": "10.0.0.4"`, `"subnet_id": "SUBNET"`, `"description": "d"`},
			poor: []string{`"floating_network_id": "NETWORK"`, `"floating_network_id": null`, `"port_id": "x"`, `"port_id": []`, `"fixed_ip_address": "::1"`, `"fixed_ip_address": "x"`,
				`"floating_ip_address": "10.0.0.0"`, `"floating_ip_address": "2001:db8::1"`, `"router_id": "x"`, `"status": "ACTIVE"`, `"tenant_id": "red"`, `"unknown": 1`},
			filters: []string{"floating_network_id=EXTERNAL", "port_id=PORT", "status=DOWN", "fixed_ip_address=10.0.0.3", "tags=a,b"},
		},
	}
)

// callers make the calls; strangers are callers as no client should send them.
var (
	callers = []http.Header{
		{}, {}, {}, {"X-Project-Id": {"blue"}}, {"X-Project-Id": {"blue"}}, {"X-Project-Id": {"red"}},
		{"X-Tenant-Id": {"red"}, "X-User-Id": {"u"}}, {"X-Project-Id": {"blue"}, "X-Roles": {"admin"}}, {"X-Project-Id": {"blue"}, "X-Roles": {"reader, ,"}},
	}
	strangers = []http.Header{
		{"X-Project-Id": {"blu\xe4"}}, {"X-User-Id": {"\xff\xfe"}}, {"X-Project-Id": {long}}, {"X-User-Id": {long}}, {"X-Project-Id": {"green"}},
	}
)

func pick[T any](rt *rapid.T, what string, of []T) T {
	return of[rapid.IntRange(0, len(of)-1).Draw(rt, what)]
}

func oneIn(rt *rapid.T, n int, what string) bool {
	return rapid.IntRange(1, n).Draw(rt, what) == n
}

func caller(rt *rapid.T) http.Header {
	if oneIn(rt, 20, "stranger") {
		return pick(rt, "caller", strangers).Clone()
	}
	return pick(rt, "caller", callers).Clone()
}

// ids are the objects of a kind in an order that is the same in each run.
func (c *client) ids(name string) []string {
	v := c.store.View()
	switch name {
	case "network":
		list := slices.SortedFunc(v.Networks(), func(a, b *network.Network) int { return cmp.Compare(a.Key, b.Key) })
		return idsOf(list)
	case "subnet":
		list := slices.SortedFunc(v.Subnets(), func(a, b *network.Subnet) int {
			return cmp.Or(cmp.Compare(v.Network(a.NetworkID).Key, v.Network(b.NetworkID).Key), a.CIDR.Addr().Compare(b.CIDR.Addr()))
		})
		return idsOf(list)
	case "security_group":
		return idsOf(slices.SortedFunc(v.SecurityGroups(), func(a, b *network.SecurityGroup) int { return cmp.Compare(a.Key, b.Key) }))
	case "security_group_rule":
		return idsOf(slices.SortedFunc(v.SecurityGroupRules(), func(a, b *network.SecurityGroupRule) int { return cmp.Compare(a.Key, b.Key) }))
	case "router":
		return idsOf(slices.SortedFunc(v.Routers(), func(a, b *network.Router) int { return cmp.Compare(a.Key, b.Key) }))
	case "floatingip":
		return idsOf(slices.SortedFunc(v.FloatingIPs(), func(a, b *network.FloatingIP) int { return cmp.Compare(a.Key, b.Key) }))
	case "external":
		return slices.DeleteFunc(c.ids("network"), func(id string) bool { return !v.Network(id).External })
	}
	return idsOf(slices.SortedFunc(v.Ports(), func(a, b *network.Port) int { return cmp.Compare(a.Key, b.Key) }))
}

func idsOf[O network.Object](list []O) []string {
	ids := make([]string, len(list))
	for i, o := range list {
		ids[i] = o.ObjectID()
	}
	return ids
}

var noIDs = []string{"00000000-0000-4000-8000-000000000000", "x", "%00", "%ff", "..%2Fports", long[:20], "a b", "-"}

// id is one of an object of this kind, or now and then of nothing.
func (c *client) id(rt *rapid.T, name string) string {
	ids := c.ids(name)
	if len(ids) == 0 || oneIn(rt, 16, "bad id") {
		return pick(rt, "no id", noIDs)
	}
	return pick(rt, name, ids)
}

func (c *client) fill(rt *rapid.T, text string) string {
	for _, name := range []string{"network", "external", "subnet", "port", "security_group"} {
		for word := strings.ToUpper(name); strings.Contains(text, word); {
			text = strings.Replace(text, word, url.PathEscape(c.id(rt, name)), 1)
		}
	}
	return text
}

// object is the JSON of an object as a client would send it.
func (c *client) object(rt *rapid.T, k *kind, post bool) string {
	var parts []string
	if post != oneIn(rt, 20, "other than required") {
		parts = append(parts, pick(rt, "first", k.first))
	}
	for range rapid.IntRange(0, 3).Draw(rt, "attributes") {
		if oneIn(rt, 8, "poor") {
			parts = append(parts, pick(rt, "poor attribute", k.poor))
		} else {
			parts = append(parts, pick(rt, "attribute", k.good))
		}
	}
	return "{" + c.fill(rt, strings.Join(parts, ", ")) + "}"
}

func (c *client) create(rt *rapid.T) {
	k := pick(rt, "kind", kinds)
	body := fmt.Sprintf(`{%q: %s}`, k.name, c.object(rt, k, true))
	if oneIn(rt, 4, "bulk") {
		var items []string
		for range rapid.IntRange(0, 3).Draw(rt, "items") {
			items = append(items, c.object(rt, k, true))
		}
		body = fmt.Sprintf(`{%q: [%s]}`, k.name+"s", strings.Join(items, ", "))
	}
	q := request{caller(rt), http.MethodPost, k.path(), body}
	w := c.send(rt, q)
	if w.Code == http.StatusCreated {
		c.seesItsWrite(rt, q, k, w.Body.Bytes())
	}
}

// seesItsWrite: what was answered is what a GET by the same caller shows.
func (c *client) seesItsWrite(rt *rapid.T, q request, k *kind, answer []byte) {
	var one map[string]any
	if err := json.Unmarshal(answer, &one); err != nil {
		rt.Fatalf("%s: %v: %s", q, err, answer)
	}
	made, ok := one[k.name].(map[string]any)
	if !ok {
		return // bulk
	}
	w := c.send(rt, request{q.who, http.MethodGet, k.path() + "/" + made["id"].(string), ""})
	var shown map[string]any
	if err := json.Unmarshal(w.Body.Bytes(), &shown); err != nil || !reflect.DeepEqual(shown, one) {
		rt.Fatalf("%s was answered by\n%s\nand shows\n%s", q, answer, w.Body)
	}
}

func (c *client) update(rt *rapid.T) {
	k := pick(rt, "kind", kinds)
	q := request{caller(rt), http.MethodPut, k.path() + "/" + url.PathEscape(c.id(rt, k.name)), fmt.Sprintf(`{%q: %s}`, k.name, c.object(rt, k, false))}
	if oneIn(rt, 4, "conditional") {
		q.who.Set("If-Match", pick(rt, "If-Match", []string{"revision_number=0", "revision_number=1", "revision_number=99999999999999999999", "x", "revision_number=-1"}))
	}
	w := c.send(rt, q)
	if w.Code == http.StatusOK {
		q.who.Del("If-Match")
		c.seesItsWrite(rt, q, k, w.Body.Bytes())
	}
}

func (c *client) tag(rt *rapid.T) {
	k := pick(rt, "kind", kinds)
	path := k.path() + "/" + url.PathEscape(c.id(rt, k.name)) + "/tags"
	if rapid.Bool().Draw(rt, "one tag") {
		path += "/" + pick(rt, "tag", []string{"a", "b", "%00", "%ff", "a,b", url.PathEscape(long), "%2F"})
	}
	method := pick(rt, "method", []string{http.MethodPut, http.MethodPost, http.MethodDelete, http.MethodGet})
	body := ""
	if method == http.MethodPut || method == http.MethodPost {
		body = pick(rt, "tags", []string{`{"tags": ["a"]}`, `{"tags": ["c", "b", "a"]}`, `{"tags": ["a", "a"]}`, `{"tags": []}`, `{"tags": null}`, `{"tags": [1]}`, `{}`, ``})
	}
	c.send(rt, request{caller(rt), method, path, body})
}

func (c *client) delete(rt *rapid.T) {
	k := pick(rt, "kind", kinds)
	body := ""
	if oneIn(rt, 10, "with a body") {
		body = "{}"
	}
	c.send(rt, request{caller(rt), http.MethodDelete, k.path() + "/" + url.PathEscape(c.id(rt, k.name)), body})
}

func (c *client) read(rt *rapid.T) {
	k := pick(rt, "kind", kinds)
	path := k.path()
	if rapid.Bool().Draw(rt, "one") {
		path += "/" + url.PathEscape(c.id(rt, k.name))
	}
	var query []string
	for range rapid.IntRange(0, 3).Draw(rt, "filters") {
		query = append(query, c.fill(rt, pick(rt, "query", append(k.filters, "fields=id", "limit=1", "marker=NETWORK", "sort_key=name&sort_dir=desc",
			"page_reverse=1", "not-tags-any=a", "tenant_id=blue", "limit=-1", "x=y", "%zz", "name=%ff"))))
	}
	q := request{caller(rt), pick(rt, "method", []string{http.MethodGet, http.MethodHead}), path + "?" + strings.Join(query, "&"), ""}
	c.checkIsolation(rt, q, k, c.send(rt, q).Body.Bytes())
}

// checkIsolation: a member's list has only what it may see.
func (c *client) checkIsolation(rt *rapid.T, q request, k *kind, answer []byte) {
	project := cmp.Or(q.who.Get("X-Project-Id"), q.who.Get("X-Tenant-Id"))
	var reply map[string][]struct {
		ID string `json:"id"`
	}
	if project == "" || q.who.Get("X-Roles") == "admin" || json.Unmarshal(answer, &reply) != nil {
		return
	}
	v := c.store.View()
	for _, item := range reply[k.name+"s"] {
		if item.ID != "" && !visible(v, project, k.name, item.ID) {
			rt.Fatalf("%s shows %s %s", q, k.name, item.ID)
		}
	}
}

func visible(v *network.View, project, kind, id string) bool {
	var owner, on string
	switch kind {
	case "network":
		n := v.Network(id)
		return n.ProjectID == project || n.Shared || n.External
	case "subnet":
		owner, on = v.Subnet(id).ProjectID, v.Subnet(id).NetworkID
	case "port":
		owner, on = v.Port(id).ProjectID, v.Port(id).NetworkID
	case "security_group":
		return v.SecurityGroup(id).ProjectID == project
	case "security_group_rule":
		r := v.SecurityGroupRule(id)
		return r.ProjectID == project || v.SecurityGroup(r.GroupID).ProjectID == project
	case "router":
		return v.Router(id).ProjectID == project
	case "floatingip":
		return v.FloatingIP(id).ProjectID == project
	}
	n := v.Network(on)
	return owner == project || n.ProjectID == project || kind == "subnet" && (n.Shared || n.External)
}

// attach gives a router an interface, or takes one away.
func (c *client) attach(rt *rapid.T) {
	action := pick(rt, "action", []string{"add", "add", "remove"})
	body := c.fill(rt, pick(rt, "interface", []string{
		`{"subnet_id": "SUBNET"}`, `{"subnet_id": "SUBNET"}`, `{"port_id": "PORT"}`, `{"subnet_id": "SUBNET", "port_id": "PORT"}`, `{}`, `{"subnet_id": null}`, `[]`,
	}))
	c.send(rt, request{caller(rt), http.MethodPut, "/v2.0/routers/" + url.PathEscape(c.id(rt, "router")) + "/" + action + "_router_interface", body})
}

// garbage is what no client sends on purpose.
func (c *client) garbage(rt *rapid.T) {
	method := pick(rt, "method", []string{http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, "BREW"})
	path := pick(rt, "path", []string{"/", "/v2.0", "/v2.0/networks", "/v2.0/ports/" + url.PathEscape(c.id(rt, "port")), "/v2.0//", "/v2.0/extensions",
		"/v2.0/networks/x/y/z", "/v2.0/ports/%2e%2e/tags/%00"})
	body := pick(rt, "body", []string{``, `[`, `null`, `"x"`, `{"network": null}`, `{"networks": {}}`, `{"networks": [null]}`, `{"port": []}`, `{"ports": []}`,
		`{"network": {}} {}`, "\x00", "\xff", `{"network": {"name": "a", "name": "b"}}`, strings.Repeat(`[`, 20000), `{"network": {"tags": ["a"]}}`, `{"a": 1e999}`})
	c.send(rt, request{caller(rt), method, path, body})
}

// plug changes which ports are plugged into a host, as its switch would tell.
func (c *client) plug(rt *rapid.T) {
	host := pick(rt, "host", []string{"h1", "h2"})
	var vifs []network.VIF
	for i, id := range c.ids("port") {
		if rapid.Bool().Draw(rt, "plugged") {
			vifs = append(vifs, network.VIF{PortID: id, Name: "tap", OFPort: uint32(i + 1)})
		}
	}
	_, err := c.store.Update(rt.Context(), network.Cause{}, func(tx *network.Tx) error { return tx.SyncVIFs(host, vifs) })
	if err != nil {
		rt.Fatal(err)
	}
}

// deleteEverything empties the model by the API alone.
func (c *client) deleteEverything(rt *rapid.T) {
	v := c.store.View()
	for f := range v.FloatingIPs() {
		c.mustDelete(rt, "floatingip", f.ID)
	}
	for r := range v.Routers() {
		c.mustDetach(rt, r)
		c.mustDelete(rt, "router", r.ID)
	}
	for p := range c.store.View().Ports() {
		if p.DeviceOwner != network.OwnerDHCP {
			c.mustDelete(rt, "port", p.ID)
		}
	}
	for n := range v.Networks() {
		c.mustDelete(rt, "network", n.ID)
	}
	for g := range v.SecurityGroups() {
		c.mustDelete(rt, "security-group", g.ID)
	}
	for _, host := range []string{"h1", "h2"} {
		if _, err := c.store.Update(rt.Context(), network.Cause{}, func(tx *network.Tx) error { return tx.SyncVIFs(host, nil) }); err != nil {
			rt.Fatal(err)
		}
	}
	network.EndDepartures(rt, c.store)
	for _, o := range network.Dump(c.store.View()) {
		if o.ObjectKind() != network.KindHost {
			rt.Fatalf("%s is left: %+v", objectName(o), o)
		}
	}
	for claim := range network.ClaimRows(rt, c.store) {
		if claim.OwnerKind != network.KindHost {
			rt.Fatalf("claim left: %+v", claim)
		}
	}
}

// mustDetach takes all interfaces from a router, after the routes that use them.
func (c *client) mustDetach(rt *rapid.T, r *network.Router) {
	put := func(path, body string) {
		if w := c.send(rt, request{http.Header{}, http.MethodPut, "/v2.0/routers/" + r.ID + path, body}); w.Code != http.StatusOK {
			rt.Fatalf("router %s%s %s: %d %s", r.ID, path, body, w.Code, w.Body)
		}
	}
	put("", `{"router": {"routes": []}}`)
	for p := range c.store.View().Ports() {
		if p.DeviceID == r.ID && p.DeviceOwner == network.OwnerRouterInterface {
			put("/remove_router_interface", fmt.Sprintf(`{"port_id": %q}`, p.ID))
		}
	}
}

func (c *client) mustDelete(rt *rapid.T, name, id string) {
	w := c.send(rt, request{http.Header{}, http.MethodDelete, "/v2.0/" + name + "s/" + id, ""})
	if w.Code != http.StatusNoContent {
		rt.Fatalf("%s %s is not deleted: %d %s", name, id, w.Code, w.Body)
	}
}
