package lab

// Status is what planck-lab ps shows.
type Status struct {
	Name               string       `json:"name"`
	Dir                string       `json:"dir"`
	ControllerIP       string       `json:"controller_ip"`
	InBandControllerIP string       `json:"in_band_controller_ip"`
	Controllers        []string     `json:"controllers"`
	Nodes              []NodeStatus `json:"nodes"`
}

// NodeStatus is one line of it.
type NodeStatus struct {
	Name      string   `json:"name"`
	Kind      Kind     `json:"kind"`
	Namespace string   `json:"namespace"`
	Addresses []string `json:"addresses,omitempty"` // those the lab knows: leased ones included
	// Hypervisors and the physical switch.
	LocalIP     string `json:"local_ip,omitempty"`
	InBand      bool   `json:"in_band,omitempty"`
	OvsdbPID    int    `json:"ovsdb_server_pid,omitempty"` // 0: not running
	VswitchdPID int    `json:"ovs_vswitchd_pid,omitempty"` // 0: not running
	// VMs.
	Host string  `json:"host,omitempty"`
	Tap  string  `json:"tap,omitempty"`
	Port *VMPort `json:"port,omitempty"`
	// Physical hosts: 0 is untagged.
	VLAN int `json:"vlan,omitempty"`
}

// Status is what the lab consists of now.
func (l *Lab) Status() Status {
	s := Status{
		Name:               l.rec.Name,
		Dir:                l.Dir(),
		ControllerIP:       l.ControllerIP(),
		InBandControllerIP: l.InBandControllerIP(),
		Controllers:        append([]string{}, l.rec.Controllers...),
		Nodes:              []NodeStatus{},
	}
	for _, rec := range l.records() {
		s.Nodes = append(s.Nodes, l.nodeStatus(rec))
	}
	return s
}

func (l *Lab) nodeStatus(rec record) NodeStatus {
	n := l.nodeOf(rec)
	s := NodeStatus{Name: rec.Name, Kind: rec.Kind, Namespace: n.Namespace(), Addresses: rec.Addrs, VLAN: rec.VLAN}
	switch rec.Kind {
	case KindHost:
		h := l.hostOf(rec)
		s.LocalIP, s.InBand, s.Addresses = h.LocalIP(), rec.InBand, []string{h.ManagementIP()}
		s.OvsdbPID, s.VswitchdPID = h.OvsdbPID(), h.VswitchdPID()
	case KindSwitch:
		s.OvsdbPID, s.VswitchdPID = l.physSwitch().OvsdbPID(), l.physSwitch().VswitchdPID()
	case KindVM:
		s.Host, s.Port, s.Tap = rec.Host, rec.Port, rec.Port.tap()
	}
	if lease, err := n.Lease(); err == nil {
		s.Addresses = append(s.Addresses, lease.Addr.String())
	}
	return s
}
