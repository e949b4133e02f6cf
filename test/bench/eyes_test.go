package bench

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os/exec"
	"regexp"
	"strconv"
	"testing"
	"time"
)

// BenchmarkEyes measures the tools of whoever is on call on a host whose br-int
// has 20,000 flows, beside those of Open vSwitch.
func BenchmarkEyes(b *testing.B) {
	t := newTable("eyes")
	c := newLabCloud(b, 2, unlimited+"[QUOTAS]\nquota_security_group_rule = -1\n")
	blue := c.network("10.0.0.0/16", nil)
	from := c.boot("from", "host1", blue)
	group := c.mustCreate("security_group", object{"name": "wide"})
	to := c.bootWith("to", "host1", blue, object{"security_groups": []string{group}})
	const rules = 20_000
	c.rules(group, rules)
	h := c.lab.Host("host1")
	c.eventually("the host has the flows of all rules", func() error {
		if n := c.flowsOf("host1"); n < rules {
			return fmt.Errorf("%d flows", n)
		}
		return nil
	})
	size := count(c.flowsOf("host1")) + " flows"

	dump := fastestOf(3, func() { c.must(h.Ofctl("dump-flows", "br-int")) })
	explained := fastestOf(3, func() { c.planck("flows", "host1", "br-int") })
	t.add(row{
		what: size + " of a br-int: `planck flows`, with what each stands for", ours: ms(explained),
		peer: ms(dump) + " (`ovs-ofctl dump-flows`)", ratio: times(explained.Seconds() / dump.Seconds()), aim: "≤ 2×",
	}, row{
		what: size + ": `planck diff` of the host", ours: ms(fastestOf(3, func() { c.planck("diff", "host1") })),
		peer: ms(dump) + " (`ovs-ofctl dump-flows` alone)",
	})

	port := regexp.MustCompile(`\d+`).FindString(c.must(h.Vsctl("get", "Interface", from.Tap(), "ofport")))
	packet := fmt.Sprintf("in_port=%s,tcp,dl_src=%s,dl_dst=%s,nw_src=%s,nw_dst=%s,nw_ttl=64,tp_src=49152,tp_dst=9999", port, from.mac, to.mac, from.ip, to.ip)
	ofproto := fastestOf(10, func() {
		c.must(h.Appctl("ofproto/trace", "br-int", packet, "--ct-next", "trk,new", "--ct-next", "trk,new"))
	})
	trace := func(more ...string) time.Duration {
		args := append([]string{"trace", "--from", "from", "--to", "to", "--proto", "tcp", "--dport", "9999"}, more...)
		return fastestOf(10, func() { c.planck(args...) })
	}
	t.add(row{
		what: size + ": `planck trace` by the model's flows / by the installed ones", ours: ms(trace()) + " / " + ms(trace("--installed")),
		peer: ms(ofproto) + " (`ofproto/trace`)",
	})
	verify := fastestOf(1, func() { c.planck("verify") })
	t.add(row{what: size + ": `planck verify`, all packets of both hosts", ours: ms(verify), peer: ms(ofproto) + " (`ofproto/trace`, one packet)"})
}

// fastestOf is the least time that something takes.
func fastestOf(n int, do func()) (best time.Duration) {
	for range n {
		begin := time.Now()
		do()
		if took := time.Since(begin); best == 0 || took < best {
			best = took
		}
	}
	return best
}

// planck runs a command of the program, which may find something.
func (c *labCloud) planck(args ...string) {
	c.Helper()
	out, err := exec.Command(program(c.TB), append(args, "--url", "http://"+c.api)...).CombinedOutput()
	if e, found := err.(*exec.ExitError); err != nil && (!found || e.ExitCode() > 1) {
		c.Fatalf("planck %v: %v\n%s", args, err, out)
	}
}

// rules adds rules for one TCP port each to a group.
func (c *labCloud) rules(group string, n int) {
	c.Helper()
	const bulk = 500
	for first := 0; first < n; first += bulk {
		var rules []object
		for port := first + 1; port <= min(first+bulk, n); port++ {
			rules = append(rules, object{
				"security_group_id": group, "direction": "ingress", "ethertype": "IPv4", "protocol": "tcp",
				"port_range_min": 10_000 + port, "port_range_max": 10_000 + port,
			})
		}
		body, err := json.Marshal(object{"security_group_rules": rules})
		if err != nil {
			c.Fatal(err)
		}
		status, answer, err := c.request(http.MethodPost, "/v2.0/security-group-rules", body)
		if err != nil || status != http.StatusCreated {
			c.Fatalf("%d rules: %d %.200s %v", len(rules), status, answer, err)
		}
	}
}

var flowCount = regexp.MustCompile(`flow_count=(\d+)`)

// flowsOf is how many flows the br-int of a host has.
func (c *labCloud) flowsOf(host string) int {
	c.Helper()
	n, err := strconv.Atoi(flowCount.FindStringSubmatch(c.must(c.lab.Host(host).Ofctl("dump-aggregate", "br-int")))[1])
	if err != nil {
		c.Fatal(err)
	}
	return n
}
