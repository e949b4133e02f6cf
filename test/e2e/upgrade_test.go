package e2e

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	_ "github.com/lib/pq" // to look into the controllers' database

	"planck/test/pg"
)

// nextBinary builds a program to come, with a schema that this one does not know.
func nextBinary(t *testing.T) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "planck")
	build := exec.Command("go", "build", "-race", "-tags", "planck_next", "-ldflags", "-X main.version=next", "-o", binary, "planck/cmd/planck")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return binary
}

// db runs planck db, which must end with an exit code, and returns what it said.
func db(t *testing.T, program string, code int, words ...string) string {
	t.Helper()
	cmd := exec.Command(program, append([]string{"db"}, words...)...)
	out, err := cmd.CombinedOutput()
	if _, ended := errors.AsType[*exec.ExitError](err); err != nil && !ended {
		t.Fatal(err)
	}
	if got := cmd.ProcessState.ExitCode(); got != code {
		t.Fatalf("planck db %v: exit code %d, want %d:\n%s", words, got, code, out)
	}
	return string(out)
}

// acknowledged are ports that some API said that it has made, by id.
type acknowledged map[string]string

// createEverywhere creates ports, each at the first of some APIs that takes it,
// in turn, until it is stopped.
func (f *fire) createEverywhere(apis []string) (stop func() acknowledged) {
	done := acknowledged{}
	client := http.Client{Timeout: time.Minute, Transport: &http.Transport{DisableKeepAlives: true}}
	turn := 0
	end := f.background(func(ctx context.Context) {
		turn++
		name := fmt.Sprintf("written%d", turn)
		body, err := json.Marshal(object{"port": object{"network_id": f.network, "name": name}})
		if err != nil {
			panic(err)
		}
		for i := range apis {
			resp, err := client.Post(apis[(turn+i)%len(apis)]+"/v2.0/ports", "application/json", bytes.NewReader(body))
			if err != nil {
				continue
			}
			var out struct{ Port struct{ ID string } }
			err = json.NewDecoder(resp.Body).Decode(&out)
			resp.Body.Close()
			if err == nil && resp.StatusCode == http.StatusCreated {
				done[out.Port.ID] = name
				break
			}
		}
		pauseFor(ctx, 100*time.Millisecond)
	})
	return func() acknowledged {
		end()
		return done
	}
}

// TestRollingUpgradeLosesNothing replaces three members by newer ones, one after
// the other, under ping, DHCP and API calls.
func TestRollingUpgradeLosesNothing(t *testing.T) {
	t.Parallel()
	next := nextBinary(t)
	dsn := pg.Start(t)
	m := newMembersOn(t, dsn, 3, 2)
	f := &fire{cloud: m[0], base: map[string]string{}}
	f.network = f.cloud.network("blue", "10.0.0.0/16", nil)
	f.a, f.b = f.boot("a", "host1", nil), f.boot("b", "host2", nil)
	client := f.boot("client", "host1", nil)
	for _, v := range f.vms {
		f.dhcp(v)
	}
	f.reaches(f.a.Node, f.b.ip())
	stream, leases := f.ping(), f.leases(client)
	written := f.createEverywhere([]string{m[0].api, m[1].api, m[2].api})

	for i, c := range m {
		f.cloud = m[(i+1)%len(m)]
		if code := c.kill(syscall.SIGTERM); code != 0 {
			t.Errorf("%s: exit code %d", memberName(i), code)
		}
		m.whole()
		c.program = []string{next}
		c.start()
		m.whole()
		if i < 2 {
			says := db(t, next, 0, "migrate", "--database", dsn)
			if !strings.Contains(says, "not contracted") || !strings.Contains(says, memberName(2)) || strings.Contains(says, memberName(i)) {
				t.Errorf("with older members: %s", says)
			}
			// An older member erases nothing that it does not know.
			m[2].update("port", f.a.id(), object{"name": fmt.Sprintf("renamed%d", i)})
			f.stillKnown(dsn, fmt.Sprintf("renamed%d", i))
		}
	}
	f.cloud = m[0]
	if says := db(t, next, 0, "migrate", "--database", dsn); !strings.Contains(says, "contracted to schema 2") {
		t.Errorf("without older members: %s", says)
	}
	if says := db(t, controllerBinary, 0, "version", "--database", dsn); !strings.Contains(says, "too old") || !strings.Contains(says, "next") {
		t.Errorf("as an older program has it: %s", says)
	}
	old := exec.Command(controllerBinary, m[0].args...)
	if out, _ := old.CombinedOutput(); old.ProcessState.ExitCode() == 0 {
		t.Errorf("an older program starts: %s", out)
	}
	late := f.boot("late", "host2", nil)
	f.dhcp(late)
	m.whole()

	answered := leases()
	t.Log(answered)
	if err := answered.wrong(); err != nil {
		t.Error(err)
	}
	f.lossless("three members were upgraded", stream)
	f.nothingLost(m, written())
	for name, c := range m.running() {
		for _, h := range f.lab.Hosts() {
			if err := (&fire{cloud: c}).undesired(h.Name()); err != nil {
				t.Errorf("as %s has it: %v", name, err)
			}
		}
	}
}

