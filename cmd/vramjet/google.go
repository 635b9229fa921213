package main

import (
	"context"
	"net/http"
	"sync"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/google"
)

// googleScope is what Vertex AI asks a token to be good for.
const googleScope = "https://www.googleapis.com/auth/cloud-platform"

// googleSigner signs requests with Google's application default credentials: those
// of $GOOGLE_APPLICATION_CREDENTIALS, of gcloud, or of the machine. They are looked
// for when the first request is made, and tokens are renewed before they expire.
func googleSigner() func(r *http.Request, body []byte) error {
	var mu sync.Mutex // guards tokens
	var tokens oauth2.TokenSource
	return func(r *http.Request, _ []byte) error {
		mu.Lock()
		defer mu.Unlock()
		if tokens == nil {
			ctx := context.WithValue(context.WithoutCancel(r.Context()), oauth2.HTTPClient, &http.Client{Timeout: 10 * time.Second})
			found, err := google.FindDefaultCredentials(ctx, googleScope)
			if err != nil {
				return err
			}
			tokens = found.TokenSource
		}
		token, err := tokens.Token()
		if err != nil {
			return err
		}
		token.SetAuthHeader(r)
		return nil
	}
}
