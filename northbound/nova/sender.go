package nova

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"planck/network"
)

const (
	eventsPath = "/os-server-external-events"
	// window is how many events are in memory, and batch how many one request has.
	window = 10_000
	batch  = 100
	// An outage and an event that Nova can't take yet are tried again after
	// firstWait, then twice as long each time up to the longest.
	firstWait        = 500 * time.Millisecond
	longestOutage    = 30 * time.Second
	longestEventWait = 30 * time.Second
	// patience is how long an event is tried that Nova answers and refuses.
	patience = 30 * time.Minute
)

// pending is an event that waits.
type pending struct {
	Event
	id       network.MessageID
	read     time.Time // from the queue: by the clock that does not jump
	tries    int
	earliest time.Time // of the next try
	alone    bool      // its company was refused as a whole: it goes by itself
}

// Sender sends the events of a store to Nova, each until Nova has taken it.
type Sender struct {
	box      *network.Outbox
	session  *session
	log      *slog.Logger
	interval time.Duration
	sent     *prometheus.CounterVec
	waiting  prometheus.Gauge

	events []*pending // in their order
	last   network.MessageID
	outage int // failed requests in a row
}

// NewSender makes a sender; Run it.
func NewSender(store *network.Store, o *Options, log *slog.Logger, registry prometheus.Registerer) (*Sender, error) {
	session, err := newSession(o)
	if err != nil {
		return nil, err
	}
	s := &Sender{
		box: store.Outbox(Queue), session: session, log: log, interval: o.Interval,
		sent: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "planck_nova_events_total",
			Help: "Events for Nova by what became of them: taken, refused, expired."}, []string{"event", "outcome"}),
		waiting: prometheus.NewGauge(prometheus.GaugeOpts{Name: "planck_nova_events_waiting",
			Help: "Events that Nova has not taken yet, as far as they are known."}),
	}
	registry.MustRegister(s.sent, s.waiting)
	return s, nil
}

// Run sends until ctx ends.
func (s *Sender) Run(ctx context.Context) error {
	defer s.box.Close()
	for ctx.Err() == nil {
		if err := s.read(ctx); err != nil && ctx.Err() == nil {
			s.log.Warn("events for Nova can't be read", "error", err)
		}
		s.waiting.Set(float64(len(s.events)))
		due, next := s.due(time.Now())
		if len(due) == 0 {
			s.box.Wait(ctx, next)
			continue
		}
		if err := s.deliver(ctx, due); err != nil && ctx.Err() == nil {
			s.fail(ctx, err, len(due))
			continue
		}
		pause(ctx, s.interval)
	}
	return nil
}

// read takes events from the queue. A change of a server's network that waits
// already stands for the new one, too.
func (s *Sender) read(ctx context.Context) error {
	if len(s.events) >= window {
		return nil
	}
	found, err := s.box.Read(ctx, s.last, window-len(s.events))
	if err != nil || len(found) == 0 {
		return err
	}
	waits := map[Event]bool{}
	for _, p := range s.events {
		waits[p.Event] = true
	}
	var needless []network.MessageID
	for _, m := range found {
		s.last = m.ID
		p := &pending{id: m.ID, read: time.Now()}
		if err := json.Unmarshal(m.Body, &p.Event); err != nil {
			s.log.Error("an event for Nova can't be read", "error", err)
			needless = append(needless, m.ID)
			continue
		}
		if p.Name == networkChanged && waits[p.Event] {
			needless = append(needless, m.ID)
			continue
		}
		waits[p.Event] = true
		s.events = append(s.events, p)
	}
	return s.box.Remove(ctx, needless)
}

// due are the events of the next request, one for each port. It
// tells when to look again if there are none.
func (s *Sender) due(now time.Time) (list []*pending, next time.Duration) {
	next = time.Hour
	blocked := map[string]bool{}
	for _, p := range s.events {
		wait := p.earliest.Sub(now)
		switch {
		case blocked[p.Tag]:
		case wait > 0:
			blocked[p.Tag] = true
			next = min(next, wait)
		case p.alone && len(list) == 0:
			return []*pending{p}, 0
		case p.alone:
			blocked[p.Tag] = true
		default:
			list = append(list, p)
			blocked[p.Tag] = true // Nova may take the second one and not the first
		}
		if len(list) == batch {
			break
		}
	}
	return list, next
}

