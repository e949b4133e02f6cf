package lab_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"planck/test/lab"
)

const (
	portA = "0a0a0a0a-1111-4111-8111-000000000001"
	portB = "0b0b0b0b-1111-4111-8111-000000000002"
	macA  = "fa:16:3e:00:00:01"
	macB  = "fa:16:3e:00:00:02"
)

// bridge stands in for a controller: br-int as a plain NORMAL bridge, joined to
// br-ex by patch ports, in VLAN 0 (untagged) or the given one.
func bridge(t *testing.T, h *lab.Host, vlan int) {
	t.Helper()
	patch := []string{"add-port", "br-ex", "ex-int", "--", "set", "Interface", "ex-int", "type=patch", "options:peer=int-ex"}
	if vlan != 0 {
		patch = append(patch, "--", "set", "Port", "ex-int", fmt.Sprintf("tag=%d", vlan))
	}
	args := append([]string{
		"add-br", "br-int", "--", "set", "Bridge", "br-int", "datapath_type=netdev",
		"--", "add-port", "br-int", "int-ex", "--", "set", "Interface", "int-ex", "type=patch", "options:peer=ex-int", "--",
	}, patch...)
	if _, err := h.Vsctl(args...); err != nil {
		t.Fatal(err)
	}
}

func addVM(t *testing.T, l *lab.Lab, host, name string, port lab.VMPort) *lab.VM {
	t.Helper()
	vm, err := l.AddVM(t.Context(), host, name, port)
	if err != nil {
		t.Fatal(err)
	}
	return vm
}

func setAddr(t *testing.T, n *lab.Node, cidr string) {
	t.Helper()
	if err := n.SetAddr(t.Context(), cidr); err != nil {
		t.Fatal(err)
	}
}

func mustPing(t *testing.T, from *lab.Node, dst string) {
	t.Helper()
	sent, received, err := from.Ping(t.Context(), dst, 3)
	if err != nil || received == 0 {
		t.Errorf("%s pings %s: %d of %d answered, error %v", from.Name(), dst, received, sent, err)
	}
}

func mustNotPing(t *testing.T, from *lab.Node, dst string) {
	t.Helper()
	sent, received, err := from.Ping(t.Context(), dst, 2)
	if err != nil || received != 0 {
		t.Errorf("%s pings %s: %d of %d answered, error %v; want none", from.Name(), dst, received, sent, err)
	}
}

// mustBeGone looks for anything that a lab may leave behind.
func mustBeGone(t *testing.T, l *lab.Lab, links []string) {
	t.Helper()
	for _, pattern := range []string{l.Dir(), "/run/netns/pl-" + l.Name() + ".*", "/etc/netns/pl-" + l.Name() + ".*"} {
		if left, _ := filepath.Glob(pattern); len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
	}
	out, _ := exec.Command("pgrep", "-af", l.Dir()+"/").CombinedOutput()
	if len(out) > 0 {
		t.Errorf("processes left behind:\n%s", out)
	}
	now := labLinks(t)
	for _, link := range links {
		if slices.Contains(now, link) {
			t.Errorf("link %s left behind", link)
		}
	}
	if _, err := lab.Open(l.Name()); !errors.Is(err, lab.ErrNotExist) {
		t.Errorf("Open after Down: %v, want ErrNotExist", err)
	}
}

func labLinks(t *testing.T) []string {
	t.Helper()
	ifaces, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, i := range ifaces {
		if strings.HasPrefix(i.Name, "pl") {
			names = append(names, i.Name)
		}
	}
	return names
}

