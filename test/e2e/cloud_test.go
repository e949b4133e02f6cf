// Package e2e runs the controller as its operators do, against real switches,
// real DHCP clients and real packets.
package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"planck/test/lab"
)

// controllerBinary is the controller under test, built once.
var controllerBinary string

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "planck-e2e")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	controllerBinary = filepath.Join(dir, "planck")
	build := exec.Command("go", "build", "-race", "-o", controllerBinary, "planck/cmd/planck")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "go build: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// settle bounds how long anything may take to come about.
const settle = time.Minute

// promptly bounds what takes an idle machine a second or two; the log has the
// figures.
const promptly = 20 * time.Second

// hiccup is how long a busy machine may stop all traffic for.
const hiccup = 5 * time.Second

// cloud is a lab with a controller.
type cloud struct {
	*testing.T
	lab     *lab.Lab
	api     string
	client  *http.Client // of the API
	ovsdb   string       // as a host's manager target
	config  string       // the configuration file
	program []string     // what is run: the controller, maybe in an environment
	args    []string
	log     string
	process *exec.Cmd
}

// newCloud starts a lab of n hosts and a controller with a configuration file.
func newCloud(t *testing.T, n int, inBand []string, config string) *cloud {
	t.Helper()
	c := newController(t, config)
	c.lab = lab.ForTest(t, lab.Options{Hosts: n, InBand: inBand, Controllers: []string{c.ovsdb}})
	return c
}

// newController starts a controller without a lab.
func newController(t *testing.T, config string) *cloud {
	t.Helper()
	return newControllerOf(t, []string{controllerBinary}, config)
}

// newControllerOf starts another program as the controller.
func newControllerOf(t *testing.T, program []string, config string) *cloud {
	t.Helper()
	c := controllerOf(t, program, config)
	c.start()
	return c
}

// controllerOf is newControllerOf that does not start yet.
func controllerOf(t *testing.T, program []string, config string) *cloud {
	t.Helper()
	dir := t.TempDir()
	api, ovsdb, openflow := freePort(t), freePort(t), freePort(t)
	file := filepath.Join(dir, "planck.conf")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	c := &cloud{
		T: t, client: http.DefaultClient, api: fmt.Sprintf("http://127.0.0.1:%d", api), ovsdb: fmt.Sprintf("tcp:%s:%d", lab.ControllerHost, ovsdb),
		config: file, log: filepath.Join(dir, "planck.log"), program: program,
		args: []string{
			"serve", "--config-file", file, "--state-dir", filepath.Join(dir, "state"),
			"--api-listen", fmt.Sprintf("127.0.0.1:%d", api),
			"--ovsdb-listen", fmt.Sprintf(":%d", ovsdb), "--openflow-listen", fmt.Sprintf(":%d", openflow),
		},
	}
	t.Cleanup(func() {
		c.kill(syscall.SIGKILL)
		log, _ := os.ReadFile(c.log)
		for _, crash := range []string{"WARNING: DATA RACE", "panic: "} {
			if at := bytes.Index(log, []byte(crash)); at >= 0 {
				t.Errorf("the controller has a data race or panics:\n%s", log[at:min(len(log), at+8<<10)])
			}
		}
		if t.Failed() {
			t.Logf("the controller's log:\n%s", tail(withoutReads(log), 32<<10))
		}
	})
	return c
}

// also tells a part of a story in the same cloud, at the same time as its other
// parts. It must not restart the controller.
func (c *cloud) also(what string, story func(c *cloud)) {
	c.Run(what, func(t *testing.T) {
		t.Parallel()
		part := *c
		part.T = t
		story(&part)
	})
}

// withoutReads leaves out the lines of the API's GET requests.
func withoutReads(log []byte) []byte {
	var kept []byte
	for line := range bytes.Lines(log) {
		if !bytes.Contains(line, []byte("method=GET")) {
			kept = append(kept, line...)
		}
	}
	return kept
}

func tail(b []byte, n int) []byte {
	if len(b) > n {
		return b[len(b)-n:]
	}
	return b
}

// givenPorts are those that freePort has given out.
var givenPorts sync.Map

// freePort is a TCP port that nobody listens on, and nobody will who lets the
// kernel choose: below the range that it chooses from.
func freePort(t *testing.T) int {
	t.Helper()
	for {
		port := 12_000 + rand.IntN(20_000)
		if _, given := givenPorts.LoadOrStore(port, true); given {
			continue
		}
		l, err := net.Listen("tcp", fmt.Sprint(":", port))
		if errors.Is(err, syscall.EADDRINUSE) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		l.Close()
		return port
	}
}

