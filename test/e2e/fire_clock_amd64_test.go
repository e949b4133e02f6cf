package e2e

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"planck/test/lab"
)

// wallClock is the wall clock of one controller; the machine's is left alone.
type wallClock struct {
	t    *testing.T
	file *os.File // how many seconds it is off: the controller has it in its memory
	off  time.Duration
}

// jump sets the clock to so much off, at once.
func (w *wallClock) jump(off time.Duration) {
	w.t.Helper()
	if _, err := w.file.WriteAt(binary.NativeEndian.AppendUint64(nil, uint64(off/time.Second)), 0); err != nil {
		w.t.Fatal(err)
	}
	w.off = off
}

// shows reports a time that is not about now by the clock.
func (w *wallClock) shows(what, text, layout string) error {
	at, err := time.Parse(layout, text)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	if now := time.Now().Add(w.off); at.Before(now.Add(-settle)) || at.After(now.Add(settle)) {
		return fmt.Errorf("%s is %v, the clock shows %v", what, at, now.UTC())
	}
	return nil
}

// newClocked is a controller with a wall clock of its own: the same program,
// with two files more in its package main.
func newClocked(t *testing.T) (program []string, w *wallClock) {
	t.Helper()
	dir := t.TempDir()
	added := map[string]string{}
	for _, name := range []string{"clock.go", "clock_amd64.s"} {
		source, err := filepath.Abs(filepath.Join("testdata", "clock", name))
		if err != nil {
			t.Fatal(err)
		}
		place, err := filepath.Abs(filepath.Join("..", "..", "cmd", "planck", name))
		if err != nil {
			t.Fatal(err)
		}
		added[place] = source
	}
	overlay, err := json.Marshal(map[string]any{"Replace": added})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "overlay.json"), overlay, 0o600); err != nil {
		t.Fatal(err)
	}
	binary := filepath.Join(dir, "planck")
	build := exec.Command("go", "build", "-race", "-overlay", filepath.Join(dir, "overlay.json"), "-o", binary, "planck/cmd/planck")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	file, err := os.Create(filepath.Join(dir, "clock"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	w = &wallClock{t: t, file: file}
	w.jump(0)
	return []string{"env", "PLANCK_TEST_CLOCK=" + file.Name(), binary}, w
}

// The wall clock of the controller jumps by hours, there and back, as when it is
// set after a boot: nothing may come of that but other times in what is written.
func TestWallClockThatJumpsHarmsNobody(t *testing.T) {
	t.Parallel()
	program, clock := newClocked(t)
	c := newControllerOf(t, program, "[openflow]\naudit_interval = 2\n")
	c.lab = lab.ForTest(t, lab.Options{Hosts: 2, Controllers: []string{c.ovsdb}})
	f := newFireIn(c, 2)
	d := f.boot("d", "host2", nil)
	client, err := d.StartDHCP()
	if err != nil {
		t.Fatal(err)
	}
	f.leased(d, client, 1)
	closed := f.metric("planck_openflow_closed_total", "")
	stream, near, far, writers := f.ping(), f.watchStatus(f.a), f.watchStatus(f.b), f.write(1)
	stamped := f.a.port
	for _, off := range []time.Duration{5 * time.Hour, 0, -21 * time.Hour} {
		clock.jump(off)
		what := fmt.Sprintf("the clock is off by %v", off)
		audits := f.metric("planck_switch_reads_total", `cause="audit"`)
		writers.answered("the API writes", http.StatusCreated, 10)
		f.flowing(stream)
		f.renewed(d, client)
		f.eventually("audits go on", func() error {
			if n := f.metric("planck_switch_reads_total", `cause="audit"`) - audits; n < float64(4*len(bridges)) {
				return fmt.Errorf("%v reads", n)
			}
			return nil
		})
		stamped = f.timesAreRight(what, clock, stamped)
		v := f.boot(fmt.Sprintf("at%d", len(f.vms)), "host1", nil)
		f.dhcp(v)
		f.reaches(v.Node, f.b.ip())
		f.whole(what)
	}
	for name, was := range map[string]float64{"planck_openflow_closed_total": closed, "planck_drift_total": 0} {
		if now := f.metric(name, ""); now != was {
			t.Errorf("%s was %v and is %v", name, was, now)
		}
	}
	f.lossless("a clock that jumps", stream)
	near()
	far()
	writers.finish()
	// The controller starts again at a time before all that it has written.
	f.right()
	f.renewed(d, client)
	f.nothingLeft()
}

// renewed lets a DHCP client renew its lease now.
func (f *fire) renewed(v *vm, client *lab.Process) {
	f.Helper()
	before := strings.Count(client.Output(), "obtained from")
	f.signal(client, syscall.SIGUSR1)
	f.leased(v, client, before+1)
}

// timesAreRight makes a port and changes an older one, and compares the times in
// what the API says of them and of the hosts. It returns the new port.
func (f *fire) timesAreRight(what string, clock *wallClock, older object) object {
	f.Helper()
	port := f.create("port", f.portBody("stamped", f.network, nil))
	if err := clock.shows("created_at", port["created_at"].(string), time.RFC3339); err != nil {
		f.Errorf("%s: %v", what, err)
	}
	before := older["updated_at"].(string)
	changed := f.update("port", older["id"].(string), object{"description": what})
	if now := changed["updated_at"].(string); now < before || now < changed["created_at"].(string) {
		f.Errorf("%s: updated_at was %s and is %s", what, before, now)
	}
	_, out := f.call(http.MethodGet, "/v2.0/agents", nil)
	for _, a := range out["agents"].([]any) {
		a := a.(object)
		if a["alive"] != true {
			f.Errorf("%s: the host %v is not alive", what, a["host"])
		}
		if err := clock.shows("heartbeat_timestamp", a["heartbeat_timestamp"].(string), time.DateTime); err != nil {
			f.Errorf("%s: %v", what, err)
		}
	}
	if len(out["agents"].([]any)) == 0 {
		f.Errorf("%s: no host is an agent", what)
	}
	return port
}
