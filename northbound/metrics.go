package northbound

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"planck/network"
)

// apiMetrics counts the calls of the API.
type apiMetrics struct {
	requests *prometheus.CounterVec
	latency  *prometheus.HistogramVec
}

func newAPIMetrics(registry prometheus.Registerer, store *network.Store) (*apiMetrics, error) {
	m := &apiMetrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "planck_api_requests_total",
			Help: "Requests to the API, by collection, method and status code.",
		}, []string{"resource", "method", "code"}),
		latency: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "planck_api_request_duration_seconds",
			Help:    "Time from the request to the end of the answer.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 15),
		}, []string{"resource", "method"}),
	}
	statements := prometheus.NewCounterFunc(prometheus.CounterOpts{
		Name: "planck_database_statements_total",
		Help: "Statements sent to the database; reading through the API sends none.",
	}, func() float64 { return float64(store.Statements()) })
	for _, c := range []prometheus.Collector{m.requests, m.latency, statements} {
		if err := registry.Register(c); err != nil {
			return nil, fmt.Errorf("metrics of the API: %w", err)
		}
	}
	return m, nil
}

var knownMethods = []string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodDelete}

// observe counts one request. A method is a label only if it is one of ours,
// since a client can make up any.
func (m *apiMetrics) observe(resource, method string, status int, took time.Duration) {
	if !slices.Contains(knownMethods, method) {
		method = "other"
	}
	m.requests.WithLabelValues(resource, method, strconv.Itoa(status)).Inc()
	m.latency.WithLabelValues(resource, method).Observe(took.Seconds())
}
