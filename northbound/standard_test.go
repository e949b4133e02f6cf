package northbound

import (
	"fmt"
	"net/url"
	"regexp"
	"strings"
	"testing"
)

// timeForm is that of created_at and updated_at.
var timeForm = regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$`)

// TestStandardAttributesOfEveryResource walks the resources that have them: what
// each shows when it is new, what a change makes of that, tags and the filters by
// them, If-Match, and lists by several keys in pages.
func TestStandardAttributesOfEveryResource(t *testing.T) {
	a := newAPI(t)
	external := a.external("203.0.113.0/24")
	net := a.network(blueAdmin, "")
	group := a.create(blueAdmin, "security-group", `{"name": "g"}`)["id"].(string)
	for name, body := range map[string]string{
		"network": `"name": "s"`, "port": `"network_id": "` + net + `"`, "router": `"name": "s"`,
		"subnet":     `"network_id": "` + net + `", "ip_version": 4, "cidr": "10.%d.0.0/24"`,
		"subnetpool": `"name": "s", "prefixes": ["10.0.0.0/8"]`, "floatingip": `"floating_network_id": "` + external + `"`,
		"security-group": `"name": "s"`, "security-group-rule": `"security_group_id": "` + group + `", "direction": "ingress", "protocol": "%d"`,
	} {
		t.Run(name, func(t *testing.T) {
			a.t = t
			made := func(n int) string {
				b := body
				if strings.Contains(b, "%d") {
					b = fmt.Sprintf(b, n)
				}
				return a.create(blueAdmin, name, "{"+b+`, "description": "some"}`)["id"].(string)
			}
			first, second := made(1), made(2)
			path := "/v2.0/" + name + "s/" + first
			a.startsStandard(name, first)
			if o := a.put(blueAdmin, name, first, `{"description": "other"}`); o["description"] != "other" || o["revision_number"] != 1.0 {
				t.Errorf("after a change: %v, revision %v", o["description"], o["revision_number"])
			}
			a.tagged(name, first, second)
			a.refused(headers{"X-Project-Id": "blue", "X-Roles": "admin", "If-Match": "revision_number=0"}, "PUT", path, `{"`+strings.ReplaceAll(name, "-", "_")+`": {"description": "x"}}`,
				412, "RevisionNumberConstraintFailed", "")
			a.paged(name)
			a.must(204, headers{"X-Project-Id": "blue", "X-Roles": "admin", "If-Match": fmt.Sprintf("revision_number=%v", a.show(blueAdmin, name, first)["revision_number"])}, "DELETE", path, "")
		})
	}
}

func (a *api) startsStandard(name, id string) {
	a.t.Helper()
	o := a.show(blueAdmin, name, id)
	if o["description"] != "some" || o["revision_number"] != 0.0 || fmt.Sprint(o["tags"]) != "[]" || o["tenant_id"] != "blue" || o["project_id"] != "blue" {
		a.t.Errorf("a new %s: %v", name, o)
	}
	for _, when := range []string{"created_at", "updated_at"} {
		if at, _ := o[when].(string); !timeForm.MatchString(at) {
			a.t.Errorf("%s of a new %s: %v", when, name, o[when])
		}
	}
}

// tagged gives tags to the first of two objects, and tells both apart by them.
func (a *api) tagged(name, first, second string) {
	a.t.Helper()
	a.must(200, blueAdmin, "PUT", "/v2.0/"+name+"s/"+first+"/tags", `{"tags": ["red", "blue"]}`)
	a.must(201, blueAdmin, "PUT", "/v2.0/"+name+"s/"+second+"/tags/blue", "")
	both := "&id=" + first + "&id=" + second
	for query, want := range map[string]string{
		"tags=red,blue": first, "tags=red": first, "tags-any=red,green": first, "not-tags=red,blue": second, "not-tags-any=red": second,
		"tags=red,green": "", "description=other": first,
	} {
		if got := strings.Join(a.list(blueAdmin, name+"s", query+both, "id"), " "); got != want {
			a.t.Errorf("%ss?%s: %s, want %s", name, query, got, want)
		}
	}
	a.must(204, blueAdmin, "DELETE", "/v2.0/"+name+"s/"+first+"/tags/red", "")
	a.refused(blueAdmin, "DELETE", "/v2.0/"+name+"s/"+first+"/tags/red", "", 404, "TagNotFound", "Tag red could not be found.")
	for method, path := range map[string]string{"GET": "/tags", "PUT": "/tags/blue", "DELETE": "/tags"} {
		a.refused(red, method, "/v2.0/"+name+"s/"+first+path, "", 404, "TagResourceNotFound",
			"Resource "+strings.ReplaceAll(name, "-", "_")+"s "+first+" could not be found.")
	}
	if tags := fmt.Sprint(a.show(blueAdmin, name, first)["tags"]); tags != "[blue]" {
		a.t.Errorf("tags: %s", tags)
	}
}

// paged lists by two keys, all at once and by links from page to page.
func (a *api) paged(name string) {
	a.t.Helper()
	const query = "sort_key=revision_number&sort_dir=desc&sort_key=id&sort_dir=asc&fields=id"
	whole := a.list(blueAdmin, name+"s", query, "id")
	var found []string
	collection := strings.ReplaceAll(name, "-", "_") + "s"
	for path := "/v2.0/" + name + "s?limit=1&" + query; path != "" && len(found) <= len(whole); {
		r := a.must(200, blueAdmin, "GET", path, "")
		for _, o := range r.body[collection].([]any) {
			found = append(found, o.(map[string]any)["id"].(string))
		}
		path = ""
		for _, l := range r.body[collection+"_links"].([]any) {
			if link := l.(map[string]any); link["rel"] == "next" {
				next, err := url.Parse(link["href"].(string))
				if err != nil {
					a.t.Fatal(err)
				}
				path = next.RequestURI()
			}
		}
	}
	if len(whole) < 2 || strings.Join(found, " ") != strings.Join(whole, " ") {
		a.t.Errorf("%ss by pages: %v, at once: %v", name, found, whole)
	}
}
