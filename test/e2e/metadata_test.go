package e2e

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"planck/test/lab"
)

const (
	metadataURL    = "http://169.254.169.254"
	metadataSecret = "the secret of Nova and the network"
)

// metadataNova plays Nova's metadata service: it answers with who asked, as it was told.
type metadataNova struct {
	*testing.T
	port   int
	server *http.Server

	mu      sync.Mutex
	proofs  map[string]string // signatures that came with an instance id
	waiting int               // requests that are not answered
	crowd   *crowdAtNova
}

// crowdAtNova is requests that are answered when all of them are there.
type crowdAtNova struct {
	missing, present, most int
	complete               chan struct{}
}

// crowdPatience is less than the time for which the controller waits for Nova.
const crowdPatience = 5 * time.Second

// gather lets requests wait for each other, until there are so many or one has
// waited for long.
func (n *metadataNova) gather(many int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.crowd = &crowdAtNova{missing: many, complete: make(chan struct{})}
}

// gathered ends that, and returns how many were there at the same time.
func (n *metadataNova) gathered() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	defer func() { n.crowd = nil }()
	return n.crowd.most
}

// join waits for the others of a crowd.
func (n *metadataNova) join() {
	n.mu.Lock()
	crowd := n.crowd
	if crowd == nil {
		n.mu.Unlock()
		return
	}
	crowd.present++
	crowd.most = max(crowd.most, crowd.present)
	if crowd.missing--; crowd.missing == 0 {
		close(crowd.complete)
	}
	n.mu.Unlock()
	select {
	case <-crowd.complete:
	case <-time.After(crowdPatience):
	}
	n.mu.Lock()
	crowd.present--
	n.mu.Unlock()
}

// caller is what Nova is told about who asks.
type caller struct {
	Instance, Tenant, Address, Path, Body string
}

func newMetadataNova(t *testing.T) *metadataNova {
	n := &metadataNova{T: t, port: freePort(t), proofs: map[string]string{}}
	n.start()
	t.Cleanup(n.stop)
	return n
}

func (n *metadataNova) config() string {
	return fmt.Sprintf("[metadata]\nnova_metadata_host = 127.0.0.1\nnova_metadata_port = %d\nmetadata_proxy_shared_secret = %s\n", n.port, metadataSecret)
}

func (n *metadataNova) start() {
	n.Helper()
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", n.port))
	if err != nil {
		n.Fatal(err)
	}
	n.server = &http.Server{Handler: n}
	server := n.server
	go func() { _ = server.Serve(l) }() // until stop
}

func (n *metadataNova) stop() { _ = n.server.Close() }

func (n *metadataNova) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/never" {
		n.wait(+1)
		<-r.Context().Done()
		n.wait(-1)
		return
	}
	body, _ := io.ReadAll(r.Body)
	for _, name := range []string{"X-Instance-ID", "X-Tenant-ID", "X-Forwarded-For", "X-Instance-ID-Signature"} {
		if values := r.Header.Values(name); len(values) != 1 {
			http.Error(w, fmt.Sprintf("%s: %q", name, values), http.StatusBadRequest)
			return
		}
	}
	instance := r.Header.Get("X-Instance-ID")
	n.mu.Lock()
	n.proofs[instance] = r.Header.Get("X-Instance-ID-Signature")
	n.mu.Unlock()
	n.join()
	_ = json.NewEncoder(w).Encode(caller{instance, r.Header.Get("X-Tenant-ID"), r.Header.Get("X-Forwarded-For"), r.URL.RequestURI(), string(body)})
}

func (n *metadataNova) wait(change int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.waiting += change
}

// verify checks by openssl the signatures that came.
func (n *metadataNova) verify(instances ...string) {
	n.Helper()
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, id := range instances {
		cmd := exec.Command("openssl", "dgst", "-sha256", "-hmac", metadataSecret)
		cmd.Stdin = strings.NewReader(id)
		out, err := cmd.Output()
		fields := strings.Fields(string(out))
		if err != nil || len(fields) == 0 {
			n.Fatalf("openssl: %v %q", err, out)
		}
		if want := fields[len(fields)-1]; n.proofs[id] != want {
			n.Errorf("instance %s is signed by %q, openssl says %q", id, n.proofs[id], want)
		}
	}
}

// curl asks for metadata from a VM; it returns the status and the body.
func (c *cloud) curl(v *vm, path string, options ...string) (int, string) {
	c.Helper()
	status, body, err := tryCurl(c.Context(), v, path, options...)
	if err != nil {
		c.Fatalf("curl on %s: %v", v.Name(), err)
	}
	return status, body
}

