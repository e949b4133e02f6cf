package e2e

import (
	"fmt"
	"strings"
	"testing"
)

// A port with groups, even none of them, sends and receives what is neither IP
// nor ARP only without port security, as with Neutron's Open vSwitch firewall.
func TestFramesThatAreNotIPPassAsInNeutron(t *testing.T) {
	t.Parallel()
	c := newCloud(t, 1, nil, "")
	id := c.network("blue", "10.0.0.0/24", nil)
	open := object{"port_security_enabled": false}
	everything := c.group("blue", "everything", anyIPv4)
	a, b := c.boot("a", "host1", id, groups(everything)), c.boot("b", "host1", id, groups(everything))
	x, y := c.boot("x", "host1", id, open), c.boot("y", "host1", id, open)
	const pppoe, lldp = 0x8863, 0x88cc
	for _, story := range []struct {
		from, to *vm
		passes   bool
	}{{a, b, false}, {a, x, false}, {x, a, false}, {x, y, true}} {
		seen := c.watch(story.to)
		for _, etherType := range []uint16{pppoe, lldp} {
			c.send(story.from, ethernet(t, story.to.mac(), story.from.mac(), etherType, make([]byte, 46)))
		}
		c.send(story.from, ethernet(t, everybody, story.from.mac(), etherARP, arpPacket(t, 1, story.from.mac(), story.from.ip(), "00:00:00:00:00:00", story.from.ip())))
		c.mark(story.from) // reverse ARP
		text := seen()
		for etherType, passes := range map[string]bool{"0x8863": story.passes, "0x88cc": story.passes, "0x0806": true} {
			if arrived := strings.Contains(text, "("+etherType+")"); arrived != passes {
				t.Errorf("%s from %s to %s arrives: %t\n%s", etherType, story.from.Name(), story.to.Name(), arrived, text)
			}
		}
	}
}

// address is the first one of a VM's port that is of a version of IP.
func (c *cloud) address(v *vm, version int) string {
	c.Helper()
	for _, ip := range v.port["fixed_ips"].([]any) {
		if address := ip.(object)["ip_address"].(string); strings.Contains(address, ":") == (version == 6) {
			return address
		}
	}
	c.Fatalf("port of %s has no address of IPv%d: %v", v.Name(), version, v.port["fixed_ips"])
	return ""
}

func TestPortWithoutGroupsIsConfiguredAndFindsItsNeighboursAndNoMore(t *testing.T) {
	t.Parallel()
	c := newCloud(t, 2, nil, "")
	id := c.network("blue", "10.0.0.0/24", nil)
	c.attachSubnet(c.router("blue"), c.subnet6(id, "fd00::/64", mode6("dhcpv6-stateful")))
	none := c.boot("none", "host1", id, groups())
	peer := c.boot("peer", "host2", id, groups(c.group("blue", "any", anyIPv4, object{"ethertype": "IPv6"})))
	for _, v := range []*vm{none, peer} {
		lease, err := v.DHCP(t.Context())
		if err != nil || lease.Addr.Addr().String() != c.address(v, 4) {
			t.Fatalf("DHCP of %s: %v, %v", v.Name(), lease.Addr, err)
		}
		lease6, err := v.Dhclient6(t.Context())
		if err != nil || lease6.Addr.String() != c.address(v, 6) {
			t.Fatalf("DHCPv6 of %s: %v, %v", v.Name(), lease6.Addr, err)
		}
		c.eventually(v.Name()+" hears of its router", func() error {
			if route := c.defaultRoute(v); !strings.Contains(route, "proto ra") {
				return fmt.Errorf("default route: %q", route)
			}
			return nil
		})
	}
	for _, version := range []int{4, 6} {
		c.cutOff(none.Node, c.address(peer, version))
		c.cutOff(peer.Node, c.address(none, version))
		for v, other := range map[*vm]*vm{none: peer, peer: none} {
			if out := c.exec(v.Node, "ip", "neigh", "show", c.address(other, version)); !strings.Contains(out, "lladdr "+other.mac()) {
				t.Errorf("%s did not find %s: %q", v.Name(), c.address(other, version), out)
			}
		}
	}
	// They are cut off by the groups, and by nothing else.
	c.update("port", none.id(), object{"security_groups": peer.port["security_groups"]})
	for _, version := range []int{4, 6} {
		c.reaches(none.Node, c.address(peer, version))
		c.reaches(peer.Node, c.address(none, version))
	}
}

