package e2e

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"planck/test/lab"
)

// hostState is a host as the operator's API shows it, nil when it does not.
func (c *cloud) hostState(name, systemID string) object {
	c.Helper()
	_, out := c.call(http.MethodGet, "/planck/v1/hosts", nil)
	for _, h := range out["hosts"].([]any) {
		if h := h.(object); h["name"] == name && (systemID == "" || h["system_id"] == systemID) {
			return h
		}
	}
	return nil
}

// ofctl runs ovs-ofctl on a host.
func (c *cloud) ofctl(host string, args ...string) string {
	c.Helper()
	out, err := c.lab.Host(host).Ofctl(args...)
	if err != nil {
		c.Fatal(err)
	}
	return out
}

// exec runs a program in a node.
func (c *cloud) exec(n *lab.Node, cmd ...string) string {
	c.Helper()
	out, err := n.Exec(c.Context(), cmd...)
	if err != nil {
		c.Fatal(err)
	}
	return out
}

func TestJoiningKeepsWhatTheOperatorHas(t *testing.T) {
	t.Parallel()
	c := newController(t, "")
	c.lab = lab.ForTest(t, lab.Options{Hosts: 2})
	flows := []string{
		"cookie=0xabc,table=0,priority=5,icmp,nw_dst=203.0.113.99,actions=drop",
		"cookie=0xabc,table=0,priority=100,arp,actions=NORMAL",
		"cookie=0xabc,table=7,priority=1,actions=resubmit(,8)",
	}
	// One bridge with a passive controller, one that already has another active one.
	others := map[string]string{"host1": "ptcp:16633:127.0.0.1", "host2": "tcp:127.0.0.1:16633"}
	streams := map[string]*lab.PingStream{}
	for i, h := range c.lab.Hosts() {
		c.vsctl(h.Name(), "set-controller", "br-ex", others[h.Name()],
			"--", "set-fail-mode", "br-ex", "standalone",
			"--", "add-port", "br-ex", "op0", "--", "set", "Interface", "op0", "type=internal",
			"--", "set", "Bridge", "br-ex", "external_ids:operator=me", "other_config:mac-aging-time=77")
		c.exec(h.Node, "ip", "addr", "add", fmt.Sprintf("203.0.113.%d/24", 50+i), "dev", "br-ex")
		for _, flow := range flows {
			c.ofctl(h.Name(), "add-flow", "br-ex", flow)
		}
		if i == 1 {
			// Without its active controller the bridge has its flows only: let them switch.
			c.ofctl(h.Name(), "add-flow", "br-ex", "cookie=0xabc,table=0,priority=1,actions=NORMAL")
		}
		stream, err := h.PingStream(c.within(settle), "203.0.113.1")
		if err != nil {
			t.Fatal(err)
		}
		streams[h.Name()] = stream
	}
	operators := func(host string) string {
		var kept []string
		for line := range strings.Lines(c.flows(host, "br-ex")) {
			if strings.Contains(line, "cookie=0xabc") {
				kept = append(kept, strings.TrimSpace(line))
			}
		}
		return strings.Join(kept, "\n")
	}
	before := map[string]string{}
	for _, h := range c.lab.Hosts() {
		before[h.Name()] = operators(h.Name())
		if err := h.SetManager(c.ovsdb); err != nil {
			t.Fatal(err)
		}
	}
	c.hostsUp()
	c.settled()
	kept := func(when string) {
		t.Helper()
		for _, h := range c.lab.Hosts() {
			if now := operators(h.Name()); now != before[h.Name()] {
				t.Errorf("%s: %s: the operator's flows were\n%s\nand are\n%s", when, h.Name(), before[h.Name()], now)
			}
			for what, want := range map[string]string{
				c.vsctl(h.Name(), "get-controller", "br-ex"):                         others[h.Name()],
				c.vsctl(h.Name(), "list-ports", "br-ex"):                             "op0",
				c.vsctl(h.Name(), "get", "Bridge", "br-ex", "external_ids:operator"): "me",
				c.vsctl(h.Name(), "get", "Bridge", "br-ex", "other_config"):          `mac-aging-time="77"`,
				c.exec(h.Node, "ip", "-4", "addr", "show", "dev", "br-ex"):           "203.0.113.5",
			} {
				if !strings.Contains(what, want) {
					t.Errorf("%s: %s: %q is lost: %s", when, h.Name(), want, what)
				}
			}
		}
	}
	kept("joined")
	for host, stream := range streams {
		if err := stream.WaitReplies(c.within(settle), 20); err != nil {
			t.Fatal(err)
		}
		stats, err := stream.Stop()
		if err != nil || stats.LongestGap > hiccup {
			t.Errorf("%s was cut off for %v (%d of %d packets): %v", host, stats.LongestGap, stats.Lost, stats.Sent, err)
		}
		t.Logf("%s lost %d of %d packets", host, stats.Lost, stats.Sent)
	}

	// Once more, with a new controller, and after the host was taken away from it.
	c.kill(syscall.SIGKILL)
	c.start()
	c.allLive()
	c.settled()
	for _, h := range c.lab.Hosts() {
		if err := h.SetManager(); err != nil {
			t.Fatal(err)
		}
		c.eventually(h.Name()+" is away", func() error {
			if state := c.hostState(h.Name(), ""); state["ovsdb"].(object)["connected"] == true {
				return errors.New("it is connected")
			}
			return nil
		})
		if err := h.SetManager(c.ovsdb); err != nil {
			t.Fatal(err)
		}
	}
	c.settled()
	kept("joined again")
	// One each: the timeouts of the new Manager row.
	if n := c.metric("planck_ovsdb_transactions_total", ""); n != 2 {
		t.Errorf("%v transactions for hosts that have everything", n)
	}
	if n := c.metric("planck_flow_mods_total", ""); n != 0 {
		t.Errorf("%v FLOW_MODs for hosts that have everything", n)
	}
}

