package e2e

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"planck/test/lab"
	"planck/test/pg"
)

// trusting is a client that trusts an authority, and no other.
func (a *authority) trusting() *http.Client {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}}}
}

// TestClusterSpeaksTLSBehindHAProxy tells docs/cluster.md: three members that
// speak TLS with everybody, behind the HAProxy that is configured there. One of
// them dies under real clients.
func TestClusterSpeaksTLSBehindHAProxy(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	own := ca.issue("planck")
	server := pg.StartTLS(t, own.cert, own.key, net.JoinHostPort("127.0.0.1", strconv.Itoa(freePort(t))))
	dsn := server.DatabaseTLS(t, own.ca)
	var m members
	var targets []string
	for i := range 3 {
		c := controllerOf(t, []string{controllerBinary}, fmt.Sprintf(`[DEFAULT]
use_ssl = True
[ssl]
cert_file = %[1]s
key_file = %[2]s
[openflow]
cert = %[1]s
key = %[2]s
ca = %[3]s
[database]
connection = %[4]s
[cluster]
name = %[5]s
`, own.cert, own.key, own.ca, dsn, memberName(i)))
		c.client, c.api = ca.trusting(), strings.Replace(c.api, "http:", "https:", 1)
		c.start()
		m, targets = append(m, c), append(targets, strings.Replace(c.ovsdb, "tcp:", "ssl:", 1))
	}
	l := lab.ForTest(t, lab.Options{Hosts: 2})
	for _, c := range m {
		c.lab = l
	}
	c := *m[0]
	c.api, c.client = m.haproxy(own), ca.trusting()
	for _, h := range l.Hosts() {
		of := ca.issue(h.Name())
		c.vsctl(h.Name(), "--no-wait", "set-ssl", of.key, of.cert, of.ca)
		if err := h.SetManager(targets...); err != nil {
			t.Fatal(err)
		}
	}
	c.eventually("the hosts have joined", func() error {
		if known := len(m[0].hostStates()); known != 2 {
			return fmt.Errorf("%d have", known)
		}
		return nil
	})
	m.whole()
	blue := c.network("blue", "10.0.0.0/24", nil)
	a, b := c.boot("a", "host1", blue, nil), c.boot("b", "host2", blue, nil)
	c.dhcp(a)
	c.dhcp(b)
	c.reaches(a.Node, b.ip())

	stream, err := a.PingStream(c.within(settle), b.ip())
	if err != nil {
		t.Fatal(err)
	}
	clients := c.curls(own.ca, blue, 3)
	clients.answered(&c, 10)
	victim := m.busiest()
	victim.kill(syscall.SIGKILL)
	clients.answered(&c, 30)
	clients.finish(&c)
	c.dhcp(c.boot("late", "host1", blue, nil))
	stats, err := stream.Stop()
	if err != nil {
		t.Fatal(err)
	}
	if err := stats.Whole(); err != nil {
		t.Error(err)
	}
	victim.start()
	m.whole()
	c.openstack(own.ca)
	m.refuseStranger(ca, targets)
}

// haproxy starts what docs/cluster.md shows in front of the members, and returns
// its address.
func (m members) haproxy(own credentials) (api string) {
	c := m[0]
	c.Helper()
	doc, err := os.ReadFile("../../docs/cluster.md")
	if err != nil {
		c.Fatal(err)
	}
	_, config, _ := strings.Cut(string(doc), "```haproxy\n")
	config, _, _ = strings.Cut(config, "```")
	var pem []byte
	for _, file := range []string{own.cert, own.key} {
		part, err := os.ReadFile(file)
		if err != nil {
			c.Fatal(err)
		}
		pem = append(pem, part...)
	}
	dir := c.TempDir()
	bundle := filepath.Join(dir, "haproxy.pem")
	if err := os.WriteFile(bundle, pem, 0o600); err != nil {
		c.Fatal(err)
	}
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(freePort(c.T)))
	changes := []string{"bind :9696", "bind " + address, "/etc/haproxy/planck.pem", bundle, "/etc/haproxy/planck-ca.pem", own.ca}
	for i, member := range m {
		changes = append(changes, fmt.Sprintf("192.0.2.1%d:9696", i+1), strings.TrimPrefix(member.api, "https://"))
	}
	for i := 0; i < len(changes); i += 2 {
		if !strings.Contains(config, changes[i]) {
			c.Fatalf("docs/cluster.md has no %s", changes[i])
		}
	}
	file := filepath.Join(dir, "haproxy.cfg")
	if err := os.WriteFile(file, []byte(strings.NewReplacer(changes...).Replace(config)), 0o600); err != nil {
		c.Fatal(err)
	}
	log, err := os.Create(filepath.Join(dir, "haproxy.log"))
	if err != nil {
		c.Fatal(err)
	}
	defer log.Close()
	proxy := exec.Command("haproxy", "-db", "-f", file)
	proxy.Stdout, proxy.Stderr = log, log
	if err := proxy.Start(); err != nil {
		c.Fatal(err)
	}
	c.Cleanup(func() {
		_ = proxy.Process.Kill()
		_ = proxy.Wait() // it was killed
		if text, _ := os.ReadFile(log.Name()); c.Failed() {
			c.Logf("HAProxy says:\n%s", text)
		}
	})
	api = "https://" + address
	c.eventually("HAProxy has members", func() error {
		resp, err := c.client.Get(api + "/readyz")
		if err != nil {
			return err
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("readyz: %s", resp.Status)
		}
		return nil
	})
	return api
}

