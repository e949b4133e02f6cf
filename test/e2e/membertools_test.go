package e2e

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"planck/test/lab"
	"planck/test/pg"
)

// counted is what differs from one answer to the next.
var counted = regexp.MustCompile(`n_packets=\d+|n_bytes=\d+|age \S+|\d+ packets|in the last \S+|\+\d+( busy)?`)

// agree waits until all running members give the same answer to a question of the
// command line, but for counters: with an exit code, and all of some texts.
func (m members) agree(code string, args []string, texts ...string) {
	first := m.any()
	first.Helper()
	what := "planck " + strings.Join(args, " ")
	first.eventually(what+" is answered the same by all members", func() error {
		running := m.running()
		names := slices.Sorted(maps.Keys(running))
		said := make([]string, len(names))
		codes := make([]string, len(names))
		var asking sync.WaitGroup
		for i, name := range names {
			asking.Go(func() {
				out, err := running[name].planckError(args...)
				said[i], codes[i] = out, fmt.Sprint(err)
			})
		}
		asking.Wait()
		answers := map[string]string{}
		for i, name := range names {
			if codes[i] != code {
				return fmt.Errorf("at %s it ends with %q, not %q:\n%s", name, codes[i], code, said[i])
			}
			for _, text := range texts {
				if !strings.Contains(said[i], text) {
					return fmt.Errorf("%s does not say %q:\n%s", name, text, said[i])
				}
			}
			answers[counted.ReplaceAllString(said[i], "…")] += " " + name
		}
		if len(answers) != 1 {
			return fmt.Errorf("members differ: %q", answers)
		}
		return nil
	})
}

// each waits until all running members say some texts, one after the other: the
// packets of one ping are other traffic for the next.
func (m members) each(args []string, texts ...string) {
	m.any().Helper()
	for name, c := range m.running() {
		c.eventually(fmt.Sprintf("planck %v at %s", args, name), func() error {
			out, err := c.planckError(args...)
			for _, text := range texts {
				if err == nil && !strings.Contains(out, text) {
					err = fmt.Errorf("it does not say %q", text)
				}
			}
			if err != nil {
				return fmt.Errorf("%w:\n%s", err, out)
			}
			return nil
		})
	}
}

// anyMember is a cluster of three: host1 is programmed by the first member, host3 by
// the third one, and the second one has none of the two.
type anyMember struct {
	members
	address []string
	a, d    *vm
	blue    string
	request string // that let tcp/8080 in to b
	float   string
}

func newAnyMember(t *testing.T) *anyMember {
	t.Helper()
	l := lab.ForTest(t, lab.Options{Hosts: 3})
	x := &anyMember{}
	x.members, x.address = newMembersApart(t, l, slices.Repeat([]string{pg.Start(t)}, 3), physicalNetwork+"[openflow]\naudit_interval = 3600\n")
	x.meet()
	if a, b := x.ownerOf("host1"), x.ownerOf("host3"); a != x.members[0] || b != x.members[2] {
		t.Fatal("the owners of host1 and host3 are others than this story tells")
	}
	c := x.members[1]
	public := c.outside()
	x.blue = c.network("blue", "10.0.0.0/24", nil)
	green := c.network("green", "10.0.1.0/24", nil)
	c.setGateway(c.router("blue", x.blue, green), public, nil)
	web := object{"security_groups": []any{c.group("", "web", object{"protocol": "tcp", "port_range_min": 80, "port_range_max": 80})}}
	b := c.boot("b", "host3", green, object{"tenant_id": "green"})
	x.a, x.d = c.boot("a", "host1", x.blue, c.anyTraffic()), c.boot("d", "host3", x.blue, web)
	for _, v := range []*vm{x.a, b, x.d} {
		c.dhcp(v)
	}
	_, x.float = c.floatingIP(public, b)
	x.request = c.addRule("green", 8080)
	// A router whose way out does not answer: only who asked it knows.
	beyond := c.create("network", object{
		"name": "beyond", "router:external": true, "provider:network_type": "vlan", "provider:physical_network": "physnet1", "provider:segmentation_id": 150,
	})["id"].(string)
	c.create("subnet", object{"network_id": beyond, "cidr": "192.0.2.0/24", "ip_version": 4, "enable_dhcp": false})
	c.setGateway(c.create("router", object{"name": "edge"})["id"].(string), beyond, nil)
	c.comesThrough(x.a.Node, "203.0.113.1")
	return x
}

