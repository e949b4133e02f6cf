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
func groupOnHosts(t *testing.T, members, rules int) (w *world, member func() *network.Port) {
	t.Helper()
	w = newWorld(t)
	for i, name := range costHosts {
		w.host(name, uint64(i+1))
	}
	n := w.network("front")
	w.subnet(n, "10.0.0.0/16")
	g := &network.SecurityGroup{Standard: network.Standard{Name: "members", ProjectID: "p"}}
	w.update(func(tx *network.Tx) error {
		if err := tx.CreateSecurityGroup(g); err != nil {
			return err
		}
		for i := range rules {
			r := &network.SecurityGroupRule{
				Standard: network.Standard{ProjectID: "p"}, GroupID: g.ID, RemoteGroupID: g.ID, Direction: network.Ingress, Ethertype: network.IPv4,
				Protocol: "tcp", PortMin: 100 + i, PortMax: 100 + i,
			}
			if err := tx.CreateSecurityGroupRule(r); err != nil {
				return err
			}
		}
		return nil
	})
	made := 0
	create := func(tx *network.Tx, host string, groups ...string) (*network.Port, error) {
		made++
		p := &network.Port{
			Standard: network.Standard{ProjectID: "p"}, NetworkID: n.ID, AdminStateUp: true, PortSecurityEnabled: true, SecurityGroups: groups,
			FixedIPs: []network.FixedIP{{IP: netip.AddrFrom4([4]byte{10, 0, byte(100 + made>>8), byte(made)})}},
			Binding:  network.Binding{Host: host, VNICType: "normal"},
		}
		return p, tx.CreatePort(p)
	}
	plugged := map[string][]network.VIF{}
	plug := func(tx *network.Tx, p *network.Port) {
		vifs := plugged[p.Binding.Host]
		at := len(vifs) + 10
		plugged[p.Binding.Host] = append(vifs, network.VIF{PortID: p.ID, Name: fmt.Sprint("tap", at), OFPort: uint32(at)})
	}
	w.update(func(tx *network.Tx) error {
		for i := range members {
			p, err := create(tx, []string{"h1", "h2"}[i%2], g.ID)
			if err != nil {
				return err
			}
			plug(tx, p)
		}
		p, err := create(tx, "h3")
		if err != nil {
			return err
		}
		plug(tx, p)
		return nil
	})
	tell := func(tx *network.Tx) error {
		for host, vifs := range plugged {
			if err := tx.SyncVIFs(host, vifs); err != nil {
				return err
			}
		}
		return nil
	}
	w.update(tell)
	return w, func() (p *network.Port) {
		w.update(func(tx *network.Tx) (err error) { p, err = create(tx, "h2", g.ID); plug(tx, p); return err })
		w.update(tell)
		return p
	}
}

// One more member is plugged: what its own host is sent, another host with the
// group and one without it is the same in a group of two and in one of 1,000, by
// the count of the switches.
func TestOneMoreMemberSendsEachHostTheSameAtEverySize(t *testing.T) {
	const rules = 20
	var first map[string]int
	for _, members := range []int{2, 1000} {
		w, member := groupOnHosts(t, members, rules)
		c := w.start(func(o *Options) { o.Logger = slog.New(slog.DiscardHandler) })
		sent := &flowMods{n: map[string]int{}}
		for i, host := range costHosts {
			for bridge, dpid := range map[string]uint64{"br-int": dpidInt, "br-tun": dpidTun} {
				c.dial().background(dpid+uint64(i+1)<<16, sent.count(host+" "+bridge))
			}
		}
		eventually(t, patience, func() error { return c.behind(2 * len(costHosts)) })
		if all := sent.take(); all["h1 br-int"] < members+rules {
			t.Fatalf("before, h1 was sent %v", all)
		}
		p := member()
		w.eventuallyStatus(p, network.StatusActive)
		eventually(t, patience, func() error { return c.behind(2 * len(costHosts)) })
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
