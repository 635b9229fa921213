package providers

import (
	"net/http"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/vramjet/vramjet/schemas"
)

func TestClassify(t *testing.T) {
	for _, c := range []struct {
		status int
		body   string
		want   schemas.Code
	}{
		// Ollama, also of later versions
		{404, `{"error":"model 'x' not found"}`, schemas.ModelNotFound},
		{503, `{"error":"server busy, please try again.  maximum pending requests exceeded"}`, schemas.Overloaded},
		{499, `{"error":"request canceled"}`, schemas.Cancelled},
		{500, `{"error":"llama runner process has terminated: cudaMalloc failed: out of memory"}`, schemas.OutOfMemory},
		{500, `{"error":"llama-server process has terminated: signal: killed"}`, schemas.OutOfMemory},
		{400, `{"error":"{\"error\":{\"code\":400,\"message\":\"request (9 tokens) exceeds the available context size\",\"type\":\"exceed_context_size_error\"}}"}`, schemas.ContextOverflow},
		{200, `{"error":"an error was encountered while running the model: CUDA error: out of memory"}`, schemas.OutOfMemory},
		{200, `{"error":"an error was encountered while running the model: unexpected EOF"}`, schemas.UpstreamError},
		{401, `{"error":"unauthorized","signin_url":"https://example.com"}`, schemas.Auth},
		// llama.cpp and llama-swap
		{200, `{"error":{"code":400,"type":"exceed_context_size_error","message":"too long"}}`, schemas.ContextOverflow},
		{500, `proxy error: Could not establish connection`, schemas.UpstreamError},
		{200, `proxy error: Failed to read connection`, schemas.UpstreamError},
		{429, `{"src":"llama-swap","error":{"message":"Too many requests","type":"rate_limit_error","code":"concurrency_limit"}}`, schemas.RateLimited},
		{404, `{"src":"llama-swap","error":{"message":"no router for requested model","type":"invalid_request_error","code":"not_found"}}`, schemas.ModelNotFound},
		{503, `{"src":"llama-swap","error":{"message":"process is not ready"}}`, schemas.ModelLoading},
		// vLLM, TGI, LocalAI
		{503, `{"error":{"message":"Request rejected: queue is full","type":"ServiceUnavailable","code":503}}`, schemas.Overloaded},
		{404, `{"object":"error","message":"The model x does not exist.","type":"NotFoundError","code":404}`, schemas.ModelNotFound},
		{400, `{"object":"error","message":"This model's maximum context length is 4096 tokens.","type":"BadRequestError","code":400}`, schemas.ContextOverflow},
		{429, `{"error":"Model is overloaded","error_type":"overloaded"}`, schemas.Overloaded},
		{422, "{\"error\":\"Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096\",\"error_type\":\"validation\"}", schemas.ContextOverflow},
		{422, `{"error":"Input validation error: temperature must be positive","error_type":"validation"}`, schemas.InvalidRequest},
		{424, `{"error":"Request failed during generation","error_type":"generation"}`, schemas.UpstreamError},
		{500, `{"error":"Incomplete generation","error_type":"incomplete_generation"}`, schemas.StreamBroken},
		{503, `{"error":{"code":"model_loading","message":"x"},"loading":{"eta_seconds":3}}`, schemas.ModelLoading},
		// OpenAI, Anthropic, OpenRouter, Azure, Google, Bedrock
		{429, `{"error":{"message":"Rate limit reached","type":"requests","code":"rate_limit_exceeded"}}`, schemas.RateLimited},
		{429, `{"error":{"message":"Slow down","type":"x","code":"slow_down"}}`, schemas.Overloaded},
		{429, `{"error":{"message":"You exceeded your current quota","type":"insufficient_quota","code":"credit_balance_exhausted"}}`, schemas.QuotaExhausted},
		{400, `{"error":{"message":"x","type":"invalid_request_error","code":"context_length_exceeded","param":"messages"}}`, schemas.ContextOverflow},
		{404, `{"error":{"message":"x","type":"invalid_request_error","code":"model_not_found"}}`, schemas.ModelNotFound},
		{401, `{"error":{"message":"Incorrect API key provided","code":"invalid_api_key"}}`, schemas.Auth},
		{529, `{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}`, schemas.Overloaded},
		{200, `{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}`, schemas.Overloaded},
		{429, `{"type":"error","error":{"type":"rate_limit_error","message":"x","details":{"error_code":"enforced_spend_limit_reached"}}}`, schemas.QuotaExhausted},
		{402, ``, schemas.QuotaExhausted},
		{413, `{"error":{"type":"request_too_large"}}`, schemas.InvalidRequest},
		{200, `{"error":{"code":502,"message":"Provider returned error"},"choices":[{"finish_reason":"error"}]}`, schemas.UpstreamError},
		{200, `{"error":{"code":402,"message":"x"}}`, schemas.QuotaExhausted},
		{503, `{"error":{"code":503,"message":"No provider"}}`, schemas.Overloaded},
		{400, `{"error":{"code":"content_filter","message":"x"}}`, schemas.ContentFiltered},
		{404, `{"error":{"code":"DeploymentNotFound","message":"x"}}`, schemas.ModelNotFound},
		{429, `{"error":{"code":429,"message":"x","status":"RESOURCE_EXHAUSTED"}}`, schemas.RateLimited},
		{429, `{"error":{"code":429,"status":"RESOURCE_EXHAUSTED","details":[{"reason":"quota_exceeded"}]}}`, schemas.QuotaExhausted},
		{429, `{"message":"Too many","__type":"ThrottlingException"}`, schemas.RateLimited},
		{400, `{"message":"Input is too long for requested model.","__type":"ValidationException"}`, schemas.ContextOverflow},
		{400, `{"message":"x","__type":"ServiceQuotaExceededException"}`, schemas.QuotaExhausted},
		{429, `{"message":"x","__type":"ModelNotReadyException"}`, schemas.ModelLoading},
		// what a caller wrote, and a server repeats
		{400, `{"error":{"message":"Invalid schema for response_format 'billing_address': no","type":"invalid_request_error"}}`, schemas.InvalidRequest},
		{400, `{"error":{"message":"Invalid function get_rate_limit: no","type":"invalid_request_error"}}`, schemas.InvalidRequest},
		{400, `{"error":{"message":"'throttled' is no tool","type":"invalid_request_error"}}`, schemas.InvalidRequest},
		{400, `{"error":{"message":"Unknown parameter: set_invalid_api_key","type":"invalid_request_error"}}`, schemas.InvalidRequest},
		{404, `{"error":{"message":"The model billing-bot does not exist","type":"invalid_request_error","code":"model_not_found"}}`, schemas.ModelNotFound},
		{500, `{"error":{"message":"missing key 'foo' in a template","type":"server_error"}}`, schemas.UpstreamError},
		{500, `{"error":{"message":"moderation guardrails service failed","type":"server_error"}}`, schemas.UpstreamError},
		{429, `{"error":{"message":"Rate limit reached on tokens per minute. Upgrade at https://console.groq.com/settings/billing","type":"tokens","code":"rate_limit_exceeded"}}`, schemas.RateLimited},
		{400, `{"error":{"message":"This model's maximum context length is 4096 tokens. You can't ask for more.","type":"invalid_request_error"}}`, schemas.ContextOverflow},
		// anybody
		{502, ``, schemas.UpstreamError},
		{504, `<html>gateway timeout</html>`, schemas.UpstreamError},
		{400, `out of memory`, schemas.InvalidRequest}, // a caller can write that too
		{403, ``, schemas.Permission},
	} {
		if e := classify(c.status, nil, []byte(c.body), time.Now()); e.Code != c.want {
			t.Errorf("%d %s is %s, want %s", c.status, c.body, e.Code, c.want)
		}
	}
}

