package e2e

import (
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"planck/test/lab"
	"planck/test/pg"
)

var (
	chaosSeed = flag.Uint64("chaos.seed", 1, "seed of the chaos of a cluster")
	chaosTime = flag.Duration("chaos.time", 0, "how long it lasts; 0 is each fault once, for two seconds")
)

// chaos is a cluster that is broken on purpose: each member has its own way to
// the database and its own address for the switches.
type chaos struct {
	*cloud
	*rand.Rand
	members members
	server  *pg.Server
	ways    []*pg.Way
	address []string
	network string
	server6 string // the link-local address of its DHCP server
	vms     []*vm  // two on each host: one is pinged and asks, one runs DHCP
	watched watch
	results []result
}

// result is what a fault did.
type result struct {
	broken
	sent, lost int
	gap        time.Duration            // the longest in established traffic
	silence    map[string]time.Duration // of packet-in services, by host
	whole      time.Duration            // from the end of the fault until all is as before
}

func newChaos(t *testing.T, hosts int) *chaos {
	t.Helper()
	x := &chaos{Rand: rand.New(rand.NewPCG(*chaosSeed, 0)), server: pg.StartServer(t)}
	dsn := x.server.Database(t)
	l := lab.ForTest(t, lab.Options{Hosts: hosts})
	var dsns []string
	for range 3 {
		way := pg.NewWay(t, dsn)
		x.ways, dsns = append(x.ways, way), append(dsns, way.DSN)
	}
	x.members, x.address = newMembersApart(t, l, dsns, "")
	x.cloud = x.members[0]
	x.members.meet()
	x.network = x.cloud.network("blue", "10.0.0.0/16", nil)
	x.subnet6(x.network, "fd00::/64", nil)
	_, servers := x.call(http.MethodGet, "/v2.0/ports?device_owner=network:dhcp", nil)
	x.server6 = linkLocal(t, servers["ports"].([]any)[0].(object)["mac_address"].(string))
	for i, h := range l.Hosts() {
		for _, name := range []string{"steady", "client"} {
			v := x.boot(fmt.Sprintf("%s%d", name, i+1), h.Name(), x.network, nil)
			if _, err := v.DHCP(t.Context()); err != nil {
				t.Fatal(err)
			}
			x.vms = append(x.vms, v)
		}
	}
	x.reaches(x.vms[0].Node, x.vms[2].ip())
	return x
}

// fault is one that lasts until heal is called.
type fault struct {
	what  string
	begin func(x *chaos, member int) (heal func())
}

// broken is what a fault broke.
type broken struct {
	kind, what string
	heal       func()
}

// faults of a member.
var (
	killed = fault{"killed", func(x *chaos, member int) func() {
		x.members[member].kill(syscall.SIGKILL)
		return x.members[member].start
	}}
	stopped = fault{"stopped", func(x *chaos, member int) func() {
		process := x.members[member].process.Process
		x.must(process.Signal(syscall.SIGSTOP))
		return func() { x.must(process.Signal(syscall.SIGCONT)) }
	}}
	withoutDatabase = fault{"cut off from PostgreSQL", func(x *chaos, member int) func() {
		x.ways[member].Cut()
		return x.ways[member].Mend
	}}
	hungUp = fault{"refused by PostgreSQL", func(x *chaos, member int) func() {
		x.ways[member].Break()
		return x.ways[member].Mend
	}}
	withoutSwitches = fault{"cut off from the switches", func(x *chaos, member int) func() {
		for _, h := range x.lab.Hosts() {
			x.must(h.Cut(x.address[member]))
		}
		return func() {
			for _, h := range x.lab.Hosts() {
				x.must(h.Mend(x.address[member]))
			}
		}
	}}
)

func (x *chaos) must(err error) {
	x.Helper()
	if err != nil {
		x.Fatal(err)
	}
}

