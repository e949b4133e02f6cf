package e2e

import (
	"errors"
	"fmt"
	"net/http"
	"syscall"
	"testing"
	"time"

	"planck/test/lab"
)

func TestSwitchDiesUnderTrafficAndIsWholeWithinASecondOfItsReturn(t *testing.T) {
	t.Parallel()
	f := newFire(t, 2, "")
	host := f.lab.Host("host2")
	for _, sig := range []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM} {
		stream, writers, statuses := f.ping(), f.write(1), f.watchStatus(f.b)
		writers.answered("the API writes", http.StatusCreated, 5)
		if err := host.KillVswitchd(sig); err != nil {
			t.Fatal(err)
		}
		// A port that comes while its host's switch is away waits for it.
		late := f.plug(fmt.Sprintf("late%d", sig), "host1", f.create("port", f.portBody("late", f.network, nil)))
		f.vms = append(f.vms, late)
		f.waitStatus(late.id(), "ACTIVE")
		reads := f.metric("planck_switch_reads_total", `cause="connect"`)
		begin := time.Now()
		if err := host.StartVswitchd(); err != nil {
			t.Fatal(err)
		}
		back := time.Now()
		if err := stream.WaitReplies(f.within(settle), 1); err != nil {
			t.Fatalf("after the switch came back: %v", err)
		}
		flows := time.Since(back)
		f.eventually("the switch is whole", func() error { return f.differs("host2") })
		whole := time.Since(back)
		t.Logf("%v: the switch was back after %v, traffic %v and all flows %v later", sig,
			back.Sub(begin).Round(time.Millisecond), flows.Round(time.Millisecond), whole.Round(time.Millisecond))
		if whole > promptly {
			t.Errorf("%v: it took %v until the switch was whole", sig, whole)
		}
		// It takes no second try: each bridge is read once, and told once what it lacks.
		if n := f.metric("planck_switch_reads_total", `cause="connect"`) - reads; n != float64(len(bridges)) {
			t.Errorf("%v: %v reads of a switch with %d bridges", sig, n, len(bridges))
		}
		f.flowing(stream)
		f.stop(fmt.Sprintf("vswitchd %v", sig), stream)
		statuses()
		writers.finish()
		f.dhcp(late)
		f.reaches(late.Node, f.b.ip())
		f.whole(fmt.Sprint(sig))
	}
	f.right()
	f.nothingLeft()
}

