// Command planck-lab makes virtual hypervisors, VMs, a physical network and an
// "Internet" on one Linux machine. See docs/lab.md.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"planck/test/lab"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := newCommand().ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "planck-lab:", err)
		stop()
		os.Exit(1)
	}
}

// execIn replaces this process by the program in the node's namespace, so that
// terminal, signals and exit code are the program's own.
func execIn(ctx context.Context, node *lab.Node, args []string) error {
	if len(args) == 0 {
		args = []string{"sh"}
		if shell := os.Getenv("SHELL"); shell != "" {
			args[0] = shell
		}
	}
	cmd := node.Command(ctx, args...)
	if cmd.Err != nil {
		return cmd.Err
	}
	return fmt.Errorf("%s: %w", cmd.Path, syscall.Exec(cmd.Path, cmd.Args, cmd.Env))
}

// find is lab.Node with an error that says what there is.
func find(l *lab.Lab, name string) (*lab.Node, error) {
	if n := l.Node(name); n != nil {
		return n, nil
	}
	return nil, fmt.Errorf("lab %s has no %s; see planck-lab ps", l.Name(), name)
}

func findVM(l *lab.Lab, name string) (*lab.VM, error) {
	if vm := l.VM(name); vm != nil {
		return vm, nil
	}
	return nil, fmt.Errorf("lab %s has no VM %s; see planck-lab ps", l.Name(), name)
}

// open explains what to do when there is no lab.
func open(name string) (*lab.Lab, error) {
	l, err := lab.Open(name)
	if errors.Is(err, lab.ErrNotExist) {
		return nil, fmt.Errorf("%w: make it with planck-lab up", err)
	}
	return l, err
}
