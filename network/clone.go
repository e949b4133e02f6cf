package network

import (
	"maps"
	"slices"
)

// Clone returns a copy that may be modified.
func (n *Network) Clone() *Network {
	c := *n
	c.Standard = n.clone()
	c.AZHints = slices.Clone(n.AZHints)
	c.More = slices.Clone(n.More)
	return &c
}

// Clone returns a copy that may be modified.
func (s *Subnet) Clone() *Subnet {
	c := *s
	c.Standard = s.clone()
	c.DNSNameservers = slices.Clone(s.DNSNameservers)
	c.AllocationPools = slices.Clone(s.AllocationPools)
	c.HostRoutes = slices.Clone(s.HostRoutes)
	c.ServiceTypes = slices.Clone(s.ServiceTypes)
	return &c
}

// Clone returns a copy that may be modified.
func (p *Port) Clone() *Port {
	c := *p
	c.Standard = p.clone()
	c.FixedIPs = slices.Clone(p.FixedIPs)
	c.SecurityGroups = slices.Clone(p.SecurityGroups)
	c.AllowedAddressPairs = slices.Clone(p.AllowedAddressPairs)
	c.ExtraDHCPOpts = slices.Clone(p.ExtraDHCPOpts)
	c.Binding = p.Binding.clone()
	c.Inactive = slices.Clone(p.Inactive)
	for i := range c.Inactive {
		c.Inactive[i] = c.Inactive[i].clone()
	}
	return &c
}

// Clone returns a copy that may be modified.
func (h *Host) Clone() *Host {
	c := *h
	c.BridgeMappings = maps.Clone(h.BridgeMappings)
	c.Bridges = maps.Clone(h.Bridges)
	for name, b := range c.Bridges {
		c.Bridges[name] = Bridge{
			DatapathID: b.DatapathID,
			Patches:    maps.Clone(b.Patches),
			Tunnels:    maps.Clone(b.Tunnels),
		}
	}
	return &c
}

// Clone returns a copy that may be modified.
func (r *Router) Clone() *Router {
	c := *r
	c.Standard = r.clone()
	c.Routes = slices.Clone(r.Routes)
	c.AZHints = slices.Clone(r.AZHints)
	return &c
}

// Clone returns a copy that may be modified.
func (f *FloatingIP) Clone() *FloatingIP {
	c := *f
	c.Standard = f.clone()
	return &c
}

func (s *Standard) clone() Standard {
	c := *s
	c.Tags = slices.Clone(s.Tags)
	return c
}

func (b Binding) clone() Binding {
	b.Profile = maps.Clone(b.Profile)
	b.VIFDetails = maps.Clone(b.VIFDetails)
	return b
}

// The database keeps no difference between an empty list and none; neither
// does what is in memory, so that it is the same after a restart.

func (s *Standard) trim() { s.Tags = orNil(s.Tags) }

func (n *Network) trim() {
	n.Standard.trim()
	n.AZHints = orNil(n.AZHints)
}

func (s *Subnet) trim() {
	s.Standard.trim()
	s.DNSNameservers = orNil(s.DNSNameservers)
	s.HostRoutes = orNil(s.HostRoutes)
	s.ServiceTypes = orNil(s.ServiceTypes)
	if s.AllocationPools == nil {
		s.AllocationPools = []Range{}
	}
}

func (p *Port) trim() {
	p.Standard.trim()
	p.FixedIPs = orNil(p.FixedIPs)
	p.SecurityGroups = orNil(p.SecurityGroups)
	p.AllowedAddressPairs = orNil(p.AllowedAddressPairs)
	p.ExtraDHCPOpts = orNil(p.ExtraDHCPOpts)
	p.Binding.trim()
	p.Inactive = orNil(p.Inactive)
	for i := range p.Inactive {
		p.Inactive[i].trim()
	}
}

func (b *Binding) trim() {
	b.Profile = mapOrNil(b.Profile)
	b.VIFDetails = mapOrNil(b.VIFDetails)
}

func (h *Host) trim() {
	h.BridgeMappings = mapOrNil(h.BridgeMappings)
	h.Bridges = mapOrNil(h.Bridges)
	for name, b := range h.Bridges {
		b.Patches, b.Tunnels = mapOrNil(b.Patches), mapOrNil(b.Tunnels)
		h.Bridges[name] = b
	}
}

func (r *Router) trim() {
	r.Standard.trim()
	r.Routes = orNil(r.Routes)
	r.AZHints = orNil(r.AZHints)
}

func orNil[T any](s []T) []T {
	if len(s) == 0 {
		return nil
	}
	return s
}

func mapOrNil[K comparable, V any](m map[K]V) map[K]V {
	if len(m) == 0 {
		return nil
	}
	return m
}