func TestComplaint(t *testing.T) {
	e := classify(400, nil, []byte(`{"error":{"message":"bad","param":"n"}}`), time.Now())
	if e.Message != "bad" || e.Param != "n" || e.Type != "invalid_request_error" {
		t.Errorf("%+v", e)
	}
	s := newServer(Config{Kind: KindOpenAI})
	e = s.failure(500, nil, []byte(strings.Repeat("é", 5000)))
	if len(e.Message) > maxMessage+16 || !utf8.ValidString(e.Message) {
		t.Errorf("%d bytes: %q", len(e.Message), e.Message[len(e.Message)-8:])
	}
	if e = classify(502, nil, nil, time.Now()); !strings.Contains(e.Message, "502 Bad Gateway") {
		t.Errorf("%q", e.Message)
	}
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, c := range []struct {
		key, value string
		want       time.Duration
	}{
		{"Retry-After", "2", 2 * time.Second},
		{"Retry-After", "0.5", 500 * time.Millisecond},
		{"Retry-After", "-1", 0},
		{"Retry-After", "soon", 0},
		{"Retry-After", "NaN", 0},
		{"Retry-After", "1e300", 24 * time.Hour},
		{"Retry-After", now.Add(time.Minute).Format(http.TimeFormat), time.Minute},
		{"Retry-After", now.Add(-time.Minute).Format(http.TimeFormat), 0},
		{"Retry-After-Ms", "250", 250 * time.Millisecond},
		{"Retry-After-Ms", "0", 0},
	} {
		h := http.Header{}
		h.Set(c.key, c.value)
		if got := retryAfter(h, now); got != c.want {
			t.Errorf("%s: %s is %s, want %s", c.key, c.value, got, c.want)
		}
	}
}

func FuzzClassify(f *testing.F) {
	f.Add(500, []byte(`{"error":{"message":"x"}}`), "1")
	f.Add(200, []byte(`{"error":"{\"error\":\"{}\"}"}`), "x")
	f.Add(0, []byte("\xff"), "")
	f.Fuzz(func(t *testing.T, status int, body []byte, after string) {
		e := classify(status, http.Header{"Retry-After": {after}}, body, time.Now())
		if e.Code == "" || e.Type == "" || e.Message == "" || e.RetryAfter < 0 {
			t.Errorf("%+v", e)
		}
	})
}