// reading checks all that reads switches.
func (x *anyMember) reading() {
	x.any().Helper()
	x.agree("<nil>", []string{"trace", "--from", "a", "--to", "b", "--proto", "tcp", "--dport", "8080", "--installed"}, "delivered to port b on host host3")
	x.agree("exit status 1", []string{"trace", "--from", "a", "--to", "d", "--installed"}, "dropped on host host3 by security group web of port d")
	x.agree("<nil>", []string{"flows", "host3", "br-int"}, "classify of port d")
	x.agree("<nil>", []string{"flows", "--port", "d"}, "host host3", "classify of port d")
	x.agree("<nil>", []string{"flows", "--network", "blue-net"}, "host host1", "host host3")
	x.agree("<nil>", []string{"diff", "host1"})
	x.agree("<nil>", []string{"diff", "host3"})
	x.agree("<nil>", []string{"verify"}, "proven: 3 hosts, ")
}

// TestToolsAnswerAtAnyMember asks each of the operator's tools at each member about
// hosts of several: the answers are right, whole and the same.
func TestToolsAnswerAtAnyMember(t *testing.T) {
	t.Parallel()
	x := newAnyMember(t)
	c := x.members[1]
	x.agree("<nil>", []string{"explain", "a"}, "port a", "bound to host1", "nothing is wrong with it")
	x.agree("<nil>", []string{"explain", "router", "edge"}, "192.0.2.1, by which router edge", "does not answer questions for its MAC")
	x.agree("<nil>", []string{"explain", "host", "host3"}, "host3 is live")
	x.agree("<nil>", []string{"trace", "--from", "a", "--to", "b", "--proto", "tcp", "--dport", "8080"}, "delivered to port b on host host3")
	x.reading()
	x.each([]string{"ping", "a", "b", "--proto", "tcp", "--dport", "8080"}, "counted on the whole way: delivered to port b on host host3")
	x.each([]string{"ping", "d", "a"}, "host3 br-int, from the machine: counted", "counted on the whole way: delivered to port a on host host1")
	x.changesAnywhere()

	// What a switch refuses its owner alone knows.
	limit := strings.Count(c.ofctl("host3", "dump-flows", "br-int", "table=60"), "actions=")
	c.vsctl("host3", "--", "--id=@full", "create", "Flow_Table", fmt.Sprint("flow_limit=", limit), "overflow_policy=refuse", "--", "set", "Bridge", "br-int", "flow_tables:60=@full")
	late := c.plug("late", "host3", c.create("port", c.portBody("late", x.blue, object{"binding:host_id": "host3"})))
	c.waitStatus(late.id(), "ERROR")
	x.agree("<nil>", []string{"explain", "late"}, "port late", "is ERROR", "host host3 refuses flows that it needs: br-int L2Lookup")
	x.agree("<nil>", []string{"explain", "host", "host3"}, "its switch refuses flows that ports ", "late")
	fip := c.create("floatingip", object{"floating_network_id": c.list("networks", "name=public")[0]["id"], "port_id": late.id()})["floating_ip_address"].(string)
	x.agree("<nil>", []string{"explain", fip}, "floatingip", "port late: host host3 refuses flows that it needs: br-int L2Lookup")
	c.vsctl("host3", "clear", "Bridge", "br-int", "flow_tables")
	c.delete("floatingip", c.list("floatingips", "floating_ip_address="+fip)[0]["id"].(string))
	if err := late.Unplug(); err != nil {
		t.Fatal(err)
	}
	c.delete("port", late.id())
	x.blind()
	x.oneStops()
}

