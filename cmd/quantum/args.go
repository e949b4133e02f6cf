package main

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// option is an option that a command knows. Dashes and underscores in names
// mean the same on the command line.
type option struct {
	name    string // with dashes: "tenant-id"
	short   string // "c" for -c; "" for none
	metavar string // "" makes the option a flag
	help    string
	choices []string
	many    bool // may be repeated; its values are a list

	// What the option means in a request body; attr "" is nothing.
	attr  string
	value any // what a flag sets attr to
	parse func(string) (any, error)
	// resolve replaces names by ids in a parsed value.
	resolve func(*call, any) (any, error)
}

func (o *option) flag() bool { return o.metavar == "" }

// positional is an argument that is known by its place.
type positional struct {
	metavar string
	help    string
	attr    string // attribute of the request body; "" is none
	lookup  string // kind of resource whose name or id it is; "" is plain text
	many    bool   // one or more; only as the last one
	// others are what it may be instead, named before an equals sign by their lookup.
	others []positional
}

// chosen is which of the others a text names, with what is behind the equals sign.
func (p positional) chosen(text string) (positional, string) {
	for _, o := range p.others {
		if rest, ok := strings.CutPrefix(text, o.lookup+"="); ok {
			return o, rest
		}
	}
	return p, text
}

// arguments is a command line after parsing.
type arguments struct {
	positionals []string
	given       map[string][]string // option name → values; a flag's are "true" or "false"
	extras      []extra
}

// extra is an attribute that the command does not know: it goes to the server.
type extra struct {
	attr  string
	value any // nil, bool, string, int64, float64, map[string]any or []any of them
}

func (a *arguments) has(name string) bool { return len(a.given[name]) > 0 }

// text is the last value of an option, "" when it was not given.
func (a *arguments) text(name string) string {
	if v := a.given[name]; len(v) > 0 {
		return v[len(v)-1]
	}
	return ""
}

func (a *arguments) flag(name string) bool { return a.text(name) == "true" }

// usageError is a mistake in the command line.
type usageError struct{ text string }

func (e *usageError) Error() string { return e.text }

func usagef(format string, args ...any) error {
	return &usageError{fmt.Sprintf(format, args...)}
}

// spec is one unknown option with the words that follow it.
type spec struct {
	name   string // without the leading dashes
	open   bool   // words may follow: it was not written --name=value
	typ    string // of type=
	list   bool   // list=true
	clear  bool   // action=clear
	values []string
}

// parser reads a command line word by word.
type parser struct {
	known []*option
	words []string
	args  *arguments
	specs []*spec
	open  bool // the last spec takes the words that come next
}

// parseArgs reads words. Between min and max words are positionals (max < 0 is
// any number); options that are not known become extras, with as many of the
// words behind them as the positionals leave.
func parseArgs(known []*option, least, most int, words []string) (*arguments, error) {
	p := &parser{known: known, words: words, args: &arguments{given: map[string][]string{}}}
	for len(p.words) > 0 {
		word := p.next()
		if word == "--" {
			break
		}
		if err := p.word(word); err != nil {
			return nil, err
		}
	}
	p.fillPositionals(least)
	if len(p.args.positionals) < least {
		return nil, usagef("too few arguments")
	}
	if n := len(p.args.positionals); most >= 0 && n > most {
		return nil, usagef("unrecognized arguments: %s", strings.Join(p.args.positionals[most:], " "))
	}
	if err := p.rest(); err != nil {
		return nil, err
	}
	return p.args, p.finish()
}

func (p *parser) next() string {
	word := p.words[0]
	p.words = p.words[1:]
	return word
}

func (p *parser) word(word string) error {
	switch {
	case strings.HasPrefix(word, "--"):
		return p.long(word)
	case len(word) > 1 && word[0] == '-' && !isNumber(word):
		return p.short(word)
	case p.open && p.specs[len(p.specs)-1].take(word):
		return nil
	}
	p.args.positionals = append(p.args.positionals, word)
	return nil
}

func (p *parser) long(word string) error {
	name, value, hasValue := strings.Cut(word[2:], "=")
	for _, o := range p.known {
		if o.name == dashed(name) {
			p.open = false
			return p.knownOption(o, word, value, hasValue)
		}
	}
	return p.unknownOption(word)
}

func (p *parser) short(word string) error {
	for _, o := range p.known {
		if o.short == "" || !strings.HasPrefix(word[1:], o.short) {
			continue
		}
		p.open = false
		value := word[2:]
		if o.flag() && value != "" && strings.Trim(value, o.short) == "" { // -vv
			value = ""
		}
		return p.knownOption(o, word[:2], strings.TrimPrefix(value, "="), value != "")
	}
	return usagef("unknown option %s", word)
}

func (p *parser) knownOption(o *option, word, value string, hasValue bool) error {
	if !hasValue {
		var err error
		if value, err = p.valueOf(o, word); err != nil {
			return err
		}
	}
	if o.flag() {
		v, err := strconv.ParseBool(strings.ToLower(value))
		if err != nil {
			return usagef("argument --%s: %q is neither True nor False", o.name, value)
		}
		value = strconv.FormatBool(v)
	}
	if len(o.choices) > 0 && !slices.Contains(o.choices, value) {
		return usagef("argument --%s: invalid choice: %q (choose from %s)", o.name, value, strings.Join(o.choices, ", "))
	}
	p.args.given[o.name] = append(p.args.given[o.name], value)
	return nil
}

