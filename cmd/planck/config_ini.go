package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"

	"gopkg.in/ini.v1"
)

// entry is one option as a configuration file has it.
type entry struct {
	file    string
	line    int    // 0 when it is not known
	section string // as written
	name    string // as written
	values  []entryValue
}

// entryValue is one of the values of a repeated option.
type entryValue struct {
	text string
	line int
}

// last is the value that counts for an option that is not repeatable.
func (e entry) last() entryValue { return e.values[len(e.values)-1] }

// at says where something is, for messages: "planck.conf:12".
func at(file string, line int) string {
	if line == 0 {
		return file
	}
	return fmt.Sprintf("%s:%d", file, line)
}

// readINIFile reads an oslo-style INI file.
func readINIFile(file string) ([]entry, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	return readINI(file, data)
}

// readINI reads the text of an oslo-style INI file: comments are whole lines,
// an indented line continues the value before it, a repeated option has
// several values, options before the first section belong to DEFAULT.
func readINI(file string, data []byte) ([]entry, error) {
	if bytes.IndexByte(data, 0) >= 0 {
		return nil, fmt.Errorf("%s: not a text file", file)
	}
	index := indexLines(data)
	parsed, err := ini.LoadSources(ini.LoadOptions{
		InsensitiveSections:        true,
		IgnoreInlineComment:        true,
		IgnoreContinuation:         true,
		AllowPythonMultilineValues: true,
		AllowShadows:               true,
		AllowDuplicateShadowValues: true,
		KeyValueDelimiters:         "=:",
	}, data)
	if err != nil {
		return nil, syntaxError(file, index, err)
	}
	var entries []entry
	for _, section := range parsed.Sections() {
		for _, key := range section.Keys() {
			entries = append(entries, index.entry(file, section.Name(), key))
		}
	}
	return entries, nil
}

// lineIndex knows on which lines the options of a file are, which the INI
// package does not tell.
type lineIndex struct {
	lines    map[string][]int  // "section\x00name" (section in lower case) → lines
	sections map[string]string // lower case → as written
	text     [][]byte
}

func indexLines(data []byte) *lineIndex {
	x := &lineIndex{lines: map[string][]int{}, sections: map[string]string{}, text: bytes.Split(data, []byte("\n"))}
	section, inValue := strings.ToLower(ini.DefaultSection), false
	for i, raw := range x.text {
		line := string(bytes.TrimSpace(raw))
		switch {
		case line == "" || line[0] == '#' || line[0] == ';':
			continue
		case inValue && (raw[0] == ' ' || raw[0] == '\t'):
			continue
		case line[0] == '[':
			written := line[1:]
			if end := strings.LastIndexByte(written, ']'); end >= 0 {
				written = written[:end]
			}
			written = strings.TrimSpace(written)
			section, inValue = strings.ToLower(written), false
			x.sections[section] = written
		default:
			name, _, _ := strings.Cut(line, "=")
			name, _, _ = strings.Cut(name, ":")
			key := section + "\x00" + strings.TrimSpace(name)
			x.lines[key] = append(x.lines[key], i+1)
			inValue = true
		}
	}
	return x
}

func (x *lineIndex) entry(file, section string, key *ini.Key) entry {
	section = strings.ToLower(strings.TrimSpace(section))
	written := x.sections[section]
	if written == "" {
		written = strings.ToUpper(section)
	}
	e := entry{file: file, section: written, name: key.Name()}
	values := key.ValueWithShadows()
	if len(values) == 0 {
		values = []string{""}
	}
	lines := x.lines[section+"\x00"+key.Name()]
	for i, v := range values {
		value := entryValue{text: joinLines(v)}
		if i < len(lines) {
			value.line = lines[i]
		}
		e.values = append(e.values, value)
	}
	e.line = e.last().line
	return e
}

// joinLines trims the lines of a continued value.
func joinLines(v string) string {
	if !strings.Contains(v, "\n") {
		return strings.TrimSpace(v)
	}
	var lines []string
	for line := range strings.Lines(v) {
		if line = strings.TrimSpace(line); line != "" {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "\n")
}

// syntaxError names the line that the INI package stopped at. The line's text
// is not repeated: it may hold a password.
func syntaxError(file string, index *lineIndex, err error) error {
	var noDelimiter ini.ErrDelimiterNotFound
	var noName ini.ErrEmptyKeyName
	text, what := "", "cannot be read as an INI file"
	switch {
	case errors.As(err, &noDelimiter):
		text, what = noDelimiter.Line, "neither [section] nor name = value"
	case errors.As(err, &noName):
		text, what = noName.Line, "a value without a name"
	case strings.Contains(err.Error(), "unclosed section"):
		return fmt.Errorf("%s: a section without its closing bracket", at(file, index.unclosedSection()))
	case strings.Contains(err.Error(), "empty section name"):
		return fmt.Errorf("%s: a section without a name", file)
	case strings.Contains(err.Error(), "missing closing key quote"):
		what = "a quotation mark that is not closed"
	}
	return fmt.Errorf("%s: %s", at(file, index.find(text)), what)
}

// find is the first line with this text, 0 for none.
func (x *lineIndex) find(text string) int {
	want := strings.TrimSpace(text)
	if want == "" {
		return 0
	}
	for i, line := range x.text {
		if string(bytes.TrimSpace(line)) == want {
			return i + 1
		}
	}
	return 0
}

func (x *lineIndex) unclosedSection() int {
	for i, line := range x.text {
		line = bytes.TrimSpace(line)
		if len(line) > 0 && line[0] == '[' && bytes.IndexByte(line, ']') < 0 {
			return i + 1
		}
	}
	return 0
}
