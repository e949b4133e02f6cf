package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"planck/test/lab"
)

// authority signs certificates.
type authority struct {
	t    *testing.T
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// credentials are the files that a program needs to speak TLS.
type credentials struct{ cert, key, ca string }

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t, dir: t.TempDir()}
	template := &x509.Certificate{Subject: pkix.Name{CommonName: "ca"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	a.key = a.newKey("ca")
	a.cert = template
	a.cert = a.sign(template, a.key, "ca")
	return a
}

func (a *authority) file(name string) string { return filepath.Join(a.dir, name+".pem") }

func (a *authority) newKey(name string) *ecdsa.PrivateKey {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	a.write(name+"-key", "PRIVATE KEY", der)
	return key
}

func (a *authority) sign(template *x509.Certificate, key *ecdsa.PrivateKey, name string) *x509.Certificate {
	a.t.Helper()
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	a.write(name, "CERTIFICATE", der)
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return cert
}

func (a *authority) write(name, kind string, der []byte) {
	a.t.Helper()
	if err := os.WriteFile(a.file(name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		a.t.Fatal(err)
	}
}

// issue makes the certificate of a program.
func (a *authority) issue(name string) credentials {
	a.t.Helper()
	key := a.newKey(name)
	a.sign(&x509.Certificate{
		Subject: pkix.Name{CommonName: name}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		DNSNames:    []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}, key, name)
	return credentials{cert: a.file(name), key: a.file(name + "-key"), ca: a.file("ca")}
}

// TestOnlyHostsWithACertificateJoin tells docs/operations.md's chapter on TLS.
func TestOnlyHostsWithACertificateJoin(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	own := ca.issue("controller")
	c := newController(t, fmt.Sprintf("[openflow]\ncert = %s\nkey = %s\nca = %s\n", own.cert, own.key, own.ca))
	c.lab = lab.ForTest(t, lab.Options{Hosts: 3})
	ssl := strings.Replace(c.ovsdb, "tcp:", "ssl:", 1)
	member, stranger := ca.issue("host1"), newAuthority(t).issue("host2")
	// The stranger trusts the controller; it is the controller that must not trust it.
	for host, of := range map[string]credentials{"host1": member, "host2": {stranger.cert, stranger.key, own.ca}} {
		c.vsctl(host, "--no-wait", "set-ssl", of.key, of.cert, of.ca)
	}
	for host, target := range map[string]string{"host1": ssl, "host2": ssl, "host3": c.ovsdb} {
		if err := c.lab.Host(host).SetManager(target); err != nil {
			t.Fatal(err)
		}
	}
	network := c.network("blue", "10.0.0.0/24", nil)
	a, b := c.boot("a", "host1", network, nil), c.boot("b", "host1", network, nil)
	c.dhcp(a)
	c.dhcp(b)
	c.reaches(a.Node, b.ip())
	for bridge := range strings.FieldsSeq("br-int br-tun br-ex") {
		if target := c.vsctl("host1", "get-controller", bridge); !strings.HasPrefix(target, "ssl:") {
			t.Errorf("%s is controlled by %s", bridge, target)
		}
	}
	for _, host := range []string{"host2", "host3"} {
		c.eventually(host+" was turned away", func() error {
			status := c.vsctl(host, "--no-wait", "get", "Manager", ".", "status")
			if !strings.Contains(status, "sec_since_disconnect=") {
				return fmt.Errorf("its manager is %s", status)
			}
			return nil
		})
		if c.hostState(host, "") != nil {
			t.Errorf("%s has joined", host)
		}
		if out := c.vsctl(host, "--no-wait", "list-br"); strings.Contains(out, "br-int") {
			t.Errorf("%s has br-int", host)
		}
	}
}
