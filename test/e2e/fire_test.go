package e2e

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	_ "modernc.org/sqlite" // to look into the controller's database

	"planck/test/lab"
)

// A fire is a cloud with traffic running. The stories in fire_*_test.go break
// something, and then prove that everything is right again.
type fire struct {
	*cloud
	network string
	a, b    *vm // on host1 and host2; a pings b
	vms     []*vm
	base    map[string]string // flows of each host's bridges before there was a network
	dsn     string            // of the database, "" for the default
}

// newFire makes a cloud of n hosts with two VMs that reach each other.
func newFire(t *testing.T, n int, config string) *fire {
	t.Helper()
	return newFireIn(newCloud(t, n, nil, config), n)
}

// newFireIn is newFire in a cloud that is there.
func newFireIn(c *cloud, n int) *fire {
	c.Helper()
	f := &fire{cloud: c, base: map[string]string{}}
	f.hostsUp()
	f.live(n)
	for _, h := range f.lab.Hosts() {
		for _, bridge := range bridges {
			f.base[h.Name()+" "+bridge] = withoutCanary(f.flows(h.Name(), bridge))
		}
	}
	f.network = f.cloud.network("blue", "10.0.0.0/24", nil)
	f.a, f.b = f.boot("a", "host1", nil), f.boot("b", "host2", nil)
	f.dhcp(f.a)
	f.dhcp(f.b)
	f.reaches(f.a.Node, f.b.ip())
	return f
}

var bridges = []string{"br-int", "br-tun", "br-ex"}

func (f *fire) boot(name, host string, attrs object) *vm {
	f.Helper()
	v := f.cloud.boot(name, host, f.network, attrs)
	f.vms = append(f.vms, v)
	return v
}

// ping starts the traffic from a to b, 10 ms apart.
func (f *fire) ping() *lab.PingStream {
	f.Helper()
	s, err := f.a.PingStream(f.within(settle), f.b.ip())
	if err != nil {
		f.Fatal(err)
	}
	f.flowing(s)
	return s
}

// flowing waits for half a second's worth of replies.
func (f *fire) flowing(s *lab.PingStream) {
	f.Helper()
	if err := s.WaitReplies(f.within(settle), 50); err != nil {
		f.Fatal(err)
	}
}

// stop ends a stream and logs what it counted.
func (f *fire) stop(what string, s *lab.PingStream) lab.PingStats {
	f.Helper()
	stats, err := s.Stop()
	if err != nil {
		f.Fatal(err)
	}
	f.Logf("%s: %d of %d packets lost, the longest gap %v", what, stats.Lost, stats.Sent, stats.LongestGap)
	return stats
}

// lossless ends a stream that nothing may have interrupted.
func (f *fire) lossless(what string, s *lab.PingStream) {
	f.Helper()
	if err := f.stop(what, s).Whole(); err != nil {
		f.Errorf("%s: %v", what, err)
	}
}

// background runs work over and over until the returned function is called,
// which waits for its end.
func (f *fire) background(work func(ctx context.Context)) (stop func()) {
	ctx, cancel := context.WithCancel(f.Context())
	var running sync.WaitGroup
	running.Go(func() {
		for ctx.Err() == nil {
			work(ctx)
		}
	})
	stop = func() {
		cancel()
		running.Wait()
	}
	f.Cleanup(stop)
	return stop
}

// exchanges are what became of a DHCP client that runs over and over.
type exchanges struct {
	got     int
	longest time.Duration // of those that got a lease
	began   time.Time     // that one
	failed  []string      // when, and why
}

// took notes an exchange that got a lease.
func (e *exchanges) took(d time.Duration, began time.Time) {
	if d > e.longest {
		e.longest, e.began = d, began
	}
}

func (e *exchanges) String() string {
	return fmt.Sprintf("%d leases, %d failed exchanges, the longest took %v from %s on",
		e.got, len(e.failed), e.longest.Round(time.Millisecond), e.began.UTC().Format(time.TimeOnly))
}

// wrong tells of exchanges that failed, and of there having been none.
func (e *exchanges) wrong() error {
	if len(e.failed) == 0 && e.got > 0 {
		return nil
	}
	return fmt.Errorf("DHCP: %v\n%s", e, strings.Join(e.failed, "\n"))
}

