package e2e

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"planck/test/lab"
)

// subnet makes a subnet and returns its id.
func (c *cloud) subnet(networkID, cidr string, attrs object) string {
	c.Helper()
	body := object{"network_id": networkID, "cidr": cidr, "ip_version": 4}
	for k, v := range attrs {
		body[k] = v
	}
	return c.create("subnet", body)["id"].(string)
}

// dhcpServer is the address of a network's DHCP port.
func (c *cloud) dhcpServer(networkID string) string {
	c.Helper()
	_, out := c.call(http.MethodGet, "/v2.0/ports?device_owner=network:dhcp&network_id="+networkID, nil)
	ports := out["ports"].([]any)
	if len(ports) != 1 {
		c.Fatalf("network %s has %d DHCP ports", networkID, len(ports))
	}
	return (&vm{port: ports[0].(object)}).ip()
}

// refresh reads a VM's port again.
func (c *cloud) refresh(v *vm) {
	c.Helper()
	v.port = c.show("port", v.id())
}

func addrs(texts ...string) []netip.Addr {
	var list []netip.Addr
	for _, text := range texts {
		list = append(list, netip.MustParseAddr(text))
	}
	return list
}

func route(dst, via string) lab.Route {
	return lab.Route{Dst: netip.MustParsePrefix(dst), Via: netip.MustParseAddr(via)}
}

func (c *cloud) sameLease(got, want lab.Lease) {
	c.Helper()
	got.Raw = nil
	if diff := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})); diff != "" {
		c.Errorf("lease (-want +got):\n%s", diff)
	}
}

