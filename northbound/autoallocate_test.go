package northbound

import "testing"

func TestAutoAllocatedTopologySaysWhatIsMissing(t *testing.T) {
	a := newAPI(t)
	for _, path := range []string{"/v2.0/auto-allocated-topology/blue", "/v2.0/auto-allocated-topology/blue?fields=dry-run", "/v2.0/auto-allocated-topology/None"} {
		a.refused(blue, "GET", path, "", 409, "AutoAllocationFailure", "Deployment error: No default router:external network.")
	}
	a.network(admin, `"router:external": true, "is_default": true`)
	a.refused(admin, "GET", "/v2.0/auto-allocated-topology/blue", "", 409, "AutoAllocationFailure", "Deployment error: No default subnetpools defined.")
	a.refused(red, "GET", "/v2.0/auto-allocated-topology/blue", "", 403, "NotAuthorized", "Not authorized.")
	a.must(204, blue, "DELETE", "/v2.0/auto-allocated-topology/blue", "")
}
