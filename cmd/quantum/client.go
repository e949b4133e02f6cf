package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"strings"
	"time"
)

// client talks to one server of the networking API.
type client struct {
	http     *http.Client
	endpoint string      // without /v2.0 and without a slash at its end
	headers  http.Header // sent with every request
	debug    io.Writer   // nil for none
	timeout  time.Duration
}

// requestTimeout bounds one request, so that a dead server ends the command;
// --http-timeout says otherwise.
const requestTimeout = time.Minute

// connectTimeout bounds a connection: a machine that is up accepts or refuses at
// once, and one that is not says nothing.
const connectTimeout = 5 * time.Second

// maxReply bounds what is read of a reply, in bytes.
const maxReply = 256 << 20

// refusal is what the server says when it does not do something, or what the
// original client says, word for word.
type refusal string

func (r refusal) Error() string { return string(r) }

// connectionError is that a server could not be reached.
type connectionError struct{ err error }

func (e *connectionError) Error() string { return "Connection to quantum failed: " + e.err.Error() }
func (e *connectionError) Unwrap() error { return e.err }

// newHTTPClient makes a client whose requests may take so long.
func newHTTPClient(insecure bool, caFile, certFile, keyFile string, timeout time.Duration) (*http.Client, error) {
	config := &tls.Config{InsecureSkipVerify: insecure, MinVersion: tls.VersionTLS12}
	if caFile != "" {
		pem, err := os.ReadFile(caFile)
		if err != nil {
			return nil, fmt.Errorf("read CA certificates: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s has no certificate", caFile)
		}
	}
	if certFile != "" || keyFile != "" {
		own, err := tls.LoadX509KeyPair(certFile, keyFile)
		if err != nil {
			return nil, fmt.Errorf("--os-cert and --os-key: %w", err)
		}
		config.Certificates = []tls.Certificate{own}
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig = config
	connect := min(connectTimeout, timeout)
	transport.DialContext = (&net.Dialer{Timeout: connect}).DialContext
	transport.TLSHandshakeTimeout = connect
	transport.ResponseHeaderTimeout = timeout
	return &http.Client{Transport: transport, Timeout: 2*connect + 2*timeout}, nil
}

// call sends a request to path, below /v2.0, and returns the reply's object;
// nil when the reply has no body.
func (c *client) call(ctx context.Context, method, path string, query url.Values, body any) (object, error) {
	target := c.endpoint + "/v2.0" + path
	if len(query) > 0 {
		target += "?" + query.Encode()
	}
	_, reply, err := c.send(ctx, method, target, c.headers, body)
	return reply, err
}

// send sends one request. A status of 400 and more is a refusal.
func (c *client) send(ctx context.Context, method, target string, headers http.Header, body any) (http.Header, object, error) {
	var data []byte
	if body != nil {
		var err error
		if data, err = json.Marshal(body); err != nil {
			return nil, nil, fmt.Errorf("encode request: %w", err)
		}
	}
	request, err := http.NewRequestWithContext(ctx, method, target, bytes.NewReader(data))
	if err != nil {
		return nil, nil, fmt.Errorf("bad URL: %w", err)
	}
	request.Header = headers.Clone()
	if request.Header == nil {
		request.Header = http.Header{}
	}
	request.Header.Set("Accept", "application/json")
	request.Header.Set("User-Agent", "planck-quantum")
	if body != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	c.logRequest(request, data)
	response, err := c.http.Do(request)
	if err != nil {
		return nil, nil, &connectionError{c.plain(request.URL, err)}
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, maxReply))
	if err != nil {
		return nil, nil, fmt.Errorf("read reply of %s: %w", target, err)
	}
	c.logResponse(response, text)
	reply, err := readReply(response.StatusCode, text)
	return response.Header, reply, err
}

// plain drops the method and URL that net/http puts before the reason, and says
// in plain words that nobody answers.
func (c *client) plain(target *url.URL, err error) error {
	var wrapped *url.Error
	if !errors.As(err, &wrapped) {
		return err
	}
	var dial *net.OpError
	switch {
	case !wrapped.Timeout():
		return wrapped.Err
	case errors.As(err, &dial) && dial.Op == "dial":
		return fmt.Errorf("%s can't be reached: no answer within %v", target.Host, min(connectTimeout, c.timeout))
	}
	return fmt.Errorf("%s accepts connections and does not answer within %v (--http-timeout)", target.Host, c.timeout)
}

func readReply(status int, text []byte) (object, error) {
	if status >= 400 {
		return nil, refusal(errorMessage(status, text))
	}
	if len(bytes.TrimSpace(text)) == 0 {
		return nil, nil
	}
	v, err := decodeJSON(text)
	if err != nil {
		return nil, fmt.Errorf("malformed response body: %w", err)
	}
	reply, ok := v.(object)
	if !ok {
		return nil, errors.New("malformed response body: not an object")
	}
	return reply, nil
}

