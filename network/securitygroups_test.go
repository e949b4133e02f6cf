package network

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func newGroup(t testing.TB, s *Store, name string) *SecurityGroup {
	t.Helper()
	g := &SecurityGroup{Standard: Standard{ProjectID: "blue", Name: name}}
	update(t, s, func(tx *Tx) error { return tx.CreateSecurityGroup(g) })
	return g
}

func rule(g *SecurityGroup, change func(*SecurityGroupRule)) *SecurityGroupRule {
	r := newRule(g, Ingress, IPv4)
	change(r)
	return r
}

func addingRule(r *SecurityGroupRule) func(*Tx) error {
	return func(tx *Tx) error { return tx.CreateSecurityGroupRule(r) }
}

func rulesOf(v *View, g *SecurityGroup) []string {
	var all []string
	for r := range v.RulesOf(g.ID) {
		text := r.Direction + " " + r.Ethertype
		if r.RemoteGroupID == g.ID {
			text += " from itself"
		}
		all = append(all, text)
	}
	slices.Sort(all)
	return all
}

func TestDefaultSecurityGroupIsMadeOnce(t *testing.T) {
	onEachStore(t, func(t *testing.T, s *Store) {
		var first, second *SecurityGroup
		v := update(t, s, func(tx *Tx) (err error) { first, err = tx.DefaultSecurityGroup("blue"); return err })
		update(t, s, func(tx *Tx) (err error) { second, err = tx.DefaultSecurityGroup("blue"); return err })
		if first.ID != second.ID || first.Name != "default" || !first.Default {
			t.Fatalf("first %+v, then %+v", first, second)
		}
		want := []string{"egress IPv4", "egress IPv6", "ingress IPv4 from itself", "ingress IPv6 from itself"}
		if diff := cmp.Diff(want, rulesOf(v, first)); diff != "" {
			t.Fatalf("its rules (-want +got):\n%s", diff)
		}
		g := newGroup(t, s, "web")
		if diff := cmp.Diff(want[:2], rulesOf(s.View(), g)); diff != "" {
			t.Fatalf("rules of another group (-want +got):\n%s", diff)
		}
		refused(t, s, Conflict, "SecurityGroupDefaultAlreadyExists", func(tx *Tx) error {
			return tx.CreateSecurityGroup(&SecurityGroup{Standard: Standard{ProjectID: "blue", Name: "Default"}})
		})
		refused(t, s, Conflict, "SecurityGroupCannotUpdateDefault", func(tx *Tx) error {
			g := tx.SecurityGroup(first.ID).Clone()
			g.Name = "other"
			return tx.UpdateSecurityGroup(g)
		})
		checkInvariants(t, s)
	})
}

func TestSecurityGroupsOfPortsAreKept(t *testing.T) {
	onEachStore(t, func(t *testing.T, s *Store) {
		n := newNetwork(t, s)
		newSubnet(t, s, n, "10.0.0.0/24")
		web, db := newGroup(t, s, "web"), newGroup(t, s, "db")
		in := func(groups ...*SecurityGroup) func(*Port) {
			return func(p *Port) {
				for _, g := range groups {
					p.SecurityGroups = append(p.SecurityGroups, g.ID)
				}
			}
		}
		p := newPort(t, s, n, in(web))
		refused(t, s, Conflict, "SecurityGroupInUse", func(tx *Tx) error { return tx.DeleteSecurityGroup(web.ID) })
		refused(t, s, NotFound, "SecurityGroupNotFound", func(tx *Tx) error {
			return tx.CreatePort(&Port{NetworkID: n.ID, PortSecurityEnabled: true, SecurityGroups: []string{"none"}})
		})
		refused(t, s, Invalid, "PortSecurityAndIPRequiredForSecurityGroups", func(tx *Tx) error {
			return tx.CreatePort(&Port{NetworkID: n.ID, SecurityGroups: []string{web.ID}})
		})
		refused(t, s, Conflict, "PortSecurityPortHasSecurityGroup", func(tx *Tx) error {
			p := tx.Port(p.ID).Clone()
			p.PortSecurityEnabled = false
			return tx.UpdatePort(p)
		})
		update(t, s, func(tx *Tx) error {
			p := tx.Port(p.ID).Clone()
			p.PortSecurityEnabled, p.SecurityGroups = false, nil
			return tx.UpdatePort(p)
		})
		update(t, s, addingRule(rule(db, func(r *SecurityGroupRule) { r.RemoteGroupID = web.ID })))
		v := update(t, s, func(tx *Tx) error { return tx.DeleteSecurityGroup(web.ID) })
		if got := rulesOf(v, db); len(got) != 2 {
			t.Fatalf("the rule that names a deleted group is left: %v", got)
		}
		checkInvariants(t, s)
	})
}

