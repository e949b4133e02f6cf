package network

import (
	"sync"
	"testing"
)

// Many read the same view at once, with the race detector to see that nobody writes.
func TestViewIsOnlyRead(t *testing.T) {
	s := open(t, "sqlite://"+t.TempDir()+"/planck.db", DefaultConfig())
	view, err := s.Update(t.Context(), Cause{}, func(tx *Tx) error {
		return tx.CreateNetwork(&Network{AdminStateUp: true})
	})
	if err != nil {
		t.Fatal(err)
	}
	var readers sync.WaitGroup
	for range 8 {
		readers.Go(func() {
			for n := range view.Networks() {
				for range view.PortsOf(n.ID) {
					t.Error("a port that nobody made")
				}
			}
			if len(view.everything()) == 0 {
				t.Error("the view is empty")
			}
		})
	}
	readers.Wait()
}