// What Planck itself answers is what a VM sends, too: its groups have to allow it.
func TestRoutersAndDHCPServersArePingedAsGroupsAllow(t *testing.T) {
	t.Parallel()
	c := newCloud(t, 1, nil, "")
	id := c.network("blue", "10.0.0.0/24", nil)
	router := c.router("blue", id)
	c.attachSubnet(router, c.subnet6(id, "fd00::/64", nil))
	v := c.boot("v", "host1", id, object{"tenant_id": "blue"})
	c.dhcp(v)
	c.add6(v, c.address(v, 6))
	served := []string{"10.0.0.1", c.dhcpServer(id), "fd00::1", linkLocal(t, c.routerMAC(id)) + "%eth0"}
	answered := func(why string) {
		t.Helper()
		for _, address := range served {
			c.eventually(address+" answers "+why, func() error {
				if _, received, _ := v.Ping(t.Context(), address, 1, "-W", "1"); received == 0 {
					return fmt.Errorf("it does not")
				}
				return nil
			})
		}
	}
	answered("by the default group")
	inward := c.group("blue", "inward", anyIPv4, object{"ethertype": "IPv6"})
	c.noEgress(inward)
	for _, given := range []object{groups(), groups(inward)} {
		c.update("port", v.id(), given)
		for _, address := range served {
			c.eventually(address+" is silent", func() error {
				if _, received, _ := v.Ping(t.Context(), address, 1, "-W", "1"); received != 0 {
					return fmt.Errorf("it answers")
				}
				return nil
			})
			c.cutOff(v.Node, address)
		}
	}
	c.rule(inward, object{"direction": "egress", "protocol": "icmp", "port_range_min": 8})
	c.rule(inward, object{"direction": "egress", "protocol": "icmp", "port_range_min": 128, "ethertype": "IPv6"})
	answered("by a rule for its type")
	c.update("port", v.id(), object{"security_groups": []string{}, "port_security_enabled": false})
	answered("without port security")
}

// A server lets in the members of a group, by their own addresses and by those of
// their address pairs, in both families.
func TestRemoteGroupsHoldForAddressPairsAndIPv6(t *testing.T) {
	t.Parallel()
	c := newCloud(t, 2, nil, "")
	id := c.network("blue", "10.0.0.0/24", nil)
	c.subnet6(id, "fd00::/64", nil)
	port80 := func(ethertype, direction, remote string) object {
		return object{"protocol": "tcp", "port_range_min": 80, "port_range_max": 80, "ethertype": ethertype, "direction": direction, "remote_group_id": remote}
	}
	client := c.group("blue", "client")
	server := c.group("blue", "server", port80("IPv4", "ingress", client), port80("IPv6", "ingress", client))
	boot := func(name, host, group string, n int) *vm {
		pair4, pair6 := fmt.Sprint("10.0.9.", n), fmt.Sprint("fd00:9::", n)
		v := c.boot(name, host, id, object{
			"security_groups":       []string{group},
			"allowed_address_pairs": []object{{"ip_address": pair4}, {"ip_address": pair6}},
		})
		for _, address := range []string{c.address(v, 4) + "/24", c.address(v, 6) + "/64", pair4 + "/24", pair6 + "/64"} {
			if err := v.SetAddr(t.Context(), address); err != nil {
				t.Fatal(err)
			}
		}
		return v
	}
	a, b := boot("a", "host1", client, 1), boot("b", "host2", server, 2)
	stranger := boot("stranger", "host1", c.group("blue", "others"), 3)
	own4, own6 := c.address(b, 4), c.address(b, 6)
	for _, address := range []string{own4, own6, "10.0.9.2", "fd00:9::2"} {
		c.opens(a, "tcp", address, 80)
		c.shut(a, "tcp", address, 81)
		c.shut(stranger, "tcp", address, 80)
	}

	c.noEgress(client)
	c.eventually("nothing leaves without a rule", func() error {
		if knock(a.Node, "tcp", own6, 80) {
			return fmt.Errorf("it still does")
		}
		return nil
	})
	c.rule(client, port80("IPv6", "egress", server))
	c.opens(a, "tcp", own6, 80)
	c.opens(a, "tcp", "fd00:9::2", 80)
	c.shut(a, "tcp", own4, 80)
	c.shut(a, "tcp", c.address(stranger, 6), 80)
}
