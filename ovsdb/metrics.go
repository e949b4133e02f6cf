package ovsdb

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	connections  prometheus.Gauge
	accepted     prometheus.Counter
	refused      *prometheus.CounterVec // by reason
	transactions *prometheus.CounterVec // by result
	writes       *prometheus.CounterVec // by result
	takeovers    prometheus.Counter
}

// Reasons for which a connection is refused.
const (
	reasonGarbage  = "garbage"
	reasonSilent   = "silent"
	reasonSchema   = "schema"
	reasonIdentity = "identity"
)

func newMetrics(registry prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		connections:  prometheus.NewGauge(prometheus.GaugeOpts{Name: "planck_ovsdb_connections", Help: "OVSDB connections of hosts that are open."}),
		accepted:     prometheus.NewCounter(prometheus.CounterOpts{Name: "planck_ovsdb_accepted_total", Help: "Connections accepted on the OVSDB port."}),
		refused:      prometheus.NewCounterVec(prometheus.CounterOpts{Name: "planck_ovsdb_refused_total", Help: "OVSDB connections refused, by reason."}, []string{"reason"}),
		transactions: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "planck_ovsdb_transactions_total", Help: "Transactions sent to the databases of hosts, by result."}, []string{"result"}),
		writes:       prometheus.NewCounterVec(prometheus.CounterOpts{Name: "planck_ovsdb_fact_writes_total", Help: "Writes of host facts into the store, by result."}, []string{"result"}),
		takeovers:    prometheus.NewCounter(prometheus.CounterOpts{Name: "planck_ovsdb_takeovers_total", Help: "Mapped bridges with forwarding of their own that came under control."}),
	}
	// An increase from nothing is none: an operator is told of each of these.
	for _, reason := range []string{reasonGarbage, reasonSilent, reasonSchema, reasonIdentity} {
		m.refused.WithLabelValues(reason)
	}
	if registry == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.connections, m.accepted, m.refused, m.transactions, m.writes, m.takeovers} {
		if err := registry.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}
