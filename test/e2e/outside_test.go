package e2e

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"planck/test/lab"
)

// announced waits until a capture has a gratuitous ARP of a MAC for an address.
func (c *cloud) announced(capture *lab.Capture, mac, address string) {
	c.Helper()
	c.eventually(address+" is announced", func() error {
		text := capture.Text()
		for line := range strings.Lines(text) {
			if strings.Contains(line, mac+" > ff:ff:ff:ff:ff:ff") &&
				(strings.Contains(line, "who-has "+address+" tell "+address) || strings.Contains(line, "Announcement "+address)) {
				return nil
			}
		}
		return fmt.Errorf("seen is\n%s", text)
	})
}

// macOf is the MAC of the port that has an address on a network.
func (c *cloud) macOf(networkID, address string) string {
	c.Helper()
	ports := c.list("ports", "network_id="+networkID+"&fixed_ips=ip_address%3D"+address)
	if len(ports) != 1 {
		c.Fatalf("%s is the address of %v", address, ports)
	}
	return ports[0]["mac_address"].(string)
}

func TestAddressesAreAnnouncedWhereTheyAre(t *testing.T) {
	t.Parallel()
	c := newCloud(t, 3, nil, "") // two that lose each other can't tell who is dead
	c.hostsUp()
	c.live(3)
	public := c.outside()
	blue := c.network("blue", "10.0.0.0/24", nil)
	gateway := c.setGateway(c.router("blue", blue), public, nil)
	first := c.placed()
	anyTraffic := c.anyTraffic()
	a, b := c.boot("a", "host1", blue, anyTraffic), c.boot("b", "host2", blue, anyTraffic)
	c.dhcp(a)
	c.dhcp(b)
	c.watched(c.lab.Hosts())
	ext := c.lab.Ext()

	wire := c.capture(ext, "eth0", "arp")
	id, address := c.floatingIP(public, a)
	mac := c.macOf(public, address)
	c.announced(wire, mac, address)
	c.captured(wire)
	c.comesThrough(ext, address)

	wire = c.capture(ext, "eth0", "arp")
	c.update("floatingip", id, object{"port_id": b.id()})
	c.announced(wire, mac, address)
	c.captured(wire)
	c.comesThrough(ext, address)

	wire = c.capture(ext, "eth0", "arp")
	if err := underlayCut.die(c.lab.Host(first)); err != nil {
		t.Fatal(err)
	}
	c.announced(wire, c.macOf(public, gateway), gateway)
	c.captured(wire)
	if err := underlayCut.heal(c.lab.Host(first)); err != nil {
		t.Fatal(err)
	}
}

func TestRoutedPacketsGoStraightFromHostToHost(t *testing.T) {
	t.Parallel()
	c := newCloud(t, 3, nil, "")
	one, two := c.network("blue", "10.0.0.0/24", nil), c.network("blue", "10.0.1.0/24", nil)
	c.router("blue", one, two)
	a, b := c.boot("a", "host1", one, nil), c.boot("b", "host2", two, nil)
	bystander := c.boot("bystander", "host3", two, nil)
	for _, v := range []*vm{a, b, bystander} {
		c.dhcp(v)
	}
	c.comesThrough(a.Node, b.ip())
	underlay := c.capture(c.lab.Host("host2").Node, lab.Underlay, "proto gre")
	elsewhere := c.capture(c.lab.Host("host3").Node, lab.Underlay, "proto gre")
	c.reaches(a.Node, b.ip())
	c.eventually("the packet and its reply are on the underlay", func() error {
		text := underlay.Text()
		from, to := c.lab.Host("host1").LocalIP(), c.lab.Host("host2").LocalIP()
		if !strings.Contains(text, from+" > "+to+": GREv0") || !strings.Contains(text, to+" > "+from+": GREv0") ||
			!strings.Contains(text, a.ip()+" > "+b.ip()+": ICMP echo request") {
			return fmt.Errorf("%s", text)
		}
		return nil
	})
	c.captured(underlay)
	if text := c.captured(elsewhere); strings.Contains(text, "ICMP echo") {
		t.Errorf("the third host sees\n%s", text)
	}
}