// round makes the faults of a round in a random order: each kind once.
func (x *chaos) round() (round []func() broken) {
	kinds := []fault{killed, stopped, withoutDatabase, hungUp, withoutSwitches}
	for _, kind := range kinds {
		round = append(round, func() broken {
			member := x.victim()
			return broken{"a member " + kind.what, memberName(member) + " " + kind.what, kind.begin(x, member)}
		})
	}
	round = append(round, func() broken {
		x.server.Kill(x.T)
		return broken{"PostgreSQL killed", "PostgreSQL killed", func() { x.server.Restart(x.T) }}
	}, func() broken {
		one := x.victim()
		other := (one + 1 + x.IntN(2)) % 3
		first, second := kinds[x.IntN(len(kinds))], kinds[x.IntN(len(kinds))]
		healFirst, healSecond := first.begin(x, one), second.begin(x, other)
		what := fmt.Sprintf("%s %s, %s %s", memberName(one), first.what, memberName(other), second.what)
		return broken{"two members at once", what, func() { healFirst(); healSecond() }}
	})
	x.Shuffle(len(round), func(i, j int) { round[i], round[j] = round[j], round[i] })
	return round
}

// victim is mostly a member that owns the first host.
func (x *chaos) victim() int {
	if x.IntN(4) == 0 {
		return x.IntN(3)
	}
	return slices.Index(x.members, x.members.ownerOf("host1"))
}

// lasts is how long a fault lasts: up to a minute where there is time.
func (x *chaos) lasts() time.Duration {
	if *chaosTime == 0 {
		return 2 * time.Second
	}
	longest := 8 * time.Second
	if x.IntN(4) == 0 {
		longest = time.Minute
	}
	return time.Second + time.Duration(x.Int64N(int64(longest)))
}

// watch is the traffic that tells what a fault did.
type watch struct {
	stream *lab.PingStream            // established traffic
	probes map[string]*lab.PingStream // of packet-in services, by host
}

func (x *chaos) watch() watch {
	x.Helper()
	stream, err := x.vms[0].PingStream(x.within(settle), x.vms[2].ip())
	x.must(err)
	w := watch{stream, map[string]*lab.PingStream{}}
	for i, h := range x.lab.Hosts() {
		w.probes[h.Name()] = x.probe(x.vms[2*i])
	}
	return w
}

// stop tells what was seen.
func (w watch) stop(x *chaos) (established lab.PingStats, silence map[string]time.Duration) {
	x.Helper()
	silence = map[string]time.Duration{}
	for host, p := range w.probes {
		stats, err := p.Stop()
		x.must(err)
		silence[host] = stats.LongestGap * probeInterval / streamInterval
	}
	established, err := w.stream.Stop()
	x.must(err)
	return established, silence
}

// strike breaks something under traffic, heals it, and waits until all is well.
// It is watched until there is another watch: what comes later counts as well.
func (x *chaos) strike(begin func() broken) {
	x.Helper()
	r := result{broken: begin()}
	x.Logf("%s: %s", time.Now().UTC().Format(time.TimeOnly), r.what)
	time.Sleep(x.lasts())
	healed := time.Now()
	r.heal()
	x.members.whole()
	r.whole = time.Since(healed)
	old := x.watched
	x.watched = x.watch()
	var stats lab.PingStats
	stats, r.silence = old.stop(x)
	r.sent, r.lost, r.gap = stats.Sent, stats.Lost, stats.LongestGap
	if err := stats.Whole(); err != nil {
		x.Errorf("%s: %v", r.what, err)
	}
	x.results = append(x.results, r)
}

const (
	streamInterval = 10 * time.Millisecond
	probeInterval  = 100 * time.Millisecond
)

// probe asks for something that only a controller answers, ten times a second: a
// DHCP server is pinged by its link-local address.
func (x *chaos) probe(v *vm) *lab.PingStream {
	x.Helper()
	s, err := v.PingStream(x.within(settle), x.server6+"%eth0", "-i", "0.1")
	x.must(err)
	return s
}

// TestChaosLosesNothing breaks a cluster of three in every way that it has to
// survive, while it is written to, VMs talk and machines boot.
func TestChaosLosesNothing(t *testing.T) {
	t.Parallel()
	hosts := 2
	if *chaosTime > 0 {
		hosts = 3
	}
	x := newChaos(t, hosts)
	leases := x.leases()
	ledger := x.write()
	x.watched = x.watch()
	begin := time.Now()
	for round := true; round; round = time.Since(begin) < *chaosTime {
		for _, fault := range x.round() {
			x.strike(fault)
			if *chaosTime > 0 && time.Since(begin) > *chaosTime {
				break
			}
		}
	}
	x.watched.stop(x)
	ledger.finish()
	answered := leases()
	x.check()
	x.report()
	x.prompt()
	t.Logf("seed %d: DHCP: %v", *chaosSeed, answered)
	if err := answered.wrong(); err != nil {
		t.Error(err)
	}
}

