package lab

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

//go:embed dhcp.script
var dhcpScript []byte

//go:embed dhclient.conf
var dhclientConf []byte

// Route is a route that a lease carried. An unspecified Via is on-link.
type Route struct {
	Dst netip.Prefix
	Via netip.Addr
}

// Lease is what a DHCP client was given and has configured: address, MTU,
// routes (RFC 3442 before the router option), and the DNS servers in the
// node's resolv.conf.
type Lease struct {
	Addr     netip.Prefix
	Routers  []netip.Addr
	Routes   []Route // those that were installed
	DNS      []netip.Addr
	Server   netip.Addr // server identifier
	MTU      int        // 0 when not given
	Duration time.Duration
	Hostname string
	Domain   string
	// Raw is all that the client told its script: every option by the name
	// that the client has for it.
	Raw map[string]string
}

// DHCP runs udhcpc on eth0 until it has a lease, and configures it: it asks ten
// times for an offer, one second apart, and three times for the one that it takes.
// The client does not stay, so nothing renews the lease. Further options are those
// of udhcpc.
func (n *Node) DHCP(ctx context.Context, options ...string) (Lease, error) {
	cmd, err := n.udhcpc(append([]string{"-n", "-q", "-t", "10", "-T", "1"}, options...))
	if err != nil {
		return Lease{}, err
	}
	run := n.Command(ctx, cmd...)
	run.Env = n.dhcpEnv()
	if _, err := output(run); err != nil {
		return Lease{}, fmt.Errorf("%s: %w", n.name, err)
	}
	return n.Lease()
}

// patience is how long a client waits for an answer before it sends again (RFC
// 2131, section 4.1), in seconds.
var patience = []string{"4", "8", "16", "32"}

// PatientDHCP is DHCP by a client that waits as the standard says, and that begins
// anew when nobody answers for the offer that it takes.
func (n *Node) PatientDHCP(ctx context.Context) (Lease, error) {
	var errs []error
	for _, wait := range patience {
		lease, err := n.DHCP(ctx, "-t", "1", "-T", wait)
		if err == nil || ctx.Err() != nil {
			return lease, err
		}
		errs = append(errs, err)
	}
	return Lease{}, errors.Join(errs...)
}

// StartDHCP starts a udhcpc that stays and renews its lease: SIGUSR1 renews at
// once, SIGUSR2 releases. Its output says "lease of … obtained".
func (n *Node) StartDHCP(options ...string) (*Process, error) {
	cmd, err := n.udhcpc(append([]string{"-t", "10", "-T", "1"}, options...))
	if err != nil {
		return nil, err
	}
	run := n.Command(context.Background(), cmd...)
	run.Env = n.dhcpEnv()
	return n.lab.startProcess(run)
}

func (n *Node) udhcpc(options []string) ([]string, error) {
	script, err := n.clientFile("dhcp.script", dhcpScript, 0o755)
	if err != nil {
		return nil, err
	}
	cmd := []string{"udhcpc", "-f", "-i", "eth0", "-s", script, "-O", "mtu", "-O", "staticroutes"}
	return append(cmd, options...), nil
}

// Dhclient is DHCP with ISC's client.
func (n *Node) Dhclient(ctx context.Context, options ...string) (Lease, error) {
	script, err := n.clientFile("dhcp.script", dhcpScript, 0o755)
	if err != nil {
		return Lease{}, err
	}
	conf, err := n.clientFile("dhclient.conf", dhclientConf, 0o644)
	if err != nil {
		return Lease{}, err
	}
	pidFile := filepath.Join(n.Dir(), "dhclient.pid")
	cmd := []string{"dhclient", "-4", "-1", "-v", "-sf", script, "-cf", conf,
		"-lf", filepath.Join(n.Dir(), "dhclient.leases"), "-pf", pidFile}
	for _, env := range n.dhcpEnv() {
		cmd = append(cmd, "-e", env)
	}
	_, err = n.Exec(ctx, append(append(cmd, options...), "eth0")...)
	// With a lease it goes to the background.
	if err := errors.Join(err, n.endClient(pidFile)); err != nil {
		return Lease{}, fmt.Errorf("%s: %w", n.name, err)
	}
	return n.Lease()
}

