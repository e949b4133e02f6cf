package cluster

import (
	"testing"
	"time"
)

// comesAndGoes is a host that is heard every other second.
const comesAndGoes = -2

func TestMemberArrivesWhenItHearsTheSwitches(t *testing.T) {
	hosts := []string{"host1", "host2", "host3"}
	for _, test := range []struct {
		what  string
		hosts []string
		at    []int // seconds after which each host is heard; -1 for never
		want  int   // seconds
	}{
		{"all are heard", hosts, []int{1, 2, 3}, 3},
		{"one is away", hosts, []int{1, 2, -1}, 2 + 16},
		{"none is heard", hosts, []int{-1, -1, -1}, 16},
		{"they come one by one", hosts, []int{4, 8, 12}, 12},
		{"one comes and goes", hosts, []int{1, -1, comesAndGoes}, 1 + 16},
		{"the model is not read yet, or has none", nil, nil, 16},
	} {
		var a arrival
		second := 0
		for !a.over(at(float64(second)).now, test.hosts, func(host string) time.Time {
			for i, name := range test.hosts {
				if name == host && test.at[i] == comesAndGoes {
					return map[bool]time.Time{true: epoch}[second%2 == 1]
				}
				if name == host && test.at[i] >= 0 && test.at[i] <= second {
					return epoch
				}
			}
			return time.Time{}
		}) {
			second++
		}
		if second != test.want {
			t.Errorf("%s: it arrives after %d s, want %d", test.what, second, test.want)
		}
	}
}

func TestMemberWaitsOnlyForOthersThatHaveTheHosts(t *testing.T) {
	for _, test := range []struct {
		what string
		m    Member
		want bool
	}{
		{"another owns them", Member{Name: "b", Alive: true, Joined: epoch.Add(-time.Hour)}, true},
		{"it has just started, too", Member{Name: "b", Alive: true, Joined: epoch.Add(-time.Second)}, false},
		{"it is dead", Member{Name: "b", Joined: epoch.Add(-time.Hour)}, false},
		{"it leaves", Member{Name: "b", Alive: true, Leaving: true, Joined: epoch.Add(-time.Hour)}, false},
		{"it is what this member was before", Member{Name: "a", Alive: true, Joined: epoch.Add(-time.Hour)}, false},
	} {
		s := state{Members: []Member{test.m}}
		if got := s.established(epoch, "a"); got != test.want {
			t.Errorf("%s: %v", test.what, got)
		}
	}
}
