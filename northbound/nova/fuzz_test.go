package nova

import (
	"io"
	"net/http"
	"strings"
	"testing"
)

// answers are those of Keystone and Nova, in their order; the last one again.
type answers []answer

type answer struct {
	status int
	body   string
}

// RoundTrip implements http.RoundTripper.
func (a *answers) RoundTrip(r *http.Request) (*http.Response, error) {
	next := (*a)[0]
	if len(*a) > 1 {
		*a = (*a)[1:]
	}
	return &http.Response{StatusCode: next.status, Header: http.Header{"X-Subject-Token": {"t"}}, Body: io.NopCloser(strings.NewReader(next.body)), Request: r}, nil
}

// FuzzAnswers answers events as neither Keystone nor Nova does: each event has a
// code, or the request failed.
func FuzzAnswers(f *testing.F) {
	const token = `{"token": {"expires_at": "2999-01-01T00:00:00.000000Z", "catalog": [{"type": "compute", "endpoints": [{"interface": "public", "region": "r", "url": "http://nova/v2.1/"}]}]}}`
	f.Add(201, token, 200, `{"events": [{"name": "network-vif-plugged", "server_uuid": "s", "tag": "p", "status": "completed", "code": 200}]}`)
	f.Add(201, token, 207, `{"events": [{"name": "network-vif-plugged", "server_uuid": "s", "tag": "p", "code": 422}, {"name": "network-changed", "server_uuid": "s", "tag": "q", "code": 404}]}`)
	f.Add(201, token, 401, "")
	f.Add(201, token, 404, `{"itemNotFound": {}}`)
	f.Add(201, `{"token": {"catalog": [{"type": "compute", "endpoints": null}]}}`, 200, `{"events": null}`)
	f.Add(401, `{"error": {}}`, 500, "<html>")
	f.Add(201, `{"token": {"expires_at": "x"}}`, 207, `{"events": [{"code": "200"}]}`)
	events := []Event{{Name: vifPlugged, ServerUUID: "s", Tag: "p"}, {Name: networkChanged, ServerUUID: "s", Tag: "q"}}
	f.Fuzz(func(t *testing.T, tokenStatus int, token string, status int, body string) {
		s, err := newSession(&Options{AuthURL: "http://keystone:5000/v3", Username: "u", ProjectName: "p"})
		if err != nil {
			t.Fatal(err)
		}
		s.http = &http.Client{Transport: &answers{{tokenStatus, token}, {status, body}}}
		got, answer, err := s.post(t.Context(), eventsPath, []byte("{}"))
		if err != nil {
			return
		}
		if tokenStatus != http.StatusCreated {
			t.Errorf("Nova was asked with the token of a login that was refused by %d", tokenStatus)
		}
		if codes, err := codesOf(got, answer, events); err == nil && len(codes) != len(events) {
			t.Errorf("%d %s: %d codes for %d events", got, answer, len(codes), len(events))
		}
	})
}
