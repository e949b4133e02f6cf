package network

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// maxBatch is how many updates share one database transaction at most.
	maxBatch = 128
	// batchTimeout ends a database transaction that makes no progress. What
	// updates do in memory does not count.
	batchTimeout = 15 * time.Second
	// pollInterval is how long another writer's change can go unnoticed when
	// the database's notification did not arrive.
	pollInterval = time.Second
	// maxAttempts is how often a batch is tried when other writers interfere.
	maxAttempts = 4
)

// Cause says on whose behalf an update is made; it goes into the change log.
type Cause struct {
	RequestID string
	ProjectID string
	UserID    string
	Operation string // for instance "create_port"
}

// Store keeps the model in a database, with a replica of all of it in memory.
// One goroutine does all writing; readers take a View and never wait.
type Store struct {
	cfg     Config
	log     *slog.Logger
	db      *database
	ctx     context.Context
	cancel  context.CancelFunc
	wg      sync.WaitGroup
	jobs    chan *job
	poke    chan struct{} // another writer committed something
	heard   atomic.Uint64 // the newest revision told of by the database, when poked
	stopped chan struct{} // closed when the writing goroutine has ended
	view    atomic.Pointer[View]
	history history
	trouble atomic.Pointer[error] // why the database was last out of reach

	outboxes outboxes

	// Guards followers, and makes publishing a view and noting its changes one step.
	mu        sync.Mutex
	followers map[*Follower]struct{}

	known    schema
	outdated chan struct{} // closed when the tables have left this program behind

	// Owned by the writing goroutine.
	alloc   *allocator
	state   tableState
	foreign map[objectKey][]Claim // those that do not follow from objects, by owner
}

// job is a queued update.
type job struct {
	cause Cause
	fn    func(*Tx) error
	done  chan struct{} // closed when view, err and panicked are final

	// Held while fn runs, so that it never runs after its caller has left.
	mu        sync.Mutex
	abandoned bool

	view     *View
	err      error
	panicked any
}

// Open connects to a database (sqlite:///path or postgresql://…), creates or
// expands its schema, and loads the replica. A schema that is ahead of this
// program will do as long as it is not contracted: what this program does not
// know stays as it is.
func Open(ctx context.Context, dsn string, cfg Config) (*Store, error) {
	return openKnowing(ctx, dsn, cfg, ownSchema)
}

// openKnowing is Open of a program with a certain schema.
func openKnowing(ctx context.Context, dsn string, cfg Config, known schema) (*Store, error) {
	db, err := openDatabase(ctx, dsn, known)
	if err != nil {
		return nil, err
	}
	s := &Store{
		cfg:       cfg,
		log:       cfg.Log,
		db:        db,
		jobs:      make(chan *job, maxBatch),
		poke:      make(chan struct{}, 1),
		stopped:   make(chan struct{}),
		followers: map[*Follower]struct{}{},
		known:     known,
		outdated:  make(chan struct{}),
		history:   history{most: cfg.ViewsKept, age: cfg.ViewsKeptFor},
		alloc:     newAllocator(),
		foreign:   map[objectKey][]Claim{},
	}
	if s.log == nil {
		s.log = slog.Default()
	}
	if err := s.load(ctx); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.wg.Go(s.write)
	s.wg.Go(func() { db.listen(s.ctx, s.log, s.revisionSeen) })
	return s, nil
}

// Close ends all followers, finishes the transaction under way, and
// disconnects. Updates that were not begun get class Unavailable.
func (s *Store) Close() error {
	s.cancel()
	s.wg.Wait()
	return s.db.Close()
}

// Ready is nil while the database answers.
func (s *Store) Ready() error {
	if s.ctx.Err() != nil {
		return ErrClosed
	}
	if err := s.trouble.Load(); err != nil {
		return *err
	}
	return nil
}

// Outdated is closed when the database was contracted to what this program does
// not know: it must end.
func (s *Store) Outdated() <-chan struct{} { return s.outdated }

// leave says that this program must end.
func (s *Store) leave() {
	select {
	case <-s.outdated:
	default:
		close(s.outdated)
	}
}

// View is the model at the newest revision that is known here.
func (s *Store) View() *View { return s.view.Load() }

