package e2e

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	"planck/test/lab"
)

// network6 makes a network with one IPv6 subnet for a tenant and returns its id.
func (c *cloud) network6(tenant, cidr string, attrs object) string {
	c.Helper()
	id := c.network(tenant, "", nil)
	c.subnet6(id, cidr, attrs)
	return id
}

func (c *cloud) subnet6(networkID, cidr string, attrs object) string {
	c.Helper()
	body := object{"ip_version": 6}
	for k, v := range attrs {
		body[k] = v
	}
	return c.subnet(networkID, cidr, body)
}

// address6 gives a VM the address of its port by hand, and waits until the
// kernel has found no duplicate.
func (c *cloud) address6(v *vm) {
	c.Helper()
	c.add6(v, v.ip())
	c.eventually(v.Name()+" finds its address free", func() error { return v.addressIs(c, v.ip(), "") })
}

func (c *cloud) add6(v *vm, address string) {
	c.Helper()
	if out, err := v.Exec(c.Context(), "ip", "-6", "addr", "add", address+"/64", "dev", "eth0"); err != nil {
		c.Fatalf("%v\n%s", err, out)
	}
}

// addressIs checks that a VM has an address with a flag, or with neither
// tentative nor dadfailed when the flag is "".
func (v *vm) addressIs(c *cloud, address, flag string) error {
	out, err := v.Exec(c.Context(), "ip", "-6", "-o", "addr", "show", "dev", "eth0")
	if err != nil {
		return err
	}
	for line := range strings.Lines(out) {
		if !strings.Contains(line, " "+address+"/") {
			continue
		}
		if flag == "" && !strings.Contains(line, "tentative") && !strings.Contains(line, "dadfailed") || flag != "" && strings.Contains(line, flag) {
			return nil
		}
	}
	return fmt.Errorf("%s:\n%s", address, out)
}

// forget6 makes a VM forget its neighbours.
func (c *cloud) forget6(v *vm) {
	c.Helper()
	if out, err := v.Exec(c.Context(), "ip", "-6", "neigh", "flush", "dev", "eth0"); err != nil {
		c.Fatalf("%v\n%s", err, out)
	}
}

func TestNeighborsAreFoundByIPv6(t *testing.T) {
	t.Parallel()
	c := newCloud(t, 2, nil, "")
	blue := c.network6("blue", "fd00:1::/64", nil)
	a, b, far := c.boot("a", "host1", blue, nil), c.boot("b", "host1", blue, nil), c.boot("far", "host2", blue, nil)
	for _, v := range []*vm{a, b, far} {
		c.address6(v)
	}
	overheard := c.watch(b)
	c.reaches(a.Node, b.ip())
	c.reaches(a.Node, far.ip())
	c.pingable(far) // no rule of the default group is about link-local addresses
	c.reaches(a.Node, linkLocal(t, far.mac())+"%eth0")
	c.reaches(a.Node, c.dhcpServer(blue))

	// A VM that takes a neighbour's address finds it in use, on whatever host.
	for _, v := range []*vm{b, far} {
		c.add6(v, a.ip())
		c.eventually(v.Name()+" finds the address in use", func() error { return v.addressIs(c, a.ip(), "dadfailed") })
	}
	c.send(a, ethernet(t, everybody, a.mac(), etherIPv6, neighborAdvertisement(t, linkLocal(t, a.mac()), far.ip(), a.mac())))
	c.mark(a)
	if text := overheard(); strings.Contains(text, "who has "+far.ip()) || strings.Contains(text, "tgt is "+far.ip()) {
		t.Errorf("a question that the controller answers, or a forged answer, reached a neighbour:\n%s", text)
	}

	// The answers stay in the switch: without a controller, a VM that forgot its
	// neighbours finds them again.
	c.eventually("the answers are in the switch", func() error {
		if flows := c.flows("host1", "br-int"); !strings.Contains(flows, "nd_target="+far.ip()+" actions=move:NXM_OF_ETH_SRC") {
			return fmt.Errorf("no reply flow:\n%s", flows)
		}
		return nil
	})
	c.survives6(a, far)
}

// configured waits until a VM has configured the address of its port by router advertisements.
func (c *cloud) configured(v *vm) {
	c.Helper()
	c.eventually(v.Name()+" has the address of its port", func() error { return v.addressIs(c, v.ip(), "") })
}

// defaultRoute is what a VM has as its IPv6 default route.
func (c *cloud) defaultRoute(v *vm) string {
	c.Helper()
	out, err := v.Exec(c.Context(), "ip", "-6", "route", "show", "default")
	if err != nil {
		c.Fatalf("%v\n%s", err, out)
	}
	return out
}

