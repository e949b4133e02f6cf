package e2e

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"planck/test/lab"
)

// group makes a security group with rules for what comes in.
func (c *cloud) group(tenant, name string, rules ...object) string {
	c.Helper()
	status, out := c.call(http.MethodPost, "/v2.0/security-groups", object{"security_group": object{"name": name, "tenant_id": tenant}})
	if status != http.StatusCreated {
		c.Fatalf("create security group: %d %v", status, out)
	}
	id := out["security_group"].(object)["id"].(string)
	for _, r := range rules {
		c.rule(id, r)
	}
	return id
}

// rule adds a rule for what comes in, unless it says otherwise.
func (c *cloud) rule(groupID string, attrs object) string {
	c.Helper()
	body := object{"security_group_id": groupID, "direction": "ingress"}
	for k, v := range attrs {
		body[k] = v
	}
	status, out := c.call(http.MethodPost, "/v2.0/security-group-rules", object{"security_group_rule": body})
	if status != http.StatusCreated {
		c.Fatalf("create rule %v: %d %v", attrs, status, out)
	}
	return out["security_group_rule"].(object)["id"].(string)
}

// pingable lets everybody ping a VM, by a rule in its first group.
func (c *cloud) pingable(v *vm) {
	c.Helper()
	group := v.port["security_groups"].([]any)[0]
	for _, ethertype := range []string{"IPv4", "IPv6"} {
		status, out := c.call(http.MethodPost, "/v2.0/security-group-rules", object{"security_group_rule": object{
			"security_group_id": group, "direction": "ingress", "protocol": "icmp", "ethertype": ethertype,
		}})
		if status != http.StatusCreated && status != http.StatusConflict {
			c.Fatalf("create rule: %d %v", status, out)
		}
	}
}

// noEgress deletes the rules that let everything out.
func (c *cloud) noEgress(groupID string) {
	c.Helper()
	_, out := c.call(http.MethodGet, "/v2.0/security-group-rules?direction=egress&security_group_id="+groupID, nil)
	for _, r := range out["security_group_rules"].([]any) {
		c.delete("security-group-rule", r.(object)["id"].(string))
	}
}

// knock tries to open a connection, or sends two datagrams. Where nobody
// listens, a refusal comes back: it got through, and so did the refusal.
func knock(from *lab.Node, protocol, ip string, port int) bool {
	script := fmt.Sprintf("exec 3<>/dev/%s/%s/%d; echo x >&3; sleep 0.3; echo y >&3", protocol, ip, port)
	out, _ := from.Exec(context.Background(), "timeout", "2", "bash", "-c", script)
	return strings.Contains(out, "refused")
}

func (c *cloud) opens(from *vm, protocol, ip string, port int) {
	c.Helper()
	c.eventually(fmt.Sprintf("%s reaches %s port %d of %s", from.Name(), protocol, port, ip), func() error {
		if !knock(from.Node, protocol, ip, port) {
			return fmt.Errorf("no answer")
		}
		return nil
	})
}

func (c *cloud) shut(from *vm, protocol, ip string, port int) {
	c.Helper()
	if knock(from.Node, protocol, ip, port) {
		c.Errorf("%s reaches %s port %d of %s, which no rule allows", from.Name(), protocol, port, ip)
	}
}

func groups(ids ...string) object {
	return object{"security_groups": append([]string{}, ids...)}
}

func TestDefaultGroupLetsItsMembersTalkAndNobodyElseIn(t *testing.T) {
	t.Parallel()
	c := newCloud(t, 2, nil, "")
	id := c.network("blue", "10.0.0.0/24", nil)
	owned := func(attrs object) object {
		body := object{"tenant_id": "blue"}
		for k, v := range attrs {
			body[k] = v
		}
		return body
	}
	a, near, far := c.boot("a", "host1", id, owned(nil)), c.boot("near", "host1", id, owned(nil)), c.boot("far", "host2", id, owned(nil))
	other := c.boot("other", "host2", id, owned(groups(c.group("blue", "other"))))
	none := c.boot("none", "host2", id, owned(groups()))
	for _, v := range []*vm{a, near, far, other, none} {
		c.dhcp(v) // always passes
	}
	for _, to := range []*vm{near, far} {
		c.reaches(a.Node, to.ip())
		c.reaches(to.Node, a.ip())
		c.opens(a, "tcp", to.ip(), 80)
		c.opens(to, "udp", a.ip(), 53)
	}
	c.cutOff(other.Node, a.ip())
	c.cutOff(a.Node, other.ip())
	c.shut(other, "tcp", far.ip(), 80)
	c.cutOff(none.Node, a.ip())
	c.cutOff(a.Node, none.ip())

	// A member of its remote group gets in, and its answers out again.
	c.update("port", other.id(), groups(c.group("blue", "third", object{"remote_group_id": a.port["security_groups"].([]any)[0]})))
	c.reaches(a.Node, other.ip())
	c.cutOff(other.Node, a.ip())
}

