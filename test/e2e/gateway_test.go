package e2e

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"planck/test/lab"
)

// gatewayState is the part of a host in carrying gateways.
type gatewayState struct {
	Active, Standby int
	Health, Reason  string
}

// gateways are the parts of all hosts.
func (c *cloud) gateways() map[string]gatewayState {
	c.Helper()
	var out struct {
		Hosts []struct {
			Name    string
			Gateway gatewayState
		}
	}
	c.operator("hosts", nil, &out)
	found := map[string]gatewayState{}
	for _, h := range out.Hosts {
		found[h.Name] = h.Gateway
	}
	return found
}

// external makes the network of ext, beyond which is the Internet.
func (c *cloud) external() string {
	c.Helper()
	id := c.create("network", object{
		"name": "public", "router:external": true, "provider:network_type": "flat", "provider:physical_network": "physnet1",
	})["id"].(string)
	c.create("subnet", object{
		"network_id": id, "cidr": "203.0.113.0/24", "gateway_ip": "203.0.113.1", "ip_version": 4, "enable_dhcp": false,
		"allocation_pools": []object{{"start": "203.0.113.100", "end": "203.0.113.199"}},
	})
	return id
}

// watched waits until all gateway hosts are well, by what n others each see of them.
func (c *cloud) watched(hosts []*lab.Host) {
	c.Helper()
	c.eventually("BFD is up between all hosts", func() error {
		for _, h := range hosts {
			out := c.vsctl(h.Name(), "--columns=bfd_status", "--bare", "find", "Interface", "external_ids:planck-peer!=\"\"")
			if up := strings.Count(out, "forwarding=true"); up != len(hosts)-1 {
				return fmt.Errorf("%s sees %d others, its status is %s", h.Name(), up, out)
			}
		}
		for name, g := range c.gateways() {
			if g.Health != "up" {
				return fmt.Errorf("%s is %s: %s", name, g.Health, g.Reason)
			}
		}
		return nil
	})
}

func TestGatewayHostsAreWatchedAndTrafficGoesOn(t *testing.T) {
	t.Parallel()
	f := newFire(t, 3, "")
	stream := f.ping()
	public := f.external()
	for i := range 6 {
		f.create("router", object{"name": fmt.Sprintf("r%d", i), "external_gateway_info": object{"network_id": public}})
	}
	f.watched(f.lab.Hosts())
	for name, g := range f.gateways() {
		if g.Active != 2 || g.Standby != 4 {
			t.Errorf("%s has %d gateways and stands by for %d", name, g.Active, g.Standby)
		}
	}
	// What the peer's port draws to itself is let in: not a packet is lost.
	f.flowing(stream)
	f.lossless("the tunnel ports towards gateway hosts came", stream)

	stream = f.ping()
	f.kill(syscall.SIGKILL)
	f.flowing(stream)
	f.start()
	f.live(3)
	f.watched(f.lab.Hosts())
	f.lossless("the controller was killed and came back", stream)

	for _, death := range []struct {
		what       string
		kill, heal func(h *lab.Host) error
	}{
		{"vswitchd killed", func(h *lab.Host) error { return h.KillVswitchd(syscall.SIGKILL) }, (*lab.Host).StartVswitchd},
		{"underlay link cut", func(h *lab.Host) error { return h.LinkDown(lab.Underlay) }, func(h *lab.Host) error { return h.LinkUp(lab.Underlay) }},
	} {
		host := f.lab.Host("host3")
		begin := time.Now()
		if err := death.kill(host); err != nil {
			t.Fatal(err)
		}
		f.eventually(death.what+": the others take over", func() error {
			g := f.gateways()
			if g["host3"].Active != 0 || g["host1"].Active != 3 || g["host2"].Active != 3 {
				return fmt.Errorf("gateways are on %v", g)
			}
			return nil
		})
		t.Logf("%s: the others have its gateways after %v", death.what, time.Since(begin).Round(time.Millisecond))
		if err := death.heal(host); err != nil {
			t.Fatal(err)
		}
		back := time.Now()
		f.within(2 * settle)
		deadline := time.Now().Add(3 * settle)
		for f.gateways()["host3"].Active != 2 {
			if time.Now().After(deadline) {
				t.Fatalf("%s: it does not get its gateways back: %v", death.what, f.gateways())
			}
			time.Sleep(100 * time.Millisecond)
		}
		if held := time.Since(back); held < 15*time.Second {
			t.Errorf("%s: it got its gateways back %v after it returned", death.what, held)
		}
	}
}
