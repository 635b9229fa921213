package providers

import (
	"bytes"
	"encoding/json"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/vramjet/vramjet/schemas"
)

// maxMessage is how much of a server's error text is passed on, in bytes.
const maxMessage = 2 << 10

// A complaint is what a server said went wrong.
type complaint struct {
	status  int    // of HTTP, or of the body where HTTP said 200
	message string // as the server wrote it
	codes   string // its type and codes, in lower case
	text    string // the message, without what it quotes, and codes, in lower case
	param   string
	retry   time.Duration // after which the body says to try again
}

// A rule gives a complaint its code. status is the first digit or the whole of
// the statuses it is for, none means all; words are what the text must hold one
// of, none means nothing.
type rule struct {
	status []int
	words  []string
	code   schemas.Code
}

// codeOnly stands before words that are looked for in a complaint's type and codes
// alone: a message may repeat what the caller wrote, such as the name of a tool, and
// that must not cost a key its rest.
const codeOnly = "code:"

// The rules, in order: the first that fits decides. Words are of real errors of
// real servers, as no server has codes for everything.
var rules = []rule{
	// Google says "quota" of both, and names which.
	{[]int{429}, []string{"perday", "limit: 0,"}, schemas.QuotaExhausted},
	{[]int{429}, []string{"perminute"}, schemas.RateLimited},

	// Money. It comes with 429 and would pass for a rate limit.
	{[]int{402}, nil, schemas.QuotaExhausted},
	{[]int{400}, []string{"reached your specified api usage limits", "reached your specified workspace api usage limits"}, schemas.QuotaExhausted}, // Anthropic has no type for it
	{[]int{400}, []string{"credit balance is too low"}, schemas.QuotaExhausted},
	{nil, []string{"code:insufficient_quota", "code:credit_balance", "code:spend_limit", "code:usage_limit_exceeded", "code:quota_exceeded", "code:billing", "code:servicequotaexceeded", "code:budget_exceeded"}, schemas.QuotaExhausted},
	{[]int{429}, []string{"exceeded your current quota"}, schemas.QuotaExhausted},

	{nil, []string{
		"exceed_context_size", "context_length_exceeded", "maximum context length", "longer than the context", "longer than the model's context", "greater than the context length", "exceeds the context length", "exceeds the available context", "input is too long",
		"context size has been exceeded", "n_keep", "context length of only", // LM Studio
		"is too large to process", "`` tokens + `` must be", "`` must have less than", "prompt is too long", "exceed context limit",
		"maximum number of tokens allowed",
	}, schemas.ContextOverflow},

	{[]int{5, 200, 424}, []string{
		"out of memory", "out of device memory", "cudamalloc failed", "hipmalloc failed", "failed to allocate", "allocation failed", "not enough memory", "insufficient memory",
		"vk_error_out_of_device_memory", "erroroutofmemory", "requires more system memory", "signal: killed",
	}, schemas.OutOfMemory},

	{nil, []string{"code:content_filter", "code:content_policy", "code:guardrail", "code:moderation_blocked"}, schemas.ContentFiltered},
	{[]int{4, 200}, []string{"content management policy", "content filtering policy", "violating our usage policy"}, schemas.ContentFiltered},

	{[]int{529}, nil, schemas.Overloaded},
	{[]int{429, 5, 200}, []string{"overloaded", "server busy", "slow_down", "maximum pending requests", "no slot available", "at capacity"}, schemas.Overloaded},

	{nil, []string{"loading model", "model_loading", "model is loading", "modelnotready", "process is not ready", "model is not loaded"}, schemas.ModelLoading},

	{[]int{429}, []string{"request too large for"}, schemas.Unsupported}, // more tokens than the key has in a minute
	{[]int{429}, nil, schemas.RateLimited},
	{nil, []string{"code:rate_limit", "code:throttl", "code:resource_exhausted", "code:concurrency_limit"}, schemas.RateLimited},
	{[]int{499}, nil, schemas.Cancelled},
	{[]int{401}, nil, schemas.Auth},
	{[]int{200, 400}, []string{"code:authentication_error", "code:invalid_api_key", "code:api_key_invalid"}, schemas.Auth},
	{[]int{200, 400}, []string{"invalid api key", "api key not valid"}, schemas.Auth},
	{[]int{403}, []string{"unrecognizedclient", "expiredtoken"}, schemas.Auth},
	{[]int{403}, []string{"invalidsignature", "incompletesignature", "missingauthenticationtoken", "make sure your api key is valid"}, schemas.Auth}, // AWS
	{[]int{400}, []string{"notauthorized", "accessdenied"}, schemas.Permission},
	{[]int{403}, nil, schemas.Permission},

	// What is missing is the model, the path or the caller's naming of a model.
	{nil, []string{"no model id could be identified", "model is required", "model name is missing"}, schemas.InvalidRequest},
	{[]int{200, 400}, []string{"key '"}, schemas.InvalidRequest},
	{[]int{4, 200}, []string{"file not found", "page not found", "resource not found", "method not allowed", "unexpected endpoint", "unknownoperation", "not supported in the v1/", "supported on this route"}, schemas.Unsupported},
	{[]int{404}, nil, schemas.ModelNotFound},
	{[]int{400, 200}, []string{"model_not_found", "model_not_available", "model not found", "not a valid model id", "invalid model name passed", "model is not found", "no router for requested model", "no models loaded", "' not found", "\" not found"}, schemas.ModelNotFound},
	{[]int{400}, []string{"model identifier is invalid", "on-demand throughput"}, schemas.ModelNotFound}, // Bedrock, the latter where a model goes by the name of an inference profile

	{[]int{405, 501}, nil, schemas.Unsupported},
	{nil, []string{"does not support", "doesn't support", "is not supported", "not_supported_error"}, schemas.Unsupported},
	{[]int{500, 200}, []string{"must be of type", "invalid_request_error"}, schemas.InvalidRequest},
	{[]int{200}, []string{"input validation error"}, schemas.InvalidRequest},
	{nil, []string{"healthcheck"}, schemas.UpstreamError},
	{[]int{408, 504, 524}, nil, schemas.UpstreamError},
	{[]int{503}, nil, schemas.Overloaded},
	{nil, []string{"incomplete_generation", "incomplete generation", "modelstreamerror"}, schemas.StreamBroken},
	{[]int{424}, nil, schemas.UpstreamError},
	{[]int{4}, nil, schemas.InvalidRequest},
}

