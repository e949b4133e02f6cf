package pipeline

import (
	"cmp"
	"fmt"
	"iter"
	"maps"
	"runtime/debug"
	"slices"
	"sync"

	"planck/flows"
	"planck/network"
)

// Target is one bridge of one host.
type Target struct{ Host, Bridge string }

// State is what is wanted of a target at a revision. It is valid only while
// the function that Read calls runs.
type State struct {
	Revision  uint64
	Desired   *flows.Set
	Permitted *flows.Set // only Flows is used
}

// Outcome tells what a batch of changes led to.
type Outcome struct {
	Revision uint64
	// Dirty has, for each target, the keys whose desired or permitted state may have changed.
	Dirty map[Target]*flows.Dirty
	// Units is how many units were compiled or removed.
	Units int
	// Ports has the ports whose flows were compiled again, each with the hosts concerned.
	Ports map[string][]string
	// Errors are mistakes of features: a key that is wanted with different
	// actions (the flow that was there first stays), or a panic (the unit keeps
	// what it had).
	Errors []error
}

// unitKey names a unit: what one object needs on one host.
type unitKey struct {
	kind network.Kind // of the object
	id   string       // of the object
	host string
}

// unit is compiled as a whole. What it read last time are its dependencies.
type unit struct {
	key   unitKey
	reads []edge
	out   output
	dirty bool
}

// origin is an object of which units are made: it finds the hosts that need one.
type origin struct {
	kind  network.Kind
	id    string
	reads []edge
	units map[string]*unit // by host
	dirty bool
}

// reader is a unit or an origin: something that is looked at again when what it
// read is touched.
type reader interface {
	edges() *[]edge
	markDirty(c *Compiler)
}

// dependency is a Dep with everybody who read it.
type dependency struct {
	dep     network.Dep
	readers []readerSlot
	lastRun uint64 // the recording that noted it last
}

// readerSlot and edge point at each other, so that both ends are removed in
// constant time.
type readerSlot struct {
	reader reader
	edge   int // index in the reader's edges
}

type edge struct {
	to   *dependency
	slot int // index in to.readers
}

func (u *unit) edges() *[]edge   { return &u.reads }
func (o *origin) edges() *[]edge { return &o.reads }

func (u *unit) markDirty(c *Compiler) {
	if !u.dirty {
		u.dirty = true
		c.dirtyUnits = append(c.dirtyUnits, u)
	}
}

func (o *origin) markDirty(c *Compiler) {
	if !o.dirty {
		o.dirty = true
		c.dirtyOrigins = append(c.dirtyOrigins, o)
	}
}

// Compiler keeps the desired flows of every bridge of every host, compiling
// again only what a change touches. Apply must be called by one goroutine at a
// time; Read may be called by any.
type Compiler struct {
	options Options

	mu       sync.Mutex
	revision uint64
	targets  map[Target]*target
	deps     map[network.Dep]*dependency
	origins  map[network.Kind]map[string]*origin

	runs         uint64 // recordings made so far
	dirtyUnits   []*unit
	dirtyOrigins []*origin
	dead         []*unit
}

// NewCompiler returns a compiler that knows nothing yet: its first Apply is the
// first batch of a follower.
func NewCompiler(o Options) *Compiler {
	return &Compiler{
		options: o,
		targets: make(map[Target]*target),
		deps:    make(map[network.Dep]*dependency),
		origins: map[network.Kind]map[string]*origin{
			network.KindPort: {}, network.KindNetwork: {}, network.KindHost: {}, network.KindRouter: {}, network.KindFloatingIP: {},
			network.KindSecurityGroup: {},
		},
	}
}

// Read calls fn with the wanted state of a target, which must not be kept or
// changed. A target that is not known has empty sets.
func (c *Compiler) Read(t Target, fn func(State)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	tg, ok := c.targets[t]
	if !ok {
		tg = newTarget()
	}
	fn(State{Revision: c.revision, Desired: tg.desired.set, Permitted: tg.permitted.set})
}

// Targets are the bridges for which there are flows, sorted.
func (c *Compiler) Targets() iter.Seq[Target] {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Values(slices.SortedFunc(maps.Keys(c.targets), func(a, b Target) int {
		if a.Host != b.Host {
			return cmp.Compare(a.Host, b.Host)
		}
		return cmp.Compare(a.Bridge, b.Bridge)
	}))
}

// Revision is the revision of the model that the flows are made of.
func (c *Compiler) Revision() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.revision
}

// Apply brings the wanted flows to the revision of the batch.
func (c *Compiler) Apply(b network.Batch) Outcome {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := Outcome{Revision: b.View.Revision(), Dirty: make(map[Target]*flows.Dirty), Ports: make(map[string][]string)}
	c.noteObjects(b)
	b.Touched(func(d network.Dep) {
		if dep, ok := c.deps[d]; ok {
			for _, r := range dep.readers {
				r.reader.markDirty(c)
			}
		}
	})
	c.enumerate(b.View)
	for _, u := range c.dead {
		c.replace(u, output{}, &out)
	}
	for _, u := range c.dirtyUnits {
		if u.dirty {
			c.compile(b.View, u, &out)
		}
	}
	for t := range out.Dirty {
		if c.targets[t].empty() {
			delete(c.targets, t)
		}
	}
	c.dirtyUnits, c.dirtyOrigins, c.dead = c.dirtyUnits[:0], c.dirtyOrigins[:0], c.dead[:0]
	c.revision = out.Revision
	return out
}

