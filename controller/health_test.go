package controller

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"planck/network"
)

// sick is a world of hosts that may carry gateways, in which everything that
// health looks at is set by hand.
type sick struct {
	*world
	h         *health
	now       time.Time
	reports   map[[2]string]network.PeerReport
	connected map[string]bool
	unwired   map[string][]string
}

func (s *sick) PeerReports() []network.PeerReport {
	var all []network.PeerReport
	for _, r := range s.reports {
		all = append(all, r)
	}
	return all
}

func (s *sick) Unwired(host string) []string { return s.unwired[host] }

func (s *sick) Interfaces(string, string) []network.InterfaceReport { return nil }

func (s *sick) WireMTU(string, string) (int, string) { return 0, "" }

func (s *sick) Connected(host string) bool { return s.connected[host] }

// newSick has n hosts that all carry gateways and see each other, and a
// controller to which all have been connected for long.
func newSick(t *testing.T, n int) *sick {
	t.Helper()
	s := &sick{world: newWorld(t), reports: map[[2]string]network.PeerReport{}, connected: map[string]bool{}, unwired: map[string][]string{}, now: time.Now()}
	s.external()
	for i := range n {
		name := fmt.Sprintf("h%d", i+1)
		s.host(name, uint64(i+1))
		s.connected[name] = true
	}
	c := New(Options{Store: s.store, Compiler: newFixed()})
	c.updateHosts(network.Batch{View: s.store.View(), Changes: hostChanges(s.store.View())})
	s.h = c.health
	s.h.watch = s
	for name := range s.connected {
		s.session(name, true)
		s.sees("*", name, true)
	}
	s.pass(healthStart)
	return s
}

func hostChanges(v *network.View) []network.Change {
	var all []network.Change
	for h := range v.Hosts() {
		all = append(all, network.Change{Kind: network.KindHost, ID: h.Name, After: h})
	}
	return all
}

// session connects br-int of a host, or cuts it off.
func (s *sick) session(host string, up bool) {
	t := s.h.ctl.bridge(host, network.BridgeIntegration)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.session = nil
	if up {
		t.session = &session{}
	}
}

// sees sets what a host, or all others for "*", sees of another.
func (s *sick) sees(host, peer string, up bool) {
	for other := range s.connected {
		if other != peer && (host == "*" || host == other) {
			s.reports[[2]string{other, peer}] = network.PeerReport{Host: other, Peer: peer, Up: up, Ever: true}
		}
	}
}

// cut takes a host's link: nobody sees it, and it sees nobody.
func (s *sick) cut(host string) {
	s.sees("*", host, false)
	for other := range s.connected {
		s.sees(host, other, false)
	}
}

// pass lets time go by, with a look now and then, and writes what follows.
func (s *sick) pass(d time.Duration) {
	s.t.Helper()
	for end := s.now.Add(d); s.now.Before(end); s.now = s.now.Add(100 * time.Millisecond) {
		down, up := s.h.look(s.store.View(), s.now)
		if err := s.h.write(s.t.Context(), down, up); err != nil {
			s.t.Fatal(err)
		}
	}
}

func (s *sick) expectDown(when string, want ...string) {
	s.t.Helper()
	var have, why []string
	for d := range s.store.View().HostsDown() {
		have = append(have, d.Host)
		why = append(why, d.Host+": "+d.Reason)
	}
	if !slices.Equal(have, want) {
		s.t.Errorf("%s: down are %v (%s), want %v", when, have, strings.Join(why, "; "), want)
	}
}

func TestHostThatNobodySeesIsDownAtOnceAndHeldDownWhenItReturns(t *testing.T) {
	s := newSick(t, 3)
	s.expectDown("at first")
	s.cut("h1")
	s.pass(200 * time.Millisecond)
	s.expectDown("its link is cut", "h1")
	s.sees("*", "h1", true)
	s.pass(healthHold / 2)
	s.cut("h1") // once more
	s.pass(time.Second)
	s.sees("*", "h1", true)
	s.pass(healthHold - time.Second)
	s.expectDown("it flaps", "h1")
	s.pass(2 * time.Second)
	s.expectDown("it is back for good")
	// The next time it has to be well for longer.
	s.cut("h1")
	s.pass(time.Second)
	s.sees("*", "h1", true)
	s.pass(healthHold + time.Second)
	s.expectDown("the second time", "h1")
	s.pass(healthHold)
	s.expectDown("after twice the time")
}

