package controller

import (
	"testing"
	"time"

	"planck/network"
)

func TestAddressIsAnnouncedByTheHostThatGotIt(t *testing.T) {
	w := newWorld(t)
	n, gateway := w.external()
	w.host("h2", 2)
	w.plug("h2", w.vm(n, "h2"))
	c := New(Options{Store: w.store, Compiler: newFixed()})
	a := c.announcer
	now := time.Now()
	state := func() announced {
		t.Helper()
		a.look(w.store.View(), now)
		is := a.announced[externalAddress{n.ID, gateway.MAC, gateway.FixedIPs[0].IP}]
		if is == nil {
			t.Fatalf("announced are %v", a.announced)
		}
		return *is
	}
	if is := state(); is.host != "h1" || is.left != 1 {
		t.Errorf("at the start: %+v, want one announcement by h1", is)
	}
	w.update(func(tx *network.Tx) error {
		return tx.SetHostDown(network.HostDown{Host: "h1", Reason: "no sign of life"})
	})
	if is := state(); is.host != "h2" || is.left != announceTimes {
		t.Errorf("after the take-over: %+v, want %d announcements by h2", is, announceTimes)
	}
	// The switch is not connected: the announcements stay due.
	now = now.Add(time.Minute)
	if is := state(); is.left != announceTimes {
		t.Errorf("without a connection: %+v", is)
	}
	w.update(func(tx *network.Tx) error {
		r := tx.Router(gateway.DeviceID).Clone()
		r.ExternalNetworkID = ""
		return tx.UpdateRouter(r)
	})
	if a.look(w.store.View(), now); len(a.announced) > 0 {
		t.Errorf("the gateway is gone, and announced are %v", a.announced)
	}
}
