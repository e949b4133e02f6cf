package controller

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are what the controller tells Prometheus.
type metrics struct {
	connections   prometheus.Gauge       // open, also those that have not said who they are
	sessions      prometheus.Gauge       // of known bridges, in use
	closed        *prometheus.CounterVec // by reason
	flowMods      *prometheus.CounterVec // by what they were for
	groupMods     prometheus.Counter
	meterMods     prometheus.Counter
	refused       prometheus.Counter
	bundles       prometheus.Histogram
	bundleUnknown prometheus.Counter
	dumps         *prometheus.CounterVec // by cause
	drift         *prometheus.CounterVec // by kind
	foreign       *prometheus.GaugeVec   // by host, bridge
	packetIns     *prometheus.CounterVec // by feature, outcome
	apply         prometheus.Histogram
	units         prometheus.Counter
	conflicts     prometheus.Gauge
	revision      prometheus.Gauge
	statusPending prometheus.Gauge
	statusWrites  *prometheus.CounterVec // by status

	proofs       *prometheus.CounterVec // by outcome
	proofSeconds prometheus.Histogram
	pings        *prometheus.CounterVec // by outcome
	pingSeconds  prometheus.Histogram

	failovers       prometheus.Counter
	announcements   prometheus.Counter
	neighbors       *prometheus.GaugeVec // by state
	neighborProbes  prometheus.Counter
	neighborAnswers *prometheus.CounterVec // by outcome
	holderQuestions prometheus.Counter
	holderMoves     prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
	}
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	counters := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	seconds := func(name, help string) prometheus.Histogram {
		return prometheus.NewHistogram(prometheus.HistogramOpts{Name: name, Help: help, Buckets: prometheus.ExponentialBuckets(0.0001, 4, 10)})
	}
	m := &metrics{
		connections:   gauge("planck_openflow_connections", "Open OpenFlow connections."),
		sessions:      gauge("planck_openflow_sessions", "Connected bridges that the controller programs."),
		closed:        counters("planck_openflow_closed_total", "OpenFlow connections that ended, by reason.", "reason"),
		flowMods:      counters("planck_flow_mods_total", "FLOW_MOD messages sent, by what they were for.", "kind"),
		groupMods:     counter("planck_group_mods_total", "GROUP_MOD messages sent."),
		meterMods:     counter("planck_meter_mods_total", "METER_MOD messages sent."),
		refused:       counter("planck_refused_flows_total", "Flows, groups and meters that a switch refused."),
		bundles:       seconds("planck_bundle_seconds", "Time from the first message of a bundle to the barrier after its commit."),
		bundleUnknown: counter("planck_bundle_unknown_total", "Bundles whose fate was not known, after which the switch was read again."),
		dumps:         counters("planck_switch_reads_total", "Whole reads of a switch, by cause.", "cause"),
		drift:         counters("planck_drift_total", "Flows, groups and meters that were changed behind the controller's back, by kind.", "kind"),
		foreign:       prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "planck_foreign_flows", Help: "Flows of others on mapped bridges at the last read."}, []string{"host", "bridge"}),
		packetIns:     counters("planck_packet_ins_total", "Packet-ins, by feature and outcome.", "feature", "outcome"),
		apply:         seconds("planck_compile_seconds", "Time to compile the changes of one batch."),
		units:         counter("planck_compiled_units_total", "Units compiled."),
		conflicts:     gauge("planck_compile_conflicts", "Flow keys that two units claim with different content, at the last compilation."),
		revision:      gauge("planck_compiled_revision", "Revision of the model that the flows were compiled from."),
		statusPending: gauge("planck_status_pending_ports", "Ports whose status waits for hosts."),
		statusWrites:  counters("planck_status_writes_total", "Changes of port status, by new status.", "status"),
	}
	m.neighbors = prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "planck_external_neighbors", Help: "Neighbors on external networks that are asked for, by whether they answer."}, []string{"state"})
	m.failovers = counter("planck_gateway_hosts_down_total", "How often a host that may carry gateways was found dead or cut off.")
	m.announcements = counter("planck_announcements_total", "Gratuitous ARP packets for addresses on external networks.")
	m.neighborProbes = counter("planck_external_neighbor_probes_total", "Questions about neighbors on external networks.")
	m.neighborAnswers = counters("planck_external_neighbor_answers_total", "Answers about neighbors on external networks, by whether the MAC was known.", "outcome")
	m.proofs = counters("planck_verify_total", "Runs of planck verify, by outcome.", "outcome")
	m.proofSeconds = seconds("planck_verify_seconds", "How long planck verify took, without those that failed.")
	m.pings = counters("planck_ping_total", "Runs of planck ping, by what became of the packets.", "outcome")
	m.pingSeconds = seconds("planck_ping_seconds", "How long planck ping took, without those that failed.")
	// Counters that an operator may be told of are there before they count: an
	// increase from nothing is none.
	for _, kind := range []string{driftMissing, driftChanged, driftUnexpected} {
		m.drift.WithLabelValues(kind)
	}
	for _, outcome := range []string{Proven, Assumed, Refuted, Open, outcomeFailed} {
		m.proofs.WithLabelValues(outcome)
	}
	for _, kind := range []string{modsDesired, modsPermitted, modsPuntDrop} {
		m.flowMods.WithLabelValues(kind)
	}
	m.holderQuestions = counter("planck_address_questions_total", "Questions about who holds an address that moves between ports.")
	m.holderMoves = counter("planck_address_moves_total", "How often an address that moves between ports got another holder, or its first.")
	if reg != nil {
		reg.MustRegister(m.holderQuestions, m.holderMoves)
		reg.MustRegister(m.proofs, m.proofSeconds, m.pings, m.pingSeconds)
		reg.MustRegister(m.failovers, m.announcements, m.neighbors, m.neighborProbes, m.neighborAnswers)
		reg.MustRegister(m.connections, m.sessions, m.closed, m.flowMods, m.groupMods, m.meterMods, m.refused,
			m.bundles, m.bundleUnknown, m.dumps, m.drift, m.foreign, m.packetIns, m.apply, m.units, m.conflicts,
			m.revision, m.statusPending, m.statusWrites)
	}
	return m
}

