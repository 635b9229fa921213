package providers

import (
	"net/http"
	"strconv"
	"testing"
	"time"
)

func TestUsedUp(t *testing.T) {
	now := time.Date(2025, 8, 21, 12, 40, 0, 0, time.UTC)
	// What Anthropic sent with an answer that went well.
	recorded := map[string]string{
		"anthropic-ratelimit-input-tokens-limit": "80000", "anthropic-ratelimit-input-tokens-remaining": "80000", "anthropic-ratelimit-input-tokens-reset": "2025-08-21T12:40:59Z",
		"anthropic-ratelimit-output-tokens-limit": "16000", "anthropic-ratelimit-output-tokens-remaining": "16000", "anthropic-ratelimit-output-tokens-reset": "2025-08-21T12:41:00Z",
		"anthropic-ratelimit-requests-limit": "1000", "anthropic-ratelimit-requests-remaining": "999", "anthropic-ratelimit-requests-reset": "2025-08-21T12:40:58Z",
		"anthropic-ratelimit-tokens-limit": "96000", "anthropic-ratelimit-tokens-remaining": "96000", "anthropic-ratelimit-tokens-reset": "2025-08-21T12:40:57Z",
	}
	for _, c := range []struct {
		name    string
		changed map[string]string
		want    time.Duration
	}{
		{"all there", nil, 0},
		{"no requests left", map[string]string{"anthropic-ratelimit-requests-remaining": "0"}, 58 * time.Second},
		{"no input tokens left", map[string]string{"anthropic-ratelimit-input-tokens-remaining": "0"}, 59 * time.Second},
		{"no output tokens left", map[string]string{"anthropic-ratelimit-output-tokens-remaining": "0"}, time.Minute},
		{"no tokens left", map[string]string{"anthropic-ratelimit-tokens-remaining": "0"}, 57 * time.Second},
		{"two used up: the longer one", map[string]string{"anthropic-ratelimit-requests-remaining": "0", "anthropic-ratelimit-tokens-remaining": "0"}, 58 * time.Second},
		{"no reset", map[string]string{"anthropic-ratelimit-requests-remaining": "0", "anthropic-ratelimit-requests-reset": ""}, 0},
		{"OpenAI's requests", map[string]string{"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "1s"}, time.Second},
		{"OpenAI's tokens", map[string]string{"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "6m0s"}, 6 * time.Minute},
		{"OpenAI has some left", map[string]string{"x-ratelimit-remaining-tokens": "149984", "x-ratelimit-reset-tokens": "6m0s"}, 0},
		{"OpenRouter", map[string]string{"x-ratelimit-remaining": "0", "x-ratelimit-reset": strconv.FormatInt(now.Add(90*time.Second).UnixMilli(), 10)}, 90 * time.Second},
	} {
		h := http.Header{}
		for _, set := range []map[string]string{recorded, c.changed} {
			for k, v := range set {
				h.Set(k, v)
			}
		}
		if got := usedUp(h, now); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
	if got := usedUp(http.Header{}, now); got != 0 {
		t.Errorf("no headers: %s", got)
	}
}

func TestResetIn(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for value, want := range map[string]time.Duration{
		"12ms":                              12 * time.Millisecond,
		"6m0s":                              6 * time.Minute,
		"2":                                 2 * time.Second,
		" 0.5 ":                             500 * time.Millisecond,
		"2026-01-02T03:04:35Z":              30 * time.Second,
		"2026-01-02T05:04:35+02:00":         30 * time.Second,
		"2026-01-02T03:04:00Z":              0, // that was before
		strconv.FormatInt(now.Unix()+7, 10): 7 * time.Second,
		strconv.FormatInt(now.UnixMilli()+250, 10): 250 * time.Millisecond,
		"1e300": 24 * time.Hour, // at most a day
		"-1":    0,
		"NaN":   0,
		"soon":  0,
		"":      0,
	} {
		if got := resetIn(value, now).Round(time.Millisecond); got != want {
			t.Errorf("%q: %s, want %s", value, got, want)
		}
	}
}
