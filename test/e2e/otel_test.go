package e2e

import (
	"compress/gzip"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"syscall"
	"testing"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/protobuf/proto"
)

// spans are what a collector of OpenTelemetry got, by trace.
type spans struct {
	mu      sync.Mutex
	byTrace map[string][]string // names
}

// ServeHTTP implements http.Handler: OTLP over HTTP.
func (s *spans) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body := io.Reader(r.Body)
	if r.Header.Get("Content-Encoding") == "gzip" {
		zip, err := gzip.NewReader(r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		body = zip
	}
	data, err := io.ReadAll(body)
	var request collector.ExportTraceServiceRequest
	if err == nil {
		err = proto.Unmarshal(data, &request)
	}
	if err != nil || r.URL.Path != "/v1/traces" {
		http.Error(w, fmt.Sprint(r.URL.Path, err), http.StatusBadRequest)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, resource := range request.ResourceSpans {
		for _, scope := range resource.ScopeSpans {
			for _, span := range scope.Spans {
				id := hex.EncodeToString(span.TraceId)
				s.byTrace[id] = append(s.byTrace[id], span.Name)
			}
		}
	}
	w.Header().Set("Content-Type", "application/x-protobuf")
}

func (s *spans) of(trace string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.byTrace[trace])
}

// A request is one trace: the API, the commit, the compilation, and each switch
// until its barrier.
func TestTracesLeadFromARequestToTheBarrier(t *testing.T) {
	t.Parallel()
	got := &spans{byTrace: map[string][]string{}}
	server := httptest.NewServer(got)
	defer server.Close()
	c := newCloud(t, 1, nil, "[openflow]\narp_responder = proactive\n[otel]\nendpoint = "+server.URL+"\n")
	c.hostsUp()
	id := c.network("blue", "10.0.0.0/24", nil)
	c.boot("web", "host1", id, nil)
	c.allLive()
	const trace = "4bf92f3577b34da6a3ce929d0e0e4736"
	status, out := c.call(http.MethodPost, "/v2.0/ports", object{"port": object{"network_id": id, "name": "db"}}, "traceparent", "00-"+trace+"-00f067aa0ba902b7-01")
	if status != http.StatusCreated {
		t.Fatalf("%d %v", status, out)
	}
	want := []string{"POST /v2.0/ports", "commit", "compile", "apply host1 br-int"}
	c.eventually("the trace is whole", func() error {
		names := got.of(trace)
		for _, name := range want {
			if !slices.Contains(names, name) {
				return fmt.Errorf("spans %q, want %q", names, want)
			}
		}
		return nil
	})

	// What waits is sent at the end; a collector that is gone holds nothing up.
	const last = "4bf92f3577b34da6a3ce929d0e0e4737"
	c.call(http.MethodGet, "/v2.0/networks", nil, "traceparent", "00-"+last+"-00f067aa0ba902b7-01")
	if code := c.kill(syscall.SIGTERM); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if names := got.of(last); !slices.Contains(names, "GET /v2.0/networks") {
		t.Errorf("the end did not send what waited: %q", names)
	}
	server.Close()
	c.start()
	c.create("port", object{"network_id": id})
	if code := c.kill(syscall.SIGTERM); code != 0 {
		t.Errorf("without a collector: exit code %d", code)
	}
}
