package ovsdb

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"planck/network"
)

// openFlowPort stands for the controller: switches connect and are greeted.
type openFlowPort struct {
	net.Listener
	greeted atomic.Int64 // connections on which a switch said hello
	open    atomic.Int64
}

func listenOpenFlow(t *testing.T, address string) *openFlowPort {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	p := &openFlowPort{Listener: l}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { p.serve(t.Context(), conn) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		wg.Wait()
	})
	return p
}

// serve says hello, and answers echo requests until the connection ends.
func (p *openFlowPort) serve(ctx context.Context, conn net.Conn) {
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	if _, err := conn.Write([]byte{4, 0, 0, 8, 0, 0, 0, 1}); err != nil {
		return
	}
	head := make([]byte, 8)
	for first := true; ; first = false {
		if _, err := readFull(conn, head); err != nil {
			return
		}
		body := make([]byte, int(head[2])<<8+int(head[3])-8)
		if _, err := readFull(conn, body); err != nil {
			return
		}
		if first {
			p.greeted.Add(1)
			p.open.Add(1)
			defer p.open.Add(-1)
		}
		if head[1] == 2 {
			head[1] = 3
			if _, err := conn.Write(append(head, body...)); err != nil {
				return
			}
		}
	}
}

func readFull(conn net.Conn, b []byte) (int, error) {
	n := 0
	for n < len(b) {
		m, err := conn.Read(b[n:])
		if err != nil {
			return n, err
		}
		n += m
	}
	return n, nil
}

// handover keeps flows by ovs-ofctl, once the switch has an OpenFlow
// connection, as the controller does by that connection.
type handover struct {
	sw       *testSwitch
	port     *openFlowPort
	bridge   string
	extra    string // flows of ours, put back too
	read     atomic.Int64
	restored atomic.Int64
	fail     atomic.Bool
}

func (h *handover) foreign(ctx context.Context, _ uint64) (string, error) {
	for h.port.open.Load() == 0 {
		select {
		case <-ctx.Done():
			return "", errors.New("the switch has no OpenFlow connection")
		case <-time.After(10 * time.Millisecond):
		}
	}
	h.read.Add(1)
	return h.sw.flows(h.bridge)
}

func (h *handover) restore(_ context.Context, _ uint64, flows string) error {
	if h.fail.Load() {
		return errors.New("not now")
	}
	cmd := h.sw.command("ovs-ofctl", "-OOpenFlow13", "add-flows", "unix:"+h.sw.path(h.bridge+".mgmt"), "-")
	cmd.Stdin = strings.NewReader(flows + "\n" + h.extra + "\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		return errors.New(string(out))
	}
	h.restored.Add(1)
	return nil
}

