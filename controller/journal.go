package controller

import (
	"sync"
	"time"

	"planck/flows"
	"planck/pipeline"
)

const (
	// journalLimit is how many changes of flows are remembered, of all switches.
	journalLimit = 50_000
	// journalPass is how many of one pass, and journalRead how many of a switch
	// that was read and is not as the model wants it, as when it is new. Those
	// whose revisions are known count for the former.
	journalPass = 10_000
	journalRead = 500
)

// passChange is why a pass looked at a switch that was right before: the model
// changed. Other passes are those of a reading, and named like it.
const passChange = "change"

// What became of a flow, group or meter.
const (
	changeAdded   = "added"
	changeChanged = "changed"
	changeDeleted = "deleted"
)

// sent is a flow, group or meter that a switch was told. It shares all with the
// sets that it comes from.
type sent struct {
	what    string       // changeAdded and so on
	why     *flows.Cause // nil when the revisions are not known
	repair  bool         // no revision is the reason: the switch was changed behind the controller's back
	flow    *flows.Flow  // one of the three, as it is now, or was before it was deleted
	group   *flows.Group
	meter   *flows.Meter
	was     *flows.Flow // of a flow that is changed
	refused error
}

// numbersBegin is when the numbers of passes begin: they are nanoseconds since then,
// so that those of several controllers are in the order of their clocks.
var numbersBegin = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// pass is what a switch was told at once.
type pass struct {
	// number grows with the time; two controllers do not give the same to two passes.
	number uint64
	at     time.Time
	of     pipeline.Target
	cause  string
	// since is the revision that the switch had before, 0 when that is not known;
	// revision the one that it has then.
	since, revision uint64
	unknown         bool // it is not known whether the switch took it
	sent            []sent
	more            int // that were sent, and are not kept
}

// journal remembers what was sent to switches lately.
type journal struct {
	began time.Time

	mu     sync.Mutex
	number uint64  // of the newest pass
	passes []*pass // oldest first; what is in one stays as it is
	size   int     // of what is kept: its passes, and what was sent in them
	lost   uint64  // how much was forgotten, or not kept in the first place
	cut    bool    // the oldest passes were forgotten
}

func newJournal() *journal { return &journal{began: time.Now()} }

// add remembers a pass, and forgets the oldest ones when there are too many.
func (j *journal) add(p *pass) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.number = max(j.number+1, uint64(time.Since(numbersBegin)))
	p.number = j.number
	j.passes = append(j.passes, p)
	j.size += 1 + len(p.sent)
	j.lost += uint64(p.more)
	for j.size > journalLimit {
		oldest := j.passes[0]
		j.passes[0], j.passes, j.cut = nil, j.passes[1:], true
		j.size -= 1 + len(oldest.sent)
		j.lost += uint64(len(oldest.sent))
	}
}

// newest are the passes that are remembered, the newest first, and since when
// nothing is missing but what a pass itself says.
func (j *journal) newest() (passes []*pass, since time.Time) {
	j.mu.Lock()
	defer j.mu.Unlock()
	passes = make([]*pass, 0, len(j.passes))
	for i := len(j.passes) - 1; i >= 0; i-- {
		passes = append(passes, j.passes[i])
	}
	since = j.began
	if len(passes) > 0 && j.cut {
		since = passes[len(passes)-1].at
	}
	return passes, since
}

// forgotten is how much was lost.
func (j *journal) forgotten() float64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return float64(j.lost)
}

// rememberSent puts a delta that was sent into the journal; the mirror is as before
// it. why says what the model changed, and failed that it is not known whether
// the switch took it.
func (r *reconciler) rememberSent(cause string, why *flows.Dirty, d *flows.Delta, refused []refusedItem, revision uint64, failed error) {
	if d.Empty() {
		return
	}
	p := &pass{
		at: time.Now(), of: r.target.name, cause: cause, since: r.target.acknowledged(), revision: revision, unknown: failed != nil,
	}
	if cause == "" {
		p.cause = passChange
	}
	w := passWriter{pass: p, why: why, refused: make(map[refusedKey]error, len(refused))}
	for i := range refused {
		w.refused[refused[i].key()] = refused[i].err
	}
	r.mu.Lock()
	w.delta(d, r.mirror)
	r.mu.Unlock()
	r.ctl.journal.add(p)
}

// passWriter fills a pass.
type passWriter struct {
	*pass
	why     *flows.Dirty
	refused map[refusedKey]error
}

// delta adds what is in a delta to a switch that has what the mirror has.
func (w *passWriter) delta(d *flows.Delta, mirror *flows.Set) {
	if w.why == nil {
		w.why = &flows.Dirty{}
	}
	for _, f := range d.FlowAdds {
		why, known := w.why.Flows[f.Key()]
		was := mirror.Flows[f.Key()]
		w.add(sent{what: addedOr(was == nil), why: why, flow: f, was: was}, known)
	}
	for _, f := range d.FlowDeletes {
		why, known := w.why.Flows[f.Key()]
		w.add(sent{what: changeDeleted, why: why, flow: f}, known)
	}
	w.groups(changeAdded, d.GroupAdds...)
	w.groups(changeChanged, d.GroupMods...)
	for _, id := range d.GroupDeletes {
		w.groups(changeDeleted, mirror.Groups[id])
	}
	w.meters(changeAdded, d.MeterAdds...)
	w.meters(changeChanged, d.MeterMods...)
	for _, id := range d.MeterDeletes {
		w.meters(changeDeleted, mirror.Meters[id])
	}
}

func (w *passWriter) groups(what string, groups ...*flows.Group) {
	for _, g := range groups {
		why, known := w.why.Groups[g.ID]
		w.add(sent{what: what, why: why, group: g}, known)
	}
}

func (w *passWriter) meters(what string, meters ...*flows.Meter) {
	for _, m := range meters {
		why, known := w.why.Meters[m.ID]
		w.add(sent{what: what, why: why, meter: m}, known)
	}
}

func addedOr(added bool) string {
	if added {
		return changeAdded
	}
	return changeChanged
}

// add adds one; known says that the model changed it.
func (w *passWriter) add(s sent, known bool) {
	most := journalRead
	if s.why != nil || w.cause == passChange {
		most = journalPass
	}
	if len(w.sent) >= most {
		w.more++
		return
	}
	s.repair = !known && (w.cause == readAudit || w.cause == readRestored)
	if len(w.refused) > 0 {
		i := item{flow: s.flow, group: s.group, meter: s.meter}
		s.refused = w.refused[i.key()]
	}
	w.sent = append(w.sent, s)
}