// classify turns a server's error into one of ours. status is HTTP's; 200 is for
// errors that came in an answer that began well. now is what a date in
// Retry-After counts from. The message is what the server said, however long.
func classify(status int, header http.Header, body []byte, now time.Time) *schemas.Error {
	c := readComplaint(status, body)
	if kind, _, _ := strings.Cut(header.Get("X-Amzn-Errortype"), ":"); kind != "" {
		c.mark(kind)
	}
	code := schemas.UpstreamError
	for _, r := range rules {
		if r.fits(&c) {
			code = r.code
			break
		}
	}
	e := schemas.Errorf(code, "%s", c.message)
	e.Param = c.param
	e.RetryAfter = max(retryAfter(header, now), c.retry)
	if e.RetryAfter == 0 && code == schemas.RateLimited {
		e.RetryAfter = usedUp(header, now)
	}
	return e
}

func (r *rule) fits(c *complaint) bool {
	fits := len(r.status) == 0
	for _, s := range r.status {
		fits = fits || s == c.status || s == c.status/100
	}
	if !fits || len(r.words) == 0 {
		return fits
	}
	for _, w := range r.words {
		in, text := w, c.text
		if code, ok := strings.CutPrefix(w, codeOnly); ok {
			in, text = code, c.codes
		}
		if strings.Contains(text, in) {
			return true
		}
	}
	return false
}

// mark adds one of the complaint's codes.
func (c *complaint) mark(code string) {
	c.codes += " " + strings.ToLower(code)
	c.text += " " + strings.ToLower(code)
}

// quotes are what a message quotes: often a piece of the request. An apostrophe in a
// word begins none.
var quotes = regexp.MustCompile("(^|[\\s(\\[{:=,])('[^']*'|\"[^\"]*\"|`[^`]*`)")

// unquoted takes out what a message quotes.
func unquoted(message string) string {
	return quotes.ReplaceAllStringFunc(message, func(q string) string {
		end := q[len(q)-1:]
		return q[:strings.Index(q, end)] + end + end
	})
}

// readComplaint reads an error's body: an object with "error" as an object, a
// string, or a string that holds such an object again; an object that is the
// error itself; a page of HTML; plain text; nothing.
func readComplaint(status int, body []byte) complaint {
	c := complaint{status: status}
	body = bytes.TrimSpace(body)
	fields := errorFields(body, 3)
	if text, ok := pageText(body); ok {
		c.message = text
	} else if fields == nil {
		c.message = string(body)
	} else {
		c.message = firstText(fields, "message", "Message", "error", "detail", "msg")
		c.param = firstText(fields, "param")
		if ms, err := strconv.ParseFloat(string(fields["retry_after_ms"]), 64); err == nil {
			c.retry = seconds(ms / 1000)
		}
		if n := statusIn(fields); status/100 == 2 && n != 0 {
			c.status = n
		}
	}
	c.text = strings.ToLower(unquoted(c.message))
	for _, key := range []string{"type", "code", "status", "error_type", "__type"} {
		if t := firstText(fields, key); t != "" {
			c.mark(t)
		}
	}
	if details, ok := fields["details"]; ok {
		c.mark(string(details[:min(len(details), maxMessage)]))
		c.retry = max(c.retry, retryInfo(details))
	}
	c.readRouter(fields)
	if c.message == "" {
		c.message = "status " + strconv.Itoa(status) + " " + http.StatusText(status) + ", without a word"
	}
	return c
}

