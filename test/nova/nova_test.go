//go:build nova

package nova

import (
	"encoding/json"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"planck/test/lab"
)

// TestNova is one test, since it takes minutes until everything runs. Its parts
// use the same two networks, and leave no server behind.
func TestNova(t *testing.T) {
	c := newCloud(t, 2)
	c.prepare()
	c.stories()
}

func (c *cloud) stories() {
	for _, story := range []struct {
		what string
		tell func(c *cloud)
	}{
		{"a server starts when its interface is wired", (*cloud).startsWhenWired},
		{"a server takes and leaves a port that is there", (*cloud).takesAPort},
		{"a server has an interface on each of two networks", (*cloud).joinsTwoNetworks},
		{"Nova hears when interfaces and ports go", (*cloud).losesItsPort},
		{"an event waits until Nova is back, also over a crash", (*cloud).waitsForNova},
		{"a server moves while it runs, and while it is down", (*cloud).moves},
		{"interfaces, addresses and groups come and go", (*cloud).attaches},
		{"a floating IP is shown with the server", (*cloud).floats},
		{"guests are told their own metadata, by who has Nova's secret", (*cloud).asksForMetadata},
		{"networks are made when none is given, or there are none", (*cloud).choosesNetworks},
	} {
		c.whole.Run(story.what, func(t *testing.T) {
			c.T = t
			defer func() { c.T = c.whole }()
			story.tell(c)
		})
	}
}

// prepare makes a flavor, an image, and networks behind a router.
func (c *cloud) prepare() {
	c.Helper()
	c.runAs(c.operator, "flavor create --ram 64 --disk 1 --vcpus 1 small")
	image := c.file("image")
	if err := os.WriteFile(image, []byte("no guest boots this"), 0o600); err != nil {
		c.Fatal(err)
	}
	c.runAs(c.operator, "image create --disk-format raw --container-format bare --public --file "+image+" image")
	c.run("network create blue")
	c.run("subnet create --network blue --subnet-range 10.0.0.0/24 blue")
	c.run("network create green")
	c.run("subnet create --network green --subnet-range 10.0.1.0/24 green")
	c.runAs(c.operator, "network create --external --provider-network-type flat --provider-physical-network physnet1 public")
	c.runAs(c.operator, "subnet create --network public --subnet-range 203.0.113.0/24 --gateway 203.0.113.1 "+
		"--allocation-pool start=203.0.113.100,end=203.0.113.200 --no-dhcp public")
	c.run("router create edge")
	c.run("router set --external-gateway public edge")
	c.run("router add subnet edge blue")
}

// guest is a server whose one port is plugged.
type guest struct {
	*lab.VM
	id, host string
	port     object
}

func (g *guest) portID() string { return g.port["id"].(string) }

func (g *guest) ip() string { return fixedIP(g.port) }

func fixedIP(port object) string {
	return port["fixed_ips"].([]any)[0].(object)["ip_address"].(string)
}

// order asks for a server and returns its id.
func (c *cloud) order(name, options string) string {
	c.Helper()
	return c.show("server create --flavor small --image image " + options + " " + name)["id"].(string)
}

// boundPorts waits until Nova has given a server so many ports on a host.
func (c *cloud) boundPorts(server string, want int) []object {
	c.Helper()
	var ports []object
	c.eventually(fmt.Sprintf("server %s has %d ports on a host", server, want), func() error {
		ports = c.portsOf(server)
		loose := func(p object) bool { return p["binding:host_id"] == "" }
		if len(ports) != want || slices.ContainsFunc(ports, loose) {
			return fmt.Errorf("it has %v; %v", ports, c.server(server)["fault"])
		}
		return nil
	})
	return ports
}

// waits is until a server's hypervisor waits for the interface of a port.
func (c *cloud) waits(port object) {
	c.Helper()
	c.logged("nova-compute-"+port["binding:host_id"].(string), "the guest waits for port "+port["id"].(string))
}

// hears waits until a server's hypervisor was told of an event about a port.
func (c *cloud) hears(host, event, port string) {
	c.Helper()
	c.logged("nova-compute-"+host, "Received event "+event+"-"+port)
}

