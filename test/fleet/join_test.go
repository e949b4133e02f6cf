package fleet

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"os"
	"runtime"
	"runtime/pprof"
	"slices"
	"strings"
	"testing"
	"time"

	"planck/controller"
	"planck/network"
	"planck/ovsdb"
	"planck/pipeline"
)

// planck is a controller in this process.
type planck struct {
	*cloud
	controller *controller.Controller
	managers   string // where switches dial
	addresses  []string
}

func startPlanck(c *cloud) *planck {
	c.Helper()
	var listeners []net.Listener
	p := &planck{cloud: c}
	for range 2 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			c.Fatal(err)
		}
		listeners, p.addresses = append(listeners, l), append(p.addresses, l.Addr().String())
	}
	log := slog.New(slog.DiscardHandler)
	dhcp := controller.DHCPConfig{Lease: time.Hour, Logger: log}
	p.controller = controller.New(controller.Options{
		Store: c.Store, Compiler: pipeline.NewCompiler(pipeline.Options{}), Listeners: listeners[:1], Logger: log,
		Responders: []controller.Responder{controller.NewDHCP(dhcp)},
	})
	hosts, err := ovsdb.New(ovsdb.Options{
		Store: c.Store, OpenFlowPort: listeners[0].Addr().(*net.TCPAddr).Port, Logger: log,
		ForeignFlows: p.controller.ForeignFlows, RestoreFlows: p.controller.RestoreFlows,
	})
	if err != nil {
		c.Fatal(err)
	}
	p.managers = "tcp:" + p.addresses[1]
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 2)
	go func() { ended <- p.controller.Run(ctx) }()
	go func() { ended <- hosts.Serve(ctx, listeners[1]) }()
	c.Cleanup(func() {
		cancel()
		if err := errors.Join(<-ended, <-ended); err != nil {
			c.Error(err)
		}
	})
	return p
}

// joined is what a host that joined has, in words.
type joined struct{ model, database, flows string }

// await waits until a host has so many ports, and every bridge has its flows;
// ask does operations on its database.
func (p *planck) await(name string, vifs int, ask func(ops ...any) []map[string][]map[string]any) joined {
	p.Helper()
	eventually(p, func() error {
		for _, h := range p.controller.Hosts() {
			if h.Name != name || h.VIFs != vifs || len(h.Bridges) != 3 {
				continue
			}
			for _, b := range h.Bridges {
				if !b.Synced || b.Revision < p.View().Revision() {
					return fmt.Errorf("%+v", b)
				}
			}
			return nil
		}
		return errors.New("the host is not there")
	})
	eventually(p, func() error {
		d, err := p.controller.Diff(p.Context(), name, "", 0)
		if err == nil && len(d.Differences)+len(d.Problems) > 0 {
			err = fmt.Errorf("%+v", d)
		}
		return err
	})
	model, err := json.Marshal(p.View().Host(name))
	if err != nil {
		p.Fatal(err)
	}
	j := joined{model: string(model), database: p.describe(ask)}
	for v := range p.View().VIFsOn(name) {
		j.model += fmt.Sprintf("\n%d %s", v.OFPort, v.Name)
	}
	dump, err := p.controller.Flows(p.Context(), controller.FlowQuery{Host: name})
	if err != nil {
		p.Fatal(err)
	}
	var lines []string
	for _, f := range dump.Flows {
		if f.Feature != "canary" {
			lines = append(lines, fmt.Sprintf("%s %d %d %s %s %s", f.Bridge, f.Table, f.Priority, f.Match, f.Actions, f.Cookie))
		}
	}
	slices.Sort(lines)
	j.flows = strings.Join(lines, "\n")
	for port := range p.View().PortsOf(p.network.ID) {
		if port.DeviceOwner == network.OwnerDHCP { // a MAC that was made up
			j.flows = strings.ReplaceAll(j.flows, port.MAC.String(), "DHCP-MAC")
		}
	}
	return j
}

