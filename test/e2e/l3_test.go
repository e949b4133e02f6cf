package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"syscall"
	"testing"

	"planck/test/lab"
)

// physicalNetwork is a configuration that knows one before a host tells of it.
const physicalNetwork = "[OVS]\nnetwork_vlan_ranges = physnet1:100:199\n"

// setGateway gives a router its gateway and returns the gateway's address.
func (c *cloud) setGateway(routerID, external string, attrs object) string {
	c.Helper()
	info := object{"network_id": external}
	for k, v := range attrs {
		info[k] = v
	}
	r := c.update("router", routerID, object{"external_gateway_info": info})
	ips := r["external_gateway_info"].(object)["external_fixed_ips"].([]any)
	return ips[0].(object)["ip_address"].(string)
}

// floatingIP gives a VM a floating IP and returns its id and address.
func (c *cloud) floatingIP(external string, v *vm) (id, address string) {
	c.Helper()
	f := c.create("floatingip", object{"floating_network_id": external, "port_id": v.id()})
	c.translated(f["id"].(string))
	return f["id"].(string), f["floating_ip_address"].(string)
}

// translated waits until the host of a floating IP has its flows.
func (c *cloud) translated(id string) {
	c.Helper()
	c.eventually("floating IP "+id+" is ACTIVE", func() error {
		if got := c.show("floatingip", id)["status"]; got != "ACTIVE" {
			return fmt.Errorf("status is %v", got)
		}
		return nil
	})
}

// anyTraffic is a security group that lets everything in.
func (c *cloud) anyTraffic() object {
	c.Helper()
	status, out := c.call(http.MethodPost, "/v2.0/security-groups", object{"security_group": object{"name": "any"}})
	if status != http.StatusCreated {
		c.Fatalf("security group: %d %v", status, out)
	}
	id := out["security_group"].(object)["id"].(string)
	status, out = c.call(http.MethodPost, "/v2.0/security-group-rules", object{"security_group_rule": object{"security_group_id": id, "direction": "ingress"}})
	if status != http.StatusCreated {
		c.Fatalf("security group rule: %d %v", status, out)
	}
	return object{"security_groups": []any{id}}
}

// comesThrough waits until a ping is answered: the first packets look for the
// next hop, and for tunnel addresses.
func (c *cloud) comesThrough(from *lab.Node, dst string) {
	c.Helper()
	c.eventually(from.Name()+" reaches "+dst, func() error {
		if _, received, err := from.Ping(c.Context(), dst, 1, "-W", "1"); received == 0 {
			return fmt.Errorf("no answer, %v", err)
		}
		return nil
	})
}

// transfer sends mebibytes by TCP to an iperf3 server, or gets them.
func (c *cloud) transfer(from, server *lab.Node, address string, mebibytes int, options ...string) {
	c.Helper()
	listening, err := server.Start("iperf3", "-s", "--forceflush")
	if err != nil {
		c.Fatal(err)
	}
	defer func() { _, _ = listening.Stop() }()
	if err := listening.WaitOutput(c.within(settle), "Server listening"); err != nil {
		c.Fatal(err)
	}
	args := append([]string{"iperf3", "-c", address, "--connect-timeout", "10000", "-n", fmt.Sprintf("%dM", mebibytes)}, options...)
	if out, err := from.Exec(c.within(4*settle), args...); err != nil {
		c.Errorf("iperf3 from %s to %s: %v\n%s", from.Name(), address, err, out)
	}
}

