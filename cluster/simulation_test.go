package cluster

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

var (
	simulations = flag.Int("simulations", 3000, "how many random histories are simulated")
	firstSeed   = flag.Uint64("seed", 1, "seed of the first of them")
)

// The simulation runs members against a database and switches, with a clock of
// its own: members are stopped, killed, and cut off from either; the database
// goes away and comes back.

type simulation struct {
	*rand.Rand
	planted  fault
	wrong    []string // what must not be and was
	now      time.Duration
	database struct {
		state
		revision uint64
		held     map[int64]bool
		away     time.Duration // until when it does not answer
		started  time.Duration
	}
	members  []*simulated
	switches []*simulatedSwitch
	session  int64
}

// fault is one that is planted, to see that the simulation finds it.
type fault int

const (
	faultNone         fault = iota
	faultGeneration         // it does not grow when owners change
	faultRoles              // switches take any generation for the role MASTER
	faultUncompared         // a new master takes the switch for right
	faultEarly              // a new owner does not wait for what the earlier one may have sent
	faultLeaseForever       // a member that is stopped is never dead
	faultBlindStays         // a member says nothing of hosts that it does not reach
	faultBlindBoth          // the owner that does not reach a host goes on, others take it
	faultOverwrite          // a judgement is written though what was judged has changed
)

// simulated is a member.
type simulated struct {
	name       string
	session    int64
	generation uint64
	required   uint64 // the revision to have before it takes a role
	owners     owners
	of         map[string]owner // of switches, by their names; forgotten with owners
	suspects   []string
	replica    uint64
	sent       map[int]uint64 // the revision up to which it has programmed a switch
	stopped    time.Duration  // until when it is stopped
	killed     time.Duration  // until when it is dead
	cut        time.Duration  // until when it does not reach the database
	beatAt     time.Duration
	lookAt     time.Duration
	asked      time.Duration
	shown      time.Time // its last sign of life in this session
	arriving   bool
	arrived    time.Duration // when it hears the switches, after a start beside others
	pending    *judgement    // that it has not written yet
	sight      sight
	vision     vision
	blind      map[int]time.Duration // switches that it does not reach, until when
	able       map[int]time.Duration // since when nothing keeps it from programming a switch
}

// judgement is what a member read, and what it wants to write.
type judgement struct{ read, next state }

// simulatedSwitch is a switch, as OpenFlow has its roles.
type simulatedSwitch struct {
	name       string
	generation uint64
	master     string
	revision   uint64
	floor      uint64            // its revision when owners last changed,
	changed    uint64            // and the generation since
	granted    map[uint64]string // who was master in which generation
	served     time.Duration     // when it last had a master that reaches it
}

const (
	tick = 50 * time.Millisecond
	// unserved is how long a switch may be without a master that reaches it,
	// while a member could be.
	unserved = 5 * time.Second
)

func newSimulation(seed uint64, planted fault) *simulation {
	s := &simulation{Rand: rand.New(rand.NewPCG(seed, 0)), planted: planted}
	s.database.held = map[int64]bool{}
	s.database.started = -time.Hour
	for n := range 2 + s.IntN(3) {
		s.members = append(s.members, &simulated{
			name: fmt.Sprintf("member%d", n), sent: map[int]uint64{}, blind: map[int]time.Duration{}, able: map[int]time.Duration{},
		})
	}
	for n := range 5 {
		s.switches = append(s.switches, &simulatedSwitch{name: fmt.Sprintf("host%d", n), granted: map[uint64]string{}})
	}
	return s
}

func (s *simulation) fail(format string, args ...any) {
	s.wrong = append(s.wrong, fmt.Sprintf("%v: ", s.now)+fmt.Sprintf(format, args...))
}

