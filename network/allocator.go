package network

import "net/netip"

// allocator remembers where the last allocation of each kind was made, so that
// finding a free number does not start over and a number is not used again at
// once; the cursors of numbers outlive a restart. It is a hint only: what is
// free, the claims say.
type allocator struct {
	cursors map[string]uint64
	moved   map[string]struct{}   // cursors that the database does not have yet
	ips     map[string]netip.Addr // by subnet
	full    map[string]struct{}   // subnets whose pools are known to be used up
}

func newAllocator() *allocator {
	return &allocator{
		cursors: map[string]uint64{},
		moved:   map[string]struct{}{},
		ips:     map[string]netip.Addr{},
		full:    map[string]struct{}{},
	}
}

// number finds the next free number in ranges after the last one that was
// given out under this name.
func (a *allocator) number(name string, ranges []IDRange, free func(uint32) bool) (uint32, bool) {
	last := a.cursors[name]
	n, ok := firstFree(ranges, last+1, 1<<32-1, free)
	if !ok {
		n, ok = firstFree(ranges, 0, last, free)
	}
	if ok {
		a.cursors[name] = uint64(n)
		a.moved[name] = struct{}{}
	}
	return n, ok
}

// firstFree looks through the parts of ranges that lie between lo and hi.
func firstFree(ranges []IDRange, lo, hi uint64, free func(uint32) bool) (uint32, bool) {
	for _, r := range ranges {
		for n := max(lo, uint64(r.First)); n <= min(hi, uint64(r.Last)); n++ {
			if free(uint32(n)) {
				return uint32(n), true
			}
		}
	}
	return 0, false
}

// smallIDs are those that fit everywhere in flows.
var smallIDs = []IDRange{{1, 1<<24 - 1}}

// smallID allocates a small id.
func (tx *Tx) smallID(space string) (uint32, error) {
	n, ok := tx.s.alloc.number(space, smallIDs, func(n uint32) bool {
		_, used := tx.claimant(space, smallKey(n))
		return !used
	})
	if !ok {
		return 0, Errorf(Unavailable, "ResourceExhausted", "No %s is left.", space)
	}
	return n, nil
}
