package e2e

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"planck/test/lab"
)

// gatewayState is the part of a host in carrying gateways.
type gatewayState struct {
	Active, Standby int
	Health, Reason  string
}

// gateways are the parts of all hosts.
func (c *cloud) gateways() map[string]gatewayState {
	c.Helper()
	var out struct {
		Hosts []struct {
			Name    string
			Gateway gatewayState
		}
	}
	c.operator("hosts", nil, &out)
	found := map[string]gatewayState{}
	for _, h := range out.Hosts {
		found[h.Name] = h.Gateway
	}
	return found
}

// outside makes the network of ext, which is the way to 198.51.100.1.
func (c *cloud) outside() string {
	c.Helper()
	return c.outsideBy("203.0.113.1")
}

// outsideBy makes the network of ext with another way to what is beyond.
func (c *cloud) outsideBy(gateway string) string {
	c.Helper()
	id := c.create("network", object{
		"name": "public", "router:external": true, "provider:network_type": "flat", "provider:physical_network": "physnet1",
	})["id"].(string)
	c.create("subnet", object{
		"network_id": id, "cidr": "203.0.113.0/24", "gateway_ip": gateway, "ip_version": 4, "enable_dhcp": false,
		"allocation_pools": []object{{"start": "203.0.113.100", "end": "203.0.113.199"}},
	})
	return id
}

// watched waits until hosts see each other by BFD, and all gateway hosts are well.
// A session begins with a packet a second: who dies before it is at its pace is
// missed later.
func (c *cloud) watched(hosts []*lab.Host) {
	c.Helper()
	c.eventually("BFD is up between all hosts", func() error {
		for _, h := range hosts {
			out := c.bfdStatus(h)
			if up := strings.Count(out, " state=up"); up != len(hosts)-1 {
				return fmt.Errorf("%s sees %d others, its status is %s", h.Name(), up, out)
			}
			out, err := h.Appctl("bfd/show")
			if paced := strings.Count(out, "RX Interval: Approx 100ms"); err != nil || paced != len(hosts)-1 {
				return fmt.Errorf("%s has %d sessions at their pace, %v: %s", h.Name(), paced, err, out)
			}
		}
		for name, g := range c.gateways() {
			if g.Active+g.Standby > 0 && g.Health != "up" {
				return fmt.Errorf("%s is %s: %s", name, g.Health, g.Reason)
			}
		}
		return nil
	})
}

func (c *cloud) bfdStatus(h *lab.Host) string {
	return c.vsctl(h.Name(), "--columns=bfd_status", "--bare", "find", "Interface", `external_ids:planck-peer!=""`)
}

// gatewayHost is the host that has the only gateway.
func (c *cloud) gatewayHost() string {
	c.Helper()
	for name, g := range c.gateways() {
		if g.Active > 0 {
			return name
		}
	}
	return ""
}

// placed waits until a host has the only gateway.
func (c *cloud) placed() string {
	c.Helper()
	c.eventually("a host has the gateway", func() error {
		if c.gatewayHost() == "" {
			return fmt.Errorf("gateways are on %v", c.gateways())
		}
		return nil
	})
	return c.gatewayHost()
}

func TestGatewayHostsAreWatchedAndTrafficGoesOn(t *testing.T) {
	t.Parallel()
	f := newFire(t, 3, "")
	stream := f.ping()
	public := f.outside()
	for i := range 6 {
		f.create("router", object{"name": fmt.Sprintf("r%d", i), "external_gateway_info": object{"network_id": public}})
	}
	f.watched(f.lab.Hosts())
	for name, g := range f.gateways() {
		if g.Active != 2 || g.Standby != 4 {
			t.Errorf("%s has %d gateways and stands by for %d", name, g.Active, g.Standby)
		}
	}
	// What the peer's port draws to itself is let in: not a packet is lost.
	f.flowing(stream)
	f.lossless("the tunnel ports towards gateway hosts came", stream)

	stream = f.ping()
	f.kill(syscall.SIGKILL)
	f.flowing(stream)
	f.start()
	f.live(3)
	f.watched(f.lab.Hosts())
	f.lossless("the controller was killed and came back", stream)
}

// death is a way in which a host dies, and comes back.
type death struct {
	what      string
	die, heal func(h *lab.Host) error
}