func TestDHCPHandsOutWhatTheAPISays(t *testing.T) {
	t.Parallel()
	c := newCloud(t, 1, nil, "[DEFAULT]\ndhcp_lease_duration = 3600\ndns_domain = cloud.test\n")

	c.also("to udhcpc and to dhclient", func(c *cloud) {
		id := c.network("blue", "", nil)
		c.subnet(id, "10.0.0.0/24", object{
			"dns_nameservers": []any{"10.0.0.53", "192.0.2.53"},
			"host_routes":     []any{object{"destination": "172.16.0.0/16", "nexthop": "10.0.0.9"}},
		})
		for _, v := range []*vm{c.boot("udhcpc", "host1", id, nil), c.boot("dhclient", "host1", id, nil)} {
			run := v.DHCP
			if v.Name() == "dhclient" {
				run = v.Dhclient
			}
			lease, err := run(c.Context())
			if err != nil {
				c.Fatal(err)
			}
			c.sameLease(lease, lab.Lease{
				Addr:    netip.MustParsePrefix(v.ip() + "/24"),
				Routers: addrs("10.0.0.1"),
				Routes:  []lab.Route{route("172.16.0.0/16", "10.0.0.9"), route("169.254.169.254/32", c.dhcpServer(id)), route("0.0.0.0/0", "10.0.0.1")},
				DNS:     addrs("10.0.0.53", "192.0.2.53"),
				Server:  netip.MustParseAddr(c.dhcpServer(id)),
				MTU:     1458, Duration: time.Hour,
				Hostname: "host-" + strings.ReplaceAll(v.ip(), ".", "-"), Domain: "cloud.test",
			})
			c.reaches(v.Node, c.dhcpServer(id))
		}
	})

	c.also("the same addresses, but not the same answers, in two tenants", func(c *cloud) {
		for tenant, dns := range map[string]string{"green": "192.0.2.1", "red": "192.0.2.2"} {
			id := c.network(tenant, "", nil)
			c.subnet(id, "10.0.0.0/24", object{"dns_nameservers": []any{dns}})
			if lease := c.dhcp(c.boot(tenant, "host1", id, nil)); len(lease.DNS) != 1 || lease.DNS[0].String() != dns {
				c.Errorf("%s was given the DNS servers %v, want %s", tenant, lease.DNS, dns)
			}
		}
	})

	c.also("without a gateway no default route", func(c *cloud) {
		id := c.network("island", "", nil)
		c.subnet(id, "10.0.0.0/24", object{"gateway_ip": nil})
		lease := c.dhcp(c.boot("island", "host1", id, nil))
		if len(lease.Routers) != 0 || len(lease.Routes) != 1 || lease.Routes[0] != route("169.254.169.254/32", c.dhcpServer(id)) {
			c.Errorf("was given the routers %v and the routes %v", lease.Routers, lease.Routes)
		}
	})

	c.also("extra_dhcp_opts", func(c *cloud) {
		v := c.boot("pxe", "host1", c.network("pxe", "10.0.0.0/24", nil), object{"extra_dhcp_opts": []any{
			object{"opt_name": "bootfile-name", "opt_value": "pxelinux.0"},
			object{"opt_name": "tftp-server", "opt_value": "192.0.2.9"},
			object{"opt_name": "server-ip-address", "opt_value": "192.0.2.9"},
			object{"opt_name": "mtu", "opt_value": "1400"},
		}})
		lease, err := v.DHCP(c.Context(), "-O", "bootfile", "-O", "tftp")
		if err != nil {
			c.Fatal(err)
		}
		if lease.MTU != 1400 {
			c.Errorf("MTU %d, want 1400", lease.MTU)
		}
		for name, want := range map[string]string{"bootfile": "pxelinux.0", "boot_file": "pxelinux.0", "tftp": "192.0.2.9", "siaddr": "192.0.2.9"} {
			if lease.Raw[name] != want {
				c.Errorf("%s is %q, want %q", name, lease.Raw[name], want)
			}
		}
	})

	c.also("nothing where DHCP is off", func(c *cloud) {
		id := c.network("static", "", nil)
		subnet := c.subnet(id, "10.0.0.0/24", object{"enable_dhcp": false})
		v := c.boot("static", "host1", id, nil)
		if lease, err := v.DHCP(c.Context(), "-t", "2"); err == nil {
			c.Errorf("was given %v", lease)
		}
		c.update("subnet", subnet, object{"enable_dhcp": true})
		c.dhcp(v)
	})

	c.also("each of a port's addresses", func(c *cloud) {
		id := c.network("many", "", nil)
		one, two := c.subnet(id, "10.0.0.0/24", nil), c.subnet(id, "10.1.0.0/24", object{"gateway_ip": nil})
		addresses := func(last int) object {
			return object{"fixed_ips": []any{
				object{"subnet_id": one, "ip_address": fmt.Sprintf("10.0.0.1%d", last)},
				object{"subnet_id": one, "ip_address": fmt.Sprintf("10.0.0.2%d", last)},
				object{"subnet_id": two, "ip_address": fmt.Sprintf("10.1.0.1%d", last)},
			}}
		}
		a, b := c.boot("many1", "host1", id, addresses(1)), c.boot("many2", "host1", id, addresses(2))
		for i, v := range []*vm{a, b} {
			lease, err := v.DHCP(c.Context(), "-r", fmt.Sprintf("10.1.0.1%d", i+1))
			if err != nil || lease.Addr.String() != fmt.Sprintf("10.1.0.1%d/24", i+1) {
				c.Errorf("asked for 10.1.0.1%d, was given %v: %v", i+1, lease.Addr, err)
			}
			lease = c.dhcp(v)
			if diff := cmp.Diff([]lab.Route{route("10.1.0.0/24", "0.0.0.0"), route("169.254.169.254/32", c.dhcpServer(id)), route("0.0.0.0/0", "10.0.0.1")}, lease.Routes, cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})); diff != "" {
				c.Errorf("routes (-want +got):\n%s", diff)
			}
			for _, more := range []string{"10.0.0.2%d/24", "10.1.0.1%d/24"} {
				if err := v.SetAddr(c.Context(), fmt.Sprintf(more, i+1)); err != nil {
					c.Fatal(err)
				}
			}
		}
		for _, dst := range []string{"10.0.0.12", "10.0.0.22", "10.1.0.12"} {
			c.reaches(a.Node, dst)
		}
	})
}

