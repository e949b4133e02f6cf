package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// ledger has what writers were told by the members, to compare it with what is
// there in the end.
type ledger struct {
	x     *chaos
	stops []func()

	mu       sync.Mutex
	entries  map[string]*entry // by name
	counted  map[int]int       // how often a value of the counter was acknowledged
	doubtful int               // how many values of the counter may have been written
	replies  map[string]int
	slowest  time.Duration
	wrong    []string
}

// entry is a port. A state is its description, "" when it is not there.
type entry struct {
	id     string
	known  string   // that was acknowledged last
	others []string // that may have come instead, since nobody said what became of them
}

func (e *entry) may(state string) bool { return state == e.known || slices.Contains(e.others, state) }

// outcome is what is known of a request.
type outcome int

const (
	done outcome = iota
	refused
	unknown
)

const (
	// requestTimeout is when a writer gives a member up and asks the next one.
	requestTimeout = 3 * time.Second
)

// write starts a writer and a reader at each member.
func (x *chaos) write() *ledger {
	l := &ledger{x: x, entries: map[string]*entry{}, counted: map[int]int{}, replies: map[string]int{}}
	background := (&fire{cloud: x.cloud}).background
	for i := range x.members {
		w := &writer{ledger: l, name: fmt.Sprintf("writer%d", i), member: i, vm: x.vms[i]}
		r := &reader{ledger: l, member: i}
		l.stops = append(l.stops, background(w.round), background(r.look))
	}
	return l
}

func (l *ledger) note(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.wrong = append(l.wrong, fmt.Sprintf(format, args...))
}

