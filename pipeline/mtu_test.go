package pipeline

import (
	"net/netip"
	"strings"
	"testing"

	"planck/flows"
	"planck/network"
)

// A router has networks with MTUs of 1400, 1458 and 1500.
func TestOnlyWhatIsTooLargeForItsWayGoesToTheController(t *testing.T) {
	w := newWorld(t, Options{})
	w.hosts(1)
	for i, n := range []*network.Network{
		{Standard: network.Standard{ID: "small"}, NetworkType: "gre", SegmentationID: 5, MTU: 1400},
		{Standard: network.Standard{ID: "middle"}, NetworkType: "gre", SegmentationID: 6},
		{Standard: network.Standard{ID: "wide"}, NetworkType: "vlan", PhysicalNetwork: "physnet1", SegmentationID: 101},
		{Standard: network.Standard{ID: "wide2"}, NetworkType: "vlan", PhysicalNetwork: "physnet1", SegmentationID: 102},
	} {
		octet := string(rune('1' + i))
		w.network(n, "10.0."+octet+".0/24")
		p := newPort("vm-"+n.ID, n.ID, "fa:16:3e:00:00:0"+octet, "10.0."+octet+".10")
		p.PortSecurityEnabled = false
		w.port(p, "host1")
	}
	w.router("r", netip.MustParseAddr("10.0.1.10"), "subnet-small", "subnet-middle", "subnet-wide", "subnet-wide2")
	for _, c := range []struct {
		from, to string
		mtu      uint16 // of the largest packet that is sent on
		told     uint64
	}{
		{"wide", "small", 1400, 1400}, {"wide", "middle", 1458, 1458}, {"middle", "small", 1400, 1400},
		{"wide", "wide2", 1500, 0}, {"small", "wide", 1400, 0}, {"middle", "wide", 1458, 0},
	} {
		for _, extra := range []uint16{0, 1} {
			from, to := w.store.View().Port("vm-"+c.from), w.store.View().Port("vm-"+c.to)
			w.compiler.Read(Target{"host1", "br-int"}, func(s State) {
				walker := flows.NewWalker(s.Desired)
				walker.Length = c.mtu + extra + ethernetHeader
				trace, err := walker.Walk(flows.NewPacket(
					flows.InPort.Is(uint64(w.store.View().VIF(from.ID, "host1").OFPort)), flows.EthSrc.IsMAC(from.MAC),
					flows.EthDst.IsMAC(routerMAC(w, from.NetworkID)), flows.IPv4, flows.IPTTL.Is(64), flows.UDP,
					flows.IPv4Src.IsIP(from.FixedIPs[0].IP), flows.IPv4Dst.IsIP(to.FixedIPs[0].IP)))
				if err != nil || len(trace.Sent) != 1 {
					t.Fatalf("%s to %s: %v\n%s", c.from, c.to, err, &trace)
				}
				sent := trace.Sent[0]
				refused := sent.Port == flows.PortController
				if tooBig := extra > 0 && c.told > 0; refused != tooBig {
					t.Fatalf("%d bytes from %s to %s\n%s", c.mtu+extra, c.from, c.to, &trace)
				}
				if told := sent.Packet.Get(RegMTU).Lo >> mtuShift; refused && told != c.told {
					t.Errorf("from %s to %s it is told of %d, want %d", c.from, c.to, told, c.told)
				}
			})
		}
	}
	w.do(func(tx *network.Tx) error {
		for _, id := range []string{"small", "middle"} {
			n := tx.Network(id).Clone()
			n.MTU = 1458
			if err := tx.UpdateNetwork(n); err != nil {
				return err
			}
		}
		for _, subnet := range []string{"subnet-wide", "subnet-wide2"} {
			if _, err := tx.RemoveRouterInterface("r", subnet, ""); err != nil {
				return err
			}
		}
		return nil
	})
	if text := w.text(); strings.Contains(text, "check_pkt_larger") {
		t.Errorf("all networks of the router have one MTU, and packets are measured:\n%s", text)
	}
}

func routerMAC(w *world, networkID string) network.MAC {
	for p := range w.store.View().RouterPortsOf(networkID) {
		return p.MAC
	}
	w.Fatalf("network %s has no router", networkID)
	return network.MAC{}
}
