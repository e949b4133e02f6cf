package flows

import (
	"cmp"
	"fmt"
	"slices"
)

// Flags of a flow.
const (
	// SendFlowRem asks the switch for a flow-removed message when the flow goes.
	SendFlowRem uint16 = 1
)

// DefaultPriority is the one that ovs-ofctl leaves out.
const DefaultPriority uint16 = 32768

// Flow is an entry of a flow table.
type Flow struct {
	Table        uint8
	Priority     uint16
	Match        Match
	Instructions Instructions
	Cookie       uint64
	IdleTimeout  uint16 // seconds without a packet; 0: none
	HardTimeout  uint16 // seconds; 0: none
	Flags        uint16
}

// Key tells one flow of a switch from another.
type Key struct {
	Table    uint8
	Priority uint16
	Match    Match
}

// Key is what the flow is known by on its switch.
func (f *Flow) Key() Key { return Key{f.Table, f.Priority, f.Match} }

func (f *Flow) equal(g *Flow) bool {
	return f.Instructions == g.Instructions && f.Cookie == g.Cookie &&
		f.IdleTimeout == g.IdleTimeout && f.HardTimeout == g.HardTimeout && f.Flags == g.Flags
}

// compareKeys orders flows as they are read: by table, higher priorities first.
func compareKeys(a, b Key) int {
	return cmp.Or(
		cmp.Compare(a.Table, b.Table),
		cmp.Compare(b.Priority, a.Priority),
		cmp.Compare(a.Match.oxm, b.Match.oxm))
}

// Types of groups.
const (
	GroupAll      uint8 = 0 // a copy of the packet to each bucket
	GroupSelect   uint8 = 1 // one bucket, by a hash of the packet
	GroupIndirect uint8 = 2 // the one bucket
	GroupFF       uint8 = 3 // the first bucket whose port is up
)

// Group is an entry of the group table.
type Group struct {
	ID      uint32
	Type    uint8
	Buckets string // encoded
}

// NoPort is a bucket that watches no port.
const NoPort = PortAny

// Bucket is one of a group's sets of actions. Open vSwitch does them in an order
// of its own, and only one of those that the packet goes on with: NewGroup takes a
// bucket only if it is in this order: pop_vlan, push_vlan, dec_ttl, fields, and at
// last one of ct, ct_clear, resubmit, output and group.
type Bucket struct {
	Weight    uint16 // of select groups
	WatchPort uint32 // of fast-failover groups; 0 is taken as none
	Actions   []Action
}

// NewGroup makes a group. It panics on what can only be a mistake in the program;
// Bucket.Size and MaxGroupSize tell whether a group of unknown size is possible.
func NewGroup(id uint32, typ uint8, buckets ...Bucket) *Group {
	var b []byte
	for _, k := range buckets {
		var err error
		if b, err = appendBucket(b, k); err != nil {
			panic(fmt.Sprintf("flows: group %d: %s", id, err))
		}
	}
	if len(b) > MaxGroupSize {
		panic(fmt.Sprintf("flows: group %d: %d bytes of buckets are too many", id, len(b)))
	}
	return &Group{ID: id, Type: typ, Buckets: string(b)}
}

// MaxGroupSize is the most that the Sizes of a group's buckets may come to.
const MaxGroupSize = 65000

// Size is how many bytes the bucket takes in a message.
func (k Bucket) Size() int {
	b, err := appendActions(make([]byte, 0, 64), k.Actions)
	if err != nil {
		panic("flows: " + err.Error())
	}
	return 16 + len(b)
}

