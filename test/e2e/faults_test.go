package e2e

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"syscall"
	"testing"
)

// firstLines is among how many lines of a tool's answer the cause must be.
const firstLines = 10

// namedFault is something that goes wrong, and the tool that says so.
type namedFault struct {
	what    string // as docs/operations.md names it; "" for the fault before, asked otherwise
	command string
	says    string // … stands for what is different each time
	cause   func(c *faulty)
	mend    func(c *faulty)
}

// faulty is a cloud in which everything is well but for one fault at a time: web
// on host1 lets in tcp/80, db is on host2, and both have a router that leads outside.
type faulty struct {
	*cloud
	web, db, alone *vm
	net, router    string
	floating       string // address that stands for no port
}

var namedFaults = []namedFault{
	{"a security group lets in too little", "planck trace --from db --to web --proto tcp --dport 8080",
		"dropped on host host1 by security group http of port web: no rule allows tcp/8080 from 10.0.0.… in", nil, nil},
	{"", "planck explain web", "- security group http dropped … to it in the last …: no rule allows them",
		func(c *faulty) { _, _, _ = c.db.Ping(c.Context(), c.web.ip(), 1, "-W", "1") }, nil},
	{"a machine has another address than its port", "planck explain db",
		"- port security dropped … that its machine sent, …: ARP sender is not the port's",
		func(c *faulty) {
			c.ip(c.db.Node, "addr", "add", "10.0.0.99/24", "dev", "eth0")
			_, _, _ = c.db.Ping(c.Context(), "10.0.0.98", 1, "-W", "1", "-I", "10.0.0.99")
		},
		func(c *faulty) { c.ip(c.db.Node, "addr", "del", "10.0.0.99/24", "dev", "eth0") }},
	{"the link of a machine's interface is down", "planck explain web", "- the link of its interface tap… on host host1 is down: nothing comes from the machine, nothing gets there",
		func(c *faulty) { c.ip(c.lab.Host("host1").Node, "link", "set", c.web.Tap(), "down") },
		func(c *faulty) { c.ip(c.lab.Host("host1").Node, "link", "set", c.web.Tap(), "up") }},
	{"a machine is not plugged", "planck explain web", "- no interface with external_ids:iface-id=… is plugged on host host1",
		func(c *faulty) {
			if err := c.web.Unplug(); err != nil {
				c.Fatal(err)
			}
		},
		func(c *faulty) {
			if err := c.web.Plug(c.Context()); err != nil {
				c.Fatal(err)
			}
			c.waitStatus(c.web.id(), "ACTIVE")
		}},
	{"a port is bound to a host that never joined", "planck explain lost", "- binding:host_id is pigeon, and no host of that name has joined",
		func(c *faulty) { c.create("port", c.portBody("lost", c.net, object{"binding:host_id": "pigeon"})) }, nil},
	{"a port is switched off", "planck explain web", "- admin_state_up of the port is false: its packets are dropped",
		func(c *faulty) { c.update("port", c.web.id(), object{"admin_state_up": false}) },
		func(c *faulty) { c.update("port", c.web.id(), object{"admin_state_up": true}) }},
	{"DHCP is off", "planck explain web", "- no DHCP: enable_dhcp of its subnets is false",
		func(c *faulty) { c.update("subnet", c.subnetOf(c.net), object{"enable_dhcp": false}) },
		func(c *faulty) { c.update("subnet", c.subnetOf(c.net), object{"enable_dhcp": true}) }},
	{"a subnet is full", "planck explain subnet small", "- subnet small … is full: all 1 addresses of its allocation pools are taken (1 by network:dhcp): new ports get none there",
		func(c *faulty) {
			id := c.network("small", "", nil)
			c.create("subnet", object{"name": "small", "network_id": id, "cidr": "10.0.9.0/30", "ip_version": 4, "tenant_id": "small"})
		}, nil},
	{"an interface has the wrong MTU", "planck explain web", "- the MTU of its interface tap… is 1200, that of its network 1458: larger packets to the machine are lost",
		func(c *faulty) { c.vsctl("host1", "set", "Interface", c.web.Tap(), "mtu_request=1200") },
		func(c *faulty) { c.vsctl("host1", "set", "Interface", c.web.Tap(), "mtu_request=1458") }},
	{"a router is switched off", "planck explain web", "- admin_state_up of router blue-router … is false: it forwards nothing",
		func(c *faulty) { c.update("router", c.router, object{"admin_state_up": false}) },
		func(c *faulty) { c.update("router", c.router, object{"admin_state_up": true}) }},
	{"no router has the gateway's address", "planck trace --from alone --to 198.51.100.1", "lost: nobody on network … has the address 10.0.5.1: the machine gets no answer to its question for it", nil, nil},
	{"a router's way out does not answer", "planck explain router edge", "- 192.0.2.1, by which router edge … leaves network …, does not answer questions for its MAC",
		func(c *faulty) {
			external := c.create("network", object{
				"name": "beyond", "router:external": true, "provider:network_type": "vlan", "provider:physical_network": "physnet1", "provider:segmentation_id": 150,
			})["id"].(string)
			c.create("subnet", object{"network_id": external, "cidr": "192.0.2.0/24", "ip_version": 4, "enable_dhcp": false})
			edge := c.create("router", object{"name": "edge"})["id"].(string)
			c.setGateway(edge, external, nil)
		}, nil},
	{"a floating IP stands for nothing", "planck explain FLOATING_IP", "- it stands for no port: nobody answers for it", nil, nil},
	{"somebody deleted a flow", "planck diff host1 br-int", "br-int missing: flow in 60(L2Lookup), l2 of port db …",
		func(c *faulty) { c.removeFlow("host1", "table=60,dl_dst="+c.db.mac()) }, nil},
	{"", "planck trace --from web --to db --installed", "dropped on host host1 in L2Lookup: no port of the network has the destination MAC", nil, nil},
	{"a switch is dead", "planck explain db", "- host host2 is away: its br-int is not connected by OpenFlow; it goes on with the flows that it has",
		func(c *faulty) {
			if err := c.lab.Host("host2").KillVswitchd(syscall.SIGKILL); err != nil {
				c.Fatal(err)
			}
		}, nil},
	{"", "planck explain host host2", "- its br-int is not connected by OpenFlow; it goes on with the flows that it has", nil, nil},
}

