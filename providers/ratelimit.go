package providers

import (
	"net/http"
	"strconv"
	"strings"
	"time"
)

// limits are the headers in which hosted APIs say how many requests and tokens a
// key has left, and when it has more again.
var limits = []struct{ remaining, reset string }{
	{"X-Ratelimit-Remaining-Requests", "X-Ratelimit-Reset-Requests"}, // OpenAI and those that do as it does
	{"X-Ratelimit-Remaining-Tokens", "X-Ratelimit-Reset-Tokens"},
	{"Anthropic-Ratelimit-Requests-Remaining", "Anthropic-Ratelimit-Requests-Reset"},
	{"Anthropic-Ratelimit-Input-Tokens-Remaining", "Anthropic-Ratelimit-Input-Tokens-Reset"},
	{"Anthropic-Ratelimit-Output-Tokens-Remaining", "Anthropic-Ratelimit-Output-Tokens-Reset"},
	{"Anthropic-Ratelimit-Tokens-Remaining", "Anthropic-Ratelimit-Tokens-Reset"},
	{"X-Ratelimit-Remaining", "X-Ratelimit-Reset"}, // OpenRouter, Together
}

// usedUp returns for how long a key has nothing left, by the headers of an answer;
// 0: it has something left, or the server does not tell.
func usedUp(h http.Header, now time.Time) time.Duration {
	var rest time.Duration
	for _, l := range limits {
		if h.Get(l.remaining) == "0" {
			rest = max(rest, resetIn(h.Get(l.reset), now))
		}
	}
	return rest
}

// resetIn reads a time in any of the forms that are in use: a duration (6m0s,
// 20ms), seconds, a date (RFC 3339), seconds or milliseconds since 1970.
func resetIn(value string, now time.Time) time.Duration {
	value = strings.TrimSpace(value)
	if n, err := strconv.ParseFloat(value, 64); err == nil {
		switch {
		case n > 1e11:
			n = n/1000 - float64(now.UnixMilli())/1000
		case n > 1e8:
			n -= float64(now.UnixMilli()) / 1000
		}
		return seconds(n)
	}
	if d, err := time.ParseDuration(value); err == nil {
		return seconds(d.Seconds())
	}
	if at, err := time.Parse(time.RFC3339, value); err == nil {
		return seconds(at.Sub(now).Seconds())
	}
	return 0
}
