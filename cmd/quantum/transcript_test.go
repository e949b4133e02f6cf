package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"planck/network"
	"planck/northbound"
)

var update = flag.Bool("update", false, "rewrite the transcripts in testdata")

// TestTranscripts runs the command lines of testdata/*.transcript, those that
// begin with "$ ", in a shell against a real API server, and compares what they
// print with what is below them. Ids, MAC addresses and times are numbered in
// the order of their appearance. -update rewrites the files.
func TestTranscripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.transcript")
	if err != nil || len(files) == 0 {
		t.Fatalf("no transcripts: %v", err)
	}
	bin := t.TempDir()
	if out, err := exec.Command("go", "build", "-o", filepath.Join(bin, "quantum"), ".").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			sh := newShell(t, bin)
			var got strings.Builder
			for line := range strings.Lines(string(want)) {
				if !strings.HasPrefix(line, "$ ") {
					if strings.HasPrefix(line, "#") || strings.TrimSpace(line) == "" && !strings.HasSuffix(got.String(), "\n\n") {
						got.WriteString(line)
					}
					continue
				}
				got.WriteString(line + sh.run(t, strings.TrimSpace(line[2:])) + "\n")
			}
			if *update {
				if err := os.WriteFile(file, []byte(got.String()), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(got.String(), "\n")); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// shell runs command lines, with the quantum of bin in the PATH and a server behind it.
type shell struct {
	env     []string
	replace map[string]string
}

func newShell(t *testing.T, bin string) *shell {
	t.Helper()
	dir := t.TempDir()
	config := network.DefaultConfig()
	config.TunnelRanges = map[string][]network.IDRange{network.TypeGRE: {{First: 1, Last: 1000}}}
	config.VLANRanges = map[string][]network.IDRange{"physnet1": {{First: 100, Last: 199}}}
	config.Log = slog.New(slog.NewTextHandler(io.Discard, nil))
	store, err := network.Open(context.Background(), "sqlite:///"+filepath.Join(dir, "planck.db"), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	handler, err := northbound.New(northbound.Options{Store: store, AuthStrategy: "noauth", Logger: config.Log})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return &shell{
		env:     []string{"PATH=" + bin + ":" + os.Getenv("PATH"), "OS_URL=" + server.URL},
		replace: map[string]string{},
	}
}

// run is what a command line prints, with its exit code when that is not 0.
func (s *shell) run(t *testing.T, line string) string {
	t.Helper()
	cmd := exec.Command("sh", "-c", line)
	cmd.Env = s.env
	out, err := cmd.CombinedOutput()
	text := s.stable(string(out))
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		text += fmt.Sprintf("[exit %d]\n", exit.ExitCode())
	case err != nil:
		t.Fatalf("%s: %v", line, err)
	}
	return text
}

var unstable = regexp.MustCompile(`[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|fa:16:3e(:[0-9a-f]{2}){3}|20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ`)

// stable gives what differs between runs a name of the same length.
func (s *shell) stable(text string) string {
	return unstable.ReplaceAllStringFunc(text, func(found string) string {
		if known, ok := s.replace[found]; ok {
			return known
		}
		n := len(s.replace) + 1
		name := fmt.Sprintf("00000000-0000-0000-0000-%012d", n)
		switch len(found) {
		case 17:
			name = fmt.Sprintf("fa:16:3e:00:%02d:%02d", n/100, n%100)
		case 20:
			return "2013-04-11T00:00:00Z"
		}
		s.replace[found] = name
		return name
	})
}
