package lab

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
)

// tools are the programs that the lab runs, with the Debian package of each.
var tools = []struct{ name, pkg string }{
	{"ip", "iproute2"},
	{"ethtool", "ethtool"},
	{"ovsdb-server", "openvswitch-switch"},
	{"ovsdb-tool", "openvswitch-switch"},
	{"ovs-vswitchd", "openvswitch-switch"},
	{"ovs-vsctl", "openvswitch-switch"},
	{"ovs-ofctl", "openvswitch-switch"},
	{"ovs-appctl", "openvswitch-switch"},
	{"ping", "iputils-ping"},
	{"tcpdump", "tcpdump"},
	{"udhcpc", "udhcpc"},
	{"dhclient", "isc-dhcp-client"},
}

// Check says plainly what this process lacks to run a lab: root, or programs.
func Check() error {
	if os.Geteuid() != 0 {
		return errors.New("the lab makes network namespaces and needs root: run it with sudo")
	}
	var names, pkgs []string
	for _, tool := range tools {
		if _, err := exec.LookPath(tool.name); err == nil {
			continue
		}
		names = append(names, tool.name)
		if !slices.Contains(pkgs, tool.pkg) {
			pkgs = append(pkgs, tool.pkg)
		}
	}
	if len(names) == 0 {
		return nil
	}
	return fmt.Errorf("the lab misses %s: run scripts/install-deps.sh, or apt-get install %s",
		strings.Join(names, ", "), strings.Join(pkgs, " "))
}