// told are the columns that Planck monitors, but for those of its own identity.
var told = map[string][]string{
	"Open_vSwitch": {"external_ids", "ovs_version"},
	"Bridge":       {"name", "datapath_type", "datapath_id", "fail_mode", "protocols", "other_config", "external_ids"},
	"Port":         {"name", "external_ids"},
	"Interface":    {"name", "type", "options", "ofport", "ofport_request", "external_ids", "error", "bfd", "bfd_status"},
	"Controller":   {"target", "type", "max_backoff", "inactivity_probe", "connection_mode", "external_ids", "is_connected"},
	"Manager":      {"target", "max_backoff", "inactivity_probe"},
}

// describe has all rows in words: without ids, and in order.
func (p *planck) describe(ask func(ops ...any) []map[string][]map[string]any) string {
	p.Helper()
	var all []string
	for table, columns := range told {
		rows := ask(map[string]any{"op": "select", "table": table, "where": []any{}, "columns": columns})[0]["rows"]
		for _, row := range rows {
			line := table
			for _, column := range columns {
				value, err := readDatum(row[column], nil)
				if err != nil {
					p.Fatal(err)
				}
				var words []string
				for _, pair := range value {
					words = append(words, fmt.Sprintf("%v=%v", pair.key, pair.value))
				}
				slices.Sort(words)
				line += fmt.Sprintf(" %s=%q", column, words)
			}
			for i, address := range p.addresses {
				line = strings.ReplaceAll(line, address, fmt.Sprintf("ADDRESS%d", i))
			}
			all = append(all, line)
		}
	}
	slices.Sort(all)
	return strings.Join(slices.Compact(all), "\n") // ovsdb-server leaves out what repeats
}

// TestFleetJoinsAsOpenVSwitch lets a real switch and one of the fleet join
// equal clouds: the controller learns the same about both, sets up the same in
// their databases, and gives them the same flows.
func TestFleetJoinsAsOpenVSwitch(t *testing.T) {
	t.Parallel()
	want := joinReal(t)
	got := joinOurs(t)
	for _, part := range []struct{ what, want, got string }{
		{"the model", want.model, got.model}, {"the database", want.database, got.database}, {"flows", want.flows, got.flows},
	} {
		if part.want != part.got {
			t.Errorf("%s of Open vSwitch:\n%s\nof the fleet:\n%s", part.what, part.want, part.got)
		}
	}
}

const mapping = "physnet1:br-ex"

func joinReal(t *testing.T) joined {
	c := newCloud(t)
	port := namedPort(c)
	p := startPlanck(c)
	o := startOVS(t)
	o.vsctl("--no-wait", "set", "Open_vSwitch", ".", "ovs_version=3.1.0", "external_ids:hostname="+Name(0), "external_ids:system-id="+Name(0),
		"external_ids:planck-local-ip=10.250.0.0", "external_ids:planck-bridge-mappings="+mapping, "--", "set-manager", p.managers)
	eventually(t, func() error {
		_, err := o.command("ovs-vsctl", "--timeout=5", "--db=unix:"+o.path("db.sock"), "br-exists", "br-int").CombinedOutput()
		return err
	})
	o.vsctl("add-port", "br-int", "tap0", "--", "set", "Interface", "tap0", "type=dummy", "external_ids:iface-id="+port, "external_ids:iface-status=active")
	ask := func(ops ...any) (results []map[string][]map[string]any) {
		t.Helper()
		text, err := json.Marshal(append([]any{"Open_vSwitch"}, ops...))
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal([]byte(o.run("ovsdb-client", "transact", "unix:"+o.path("db.sock"), string(text))), &results); err != nil {
			t.Fatal(err)
		}
		return results
	}
	o.awaitConnected(3)
	return p.await(Name(0), 1, ask)
}

