package bench

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"regexp"
	"testing"
	"time"
)

// BenchmarkL3 sends streams of TCP, and pings, over routers: within a host, to
// another host, and to the outside by a floating IP, by a gateway on the VM's own
// host and by one on another host. Beside each it sends them over switches that
// only have NORMAL, which route nothing: there the two ends are on one network.
func BenchmarkL3(b *testing.B) {
	t := newTable("l3")
	ours, normal := newRoutedPaths(b), newNormalPaths(b)
	within, across, out := normal[0], normal[1], normal[2]
	for i, c := range []struct {
		what string
		peer *path
		aim  string
	}{
		{"routed within a host", within, "≤ 1.1×"},
		{"routed to another host", across, "≤ 1.1×"},
		{"to the outside by a floating IP", out, "≤ 1.1×"},
		{"to the outside by SNAT on the VM's host", out, "≤ 1.1×"},
		{"to the outside by SNAT on another host", across, ""},
	} {
		a, peer := compare(ours[i], c.peer)
		first, steady := ours[i].latency()
		peerFirst, peerSteady := c.peer.latency()
		t.add(row{
			what: c.what + ": CPU of the switches for each Gbit", ours: a.perGbit(), peer: peer.perGbit() + " (NORMAL)",
			ratio: times(a.cpuPerGbit() / peer.cpuPerGbit()), aim: c.aim,
		}, row{
			what: c.what + ": throughput", ours: a.rate(), peer: peer.rate() + " (NORMAL)",
			ratio: times(a.gbits / a.took.Seconds() / (peer.gbits / peer.took.Seconds())), aim: map[bool]string{true: "≥ 0.9×"}[c.aim != ""],
		}, row{
			what: c.what + ": ping, the first that the datapath does not know / after it", ours: ms(first) + " / " + ms(steady),
			peer: ms(peerFirst) + " / " + ms(peerSteady) + " (NORMAL)", ratio: times(steady.Seconds() / peerSteady.Seconds()),
		})
	}
}

// newRoutedPaths are over one router with two networks and a gateway.
func newRoutedPaths(tb testing.TB) []*path {
	tb.Helper()
	c := newLabCloud(tb, 2, "[OVS]\nnetwork_vlan_ranges = physnet1:100:199\n")
	blue, green := c.network("10.1.0.0/24", nil), c.network("10.2.0.0/24", nil)
	public := c.mustCreate("network", object{"router:external": true, "provider:network_type": "flat", "provider:physical_network": "physnet1"})
	c.mustCreate("subnet", object{
		"network_id": public, "cidr": "203.0.113.0/24", "gateway_ip": "203.0.113.1", "ip_version": 4, "enable_dhcp": false,
		"allocation_pools": []object{{"start": "203.0.113.100", "end": "203.0.113.199"}},
	})
	router := c.mustCreate("router", object{"external_gateway_info": object{"network_id": public}})
	for _, n := range []string{blue, green} {
		c.addInterface(router, n)
	}
	a, near, far := c.boot("a", "host1", blue), c.boot("b", "host1", green), c.boot("c", "host2", green)
	for _, v := range []*vm{a, near, far} {
		setAddress(tb, v.Node, v.ip.String())
		gateway := v.ip.As4()
		gateway[3] = 1
		c.must(v.Exec(tb.Context(), "ip", "route", "add", "default", "via", netip.AddrFrom4(gateway).String()))
	}
	c.mustCreate("floatingip", object{"floating_network_id": public, "port_id": near.Port.ID})
	atGateway, elsewhere := a, far
	if c.gatewayHost() == "host2" {
		atGateway, elsewhere = far, a
	}
	paths := []*path{
		newPath(tb, c.lab, a.Node, near.Node, near.ip.String()),
		newPath(tb, c.lab, a.Node, far.Node, far.ip.String()),
		newPath(tb, c.lab, near.Node, c.lab.Ext(), "203.0.113.1"),
	}
	for _, v := range []*vm{atGateway, elsewhere} {
		paths = append(paths, &path{TB: tb, lab: c.lab, client: v.Node, address: "203.0.113.1"})
	}
	for _, p := range paths {
		p.comesThrough()
	}
	return paths
}

func (c *labCloud) addInterface(router, network string) {
	c.Helper()
	var list struct{ Subnets []struct{ ID string } }
	if err := c.get("/v2.0/subnets?network_id="+network, &list); err != nil {
		c.Fatal(err)
	}
	body, err := json.Marshal(object{"subnet_id": list.Subnets[0].ID})
	if err != nil {
		c.Fatal(err)
	}
	if status, answer, err := c.request("PUT", "/v2.0/routers/"+router+"/add_router_interface", body); err != nil || status != 200 {
		c.Fatalf("interface: %d %s %v", status, answer, err)
	}
}

// gatewayHost is the host that has the only gateway.
func (c *labCloud) gatewayHost() (name string) {
	c.Helper()
	c.eventually("a host has the gateway", func() error {
		var answer struct {
			Hosts []struct {
				Name    string
				Gateway struct{ Active int }
			}
		}
		if err := c.get("/planck/v1/hosts", &answer); err != nil {
			return err
		}
		for _, h := range answer.Hosts {
			if h.Gateway.Active > 0 {
				name = h.Name
				return nil
			}
		}
		return fmt.Errorf("none of %+v", answer.Hosts)
	})
	return name
}

// comesThrough waits until the other end answers: the first packets look for it.
func (p *path) comesThrough() {
	p.Helper()
	deadline := time.Now().Add(patience)
	for {
		_, received, err := p.client.Ping(p.Context(), p.address, 1, "-W", "1")
		if received > 0 {
			return
		}
		if time.Now().After(deadline) {
			p.Fatalf("%s does not reach %s: %v", p.client.Name(), p.address, err)
		}
	}
}

var pingTime = regexp.MustCompile(`time=([0-9.]+ ms)`)

// latency is the median time of a ping whose flow the datapaths have forgotten,
// and of those that follow it.
func (p *path) latency() (first, steady time.Duration) {
	p.Helper()
	const rounds, pings = 8, 5
	var firsts, others []time.Duration
	for range rounds {
		for _, h := range p.lab.Hosts() {
			if _, err := h.Appctl("dpctl/del-flows"); err != nil {
				p.Fatal(err)
			}
		}
		out, err := p.client.Exec(p.Context(), "ping", "-n", "-c", fmt.Sprint(pings), "-i", "0.1", p.address)
		if err != nil {
			p.Fatalf("%v\n%s", err, out)
		}
		for i, d := range pingTimes(p, out) {
			if i == 0 {
				firsts = append(firsts, d)
				continue
			}
			others = append(others, d)
		}
	}
	return percentile(firsts, 50), percentile(others, 50)
}

func pingTimes(tb testing.TB, out string) (all []time.Duration) {
	tb.Helper()
	for _, m := range pingTime.FindAllStringSubmatch(out, -1) {
		var milliseconds float64
		if _, err := fmt.Sscanf(m[1], "%f ms", &milliseconds); err != nil {
			tb.Fatal(err)
		}
		all = append(all, time.Duration(milliseconds*float64(time.Millisecond)))
	}
	return all
}
