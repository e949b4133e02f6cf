package e2e

import (
	"fmt"
	"net/url"
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
	return newMembersOn(t, pg.Start(t), n, hosts)
}

func newMembersOn(t *testing.T, dsn string, n, hosts int, config ...string) members {
	t.Helper()
	var all members
	var targets []string
	for i := range n {
		c := newController(t, fmt.Sprintf("[database]\nconnection = %s\n[cluster]\nname = %s\n%s", dsn, memberName(i), strings.Join(config, "")))
		all, targets = append(all, c), append(targets, c.ovsdb)
	}
	l := lab.ForTest(t, lab.Options{Hosts: hosts, Controllers: targets})
	for _, c := range all {
		c.lab = l
	}
	all.whole()
	return all
}

// newMembersApart starts a controller for each database, with an address of its own
// in the lab, so that a host can be cut off from one of them. The hosts do not know
// them yet: see meet.
func newMembersApart(t *testing.T, l *lab.Lab, dsns []string, config string) (all members, addresses []string) {
	t.Helper()
	for i, dsn := range dsns {
		c := newController(t, fmt.Sprintf("[database]\nconnection = %s\n[cluster]\nname = %s\n%s", dsn, memberName(i), config))
		address, err := l.AddController(t.Context(), i+1)
		if err != nil {
			t.Fatal(err)
		}
		c.lab, c.ovsdb = l, strings.Replace(c.ovsdb, lab.ControllerHost, address, 1)
		all, addresses = append(all, c), append(addresses, address)
	}
	return all, addresses
}

// meet lets the hosts of the lab know all members.
func (m members) meet() {
	var targets []string
	for _, c := range m {
		targets = append(targets, c.ovsdb)
	}
	first := m[0]
	first.Helper()
	for _, h := range first.lab.Hosts() {
		if err := h.SetManager(targets...); err != nil {
			first.Fatal(err)
		}
	}
	first.eventually("all hosts have joined", func() error {
		if known := len(first.hostStates()); known != len(first.lab.Hosts()) {
			return fmt.Errorf("%d hosts", known)
		}
		return nil
	})
	m.whole()
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

// allTell checks that each member tells of a VM what only the one knows that
// programs its host: that it was silenced.
func (m members) allTell(v *vm) {
	c := m.any()
	c.Helper()
	stop := c.floodFrom(v, floodFrame{ethernet(c, everybody, v.mac(), etherIPv4, udp4("0.0.0.0", "255.255.255.255", 68, 67, discover(c, v.mac()))), [2]int{xidAt, xidAt + 4}})
	defer stop()
	for name, c := range m.running() {
		c.eventually(name+" tells that a VM was silenced", func() error {
			var answer struct {
				Findings  []struct{ What string }
				Elsewhere string
			}
			c.operator("explain", url.Values{"port": {v.id()}}, &answer)
			for _, f := range answer.Findings {
				if strings.Contains(f.What, "more dhcp packets") {
					return nil
				}
			}
			return fmt.Errorf("%+v", answer)
		})
	}
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
	m.allTell(client)
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

// TestMembersStopLeaveAndLoseTheirDatabase breaks members in every way but the
// plainest, with traffic, DHCP and API calls going on.
func TestMembersStopLeaveAndLoseTheirDatabase(t *testing.T) {
	t.Parallel()
	server := pg.StartServer(t)
	dsn := server.Database(t)
	m := newMembersOn(t, dsn, 2, 2)
	f := &fire{cloud: m[0], base: map[string]string{}}
	f.network = f.cloud.network("blue", "10.0.0.0/24", nil)
	f.a, f.b = f.boot("a", "host1", nil), f.boot("b", "host2", nil)
	client := f.boot("client", "host1", nil)
	for _, v := range f.vms {
		f.dhcp(v)
	}
	f.reaches(f.a.Node, f.b.ip())

	victim := m.ownerOf("host1")
	survivor := m[1-slices.Index(m, victim)]
	f.cloud = survivor
	stream := f.ping()

	// A stopped member loses its hosts, and harms nobody when it goes on.
	process := victim.process
	if err := process.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	victim.process = nil
	took := f.since(time.Now(), "DHCP is answered by the other member", func() error {
		_, err := client.DHCP(f.within(5 * time.Second))
		return err
	})
	t.Logf("a member was stopped: DHCP is answered again after %v", took.Round(10*time.Millisecond))
	m.whole()
	late := f.boot("late", "host1", nil)
	f.dhcp(late)
	if err := process.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	victim.process = process
	m.whole()

	// One that leaves hands over first: no client notices.
	victim = m.ownerOf("host1")
	survivor = m[1-slices.Index(m, victim)]
	f.cloud = survivor
	leases := f.leases(client)
	if code := victim.kill(syscall.SIGTERM); code != 0 {
		t.Errorf("exit code %d", code)
	}
	m.whole()
	victim.start()
	m.whole()
	if err := leases().wrong(); err != nil {
		t.Errorf("while a member left and came back: %v", err)
	}

	// Without their database they go on, each with its hosts.
	server.Kill(t)
	f.dhcp(late)
	server.Restart(t)
	m.whole()
	f.boot("later", "host2", nil)
	f.lossless("a member stopped, one left, and the database was away", stream)
	for name, c := range m.running() {
		for _, h := range f.lab.Hosts() {
			if err := (&fire{cloud: c}).undesired(h.Name()); err != nil {
				t.Errorf("as %s has it: %v", name, err)
			}
		}
	}
}
