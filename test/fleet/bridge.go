package fleet

import (
	"bytes"
	"encoding/binary"
	"hash/fnv"
	"sync"
	"time"

	"planck/flows"
)

var be = binary.BigEndian

// Sizes and offsets of OpenFlow 1.3.
const (
	headerSize = flows.HeaderSize
	modMatch   = 40 // of a FLOW_MOD's body: where its match begins
	statsMatch = 48 // of an entry of flow stats
)

// bridge is an OpenFlow switch: what it has stays when its controllers go.
type bridge struct {
	name string
	dpid uint64

	mu         sync.Mutex
	links      map[uuid]*link // by the row of the controller
	sessions   []*ofSession
	flows      map[flowKey]string // each as an entry of flow stats
	groups     map[uint32]string  // each as an entry of a group description
	meters     map[uint32]string  // each as an entry of a meter configuration
	generation uint64
	known      bool // generation is that of a master
	version    uint64
	changed    time.Time // when flows or groups changed last
	received   func(port uint32, frame []byte)
	walker     *walker
}

// flowKey is what tells flows apart. The match is a part of the flow's text.
type flowKey struct {
	table    uint8
	priority uint16
	match    string
}

func newBridge(name string, dpid uint64) *bridge {
	b := &bridge{name: name, dpid: dpid, links: map[uuid]*link{}}
	b.clear()
	return b
}

// clear makes it a switch that has just been started.
func (b *bridge) clear() {
	b.flows, b.groups, b.meters = map[flowKey]string{}, map[uint32]string{}, map[uint32]string{}
	b.generation, b.known, b.walker = 0, false, nil
}

// connect keeps a link to each controller.
func (b *bridge) connect(targets map[uuid]string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for id, l := range b.links {
		if targets[id] != l.target {
			go l.cut()
			delete(b.links, id)
		}
	}
	for id, target := range targets {
		if b.links[id] == nil {
			b.links[id] = newLink(target, b.serve)
		}
	}
}

func (b *bridge) controllers() map[uuid]*link {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := make(map[uuid]*link, len(b.links))
	for id, l := range b.links {
		out[id] = l
	}
	return out
}

// restart is what the end of ovs-vswitchd and its new start do: connections
// break, and it has no flows.
func (b *bridge) restart() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.clear()
	for _, l := range b.links {
		l.hangUp()
	}
}

func (b *bridge) stop() {
	for _, l := range b.controllers() {
		l.cut()
	}
}

func hashOf(s string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(s))
	return h.Sum64()
}

// refusal is an OpenFlow error.
type refusal struct{ kind, code uint16 }

var (
	badType       = &refusal{1, 1}
	badLength     = &refusal{1, 6}
	isSlave       = &refusal{1, 10}
	badTable      = &refusal{1, 9}
	badOutGroup   = &refusal{2, 9}
	badCommand    = &refusal{5, 6}
	groupExists   = &refusal{6, 0}
	unknownGroup  = &refusal{6, 8}
	badGroup      = &refusal{6, 1}
	staleRole     = &refusal{11, 0}
	badRole       = &refusal{11, 2}
	meterExists   = &refusal{12, 1}
	invalidMeter  = &refusal{12, 2}
	unknownMeter  = &refusal{12, 3}
	badMultipart  = &refusal{1, 2}
	onfExperiment = uint32(0x4f4e4600)
)

// undo puts back what a modification changed.
type undo func()

// flowMod does a FLOW_MOD. b.mu is held.
func (b *bridge) flowMod(body []byte) (undo, *refusal) {
	if len(body) < modMatch+8 {
		return nil, badLength
	}
	n := (int(be.Uint16(body[modMatch+2:])) + 7) &^ 7
	if n < 8 || modMatch+n > len(body) {
		return nil, badLength
	}
	entry := make([]byte, statsMatch, statsMatch+len(body)-modMatch)
	entry[2] = body[16]           // table
	copy(entry[12:], body[22:24]) // priority
	copy(entry[14:], body[18:22]) // timeouts
	copy(entry[18:], body[36:38]) // flags
	copy(entry[24:], body[:8])    // cookie
	entry = append(entry, body[modMatch:]...)
	be.PutUint16(entry, uint16(len(entry)))
	text := string(entry)
	key := flowKey{entry[2], be.Uint16(entry[12:]), text[statsMatch : statsMatch+n]}
	old, there := b.flows[key]
	back := func() {
		if there {
			b.putFlow(key, old)
		} else {
			b.dropFlow(key)
		}
	}
	switch command := body[17]; command {
	case flows.FlowAdd:
		if key.table == flows.AllTables {
			return nil, badTable
		}
		if problem := b.refersTo(entry[statsMatch+n:]); problem != nil {
			return nil, problem
		}
		b.putFlow(key, text)
		if seconds := be.Uint16(entry[16:]); seconds > 0 {
			time.AfterFunc(time.Duration(seconds)*time.Second, func() { b.expire(key, text) })
		}
		return back, nil
	case flows.FlowDeleteStrict:
		b.dropFlow(key)
		return back, nil
	case flows.FlowDelete:
		if key.table != flows.AllTables || n > 8 {
			return nil, badCommand // nobody here asks for a part of them
		}
		all := b.flows
		b.flows = map[flowKey]string{}
		b.touch()
		return func() { b.flows = all; b.touch() }, nil
	}
	return nil, badCommand
}

