package e2e

import (
	"fmt"
	"strings"
	"syscall"
	"testing"

	"planck/controller"
)

// etherLocal is an EtherType for local experiments (IEEE 802).
const etherLocal = 0x88b5

// verifies runs planck verify, and checks its exit code and that it says all of some texts.
func (c *cloud) verifies(code string, texts ...string) string {
	c.Helper()
	out, err := c.planckError("verify")
	if got := fmt.Sprint(err); got != code {
		c.Errorf("planck verify ends with %q, not %q:\n%s", got, code, out)
	}
	for _, text := range texts {
		if !strings.Contains(out, text) {
			c.Errorf("planck verify does not say %q:\n%s", text, out)
		}
	}
	return out
}

// What the switches of a cloud have is proven right. After somebody has added a
// flow that leaks one kind of frame to another tenant, planck verify shows such a
// frame and the flow, and that frame really gets there; a flow that is missing is
// named too.
func TestVerifyFindsTheLeak(t *testing.T) {
	t.Parallel()
	c := newCloud(t, 2, nil, physicalNetwork+"[openflow]\naudit_interval = 3600\n")
	c.hostsUp()
	public, anyTraffic := c.outside(), c.anyTraffic()
	blue, red := c.network("blue", "10.0.0.0/24", nil), c.network("red", "10.0.0.0/24", nil)
	a, b := c.boot("a", "host1", blue, anyTraffic), c.boot("b", "host2", blue, anyTraffic)
	x, _ := c.boot("x", "host1", red, anyTraffic), c.boot("y", "host2", red, nil)
	c.setGateway(c.router("blue", blue), public, nil)
	c.setGateway(c.router("red", red), public, nil)
	c.floatingIP(public, b)
	for _, v := range []*vm{a, b, x} {
		c.dhcp(v)
	}
	c.reaches(a.Node, b.ip())
	c.settled()
	c.eventually("all is proven", func() error {
		out, err := c.planckError("verify")
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
	c.verifies("<nil>", "proven: 2 hosts, 4 ports, ")

	leak := fmt.Sprintf("cookie=0x504c060400000001,table=0,priority=30000,in_port=%s,dl_type=%#x actions=output:%s",
		c.vsctl("host1", "get", "Interface", a.Tap(), "ofport"), etherLocal, c.vsctl("host1", "get", "Interface", x.Tap(), "ofport"))
	c.ofctl("host1", "add-flow", "br-int", leak)
	c.verifies("exit status 1", "crossing: a packet of port a, on network blue-net, gets to port x on network red-net, which no router connects so",
		"at fault: host1 br-int, table Classify, l2 of network ", "which the model does not want", "dl_type=0x88b5", "delivered to port x on host host1")
	var found controller.VerifyRecord
	c.operator("verify", nil, &found)
	if found.Verdict != controller.Refuted || len(found.Findings) == 0 || found.Findings[0].To.ID != x.id() {
		t.Errorf("the API says %+v", found)
	}

	capture := c.capture(x.Node, "eth0", fmt.Sprintf("ether proto %#x", etherLocal))
	c.send(a, ethernet(t, "02:00:00:00:00:01", a.mac(), etherLocal, make([]byte, 46)))
	if err := capture.WaitFor(c.within(settle), "02:00:00:00:00:01"); err != nil {
		t.Errorf("the frame does not cross: %v", err)
	}
	c.captured(capture)
	c.ofctl("host1", "--strict", "del-flows", "br-int", fmt.Sprintf("table=0,priority=30000,in_port=%s,dl_type=%#x", c.vsctl("host1", "get", "Interface", a.Tap(), "ofport"), etherLocal))
	c.verifies("<nil>", "proven: ")

	// What can't be read is not proven.
	if err := c.lab.Host("host2").KillVswitchd(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	c.eventually("bridges are assumed to be as the model wants them", func() error {
		out, err := c.planckError("verify")
		if fmt.Sprint(err) != "exit status 3" || !strings.Contains(out, `assumed to be as the model wants it: host "host2" bridge "br-int"`) || !strings.Contains(out, "assumed: 2 hosts") {
			return fmt.Errorf("%v: %s", err, out)
		}
		return nil
	})
	if err := c.lab.Host("host2").StartVswitchd(); err != nil {
		t.Fatal(err)
	}
	c.eventually("all is proven again", func() error {
		out, err := c.planckError("verify")
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})

	c.ofctl("host1", "--strict", "del-flows", "br-int", "table=10,priority=85,ip")
	c.verifies("exit status 1", "spoofed: port ", "sends from an IPv4 address that is not its own", "table PortSecurity", "which the model wants and the switch has not")
	if out, err := c.planckError("verify", "--desired"); err != nil {
		t.Errorf("planck verify --desired: %v: %s", err, out)
	}
	if proven, refuted, took := c.metric("planck_verify_total", `outcome="proven"`), c.metric("planck_verify_total", `outcome="refuted"`), c.metric("planck_verify_seconds_count", ""); proven < 2 || refuted < 2 || took < 4 {
		t.Errorf("counted as proven %v, as refuted %v, of %v that took their time", proven, refuted, took)
	}
}
