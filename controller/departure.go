package controller

import (
	"context"
	"time"

	"planck/flows"
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
		case *network.Zone:
			if o.Ended != 0 {
				k.arrived[o.Host] = struct{}{}
			}
		case *network.Flush:
			k.arrived[o.Host] = struct{}{}
		case *network.Host:
			k.arrived[o.Name] = struct{}{}
		}
	}
}

// endDepartures frees the local VLANs of networks that left a host and the
// conntrack zones of ports and routers that did, and flushes the zones that shall
// be, once all its bridges have what followed from that. A host that is away
// keeps them.
// It tells when to look again.
func (k *tracker) endDepartures(ctx context.Context, v *network.View, now time.Time) (again time.Duration, err error) {
	var ended []*network.Departure
	var zones []*network.Zone
	var flushed []*network.Flush
	again = time.Hour
	unsettled := map[string]struct{}{}
	for host := range k.freeing {
		for d := range v.DeparturesOn(host) {
			if k.hosts.hostApplied(host, d.Revision) {
				ended = append(ended, d)
			}
		}
		zones = append(zones, k.flushedZones(v, host)...)
		done, wait := k.flush(v, host, now)
		flushed = append(flushed, done...)
		if wait > 0 {
			unsettled[host] = struct{}{}
			again = min(again, wait)
		}
	}
	if len(ended)+len(zones)+len(flushed) > 0 {
		_, err := k.store.Update(ctx, network.Cause{Operation: "free local VLANs and zones"}, func(tx *network.Tx) error {
			tx.FreeZones(zones)
			tx.EndFlushes(flushed)
			return tx.EndDepartures(ended)
		})
		if err != nil {
			return 0, err
		}
	}
	k.freeing = unsettled
	return again, nil
}

// flushedZones are the zones of a host that may be given to others: nothing
// there uses them, and their connections are flushed.
func (k *tracker) flushedZones(v *network.View, host string) []*network.Zone {
	var ended []*network.Zone
	var numbers []uint16
	for z := range v.EndedZonesOn(host) {
		if k.hosts.hostApplied(host, z.Ended) {
			ended = append(ended, z)
			numbers = append(numbers, z.Number)
		}
	}
	if len(ended) == 0 || !k.hosts.flushZones(host, numbers) {
		return nil
	}
	return ended
}

// revalidation is more than a switch takes to bring its cached flows in line
// with its tables (Open vSwitch: max-revalidator, 500 ms). Until then packets may
// still be translated as before, and begin connections so.
const revalidation = 2 * time.Second

// flush makes a host forget the connections of zones: once it has the flows,
// and again when nothing can bring them back. It returns what is done by that,
// and how long the rest has to wait.
func (k *tracker) flush(v *network.View, host string, now time.Time) (done []*network.Flush, wait time.Duration) {
	var numbers []uint16
	var first []network.Flush
	for f := range v.FlushesOn(host) {
		if !k.hosts.hostApplied(host, f.Revision) {
			continue // looked at again when it has
		}
		began, ok := k.flushing[*f]
		if left := revalidation - now.Sub(began); ok && left > 0 {
			wait = max(wait, left)
			continue
		}
		numbers = append(numbers, f.Zone)
		if ok {
			done = append(done, f)
			continue
		}
		first = append(first, *f)
	}
	if len(numbers) == 0 || !k.hosts.flushZones(host, numbers) {
		return nil, wait
	}
	for _, f := range first {
		k.flushing[f] = now
		wait = max(wait, revalidation)
	}
	for _, f := range done {
		delete(k.flushing, *f)
	}
	return done, wait
}

// flushZones implements hosts.
func (c *Controller) flushZones(host string, zones []uint16) bool {
	c.mu.RLock()
	t := c.hosts[host][network.BridgeIntegration]
	c.mu.RUnlock()
	if t == nil {
		return false
	}
	s := t.connected()
	return s != nil && s.flushZones(zones)
}

// flushZones queues the messages; the switch handles them in order.
func (s *session) flushZones(zones []uint16) bool {
	var b []byte
	for _, zone := range zones {
		b = flows.AppendCTFlushZone(b, xidUnmatched, zone)
	}
	return s.out.trySend(b)
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
