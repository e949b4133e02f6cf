package ovsdb

import (
	"cmp"
	"slices"

	"planck/network"
	"planck/ovsdb/vswitch"
)

const keyAttachedMAC = "attached-mac"

// Interfaces is what the database of a host tells now of the interfaces with the
// id of a port, on whatever bridge: nil where there are none, and for a host that
// is not connected.
func (s *Server) Interfaces(host, portID string) (found []network.InterfaceReport) {
	rows := s.rowsOf(host)
	if rows == nil {
		return nil
	}
	for name, b := range rows.bridges {
		for _, port := range b.ports {
			for _, i := range port.interfaces {
				if i.ExternalIDs[keyIfaceID] == portID {
					found = append(found, reportOf(name, i))
				}
			}
		}
	}
	slices.SortFunc(found, func(a, b network.InterfaceReport) int {
		return cmp.Or(cmp.Compare(a.Bridge, b.Bridge), cmp.Compare(a.Name, b.Name))
	})
	return found
}

func reportOf(bridge string, i *vswitch.Interface) network.InterfaceReport {
	r := network.InterfaceReport{Name: i.Name, Bridge: bridge, OFPort: ofport(i), AttachedMAC: i.ExternalIDs[keyAttachedMAC]}
	if i.MTU != nil {
		r.MTU = *i.MTU
	}
	if i.Error != nil {
		r.Error = *i.Error
	}
	r.NoLink = i.LinkState != nil && *i.LinkState == vswitch.InterfaceLinkStateDown
	return r
}

// WireMTU is the least MTU of the wires of a mapped bridge of a host, and the
// wire that has it; 0 when none is told.
func (s *Server) WireMTU(host, bridge string) (mtu int, wire string) {
	rows := s.rowsOf(host)
	if rows == nil || rows.bridges[bridge] == nil {
		return 0, ""
	}
	for _, port := range rows.bridges[bridge].ports {
		for _, i := range port.interfaces {
			if isWire(i) && i.MTU != nil && (mtu == 0 || *i.MTU < mtu) {
				mtu, wire = *i.MTU, i.Name
			}
		}
	}
	return mtu, wire
}

// rowsOf are the rows of the database of a host, nil when it is not connected.
func (s *Server) rowsOf(host string) *snapshot {
	s.mu.Lock()
	c := s.hosts[host]
	s.mu.Unlock()
	if c == nil {
		return nil
	}
	rows, err := takeSnapshot(c.rows)
	if err != nil {
		return nil // between two tables of one update
	}
	return rows
}