// boot asks for a server, plugs its port when the hypervisor gets there, and
// waits until it runs.
func (c *cloud) boot(name, options string) *guest {
	c.Helper()
	g := &guest{id: c.order(name, options)}
	g.port = c.boundPorts(g.id, 1)[0]
	g.host = g.port["binding:host_id"].(string)
	c.waits(g.port)
	g.VM = c.plug(g.host, name, g.port)
	c.is(g.id, "ACTIVE")
	return g
}

// remove deletes a server and waits until it is gone; os-vif unplugs it.
func (c *cloud) remove(g *guest) {
	c.Helper()
	c.run("server delete --wait " + g.id)
	if err := c.lab.Remove(c.Context(), g.Name()); err != nil {
		c.Error(err)
	}
}

func (c *cloud) startsWhenWired() {
	id := c.order("web", "--network blue")
	port := c.boundPorts(id, 1)[0]
	host := port["binding:host_id"].(string)
	c.waits(port)
	details := object{"port_filter": true, "ovs_hybrid_plug": false, "datapath_type": "netdev", "bridge_name": "br-int",
		"connectivity": "l2", "bound_drivers": object{"0": "ovs"}}
	if port["binding:vif_type"] != "ovs" || !reflect.DeepEqual(port["binding:vif_details"], details) {
		c.Errorf("the port is bound by %v, %v", port["binding:vif_type"], port["binding:vif_details"])
	}
	if port["device_owner"] != "compute:nova" || port["tenant_id"] != c.demo.ProjectID || port["status"] != "DOWN" {
		c.Errorf("the port is %v", port)
	}
	if s := c.server(id); s["status"] != "BUILD" {
		c.Errorf("the server is %v before its interface is plugged", s["status"])
	}
	vm := c.plug(host, "web", port)
	c.is(id, "ACTIVE")
	c.has(port["id"].(string), "status", "ACTIVE")
	c.hears(host, "network-vif-plugged", port["id"].(string))
	if got := c.addresses(id); !reflect.DeepEqual(got, object{"blue": []any{fixedIP(port)}}) {
		c.Errorf("the server has the addresses %v, its port %s", got, fixedIP(port))
	}
	if lease, err := vm.DHCP(c.Context()); err != nil || lease.Addr.Addr().String() != fixedIP(port) {
		c.Errorf("DHCP: %v, %v", lease, err)
	}
	c.remove(&guest{VM: vm, id: id, port: port})
	c.gone(port["id"].(string))
}

// addresses are those that openstack server show prints.
func (c *cloud) addresses(server string) object {
	c.Helper()
	a, _ := c.show("server show " + server)["addresses"].(object)
	return a
}

func (c *cloud) gone(port string) {
	c.Helper()
	c.eventually("port "+port+" is gone", func() error {
		if p := c.port(port); p != nil {
			return fmt.Errorf("it is %v", p)
		}
		return nil
	})
}

func (c *cloud) takesAPort() {
	mine := c.show("port create --network blue --fixed-ip ip-address=10.0.0.50 mine")["id"].(string)
	g := c.boot("keeper", "--port mine")
	if g.portID() != mine || g.ip() != "10.0.0.50" {
		c.Errorf("the server has port %v", g.port)
	}
	c.remove(g)
	released := object{"device_id": "", "device_owner": "", "binding:host_id": "", "binding:vif_type": "unbound", "status": "DOWN"}
	for attribute, value := range released {
		c.has(mine, attribute, value)
	}
	c.run("port delete mine")
}

func (c *cloud) joinsTwoNetworks() {
	id := c.order("both", "--network blue --network green")
	var guests []*guest
	want := object{}
	for i, port := range c.boundPorts(id, 2) {
		c.waits(port)
		if status := c.server(id)["status"]; status != "BUILD" {
			c.Errorf("the server is %v with %d interfaces", status, i)
		}
		g := &guest{id: id, port: port, host: port["binding:host_id"].(string)}
		g.VM = c.plug(g.host, fmt.Sprint("both-", i), port)
		c.has(g.portID(), "status", "ACTIVE")
		_, n := c.get(c.settings.NetworkPort, "/v2.0/networks/"+port["network_id"].(string))
		want[n["network"].(object)["name"].(string)] = []any{g.ip()}
		guests = append(guests, g)
	}
	c.is(id, "ACTIVE")
	if got := c.addresses(id); len(want) != 2 || !reflect.DeepEqual(got, want) {
		c.Errorf("the server has the addresses %v, its ports %v", got, want)
	}
	for _, g := range guests {
		if _, err := g.DHCP(c.Context()); err != nil {
			c.Error(err)
		}
	}
	c.run("server delete --wait both")
	for _, g := range guests {
		c.gone(g.portID())
		if err := c.lab.Remove(c.Context(), g.Name()); err != nil {
			c.Error(err)
		}
	}
}

