package cluster

import (
	"context"
	"slices"
	"time"
)

// Switches are what a member hears of the hosts.
type Switches interface {
	// HostNames are the hosts of the model.
	HostNames() []string
	// Ask asks the switch of a host for a sign of life.
	Ask(host string)
	// Heard is when the switch last gave one, zero when it is not connected.
	Heard(host string) time.Time
}

// Looks of a member at switches.
const (
	// lookEvery is how often it asks those of its hosts.
	lookEvery = 250 * time.Millisecond
	// missedLooks in a row make it blind to a host, strangeLooks to one that it
	// has not heard yet: its switch may be about to connect.
	missedLooks, strangeLooks = 4, 12
	// steadyLooks in a row make it see again: hosts must not come and go.
	steadyLooks = 8
	// freeLapses into blindness change nothing; each further one doubles how many
	// steady looks it takes, up to maxLapses. Each calmLooks in a row take one away.
	freeLapses = 2
	maxLapses  = freeLapses + 5
	calmLooks  = 120
	// lateLook is when a look comes too late to count what was missed: it is this
	// member that is slow.
	lateLook = lookEvery + 150*time.Millisecond
	// fullMiss is what a missed look counts, and slowMiss what it counts when many hosts
	// miss it and not all, of manyHosts or more: it is mostly this member that is
	// slow to read what they sent, and to others they would be no faster.
	fullMiss, slowMiss = 4, 1
	manyHosts          = 10
)

// vision is what a member says of hosts that are not heard by all.
type vision struct{ blind, sees []string }

// sight judges which hosts a member hears. It counts looks and not time, so that
// a member that was stopped holds that against nobody.
type sight struct{ hosts map[string]*glance }

type glance struct {
	missed, heard int  // looks in a row; of those missed, what they count
	answered      bool // the last one
	met           bool // it was connected
	blind         bool
	connected     bool // at the last look
	hears         bool // since it was blind, and before it is: a look that is missed changes no owner
	lapses        int  // into blindness
}

// look judges the hosts that a member owns, those that it is blind to, and the
// suspects: those that any member is blind to, in order. asked is when the last
// look was, late that this one comes too late to hold silence against a host, and
// heard when a switch gave a sign of life, zero for one that is not connected.
func (s *sight) look(owned, suspects []string, asked time.Time, late bool, heard func(host string) time.Time) vision {
	kept := map[string]*glance{}
	var looked []*glance
	var v vision
	for _, host := range slices.Concat(owned, suspects) {
		if kept[host] != nil {
			continue
		}
		g, last := s.hosts[host], heard(host)
		if g == nil {
			kept[host] = &glance{met: !last.IsZero()} // it was not asked yet
			continue
		}
		kept[host] = g
		g.connected = !last.IsZero()
		g.met = g.met || g.connected
		if g.answered = last.After(asked); g.answered || !late {
			looked = append(looked, g)
		}
	}
	s.hosts = kept
	weight := weigh(looked)
	for _, g := range looked {
		g.note(weight)
	}
	for host, g := range kept {
		if g.blind {
			v.blind = append(v.blind, host)
		} else if _, suspect := slices.BinarySearch(suspects, host); suspect && g.hears {
			v.sees = append(v.sees, host)
		}
	}
	slices.Sort(v.blind)
	slices.Sort(v.sees)
	return v
}

// weigh is what it counts to miss a look of a switch that is connected: a tenth
// of them and more, but not nearly all, do so when this member is slow.
func weigh(looked []*glance) int {
	hosts, missing := 0, 0
	for _, g := range looked {
		if g.blind || !g.connected {
			continue
		}
		hosts++
		if !g.answered {
			missing++
		}
	}
	if hosts >= manyHosts && missing*10 >= hosts && missing*20 < hosts*19 {
		return slowMiss
	}
	return fullMiss
}

func (g *glance) note(weight int) {
	if g.answered {
		g.missed = 0
		g.heard++
		g.hears = true
		g.blind = g.blind && g.heard < steadyLooks<<max(0, g.lapses-freeLapses)
		if !g.blind && g.heard%calmLooks == 0 && g.lapses > 0 {
			g.lapses--
		}
		return
	}
	g.heard = 0
	if !g.connected {
		weight = fullMiss // nothing of it can be waiting to be read
	}
	g.missed += weight
	if !g.blind && (g.missed >= strangeLooks*fullMiss || g.met && g.missed >= missedLooks*fullMiss) {
		g.blind, g.hears = true, false
		g.lapses = min(g.lapses+1, maxLapses)
	}
}

// suspects are the hosts that a living member is blind to.
func (s *state) suspects() []string {
	var hosts []string
	for _, m := range s.Members {
		if m.Alive {
			hosts = append(hosts, m.Blind...)
		}
	}
	slices.Sort(hosts)
	return slices.Compact(hosts)
}

// look watches the switches until ctx ends.
func (c *Cluster) look(ctx context.Context) {
	if c.switches == nil {
		return
	}
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	var s sight
	var a arrival
	asked := time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		last := asked
		asked = time.Now()
		c.arrive(&a)
		c.lookOnce(&s, last, asked.Sub(last) > lateLook)
	}
}

// lookOnce tells the others when what this member hears has changed. One that is
// alone has nobody to give a host to; it does not forget which hosts it lost
// before, since that may be for a moment.
func (c *Cluster) lookOnce(s *sight, asked time.Time, late bool) {
	v := c.view.Load()
	if v == nil || len(v.owners.ranked) < 2 {
		c.sight.Store(nil)
		return
	}
	var owned []string
	known := map[string]bool{}
	for _, host := range c.switches.HostNames() {
		known[host] = true
		if v.owners.of(host) == (owner{c.opt.Name, v.session}) {
			owned = append(owned, host)
		}
	}
	suspects := slices.DeleteFunc(v.suspects(), func(host string) bool { return !known[host] })
	now := s.look(owned, suspects, asked, late, c.switches.Heard)
	for host := range s.hosts {
		c.switches.Ask(host)
	}
	before := c.sight.Swap(&now)
	if before == nil {
		before = &vision{}
	}
	if !slices.Equal(before.blind, now.blind) || !slices.Equal(before.sees, now.sees) {
		c.log.Info("cluster: hosts that are not heard by all", "member", c.opt.Name, "blind", now.blind, "sees", now.sees)
		c.beatNow()
	}
}

// Watch sets whose signs of life count. It is called before Run.
func (c *Cluster) Watch(s Switches) { c.switches = s }
