package e2e

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"planck/test/lab"
)

// tcp4 is a TCP segment without data in an IPv4 packet.
func tcp4(src, dst string, from, to uint16, flags byte) []byte {
	ip := []byte{0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6, 0, 0}
	ip = append(append(ip, netip.MustParseAddr(src).AsSlice()...), netip.MustParseAddr(dst).AsSlice()...)
	binary.BigEndian.PutUint16(ip[10:], internetChecksum(ip))
	tcp := binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, from), to)
	tcp = append(tcp, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, flags, 0x20, 0, 0, 0, 0, 0)
	pseudo := append(append([]byte{}, ip[12:20]...), 0, 6, 0, 20)
	binary.BigEndian.PutUint16(tcp[16:], internetChecksum(append(pseudo, tcp...)))
	return append(ip, tcp...)
}

const tcpSYN, tcpACK = 0x02, 0x10

func TestForgedAnswersAreDroppedAndConnectionsUnderWayAreJudgedAsNew(t *testing.T) {
	t.Parallel()
	c := newCloud(t, 1, nil, "")
	id := c.network("blue", "10.0.0.0/24", nil)
	a := c.boot("a", "host1", id, groups(c.group("blue", "client")))
	free := c.boot("free", "host1", id, object{"port_security_enabled": false})
	b := c.boot("b", "host1", id, groups(c.group("blue", "server", object{"protocol": "tcp", "port_range_min": 80, "port_range_max": 80})))
	for _, v := range []*vm{a, free, b} {
		c.dhcp(v)
	}
	// One is held back where it leaves, the other one only where it comes in.
	for _, from := range []*vm{a, free} {
		seen := c.watch(b)
		for _, flags := range []byte{tcpSYN | tcpACK, tcpACK} {
			for _, port := range []uint16{80, 81} {
				c.send(from, ethernet(t, b.mac(), from.mac(), etherIPv4, tcp4(from.ip(), b.ip(), 40000+uint16(flags), port, flags)))
			}
		}
		c.mark(from)
		text := seen()
		if !strings.Contains(text, fmt.Sprintf("%s.%d > %s.80: Flags [.]", from.ip(), 40000+tcpACK, b.ip())) {
			t.Errorf("a segment of a connection under way, which a rule allows, did not arrive:\n%s", text)
		}
		for _, wrong := range []string{fmt.Sprintf("%s.%d >", from.ip(), 40000+tcpSYN|tcpACK), b.ip() + ".81: "} {
			if strings.Contains(text, wrong) {
				t.Errorf("%q arrived:\n%s", wrong, text)
			}
		}
	}

	c.eventually("planck flows --why counts them", func() error {
		out := c.planck("flows", "host1", "--port", b.id(), "--why")
		for _, want := range []string{"server: ingress IPv4 tcp 80 ", "dropped in IngressCommit: no security group of the receiver allows it", "dropped in IngressRules: conntrack can't make sense of it"} {
			if !regexp.MustCompile(`(?m)^[1-9]\d* +this port +` + want).MatchString(out) {
				return fmt.Errorf("nothing of %q:\n%s", want, out)
			}
		}
		return nil
	})
}

