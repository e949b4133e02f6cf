package main

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

const configurationDoc = "../../docs/configuration.md"

// TestConfigurationDocIsCurrent keeps docs/configuration.md equal to the table
// of options; -update rewrites it.
func TestConfigurationDocIsCurrent(t *testing.T) {
	want := documentOptions()
	if *update {
		if err := os.WriteFile(configurationDoc, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	got, err := os.ReadFile(configurationDoc)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Errorf("%s is stale: go test ./cmd/planck -run %s -update", configurationDoc, t.Name())
	}
}

func documentOptions() string {
	var b strings.Builder
	b.WriteString(`# Configuration

Made from the options in ` + "`cmd/planck/config_options.go`" + `; do not edit by hand.

` + "`planck serve`" + ` runs without any file or flag. It reads any number of oslo-style INI files,
` + "`planck serve --config-file planck.conf --config-file ovs_plugin.ini`" + `: later files win, flags win over files.

- A line that begins with ` + "`#` or `;`" + ` is a comment; an indented line continues the value above it. Options before the first section belong to ` + "`[DEFAULT]`" + `. Names of sections are compared without regard to case.
- ` + "`$name`, `${name}` and `%(name)s`" + ` stand for the value of another option of the same section or of ` + "`[DEFAULT]`; `$$`" + ` is a dollar sign.
- An unknown option is a warning that names the file and the line. A bad value is an error that does, and exit code 2.

`)
	b.WriteString("## Flags\n\n")
	documentFlags(&b)
	b.WriteString("## Options of files\n\n")
	documentSections(&b)
	b.WriteString("## Accepted and not used yet\n\n" +
		"Options of features that this version does not have. They are accepted, and listed once when the program starts.\n\n")
	documentForeign(&b, later)
	b.WriteString("\n## Ignored\n\n" +
		"Options of Quantum's and Neutron's files that have no meaning here. They are listed once when the program starts.\n\n")
	documentForeign(&b, ignored)
	return b.String()
}

func documentFlags(b *strings.Builder) {
	b.WriteString("| flag | type | option | default | |\n|---|---|---|---|---|\n")
	b.WriteString("| `--config-file` | file | | | INI file; may be repeated. |\n")
	for _, o := range options {
		if o.Flag == "" {
			continue
		}
		title := ""
		if len(o.Names) > 0 {
			title = "`" + o.title() + "`"
		}
		fmt.Fprintf(b, "| `--%s` | %s | %s | %s | %s |\n", o.Flag, documentedType(o), title, o.shownDefault(), o.Doc)
	}
	b.WriteString("\n")
}

func documentSections(b *strings.Builder) {
	var order []string
	rows := map[string][]string{}
	for _, o := range options {
		if len(o.Names) == 0 {
			continue
		}
		section := o.Sections[0]
		if rows[section] == nil {
			order = append(order, section)
		}
		rows[section] = append(rows[section], documentOption(o))
	}
	for _, section := range order {
		fmt.Fprintf(b, "### [%s]\n\n| option | type | default | |\n|---|---|---|---|\n%s\n", section, strings.Join(rows[section], ""))
	}
}

func documentOption(o *option) string {
	doc := o.Doc
	if len(o.Names) > 1 {
		doc += " Also called `" + strings.Join(o.Names[1:], "`, `") + "`."
	}
	if len(o.Sections) > 1 {
		doc += " Also in `[" + strings.Join(o.Sections[1:], "]`, `[") + "]`."
	}
	if o.Flag != "" {
		doc += " Flag `--" + o.Flag + "`."
	}
	return fmt.Sprintf("| `%s` | %s | %s | %s |\n", o.Names[0], documentedType(o), o.shownDefault(), doc)
}

func documentedType(o *option) string {
	if len(o.OneOf) > 0 {
		return strings.Join(o.OneOf, ", ")
	}
	return typeName(o.Into(&Config{}))
}

func documentForeign(b *strings.Builder, list []foreign) {
	for _, f := range list {
		names := "`" + strings.Join(f.Names, "`, `") + "`"
		if f.Names[0] == "*" {
			names = "all of it"
		}
		fmt.Fprintf(b, "- `[%s]`: %s\n", f.Section, names)
	}
}
