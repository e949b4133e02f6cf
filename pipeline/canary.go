package pipeline

import "planck/flows"

// CanaryFlow is the flow of table 253 that tells which revision a bridge has.
// It is sent in a bundle that is sent anyway and is never a difference by itself.
func CanaryFlow(revision uint64) flows.Flow {
	return flows.Flow{
		Table: Canary.ID, Match: everything, Instructions: flows.Do(),
		Cookie: uint64(MakeCookie(FeatureCanary, 0, uint32(revision))),
	}
}

// IsCanary reports whether a flow is a canary.
func IsCanary(f *flows.Flow) bool {
	return f.Table == Canary.ID && Cookie(f.Cookie).Ours() && Cookie(f.Cookie).Feature() == FeatureCanary
}
