package controller

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"planck/flows"
	"planck/network"
	"planck/pipeline"
)

// request changes a port as a request of the API does.
func (w *world) request(id, project string, port *network.Port, fn func(*network.Port)) uint64 {
	w.t.Helper()
	cause := network.Cause{RequestID: id, ProjectID: project, UserID: "ann", Operation: "update_port"}
	v, err := w.store.Update(context.Background(), cause, func(tx *network.Tx) error {
		p := tx.Port(port.ID).Clone()
		fn(p)
		return tx.UpdatePort(p)
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return v.Revision()
}

func pair(address string) func(*network.Port) {
	return func(p *network.Port) {
		p.AllowedAddressPairs = append(p.AllowedAddressPairs, network.AddressPair{IP: netip.MustParsePrefix(address)})
	}
}

// eventuallyChanges waits until the newest change that a query finds is as wanted.
func (r *running) eventuallyChanges(q ChangesQuery, wrong func(*ChangeRecord) string) *ChangeRecord {
	r.t.Helper()
	var found *ChangeRecord
	eventually(r.t, 20*time.Second, func() error {
		answer, err := r.Changes(context.Background(), q)
		if err != nil {
			return err
		}
		if len(answer.Changes) == 0 {
			return fmt.Errorf("%+v: nothing", q)
		}
		found = &answer.Changes[0]
		if problem := wrong(found); problem != "" {
			return fmt.Errorf("%+v: %s: %+v", q, problem, found)
		}
		return nil
	})
	return found
}

// ofPort reports whether a flow stands for a port or its network.
func ofPort(f FlowChange, p *network.Port) bool {
	return f.Resource.ID == p.ID || f.Resource.ID == p.NetworkID
}

func TestChangesLeadFromRequestsToFlowsAndBack(t *testing.T) {
	w := newWorld(t)
	w.host("h1", 1)
	blue, red := w.network("blue"), w.network("red")
	a, b := w.vm(blue, "h1"), w.vm(red, "h1")
	w.plug("h1", a, b)
	o := w.switches(1)
	c := w.start(func(o *Options) { o.AuditInterval = 500 * time.Millisecond })
	c.eventuallyRight("h1", allBridges...)
	w.eventuallyStatus(a, network.StatusActive)
	w.eventuallyStatus(b, network.StatusActive)

	before := w.store.View().Revision()
	revision := w.request("req-1", "blue", a, pair("10.9.0.1/32"))
	found := c.eventuallyChanges(ChangesQuery{Request: "req-1"}, func(r *ChangeRecord) string {
		if len(r.Flows) == 0 {
			return "no flows"
		}
		return ""
	})
	if found.Revision != revision || found.Cause != causeRequest || found.ProjectID != "blue" || found.UserID != "ann" || found.Operation != "update_port" {
		t.Errorf("the request is %+v", found)
	}
	for _, f := range found.Flows {
		if f.Host != "h1" || f.Bridge != "br-int" || !ofPort(f, a) || !slices.Equal(f.Revisions, []uint64{revision}) {
			t.Errorf("a flow of the request: %+v", f)
		}
	}
	if o := found.Objects[0]; o.Kind != "port" || o.ID != a.ID || o.Change != changeChanged || len(o.Attributes) != 1 ||
		o.Attributes[0].Name != "allowed_address_pairs" || !strings.Contains(string(o.Attributes[0].After), "10.9.0.1") {
		t.Errorf("the port: %+v", found.Objects)
	}

	added := found.Flows[slices.IndexFunc(found.Flows, func(f FlowChange) bool { return f.Resource.Kind == "port" })]
	for what, q := range map[string]ChangesQuery{
		"its text": {Flow: added.Text}, "its text with tables by name": {Flow: strings.Replace(added.Text, "table=10", "table=10(PortSecurity)", 1)}, "a part of it": {Flow: "10.9.0.1"}, "the port": {Port: a.ID}, "the network by name": {Network: "blue"},
		"the host": {Host: "h1"}, "the project": {Project: "blue"}, "the revision": {Revision: revision},
	} {
		q.Since = found.At
		c.eventuallyChanges(q, func(r *ChangeRecord) string {
			if r.RequestID != "req-1" || len(r.Flows) == 0 {
				return "from " + what + " the request is not found"
			}
			return ""
		})
	}

	// Requests that are compiled together are told apart.
	var wants = map[string]*network.Port{}
	for i := range 4 {
		w.request(fmt.Sprintf("req-a%d", i), "blue", a, pair(fmt.Sprintf("10.9.1.%d/32", i+1)))
		w.request(fmt.Sprintf("req-b%d", i), "red", b, pair(fmt.Sprintf("10.9.2.%d/32", i+1)))
		wants[fmt.Sprintf("req-a%d", i)], wants[fmt.Sprintf("req-b%d", i)] = a, b
	}
	for id, port := range wants {
		c.eventuallyChanges(ChangesQuery{Request: id}, func(r *ChangeRecord) string {
			if len(r.Flows) == 0 {
				return "no flows"
			}
			for _, f := range r.Flows {
				if !ofPort(f, port) || !slices.Contains(f.Revisions, r.Revision) {
					return "it has flows of another"
				}
			}
			return ""
		})
	}

	o.ofctl("del-flows", "br-int", fmt.Sprintf("cookie=%s/-1", added.Cookie))
	c.eventuallyChanges(ChangesQuery{Flow: added.Text}, func(r *ChangeRecord) string {
		if r.Cause != readAudit || r.Host != "h1" || r.Flows[0].Change != changeAdded || len(r.Flows[0].Revisions) != 0 {
			return "the repair is not the newest change"
		}
		return ""
	})
	c.eventuallyRight("h1", allBridges...)

	d, err := c.Diff(t.Context(), "h1", "", before)
	if err != nil || len(d.Problems) > 0 {
		t.Fatalf("%+v, %v", d, err)
	}
	if !slices.ContainsFunc(d.Differences, func(x Difference) bool {
		return x.State == driftUnexpected && x.Installed == added.Text && x.Resource.ID == a.ID
	}) {
		t.Errorf("against revision %d, before the request: %+v", before, d.Differences)
	}
	var refused *network.Error
	if _, err := c.Diff(t.Context(), "h1", "", 1<<40); !errors.As(err, &refused) || !strings.Contains(refused.Message, "is not there yet") {
		t.Errorf("against a revision to come: %v", err)
	}
}

// TestChangesArePagedWithoutGaps goes through all pages and finds each record once.
func TestChangesArePagedWithoutGaps(t *testing.T) {
	w := newWorld(t)
	w.host("h1", 1)
	p := w.vm(w.network("net1"), "h1")
	c := w.start(nil)
	for i := range 7 {
		w.request(fmt.Sprintf("req-%d", i), "p", p, func(p *network.Port) { p.Name = fmt.Sprint(i) })
	}
	newest := w.store.View().Revision()
	c.eventuallyMetric("planck_compiled_revision", nil, float64(newest))
	drop := &flows.Flow{Table: 60, Cookie: uint64(pipeline.MakeCookie(pipeline.FeatureL2, 0, p.Key))}
	for i := range 5 { // repairs at the same revision, and at an older one
		r := newest - uint64(i/3)
		c.journal.add(&pass{at: time.Now(), of: brInt, cause: readAudit, since: r, revision: r, sent: []sent{{what: changeAdded, repair: true, flow: drop}}})
	}
	all, err := c.Changes(t.Context(), ChangesQuery{Most: 100})
	if err != nil || all.Next != "" || len(all.Changes) != int(newest)+5 {
		t.Fatalf("%d changes, want %d revisions and 5 repairs; next %q, %v", len(all.Changes), newest, all.Next, err)
	}
	var want, got []string
	for _, r := range all.Changes {
		want = append(want, r.Position)
	}
	for q := (ChangesQuery{Most: 2}); ; {
		page, err := c.Changes(t.Context(), q)
		if err != nil || len(page.Changes) > 2 {
			t.Fatalf("%+v, %v", page, err)
		}
		for _, r := range page.Changes {
			got = append(got, r.Position)
		}
		if page.Next == "" {
			break
		}
		if q.Before, err = ParsePosition(page.Next); err != nil {
			t.Fatal(err)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("in pages %v, want %v", got, want)
	}
	for _, q := range []ChangesQuery{{Port: p.ID, Most: 100}, {Request: "req-3"}, {Since: time.Now().Add(-time.Hour)}} {
		if some, err := c.Changes(t.Context(), q); err != nil || len(some.Changes) == 0 {
			t.Errorf("%+v: %+v, %v", q, some, err)
		}
	}
	var refused *network.Error
	if _, err := c.Changes(t.Context(), ChangesQuery{Port: "pigeon"}); !errors.As(err, &refused) || refused.Class != network.NotFound {
		t.Errorf("a port that there never was: %v", err)
	}
	w.update(func(tx *network.Tx) error { return tx.DeletePort(p.ID) })
	eventually(t, 20*time.Second, func() error {
		gone, err := c.Changes(t.Context(), ChangesQuery{Port: p.ID, Most: 1})
		if err != nil || len(gone.Changes) != 1 || gone.Changes[0].Objects[0].Change != changeDeleted {
			return fmt.Errorf("a port that is gone: %+v, %v", gone, err)
		}
		return nil
	})
}

func TestJournalForgetsTheOldest(t *testing.T) {
	j := newJournal()
	many := make([]sent, journalPass)
	for i := range 7 {
		j.add(&pass{at: time.Now(), revision: uint64(i), sent: many})
	}
	j.add(&pass{at: time.Now(), revision: 7, more: 3})
	passes, since := j.newest()
	if len(passes) != 5 || passes[0].revision != 7 || passes[4].revision != 3 || !since.Equal(passes[4].at) || j.size > journalLimit {
		t.Errorf("%d passes, the newest of revision %d, size %d", len(passes), passes[0].revision, j.size)
	}
	if !slices.IsSortedFunc(passes, func(a, b *pass) int { return cmp.Compare(b.number, a.number) }) {
		t.Error("the numbers of passes do not grow")
	}
	if got := j.forgotten(); got != 3*journalPass+3 {
		t.Errorf("%v were forgotten, want %d", got, 3*journalPass+3)
	}
}

func TestWhatIsRepairedIsToldFromWhatTheModelChanged(t *testing.T) {
	flow := func(i uint64) *flows.Flow {
		return &flows.Flow{Table: 5, Match: flows.NewMatch(flows.Reg2.Is(i)), Instructions: flows.Do(flows.Output(7))}
	}
	mirror := flows.NewSet()
	was := *flow(2)
	was.Instructions = flows.Do(flows.Output(8))
	mirror.AddFlow(&was)
	why := &flows.Dirty{}
	why.AddFlow(flow(2).Key(), flows.NewCause(7, 9))
	why.AddFlow(flow(3).Key(), nil)
	delta := &flows.Delta{FlowAdds: []*flows.Flow{flow(1), flow(2)}, FlowDeletes: []*flows.Flow{flow(3)}}
	p := &pass{cause: readAudit}
	w := passWriter{pass: p, why: why, refused: map[refusedKey]error{{flow: flow(1).Key()}: errHeld}}
	w.delta(delta, mirror)
	type seen struct {
		what      string
		revisions int
		repair    bool
		refused   error
	}
	var got []seen
	for _, x := range p.sent {
		got = append(got, seen{x.what, len(x.why.Revisions()), x.repair, x.refused})
	}
	want := []seen{{changeAdded, 0, true, errHeld}, {changeChanged, 2, false, nil}, {changeDeleted, 0, false, nil}}
	if !slices.Equal(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if p.sent[1].was != &was {
		t.Error("what a flow was is not kept")
	}
}