func (s *simulation) run() {
	for end := s.now + 20*time.Second; s.now < end; s.now += tick {
		s.trouble()
		s.step()
	}
	// Everything heals, and has time to settle.
	s.database.away = 0
	for _, m := range s.members {
		m.stopped, m.killed, m.cut, m.arrived, m.blind = 0, 0, 0, 0, map[int]time.Duration{}
	}
	s.comeBack()
	owners := s.database.owners()
	if len(owners.ranked) != len(s.members) {
		s.fail("in the end only %v own hosts", names(owners))
	}
	for _, w := range s.switches {
		if want := ownerOf(w.name, owners.ranked).name; w.master != want {
			s.fail("in the end %s has the master %q, want %q", w.name, w.master, want)
		}
		if w.revision != s.database.revision {
			s.fail("in the end %s has revision %d of %d", w.name, w.revision, s.database.revision)
		}
	}
}

// comeBack waits for hosts that members had lost so often that they stay away for long.
func (s *simulation) comeBack() {
	const longest = lookEvery * steadyLooks << (maxLapses - freeLapses)
	for end := s.now + longest; s.now < end && len(s.database.owners().moved) > 0; s.now += tick {
		s.step()
	}
	for end := s.now + 6*time.Second; s.now < end; s.now += tick {
		s.step()
	}
}

func (s *simulation) step() {
	for _, i := range s.Perm(len(s.members)) {
		s.act(s.members[i])
	}
	s.service()
}

// service looks for switches that are without one for too long.
func (s *simulation) service() {
	for i, w := range s.switches {
		able := ""
		for _, m := range s.members {
			up := s.now >= m.stopped && s.now >= m.killed && s.now >= m.blind[i]
			if up && w.master == m.name {
				w.served = s.now
			}
			if !up || s.now < m.cut || s.now < s.database.away {
				m.able[i] = s.now
			} else if s.now-m.able[i] > unserved {
				able = m.name
			}
		}
		if able != "" && s.now-w.served > unserved {
			s.fail("%s has no master that reaches it since %v, %s could be", w.name, w.served, able)
			w.served = s.now
		}
	}
}

// trouble breaks something now and then.
func (s *simulation) trouble() {
	if s.IntN(3) == 0 {
		s.database.revision++
	}
	if s.IntN(15) > 0 {
		return
	}
	m, until := s.members[s.IntN(len(s.members))], s.now+time.Duration(s.IntN(6000))*time.Millisecond
	switch s.IntN(6) {
	case 0:
		m.stopped = until
	case 1:
		m.killed = until
		s.hangUp(m)
		m.generation, m.owners, m.of, m.replica = 0, owners{}, nil, 0
		m.sight, m.vision, m.suspects, m.sent = sight{}, vision{}, nil, map[int]uint64{}
		m.arrived = until + time.Duration(s.IntN(2000))*time.Millisecond
	case 2:
		m.cut = until
		switch s.IntN(3) {
		case 0:
			s.hangUp(m) // the database notices at once
		case 1:
			m.session, m.pending = 0, nil // or not at all
		}
	case 3, 4:
		m.blind[s.IntN(len(s.switches))] = until
	case 5:
		s.database.away, s.database.started = until, until
		s.database.held = map[int64]bool{}
		for _, m := range s.members {
			m.session, m.pending = 0, nil
		}
	}
}

func (s *simulation) hangUp(m *simulated) {
	delete(s.database.held, m.session)
	m.session, m.pending = 0, nil
}

func (s *simulation) act(m *simulated) {
	if s.now < m.stopped || s.now < m.killed {
		return
	}
	if s.now >= m.lookAt {
		m.lookAt = s.now + lookEvery
		s.look(m)
	}
	if s.now >= m.beatAt {
		m.beatAt = s.now + beatEvery
		s.beat(m)
	}
	for i, w := range s.switches {
		if s.now >= m.blind[i] && s.owns(m, w) {
			s.program(m, i)
		}
	}
}