// stillKnown checks that what only a newer program knows is in the database.
func (f *fire) stillKnown(dsn, name string) {
	f.Helper()
	conn, err := sql.Open("postgres", dsn)
	if err != nil {
		f.Fatal(err)
	}
	defer conn.Close()
	var port string
	var trunks int
	if err := conn.QueryRow(`SELECT body, (SELECT COUNT(*) FROM objects WHERE kind = 'trunk') FROM objects WHERE kind = 'port' AND id = $1`, f.a.id()).Scan(&port, &trunks); err != nil {
		f.Fatal(err)
	}
	if !strings.Contains(port, `"hint":{"depth":7}`) || !strings.Contains(port, name) || trunks != 1 {
		f.Errorf("%d trunks, and the port is %s", trunks, port)
	}
}

// nothingLost checks that every member has what any has acknowledged.
func (f *fire) nothingLost(m members, written acknowledged) {
	f.Helper()
	if len(written) == 0 {
		f.Error("nothing was written")
	}
	f.Logf("%d writes acknowledged", len(written))
	for name, c := range m.running() {
		f.eventually(name+" has every write", func() error {
			there := (&fire{cloud: c, network: f.network}).ports()
			for id, port := range written {
				if there[id] != port {
					return fmt.Errorf("port %s (%s) is %q", port, id, there[id])
				}
			}
			return nil
		})
	}
}

// TestLabGrowsIntoPostgreSQLAndBack takes a backup from a running controller into
// a database of the other kind: switches that stayed up notice nothing.
func TestLabGrowsIntoPostgreSQLAndBack(t *testing.T) {
	t.Parallel()
	f := newFire(t, 2, "")
	c := f.cloud
	red := c.network("red", "10.1.0.0/24", nil)
	c.router("blue", f.network, red)
	other := c.boot("other", "host2", red, nil)
	c.dhcp(other)
	c.reaches(f.a.Node, other.ip())
	stream := f.ping()
	stateDir := filepath.Join(filepath.Dir(c.config), "state")
	large, file := pg.Start(t), filepath.Join(t.TempDir(), "lab.planck")

	move := func(to string, from, into []string, then func()) {
		c.allLive()
		before := c.state()
		db(t, controllerBinary, 0, append([]string{"backup", file}, from...)...)
		if says := db(t, controllerBinary, 1, append([]string{"restore", "--force", file}, from...)...); !strings.Contains(says, "works with the database") {
			t.Errorf("restored under a controller: %s", says)
		}
		c.kill(syscall.SIGTERM)
		db(t, controllerBinary, 0, append([]string{"restore", "--force", file}, into...)...)
		then()
		c.start()
		c.allLive()
		if after := c.state(); after != before {
			t.Errorf("%s: the state is\n%s\nnot\n%s", to, after, before)
		}
		if n := c.metric("planck_flow_mods_total", ""); n != 0 {
			t.Errorf("%s: %v FLOW_MODs for switches that stayed up", to, n)
		}
		late := f.boot("late"+to, "host1", nil)
		f.dhcp(late)
		f.reaches(late.Node, other.ip())
	}
	inFile, inServer := []string{"--state-dir", stateDir}, []string{"--database", large}
	alone := c.args
	move("postgresql", inFile, inServer, func() { c.args = append(alone[:len(alone):len(alone)], inServer...) })
	move("sqlite", inServer, inFile, func() { c.args = alone })
	f.lossless("the database moved to PostgreSQL and back", stream)
}
