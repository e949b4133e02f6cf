package e2e

import (
	"context"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"planck/test/lab"
)

// A host with two managers that lead to the same controller has two live
// connections: one is the host, the other waits, and takes over when the first
// dies, also when it dies without a word.
func TestHostThatDialsInTwice(t *testing.T) {
	t.Parallel()
	f := newFire(t, 2, "")
	host := f.lab.Host("host2")
	direct := "tcp:controller:" + f.ovsdbPort()
	way := f.detour()
	sent := f.metric("planck_flow_mods_total", `kind="desired"`)
	stream, statuses := f.ping(), f.watchStatus(f.b)
	if err := host.SetManager(direct, way.target); err != nil {
		t.Fatal(err)
	}
	f.eventually("the second connection is refused, plainly", func() error {
		return f.refused("host2", "is connected from")
	})
	h := f.hostNow("host2")
	if err := h.trouble(); err != nil {
		t.Errorf("the host that dials in twice: %v", err)
	}
	if err := host.SetManager(way.target); err != nil {
		t.Fatal(err)
	}
	f.since(time.Now(), "the host is live by its second connection", func() error {
		h := f.hostNow("host2")
		if !strings.HasPrefix(h.OVSDB.Remote, f.lab.ControllerIP()+":") {
			return fmt.Errorf("it is connected from %q", h.OVSDB.Remote)
		}
		return h.trouble()
	})
	f.whole("the first connection gone")
	// The way goes dead without a word; the host dials in again on another.
	way.silent.Store(true)
	redialled := time.Now()
	if err := host.SetManager(direct); err != nil {
		t.Fatal(err)
	}
	v := f.plug("later", "host2", f.create("port", f.portBody("later", f.network, nil)))
	f.vms = append(f.vms, v)
	f.since(redialled, "a port is ACTIVE by the new connection", func() error {
		if status := f.show("port", v.id())["status"]; status != "ACTIVE" {
			return fmt.Errorf("it is %v", status)
		}
		return nil
	})
	if h := f.hostNow("host2"); !strings.HasPrefix(h.OVSDB.Remote, host.ManagementIP()+":") {
		t.Errorf("the host is connected from %q", h.OVSDB.Remote)
	}
	f.dhcp(v)
	f.lossless("two connections", stream)
	statuses()
	t.Logf("%v FLOW_MODs in all, for the new port", f.metric("planck_flow_mods_total", `kind="desired"`)-sent)
	f.right()
	f.nothingLeft()
}

// refused is nil when a connection under a name is refused for a reason.
func (f *fire) refused(name, why string) error {
	var seen []string
	for _, h := range f.hostStates() {
		if h.Name == name && strings.Contains(h.OVSDB.Problem, why) {
			return nil
		}
		seen = append(seen, fmt.Sprintf("%s (%s): %q", h.Name, h.OVSDB.SystemID, h.OVSDB.Problem))
	}
	return fmt.Errorf("the problems of hosts are: %v", seen)
}

func (c *cloud) ovsdbPort() string {
	listen := c.args[slices.Index(c.args, "--ovsdb-listen")+1]
	return listen[strings.LastIndex(listen, ":")+1:]
}

// detour is another way to the OVSDB port.
type detour struct {
	target string      // for SetManager
	silent atomic.Bool // it swallows what it is given, and goes on
}

func (f *fire) detour() *detour {
	f.Helper()
	l, err := net.Listen("tcp", ":0")
	if err != nil {
		f.Fatal(err)
	}
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		f.Fatal(err)
	}
	d := &detour{target: "tcp:controller:" + port}
	to := net.JoinHostPort(f.lab.ControllerIP(), f.ovsdbPort())
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			running.Go(func() { d.pass(ctx, conn, to) })
		}
	})
	f.Cleanup(func() {
		cancel()
		l.Close()
		running.Wait()
	})
	return d
}

func (d *detour) pass(ctx context.Context, from net.Conn, address string) {
	to, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		from.Close()
		return
	}
	shut := func() {
		// Ends that are silent don't hang up either, until the test is over.
		if d.silent.Load() {
			<-ctx.Done()
		}
		from.Close()
		to.Close()
	}
	stop := context.AfterFunc(ctx, func() {
		from.Close()
		to.Close()
	})
	defer stop()
	var both sync.WaitGroup
	for _, ends := range [][2]net.Conn{{from, to}, {to, from}} {
		both.Go(func() {
			// Its errors are the ends of connections.
			_, _ = io.Copy(&valve{d, ends[1]}, ends[0])
			shut()
		})
	}
	both.Wait()
}

