package providers

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/vramjet/vramjet/schemas"
)

// recorded says what each error of the recorded servers is: by its status and a
// piece of its body, the first that fits.
var recorded = []struct {
	status int
	piece  string
	want   schemas.Code
}{
	{401, "Invalid API Key", schemas.Auth},
	{500, "is too large to process", schemas.ContextOverflow},
	{501, "", schemas.Unsupported},
	{400, "exceeds the available context size", schemas.ContextOverflow},
	{400, "the input length exceeds the context length", schemas.ContextOverflow},
	{404, "File Not Found", schemas.Unsupported},
	{404, "404 page not found", schemas.Unsupported},
	{405, "", schemas.Unsupported},
	{500, "image input is not supported", schemas.Unsupported},
	{400, "does not support", schemas.Unsupported},
	{503, "Loading model", schemas.ModelLoading},
	{503, "no slot available", schemas.Overloaded},
	{503, "server busy", schemas.Overloaded},
	{400, "model is not loaded", schemas.ModelLoading},
	{400, "model 'nope' not found", schemas.ModelNotFound},
	{400, "model is not found", schemas.ModelNotFound},
	{429, "Too many requests", schemas.RateLimited},
	{404, "no model id could be identified", schemas.InvalidRequest},
	{404, "no router for requested model", schemas.ModelNotFound},
	{404, "not found", schemas.ModelNotFound},
	{403, "", schemas.Permission},
	{500, "requires more system memory", schemas.OutOfMemory},
	{500, "must be of type", schemas.InvalidRequest},
	{500, "", schemas.UpstreamError},
	{502, "", schemas.UpstreamError},
	{400, "", schemas.InvalidRequest},
}

func TestClassifyRecorded(t *testing.T) {
	dir := os.Getenv("VRAMJET_SHARED")
	if dir == "" {
		dir = filepath.Join("..", "..", "shared")
	}
	files, err := filepath.Glob(filepath.Join(dir, "traces", "*", "*.json"))
	if err != nil || len(files) == 0 {
		t.Skip("no recorded traces here: set VRAMJET_SHARED to the folder that holds them")
	}
	used := make([]int, len(recorded))
	for _, f := range files {
		raw, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		var tr struct {
			Exchanges []struct {
				ID       string
				Response *struct {
					Status  int
					Headers [][2]string
					Chunks  []struct{ Data string }
				}
			}
		}
		if err := json.Unmarshal(raw, &tr); err != nil {
			t.Fatal(err)
		}
		for _, x := range tr.Exchanges {
			if x.Response == nil || x.Response.Status < 400 {
				continue
			}
			body, h := "", http.Header{}
			for _, c := range x.Response.Chunks {
				body += c.Data
			}
			for _, kv := range x.Response.Headers {
				h.Add(kv[0], kv[1])
			}
			e := classify(x.Response.Status, h, []byte(body), time.Now())
			for i, r := range recorded {
				if r.status != x.Response.Status || !strings.Contains(body, r.piece) {
					continue
				}
				used[i]++
				if e.Code != r.want {
					t.Errorf("%s %s: %d %s is %s, want %s", f, x.ID, r.status, body, e.Code, r.want)
				}
				break
			}
			if (e.Code == schemas.RateLimited) != (e.RetryAfter == time.Second) {
				t.Errorf("%s %s: retry after %s", f, x.ID, e.RetryAfter)
			}
		}
	}
	for i, n := range used {
		if n == 0 {
			t.Errorf("nothing recorded is like %+v", recorded[i])
		}
	}
}

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
