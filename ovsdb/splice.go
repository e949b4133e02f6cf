package ovsdb

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ovn-kubernetes/libovsdb/ovsdb"
)

const (
	// maxEarlyMessage bounds a message before the peer has proved to be an OVSDB
	// server; the schema, the largest, is 60 KB.
	maxEarlyMessage = 1 << 20
	// maxMessage bounds a message after that: the rows of 100,000 interfaces.
	maxMessage = 64 << 20
	// writeTimeout is how long a switch may take no data from us.
	writeTimeout = 20 * time.Second
	// maxTurns bounds how often attentive waits, and tooLate is how late it may be.
	maxTurns = 4
	tooLate  = 200 * time.Millisecond
)

var (
	errGarbage = errors.New("not OVSDB")
	// errClient is for an end that libovsdb made.
	errClient = errors.New("the OVSDB client hung up")
)

// splice connects a switch, which dialled us, with libovsdb, which can only
// dial: it listens on a private unix socket for libovsdb, and passes JSON-RPC
// messages on in both directions. What comes from the switch is checked first:
// libovsdb trusts its server, and the wrong shape would make it panic.
type splice struct {
	remote   net.Conn
	listener *net.UnixListener
	received atomic.Int64          // messages from the switch
	bytes    atomic.Int64          // of them and of what has come of the next one
	limit    atomic.Int64          // bytes of a message from the switch
	schema   *ovsdb.DatabaseSchema // by which rows are checked; used by up alone
	schemas  *schemas              // of all switches; nil where libovsdb is told what the switch says
	trimmed  bool                  // the schema is a part of the switch's

	mu      sync.Mutex
	local   net.Conn        // libovsdb's end, once it has dialled
	cookies map[cookie]bool // of the monitors that libovsdb asked for
	err     error           // what ended it
	closed  bool
	held    bool // libovsdb's end stays open: it can't bear to lose its connection while it connects

	done chan struct{} // closed when it has ended
	wg   sync.WaitGroup
}

// cookie is how libovsdb names a monitor.
type cookie struct {
	DatabaseName string `json:"databaseName"`
	ID           string `json:"id"`
}

// newSplice listens in dir, under a name that is unique there.
func newSplice(remote net.Conn, dir string, serial uint64, known *schemas) (*splice, error) {
	path := filepath.Join(dir, strconv.FormatUint(serial, 10))
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("private socket: %w", err)
	}
	s := &splice{remote: remote, listener: listener, schemas: known, cookies: map[cookie]bool{}, held: true, done: make(chan struct{})}
	s.limit.Store(maxEarlyMessage)
	s.wg.Go(s.run)
	return s, nil
}

// endpoint is the address for libovsdb.
func (s *splice) endpoint() string { return "unix:" + s.listener.Addr().String() }

// trust raises the bound on messages, once the peer is known to be a switch.
func (s *splice) trust() { s.limit.Store(maxMessage) }

// blank sends libovsdb a blank, which is no message: Go orders a read after a
// write, but no end of file after a close, so that libovsdb's end would race with
// what was done with it before.
func (s *splice) blank() error {
	s.mu.Lock()
	local := s.local
	s.mu.Unlock()
	_, err := local.Write([]byte("\n"))
	return err
}

// close ends the splice for a reason and waits for it.
func (s *splice) close(reason error) {
	s.release()
	s.end(reason)
	s.wg.Wait()
}

// attentive is a context that ends when the switch has sent nothing for d, and
// with the splice. It takes maxTurns times d at the most. A turn in which this
// program was late itself is not held against the switch: what it sent is not read yet.
func (s *splice) attentive(parent context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(parent)
	s.wg.Go(func() {
		defer cancel()
		for range maxTurns {
			before, due := s.bytes.Load(), time.Now().Add(d)
			select {
			case <-s.done:
				return
			case <-ctx.Done():
				return
			case <-time.After(d):
			}
			if s.bytes.Load() == before && time.Since(due) < tooLate {
				return
			}
		}
	})
	return ctx, cancel
}

// release lets libovsdb see the end of the splice from now on.
func (s *splice) release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held = false
	if s.closed && s.local != nil {
		s.local.Close()
	}
}

func (s *splice) end(reason error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	s.closed = true
	s.err = reason
	s.listener.Close()
	s.remote.Close()
	if s.local != nil && !s.held {
		s.local.Close()
	}
	close(s.done)
}

// reason is what ended the splice; nil while it is up.
func (s *splice) reason() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

