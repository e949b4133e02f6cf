package clients

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var rewrite = flag.Bool("update", false, "rewrite the transcripts in testdata")

// A transcript is a text of comments, command lines and what they print:
//
//	# a comment
//	blue$ openstack network create web -f value -c status
//	ACTIVE
//	blue$ id=openstack network show web -f value -c id
//	blue$ neutron net-delete $id
//	Deleted network(s): <uuid 1>
//
// After "blue until TEXT" the command is repeated until it prints that.
// After "blue login" the client logs in with user and password. With name= what a command prints is kept for the lines that follow, and not
// shown. Ids and times, which are others each time, are numbered or left out.
type transcript struct {
	*cloud
	kept  map[string]string
	uuids map[string]string
}

var (
	prompt = regexp.MustCompile(`^(\w+)( login| until \S+)?\$ (?:([a-z]\w*)=)?(\w.* .*)$`)
	ofName = regexp.MustCompile(`\$[a-z][a-z0-9]*`)
	blanks = regexp.MustCompile(`(?m)^\s*\n`)
	ofUUID = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`)
	ofTime = regexp.MustCompile(`\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(Z|\.\d+)?`)
	ofMAC  = regexp.MustCompile(`fa:16:3e(:[0-9a-f]{2}){3}`)
)

// play runs the commands of a transcript and returns it with what they print now.
func (p *transcript) play(text string) string {
	p.Helper()
	var told strings.Builder
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		m := prompt.FindStringSubmatch(line)
		if m == nil {
			if line == "" || strings.HasPrefix(line, "#") {
				fmt.Fprintln(&told, line)
			}
			continue
		}
		fmt.Fprintln(&told, line)
		if text, ok := strings.CutPrefix(m[2], " until "); ok {
			told.WriteString(p.until(text, m[1], m[4]))
			continue
		}
		told.WriteString(p.command(m[1], m[2] != "", m[3], m[4]))
	}
	return told.String()
}

// until repeats a command until it prints a text.
func (p *transcript) until(text, who, line string) (said string) {
	p.Helper()
	p.eventually(line+" prints "+text, func() error {
		if said = p.command(who, false, "", line); !strings.Contains(said, text) {
			return fmt.Errorf("%s", said)
		}
		return nil
	})
	return said
}

func (p *transcript) command(who string, login bool, keep, line string) string {
	p.Helper()
	if p.tokens[who] == "" {
		p.Fatalf("nobody is called %s", who)
	}
	said := p.run(p.environment(who, login), p.expand(line))
	if keep == "" || said.Code != 0 {
		return p.shown(said)
	}
	p.kept[keep] = strings.TrimSpace(said.Out)
	return ""
}

// expand puts what was kept in place of $names. Those in capitals are the environment's.
func (p *transcript) expand(line string) string {
	return ofName.ReplaceAllStringFunc(line, func(name string) string { return p.value(name[1:]) })
}

// value is what stands behind a $name: what was kept, or the id of a project.
func (p *transcript) value(name string) string {
	if a, ok := p.accounts[name]; ok {
		return a.ProjectID
	}
	v, ok := p.kept[name]
	if !ok {
		p.Fatalf("$%s is not known", name)
	}
	return v
}

// run runs quantum by itself, and the clients in Python in their process.
func (p *transcript) run(environment map[string]string, line string) answer {
	p.Helper()
	if !strings.Contains(line, "quantum ") {
		a, err := p.shell.run(environment, line)
		if err != nil {
			p.Fatal(err)
		}
		return a
	}
	cmd := exec.Command("/bin/sh", "-c", line)
	cmd.Env = []string{"PATH=" + p.bin + ":/usr/bin:/bin"}
	for name, v := range environment {
		cmd.Env = append(cmd.Env, name+"="+v)
	}
	var out, complaints strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &complaints
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		p.Fatalf("%s: %v", line, err)
	}
	return answer{cmd.ProcessState.ExitCode(), out.String(), complaints.String()}
}

// shown is what a command did, without what is other each time.
func (p *transcript) shown(said answer) string {
	text := said.Out + said.Err
	if text != "" && !strings.HasSuffix(text, "\n") {
		text += "\n"
	}
	if said.Code != 0 {
		text += fmt.Sprintf("(exit %d)\n", said.Code)
	}
	text = strings.ReplaceAll(blanks.ReplaceAllString(text, ""), p.url, "http://network")
	for who, a := range p.accounts {
		if who == "reader" {
			continue // is in blue's project
		}
		text = strings.ReplaceAll(strings.ReplaceAll(text, a.ProjectID, "<"+who+">"), a.Project, who)
	}
	text = ofUUID.ReplaceAllStringFunc(text, func(id string) string {
		if p.uuids[id] == "" {
			p.uuids[id] = fmt.Sprintf("<uuid %d>", len(p.uuids)+1)
		}
		return p.uuids[id]
	})
	return ofMAC.ReplaceAllString(ofTime.ReplaceAllString(text, "<time>"), "<mac>")
}

// TestClients plays all transcripts, one after another in one cloud; each one
// leaves nothing behind.
func TestClients(t *testing.T) {
	c := newCloud(t)
	files, err := filepath.Glob("testdata/*.transcript")
	if err != nil || len(files) == 0 {
		t.Fatalf("no transcripts: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".transcript"), func(t *testing.T) {
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			p := &transcript{cloud: c.in(t), kept: map[string]string{}, uuids: map[string]string{}}
			got := p.play(string(want))
			if *rewrite {
				if err := os.WriteFile(file, []byte(got), 0o600); err != nil {
					t.Fatal(err)
				}
				return
			}
			if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(got, "\n")); diff != "" {
				t.Errorf("%s (-want +got):\n%s", file, diff)
			}
		})
	}
	t.Run("gophercloud", func(t *testing.T) { gophercloudStory(t, c.in(t)) })
}
