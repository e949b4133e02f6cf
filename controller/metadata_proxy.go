package controller

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"net/textproto"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"planck/network"
)

// Bounds of one request.
const (
	novaConnectTime  = 3 * time.Second  // to connect to Nova
	novaPatience     = 30 * time.Second // until Nova begins to answer: it asks other services before, as busy as it is
	metadataTime     = 60 * time.Second // in all
	metadataReadTime = 20 * time.Second // for the VM to send its request
	metadataIdleTime = 15 * time.Second // between two requests of a connection
	metadataHeader   = 16 << 10         // bytes of the VM's header
	metadataBody     = 64 << 10         // bytes of the VM's body
	// maxNovaConnections bounds the requests that Nova works on: more than
	// those of one port, so that none takes them all.
	maxNovaConnections = 16 * maxPortRequests
)

// metadataProxy is the HTTP server of the metadata service, which forwards to Nova.
type metadataProxy struct {
	service   *Metadata
	server    *http.Server
	forward   *httputil.ReverseProxy
	transport *http.Transport
	failing   atomic.Bool    // Nova did not answer the last request
	serving   sync.WaitGroup // connections of VMs
}

func newMetadataProxy(m *Metadata) *metadataProxy {
	p := &metadataProxy{service: m}
	dialer := &net.Dialer{Timeout: novaConnectTime}
	p.transport = &http.Transport{
		DialContext: dialer.DialContext, TLSClientConfig: m.cfg.TLS, TLSHandshakeTimeout: novaConnectTime,
		MaxConnsPerHost: maxNovaConnections, MaxIdleConnsPerHost: maxNovaConnections, IdleConnTimeout: 30 * time.Second,
		DisableCompression: true,
	}
	quiet := slog.NewLogLogger(m.log.Handler(), slog.LevelDebug)
	p.forward = &httputil.ReverseProxy{
		Rewrite: p.rewrite, Transport: p.transport, ModifyResponse: p.answered, ErrorHandler: p.fail,
		BufferPool: newMetadataBuffers(), ErrorLog: quiet,
	}
	p.server = &http.Server{
		Handler: p, ReadHeaderTimeout: metadataReadTime, ReadTimeout: metadataReadTime, WriteTimeout: metadataTime,
		IdleTimeout: metadataIdleTime, MaxHeaderBytes: metadataHeader, DisableGeneralOptionsHandler: true, ErrorLog: quiet,
		ConnState: p.connState,
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, sourceOf{}, c.(*metadataConn).source)
		},
	}
	return p
}

// connState counts the connections that have a goroutine.
func (p *metadataProxy) connState(_ net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		p.serving.Add(1)
	case http.StateClosed, http.StateHijacked:
		p.serving.Done()
	}
}

// sourceOf is the key of a request's source in its context.
type sourceOf struct{}

// serve serves until close is called.
func (p *metadataProxy) serve(l net.Listener) {
	if err := p.server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		p.service.log.Error("the metadata service ended", "error", err)
	}
}

// close ends the connections of VMs.
func (p *metadataProxy) close() { _ = p.server.Close() }

// end waits for the requests under way, which the end of their connections has
// cancelled, and closes the connections to Nova.
func (p *metadataProxy) end() {
	p.serving.Wait()
	p.transport.CloseIdleConnections()
}

// asked is one request on its way.
type asked struct {
	port    *network.Port
	address netip.Addr  // the VM's fixed address
	timer   *time.Timer // ends the patience with Nova
}

// askedBy is the key of an *asked in the context of a request.
type askedBy struct{}

var errNovaSlow = errors.New("no answer in time")

// ServeHTTP implements http.Handler.
func (p *metadataProxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	begin := time.Now()
	counted := &statusWriter{ResponseWriter: w, status: http.StatusOK}
	defer func() { p.service.metrics.request(counted.status, time.Since(begin)) }()

	source := r.Context().Value(sourceOf{}).(*metadataSource)
	port := p.service.cfg.View().Port(source.portID)
	switch {
	case port == nil || port.DeviceID == "":
		http.Error(counted, "No instance has this port.", http.StatusNotFound)
		return
	case !strings.HasPrefix(r.URL.Path, "/") || r.Method == http.MethodConnect || r.Method == http.MethodTrace:
		http.Error(counted, "Not a request for metadata.", http.StatusBadRequest)
		return
	case r.ContentLength > metadataBody:
		http.Error(counted, "The body is too large.", http.StatusRequestEntityTooLarge)
		return
	}
	ctx, stop := context.WithTimeout(r.Context(), metadataTime)
	defer stop()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	patience := p.service.cfg.Patience
	timer := time.AfterFunc(patience, func() { cancel(errNovaSlow) })
	defer timer.Stop()
	r = r.WithContext(context.WithValue(ctx, askedBy{}, &asked{port, fixedAddress(port, source.address), timer}))
	r.Body = http.MaxBytesReader(counted, r.Body, metadataBody)
	select {
	case source.use.requests <- struct{}{}:
		defer func() { <-source.use.requests }()
		p.forward.ServeHTTP(counted, r)
	case <-ctx.Done():
		p.fail(counted, r, ctx.Err())
	}
}

// fixedAddress is the address of a packet when it is one of the port's, else
// the port's first.
func fixedAddress(p *network.Port, from netip.Addr) netip.Addr {
	if portHasAddress(p, from) {
		return from
	}
	for _, f := range p.FixedIPs {
		if f.IP.Is4() {
			return f.IP
		}
	}
	return from
}

