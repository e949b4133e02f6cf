package northbound

import (
	"fmt"
	"net/http"

	"planck/network"
)

// extension is a feature that the API advertises.
type extension struct {
	alias, name, description, updated string
}

// commonExtensions are those of the engine: every resource has them.
var commonExtensions = []extension{
	{"empty-string-filtering", "Empty String Filtering Extension", "Allow filtering by attributes with empty string value", "2018-05-01T10:00:00-00:00"},
	{"filter-validation", "Filter parameters validation", "Provides validation on filter parameters.", "2018-07-04T10:00:00-00:00"},
	{"pagination", "Pagination support", "Extension that indicates that pagination is enabled.", "2016-06-12T00:00:00-00:00"},
	{"project-id", "project_id field enabled", "Extension that indicates that project_id field is enabled.", "2016-09-09T09:09:09-09:09"},
	{"revision-if-match", "If-Match constraints based on revision_number", "Extension indicating that If-Match based on revision_number is supported.", "2016-12-11T00:00:00-00:00"},
	{"sort-key-validation", "Sort keys validation", "Provides validation on sort keys.", "2018-07-04T10:00:00-00:00"},
	{"sorting", "Sorting support", "Extension that indicates that sorting is enabled.", "2016-06-12T00:00:00-00:00"},
	{"standard-attr-description", "standard-attr-description", "Extension to add descriptions to standard attributes", "2016-02-10T10:00:00-00:00"},
	{"standard-attr-revisions", "Resource revision numbers", "This extension will display the revision number of neutron resources.", "2016-04-11T10:00:00-00:00"},
	{"standard-attr-timestamp", "Resource timestamps", "Adds created_at and updated_at fields to all Neutron resources that have Neutron standard attributes.", "2016-09-12T10:00:00-00:00"},
}

// extensions are all that is advertised, by the resources that bring them.
func (s *server) extensions() []extension {
	list := append([]extension(nil), commonExtensions...)
	list = append(list, tagsExtensions...)
	if s.quotas != nil && !s.quotas.fixed {
		list = append(list, quotaExtensions...)
	}
	for _, c := range s.collections {
		list = append(list, c.advertised()...)
	}
	return list
}

func (s *server) discovery() []endpoint {
	return []endpoint{
		{path: "/", resource: "versions", methods: methods{http.MethodGet: showVersions}},
		{path: "/v2.0", resource: "versions", methods: methods{http.MethodGet: showResources}},
		{path: "/v2.0/extensions", resource: "extensions", methods: methods{http.MethodGet: listExtensions}},
		{path: "/v2.0/extensions/{id}", resource: "extensions", methods: methods{http.MethodGet: showExtension}},
	}
}

func showVersions(c *call) (int, []byte, error) {
	b := []byte(`{"versions": [{"id": "v2.0", "status": "CURRENT", "links": [{"rel": "self", "href": `)
	b = appendString(b, c.baseURL()+"/v2.0/")
	return http.StatusOK, append(b, "}]}]}"...), nil
}

func showResources(c *call) (int, []byte, error) {
	b := appendList([]byte(`{"resources": `), c.server.collections, func(b []byte, of collection) []byte {
		name, collection := of.title()
		b = fmt.Appendf(b, `{"name": "%s", "collection": "%s", "links": [{"rel": "self", "href": `, name, collection)
		b = appendString(b, c.baseURL()+of.endpoints()[0].path)
		return append(b, "}]}"...)
	})
	return http.StatusOK, append(b, '}'), nil
}

func appendExtension(b []byte, e extension) []byte {
	b = appendString(append(b, `{"alias": `...), e.alias)
	b = appendString(append(b, `, "name": `...), e.name)
	b = appendString(append(b, `, "description": `...), e.description)
	b = appendString(append(b, `, "updated": `...), e.updated)
	return append(b, `, "links": []}`...)
}

func listExtensions(c *call) (int, []byte, error) {
	b := appendList([]byte(`{"extensions": `), c.server.extensions(), appendExtension)
	return http.StatusOK, append(b, '}'), nil
}

func showExtension(c *call) (int, []byte, error) {
	for _, e := range c.server.extensions() {
		if e.alias == c.id {
			return http.StatusOK, append(appendExtension([]byte(`{"extension": `), e), '}'), nil
		}
	}
	return 0, nil, network.Errorf(network.NotFound, "HTTPNotFound", "Extension with alias %s does not exist", clip(c.id))
}
