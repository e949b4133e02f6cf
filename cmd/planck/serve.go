package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"planck/cluster"
	"planck/controller"
	"planck/network"
	"planck/northbound"
	"planck/northbound/notify"
	"planck/northbound/nova"
	"planck/ovsdb"
	"planck/pipeline"
	"planck/telemetry"
)

const (
	// drainTime bounds how long SIGTERM waits for API requests under way.
	drainTime = 15 * time.Second
	// readTime bounds how long a client may take to send a request, so that
	// slow ones neither hold connections nor use up drainTime.
	readTime = 10 * time.Second
	// writeTime bounds how long one request may take with its answer.
	writeTime = 2 * time.Minute
)

// configError is a configuration or a command line that can't be used; the
// program exits with 2.
type configError struct{ err error }

func usagef(format string, args ...any) error { return &configError{fmt.Errorf(format, args...)} }

func (e *configError) Error() string { return e.err.Error() }
func (e *configError) Unwrap() error { return e.err }

func serveCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run the controller",
		Args:  cobra.NoArgs,
	}
	addConfigFlags(cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		load := func() (*Config, []string, error) { return configFromFlags(cmd.Flags()) }
		cfg, warnings, err := load()
		if err != nil {
			return &configError{err}
		}
		level, recent := new(slog.LevelVar), new(recentLines)
		log, closer, err := openLog(cfg, level, recent)
		if err != nil {
			return &configError{err}
		}
		defer closer.Close()
		slog.SetDefault(log)
		for _, w := range warnings {
			log.Warn(w)
		}
		ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGTERM, syscall.SIGINT)
		defer stop()
		defer onHangup(func() { reloadLevel(log, level, load) })()
		return serve(ctx, cfg, log, recent)
	}
	return cmd
}

// onHangup calls fn at each SIGHUP, one at a time, until stop is called, which
// waits for a call under way.
func onHangup(fn func()) (stop func()) {
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	var wg sync.WaitGroup
	wg.Go(func() {
		for range hangup {
			fn()
		}
	})
	return func() {
		signal.Stop(hangup) // before close: nothing is sent any more
		close(hangup)
		wg.Wait()
	}
}

// openLog makes the logger, which writes to recent as well; the closer is for
// its file, if it has one.
func openLog(cfg *Config, level *slog.LevelVar, recent io.Writer) (*slog.Logger, io.Closer, error) {
	level.Set(cfg.LogLevel)
	out := io.MultiWriter(os.Stderr, recent)
	closer := io.NopCloser(nil)
	if cfg.LogFile != "" {
		file, err := os.OpenFile(cfg.LogFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o640)
		if err != nil {
			return nil, nil, fmt.Errorf("log_file: %w", err)
		}
		out, closer = io.MultiWriter(file, recent), file
	}
	options := &slog.HandlerOptions{Level: level}
	if cfg.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(out, options)), closer, nil
	}
	return slog.New(slog.NewTextHandler(out, options)), closer, nil
}

// reloadLevel reads the configuration again; a broken one changes nothing.
func reloadLevel(log *slog.Logger, level *slog.LevelVar, load func() (*Config, []string, error)) {
	cfg, _, err := load()
	if err != nil {
		log.Error("the configuration is not read again: it is broken", "error", err)
		return
	}
	level.Set(cfg.LogLevel)
	log.Info("log level read again", "level", cfg.LogLevel)
}

// serve runs the controller until ctx ends or a part of it fails.
func serve(ctx context.Context, cfg *Config, log *slog.Logger, recent *recentLines) error {
	if err := os.MkdirAll(cfg.StateDir, 0o750); err != nil {
		return fmt.Errorf("state directory: %w", err)
	}
	listeners, err := listen(cfg)
	if err != nil {
		return err
	}
	defer listeners.close()
	model := cfg.NetworkConfig()
	if o := cfg.novaOptions(); o.Enabled() {
		model.Messages = o.Triggers.Messages
	}
	store, err := openStore(ctx, string(cfg.Database), model, log)
	if err != nil {
		return err
	}
	defer func() {
		if err := store.Close(); err != nil {
			log.Error("the store does not close", "error", err)
		}
	}()
	p, err := assemble(cfg, log, store, listeners, recent)
	if err != nil {
		return err
	}
	defer func() {
		if err := p.tracer.Close(); err != nil {
			log.Warn("the last traces are lost", "error", err)
		}
	}()
	defer onHangup(p.reloadPolicy)()
	log.Info("serving", "version", version, "api", listeners.api.Addr().String(),
		"openflow", listeners.openflow.Addr().String(), "ovsdb", listeners.ovsdb.Addr().String(), "revision", store.View().Revision())
	return p.run(ctx, listeners, store)
}

// openStore waits for a database that does not take connections yet: after a
// power cut all machines start at once.
func openStore(ctx context.Context, dsn string, model network.Config, log *slog.Logger) (*network.Store, error) {
	told := false
	for {
		store, err := network.Open(ctx, dsn, model)
		if !network.NotUpYet(err) {
			return store, err
		}
		if !told {
			log.Warn("the database does not take connections, waiting for it", "error", err)
			told = true
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(time.Second):
		}
	}
}

