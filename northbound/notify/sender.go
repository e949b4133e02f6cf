package notify

import (
	"context"
	"encoding/json"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"planck/network"
)

const (
	// batch is how many notifications are sent at once.
	batch = 200
	// An outage is tried again after firstWait, then twice as long each time.
	firstWait   = 250 * time.Millisecond
	longestWait = 10 * time.Second
)

// driver delivers notifications. All have arrived when it returns nil.
type driver interface {
	deliver(ctx context.Context, list []network.Queued) error
	close()
}

// Sender delivers the notifications of one driver's queue.
type Sender struct {
	name   string
	box    *network.Outbox
	driver driver
	log    *slog.Logger
	sent   prometheus.Counter
	// failing is 1 while they can't be delivered.
	failing prometheus.Gauge
	outage  int
}

// NewSenders makes a sender for each driver; Run them.
func NewSenders(store *network.Store, o *Options, log *slog.Logger, registry prometheus.Registerer) ([]*Sender, error) {
	sent := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "planck_notifications_total",
		Help: "Notifications that were delivered, by driver."}, []string{"driver"})
	failing := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "planck_notifications_failing",
		Help: "1 while notifications can't be delivered, and wait in the database, by driver."}, []string{"driver"})
	registry.MustRegister(sent, failing)
	var list []*Sender
	add := func(name string, d driver) {
		list = append(list, &Sender{name: name, box: store.Outbox(queueOf(name)), driver: d, log: log, sent: sent.WithLabelValues(name), failing: failing.WithLabelValues(name)})
	}
	if o.has(Log) {
		add(Log, logDriver{log})
	}
	if o.has(Messaging) {
		d, err := newRabbitDriver(o, log)
		if err != nil {
			return nil, err
		}
		add(Messaging, d)
	}
	return list, nil
}

// Run sends until ctx ends.
func (s *Sender) Run(ctx context.Context) error {
	defer s.box.Close()
	defer s.driver.close()
	for ctx.Err() == nil {
		list, err := s.box.Read(ctx, network.MessageID{}, batch)
		if err == nil && len(list) > 0 {
			err = s.send(ctx, list)
		}
		switch {
		case ctx.Err() != nil:
		case err != nil:
			s.fail(ctx, err)
		case len(list) == 0:
			s.box.Wait(ctx, time.Hour)
		default:
			s.outage = 0
			s.failing.Set(0)
		}
	}
	return nil
}

func (s *Sender) send(ctx context.Context, list []network.Queued) error {
	if err := s.driver.deliver(ctx, list); err != nil {
		return err
	}
	if s.outage > 0 {
		s.log.Info("notifications are sent again", "driver", s.name, "tries", s.outage+1)
	}
	s.sent.Add(float64(len(list)))
	ids := make([]network.MessageID, len(list))
	for i, m := range list {
		ids[i] = m.ID
	}
	// They have arrived, whether ctx has ended meanwhile or not.
	return s.box.Remove(context.WithoutCancel(ctx), ids)
}

func (s *Sender) fail(ctx context.Context, err error) {
	if s.outage == 0 {
		s.log.Warn("notifications can't be sent, trying again", "driver", s.name, "error", err)
	}
	s.failing.Set(1)
	wait := min(longestWait, firstWait<<min(s.outage, 16))
	s.outage++
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// logDriver writes notifications into the log.
type logDriver struct{ log *slog.Logger }

func (d logDriver) deliver(_ context.Context, list []network.Queued) error {
	for _, m := range list {
		var n struct {
			EventType string          `json:"event_type"`
			MessageID string          `json:"message_id"`
			Publisher string          `json:"publisher_id"`
			Priority  string          `json:"priority"`
			RequestID string          `json:"_context_request_id"`
			Payload   json.RawMessage `json:"payload"`
		}
		if err := json.Unmarshal(m.Body, &n); err != nil {
			d.log.Error("a notification can't be read", "error", err)
			continue
		}
		level := slog.LevelInfo
		switch n.Priority {
		case "DEBUG":
			level = slog.LevelDebug
		case "WARN":
			level = slog.LevelWarn
		case "ERROR", "CRITICAL":
			level = slog.LevelError
		}
		d.log.Log(context.Background(), level, "notification", "event_type", n.EventType, "message_id", n.MessageID,
			"publisher_id", n.Publisher, "request_id", n.RequestID, "payload", string(n.Payload))
	}
	return nil
}

func (logDriver) close() {}
