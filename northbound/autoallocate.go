package northbound

import (
	"net/http"
	"slices"

	"planck/network"
)

// autoAllocation is the extension of auto-allocated-topology.
var autoAllocation = extension{"auto-allocated-topology", "Auto Allocated Topology Services", "Auto Allocated Topology Services.", "2016-01-01T00:00:00-00:00"}

// autoAllocatedTopology is /v2.0/auto-allocated-topology/<project>, which Nova
// asks when a server shall have networks and names none: the first GET makes
// one of the default external network and the default subnet pools.
func autoAllocatedTopology() []endpoint {
	return []endpoint{{path: "/v2.0/auto-allocated-topology/{id}", resource: "auto_allocated_topologies", methods: methods{
		http.MethodGet:    showTopology,
		http.MethodDelete: deleteTopology,
	}}}
}

// dryRun is the field that asks whether a topology could be made.
const dryRun = "dry-run"

func showTopology(c *call) (int, []byte, error) {
	project, err := c.topologyProject("get_auto_allocated_topology")
	if err != nil {
		return 0, nil, err
	}
	query, err := c.query()
	if err != nil {
		return 0, nil, err
	}
	view := c.server.store.View()
	fields := query.fields()
	switch {
	case slices.Contains(fields, dryRun):
		if _, _, err := c.topologyParts(view); err != nil {
			return 0, nil, err
		}
		return encodeTopology(dryRun+"=pass", project)
	case len(fields) > 0:
		return 0, nil, badResource("auto_allocate", "Unrecognized field")
	}
	t := view.Topology(project)
	if t == nil {
		t, err = c.createTopology(project)
	}
	if err != nil {
		return 0, nil, err
	}
	return encodeTopology(t.NetworkID, project)
}

// createTopology makes a topology, unless somebody else was faster.
func (c *call) createTopology(project string) (*network.Topology, error) {
	var t *network.Topology
	_, err := c.update("get_auto_allocated_topology", func(tx *network.Tx) error {
		if t = tx.Topology(project); t != nil {
			return nil
		}
		external, pools, err := c.topologyParts(tx.View)
		if err != nil {
			return err
		}
		t, err = tx.CreateTopology(project, external.ID, pools)
		return err
	})
	return t, err
}

// topologyParts are the default external network and the default subnet pools
// that the caller may use.
func (c *call) topologyParts(view *network.View) (*network.Network, []*network.SubnetPool, error) {
	var external *network.Network
	for n := range view.Networks() {
		if n.External && n.IsDefault {
			external = n
			break
		}
	}
	if external == nil {
		return nil, nil, network.AutoAllocationFailure("No default router:external network")
	}
	r := c.reader(view)
	var pools []*network.SubnetPool
	for _, version := range []int{4, 6} {
		if p := r.defaultPool(version); p != nil {
			pools = append(pools, p)
		}
	}
	if len(pools) == 0 {
		return nil, nil, network.AutoAllocationFailure("No default subnetpools defined")
	}
	return external, pools, nil
}

func encodeTopology(id, project string) (int, []byte, error) {
	b := appendString([]byte(`{"auto_allocated_topology": {"id": `), id)
	b = appendString(append(b, `, "tenant_id": `...), project)
	b = appendString(append(b, `, "project_id": `...), project)
	return http.StatusOK, append(b, "}}"...), nil
}

// deleteTopology has nothing to delete where nothing was made, which is no error.
func deleteTopology(c *call) (int, []byte, error) {
	project, err := c.topologyProject("delete_auto_allocated_topology")
	if err != nil {
		return 0, nil, err
	}
	_, err = c.update("delete_auto_allocated_topology", func(tx *network.Tx) error { return tx.DeleteTopology(project) })
	return http.StatusNoContent, nil, err
}

// topologyProject is the project of the path, where None stands for the
// caller's; tenants may ask for themselves, if a rule lets them.
func (c *call) topologyProject(rule string) (string, error) {
	project := c.id
	if project == "None" {
		project = c.who.ProjectID
	}
	if project != c.who.ProjectID && !c.rules().admin(c.who) {
		return "", network.Errorf(network.Forbidden, "NotAuthorized", "Not authorized.")
	}
	if _, err := parseText(project, projectSize); err != nil || project == "" {
		return "", badResource("auto_allocate", "the id of the project is not a text of 1 to %d characters", projectSize)
	}
	if !c.rules().allows(rule, c.who, quotaTarget(project)) {
		return "", notAuthorized("rule:" + rule)
	}
	return project, nil
}
