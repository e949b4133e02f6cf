package e2e

import (
	"syscall"
	"testing"
)

// What conntrack knew of translations goes with ovs-vswitchd. A connection keeps
// its floating IP, which stands for one address; one behind a gateway is
// translated anew when its VM sends, to the same address and, as long as nobody
// else has it, the same port.
func TestTranslatedConnectionsOutliveTheSwitch(t *testing.T) {
	t.Parallel()
	c := newCloud(t, 1, nil, physicalNetwork)
	anyTraffic := c.anyTraffic()
	public := c.outside()
	blue := c.network("blue", "10.0.0.0/24", nil)
	c.setGateway(c.router("blue", blue), public, nil)
	known, hidden := c.boot("known", "host1", blue, anyTraffic), c.boot("hidden", "host1", blue, anyTraffic)
	c.dhcp(known)
	c.dhcp(hidden)
	_, address := c.floatingIP(public, known)
	ext := c.lab.Ext()
	c.comesThrough(ext, address)
	c.comesThrough(hidden.Node, "203.0.113.1")
	in := c.slowStream(ext, known.Node, address)
	out := c.slowStream(hidden.Node, ext, "203.0.113.1")
	host := c.lab.Host("host1")
	if err := host.KillVswitchd(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := host.StartVswitchd(); err != nil {
		t.Fatal(err)
	}
	c.comesThrough(ext, address)
	c.comesThrough(hidden.Node, "203.0.113.1")
	in()
	out()
}