func TestDHCPClientsKeepAndLoseTheirAddresses(t *testing.T) {
	t.Parallel()
	c := newCloud(t, 1, nil, "")

	c.also("renewed by unicast, released", func(c *cloud) {
		id := c.network("blue", "10.0.0.0/24", nil)
		v, server := c.boot("stays", "host1", id, nil), c.dhcpServer(id)
		client := c.dhcpClient(v)
		requests := c.capture(v.Node, "eth0", "udp port 67 and src host "+v.ip())
		c.signal(client, syscall.SIGUSR1)
		c.leased(v, client, 2)
		if text := c.captured(requests); !strings.Contains(text, v.ip()+".68 > "+server+".67") {
			c.Errorf("no unicast request to %s:\n%s", server, text)
		}
		c.signal(client, syscall.SIGUSR2)
		c.eventually("the release is taken note of", func() error {
			if c.metric("planck_packet_ins_total", `outcome="released"`) != 1 {
				return errors.New("it is not counted")
			}
			return nil
		})
		if lease, err := v.Lease(); !errors.Is(err, os.ErrNotExist) {
			c.Errorf("holds the lease %v: %v", lease, err)
		}
	})

	c.also("an address that nobody else uses (udhcpc -a)", func(c *cloud) {
		v := c.boot("careful", "host1", c.network("careful", "10.0.0.0/24", nil), nil)
		if lease, err := v.DHCP(c.Context(), "-a"); err != nil || lease.Addr.Addr().String() != v.ip() {
			c.Errorf("lease %v: %v", lease.Addr, err)
		}
		if n := c.metric("planck_packet_ins_total", `outcome="declined"`); n != 0 {
			c.Errorf("%v leases were declined", n)
		}
	})

	c.also("a port's address changes: a client that renews", func(c *cloud) {
		v := c.boot("renews", "host1", c.network("renews", "10.0.0.0/24", nil), nil)
		client := c.dhcpClient(v)
		c.moveAddress(v, "10.0.0.77")
		c.signal(client, syscall.SIGUSR1)
		c.eventually("it has the new address", func() error {
			if lease, err := v.Lease(); err != nil || lease.Addr.Addr().String() != v.ip() {
				return fmt.Errorf("lease %v: %v: %s", lease.Addr, err, client.Output())
			}
			return nil
		})
		if !strings.Contains(client.Output(), "received DHCP NAK") {
			c.Errorf("no DHCPNAK: %s", client.Output())
		}
	})

	c.also("a port's address changes: a client that boots again", func(c *cloud) {
		v := c.boot("reboots", "host1", c.network("reboots", "10.0.0.0/24", nil), nil)
		if lease, err := v.Dhclient(c.Context()); err != nil || lease.Addr.Addr().String() != v.ip() {
			c.Fatalf("lease %v: %v", lease.Addr, err)
		}
		c.moveAddress(v, "10.0.0.77")
		answers := c.capture(v.Node, "eth0", "udp src port 67")
		if lease, err := v.Dhclient(c.Context()); err != nil || lease.Addr.Addr().String() != v.ip() {
			c.Errorf("lease %v, want %s: %v", lease.Addr, v.ip(), err)
		}
		if text := c.captured(answers); !strings.Contains(text, "NACK") {
			c.Errorf("no DHCPNAK:\n%s", text)
		}
	})
}

// dhcpClient starts a udhcpc that stays, and waits until it has the port's address.
func (c *cloud) dhcpClient(v *vm) *lab.Process {
	c.Helper()
	client, err := v.StartDHCP()
	if err != nil {
		c.Fatal(err)
	}
	c.leased(v, client, 1)
	return client
}