// noteObjects makes an origin for each new object; those of deleted objects
// find no host and go by themselves.
func (c *Compiler) noteObjects(b network.Batch) {
	for _, change := range b.Changes {
		origins, ok := c.origins[change.Kind]
		if !ok || change.After == nil || origins[change.ID] != nil {
			continue
		}
		o := &origin{kind: change.Kind, id: change.ID}
		origins[change.ID] = o
		o.markDirty(c)
	}
}

func (c *Compiler) enumerate(v *network.View) {
	for _, o := range c.dirtyOrigins {
		o.dirty = false
		c.forget(o)
		hosts, exists := hostsOf(v.Recording(c.recorder(o)), o)
		for host, u := range o.units {
			if !slices.Contains(hosts, host) {
				delete(o.units, host)
				c.bury(u)
			}
		}
		for _, host := range hosts {
			if o.units[host] != nil {
				continue
			}
			if o.units == nil {
				o.units = make(map[string]*unit)
			}
			u := &unit{key: unitKey{o.kind, o.id, host}}
			o.units[host] = u
			u.markDirty(c)
		}
		if !exists {
			c.forget(o)
			delete(c.origins[o.kind], o.id)
		}
	}
}

// hostsOf finds the hosts that need flows of an object.
func hostsOf(v *network.View, o *origin) (hosts []string, exists bool) {
	switch o.kind {
	case network.KindPort:
		return PortHosts(v, o.id), v.Port(o.id) != nil
	case network.KindNetwork:
		for p := range v.PresencesOf(o.id) {
			hosts = append(hosts, p.Host)
		}
		return hosts, v.Network(o.id) != nil
	case network.KindRouter:
		for p := range v.PresencesOf(o.id) {
			hosts = append(hosts, p.Host)
		}
		return hosts, v.Router(o.id) != nil
	case network.KindSecurityGroup:
		for p := range v.GroupPresencesOf(o.id) {
			if p.Wired {
				hosts = append(hosts, p.Host)
			}
		}
		return hosts, v.SecurityGroup(o.id) != nil
	case network.KindFloatingIP:
		f := v.FloatingIP(o.id)
		if f == nil {
			return nil, false
		}
		if host := v.FloatingHost(f); host != "" {
			hosts = append(hosts, host)
		}
		return hosts, true
	default:
		if v.Host(o.id) == nil {
			return nil, false
		}
		return []string{o.id}, true
	}
}

// bury takes a unit out of the graph; its flows are removed by Apply.
func (c *Compiler) bury(u *unit) {
	c.forget(u)
	u.dirty = false
	c.dead = append(c.dead, u)
}

func (c *Compiler) compile(v *network.View, u *unit, out *Outcome) {
	u.dirty = false
	c.forget(u)
	now, err := c.output(v.Recording(c.recorder(u)), u.key)
	if err != nil {
		out.Errors = append(out.Errors, err)
		return
	}
	c.replace(u, now, out)
}

// output is what a unit wants. A panic of a feature is an error, so that one
// object can't stop the flows of all others.
func (c *Compiler) output(v *network.View, key unitKey) (out output, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("compiling %s %s on host %s: %v\n%s", key.kind, key.id, key.host, r, debug.Stack())
		}
	}()
	host := v.Host(key.host)
	if host == nil {
		return output{}, nil
	}
	ctx := &Context{View: v, Host: host, Options: c.options, out: &out}
	switch key.kind {
	case network.KindPort:
		compilePort(ctx, key.id)
	case network.KindNetwork:
		compileNetwork(ctx, key.id)
	case network.KindRouter:
		compileRouter(ctx, key.id)
	case network.KindSecurityGroup:
		compileGroup(ctx, key.id)
	case network.KindFloatingIP:
		compileFloatingIP(ctx, key.id)
	default:
		compileHost(ctx)
	}
	return out, nil
}

// replace puts what a unit wants now in the place of what it wanted before.
func (c *Compiler) replace(u *unit, now output, out *Outcome) {
	out.Units++
	if u.key.kind == network.KindPort {
		out.Ports[u.key.id] = append(out.Ports[u.key.id], u.key.host)
	}
	w := writer{c: c, host: u.key.host, out: out}
	now.flows = w.flows(u.out.flows, now.flows)
	w.others(u.out.others, now.others)
	u.out = now
}

// recorder makes a function that adds what is read to the reader's edges, each once.
func (c *Compiler) recorder(r reader) func(network.Dep) {
	edges := r.edges()
	c.runs++
	run := c.runs
	return func(d network.Dep) {
		dep, ok := c.deps[d]
		if !ok {
			dep = &dependency{dep: d}
			c.deps[d] = dep
		}
		if dep.lastRun == run {
			return
		}
		dep.lastRun = run
		dep.readers = append(dep.readers, readerSlot{r, len(*edges)})
		*edges = append(*edges, edge{dep, len(dep.readers) - 1})
	}
}

// forget removes all edges of a reader.
func (c *Compiler) forget(r reader) {
	edges := r.edges()
	for _, e := range *edges {
		readers := e.to.readers
		last := len(readers) - 1
		if e.slot != last {
			moved := readers[last]
			readers[e.slot] = moved
			(*moved.reader.edges())[moved.edge].slot = e.slot
		}
		readers[last] = readerSlot{}
		e.to.readers = readers[:last]
		if last == 0 {
			delete(c.deps, e.to.dep)
		}
	}
	*edges = (*edges)[:0]
}
