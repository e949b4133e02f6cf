package e2e

import (
	"cmp"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"
)

const (
	switchTraces = 300 // packets that are traced by Open vSwitch as well
	sameTries    = 4
)

// lookup is a flow that a packet meets: bridge, table, priority and cookie.
type lookup string

func lookupOf(bridge, table, priority, cookie string) lookup {
	return lookup(fmt.Sprintf("%s table=%s priority=%s cookie=%s", bridge, table, priority, cookie))
}

var (
	bridgeLine = regexp.MustCompile(`^bridge\("(.*)"\)$`)
	flowLine   = regexp.MustCompile(`^\s*(\d+)\. (?:.*?\bpriority (\d+)(?:, cookie (0x[0-9a-f]+))?|No match.*)$`)
	cookieIn   = regexp.MustCompile(`cookie=(0x[0-9a-f]+)`)
	priorityIn = regexp.MustCompile(`priority=(\d+)`)
	secondMAC  = regexp.MustCompile(`→ ([0-9a-f]{2}(?::[0-9a-f]{2}){5})\)`)
)

// switchLookups are those that ofproto/trace prints, over all bridges of ours and
// over recirculations. After check_pkt_larger it tries large packets first, further
// in, and then the one that it was asked about.
func switchLookups(out string) (all []lookup) {
	bridge, depth, large := "", 0, false
	for line := range strings.Lines(out) {
		line = strings.TrimRight(line, "\n")
		if m := bridgeLine.FindStringSubmatch(line); m != nil {
			bridge, large = m[1], false
		}
		large = large || strings.HasPrefix(strings.TrimSpace(line), "check_pkt_larger(")
		m := flowLine.FindStringSubmatch(line)
		if m == nil || bridge == "br-phy" {
			continue
		}
		// Numbers of one digit have a blank before them.
		if in := (len(line) - len(strings.TrimLeft(line, " "))) / 2 * 2; !large || in <= depth {
			depth, large = in, false
			priority, cookie := m[2], cmp.Or(m[3], "0x0")
			if priority == "" { // no match
				priority, cookie = "none", "none"
			}
			all = append(all, lookupOf(bridge, m[1], priority, cookie))
		}
	}
	return all
}

// tracedWay is what planck trace says of a packet's way, by installed flows.
type tracedWay struct {
	Summary string
	Hops    []struct {
		Host, Bridge, Via, Packet string
		Steps                     []struct {
			Table int
			Flow  string
		}
	}
}

// lookups are those on the host of the sender, until the packet goes to another one
// or meets a flow for what conntrack keeps of its first packet, which ofproto/trace
// leaves out: whole tells whether that was not so.
func (w *tracedWay) lookups() (all []lookup, whole bool) {
	for _, h := range w.Hops {
		if h.Via != "vif" && h.Via != "patch" {
			break
		}
		for _, s := range h.Steps {
			if strings.Contains(s.Flow, "ct_nw_") || strings.Contains(s.Flow, "ct_tp_") {
				return all, false
			}
			priority, cookie := "none", "none"
			if s.Flow != "" {
				priority, cookie = found(priorityIn, s.Flow, "32768"), found(cookieIn, s.Flow, "0x0")
			}
			all = append(all, lookupOf(h.Bridge, strconv.Itoa(s.Table), priority, cookie))
		}
	}
	return all, true
}

// found is the first thing in a text that is looked for, or what stands for none.
func found(what *regexp.Regexp, text, none string) string {
	if m := what.FindStringSubmatch(text); m != nil {
		return m[1]
	}
	return none
}

// agreesWithOfproto asks ofproto/trace of the sender's own switch about random
// packets, each the first of its connection: it must meet the flows that planck
// trace --installed says, in all bridges of the host.
func (c *cloud) agreesWithOfproto(vms []*vm, targets []string, ports []int) {
	c.Helper()
	random := rand.New(rand.NewPCG(2, 2))
	var group errgroup.Group
	group.SetLimit(4)
	var compared, lookups atomic.Int32
	for range switchTraces {
		from, to := vms[random.IntN(len(vms))], targets[random.IntN(len(targets))]
		protocol, port := []string{"tcp", "udp"}[random.IntN(2)], ports[random.IntN(len(ports))]
		if to == from.ip() {
			continue // what it sends to itself does not leave it
		}
		group.Go(func() error {
			n, err := c.sameLookups(from, to, protocol, port)
			for try := 1; err != nil && try < sameTries; try++ { // a neighbour may be learnt, or forgotten, between the two
				time.Sleep(probeWait)
				n, err = c.sameLookups(from, to, protocol, port)
			}
			if err != nil {
				c.Errorf("%s/%d from %s to %s: planck trace is + and the switch -: %v", protocol, port, from.Name(), to, err)
			}
			if n > 0 {
				compared.Add(1)
				lookups.Add(int32(n))
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		c.Fatal(err)
	}
	c.Logf("%d packets compared with ofproto/trace, %d look-ups", compared.Load(), lookups.Load())
	if compared.Load() < switchTraces/2 {
		c.Errorf("only %d of %d packets came to a switch: that tells too little", compared.Load(), switchTraces)
	}
}

// sameLookups compares one packet's way, and says how many flows it met.
func (c *cloud) sameLookups(from *vm, to, protocol string, port int) (int, error) {
	var said tracedWay
	c.operator("trace", url.Values{"from": {from.id()}, "to": {to}, "protocol": {protocol}, "dport": {strconv.Itoa(port)}, "installed": {"1"}}, &said)
	if len(said.Hops) == 0 {
		return 0, nil // its machine has no way there
	}
	mac := secondMAC.FindStringSubmatch(said.Hops[0].Packet)
	if mac == nil {
		return 0, fmt.Errorf("no MACs in %q", said.Hops[0].Packet)
	}
	h := c.lab.Host(said.Hops[0].Host)
	in, err := h.Vsctl("get", "Interface", from.Tap(), "ofport")
	if err != nil {
		return 0, err
	}
	packet := fmt.Sprintf("in_port=%s,%s,dl_src=%s,dl_dst=%s,nw_src=%s,nw_dst=%s,nw_ttl=64,%s_src=49152,%s_dst=%d",
		strings.TrimSpace(in), protocol, from.mac(), mac[1], from.ip(), to, protocol, protocol, port)
	args := []string{"ofproto/trace", "br-int", packet}
	for range 6 { // more recirculations there are not
		args = append(args, "--ct-next", "trk,new")
	}
	out, err := h.Appctl(args...)
	if err != nil {
		return 0, err
	}
	theirs := switchLookups(out)
	ours, whole := said.lookups()
	if !whole {
		theirs = theirs[:min(len(ours), len(theirs))]
	}
	if diff := gocmp.Diff(theirs, ours); diff != "" {
		return 0, errors.New(said.Summary + "\n" + diff + out)
	}
	return len(ours), nil
}