// A switch that stands still keeps its connections open and takes nothing: the
// worst neighbour that there is.
func TestSwitchThatStandsStillHoldsNobodyUp(t *testing.T) {
	t.Parallel()
	f := newFire(t, 3, "")
	third := f.boot("third", "host3", nil)
	f.dhcp(third)
	f.reaches(f.a.Node, third.ip())
	stream, err := f.a.PingStream(f.within(settle), third.ip())
	if err != nil {
		t.Fatal(err)
	}
	writers, statuses := f.write(2), f.watchStatus(f.b)
	host := f.lab.Host("host2")
	if err := host.KillVswitchd(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	var late []*vm
	for i := range 3 {
		begin := time.Now()
		v := f.boot(fmt.Sprintf("late%d", i), "host1", nil)
		took := time.Since(begin)
		t.Logf("a port on another host was ACTIVE after %v", took.Round(time.Millisecond))
		if took > promptly {
			t.Errorf("a switch that stands still held a port back for %v", took)
		}
		f.dhcp(v)
		f.reaches(v.Node, third.ip())
		late = append(late, v)
	}
	writers.answered("the API writes", http.StatusCreated, 20)
	if err := host.KillVswitchd(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	f.since(time.Now(), "the new ports are reached from the host that stood still", func() error {
		if _, received, _ := f.b.Ping(t.Context(), late[2].ip(), 1, "-W", "1"); received == 0 {
			return fmt.Errorf("no answer")
		}
		return nil
	})
	f.lossless("between the other hosts", stream)
	statuses()
	writers.finish()
	f.right()
	f.nothingLeft()
}

// The power of a rack fails: the controller and a host's switch die at once, and
// come back in either order, the host without the taps of its VMs.
func TestPowerFailure(t *testing.T) {
	t.Parallel()
	f := newFire(t, 2, "")
	host := f.lab.Host("host2")
	for _, first := range []string{"switch", "controller"} {
		stream := f.ping()
		f.kill(syscall.SIGKILL)
		if err := errors.Join(host.KillVswitchd(syscall.SIGKILL), host.KillOvsdb(syscall.SIGKILL)); err != nil {
			t.Fatal(err)
		}
		if first == "controller" {
			f.start()
		}
		if err := errors.Join(host.StartOvsdb(), host.StartVswitchd()); err != nil {
			t.Fatal(err)
		}
		if first == "switch" {
			f.start()
		}
		back := time.Now()
		if err := stream.WaitReplies(f.within(settle), 1); err != nil {
			t.Fatalf("%s first: %v", first, err)
		}
		t.Logf("%s first: traffic %v after both were back", first, time.Since(back).Round(time.Millisecond))
		f.flowing(stream)
		f.stop(first+" first", stream)
		f.whole(first + " first")
	}
	f.right()
	// A host that booted has in its database the taps of VMs that are gone.
	if err := host.KillVswitchd(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if out, err := host.Exec(t.Context(), "ip", "link", "del", f.b.Tap()); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	if err := host.StartVswitchd(); err != nil {
		t.Fatal(err)
	}
	f.waitStatus(f.b.id(), "DOWN")
	if err := f.lab.Remove(t.Context(), f.b.Name()); err != nil {
		t.Fatal(err)
	}
	f.vms[1] = f.plug("again", "host2", f.b.port)
	f.waitStatus(f.b.id(), "ACTIVE")
	f.dhcp(f.vms[1])
	f.reaches(f.a.Node, f.b.ip())
	f.right()
	f.nothingLeft()
}

// Without its database ovs-vswitchd itself stands still: it answers no OpenFlow
// and, in user space, forwards nothing. Nothing else may come of that.
func TestDatabaseServerOfAHostRestarts(t *testing.T) {
	t.Parallel()
	f := newFire(t, 2, "")
	host := f.lab.Host("host2")
	sent := f.metric("planck_flow_mods_total", `kind="desired"`)
	stream, statuses := f.ping(), f.watchStatus(f.b)
	for _, sig := range []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM} {
		if err := host.KillOvsdb(sig); err != nil {
			t.Fatal(err)
		}
		f.eventually("the connection is seen to be gone", func() error {
			if f.hostNow("host2").OVSDB.Connected {
				return fmt.Errorf("still connected")
			}
			return nil
		})
		if err := host.StartOvsdb(); err != nil {
			t.Fatal(err)
		}
		back := time.Now()
		if err := stream.WaitReplies(f.within(settle), 1); err != nil {
			t.Fatalf("%v: after the database server came back: %v", sig, err)
		}
		t.Logf("%v: traffic %v after the database server was back", sig, time.Since(back).Round(time.Millisecond))
		f.since(back, fmt.Sprintf("%v: host2 is live", sig), func() error {
			h := f.hostNow("host2")
			return h.trouble()
		})
		f.flowing(stream)
		f.whole(fmt.Sprint(sig))
	}
	if now := f.metric("planck_flow_mods_total", `kind="desired"`); now != sent {
		t.Errorf("%v FLOW_MODs were sent because a database server restarted", now-sent)
	}
	f.stop("ovsdb-server", stream)
	statuses()
	v := f.boot("after", "host2", nil)
	f.dhcp(v)
	f.reaches(f.a.Node, v.ip())
	f.right()
	f.nothingLeft()
}

// hostNow is what is told about a connected host, or else about any of the name.
func (f *fire) hostNow(name string) hostState {
	f.Helper()
	var found hostState
	for _, h := range f.hostStates() {
		if h.Name == name && (found.Name == "" || len(h.Bridges) > 0) {
			found = h
		}
	}
	if found.Name == "" {
		f.Fatalf("host %s is not told about", name)
	}
	return found
}

// watchStatus looks at a port that has to stay ACTIVE until the returned
// function is called.
func (f *fire) watchStatus(v *vm) (stop func()) {
	seen := map[string]int{}
	end := f.poll(func() error {
		resp, err := http.Get(f.api + "/v2.0/ports/" + v.id() + "?fields=status")
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		var out struct{ Port struct{ Status string } }
		if err := decode(resp, &out); err != nil {
			return err
		}
		seen[out.Port.Status]++
		return nil
	})
	return func() {
		f.Helper()
		end()
		if len(seen) != 1 || seen["ACTIVE"] == 0 {
			f.Errorf("the status of %s changed meanwhile: %v", v.Name(), seen)
		}
	}
}

func TestManagementLinkCutAndHealed(t *testing.T) {
	t.Parallel()
	f := newFire(t, 2, "")
	host := f.lab.Host("host2")
	stream, writers, statuses := f.ping(), f.write(2), f.watchStatus(f.b)
	writers.answered("the API writes", http.StatusCreated, 5)
	if err := host.LinkDown(lab.Management); err != nil {
		t.Fatal(err)
	}
	// host2 needs the flows of a port on host1, and can't say that it has them.
	cut := time.Now()
	near := f.boot("near", "host1", nil)
	if held := time.Since(cut); held > promptly {
		t.Errorf("a host that is cut off held a port back for %v", held)
	} else {
		t.Logf("a port on another host was ACTIVE after %v", held.Round(time.Millisecond))
	}
	far := f.plug("far", "host2", f.create("port", f.portBody("far", f.network, nil)))
	// By now the switch has given its OpenFlow connections up, and the controller
	// has not: they are replaced when the link is back.
	f.since(cut, "the controller misses host2", func() error {
		if f.hostNow("host2").OVSDB.Connected {
			return fmt.Errorf("its OVSDB connection counts as up")
		}
		return nil
	})
	f.flowing(stream)
	if status := f.show("port", far.id())["status"]; status != "DOWN" {
		t.Errorf("a port on a host that is cut off is %v", status)
	}
	if err := host.LinkUp(lab.Management); err != nil {
		t.Fatal(err)
	}
	healed := time.Now()
	f.since(healed, "host2 is live", func() error {
		h := f.hostNow("host2")
		return h.trouble()
	})
	f.vms = append(f.vms, far)
	f.waitStatus(far.id(), "ACTIVE")
	t.Logf("its new port is ACTIVE %v after the link was back", time.Since(healed).Round(time.Millisecond))
	f.dhcp(far)
	f.dhcp(near)
	f.reaches(near.Node, far.ip())
	f.lossless("management link", stream)
	statuses()
	writers.finish()
	f.right()
	f.nothingLeft()
}

func TestUnderlayLinkCutAndHealed(t *testing.T) {
	t.Parallel()
	f := newFire(t, 2, "")
	host := f.lab.Host("host2")
	sent := f.metric("planck_flow_mods_total", `kind="desired"`)
	stream, statuses := f.ping(), f.watchStatus(f.b)
	if err := host.LinkDown(lab.Underlay); err != nil {
		t.Fatal(err)
	}
	f.eventually("traffic stops", func() error {
		if _, received, _ := f.a.Ping(t.Context(), f.b.ip(), 1, "-W", "1"); received != 0 {
			return fmt.Errorf("it flows")
		}
		return nil
	})
	if err := host.LinkUp(lab.Underlay); err != nil {
		t.Fatal(err)
	}
	back := time.Now()
	if err := stream.WaitReplies(f.within(settle), 1); err != nil {
		t.Fatalf("after the link was healed: %v", err)
	}
	t.Logf("traffic %v after the link was back", time.Since(back).Round(time.Millisecond))
	f.flowing(stream)
	f.stop("underlay link", stream)
	statuses()
	if now := f.metric("planck_flow_mods_total", `kind="desired"`); now != sent {
		t.Errorf("%v FLOW_MODs were sent because of a link", now-sent)
	}
	f.right()
	f.nothingLeft()
}

func TestChangesBehindTheControllersBackAreMendedAndCounted(t *testing.T) {
	t.Parallel()
	const audit = 2 * time.Second
	f := newFire(t, 2, fmt.Sprintf("[openflow]\naudit_interval = %d\n", audit/time.Second))
	host := f.lab.Host("host1")
	want := f.everything(host)
	stream := f.ping()
	for _, deed := range []struct {
		kind, what string
		cmds       [][]string
	}{
		{"unexpected", "flows added", [][]string{
			{"add-flow", "br-int", "table=0,priority=999,in_port=4711,actions=drop"},
			{"add-flow", "br-tun", "table=10,priority=999,dl_dst=02:00:00:00:00:01,actions=drop"},
			{"add-flow", "br-int", "cookie=0x504c020000000001,table=60,priority=101,dl_dst=02:00:00:00:00:01,actions=drop"},
		}},
		{"unexpected", "groups and meters added", [][]string{
			{"add-group", "br-int", "group_id=77,type=all,bucket=output:1"},
			{"add-meter", "br-int", "meter=77,pktps,bands=type=drop,rate=1"},
		}},
		{"changed", "flows changed", [][]string{
			{"mod-flows", "br-int", "table=90,actions=drop"},
			{"mod-flows", "br-tun", "table=10,actions=drop"},
		}},
		{"changed", "groups and meters changed", [][]string{
			{"mod-group", "br-tun", "group_id=1,type=all,bucket=output:1"},
			{"mod-meter", "br-int", "meter=1,pktps,bands=type=drop,rate=1"},
		}},
		{"missing", "flows deleted", [][]string{{"del-flows", "br-int", "table=60"}, {"del-flows", "br-tun"}}},
		{"missing", "groups and meters deleted", [][]string{{"del-groups", "br-int"}, {"del-meters", "br-int"}}},
		{"missing", "everything deleted", [][]string{{"del-flows", "br-int"}, {"del-groups", "br-int"}, {"del-meters", "br-int"}, {"del-flows", "br-tun"}, {"del-groups", "br-tun"}}},
	} {
		counted := f.metric("planck_drift_total", `kind="`+deed.kind+`"`)
		for _, cmd := range deed.cmds {
			if out, err := host.Ofctl(cmd...); err != nil {
				t.Fatalf("%v: %v %s", cmd, err, out)
			}
		}
		begin := time.Now()
		took := f.since(begin, deed.what+" are mended", func() error {
			if now := f.everything(host); now != want {
				return fmt.Errorf("want:\n%s\nhave:\n%s", want, now)
			}
			return nil
		})
		if took > audit+promptly {
			t.Errorf("%s: mended after %v, with an audit each %v", deed.what, took, audit)
		}
		if f.metric("planck_drift_total", `kind="`+deed.kind+`"`) == counted {
			t.Errorf("%s: not counted as %s", deed.what, deed.kind)
		}
		f.whole(deed.what)
	}
	// What others have on a mapped bridge is theirs.
	foreign := "cookie=0x1234,table=0,priority=777,dl_dst=02:00:00:00:00:01,actions=drop"
	if out, err := host.Ofctl("add-flow", "br-ex", foreign); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	reads := f.metric("planck_switch_reads_total", `cause="audit"`)
	f.eventually("every switch was read again", func() error {
		if now := f.metric("planck_switch_reads_total", `cause="audit"`); now < reads+12 {
			return fmt.Errorf("%v reads", now-reads)
		}
		return nil
	})
	if out, err := host.Ofctl("dump-flows", "br-ex", "cookie=0x1234/-1"); err != nil || len(withoutCanary(out)) == 0 {
		t.Errorf("a flow of another controller on br-ex is gone: %v\n%s", err, out)
	}
	if out, err := host.Ofctl("del-flows", "br-ex", "cookie=0x1234/-1"); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	f.flowing(stream)
	f.stop("drift", stream)
	f.right()
	f.nothingLeft()
}

// everything is what a host's own bridges have: flows (those that are cached
// left out), groups and meters.
func (f *fire) everything(host *lab.Host) string {
	f.Helper()
	var all string
	for _, bridge := range []string{"br-int", "br-tun"} {
		all += withoutCached(withoutCanary(f.flows(host.Name(), bridge)))
		for _, dump := range []string{"dump-groups", "dump-meters"} {
			out, err := host.Ofctl(dump, bridge)
			if err != nil {
				f.Fatal(err)
			}
			all += withoutXID(out)
		}
	}
	return all
}
