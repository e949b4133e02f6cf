package bench

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"testing"
	"time"

	"planck/network"
	"planck/pipeline"
)

// compiled is a cloud with the flows that follow from it.
type compiled struct {
	*cloud
	follower *network.Follower
	compiler *pipeline.Compiler
}

// newCompiled compiles a cloud from scratch; took and cpu are what that needs.
func newCompiled(tb testing.TB, c *cloud) (w *compiled, took, cpu time.Duration) {
	tb.Helper()
	w = &compiled{cloud: c, follower: c.store.Follow(), compiler: pipeline.NewCompiler(pipeline.Options{})}
	tb.Cleanup(w.follower.Close)
	batch, err := w.follower.Next(context.Background())
	if err != nil {
		tb.Fatal(err)
	}
	start, used := time.Now(), ownCPU()
	out := w.compiler.Apply(batch)
	took, cpu = time.Since(start), ownCPU()-used
	for _, err := range out.Errors {
		tb.Error(err)
	}
	return w, took, cpu
}

// step is what one transaction led to.
type step struct {
	units, changed int // flows, groups and meters that may have to be sent
	cpu            time.Duration
}

func (w *compiled) step(fn func(tx *network.Tx) error) step {
	w.Helper()
	w.do(fn)
	batch, err := w.follower.Next(context.Background())
	if err != nil {
		w.Fatal(err)
	}
	used := ownCPU()
	out := w.compiler.Apply(batch)
	s := step{units: out.Units, cpu: ownCPU() - used}
	for _, dirty := range out.Dirty {
		s.changed += len(dirty.Flows) + len(dirty.Groups) + len(dirty.Meters)
	}
	return s
}

// onePort adds, plugs and removes one more port of a network, on a host that has
// one already, and tells what adding and plugging it led to.
func (w *compiled) onePort(i int) step {
	w.Helper()
	steps := []step{
		w.step(func(tx *network.Tx) error { return createPort(tx, i, 0, hostName(0)) }),
		w.step(func(tx *network.Tx) error { return plugExtra(tx, i, hostName(0)) }),
	}
	w.step(func(tx *network.Tx) error { return tx.DeletePort(portID(i)) })
	return step{steps[0].units + steps[1].units, steps[0].changed + steps[1].changed, steps[0].cpu + steps[1].cpu}
}

func (w *compiled) flows() (n int) {
	for t := range w.compiler.Targets() {
		w.compiler.Read(t, func(s pipeline.State) { n += len(s.Desired.Flows) })
	}
	return n
}

// sizesUpTo are the sizes of the cloud that one more port is added to.
func sizesUpTo(most int) []int {
	return slices.DeleteFunc([]int{30, 1000, 10_000}, func(n int) bool { return n > most })
}

// BenchmarkCompile measures the compiler: the whole cloud from scratch, then
// one more port at every size.
func BenchmarkCompile(b *testing.B) {
	t := newTable("compile")
	for _, size := range sizesUpTo(*sizes) {
		w := compileFromScratch(b, t, size)
		const rounds = 200
		var cpu time.Duration
		var one step
		for i := range rounds {
			one = w.onePort(w.ports + i)
			cpu += one.cpu
		}
		b.ReportMetric(float64(cpu.Microseconds())/rounds, fmt.Sprintf("µs/port@%d", size))
		t.add(row{
			what: fmt.Sprintf("one more port at %s ports: units compiled / flows and groups that change", count(size)),
			ours: fmt.Sprintf("%d / %d", one.units, one.changed), aim: "the same at every size",
		}, row{
			what: fmt.Sprintf("one more port at %s ports: CPU of the compiler", count(size)),
			ours: ms(cpu / rounds), aim: "≤ 2 ms",
		})
		w.follower.Close()
	}
}

func compileFromScratch(b *testing.B, t *table, size int) *compiled {
	before := heap()
	c := newCloud(b, 100, size)
	model := heap()
	w, took, cpu := newCompiled(b, c)
	after := heap()
	runtime.KeepAlive(w)
	per := func(bytes uint64) string { return fmt.Sprintf("%.1f KiB", float64(bytes)/float64(size)/1024) }
	t.add(row{
		what: fmt.Sprintf("%s ports, %s networks, 100 hosts from scratch", count(size), count(size/portsPerNetwork)),
		ours: fmt.Sprintf("%s (CPU %s), %s flows", ms(took), ms(cpu), count(w.flows())),
	}, row{
		what: fmt.Sprintf("memory per port at %s ports: model / flows", count(size)),
		ours: per(model-before) + " / " + per(after-model),
	})
	return w
}

// BenchmarkOnePort compiles one more port, plugged, and its end.
func BenchmarkOnePort(b *testing.B) {
	for _, size := range sizesUpTo(*sizes) {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			w, _, _ := newCompiled(b, newCloud(b, 100, size))
			b.ReportAllocs()
			for b.Loop() {
				w.onePort(w.ports)
			}
		})
	}
}

// BenchmarkFromScratch compiles whole clouds on 100 hosts.
func BenchmarkFromScratch(b *testing.B) {
	for _, size := range sizesUpTo(*sizes) {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			c := newCloud(b, 100, size)
			b.ReportAllocs()
			for b.Loop() {
				w, _, _ := newCompiled(b, c)
				w.follower.Close()
			}
		})
	}
}
