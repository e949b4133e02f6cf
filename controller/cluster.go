package controller

import (
	"context"
	"errors"
	"time"

	"planck/flows"
	"planck/network"
)

// Cluster says which hosts this controller programs, where several share the
// switches.
type Cluster interface {
	// Owns reports whether a host is this controller's. Other things that only
	// one controller may do have an owner likewise.
	Owns(host string) bool
	// Generation is the generation id for the role MASTER, 0 while there is none,
	// and the revision that must be compiled before: what an earlier owner sent.
	Generation() (generation, revision uint64)
	// Changed is closed when Owns or Generation change after the call.
	Changed() <-chan struct{}
	// Has reports whether a host of another controller has acknowledged what
	// changed up to a revision.
	Has(host string, revision uint64) bool
	// Progressed says that what Behind returns has changed.
	Progressed()
}

// alone is the only controller, with its generation.
type alone uint64

// Owns implements Cluster.
func (alone) Owns(string) bool { return true }

// Generation implements Cluster.
func (a alone) Generation() (generation, revision uint64) { return uint64(a), 0 }

// Changed implements Cluster.
func (alone) Changed() <-chan struct{} { return nil }

// Has implements Cluster.
func (alone) Has(string, uint64) bool { return false }

// Progressed implements Cluster.
func (alone) Progressed() {}

// judge is the owner of what concerns no host, or all.
const judge = ""

const (
	// handOver is how long a controller that does not own a host any more goes on
	// until the new owner has the role: no packet-in is lost meanwhile. It is longer
	// than a new owner takes to find that it does not hear the switch.
	handOver = 5 * time.Second
	// handOverLook is when it first asks the switch; then ever later, up to
	// maxHandOverLook: all hosts may change hands at once.
	handOverLook    = 25 * time.Millisecond
	maxHandOverLook = 400 * time.Millisecond
	// catchUpLook is when a new owner first looks again whether it has compiled what
	// the earlier one may have sent; then ever later, up to maxCatchUpLook.
	catchUpLook    = 10 * time.Millisecond
	maxCatchUpLook = 160 * time.Millisecond
	// outrankedAgain is how often a controller asks for the role that outranked it:
	// it may be no member that has it.
	outrankedAgain = 5 * time.Second
)

var (
	// errHandedOver ends being the master of a switch, not the session.
	errHandedOver = errors.New("another controller has the role MASTER")
	// errOutranked ends being the master before it began.
	errOutranked = errors.New("another controller has the role MASTER with a newer generation")
	// errSlave ends a session whose switch refuses what only a master may send.
	errSlave = errors.New("the switch has another master")
)

// awaitNewer waits until there is a newer generation than one that a switch
// refused, or it is time to try again: this member may be cut off from the
// database. A controller that has no cluster waits for nobody: err ends its session.
func (c *Controller) awaitNewer(s *session, t *target, refused uint64, err error) error {
	t.stand(s)
	defer t.step(s)
	again := time.NewTimer(outrankedAgain)
	defer again.Stop()
	for {
		changed := c.opt.Cluster.Changed()
		if generation, _ := c.opt.Cluster.Generation(); generation > refused {
			return nil
		}
		if changed == nil {
			return err
		}
		select {
		case <-changed:
		case <-again.C:
			return nil
		case <-t.gone:
			return errReassigned
		case <-s.ctx.Done():
			return context.Cause(s.ctx)
		}
	}
}

// awaitTurn waits as a slave until the host of a switch is this controller's,
// and returns the generation to become its master with.
func (c *Controller) awaitTurn(s *session, t *target) (uint64, error) {
	t.stand(s)
	defer t.step(s)
	slave, look := false, catchUpLook
	for {
		changed := c.opt.Cluster.Changed()
		generation, revision := c.opt.Cluster.Generation()
		owns := generation > 0 && c.opt.Cluster.Owns(t.name.Host)
		if owns && c.compiled() >= revision {
			return generation, nil
		}
		if generation > 0 && !owns && !slave {
			slave = true
			// A refusal is for a generation that is old: then it is one already.
			var refused SwitchError
			if err := s.takeRole(flows.RoleSlave, generation); err != nil && !errors.As(err, &refused) {
				return 0, err
			}
		}
		var soon <-chan time.Time
		if owns {
			soon = time.After(look)
			look = min(2*look, maxCatchUpLook)
		}
		select {
		case <-changed:
		case <-soon:
		case <-t.gone:
			return 0, errReassigned
		case <-s.ctx.Done():
			return 0, context.Cause(s.ctx)
		}
	}
}

// compiled is the revision of the newest compilation.
func (c *Controller) compiled() uint64 {
	if v := c.view.Load(); v != nil {
		return v.Revision()
	}
	return 0
}

