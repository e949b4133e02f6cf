package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"syscall"
	"testing"
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
	c.eventually("a router that is down routes nothing", func() error {
		if _, received, _ := a.Ping(t.Context(), b.ip(), 1, "-W", "1"); received != 0 {
			return fmt.Errorf("still answered")
		}
		if _, received, _ := a.Ping(t.Context(), "10.0.0.1", 1, "-W", "1"); received != 0 {
			return fmt.Errorf("it answers itself")
		}
		return nil
	})
	c.update("router", id, object{"admin_state_up": true})
	c.eventually("it routes again", func() error {
		if _, received, _ := a.Ping(t.Context(), b.ip(), 1, "-W", "1"); received == 0 {
			return fmt.Errorf("no answer")
		}
		return nil
	})
	status, out := c.call(http.MethodPut, "/v2.0/routers/"+id+"/remove_router_interface", object{"subnet_id": c.subnetOf(two)})
	if status != http.StatusOK {
		t.Fatalf("remove_router_interface: %d %v", status, out)
	}
	c.eventually("a removed interface routes nothing", func() error {
		if _, received, _ := a.Ping(t.Context(), b.ip(), 1, "-W", "1"); received != 0 {
			return fmt.Errorf("still answered")
		}
		return nil
	})
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
	c.eventually("the route leads to the hop", func() error {
		if _, received, _ := a.Ping(t.Context(), "172.16.5.5", 1, "-W", "1"); received == 0 {
			return fmt.Errorf("no answer")
		}
		return nil
	})
}
