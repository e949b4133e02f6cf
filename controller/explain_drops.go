package controller

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"planck/network"
	"planck/pipeline"
)

// Dropped is what a switch dropped in one table for one reason, of the packets of
// a port or of all those of its host.
type Dropped struct {
	Host      string `json:"host"`
	Counts    string `json:"counts"` // whose packets: countsPort or countsHost
	TableName string `json:"table_name"`
	Why       string `json:"why"`
	Packets   uint64 `json:"packets"`
	// Recent is how many of them were dropped between two looks, nil after one.
	Recent *uint64 `json:"recent,omitempty"`
	Age    float64 `json:"age"` // seconds since the switch counts
}

const (
	// dropsTime bounds how long an explanation waits for a switch to tell its counters.
	dropsTime = 5 * time.Second
	// secondLook is when they are looked at again, to tell what still happens.
	secondLook = time.Second
)

// maxDrops is how many reasons an explanation tells, those of the port before those of its host.
const maxDrops = 8

// portDrops is what was dropped of a port's packets.
type portDrops struct {
	drops []Dropped
	forged
}

// dropsOf reads what the switch of a port dropped of its packets. A switch that
// is not there, or does not answer in time, tells nothing.
func (c *Controller) dropsOf(ctx context.Context, v *network.View, p *network.Port) portDrops {
	host := v.WiredHost(p)
	if host == "" || !c.hostLive(host) {
		return portDrops{}
	}
	ctx, cancel := context.WithTimeout(ctx, dropsTime)
	defer cancel()
	answer := make(chan portDrops, 2)
	go func() {
		defer close(answer)
		drops, f := c.lookAtDrops(ctx, host, p)
		answer <- portDrops{drops, f}
		ofPort := slices.ContainsFunc(drops, func(d Dropped) bool { return d.Counts == countsPort })
		if !ofPort && f.packets == 0 || pause(ctx, secondLook) != nil {
			return
		}
		again, now := c.lookAtDrops(ctx, host, p)
		answer <- portDrops{recently(drops, again), now.since(f)}
	}()
	var last portDrops
	for {
		select {
		case l, more := <-answer:
			if !more {
				return last
			}
			if l.drops != nil {
				last = l
			}
		case <-ctx.Done():
			return last
		}
	}
}

// lookAtDrops reads the counters of a port's switch once.
func (c *Controller) lookAtDrops(ctx context.Context, host string, p *network.Port) ([]Dropped, forged) {
	dump, err := c.Flows(ctx, FlowQuery{Host: host, Bridge: network.BridgeIntegration, Port: p.ID, Why: true})
	if err != nil {
		c.log.Debug("drops of a port are not read", "host", host, "port_id", p.ID, "error", err)
		return nil, forged{}
	}
	drops := dropsIn(dump)
	if len(drops) == 0 {
		return drops, forged{}
	}
	own, err := c.Flows(ctx, FlowQuery{Host: host, Bridge: network.BridgeIntegration, Port: p.ID})
	if err != nil {
		c.log.Debug("flows of a port are not read", "host", host, "port_id", p.ID, "error", err)
		return drops, forged{}
	}
	return drops, forgedIn(own, drops)
}

// recently marks in a later look how much there was not before.
func recently(before, now []Dropped) []Dropped {
	for i, d := range now {
		for _, b := range before {
			if b.TableName == d.TableName && b.Why == d.Why && b.Counts == d.Counts {
				now[i].Recent = new(d.Packets - min(d.Packets, b.Packets))
			}
		}
	}
	return now
}

func dropsIn(dump *FlowDump) (list []Dropped) {
	if dump == nil {
		return nil
	}
	for _, r := range dump.Flows {
		if r.Packets == 0 || r.Drops == "" {
			continue
		}
		same := func(d Dropped) bool { return d.TableName == r.TableName && d.Why == r.Drops && d.Counts == r.Counts }
		i := slices.IndexFunc(list, same)
		if i < 0 {
			i, list = len(list), append(list, Dropped{Host: r.Host, Counts: r.Counts, TableName: r.TableName, Why: r.Drops})
		}
		list[i].Packets += r.Packets
		list[i].Age = max(list[i].Age, r.Age)
	}
	slices.SortFunc(list, func(a, b Dropped) int {
		return cmp.Or(cmp.Compare(b.Counts, a.Counts), cmp.Compare(b.Packets, a.Packets))
	})
	return list[:min(len(list), maxDrops)]
}

// droppedFor says what the security groups of a port did not let pass.
func droppedFor(v *network.View, p *network.Port, drops []Dropped) (found []Finding) {
	groups := groupsInWords(v, p)
	if groups == "" {
		return nil // that it has none is said already
	}
	ways := map[string]string{
		pipeline.DropReasons[pipeline.DropIngressRules]: "to", pipeline.DropReasons[pipeline.DropEgressRules]: "from",
	}
	drops = slices.Clone(drops)
	ended := func(d Dropped) int {
		if d.Recent != nil && *d.Recent == 0 {
			return 1
		}
		return 0
	}
	slices.SortStableFunc(drops, func(a, b Dropped) int { return cmp.Compare(ended(a), ended(b)) })
	for _, d := range drops {
		if ways[d.Why] == "" || d.Counts != countsPort {
			continue
		}
		found = append(found, Finding{
			fmt.Sprintf("%s dropped %s %s it in the last %s: no rule allows them%s", groups, packets(d.Packets), ways[d.Why], time.Duration(d.Age)*time.Second, goesOn(d.Recent)),
			fmt.Sprintf("planck flows %s --port %s --why lists the rules with their packets; planck trace says of one packet which is missing", d.Host, p.ID),
		})
	}
	return found
}

// groupsInWords names the security groups of a port, "" for none.
func groupsInWords(v *network.View, p *network.Port) string {
	names := make([]string, len(p.SecurityGroups))
	for i, id := range p.SecurityGroups {
		names[i] = groupName(v, id)
	}
	switch len(names) {
	case 0:
		return ""
	case 1:
		return "security group " + names[0]
	}
	return "security groups " + strings.Join(names, ", ")
}
