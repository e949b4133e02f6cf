package e2e

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"syscall"
	"testing"

	"planck/test/lab"
)

// subnetOf is the only subnet of a network.
func (c *cloud) subnetOf(networkID string) string {
	c.Helper()
	return c.show("network", networkID)["subnets"].([]any)[0].(string)
}

// router makes a router of a tenant that joins networks.
func (c *cloud) router(tenant string, networks ...string) string {
	c.Helper()
	id := c.create("router", object{"name": tenant + "-router", "tenant_id": tenant})["id"].(string)
	for _, n := range networks {
		c.attach(id, n)
	}
	return id
}

func (c *cloud) attach(routerID, networkID string) {
	c.Helper()
	status, out := c.call(http.MethodPut, "/v2.0/routers/"+routerID+"/add_router_interface", object{"subnet_id": c.subnetOf(networkID)})
	if status != http.StatusOK {
		c.Fatalf("add_router_interface: %d %v", status, out)
	}
}

// chassisPrefix begins the MACs of hosts on physical networks, as tcpdump shows
// the sender's: with them goes what routers send there.
const chassisPrefix = " 0e:50:4c:"

func TestRouterJoinsTheNetworksOfItsTenantOnly(t *testing.T) {
	t.Parallel()
	c := newCloud(t, 2, nil, "[OVS]\nnetwork_vlan_ranges = physnet1:100:199\n")
	type tenant struct{ here, far, wire *vm }
	tenants := map[string]tenant{}
	for i, name := range []string{"blue", "red"} {
		one, two := c.network(name, "10.0.0.0/24", nil), c.network(name, "10.0.1.0/24", nil)
		vlan := c.network(name, "10.0.2.0/24", object{
			"provider:network_type": "vlan", "provider:physical_network": "physnet1", "provider:segmentation_id": 110 + i,
		})
		c.router(name, one, two, vlan)
		tenants[name] = tenant{
			here: c.boot(name+"1", "host1", one, nil),
			far:  c.boot(name+"2", "host2", two, nil),
			wire: c.boot(name+"3", "host2", vlan, nil),
		}
		for _, v := range []*vm{tenants[name].here, tenants[name].far, tenants[name].wire} {
			c.dhcp(v)
		}
	}
	chassis, err := c.lab.Host("host1").Capture("phys0", "vlan")
	if err != nil {
		t.Fatal(err)
	}
	for name, vms := range tenants {
		c.reaches(vms.here.Node, "10.0.0.1")
		c.reaches(vms.here.Node, "10.0.1.1")
		c.reaches(vms.here.Node, vms.far.ip())
		c.reaches(vms.far.Node, vms.here.ip())
		c.reaches(vms.here.Node, vms.wire.ip())
		c.reaches(vms.wire.Node, vms.far.ip())
		out, err := vms.here.Exec(t.Context(), "ping", "-c", "1", "-W", "2", "-t", "1", vms.far.ip())
		if !strings.Contains(out, "From 10.0.0.1") || !strings.Contains(out, "Time to live exceeded") {
			t.Errorf("%s: TTL 1: %v\n%s", name, err, out)
		}
		out, _ = vms.here.Exec(t.Context(), "ping", "-c", "1", "-W", "2", "192.0.2.77")
		if !strings.Contains(out, "Net Unreachable") {
			t.Errorf("%s: no route: %s", name, out)
		}
	}
	if err := chassis.WaitFor(c.within(settle), chassisPrefix); err != nil {
		t.Errorf("no frame has a host's MAC: %v", err)
	}
	text := c.captured(chassis)
	_, ports := c.call(http.MethodGet, "/v2.0/ports?device_owner=network:router_interface", nil)
	for _, p := range ports["ports"].([]any) {
		if mac := p.(object)["mac_address"].(string); strings.Contains(text, mac) {
			t.Errorf("the router's MAC %s is on the wire", mac)
		}
	}

	// With red's far VM gone, nobody must answer for it to red: blue's has the same address.
	if err := tenants["red"].far.Unplug(); err != nil {
		t.Fatal(err)
	}
	c.waitStatus(tenants["red"].far.id(), "DOWN")
	c.cutOff(tenants["red"].here.Node, tenants["red"].far.ip())
	c.reaches(tenants["blue"].here.Node, tenants["blue"].far.ip())
	c.hypervisorsAreBare()
}