func (c *cloud) attachSubnet(routerID, subnetID string) {
	c.Helper()
	status, out := c.call(http.MethodPut, "/v2.0/routers/"+routerID+"/add_router_interface", object{"subnet_id": subnetID})
	if status != http.StatusOK {
		c.Fatalf("add_router_interface: %d %v", status, out)
	}
}

// routerMAC is the MAC of a router on a network.
func (c *cloud) routerMAC(networkID string) string {
	c.Helper()
	_, out := c.call(http.MethodGet, "/v2.0/ports?device_owner=network:router_interface&network_id="+networkID, nil)
	return out["ports"].([]any)[0].(object)["mac_address"].(string)
}

func slaac() object { return mode6("slaac") }

func TestKernelsConfigureThemselvesAndAreRouted(t *testing.T) {
	t.Parallel()
	c := newCloud(t, 2, nil, "[OVS]\nnetwork_vlan_ranges = physnet1:100:199\n")
	one, two := c.network("blue", "", nil), c.network("blue", "", object{
		"provider:network_type": "vlan", "provider:physical_network": "physnet1", "provider:segmentation_id": 120,
	})
	subnet := c.subnet6(one, "fd00:1::/64", slaac())
	router := c.create("router", object{"name": "r", "tenant_id": "blue"})["id"].(string)
	// This VM asks before there is a router, and hears of it when there is one.
	a := c.boot("a", "host1", one, nil)
	c.attachSubnet(router, subnet)
	c.attachSubnet(router, c.subnet6(two, "fd00:2::/64", slaac()))
	b, near := c.boot("b", "host2", two, nil), c.boot("near", "host1", two, nil)
	for _, v := range []*vm{a, b, near} {
		c.configured(v)
	}
	gateway := linkLocal(t, c.routerMAC(one))
	if route := c.defaultRoute(a); !strings.Contains(route, "via "+gateway+" dev eth0 proto ra") {
		t.Errorf("default route: %s", route)
	}
	if out, err := a.Exec(t.Context(), "cat", "/proc/sys/net/ipv6/conf/eth0/mtu"); strings.TrimSpace(out) != "1458" {
		t.Errorf("MTU by advertisement: %s %v", out, err)
	}
	for _, dst := range []string{"fd00:1::1", "fd00:2::1", gateway + "%eth0", near.ip(), b.ip()} {
		c.reaches(a.Node, dst)
	}
	c.reaches(b.Node, a.ip())
	c.isTold(b.Node, a.ip(), 1411, "mtu=1458")
	c.fits(b.Node, a.ip(), 1410)
	out, err := a.Exec(t.Context(), "ping", "-c", "1", "-W", "2", "-t", "1", b.ip())
	if !strings.Contains(out, "From fd00:1::1") || !strings.Contains(out, "Time exceeded: Hop limit") {
		t.Errorf("hop limit 1: %v\n%s", err, out)
	}
	if out, _ = a.Exec(t.Context(), "ping", "-c", "1", "-W", "2", "2001:db8::77"); !strings.Contains(out, "No route") {
		t.Errorf("no route: %s", out)
	}

	c.survives6(a, b)

	// Who leaves the network says so: its neighbours have no default route any more.
	status, removed := c.call(http.MethodPut, "/v2.0/routers/"+router+"/remove_router_interface", object{"subnet_id": subnet})
	if status != http.StatusOK {
		t.Fatalf("remove_router_interface: %d %v", status, removed)
	}
	c.eventually("the default route goes with the router", func() error {
		if route := c.defaultRoute(a); route != "" {
			return fmt.Errorf("%s", route)
		}
		return nil
	})
	c.hypervisorsAreBare()
}

// survives6 kills the controller under a stream of pings, after which the VM has
// forgotten its neighbours.
func (c *cloud) survives6(from, to *vm) {
	c.Helper()
	stream, err := from.PingStream(c.Context(), to.ip())
	if err != nil {
		c.Fatal(err)
	}
	c.kill(syscall.SIGKILL)
	c.forget6(from)
	if err := stream.WaitReplies(c.within(settle), 50); err != nil {
		c.Fatal(err)
	}
	c.start()
	c.outlives(stream)
	if sent := c.metric("planck_flow_mods_total", ""); sent != 0 {
		c.Errorf("the new controller sent %v FLOW_MODs", sent)
	}
}

func mode6(mode string) object { return object{"ipv6_ra_mode": mode, "ipv6_address_mode": mode} }