func appendBucket(b []byte, k Bucket) ([]byte, error) {
	if order := actionSet(k.Actions); len(order) < len(k.Actions) || !slices.IsSorted(order) {
		return b, fmt.Errorf("a bucket is a set of actions, and %s is not in its order", formatActions(k.Actions))
	}
	start := len(b)
	watch := k.WatchPort
	if watch == 0 {
		watch = NoPort
	}
	b = append(b, 0, 0)
	b = be.AppendUint16(b, k.Weight)
	b = be.AppendUint32(b, watch)
	b = append(b, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0)
	b, err := appendActions(b, k.Actions)
	if err != nil {
		return b, err
	}
	if len(b)-start > MaxGroupSize {
		return b, fmt.Errorf("%d bytes are too many for a bucket", len(b)-start)
	}
	be.PutUint16(b[start:], uint16(len(b)-start))
	return b, nil
}

// actionSet is the order in which Open vSwitch does actions of a set
// (ofpacts_execute_action_set in lib/ofp-actions.c), as indices; what it does not
// do is left out.
func actionSet(actions []Action) []int {
	once := []Kind{KindPopVLAN, KindPushVLAN, KindDecTTL}
	finals := []Kind{KindCT, KindCTClear, KindResubmit, KindOutput, KindGroup}
	last := map[Kind]int{}
	var order, sets []int
	for i, a := range actions {
		last[a.kind] = i
		switch a.kind {
		case KindSetField, KindLoad, KindMove, KindSetQueue:
			sets = append(sets, i)
		}
	}
	for _, kind := range once {
		if i, ok := last[kind]; ok {
			order = append(order, i)
		}
	}
	order = append(order, sets...)
	for _, kind := range slices.Backward(finals) {
		if i, ok := last[kind]; ok {
			return append(order, i)
		}
	}
	return nil
}

// Flags of a meter.
const (
	MeterKbps  uint16 = 1
	MeterPPS   uint16 = 2
	MeterBurst uint16 = 4
	MeterStats uint16 = 8
)

// Meter is an entry of the meter table.
type Meter struct {
	ID    uint32
	Flags uint16
	Bands string // encoded
}

const bandDrop = 1

// NewMeterPPS makes a meter that drops what exceeds rate packets a second, after
// a burst of so many packets.
func NewMeterPPS(id, rate, burst uint32) *Meter { return newMeter(id, MeterPPS, rate, burst) }

// NewMeterKbps makes a meter that drops what exceeds rate kilobits a second,
// after a burst of so many kilobits.
func NewMeterKbps(id, rate, burst uint32) *Meter { return newMeter(id, MeterKbps, rate, burst) }

func newMeter(id uint32, flags uint16, rate, burst uint32) *Meter {
	b := []byte{0, bandDrop, 0, 16}
	b = be.AppendUint32(b, rate)
	b = be.AppendUint32(b, burst)
	b = append(b, 0, 0, 0, 0)
	return &Meter{ID: id, Flags: flags | MeterBurst | MeterStats, Bands: string(b)}
}

// Set is what one switch has or should have. No two flows of a set have the same
// key, since the maps are keyed by it.
type Set struct {
	Flows  map[Key]*Flow
	Groups map[uint32]*Group
	Meters map[uint32]*Meter
}

// NewSet makes an empty Set.
func NewSet() *Set {
	return &Set{Flows: map[Key]*Flow{}, Groups: map[uint32]*Group{}, Meters: map[uint32]*Meter{}}
}

// AddFlow puts a flow into the set in place of one with the same key.
func (s *Set) AddFlow(f *Flow) { s.Flows[f.Key()] = f }

// AddGroup puts a group into the set in place of one with the same id.
func (s *Set) AddGroup(g *Group) { s.Groups[g.ID] = g }

// AddMeter puts a meter into the set in place of one with the same id.
func (s *Set) AddMeter(m *Meter) { s.Meters[m.ID] = m }

// SortedFlows are the flows by table, higher priorities first.
func (s *Set) SortedFlows() []*Flow {
	all := make([]*Flow, 0, len(s.Flows))
	for _, f := range s.Flows {
		all = append(all, f)
	}
	slices.SortFunc(all, func(a, b *Flow) int { return compareKeys(a.Key(), b.Key()) })
	return all
}