// leases runs DHCP on a VM of each host over and over.
func (x *chaos) leases() (stop func() *exchanges) {
	var stops []func() *exchanges
	for i := 1; i < len(x.vms); i += 2 {
		stops = append(stops, (&fire{cloud: x.cloud}).leases(x.vms[i]))
	}
	return func() *exchanges {
		all := &exchanges{}
		for _, stop := range stops {
			e := stop()
			all.got += e.got
			all.took(e.longest, e.began)
			all.failed = append(all.failed, e.failed...)
		}
		return all
	}
}

// check proves that nothing is left of it: each switch has what the model
// wants, as each member sees it.
func (x *chaos) check() {
	x.Helper()
	for i, c := range x.members {
		for _, h := range x.lab.Hosts() {
			x.eventually(fmt.Sprintf("%s is as %s has the model", h.Name(), memberName(i)), func() error {
				out, err := exec.CommandContext(x.Context(), controllerBinary, "diff", h.Name(), "--url", c.api).CombinedOutput()
				if err != nil {
					err = fmt.Errorf("planck diff: %w\n%s", err, out)
				}
				return errors.Join(err, (&fire{cloud: c}).undesired(h.Name()))
			})
		}
		for _, v := range x.vms {
			c.waitStatus(v.id(), "ACTIVE")
		}
	}
}

const (
	// silenceLimit is how long packet-in services of a host may be silent after a
	// fault; silenceMargin is for a machine that does nothing else, and busyMargin
	// for one on which other tests run.
	silenceLimit  = 2 * time.Second
	silenceMargin = 2 * time.Second
	busyMargin    = 15 * time.Second
	// slowLimit is for a member that is stopped after it came back again and again:
	// it is given up to eight seconds.
	slowLimit = 8 * time.Second
)

// prompt checks that packet-in services were back in time after each fault.
func (x *chaos) prompt() {
	x.Helper()
	for _, r := range x.results {
		limit := silenceLimit + silenceMargin
		switch {
		case *chaosTime == 0:
			limit = silenceLimit + busyMargin
		case strings.Contains(r.what, stopped.what):
			limit = slowLimit + silenceMargin
		}
		for host, silence := range r.silence {
			if silence > limit {
				x.Errorf("%s: packet-in services of %s were silent for %v, more than %v", r.what, host, silence, limit)
			}
		}
	}
}

// report tells what each fault did.
func (x *chaos) report() {
	var text strings.Builder
	sent, lost, longest := 0, 0, time.Duration(0)
	for _, r := range x.results {
		fmt.Fprintf(&text, "\n%-70s %4d of %5d lost, longest gap %4v; whole %v after;", r.what, r.lost, r.sent, r.gap, r.whole.Round(10*time.Millisecond))
		for _, h := range x.lab.Hosts() {
			fmt.Fprintf(&text, " %s silent for %v", h.Name(), r.silence[h.Name()])
			longest = max(longest, r.silence[h.Name()])
		}
		sent, lost = sent+r.sent, lost+r.lost
	}
	x.Logf("seed %d: %d faults, %d of %d packets lost, packet-in services silent for %v at the most%s", *chaosSeed, len(x.results), lost, sent, longest, text.String())
	x.Logf("how long packet-in services were silent:%s", x.takeOvers())
}

// takeOvers tells, for each kind of fault, how long it silenced packet-in services
// of the hosts that it concerned.
func (x *chaos) takeOvers() string {
	times, silences := map[string]int{}, map[string][]time.Duration{}
	for _, r := range x.results {
		times[r.kind]++
		for _, silence := range r.silence {
			if silence > 0 {
				silences[r.kind] = append(silences[r.kind], silence)
			}
		}
	}
	var text strings.Builder
	for _, kind := range slices.Sorted(maps.Keys(times)) {
		fmt.Fprintf(&text, "\n%-35s %3d times:", kind, times[kind])
		s := slices.Sorted(slices.Values(silences[kind]))
		if len(s) == 0 {
			text.WriteString(" never")
			continue
		}
		fmt.Fprintf(&text, " %d hosts, p50 %v, max %v", len(s), s[(len(s)-1)/2], s[len(s)-1])
	}
	return text.String()
}