func TestMappedBridgeKeepsWhatIsTheOperators(t *testing.T) {
	store := openStore(t)
	of := listenOpenFlow(t, "127.0.0.1:0")
	sw := startSwitch(t, "")
	h := &handover{sw: sw, port: of, bridge: "br-ex"}
	srv := startServer(t, Options{Store: store, OpenFlowPort: port(of.Addr()), ForeignFlows: h.foreign, RestoreFlows: h.restore})
	sw.vsctl("add-br", "br-ex", "--", "set", "Bridge", "br-ex", "datapath_type=dummy", "external_ids:operator=yes", "other_config:hwaddr=02:00:00:00:00:01",
		"--", "add-port", "br-ex", "eth1", "--", "set", "Interface", "eth1", "type=dummy", "external_ids:operator=yes",
		"--", "add-bond", "br-ex", "bond0", "eth2", "eth3", "--", "set", "Interface", "eth2", "type=dummy", "--", "set", "Interface", "eth3", "type=dummy")
	const foreign = "cookie=0x99, priority=7,ip,nw_dst=192.0.2.9 actions=drop"
	sw.run("ovs-ofctl", "-OOpenFlow13", "add-flow", "unix:"+sw.path("br-ex.mgmt"), foreign)
	sw.join("h1", "id1", srv.addr, "external_ids:planck-bridge-mappings=physnet1:br-ex", "external_ids:planck-datapath-type=dummy")
	host := waitHost(t, store, "h1", "has br-ex", func(h *network.Host) bool { return h.Bridges["br-ex"].DatapathID != 0 })
	eventually(t, "the flows are back", func() bool {
		return h.restored.Load() == 1 && sw.get("Bridge", "br-ex", "external_ids:planck-flows") == ""
	})
	if got, err := sw.flows("br-ex"); err != nil || got != foreign {
		t.Errorf("flows %q (%v), want %q", got, err, foreign)
	}
	for column, want := range map[string]string{"external_ids:operator": "yes", "other_config:hwaddr": "02:00:00:00:00:01", "fail_mode": "secure"} {
		if got := sw.get("Bridge", "br-ex", column); got != want {
			t.Errorf("br-ex: %s is %q, want %q", column, got, want)
		}
	}
	if ports := sw.vsctl("list-ports", "br-ex"); ports != "bond0\neth1\nphy-br-ex" {
		t.Errorf("ports of br-ex: %q", ports)
	}
	if n := h.read.Load(); n != 1 {
		t.Errorf("flows were read %d times", n)
	}
	if got := sw.vsctl("get-controller", "br-ex"); got != "tcp:"+of.Addr().String() {
		t.Errorf("controllers of br-ex: %q", got)
	}
	if want := host.Bridges["br-int"].Patches["br-ex"]; want == 0 {
		t.Errorf("no patch to br-ex: %+v", host)
	}

	// Mapped no more: the bridge forwards by itself again.
	sw.vsctl("--no-wait", "remove", "Open_vSwitch", ".", "external_ids", "planck-bridge-mappings")
	waitHost(t, store, "h1", "is without br-ex", func(h *network.Host) bool { return len(h.Bridges) == 2 && len(h.BridgeMappings) == 0 })
	if got := sw.vsctl("get-controller", "br-ex") + sw.vsctl("get-fail-mode", "br-ex"); got != "standalone" {
		t.Errorf("br-ex was not given back: %q", got)
	}
	if ports := sw.vsctl("list-ports", "br-ex"); ports != "bond0\neth1" {
		t.Errorf("ports of br-ex: %q", ports)
	}
}

func TestMappedBridgeStaysAsItIsUntilOpenFlowReaches(t *testing.T) {
	store := openStore(t)
	of := listenOpenFlow(t, "127.0.0.1:0")
	of.Close()
	sw := startSwitch(t, "")
	h := &handover{sw: sw, port: of, bridge: "br-ex"}
	srv := startServer(t, Options{Store: store, OpenFlowPort: port(of.Addr()), ForeignFlows: func(context.Context, uint64) (string, error) {
		return "", errors.New("no OpenFlow connection")
	}, RestoreFlows: h.restore})
	sw.vsctl("add-br", "br-ex", "--", "set", "Bridge", "br-ex", "datapath_type=dummy")
	sw.join("h1", "id1", srv.addr, "external_ids:planck-bridge-mappings=physnet1:br-ex", "external_ids:planck-datapath-type=dummy")
	waitHost(t, store, "h1", "is there", any1)
	eventually(t, "the reason is shown", func() bool {
		s, _ := srv.state("h1", "id1")
		return strings.Contains(s.Problem, "br-ex") && strings.Contains(s.Problem, "no OpenFlow connection")
	})
	if got := sw.get("Bridge", "br-ex", "fail_mode"); got != "[]" {
		t.Errorf("fail_mode is %s", got)
	}
	out := sw.run("ovs-ofctl", "dump-flows", "unix:"+sw.path("br-ex.mgmt"))
	if !strings.Contains(out, "actions=NORMAL") {
		t.Errorf("br-ex forwards no more: %s", out)
	}
	if _, there := store.View().Host("h1").Bridges["br-ex"]; there {
		t.Error("the model has a bridge that is not under control")
	}
}

