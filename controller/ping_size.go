package controller

import (
	"context"
	"fmt"

	"planck/network"
	"planck/trace"
)

const (
	// pingSizes is how many sizes one look for the largest that passes tries.
	pingSizes = 64
	// pingLooks is how many such looks there are: up to an MTU of 4,000 or so the
	// second is exact.
	pingLooks = 2
)

// checkSize refuses sizes that no packet of the question has, or that the
// sender's machine would split.
func checkSize(view *network.View, q trace.Question, size int) error {
	if size == 0 {
		return nil
	}
	if least := headersOf(q); size < least {
		return network.Errorf(network.Invalid, "PingInvalid", "%d bytes are less than the headers of the packet, which are %d", size, least)
	}
	if n := view.Network(q.From.NetworkID); n != nil && size > n.MTU {
		return network.Errorf(network.Invalid, "PingInvalid", "%d bytes are more than the MTU of network %s, which is %d: a machine sends them in fragments", size, called(n.Name, n.ID), n.MTU)
	}
	return nil
}

// headersOf is the length of the headers of a packet, from that of IP on.
func headersOf(q trace.Question) int {
	length := 20
	if !q.Dst.Is4() {
		length = 40
	}
	if q.Protocol == trace.TCP {
		return length + 20
	}
	return length + 8
}

// payloadOf is what fills a packet up to its size; 0 is for a short one.
func payloadOf(q trace.Question, size int) []byte {
	const text = "planck ping"
	if size == 0 {
		return []byte(text)
	}
	filled := make([]byte, size-headersOf(q))
	copy(filled, text)
	return filled
}

// narrow looks for the largest size that gets to where packets of the size that was
// asked for are lost, and puts it into the record. Packets of many sizes are sent at
// once: that n of them are counted says that the n smallest passed.
func (p *ping) narrow(ctx context.Context, r *PingRecord, size int) error {
	at := 0
	for at < len(r.Hops) && r.Hops[at].Seen {
		at++
	}
	if size <= pingSize || r.Sent == 0 || at == 0 || at == len(r.Hops) {
		return nil
	}
	passes, lost := 0, size
	for range pingLooks {
		sizes := between(max(passes, pingSize-1), lost)
		if len(sizes) == 0 {
			break
		}
		if err := p.round(ctx, sizes); err != nil {
			return err
		}
		n, known := p.arrived(at)
		if !known {
			return nil // the flows there count other packets too
		}
		if n = min(n, len(sizes)); n > 0 {
			passes = sizes[n-1]
		}
		if n < len(sizes) {
			lost = sizes[n]
		}
		if n == 0 && passes == 0 {
			break
		}
	}
	r.Passes = &passes
	r.Findings = append(r.Findings, p.narrowLink(r, at))
	return nil
}

// between are sizes that lie even between one that passes and one that is lost.
func between(passes, lost int) []int {
	gap := lost - passes
	n := min(pingSizes, gap-1)
	sizes := make([]int, 0, max(n, 0))
	for i := 1; i <= n; i++ {
		sizes = append(sizes, passes+i*gap/(n+1))
	}
	return sizes
}

// arrived is how many packets the flows from a hop on have counted, false where all
// of them count others too. Something else may come along meanwhile, which the more
// special flows don't count: so it is the least that any has, but for those that the
// packets came past.
func (p *ping) arrived(at int) (n int, known bool) {
	for i := at; i < len(p.result.Hops); i++ {
		h, last := &p.result.Hops[i], -1
		counted, busy, _ := p.hop(h)
		for k, s := range h.Steps {
			if s.Flow == nil || busy[k] {
				continue
			}
			last = int(counted[k])
			if last > 0 && (!known || last < n) {
				n, known = last, true
			}
		}
		if last == 0 {
			return 0, true
		}
	}
	return n, known
}

// narrowLink says between what packets are lost, and which are not.
func (p *ping) narrowLink(r *PingRecord, at int) Finding {
	from, to := &r.Hops[at-1], &r.Hops[at]
	link := fmt.Sprintf("between host %s and host %s", from.Host, to.Host)
	if from.Host == to.Host {
		link = fmt.Sprintf("between %s and %s of host %s", from.Bridge, to.Bridge, to.Host)
	}
	if *r.Passes == 0 {
		return Finding{fmt.Sprintf("packets of %d bytes are lost %s, and of any size from %d on", r.Size, link, pingSize), "is the link between them up? planck explain host " + to.Host}
	}
	mend := "give all links between them a larger MTU"
	if n := p.tracer.view.Network(p.tracer.asked.From.NetworkID); n != nil {
		mend += fmt.Sprintf(", or network %s a smaller one than %d", called(n.Name, n.ID), n.MTU)
	}
	return Finding{fmt.Sprintf("packets of %d bytes are lost %s, those of %d pass", r.Size, link, *r.Passes), mend}
}

// round watches the counters, sends a packet of each size, and watches them again.
func (p *ping) round(ctx context.Context, sizes []int) error {
	before := p.read(ctx)
	if err := wait(ctx, pingQuiet); err != nil {
		return err
	}
	start := p.read(ctx)
	p.quiet, p.sent = start.since(before), 0
	for i, size := range sizes {
		if err := p.send(i, size); err != nil {
			return err
		}
		p.sent++
	}
	return p.watch(ctx, start)
}
