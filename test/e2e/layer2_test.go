package e2e

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"planck/test/lab"
)

func TestTwoTenantsWithTheSameAddressesShareNothing(t *testing.T) {
	t.Parallel()
	c := newCloud(t, 2, nil, "")
	blue, red := c.network("blue", "10.0.0.0/24", nil), c.network("red", "10.0.0.0/24", nil)
	blue1, blue2 := c.boot("blue1", "host1", blue, nil), c.boot("blue2", "host2", blue, nil)
	red1, red2 := c.boot("red1", "host1", red, nil), c.boot("red2", "host2", red, nil)
	if blue1.ip() != red1.ip() || blue2.ip() != red2.ip() {
		t.Fatalf("the tenants' addresses differ: %s %s, %s %s", blue1.ip(), red1.ip(), blue2.ip(), red2.ip())
	}
	for _, v := range []*vm{blue1, blue2, red1, red2} {
		c.dhcp(v)
	}

	capture, err := c.lab.Host("host1").Capture("underlay0", "ip proto 47")
	if err != nil {
		t.Fatal(err)
	}
	c.reaches(blue1.Node, blue2.ip())
	c.reaches(red1.Node, red2.ip())
	text, err := capture.Stop()
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(text, "GREv0") {
		t.Errorf("no GRE on the underlay:\n%s", text)
	}

	// Only blue2 goes away: were the networks one, red2 would answer for it.
	if err := blue2.Unplug(); err != nil {
		t.Fatal(err)
	}
	c.waitStatus(blue2.id(), "DOWN")
	c.cutOff(blue1.Node, blue2.ip())
	c.reaches(red1.Node, red2.ip())
}

func TestEveryNetworkTypeConnectsItsPorts(t *testing.T) {
	t.Parallel()
	c := newCloud(t, 2, nil, "[OVS]\nnetwork_vlan_ranges = physnet1:100:199\n")
	for i, n := range []struct {
		kind  string
		attrs object
	}{
		{"vxlan", object{"provider:network_type": "vxlan"}},
		{"geneve", object{"provider:network_type": "geneve"}},
		{"vlan", object{"provider:network_type": "vlan", "provider:physical_network": "physnet1", "provider:segmentation_id": 101}},
		{"flat", object{"provider:network_type": "flat", "provider:physical_network": "physnet1"}},
	} {
		id := c.network(n.kind, fmt.Sprintf("10.%d.0.0/24", i+1), n.attrs)
		a, b := c.boot(n.kind+"1", "host1", id, nil), c.boot(n.kind+"2", "host2", id, nil)
		c.dhcp(a)
		c.dhcp(b)
		c.reaches(a.Node, b.ip())
	}
	local := c.network("local", "10.9.0.0/24", object{"provider:network_type": "local"})
	a, b, far := c.boot("local1", "host1", local, nil), c.boot("local2", "host1", local, nil), c.boot("local3", "host2", local, nil)
	for _, v := range []*vm{a, b, far} {
		c.dhcp(v)
	}
	c.reaches(a.Node, b.ip())
	c.cutOff(a.Node, far.ip())
}

func TestProviderVLANReachesAPhysicalHostInThatVLANOnly(t *testing.T) {
	t.Parallel()
	c := newCloud(t, 1, nil, "[OVS]\nnetwork_vlan_ranges = physnet1:100:199\n")
	id := c.network("ops", "192.168.57.0/24", object{
		"provider:network_type": "vlan", "provider:physical_network": "physnet1", "provider:segmentation_id": 101,
	})
	server := c.phys("server", 101, "192.168.57.250/24")
	other := c.phys("other", 102, "192.168.57.251/24")
	v := c.boot("vm1", "host1", id, nil)
	c.dhcp(v)
	c.reaches(v.Node, "192.168.57.250")
	c.cutOff(server, v.ip()) // which is no member of the VM's group
	c.pingable(v)
	c.reaches(server, v.ip())
	c.cutOff(v.Node, "192.168.57.251")
	c.cutOff(other, v.ip())
}

