package e2e

import (
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"

	"planck/test/lab"
	"planck/test/pg"
)

// elsewhere makes the next start of the controller one on another machine:
// other ports and another state directory. It returns its OVSDB target.
func (c *cloud) elsewhere() (ovsdb string) {
	c.Helper()
	for i, arg := range c.args {
		switch arg {
		case "--state-dir":
			c.args[i+1] = filepath.Join(c.TempDir(), "state")
		case "--api-listen", "--ovsdb-listen", "--openflow-listen":
			host, _, err := net.SplitHostPort(c.args[i+1])
			if err != nil {
				c.Fatal(err)
			}
			port := strconv.Itoa(freePort(c.T))
			c.args[i+1] = net.JoinHostPort(host, port)
			if arg == "--api-listen" {
				c.api = "http://" + c.args[i+1]
			}
			if arg == "--ovsdb-listen" {
				c.ovsdb = fmt.Sprintf("tcp:%s:%s", lab.ControllerHost, port)
			}
		}
	}
	return c.ovsdb
}

func TestTwoControllersInTurnOnPostgreSQL(t *testing.T) {
	t.Parallel()
	c := newCloud(t, 2, nil, "[database]\nconnection = "+pg.Start(t)+"\n")
	blue, red := c.network("blue", "10.0.0.0/24", nil), c.network("red", "10.0.0.0/24", nil)
	blue1, blue2 := c.boot("blue1", "host1", blue, nil), c.boot("blue2", "host2", blue, nil)
	red1 := c.boot("red1", "host1", red, nil)
	for _, v := range []*vm{blue1, blue2, red1} {
		c.dhcp(v)
	}
	c.reaches(blue1.Node, blue2.ip())
	c.cutOff(red1.Node, blue2.ip())
	before := c.state()
	stream, err := blue1.PingStream(t.Context(), blue2.ip())
	if err != nil {
		t.Fatal(err)
	}

	// The hosts know both controllers; one dies, the other takes over.
	first := c.ovsdb
	c.kill(syscall.SIGKILL)
	second := c.elsewhere()
	for _, h := range c.lab.Hosts() {
		if err := h.SetManager(first, second); err != nil {
			t.Fatal(err)
		}
	}
	c.start()
	c.allLive()
	if after := c.state(); after != before {
		t.Errorf("the second controller knows another state:\n%s\nnot\n%s", after, before)
	}
	if n := c.metric("planck_flow_mods_total", ""); n != 0 {
		t.Errorf("the second controller sent %v FLOW_MODs to switches that are right", n)
	}
	if err := stream.WaitReplies(c.within(settle), 20); err != nil {
		t.Fatal(err)
	}
	stats, err := stream.Stop()
	if err := errors.Join(err, stats.Whole()); err != nil {
		t.Error(err)
	}

	red2 := c.boot("red2", "host2", red, nil)
	for _, v := range []*vm{blue1, red1, red2} {
		c.dhcp(v)
	}
	c.reaches(red1.Node, red2.ip())
	c.reaches(blue1.Node, blue2.ip())
	if err := blue2.Unplug(); err != nil {
		t.Fatal(err)
	}
	c.waitStatus(blue2.id(), "DOWN")
	// red2 has the address that blue2 had: it must not answer for it.
	c.cutOff(blue1.Node, blue2.ip())
}
