package northbound

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// target is the object that a rule is asked about. Attribute names are those of
// the API; "network:project_id" is the owner of the network that it is on.
type target interface {
	attribute(name string) (value string, ok bool)
}

// noTarget is the target of rules that are about the caller alone.
type noTarget struct{}

func (noTarget) attribute(string) (string, bool) { return "", false }

// policy answers whether somebody may do something. Rules are written in the
// language of oslo.policy; each action of the API ("create_network"), and each
// attribute that is protected ("create_network:shared"), is a rule.
type policy struct {
	rules map[string]check
}

// check is a compiled rule.
type check interface {
	allows(p *policy, who *Identity, on target) bool
	// aboutTarget reports whether the answer depends on the object.
	aboutTarget(p *policy) bool
}

// newPolicy compiles rules.
func newPolicy(rules map[string]string) (*policy, error) {
	p := &policy{rules: make(map[string]check, len(rules))}
	for _, name := range sortedKeys(rules) {
		c, err := parseRule(rules[name])
		if err != nil {
			return nil, fmt.Errorf("policy %q: %w", name, err)
		}
		p.rules[name] = c
	}
	if err := p.findLoops(rules); err != nil {
		return nil, err
	}
	return p, nil
}

// findLoops refuses rules that refer to themselves, also by a rule that does not
// exist: that is the rule "default".
func (p *policy) findLoops(rules map[string]string) error {
	const underWay, done = 1, 2
	state := make(map[string]int, len(p.rules))
	var visit func(name string) bool
	visit = func(name string) bool {
		if state[name] != 0 {
			return state[name] == done
		}
		state[name] = underWay
		for _, next := range references(p.rules[name]) {
			if !p.has(next) {
				next = "default"
			}
			if p.has(next) && !visit(next) {
				return false
			}
		}
		state[name] = done
		return true
	}
	for _, name := range sortedKeys(rules) {
		if !visit(name) {
			return fmt.Errorf("policy %q refers to itself", name)
		}
	}
	return nil
}

func references(c check) []string {
	switch c := c.(type) {
	case ruleCheck:
		return []string{string(c)}
	case notCheck:
		return references(c.check)
	case allCheck:
		return referencesOf(c)
	case anyCheck:
		return referencesOf(c)
	}
	return nil
}

func referencesOf(list []check) []string {
	var names []string
	for _, c := range list {
		names = append(names, references(c)...)
	}
	return names
}

// has reports whether a rule of that name exists.
func (p *policy) has(rule string) bool {
	_, ok := p.rules[rule]
	return ok
}

// allows reports whether a rule lets the caller do it. A rule that does not
// exist is the rule "default"; without that one the answer is no.
func (p *policy) allows(rule string, who *Identity, on target) bool {
	c, ok := p.rules[rule]
	if !ok {
		c, ok = p.rules["default"]
	}
	return ok && c.allows(p, who, on)
}

// aboutTarget reports whether the answer of a rule depends on the object.
func (p *policy) aboutTarget(rule string) bool {
	c, ok := p.rules[rule]
	return ok && c.aboutTarget(p)
}

// admin reports whether the caller is an administrator.
func (p *policy) admin(who *Identity) bool {
	return p.allows("context_is_admin", who, noTarget{})
}

type constCheck bool

func (c constCheck) allows(*policy, *Identity, target) bool { return bool(c) }
func (c constCheck) aboutTarget(*policy) bool               { return false }

type ruleCheck string

func (c ruleCheck) allows(p *policy, who *Identity, on target) bool {
	return p.allows(string(c), who, on)
}
func (c ruleCheck) aboutTarget(p *policy) bool { return p.aboutTarget(string(c)) }

type roleCheck string

func (c roleCheck) allows(_ *policy, who *Identity, _ target) bool { return who.HasRole(string(c)) }
func (c roleCheck) aboutTarget(*policy) bool                       { return false }

// callerCheck compares what the caller is with an attribute of the object,
// project_id:%(project_id)s, or with a value.
type callerCheck struct {
	caller    func(*Identity) []string
	attribute string // "" for the value
	value     string
}

