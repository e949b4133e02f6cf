package e2e

import (
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"planck/test/lab"
	"planck/test/pg"
)

// members are controllers that share a database and a lab; each of them is a
// cloud whose API is its own.
type members []*cloud

// newMembers starts n controllers, and a lab of hosts that know all of them.
func newMembers(t *testing.T, n, hosts int) members {
	t.Helper()
	dsn := pg.Start(t)
	var all members
	var targets []string
	for i := range n {
		c := newController(t, fmt.Sprintf("[database]\nconnection = %s\n[cluster]\nname = %s\n", dsn, memberName(i)))
		all, targets = append(all, c), append(targets, c.ovsdb)
	}
	l := lab.ForTest(t, lab.Options{Hosts: hosts, Controllers: targets})
	for _, c := range all {
		c.lab = l
	}
	all.whole()
	return all
}

func memberName(i int) string { return fmt.Sprintf("member%d", i+1) }

// clusterState is what /planck/v1/cluster tells.
type clusterState struct {
	Generation uint64
	Owners     map[string]string
	Members    []struct {
		Name           string
		Alive, Leaving bool
	}
}

func (c *cloud) cluster() clusterState {
	c.Helper()
	var out struct{ Cluster clusterState }
	c.operator("cluster", nil, &out)
	return out.Cluster
}

// running are the members that were not killed, by name.
func (m members) running() map[string]*cloud {
	out := map[string]*cloud{}
	for i, c := range m {
		if c.process != nil {
			out[memberName(i)] = c
		}
	}
	return out
}

// any is a running member, the first one.
func (m members) any() *cloud {
	return m[slices.IndexFunc(m, func(c *cloud) bool { return c.process != nil })]
}

// ownerOf is the member that owns a host.
func (m members) ownerOf(host string) *cloud {
	c := m.any()
	owner := c.cluster().Owners[host]
	if c = m.running()[owner]; c == nil {
		m.any().Fatalf("%s is owned by %q", host, owner)
	}
	return c
}

// whole waits until the running members agree, and all hosts are programmed by
// the one that owns them.
func (m members) whole() {
	first := m.any()
	first.Helper()
	first.eventually("each host is programmed by the member that owns it", func() error {
		want := first.cluster()
		if len(want.Owners) != len(first.lab.Hosts()) {
			return fmt.Errorf("%d hosts have owners", len(want.Owners))
		}
		for name, c := range m.running() {
			if got := c.cluster(); got.Generation != want.Generation {
				return fmt.Errorf("generations %d and %d", got.Generation, want.Generation)
			}
			for _, h := range c.hostStates() {
				if err := h.programmed(want.Owners[h.Name] == name); err != nil {
					return fmt.Errorf("%s: %w", name, err)
				}
			}
		}
		return nil
	})
	for _, h := range first.lab.Hosts() {
		first.oneMaster(h.Name())
	}
}

// programmed checks that a host is connected to a member, which programs it or not.
func (h *hostState) programmed(owns bool) error {
	for _, b := range h.Bridges {
		if !b.Connected || b.Standby == owns || owns && !b.Synced {
			return fmt.Errorf("%s %s: connected %v, standby %v, synced %v, owned %v", h.Name, b.Name, b.Connected, b.Standby, b.Synced, owns)
		}
	}
	if len(h.Bridges) != len(bridges) {
		return fmt.Errorf("%s has %d bridges", h.Name, len(h.Bridges))
	}
	return nil
}

// oneMaster asks a host's switch: each bridge has one master.
func (c *cloud) oneMaster(host string) {
	c.Helper()
	c.eventually("each bridge of "+host+" has one master", func() error {
		masters := strings.Count(c.vsctl(host, "--bare", "--columns=role", "list", "Controller"), "master")
		if masters != len(bridges) {
			return fmt.Errorf("%d masters of %d bridges", masters, len(bridges))
		}
		return nil
	})
}

func TestThreeControllersShareTheHosts(t *testing.T) {
	t.Parallel()
	m := newMembers(t, 3, 3)
	c := m[0]
	blue := c.network("blue", "10.0.0.0/24", nil)
	var vms []*vm
	for i, h := range c.lab.Hosts() {
		// Each port is made and watched at another member.
		vms = append(vms, m[i].boot(fmt.Sprintf("vm%d", i), h.Name(), blue, nil))
	}
	for _, v := range vms {
		c.dhcp(v)
	}
	for i, v := range vms {
		c.reaches(v.Node, vms[(i+1)%len(vms)].ip())
	}
	client := c.boot("client", "host1", blue, nil)

	stream, err := vms[0].PingStream(c.within(settle), vms[1].ip())
	if err != nil {
		t.Fatal(err)
	}
	victim := m.ownerOf("host1")
	hosts := 0
	for _, h := range c.lab.Hosts() {
		if m.ownerOf(h.Name()) == victim {
			hosts++
		}
	}
	begin := time.Now()
	victim.kill(syscall.SIGKILL)
	c = m.any()
	c.lab = victim.lab
	c.eventually("somebody answers DHCP on its host", func() error {
		_, err := client.DHCP(c.within(5 * time.Second))
		return err
	})
	t.Logf("a member with %d hosts was killed: DHCP is answered again after %v", hosts, time.Since(begin).Round(10*time.Millisecond))
	m.whole()
	late := c.boot("late", "host1", blue, nil)
	c.dhcp(late)
	c.reaches(late.Node, vms[1].ip())
	stats, err := stream.Stop()
	if err != nil {
		t.Fatal(err)
	}
	if err := stats.Whole(); err != nil {
		t.Error(err)
	}

	victim.start()
	m.whole()
	if owners := victim.cluster().Owners; victim.metric("planck_flow_mods_total", "") != 0 {
		t.Errorf("the member that came back sent FLOW_MODs to switches that are right; owners: %v", owners)
	}
}