func tryCurl(ctx context.Context, v *vm, path string, options ...string) (int, string, error) {
	args := append([]string{"curl", "-s", "-S", "-m", "60", "-w", "\n%{http_code}"}, options...)
	out, err := v.Exec(ctx, append(args, metadataURL+path)...)
	if err != nil {
		return 0, "", err
	}
	i := strings.LastIndexByte(out, '\n') + 1
	status, err := strconv.Atoi(out[i:])
	return status, strings.TrimSpace(out[:i]), err
}

// isToldItself checks that a VM gets what belongs to its own instance.
func (c *cloud) isToldItself(v *vm, options ...string) {
	c.Helper()
	status, body := c.curl(v, "/latest/meta-data/?x=1", options...)
	if err := ownMetadata(v, status, body); err != nil {
		c.Errorf("%s: %v", v.Name(), err)
	}
}

func ownMetadata(v *vm, status int, body string) error {
	var got caller
	if err := json.Unmarshal([]byte(body), &got); err != nil || status != http.StatusOK {
		return fmt.Errorf("%d %q", status, body)
	}
	if want := (caller{v.instance(), v.port["tenant_id"].(string), v.ip(), got.Path, ""}); got != want {
		return fmt.Errorf("Nova heard of %+v, want %+v", got, want)
	}
	return nil
}

func (v *vm) instance() string { return v.port["device_id"].(string) }

// server boots a VM of an instance with an address of its choice, as Nova does.
func (c *cloud) server(tenant, name, host, networkID, ip string, attrs object) *vm {
	c.Helper()
	body := object{"device_id": "instance-" + name, "tenant_id": tenant}
	if ip != "" {
		body["fixed_ips"] = []any{object{"ip_address": ip}}
	}
	for k, v := range attrs {
		body[k] = v
	}
	return c.boot(name, host, networkID, body)
}

// metadataHop is the next hop that DHCP gave for the metadata service.
func (c *cloud) metadataHop(v *vm) string {
	c.Helper()
	for _, r := range c.dhcp(v).Routes {
		if r.Dst == netip.MustParsePrefix("169.254.169.254/32") {
			return r.Via.String()
		}
	}
	return ""
}

func TestEveryVMIsToldItsOwnMetadata(t *testing.T) {
	t.Parallel()
	nova := newMetadataNova(t)
	c := newCloud(t, 2, nil, "[OVS]\nnetwork_vlan_ranges = physnet1:100:199\n"+nova.config())

	c.also("tenants with the same addresses, on routed and isolated networks of all kinds", func(c *cloud) {
		routed, isolated := c.network("blue", "10.0.0.0/24", nil), c.network("red", "10.0.0.0/24", nil)
		c.router("blue", routed)
		island := c.network("green", "", nil)
		c.subnet(island, "10.0.0.0/24", object{"gateway_ip": nil})
		vlan := c.network("grey", "10.0.0.0/24", object{
			"provider:network_type": "vlan", "provider:physical_network": "physnet1", "provider:segmentation_id": 107,
		})
		vms := []*vm{
			c.server("blue", "blue1", "host1", routed, "10.0.0.10", nil), c.server("blue", "blue2", "host2", routed, "10.0.0.11", nil),
			c.server("red", "red1", "host1", isolated, "10.0.0.10", nil), c.server("red", "red2", "host2", isolated, "10.0.0.11", nil),
			c.server("green", "green1", "host2", island, "10.0.0.10", nil), c.server("grey", "grey1", "host1", vlan, "10.0.0.10", nil),
		}
		for i, v := range vms {
			want := "10.0.0.1" // the router
			if i > 1 {
				want = c.dhcpServer(v.port["network_id"].(string))
			}
			if hop := c.metadataHop(v); hop != want {
				c.Errorf("%s was given %q as the way to the metadata service, want %s", v.Name(), hop, want)
			}
		}
		// The same source ports at the same time: the addresses say nothing.
		c.together(vms, "--local-port", "41000")
		c.together(vms)
		for _, v := range vms {
			nova.verify(v.instance())
		}
		for _, v := range vms[:3] { // the address is on the VM's own link
			c.exec(v.Node, "ip", "route", "replace", "169.254.169.254/32", "dev", "eth0")
			c.isToldItself(v)
		}
		c.exec(vms[0].Node, "ip", "route", "del", "169.254.169.254/32") // by the default gateway
		c.isToldItself(vms[0])
	})

	c.also("who lies about itself is told its own", func(c *cloud) {
		id := c.network("cyan", "10.0.0.0/24", nil)
		victim := c.server("cyan", "victim", "host1", id, "", nil)
		liar := c.server("cyan", "liar", "host1", id, "", object{"port_security_enabled": false})
		c.dhcp(victim)
		c.dhcp(liar)
		for _, spelling := range []string{"X-Instance-ID", "x-instance-id", "X_Instance_ID"} {
			c.isToldItself(liar, "-H", spelling+": "+victim.instance(), "-H", "X-Tenant-ID: red", "-H", "X-Forwarded-For: "+victim.ip(),
				"-H", "X-Instance-ID-Signature: 00", "-H", "Connection: X-Instance-ID, X-Tenant-ID, X-Instance-ID-Signature")
		}
		// It takes the victim's address and even its MAC: the port is its own.
		if err := liar.SetAddr(c.Context(), victim.ip()+"/32"); err != nil {
			c.Fatal(err)
		}
		c.isToldItself(liar, "--interface", victim.ip())
		c.exec(liar.Node, "ip", "link", "set", "eth0", "address", victim.mac())
		c.isToldItself(liar, "--interface", victim.ip())
		c.isToldItself(victim)
	})

	c.also("what Nova answers comes through, and what no instance asks does not", func(c *cloud) {
		id := c.network("pink", "10.0.0.0/24", nil)
		v, nobody := c.server("pink", "poster", "host1", id, "", nil), c.boot("nobody", "host2", id, nil)
		c.dhcp(v)
		c.dhcp(nobody)
		if status, body := c.curl(v, "/openstack/latest/password", "-X", "POST", "-d", "s3same"); status != http.StatusOK || !strings.Contains(body, `"Body":"s3same"`) {
			c.Errorf("POST: %d %s", status, body)
		}
		if status, body := c.curl(v, "/", "--data-binary", "@/usr/bin/curl"); status != http.StatusRequestEntityTooLarge {
			c.Errorf("a large body: %d %s", status, body)
		}
		if status, body := c.curl(nobody, "/"); status != http.StatusNotFound {
			c.Errorf("a port without an instance: %d %s", status, body)
		}
	})
}