// awaitHandOver returns errHandedOver when the switch has another master, or
// none has come though it should have. generation is that of the role.
func (c *Controller) awaitHandOver(ctx context.Context, s *session, t *target, generation uint64) error {
	for {
		changed := c.opt.Cluster.Changed()
		now, _ := c.opt.Cluster.Generation()
		owns := c.opt.Cluster.Owns(t.name.Host)
		if again, _ := c.opt.Cluster.Generation(); again != now {
			continue
		}
		if !owns {
			return c.handOver(ctx, s)
		}
		if now > generation+1 { // the host may have been another's in between
			if role, _, err := s.askRole(flows.RoleNoChange, 0); err == nil && role != flows.RoleMaster {
				return errHandedOver
			}
		}
		generation = now
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
	}
}

// mastered reports whether the switch still has this controller for its master.
// One that is cut off from the database learns only so that it has not.
func (c *Controller) mastered(s *session) bool {
	if c.opt.Cluster.Changed() == nil {
		return true
	}
	role, _, err := s.askRole(flows.RoleNoChange, 0)
	return err != nil || role == flows.RoleMaster
}

// handOver goes on until the switch has its new master.
func (c *Controller) handOver(ctx context.Context, s *session) error {
	look := handOverLook
	for deadline := time.Now().Add(handOver); time.Now().Before(deadline); look = min(2*look, maxHandOverLook) {
		if pause(ctx, look) != nil {
			return nil
		}
		role, _, err := s.askRole(flows.RoleNoChange, 0)
		if err != nil || role != flows.RoleMaster {
			return errHandedOver
		}
	}
	return errHandedOver
}

// watchCluster looks again at everything that depends on which hosts are this
// controller's, until ctx ends.
func (c *Controller) watchCluster(ctx context.Context) error {
	owned := map[string]bool{}
	for {
		changed := c.opt.Cluster.Changed()
		if v := c.view.Load(); v != nil {
			now := c.owned(v)
			for host := range now {
				if !owned[host] {
					c.tracker.took(host)
				}
			}
			owned = now
		}
		c.tracker.wake()
		c.health.wake()
		c.announcer.wake()
		c.floatings.wake()
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
	}
}

// owned are the hosts that are this controller's, and the judge.
func (c *Controller) owned(v *network.View) map[string]bool {
	owned := map[string]bool{}
	for h := range v.Hosts() {
		if c.opt.Cluster.Owns(h.Name) {
			owned[h.Name] = true
		}
	}
	if c.opt.Cluster.Owns(judge) {
		owned[judge] = true
	}
	return owned
}

// Behind is how far the switches of this controller's hosts are: all have what
// changed up to the revision, but for the hosts of the map, which lack what
// changed at one and later.
func (c *Controller) Behind() (revision uint64, behind map[string]uint64) {
	revision, behind = c.compiled(), map[string]uint64{}
	c.mu.RLock()
	defer c.mu.RUnlock()
	for host, bridges := range c.hosts {
		if !c.opt.Cluster.Owns(host) {
			continue
		}
		for _, t := range bridges {
			if from, lags := t.lags(); lags {
				old, known := behind[host]
				if !known || from < old {
					behind[host] = from
				}
			}
		}
	}
	return revision, behind
}

// OthersProgressed says that hosts of other controllers got further.
func (c *Controller) OthersProgressed() { c.tracker.wake() }

// HostNames are the hosts of the model.
func (c *Controller) HostNames() (names []string) {
	v := c.view.Load()
	if v == nil {
		return nil
	}
	for h := range v.Hosts() {
		names = append(names, h.Name)
	}
	return names
}

// Heard is when br-int of a host last gave a sign of life, zero when it is not
// connected.
func (c *Controller) Heard(host string) time.Time {
	if s := c.sessionOf(host); s != nil {
		return s.started.Add(time.Duration(s.seen.Load()))
	}
	return time.Time{}
}

// Ask asks br-int of a host for a sign of life, if it is connected.
func (c *Controller) Ask(host string) {
	if s := c.sessionOf(host); s != nil {
		s.out.trySend(flows.AppendEchoRequest(nil, xidUnmatched, nil))
	}
}

// sessionOf is the connection of a host's br-int, nil for none.
func (c *Controller) sessionOf(host string) *session {
	if t := c.bridge(host, network.BridgeIntegration); t != nil {
		return t.readable()
	}
	return nil
}

// HandedOver waits until no switch has this controller for its master, or ctx ends.
func (c *Controller) HandedOver(ctx context.Context) {
	for c.masters() > 0 {
		if pause(ctx, handOverLook) != nil {
			return
		}
	}
}

func (c *Controller) masters() (n int) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	for _, bridges := range c.hosts {
		for _, t := range bridges {
			if t.connected() != nil {
				n++
			}
		}
	}
	return n
}
