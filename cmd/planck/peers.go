package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"time"

	"planck/cluster"
	"planck/network"
	"planck/northbound"
)

const (
	// askedBy is on a question that another member of the cluster passes on, with its name.
	askedBy = "X-Planck-Asked-By"
	// asked is the name of the member that it is for.
	asked = "X-Planck-Asked"
	// peerTimeout bounds how long another member may take for an answer that it
	// alone can give, gatherTimeout for its part of one.
	peerTimeout   = 30 * time.Second
	gatherTimeout = 5 * time.Second
	peerDial      = time.Second
	// maxPeerAnswer is that of the largest answer that is passed on, in bytes.
	maxPeerAnswer = 16 << 20
)

// peers are the APIs of the other members of the cluster.
type peers struct {
	client http.Client
	scheme string
}

// newPeers speaks to members whose API is configured as this one's: with TLS
// their certificates must name their addresses, and be signed by an authority of
// the system's, or of [cluster] ca_file or [ssl] ca_file.
func newPeers(cfg *Config) (*peers, error) {
	transport := &http.Transport{DialContext: (&net.Dialer{Timeout: peerDial}).DialContext, IdleConnTimeout: time.Minute, MaxIdleConnsPerHost: 4}
	p := &peers{client: http.Client{Transport: transport}, scheme: "http"}
	if !cfg.UseSSL {
		return p, nil
	}
	p.scheme = "https"
	roots, err := x509.SystemCertPool()
	if err != nil {
		return nil, fmt.Errorf("authorities of the system: %w", err)
	}
	if ca := cmp.Or(cfg.MembersCA, cfg.SSLCA); ca != "" {
		pem, err := os.ReadFile(ca)
		if err != nil {
			return nil, fmt.Errorf("authorities of members: %w", err)
		}
		roots.AppendCertsFromPEM(pem)
	}
	own, err := tls.LoadX509KeyPair(cfg.SSLCert, cfg.SSLKey)
	if err != nil {
		return nil, fmt.Errorf("[ssl] certificate and key: %w", err)
	}
	transport.TLSClientConfig = &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{own}, MinVersion: tls.VersionTLS12}
	return p, nil
}

// question is what another member is asked; its answer may take a time.
type question struct {
	method, path string
	query        url.Values
	body         []byte
	patience     time.Duration
}

// passedOn is a request as a question.
func passedOn(r *http.Request, patience time.Duration) question {
	return question{method: r.Method, path: r.URL.Path, query: r.URL.Query(), patience: patience}
}

// peerAnswer is what a member answered, as it is.
type peerAnswer struct {
	member cluster.Member
	status int
	body   []byte
	err    error // it did not answer
}

// ask asks a member as who sent r, until ctx ends.
func (p *peers) ask(ctx context.Context, r *http.Request, self string, m cluster.Member, q question) peerAnswer {
	ctx, cancel := context.WithTimeoutCause(ctx, q.patience, fmt.Errorf("no answer within %v", q.patience))
	defer cancel()
	a := peerAnswer{member: m}
	target := url.URL{Scheme: p.scheme, Host: m.API, Path: q.path, RawQuery: q.query.Encode()}
	req, err := http.NewRequestWithContext(ctx, q.method, target.String(), bytes.NewReader(q.body))
	if err != nil {
		a.err = err
		return a
	}
	req.Header.Set("X-Auth-Token", r.Header.Get("X-Auth-Token"))
	req.Header.Set(askedBy, self)
	req.Header.Set(asked, m.Name)
	resp, err := p.client.Do(req)
	if err != nil {
		a.err = peerError(ctx, err)
		return a
	}
	defer resp.Body.Close()
	a.status = resp.StatusCode
	a.body, err = io.ReadAll(io.LimitReader(resp.Body, maxPeerAnswer+1))
	switch {
	case err != nil:
		a.err = peerError(ctx, err)
	case len(a.body) > maxPeerAnswer:
		a.err = fmt.Errorf("its answer has more than %d bytes", maxPeerAnswer)
	case a.status >= http.StatusInternalServerError:
		a.err = fmt.Errorf("it answers %s", http.StatusText(a.status))
	}
	return a
}

// peerError is why a member did not answer, in words.
func peerError(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	var reason *url.Error // which repeats the address
	if errors.As(err, &reason) {
		err = reason.Err
	}
	return err
}

// errDied ends questions to a member that is not alive any more.
var errDied = errors.New("it died, or was stopped, while it was asked")

// ask asks another member as who sent r, while it lives.
func (p *parts) ask(r *http.Request, m cluster.Member, q question) peerAnswer {
	ctx, cancel := context.WithCancelCause(r.Context())
	defer cancel(nil)
	go func() {
		for {
			changed := p.cluster.Changed()
			if !p.lives(m.Name) {
				cancel(errDied)
			}
			select {
			case <-changed:
			case <-ctx.Done():
				return
			}
		}
	}()
	return p.peers.ask(ctx, r, p.cluster.Status().Member, m, q)
}

