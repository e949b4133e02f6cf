package main

import (
	"encoding/json"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"unicode"
)

// table is the result of a list: columns and the rows under them.
type table struct {
	columns []string
	rows    [][]any
}

// listFormats and showFormats are the values of -f.
var (
	listFormats = []string{"table", "csv", "json", "value", "yaml"}
	showFormats = []string{"table", "json", "shell", "value", "yaml"}
)

// writeList prints a list in the format that args ask for.
func writeList(w io.Writer, args *arguments, t table) error {
	var b strings.Builder
	switch args.text("format") {
	case "csv":
		writeCSV(&b, t, args.text("quote"))
	case "json":
		writeListJSON(&b, t)
	case "value":
		for _, row := range t.rows {
			b.WriteString(strings.Join(plainValues(row), " ") + "\n")
		}
	case "yaml":
		writeListYAML(&b, t)
	default:
		writeTable(&b, t, listAlignment(t))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// writeShow prints one object, its attributes by name, in the format that args
// ask for. -c chooses attributes.
func writeShow(w io.Writer, args *arguments, o object) error {
	o = slices.Clone(o)
	slices.SortFunc(o, func(a, b member) int { return strings.Compare(a.key, b.key) })
	if wanted := args.given["column"]; len(wanted) > 0 {
		o = slices.DeleteFunc(o, func(m member) bool { return !slices.Contains(wanted, m.key) })
		if len(o) == 0 {
			return fmt.Errorf("no recognized column names in %s", strings.Join(wanted, ", "))
		}
	}
	var b strings.Builder
	switch args.text("format") {
	case "json":
		b.WriteString(indentJSON(o))
	case "shell":
		for _, m := range o {
			fmt.Fprintf(&b, "%s%s=\"%s\"\n", args.text("prefix"), shellName(m.key), shellEscape(cell(m.value)))
		}
	case "value":
		for _, m := range o {
			b.WriteString(plainValues([]any{m.value})[0] + "\n")
		}
	case "yaml":
		for _, m := range o {
			b.WriteString(yamlKey(m.key) + ": " + jsonText(m.value) + "\n")
		}
	default:
		t := table{columns: []string{"Field", "Value"}}
		for _, m := range o {
			t.rows = append(t.rows, []any{m.key, m.value})
		}
		writeTable(&b, t, make([]bool, 2))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// listAlignment tells which columns are aligned to the right: those of numbers.
func listAlignment(t table) []bool {
	right := make([]bool, len(t.columns))
	if len(t.rows) > 0 {
		for i, v := range t.rows[0] {
			_, right[i] = v.(json.Number)
		}
	}
	return right
}

// writeTable draws t as PrettyTable does; nothing but a line end when there is
// no column.
func writeTable(b *strings.Builder, t table, right []bool) {
	if len(t.columns) == 0 {
		b.WriteByte('\n')
		return
	}
	rows := make([][][]string, len(t.rows)) // row, column, line
	widths := make([]int, len(t.columns))
	for i, c := range t.columns {
		widths[i] = displayWidth(c)
	}
	for r, row := range t.rows {
		rows[r] = make([][]string, len(row))
		for c, v := range row {
			rows[r][c] = strings.Split(cell(v), "\n")
			for _, line := range rows[r][c] {
				widths[c] = max(widths[c], displayWidth(line))
			}
		}
	}
	rule := ruler(widths)
	b.WriteString(rule)
	header := make([][]string, len(t.columns))
	for i, c := range t.columns {
		header[i] = []string{c}
	}
	writeRow(b, header, widths, right)
	b.WriteString(rule)
	for _, row := range rows {
		writeRow(b, row, widths, right)
	}
	b.WriteString(rule)
}

func ruler(widths []int) string {
	var b strings.Builder
	for _, w := range widths {
		b.WriteString("+" + strings.Repeat("-", w+2))
	}
	return b.String() + "+\n"
}

func writeRow(b *strings.Builder, row [][]string, widths []int, right []bool) {
	height := 1
	for _, lines := range row {
		height = max(height, len(lines))
	}
	for y := range height {
		for x, lines := range row {
			text := ""
			if y < len(lines) {
				text = lines[y]
			}
			pad := strings.Repeat(" ", widths[x]-displayWidth(text))
			if right[x] {
				text, pad = pad, text
			}
			b.WriteString("| " + text + pad + " ")
		}
		b.WriteString("|\n")
	}
}

// displayWidth is how many columns of a terminal s takes.
func displayWidth(s string) int {
	n := 0
	for _, r := range s {
		switch {
		case unicode.Is(unicode.Mn, r):
		case unicode.In(r, unicode.Han, unicode.Hiragana, unicode.Katakana, unicode.Hangul),
			r >= 0x3000 && r <= 0x303F, r >= 0xFF01 && r <= 0xFF60:
			n += 2
		default:
			n++
		}
	}
	return n
}

// plainValues are values on one line each: lists and objects as JSON.
func plainValues(row []any) []string {
	out := make([]string, len(row))
	for i, v := range row {
		switch v.(type) {
		case []any, object:
			out[i] = jsonText(v)
		default:
			out[i] = strings.ReplaceAll(cell(v), "\n", " ")
		}
	}
	return out
}

func writeListJSON(b *strings.Builder, t table) {
	list := make([]object, len(t.rows))
	for r, row := range t.rows {
		for i, v := range row {
			list[r] = append(list[r], member{t.columns[i], v})
		}
	}
	b.WriteString(indentJSON(list))
}

func indentJSON(v any) string {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(v); err != nil {
		return "null\n"
	}
	return b.String()
}

func writeListYAML(b *strings.Builder, t table) {
	if len(t.rows) == 0 {
		b.WriteString("[]\n")
		return
	}
	for _, row := range t.rows {
		for i, v := range row {
			lead := "  "
			if i == 0 {
				lead = "- "
			}
			b.WriteString(lead + yamlKey(t.columns[i]) + ": " + jsonText(v) + "\n")
		}
	}
}

var plainYAMLKey = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_:-]*[A-Za-z0-9_]$`)

func yamlKey(key string) string {
	if plainYAMLKey.MatchString(key) {
		return key
	}
	return scalarJSON(key)
}

// writeCSV quotes what quote says: all, minimal, none, or everything but
// numbers.
func writeCSV(b *strings.Builder, t table, quote string) {
	field := func(v any) string {
		text := cell(v)
		_, isNumber := v.(json.Number)
		switch {
		case quote == "none",
			quote == "minimal" && !strings.ContainsAny(text, "\",\r\n"),
			quote != "all" && quote != "minimal" && isNumber:
			return text
		}
		return `"` + strings.ReplaceAll(text, `"`, `""`) + `"`
	}
	line := func(values []any) {
		for i, v := range values {
			if i > 0 {
				b.WriteByte(',')
			}
			b.WriteString(field(v))
		}
		b.WriteByte('\n')
	}
	header := make([]any, len(t.columns))
	for i, c := range t.columns {
		header[i] = c
	}
	line(header)
	for _, row := range t.rows {
		line(row)
	}
}

func shellName(key string) string {
	return strings.Map(func(r rune) rune {
		if r == ':' || r == '-' || r == ' ' {
			return '_'
		}
		return r
	}, key)
}

// shellEscape makes s safe between double quotes.
func shellEscape(s string) string {
	return strings.NewReplacer(`\`, `\\`, `"`, `\"`, "$", `\$`, "`", "\\`").Replace(s)
}