func TestRoutedTrafficSurvivesTheControllerAndEndsWithTheRouter(t *testing.T) {
	t.Parallel()
	c := newCloud(t, 2, nil, "")
	one, two := c.network("blue", "10.0.0.0/24", nil), c.network("blue", "10.0.1.0/24", nil)
	id := c.router("blue", one, two)
	a, b := c.boot("a", "host1", one, nil), c.boot("b", "host2", two, nil)
	c.dhcp(a)
	c.dhcp(b)
	c.reaches(a.Node, b.ip())
	server := c.dhcpServer(one)
	c.reaches(a.Node, server)

	stream, err := a.PingStream(t.Context(), b.ip())
	if err != nil {
		t.Fatal(err)
	}
	c.kill(syscall.SIGKILL)
	for _, address := range []string{"10.0.0.1", "10.0.1.1", server} {
		c.reaches(a.Node, address)
	}
	if err := stream.WaitReplies(c.within(settle), 50); err != nil {
		t.Fatal(err)
	}
	c.start()
	c.outlives(stream)
	if sent := c.metric("planck_flow_mods_total", ""); sent != 0 {
		t.Errorf("the new controller sent %v FLOW_MODs", sent)
	}

	c.update("router", id, object{"admin_state_up": false})
	c.fallsSilent(a.Node, b.ip())
	c.fallsSilent(a.Node, "10.0.0.1")
	c.update("router", id, object{"admin_state_up": true})
	c.comesThrough(a.Node, b.ip())
	c.detach(id, object{"subnet_id": c.subnetOf(two)})
	c.fallsSilent(a.Node, b.ip())
}

// fallsSilent waits until a ping is not answered any more.
func (c *cloud) fallsSilent(from *lab.Node, dst string) {
	c.Helper()
	c.eventually(dst+" does not answer "+from.Name(), func() error {
		if _, received, _ := from.Ping(c.Context(), dst, 1, "-W", "1"); received != 0 {
			return errors.New("it does")
		}
		return nil
	})
}

// detach removes a router's interface, which is told by its port or its subnet.
func (c *cloud) detach(routerID string, which object) {
	c.Helper()
	if status, out := c.call(http.MethodPut, "/v2.0/routers/"+routerID+"/remove_router_interface", which); status != http.StatusOK {
		c.Fatalf("remove_router_interface %v: %d %v", which, status, out)
	}
}