func (c *cloud) losesItsPort() {
	g := c.boot("loser", "--network blue")
	if err := g.Unplug(); err != nil {
		c.Fatal(err)
	}
	c.hears(g.host, "network-vif-unplugged", g.portID())
	c.has(g.portID(), "status", "DOWN")
	if err := g.Plug(c.Context()); err != nil {
		c.Fatal(err)
	}
	c.has(g.portID(), "status", "ACTIVE")

	c.run("port delete " + g.portID())
	c.hears(g.host, "network-vif-deleted", g.portID())
	c.eventually("the server has no address", func() error {
		if n := c.countAddresses(g.id); len(n) != 0 {
			return fmt.Errorf("it has %v", n)
		}
		return nil
	})
	c.remove(g)
}

// waitsForNova lets Nova's API and then the controller die while a guest waits
// for what it shall be told.
func (c *cloud) waitsForNova() {
	g := &guest{id: c.order("late", "--network blue")}
	g.port = c.boundPorts(g.id, 1)[0]
	g.host = g.port["binding:host_id"].(string)
	c.waits(g.port)
	c.nova.ends("nova-api")
	g.VM = c.plug(g.host, "late", g.port)
	c.has(g.portID(), "status", "ACTIVE")
	c.restart()
	c.startAPI()
	c.answers(c.settings.ComputePort, "/")
	c.is(g.id, "ACTIVE")
	c.hears(g.host, "network-vif-plugged", g.portID())
	c.remove(g)
}

func (c *cloud) attaches() {
	c.run("security group create open")
	g := c.boot("crowded", "--network blue")

	extra := c.show("port create --network green extra")
	c.run("server add port crowded extra")
	vm := c.plug(g.host, "extra", c.port(extra["id"].(string)))
	c.has(extra["id"].(string), "status", "ACTIVE")
	c.hears(g.host, "network-vif-plugged", extra["id"].(string))
	c.run("server add network crowded green")
	c.run("server add fixed ip crowded blue")
	c.eventually("the server has two addresses on each network", func() error {
		if n := c.countAddresses(g.id); n["blue"] != 2 || n["green"] != 2 {
			return fmt.Errorf("it has %v", n)
		}
		return nil
	})

	c.run("server add security group crowded open")
	if groups := c.port(g.portID())["security_groups"].([]any); len(groups) != 2 {
		c.Errorf("the port is in the groups %v", groups)
	}
	if names := c.groupsOf(g.id); !slices.Equal(names, []string{"default", "open"}) {
		c.Errorf("the server is shown in the groups %v", names)
	}
	c.run("server remove security group crowded open")
	if groups := c.port(g.portID())["security_groups"].([]any); len(groups) != 1 {
		c.Errorf("the port is in the groups %v", groups)
	}

	c.run("server remove port crowded extra")
	c.has(extra["id"].(string), "device_id", "")
	c.run("server remove network crowded green")
	c.eventually("the server has left the network", func() error {
		if n := c.countAddresses(g.id); n["green"] != 0 {
			return fmt.Errorf("it has %v", n)
		}
		return nil
	})
	if err := c.lab.Remove(c.Context(), vm.Name()); err != nil {
		c.Error(err)
	}
	c.remove(g)
	c.run("port delete extra")
	c.run("security group delete open")
}

