package pipeline

import (
	"fmt"
	"net/netip"
	"testing"

	"planck/network"
)

// group makes a security group without rules of its own.
func (w *world) group(id string) {
	w.Helper()
	w.makeGroup(&network.SecurityGroup{Standard: network.Standard{ID: id, Name: id}})
}

func (w *world) statelessGroup(id string) {
	w.Helper()
	w.makeGroup(&network.SecurityGroup{Standard: network.Standard{ID: id, Name: id}, Stateless: true})
}

func (w *world) makeGroup(g *network.SecurityGroup) {
	w.Helper()
	w.do(func(tx *network.Tx) error {
		if err := tx.CreateSecurityGroup(g); err != nil {
			return err
		}
		for r := range tx.RulesOf(g.ID) {
			if err := tx.DeleteSecurityGroupRule(r.ID); err != nil {
				return err
			}
		}
		return nil
	})
}

// rule adds a rule for what comes in over IPv4, unless change says otherwise.
func (w *world) rule(id, group string, change func(r *network.SecurityGroupRule)) Outcome {
	w.Helper()
	r := &network.SecurityGroupRule{
		Standard: network.Standard{ID: id}, GroupID: group, Direction: network.Ingress, Ethertype: network.IPv4,
		PortMin: network.NoPort, PortMax: network.NoPort,
	}
	change(r)
	return w.do(func(tx *network.Tx) error { return tx.CreateSecurityGroupRule(r) })
}

func tcp(low, high int) func(*network.SecurityGroupRule) {
	return func(r *network.SecurityGroupRule) { r.Protocol, r.PortMin, r.PortMax = "tcp", low, high }
}

func from(group string) func(*network.SecurityGroupRule) {
	return func(r *network.SecurityGroupRule) { r.RemoteGroupID = group }
}

func grouped(p *network.Port, groups ...string) *network.Port {
	p.SecurityGroups = groups
	return p
}

// tellSecurityGroups: web servers are reached from anywhere on two ports, and
// reach databases, which nobody else does.
func tellSecurityGroups(w *world) {
	w.hosts(2)
	w.network(&network.Network{Standard: network.Standard{ID: "blue"}, NetworkType: "gre", SegmentationID: 5}, "10.0.0.0/24")
	w.group("web")
	w.group("db")
	w.rule("http", "web", tcp(80, 81))
	w.rule("ping", "web", func(r *network.SecurityGroupRule) { r.Protocol, r.PortMin = "icmp", 8 })
	w.rule("ssh", "web", func(r *network.SecurityGroupRule) {
		tcp(22, 22)(r)
		r.RemotePrefix = netip.MustParsePrefix("192.0.2.0/24")
	})
	w.rule("out", "web", func(r *network.SecurityGroupRule) { r.Direction, r.RemoteGroupID = network.Egress, "db" })
	w.rule("out6", "web", func(r *network.SecurityGroupRule) { r.Direction, r.Ethertype = network.Egress, network.IPv6 })
	w.rule("sql", "db", func(r *network.SecurityGroupRule) { tcp(5432, 5432)(r); from("web")(r) })
	web := grouped(newPort("a", "blue", "fa:16:3e:00:00:0a", "10.0.0.10"), "web")
	web.AllowedAddressPairs = []network.AddressPair{{IP: netip.MustParsePrefix("10.0.0.99/32")}}
	w.port(web, "host1")
	w.port(grouped(newPort("b", "blue", "fa:16:3e:00:00:0b", "10.0.0.11"), "db"), "host2")
	w.port(newPort("c", "blue", "fa:16:3e:00:00:0c", "10.0.0.12"), "host2")
}

// tellStatelessGroup: a name server whose questions and answers are judged one
// by one; on a second one conntrack sees what is no question.
func tellStatelessGroup(w *world) {
	w.hosts(1)
	w.network(&network.Network{Standard: network.Standard{ID: "blue"}, NetworkType: "gre", SegmentationID: 5}, "10.0.0.0/24")
	w.statelessGroup("dns")
	w.group("web")
	w.rule("question", "dns", func(r *network.SecurityGroupRule) { r.Protocol, r.PortMin, r.PortMax = "udp", 53, 53; from("web")(r) })
	w.rule("answer", "dns", func(r *network.SecurityGroupRule) { r.Direction, r.Protocol = network.Egress, "udp" })
	w.rule("ping", "dns", func(r *network.SecurityGroupRule) { r.Protocol, r.PortMin = "icmp", 8 })
	w.rule("http", "web", tcp(80, 80))
	w.port(grouped(newPort("a", "blue", "fa:16:3e:00:00:0a", "10.0.0.10"), "dns"), "host1")
	w.port(grouped(newPort("b", "blue", "fa:16:3e:00:00:0b", "10.0.0.11"), "dns", "web"), "host1")
}

