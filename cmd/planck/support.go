package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/common/expfmt"

	"planck/controller"
	"planck/network"
	"planck/northbound"
)

// Bounds of a support bundle.
const (
	// supportTime is how long switches are asked, all together; supportHost how
	// long one host is.
	supportTime = 45 * time.Second
	supportHost = 10 * time.Second
	// supportReaders is how many hosts are asked at once, supportPart what is kept
	// of one file, in bytes.
	supportReaders = 4
	supportPart    = 8 << 20
)

// support makes bundles of what helps to find a fault.
type support struct {
	parts   *parts
	model   func() *network.View
	config  []byte // without secrets
	removed *strings.Replacer
	recent  *recentLines // of the log
	started time.Time
}

func newSupport(cfg *Config, p *parts, model func() *network.View, recent *recentLines) *support {
	return &support{
		parts: p, model: model, config: shownConfig(cfg), removed: withoutSecrets(cfg), recent: recent, started: time.Now(),
	}
}

// supportAPI serves GET /planck/v1/support-bundle: a tar.gz that is sent while it is collected.
func supportAPI(mux *http.ServeMux, s *support) {
	mux.HandleFunc("GET /planck/v1/support-bundle", func(w http.ResponseWriter, r *http.Request) {
		hosts := r.URL.Query()["host"]
		for _, host := range hosts {
			if s.model().Host(host) == nil {
				northbound.WriteError(w, network.Errorf(network.NotFound, "HostNotFound", "host %q is not known", host))
				return
			}
		}
		w.Header().Set("Content-Type", "application/gzip")
		if err := s.write(r, w, hosts); err != nil {
			slog.Warn("a support bundle is not whole", "error", err)
			panic(http.ErrAbortHandler) // the client must not take it for one
		}
	})
}

// bundle is a tar.gz of files without secrets.
type bundle struct {
	tar     *tar.Writer
	removed *strings.Replacer
	at      time.Time
	lacks   []string // what could not be collected, and why
}

// add adds a file, cut where it is too large.
func (b *bundle) add(name string, text []byte) error {
	if len(text) > supportPart {
		b.lack("%s has %d bytes: only the first %d are here", name, len(text), supportPart)
		text = text[:supportPart]
	}
	text = []byte(b.removed.Replace(credentials.ReplaceAllString(string(text), "://"+removedSecret+"@")))
	if err := b.tar.WriteHeader(&tar.Header{Name: "planck-support/" + name, Mode: 0o600, Size: int64(len(text)), ModTime: b.at}); err != nil {
		return err
	}
	_, err := b.tar.Write(text)
	return err
}

func (b *bundle) lack(format string, args ...any) {
	b.lacks = append(b.lacks, fmt.Sprintf(format, args...))
}

// write collects the bundle that a request asks for, with the flows of hosts, of all
// when none are named, and what other members of the cluster say of themselves.
func (s *support) write(r *http.Request, w io.Writer, hosts []string) error {
	zip := gzip.NewWriter(w)
	b := &bundle{tar: tar.NewWriter(zip), removed: s.removed, at: time.Now()}
	for _, file := range []struct {
		name string
		text func() ([]byte, error)
	}{
		{"version.txt", s.version},
		{"configuration.ini", func() ([]byte, error) { return s.config, nil }},
		{"hosts.json", func() ([]byte, error) { return indented(allHosts(s.parts, r)) }},
		{"cluster.json", s.cluster},
		{"model.json", s.counts},
		{"changes.json", func() ([]byte, error) { return s.changes(r) }},
		{"metrics.txt", s.metrics},
		{"log.txt", func() ([]byte, error) { return s.recent.text(), nil }},
		{"goroutines.txt", goroutines},
	} {
		text, err := file.text()
		if err != nil {
			b.lack("%s: %s", file.name, err)
			continue
		}
		if text == nil {
			continue
		}
		if err := b.add(file.name, text); err != nil {
			return err
		}
	}
	if !isPeer(r) {
		if err := s.members(r, b); err != nil {
			return err
		}
		if err := s.switches(r.Context(), b, hosts); err != nil {
			return err
		}
	}
	if err := b.add("lacks.txt", []byte(strings.Join(append(b.lacks, ""), "\n"))); err != nil {
		return err
	}
	if err := b.tar.Close(); err != nil {
		return err
	}
	return zip.Close()
}

func indented(v any) ([]byte, error) { return json.MarshalIndent(v, "", "  ") }

// supportChanges is how many of the newest changes a bundle has.
const supportChanges = 100

func (s *support) changes(r *http.Request) ([]byte, error) {
	changes, err := s.parts.controller.Changes(r.Context(), controller.ChangesQuery{Most: supportChanges})
	if err != nil {
		return nil, err
	}
	return indented(changes)
}

func (s *support) version() ([]byte, error) {
	var text bytes.Buffer
	fmt.Fprintf(&text, "planck %s\n%s %s/%s, %d processors\nat %s, started %s\n", version, runtime.Version(), runtime.GOOS, runtime.GOARCH,
		runtime.NumCPU(), time.Now().UTC().Format(time.RFC3339), s.started.UTC().Format(time.RFC3339))
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, m := range info.Deps {
			fmt.Fprintf(&text, "%s %s\n", m.Path, m.Version)
		}
	}
	return text.Bytes(), nil
}

