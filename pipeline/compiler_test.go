package pipeline

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"planck/flows"
	"planck/network"
)

// Two ports that share a virtual address make their network want the same flow
// twice; it must go with them.
func TestSharedAddressPairsLeaveNothingBehind(t *testing.T) {
	w := newWorld(t, Options{})
	w.hosts(1)
	base := w.text()
	w.network(&network.Network{Standard: network.Standard{ID: "blue"}, NetworkType: "flat", PhysicalNetwork: "physnet1"}, "10.0.0.0/24")
	vrrp := network.MAC{0, 0, 0x5e, 0, 1, 1}
	for i, id := range []string{"a", "b"} {
		p := newPort(id, "blue", fmt.Sprintf("fa:16:3e:00:00:0%d", i), fmt.Sprintf("10.0.0.1%d", i))
		p.AllowedAddressPairs = []network.AddressPair{
			{IP: netip.MustParsePrefix("10.0.0.100/32"), MAC: vrrp},
			{IP: netip.MustParsePrefix("10.0.0.101/32"), MAC: vrrp},
		}
		w.port(p, "host1")
	}
	for i := range 3 {
		w.do(func(tx *network.Tx) error {
			p := tx.Port("a").Clone()
			p.Name = fmt.Sprint(i)
			return tx.UpdatePort(p)
		})
	}
	w.do(func(tx *network.Tx) error {
		for _, id := range []string{"a", "b"} {
			if err := tx.DeletePort(id); err != nil {
				return err
			}
		}
		return tx.DeleteNetwork("blue")
	})
	if diff := cmp.Diff(base, w.text()); diff != "" {
		t.Errorf("before (-), after (+):\n%s", diff)
	}
	for target := range w.compiler.Targets() {
		tg := w.compiler.shardOf(target.Host).targets[target]
		if n := len(tg.desired.spare) + len(tg.permitted.spare); n != 0 {
			t.Errorf("%v: %d spare flows are left", target, n)
		}
	}
}

func TestHostsWithIPv6TunnelAddressesReachEachOther(t *testing.T) {
	w := newWorld(t, Options{})
	w.do(func(tx *network.Tx) error {
		for i, ip := range []string{"fd00::1", "fd00::2", "10.250.0.3"} {
			h := host(fmt.Sprintf("host%d", i+1), byte(i+1))
			h.TunnelIP = netip.MustParseAddr(ip)
			if err := tx.PutHost(h); err != nil {
				return err
			}
		}
		return nil
	})
	w.network(&network.Network{Standard: network.Standard{ID: "blue"}, NetworkType: "vxlan", SegmentationID: 5}, "10.0.0.0/24")
	for i := range 3 {
		w.port(newPort(fmt.Sprint(i), "blue", fmt.Sprintf("fa:16:3e:00:00:0%d", i), fmt.Sprintf("10.0.0.1%d", i)), fmt.Sprintf("host%d", i+1))
	}
	w.compiler.Read(Target{"host1", "br-tun"}, func(s State) {
		guard := flows.Key{Table: DecapGuard.ID, Priority: 100, Match: flows.NewMatch(flows.TunIPv6Src.IsIP(netip.MustParseAddr("fd00::2")))}
		if s.Desired.Flows[guard] == nil {
			t.Errorf("host1 does not admit host2:\n%s", s.Desired.Text(nil))
		}
		other := flows.Key{Table: DecapGuard.ID, Priority: 100, Match: flows.NewMatch(flows.TunSrc.IsIP(netip.MustParseAddr("10.250.0.3")))}
		if s.Desired.Flows[other] != nil {
			t.Error("host1 admits host3, whose address is of the other family")
		}
	})
}

func TestPluggedPortWhoseBindingFailedGetsNoFlows(t *testing.T) {
	w := newWorld(t, Options{})
	w.hosts(1)
	w.network(&network.Network{Standard: network.Standard{ID: "blue"}, NetworkType: "gre"}, "10.0.0.0/24")
	w.port(newPort("a", "blue", "fa:16:3e:00:00:0a", "10.0.0.10"), "host1")
	direct := newPort("b", "blue", "fa:16:3e:00:00:0b", "10.0.0.11")
	direct.Binding = network.Binding{Host: "host1", VNICType: "direct"}
	w.port(direct, "host1")
	w.compiler.Read(Target{"host1", "br-int"}, func(s State) {
		if text := s.Desired.Text(nil); !strings.Contains(text, "in_port=1") || strings.Contains(text, "in_port=2") {
			t.Errorf("want what comes from the first port alone:\n%s", text)
		}
	})
}

func TestFloodOfManyMembersIsSplitIntoGroupsThatFit(t *testing.T) {
	c := &Context{out: &output{}}
	var buckets []flows.Bucket
	for i := range 5000 {
		buckets = append(buckets, flows.Bucket{Actions: []flows.Action{flows.SetField(RegOutput, uint64(i)), flows.Resubmit(Output.ID)}})
	}
	c.Flood(Integration, 7, buckets)
	if len(c.out.others) < 3 {
		t.Fatalf("%d groups for 5,000 members", len(c.out.others))
	}
	ids := map[uint32]bool{}
	for _, o := range c.out.others {
		if len(o.group.Buckets) > flows.MaxGroupSize {
			t.Errorf("group %d has %d bytes", o.group.ID, len(o.group.Buckets))
		}
		ids[o.group.ID] = true
	}
	if !ids[7] || len(ids) != len(c.out.others) {
		t.Errorf("ids %v", ids)
	}
}

// brokenFeature panics for one port.
type brokenFeature struct{}

func (brokenFeature) ID() FeatureID { return 200 }
func (brokenFeature) Name() string  { return "broken" }
func (brokenFeature) CompilePort(_ *Context, p *PortContext) {
	if p.Name == "broken" {
		panic("on purpose")
	}
}

func TestPanicOfAFeatureStopsOnlyItsUnit(t *testing.T) {
	features := Features
	Features = append(features[:len(features):len(features)], brokenFeature{})
	defer func() { Features = features }()
	w := newWorld(t, Options{})
	w.hosts(1)
	w.network(&network.Network{Standard: network.Standard{ID: "blue"}, NetworkType: "local"}, "10.0.0.0/24")
	w.port(newPort("a", "blue", "fa:16:3e:00:00:0a", "10.0.0.10"), "host1")
	before := w.text()
	if _, err := w.store.Update(t.Context(), network.Cause{}, func(tx *network.Tx) error {
		p := tx.Port("a").Clone()
		p.Name = "broken"
		return tx.UpdatePort(p)
	}); err != nil {
		t.Fatal(err)
	}
	b, err := w.follower.Next(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if out := w.compiler.Apply(b); len(out.Errors) != 1 {
		t.Errorf("errors: %v", out.Errors)
	}
	if diff := cmp.Diff(before, w.text()); diff != "" {
		t.Errorf("the port lost its flows:\n%s", diff)
	}
}