func TestVMsReachTheOutsideAndAreReached(t *testing.T) {
	t.Parallel()
	c := newCloud(t, 3, nil, physicalNetwork)
	c.vsctl("host3", "remove", "Open_vSwitch", ".", "external_ids", "planck-bridge-mappings")
	anyTraffic := c.anyTraffic()
	public := c.outside()
	blue := c.network("blue", "10.0.0.0/24", nil)
	r := c.router("blue", blue)
	gateway := c.setGateway(r, public, nil)
	a, beside := c.boot("a", "host1", blue, anyTraffic), c.boot("beside", "host1", blue, anyTraffic)
	b, far := c.boot("b", "host2", blue, anyTraffic), c.boot("far", "host3", blue, anyTraffic)
	vms := []*vm{a, beside, b, far}
	for _, v := range vms {
		c.dhcp(v)
	}
	wire, err := c.lab.Host("host1").Capture("phys0", "")
	if err != nil {
		t.Fatal(err)
	}
	seen, err := c.lab.Ext().Capture("eth0", "icmp[icmptype] = icmp-echo")
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range vms {
		c.comesThrough(v.Node, "203.0.113.1")
		c.reaches(v.Node, "198.51.100.1")
		c.reaches(v.Node, gateway)
	}
	if err := seen.WaitFor(c.within(settle), gateway+" > "); err != nil {
		t.Errorf("the outside sees nothing of the gateway: %v", err)
	}
	text := c.captured(seen)
	for line := range strings.Lines(text) {
		if strings.Contains(line, "echo request") && !strings.Contains(line, gateway+" > ") {
			t.Errorf("the outside sees %s", line)
		}
	}
	c.transfer(a.Node, c.lab.Ext(), "203.0.113.1", 8)
	c.transfer(far.Node, c.lab.Ext(), "203.0.113.1", 8)
	// A traceroute makes more errors at once than ext would send to one address.
	if out, err := c.lab.Ext().Exec(t.Context(), "sysctl", "-w", "net.ipv4.icmp_ratelimit=0"); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	for _, v := range []*vm{a, far} {
		out, err := v.Exec(t.Context(), "traceroute", "-n", "-q", "3", "-w", "2", "-m", "4", "203.0.113.1")
		if err != nil || !strings.Contains(out, " 10.0.0.1 ") || !strings.Contains(out, "\n 2  203.0.113.1 ") {
			t.Errorf("traceroute from %s: %v\n%s", v.Name(), err, out)
		}
	}
	c.reaches(c.lab.Ext(), gateway)

	floating := map[*vm]string{}
	for _, v := range vms {
		_, floating[v] = c.floatingIP(public, v)
	}
	for _, v := range vms {
		c.comesThrough(c.lab.Ext(), floating[v])
		for _, to := range vms {
			c.comesThrough(v.Node, floating[to])
		}
		c.reaches(v.Node, "203.0.113.1")
	}
	c.transfer(c.lab.Ext(), a.Node, floating[a], 8)
	c.transfer(c.lab.Ext(), far.Node, floating[far], 8, "-R")
	out, err := c.lab.Ext().Exec(t.Context(), "traceroute", "-n", "-q", "3", "-w", "2", "-m", "4", floating[a])
	if err != nil || !strings.Contains(out, "\n 1  "+gateway+" ") || !strings.Contains(out, "\n 2  "+floating[a]+" ") {
		t.Errorf("traceroute to %s: %v\n%s", floating[a], err, out)
	}
	if err := wire.WaitFor(c.within(settle), c.macOf(public, floating[a])); err != nil {
		t.Errorf("no frame of the floating IP is on the wire: %v", err)
	}
	text = c.captured(wire)
	for _, p := range c.list("ports", "device_owner=network:router_interface") {
		if mac := p["mac_address"].(string); strings.Contains(text, mac) {
			t.Errorf("the router's MAC %s is on the wire", mac)
		}
	}
	c.hypervisorsAreBare()
}

// list lists a collection with a filter.
func (c *cloud) list(collection, filter string) []object {
	c.Helper()
	status, out := c.call(http.MethodGet, "/v2.0/"+collection+"?"+filter, nil)
	if status != http.StatusOK {
		c.Fatalf("list %s: %d %v", collection, status, out)
	}
	var list []object
	for _, o := range out[collection].([]any) {
		list = append(list, o.(object))
	}
	return list
}

func TestFloatingIPMovesAndTheControllerIsNotMissed(t *testing.T) {
	t.Parallel()
	c := newCloud(t, 2, nil, physicalNetwork)
	anyTraffic := c.anyTraffic()
	public := c.outside()
	blue := c.network("blue", "10.0.0.0/24", nil)
	gateway := c.setGateway(c.router("blue", blue), public, nil)
	a, b := c.boot("a", "host1", blue, anyTraffic), c.boot("b", "host2", blue, anyTraffic)
	c.dhcp(a)
	c.dhcp(b)
	moving, address := c.floatingIP(public, a)
	c.comesThrough(c.lab.Ext(), address)
	_, staying := c.floatingIP(public, b)
	c.comesThrough(c.lab.Ext(), staying)

	stream, err := c.lab.Ext().PingStream(t.Context(), staying)
	if err != nil {
		t.Fatal(err)
	}
	if f := c.update("floatingip", moving, object{"port_id": nil}); f["status"] != "DOWN" {
		t.Errorf("disassociated it is %v", f["status"])
	}
	c.eventually("nobody answers", func() error {
		if _, received, _ := c.lab.Ext().Ping(t.Context(), address, 1, "-W", "1"); received != 0 {
			return fmt.Errorf("still answered")
		}
		return nil
	})
	other := c.boot("other", "host2", blue, anyTraffic)
	c.dhcp(other)
	if f := c.update("floatingip", moving, object{"port_id": other.id()}); f["status"] != "DOWN" {
		t.Errorf("associated, and not wired yet, it is %v", f["status"])
	}
	c.translated(moving)
	c.comesThrough(c.lab.Ext(), address)

	c.kill(syscall.SIGKILL)
	if err := stream.WaitReplies(c.within(settle), 50); err != nil {
		t.Fatal(err)
	}
	c.reaches(a.Node, "203.0.113.1")
	c.reaches(other.Node, staying)
	c.reaches(c.lab.Ext(), gateway)
	c.reaches(a.Node, gateway)
	c.start()
	c.outlives(stream)
}

