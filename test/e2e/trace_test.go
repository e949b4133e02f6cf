package e2e

import (
	"net/url"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sync/errgroup"

	"planck/test/lab"
)

// way is what planck trace says.
type way struct {
	Verdict, Summary string
	Hops             []struct{ Host, Bridge, Via string }
}

func (w way) arrives() bool {
	return w.Verdict == "delivered" || w.Verdict == "answered" || w.Verdict == "outside"
}

func (c *cloud) trace(from, to, installed string) (w way) {
	c.Helper()
	c.operator("trace", url.Values{"from": {from}, "to": {to}, "installed": {installed}}, &w)
	return w
}

// Two tenants with the same addresses, security groups that let in all, some or
// nothing, a router, SNAT and floating IPs: whoever pings whom, planck trace said
// whether it arrives, by the flows that the model wants and by those installed.
func TestTraceSaysWhatPacketsDo(t *testing.T) {
	t.Parallel()
	c := newCloud(t, 2, nil, physicalNetwork)
	c.hostsUp()
	public := c.outside()
	anyTraffic := c.anyTraffic()
	some := object{"security_groups": []any{c.group("", "web", object{"protocol": "tcp", "port_range_min": 80, "port_range_max": 80})}}
	blue, green, other := c.network("blue", "10.0.0.0/24", nil), c.network("green", "10.0.1.0/24", nil), c.network("other", "10.0.0.0/24", nil)
	vms := []*vm{
		c.boot("a", "host1", blue, anyTraffic), c.boot("b", "host2", blue, anyTraffic), c.boot("c", "host1", blue, some),
		c.boot("d", "host2", green, anyTraffic), c.boot("e", "host1", green, object{"security_groups": []any{}}),
		c.boot("x", "host2", other, anyTraffic),
	}
	c.setGateway(c.router("blue", blue, green), public, nil)
	for _, v := range vms {
		c.dhcp(v)
	}
	_, floatingB := c.floatingIP(public, vms[1])
	_, floatingC := c.floatingIP(public, vms[2])
	ext := c.lab.Ext()
	c.comesThrough(vms[0].Node, "203.0.113.1") // its MAC is known from now on
	c.comesThrough(ext, floatingB)
	c.settled()

	// Some addresses are of several VMs, some of nobody.
	targets := []string{"10.0.0.1", "10.0.1.1", "10.0.0.77", "198.51.100.1", "203.0.113.1", "203.0.113.77", floatingB, floatingC}
	for _, v := range vms {
		targets = append(targets, v.ip())
	}
	var arrived, pairs atomic.Int32
	ping := func(from *lab.Node, name, own string) func() error {
		return func() error {
			for _, to := range targets {
				if to == own {
					continue
				}
				said := c.trace(name, to, "")
				if now := c.trace(name, to, "1"); now.Verdict != said.Verdict || now.Summary != said.Summary {
					c.Errorf("%s to %s: by what the model wants %q, by what is installed %q", name, to, said.Summary, now.Summary)
				}
				_, received, err := from.Ping(c.Context(), to, 3, "-i", "0.2")
				if got := received > 0; got != said.arrives() {
					c.Errorf("%s to %s: ping says %t (%v), planck trace %q", name, to, got, err, said.Summary)
				}
				pairs.Add(1)
				if said.arrives() {
					arrived.Add(1)
				}
			}
			return nil
		}
	}
	var all errgroup.Group
	for _, v := range vms {
		all.Go(ping(v.Node, v.id(), v.ip()))
	}
	if err := all.Wait(); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d of %d pairs", arrived.Load(), pairs.Load())

	for _, fromOutside := range []struct{ to, verdict string }{{floatingB, "delivered"}, {floatingC, "dropped"}} {
		if w := c.trace("203.0.113.1", fromOutside.to, ""); w.Verdict != fromOutside.verdict {
			t.Errorf("from outside to %s: %s", fromOutside.to, w.Summary)
		}
	}
	c.tracesInWords(vms)
}

func (c *cloud) tracesInWords(vms []*vm) {
	c.Helper()
	for _, row := range []struct {
		args []string
		want []string
	}{
		{[]string{"--from", "a", "--to", "d", "--proto", "tcp", "--dport", "22"}, []string{
			"tcp/22 from " + vms[0].ip() + " to " + vms[3].ip(), "delivered to port d on host host2", "host1 br-int, from the machine", "host2 br-tun, through the tunnel from host1",
			" Route ", "router of router blue-router, its address 10.0.0.1", "IngressRules", "security-group",
		}},
		{[]string{"--from", "a", "--to", "c", "--proto", "tcp", "--dport", "8080"}, []string{
			"dropped on host host1 by security group web of port c: no rule allows tcp/8080 from " + vms[0].ip() + " in",
		}},
		{[]string{"--from", "b", "--to", "c", "--proto", "tcp", "--dport", "80"}, []string{"delivered to port c on host host1"}},
		{[]string{"--from", "e", "--to", "a"}, []string{"dropped on host host1 by port e, which has no security group: no rule allows icmp type 8"}},
		{[]string{"--from", "a", "--to", "198.51.100.1"}, []string{"leaves host ", "br-ex to the physical network physnet1, as 203.0.113."}},
		{[]string{"--from", "x", "--to", "198.51.100.1"}, []string{"lost: nobody on network ", "has the address 10.0.0.1"}},
		{[]string{"--from", "a", "--to", "10.0.0.77"}, []string{"lost: nobody on network blue-net has the address 10.0.0.77"}},
		{[]string{"--from", "a", "--to", "10.0.1.77"}, []string{"dropped on host host1 in Neighbor: no port of the network has the next hop's address"}},
		{[]string{"--from", "a", "--to", "203.0.113.77"}, []string{"lost: nobody is known to have 203.0.113.77 on the external network "}},
		{[]string{"--from", "b", "--to", "x"}, []string{"to this sender " + vms[0].ip() + " is port a, and not port x of network other-net"}},
		{[]string{"--from", "a", "--to", "10.0.0.255", "--proto", "udp", "--dport", "9"}, []string{"delivered to port b on host host2"}},
		{[]string{"--from", "a", "--to", vms[0].ip()}, []string{"is the sender's own address"}},
		{[]string{"--from", "a", "--to", "127.0.0.1"}, []string{"leads to no other machine"}},
		{[]string{"--from", "a", "--to", "b", "--size", "9000"}, []string{"9000 bytes are more than the MTU of network blue-net"}},
		{[]string{"--from", "a", "--to", "b", "--dport", "300"}, []string{"ICMP has no type 300"}},
		{[]string{"--from", "a", "--to", "b", "--dport", "99999"}, []string{`invalid argument "99999" for "--dport" flag: value out of range`}},
	} {
		out, _ := c.planckError(append([]string{"trace"}, row.args...)...)
		for _, want := range row.want {
			if !strings.Contains(out, want) {
				c.Errorf("planck trace %s has no %q:\n%s", strings.Join(row.args, " "), want, out)
			}
		}
	}
	for _, wrong := range [][]string{{}, {"--from", "a"}, {"--from", "a", "--to", "pigeon"}, {"--from", "a", "--to", "b", "--proto", "tcp"}, {"--from", "a", "--to", "b", "--proto", "pigeon"}} {
		if out, err := c.planckError(append([]string{"trace"}, wrong...)...); err == nil || !strings.Contains(out, "planck: ") {
			c.Errorf("planck trace %v: %v: %q", wrong, err, out)
		}
	}
}
