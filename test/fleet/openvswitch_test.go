package fleet

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"planck/flows"
	"planck/pipeline"
)

// patience is how long anything may take to come about on a busy machine.
const patience = time.Minute

// openvswitch is a real ovsdb-server and ovs-vswitchd without devices.
type openvswitch struct {
	testing.TB
	dir string
}

func startOVS(tb testing.TB) *openvswitch {
	tb.Helper()
	dir, err := os.MkdirTemp("", "planck-fleet-")
	if err != nil {
		tb.Fatal(err)
	}
	o := &openvswitch{tb, dir}
	tb.Cleanup(func() { os.RemoveAll(dir) })
	o.run("ovsdb-tool", "create", o.path("conf.db"), schemaFile)
	o.start("ovsdb-server", o.path("conf.db"), "--remote=punix:"+o.path("db.sock"),
		"--remote=db:Open_vSwitch,Open_vSwitch,manager_options", "--unixctl="+o.path("ovsdb.ctl"))
	o.waitFor("db.sock")
	o.vsctl("--no-wait", "init")
	o.start("ovs-vswitchd", "unix:"+o.path("db.sock"), "--unixctl="+o.path("vswitchd.ctl"),
		"--enable-dummy=system", "--disable-system", "--disable-system-route")
	o.waitFor("vswitchd.ctl")
	return o
}

func (o *openvswitch) path(name string) string { return filepath.Join(o.dir, name) }

func (o *openvswitch) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "OVS_RUNDIR="+o.dir, "OVS_LOGDIR="+o.dir, "OVS_DBDIR="+o.dir)
	return cmd
}

func (o *openvswitch) start(name string, args ...string) {
	o.Helper()
	cmd := o.command(name, append(args, "--log-file="+o.path(name+".log"), "-vconsole:off")...)
	if err := cmd.Start(); err != nil {
		o.Fatal(err)
	}
	o.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
}

func (o *openvswitch) run(name string, args ...string) string {
	o.Helper()
	out, err := o.command(name, args...).CombinedOutput()
	if err != nil {
		o.Fatalf("%s %q: %v: %s", name, args, err, out)
	}
	return string(out)
}

func (o *openvswitch) vsctl(args ...string) string {
	o.Helper()
	return o.run("ovs-vsctl", append([]string{"--timeout=60", "--db=unix:" + o.path("db.sock")}, args...)...)
}

func (o *openvswitch) waitFor(socket string) {
	o.Helper()
	eventually(o, func() error {
		conn, err := net.Dial("unix", o.path(socket))
		if err == nil {
			conn.Close()
		}
		return err
	})
}