func TestRouterWithoutSNATRoutesPlainly(t *testing.T) {
	t.Parallel()
	c := newCloud(t, 2, nil, physicalNetwork)
	public := c.outside()
	blue := c.network("blue", "10.0.0.0/24", nil)
	r := c.router("blue", blue)
	gateway := c.setGateway(r, public, object{"enable_snat": false})
	a, b := c.boot("a", "host1", blue, c.anyTraffic()), c.boot("b", "host2", blue, c.anyTraffic())
	c.dhcp(a)
	c.dhcp(b)
	if out, err := c.lab.Ext().Exec(t.Context(), "ip", "route", "add", "10.0.0.0/24", "via", gateway); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	for _, v := range []*vm{a, b} {
		c.comesThrough(v.Node, "203.0.113.1")
		c.comesThrough(c.lab.Ext(), v.ip())
	}

	// The reply of a floating IP's VM must not take the short way back, past the
	// translation of its address.
	near, far := c.network("blue", "10.0.1.0/24", nil), c.boot("far", "host2", blue, c.anyTraffic())
	c.attach(r, near)
	other := c.boot("other", "host1", near, c.anyTraffic())
	c.dhcp(far)
	c.dhcp(other)
	_, floating := c.floatingIP(public, b)
	for _, v := range []*vm{a, far, other} {
		c.comesThrough(v.Node, floating)
		c.transfer(v.Node, b.Node, floating, 1)
	}
}

// The cloud has no tunnels at all: routers reach their gateways by a VLAN.
func TestCloudOfVLANsRoutesAndTranslates(t *testing.T) {
	t.Parallel()
	c := newController(t, physicalNetwork+"tenant_network_type = vlan\n")
	c.lab = lab.ForTest(t, lab.Options{Hosts: 2})
	for _, h := range c.lab.Hosts() {
		c.vsctl(h.Name(), "remove", "Open_vSwitch", ".", "external_ids", "planck-local-ip")
		if err := h.SetManager(c.ovsdb); err != nil {
			t.Fatal(err)
		}
	}
	c.hostsUp()
	anyTraffic := c.anyTraffic()
	public := c.outside()
	one, two := c.network("blue", "10.0.0.0/24", nil), c.network("blue", "10.0.1.0/24", nil)
	c.setGateway(c.router("blue", one, two), public, nil)
	a, b := c.boot("a", "host1", one, anyTraffic), c.boot("b", "host2", two, anyTraffic)
	c.dhcp(a)
	c.dhcp(b)
	c.comesThrough(a.Node, b.ip())
	c.comesThrough(a.Node, "203.0.113.1")
	c.comesThrough(b.Node, "203.0.113.1")
	c.transfer(a.Node, c.lab.Ext(), "203.0.113.1", 4)
	_, address := c.floatingIP(public, b)
	c.comesThrough(c.lab.Ext(), address)
	c.comesThrough(a.Node, address)
	c.comesThrough(b.Node, address)

	// Without tunnels nobody watches by BFD: the controller misses the host.
	first := c.placed()
	if err := vswitchdKilled.die(c.lab.Host(first)); err != nil {
		t.Fatal(err)
	}
	c.eventually("the other host has the gateway", func() error {
		if at := c.gatewayHost(); at == first || at == "" {
			return fmt.Errorf("it is on %q", at)
		}
		return nil
	})
	alive := map[string]*vm{"host1": b, "host2": a}[first]
	c.comesThrough(alive.Node, "203.0.113.1")
	if err := vswitchdKilled.heal(c.lab.Host(first)); err != nil {
		t.Fatal(err)
	}
	c.hypervisorsAreBare()
}

func TestHostItselfIsOnTheExternalNetwork(t *testing.T) {
	t.Parallel()
	c := newCloud(t, 1, nil, physicalNetwork)
	c.hostsUp()
	host := c.lab.Host("host1")
	anyTraffic := c.anyTraffic()
	public := c.outsideBy("203.0.113.9")
	blue := c.network("blue", "10.0.0.0/24", nil)
	gateway := c.setGateway(c.router("blue", blue), public, nil)
	a, b := c.boot("a", "host1", blue, anyTraffic), c.boot("b", "host1", blue, anyTraffic)
	c.dhcp(a)
	c.dhcp(b)
	id, address := c.floatingIP(public, a)

	// The host beside its NIC.
	c.ip(host.Node, "link", "set", "br-ex", "up")
	c.ip(host.Node, "addr", "add", "203.0.113.9/24", "dev", "br-ex")
	c.ip(host.Node, "addr", "add", "192.0.2.99/32", "dev", "lo")
	c.comesThrough(host.Node, address)
	c.comesThrough(c.lab.Ext(), address)
	c.comesThrough(a.Node, "203.0.113.9")
	c.comesThrough(b.Node, "203.0.113.9")
	c.transfer(host.Node, a.Node, address, 2)
	// Its questions are answered, not only announcements heard.
	asks := func(address string) {
		t.Helper()
		c.ip(host.Node, "neigh", "flush", "dev", "br-ex")
		c.comesThrough(host.Node, address)
	}
	asks(address)
	asks(gateway)

	// The host without a NIC, as the way to the outside.
	c.vsctl("host1", "del-port", "br-ex", lab.Physical)
	c.comesThrough(a.Node, "192.0.2.99")
	c.comesThrough(b.Node, "192.0.2.99")
	asks(address)
	c.update("floatingip", id, object{"port_id": b.id()})
	c.translated(id)
	asks(address)
	c.comesThrough(a.Node, "192.0.2.99")
}
