// Command quantum is the tenant's command line, with the commands and the
// syntax of the Quantum (Folsom) client.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
)

// version is set by the linker: -X main.version=….
var version = "dev"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Getenv, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run does what a command line says and returns the exit code: 1 for what the
// server or the network refused, 2 for a mistake in the command line.
func run(ctx context.Context, words []string, env func(string) string, out, errOut io.Writer) int {
	err := dispatch(ctx, words, env, out, errOut)
	var usage *usageError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &usage):
		fmt.Fprintln(errOut, "quantum: error:", err)
		return 2
	}
	fmt.Fprintln(errOut, err)
	return 1
}

func dispatch(ctx context.Context, words []string, env func(string) string, out, errOut io.Writer) error {
	commands := allCommands()
	name, rest, err := splitCommand(words)
	if err != nil {
		return err
	}
	if name == "help" {
		name, rest = firstWord(rest), []string{"--help"}
	}
	if name == "" {
		return runWithoutCommand(commands, rest, out)
	}
	if name == "bash-completion" {
		return writeCompletion(out, commands)
	}
	cmd := commands[name]
	if cmd == nil {
		return usagef("unknown command %q; \"quantum help\" lists the commands", name)
	}
	if wantsHelp(rest) {
		return cmd.writeHelp(out)
	}
	least, most := cmd.counts()
	args, err := parseArgs(cmd.known(), least, most, rest)
	if err != nil {
		return err
	}
	if len(args.extras) > 0 && !cmd.extras {
		return usagef("unrecognized arguments: --%s", args.extras[0].attr)
	}
	args.given["column"] = append(args.given["column"], args.given["variable"]...)
	s := settings{args: args, env: env}
	var debug io.Writer
	if args.flag("debug") || args.flag("verbose") {
		debug = errOut
	}
	api, err := connect(ctx, s, debug)
	if err != nil {
		return err
	}
	return cmd.run(&call{ctx: ctx, cmd: cmd, args: args, api: api, out: out})
}

// splitCommand takes the name of the command out of words: the first word that
// is neither a global option nor its value. Without a command it is "".
func splitCommand(words []string) (string, []string, error) {
	for i := 0; i < len(words); i++ {
		word := words[i]
		if !strings.HasPrefix(word, "-") {
			return word, slices.Concat(words[:i], words[i+1:]), nil
		}
		name, _, hasValue := strings.Cut(strings.TrimLeft(word, "-"), "=")
		at := slices.IndexFunc(globalOptions, func(o *option) bool {
			return o.name == dashed(name) || o.short != "" && strings.Trim(name, o.short) == ""
		})
		if at < 0 {
			return "", nil, usagef("unrecognized arguments: %s", word)
		}
		if !globalOptions[at].flag() && !hasValue {
			i++
		}
	}
	return "", words, nil
}

func firstWord(words []string) string {
	for _, w := range words {
		if !strings.HasPrefix(w, "-") {
			return w
		}
	}
	return ""
}

// wantsHelp reports whether -h is among the words before "--".
func wantsHelp(words []string) bool {
	if end := slices.Index(words, "--"); end >= 0 {
		words = words[:end]
	}
	return slices.Contains(words, "-h") || slices.Contains(words, "--help")
}

func runWithoutCommand(commands map[string]*command, words []string, out io.Writer) error {
	if slices.Contains(words, "--version") {
		_, err := fmt.Fprintln(out, "quantum", version)
		return err
	}
	var b strings.Builder
	b.WriteString("usage: quantum [options] COMMAND [arguments]\n\nCommand-line interface to the Quantum API.\n")
	writeOptions(&b, globalOptions)
	b.WriteString("\nCommands for API v2.0:\n")
	names := slices.Sorted(maps.Keys(commands))
	for _, name := range names {
		fmt.Fprintf(&b, "  %-26s %s\n", name, commands[name].help)
	}
	_, err := io.WriteString(out, b.String())
	return err
}

func (c *command) writeHelp(out io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "usage: quantum %s [options]", c.name)
	for _, p := range c.positionals {
		b.WriteString(" " + p.metavar)
		if p.many {
			b.WriteString(" ...")
		}
	}
	b.WriteString("\n\n" + c.help + "\n")
	if len(c.positionals) > 0 {
		b.WriteString("\narguments:\n")
		for _, p := range c.positionals {
			fmt.Fprintf(&b, "  %-34s %s\n", p.metavar, p.help)
		}
	}
	writeOptions(&b, c.options)
	if c.extras {
		b.WriteString("\nOther options, --KEY [type=int|float|bool|dict] [list=true] [action=clear] VALUE ..., go to the server" +
			" as attributes or filters.\n")
	}
	_, err := io.WriteString(out, b.String())
	return err
}

func writeOptions(b *strings.Builder, options []*option) {
	if len(options) == 0 {
		return
	}
	b.WriteString("\noptions:\n")
	for _, o := range options {
		text := "--" + o.name
		if o.short != "" {
			text = "-" + o.short + ", " + text
		}
		if !o.flag() {
			text += " " + o.metavar
		}
		help := o.help
		if len(o.choices) > 0 {
			help += " (" + strings.Join(o.choices, ", ") + ")"
		}
		fmt.Fprintf(b, "  %-34s %s\n", text, help)
	}
}

// writeCompletion prints the words that a shell may complete.
func writeCompletion(out io.Writer, commands map[string]*command) error {
	words := map[string]bool{}
	for name, c := range commands {
		words[name] = true
		for _, o := range c.known() {
			words["--"+o.name] = true
		}
	}
	_, err := fmt.Fprintln(out, strings.Join(slices.Sorted(maps.Keys(words)), " "))
	return err
}