// Errors pass as part of the connection that they are about, from whichever end,
// where nothing else of ICMP does.
func TestErrorsOfEitherEndPassWithTheirConnection(t *testing.T) {
	t.Parallel()
	c := newCloud(t, 2, nil, "")
	id := c.network("blue", "10.0.0.0/24", nil)
	c.subnet6(id, "fd00::/64", nil)
	dns := func(direction, ethertype string) object {
		return object{"direction": direction, "ethertype": ethertype, "protocol": "udp", "port_range_min": 53, "port_range_max": 53}
	}
	client, server := c.group("blue", "client"), c.group("blue", "server", dns("ingress", "IPv4"), dns("ingress", "IPv6"))
	for _, group := range []string{client, server} {
		c.noEgress(group)
	}
	c.rule(client, dns("egress", "IPv4"))
	c.rule(client, dns("egress", "IPv6"))
	a, b := c.boot("a", "host1", id, groups(client)), c.boot("b", "host2", id, groups(server))
	for _, v := range []*vm{a, b} {
		c.dhcp(v)
		c.add6(v, c.address(v, 6))
	}
	// Nobody listens at either end: each packet, asking or answering, leads to an error.
	speak := func(from, to *vm, fromPort, toPort uint16) {
		c.send(from, ethernet(t, to.mac(), from.mac(), etherIPv4, udp4(c.address(from, 4), c.address(to, 4), fromPort, toPort, []byte("word"))))
		c.send(from, ethernet(t, to.mac(), from.mac(), etherIPv6, udp6(c.address(from, 6), c.address(to, 6), fromPort, toPort, []byte("word"))))
	}
	const clientPort, unreachable = 40000, "icmp[icmptype] == icmp-unreach or (icmp6 and ip6[40] == 1)"
	atA, atB := c.capture(a.Node, "eth0", "("+unreachable+") and ether dst "+a.mac()), c.capture(b.Node, "eth0", "("+unreachable+") and ether dst "+b.mac())
	about := func(capture *lab.Capture, of *vm, port int) (families int) {
		for _, version := range []int{4, 6} {
			if strings.Contains(capture.Text(), fmt.Sprintf("%s udp port %d", c.address(of, version), port)) {
				families++
			}
		}
		return families
	}
	c.eventually("errors about questions and answers come", func() error {
		speak(a, b, clientPort, 53)
		speak(b, a, 53, clientPort)
		if questions, answers := about(atA, b, 53), about(atB, a, clientPort); questions != 2 || answers != 2 {
			return fmt.Errorf("in %d families the client hears of its questions, in %d the server of its answers", questions, answers)
		}
		return nil
	})
	for _, version := range []int{4, 6} {
		c.cutOff(a.Node, c.address(b, version))
		c.cutOff(b.Node, c.address(a, version))
	}
}

