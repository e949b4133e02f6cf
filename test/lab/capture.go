package lab

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// captureStart bounds the start of tcpdump.
const captureStart = 30 * time.Second

// Capture is a tcpdump in the background.
type Capture struct {
	process *Process
}

// Capture shows the packets of a link as tcpdump -e -vv text, from when it
// returns until Stop. The filter is a pcap expression; empty takes all.
func (n *Node) Capture(link, filter string) (*Capture, error) {
	args := []string{"tcpdump", "-n", "-e", "-vv", "-l", "--immediate-mode", "-i", link}
	if filter != "" {
		args = append(args, filter)
	}
	p, err := n.Start(args...)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), captureStart)
	defer cancel()
	if err := p.WaitOutput(ctx, "listening on "); err != nil {
		_, errStop := p.Stop()
		return nil, errors.Join(fmt.Errorf("%s: %w", n.name, err), errStop)
	}
	return &Capture{process: p}, nil
}

// Text is what was captured so far.
func (c *Capture) Text() string { return c.process.Output() }

// WaitFor waits until what was captured holds the text.
func (c *Capture) WaitFor(ctx context.Context, text string) error {
	return c.process.WaitOutput(ctx, text)
}

// Stop ends the capture and returns its text.
func (c *Capture) Stop() (string, error) { return c.process.Stop() }
