package controller

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"planck/flows"
	"planck/pipeline"
)

// errCommit is returned for a bundle that was refused as a whole. Nothing of it
// was applied.
var errCommit = errors.New("bundle refused at commit")

// maxBundleRounds bounds how often a bundle is sent again without what was
// refused. What is left then goes one by one.
const maxBundleRounds = 8

// sendChunk is how much is encoded before it is handed to the outbox.
const sendChunk = 64 << 10

// item is one message of a delta: exactly one of flow, group and meter is set.
type item struct {
	command uint16
	flow    *flows.Flow
	group   *flows.Group
	meter   *flows.Meter
}

func (i *item) String() string {
	switch {
	case i.flow != nil:
		return "flow " + i.flow.String()
	case i.group != nil:
		return fmt.Sprintf("group %d", i.group.ID)
	}
	return fmt.Sprintf("meter %d", i.meter.ID)
}

func (i *item) append(b []byte, xid uint32) []byte {
	switch {
	case i.flow != nil:
		return flows.AppendFlowMod(b, xid, uint8(i.command), i.flow)
	case i.group != nil:
		return flows.AppendGroupMod(b, xid, i.command, i.group)
	}
	return flows.AppendMeterMod(b, xid, i.command, i.meter)
}

// appendBundled is the message as the content of a bundle-add with the same xid.
func (i *item) appendBundled(b []byte, bundle, xid uint32) []byte {
	if i.flow != nil {
		return flows.AppendBundleFlowMod(b, xid, bundle, bundleFlags, uint8(i.command), i.flow)
	}
	return flows.AppendBundleGroupMod(b, xid, bundle, bundleFlags, i.command, i.group)
}

// refusedItem is a message that the switch did not take.
type refusedItem struct {
	item
	err error
}

// refusedKey is what a message was about.
type refusedKey struct {
	flow         flows.Key
	group, meter uint32 // 0 for none
}

func (i *item) key() refusedKey {
	switch {
	case i.flow != nil:
		return refusedKey{flow: i.flow.Key()}
	case i.group != nil:
		return refusedKey{group: i.group.ID}
	}
	return refusedKey{meter: i.meter.ID}
}

// in reports whether the message is about something dirty.
func (k refusedKey) in(d *flows.Dirty) bool {
	ok := d.All
	switch {
	case ok:
	case k.group != 0:
		_, ok = d.Groups[k.group]
	case k.meter != 0:
		_, ok = d.Meters[k.meter]
	default:
		_, ok = d.Flows[k.flow]
	}
	return ok
}

// cookie tells for what the message was: a group is a network's, and a meter
// one that all ports of the host share.
func (i *item) cookie() pipeline.Cookie {
	switch {
	case i.flow != nil:
		return pipeline.Cookie(i.flow.Cookie)
	case i.group != nil:
		return pipeline.MakeCookie(pipeline.FeatureBase, pipeline.FlagNetwork, pipeline.NetworkOfGroup(i.group.ID))
	}
	return pipeline.MakeCookie(pipeline.FeatureBase, pipeline.FlagHost, 0)
}

const bundleFlags = flows.BundleAtomic | flows.BundleOrdered

// pushMeters sends meter-mods, which bundles do not take, and waits for a barrier.
func (s *session) pushMeters(items []item) ([]refusedItem, error) {
	if len(items) == 0 {
		return nil, nil
	}
	return s.pushSingly(items)
}

// pushSingly sends messages outside a bundle, followed by a barrier.
func (s *session) pushSingly(items []item) ([]refusedItem, error) {
	x, err := s.xs.begin(len(items)+1, nil)
	if err != nil {
		return nil, err
	}
	err = s.stream(len(items)+1, func(b []byte, n int) []byte {
		if n == len(items) {
			return flows.AppendBarrierRequest(b, x.last)
		}
		return items[n].append(b, x.first+uint32(n))
	})
	if err != nil {
		return nil, err
	}
	if err := s.wait(x); err != nil {
		return nil, err
	}
	s.countMods(items)
	return blame(items, x.first, x.errors), nil
}

// maxBundle is how many messages go into one bundle: more of them cost the
// switch more for each. Only a switch that is far behind gets several, in order.
const maxBundle = 10_000

