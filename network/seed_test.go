package network

import "flag"

// Random histories begin from one seed, so that a run tells about the change
// and not about its luck; -rapid.seed takes another one.
func init() {
	if err := flag.Set("rapid.seed", "1"); err != nil {
		panic(err)
	}
}