func (s *simulation) owns(m *simulated, w *simulatedSwitch) bool {
	own := owner{m.name, m.session}
	return m.ownerOf(w.name) == own || s.planted == faultBlindBoth && ownerOf(w.name, m.owners.ranked) == own
}

// ownerOf is owners.of, which is asked at each step.
func (m *simulated) ownerOf(host string) owner {
	if o, known := m.of[host]; known {
		return o
	}
	if m.of == nil {
		m.of = map[string]owner{}
	}
	m.of[host] = m.owners.of(host)
	return m.of[host]
}

// look judges which switches a member reaches, as lookOnce does.
func (s *simulation) look(m *simulated) {
	var owned []string
	at := map[string]time.Time{}
	for i, w := range s.switches {
		if m.ownerOf(w.name) == (owner{m.name, m.session}) {
			owned = append(owned, w.name)
		}
		at[w.name] = epoch
		if s.now >= m.blind[i] {
			at[w.name] = epoch.Add(s.now)
		}
	}
	was := m.vision
	m.vision = m.sight.look(owned, m.suspects, epoch.Add(m.asked), s.now-m.asked > lateLook, func(host string) time.Time { return at[host] })
	m.asked = s.now
	if !slices.Equal(was.blind, m.vision.blind) || !slices.Equal(was.sees, m.vision.sees) {
		m.beatAt = s.now
	}
	if s.planted == faultBlindStays {
		m.vision = vision{}
	}
}

// beat shows a sign of life of a member, judges the others, and writes what it
// thinks of them: at once, or some time later, when the member was slow.
func (s *simulation) beat(m *simulated) {
	db := &s.database
	if s.now < m.cut || s.now < db.away {
		return // who does not reach it keeps its hosts
	}
	if m.session == 0 {
		s.session++
		m.session, m.shown = s.session, time.Time{}
		db.held[m.session] = true
	}
	if m.pending != nil {
		s.swap(m)
	}
	for range 3 {
		read := s.sign(m)
		if m.shown.IsZero() {
			m.shown = read.shown(m.name)
		}
		if m.generation == 0 {
			m.arriving = read.established(epoch.Add(s.now), m.name)
		}
		m.arriving = m.arriving && s.now < m.arrived && read.established(epoch.Add(s.now), m.name)
		next, err := s.judge(m, &read)
		if err != nil {
			s.hangUp(m)
			return
		}
		if next.equal(&read, m.name) {
			s.learn(m, &read)
			m.shown = epoch.Add(s.now)
			return
		}
		m.pending = &judgement{read: read, next: next}
		if s.IntN(4) == 0 {
			m.beatAt = s.now + tick
			return
		}
		s.swap(m)
	}
}

// sign notes a sign of life, as signStatement does.
func (s *simulation) sign(m *simulated) state {
	db := &s.database
	db.state = db.clone()
	if i := db.index(m.name); i >= 0 && db.Members[i].Session == m.session && db.Members[i].Alive {
		db.Members[i].Beat = epoch.Add(s.now)
	}
	return db.clone()
}

func (s *simulation) judge(m *simulated, read *state) (state, error) {
	max := silence
	if s.planted == faultLeaseForever {
		max.Lease = time.Hour
	}
	db := &s.database
	when := clocks{now: epoch.Add(s.now), started: epoch.Add(db.started)}
	me := Member{Name: m.name, Session: m.session, Blind: m.vision.blind, Sees: m.vision.sees, Arriving: m.arriving, Leaving: m.arriving}
	return read.judge(me, m.shown, when, max, func(session int64) bool { return db.held[session] })
}

// swap writes what a member judged unless something else has changed since, as
// swapStatement does.
func (s *simulation) swap(m *simulated) {
	db, old, next := &s.database, m.pending.read, m.pending.next
	m.pending = nil
	if next = next.clone(); !refresh(&next, &old, &db.state, m.name) && s.planted != faultOverwrite {
		return
	}
	if next.Generation != db.Generation && s.planted == faultGeneration {
		next.Generation = 1
	}
	if next.Generation != db.Generation {
		for _, w := range s.switches {
			w.floor, w.changed = w.revision, next.Generation
		}
	}
	db.state = next
}

