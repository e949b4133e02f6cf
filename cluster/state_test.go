package cluster

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

var (
	simulations = flag.Int("simulations", 2000, "how many random histories are simulated")
	firstSeed   = flag.Uint64("seed", 1, "seed of the first of them")
)

var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func at(seconds float64) clocks {
	return clocks{now: epoch.Add(time.Duration(seconds * float64(time.Second))), started: epoch.Add(-time.Hour)}
}

func all(int64) bool  { return true }
func none(int64) bool { return false }

// beats lets members show signs of life in the order of their sessions.
func beats(t *testing.T, s *state, when float64, held func(int64) bool, members ...Member) {
	t.Helper()
	for _, m := range members {
		if _, err := s.beat(m, at(when), silence, held); err != nil {
			t.Fatal(err)
		}
	}
}

func names(owners []owner) (out []string) {
	for _, o := range owners {
		out = append(out, o.name)
	}
	return out
}

func TestMembersComeGoAndDie(t *testing.T) {
	a, b := Member{Name: "a", Session: 1}, Member{Name: "b", Session: 2}
	for _, test := range []struct {
		what       string
		then       func(s *state)
		want       []string
		generation uint64
	}{
		{"both live", func(s *state) { beats(t, s, 1, all, a, b) }, []string{"a", "b"}, 2},
		{"a is stopped: its lease is held, it is silent", func(s *state) { beats(t, s, 1.6, all, b) }, []string{"b"}, 3},
		{"a is killed: its lease is gone", func(s *state) { beats(t, s, 0.7, none, b) }, []string{"b"}, 3},
		{"a lost its connection a moment ago", func(s *state) { beats(t, s, 0.5, none, b) }, []string{"a", "b"}, 2},
		{"a comes back with the same session", func(s *state) { beats(t, s, 2, all, b, a) }, []string{"a", "b"}, 4},
		{"a comes back at once with another session", func(s *state) {
			beats(t, s, 0.7, func(session int64) bool { return session != 1 }, Member{Name: "a", Session: 3}, b)
		}, []string{"a", "b"}, 3},
		{"a leaves", func(s *state) { beats(t, s, 1, all, Member{Name: "a", Session: 1, Leaving: true}, b) }, []string{"b"}, 3},
		{"both leave", func(s *state) {
			beats(t, s, 1, all, Member{Name: "a", Session: 1, Leaving: true}, Member{Name: "b", Session: 2, Leaving: true})
		}, []string{"a", "b"}, 4},
	} {
		s := &state{}
		beats(t, s, 0, all, a, b)
		test.then(s)
		if got := names(s.owners()); !slices.Equal(got, test.want) || s.Generation != test.generation {
			t.Errorf("%s: owners %v in generation %d, want %v in %d", test.what, got, s.Generation, test.want, test.generation)
		}
	}
}

func TestDatabaseThatWasAwayKillsNobodyAtOnce(t *testing.T) {
	s := &state{}
	a, b := Member{Name: "a", Session: 1}, Member{Name: "b", Session: 2}
	beats(t, s, 0, all, a, b)
	back := clocks{now: epoch.Add(60 * time.Second), started: epoch.Add(59 * time.Second)}
	if _, err := s.beat(Member{Name: "a", Session: 3}, back, silence, none); err != nil {
		t.Fatal(err)
	}
	if got := names(s.owners()); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("a second after the database came back, the owners are %v", got)
	}
}

func TestNameOfALivingMemberIsRefused(t *testing.T) {
	s := &state{}
	beats(t, s, 0, all, Member{Name: "a", Session: 1})
	if _, err := s.beat(Member{Name: "a", Session: 2}, at(0.2), silence, all); !errors.Is(err, errNameTaken) {
		t.Errorf("error %v", err)
	}
}

func TestForgetOnlyTheDead(t *testing.T) {
	s := &state{}
	beats(t, s, 0, all, Member{Name: "a", Session: 1}, Member{Name: "b", Session: 2})
	if s.forget("a") || s.forget("c") {
		t.Error("a living member, or one that never was, is forgotten")
	}
	beats(t, s, 10, all, Member{Name: "b", Session: 2})
	if !s.forget("a") || len(s.Members) != 1 {
		t.Errorf("members %v", s.Members)
	}
}

func TestOwnersAreEvenAndMoveLittle(t *testing.T) {
	const hosts = 3000
	three := []owner{{"one", 1}, {"two", 2}, {"three", 3}}
	count, moved := map[string]int{}, 0
	for i := range hosts {
		host := fmt.Sprintf("host%d", i)
		before := ownerOf(host, three)
		count[before.name]++
		after := ownerOf(host, append(slices.Clone(three), owner{"four", 4}))
		if after != before {
			moved++
			if after.name != "four" {
				t.Fatalf("%s moved from %s to %s though four came", host, before.name, after.name)
			}
		}
	}
	for name, n := range count {
		if n < hosts/3-hosts/20 || n > hosts/3+hosts/20 {
			t.Errorf("%s owns %d of %d hosts", name, n, hosts)
		}
	}
	if moved < hosts/5 || moved > hosts*3/10 {
		t.Errorf("%d of %d hosts moved to a fourth member", moved, hosts)
	}
}

// The simulation runs members against a database and switches, with a clock of
// its own: members are stopped, killed, and cut off from either; the database
// goes away and comes back.

