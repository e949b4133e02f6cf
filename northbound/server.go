// Package northbound is the REST API v2.0 of Neutron (and Quantum) on the
// network model: resources as tables of attributes, one engine for all of them,
// authentication, policy, and the operator's paths.
package northbound

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/gorilla/mux"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"planck/network"
	"planck/northbound/console"
	"planck/northbound/notify"
)

// Options is what the API needs to be served.
type Options struct {
	Store *network.Store
	// AuthStrategy is keystone or noauth.
	AuthStrategy string
	// Keystone is needed where AuthStrategy is keystone.
	Keystone *KeystoneOptions
	// Logger takes one line for each call; nil is slog.Default.
	Logger *slog.Logger
	// Registry takes the metrics and is served at /metrics; nil makes one.
	Registry *prometheus.Registry
	// Operator serves /planck/v1/ and below, for administrators only; nil serves nothing there.
	Operator http.Handler
	// Ready says why the server is not ready, beside the store; nil is always ready.
	Ready  func() error
	Limits Limits
	// DNSDomain is the domain of ports whose network has none, or "".
	DNSDomain string
	// PolicyFile has rules in place of those that are built in; "" for none.
	PolicyFile string
	// Quotas are what projects may own; nil is DefaultQuotas.
	Quotas *Quotas
	// Notifications say who is told of what the API does; nil is nobody.
	Notifications *notify.Options
	// Alive reports whether a host is connected; nil is that all are.
	Alive func(host string) bool
	// Joined reports whether a host's database is connected; nil is that none is.
	Joined func(host string) bool
	// Committed is told of each change that a request made, with its revision; nil is nobody.
	Committed func(ctx context.Context, operation string, revision uint64, began time.Time)
}

// Limits bound what one request may ask for. In the zero value each has its default.
type Limits struct {
	Bulk    bool  // several objects in one POST (allow_bulk)
	MaxPage int   // objects in one answer (pagination_max_limit); 0 for no limit
	MaxBody int64 // bytes of a request body; default 1 MiB
}

// DefaultLimits are Neutron's.
func DefaultLimits() Limits {
	return Limits{Bulk: true, MaxBody: 1 << 20}
}

// resources are the collections of the API, in the order of discovery.
func resources() []collection {
	return []collection{networks(), subnets(), subnetPools(), ports(), securityGroups(), securityGroupRules(), routers(), floatingIPs(),
		agents(), zones(), ipAvailabilities()}
}

// server is the API as an http.Handler.
type server struct {
	store       *network.Store
	auth        Authenticator
	policy      *policySource
	quotas      *quotas
	log         *slog.Logger
	limits      Limits
	ready       func() error
	metrics     *apiMetrics
	committed   func(ctx context.Context, operation string, revision uint64, began time.Time)
	domain      string // Options.DNSDomain with a dot at its end, or ""
	alive       func(host string) bool
	joined      func(host string) bool
	router      *mux.Router
	collections []collection

	notifications *notify.Options
}