func TestRulesAdmitTheirProtocolPortsTypesAndSources(t *testing.T) {
	t.Parallel()
	c := newCloud(t, 2, nil, "")
	id := c.network("blue", "10.0.0.0/24", nil)
	web := c.group("blue", "web",
		object{"protocol": "tcp", "port_range_min": 80, "port_range_max": 88},
		object{"protocol": "udp", "port_range_min": 53, "port_range_max": 53},
		object{"protocol": "icmp", "port_range_min": 8, "port_range_max": 0},
		object{"protocol": "tcp", "port_range_min": 22, "port_range_max": 22, "remote_ip_prefix": "10.0.0.200/32"},
		object{"protocol": "udp", "port_range_min": 99, "port_range_max": 99, "ethertype": "IPv6", "remote_ip_prefix": "2001:db8::a/128"},
		object{"protocol": "tcp", "port_range_min": 443, "port_range_max": 445, "ethertype": "IPv6"},
		object{"protocol": "icmp", "ethertype": "IPv6"},
	)
	client := c.group("blue", "client")
	pairs := func(addr string) object {
		return object{"allowed_address_pairs": []object{{"ip_address": addr}}}
	}
	with := func(attrs object, more object) object {
		for k, v := range more {
			attrs[k] = v
		}
		return attrs
	}
	a := c.boot("a", "host1", id, with(groups(client), pairs("2001:db8::a")))
	b := c.boot("b", "host2", id, with(groups(web), pairs("2001:db8::b")))
	trusted := c.boot("trusted", "host2", id, with(groups(client), object{"fixed_ips": []object{{"ip_address": "10.0.0.200"}}}))
	for _, v := range []*vm{a, b, trusted} {
		c.dhcp(v)
	}
	c.opens(a, "tcp", b.ip(), 80)
	c.opens(a, "tcp", b.ip(), 88)
	c.shut(a, "tcp", b.ip(), 79)
	c.shut(a, "tcp", b.ip(), 89)
	c.opens(a, "udp", b.ip(), 53) // and the ICMP error about it comes back
	c.shut(a, "udp", b.ip(), 54)
	c.opens(trusted, "tcp", b.ip(), 22)
	c.shut(a, "tcp", b.ip(), 22)
	c.reaches(a.Node, b.ip())
	if _, received, err := a.Ping(t.Context(), b.ip(), 1, "-s", "4000", "-w", "4"); err != nil || received == 0 {
		t.Errorf("a ping in fragments gets no answer: %v", err)
	}
	c.cutOff(b.Node, a.ip())

	for v, addr := range map[*vm]string{a: "2001:db8::a/64", b: "2001:db8::b/64"} {
		if err := v.SetAddr(t.Context(), addr); err != nil {
			t.Fatal(err)
		}
	}
	c.reaches(a.Node, "2001:db8::b")
	c.opens(a, "udp", "2001:db8::b", 99)
	c.shut(a, "udp", "2001:db8::b", 98)
	c.opens(a, "tcp", "2001:db8::b", 443)
	c.opens(a, "tcp", "2001:db8::b", 445)
	for _, port := range []int{80, 442, 446} {
		c.shut(a, "tcp", "2001:db8::b", port)
	}
}