func TestDhclientTalksDHCPv6(t *testing.T) {
	t.Parallel()
	c := newCloud(t, 1, nil, "[DEFAULT]\ndhcp_lease_duration = 8\ndns_domain = cloud.test\n")
	dns := object{"dns_nameservers": []any{"2001:db8::53", "2001:db8::54"}}
	with := func(mode string) object {
		attrs := mode6(mode)
		attrs["dns_nameservers"] = dns["dns_nameservers"]
		return attrs
	}
	check := func(c *cloud, lease lab.Lease6, address string) {
		c.Helper()
		if got := lease.Addr; address == "" && got.IsValid() || address != "" && got.String() != address {
			c.Errorf("address %v, want %q", got, address)
		}
		if !slices.Equal(lease.DNS, addrs("2001:db8::53", "2001:db8::54")) || lease.Search != "cloud.test." {
			c.Errorf("DNS servers %v, search %q", lease.DNS, lease.Search)
		}
	}

	c.also("stateful, with a router", func(c *cloud) {
		id := c.network("blue", "", nil)
		subnet := c.subnet6(id, "fd00:1::/64", with("dhcpv6-stateful"))
		c.attachSubnet(c.create("router", object{"name": "r"})["id"].(string), subnet)
		v := c.boot("stateful", "host1", id, object{"extra_dhcp_opts": []any{object{"opt_name": "bootfile-url", "opt_value": "http://boot.test/x", "ip_version": 6}}})
		lease, err := v.Dhclient6(c.Context())
		if err != nil {
			c.Fatal(err)
		}
		check(c, lease, v.ip())
		if lease.Raw["new_dhcp6_bootfile_url"] != "http://boot.test/x" {
			c.Errorf("the port's own option is not there: %v", lease.Raw)
		}
		c.configured(v)
		c.reaches(v.Node, "fd00:1::1")
		c.eventually("the router is advertised", func() error {
			if route := c.defaultRoute(v); !strings.Contains(route, "proto ra") {
				return fmt.Errorf("%s", route)
			}
			return nil
		})
		// With a lease in its file, the client asks whether that still holds.
		again, err := v.StartDhclient6()
		if err != nil {
			c.Fatal(err)
		}
		for _, step := range []string{"XMT: Confirm", "RCV: Reply", "XMT: Renew", "RCV: Reply"} {
			if err := again.WaitOutput(c.within(settle), step); err != nil {
				c.Fatal(err)
			}
		}
		if _, err := again.Stop(); err != nil {
			c.Fatal(err)
		}
		if _, err := v.Dhclient6(c.Context(), "-r"); !errors.Is(err, os.ErrNotExist) {
			c.Errorf("released, but: %v", err)
		}
		c.eventually("the address is gone", func() error {
			if err := v.addressIs(c, v.ip(), ""); err == nil {
				return errors.New("it is there")
			}
			return nil
		})
	})

	c.also("stateless", func(c *cloud) {
		id := c.network("blue", "", nil)
		subnet := c.subnet6(id, "fd00:2::/64", with("dhcpv6-stateless"))
		c.attachSubnet(c.create("router", object{"name": "r"})["id"].(string), subnet)
		v := c.boot("stateless", "host1", id, nil)
		c.configured(v)
		lease, err := v.Dhclient6(c.Context(), "-S")
		if err != nil {
			c.Fatal(err)
		}
		check(c, lease, "")
	})

	c.also("without a mode and without a router", func(c *cloud) {
		id := c.network("blue", "", nil)
		c.subnet6(id, "fd00:3::/64", dns)
		v := c.boot("modeless", "host1", id, nil)
		lease, err := v.Dhclient6(c.Context())
		if err != nil {
			c.Fatal(err)
		}
		check(c, lease, v.ip())
		if route := c.defaultRoute(v); route != "" {
			c.Errorf("a router is advertised where there is none: %s", route)
		}
	})

	c.also("what a VM may not say", func(c *cloud) {
		id := c.network("red", "", nil)
		subnet := c.subnet6(id, "fd00:4::/64", slaac())
		c.attachSubnet(c.create("router", object{"name": "r"})["id"].(string), subnet)
		bad, victim := c.boot("bad", "host1", id, nil), c.boot("victim", "host1", id, nil)
		c.configured(victim)
		gateway := c.defaultRoute(victim)
		seen := c.watch(victim)
		from := linkLocal(c.T, bad.mac())
		c.send(bad, ethernet(c.T, "33:33:00:00:00:01", bad.mac(), etherIPv6, icmp6(from, "ff02::1", routerAdvertisement("fd66::"))))
		c.send(bad, ethernet(c.T, "33:33:00:00:00:01", bad.mac(), etherIPv6, udp6(from, "ff02::1", 547, 546, []byte{7, 1, 2, 3})))
		c.send(bad, ethernet(c.T, everybody, bad.mac(), etherIPv6, neighborAdvertisement(c.T, from, victim.ip(), bad.mac())))
		// A listener's report is for those who forward multicast, not for VMs with groups.
		c.send(bad, ethernet(c.T, "33:33:00:00:00:16", bad.mac(), etherIPv6, icmp6(from, "ff02::16", []byte{143, 0, 0, 0, 0, 0, 0, 0})))
		c.mark(bad)
		text := seen()
		for what, want := range map[string]bool{"fd66::": false, ".547 > ": false, "tgt is " + victim.ip() + ", Flags": false, fmt.Sprint(from, " > ff02::16"): false} {
			if got := strings.Contains(text, what); got != want {
				c.Errorf("the victim saw %q: %v, want %v:\n%s", what, got, want, text)
			}
		}
		if now := c.defaultRoute(victim); viaOf(now) != viaOf(gateway) {
			c.Errorf("the victim's default route was %s, is %s", gateway, now)
		}
	})
}

