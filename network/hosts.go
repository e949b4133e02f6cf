package network

import (
	"reflect"
	"slices"
)

// vnicNormal is the only kind of interface that is wired so far.
const vnicNormal = "normal"

// datapathSystem is the kernel's, and Open vSwitch's default.
const datapathSystem = "system"

// localVLANs are those that a host can give to its networks.
var localVLANs = []IDRange{{minVLAN, maxVLAN}}

func hostNotFound(name string) *Error {
	return Errorf(NotFound, "HostNotFound", "Host %s could not be found.", name)
}

// PutHost notes the facts about a host. Key is filled in. Facts that are known
// already change nothing. Ports whose binding failed for want of the host, its
// bridge mapping or its tunnel are bound.
func (tx *Tx) PutHost(h *Host) error {
	old := tx.Host(h.Name)
	if old == nil {
		key, err := tx.smallID(spaceHostKey)
		if err != nil {
			return err
		}
		h.Key = key
	} else {
		h.Key = old.Key
	}
	h.trim()
	if old != nil && reflect.DeepEqual(h, old) {
		return nil
	}
	if err := tx.put(h.Clone()); err != nil {
		return err
	}
	if old == nil || !old.carriesLike(h) {
		if err := tx.settlePlacements(h.Name); err != nil {
			return err
		}
		if err := tx.settleFloatingOn(h.Name); err != nil {
			return err
		}
	}
	if old != nil && old.bindsLike(h) {
		return nil
	}
	return tx.bindAgain(h.Name)
}

// bindAgain repeats the binding of the ports of a host whose facts changed. A
// binding that was made is not taken back.
func (tx *Tx) bindAgain(host string) error {
	for _, old := range slices.Collect(tx.PortsBoundTo(host)) {
		p := old.Clone()
		tx.bind(tx.Network(p.NetworkID), &p.Binding)
		if p.Binding.VIFType == VIFTypeBindingFailed || reflect.DeepEqual(p.Binding, old.Binding) {
			continue
		}
		tx.bump(&p.Standard, old.Standard)
		if err := tx.put(p); err != nil {
			return err
		}
		if err := tx.settlePort(old, p); err != nil {
			return err
		}
	}
	return nil
}

// bind fills what follows from a binding's host: VIFType and VIFDetails.
func (tx *Tx) bind(n *Network, b *Binding) {
	if b.VNICType == "" {
		b.VNICType = vnicNormal
	}
	b.VIFDetails = nil
	if b.Host == "" {
		b.VIFType, b.ByPlug = VIFTypeUnbound, false
		return
	}
	h := tx.Host(b.Host)
	if h == nil || b.VNICType != vnicNormal || !h.reaches(n) {
		b.VIFType = VIFTypeBindingFailed
		return
	}
	b.VIFType, b.VIFDetails = VIFTypeOVS, h.vifDetails()
}

// reaches reports whether frames of a network can come to the host and leave it.
func (h *Host) reaches(n *Network) bool {
	n = n.On(h)
	switch {
	case n.Tunnelled():
		return h.TunnelIP.IsValid() && h.Bridges[BridgeTunnel].Tunnels[n.NetworkType] != 0
	case n.Provider():
		_, ok := h.BridgeMappings[n.PhysicalNetwork]
		return ok
	}
	return true
}

// bindsLike reports whether a port is bound to both states of a host alike.
func (h *Host) bindsLike(o *Host) bool {
	return h.DatapathType == o.DatapathType && h.TunnelIP == o.TunnelIP &&
		reflect.DeepEqual(h.BridgeMappings, o.BridgeMappings) &&
		reflect.DeepEqual(h.Bridges[BridgeTunnel].Tunnels, o.Bridges[BridgeTunnel].Tunnels)
}

// vifDetails is what os-vif needs to know to plug an interface on the host.
func (h *Host) vifDetails() map[string]any {
	datapath := h.DatapathType
	if datapath == "" {
		datapath = datapathSystem
	}
	details := map[string]any{
		"port_filter":     true,
		"ovs_hybrid_plug": false,
		"datapath_type":   datapath,
		"bridge_name":     BridgeIntegration,
		"connectivity":    "l2",
		"bound_drivers":   map[string]any{"0": "ovs"},
	}
	if datapath == datapathSystem {
		details["ovs_create_tap"] = true
	}
	return details
}

// DeleteHost forgets a host with its interfaces. Ports stay bound to it.
func (tx *Tx) DeleteHost(name string) error {
	if tx.Host(name) == nil {
		return hostNotFound(name)
	}
	if err := tx.SyncVIFs(name, nil); err != nil {
		return err
	}
	tx.remove(KindHostDown, name)
	tx.remove(KindAgent, name)
	tx.remove(KindHost, name)
	if err := tx.settlePlacements(name); err != nil {
		return err
	}
	for _, d := range slices.Collect(tx.DeparturesOn(name)) {
		tx.remove(KindDeparture, d.ObjectID())
	}
	tx.forgetZones(name)
	return nil
}

// SyncVIFs notes the whole set of interfaces that are plugged on a host. A set
// that is known already changes nothing. An unbound port is bound by its plug;
// one that was bound so, and is no longer plugged there, moves along. A port
// whose interface on the bound host is gone is DOWN.
func (tx *Tx) SyncVIFs(host string, vifs []VIF) error {
	if tx.Host(host) == nil {
		return hostNotFound(host)
	}
	now := make(map[string]VIF, len(vifs))
	for _, v := range vifs {
		v.Host = host
		now[v.PortID] = v
	}
	var changed []string
	for _, old := range slices.Collect(tx.VIFsOn(host)) {
		v, ok := now[old.PortID]
		if ok && v == *old {
			delete(now, old.PortID)
			continue
		}
		if !ok {
			tx.remove(KindVIF, old.ObjectID())
			changed = append(changed, old.PortID)
		}
	}
	for id, v := range now {
		if err := tx.put(&v); err != nil {
			return err
		}
		changed = append(changed, id)
	}
	slices.Sort(changed)
	for _, id := range changed {
		if err := tx.settlePlug(id, host); err != nil {
			return err
		}
	}
	return nil
}

// settlePlug does what follows for a port from a change of its interface on a host.
func (tx *Tx) settlePlug(portID, host string) error {
	old := tx.Port(portID)
	if old == nil {
		return nil
	}
	p := old
	if to := tx.plugBinds(old, host); to != "" {
		p = old.Clone()
		p.Binding.Host, p.Binding.ByPlug = to, true
		p.dropInactive(to)
		tx.bind(tx.Network(p.NetworkID), &p.Binding)
		tx.bump(&p.Standard, old.Standard)
		if err := tx.put(p); err != nil {
			return err
		}
	}
	if !p.Service() && tx.VIF(p.ID, p.Binding.Host) == nil {
		tx.remove(KindPortStatus, p.ID)
	}
	return tx.settlePort(old, p)
}

// plugBinds is the host that a port gets bound to because its interface on a
// host changed; "" leaves the binding as it is.
func (tx *Tx) plugBinds(p *Port, host string) string {
	b := p.Binding
	plugged := tx.VIF(p.ID, host) != nil
	switch {
	case b.Host == "" && plugged:
		return host
	case b.Host == "" || !b.ByPlug || tx.VIF(p.ID, b.Host) != nil:
		return ""
	}
	if v := tx.anyVIF(p.ID); v != nil {
		return v.Host
	}
	return ""
}
