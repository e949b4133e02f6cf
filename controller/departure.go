package controller

import (
	"context"

	"planck/network"
)

// applied tells that a bridge of a host has got what was desired of it.
func (k *tracker) applied(host string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.arrived[host] = struct{}{}
	k.wake()
}

// noteDepartures makes the hosts be looked at whose departures or bridges
// changed. The caller holds k.mu.
func (k *tracker) noteDepartures(b network.Batch) {
	for _, ch := range b.Changes {
		switch o := ch.After.(type) {
		case *network.Departure:
			k.arrived[o.Host] = struct{}{}
		case *network.Host:
			k.arrived[o.Name] = struct{}{}
		}
	}
}

// endDepartures frees the local VLANs of networks that left a host, once all
// its bridges have what followed from that. A host that is away keeps them.
func (k *tracker) endDepartures(ctx context.Context, v *network.View) error {
	var ended []*network.Departure
	for host := range k.freeing {
		for d := range v.DeparturesOn(host) {
			if k.hosts.hostApplied(host, d.Revision) {
				ended = append(ended, d)
			}
		}
	}
	if len(ended) > 0 {
		_, err := k.store.Update(ctx, network.Cause{Operation: "free local VLANs"}, func(tx *network.Tx) error {
			return tx.EndDepartures(ended)
		})
		if err != nil {
			return err
		}
	}
	clear(k.freeing)
	return nil
}

// hostApplied implements hosts.
func (c *Controller) hostApplied(name string, revision uint64) bool {
	c.mu.RLock()
	defer c.mu.RUnlock()
	bridges := c.hosts[name]
	if bridges[network.BridgeIntegration] == nil || bridges[network.BridgeTunnel] == nil {
		return false
	}
	for _, t := range bridges {
		if !t.has(revision) {
			return false
		}
	}
	return true
}
