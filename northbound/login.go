package northbound

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"mime"
	"net/http"
	"time"

	"planck/northbound/console"
)

// loginPath is where the console, which may ask nobody but us, sends what its
// user typed.
const loginPath = console.Path + "login"

// loginForm is what the console's user typed.
type loginForm struct {
	Username string `json:"username"`
	Password string `json:"password"`
	Project  string `json:"project"`
	Domain   string `json:"domain"` // of both, by name; "" for the one with the id "default"
}

// login passes the console's log-ins on to Keystone.
func (s *server) login(k *keystoneClient) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		t := w.(*tracked)
		t.resource = "console_login"
		w.Header().Set("Cache-Control", "no-store")
		c := &call{server: s, request: r, track: t}
		body, err := c.login(k)
		if err != nil {
			s.logFailure(c, err)
			WriteError(w, err)
			return
		}
		writeJSON(w, http.StatusOK, body)
	})
}

func (c *call) login(k *keystoneClient) ([]byte, error) {
	if c.request.Method != http.MethodPost {
		return nil, methodNotAllowed([]string{http.MethodPost})
	}
	// No form of another site can send this type without asking first.
	if kind, _, err := mime.ParseMediaType(c.request.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		return nil, badRequest("The content type of a login is application/json")
	}
	data, err := c.readBody()
	if err != nil {
		return nil, err
	}
	var form loginForm
	if err := json.Unmarshal(data, &form); err != nil {
		return nil, badRequest("Body contains invalid data")
	}
	if form.Username == "" || form.Password == "" || form.Project == "" {
		return nil, badRequest("A login needs username, password and project")
	}
	secret, granted, err := k.login(c.request.Context(), form)
	if err != nil {
		return nil, c.loginFailed(form.Username, err)
	}
	c.who, c.track.who = &granted.identity, &granted.identity
	return json.Marshal(map[string]any{
		"token": secret, "expires_at": granted.expires.UTC().Format(time.RFC3339), "roles": granted.identity.Roles,
		"user_id": granted.identity.UserID, "project_id": granted.identity.ProjectID,
	})
}

// loginFailed is what the client is told: the log has who was refused, and from
// where, since Keystone sees only this server, and the words of a Keystone that
// is away or broken.
func (c *call) loginFailed(user string, err error) error {
	if e := asAPIError(err); e.status < http.StatusInternalServerError {
		c.server.log.Warn("a log-in was refused", "user", user, "remote", c.request.RemoteAddr, "error", err)
		return err
	}
	c.server.log.Error("a log-in can't be passed on", "error", err)
	return keystoneAway()
}

// login gets a token by a user's name and password.
func (k *keystoneClient) login(ctx context.Context, form loginForm) (secret string, t *token, err error) {
	o := KeystoneOptions{
		Username: form.Username, Password: form.Password, UserDomainName: form.Domain,
		ProjectName: form.Project, ProjectDomainName: form.Domain,
	}
	body, err := o.login()
	if err != nil {
		return "", nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, k.timeout)
	defer cancel()
	status, secret, answer, err := k.issue(ctx, body)
	switch {
	case err != nil:
		return "", nil, fmt.Errorf("log in: %w", err)
	case status == http.StatusUnauthorized || status == http.StatusForbidden:
		return "", nil, &apiError{status: http.StatusUnauthorized, typ: "Unauthorized",
			message: "Keystone refuses: the user name, the password, the project or the domain is wrong, or the user has no role in the project."}
	case status == http.StatusBadRequest:
		return "", nil, badRequest("Keystone does not take such a user name, password, project or domain")
	case status != http.StatusCreated:
		return "", nil, fmt.Errorf("log in: keystone: status %d: %.200s", status, answer)
	}
	t, err = parseToken(answer)
	return secret, t, err
}

// issue asks Keystone for a token.
func (k *keystoneClient) issue(ctx context.Context, login []byte) (status int, secret string, answer []byte, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, k.base+"/v3/auth/tokens?nocatalog", bytes.NewReader(login))
	if err != nil {
		return 0, "", nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	status, header, answer, err := k.do(req)
	if err != nil {
		return 0, "", nil, err
	}
	return status, header.Get("X-Subject-Token"), answer, nil
}
