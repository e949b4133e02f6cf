package pipeline

import "planck/network"

// reader is a unit or an origin: something that is looked at again when what it
// read is touched.
type reader interface {
	read() *reads
}

// reads is what a reader read last, and whether that was touched since.
type reads struct {
	number uint32 // of the reader in its graph, and one; 0 while it is not in it
	edges  []edge
	dirty  bool
	why    revisionSet // that made it dirty
}

func (r *reads) read() *reads { return r }

// graph knows who read what of the model. Readers and what they read are told
// by number: millions of edges without pointers are small, and nothing to look
// at for the garbage collector.
type graph struct {
	numbers map[network.Dep]uint32 // of deps
	deps    []dependency
	readers []reader

	freeDeps, freeReaders []uint32 // numbers that stand for nothing now

	recordings uint64
	recording  []edge // of the recording under way
}

// dependency is a Dep with everybody who read it.
type dependency struct {
	dep     network.Dep
	readers []readerSlot
	last    uint64 // the recording that noted it last
}

// readerSlot and edge point at each other, so that both ends are removed in
// constant time.
type readerSlot struct{ reader, edge uint32 }

type edge struct{ dep, slot uint32 }

func newGraph() graph { return graph{numbers: make(map[network.Dep]uint32)} }

// touched calls visit for each reader of a dependency.
func (g *graph) touched(d network.Dep, visit func(reader)) {
	n, ok := g.numbers[d]
	if !ok {
		return
	}
	for _, s := range g.deps[n].readers {
		visit(g.readers[s.reader])
	}
}

// record makes what fn reads the edges of a reader, in the place of those that
// it had.
func (g *graph) record(r reader, v *network.View, fn func(*network.View)) {
	g.forget(r)
	me := r.read()
	if me.number == 0 {
		me.number = 1 + g.enter(r)
	}
	g.recordings++
	g.recording = g.recording[:0]
	fn(v.Recording(func(d network.Dep) { g.note(d, me.number-1) }))
	me.edges = append(me.edges, g.recording...)
}

func (g *graph) note(d network.Dep, reader uint32) {
	n, ok := g.numbers[d]
	if !ok {
		n = g.add(d)
	}
	dep := &g.deps[n]
	if dep.last == g.recordings {
		return
	}
	dep.last = g.recordings
	dep.readers = append(dep.readers, readerSlot{reader, uint32(len(g.recording))})
	g.recording = append(g.recording, edge{n, uint32(len(dep.readers) - 1)})
}

// forget removes all edges of a reader.
func (g *graph) forget(r reader) {
	me := r.read()
	for _, e := range me.edges {
		dep := &g.deps[e.dep]
		last := len(dep.readers) - 1
		if int(e.slot) != last {
			moved := dep.readers[last]
			dep.readers[e.slot] = moved
			g.readers[moved.reader].read().edges[moved.edge].slot = e.slot
		}
		if dep.readers = dep.readers[:last]; last == 0 {
			g.drop(e.dep)
		}
	}
	me.edges = me.edges[:0]
}

// leave removes a reader.
func (g *graph) leave(r reader) {
	g.forget(r)
	me := r.read()
	if me.number == 0 {
		return
	}
	g.readers[me.number-1] = nil
	g.freeReaders = append(g.freeReaders, me.number-1)
	me.number = 0
}

func (g *graph) enter(r reader) uint32 {
	if last := len(g.freeReaders) - 1; last >= 0 {
		n := g.freeReaders[last]
		g.freeReaders = g.freeReaders[:last]
		g.readers[n] = r
		return n
	}
	g.readers = append(g.readers, r)
	return uint32(len(g.readers) - 1)
}

func (g *graph) add(d network.Dep) uint32 {
	n := uint32(len(g.deps))
	if last := len(g.freeDeps) - 1; last >= 0 {
		n = g.freeDeps[last]
		g.freeDeps = g.freeDeps[:last]
	} else {
		g.deps = append(g.deps, dependency{})
	}
	g.deps[n].dep = d
	g.numbers[d] = n
	return n
}

func (g *graph) drop(n uint32) {
	delete(g.numbers, g.deps[n].dep)
	g.deps[n] = dependency{}
	g.freeDeps = append(g.freeDeps, n)
}
