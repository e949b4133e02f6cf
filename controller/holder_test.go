package controller

import (
	"net/netip"
	"testing"
	"time"

	"planck/network"
)

// subnet gives a network a subnet whose gateway is its first address.
func (w *world) subnet(n *network.Network, cidr string) *network.Subnet {
	w.t.Helper()
	prefix := netip.MustParsePrefix(cidr)
	s := &network.Subnet{NetworkID: n.ID, IPVersion: 4, CIDR: prefix, GatewayIP: prefix.Addr().Next()}
	w.update(func(tx *network.Tx) error { return tx.CreateSubnet(s) })
	return s
}

// virtual is a routed network on which two ports on two hosts may hold an
// address, and one on a third host may hold any that is nobody's.
type virtual struct {
	*world
	c               *Controller
	n               *network.Network
	router          *network.Port
	one, two, loose *network.Port
	vip             netip.Addr
}

func newVirtual(t *testing.T) *virtual {
	t.Helper()
	v := &virtual{world: newWorld(t), vip: netip.MustParseAddr("10.0.0.100")}
	v.n = v.network("front")
	s := v.subnet(v.n, "10.0.0.0/24")
	r := &network.Router{AdminStateUp: true}
	v.update(func(tx *network.Tx) error {
		if err := tx.CreateRouter(r); err != nil {
			return err
		}
		_, err := tx.AddRouterInterface(r.ID, s.ID, "")
		return err
	})
	for p := range v.store.View().InterfacesOf(r.ID) {
		v.router = p
	}
	port := func(host string, index uint64, change func(p *network.Port)) *network.Port {
		v.host(host, index)
		p := v.vm(v.n, host).Clone()
		change(p)
		v.update(func(tx *network.Tx) error { return tx.UpdatePort(p) })
		v.plug(host, p)
		return v.store.View().Port(p.ID)
	}
	may := func(p *network.Port) {
		p.AllowedAddressPairs = []network.AddressPair{{IP: netip.PrefixFrom(v.vip, 32)}}
	}
	v.one, v.two = port("h1", 1, may), port("h2", 2, may)
	v.loose = port("h3", 3, func(p *network.Port) { p.PortSecurityEnabled = false })
	v.c = New(Options{Store: v.store, Compiler: newFixed()})
	return v
}

// says is what a responder makes of a frame that a port sends on a host.
func (v *virtual) says(p *network.Port, host string, frame []byte) string {
	v.t.Helper()
	in := PacketIn{View: v.store.View(), Host: host, Metadata: uint64(v.n.Key), Data: frame}
	in.Regs[regSourcePort] = p.Key
	var out Replies
	if err := v.c.holders.Respond(v.t.Context(), &in, &out); err != nil {
		v.t.Fatal(err)
	}
	return out.Dropped()
}

// settle writes what was said, at a moment.
func (v *virtual) settle(now time.Time) {
	v.t.Helper()
	claims, _ := v.c.holders.due(now)
	if err := v.c.holders.write(v.t.Context(), claims, nil); err != nil {
		v.t.Fatal(err)
	}
}

func (v *virtual) holds(when string, want *network.Port) {
	v.t.Helper()
	h := v.store.View().AddressHolder(v.n.ID, v.vip)
	if want == nil && h != nil || want != nil && (h == nil || h.PortID != want.ID || h.MAC != want.MAC) {
		v.t.Errorf("%s: %+v holds the address, want %+v", when, h, want)
	}
}

func TestLastPortToSayThatItHoldsAnAddressHasIt(t *testing.T) {
	v := newVirtual(t)
	now := time.Now()
	say := func(p *network.Port, host, want string) {
		t.Helper()
		if reason := v.says(p, host, announcement(p.MAC, v.vip)); reason != want {
			t.Errorf("%q, want %q", reason, want)
		}
	}
	say(v.one, "h2", dropUnknownPort) // another host says so
	v.settle(now)
	v.holds("another host lied", nil)
	say(v.one, "h1", "")
	v.settle(now)
	v.holds("one announced it", v.one)

	before := v.store.View().Revision()
	say(v.one, "h1", "")
	v.settle(now.Add(time.Hour))
	if after := v.store.View().Revision(); after != before {
		t.Errorf("what was known made revision %d of %d", after, before)
	}
	say(v.two, "h2", "")
	say(v.one, "h1", "")
	v.settle(now.Add(2 * time.Hour))
	v.holds("two lost it again at once", v.one)
	say(v.two, "h2", "")
	now = now.Add(3 * time.Hour)
	v.settle(now)
	v.holds("two announced it", v.two)

	say(v.one, "h1", "")
	v.settle(now.Add(holderPause / 2))
	v.holds("it moved a moment ago", v.two)
	v.settle(now.Add(holderPause))
	v.holds("it may move again", v.one)
}