// leases runs DHCP on a VM over and over; stop tells what became of it.
func (f *fire) leases(v *vm) (stop func() *exchanges) {
	e := &exchanges{}
	end := f.background(func(ctx context.Context) {
		begin := time.Now()
		lease, err := v.PatientDHCP(ctx)
		if err == nil && lease.Addr.Addr().String() != v.ip() {
			err = fmt.Errorf("the lease is of %v, not of %s", lease.Addr, v.ip())
		}
		switch took := time.Since(begin); {
		case ctx.Err() != nil:
		case err != nil:
			e.failed = append(e.failed, fmt.Sprintf("%s: failed within %v: %v", begin.UTC().Format(time.TimeOnly), took.Round(time.Millisecond), err))
		default:
			e.got++
			e.took(took, begin)
		}
	})
	return func() *exchanges {
		end()
		return e
	}
}

// writers create and delete ports, and remember what the API acknowledged.
type writers struct {
	f    *fire
	stop func()

	mu       sync.Mutex
	there    map[string]bool // ids that must be there
	gone     map[string]bool // ids that must not
	refused  map[string]bool // names that must not be there
	doubtful bool            // a reply 503 does not tell whether a change was made
	replies  map[int]int     // how many, by status
	unknown  int             // requests without a reply
	slowest  time.Duration
	requests int
}

// write starts n writers.
func (f *fire) write(n int) *writers {
	w := &writers{f: f, there: map[string]bool{}, gone: map[string]bool{}, refused: map[string]bool{}, replies: map[int]int{}}
	var stops []func()
	for i := range n {
		round := 0
		stops = append(stops, f.background(func(ctx context.Context) {
			round++
			w.round(ctx, fmt.Sprintf("writer%d-%d", i, round))
		}))
	}
	w.stop = func() {
		for _, stop := range stops {
			stop()
		}
	}
	return w
}

// round creates a port, and deletes it unless its turn is to stay.
func (w *writers) round(ctx context.Context, name string) {
	status, out := w.do(ctx, http.MethodPost, "/v2.0/ports", object{"port": object{"network_id": w.f.network, "name": name}})
	w.mu.Lock()
	if status == http.StatusServiceUnavailable {
		w.refused[name] = true
	}
	w.mu.Unlock()
	if status != http.StatusCreated {
		pauseFor(ctx, 20*time.Millisecond)
		return
	}
	id := out["port"].(object)["id"].(string)
	w.mu.Lock()
	w.there[id] = true
	keep := len(w.there)%8 == 0
	w.mu.Unlock()
	if keep {
		return
	}
	status, _ = w.do(ctx, http.MethodDelete, "/v2.0/ports/"+id, nil)
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case status == http.StatusNoContent:
		w.gone[id] = true
		delete(w.there, id)
	case status == 0, status == http.StatusServiceUnavailable && w.doubtful:
		delete(w.there, id) // nobody knows
	}
}

// do makes a request; 0 is no reply. It ignores the end of ctx while a request
// is under way, so that the outcome is known.
func (w *writers) do(ctx context.Context, method, path string, body any) (int, object) {
	if ctx.Err() != nil {
		return -1, nil
	}
	var content io.Reader
	if body != nil {
		encoded, err := json.Marshal(body)
		if err != nil {
			panic(err)
		}
		content = bytes.NewReader(encoded)
	}
	req, err := http.NewRequest(method, w.f.api+path, content)
	if err != nil {
		panic(err)
	}
	client := http.Client{Timeout: time.Minute}
	begin := time.Now()
	resp, err := client.Do(req)
	took := time.Since(begin)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.requests++
	w.slowest = max(w.slowest, took)
	if err != nil {
		w.unknown++
		return 0, nil
	}
	defer resp.Body.Close()
	var out object
	if err := json.NewDecoder(resp.Body).Decode(&out); err != nil && resp.StatusCode == http.StatusCreated {
		w.unknown++
		return 0, nil
	}
	w.replies[resp.StatusCode]++
	return resp.StatusCode, out
}

