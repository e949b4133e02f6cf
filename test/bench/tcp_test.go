package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"planck/test/lab"
)

// BenchmarkTCP sends a stream of TCP within a host, through GRE to another and
// to a host in a VLAN of the physical network: over Planck's flows, and over
// switches that only have NORMAL, in a lab of the same kind. What counts is the
// CPU of the hosts' switches, since they share the machine with everything else.
func BenchmarkTCP(b *testing.B) {
	t := newTable("tcp")
	ours, normal := newPlanckPaths(b), newNormalPaths(b)
	for i, what := range []string{"within a host", "through GRE to another host", "to a VLAN"} {
		a, peer := compare(ours[i], normal[i])
		t.add(row{
			what: "TCP " + what + ": CPU of the switches for each Gbit", ours: a.perGbit(), peer: peer.perGbit() + " (NORMAL)",
			ratio: times(a.cpuPerGbit() / peer.cpuPerGbit()), aim: "≤ 1.1×",
		}, row{
			what: "TCP " + what + ": throughput", ours: a.rate(), peer: peer.rate() + " (NORMAL)",
			ratio: times(a.gbits / a.took.Seconds() / (peer.gbits / peer.took.Seconds())),
		})
	}
}

// path is the way of a stream, from a client to a server that listens.
type path struct {
	testing.TB
	lab            *lab.Lab
	client, server *lab.Node
	address        string
}

