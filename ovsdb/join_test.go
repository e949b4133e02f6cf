package ovsdb

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"planck/network"
)

func TestJoinCreatesTheHostContract(t *testing.T) {
	store := openStore(t)
	srv := startServer(t, Options{Store: store, OpenFlowPort: 16653})
	sw := startSwitch(t, "")
	sw.join("h1", "id1", srv.addr, "external_ids:planck-local-ip=10.250.0.1", "external_ids:planck-bridge-mappings=physnet1:br-ex")
	h := waitHost(t, store, "h1", "has br-ex", func(h *network.Host) bool { return h.Bridges["br-ex"].DatapathID != 0 })

	for _, bridge := range []string{"br-int", "br-tun", "br-ex"} {
		if got := sw.vsctl("get-fail-mode", bridge); got != "secure" {
			t.Errorf("%s: fail-mode %q, want secure", bridge, got)
		}
		if got := sw.vsctl("get-controller", bridge); got != "tcp:127.0.0.1:16653" {
			t.Errorf("%s: controller %q", bridge, got)
		}
		protocols := sw.get("Bridge", bridge, "protocols")
		for v := 10; v <= 15; v++ {
			if want := fmt.Sprintf("OpenFlow%d", v); !strings.Contains(protocols, want) {
				t.Errorf("%s: protocols %s lack %s, which the empty set has", bridge, protocols, want)
			}
		}
		controller := strings.Trim(sw.get("Bridge", bridge, "controller"), "[]")
		mode := map[string]string{"br-ex": "in-band"}[bridge]
		if mode == "" {
			mode = "out-of-band"
		}
		for column, want := range map[string]string{"max_backoff": "1000", "inactivity_probe": "5000", "connection_mode": mode} {
			if got := sw.get("Controller", controller, column); got != want {
				t.Errorf("%s: controller's %s is %s, want %s", bridge, column, got, want)
			}
		}
		inBandOff := strings.Contains(sw.get("Bridge", bridge, "other_config"), "disable-in-band=true")
		if want := bridge != "br-ex"; inBandOff != want {
			t.Errorf("%s: in-band off is %v, want %v", bridge, inBandOff, want)
		}
	}
	for _, column := range []string{"max_backoff", "inactivity_probe"} {
		if got := sw.get("Manager", strings.Trim(sw.get("Open_vSwitch", ".", "manager_options"), "[]"), column); got == "[]" {
			t.Errorf("manager's %s is unset", column)
		}
	}
	for _, kind := range []string{"gre", "vxlan", "geneve"} {
		if got := sw.get("Interface", "planck-"+kind, "type"); got != kind {
			t.Errorf("planck-%s has type %q", kind, got)
		}
		if got, want := sw.get("Interface", "planck-"+kind, "options"), "{key=flow, local_ip=10.250.0.1, remote_ip=flow}"; got != want {
			t.Errorf("planck-%s has options %s, want %s", kind, got, want)
		}
	}
	want := &network.Host{
		Name: "h1", SystemID: "id1", TunnelIP: netip.MustParseAddr("10.250.0.1"), DatapathType: "system",
		OVSVersion: h.OVSVersion, Key: h.Key, BridgeMappings: map[string]string{"physnet1": "br-ex"},
		Bridges: map[string]network.Bridge{
			"br-int": {DatapathID: h.Bridges["br-int"].DatapathID, Patches: map[string]uint32{"br-tun": 0xfe00, "br-ex": 0xfe01}},
			"br-tun": {DatapathID: h.Bridges["br-tun"].DatapathID, Patches: map[string]uint32{"br-int": 1}, Tunnels: map[string]uint32{"gre": 2, "vxlan": 3, "geneve": 4}},
			"br-ex":  {DatapathID: h.Bridges["br-ex"].DatapathID, Patches: map[string]uint32{"br-int": 0xfe00}},
		},
	}
	if diff := cmp.Diff(want, h, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Errorf("facts (-want +got):\n%s", diff)
	}
	if h.Key == 0 || h.OVSVersion == "" {
		t.Errorf("key %d, version %q", h.Key, h.OVSVersion)
	}
	eventually(t, "h1 is connected without a problem", func() bool {
		s, ok := srv.state("h1", "id1")
		return ok && s.Connected && s.Problem == ""
	})
}

