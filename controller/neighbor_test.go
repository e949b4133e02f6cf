package controller

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"

	"planck/network"
)

// external makes an external network that is present on h1, by a port of its
// own there, and a router with a gateway on it, which is on h1.
func (w *world) external() (*network.Network, *network.Port) {
	w.t.Helper()
	w.host("h1", 1)
	n := &network.Network{External: true, AdminStateUp: true, NetworkType: network.TypeFlat, PhysicalNetwork: "physnet1"}
	r := &network.Router{AdminStateUp: true, EnableSNAT: true}
	w.update(func(tx *network.Tx) error {
		if err := tx.CreateNetwork(n); err != nil {
			return err
		}
		if err := tx.CreateSubnet(&network.Subnet{NetworkID: n.ID, CIDR: netip.MustParsePrefix("203.0.113.0/24"), GatewayIP: netip.MustParseAddr("203.0.113.1")}); err != nil {
			return err
		}
		r.ExternalNetworkID = n.ID
		return tx.CreateRouter(r)
	})
	w.plug("h1", w.vm(n, "h1"))
	return n, w.store.View().Port(w.store.View().Router(r.ID).GatewayPortID)
}

// arps are the ARP packets that left a port, as "op spa tpa" with the sender's MAC checked.
func (o *openvswitch) arps(port string, sender network.MAC) ([]string, error) {
	f, err := os.Open(o.path(port + ".pcap"))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	r, err := pcapgo.NewReader(f)
	if err != nil {
		return nil, err
	}
	var seen []string
	for {
		data, _, err := r.ReadPacketData()
		if err != nil {
			return seen, nil // the rest is not written yet
		}
		arp, ok := gopacket.NewPacket(data, layers.LayerTypeEthernet, gopacket.Default).Layer(layers.LayerTypeARP).(*layers.ARP)
		if ok && network.MAC(arp.SourceHwAddress) == sender {
			seen = append(seen, fmt.Sprintf("%d %s %s", arp.Operation, netip.AddrFrom4([4]byte(arp.SourceProtAddress)), netip.AddrFrom4([4]byte(arp.DstProtAddress))))
		}
	}
}

func hardware(mac string) net.HardwareAddr {
	m, err := net.ParseMAC(mac)
	if err != nil {
		panic(err)
	}
	return m
}

func (o *openvswitch) eventuallyARP(port string, sender network.MAC, want string) {
	o.t.Helper()
	eventually(o.t, 20*time.Second, func() error {
		seen, err := o.arps(port, sender)
		if err == nil && !slices.Contains(seen, want) {
			err = fmt.Errorf("saw %v", seen)
		}
		if err != nil {
			return fmt.Errorf("ARP %s has not left %s: %w", want, port, err)
		}
		return nil
	})
}

