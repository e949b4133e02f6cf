package controller

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"planck/network"
)

// explainHost tells how a host is connected, what it carries, and what is wrong there.
func explainHost(v *network.View, h *network.Host, w witness) *Explanation {
	e := newExplanation(Resource{kindHost, h.Name, ""})
	e.Status = "live"
	e.tellHost(v, h)
	if !w.hostLive(h.Name) {
		e.Status = "away"
		e.find("its br-int is not connected by OpenFlow; it goes on with the flows that it has", "is ovs-vswitchd running there, and does it reach the controller?")
	}
	if !w.reports(h.Name) {
		e.find("its database is not connected: what is plugged there is not known, and its switch may stand still", "is ovsdb-server running there, and does it reach the controller (ovs-vsctl get-manager)?")
	}
	if others := sharesTunnelIP(v, h); len(others) > 0 {
		e.find(sharedTunnelIP(h, others), "give each host its own external_ids:planck-local-ip")
	}
	if !h.TunnelIP.IsValid() {
		e.find("it has no tunnel address: ports of tunnelled networks can't be bound there", "ovs-vsctl set Open_vSwitch . external_ids:planck-local-ip=ADDRESS")
	}
	switch down := v.HostDown(h.Name); {
	case down == nil:
	case down.Unwired:
		e.find("it carries no gateways: "+down.Reason, "it carries them again when it has been well for a while")
	default:
		e.find("it seems to be cut off from other hosts: "+down.Reason, "is its link to them up, and its ovs-vswitchd running? It carries no gateways until it has been well for a while")
	}
	e.found(refusedOn(v, h, w)...)
	e.found(notActive(v, slices.Collect(v.PortsBoundTo(h.Name)))...)
	return e
}

func (e *Explanation) tellHost(v *network.View, h *network.Host) {
	tunnel := "no tunnel address"
	if h.TunnelIP.IsValid() {
		tunnel = "tunnel address " + h.TunnelIP.String()
	}
	e.about("%s, %s", strings.TrimSpace("Open vSwitch "+h.OVSVersion), tunnel)
	for _, physical := range slices.Sorted(maps.Keys(h.BridgeMappings)) {
		e.about("physical network %s on %s", physical, h.BridgeMappings[physical])
	}
	vifs, gateways := 0, 0
	for range v.VIFsOn(h.Name) {
		vifs++
	}
	for g := range v.GatewayPlacementsOn(h.Name) {
		if v.GatewayHost(g.RouterID) == h.Name {
			gateways++
		}
	}
	e.about("%d machines plugged, gateways of %d routers", vifs, gateways)
}

// refusedOn is which ports of a host lack flows that its switch refused.
func refusedOn(v *network.View, h *network.Host, w witness) []Finding {
	var names []string
	var why error
	for p := range v.PortsBoundTo(h.Name) {
		n := v.Network(p.NetworkID)
		if n == nil {
			continue
		}
		if err := w.hostRefused(h, n, p.Key); err != nil {
			names, why = append(names, portName(p)), err
		}
	}
	if why == nil {
		return nil
	}
	return []Finding{{fmt.Sprintf("its switch refuses flows that ports %s need: %s", some(names), why), "the log of the controller has each message that was refused"}}
}
