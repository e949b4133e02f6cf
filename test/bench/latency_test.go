package bench

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
)

// fleet is a controller with dummy hosts and a cloud that grows: projects with a
// network of portsPerNetwork ports each, one on another host than the one before.
type fleet struct {
	*server
	hosts    []*dummyHost
	networks []string
	ports    int
}

// newFleet starts hosts with room for so many ports, joined to a controller.
func newFleet(tb testing.TB, hosts, ports int) *fleet {
	tb.Helper()
	start := time.Now()
	c := serve(tb, "", "[openflow]\naudit_interval = 3600\n")
	f := &fleet{server: c, hosts: startHosts(tb, hosts, c.ovsdb)}
	tb.Cleanup(c.end) // before the hosts
	mustEach(tb, hosts, func(i int) error {
		names := []string{extraInterface}
		for p := i; p < ports; p += hosts {
			names = append(names, interfaceName(p))
		}
		return f.hosts[i].addPorts(names...)
	})
	f.settled()
	tb.Logf("%d hosts with %d ports joined in %v, %v of the controller's CPU", hosts, ports, time.Since(start), c.cpu())
	return f
}

const extraInterface = "extra"

func interfaceName(port int) string { return fmt.Sprintf("tap%d", port) }

// hostsCPU is the CPU time of all hosts' databases and switches.
func (f *fleet) hostsCPU() (sum time.Duration) {
	f.Helper()
	for _, h := range f.hosts {
		sum += processCPU(f.TB, h.ovsdb.Process.Pid) + processCPU(f.TB, h.vswitchd.Process.Pid)
	}
	return sum
}

func (f *fleet) hostOf(port int) *dummyHost { return f.hosts[port%len(f.hosts)] }

// settled waits until every bridge of every host has what is desired.
func (f *fleet) settled() {
	f.Helper()
	f.eventually("all hosts are up to date", func() error {
		var answer struct {
			Hosts []struct {
				Name      string
				Connected bool
				Bridges   []struct {
					Synced   bool
					Revision uint64
				}
			}
		}
		if err := f.get("/planck/v1/hosts", &answer); err != nil {
			return err
		}
		if len(answer.Hosts) != len(f.hosts) {
			return fmt.Errorf("%d hosts", len(answer.Hosts))
		}
		for _, h := range answer.Hosts {
			if !h.Connected {
				return fmt.Errorf("%s is not connected", h.Name)
			}
			for _, b := range h.Bridges {
				if !b.Synced {
					return fmt.Errorf("%s is not in sync", h.Name)
				}
			}
		}
		return nil
	})
}

// grow adds ports in bulk until there are so many, and waits until all are
// ACTIVE. It tells how long that took from the first request for a port.
func (f *fleet) grow(ports int) time.Duration {
	f.Helper()
	f.addNetworks((ports + portsPerNetwork - 1) / portsPerNetwork)
	active := f.metric("planck_status_writes_total")
	want := active + float64(ports-f.ports)
	const perRequest = 500
	start := time.Now()
	var plugging errgroup.Group
	for f.ports < ports {
		bodies := make([]object, 0, perRequest)
		for i := f.ports; i < min(f.ports+perRequest, ports); i++ {
			bodies = append(bodies, f.portBody(i))
		}
		ids, err := f.createMany("ports", bodies)
		if err != nil {
			f.Fatal(err)
		}
		first := f.ports
		f.ports += len(ids)
		plugging.Go(func() error { return f.plug(first, ids) })
	}
	if err := plugging.Wait(); err != nil {
		f.Fatal(err)
	}
	f.eventually("all ports are ACTIVE", func() error {
		if got := f.metric("planck_status_writes_total"); got < want {
			return fmt.Errorf("%v of %v", got-active, want-active)
		}
		return nil
	})
	took := time.Since(start)
	f.allActive()
	return took
}

func (f *fleet) portBody(i int) object {
	return object{
		"network_id": f.networks[i/portsPerNetwork], "name": interfaceName(i), "device_owner": "compute:nova",
		"binding:host_id": f.hostOf(i).name, "tenant_id": project(i / portsPerNetwork),
	}
}

func project(network int) string { return fmt.Sprintf("project%d", network) }

