package pipeline

import "testing"

func TestFeatureNumbersAreUnique(t *testing.T) {
	names := map[FeatureID]string{FeatureCanary: "canary"}
	for _, f := range Features {
		if other, taken := names[f.ID()]; taken {
			t.Errorf("features %s and %s have the number %d", f.Name(), other, f.ID())
		}
		names[f.ID()] = f.Name()
	}
}
