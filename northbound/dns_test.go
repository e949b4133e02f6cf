package northbound

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// names are the hostname and the fqdn of each address of a port.
func names(p map[string]any) []string {
	found := []string{}
	for _, item := range p["dns_assignment"].([]any) {
		a := item.(map[string]any)
		found = append(found, fmt.Sprintf("%s %s %s", a["ip_address"], a["hostname"], a["fqdn"]))
	}
	return found
}

func TestPortsHaveDNSNames(t *testing.T) {
	a := newAPIOn(t, "sqlite://"+filepath.Join(t.TempDir(), "planck.db"), Options{DNSDomain: "Cloud.example"})
	plain := a.network(blue, "")
	named := a.network(blue, `"dns_domain": "blue.example.org."`)
	for _, net := range []string{plain, named} {
		a.subnet(blue, net, "10.0.0.0/24", "")
		a.subnet(blue, net, "2001:db8::/64", "")
	}
	for _, test := range []struct {
		network, name string
		want          []string
	}{
		{plain, "", []string{"10.0.0.9 host-10-0-0-9 host-10-0-0-9.cloud.example.", "2001:db8::9 host-2001-db8--9 host-2001-db8--9.cloud.example."}},
		{plain, "Web-1", []string{"10.0.0.9 web-1 web-1.cloud.example.", "2001:db8::9 web-1 web-1.cloud.example."}},
		{plain, "web.cloud.example.", []string{"10.0.0.9 web.cloud.example. web.cloud.example.", "2001:db8::9 web.cloud.example. web.cloud.example."}},
		{named, "web", []string{"10.0.0.9 web web.blue.example.org.", "2001:db8::9 web web.blue.example.org."}},
	} {
		body := fmt.Sprintf(`{"network_id": %q, "dns_name": %q, "fixed_ips": [{"ip_address": "10.0.0.9"}, {"ip_address": "2001:db8::9"}]}`, test.network, test.name)
		p := a.create(blue, "port", body)
		if diff := cmp.Diff(test.want, names(p)); diff != "" || p["dns_name"] != strings.ToLower(test.name) {
			t.Errorf("%q: dns_name %v, dns_assignment (-want +got):\n%s", test.name, p["dns_name"], diff)
		}
		p = a.put(blue, "port", p["id"].(string), `{"dns_name": "other"}`)
		if p["dns_name"] != "other" || !strings.Contains(names(p)[0], "other other.") {
			t.Errorf("after PUT: %v %v", p["dns_name"], names(p))
		}
		a.must(204, blue, "DELETE", "/v2.0/ports/"+p["id"].(string), "")
	}
	bare := a.create(blue, "port", fmt.Sprintf(`{"network_id": %q, "fixed_ips": []}`, plain))
	if got := names(bare); len(got) != 0 {
		t.Errorf("a port without addresses has %v", got)
	}
	for name, message := range map[string]string{
		`"-web"`:                               "Invalid input for dns_name. Reason: '-web' not a valid PQDN or FQDN. Reason: Name '-web' must not start or end with a hyphen.",
		`"a..b"`:                               "Invalid input for dns_name. Reason: 'a..b' not a valid PQDN or FQDN. Reason: Encountered an empty component.",
		`"a b"`:                                "Invalid input for dns_name. Reason: 'a b' not a valid PQDN or FQDN. Reason: Name 'a b' must be 1-63 characters long, each of which can only be alphanumeric or a hyphen.",
		`"web.1"`:                              "Invalid input for dns_name. Reason: 'web.1' not a valid PQDN or FQDN. Reason: TLD '1' must not be all numeric.",
		`"web.example.net."`:                   "",
		`"cloud.example."`:                     "",
		`"` + strings.Repeat("a.", 125) + `a"`: "",
	} {
		a.refused(blue, "POST", "/v2.0/ports", fmt.Sprintf(`{"port": {"network_id": %q, "dns_name": %s}}`, plain, name), 400, "HTTPBadRequest", message)
		a.refused(blue, "PUT", "/v2.0/ports/"+bare["id"].(string), fmt.Sprintf(`{"port": {"dns_name": %s}}`, name), 400, "HTTPBadRequest", message)
	}
	a.refused(blue, "PUT", "/v2.0/ports/"+bare["id"].(string), `{"port": {"dns_name": null}}`, 400, "InvalidInput",
		"Invalid input for operation: Input value None must be string type.")
}

func TestWithoutADomainNamesAreBare(t *testing.T) {
	a := newAPI(t)
	net := a.network(blue, "")
	a.subnet(blue, net, "10.0.0.0/24", "")
	p := a.create(blue, "port", fmt.Sprintf(`{"network_id": %q, "fixed_ips": [{"ip_address": "10.0.0.9"}], "dns_name": "web.example.org."}`, net))
	if diff := cmp.Diff([]string{"10.0.0.9 web.example.org. web.example.org."}, names(p)); diff != "" {
		t.Error(diff)
	}
	p = a.put(blue, "port", p["id"].(string), `{"dns_name": ""}`)
	if diff := cmp.Diff([]string{"10.0.0.9 host-10-0-0-9 host-10-0-0-9"}, names(p)); diff != "" {
		t.Error(diff)
	}
}