func eventually(tb testing.TB, try func() error) {
	tb.Helper()
	deadline := time.Now().Add(patience)
	for err := try(); err != nil; err = try() {
		if time.Now().After(deadline) {
			tb.Fatalf("not within %v: %v", patience, err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// controllers are those of one bridge: each connection that it makes.
type controllers struct {
	testing.TB
	listener []net.Listener
}

func newControllers(tb testing.TB, n int) *controllers {
	tb.Helper()
	c := &controllers{TB: tb}
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			tb.Fatal(err)
		}
		tb.Cleanup(func() { l.Close() })
		c.listener = append(c.listener, l)
	}
	return c
}

func (c *controllers) targets() (all []string) {
	for _, l := range c.listener {
		all = append(all, "tcp:"+l.Addr().String())
	}
	return all
}

// conversation is a connection as a controller has it.
type conversation struct {
	testing.TB
	conn net.Conn
	in   reader
}

func (c *controllers) accept() (all []*conversation) {
	c.Helper()
	for _, l := range c.listener {
		conn, err := l.Accept()
		if err != nil {
			c.Fatal(err)
		}
		c.Cleanup(func() { conn.Close() })
		all = append(all, &conversation{c.TB, conn, reader{conn: conn}})
	}
	return all
}

const barrierXID = 0xbbbb

// ask sends messages and a barrier, and returns what came back before the
// barrier's reply, in words.
func (c *conversation) ask(messages ...[]byte) (said []string) {
	c.Helper()
	b := flows.AppendBarrierRequest(slices.Concat(messages...), barrierXID)
	if err := c.conn.SetDeadline(time.Now().Add(patience)); err != nil {
		c.Fatal(err)
	}
	if _, err := c.conn.Write(b); err != nil {
		c.Fatal(err)
	}
	multipart := map[uint32][]string{}
	for {
		m, err := c.in.next()
		if err != nil {
			c.Fatal(err)
		}
		xid, body := be.Uint32(m[4:]), m[headerSize:]
		switch m[1] {
		case flows.TypeBarrierReply:
			if xid == barrierXID {
				return said
			}
		case flows.TypeEchoRequest:
			if _, err := c.conn.Write(flows.AppendEchoReply(nil, xid, body)); err != nil {
				c.Fatal(err)
			}
		case flows.TypeError:
			e, err := flows.DecodeError(body)
			if err != nil {
				c.Fatal(err)
			}
			said = append(said, fmt.Sprintf("error %d/%d for %d", e.Type, e.Code, xid))
		case flows.TypeMultipartReply:
			part, err := flows.DecodeMultipart(body)
			if err != nil {
				c.Fatal(err)
			}
			multipart[xid] = append(multipart[xid], c.entries(part)...)
			if !part.More {
				slices.Sort(multipart[xid])
				said = append(said, fmt.Sprintf("reply to %d, multipart %d:\n%s", xid, part.Type, strings.Join(multipart[xid], "\n")))
			}
		case flows.TypeHello:
			versions, err := flows.DecodeHello(body)
			if err != nil || versions&(1<<flows.Version) == 0 {
				c.Fatalf("hello with versions %b: %v", versions, err)
			}
		default:
			said = append(said, fmt.Sprintf("type %d for %d: %x", m[1], xid, body))
		}
	}
}

// entries are the parts of a reply, without counters and times.
func (c *conversation) entries(part flows.Multipart) (all []string) {
	c.Helper()
	switch part.Type {
	case flows.MultipartFlow:
		list, err := flows.DecodeFlowStats(part.Body)
		if err != nil {
			c.Fatal(err)
		}
		for _, f := range list {
			all = append(all, fmt.Sprintf("%s cookie=%#x %x", f.Flow.String(), f.Cookie, flows.AppendFlowMod(nil, 0, flows.FlowAdd, &f.Flow)))
		}
	case flows.MultipartGroupDesc:
		list, err := flows.DecodeGroupDesc(part.Body)
		if err != nil {
			c.Fatal(err)
		}
		for _, g := range list {
			all = append(all, fmt.Sprintf("%d %d %x", g.ID, g.Type, g.Buckets))
		}
	case flows.MultipartMeterConfig:
		list, err := flows.DecodeMeterConfig(part.Body)
		if err != nil {
			c.Fatal(err)
		}
		for _, m := range list {
			all = append(all, fmt.Sprintf("%d %d %x", m.ID, m.Flags, m.Bands))
		}
	}
	return all
}

const dpid = 0x4242

// pair is a real switch and one of the fleet, each with two controllers.
type twins struct {
	testing.TB
	real, ours []*conversation
}

func newTwins(tb testing.TB) *twins {
	tb.Helper()
	real, ours := newControllers(tb, 2), newControllers(tb, 2)
	o := startOVS(tb)
	o.vsctl("add-br", "br-int", "--", "set", "bridge", "br-int", "datapath_type=dummy", "protocols=OpenFlow10,OpenFlow13",
		"fail-mode=secure", fmt.Sprintf("other-config:datapath-id=%016x", dpid), "other-config:disable-in-band=true")
	o.vsctl(append([]string{"set-controller", "br-int"}, real.targets()...)...)
	b := newBridge("br-int", dpid)
	targets := map[uuid]string{}
	for _, target := range ours.targets() {
		targets[newUUID()] = target
	}
	b.connect(targets)
	tb.Cleanup(b.stop)
	return &twins{tb, real.accept(), ours.accept()}
}

// same sends messages to both and compares the answers.
func (t *twins) same(what string, controller int, messages ...[]byte) {
	t.Helper()
	want, got := t.real[controller].ask(messages...), t.ours[controller].ask(messages...)
	if !slices.Equal(want, got) {
		t.Errorf("%s: Open vSwitch says\n%s\nthe fleet\n%s", what, strings.Join(want, "\n"), strings.Join(got, "\n"))
	}
}

// everything are requests for all that a switch has.
func everything() []byte {
	b := flows.AppendMultipartRequest(nil, 901, flows.MultipartMeterConfig)
	b = flows.AppendMultipartRequest(b, 902, flows.MultipartGroupDesc)
	return flows.AppendMultipartRequest(b, 903, flows.MultipartFlow)
}

const bundleFlags = flows.BundleAtomic | flows.BundleOrdered

// bundle is messages in a bundle, from xid 100 on; each has its xid.
func bundle(id uint32, messages ...[]byte) []byte {
	b := flows.AppendBundleControl(nil, 100, id, flows.BundleOpen, bundleFlags)
	for i, m := range messages {
		m = bytes.Clone(m)
		be.PutUint32(m[4:], uint32(101+i))
		b = flows.AppendBundleAdd(b, uint32(101+i), id, bundleFlags, m)
	}
	b = flows.AppendBundleControl(b, 198, id, flows.BundleClose, bundleFlags)
	return flows.AppendBundleControl(b, 199, id, flows.BundleCommit, bundleFlags)
}

func flowAdd(f flows.Flow) []byte { return flows.AppendFlowMod(nil, 21, flows.FlowAdd, &f) }

func groupMod(command uint16, g *flows.Group) []byte {
	return flows.AppendGroupMod(nil, 22, command, g)
}

func meterMod(command uint16, m *flows.Meter) []byte {
	return flows.AppendMeterMod(nil, 23, command, m)
}

// TestFleetAnswersAsOpenVSwitch says to a real switch and to one of the fleet
// all that Planck says, and what it never should, and compares the answers.
func TestFleetAnswersAsOpenVSwitch(t *testing.T) {
	t.Parallel()
	s := newTwins(t)
	role := func(role uint32, generation uint64) []byte {
		return flows.AppendRoleRequest(nil, 11, role, generation)
	}
	group := flows.NewGroup(7, flows.GroupAll, flows.Bucket{Actions: []flows.Action{flows.Output(1)}}, flows.Bucket{Actions: []flows.Action{flows.Output(2)}})
	other := flows.NewGroup(7, flows.GroupAll, flows.Bucket{Actions: []flows.Action{flows.Output(3)}})
	meter, faster := flows.NewMeterPPS(5, 100, 100), flows.NewMeterPPS(5, 200, 200)
	flow := flows.Flow{Table: 3, Priority: 10, Cookie: 0x504c, Match: flows.NewMatch(flows.InPort.Is(1)), Instructions: flows.Do(flows.Output(2))}
	toGroup, metered := flow, flow
	toGroup.Priority, toGroup.Instructions = 11, flows.Do(flows.ToGroup(7))
	metered.Priority, metered.Instructions = 12, flows.Do(flows.ApplyMeter(5), flows.ToController(flows.MaxLenAll))
	toNobody, unmetered := toGroup, metered
	toNobody.Instructions, unmetered.Instructions = flows.Do(flows.ToGroup(8)), flows.Do(flows.ApplyMeter(6), flows.Output(1))
	changed := flow
	changed.Instructions = flows.Do(flows.SetField(flows.Reg0, 1), flows.Resubmit(4))
	brief := flow
	brief.Priority, brief.HardTimeout = 13, 60

	for _, i := range []int{0, 1} {
		s.same("hello", i, flows.AppendHello(nil, 1), flows.AppendSetConfig(nil, 2, 0, 0xffff), flows.AppendFeaturesRequest(nil, 3))
	}
	s.same("echo", 0, flows.AppendEchoRequest(nil, 5, []byte("alive?")))
	s.same("an empty switch", 0, everything())
	s.same("which role?", 0, role(flows.RoleNoChange, 0))
	s.same("slave", 0, role(flows.RoleSlave, 5))
	s.same("a slave that writes", 0, flowAdd(flow), groupMod(flows.CommandAdd, group), meterMod(flows.CommandAdd, meter), everything())
	s.same("a bundle of a slave", 0, bundle(1, flowAdd(flow)))
	s.same("a packet of a slave", 0, flows.AppendPacketOut(nil, 31, flows.PortController, flows.ActionList(flows.Output(1)), make([]byte, 60)))
	s.same("an old generation", 0, role(flows.RoleMaster, 4))
	s.same("master", 0, role(flows.RoleMaster, 6), role(flows.RoleNoChange, 0))
	s.same("another master of the same generation", 1, role(flows.RoleMaster, 6), role(flows.RoleNoChange, 0))
	s.same("the first one is a slave now", 0, role(flows.RoleNoChange, 0), flowAdd(flow))
	s.same("back", 0, role(flows.RoleMaster, 7), role(9, 7))
	s.same("the second one is one now", 1, role(flows.RoleNoChange, 0), role(flows.RoleSlave, 6), role(flows.RoleSlave, 7))

	s.same("meters", 0, meterMod(flows.CommandAdd, meter), meterMod(flows.CommandAdd, meter), meterMod(flows.CommandModify, faster),
		meterMod(flows.CommandModify, flows.NewMeterPPS(6, 1, 1)), meterMod(flows.CommandDelete, flows.NewMeterPPS(6, 1, 1)), everything())
	s.same("groups", 0, groupMod(flows.CommandAdd, group), groupMod(flows.CommandAdd, group), groupMod(flows.CommandModify, other),
		groupMod(flows.CommandModify, flows.NewGroup(8, flows.GroupAll)), groupMod(flows.CommandDelete, &flows.Group{ID: 8}), everything())
	s.same("flows", 0, flowAdd(flow), flowAdd(toGroup), flowAdd(metered), flowAdd(brief), flowAdd(toNobody), flowAdd(unmetered), everything())
	s.same("a flow that changes, and one that goes", 0, flowAdd(changed), flows.AppendFlowMod(nil, 21, flows.FlowDeleteStrict, &brief),
		flows.AppendFlowMod(nil, 21, flows.FlowDeleteStrict, &brief), everything())
	s.same("a group that goes takes its flows along", 0, groupMod(flows.CommandDelete, group), everything())
	s.same("a bundle", 0, bundle(2, groupMod(flows.CommandAdd, group), flowAdd(toGroup), flowAdd(flow)), everything())
	s.same("a bundle of which a part is refused", 0, bundle(3, groupMod(flows.CommandModify, other), flowAdd(changed), groupMod(flows.CommandAdd, group)), everything())
	s.same("a bundle with a flow to no group", 0, bundle(4, flowAdd(changed), flowAdd(toNobody)), everything())
	s.same("a bundle with a flow to no meter", 0, bundle(5, flowAdd(changed), flowAdd(unmetered)), everything())
	s.same("a bundle that is not open", 0, flows.AppendBundleControl(nil, 41, 6, flows.BundleCommit, bundleFlags), flows.AppendBundleControl(nil, 42, 6, flows.BundleClose, bundleFlags))
	s.same("a bundle that is discarded", 0, flows.AppendBundleControl(nil, 41, 7, flows.BundleOpen, bundleFlags),
		flows.AppendBundleFlowMod(nil, 42, 7, bundleFlags, flows.FlowAdd, &brief), flows.AppendBundleControl(nil, 43, 7, flows.BundleDiscard, bundleFlags), everything())
	s.same("conntrack", 0, flows.AppendCTFlushZone(nil, 51, 9))
	s.same("no flows", 0, flows.AppendFlowMod(nil, 61, flows.FlowDelete, &flows.Flow{Table: flows.AllTables}),
		groupMod(flows.CommandDelete, &flows.Group{ID: flows.AllGroups}), meterMod(flows.CommandDelete, &flows.Meter{ID: flows.AllMeters}), everything())
	s.pipelines()
}

// pipelines sends both all that the pipelines make for a host.
func (t *twins) pipelines() {
	t.Helper()
	compiler := compile(t)
	for target := range compiler.Targets() {
		if target.Host != Name(0) {
			continue
		}
		var before, bundled [][]byte
		compiler.Read(target, func(s pipeline.State) {
			for _, m := range s.Desired.Meters {
				before = append(before, meterMod(flows.CommandAdd, m))
			}
			for _, g := range s.Desired.Groups {
				bundled = append(bundled, groupMod(flows.CommandAdd, g))
			}
			for _, f := range s.Desired.SortedFlows() {
				bundled = append(bundled, flowAdd(*f))
			}
		})
		t.same("meters of "+target.Bridge, 0, before...)
		for _, part := range slices.Collect(slices.Chunk(bundled, 90)) {
			t.same("the pipeline of "+target.Bridge, 0, bundle(20, part...))
		}
		t.same("all of "+target.Bridge, 0, everything())
		t.same("no flows", 0, flows.AppendFlowMod(nil, 61, flows.FlowDelete, &flows.Flow{Table: flows.AllTables}),
			groupMod(flows.CommandDelete, &flows.Group{ID: flows.AllGroups}), meterMod(flows.CommandDelete, &flows.Meter{ID: flows.AllMeters}))
	}
}