func (s *support) cluster() ([]byte, error) {
	if s.parts.cluster == nil {
		return nil, nil
	}
	return indented(viewCluster(s.parts))
}

// counts is how much there is of each kind; what tenants made is not in a bundle.
func (s *support) counts() ([]byte, error) {
	v := s.model()
	return indented(map[string]any{"revision": v.Revision(), "objects": v.Counts()})
}

func (s *support) metrics() ([]byte, error) {
	families, err := s.parts.registry.Gather()
	if err != nil {
		return nil, err
	}
	var text bytes.Buffer
	for _, f := range families {
		if _, err := expfmt.MetricFamilyToText(&text, f); err != nil {
			return nil, err
		}
	}
	return text.Bytes(), nil
}

func goroutines() ([]byte, error) {
	var text bytes.Buffer
	err := pprof.Lookup("goroutine").WriteTo(&text, 1)
	return text.Bytes(), err
}

// hostFiles is what was read of a host.
type hostFiles struct {
	host        string
	diff, flows []byte
	lacks       []string
}

// switches adds the flows and the differences of hosts. A switch that does not
// answer is left out.
func (s *support) switches(ctx context.Context, b *bundle, hosts []string) error {
	if len(hosts) == 0 {
		for _, h := range s.parts.controller.Hosts() {
			hosts = append(hosts, h.Name)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, supportTime)
	defer cancel()
	names, read := make(chan string), make(chan hostFiles)
	go func() {
		defer close(names)
		for _, name := range hosts {
			names <- name
		}
	}()
	var readers sync.WaitGroup
	for range supportReaders {
		readers.Go(func() {
			for name := range names {
				read <- s.readHost(ctx, name)
			}
		})
	}
	go func() {
		readers.Wait()
		close(read)
	}()
	var failed error
	for f := range read { // to its end, so that nobody waits for it
		b.lacks = append(b.lacks, f.lacks...)
		for _, file := range []struct {
			name string
			text []byte
		}{{"diff.json", f.diff}, {"flows.txt", f.flows}} {
			if file.text != nil && failed == nil {
				failed = b.add("hosts/"+strings.ReplaceAll(f.host, "/", "_")+"/"+file.name, file.text)
			}
		}
		if failed != nil {
			cancel()
		}
	}
	return failed
}

// readHost reads a host, unless it takes too long: what reads it then ends by itself.
func (s *support) readHost(ctx context.Context, host string) hostFiles {
	if ctx.Err() != nil {
		return hostFiles{host: host, lacks: []string{"host " + host + " is left out: there was no time"}}
	}
	if !s.parts.controller.Live(host) {
		return hostFiles{host: host, lacks: []string{"host " + host + " is not connected"}}
	}
	ctx, cancel := context.WithTimeout(ctx, supportHost)
	defer cancel()
	done := make(chan hostFiles, 1)
	go func() { done <- s.collectHost(ctx, host) }()
	select {
	case f := <-done:
		return f
	case <-ctx.Done():
		return hostFiles{host: host, lacks: []string{"host " + host + " does not answer"}}
	}
}

func (s *support) collectHost(ctx context.Context, host string) hostFiles {
	f := hostFiles{host: host}
	lack := func(what string, err error) {
		f.lacks = append(f.lacks, fmt.Sprintf("%s of host %s: %s", what, host, err))
	}
	diff, err := s.parts.controller.Diff(ctx, host, "", 0)
	if err == nil {
		f.diff, err = indented(diff)
	}
	if err != nil {
		lack("differences", err)
	}
	dump, err := s.parts.controller.Flows(ctx, controller.FlowQuery{Host: host})
	if err != nil {
		lack("flows", err)
		return f
	}
	for _, p := range dump.Problems {
		lack("flows", fmt.Errorf("%s: %s", p.Bridge, p.Problem))
	}
	var text bytes.Buffer
	if err := printFlows(&text, "wide", false, dump.Flows); err != nil {
		lack("flows", err)
	}
	f.flows = text.Bytes()
	return f
}

// recentLines keeps the end of the log, so that a bundle has it wherever else it goes.
type recentLines struct {
	mu   sync.Mutex
	ring []byte
	end  int  // where the next byte goes
	full bool // the ring was filled once
}

// maxRecent is how much of the log is kept, in bytes.
const maxRecent = 1 << 20

// Write implements io.Writer.
func (r *recentLines) Write(b []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ring == nil {
		r.ring = make([]byte, maxRecent)
	}
	rest := b[max(0, len(b)-len(r.ring)):]
	for len(rest) > 0 {
		n := copy(r.ring[r.end:], rest)
		rest = rest[n:]
		if r.end += n; r.end == len(r.ring) {
			r.end, r.full = 0, true
		}
	}
	return len(b), nil
}

// text is what is kept, from the beginning of a line.
func (r *recentLines) text() []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.full {
		return append([]byte{}, r.ring[:r.end]...)
	}
	text := append(bytes.Clone(r.ring[r.end:]), r.ring[:r.end]...)
	_, lines, _ := bytes.Cut(text, []byte("\n"))
	return lines
}