// outcomeFailed is that of a proof or a ping that could not be made.
const outcomeFailed = "failed"

// count counts what an operator asked for, and how long it took where it could be done.
func count(runs *prometheus.CounterVec, took prometheus.Histogram, begun time.Time, outcome string, err error) {
	if err != nil {
		runs.WithLabelValues(outcomeFailed).Inc()
		return
	}
	runs.WithLabelValues(outcome).Inc()
	took.Observe(time.Since(begun).Seconds())
}

// countHosts tells how many hosts there are, and how many of them are away.
func (c *Controller) countHosts(reg prometheus.Registerer) {
	if reg == nil {
		return
	}
	hosts := func(counts func(name string) bool) func() float64 {
		return func() (n float64) {
			view := c.view.Load()
			if view == nil {
				return 0
			}
			for h := range view.Hosts() {
				if counts(h.Name) {
					n++
				}
			}
			return n
		}
	}
	reg.MustRegister(
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "planck_hosts", Help: "Hosts that have joined and are not forgotten."}, hosts(func(string) bool { return true })),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "planck_hosts_away", Help: "Hosts whose br-int is not connected by OpenFlow."}, hosts(func(name string) bool { return !c.hostLive(name) })),
	)
}

// watchJournal tells how much of what was sent the journal no longer has.
func watchJournal(reg prometheus.Registerer, j *journal) {
	if reg == nil {
		return
	}
	reg.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{
		Name: "planck_journal_lost_total", Help: "Changes of flows, groups and meters that planck changes no longer has.",
	}, j.forgotten))
}