var (
	vswitchdKilled = death{
		"vswitchd killed",
		func(h *lab.Host) error { return h.KillVswitchd(syscall.SIGKILL) },
		(*lab.Host).StartVswitchd,
	}
	underlayCut = death{
		"underlay link cut",
		func(h *lab.Host) error { return h.LinkDown(lab.Underlay) },
		func(h *lab.Host) error { return h.LinkUp(lab.Underlay) },
	}
	powerLost = death{
		"whole host dead",
		func(h *lab.Host) error {
			return errors.Join(h.LinkDown(lab.Management), h.LinkDown(lab.Underlay), h.LinkDown(lab.Physical),
				h.KillVswitchd(syscall.SIGKILL), h.KillOvsdb(syscall.SIGKILL))
		},
		func(h *lab.Host) error {
			return errors.Join(h.LinkUp(lab.Management), h.LinkUp(lab.Underlay), h.LinkUp(lab.Physical), h.StartOvsdb(), h.StartVswitchd())
		},
	}
)

// outageMost is how long a stand-by may take to replace a dead gateway host. The
// aim is 2 s, and it takes one: the log has it. The rest is for a machine on which
// everything waits: starved, it took five.
const outageMost = 2*time.Second + hiccup

func TestGatewayDiesUnderPingAndAnotherTakesOver(t *testing.T) {
	t.Parallel()
	c := newCloud(t, 4, nil, "")
	c.hostsUp()
	c.live(4)
	// The VM's own host carries no gateway: it is the one that may not die.
	c.vsctl("host1", "remove", "Open_vSwitch", ".", "external_ids", "planck-bridge-mappings")
	private := c.network("blue", "10.0.0.0/24", nil)
	id := c.router("blue", private)
	c.update("router", id, object{"external_gateway_info": object{"network_id": c.outside()}})
	c.eventually("three hosts can carry the gateway", func() error {
		if g := c.gateways(); g["host1"].Active+g["host1"].Standby > 0 || c.gatewayHost() == "" {
			return fmt.Errorf("gateways are on %v", g)
		}
		return nil
	})
	first := c.gatewayHost()
	v := c.boot("v", "host1", private, nil)
	c.dhcp(v)
	c.watched(c.lab.Hosts())
	c.reaches(v.Node, "203.0.113.1")
	c.reaches(v.Node, "198.51.100.1")

	outage := func(what string, change func() error, moved func() bool) {
		t.Helper()
		stream, err := v.PingStream(c.within(settle), "198.51.100.1")
		if err != nil {
			t.Fatal(err)
		}
		silence := longestSilence(stream)
		if err := change(); err != nil {
			t.Fatal(err)
		}
		deadline := time.Now().Add(3 * settle)
		for !moved() {
			if time.Now().After(deadline) {
				t.Fatalf("%s: the gateway is on %s still", what, c.gatewayHost())
			}
			time.Sleep(50 * time.Millisecond)
		}
		if err := stream.WaitReplies(c.within(settle), 100); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		gap := silence()
		stats, err := stream.Stop()
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: no answer for %.2f s, %d of %d packets lost", what, gap.Seconds(), stats.Lost, stats.Sent)
		if gap > outageMost {
			t.Errorf("%s: no answer for %v, more than %v", what, gap, outageMost)
		}
	}
	dies := func(d death, name string) {
		t.Helper()
		outage(d.what, func() error { return d.die(c.lab.Host(name)) }, func() bool { return c.gatewayHost() != name })
	}
	heals := func(d death, name string) {
		t.Helper()
		if err := d.heal(c.lab.Host(name)); err != nil {
			t.Fatal(err)
		}
	}

	outage("controller killed", func() error { c.kill(syscall.SIGKILL); return nil }, func() bool { return true })
	c.start()
	c.watched(c.lab.Hosts())
	dies(vswitchdKilled, first)
	heals(vswitchdKilled, first)
	second := c.gatewayHost()
	dies(underlayCut, second)
	heals(underlayCut, second)
	outage("the first host has its gateway back", func() error { return nil }, func() bool { return c.gatewayHost() == first })
	dies(powerLost, first)
	heals(powerLost, first)
}

