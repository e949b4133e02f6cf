package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// command is a program in a process group of its own, so that a cancelled
// context ends its children too.
func command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	return cmd
}

// output runs the command and returns what it wrote to stdout and stderr. The
// error names the command and holds that text.
func output(cmd *exec.Cmd) (string, error) {
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	// A daemon that the command left behind may hold the pipe: no failure.
	if err == nil || errors.Is(err, exec.ErrWaitDelay) {
		return out.String(), nil
	}
	return out.String(), fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, strings.TrimSpace(out.String()))
}

func run(ctx context.Context, name string, args ...string) error {
	_, err := output(command(ctx, name, args...))
	return err
}

// ip runs lines of ip(8) commands in a namespace ("" is the root namespace) in
// one process.
func ip(ctx context.Context, namespace string, lines ...string) error {
	args := []string{"-batch", "-"}
	if namespace != "" {
		args = append([]string{"-n", namespace}, args...)
	}
	script := strings.Join(lines, "\n") + "\n"
	cmd := command(ctx, "ip", args...)
	cmd.Stdin = strings.NewReader(script)
	if _, err := output(cmd); err != nil {
		return fmt.Errorf("%w\n%s", err, script)
	}
	return nil
}

// withEnv adds to the environment of this process.
func withEnv(cmd *exec.Cmd, env ...string) *exec.Cmd {
	cmd.Env = append(os.Environ(), env...)
	return cmd
}
