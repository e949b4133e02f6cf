package e2e

import (
	"encoding/binary"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// stateless makes a group one whose rules judge each packet by itself.
func (c *cloud) stateless(groupID string) string {
	c.Helper()
	status, out := c.call(http.MethodPut, "/v2.0/security-groups/"+groupID, object{"security_group": object{"stateful": false}})
	if status != http.StatusOK || out["security_group"].(object)["stateful"] != false {
		c.Fatalf("make a group stateless: %d %v", status, out)
	}
	return groupID
}

func TestStatelessGroupsNeedRulesForAnswersToo(t *testing.T) {
	t.Parallel()
	c := newCloud(t, 2, nil, "")
	id := c.network("blue", "10.0.0.0/24", nil)
	port80 := object{"protocol": "tcp", "port_range_min": 80, "port_range_max": 80}
	client := c.group("blue", "client", port80)
	fast := c.stateless(c.group("blue", "fast", port80, object{"protocol": "udp", "port_range_min": 53, "port_range_max": 53, "remote_group_id": client},
		object{"protocol": "icmp", "port_range_min": 8}))
	a := c.boot("a", "host1", id, groups(client))
	stranger := c.boot("stranger", "host1", id, groups(c.group("blue", "others", port80)))
	b := c.boot("b", "host2", id, groups(fast))
	for _, v := range []*vm{a, stranger, b} {
		c.dhcp(v)
	}
	c.opens(a, "tcp", b.ip(), 80)
	c.shut(a, "tcp", b.ip(), 81)
	c.opens(a, "udp", b.ip(), 53)
	c.shut(stranger, "udp", b.ip(), 53)
	c.reaches(a.Node, b.ip())
	if _, received, _ := a.Ping(t.Context(), b.ip(), 1, "-s", "4000", "-W", "1"); received != 0 {
		t.Error("fragments pass by a rule for a type, which they do not show")
	}
	c.rule(fast, object{"protocol": "icmp", "remote_group_id": client})
	c.eventually("a ping in fragments is answered", func() error {
		if _, received, _ := a.Ping(t.Context(), b.ip(), 1, "-s", "4000", "-W", "1"); received == 0 {
			return fmt.Errorf("it is not")
		}
		return nil
	})
	// What it begins itself gets out, and no answer in.
	c.shut(b, "tcp", a.ip(), 80)
	c.cutOff(b.Node, stranger.ip())
	if out := c.connections("host2"); out != "" {
		t.Errorf("conntrack of a host with a stateless group has\n%s", out)
	}
	answers := c.rule(fast, object{"protocol": "tcp", "port_range_min": 1024, "port_range_max": 65535, "remote_ip_prefix": a.ip()})
	c.opens(b, "tcp", a.ip(), 80)
	c.shut(b, "tcp", stranger.ip(), 80)
	c.delete("security-group-rule", answers)
	c.eventually("answers stop with their rule", func() error {
		if knock(b.Node, "tcp", a.ip(), 80) {
			return fmt.Errorf("they still come")
		}
		return nil
	})

	if status, out := c.call(http.MethodPut, "/v2.0/security-groups/"+fast, object{"security_group": object{"stateful": true}}); status != http.StatusConflict {
		t.Errorf("a group that a port has was made stateful: %d %v", status, out)
	}
	out := c.planck("flows", "host2", "--port", b.id(), "--why")
	for _, want := range []string{"fast: ingress IPv4 tcp 80", "dropped in IngressCommit: no security group of the receiver allows it"} {
		if !strings.Contains(out, want) {
			t.Errorf("planck flows --why does not say %q:\n%s", want, out)
		}
	}
}

func TestPortMayHaveStatefulAndStatelessGroups(t *testing.T) {
	t.Parallel()
	c := newCloud(t, 1, nil, "")
	id := c.network("blue", "10.0.0.0/24", nil)
	port := func(n int) object { return object{"protocol": "tcp", "port_range_min": n, "port_range_max": n} }
	fast := c.stateless(c.group("blue", "fast", port(80)))
	c.noEgress(fast)
	a := c.boot("a", "host1", id, groups(c.group("blue", "client", port(22))))
	b := c.boot("b", "host1", id, groups(fast, c.group("blue", "base", port(443))))
	both := c.boot("both", "host1", id, groups(fast, c.group("blue", "more", port(22))))
	for _, v := range []*vm{a, b, both} {
		c.dhcp(v)
	}
	c.opens(a, "tcp", b.ip(), 443)
	c.opens(b, "tcp", a.ip(), 22) // the stateful one knows the answers
	c.opens(both, "tcp", b.ip(), 443)
	c.opens(b, "tcp", both.ip(), 22)
	for _, from := range []*vm{a, both} {
		c.shut(from, "tcp", b.ip(), 444)
	}
	// What the stateless one allows is not remembered, whatever the other one says.
	c.rule(fast, object{"direction": "egress", "protocol": "tcp"})
	c.opens(a, "tcp", b.ip(), 80)
	c.eventually("no answer comes in without a rule", func() error {
		if knock(b.Node, "tcp", a.ip(), 22) {
			return fmt.Errorf("it still does")
		}
		return nil
	})
}

// connections are what conntrack of a host knows.
func (c *cloud) connections(host string) string {
	c.Helper()
	out, err := c.lab.Host(host).Appctl("dpctl/dump-conntrack")
	if err != nil {
		c.Fatal(err)
	}
	return out
}

func TestFloatingIPIsReachedAsTheGroupSeesItsSource(t *testing.T) {
	t.Parallel()
	c := newCloud(t, 2, nil, physicalNetwork)
	public := c.outside()
	blue := c.network("blue", "10.0.0.0/24", nil)
	c.setGateway(c.router("blue", blue), public, nil)
	client := c.group("", "client")
	server := c.group("", "server",
		object{"protocol": "tcp", "port_range_min": 80, "port_range_max": 80, "remote_ip_prefix": "203.0.113.1/32"},
		object{"protocol": "tcp", "port_range_min": 81, "port_range_max": 81, "remote_ip_prefix": "10.0.0.0/24"},
		object{"protocol": "tcp", "port_range_min": 82, "port_range_max": 82, "remote_group_id": client},
		object{"protocol": "icmp", "remote_ip_prefix": "198.51.100.0/24"},
	)
	a, b := c.boot("a", "host1", blue, groups(client)), c.boot("b", "host2", blue, groups(server))
	c.dhcp(a)
	c.dhcp(b)
	_, outsideA := c.floatingIP(public, a)
	_, outsideB := c.floatingIP(public, b)
	c.opens(a, "tcp", b.ip(), 81)
	c.opens(a, "tcp", b.ip(), 82)
	c.shut(a, "tcp", b.ip(), 80)
	c.eventually("the outside reaches port 80", func() error {
		if !knock(c.lab.Ext(), "tcp", outsideB, 80) {
			return fmt.Errorf("no answer")
		}
		return nil
	})
	for _, port := range []int{81, 82, 83} {
		if knock(c.lab.Ext(), "tcp", outsideB, port) {
			t.Errorf("the outside reaches port %d", port)
		}
	}
	// Its other address may ping, and no more.
	c.cutOff(c.lab.Ext(), outsideB)
	c.eventually("the other outside address pings", func() error {
		if _, received, _ := c.lab.Ext().Ping(c.Context(), outsideB, 1, "-W", "1", "-I", "198.51.100.1"); received == 0 {
			return fmt.Errorf("no answer")
		}
		return nil
	})
	// By floating IP a neighbour comes from its own: it is no member then.
	for _, port := range []int{81, 82} {
		c.shut(a, "tcp", outsideB, port)
	}
	c.rule(server, object{"protocol": "tcp", "port_range_min": 84, "port_range_max": 84, "remote_ip_prefix": outsideA})
	c.opens(a, "tcp", outsideB, 84)
	// The other way the group sees where it goes to.
	c.noEgress(client)
	c.rule(client, object{"direction": "egress", "protocol": "tcp", "port_range_min": 84, "port_range_max": 84, "remote_ip_prefix": outsideB})
	c.opens(a, "tcp", outsideB, 84)
	c.shut(a, "tcp", b.ip(), 81)
}

// ip4 is an IPv4 packet with an ICMP checksum when it is one of ICMP.
func ip4(src, dst string, protocol byte, payload []byte) []byte {
	ip := []byte{0x45, 0, 0, 0, 0, 0, 0, 0, 64, protocol, 0, 0}
	ip = append(append(ip, netip.MustParseAddr(src).AsSlice()...), netip.MustParseAddr(dst).AsSlice()...)
	binary.BigEndian.PutUint16(ip[2:], uint16(len(ip)+len(payload)))
	binary.BigEndian.PutUint16(ip[10:], internetChecksum(ip))
	if protocol == 1 {
		binary.BigEndian.PutUint16(payload[2:], internetChecksum(payload))
	}
	return append(ip, payload...)
}

func TestRulesTakeProtocolsAndTypesByNameAndNumber(t *testing.T) {
	t.Parallel()
	c := newCloud(t, 1, nil, "")
	id := c.network("blue", "10.0.0.0/24", nil)
	pairs := func(group, addr string) object {
		return object{"security_groups": []string{group}, "allowed_address_pairs": []object{{"ip_address": addr}}}
	}
	server := c.group("blue", "server",
		object{"protocol": "vrrp"}, object{"protocol": 47}, object{"protocol": "132"},
		object{"protocol": "icmp", "port_range_min": 13, "port_range_max": 0},
		object{"protocol": 1, "port_range_min": 15},
		object{"protocol": "icmpv6", "ethertype": "IPv6", "port_range_min": 128, "port_range_max": 0},
	)
	a, b := c.boot("a", "host1", id, pairs(c.group("blue", "client"), "fd00::a")), c.boot("b", "host1", id, pairs(server, "fd00::b"))
	c.dhcp(a)
	c.dhcp(b)
	bare := func(protocol byte, n int) []byte { return ip4(a.ip(), b.ip(), protocol, make([]byte, n)) }
	icmp := func(typ, code byte, n int) []byte {
		return ip4(a.ip(), b.ip(), 1, append([]byte{typ, code, 0, 0}, make([]byte, n-4)...))
	}
	icmpv6 := func(typ byte, n int) []byte {
		return icmp6("fd00::a", "fd00::b", append([]byte{typ, 0, 0, 0}, make([]byte, n-4)...))
	}
	kinds := []struct {
		what      string
		etherType uint16
		packet    func(n int) []byte
		arrives   bool
	}{
		{"VRRP", etherIPv4, func(n int) []byte { return bare(112, n) }, true},
		{"GRE", etherIPv4, func(n int) []byte { return bare(47, n) }, true},
		{"ESP", etherIPv4, func(n int) []byte { return bare(50, n) }, false},
		{"timestamp", etherIPv4, func(n int) []byte { return icmp(13, 0, n) }, true},
		{"information request", etherIPv4, func(n int) []byte { return icmp(15, 0, n) }, true},
		{"echo", etherIPv4, func(n int) []byte { return icmp(8, 0, n) }, false},
		{"an error about nothing", etherIPv4, func(n int) []byte { return icmp(3, 1, n) }, false},
		{"echo of IPv6", etherIPv6, func(n int) []byte { return icmpv6(128, n) }, true},
		{"an error about nothing of IPv6", etherIPv6, func(n int) []byte { return icmpv6(1, n) }, false},
	}
	// Each frame has a length of its own, by which the capture tells it from others.
	const header, shortest = 14, 100
	seen := c.watch(b)
	for i, k := range kinds {
		bare := len(k.packet(8)) - 8
		c.send(a, ethernet(t, b.mac(), a.mac(), k.etherType, k.packet(shortest+2*i-header-bare)))
	}
	c.mark(a)
	text := seen()
	for i, k := range kinds {
		if arrived := strings.Contains(text, fmt.Sprintf(", length %d: ", shortest+2*i)); arrived != k.arrives {
			t.Errorf("%s arrives: %t\n%s", k.what, arrived, text)
		}
	}
}

// Conntrack takes only code 0 of what asks; by itself a packet may have any.
func TestRulesOfStatelessGroupsTakeCodesOfICMP(t *testing.T) {
	t.Parallel()
	c := newCloud(t, 1, nil, "")
	id := c.network("blue", "10.0.0.0/24", nil)
	a := c.boot("a", "host1", id, object{"port_security_enabled": false})
	b := c.boot("b", "host1", id, groups(c.stateless(c.group("blue", "errors", object{"protocol": "icmp", "port_range_min": 3, "port_range_max": 1}))))
	seen := c.watch(b)
	// Each has a length of its own, by which the capture tells it from others.
	arrives := map[byte]bool{0: false, 1: true, 2: false, 15: false}
	for code := range arrives {
		c.send(a, ethernet(t, b.mac(), a.mac(), etherIPv4, ip4(a.ip(), b.ip(), 1, append([]byte{3, code}, make([]byte, 66+int(code))...))))
	}
	c.mark(a)
	text := seen()
	for code, want := range arrives {
		if arrived := strings.Contains(text, fmt.Sprintf(", length %d: ", 14+20+68+int(code))); arrived != want {
			t.Errorf("type 3 code %d arrives: %t\n%s", code, arrived, text)
		}
	}
}

// A copy of what goes to everybody is judged at each receiver by its own groups.
func TestFramesToEverybodyAreJudgedAtEachReceiver(t *testing.T) {
	t.Parallel()
	c := newCloud(t, 2, nil, "")
	id := c.network("blue", "10.0.0.0/24", nil)
	c.subnet6(id, "fd00::/64", nil)
	const first, second = 5001, 5002
	udp := func(port int, ethertype string) object {
		return object{"protocol": "udp", "port_range_min": port, "port_range_max": port, "ethertype": ethertype}
	}
	client := c.group("blue", "client")
	one := c.group("blue", "one", udp(first, "IPv4"), udp(first, "IPv6"))
	members := c.group("blue", "members", object{"remote_group_id": client}, object{"ethertype": "IPv6", "remote_group_id": client})
	fast := c.stateless(c.group("blue", "fast", udp(second, "IPv4"), udp(second, "IPv6")))
	from := c.boot("from", "host1", id, groups(client))
	stranger := c.boot("stranger", "host1", id, groups(c.group("blue", "others")))
	type receiver struct {
		*vm
		ofMember, ofStranger []int // the ports that arrive
	}
	var receivers []receiver
	boot := func(name, host string, attrs object, ofMember, ofStranger []int) {
		receivers = append(receivers, receiver{c.boot(name, host, id, attrs), ofMember, ofStranger})
	}
	both := []int{first, second}
	boot("one", "host1", groups(one), []int{first}, []int{first})
	boot("members", "host1", groups(members), both, nil)
	boot("fast", "host1", groups(fast), []int{second}, []int{second})
	boot("mixed", "host1", groups(fast, one), both, both)
	boot("none", "host1", groups(), nil, nil)
	boot("open", "host1", object{"port_security_enabled": false}, both, both)
	boot("farone", "host2", groups(one), []int{first}, []int{first})
	boot("farmembers", "host2", groups(members), both, nil)
	for _, sender := range []*vm{from, stranger} {
		var captures []func() string
		for _, r := range receivers {
			captures = append(captures, c.watch(r.vm))
		}
		for _, port := range []int{first, second} {
			c.send(sender, ethernet(t, everybody, sender.mac(), etherIPv4, udp4(c.address(sender, 4), "10.0.0.255", 40000, uint16(port), []byte("to all"))))
			c.send(sender, ethernet(t, "33:33:00:00:00:fb", sender.mac(), etherIPv6, udp6(c.address(sender, 6), "ff02::fb", 40000, uint16(port), []byte("to all"))))
		}
		c.mark(sender)
		for i, r := range receivers {
			text, want := captures[i](), r.ofStranger
			if sender == from {
				want = r.ofMember
			}
			for _, port := range []int{first, second} {
				for _, to := range []string{"10.0.0.255.", "ff02::fb."} {
					arrives := slices.Contains(want, port)
					if arrived := strings.Contains(text, fmt.Sprint(" > ", to, port, ": ")); arrived != arrives {
						t.Errorf("UDP to %s%d from %s arrives at %s: %t\n%s", to, port, sender.Name(), r.Name(), arrived, text)
					}
				}
			}
		}
	}
}

// Of multicast listeners, questions pass and reports leave, whatever groups say;
// reports enter only where conntrack is not asked about them.
func TestMulticastListenersAreHeardByTheSwitch(t *testing.T) {
	t.Parallel()
	c := newCloud(t, 1, nil, "")
	id := c.network("blue", "10.0.0.0/24", nil)
	everything := object{"ethertype": "IPv6"}
	from, none := c.boot("from", "host1", id, groups()), c.boot("none", "host1", id, groups())
	tracked := c.boot("tracked", "host1", id, groups(c.group("blue", "tracked", everything)))
	untracked := c.boot("untracked", "host1", id, groups(c.stateless(c.group("blue", "untracked", everything))))
	open := c.boot("open", "host1", id, object{"port_security_enabled": false})
	const query, report, done, report2 = 130, 131, 132, 143
	kinds := []byte{127, query, report, done, 139, report2, 144}
	arrives := map[*vm][]byte{none: {query}, tracked: {query}, untracked: {query, report, done, report2}, open: {query, report, done, report2}}
	captures := map[*vm]func() string{}
	for v := range arrives {
		captures[v] = c.watch(v)
	}
	for _, kind := range kinds {
		// Each has a length of its own, by which the capture tells it from others.
		message := append([]byte{kind, 0, 0, 0}, make([]byte, 2*int(kind))...)
		c.send(from, ethernet(t, "33:33:00:00:00:16", from.mac(), etherIPv6, icmp6(linkLocal(t, from.mac()), "ff02::16", message)))
	}
	c.mark(from)
	for v, want := range arrives {
		text := captures[v]()
		for _, kind := range kinds {
			length := fmt.Sprintf(", length %d: ", 14+40+4+2*int(kind))
			if arrived := strings.Contains(text, length); arrived != slices.Contains(want, kind) {
				t.Errorf("ICMPv6 type %d arrives at %s: %t\n%s", kind, v.Name(), arrived, text)
			}
		}
	}
}
