package bench

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"sync"
	"testing"
	"time"

	"planck/network"
	hypervisors "planck/test/fleet"
	"planck/test/pg"
)

// members are controllers that share a PostgreSQL and hypervisors, which play in
// this process: the controllers are programs of their own.
type members struct {
	testing.TB
	all   []*server
	hosts *hypervisors.Fleet
	size  int // number of hosts
	ports int
	macs  []network.MAC // of the ports
}

// newMembers makes n members, which are started later, hypervisors, and a cloud
// of ports in their database: networks of portsPerNetwork ports, each port on
// another host than the one before.
func newMembers(tb testing.TB, dsn string, n, hosts, ports int) *members {
	tb.Helper()
	m := prepareMembers(tb, dsn, n, hosts, ports)
	var err error
	if m.hosts, err = hypervisors.New(hypervisors.Options{Hosts: hosts, Managers: m.managers()}); err != nil {
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

// prepareMembers makes n members and their cloud, without its hypervisors.
func prepareMembers(tb testing.TB, dsn string, n, hosts, ports int) *members {
	tb.Helper()
	m := &members{TB: tb, size: hosts, ports: ports}
	m.fill(dsn, hosts)
	for i := range n {
		config := fmt.Sprintf("[openflow]\naudit_interval = 3600\npunt_rate_per_port = 0\n[QUOTAS]\nquota_network = -1\nquota_subnet = -1\nquota_port = -1\n[cluster]\nname = member%d\n", i+1)
		m.all = append(m.all, prepare(tb, dsn, config))
	}
	return m
}

// managers are the targets at which hypervisors find the members.
func (m *members) managers() (targets []string) {
	for _, c := range m.all {
		targets = append(targets, fmt.Sprintf("tcp:127.0.0.1:%d", c.ovsdb))
	}
	return targets
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
	member := *c
	member.asMember = true
	if err := member.get("/planck/v1/hosts", &answer); err != nil {
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
		time.Sleep(min(max(50*time.Millisecond, 5*time.Since(begin)), time.Second)) // to ask is work, too
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
	if hosts != m.size || ports != m.ports {
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
		mustEach(m.TB, m.size/every, func(n int) error {
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

var (
	memberHosts = flag.Int("memberhosts", 1000, "the number of hypervisors that members share")
	memberPorts = flag.Int("memberports", 20_000, "the number of their ports")
)

// BenchmarkMembers measures one member and three with a thousand hypervisors:
// what they need, and how long they take to come, to go, and to do their work.
func BenchmarkMembers(b *testing.B) {
	t := newTable("members")
	few := 200
	small := newMembers(b, pg.StartDurable(b).Database(b), 3, few/portsPerNetwork, few)
	small.hosts.Start()
	small.start(small.all...)
	small.settled()
	least := small.onePort()
	for _, c := range small.all {
		c.end()
	}

	m := newMembers(b, pg.StartDurable(b).Database(b), 3, *memberHosts, *memberPorts)
	size := fmt.Sprintf("%s hosts, %s ports", count(*memberHosts), count(*memberPorts))
	first := m.all[0]
	m.start(first)
	m.hosts.Start()
	begin := time.Now()
	m.settled()
	t.add(row{
		what: size + ": new hosts join one member, until all tables equal the model (CPU of the member)",
		ours: ms(time.Since(begin)) + " (" + ms(first.cpu()) + ")",
	})
	alone := m.weigh()
	onePort := m.onePort()
	begin = time.Now()
	m.start(m.all[1:]...)
	m.settled()
	t.add(row{what: size + ": two more members start, until each has its share", ours: ms(time.Since(begin))})
	shared := m.weigh()
	t.weights(size, alone, shared)
	t.arrivals(few, *memberPorts, least, onePort, m.onePort())
	m.lose(t, size)
	m.coldStart(t, size)
}

// weight is what members need.
type weight struct {
	resident, heap float64       // MiB, the largest of them
	idle           time.Duration // CPU of all for each second
}

// weigh lets members rest, and tells what they need for that.
func (m *members) weigh() (w weight) {
	m.Helper()
	const rest = 20 * time.Second
	time.Sleep(rest / 4)
	before := m.cpu()
	time.Sleep(rest)
	w.idle = (m.cpu() - before) / time.Duration(rest/time.Second)
	for _, c := range m.running() {
		w.resident = max(w.resident, residentMiB(m.TB, c.process.Process.Pid))
		w.heap = max(w.heap, c.metric("go_memstats_heap_alloc_bytes")/(1<<20))
	}
	return w
}

// cpu is what all members have used.
func (m *members) cpu() (sum time.Duration) {
	m.Helper()
	for _, c := range m.running() {
		sum += c.cpu()
	}
	return sum
}

func (t *table) weights(size string, alone, shared weight) {
	t.add(row{
		what: size + ": memory of a member, resident (heap), three members / one", ours: fmt.Sprintf("%.0f MiB (%.0f)", shared.resident, shared.heap),
		peer: fmt.Sprintf("%.0f MiB (%.0f) (one member)", alone.resident, alone.heap), ratio: times(shared.resident / alone.resident),
	}, row{
		what: size + ": CPU of all members when nothing happens, of a core", ours: percent(shared.idle),
		peer: percent(alone.idle) + " (one member)", ratio: times(float64(shared.idle) / float64(alone.idle)),
	})
}

// percent is CPU time for each second.
func percent(d time.Duration) string { return fmt.Sprintf("%.1f %%", 100*d.Seconds()) }

// reach is how one more port came about: until its POST was answered, until all
// hosts of its network had its flows, and until it was ACTIVE; and the CPU that
// all members used for that and its deletion.
type reach struct{ posted, hosts, active, cpu time.Duration }

// onePort adds a port to a network by one member, plugs it and deletes it, again
// and again.
func (m *members) onePort() (middle reach) {
	m.Helper()
	const rounds = 10
	c, host := m.running()[0], m.hosts.Hosts[0]
	var posted, hosts, active []time.Duration
	before := m.cpu()
	for range rounds {
		begin := time.Now()
		id := c.mustCreate("port", object{"network_id": networkID(0), "device_owner": "compute:nova", "binding:host_id": host.Name, "tenant_id": "blue"})
		posted = append(posted, time.Since(begin))
		host.Plug(map[string]string{extraInterface: id})
		active = append(active, c.awaitActive(id, 5*time.Millisecond).Sub(begin))
		var last time.Time
		for _, h := range m.hosts.Hosts[:min(portsPerNetwork, len(m.hosts.Hosts))] {
			if at := h.Changed(); at.After(last) {
				last = at
			}
		}
		hosts = append(hosts, last.Sub(begin))
		host.Plug(map[string]string{extraInterface: ""})
		c.delete("port", id)
		time.Sleep(5 * calm)
	}
	return reach{percentile(posted, 50), percentile(hosts, 50), percentile(active, 50), (m.cpu() - before) / rounds}
}

func (t *table) arrivals(few, many int, least, one, three reach) {
	words := func(r reach) string { return ms(r.posted) + " / " + ms(r.hosts) + " / " + ms(r.active) }
	what := "one more port at " + count(many) + " ports, three members: POST → its answer / all ten hosts have its flows / ACTIVE, p50"
	t.add(row{
		what: what, ours: words(three), peer: words(least) + " (" + count(few) + " ports)",
		ratio: times(float64(three.hosts)/float64(least.hosts)) + " until the hosts have it", aim: "the same at every size",
	}, row{
		what: what, ours: words(three), peer: words(one) + " (one member)", ratio: times(float64(three.hosts) / float64(one.hosts)),
	}, row{
		what: "one more port at " + count(many) + " ports, added and deleted: CPU of all three members", ours: ms(three.cpu),
		peer: ms(one.cpu) + " (one member)", ratio: times(float64(three.cpu) / float64(one.cpu)),
	})
}

// lose kills a member of three.
func (m *members) lose(t *table, size string) {
	m.Helper()
	owned, err := m.look()
	if err != nil {
		m.Fatal(err)
	}
	sent := 0.0
	for _, c := range m.all[1:] {
		sent -= c.metric("planck_flow_mods_total")
	}
	took := m.takeOver(m.all[0], owned[0])
	begin := time.Now()
	m.settled()
	m.Logf("all compared %v after the take-over", time.Since(begin))
	for _, c := range m.all[1:] {
		sent += c.metric("planck_flow_mods_total")
	}
	t.add(row{
		what: fmt.Sprintf("%s: one of three members is killed, until its %s hosts are answered DHCP again, p50 / p99 / last", size, count(len(took))),
		ours: ms(percentile(took, 50)) + " / " + ms(percentile(took, 99)) + " / " + ms(percentile(took, 100)), aim: "≤ 2,000 ms",
	}, row{what: "FLOW_MODs sent for that", ours: fmt.Sprintf("%.0f", sent), aim: "0"})
}

// coldStart kills all members, takes the flows from all switches, and starts
// three members.
func (m *members) coldStart(t *table, size string) {
	m.Helper()
	for _, c := range m.running() {
		c.end()
	}
	for _, h := range m.hosts.Hosts {
		h.Restart()
	}
	begin := time.Now()
	m.start(m.all...)
	ready := time.Since(begin)
	m.settled()
	settled := time.Since(begin)
	used := m.cpu()
	flows := 0
	for _, h := range m.hosts.Hosts {
		flows += h.Count().Flows
	}
	t.add(row{
		what: size + ": three members and all switches start with empty tables: members are ready / all tables equal the model (CPU of the members)",
		ours: ms(ready) + " / " + ms(settled) + " (" + ms(used) + ")", peer: count(flows) + " flows",
	})
	m.equal(max(1, len(m.hosts.Hosts)/100))
}

// BenchmarkMemberWrites measures writes with one member, two and three, each
// asked by as many clients.
func BenchmarkMemberWrites(b *testing.B) {
	t := newTable("memberwrites")
	m := newMembers(b, pg.StartDurable(b).Database(b), 3, 1, portsPerNetwork)
	m.start(m.all[0])
	wide := m.all[0].mustCreate("network", object{"tenant_id": "blue"})
	m.all[0].mustCreate("subnet", object{"network_id": wide, "cidr": "10.64.0.0/12", "ip_version": 4, "tenant_id": "blue"})
	rates := map[string][]float64{}
	for i, c := range m.all {
		if i > 0 {
			m.start(c)
		}
		for _, kind := range []string{"network", "port"} {
			rates[kind] = append(rates[kind], m.writes(kind, wide))
		}
	}
	for _, kind := range []string{"network", "port"} {
		for i, rate := range rates[kind] {
			t.add(row{
				what: fmt.Sprintf("POST /%ss, 12 at once at %d members", kind, i+1), ours: fmt.Sprintf("%s /s", count(int(rate))),
				peer: fmt.Sprintf("%s /s (one member)", count(int(rates[kind][0]))), ratio: times(rate / rates[kind][0]),
			})
		}
	}
}

// writes is how many resources the running members make in a second, the better
// of two runs.
func (m *members) writes(kind, networkID string) (best float64) {
	m.Helper()
	const clients, each = 12, 60
	body := object{"network_id": networkID, "tenant_id": "blue"}
	if kind == "network" {
		body = object{"tenant_id": "blue"}
	}
	running := m.running()
	for range 2 {
		begin := time.Now()
		errs := make([]error, clients)
		var writing sync.WaitGroup
		for i := range clients {
			writing.Go(func() {
				for range each {
					if _, err := running[i%len(running)].create(kind, body); err != nil {
						errs[i] = err
						return
					}
				}
			})
		}
		writing.Wait()
		if err := errors.Join(errs...); err != nil {
			m.Fatal(err)
		}
		best = max(best, clients*each/time.Since(begin).Seconds())
	}
	return best
}
