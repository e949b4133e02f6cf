package controller

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"planck/flows"
	"planck/pipeline"
)

const (
	// puntQueue is how many packet-ins of a switch may wait for a worker.
	puntQueue = 1024
	// puntWorkers is how many packets of one switch are answered at once.
	puntWorkers = 2
)

// Outcomes of packet-ins that the dispatcher itself decides.
const (
	outcomeAnswered = "answered"
	outcomeLater    = "later"    // the responder answers by itself
	outcomeIgnored  = "ignored"  // the responder had nothing to send
	outcomeError    = "error"    // the responder failed
	outcomeLimited  = "limited"  // the port is over its rate
	outcomeOverload = "overload" // the queue of packet-ins or of answers was full
	outcomeUnknown  = "unknown"  // no responder for the flow that sent it up
	outcomeBroken   = "broken"   // the message could not be decoded
)

// dispatcher hands the packet-ins of one switch to the responders.
type dispatcher struct {
	r      *reconciler
	ctx    context.Context // of being master: its end is the end of the workers
	log    *slog.Logger
	limits *limits
	header flows.PacketIn // used by the reader
	beside atomic.Bool    // the switch may have another master still

	queue chan *punt
	start sync.Once
}

// punt is a packet-in on its way to a worker.
type punt struct {
	in   PacketIn
	data []byte
}

var puntPool = sync.Pool{New: func() any { return new(punt) }}

func newDispatcher(ctx context.Context, r *reconciler) *dispatcher {
	return &dispatcher{
		r: r, ctx: ctx, log: r.log, limits: newLimits(r.ctl.opt.PuntRatePerPort), queue: make(chan *punt, puntQueue),
	}
}

// take decodes a packet-in and queues it. It runs in the reader and never blocks.
func (d *dispatcher) take(body []byte) {
	h := &d.header
	if err := flows.DecodePacketIn(body, h); err != nil {
		d.count(0, outcomeBroken)
		return
	}
	cookie := pipeline.Cookie(h.Cookie)
	if !cookie.Ours() || d.r.ctl.responders[cookie.Feature()] == nil {
		d.count(0, outcomeUnknown)
		return
	}
	if d.leaves(cookie.Feature()) {
		d.count(cookie.Feature(), outcomeIgnored)
		return
	}
	from := senderOf(h, cookie.Feature())
	ok, silence := d.limits.allow(from, time.Now())
	if silence && !d.beside.Load() {
		d.r.silence(from.feature, from.port)
	}
	if !ok {
		d.count(from.feature, outcomeLimited)
		return
	}
	d.enqueue(h, cookie)
}

// senderOf is whose bucket a packet-in is taken from. Packets that came by a
// router's transit segment are those of many ports: they share one for each next hop.
func senderOf(h *flows.PacketIn, feature pipeline.FeatureID) sender {
	from := sender{feature: feature, table: h.Table, fromVIF: true, port: h.Regs[regSourcePort]}
	if from.port != 0 {
		return from
	}
	from.fromVIF, from.port = false, h.InPort
	if feature == pipeline.FeatureNeighbor && h.Table == pipeline.Snat.ID {
		from.hop = hopOf(h.Data, &h.Regs)
	}
	return from
}

func (d *dispatcher) enqueue(h *flows.PacketIn, cookie pipeline.Cookie) {
	d.start.Do(d.startWorkers)
	p := puntPool.Get().(*punt)
	p.data = append(p.data[:0], h.Data...)
	p.in = PacketIn{
		Host: d.r.target.name.Host, Bridge: d.r.target.name.Bridge,
		InPort: h.InPort, Table: h.Table, Metadata: h.Metadata, Regs: h.Regs, TunnelID: h.TunnelID,
		Cookie: cookie, Data: p.data, Switch: d.r.session,
	}
	select {
	case d.queue <- p:
	default:
		puntPool.Put(p)
		d.count(cookie.Feature(), outcomeOverload)
	}
}

func (d *dispatcher) startWorkers() {
	for range puntWorkers {
		d.r.session.workers.Go(func() {
			// A responder that panics ends the session, not the controller.
			if err := guarded(d.work); err != nil {
				d.r.session.end(err)
			}
		})
	}
}

func (d *dispatcher) work() error {
	w := worker{dispatcher: d}
	for {
		select {
		case <-d.ctx.Done():
			return nil
		case p := <-d.queue:
			w.answer(p)
			w.answerWaiting()
			w.send()
		}
	}
}

// answersTogether is how many packets are answered by one message at the most:
// waking the writer and the switch for each would cost more than the answer.
const answersTogether = 64

// worker answers packets. What it has to say about those that wait is sent at once.
type worker struct {
	*dispatcher
	replies  Replies // to the packet at hand
	message  []byte
	answered []pipeline.FeatureID // of the packets whose answers are in message
	installs []flows.Key
}

func (w *worker) answerWaiting() {
	for range answersTogether - 1 {
		select {
		case p := <-w.queue:
			w.answer(p)
		default:
			return
		}
	}
}

// answer lets the responder answer one packet and notes what it wants sent.
func (w *worker) answer(p *punt) {
	defer puntPool.Put(p)
	p.in.View = w.r.ctl.view.Load()
	feature, replies := p.in.Cookie.Feature(), &w.replies
	replies.reset()
	err := w.r.ctl.responders[feature].Respond(w.ctx, &p.in, replies)
	p.in.View = nil
	if err != nil {
		w.log.Debug("packet-in is not answered", "feature", pipeline.FeatureName(feature), "error", err)
		w.count(feature, outcomeError)
		return
	}
	for out := range replies.PacketOuts() {
		w.message = flows.AppendPacketOut(w.message, xidUnmatched, out.InPort, out.Actions, out.Data)
	}
	w.installs = append(w.installs, replies.installs...)
	switch {
	case replies.dropped != "":
		w.count(feature, replies.dropped)
	case len(replies.outs) == 0:
		w.count(feature, outcomeIgnored)
	default:
		w.answered = append(w.answered, feature)
	}
}

// send sends the answers, then the flows that make further ones needless.
func (w *worker) send() {
	outcome := outcomeAnswered
	if len(w.message) > 0 && !w.r.session.out.trySend(w.message) {
		outcome = outcomeOverload
	}
	for _, feature := range w.answered {
		w.count(feature, outcome)
	}
	for _, key := range w.installs {
		if !w.beside.Load() {
			w.r.install(key)
		}
	}
	w.message, w.answered, w.installs = w.message[:0], w.answered[:0], w.installs[:0]
}

func (d *dispatcher) count(feature pipeline.FeatureID, outcome string) {
	name := "none"
	if feature != 0 {
		name = pipeline.FeatureName(feature)
	}
	d.r.ctl.metrics.packetIns.WithLabelValues(name, outcome).Inc()
}