// parts are what runs.
type parts struct {
	registry   *prometheus.Registry
	support    *support
	tracer     *telemetry.Tracer // nil when nobody takes traces
	cluster    *cluster.Cluster  // nil when there is only one controller
	peers      *peers            // its other members
	controller *controller.Controller
	metadata   *controller.Metadata
	ovsdb      *ovsdb.Server
	api        *http.Server
	senders    []sender
	revision   func() uint64 // of the model, as this controller has it
	// reloadPolicy reads the policy file again.
	reloadPolicy func()
}

// sender delivers the messages of a queue until its context ends.
type sender interface {
	Run(ctx context.Context) error
}

func assemble(cfg *Config, log *slog.Logger, store *network.Store, l *listeners, recent *recentLines) (*parts, error) {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	p := &parts{registry: registry, revision: func() uint64 { return store.View().Revision() }}
	p.support = newSupport(cfg, p, store.View, recent)
	var err error
	if p.tracer, err = telemetry.New(context.Background(), cfg.OTelEndpoint, version, log); err != nil {
		return nil, &configError{err}
	}
	registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "planck_ready", Help: "1 when this controller can serve, as /readyz says."}, p.readiness))
	if p.cluster, err = newCluster(cfg, log, store, l, registry); err != nil {
		return nil, err
	}
	if p.peers, err = newPeers(cfg); err != nil {
		return nil, err
	}
	if p.metadata, err = metadataService(cfg, log, store, registry); err != nil {
		return nil, err
	}
	generation, err := store.Generation(context.Background())
	if err != nil {
		return nil, fmt.Errorf("database: %w", err)
	}
	dhcp := controller.DHCPConfig{Lease: time.Duration(cfg.DHCPLeaseDuration), Domain: cfg.DNSDomain, Logger: log}
	p.controller = controller.New(controller.Options{
		Store: store,
		Compiler: pipeline.NewCompiler(pipeline.Options{
			ARPMode: cfg.ARPResponder, PuntRatePerHost: uint32(cfg.PuntRatePerHost), PeerType: cfg.peerType(),
		}),
		Responders: []controller.Responder{
			controller.NewARP(cfg.ARPResponder),
			controller.NewND(cfg.ARPResponder),
			controller.NewDHCP(dhcp),
			controller.NewDHCPv6(dhcp),
			controller.NewPing6(),
			controller.NewRA(),
			controller.NewRouter(),
			controller.NewRouter6(),
			p.metadata,
		},
		Listeners: []net.Listener{l.openflow}, Logger: log, Registry: registry,
		AuditInterval: time.Duration(cfg.AuditInterval), PuntRatePerPort: float64(cfg.PuntRatePerPort),
		Cluster: p.switchCluster(), Generation: generation, Tracer: p.switchTracer(),
	})
	proto := "tcp"
	if cfg.TLSCert != "" {
		proto = "ssl"
	}
	hosts := ovsdb.Options{
		Store: store, Advertise: string(cfg.Advertise), OpenFlowPort: l.openflow.Addr().(*net.TCPAddr).Port, OpenFlowProto: proto,
		ForeignFlows: p.controller.ForeignFlows, RestoreFlows: p.controller.RestoreFlows,
		TunnelTypes: append([]string{}, cfg.TunnelTypes...), PeerType: cfg.peerType(), PeersChanged: p.controller.PeersChanged,
		Logger: log, Registry: registry,
	}
	p.shareHosts(&hosts)
	if p.ovsdb, err = ovsdb.New(hosts); err != nil {
		return nil, err
	}
	p.controller.Watch(p.ovsdb)
	limits := northbound.DefaultLimits()
	limits.Bulk, limits.MaxPage = cfg.AllowBulk, int(cfg.PaginationMaxLimit)
	notifications := cfg.notifyOptions()
	if !notifications.Enabled() {
		notifications = nil
	}
	handler, err := northbound.New(northbound.Options{
		Notifications: notifications,
		Store:         store, AuthStrategy: cfg.AuthStrategy, Keystone: cfg.keystoneOptions(), Logger: log, Registry: registry,
		PolicyFile: cfg.PolicyFile, Quotas: cfg.quotas(), Operator: operatorAPI(p), Ready: p.ready, Limits: limits, DNSDomain: cfg.DNSDomain,
		Alive: p.controller.Live, Joined: p.ovsdb.Connected, Committed: p.committed(),
	})
	if err != nil {
		return nil, &configError{err}
	}
	p.api, p.reloadPolicy = apiServer(p.tracer.Handler(handler), log), handler.ReloadPolicy
	if notifications != nil {
		senders, err := notify.NewSenders(store, notifications, log, registry)
		if err != nil {
			return nil, &configError{err}
		}
		for _, s := range senders {
			p.senders = append(p.senders, s)
		}
	}
	if o := cfg.novaOptions(); o.Enabled() {
		events, err := nova.NewSender(store, o, log, registry)
		if err != nil {
			return nil, &configError{err}
		}
		p.senders = append(p.senders, events)
	}
	return p, nil
}

