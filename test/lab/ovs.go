package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	vswitchd = "ovs-vswitchd"
	ovsdb    = "ovsdb-server"

	// ovsTimeout bounds each call of an Open vSwitch tool, in seconds.
	ovsTimeout = 30
	// exitTimeout is how long a signalled daemon may take to end.
	exitTimeout = 30 * time.Second
)

// Switch is an Open vSwitch of its own, with database and daemons in a node's
// namespace.
type Switch struct {
	node *Node
	// links are ip(8) commands that put back what dies with the daemon:
	// addresses and state of the bridges' LOCAL ports.
	links []string
}

// Vsctl runs ovs-vsctl on the switch's database.
func (s *Switch) Vsctl(args ...string) (string, error) {
	return s.tool("ovs-vsctl", []string{fmt.Sprintf("--timeout=%d", ovsTimeout)}, args)
}

// Ofctl runs ovs-ofctl -O OpenFlow13; a bridge is given by its name.
func (s *Switch) Ofctl(args ...string) (string, error) {
	return s.tool("ovs-ofctl", []string{"-O", "OpenFlow13"}, args)
}

// Appctl runs ovs-appctl on ovs-vswitchd.
func (s *Switch) Appctl(args ...string) (string, error) {
	return s.tool("ovs-appctl", []string{fmt.Sprintf("--timeout=%d", ovsTimeout)}, args)
}

// tool needs no namespace: databases and daemons are reached by unix sockets.
func (s *Switch) tool(name string, options, args []string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*ovsTimeout*time.Second)
	defer cancel()
	cmd := withEnv(command(ctx, name, append(options, args...)...), s.node.Env()...)
	out, err := output(cmd)
	if err != nil {
		return out, fmt.Errorf("%s: %w", s.node.name, err)
	}
	return out, nil
}

// createEmptyDatabase makes the one database that all switches start from.
func createEmptyDatabase(ctx context.Context, file string) error {
	return run(ctx, "ovsdb-tool", "create", file)
}

// create starts both daemons; config are ovs-vsctl commands that are in the
// database before ovs-vswitchd reads it, so that it sets up everything at once.
func (s *Switch) create(ctx context.Context, config []string) error {
	if err := copyFile(s.node.lab.emptyDatabase(), s.file("conf.db")); err != nil {
		return err
	}
	if err := s.startOvsdb(ctx); err != nil {
		return err
	}
	args := append([]string{"--no-wait", "--", "init", "--"}, config...)
	if _, err := s.Vsctl(args...); err != nil {
		return err
	}
	return s.startVswitchd(ctx)
}

func (s *Switch) file(name string) string { return filepath.Join(s.node.Dir(), name) }

// StartOvsdb starts ovsdb-server again.
func (s *Switch) StartOvsdb() error { return s.startOvsdb(context.Background()) }

func (s *Switch) startOvsdb(ctx context.Context) error {
	return s.daemon(ctx, ovsdb, s.file("conf.db"),
		"--remote=punix:"+s.file("db.sock"),
		"--remote=db:Open_vSwitch,Open_vSwitch,manager_options",
		// As the start script of Open vSwitch has it: what ovs-vsctl set-ssl says.
		"--private-key=db:Open_vSwitch,SSL,private_key",
		"--certificate=db:Open_vSwitch,SSL,certificate",
		"--bootstrap-ca-cert=db:Open_vSwitch,SSL,ca_cert")
}

// StartVswitchd starts ovs-vswitchd again and puts back the addresses that the
// host holds on its bridges, as an operator's network set-up does.
func (s *Switch) StartVswitchd() error { return s.startVswitchd(context.Background()) }

func (s *Switch) startVswitchd(ctx context.Context) error {
	if err := s.daemon(ctx, vswitchd, "unix:"+s.file("db.sock")); err != nil {
		return err
	}
	if len(s.links) == 0 {
		return nil
	}
	return ip(ctx, s.node.Namespace(), s.links...)
}

func (s *Switch) daemon(ctx context.Context, name string, args ...string) error {
	args = append([]string{name, "--no-chdir", "--detach", "-vconsole:off",
		"--pidfile=" + s.file(name+".pid"), "--log-file=" + s.file(name+".log")}, args...)
	if _, err := s.node.Exec(ctx, args...); err != nil {
		return fmt.Errorf("%w (log: %s)", err, s.file(name+".log"))
	}
	return nil
}

// KillVswitchd sends a signal to ovs-vswitchd and, unless it is one that only
// stops or continues it, waits for its end.
func (s *Switch) KillVswitchd(sig syscall.Signal) error { return s.kill(vswitchd, sig) }

// KillOvsdb is KillVswitchd for ovsdb-server.
func (s *Switch) KillOvsdb(sig syscall.Signal) error { return s.kill(ovsdb, sig) }

// VswitchdPID is the process id of ovs-vswitchd, 0 when it is not running.
func (s *Switch) VswitchdPID() int { return daemonPID(s.file(vswitchd + ".pid")) }

// OvsdbPID is the process id of ovsdb-server, 0 when it is not running.
func (s *Switch) OvsdbPID() int { return daemonPID(s.file(ovsdb + ".pid")) }

func (s *Switch) kill(name string, sig syscall.Signal) error {
	pid := daemonPID(s.file(name + ".pid"))
	if pid == 0 {
		return fmt.Errorf("%s: %s is not running", s.node.name, name)
	}
	switch sig {
	case syscall.SIGSTOP, syscall.SIGCONT, syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2:
		return syscall.Kill(pid, sig)
	}
	return endProcess(pid, sig)
}

// daemonPID reads a pid file and makes sure that the process is the one that
// wrote it: its command line names the file.
func daemonPID(pidFile string) int {
	data, err := os.ReadFile(pidFile)
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil {
		return 0
	}
	cmdline, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil || !strings.Contains(string(cmdline), pidFile) {
		return 0
	}
	return pid
}

// endProcess signals a process and waits until it has ended.
func endProcess(pid int, sig syscall.Signal) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("process %d: %w", pid, err)
	}
	defer unix.Close(fd)
	if err := unix.PidfdSendSignal(fd, sig, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("process %d: %w", pid, err)
	}
	poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	deadline := time.Now().Add(exitTimeout)
	for {
		n, err := unix.Poll(poll, int(max(0, time.Until(deadline).Milliseconds())))
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err == nil && n == 0 {
			return fmt.Errorf("process %d is still there %s after %s", pid, exitTimeout, sig)
		}
		return err
	}
}

func copyFile(from, to string) error {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.Create(to)
	if err != nil {
		return err
	}
	_, err = io.Copy(dst, src)
	return errors.Join(err, dst.Close())
}
