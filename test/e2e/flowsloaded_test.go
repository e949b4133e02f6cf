package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"planck/controller"
)

// routedCloud is two machines on two hosts and two networks, with a router and a
// security group between them, who have spoken to each other and to the outside.
func routedCloud(t *testing.T) (c *cloud, a, b *vm) {
	t.Helper()
	c = newCloud(t, 2, nil, physicalNetwork)
	c.hostsUp()
	public, anyTraffic := c.outside(), c.anyTraffic()
	blue, green := c.network("blue", "10.0.0.0/24", nil), c.network("green", "10.0.1.0/24", nil)
	a, b = c.boot("a", "host1", blue, anyTraffic), c.boot("b", "host2", green, anyTraffic)
	c.setGateway(c.router("blue", blue, green), public, nil)
	c.floatingIP(public, b)
	c.dhcp(a)
	c.dhcp(b)
	c.reaches(a.Node, b.ip())
	c.comesThrough(a.Node, "203.0.113.1")
	c.settled()
	return c, a, b
}

// What planck flows -o ovs-ofctl prints of a bridge makes the same of another one as
// what ovs-ofctl itself dumps: by OpenFlow 1.3 it makes a load of a set_field with a
// mask, so that neither is the dump to the letter.
func TestFlowsThatPlanckPrintsAreLoadedBack(t *testing.T) {
	t.Parallel()
	c, _, _ := routedCloud(t)
	for _, bridge := range []string{"br-int", "br-tun", "br-ex"} {
		c.eventually(bridge+" is the same when it is loaded back", func() error {
			dump := dumped(c.ofctl("host1", "--no-stats", "dump-flows", bridge), "actions=")
			want := c.loaded(bridge, strings.Join(dump, "\n")+"\n")
			got := c.loaded(bridge, c.planck("flows", "host1", bridge, "-o", "ovs-ofctl"))
			if len(want) != len(dump) || len(want) < 5 || !slices.Equal(want, got) {
				return fmt.Errorf("of %d flows %d were loaded back by ovs-ofctl, and %d as planck prints them: %s", len(dump), len(want), len(got), firstDifference(want, got))
			}
			return nil
		})
	}
}

// loaded loads a text of flows into a new bridge, after the groups and meters of
// another one, and dumps it.
func (c *cloud) loaded(bridge, text string) []string {
	c.Helper()
	const copied = "br-copy"
	c.vsctl("host1", "add-br", copied, "--", "set", "Bridge", copied, "datapath_type=netdev", "fail_mode=secure", "protocols=OpenFlow13")
	defer c.vsctl("host1", "del-br", copied)
	for _, meter := range strings.Split(c.ofctl("host1", "dump-meters", bridge), "meter=")[1:] { // of some lines each
		c.ofctl("host1", "add-meter", copied, "meter="+strings.Join(strings.Fields(meter), " "))
	}
	groups := dumped(c.ofctl("host1", "dump-groups", bridge), "group_id=")
	c.ofctl("host1", "add-groups", copied, c.file(strings.Join(groups, "\n")+"\n"))
	c.ofctl("host1", "add-flows", copied, c.file(text))
	flows := dumped(c.ofctl("host1", "--no-stats", "dump-flows", copied), "actions=")
	slices.Sort(flows)
	return flows
}

// dumped are the lines of a dump that have a text in them.
func dumped(dump, text string) (lines []string) {
	for line := range strings.Lines(dump) {
		if strings.Contains(line, text) {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	return lines
}

func firstDifference(want, got []string) string {
	for i := range min(len(want), len(got)) {
		if want[i] != got[i] {
			return want[i] + "\nbecame\n" + got[i]
		}
	}
	return "the rest is missing"
}

// file writes a text into a file of its own.
func (c *cloud) file(text string) string {
	c.Helper()
	name := filepath.Join(c.TempDir(), "text")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		c.Fatal(err)
	}
	return name
}

// Whoever asks for the flows of a router sees by which the packets of a connection
// go, on both hosts, and with --watch which of them count now.
func TestFlowsOfARouterCountItsPackets(t *testing.T) {
	t.Parallel()
	c, a, b := routedCloud(t)
	stream, err := a.PingStream(c.Context(), b.ip(), "-i", "0.1")
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Stop()

	c.eventually("flows of the router count on both hosts", func() error {
		var records []controller.FlowRecord
		if err := json.Unmarshal([]byte(c.planck("flows", "--router", "blue-router", "-o", "json")), &records); err != nil {
			return err
		}
		counted := map[string]bool{}
		for _, r := range records {
			counted[r.Host] = counted[r.Host] || r.TableName == "Route" && r.Packets > 0
		}
		if !counted["host1"] || !counted["host2"] {
			return fmt.Errorf("counted: %v, of %d flows", counted, len(records))
		}
		return nil
	})

	said := c.saidBefore([]string{"flows", "host1", "br-int", "--router", "blue-router", "--watch", "1s"}, func(out string) bool {
		return strings.Count(out, "--- ") > 1 && strings.Contains(out, "36(Route) ") && strings.Contains(out, "router=blue-router, net=green-net")
	})
	if strings.Contains(said, "n_packets=0") {
		t.Errorf("flows that count nothing are shown:\n%s", said)
	}
}

// saidBefore runs a tool until it has said something, and interrupts it.
func (c *cloud) saidBefore(args []string, enough func(out string) bool) string {
	c.Helper()
	ctx, cancel := context.WithCancel(c.Context())
	defer cancel()
	cmd := exec.CommandContext(ctx, controllerBinary, args...)
	cmd.Env = append(os.Environ(), "OS_URL="+c.api)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	name := filepath.Join(c.TempDir(), "said")
	out, err := os.Create(name)
	if err != nil {
		c.Fatal(err)
	}
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		c.Fatal(err)
	}
	text := []byte{}
	c.eventually(strings.Join(args, " ")+" says what is asked for", func() error {
		if text, err = os.ReadFile(name); err != nil || !enough(string(text)) {
			return fmt.Errorf("%v: %s", err, text)
		}
		return nil
	})
	cancel()
	if err := cmd.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		c.Errorf("%v ends with %v", args, err)
	}
	return string(text)
}
