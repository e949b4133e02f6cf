package northbound

import (
	"net/http"
	"time"

	"github.com/google/uuid"

	"planck/network"
)

// agent is a hypervisor as clients know it: one agent of Open vSwitch.
type agent struct {
	network.Standard
	host  *network.Host
	noted network.Agent
}

// agentIDs is the name space of the ids of agents, which follow from host names.
var agentIDs = uuid.MustParse("6f1c2f0e-5a0c-4d42-9d2e-3d8c7c3c1c55")

// agents is the resource /v2.0/agents: hosts, alive or not. They come by
// joining, so that there is no POST.
func agents() collection {
	standard := func(a *agent) *network.Standard { return &a.Standard }
	text := func(name, value string) attribute[agent] {
		return derived(name, text(nameSize), filterable|sortable, func(*reader, *agent) string { return value })
	}
	alive := func(r *reader, a *agent) bool { return r.alive == nil || r.alive(a.host.Name) }
	rs := &resource[agent]{
		name: "agent", collection: "agents", path: "agents",
		extensions: []extension{
			{"agent", "agent", "The agent management extension.", "2013-02-03T10:00:00-00:00"},
			{"agent_sort_key", "Agents Sort Key", "Enabling the keyword sort_key for sorting in agents.", "2013-02-03T10:00:00-00:00"},
		},
		attributes: []attribute[agent]{
			derived("id", uuidKind, filterable|sortable, func(_ *reader, a *agent) string { return a.ID }),
			text("agent_type", "Open vSwitch agent"),
			text("binary", "ovs-vswitchd"),
			text("topic", "N/A"),
			derived("host", textKind(nil), filterable|sortable, func(_ *reader, a *agent) string { return a.host.Name }),
			field("admin_state_up", boolean, onPut|filterable|sortable, func(a *agent) *bool { return &a.noted.AdminStateUp }),
			derived("alive", boolean, filterable, alive),
			derived("availability_zone", nullable(textKind(nil)), filterable|sortable, func(*reader, *agent) string { return "" }),
			field("description", nullable(textOrNull(descriptionSize)), onPut|filterable, func(a *agent) *string { return &a.noted.Description }),
			derived("configurations", dict(0), 0, func(_ *reader, a *agent) map[string]any { return a.configurations() }),
			derived("created_at", unknownTime, 0, noTime),
			derived("started_at", unknownTime, 0, noTime),
			derived("heartbeat_timestamp", unknownTime, 0, func(r *reader, a *agent) time.Time {
				if !alive(r, a) {
					return time.Time{}
				}
				return time.Now()
			}),
		},
		standard: standard,
		visible:  func(*reader, *agent) bool { return false },
		target:   computedTarget(standard),
		notFound: func(id string) error {
			return network.Errorf(network.NotFound, "AgentNotFound", "Agent %s could not be found.", clip(id))
		},
		clone:  func(a *agent) *agent { c := *a; return &c },
		update: func(c *change, a, _ *agent) error { return c.tx.SetAgent(a.noted) },
		keep: func(c *change, a *agent) error {
			// Its switch may be away for a moment: what its database says would bring it back.
			if alive(c.r, a) || c.r.joined != nil && c.r.joined(a.host.Name) {
				return network.Errorf(network.Conflict, "HostInUse", "Host %s is connected.", a.host.Name)
			}
			return nil
		},
	}
	rs.remove = func(tx *network.Tx, id string) error { return tx.DeleteHost(rs.get(tx.View, id).host.Name) }
	return arriving[agent]{computed(rs, agentsOf)}
}

// arriving is a collection whose objects come by themselves, and are changed and
// deleted by the API.
type arriving[T any] struct{ *resource[T] }

func (j arriving[T]) endpoints() []endpoint {
	base := "/v2.0/" + j.path
	return []endpoint{
		{path: base, resource: j.collection, refuse: j.refuseWhole, methods: methods{http.MethodGet: j.list}},
		{path: base + "/{id}", resource: j.collection, methods: methods{
			http.MethodGet: j.show, http.MethodPut: j.put, http.MethodDelete: j.delete}},
	}
}

func agentsOf(view *network.View) []*agent {
	var list []*agent
	for h := range view.Hosts() {
		id := uuid.NewSHA1(agentIDs, []byte(h.Name)).String()
		list = append(list, &agent{network.Standard{ID: id}, h, view.Agent(h.Name)})
	}
	return list
}

func (a *agent) configurations() map[string]any {
	mappings, types := map[string]any{}, []any{}
	for physical, bridge := range a.host.BridgeMappings {
		mappings[physical] = bridge
	}
	for _, typ := range sortedKeys(a.host.Bridges[network.BridgeTunnel].Tunnels) {
		types = append(types, typ)
	}
	c := map[string]any{
		"bridge_mappings": mappings, "tunnel_types": types, "integration_bridge": network.BridgeIntegration,
		"tunneling_ip": nil, "datapath_type": a.host.DatapathType, "ovs_version": a.host.OVSVersion,
	}
	if a.host.TunnelIP.IsValid() {
		c["tunneling_ip"] = a.host.TunnelIP.String()
	}
	return c
}

// unknownTime is a time in the form that Neutron has it for agents, or null.
var unknownTime = kind[time.Time]{write: func(b []byte, t time.Time) []byte {
	if t.IsZero() {
		return append(b, "null"...)
	}
	return appendString(b, t.UTC().Format(time.DateTime))
}}

func noTime(*reader, *agent) time.Time { return time.Time{} }
