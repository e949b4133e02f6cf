package main

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"planck/cluster"
)

// What a member has not told is not 0, and numbers say their unit.
func TestClusterTellsWhatIsKnown(t *testing.T) {
	joined := time.Date(2026, 11, 2, 8, 10, 44, 0, time.UTC)
	c := clusterView{
		Member: "member1", Generation: 12, BeatAgeSeconds: 0.1012,
		Members: []cluster.Member{
			{Name: "member1", Alive: true, API: "192.0.2.11:9696", Version: "v1", Schema: 1, Joined: joined},
			{Name: "member2", Alive: true, API: "192.0.2.12:9696", Version: "v1", Joined: joined},
			{Name: "member3", API: "192.0.2.13:9696", Version: "v1", Schema: 1, Joined: joined},
		},
		Hosts: map[string]int{"member1": 3, "member2": 0, "member3": 0}, Owners: map[string]string{},
		Revisions: map[string]uint64{"member1": 812, "member3": 800},
	}
	var out strings.Builder
	printCluster(&out, c)
	want := []string{
		"MEMBER STATE HOSTS REVISION LAG API VERSION SCHEMA SINCE",
		"member1 alive 3 812 0 192.0.2.11:9696 v1 1 2026-11-02 08:10:44",
		"member2 alive 0 - - 192.0.2.12:9696 v1 - 2026-11-02 08:10:44",
		"member3 dead 0 800 12 192.0.2.13:9696 v1 1 2026-11-02 08:10:44",
		"Generation 12, as member1 knew it 101ms ago.",
	}
	for i, line := range strings.Split(strings.TrimSpace(out.String()), "\n") {
		if got := strings.Join(strings.Fields(line), " "); i >= len(want) || got != want[i] {
			t.Errorf("line %d is %q", i, got)
		}
	}
	text, err := json.Marshal(c)
	if err != nil || !strings.Contains(string(text), `"beat_age_seconds":0.1012`) || !strings.Contains(string(text), `"hosts":{"member1":3,"member2":0,"member3":0}`) {
		t.Errorf("%v: %s", err, text)
	}
}