func TestSettingsThatCanNotBeReadLeaveWhatWasThere(t *testing.T) {
	store := openStore(t)
	srv := startServer(t, Options{Store: store})
	sw := startSwitch(t, "")
	sw.join("h1", "id1", srv.addr, "external_ids:planck-local-ip=10.250.0.1", "external_ids:planck-bridge-mappings=physnet1:br-ex,physnet2:br-two")
	before := waitHost(t, store, "h1", "has its bridges", func(h *network.Host) bool { return len(h.Bridges) == 4 })
	controllers := sw.vsctl("get-controller", "br-ex")
	for _, slip := range []string{
		"external_ids:planck-local-ip=10.250.0", "external_ids:planck-bridge-mappings=physnet1-br-ex", "external_ids:planck-bridge-mappings=physnet1:br-ex,physnet2:br-ex",
	} {
		sw.vsctl("--no-wait", "set", "Open_vSwitch", ".", slip)
		eventually(t, "the problem is told", func() bool {
			s, ok := srv.state("h1", "id1")
			return ok && s.Problem != ""
		})
		if got := sw.vsctl("get-controller", "br-ex"); got != controllers {
			t.Errorf("%s: controllers of br-ex: %q", slip, got)
		}
		if diff := cmp.Diff(before, store.View().Host("h1"), cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
			t.Errorf("%s: facts changed (-before +after):\n%s", slip, diff)
		}
		sw.vsctl("--no-wait", "set", "Open_vSwitch", ".", "external_ids:planck-local-ip=10.250.0.1", "external_ids:planck-bridge-mappings=physnet1:br-ex,physnet2:br-two")
		eventually(t, "the problem is over", func() bool {
			s, ok := srv.state("h1", "id1")
			return ok && s.Connected && s.Problem == ""
		})
	}
}

func TestRightHostGetsNoTransactionAndNoWrite(t *testing.T) {
	store := openStore(t)
	srv := startServer(t, Options{Store: store})
	sw := startSwitch(t, "")
	sw.join("h1", "id1", srv.addr, "external_ids:planck-local-ip=10.250.0.1", "external_ids:planck-bridge-mappings=physnet1:br-ex")
	waitHost(t, store, "h1", "has br-ex", func(h *network.Host) bool { return h.Bridges["br-ex"].DatapathID != 0 })
	sw.plug("tap1", "p1")
	waitVIF(t, store, "p1", "h1", "plugged", func(v *network.VIF) bool { return v != nil })
	srv.stop()
	revision := store.View().Revision()

	again := startServerOn(t, srv.addr.String(), Options{Store: store})
	eventually(t, "h1 is back", func() bool {
		s, ok := again.state("h1", "id1")
		return ok && s.Connected && s.Problem == ""
	})
	sw.plug("tap2", "p2")
	waitVIF(t, store, "p2", "h1", "plugged", func(v *network.VIF) bool { return v != nil })
	if n := again.transactions(); n != 0 {
		t.Errorf("%d transactions to a host that was right", n)
	}
	if got := store.View().Revision(); got != revision+1 {
		t.Errorf("revision went from %d to %d, want one more for tap2", revision, got)
	}
}

func TestRepairsWhatSomebodyElseChanged(t *testing.T) {
	store := openStore(t)
	srv := startServer(t, Options{Store: store})
	sw := startSwitch(t, "")
	sw.join("h1", "id1", srv.addr)
	waitHost(t, store, "h1", "is there", any1)
	sw.vsctl("--no-wait", "del-port", "patch-tun", "--", "set", "Bridge", "br-tun", "fail_mode=standalone", "--", "del-controller", "br-int")
	eventually(t, "all is as it was", func() bool {
		return sw.vsctl("get-controller", "br-int") != "" && sw.vsctl("get-fail-mode", "br-tun") == "secure" &&
			sw.get("Interface", "patch-tun", "ofport") == "65024"
	})
}