// settled waits until all hosts are connected and have no problem.
func (c *cloud) settled() {
	c.Helper()
	for _, h := range c.lab.Hosts() {
		c.eventually(h.Name()+" is set up", func() error {
			state := c.hostState(h.Name(), "")
			if state == nil {
				return errors.New("it is not known")
			}
			if ovsdb := state["ovsdb"].(object); ovsdb["connected"] != true || ovsdb["problem"] != nil {
				return fmt.Errorf("%v", ovsdb)
			}
			return nil
		})
	}
}

func TestTunnelsFollowTheHostsAddress(t *testing.T) {
	t.Parallel()
	c := newCloud(t, 2, nil, "")
	id := c.network("blue", "10.0.0.0/24", nil)
	a, b := c.boot("a", "host1", id, nil), c.boot("b", "host2", id, nil)
	c.dhcp(a)
	c.dhcp(b)
	c.reaches(a.Node, b.ip())
	host := c.lab.Host("host1")
	old := host.LocalIP()
	moved := old[:strings.LastIndex(old, ".")] + ".101"
	c.exec(host.Node, "ip", "addr", "add", moved+"/24", "dev", "br-phy")
	c.vsctl("host1", "set", "Open_vSwitch", ".", "external_ids:planck-local-ip="+moved)
	c.eventually("host2 sends to the new address, and only there", func() error {
		if flows := c.flows("host2", "br-tun"); !strings.Contains(flows, "tun_src="+moved) || strings.Contains(flows, "tun_src="+old+" ") {
			return errors.New(flows)
		}
		return nil
	})
	c.exec(host.Node, "ip", "addr", "del", old+"/24", "dev", "br-phy")
	c.exec(host.Node, "ip", "addr", "replace", moved+"/24", "dev", "br-phy")
	underlay := c.capture(c.lab.Host("host2").Node, lab.Underlay, "ip proto 47")
	c.reaches(a.Node, b.ip())
	c.reaches(b.Node, a.ip())
	for _, way := range []string{moved + " > " + c.lab.Host("host2").LocalIP(), c.lab.Host("host2").LocalIP() + " > " + moved} {
		if !strings.Contains(underlay.Text(), way) {
			t.Errorf("no packet %s:\n%s", way, underlay.Text())
		}
	}
	c.captured(underlay)
}

