package keystone

import (
	"net/http"
	"testing"
)

func TestAccountsLogIn(t *testing.T) {
	s := Start(t)
	a := s.Account(t, "blue", "member")
	token := s.Token(t, a)
	if s.Token(t, Account{User: a.User, Password: a.Password}) == "" {
		t.Error("no token without a project")
	}
	s.Revoke(t, token)
	s.send(t, http.MethodGet, "/auth/tokens", http.Header{"X-Auth-Token": {token}, "X-Subject-Token": {token}}, nil, http.StatusUnauthorized)
}

func TestKilledServerComesBack(t *testing.T) {
	s := Start(t)
	token := s.Token(t, Account{User: AdminUser, Password: AdminPassword, Project: AdminProject})
	s.Kill(t)
	if _, err := http.Get(s.URL); err == nil {
		t.Fatal("a killed server answers")
	}
	s.Restart(t)
	s.send(t, http.MethodGet, "/auth/tokens", http.Header{"X-Auth-Token": {token}, "X-Subject-Token": {token}}, nil, http.StatusOK)
}
