package nova

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"regexp"
	"strings"
	"time"
)

// Options say where Nova is and who tells it: [nova] of a configuration file.
type Options struct {
	// EndpointOverride is the URL of the compute API; "" looks it up in the
	// catalog of Keystone.
	EndpointOverride string
	AuthURL          string // of Keystone; "" sends no token

	UserID, Username, Password         string
	UserDomainID, UserDomainName       string // "" for the domain "default"
	ProjectID, ProjectName             string
	ProjectDomainID, ProjectDomainName string

	RegionName   string // "" for any
	EndpointType string // public, internal or admin
	CAFile       string // "" for the system's authorities
	Insecure     bool
	Timeout      time.Duration // of one request; 0 is 30 seconds
	// Interval is the least time between two requests, in which events gather.
	Interval time.Duration
	Triggers Triggers
}

// Enabled reports whether there is a Nova to tell.
func (o *Options) Enabled() bool { return o.EndpointOverride != "" || o.AuthURL != "" }

const (
	requestTimeout = 30 * time.Second
	// renewBefore is how long before its end a token is replaced.
	renewBefore = time.Minute
	// maxAnswer bounds what is read of an answer, in bytes.
	maxAnswer = 8 << 20
)

// session is a client of Nova with a token of Keystone.
type session struct {
	o    *Options
	http *http.Client

	token    string
	expires  time.Time
	endpoint string
}

func newSession(o *Options) (*session, error) {
	config := &tls.Config{InsecureSkipVerify: o.Insecure, MinVersion: tls.VersionTLS12}
	if o.CAFile != "" {
		pem, err := os.ReadFile(o.CAFile)
		if err != nil {
			return nil, fmt.Errorf("[nova] cafile: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("[nova] cafile: %s has no certificate", o.CAFile)
		}
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig = config
	return &session{
		o: o, endpoint: strings.TrimRight(o.EndpointOverride, "/"),
		http: &http.Client{Transport: transport, Timeout: cmp.Or(o.Timeout, requestTimeout)},
	}, nil
}

// post sends a body to a path of Nova. A token that Nova refuses is replaced once.
func (s *session) post(ctx context.Context, path string, body []byte) (int, []byte, error) {
	for again := false; ; again = true {
		if err := s.login(ctx); err != nil {
			return 0, nil, err
		}
		status, _, answer, err := s.send(ctx, s.endpoint+path, s.token, body)
		if err != nil || status != http.StatusUnauthorized || again || s.o.AuthURL == "" {
			return status, answer, err
		}
		s.token = ""
	}
}

func (s *session) send(ctx context.Context, url, token string, body []byte) (int, http.Header, []byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return 0, nil, nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", "planck")
	if token != "" {
		req.Header.Set("X-Auth-Token", token)
	}
	res, err := s.http.Do(req)
	if err != nil {
		return 0, nil, nil, err
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	return res.StatusCode, res.Header, answer, err
}

var versionSuffix = regexp.MustCompile(`/v[0-9.]+$`)

// login gets a token, and with it the URL of Nova, where they are needed.
func (s *session) login(ctx context.Context) error {
	if s.o.AuthURL == "" || s.token != "" && time.Until(s.expires) > renewBefore {
		return nil
	}
	body, err := s.o.login()
	if err != nil {
		return err
	}
	base := versionSuffix.ReplaceAllString(strings.TrimRight(s.o.AuthURL, "/"), "")
	status, header, answer, err := s.send(ctx, base+"/v3/auth/tokens", "", body)
	if err != nil {
		return err
	}
	if status != http.StatusCreated {
		return fmt.Errorf("keystone gives no token for the user of [nova]: status %d: %.200s", status, answer)
	}
	var given struct {
		Token struct {
			ExpiresAt time.Time `json:"expires_at"`
			Catalog   []service `json:"catalog"`
		} `json:"token"`
	}
	if err := json.Unmarshal(answer, &given); err != nil {
		return fmt.Errorf("the answer of keystone: %w", err)
	}
	if s.o.EndpointOverride == "" {
		if s.endpoint, err = s.o.find(given.Token.Catalog); err != nil {
			return err
		}
	}
	s.token, s.expires = header.Get("X-Subject-Token"), given.Token.ExpiresAt
	return nil
}

// service is an entry of Keystone's catalog.
type service struct {
	Type      string `json:"type"`
	Endpoints []struct {
		Interface string `json:"interface"`
		Region    string `json:"region"`
		RegionID  string `json:"region_id"`
		URL       string `json:"url"`
	} `json:"endpoints"`
}

func (o *Options) find(catalog []service) (string, error) {
	wanted := strings.TrimSuffix(cmp.Or(o.EndpointType, "public"), "URL")
	for _, s := range catalog {
		for _, e := range s.Endpoints {
			if s.Type == "compute" && e.Interface == wanted && (o.RegionName == "" || e.Region == o.RegionName || e.RegionID == o.RegionName) {
				return strings.TrimRight(e.URL, "/"), nil
			}
		}
	}
	return "", fmt.Errorf("the catalog of keystone has no %s endpoint of type compute in region %q", wanted, o.RegionName)
}

// login is the body that asks Keystone for a token.
func (o *Options) login() ([]byte, error) {
	user := map[string]any{"password": o.Password}
	switch {
	case o.UserID != "":
		user["id"] = o.UserID
	case o.Username != "":
		user["name"], user["domain"] = o.Username, domain(o.UserDomainID, o.UserDomainName)
	default:
		return nil, errors.New("[nova] username is not given")
	}
	auth := map[string]any{"identity": map[string]any{
		"methods": []string{"password"}, "password": map[string]any{"user": user},
	}}
	switch {
	case o.ProjectID != "":
		auth["scope"] = map[string]any{"project": map[string]any{"id": o.ProjectID}}
	case o.ProjectName != "":
		project := map[string]any{"name": o.ProjectName, "domain": domain(o.ProjectDomainID, o.ProjectDomainName)}
		auth["scope"] = map[string]any{"project": project}
	default:
		return nil, errors.New("[nova] project_name is not given")
	}
	return json.Marshal(map[string]any{"auth": auth})
}

func domain(id, name string) map[string]any {
	if id == "" && name != "" {
		return map[string]any{"name": name}
	}
	return map[string]any{"id": cmp.Or(id, "default")}
}
