package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// defaultEndpoint is the controller on this machine.
const defaultEndpoint = "http://127.0.0.1:9696"

// globalOptions may stand anywhere on the command line. Those named os-… have
// an environment variable of the same name: --os-auth-url, OS_AUTH_URL.
var globalOptions = []*option{
	{name: "os-auth-strategy", metavar: "STRATEGY", help: "keystone or noauth"},
	{name: "os-auth-url", metavar: "URL", help: "URL of Keystone"},
	{name: "os-username", metavar: "NAME", help: "user name"},
	{name: "os-user-id", metavar: "ID", help: "user id"},
	{name: "os-password", metavar: "PASSWORD", help: "password"},
	{name: "os-user-domain-name", metavar: "NAME", help: "domain of the user"},
	{name: "os-user-domain-id", metavar: "ID", help: "domain of the user (default)"},
	{name: "os-tenant-name", metavar: "NAME", help: "project"},
	{name: "os-project-name", metavar: "NAME", help: "project"},
	{name: "os-tenant-id", metavar: "ID", help: "project; without authentication, act as a member of it"},
	{name: "os-project-id", metavar: "ID", help: "project; without authentication, act as a member of it"},
	{name: "os-project-domain-name", metavar: "NAME", help: "domain of the project"},
	{name: "os-project-domain-id", metavar: "ID", help: "domain of the project (default)"},
	{name: "os-region-name", metavar: "NAME", help: "region of the endpoint"},
	{name: "os-endpoint-type", metavar: "TYPE", help: "public, internal or admin"},
	{name: "os-interface", metavar: "TYPE", help: "public, internal or admin"},
	{name: "os-token", metavar: "TOKEN", help: "token"},
	{name: "os-url", metavar: "URL", help: "URL of the server (" + defaultEndpoint + ")"},
	{name: "os-cacert", metavar: "FILE", help: "certificates that sign the servers'"},
	{name: "os-cert", metavar: "FILE", help: "certificate of one's own"},
	{name: "os-key", metavar: "FILE", help: "private key of that certificate"},
	{name: "http-timeout", metavar: "SECONDS", help: "how long to wait for an answer (60)"},
	{name: "insecure", help: "accept any certificate"},
	{name: "debug", help: "show requests and replies"},
	{name: "verbose", short: "v", help: "show requests and replies"},
	{name: "quiet", short: "q", help: "show only results, warnings and errors"},
	{name: "help", short: "h", help: "show help"},
	{name: "version", help: "show the version"},
}

// settings are the global options, with the environment behind them.
type settings struct {
	args *arguments
	env  func(string) string
}

// get is the first of the options that is given, by flag or environment.
func (s settings) get(names ...string) string {
	for _, name := range names {
		if s.args.has(name) {
			return s.args.text(name)
		}
	}
	for _, name := range names {
		if v := s.env(strings.ToUpper(underscored(name))); v != "" {
			return v
		}
	}
	return ""
}

// connect makes a client as the settings say: a URL, with or without a token;
// a password or token for Keystone, which tells the URL; or the controller on
// this machine.
func connect(ctx context.Context, s settings, debug io.Writer) (*client, error) {
	insecure := s.args.flag("insecure") || isTrue(s.env("QUANTUMCLIENT_INSECURE"))
	timeout, err := s.timeout()
	if err != nil {
		return nil, err
	}
	httpClient, err := newHTTPClient(insecure, s.get("os-cacert"), s.get("os-cert"), s.get("os-key"), timeout)
	if err != nil {
		return nil, err
	}
	c := &client{http: httpClient, headers: http.Header{}, endpoint: trimEndpoint(s.get("os-url")), debug: debug, timeout: timeout}
	strategy := s.get("os-auth-strategy")
	token := s.get("os-token")
	switch {
	case c.endpoint != "" && token != "" && strategy != "noauth":
		c.headers.Set("X-Auth-Token", token)
		return c, nil
	case s.get("os-auth-url") != "" && strategy != "noauth":
		return c, c.authenticate(ctx, s)
	case token != "" && strategy != "noauth":
		return nil, errors.New("you must provide a service URL via either --os-url or env[OS_URL]")
	}
	if c.endpoint == "" {
		c.endpoint = defaultEndpoint
	}
	if project := s.get("os-tenant-id", "os-project-id"); project != "" {
		c.headers.Set("X-Project-Id", project)
	}
	return c, nil
}

