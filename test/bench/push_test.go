package bench

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"planck/flows"
)

// BenchmarkPush pushes flows into an empty bridge: our session's bundle, the
// bundle of ovs-ofctl, and bytes that were made before, with one barrier, which
// is as fast as the switch can be. All three take turns on one switch.
func BenchmarkPush(b *testing.B) {
	t := newTable("push")
	p := newProgrammed(b)
	for _, n := range []int{10_000, 50_000} {
		p.push(t, realFlows(b, n))
	}
}

// pushRounds is how many turns each takes. The fastest counts: what else the
// machine does can only make a turn slower.
const pushRounds = 7

func (p *programmed) push(t *table, list []*flows.Flow) {
	p.Helper()
	n := len(list)
	file := p.host.file("flows.txt")
	writeFlowFile(p.TB, file, list)
	plain, bundle := plainBytes(flows.FlowAdd, list), bundleBytes(list)
	var ours, ourCPU, ourSwitchCPU, ofctl, replay, replaySwitchCPU, replayBundle []time.Duration
	for range pushRounds {
		took, cpu, switchCPU := p.want(list)
		ours, ourCPU, ourSwitchCPU = append(ours, took), append(ourCPU, cpu), append(ourSwitchCPU, switchCPU)
		p.want(nil)

		ofctl = append(ofctl, p.timed(func() { p.run("--bundle", "add-flows", "br-peer", file) }))
		p.clearPeer()
		used := p.switchCPU()
		replay = append(replay, p.timed(func() { p.replay("br-peer", plain) }))
		replaySwitchCPU = append(replaySwitchCPU, p.switchCPU()-used)
		p.clearPeer()
		replayBundle = append(replayBundle, p.timed(func() { p.replay("br-peer", bundle) }))
		p.clearPeer()
	}
	what := func(peer string) string { return fmt.Sprintf("%s flows, %s", count(n), peer) }
	add := func(peer string, took time.Duration, aim string) {
		t.add(row{
			what: what(peer), ours: perSecond(n, slices.Min(ours)), peer: perSecond(n, took),
			ratio: times(took.Seconds() / slices.Min(ours).Seconds()), aim: aim,
		})
	}
	add("against `ovs-ofctl --bundle add-flows`", slices.Min(ofctl), "≥ 1.8×")
	add("against FLOW_MODs made before, pipelined", slices.Min(replay), "≥ 0.9×")
	add("against the same bundle's bytes, pipelined", slices.Min(replayBundle), "≥ 0.9×")
	t.add(row{
		what: what("our CPU for each 10,000"), ours: ms(slices.Min(ourCPU) * 10_000 / time.Duration(n)), aim: "≤ 30 ms",
	}, row{
		what: what("CPU of the switch for each flow: our bundle / FLOW_MODs"),
		ours: us(slices.Min(ourSwitchCPU) / time.Duration(n)), peer: us(slices.Min(replaySwitchCPU) / time.Duration(n)),
		ratio: times(slices.Min(replaySwitchCPU).Seconds() / slices.Min(ourSwitchCPU).Seconds()),
	})
	p.ReportMetric(float64(n)/slices.Min(ours).Seconds(), fmt.Sprintf("flows/s@%d", n))
}

func (p *programmed) ReportMetric(v float64, unit string) { p.TB.(*testing.B).ReportMetric(v, unit) }

func (p *programmed) timed(do func()) time.Duration {
	start := time.Now()
	do()
	return time.Since(start)
}

// run is ovs-ofctl on the host.
func (p *programmed) run(args ...string) {
	p.Helper()
	if out, err := p.host.command("ovs-ofctl", append([]string{"-OOpenFlow13"}, args...)...).CombinedOutput(); err != nil {
		p.Fatalf("ovs-ofctl %s: %v: %s", strings.Join(args, " "), err, out)
	}
}

func (p *programmed) clearPeer() {
	p.Helper()
	p.run("del-flows", "br-peer")
}

func writeFlowFile(tb testing.TB, file string, list []*flows.Flow) {
	tb.Helper()
	f, err := os.Create(file)
	if err != nil {
		tb.Fatal(err)
	}
	w := bufio.NewWriter(f)
	for _, flow := range list {
		fmt.Fprintln(w, flow)
	}
	if err := w.Flush(); err != nil {
		tb.Fatal(err)
	}
	if err := f.Close(); err != nil {
		tb.Fatal(err)
	}
}

const barrierXID = 0xffffff

func plainBytes(command uint8, list []*flows.Flow) []byte {
	var b []byte
	for i, f := range list {
		b = flows.AppendFlowMod(b, uint32(i), command, f)
	}
	return flows.AppendBarrierRequest(b, barrierXID)
}

func bundleBytes(list []*flows.Flow) []byte {
	const id, flags = 1, flows.BundleAtomic | flows.BundleOrdered
	b := flows.AppendBundleControl(nil, 1, id, flows.BundleOpen, flags)
	for i, f := range list {
		b = flows.AppendBundleFlowMod(b, uint32(i), id, flags, flows.FlowAdd, f)
	}
	b = flows.AppendBundleControl(b, 2, id, flows.BundleClose, flags)
	b = flows.AppendBundleControl(b, 3, id, flows.BundleCommit, flags)
	return flows.AppendBarrierRequest(b, barrierXID)
}

// replay writes bytes to a bridge and waits for the reply to the barrier.
func (p *programmed) replay(bridge string, b []byte) {
	p.Helper()
	conn, err := net.Dial("unix", p.host.file(bridge+".mgmt"))
	if err != nil {
		p.Fatal(err)
	}
	defer conn.Close()
	in := bufio.NewReader(conn)
	answered := make(chan error, 1)
	go func() { answered <- awaitBarrier(in) }()
	if _, err := conn.Write(append(flows.AppendHello(nil, 0), b...)); err != nil {
		p.Fatal(err)
	}
	if err := <-answered; err != nil {
		p.Fatal(err)
	}
}

// awaitBarrier reads until the barrier is answered; an error message is a failure.
func awaitBarrier(in *bufio.Reader) error {
	const typeError, typeBarrierReply = 1, 21
	for {
		var header [8]byte
		if _, err := io.ReadFull(in, header[:]); err != nil {
			return err
		}
		body := make([]byte, binary.BigEndian.Uint16(header[2:])-8)
		if _, err := io.ReadFull(in, body); err != nil {
			return err
		}
		switch header[1] {
		case typeError:
			return fmt.Errorf("the switch refuses: %x", body)
		case typeBarrierReply:
			return nil
		}
	}
}