// start runs the controller and waits until it is ready.
func (c *cloud) start() {
	c.Helper()
	log, err := os.OpenFile(c.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		c.Fatal(err)
	}
	defer log.Close()
	cmd := append(slices.Clone(c.program), c.args...)
	c.process = exec.Command(cmd[0], cmd[1:]...)
	c.process.Stdout, c.process.Stderr = log, log
	if err := c.process.Start(); err != nil {
		c.Fatal(err)
	}
	c.eventually("the controller is ready", func() error {
		resp, err := c.client.Get(c.api + "/readyz")
		if err != nil {
			return err
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("readyz: %s", resp.Status)
		}
		return nil
	})
}

// outlives waits until a controller that was started has all bridges, and ends a
// stream that nothing may have interrupted meanwhile.
func (c *cloud) outlives(stream *lab.PingStream) {
	c.Helper()
	bridges := float64(len(bridges) * len(c.lab.Hosts()))
	c.eventually("all bridges are live", func() error {
		if live := c.metric("planck_openflow_sessions", ""); live != bridges {
			return fmt.Errorf("%v of %v are", live, bridges)
		}
		return nil
	})
	stats, err := stream.Stop()
	if err != nil {
		c.Fatal(err)
	}
	if err := stats.Whole(); err != nil {
		c.Error(err)
	}
}

// kill ends the controller with a signal and returns its exit code, -1 when the signal killed it.
func (c *cloud) kill(sig syscall.Signal) int {
	if c.process == nil {
		return 0
	}
	process := c.process
	c.process = nil
	_ = process.Process.Signal(sig)
	_ = process.Wait()
	return process.ProcessState.ExitCode()
}