// errorMessage is what an error reply tells: the message of a NeutronError or
// of keystonemiddleware, else the body as it is.
func errorMessage(status int, text []byte) string {
	v, err := decodeJSON(text)
	reply, ok := v.(object)
	if err != nil || !ok {
		return strings.TrimSpace(fmt.Sprintf("%d-%s", status, printable(strings.TrimSpace(string(text)))))
	}
	for _, key := range []string{"NeutronError", "QuantumError", "error"} {
		switch e := reply.get(key).(type) {
		case string:
			return printable(e)
		case object:
			message := e.text("message")
			if detail := e.text("detail"); detail != "" {
				message += "\n" + detail
			}
			if message != "" {
				return printable(message)
			}
		}
	}
	if message := reply.text("message"); message != "" {
		return printable(message)
	}
	return fmt.Sprintf("%d-%s", status, jsonText(reply))
}

// secretHeaders are not shown by --debug.
var secretHeaders = map[string]bool{"X-Auth-Token": true, "X-Subject-Token": true}

func (c *client) logRequest(r *http.Request, body []byte) {
	if c.debug == nil {
		return
	}
	var b strings.Builder
	fmt.Fprintf(&b, "REQ: curl -i -X %s '%s'", r.Method, r.URL)
	for _, name := range []string{"X-Auth-Token", "X-Project-Id", "Content-Type", "Accept"} {
		if v := r.Header.Get(name); v != "" {
			fmt.Fprintf(&b, " -H '%s: %s'", name, shownHeader(name, v))
		}
	}
	if len(body) > 0 {
		fmt.Fprintf(&b, " -d '%s'", secretMember.ReplaceAll(body, []byte(`"$1":"***"`)))
	}
	fmt.Fprintln(c.debug, b.String())
}

// secretMember finds passwords and tokens in requests to Keystone.
var secretMember = regexp.MustCompile(`"(password|id)":"(?:[^"\\]|\\.)*"`)

func shownHeader(name, value string) string {
	if secretHeaders[name] {
		return "***"
	}
	return value
}

func (c *client) logResponse(r *http.Response, body []byte) {
	if c.debug == nil {
		return
	}
	fmt.Fprintf(c.debug, "RESP: %s", r.Status)
	for _, name := range []string{"Content-Type", "X-Openstack-Request-Id"} {
		if v := r.Header.Get(name); v != "" {
			fmt.Fprintf(c.debug, " %s: %s", name, v)
		}
	}
	fmt.Fprintf(c.debug, "\n%s\n", printable(string(body)))
}

var uuidPattern = regexp.MustCompile(`^[0-9A-Fa-f]{8}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{12}$`)

// find is the id of the object of a kind ("network", "security_group") that
// has this id or, else, this name.
func (c *client) find(ctx context.Context, kind, nameOrID string) (string, error) {
	if uuidPattern.MatchString(nameOrID) {
		found, err := c.list(ctx, kind, url.Values{"id": {nameOrID}, "fields": {"id"}})
		if err != nil {
			return "", err
		}
		if len(found) > 0 {
			return found[0].text("id"), nil
		}
	}
	found, err := c.list(ctx, kind, url.Values{"name": {nameOrID}, "fields": {"id"}})
	if err != nil {
		return "", err
	}
	switch len(found) {
	case 0:
		return "", refusal(fmt.Sprintf("Unable to find %s with name '%s'", kind, nameOrID))
	case 1:
		return found[0].text("id"), nil
	}
	return "", refusal(fmt.Sprintf("Multiple %s matches found for name '%s', use an ID to be more specific.", kind, nameOrID))
}

// list is the objects of a kind that the query selects.
func (c *client) list(ctx context.Context, kind string, query url.Values) ([]object, error) {
	reply, err := c.call(ctx, http.MethodGet, collectionPath(kind), query, nil)
	if err != nil {
		return nil, err
	}
	return objects(reply.get(kind + "s")), nil
}

// listPages is list with pages of limit objects, one request each.
func (c *client) listPages(ctx context.Context, kind string, query url.Values, limit string) ([]object, error) {
	query.Set("limit", limit)
	var all []object
	for {
		reply, err := c.call(ctx, http.MethodGet, collectionPath(kind), query, nil)
		if err != nil {
			return nil, err
		}
		page := objects(reply.get(kind + "s"))
		all = append(all, page...)
		next, ok := nextMarker(objects(reply.get(kind + "s_links")))
		if !ok || len(page) == 0 || next == query.Get("marker") {
			return all, nil
		}
		query.Set("marker", next)
	}
}

// nextMarker is the marker of the link to the next page.
func nextMarker(links []object) (string, bool) {
	for _, link := range links {
		if link.text("rel") != "next" {
			continue
		}
		target, err := url.Parse(link.text("href"))
		if err != nil {
			return "", false
		}
		marker := target.Query().Get("marker")
		return marker, marker != ""
	}
	return "", false
}

// collectionPath is the path of a kind's collection: "/security-groups".
func collectionPath(kind string) string { return "/" + dashed(kind) + "s" }

func objectPath(kind, id string) string { return collectionPath(kind) + "/" + url.PathEscape(id) }
