package ovsdb

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"planck/network"
)

// Options say how hosts are looked after.
type Options struct {
	// Store takes the facts about hosts.
	Store *network.Store
	// Advertise is the host or host:port of the OpenFlow port as switches reach
	// it; "" for the local address of their OVSDB connection.
	Advertise string
	// OpenFlowPort is the port where Advertise has none; 0 for 6653.
	OpenFlowPort int
	// OpenFlowProto is "tcp" or "ssl"; "" for tcp.
	OpenFlowProto string
	// Name tells this controller's rows on a host from those of other Planck
	// controllers of a cluster; "" for the only one.
	Name string

	// Owns reports whether this controller looks after a host, where several
	// share them: it sets the host up, and tells its facts. The others add their
	// Controller rows to what is set up. nil for all hosts.
	Owns func(host string) bool
	// Certain reports whether Owns is certain: another controller may own the host
	// by now where it is not. Nil for always.
	Certain func() bool
	// Members are the names of all controllers of the cluster: rows of others are
	// removed from hosts. nil for whoever it is.
	Members func() []string

	// ForeignFlows and RestoreFlows keep the flows of mapped bridges across a
	// takeover; see the package comment. Without both, a mapped bridge comes
	// under control at once and loses them.
	//
	// ForeignFlows returns the flows that the bridge with a datapath id has now
	// and that are not Planck's, as a text (valid UTF-8) that RestoreFlows
	// understands, "" for none. It leaves out the flow that standalone mode makes
	// itself (table 0, priority 0, cookie 0, any packet, NORMAL). It waits for the
	// OpenFlow connection of the bridge until the context ends. The bridge is not
	// in the model yet and must not be changed: it still forwards by itself.
	ForeignFlows func(ctx context.Context, datapathID uint64) (string, error)
	// RestoreFlows puts such flows back, with Planck's own, and returns when the
	// switch has acknowledged them. It may be called again for the same flows.
	RestoreFlows func(ctx context.Context, datapathID uint64, flows string) error

	// TunnelTypes are the tunnels that every host with a tunnel address has; nil
	// for all types, empty for no tunnels.
	TunnelTypes []string
	// PeerType is the type of the tunnels in which hosts exchange BFD with gateway
	// hosts; "" for gre.
	PeerType string
	// PeersChanged is called when what PeerReports or Unwired returns, or which
	// hosts are connected, changed; it must not block. nil for nobody.
	PeersChanged func()

	// Logger is for events that an operator would want; nil for the default.
	Logger *slog.Logger
	// Registry takes the metrics; nil for none.
	Registry prometheus.Registerer
}

const (
	defaultOpenFlowPort = 6653
	// takeoverSilence is how long a host must have been silent before another
	// machine may take its name.
	takeoverSilence = 5 * time.Second
	// refusalPause is how long a refused connection is kept open: the switch
	// dials again as soon as it is closed.
	refusalPause = 3 * time.Second
	// maxJoining is how many databases are read as a whole at once: more of them
	// would all be late when a whole cloud comes.
	maxJoining = 16
	// refusalMemory is how long a refusal is shown after the last attempt.
	refusalMemory = time.Minute
)

// Server accepts the OVSDB connections of switches.
type Server struct {
	opts    Options
	log     *slog.Logger
	metrics *metrics
	schemas *schemas
	started time.Time
	silence time.Duration // takeoverSilence, less in tests
	pause   time.Duration // refusalPause, less in tests
	joining chan struct{} // held by a connection that reads the whole database

	mu       sync.Mutex
	open     map[*connection]bool
	hosts    map[string]*connection // connected, by name
	lastSeen map[string]time.Time   // when a host's connection ended
	refused  map[hostID]refusal
	watch    map[string][]*network.Host               // BFD peers, by host
	reports  map[string]map[string]network.PeerReport // by host and peer
	unwired  map[string][]string                      // bridges, by host
	serial   uint64
	wg       sync.WaitGroup
}

type hostID struct{ name, systemID string }

type refusal struct {
	at     time.Time
	since  time.Time
	remote string
	why    string
}

