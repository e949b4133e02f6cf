package controller

import (
	"bufio"
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"planck/network"
	"planck/pipeline"
)

// clientWire is an interface in a network namespace, whose frames go to the
// responders and nowhere else, as if a switch punted all of them.
type clientWire struct {
	name      string
	namespace string
	tap       *os.File
	events    chan string // what happened to packets
}

func newClientWire(t *testing.T, a *answering, d *DHCP) *clientWire {
	t.Helper()
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatalf("open /dev/net/tun (root is needed): %v", err)
	}
	w := &clientWire{name: fmt.Sprintf("pd%d", os.Getpid()), events: make(chan string, 10_000)}
	request, err := unix.NewIfreq(w.name)
	if err != nil {
		t.Fatal(err)
	}
	request.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, request); err != nil {
		t.Fatalf("TUNSETIFF %s: %v", w.name, err)
	}
	w.tap = os.NewFile(uintptr(fd), "tap")
	w.namespace = w.name
	mustRun(t, "ip", "netns", "add", w.namespace)
	t.Cleanup(func() { mustRun(t, "ip", "netns", "del", w.namespace) })
	mustRun(t, "ip", "link", "set", w.name, "netns", w.namespace)
	mustRun(t, "ip", "-n", w.namespace, "link", "set", w.name, "address", testMAC.String(), "up")

	done := make(chan struct{})
	go func() {
		defer close(done)
		w.serve(a, d, NewARP(pipeline.ARPCached))
	}()
	t.Cleanup(func() {
		w.tap.Close()
		<-done
	})
	return w
}

func mustRun(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
}

// serve answers until the interface is closed.
func (w *clientWire) serve(a *answering, responders ...Responder) {
	buffer := make([]byte, 2048)
	for {
		n, err := w.tap.Read(buffer)
		if err != nil {
			return
		}
		for _, r := range responders {
			var out Replies
			if err := r.Respond(context.Background(), a.packetIn(buffer[:n]), &out); err != nil {
				continue
			}
			select {
			case w.events <- pipeline.FeatureName(r.Feature()) + " " + out.Dropped():
			default:
			}
			for o := range out.PacketOuts() {
				if _, err := w.tap.Write(o.Data); err != nil {
					return
				}
			}
		}
	}
}

// client runs a DHCP client in the namespace; what its script prints comes in lines.
func (w *clientWire) client(t *testing.T, name string, args ...string) (*exec.Cmd, <-chan string) {
	t.Helper()
	cmd := exec.Command("ip", append([]string{"netns", "exec", w.namespace, name}, args...)...)
	output, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := make(chan string, 1000)
	go func() {
		defer close(lines)
		for s := bufio.NewScanner(output); s.Scan(); {
			lines <- s.Text()
		}
	}()
	t.Cleanup(func() {
		cmd.Process.Kill()
		for range lines {
		}
		cmd.Wait()
	})
	return cmd, lines
}

// awaitLine reads lines until one begins with prefix.
func awaitLine(t *testing.T, lines <-chan string, prefix string) string {
	t.Helper()
	timeout := time.After(patience)
	var before []string
	for {
		select {
		case line, ok := <-lines:
			if strings.HasPrefix(line, prefix) {
				return line
			}
			if !ok {
				t.Fatalf("client ended before %q:\n%s", prefix, strings.Join(before, "\n"))
			}
			before = append(before, line)
		case <-timeout:
			t.Fatalf("no %q in time:\n%s", prefix, strings.Join(before, "\n"))
		}
	}
}

func clientScript(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func withHostRoute(a *answering) {
	a.subnets[0].HostRoutes = []network.Route{{Destination: netip.MustParsePrefix("192.168.0.0/16"), NextHop: ip4("10.0.0.9")}}
}

// TestUdhcpcBindsRenewsAndReleases: with -a it first asks by ARP whether
// somebody has its address, and takes silence for no.
func TestUdhcpcBindsRenewsAndReleases(t *testing.T) {
	a := newAnswering(t, withHostRoute)
	w := newClientWire(t, a, NewDHCP(DHCPConfig{Lease: time.Hour, Domain: "openstacklocal"}))
	path := clientScript(t, `
case $1 in bound) ip addr add $ip/$mask dev $interface;; esac
echo "$1 ip=$ip/$mask router=$router dns=$dns domain=$domain hostname=$hostname mtu=$mtu routes=$staticroutes lease=$lease"
`)
	cmd, lines := w.client(t, "udhcpc", "-f", "-a500", "-R", "-t", "5", "-T", "1", "-i", w.name, "-s", path,
		"-O", "mtu", "-O", "staticroutes", "-O", "hostname", "-O", "domain")
	mtu := a.store.View().Network(a.network.ID).MTU
	_, server := a.server()
	config := fmt.Sprintf(" ip=10.0.0.5/24 router=10.0.0.1 dns=8.8.8.8 1.1.1.1 domain=openstacklocal hostname=host-10-0-0-5 mtu=%d"+
		" routes=192.168.0.0/16 10.0.0.9 169.254.169.254/32 %s 0.0.0.0/0 10.0.0.1 lease=3600", mtu, server)
	if got := awaitLine(t, lines, "bound "); got != "bound"+config {
		t.Errorf("got  %s\nwant bound%s", got, config)
	}
	awaitLine(t, w.events, "arp "+dropOwnAddress)
	if err := cmd.Process.Signal(syscall.SIGUSR1); err != nil { // renew now
		t.Fatal(err)
	}
	if got := awaitLine(t, lines, "renew "); got != "renew"+config {
		t.Errorf("got  %s\nwant renew%s", got, config)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	awaitLine(t, w.events, "dhcp "+dropReleased)
}

func TestDhclientBindsRenewsAndReboots(t *testing.T) {
	a := newAnswering(t, withHostRoute)
	w := newClientWire(t, a, NewDHCP(DHCPConfig{Lease: 16 * time.Second, Domain: "openstacklocal"}))
	dir := t.TempDir()
	path := clientScript(t, `
case $reason in
BOUND|REBOOT) ip addr replace $new_ip_address/24 dev $interface;;
PREINIT) ip link set $interface up;;
esac
echo "$reason ip=$new_ip_address/$new_subnet_mask router=$new_routers dns=$new_domain_name_servers domain=$new_domain_name hostname=$new_host_name lease=$new_dhcp_lease_time server=$new_dhcp_server_identifier"
`)
	_, server := a.server()
	config := fmt.Sprintf(" ip=10.0.0.5/255.255.255.0 router=10.0.0.1 dns=8.8.8.8 1.1.1.1 domain=openstacklocal hostname=host-10-0-0-5 lease=16 server=%s", server)
	for _, events := range [][]string{{"BOUND", "RENEW"}, {"REBOOT"}} {
		cmd, lines := w.client(t, "dhclient", "-d", "-1", "-cf", "/dev/null", "-sf", path,
			"-lf", filepath.Join(dir, "leases"), "-pf", filepath.Join(dir, "pid"), w.name)
		for _, event := range events {
			if got := awaitLine(t, lines, event+" "); got != event+config {
				t.Errorf("got  %s\nwant %s", got, event+config)
			}
		}
		cmd.Process.Kill()
		for range lines {
		}
	}
}
