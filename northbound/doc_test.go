package northbound

import (
	"bytes"
	"flag"
	"fmt"
	"net/http"
	"os"
	"path"
	"strings"
	"testing"
)

var updateDocs = flag.Bool("update", false, "write docs/northbound.md anew")

const compatibilityDoc = "../docs/northbound.md"

// TestCompatibilityDocumentIsCurrent compares docs/northbound.md with the tables
// that the API is served from.
func TestCompatibilityDocumentIsCurrent(t *testing.T) {
	want := describeAPI()
	if *updateDocs {
		if err := os.WriteFile(compatibilityDoc, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(compatibilityDoc)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s is stale: run go test ./northbound -run Document -update", compatibilityDoc)
	}
}

func describeAPI() []byte {
	var b bytes.Buffer
	b.WriteString("# Northbound compatibility\n\nGenerated from the tables in `northbound/` by `go test ./northbound -run Document -update`.\n\n")
	b.WriteString("The collections below `/v2.0/` have the bodies, status codes and error types of Neutron. ")
	b.WriteString("`rule` marks attributes that need a policy rule of their own to be given.\n")
	for _, c := range resources() {
		name, collection := c.title()
		fmt.Fprintf(&b, "\n## %s\n\n%s\n\n", collection, methodsOf(c))
		b.WriteString("| attribute | POST | PUT | filter | sort | rule | shown to |\n|---|---|---|---|---|---|---|\n")
		for _, r := range c.rows() {
			post := mark(r, onPost, "yes")
			if r.flags&required != 0 {
				post = "required"
			}
			fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s | %s |\n", r.name, post, mark(r, onPut, "yes"),
				mark(r, filterable, "yes"), mark(r, sortable, "yes"), mark(r, byPolicy, "yes"), shownTo(name, r))
		}
	}
	b.WriteString(besideTheTables)
	b.WriteString("\n## Extensions\n\n| alias | name |\n|---|---|\n")
	s := &server{collections: resources()}
	s.quotas = newQuotas(nil, s.collections)
	for _, e := range s.extensions() {
		fmt.Fprintf(&b, "| %s | %s |\n", e.alias, e.name)
	}
	b.WriteString(notThereYet)
	b.WriteString("\n## Default policy\n\n```\n")
	for _, rule := range sortedKeys(defaultPolicy) {
		fmt.Fprintf(&b, "%s: %q\n", rule, defaultPolicy[rule])
	}
	b.WriteString("```\n")
	return b.Bytes()
}

// methodsOf says what may be done with a collection.
func methodsOf(c collection) string {
	switch list := c.endpoints(); {
	case len(list) == 1:
		return "GET (list)."
	case len(list[1].methods) == 1:
		return "GET (list, show)."
	case len(list[0].methods) == 1:
		return "GET (list, show), PUT, DELETE."
	}
	return "GET (list, show), POST (single, bulk), PUT, DELETE; `/tags`" + actionsOf(c) + "."
}

// actionsOf lists the paths of a collection that take a PUT and nothing else.
func actionsOf(c collection) string {
	list := ""
	for _, e := range c.endpoints() {
		if _, ok := e.methods[http.MethodPut]; ok && len(e.methods) == 1 {
			list += "; PUT `/" + path.Base(e.path) + "`"
		}
	}
	return list
}

const besideTheTables = `
## Beside the collections

` + "`/ports/{id}/bindings`" + `: GET, POST; ` + "`/ports/{id}/bindings/{host}`" + `: GET, PUT, DELETE; PUT ` + "`/ports/{id}/bindings/{host}/activate`" + `
(for ports of ` + "`compute:`" + ` owners). What differs from Neutron: an INACTIVE binding that was left behind on a host is replaced by
a POST for the same host (Neutron: 409), and a host that the port can't be bound to is 409 ` + "`PortBindingError`" + ` (Neutron: 500).

` + "`/agents/{id}`" + `: DELETE is for hosts that are dead; 409 ` + "`HostInUse`" + ` for one that is connected (Neutron: it comes back with its next report).

` + "`/auto-allocated-topology/{project}`" + `: GET makes a network with subnets of the default subnet pools, and a router to the default
external network, if there are none (` + "`?fields=dry-run`" + ` says whether it could); DELETE takes them away. All of it or nothing is made.
`

const notThereYet = `
## What of Neutron is not there yet

| | |
|---|---|
| address scopes, segments, RBAC policies, QoS, trunks, flavors | 404; naming one in an attribute is an error, ` + "`null`" + ` is not |
| networks of several segments (` + "`multi-provider`" + `) | flat and VLAN segments, each on a physical network of its own: a host uses the first one that it has a bridge for, and what joins the physical networks is the operator's. Others beside them are refused |
| changing provider attributes of a network | refused |
| a machine on a tenant's VLAN outside the cloud behind a router, or as its next hop | accepted, and not reached through the router |
| an IPv6 address of an address pair behind a router, or one that a VM of an external network holds | accepted, and not reached through the router: give it a port of its own |

What differs on purpose: a prefix that a subnet pool can't give is 409 ` + "`SubnetAllocationError`" + ` (Neutron: 500). ` + "`dns_name`" + ` is kept also where ` + "`dns_domain`" + ` has its default (Neutron drops it then), and a
network's ` + "`dns_domain`" + ` is the domain in ` + "`dns_assignment`" + ` and in DHCP. A floating IP keeps its ` + "`dns_name`" + ` and ` + "`dns_domain`" + `. There is no external DNS service.
A port comes to a router by the router's own calls alone: one that is made or changed to say that it is a router's is 409 ` + "`DeviceIDNotOwnedByTenant`" + `,
one of a router that shall be another's 409 ` + "`PortInUse`" + `, also for administrators (Neutron keeps what it says, and the port is part of no router).
PUT and DELETE of a collection are 404, as in Neutron (` + "`Network None could not be found.`" + `); HEAD is answered as GET (Neutron: 405).
` + "`propagate_uplink_status`" + ` is kept and has no effect: ports of Open vSwitch have no uplink of their own.
`

func mark(r row, f ability, text string) string {
	if r.flags&f != 0 {
		return text
	}
	return ""
}

func shownTo(name string, r row) string {
	rule, ok := defaultPolicy["get_"+name+":"+r.name]
	switch {
	case r.flags&hidden != 0:
		return "(a filter or an argument)"
	case ok && strings.Contains(rule, "admin_only"):
		return "administrators"
	}
	return "all"
}
