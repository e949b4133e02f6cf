package northbound

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.yaml.in/yaml/v3"
)

// policySource is the policy in force: the built-in one, with the rules of a
// file in place of those that have the same name. A file that changes is read
// again; while it is broken or gone the rules before it stay.
type policySource struct {
	file string // "" for none
	log  *slog.Logger

	current atomic.Pointer[policy]
	started time.Time
	checked atomic.Int64 // when the file was last looked at, as time.Duration since started

	mu   sync.Mutex // held while the file is read
	seen fileState
}

// fileState tells one version of a file from the next.
type fileState struct {
	size     int64
	modified time.Time
	missing  bool
}

const (
	// policyInterval is how often the file is looked at, while there are requests.
	policyInterval = 100 * time.Millisecond
	// maxPolicyFile bounds a policy file, in bytes.
	maxPolicyFile = 4 << 20
)

func newPolicySource(file string, log *slog.Logger) (*policySource, error) {
	s := &policySource{file: file, log: log, started: time.Now()}
	s.seen = s.state()
	p, err := s.load()
	if err != nil {
		return nil, err
	}
	s.current.Store(p)
	return s, nil
}

// rules is the policy in force now.
func (s *policySource) rules() *policy {
	if s.file == "" {
		return s.current.Load()
	}
	now, last := int64(time.Since(s.started)), s.checked.Load()
	if now-last >= int64(policyInterval) && s.checked.CompareAndSwap(last, now) {
		s.refresh(false)
	}
	return s.current.Load()
}

// refresh reads the file if it changed, or anyway.
func (s *policySource) refresh(anyway bool) {
	if s.file == "" {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	state := s.state()
	if state == s.seen && !anyway {
		return
	}
	s.seen = state
	p, err := s.load()
	if err != nil {
		s.log.Error("the policy file is broken; the rules from before stay in force", "error", err)
		return
	}
	s.current.Store(p)
	s.log.Info("policy read again", "file", s.file, "rules", len(p.rules))
}

func (s *policySource) state() fileState {
	info, err := os.Stat(s.file)
	if err != nil {
		return fileState{missing: true}
	}
	return fileState{size: info.Size(), modified: info.ModTime()}
}

func (s *policySource) load() (*policy, error) {
	rules := maps.Clone(defaultPolicy)
	if s.file == "" {
		return newPolicy(rules)
	}
	data, err := os.ReadFile(s.file)
	if err != nil {
		return nil, fmt.Errorf("policy file: %w", err)
	}
	given, err := parsePolicyFile(data)
	if err != nil {
		return nil, fmt.Errorf("policy file %s: %w", s.file, err)
	}
	if _, has := given.rules["default"]; has && given.ofLists {
		leaveToDefault(rules)
	}
	maps.Copy(rules, given.rules)
	p, err := newPolicy(rules)
	if err != nil {
		return nil, fmt.Errorf("policy file %s: %w", s.file, err)
	}
	return p, nil
}

// leaveToDefault makes what owners may do with their resources a matter of the
// rule "default". Policies of lists are of the time when none was built in: what
// they do not name is as their default says, whatever roles there were then.
func leaveToDefault(rules map[string]string) {
	for name, rule := range rules {
		if action := !strings.Contains(name, ":"); action && ownersRule.MatchString(rule) {
			rules[name] = "rule:default"
		}
	}
}

// ownersRule finds in a built-in rule that it is about who owns something.
var ownersRule = regexp.MustCompile(`rule:(project|network)_(member|reader)\b`)

// policyRules is what a policy file says.
type policyRules struct {
	rules   map[string]string
	ofLists bool // some of them are lists of lists
}

// parsePolicyFile reads the rules of a policy.json or policy.yaml. A rule is a
// string, or a list of lists as the first versions wrote it.
func parsePolicyFile(data []byte) (policyRules, error) {
	if len(data) > maxPolicyFile {
		return policyRules{}, fmt.Errorf("it is larger than %d bytes", maxPolicyFile)
	}
	raw, err := decodePolicy(data)
	if err != nil {
		return policyRules{}, err
	}
	f := policyRules{rules: make(map[string]string, len(raw))}
	for _, name := range sortedKeys(raw) {
		if f.rules[name], err = ruleText(raw[name]); err != nil {
			return policyRules{}, fmt.Errorf("policy %q: %w", name, err)
		}
		if _, list := raw[name].([]any); list {
			f.ofLists = true
		}
	}
	return f, nil
}

func decodePolicy(data []byte) (map[string]any, error) {
	raw := map[string]any{}
	if bytes.HasPrefix(bytes.TrimSpace(data), []byte("{")) {
		err := json.Unmarshal(data, &raw)
		if at, ok := errors.AsType[*json.SyntaxError](err); ok {
			return nil, fmt.Errorf("line %d: %w", 1+bytes.Count(data[:at.Offset], []byte("\n")), err)
		}
		return raw, err
	}
	return raw, yaml.Unmarshal(data, &raw)
}

// ruleText is a rule as one string: of a list, one of its items must hold, and
// of such an item all checks.
func ruleText(v any) (string, error) {
	switch v := v.(type) {
	case nil:
		return "", nil
	case string:
		return v, nil
	case []any:
		return anyOfLists(v)
	}
	return "", fmt.Errorf("%s is neither a string nor a list", repr(v))
}

func anyOfLists(list []any) (string, error) {
	var parts []string
	for _, item := range list {
		checks, ok := item.([]any)
		if !ok {
			checks = []any{item}
		}
		var words []string
		for _, c := range checks {
			word, ok := c.(string)
			if !ok || strings.TrimSpace(word) == "" {
				return "", fmt.Errorf("%s is not a check", repr(c))
			}
			if _, err := parseRule(word); err != nil {
				return "", err
			}
			words = append(words, "("+word+")")
		}
		if len(words) > 0 {
			parts = append(parts, "("+strings.Join(words, " and ")+")")
		}
	}
	if len(list) > 0 && len(parts) == 0 {
		return "!", nil // only empty items: nobody, as oslo.policy has it
	}
	return strings.Join(parts, " or "), nil
}

// rules is the policy for this call: the same for all of it.
func (c *call) rules() *policy {
	if c.policy == nil {
		c.policy = c.server.policy.rules()
	}
	return c.policy
}