// Update runs fn as one transaction with one revision. The View that it
// returns contains what fn wrote. An error from fn is returned as it is and
// changes nothing; so does a database that does not take the transaction,
// with an Error of class Unavailable. When the connection breaks during the
// commit, the database is asked whether it took it; the Error says so if that
// can't be found out. fn may be run again when several writers meet: it must
// have no side effects and must make its objects anew each time. It must not
// block. When ctx ends, Update returns at once; a write that had begun may
// still happen.
func (s *Store) Update(ctx context.Context, cause Cause, fn func(tx *Tx) error) (*View, error) {
	j := &job{cause: cause, fn: fn, done: make(chan struct{})}
	select {
	case s.jobs <- j:
	case <-ctx.Done():
		return nil, fmt.Errorf("%s: %w", cause.Operation, ctx.Err())
	case <-s.ctx.Done():
		return nil, unavailable()
	}
	select {
	case <-j.done:
	case <-ctx.Done():
		j.abandon()
		return nil, fmt.Errorf("%s: %w", cause.Operation, ctx.Err())
	case <-s.stopped:
		if !j.isDone() {
			return nil, unavailable()
		}
	}
	if j.panicked != nil {
		panic(j.panicked)
	}
	return j.view, j.err
}

func unavailable() *Error {
	return Errorf(Unavailable, "ServiceUnavailable", "The service is unavailable: the database did not take the change.")
}

// refusal is what the callers of a transaction get that failed.
func refusal(err error) *Error {
	if errors.Is(err, errUnknown) {
		return Errorf(Unavailable, "ServiceUnavailable",
			"The service is unavailable: it is not known whether the database took the change.")
	}
	return unavailable()
}

func (j *job) abandon() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.abandoned = true
}

func (j *job) isDone() bool {
	select {
	case <-j.done:
		return true
	default:
		return false
	}
}

// write is the writing goroutine.
func (s *Store) write() {
	defer close(s.stopped)
	poll := time.NewTicker(pollInterval)
	defer poll.Stop()
	for {
		select {
		case <-s.ctx.Done():
			return
		case j := <-s.jobs:
			s.commit(j)
		case <-s.poke:
			s.catchUpWithHeard()
		case <-poll.C:
			s.history.expire(time.Now())
			s.catchUp()
		}
	}
}

// queued takes jobs that wait, so many at the most.
func (s *Store) queued(most int) []*job {
	var jobs []*job
	for len(jobs) < most {
		select {
		case j := <-s.jobs:
			jobs = append(jobs, j)
		default:
			return jobs
		}
	}
	return jobs
}

// commit runs a job, and what is queued by then, and answers their callers.
func (s *Store) commit(first *job) {
	jobs, err := s.tryCommit([]*job{first})
	for attempt := 1; err != nil && attempt < maxAttempts && interfered(err); attempt++ {
		s.log.Warn("a transaction met another writer; trying again", "error", err)
		// What is in memory can't be trusted when the database saw a conflict that it did not.
		if err = s.reload(); err == nil {
			jobs, err = s.tryCommit(jobs)
		}
	}
	s.noteTrouble(err)
	if err != nil {
		s.refuseQueued() // before the answers: who asks after those is tried
	}
	for _, j := range jobs {
		if err != nil {
			j.view, j.err = nil, refusal(err)
		}
		close(j.done)
	}
}

// refuseQueued refuses what came while the database was tried in vain: it would
// wait as long again.
func (s *Store) refuseQueued() {
	for _, j := range s.queued(maxBatch) {
		j.err = unavailable()
		close(j.done)
	}
}

func (s *Store) noteTrouble(err error) {
	if err == nil {
		s.trouble.Store(nil)
		return
	}
	if s.trouble.Swap(&err) == nil {
		s.log.Error("the database did not take a transaction", "error", err)
	}
}

// tryCommit runs jobs in one transaction, and with them those that came while
// it waited for other programs to write. It returns all of them.
func (s *Store) tryCommit(jobs []*job) ([]*job, error) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	patience := time.AfterFunc(batchTimeout, cancel)
	defer patience.Stop()
	tx, err := s.db.begin(ctx, true)
	if err != nil {
		return jobs, err
	}
	defer tx.end()
	if err := s.follow(ctx, tx); err != nil {
		return jobs, err
	}
	patience.Stop()
	jobs = append(jobs, s.queued(maxBatch-len(jobs))...)
	b := newBatch(s, tx.revision)
	for _, j := range jobs {
		b.run(j)
	}
	if len(b.log) == 0 {
		return jobs, nil
	}
	patience.Reset(batchTimeout)
	err = b.save(ctx, tx)
	if broken, ok := errors.AsType[*commitError](err); ok {
		tx.end()
		err = s.lookUp(b, broken)
	}
	if err != nil {
		clear(s.alloc.full)
		return jobs, err
	}
	clear(s.alloc.moved)
	s.publish(b.views, b.changes())
	s.outboxes.tell(b.messages)
	return jobs, nil
}

