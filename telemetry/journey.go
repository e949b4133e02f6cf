package telemetry

import (
	"context"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"
)

const (
	// maxRequests is how many revisions are remembered with their requests, and
	// maxSteps how many steps for requests that have not said their revision yet:
	// a change may be compiled before its caller goes on.
	maxRequests = 1024
	maxSteps    = 256
)

// journey knows which request made which revision, and what became of revisions lately.
type journey struct {
	mu       sync.Mutex
	requests map[uint64][]trace.SpanContext
	order    []uint64 // revisions, the oldest first
	steps    []step   // the oldest first
}

// step is something that was done for the revisions after from, up to to.
type step struct {
	from, to     uint64
	name         string
	began, ended time.Time
	attributes   []attribute.KeyValue
}

// Committed tells that a request's change is in the store.
func (t *Tracer) Committed(ctx context.Context, operation string, revision uint64, began time.Time) {
	parent := trace.SpanContextFromContext(ctx)
	if t == nil || !parent.IsSampled() {
		return
	}
	_, span := t.tracer.Start(ctx, "commit", trace.WithTimestamp(began), trace.WithAttributes(
		attribute.String("operation", operation), attribute.Int64("revision", int64(revision)),
	))
	span.End()
	t.journey.mu.Lock()
	defer t.journey.mu.Unlock()
	for _, s := range t.journey.add(revision, parent) {
		t.emit(parent, s)
	}
}

// Compiled tells that the flows for the revisions after from, up to to, are there.
func (t *Tracer) Compiled(from, to uint64, began time.Time, units int) {
	t.take(step{from, to, "compile", began, time.Now(), []attribute.KeyValue{
		attribute.Int64("revision", int64(to)), attribute.Int("units", units),
	}})
}

// Applied tells that a switch has acknowledged, by a barrier, what changed after
// from, up to to.
func (t *Tracer) Applied(host, bridge string, from, to uint64, began time.Time, messages int) {
	t.take(step{from, to, "apply " + host + " " + bridge, began, time.Now(), []attribute.KeyValue{
		attribute.String("host", host), attribute.String("bridge", bridge), attribute.Int64("revision", int64(to)), attribute.Int("messages", messages),
	}})
}

// take makes spans of a step, in the traces of all requests that it was for.
func (t *Tracer) take(s step) {
	if t == nil {
		return
	}
	t.journey.mu.Lock()
	defer t.journey.mu.Unlock()
	if len(t.journey.steps) >= maxSteps {
		t.journey.steps = append(t.journey.steps[:0], t.journey.steps[maxSteps/2:]...)
	}
	t.journey.steps = append(t.journey.steps, s)
	for i := len(t.journey.order) - 1; i >= 0; i-- {
		if revision := t.journey.order[i]; revision > s.from && revision <= s.to {
			for _, parent := range t.journey.requests[revision] {
				t.emit(parent, s)
			}
		}
	}
}

func (t *Tracer) emit(parent trace.SpanContext, s step) {
	ctx := trace.ContextWithSpanContext(context.Background(), parent)
	_, span := t.tracer.Start(ctx, s.name, trace.WithTimestamp(s.began), trace.WithAttributes(s.attributes...))
	span.End(trace.WithTimestamp(s.ended))
}

// add remembers the request of a revision, and returns the steps that were done for it.
func (j *journey) add(revision uint64, parent trace.SpanContext) (done []step) {
	if j.requests == nil {
		j.requests = map[uint64][]trace.SpanContext{}
	}
	if j.requests[revision] == nil {
		j.order = append(j.order, revision)
	}
	j.requests[revision] = append(j.requests[revision], parent)
	if len(j.order) > maxRequests {
		delete(j.requests, j.order[0])
		j.order = j.order[1:]
	}
	for _, s := range j.steps {
		if revision > s.from && revision <= s.to {
			done = append(done, s)
		}
	}
	return done
}
