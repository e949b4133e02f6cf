package cluster

import (
	"cmp"
	"encoding/json"
	"errors"
	"hash/fnv"
	"maps"
	"slices"
	"time"
)

// Member is a controller of the cluster, as the database has it.
type Member struct {
	Name    string `json:"name"`
	Session int64  `json:"session"` // key of the advisory lock that is its lease
	API     string `json:"api"`     // where it listens
	Version string `json:"version"`
	// Schema is the version of the database that it knows; 0 of a program that
	// does not tell.
	Schema int `json:"schema"`
	// Joined and Beat are by the clock of the database.
	Joined time.Time `json:"joined"`
	Beat   time.Time `json:"beat"` // its last sign of life
	// Alive is what the last judgement said of it.
	Alive bool `json:"alive"`
	// Leaving is set by a member that is about to end: it owns nothing any more.
	Leaving bool `json:"leaving"`
	// Arriving is set, with Leaving, by a member that has just started: it owns
	// nothing yet.
	Arriving bool `json:"arriving,omitempty"`
	// Blind are hosts whose switches it should hear, and does not.
	Blind []string `json:"blind,omitempty"`
	// Sees are hosts that some member is blind to, and that it hears itself.
	Sees []string `json:"sees,omitempty"`

	// Flaps counts how often its session was taken for dead, and came back: it is slow, and
	// its hosts would only go to and fro. Calm since Flapped takes them away, one by one.
	Flaps   int       `json:"flaps,omitempty"`
	Flapped time.Time `json:"flapped,omitzero"`

	// unknown is what a newer program says of itself: each member writes all.
	unknown map[string]json.RawMessage
}

// plainMember has no methods.
type plainMember Member

// UnmarshalJSON keeps what it does not know.
func (m *Member) UnmarshalJSON(text []byte) error {
	var known plainMember
	var all map[string]json.RawMessage
	if err := errors.Join(json.Unmarshal(text, &known), json.Unmarshal(text, &all)); err != nil {
		return err
	}
	fields, err := json.Marshal(known)
	if err != nil {
		return err
	}
	var names map[string]json.RawMessage
	if err := json.Unmarshal(fields, &names); err != nil {
		return err
	}
	maps.DeleteFunc(all, func(name string, _ json.RawMessage) bool {
		_, is := names[name]
		return is
	})
	*m = Member(known)
	if len(all) > 0 {
		m.unknown = all
	}
	return nil
}

// MarshalJSON writes what was not known, too.
func (m Member) MarshalJSON() ([]byte, error) {
	known, err := json.Marshal(plainMember(m))
	if err != nil || len(m.unknown) == 0 {
		return known, err
	}
	all := maps.Clone(m.unknown)
	if err := json.Unmarshal(known, &all); err != nil {
		return nil, err
	}
	return json.Marshal(all)
}

// state is what the members share: the one row of the table cluster.
type state struct {
	Generation uint64
	Members    []Member // by name
}

// limits are how long members may be silent.
type limits struct {
	// Lease is how long the beat of a member whose lease is held may be old, of
	// one that was stopped.
	Lease time.Duration
	// Grace is how long it may be old when the lease is gone: a member that lost
	// its connection comes back with a new one.
	Grace time.Duration
	// Gap is how far apart the beats of a judge may be. When the database stood
	// still, or the judge, the rest is not held against the others.
	Gap time.Duration
}

const (
	// freeFlaps change nothing; each further one doubles how long the beat may be
	// old of a member whose lease is held, and the calm that takes one away, up to
	// maxFlaps.
	freeFlaps = 2
	maxFlaps  = freeFlaps + 3
	calm      = 30 * time.Second
)

// clocks are the times of the database at a beat.
type clocks struct {
	now     time.Time
	started time.Time // of the database itself: it forgets leases when it starts
}

var errNameTaken = errors.New("another controller with this name is alive")

// shown is when a member that is alive last showed a sign of life, zero for others.
func (s *state) shown(name string) time.Time {
	if i := s.index(name); i >= 0 && s.Members[i].Alive {
		return s.Members[i].Beat
	}
	return time.Time{}
}

// living reports whether a member is alive with a session.
func (s *state) living(name string, session int64) bool {
	i := s.index(name)
	return i >= 0 && s.Members[i].Alive && s.Members[i].Session == session
}

func (s *state) index(name string) int {
	return slices.IndexFunc(s.Members, func(m Member) bool { return m.Name == name })
}

func (s *state) clone() state { return state{s.Generation, slices.Clone(s.Members)} }

// judge is the state after a sign of life of me, who judges the others; previous
// is when the one before was, zero for the first. The generation grows with each
// change of who owns hosts. held tells whether the lease of a session is held.
func (s *state) judge(me Member, previous time.Time, at clocks, max limits, held func(session int64) bool) (state, error) {
	next := s.clone()
	own := s.index(me.Name)
	if own < 0 {
		own = len(next.Members)
		next.Members = append(next.Members, Member{Name: me.Name})
	}
	was := next.Members[own]
	if was.Session != me.Session && was.Alive && held(was.Session) && !was.dead(at, max, 0, held) {
		return state{}, errNameTaken
	}
	excuse := time.Duration(0)
	if !previous.IsZero() {
		excuse = at.now.Sub(previous) - max.Gap
	}
	for i := range next.Members {
		m := &next.Members[i]
		m.Alive = m.Alive && !m.dead(at, max, excuse, held)
	}
	me.Joined, me.Beat, me.Alive = was.Joined, at.now, true
	if was.Session != me.Session || was.Joined.IsZero() {
		me.Joined = at.now
	}
	me.Flaps, me.Flapped = next.Members[own].flaps(me.Session, at.now)
	next.Members[own] = me
	slices.SortFunc(next.Members, func(a, b Member) int { return cmp.Compare(a.Name, b.Name) })
	before, after := s.owners(), next.owners()
	if !before.equal(&after) {
		next.Generation++
	}
	return next, nil
}

