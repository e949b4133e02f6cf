package network

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
)

func TestGatewayHostsAreWatchedByFewAndByBothSides(t *testing.T) {
	s := providerStore(t, providerConfig())
	n := newFlat(t, s)
	put := func(count int, mapped bool) {
		for i := range count {
			h := withTunnels(&Host{Name: fmt.Sprintf("%v%02d", mapped, i)})
			h.TunnelIP = netip.AddrFrom4([4]byte{10, 0, byte(count), byte(i)})
			if mapped {
				h.BridgeMappings = map[string]string{"physnet1": "br-ex"}
				h.Bridges["br-ex"] = Bridge{DatapathID: 3}
			}
			update(t, s, func(tx *Tx) error { return tx.PutHost(h) })
		}
	}
	put(40, false)
	put(1, true)
	newRouter(t, s, n)
	if w := s.View().GatewayWatch(); len(w) > 0 {
		t.Errorf("nobody could take over, and watched is %v", w)
	}
	put(3, true)
	v := s.View()
	watch := v.GatewayWatch()
	for host, peers := range watch {
		gateway := v.Host(host).BridgeMappings != nil
		if gateway && (len(peers) < maxWatchers || len(peers) > maxWatchers+2) {
			t.Errorf("%s is watched by %d hosts: %v", host, len(peers), peers)
		}
		for _, peer := range peers {
			if peer == host || !slices.Contains(watch[peer], host) {
				t.Errorf("%s watches %s, which watches %v", host, peer, watch[peer])
			}
			if !gateway && v.Host(peer).BridgeMappings == nil {
				t.Errorf("%s watches %s, and neither is a gateway host", host, peer)
			}
		}
	}
	// A host more changes little.
	before := watch["true00"]
	update(t, s, func(tx *Tx) error {
		h := withTunnels(&Host{Name: "another"})
		h.TunnelIP = mustAddr("10.9.9.9")
		return tx.PutHost(h)
	})
	gone := 0
	for _, peer := range before {
		if !slices.Contains(s.View().GatewayWatch()["true00"], peer) {
			gone++
		}
	}
	if gone > 1 {
		t.Errorf("one host came, and %d watchers of %v changed", gone, before)
	}
}
