package controller

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"planck/flows"
	"planck/network"
	"planck/pipeline"
	"planck/trace"
	"planck/verify"
)

// VerifyRecord is what holds for all packets, as `planck verify` shows it.
type VerifyRecord struct {
	// Verdict is proven, refuted (there are findings), open (something could be
	// neither) or assumed (proven, but for bridges that could not be read).
	Verdict  string          `json:"verdict"`
	Findings []VerifyFinding `json:"findings"`
	// Unproven says what could be neither proven nor refuted, Assumed of which
	// bridges the flows that the model wants were taken for those that they have.
	Unproven  []string `json:"unproven"`
	Assumed   []string `json:"assumed"`
	Hosts     int      `json:"hosts"`
	Ports     int      `json:"ports"`
	Flows     int      `json:"flows"`
	Sets      int      `json:"sets"`       // of packets
	InReserve int      `json:"in_reserve"` // flows that the model wants and no packet meets now
	Revision  uint64   `json:"revision"`
}

// VerifyFinding is a counterexample.
type VerifyFinding struct {
	Kind    string       `json:"kind"` // crossing, spoofed, loop, gateway, dhcp or in vain
	Summary string       `json:"summary"`
	From    *Resource    `json:"from,omitempty"` // the port that sends the packet
	To      *Resource    `json:"to,omitempty"`   // that gets it
	Packet  string       `json:"packet,omitempty"`
	Blame   *VerifyFlow  `json:"blame,omitempty"`
	By      *VerifyFlow  `json:"by,omitempty"` // takes all packets of Blame
	Like    int          `json:"like"`         // how many more findings have the same cause
	Way     *TraceRecord `json:"way,omitempty"`
}

// VerifyFlow is a flow that is at fault.
type VerifyFlow struct {
	Host    string    `json:"host"`
	Bridge  string    `json:"bridge"`
	Missing bool      `json:"missing"` // the model wants it, and the switch has it not
	Wanted  bool      `json:"wanted"`  // the model wants it as it is
	Step    TraceStep `json:"step"`
}

// Verdicts of Verify.
const (
	Proven  = "proven"
	Refuted = "refuted"
	Open    = "open"
	Assumed = "assumed"
)

