package northbound

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// eventually waits until something holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !holds(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// stubAuth is a keystoneAuth that asks a function in place of Keystone.
func stubAuth(t *testing.T, cache time.Duration, size int, validate func(subject string, allowExpired bool) (*token, error)) *keystoneAuth {
	t.Helper()
	a, err := newKeystoneAuth(&KeystoneOptions{
		AuthURL: "http://127.0.0.1:1", Username: "u", ProjectName: "p", CacheTime: cache, CacheSize: size, ServiceTokenRoles: []string{"service"},
	}, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	a.validate = func(_ context.Context, subject string, allowExpired bool) (*token, error) {
		return validate(subject, allowExpired)
	}
	return a
}

func requestWith(t *testing.T, user, service string) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("X-Auth-Token", user)
	r.Header.Set("X-Service-Token", service)
	return r
}

func TestServiceVouchesForAnExpiredToken(t *testing.T) {
	a := stubAuth(t, time.Hour, 0, func(subject string, allowExpired bool) (*token, error) {
		switch {
		case subject == "service":
			return &token{Identity{UserID: "nova", Roles: []string{"service"}}, time.Now().Add(time.Hour)}, nil
		case subject == "member":
			return &token{Identity{UserID: "m", Roles: []string{"member"}}, time.Now().Add(time.Hour)}, nil
		case allowExpired:
			return &token{Identity{UserID: "u", ProjectID: "p"}, time.Now().Add(-time.Hour)}, nil
		}
		return nil, errNoToken
	})
	for range 2 { // the second time from the cache
		who, err := a.Authenticate(requestWith(t, "expired", "service"))
		if err != nil || who.ProjectID != "p" || len(who.ServiceRoles) != 1 {
			t.Errorf("with the token of a service: %+v, %v", who, err)
		}
		for _, service := range []string{"", "member"} {
			if who, err := a.Authenticate(requestWith(t, "expired", service)); err == nil {
				t.Errorf("with the service token %q: %+v", service, who)
			}
		}
	}
	a.rolesRequired = true
	if _, err := a.Authenticate(requestWith(t, "member", "member")); err == nil {
		t.Error("a service token without the role is taken, though the role is required")
	}
}

func TestCachedTokenEndsWhenItExpires(t *testing.T) {
	a := stubAuth(t, time.Hour, 0, func(string, bool) (*token, error) {
		return &token{Identity{UserID: "u"}, time.Now().Add(100 * time.Millisecond)}, nil
	})
	eventually(t, "the token to expire", func() bool {
		_, err := a.Authenticate(requestWith(t, "t", ""))
		return err != nil
	})
}

func TestTokenIsAskedForOnceByManyRequests(t *testing.T) {
	var asked atomic.Int64
	release := make(chan struct{})
	a := stubAuth(t, time.Hour, 0, func(string, bool) (*token, error) {
		asked.Add(1)
		<-release
		return &token{Identity{UserID: "u"}, time.Now().Add(time.Hour)}, nil
	})
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			if _, err := a.Authenticate(requestWith(t, "t", "")); err != nil {
				t.Error(err)
			}
		})
	}
	eventually(t, "Keystone to be asked", func() bool { return asked.Load() > 0 })
	close(release)
	wg.Wait()
	if n := asked.Load(); n != 1 {
		t.Errorf("Keystone was asked %d times", n)
	}
}

func TestRefusalsAreNotCached(t *testing.T) {
	answer := errors.New("keystone is away")
	a := stubAuth(t, time.Hour, 0, func(string, bool) (*token, error) {
		return &token{Identity{UserID: "u"}, time.Now().Add(time.Hour)}, answer
	})
	if _, err := a.Authenticate(requestWith(t, "t", "")); asAPIError(err).status != 503 {
		t.Errorf("got %v", err)
	}
	answer = nil
	if _, err := a.Authenticate(requestWith(t, "t", "")); err != nil {
		t.Errorf("got %v", err)
	}
}