// The floating IP of a VM is on the VM's host, and moves with it.
func TestFloatingIPMovesWithItsVM(t *testing.T) {
	t.Parallel()
	c := newCloud(t, 2, nil, physicalNetwork)
	public := c.outside()
	blue := c.network("blue", "10.0.0.0/24", nil)
	c.setGateway(c.router("blue", blue), public, nil)
	v := c.boot("v", "host1", blue, c.anyTraffic())
	c.dhcp(v)
	_, address := c.floatingIP(public, v)
	c.comesThrough(c.lab.Ext(), address)
	if err := v.Migrate(t.Context(), "host2"); err != nil {
		t.Fatal(err)
	}
	c.update("port", v.id(), object{"binding:host_id": "host2"})
	c.waitStatus(v.id(), "ACTIVE")
	wire := c.capture(c.lab.Host("host2").Node, lab.Physical, "icmp[icmptype] = icmp-echo and host "+address)
	c.comesThrough(c.lab.Ext(), address)
	c.eventually("the wire of host2 leads to the floating IP", func() error {
		if text := wire.Text(); !strings.Contains(text, "203.0.113.1 > "+address) {
			return fmt.Errorf("%s", text)
		}
		return nil
	})
	c.captured(wire)
}

// The VM's host has no way outside: its floating IP is on the gateway's host,
// which dies.
func TestFloatingIPOnADeadGatewayHostIsTakenOver(t *testing.T) {
	t.Parallel()
	c := newCloud(t, 3, nil, "")
	c.hostsUp()
	c.live(3)
	c.vsctl("host1", "remove", "Open_vSwitch", ".", "external_ids", "planck-bridge-mappings")
	public := c.outside()
	blue := c.network("blue", "10.0.0.0/24", nil)
	c.setGateway(c.router("blue", blue), public, nil)
	c.eventually("two hosts can carry the gateway", func() error {
		if g := c.gateways(); g["host1"].Active+g["host1"].Standby > 0 || c.gatewayHost() == "" {
			return fmt.Errorf("gateways are on %v", g)
		}
		return nil
	})
	v := c.boot("v", "host1", blue, c.anyTraffic())
	c.dhcp(v)
	_, address := c.floatingIP(public, v)
	c.watched(c.lab.Hosts())
	c.comesThrough(c.lab.Ext(), address)
	first := c.gatewayHost()
	if err := vswitchdKilled.die(c.lab.Host(first)); err != nil {
		t.Fatal(err)
	}
	c.eventually("another host has the gateway", func() error {
		if at := c.gatewayHost(); at == first || at == "" {
			return fmt.Errorf("it is on %q", at)
		}
		return nil
	})
	c.comesThrough(c.lab.Ext(), address)
	c.comesThrough(v.Node, "203.0.113.1")
	if err := vswitchdKilled.heal(c.lab.Host(first)); err != nil {
		t.Fatal(err)
	}
}

// Two external networks, one of them in a VLAN, are two pools of floating IPs.
func TestEachExternalNetworkIsAPoolOfFloatingIPs(t *testing.T) {
	t.Parallel()
	c := newCloud(t, 2, nil, physicalNetwork)
	c.hostsUp()
	partner, err := c.lab.AddPhys(t.Context(), "partner", lab.PhysOptions{VLAN: 130, Addrs: []string{"198.18.7.1/24"}})
	if err != nil {
		t.Fatal(err)
	}
	internet := c.outside()
	leased := c.create("network", object{
		"name": "leased-line", "router:external": true,
		"provider:network_type": "vlan", "provider:physical_network": "physnet1", "provider:segmentation_id": 130,
	})["id"].(string)
	c.create("subnet", object{"network_id": leased, "cidr": "198.18.7.0/24", "ip_version": 4, "enable_dhcp": false})
	anyTraffic := c.anyTraffic()
	one, two := c.network("blue", "10.0.0.0/24", nil), c.network("blue", "10.0.1.0/24", nil)
	c.setGateway(c.router("blue", one), internet, nil)
	c.setGateway(c.router("blue", two), leased, nil)
	for i, host := range []string{"host1", "host2"} {
		a := c.boot(fmt.Sprintf("internet%d", i), host, one, anyTraffic)
		b := c.boot(fmt.Sprintf("partner%d", i), host, two, anyTraffic)
		c.dhcp(a)
		c.dhcp(b)
		c.comesThrough(a.Node, "203.0.113.1")
		c.comesThrough(b.Node, "198.18.7.1")
		_, public := c.floatingIP(internet, a)
		_, private := c.floatingIP(leased, b)
		if !strings.HasPrefix(public, "203.0.113.") || !strings.HasPrefix(private, "198.18.7.") {
			t.Errorf("floating IPs are %s and %s", public, private)
		}
		c.comesThrough(c.lab.Ext(), public)
		c.comesThrough(partner, private)
		c.cutOff(partner, public)
	}
}