// Interfaces go by their port or by their subnet. What they made on the hosts
// goes with them, and the router's other networks stay connected.
func TestInterfacesAreRemovedByPortAndBySubnet(t *testing.T) {
	t.Parallel()
	c := newCloud(t, 2, nil, "")
	one, two, three := c.network("blue", "10.0.0.0/24", nil), c.network("blue", "10.0.1.0/24", nil), c.network("blue", "10.0.2.0/24", nil)
	id := c.router("blue", one, three)
	link := c.create("port", object{"network_id": two, "tenant_id": "blue", "fixed_ips": []object{{"ip_address": "10.0.1.254"}}})
	if status, out := c.call(http.MethodPut, "/v2.0/routers/"+id+"/add_router_interface", object{"port_id": link["id"]}); status != http.StatusOK {
		t.Fatalf("add_router_interface by port: %d %v", status, out)
	}
	a, b, d := c.boot("a", "host1", one, nil), c.boot("b", "host2", two, nil), c.boot("d", "host2", three, nil)
	for _, v := range []*vm{a, b, d} {
		c.dhcp(v)
	}
	c.ip(b.Node, "route", "add", "10.0.0.0/24", "via", "10.0.1.254")
	c.comesThrough(a.Node, b.ip())
	c.comesThrough(b.Node, "10.0.1.254")
	c.comesThrough(a.Node, d.ip())
	router := c.macOf(three, "10.0.2.1")
	c.hasFlowsOf(link["mac_address"].(string), true)
	c.hasFlowsOf(router, true)

	c.detach(id, object{"port_id": link["id"]})
	c.fallsSilent(a.Node, b.ip())
	c.fallsSilent(b.Node, "10.0.1.254")
	c.hasFlowsOf(link["mac_address"].(string), false)
	if status, _ := c.call(http.MethodGet, "/v2.0/ports/"+link["id"].(string), nil); status != http.StatusNotFound {
		t.Errorf("the interface's port is there: %d", status)
	}
	c.reaches(a.Node, d.ip())

	c.detach(id, object{"subnet_id": c.subnetOf(three)})
	c.fallsSilent(a.Node, d.ip())
	c.fallsSilent(d.Node, "10.0.2.1")
	c.hasFlowsOf(router, false)
	c.reaches(a.Node, "10.0.0.1")
	c.hypervisorsAreBare()
}

// hasFlowsOf waits until a host has flows with a MAC, or none has.
func (c *cloud) hasFlowsOf(mac string, want bool) {
	c.Helper()
	c.eventually(fmt.Sprintf("flows with %s: %t", mac, want), func() error {
		found := false
		for _, h := range c.lab.Hosts() {
			for _, bridge := range bridges {
				found = found || strings.Contains(c.flows(h.Name(), bridge), mac)
			}
		}
		if found != want {
			return fmt.Errorf("it is %t", found)
		}
		return nil
	})
}

// Two tenants with the same subnets, each with a router of its own, are on one
// external network at the same time.
func TestTenantsWithTheSameAddressesShareAnExternalNetwork(t *testing.T) {
	t.Parallel()
	c := newCloud(t, 2, nil, physicalNetwork)
	public, anyTraffic := c.outside(), c.anyTraffic()
	outside := map[*vm]string{}
	var first []*vm // of each tenant
	for _, tenant := range []string{"blue", "red"} {
		id := c.network(tenant, "10.0.0.0/24", nil)
		gateway := c.setGateway(c.router(tenant, id), public, nil)
		for i, address := range []string{"10.0.0.10", "10.0.0.11"} {
			v := c.server(tenant, fmt.Sprint(tenant, i), fmt.Sprint("host", i+1), id, address, anyTraffic)
			c.dhcp(v)
			c.comesThrough(v.Node, "203.0.113.1")
			outside[v] = gateway
			if i == 0 {
				first = append(first, v)
			}
		}
	}
	defer c.echoOutside()()
	c.seenOutsideAs(outside)

	for _, v := range first {
		_, outside[v] = c.floatingIP(public, v)
	}
	blue, red := first[0], first[1]
	for _, v := range first {
		c.isAt(c.lab.Ext(), v, outside[v])
	}
	c.isAt(blue.Node, red, outside[red])
	c.isAt(red.Node, blue, outside[blue])
	c.seenOutsideAs(outside)

	// While one tenant's VM is away, nobody answers for it.
	if err := red.Unplug(); err != nil {
		t.Fatal(err)
	}
	c.waitStatus(red.id(), "DOWN")
	c.fallsSilent(c.lab.Ext(), outside[red])
	c.reaches(c.lab.Ext(), outside[blue])
	delete(outside, red)
	c.seenOutsideAs(outside)
	c.hypervisorsAreBare()
}