func TestMappedBridgeIsLeftAloneWhereInBandWouldNotWork(t *testing.T) {
	store := openStore(t)
	sw := startSwitch(t, "")
	srv := startServer(t, Options{Store: store, Advertise: "[2001:db8::1]:6653"})
	sw.vsctl("add-br", "br-ex", "--", "set", "Bridge", "br-ex", "datapath_type=dummy")
	sw.join("h1", "id1", srv.addr, "external_ids:planck-bridge-mappings=physnet1:br-ex", "external_ids:planck-datapath-type=dummy")
	waitHost(t, store, "h1", "is there", any1)
	if got := sw.vsctl("get-controller", "br-int"); got != "tcp:[2001:db8::1]:6653" {
		t.Errorf("controller of br-int: %q", got)
	}
	if got := sw.vsctl("get-controller", "br-ex") + sw.vsctl("get-fail-mode", "br-ex"); got != "" {
		t.Errorf("br-ex has %q", got)
	}
	eventually(t, "the reason is shown", func() bool {
		s, _ := srv.state("h1", "id1")
		return strings.Contains(s.Problem, "IPv4")
	})
}

func TestFlowsSurviveACrashInTheMiddleOfATakeover(t *testing.T) {
	store := openStore(t)
	of := listenOpenFlow(t, "127.0.0.1:0")
	sw := startSwitch(t, "")
	h := &handover{sw: sw, port: of, bridge: "br-ex"}
	h.fail.Store(true)
	opts := Options{Store: store, OpenFlowPort: port(of.Addr()), ForeignFlows: h.foreign, RestoreFlows: h.restore}
	srv := startServer(t, opts)
	sw.vsctl("add-br", "br-ex", "--", "set", "Bridge", "br-ex", "datapath_type=dummy")
	const foreign = "priority=7,ip,nw_dst=192.0.2.9 actions=drop"
	sw.run("ovs-ofctl", "-OOpenFlow13", "add-flow", "unix:"+sw.path("br-ex.mgmt"), foreign)
	sw.join("h1", "id1", srv.addr, "external_ids:planck-bridge-mappings=physnet1:br-ex", "external_ids:planck-datapath-type=dummy")
	eventually(t, "it is flushed and the flows are not back", func() bool {
		s, _ := srv.state("h1", "id1")
		got, err := sw.flows("br-ex")
		return strings.Contains(s.Problem, "not now") && err == nil && got == ""
	})
	srv.stop()
	h.fail.Store(false)
	startServerOn(t, srv.addr.String(), opts)
	eventually(t, "the flows are back", func() bool {
		got, err := sw.flows("br-ex")
		return err == nil && got == foreign && sw.get("Bridge", "br-ex", "external_ids:planck-flows") == ""
	})
}

func TestOperatorsOwnControllerStays(t *testing.T) {
	store := openStore(t)
	of, theirs := listenOpenFlow(t, "127.0.0.1:0"), listenOpenFlow(t, "127.0.0.1:0")
	sw := startSwitch(t, "")
	h := &handover{sw: sw, port: of, bridge: "br-ex"}
	srv := startServer(t, Options{Store: store, OpenFlowPort: port(of.Addr()), ForeignFlows: h.foreign, RestoreFlows: h.restore})
	sw.vsctl("add-br", "br-ex", "--", "set", "Bridge", "br-ex", "datapath_type=dummy", "--", "set-controller", "br-ex", "tcp:"+theirs.Addr().String())
	eventually(t, "it has its controller", func() bool { return theirs.open.Load() == 1 })
	const foreign = "priority=7,ip,nw_dst=192.0.2.9 actions=drop"
	sw.run("ovs-ofctl", "-OOpenFlow13", "add-flow", "unix:"+sw.path("br-ex.mgmt"), foreign)
	sw.join("h1", "id1", srv.addr, "external_ids:planck-bridge-mappings=physnet1:br-ex", "external_ids:planck-datapath-type=dummy")
	waitHost(t, store, "h1", "has br-ex", func(h *network.Host) bool { return h.Bridges["br-ex"].DatapathID != 0 })
	eventually(t, "all are connected", func() bool { return of.open.Load() == 3 && theirs.open.Load() == 1 })
	if got, err := sw.flows("br-ex"); err != nil || got != foreign {
		t.Errorf("flows %q (%v), want %q", got, err, foreign)
	}
	if got := sw.vsctl("get-controller", "br-ex"); !strings.Contains(got, theirs.Addr().String()) {
		t.Errorf("controllers of br-ex: %q", got)
	}
	if h.read.Load() != 0 {
		t.Error("flows were handed over though nothing flushes them")
	}
}