// errorFields finds the innermost object that says what went wrong, at most depth
// levels down. nil: there is none.
func errorFields(body []byte, depth int) map[string]json.RawMessage {
	var list []json.RawMessage
	if json.Unmarshal(body, &list) == nil && len(list) > 0 { // Google's
		body = list[0]
	}
	var fields map[string]json.RawMessage
	if depth == 0 || len(body) == 0 || json.Unmarshal(body, &fields) != nil {
		return nil
	}
	inner := fields["error"]
	if !given(inner) {
		inner = choiceError(fields["choices"])
	}
	if !given(inner) {
		return fields
	}
	var text string
	if json.Unmarshal(inner, &text) == nil {
		inner = []byte(text)
	}
	if found := errorFields(inner, depth-1); found != nil {
		return found
	}
	return fields
}

// given reports whether a member is there and not null.
func given(raw json.RawMessage) bool { return len(raw) > 0 && !isNull(raw) }

// choiceError returns the error of the first choice that has one: what OpenRouter
// answers that failed on the way.
func choiceError(choices json.RawMessage) json.RawMessage {
	var list []struct {
		Error json.RawMessage `json:"error"`
	}
	_ = json.Unmarshal(choices, &list) // not every error comes with choices
	for _, c := range list {
		if given(c.Error) {
			return c.Error
		}
	}
	return nil
}

// readRouter reads what OpenRouter says more of an error than OpenAI would. The
// text that its moderation turned down is there too, and is nothing to go by.
func (c *complaint) readRouter(fields map[string]json.RawMessage) {
	var more struct {
		ErrorType string          `json:"error_type"`
		Reasons   json.RawMessage `json:"reasons"`
		Patterns  json.RawMessage `json:"patterns"`
	}
	if json.Unmarshal(fields["metadata"], &more) == nil {
		c.mark(more.ErrorType)
		if given(more.Reasons) || given(more.Patterns) {
			c.mark("content_filter")
		}
	}
	var availability struct {
		Code       string  `json:"code"`
		RetryAfter float64 `json:"retry_after"`
	}
	if json.Unmarshal(fields["availability"], &availability) == nil {
		c.mark(availability.Code)
		c.retry = max(c.retry, seconds(availability.RetryAfter))
	}
}

// firstText returns the first of the members that is a string that says something.
func firstText(fields map[string]json.RawMessage, keys ...string) string {
	for _, key := range keys {
		var text string
		if raw, ok := fields[key]; ok && json.Unmarshal(raw, &text) == nil && text != "" {
			return text
		}
	}
	return ""
}

// statusIn returns the HTTP status that an error's body names, 0 if none. LiteLLM
// and Azure write it as a string.
func statusIn(fields map[string]json.RawMessage) int {
	for _, key := range []string{"code", "status", "status_code", "http_status"} {
		if n := atoi(bytes.Trim(fields[key], `"`)); n >= 400 && n < 600 {
			return n
		}
	}
	return 0
}

// retryAfter reads how long a server asked to be left alone, 0 if it did not.
// Azure's milliseconds may be 0 where its seconds are not.
func retryAfter(h http.Header, now time.Time) time.Duration {
	if ms, err := strconv.ParseFloat(h.Get("Retry-After-Ms"), 64); err == nil && ms > 0 {
		return seconds(ms / 1000)
	}
	v := h.Get("Retry-After")
	if s, err := strconv.ParseFloat(v, 64); err == nil {
		return seconds(s)
	}
	if at, err := http.ParseTime(v); err == nil {
		return seconds(at.Sub(now).Seconds())
	}
	return 0
}

// retryInfo reads how long Google's details of an error ask to wait.
func retryInfo(details json.RawMessage) time.Duration {
	var list []struct {
		Delay string `json:"retryDelay"`
	}
	_ = json.Unmarshal(details, &list) // other servers' details are something else
	for _, d := range list {
		if wait, err := time.ParseDuration(d.Delay); err == nil {
			return seconds(wait.Seconds())
		}
	}
	return 0
}

// seconds returns s as a Duration between 0 and a day.
func seconds(s float64) time.Duration {
	const day = 24 * 60 * 60
	if !(s > 0) {
		return 0
	}
	return time.Duration(min(s, day) * float64(time.Second))
}

// cut shortens text to at most n bytes of whole characters.
func cut(text string, n int) string {
	if len(text) <= n {
		return text
	}
	for n > 0 && !utf8.RuneStart(text[n]) {
		n--
	}
	return text[:n] + "…"
}