// TestNetworkOfTwoSegmentsUsesThatOfTheHost has both physical networks on one
// wire: the VLAN tells what a host uses.
func TestNetworkOfTwoSegmentsUsesThatOfTheHost(t *testing.T) {
	t.Parallel()
	c := newCloud(t, 2, nil, "[OVS]\nnetwork_vlan_ranges = physnet1:100:199,physnet2:200:299\n")
	c.vsctl("host2", "set", "Open_vSwitch", ".", "external_ids:planck-bridge-mappings=physnet2:br-ex")
	id := c.network("ops", "192.168.57.0/24", object{"segments": []object{
		{"provider:network_type": "vlan", "provider:physical_network": "physnet1", "provider:segmentation_id": 101},
		{"provider:network_type": "vlan", "provider:physical_network": "physnet2", "provider:segmentation_id": 201},
	}})
	c.phys("first", 101, "192.168.57.250/24")
	c.phys("second", 201, "192.168.57.251/24")
	a, b := c.boot("vm1", "host1", id, nil), c.boot("vm2", "host2", id, nil)
	c.dhcp(a)
	c.dhcp(b)
	c.reaches(a.Node, "192.168.57.250")
	c.cutOff(a.Node, "192.168.57.251")
	c.reaches(b.Node, "192.168.57.251")
	c.cutOff(b.Node, "192.168.57.250")
}

func TestPortSecurityStopsForgedAddresses(t *testing.T) {
	t.Parallel()
	c := newCloud(t, 2, nil, "")
	id := c.network("blue", "10.0.0.0/24", nil)
	a, b := c.boot("a", "host1", id, nil), c.boot("b", "host2", id, nil)
	c.dhcp(a)
	c.dhcp(b)
	c.reaches(a.Node, b.ip())

	exec := func(cmd ...string) {
		t.Helper()
		if out, err := a.Exec(t.Context(), cmd...); err != nil {
			t.Fatalf("%v: %v: %s", cmd, err, out)
		}
	}
	// A second address that is not the port's: nothing that comes from it passes.
	exec("ip", "addr", "add", "10.0.0.200/24", "dev", "eth0")
	if _, received, _ := a.Ping(t.Context(), b.ip(), 3, "-i", "0.2", "-W", "1", "-I", "10.0.0.200"); received != 0 {
		t.Error("a forged IPv4 source passes")
	}
	// As an allowed address pair it does.
	c.update("port", a.id(), object{"allowed_address_pairs": []any{object{"ip_address": "10.0.0.200"}}})
	c.eventually("the address pair passes", func() error {
		if _, received, _ := a.Ping(t.Context(), b.ip(), 1, "-W", "1", "-I", "10.0.0.200"); received == 0 {
			return fmt.Errorf("no answer")
		}
		return nil
	})
	c.update("port", a.id(), object{"allowed_address_pairs": []any{}})

	// An ARP answer for another's address must not reach the neighbour's cache.
	capture, err := b.Capture("eth0", "arp host 10.0.0.77")
	if err != nil {
		t.Fatal(err)
	}
	exec("ip", "addr", "add", "10.0.0.77/24", "dev", "eth0")
	_, _ = a.Exec(t.Context(), "arping", "-U", "-c", "3", "-w", "2", "-I", "eth0", "10.0.0.77")
	if text, err := capture.Stop(); err != nil || strings.Contains(text, "10.0.0.77") {
		t.Errorf("a forged ARP sender passes: %v\n%s", err, text)
	}

	exec("ip", "link", "set", "eth0", "address", "02:00:00:00:66:66")
	c.cutOff(a.Node, b.ip())

	// Without port security anything goes: a MAC and an address that nobody knows.
	exec("ip", "addr", "flush", "dev", "eth0")
	exec("ip", "addr", "add", "10.0.0.99/24", "dev", "eth0")
	c.pingable(b)
	c.update("port", a.id(), object{"port_security_enabled": false, "security_groups": []string{}})
	c.eventually("a port without port security may use any MAC", func() error {
		if _, received, _ := a.Ping(t.Context(), b.ip(), 1, "-W", "1"); received == 0 {
			return fmt.Errorf("no answer")
		}
		return nil
	})
}

func TestAdminStateDownStopsPackets(t *testing.T) {
	t.Parallel()
	c := newCloud(t, 1, nil, "")
	id := c.network("blue", "10.0.0.0/24", nil)
	a, b := c.boot("a", "host1", id, nil), c.boot("b", "host1", id, nil)
	c.dhcp(a)
	c.dhcp(b)
	c.reaches(a.Node, b.ip())
	stops := func(what string, down, up func()) {
		t.Helper()
		down()
		c.eventually(what+" down stops the ping", func() error {
			if _, received, _ := a.Ping(t.Context(), b.ip(), 1, "-W", "1"); received != 0 {
				return fmt.Errorf("still answered")
			}
			return nil
		})
		up()
		c.eventually(what+" up lets it pass", func() error {
			if _, received, _ := a.Ping(t.Context(), b.ip(), 1, "-W", "1"); received == 0 {
				return fmt.Errorf("no answer")
			}
			return nil
		})
	}
	stops("the port", func() { c.update("port", a.id(), object{"admin_state_up": false}) }, func() { c.update("port", a.id(), object{"admin_state_up": true}) })
	stops("the network", func() { c.update("network", id, object{"admin_state_up": false}) }, func() { c.update("network", id, object{"admin_state_up": true}) })
}

