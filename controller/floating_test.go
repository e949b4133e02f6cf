package controller

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"planck/network"
)

func TestFloatingIPIsActiveWhenItsHostTranslatesIt(t *testing.T) {
	w := newWorld(t)
	public, gateway := w.external()
	n := w.network("blue")
	f := &network.FloatingIP{FloatingNetworkID: public.ID}
	var vm *network.Port
	w.update(func(tx *network.Tx) error {
		s := &network.Subnet{NetworkID: n.ID, CIDR: netip.MustParsePrefix("10.0.0.0/24"), GatewayIP: netip.MustParseAddr("10.0.0.1")}
		if err := tx.CreateSubnet(s); err != nil {
			return err
		}
		_, err := tx.AddRouterInterface(gateway.DeviceID, s.ID, "")
		return err
	})
	vm = w.vm(n, "h1")
	w.plug("h1", vm)
	f.PortID = vm.ID
	w.update(func(tx *network.Tx) error { return tx.CreateFloatingIP(f) })
	status := func(want string) {
		t.Helper()
		eventually(t, 20*time.Second, func() error {
			v := w.store.View()
			if got := v.FloatingIPStatus(v.FloatingIP(f.ID)); got != want {
				return fmt.Errorf("floating IP is %s, want %s", got, want)
			}
			return nil
		})
	}
	w.start(nil)
	if f := w.store.View().FloatingIP(f.ID); w.store.View().FloatingIPStatus(f) != network.StatusDown {
		t.Error("no switch is there, and the floating IP is ACTIVE")
	}
	w.switches(1)
	status(network.StatusActive)
	w.update(func(tx *network.Tx) error {
		off := tx.FloatingIP(f.ID).Clone()
		off.PortID, off.FixedIP = "", netip.Addr{}
		return tx.UpdateFloatingIP(off)
	})
	status(network.StatusDown)
	w.update(func(tx *network.Tx) error {
		on := tx.FloatingIP(f.ID).Clone()
		on.PortID = vm.ID
		return tx.UpdateFloatingIP(on)
	})
	status(network.StatusActive)
}
