package ovsdb

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"planck/network"
)

// testSwitch is a real Open vSwitch with directories of its own, and without
// devices unless it lives in a network namespace.
type testSwitch struct {
	t      *testing.T
	dir    string
	netns  string // "" for the dummy datapath in the test's own namespace
	server *exec.Cmd
	daemon *exec.Cmd
}

func startSwitch(t *testing.T, netns string) *testSwitch {
	t.Helper()
	dir, err := os.MkdirTemp("", "ovs")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	sw := &testSwitch{t: t, dir: dir, netns: netns}
	sw.run("ovsdb-tool", "create", sw.path("conf.db"), "/usr/share/openvswitch/vswitch.ovsschema")
	sw.startServer()
	sw.vsctl("--no-wait", "init")
	sw.startDaemon()
	t.Cleanup(func() {
		sw.kill(&sw.daemon)
		sw.kill(&sw.server)
	})
	return sw
}

func (sw *testSwitch) path(name string) string { return filepath.Join(sw.dir, name) }

func (sw *testSwitch) startServer() {
	sw.server = sw.start("ovsdb-server", sw.path("conf.db"), "--remote=punix:"+sw.path("db.sock"),
		"--remote=db:Open_vSwitch,Open_vSwitch,manager_options", "--unixctl="+sw.path("server.ctl"),
		"--log-file="+sw.path("server.log"))
	eventually(sw.t, "ovsdb-server listens", func() bool {
		conn, err := net.Dial("unix", sw.path("db.sock"))
		if err != nil {
			return false
		}
		return conn.Close() == nil
	})
}

func (sw *testSwitch) startDaemon() {
	args := []string{"unix:" + sw.path("db.sock"), "--unixctl=" + sw.path("daemon.ctl"), "--log-file=" + sw.path("daemon.log")}
	if sw.netns == "" {
		args = append(args, "--enable-dummy=system", "--disable-system", "--disable-system-route")
	}
	sw.daemon = sw.start("ovs-vswitchd", args...)
	sw.waitFile("daemon.ctl")
}

func (sw *testSwitch) command(name string, args ...string) *exec.Cmd {
	if sw.netns != "" {
		args = append([]string{"netns", "exec", sw.netns, name}, args...)
		name = "ip"
	}
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "OVS_RUNDIR="+sw.dir, "OVS_LOGDIR="+sw.dir, "OVS_DBDIR="+sw.dir)
	return cmd
}

func (sw *testSwitch) start(name string, args ...string) *exec.Cmd {
	sw.t.Helper()
	cmd := sw.command(name, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // also when the test is killed
	if err := cmd.Start(); err != nil {
		sw.t.Fatal(err)
	}
	return cmd
}

func (sw *testSwitch) waitFile(name string) {
	sw.t.Helper()
	eventually(sw.t, name+" is there", func() bool {
		_, err := os.Stat(sw.path(name))
		return err == nil
	})
}

// kill ends a process with SIGKILL. (ip netns exec replaces itself, so the
// process is the daemon also in a namespace.)
func (sw *testSwitch) kill(cmd **exec.Cmd) {
	if *cmd == nil {
		return
	}
	_ = (*cmd).Process.Kill()
	_ = (*cmd).Wait()
	*cmd = nil
	if cmd == &sw.daemon {
		os.Remove(sw.path("daemon.ctl"))
	}
	if cmd == &sw.server {
		os.Remove(sw.path("db.sock"))
	}
}

func (sw *testSwitch) run(name string, args ...string) string {
	sw.t.Helper()
	out, err := sw.try(name, args...)
	if err != nil {
		sw.t.Fatal(err)
	}
	return out
}

func (sw *testSwitch) try(name string, args ...string) (string, error) {
	cmd := sw.command(name, args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, stderr.String())
	}
	return strings.TrimSpace(string(out)), nil
}

func (sw *testSwitch) vsctl(args ...string) string {
	sw.t.Helper()
	return sw.run("ovs-vsctl", append([]string{"--timeout=10", "--db=unix:" + sw.path("db.sock")}, args...)...)
}

// get is a column of a row, without quotes.
func (sw *testSwitch) get(table, row, column string) string {
	sw.t.Helper()
	return strings.ReplaceAll(sw.vsctl("--if-exists", "get", table, row, column), `"`, "")
}

// flows is a bridge's flows as ovs-ofctl can take them back, without the one
// that standalone mode makes.
func (sw *testSwitch) flows(bridge string) (string, error) {
	out, err := sw.try("ovs-ofctl", "--no-stats", "-OOpenFlow13", "dump-flows", "unix:"+sw.path(bridge+".mgmt"))
	if err != nil {
		return "", err
	}
	var keep []string
	for line := range strings.Lines(out) {
		line = strings.TrimSpace(line)
		if strings.Contains(line, "actions=") && line != "priority=0 actions=NORMAL" {
			keep = append(keep, line)
		}
	}
	return strings.Join(keep, "\n"), nil
}

