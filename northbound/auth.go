package northbound

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// Identity is who makes a request.
type Identity struct {
	UserID    string
	ProjectID string // "" for the administrator without a project
	Roles     []string
	// ServiceRoles are those of the service that passes on the request.
	ServiceRoles []string
	// NeedsProject says that the token is of no project, so that the caller
	// has to name the owner of what is created.
	NeedsProject bool
}

// HasRole reports whether the caller has a role; case does not matter.
func (id *Identity) HasRole(role string) bool {
	return slices.ContainsFunc(id.Roles, func(r string) bool { return strings.EqualFold(r, role) })
}

// check refuses a caller whose ids no database keeps as they are: what is owned
// by one would belong to another after a restart.
func (id *Identity) check() error {
	for _, s := range []string{id.UserID, id.ProjectID} {
		if _, err := parseText(s, projectSize); err != nil {
			return badRequest("The id of the caller's user or project is not a text of at most %d characters", projectSize)
		}
	}
	return nil
}

// Authenticator finds out who makes a request.
type Authenticator interface {
	// Authenticate returns the caller, or the error that the client gets.
	Authenticate(r *http.Request) (*Identity, error)
}

// newAuthenticator makes the Authenticator of an auth_strategy.
func newAuthenticator(o Options) (Authenticator, error) {
	switch o.AuthStrategy {
	case "noauth":
		return noAuth{}, nil
	case "keystone":
		return newKeystoneAuth(o.Keystone, o.Logger, o.Registry)
	}
	return nil, fmt.Errorf("auth_strategy %q is not known: it must be keystone or noauth", o.AuthStrategy)
}

// noAuth believes the headers of a request: none is the administrator, a
// project alone is a member of it, X-Roles says more.
type noAuth struct{}

// Authenticate implements Authenticator.
func (noAuth) Authenticate(r *http.Request) (*Identity, error) {
	id := &Identity{UserID: r.Header.Get("X-User-Id"), ProjectID: r.Header.Get("X-Project-Id")}
	if id.ProjectID == "" {
		id.ProjectID = r.Header.Get("X-Tenant-Id")
	}
	for role := range strings.SplitSeq(strings.Join(r.Header.Values("X-Roles"), ","), ",") {
		if role = strings.TrimSpace(role); role != "" {
			id.Roles = append(id.Roles, role)
		}
	}
	switch {
	case len(id.Roles) > 0:
	case id.ProjectID == "":
		id.Roles = []string{"admin"}
	default:
		id.Roles = []string{"member"}
	}
	id.implyRoles()
	return id, nil
}

// implyRoles adds the roles that are part of others, as Keystone does.
func (id *Identity) implyRoles() {
	for _, implied := range [][2]string{{"admin", "manager"}, {"manager", "member"}, {"member", "reader"}} {
		if id.HasRole(implied[0]) && !id.HasRole(implied[1]) {
			id.Roles = append(id.Roles, implied[1])
		}
	}
}
