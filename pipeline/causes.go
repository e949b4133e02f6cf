package pipeline

import (
	"maps"
	"slices"

	"planck/flows"
	"planck/network"
)

// revisionSet has a bit for each revision of a batch, or for several beside each
// other where there are more than bits.
type revisionSet uint64

const (
	// revisionBits is how many bits stand for revisions.
	revisionBits = 63
	// unknownRevision is the bit of changes whose revisions are not known.
	unknownRevision revisionSet = 1 << revisionBits
)

// causes tells the revisions of a batch.
type causes struct {
	revisions [revisionBits][]uint64 // of each bit
	sets      []revisionSet          // of each change

	last  revisionSet // asked for, and its answer: most are alike
	cause *flows.Cause
}

func newCauses(b network.Batch) *causes {
	c := &causes{sets: make([]revisionSet, len(b.Changes))}
	all := map[uint64]int{}
	for _, change := range b.Changes {
		for _, r := range change.Revisions {
			all[r] = 0
		}
	}
	for i, r := range slices.Sorted(maps.Keys(all)) {
		bit := i
		if len(all) > revisionBits {
			bit = i * revisionBits / len(all)
		}
		all[r], c.revisions[bit] = bit, append(c.revisions[bit], r)
	}
	for i, change := range b.Changes {
		if change.Revisions == nil {
			c.sets[i] = unknownRevision
		}
		for _, r := range change.Revisions {
			c.sets[i] |= 1 << all[r]
		}
	}
	return c
}

// all are the revisions of some changes.
func (c *causes) all(changes []int) (set revisionSet) {
	for _, i := range changes {
		set |= c.sets[i]
	}
	return set
}

// of is the cause with the revisions of a set.
func (c *causes) of(set revisionSet) *flows.Cause {
	if set == c.last {
		return c.cause
	}
	c.last, c.cause = set, nil
	if set&unknownRevision == 0 {
		var revisions []uint64
		for bit, r := range c.revisions {
			if set&(1<<bit) != 0 {
				revisions = append(revisions, r...)
			}
		}
		c.cause = flows.NewCause(revisions...)
	}
	return c.cause
}
