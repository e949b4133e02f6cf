package northbound

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"strings"
	"sync"
	"time"
)

// KeystoneOptions say how Keystone is asked about tokens: [keystone_authtoken]
// of a configuration file.
type KeystoneOptions struct {
	AuthURL            string // with or without a version at its end
	WWWAuthenticateURI string // what a client without a token is told; "" for AuthURL

	UserID, Username, Password         string
	UserDomainID, UserDomainName       string // "" for the domain "default"
	ProjectID, ProjectName             string
	ProjectDomainID, ProjectDomainName string

	CAFile, CertFile, KeyFile string // "" for the system's authorities, and for no certificate of our own
	Insecure                  bool
	// Timeout bounds one request to Keystone; 0 is 10 seconds.
	Timeout time.Duration
	// CacheTime is how long an answer about a token is believed, and so how
	// long a revoked one may go on; not positive asks each time.
	CacheTime time.Duration
	// CacheSize bounds how many tokens are remembered; 0 is 100,000.
	CacheSize int
	// ServiceTokenRoles are the roles that let the token of a service vouch
	// for an expired token of a user.
	ServiceTokenRoles []string
	// ServiceTokenRolesRequired refuses a service's token without such a role.
	ServiceTokenRolesRequired bool
}

const (
	keystoneTimeout  = 10 * time.Second
	defaultCacheSize = 100_000
	// renewBefore is how long before its end our own token is replaced.
	renewBefore = time.Minute
	// maxTokenBody bounds an answer of Keystone, in bytes.
	maxTokenBody = 4 << 20
)

// token is what Keystone says about one.
type token struct {
	identity Identity
	expires  time.Time
}

// errNoToken is that Keystone does not know a token.
var errNoToken = errors.New("keystone does not accept the token")

// keystoneClient is a client of a Keystone v3, with a token of its own.
type keystoneClient struct {
	base        string // without the version
	credentials []byte // the request for our own token
	http        *http.Client
	timeout     time.Duration

	mu      sync.Mutex // held while a token is fetched: everybody else needs it, too
	own     string
	expires time.Time
}

var versionSuffix = regexp.MustCompile(`/v[0-9.]+$`)

func newKeystoneClient(o *KeystoneOptions) (*keystoneClient, error) {
	base := versionSuffix.ReplaceAllString(strings.TrimRight(o.AuthURL, "/"), "")
	if u, err := url.Parse(base); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, fmt.Errorf("[keystone_authtoken] auth_url: %q is not the URL of a Keystone", o.AuthURL)
	}
	credentials, err := o.login()
	if err != nil {
		return nil, err
	}
	config, err := o.tls()
	if err != nil {
		return nil, err
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig = config
	transport.MaxIdleConnsPerHost = 32
	return &keystoneClient{
		base: base, credentials: credentials, timeout: cmp.Or(o.Timeout, keystoneTimeout),
		http: &http.Client{Transport: transport},
	}, nil
}

// login is the body that asks for the user's token.
func (o *KeystoneOptions) login() ([]byte, error) {
	user := map[string]any{"password": o.Password}
	switch {
	case o.UserID != "":
		user["id"] = o.UserID
	case o.Username != "":
		user["name"], user["domain"] = o.Username, domain(o.UserDomainID, o.UserDomainName)
	default:
		return nil, errors.New("[keystone_authtoken] username is not given")
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
		return nil, errors.New("[keystone_authtoken] project_name is not given")
	}
	return json.Marshal(map[string]any{"auth": auth})
}

func domain(id, name string) map[string]any {
	if id == "" && name != "" {
		return map[string]any{"name": name}
	}
	return map[string]any{"id": cmp.Or(id, "default")}
}

