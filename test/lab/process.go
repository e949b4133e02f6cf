package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"
)

// stopGrace is how long a process may take to end after SIGINT.
const stopGrace = 10 * time.Second

// Process is a program that runs in a node's namespace in the background. It
// ends with Stop or with the lab.
type Process struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when it ended; err is set before
	err  error

	mu      sync.Mutex
	out     bytes.Buffer
	changed chan struct{} // closed and replaced with each output
}

// startProcess starts the command; its end is awaited in one goroutine, which
// ends with the process.
func (l *Lab) startProcess(cmd *exec.Cmd) (*Process, error) {
	p := &Process{cmd: cmd, done: make(chan struct{}), changed: make(chan struct{})}
	sink := processOutput{p}
	cmd.Stdout, cmd.Stderr = sink, sink
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("%s: %w", strings.Join(cmd.Args, " "), err)
	}
	go func() {
		p.err = cmd.Wait()
		close(p.done)
	}()
	l.procMu.Lock()
	l.processes = append(l.processes, p)
	l.procMu.Unlock()
	return p, nil
}

// processOutput keeps Write out of Process's own methods.
type processOutput struct{ p *Process }

func (o processOutput) Write(b []byte) (int, error) {
	o.p.mu.Lock()
	defer o.p.mu.Unlock()
	close(o.p.changed)
	o.p.changed = make(chan struct{})
	return o.p.out.Write(b)
}

// PID is the process id; it leads a process group.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Output is what it wrote to stdout and stderr so far.
func (p *Process) Output() string {
	text, _ := p.snapshot()
	return text
}

func (p *Process) snapshot() (text string, changed <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.out.String(), p.changed
}

// Wait waits for the process to end by itself; the error is that of exec.
func (p *Process) Wait(ctx context.Context) error {
	select {
	case <-p.done:
		return p.err
	case <-ctx.Done():
		return p.fail(ctx.Err())
	}
}

// WaitOutput waits until its output holds the text.
func (p *Process) WaitOutput(ctx context.Context, text string) error {
	return p.waitFor(ctx, func(out string) bool { return strings.Contains(out, text) })
}

func (p *Process) waitFor(ctx context.Context, ok func(output string) bool) error {
	for {
		out, changed := p.snapshot()
		if ok(out) {
			return nil
		}
		select {
		case <-changed:
		case <-p.done:
			if ok(p.Output()) {
				return nil
			}
			return p.fail(errors.New("ended early"))
		case <-ctx.Done():
			return p.fail(ctx.Err())
		}
	}
}

func (p *Process) fail(err error) error {
	return fmt.Errorf("%s: %w: %s", strings.Join(p.cmd.Args, " "), err, strings.TrimSpace(p.Output()))
}

// Signal sends the signal to its process group.
func (p *Process) Signal(sig syscall.Signal) error {
	select {
	case <-p.done:
		return nil
	default:
	}
	if err := syscall.Kill(-p.PID(), sig); err != nil && !errors.Is(err, syscall.ESRCH) {
		return p.fail(err)
	}
	return nil
}

// Stop interrupts it, as Ctrl-C does, kills it when it does not end within
// ten seconds, and returns its output. Stopping twice is no error.
func (p *Process) Stop() (string, error) {
	if err := p.Signal(syscall.SIGINT); err != nil {
		return p.Output(), err
	}
	grace := time.NewTimer(stopGrace)
	defer grace.Stop()
	select {
	case <-p.done:
		return p.Output(), nil
	case <-grace.C:
	}
	if err := p.Signal(syscall.SIGKILL); err != nil {
		return p.Output(), err
	}
	<-p.done
	return p.Output(), nil
}

// stopProcesses ends what this process started in the lab. No grace: the lab
// goes down.
func (l *Lab) stopProcesses() error {
	l.procMu.Lock()
	processes := l.processes
	l.processes = nil
	l.procMu.Unlock()
	var errs []error
	for _, p := range processes {
		errs = append(errs, p.Signal(syscall.SIGKILL))
	}
	for _, p := range processes {
		<-p.done
	}
	return errors.Join(errs...)
}