func (c callerCheck) allows(_ *policy, who *Identity, on target) bool {
	value := c.value
	if c.attribute != "" {
		var ok bool
		if value, ok = on.attribute(c.attribute); !ok {
			return false
		}
	}
	return value != "" && slices.Contains(c.caller(who), value)
}
func (c callerCheck) aboutTarget(*policy) bool { return c.attribute != "" }

// fieldCheck compares an attribute of the object with a value or a pattern:
// field:networks:shared=True, field:port:device_owner=~^network:.
type fieldCheck struct {
	attribute string
	value     string
	pattern   *regexp.Regexp
}

func (c fieldCheck) allows(_ *policy, _ *Identity, on target) bool {
	value, ok := on.attribute(c.attribute)
	if !ok {
		return false
	}
	if c.pattern != nil {
		return c.pattern.MatchString(value)
	}
	return value == c.value || (value == "True" || value == "False") && strings.EqualFold(value, c.value)
}
func (c fieldCheck) aboutTarget(*policy) bool { return true }

type notCheck struct{ check check }

func (c notCheck) allows(p *policy, who *Identity, on target) bool {
	return !c.check.allows(p, who, on)
}
func (c notCheck) aboutTarget(p *policy) bool { return c.check.aboutTarget(p) }

type allCheck []check

func (c allCheck) allows(p *policy, who *Identity, on target) bool {
	for _, part := range c {
		if !part.allows(p, who, on) {
			return false
		}
	}
	return true
}
func (c allCheck) aboutTarget(p *policy) bool { return anyAboutTarget(p, c) }

type anyCheck []check

func (c anyCheck) allows(p *policy, who *Identity, on target) bool {
	for _, part := range c {
		if part.allows(p, who, on) {
			return true
		}
	}
	return false
}
func (c anyCheck) aboutTarget(p *policy) bool { return anyAboutTarget(p, c) }

func anyAboutTarget(p *policy, list []check) bool {
	for _, c := range list {
		if c.aboutTarget(p) {
			return true
		}
	}
	return false
}

// parseRule compiles a rule: checks joined by and, or, not and parentheses.
func parseRule(text string) (check, error) {
	ps := &ruleParser{words: ruleWords(text)}
	if len(ps.words) == 0 {
		return constCheck(true), nil
	}
	c, err := ps.or()
	if err != nil {
		return nil, err
	}
	if len(ps.words) > 0 {
		return nil, fmt.Errorf("%q: unexpected %q", text, ps.words[0])
	}
	return c, nil
}

// ruleWords splits a rule; the parentheses of %(name)s are not its own.
func ruleWords(text string) []string {
	var words []string
	for word := range strings.FieldsSeq(text) {
		for strings.HasPrefix(word, "(") {
			words, word = append(words, "("), word[1:]
		}
		closing := 0
		for strings.HasSuffix(word, ")") {
			word, closing = word[:len(word)-1], closing+1
		}
		if word != "" {
			words = append(words, word)
		}
		for range closing {
			words = append(words, ")")
		}
	}
	return words
}

type ruleParser struct {
	words []string
	depth int
}

func (ps *ruleParser) take(word string) bool {
	if len(ps.words) == 0 || !strings.EqualFold(ps.words[0], word) {
		return false
	}
	ps.words = ps.words[1:]
	return true
}

func (ps *ruleParser) or() (check, error) {
	return ps.joined("or", ps.and, func(list []check) check { return anyCheck(list) })
}

func (ps *ruleParser) and() (check, error) {
	return ps.joined("and", ps.term, func(list []check) check { return allCheck(list) })
}

func (ps *ruleParser) joined(word string, part func() (check, error), join func([]check) check) (check, error) {
	var list []check
	for {
		c, err := part()
		if err != nil {
			return nil, err
		}
		list = append(list, c)
		if ps.take(word) {
			continue
		}
		if len(list) == 1 {
			return c, nil
		}
		return join(list), nil
	}
}

func (ps *ruleParser) term() (check, error) {
	if ps.depth++; ps.depth > 50 {
		return nil, fmt.Errorf("the rule is nested too deeply")
	}
	defer func() { ps.depth-- }()
	if ps.take("not") {
		c, err := ps.term()
		return notCheck{c}, err
	}
	if ps.take("(") {
		c, err := ps.or()
		if err != nil {
			return nil, err
		}
		if !ps.take(")") {
			return nil, fmt.Errorf("a parenthesis is not closed")
		}
		return c, nil
	}
	if len(ps.words) == 0 {
		return nil, fmt.Errorf("a check is missing at the end")
	}
	word := ps.words[0]
	ps.words = ps.words[1:]
	return parseCheck(word)
}