func TestExtraRouteLeadsThroughAVM(t *testing.T) {
	t.Parallel()
	c := newCloud(t, 2, nil, "")
	one, two := c.network("blue", "10.0.0.0/24", nil), c.network("blue", "10.0.1.0/24", nil)
	id := c.router("blue", one, two)
	a := c.boot("a", "host1", one, nil)
	hop := c.boot("hop", "host2", two, object{"port_security_enabled": false})
	c.dhcp(a)
	c.dhcp(hop)
	if out, err := hop.Exec(t.Context(), "ip", "addr", "add", "172.16.5.5/32", "dev", "lo"); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	c.cutOff(a.Node, "172.16.5.5")
	c.update("router", id, object{"routes": []any{object{"destination": "172.16.0.0/12", "nexthop": hop.ip()}}})
	c.comesThrough(a.Node, "172.16.5.5")
}

// changeRoutes adds or removes some of a router's extra routes, and checks which
// it has then.
func (c *cloud) changeRoutes(call, routerID string, routes []object, want ...object) {
	c.Helper()
	status, out := c.call(http.MethodPut, "/v2.0/routers/"+routerID+"/"+call, object{"router": object{"routes": routes}})
	if status != http.StatusOK {
		c.Fatalf("%s %v: %d %v", call, routes, status, out)
	}
	got := c.show("router", routerID)["routes"].([]any)
	if len(got) != len(want) {
		c.Fatalf("%s %v leaves %v, want %v", call, routes, got, want)
	}
	for _, w := range want {
		if !slices.ContainsFunc(got, func(g any) bool { return maps.Equal(g.(object), w) }) {
			c.Errorf("%s %v leaves %v, want %v", call, routes, got, want)
		}
	}
}

// goesBy waits until packets to an address go by a router, and then by a VM.
func (c *cloud) goesBy(from, hop *vm, dst string) {
	c.Helper()
	c.eventually(dst+" is reached by "+hop.Name(), func() error {
		out, err := from.Exec(c.Context(), "traceroute", "-n", "-q", "1", "-w", "2", "-m", "4", dst)
		if err != nil || !strings.Contains(out, "\n 2  "+hop.ip()+" ") || !strings.Contains(out, "\n 3  "+dst+" ") {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
}

// Extra routes come and go one by one, beside others, and lead packets through
// the VM that is their next hop.
func TestExtraRoutesAreAddedAndRemovedOneByOne(t *testing.T) {
	t.Parallel()
	c := newCloud(t, 2, nil, "")
	one, two := c.network("blue", "10.0.0.0/24", nil), c.network("blue", "10.0.1.0/24", nil)
	id := c.router("blue", one, two)
	a := c.boot("a", "host1", one, nil)
	loose := object{"port_security_enabled": false}
	hop, behind := c.boot("hop", "host1", two, loose), c.boot("behind", "host2", two, loose)
	for _, v := range []*vm{a, hop, behind} {
		c.dhcp(v)
	}
	c.exec(hop.Node, "sysctl", "-w", "net.ipv4.ip_forward=1")
	for _, address := range []string{"172.16.5.5", "172.17.5.5"} {
		c.ip(behind.Node, "addr", "add", address+"/32", "dev", "lo")
		c.ip(hop.Node, "route", "add", address, "via", behind.ip())
		c.cutOff(a.Node, address)
	}
	first, second := object{"destination": "172.16.0.0/16", "nexthop": hop.ip()}, object{"destination": "172.17.0.0/16", "nexthop": hop.ip()}
	c.changeRoutes("add_extraroutes", id, []object{first}, first)
	c.goesBy(a, hop, "172.16.5.5")
	c.cutOff(a.Node, "172.17.5.5")
	c.changeRoutes("add_extraroutes", id, []object{second, first}, first, second)
	c.goesBy(a, hop, "172.17.5.5")
	c.reaches(a.Node, "172.16.5.5")
	c.changeRoutes("remove_extraroutes", id, []object{first}, second)
	c.fallsSilent(a.Node, "172.16.5.5")
	c.goesBy(a, hop, "172.17.5.5")
	c.changeRoutes("remove_extraroutes", id, []object{first, second})
	c.fallsSilent(a.Node, "172.17.5.5")
	c.hypervisorsAreBare()
}
