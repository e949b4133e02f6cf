package controller

import (
	"fmt"

	"planck/flows"
	"planck/pipeline"
)

// dump is all that a switch has.
type dump struct {
	flows  []flows.FlowStats
	groups []flows.Group
	meters []flows.Meter
}

// dump reads flows, groups and meters.
func (s *session) dump() (*dump, error) {
	d := &dump{}
	meters, err := s.ask(flows.MultipartMeterConfig, decodeInto(&d.meters, flows.DecodeMeterConfig))
	if err != nil {
		return nil, err
	}
	groups, err := s.ask(flows.MultipartGroupDesc, decodeInto(&d.groups, flows.DecodeGroupDesc))
	if err != nil {
		return nil, err
	}
	table, err := s.askFlows(d)
	if err != nil {
		return nil, err
	}
	for _, x := range []*exchange{meters, groups, table} {
		if err := s.answered(x); err != nil {
			return nil, err
		}
	}
	return d, nil
}

// dumpFlows reads the flows alone.
func (s *session) dumpFlows() ([]flows.FlowStats, error) {
	d := &dump{}
	x, err := s.askFlows(d)
	if err != nil {
		return nil, err
	}
	return d.flows, s.answered(x)
}

func (s *session) askFlows(d *dump) (*exchange, error) {
	return s.ask(flows.MultipartFlow, decodeInto(&d.flows, flows.DecodeFlowStats))
}

func (s *session) answered(x *exchange) error {
	if err := s.wait(x); err != nil {
		return fmt.Errorf("reading the switch: %w", err)
	}
	if err := x.failed(); err != nil {
		return fmt.Errorf("reading the switch: %w", err)
	}
	return nil
}

// ask sends a multipart request. The parts of its reply go to decode.
func (s *session) ask(kind uint16, decode func([]byte) error) (*exchange, error) {
	size := 0
	x, err := s.xs.begin(1, func(body []byte) (final bool, err error) {
		if size += len(body); size > maxReply {
			return false, protocolErrorf("multipart reply of type %d is larger than %d bytes", kind, maxReply)
		}
		part, err := flows.DecodeMultipart(body)
		if err == nil && part.Type != kind {
			err = fmt.Errorf("its type is %d", part.Type)
		}
		if err == nil {
			err = decode(part.Body)
		}
		if err != nil {
			return false, protocolErrorf("reply to multipart request of type %d: %v", kind, err)
		}
		return !part.More, nil
	})
	if err != nil {
		return nil, err
	}
	return x, s.out.send(flows.AppendMultipartRequest(nil, x.first, kind))
}

func decodeInto[T any](list *[]T, decode func([]byte) ([]T, error)) func([]byte) error {
	return func(body []byte) error {
		part, err := decode(body)
		*list = append(*list, part...)
		return err
	}
}

// What FLOW_MODs are for.
const (
	modsDesired   = "desired"
	modsPermitted = "permitted"
	modsPuntDrop  = "punt-drop"
)

// sendFlow adds a flow outside a bundle and without waiting; it reports whether
// it was queued.
func (s *session) sendFlow(f *flows.Flow, kind string) bool {
	if !s.out.trySend(flows.AppendFlowMod(nil, xidUnmatched, flows.FlowAdd, f)) {
		return false
	}
	s.flowMods.Add(1)
	s.metrics.flowMods.WithLabelValues(kind).Inc()
	return true
}

// firstReservedMeter is where the numbers of meters with a special meaning begin (OFPM_MAX).
const firstReservedMeter = 0xffff0000

// read makes the mirror from what the switch has.
func (r *reconciler) read(cause string) error {
	r.ctl.metrics.dumps.WithLabelValues(cause).Inc()
	r.mu.Lock()
	clear(r.installed)
	r.mu.Unlock()
	d, err := r.session.dump()
	if err != nil {
		return err
	}
	now, held, foreign := sortOut(d, r.mapped())
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, f := range r.installed {
		now.AddFlow(f)
	}
	if cause == readAudit {
		r.noteDrift(now)
	}
	r.mirror, r.held, r.foreign = now, held, foreign
	if r.mapped() {
		r.ctl.metrics.foreign.WithLabelValues(r.target.name.Host, r.target.name.Bridge).Set(float64(foreign))
	}
	r.share()
	return nil
}

