package kube

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"time"
)

// pki signs the certificates of a cluster. Its keys live as long as the cluster.
type pki struct {
	ca    *x509.Certificate
	caPEM []byte
	key   *ecdsa.PrivateKey
}

// pair is a certificate with its key, both in PEM.
type pair struct{ cert, key []byte }

// newPKI makes an authority.
func newPKI() (*pki, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	about := template(pkix.Name{CommonName: "unmasq-test-ca"})
	about.IsCA, about.BasicConstraintsValid = true, true
	about.KeyUsage |= x509.KeyUsageCertSign
	der, err := x509.CreateCertificate(rand.Reader, about, about, key.Public(), key)
	if err != nil {
		return nil, err
	}
	ca, err := x509.ParseCertificate(der)
	return &pki{ca: ca, key: key, caPEM: pemOf("CERTIFICATE", der)}, err
}

func template(name pkix.Name) *x509.Certificate {
	return &x509.Certificate{
		Subject:   name,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(30 * 24 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature,
	}
}

// client certifies a user as Kubernetes reads certificates.
func (p *pki) client(user string, groups ...string) (pair, error) {
	about := template(pkix.Name{CommonName: user, Organization: groups})
	about.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	return p.sign(about)
}

// server certifies a server's names and addresses.
func (p *pki) server(names []string, addresses ...netip.Addr) (pair, error) {
	about := template(pkix.Name{CommonName: names[0]})
	about.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	about.DNSNames = names
	for _, a := range addresses {
		about.IPAddresses = append(about.IPAddresses, net.IP(a.AsSlice()))
	}
	return p.sign(about)
}

func (p *pki) sign(about *x509.Certificate) (pair, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return pair{}, err
	}
	der, err := x509.CreateCertificate(rand.Reader, about, p.ca, key.Public(), p.key)
	if err != nil {
		return pair{}, err
	}
	text, err := privatePEM(key)
	return pair{pemOf("CERTIFICATE", der), text}, err
}

// write a pair as NAME.crt and NAME.key.
func (p pair) write(dir, name string) error {
	if err := os.WriteFile(filepath.Join(dir, name+".crt"), p.cert, 0o600); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, name+".key"), p.key, 0o600)
}

// writeTokenKeys makes the keys that tokens of service accounts are signed with,
// and checked.
func writeTokenKeys(dir string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	private, err := privatePEM(key)
	if err != nil {
		return err
	}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "sa.pub"), pemOf("PUBLIC KEY", public), 0o600); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "sa.key"), private, 0o600)
}

func privatePEM(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalECPrivateKey(key)
	return pemOf("EC PRIVATE KEY", der), err
}

func pemOf(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}
