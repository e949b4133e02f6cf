package bench

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"planck/test/lab"
)

// ovn is OVN on a lab of its own, by Debian's packages, which are unpacked for
// the time of the benchmark and not installed.
type ovn struct {
	testing.TB
	dir, root string // of databases, and of the packages
	lab       *lab.Lab
}

// newOVNPaths are within a host and across hosts, between ports of a group whose
// ACLs are the rules of newGroupPaths; nil where there is no OVN to be had.
func newOVNPaths(tb testing.TB) ([]*path, firewall) {
	tb.Helper()
	root, err := unpackOVN(tb)
	if err != nil {
		tb.Logf("not compared with OVN: %v", err)
		return nil, nil
	}
	o := &ovn{tb, tb.TempDir(), root, lab.ForTest(tb, lab.Options{Hosts: 2})}
	o.central()
	for _, h := range o.lab.Hosts() {
		o.chassis(h)
	}
	return o.paths(), o
}

func unpackOVN(tb testing.TB) (root string, err error) {
	dir := tb.TempDir()
	root = filepath.Join(dir, "root")
	download := exec.Command("apt-get", "download", "ovn-common", "ovn-central", "ovn-host")
	download.Dir = dir
	if out, err := download.CombinedOutput(); err != nil {
		return "", fmt.Errorf("apt-get download: %w: %s", err, out)
	}
	packages, err := filepath.Glob(filepath.Join(dir, "*.deb"))
	if err != nil {
		return "", err
	}
	for _, file := range packages {
		if out, err := exec.Command("dpkg", "-x", file, root).CombinedOutput(); err != nil {
			return "", fmt.Errorf("dpkg -x: %w: %s", err, out)
		}
	}
	return root, nil
}

func (o *ovn) bin(name string) string { return filepath.Join(o.root, "usr/bin", name) }

func (o *ovn) remote() string { return "unix:" + filepath.Join(o.dir, "db.sock") }

// start runs a daemon until the end; dir is where it looks for sockets.
func (o *ovn) start(dir, name string, args ...string) {
	o.Helper()
	base := filepath.Base(name)
	log, err := os.Create(filepath.Join(dir, base+".log"))
	if err != nil {
		o.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "OVS_RUNDIR="+dir, "OVN_RUNDIR="+dir)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		o.Fatal(err)
	}
	o.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGKILL)
		_ = cmd.Wait()
		if o.Failed() {
			text, _ := os.ReadFile(log.Name())
			o.Logf("%s:\n%s", base, text[max(0, len(text)-1<<10):])
		}
	})
}

// central starts both databases and ovn-northd.
func (o *ovn) central() {
	o.Helper()
	args := []string{"--remote=p" + o.remote()}
	for _, name := range []string{"nb", "sb"} {
		file := filepath.Join(o.dir, name+".db")
		if out, err := exec.Command("ovsdb-tool", "create", file, filepath.Join(o.root, "usr/share/ovn/ovn-"+name+".ovsschema")).CombinedOutput(); err != nil {
			o.Fatalf("ovsdb-tool: %v: %s", err, out)
		}
		args = append(args, file)
	}
	o.start(o.dir, "ovsdb-server", args...)
	for begin := time.Now(); time.Since(begin) < patience; time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(filepath.Join(o.dir, "db.sock")); err == nil {
			break
		}
	}
	o.start(o.dir, o.bin("ovn-northd"), "--ovnnb-db="+o.remote(), "--ovnsb-db="+o.remote())
	o.nbctl("init")
}

func (o *ovn) chassis(h *lab.Host) {
	o.Helper()
	if _, err := h.Vsctl("set", "Open_vSwitch", ".", "external_ids:ovn-remote=\""+o.remote()+"\"", "external_ids:ovn-encap-type=geneve",
		"external_ids:ovn-encap-ip="+h.LocalIP(), "external_ids:ovn-bridge-datapath-type=netdev"); err != nil {
		o.Fatal(err)
	}
	o.start(h.Dir(), o.bin("ovn-controller"), "unix:"+filepath.Join(h.Dir(), "db.sock"))
}

func (o *ovn) nbctl(args ...string) {
	o.Helper()
	if out, err := exec.Command(o.bin("ovn-nbctl"), append([]string{"--db=" + o.remote(), "--timeout=60"}, args...)...).CombinedOutput(); err != nil {
		o.Fatalf("ovn-nbctl %q: %v: %s", args, err, out)
	}
}

// ovnMTU leaves room for Geneve.
const ovnMTU = 1442

func (o *ovn) paths() []*path {
	o.Helper()
	port := func(i int) lab.VMPort {
		return lab.VMPort{ID: fmt.Sprintf("%08d-0000-4000-8000-000000000000", i), MAC: fmt.Sprintf("fa:16:3e:01:%02x:%02x", i>>8, i&255), MTU: ovnMTU}
	}
	address := func(i int) string { return fmt.Sprintf("10.1.%d.%d", i>>8, i&255) }
	const first = 11
	ports, members := []string{"ls-add", "network"}, []string{"--", "pg-add", "members"}
	for i := first; i < first+groupMembers; i++ {
		p := port(i)
		addresses := p.MAC + " " + address(i)
		ports = append(ports, "--", "lsp-add", "network", p.ID, "--", "lsp-set-addresses", p.ID, addresses, "--", "lsp-set-port-security", p.ID, addresses)
		members = append(members, p.ID)
	}
	o.nbctl(append(ports, members...)...)
	acls := []string{
		"acl-add", "members", "from-lport", refused, "inport == @members && ip", "drop",
		"--", "acl-add", "members", "to-lport", refused, "outport == @members && ip", "drop",
		"--", "acl-add", "members", "from-lport", allowed, "inport == @members && ip4", "allow-related",
	}
	for _, n := range groupPorts() {
		acls = append(acls, "--", "acl-add", "members", "to-lport", allowed, inGroup("tcp", n), "allow-related")
	}
	o.nbctl(acls...)
	boot := func(name, host string, i int) *lab.Node {
		o.Helper()
		v, err := o.lab.AddVM(o.Context(), host, name, port(i))
		if err != nil {
			o.Fatal(err)
		}
		setAddress(o.TB, v.Node, address(i))
		return v.Node
	}
	a, near, far := boot("a", "host1", first), boot("b", "host1", first+1), boot("c", "host2", first+2)
	o.nbctl("--wait=hv", "sync")
	return []*path{newPath(o.TB, o.lab, a, near, address(first+1)), newPath(o.TB, o.lab, a, far, address(first+2))}
}

// inGroup is a match on what members send to a port of members.
func inGroup(protocol string, port int) string {
	return fmt.Sprintf("outport == @members && ip4 && ip4.src == $members_ip4 && %s.dst == %d", protocol, port)
}

func (o *ovn) allow(protocol string, port int) func() {
	o.Helper()
	o.nbctl("acl-add", "members", "to-lport", allowed, inGroup(protocol, port), "allow-related")
	return func() { o.nbctl("acl-del", "members", "to-lport", allowed, inGroup(protocol, port)) }
}

// Priorities of ACLs, as Neutron has them.
const allowed, refused = "1002", "1001"