// eventually tries until there is no error.
func (c *cloud) eventually(what string, try func() error) {
	c.Helper()
	deadline := time.Now().Add(settle)
	for {
		err := try()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			c.Fatalf("not within %v: %s: %v", settle, what, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

type object = map[string]any

// call makes an API request and returns the status and the decoded body.
func (c *cloud) call(method, path string, body any, header ...string) (int, object) {
	c.Helper()
	var reader io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			c.Fatal(err)
		}
		reader = bytes.NewReader(b)
	}
	req, err := http.NewRequest(method, c.api+path, reader)
	if err != nil {
		c.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := c.client.Do(req)
	if err != nil {
		c.Fatalf("%s %s: %v", method, path, err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		c.Fatal(err)
	}
	var out object
	if len(raw) > 0 {
		if err := json.Unmarshal(raw, &out); err != nil {
			c.Fatalf("%s %s: %v in %q", method, path, err, raw)
		}
	}
	return resp.StatusCode, out
}

// create makes a resource and returns its attributes.
func (c *cloud) create(resource string, attrs object) object {
	c.Helper()
	status, out := c.call(http.MethodPost, "/v2.0/"+resource+"s", object{resource: attrs})
	if status != http.StatusCreated {
		c.Fatalf("create %s %v: %d %v", resource, attrs, status, out)
	}
	return out[resource].(object)
}

func (c *cloud) update(resource, id string, attrs object) object {
	c.Helper()
	status, out := c.call(http.MethodPut, "/v2.0/"+resource+"s/"+id, object{resource: attrs})
	if status != http.StatusOK {
		c.Fatalf("update %s %s %v: %d %v", resource, id, attrs, status, out)
	}
	return out[resource].(object)
}

func (c *cloud) delete(resource, id string) {
	c.Helper()
	if status, out := c.call(http.MethodDelete, "/v2.0/"+resource+"s/"+id, nil); status != http.StatusNoContent {
		c.Fatalf("delete %s %s: %d %v", resource, id, status, out)
	}
}

func (c *cloud) show(resource, id string) object {
	c.Helper()
	status, out := c.call(http.MethodGet, "/v2.0/"+resource+"s/"+id, nil)
	if status != http.StatusOK {
		c.Fatalf("show %s %s: %d %v", resource, id, status, out)
	}
	return out[resource].(object)
}

// network makes a network with one subnet for a tenant and returns its id.
func (c *cloud) network(tenant, cidr string, attrs object) string {
	c.Helper()
	body := object{"name": tenant + "-net", "tenant_id": tenant}
	for k, v := range attrs {
		body[k] = v
	}
	id := c.create("network", body)["id"].(string)
	if cidr != "" {
		c.create("subnet", object{"network_id": id, "cidr": cidr, "ip_version": 4, "tenant_id": tenant})
	}
	return id
}

// vm is a VM with its port.
type vm struct {
	*lab.VM
	port object
}

func (v *vm) id() string  { return v.port["id"].(string) }
func (v *vm) mac() string { return v.port["mac_address"].(string) }
func (v *vm) ip() string {
	return v.port["fixed_ips"].([]any)[0].(object)["ip_address"].(string)
}

// boot makes a port and a VM on a host, and waits until the port is ACTIVE.
func (c *cloud) boot(name, host, networkID string, attrs object) *vm {
	c.Helper()
	v := c.plug(name, host, c.create("port", c.portBody(name, networkID, attrs)))
	c.waitStatus(v.id(), "ACTIVE")
	return v
}

func (c *cloud) portBody(name, networkID string, attrs object) object {
	body := object{"network_id": networkID, "name": name, "device_owner": "compute:nova"}
	for k, v := range attrs {
		body[k] = v
	}
	return body
}

func (c *cloud) plug(name, host string, port object) *vm {
	c.Helper()
	mtu := int(c.show("network", port["network_id"].(string))["mtu"].(float64))
	v, err := c.lab.AddVM(c.Context(), host, name, lab.VMPort{ID: port["id"].(string), MAC: port["mac_address"].(string), MTU: mtu})
	if err != nil {
		c.Fatal(err)
	}
	return &vm{VM: v, port: port}
}

func (c *cloud) waitStatus(portID, status string) {
	c.Helper()
	c.eventually("port "+portID+" is "+status, func() error {
		if got := c.show("port", portID)["status"]; got != status {
			return fmt.Errorf("status is %v", got)
		}
		return nil
	})
}

// dhcp configures a VM by udhcpc and checks that it got its port's address.
func (c *cloud) dhcp(v *vm) lab.Lease {
	c.Helper()
	lease, err := v.DHCP(c.Context())
	if err != nil {
		c.Fatalf("DHCP of %s: %v", v.Name(), err)
	}
	if lease.Addr.Addr().String() != v.ip() {
		c.Fatalf("%s got %v by DHCP, its port has %s", v.Name(), lease.Addr, v.ip())
	}
	return lease
}

// reaches checks that a ping gets through. The first packets between two hosts
// may be lost while their switches look for each other's tunnel address.
func (c *cloud) reaches(from *lab.Node, dst string) {
	c.Helper()
	if sent, received, err := from.Ping(c.Context(), dst, 1, "-i", "0.2", "-w", "20"); err != nil || received == 0 {
		c.Errorf("%s does not reach %s: none of %d answered, %v", from.Name(), dst, sent, err)
	}
}

// cutOff checks that a ping does not get through.
func (c *cloud) cutOff(from *lab.Node, dst string) {
	c.Helper()
	if _, received, _ := from.Ping(c.Context(), dst, 3, "-i", "0.2", "-W", "1"); received != 0 {
		c.Errorf("%s reaches %s, which it must not", from.Name(), dst)
	}
}

// metrics are the lines of the metrics whose names begin with a text.
func (c *cloud) metrics(name string) string {
	c.Helper()
	resp, err := c.client.Get(c.api + "/metrics")
	if err != nil {
		c.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		c.Fatal(err)
	}
	var found strings.Builder
	for line := range strings.Lines(string(body)) {
		if strings.HasPrefix(line, name) {
			found.WriteString(line)
		}
	}
	return found.String()
}

// metric sums the samples of a metric, optionally only those whose labels contain a text.
func (c *cloud) metric(name, labels string) float64 {
	c.Helper()
	var sum float64
	for line := range strings.Lines(c.metrics(name)) {
		i := strings.LastIndexByte(line, ' ')
		sample, value := line[len(name):i], strings.TrimSpace(line[i:])
		if sample != "" && sample[0] != '{' || !strings.Contains(sample, labels) {
			continue
		}
		v, err := strconv.ParseFloat(value, 64)
		if err != nil {
			c.Fatalf("metric %q: %v", line, err)
		}
		sum += v
	}
	return sum
}

// flows dumps a bridge as the switch has it, without counters.
func (c *cloud) flows(host, bridge string) string {
	c.Helper()
	out, err := c.lab.Host(host).Ofctl("dump-flows", "--no-stats", bridge)
	if err != nil {
		c.Fatal(err)
	}
	return out
}

// vsctl runs ovs-vsctl on a host.
func (c *cloud) vsctl(host string, args ...string) string {
	c.Helper()
	out, err := c.lab.Host(host).Vsctl(args...)
	if err != nil {
		c.Fatal(err)
	}
	return out
}

// hostsUp waits until all bridges of the hosts are under control.
func (c *cloud) hostsUp() {
	c.Helper()
	for _, h := range c.lab.Hosts() {
		c.eventually(h.Name()+" has its flows", func() error {
			for _, bridge := range []string{"br-int", "br-tun", "br-ex"} {
				out, err := h.Ofctl("dump-flows", bridge, "table=253")
				if err != nil {
					return err
				}
				if !strings.Contains(out, "cookie=0x504c") {
					return fmt.Errorf("%s has no canary: %s", bridge, out)
				}
			}
			return nil
		})
	}
}

func (c *cloud) within(d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(c.Context(), d)
	c.Cleanup(cancel)
	return ctx
}
