package clients

import (
	"bufio"
	_ "embed"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os/exec"
	"strings"
	"testing"
	"time"
)

//go:embed clients.py
var runner string

// python is the one that Debian's clients are for.
const python = "/usr/bin/python3"

// shell runs command lines of the installed clients in one process, which has
// loaded them once: each would need a second or two for that.
type shell struct {
	input  io.Writer
	output *json.Decoder
}

// answer is what a command line did.
type answer struct {
	Code int    `json:"code"`
	Out  string `json:"out"`
	Err  string `json:"err"`
}

func newShell(t *testing.T) *shell {
	t.Helper()
	cmd := exec.Command(python, "-c", runner)
	var complaints strings.Builder
	cmd.Stderr = &complaints
	input, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	output, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatalf("%v; on Debian: apt-get install python3-openstackclient python3-neutronclient", err)
	}
	t.Cleanup(func() {
		input.Close()
		if err := cmd.Wait(); err != nil || complaints.Len() > 0 {
			t.Errorf("the clients' process: %v\n%s", err, complaints.String())
		}
	})
	return &shell{input: input, output: json.NewDecoder(bufio.NewReader(output))}
}

// run runs one command line.
func (s *shell) run(environment map[string]string, line string) (answer, error) {
	request, err := json.Marshal(map[string]any{"environment": environment, "line": line})
	if err != nil {
		return answer{}, err
	}
	if _, err := s.input.Write(append(request, '\n')); err != nil {
		return answer{}, err
	}
	var a answer
	if err := s.output.Decode(&a); err != nil {
		return a, fmt.Errorf("%s: %w", line, err)
	}
	a.Err = strings.Replace(a.Err, deprecation, "", 1)
	return a, nil
}

// deprecation is what the neutron command says each time.
const deprecation = "neutron CLI is deprecated and will be removed in the Z cycle. Use openstack CLI instead.\n"

// environment is what the clients are told of an account: how it logs in, or,
// since Keystone takes its time for that, a token and the API's address.
func (c *cloud) environment(who string, login bool) map[string]string {
	a, shared := c.accounts[who], map[string]string{"HOME": c.bin, "LC_ALL": "C.UTF-8", "PYTHONWARNINGS": "ignore", "OS_IDENTITY_API_VERSION": "3"}
	how := map[string]string{"OS_AUTH_TYPE": "admin_token", "OS_ENDPOINT": c.url, "OS_TOKEN": c.tokens[who]}
	if login {
		how = map[string]string{
			"OS_AUTH_URL": c.ks.URL, "OS_USERNAME": a.User, "OS_PASSWORD": a.Password, "OS_PROJECT_NAME": a.Project,
			"OS_USER_DOMAIN_ID": "default", "OS_PROJECT_DOMAIN_ID": "default", "OS_REGION_NAME": "RegionOne",
		}
	}
	maps.Copy(how, shared)
	return how
}

// settle bounds how long anything may take to come about.
const settle = 2 * time.Minute