func TestAHostIsItsName(t *testing.T) {
	t.Parallel()
	c := newCloud(t, 2, nil, "")
	c.hostsUp()
	c.settled()
	systemID := strings.Trim(strings.TrimSpace(c.vsctl("host2", "get", "Open_vSwitch", ".", "external_ids:system-id")), `"`)

	c.vsctl("host2", "set", "Open_vSwitch", ".", "external_ids:hostname=host1")
	c.eventually("the second host1 is refused", func() error {
		text := c.planck("hosts")
		for line := range strings.Lines(text) {
			if strings.HasPrefix(line, "host1 ") && strings.Contains(line, "the name is taken") {
				return nil
			}
		}
		return errors.New(text)
	})
	if state := c.hostState("host1", systemID); state == nil || state["ovsdb"].(object)["connected"] == true {
		t.Errorf("the impostor is shown as %v", state)
	}
	id := c.network("blue", "10.0.0.0/24", nil)
	c.dhcp(c.boot("a", "host1", id, nil))

	c.vsctl("host2", "set", "Open_vSwitch", ".", "external_ids:hostname=host2")
	c.eventually("under its own name it is welcome again", func() error {
		if text := c.planck("hosts"); strings.Contains(text, "taken") && !strings.Contains(text, "\nhost2  connected") {
			return errors.New(text)
		}
		return nil
	})
	c.dhcp(c.boot("b", "host2", id, nil))
}

