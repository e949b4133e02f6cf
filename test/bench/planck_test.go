package bench

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
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// built is the program under test, built once.
var built struct {
	once        sync.Once
	dir, planck string
	err         error
}

func program(tb testing.TB) string {
	tb.Helper()
	if *programFlag != "" {
		return *programFlag
	}
	built.once.Do(func() {
		if built.dir, built.err = os.MkdirTemp("", "planck-bench-"); built.err != nil {
			return
		}
		built.planck = filepath.Join(built.dir, "planck")
		if out, err := exec.Command("go", "build", "-o", built.planck, "planck/cmd/planck").CombinedOutput(); err != nil {
			built.err = fmt.Errorf("go build: %w: %s", err, out)
		}
	})
	if built.err != nil {
		tb.Fatal(built.err)
	}
	return built.planck
}

// server is a `planck serve` process.
type server struct {
	testing.TB
	args  []string
	log   string
	api   string // host:port
	ovsdb int    // port
	token string // sent with each request; "" for none
	// asMember asks what the member of a cluster knows itself, and no other.
	asMember bool
	group    bool // whether it is several processes, of a group of their own
	process  *exec.Cmd
	client   *http.Client
}

// serve starts a controller with an empty database; an empty address of it
// means SQLite. config are lines of its configuration file.
func serve(tb testing.TB, database, config string) *server {
	tb.Helper()
	c := prepare(tb, database, config)
	c.start()
	return c
}

// prepare is serve without the start.
func prepare(tb testing.TB, database, config string) *server {
	tb.Helper()
	dir := tb.TempDir()
	file := filepath.Join(dir, "planck.conf")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		tb.Fatal(err)
	}
	ports := freePorts(tb, 3)
	c := &server{
		TB: tb, log: filepath.Join(dir, "planck.log"), api: fmt.Sprintf("127.0.0.1:%d", ports[0]), ovsdb: ports[1],
		args: []string{
			"serve", "--config-file", file, "--state-dir", filepath.Join(dir, "state"),
			"--api-listen", fmt.Sprintf("127.0.0.1:%d", ports[0]),
			"--ovsdb-listen", fmt.Sprintf(":%d", ports[1]), "--openflow-listen", fmt.Sprintf(":%d", ports[2]),
		},
		client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}},
	}
	if database != "" {
		c.args = append(c.args, "--database", database)
	}
	tb.Cleanup(c.end)
	return c
}

// start runs the program and waits until it is ready.
func (c *server) start() {
	c.Helper()
	log, err := os.OpenFile(c.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		c.Fatal(err)
	}
	defer log.Close()
	c.process = exec.Command(program(c.TB), c.args...)
	c.process.Stdout, c.process.Stderr = log, log
	if err := c.process.Start(); err != nil {
		c.Fatal(err)
	}
	c.eventually("the controller is ready", func() error {
		status, body, err := c.request(http.MethodGet, "/readyz", nil)
		if err == nil && status != http.StatusOK {
			err = fmt.Errorf("%d %s", status, body)
		}
		return err
	})
}

func (c *server) end() {
	if c.process == nil {
		return
	}
	for _, pid := range c.processes() {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	_ = c.process.Wait()
	c.process = nil
	c.client.CloseIdleConnections()
	if c.Failed() {
		log, _ := os.ReadFile(c.log)
		c.Logf("the server's log ends:\n%s", log[max(0, len(log)-8<<10):])
	}
}

func (c *server) cpu() time.Duration { return processCPU(c.TB, c.process.Process.Pid) }

// patience bounds how long anything may take to come about.
const patience = 2 * time.Minute

func (c *server) eventually(what string, try func() error) {
	c.Helper()
	deadline := time.Now().Add(patience)
	for err := try(); err != nil; err = try() {
		if time.Now().After(deadline) {
			c.Fatalf("not within %v: %s: %v", patience, what, err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func (c *server) request(method, path string, body []byte) (status int, answer []byte, err error) {
	req, err := http.NewRequest(method, "http://"+c.api+path, bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	if c.token != "" {
		req.Header.Set("X-Auth-Token", c.token)
	}
	if c.asMember {
		req.Header.Set("X-Planck-Asked-By", "bench")
	}
	resp, err := c.client.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	answer, err = io.ReadAll(resp.Body)
	return resp.StatusCode, answer, err
}

// get decodes an answer.
func (c *server) get(path string, into any) error {
	status, answer, err := c.request(http.MethodGet, path, nil)
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("GET %s: %d %s", path, status, answer)
	}
	if err != nil {
		return err
	}
	return json.Unmarshal(answer, into)
}

type object = map[string]any

// create makes one resource.
func (c *server) create(resource string, attributes object) (id string, err error) {
	out, err := c.post(resource+"s", object{resource: attributes})
	if err != nil {
		return "", err
	}
	var answer map[string]struct{ ID string }
	if err := json.Unmarshal(out, &answer); err != nil {
		return "", err
	}
	return answer[resource].ID, nil
}

// createMany makes resources by one request.
func (c *server) createMany(collection string, attributes []object) (ids []string, err error) {
	out, err := c.post(collection, object{collection: attributes})
	if err != nil {
		return nil, err
	}
	var answer map[string][]struct{ ID string }
	if err := json.Unmarshal(out, &answer); err != nil {
		return nil, err
	}
	for _, o := range answer[collection] {
		ids = append(ids, o.ID)
	}
	return ids, nil
}

// collectionPath is where "security_groups" are.
func collectionPath(collection string) string {
	return "/v2.0/" + strings.ReplaceAll(collection, "_", "-")
}

func (c *server) post(collection string, body object) ([]byte, error) {
	b, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	status, answer, err := c.request(http.MethodPost, collectionPath(collection), b)
	if err == nil && status != http.StatusCreated {
		err = fmt.Errorf("POST %s: %d %s", collection, status, answer)
	}
	return answer, err
}

// mustCreate is create where a failure ends the benchmark.
func (c *server) mustCreate(resource string, attributes object) string {
	c.Helper()
	id, err := c.create(resource, attributes)
	if err != nil {
		c.Fatal(err)
	}
	return id
}

// delete removes one resource.
func (c *server) delete(resource, id string) {
	c.Helper()
	status, answer, err := c.request(http.MethodDelete, collectionPath(resource+"s")+"/"+id, nil)
	if err != nil || status != http.StatusNoContent {
		c.Fatalf("DELETE %s %s: %d %s %v", resource, id, status, answer, err)
	}
}

// metric sums the samples of a metric.
func (c *server) metric(name string) float64 {
	c.Helper()
	_, answer, err := c.request(http.MethodGet, "/metrics", nil)
	if err != nil {
		c.Fatal(err)
	}
	var sum float64
	for line := range strings.Lines(string(answer)) {
		f := strings.Fields(line)
		if len(f) != 2 || f[0] != name && !strings.HasPrefix(f[0], name+"{") {
			continue
		}
		v, err := strconv.ParseFloat(f[1], 64)
		if err != nil {
			c.Fatal(err)
		}
		sum += v
	}
	return sum
}

// freePorts finds TCP ports that nobody listens on.
func freePorts(tb testing.TB, n int) []int {
	tb.Helper()
	ports := make([]int, n)
	for i := range ports {
		l, err := net.Listen("tcp", ":0")
		if err != nil {
			tb.Fatal(err)
		}
		defer l.Close()
		ports[i] = l.Addr().(*net.TCPAddr).Port
	}
	return ports
}
