package northbound

import (
	"net/http"

	"planck/network"
)

// autoAllocatedTopology is /v2.0/auto-allocated-topology/<project>, which Nova
// asks when a server shall have networks and names none. Topologies are made of
// a default external network and default subnet pools; there are no pools here,
// so that the answer is what is missing.
func autoAllocatedTopology() []endpoint {
	return []endpoint{{path: "/v2.0/auto-allocated-topology/{id}", resource: "auto_allocated_topologies", methods: methods{
		http.MethodGet:    showTopology,
		http.MethodDelete: deleteTopology,
	}}}
}

func showTopology(c *call) (int, []byte, error) {
	if err := c.checkTopologyProject(); err != nil {
		return 0, nil, err
	}
	for n := range c.server.store.View().Networks() {
		if n.External && n.IsDefault {
			return 0, nil, autoAllocationFailure("No default subnetpools defined")
		}
	}
	return 0, nil, autoAllocationFailure("No default router:external network")
}

// deleteTopology has nothing to delete, which is no error.
func deleteTopology(c *call) (int, []byte, error) {
	return http.StatusNoContent, nil, c.checkTopologyProject()
}

// checkTopologyProject lets tenants ask for themselves.
func (c *call) checkTopologyProject() error {
	if c.id != c.who.ProjectID && c.id != "None" && !c.rules().admin(c.who) {
		return network.Errorf(network.Forbidden, "NotAuthorized", "Not authorized.")
	}
	return nil
}

func autoAllocationFailure(why string) error {
	return network.Errorf(network.Conflict, "AutoAllocationFailure", "Deployment error: %s.", why)
}
