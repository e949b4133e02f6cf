package ovsdb

import (
	"maps"
	"slices"
	"strings"

	"github.com/ovn-kubernetes/libovsdb/client"

	"planck/network"
	"planck/ovsdb/vswitch"
)

// keyMark is the key of external_ids that marks rows as Planck's; its value
// says what the row is.
const (
	keyMark          = "planck"
	markBridge       = "bridge"
	markPatch        = "patch"
	markTunnel       = "tunnel"
	markPeer         = "peer"
	markController   = "controller"
	markService      = "service"
	keyPendingFlows  = "planck-flows"     // of a Bridge: flows to be put back
	keyOwnFailMode   = "planck-fail-mode" // of a Bridge: what fail_mode was before
	keyPeer          = "planck-peer"      // of an Interface: the host at the other end
	keyDatapathID    = "datapath-id"
	keyDisableInBand = "disable-in-band"
)

// Values on Controller and Manager rows, in ms. Left alone, a switch backs off
// to 8 s.
const (
	maxBackoff      = 1000
	inactivityProbe = 5000
)

// firstHighPort is where the OpenFlow ports of patch ports begin on br-int and
// mapped bridges, away from the low numbers that Open vSwitch gives out.
const firstHighPort = 0xfe00

// lastPort is the highest number that may be requested for a port.
const lastPort = 0xfeff

var (
	secure     = vswitch.BridgeFailModeSecure
	outOfBand  = vswitch.ControllerConnectionModeOutOfBand
	inBand     = vswitch.ControllerConnectionModeInBand
	primary    = vswitch.ControllerTypePrimary
	service    = vswitch.ControllerTypeService
	needed     = []string{vswitch.BridgeProtocolsOpenflow10, vswitch.BridgeProtocolsOpenflow13}
	byDefault  = []string{vswitch.BridgeProtocolsOpenflow10, vswitch.BridgeProtocolsOpenflow11, vswitch.BridgeProtocolsOpenflow12, vswitch.BridgeProtocolsOpenflow13, vswitch.BridgeProtocolsOpenflow14, vswitch.BridgeProtocolsOpenflow15}
	ourBridges = []string{network.BridgeIntegration, network.BridgeTunnel}
)

// contract is what a host should have in its database.
type contract struct {
	settings
	target        string // of Controller rows, as tcp:192.0.2.1:6653
	serviceTarget string // another text for the same address
	// makesPorts says that this controller makes ports: OVSDB has no masters, and two
	// controllers that want different ones would go on for ever.
	makesPorts bool
	owner      string   // distinguishes the rows of several controllers; "" for the only one
	members    []string // names of the controllers that may have rows; nil for whoever it is
	// inBandWorks says that Open vSwitch can keep LOCAL of a mapped bridge in touch
	// with the target: it knows IPv4 addresses only, and no names.
	inBandWorks bool
	// preserve says that flows can be read from a mapped bridge and put back.
	preserve bool
	// foreign has the flows that were read, by mapped bridge, when they may be
	// used for a takeover now.
	foreign map[string]string
	// restored has the mapped bridges whose flows were put back.
	restored map[string]bool
	// tunnelTypes are the types of the tunnel ports that a host has.
	tunnelTypes []string
	// peers are the hosts that this one exchanges BFD with.
	peers []*network.Host
	// peerType is the type of the tunnels to them.
	peerType string
}

// difference plans what has to change in a database.
func (c *contract) difference(api client.Client, s *snapshot) *plan {
	p := newPlan(api)
	p.problems = append(p.problems, c.problems...)
	c.ownBridges(p, s)
	for _, name := range c.mapped() {
		c.mappedBridge(p, s, name)
	}
	if c.makesPorts {
		c.ports(p, s)
		c.formerMembers(p, s)
	}
	c.release(p, s)
	c.managerRows(p, s)
	p.finish(s.root)
	return p
}

// ownBridges ensures br-int and br-tun themselves.
func (c *contract) ownBridges(p *plan, s *snapshot) {
	for _, name := range ourBridges {
		old := s.bridges[name]
		e := p.edit(name, old)
		if old == nil || orSystem(old.DatapathType) != c.datapathType {
			e.datapathType = &c.datapathType
			if old != nil {
				p.note("%s: datapath_type %s", name, c.datapathType)
			}
		}
		e.otherConfig[keyDatapathID] = datapathID(c.host, c.systemID, name)
		e.otherConfig[keyDisableInBand] = "true"
		e.externalIDs[keyMark] = markBridge
		c.secure(p, e)
		c.primaryRow(p, e, &outOfBand)
	}
}