func TestHostThatOneOtherSeesIsNotDown(t *testing.T) {
	s := newSick(t, 3)
	s.sees("h2", "h1", false)
	s.pass(time.Minute)
	s.expectDown("one of two has lost it")
	s.session("h1", false)
	s.connected["h1"] = false
	s.pass(time.Minute)
	s.expectDown("the controller has lost it as well, its packets flow")
}

func TestWatcherWithoutALinkIsNotBelieved(t *testing.T) {
	s := newSick(t, 3)
	s.cut("h3")
	s.pass(time.Minute)
	s.expectDown("h3 sees nobody", "h3")
}

func TestTwoHostsThatLoseEachOtherStayUnlessOneIsDead(t *testing.T) {
	s := newSick(t, 2)
	s.cut("h1")
	s.pass(time.Minute)
	s.expectDown("the link between them is cut, whoever's it is")
	s.session("h1", false)
	s.pass(2 * healthSession)
	s.expectDown("and the controller has lost one of them", "h1")
}

func TestEveryBodyLostIsNobodyDead(t *testing.T) {
	s := newSick(t, 4)
	for name := range s.connected {
		s.cut(name)
	}
	s.pass(time.Minute)
	s.expectDown("the network between hosts is gone")
	s = newSick(t, 3)
	clear(s.reports)
	for name := range s.connected {
		s.session(name, false)
		s.connected[name] = false
	}
	s.pass(time.Minute)
	s.expectDown("the controller's own network is gone")
}

func TestHostWithoutTunnelsIsJudgedByItsSession(t *testing.T) {
	s := newSick(t, 3)
	clear(s.reports)
	s.session("h2", false)
	s.pass(healthSession / 2)
	s.expectDown("a switch that reconnects")
	s.pass(2 * healthSession)
	s.expectDown("its switch is dead, its database lives", "h2")
	s.session("h3", false)
	s.connected["h3"] = false
	s.pass(healthSessionDark / 2)
	s.expectDown("nothing is heard of the other", "h2")
	s.pass(healthSessionDark)
	s.expectDown("for long", "h2", "h3")
}

func TestRestartedControllerJudgesNobodyBeforeTheyCouldReturn(t *testing.T) {
	s := newSick(t, 3)
	s.h = newHealth(s.h.ctl)
	s.h.watch = s
	s.h.started = s.now
	clear(s.reports)
	for name := range s.connected {
		s.session(name, false)
		s.connected[name] = false
	}
	s.pass(healthStart / 2)
	s.expectDown("nobody is back yet")
	// The first one that is back has not found the others again.
	s.connected["h1"] = true
	s.session("h1", true)
	s.sees("h1", "h2", false)
	s.pass(time.Second)
	s.expectDown("one is back, and has lost another")
	for _, name := range []string{"h2", "h3"} {
		s.connected[name] = true
		s.session(name, true)
		s.sees("*", name, true)
	}
	s.sees("*", "h1", true)
	s.pass(time.Minute)
	s.expectDown("all are back")
}

func TestNewSessionIsNoDeadPeer(t *testing.T) {
	s := newSick(t, 3)
	for key, r := range s.reports {
		r.Up, r.Ever = false, false
		s.reports[key] = r
	}
	s.pass(healthNewPeer / 2)
	s.expectDown("sessions have just been made")
	s.sees("h1", "h2", true)
	s.sees("h2", "h1", true)
	s.pass(healthNewPeer)
	s.expectDown("one never came up", "h3")
}