// changesAnywhere asks for changes of hosts of two members.
func (x *anyMember) changesAnywhere() {
	c := x.members[1]
	c.Helper()
	x.agree("<nil>", []string{"changes", "--request", x.request}, "create_security_group_rule", "+ host3 br-int")
	x.agree("<nil>", []string{"changes", "--request", x.request, "-o", "json"}, `"silent": []`)
	x.agree("<nil>", []string{"changes", "--host", "host1", "-n", "5"}, " host1 br-int")
	x.agree("<nil>", []string{"changes", "--network", "blue-net", "-n", "100", "--flows", "1000"}, " host1 br-int", " host3 br-int")
	// All pages together are all there is, in order, whoever is asked.
	all, err := c.changes("-n", "1000")
	if err != nil {
		c.Fatal(err)
	}
	var pages []toldChange
	for i, before := 0, ""; ; i++ {
		args := []string{"-n", "7"}
		if before != "" {
			args = append(args, "--before", before)
		}
		page, next, err := x.members[i%3].changesPage(args...)
		if err != nil {
			c.Fatal(err)
		}
		if pages = append(pages, page...); next == "" {
			break
		}
		before = next
	}
	if len(pages) != len(all) {
		c.Fatalf("%d changes on pages, %d at once", len(pages), len(all))
	}
	for i := range all {
		if all[i].Position != pages[i].Position || len(all[i].Flows) != len(pages[i].Flows) {
			c.Errorf("change %d: %s with %d flows at once, %s with %d on a page", i, all[i].Position, len(all[i].Flows), pages[i].Position, len(pages[i].Flows))
		}
	}
}

// blind cuts a member off from a switch that another one programs: the answers stay whole.
func (x *anyMember) blind() {
	c := x.members[1]
	c.Helper()
	if err := c.lab.Host("host3").Cut(x.address[1]); err != nil {
		c.Fatal(err)
	}
	c.eventually("a member does not hear a switch", func() error {
		if out := c.planck("hosts"); !strings.Contains(out, "away, live at member3") {
			return fmt.Errorf("planck hosts:\n%s", out)
		}
		return nil
	})
	x.reading()
	_, _, _ = x.a.Ping(c.Context(), x.d.ip(), 1, "-W", "1") // its group lets none in
	x.each([]string{"explain", "d"}, "port d", "is ACTIVE", "security group web dropped")
	if err := c.lab.Host("host3").Mend(x.address[1]); err != nil {
		c.Fatal(err)
	}
	x.whole()
}

// oneStops stops a member with hosts, then kills it: the others say at once what
// they do not know, and answer for it when they have its hosts.
func (x *anyMember) oneStops() {
	victim := x.members[2]
	victim.Helper()
	if err := victim.process.Process.Signal(syscall.SIGSTOP); err != nil {
		victim.Fatal(err)
	}
	for _, c := range x.members[:2] {
		for _, args := range [][]string{{"changes"}, {"explain", "b"}, {"explain", "host", "host3"}, {"hosts"}, {"ping", "d", "10.0.0.1"}} {
			begin := time.Now()
			out, err := c.planckError(args...)
			took := time.Since(begin)
			c.Logf("planck %s while a member is stopped: %v", args[0], took.Round(10*time.Millisecond))
			if took > promptly || err != nil && args[0] != "ping" {
				c.Errorf("planck %v takes %v, %v:\n%s", args, took, err, out)
			}
			if args[0] == "changes" && !strings.Contains(out, "flow changes may be missing: member member3 ("+strings.TrimPrefix(victim.api, "http://")+") could not be asked") {
				c.Errorf("planck changes does not say that a member was not asked:\n%s", out)
			}
		}
	}
	victim.kill(syscall.SIGKILL)
	x.whole()
	x.agree("<nil>", []string{"changes", "-n", "3"}, "flow changes may be missing: member member3", "it is dead")
	x.agree("<nil>", []string{"explain", "b"}, "port b", "nothing is wrong with it")
	x.agree("<nil>", []string{"diff", "host3"})
	files := unpack(victim.T, x.any().bundle())
	for name, want := range map[string]string{"members/member2/log.txt": "level=INFO", "members/member2/changes.json": `"changes"`, "lacks.txt": "member member3 ("} {
		if !strings.Contains(files[name], want) {
			victim.Errorf("%s of the bundle has no %q:\n%.2000s", name, want, files[name])
		}
	}
}