func orSystem(datapathType string) string {
	if datapathType == "" {
		return "system"
	}
	return datapathType
}

// mappedBridge brings a bridge of the operator under control; see the package
// comment.
func (c *contract) mappedBridge(p *plan, s *snapshot, name string) {
	old := s.bridges[name]
	e := p.edit(name, old)
	if old == nil {
		e.datapathType = &c.datapathType
		e.otherConfig[keyDatapathID] = datapathID(c.host, c.systemID, name)
		e.externalIDs[keyMark] = markBridge
		c.secure(p, e)
		c.primaryRow(p, e, &inBand)
		return
	}
	if t := orSystem(old.DatapathType); t != c.datapathType {
		p.problem("%s has datapath_type %s, br-int %s: patch ports between them carry nothing", name, t, c.datapathType)
	}
	flows, read := c.foreign[name]
	switch {
	case !c.controlled(old) && !c.inBandWorks:
		p.problem("%s is left as it is: in-band control needs an IPv4 address, and the controller is at %s", name, c.target)
	case c.controlled(old) || !c.preserve || hasPrimary(old):
		c.takeControl(p, e)
	case read:
		c.takeControl(p, e)
		if flows != "" {
			e.externalIDs[keyPendingFlows] = flows
		}
		c.awaitSwitch(p, s)
	default:
		c.serviceRow(p, e)
	}
	if c.restored[name] && old.ExternalIDs[keyPendingFlows] != "" {
		e.externalIDs[keyPendingFlows] = ""
		p.note("%s: flows are back", name)
	}
}

// takeControl puts the primary row in place, and fail_mode with it.
func (c *contract) takeControl(p *plan, e *bridgeEdit) {
	if !c.controlled(e.old) {
		was := vswitch.BridgeFailModeStandalone
		if e.old.FailMode != nil {
			was = *e.old.FailMode
		}
		if e.old.ExternalIDs[keyOwnFailMode] == "" {
			e.externalIDs[keyOwnFailMode] = was
		}
		p.note("%s: take control", e.name)
	}
	c.secure(p, e)
	c.primaryRow(p, e, &inBand)
	for _, row := range c.marked(e.old, markService) {
		e.delControllers = append(e.delControllers, row.UUID)
	}
}

// awaitSwitch makes vswitchd say when it has applied this transaction.
func (c *contract) awaitSwitch(p *plan, s *snapshot) {
	r := &vswitch.OpenvSwitch{UUID: s.root.UUID, NextCfg: s.root.NextCfg + 1}
	p.update(r, &r.NextCfg)
}

// secure ensures fail_mode and protocols.
func (c *contract) secure(p *plan, e *bridgeEdit) {
	if e.old == nil || e.old.FailMode == nil || *e.old.FailMode != secure {
		mode := &secure
		e.failMode = &mode
	}
	if e.old == nil || len(e.old.Protocols) == 0 {
		// An empty set means all: named one by one, none is lost.
		e.protocols = byDefault
		return
	}
	for _, v := range needed {
		if !slices.Contains(e.old.Protocols, v) {
			e.protocols = append(e.protocols, v)
			p.note("%s: protocol %s", e.name, v)
		}
	}
}

// mark is the value of external_ids:planck on this controller's rows.
func (c *contract) mark(kind string) string {
	if c.owner == "" {
		return kind
	}
	return kind + ":" + c.owner
}

// marked are the Controller rows of a bridge that this controller made.
func (c *contract) marked(b *bridgeRows, kind string) []*vswitch.Controller {
	if b == nil {
		return nil
	}
	var out []*vswitch.Controller
	for _, row := range b.controllers {
		if row.ExternalIDs[keyMark] == c.mark(kind) {
			out = append(out, row)
		}
	}
	return out
}

// controlled reports whether our primary row is there.
func (c *contract) controlled(b *bridgeRows) bool { return len(c.marked(b, markController)) > 0 }