type simulation struct {
	*rand.Rand
	t        *testing.T
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

// simulated is a member.
type simulated struct {
	name       string
	session    int64
	generation uint64
	required   uint64 // the revision to have before it takes a role
	owners     []owner
	replica    uint64
	stopped    time.Duration // until when it is stopped
	killed     time.Duration // until when it is dead
	cut        time.Duration // until when it does not reach the database
	beatAt     time.Duration
	blind      map[int]time.Duration // switches that it does not reach, until when
}

// simulatedSwitch is a switch, as OpenFlow has its roles.
type simulatedSwitch struct {
	name       string
	generation uint64
	master     string
	revision   uint64
	granted    map[uint64]string // who was master in which generation
}

const tick = 50 * time.Millisecond

func (s *simulation) run() {
	for end := s.now + 20*time.Second; s.now < end; s.now += tick {
		s.trouble()
		s.step()
	}
	// Everything heals, and has time to settle.
	s.database.away = 0
	for _, m := range s.members {
		m.stopped, m.killed, m.cut, m.blind = 0, 0, 0, map[int]time.Duration{}
	}
	for end := s.now + 6*time.Second; s.now < end; s.now += tick {
		s.step()
	}
	owners := s.database.owners()
	if len(owners) != len(s.members) {
		s.t.Errorf("in the end only %v own hosts", names(owners))
	}
	for _, w := range s.switches {
		if want := ownerOf(w.name, owners).name; w.master != want {
			s.t.Errorf("in the end %s has the master %q, want %q", w.name, w.master, want)
		}
		if w.revision != s.database.revision {
			s.t.Errorf("in the end %s has revision %d of %d", w.name, w.revision, s.database.revision)
		}
	}
}

func (s *simulation) step() {
	for _, i := range s.Perm(len(s.members)) {
		s.act(s.members[i])
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
		m.generation, m.owners, m.replica = 0, nil, 0
	case 2:
		m.cut = until
		switch s.IntN(3) {
		case 0:
			s.hangUp(m) // the database notices at once
		case 1:
			m.session = 0 // or not at all
		}
	case 3, 4:
		m.blind[s.IntN(len(s.switches))] = until
	case 5:
		s.database.away, s.database.started = until, until
		s.database.held = map[int64]bool{}
		for _, m := range s.members {
			m.session = 0
		}
	}
}

func (s *simulation) hangUp(m *simulated) {
	delete(s.database.held, m.session)
	m.session = 0
}

func (s *simulation) act(m *simulated) {
	if s.now < m.stopped || s.now < m.killed {
		return
	}
	if s.now >= m.beatAt {
		m.beatAt = s.now + beatEvery
		s.beat(m)
	}
	for i, w := range s.switches {
		if s.now >= m.blind[i] && ownerOf(w.name, m.owners) == (owner{m.name, m.session}) {
			s.program(m, w)
		}
	}
}

func (s *simulation) beat(m *simulated) {
	db := &s.database
	if s.now < m.cut || s.now < db.away {
		return // who does not reach it keeps its hosts
	}
	if m.session == 0 {
		s.session++
		m.session = s.session
		db.held[m.session] = true
	}
	when := clocks{now: epoch.Add(s.now), started: epoch.Add(db.started)}
	_, err := db.beat(Member{Name: m.name, Session: m.session}, when, silence, func(session int64) bool { return db.held[session] })
	if err != nil {
		s.hangUp(m)
		return
	}
	if m.generation != db.Generation {
		m.required = db.revision
	}
	m.generation, m.owners, m.replica = db.Generation, db.owners(), db.revision
}

// program does what an owner does at a switch: it takes the role, and sends
// what it knows.
func (s *simulation) program(m *simulated, w *simulatedSwitch) {
	if m.replica < m.required {
		return
	}
	if w.master != m.name {
		if m.generation < w.generation {
			return // refused
		}
		w.generation, w.master = m.generation, m.name
		if first, again := w.granted[m.generation]; again && first != m.name {
			s.t.Errorf("%v: %s and %s are masters of %s in generation %d", s.now, first, m.name, w.name, m.generation)
		}
		w.granted[m.generation] = m.name
	}
	w.revision = m.replica
}

func TestNoTwoMastersInAnyHistory(t *testing.T) {
	for i := range *simulations {
		seed := *firstSeed + uint64(i)
		s := &simulation{Rand: rand.New(rand.NewPCG(seed, 0)), t: t}
		s.database.held = map[int64]bool{}
		s.database.started = -time.Hour
		for n := range 2 + s.IntN(3) {
			s.members = append(s.members, &simulated{name: fmt.Sprintf("member%d", n), blind: map[int]time.Duration{}})
		}
		for n := range 5 {
			s.switches = append(s.switches, &simulatedSwitch{name: fmt.Sprintf("host%d", n), granted: map[uint64]string{}})
		}
		s.run()
		if t.Failed() {
			t.Fatalf("again with -seed %d -simulations 1", seed)
		}
	}
}

func TestProgressThatIsTooLongSaysLess(t *testing.T) {
	long := func(from uint64) message {
		m := message{Member: "a", Progress: Progress{Revision: 900, Behind: map[string]uint64{}}}
		for i := range 1000 {
			m.Behind[fmt.Sprintf("host%d", i)] = 800
		}
		m.Behind["host7"] = from
		return fit(m)
	}
	for from, want := range map[uint64]uint64{700: 699, 0: 0} {
		if m := long(from); m.Revision != want || m.Has("host7", max(from, 1)) || len(m.Behind) > 0 {
			t.Errorf("the earliest lacks %d: revision %d of %d hosts, want %d", from, m.Revision, len(m.Behind), want)
		}
	}
	short := fit(message{Progress: Progress{Revision: 9, Behind: map[string]uint64{"h": 5}}})
	if !short.Has("h", 4) || short.Has("h", 5) || !short.Has("g", 9) || short.Has("g", 10) {
		t.Errorf("%+v", short)
	}
}
