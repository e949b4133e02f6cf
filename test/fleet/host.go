package fleet

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Host is a hypervisor: the database of an Open vSwitch, and its bridges. What
// ovs-vswitchd and os-vif do to the database is done at once.
type Host struct {
	Name string

	mu       sync.Mutex
	db       *database
	root     uuid
	sessions []*session
	managers map[string]*link // by target
	bridges  map[string]*bridge
	vifs     map[string]string // what is plugged into br-int: iface-id by name
	stopped  bool
}

// newHost is a hypervisor with the two settings of the contract, which dials
// managers.
func newHost(name, tunnelIP, mappings string, managers []string) (*Host, error) {
	s, err := loadSchema()
	if err != nil {
		return nil, err
	}
	h := &Host{
		Name: name, db: &database{schema: s, rows: map[uuid]*row{}},
		managers: map[string]*link{}, bridges: map[string]*bridge{}, vifs: map[string]string{},
	}
	t := h.db.begin()
	var refs datum
	for _, target := range managers {
		id, err := t.insert("Manager", "target", textOf(target))
		if err != nil {
			return nil, err
		}
		refs = append(refs, refOf(id)...)
	}
	ids := mapOf("hostname", name, "system-id", name, "planck-local-ip", tunnelIP)
	if mappings != "" {
		ids = append(ids, mapOf("planck-bridge-mappings", mappings)...)
	}
	h.root, err = t.insert("Open_vSwitch", "ovs_version", textOf("3.1.0"), "external_ids", ids, "manager_options", refs)
	if err != nil {
		return nil, err
	}
	_, err = t.commit()
	return h, err
}

// start lets the host dial.
func (h *Host) start() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.configure()
}

// Plug makes interfaces of br-int those of Neutron ports, by name, and unplugs
// those whose port is "". They come when br-int does.
func (h *Host) Plug(portOf map[string]string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	maps.Copy(h.vifs, portOf)
	h.configure()
}

// configure does what ovs-vswitchd does when the database has changed. h.mu is held.
func (h *Host) configure() {
	if h.stopped {
		return
	}
	t := h.db.begin()
	c := configuration{Host: h, t: t}
	c.vifs()
	c.bridges()
	if root := t.row(h.root); !root.get("cur_cfg").equal(root.get("next_cfg")) {
		c.set(h.root, "cur_cfg", root.get("next_cfg"))
	}
	changes, err := t.commit()
	if err != nil || c.err != nil {
		panic(fmt.Sprintf("fleet: %s: %v %v", h.Name, err, c.err))
	}
	h.changed(changes)
	h.dial()
}

// dial keeps the links to managers and controllers as the database has them.
func (h *Host) dial() {
	want := map[string]bool{}
	for _, p := range h.db.rows[h.root].get("manager_options") {
		want[h.db.rows[p.key.(uuid)].get("target").text()] = true
	}
	for target, l := range h.managers {
		if !want[target] {
			go l.cut()
			delete(h.managers, target)
		}
	}
	for target := range want {
		if h.managers[target] == nil {
			h.managers[target] = newLink(target, h.serveOVSDB)
		}
	}
	there := map[string]bool{}
	for _, p := range h.db.rows[h.root].get("bridges") {
		row := h.db.rows[p.key.(uuid)]
		name := row.get("name").text()
		there[name] = true
		h.bridge(name, row)
	}
	for name, b := range h.bridges {
		if !there[name] {
			go b.stop()
			delete(h.bridges, name)
		}
	}
}

// bridge keeps a bridge as its row says.
func (h *Host) bridge(name string, r *row) {
	dpid, _ := strconv.ParseUint(r.get("datapath_id").text(), 16, 64)
	b := h.bridges[name]
	if b == nil || b.dpid != dpid {
		if b != nil {
			go b.stop()
		}
		b = newBridge(h.Name+" "+name, dpid)
		h.bridges[name] = b
	}
	targets := map[uuid]string{}
	for _, p := range r.get("controller") {
		id := p.key.(uuid)
		targets[id] = h.db.rows[id].get("target").text()
	}
	b.connect(targets)
}

// configuration is what ovs-vswitchd does to the database in one go.
type configuration struct {
	*Host
	t   *transaction
	err error
}

