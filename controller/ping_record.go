package controller

import (
	"fmt"

	"planck/pipeline"
	"planck/trace"
)

// hop is what the flows of a hop have counted. All packets were there if the last
// flow that counted nothing before has counted each: what comes to it came past the
// others, or by a way beside them, as by another tunnel port.
func (p *ping) hop(h *trace.Hop) (counted []uint64, busy []bool, seen bool) {
	of := pipeline.Target{Host: h.Host, Bridge: h.Bridge}
	for _, s := range h.Steps {
		if s.Flow == nil {
			counted, busy = append(counted, 0), append(busy, false)
			continue
		}
		n, was := p.counted[of][s.Flow.Key()], p.quiet[of][s.Flow.Key()] > 0
		counted, busy = append(counted, n), append(busy, was)
		if !was {
			seen = n >= uint64(p.sent)
		}
	}
	return counted, busy, seen
}

// seen reports whether all packets were counted on the whole way.
func (p *ping) seen() bool {
	for i := range p.result.Hops {
		if _, _, seen := p.hop(&p.result.Hops[i]); !seen {
			return false
		}
	}
	return len(p.result.Hops) > 0 && p.sent > 0
}

// answer is whether something came back to the sender's port.
func (p *ping) answer() string {
	switch {
	case p.traced.Verdict == verdictAnswered && p.seen():
		return AnswerSeen
	case p.back == nil || p.counted[p.backOn] == nil || p.quiet[p.backOn][p.back.Key()] > 0:
		return AnswerUnknown
	case p.counted[p.backOn][p.back.Key()] > 0:
		return AnswerSeen
	}
	return AnswerNone
}

func (p *ping) record() *PingRecord {
	r := &PingRecord{Verdict: p.traced.Verdict, Sent: p.sent, Seen: p.seen(), Answer: AnswerUnknown, Packet: p.traced.Packet, Hops: []PingHop{}, Findings: p.traced.Findings}
	if p.sent > 0 {
		r.Answer = p.answer()
	}
	last := ""
	for i := range p.result.Hops {
		h := PingHop{TraceHop: p.traced.Hops[i]}
		h.Counted, h.Busy, h.Seen = p.hop(&p.result.Hops[i])
		if err := p.failed[pipeline.Target{Host: h.Host, Bridge: h.Bridge}]; err != nil {
			h.Problem = err.Error()
		}
		if !h.Seen && last == "" {
			last = fmt.Sprintf("%s %s", h.Host, h.Bridge)
		}
		r.Hops = append(r.Hops, h)
	}
	r.Summary = p.summary(r, last)
	return r
}

// summary is where packets got to in words; unseen is the first bridge that has
// not counted them.
func (p *ping) summary(r *PingRecord, unseen string) string {
	switch {
	case r.Sent == 0:
		return "nothing was sent: " + p.traced.Summary
	case !r.Seen:
		return fmt.Sprintf("%s sent; the flows of %s do not show that they came there, on the way that should end so: %s", packets(r.Sent), unseen, p.traced.Summary)
	}
	text := fmt.Sprintf("%s, counted on the whole way: %s", packets(r.Sent), p.traced.Summary)
	if r.Verdict != trace.Delivered && r.Verdict != trace.Outside {
		return text
	}
	switch r.Answer {
	case AnswerSeen:
		return text + "; answered: something came back to the sender's port"
	case AnswerNone:
		return text + "; nothing came back to the sender's port"
	}
	return text + "; whether something came back can't be told: the sender gets other packets too"
}

func packets[T int | uint64](n T) string {
	if n == 1 {
		return "1 packet"
	}
	return fmt.Sprintf("%d packets", n)
}