func (s *splice) run() {
	local, err := s.listener.Accept()
	if err != nil {
		s.end(err)
		return
	}
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		local.Close()
		return
	}
	s.local = local
	s.listener.Close()
	s.mu.Unlock()
	s.wg.Go(func() { s.end(s.down(local)) })
	s.end(s.up(local))
}

// budget bounds what one message may read, and counts.
type budget struct {
	r    io.Reader
	left int64
	sum  *atomic.Int64
}

func (b *budget) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, fmt.Errorf("%w: message too long", errGarbage)
	}
	n, err := b.r.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	b.sum.Add(int64(n))
	return n, err
}

// up passes messages from the switch on to libovsdb.
func (s *splice) up(local net.Conn) error {
	in := &budget{r: s.remote, sum: &s.bytes}
	dec := json.NewDecoder(in)
	for {
		in.left = s.limit.Load()
		var raw json.RawMessage
		if err := dec.Decode(&raw); err != nil {
			return describeReadError(err)
		}
		if len(raw) > largeMessage {
			dec = json.NewDecoder(io.MultiReader(dec.Buffered(), in)) // with a buffer that is small again
		}
		passed, err := s.pass(raw)
		if err != nil {
			return fmt.Errorf("%w: %w", errGarbage, err)
		}
		s.received.Add(1)
		if _, err := local.Write(append(passed, '\n')); err != nil {
			return fmt.Errorf("%w: %w", errClient, err)
		}
	}
}

// largeMessage is what few messages exceed, and no buffer is kept for.
const largeMessage = 16 << 10

// pass is the message for libovsdb, as it is or, of a schema, what matters of it.
func (s *splice) pass(raw json.RawMessage) (json.RawMessage, error) {
	unknown := s.schema == nil
	if err := s.check(raw); err != nil {
		return nil, err
	}
	if !unknown || !s.trimmed {
		return raw, nil
	}
	var m struct {
		ID json.RawMessage `json:"id"`
	}
	if err := json.Unmarshal(raw, &m); err != nil {
		return nil, err
	}
	return slices.Concat(json.RawMessage(`{"error":null,"id":`), m.ID, json.RawMessage(`,"result":`), s.schemas.text, json.RawMessage("}")), nil
}

func describeReadError(err error) error {
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) {
		return fmt.Errorf("%w: %w", errGarbage, err)
	}
	return err
}

// down passes messages from libovsdb on to the switch.
func (s *splice) down(local net.Conn) error {
	dec := json.NewDecoder(local)
	for {
		var raw json.RawMessage
		if err := dec.Decode(&raw); err != nil {
			return fmt.Errorf("%w: %w", errClient, err)
		}
		if err := s.noteMonitor(raw); err != nil {
			return err
		}
		if err := s.remote.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
			return err
		}
		if _, err := s.remote.Write(raw); err != nil {
			return err
		}
	}
}

// noteMonitor remembers what libovsdb monitors. It falls back to older methods
// when the switch claims not to know monitor_cond_since; with those it trusts
// the switch to be right about rows that it has told before.
func (s *splice) noteMonitor(raw []byte) error {
	var m struct {
		Method string            `json:"method"`
		Params []json.RawMessage `json:"params"`
	}
	if json.Unmarshal(raw, &m) != nil || !strings.HasPrefix(m.Method, "monitor") || len(m.Params) < 2 {
		return nil
	}
	if m.Method != "monitor_cond_since" {
		return fmt.Errorf("%w: Open vSwitch 2.12 or later is needed: it does not know monitor_cond_since", errSchema)
	}
	var c cookie
	if json.Unmarshal(m.Params[1], &c) != nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cookies[c] = true
	return nil
}

// check looks at the shape of a message from the switch.
func (s *splice) check(raw []byte) error {
	var m struct {
		Method *string         `json:"method"`
		Params json.RawMessage `json:"params"`
		ID     json.RawMessage `json:"id"`
		Result json.RawMessage `json:"result"`
		Error  json.RawMessage `json:"error"`
	}
	if json.Unmarshal(raw, &m) != nil {
		return errors.New("not a JSON-RPC message")
	}
	if m.Method == nil {
		return s.checkResponse(m.ID, m.Result)
	}
	var params []json.RawMessage
	if err := json.Unmarshal(m.Params, &params); err != nil || params == nil {
		return fmt.Errorf("%.20q has no list of parameters", *m.Method)
	}
	switch *m.Method {
	case "echo":
		return nil
	case "update3":
		return s.checkUpdate(params)
	}
	return fmt.Errorf("unexpected method %.20q", *m.Method)
}

