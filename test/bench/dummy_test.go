package bench

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// dummyHost is a hypervisor without devices: a real ovsdb-server and a real
// ovs-vswitchd whose datapath and ports are dummies. It joins by the same
// contract as any other.
type dummyHost struct {
	name            string
	dir             string
	ovsdb, vswitchd *exec.Cmd
	db              *ovsdbClient
}

// startHosts starts so many hosts and joins them to a controller on an OVSDB
// port of this machine; port 0 joins them to none.
func startHosts(tb testing.TB, n, port int) []*dummyHost {
	tb.Helper()
	dir, err := os.MkdirTemp("", "planck-hosts-")
	if err != nil {
		tb.Fatal(err)
	}
	hosts := make([]*dummyHost, n)
	tb.Cleanup(func() {
		for _, h := range hosts {
			if h != nil {
				h.stop()
			}
		}
		if err := os.RemoveAll(dir); err != nil {
			tb.Error(err)
		}
	})
	empty := filepath.Join(dir, "empty.db")
	if out, err := exec.Command("ovsdb-tool", "create", empty, "/usr/share/openvswitch/vswitch.ovsschema").CombinedOutput(); err != nil {
		tb.Fatalf("ovsdb-tool: %v: %s", err, out)
	}
	mustEach(tb, n, func(i int) (err error) {
		hosts[i], err = startHost(filepath.Join(dir, fmt.Sprint(i)), empty, i, port)
		return err
	})
	return hosts
}

// mustEach is each where a failure ends the benchmark.
func mustEach(tb testing.TB, n int, f func(i int) error) {
	tb.Helper()
	if err := each(n, f); err != nil {
		tb.Fatal(err)
	}
}