func parseCheck(word string) (check, error) {
	switch word {
	case "@":
		return constCheck(true), nil
	case "!":
		return constCheck(false), nil
	}
	kind, match, ok := strings.Cut(word, ":")
	if !ok {
		return nil, fmt.Errorf("%q is not a check of the form kind:match", word)
	}
	switch kind {
	case "rule":
		return ruleCheck(match), nil
	case "role":
		return roleCheck(match), nil
	case "is_admin":
		return isAdminCheck(match)
	case "field":
		return parseFieldCheck(match)
	}
	if caller, ok := credentials[kind]; ok {
		return parseCallerCheck(word, match, caller)
	}
	if literal, ok := literalOf(kind); ok {
		return parseCallerCheck(word, match, func(*Identity) []string { return []string{literal} })
	}
	return nil, fmt.Errorf("%q: the kind of check %q is not known", word, kind)
}

// credentials are what a rule may ask about the caller.
var credentials = map[string]func(*Identity) []string{
	"project_id":    func(who *Identity) []string { return []string{who.ProjectID} },
	"tenant_id":     func(who *Identity) []string { return []string{who.ProjectID} },
	"tenant":        func(who *Identity) []string { return []string{who.ProjectID} },
	"user_id":       func(who *Identity) []string { return []string{who.UserID} },
	"user":          func(who *Identity) []string { return []string{who.UserID} },
	"roles":         func(who *Identity) []string { return who.Roles },
	"service_roles": func(who *Identity) []string { return who.ServiceRoles },
}

// literalOf is the text that a check compares with an attribute: 'text':%(name)s.
func literalOf(kind string) (string, bool) {
	switch kind {
	case "True", "False", "None":
		return kind, true
	}
	if n := len(kind); n > 1 && kind[0] == kind[n-1] && strings.ContainsAny(kind[:1], `'"`) {
		return kind[1 : n-1], true
	}
	return "", false
}

func isAdminCheck(match string) (check, error) {
	switch strings.ToLower(match) {
	case "true", "1":
		return ruleCheck("context_is_admin"), nil
	case "false", "0":
		return notCheck{ruleCheck("context_is_admin")}, nil
	}
	return nil, fmt.Errorf("is_admin:%s is neither True nor False", match)
}

// parseCallerCheck compares something of the caller with an attribute of the
// object, %(name)s, or with a text.
func parseCallerCheck(word, match string, caller func(*Identity) []string) (check, error) {
	name, isAttribute := strings.CutPrefix(match, "%(")
	if !isAttribute {
		if match == "" || strings.ContainsAny(match, "%()") {
			return nil, fmt.Errorf("%q must name an attribute as %%(name)s, or a value", word)
		}
		return callerCheck{caller: caller, value: match}, nil
	}
	name, ends := strings.CutSuffix(name, ")s")
	if !ends || name == "" || strings.ContainsAny(name, "%()") {
		return nil, fmt.Errorf("%q must name an attribute as %%(name)s, or a value", word)
	}
	return callerCheck{caller: caller, attribute: strings.ReplaceAll(name, "tenant_id", "project_id")}, nil
}

func parseFieldCheck(match string) (check, error) {
	_, condition, ok := strings.Cut(match, ":")
	if !ok {
		return nil, fmt.Errorf("field:%s must be field:resource:attribute=value", match)
	}
	name, value, ok := strings.Cut(condition, "=")
	if !ok {
		return nil, fmt.Errorf("field:%s must be field:resource:attribute=value", match)
	}
	name = strings.ReplaceAll(name, "tenant_id", "project_id")
	pattern, isPattern := strings.CutPrefix(value, "~")
	if !isPattern {
		return fieldCheck{attribute: name, value: value}, nil
	}
	re, err := regexp.Compile(pattern)
	if err != nil {
		return nil, fmt.Errorf("field:%s: %w", match, err)
	}
	return fieldCheck{attribute: name, pattern: re}, nil
}
