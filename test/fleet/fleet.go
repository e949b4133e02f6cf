// Package fleet plays hypervisors, a thousand of them in one process: each has
// the database of an Open vSwitch, which dials the managers, and OpenFlow
// switches, which dial the controllers, over TCP. They speak as much of OVSDB
// and of OpenFlow 1.3 as Planck does, and keep what they are told; packets go as
// far as to the controller and back. TestFleetAnswersAsOpenVSwitch compares them with a
// real one.
package fleet

import (
	"fmt"
	"sync"
	"time"

	"planck/flows"
)

// Options of a Fleet.
type Options struct {
	Hosts    int
	Managers []string // targets, as tcp:127.0.0.1:6640
	// Mappings is external_ids:planck-bridge-mappings, "" for none.
	Mappings string
}

// Fleet is a number of hosts.
type Fleet struct {
	Hosts []*Host
	end   chan struct{}
	done  sync.WaitGroup
}

// Name is what the i-th host of a fleet is called.
func Name(i int) string { return fmt.Sprintf("host%d", i) }

// New makes hosts; Start lets them dial.
func New(o Options) (*Fleet, error) {
	f := &Fleet{end: make(chan struct{})}
	for i := range o.Hosts {
		h, err := newHost(Name(i), fmt.Sprintf("10.250.%d.%d", i>>8, i&255), o.Mappings, o.Managers)
		if err != nil {
			return nil, err
		}
		f.Hosts = append(f.Hosts, h)
	}
	return f, nil
}

// Start lets all hosts dial.
func (f *Fleet) Start() {
	for _, h := range f.Hosts {
		h.start()
	}
	f.done.Go(f.look)
}

// lookEvery is how often a host is looked at; ovs-vswitchd writes the state of
// its controllers into the database as often.
const lookEvery = 5 * time.Second

// look looks at all hosts, one after the other.
func (f *Fleet) look() {
	const turns = 100
	tick := time.NewTicker(lookEvery / turns)
	defer tick.Stop()
	for turn := 0; ; turn++ {
		select {
		case <-f.end:
			return
		case now := <-tick.C:
			for i := turn % turns; i < len(f.Hosts); i += turns {
				f.Hosts[i].look(now)
			}
		}
	}
}

// Stop ends all hosts.
func (f *Fleet) Stop() {
	close(f.end)
	f.done.Wait()
	var stopping sync.WaitGroup
	for _, h := range f.Hosts {
		stopping.Go(h.stop)
	}
	stopping.Wait()
}

// Restart is what the end of ovs-vswitchd and its new start do: all
// connections of the bridges break, and they have no flows.
func (h *Host) Restart() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, b := range h.bridges {
		b.restart()
	}
}

// Counts is what a host has, and how many controllers its bridges have.
type Counts struct {
	Bridges, Flows, Groups, Meters, Connections, Masters int
}

// Changed is when a flow or a group of the host was last changed.
func (h *Host) Changed() (last time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, b := range h.bridges {
		b.mu.Lock()
		if b.changed.After(last) {
			last = b.changed
		}
		b.mu.Unlock()
	}
	return last
}

// Count counts.
func (h *Host) Count() (c Counts) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, b := range h.bridges {
		b.count(&c)
	}
	return c
}

func (b *bridge) count(c *Counts) {
	b.mu.Lock()
	defer b.mu.Unlock()
	c.Bridges++
	c.Flows += len(b.flows)
	c.Groups += len(b.groups)
	c.Meters += len(b.meters)
	c.Connections += len(b.sessions)
	for _, s := range b.sessions {
		if s.role == flows.RoleMaster {
			c.Masters++
		}
	}
}