func pauseFor(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// answered waits until n more replies with a status have come.
func (w *writers) answered(what string, status, n int) {
	w.f.Helper()
	w.mu.Lock()
	want := w.replies[status] + n
	w.mu.Unlock()
	w.f.eventually(what, func() error {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.replies[status] < want {
			return fmt.Errorf("%d replies with status %d, want %d; all: %v", w.replies[status], status, want, w.replies)
		}
		return nil
	})
}

// finish stops the writers, compares what the API acknowledged with what is
// there, and takes what they left away.
func (w *writers) finish(statuses ...int) {
	w.f.Helper()
	w.stop()
	f := w.f
	f.Logf("API: %d requests, replies %v, %d without a reply, the slowest took %v", w.requests, w.replies, w.unknown, w.slowest.Round(time.Millisecond))
	for status, n := range w.replies {
		if !slices.Contains(append(statuses, http.StatusCreated, http.StatusNoContent), status) {
			f.Errorf("%d replies with status %d", n, status)
		}
	}
	if len(w.gone) == 0 {
		f.Error("the writers wrote nothing")
	}
	for id, name := range f.ports() {
		switch {
		case w.gone[id]:
			f.Errorf("port %s is there though its DELETE was acknowledged", id)
		case w.refused[name] && !w.doubtful:
			f.Errorf("port %s is there though its POST was refused", name)
		case strings.HasPrefix(name, "writer"):
			delete(w.there, id)
			f.delete("port", id)
		}
	}
	for id := range w.there {
		f.Errorf("port %s is not there though its POST was acknowledged", id)
	}
}

// ports lists the names of all ports by id.
func (f *fire) ports() map[string]string {
	f.Helper()
	status, out := f.call(http.MethodGet, "/v2.0/ports?fields=id&fields=name", nil)
	if status != http.StatusOK {
		f.Fatalf("list ports: %d %v", status, out)
	}
	names := map[string]string{}
	for _, p := range out["ports"].([]any) {
		names[p.(object)["id"].(string)] = p.(object)["name"].(string)
	}
	return names
}

// hostState is what /planck/v1/hosts tells.
type hostState struct {
	Name     string
	SystemID string `json:"system_id"`
	TunnelIP string `json:"tunnel_ip"`
	Bridges  []struct {
		Name              string
		Connected, Synced bool
		Standby           bool
		Refused           int    `json:"refused_flows"`
		LastError         string `json:"last_error"`
	}
	OVSDB struct {
		Connected bool
		SystemID  string `json:"system_id"`
		Remote    string
		Problem   string
	}
}

func (c *cloud) hostStates() []hostState {
	c.Helper()
	var out struct{ Hosts []hostState }
	c.operator("hosts", nil, &out)
	return out.Hosts
}

// operator asks the operator's API.
func (c *cloud) operator(path string, query url.Values, out any) {
	c.Helper()
	resp, err := c.client.Get(c.api + "/planck/v1/" + path + "?" + query.Encode())
	if err != nil {
		c.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		c.Fatalf("%s: %s", path, resp.Status)
	}
	if err := json.NewDecoder(resp.Body).Decode(out); err != nil {
		c.Fatalf("%s: %v", path, err)
	}
}

// live waits until n hosts are connected with all their bridges compared.
func (c *cloud) live(n int) {
	c.Helper()
	c.eventually(fmt.Sprintf("%d hosts are live", n), func() error {
		live := 0
		for _, h := range c.hostStates() {
			if err := h.trouble(); err != nil {
				return err
			}
			live++
		}
		if live != n {
			return fmt.Errorf("%d are", live)
		}
		return nil
	})
}

// trouble is what is wrong with a host, nil for nothing.
func (h *hostState) trouble() error {
	switch {
	case !h.OVSDB.Connected:
		return fmt.Errorf("%s has no OVSDB connection", h.Name)
	case h.OVSDB.Problem != "":
		return fmt.Errorf("%s: %s", h.Name, h.OVSDB.Problem)
	case len(h.Bridges) != len(bridges):
		return fmt.Errorf("%s has %d bridges", h.Name, len(h.Bridges))
	}
	for _, b := range h.Bridges {
		if !b.Connected || !b.Synced || b.Refused > 0 {
			return fmt.Errorf("%s %s: connected %v, synced %v, %d flows refused (%s)", h.Name, b.Name, b.Connected, b.Synced, b.Refused, b.LastError)
		}
	}
	return nil
}

// whole proves that a fault left nothing behind: all hosts are live, their
// switches have what the model wants, no more and no less, no port is in a wrong
// status, and no claim leaked. It looks only, so a story can go on after it.
func (f *fire) whole(after string) {
	f.Helper()
	f.live(len(f.lab.Hosts()))
	f.statusesRight()
	for _, h := range f.lab.Hosts() {
		f.eventually(after+": "+h.Name()+" is as the model wants it", func() error { return f.differs(h.Name()) })
	}
	f.eventually(after+": no claim leaked", f.leaked)
}

// differs reports what a host's switches, read now, have not as the model wants it.
func (f *fire) differs(host string) error {
	var out struct{ Differences, Problems []object }
	f.operator("diff", url.Values{"host": {host}}, &out)
	if len(out.Differences)+len(out.Problems) > 0 {
		return fmt.Errorf("differences %v, problems %v", out.Differences, out.Problems)
	}
	return nil
}

// leaked reports claims that no object has, and ports that have not an address
// claimed for each that they show.
func (f *fire) leaked() error {
	orphans := f.rows(`SELECT space || ' ' || key || ' of ' || owner_kind || ' ' || owner_id FROM claims
		WHERE NOT EXISTS (SELECT 1 FROM objects WHERE kind = owner_kind AND id = owner_id)`)
	if len(orphans) > 0 {
		return fmt.Errorf("claims of nothing: %v", orphans)
	}
	claimed := map[string]int{}
	for _, id := range f.rows(`SELECT owner_id FROM claims WHERE space = 'ip'`) {
		claimed[id]++
	}
	_, out := f.call(http.MethodGet, "/v2.0/ports?fields=id&fields=fixed_ips", nil)
	for _, p := range out["ports"].([]any) {
		p := p.(object)
		id := p["id"].(string)
		if want := len(p["fixed_ips"].([]any)); claimed[id] != want {
			return fmt.Errorf("port %s has %d addresses and %d claims", id, want, claimed[id])
		}
		delete(claimed, id)
	}
	if len(claimed) > 0 {
		return fmt.Errorf("addresses of ports that the API does not show: %v", claimed)
	}
	return nil
}

// right proves that nothing is left of what a story did: besides what whole
// looks at, no switch has a flow that the model does not want, and a controller
// that starts from the database alone finds nothing to send.
func (f *fire) right() {
	f.Helper()
	hosts := len(f.lab.Hosts())
	f.whole("at the end")
	for _, h := range f.lab.Hosts() {
		f.eventually("all flows of "+h.Name()+" are desired", func() error { return f.undesired(h.Name()) })
	}
	f.kill(syscall.SIGKILL)
	f.start()
	f.live(hosts)
	for _, m := range []struct{ name, labels string }{
		{"planck_flow_mods_total", `kind="desired"`}, {"planck_group_mods_total", ""}, {"planck_meter_mods_total", ""},
	} {
		if sent := f.metric(m.name, m.labels); sent != 0 {
			f.Errorf("%s is %v after a restart: the switches were not as the model wants them", m.name, sent)
		}
	}
	f.statusesRight()
}

func (f *fire) statusesRight() {
	f.Helper()
	plugged := map[string]bool{}
	for _, v := range f.vms {
		plugged[v.id()] = true
		f.waitStatus(v.id(), "ACTIVE")
	}
	_, out := f.call(http.MethodGet, "/v2.0/ports", nil)
	for _, p := range out["ports"].([]any) {
		p := p.(object)
		want := "DOWN"
		if plugged[p["id"].(string)] || p["device_owner"] == "network:dhcp" {
			want = "ACTIVE"
		}
		if p["status"] != want {
			f.Errorf("port %v (%v) is %v, want %s", p["name"], p["id"], p["status"], want)
		}
	}
}

// undesired reports flows of ours that the model does not want.
func (f *fire) undesired(host string) error {
	var out struct {
		Flows []struct {
			Bridge, Match, Actions, Feature string
			TableName                       string `json:"table_name"`
			Desired                         bool
		}
	}
	f.operator("flows", url.Values{"host": {host}}, &out)
	for _, flow := range out.Flows {
		if !flow.Desired && (flow.Feature != "" || flow.Bridge != "br-ex") {
			return fmt.Errorf("%+v", flow)
		}
	}
	if len(out.Flows) == 0 {
		return errors.New("there are none")
	}
	return nil
}

// nothingLeft deletes everything, and proves that the switches are back to what
// they had before and that the store holds no claim but those of the hosts.
func (f *fire) nothingLeft() {
	f.Helper()
	for id := range f.ports() {
		if f.show("port", id)["device_owner"] != "network:dhcp" {
			f.delete("port", id)
		}
	}
	f.delete("network", f.network)
	_, groups := f.call(http.MethodGet, "/v2.0/security-groups?fields=id", nil)
	for _, g := range groups["security_groups"].([]any) {
		f.delete("security-group", g.(object)["id"].(string))
	}
	for _, h := range f.lab.Hosts() {
		for _, bridge := range bridges {
			before := f.base[h.Name()+" "+bridge]
			f.eventually(h.Name()+" "+bridge+" is back to its base flows", func() error {
				if now := withoutCanary(f.flows(h.Name(), bridge)); now != before {
					return fmt.Errorf("before:\n%s\nnow:\n%s", before, now)
				}
				return nil
			})
		}
	}
	f.eventually("no claim is left", func() error {
		for _, claim := range f.claims() {
			if !strings.HasPrefix(claim, "host_key ") {
				return fmt.Errorf("a claim is left: %s", claim)
			}
		}
		return nil
	})
}

// claims reads the rows of the claims table.
func (f *fire) claims() []string {
	f.Helper()
	return f.rows(`SELECT space || ' ' || key || ' of ' || owner_kind || ' ' || owner_id FROM claims`)
}

// rows asks the controller's database for one column.
func (f *fire) rows(query string) []string {
	f.Helper()
	db, err := sql.Open(f.database())
	if err != nil {
		f.Fatal(err)
	}
	defer db.Close()
	rows, err := db.QueryContext(f.Context(), query)
	if err != nil {
		f.Fatal(err)
	}
	defer rows.Close()
	var found []string
	for rows.Next() {
		var row string
		if err := rows.Scan(&row); err != nil {
			f.Fatal(err)
		}
		found = append(found, row)
	}
	if err := rows.Err(); err != nil {
		f.Fatal(err)
	}
	return found
}

// database is the driver and the address of the controller's database.
func (f *fire) database() (driver, source string) {
	if f.dsn == "" {
		dir := f.args[slices.Index(f.args, "--state-dir")+1]
		return "sqlite", "file:" + filepath.Join(dir, "planck.db") + "?mode=ro"
	}
	if path, ok := strings.CutPrefix(f.dsn, "sqlite://"); ok {
		return "sqlite", "file:" + path + "?mode=ro"
	}
	return "postgres", f.dsn
}

// since waits for something to come about and logs how long it took from a time on.
func (f *fire) since(begin time.Time, what string, try func() error) time.Duration {
	f.Helper()
	f.eventually(what, try)
	took := time.Since(begin)
	f.Logf("%s after %v", what, took.Round(time.Millisecond))
	return took
}

// poll calls look every few milliseconds until the returned function is called.
// An error is one of the moment, such as that of an API that restarts.
func (f *fire) poll(look func() error) (stop func()) {
	return f.background(func(ctx context.Context) {
		if err := look(); err != nil {
			pauseFor(ctx, 100*time.Millisecond)
		}
		pauseFor(ctx, 20*time.Millisecond)
	})
}

func decode(resp *http.Response, out any) error {
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s", resp.Status)
	}
	return json.NewDecoder(resp.Body).Decode(out)
}

// withoutCached leaves out the ARP replies that a switch may have and need not.
func withoutCached(dump string) string {
	return linesWithout(dump, "cookie=0x504c0501")
}

// withoutXID leaves out the headers of replies, which differ each time.
func withoutXID(dump string) string { return linesWithout(dump, "xid=") }

func linesWithout(text, without string) string {
	var kept []string
	for line := range strings.Lines(text) {
		if !strings.Contains(line, without) {
			kept = append(kept, line)
		}
	}
	slices.Sort(kept)
	return strings.Join(kept, "")
}
