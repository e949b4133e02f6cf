// Package cluster lets several controllers share the switches, by way of the
// PostgreSQL that they share anyway: it says which controllers live, and gives
// each host to one of them.
//
// Each member holds a lease, an advisory lock of a session of its own, and
// shows a sign of life several times a second. Whoever does so judges the
// others as well, and raises the generation when the set of members that own
// hosts has changed: by one statement that does nothing when somebody else has
// changed what was judged. A member takes the OpenFlow role
// MASTER with the generation in which it became the owner: a switch refuses an
// older one, and makes the earlier master a slave. So a member that was stopped,
// or that can't reach the database, may believe what it likes, it can't write.
// Nobody gives up its hosts only because the database is away: nobody else can
// have got them.
package cluster

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Database is what members share.
type Database interface {
	// Postgres is the pool of connections to it.
	Postgres() *sql.DB
	// Listen calls heard with each notification on a channel, and with "" when
	// some may have been missed, until ctx ends.
	Listen(ctx context.Context, channel string, heard func(payload string))
}

// Options of a Cluster. Database and Name must be set.
type Options struct {
	Database Database
	Name     string // of this member; it keeps it over a restart
	API      string // where its API listens
	Version  string
	Schema   int // of the database, that this program knows
	Logger   *slog.Logger
	Registry prometheus.Registerer // nil for none
}

// Times of members.
const (
	// beatEvery is how often a member shows a sign of life.
	beatEvery = 250 * time.Millisecond
	// beatTimeout bounds one of them: a member that is so slow is better off with
	// its lease than with another one.
	beatTimeout = 15 * time.Second
	retryPause  = 200 * time.Millisecond
	// overdue is when a sign of life is so late that clients had better ask
	// another member. The others have this one's hosts since a while.
	overdue = 3 * time.Second
)

// silence is when a member counts as dead.
var silence = limits{Lease: time.Second, Grace: 600 * time.Millisecond, Gap: 2 * beatEvery}

// Cluster is this controller's membership.
type Cluster struct {
	opt      Options
	log      *slog.Logger
	metrics  *metrics
	view     atomic.Pointer[view] // nil until it has joined
	kick     chan struct{}
	progress *progress
	switches Switches // nil for none
	sight    atomic.Pointer[vision]
	arriving atomic.Bool // it owns nothing yet

	mu      sync.Mutex
	changed chan struct{} // closed and made anew when the view changes
	leaving bool
	problem string // why the last beat failed, "" when it did not
}

// view is what this member knows since its last beat.
type view struct {
	state
	session  int64
	revision uint64 // of the model, when the owners last changed
	owners   owners
	at       time.Time // by the own clock
	changed  time.Time // when it was found that owners had changed
	beat     time.Time // the same by the clock of the database
}

// New returns a membership that Run begins.
func New(opt Options) (*Cluster, error) {
	if opt.Logger == nil {
		opt.Logger = slog.Default()
	}
	c := &Cluster{opt: opt, log: opt.Logger, kick: make(chan struct{}, 1), changed: make(chan struct{}), progress: newProgress()}
	var err error
	if c.metrics, err = newMetrics(opt.Registry, c); err != nil {
		return nil, fmt.Errorf("cluster: metrics: %w", err)
	}
	return c, nil
}

// Run is a member until ctx ends. It comes back by itself when the database was
// away or the others took it for dead.
func (c *Cluster) Run(ctx context.Context) error {
	var parts sync.WaitGroup
	defer parts.Wait()
	parts.Go(func() { c.opt.Database.Listen(ctx, progressChannel, c.hear) })
	parts.Go(func() { c.publish(ctx) })
	parts.Go(func() { c.look(ctx) })
	for {
		held, err := c.member(ctx)
		if ctx.Err() != nil {
			return nil
		}
		c.trouble(err)
		if held {
			c.metrics.lost.Inc()
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(retryPause):
		}
	}
}

// trouble logs why this member has no lease, once: while a database is away, the
// reasons alternate.
func (c *Cluster) trouble(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.problem == "" || errors.Is(err, errNameTaken) && c.problem != err.Error() {
		c.log.Warn("cluster: no lease, trying again", "member", c.opt.Name, "error", err)
	}
	c.problem = err.Error()
}

// member holds a lease until it is lost, and reports whether it ever did.
func (c *Cluster) member(ctx context.Context) (held bool, err error) {
	conn, err := c.opt.Database.Postgres().Conn(ctx)
	if err != nil {
		return false, err
	}
	// The lease goes with the connection: it must not go back into the pool.
	defer conn.Raw(func(any) error { return driver.ErrBadConn }) //nolint:errcheck // that is the error
	session := 1 + rand.Int64N(1<<62)
	if err := execWithin(ctx, conn, `SELECT pg_advisory_lock($1)`, session); err != nil {
		return false, err
	}
	t, err := openTable(ctx, conn)
	if err != nil {
		return false, err
	}
	defer t.close()
	tick := time.NewTicker(beatEvery)
	defer tick.Stop()
	for {
		if err := c.beat(ctx, t, session); err != nil {
			return held, err
		}
		held = true
		select {
		case <-ctx.Done():
			return held, ctx.Err()
		case <-c.kick:
		case <-tick.C:
		}
	}
}

