package pipeline

import (
	"math"

	"planck/flows"
)

// Meters of br-int, one for each class of punts.
const (
	meterDHCP   = 1
	meterARP    = 2
	meterPing   = 3
	meterRouter = 4
	meterND     = 5
	meterRA     = 6
	meterDHCPv6 = 7
)

// puntMeter wants the meter of a class of punts, when they are limited.
func puntMeter(c *Context, id uint32) {
	if rate := c.Options.PuntRatePerHost; rate > 0 {
		if id == meterMetadata {
			rate = uint32(min(uint64(rate)*metadataPunts, math.MaxUint32))
		}
		c.Meter(Integration, flows.NewMeterPPS(id, rate, rate))
	}
}

// metadataPunts is how many packets of its class a request for metadata may
// take: where others ask by one packet, it is a TCP connection.
const metadataPunts = 8

// PuntWeight is by how much the limits on punts are higher for a feature.
func PuntWeight(feature FeatureID) int {
	if feature == FeatureMetadata {
		return metadataPunts
	}
	return 1
}

// punt is the actions that send a packet to the controller through a meter.
func punt(c *Context, meter uint32) []flows.Action {
	if c.Options.PuntRatePerHost == 0 {
		return []flows.Action{flows.ToController(0xffff)}
	}
	return []flows.Action{flows.ApplyMeter(meter), flows.ToController(0xffff)}
}

// puntDropSeconds is how long a port that punts too much is silenced.
const puntDropSeconds = 1

// PuntDrop is the flow that silences the punts of one feature from one port for
// a second. It is false for a feature that does not punt.
func PuntDrop(feature FeatureID, portKey uint32) (flows.Flow, bool) {
	f := flows.Flow{
		Cookie:       uint64(MakeCookie(feature, FlagPuntDrop, portKey)),
		HardTimeout:  puntDropSeconds,
		Instructions: flows.Do(),
	}
	from := RegSource.Is(uint64(portKey))
	switch feature {
	case FeatureDHCP:
		f.Table, f.Priority = Services.ID, 150
		f.Match = flows.NewMatch(from, flows.IPv4, flows.UDP, flows.UDPDst.Is(udpBootpServer))
	case FeatureARP:
		f.Table, f.Priority = ArpNd.ID, arpPuntDrop
		f.Match = flows.NewMatch(from, flows.ARP, flows.ARPOp.Is(arpRequest))
	case FeatureND:
		f.Table, f.Priority = ArpNd.ID, arpPuntDrop
		f.Match = flows.NewMatch(from, flows.IPv6, flows.ICMPv6, flows.ICMPv6Type.Is(icmpNeighborSolicitation))
	case FeatureDHCPv6:
		f.Table, f.Priority = Services.ID, 150
		f.Match = flows.NewMatch(from, flows.IPv6, flows.UDP, flows.UDPDst.Is(udpDHCPv6Server))
	case FeatureRA:
		f.Table, f.Priority = Services.ID, 150
		f.Match = flows.NewMatch(from, flows.IPv6, flows.ICMPv6, flows.ICMPv6Type.Is(icmpRouterSolicitation))
	case FeaturePing6:
		f.Table, f.Priority = RouterAdmit.ID, admitSilenced
		f.Match = flows.NewMatch(from, flows.IPv6, flows.ICMPv6, flows.ICMPv6Type.Is(icmp6EchoRequest))
	case FeatureRouter:
		f.Table, f.Priority = RouterICMP.ID, 150
		f.Match = flows.NewMatch(from)
	case FeatureRouter6:
		f.Table, f.Priority = RouterICMP.ID, 151
		f.Match = flows.NewMatch(from, flows.IPv6)
	case FeatureMetadata:
		f.Table, f.Priority = Services.ID, 150
		f.Match = toMetadata(from)
	case FeatureNeighbor: // what asks for a neighbor, not answers, which have no source port
		f.Table, f.Priority = Snat.ID, natUnresolved+1
		f.Match = flows.NewMatch(from, unresolved)
	case FeatureHolder: // ARP goes on
		f.Table, f.Priority = Services.ID, claimSilenced
		f.Match, f.Instructions = flows.NewMatch(from, flows.ARP), flows.Do(To(ArpNd))
	default:
		return flows.Flow{}, false
	}
	return f, true
}
