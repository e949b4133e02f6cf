package bench

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"planck/test/pg"
)

// load is what a number of requests came to.
type load struct {
	requests int
	took     time.Duration
	each     []time.Duration
}

func (l load) String() string {
	return fmt.Sprintf("%s, p50 %s, p99 %s", perSecond(l.requests, l.took), ms(percentile(l.each, 50)), ms(percentile(l.each, 99)))
}

func (l load) rate() float64 { return float64(l.requests) / l.took.Seconds() }

// precisely is String for a few requests a second.
func (l load) precisely() string {
	return fmt.Sprintf("%.3g /s, p50 %s, p99 %s", l.rate(), ms(percentile(l.each, 50)), ms(percentile(l.each, 99)))
}

// request is one to be measured, with the status that it must have.
type request struct {
	method, path string
	body         any
	want         int
}

// drive makes n requests over so many connections at once. Its client does as
// little as it can: it runs on the same processors as the server.
func (c *server) drive(n, connections int, make func(i int) request) load {
	c.Helper()
	l := load{requests: n}
	var mu sync.Mutex
	next := 0
	take := func() (int, bool) {
		mu.Lock()
		defer mu.Unlock()
		next++
		return next - 1, next <= n
	}
	start := time.Now()
	mustEach(c.TB, connections, func(int) error {
		conn, err := net.Dial("tcp", c.api)
		if err != nil {
			return err
		}
		defer conn.Close()
		in := bufio.NewReaderSize(conn, 64<<10)
		for i, more := take(); more; i, more = take() {
			took, err := c.exchange(conn, in, make(i))
			if err != nil {
				return err
			}
			mu.Lock()
			l.each = append(l.each, took)
			mu.Unlock()
		}
		return nil
	})
	l.took = time.Since(start)
	return l
}

// exchange sends a request and reads the whole answer.
func (c *server) exchange(conn net.Conn, in *bufio.Reader, r request) (time.Duration, error) {
	var body []byte
	if r.body != nil {
		var err error
		if body, err = json.Marshal(r.body); err != nil {
			return 0, err
		}
	}
	var out bytes.Buffer
	fmt.Fprintf(&out, "%s %s HTTP/1.1\r\nHost: planck\r\nContent-Type: application/json\r\nContent-Length: %d\r\n", r.method, r.path, len(body))
	if c.token != "" {
		fmt.Fprintf(&out, "X-Auth-Token: %s\r\n", c.token)
	}
	fmt.Fprintf(&out, "\r\n%s", body)
	start := time.Now()
	if _, err := conn.Write(out.Bytes()); err != nil {
		return 0, err
	}
	resp, err := http.ReadResponse(in, nil)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != r.want {
		answer, err := io.ReadAll(resp.Body)
		return 0, fmt.Errorf("%s %s: %d %s %w", r.method, r.path, resp.StatusCode, answer, err)
	}
	_, err = io.Copy(io.Discard, resp.Body)
	return time.Since(start), err
}

// BenchmarkAPI measures the API on both databases, which write to the disk
// before they answer.
func BenchmarkAPI(b *testing.B) {
	for _, database := range []string{"SQLite", "PostgreSQL"} {
		dsn := ""
		if database == "PostgreSQL" {
			dsn = pg.StartDurable(b).Database(b)
		}
		a := &apiBench{server: serve(b, dsn, ""), table: newTable("api " + database)}
		a.run()
		a.end()
	}
}

type apiBench struct {
	*server
	table    *table
	networks []string
	ports    []string
}

func (a *apiBench) run() {
	a.Helper()
	empty := a.memory()
	a.measureNetworks()
	for n := range 20 {
		id := a.mustCreate("network", object{"name": networkID(n)})
		a.mustCreate("subnet", object{"network_id": id, "cidr": fmt.Sprintf("10.%d.0.0/16", n), "ip_version": 4})
		a.networks = append(a.networks, id)
	}
	a.createPorts(300, 1, "")
	a.createPorts(700, 8, "≥ 750 /s, p99 ≤ 5 ms")
	thousand := a.memory()
	a.reads("≤ 7 ms")
	if *sizes < 10_000 {
		return
	}
	a.createPorts(9000, 8, "≥ 750 /s, p99 ≤ 5 ms")
	a.reads("")
	a.table.add(row{
		what: "memory: empty / with 1,000 ports / with 10,000 ports",
		ours: fmt.Sprintf("%.0f / %.0f / %.0f MiB", empty, thousand, a.memory()), aim: "≤ 80 MiB with 1,000",
	})
}

func (a *apiBench) measureNetworks() {
	a.Helper()
	for _, connections := range []int{1, 8} {
		l := a.drive(300, connections, func(i int) request {
			return request{http.MethodPost, "/v2.0/networks", object{"network": object{"name": "n"}}, http.StatusCreated}
		})
		a.table.add(row{what: fmt.Sprintf("POST /networks, %d at once", connections), ours: l.String()})
	}
}

func (a *apiBench) createPorts(n, connections int, aim string) {
	a.Helper()
	before := len(a.ports)
	used := a.cpu()
	l := a.drive(n, connections, func(i int) request {
		return request{http.MethodPost, "/v2.0/ports", object{"port": object{
			"network_id": a.networks[i%len(a.networks)], "name": "vm", "device_id": deviceID(before + i), "device_owner": "compute:nova",
		}}, http.StatusCreated}
	})
	used = a.cpu() - used
	var answer struct{ Ports []struct{ ID string } }
	if err := a.get("/v2.0/ports?fields=id&device_owner=compute:nova", &answer); err != nil {
		a.Fatal(err)
	}
	a.ports = a.ports[:0]
	for _, p := range answer.Ports {
		a.ports = append(a.ports, p.ID)
	}
	a.table.add(row{
		what: fmt.Sprintf("POST /ports, %d at once, the %s after %s (CPU each)", connections, count(n), count(before)),
		ours: fmt.Sprintf("%s (%s)", l, us(used/time.Duration(n))), peer: "5 /s (Neutron)", aim: aim,
	})
}

func deviceID(i int) string { return fmt.Sprintf("00000000-0000-4000-8000-%012d", i) }

// reads measures the lists and the one object that clients ask for most.
func (a *apiBench) reads(aim string) {
	a.Helper()
	size := count(len(a.ports))
	get := func(path string) func(int) request {
		return func(int) request { return request{http.MethodGet, path, nil, http.StatusOK} }
	}
	for _, m := range []struct {
		what        string
		n           int
		connections int
		make        func(int) request
		aim         string
	}{
		{"GET /ports, all " + size, 40, 1, get("/v2.0/ports"), aim},
		{"GET /ports, a page of 100 of " + size, 200, 1, get("/v2.0/ports?limit=100"), ""},
		{"GET /ports of one of 20 networks, of " + size, 100, 1, get("/v2.0/ports?network_id=" + a.networks[0]), ""},
		{"GET /ports of one device, of " + size, 500, 1, get("/v2.0/ports?device_id=" + deviceID(7)), ""},
		{"GET /ports/ID, of " + size, 1000, 1, func(i int) request { return get("/v2.0/ports/" + a.ports[i%len(a.ports)])(i) }, ""},
		{"GET /ports/ID, of " + size + ", 8 at once", 4000, 8, func(i int) request { return get("/v2.0/ports/" + a.ports[i%len(a.ports)])(i) }, ""},
	} {
		a.table.add(row{what: m.what, ours: a.drive(m.n, m.connections, m.make).String(), aim: m.aim})
	}
}
