package e2e

import (
	"fmt"
	"net/http"
	"syscall"
	"testing"
	"time"
)

func TestControllerDiesWhileItWritesAndNothingIsLost(t *testing.T) {
	t.Parallel()
	f := newFire(t, 2, "")
	d := f.boot("d", "host2", nil)
	for _, sig := range []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM} {
		stream, writers, leases := f.ping(), f.write(3), f.leases(d)
		writers.answered("the API writes", http.StatusCreated, 10)
		if code := f.kill(sig); sig == syscall.SIGTERM && code != 0 {
			t.Errorf("exit code %d after SIGTERM", code)
		}
		f.flowing(stream)
		f.start()
		back := time.Now()
		writers.answered("the API writes again", http.StatusCreated, 10)
		f.live(2)
		t.Logf("%v: all is live %v after the API was back", sig, time.Since(back).Round(time.Millisecond))
		f.flowing(stream)
		answered := leases()
		f.dhcp(d)
		t.Logf("%v: %v", sig, answered)
		f.lossless(fmt.Sprint(sig), stream)
		writers.finish()
		f.whole(fmt.Sprint(sig))
	}
	f.right()
	f.nothingLeft()
}

// A controller that stands still for longer than the inactivity probe finds
// only dead connections when it goes on, and a backlog of new ones.
func TestControllerStandsStill(t *testing.T) {
	for _, pause := range []time.Duration{8 * time.Second, 20 * time.Second} {
		t.Run(pause.String(), func(t *testing.T) {
			t.Parallel()
			f := newFire(t, 2, "")
			stream, writers := f.ping(), f.write(3)
			writers.answered("the API writes", http.StatusCreated, 10)
			f.pause(pause)
			on := time.Now()
			writers.answered("the API writes again", http.StatusCreated, 10)
			f.live(2)
			t.Logf("all is live %v after it went on", time.Since(on).Round(time.Millisecond))
			v := f.boot("after", "host2", nil)
			f.dhcp(v)
			f.flowing(stream)
			f.lossless("a controller that stands still", stream)
			// What stood still in its transaction for longer than the database's
			// timeout may be refused.
			writers.finish(http.StatusServiceUnavailable)
			f.right()
			f.nothingLeft()
		})
	}
}

// pause stops the controller's process for a while.
func (c *cloud) pause(d time.Duration) {
	c.Helper()
	if err := c.process.Process.Signal(syscall.SIGSTOP); err != nil {
		c.Fatal(err)
	}
	time.Sleep(d)
	if err := c.process.Process.Signal(syscall.SIGCONT); err != nil {
		c.Fatal(err)
	}
}
