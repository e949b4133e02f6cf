package controller

import (
	"encoding/binary"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"sync"
	"testing"

	"planck/flows"
	"planck/network"
	"planck/pipeline"
)

// flowMods counts what comes to each bridge, but for canaries, one of which comes
// with every change.
type flowMods struct {
	mu sync.Mutex
	n  map[string]int
}

// count is a hook for the peer that is a bridge.
func (m *flowMods) count(bridge string) func(typ uint8, xid uint32, body []byte) bool {
	return func(typ uint8, _ uint32, body []byte) bool {
		const experimenterLen, bundleAdd, added, tableAt = 8, 2301, 16, 8 + 16
		if typ == flows.TypeExperimenter && len(body) > added && binary.BigEndian.Uint32(body[4:]) == bundleAdd {
			typ, body = body[added+1], body[added+8:]
		}
		if typ == flows.TypeFlowMod && body[16] != pipeline.Canary.ID {
			m.mu.Lock()
			m.n[bridge]++
			m.mu.Unlock()
		}
		return false
	}
}

// take returns the counts, and begins anew.
func (m *flowMods) take() map[string]int {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := m.n
	m.n = map[string]int{}
	return n
}

var costHosts = []string{"h1", "h2", "h3", "h4"}

// groupOnHosts is a group whose members let each other in by some rules, half of
// them on each of two hosts; a third host is on its network without one, a fourth
// has nothing to do with them.
type groupOnHosts struct {
	*world
	n       *network.Network
	group   string
	made    int
	plugged map[string][]network.VIF
}

func newGroupOnHosts(t *testing.T, members, rules int) *groupOnHosts {
	t.Helper()
	g := &groupOnHosts{world: newWorld(t), plugged: map[string][]network.VIF{}}
	for i, name := range costHosts {
		g.host(name, uint64(i+1))
	}
	g.n = g.network("front")
	g.subnet(g.n, "10.0.0.0/16")
	g.update(func(tx *network.Tx) error {
		group := &network.SecurityGroup{Standard: network.Standard{Name: "members", ProjectID: "p"}}
		if err := tx.CreateSecurityGroup(group); err != nil {
			return err
		}
		g.group = group.ID
		for i := range rules {
			r := &network.SecurityGroupRule{
				Standard: network.Standard{ProjectID: "p"}, GroupID: g.group, RemoteGroupID: g.group, Direction: network.Ingress, Ethertype: network.IPv4,
				Protocol: "tcp", PortMin: 100 + i, PortMax: 100 + i,
			}
			if err := tx.CreateSecurityGroupRule(r); err != nil {
				return err
			}
		}
		return nil
	})
	const atOnce = 25 // a transaction is not to take long, on a busy machine either
	for left := members; left > 0; left -= atOnce {
		n := min(left, atOnce)
		g.plugAll(append(g.ports("h1", n-n/2, g.group), g.ports("h2", n/2, g.group)...)...)
	}
	g.plugAll(g.ports("h3", 1)...)
	return g
}

// ports makes ports of VMs that are bound to a host.
func (g *groupOnHosts) ports(host string, n int, groups ...string) []*network.Port {
	g.t.Helper()
	made := make([]*network.Port, n)
	for i := range made {
		g.made++
		made[i] = &network.Port{
			Standard: network.Standard{ProjectID: "p"}, NetworkID: g.n.ID, AdminStateUp: true, PortSecurityEnabled: true, SecurityGroups: groups,
			FixedIPs: []network.FixedIP{{IP: netip.AddrFrom4([4]byte{10, 0, byte(100 + g.made>>8), byte(g.made)})}},
			Binding:  network.Binding{Host: host, VNICType: "normal"},
		}
	}
	g.update(func(tx *network.Tx) error {
		for _, p := range made {
			if err := tx.CreatePort(p); err != nil {
				return err
			}
		}
		return nil
	})
	return made
}

// plugAll plugs ports on the hosts that they are bound to.
func (g *groupOnHosts) plugAll(ports ...*network.Port) {
	g.t.Helper()
	for _, p := range ports {
		vifs := g.plugged[p.Binding.Host]
		at := len(vifs) + 10
		g.plugged[p.Binding.Host] = append(vifs, network.VIF{PortID: p.ID, Name: fmt.Sprint("tap", at), OFPort: uint32(at)})
	}
	for host, vifs := range g.plugged {
		g.update(func(tx *network.Tx) error { return tx.SyncVIFs(host, vifs) })
	}
}

// One more member is plugged: what its own host is sent, another host with the
// group and one without it is the same in a group of two and in one of 1,000, by
// the count of the switches.
func TestOneMoreMemberSendsEachHostTheSameAtEverySize(t *testing.T) {
	const rules, long = 20, 3 * patience
	var first map[string]int
	for _, members := range []int{2, 1000} {
		g := newGroupOnHosts(t, members, rules)
		c := g.start(func(o *Options) {
			o.Logger = slog.New(slog.DiscardHandler)
			o.Timeouts = Timeouts{Handshake: long, Reply: long, Probe: long, Write: long, Echo: long} // a peer does not come back
		})
		sent := &flowMods{n: map[string]int{}}
		for i, host := range costHosts {
			for bridge, dpid := range map[string]uint64{"br-int": dpidInt, "br-tun": dpidTun} {
				c.dial().background(dpid+uint64(i+1)<<16, sent.count(host+" "+bridge))
			}
		}
		eventually(t, long, func() error { return c.behind(2 * len(costHosts)) })
		if all := sent.take(); all["h1 br-int"] < members+rules {
			t.Fatalf("before, h1 was sent %v", all)
		}
		p := g.ports("h2", 1, g.group)[0]
		eventually(t, long, func() error { return c.behind(2 * len(costHosts)) })
		g.plugAll(p)
		eventually(t, long, func() error {
			if status := g.status(p).Status; status != network.StatusActive {
				return fmt.Errorf("the port is %s", status)
			}
			return c.behind(2 * len(costHosts))
		})
		n := sent.take()
		t.Logf("one more in a group of %d members and %d rules: %v", members, rules, n)
		if first == nil {
			first = n
		}
		if !maps.Equal(n, first) || n["h1 br-int"] == 0 || n["h2 br-int"] == 0 || n["h4 br-int"]+n["h4 br-tun"] > 0 {
			t.Errorf("one more in a group of %d members sends %v, in one of 2 %v", members, n, first)
		}
		c.stop()
	}
}

// behind tells of bridges that are not connected, or have not got the newest
// revision.
func (r *running) behind(bridges int) error {
	n := 0
	for _, h := range r.Hosts() {
		for _, b := range h.Bridges {
			if b.Synced && b.Revision == r.opt.Store.View().Revision() {
				n++
			}
		}
	}
	if n != bridges {
		return fmt.Errorf("%d of %d bridges have revision %d", n, bridges, r.opt.Store.View().Revision())
	}
	return nil
}
