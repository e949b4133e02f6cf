package cluster

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	beats prometheus.Counter
	lost  prometheus.Counter
}

func newMetrics(registry prometheus.Registerer, c *Cluster) (*metrics, error) {
	m := &metrics{
		beats: prometheus.NewCounter(prometheus.CounterOpts{Name: "planck_cluster_beats_total", Help: "Signs of life of this member that reached the database."}),
		lost:  prometheus.NewCounter(prometheus.CounterOpts{Name: "planck_cluster_leases_lost_total", Help: "Leases of this member that were lost."}),
	}
	if registry == nil {
		return m, nil
	}
	gauges := []prometheus.Collector{
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "planck_cluster_generation", Help: "Generation of the set of members that own hosts."},
			func() float64 { generation, _ := c.Generation(); return float64(generation) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "planck_cluster_members_alive", Help: "Members that are alive, as far as this one knows."},
			func() float64 { return float64(c.Status().Alive()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "planck_cluster_beat_age_seconds", Help: "Time since the last sign of life of this member that reached the database."},
			func() float64 { return c.Status().BeatAge.Seconds() }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "planck_cluster_blind_hosts", Help: "Hosts whose switches this member should hear, and does not."},
			func() float64 {
				if v := c.sight.Load(); v != nil {
					return float64(len(v.blind))
				}
				return 0
			}),
	}
	for _, g := range append(gauges, m.beats, m.lost) {
		if err := registry.Register(g); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// Status is what this member knows of the cluster.
type Status struct {
	Member     string        `json:"member"` // who says this
	Generation uint64        `json:"generation"`
	Members    []Member      `json:"members"` // by name, the dead ones too
	BeatAge    time.Duration `json:"beat_age"`
	Problem    string        `json:"problem,omitempty"` // why this member has no lease
}

// Status tells about the cluster.
func (c *Cluster) Status() Status {
	s := Status{Member: c.opt.Name, Members: []Member{}}
	if v := c.view.Load(); v != nil {
		s.Generation, s.Members, s.BeatAge = v.Generation, v.Members, time.Since(v.at)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	s.Problem = c.problem
	return s
}

// Alive is how many members are alive.
func (s Status) Alive() (n int) {
	for _, m := range s.Members {
		if m.Alive {
			n++
		}
	}
	return n
}

// OwnerOf is the name of the member that owns a host, "" while none is known.
func (c *Cluster) OwnerOf(host string) string {
	v := c.view.Load()
	if v == nil {
		return ""
	}
	return v.owners.of(host).name
}
