package pipeline

import (
	"fmt"
	"runtime/debug"
	"slices"

	"planck/flows"
	"planck/network"
)

// shard is the compiler of a part of the hosts: all of their units, what those
// read, and their targets. Shards share nothing, so that each has a processor.
type shard struct {
	graph
	index   int
	options Options
	targets map[Target]*target
	bridges []string // names of bridges, by the number that stands for one in kept flows

	dirty []*unit
	dead  []*unit
	out   Outcome
	why   *causes // of the batch at hand

	instructions flows.Interner
	scratch      []emitted
}

func newShard(index int, o Options) *shard {
	s := &shard{graph: newGraph(), index: index, options: o, targets: make(map[Target]*target)}
	s.takeOutcome()
	return s
}

// takeOutcome hands over what was done since.
func (s *shard) takeOutcome() Outcome {
	out := s.out
	s.out = Outcome{Dirty: make(map[Target]*flows.Dirty), Ports: make(map[string][]string)}
	return out
}

func (s *shard) idle() bool { return len(s.dirty)+len(s.dead) == 0 }

func (s *shard) markDirty(u *unit, why revisionSet) {
	if !u.dirty {
		u.dirty, u.why = true, 0
		s.dirty = append(s.dirty, u)
	}
	u.why |= why
}

// bury takes a unit out of the graph; its flows are removed by apply.
func (s *shard) bury(u *unit, why revisionSet) {
	s.leave(u)
	u.dirty, u.why = false, why
	if u.of.examples[s.index] == u {
		u.of.examples[s.index] = nil
	}
	s.dead = append(s.dead, u)
}

// apply removes what is wanted no more and compiles what is dirty.
func (s *shard) apply(v *network.View, why *causes) {
	s.why = &causes{revisions: why.revisions}
	for _, u := range s.dead {
		s.replace(u, output{})
	}
	for _, u := range s.dirty {
		if u.dirty {
			s.compile(v, u)
		}
	}
	for t := range s.out.Dirty {
		if s.targets[t].empty() {
			delete(s.targets, t)
		}
	}
	clear(s.dirty)
	clear(s.dead)
	s.dirty, s.dead = s.dirty[:0], s.dead[:0]
}

func (s *shard) compile(v *network.View, u *unit) {
	u.dirty = false
	now := output{flows: s.scratch[:0]}
	var err error
	s.record(u, v, func(v *network.View) { err = s.output(v, u, &now) })
	if err != nil {
		s.out.Errors = append(s.out.Errors, err)
		return
	}
	s.replace(u, now)
	u.of.examples[s.index] = u
	clear(now.flows)
	s.scratch = now.flows
}

// output is what a unit wants. A panic of a feature is an error, so that one
// object can't stop the flows of all others.
func (s *shard) output(v *network.View, u *unit, out *output) (err error) {
	o := u.of
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("compiling %s %s on host %s: %v\n%s", o.kind, o.id, u.host, r, debug.Stack())
		}
	}()
	host := v.Host(u.host)
	if host == nil {
		return nil
	}
	ctx := &Context{View: v, Host: host, Options: s.options, out: out, instructions: &s.instructions}
	switch o.kind {
	case network.KindPort:
		compilePort(ctx, o.id)
	case network.KindNetwork:
		compileNetwork(ctx, o.id)
	case network.KindRouter:
		compileRouter(ctx, o.id)
	case network.KindSecurityGroup:
		compileGroup(ctx, o.id)
	case network.KindFloatingIP:
		compileFloatingIP(ctx, o.id)
	default:
		compileHost(ctx)
	}
	return nil
}

// replace puts what a unit wants now in the place of what it wanted before.
func (s *shard) replace(u *unit, now output) {
	s.out.Units++
	if u.of.kind == network.KindPort {
		s.out.Ports[u.of.id] = append(s.out.Ports[u.of.id], u.host)
	}
	var example []keptFlow
	if e := u.of.examples[s.index]; e != nil {
		example = e.out.flows
	}
	w := writer{s: s, host: u.host, why: s.why.of(u.why)}
	u.out.flows = w.flows(u.out.flows, now.flows, example)
	w.others(u.out.others, now.others)
	u.out.others = now.others
}

// bridge is the number that stands for a bridge.
func (s *shard) bridge(name string) uint16 {
	i := slices.Index(s.bridges, name)
	if i < 0 {
		i = len(s.bridges)
		s.bridges = append(s.bridges, name)
	}
	return uint16(i)
}