func TestWhatNoPairNamesIsLearntFromAnswersToRoutersOnly(t *testing.T) {
	v := newVirtual(t)
	v.vip = netip.MustParseAddr("10.0.0.200")
	reply := func(to network.MAC) []byte {
		frame := question(v.loose.MAC, v.vip, v.router.FixedIPs[0].IP)
		frame[ethernetLen+7] = arpReply
		copy(frame[ethernetLen+18:], to[:])
		return frame
	}
	for _, c := range []struct {
		what  string
		p     *network.Port
		host  string
		frame []byte
		want  string
	}{
		{"an announcement", v.loose, "h3", announcement(v.loose.MAC, v.vip), dropUnasked},
		{"an answer to a VM", v.loose, "h3", reply(v.one.MAC), dropUnasked},
		{"another port's address", v.loose, "h3", announcement(v.loose.MAC, v.one.FixedIPs[0].IP), dropNotAllowed},
		{"the router's address", v.loose, "h3", announcement(v.loose.MAC, v.router.FixedIPs[0].IP), dropNotAllowed},
		{"a group's MAC", v.loose, "h3", announcement(network.MAC{1, 0, 0x5e, 0, 0, 1}, v.vip), dropMalformed},
		{"half a packet", v.loose, "h3", reply(v.router.MAC)[:30], dropTruncated},
		{"no ARP", v.loose, "h3", make([]byte, 60), dropOtherType},
		{"no pair", v.two, "h2", announcement(v.two.MAC, v.vip), dropNotAllowed},
		{"an answer to the router", v.loose, "h3", reply(v.router.MAC), ""},
	} {
		if reason := v.says(c.p, c.host, c.frame); reason != c.want {
			t.Errorf("%s: %q, want %q", c.what, reason, c.want)
		}
	}
	v.settle(time.Now())
	v.holds("the router was answered", v.loose)
}

func TestRoutersAskOnceInAWhileForWhatMoves(t *testing.T) {
	v := newVirtual(t)
	const mine, others = 7, 8 // routers
	ask := func(router uint64, ip string) string {
		in := PacketIn{View: v.store.View(), Host: "h1", Metadata: router<<32 | uint64(v.n.Key), Data: make([]byte, 60)}
		b := netip.MustParseAddr(ip).As4()
		in.Regs[regNextHop] = uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
		var out Replies
		if err := v.c.resolver.Respond(t.Context(), &in, &out); err != nil {
			t.Fatal(err)
		}
		return out.Dropped()
	}
	key := func(ip string) neighborKey { return neighborKey{v.n.ID, netip.MustParseAddr(ip)} }
	for ip, want := range map[string]string{
		v.vip.String():                   "",
		"10.0.0.200":                     "",
		v.one.FixedIPs[0].IP.String():    dropNotOnLink,
		v.router.FixedIPs[0].IP.String(): dropNotOnLink,
		"192.0.2.1":                      dropNotOnLink,
	} {
		if reason := ask(mine, ip); reason != want {
			t.Errorf("%s: %q, want %q", ip, reason, want)
		}
	}
	asked := func() time.Time { return v.c.holders.asked[mine][key(v.vip.String())] }
	first := asked()
	if first.IsZero() || ask(mine, v.vip.String()) != "" || asked() != first {
		t.Error("the next packet makes it ask again at once")
	}
	for i := range maxNeighborRequests {
		v.c.holders.asked[mine][neighborKey{"another", netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)})}] = time.Now().Add(time.Hour)
	}
	if reason := ask(mine, "10.0.0.201"); reason != dropTooMany {
		t.Errorf("one too many: %q", reason)
	}
	if reason := ask(others, "10.0.0.201"); reason != "" {
		t.Errorf("another router has to wait for what the first asked: %q", reason)
	}
	v.c.holders.forgetQuestions(time.Now().Add(2 * time.Hour))
	if len(v.c.holders.asked) > 0 {
		t.Errorf("old questions are kept: %v", v.c.holders.asked)
	}
}

func TestHolderIsAskedAloneAndThenWithAllOthers(t *testing.T) {
	v := newVirtual(t)
	v.update(func(tx *network.Tx) error {
		return tx.SetAddressHolder(network.AddressHolder{NetworkID: v.n.ID, IP: v.vip, PortID: v.one.ID, MAC: v.one.MAC})
	})
	key := neighborKey{v.n.ID, v.vip}
	if silent := v.c.holders.probe(v.store.View(), time.Now()); len(silent)+len(v.c.holders.probes) > 0 {
		t.Errorf("a holder on a host that is away is asked: %v", v.c.holders.probes)
	}
	now := time.Now()
	for _, c := range []struct {
		pr   probe
		want time.Duration
	}{
		{probe{answered: now}, neighborRefresh},
		{probe{answered: now.Add(-time.Hour), askedAt: now, tries: 1}, neighborRetry},
		{probe{answered: now, askedAt: now.Add(-time.Minute), tries: holderDirect}, neighborRefresh},
	} {
		if due := c.pr.due(now); due != c.want {
			t.Errorf("%+v is asked after %v, want %v", c.pr, due, c.want)
		}
	}
	v.c.holders.probes[key] = &probe{tries: 3, askedAt: now}
	if reason := v.says(v.one, "h1", announcement(v.one.MAC, v.vip)); reason != "" || v.c.holders.probes[key].tries != 0 {
		t.Errorf("%q, what it says is no answer: %+v", reason, v.c.holders.probes[key])
	}
	if by := askerFor(v.store.View(), key); by == nil || by.ID != v.router.ID || addressTowards(v.store.View(), by, v.vip) != netip.MustParseAddr("10.0.0.1") {
		t.Errorf("%+v asks", by)
	}
}
