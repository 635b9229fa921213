package providers

import (
	"net/http"
	"time"
)

// ClassifyForTest classifies what a server said.
func ClassifyForTest(status int, header http.Header, body []byte) error {
	return classify(status, header, body, time.Now())
}

// ClientForTest returns a client as providers make their own, and what closes its
// idle connections.
func ClientForTest() (*http.Client, func()) {
	tr := newTransport(0)
	return &http.Client{Transport: tr}, tr.CloseIdleConnections
}