func TestAHostGoesAwayAndIsForgotten(t *testing.T) {
	t.Parallel()
	c := newCloud(t, 2, nil, "")
	c.hostsUp()
	c.settled()
	id := c.network("blue", "10.0.0.0/24", nil)
	a := c.boot("a", "host1", id, nil)
	c.dhcp(a)
	gone := c.boot("gone", "host2", id, nil)
	if out, err := c.planckError("hosts", "forget", "host2"); err == nil || !strings.Contains(out, "connected") {
		t.Errorf("a live host is forgotten: %v: %s", err, out)
	}
	if out, err := c.planckError("hosts", "forget", "pigeon"); err == nil || !strings.Contains(out, "could not be found") {
		t.Errorf("a host that is not there is forgotten: %v: %s", err, out)
	}
	if err := c.lab.Host("host2").KillOvsdb(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := c.lab.Host("host2").KillVswitchd(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	c.eventually("planck hosts says that host2 is away", func() error {
		if text := c.planck("hosts"); !strings.Contains(text, "\nhost2  away") || !strings.Contains(text, "host1  connected") {
			return errors.New(text)
		}
		return nil
	})
	// A dead host holds nobody back.
	c.dhcp(c.boot("b", "host1", id, nil))

	c.planck("hosts", "forget", "host2")
	if text := c.planck("hosts"); strings.Contains(text, "host2") {
		t.Errorf("it is not forgotten:\n%s", text)
	}
	c.waitStatus(gone.id(), "DOWN")
	c.eventually("no tunnel leads there", func() error {
		if flows := c.flows("host1", "br-tun"); strings.Contains(flows, c.lab.Host("host2").LocalIP()) {
			return errors.New(flows)
		}
		return nil
	})
}

func TestAnInterfaceMadeAnewIsAMove(t *testing.T) {
	t.Parallel()
	c := newCloud(t, 1, nil, "")
	id := c.network("blue", "10.0.0.0/24", nil)
	a, b := c.boot("a", "host1", id, nil), c.boot("b", "host1", id, nil)
	c.dhcp(a)
	c.dhcp(b)
	stream, err := a.PingStream(t.Context(), b.ip())
	if err != nil {
		t.Fatal(err)
	}
	updated := c.metric("planck_status_writes_total", "")
	ofport := c.vsctl("host1", "get", "Interface", b.Tap(), "ofport")
	begin := time.Now()
	if err := b.Unplug(); err != nil {
		t.Fatal(err)
	}
	if err := b.Plug(t.Context()); err != nil {
		t.Fatal(err)
	}
	took := time.Since(begin)
	if err := stream.WaitReplies(c.within(settle), 20); err != nil {
		t.Fatal(err)
	}
	stats, err := stream.Stop()
	if err != nil || stats.LongestGap > took+hiccup {
		t.Errorf("the traffic was away for %v: %v", stats.LongestGap, err)
	}
	if now := c.vsctl("host1", "get", "Interface", b.Tap(), "ofport"); now == ofport {
		t.Fatalf("the interface has the same OpenFlow port %s: this proves nothing", now)
	}
	// What is gone for longer than 200 ms is unplugged.
	if n := c.metric("planck_status_writes_total", "") - updated; n != 0 && took < 150*time.Millisecond {
		t.Errorf("the status was written %v times: it looked like an unplug", n)
	}
	t.Logf("the interface was away for %v, traffic for %v", took, stats.LongestGap)
}

func TestStatusSaysWhetherAPortIsWired(t *testing.T) {
	t.Parallel()
	c := newCloud(t, 2, nil, "")
	c.hostsUp()
	id := c.network("blue", "10.0.0.0/24", nil)

	c.also("by the plug", func(c *cloud) {
		port := c.create("port", c.portBody("free", id, nil))
		if port["status"] != "DOWN" || port["binding:vif_type"] != "unbound" {
			c.Errorf("a new port has the status %v and vif_type %v", port["status"], port["binding:vif_type"])
		}
		v := c.plug("free", "host1", port)
		c.waitStatus(v.id(), "ACTIVE")
		c.refresh(v)
		if v.port["binding:host_id"] != "host1" || v.port["binding:vif_type"] != "ovs" {
			c.Errorf("the plug bound it to %v, vif_type %v", v.port["binding:host_id"], v.port["binding:vif_type"])
		}
		if err := v.Unplug(); err != nil {
			c.Fatal(err)
		}
		c.waitStatus(v.id(), "DOWN")
		if err := v.Plug(c.Context()); err != nil {
			c.Fatal(err)
		}
		c.waitStatus(v.id(), "ACTIVE")
		c.dhcp(v)
	})

	c.also("on the bound host only", func(c *cloud) {
		port := c.create("port", c.portBody("bound", id, object{"binding:host_id": "host2"}))
		if port["binding:vif_type"] != "ovs" {
			c.Errorf("vif_type %v on a host that is there", port["binding:vif_type"])
		}
		v := c.plug("bound", "host1", port)
		c.plugged(v)
		if text := c.flows("host1", "br-int"); strings.Contains(text, "dl_src="+v.mac()) {
			c.Errorf("a plug on another host than the bound one is wired:\n%s", text)
		}
		if got := c.show("port", v.id()); got["status"] != "DOWN" || got["binding:host_id"] != "host2" {
			c.Errorf("status %v, bound to %v", got["status"], got["binding:host_id"])
		}
		c.update("port", v.id(), object{"binding:host_id": "host1"})
		c.waitStatus(v.id(), "ACTIVE")
		c.dhcp(v)
	})

	c.also("not on a host that nobody knows", func(c *cloud) {
		port := c.create("port", c.portBody("lost", id, object{"binding:host_id": "nowhere"}))
		if port["binding:vif_type"] != "binding_failed" || port["status"] != "DOWN" {
			c.Errorf("vif_type %v, status %v", port["binding:vif_type"], port["status"])
		}
		if port = c.update("port", port["id"].(string), object{"binding:host_id": "host1"}); port["binding:vif_type"] != "ovs" {
			c.Errorf("vif_type %v on host1", port["binding:vif_type"])
		}
	})
}

// plugged waits until the controller has seen the VM's interface: what it
// plugged later is in use.
func (c *cloud) plugged(v *vm) {
	c.Helper()
	host, err := v.Host()
	if err != nil {
		c.Fatal(err)
	}
	witness := c.plug(v.Name()+"-witness", host.Name(), c.create("port", c.portBody("witness", v.port["network_id"].(string), nil)))
	c.waitStatus(witness.id(), "ACTIVE")
}
