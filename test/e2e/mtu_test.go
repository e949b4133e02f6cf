package e2e

import (
	"fmt"
	"strings"
	"testing"

	"planck/test/lab"
)

// isTold pings with packets that may not be fragmented, until the answer is that
// an MTU on the way is less.
func (c *cloud) isTold(from *lab.Node, dst string, size int, mtu string) {
	c.Helper()
	c.eventually(from.Name()+" is told the MTU towards "+dst, func() error {
		out, _ := from.Exec(c.Context(), "ping", "-n", "-M", "do", "-c", "1", "-W", "1", "-s", fmt.Sprint(size), dst)
		if !strings.Contains(out, mtu) {
			return fmt.Errorf("%s", out)
		}
		return nil
	})
}

// fits checks that packets which may not be fragmented get through.
func (c *cloud) fits(from *lab.Node, dst string, size int) {
	c.Helper()
	if _, received, err := from.Ping(c.Context(), dst, 1, "-M", "do", "-s", fmt.Sprint(size), "-w", "20"); received == 0 {
		c.Errorf("%s: %d bytes to %s get lost: %v", from.Name(), size, dst, err)
	}
}

// A packet of MTU 1458 has 1430 bytes of ping in IPv4, and 1410 in IPv6.
func TestRoutersTellTheMTUOfTheWay(t *testing.T) {
	t.Parallel()
	c := newCloud(t, 2, nil, physicalNetwork)
	c.hostsUp()
	anyTraffic := c.anyTraffic()
	public := c.outside()
	gre := c.network("blue", "10.0.0.0/24", nil)
	vlan := c.network("blue", "10.0.1.0/24", object{
		"provider:network_type": "vlan", "provider:physical_network": "physnet1", "provider:segmentation_id": 120,
	})
	r := c.router("blue", gre, vlan)
	c.setGateway(r, public, nil)
	gateway := c.placed()
	other := map[string]string{"host1": "host2", "host2": "host1"}[gateway]
	small, near, wide := c.boot("small", gateway, gre, anyTraffic), c.boot("near", other, gre, anyTraffic), c.boot("wide", other, vlan, anyTraffic)
	for _, v := range []*vm{small, near, wide} {
		c.dhcp(v)
	}
	ext := c.lab.Ext()
	_, floating := c.floatingIP(public, small)
	c.comesThrough(wide.Node, small.ip())
	c.comesThrough(ext, floating)

	c.isTold(wide.Node, small.ip(), 1431, "(mtu = 1458)")
	c.isTold(wide.Node, near.ip(), 1472, "(mtu = 1458)")
	c.fits(wide.Node, small.ip(), 1430)
	c.isTold(ext, floating, 1431, "(mtu = 1458)")
	c.fits(ext, floating, 1430)
	c.comesThrough(wide.Node, "203.0.113.1")
	// The router's gateway is behind a tunnel.
	c.isTold(wide.Node, "203.0.113.1", 1431, "(mtu = 1458)")
	c.fits(wide.Node, "203.0.113.1", 1430)

	// Whoever was not told yet sends segments of 1460 bytes, and goes on.
	c.ip(small.Node, "route", "replace", "default", "via", "10.0.0.1", "advmss", "1460")
	for _, from := range []*lab.Node{wide.Node, ext} {
		c.ip(from, "route", "flush", "cache")
	}
	c.transfer(wide.Node, small.Node, small.ip(), 2)
	c.transfer(ext, small.Node, floating, 2)
}

// A router beyond the cloud says that a packet is too big: the VM behind a
// translation hears of it.
func TestErrorsFromOutsideReachTheVMBehindATranslation(t *testing.T) {
	t.Parallel()
	c := newCloud(t, 2, nil, physicalNetwork)
	c.hostsUp()
	public := c.outside()
	blue := c.network("blue", "10.0.0.0/24", nil)
	c.setGateway(c.router("blue", blue), public, nil)
	a, b := c.boot("a", "host1", blue, c.anyTraffic()), c.boot("b", "host2", blue, c.anyTraffic())
	ext := c.lab.Ext()
	c.ip(ext, "link", "add", "narrow", "mtu", "1000", "type", "veth", "peer", "name", "beyond")
	c.ip(ext, "addr", "add", "192.0.2.1/24", "dev", "narrow")
	c.ip(ext, "link", "set", "narrow", "up")
	c.ip(ext, "link", "set", "beyond", "up")
	if out, err := ext.Exec(t.Context(), "sysctl", "-w", "net.ipv4.ip_forward=1"); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	for _, v := range []*vm{a, b} {
		c.dhcp(v)
		c.comesThrough(v.Node, "203.0.113.1")
		c.isTold(v.Node, "192.0.2.77", 1100, "(mtu = 1000)")
	}
	c.floatingIP(public, b)
	c.comesThrough(b.Node, "203.0.113.1")
	c.isTold(b.Node, "192.0.2.78", 1100, "(mtu = 1000)")
}
