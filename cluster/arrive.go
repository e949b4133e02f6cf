package cluster

import (
	"slices"
	"time"
)

// A member that starts beside others which have the hosts for a while owns none
// before it hears the switches: until then the others serve them.

const (
	// arriveCalm is how long no further switch may show up before a member takes
	// those that it hears for all.
	arriveCalm = 15 * time.Second
	// togetherTime is how far apart members may start to count as a cluster that
	// starts as a whole: somebody has to own the hosts then.
	togetherTime = 10 * time.Second
)

// arrival counts the switches that a member hears which has just started.
type arrival struct {
	heard int       // the most so far
	since time.Time // when that grew; zero before the first look
}

// over reports whether a member hears all switches, or nothing new any more.
func (a *arrival) over(now time.Time, hosts []string, heard func(host string) time.Time) bool {
	n := 0
	for _, host := range hosts {
		if !heard(host).IsZero() {
			n++
		}
	}
	if a.since.IsZero() || n > a.heard {
		a.heard, a.since = n, now
	}
	return len(hosts) > 0 && n == len(hosts) || now.Sub(a.since) > arriveCalm
}

// established reports whether a member other than one has owned hosts for a while.
func (s *state) established(now time.Time, besides string) bool {
	return slices.ContainsFunc(s.Members, func(m Member) bool {
		return m.Name != besides && m.Alive && !m.Leaving && now.Sub(m.Joined) > togetherTime
	})
}

// arrive makes this member own hosts when it is time.
func (c *Cluster) arrive(a *arrival) {
	if c.arriving.Load() && a.over(time.Now(), c.switches.HostNames(), c.switches.Heard) {
		c.arriving.Store(false)
		c.log.Info("cluster: this member has arrived", "member", c.opt.Name, "switches", a.heard)
		c.beatNow()
	}
}

// awaitSwitches decides whether this member arrives: it begins to when it starts
// beside others, and ends when none of them is left to serve the hosts meanwhile.
func (c *Cluster) awaitSwitches(s *snapshot, starts bool) {
	beside := s.established(s.now, c.opt.Name)
	switch {
	case starts && beside && c.switches != nil:
		c.arriving.Store(true)
	case !beside:
		c.arriving.Store(false)
	}
}
