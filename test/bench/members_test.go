package bench

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"planck/network"
	hypervisors "planck/test/fleet"
)

// members are controllers that share a PostgreSQL and hypervisors, which play in
// this process: the controllers are programs of their own.
type members struct {
	testing.TB
	all   []*server
	hosts *hypervisors.Fleet
	ports int
	macs  []network.MAC // of the ports
}

// newMembers makes n members, which are started later, and a cloud of ports in
// their database: networks of portsPerNetwork ports, each port on another host
// than the one before.
func newMembers(tb testing.TB, dsn string, n, hosts, ports int) *members {
	tb.Helper()
	m := &members{TB: tb, ports: ports}
	m.fill(dsn, hosts)
	var managers []string
	for i := range n {
		config := fmt.Sprintf("[openflow]\naudit_interval = 3600\npunt_rate_per_port = 0\n[cluster]\nname = member%d\n", i+1)
		c := prepare(tb, dsn, config)
		m.all, managers = append(m.all, c), append(managers, fmt.Sprintf("tcp:127.0.0.1:%d", c.ovsdb))
	}
	var err error
	if m.hosts, err = hypervisors.New(hypervisors.Options{Hosts: hosts, Managers: managers}); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(m.hosts.Stop)
	plugged := make([]map[string]string, hosts)
	for p := range ports {
		if h := p % hosts; plugged[h] == nil {
			plugged[h] = map[string]string{}
		}
		plugged[p%hosts][interfaceName(p)] = portID(p)
	}
	for i, h := range m.hosts.Hosts {
		h.Plug(plugged[i])
	}
	return m
}

// fill writes the cloud into the database, and closes it.
func (m *members) fill(dsn string, hosts int) {
	m.Helper()
	store, err := network.Open(context.Background(), dsn, network.DefaultConfig())
	if err != nil {
		m.Fatal(err)
	}
	c := &cloud{TB: m.TB, store: store, hosts: hosts}
	c.addNetworks(m.ports / portsPerNetwork)
	for i := range m.ports {
		m.macs = append(m.macs, store.View().Port(portID(i)).MAC)
	}
	if err := store.Close(); err != nil {
		m.Fatal(err)
	}
}

// running are the members that run.
func (m *members) running() (all []*server) {
	for _, c := range m.all {
		if c.process != nil {
			all = append(all, c)
		}
	}
	return all
}

// start starts members side by side, and waits until each is ready.
func (m *members) start(all ...*server) {
	var starting sync.WaitGroup
	for _, c := range all {
		starting.Go(c.start)
	}
	starting.Wait()
}

// programmed are the hosts that a member programs, and whose switches have what
// it had compiled at a revision and later.
func (c *server) programmed(revision uint64) (hosts []string, vifs int, err error) {
	var answer struct {
		Hosts []struct {
			Name    string
			VIFs    int
			Bridges []struct {
				Connected, Standby, Synced bool
				Revision                   uint64
			}
		}
	}
	if err := c.get("/planck/v1/hosts", &answer); err != nil {
		return nil, 0, err
	}
next:
	for _, h := range answer.Hosts {
		for _, b := range h.Bridges {
			if !b.Connected || b.Standby || !b.Synced || b.Revision < revision {
				continue next
			}
		}
		if len(h.Bridges) > 0 {
			hosts, vifs = append(hosts, h.Name), vifs+h.VIFs
		}
	}
	return hosts, vifs, nil
}

// settled waits until each host is programmed by one member, which knows its
// ports and has given it all flows. It tells which hosts are whose.
func (m *members) settled() (owned [][]string) {
	m.Helper()
	deadline := time.Now().Add(3 * patience)
	for {
		begin := time.Now()
		found, err := m.look()
		if err == nil {
			return found
		}
		if time.Now().After(deadline) {
			m.Fatalf("not settled within %v: %v", 3*patience, err)
		}
		time.Sleep(max(50*time.Millisecond, 5*time.Since(begin))) // to ask is work, too
	}
}

func (m *members) look() (owned [][]string, err error) {
	hosts, ports := 0, 0
	revision, err := m.revision()
	if err != nil {
		return nil, err
	}
	owners, err := m.owners()
	if err != nil {
		return nil, err
	}
	for i, c := range m.running() {
		names, vifs, err := c.programmed(revision)
		if err != nil {
			return nil, err
		}
		if len(names) != owners[i] {
			return nil, fmt.Errorf("a member programs %d of its %d hosts", len(names), owners[i])
		}
		owned = append(owned, names)
		hosts, ports = hosts+len(names), ports+vifs
	}
	if hosts != len(m.hosts.Hosts) || ports != m.ports {
		return nil, fmt.Errorf("%d hosts with %d ports have their flows", hosts, ports)
	}
	again, err := m.revision()
	if err == nil && again != revision {
		err = errors.New("the model changes")
	}
	return owned, err
}

// owners are how many hosts each member owns, when all say the same.
func (m *members) owners() (hosts []int, err error) {
	running := m.running()
	for i, c := range running {
		var answer struct {
			Cluster struct {
				Member  string
				Hosts   map[string]int
				Members []struct{ Alive bool }
			}
		}
		if err := c.get("/planck/v1/cluster", &answer); err != nil {
			return nil, err
		}
		alive := 0
		for _, o := range answer.Cluster.Members {
			if o.Alive {
				alive++
			}
		}
		if alive != len(running) {
			return nil, fmt.Errorf("member %d knows %d that are alive", i+1, alive)
		}
		hosts = append(hosts, answer.Cluster.Hosts[answer.Cluster.Member])
	}
	return hosts, nil
}

// revision is that of the model that all members have compiled.
func (m *members) revision() (revision uint64, err error) {
	for i, c := range m.running() {
		got := uint64(c.metric("planck_compiled_revision"))
		if i > 0 && got != revision {
			return 0, fmt.Errorf("members are at the revisions %d and %d", revision, got)
		}
		revision = got
	}
	return revision, nil
}

// equal makes sure that the switches have what the model wants: every n-th host
// is read as a whole and compared.
func (m *members) equal(every int) {
	m.Helper()
	for i, c := range m.running() {
		mustEach(m.TB, len(m.hosts.Hosts)/every, func(n int) error {
			if n%len(m.running()) != i {
				return nil
			}
			var d struct{ Differences, Problems []object }
			if err := c.get("/planck/v1/diff?host="+hypervisors.Name(n*every), &d); err != nil {
				return err
			}
			if len(d.Differences)+len(d.Problems) > 0 {
				return fmt.Errorf("%s: %d differences, the first %v; %v", hypervisors.Name(n*every), len(d.Differences), d.Differences[:1], d.Problems)
			}
			return nil
		})
	}
}

// takeOver kills a member and tells how long it took from then until each of
// its hosts had an answer to DHCP from another one.
func (m *members) takeOver(victim *server, hosts []string) (times []time.Duration) {
	m.Helper()
	byName := map[string]int{}
	for i, h := range m.hosts.Hosts {
		byName[h.Name] = i
	}
	times = make([]time.Duration, len(hosts))
	errs := make([]error, len(hosts))
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	victim.end()
	begin := time.Now()
	var waiting sync.WaitGroup
	for i, name := range hosts {
		waiting.Go(func() {
			host := byName[name]
			_, errs[i] = m.hosts.Hosts[host].Discover(ctx, interfaceName(host), m.macs[host])
			times[i] = time.Since(begin)
		})
	}
	waiting.Wait()
	if err := errors.Join(errs...); err != nil {
		m.Fatal(err)
	}
	return times
}