// Each fault is named in the first lines of the tool that docs/operations.md
// names for it.
func TestToolsNameTheFaultInTheirFirstLines(t *testing.T) {
	t.Parallel()
	faultsAreDocumented(t)
	cloud := newCloud(t, 2, nil, physicalNetwork+"[openflow]\naudit_interval = 3600\n")
	cloud.hostsUp()
	c := &faulty{cloud: cloud, net: cloud.network("blue", "10.0.0.0/24", nil)}
	http := c.group("", "http", object{"protocol": "tcp", "port_range_min": 80, "port_range_max": 80})
	c.web, c.db = c.boot("web", "host1", c.net, object{"security_groups": []any{http}}), c.boot("db", "host2", c.net, c.anyTraffic())
	c.alone = c.boot("alone", "host1", c.network("lonely", "10.0.5.0/24", nil), nil)
	for _, v := range []*vm{c.web, c.db} {
		c.dhcp(v)
	}
	public := c.outside()
	c.router = cloud.router("blue", c.net)
	c.setGateway(c.router, public, nil)
	c.floating = c.create("floatingip", object{"floating_network_id": public})["floating_ip_address"].(string)
	c.comesThrough(c.web.Node, "203.0.113.1")
	c.settled()
	for _, f := range namedFaults {
		c.named(f)
	}
}

// named causes a fault, sees it named, and mends it.
func (c *faulty) named(f namedFault) {
	c.Helper()
	if f.cause != nil {
		f.cause(c)
	}
	want := regexp.MustCompile("^" + strings.ReplaceAll(regexp.QuoteMeta(f.says), "…", ".*"))
	args := strings.Fields(strings.ReplaceAll(f.command, "FLOATING_IP", c.floating))[1:]
	c.eventually(f.what+": "+f.command, func() error {
		out, _ := c.planckError(args...)
		lines := strings.Split(out, "\n")
		for _, line := range lines[:min(len(lines), firstLines)] {
			if want.MatchString(line) {
				return nil
			}
		}
		return fmt.Errorf("it does not say %q first:\n%s", f.says, out)
	})
	if f.mend != nil {
		f.mend(c)
	}
}

// removeFlow deletes flows behind the controller's back.
func (c *faulty) removeFlow(host, match string) {
	c.Helper()
	if out, err := c.lab.Host(host).Ofctl("del-flows", "br-int", match); err != nil {
		c.Fatalf("%v: %s", err, out)
	}
}

// faultsAreDocumented checks the table of docs/operations.md.
func faultsAreDocumented(t *testing.T) {
	t.Helper()
	var table strings.Builder
	table.WriteString("| fault | ask | it says |\n|---|---|---|\n")
	for _, f := range namedFaults {
		fmt.Fprintf(&table, "| %s | `%s` | %s |\n", f.what, f.command, strings.TrimLeft(f.says, "- "))
	}
	doc, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(doc), table.String()) {
		t.Errorf("docs/operations.md shall have this table:\n%s", table.String())
	}
}