// leased waits until a DHCP client was given the port's address for the nth time.
func (c *cloud) leased(v *vm, client *lab.Process, n int) {
	c.Helper()
	c.eventually(fmt.Sprintf("%s has its lease", v.Name()), func() error {
		lease, err := v.Lease()
		if strings.Count(client.Output(), "obtained from") < n || err != nil || lease.Addr.Addr().String() != v.ip() {
			return fmt.Errorf("lease %v: %v: %s", lease.Addr, err, client.Output())
		}
		return nil
	})
}

func (c *cloud) signal(p *lab.Process, sig syscall.Signal) {
	c.Helper()
	if err := p.Signal(sig); err != nil {
		c.Fatal(err)
	}
}

// moveAddress gives a port another address, and waits until the switch knows.
func (c *cloud) moveAddress(v *vm, to string) {
	c.Helper()
	c.update("port", v.id(), object{"fixed_ips": []any{object{"ip_address": to}}})
	c.refresh(v)
	c.eventually("the flows have the new address", func() error {
		if !strings.Contains(c.flows("host1", "br-int"), "nw_src="+to) {
			return errors.New("they have not")
		}
		return nil
	})
}

var answeredBy = regexp.MustCompile(`\[([0-9A-Fa-f:]{17})\]`)

// asks asks by ARP, once a second, and returns the MAC that answers, "" for none.
func (c *cloud) asks(v *vm, ip string, seconds int) string {
	c.Helper()
	out, err := v.Exec(c.Context(), "arping", "-c", "1", "-w", strconv.Itoa(seconds), "-I", "eth0", ip)
	if m := answeredBy.FindStringSubmatch(out); m != nil {
		return strings.ToLower(m[1])
	}
	if err == nil {
		c.Fatalf("arping of %s: %s", ip, out)
	}
	return ""
}

// resolves checks that a VM's ARP question is answered with another's MAC.
func (c *cloud) resolves(v, target *vm) {
	c.Helper()
	if got := c.asks(v, target.ip(), 5); got != target.mac() {
		c.Errorf("%s asked for %s and was told %q, want %s", v.Name(), target.ip(), got, target.mac())
	}
}

// arpPacketIns is how many ARP questions the controller was asked since it started.
func (c *cloud) arpPacketIns() float64 { return c.metric("planck_packet_ins_total", `feature="arp"`) }

// reconfigure restarts the controller with another configuration, and waits
// until all bridges are under control.
func (c *cloud) reconfigure(config string) {
	c.Helper()
	if err := os.WriteFile(c.config, []byte(config), 0o600); err != nil {
		c.Fatal(err)
	}
	c.kill(syscall.SIGTERM)
	c.start()
	c.allLive()
}

// allLive waits until every bridge of the lab was compared as a whole.
func (c *cloud) allLive() {
	c.Helper()
	c.eventually("all bridges are live", func() error {
		status, out := c.call(http.MethodGet, "/planck/v1/hosts", nil)
		if status != http.StatusOK {
			return fmt.Errorf("hosts: %d %v", status, out)
		}
		live := 0
		for _, h := range out["hosts"].([]any) {
			for _, b := range h.(object)["bridges"].([]any) {
				if b.(object)["connected"] == true && b.(object)["synced"] == true {
					live++
				}
			}
		}
		if want := 3 * len(c.lab.Hosts()); live != want {
			return fmt.Errorf("%d of %d are", live, want)
		}
		return nil
	})
}