// hasPrimary reports whether the bridge has a primary controller, whoever's.
func hasPrimary(b *bridgeRows) bool {
	return slices.ContainsFunc(b.controllers, func(row *vswitch.Controller) bool {
		if row.Type != nil {
			return *row.Type == primary
		}
		// Without a type, passive targets are service controllers.
		return !strings.HasPrefix(row.Target, "p")
	})
}

// primaryRow ensures the Controller row. An old target is replaced in the row,
// so that there is never none.
func (c *contract) primaryRow(p *plan, e *bridgeEdit, mode *string) {
	want := &vswitch.Controller{
		Target:          c.target,
		MaxBackoff:      ptr(maxBackoff),
		InactivityProbe: ptr(inactivityProbe),
		ConnectionMode:  mode,
		ExternalIDs:     map[string]string{keyMark: c.mark(markController)},
	}
	rows := c.marked(e.old, markController)
	if len(rows) == 0 {
		rows = c.adoptable(e.old)
	}
	if len(rows) == 0 {
		want.UUID = p.name()
		p.create(want)
		e.addControllers = append(e.addControllers, want.UUID)
		return
	}
	for _, extra := range rows[1:] {
		e.delControllers = append(e.delControllers, extra.UUID)
	}
	row := rows[0]
	want.UUID, want.ExternalIDs = row.UUID, nil
	var fields []any
	if row.Target != want.Target {
		fields = append(fields, &want.Target)
		p.note("%s: controller %s instead of %s", e.name, want.Target, row.Target)
	}
	if row.Type != nil && *row.Type != primary {
		want.Type = &primary
		fields = append(fields, &want.Type)
	}
	if !same(row.MaxBackoff, want.MaxBackoff) {
		fields = append(fields, &want.MaxBackoff)
	}
	if !same(row.InactivityProbe, want.InactivityProbe) {
		fields = append(fields, &want.InactivityProbe)
	}
	if !same(row.ConnectionMode, want.ConnectionMode) {
		fields = append(fields, &want.ConnectionMode)
	}
	if len(fields) > 0 {
		p.update(want, fields...)
	}
	var m mutations
	m.change(&want.ExternalIDs, row.ExternalIDs, map[string]string{keyMark: c.mark(markController)})
	p.mutate(want, m...)
}

// adoptable is a row that the operator made for us by hand, or that is from the
// time when there was only one controller.
func (c *contract) adoptable(b *bridgeRows) []*vswitch.Controller {
	if b == nil {
		return nil
	}
	for _, row := range b.controllers {
		if mark := row.ExternalIDs[keyMark]; row.Target == c.target && (mark == "" || mark == markController) {
			return []*vswitch.Controller{row}
		}
	}
	return nil
}

// serviceRow ensures a connection that changes nothing.
func (c *contract) serviceRow(p *plan, e *bridgeEdit) {
	rows := c.marked(e.old, markService)
	if len(rows) == 1 && rows[0].Target == c.serviceTarget {
		return
	}
	for _, row := range rows {
		e.delControllers = append(e.delControllers, row.UUID)
	}
	row := &vswitch.Controller{
		UUID:            p.name(),
		Target:          c.serviceTarget,
		Type:            &service,
		MaxBackoff:      ptr(maxBackoff),
		InactivityProbe: ptr(inactivityProbe),
		ConnectionMode:  &inBand,
		ExternalIDs:     map[string]string{keyMark: c.mark(markService)},
	}
	p.create(row)
	e.addControllers = append(e.addControllers, row.UUID)
	p.note("%s: service connection to read its flows", e.name)
}

// wantedPort is a port that a host should have.
type wantedPort struct {
	bridge, name string
	kind         string // type of the interface
	options      map[string]string
	mark         string
	preferred    int // the first OpenFlow port to try
	bfd          map[string]string
	peer         string // the host at the other end
}