// viaOf is a route without what counts down.
func viaOf(route string) string {
	via, _, _ := strings.Cut(route, " proto")
	return via
}

func TestExtraRouteLeadsThroughAVMByIPv6(t *testing.T) {
	t.Parallel()
	c := newCloud(t, 2, nil, "")
	one, two := c.network("blue", "", nil), c.network("blue", "", nil)
	router := c.create("router", object{"name": "r", "tenant_id": "blue"})["id"].(string)
	c.attachSubnet(router, c.subnet6(one, "fd00:1::/64", slaac()))
	c.attachSubnet(router, c.subnet6(two, "fd00:2::/64", slaac()))
	a := c.boot("a", "host1", one, nil)
	hop := c.boot("hop", "host2", two, object{"port_security_enabled": false})
	c.configured(a)
	c.configured(hop)
	if out, err := hop.Exec(t.Context(), "ip", "-6", "addr", "add", "2001:db8:5::5/128", "dev", "lo"); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	c.cutOff(a.Node, "2001:db8:5::5")
	c.update("router", router, object{"routes": []any{object{"destination": "2001:db8::/32", "nexthop": hop.ip()}}})
	c.eventually("the route leads to the hop", func() error {
		if _, received, _ := a.Ping(t.Context(), "2001:db8:5::5", 1, "-W", "1"); received == 0 {
			return fmt.Errorf("no answer")
		}
		return nil
	})
}

func TestIPv6LeavesByTheGatewayUntranslated(t *testing.T) {
	t.Parallel()
	c := newCloud(t, 2, nil, "[OVS]\nnetwork_vlan_ranges = physnet1:100:199\n")
	public := c.create("network", object{
		"name": "public", "router:external": true, "provider:network_type": "flat", "provider:physical_network": "physnet1",
	})["id"].(string)
	c.subnet6(public, "2001:db8:ff::/64", object{"enable_dhcp": false})
	blue := c.network("blue", "", nil)
	router := c.create("router", object{"name": "r", "tenant_id": "blue"})["id"].(string)
	c.attachSubnet(router, c.subnet6(blue, "fd00:1::/64", slaac()))
	gateway := c.update("router", router, object{"external_gateway_info": object{"network_id": public}})["external_gateway_info"].(object)
	outside := gateway["external_fixed_ips"].([]any)[0].(object)["ip_address"].(string)

	// The operator's router has the way back; behind it lies the Internet.
	ext := c.lab.Ext()
	for _, args := range [][]string{
		{"addr", "add", "2001:db8:ff::1/64", "dev", "eth0", "nodad"}, {"addr", "add", "2001:db8:99::9/128", "dev", "lo"},
		{"route", "add", "fd00:1::/64", "via", outside},
	} {
		if out, err := ext.Exec(t.Context(), append([]string{"ip", "-6"}, args...)...); err != nil {
			t.Fatalf("%v: %v\n%s", args, err, out)
		}
	}
	a, b := c.boot("a", "host1", blue, nil), c.boot("b", "host2", blue, nil)
	wire := c.capture(ext, "eth0", "icmp6")
	for _, v := range []*vm{a, b} {
		c.configured(v)
		c.reaches(v.Node, "2001:db8:ff::1")
		c.reaches(v.Node, "2001:db8:99::9")
		c.reaches(v.Node, outside)
		c.pingable(v)
		c.reaches(ext, v.ip())
		c.isTold(ext, v.ip(), 1411, "mtu=1458")
		c.fits(ext, v.ip(), 1410)
	}
	c.reaches(ext, outside)
	out, _ := ext.Exec(t.Context(), "ip", "-6", "neigh", "show", outside)
	if !strings.Contains(out, "router") {
		t.Errorf("ext does not know the gateway as a router: %s", out)
	}
	if text := c.captured(wire); !strings.Contains(text, a.ip()+" > 2001:db8:99::9") || strings.Contains(text, c.routerMAC(blue)) {
		t.Errorf("not the VM's own address, or the MAC of a router's interface, is on the wire:\n%s", text)
	}

	c.survives6(b, &vm{port: object{"fixed_ips": []any{object{"ip_address": "2001:db8:99::9"}}}})
	c.hypervisorsAreBare()
}
