package ovsdb

import (
	"fmt"
	"slices"

	"github.com/ovn-kubernetes/libovsdb/cache"
	"github.com/ovn-kubernetes/libovsdb/client"

	"planck/ovsdb/vswitch"
)

// snapshot is the database of a host at one moment, indexed. Its rows belong
// to the cache of libovsdb and are read only.
type snapshot struct {
	root        *vswitch.OpenvSwitch
	bridges     map[string]*bridgeRows // by name
	ports       map[string]string      // port name → bridge name
	controllers map[string]*vswitch.Controller
	managers    []*vswitch.Manager
}

// bridgeRows is a bridge with the rows that it refers to.
type bridgeRows struct {
	*vswitch.Bridge
	ports       map[string]portRows // by name
	controllers []*vswitch.Controller
}

type portRows struct {
	*vswitch.Port
	interfaces []*vswitch.Interface
}

// only is the interface of a port that has one, as all of ours do.
func (p portRows) only() *vswitch.Interface {
	if len(p.interfaces) != 1 {
		return nil
	}
	return p.interfaces[0]
}

// monitored names what to monitor: all of Interface would be 3.5 KiB a row, and
// its statistics a constant stream.
func monitored() []client.MonitorOption {
	var (
		root       vswitch.OpenvSwitch
		bridge     vswitch.Bridge
		port       vswitch.Port
		iface      vswitch.Interface
		controller vswitch.Controller
		managers   vswitch.Manager
	)
	return []client.MonitorOption{
		client.WithTable(&root, &root.Bridges, &root.CurCfg, &root.ExternalIDs, &root.ManagerOptions, &root.NextCfg, &root.OVSVersion),
		client.WithTable(&bridge, &bridge.Name, &bridge.DatapathType, &bridge.DatapathID, &bridge.Ports, &bridge.Controller,
			&bridge.FailMode, &bridge.Protocols, &bridge.OtherConfig, &bridge.ExternalIDs),
		client.WithTable(&port, &port.Name, &port.Interfaces, &port.ExternalIDs),
		client.WithTable(&iface, &iface.Name, &iface.Type, &iface.Options, &iface.Ofport, &iface.OfportRequest, &iface.ExternalIDs, &iface.Error,
			&iface.BFD, &iface.BFDStatus, &iface.LinkState, &iface.MTU),
		client.WithTable(&controller, &controller.Target, &controller.Type, &controller.MaxBackoff, &controller.InactivityProbe,
			&controller.ConnectionMode, &controller.ExternalIDs),
		client.WithTable(&managers, &managers.Target, &managers.MaxBackoff, &managers.InactivityProbe),
	}
}

// takeSnapshot fails when the rows don't fit together: the cache is between two
// tables of one update, and the next event is on its way.
func takeSnapshot(c *cache.TableCache) (*snapshot, error) {
	roots := rows[vswitch.OpenvSwitch](c, vswitch.OpenvSwitchTable)
	bridges := rows[vswitch.Bridge](c, vswitch.BridgeTable)
	ports := rows[vswitch.Port](c, vswitch.PortTable)
	interfaces := rows[vswitch.Interface](c, vswitch.InterfaceTable)
	s := &snapshot{
		bridges:     make(map[string]*bridgeRows, len(bridges)),
		ports:       make(map[string]string, len(ports)),
		controllers: rows[vswitch.Controller](c, vswitch.ControllerTable),
	}
	for _, r := range roots {
		s.root = r
	}
	if s.root == nil {
		return nil, fmt.Errorf("the database has no Open_vSwitch row")
	}
	for _, id := range s.root.Bridges {
		row := bridges[id]
		if row == nil {
			return nil, fmt.Errorf("bridge %s is not there yet", id)
		}
		b, err := s.bridge(row, ports, interfaces)
		if err != nil {
			return nil, err
		}
		s.bridges[row.Name] = b
	}
	managers := rows[vswitch.Manager](c, vswitch.ManagerTable)
	for _, id := range s.root.ManagerOptions {
		if m := managers[id]; m != nil {
			s.managers = append(s.managers, m)
		}
	}
	return s, nil
}

func (s *snapshot) bridge(row *vswitch.Bridge, ports map[string]*vswitch.Port, interfaces map[string]*vswitch.Interface) (*bridgeRows, error) {
	b := &bridgeRows{Bridge: row, ports: make(map[string]portRows, len(row.Ports))}
	for _, id := range row.Ports {
		p := portRows{Port: ports[id]}
		if p.Port == nil {
			return nil, fmt.Errorf("bridge %s: port %s is not there yet", row.Name, id)
		}
		for _, id := range p.Interfaces {
			i := interfaces[id]
			if i == nil {
				return nil, fmt.Errorf("port %s: interface %s is not there yet", p.Name, id)
			}
			p.interfaces = append(p.interfaces, i)
		}
		b.ports[p.Name] = p
		s.ports[p.Name] = row.Name
	}
	for _, id := range slices.Sorted(slices.Values(row.Controller)) {
		c := s.controllers[id]
		if c == nil {
			return nil, fmt.Errorf("bridge %s: controller %s is not there yet", row.Name, id)
		}
		b.controllers = append(b.controllers, c)
	}
	return b, nil
}

func rows[T any](c *cache.TableCache, table string) map[string]*T {
	t := c.Table(table)
	if t == nil {
		return nil
	}
	shallow := t.RowsShallow()
	out := make(map[string]*T, len(shallow))
	for id, m := range shallow {
		if row, ok := any(m).(*T); ok {
			out[id] = row
		}
	}
	return out
}