// wanted are all ports that a host should have.
func (c *contract) wanted() []wantedPort {
	patch := func(bridge, name, peer string, preferred int) wantedPort {
		return wantedPort{
			bridge: bridge, name: name, kind: "patch", options: map[string]string{"peer": peer}, mark: markPatch, preferred: preferred,
		}
	}
	out := []wantedPort{
		patch(network.BridgeIntegration, patchToTunnel, patchToIntegration, firstHighPort),
		patch(network.BridgeTunnel, patchToIntegration, patchToTunnel, 1),
	}
	for _, bridge := range c.mapped() {
		here, there := patchNames(bridge)
		out = append(out,
			patch(network.BridgeIntegration, here, there, firstHighPort+1),
			patch(bridge, there, here, firstHighPort))
	}
	if !c.tunnelIP.IsValid() {
		return out
	}
	for i, t := range tunnelTypes {
		if !slices.Contains(c.tunnelTypes, t) {
			continue
		}
		options := map[string]string{"key": "flow", "remote_ip": "flow", "local_ip": c.tunnelIP.String()}
		out = append(out, wantedPort{
			bridge: network.BridgeTunnel, name: tunnelPort(t), kind: t, options: options, mark: markTunnel, preferred: 2 + i,
		})
	}
	return append(out, c.wantedPeers()...)
}

// ports makes the ports of a host as wanted and removes ours that are not.
func (c *contract) ports(p *plan, s *snapshot) {
	taken := map[string]map[int]bool{}
	wanted := map[string]bool{}
	for _, w := range c.wanted() {
		wanted[w.bridge+"/"+w.name] = true
		if at := s.ports[w.name]; at != "" && at != w.bridge {
			p.problem("port %s is on %s, and wanted on %s", w.name, at, w.bridge)
			continue
		}
		old := s.bridges[w.bridge]
		if taken[w.bridge] == nil {
			taken[w.bridge] = portNumbers(old)
		}
		e := p.edit(w.bridge, old)
		if old != nil {
			if row, ok := old.ports[w.name]; ok {
				c.existingPort(p, e, row, w)
				continue
			}
		}
		c.createPort(p, e, w, taken[w.bridge])
	}
	for _, name := range slices.Sorted(maps.Keys(s.bridges)) {
		c.unwantedPorts(p, s.bridges[name], wanted)
	}
}

// portMarks are the marks of ports that we make.
var portMarks = []string{markPatch, markTunnel, markPeer}

