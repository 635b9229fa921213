package main

import (
	"net"
	"net/url"

	"github.com/vramjet/vramjet/providers"
)

// localAddr is where on this machine a backend's server may listen, as host:port; ""
// where it has no such address.
func localAddr(b Backend) string {
	u, err := url.Parse(b.URL)
	if err != nil || u.Host == "" || providers.Hosted(b.Kind) {
		return ""
	}
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	return net.JoinHostPort(u.Hostname(), port)
}