// Many VMs share one address, and each gets the answers to its own datagrams,
// though all use the same port.
func TestManyVMsSendUDPFromOneAddress(t *testing.T) {
	t.Parallel()
	c := newCloud(t, 2, nil, physicalNetwork)
	public := c.outside()
	blue := c.network("blue", "10.0.0.0/24", nil)
	gateway := c.setGateway(c.router("blue", blue), public, nil)
	var vms []*vm
	for i := range 8 {
		v := c.boot(fmt.Sprintf("v%d", i), fmt.Sprintf("host%d", 1+i%2), blue, nil)
		c.dhcp(v)
		vms = append(vms, v)
	}
	defer c.echoOutside()()
	c.comesThrough(vms[0].Node, "203.0.113.1")
	want := map[*vm]string{}
	for _, v := range vms {
		want[v] = gateway
	}
	c.seenOutsideAs(want)
}

// echoOutside lets ext answer datagrams, with the address that they came from.
func (c *cloud) echoOutside() (end func()) {
	c.Helper()
	echo, err := c.lab.Ext().Start("python3", "-u", "-c", `
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("203.0.113.1", 7007))
print("ready")
while True:
    data, sender = s.recvfrom(2000)
    s.sendto(data + b" " + sender[0].encode(), sender)
`)
	if err != nil {
		c.Fatal(err)
	}
	if err := echo.WaitOutput(c.within(settle), "ready"); err != nil {
		c.Fatal(err)
	}
	return func() { _, _ = echo.Stop() }
}

// seenOutsideAs lets VMs talk to ext at the same time, all from the same port:
// each gets the answers to its own datagrams, which came from the address that it
// should have outside.
func (c *cloud) seenOutsideAs(addresses map[*vm]string) {
	c.Helper()
	const ask = `
import socket, sys, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("", 5005))
s.connect(("203.0.113.1", 7007))
s.settimeout(1)
answered, end = 0, time.time() + 60
while answered < 20 and time.time() < end:
    text = b"%s %d" % (sys.argv[1].encode(), answered)
    s.send(text)
    try:
        data = s.recv(2000)
    except socket.timeout:
        continue
    assert data.startswith(sys.argv[1].encode() + b" "), data
    if data.startswith(text + b" "):
        answered += 1
print(answered, data.split()[-1].decode())
`
	var asking sync.WaitGroup
	for v, address := range addresses {
		asking.Go(func() {
			out, err := v.Exec(c.Context(), "python3", "-c", ask, v.Name())
			if err != nil || strings.TrimSpace(out) != "20 "+address {
				c.Errorf("%s has %q, want 20 answers to %s, %v", v.Name(), out, address, err)
			}
		})
	}
	asking.Wait()
}

// Thousands of short connections of a VM take the same few ports again and
// again: conntrack must not mistake one for another, and a switch must not die of
// it, as some do when NAT and reused ports meet.
func TestShortConnectionsThroughSNATReusePorts(t *testing.T) {
	t.Parallel()
	c := newCloud(t, 2, nil, physicalNetwork)
	public := c.outside()
	blue := c.network("blue", "10.0.0.0/24", nil)
	c.setGateway(c.router("blue", blue), public, nil)
	vms := []*vm{c.boot("a", "host1", blue, nil), c.boot("b", "host2", blue, nil)}
	server, err := c.lab.Ext().Start("python3", "-u", "-c", `
import socket
s = socket.create_server(("203.0.113.1", 8080), backlog=500)
print("ready")
while True:
    c, _ = s.accept()
    try:
        c.sendall(c.recv(100))
    except OSError:
        pass
    c.close()
`)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _, _ = server.Stop() }()
	if err := server.WaitOutput(c.within(settle), "ready"); err != nil {
		t.Fatal(err)
	}
	pids := map[string]int{}
	for _, h := range c.lab.Hosts() {
		pids[h.Name()] = h.VswitchdPID()
	}
	// Ending by a reset, a client may use its port again at once.
	const connect = `
import socket, struct
done = failed = 0
for i in range(1500):
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    s.settimeout(20)
    s.bind(("", 40000 + i % 50))
    try:
        s.connect(("203.0.113.1", 8080))
        s.sendall(b"x%d" % i)
        assert s.recv(100) == b"x%d" % i
        done += 1
    except OSError:
        failed += 1
    s.close()
print(done, failed)
`
	var connecting sync.WaitGroup
	for _, v := range vms {
		c.dhcp(v)
		c.comesThrough(v.Node, "203.0.113.1")
		connecting.Go(func() {
			out, err := v.Exec(t.Context(), "python3", "-c", connect)
			if err != nil || strings.TrimSpace(out) != "1500 0" {
				t.Errorf("%s: done and failed are %q, %v", v.Name(), out, err)
			}
		})
	}
	connecting.Wait()
	for _, h := range c.lab.Hosts() {
		if pid := h.VswitchdPID(); pid != pids[h.Name()] {
			t.Errorf("ovs-vswitchd of %s is another one: %d, was %d", h.Name(), pid, pids[h.Name()])
		}
		c.reaches(vms[0].Node, "203.0.113.1")
	}
}