// errUnknown says that a transaction may have been committed.
var errUnknown = errors.New("it is not known whether the transaction was committed")

// lookUpPause is how long a database that does not answer is left alone.
const lookUpPause = 100 * time.Millisecond

// lookUp finds out what became of a batch whose commit failed; nil says that it
// is in the database. Who asks meanwhile is refused at once: nothing of theirs
// was begun.
func (s *Store) lookUp(b *batch, broken *commitError) error {
	s.noteTrouble(broken)
	ctx, cancel := context.WithTimeout(context.Background(), batchTimeout)
	defer cancel()
	for {
		committed, err := b.committed(ctx)
		switch {
		case err == nil && committed:
			s.log.Warn("a transaction was committed though its commit failed", "revision", b.revision, "error", broken)
			return nil
		case err == nil:
			return broken
		}
		s.refuseQueued()
		select {
		case <-time.After(lookUpPause):
		case <-ctx.Done():
			return errors.Join(errUnknown, broken, err)
		case <-s.ctx.Done():
			return errors.Join(errUnknown, broken, err)
		}
	}
}

// publish makes the last of views the newest state that readers see, and keeps
// them all.
func (s *Store) publish(views []*View, changes []Change) {
	s.history.add(time.Now(), views)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.view.Store(views[len(views)-1])
	for f := range s.followers {
		f.note(changes)
	}
}

// batch is a group of jobs that share a database transaction.
type batch struct {
	s        *Store
	trees    *trees
	revision uint64
	views    []*View // after each job that changed something
	objects  map[objectKey]*written
	claims   map[claimKey]*claimed
	log      []logEntry
	messages []outgoing
	at       string // the time in its rows of the change log
}

// written is an object that changed, with the revisions that did it: of a batch,
// not of a transaction, which is one.
type written struct {
	before, after Object
	revisions     []uint64
}

// claimed is a claim before and after; the zero Claim stands for none.
type claimed struct{ before, after Claim }

// logEntry is a row of the change log.
type logEntry struct {
	revision uint64
	cause    Cause
	entries  []objectKey
}

func newBatch(s *Store, revision uint64) *batch {
	return &batch{
		s:        s,
		trees:    s.View().trees,
		revision: revision,
		objects:  map[objectKey]*written{},
		claims:   map[claimKey]*claimed{},
	}
}

// run runs one job on top of those before it.
func (b *batch) run(j *job) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.view, j.err, j.panicked = nil, nil, nil
	if j.abandoned {
		j.err = context.Canceled
		return
	}
	tx := newTx(b.s, b.trees.fork(), b.revision+1)
	j.panicked, j.err = call(j, tx)
	if j.err != nil || j.panicked != nil {
		tx.abort()
		return
	}
	b.trees = tx.trees
	b.trees.seal()
	if len(tx.objects) == 0 && len(tx.messages) == 0 {
		j.view = &View{trees: b.trees, revision: b.revision}
		return
	}
	b.revision++
	b.add(tx, j.cause)
	j.view = &View{trees: b.trees, revision: b.revision}
	b.views = append(b.views, j.view)
}

// call runs fn; a panic is handed to the caller of Update, whose fault it is.
func call(j *job, tx *Tx) (panicked any, err error) {
	defer func() {
		if p := recover(); p != nil {
			panicked = fmt.Sprintf("%v\n%s", p, debug.Stack())
		}
	}()
	if err := j.fn(tx); err != nil {
		return nil, err
	}
	tx.derive(j.cause)
	return nil, nil
}

// add merges what a transaction wrote.
func (b *batch) add(tx *Tx, cause Cause) {
	entry := logEntry{revision: b.revision, cause: cause}
	now := []uint64{b.revision}
	for k, w := range tx.objects {
		entry.entries = append(entry.entries, k)
		old, ok := b.objects[k]
		if !ok {
			b.objects[k] = &written{w.before, w.after, now}
			continue
		}
		// Of one batch all are known, whatever their number.
		old.after, old.revisions = w.after, append(slices.Clip(old.revisions), b.revision)
	}
	for k, c := range tx.claims {
		if old, ok := b.claims[k]; ok {
			old.after = c.after
			continue
		}
		b.claims[k] = c
	}
	for i, m := range tx.messages {
		b.messages = append(b.messages, outgoing{MessageID{b.revision, i}, m})
	}
	b.log = append(b.log, entry)
}

func (b *batch) changes() []Change {
	changes := make([]Change, 0, len(b.objects))
	for k, w := range b.objects {
		changes = append(changes, Change{k.kind, k.id, w.before, w.after, w.revisions})
	}
	return changes
}
