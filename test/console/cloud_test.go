// Package console looks at the web page as a user does, in a real Chromium: a
// real controller behind it, real switches and VMs, and a real Keystone.
package console

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"planck/test/lab"
)

// patience bounds how long anything may take on a machine with much else to do.
const patience = 60 * time.Second

// program is the controller, built once.
var program string

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "planck-console")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	program = filepath.Join(dir, "planck")
	if out, err := exec.Command("go", "build", "-o", program, "planck/cmd/planck").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "go build: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// cloud is a controller.
type cloud struct {
	testing.TB
	url      string
	managers string
	header   http.Header // of requests
	process  *os.Process
}

type object = map[string]any

// newCloud starts a controller with a configuration file.
func newCloud(tb testing.TB, config string) *cloud {
	tb.Helper()
	dir := tb.TempDir()
	file := filepath.Join(dir, "planck.conf")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		tb.Fatal(err)
	}
	api, ovsdb, openflow := freePort(tb), freePort(tb), freePort(tb)
	c := &cloud{TB: tb, url: fmt.Sprintf("http://127.0.0.1:%d", api), managers: fmt.Sprintf("tcp:%s:%d", lab.ControllerHost, ovsdb), header: http.Header{}}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		tb.Fatal(err)
	}
	cmd := exec.Command(program, "serve", "--config-file", file, "--state-dir", filepath.Join(dir, "state"),
		"--api-listen", fmt.Sprintf("127.0.0.1:%d", api),
		"--ovsdb-listen", fmt.Sprintf(":%d", ovsdb), "--openflow-listen", fmt.Sprintf(":%d", openflow))
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	c.process = cmd.Process
	tb.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
		log.Close()
		if tb.Failed() {
			tb.Logf("the controller's log:\n%s", complaints(log.Name()))
		}
	})
	c.eventually("the controller is ready", func() error {
		resp, err := http.Get(c.url + "/readyz")
		if err != nil {
			return err
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("readyz: %s", resp.Status)
		}
		return nil
	})
	return c
}

// complaints are the lines of a log that are no mere information.
func complaints(name string) []byte {
	var kept []byte
	text, err := os.ReadFile(name)
	if err != nil {
		return []byte(err.Error())
	}
	for line := range bytes.Lines(text) {
		if !bytes.Contains(line, []byte("level=INFO")) {
			kept = append(kept, line...)
		}
	}
	return kept
}

func freePort(tb testing.TB) int {
	tb.Helper()
	l, err := net.Listen("tcp", ":0")
	if err != nil {
		tb.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// eventually tries until there is no error.
func (c *cloud) eventually(what string, try func() error) {
	c.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		err := try()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			c.Fatalf("not within %v: %s: %v", patience, what, err)
		}
	}
}

// call makes a request and returns what is answered with a status.
func (c *cloud) call(method, path string, body any, status int) object {
	c.Helper()
	data, err := json.Marshal(body)
	if err != nil {
		c.Fatal(err)
	}
	req, err := http.NewRequest(method, c.url+path, bytes.NewReader(data))
	if err != nil {
		c.Fatal(err)
	}
	req.Header = c.header.Clone()
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		c.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		c.Fatal(err)
	}
	if resp.StatusCode != status {
		c.Fatalf("%s %s: %s, not %d: %s", method, path, resp.Status, status, raw)
	}
	var out object
	if len(raw) > 0 {
		if err := json.Unmarshal(raw, &out); err != nil {
			c.Fatalf("%s %s: %v in %q", method, path, err, raw)
		}
	}
	return out
}

// create makes an object of a kind, as security_group, and returns its attributes.
func (c *cloud) create(kind, path string, attrs object) object {
	c.Helper()
	return c.call(http.MethodPost, "/v2.0/"+path, object{kind: attrs}, http.StatusCreated)[kind].(object)
}

// network makes a network of a project with a subnet, and returns the ids of both.
func (c *cloud) network(project, name, cidr string, attrs object) (id, subnet string) {
	c.Helper()
	body := object{"name": name, "tenant_id": project}
	for k, v := range attrs {
		body[k] = v
	}
	id = c.create("network", "networks", body)["id"].(string)
	s := object{"network_id": id, "cidr": cidr, "ip_version": 4, "tenant_id": project}
	if body["router:external"] == true {
		s["enable_dhcp"] = false
	}
	return id, c.create("subnet", "subnets", s)["id"].(string)
}

// port makes a port of a VM.
func (c *cloud) port(project, name, network string, attrs object) object {
	c.Helper()
	body := object{"network_id": network, "name": name, "device_owner": "compute:nova", "tenant_id": project}
	for k, v := range attrs {
		body[k] = v
	}
	return c.create("port", "ports", body)
}

// status is that of a port.
func (c *cloud) status(id string) string {
	c.Helper()
	return c.call(http.MethodGet, "/v2.0/ports/"+id, nil, http.StatusOK)["port"].(object)["status"].(string)
}

func address(port object) string {
	return port["fixed_ips"].([]any)[0].(object)["ip_address"].(string)
}