func TestNextHopIsAskedForAndOnlyAnswersAreLearnt(t *testing.T) {
	w := newWorld(t)
	n, gateway := w.external()
	own := gateway.FixedIPs[0].IP
	vlan := w.store.View().Presence(n.ID, "h1").VLAN
	o := w.switches(1)
	o.port("br-int", "to-ex", 2)
	c := w.start(nil)
	c.eventuallyRight("h1", allBridges...)
	o.eventuallyARP("to-ex", gateway.MAC, fmt.Sprintf("1 %s 203.0.113.1", own))
	o.eventuallyARP("to-ex", gateway.MAC, fmt.Sprintf("1 %s %s", own, own)) // the gateway is announced

	answer := func(mac, ip string, to network.MAC) {
		t.Helper()
		arp := &layers.ARP{
			AddrType: layers.LinkTypeEthernet, Protocol: layers.EthernetTypeIPv4, HwAddressSize: 6, ProtAddressSize: 4, Operation: layers.ARPReply,
			SourceHwAddress: hardware(mac), SourceProtAddress: netip.MustParseAddr(ip).AsSlice(),
			DstHwAddress: to[:], DstProtAddress: own.AsSlice(),
		}
		b := gopacket.NewSerializeBuffer()
		err := gopacket.SerializeLayers(b, gopacket.SerializeOptions{},
			&layers.Ethernet{SrcMAC: hardware(mac), DstMAC: to[:], EthernetType: layers.EthernetTypeDot1Q},
			&layers.Dot1Q{VLANIdentifier: vlan, Type: layers.EthernetTypeARP}, arp)
		if err != nil {
			t.Fatal(err)
		}
		// As WireAdmit hands it over.
		o.ofctl("packet-out", "br-int", fmt.Sprintf("in_port=2,packet=%x,actions=set_field:0x504c->pkt_mark,resubmit(,0)", b.Bytes()))
	}
	ignored := func(reason string) {
		t.Helper()
		c.eventuallyMetric("planck_packet_ins_total", map[string]string{"feature": "neighbor", "outcome": reason}, 1)
	}
	answer("02:00:00:00:00:09", "203.0.113.9", gateway.MAC)
	ignored(dropUnasked)
	answer("03:00:00:00:00:01", "203.0.113.1", gateway.MAC)
	ignored(dropMalformed)
	answer(gateway.MAC.String(), "203.0.113.1", gateway.MAC)
	ignored(dropSpoofedMAC)
	if left := slices.Collect(w.store.View().ExternalNeighborsOf(n.ID)); len(left) > 0 {
		t.Errorf("learnt %+v from what was not asked", left[0])
	}
	learns := func(mac string) {
		t.Helper()
		eventually(t, 20*time.Second, func() error {
			answer(mac, "203.0.113.1", gateway.MAC) // too late for one question, in time for the next
			got, ok := w.store.View().ExternalNeighbor(n.ID, netip.MustParseAddr("203.0.113.1"))
			if !ok || got.String() != mac {
				return fmt.Errorf("the next hop is at %s, want %s", got, mac)
			}
			return nil
		})
	}
	learns("02:00:00:00:00:01")
	// It is known: another claim is not believed until it is asked again.
	answer("02:00:00:00:00:02", "203.0.113.1", gateway.MAC)
	c.eventuallyMetric("planck_packet_ins_total", map[string]string{"feature": "neighbor", "outcome": dropUnasked}, 2)
	c.stop()

	// A restarted controller has it at once, asks again, and learns a new MAC.
	if got, ok := w.store.View().ExternalNeighbor(n.ID, netip.MustParseAddr("203.0.113.1")); !ok || got.String() != "02:00:00:00:00:01" {
		t.Fatalf("the next hop is at %s", got)
	}
	c = w.start(nil)
	c.eventuallyRight("h1", allBridges...)
	learns("02:00:00:00:00:02")
}

func TestNeighborIsAskedAgainBeforeItExpiresAndForgottenWhenSilent(t *testing.T) {
	now := time.Now()
	e := &neighborEntry{answered: now, askedAt: now.Add(-time.Minute)}
	if due := e.due(now); due != neighborRefresh {
		t.Errorf("an answer counts %v, want %v", due, neighborRefresh)
	}
	now = now.Add(neighborRefresh)
	for e.tries = 1; e.tries < neighborTries; e.tries++ {
		e.askedAt = now
		if due := e.due(now); due != neighborRetry {
			t.Errorf("question %d is repeated after %v, want %v", e.tries, due, neighborRetry)
		}
		now = now.Add(neighborRetry)
	}
	w := newWorld(t)
	n, _ := w.external()
	c := New(Options{Store: w.store, Compiler: newFixed()})
	onRoute, beside := neighborKey{n.ID, netip.MustParseAddr("203.0.113.1")}, neighborKey{n.ID, netip.MustParseAddr("203.0.113.77")}
	for _, key := range []neighborKey{onRoute, beside} {
		w.update(func(tx *network.Tx) error {
			return tx.PutExternalNeighbor(network.ExternalNeighbor{NetworkID: n.ID, IP: key.ip, MAC: network.MAC{2, 0, 0, 0, 0, 1}})
		})
		c.resolver.entries[key] = &neighborEntry{tries: neighborTries, askedAt: now.Add(-time.Hour), answered: now.Add(-time.Hour)}
	}
	silent, _ := c.resolver.look(w.store.View(), now)
	if len(silent) != 1 || silent[0] != beside {
		t.Errorf("%v is forgotten, want only %v", silent, beside)
	}
	if !c.resolver.entries[onRoute].silent {
		t.Error("the next hop is not taken for silent")
	}
}