func TestARPIsAnsweredByTheControllerOrTheSwitchAsConfigured(t *testing.T) {
	t.Parallel()
	const mode = "[openflow]\narp_responder = "
	c := newCloud(t, 1, nil, mode+"packet-in\n")
	id := c.network("blue", "10.0.0.0/24", nil)
	a, b, d := c.boot("a", "host1", id, nil), c.boot("b", "host1", id, nil), c.boot("d", "host1", id, nil)
	c.dhcp(a)
	asked := func(what string, times float64) {
		t.Helper()
		if got := c.arpPacketIns(); got != times {
			t.Errorf("%s: the controller was asked %v times, want %v", what, got, times)
		}
	}

	c.resolves(a, b)
	c.resolves(a, b)
	asked("packet-in: each question", 2)

	c.reconfigure(mode + "cached\n")
	c.resolves(a, b)
	c.resolves(a, b)
	asked("cached: the first question only", 1)
	c.kill(syscall.SIGKILL)
	c.resolves(a, b)
	if got := c.asks(a, d.ip(), 1); got != "" {
		t.Errorf("without a controller %s told %s, which nobody asked for before", got, d.ip())
	}
	c.start()
	c.allLive()
	c.resolves(a, d)
	c.resolves(a, b)
	asked("cached: the answers outlive the controller", 1)

	c.reconfigure(mode + "proactive\n")
	c.resolves(a, b)
	asked("proactive: none", 0)
	c.kill(syscall.SIGKILL)
	c.resolves(a, b)
	c.resolves(a, d)
}

func TestARPQuestionsGoWhereTheyBelong(t *testing.T) {
	t.Parallel()
	c := newCloud(t, 2, nil, "")

	c.also("a port is never answered about its own address", func(c *cloud) {
		id := c.network("dad", "10.0.0.0/24", nil)
		a, b := c.boot("dad1", "host1", id, nil), c.boot("dad2", "host2", id, nil)
		c.dhcp(a)
		if out, err := a.Exec(c.Context(), "arping", "-D", "-c", "1", "-w", "1", "-I", "eth0", a.ip()); err != nil {
			c.Errorf("somebody has %s: %s", a.ip(), out)
		}
		if out, err := a.Exec(c.Context(), "arping", "-D", "-c", "1", "-w", "1", "-I", "eth0", b.ip()); err == nil {
			c.Errorf("nobody has %s: %s", b.ip(), out)
		}
	})

	c.also("an allowed address pair is asked itself", func(c *cloud) {
		id := c.network("vrrp", "10.0.0.0/24", nil)
		pair := object{"allowed_address_pairs": []any{object{"ip_address": "10.0.0.100"}}}
		master, backup := c.boot("master", "host1", id, pair), c.boot("backup", "host2", id, pair)
		client := c.boot("client", "host1", id, nil)
		for _, v := range []*vm{master, backup, client} {
			c.dhcp(v)
		}
		for _, v := range []*vm{master, backup} {
			if err := v.SetAddr(c.Context(), "10.0.0.100/24"); err != nil {
				c.Fatal(err)
			}
			if got := c.asks(client, "10.0.0.100", 5); got != v.mac() {
				c.Errorf("10.0.0.100 is at %q, want %s of %s", got, v.mac(), v.Name())
			}
			if _, err := v.Exec(c.Context(), "ip", "addr", "del", "10.0.0.100/24", "dev", "eth0"); err != nil {
				c.Fatal(err)
			}
		}
	})

	c.also("on a closed network nobody hears of an unknown address", func(c *cloud) {
		id := c.network("closed", "10.0.0.0/24", nil)
		a, b := c.boot("closed1", "host1", id, nil), c.boot("closed2", "host1", id, nil)
		c.dhcp(a)
		seen := c.watch(b)
		if got := c.asks(a, "10.0.0.200", 1); got != "" {
			c.Errorf("%s has 10.0.0.200", got)
		}
		c.send(a, ethernet(c.T, "02:00:00:00:00:99", a.mac(), etherIPv4, udp4(a.ip(), "10.0.0.200", 9, 9, nil)))
		c.mark(a)
		if text := seen(); strings.Contains(text, "10.0.0.200") {
			c.Errorf("the neighbour saw it:\n%s", text)
		}
	})

	c.also("a port without port security hears of unknown addresses", func(c *cloud) {
		id := c.network("open", "10.0.0.0/24", nil)
		a, closed := c.boot("open1", "host1", id, nil), c.boot("open2", "host1", id, nil)
		here, far := c.boot("open3", "host1", id, object{"port_security_enabled": false}), c.boot("open4", "host2", id, object{"port_security_enabled": false})
		c.dhcp(a)
		c.reaches(a.Node, c.dhcpServer(id))
		watched := map[*vm]func() string{closed: c.watch(closed), here: c.watch(here), far: c.watch(far)}
		c.asks(a, "10.0.0.200", 1)
		c.send(a, ethernet(c.T, "02:00:00:00:00:99", a.mac(), etherIPv4, udp4(a.ip(), "10.0.0.200", 9, 9, nil)))
		c.mark(a)
		for v, seen := range watched {
			text := seen()
			if !strings.Contains(text, "who-has 10.0.0.200") {
				c.Errorf("%s did not see the ARP question, which floods:\n%s", v.Name(), text)
			}
			if got := strings.Contains(text, "10.0.0.200.9"); got != (v != closed) {
				c.Errorf("%s saw the unicast to an unknown MAC: %v:\n%s", v.Name(), got, text)
			}
		}
	})
}