func TestRulesForWhatLeavesNameProtocolsPortsTypesAndDestinations(t *testing.T) {
	t.Parallel()
	c := newCloud(t, 2, nil, "")
	id := c.network("blue", "10.0.0.0/24", nil)
	c.subnet6(id, "fd00::/64", nil)
	at := func(group, last string) object {
		return object{"security_groups": []string{group}, "fixed_ips": []object{{"ip_address": "10.0.0." + last}, {"ip_address": "fd00::" + last}}}
	}
	client, open := c.group("blue", "client"), c.group("blue", "open", anyIPv4, object{"ethertype": "IPv6"})
	a := c.boot("a", "host1", id, at(client, "10"))
	b, other := c.boot("b", "host2", id, at(open, "20")), c.boot("other", "host1", id, at(open, "30"))
	for _, v := range []*vm{a, b, other} {
		c.dhcp(v)
		c.add6(v, c.address(v, 6))
	}
	c.opens(a, "udp", b.ip(), 53)
	c.noEgress(client)
	c.eventually("nothing leaves without a rule", func() error {
		if knock(a.Node, "udp", b.ip(), 53) || knock(a.Node, "tcp", "fd00::20", 80) {
			return fmt.Errorf("it still does")
		}
		return nil
	})
	out := func(attrs object) {
		attrs["direction"] = "egress"
		c.rule(client, attrs)
	}
	out(object{"protocol": "tcp", "port_range_min": 80, "port_range_max": 80, "remote_ip_prefix": "10.0.0.20"})
	out(object{"protocol": "udp", "port_range_min": 53, "port_range_max": 55})
	out(object{"protocol": "icmp", "port_range_min": 8, "remote_ip_prefix": "10.0.0.20/31"})
	out(object{"protocol": "tcp", "port_range_min": 443, "port_range_max": 443, "ethertype": "IPv6", "remote_ip_prefix": "fd00::20"})
	out(object{"protocol": "udp", "port_range_min": 53, "port_range_max": 53, "ethertype": "IPv6"})
	c.opens(a, "tcp", "10.0.0.20", 80)
	c.opens(a, "udp", "10.0.0.20", 53)
	c.opens(a, "udp", "10.0.0.30", 55)
	c.opens(a, "tcp", "fd00::20", 443)
	c.opens(a, "udp", "fd00::30", 53)
	c.reaches(a.Node, "10.0.0.20")
	for _, closed := range []struct {
		protocol, address string
		port              int
	}{
		{"tcp", "10.0.0.20", 81}, {"tcp", "10.0.0.30", 80}, {"tcp", "fd00::20", 80}, {"tcp", "fd00::30", 443},
		{"udp", "10.0.0.20", 52}, {"udp", "10.0.0.20", 56}, {"udp", "fd00::20", 54},
	} {
		c.shut(a, closed.protocol, closed.address, closed.port)
	}
	c.cutOff(a.Node, "10.0.0.30")
	c.cutOff(a.Node, "fd00::20")
	// What was let out of the other side comes in here by its own rules alone.
	c.cutOff(b.Node, "10.0.0.10")
	c.shut(b, "udp", "fd00::10", 53)
}

// rate is how many bytes a VM receives within half a second.
func rate(v *vm) uint64 {
	read := func() (n uint64) {
		out, _ := v.Exec(context.Background(), "cat", "/sys/class/net/eth0/statistics/rx_bytes")
		fmt.Sscan(out, &n)
		return n
	}
	before := read()
	time.Sleep(500 * time.Millisecond)
	return read() - before
}

func TestRuleThatGoesCutsItsConnectionsAndNoOthers(t *testing.T) {
	t.Parallel()
	c := newCloud(t, 2, nil, "")
	id := c.network("blue", "10.0.0.0/24", nil)
	base, client := c.group("blue", "base"), c.group("blue", "client")
	server := c.group("blue", "server", object{"protocol": "icmp"})
	a := c.boot("a", "host1", id, groups(base, client))
	b := c.boot("b", "host2", id, groups(server))
	for _, v := range []*vm{a, b} {
		c.dhcp(v)
	}
	for _, story := range []struct {
		what string
		rule object
		end  func(rule string)
	}{
		{"the rule goes", object{"protocol": "tcp", "port_range_min": 5201, "port_range_max": 5201}, func(rule string) { c.delete("security-group-rule", rule) }},
		{"the client leaves the remote group", object{"protocol": "tcp", "remote_group_id": client}, func(string) { c.update("port", a.id(), groups(base)) }},
	} {
		rule := c.rule(server, story.rule)
		c.opens(a, "tcp", b.ip(), 5201)
		stop := c.stream(a, b)
		c.delete("security-group-rule", c.rule(server, object{"protocol": "udp"}))
		c.delete("security-group", c.group("blue", "unrelated"))
		if got := rate(b); got < streaming {
			t.Errorf("after unrelated changes %d bytes come in half a second", got)
		}
		begin := time.Now()
		story.end(rule)
		c.eventually("the stream stops when "+story.what, func() error {
			if got := rate(b); got > silent {
				return fmt.Errorf("%d bytes in half a second", got)
			}
			return nil
		})
		t.Logf("%s: silent half a second, seen %v after the call", story.what, time.Since(begin).Round(time.Millisecond))
		stop()
	}
}

// Bytes in half a second of a stream of TCP, and of what else there may be.
const streaming, silent = 100_000, 10_000

// stream sends TCP from one VM to another until it is stopped.
func (c *cloud) stream(from, to *vm) (stop func()) {
	c.Helper()
	server, err := to.Start("iperf3", "-s", "-1", "--forceflush")
	if err != nil {
		c.Fatal(err)
	}
	if err := server.WaitOutput(c.within(settle), "Server listening"); err != nil {
		c.Fatal(err)
	}
	client, err := from.Start("iperf3", "-c", to.ip(), "-t", "600")
	if err != nil {
		c.Fatal(err)
	}
	c.eventually("TCP streams", func() error {
		if got := rate(to); got < streaming {
			return fmt.Errorf("%d bytes in half a second", got)
		}
		return nil
	})
	return func() {
		for _, p := range []*lab.Process{client, server} {
			_ = p.Signal(syscall.SIGKILL)
			_, _ = p.Stop()
		}
	}
}