// sortOut leaves out what belongs to others: on a mapped bridge all flows without
// our cookie, and everywhere the meters with special numbers. held are the keys
// that those flows occupy; the one of standalone mode, which ours replaces, does not.
func sortOut(d *dump, mapped bool) (set *flows.Set, held map[flows.Key]struct{}, foreign int) {
	set, held = flows.NewSet(), map[flows.Key]struct{}{}
	for i := range d.flows {
		f := new(d.flows[i].Flow) // its own, so that the list can go
		if mapped && !pipeline.Cookie(f.Cookie).Ours() {
			foreign++
			if *f != standaloneFlow {
				held[f.Key()] = struct{}{}
			}
			continue
		}
		set.AddFlow(f)
	}
	for i := range d.groups {
		set.AddGroup(&d.groups[i])
	}
	for i := range d.meters {
		if d.meters[i].ID < firstReservedMeter {
			set.AddMeter(&d.meters[i])
		}
	}
	return set, held, foreign
}

// share makes the mirror use the desired flows where it has equal ones, so that
// they are in memory once. On a mapped bridge it also forgets the groups and
// meters that are not desired: they carry no mark that tells whose they are.
func (r *reconciler) share() {
	r.ctl.opt.Compiler.Read(r.target.name, func(s pipeline.State) {
		for key, want := range s.Desired.Flows {
			if have := r.mirror.Flows[key]; have != nil && *have == *want {
				r.mirror.Flows[key] = want
			}
		}
		if !r.mapped() {
			return
		}
		onlyIn(r.mirror.Groups, s.Desired.Groups)
		onlyIn(r.mirror.Meters, s.Desired.Meters)
	})
}

func onlyIn[V any](m, wanted map[uint32]V) {
	for id := range m {
		if _, ok := wanted[id]; !ok {
			delete(m, id)
		}
	}
}

// Kinds of drift.
const (
	driftMissing    = "missing"
	driftChanged    = "changed"
	driftUnexpected = "unexpected"
)

// noteDrift counts what differs from the mirror though we did not change it.
func (r *reconciler) noteDrift(now *flows.Set) {
	drift := make(map[string]int)
	compareMaps(r.mirror.Flows, now.Flows, volatileFlow, drift)
	compareMaps(r.mirror.Groups, now.Groups, nil, drift)
	compareMaps(r.mirror.Meters, now.Meters, nil, drift)
	for kind, n := range drift {
		r.ctl.metrics.drift.WithLabelValues(kind).Add(float64(n))
	}
	if len(drift) > 0 {
		r.log.Warn("switch was changed behind the controller's back", driftMissing, drift[driftMissing],
			driftChanged, drift[driftChanged], driftUnexpected, drift[driftUnexpected])
	}
}

// volatileFlow reports whether a flow may come and go without being drift.
func volatileFlow(f *flows.Flow) bool {
	c := pipeline.Cookie(f.Cookie)
	return c.Ours() && (c.Flags()&(pipeline.FlagPermitted|pipeline.FlagPuntDrop) != 0 || pipeline.IsCanary(f))
}

func compareMaps[K, V comparable](before, now map[K]*V, ignore func(*V) bool, drift map[string]int) {
	skip := func(v *V) bool { return ignore != nil && ignore(v) }
	for k, b := range before {
		n := now[k]
		switch {
		case skip(b):
		case n == nil:
			drift[driftMissing]++
		case *n != *b:
			drift[driftChanged]++
		}
	}
	for k, n := range now {
		if before[k] == nil && !skip(n) {
			drift[driftUnexpected]++
		}
	}
}