func TestHostsKnowTheGroupsOfTheirPortsAndTheRemoteOnes(t *testing.T) {
	onEachStore(t, func(t *testing.T, s *Store) {
		n := newNetwork(t, s)
		newSubnet(t, s, n, "10.0.0.0/24")
		putHost(t, s, "h1")
		web, db := newGroup(t, s, "web"), newGroup(t, s, "db")
		from := rule(db, func(r *SecurityGroupRule) { r.RemoteGroupID = web.ID })
		update(t, s, addingRule(from))
		p := newPort(t, s, n, func(p *Port) { p.SecurityGroups = []string{db.ID} })
		v := plug(t, s, "h1", p)
		if v.GroupPresence(db.ID, "h1") == nil || v.GroupPresence(web.ID, "h1") == nil {
			t.Fatalf("the group of a wired port, or its remote group, is not on the host")
		}
		v = update(t, s, func(tx *Tx) error { return tx.DeleteSecurityGroupRule(from.ID) })
		checkInvariants(t, s)
		if v.GroupPresence(web.ID, "h1") != nil {
			t.Fatal("a remote group is on the host without a rule that names it")
		}
		v = plug(t, s, "h1")
		if v.GroupPresence(db.ID, "h1") != nil {
			t.Fatal("a group is on a host where no port has it")
		}
	})
}

// Groups that name each other are settled whatever the order in which their
// ports are plugged, also at once.
func TestHostsKnowGroupsThatNameEachOther(t *testing.T) {
	onEachStore(t, func(t *testing.T, s *Store) {
		n := newNetwork(t, s)
		newSubnet(t, s, n, "10.0.0.0/24")
		putHost(t, s, "h1")
		a, b := newGroup(t, s, "a"), newGroup(t, s, "b")
		update(t, s, addingRule(rule(a, func(r *SecurityGroupRule) { r.RemoteGroupID = b.ID })))
		update(t, s, addingRule(rule(b, func(r *SecurityGroupRule) { r.RemoteGroupID, r.Direction = a.ID, Egress })))
		p := newPort(t, s, n, func(p *Port) { p.SecurityGroups = []string{a.ID} })
		q := newPort(t, s, n, func(p *Port) { p.SecurityGroups = []string{b.ID} })
		plug(t, s, "h1", p, q) // checks the invariants
		plug(t, s, "h1", q)
		plug(t, s, "h1", q, p)
		plug(t, s, "h1")
	})
}