// together lets VMs ask at the same time.
func (c *cloud) together(vms []*vm, options ...string) {
	c.Helper()
	errs := make([]error, len(vms))
	var asking sync.WaitGroup
	for i, v := range vms {
		asking.Go(func() {
			status, body, err := tryCurl(c.Context(), v, "/", options...)
			if err == nil {
				err = ownMetadata(v, status, body)
			}
			errs[i] = err
		})
	}
	asking.Wait()
	for i, err := range errs {
		if err != nil {
			c.Errorf("%s: %v", vms[i].Name(), err)
		}
	}
}

func TestMetadataUnderLoadAndFailures(t *testing.T) {
	t.Parallel()
	nova := newMetadataNova(t)
	c := newCloud(t, 2, nil, nova.config())
	id := c.network("blue", "10.0.0.0/24", nil)
	var vms []*vm
	for i := range 20 {
		v := c.server("blue", fmt.Sprintf("vm%d", i), fmt.Sprintf("host%d", 1+i%2), id, "", nil)
		c.dhcp(v)
		vms = append(vms, v)
	}
	c.crowd(nova, vms, 10)
	if n := c.metric("planck_metadata_refused_total", ""); n != 0 {
		t.Errorf("%v connections were reset", n)
	}

	// A VM whose requests Nova does not answer: it is told so, others lose nothing.
	stuck := make(chan string, 1)
	go func() {
		status, body, err := tryCurl(t.Context(), vms[0], "/never")
		stuck <- fmt.Sprint(status, " ", body, " ", err)
	}()
	c.eventually("Nova has the request", func() error {
		nova.mu.Lock()
		defer nova.mu.Unlock()
		if nova.waiting == 0 {
			return errors.New("it has not")
		}
		return nil
	})
	c.together(vms)
	c.reaches(vms[0].Node, vms[1].ip())
	if answer := <-stuck; !strings.HasPrefix(answer, "503 ") {
		t.Errorf("a request that Nova never answers: %s", answer)
	}

	nova.stop()
	if status, body := c.curl(vms[0], "/"); status != http.StatusServiceUnavailable {
		t.Errorf("without Nova: %d %s", status, body)
	}
	c.dhcp(vms[1])
	c.reaches(vms[1].Node, vms[0].ip())
	nova.start()
	c.isToldItself(vms[0])

	c.kill(syscall.SIGKILL)
	c.start()
	c.allLive()
	if n := c.metric("planck_flow_mods_total", ""); n != 0 {
		t.Errorf("the new controller sent %v FLOW_MODs", n)
	}
	c.together(vms)
	c.hypervisorsAreBare()
	if code := c.kill(syscall.SIGTERM); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// askTogether opens connections, says so, and asks by all of them once a file is there.
const askTogether = `
import http.client, os, sys, time
conns = [http.client.HTTPConnection("169.254.169.254", timeout=90) for _ in range(int(sys.argv[1]))]
for c in conns:
    c.connect()
print("connected")
while not os.path.exists(sys.argv[2]):
    time.sleep(0.01)
for i, c in enumerate(conns):
    c.request("GET", "/%d" % i)
for c in conns:
    r = c.getresponse()
    print(r.status, r.read().decode().strip())
`

// crowd lets each VM ask by so many connections, which are all open before the
// first of them asks; Nova answers when it has been asked by all.
func (c *cloud) crowd(nova *metadataNova, vms []*vm, each int) {
	c.Helper()
	all := len(vms) * each
	nova.gather(all)
	ask := filepath.Join(c.TempDir(), "ask")
	var asking []*lab.Process
	for _, v := range vms {
		p, err := v.Start("python3", "-u", "-c", askTogether, strconv.Itoa(each), ask)
		if err != nil {
			c.Fatal(err)
		}
		asking = append(asking, p)
	}
	for _, p := range asking {
		if err := p.WaitOutput(c.within(settle), "connected"); err != nil {
			c.Fatal(err)
		}
	}
	c.eventually("all connections are open", func() error {
		if open := c.metric("planck_metadata_connections", ""); open != float64(all) {
			return fmt.Errorf("%v of %d are", open, all)
		}
		return nil
	})
	begin := time.Now()
	if err := os.WriteFile(ask, nil, 0o600); err != nil {
		c.Fatal(err)
	}
	for i, p := range asking {
		if err := p.Wait(c.within(2 * settle)); err != nil {
			c.Fatalf("%s: %v", vms[i].Name(), err)
		}
	}
	most := nova.gathered()
	c.Logf("%d requests at once of each of %d VMs took %v, Nova had %d at the same time", each, len(vms), time.Since(begin), most)
	if most < all*3/4 {
		c.Errorf("Nova had %d of %d requests at the same time", most, all)
	}
	for i, p := range asking {
		_, answers, _ := strings.Cut(p.Output(), "connected\n")
		lines := strings.Split(strings.TrimSpace(answers), "\n")
		if len(lines) != each {
			c.Errorf("%s got %d answers: %s", vms[i].Name(), len(lines), answers)
		}
		for _, line := range lines {
			body, ok := strings.CutPrefix(line, "200 ")
			if !ok {
				c.Errorf("%s got %q", vms[i].Name(), line)
				continue
			}
			if err := ownMetadata(vms[i], http.StatusOK, body); err != nil {
				c.Errorf("%s: %v", vms[i].Name(), err)
			}
		}
	}
}

func TestFloodOfSYNsToMetadataHarmsNobody(t *testing.T) {
	t.Parallel()
	nova := newMetadataNova(t)
	f := newFire(t, 2, nova.config())
	noisy := f.boot("noisy", "host1", object{"device_id": "instance-noisy"})
	quiet := f.boot("quiet", "host1", object{"device_id": "instance-quiet"})
	f.dhcp(noisy)
	f.dhcp(quiet)
	memory := f.metric("go_memstats_heap_inuse_bytes", "") + f.metric("go_memstats_stack_inuse_bytes", "")
	before, begin := f.puntsOf("metadata"), time.Now()
	stop := f.floodFrom(noisy, floodFrame{ethernet(t, quiet.mac(), noisy.mac(), etherIPv4, synToMetadata(noisy.ip())), [2]int{34, 36}})
	f.service("flood of SYNs to the metadata service", quiet)
	for range 5 {
		f.isToldItself(quiet)
	}
	sent, took := stop(), time.Since(begin)
	// A port may send 400 packets a second to the service; the drop flow that
	// silences it for a second comes a moment late.
	punts := f.puntsOf("metadata") - before
	t.Logf("%d frames/s, %.0f packet-ins/s", int(float64(sent)/took.Seconds()), punts/took.Seconds())
	if most := 5000 * (took.Seconds() + 1); punts < 100 || punts > most {
		t.Errorf("%v packet-ins in %v, want some, and %.0f at the most", punts, took, most)
	}
	if now := f.metric("go_memstats_heap_inuse_bytes", "") + f.metric("go_memstats_stack_inuse_bytes", ""); now > memory+32<<20 {
		t.Errorf("%.0f MiB of memory became %.0f", memory/(1<<20), now/(1<<20))
	}
	if n := f.metric("planck_metadata_connections", ""); n > 5 {
		t.Errorf("%v connections are open", n)
	}
	f.eventually("the noisy one is heard again", func() error {
		status, body, err := tryCurl(t.Context(), noisy, "/")
		if err == nil {
			err = ownMetadata(noisy, status, body)
		}
		return err
	})
	f.right()
	f.nothingLeft()
}

// synToMetadata is an IPv4 packet that asks for a connection to the service.
func synToMetadata(src string) []byte {
	ip := []byte{0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6, 0, 0}
	ip = append(append(ip, netip.MustParseAddr(src).AsSlice()...), 169, 254, 169, 254)
	binary.BigEndian.PutUint16(ip[10:], internetChecksum(ip))
	return append(ip, 0xa0, 0, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 5<<4, 2, 0xff, 0xff, 0, 0, 0, 0)
}