func (f *fleet) addNetworks(n int) {
	f.Helper()
	const perRequest = 250
	for len(f.networks) < n {
		bodies := make([]object, min(perRequest, n-len(f.networks)))
		for i := range bodies {
			bodies[i] = object{"name": networkID(len(f.networks) + i), "tenant_id": project(len(f.networks) + i)}
		}
		networks, err := f.createMany("networks", bodies)
		if err != nil {
			f.Fatal(err)
		}
		for i, id := range networks {
			bodies[i] = object{"network_id": id, "cidr": "10.0.0.0/24", "ip_version": 4}
		}
		if _, err := f.createMany("subnets", bodies); err != nil {
			f.Fatal(err)
		}
		f.networks = append(f.networks, networks...)
	}
}

// plug plugs the ports from first on, one transaction for each host.
func (f *fleet) plug(first int, ids []string) error {
	byHost := make(map[*dummyHost]map[string]string)
	for i, id := range ids {
		h := f.hostOf(first + i)
		if byHost[h] == nil {
			byHost[h] = make(map[string]string)
		}
		byHost[h][interfaceName(first+i)] = id
	}
	hosts := slices.Collect(maps.Keys(byHost))
	return each(len(hosts), func(i int) error { return hosts[i].plug(byHost[hosts[i]]) })
}

// allActive makes sure that what the metric told is what the API tells: a host
// that lost its connection in between has its ports counted twice.
func (f *fleet) allActive() {
	f.Helper()
	f.eventually("the API shows all ports as ACTIVE", func() error {
		var answer struct{ Ports []struct{ ID string } }
		if err := f.get("/v2.0/ports?fields=id&status=ACTIVE&device_owner=compute:nova", &answer); err != nil {
			return err
		}
		if len(answer.Ports) != f.ports {
			return fmt.Errorf("%d of %d", len(answer.Ports), f.ports)
		}
		return nil
	})
}

// arrival is how long one more port took from its POST: until that was answered,
// the interface was plugged, the first flow was there, and the port was ACTIVE.
type arrival struct{ posted, plugged, flow, active time.Duration }

// calm is the pause between two ports: the hosts are done with the one before.
const calm = 100 * time.Millisecond

// onePort makes and plugs one more port after a pause, and deletes it. It asks
// for the port's status again and again, with another pause in between.
func (f *fleet) onePort(w *watch, pause time.Duration) arrival {
	f.Helper()
	time.Sleep(calm)
	host := f.hosts[0]
	for len(w.seen) > 0 {
		<-w.seen
	}
	start := time.Now()
	id := f.mustCreate("port", object{
		"network_id": f.networks[0], "device_owner": "compute:nova", "binding:host_id": host.name, "tenant_id": project(0),
	})
	posted := time.Now()
	if err := host.plug(map[string]string{extraInterface: id}); err != nil {
		f.Fatal(err)
	}
	plugged := time.Now()
	active := f.awaitActive(id, pause)
	first, err := w.first("event=ADDED")
	if err != nil {
		f.Fatal(err)
	}
	if err := host.unplug(extraInterface); err != nil {
		f.Fatal(err)
	}
	f.delete("port", id)
	if _, err := w.first("event=DELETED"); err != nil {
		f.Fatal(err)
	}
	return arrival{posted.Sub(start), plugged.Sub(start), first.Sub(start), active.Sub(start)}
}

// awaitActive asks for a port until it is ACTIVE.
func (f *server) awaitActive(id string, pause time.Duration) time.Time {
	f.Helper()
	deadline := time.Now().Add(patience)
	for time.Now().Before(deadline) {
		status, answer, err := f.request(http.MethodGet, "/v2.0/ports/"+id+"?fields=status", nil)
		if err != nil || status != http.StatusOK {
			f.Fatal(status, err)
		}
		if strings.Contains(string(answer), `"ACTIVE"`) {
			return time.Now()
		}
		time.Sleep(pause)
	}
	f.Fatalf("port %s is not ACTIVE within %v", id, patience)
	return time.Time{}
}

// BenchmarkLatency measures how long a new port takes to its first flow and to
// ACTIVE, in clouds of three sizes on 100 hosts, and how long 5,000 ports take.
func BenchmarkLatency(b *testing.B) {
	t := newTable("latency")
	most := *sizes
	f := newFleet(b, *hosts, most)
	peers := map[int][2]string{30: {"15 ms", "24 ms"}, 1000: {"182 ms", "492 ms"}, 10_000: {"439 ms at 5,000", "1,250 ms at 5,000"}}
	for _, size := range sizesUpTo(most) {
		f.grow(size)
		f.oneMore(t, size, peers[size])
		if size == 1000 && most > size {
			f.bulk(t, min(5000, most-size))
		}
	}
	f.restart(t)
}

