package controller

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"planck/network"
)

// Times of the status of floating IPs.
const (
	floatingPace = 50 * time.Millisecond
	// floatingIdle is how often those are looked at whose host is away.
	floatingIdle = time.Second
)

// floatings notes which floating IPs are wired: their host has acknowledged the
// flows that translate them. From then on they are ACTIVE, until they stand for
// another address. It decides from the state; events only tell which to look at.
type floatings struct {
	ctl  *Controller
	log  *slog.Logger
	kick chan struct{}

	mu       sync.Mutex
	incoming map[string]struct{}

	// Of the goroutine that runs.
	waiting map[string]floatingAt
}

// floatingAt is where a floating IP was seen to live, and since which revision.
type floatingAt struct {
	host     string
	revision uint64
}

func newFloatings(c *Controller) *floatings {
	return &floatings{
		ctl: c, log: c.log, kick: make(chan struct{}, 1),
		incoming: map[string]struct{}{}, waiting: map[string]floatingAt{},
	}
}

func (s *floatings) wake() {
	select {
	case s.kick <- struct{}{}:
	default:
	}
}

// note takes the floating IPs that a batch changed.
func (s *floatings) note(b network.Batch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, ch := range b.Changes {
		if ch.Kind == network.KindFloatingIP && ch.After != nil {
			s.incoming[ch.ID] = struct{}{}
		}
	}
	if len(s.incoming) > 0 {
		s.wake()
	}
}

// run looks at those that wait until ctx ends.
func (s *floatings) run(ctx context.Context) error {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.kick:
		case <-timer.C:
		}
		again := time.Hour
		if v := s.ctl.view.Load(); v != nil {
			wired, later := s.look(v)
			if again = later; s.write(ctx, wired) != nil {
				again = min(again, statusRetry)
			}
		}
		timer.Reset(again)
	}
}

// look finds those that are wired now, and says when to look again.
func (s *floatings) look(v *network.View) (wired []*network.FloatingIP, again time.Duration) {
	s.mu.Lock()
	for id := range s.incoming {
		s.waiting[id] = floatingAt{revision: v.Revision()}
	}
	clear(s.incoming)
	s.mu.Unlock()
	again = time.Hour
	for id, at := range s.waiting {
		f := v.FloatingIP(id)
		if f == nil || f.PortID == "" || v.FloatingIPStatus(f) == network.StatusActive {
			delete(s.waiting, id)
			continue
		}
		if host := v.FloatingHost(f); host != at.host {
			at = floatingAt{host, v.Revision()}
			s.waiting[id] = at
		}
		switch {
		case at.host == "" || !s.ctl.opt.Cluster.Owns(at.host) || !s.ctl.hostLive(at.host):
			again = min(again, floatingIdle)
		case s.ctl.hostApplied(at.host, at.revision):
			wired = append(wired, f)
		default:
			again = min(again, floatingPace)
		}
	}
	return wired, again
}

// write notes, many in a transaction, which are wired.
func (s *floatings) write(ctx context.Context, wired []*network.FloatingIP) error {
	for batch := range slices.Chunk(wired, statusBatch) {
		_, err := s.ctl.opt.Store.Update(ctx, network.Cause{Operation: "floating IP status"}, func(tx *network.Tx) error {
			for _, f := range batch {
				if err := tx.SetFloatingIPWired(f); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			s.log.Warn("status of floating IPs is not written, trying again", "floating_ips", len(wired), "error", err)
			return err
		}
		for _, f := range batch {
			delete(s.waiting, f.ID)
		}
	}
	return nil
}