func TestRequestsForNeighborsAreBoundedAndOnLink(t *testing.T) {
	w := newWorld(t)
	n, gateway := w.external()
	c := New(Options{Store: w.store, Compiler: newFixed()})
	const mine, others = 7, 8 // routers
	from := func(router uint64, ip netip.Addr) string {
		in := PacketIn{View: w.store.View(), Metadata: router<<32 | uint64(n.Key)}
		in.Regs[regNextHop] = uint32(ip.As4()[0])<<24 | uint32(ip.As4()[1])<<16 | uint32(ip.As4()[2])<<8 | uint32(ip.As4()[3])
		return c.resolver.request(&in, n)
	}
	ask := func(ip netip.Addr) string { return from(mine, ip) }
	if reason := ask(netip.MustParseAddr("198.51.100.1")); reason != dropNotOnLink {
		t.Errorf("an address elsewhere: %q", reason)
	}
	if reason := ask(gateway.FixedIPs[0].IP); reason != dropNotOnLink {
		t.Errorf("an address of a port: %q", reason)
	}
	if reason := ask(netip.MustParseAddr("203.0.113.200")); reason != "" {
		t.Errorf("a neighbor: %q", reason)
	}
	c.resolver.asked[mine] = maxNeighborRequests
	if reason := ask(netip.MustParseAddr("203.0.113.201")); reason != dropTooMany {
		t.Errorf("one too many: %q", reason)
	}
	if reason := from(others, netip.MustParseAddr("203.0.113.201")); reason != "" {
		t.Errorf("another router has to wait for what the first asked: %q", reason)
	}
	c.resolver.look(w.store.View(), time.Now())
	if asked := c.resolver.asked; asked[mine] != 1 || asked[others] != 1 {
		t.Errorf("routers asked for %v", asked)
	}
}

// The frame is the shortest that IPv4 allows with UDP and one byte.
func TestShortPacketMakesItsNextHopKnown(t *testing.T) {
	w := newWorld(t)
	n, _ := w.external()
	c := New(Options{Store: w.store, Compiler: newFixed()})
	for name, kind := range map[string][2]byte{"IPv4": {0x08, 0}, "cut IPv6": {0x86, 0xdd}} {
		in := PacketIn{View: w.store.View(), Metadata: uint64(n.Key), Data: make([]byte, 43)}
		copy(in.Data[12:], kind[:])
		in.Regs[regNextHop] = 203<<24 | 113<<8 | 200
		var out Replies
		if err := c.resolver.Respond(t.Context(), &in, &out); err != nil {
			t.Fatal(err)
		}
		asked := c.resolver.entries[neighborKey{n.ID, netip.MustParseAddr("203.0.113.200")}] != nil
		if want := name == "IPv4"; asked != want || (out.Dropped() == "") != want {
			t.Errorf("%s: asked for %t, %q", name, asked, out.Dropped())
		}
		clear(c.resolver.entries)
	}
}

func TestNeighborThatSaysItMovedIsAskedAtOnceAndNotBelieved(t *testing.T) {
	w := newWorld(t)
	n, gateway := w.external()
	c := New(Options{Store: w.store, Compiler: newFixed()})
	key := neighborKey{n.ID, netip.MustParseAddr("203.0.113.1")}
	mac := network.MAC{2, 0, 0, 0, 0, 1}
	w.update(func(tx *network.Tx) error {
		return tx.PutExternalNeighbor(network.ExternalNeighbor{NetworkID: n.ID, IP: key.ip, MAC: mac})
	})
	says := func(mac network.MAC) time.Duration {
		now := time.Now()
		e := &neighborEntry{known: true, answered: now, askedAt: now.Add(-neighborRetry)}
		c.resolver.entries[key] = e
		in := PacketIn{View: w.store.View(), Host: "h1"}
		a := arpAnswer{ethDst: broadcastMAC, sha: mac, tha: gateway.MAC, spa: key.ip, tpa: key.ip}
		if reason := c.resolver.learn(&in, n, &a); reason != dropUnasked || len(c.resolver.answers) > 0 {
			t.Errorf("a gratuitous answer: %q, learnt %v", reason, c.resolver.answers)
		}
		return e.due(now)
	}
	if due := says(mac); due < neighborRefresh/2 {
		t.Errorf("it is asked in %v though it is where it was", due)
	}
	if due := says(network.MAC{2, 0, 0, 0, 0, 2}); due > 0 {
		t.Errorf("it is asked in %v, want now", due)
	}
}
