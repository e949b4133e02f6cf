package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// namespacePrefix marks what may be swept as a lab's.
const namespacePrefix = "pl-"

// Node is a network namespace of the lab: a hypervisor, a VM, a physical host,
// ext or the physical switch.
type Node struct {
	lab  *Lab
	name string
	kind Kind
}

func (l *Lab) nodeOf(rec record) *Node { return &Node{lab: l, name: rec.Name, kind: rec.Kind} }

func (l *Lab) namespace(node string) string { return labNamespaces(l.rec.Name) + node }

// labNamespaces is what the namespaces of a lab start with.
func labNamespaces(lab string) string { return namespacePrefix + lab + "." }

// Name is the node's name in the lab.
func (n *Node) Name() string { return n.name }

// Kind says what the node is.
func (n *Node) Kind() Kind { return n.kind }

// Namespace is the name of its network namespace, as ip netns shows it.
func (n *Node) Namespace() string { return n.lab.namespace(n.name) }

// Dir is the node's run directory: databases, sockets, logs, leases.
func (n *Node) Dir() string { return n.lab.runDir(n.name) }

// Env is what programs get beside the environment of this process: where the
// node's Open vSwitch is, so that ovs-vsctl and its like just work.
func (n *Node) Env() []string {
	if n.kind != KindHost && n.kind != KindSwitch {
		return nil
	}
	return []string{"OVS_RUNDIR=" + n.Dir(), "OVS_LOGDIR=" + n.Dir(), "OVS_DBDIR=" + n.Dir()}
}

// Command is the program in the node's namespace, not yet started. ip netns
// exec also puts the node's resolv.conf in place.
func (n *Node) Command(ctx context.Context, cmd ...string) *exec.Cmd {
	args := append([]string{"netns", "exec", n.Namespace()}, cmd...)
	return withEnv(command(ctx, "ip", args...), n.Env()...)
}

// Exec runs a program to its end and returns what it wrote to stdout and
// stderr. The error names the command and holds that text.
func (n *Node) Exec(ctx context.Context, cmd ...string) (string, error) {
	return output(n.Command(ctx, cmd...))
}

// Start runs a program in the background until Stop or the lab's end.
func (n *Node) Start(cmd ...string) (*Process, error) {
	return n.lab.startProcess(n.Command(context.Background(), cmd...))
}

// SetAddr gives eth0 an address (CIDR, either family) beside those it has.
func (n *Node) SetAddr(ctx context.Context, cidr string) error {
	return ip(ctx, n.Namespace(), "addr replace "+cidr+" dev eth0")
}

// MAC is the hardware address of a link, such as eth0.
func (n *Node) MAC(link string) (net.HardwareAddr, error) {
	var mac net.HardwareAddr
	err := n.inside(func() error {
		ifc, err := net.InterfaceByName(link)
		if err != nil {
			return fmt.Errorf("%s: link %s: %w", n.name, link, err)
		}
		mac = ifc.HardwareAddr
		return nil
	})
	return mac, err
}

// inside runs fn on a thread in the node's namespace. Sockets that fn opens
// stay in it.
func (n *Node) inside(fn func() error) error {
	return onThreadOfItsOwn(func() error {
		ns, err := netns.GetFromName(n.Namespace())
		if err != nil {
			return fmt.Errorf("namespace %s: %w", n.Namespace(), err)
		}
		defer ns.Close()
		if err := netns.Set(ns); err != nil {
			return fmt.Errorf("enter namespace %s: %w", n.Namespace(), err)
		}
		return fn()
	})
}

// onThreadOfItsOwn runs fn on a thread that ends with it.
func onThreadOfItsOwn(fn func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			// The first thread never ends, and the whole process would seem to be
			// where it is: as long as it is held here, fn gets another one.
			defer runtime.UnlockOSThread()
			done <- onThreadOfItsOwn(fn)
			return
		}
		// Never unlocked: the thread dies with the goroutine rather than
		// going back to the pool in the wrong namespace.
		done <- fn()
	}()
	return <-done
}

// createNamespaces makes namespaces and links in one go. The lock is there
// because two first ip netns add race when they set up /run/netns.
func createNamespaces(ctx context.Context, lines ...string) error {
	return locked(func() error { return ip(ctx, "", lines...) })
}

// netnsEtc is where ip netns exec looks for a namespace's own files of /etc.
func netnsEtc(namespace string) string { return filepath.Join("/etc/netns", namespace) }

// createResolvConf gives the node a resolv.conf of its own, so that no DHCP
// client ever touches the machine's.
func (n *Node) createResolvConf() error {
	dir := netnsEtc(n.Namespace())
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return os.WriteFile(n.resolvConf(), nil, 0o644)
}

func (n *Node) resolvConf() string { return filepath.Join(netnsEtc(n.Namespace()), "resolv.conf") }

// noIPv6 keeps a namespace that only carries frames from talking itself.
func (n *Node) noIPv6() error {
	return n.inside(func() error {
		for _, which := range []string{"all", "default"} {
			file := "/proc/sys/net/ipv6/conf/" + which + "/disable_ipv6"
			err := os.WriteFile(file, []byte("1"), 0o644)
			if err != nil && !errors.Is(err, os.ErrNotExist) {
				return err
			}
		}
		return nil
	})
}

// wholePackets turns off what makes the kernel hand over packets without
// checksum or merged: the user-space datapath needs them as on the wire.
func (n *Node) wholePackets(ctx context.Context, link string) error {
	_, err := n.Exec(ctx, "ethtool", "-K", link, "tx", "off", "gro", "off")
	return err
}

// namespacesWith are the named namespaces that start with the prefix.
func namespacesWith(prefix string) []string {
	entries, err := os.ReadDir("/run/netns")
	if err != nil {
		return nil
	}
	var names []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), prefix) {
			names = append(names, e.Name())
		}
	}
	return names
}

// pidsIn are the processes in the given namespaces, found in one pass.
func pidsIn(namespaces []string) []int {
	inside := map[inode]bool{}
	for _, name := range namespaces {
		if id, ok := inodeOf(filepath.Join("/run/netns", name)); ok {
			inside[id] = true
		}
	}
	files, err := filepath.Glob("/proc/[0-9]*/ns/net")
	if err != nil || len(inside) == 0 {
		return nil
	}
	var pids []int
	for _, file := range files {
		id, ok := inodeOf(file)
		if !ok || !inside[id] {
			continue
		}
		pid, err := strconv.Atoi(strings.Split(file, "/")[2])
		if err == nil && pid != os.Getpid() {
			pids = append(pids, pid)
		}
	}
	return pids
}

// inode tells namespaces apart: their names are only mounts.
type inode struct{ dev, ino uint64 }

func inodeOf(file string) (inode, bool) {
	var st unix.Stat_t
	if err := unix.Stat(file, &st); err != nil {
		return inode{}, false
	}
	return inode{dev: uint64(st.Dev), ino: st.Ino}, true
}