func apiServer(handler http.Handler, log *slog.Logger) *http.Server {
	return &http.Server{
		Handler: handler, ReadTimeout: readTime, WriteTimeout: writeTime, IdleTimeout: 2 * time.Minute,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
}

// run ends when ctx does: first the API, so that requests under way are
// finished with everything behind them still there, then the rest.
func (p *parts) run(ctx context.Context, l *listeners, store *network.Store) error {
	inner, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	g, inner := errgroup.WithContext(inner)
	g.Go(func() error {
		select {
		case <-store.Outdated():
			return errors.New("the database was contracted for newer programs than this one")
		case <-inner.Done():
			return nil
		}
	})
	g.Go(func() error { return p.runCluster(inner) })
	g.Go(func() error { return p.controller.Run(inner) })
	g.Go(func() error { return p.metadata.Run(inner) })
	g.Go(func() error { return p.serveHosts(inner, l.ovsdb) })
	for _, s := range p.senders {
		g.Go(func() error { return s.Run(inner) })
	}
	g.Go(func() error {
		if err := p.api.Serve(l.api); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("API: %w", err)
		}
		return nil
	})
	g.Go(func() error {
		defer cancel()
		select {
		case <-ctx.Done():
		case <-inner.Done():
		}
		drain, stop := context.WithTimeout(context.WithoutCancel(ctx), drainTime)
		defer stop()
		err := p.api.Shutdown(drain)
		if err != nil {
			err = p.api.Close()
		}
		p.leaveCluster(inner)
		return err
	})
	return g.Wait()
}

// serveHosts lets hosts tell their facts once the flows are compiled: after a
// start their databases come all at once, and no packet waits for them.
func (p *parts) serveHosts(ctx context.Context, l net.Listener) error {
	if err := p.controller.AwaitReady(ctx); err != nil {
		return l.Close()
	}
	return p.ovsdb.Serve(ctx, l)
}

// listeners are open before anything runs, so that a port in use is said at once.
type listeners struct {
	api, openflow, ovsdb net.Listener
}

func listen(cfg *Config) (*listeners, error) {
	l := &listeners{}
	for _, w := range []struct {
		to   *net.Listener
		addr string
		what string
		tls  func(*Config) (*tls.Config, error)
	}{
		{&l.api, cfg.APIListen(), "api-listen", apiTLS},
		{&l.openflow, string(cfg.OpenFlowListen), "openflow-listen", switchTLS},
		{&l.ovsdb, string(cfg.OVSDBListen), "ovsdb-listen", switchTLS},
	} {
		listener, err := net.Listen("tcp", w.addr)
		if err != nil {
			l.close()
			return nil, fmt.Errorf("%s: %w", w.what, err)
		}
		config, err := w.tls(cfg)
		if err != nil {
			listener.Close()
			l.close()
			return nil, &configError{err}
		}
		if config != nil {
			listener = tls.NewListener(listener, config)
		}
		*w.to = listener
	}
	return l, nil
}

func (l *listeners) close() {
	for _, listener := range []net.Listener{l.api, l.openflow, l.ovsdb} {
		if listener != nil {
			listener.Close()
		}
	}
}

// switchTLS is how switches connect: with a certificate that our CA signed. It
// is nil where they use plain TCP.
func switchTLS(cfg *Config) (*tls.Config, error) {
	if cfg.TLSCert == "" {
		return nil, nil
	}
	config, err := serverTLS(cfg.TLSCert, cfg.TLSKey, cfg.TLSCA)
	if err != nil {
		return nil, fmt.Errorf("[openflow] %w", err)
	}
	return config, nil
}

// apiTLS is how clients of the API connect, nil for plain HTTP.
func apiTLS(cfg *Config) (*tls.Config, error) {
	if !cfg.UseSSL {
		return nil, nil
	}
	config, err := serverTLS(cfg.SSLCert, cfg.SSLKey, cfg.SSLCA)
	if err != nil {
		return nil, fmt.Errorf("[ssl] %w", err)
	}
	return config, nil
}

// serverTLS wants clients to have a certificate that ca signed, unless that is "".
func serverTLS(cert, key, ca string) (*tls.Config, error) {
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		return nil, fmt.Errorf("certificate and key: %w", err)
	}
	config := &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
	if ca == "" {
		return config, nil
	}
	if config.ClientCAs, err = certificates(ca); err != nil {
		return nil, err
	}
	config.ClientAuth = tls.RequireAndVerifyClientCert
	return config, nil
}

// certificates reads those of authorities.
func certificates(file string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("authorities: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("authorities: %s has no certificate", file)
	}
	return pool, nil
}