func execWithin(ctx context.Context, conn *sql.Conn, query string, args ...any) error {
	ctx, cancel := context.WithTimeout(ctx, beatTimeout)
	defer cancel()
	_, err := conn.ExecContext(ctx, query, args...)
	return err
}

// rounds are how often one beat may find something new.
const rounds = 3

// beat shows a sign of life and judges the others, until there is nothing new to
// say: the next beat goes on where many things change at once.
func (c *Cluster) beat(ctx context.Context, t *table, session int64) error {
	ctx, cancel := context.WithTimeout(ctx, beatTimeout)
	defer cancel()
	last := c.view.Load()
	var previous time.Time
	if last != nil && last.session == session {
		previous = last.beat
	}
	var s *snapshot
	var sent time.Time
	for range rounds {
		var err error
		sent = time.Now()
		if s, err = t.sign(ctx, c.opt.Name, session); err != nil {
			return err
		}
		c.awaitSwitches(s, last == nil)
		if previous.IsZero() {
			previous = s.shown(c.opt.Name)
		}
		next, err := s.judge(c.me(session), previous, s.clocks, silence, s.held)
		if err != nil {
			return err
		}
		if next.equal(&s.state, c.opt.Name) {
			break
		}
		if _, err := t.swap(ctx, s, &next, c.opt.Name); err != nil {
			return err
		}
	}
	if !s.living(c.opt.Name, session) {
		return nil // others changed it each time: the next beat goes on
	}
	revision := s.revision
	if last == nil || last.Generation != s.Generation {
		// That of the statement may be of before it waited for another one, and the
		// earlier owners went on meanwhile.
		var err error
		if revision, err = t.revision(ctx); err != nil {
			return err
		}
	}
	c.metrics.beats.Inc()
	c.see(&view{state: s.state, session: session, revision: revision, owners: s.owners(), at: sent, changed: sent, beat: s.now})
	return nil
}

func (c *Cluster) me(session int64) Member {
	c.mu.Lock()
	defer c.mu.Unlock()
	arriving := c.arriving.Load()
	me := Member{
		Name: c.opt.Name, Session: session, API: c.opt.API, Version: c.opt.Version, Schema: c.opt.Schema,
		Leaving: c.leaving || arriving, Arriving: arriving && !c.leaving,
	}
	if v := c.sight.Load(); v != nil {
		me.Blind, me.Sees = v.blind, v.sees
	}
	return me
}

// see notes what a beat found, and tells those who wait when owners changed.
func (c *Cluster) see(v *view) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.problem = ""
	old := c.view.Load()
	if old != nil && old.Generation == v.Generation {
		v.revision, v.changed = old.revision, old.changed
		c.view.Store(v)
		return
	}
	c.view.Store(v)
	close(c.changed)
	c.changed = make(chan struct{})
	names := make([]string, len(v.owners.ranked))
	for i, o := range v.owners.ranked {
		names[i] = o.name
	}
	c.log.Info("cluster: who owns hosts has changed", "member", c.opt.Name, "generation", v.Generation, "owners", names, "not_first_choice", len(v.owners.moved))
}

// Changed is closed when owners change after the call.
func (c *Cluster) Changed() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.changed
}

// Owns reports whether this member owns a host, as far as it knows. Any other
// text that members have to agree about has an owner likewise.
func (c *Cluster) Owns(host string) bool {
	v := c.view.Load()
	return v != nil && v.owners.of(host) == owner{c.opt.Name, v.session}
}

// Certain reports whether what Owns says is certain: this member showed a sign of
// life so recently that nobody can have taken it for dead since, and owners changed
// so long ago that no other is certain of what was before.
func (c *Cluster) Certain() bool {
	v := c.view.Load()
	return v != nil && time.Since(v.at) < silence.Grace && time.Since(v.changed) >= silence.Grace
}

// Current is nil while this member's signs of life reach the database.
func (c *Cluster) Current() error {
	v := c.view.Load()
	if v == nil {
		return errors.New("the cluster is not joined yet")
	}
	if age := time.Since(v.at); age > overdue {
		return fmt.Errorf("the last sign of life that reached the database is %v old", age.Round(100*time.Millisecond))
	}
	return nil
}

// Generation is what to take the role MASTER with, and Revision is what the
// model must have reached before: what the earlier owner may have sent.
func (c *Cluster) Generation() (generation, revision uint64) {
	if v := c.view.Load(); v != nil {
		return v.Generation, v.revision
	}
	return 0, 0
}

// Leave gives this member's hosts to the others, if there are any. It is still
// a member until Run ends.
func (c *Cluster) Leave() {
	c.mu.Lock()
	c.leaving = true
	c.mu.Unlock()
	c.beatNow()
}

func (c *Cluster) beatNow() {
	select {
	case c.kick <- struct{}{}:
	default:
	}
}