// each runs f for all numbers below n, a few at a time.
func each(n int, f func(i int) error) error {
	const atOnce = 8
	var wg sync.WaitGroup
	slots := make(chan struct{}, atOnce)
	errs := make([]error, n)
	for i := range n {
		slots <- struct{}{}
		wg.Go(func() {
			errs[i] = f(i)
			<-slots
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

func startHost(dir, empty string, i, port int) (*dummyHost, error) {
	h := &dummyHost{name: hostName(i), dir: dir}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, err
	}
	db, err := os.ReadFile(empty)
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(h.file("conf.db"), db, 0o600); err != nil {
		return nil, err
	}
	h.ovsdb, err = h.spawn("ovsdb-server", h.file("conf.db"), "--remote=punix:"+h.file("db.sock"),
		"--remote=db:Open_vSwitch,Open_vSwitch,manager_options", "--unixctl="+h.file("ovsdb.ctl"))
	if err != nil {
		return h, err
	}
	if h.db, err = dialOVSDB(h.file("db.sock")); err != nil {
		return h, err
	}
	h.vswitchd, err = h.spawn("ovs-vswitchd", "unix:"+h.file("db.sock"), "--unixctl="+h.file("vswitchd.ctl"),
		"--enable-dummy=system", "--disable-system", "--disable-system-route")
	if err != nil {
		return h, err
	}
	return h, h.join(i, port)
}

func (h *dummyHost) file(name string) string { return filepath.Join(h.dir, name) }

func (h *dummyHost) spawn(name string, args ...string) (*exec.Cmd, error) {
	cmd := h.command(name, append(args, "--log-file="+h.file(name+".log"), "-vconsole:off", "-vfile:warn")...)
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return cmd, nil
}

// command is a program that finds its files in the host's directory.
func (h *dummyHost) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "OVS_RUNDIR="+h.dir, "OVS_LOGDIR="+h.dir, "OVS_DBDIR="+h.dir)
	return cmd
}

func (h *dummyHost) stop() {
	if h.db != nil {
		h.db.conn.Close()
	}
	for _, cmd := range []*exec.Cmd{h.vswitchd, h.ovsdb} {
		if cmd != nil {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	}
}

// join does what the two ovs-vsctl commands of the contract do.
func (h *dummyHost) join(i, port int) error {
	root := object{
		"ovs_version": "3.1.0",
		"external_ids": ovsMap("hostname", h.name, "system-id", h.name,
			"planck-local-ip", fmt.Sprintf("10.250.%d.%d", i>>8, i&255)),
	}
	ops := []any{object{"op": "insert", "table": "Open_vSwitch", "row": root}}
	if port != 0 {
		root["manager_options"] = []any{"named-uuid", "manager"}
		ops = append(ops, object{"op": "insert", "table": "Manager", "uuid-name": "manager",
			"row": object{"target": fmt.Sprintf("tcp:127.0.0.1:%d", port)}})
	}
	return h.db.transact(ops...)
}

// addPorts adds dummy ports to br-int, not yet anybody's, and waits until they
// have their numbers.
func (h *dummyHost) addPorts(names ...string) error {
	const bridge = "br-int"
	if err := h.db.wait("Bridge", bridge, patience); err != nil {
		return fmt.Errorf("%s: %w", h.name, err)
	}
	const perTransaction = 100
	for len(names) > 0 {
		part := names[:min(len(names), perTransaction)]
		names = names[len(part):]
		args := []string{"--timeout=60", "--db=unix:" + h.file("db.sock")}
		for _, n := range part {
			args = append(args, "--", "add-port", bridge, n, "--", "set", "Interface", n, "type=dummy")
		}
		if out, err := h.command("ovs-vsctl", args...).CombinedOutput(); err != nil {
			return fmt.Errorf("%s: ovs-vsctl: %w: %s", h.name, err, out)
		}
	}
	return nil
}

// plug makes interfaces those of Neutron ports, all at once.
func (h *dummyHost) plug(portOf map[string]string) error {
	ops := make([]any, 0, len(portOf))
	for name, port := range portOf {
		ops = append(ops, object{
			"op": "update", "table": "Interface", "where": []any{[]any{"name", "==", name}},
			"row": object{"external_ids": ovsMap("iface-id", port, "iface-status", "active")},
		})
	}
	return h.db.transact(ops...)
}

func (h *dummyHost) unplug(name string) error {
	return h.db.transact(object{
		"op": "update", "table": "Interface", "where": []any{[]any{"name", "==", name}},
		"row": object{"external_ids": ovsMap()},
	})
}

// ofctl is a command that speaks to a bridge.
func (h *dummyHost) ofctl(command, bridge string, args ...string) *exec.Cmd {
	return h.command("ovs-ofctl", append([]string{"-OOpenFlow13", command, "unix:" + h.file(bridge+".mgmt")}, args...)...)
}

// ovsMap is a map as OVSDB writes it (RFC 7047, 5.1), of keys and values in turn.
func ovsMap(pairs ...string) []any {
	list := [][2]string{}
	for i := 0; i+1 < len(pairs); i += 2 {
		list = append(list, [2]string{pairs[i], pairs[i+1]})
	}
	return []any{"map", list}
}

// ovsdbClient makes one request at a time. It is there because ovs-vsctl takes
// longer to start than what is measured.
type ovsdbClient struct {
	mu   sync.Mutex
	conn net.Conn
	out  *json.Encoder
	in   *json.Decoder
	id   int
}

func dialOVSDB(socket string) (*ovsdbClient, error) {
	deadline := time.Now().Add(patience)
	for {
		conn, err := net.Dial("unix", socket)
		if err == nil {
			return &ovsdbClient{conn: conn, out: json.NewEncoder(conn), in: json.NewDecoder(bufio.NewReader(conn))}, nil
		}
		if time.Now().After(deadline) {
			return nil, err
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// transact fails when one of the operations does.
func (c *ovsdbClient) transact(ops ...any) error {
	_, err := c.query(ops...)
	return err
}

type ovsdbResult struct {
	Error, Details string
	Rows           []json.RawMessage
}

func (c *ovsdbClient) query(ops ...any) ([]ovsdbResult, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.id++
	if err := c.out.Encode(object{"method": "transact", "params": append([]any{"Open_vSwitch"}, ops...), "id": c.id}); err != nil {
		return nil, err
	}
	for {
		var answer struct {
			Method string
			ID     json.RawMessage
			Result []ovsdbResult
			Params json.RawMessage
		}
		if err := c.in.Decode(&answer); err != nil {
			return nil, err
		}
		if answer.Method == "echo" {
			if err := c.out.Encode(object{"result": answer.Params, "error": nil, "id": answer.ID}); err != nil {
				return nil, err
			}
			continue
		}
		for _, r := range answer.Result {
			if r.Error != "" {
				return nil, fmt.Errorf("OVSDB: %s: %s", r.Error, r.Details)
			}
		}
		return answer.Result, nil
	}
}

// wait waits for a row with a name.
func (c *ovsdbClient) wait(table, name string, timeout time.Duration) error {
	deadline := time.Now().Add(timeout)
	for {
		found, err := c.query(object{"op": "select", "table": table, "where": []any{[]any{"name", "==", name}}, "columns": []string{"name"}})
		if err != nil || len(found) == 1 && len(found[0].Rows) > 0 {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("no %s %s within %v", table, name, timeout)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// watch tells when flows that contain a text appear in a bridge.
type watch struct {
	cmd  *exec.Cmd
	seen chan seenFlow // closed when the monitor ends
}

type seenFlow struct {
	at   time.Time
	text string
}

// watchFlows begins to watch; it returns once the switch is listening.
func (h *dummyHost) watchFlows(tb testing.TB, bridge string) *watch {
	tb.Helper()
	w := &watch{cmd: h.ofctl("monitor", bridge, "watch:!initial"), seen: make(chan seenFlow, 4096)}
	w.cmd.Args[1] = "-OOpenFlow10" // flow monitors are Nicira's there
	// The first answer comes on standard output, the events on standard error.
	out, err := w.cmd.StdoutPipe()
	if err != nil {
		tb.Fatal(err)
	}
	w.cmd.Stderr = w.cmd.Stdout
	if err := w.cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	if !lines.Scan() || !strings.Contains(lines.Text(), "FLOW_MONITOR") {
		tb.Fatalf("ovs-ofctl monitor: %q", lines.Text())
	}
	go func() {
		defer close(w.seen)
		for lines.Scan() {
			w.seen <- seenFlow{time.Now(), lines.Text()}
		}
	}()
	tb.Cleanup(w.stop)
	return w
}

func (w *watch) stop() {
	_ = w.cmd.Process.Kill()
	for range w.seen {
	}
	_ = w.cmd.Wait()
}

// first is when a flow with this text appeared.
func (w *watch) first(text string) (time.Time, error) {
	timeout := time.After(patience)
	for {
		select {
		case f, ok := <-w.seen:
			if !ok {
				return time.Time{}, errors.New("the flow monitor ended")
			}
			if strings.Contains(f.text, text) {
				return f.at, nil
			}
		case <-timeout:
			return time.Time{}, fmt.Errorf("no flow with %s within %v", text, patience)
		}
	}
}