// deliver sends events in one request and forgets those that are settled. An
// error is that Nova could not be told.
func (s *Sender) deliver(ctx context.Context, list []*pending) error {
	events := make([]Event, len(list))
	for i, p := range list {
		events[i] = p.Event
	}
	body, err := json.Marshal(map[string]any{"events": events})
	if err != nil {
		return err
	}
	status, answer, err := s.session.post(ctx, eventsPath, body)
	if err != nil {
		return err
	}
	codes, err := codesOf(status, answer, events)
	if err != nil {
		return err
	}
	s.recovered()
	var settled []network.MessageID
	for i, p := range list {
		if s.settle(p, codes[i], len(list) > 1) {
			settled = append(settled, p.id)
		}
	}
	s.forget(ctx, settled)
	return nil
}

// codesOf reads Nova's answer: a code for each event. An answer that is not
// about the events is an error.
func codesOf(status int, answer []byte, events []Event) ([]int, error) {
	codes := make([]int, len(events))
	switch status {
	case http.StatusOK, http.StatusAccepted, http.StatusMultiStatus:
	case http.StatusBadRequest, http.StatusNotFound, http.StatusUnprocessableEntity:
		for i := range codes {
			codes[i] = wholly + status
		}
		return codes, nil
	default:
		return nil, fmt.Errorf("status %d: %.200s", status, answer)
	}
	var got struct {
		Events []struct {
			Event
			Code int `json:"code"`
		} `json:"events"`
	}
	if err := json.Unmarshal(answer, &got); err != nil {
		return nil, fmt.Errorf("the answer can't be read: %w", err)
	}
	given := map[Event]int{}
	for _, e := range got.Events {
		given[Event{Name: e.Name, ServerUUID: e.ServerUUID, Tag: e.Tag}] = e.Code
	}
	for i, e := range events {
		code, ok := given[Event{Name: e.Name, ServerUUID: e.ServerUUID, Tag: e.Tag}]
		switch {
		case ok:
			codes[i] = code
		case status == http.StatusMultiStatus:
			return nil, fmt.Errorf("the answer does not tell about the event %s of port %s", e.Name, e.Tag)
		default:
			codes[i] = http.StatusOK
		}
	}
	return codes, nil
}

// wholly marks a code that is the answer's, not the event's.
const wholly = 1000

// settle decides what becomes of an event by Nova's code for it, and reports
// whether it is settled.
func (s *Sender) settle(p *pending, code int, company bool) bool {
	log := s.log.With("event", p.Name, "port_id", p.Tag, "server_id", p.ServerUUID)
	switch {
	case code == http.StatusOK:
		s.count(p, "taken")
		return true
	case code >= wholly && company:
		p.alone = true // one of them may be what Nova does not like
		return false
	case code == http.StatusNotFound, code == http.StatusBadRequest, code == wholly+http.StatusBadRequest:
		log.Warn("Nova does not take an event", "code", code%wholly)
		s.count(p, "refused")
		return true
	case time.Since(p.read) > patience:
		log.Warn("Nova did not take an event in time, it is dropped", "code", code%wholly, "tries", p.tries+1)
		s.count(p, "expired")
		return true
	}
	log.Debug("Nova can't take an event yet", "code", code%wholly)
	p.earliest = time.Now().Add(backoff(p.tries, longestEventWait))
	p.tries++
	return false
}

func (s *Sender) count(p *pending, outcome string) { s.sent.WithLabelValues(p.Name, outcome).Inc() }

// forget removes settled events. Those that the database does not remove are
// sent once more after a restart.
func (s *Sender) forget(ctx context.Context, settled []network.MessageID) {
	gone := make(map[network.MessageID]bool, len(settled))
	for _, id := range settled {
		gone[id] = true
	}
	kept := s.events[:0]
	for _, p := range s.events {
		if !gone[p.id] {
			kept = append(kept, p)
		}
	}
	clear(s.events[len(kept):])
	s.events = kept
	// They are told: that ctx ends meanwhile changes nothing about that.
	if err := s.box.Remove(context.WithoutCancel(ctx), settled); err != nil {
		s.log.Warn("events that Nova took can't be removed, they are sent again", "error", err)
	}
}

// fail waits after a request that told Nova nothing.
func (s *Sender) fail(ctx context.Context, err error, events int) {
	if s.outage == 0 {
		s.log.Warn("Nova can't be told of events, trying again", "events", events, "error", err)
	}
	wait := backoff(s.outage, longestOutage)
	s.outage++
	pause(ctx, wait)
}

func (s *Sender) recovered() {
	if s.outage > 0 {
		s.log.Info("Nova can be told of events again", "tries", s.outage+1)
	}
	s.outage = 0
}

func backoff(tries int, longest time.Duration) time.Duration {
	return min(longest, firstWait<<min(tries, 16))
}

func pause(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
