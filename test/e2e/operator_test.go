package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
)

// planck runs one of the operator's tools and returns what it printed.
func (c *cloud) planck(args ...string) string {
	c.Helper()
	out, err := c.planckError(args...)
	if err != nil {
		c.Fatalf("planck %s: %v: %s", strings.Join(args, " "), err, out)
	}
	return out
}

func (c *cloud) planckError(args ...string) (string, error) {
	cmd := exec.CommandContext(c.Context(), controllerBinary, args...)
	// The race detector waits a second at the end of a program otherwise.
	cmd.Env = append(os.Environ(), "OS_URL="+c.api, "GORACE=atexit_sleep_ms=0")
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func TestOperatorSeesHostsAndFlows(t *testing.T) {
	t.Parallel()
	c := newCloud(t, 1, nil, "")
	c.hostsUp()
	c.settled()
	id := c.network("blue", "10.0.0.0/24", nil)
	a, b := c.boot("web", "host1", id, nil), c.boot("db", "host1", id, nil)
	c.dhcp(a)
	c.dhcp(b)
	c.reaches(a.Node, b.ip())
	c.allLive()

	hosts := c.planck("hosts")
	for _, want := range []string{
		`(?m)^HOST +OVSDB +TUNNEL IP +VIFS +GATEWAYS +BRIDGE +OPENFLOW +FLOWS +REVISION +PROBLEM$`,
		`(?m)^host1 +connected +` + regexp.QuoteMeta(c.lab.Host("host1").LocalIP()) + ` +2 `,
		`(?m)^ +br-int +live +\d\d+ +\d+`,
		`(?m)^ +br-tun +live +\d\d+ +\d+`,
		`(?m)^ +br-ex +live +\d+ +\d+`,
	} {
		if !regexp.MustCompile(want).MatchString(hosts) {
			t.Errorf("planck hosts has no line %s:\n%s", want, hosts)
		}
	}
	var list []object
	if err := json.Unmarshal([]byte(c.planck("hosts", "--json")), &list); err != nil || len(list) != 1 || list[0]["name"] != "host1" {
		t.Errorf("planck hosts --json: %v: %v", err, list)
	}

	// A switch counts packets with a delay.
	counted := regexp.MustCompile(`(?m)priority=100 in_port=\d+,vlan_tci=\S+\n.*\n +n_packets=[1-9]\d*, classify of port web`)
	flows := ""
	c.eventually("packets from web are counted", func() error {
		if flows = c.planck("flows", "host1"); !counted.MatchString(flows) {
			return errors.New(flows)
		}
		return nil
	})
	for _, want := range []string{
		"br-int\n", "br-tun\n", "br-ex\n",
		"0(Classify)", "10(PortSecurity)", "12(Services)", "14(ArpNd)", "60(L2Lookup)", "90(Output)", "250(Dropped)", "253(Canary)",
		"port-security of port web " + a.id(), "l2 of port db " + b.id(), "dhcp of network blue-net " + id, "base of host host1",
	} {
		if !strings.Contains(flows, want) {
			t.Errorf("planck flows host1 has no %q:\n%s", want, flows)
		}
	}
	if only := c.planck("flows", "host1", "br-int", "--port", a.id()); !strings.Contains(only, a.id()) || strings.Contains(only, b.id()) || strings.Contains(only, "br-tun") {
		t.Errorf("planck flows --port has other flows:\n%s", only)
	}
	for _, row := range []struct{ args, want, not string }{
		{"--port web", "net=blue-net, src=web, vlan=1", "of port db"},
		{"--port db --feature l2 -o wide", "l2 of port db", "port-security"},
		{"--network blue-net", "host host1\nbr-int\n", "of host host1"},
		{"host1 --drops", "drop=\"source MAC is not the port's\"", "goto_table:60"},
		{"--group default", "security-groups of security_group default", "of port web"},
	} {
		out := c.planck(append([]string{"flows"}, strings.Fields(row.args)...)...)
		if !strings.Contains(out, row.want) || strings.Contains(out, row.not) {
			t.Errorf("planck flows %s shall have %q, and not %q:\n%s", row.args, row.want, row.not, out)
		}
	}
	cutOff := filepath.Join(t.TempDir(), "dump")
	text, err := c.lab.Host("host1").Ofctl("dump-flows", "br-int")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(cutOff, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if out := c.planck("flows", "host1", "br-int", "--file", cutOff, "--port", "web"); !strings.Contains(out, "port-security of port web "+a.id()) {
		t.Errorf("planck flows --file:\n%s", out)
	}
	dump := filepath.Join(t.TempDir(), "flows")
	if err := os.WriteFile(dump, []byte(c.planck("flows", "host1", "br-int", "-o", "ovs-ofctl")), 0o600); err != nil {
		t.Fatal(err)
	}
	if diff, err := c.lab.Host("host1").Ofctl("diff-flows", "br-int", dump); err != nil {
		t.Errorf("-o ovs-ofctl is not what the switch has: %v\n%s", err, diff)
	}

	if out := c.planck("explain", "web"); !strings.Contains(out, "port web "+a.id()+" is ACTIVE") || !strings.Contains(out, "nothing is wrong") {
		t.Errorf("planck explain web:\n%s", out)
	}
	c.eventually("the switches are as the model wants them", func() error {
		out, err := c.planckError("diff", "host1")
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
	c.eventually("somebody else's flow is a difference", func() error {
		if _, err := c.lab.Host("host1").Ofctl("add-flow", "br-int", "table=60,priority=7,tcp,tp_dst=99 actions=drop"); err != nil {
			return err
		}
		out, err := c.planckError("diff", "host1", "br-int") // an audit may have been quicker
		if err == nil || !strings.Contains(out, "br-int unexpected: flow in 60(L2Lookup), not ours") {
			return fmt.Errorf("planck diff: %v: %s", err, out)
		}
		return nil
	})
	c.update("port", b.id(), object{"binding:host_id": "pigeon"})
	if out := c.planck("explain", b.id()); !strings.Contains(out, "- binding:host_id is pigeon, and no host of that name has joined") {
		t.Errorf("planck explain of a port that is bound to nowhere:\n%s", out)
	}

	for _, wrong := range [][]string{{"flows", "nowhere"}, {"flows", "host1", "br-pigeon"}, {"flows", "host1", "--port", "pigeon"}, {"flows"}, {"flows", "--network", "pigeon"}, {"flows", "--feature", "pigeon"},
		{"flows", "host1", "--file", cutOff}, {"flows", "host1", "br-int", "--file", "/nowhere"}, {"flows", "host1", "br-int", "--file", "/proc/self/cmdline", "--why"}} {
		if out, err := c.planckError(wrong...); err == nil || out == "" {
			t.Errorf("planck %v: %v: %q", wrong, err, out)
		}
	}
	if status, _ := c.call(http.MethodGet, "/planck/v1/hosts", nil, "X-Project-Id", "blue"); status != http.StatusForbidden {
		t.Errorf("a tenant that asks for the hosts gets %d", status)
	}
}

// quantumBinary is the tenant's command line, built once beside the controller.
var quantumBinary = sync.OnceValues(func() (string, error) {
	file := filepath.Join(filepath.Dir(controllerBinary), "quantum")
	out, err := exec.Command("go", "build", "-o", file, "planck/cmd/quantum").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return file, nil
})

// sh runs a command line of the guide in a shell, with quantum in the PATH.
func (c *cloud) sh(line string) string {
	c.Helper()
	file, err := quantumBinary()
	if err != nil {
		c.Fatal(err)
	}
	cmd := exec.CommandContext(c.Context(), "sh", "-c", line)
	cmd.Env = append(os.Environ(), "OS_URL="+c.api, "PATH="+filepath.Dir(file)+":"+os.Getenv("PATH"))
	out, err := cmd.CombinedOutput()
	if err != nil {
		c.Fatalf("%s: %v: %s", line, err, out)
	}
	return strings.TrimSpace(string(out))
}

func TestGuidesCommandLinesReachRealMachines(t *testing.T) {
	t.Parallel()
	c := newCloud(t, 1, nil, "[OVS]\nnetwork_vlan_ranges = physnet1:100:199\n")
	c.sh("quantum net-create net1")
	c.sh("quantum subnet-create net1 10.0.0.0/24 --dns_nameservers list=true 8.8.8.7 8.8.8.8")
	vms := map[string]*vm{}
	for _, name := range []string{"vm1", "vm2"} {
		c.sh("quantum port-create net1 --name " + name + " --device_id=" + name)
		id := c.sh("quantum port-list -f value -c id -- --device_id=" + name)
		vms[name] = c.plug(name, "host1", c.show("port", id))
		c.waitStatus(id, "ACTIVE")
	}
	if lease := c.dhcp(vms["vm1"]); len(lease.DNS) != 2 {
		t.Errorf("DNS servers %v", lease.DNS)
	}
	c.dhcp(vms["vm2"])
	c.reaches(vms["vm1"].Node, vms["vm2"].ip())

	c.sh("quantum port-update " + vms["vm2"].id() + " --admin_state_up=False")
	c.eventually("the port is off", func() error {
		if got := c.sh("quantum port-show -F status -f value " + vms["vm2"].id()); !strings.Contains(got, "DOWN") {
			return errors.New(got)
		}
		if _, received, _ := vms["vm1"].Ping(t.Context(), vms["vm2"].ip(), 1); received != 0 {
			return errors.New("it is reached")
		}
		return nil
	})
	c.sh("quantum port-update vm2 --admin_state_up=True")
	c.waitStatus(vms["vm2"].id(), "ACTIVE")
	c.reaches(vms["vm1"].Node, vms["vm2"].ip())

	server := c.phys("server", 101, "192.168.57.250/24")
	c.sh("quantum net-create provider-net --shared --provider:network_type vlan --provider:physical_network physnet1 --provider:segmentation_id 101")
	c.sh("quantum subnet-create provider-net 192.168.57.0/24 --gateway 192.168.57.1")
	c.sh("quantum port-create provider-net --fixed-ip ip_address=192.168.57.12 --name vm3")
	vm3 := c.plug("vm3", "host1", c.show("port", c.sh("quantum port-list -f value -c id -- --name=vm3")))
	c.waitStatus(vm3.id(), "ACTIVE")
	if c.dhcp(vm3); vm3.ip() != "192.168.57.12" {
		t.Errorf("vm3 has %s", vm3.ip())
	}
	c.reaches(vm3.Node, "192.168.57.250")
	c.pingable(vm3)
	c.reaches(server, vm3.ip())

	c.sh("for p in vm1 vm2 vm3; do quantum port-delete $p || exit; done")
	c.sh("quantum net-delete net1 && quantum net-delete provider-net")
	for _, list := range []string{"net-list", "subnet-list", "port-list"} {
		if out := c.sh("quantum " + list); out != "" {
			t.Errorf("quantum %s: %s", list, out)
		}
	}
}