func TestVMsOnTwoHostsReachEachOtherAndTheVLAN(t *testing.T) {
	l := lab.ForTest(t, lab.Options{Hosts: 2})
	for _, h := range l.Hosts() {
		bridge(t, h, 100)
	}
	a := addVM(t, l, "host1", "a", lab.VMPort{ID: portA, MAC: macA, MTU: 1458})
	b := addVM(t, l, "host2", "b", lab.VMPort{ID: portB, MAC: macB})
	setAddr(t, a.Node, "10.0.0.1/24")
	setAddr(t, b.Node, "10.0.0.2/24")
	mustPing(t, a.Node, "10.0.0.2")

	in, err := l.AddPhys(t.Context(), "in-vlan", lab.PhysOptions{VLAN: 100, Addrs: []string{"10.0.0.9/24"}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.AddPhys(t.Context(), "other-vlan", lab.PhysOptions{VLAN: 101, Addrs: []string{"10.0.0.8/24"}}); err != nil {
		t.Fatal(err)
	}
	mustPing(t, b.Node, "10.0.0.9")
	mustPing(t, in, "10.0.0.1")
	mustNotPing(t, a.Node, "10.0.0.8")
}

func TestVMIsPluggedAsOsVifDoes(t *testing.T) {
	l := lab.ForTest(t, lab.Options{Hosts: 1})
	h := l.Host("host1")
	bridge(t, h, 0)
	vm := addVM(t, l, "host1", "a", lab.VMPort{ID: portA, MAC: macA, MTU: 1458, DeviceID: portB})
	if vm.Tap() != "tap0a0a0a0a-11" {
		t.Errorf("tap is named %s", vm.Tap())
	}
	out, err := h.Vsctl("get", "Interface", vm.Tap(), "external_ids", "mtu", "ofport")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`iface-id="` + portA, `iface-status=active`, `attached-mac="` + macA, `vm-uuid="` + portB, "\n1458\n",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("Interface has no %s:\n%s", want, out)
		}
	}
	if mac, err := vm.MAC("eth0"); err != nil || mac.String() != macA {
		t.Errorf("eth0 has %s, %v", mac, err)
	}
	if err := vm.Unplug(); err != nil {
		t.Fatal(err)
	}
	if out, err := h.Vsctl("list-ports", "br-int"); err != nil || strings.Contains(out, vm.Tap()) {
		t.Errorf("ports after unplug: %s, %v", out, err)
	}
	if err := vm.Plug(t.Context()); err != nil {
		t.Error(err)
	}
	if err := l.Remove(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	if out, err := h.Vsctl("list-ports", "br-int"); err != nil || strings.Contains(out, vm.Tap()) {
		t.Errorf("ports after rm: %s, %v", out, err)
	}
	if l.VM("a") != nil {
		t.Error("VM a is still known")
	}
}

func TestPlugSaysThatTheBridgeIsMissing(t *testing.T) {
	l := lab.ForTest(t, lab.Options{Hosts: 1, PlugTimeout: 100 * time.Millisecond})
	_, err := l.AddVM(t.Context(), "host1", "a", lab.VMPort{ID: portA, MAC: macA})
	if err == nil || !strings.Contains(err.Error(), "host1 has no bridge br-int") {
		t.Errorf("got %v", err)
	}
	if l.VM("a") != nil {
		t.Error("the VM that could not be plugged is still there")
	}
}

func TestMigrationKeepsAddressesAndAnnouncesTheVM(t *testing.T) {
	l := lab.ForTest(t, lab.Options{Hosts: 2})
	for _, h := range l.Hosts() {
		bridge(t, h, 0)
	}
	a := addVM(t, l, "host1", "a", lab.VMPort{ID: portA, MAC: macA})
	b := addVM(t, l, "host2", "b", lab.VMPort{ID: portB, MAC: macB})
	setAddr(t, a.Node, "10.0.0.1/24")
	setAddr(t, b.Node, "10.0.0.2/24")
	mustPing(t, a.Node, "10.0.0.2")
	capture, err := b.Capture("eth0", "rarp")
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Migrate(t.Context(), "host2"); err != nil {
		t.Fatal(err)
	}
	text, err := capture.Stop()
	if err != nil || strings.Count(text, "Reverse Request who-is "+macA+" tell "+macA) < 4 {
		t.Errorf("captured %s, %v", text, err)
	}
	if h, err := a.Host(); err != nil || h.Name() != "host2" {
		t.Errorf("a runs on %v, %v", h, err)
	}
	mustPing(t, b.Node, "10.0.0.1")
}

func TestInBandHostReachesTheControllerThroughItsProviderBridgeOnly(t *testing.T) {
	l := lab.ForTest(t, lab.Options{Hosts: 2, InBand: []string{"host2"}, Controllers: []string{"tcp:controller:6640"}})
	for host, want := range map[string]string{"host1": l.ControllerIP(), "host2": l.InBandControllerIP()} {
		h := l.Host(host)
		if out, err := h.Vsctl("get-manager"); err != nil || strings.TrimSpace(out) != "tcp:"+want+":6640" {
			t.Errorf("manager of %s: %s, %v; want %s", host, out, err, want)
		}
		mustPing(t, h.Node, l.ControllerIP())
	}
	h := l.Host("host2")
	if _, err := h.MAC(lab.Management); err == nil {
		t.Error("in-band host2 has a management link")
	}
	// TCP, both ways, with the kernel's checksums on a user-space path.
	listener, err := net.Listen("tcp", net.JoinHostPort(l.InBandControllerIP(), "0"))
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	if err := h.SetManager("tcp:" + listener.Addr().String()); err != nil {
		t.Fatal(err)
	}
	expectDial(t, listener, h.ManagementIP())

	if err := h.KillVswitchd(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	mustNotPing(t, h.Node, l.ControllerIP())
	if err := h.StartVswitchd(); err != nil {
		t.Fatal(err)
	}
	mustPing(t, h.Node, l.ControllerIP())
}

func expectDial(t *testing.T, listener net.Listener, from string) {
	t.Helper()
	if err := listener.(*net.TCPListener).SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	conn, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if host, _, _ := net.SplitHostPort(conn.RemoteAddr().String()); host != from {
		t.Errorf("host2 dials from %s, want %s", host, from)
	}
	// ovsdb-server speaks when asked.
	if _, err := conn.Write([]byte(`{"id":1,"method":"list_dbs","params":[]}`)); err != nil {
		t.Fatal(err)
	}
	if err := conn.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 1024)
	n, err := conn.Read(buf)
	if err != nil || !strings.Contains(string(buf[:n]), "Open_vSwitch") {
		t.Errorf("ovsdb-server answers %s, %v", buf[:n], err)
	}
}

func TestUnderlayComesBackWithTheSwitch(t *testing.T) {
	l := lab.ForTest(t, lab.Options{Hosts: 2})
	one, two := l.Host("host1"), l.Host("host2")
	mustPing(t, one.Node, two.LocalIP())
	if err := one.KillVswitchd(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if one.VswitchdPID() != 0 {
		t.Error("vswitchd is still there")
	}
	if err := one.StartVswitchd(); err != nil {
		t.Fatal(err)
	}
	mustPing(t, one.Node, two.LocalIP())
	if err := one.LinkDown(lab.Underlay); err != nil {
		t.Fatal(err)
	}
	mustNotPing(t, one.Node, two.LocalIP())
	if err := one.LinkUp(lab.Underlay); err != nil {
		t.Fatal(err)
	}
	mustPing(t, one.Node, two.LocalIP())
	if err := one.KillOvsdb(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := one.StartOvsdb(); err != nil {
		t.Fatal(err)
	}
	if out, err := one.Vsctl("get", "Open_vSwitch", ".", "external_ids:planck-local-ip"); err != nil || !strings.Contains(out, one.LocalIP()) {
		t.Errorf("planck-local-ip is %s, %v", out, err)
	}
	if out, err := one.Ofctl("dump-flows", "br-phy"); err != nil || !strings.Contains(out, "NORMAL") {
		t.Errorf("flows of br-phy: %s, %v", out, err)
	}
	if out, err := one.Appctl("dpif/show"); err != nil || !strings.Contains(out, "br-phy") {
		t.Errorf("dpif/show: %s, %v", out, err)
	}
}

func TestPingStreamCountsWhatWasLost(t *testing.T) {
	l := lab.ForTest(t, lab.Options{Hosts: 2})
	one, two := l.Host("host1"), l.Host("host2")
	stream, err := one.PingStream(t.Context(), two.LocalIP())
	if err != nil {
		t.Fatal(err)
	}
	if err := two.LinkDown(lab.Underlay); err != nil {
		t.Fatal(err)
	}
	mustNotPing(t, one.Node, two.LocalIP())
	if err := two.LinkUp(lab.Underlay); err != nil {
		t.Fatal(err)
	}
	if err := stream.WaitReplies(t.Context(), 20); err != nil {
		t.Fatal(err)
	}
	lossy, err := stream.Stop()
	if err != nil || lossy.Lost == 0 || lossy.LongestGap == 0 {
		t.Errorf("a stream over a cut link: %+v, %v", lossy, err)
	}
	stream, err = one.PingStream(t.Context(), two.LocalIP())
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.WaitReplies(t.Context(), 20); err != nil {
		t.Fatal(err)
	}
	clean, err := stream.Stop()
	if err != nil || clean.Lost != 0 || clean.Sent < 20 {
		t.Errorf("a stream over a whole link: %+v, %v", clean, err)
	}
}

func TestDHCPClientsConfigureWhatTheServerOffers(t *testing.T) {
	if _, err := exec.LookPath("dnsmasq"); err != nil {
		t.Fatal("dnsmasq-base is missing: run scripts/install-deps.sh")
	}
	l := lab.ForTest(t, lab.Options{Hosts: 1})
	bridge(t, l.Host("host1"), 0)
	server, err := l.AddPhys(t.Context(), "server", lab.PhysOptions{Addrs: []string{"10.0.0.1/24"}})
	if err != nil {
		t.Fatal(err)
	}
	dnsmasq, err := server.Start("dnsmasq", "--no-daemon", "--conf-file=/dev/null", "--port=0", "--no-ping", "--log-dhcp",
		"--dhcp-leasefile="+filepath.Join(server.Dir(), "leases"), "--interface=eth0",
		"--dhcp-range=10.0.0.100,10.0.0.200,255.255.255.0,1h",
		"--dhcp-host="+macA+",10.0.0.50,vm-a", "--domain=example.org",
		"--dhcp-option=option:dns-server,10.0.0.3,10.0.0.4", "--dhcp-option=option:mtu,1400",
		"--dhcp-option=option:classless-static-route,169.254.169.254/32,10.0.0.2,0.0.0.0/0,10.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	if err := dnsmasq.WaitOutput(t.Context(), "DHCP, IP range"); err != nil {
		t.Fatal(err)
	}
	vm := addVM(t, l, "host1", "a", lab.VMPort{ID: portA, MAC: macA})
	clients := map[string]func(context.Context, ...string) (lab.Lease, error){
		"udhcpc": vm.DHCP, "dhclient": vm.Dhclient,
		"a patient one": func(ctx context.Context, _ ...string) (lab.Lease, error) { return vm.PatientDHCP(ctx) },
	}
	for name, client := range clients {
		t.Run(name, func(t *testing.T) {
			lease, err := client(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			checkLease(t, vm, lease)
			if pids, err := exec.Command("ip", "netns", "pids", vm.Namespace()).Output(); err != nil || len(pids) > 0 {
				t.Errorf("the client stays: processes %s, %v", pids, err)
			}
		})
	}
}

func TestPatientDHCPClientFindsLateServer(t *testing.T) {
	l := lab.ForTest(t, lab.Options{Hosts: 1})
	bridge(t, l.Host("host1"), 0)
	server, err := l.AddPhys(t.Context(), "server", lab.PhysOptions{Addrs: []string{"10.0.0.1/24"}})
	if err != nil {
		t.Fatal(err)
	}
	vm := addVM(t, l, "host1", "a", lab.VMPort{ID: portA, MAC: macA})
	serves := make(chan error, 1)
	go func() {
		time.Sleep(2 * time.Second)
		_, err := server.Start("dnsmasq", "--no-daemon", "--conf-file=/dev/null", "--port=0", "--no-ping",
			"--dhcp-leasefile="+filepath.Join(server.Dir(), "leases"), "--interface=eth0", "--dhcp-range=10.0.0.100,10.0.0.200,255.255.255.0,1h")
		serves <- err
	}()
	if lease, err := vm.PatientDHCP(t.Context()); err != nil || !lease.Addr.IsValid() {
		t.Errorf("%+v, %v", lease, err)
	}
	if err := <-serves; err != nil {
		t.Error(err)
	}
}

func checkLease(t *testing.T, vm *lab.VM, lease lab.Lease) {
	t.Helper()
	if lease.Addr != netip.MustParsePrefix("10.0.0.50/24") || lease.MTU != 1400 || lease.Duration != time.Hour ||
		lease.Domain != "example.org" || lease.Server != netip.MustParseAddr("10.0.0.1") || len(lease.DNS) != 2 || len(lease.Routes) != 2 {
		t.Errorf("lease is %+v", lease)
	}
	for want, cmd := range map[string][]string{
		"inet 10.0.0.50/24":                        {"ip", "addr", "show", "eth0"},
		"mtu 1400":                                 {"ip", "link", "show", "eth0"},
		"169.254.169.254 via 10.0.0.2":             {"ip", "route"},
		"default via 10.0.0.1":                     {"ip", "route", "show", "default"},
		"nameserver 10.0.0.3\nnameserver 10.0.0.4": {"cat", "/etc/resolv.conf"},
	} {
		if out, err := vm.Exec(t.Context(), cmd...); err != nil || !strings.Contains(out, want) {
			t.Errorf("%v has no %q: %s, %v", cmd, want, out, err)
		}
	}
	if sent, received, err := vm.Ping(t.Context(), "10.0.0.1", 3); err != nil || received == 0 {
		t.Errorf("ping the server: %d of %d answered, %v", received, sent, err)
	}
}

func TestDHCPWithoutServerFails(t *testing.T) {
	l := lab.ForTest(t, lab.Options{Hosts: 1})
	bridge(t, l.Host("host1"), 0)
	vm := addVM(t, l, "host1", "a", lab.VMPort{ID: portA, MAC: macA})
	if lease, err := vm.DHCP(t.Context(), "-t", "1"); err == nil {
		t.Errorf("got a lease from nowhere: %+v", lease)
	}
	if _, err := vm.Lease(); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Lease: %v, want os.ErrNotExist", err)
	}
}

func TestTwoLabsStandSideBySide(t *testing.T) {
	one := lab.ForTest(t, lab.Options{Hosts: 1})
	two := lab.ForTest(t, lab.Options{Hosts: 1})
	if one.ControllerIP() == two.ControllerIP() {
		t.Fatalf("both have %s", one.ControllerIP())
	}
	for _, l := range []*lab.Lab{one, two} {
		bridge(t, l.Host("host1"), 0)
		vm := addVM(t, l, "host1", "a", lab.VMPort{ID: portA, MAC: macA})
		setAddr(t, vm.Node, "203.0.113.9/24")
		mustPing(t, vm.Node, "203.0.113.1")
	}
	if err := one.Down(); err != nil {
		t.Fatal(err)
	}
	mustPing(t, two.VM("a").Node, "203.0.113.1")
	mustPing(t, two.Host("host1").Node, two.ControllerIP())
}

func TestAnotherProcessContinuesWithTheLab(t *testing.T) {
	l := lab.ForTest(t, lab.Options{Hosts: 1})
	if _, err := lab.New(t.Context(), lab.Options{Name: l.Name()}); !errors.Is(err, lab.ErrExists) {
		t.Errorf("New of a lab that is up: %v, want ErrExists", err)
	}
	again, err := lab.Open(l.Name())
	if err != nil {
		t.Fatal(err)
	}
	h, err := again.AddHost(t.Context(), false)
	if err != nil {
		t.Fatal(err)
	}
	mustPing(t, l.Host("host1").Node, h.LocalIP())
	if hosts := l.Hosts(); len(hosts) != 2 || hosts[1].Name() != "host2" {
		t.Errorf("hosts: %v", hosts)
	}
	bridge(t, h, 0)
	vm := addVM(t, again, "host2", "a", lab.VMPort{ID: portA, MAC: macA})
	if _, err := l.AddVM(t.Context(), "host1", "a", lab.VMPort{ID: portB, MAC: macB}); err == nil {
		t.Error("a second VM took the name a")
	}
	if _, err := l.VM("a").Exec(t.Context(), "true"); err != nil {
		t.Error(err)
	}
	if err := l.Remove(t.Context(), "host2"); err == nil {
		t.Error("host2 was removed under its VM")
	}
	if err := errors.Join(l.Remove(t.Context(), vm.Name()), l.Remove(t.Context(), "host2")); err != nil {
		t.Error(err)
	}
	if len(again.Status().Nodes) != 3 {
		t.Errorf("left are %+v, want host1, ext and phys", again.Status().Nodes)
	}
}

func TestDownLeavesNothing(t *testing.T) {
	l := lab.ForTest(t, lab.Options{Hosts: 1, InBand: []string{"host1"}})
	bridge(t, l.Host("host1"), 0)
	vm := addVM(t, l, "host1", "a", lab.VMPort{ID: portA, MAC: macA})
	sleeper, err := vm.Start("sh", "-c", "sleep 1000; true")
	if err != nil {
		t.Fatal(err)
	}
	links := ownLinks(t, l)
	for range 2 {
		if err := l.Down(); err != nil {
			t.Fatal(err)
		}
		mustBeGone(t, l, links)
	}
	if err := sleeper.Wait(t.Context()); err == nil {
		t.Error("a process outlived its lab unharmed")
	}
}

// ownLinks are the links of the root namespace that hold the lab's addresses.
func ownLinks(t *testing.T, l *lab.Lab) []string {
	t.Helper()
	var names []string
	for _, name := range labLinks(t) {
		ifc, err := net.InterfaceByName(name)
		if err != nil {
			continue
		}
		ips, err := ifc.Addrs()
		if err == nil && slices.ContainsFunc(ips, func(a net.Addr) bool {
			return a.String() == l.ControllerIP()+"/24" || a.String() == l.InBandControllerIP()+"/24"
		}) {
			names = append(names, name)
		}
	}
	if len(names) != 2 {
		t.Fatalf("links with addresses of lab %s: %v", l.Name(), names)
	}
	return names
}

func TestDownCleansUpAfterACrash(t *testing.T) {
	l := lab.ForTest(t, lab.Options{Hosts: 1})
	bridge(t, l.Host("host1"), 0)
	vm := addVM(t, l, "host1", "a", lab.VMPort{ID: portA, MAC: macA})
	links := ownLinks(t, l)
	// What a process leaves that died while it made a lab: programs in the
	// namespaces that are in no file, half of the files, no pid file.
	orphan, err := vm.Start("sh", "-c", "echo inside; sleep 1000; true")
	if err != nil {
		t.Fatal(err)
	}
	if err := orphan.WaitOutput(t.Context(), "inside"); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{"lab.json", "nodes/host1.json", "run/host1/ovs-vswitchd.pid"} {
		if err := os.Remove(filepath.Join(l.Dir(), file)); err != nil {
			t.Fatal(err)
		}
	}
	if names, err := lab.Names(); err != nil || !slices.Contains(names, l.Name()) {
		t.Errorf("labs: %v, %v; want %s among them", names, err, l.Name())
	}
	if err := lab.Down(l.Name()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := orphan.Wait(ctx); err == nil || ctx.Err() != nil {
		t.Errorf("the program in the VM was not ended: %v", err)
	}
	mustBeGone(t, l, links)
}

func TestLabOfDeadTestIsSwept(t *testing.T) {
	l := lab.ForTest(t, lab.Options{})
	file := filepath.Join(l.Dir(), "lab.json")
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	dead := strings.Replace(string(data), fmt.Sprintf(`"pid": %d`, os.Getpid()), `"pid": 4194305`, 1)
	if err := os.WriteFile(file, []byte(dead), 0o644); err != nil {
		t.Fatal(err)
	}
	lab.ForTest(t, lab.Options{})
	mustBeGone(t, l, nil)
}

func TestBadOptionsAreRefused(t *testing.T) {
	for want, opts := range map[string]lab.Options{
		`lab name "A.b"`:       {Name: "A.b"},
		"251 hosts":            {Name: "bad", Hosts: 251},
		`in-band host "host3"`: {Name: "bad", Hosts: 2, InBand: []string{"host3"}},
		"address of ext":       {Name: "bad", ExtAddrs: []string{"203.0.113.1"}},
		"24 at most":           {Name: strings.Repeat("x", 25)},
	} {
		if _, err := lab.New(t.Context(), opts); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", opts, err, want)
		}
	}
	if _, err := lab.Open("bad"); !errors.Is(err, lab.ErrNotExist) {
		t.Errorf("a refused lab is there: %v", err)
	}
}
