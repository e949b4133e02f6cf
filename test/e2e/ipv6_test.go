package e2e

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
)

// network6 makes a network with one IPv6 subnet for a tenant and returns its id.
func (c *cloud) network6(tenant, cidr string, attrs object) string {
	c.Helper()
	id := c.network(tenant, "", nil)
	c.subnet6(id, cidr, attrs)
	return id
}

func (c *cloud) subnet6(networkID, cidr string, attrs object) string {
	c.Helper()
	body := object{"ip_version": 6}
	for k, v := range attrs {
		body[k] = v
	}
	return c.subnet(networkID, cidr, body)
}

// address6 gives a VM the address of its port by hand, and waits until the
// kernel has found no duplicate.
func (c *cloud) address6(v *vm) {
	c.Helper()
	c.add6(v, v.ip())
	c.eventually(v.Name()+" finds its address free", func() error { return v.addressIs(c, v.ip(), "") })
}

func (c *cloud) add6(v *vm, address string) {
	c.Helper()
	if out, err := v.Exec(c.Context(), "ip", "-6", "addr", "add", address+"/64", "dev", "eth0"); err != nil {
		c.Fatalf("%v\n%s", err, out)
	}
}

// addressIs checks that a VM has an address with a flag, or with neither
// tentative nor dadfailed when the flag is "".
func (v *vm) addressIs(c *cloud, address, flag string) error {
	out, err := v.Exec(c.Context(), "ip", "-6", "-o", "addr", "show", "dev", "eth0")
	if err != nil {
		return err
	}
	for line := range strings.Lines(out) {
		if !strings.Contains(line, " "+address+"/") {
			continue
		}
		if flag == "" && !strings.Contains(line, "tentative") && !strings.Contains(line, "dadfailed") || flag != "" && strings.Contains(line, flag) {
			return nil
		}
	}
	return fmt.Errorf("%s:\n%s", address, out)
}

// forget6 makes a VM forget its neighbours.
func (c *cloud) forget6(v *vm) {
	c.Helper()
	if out, err := v.Exec(c.Context(), "ip", "-6", "neigh", "flush", "dev", "eth0"); err != nil {
		c.Fatalf("%v\n%s", err, out)
	}
}

func TestNeighborsAreFoundByIPv6(t *testing.T) {
	t.Parallel()
	c := newCloud(t, 2, nil, "")
	blue := c.network6("blue", "fd00:1::/64", nil)
	a, b, far := c.boot("a", "host1", blue, nil), c.boot("b", "host1", blue, nil), c.boot("far", "host2", blue, nil)
	for _, v := range []*vm{a, b, far} {
		c.address6(v)
	}
	overheard := c.watch(b)
	c.reaches(a.Node, b.ip())
	c.reaches(a.Node, far.ip())
	c.reaches(a.Node, linkLocal(t, far.mac())+"%eth0")
	c.reaches(a.Node, c.dhcpServer(blue))

	// A VM that takes a neighbour's address finds it in use, on whatever host.
	for _, v := range []*vm{b, far} {
		c.add6(v, a.ip())
		c.eventually(v.Name()+" finds the address in use", func() error { return v.addressIs(c, a.ip(), "dadfailed") })
	}
	c.send(a, ethernet(t, everybody, a.mac(), etherIPv6, neighborAdvertisement(t, linkLocal(t, a.mac()), far.ip(), a.mac())))
	c.mark(a)
	if text := overheard(); strings.Contains(text, "who has "+far.ip()) || strings.Contains(text, "tgt is "+far.ip()) {
		t.Errorf("a question that the controller answers, or a forged answer, reached a neighbour:\n%s", text)
	}

	// The answers stay in the switch: without a controller, a VM that forgot its
	// neighbours finds them again.
	c.eventually("the answers are in the switch", func() error {
		if flows := c.flows("host1", "br-int"); !strings.Contains(flows, "nd_target="+far.ip()+" actions=move:NXM_OF_ETH_SRC") {
			return fmt.Errorf("no reply flow:\n%s", flows)
		}
		return nil
	})
	stream, err := a.PingStream(t.Context(), far.ip())
	if err != nil {
		t.Fatal(err)
	}
	c.kill(syscall.SIGKILL)
	c.forget6(a)
	if err := stream.WaitReplies(c.within(settle), 50); err != nil {
		t.Fatal(err)
	}
	c.start()
	c.eventually("all six bridges are live", func() error {
		if live := c.metric("planck_openflow_sessions", ""); live != 6 {
			return fmt.Errorf("%v are", live)
		}
		return nil
	})
	stats, err := stream.Stop()
	if err != nil {
		t.Fatal(err)
	}
	if stats.Lost != 0 {
		t.Errorf("%d of %d packets lost", stats.Lost, stats.Sent)
	}
	if sent := c.metric("planck_flow_mods_total", ""); sent != 0 {
		t.Errorf("the new controller sent %v FLOW_MODs", sent)
	}
}