// Flows grow with groups × their rules + members, and a member costs the same in
// a group of any size.
func TestCostOfSecurityGroupsIsMembersPlusRules(t *testing.T) {
	one, many := groupCost(t, 1, 1, 1), groupCost(t, 1, 1000, 1)
	rules, groups := groupCost(t, 1, 1000, 20), groupCost(t, 5, 1000, 20)
	t.Logf("G groups, M members, R rules: 1, 1, 1: %+v; 1, 1000, 1: %+v; 1, 1000, 20: %+v; 5, 1000, 20: %+v", one, many, rules, groups)
	for _, c := range []struct {
		what      string
		got, want int
	}{
		{"1,000 members", many.flows, one.flows + 999},
		{"1,000 members, 20 rules", rules.flows, one.flows + 999 + 19},
		{"1,000 members, 5 groups of 20 rules", groups.flows, one.flows + 999 + 5*20 - 1 + 4*2},
		{"one member more, in a group of 1", one.member, 1},
		{"one member more, in a group of 1,000", many.member, 1},
		{"one member more, with 100 rules", groups.member, 1},
		{"one rule more, with 1 member", one.rule, 1},
		{"one rule more, with 1,000 members", groups.rule, 1},
	} {
		if c.got != c.want {
			t.Errorf("%s: %d flows, want %d; a member and a rule: %+v", c.what, c.got, c.want, one)
		}
	}
}

// A VM is made in two steps, the port and its plug: nobody is sent anything for
// the first, in which it can't talk yet.
func TestBoundPortCostsNothingUntilItIsPlugged(t *testing.T) {
	w := newWorld(t, Options{})
	tellSecurityGroups(w)
	w.rule("among-web", "web", from("web"))
	w.port(grouped(newPort("first", "blue", "fa:16:3e:00:00:f1", "10.0.0.101"), "web"), "host1")
	w.port(grouped(newPort("other", "blue", "fa:16:3e:00:00:f0", "10.0.0.100"), "web"), "host2")
	bound := grouped(newPort("second", "blue", "fa:16:3e:00:00:f2", "10.0.0.102"), "web")
	bound.Binding.Host = "host2"
	create := func(p *network.Port) Outcome {
		return w.do(func(tx *network.Tx) error { return tx.CreatePort(p) })
	}
	if n := w.sent(create(bound), Target{"host1", "br-int"}); n != 0 {
		t.Errorf("%d flows are sent for a port that is not plugged yet", n)
	}
	if w.sent(w.plug("host2", bound.ID), Target{"host1", "br-int"}) == 0 {
		t.Error("its plug changes nothing on the other host")
	}
	unbound := grouped(newPort("third", "blue", "fa:16:3e:00:00:f3", "10.0.0.103"), "web")
	if w.sent(create(unbound), Target{"host1", "br-int"}) == 0 {
		t.Error("an address that is bound to no host, which others may hold, is no member")
	}
}

// sent is how many flows of a bridge an outcome adds or changes.
func (w *world) sent(out Outcome, target Target) (n int) {
	w.compiler.Read(target, func(s State) {
		for key := range out.Dirty[target].Flows {
			if s.Desired.Flows[key] != nil {
				n++
			}
		}
	})
	return n
}

// flowCost is how many flows a host has for security groups, and how many are
// sent to it for one member and one rule more.
type flowCost struct{ flows, member, rule int }

// groupCost is that of a host with one port that has some groups of some rules
// each, which name one group of some members.
func groupCost(t *testing.T, groups, members, rules int) flowCost {
	t.Helper()
	w := newWorld(t, Options{})
	w.hosts(2)
	w.network(&network.Network{Standard: network.Standard{ID: "blue"}, NetworkType: "gre", SegmentationID: 5}, "10.0.0.0/16")
	var all []string
	for i := range groups {
		g := fmt.Sprint("g", i)
		w.group(g)
		all = append(all, g)
		for j := range rules {
			w.rule(fmt.Sprint(g, "r", j), g, func(r *network.SecurityGroupRule) { tcp(100+j, 100+j)(r); from("g0")(r) })
		}
	}
	at := func(i int) *network.Port {
		return grouped(newPort(fmt.Sprint("p", i), "blue", fmt.Sprintf("fa:16:3e:00:%02x:%02x", i>>8, i&255), fmt.Sprintf("10.0.%d.%d", 1+i>>8, i&255)), "g0")
	}
	w.do(func(tx *network.Tx) error {
		for i := range members {
			if err := tx.CreatePort(at(i)); err != nil {
				return err
			}
		}
		p := tx.Port("p0").Clone()
		p.SecurityGroups = all
		return tx.UpdatePort(p)
	})
	w.plug("host1", "p0")
	target := Target{"host1", "br-int"}
	cost := flowCost{flows: w.groupFlows()}
	cost.member = w.sent(w.do(func(tx *network.Tx) error { return tx.CreatePort(at(members)) }), target)
	cost.rule = w.sent(w.rule("more", "g0", func(r *network.SecurityGroupRule) { tcp(99, 99)(r); from("g0")(r) }), target)
	return cost
}

