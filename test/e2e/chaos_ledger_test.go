package e2e

import (
	"bytes"
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
	entries  map[string]*entry // by name; those that were deleted, too
	deleted  int
	settled  int         // doubts that a writer looked into
	counted  map[int]int // how often a value of the counter was acknowledged
	doubtful int         // how many values of the counter may have been written
	replies  map[string]int
	slowest  time.Duration
	wrong    []string
}

// entry is a port. A state is its description, "" when it is not there.
type entry struct {
	name, id string
	known    string    // that was acknowledged last
	others   []string  // that may have come instead, since nobody said what became of them
	doubted  time.Time // the last time
}

func (e *entry) may(state string) bool { return state == e.known || slices.Contains(e.others, state) }

// outcome is what is known of a request.
type outcome int

const (
	done outcome = iota
	refused
	unknown
)

// requestTimeout is when a writer gives a member up and asks the next one.
const requestTimeout = 3 * time.Second

// write starts a writer and a reader at each member.
func (x *chaos) write() *ledger {
	l := &ledger{x: x, entries: map[string]*entry{}, counted: map[int]int{}, replies: map[string]int{}}
	background := (&fire{cloud: x.cloud}).background
	for i := range x.members {
		w := &writer{ledger: l, name: fmt.Sprintf("writer%d", i), member: i, vm: x.vms[i]}
		r := &reader{ledger: l, member: i, shown: map[string]bool{}}
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
	case method == http.MethodGet && status == http.StatusNotFound:
		l.replies["GET 404"]++
		return status, nil, refused
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

// finish stops the writers, and compares what they were told with what each
// member shows.
func (l *ledger) finish() {
	x := l.x
	x.Helper()
	for _, stop := range l.stops {
		stop()
	}
	x.Logf("API: %d ports written, %d deleted, %d doubts settled, %d counts; replies %v, the slowest took %v",
		len(l.entries), l.deleted, l.settled, len(l.counted), l.replies, l.slowest.Round(time.Millisecond))
	for _, wrong := range l.wrong {
		x.Error(wrong)
	}
	if len(l.entries) < 10 || l.deleted < 5 || len(l.counted) < 10 {
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
