package bench

import (
	"fmt"
	"testing"
	"time"

	"planck/flows"
)

// BenchmarkReconnect cuts the connection of a switch with 50,000 flows: first
// all are right, then one in a hundred was deleted or changed meanwhile.
func BenchmarkReconnect(b *testing.B) {
	t := newTable("reconnect")
	const n = 50_000
	p := newProgrammed(b)
	list := realFlows(b, n)
	p.want(list)

	dump := p.fastest(func() (took time.Duration) { return p.timed(func() { p.run("dump-flows", "br-int") }) })
	right := p.reconnect(n, nil)
	const part = 100
	wrong := p.reconnect(n, func() { p.damage(list, part) })

	t.add(row{
		what: count(n) + " right flows: from accept until read and compared", ours: ms(right.took), peer: ms(dump) + " (`ovs-ofctl dump-flows`)",
		ratio: times(dump.Seconds() / right.took.Seconds()),
	}, row{
		what: "CPU for each flow: ours / the switch's",
		ours: us(right.ours/n) + " / " + us(right.theirs/n),
	}, row{
		what: "FLOW_MODs sent to it", ours: fmt.Sprint(right.flowMods), aim: "0",
	}, row{
		what: fmt.Sprintf("%d of them deleted, %d changed: until mended", n/part/2, n/part/2), ours: ms(wrong.took),
	}, row{
		what: "FLOW_MODs sent to it, with the canary", ours: fmt.Sprint(wrong.flowMods), aim: fmt.Sprint(n/part + 1),
	})
}

// reconnection is what a new session did, and what that took.
type reconnection struct {
	took, ours, theirs time.Duration
	flowMods           uint64
}

// reconnect cuts the connection, does something behind our back before the
// switch dials again, and waits until all is as it should be. The fastest of a
// few times counts.
func (p *programmed) reconnect(n int, before func()) (best reconnection) {
	p.Helper()
	for range 3 {
		if before != nil {
			before()
		}
		last := p.listener.lastAccept()
		p.listener.cut()
		for p.listener.lastAccept().Equal(last) {
			time.Sleep(100 * time.Microsecond)
		}
		r := reconnection{ours: ownCPU(), theirs: p.switchCPU()}
		done := p.wait(n)
		r.took, r.ours, r.theirs = done.Sub(p.listener.lastAccept()), ownCPU()-r.ours, p.switchCPU()-r.theirs
		r.flowMods = p.bridge().FlowMods
		if best.took == 0 || r.took < best.took {
			best = r
		}
	}
	return best
}

func (p *programmed) fastest(measure func() time.Duration) time.Duration {
	return min(measure(), measure(), measure())
}

// damage deletes every second, and changes every other, of one in so many flows.
func (p *programmed) damage(list []*flows.Flow, part int) {
	p.Helper()
	var changed, deleted []*flows.Flow
	for i := 0; i < len(list); i += part {
		if i/part%2 == 0 {
			deleted = append(deleted, list[i])
			continue
		}
		f := *list[i]
		f.Instructions = flows.Do(flows.Output(1))
		changed = append(changed, &f)
	}
	p.replay("br-int", plainBytes(flows.FlowAdd, changed))
	p.replay("br-int", plainBytes(flows.FlowDeleteStrict, deleted))
}