// join names the host, as Open vSwitch's start script does, and dials a controller.
func (sw *testSwitch) join(host, systemID string, to net.Addr, ids ...string) {
	sw.t.Helper()
	args := []string{"--no-wait", "set", "Open_vSwitch", ".", "ovs_version=3.1.0", "external_ids:hostname=" + host, "external_ids:system-id=" + systemID}
	args = append(args, ids...)
	sw.vsctl(append(args, "--", "set-manager", "tcp:"+to.String())...)
}

// plug does what os-vif does.
func (sw *testSwitch) plug(name, portID string, more ...string) {
	sw.t.Helper()
	sw.vsctl(append([]string{"--may-exist", "add-port", "br-int", name, "--", "set", "Interface", name, "type=dummy",
		"external_ids:iface-id=" + portID, "external_ids:iface-status=active", "external_ids:attached-mac=fa:16:3e:00:00:01"}, more...)...)
}

// patience is how long anything may take to come about on a busy machine.
const patience = time.Minute

func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !holds() {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", patience, what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// testServer is a Server on a port of its own with a real store.
type testServer struct {
	*Server
	t      *testing.T
	addr   net.Addr
	cancel context.CancelFunc
	ended  chan error
}

func openStore(t *testing.T) *network.Store {
	t.Helper()
	store, err := network.Open(t.Context(), "sqlite://"+filepath.Join(t.TempDir(), "planck.db"), network.DefaultConfig())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	return store
}

func startServer(t *testing.T, opts Options) *testServer {
	t.Helper()
	return startServerOn(t, "127.0.0.1:0", opts)
}

func startServerOn(t *testing.T, address string, opts Options) *testServer {
	t.Helper()
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.NewTextHandler(logWriter{t}, nil))
	}
	s, err := New(opts)
	if err != nil {
		t.Fatal(err)
	}
	s.silence, s.pause = 300*time.Millisecond, 100*time.Millisecond
	listener, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ts := &testServer{Server: s, t: t, addr: listener.Addr(), cancel: cancel, ended: make(chan error, 1)}
	go func() { ts.ended <- s.Serve(ctx, listener) }()
	t.Cleanup(ts.stop)
	return ts
}

// stop ends the server and waits for it; a second time does nothing.
func (ts *testServer) stop() {
	if ts.cancel == nil {
		return
	}
	ts.cancel()
	ts.cancel = nil
	select {
	case err := <-ts.ended:
		if err != nil {
			ts.t.Errorf("Serve: %v", err)
		}
	case <-time.After(patience):
		ts.t.Errorf("Serve did not end within %v", patience)
	}
}

func (ts *testServer) transactions() int {
	return int(testutil.ToFloat64(ts.metrics.transactions.WithLabelValues("ok")) + testutil.ToFloat64(ts.metrics.transactions.WithLabelValues("error")))
}

func (ts *testServer) refusals(reason string) int {
	return int(testutil.ToFloat64(ts.metrics.refused.WithLabelValues(reason)))
}

func (ts *testServer) state(name, systemID string) (HostState, bool) {
	for _, h := range ts.Hosts() {
		if h.Name == name && h.SystemID == systemID {
			return h, true
		}
	}
	return HostState{}, false
}

// waitHost waits until the model has a host that is as wanted.
func waitHost(t *testing.T, store *network.Store, name, what string, holds func(*network.Host) bool) *network.Host {
	t.Helper()
	var h *network.Host
	eventually(t, fmt.Sprintf("host %s: %s", name, what), func() bool {
		h = store.View().Host(name)
		return h != nil && holds(h)
	})
	return h
}

func any1(*network.Host) bool { return true }

func waitVIF(t *testing.T, store *network.Store, portID, host, what string, holds func(*network.VIF) bool) *network.VIF {
	t.Helper()
	var v *network.VIF
	eventually(t, fmt.Sprintf("VIF %s on %s: %s", portID, host, what), func() bool {
		v = store.View().VIF(portID, host)
		return holds(v)
	})
	return v
}

func port(a net.Addr) int {
	_, p, _ := net.SplitHostPort(a.String())
	n, _ := strconv.Atoi(p)
	return n
}

// logWriter shows a server's log when its test fails.
type logWriter struct{ t *testing.T }

func (w logWriter) Write(p []byte) (int, error) {
	w.t.Log(strings.TrimSpace(string(p)))
	return len(p), nil
}
