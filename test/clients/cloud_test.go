// Package clients drives the API with clients that know nothing of Planck, as
// two projects and an administrator of a real Keystone.
package clients

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"planck/test/keystone"
	"planck/test/lab"
)

// cloud is a Keystone, in whose catalog a `planck serve` is, with one hypervisor.
type cloud struct {
	*testing.T
	ks       *keystone.Server
	bin      string // directory of the programs
	url      string // of the API
	accounts map[string]keystone.Account
	tokens   map[string]string
	shell    *shell
}

// config is of the controller; there is one for all stories.
const config = `[DEFAULT]
auth_strategy = keystone
[keystone_authtoken]
auth_url = %s
username = %s
password = %s
project_name = %s
user_domain_name = Default
project_domain_id = default
http_connect_timeout = 120
[QUOTAS]
quota_network = 5
[OVS]
network_vlan_ranges = physnet1:100:199
[ml2_type_flat]
flat_networks = physnet1
`

func newCloud(t *testing.T) *cloud {
	t.Helper()
	c := &cloud{T: t, ks: keystone.Start(t), bin: t.TempDir(), tokens: map[string]string{}}
	own := c.ks.Account(t, "quantum", "admin", "service")
	c.accounts = map[string]keystone.Account{
		"admin": c.ks.Account(t, "operator", "admin"),
		"blue":  c.ks.Account(t, "blue", "member"),
		"red":   c.ks.Account(t, "red", "member"),
	}
	c.accounts["reader"] = c.reader()
	if out, err := exec.Command("go", "build", "-race", "-o", c.bin, "planck/cmd/planck", "planck/cmd/quantum").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	ovsdb := c.serve(fmt.Sprintf(config, c.ks.URL, own.User, own.Password, own.Project))
	c.ks.Network(t, c.url)
	for who, a := range c.accounts {
		c.tokens[who] = c.ks.Token(t, a)
	}
	c.shell = newShell(t)
	lab.ForTest(t, lab.Options{Hosts: 1, Controllers: []string{ovsdb}})
	c.eventually("the hypervisor has joined", c.joined)
	return c
}

// joined reports whether the hypervisor is an agent that is alive.
func (c *cloud) joined() error {
	req, err := http.NewRequest(http.MethodGet, c.url+"/v2.0/agents?alive=true&fields=host", nil)
	if err != nil {
		return err
	}
	req.Header.Set("X-Auth-Token", c.tokens["admin"])
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	said, err := io.ReadAll(res.Body)
	if err == nil && !strings.Contains(string(said), "host1") {
		err = fmt.Errorf("%s: %s", res.Status, said)
	}
	return err
}

// reader is a user who may look at what project blue has.
func (c *cloud) reader() keystone.Account {
	c.Helper()
	a, blue := c.ks.Account(c.T, "reader"), c.accounts["blue"]
	c.ks.Grant(c.T, a.UserID, blue.ProjectID, "reader")
	a.Project, a.ProjectID = blue.Project, blue.ProjectID
	return a
}

// serve starts a controller and returns what a hypervisor's manager target is.
func (c *cloud) serve(config string) string {
	c.Helper()
	dir := c.TempDir()
	file, said := filepath.Join(dir, "planck.conf"), filepath.Join(dir, "log")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		c.Fatal(err)
	}
	log, err := os.Create(said)
	if err != nil {
		c.Fatal(err)
	}
	defer log.Close()
	api, ovsdb, openflow := freePort(c.T), freePort(c.T), freePort(c.T)
	c.url = fmt.Sprintf("http://127.0.0.1:%d", api)
	cmd := exec.Command(filepath.Join(c.bin, "planck"), "serve", "--config-file", file, "--state-dir", filepath.Join(dir, "state"),
		"--api-listen", fmt.Sprintf("127.0.0.1:%d", api),
		"--ovsdb-listen", fmt.Sprintf(":%d", ovsdb), "--openflow-listen", fmt.Sprintf(":%d", openflow))
	cmd.Stderr = log
	if err := cmd.Start(); err != nil {
		c.Fatal(err)
	}
	c.Cleanup(func() { c.stop(cmd, said) })
	c.eventually("the controller is ready", func() error {
		res, err := http.Get(c.url + "/readyz")
		if err != nil {
			return err
		}
		res.Body.Close()
		if res.StatusCode != http.StatusOK {
			return fmt.Errorf("readyz: %s", res.Status)
		}
		return nil
	})
	return fmt.Sprintf("tcp:%s:%d", lab.ControllerHost, ovsdb)
}

func (c *cloud) stop(cmd *exec.Cmd, said string) {
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		c.Error(err)
	}
	if err := cmd.Wait(); err != nil {
		c.Errorf("planck serve: %v", err)
	}
	if !c.Failed() {
		return
	}
	log, err := os.ReadFile(said)
	if err != nil {
		c.Error(err)
	}
	c.Logf("planck serve said:\n%s", log[max(0, len(log)-32<<10):])
}

// in is the same cloud for a subtest.
func (c *cloud) in(t *testing.T) *cloud {
	copied := *c
	copied.T = t
	return &copied
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// eventually tries until there is no error.
func (c *cloud) eventually(what string, try func() error) {
	c.Helper()
	deadline := time.Now().Add(settle)
	for err := try(); err != nil; err = try() {
		if time.Now().After(deadline) {
			c.Fatalf("not within %v: %s: %v", settle, what, err)
		}
		time.Sleep(100 * time.Millisecond)
	}
}
