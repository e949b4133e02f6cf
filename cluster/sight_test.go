package cluster

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// looks lets a member look at host1, which it owns unless it is a suspect: "+"
// is a look at which it was heard since the last one, "-" one at which it was
// not, "0" one without a connection, "l" a silent one that comes too late.
func looks(s *sight, suspect bool, signs string) string {
	var told strings.Builder
	for i, sign := range signs {
		asked := epoch.Add(time.Duration(i) * lookEvery)
		heard := map[rune]time.Time{'+': asked.Add(1), '-': epoch}[sign]
		var owned, suspects []string
		if suspect {
			suspects = []string{"host1"}
		} else {
			owned = []string{"host1"}
		}
		switch v := s.look(owned, suspects, asked, sign == 'l', func(string) time.Time { return heard }); fmt.Sprint(v.blind, v.sees) {
		case "[host1] []":
			told.WriteByte('B')
		case "[] [host1]":
			told.WriteByte('S')
		default:
			told.WriteByte('.')
		}
	}
	return told.String()
}

func TestMemberIsBlindToHostsThatItDoesNotHear(t *testing.T) {
	for _, test := range []struct {
		what, signs, want string
		suspect           bool
	}{
		{what: "heard all the time", signs: "++++++++", want: "........"},
		{what: "silent for a moment", signs: "+---+---+", want: "........."},
		{what: "silent, and heard again for two seconds", signs: "+----++++++++", want: "....BBBBBBBB."},
		{what: "heard, and silent again", signs: "+----+++-++++++++", want: "....BBBBBBBBBBBB."},
		{what: "not connected yet: the switch may be about to", signs: "0000000000000", want: "............B"},
		{what: "a connection that was lost", signs: "+0000", want: "....B"},
		{what: "another member is blind to it", signs: "+++", want: ".SS", suspect: true},
		{what: "another member is blind to it, and this one misses looks", signs: "++--+---+", want: ".SSSSSSSS", suspect: true},
		{what: "another member is blind to it, and so is this one", signs: "-----", want: "....B", suspect: true},
		{what: "a member that is slow itself", signs: "+--lll-lll-+", want: "..........BB"},
	} {
		if got := looks(&sight{}, test.suspect, test.signs); got != test.want {
			t.Errorf("%s: %s tells %s, want %s", test.what, test.signs, got, test.want)
		}
	}
}

// Else a member that has too much to do would lose and take hosts for ever, which
// is what keeps it busy.
func TestEachLapseMakesAMemberWaitLongerForAHost(t *testing.T) {
	s := &sight{}
	looks(s, false, "+")
	lapse := func() int { return strings.Count(looks(s, false, "----"+strings.Repeat("+", 300)), "B") }
	for i, want := range []int{8, 8, 16, 32, 64, 128, 256, 256} {
		// The calm that follows takes lapses away: it is set as if there was none.
		if got := lapse(); got != want {
			t.Errorf("lapse %d: blind for %d looks, want %d", i+1, got, want)
		}
		s.hosts["host1"].lapses = min(i+1, maxLapses)
	}
	looks(s, false, strings.Repeat("+", maxLapses*calmLooks))
	if got := lapse(); got != steadyLooks {
		t.Errorf("after a calm: blind for %d looks, want %d", got, steadyLooks)
	}
}

func TestHostMovesToTheNextMemberThatSeesIt(t *testing.T) {
	s := &state{}
	all3 := []Member{{Name: "a", Session: 1}, {Name: "b", Session: 2}, {Name: "c", Session: 3}}
	beats(t, s, 0, all, all3...)
	own := s.owners()
	first := int(own.of("host1").session) - 1
	var others []owner
	for _, o := range own.ranked {
		if int(o.session)-1 != first {
			others = append(others, o)
		}
	}
	second := int(ownerOf("host1", others).session) - 1
	third := 3 - first - second
	step := func(what string, member int, blind, sees []string, want, grown int) {
		t.Helper()
		before := s.Generation
		all3[member].Blind, all3[member].Sees = blind, sees
		beats(t, s, 0, all, all3[member])
		own := s.owners()
		if got := int(own.of("host1").session) - 1; got != want || int(s.Generation-before) != grown {
			t.Errorf("%s: %s owns it, the generation grew by %d; want %s and %d", what, all3[got].Name, s.Generation-before, all3[want].Name, grown)
		}
	}
	host := []string{"host1"}
	step("nobody else has looked", first, host, nil, first, 0)
	step("the last one sees it", third, nil, host, third, 1)
	step("the next one as well", second, nil, host, second, 1)
	step("the next one lost it, too", second, host, nil, third, 1)
	step("nobody sees it: the switch stands still", third, nil, nil, first, 1)
	step("the last one sees it again", third, nil, host, third, 1)
	step("its owner sees it again", first, nil, nil, first, 1)
}

// A member that has too much to do reads late what some of its hosts sent; one
// that is cut off hears none of them.
func TestManySilentHostsAreGivenTime(t *testing.T) {
	for _, test := range []struct {
		hosts, silent, want int
		unmet               bool // the silent ones are not connected, and never were
	}{
		{hosts: 20, silent: 5, want: strangeLooks, unmet: true},
		{hosts: 20, silent: 1, want: missedLooks},
		{hosts: 20, silent: 5, want: missedLooks * fullMiss},
		{hosts: 20, silent: 20, want: missedLooks},
		{hosts: 5, silent: 3, want: missedLooks},
	} {
		var s sight
		var owned []string
		for i := range test.hosts {
			owned = append(owned, fmt.Sprintf("host%d", i))
		}
		blind, looks := 0, -1
		for ; blind == 0 && looks < 100; looks++ {
			asked := epoch.Add(time.Duration(looks+2) * lookEvery)
			v := s.look(owned, nil, asked, false, func(host string) time.Time {
				for _, name := range owned[:test.silent] {
					if name == host {
						return map[bool]time.Time{false: epoch}[test.unmet]
					}
				}
				return asked.Add(1)
			})
			blind = len(v.blind)
		}
		if looks != test.want || blind != test.silent {
			t.Errorf("%d of %d hosts: blind to %d after %d looks, want %d", test.silent, test.hosts, blind, looks, test.want)
		}
	}
}
