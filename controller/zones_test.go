package controller

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"planck/network"
)

func TestZoneOfAPortThatLeftIsFlushedBeforeItIsFree(t *testing.T) {
	w := newWorld(t)
	w.host("h1", 1)
	p, other := w.vm(w.network("net1"), "h1"), w.vm(w.network("net2"), "h1")
	w.plug("h1", p, other)
	o := w.switches(1)
	c := w.start(nil)
	c.eventuallyRight("h1", allBridges...)

	// All bridges share conntrack: one without a controller fills the zones.
	zone := func(p *network.Port) uint16 { return w.store.View().Zone(network.PortZone(p.ID), "h1") }
	gone, stays := zone(p), zone(other)
	o.vsctl("add-br", "br-x", "--", "set", "bridge", "br-x", "datapath_type=dummy", "protocols=OpenFlow10,OpenFlow13")
	o.port("br-x", "x1", 1)
	for _, zone := range []uint16{gone, stays} {
		o.ofctl("add-flow", "br-x", fmt.Sprintf("priority=%d,ip,nw_tos=0,actions=ct(commit,zone=%d)", zone, zone))
		o.appctl("netdev-dummy/receive", "x1", "in_port(1),eth(src=00:00:00:00:00:01,dst=00:00:00:00:00:02),eth_type(0x0800),"+
			"ipv4(src=10.0.0.1,dst=10.0.0.2,proto=17,tos=0,ttl=64,frag=no),udp(src=1,dst=2)")
		eventually(t, 10*time.Second, func() error { return hasConnection(o, zone, true) })
		o.ofctl("del-flows", "br-x")
	}

	w.plug("h1", other)
	eventually(t, 10*time.Second, func() error { return hasConnection(o, gone, false) })
	eventually(t, 10*time.Second, func() error {
		for z := range w.store.View().EndedZonesOn("h1") {
			return fmt.Errorf("zone %d is not free", z.Number)
		}
		return nil
	})
	if err := hasConnection(o, stays, true); err != nil {
		t.Errorf("the zone of the port that stays: %v", err)
	}
}

// hasConnection is an error unless the switch has a connection in a zone, or has none.
func hasConnection(o *openvswitch, zone uint16, want bool) error {
	out := o.appctl("dpctl/dump-conntrack", fmt.Sprintf("zone=%d", zone))
	if got := strings.Contains(out, "udp"); got != want {
		return fmt.Errorf("connections of zone %d: %q", zone, out)
	}
	return nil
}