// New makes the handler of the API port. It starts nothing.
func New(o Options) (*API, error) {
	if o.Store == nil {
		return nil, errors.New("northbound: no store")
	}
	if o.Registry == nil {
		o.Registry = prometheus.NewRegistry()
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	policy, err := newPolicySource(o.PolicyFile, o.Logger)
	if err != nil {
		return nil, err
	}
	if o.Limits == (Limits{}) {
		o.Limits = DefaultLimits()
	}
	metrics, err := newAPIMetrics(o.Registry, o.Store)
	if err != nil {
		return nil, err
	}
	auth, err := newAuthenticator(o)
	if err != nil {
		return nil, err
	}
	s := &server{
		committed: o.Committed, store: o.Store, auth: auth, policy: policy, log: o.Logger, limits: o.Limits,
		ready: o.Ready, metrics: metrics, collections: resources(),
	}
	s.quotas = newQuotas(o.Quotas, s.collections)
	if domain := strings.Trim(o.DNSDomain, "."); domain != "" {
		s.domain = strings.ToLower(domain) + "."
	}
	s.alive, s.joined, s.notifications = o.Alive, o.Joined, o.Notifications
	if err := s.route(o); err != nil {
		return nil, err
	}
	return &API{s}, nil
}

// API is the handler of the API port.
type API struct{ *server }

// ReloadPolicy reads the policy file again, though it may look unchanged. A
// broken one is logged, and the rules stay as they are.
func (a *API) ReloadPolicy() { a.policy.refresh(true) }

// handler serves one call: a status and a body (nil for none), or an error.
type handler func(c *call) (status int, body []byte, err error)

// methods are the handlers of a path.
type methods map[string]handler

// endpoint is one path of the API, with what metrics count it as.
type endpoint struct {
	path     string
	resource string
	methods  methods
	// refuse says why a method that is not among these can't be served; nil,
	// or a nil error, is that the path does not know it.
	refuse func(c *call) error
}

func (s *server) route(o Options) error {
	s.router = mux.NewRouter().UseEncodedPath().SkipClean(true)
	endpoints := slices.Concat(s.discovery(), portBindings(), autoAllocatedTopology())
	for _, c := range s.collections {
		endpoints = append(endpoints, c.endpoints()...)
	}
	endpoints = append(endpoints, s.quotaEndpoints()...)
	for _, e := range endpoints {
		s.router.Handle(e.path, s.api(e))
	}
	metrics := promhttp.HandlerFor(o.Registry, promhttp.HandlerOpts{})
	s.router.Handle("/healthz", onlyGet(func(w http.ResponseWriter, _ *http.Request) { writePlain(w, http.StatusOK, "ok") }))
	s.router.Handle("/readyz", onlyGet(s.readyz))
	s.router.Handle("/metrics", onlyGet(metrics.ServeHTTP))
	if o.Operator != nil {
		s.router.PathPrefix("/planck/v1/").Handler(s.operator(o.Operator))
	}
	if err := s.routeConsole(o.AuthStrategy); err != nil {
		return err
	}
	s.router.NotFoundHandler = s.api(endpoint{resource: "unknown"})
	return nil
}

// routeConsole serves the web page, and lets its users log in.
func (s *server) routeConsole(authStrategy string) error {
	page, err := console.Handler(console.Options{AuthStrategy: authStrategy, Revision: func() uint64 { return s.store.View().Revision() }})
	if err != nil {
		return err
	}
	if k, ok := s.auth.(*keystoneAuth); ok {
		s.router.Handle(loginPath, s.login(k.client))
	}
	s.router.Handle("/console", Mux(page))
	s.router.PathPrefix(console.Path).Handler(Mux(page))
	return nil
}

func onlyGet(serve http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			WriteError(w, methodNotAllowed([]string{http.MethodGet, http.MethodHead}))
			return
		}
		serve(w, r)
	})
}

func (s *server) readyz(w http.ResponseWriter, _ *http.Request) {
	err := s.store.Ready()
	if err == nil && s.ready != nil {
		err = s.ready()
	}
	if err != nil {
		writePlain(w, http.StatusServiceUnavailable, err.Error())
		return
	}
	writePlain(w, http.StatusOK, "ready")
}

func writePlain(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	fmt.Fprintln(w, text)
}

// call is one request to the API.
type call struct {
	server  *server
	request *http.Request
	who     *Identity
	id, tag string // of the path
	sub     string // what is below the object of the path
	raw     []byte // the request's body, once it was read
	track   *tracked
	policy  *policy // set by rules
}

// tracked is what the log line and the metrics tell about a request.
type tracked struct {
	http.ResponseWriter
	requestID string
	resource  string
	who       *Identity
	status    int
}

// WriteHeader implements http.ResponseWriter.
func (t *tracked) WriteHeader(status int) {
	if t.status == 0 {
		t.status = status
	}
	t.ResponseWriter.WriteHeader(status)
}

// Write implements io.Writer.
func (t *tracked) Write(b []byte) (int, error) {
	if t.status == 0 {
		t.status = http.StatusOK
	}
	return t.ResponseWriter.Write(b)
}

// Unwrap is for http.ResponseController.
func (t *tracked) Unwrap() http.ResponseWriter { return t.ResponseWriter }

const requestIDHeader = "X-Openstack-Request-Id"

// ServeHTTP implements http.Handler.
func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	begin := time.Now()
	t := &tracked{ResponseWriter: w, requestID: "req-" + uuid.NewString()}
	w.Header().Set(requestIDHeader, t.requestID)
	if r.ContentLength == 0 {
		t.limitRead(time.Time{})
	}
	defer s.finish(t, r, begin)
	defer s.recovered(t, r)
	s.router.ServeHTTP(t, withCleanPath(r))
}

