package e2e

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"planck/pipeline"
	"planck/test/lab"
)

// hold gives a VM a virtual address, as keepalived does: with an announcement.
func (c *cloud) hold(v *vm, address string) {
	c.Helper()
	c.ip(v.Node, "addr", "add", address+"/24", "dev", "eth0")
	// Nobody answers an announcement: arping may say so.
	_, _ = v.Exec(c.Context(), "arping", "-U", "-c", "2", "-w", "3", "-I", "eth0", address)
}

// release takes a virtual address from a VM, without a word.
func (c *cloud) release(v *vm, address string) {
	c.Helper()
	c.ip(v.Node, "addr", "del", address+"/24", "dev", "eth0")
}

// isAt waits until TCP to an address leads to a VM: nobody else listens.
func (c *cloud) isAt(from *lab.Node, v *vm, address string) {
	c.Helper()
	server, err := v.Start("iperf3", "-s", "--forceflush")
	if err != nil {
		c.Fatal(err)
	}
	defer func() { _, _ = server.Stop() }()
	if err := server.WaitOutput(c.within(settle), "Server listening"); err != nil {
		c.Fatal(err)
	}
	c.eventually(address+" is at "+v.Name(), func() error {
		out, err := from.Exec(c.within(promptly), "iperf3", "-c", address, "--connect-timeout", "2000", "-n", "64K")
		if err != nil {
			return fmt.Errorf("iperf3 from %s: %w: %s", from.Name(), err, out)
		}
		return nil
	})
}

// A virtual address is in the address pairs of two VMs on two hosts. Routers lead
// to the one that holds it, from another subnet and from a floating IP.
func TestVirtualAddressIsReachedThroughRouters(t *testing.T) {
	t.Parallel()
	c := newCloud(t, 3, nil, physicalNetwork)
	public := c.outside()
	clients := c.network("blue", "10.0.9.0/24", nil)
	router := c.router("blue", clients)
	c.setGateway(router, public, nil)
	client := c.boot("client", "host3", clients, nil)
	c.dhcp(client)
	kinds := []object{
		{"provider:network_type": "gre"},
		{"provider:network_type": "vlan", "provider:physical_network": "physnet1", "provider:segmentation_id": 110},
	}
	for i, kind := range kinds {
		name := kind["provider:network_type"].(string)
		front := c.network("blue", fmt.Sprintf("10.0.%d.0/24", i), kind)
		c.attach(router, front)
		c.also("on a network of type "+name, func(c *cloud) { c.virtualAddress(name, public, front, fmt.Sprintf("10.0.%d.", i), client) })
	}
}

func (c *cloud) virtualAddress(kind, public, front, prefix string, client *vm) {
	c.Helper()
	vip := prefix + "100"
	port := c.create("port", object{"network_id": front, "name": "vip", "fixed_ips": []object{{"ip_address": vip}}})["id"].(string)
	group := c.anyTraffic()["security_groups"]
	may := object{"security_groups": group, "allowed_address_pairs": []object{{"ip_address": vip}}}
	one, two := c.boot(kind+"1", "host1", front, may), c.boot(kind+"2", "host2", front, may)
	thief := c.boot(kind+"3", "host2", front, object{"security_groups": group})
	for _, v := range []*vm{one, two, thief} {
		c.dhcp(v)
	}
	c.cutOff(client.Node, vip)
	c.hold(one, vip)
	c.isAt(client.Node, one, vip)

	stream, err := client.PingStream(c.within(4*settle), vip)
	if err != nil {
		c.Fatal(err)
	}
	if err := stream.WaitReplies(c.within(settle), 10); err != nil {
		c.Fatal(err)
	}
	silence := longestSilence(stream)
	c.release(one, vip)
	c.hold(two, vip)
	if err := stream.WaitReplies(c.within(settle), 50); err != nil {
		c.Fatalf("after the failover: %v", err)
	}
	gap := silence()
	c.Logf("%s: no answer for %v at the failover", kind, gap.Round(10*time.Millisecond))
	if gap > promptly {
		c.Errorf("no answer for %v at the failover", gap)
	}
	if _, err := stream.Stop(); err != nil {
		c.Fatal(err)
	}
	c.isAt(client.Node, two, vip)

	id := c.create("floatingip", object{"floating_network_id": public, "port_id": port})
	c.translated(id["id"].(string))
	outside, floating := c.lab.Ext(), id["floating_ip_address"].(string)
	c.isAt(outside, two, floating)
	c.comesThrough(two.Node, "203.0.113.1")
	c.release(two, vip)
	c.hold(one, vip)
	c.isAt(outside, one, floating)
	c.isAt(client.Node, one, vip)

	before := c.dropped("host2", pipeline.DropForgedARP)
	c.hold(thief, vip)
	c.eventually("the thief's ARP is dropped", func() error {
		if n := c.dropped("host2", pipeline.DropForgedARP); n == before {
			return fmt.Errorf("%d drops", n)
		}
		return nil
	})
	c.isAt(client.Node, one, vip)
	c.isAt(outside, one, floating)
}

