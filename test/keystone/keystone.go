// Package keystone runs a real Keystone for tests, from Debian's packages, with
// a database and keys in a temporary directory. It ends, and its directory goes,
// with the process that started it, however that ends.
package keystone

import (
	"bufio"
	"bytes"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// startTimeout is how long a server may take to answer.
const startTimeout = 5 * time.Minute

//go:embed run.py
var keeper string

// python is the one that Debian's packages are for.
const python = "/usr/bin/python3"

// Names and passwords that every Keystone here has.
const (
	AdminUser     = "admin"
	AdminPassword = "secret of the administrator"
	AdminProject  = "admin"
)

// Server is a Keystone.
type Server struct {
	// URL is where it answers, with the version: http://127.0.0.1:port/v3.
	URL string

	dir     string
	cmd     *exec.Cmd
	input   io.WriteCloser
	replies *bufio.Reader
	next    atomic.Int64

	mu    sync.Mutex
	token string // of the administrator
}

var shared = sync.OnceValues(newServer)

// Start returns the Keystone that all tests of the process share. Tests make
// projects and users of their own in it.
func Start(tb testing.TB) *Server {
	tb.Helper()
	s, err := shared()
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

func newServer() (*Server, error) {
	dir, err := os.MkdirTemp("", "planck-keystone-")
	if err != nil {
		return nil, fmt.Errorf("keystone: %w", err)
	}
	s := &Server{dir: dir, cmd: exec.Command(python, "-c", keeper, dir, AdminPassword)}
	// In a group of its own it outlives a Ctrl-C long enough to clean up.
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := s.launch(); err != nil {
		return nil, errors.Join(err, s.log(), os.RemoveAll(dir))
	}
	return s, nil
}

func (s *Server) launch() error {
	var err error
	if s.input, err = s.cmd.StdinPipe(); err != nil {
		return err
	}
	output, err := s.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	complaints, err := os.Create(filepath.Join(s.dir, "stderr"))
	if err != nil {
		return err
	}
	defer complaints.Close()
	s.cmd.Stderr = complaints
	s.replies = bufio.NewReader(output)
	if err := s.cmd.Start(); err != nil {
		return fmt.Errorf("keystone: %w; on Debian: apt-get install python3-keystone", err)
	}
	line, err := s.replies.ReadString('\n')
	if err != nil {
		return errors.Join(fmt.Errorf("keystone is not set up: %w", err), s.log(), s.close())
	}
	s.URL = strings.TrimSpace(line)
	return s.start()
}

// Kill ends the server at once.
func (s *Server) Kill(tb testing.TB) {
	tb.Helper()
	if err := s.tell("kill"); err != nil {
		tb.Fatal(err)
	}
}

// Restart starts the server after Kill and waits until it answers.
func (s *Server) Restart(tb testing.TB) {
	tb.Helper()
	if err := s.start(); err != nil {
		tb.Fatal(err)
	}
}

func (s *Server) start() error {
	if err := s.tell("start"); err != nil {
		return err
	}
	deadline := time.Now().Add(startTimeout)
	for {
		res, err := http.Get(s.URL)
		if err == nil {
			res.Body.Close()
			if res.StatusCode == http.StatusOK {
				return nil
			}
			err = errors.New(res.Status)
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("keystone does not answer: %w", errors.Join(err, s.log()))
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func (s *Server) tell(command string) error {
	if _, err := io.WriteString(s.input, command+"\n"); err != nil {
		return fmt.Errorf("keystone: %w", err)
	}
	if line, err := s.replies.ReadString('\n'); line != command+"\n" {
		return fmt.Errorf("keystone: %s failed: %w", command, errors.Join(err, s.log()))
	}
	return nil
}

func (s *Server) close() error {
	if err := s.input.Close(); err != nil {
		return err
	}
	if err := s.cmd.Wait(); err != nil {
		return fmt.Errorf("keystone: %w", err)
	}
	return nil
}

// log is what the server said, as an error.
func (s *Server) log() error {
	var text []byte
	for _, name := range []string{"stderr", "log"} {
		part, err := os.ReadFile(filepath.Join(s.dir, name))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		text = append(text, part...)
	}
	return errors.New(string(text))
}

// Account is a user with a role in a project.
type Account struct {
	User, UserID, Password string
	Project, ProjectID     string
}

// Project makes a project and returns its id.
func (s *Server) Project(tb testing.TB, name string) string {
	tb.Helper()
	project := map[string]any{"name": s.unique(name), "domain_id": "default"}
	return s.create(tb, "projects", "project", project)
}

func (s *Server) unique(name string) string { return fmt.Sprintf("%s-%d", name, s.next.Add(1)) }

// Account makes a user with roles in a project of its own. The name of both has
// a number behind it, since tests share the server.
func (s *Server) Account(tb testing.TB, name string, roles ...string) Account {
	tb.Helper()
	name = s.unique(name)
	a := Account{User: name, Password: "secret of " + name, Project: name}
	a.ProjectID = s.create(tb, "projects", "project", map[string]any{"name": name, "domain_id": "default"})
	a.UserID = s.create(tb, "users", "user", map[string]any{"name": name, "password": a.Password, "domain_id": "default"})
	for _, role := range roles {
		s.Grant(tb, a.UserID, a.ProjectID, role)
	}
	return a
}

// Grant gives a user a role in a project. The role is made if it is not there.
func (s *Server) Grant(tb testing.TB, userID, projectID, role string) {
	tb.Helper()
	path := "/projects/" + projectID + "/users/" + userID + "/roles/" + s.role(tb, role)
	s.Call(tb, http.MethodPut, path, nil, http.StatusNoContent)
}

func (s *Server) role(tb testing.TB, name string) string {
	tb.Helper()
	found, _ := s.Call(tb, http.MethodGet, "/roles?name="+name, nil, http.StatusOK)["roles"].([]any)
	if len(found) > 0 {
		return found[0].(map[string]any)["id"].(string)
	}
	return s.create(tb, "roles", "role", map[string]any{"name": name})
}

// Network tells the catalog of a networking service at a URL.
func (s *Server) Network(tb testing.TB, url string) {
	tb.Helper()
	s.Service(tb, "network", url)
}

// Service tells the catalog of a service of a type at a URL.
func (s *Server) Service(tb testing.TB, kind, url string) {
	tb.Helper()
	id := s.create(tb, "services", "service", map[string]any{"type": kind, "name": s.unique(kind)})
	tb.Cleanup(func() { s.Call(tb, http.MethodDelete, "/services/"+id, nil, http.StatusNoContent) })
	for _, access := range []string{"public", "internal", "admin"} {
		s.create(tb, "endpoints", "endpoint",
			map[string]any{"service_id": id, "interface": access, "url": url, "region_id": "RegionOne"})
	}
}

func (s *Server) create(tb testing.TB, collection, name string, attributes map[string]any) string {
	tb.Helper()
	reply := s.Call(tb, http.MethodPost, "/"+collection, map[string]any{name: attributes}, http.StatusCreated)
	return reply[name].(map[string]any)["id"].(string)
}

// Call makes a request as the administrator, with the path below /v3.
func (s *Server) Call(tb testing.TB, method, path string, body any, status int) map[string]any {
	tb.Helper()
	header := http.Header{"X-Auth-Token": {s.adminToken(tb)}}
	_, reply := s.send(tb, method, path, header, body, status)
	return reply
}

func (s *Server) adminToken(tb testing.TB) string {
	tb.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.token == "" {
		s.token = s.Token(tb, Account{User: AdminUser, Password: AdminPassword, Project: AdminProject})
	}
	return s.token
}

// Token logs in, to the account's project; without a project to none.
func (s *Server) Token(tb testing.TB, a Account) string {
	tb.Helper()
	domain := map[string]any{"id": "default"}
	auth := map[string]any{"identity": map[string]any{"methods": []string{"password"}, "password": map[string]any{
		"user": map[string]any{"name": a.User, "password": a.Password, "domain": domain},
	}}}
	if a.Project != "" {
		auth["scope"] = map[string]any{"project": map[string]any{"name": a.Project, "domain": domain}}
	}
	header, _ := s.send(tb, http.MethodPost, "/auth/tokens", nil, map[string]any{"auth": auth}, http.StatusCreated)
	return header.Get("X-Subject-Token")
}

// Revoke makes a token invalid.
func (s *Server) Revoke(tb testing.TB, token string) {
	tb.Helper()
	header := http.Header{"X-Auth-Token": {s.adminToken(tb)}, "X-Subject-Token": {token}}
	s.send(tb, http.MethodDelete, "/auth/tokens", header, nil, http.StatusNoContent)
}

func (s *Server) send(tb testing.TB, method, path string, header http.Header, body any, status int) (http.Header, map[string]any) {
	tb.Helper()
	data, err := json.Marshal(body)
	if err != nil {
		tb.Fatal(err)
	}
	if body == nil {
		data = nil
	}
	req, err := http.NewRequest(method, s.URL+path, bytes.NewReader(data))
	if err != nil {
		tb.Fatal(err)
	}
	if header != nil {
		req.Header = header
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		tb.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		tb.Fatal(err)
	}
	if res.StatusCode != status {
		tb.Fatalf("keystone: %s %s: %s, not %d: %s\n%v", method, path, res.Status, status, text, s.log())
	}
	var reply map[string]any
	if len(text) > 0 {
		if err := json.Unmarshal(text, &reply); err != nil {
			tb.Fatalf("keystone: %s %s: %v: %s", method, path, err, text)
		}
	}
	return res.Header, reply
}
