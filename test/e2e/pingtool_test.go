package e2e

import (
	"fmt"
	"strings"
	"testing"

	"planck/test/lab"
)

// A link between hosts whose MTU is less than the network needs loses large packets
// only: planck ping says where, and what passes.
func TestPingFindsTheNarrowLink(t *testing.T) {
	t.Parallel()
	c := newCloud(t, 2, nil, "[openflow]\naudit_interval = 3600\n")
	c.hostsUp()
	blue := c.network("blue", "10.0.0.0/24", nil)
	a, b := c.boot("a", "host1", blue, c.anyTraffic()), c.boot("b", "host2", blue, c.anyTraffic())
	for _, v := range []*vm{a, b} {
		c.dhcp(v)
	}
	c.reaches(a.Node, b.ip())
	c.settled()
	c.pings("<nil>", []string{"a", "b", "--size", "1458"}, "3 packets, counted on the whole way: delivered to port b on host host2")
	c.ip(c.lab.Host("host2").Node, "link", "set", lab.Underlay, "mtu", "1400")
	out := c.pings("exit status 1", []string{"a", "b", "--size", "1458"}, "packets of 1458 bytes are lost between host host1 and host host2, those of 13", "give all links between them a larger MTU")
	// 42 bytes are around a packet in a tunnel; the kernel lets four more in, for a VLAN.
	passes := 0
	if _, after, ok := strings.Cut(out, "those of "); ok {
		fmt.Sscan(after, &passes)
	}
	if passes < 1358 || passes > 1362 {
		t.Errorf("packets of %d bytes pass a link with an MTU of 1400:\n%s", passes, out)
	}
	c.pings("<nil>", []string{"a", "b", "--size", fmt.Sprint(passes)}, "delivered to port b on host host2")
	for _, wrong := range []string{"1459", "27", "65536"} {
		if out, err := c.planckError("ping", "a", "b", "--size", wrong); fmt.Sprint(err) != "exit status 2" {
			t.Errorf("planck ping --size %s: %v: %q", wrong, err, out)
		}
	}
}

// pings runs planck ping until it ends with a code and says all of some texts: VMs
// send now and then on their own, and then not all can be told.
func (c *cloud) pings(code string, args []string, texts ...string) (out string) {
	c.Helper()
	c.eventually("planck ping "+strings.Join(args, " "), func() (err error) {
		out, err = c.planckError(append([]string{"ping"}, args...)...)
		if got := fmt.Sprint(err); got != code {
			return fmt.Errorf("it ends with %q, not %q:\n%s", got, code, out)
		}
		for _, text := range texts {
			if !strings.Contains(out, text) {
				return fmt.Errorf("it does not say %q:\n%s", text, out)
			}
		}
		return nil
	})
	return out
}

// planck ping really sends packets: machines that may get them do, and answer; what
// a group forbids, it names; what leaves is counted on all hosts on the way; and a
// host that loses them is named.
func TestPingTellsWherePacketsGotTo(t *testing.T) {
	t.Parallel()
	c := newCloud(t, 2, nil, physicalNetwork+"[openflow]\naudit_interval = 3600\n")
	c.hostsUp()
	public, anyTraffic := c.outside(), c.anyTraffic()
	web := object{"security_groups": []any{c.group("", "web", object{"protocol": "tcp", "port_range_min": 80, "port_range_max": 80})}}
	blue, green := c.network("blue", "10.0.0.0/24", nil), c.network("green", "10.0.1.0/24", nil)
	a, b, d := c.boot("a", "host1", blue, anyTraffic), c.boot("b", "host2", green, anyTraffic), c.boot("d", "host2", blue, web)
	c.setGateway(c.router("blue", blue, green), public, nil)
	for _, v := range []*vm{a, b, d} {
		c.dhcp(v)
	}
	c.reaches(a.Node, b.ip())
	c.comesThrough(a.Node, "203.0.113.1")
	c.settled()

	c.pings("<nil>", []string{"a", "b"}, "3 packets, counted on the whole way: delivered to port b on host host2", "answered: something came back to the sender's port",
		"host1 br-int, from the machine: counted", "host1 br-tun, from br-int: counted", "host2 br-tun, through the tunnel from host1: counted", "host2 br-int, from br-tun: counted", "Route          +3")
	c.pings("<nil>", []string{"a", "d", "--proto", "tcp", "--dport", "80", "--count", "2"}, "2 packets, counted on the whole way: delivered to port d on host host2", "answered")
	c.pings("exit status 1", []string{"a", "d"}, "dropped on host host2 by security group web of port d: no rule allows icmp type 8", "counted on the whole way", "Dropped        +3")
	c.pings("<nil>", []string{"a", "203.0.113.1"}, "leaves host ", "to the physical network physnet1", "answered")
	c.pings("<nil>", []string{"a", "10.0.0.1"}, "answered on host host1")

	capture := c.capture(b.Node, "eth0", "udp port 5555")
	c.pings("<nil>", []string{"a", b.ip(), "--proto", "udp", "--dport", "5555", "--count", "1"}, "delivered to port b")
	if err := capture.WaitFor(c.within(settle), ".5555"); err != nil {
		t.Errorf("no packet came: %v", err)
	}
	c.captured(capture)

	// The link between the hosts loses all: the flows are right, the packets are not there.
	if err := c.lab.Host("host2").LinkDown(lab.Underlay); err != nil {
		t.Fatal(err)
	}
	c.pings("exit status 1", []string{"a", "d", "--proto", "tcp", "--dport", "80"}, "the flows of host2 br-tun do not show that they came there", "host1 br-tun, from br-int: counted")

	if delivered, unseen, took := c.metric("planck_ping_total", `outcome="delivered"`), c.metric("planck_ping_total", `outcome="unseen"`), c.metric("planck_ping_seconds_count", ""); delivered < 3 || unseen < 1 || took < 7 {
		t.Errorf("counted as delivered %v, as unseen %v, of %v that took their time", delivered, unseen, took)
	}

	for _, wrong := range [][]string{{"a", "pigeon"}, {"203.0.113.1", "a"}, {"a", "b", "--proto", "tcp"}, {"a", "b", "--count", "21"}, {"a", "b", "--proto", "sctp", "--dport", "1"}} {
		if out, err := c.planckError(append([]string{"ping"}, wrong...)...); fmt.Sprint(err) != "exit status 2" || !strings.Contains(out, "planck: ") {
			t.Errorf("planck ping %v: %v: %q", wrong, err, out)
		}
	}
}