// What nobody announces is asked for, and who holds it is known to a controller
// that comes back.
func TestHoldersOfAddressesAreAskedForAndRemembered(t *testing.T) {
	t.Parallel()
	c := newCloud(t, 3, nil, "")
	clients, front := c.network("blue", "10.0.9.0/24", nil), c.network("blue", "10.0.0.0/24", nil)
	router := c.router("blue", clients, front)
	const vip, other = "10.0.0.100", "10.0.0.200"
	may := object{"allowed_address_pairs": []object{{"ip_address": vip}}}
	one, two := c.boot("one", "host1", front, may), c.boot("two", "host2", front, may)
	free := c.boot("free", "host2", front, object{"port_security_enabled": false})
	client := c.boot("client", "host3", clients, nil)
	for _, v := range []*vm{one, two, free, client} {
		c.dhcp(v)
	}
	c.ip(one.Node, "addr", "add", vip+"/24", "dev", "eth0")
	c.isAt(client.Node, one, vip)
	c.ip(free.Node, "addr", "add", other+"/24", "dev", "eth0")
	c.isAt(client.Node, free, other)

	c.ip(free.Node, "addr", "add", "172.16.5.5/32", "dev", "lo")
	c.update("router", router, object{"routes": []object{{"destination": "172.16.0.0/12", "nexthop": other}}})
	c.isAt(client.Node, free, "172.16.5.5")

	// A port without port security may not take what is another's.
	refused := `outcome="not allowed to hold"`
	before := c.metric("planck_packet_ins_total", refused)
	c.hold(free, two.ip())
	c.eventually("the claim is refused", func() error {
		if c.metric("planck_packet_ins_total", refused) == before {
			return fmt.Errorf("packet-ins are\n%s", c.metrics("planck_packet_ins_total"))
		}
		return nil
	})
	c.release(free, two.ip())
	c.isAt(client.Node, two, two.ip())

	stream, err := client.PingStream(c.within(4*settle), vip)
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.WaitReplies(c.within(settle), 10); err != nil {
		t.Fatal(err)
	}
	c.kill(syscall.SIGKILL)
	if err := stream.WaitReplies(c.within(settle), 50); err != nil {
		t.Fatal(err)
	}
	c.start()
	c.outlives(stream)
	// A VM may ask by ARP at any time: the answer that is cached then is no matter.
	if sent := c.metric("planck_flow_mods_total", `kind="desired"`); sent != 0 {
		t.Errorf("the new controller sent %v FLOW_MODs", sent)
	}
	c.release(one, vip)
	c.hold(two, vip)
	c.isAt(client.Node, two, vip)
	if err := two.Unplug(); err != nil {
		t.Fatal(err)
	}
	c.waitStatus(two.id(), "DOWN")
	c.ip(one.Node, "addr", "add", vip+"/24", "dev", "eth0")
	c.isAt(client.Node, one, vip)
}