// recovered turns a panic of a handler into a 500.
func (s *server) recovered(t *tracked, r *http.Request) {
	v := recover()
	if v == nil {
		return
	}
	if v == http.ErrAbortHandler {
		panic(v)
	}
	s.log.Error("panic in the API", "request_id", t.requestID, "method", r.Method,
		"path", r.URL.Path, "error", fmt.Sprint(v), "stack", string(debug.Stack()))
	if t.status == 0 {
		WriteError(t, errors.New("panic"))
	}
}

// finish logs and counts a request to the API.
func (s *server) finish(t *tracked, r *http.Request, begin time.Time) {
	if t.resource == "" {
		return
	}
	took := time.Since(begin)
	s.metrics.observe(t.resource, r.Method, t.status, took)
	args := []any{"request_id", t.requestID, "project_id", "", "method", r.Method,
		"path", r.URL.Path, "status", t.status, "duration", took}
	if t.who != nil {
		args[3] = t.who.ProjectID
	}
	if global := r.Header.Get(requestIDHeader); isRequestID(global) {
		args = append(args, "global_request_id", global)
	}
	s.log.Info("api", args...)
}

func isRequestID(s string) bool {
	id, ok := strings.CutPrefix(s, "req-")
	return ok && len(id) == 36 && uuid.Validate(id) == nil
}

// withCleanPath drops a trailing slash and the .json that old clients put behind a path.
func withCleanPath(r *http.Request) *http.Request {
	path := r.URL.EscapedPath()
	clean := path
	if len(clean) > 1 {
		clean = strings.TrimSuffix(clean, "/")
	}
	if strings.Count(clean, "/") < 5 {
		clean = strings.TrimSuffix(clean, ".json")
	}
	if clean == path || strings.HasPrefix(path, "/planck/") || strings.HasPrefix(path, console.Path) {
		return r
	}
	plain, err := url.PathUnescape(clean)
	if err != nil {
		return r
	}
	copied := *r
	u := *r.URL
	u.Path, u.RawPath = plain, clean
	copied.URL = &u
	return &copied
}

// api authenticates a request and serves it by its method.
func (s *server) api(e endpoint) http.Handler {
	allow := e.allow()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		t := w.(*tracked)
		t.resource = e.resource
		c := &call{server: s, request: r, track: t}
		status, body, err := s.serve(c, e, allow)
		if err != nil {
			s.logFailure(c, err)
			WriteError(w, err)
			return
		}
		writeJSON(w, status, body)
		recycle(body)
	})
}

func (e endpoint) allow() []string {
	allow := slices.Sorted(maps.Keys(e.methods))
	if slices.Contains(allow, http.MethodGet) {
		allow = append(allow, http.MethodHead)
	}
	return allow
}

func (s *server) serve(c *call, e endpoint, allow []string) (int, []byte, error) {
	if err := c.identify(e); err != nil {
		return 0, nil, err
	}
	if e.methods == nil {
		return 0, nil, pathNotFound()
	}
	method := c.request.Method
	if method == http.MethodHead {
		method = http.MethodGet
	}
	handle, ok := e.methods[method]
	if !ok && e.refuse != nil {
		if err := e.refuse(c); err != nil {
			return 0, nil, err
		}
	}
	if !ok {
		return 0, nil, methodNotAllowed(allow)
	}
	var err error
	vars := mux.Vars(c.request)
	if c.id, err = url.PathUnescape(vars["id"]); err != nil {
		return 0, nil, pathNotFound()
	}
	if c.tag, err = url.PathUnescape(vars["tag"]); err != nil {
		return 0, nil, pathNotFound()
	}
	if c.sub, err = url.PathUnescape(vars["sub"]); err != nil {
		return 0, nil, pathNotFound()
	}
	return handle(c)
}

// identify authenticates; the list of versions is for everybody.
func (c *call) identify(e endpoint) error {
	if e.path == "/" {
		return nil
	}
	who, err := c.server.auth.Authenticate(c.request)
	if err == nil {
		err = who.check()
	}
	if err != nil {
		return err
	}
	c.who, c.track.who = who, who
	return nil
}

func (s *server) logFailure(c *call, err error) {
	if asAPIError(err).status >= http.StatusInternalServerError {
		s.log.Error("api call failed", "request_id", c.track.requestID,
			"method", c.request.Method, "path", c.request.URL.Path, "error", err)
	}
}