func TestTunnelAddressChanges(t *testing.T) {
	store := openStore(t)
	srv := startServer(t, Options{Store: store})
	sw := startSwitch(t, "")
	sw.join("h1", "id1", srv.addr)
	h := waitHost(t, store, "h1", "is there", any1)
	if h.TunnelIP.IsValid() || len(h.Bridges["br-tun"].Tunnels) != 0 {
		t.Fatalf("tunnels without an address: %+v", h)
	}
	sw.vsctl("--no-wait", "set", "Open_vSwitch", ".", "external_ids:planck-local-ip=10.250.0.1")
	waitHost(t, store, "h1", "has tunnels", func(h *network.Host) bool { return len(h.Bridges["br-tun"].Tunnels) == 3 })
	sw.vsctl("--no-wait", "set", "Open_vSwitch", ".", "external_ids:planck-local-ip=10.250.0.9")
	waitHost(t, store, "h1", "has the new address", func(h *network.Host) bool { return h.TunnelIP.String() == "10.250.0.9" })
	eventually(t, "the ports have the new address", func() bool {
		return strings.Contains(sw.get("Interface", "planck-gre", "options"), "local_ip=10.250.0.9")
	})
	sw.vsctl("--no-wait", "set", "Open_vSwitch", ".", "external_ids:planck-local-ip=nonsense")
	eventually(t, "the nonsense is reported", func() bool {
		s, _ := srv.state("h1", "id1")
		return strings.Contains(s.Problem, "planck-local-ip")
	})
}

func TestHostsHaveTheTunnelsThatAreConfigured(t *testing.T) {
	for _, types := range [][]string{{network.TypeGeneve}, {}} {
		store := openStore(t)
		srv := startServer(t, Options{Store: store, TunnelTypes: types})
		sw := startSwitch(t, "")
		sw.join("h1", "id1", srv.addr, "external_ids:planck-local-ip=10.250.0.1")
		h := waitHost(t, store, "h1", "is there", func(h *network.Host) bool { return len(h.Bridges["br-tun"].Tunnels) == len(types) })
		if h.TunnelIP.IsValid() != (len(types) > 0) {
			t.Errorf("%v: the tunnel address is %v", types, h.TunnelIP)
		}
		ports := strings.Fields(sw.vsctl("list-ports", "br-tun"))
		want := []string{"patch-int"}
		for _, kind := range types {
			want = append(want, "planck-"+kind)
		}
		if !cmp.Equal(ports, want) {
			t.Errorf("%v: br-tun has the ports %v, want %v", types, ports, want)
		}
	}
}