func TestFramesStayInTheirNetwork(t *testing.T) {
	t.Parallel()
	c := newCloud(t, 2, nil, "")
	blue, red := c.network("blue", "10.0.0.0/24", nil), c.network("red", "10.0.0.0/24", nil)
	a, near, far := c.boot("blue1", "host1", blue, nil), c.boot("blue2", "host1", blue, nil), c.boot("blue3", "host2", blue, nil)
	x, y := c.boot("red1", "host1", red, nil), c.boot("red2", "host2", red, nil)
	c.reachesIPv6(a, far)
	c.reachesIPv6(x, y)

	watched := map[*vm]func() string{near: c.watch(near), far: c.watch(far)}
	redSeen := c.watch(y)
	c.send(a, ethernet(t, everybody, a.mac(), etherIPv4, udp4(a.ip(), "255.255.255.255", 9, 1111, []byte("broadcast"))))
	c.send(a, ethernet(t, "01:00:5e:01:02:03", a.mac(), etherIPv4, udp4(a.ip(), "239.1.2.3", 9, 2222, []byte("multicast"))))
	// Tagged frames: a VM must not choose another network's local VLAN.
	for vlan := range byte(5) {
		tagged := append([]byte{0, vlan, 0x08, 0}, udp4(a.ip(), "255.255.255.255", 9, 3333, nil)...)
		c.send(a, ethernet(t, everybody, a.mac(), etherVLAN, tagged))
	}
	c.send(a, ethernet(t, everybody, a.mac(), etherIPv6, neighborAdvertisement(t, linkLocal(t, a.mac()), linkLocal(t, near.mac()), a.mac())))
	c.send(a, ethernet(t, everybody, a.mac(), etherIPv6, neighborAdvertisement(t, linkLocal(t, a.mac()), linkLocal(t, a.mac()), a.mac())))
	c.mark(a)
	c.mark(x)
	for v, seen := range watched {
		text := seen()
		for what, want := range map[string]bool{
			"255.255.255.255.1111": true, "239.1.2.3.2222": true, "255.255.255.255.3333": false,
			"tgt is " + linkLocal(t, a.mac()): true, "tgt is " + linkLocal(t, near.mac()): false,
		} {
			if got := strings.Contains(text, what); got != want {
				t.Errorf("%s saw %q: %v, want %v:\n%s", v.Name(), what, got, want, text)
			}
		}
	}
	if text := redSeen(); strings.Contains(text, a.mac()) {
		t.Errorf("the other network saw %s:\n%s", a.mac(), text)
	}
}

// reachesIPv6 pings a VM's link-local address, once its link is ready for that.
func (c *cloud) reachesIPv6(from, to *vm) {
	c.Helper()
	c.pingable(to) // no rule of the default group is about link-local addresses
	c.eventually(from.Name()+" reaches "+to.Name()+" by IPv6", func() error {
		_, received, err := from.Ping(c.Context(), linkLocal(c.T, to.mac())+"%eth0", 1, "-W", "1")
		if received == 0 {
			return fmt.Errorf("no answer: %v", err)
		}
		return nil
	})
}