// groupFlows is how many flows of security groups host1 has.
func (w *world) groupFlows() (n int) {
	w.Helper()
	w.compiler.Read(Target{"host1", "br-int"}, func(s State) {
		for _, f := range s.Desired.Flows {
			if Cookie(f.Cookie).Feature() == FeatureSecurityGroups {
				n++
			}
		}
	})
	return n
}

// The counts of docs/security-groups.md.
func TestFlowsOfSecurityGroupsAreAsDocumented(t *testing.T) {
	w := newWorld(t, Options{})
	w.hosts(2)
	w.network(&network.Network{Standard: network.Standard{ID: "blue"}, NetworkType: "gre", SegmentationID: 5}, "10.0.0.0/16")
	w.group("web")
	w.group("clients")
	w.statelessGroup("fast")
	have, ports := 0, 0
	adds := func(what string, want int, change func()) {
		t.Helper()
		change()
		if now := w.groupFlows(); now-have != want {
			t.Errorf("%s: %d flows more, want %d", what, now-have, want)
		}
		have = w.groupFlows()
	}
	port := func(host string, change func(p *network.Port), groups ...string) func() {
		return func() {
			ports++
			p := grouped(newPort(fmt.Sprint("p", ports), "blue", fmt.Sprintf("fa:16:3e:00:00:%02x", ports), fmt.Sprintf("10.0.0.%d", 10+ports)), groups...)
			if change != nil {
				change(p)
			}
			w.port(p, host)
		}
	}
	rules := 0
	rule := func(group string, change func(r *network.SecurityGroupRule)) func() {
		return func() { rules++; w.rule(fmt.Sprint("r", rules), group, change) }
	}
	ping := func(r *network.SecurityGroupRule) { r.Protocol, r.PortMin = "icmp", 8 }
	out := func(r *network.SecurityGroupRule) { r.Direction = network.Egress }
	remote := func(low, high int, group string) func(r *network.SecurityGroupRule) {
		return func(r *network.SecurityGroupRule) { tcp(low, high)(r); from(group)(r) }
	}

	adds("a host with a port without port security", 33, port("host1", func(p *network.Port) { p.PortSecurityEnabled = false }))
	adds("a port without groups", 6, port("host1", nil))
	adds("a port with a stateful group", 14, port("host1", nil, "web"))
	adds("a port with a stateless group", 8, port("host1", nil, "fast"))
	adds("a port with both", 18, port("host1", nil, "fast", "web"))
	adds("a port of another host", 0, port("host2", nil, "web"))

	adds("a first rule, for anything", 1+1, rule("web", func(*network.SecurityGroupRule) {}))
	adds("one for the other direction", 1+1, rule("web", out))
	adds("one for a port, the first for TCP", 1+1, rule("web", tcp(80, 80)))
	adds("another one for a port", 1, rule("web", tcp(443, 443)))
	adds("one for a range of seven ports", 3, rule("web", tcp(1001, 1007)))
	adds("one for the worst range", 30, rule("web", tcp(1, 65534)))
	adds("one for half of the ports, the first for UDP", 1+1, rule("web", func(r *network.SecurityGroupRule) { r.Protocol, r.PortMin, r.PortMax = "udp", 32768, 65535 }))
	adds("one for a type, the first for ICMP", 1+1, rule("web", ping))
	adds("a first stateless rule, for a port", 1+1, rule("fast", tcp(80, 80)))
	adds("another stateless one, for a type", 1, rule("fast", ping))

	adds("a member that no rule names", 0, port("host2", nil, "clients"))
	adds("a rule that names its group", 1+1+1, rule("web", remote(80, 80, "clients")))
	adds("another one", 1, rule("web", remote(81, 81, "clients")))
	adds("one more member, with two address pairs", 3, port("host2", func(p *network.Port) {
		p.AllowedAddressPairs = []network.AddressPair{{IP: netip.MustParsePrefix("10.0.9.0/24")}, {IP: netip.MustParsePrefix("fd00::9/128")}}
	}, "clients"))
	adds("a rule of a stateless group that names them", 1+4, rule("fast", remote(80, 80, "clients")))
	adds("one more member", 2, port("host2", nil, "clients"))
	adds("a rule that names them for the other direction", 1+5, rule("web", func(r *network.SecurityGroupRule) { out(r); from("clients")(r) }))
}

func TestPortBlocksAreExactlyTheRange(t *testing.T) {
	for _, r := range [][2]uint32{{1, 65535}, {80, 80}, {80, 81}, {1, 2}, {1024, 65535}, {79, 89}, {32768, 61000}, {65535, 65535}} {
		blocks := portBlocks(r[0], r[1])
		if len(blocks) > 30 {
			t.Errorf("%d-%d needs %d blocks", r[0], r[1], len(blocks))
		}
		for p := uint32(0); p <= 65535; p++ {
			n := 0
			for _, b := range blocks {
				if uint64(p)&b.mask == b.value {
					n++
				}
			}
			if in := p >= r[0] && p <= r[1]; in != (n == 1) || n > 1 {
				t.Fatalf("port %d is in %d blocks of %d-%d", p, n, r[0], r[1])
			}
		}
	}
}