// awaitConnected waits until ovs-vswitchd has told of the controllers.
func (o *openvswitch) awaitConnected(n int) {
	o.Helper()
	eventually(o, func() error {
		if got := strings.Count(o.vsctl("--bare", "--columns=is_connected", "list", "Controller"), "true"); got != n {
			return fmt.Errorf("%d of %d controllers are connected", got, n)
		}
		return nil
	})
}

func joinOurs(t *testing.T) joined {
	c := newCloud(t)
	port := namedPort(c)
	p := startPlanck(c)
	f, err := New(Options{Hosts: 1, Managers: []string{p.managers}, Mappings: mapping})
	if err != nil {
		t.Fatal(err)
	}
	f.Start()
	t.Cleanup(f.Stop)
	h := f.Hosts[0]
	h.Plug(map[string]string{"tap0": port})
	ask := func(ops ...any) (results []map[string][]map[string]any) {
		t.Helper()
		raw := make([]json.RawMessage, len(ops))
		for i, op := range ops {
			raw[i], err = json.Marshal(op)
			if err != nil {
				t.Fatal(err)
			}
		}
		h.mu.Lock()
		defer h.mu.Unlock()
		answer, err := h.db.begin().perform(raw)
		if err != nil {
			t.Fatal(err)
		}
		text, err := json.Marshal(answer)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(text, &results); err != nil {
			t.Fatal(err)
		}
		return results
	}
	eventually(t, func() error {
		if rows := p.describe(ask); strings.Count(rows, "is_connected=") == 0 || strings.Contains(rows, `is_connected=["false`) {
			return errors.New("not all controllers are connected")
		}
		return nil
	})
	j := p.await(Name(0), 1, ask)
	if asked, err := h.Discover(t.Context(), "tap0", p.View().Port(port).MAC); err != nil || asked != 1 {
		t.Errorf("an address is offered after %d times: %v", asked, err)
	}
	return j
}

// namedPort is a port that is the same in every cloud.
func namedPort(c *cloud) string {
	c.Helper()
	const id = "5a7d0f3e-5d2f-4a44-8f1e-2b8a0c9d4e10"
	c.do(func(tx *network.Tx) error {
		return tx.CreatePort(&network.Port{
			Standard: network.Standard{ID: id, ProjectID: "blue"}, NetworkID: c.network.ID, AdminStateUp: true, PortSecurityEnabled: true,
			MAC: network.MAC{0xfa, 0x16, 0x3e, 1, 2, 3}, DeviceOwner: "compute:nova", Binding: network.Binding{Host: Name(0)},
		})
	})
	return id
}

// BenchmarkJoin lets a hundred hosts join a controller in this process, for
// profiles.
func BenchmarkJoin(b *testing.B) {
	for b.Loop() {
		const hosts = 100
		p := startPlanck(newCloud(b))
		f, err := New(Options{Hosts: hosts, Managers: []string{p.managers}, Mappings: mapping})
		if err != nil {
			b.Fatal(err)
		}
		f.Start()
		eventually(b, func() error {
			right := 0
			for _, h := range p.controller.Hosts() {
				if len(h.Bridges) == 3 && !slices.ContainsFunc(h.Bridges, func(br controller.BridgeRecord) bool { return !br.Synced }) {
					right++
				}
			}
			if right != hosts {
				return fmt.Errorf("%d of %d hosts are right", right, hosts)
			}
			return nil
		})
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		b.ReportMetric(float64(m.HeapAlloc)/hosts/1024, "KiB/host")
		if *heapProfile != "" {
			out, err := os.Create(*heapProfile)
			if err != nil {
				b.Fatal(err)
			}
			if err := errors.Join(pprof.WriteHeapProfile(out), out.Close()); err != nil {
				b.Fatal(err)
			}
		}
		f.Stop()
	}
}

var heapProfile = flag.String("heap", "", "where BenchmarkJoin writes what is in memory when all hosts have joined")
