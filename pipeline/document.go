package pipeline

import (
	"fmt"
	"strings"
)

// Document is docs/pipelines.md, made from the declarations.
func Document() string {
	var b strings.Builder
	b.WriteString(`# Pipelines

Made by ` + "`planck pipeline-doc`" + ` from the declarations in ` + "`pipeline/tables.go`" + `; a test fails when this file is stale.

Cookies: bits 63–48 are 0x504C ("PL"), 47–40 the feature, 39–32 flags, 31–0 the key of the network, port or host that the flow stands for.

`)
	for _, kind := range []struct {
		bridge BridgeKind
		title  string
	}{
		{Integration, "br-int"}, {Tunnel, "br-tun"}, {Provider, "br-ex (every provider bridge)"},
	} {
		fmt.Fprintf(&b, "## %s\n\n| table | name | purpose | matches | sets | next | nothing matches |\n|---|---|---|---|---|---|---|\n", kind.title)
		for _, t := range Tables {
			if t.Bridge == kind.bridge {
				fmt.Fprintf(&b, "| %d | %s | %s | %s | %s | %s | %s |\n", t.ID, t.Name, t.Purpose, fieldNames(t.Matches), fieldNames(t.Sets), nextNames(t), t.Miss)
			}
		}
		b.WriteString("\n")
	}
	b.WriteString("## Registers\n\n| bridge | field | bits | meaning |\n|---|---|---|---|\n")
	for _, r := range Registers {
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", r.Bridge, r.Field.Name(), r.Bits, r.Meaning)
	}
	b.WriteString("\n## Features\n\n| number in cookies | name |\n|---|---|\n")
	for _, f := range Features {
		fmt.Fprintf(&b, "| %d | %s |\n", f.ID(), f.Name())
	}
	fmt.Fprintf(&b, "| %d | %s |\n", FeatureCanary, FeatureName(FeatureCanary))
	b.WriteString("\n## Reasons for drops (reg6 in table Dropped)\n\n| reason | meaning |\n|---|---|\n")
	for reason := DropReason(1); int(reason) <= len(DropReasons); reason++ {
		fmt.Fprintf(&b, "| %d | %s |\n", reason, DropReasons[reason])
	}
	return b.String()
}

func fieldNames[F interface{ Name() string }](fields []F) string {
	names := make([]string, len(fields))
	for i, f := range fields {
		names[i] = f.Name()
	}
	return strings.Join(names, ", ")
}

func nextNames(t *Table) string {
	var names []string
	for _, n := range t.Next {
		names = append(names, n.Name)
	}
	if t.Outputs {
		names = append(names, "output")
	}
	return strings.Join(names, ", ")
}
