package controller

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"planck/network"
)

func TestPortIsReadyWhereItMayMoveToAndAnnouncesItself(t *testing.T) {
	k, here, _ := twoHosts(t)
	k.acknowledge("h1")
	k.plug("h1", here)
	k.eventuallyStatus(here, network.StatusActive)
	k.set(func() { k.has["h2"] = 0 })

	k.update(func(tx *network.Tx) error {
		if err := tx.CreateBinding(here.ID, network.Binding{Host: "h2"}); err != nil {
			return err
		}
		vifs := []network.VIF{{PortID: here.ID, Name: "moving", OFPort: 99}}
		for v := range tx.VIFsOn("h2") {
			vifs = append(vifs, *v)
		}
		return tx.SyncVIFs("h2", vifs)
	})
	k.stays(here, network.StatusActive, 50*time.Millisecond)
	if k.store.View().ReadyOn(here.ID, "h2") {
		t.Fatal("ready on a host that has not acknowledged")
	}
	k.acknowledge("h2")
	eventually(t, 20*time.Second, func() error {
		if !k.store.View().ReadyOn(here.ID, "h2") {
			return fmt.Errorf("not ready on h2")
		}
		return nil
	})
	k.update(func(tx *network.Tx) error { return tx.ActivateBinding(here.ID, "h2") })
	k.eventuallyStatus(here, network.StatusActive)
	eventually(t, 20*time.Second, func() error {
		k.mu.Lock()
		defer k.mu.Unlock()
		if want := []string{here.ID + "@h2"}; !slices.Equal(k.announced, want) {
			return fmt.Errorf("announced %q, want %q", k.announced, want)
		}
		return nil
	})
}

func TestAnnouncementsAreGratuitousARPOrReverseARP(t *testing.T) {
	p := &network.Port{MAC: network.MAC{0xfa, 0x16, 0x3e, 0, 0, 9}, FixedIPs: []network.FixedIP{
		{IP: netip.MustParseAddr("2001:db8::9")}, {IP: netip.MustParseAddr("10.0.0.9")},
	}}
	frames := announcements(p)
	var q arpQuestion
	if len(frames) != 1 || q.parse(frames[0]) != dropGratuitous || q.sha != p.MAC || q.ethSrc != p.MAC || q.tpa.String() != "10.0.0.9" {
		t.Errorf("with an IPv4 address: %x", frames)
	}
	p.FixedIPs = p.FixedIPs[:1]
	frames = announcements(p)
	want := []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfa, 0x16, 0x3e, 0, 0, 9, 0x80, 0x35, 0, 1, 8, 0, 6, 4, 0, 3,
		0xfa, 0x16, 0x3e, 0, 0, 9, 0, 0, 0, 0, 0xfa, 0x16, 0x3e, 0, 0, 9, 0, 0, 0, 0}
	if len(frames) != 1 || !bytes.Equal(frames[0], want) {
		t.Errorf("without an IPv4 address: %x", frames)
	}
}
