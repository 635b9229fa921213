package providers

import (
	"net/http"
	"testing"
	"time"
)

func TestPageText(t *testing.T) {
	for body, want := range map[string]string{
		"<!DOCTYPE HTML>\n<html lang=\"en\">\n <head><title>Error response</title><style>p { margin: 0 }</style></head>\n <body><h1>Error response</h1>\n <p>Error code: <b>501</b> &mdash; no POST</p></body></html>\n": "Error response Error code: 501 — no POST",
		"<html><head><title>502 Bad Gateway</title></head><body></body></html>": "502 Bad Gateway",
		"<html><p>broken off in a <a hre":                                       "broken off in a",
		"<html></html>":                                                         "status 502 Bad Gateway, without a word",
		"<p>no page":                                                            "<p>no page",
	} {
		if got := classify(http.StatusBadGateway, nil, []byte(body), time.Time{}).Message; got != want {
			t.Errorf("%s\ngot  %q\nwant %q", body, got, want)
		}
	}
}
