package controller

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"planck/flows"
	"planck/pipeline"
)

// ForeignFlows returns the flows of a switch that are not ours as text, one a
// line; RestoreFlows understands it. The flow that a switch in standalone mode
// makes itself is left out. It waits for the switch to connect until ctx ends,
// and changes nothing there.
func (c *Controller) ForeignFlows(ctx context.Context, dpid uint64) (string, error) {
	s, err := c.awaitSession(ctx, dpid)
	if err != nil {
		return "", err
	}
	stats, err := s.dumpFlows()
	if err != nil {
		return "", fmt.Errorf("reading the flows of %s: %w", dpidText(dpid), err)
	}
	var text strings.Builder
	for i := range stats {
		f := &stats[i].Flow
		if pipeline.Cookie(f.Cookie).Ours() || *f == standaloneFlow {
			continue
		}
		line := f.String()
		if again, err := flows.ParseFlow(line); err != nil || again != *f {
			return "", fmt.Errorf("switch %s has a flow that can't be kept as text: %s", dpidText(dpid), line)
		}
		fmt.Fprintln(&text, line)
	}
	return text.String(), nil
}

// standaloneFlow is what a bridge without a controller forwards with.
var standaloneFlow = flows.Flow{Match: flows.NewMatch(), Instructions: flows.Do(flows.Output(flows.PortNormal))}

// RestoreFlows adds flows that ForeignFlows returned, and returns when the
// switch has acknowledged them. What it refuses is an error, after the rest is added.
func (c *Controller) RestoreFlows(ctx context.Context, dpid uint64, text string) error {
	var items []item
	for line := range strings.Lines(text) {
		f, err := flows.ParseFlow(strings.TrimSpace(line))
		if err != nil {
			return fmt.Errorf("kept flow of %s: %w", dpidText(dpid), err)
		}
		items = append(items, item{command: uint16(flows.FlowAdd), flow: &f})
	}
	s, err := c.awaitSession(ctx, dpid)
	if err != nil {
		return err
	}
	refused, err := s.pushSingly(items)
	if err != nil {
		return fmt.Errorf("putting back the flows of %s: %w", dpidText(dpid), err)
	}
	var errs []error
	for i := range refused {
		errs = append(errs, fmt.Errorf("putting back %s: %w", &refused[i].item, refused[i].err))
	}
	c.mu.RLock()
	defer c.mu.RUnlock()
	for _, t := range c.byDPID[dpid] {
		t.readAgain() // some may have replaced ours
	}
	return errors.Join(errs...)
}

// awaitSession returns the newest connection of a switch, once there is one.
func (c *Controller) awaitSession(ctx context.Context, dpid uint64) (*session, error) {
	for {
		c.mu.RLock()
		sessions, joined := c.sessions[dpid], c.joined
		c.mu.RUnlock()
		if n := len(sessions); n > 0 {
			return sessions[n-1], nil
		}
		select {
		case <-joined:
		case <-ctx.Done():
			return nil, fmt.Errorf("switch %s is not connected: %w", dpidText(dpid), ctx.Err())
		}
	}
}