// pushBundles makes the switch apply items in order, in as few bundles as are
// worth it. What it returns is that of pushBundle.
func (s *session) pushBundles(items []item) ([]refusedItem, error) {
	var refused []refusedItem
	for part := range slices.Chunk(items, maxBundle) {
		round, err := s.pushBundle(part)
		refused = append(refused, round...)
		if err != nil {
			return refused, err
		}
	}
	return refused, nil
}

// pushBundle makes the switch apply items in order and at once. What it refuses
// is left out, and returned. An error means that it is not known what the
// switch has.
func (s *session) pushBundle(items []item) ([]refusedItem, error) {
	var refused []refusedItem
	for range maxBundleRounds {
		if len(items) == 0 {
			return refused, nil
		}
		round, err := s.bundle(items)
		refused = append(refused, round...)
		if !errors.Is(err, errCommit) {
			return refused, err
		}
		if len(round) == 0 {
			break
		}
		items = without(items, round)
	}
	round, err := s.pushSingly(items)
	return append(refused, round...), err
}

// bundle sends one bundle as a whole: waiting before the commit would cost each
// change another round trip. A message that the switch refuses when it comes is
// no part of the bundle, the commit applies the rest. When the commit fails,
// with errCommit, nothing is applied.
func (s *session) bundle(items []item) ([]refusedItem, error) {
	start := time.Now()
	n := len(items)
	// The xids: open, the adds, close, commit, barrier.
	x, err := s.xs.begin(n+4, nil)
	if err != nil {
		return nil, err
	}
	s.bundleID++
	id, commit := s.bundleID, x.last-1
	err = s.stream(n+4, func(b []byte, m int) []byte {
		switch xid := x.first + uint32(m); m {
		case 0:
			return flows.AppendBundleControl(b, xid, id, flows.BundleOpen, bundleFlags)
		case n + 1:
			return flows.AppendBundleControl(b, xid, id, flows.BundleClose, bundleFlags)
		case n + 2:
			return flows.AppendBundleControl(b, xid, id, flows.BundleCommit, bundleFlags)
		case n + 3:
			return flows.AppendBarrierRequest(b, xid)
		default:
			return items[m-1].appendBundled(b, id, xid)
		}
	})
	if err != nil {
		return nil, err
	}
	if err := s.wait(x); err != nil {
		return nil, err
	}
	s.countMods(items)
	refused := blame(items, x.first+1, x.errors)
	for _, e := range x.errors {
		if e.XID == x.first || e.XID == commit-1 || e.XID == commit {
			return refused, fmt.Errorf("%w: %w", errCommit, e)
		}
	}
	if len(refused) == 0 {
		s.metrics.bundles.Observe(time.Since(start).Seconds())
	}
	return refused, nil
}

// stream encodes n messages and sends them in large pieces.
func (s *session) stream(n int, message func(b []byte, i int) []byte) error {
	b := make([]byte, 0, min(sendChunk+4096, 256*n))
	for i := range n {
		b = message(b, i)
		if len(b) < sendChunk && i < n-1 {
			continue
		}
		if err := s.out.send(b); err != nil {
			return err
		}
		b = b[:0]
	}
	return nil
}

// blame finds the items that errors are about, each once. first is the xid of items[0].
func blame(items []item, first uint32, errs []SwitchError) []refusedItem {
	var refused []refusedItem
	seen := make(map[uint32]bool, len(errs))
	for _, e := range errs {
		i := e.XID - first
		if i >= uint32(len(items)) || seen[i] {
			continue
		}
		seen[i] = true
		refused = append(refused, refusedItem{items[i], e})
	}
	return refused
}

func without(items []item, refused []refusedItem) []item {
	gone := make(map[item]bool, len(refused))
	for _, r := range refused {
		gone[r.item] = true
	}
	left := make([]item, 0, len(items)-len(refused))
	for _, i := range items {
		if !gone[i] {
			left = append(left, i)
		}
	}
	return left
}

func (s *session) countMods(items []item) {
	var flowMods, groupMods, meterMods int
	for _, i := range items {
		switch {
		case i.flow != nil:
			flowMods++
		case i.group != nil:
			groupMods++
		default:
			meterMods++
		}
	}
	s.flowMods.Add(uint64(flowMods))
	s.metrics.flowMods.WithLabelValues(modsDesired).Add(float64(flowMods))
	s.metrics.groupMods.Add(float64(groupMods))
	s.metrics.meterMods.Add(float64(meterMods))
}