// refresh takes the signs of life of members that live on from what is there now,
// and reports whether all else is as it was.
func refresh(next, old, now *state, me string) bool {
	was := old.clone()
	for _, name := range others(next, me) {
		i, j := now.index(name), was.index(name)
		if i < 0 || j < 0 {
			return false
		}
		was.Members[j].Beat = now.Members[i].Beat
		next.Members[next.index(name)].Beat = now.Members[i].Beat
	}
	return was.equal(now, "")
}

// learn is what a member knows after a sign of life.
func (s *simulation) learn(m *simulated, read *state) {
	if m.generation != read.Generation && s.planted != faultEarly {
		m.required = s.database.revision
	}
	m.generation, m.owners, m.of, m.suspects = read.Generation, read.owners(), nil, read.suspects()
	// The change feed may be late, and then it is as far as it is.
	if s.IntN(4) > 0 {
		m.replica = s.database.revision
	}
}

// program does what an owner does at a switch: it takes the role, and sends
// what it knows.
func (s *simulation) program(m *simulated, i int) {
	w := s.switches[i]
	if m.replica < m.required {
		return
	}
	if w.master != m.name {
		if m.generation < w.generation && s.planted != faultRoles {
			return // refused
		}
		if m.generation < w.generation {
			s.fail("%s is master of %s in generation %d, %s was in %d", m.name, w.name, m.generation, w.master, w.generation)
		}
		w.generation, w.master = m.generation, m.name
		if first, again := w.granted[m.generation]; again && first != m.name {
			s.fail("%s and %s are masters of %s in generation %d", first, m.name, w.name, m.generation)
		}
		w.granted[m.generation] = m.name
		if s.planted == faultUncompared {
			m.sent[i] = m.replica
		} else {
			m.sent[i] = 0
		}
	}
	if m.sent[i] == m.replica {
		return
	}
	if m.generation >= w.changed && m.replica < w.floor {
		s.fail("%s sends revision %d to %s, which had %d before it changed hands", m.name, m.replica, w.name, w.floor)
	}
	m.sent[i], w.revision = m.replica, m.replica
}

func TestNoTwoMastersInAnyHistory(t *testing.T) {
	var next atomic.Int64
	var running sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		running.Go(func() {
			for i := next.Add(1) - 1; i < int64(*simulations) && !t.Failed(); i = next.Add(1) - 1 {
				seed := *firstSeed + uint64(i)
				s := newSimulation(seed, faultNone)
				s.run()
				if len(s.wrong) > 0 {
					t.Errorf("%v\nagain with -seed %d -simulations 1", s.wrong, seed)
				}
			}
		})
	}
	running.Wait()
}

// A simulation that finds nothing in a protocol that is broken proves nothing.
func TestSimulationFindsPlantedFaults(t *testing.T) {
	for planted, what := range map[fault]string{
		faultGeneration:   "the generation does not grow",
		faultRoles:        "switches take any generation",
		faultUncompared:   "a new master takes the switch for right",
		faultEarly:        "a new owner does not wait for what the earlier one may have sent",
		faultLeaseForever: "a member that is stopped is never dead",
		faultBlindStays:   "hosts stay with a member that does not reach them",
		faultBlindBoth:    "a member goes on with hosts that were given to another",
		faultOverwrite:    "a judgement overwrites what came since",
	} {
		t.Run(what, func(t *testing.T) {
			for seed := range uint64(*simulations) {
				s := newSimulation(seed, planted)
				s.run()
				if len(s.wrong) > 0 {
					t.Logf("found in history %d: %s", seed, s.wrong[0])
					return
				}
			}
			t.Errorf("not found in %d histories", *simulations)
		})
	}
}