func (c *configuration) set(id uuid, values ...any) {
	if err := c.t.set(id, values...); err != nil && c.err == nil {
		c.err = err
	}
}

func (c *configuration) insert(table string, values ...any) uuid {
	id, err := c.t.insert(table, values...)
	if err != nil && c.err == nil {
		c.err = err
	}
	return id
}

func (c *configuration) named(table, name string) (uuid, *row) {
	var found uuid
	var at *row
	c.t.each(table, func(id uuid, r *row) {
		if r.get("name").text() == name {
			found, at = id, r
		}
	})
	return found, at
}

// vifs does what os-vif does.
func (c *configuration) vifs() {
	bridge, at := c.named("Bridge", "br-int")
	if at == nil {
		return
	}
	interfaces := map[string]uuid{}
	c.t.each("Interface", func(id uuid, r *row) { interfaces[r.get("name").text()] = id })
	ports := at.get("ports")
	for _, name := range slices.Sorted(maps.Keys(c.Host.vifs)) {
		ids := datum(nil)
		if port := c.Host.vifs[name]; port != "" {
			ids = mapOf("iface-id", port, "iface-status", "active")
		}
		if id, ok := interfaces[name]; ok {
			if !c.t.row(id).get("external_ids").equal(ids) {
				c.set(id, "external_ids", ids)
			}
			continue
		}
		iface := c.insert("Interface", "name", textOf(name), "type", textOf("dummy"), "external_ids", ids)
		ports = ports.with(refOf(c.insert("Port", "name", textOf(name), "interfaces", refOf(iface))))
	}
	if !ports.equal(at.get("ports")) {
		c.set(bridge, "ports", ports)
	}
}

// bridges gives bridges their datapath ids and interfaces their numbers.
func (c *configuration) bridges() {
	for _, p := range c.t.row(c.root).get("bridges") {
		id := p.key.(uuid)
		r := c.t.row(id)
		name := r.get("name").text()
		dpid := r.get("other_config").text("datapath-id")
		if dpid == "" {
			dpid = fmt.Sprintf("%016x", hashOf(c.Name+"/"+name)>>16)
		}
		if r.get("datapath_id").text() != dpid {
			c.set(id, "datapath_id", textOf(dpid))
		}
		c.number(name, r)
	}
}

const localPort = 65534

func (c *configuration) number(bridge string, r *row) {
	taken := map[int]bool{}
	var fresh []uuid
	for _, p := range r.get("ports") {
		for _, i := range c.t.row(p.key.(uuid)).get("interfaces") {
			id := i.key.(uuid)
			if n := c.t.row(id).get("ofport"); len(n) > 0 {
				taken[n.number()] = true
			} else {
				fresh = append(fresh, id)
			}
		}
	}
	byName := func(a, b uuid) int {
		return strings.Compare(c.t.row(a).get("name").text(), c.t.row(b).get("name").text())
	}
	slices.SortFunc(fresh, byName)
	for _, id := range fresh {
		row := c.t.row(id)
		n := row.get("ofport_request").number()
		if row.get("name").text() == bridge {
			n = localPort
		}
		for next := 1; n == 0 || taken[n]; next++ {
			n = next
		}
		taken[n] = true
		c.set(id, "ofport", numberOf(n), "link_state", textOf("up"))
	}
}

// look does what a switch does now and then: it tells which controllers are
// connected, and asks silent ones for a sign of life.
func (h *Host) look(now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, l := range h.managers {
		l.look(now)
	}
	t := h.db.begin()
	for _, b := range h.bridges {
		for row, l := range b.controllers() {
			l.look(now)
			if r := h.db.rows[row]; r != nil && !r.get("is_connected").equal(boolOf(l.up.Load())) {
				if err := t.set(row, "is_connected", boolOf(l.up.Load())); err != nil {
					panic(err)
				}
			}
		}
	}
	if changes, err := t.commit(); err == nil {
		h.changed(changes)
	}
}

func (h *Host) stop() {
	h.mu.Lock()
	h.stopped = true
	managers, bridges := slices.Collect(maps.Values(h.managers)), slices.Collect(maps.Values(h.bridges))
	h.mu.Unlock()
	for _, l := range managers {
		l.cut()
	}
	for _, b := range bridges {
		b.stop()
	}
}
