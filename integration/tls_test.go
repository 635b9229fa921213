package integration

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
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// certificates writes those of an authority, a server and a client to a directory:
// ca.pem, server.pem, server.key, client.pem and client.key.
func certificates(tb testing.TB, dir string) {
	tb.Helper()
	now := time.Now()
	var ca *x509.Certificate
	var caKey *ecdsa.PrivateKey
	for i, name := range []string{"ca", "server", "client"} {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			tb.Fatal(err)
		}
		cert := &x509.Certificate{
			SerialNumber: big.NewInt(int64(i + 1)), Subject: pkix.Name{CommonName: name}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour),
			IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		}
		if ca == nil {
			cert.IsCA, cert.BasicConstraintsValid, cert.KeyUsage, cert.ExtKeyUsage = true, true, x509.KeyUsageCertSign, nil
			ca, caKey = cert, key
		}
		der, err := x509.CreateCertificate(rand.Reader, cert, ca, &key.PublicKey, caKey)
		if err != nil {
			tb.Fatal(err)
		}
		secret, err := x509.MarshalECPrivateKey(key)
		if err != nil {
			tb.Fatal(err)
		}
		for file, block := range map[string]*pem.Block{name + ".pem": {Type: "CERTIFICATE", Bytes: der}, name + ".key": {Type: "EC PRIVATE KEY", Bytes: secret}} {
			if err := os.WriteFile(filepath.Join(dir, file), pem.EncodeToMemory(block), 0o600); err != nil {
				tb.Fatal(err)
			}
		}
	}
}

// TestMutualTLS: with the block of docs/security.md, whoever has a seed and no certificate
// is not let in and is told why, and with both in the configuration it is.
func TestMutualTLS(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	certificates(t, dir)
	page, err := os.ReadFile(filepath.Join("..", "docs", "security.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, block, ok := strings.Cut(string(page), "\ntls {\n")
	block, _, closed := strings.Cut(block, "\n}\n")
	if !ok || !closed {
		t.Fatal("docs/security.md shows no block of TLS")
	}
	g := guard(t, "tls {\n"+strings.ReplaceAll(block, "/etc/nats/", dir+"/")+"\n}")
	bin, err := binaries()
	if err != nil {
		t.Fatal(err)
	}
	nodes := func(nats string) (string, error) {
		config := filepath.Join(t.TempDir(), "vramjet.yaml")
		if err := os.WriteFile(config, fmt.Appendf(nil, "nats: {context: %q%s}\n", g.as("operator admin"), nats), 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command(filepath.Join(bin, "vramjet"), "nodes", "--json", "--config", config).CombinedOutput()
		return string(out), err
	}
	ca := fmt.Sprintf(", ca: %q", filepath.Join(dir, "ca.pem"))
	cert := fmt.Sprintf(", cert: %q, key: %q", filepath.Join(dir, "client.pem"), filepath.Join(dir, "client.key"))
	for name, tt := range map[string]struct{ nats, says string }{
		"without trust":         {cert, "(ca)"},
		"without a certificate": {ca, "certificate of the client (cert, key)"},
	} {
		if out, err := nodes(tt.nats); err == nil || !strings.Contains(out, tt.says) || !strings.Contains(out, "connect to NATS at") {
			t.Errorf("%s: %v, it says %q", name, err, out)
		}
	}
	if out, err := nodes(ca + cert); err == nil || !strings.Contains(out, "no node answers") {
		t.Errorf("with a certificate: %v, it says %q", err, out)
	}
}
