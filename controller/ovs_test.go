package controller

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// openvswitch is a real ovsdb-server and ovs-vswitchd of its own, with dummy
// devices, in a directory of its own.
type openvswitch struct {
	t       testing.TB
	dir     string
	db      *exec.Cmd
	vswitch *exec.Cmd
}

func startOVS(t testing.TB) *openvswitch {
	t.Helper()
	dir, err := os.MkdirTemp("", "planck-ovs-") // short, for the sake of unix sockets
	if err != nil {
		t.Fatal(err)
	}
	o := &openvswitch{t: t, dir: dir}
	t.Cleanup(func() {
		o.killVswitch()
		kill(o.db)
		os.RemoveAll(dir)
	})
	o.run("ovsdb-tool", "create", o.path("conf.db"), "/usr/share/openvswitch/vswitch.ovsschema")
	o.db = o.spawn("ovsdb-server", o.path("conf.db"), "--remote=punix:"+o.path("db.sock"), "--unixctl="+o.path("ovsdb.ctl"))
	o.waitFor("db.sock")
	o.vsctl("--no-wait", "init")
	o.startVswitch()
	return o
}

func (o *openvswitch) path(name string) string { return filepath.Join(o.dir, name) }

func (o *openvswitch) spawn(name string, args ...string) *exec.Cmd {
	o.t.Helper()
	cmd := exec.Command(name, append(args, "--log-file="+o.path(name+".log"), "-vconsole:off")...)
	cmd.Env = append(os.Environ(), "OVS_RUNDIR="+o.dir, "OVS_LOGDIR="+o.dir, "OVS_DBDIR="+o.dir)
	cmd.Dir = o.dir
	if err := cmd.Start(); err != nil {
		o.t.Fatal(err)
	}
	return cmd
}

func kill(cmd *exec.Cmd) {
	if cmd == nil {
		return
	}
	cmd.Process.Kill()
	cmd.Wait()
}

func (o *openvswitch) startVswitch() {
	o.t.Helper()
	o.vswitch = o.spawn("ovs-vswitchd", "unix:"+o.path("db.sock"), "--unixctl="+o.path("vswitchd.ctl"),
		"--enable-dummy=system", "--disable-system", "--disable-system-route")
	o.waitFor("vswitchd.ctl")
}

// killVswitch ends ovs-vswitchd as a crash does.
func (o *openvswitch) killVswitch() {
	kill(o.vswitch)
	o.vswitch = nil
	os.Remove(o.path("vswitchd.ctl"))
}

// waitFor waits until somebody listens on a unix socket.
func (o *openvswitch) waitFor(socket string) {
	o.t.Helper()
	eventually(o.t, 20*time.Second, func() error {
		conn, err := net.Dial("unix", o.path(socket))
		if err == nil {
			conn.Close()
		}
		return err
	})
}

func (o *openvswitch) run(name string, args ...string) string {
	o.t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "OVS_RUNDIR="+o.dir)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		o.t.Fatalf("%s %s: %v: %s", name, strings.Join(args, " "), err, stderr.String())
	}
	return string(out)
}

func (o *openvswitch) vsctl(args ...string) string {
	o.t.Helper()
	return o.run("ovs-vsctl", append([]string{"--timeout=20", "--db=unix:" + o.path("db.sock")}, args...)...)
}

func (o *openvswitch) appctl(args ...string) string {
	o.t.Helper()
	return o.run("ovs-appctl", append([]string{"--timeout=20", "--target=" + o.path("vswitchd.ctl")}, args...)...)
}

// ofctl runs ovs-ofctl on a bridge.
func (o *openvswitch) ofctl(command, bridge string, args ...string) string {
	o.t.Helper()
	return o.run("ovs-ofctl", append([]string{"-OOpenFlow13", command, "unix:" + o.path(bridge+".mgmt")}, args...)...)
}

// bridge makes a bridge whose controller is at addr.
func (o *openvswitch) bridge(name string, dpid uint64, addr string) {
	o.t.Helper()
	o.vsctl("add-br", name, "--", "set", "bridge", name, "datapath_type=dummy", "protocols=OpenFlow10,OpenFlow13",
		"fail-mode=secure", fmt.Sprintf("other-config:datapath-id=%016x", dpid), "other-config:disable-in-band=true",
		"--", "set-controller", name, "tcp:"+addr,
		"--", "set", "controller", name, "max_backoff=1000", "inactivity_probe=5000")
}

// port adds a dummy port with an OpenFlow number.
func (o *openvswitch) port(bridge, name string, ofport int) {
	o.t.Helper()
	o.vsctl("add-port", bridge, name, "--", "set", "interface", name, "type=dummy",
		fmt.Sprintf("ofport_request=%d", ofport), "options:tx_pcap="+o.path(name+".pcap"))
}

// flows are the lines of dump-flows, without counters.
func (o *openvswitch) flows(bridge string) []string {
	o.t.Helper()
	out := o.ofctl("dump-flows", bridge, "--no-stats")
	var lines []string
	for line := range strings.Lines(out) {
		if strings.Contains(line, "actions=") {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	return lines
}

// patience is how long anything may take to come about on a busy machine.
const patience = time.Minute

// eventually tries until there is no error, and fails with the last one after
// a limit, which is no shorter than patience.
func eventually(t testing.TB, limit time.Duration, try func() error) {
	t.Helper()
	limit = max(limit, patience)
	deadline := time.Now().Add(limit)
	for {
		err := try()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("after %s: %v", limit, err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}