func TestInterfacesOfVMs(t *testing.T) {
	store := openStore(t)
	srv := startServer(t, Options{Store: store})
	sw := startSwitch(t, "")
	sw.join("h1", "id1", srv.addr)
	waitHost(t, store, "h1", "is there", any1)

	// A tunnel without a remote address gets the number -1.
	sw.vsctl("--no-wait", "add-port", "br-int", "tap1", "--", "set", "Interface", "tap1", "type=vxlan", "external_ids:iface-id=p1")
	eventually(t, "tap1 has number -1", func() bool { return sw.get("Interface", "tap1", "ofport") == "-1" })
	sw.plug("tap2", "p2")
	v := waitVIF(t, store, "p2", "h1", "plugged", func(v *network.VIF) bool { return v != nil })
	if want := sw.get("Interface", "tap2", "ofport"); fmt.Sprint(v.OFPort) != want || v.Name != "tap2" {
		t.Errorf("VIF %+v, want tap2 with port %s", v, want)
	}
	if store.View().VIF("p1", "h1") != nil {
		t.Error("an interface without a number counts as plugged")
	}
	if got := srv.Interfaces("h1", "p1"); len(got) != 1 || got[0].Name != "tap1" || got[0].Bridge != "br-int" || got[0].OFPort != 0 {
		t.Errorf("the interfaces of p1 are told as %+v", got)
	}
	sw.vsctl("set", "Interface", "tap1", "type=dummy")
	waitVIF(t, store, "p1", "h1", "plugged", func(v *network.VIF) bool { return v != nil })

	sw.vsctl("set", "Interface", "tap2", "ofport_request=77")
	waitVIF(t, store, "p2", "h1", "has its new number", func(v *network.VIF) bool { return v != nil && v.OFPort == 77 })
	sw.vsctl("del-port", "tap2")
	waitVIF(t, store, "p2", "h1", "gone", func(v *network.VIF) bool { return v == nil })

	// Not on br-int, or without iface-id: none of ours.
	sw.vsctl("add-br", "br-x", "--", "set", "Bridge", "br-x", "datapath_type=dummy",
		"--", "add-port", "br-x", "tap3", "--", "set", "Interface", "tap3", "type=dummy", "external_ids:iface-id=p3",
		"--", "add-port", "br-int", "tap4", "--", "set", "Interface", "tap4", "type=dummy")
	sw.plug("tap5", "p5")
	waitVIF(t, store, "p5", "h1", "plugged", func(v *network.VIF) bool { return v != nil })
	if store.View().VIF("p3", "h1") != nil {
		t.Error("an interface on another bridge counts as plugged")
	}
	eventually(t, "the interface of p3 is told with its MTU", func() bool {
		got := srv.Interfaces("h1", "p3")
		mtu, wire := srv.WireMTU("h1", "br-x")
		return len(got) == 1 && got[0].Bridge == "br-x" && got[0].MTU == 1500 && mtu == 1500 && wire == "tap3"
	})
	if got := srv.Interfaces("pigeon", "p3"); got != nil {
		t.Errorf("a host that is not there has %+v", got)
	}
}

func TestInterfaceMadeAnewIsNotUnplugged(t *testing.T) {
	store := openStore(t)
	srv := startServer(t, Options{Store: store})
	sw := startSwitch(t, "")
	sw.join("h1", "id1", srv.addr)
	waitHost(t, store, "h1", "is there", any1)
	sw.plug("tap1", "p1")
	first := waitVIF(t, store, "p1", "h1", "plugged", func(v *network.VIF) bool { return v != nil })
	follower := store.Follow()
	defer follower.Close()

	sw.vsctl("--no-wait", "del-port", "tap1")
	sw.plug("tap1new", "p1")
	second := waitVIF(t, store, "p1", "h1", "moved", func(v *network.VIF) bool { return v != nil && v.Name == "tap1new" })
	if second.OFPort == first.OFPort {
		t.Logf("the number %d was given again", first.OFPort)
	}
	// Two rows with the id: the active one counts, then the newer.
	sw.plug("tap1old", "p1", "external_ids:iface-status=inactive")
	sw.plug("tap1newer", "p1")
	waitVIF(t, store, "p1", "h1", "newer", func(v *network.VIF) bool { return v != nil && v.Name == "tap1newer" })
	batch, err := follower.Next(t.Context())
	for err == nil {
		for _, c := range batch.Changes {
			if c.Kind == network.KindVIF && c.After == nil {
				t.Errorf("VIF %s was unplugged in between", c.ID)
			}
		}
		if v := batch.View.VIF("p1", "h1"); v != nil && v.Name == "tap1newer" {
			break
		}
		batch, err = follower.Next(t.Context())
	}
}

