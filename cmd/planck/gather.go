package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"

	"planck/cluster"
)

// silentMember is another member of the cluster that did not say its part of an answer.
type silentMember struct {
	Member  string   `json:"member"`
	API     string   `json:"api"`
	Hosts   []string `json:"hosts"` // that it programs
	Problem string   `json:"problem"`
}

// lacks says what may be missing, because a member does not answer.
func (s *silentMember) lacks(what string) string {
	text := fmt.Sprintf("%s may be missing: member %s (%s) could not be asked: %s", what, s.Member, s.API, s.Problem)
	if len(s.Hosts) > 0 {
		text += "; it programs " + strings.Join(s.Hosts, ", ")
	}
	return text
}

// isPeer reports whether a request is a question of another member, which is to
// be answered from what is known here.
func isPeer(r *http.Request) bool { return r.Header.Get(askedBy) != "" }

// others are the other members of the cluster that live, and the dead ones.
func (p *parts) others() (alive, dead []cluster.Member) {
	if p.cluster == nil {
		return nil, nil
	}
	status := p.cluster.Status()
	for _, m := range status.Members {
		switch {
		case m.Name == status.Member:
		case m.Alive:
			alive = append(alive, m)
		default:
			dead = append(dead, m)
		}
	}
	return alive, dead
}

// gather asks members, all at once.
func (p *parts) gather(r *http.Request, q question, members []cluster.Member) []peerAnswer {
	answers := make([]peerAnswer, len(members))
	var asking sync.WaitGroup
	for i, m := range members {
		asking.Go(func() { answers[i] = p.ask(r, m, q) })
	}
	asking.Wait()
	return answers
}

// gatherAll asks all other members what a request asks this one, and calls take
// with the answer of each. It returns those of which there is none.
func (p *parts) gatherAll(r *http.Request, take func(cluster.Member, []byte) error) []silentMember {
	silent := []silentMember{}
	if isPeer(r) {
		return silent
	}
	alive, dead := p.others()
	for _, a := range p.gather(r, passedOn(r, gatherTimeout), alive) {
		switch {
		case a.err != nil || a.status == http.StatusNotFound: // it knows nothing of it
		case a.status != http.StatusOK:
			a.err = fmt.Errorf("it answers %d %s", a.status, http.StatusText(a.status))
		default:
			a.err = take(a.member, a.body)
		}
		if a.err != nil {
			silent = append(silent, p.silent(a.member, a.err.Error()))
		}
	}
	for _, m := range dead {
		silent = append(silent, p.silent(m, "it is dead"))
	}
	return silent
}

func (p *parts) silent(m cluster.Member, problem string) silentMember {
	s := silentMember{Member: m.Name, API: m.API, Hosts: []string{}, Problem: problem}
	for _, h := range p.controller.HostNames() {
		if p.cluster.OwnerOf(h) == m.Name {
			s.Hosts = append(s.Hosts, h)
		}
	}
	return s
}

// decoded calls take with an answer that is JSON.
func decoded[T any](take func(cluster.Member, *T)) func(cluster.Member, []byte) error {
	return func(m cluster.Member, body []byte) error {
		answer := new(T)
		if err := json.Unmarshal(body, answer); err != nil {
			return fmt.Errorf("its answer can't be read: %w", err)
		}
		take(m, answer)
		return nil
	}
}