func (o *KeystoneOptions) tls() (*tls.Config, error) {
	config := &tls.Config{InsecureSkipVerify: o.Insecure, MinVersion: tls.VersionTLS12}
	if o.CAFile != "" {
		pem, err := os.ReadFile(o.CAFile)
		if err != nil {
			return nil, fmt.Errorf("[keystone_authtoken] cafile: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("[keystone_authtoken] cafile: %s has no certificate", o.CAFile)
		}
	}
	if o.CertFile != "" {
		pair, err := tls.LoadX509KeyPair(o.CertFile, cmp.Or(o.KeyFile, o.CertFile))
		if err != nil {
			return nil, fmt.Errorf("[keystone_authtoken] certfile, keyfile: %w", err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}

// validate asks Keystone about a token: errNoToken when it is not valid. One
// that has expired is, when allowExpired says so.
func (k *keystoneClient) validate(ctx context.Context, subject string, allowExpired bool) (*token, error) {
	ctx, cancel := context.WithTimeout(ctx, k.timeout)
	defer cancel()
	own, err := k.token(ctx, "")
	if err != nil {
		return nil, err
	}
	status, body, err := k.ask(ctx, own, subject, allowExpired)
	if err == nil && status == http.StatusUnauthorized {
		// Our own token is no longer good: it was revoked, or Keystone's keys were replaced.
		if own, err = k.token(ctx, own); err != nil {
			return nil, err
		}
		status, body, err = k.ask(ctx, own, subject, allowExpired)
	}
	switch {
	case err != nil:
		return nil, err
	case status == http.StatusNotFound:
		return nil, errNoToken
	case status != http.StatusOK:
		return nil, fmt.Errorf("keystone validates no token: status %d: %.200s", status, body)
	}
	return parseToken(body)
}

func (k *keystoneClient) ask(ctx context.Context, own, subject string, allowExpired bool) (int, []byte, error) {
	query := "?nocatalog"
	if allowExpired {
		query += "&allow_expired=1"
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, k.base+"/v3/auth/tokens"+query, nil)
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("X-Auth-Token", own)
	req.Header.Set("X-Subject-Token", subject)
	status, _, body, err := k.do(req)
	return status, body, err
}

// token returns our own token; it fetches one when there is none, when it ends
// soon, and when it is the stale one.
func (k *keystoneClient) token(ctx context.Context, stale string) (string, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.own != "" && k.own != stale && time.Until(k.expires) > renewBefore {
		return k.own, nil
	}
	status, secret, body, err := k.issue(ctx, k.credentials)
	if err != nil {
		return "", err
	}
	if status != http.StatusCreated {
		return "", fmt.Errorf("keystone gives no token for the user of [keystone_authtoken]: status %d: %.200s", status, body)
	}
	t, err := parseToken(body)
	if err != nil {
		return "", err
	}
	k.own, k.expires = secret, t.expires
	return k.own, nil
}

func (k *keystoneClient) do(req *http.Request) (int, http.Header, []byte, error) {
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", "planck")
	res, err := k.http.Do(req)
	if err != nil {
		return 0, nil, nil, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, maxTokenBody))
	if err != nil {
		return 0, nil, nil, fmt.Errorf("read the answer of keystone: %w", err)
	}
	return res.StatusCode, res.Header, body, nil
}

func parseToken(body []byte) (*token, error) {
	var answer struct {
		Token struct {
			ExpiresAt time.Time `json:"expires_at"`
			User      struct {
				ID string `json:"id"`
			} `json:"user"`
			Project struct {
				ID string `json:"id"`
			} `json:"project"`
			Roles []struct {
				Name string `json:"name"`
			} `json:"roles"`
		} `json:"token"`
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return nil, fmt.Errorf("answer of keystone: %w", err)
	}
	t := &token{expires: answer.Token.ExpiresAt}
	if t.expires.IsZero() || answer.Token.User.ID == "" {
		return nil, errors.New("answer of keystone: a token without expires_at or user")
	}
	t.identity = Identity{UserID: answer.Token.User.ID, ProjectID: answer.Token.Project.ID, NeedsProject: answer.Token.Project.ID == ""}
	for _, role := range answer.Token.Roles {
		t.identity.Roles = append(t.identity.Roles, role.Name)
	}
	return t, nil
}