// unwantedPorts removes ports of ours that are not wanted any more.
func (c *contract) unwantedPorts(p *plan, b *bridgeRows, wanted map[string]bool) {
	var names []string
	for name, row := range b.ports {
		if slices.Contains(portMarks, row.ExternalIDs[keyMark]) && !wanted[b.Name+"/"+name] {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		e := p.edit(b.Name, b)
		e.delPorts = append(e.delPorts, b.ports[name].UUID)
		p.note("%s: remove port %s", b.Name, name)
	}
}

// portNumbers are the OpenFlow ports of a bridge that are in use or asked for.
func portNumbers(b *bridgeRows) map[int]bool {
	out := map[int]bool{}
	if b == nil {
		return out
	}
	for _, port := range b.ports {
		for _, i := range port.interfaces {
			if i.Ofport != nil {
				out[*i.Ofport] = true
			}
			if i.OfportRequest != nil {
				out[*i.OfportRequest] = true
			}
		}
	}
	return out
}

func freePort(taken map[int]bool, preferred int) *int {
	for n := preferred; n <= lastPort; n++ {
		if !taken[n] {
			taken[n] = true
			return &n
		}
	}
	return nil
}

func (c *contract) createPort(p *plan, e *bridgeEdit, w wantedPort, taken map[int]bool) {
	row := &vswitch.Interface{
		UUID:          p.name(),
		Name:          w.name,
		Type:          w.kind,
		Options:       w.options,
		OfportRequest: freePort(taken, w.preferred),
		BFD:           w.bfd,
		ExternalIDs:   map[string]string{keyMark: w.mark},
	}
	if w.peer != "" {
		row.ExternalIDs[keyPeer] = w.peer
	}
	port := &vswitch.Port{UUID: p.name(), Name: w.name, Interfaces: []string{row.UUID}, ExternalIDs: map[string]string{keyMark: w.mark}}
	p.create(row)
	p.create(port)
	e.addPorts = append(e.addPorts, port.UUID)
	p.note("%s: port %s", w.bridge, w.name)
}

// existingPort corrects a port that is there already, and makes it ours.
func (c *contract) existingPort(p *plan, e *bridgeEdit, port portRows, w wantedPort) {
	i := port.only()
	if i == nil {
		p.problem("%s: port %s has %d interfaces", w.bridge, w.name, len(port.interfaces))
		return
	}
	if i.Type != w.kind && !slices.Contains(ourBridges, w.bridge) {
		p.problem("%s: port %s is of type %q, and wanted as a %s port", w.bridge, w.name, i.Type, w.kind)
		return
	}
	row := &vswitch.Interface{UUID: i.UUID}
	if i.Type != w.kind {
		row.Type = w.kind
		p.update(row, &row.Type)
		p.note("%s: port %s: type %s", w.bridge, w.name, w.kind)
	}
	var m mutations
	m.change(&row.Options, i.Options, w.options)
	if len(m) > 0 {
		p.note("%s: port %s: options %v", w.bridge, w.name, w.options)
	}
	m.change(&row.BFD, i.BFD, w.bfd)
	if w.peer != "" {
		m.change(&row.ExternalIDs, i.ExternalIDs, map[string]string{keyPeer: w.peer})
	}
	p.mutate(row, m...)
	if port.ExternalIDs[keyMark] != w.mark {
		r := &vswitch.Port{UUID: port.UUID}
		var m mutations
		m.change(&r.ExternalIDs, port.ExternalIDs, map[string]string{keyMark: w.mark})
		p.mutate(r, m...)
	}
}

// setUp reports whether the controller that looks after the host has done so:
// each bridge is there, and under control of some controller.
func (c *contract) setUp(s *snapshot) bool {
	for _, name := range slices.Concat(ourBridges, c.mapped()) {
		if b := s.bridges[name]; b == nil || !hasPrimary(b) || b.ExternalIDs[keyPendingFlows] != "" {
			return false
		}
	}
	return true
}

// formerMembers removes the rows of controllers that the cluster has no more.
func (c *contract) formerMembers(p *plan, s *snapshot) {
	if c.members == nil {
		return
	}
	for _, name := range slices.Concat(ourBridges, c.mapped()) {
		b := s.bridges[name]
		if b == nil {
			continue
		}
		for _, row := range b.controllers {
			kind, owner, _ := strings.Cut(row.ExternalIDs[keyMark], ":")
			if kind != markController && kind != markService || slices.Contains(c.members, owner) || owner == "" && row.Target == c.target {
				continue
			}
			e := p.edit(name, b)
			e.delControllers = append(e.delControllers, row.UUID)
			p.note("%s: remove controller %s of former member %q", name, row.Target, owner)
		}
	}
}

// release gives bridges back that are not mapped any more.
func (c *contract) release(p *plan, s *snapshot) {
	mapped := c.mapped()
	for _, name := range slices.Sorted(maps.Keys(s.bridges)) {
		b := s.bridges[name]
		if slices.Contains(ourBridges, name) || slices.Contains(mapped, name) {
			continue
		}
		ours := append(c.marked(b, markController), c.marked(b, markService)...)
		if len(ours) == 0 {
			continue
		}
		e := p.edit(name, b)
		for _, row := range ours {
			e.delControllers = append(e.delControllers, row.UUID)
		}
		if was := b.ExternalIDs[keyOwnFailMode]; was != "" {
			mode := &was
			e.failMode = &mode
		} else if b.ExternalIDs[keyMark] == markBridge {
			var mode *string
			e.failMode = &mode
		}
		for _, key := range []string{keyOwnFailMode, keyPendingFlows} {
			e.externalIDs[key] = ""
		}
		p.note("%s: give it back", name)
	}
}

// managerRows sets what is unset on active Manager rows.
func (c *contract) managerRows(p *plan, s *snapshot) {
	for _, m := range s.managers {
		if strings.HasPrefix(m.Target, "p") {
			continue
		}
		row := &vswitch.Manager{UUID: m.UUID, MaxBackoff: ptr(maxBackoff), InactivityProbe: ptr(inactivityProbe)}
		var fields []any
		if m.MaxBackoff == nil {
			fields = append(fields, &row.MaxBackoff)
		}
		if m.InactivityProbe == nil {
			fields = append(fields, &row.InactivityProbe)
		}
		if len(fields) > 0 {
			p.update(row, fields...)
			p.note("manager %s: back-off and probe", m.Target)
		}
	}
}

func ptr[T any](v T) *T { return &v }

func same[T comparable](a, b *T) bool {
	if a == nil || b == nil {
		return a == b
	}
	return *a == *b
}
