package bench

import (
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	hypervisors "planck/test/fleet"
	"planck/test/pg"
)

var realHosts = flag.Int("realhosts", 200, "the number of hypervisors with an Open vSwitch of their own")

// BenchmarkRealSwitches lets three members program many Open vSwitches, each an
// ovsdb-server and an ovs-vswitchd whose ports are dummies, with ten ports each.
func BenchmarkRealSwitches(b *testing.B) {
	t := newTable("realswitches")
	n := *realHosts
	m := prepareMembers(b, pg.StartDurable(b).Database(b), 3, n, 10*n)
	m.start(m.all...)
	s := &switches{TB: b, dir: shortDir(b)}
	for i := range n {
		s.start(i, m)
	}
	before := m.cpu()
	begin := time.Now()
	for i := range n {
		s.connect(i, m)
	}
	m.settled()
	took := time.Since(begin)
	m.equal(max(1, n/50))
	size := fmt.Sprintf("%s real Open vSwitches, %s ports, three members", count(n), count(m.ports))
	t.add(row{what: size + ": all join, until all have their flows (CPU of the members)", ours: ms(took) + " (" + ms(m.cpu()-before) + ")"})

	m.all[0].end()
	begin = time.Now()
	m.settled()
	t.add(row{what: size + ": one member is killed, until the others program its hosts", ours: ms(time.Since(begin))})

	s.stopSwitches()
	for i := range n {
		s.startSwitch(i)
	}
	begin = time.Now()
	m.settled()
	m.equal(max(1, n/50))
	t.add(row{what: size + ": all switches start anew with empty tables, until two members have filled them", ours: ms(time.Since(begin))})
}

// switches are pairs of ovsdb-server and ovs-vswitchd.
type switches struct {
	testing.TB
	dir       string
	vswitchds []*exec.Cmd
}

// shortDir has a name that leaves room for those of sockets.
func shortDir(tb testing.TB) string {
	tb.Helper()
	dir, err := os.MkdirTemp("", "real")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func (s *switches) path(i int, name string) string { return filepath.Join(s.dir, fmt.Sprint(i), name) }

func (s *switches) environment(i int) []string {
	dir := filepath.Join(s.dir, fmt.Sprint(i))
	return append(os.Environ(), "OVS_RUNDIR="+dir, "OVS_LOGDIR="+dir, "OVS_DBDIR="+dir)
}

func (s *switches) run(i int, name string, args ...string) {
	s.Helper()
	cmd := exec.Command(name, args...)
	cmd.Env = s.environment(i)
	if out, err := cmd.CombinedOutput(); err != nil {
		s.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
}

// daemon starts a program that ends with the benchmark.
func (s *switches) daemon(i int, name string, args ...string) *exec.Cmd {
	s.Helper()
	cmd := exec.Command(name, append(args, "--no-chdir", "--log-file=/dev/null", "--verbose=off")...)
	cmd.Env = s.environment(i)
	if err := cmd.Start(); err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() { end(cmd) })
	return cmd
}

// end kills a program, which may have ended.
func end(cmd *exec.Cmd) {
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
}

// start starts the i-th pair, with its ports plugged.
func (s *switches) start(i int, m *members) {
	s.Helper()
	if err := os.Mkdir(filepath.Join(s.dir, fmt.Sprint(i)), 0o755); err != nil {
		s.Fatal(err)
	}
	s.run(i, "ovsdb-tool", "create", s.path(i, "conf.db"), "/usr/share/openvswitch/vswitch.ovsschema")
	s.daemon(i, "ovsdb-server", s.path(i, "conf.db"), "--remote=punix:"+s.path(i, "db.sock"),
		"--remote=db:Open_vSwitch,Open_vSwitch,manager_options", "--unixctl="+s.path(i, "server.ctl"))
	listening(s.TB, s.path(i, "db.sock"))
	name := hypervisors.Name(i)
	args := []string{
		"set", "Open_vSwitch", ".", "external_ids:system-id=" + name, "external_ids:hostname=" + name,
		fmt.Sprintf("external_ids:planck-local-ip=10.250.%d.%d", i>>8, i&255),
		"--", "--may-exist", "add-br", "br-int", "--", "set", "bridge", "br-int", "fail-mode=secure",
	}
	for p := i; p < m.ports; p += m.size {
		port := interfaceName(p)
		args = append(args, "--", "add-port", "br-int", port, "--", "set", "interface", port, "type=dummy", "external_ids:iface-id="+portID(p))
	}
	s.vsctl(i, args...)
	s.vswitchds = append(s.vswitchds, nil)
	s.startSwitch(i)
}

func (s *switches) vsctl(i int, args ...string) {
	s.Helper()
	s.run(i, "ovs-vsctl", append([]string{"--no-wait", "--timeout=20", "--db=unix:" + s.path(i, "db.sock")}, args...)...)
}

func (s *switches) startSwitch(i int) {
	s.Helper()
	s.vswitchds[i] = s.daemon(i, "ovs-vswitchd", "unix:"+s.path(i, "db.sock"), "--enable-dummy=system", "--disable-system",
		"--disable-system-route", "--unixctl="+s.path(i, "vswitchd.ctl"))
}

func (s *switches) stopSwitches() {
	for _, cmd := range s.vswitchds {
		end(cmd)
	}
}

// connect tells a host where the members are.
func (s *switches) connect(i int, m *members) {
	s.Helper()
	s.vsctl(i, append([]string{"set-manager"}, m.managers()...)...)
}

// listening waits until somebody listens on a unix socket.
func listening(tb testing.TB, path string) {
	tb.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		conn, err := net.Dial("unix", path)
		if err == nil {
			conn.Close()
			return
		}
		if time.Now().After(deadline) {
			tb.Fatal(err)
		}
	}
}