func newPath(tb testing.TB, l *lab.Lab, client, server *lab.Node, address string) *path {
	tb.Helper()
	listening, err := server.Start("iperf3", "-s", "--forceflush")
	if err != nil {
		tb.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(tb.Context(), patience)
	defer cancel()
	if err := listening.WaitOutput(ctx, "Server listening"); err != nil {
		tb.Fatal(err)
	}
	return &path{tb, l, client, server, address}
}

// stream is what one run of iperf3 came to.
type stream struct {
	gbits     float64
	took, cpu time.Duration
}

func (s stream) cpuPerGbit() float64 { return s.cpu.Seconds() / s.gbits }
func (s stream) perGbit() string     { return fmt.Sprintf("%.2f s", s.cpuPerGbit()) }
func (s stream) rate() string        { return fmt.Sprintf("%.0f Mbit/s", 1000*s.gbits/s.took.Seconds()) }

// send sends so many MiB.
func (p *path) send(mebibytes int) stream {
	p.Helper()
	cpu := p.switchCPU()
	start := time.Now()
	ctx, cancel := context.WithTimeout(p.Context(), patience)
	defer cancel()
	out, err := p.client.Exec(ctx, "iperf3", "-J", "-c", p.address, "-n", fmt.Sprintf("%dM", mebibytes))
	took := time.Since(start)
	if err != nil {
		p.Fatal(err)
	}
	var result struct {
		End struct {
			Received struct{ Bytes, Seconds float64 } `json:"sum_received"`
		}
	}
	if err := json.NewDecoder(strings.NewReader(out)).Decode(&result); err != nil {
		p.Fatalf("iperf3: %v: %s", err, out)
	}
	if r := result.End.Received; r.Seconds > 0 {
		took = time.Duration(r.Seconds * float64(time.Second))
	}
	return stream{result.End.Received.Bytes * 8 / 1e9, took, p.switchCPU() - cpu}
}

func (p *path) switchCPU() (sum time.Duration) {
	p.Helper()
	for _, h := range p.lab.Hosts() {
		sum += processCPU(p.TB, h.VswitchdPID())
	}
	return sum
}

// compare lets two paths take turns; the run with the least CPU counts.
func compare(ours, peer *path) (a, b stream) {
	best := takeTurns(ours, peer)
	return best[0], best[1]
}

// takeTurns sends over each path in turn; of each the run with the least CPU counts.
func takeTurns(paths ...*path) []stream {
	const rounds, mebibytes = 4, 80
	best := make([]stream, len(paths))
	for _, p := range paths {
		p.send(1) // all have met before it counts
	}
	for range rounds {
		for i, p := range paths {
			best[i] = better(best[i], p.send(mebibytes))
		}
	}
	return best
}

func better(a, b stream) stream {
	if a.gbits == 0 || b.cpuPerGbit() < a.cpuPerGbit() {
		return b
	}
	return a
}

const tcpVLAN = 100

// newPlanckPaths are over a gre network and a vlan network.
func newPlanckPaths(tb testing.TB) []*path {
	tb.Helper()
	c := newLabCloud(tb, 2, "[OVS]\nnetwork_vlan_ranges = physnet1:100:199\n")
	gre := c.network("10.1.0.0/24", nil)
	vlan := c.network("10.2.0.0/24", object{
		"provider:network_type": "vlan", "provider:physical_network": "physnet1", "provider:segmentation_id": tcpVLAN,
	})
	a, near, far := c.boot("a", "host1", gre), c.boot("b", "host1", gre), c.boot("c", "host2", gre)
	d := c.boot("d", "host1", vlan)
	for _, v := range []*vm{a, near, far, d} {
		setAddress(tb, v.Node, v.ip.String())
	}
	return []*path{
		newPath(tb, c.lab, a.Node, near.Node, near.ip.String()),
		newPath(tb, c.lab, a.Node, far.Node, far.ip.String()),
		newPath(tb, c.lab, d.Node, physicalHost(tb, c.lab), physicalAddress),
	}
}

// physicalAddress is one that the vlan network does not give out to the first few ports.
const physicalAddress = "10.2.0.200"

func physicalHost(tb testing.TB, l *lab.Lab) *lab.Node {
	tb.Helper()
	n, err := l.AddPhys(tb.Context(), "p", lab.PhysOptions{VLAN: tcpVLAN, Addrs: []string{physicalAddress + "/24"}})
	if err != nil {
		tb.Fatal(err)
	}
	return n
}

// newNormalPaths are over bridges without a controller.
func newNormalPaths(tb testing.TB) []*path {
	tb.Helper()
	l := lab.ForTest(tb, lab.Options{Hosts: 2})
	for i, h := range l.Hosts() {
		peer := l.Hosts()[1-i]
		for _, args := range [][]string{
			{"--may-exist", "add-br", "br-ex", "--", "set", "Bridge", "br-ex", "datapath_type=netdev"},
			{"add-br", "br-int", "--", "set", "Bridge", "br-int", "datapath_type=netdev"},
			{"add-port", "br-int", "gre0", "tag=1", "--", "set", "Interface", "gre0", "type=gre", "options:remote_ip=" + peer.LocalIP(), "options:key=7"},
			{"add-port", "br-int", "to-ex", fmt.Sprintf("trunks=%d", tcpVLAN), "--", "set", "Interface", "to-ex", "type=patch", "options:peer=to-int",
				"--", "add-port", "br-ex", "to-int", "--", "set", "Interface", "to-int", "type=patch", "options:peer=to-ex"},
		} {
			if _, err := h.Vsctl(args...); err != nil {
				tb.Fatal(err)
			}
		}
	}
	boot := func(name, host string, n, tag int, address string) *lab.Node {
		tb.Helper()
		v, err := l.AddVM(tb.Context(), host, name, lab.VMPort{
			ID: fmt.Sprintf("%08d-0000-4000-8000-000000000000", n), MAC: fmt.Sprintf("fa:16:3e:00:00:%02d", n), MTU: 1458,
		})
		if err != nil {
			tb.Fatal(err)
		}
		if _, err := l.Host(host).Vsctl("set", "Port", v.Tap(), fmt.Sprintf("tag=%d", tag)); err != nil {
			tb.Fatal(err)
		}
		setAddress(tb, v.Node, address)
		return v.Node
	}
	a, near, far := boot("a", "host1", 1, 1, "10.1.0.11"), boot("b", "host1", 2, 1, "10.1.0.12"), boot("c", "host2", 3, 1, "10.1.0.13")
	d := boot("d", "host1", 4, tcpVLAN, "10.2.0.14")
	return []*path{
		newPath(tb, l, a, near, "10.1.0.12"),
		newPath(tb, l, a, far, "10.1.0.13"),
		newPath(tb, l, d, physicalHost(tb, l), physicalAddress),
	}
}

func setAddress(tb testing.TB, n *lab.Node, address string) {
	tb.Helper()
	if err := n.SetAddr(tb.Context(), address+"/24"); err != nil {
		tb.Fatal(err)
	}
}