// Verify proves what holds for all packets, by the flows that the switches have,
// or with desired by those that the model wants. Errors are a *network.Error.
func (c *Controller) Verify(ctx context.Context, desired bool) (*VerifyRecord, error) {
	select {
	case c.verifies <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { <-c.verifies }()
	begun, outcome := time.Now(), ""
	record, err := c.verifyStill(ctx, desired)
	if err == nil {
		outcome = record.Verdict
	}
	count(c.metrics.proofs, c.metrics.proofSeconds, begun, outcome, err)
	return record, err
}

// verifyStill verifies a model that stands still meanwhile, or has no finding.
func (c *Controller) verifyStill(ctx context.Context, desired bool) (*VerifyRecord, error) {
	for try := 1; ; try++ {
		record, err := c.verify(ctx, desired)
		if err != nil || len(record.Findings) == 0 || c.compiled() == record.Revision {
			return record, err
		}
		if try == maxVerifies {
			record.Verdict, record.Findings = Open, []VerifyFinding{}
			record.Unproven = append(record.Unproven, "the model changes all the time, and what was found may be the reason why")
			return record, nil
		}
	}
}

const (
	// maxVerifies is how often a model is looked at that changes meanwhile.
	maxVerifies = 3
	// maxVerifyStates bounds the memory of a proof: some 2 GB.
	maxVerifyStates = 1_500_000
)

func (c *Controller) verify(ctx context.Context, desired bool) (*VerifyRecord, error) {
	view := c.view.Load()
	if view == nil {
		return nil, network.Errorf(network.Unavailable, "NotReady", "the model is not read yet")
	}
	in := verify.Input{Context: ctx, MostStates: maxVerifyStates, View: view, Tables: c.desiredTables, Permitted: c.permits, Layout: pipeline.VerifyLayout}
	record := &VerifyRecord{Findings: []VerifyFinding{}, Unproven: []string{}, Assumed: []string{}, Revision: view.Revision()}
	if !desired {
		in.Desired, in.Tables = c.desiredTables, c.installedOrDesired(ctx, record)
	}
	report, err := verify.Run(in)
	if err != nil {
		return nil, asNetworkError(err)
	}
	record.Hosts, record.Ports, record.Flows = report.Hosts, report.Ports, report.Flows
	record.Sets, record.InReserve = report.States, report.InReserve
	record.Unproven = append(record.Unproven, report.Unproven...)
	slices.Sort(record.Assumed)
	for i := range report.Findings {
		record.Findings = append(record.Findings, c.finding(view, &report.Findings[i]))
	}
	switch {
	case len(record.Findings) > 0:
		record.Verdict = Refuted
	case len(record.Unproven) > 0:
		record.Verdict = Open
	case len(record.Assumed) > 0:
		record.Verdict = Assumed
	default:
		record.Verdict = Proven
	}
	return record, nil
}

// installedOrDesired reads each bridge once, and takes of one that is not connected
// what it should have.
func (c *Controller) installedOrDesired(ctx context.Context, record *VerifyRecord) trace.Tables {
	read, installed := map[pipeline.Target]*flows.Set{}, c.installedTables(ctx)
	return func(host, bridge string) (*flows.Set, error) {
		of := pipeline.Target{Host: host, Bridge: bridge}
		if set := read[of]; set != nil {
			return set, nil
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		set, err := installed(host, bridge)
		if err != nil {
			record.Assumed = append(record.Assumed, err.Error())
			set, err = c.desiredTables(host, bridge)
		}
		read[of] = set
		return set, err
	}
}

// permits reports whether a bridge may have a flow that it need not have.
func (c *Controller) permits(host, bridge string, f *flows.Flow) (yes bool) {
	cookie := pipeline.Cookie(f.Cookie)
	if !cookie.Ours() {
		return isMapped(bridge)
	}
	if cookie.Flags()&pipeline.FlagPuntDrop != 0 {
		return true
	}
	c.opt.Compiler.Read(pipeline.Target{Host: host, Bridge: bridge}, func(s pipeline.State) {
		want := s.Permitted.Flows[f.Key()]
		yes = want != nil && want.Instructions == f.Instructions
	})
	return yes || pipeline.TableName(bridge, f.Table) == pipeline.Canary.Name
}

func (c *Controller) finding(view *network.View, f *verify.Finding) VerifyFinding {
	r := VerifyFinding{Kind: string(f.Kind), Summary: f.Text, From: portResource(f.From), To: portResource(f.To), Like: f.Like}
	r.Blame, r.By = c.verifyFlow(view, f.Blame), c.verifyFlow(view, f.By)
	if f.Kind == verify.InVain && f.By == nil {
		return r
	}
	r.Packet = f.Sent.String()
	if f.Way == nil {
		return r
	}
	t := tracer{view: view, to: f.To}
	t.asked = trace.Question{From: f.From, Protocol: uint8(f.Sent.Get(flows.IPProto).Lo), Dst: f.Sent.IP(flows.IPv4Dst)}
	r.Way = t.record(f.Way)
	r.Way.Packet = r.Packet
	return r
}

func portResource(p *network.Port) *Resource {
	if p == nil {
		return nil
	}
	return &Resource{Kind: "port", ID: p.ID, Name: p.Name}
}

func (c *Controller) verifyFlow(view *network.View, f *verify.Flow) *VerifyFlow {
	if f == nil {
		return nil
	}
	t := tracer{view: view}
	v := &VerifyFlow{Host: f.Host, Bridge: f.Bridge, Missing: f.Missing, Step: t.step(f.Bridge, flows.Step{Table: f.Flow.Table, Flow: f.Flow})}
	c.opt.Compiler.Read(pipeline.Target{Host: f.Host, Bridge: f.Bridge}, func(s pipeline.State) {
		want := s.Desired.Flows[f.Flow.Key()]
		v.Wanted = want != nil && want.Instructions == f.Flow.Instructions
	})
	return v
}

// Line is a flow at fault in one line.
func (f *VerifyFlow) Line() string {
	state := "which the model does not want"
	switch {
	case f.Missing:
		state = "which the model wants and the switch has not"
	case f.Wanted:
		state = "as the model wants it"
	}
	return fmt.Sprintf("%s %s, table %s, %s, %s", f.Host, f.Bridge, f.Step.TableName, cmp.Or(f.Step.Text, "not ours"), state)
}