func TestRestartedSwitchKeepsItsFacts(t *testing.T) {
	store := openStore(t)
	srv := startServer(t, Options{Store: store})
	sw := startSwitch(t, "")
	sw.join("h1", "id1", srv.addr, "external_ids:planck-local-ip=10.250.0.1", "external_ids:planck-bridge-mappings=physnet1:br-ex")
	waitHost(t, store, "h1", "has br-ex", func(h *network.Host) bool { return h.Bridges["br-ex"].DatapathID != 0 })
	sw.plug("tap1", "p1")
	waitVIF(t, store, "p1", "h1", "plugged", func(v *network.VIF) bool { return v != nil })
	before := store.View()
	sw.kill(&sw.daemon)
	sw.startDaemon()
	sw.vsctl("set", "Open_vSwitch", ".", "external_ids:applied=yes") // waits for vswitchd
	sw.kill(&sw.server)
	restarted := time.Now()
	sw.startServer()
	eventually(t, "it is connected again", func() bool {
		s, ok := srv.state("h1", "id1")
		return ok && s.Connected && s.Problem == "" && s.Since.After(restarted)
	})
	sw.plug("tap2", "p2")
	waitVIF(t, store, "p2", "h1", "plugged", func(v *network.VIF) bool { return v != nil })
	after := store.View()
	if diff := cmp.Diff(before.Host("h1"), after.Host("h1"), cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Errorf("facts changed (-before +after):\n%s", diff)
	}
	if after.Revision() != before.Revision()+1 {
		t.Errorf("revision went from %d to %d, want one more for tap2", before.Revision(), after.Revision())
	}
}

// OVSDB has no masters: two members that want different ports would go on for ever.
func TestOnlyTheCertainOwnerMakesPorts(t *testing.T) {
	var owns, certain atomic.Bool
	owns.Store(true)
	certain.Store(true)
	store := openStore(t)
	srv := startServer(t, Options{Store: store, Owns: func(string) bool { return owns.Load() }, Certain: certain.Load})
	sw := startSwitch(t, "")
	sw.join("h1", "id1", srv.addr, "external_ids:planck-local-ip=10.250.0.1")
	waitHost(t, store, "h1", "has br-tun", func(h *network.Host) bool { return h.Bridges["br-tun"].DatapathID != 0 })
	tunnel := tunnelPort("gre")
	is := func(want bool) func() bool {
		return func() bool { return slices.Contains(strings.Fields(sw.vsctl("list-ports", "br-tun")), tunnel) == want }
	}
	eventually(t, "the tunnel port is made", is(true))
	for _, other := range []*atomic.Bool{&owns, &certain} {
		other.Store(false)
		sw.vsctl("del-port", "br-tun", tunnel)
		sw.vsctl("add-br", "br-other") // a change that is looked at after the other
		for range 20 {
			if !is(false)() {
				t.Fatal("another than the certain owner has made the tunnel port again")
			}
			srv.LookAgain()
			time.Sleep(50 * time.Millisecond)
		}
		sw.vsctl("del-br", "br-other")
		other.Store(true)
		srv.LookAgain()
		eventually(t, "the owner makes the tunnel port again", is(true))
	}
}

func TestServeEndsWithItsContext(t *testing.T) {
	store := openStore(t)
	srv := startServer(t, Options{Store: store})
	sw := startSwitch(t, "")
	sw.join("h1", "id1", srv.addr)
	waitHost(t, store, "h1", "is there", any1)
	start := time.Now()
	srv.stop()
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("it took %v", took)
	}
	if got := sw.vsctl("get-fail-mode", "br-int"); got != "secure" {
		t.Errorf("br-int was not left alone: fail-mode %q", got)
	}
}

// Under the race detector: libovsdb must not be left with calls that are given up.
func TestServeEndsAtAnyMomentOfAJoin(t *testing.T) {
	sw := startSwitch(t, "")
	sw.join("h1", "id1", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1})
	store := openStore(t)
	for i := range 40 {
		srv := startServer(t, Options{Store: store})
		database, err := net.Dial("unix", sw.path("db.sock"))
		if err != nil {
			t.Fatal(err)
		}
		manager, err := net.Dial("tcp", srv.addr.String())
		if err != nil {
			t.Fatal(err)
		}
		var copies sync.WaitGroup
		copies.Go(func() { _, _ = io.Copy(manager, database) })
		copies.Go(func() { _, _ = io.Copy(database, manager) })
		time.Sleep(time.Duration(i) * 2 * time.Millisecond)
		srv.stop()
		manager.Close()
		database.Close()
		copies.Wait()
	}
}