func TestMigrationKeepsAddressesAndMovesTheFlows(t *testing.T) {
	t.Parallel()
	c := newCloud(t, 3, nil, "")
	id := c.network("blue", "10.0.0.0/24", nil)
	a, b := c.boot("a", "host1", id, nil), c.boot("b", "host2", id, nil)
	c.dhcp(a)
	c.dhcp(b)
	c.reaches(a.Node, b.ip())
	if err := b.Migrate(t.Context(), "host3"); err != nil {
		t.Fatal(err)
	}
	c.update("port", b.id(), object{"binding:host_id": "host3"})
	c.waitStatus(b.id(), "ACTIVE")
	c.eventually("the moved VM answers", func() error {
		if _, received, _ := a.Ping(t.Context(), b.ip(), 1, "-W", "1"); received == 0 {
			return fmt.Errorf("no answer")
		}
		return nil
	})
	if got := c.show("port", b.id())["fixed_ips"].([]any)[0].(object)["ip_address"]; got != b.ip() {
		t.Errorf("the address changed from %s to %v", b.ip(), got)
	}
	c.eventually("host2 forgets the network", func() error {
		if text := c.flows("host2", "br-tun"); strings.Contains(text, b.mac()) {
			return fmt.Errorf("br-tun: %s", text)
		}
		return nil
	})
}

func TestFiftyPortsInBulkAndAllGone(t *testing.T) {
	t.Parallel()
	c := newCloud(t, 2, nil, "")
	c.hostsUp()
	base := map[string]string{}
	for _, bridge := range []string{"br-int", "br-tun", "br-ex"} {
		base[bridge] = withoutCanary(c.flows("host1", bridge))
	}
	id := c.network("blue", "10.0.0.0/24", nil)
	var bodies []any
	for i := range 50 {
		bodies = append(bodies, c.portBody(fmt.Sprintf("p%d", i), id, nil))
	}
	status, out := c.call(http.MethodPost, "/v2.0/ports", object{"ports": bodies})
	if status != http.StatusCreated {
		t.Fatalf("bulk create: %d %v", status, out)
	}
	ports := out["ports"].([]any)
	var wg sync.WaitGroup
	vms := make([]*vm, 4)
	for i := range vms {
		wg.Go(func() { vms[i] = c.plug(fmt.Sprintf("vm%d", i), fmt.Sprintf("host%d", i%2+1), ports[i].(object)) })
	}
	wg.Wait()
	for _, v := range vms {
		c.waitStatus(v.id(), "ACTIVE")
		c.dhcp(v)
	}
	for _, v := range vms[1:] {
		c.reaches(vms[0].Node, v.ip())
	}
	for _, p := range ports {
		c.delete("port", p.(object)["id"].(string))
	}
	c.delete("network", id)
	for bridge, before := range base {
		c.eventually(bridge+" is back to its base flows", func() error {
			if now := withoutCanary(c.flows("host1", bridge)); now != before {
				return fmt.Errorf("before:\n%s\nnow:\n%s", before, now)
			}
			return nil
		})
	}
	for _, resource := range []string{"ports", "subnets", "networks"} {
		if _, out := c.call(http.MethodGet, "/v2.0/"+resource, nil); len(out[resource].([]any)) != 0 {
			t.Errorf("left over: %v", out)
		}
	}
}

func withoutCanary(dump string) string {
	var kept []string
	for line := range strings.Lines(dump) {
		if strings.Contains(line, "priority=") && !strings.Contains(line, "table=253") {
			kept = append(kept, line)
		}
	}
	slices.Sort(kept) // among equal priorities the order is that of arrival
	return strings.Join(kept, "")
}