// groupsOf are the names of the security groups that openstack server show prints.
func (c *cloud) groupsOf(server string) []string {
	c.Helper()
	var names []string
	groups, _ := c.show("server show " + server)["security_groups"].([]any)
	for _, g := range groups {
		names = append(names, g.(object)["name"].(string))
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// countAddresses is how many addresses Nova shows of each network.
func (c *cloud) countAddresses(server string) map[string]int {
	c.Helper()
	n := map[string]int{}
	networks, _ := c.server(server)["addresses"].(object)
	for name, list := range networks {
		n[name] = len(list.([]any))
	}
	return n
}

func (c *cloud) floats() {
	g := c.boot("public", "--network blue")
	address := c.show("floating ip create public")["floating_ip_address"].(string)
	c.run("server add floating ip public " + address)
	c.hears(g.host, "network-changed", g.portID())
	c.eventually("the server has the floating IP", func() error {
		if n := c.countAddresses(g.id); n["blue"] != 2 {
			return fmt.Errorf("it has %v", n)
		}
		return nil
	})
	if got := c.addresses(g.id); !reflect.DeepEqual(got, object{"blue": []any{g.ip(), address}}) {
		c.Errorf("the server has the addresses %v", got)
	}
	c.run("security group create ping")
	c.run("security group rule create --protocol icmp ping")
	c.run("server add security group public ping")
	if _, err := g.DHCP(c.Context()); err != nil {
		c.Fatal(err)
	}
	c.eventually("the floating IP answers", func() error {
		if _, received, err := c.lab.Ext().Ping(c.Context(), address, 1, "-W", "2"); received == 0 {
			return fmt.Errorf("it does not, %v", err)
		}
		return nil
	})
	c.run("server remove floating ip public " + address)
	c.eventually("the server has lost the floating IP", func() error {
		if n := c.countAddresses(g.id); n["blue"] != 1 {
			return fmt.Errorf("it has %v", n)
		}
		return nil
	})
	c.run("floating ip delete " + address)
	c.remove(g)
	c.run("security group delete ping")
}

func (c *cloud) asksForMetadata() {
	first, second := c.boot("first", "--network blue"), c.boot("second", "--network green --property color=red")
	for _, g := range []*guest{first, second} {
		if _, err := g.DHCP(c.Context()); err != nil {
			c.Fatal(err)
		}
		var told struct {
			UUID, Name string
			Meta       map[string]string
		}
		body := c.toldMetadata(g)
		if err := json.Unmarshal([]byte(body), &told); err != nil || told.UUID != g.id || told.Name != g.Name() {
			c.Errorf("%s, %s, was told: %s", g.Name(), g.id, body)
		}
		if color := told.Meta["color"]; (color == "red") != (g == second) {
			c.Errorf("%s was told the color %q", g.Name(), color)
		}
		if status, body := c.metadata(g, "/latest/meta-data/local-ipv4"); body != g.ip() {
			c.Errorf("%s was told the address %s %q", g.Name(), status, body)
		}
	}
	if status, body := c.metadata(first, "/latest/meta-data/nothing"); status != "404" {
		c.Errorf("what there is not: %s %s", status, body)
	}
	c.refusesMetadata(first)
	c.remove(first)
	c.remove(second)
}

// refusesMetadata gives the controller another secret than Nova has, for a while.
func (c *cloud) refusesMetadata(g *guest) {
	c.Helper()
	for _, answer := range []struct{ secret, status string }{{"another one", "403"}, {secret, "200"}} {
		c.settings.PlanckSecret = answer.secret
		c.write("planck.conf")
		c.restart()
		c.eventually("the metadata service answers "+answer.status, func() error {
			if status, body := c.metadata(g, "/openstack/latest/meta_data.json"); status != answer.status {
				return fmt.Errorf("it says %s %s", status, body)
			}
			return nil
		})
	}
}

// toldMetadata asks for it as cloud-init does, again when Nova is too busy.
func (c *cloud) toldMetadata(g *guest) (told string) {
	c.Helper()
	c.eventually("metadata for "+g.Name(), func() error {
		status, body := c.metadata(g, "/openstack/latest/meta_data.json")
		if told = body; status != "200" {
			return fmt.Errorf("it says %s %s", status, body)
		}
		return nil
	})
	return told
}

// metadata asks for it as a guest; it returns the status and the body, or none
// and the reason.
func (c *cloud) metadata(g *guest, path string) (status, body string) {
	c.Helper()
	out, err := g.Exec(c.Context(), "curl", "--no-progress-meter", "--max-time", "100",
		"--write-out", "\n%{http_code}", "http://169.254.169.254"+path)
	if err != nil {
		return "none", err.Error()
	}
	at := strings.LastIndex(out, "\n")
	return out[at+1:], out[:at]
}

// choosesNetworks has servers of a project without networks: one gets those that
// are made of the cloud's defaults, one has none.
func (c *cloud) choosesNetworks() {
	const order = "--os-compute-api-version 2.37 server create --flavor small --image image --nic "
	fresh := c.keystone.Account(c, "fresh", "member", "reader")
	_, err := c.try(fresh, order+"auto lost")
	if err == nil || !strings.Contains(err.Error(), "Unable to automatically allocate a network for project "+fresh.ProjectID) {
		c.Errorf("without defaults: %v", err)
	}
	c.runAs(c.operator, "network set --default public")
	c.runAs(c.operator, "subnet pool create --default --share --pool-prefix 10.200.0.0/16 --default-prefix-length 24 pool")

	g := &guest{id: c.showAs(fresh, order+"auto automatic")["id"].(string)}
	g.port = c.boundPorts(g.id, 1)[0]
	g.host = g.port["binding:host_id"].(string)
	c.waits(g.port)
	g.VM = c.plug(g.host, "automatic", g.port)
	c.is(g.id, "ACTIVE")
	if got := c.countAddresses(g.id); !reflect.DeepEqual(got, map[string]int{"auto_allocated_network": 1}) {
		c.Errorf("the server has the addresses %v", got)
	}
	if _, err := g.DHCP(c.Context()); err != nil {
		c.Error(err)
	}

	alone := c.showAs(fresh, order+"none alone")["id"].(string)
	c.is(alone, "ACTIVE")
	if ports := c.portsOf(alone); len(ports) != 0 {
		c.Errorf("the server has ports: %v", ports)
	}
	c.runAs(fresh, "server delete --wait automatic alone")
	c.gone(g.portID())
	if err := c.lab.Remove(c.Context(), g.Name()); err != nil {
		c.Error(err)
	}
}

func (c *cloud) moves() {
	g := c.boot("mover", "--network blue")
	c.away(g, "server migrate --live-migration")
	c.bindingsOf(g, g.host+" ACTIVE")

	was := g.host
	c.runAs(c.operator, "server migrate "+g.id)
	c.is(g.id, "VERIFY_RESIZE")
	c.bindingsOf(g, other(was)+" ACTIVE")
	c.runAs(c.operator, "server migrate confirm "+g.id)
	c.is(g.id, "ACTIVE")
	if host := c.server(g.id)["OS-EXT-SRV-ATTR:host"]; host != other(was) {
		c.Errorf("the server is on %v", host)
	}
	c.remove(g)
}

func other(host string) string {
	if host == "host1" {
		return "host2"
	}
	return "host1"
}

// away moves a server that runs: its interface at the destination is there, and
// wired, before the guest is.
func (c *cloud) away(g *guest, command string) {
	c.Helper()
	source, destination := g.host, other(g.host)
	c.runAs(c.operator, "--os-compute-api-version 2.30 "+command+" --host "+destination+" "+g.id)
	c.bindingsOf(g, destination+" INACTIVE", source+" ACTIVE")
	c.logged("nova-compute-"+source, "the guest moves with port "+g.portID())
	if host := c.port(g.portID())["binding:host_id"]; host != source {
		c.Errorf("the port is on %v before the guest is", host)
	}
	moved := c.plug(destination, g.Name()+"-there", g.port)
	c.eventually("the server has moved", func() error {
		if s := c.server(g.id); s["OS-EXT-SRV-ATTR:host"] != destination || s["status"] != "ACTIVE" {
			return fmt.Errorf("it is %v on %v", s["status"], s["OS-EXT-SRV-ATTR:host"])
		}
		return nil
	})
	c.has(g.portID(), "status", "ACTIVE")
	if err := c.lab.Remove(c.Context(), g.Name()); err != nil {
		c.Error(err)
	}
	g.VM, g.host = moved, destination
	if _, err := g.DHCP(c.Context()); err != nil {
		c.Error(err)
	}
}

// bindingsOf waits until a guest's port is bound to these hosts and no others.
func (c *cloud) bindingsOf(g *guest, want ...string) {
	c.Helper()
	slices.Sort(want)
	c.eventually(fmt.Sprintf("the port is bound to %v", want), func() error {
		_, o := c.get(c.settings.NetworkPort, "/v2.0/ports/"+g.portID()+"/bindings")
		var got []string
		for _, b := range o["bindings"].([]any) {
			got = append(got, fmt.Sprint(b.(object)["host"], " ", b.(object)["status"]))
		}
		if slices.Sort(got); !slices.Equal(got, want) {
			return fmt.Errorf("it is to %v", got)
		}
		return nil
	})
}