// busiest is the member that got most of the clients' requests.
func (m members) busiest() *cloud {
	best, most := m[0], 0.0
	for _, c := range m {
		if n := c.metric("planck_api_requests_total", `method="POST"`); n > most {
			best, most = c, n
		}
	}
	return best
}

// curls are clients that make and delete ports with curl.
type curls struct {
	stop   []func()
	n      int
	mu     sync.Mutex
	ok     int
	failed []string
	there  map[string]bool // by id
}

// curls starts n of them.
func (c *cloud) curls(ca, network string, n int) *curls {
	u := &curls{n: n, there: map[string]bool{}}
	ask := func(ctx context.Context, method, path, body string) (status, answer string) {
		out, _ := exec.CommandContext(ctx, "curl", "-sS", "--cacert", ca, "-X", method, "-d", body, "-H", "Content-Type: application/json",
			"-w", "\n%{http_code}", c.api+path).CombinedOutput()
		if ctx.Err() != nil {
			return "", ""
		}
		i := strings.LastIndexByte(string(out), '\n')
		answer, status = string(out[:max(i, 0)]), string(out[i+1:])
		u.mu.Lock()
		defer u.mu.Unlock()
		if strings.HasPrefix(status, "2") {
			u.ok++
		} else {
			u.failed = append(u.failed, method+" "+path+": "+string(out))
		}
		return status, answer
	}
	id := regexp.MustCompile(`"id": "([0-9a-f-]{36})"`)
	for range n {
		u.stop = append(u.stop, (&fire{cloud: c}).background(func(ctx context.Context) {
			ctx = context.WithoutCancel(ctx) // what became of a request has to be known
			status, answer := ask(ctx, http.MethodPost, "/v2.0/ports", `{"port": {"name": "curl", "network_id": "`+network+`"}}`)
			found := id.FindStringSubmatch(answer)
			if status != "201" || found == nil {
				return
			}
			u.mu.Lock()
			u.there[found[1]] = true
			u.mu.Unlock()
			ask(ctx, http.MethodGet, "/v2.0/ports/"+found[1], "") // it is with the member that made it
		}))
	}
	return u
}

// answered waits for more answers.
func (u *curls) answered(c *cloud, more int) {
	c.Helper()
	u.mu.Lock()
	want := u.ok + more
	u.mu.Unlock()
	c.eventually("clients are answered", func() error {
		u.mu.Lock()
		defer u.mu.Unlock()
		if u.ok < want {
			return fmt.Errorf("%d answers, want %d; failed: %q", u.ok, want, u.failed)
		}
		return nil
	})
}

// finish stops the clients. Each may have lost the request that its member had
// when it died, and one that HAProxy had on its way, and nothing that was answered.
func (u *curls) finish(c *cloud) {
	c.Helper()
	for _, stop := range u.stop {
		stop()
	}
	c.Logf("HAProxy: %d requests answered, %d failed: %q", u.ok, len(u.failed), u.failed)
	if len(u.failed) > 2*u.n {
		c.Errorf("%d clients lost %d requests: %q", u.n, len(u.failed), u.failed)
	}
	ports := (&fire{cloud: c}).ports()
	for id := range u.there {
		if ports[id] != "curl" {
			c.Errorf("port %s was acknowledged and is not there", id)
		}
	}
}

// openstack asks with OpenStack's own client.
func (c *cloud) openstack(ca string) {
	c.Helper()
	out, err := exec.CommandContext(c.Context(), "openstack", "--os-auth-type", "none", "--os-endpoint", c.api, "--os-cacert", ca,
		"network", "list", "-f", "value", "-c", "Name").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "blue-net") {
		c.Errorf("openstack network list: %v: %s", err, out)
	}
}

// refuseStranger lets a host dial all members with a certificate that another
// authority signed, and one without any.
func (m members) refuseStranger(ca *authority, targets []string) {
	c := m[0]
	c.Helper()
	stranger := newAuthority(c.T).issue("host3")
	for _, dial := range []func(host *lab.Host) error{
		func(host *lab.Host) error {
			c.vsctl(host.Name(), "--no-wait", "set-ssl", stranger.key, stranger.cert, ca.file("ca"))
			return host.SetManager(targets...)
		},
		func(host *lab.Host) error {
			return host.SetManager(strings.Split(strings.ReplaceAll(strings.Join(targets, " "), "ssl:", "tcp:"), " ")...)
		},
	} {
		host, err := c.lab.AddHost(c.Context(), false)
		if err != nil {
			c.Fatal(err)
		}
		if err := dial(host); err != nil {
			c.Fatal(err)
		}
		c.eventually(host.Name()+" is turned away by all members", func() error {
			status := c.vsctl(host.Name(), "--no-wait", "--bare", "--columns=status", "list", "Manager")
			if strings.Count(status, "sec_since_disconnect=") < len(m) {
				return fmt.Errorf("its managers are %s", status)
			}
			return nil
		})
		for i, member := range m {
			if member.hostState(host.Name(), "") != nil {
				c.Errorf("%s has joined %s", host.Name(), memberName(i))
			}
		}
	}
}