func (b *bridge) putFlow(key flowKey, text string) {
	delete(b.flows, key) // the key is a part of the old text
	b.flows[key] = text
	b.touch()
}

func (b *bridge) dropFlow(key flowKey) {
	delete(b.flows, key)
	b.touch()
}

// touch notes that flows or groups have changed.
func (b *bridge) touch() {
	b.version++
	b.changed = time.Now()
}

func (b *bridge) expire(key flowKey, text string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.flows[key] == text {
		b.dropFlow(key)
	}
}

// refersTo looks for groups and meters in instructions that are not there.
func (b *bridge) refersTo(instructions []byte) *refusal {
	for len(instructions) >= 8 {
		n := int(be.Uint16(instructions[2:]))
		if n < 8 || n > len(instructions) {
			return badLength
		}
		switch be.Uint16(instructions) {
		case 6: // meter
			if b.meters[be.Uint32(instructions[4:])] == "" {
				return invalidMeter
			}
		case 3, 4: // write and apply actions
			if b.lacksGroup(instructions[8:n]) {
				return badOutGroup
			}
		}
		instructions = instructions[n:]
	}
	return nil
}

func (b *bridge) lacksGroup(actions []byte) bool {
	for len(actions) >= 8 {
		n := int(be.Uint16(actions[2:]))
		if n < 8 || n > len(actions) {
			return false
		}
		if be.Uint16(actions) == 22 && b.groups[be.Uint32(actions[4:])] == "" {
			return true
		}
		actions = actions[n:]
	}
	return false
}

// groupMod does a GROUP_MOD. b.mu is held.
func (b *bridge) groupMod(body []byte) (undo, *refusal) {
	if len(body) < 8 {
		return nil, badLength
	}
	id := be.Uint32(body[4:])
	old, there := b.groups[id]
	back := func() {
		b.touch()
		if there {
			b.groups[id] = old
		} else {
			delete(b.groups, id)
		}
	}
	entry := append([]byte{0, 0, body[2], 0}, body[4:]...)
	be.PutUint16(entry, uint16(len(entry)))
	b.touch()
	switch command := be.Uint16(body); {
	case command == flows.CommandAdd && there:
		return nil, groupExists
	case command == flows.CommandModify && !there:
		return nil, unknownGroup
	case command == flows.CommandAdd, command == flows.CommandModify:
		b.groups[id] = string(entry)
		return back, nil
	case command == flows.CommandDelete && id == flows.AllGroups:
		all := b.groups
		b.groups = map[uint32]string{}
		return func() { b.groups = all }, nil
	case command == flows.CommandDelete:
		delete(b.groups, id)
		lost := b.flowsTo(id)
		for key := range lost {
			b.dropFlow(key)
		}
		return func() {
			back()
			for key, text := range lost {
				b.putFlow(key, text)
			}
		}, nil
	}
	return nil, badGroup
}

// flowsTo are the flows that go with a group.
func (b *bridge) flowsTo(group uint32) map[flowKey]string {
	action := be.AppendUint32([]byte{0, 22, 0, 8}, group)
	out := map[flowKey]string{}
	for key, text := range b.flows {
		if bytes.Contains([]byte(text[statsMatch+len(key.match):]), action) {
			out[key] = text
		}
	}
	return out
}

// meterMod does a METER_MOD. b.mu is held.
func (b *bridge) meterMod(body []byte) *refusal {
	if len(body) < 8 {
		return badLength
	}
	id := be.Uint32(body[4:])
	_, there := b.meters[id]
	entry := append([]byte{0, 0}, body[2:]...)
	be.PutUint16(entry, uint16(len(entry)))
	switch command := be.Uint16(body); {
	case command == flows.CommandAdd && there:
		return meterExists
	case command == flows.CommandModify && !there:
		return unknownMeter
	case command == flows.CommandAdd, command == flows.CommandModify:
		b.meters[id] = string(entry)
	case command == flows.CommandDelete && id == flows.AllMeters:
		clear(b.meters)
	case command == flows.CommandDelete:
		delete(b.meters, id)
	default:
		return badCommand
	}
	return nil
}
