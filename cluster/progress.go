package cluster

import (
	"context"
	"encoding/json"
	"sync"
	"time"
)

const (
	progressChannel = "planck_progress"
	// progressPace is the least time between two messages about progress, and
	// progressAgain the longest.
	progressPace  = 10 * time.Millisecond
	progressAgain = 2 * time.Second
	// maxPayload is less than PostgreSQL takes in a notification (8,000 bytes).
	maxPayload = 7900
)

// Progress is how far the switches of a member are: those of all its hosts have
// acknowledged what changed up to Revision, but for those Behind, which lack
// what changed at a revision and later.
type Progress struct {
	Revision uint64            `json:"revision"`
	Behind   map[string]uint64 `json:"behind,omitempty"`
}

// Has reports whether a host has what changed up to a revision.
func (p Progress) Has(host string, revision uint64) bool {
	from, behind := p.Behind[host]
	return revision <= p.Revision && (!behind || revision < from)
}

// message is what members tell each other by NOTIFY.
type message struct {
	Member  string `json:"member"`
	Session int64  `json:"session"`
	Progress
}

// progress has what is told, and what was heard.
type progress struct {
	kick  chan struct{}
	mu    sync.Mutex
	own   func() Progress
	told  func() // of what was heard
	heard map[int64]Progress
}

func newProgress() *progress {
	return &progress{kick: make(chan struct{}, 1), heard: map[int64]Progress{}}
}

// Report sets where the own progress is read, and who is told when another
// member's has changed. It is called before Run.
func (c *Cluster) Report(own func() Progress, told func()) {
	c.progress.mu.Lock()
	defer c.progress.mu.Unlock()
	c.progress.own, c.progress.told = own, told
}

// Progressed says that the own progress has changed.
func (c *Cluster) Progressed() {
	select {
	case c.progress.kick <- struct{}{}:
	default:
	}
}

// Has reports whether a host of another member is known to have what changed up
// to a revision.
func (c *Cluster) Has(host string, revision uint64) bool {
	v := c.view.Load()
	if v == nil {
		return false
	}
	c.progress.mu.Lock()
	defer c.progress.mu.Unlock()
	p, known := c.progress.heard[v.owners.of(host).session]
	return known && p.Has(host, revision)
}

// Revisions are how far other members said that they are, by name.
func (c *Cluster) Revisions() map[string]uint64 {
	out := map[string]uint64{}
	v := c.view.Load()
	if v == nil {
		return out
	}
	c.progress.mu.Lock()
	defer c.progress.mu.Unlock()
	for _, m := range v.Members {
		if p, known := c.progress.heard[m.Session]; known {
			out[m.Name] = p.Revision
		}
	}
	return out
}

// publish tells the others about the own progress until ctx ends.
func (c *Cluster) publish(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.progress.kick:
		case <-time.After(progressAgain):
		}
		c.tell(ctx)
		select {
		case <-ctx.Done():
			return
		case <-time.After(progressPace):
		}
	}
}

func (c *Cluster) tell(ctx context.Context) {
	c.progress.mu.Lock()
	own := c.progress.own
	c.progress.mu.Unlock()
	v := c.view.Load()
	if own == nil || v == nil || len(v.owners.ranked) < 2 {
		return
	}
	payload, err := json.Marshal(fit(message{c.opt.Name, v.session, own()}))
	if err != nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, beatTimeout)
	defer cancel()
	if _, err := c.opt.Database.Postgres().ExecContext(ctx, `SELECT pg_notify($1, $2)`, progressChannel, string(payload)); err != nil && ctx.Err() == nil {
		c.log.Debug("cluster: progress is not told", "error", err)
	}
}

// fit makes a message short enough: when very many hosts are behind, all are
// said to be, from the earliest revision on.
func fit(m message) message {
	if b, err := json.Marshal(m); err == nil && len(b) <= maxPayload {
		return m
	}
	for _, from := range m.Behind {
		m.Revision = min(m.Revision, max(from, 1)-1) // 0 is of a host of which nothing is known
	}
	m.Behind = nil
	return m
}

// hear takes what another member tells.
func (c *Cluster) hear(payload string) {
	var m message
	if payload == "" || json.Unmarshal([]byte(payload), &m) != nil || m.Member == c.opt.Name {
		return
	}
	c.progress.mu.Lock()
	c.progress.heard[m.Session] = m.Progress
	c.dropGone()
	told := c.progress.told
	c.progress.mu.Unlock()
	if told != nil {
		told()
	}
}

// dropGone forgets sessions that are over. progress.mu is held.
func (c *Cluster) dropGone() {
	v := c.view.Load()
	if v == nil || len(c.progress.heard) <= 2*len(v.Members) {
		return
	}
	for session := range c.progress.heard {
		gone := true
		for _, m := range v.Members {
			gone = gone && m.Session != session
		}
		if gone {
			delete(c.progress.heard, session)
		}
	}
}