func TestGroupInUseStaysStateful(t *testing.T) {
	onEachStore(t, func(t *testing.T, s *Store) {
		n := newNetwork(t, s)
		newSubnet(t, s, n, "10.0.0.0/24")
		putHost(t, s, "h1")
		web, db := newGroup(t, s, "web"), newGroup(t, s, "db")
		update(t, s, addingRule(rule(web, func(r *SecurityGroupRule) { r.RemoteGroupID = db.ID })))
		set := func(stateless bool) func(*Tx) error {
			return func(tx *Tx) error {
				g := tx.SecurityGroup(web.ID).Clone()
				g.Stateless = stateless
				return tx.UpdateSecurityGroup(g)
			}
		}
		update(t, s, set(true))
		p := newPort(t, s, n, func(p *Port) { p.SecurityGroups = []string{web.ID} })
		v := plug(t, s, "h1", p) // checks the invariants
		if p := v.GroupPresence(db.ID, "h1"); p == nil || !p.Remote(Ingress, true) || p.Remote(Ingress, false) {
			t.Fatalf("the remote group of a stateless one is %+v", p)
		}
		refused(t, s, Conflict, "SecurityGroupInUse", set(false))
		update(t, s, set(true)) // as it is
		update(t, s, func(tx *Tx) error { return tx.DeletePort(p.ID) })
		update(t, s, set(false))
		checkInvariants(t, s)
	})
}

func TestRuleThatIsNoneIsRefused(t *testing.T) {
	onEachStore(t, func(t *testing.T, s *Store) {
		g := newGroup(t, s, "web")
		tcp := func(low, high int) func(*SecurityGroupRule) {
			return func(r *SecurityGroupRule) { r.Protocol, r.PortMin, r.PortMax = "tcp", low, high }
		}
		for _, c := range []struct {
			class  Class
			typ    string
			change func(*SecurityGroupRule)
		}{
			{Invalid, "SecurityGroupInvalidPortRange", tcp(80, 79)},
			{Invalid, "SecurityGroupInvalidPortRange", tcp(80, NoPort)},
			{Invalid, "SecurityGroupInvalidPortValue", tcp(0, 79)},
			{Invalid, "SecurityGroupRuleInvalidProtocol", func(r *SecurityGroupRule) { r.Protocol = "pigeon" }},
			{Invalid, "SecurityGroupRuleInvalidProtocol", func(r *SecurityGroupRule) { r.Protocol, r.PortMin, r.PortMax = "256", 1, 2 }},
			{Invalid, "SecurityGroupProtocolRequiredWithPorts", func(r *SecurityGroupRule) { r.PortMin, r.PortMax = 1, 2 }},
			{Invalid, "SecurityGroupInvalidProtocolForPort", func(r *SecurityGroupRule) { r.Protocol, r.PortMin, r.PortMax = "vrrp", 1, 2 }},
			{Invalid, "SecurityGroupInvalidIcmpValue", func(r *SecurityGroupRule) { r.Protocol, r.PortMin = "icmp", 256 }},
			{Invalid, "SecurityGroupMissingIcmpType", func(r *SecurityGroupRule) { r.Protocol, r.PortMax = "icmp", 1 }},
			{Invalid, "SecurityGroupEthertypeConflictWithProtocol", func(r *SecurityGroupRule) { r.Protocol = "ipv6-icmp" }},
			{Invalid, "SecurityGroupRuleParameterConflict", func(r *SecurityGroupRule) { r.RemotePrefix = mustPrefix("::/0") }},
			{Invalid, "SecurityGroupMultipleRemoteEntites", func(r *SecurityGroupRule) {
				r.RemotePrefix, r.RemoteGroupID = mustPrefix("10.0.0.0/8"), g.ID
			}},
			{NotFound, "SecurityGroupNotFound", func(r *SecurityGroupRule) { r.RemoteGroupID = "none" }},
			{NotFound, "SecurityGroupNotFound", func(r *SecurityGroupRule) { r.GroupID = "none" }},
			{Conflict, "SecurityGroupRuleExists", func(r *SecurityGroupRule) { r.Direction, r.RemotePrefix = Egress, mustPrefix("0.0.0.0/0") }},
		} {
			refused(t, s, c.class, c.typ, addingRule(rule(g, c.change)))
		}
		icmp := rule(g, func(r *SecurityGroupRule) { r.Ethertype, r.Protocol = IPv6, "icmp" })
		update(t, s, addingRule(icmp))
		if icmp.Protocol != "ipv6-icmp" {
			t.Fatalf("ICMP of IPv6 is %q", icmp.Protocol)
		}
	})
}