// endClient ends what dhclient left in the background. That may not have written
// its pid file yet, but was told to.
func (n *Node) endClient(pidFile string) error {
	var errs []error
	for _, pid := range pidsIn([]string{n.Namespace()}) {
		if cmdline, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); err == nil && strings.Contains(string(cmdline), pidFile) {
			errs = append(errs, endProcess(pid, syscall.SIGKILL))
		}
	}
	return errors.Join(errs...)
}

// clientFile puts a file of the clients into the node's directory.
func (n *Node) clientFile(name string, content []byte, mode os.FileMode) (string, error) {
	file := filepath.Join(n.Dir(), name)
	return file, os.WriteFile(file, content, mode)
}

// dhcpEnv is the whole environment of a client: it ends up in Lease.Raw.
func (n *Node) dhcpEnv() []string {
	return []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LAB_LEASE=" + n.leaseFile(), "LAB_RESOLV=" + n.resolvConf()}
}

func (n *Node) leaseFile() string { return filepath.Join(n.Dir(), "lease") }

// Lease is the one that the node holds: the last that a DHCP client got. The
// error wraps os.ErrNotExist when there is none.
func (n *Node) Lease() (Lease, error) {
	data, err := os.ReadFile(n.leaseFile())
	if err != nil {
		return Lease{}, fmt.Errorf("%s holds no lease: %w", n.name, err)
	}
	lease, err := parseLease(string(data))
	if err != nil {
		return Lease{}, fmt.Errorf("%s: lease: %w", n.name, err)
	}
	return lease, nil
}

func parseLease(text string) (Lease, error) {
	raw := map[string]string{}
	for line := range strings.Lines(text) {
		name, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		if ok && !strings.HasPrefix(name, "LAB_") {
			raw[name] = value
		}
	}
	l := Lease{
		MTU:      atoi(raw["LEASE_MTU"]),
		Duration: time.Duration(atoi(raw["LEASE_SECONDS"])) * time.Second,
		Hostname: raw["LEASE_HOSTNAME"],
		Domain:   raw["LEASE_DOMAIN"],
		Raw:      raw,
	}
	var errs [5]error
	l.Addr, errs[0] = netip.ParsePrefix(raw["LEASE_ADDR"])
	l.Routers, errs[1] = parseAddrs(raw["LEASE_ROUTERS"])
	l.DNS, errs[2] = parseAddrs(raw["LEASE_DNS"])
	l.Routes, errs[3] = parseRoutes(raw["LEASE_ROUTES"])
	if server := raw["LEASE_SERVER"]; server != "" {
		l.Server, errs[4] = netip.ParseAddr(server)
	}
	return l, errors.Join(errs[:]...)
}

func parseAddrs(text string) ([]netip.Addr, error) {
	var list []netip.Addr
	for _, word := range strings.Fields(text) {
		addr, err := netip.ParseAddr(word)
		if err != nil {
			return nil, err
		}
		list = append(list, addr)
	}
	return list, nil
}

// parseRoutes reads "10.9.0.0/16,10.0.0.2 0.0.0.0/0,10.0.0.1".
func parseRoutes(text string) ([]Route, error) {
	var routes []Route
	for _, word := range strings.Fields(text) {
		dst, via, _ := strings.Cut(word, ",")
		prefix, err := netip.ParsePrefix(dst)
		if err != nil {
			return nil, err
		}
		addr, err := netip.ParseAddr(via)
		if err != nil {
			return nil, err
		}
		routes = append(routes, Route{Dst: prefix, Via: addr})
	}
	return routes, nil
}