// timeout is how long to wait for an answer, as --http-timeout or the variable of
// the neutron client has it.
func (s settings) timeout() (time.Duration, error) {
	text := s.env("OS_NETWORK_TIMEOUT")
	if s.args.has("http-timeout") {
		text = s.args.text("http-timeout")
	}
	if text == "" {
		return requestTimeout, nil
	}
	seconds, err := strconv.ParseFloat(text, 64)
	if err != nil || !(seconds > 0 && seconds < 1e6) {
		return 0, usagef("argument --http-timeout: invalid number of seconds: %q", text)
	}
	return time.Duration(seconds * float64(time.Second)), nil
}

func isTrue(s string) bool { return s != "" && s != "0" && !strings.EqualFold(s, "false") }

// trimEndpoint drops the version at the end of an endpoint.
func trimEndpoint(endpoint string) string {
	endpoint = strings.TrimRight(endpoint, "/")
	return strings.TrimRight(strings.TrimSuffix(endpoint, "/v2.0"), "/")
}

var keystoneVersion = regexp.MustCompile(`/v[0-9.]+$`)

// tokensURL is where Keystone v3 gives tokens; authURL may be that of v2.0, of
// v3 or have no version.
func tokensURL(authURL string) string {
	base := strings.TrimRight(authURL, "/")
	return keystoneVersion.ReplaceAllString(base, "") + "/v3/auth/tokens"
}

// authenticate gets a token from Keystone, and the endpoint from its catalog
// unless there is one.
func (c *client) authenticate(ctx context.Context, s settings) error {
	request, err := tokenRequest(s)
	if err != nil {
		return err
	}
	headers, reply, err := c.send(ctx, http.MethodPost, tokensURL(s.get("os-auth-url")), nil, request)
	if err != nil {
		return fmt.Errorf("authenticate: %w", err)
	}
	token := headers.Get("X-Subject-Token")
	if token == "" {
		return errors.New("authenticate: Keystone gave no token")
	}
	c.headers.Set("X-Auth-Token", token)
	if c.endpoint != "" {
		return nil
	}
	body, _ := reply.get("token").(object)
	kind := strings.TrimSuffix(s.get("os-endpoint-type", "os-interface"), "URL")
	if kind == "" {
		kind = "public"
	}
	c.endpoint, err = networkEndpoint(objects(body.get("catalog")), s.get("os-region-name"), kind)
	return err
}

// tokenRequest is the body that asks Keystone for a token of a project.
func tokenRequest(s settings) (map[string]any, error) {
	identity, err := identity(s)
	if err != nil {
		return nil, err
	}
	project := map[string]any{}
	switch {
	case s.get("os-tenant-id", "os-project-id") != "":
		project["id"] = s.get("os-tenant-id", "os-project-id")
	case s.get("os-tenant-name", "os-project-name") != "":
		project["name"] = s.get("os-tenant-name", "os-project-name")
		project["domain"] = domain(s, "os-project-domain")
	default:
		return nil, errors.New("you must provide a tenant_name via either --os-tenant-name or via env[OS_TENANT_NAME]")
	}
	return map[string]any{"auth": map[string]any{
		"identity": identity,
		"scope":    map[string]any{"project": project},
	}}, nil
}

func identity(s settings) (map[string]any, error) {
	if token := s.get("os-token"); token != "" {
		return map[string]any{"methods": []string{"token"}, "token": map[string]any{"id": token}}, nil
	}
	user := map[string]any{"password": s.get("os-password")}
	switch {
	case s.get("os-user-id") != "":
		user["id"] = s.get("os-user-id")
	case s.get("os-username") != "":
		user["name"] = s.get("os-username")
		user["domain"] = domain(s, "os-user-domain")
	default:
		return nil, errors.New("you must provide a username via either --os-username or env[OS_USERNAME]")
	}
	if user["password"] == "" {
		return nil, errors.New("you must provide a password via either --os-password or env[OS_PASSWORD]")
	}
	return map[string]any{"methods": []string{"password"}, "password": map[string]any{"user": user}}, nil
}

func domain(s settings, prefix string) map[string]any {
	if name := s.get(prefix + "-name"); name != "" {
		return map[string]any{"name": name}
	}
	if id := s.get(prefix + "-id"); id != "" {
		return map[string]any{"id": id}
	}
	return map[string]any{"id": "default"}
}

// networkEndpoint is the URL of the networking service in a catalog.
func networkEndpoint(catalog []object, region, kind string) (string, error) {
	for _, service := range catalog {
		if service.text("type") != "network" {
			continue
		}
		for _, e := range objects(service.get("endpoints")) {
			inRegion := region == "" || e.text("region") == region || e.text("region_id") == region
			if inRegion && e.text("interface") == kind {
				return trimEndpoint(e.text("url")), nil
			}
		}
	}
	return "", errors.New("could not find Service or Region in Service Catalog")
}