// HostState is what is known about the connection of a host.
type HostState struct {
	Name      string    `json:"name"`
	SystemID  string    `json:"system_id"`
	Connected bool      `json:"connected"`
	Since     time.Time `json:"since"`            // of Connected; zero: since before this controller started
	Remote    string    `json:"remote,omitempty"` // address of the OVSDB connection
	Problem   string    `json:"problem,omitempty"`
}

// New makes a server; Serve starts it.
func New(opts Options) (*Server, error) {
	opts.OpenFlowPort = cmp.Or(opts.OpenFlowPort, defaultOpenFlowPort)
	opts.OpenFlowProto = cmp.Or(opts.OpenFlowProto, "tcp")
	if opts.OpenFlowProto != "tcp" && opts.OpenFlowProto != "ssl" {
		return nil, fmt.Errorf("ovsdb: OpenFlow over %q: tcp or ssl is needed", opts.OpenFlowProto)
	}
	if opts.TunnelTypes == nil {
		opts.TunnelTypes = tunnelTypes
	}
	opts.PeerType = cmp.Or(opts.PeerType, network.TypeGRE)
	if opts.PeersChanged == nil {
		opts.PeersChanged = func() {}
	}
	if opts.Certain == nil {
		opts.Certain = func() bool { return true }
	}
	if opts.Owns == nil {
		opts.Owns = func(string) bool { return true }
	}
	if opts.Members == nil {
		opts.Members = func() []string { return nil }
	}
	if opts.Logger == nil {
		opts.Logger = slog.Default()
	}
	m, err := newMetrics(opts.Registry)
	if err != nil {
		return nil, fmt.Errorf("ovsdb: metrics: %w", err)
	}
	known, err := newSchemas()
	if err != nil {
		return nil, fmt.Errorf("ovsdb: schema: %w", err)
	}
	return &Server{
		opts: opts, log: opts.Logger, metrics: m, schemas: known,
		started: time.Now(), silence: takeoverSilence, pause: refusalPause,
		joining: make(chan struct{}, maxJoining),
		open:    map[*connection]bool{}, hosts: map[string]*connection{},
		lastSeen: map[string]time.Time{}, refused: map[hostID]refusal{},
		reports: map[string]map[string]network.PeerReport{},
		unwired: map[string][]string{},
	}, nil
}

// Serve accepts connections (TCP or TLS) until ctx ends, then closes the
// listener and all connections, leaves every host as it is, and returns nil when
// nothing runs any more. It returns an error when the listener fails.
func (s *Server) Serve(ctx context.Context, listener net.Listener) error {
	dir, err := os.MkdirTemp("", "planck-ovsdb-")
	if err != nil {
		return fmt.Errorf("ovsdb: %w", err)
	}
	defer os.RemoveAll(dir)
	ctx, cancel := context.WithCancel(ctx)
	defer s.wg.Wait()
	defer cancel()
	unwatch := context.AfterFunc(ctx, func() { listener.Close() })
	defer unwatch()
	defer listener.Close()
	s.mu.Lock()
	s.started = time.Now() // hosts had no way to show up before
	s.mu.Unlock()
	// Before any host connects: one without its peers would lose their ports.
	s.setWatch(s.opts.Store.View())
	s.wg.Go(func() { s.followGateways(ctx) })
	for {
		conn, err := listener.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			var temporary interface{ Temporary() bool }
			if errors.As(err, &temporary) && temporary.Temporary() {
				s.log.Warn("OVSDB port: accept failed", "error", err)
				pause(ctx, 100*time.Millisecond)
				continue
			}
			return fmt.Errorf("ovsdb: accept: %w", err)
		}
		s.accept(ctx, conn, dir)
	}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// accept starts the connection's own goroutine.