// ask makes a request of a member.
func (l *ledger) ask(member int, method, path string, body object, header ...string) (int, object, outcome) {
	var content io.Reader
	if body != nil {
		encoded, err := json.Marshal(body)
		if err != nil {
			panic(err)
		}
		content = bytes.NewReader(encoded)
	}
	req, err := http.NewRequest(method, l.x.members[member].api+path, content)
	if err != nil {
		panic(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	begin := time.Now()
	status, out, err := exchange(req)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.slowest = max(l.slowest, time.Since(begin))
	switch text, _ := json.Marshal(out); {
	case errors.Is(err, syscall.ECONNREFUSED):
		l.replies[method+" nobody there"]++
		return 0, nil, refused
	case err != nil:
		l.replies[method+" no reply"]++
		return 0, nil, unknown
	case status == http.StatusServiceUnavailable && bytes.Contains(text, []byte("not known")):
		l.replies[method+" 503 not known"]++
		return status, out, unknown
	default:
		l.replies[fmt.Sprintf("%s %d", method, status)]++
		if status/100 == 2 {
			return status, out, done
		}
		if status != http.StatusServiceUnavailable && status != http.StatusPreconditionFailed {
			l.wrong = append(l.wrong, fmt.Sprintf("%s %s at %s: %d %s", method, path, memberName(member), status, text))
		}
		return status, out, refused
	}
}

func exchange(req *http.Request) (status int, out object, err error) {
	client := http.Client{Timeout: requestTimeout}
	resp, err := client.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusNoContent {
		return resp.StatusCode, nil, nil
	}
	return resp.StatusCode, out, json.NewDecoder(resp.Body).Decode(&out)
}

// writer writes to a member until that does not take it, then to the next one.
type writer struct {
	*ledger
	name    string
	member  int
	rounds  int
	vm      *vm // whose port it changes
	address int // of that port's allowed address pairs
}

func (w *writer) ask(method, path string, body object, header ...string) (int, object, outcome) {
	status, out, what := w.ledger.ask(w.member, method, path, body, header...)
	if what != done && status != http.StatusPreconditionFailed {
		w.member = (w.member + 1) % len(w.x.members)
		time.Sleep(50 * time.Millisecond)
	}
	return status, out, what
}

// round writes a port, changes and maybe deletes it, counts, and changes what
// the host of a VM has for it.
func (w *writer) round(context.Context) {
	w.rounds++
	w.count()
	w.admit()
	name := fmt.Sprintf("%s-%d", w.name, w.rounds)
	e := &entry{}
	w.mu.Lock()
	w.entries[name] = e
	w.mu.Unlock()
	_, out, what := w.ask(http.MethodPost, "/v2.0/ports", object{"port": object{"network_id": w.x.network, "name": name, "description": "made"}})
	if w.outcome(e, "made", what); what != done {
		return
	}
	e.id = out["port"].(object)["id"].(string)
	what = w.update(e.id, object{"description": "changed"})
	if w.outcome(e, "changed", what); what == unknown || w.rounds%4 == 0 {
		return
	}
	_, _, what = w.ask(http.MethodDelete, "/v2.0/ports/"+e.id, nil)
	w.outcome(e, "", what)
}

// outcome notes what became of a state. After a doubt the port is left alone:
// the request may still be on its way.
func (w *writer) outcome(e *entry, state string, what outcome) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch what {
	case done:
		e.known = state
	case unknown:
		e.others = append(e.others, state)
	}
}

// update changes a port, and reads its own write where it was taken.
func (w *writer) update(id string, attrs object) outcome {
	at := w.member
	_, _, what := w.ask(http.MethodPut, "/v2.0/ports/"+id, object{"port": attrs})
	if what != done {
		return what
	}
	status, out, _ := w.ledger.ask(at, http.MethodGet, "/v2.0/ports/"+id, nil)
	if status != http.StatusOK {
		return what
	}
	for name, value := range attrs {
		if got := out["port"].(object)[name]; fmt.Sprint(got) != fmt.Sprint(value) {
			w.note("%s does not see its own write: %s is %v, not %v", memberName(at), name, got, value)
		}
	}
	return what
}

// admit gives a VM another allowed address: its host gets other flows.
func (w *writer) admit() {
	w.address = w.address%250 + 1
	w.update(w.vm.id(), object{"allowed_address_pairs": []any{object{"ip_address": fmt.Sprintf("10.9.0.%d", w.address), "mac_address": w.vm.mac()}}})
}

// count adds one to the counter that all writers share: the description of the
// network. Whoever read the same value is refused.
func (w *writer) count() {
	status, out, _ := w.ask(http.MethodGet, "/v2.0/networks/"+w.x.network, nil)
	if status != http.StatusOK {
		return
	}
	n, revision := counter(out)
	_, _, what := w.ask(http.MethodPut, "/v2.0/networks/"+w.x.network, object{"network": object{"description": fmt.Sprint(n + 1)}},
		"If-Match", fmt.Sprintf("revision_number=%d", revision))
	w.mu.Lock()
	defer w.mu.Unlock()
	switch what {
	case done:
		w.counted[n+1]++
	case unknown:
		w.doubtful++
	}
}

func counter(out object) (n, revision int) {
	network := out["network"].(object)
	fmt.Sscan(network["description"].(string), &n) // "" is 0
	return n, int(network["revision_number"].(float64))
}

// reader sees that what a member shows never goes back.
type reader struct {
	*ledger
	member  int
	highest int
}

func (r *reader) look(ctx context.Context) {
	pauseFor(ctx, 100*time.Millisecond)
	status, out, _ := r.ask(r.member, http.MethodGet, "/v2.0/networks/"+r.x.network, nil)
	if status != http.StatusOK {
		return
	}
	_, revision := counter(out)
	if revision < r.highest {
		r.note("%s showed revision %d after %d", memberName(r.member), revision, r.highest)
	}
	r.highest = max(r.highest, revision)
}

// finish stops the writers, and compares what they were told with what each
// member shows.
func (l *ledger) finish() {
	x := l.x
	x.Helper()
	for _, stop := range l.stops {
		stop()
	}
	x.Logf("API: %d ports written, %d counts; replies %v, the slowest took %v", len(l.entries), len(l.counted), l.replies, l.slowest.Round(time.Millisecond))
	for _, wrong := range l.wrong {
		x.Error(wrong)
	}
	if len(l.entries) < 10 || len(l.counted) < 10 {
		x.Error("the writers wrote next to nothing")
	}
	for n, times := range l.counted {
		if times > 1 {
			x.Errorf("%d was counted %d times: an update is lost", n, times)
		}
	}
	for i, c := range x.members {
		x.eventually(memberName(i)+" shows what was acknowledged", func() error { return errors.Join(l.compare(c), l.compareCount(c)) })
	}
}

func (l *ledger) compare(c *cloud) error {
	_, out := c.call(http.MethodGet, "/v2.0/ports?fields=id&fields=name&fields=description", nil)
	shown := map[string]string{}
	for _, p := range out["ports"].([]any) {
		if name := p.(object)["name"].(string); strings.HasPrefix(name, "writer") {
			shown[name] = p.(object)["description"].(string)
		}
	}
	var wrong []error
	for name, e := range l.entries {
		if !e.may(shown[name]) {
			wrong = append(wrong, fmt.Errorf("%s is %q, acknowledged was %q, in doubt %q", name, shown[name], e.known, e.others))
		}
		delete(shown, name)
	}
	for _, name := range slices.Sorted(maps.Keys(shown)) {
		wrong = append(wrong, fmt.Errorf("nobody wrote %s", name))
	}
	return errors.Join(wrong...)
}

// compareCount sees that the counter has all that was counted, and no more than
// what may have been.
func (l *ledger) compareCount(c *cloud) error {
	_, out := c.call(http.MethodGet, "/v2.0/networks/"+l.x.network, nil)
	n, _ := counter(out)
	if extra := n - len(l.counted); extra < 0 || extra > l.doubtful {
		return fmt.Errorf("the counter is %d, %d were acknowledged and %d are in doubt", n, len(l.counted), l.doubtful)
	}
	return nil
}
