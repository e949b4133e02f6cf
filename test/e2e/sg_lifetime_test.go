package e2e

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"
)

var anyIPv4 = object{"ethertype": "IPv4"}

func TestConnectionsBegunWhileEverythingPassedAreJudgedByTheRulesThatStay(t *testing.T) {
	t.Parallel()
	c := newCloud(t, 2, nil, "")
	id := c.network("blue", "10.0.0.0/24", nil)
	port := object{"protocol": "tcp", "port_range_min": conversationPort, "port_range_max": conversationPort}
	base, open := c.group("blue", "base"), c.group("blue", "open")
	c.noEgress(open)
	a := c.boot("a", "host1", id, groups(c.group("blue", "peer", port)))
	b := c.boot("b", "host2", id, groups(base, open))
	c.dhcp(a)
	c.dhcp(b)
	everythingIn := c.rule(open, anyIPv4)
	in, out := c.converse(a.Node, b.Node, b.ip()), c.converse(b.Node, a.Node, a.ip())

	c.delete("security-group-rule", everythingIn)
	in.isCut("the rule that let it in went")
	out.goesOn("a rule went that had no part in it")

	c.rule(open, anyIPv4)
	in.goesOn("its rule came back")
	c.noEgress(base)
	out.isCut("the rule that let it out went")
	in.goesOn("the rule went that let others out")
}

func TestLiveConnectionsLastAsLongAsTheirRules(t *testing.T) {
	t.Parallel()
	c := newCloud(t, 2, nil, "")
	id := c.network("blue", "10.0.0.0/24", nil)
	c.subnet6(id, "fd00::/64", nil)
	addresses := func(last string, groupIDs ...string) object {
		return object{"security_groups": groupIDs, "fixed_ips": []object{{"ip_address": "10.0.0." + last}, {"ip_address": "fd00::" + last}}}
	}
	port := func(ethertype string) object {
		return object{"protocol": "tcp", "ethertype": ethertype, "port_range_min": conversationPort, "port_range_max": conversationPort}
	}
	base, web := c.group("blue", "base"), c.group("blue", "web", port("IPv4"))
	rule6 := c.rule(web, port("IPv6"))
	a := c.boot("a", "host1", id, addresses("10", base))
	b := c.boot("b", "host2", id, addresses("20", base, web))
	for v, address := range map[*vm]string{a: "fd00::10", b: "fd00::20"} {
		c.dhcp(v)
		c.add6(v, address)
		c.eventually(v.Name()+" finds its address free", func() error { return v.addressIs(c, address, "") })
	}
	four, six := c.converse(a.Node, b.Node, "10.0.0.20"), c.converse(a.Node, b.Node, "fd00::20")
	bothGoOn := func(after string) {
		c.Helper()
		four.goesOn(after)
		six.goesOn(after)
	}

	c.delete("security-group-rule", c.rule(web, object{"protocol": "udp"}))
	c.update("port", a.id(), groups(base, c.group("blue", "more")))
	c.update("port", b.id(), groups(base, web, c.group("blue", "other")))
	c.delete("port", c.create("port", object{"network_id": id, "tenant_id": "blue", "security_groups": []string{web}})["id"].(string))
	bothGoOn("unrelated changes")
	c.kill(syscall.SIGKILL)
	bothGoOn("the end of the controller")
	c.start()
	c.allLive()
	bothGoOn("its restart")
	host := c.lab.Host("host2")
	if err := host.KillVswitchd(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := host.StartVswitchd(); err != nil {
		t.Fatal(err)
	}
	c.eventually("the restarted switch has its flows", func() error {
		if !strings.Contains(c.flows("host2", "br-int"), "table=72") {
			return fmt.Errorf("it has not")
		}
		return nil
	})
	for _, t := range []*conversation{four, six} {
		// The switch knows the connection again when its client speaks.
		if heard, err := t.server.hears(t.client, settle); err != nil || !heard {
			c.Errorf("after a restart of its switch the server of %s hears nothing: %v", t.what, err)
		}
	}
	bothGoOn("a restart of the server's switch")

	c.delete("security-group-rule", rule6)
	six.isCut("its rule went")
	four.goesOn("the rule of the other family went")
	c.update("port", b.id(), groups(base))
	four.isCut("the port left the group")
	c.update("port", b.id(), groups(web))
	four.goesOn("the port came back")
	c.update("port", b.id(), groups())
	four.isCut("the port left all groups")
}

func TestRuleThatGoesIsFeltWithinASecond(t *testing.T) {
	t.Parallel()
	c := newCloud(t, 2, nil, "")
	id := c.network("blue", "10.0.0.0/24", nil)
	port := object{"protocol": "tcp", "port_range_min": conversationPort, "port_range_max": conversationPort}
	server := c.group("blue", "server")
	a := c.boot("a", "host1", id, groups(c.group("blue", "client")))
	b, other := c.boot("b", "host2", id, groups(server)), c.boot("other", "host2", id, groups(c.group("blue", "other", port)))
	for _, v := range []*vm{a, b, other} {
		c.dhcp(v)
	}
	unrelated := c.converse(a.Node, other.Node, other.ip())
	unrelated.talks()
	const tries = 5 // a busy machine may be late, but not each time
	quickest := promptly
	for try := range tries {
		rule := c.rule(server, port)
		stream := c.converse(a.Node, b.Node, b.ip())
		stream.talks()
		unrelated.server.gap.Store(0)
		begin := time.Now()
		c.delete("security-group-rule", rule)
		took := max(0, stream.hush(2*time.Second).Sub(begin))
		quickest = min(quickest, took)
		gap := time.Duration(unrelated.server.gap.Load())
		t.Logf("the last segment came %v after the call; the longest silence of the other stream was %v", took, gap)
		if gap > hiccup {
			t.Errorf("an unrelated stream was silent for %v", gap)
		}
		stream.client.conn.Close()
		if try > 0 && quickest <= time.Second {
			break
		}
	}
	if quickest > time.Second {
		t.Errorf("at best, a stream ended %v after its rule", quickest)
	}
	heard := unrelated.server.heard.Load()
	c.eventually("the unrelated stream goes on", func() error {
		if now := unrelated.server.heard.Load(); now <= heard {
			return fmt.Errorf("it does not")
		}
		return nil
	})
}