// valve passes on what is written, unless the detour is silent.
type valve struct {
	d  *detour
	to io.Writer
}

func (v *valve) Write(b []byte) (int, error) {
	if v.d.silent.Load() {
		return len(b), nil
	}
	return v.to.Write(b)
}

func TestHostThatTakesAnothersNameIsRefusedAndHarmsNobody(t *testing.T) {
	t.Parallel()
	f := newFire(t, 3, "")
	third := f.lab.Host("host3")
	c := f.boot("c", "host3", nil)
	f.dhcp(c)
	f.reaches(f.a.Node, c.ip())
	stream, statuses, own := f.ping(), f.watchStatus(f.a), f.watchStatus(c)
	sent := f.metric("planck_flow_mods_total", `kind="desired"`)
	f.vsctl("host3", "set", "Open_vSwitch", ".", "external_ids:hostname=host1")
	f.eventually("the second host1 is refused, plainly", func() error { return f.refused("host1", "is connected from") })
	for _, h := range f.hostStates() {
		if h.Name == "host1" && len(h.Bridges) > 0 {
			if err := h.trouble(); err != nil {
				t.Errorf("the first host1: %v", err)
			}
		}
	}
	f.flowing(stream)
	if now := f.metric("planck_flow_mods_total", `kind="desired"`); now != sent {
		t.Errorf("%v FLOW_MODs were sent because a host took a wrong name", now-sent)
	}
	f.reaches(f.a.Node, c.ip())
	for _, h := range []string{"host1", "host2"} {
		f.eventually(h+" is as the model wants it", func() error { return f.differs(h) })
	}
	f.eventually("no claim leaked", f.leaked)
	f.vsctl("host3", "set", "Open_vSwitch", ".", "external_ids:hostname="+third.Name())
	f.since(time.Now(), "host3 is live under its own name", func() error {
		h := f.hostNow("host3")
		return h.trouble()
	})
	f.eventually("the refusal is not told any more", func() error {
		if f.refused("host1", "is connected from") == nil {
			return fmt.Errorf("it is")
		}
		return nil
	})
	f.lossless("two hosts with one name", stream)
	statuses()
	own()
	f.right()
	f.nothingLeft()
}

func TestHostThatChangesItsTunnelAddress(t *testing.T) {
	t.Parallel()
	f := newFire(t, 2, "")
	host := f.lab.Host("host2")
	stream, statuses := f.ping(), f.watchStatus(f.b)
	old := host.LocalIP()
	for _, address := range []string{otherAddress(host), old} {
		f.readdress(host, address)
		moved := time.Now()
		f.flowing(stream)
		t.Logf("half a second of traffic %v after the address was told", time.Since(moved).Round(time.Millisecond))
		f.eventually("the other host knows the new address only", func() error {
			if dump := f.flows("host1", "br-tun"); !strings.Contains(dump, "tun_src="+address+" ") || strings.Count(dump, "tun_src=") != 1 {
				return fmt.Errorf("its flows: %s", dump)
			}
			return nil
		})
		f.whole("tunnel address " + address)
	}
	f.stop("tunnel address, there and back", stream)
	statuses()
	f.right()
	f.nothingLeft()
}

// readdress gives a host another tunnel address, as its operator does.
func (f *fire) readdress(host *lab.Host, address string) {
	f.Helper()
	for _, cmd := range [][]string{
		{"ip", "addr", "flush", "dev", "br-phy"}, {"ip", "addr", "add", address + "/24", "dev", "br-phy"},
	} {
		if out, err := host.Exec(f.Context(), cmd...); err != nil {
			f.Fatalf("%v: %v %s", cmd, err, out)
		}
	}
	f.vsctl(host.Name(), "set", "Open_vSwitch", ".", "external_ids:planck-local-ip="+address)
}

// otherAddress is a free one on the underlay.
func otherAddress(h *lab.Host) string {
	ip := net.ParseIP(h.LocalIP()).To4()
	return net.IPv4(ip[0], ip[1], ip[2], ip[3]+100).String()
}
