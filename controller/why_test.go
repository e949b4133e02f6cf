package controller

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"planck/network"
)

// Two servers of a group are on a host, one of them in another group as well,
// whose two rules partly come to the same flows.
func TestReasonsSayWhosePacketsTheyCount(t *testing.T) {
	w := newWorld(t)
	w.host("h1", 1)
	n := w.network("net1")
	a, b := w.vm(n, "h1"), w.vm(n, "h1")
	group := func(name string) *network.SecurityGroup {
		g := &network.SecurityGroup{Standard: network.Standard{ID: name, Name: name, ProjectID: "p"}}
		w.update(func(tx *network.Tx) error { return tx.CreateSecurityGroup(g) })
		return g
	}
	web, db := group("web"), group("db")
	rule := func(id string, g *network.SecurityGroup, low, high int) {
		w.update(func(tx *network.Tx) error {
			return tx.CreateSecurityGroupRule(&network.SecurityGroupRule{
				Standard: network.Standard{ID: id, ProjectID: "p"}, GroupID: g.ID, Direction: network.Ingress, Ethertype: network.IPv4,
				Protocol: "tcp", PortMin: low, PortMax: high,
			})
		})
	}
	rule("http", web, 80, 80)
	rule("sql", db, 5432, 5432)
	rule("admin", db, 5432, 5433) // one block of two ports
	rule("more", db, 5431, 5433)  // a block of one, and the same one
	for p, groups := range map[*network.Port][]string{a: {"web", "db"}, b: {"web"}} {
		w.update(func(tx *network.Tx) error {
			now := tx.Port(p.ID).Clone()
			now.SecurityGroups = groups
			return tx.UpdatePort(now)
		})
	}
	w.plug("h1", a, b)
	w.switches(1)
	c := w.start(nil)
	c.eventuallyRight("h1", allBridges...)

	counts, together := map[string]string{}, map[string]bool{}
	for _, r := range c.mustRead(FlowQuery{Host: "h1", Port: a.ID, Why: true}).Flows {
		if r.Drops != "" {
			if r.Resource.ID != a.ID || r.Counts != "this port" {
				t.Errorf("a drop of another port, or of more than one: %+v", r)
			}
			continue
		}
		all := ""
		if strings.Contains(r.Resource.Name, "egress") {
			continue // the rules that every new group has
		}
		for _, rule := range r.Rules {
			all += rule.ID + " "
			counts[rule.ID] = r.Counts
		}
		together[all] = true
	}
	for rule, want := range map[string]string{"http": "2 ports of the host", "sql": "this port", "admin": "this port", "more": "this port"} {
		if counts[rule] != want {
			t.Errorf("rule %s counts for %q, want %q", rule, counts[rule], want)
		}
	}
	want := map[string]bool{"http ": true, "sql ": true, "admin more ": true, "more ": true, "sql admin more ": true}
	if diff := cmp.Diff(want, together); diff != "" {
		t.Errorf("rules that count together (-want +got):\n%s", diff)
	}
}

func TestRulesAreNamedByWhatTheyLetPass(t *testing.T) {
	w := newWorld(t)
	for _, c := range []struct {
		want      string
		protocol  string
		low, high int
	}{
		{"g: ingress IPv4", "", network.NoPort, network.NoPort},
		{"g: ingress IPv4 tcp", "tcp", network.NoPort, network.NoPort},
		{"g: ingress IPv4 tcp 80", "tcp", 80, 80},
		{"g: ingress IPv4 tcp 80-81", "tcp", 80, 81},
		{"g: ingress IPv4 icmp", "icmp", network.NoPort, network.NoPort},
		{"g: ingress IPv4 icmp type 8", "icmp", 8, network.NoPort},
		{"g: ingress IPv4 icmp type 3 code 3", "icmp", 3, 3},
		{"g: ingress IPv4 1 type 8 code 0", "1", 8, 0},
		{"g: ingress IPv4 58 type 1 code 4", "58", 1, 4},
	} {
		r := &network.SecurityGroupRule{GroupID: "g", Direction: network.Ingress, Ethertype: network.IPv4, Protocol: c.protocol, PortMin: c.low, PortMax: c.high}
		if got := ruleText(w.store.View(), r); got != c.want {
			t.Errorf("rule is named %q, want %q", got, c.want)
		}
	}
}
