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
	"time"
)

//go:embed dhcp6.script
var dhcp6Script []byte

// Lease6 is what a DHCPv6 client was given and has configured.
type Lease6 struct {
	Addr   netip.Addr // zero when only options were asked for
	DNS    []netip.Addr
	Search string
	Reason string // why dhclient called its script, such as BOUND6
	// Raw is all that the client told its script.
	Raw map[string]string
}

// Dhclient6 runs ISC's client for IPv6 on eth0 until it has a lease, and
// configures it. The client does not stay. Further options are those of
// dhclient: -S asks for options only, -r releases.
func (n *Node) Dhclient6(ctx context.Context, options ...string) (Lease6, error) {
	cmd, pidFile, err := n.dhclient6(ctx, append([]string{"-1"}, options...))
	if err != nil {
		return Lease6{}, err
	}
	_, err = n.Exec(ctx, cmd...)
	// With a lease it goes to the background.
	if err := errors.Join(err, n.endClient(pidFile)); err != nil {
		return Lease6{}, fmt.Errorf("%s: %w", n.name, err)
	}
	return n.Lease6()
}

// StartDhclient6 starts a client that stays and renews its lease. Its output
// names the messages that it sends and gets.
func (n *Node) StartDhclient6(options ...string) (*Process, error) {
	cmd, _, err := n.dhclient6(context.Background(), append([]string{"-d"}, options...))
	if err != nil {
		return nil, err
	}
	return n.Start(cmd...)
}

// linkLocalTime is how long a link may take to have an address of its own: the
// kernel looks for a duplicate for one to two seconds.
const linkLocalTime = 20 * time.Second

// awaitLinkLocal waits for a link-local address that is known to be free. The
// client binds to it when it starts, and asks its script to wait only where it is
// to get an address.
func (n *Node) awaitLinkLocal(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, linkLocalTime)
	defer cancel()
	for {
		out, err := n.Exec(ctx, "ip", "-6", "-o", "addr", "show", "dev", "eth0", "scope", "link", "-tentative")
		if err == nil && strings.Contains(out, " fe80:") {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("%s has no link-local address that it may use: %w", n.name, ctx.Err()), err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (n *Node) dhclient6(ctx context.Context, options []string) (cmd []string, pidFile string, err error) {
	if err := n.awaitLinkLocal(ctx); err != nil {
		return nil, "", err
	}
	script, err := n.clientFile("dhcp6.script", dhcp6Script, 0o755)
	if err != nil {
		return nil, "", err
	}
	conf, err := n.clientFile("dhclient6.conf", []byte("request dhcp6.name-servers, dhcp6.domain-search;\n"), 0o644)
	if err != nil {
		return nil, "", err
	}
	pidFile = filepath.Join(n.Dir(), "dhclient6.pid")
	cmd = []string{
		"dhclient", "-6", "-v", "-sf", script, "-cf", conf, "-lf", filepath.Join(n.Dir(), "dhclient6.leases"), "-pf", pidFile,
		"-e", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "-e", "LAB_LEASE=" + n.leaseFile6(),
	}
	return append(append(cmd, options...), "eth0"), pidFile, nil
}

func (n *Node) leaseFile6() string { return filepath.Join(n.Dir(), "lease6") }

// Lease6 is the one that the node holds. The error wraps os.ErrNotExist when
// there is none.
func (n *Node) Lease6() (Lease6, error) {
	data, err := os.ReadFile(n.leaseFile6())
	if err != nil {
		return Lease6{}, fmt.Errorf("%s holds no DHCPv6 lease: %w", n.name, err)
	}
	raw := map[string]string{}
	for line := range strings.Lines(string(data)) {
		if name, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "="); ok {
			raw[name] = value
		}
	}
	l := Lease6{Search: raw["new_dhcp6_domain_search"], Reason: raw["reason"], Raw: raw}
	if a := raw["new_ip6_address"]; a != "" {
		if l.Addr, err = netip.ParseAddr(a); err != nil {
			return Lease6{}, fmt.Errorf("%s: DHCPv6 lease: %w", n.name, err)
		}
	}
	if l.DNS, err = parseAddrs(raw["new_dhcp6_name_servers"]); err != nil {
		return Lease6{}, fmt.Errorf("%s: DHCPv6 lease: %w", n.name, err)
	}
	return l, nil
}
