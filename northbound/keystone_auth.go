package northbound

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/singleflight"
)

// keystoneAuth believes what Keystone says about the token of a request. What
// it said is believed for a time, also while Keystone can't be asked.
type keystoneAuth struct {
	client        *keystoneClient
	validate      func(ctx context.Context, subject string, allowExpired bool) (*token, error)
	uri           string
	roles         []string
	rolesRequired bool
	log           *slog.Logger
	cache         *tokenCache
	flight        singleflight.Group
	lookups       *prometheus.CounterVec
}

func newKeystoneAuth(o *KeystoneOptions, log *slog.Logger, registry prometheus.Registerer) (*keystoneAuth, error) {
	if o == nil {
		return nil, errors.New("auth_strategy is keystone, and [keystone_authtoken] says nothing")
	}
	client, err := newKeystoneClient(o)
	if err != nil {
		return nil, err
	}
	a := &keystoneAuth{
		client: client, validate: client.validate, uri: cmp.Or(o.WWWAuthenticateURI, client.base),
		roles: o.ServiceTokenRoles, rolesRequired: o.ServiceTokenRolesRequired,
		log: log, cache: newTokenCache(o.CacheTime, cmp.Or(o.CacheSize, defaultCacheSize)),
		lookups: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "planck_token_lookups_total",
			Help: "Tokens of requests: cached, or valid, invalid or unavailable when Keystone was asked.",
		}, []string{"result"}),
	}
	if err := registry.Register(a.lookups); err != nil {
		return nil, fmt.Errorf("metrics of tokens: %w", err)
	}
	return a, nil
}

// Authenticate implements Authenticator.
func (a *keystoneAuth) Authenticate(r *http.Request) (*Identity, error) {
	var serviceRoles []string
	vouched := false
	if service := strings.TrimSpace(r.Header.Get("X-Service-Token")); service != "" {
		t, err := a.lookUp(r.Context(), service, false)
		if err != nil {
			return nil, err
		}
		serviceRoles = t.identity.Roles
		vouched = slices.ContainsFunc(a.roles, t.identity.HasRole)
		if a.rolesRequired && !vouched {
			return nil, a.unauthorized()
		}
	}
	subject := strings.TrimSpace(r.Header.Get("X-Auth-Token"))
	if subject == "" {
		return nil, a.unauthorized()
	}
	t, err := a.lookUp(r.Context(), subject, vouched)
	if err != nil {
		return nil, err
	}
	who := t.identity
	who.ServiceRoles = serviceRoles
	return &who, nil
}

func (a *keystoneAuth) unauthorized() error {
	return &apiError{
		status: http.StatusUnauthorized, typ: "Unauthorized", message: "The request you have made requires authentication.",
		challenge: `Keystone uri="` + a.uri + `"`,
	}
}

// lookUp is what is known about a token, from the cache or from Keystone, which
// is asked once for all requests that wait for the same token.
func (a *keystoneAuth) lookUp(ctx context.Context, subject string, allowExpired bool) (*token, error) {
	key := tokenKey{sha256.Sum256([]byte(subject)), allowExpired}
	if t := a.cache.get(key); t != nil {
		a.lookups.WithLabelValues("cached").Inc()
		return a.current(t, allowExpired)
	}
	answer := a.flight.DoChan(key.String(), func() (any, error) {
		// It goes on for the others when the one who asked first went away.
		t, err := a.validate(context.WithoutCancel(ctx), subject, allowExpired)
		if err == nil {
			a.cache.put(key, t)
		}
		return t, err
	})
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case result := <-answer:
		if result.Err != nil {
			return nil, a.refusal(result.Err)
		}
		a.lookups.WithLabelValues("valid").Inc()
		return a.current(result.Val.(*token), allowExpired)
	}
}

// current refuses a token that has expired since Keystone told of it.
func (a *keystoneAuth) current(t *token, allowExpired bool) (*token, error) {
	if !allowExpired && !time.Now().Before(t.expires) {
		return nil, a.unauthorized()
	}
	return t, nil
}

func (a *keystoneAuth) refusal(err error) error {
	if errors.Is(err, errNoToken) {
		a.lookups.WithLabelValues("invalid").Inc()
		return a.unauthorized()
	}
	a.lookups.WithLabelValues("unavailable").Inc()
	a.log.Error("a token can't be validated", "error", err)
	return keystoneAway()
}

func keystoneAway() error {
	return &apiError{status: http.StatusServiceUnavailable, typ: "ServiceUnavailable",
		message: "The Keystone service is temporarily unavailable."}
}
