package e2e

import (
	"fmt"
	"maps"
	"net/http"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"planck/test/lab"
)

// float gives one address of a port a floating IP and returns its id and address.
func (c *cloud) float(external, portID, fixed string) (id, address string) {
	c.Helper()
	f := c.create("floatingip", object{"floating_network_id": external, "port_id": portID, "fixed_ip_address": fixed})
	return f["id"].(string), f["floating_ip_address"].(string)
}

// ip runs ip(8) in a node.
func (c *cloud) ip(n *lab.Node, args ...string) {
	c.Helper()
	if out, err := n.Exec(c.Context(), append([]string{"ip"}, args...)...); err != nil {
		c.Fatalf("ip %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// One VM has two addresses, each with a floating IP of its own. While a stream
// goes to one of them, the other moves to another VM.
func TestFloatingIPsOfAPortWithSeveralAddresses(t *testing.T) {
	t.Parallel()
	c := newCloud(t, 2, nil, physicalNetwork)
	anyTraffic := c.anyTraffic()
	public := c.outside()
	blue := c.network("blue", "10.0.0.0/24", nil)
	c.setGateway(c.router("blue", blue), public, nil)
	two := []object{{"ip_address": "10.0.0.50"}, {"ip_address": "10.0.0.51"}}
	a := c.boot("a", "host1", blue, object{"security_groups": anyTraffic["security_groups"], "fixed_ips": two})
	b := c.boot("b", "host2", blue, anyTraffic)
	c.dhcp(b)
	for _, address := range []string{"10.0.0.50/24", "10.0.0.51/24"} {
		c.ip(a.Node, "addr", "add", address, "dev", "eth0")
	}
	c.ip(a.Node, "route", "add", "default", "via", "10.0.0.1")

	status, out := c.call(http.MethodPost, "/v2.0/floatingips", object{"floatingip": object{"floating_network_id": public, "port_id": a.id()}})
	if status != http.StatusBadRequest {
		t.Errorf("which of its addresses is not told: %d %v", status, out)
	}
	_, first := c.float(public, a.id(), "10.0.0.50")
	moving, second := c.float(public, a.id(), "10.0.0.51")
	ext := c.lab.Ext()
	atVM := c.capture(a.Node, "eth0", "icmp[icmptype] = icmp-echo and src host 203.0.113.1")
	c.comesThrough(ext, first)
	c.comesThrough(ext, second)
	for _, fixed := range []string{"10.0.0.50", "10.0.0.51"} {
		if err := atVM.WaitFor(c.within(settle), "203.0.113.1 > "+fixed+": "); err != nil {
			t.Errorf("nothing comes to %s: %v", fixed, err)
		}
	}
	c.captured(atVM)
	outside := c.capture(ext, "eth0", "icmp[icmptype] = icmp-echo")
	for _, fixed := range []string{"10.0.0.50", "10.0.0.51"} {
		if _, received, err := a.Ping(t.Context(), "203.0.113.1", 1, "-I", fixed, "-w", "20"); received == 0 {
			t.Errorf("%s does not reach the outside: %v", fixed, err)
		}
	}
	for _, address := range []string{first, second} {
		if err := outside.WaitFor(c.within(settle), address+" > 203.0.113.1: "); err != nil {
			t.Errorf("nothing comes from %s: %v", address, err)
		}
	}
	c.captured(outside)

	stream := c.slowStream(ext, a.Node, first)
	c.update("floatingip", moving, object{"port_id": b.id()})
	arrived := c.capture(b.Node, "eth0", "icmp[icmptype] = icmp-echo and src host 203.0.113.1")
	c.eventually(second+" is at b", func() error {
		if _, received, err := ext.Ping(t.Context(), second, 1, "-W", "1"); received == 0 || !strings.Contains(arrived.Text(), b.ip()) {
			return fmt.Errorf("%d answers, %v, b sees\n%s", received, err, arrived.Text())
		}
		return nil
	})
	c.captured(arrived)
	stream()
	c.hypervisorsAreBare()
}

// someBytes is in the lines of iperf3 for intervals in which something was sent.
var someBytes = regexp.MustCompile(`[1-9][0-9.]* [KM]Bytes`)

// slowStream begins a TCP stream; the function that it returns checks that it
// still moves, and ends it.
func (c *cloud) slowStream(from, server *lab.Node, address string) (end func()) {
	c.Helper()
	listening, err := server.Start("iperf3", "-s", "-1", "--forceflush")
	if err != nil {
		c.Fatal(err)
	}
	if err := listening.WaitOutput(c.within(settle), "Server listening"); err != nil {
		c.Fatal(err)
	}
	client, err := from.Start("iperf3", "-c", address, "-b", "2M", "-t", "600", "-i", "1", "--forceflush")
	if err != nil {
		c.Fatal(err)
	}
	intervals := func() int { return len(someBytes.FindAllString(client.Output(), -1)) }
	moves := func() {
		c.Helper()
		before := intervals()
		c.eventually("the stream to "+address+" moves", func() error {
			if n := intervals(); n < before+3 {
				return fmt.Errorf("%d intervals of %d: %s", n, before+3, client.Output())
			}
			return nil
		})
	}
	moves()
	return func() {
		c.Helper()
		moves()
		_, _ = client.Stop() // it reports that it was interrupted
		_, _ = listening.Stop()
	}
}

// hypervisorsAreBare checks that routing and translating left nothing on the
// hosts: no namespace of a router or network, as Neutron names its own, no table
// of iptables or nftables, no program but Open vSwitch's, no forwarding.
func (c *cloud) hypervisorsAreBare() {
	c.Helper()
	namespaces, err := os.ReadDir("/run/netns")
	if err != nil {
		c.Fatal(err)
	}
	for _, o := range append(c.list("routers", ""), c.list("networks", "")...) {
		for _, n := range namespaces {
			if strings.Contains(n.Name(), o["id"].(string)) {
				c.Errorf("there is a namespace %s", n.Name())
			}
		}
	}
	for _, h := range c.lab.Hosts() {
		tables, err := h.Exec(c.Context(), "sh", "-c", "cat /proc/net/ip_tables_names /proc/net/ip6_tables_names /proc/net/arp_tables_names 2>/dev/null; true")
		if err != nil || strings.TrimSpace(tables) != "" {
			c.Errorf("%s has iptables: %q, %v", h.Name(), tables, err)
		}
		if tables, err := h.NFTables(); err != nil || len(tables) > 0 {
			c.Errorf("%s has tables of nftables: %q, %v", h.Name(), tables, err)
		}
		forwarding, err := h.Exec(c.Context(), "sysctl", "-n", "net.ipv4.ip_forward")
		if err != nil || strings.TrimSpace(forwarding) != "0" {
			c.Errorf("%s forwards: %q, %v", h.Name(), forwarding, err)
		}
		if programs := c.programsOf(h); !slices.Equal(programs, []string{"ovs-vswitchd", "ovsdb-server"}) {
			c.Errorf("programs of %s: %q", h.Name(), programs)
		}
	}
}

// programsOf are the names of the programs that run on a host.
func (c *cloud) programsOf(h *lab.Host) []string {
	c.Helper()
	const asking = "ip" // the question itself
	out, err := h.Exec(c.Context(), asking, "netns", "pids", h.Namespace())
	if err != nil {
		c.Fatalf("%v\n%s", err, out)
	}
	names := map[string]bool{}
	for _, pid := range strings.Fields(out) {
		name, err := os.ReadFile("/proc/" + pid + "/comm")
		if n := strings.TrimSpace(string(name)); err == nil && n != asking {
			names[n] = true
		}
	}
	return slices.Sorted(maps.Keys(names))
}

// A floating IP has the address that was chosen for it, also one that is not
// given out otherwise, and who comes first has it.
func TestFloatingIPHasTheChosenAddress(t *testing.T) {
	t.Parallel()
	c := newCloud(t, 2, nil, physicalNetwork)
	anyTraffic, public := c.anyTraffic(), c.outside()
	blue := c.network("blue", "10.0.0.0/24", nil)
	gateway := c.setGateway(c.router("blue", blue), public, nil)
	a, b := c.boot("a", "host1", blue, anyTraffic), c.boot("b", "host2", blue, anyTraffic)
	const chosen = "203.0.113.50"
	ask := func(v *vm, address string) (int, object) {
		return c.call(http.MethodPost, "/v2.0/floatingips", object{"floatingip": object{
			"floating_network_id": public, "port_id": v.id(), "floating_ip_address": address,
		}})
	}
	choose := func(v *vm) string {
		t.Helper()
		status, out := ask(v, chosen)
		if status != http.StatusCreated || out["floatingip"].(object)["floating_ip_address"] != chosen {
			t.Fatalf("a free address is refused: %d %v", status, out)
		}
		id := out["floatingip"].(object)["id"].(string)
		c.translated(id)
		return id
	}
	for _, v := range []*vm{a, b} {
		c.dhcp(v)
		c.comesThrough(v.Node, "203.0.113.1")
	}
	id := choose(a)
	defer c.echoOutside()()
	c.isAt(c.lab.Ext(), a, chosen)
	c.seenOutsideAs(map[*vm]string{a: chosen, b: gateway})

	for address, want := range map[string]string{
		chosen: "IpAddressAlreadyAllocated", gateway: "IpAddressAlreadyAllocated", "198.51.100.9": "InvalidIpForNetwork",
	} {
		if status, out := ask(b, address); status < 400 || out["NeutronError"].(object)["type"] != want {
			t.Errorf("%s: %d %v, want %s", address, status, out, want)
		}
	}
	c.isAt(c.lab.Ext(), a, chosen)
	c.delete("floatingip", id)
	c.fallsSilent(c.lab.Ext(), chosen)
	choose(b)
	c.isAt(c.lab.Ext(), b, chosen)
	c.seenOutsideAs(map[*vm]string{a: gateway, b: chosen})
}

// What is behind a VM on the external network is reached by an extra route of the router.
func TestExtraRouteLeadsThroughAVMOutside(t *testing.T) {
	t.Parallel()
	c := newCloud(t, 2, nil, physicalNetwork)
	anyTraffic := c.anyTraffic()
	public := c.outside()
	blue := c.network("blue", "10.0.0.0/24", nil)
	id := c.router("blue", blue)
	gateway := c.setGateway(id, public, nil)
	hop := c.boot("hop", "host2", public, object{"port_security_enabled": false})
	c.ip(hop.Node, "addr", "add", hop.ip()+"/24", "dev", "eth0")
	c.ip(hop.Node, "addr", "add", "172.16.5.5/32", "dev", "lo")
	vms := []*vm{c.boot("a", "host1", blue, anyTraffic), c.boot("b", "host2", blue, anyTraffic)}
	for _, v := range vms {
		c.dhcp(v)
		c.cutOff(v.Node, "172.16.5.5")
	}
	c.update("router", id, object{"routes": []any{object{"destination": "172.16.0.0/12", "nexthop": hop.ip()}}})
	seen := c.capture(hop.Node, "eth0", "icmp[icmptype] = icmp-echo")
	for _, v := range vms {
		c.comesThrough(v.Node, "172.16.5.5")
		c.comesThrough(v.Node, "203.0.113.1")
	}
	if text := c.captured(seen); !strings.Contains(text, gateway+" > 172.16.5.5") || strings.Contains(text, "10.0.0.") {
		t.Errorf("the VM outside sees\n%s", text)
	}
	// A VM outside that pings a floating IP is answered by the VM behind it.
	_, floating := c.floatingIP(public, vms[0])
	arriving := c.capture(vms[0].Node, "eth0", "icmp[icmptype] = icmp-echo")
	c.eventually("a ping from outside comes to the VM", func() error {
		_, received, err := hop.Ping(t.Context(), floating, 1, "-W", "1")
		if text := arriving.Text(); received == 0 || !strings.Contains(text, hop.ip()+" > "+vms[0].ip()) {
			return fmt.Errorf("%d answers, %v, the VM sees\n%s", received, err, text)
		}
		return nil
	})
	c.captured(arriving)

	c.update("router", id, object{"routes": []any{}})
	c.fallsSilent(vms[0].Node, "172.16.5.5")
}

// Two routers share a network on which there is no VM, and each knows what is
// behind the other.
func TestRoutersLeadToEachOther(t *testing.T) {
	t.Parallel()
	c := newCloud(t, 2, nil, physicalNetwork)
	anyTraffic := c.anyTraffic()
	one, joint, two := c.network("blue", "10.0.0.0/24", nil), c.network("blue", "10.0.9.0/24", nil), c.network("blue", "10.0.1.0/24", nil)
	near := c.router("blue", one, joint)
	far := c.create("router", object{"name": "far", "tenant_id": "blue"})["id"].(string)
	public := c.outside()
	c.setGateway(near, public, nil)
	c.attach(far, two)
	link := c.create("port", object{"network_id": joint, "tenant_id": "blue", "fixed_ips": []object{{"ip_address": "10.0.9.254"}}})["id"].(string)
	if status, out := c.call(http.MethodPut, "/v2.0/routers/"+far+"/add_router_interface", object{"port_id": link}); status != http.StatusOK {
		t.Fatalf("interface by port: %d %v", status, out)
	}
	a, b := c.boot("a", "host1", one, anyTraffic), c.boot("b", "host2", two, anyTraffic)
	c.dhcp(a)
	c.dhcp(b)
	c.cutOff(a.Node, b.ip())
	c.update("router", near, object{"routes": []any{object{"destination": "10.0.1.0/24", "nexthop": "10.0.9.254"}}})
	c.update("router", far, object{"routes": []any{object{"destination": "0.0.0.0/0", "nexthop": "10.0.9.1"}}})
	c.comesThrough(a.Node, b.ip())
	c.comesThrough(b.Node, a.ip())
	c.comesThrough(b.Node, "203.0.113.1")
	c.transfer(a.Node, b.Node, b.ip(), 4)
	out, err := a.Exec(t.Context(), "traceroute", "-n", "-q", "3", "-w", "2", "-m", "5", b.ip())
	if err != nil || !strings.Contains(out, "\n 1  10.0.0.1 ") || !strings.Contains(out, "\n 2  10.0.9.254 ") || !strings.Contains(out, "\n 3  "+b.ip()+" ") {
		t.Errorf("traceroute: %v\n%s", err, out)
	}
}

func TestIPv6GatewayDiesAndAnotherTakesOver(t *testing.T) {
	t.Parallel()
	c := newCloud(t, 3, nil, physicalNetwork)
	c.hostsUp()
	c.live(3)
	c.vsctl("host1", "remove", "Open_vSwitch", ".", "external_ids", "planck-bridge-mappings")
	public := c.create("network", object{
		"name": "public", "router:external": true, "provider:network_type": "flat", "provider:physical_network": "physnet1",
	})["id"].(string)
	c.subnet6(public, "2001:db8:ff::/64", object{"enable_dhcp": false})
	blue := c.network("blue", "", nil)
	router := c.create("router", object{"name": "r", "tenant_id": "blue"})["id"].(string)
	c.attachSubnet(router, c.subnet6(blue, "fd00:1::/64", slaac()))
	outside := c.setGateway(router, public, nil)
	if !netip.MustParseAddr(outside).Is6() {
		t.Fatalf("the gateway is %s", outside)
	}
	ext := c.lab.Ext()
	c.ip(ext, "-6", "addr", "add", "2001:db8:ff::1/64", "dev", "eth0", "nodad")
	c.ip(ext, "-6", "route", "add", "fd00:1::/64", "via", outside)
	c.eventually("two hosts can carry the gateway", func() error {
		if g := c.gateways(); g["host1"].Active+g["host1"].Standby > 0 || c.gatewayHost() == "" {
			return fmt.Errorf("gateways are on %v", g)
		}
		return nil
	})
	v := c.boot("v", "host1", blue, nil)
	c.configured(v)
	c.watched(c.lab.Hosts())
	c.comesThrough(v.Node, "2001:db8:ff::1")

	first := c.gatewayHost()
	stream, err := v.PingStream(c.within(4*settle), "2001:db8:ff::1")
	if err != nil {
		t.Fatal(err)
	}
	silence := longestSilence(stream)
	if err := vswitchdKilled.die(c.lab.Host(first)); err != nil {
		t.Fatal(err)
	}
	c.eventually("another host has the gateway", func() error {
		if at := c.gatewayHost(); at == first || at == "" {
			return fmt.Errorf("it is on %q", at)
		}
		return nil
	})
	if err := stream.WaitReplies(c.within(2*settle), 50); err != nil {
		t.Fatalf("after %s died: %v", first, err)
	}
	t.Logf("%s: no answer for %.2f s", vswitchdKilled.what, silence().Seconds())
	if _, err := stream.Stop(); err != nil {
		t.Fatal(err)
	}
	c.pingable(v)
	c.comesThrough(ext, v.ip())
	if err := vswitchdKilled.heal(c.lab.Host(first)); err != nil {
		t.Fatal(err)
	}
}

// What goes on while a floating IP moves to another VM of the same host, or a
// gateway gets another address, is translated anew: nothing goes on to whom, or
// comes from where, an address was.
func TestAddressesTakeTheirConnectionsAlong(t *testing.T) {
	t.Parallel()
	c := newCloud(t, 1, nil, physicalNetwork)
	c.hostsUp()
	anyTraffic := c.anyTraffic()
	public := c.outside()
	blue := c.network("blue", "10.0.0.0/24", nil)
	router := c.router("blue", blue)
	gateway := c.setGateway(router, public, nil)
	a, b, other := c.boot("a", "host1", blue, anyTraffic), c.boot("b", "host1", blue, anyTraffic), c.boot("other", "host1", blue, anyTraffic)
	for _, v := range []*vm{a, b, other} {
		c.dhcp(v)
	}
	id, address := c.floatingIP(public, a)
	_, kept := c.floatingIP(public, other)
	ext := c.lab.Ext()
	c.comesThrough(ext, address)
	c.comesThrough(ext, kept)
	moving, err := ext.PingStream(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	staying := c.slowStream(ext, other.Node, kept)

	c.update("floatingip", id, object{"port_id": a.id()})
	if got := c.show("floatingip", id)["status"]; got != "ACTIVE" {
		t.Errorf("a floating IP that gets the port that it has is %v", got)
	}
	c.update("floatingip", id, object{"port_id": b.id()})
	c.translated(id)
	atB := c.capture(b.Node, "eth0", "icmp[icmptype] = icmp-echo")
	if err := atB.WaitFor(c.within(settle), "203.0.113.1 > "+b.ip()+": "); err != nil {
		t.Errorf("a ping that goes on does not come to the VM that has the address now: %v", err)
	}
	c.captured(atB)
	if _, err := moving.Stop(); err != nil {
		t.Error(err)
	}
	staying()

	leaving, err := a.PingStream(t.Context(), "203.0.113.1")
	if err != nil {
		t.Fatal(err)
	}
	now := c.setGateway(router, public, object{"external_fixed_ips": []object{{"ip_address": "203.0.113.190"}}})
	if now != "203.0.113.190" || now == gateway {
		t.Fatalf("the gateway is %s, it was %s", now, gateway)
	}
	outside := c.capture(ext, "eth0", "icmp[icmptype] = icmp-echo")
	if err := outside.WaitFor(c.within(settle), now+" > 203.0.113.1: "); err != nil {
		t.Errorf("a ping that goes on does not come from the gateway's new address: %v", err)
	}
	c.captured(outside)
	if _, err := leaving.Stop(); err != nil {
		t.Error(err)
	}
}
