package network

import (
	"cmp"
	"iter"
	"slices"
)

// Readiness says that a host has all flows for a port that is plugged there
// while another host has its active binding: the port can move (extension
// binding-extended).
type Readiness struct {
	PortID string `json:"port_id"`
	Host   string `json:"host"`
}

// ObjectKind implements Object.
func (*Readiness) ObjectKind() Kind { return KindReadiness }

// ObjectID implements Object.
func (r *Readiness) ObjectID() string { return VIFID(r.PortID, r.Host) }

// ReadinessOf lists the hosts that a port can move to.
func (v *View) ReadinessOf(portID string) iter.Seq[*Readiness] {
	return list[Readiness](v, KindReadiness, IndexReadinessOf, portID)
}

// ReadyOn reports whether a host is known to have all flows for a port that may move there.
func (v *View) ReadyOn(portID, host string) bool {
	return byID[Readiness](v, KindReadiness, VIFID(portID, host)) != nil
}

// InactivePortsOn are the ports of a network with an inactive binding to a host.
func (v *View) InactivePortsOn(networkID, host string) iter.Seq[*Port] {
	return list[Port](v, KindPort, IndexInactivePortsOn, PresenceID(networkID, host))
}

// AwaitedOn reports whether a port is plugged on a host to which it has an
// inactive binding: flows are made ready there.
func (v *View) AwaitedOn(p *Port, host string) bool {
	b := p.InactiveBinding(host)
	return b != nil && b.VIFType == VIFTypeOVS && v.VIF(p.ID, host) != nil
}

// InactiveBinding is the binding that waits on a host, or nil.
func (p *Port) InactiveBinding(host string) *Binding {
	for i := range p.Inactive {
		if p.Inactive[i].Host == host {
			return &p.Inactive[i]
		}
	}
	return nil
}

// keepInactive notes a binding that waits on its host.
func (p *Port) keepInactive(b Binding) {
	p.dropInactive(b.Host)
	p.Inactive = append(p.Inactive, b)
	slices.SortFunc(p.Inactive, func(a, b Binding) int { return cmp.Compare(a.Host, b.Host) })
}

// dropInactive forgets the binding that waits on a host.
func (p *Port) dropInactive(host string) {
	p.Inactive = orNil(slices.DeleteFunc(slices.Clone(p.Inactive), func(b Binding) bool { return b.Host == host }))
}

func bindingNotFound(portID, host string) *Error {
	return Errorf(NotFound, "PortBindingNotFound", "Binding for port %s for host %s could not be found.", portID, host)
}

// CreateBinding adds an inactive binding to a port; Host, VNICType and Profile
// are input. One that was left behind on the same host is replaced: it must not
// block the next try. It fails where the port can't be bound.
func (tx *Tx) CreateBinding(portID string, b Binding) error {
	return tx.changeBindings(portID, func(p *Port) error {
		if b.Host == p.Binding.Host {
			return Errorf(Conflict, "PortBindingAlreadyExists", "Binding for port %s on host %s already exists.", portID, b.Host)
		}
		return tx.addInactive(p, b)
	})
}

// UpdateBinding replaces an inactive binding of a port by a modified one. The
// active one is part of the port.
func (tx *Tx) UpdateBinding(portID string, b Binding) error {
	return tx.changeBindings(portID, func(p *Port) error {
		if p.InactiveBinding(b.Host) == nil {
			return bindingNotFound(portID, b.Host)
		}
		return tx.addInactive(p, b)
	})
}

func (tx *Tx) addInactive(p *Port, b Binding) error {
	if err := tx.tryBind(p, &b); err != nil {
		return err
	}
	p.keepInactive(b)
	return nil
}

func (tx *Tx) tryBind(p *Port, b *Binding) error {
	b.ByPlug = false
	tx.bind(tx.Network(p.NetworkID), b)
	if b.VIFType == VIFTypeBindingFailed {
		return Errorf(Conflict, "PortBindingError", "Binding for port %s on host %s could not be created or updated.", p.ID, b.Host)
	}
	return nil
}

// ActivateBinding makes an inactive binding the active one, which stays behind
// as an inactive one that nothing is made ready for.
func (tx *Tx) ActivateBinding(portID, host string) error {
	return tx.changeBindings(portID, func(p *Port) error {
		if p.Binding.Host == host {
			return Errorf(Conflict, "PortBindingAlreadyActive", "Binding for port %s on host %s is already active.", portID, host)
		}
		b := p.InactiveBinding(host)
		if b == nil {
			return bindingNotFound(portID, host)
		}
		next, was := b.clone(), p.Binding
		if err := tx.tryBind(p, &next); err != nil {
			return err
		}
		p.dropInactive(host)
		p.Binding = next
		if was.Host == "" {
			return nil
		}
		was.VIFType, was.VIFDetails, was.ByPlug = VIFTypeUnbound, nil, false
		p.keepInactive(was)
		return nil
	})
}

// DeleteBinding removes the binding of a port to a host; without its active one
// a port is unbound.
func (tx *Tx) DeleteBinding(portID, host string) error {
	return tx.changeBindings(portID, func(p *Port) error {
		if p.Binding.Host == host && host != "" {
			p.Binding = Binding{VNICType: p.Binding.VNICType, Profile: p.Binding.Profile}
			tx.bind(nil, &p.Binding)
			return nil
		}
		if p.InactiveBinding(host) == nil {
			return bindingNotFound(portID, host)
		}
		p.dropInactive(host)
		return nil
	})
}

// changeBindings writes a port whose bindings fn changed.
func (tx *Tx) changeBindings(portID string, fn func(p *Port) error) error {
	old := tx.Port(portID)
	if old == nil {
		return portNotFound(portID)
	}
	p := old.Clone()
	if err := fn(p); err != nil {
		return err
	}
	if changed, err := replace(tx, old, p); err != nil || !changed {
		return err
	}
	return tx.settlePort(old, p)
}

// SetReady notes that a host has all flows for a port that is plugged there and
// may move there. It is ignored when that is no longer so.
func (tx *Tx) SetReady(portID, host string) error {
	p := tx.Port(portID)
	if p == nil || !tx.AwaitedOn(p, host) || tx.ReadyOn(portID, host) {
		return nil
	}
	return tx.put(&Readiness{PortID: portID, Host: host})
}

// settleReadiness forgets on which hosts a port was ready and is no longer awaited.
func (tx *Tx) settleReadiness(p *Port) {
	for _, r := range slices.Collect(tx.ReadinessOf(p.ID)) {
		if now := tx.Port(p.ID); now == nil || !tx.AwaitedOn(now, r.Host) {
			tx.remove(KindReadiness, r.ObjectID())
		}
	}
}

// hostsOf lists the hosts that a port has bindings to; nil has none.
func (p *Port) hostsOf() []string {
	if p == nil {
		return nil
	}
	hosts := []string{p.Binding.Host}
	for _, b := range p.Inactive {
		hosts = append(hosts, b.Host)
	}
	return hosts
}
