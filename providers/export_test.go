package providers

import (
	"net/http"
)

// ClientForTest returns a client as providers make their own, and what closes its
// idle connections.
func ClientForTest() (*http.Client, func()) {
	tr := newTransport(0)
	return &http.Client{Transport: tr}, tr.CloseIdleConnections
}
