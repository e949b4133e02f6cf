package controller

import (
	"net/netip"
	"time"

	"golang.org/x/time/rate"

	"planck/pipeline"
)

// sender is what a bucket is kept for: a class of punts from one port.
type sender struct {
	feature pipeline.FeatureID
	table   uint8 // a feature may send up questions from one, and answers from another
	fromVIF bool
	port    uint32     // the port's key, or in_port for what comes from a wire
	hop     netip.Addr // that a packet waits for which came from another host's port
}

// silencePause is how long one drop flow is taken to be at work: no other is
// sent for the same port meanwhile.
const silencePause = time.Second

// maxSenders is when buckets that are full again are thrown away.
const maxSenders = 4096

type bucket struct {
	limiter  *rate.Limiter
	silenced time.Time
}

// limits are the buckets of one switch. They are used by the reader alone.
type limits struct {
	rate    rate.Limit // packets a second of one port and class; 0 is no limit
	buckets map[sender]*bucket
}

func newLimits(perSecond float64) *limits {
	return &limits{rate: rate.Limit(perSecond), buckets: make(map[sender]*bucket)}
}

// allow takes a token. When there is none, silence tells whether it is time to
// send a drop flow.
func (l *limits) allow(from sender, now time.Time) (ok, silence bool) {
	if l.rate == 0 {
		return true, false
	}
	b := l.buckets[from]
	if b == nil {
		l.prune(now)
		weight := pipeline.PuntWeight(from.feature)
		b = &bucket{limiter: rate.NewLimiter(l.rate*rate.Limit(weight), l.burst()*weight)}
		l.buckets[from] = b
	}
	if b.limiter.AllowN(now, 1) {
		return true, false
	}
	if !from.fromVIF || now.Sub(b.silenced) < silencePause {
		return false, false
	}
	b.silenced = now
	return false, true
}

// burst is a second's worth of packets, at least one.
func (l *limits) burst() int { return max(1, int(l.rate)) }

func (l *limits) prune(now time.Time) {
	if len(l.buckets) < maxSenders {
		return
	}
	for from, b := range l.buckets {
		if b.limiter.TokensAt(now) >= float64(b.limiter.Burst()) {
			delete(l.buckets, from)
		}
	}
}
