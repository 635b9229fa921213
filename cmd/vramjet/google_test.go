package main

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A request to Vertex AI carries a token of the service account whose key is where
// Google's own programs look first; one token serves several requests.
func TestGoogleSigner(t *testing.T) {
	asked := 0
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked++
		if r.FormValue("assertion") == "" {
			t.Error("nothing was asserted")
		}
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"access_token":"token-%d","token_type":"Bearer","expires_in":3600}`, asked)
	}))
	defer srv.Close()
	defer http.DefaultClient.CloseIdleConnections()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	secret := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})
	account, err := json.Marshal(map[string]string{
		"type": "service_account", "client_email": "a@b", "private_key_id": "1", "private_key": string(secret), "token_uri": srv.URL,
	})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "account.json")
	t.Setenv("GOOGLE_APPLICATION_CREDENTIALS", file)
	sign := googleSigner()
	r := httptest.NewRequest(http.MethodPost, "https://us-central1-aiplatform.googleapis.com/", nil)
	if err := sign(r, nil); err == nil || !strings.Contains(err.Error(), "account.json") {
		t.Errorf("without credentials: %v", err)
	}
	if err := os.WriteFile(file, account, 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 { // they came in the meantime
		if err := sign(r, nil); err != nil || r.Header.Get("Authorization") != "Bearer token-1" {
			t.Errorf("%q, %v", r.Header.Get("Authorization"), err)
		}
	}
	if asked != 1 {
		t.Errorf("%d tokens were asked for", asked)
	}
}