func (f *fleet) oneMore(t *table, size int, peer [2]string) {
	f.Helper()
	w := f.hosts[0].watchFlows(f.TB, "br-int")
	defer w.stop()
	const rounds, seldom, often = 40, 50 * time.Millisecond, 500 * time.Microsecond
	f.onePort(w, often) // what is done for the first time is not counted
	var posted, plugged, flow, active []time.Duration
	for range rounds {
		a := f.onePort(w, often)
		posted, plugged = append(posted, a.posted), append(plugged, a.plugged)
		flow, active = append(flow, a.flow), append(active, a.active)
	}
	flowMods, units, used, theirs := f.metric("planck_flow_mods_total"), f.metric("planck_compiled_units_total"), f.cpu(), f.hostsCPU()
	for range rounds {
		f.onePort(w, seldom)
	}
	flowMods, units = f.metric("planck_flow_mods_total")-flowMods, f.metric("planck_compiled_units_total")-units
	used, theirs = f.cpu()-used, f.hostsCPU()-theirs
	t.add(row{
		what: fmt.Sprintf("one more port at %s ports: POST → its answer / plugged, p50", count(size)),
		ours: ms(percentile(posted, 50)) + " / " + ms(percentile(plugged, 50)),
	}, row{
		what: fmt.Sprintf("one more port at %s ports: POST → first flow, p50 (p90)", count(size)),
		ours: ms(percentile(flow, 50)) + " (" + ms(percentile(flow, 90)) + ")", peer: peer[0] + " (OVN)", aim: "≤ 10 ms",
	}, row{
		what: fmt.Sprintf("one more port at %s ports: POST → ACTIVE, p50 (p90)", count(size)),
		ours: ms(percentile(active, 50)) + " (" + ms(percentile(active, 90)) + ")", peer: peer[1] + " (OVN)", aim: "≤ 25 ms",
	}, row{
		what: fmt.Sprintf("added and deleted at %s ports: CPU (of the hosts) / units compiled / FLOW_MODs", count(size)),
		ours: fmt.Sprintf("%s (%s) / %.0f / %.0f", ms(used/rounds), ms(theirs/rounds), units/rounds, flowMods/rounds),
		peer: map[int]string{1000: "550 ms (ovn-northd)", 10_000: "1,760 ms (ovn-northd, 5,000)"}[size], aim: "the same at every size",
	}, row{
		what: fmt.Sprintf("memory of the controller at %s ports on %d hosts", count(size), len(f.hosts)),
		ours: fmt.Sprintf("%.0f MiB", residentMiB(f.TB, f.process.Process.Pid)),
	})
}

// bulk adds ports all at once.
func (f *fleet) bulk(t *table, ports int) {
	f.Helper()
	before := f.ports
	f.addNetworks((before + ports) / portsPerNetwork)
	used, theirs := f.cpu(), f.hostsCPU()
	took := f.grow(before + ports)
	used, theirs = f.cpu()-used, f.hostsCPU()-theirs
	t.add(row{
		what: fmt.Sprintf("%s ports in bulk beside %s, until all are ACTIVE (CPU of the controller / of the hosts)", count(ports), count(before)),
		ours: fmt.Sprintf("%s (%s / %s)", ms(took), ms(used), ms(theirs)), peer: "19,400 ms (OVN; northd 3,600 ms)", aim: "≤ 2,000 ms",
	})
}

// restart kills the controller and starts it again: no switch needs anything.
func (f *fleet) restart(t *table) {
	f.Helper()
	f.end()
	start := time.Now()
	f.start()
	ready := time.Since(start)
	f.settled()
	took := time.Since(start)
	var hosts struct{ Hosts []json.RawMessage }
	if err := f.get("/planck/v1/hosts", &hosts); err != nil {
		f.Fatal(err)
	}
	t.add(row{
		what: fmt.Sprintf("controller killed and started at %s ports: ready / all %d hosts read and compared / CPU / FLOW_MODs sent", count(f.ports), len(hosts.Hosts)),
		ours: fmt.Sprintf("%s / %s / %s / %.0f", ms(ready), ms(took), ms(f.cpu()), f.metric("planck_flow_mods_total")), aim: "0 FLOW_MODs",
	})
}