func (s *splice) checkResponse(id, result json.RawMessage) error {
	var number uint64
	if isNull(id) || json.Unmarshal(id, &number) != nil {
		return errors.New("a response without the number of its request")
	}
	if len(result) > 0 && result[0] == '{' {
		return s.checkSchema(result)
	}
	if _, err := readable[[]ovsdb.OperationResult](result); err != nil {
		return err
	}
	// The reply to monitor_cond_since has rows: [found, transaction, updates].
	var reply []json.RawMessage
	if json.Unmarshal(result, &reply) != nil || len(reply) != 3 || reply[2][0] != '{' || (reply[0][0] != 't' && reply[0][0] != 'f') {
		return nil
	}
	return s.checkRows(reply[2])
}

// checkSchema keeps the schema, by which rows are checked. libovsdb asks for it once.
func (s *splice) checkSchema(raw json.RawMessage) (err error) {
	if s.schema != nil {
		return errors.New("a second schema")
	}
	if s.schemas != nil {
		if s.trimmed, err = s.schemas.has(raw); err != nil {
			return err
		}
	}
	if s.trimmed {
		s.schema = &s.schemas.matters
		return nil
	}
	s.schema, err = readable[*ovsdb.DatabaseSchema](raw)
	return err
}

// readable reads a value as libovsdb will, whose decoders panic where parts are
// missing. What they merely refuse is for libovsdb to refuse.
func readable[T any](raw json.RawMessage) (v T, err error) {
	defer asError(&err)
	_ = json.Unmarshal(raw, &v)
	return v, nil
}

// asError makes an error of a panic of libovsdb: in its own goroutines it would
// end the controller.
func asError(err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("a value that can't be read: %v", p)
	}
}

func (s *splice) checkUpdate(params []json.RawMessage) error {
	if len(params) != 3 {
		return fmt.Errorf("an update with %d parameters", len(params))
	}
	var c cookie
	if err := json.Unmarshal(params[0], &c); err != nil {
		return err
	}
	s.mu.Lock()
	known := s.cookies[c]
	s.mu.Unlock()
	if !known {
		return errors.New("an update for no monitor")
	}
	return s.checkRows(params[2])
}

// checkRows wants table → row → kind of change → columns, nothing null except
// what a row was when it is gone.
func (s *splice) checkRows(raw json.RawMessage) error {
	var tables map[string]map[string]map[string]json.RawMessage
	if err := json.Unmarshal(raw, &tables); err != nil {
		return err
	}
	for table, rows := range tables {
		for id, changes := range rows {
			if len(changes) == 0 {
				return fmt.Errorf("table %.20q, row %.40q: no change", table, id)
			}
			for kind, columns := range changes {
				if kind != "delete" && (isNull(columns) || columns[0] != '{') {
					return fmt.Errorf("table %.20q, row %.40q: no columns", table, id)
				}
			}
		}
	}
	updates, err := readable[ovsdb.TableUpdates2](raw)
	if err != nil {
		return err
	}
	return s.checkCells(updates)
}

// checkCells wants values of the types that the schema has for their columns.
func (s *splice) checkCells(updates ovsdb.TableUpdates2) error {
	if s.schema == nil {
		return errors.New("rows before the schema")
	}
	for table, rows := range updates {
		columns := s.schema.Table(table)
		if columns == nil {
			return fmt.Errorf("rows of the unknown table %.20q", table)
		}
		for id, row := range rows {
			for _, cells := range []*ovsdb.Row{row.Initial, row.Insert, row.Modify} {
				if err := checkRow(columns, cells); err != nil {
					return fmt.Errorf("table %.20q, row %.40q: %w", table, id, err)
				}
			}
		}
	}
	return nil
}

func checkRow(columns *ovsdb.TableSchema, cells *ovsdb.Row) (err error) {
	defer asError(&err)
	if cells == nil {
		return nil
	}
	for name, value := range *cells {
		column := columns.Column(name)
		if column == nil {
			continue // libovsdb leaves it out
		}
		if _, err := ovsdb.OvsToNative(column, value); err != nil {
			return fmt.Errorf("column %.40q: %w", name, err)
		}
	}
	return nil
}

func isNull(raw json.RawMessage) bool {
	return len(raw) == 0 || bytes.Equal(raw, []byte("null"))
}

// waitEnd waits for the splice to end, or for the context.
func (s *splice) waitEnd(ctx context.Context) {
	select {
	case <-s.done:
	case <-ctx.Done():
	}
}