// A host whose only way to the controller is LOCAL on its br-ex joins, and is
// back after a kill -9 of its vswitchd. No controller installs any flow here.
func TestHostBehindItsOwnMappedBridgeIsNotCutOff(t *testing.T) {
	store := openStore(t)
	// Names and addresses of its own, for several runs at a time.
	id := os.Getpid() % 250
	ns, outside, inside := fmt.Sprintf("planck-ovsdb-%d", id), fmt.Sprintf("plkodb%da", id), fmt.Sprintf("plkodb%db", id)
	here, there := fmt.Sprintf("198.18.%d.1", id), fmt.Sprintf("198.18.%d.2", id)
	ip := func(args ...string) {
		t.Helper()
		if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			t.Fatalf("ip %s: %v: %s", strings.Join(args, " "), err, out)
		}
	}
	_ = exec.Command("ip", "netns", "del", ns).Run() // left by a test that was killed
	_ = exec.Command("ip", "link", "del", outside).Run()
	ip("netns", "add", ns)
	t.Cleanup(func() { ip("netns", "del", ns) })
	ip("link", "add", outside, "type", "veth", "peer", "name", inside, "netns", ns)
	t.Cleanup(func() { ip("link", "del", outside) }) // the namespace may linger
	ip("address", "add", here+"/24", "dev", outside)
	ip("link", "set", outside, "up")
	ip("-n", ns, "link", "set", inside, "up")
	for _, c := range [][]string{{"ethtool", "-K", outside, "tx", "off"}, {"ip", "netns", "exec", ns, "ethtool", "-K", inside, "tx", "off"}} {
		if out, err := exec.Command(c[0], c[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v: %s", c, err, out)
		}
	}
	of := listenOpenFlow(t, here+":0")
	sw := startSwitch(t, ns)
	// The device of LOCAL, and with it the address, ends with vswitchd.
	local := func() {
		t.Helper()
		ip("-n", ns, "address", "replace", there+"/24", "dev", "br-ex")
		ip("-n", ns, "link", "set", "br-ex", "up")
	}
	sw.vsctl("add-br", "br-ex", "--", "set", "Bridge", "br-ex", "datapath_type=netdev", "--", "add-port", "br-ex", inside)
	local()
	h := &handover{sw: sw, port: of, bridge: "br-ex"}
	srv := startServerOn(t, here+":0", Options{Store: store, OpenFlowPort: port(of.Addr()), ForeignFlows: h.foreign, RestoreFlows: h.restore})
	sw.join("h1", "id1", srv.addr, "external_ids:planck-bridge-mappings=physnet1:br-ex", "external_ids:planck-datapath-type=netdev")
	waitHost(t, store, "h1", "has br-ex", func(h *network.Host) bool { return h.Bridges["br-ex"].DatapathID != 0 })
	eventually(t, "all three bridges are connected", func() bool { return of.open.Load() == 3 })
	if got, err := sw.flows("br-ex"); err != nil || got != "" {
		t.Errorf("flows of br-ex: %q, %v", got, err)
	}
	if s, _ := srv.state("h1", "id1"); !s.Connected || s.Problem != "" {
		t.Errorf("the host: %+v", s)
	}

	sw.kill(&sw.daemon)
	_, _ = sw.try("ip", "link", "del", "br-ex")
	_, _ = sw.try("ip", "link", "del", "ovs-netdev")
	greeted := of.greeted.Load()
	sw.startDaemon()
	eventually(t, "br-ex is there", func() bool {
		_, err := sw.try("ip", "link", "show", "br-ex")
		return err == nil
	})
	local()
	eventually(t, "all three bridges are back", func() bool { return of.greeted.Load() >= greeted+3 })
	sw.vsctl("--no-wait", "set", "Open_vSwitch", ".", "external_ids:planck-local-ip=10.250.0.1")
	waitHost(t, store, "h1", "is heard over OVSDB", func(h *network.Host) bool { return h.TunnelIP.IsValid() })
}
