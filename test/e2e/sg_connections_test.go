package e2e

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"regexp"
	"strings"
	"syscall"
	"testing"
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

func TestConnectionsOutliveTheSwitchAndAMoveWhereRulesAllowThem(t *testing.T) {
	t.Parallel()
	c := newCloud(t, 3, nil, "")
	id := c.network("blue", "10.0.0.0/24", nil)
	a := c.boot("a", "host1", id, groups(c.group("blue", "client")))
	b := c.boot("b", "host2", id, groups(c.group("blue", "server", object{"protocol": "tcp", "port_range_min": 5201, "port_range_max": 5201})))
	c.dhcp(a)
	c.dhcp(b)
	stop := c.stream(a, b)
	defer stop()
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
	flowing("a restart of the switch")
	if err := b.Migrate(t.Context(), "host3"); err != nil {
		t.Fatal(err)
	}
	c.update("port", b.id(), object{"binding:host_id": "host3"})
	c.waitStatus(b.id(), "ACTIVE")
	flowing("the move of the receiver")
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