func TestTokenCacheIsBounded(t *testing.T) {
	c := newTokenCache(time.Hour, 3)
	key := func(i int) tokenKey { return tokenKey{hash: sha256.Sum256([]byte(fmt.Sprint(i)))} }
	for i := range 10 {
		c.put(key(i), &token{})
		c.put(key(i), &token{})
	}
	if len(c.items) != 3 || c.order.Len() != 3 || c.get(key(6)) != nil || c.get(key(7)) == nil || c.get(key(9)) == nil {
		t.Errorf("%d tokens, %d in order", len(c.items), c.order.Len())
	}
	brief := newTokenCache(time.Nanosecond, 3)
	brief.put(key(1), &token{})
	time.Sleep(time.Microsecond)
	if brief.get(key(1)) != nil || len(brief.items) != 0 {
		t.Error("a token stays beyond its time")
	}
}

func TestBadKeystoneOptionsAreRefused(t *testing.T) {
	good := KeystoneOptions{AuthURL: "http://k:5000/v3", Username: "u", ProjectName: "p"}
	for name, spoil := range map[string]func(o *KeystoneOptions){
		"auth_url":     func(o *KeystoneOptions) { o.AuthURL = "k:5000" },
		"username":     func(o *KeystoneOptions) { o.Username = "" },
		"project_name": func(o *KeystoneOptions) { o.ProjectName = "" },
		"cafile":       func(o *KeystoneOptions) { o.CAFile = "/nonexistent" },
	} {
		o := good
		if _, err := newKeystoneClient(&o); err != nil {
			t.Fatal(err)
		}
		spoil(&o)
		if _, err := newKeystoneClient(&o); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// answering is a Keystone that answers each request for our own token by the
// first answer, and each question about another one by the second.
type answering [2]struct {
	status int
	body   string
}

// RoundTrip implements http.RoundTripper.
func (k *answering) RoundTrip(r *http.Request) (*http.Response, error) {
	a := k[0]
	if r.Method == http.MethodGet {
		a = k[1]
	}
	return &http.Response{StatusCode: a.status, Header: http.Header{"X-Subject-Token": {"ours"}}, Body: io.NopCloser(strings.NewReader(a.body)), Request: r}, nil
}

// FuzzKeystoneAnswer answers as no Keystone does. Nobody is let in but by a token
// that is said to be valid, of a user, and not over.
func FuzzKeystoneAnswer(f *testing.F) {
	const ours = `{"token": {"expires_at": "2999-01-01T00:00:00.000000Z", "user": {"id": "planck"}}}`
	const theirs = `{"token": {"expires_at": "2999-01-01T00:00:00.000000Z", "user": {"id": "u", "domain": {"id": "default"}}, "project": {"id": "p"}, "roles": [{"id": "1", "name": "member"}], "issued_at": "2026-01-01T00:00:00Z"}}`
	f.Add(201, ours, 200, theirs)
	f.Add(201, ours, 404, `{"error": {"code": 404}}`)
	f.Add(201, ours, 401, "")
	f.Add(401, `{"error": {"message": "no"}}`, 200, theirs)
	f.Add(201, ours, 200, `{"token": {"expires_at": "2001-01-01T00:00:00.000000Z", "user": {"id": "u"}, "roles": null}}`)
	f.Add(201, `{"token": {"expires_at": ""}}`, 200, `{"token": []}`)
	f.Add(201, ours, 200, `{"token": {"expires_at": "2999-01-01T00:00:00Z", "user": {}}}`)
	f.Add(300, "[", 204, "null")
	f.Fuzz(func(t *testing.T, ownStatus int, own string, status int, body string) {
		o := &KeystoneOptions{AuthURL: "http://keystone:5000/v3", Username: "u", Password: "p", ProjectName: "service"}
		a, err := newKeystoneAuth(o, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
		if err != nil {
			t.Fatal(err)
		}
		client, err := newKeystoneClient(o)
		if err != nil {
			t.Fatal(err)
		}
		client.http = &http.Client{Transport: &answering{{ownStatus, own}, {status, body}}}
		a.validate = client.validate
		who, err := a.Authenticate(requestWith(t, "theirs", ""))
		var refusal *apiError
		switch {
		case err == nil && (ownStatus != http.StatusCreated || status != http.StatusOK || who.UserID == ""):
			t.Errorf("let in as %+v by %d %s, %d %s", who, ownStatus, own, status, body)
		case err != nil && (!errors.As(err, &refusal) || refusal.status != http.StatusUnauthorized && refusal.status != http.StatusServiceUnavailable):
			t.Errorf("%d %s, %d %s: %v", ownStatus, own, status, body, err)
		}
	})
}