func TestHostThatCarriesNothingIsNotDown(t *testing.T) {
	s := newSick(t, 3)
	s.cut("h1")
	s.pass(time.Second)
	s.expectDown("cut off", "h1")
	s.update(func(tx *network.Tx) error {
		for r := range tx.Routers() {
			c := r.Clone()
			c.ExternalNetworkID = ""
			return tx.UpdateRouter(c)
		}
		return nil
	})
	s.pass(time.Second)
	s.expectDown("the last router has no gateway any more")
}

func TestHostWhoseExternalBridgeHasNoLinkIsDown(t *testing.T) {
	s := newSick(t, 2)
	s.unwired["h1"] = []string{"br-other"}
	s.pass(time.Second)
	s.expectDown("a bridge that no gateway needs has no link")
	s.unwired["h1"] = []string{"br-ex"}
	s.pass(time.Second)
	s.expectDown("the wire is cut", "h1")
	if d := s.store.View().HostDown("h1"); d == nil || !d.Unwired || d.Reason != "no link on br-ex" {
		t.Errorf("it is %+v", d)
	}
	delete(s.unwired, "h1")
	s.pass(healthHold / 2)
	s.expectDown("the link is back, not long enough", "h1")
	s.pass(healthHold)
	s.expectDown("it is well")
}

func TestWireOfAHostWithFloatingIPsAloneIsJudged(t *testing.T) {
	s := newSick(t, 7) // more than stand in the placement
	var edge string
	for h := range s.store.View().Hosts() {
		if !slices.Contains(gatewayHosts(s.store.View()), h.Name) {
			edge = h.Name
		}
	}
	dead := func() { s.unwired[edge] = []string{"br-ex"} }
	dead()
	s.pass(time.Second)
	s.expectDown("nothing there needs the wire")
	delete(s.unwired, edge)

	f := s.floating(edge)
	dead()
	s.pass(time.Second)
	s.expectDown("a floating IP needs the wire", edge)
	if at := s.store.View().FloatingHost(f); at == edge {
		t.Errorf("the floating IP is on %s still", at)
	}
	s.cut(edge)
	delete(s.unwired, edge)
	s.connected[edge] = false
	s.pass(2 * healthHold)
	s.expectDown("its database is away: who knows about the link", edge)
	s.connected[edge] = true
	s.pass(healthHold / 2)
	s.expectDown("the link is back, not long enough", edge)
	s.pass(healthHold)
	s.expectDown("it is well, whatever BFD says")
	if at := s.store.View().FloatingHost(f); at != edge {
		t.Errorf("the floating IP is on %s", at)
	}
	dead()
	s.pass(time.Second)
	s.expectDown("its wire is dead again", edge)
	s.update(func(tx *network.Tx) error { return tx.DeleteFloatingIP(f.ID) })
	s.pass(time.Second)
	s.expectDown("nothing there needs the wire any more")
}

// A gateway's host may lose its wire after it lost its peers.
func TestWireThatDiesOnAHostThatIsDownIsNoted(t *testing.T) {
	s := newSick(t, 3)
	s.cut("h1")
	s.pass(time.Second)
	s.expectDown("no BFD from it", "h1")
	s.unwired["h1"] = []string{"br-ex"}
	for _, peer := range []string{"h2", "h3"} {
		s.sees(peer, "h1", true)
		s.sees("h1", peer, true)
	}
	s.pass(time.Second)
	if d := s.store.View().HostDown("h1"); d == nil || !d.Unwired {
		t.Errorf("its wire is dead as well, noted is %+v", d)
	}
}

// floating gives a VM on a host a floating IP of the router's external network.
func (s *sick) floating(host string) *network.FloatingIP {
	s.t.Helper()
	f := &network.FloatingIP{}
	inside := s.network("inside")
	sub := s.subnet(inside, "10.0.0.0/24")
	p := s.vm(inside, host)
	s.update(func(tx *network.Tx) error {
		for r := range tx.Routers() {
			if _, err := tx.AddRouterInterface(r.ID, sub.ID, ""); err != nil {
				return err
			}
			f.FloatingNetworkID, f.PortID = r.ExternalNetworkID, p.ID
			break
		}
		return tx.CreateFloatingIP(f)
	})
	s.plug(host, p)
	return f
}
