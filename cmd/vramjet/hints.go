package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"syscall"

	"github.com/vramjet/vramjet/providers"
	"github.com/vramjet/vramjet/schemas"
)

// A cause is what happened, where there is something to do about it.
type cause string

// The causes. Programs may rely on the words.
const (
	causeRefused      cause = "connection_refused"
	causeUnknownHost  cause = "unknown_host"
	causeNoRoute      cause = "no_route"
	causeTimeout      cause = "timeout"
	causeSilent       cause = "silent" // connected, and then nothing
	causeTLSNeeded    cause = "tls_needed"
	causeTLSUnwanted  cause = "tls_unwanted"
	causeCertificate  cause = "bad_certificate"
	causeBroken       cause = "connection_broken"
	causeRedirected   cause = "redirected"
	causeWrongPath    cause = "wrong_path"
	causeWrongKind    cause = "wrong_kind"
	causeUnknownKind  cause = "unknown_kind"
	causeKeyMissing   cause = "key_missing"
	causeKeyRefused   cause = "key_refused"
	causeKeyForbidden cause = "key_forbidden"

	causeNoModels      cause = "no_models"
	causeNoMatch       cause = "no_match"
	causeSmallContext  cause = "small_context"
	causeSlotsUnknown  cause = "slots_unknown"
	causeMetricsOff    cause = "metrics_off"
	causeSlotsOff      cause = "slots_off"
	causeRouterLoads   cause = "router_loads"
	causeSwapTTL       cause = "swap_ttl"
	causeSwapDecorates cause = "swap_loading_state"

	causeModelNotFound   cause = "model_not_found"
	causeLoading         cause = "model_not_loaded"
	causeContextOverflow cause = "context_overflow"
	causeOutOfMemory     cause = "out_of_memory"
	causeQuota           cause = "quota_exhausted"
	causeRateLimited     cause = "rate_limited"
	causeOverloaded      cause = "overloaded"
	causeCutOff          cause = "cut_off"
	causeUnsupported     cause = "unsupported"
	causeServerError     cause = "server_error"
	causeSlow            cause = "slow"
	causeSlowStart       cause = "slow_start"
)

// causes are what the codes of errors mean to who looks for their cause.
var causes = map[schemas.Code]cause{
	schemas.Unreachable: causeBroken, schemas.Auth: causeKeyRefused, schemas.Permission: causeKeyForbidden,
	schemas.ModelNotFound: causeModelNotFound, schemas.ModelLoading: causeLoading, schemas.ContextOverflow: causeContextOverflow,
	schemas.OutOfMemory: causeOutOfMemory, schemas.QuotaExhausted: causeQuota, schemas.RateLimited: causeRateLimited,
	schemas.Overloaded: causeOverloaded, schemas.StreamBroken: causeCutOff, schemas.Unsupported: causeUnsupported,
	schemas.Deadline: causeSilent,
}

// causeOf returns what an error of a provider means; "" without one.
func causeOf(err error) cause {
	if err == nil {
		return ""
	}
	if c, ok := causes[schemas.AsError(err).Code]; ok {
		return c
	}
	return causeServerError
}

// connectCause returns why no connection came about, or no answer; "" without an
// error.
func connectCause(err error) cause {
	var dns *net.DNSError
	var record tls.RecordHeaderError
	var cert *tls.CertificateVerificationError
	var timeout net.Error
	switch {
	case err == nil:
		return ""
	case errors.As(err, &dns):
		return causeUnknownHost
	case errors.Is(err, syscall.ECONNREFUSED):
		return causeRefused
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return causeNoRoute
	case errors.Is(err, http.ErrSchemeMismatch), errors.As(err, &record):
		return causeTLSUnwanted
	case errors.As(err, &cert), errors.As(err, new(x509.HostnameError)), errors.As(err, new(x509.UnknownAuthorityError)):
		return causeCertificate
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return causeTimeout
	default:
		return causeBroken
	}
}

// connectText says why there is no connection. The error's own text may hold the
// URL.
func connectText(c cause, err error) string {
	switch c { //nolint:exhaustive // the others say best themselves what they are
	case causeRefused:
		return "the connection was refused: nobody listens there"
	case causeTimeout:
		return "no connection in time"
	case causeSilent:
		return "connected, but no answer came"
	case causeTLSUnwanted:
		return "the server speaks no TLS, and the url says https"
	}
	if wrapped, ok := errors.AsType[*url.Error](err); ok {
		err = wrapped.Err
	}
	return err.Error()
}

// A hint says how to fix something.
type hint struct {
	Cause cause  `json:"cause"`
	Text  string `json:"text"`
}

// A situation is what hints are made of, beside the findings.
type situation struct {
	kind       string   // as configured, else as found out; "": not known
	at         *url.URL // where the server should be
	hosted     bool
	container  bool // we are in one
	keys       []string
	neighbours []neighbour // what else answers on that host
}

// A neighbour is another server on a host. Its kind is "" where it is no model
// server that is known.
type neighbour struct{ kind, url string }

// hints returns how to fix what was found, each once.
func hints(s *situation, findings []finding) []hint {
	found := []hint{}
	for i := range findings {
		advise, ok := advice[findings[i].Cause]
		if !ok {
			continue
		}
		for _, text := range advise(s, &findings[i]) {
			if h := (hint{findings[i].Cause, text}); !slices.Contains(found, h) {
				found = append(found, h)
			}
		}
	}
	return found
}

// nearestOf returns the candidate that is nearest to each of the words, or for
// each word that is near to none the first few candidates.
func nearestOf(words, candidates []string) []string {
	var found []string
	for _, w := range words {
		near, ok := nearest(w, candidates)
		if !ok {
			near, ok = nearest(strings.Trim(w, "*"), bases(candidates))
			if i := slices.Index(bases(candidates), near); ok {
				near = candidates[i]
			}
		}
		if ok && !slices.Contains(found, near) {
			found = append(found, near)
		}
	}
	if found == nil {
		found = slices.Clone(candidates[:min(3, len(candidates))])
	}
	return found
}

// bases are names without their tags and whatever stands before a slash.
func bases(names []string) []string {
	short := make([]string, len(names))
	for i, n := range names {
		n = n[strings.LastIndexByte(n, '/')+1:]
		short[i], _, _ = strings.Cut(n, ":")
	}
	return short
}

// manual returns what is known about the kind of server; of one that nobody knows,
// what its port says. What is not known is said in general.
func (s *situation) manual() manual {
	m := manuals[s.kind]
	if s.kind == "" {
		for _, kind := range providers.Kinds() {
			if slices.Contains(manuals[kind].ports, s.at.Port()) {
				m = manuals[kind]
				break
			}
		}
	}
	pull := "as its documentation says"
	if s.hosted {
		pull = "see at the provider which ones the key may use"
	}
	m.name, m.listen = cmp.Or(m.name, "the server"), cmp.Or(m.listen, "on 0.0.0.0")
	m.pull, m.context = cmp.Or(m.pull, pull), cmp.Or(m.context, "its settings say how long it is")
	m.layers = cmp.Or(m.layers, "its log says which device it uses")
	return m
}