// equal reports whether states differ in no more than the sign of life of a member.
func (s *state) equal(o *state, besides string) bool {
	return s.Generation == o.Generation && slices.EqualFunc(s.Members, o.Members, func(a, b Member) bool {
		if a.Name == besides {
			a.Beat = b.Beat
		}
		return a.equal(&b)
	})
}

func (m *Member) equal(o *Member) bool {
	return m.Name == o.Name && m.Session == o.Session && m.API == o.API && m.Version == o.Version && m.Schema == o.Schema &&
		m.Joined.Equal(o.Joined) && m.Beat.Equal(o.Beat) && m.Alive == o.Alive && m.Leaving == o.Leaving && m.Arriving == o.Arriving &&
		slices.Equal(m.Blind, o.Blind) && slices.Equal(m.Sees, o.Sees) &&
		m.Flaps == o.Flaps && m.Flapped.Equal(o.Flapped) && maps.EqualFunc(m.unknown, o.unknown, slices.Equal[json.RawMessage])
}

// flaps are those of a member that shows a sign of life now, and their time. One
// that comes back with another session ended, and was not slow.
func (m *Member) flaps(session int64, now time.Time) (int, time.Time) {
	switch {
	case !m.Alive && m.Session == session:
		return min(m.Flaps+1, maxFlaps), now
	case m.Flaps > 0 && now.Sub(m.Flapped) > calm<<m.slowness():
		return m.Flaps - 1, now
	}
	return m.Flaps, m.Flapped
}

// lease is how old its beat may be while its lease is held.
func (m *Member) lease(limit limits) time.Duration {
	return limit.Lease << m.slowness()
}

// slowness is how many of its flaps count.
func (m *Member) slowness() int { return max(0, m.Flaps-freeFlaps) }

// dead judges a member that was alive. When the database itself was away, no
// member could show a sign of life.
func (m *Member) dead(at clocks, max limits, excuse time.Duration, held func(session int64) bool) bool {
	last := m.Beat
	if at.started.After(last) {
		last = at.started.Add(max.Lease)
	}
	silent := at.now.Sub(last)
	if excuse > 0 {
		silent -= excuse
	}
	return silent > m.lease(max) || silent > max.Grace && !held(m.Session)
}

// forget removes a member that is not alive.
func (s *state) forget(name string) bool {
	i := s.index(name)
	if i < 0 || s.Members[i].Alive {
		return false
	}
	s.Members = slices.Delete(s.Members, i, i+1)
	return true
}

// owner is who a session of a member is, among those that own hosts.
type owner struct {
	name    string
	session int64
}

// owners are the members that own hosts.
type owners struct {
	ranked []owner // by name
	// moved are the hosts that have not the owner that ranks highest.
	moved map[string]owner
}

func (o *owners) equal(p *owners) bool {
	return slices.Equal(o.ranked, p.ranked) && maps.Equal(o.moved, p.moved)
}

// of is the owner of a host.
func (o *owners) of(host string) owner {
	if m, moved := o.moved[host]; moved {
		return m
	}
	return ownerOf(host, o.ranked)
}

// owners are who is alive and stays, or everybody alive when all are leaving. A
// host whose owner is blind to it has the next one that sees it; where nobody
// does, the switch itself stands still, and its host stays where it is.
func (s *state) owners() owners {
	own := owners{ranked: s.ranked()}
	seers := map[string][]owner{}
	for _, m := range s.Members {
		if o := (owner{m.Name, m.Session}); slices.Contains(own.ranked, o) {
			for _, host := range m.Sees {
				seers[host] = append(seers[host], o)
			}
		}
	}
	if len(seers) == 0 {
		return own
	}
	own.moved = map[string]owner{}
	for _, m := range s.Members {
		for _, host := range m.Blind {
			if len(seers[host]) > 0 && ownerOf(host, own.ranked) == (owner{m.Name, m.Session}) {
				own.moved[host] = ownerOf(host, seers[host])
			}
		}
	}
	return own
}

func (s *state) ranked() []owner {
	var staying, alive []owner
	for _, m := range s.Members {
		if !m.Alive {
			continue
		}
		o := owner{m.Name, m.Session}
		alive = append(alive, o)
		if !m.Leaving {
			staying = append(staying, o)
		}
	}
	if len(staying) > 0 {
		return staying
	}
	return alive
}

// ownerOf picks the owner of a host: the one with the highest score for it
// (rendezvous hashing), so that a member that comes or goes moves only its own.
func ownerOf(host string, owners []owner) owner {
	var best owner
	highest := uint64(0)
	for i, o := range owners {
		if s := score(host, o.name); i == 0 || s > highest {
			best, highest = o, s
		}
	}
	return best
}

func score(host, member string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(host))
	h.Write([]byte{0})
	h.Write([]byte(member))
	// FNV alone spreads the last letters badly; this is the finalizer of SplitMix64.
	x := h.Sum64()
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
