package cluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func at(seconds float64) clocks {
	return clocks{now: epoch.Add(time.Duration(seconds * float64(time.Second))), started: epoch.Add(-time.Hour)}
}

func all(int64) bool  { return true }
func none(int64) bool { return false }

// beat is a sign of life that nobody disturbs.
func (s *state) beat(me Member, at clocks, held func(int64) bool) error {
	next, err := s.judge(me, s.shown(me.Name), at, silence, held)
	if err == nil {
		*s = next
	}
	return err
}

// beats lets members show signs of life in the order of their sessions.
func beats(t *testing.T, s *state, when float64, held func(int64) bool, members ...Member) {
	t.Helper()
	for _, m := range members {
		if err := s.beat(m, at(when), held); err != nil {
			t.Fatal(err)
		}
	}
}

func names(owners owners) (out []string) {
	for _, o := range owners.ranked {
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
		{"a is stopped: its lease is held, it is silent", func(s *state) { beats(t, s, 0.5, all, b); beats(t, s, 1, all, b); beats(t, s, 1.1, all, b) }, []string{"b"}, 3},
		{"a is killed: its lease is gone", func(s *state) { beats(t, s, 0.3, none, b); beats(t, s, 0.7, none, b) }, []string{"b"}, 3},
		{"a lost its connection a moment ago", func(s *state) { beats(t, s, 0.5, none, b) }, []string{"a", "b"}, 2},
		{"a comes back with the same session", func(s *state) { beats(t, s, 0.5, all, b); beats(t, s, 1, all, b); beats(t, s, 1.5, all, b, a) }, []string{"a", "b"}, 4},
		{"a comes back at once with another session", func(s *state) {
			beats(t, s, 0.3, all, b)
			beats(t, s, 0.7, func(session int64) bool { return session != 1 }, Member{Name: "a", Session: 3}, b)
		}, []string{"a", "b"}, 3},
		{"the database stood still: nobody could show a sign of life", func(s *state) { beats(t, s, 9, all, b); beats(t, s, 9.1, all, a, b) }, []string{"a", "b"}, 2},
		{"and a was stopped besides", func(s *state) { beats(t, s, 9, all, b); beats(t, s, 9.3, all, b) }, []string{"b"}, 3},
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

// A member that is slow, and not dead, must not get and lose its hosts for ever.
func TestMemberThatComesAndGoesIsGivenTime(t *testing.T) {
	s := &state{}
	a, b := Member{Name: "a", Session: 1}, Member{Name: "b", Session: 2}
	now := 0.0
	// silentFor lets b judge while a says nothing, and tells whether a lives.
	silentFor := func(seconds float64, held func(int64) bool) bool {
		for end := now + seconds; now < end; {
			now += 0.25
			beats(t, s, now, held, b)
		}
		return s.Members[0].Alive
	}
	beats(t, s, now, all, a, b)
	for i := range freeFlaps + 1 {
		if silentFor(1.25, all) {
			t.Errorf("after %d returns it is not missed in time", i)
		}
		beats(t, s, now, all, a)
	}
	if !silentFor(1.5, all) {
		t.Error("it is taken for dead as quickly after many returns")
	}
	if silentFor(1, all) {
		t.Error("it is not missed for a long time")
	}
	beats(t, s, now, all, a)
	if silentFor(0.75, none) {
		t.Error("it is not missed though its lease is gone")
	}
	beats(t, s, now, all, a)
	for until := now + 2*(calm<<(maxFlaps-freeFlaps+1)).Seconds(); now < until; now += 0.25 {
		beats(t, s, now, all, a, b)
	}
	if silentFor(1.25, all) {
		t.Error("its returns are not forgotten")
	}
}

// A program that is started again has not been slow.
func TestRestartsAreNoFlaps(t *testing.T) {
	s := &state{}
	b := Member{Name: "b", Session: 99}
	for i := range maxFlaps {
		now := 10 * float64(i)
		beats(t, s, now, all, Member{Name: "a", Session: int64(i + 1)}, b)
		beats(t, s, now+0.25, none, b)
		beats(t, s, now+0.5, none, b)
		beats(t, s, now+0.75, none, b)
		if s.Members[0].Alive || s.Members[0].Flaps != 0 {
			t.Fatalf("after %d restarts: %+v", i, s.Members[0])
		}
	}
}

func TestDatabaseThatWasAwayKillsNobodyAtOnce(t *testing.T) {
	s := &state{}
	a, b := Member{Name: "a", Session: 1}, Member{Name: "b", Session: 2}
	beats(t, s, 0, all, a, b)
	back := clocks{now: epoch.Add(60 * time.Second), started: epoch.Add(59 * time.Second)}
	if err := s.beat(Member{Name: "a", Session: 3}, back, none); err != nil {
		t.Fatal(err)
	}
	if got := names(s.owners()); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("a second after the database came back, the owners are %v", got)
	}
}

func TestNameOfALivingMemberIsRefused(t *testing.T) {
	s := &state{}
	beats(t, s, 0, all, Member{Name: "a", Session: 1})
	if err := s.beat(Member{Name: "a", Session: 2}, at(0.2), all); !errors.Is(err, errNameTaken) {
		t.Errorf("error %v", err)
	}
}

// Each member writes the records of all: an older one must keep what a newer one
// says of itself.
func TestMembersKeepWhatTheyDoNotKnowOfOthers(t *testing.T) {
	s := &state{}
	if err := json.Unmarshal([]byte(`[{"name":"a","session":1,"version":"v9","schema":9,"zone":{"rack":3},"alive":true}]`), &s.Members); err != nil {
		t.Fatal(err)
	}
	beats(t, s, 0, all, Member{Name: "a", Session: 1}, Member{Name: "b", Session: 2})
	if text, err := json.Marshal(s.Members[0]); err != nil || strings.Contains(string(text), "rack") {
		t.Errorf("a member says what it does not know of itself: %s, %v", text, err)
	}
	if err := json.Unmarshal([]byte(`{"name":"a","session":1,"version":"v9","schema":9,"zone":{"rack":3},"alive":true}`), &s.Members[0]); err != nil {
		t.Fatal(err)
	}
	beats(t, s, 0.2, all, Member{Name: "b", Session: 2})
	text, err := json.Marshal(s.Members)
	if err != nil || !strings.Contains(string(text), `"zone":{"rack":3}`) || !strings.Contains(string(text), `"schema":9`) {
		t.Errorf("after the beat of an older member: %s, %v", text, err)
	}
	var again []Member
	if err := json.Unmarshal(text, &again); err != nil || len(again) != 2 || again[0].Schema != 9 || again[1].unknown != nil {
		t.Errorf("read again: %+v, %v", again, err)
	}
}

func TestForgetOnlyTheDead(t *testing.T) {
	s := &state{}
	beats(t, s, 0, all, Member{Name: "a", Session: 1}, Member{Name: "b", Session: 2})
	if s.forget("a") || s.forget("c") {
		t.Error("a living member, or one that never was, is forgotten")
	}
	for _, when := range []float64{10, 11} {
		beats(t, s, when, all, Member{Name: "b", Session: 2})
	}
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

// A change that equal does not see is never written.
func TestEveryFieldOfAMemberIsCompared(t *testing.T) {
	values := map[string]any{"string": "x", "int": 1, "int64": int64(1), "bool": true, "time.Time": epoch, "[]string": []string{"x"},
		"map[string]json.RawMessage": map[string]json.RawMessage{"x": nil}}
	for field := range reflect.TypeFor[Member]().Fields() {
		var a, b Member
		target := reflect.ValueOf(&a).Elem().FieldByIndex(field.Index)
		// unknown is not exported.
		reflect.NewAt(field.Type, target.Addr().UnsafePointer()).Elem().Set(reflect.ValueOf(values[field.Type.String()]))
		if a.equal(&b) || !a.equal(&a) {
			t.Errorf("members that differ in %s are equal", field.Name)
		}
	}
}
