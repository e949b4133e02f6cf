package pipeline

import (
	"cmp"
	"hash/maphash"
	"iter"
	"maps"
	"runtime"
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

// origin is an object of which units are made: it finds the hosts that need one.
type origin struct {
	reads
	kind  network.Kind
	id    string
	units map[string]*unit // by host
	// examples has, for each shard, the unit that was compiled last: most hosts
	// want the same flows of an object, and share them.
	examples []*unit
}

// unit is what one object needs on one host. It is compiled as a whole; what it
// read last time are its dependencies.
type unit struct {
	reads
	of   *origin
	host string
	out  kept
}

// Compiler keeps the desired flows of every bridge of every host, compiling
// again only what a change touches. Apply must be called by one goroutine at a
// time; Read may be called by any.
type Compiler struct {
	mu       sync.Mutex
	revision uint64
	options  Options
	shards   []*shard
	seed     maphash.Seed // of which shard a host belongs to

	graph   // of the origins
	origins map[network.Kind]map[string]*origin
	dirty   []*origin
}

// maxShards bounds how many processors compile: each looks at every change.
const maxShards = 8

// NewCompiler returns a compiler that knows nothing yet: its first Apply is the
// first batch of a follower.
func NewCompiler(o Options) *Compiler {
	c := &Compiler{
		options: o,
		seed:    maphash.MakeSeed(),
		graph:   newGraph(),
		origins: map[network.Kind]map[string]*origin{
			network.KindPort: {}, network.KindNetwork: {}, network.KindHost: {}, network.KindRouter: {}, network.KindFloatingIP: {},
			network.KindSecurityGroup: {},
		},
	}
	for i := range min(runtime.GOMAXPROCS(0), maxShards) {
		c.shards = append(c.shards, newShard(i, o))
	}
	return c
}

// shardOf is the shard that has the targets and units of a host.
func (c *Compiler) shardOf(host string) *shard {
	return c.shards[maphash.String(c.seed, host)%uint64(len(c.shards))]
}

// Read calls fn with the wanted state of a target, which must not be kept or
// changed. A target that is not known has empty sets.
func (c *Compiler) Read(t Target, fn func(State)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	tg, ok := c.shardOf(t.Host).targets[t]
	if !ok {
		tg = newTarget()
	}
	fn(State{Revision: c.revision, Desired: tg.desired.set, Permitted: tg.permitted.set})
}

// Targets are the bridges for which there are flows, sorted.
func (c *Compiler) Targets() iter.Seq[Target] {
	c.mu.Lock()
	defer c.mu.Unlock()
	var targets []Target
	for _, s := range c.shards {
		targets = slices.AppendSeq(targets, maps.Keys(s.targets))
	}
	slices.SortFunc(targets, func(a, b Target) int {
		return cmp.Or(cmp.Compare(a.Host, b.Host), cmp.Compare(a.Bridge, b.Bridge))
	})
	return slices.Values(targets)
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
	why := newCauses(b)
	c.noteObjects(b, why)
	if c.revision != 0 { // before, nobody has read anything
		b.Touched(func(d network.Dep, by []int) { c.touch(d, why.all(by)) })
	}
	c.enumerate(b.View)
	var work sync.WaitGroup
	for _, s := range c.shards {
		if s.idle() {
			continue
		}
		work.Go(func() { s.apply(b.View, why) })
	}
	work.Wait()
	out := Outcome{Revision: b.View.Revision(), Dirty: make(map[Target]*flows.Dirty), Ports: make(map[string][]string)}
	for _, s := range c.shards {
		out.merge(s.takeOutcome())
	}
	c.revision = out.Revision
	return out
}

// merge adds what another shard did.
func (o *Outcome) merge(p Outcome) {
	maps.Copy(o.Dirty, p.Dirty)
	o.Units += p.Units
	for id, hosts := range p.Ports {
		o.Ports[id] = append(o.Ports[id], hosts...)
	}
	o.Errors = append(o.Errors, p.Errors...)
}

// touch makes dirty what read a dependency.
func (c *Compiler) touch(d network.Dep, why revisionSet) {
	c.touched(d, func(r reader) { c.markDirty(r.(*origin), why) })
	for _, s := range c.shards {
		s.touched(d, func(r reader) { s.markDirty(r.(*unit), why) })
	}
}

func (c *Compiler) markDirty(o *origin, why revisionSet) {
	if !o.dirty {
		o.dirty, o.why = true, 0
		c.dirty = append(c.dirty, o)
	}
	o.why |= why
}

// noteObjects makes an origin for each new object; those of deleted objects
// find no host and go by themselves.
func (c *Compiler) noteObjects(b network.Batch, why *causes) {
	for i, change := range b.Changes {
		origins, ok := c.origins[change.Kind]
		if !ok || change.After == nil || origins[change.ID] != nil {
			continue
		}
		o := &origin{kind: change.Kind, id: change.ID, examples: make([]*unit, len(c.shards))}
		origins[change.ID] = o
		c.markDirty(o, why.sets[i])
	}
}

func (c *Compiler) enumerate(v *network.View) {
	for _, o := range c.dirty {
		o.dirty = false
		var hosts []string
		var exists bool
		c.record(o, v, func(v *network.View) { hosts, exists = hostsOf(v, o) })
		for host, u := range o.units {
			if !slices.Contains(hosts, host) {
				delete(o.units, host)
				c.shardOf(host).bury(u, o.why)
			}
		}
		for _, host := range hosts {
			if o.units[host] != nil {
				continue
			}
			if o.units == nil {
				o.units = make(map[string]*unit, len(hosts))
			}
			u := &unit{of: o, host: host}
			o.units[host] = u
			c.shardOf(host).markDirty(u, o.why)
		}
		if !exists {
			c.leave(o)
			delete(c.origins[o.kind], o.id)
		}
	}
	c.dirty = c.dirty[:0]
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
