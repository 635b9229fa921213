package broker_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/vramjet/vramjet/broker"
	"github.com/vramjet/vramjet/broker/brokertest"
	"github.com/vramjet/vramjet/broker/embedded"
)

// authority makes certificates for a test.
type authority struct {
	*testing.T
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{T: t, dir: t.TempDir()}
	a.cert, a.key = a.issue("ca", &x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign})
	return a
}

// issue writes name.pem and name.key.
func (a *authority) issue(name string, template *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey) {
	a.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.Fatal(err)
	}
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	template.Subject = pkix.Name{CommonName: name}
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		a.Fatal(err)
	}
	secret, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		a.Fatal(err)
	}
	a.write(name+".pem", "CERTIFICATE", der)
	a.write(name+".key", "EC PRIVATE KEY", secret)
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		a.Fatal(err)
	}
	return cert, key
}

func (a *authority) write(name, kind string, der []byte) {
	a.Helper()
	if err := os.WriteFile(a.path(name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		a.Fatal(err)
	}
}

func (a *authority) path(name string) string { return filepath.Join(a.dir, name) }

// TestConnectTLS: a server that asks for a certificate is reached with one, and
// neither without one nor by who does not trust it.
func TestConnectTLS(t *testing.T) {
	a := newAuthority(t)
	a.issue("server", &x509.Certificate{IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
	a.issue("client", &x509.Certificate{ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	pair, err := tls.LoadX509KeyPair(a.path("server.pem"), a.path("server.key"))
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	srv := brokertest.StartServer(t, embedded.Config{Base: &server.Options{
		TLS:       true,
		TLSVerify: true,
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{pair}, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert, MinVersion: tls.VersionTLS12},
	}})
	url := srv.ClientURL()
	for name, tt := range map[string]struct {
		cfg broker.ConnectConfig
		ok  bool
	}{
		"with a certificate": {broker.ConnectConfig{URL: url, CA: a.path("ca.pem"), Cert: a.path("client.pem"), Key: a.path("client.key")}, true},
		"without one":        {broker.ConnectConfig{URL: url, CA: a.path("ca.pem")}, false},
		"without trust":      {broker.ConnectConfig{URL: url, Cert: a.path("client.pem"), Key: a.path("client.key")}, false},
		"a file that isn't there": {
			broker.ConnectConfig{URL: url, CA: a.path("nowhere.pem"), Cert: a.path("client.pem"), Key: a.path("client.key")}, false,
		},
	} {
		t.Run(name, func(t *testing.T) {
			nc, err := broker.Connect(t.Context(), tt.cfg, brokertest.Log(t))
			if (err == nil) != tt.ok {
				t.Fatalf("Connect: %v", err)
			}
			if err != nil {
				if !strings.Contains(err.Error(), "127.0.0.1") && !strings.Contains(err.Error(), "nowhere.pem") {
					t.Errorf("the error names neither the server nor the file: %v", err)
				}
				return
			}
			defer nc.Close()
			if _, err := nc.TLSConnectionState(); err != nil {
				t.Errorf("the connection has no TLS: %v", err)
			}
		})
	}
}
