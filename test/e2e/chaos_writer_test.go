package e2e

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"time"
)

const (
	// doubtLasts is how long a request without an answer may still be on its way,
	// in a member that is stopped or cut off, or what came of it to one's replica:
	// longer than any fault.
	doubtLasts = 2 * time.Minute
	// keptPorts is how many ports a writer leaves there: what a round costs must
	// not grow with time.
	keptPorts = 10
)

// writer writes to a member until that does not take it, then to the next one.
type writer struct {
	*ledger
	name    string
	member  int
	rounds  int
	kept    []*entry // ports that are there, the oldest first
	doubts  []*entry // ports of which nobody knows, the oldest doubt first
	vm      *vm      // whose port it changes
	address int      // of that port's allowed address pairs
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
	w.settle()
	if e := w.make(fmt.Sprintf("%s-%d", w.name, w.rounds)); e != nil {
		w.kept = append(w.kept, e)
		if w.rounds%4 > 0 && !w.delete(e) {
			return
		}
	}
	for len(w.kept) > keptPorts {
		if !w.delete(w.kept[0]) {
			return
		}
	}
}

// make writes a port and changes it. It returns nil when that is not there for
// certain.
func (w *writer) make(name string) *entry {
	e := &entry{name: name}
	w.mu.Lock()
	w.entries[name] = e
	w.mu.Unlock()
	_, out, what := w.ask(http.MethodPost, "/v2.0/ports", object{"port": object{"network_id": w.x.network, "name": name, "description": "made"}})
	if w.outcome(e, "made", what); what != done {
		return nil
	}
	e.id = out["port"].(object)["id"].(string)
	what = w.update(e.id, object{"description": "changed"})
	if w.outcome(e, "changed", what); what == unknown {
		return nil
	}
	return e
}

// delete deletes a port that is kept; one that was not deleted stays so, unless
// nobody knows. The member that deleted it must not show it any more.
func (w *writer) delete(e *entry) (gone bool) {
	at := w.member
	_, _, what := w.ask(http.MethodDelete, "/v2.0/ports/"+e.id, nil)
	if w.outcome(e, "", what); what == refused {
		return false
	}
	w.kept = slices.DeleteFunc(w.kept, func(k *entry) bool { return k == e })
	if what == unknown {
		return false
	}
	if status, _, _ := w.ledger.ask(at, http.MethodGet, "/v2.0/ports/"+e.id, nil); status == http.StatusOK {
		w.note("%s shows %s, which it deleted", memberName(at), e.name)
	}
	return true
}

// outcome notes what became of a state. After a doubt the port is left alone for
// a while: the request may still be on its way.
func (w *writer) outcome(e *entry, state string, what outcome) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch what {
	case done:
		e.known = state
		if state == "" {
			w.deleted++
		}
	case unknown:
		e.others, e.doubted = append(e.others, state), time.Now()
		w.doubts = append(w.doubts, e)
	}
}

// settle looks what became of the port of the oldest doubt, and deletes it.
func (w *writer) settle() {
	if len(w.doubts) == 0 || time.Since(w.doubts[0].doubted) < doubtLasts {
		return
	}
	e := w.doubts[0]
	status, out, _ := w.ask(http.MethodGet, "/v2.0/ports?name="+e.name, nil)
	if status != http.StatusOK {
		return
	}
	w.doubts = w.doubts[1:]
	state := ""
	for _, p := range out["ports"].([]any) {
		e.id, state = p.(object)["id"].(string), p.(object)["description"].(string)
	}
	if !e.may(state) {
		w.note("%s is %q, acknowledged was %q, in doubt %q", e.name, state, e.known, e.others)
	}
	w.mu.Lock()
	e.known, e.others = state, nil
	w.settled++
	w.mu.Unlock()
	if state != "" {
		w.kept = append(w.kept, e)
		w.delete(e)
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
	if status == http.StatusNotFound {
		w.note("%s does not show port %s, which it changed", memberName(at), id)
	}
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
	looks   int
	highest int
	shown   map[string]bool // ports by id: whether they were there the last time
}

func (r *reader) look(ctx context.Context) {
	pauseFor(ctx, 100*time.Millisecond)
	if r.looks++; r.looks%10 == 0 {
		r.lookAtPorts()
	}
	status, out, _ := r.ask(r.member, http.MethodGet, "/v2.0/networks/"+r.x.network, nil)
	if status == http.StatusNotFound {
		r.note("%s does not show the network", memberName(r.member))
	}
	if status != http.StatusOK {
		return
	}
	_, revision := counter(out)
	if revision < r.highest {
		r.note("%s showed revision %d after %d", memberName(r.member), revision, r.highest)
	}
	r.highest = max(r.highest, revision)
}

// lookAtPorts sees that none comes back that was gone.
func (r *reader) lookAtPorts() {
	status, out, _ := r.ask(r.member, http.MethodGet, "/v2.0/ports?fields=id", nil)
	if status != http.StatusOK {
		return
	}
	now := map[string]bool{}
	for _, p := range out["ports"].([]any) {
		id := p.(object)["id"].(string)
		if there, known := r.shown[id]; known && !there {
			r.note("%s shows port %s again, which was gone", memberName(r.member), id)
		}
		now[id] = true
	}
	for id := range r.shown {
		r.shown[id] = false
	}
	maps.Copy(r.shown, now)
}
