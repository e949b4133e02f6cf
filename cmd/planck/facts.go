package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"planck/cluster"
	"planck/controller"
	"planck/network"
	"planck/northbound"
)

const (
	factsPath = "/planck/v1/facts"
	// maxFacts is more than any explanation asks for, in bytes.
	maxFacts = 16 << 20
	// factsTimeout is longer than a switch has to tell its counters.
	factsTimeout = 8 * time.Second
)

// factsAPI answers what other members ask about this one's hosts.
func factsAPI(mux *http.ServeMux, p *parts) {
	mux.HandleFunc("POST "+factsPath, func(w http.ResponseWriter, r *http.Request) {
		var facts []controller.Fact
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxFacts)).Decode(&facts); err != nil {
			northbound.WriteError(w, network.Errorf(network.Invalid, "HTTPBadRequest", "the body is no list of facts: %s", err))
			return
		}
		writeJSON(w, factsAnswer{p.controller.Facts(r.Context(), facts)})
	})
}

// factsAnswer has one answer for each fact.
type factsAnswer struct {
	Facts []controller.FactAnswer `json:"facts"`
}

// owners asks the members that program hosts about these, for one request.
type owners struct {
	*parts
	request *http.Request

	mu     sync.Mutex
	silent []silentMember
}

// askOwners is for what a request asks; nil where this member is to say what it
// knows itself.
func (p *parts) askOwners(r *http.Request) (o *owners, ask controller.Elsewhere) {
	o = &owners{parts: p, request: r}
	if p.cluster == nil || isPeer(r) {
		return o, nil
	}
	return o, o.facts
}

// facts asks each owner for those of its hosts, all at once.
func (o *owners) facts(_ context.Context, facts []controller.Fact) map[controller.Fact]controller.FactAnswer {
	byOwner := map[string][]controller.Fact{}
	for _, f := range facts {
		name := o.cluster.OwnerOf(f.Host)
		byOwner[name] = append(byOwner[name], f)
	}
	known := map[controller.Fact]controller.FactAnswer{}
	alive, _ := o.others()
	var asking sync.WaitGroup
	for _, m := range alive {
		if of := byOwner[m.Name]; len(of) > 0 && !o.isSilent(m) {
			asking.Go(func() { o.ask(m, of, known) })
		}
	}
	asking.Wait()
	return known
}

// ask asks one owner.
func (o *owners) ask(m cluster.Member, facts []controller.Fact, known map[controller.Fact]controller.FactAnswer) {
	answers, err := o.answers(m, facts)
	o.mu.Lock()
	defer o.mu.Unlock()
	if err != nil {
		o.silent = append(o.silent, o.parts.silent(m, err.Error()))
		return
	}
	for i, f := range facts {
		known[f] = answers[i]
	}
}

func (o *owners) answers(m cluster.Member, facts []controller.Fact) ([]controller.FactAnswer, error) {
	body, err := json.Marshal(facts)
	if err != nil {
		return nil, err
	}
	a := o.parts.ask(o.request, m, question{method: http.MethodPost, path: factsPath, body: body, patience: factsTimeout})
	if a.err != nil {
		return nil, a.err
	}
	if a.status != http.StatusOK {
		return nil, fmt.Errorf("it answers %d %s", a.status, http.StatusText(a.status))
	}
	var answer factsAnswer
	if err := json.Unmarshal(a.body, &answer); err != nil {
		return nil, fmt.Errorf("its answer can't be read: %w", err)
	}
	if len(answer.Facts) != len(facts) {
		return nil, fmt.Errorf("it answers %d of %d questions", len(answer.Facts), len(facts))
	}
	return answer.Facts, nil
}

// isSilent reports whether a member did not answer before.
func (o *owners) isSilent(m cluster.Member) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.ContainsFunc(o.silent, func(s silentMember) bool { return s.Member == m.Name })
}

// lacks says which members did not answer, and what is not known because of that; "" for none.
func (o *owners) lacks() string {
	texts := make([]string, len(o.silent))
	for i := range o.silent {
		texts[i] = o.silent[i].lacks("what switches refuse and whom they silenced")
	}
	return strings.Join(texts, "\n")
}