// passedHeaders are those that a VM's request keeps. All others are the
// service's own business or nobody's: a VM that says who it is is not believed,
// however it spells the name.
var passedHeaders = []string{"Accept", "Accept-Encoding", "Accept-Language", "Content-Type", "If-Modified-Since", "If-None-Match", "Range", "User-Agent"}

// rewrite makes the request to Nova.
func (p *metadataProxy) rewrite(r *httputil.ProxyRequest) {
	by := r.In.Context().Value(askedBy{}).(*asked)
	nova := p.service.cfg.Nova
	r.Out.URL.Scheme, r.Out.URL.Host, r.Out.Host = nova.Scheme, nova.Host, ""
	r.Out.URL.User = nil
	r.Out.Header = http.Header{"User-Agent": nil}
	for _, name := range passedHeaders {
		if values := r.In.Header.Values(name); len(values) > 0 {
			r.Out.Header[textproto.CanonicalMIMEHeaderKey(name)] = values
		}
	}
	r.Out.Header["X-Instance-ID"] = []string{by.port.DeviceID}
	r.Out.Header["X-Tenant-ID"] = []string{by.port.ProjectID}
	r.Out.Header["X-Instance-ID-Signature"] = []string{signInstance(p.service.cfg.SharedSecret, by.port.DeviceID)}
	r.Out.Header["X-Forwarded-For"] = []string{by.address.String()}
}

// signInstance is the signature by which Nova knows that the instance id comes from here.
func signInstance(secret, instanceID string) string {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(instanceID))
	return hex.EncodeToString(mac.Sum(nil))
}

// answered is called with the header of Nova's answer. One that no server may
// send on counts as none.
func (p *metadataProxy) answered(r *http.Response) error {
	if r.StatusCode < 100 || r.StatusCode > 999 {
		return fmt.Errorf("an answer with status %q", r.Status)
	}
	r.Request.Context().Value(askedBy{}).(*asked).timer.Stop()
	if p.failing.Swap(false) {
		p.service.log.Info("Nova's metadata service answers again", "nova", p.service.cfg.Nova.Host)
	}
	return nil
}

// fail answers a request that did not reach Nova, or that Nova did not answer.
func (p *metadataProxy) fail(w http.ResponseWriter, r *http.Request, err error) {
	var large *http.MaxBytesError
	if errors.As(err, &large) {
		http.Error(w, "The body is too large.", http.StatusRequestEntityTooLarge)
		return
	}
	if cause := context.Cause(r.Context()); errors.Is(cause, errNovaSlow) {
		err = fmt.Errorf("%w: %s", cause, p.service.cfg.Patience)
	} else if cause != nil && !errors.Is(cause, context.DeadlineExceeded) {
		return // the VM hung up
	}
	if !p.failing.Swap(true) {
		p.service.log.Warn("Nova's metadata service does not answer", "nova", p.service.cfg.Nova.Host, "error", err,
			"port_id", r.Context().Value(askedBy{}).(*asked).port.ID)
	}
	p.service.metrics.novaFailures.Inc()
	w.Header().Set("Retry-After", "5")
	http.Error(w, "The metadata service is not available.", http.StatusServiceUnavailable)
}

// statusWriter remembers the status.
type statusWriter struct {
	http.ResponseWriter
	status int
}

// WriteHeader implements http.ResponseWriter.
func (w *statusWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

// Unwrap is for http.ResponseController.
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// metadataBuffers are what answers are copied through.
type metadataBuffers struct{ pool sync.Pool }

func newMetadataBuffers() *metadataBuffers {
	return &metadataBuffers{sync.Pool{New: func() any { return new([16 << 10]byte) }}}
}

// Get implements httputil.BufferPool.
func (b *metadataBuffers) Get() []byte { return b.pool.Get().(*[16 << 10]byte)[:] }

// Put implements httputil.BufferPool.
func (b *metadataBuffers) Put(buf []byte) { b.pool.Put((*[16 << 10]byte)(buf)) }

// metadataMetrics are what the metadata service tells Prometheus.
type metadataMetrics struct {
	requests     *prometheus.CounterVec // by status
	seconds      prometheus.Histogram
	connections  prometheus.Gauge
	refused      prometheus.Counter
	novaFailures prometheus.Counter
}

func newMetadataMetrics(reg prometheus.Registerer) *metadataMetrics {
	m := &metadataMetrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "planck_metadata_requests_total", Help: "Requests of VMs for metadata, by the status of the answer."}, []string{"status"}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "planck_metadata_seconds", Help: "Time from a request for metadata to the end of its answer.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 4, 9)}),
		connections: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "planck_metadata_connections", Help: "Open connections of VMs to the metadata service."}),
		refused: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "planck_metadata_refused_total", Help: "Connections of VMs that were reset, since the port or all ports had too many."}),
		novaFailures: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "planck_metadata_nova_failures_total", Help: "Requests for metadata that Nova did not answer."}),
	}
	if reg != nil {
		reg.MustRegister(m.requests, m.seconds, m.connections, m.refused, m.novaFailures)
	}
	return m
}

func (m *metadataMetrics) request(status int, took time.Duration) {
	m.requests.WithLabelValues(strconv.Itoa(status)).Inc()
	m.seconds.Observe(took.Seconds())
}