// valueOf is the value behind an option that was written without "=". A flag
// takes a following True or False, as in "--shared True".
func (p *parser) valueOf(o *option, word string) (string, error) {
	if o.flag() {
		if len(p.words) > 0 && isBool(p.words[0]) {
			return p.next(), nil
		}
		return "true", nil
	}
	if len(p.words) == 0 || p.words[0] == "--" || strings.HasPrefix(p.words[0], "--") {
		return "", usagef("argument %s: expected one argument", word)
	}
	return p.next(), nil
}

func (p *parser) unknownOption(word string) error {
	name, value, hasValue := strings.Cut(word[2:], "=")
	if name == "" || name[0] == '-' {
		return usagef("invalid values_specs %s", word)
	}
	if slices.ContainsFunc(p.specs, func(s *spec) bool { return underscored(s.name) == underscored(name) }) {
		return usagef("duplicated options --%s", name)
	}
	s := &spec{name: name, open: !hasValue}
	if hasValue {
		s.values = []string{value}
	}
	p.specs = append(p.specs, s)
	p.open = s.open
	return nil
}

// rest reads what follows "--": unknown options only.
func (p *parser) rest() error {
	p.open = false
	for len(p.words) > 0 {
		word := p.next()
		if strings.HasPrefix(word, "--") {
			if err := p.unknownOption(word); err != nil {
				return err
			}
			continue
		}
		if !p.open || word[:min(1, len(word))] == "-" && !isNumber(word) || !p.specs[len(p.specs)-1].take(word) {
			return usagef("invalid values_specs %s", word)
		}
	}
	return nil
}

// take makes word a marker or a value of the option.
func (s *spec) take(word string) bool {
	typ, isType := strings.CutPrefix(word, "type=")
	switch {
	case !s.open:
		return false
	case isType && s.typ == "":
		s.typ = typ
	case word == "list=true":
		s.list = true
	case word == "action=clear":
		s.clear = true
	default:
		s.values = append(s.values, word)
	}
	return true
}

// fillPositionals takes words back from unknown options for the positionals
// that are missing: first those that leave the option a value.
func (p *parser) fillPositionals(least int) {
	for _, keep := range []int{1, 0} {
		for _, s := range p.specs {
			missing := least - len(p.args.positionals)
			spare := len(s.values) - keep
			if missing <= 0 || spare <= 0 || !s.open {
				continue
			}
			cut := len(s.values) - min(missing, spare)
			p.args.positionals = append(p.args.positionals, s.values[cut:]...)
			s.values = s.values[:cut]
		}
	}
}

func (p *parser) finish() error {
	for _, s := range p.specs {
		value, err := s.convert()
		if err != nil {
			return usagef("argument --%s: %v", s.name, err)
		}
		p.args.extras = append(p.args.extras, extra{attr: underscored(s.name), value: value})
	}
	return nil
}

// convert is the value that the option sends to the server: true without
// words, a list with several or with list=true.
func (s *spec) convert() (any, error) {
	if s.clear {
		return nil, nil
	}
	if len(s.values) == 0 && !s.list {
		return true, nil
	}
	items := make([]any, 0, len(s.values))
	for _, text := range s.values {
		item, err := convert(s.typ, text)
		if err != nil {
			return nil, err
		}
		items = append(items, item)
	}
	if s.list || len(items) > 1 {
		return items, nil
	}
	return items[0], nil
}

// convert reads text as the type that type= names.
func convert(typ, text string) (any, error) {
	switch typ {
	case "", "str", "unicode":
		return text, nil
	case "int", "long":
		return number(text)
	case "float":
		v, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return nil, fmt.Errorf("invalid float value: %q", text)
		}
		return v, nil
	case "bool":
		return strings.EqualFold(text, "true"), nil
	case "dict":
		return dict(text)
	}
	return nil, fmt.Errorf("unknown type %q (int, float, bool, str, dict)", typ)
}

func number(text string) (any, error) {
	v, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return nil, fmt.Errorf("invalid int value: %q", text)
	}
	return v, nil
}

// dict reads "key1=value1,key2=value2".
func dict(text string) (any, error) {
	d := map[string]any{}
	for pair := range strings.SplitSeq(text, ",") {
		key, value, ok := strings.Cut(pair, "=")
		if !ok || key == "" {
			return nil, errors.New("expected key1=value1,key2=value2")
		}
		d[key] = value
	}
	return d, nil
}

func dashed(name string) string      { return strings.ReplaceAll(name, "_", "-") }
func underscored(name string) string { return strings.ReplaceAll(name, "-", "_") }

func isBool(s string) bool { return strings.EqualFold(s, "true") || strings.EqualFold(s, "false") }

func isNumber(s string) bool {
	_, err := strconv.ParseFloat(s, 64)
	return err == nil
}