func TestControllerRestartLosesNoPacketAndSendsNoFlow(t *testing.T) {
	t.Parallel()
	c := newCloud(t, 2, nil, "")
	id := c.network("blue", "10.0.0.0/24", nil)
	a, b := c.boot("a", "host1", id, nil), c.boot("b", "host2", id, nil)
	c.dhcp(a)
	c.dhcp(b)
	c.reaches(a.Node, b.ip())
	for _, sig := range []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM} {
		stream, err := a.PingStream(t.Context(), b.ip())
		if err != nil {
			t.Fatal(err)
		}
		if err := stream.WaitReplies(c.within(settle), 50); err != nil {
			t.Fatal(err)
		}
		code := c.kill(sig)
		if sig == syscall.SIGTERM && code != 0 {
			t.Errorf("exit code %d after SIGTERM", code)
		}
		if err := stream.WaitReplies(c.within(settle), 50); err != nil {
			t.Fatalf("without a controller: %v", err)
		}
		c.start()
		c.eventually("all six bridges are live", func() error {
			if live := c.metric("planck_openflow_sessions", ""); live != 6 {
				return fmt.Errorf("%v are", live)
			}
			return nil
		})
		if err := stream.WaitReplies(c.within(settle), 50); err != nil {
			t.Fatal(err)
		}
		stats, err := stream.Stop()
		if err != nil {
			t.Fatal(err)
		}
		if err := stats.Whole(); err != nil {
			t.Errorf("%v: %v", sig, err)
		}
		if sent := c.metric("planck_flow_mods_total", ""); sent != 0 {
			t.Errorf("%v: the new controller sent %v FLOW_MODs to switches that are right", sig, sent)
		}
		if got := c.show("port", a.id())["status"]; got != "ACTIVE" {
			t.Errorf("%v: status of a port after the restart: %v", sig, got)
		}
	}
}

func TestRestartedSwitchIsWholeAgain(t *testing.T) {
	t.Parallel()
	c := newCloud(t, 2, nil, "")
	id := c.network("blue", "10.0.0.0/24", nil)
	a, b := c.boot("a", "host1", id, nil), c.boot("b", "host2", id, nil)
	c.dhcp(a)
	c.dhcp(b)
	c.reaches(a.Node, b.ip())
	host := c.lab.Host("host2")
	if err := host.KillVswitchd(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := host.StartVswitchd(); err != nil {
		t.Fatal(err)
	}
	back := time.Now()
	c.eventually("traffic flows again", func() error {
		if _, received, _ := a.Ping(t.Context(), b.ip(), 1, "-W", "1"); received == 0 {
			return fmt.Errorf("no answer")
		}
		return nil
	})
	t.Logf("traffic %v after the switch was back", time.Since(back).Round(10*time.Millisecond))
}

func TestForeignAndMissingFlowsAreRepaired(t *testing.T) {
	t.Parallel()
	c := newCloud(t, 1, nil, "[openflow]\naudit_interval = 1\n")
	id := c.network("blue", "10.0.0.0/24", nil)
	c.boot("a", "host1", id, nil)
	want := withoutCanary(c.flows("host1", "br-int"))
	host := c.lab.Host("host1")
	for _, cmd := range [][]string{
		{"add-flow", "br-int", "table=0,priority=999,actions=drop"},
		{"del-flows", "br-int", "table=60"},
		{"mod-flows", "br-int", "table=90,actions=drop"},
	} {
		if out, err := host.Ofctl(cmd...); err != nil {
			t.Fatalf("%v: %v %s", cmd, err, out)
		}
		c.eventually(cmd[0]+" is repaired", func() error {
			if now := withoutCanary(c.flows("host1", "br-int")); now != want {
				return fmt.Errorf("want:\n%s\nhave:\n%s", want, now)
			}
			return nil
		})
	}
	if c.metric("planck_drift_total", "") == 0 {
		t.Error("the drift was not counted")
	}
}

func TestHostWhoseOnlyPathIsItsProviderBridgeJoins(t *testing.T) {
	t.Parallel()
	c := newCloud(t, 2, []string{"host2"}, "")
	c.hostsUp()
	id := c.network("blue", "10.0.0.0/24", nil)
	a, b := c.boot("a", "host1", id, nil), c.boot("b", "host2", id, nil)
	c.dhcp(a)
	c.dhcp(b)
	c.reaches(a.Node, b.ip())
	host := c.lab.Host("host2")
	if err := host.KillVswitchd(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := host.StartVswitchd(); err != nil {
		t.Fatal(err)
	}
	c.eventually("the host is back", func() error {
		if _, received, _ := a.Ping(t.Context(), b.ip(), 1, "-W", "1"); received == 0 {
			return fmt.Errorf("no answer")
		}
		return nil
	})
}

func (c *cloud) phys(name string, vlan int, addr string) *lab.Node {
	c.Helper()
	n, err := c.lab.AddPhys(c.Context(), name, lab.PhysOptions{VLAN: vlan, Addrs: []string{addr}})
	if err != nil {
		c.Fatal(err)
	}
	return n
}
