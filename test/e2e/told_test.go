package e2e

import (
	"errors"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
)

// What stops traffic and breaks no rule of OpenFlow is named all the same.
func TestOperatorIsToldWhatStopsTraffic(t *testing.T) {
	t.Parallel()
	c := newCloud(t, 2, nil, "[openflow]\npunt_rate_per_port = 10\n")
	id := c.network("blue", "10.0.0.0/24", nil)
	loud, quiet := c.boot("loud", "host1", id, nil), c.boot("quiet", "host2", id, nil)
	says := func(what string, tell func() string, wants ...string) {
		c.Helper()
		c.eventually(what, func() error {
			got := tell()
			for _, want := range wants {
				if !strings.Contains(got, want) {
					return errors.New("it says:\n" + got)
				}
			}
			return nil
		})
	}
	explain := func(v *vm) func() string { return func() string { return c.planck("explain", v.id()) } }
	hosts := func() string { return c.planck("hosts") }
	says("a port of which the model knows nothing bad", explain(quiet), "nothing is wrong with it", "planck diff")

	request := ethernet(t, everybody, loud.mac(), etherIPv4, udp4("0.0.0.0", "255.255.255.255", 68, 67, discover(t, loud.mac())))
	stop := c.flood(loud, func(int) []byte { return request })
	says("a machine that is too loud", explain(loud), "more dhcp packets", "punt_rate_per_port")
	stop()
	if log, err := os.ReadFile(c.log); err != nil || !strings.Contains(string(log), "port_id="+loud.id()) {
		t.Errorf("the log does not name the port (%v)", err)
	}

	own := c.lab.Host("host2").LocalIP()
	c.vsctl("host2", "set", "open", ".", "external_ids:planck-local-ip="+c.lab.Host("host1").LocalIP())
	says("two hosts with one tunnel address", hosts, "is also that of host1", "is also that of host2")
	says("a port on one of them", explain(quiet), "is also that of host1", "planck-local-ip")
	c.vsctl("host2", "set", "open", ".", "external_ids:planck-local-ip="+own)
	c.eventually("that is over", func() error {
		if got := hosts(); strings.Contains(got, "is also") {
			return errors.New(got)
		}
		return nil
	})

	if err := c.lab.Host("host2").KillOvsdb(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	says("a host whose database is dead", explain(quiet), "the database of host host2 is not connected")
	if err := c.lab.Host("host2").StartOvsdb(); err != nil {
		t.Fatal(err)
	}
	c.dhcp(quiet)
}

// VMs know the MAC of the router that was there before.
func TestRouterThatIsMadeAnewTellsItsNetworks(t *testing.T) {
	t.Parallel()
	c := newCloud(t, 2, nil, "")
	id := c.network("blue", "10.0.0.0/24", nil)
	subnet := c.show("network", id)["subnets"].([]any)[0].(string)
	a, b := c.boot("a", "host1", id, nil), c.boot("b", "host2", id, nil)
	router := c.create("router", object{"name": "old"})["id"].(string)
	c.attachSubnet(router, subnet)
	for _, v := range []*vm{a, b} {
		c.dhcp(v)
		c.reaches(v.Node, "10.0.0.1")
	}
	captures := map[*vm]func(mac string){}
	for _, v := range []*vm{a, b} {
		capture := c.capture(v.Node, "eth0", "arp")
		captures[v] = func(mac string) { c.announced(capture, mac, "10.0.0.1") }
	}
	c.call(http.MethodPut, "/v2.0/routers/"+router+"/remove_router_interface", object{"subnet_id": subnet})
	c.delete("router", router)
	router = c.create("router", object{"name": "new"})["id"].(string)
	c.attachSubnet(router, subnet)
	for _, v := range []*vm{a, b} {
		captures[v](c.routerMAC(id))
		c.reaches(v.Node, "10.0.0.1")
	}
}
