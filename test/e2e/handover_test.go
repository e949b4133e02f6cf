package e2e

import (
	"fmt"
	"net/http"
	"syscall"
	"testing"
	"time"

	"planck/test/lab"
	"planck/test/pg"
)

// asking is a VM that asks a hundred times a second for what only a controller answers.
type asking struct {
	*vm
	*lab.PingStream
}

// TestRollingRestartLosesNoPunt restarts one member after the other, while VMs on
// hosts of several owners ask all the time for what only the owner answers: each
// question gets its answer, each time that their hosts go to another member and back.
func TestRollingRestartLosesNoPunt(t *testing.T) {
	t.Parallel()
	m := newMembersOn(t, pg.Start(t), 3, 3, "[openflow]\npunt_rate_per_port = 0\npunt_rate_per_host = 0\n")
	c := m[0]
	blue := c.network("blue", "10.0.0.0/24", nil)
	c.subnet6(blue, "fd00::/64", nil)
	_, servers := c.call(http.MethodGet, "/v2.0/ports?device_owner=network:dhcp", nil)
	server := linkLocal(t, servers["ports"].([]any)[0].(object)["mac_address"].(string))
	var all []asking
	for i := range 4 {
		v := c.boot(fmt.Sprint("vm", i), []string{"host1", "host3"}[i%2], blue, nil)
		c.dhcp(v)
		c.comesThrough(v.Node, server+"%eth0") // it has its own link-local address by now
		stream, err := v.PingStream(c.within(settle), server+"%eth0")
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, asking{v, stream})
	}
	moved := 0
	for i := range 6 {
		member := m[i%3]
		before := m.any().cluster().Owners
		if code := member.kill(syscall.SIGTERM); code != 0 {
			t.Errorf("%s ends with %d", memberName(i%3), code)
		}
		m.whole()
		for _, host := range []string{"host1", "host3"} {
			if m.any().cluster().Owners[host] != before[host] {
				moved++
			}
		}
		for _, a := range all {
			if err := a.WaitReplies(c.within(settle), 20); err != nil {
				t.Errorf("%s is not answered: %v", a.Name(), err)
			}
		}
		member.start()
		m.whole()
	}
	sent := 0
	for _, a := range all {
		stats, err := a.Stop()
		if err != nil {
			t.Fatal(err)
		}
		sent += stats.Sent
		if stats.Lost > 0 {
			t.Errorf("%d of %d questions of %s were not answered, %v in a row from number %d, before %s", stats.Lost, stats.Sent, a.Name(), stats.LongestGap, stats.GapAt, time.Now().Add(-time.Duration(stats.GapSince)*10*time.Millisecond).UTC().Format("15:04:05.000"))
		}
		if stats.Duplicates > 0 {
			t.Logf("%d questions of %s were answered twice", stats.Duplicates, a.Name())
		}
	}
	if moved < 4 {
		t.Errorf("hosts of the VMs went to another member %d times", moved)
	}
	t.Logf("%d questions, while hosts went to another member and back %d times", sent, moved)
}
