package e2e

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"planck/test/lab"
)

// pingsLarge waits until a ping that takes several packets is answered.
func (c *cloud) pingsLarge(from *lab.Node, dst string) {
	c.Helper()
	c.eventually(from.Name()+" reaches "+dst+" by large packets", func() error {
		if _, received, err := from.Ping(c.Context(), dst, 1, "-W", "2", "-s", "4000"); received == 0 {
			return fmt.Errorf("no answer, %v", err)
		}
		return nil
	})
}

// largeDatagrams waits until UDP datagrams that take several packets arrive.
func (c *cloud) largeDatagrams(from, server *lab.Node, address string) {
	c.Helper()
	listening, err := server.Start("iperf3", "-s", "--forceflush")
	if err != nil {
		c.Fatal(err)
	}
	defer func() { _, _ = listening.Stop() }()
	if err := listening.WaitOutput(c.within(settle), "Server listening"); err != nil {
		c.Fatal(err)
	}
	c.eventually("large datagrams from "+from.Name()+" to "+address, func() error {
		out, err := from.Exec(c.within(settle), "iperf3", "-u", "-c", address, "-l", "8000", "-b", "2M", "-t", "1", "-J")
		var report struct {
			End struct {
				Sum struct {
					Packets     int
					LostPackets int `json:"lost_packets"`
				}
			}
			Error string
		}
		_, out, _ = strings.Cut(out, "\n{") // behind a warning that there will be fragments
		if jsonErr := json.Unmarshal([]byte("{"+out), &report); jsonErr != nil || err != nil || report.Error != "" {
			return fmt.Errorf("iperf3: %v, %v: %s", err, jsonErr, out)
		}
		if sum := report.End.Sum; sum.Packets == 0 || sum.LostPackets*2 > sum.Packets {
			return fmt.Errorf("%d of %d datagrams are lost", sum.LostPackets, sum.Packets)
		}
		return nil
	})
}

// Packets that are sent in fragments are routed, and translated both ways.
func TestFragmentsAreRoutedAndTranslated(t *testing.T) {
	t.Parallel()
	c := newCloud(t, 2, nil, physicalNetwork)
	anyTraffic := c.anyTraffic()
	public := c.outside()
	one, two := c.network("blue", "10.0.0.0/24", nil), c.network("blue", "10.0.1.0/24", nil)
	gateway := c.setGateway(c.router("blue", one, two), public, nil)
	a, b := c.boot("a", "host1", one, anyTraffic), c.boot("b", "host2", two, anyTraffic)
	c.dhcp(a)
	c.dhcp(b)
	ext := c.lab.Ext()
	c.comesThrough(a.Node, b.ip())
	arriving := c.capture(b.Node, "eth0", "src host "+a.ip())
	c.pingsLarge(a.Node, b.ip())
	c.largeDatagrams(a.Node, b.Node, b.ip())
	if err := arriving.WaitFor(c.within(settle), "flags [+]"); err != nil {
		t.Errorf("no fragment arrives: %v", err)
	}
	c.captured(arriving)

	leaving := c.capture(ext, "eth0", "src host "+gateway)
	c.pingsLarge(a.Node, "203.0.113.1")
	c.largeDatagrams(a.Node, ext, "203.0.113.1")
	if err := leaving.WaitFor(c.within(settle), "flags [+]"); err != nil {
		t.Errorf("no fragment leaves: %v", err)
	}
	c.captured(leaving)

	_, floating := c.floatingIP(public, b)
	c.pingsLarge(ext, floating)
	c.largeDatagrams(ext, b.Node, floating)
	c.pingsLarge(a.Node, floating)
	c.pingsLarge(b.Node, "203.0.113.1")
	c.largeDatagrams(b.Node, ext, "203.0.113.1")
}