func (s *Server) accept(ctx context.Context, conn net.Conn, dir string) {
	if tcp, ok := conn.(*net.TCPConn); ok {
		// Without an error that anybody could act on.
		_ = tcp.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 5 * time.Second, Count: 3})
	}
	ctx, stop := context.WithCancelCause(ctx)
	c := &connection{
		s: s, remote: conn, since: time.Now(), stop: stop,
		log:     s.log.With("remote", conn.RemoteAddr().String()),
		changed: make(chan struct{}, 1), ended: make(chan struct{}),
	}
	s.metrics.accepted.Inc()
	s.metrics.connections.Inc()
	s.mu.Lock()
	s.serial++
	serial := s.serial
	s.open[c] = true
	s.mu.Unlock()
	s.wg.Go(func() {
		defer s.metrics.connections.Dec()
		defer stop(nil)
		err := c.run(ctx, dir, serial)
		s.mu.Lock()
		delete(s.open, c)
		s.mu.Unlock()
		s.account(ctx, c, err)
	})
}

// account logs and counts the end of a connection, in one line.
func (s *Server) account(ctx context.Context, c *connection, err error) {
	reason := ""
	switch {
	case errors.Is(err, errGarbage):
		reason = reasonGarbage
	case errors.Is(err, errSchema):
		reason = reasonSchema
	case errors.Is(err, errRefused):
		reason = reasonIdentity
	case errors.Is(err, errSilent) && c.host == "":
		reason = reasonSilent
	}
	if reason != "" {
		s.metrics.refused.WithLabelValues(reason).Inc()
		c.log.Error("OVSDB connection refused", "reason", reason, "error", err)
		return
	}
	if ctx.Err() != nil && quiet(err) || c.host == "" && quiet(err) {
		return
	}
	c.log.Warn("host disconnected", "error", err)
}

var errRefused = errors.New("the name is taken")

// enter lets a connection be a host, or refuses it. At most one connection is
// a given host at any time.
func (s *Server) enter(ctx context.Context, c *connection, name, systemID string) error {
	for {
		old, err := s.tryEnter(c, name, systemID)
		if err == nil && old == nil {
			return nil
		}
		if err == nil && old.alive(ctx) {
			err = fmt.Errorf("%w: host %s (system-id %q) is connected from %s", errRefused, name, old.systemID, old.remote.RemoteAddr())
		}
		if err != nil {
			s.refuse(c, name, systemID, err)
			s.mu.Lock()
			wait := s.pause
			s.mu.Unlock()
			c.linger(ctx, wait)
			return err
		}
		// The old connection is dead and has not noticed.
		old.stop(errReplaced)
		select {
		case <-old.ended:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// linger keeps a connection open for a while, unless the peer closes it.
func (c *connection) linger(ctx context.Context, d time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	c.splice.waitEnd(ctx)
}

// tryEnter returns the connection that is the host now, if there is one.
func (s *Server) tryEnter(c *connection, name, systemID string) (*connection, error) {
	known := s.opts.Store.View().Host(name)
	s.mu.Lock()
	defer s.mu.Unlock()
	if old := s.hosts[name]; old != nil {
		return old, nil
	}
	if known != nil && known.SystemID != systemID {
		seen, ok := s.lastSeen[name]
		if !ok {
			seen = s.started
		}
		if silent := time.Since(seen); silent < s.silence {
			return nil, fmt.Errorf("%w: host %s is system-id %q, which must be silent for %v before %q takes its place",
				errRefused, name, known.SystemID, s.silence, systemID)
		}
		c.log.Warn("another machine takes the place of a silent host", "host", name, "system_id", systemID, "was", known.SystemID)
	}
	s.hosts[name] = c
	c.host, c.systemID = name, systemID
	c.log = c.log.With("host", name)
	c.since = time.Now()
	s.forgive(c)
	return nil, nil
}

// forgive drops the refusals of a machine that is a host now, also those under
// another name that it went by. s.mu is held.
func (s *Server) forgive(c *connection) {
	for id, r := range s.refused {
		if id.systemID == c.systemID && (id.name == c.host || sameMachine(r.remote, c.remote.RemoteAddr().String())) {
			delete(s.refused, id)
		}
	}
}

// sameMachine compares addresses without their ports.
func sameMachine(a, b string) bool {
	hostA, _, errA := net.SplitHostPort(a)
	hostB, _, errB := net.SplitHostPort(b)
	return errA == nil && errB == nil && hostA == hostB
}

func (s *Server) refuse(c *connection, name, systemID string, why error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	for id, r := range s.refused {
		if now.Sub(r.at) > refusalMemory {
			delete(s.refused, id)
		}
	}
	id := hostID{name, systemID}
	r, again := s.refused[id]
	if !again {
		r.since = now
	}
	r.at, r.remote, r.why = now, c.remote.RemoteAddr().String(), why.Error()
	s.refused[id] = r
}

// leave ends a connection being a host.
func (s *Server) leave(c *connection) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.hosts[c.host] == c {
		delete(s.hosts, c.host)
		delete(s.reports, c.host)
		delete(s.unwired, c.host)
		s.lastSeen[c.host] = time.Now()
		s.opts.PeersChanged()
	}
}

// report notes the problems of a connection, and logs what is new and not just
// a part of joining.
func (s *Server) report(c *connection, problems []string) {
	s.mu.Lock()
	old := c.problems
	c.problems = problems
	s.mu.Unlock()
	for _, p := range problems {
		if p != settingUp && !strings.HasSuffix(p, notYet) && !slices.Contains(old, p) {
			c.log.Warn("host has a problem", "problem", p)
		}
	}
}

// Hosts is the state of all hosts that are in the model, connected, or
// refused, by name.
func (s *Server) Hosts() []HostState {
	var out []HostState
	view := s.opts.Store.View()
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.open {
		if c.host == "" && len(c.problems) == 0 {
			continue
		}
		out = append(out, HostState{
			Name: c.host, SystemID: c.systemID, Connected: true, Since: c.since,
			Remote: c.remote.RemoteAddr().String(), Problem: strings.Join(c.problems, "; "),
		})
	}
	for h := range view.Hosts() {
		if s.hosts[h.Name] == nil {
			out = append(out, HostState{Name: h.Name, SystemID: h.SystemID, Since: s.lastSeen[h.Name]})
		}
	}
	for id, r := range s.refused {
		if now.Sub(r.at) <= refusalMemory {
			out = append(out, HostState{Name: id.name, SystemID: id.systemID, Since: r.since, Remote: r.remote, Problem: r.why})
		}
	}
	slices.SortFunc(out, func(a, b HostState) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.SystemID, b.SystemID))
	})
	return out
}