// operator lets administrators through to the operator's API.
func (s *server) operator(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		t := w.(*tracked)
		t.resource = "planck"
		c := &call{server: s, request: r, track: t}
		err := c.identify(endpoint{})
		if err == nil && !s.policy.rules().allows("planck_operator", c.who, noTarget{}) {
			err = notAuthorized("rule:planck_operator")
		}
		if err != nil {
			s.logFailure(c, err)
			WriteError(w, err)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func writeJSON(w http.ResponseWriter, status int, body []byte) {
	if body == nil {
		w.WriteHeader(status)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", fmt.Sprint(len(body)))
	w.WriteHeader(status)
	// A client that went away is all that can fail here.
	_, _ = w.Write(body)
}

// WriteError answers a request with an error in the form of Neutron's. It is
// for the handlers of Options.Operator too.
func WriteError(w http.ResponseWriter, err error) {
	e := asAPIError(err)
	e.writeHeaders(w.Header())
	writeJSON(w, e.status, e.body())
}

// Mux serves what mux does, and refuses paths and methods that it does not know
// as the rest of the API does.
func Mux(mux *http.ServeMux) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		refuse, pattern := mux.Handler(r)
		if pattern != "" {
			mux.ServeHTTP(w, r)
			return
		}
		said := &refusal{header: http.Header{}}
		refuse.ServeHTTP(said, r)
		if said.status == http.StatusMethodNotAllowed {
			WriteError(w, methodNotAllowed(strings.Split(said.header.Get("Allow"), ", ")))
			return
		}
		WriteError(w, pathNotFound())
	})
}

// refusal takes what net/http says of a request that nobody serves.
type refusal struct {
	header http.Header
	status int
}

func (r *refusal) Header() http.Header         { return r.header }
func (r *refusal) WriteHeader(status int)      { r.status = status }
func (r *refusal) Write(b []byte) (int, error) { return len(b), nil }

// bodyTime is how long a client may take to send a body.
const bodyTime = 10 * time.Second

// limitRead sets until when the rest of the request must be read; the zero time
// is never. Connections without deadlines, as tests have, need none.
func (t *tracked) limitRead(until time.Time) {
	_ = http.NewResponseController(t).SetReadDeadline(until)
}

// readBody reads a request body of bounded size. The time for that begins here:
// asking Keystone about the caller may have used up the server's. It ends with
// the body: net/http takes a deadline that passes later for the end of the
// connection, and cancels this request and all that follow on it.
func (c *call) readBody() ([]byte, error) {
	c.track.limitRead(time.Now().Add(bodyTime))
	defer c.track.limitRead(time.Time{})
	limit := c.server.limits.MaxBody
	data, err := io.ReadAll(http.MaxBytesReader(c.track.ResponseWriter, c.request.Body, limit))
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return nil, bodyTooLarge(limit)
	}
	if err != nil {
		return nil, badRequest("The request body could not be read")
	}
	c.raw = data
	return data, nil
}

// body reads the JSON object of a POST or PUT.
func (c *call) body() (map[string]any, error) {
	data, err := c.readBody()
	if err != nil {
		return nil, err
	}
	if len(data) == 0 {
		return map[string]any{}, nil
	}
	object, ok := decodeObject(data)
	if !ok {
		return nil, badRequest("Body contains invalid data")
	}
	return object, nil
}

// update runs fn in a transaction that is told to the change log as this call.
func (c *call) update(operation string, fn func(tx *network.Tx) error) (*network.View, error) {
	if c.server.committed == nil {
		return c.server.store.Update(c.request.Context(), c.cause(operation), fn)
	}
	began := time.Now()
	view, err := c.server.store.Update(c.request.Context(), c.cause(operation), fn)
	if err == nil {
		c.server.committed(c.request.Context(), operation, view.Revision(), began)
	}
	return view, err
}

func (c *call) cause(operation string) network.Cause {
	return network.Cause{
		RequestID: c.track.requestID, ProjectID: c.who.ProjectID, UserID: c.who.UserID, Operation: operation,
	}
}

// baseURL is the address that the client used, without a path.
func (c *call) baseURL() string {
	scheme := "http"
	if c.request.TLS != nil {
		scheme = "https"
	}
	switch proto := c.request.Header.Get("X-Forwarded-Proto"); proto {
	case "http", "https":
		scheme = proto
	}
	return scheme + "://" + c.request.Host
}