func TestConnectionsOutliveTheSwitchAndAMoveWhereRulesAllowThem(t *testing.T) {
	t.Parallel()
	c := newCloud(t, 3, nil, "")
	id := c.network("blue", "10.0.0.0/24", nil)
	client := c.group("blue", "client")
	server := c.group("blue", "server", object{"protocol": "tcp", "port_range_min": 5201, "port_range_max": 5201})
	a, b := c.boot("a", "host1", id, groups(client)), c.boot("b", "host2", id, groups(server))
	c.dhcp(a)
	c.dhcp(b)
	c.noEgress(server)
	port := object{"protocol": "tcp", "port_range_min": conversationPort, "port_range_max": conversationPort}
	rule := c.rule(server, port)
	ended := c.converse(a.Node, b.Node, b.ip())
	c.delete("security-group-rule", rule)
	ended.isCut("its rule went")
	ended.talks()
	stop := c.stream(a, b)
	defer stop()
	refused := func(after string) {
		c.Helper()
		heard := ended.server.heard.Load()
		c.shut(a, "tcp", b.ip(), 5202)
		c.shut(b, "tcp", a.ip(), 5201)
		c.cutOff(a.Node, b.ip())
		c.cutOff(b.Node, a.ip())
		if now := ended.server.heard.Load(); now != heard {
			c.Errorf("after %s a connection that no rule allows goes on", after)
		}
	}
	refused("its rule went")
	flowing := func(what string) {
		c.eventually("the stream goes on after "+what, func() error {
			if got := rate(b); got < streaming {
				return fmt.Errorf("%d bytes in half a second", got)
			}
			return nil
		})
	}
	host := c.lab.Host("host1")
	if err := host.KillVswitchd(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := host.StartVswitchd(); err != nil {
		t.Fatal(err)
	}
	flowing("a restart of the sender's switch")
	refused("a restart of the sender's switch")
	host = c.lab.Host("host2")
	if err := host.KillVswitchd(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := host.StartVswitchd(); err != nil {
		t.Fatal(err)
	}
	flowing("a restart of the receiver's switch")
	refused("a restart of the receiver's switch")
	if err := b.Migrate(t.Context(), "host3"); err != nil {
		t.Fatal(err)
	}
	c.update("port", b.id(), object{"binding:host_id": "host3"})
	c.waitStatus(b.id(), "ACTIVE")
	flowing("the move of the receiver")
	refused("the move of the receiver")
}

// A tenant who deletes a rule and adds it again finds everything as it was, also
// what went on sending meanwhile.
func TestRuleThatComesBackLetsPassWhatWentOnSending(t *testing.T) {
	t.Parallel()
	c := newCloud(t, 2, nil, "")
	id := c.network("blue", "10.0.0.0/24", nil)
	tcp := object{"protocol": "tcp", "port_range_min": conversationPort, "port_range_max": conversationPort}
	udp, icmp := object{"protocol": "udp", "port_range_min": 53, "port_range_max": 53}, object{"protocol": "icmp"}
	server := c.group("blue", "server")
	a, b := c.boot("a", "host1", id, groups(c.group("blue", "client"))), c.boot("b", "host2", id, groups(server))
	c.dhcp(a)
	c.dhcp(b)
	var rules []string
	add := func() {
		for _, attrs := range []object{tcp, udp, icmp} {
			rules = append(rules, c.rule(server, attrs))
		}
	}
	add()
	stream := c.converse(a.Node, b.Node, b.ip())
	stream.talks()
	datagrams := c.capture(b.Node, "eth0", "udp dst port 53")
	if _, err := a.Start("bash", "-c", "exec 3<>/dev/udp/"+b.ip()+"/53; while :; do echo x >&3; sleep 0.02; done 2>/dev/null"); err != nil {
		t.Fatal(err)
	}
	pings, err := a.PingStream(c.within(settle), b.ip())
	if err != nil {
		t.Fatal(err)
	}
	arrived := func() []int {
		return []int{int(stream.server.heard.Load()), strings.Count(datagrams.Text(), b.ip()+".53:"), pings.Received()}
	}
	kinds := []string{"TCP", "UDP", "ICMP"}
	for range 2 {
		for _, r := range rules {
			c.delete("security-group-rule", r)
		}
		rules = nil
		var before []int
		c.eventually("nothing arrives", func() error {
			before = arrived()
			time.Sleep(patience)
			if now := arrived(); !slices.Equal(now, before) {
				return fmt.Errorf("of %v arrived %v, then %v", kinds, before, now)
			}
			return nil
		})
		add()
		begin := time.Now()
		c.eventually("all of it arrives again", func() error {
			for i, now := range arrived() {
				if now <= before[i] {
					return fmt.Errorf("%s does not", kinds[i])
				}
			}
			return nil
		})
		t.Logf("all went on %v after the rules came back", time.Since(begin).Round(time.Millisecond))
	}
}

// The remote group follows a member to another address of its port, and takes
// those of its address pairs as long as it has them.
func TestRemoteGroupFollowsTheAddressesOfItsMembers(t *testing.T) {
	t.Parallel()
	c := newCloud(t, 2, nil, "")
	id := c.network("blue", "10.0.0.0/24", nil)
	client := c.group("blue", "client")
	server := c.group("blue", "server", object{"protocol": "tcp", "port_range_min": conversationPort, "port_range_max": conversationPort, "remote_group_id": client})
	a := c.boot("a", "host1", id, object{
		"security_groups": []string{client}, "fixed_ips": []object{{"ip_address": "10.0.0.10"}},
		"allowed_address_pairs": []object{{"ip_address": "10.0.9.10"}},
	})
	b := c.boot("b", "host2", id, object{"security_groups": []string{server}, "allowed_address_pairs": []object{{"ip_address": "10.0.9.20"}}})
	c.dhcp(a)
	c.dhcp(b)
	for v, address := range map[*vm]string{a: "10.0.9.10/24", b: "10.0.9.20/24"} {
		if err := v.SetAddr(t.Context(), address); err != nil {
			t.Fatal(err)
		}
	}
	own, pair := c.converse(a.Node, b.Node, b.ip()), c.converse(a.Node, b.Node, "10.0.9.20")

	c.moveAddress(a, "10.0.0.99")
	own.isCut("its client's port has another address")
	pair.goesOn("another address of its client's port changed")
	c.exec(a.Node, "ip", "addr", "del", "10.0.0.10/24", "dev", "eth0")
	c.exec(a.Node, "ip", "addr", "add", "10.0.0.99/24", "dev", "eth0")
	c.converse(a.Node, b.Node, b.ip())

	// Who has the address now is no member.
	stranger := c.boot("stranger", "host1", id, object{"security_groups": []string{c.group("blue", "others")}, "fixed_ips": []object{{"ip_address": "10.0.0.10"}}})
	c.dhcp(stranger)
	c.shut(stranger, "tcp", b.ip(), conversationPort)

	c.update("port", a.id(), object{"allowed_address_pairs": []object{}})
	pair.isCut("its client's port lost the address pair")
	c.update("port", a.id(), object{"allowed_address_pairs": []object{{"ip_address": "10.0.9.0/24"}}})
	pair.goesOn("its client's port has it again, in a block")
}

func TestRemoteGroupsHoldAcrossARouterByIPv6(t *testing.T) {
	t.Parallel()
	c := newCloud(t, 2, nil, "")
	one, two := c.network("blue", "", nil), c.network("blue", "", nil)
	router := c.router("blue")
	c.attachSubnet(router, c.subnet6(one, "fd00:1::/64", slaac()))
	c.attachSubnet(router, c.subnet6(two, "fd00:2::/64", slaac()))
	client := c.group("blue", "client")
	port := object{"protocol": "tcp", "ethertype": "IPv6", "port_range_min": conversationPort, "port_range_max": conversationPort, "remote_group_id": client}
	server := c.group("blue", "server", port, object{"protocol": "icmp", "ethertype": "IPv6", "port_range_min": 128, "remote_group_id": client})
	a, b := c.boot("a", "host1", one, groups(client)), c.boot("b", "host2", two, groups(server))
	stranger := c.boot("stranger", "host1", one, groups(c.group("blue", "others")))
	for _, v := range []*vm{a, b, stranger} {
		c.configured(v)
		c.eventually(v.Name()+" hears of its router", func() error {
			if route := c.defaultRoute(v); !strings.Contains(route, "proto ra") {
				return fmt.Errorf("default route: %q", route)
			}
			return nil
		})
	}
	c.opens(a, "tcp", b.ip(), conversationPort)
	c.shut(a, "tcp", b.ip(), conversationPort+1)
	c.shut(a, "udp", b.ip(), conversationPort)
	c.shut(stranger, "tcp", b.ip(), conversationPort)
	c.reaches(a.Node, b.ip())
	c.cutOff(stranger.Node, b.ip())
	c.cutOff(b.Node, a.ip())
	talk := c.converse(a.Node, b.Node, b.ip())
	c.update("port", a.id(), groups(c.group("blue", "more")))
	talk.isCut("its client left the remote group")
	c.update("port", a.id(), groups(client))
	talk.goesOn("its client came back")
	c.update("port", stranger.id(), groups(client))
	c.opens(stranger, "tcp", b.ip(), conversationPort)
}

func TestRemoteGroupsHoldAcrossARouterAndForTenantsWithTheSameAddresses(t *testing.T) {
	t.Parallel()
	c := newCloud(t, 2, nil, "")
	type tenant struct{ client, server, stranger *vm }
	tenants := map[string]tenant{}
	for _, name := range []string{"blue", "red"} {
		one, two := c.network(name, "10.0.0.0/24", nil), c.network(name, "10.0.1.0/24", nil)
		c.router(name, one, two)
		client := c.group(name, "client")
		server := c.group(name, "server", object{"protocol": "tcp", "port_range_min": 80, "port_range_max": 80, "remote_group_id": client})
		at := func(ip, group string) object {
			return object{"fixed_ips": []object{{"ip_address": ip}}, "security_groups": []string{group}}
		}
		// What is a client's address for one tenant is a stranger's for the other.
		first, second := "10.0.0.11", "10.0.0.12"
		if name == "red" {
			first, second = second, first
		}
		tenants[name] = tenant{
			client:   c.boot(name+"c", "host1", one, at(first, client)),
			stranger: c.boot(name+"x", "host1", one, at(second, c.group(name, "others"))),
			server:   c.boot(name+"s", "host2", two, at("10.0.1.20", server)),
		}
		for _, v := range []*vm{tenants[name].client, tenants[name].stranger, tenants[name].server} {
			c.dhcp(v)
		}
	}
	for _, vms := range tenants {
		c.opens(vms.client, "tcp", "10.0.1.20", 80)
		c.shut(vms.client, "tcp", "10.0.1.20", 81)
		c.shut(vms.stranger, "tcp", "10.0.1.20", 80)
	}
}
