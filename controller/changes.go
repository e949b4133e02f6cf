package controller

import (
	"cmp"
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	"planck/network"
)

// ChangesQuery selects changes. All that is given must hold.
type ChangesQuery struct {
	// Port, Network, Router and Group name a resource by id or name, one that is
	// gone by id: what changed it, or a flow that stands for it.
	Port, Network, Router, Group string
	Host                         string // what changed flows there, or the host itself
	Flow                         string // a cookie, a flow as ovs-ofctl prints it, or a part of that
	Request                      string
	Project                      string
	Revision                     uint64
	Since                        time.Time
	Before                       Position // only what is older
	Most                         int      // records
	MostFlows                    int      // of a record
}

// bound gives what is not given a value, and what is too much the most.
func (q *ChangesQuery) bound() {
	q.Most = min(cmp.Or(q.Most, DefaultChanges), MostChanges)
	q.MostFlows = min(cmp.Or(q.MostFlows, DefaultChangeFlows), MostChangeFlows)
}

// Position is where a record stands among the others: a revision, and of what was
// sent to a switch at that revision the number; 0 is the revision itself.
type Position struct{ Revision, Pass uint64 }

// String is REVISION or REVISION:NUMBER.
func (p Position) String() string {
	text := strconv.FormatUint(p.Revision, 10)
	if p.Pass != 0 {
		text += ":" + strconv.FormatUint(p.Pass, 10)
	}
	return text
}

// ParsePosition reads what String wrote.
func ParsePosition(text string) (p Position, err error) {
	revision, number, passed := strings.Cut(text, ":")
	if p.Revision, err = strconv.ParseUint(revision, 10, 63); err == nil && passed {
		p.Pass, err = strconv.ParseUint(number, 10, 64)
	}
	return p, err
}

// Compare orders positions from old to new.
func (p Position) Compare(o Position) int {
	return cmp.Or(cmp.Compare(p.Revision, o.Revision), cmp.Compare(p.Pass, o.Pass))
}

// Changes are revisions of the model with what they changed on switches, and what
// was sent to switches for another reason.
type Changes struct {
	Changes []ChangeRecord `json:"changes"` // newest first
	// Next is where to go on, "" when there is no more.
	Next string `json:"next,omitempty"`
	// FlowsSince is from when on what was sent to switches is known here, and
	// ModelSince from which revision on what requests changed.
	FlowsSince time.Time `json:"flows_since"`
	ModelSince uint64    `json:"model_since"`
	Note       string    `json:"note,omitempty"`
	// FlowFound says that a flow that was asked for is in the journal.
	FlowFound bool `json:"flow_found,omitempty"`
}

// Causes of records, beside those of reading a switch.
const (
	causeRequest = "request" // of the API
	causeEvent   = "event"   // a host, or the controller itself, changed the model
)

const (
	// scanStep is how many revisions are read at once, scanLimit for one query.
	scanStep  = 500
	scanLimit = 20_000
	// DefaultChanges and MostChanges bound the records of an answer.
	DefaultChanges = 20
	MostChanges    = 1000
	// DefaultChangeFlows and MostChangeFlows bound the flows of a record.
	DefaultChangeFlows = 200
	MostChangeFlows    = journalPass
)

// Changes reads the change log, and joins it with what was sent to the switches
// that this controller programs.
func (c *Controller) Changes(ctx context.Context, q ChangesQuery) (*Changes, error) {
	view := c.view.Load()
	if view == nil {
		return nil, network.Errorf(network.Unavailable, "NotReady", "the model is not read yet")
	}
	q.bound()
	filter, err := newChangeFilter(past{c.opt.Store, view}, q)
	if err != nil {
		return nil, err
	}
	s := changeScan{past: past{c.opt.Store, view}, query: q, filter: filter}
	var passes []*pass
	passes, s.answer.FlowsSince = c.journal.newest()
	s.answer.Changes, s.answer.ModelSince = []ChangeRecord{}, c.opt.Store.Oldest()
	s.index(passes)
	s.answer.FlowFound = filter.flow != nil && s.found
	if filter.flow != nil && !s.found && filter.ofFlow() {
		s.answer.Note = "no change of that flow is in the journal: these are the changes of what it stands for"
		s.index(passes)
	}
	if err := s.run(ctx); err != nil {
		return nil, err
	}
	if len(s.answer.Changes) == 0 && s.answer.Next == "" && filter.missing != nil {
		return nil, filter.missing
	}
	return &s.answer, nil
}

