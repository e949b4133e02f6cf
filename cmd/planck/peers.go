package main

import (
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
	// peerTimeout bounds how long another member may take for an answer.
	peerTimeout = 10 * time.Second
	peerDial    = time.Second
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
// the system's or of [ssl] ca_file.
func newPeers(cfg *Config) (*peers, error) {
	transport := &http.Transport{DialContext: (&net.Dialer{Timeout: peerDial}).DialContext, IdleConnTimeout: time.Minute, MaxIdleConnsPerHost: 4}
	p := &peers{client: http.Client{Transport: transport, Timeout: peerTimeout}, scheme: "http"}
	if !cfg.UseSSL {
		return p, nil
	}
	p.scheme = "https"
	roots, err := x509.SystemCertPool()
	if err != nil {
		return nil, fmt.Errorf("authorities of the system: %w", err)
	}
	if cfg.SSLCA != "" {
		pem, err := os.ReadFile(cfg.SSLCA)
		if err != nil {
			return nil, fmt.Errorf("[ssl] authorities: %w", err)
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

// ask passes a question on to a member, and returns its answer as it is.
func (p *peers) ask(r *http.Request, self string, m cluster.Member) (status int, body []byte, err error) {
	target := url.URL{Scheme: p.scheme, Host: m.API, Path: r.URL.Path, RawQuery: r.URL.RawQuery}
	req, err := http.NewRequestWithContext(r.Context(), r.Method, target.String(), nil)
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("X-Auth-Token", r.Header.Get("X-Auth-Token"))
	req.Header.Set(askedBy, self)
	req.Header.Set(asked, m.Name)
	resp, err := p.client.Do(req)
	if err != nil {
		var reason *url.Error // which repeats the address
		if errors.As(err, &reason) {
			err = reason.Err
		}
		return 0, nil, err
	}
	defer resp.Body.Close()
	body, err = io.ReadAll(io.LimitReader(resp.Body, maxPeerAnswer+1))
	if err == nil && len(body) > maxPeerAnswer {
		err = fmt.Errorf("its answer has more than %d bytes", maxPeerAnswer)
	}
	return resp.StatusCode, body, err
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

// askOwner lets the member that programs a host answer a question. When it does
// not, it is to be answered here, and elsewhere says what is missing.
func (p *parts) askOwner(w http.ResponseWriter, r *http.Request, host string) (answered bool, elsewhere string) {
	m, other := p.owner(host)
	if !other || r.Header.Get(askedBy) != "" {
		return false, ""
	}
	status, body, err := p.peers.ask(r, p.cluster.Status().Member, m)
	if err == nil && status >= http.StatusInternalServerError {
		err = fmt.Errorf("it answers %s", http.StatusText(status))
	}
	if err != nil {
		return false, fmt.Sprintf("host %s is programmed by %s: what its switch refuses, and whether it silenced the port, is known there, and it could not be asked (%s: %s)",
			host, m.Name, m.API, err)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(body) // a client that went away is all that can fail
	return true, ""
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