// LookAgain makes all hosts be looked at: what Owns or Members say has changed.
func (s *Server) LookAgain() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.open {
		c.poke()
	}
}

// Connected reports whether a host has an OVSDB connection here.
func (s *Server) Connected(name string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.hosts[name] != nil
}

// Forget removes a dead host from the model. It is refused with a
// *network.Error while the host is connected, or when there is no such host.
func (s *Server) Forget(ctx context.Context, cause network.Cause, name string) error {
	_, err := s.opts.Store.Update(ctx, cause, func(tx *network.Tx) error {
		if s.Connected(name) {
			return network.Errorf(network.Conflict, "HostInUse", "Host %s is connected.", name)
		}
		if tx.Host(name) == nil {
			return network.Errorf(network.NotFound, "HostNotFound", "Host %s could not be found.", name)
		}
		return tx.DeleteHost(name)
	})
	if err != nil {
		return err
	}
	s.mu.Lock()
	delete(s.lastSeen, name)
	s.mu.Unlock()
	return nil
}

// openFlowAddress is where a switch finds the OpenFlow port, whose OVSDB
// connection arrived at a local address.
func (s *Server) openFlowAddress(local net.Addr) (host, port string) {
	host, port = s.opts.Advertise, strconv.Itoa(s.opts.OpenFlowPort)
	if h, p, err := net.SplitHostPort(host); err == nil {
		host, port = h, p
	}
	host = strings.Trim(host, "[]")
	if host != "" {
		return host, port
	}
	at, err := netip.ParseAddrPort(local.String())
	if err != nil {
		return local.String(), port
	}
	return at.Addr().Unmap().WithZone("").String(), port
}