// lives reports whether a member is alive.
func (p *parts) lives(name string) bool {
	return slices.ContainsFunc(p.cluster.Status().Members, func(m cluster.Member) bool { return m.Name == name && m.Alive })
}

// owner is the other member that programs a host, and so knows what its switch
// refused and whom it silenced.
func (p *parts) owner(host string) (m cluster.Member, other bool) {
	if p.cluster == nil || host == "" {
		return m, false
	}
	status, name := p.cluster.Status(), p.cluster.OwnerOf(host)
	for _, m := range status.Members {
		if m.Name == name && name != status.Member {
			return m, true
		}
	}
	return m, false
}

// askOwner lets the member that programs a host answer a question, which may take
// a time. When it does not, it is to be answered here, and lacks says why.
func (p *parts) askOwner(w http.ResponseWriter, r *http.Request, host string, patience time.Duration) (answered bool, lacks string) {
	if isPeer(r) {
		return false, ""
	}
	for before := ""; ; {
		m, other := p.owner(host)
		switch {
		case !other:
			return false, ""
		case m.Name == before: // nobody has taken over from it
			return false, lacks
		}
		err := p.askMember(w, r, m, patience)
		if err == nil {
			return true, ""
		}
		before, lacks = m.Name, fmt.Sprintf("host %s is programmed by member %s (%s), which could not be asked: %s", host, m.Name, m.API, err)
	}
}

// readElsewhere lets the owner of the first of some hosts that is not connected
// here answer a question.
func (p *parts) readElsewhere(w http.ResponseWriter, r *http.Request, hosts []string, patience time.Duration) (answered bool) {
	for _, host := range hosts {
		if _, other := p.owner(host); other && !p.controller.Reads(host) {
			answered, _ = p.askOwner(w, r, host, patience)
			return answered
		}
	}
	return false
}

// askMember lets another member answer a question; the error says why it did not.
func (p *parts) askMember(w http.ResponseWriter, r *http.Request, m cluster.Member, patience time.Duration) error {
	answer := p.ask(r, m, passedOn(r, patience))
	if answer.err != nil {
		return answer.err
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(answer.status)
	_, _ = w.Write(answer.body) // a client that went away is all that can fail
	return nil
}

// forAnother refuses a question that is for another member: the address that
// one advertises leads here.
func (p *parts) forAnother(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name := r.Header.Get(asked)
		if name != "" && (p.cluster == nil || p.cluster.Status().Member != name) {
			northbound.WriteError(w, network.Errorf(network.Unavailable, "ServiceUnavailable", "this is not member %s of the cluster: [cluster] advertise of that one leads here", name))
			return
		}
		next.ServeHTTP(w, r)
	})
}

// apiAddress is where other members and operators reach this member's API: what
// is configured, or else by where it listens, and for every address the one by
// which it reaches the database.
func apiAddress(cfg *Config, listening net.Addr) string {
	host, port, err := net.SplitHostPort(listening.String())
	if err != nil {
		return listening.String()
	}
	if cfg.ClusterAdvertise != "" {
		return net.JoinHostPort(string(cfg.ClusterAdvertise), port)
	}
	if !net.ParseIP(host).IsUnspecified() {
		return listening.String()
	}
	if cfg.Advertise != "" {
		return net.JoinHostPort(string(cfg.Advertise), port)
	}
	return net.JoinHostPort(localAddress(string(cfg.Database)), port)
}

// localAddress is this machine's on the way to a database, and its name where
// that is on the machine itself.
func localAddress(dsn string) string {
	ctx, cancel := context.WithTimeout(context.Background(), peerDial)
	defer cancel()
	if local := wayTo(ctx, dsn); local != nil && !local.IsLoopback() {
		return local.String()
	}
	name, err := os.Hostname()
	if err != nil {
		return "127.0.0.1"
	}
	if _, err := net.DefaultResolver.LookupHost(ctx, name); err != nil {
		return "127.0.0.1"
	}
	return name
}

// wayTo is the address from which a database is reached, nil for one that has
// a socket on this machine.
func wayTo(ctx context.Context, dsn string) net.IP {
	u, err := url.Parse(dsn)
	if err != nil || u.Hostname() == "" {
		return nil
	}
	// No packet is sent for that: UDP has no connections.
	conn, err := new(net.Dialer).DialContext(ctx, "udp", net.JoinHostPort(u.Hostname(), cmp.Or(u.Port(), "5432")))
	if err != nil {
		return nil
	}
	defer conn.Close()
	return conn.LocalAddr().(*net.UDPAddr).IP
}
