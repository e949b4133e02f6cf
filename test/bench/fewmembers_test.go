package bench

import (
	"slices"
	"testing"

	"planck/test/pg"
)

// TestMembersShareManyHosts has three members share thirty hosts: as evenly as a
// hash does, one that joins takes its share and nothing else, the hosts of one
// that is killed go to the others, and no switch is given anything by that.
func TestMembersShareManyHosts(t *testing.T) {
	const hosts, ports = 30, 60
	m := newMembers(t, pg.Start(t), 3, hosts, ports)
	m.hosts.Start()
	m.start(m.all[:2]...)
	two := m.settled()
	m.start(m.all[2])
	three := m.settled()
	for i, owned := range three {
		if len(owned) < hosts/6 || len(owned) > hosts/2 {
			t.Errorf("member %d has %d of %d hosts", i+1, len(owned), hosts)
		}
		for _, name := range owned {
			if i < 2 && !slices.Contains(two[i], name) {
				t.Errorf("%s went to member %d though another one joined", name, i+1)
			}
		}
	}
	if sent := m.all[2].metric("planck_flow_mods_total"); sent != 0 {
		t.Errorf("the member that joined sent %v FLOW_MODs to switches that are right", sent)
	}
	sent := []float64{m.all[1].metric("planck_flow_mods_total"), m.all[2].metric("planck_flow_mods_total")}
	times := m.takeOver(m.all[0], three[0])
	t.Logf("%d hosts have a new master, and answers to DHCP, after %v to %v", len(times), slices.Min(times), slices.Max(times))
	m.settled()
	for i, before := range sent {
		if after := m.all[i+1].metric("planck_flow_mods_total"); after != before {
			t.Errorf("taking over, a member sent %v FLOW_MODs to switches that are right", after-before)
		}
	}
	m.equal(1)
}