// A host that is well, but whose wire to the outside is dead, has neither a
// gateway nor floating IPs.
func TestWireOfAGatewayHostIsCut(t *testing.T) {
	t.Parallel()
	c := newCloud(t, 2, nil, "")
	c.hostsUp()
	c.live(2)
	private := c.network("blue", "10.0.0.0/24", nil)
	public := c.outside()
	c.setGateway(c.router("blue", private), public, nil)
	first := c.placed()
	anyTraffic := c.anyTraffic()
	plain, floating := c.boot("plain", first, private, anyTraffic), c.boot("floating", first, private, anyTraffic)
	c.dhcp(plain)
	c.dhcp(floating)
	_, address := c.floatingIP(public, floating)
	c.watched(c.lab.Hosts())
	c.comesThrough(plain.Node, "203.0.113.1")
	c.comesThrough(c.lab.Ext(), address)

	if err := c.lab.Host(first).LinkDown(lab.Physical); err != nil {
		t.Fatal(err)
	}
	c.eventually("the other host has the gateway", func() error {
		if at := c.gatewayHost(); at == first || at == "" {
			return fmt.Errorf("it is on %q", at)
		}
		return nil
	})
	if g := c.gateways()[first]; g.Health != "down" || g.Reason != "no link on br-ex" {
		t.Errorf("%s is %+v", first, g)
	}
	c.comesThrough(plain.Node, "203.0.113.1")
	c.comesThrough(c.lab.Ext(), address)
	c.comesThrough(floating.Node, "203.0.113.1")

	if err := c.lab.Host(first).LinkUp(lab.Physical); err != nil {
		t.Fatal(err)
	}
	c.eventually("the first host has its gateway back", func() error {
		if at := c.gatewayHost(); at != first {
			return fmt.Errorf("it is on %q", at)
		}
		return nil
	})
	c.comesThrough(plain.Node, "203.0.113.1")
	c.comesThrough(c.lab.Ext(), address)
}

// longestSilence measures, until it is called, the longest time without a reply:
// on a busy machine ping is late, and lost packets say too little.
func longestSilence(stream *lab.PingStream) func() time.Duration {
	stop, longest := make(chan struct{}), make(chan time.Duration)
	go func() {
		seen, since, most := stream.Received(), time.Now(), time.Duration(0)
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				longest <- most
				return
			case <-tick.C:
			}
			if n := stream.Received(); n != seen {
				most = max(most, time.Since(since))
				seen, since = n, time.Now()
			}
		}
	}()
	return func() time.Duration {
		close(stop)
		return <-longest
	}
}

func TestBFDDoesNotFlapUnderLoad(t *testing.T) {
	t.Parallel()
	c := newCloud(t, 3, nil, "")
	c.hostsUp()
	c.live(3)
	private := c.network("blue", "10.0.0.0/24", nil)
	id := c.router("blue", private)
	c.update("router", id, object{"external_gateway_info": object{"network_id": c.outside()}})
	at := "host1"
	if c.gatewayHost() == at {
		at = "host2"
	}
	v := c.boot("v", at, private, nil)
	c.dhcp(v)
	c.watched(c.lab.Hosts())
	c.reaches(v.Node, "198.51.100.1")
	flaps := func() string {
		var counts []string
		for _, h := range c.lab.Hosts() {
			counts = append(counts, regexp.MustCompile(`flap_count=\d+`).FindAllString(c.bfdStatus(h), -1)...)
		}
		return strings.Join(counts, " ")
	}
	before := flaps()
	server, err := c.lab.Ext().Start("iperf3", "-s", "-1", "--forceflush")
	if err != nil {
		t.Fatal(err)
	}
	if err := server.WaitOutput(c.within(settle), "listening"); err != nil {
		t.Fatal(err)
	}
	out, err := v.Exec(t.Context(), "iperf3", "-c", "198.51.100.1", "-t", "10", "-P", "4", "-f", "m")
	if err != nil {
		t.Fatalf("iperf3: %v\n%s", err, out)
	}
	lines := strings.Split(strings.TrimSpace(out), "\n")
	t.Logf("through SNAT on %s: %s", c.gatewayHost(), lines[max(0, len(lines)-3)])
	if after := flaps(); after != before {
		t.Errorf("BFD: %s became %s", before, after)
	}
	if downs := c.metric("planck_gateway_hosts_down_total", ""); downs != 0 {
		t.Errorf("%v hosts were taken for dead", downs)
	}
}
