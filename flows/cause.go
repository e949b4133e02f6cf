package flows

import "slices"

// Cause is why an entry is dirty: the revisions of the model, ascending, each of
// which may have changed it. It is shared, and stays as it is. A nil Cause is one
// that is not known.
type Cause struct{ revisions []uint64 }

// maxCause is how many revisions a Cause tells apart.
const maxCause = 64

// NewCause is the cause with some revisions, nil for none or too many of them.
func NewCause(revisions ...uint64) *Cause {
	revisions = slices.Compact(slices.Sorted(slices.Values(revisions)))
	if len(revisions) == 0 || len(revisions) > maxCause {
		return nil
	}
	return &Cause{revisions}
}

// Revisions are those that may have changed the entry, ascending; nil when they
// are not known.
func (c *Cause) Revisions() []uint64 {
	if c == nil {
		return nil
	}
	return c.revisions
}

// join is the cause of what both changed.
func (c *Cause) join(d *Cause) *Cause {
	switch {
	case c == d, c == nil:
		return c
	case d == nil:
		return nil
	case slices.Equal(c.revisions, d.revisions):
		return c
	}
	return NewCause(slices.Concat(c.revisions, d.revisions)...)
}