// sentIn is something that was sent, and with what.
type sentIn struct {
	*pass
	sent *sent
}

// changeScan goes from the newest revision to older ones.
type changeScan struct {
	past
	query  ChangesQuery
	filter *changeFilter
	answer Changes

	sent map[uint64][]sentIn // by the revisions that may be the reason
	// passes are those with something that no known revision is the reason for,
	// newest first, with that alone.
	passes []*pass
	found  bool // something that was sent is asked for
}

// index sorts what was sent by its reasons.
func (s *changeScan) index(passes []*pass) {
	s.sent, s.passes = map[uint64][]sentIn{}, nil
	for _, p := range passes {
		if s.query.Host != "" && p.of.Host != s.query.Host {
			continue
		}
		var rest []sent
		for i := range p.sent {
			x := &p.sent[i]
			for _, r := range x.why.Revisions() {
				s.sent[r] = append(s.sent[r], sentIn{p, x})
			}
			wanted := (x.why == nil || s.filter.flow != nil) && s.filter.passes(p, x)
			s.found = s.found || wanted
			if wanted && x.why == nil {
				rest = append(rest, *x)
			}
		}
		if len(rest) > 0 || p.more > 0 && !s.filter.ofFlows() {
			own := *p
			own.sent = rest
			s.passes = append(s.passes, &own)
		}
	}
	slices.SortStableFunc(s.passes, func(a, b *pass) int {
		return Position{b.revision, b.number}.Compare(Position{a.revision, a.number})
	})
}

// run reads the log until there is enough.
func (s *changeScan) run(ctx context.Context) error {
	from := s.query.Before.Revision
	if s.query.Before.Pass != 0 {
		from++
	}
	if r := s.query.Revision; r != 0 && (from == 0 || from > r+1) {
		from = r + 1
	}
	for scanned := 0; ; scanned += scanStep {
		rows, err := s.store.Logged(ctx, network.LogQuery{Before: from, RequestID: s.query.Request, Most: scanStep})
		if err != nil {
			return network.Errorf(network.Unavailable, "ServiceUnavailable", "%s", err)
		}
		for i := range rows {
			if done := s.row(&rows[i]); done {
				return nil
			}
			from = rows[i].Revision
		}
		if len(rows) < scanStep {
			s.rest()
			return nil
		}
		if scanned+scanStep >= scanLimit {
			s.answer.Next = Position{Revision: from}.String()
			return nil
		}
	}
}

// row adds a revision, after what was sent when it was the newest one. It reports
// whether no more is wanted.
func (s *changeScan) row(l *network.Logged) (done bool) {
	if l.At.Before(s.query.Since) || s.query.Revision != 0 && l.Revision < s.query.Revision {
		s.rest()
		return true
	}
	record, ok := s.record(l)
	if s.filter.ofRequests() && !ok {
		return false
	}
	for len(s.passes) > 0 && s.passes[0].revision >= l.Revision {
		if s.filter.ofRequests() && !s.passes[0].may(l.Revision) {
			s.passes = s.passes[1:]
			continue
		}
		if !s.add(s.passRecord(s.passes[0])) {
			return true
		}
		s.passes = s.passes[1:]
	}
	if !ok {
		return false
	}
	return !s.add(record)
}

// may reports whether a revision may be the reason for what a pass sent.
func (p *pass) may(revision uint64) bool {
	return p.since != 0 && p.since < revision && revision <= p.revision &&
		slices.ContainsFunc(p.sent, func(x sent) bool { return !x.repair })
}

// rest adds what was sent before the first revision that the log has.
func (s *changeScan) rest() {
	for _, p := range s.passes {
		if p.at.Before(s.query.Since) {
			continue
		}
		if s.filter.ofRequests() || !s.add(s.passRecord(p)) {
			return
		}
	}
}

// add adds a record if it is wanted; it reports false when there are enough.
func (s *changeScan) add(r ChangeRecord) bool {
	before := s.query.Before
	if r.At.Before(s.query.Since) || before != (Position{}) && r.position.Compare(before) >= 0 {
		return true
	}
	if n := len(s.answer.Changes); n == s.query.Most {
		s.answer.Next = s.answer.Changes[n-1].Position
		return false
	}
	s.answer.Changes = append(s.answer.Changes, r)
	return true
}
