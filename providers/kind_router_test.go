package providers_test

import (
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/vramjet/vramjet/providers"
	"github.com/vramjet/vramjet/providers/providertest"
	"github.com/vramjet/vramjet/schemas"
)

// queried answers "METHOD /path?query".
func queried(answers map[string]string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		body, ok := answers[r.Method+" "+r.URL.RequestURI()]
		if !ok {
			http.NotFound(w, r)
			return
		}
		_, _ = io.WriteString(w, body)
	})
}

func openRouterKind() providertest.Kind {
	const chunk = `data: {"id":"gen-1234","provider":"OpenAI","model":"openai/gpt-4","object":"chat.completion.chunk","created":1677652288,"choices":[{"index":0,"delta":%s,"finish_reason":null,"native_finish_reason":null,"logprobs":null}]}` + "\n\n"
	v := vendor{
		base: "/api/v1", head: ": OPENROUTER PROCESSING\n\n: OPENROUTER PROCESSING\n\n", chunk: chunk,
		last: strings.NewReplacer(`"finish_reason":null`, `"finish_reason":"%[2]s"`, "%s", "%[1]s").Replace(chunk) +
			strings.NewReplacer("%s", `{"role":"assistant","content":""}`, "}]}\n", `}],"usage":{"prompt_tokens":10,"completion_tokens":15,"total_tokens":25,"cost":0.0012,"is_byok":false,"prompt_tokens_details":{"cached_tokens":2},"completion_tokens_details":{"reasoning_tokens":5}}}`+"\n").Replace(chunk) +
			"data: [DONE]\n\n",
	}
	const end = `{"role":"assistant","content":""}`
	thinks := v.chat(providertest.Reasoning, `,"reasoning":{"effort":"low"}`,
		v.stream("stop",
			`{"role":"assistant","content":"","reasoning":"H","reasoning_details":[{"type":"reasoning.text","text":"H","format":"anthropic-claude-v1","index":0}]}`,
			`{"role":"assistant","content":"","reasoning":"m"}`, `{"content":"Yes","reasoning":null}`, end),
		`{"choices":[{"message":{"content":"Yes","reasoning_content":"Hm"}}],"usage":{"completion_tokens":15,"cost":0.0012}}`)
	d := openAIStream()
	d.Comment = ": OPENROUTER PROCESSING\n\n"
	return providertest.Kind{
		Name:    providers.KindOpenRouter,
		Config:  providers.Config{URL: v.base},
		Dialect: d,
		Server:  openRouterServer,
		Models: []providers.Model{
			remote("openai/gpt-4", text, 8192, []providers.Ability{}),
			remote("anthropic/claude-sonnet-4.5", text, 1000000, []providers.Ability{providers.Tools, providers.Vision, providers.Reasoning}),
			remote("openai/text-embedding-3-small", embedding, 8192, []providers.Ability{}),
		},
		Empty:     map[string]string{"GET /api/v1/models": `{"data":[],"links":{"next":null},"total_count":0}`},
		Exchanges: append(v.chats(end), v.tools(end), thinks, v.completion("stop"), v.embeddings(twoTokens)),
		Failures:  openRouterFailures(),
	}
}

func openRouterServer() http.Handler {
	entry := func(id, length, in, out, parameters string) string {
		return `{"id":"` + id + `","canonical_slug":"` + id + `","name":"x","created":1692901234,"description":"x","context_length":` + length + `,"architecture":{"input_modalities":[` + in + `],"output_modalities":[` + out +
			`],"modality":"x","tokenizer":"GPT","instruct_type":"chatml"},"pricing":{"prompt":"0.00003","completion":"0.00006","request":"0","image":"0"},"top_provider":{"context_length":` + length +
			`,"max_completion_tokens":4096,"is_moderated":true},"per_request_limits":null,"supported_parameters":[` + parameters + `],"default_parameters":null,"expiration_date":null,"links":{"details":"/api/v1/models/x/endpoints"}}`
	}
	return queried(map[string]string{"GET /api/v1/models?output_modalities=all": `{"data":[` + strings.Join([]string{
		entry("openai/gpt-4", "8192", `"text"`, `"text"`, `"temperature","top_p","max_tokens"`),
		entry("anthropic/claude-sonnet-4.5", "1000000", `"text","image","file"`, `"text"`, `"include_reasoning","reasoning","max_tokens","tools","tool_choice"`),
		entry("openai/text-embedding-3-small", "8192", `"text"`, `"embeddings"`, ``),
		entry("x/paints", "8192", `"text"`, `"image"`, ``),
	}, ",") + `],"links":{"next":null},"total_count":4}`})
}

func openRouterFailures() []providertest.Failure {
	return []providertest.Failure{
		{Status: 401, Body: `{"error":{"code":401,"message":"Missing Authentication header"}}`, Want: schemas.Auth},
		{Status: 402, Body: `{"error":{"code":402,"message":"Insufficient credits. Add more using https://openrouter.ai/credits"}}`, Want: schemas.QuotaExhausted},
		{Status: 403, Body: `{"error":{"code":403,"message":"Request blocked: prompt injection patterns detected","metadata":{"patterns":["ignore all previous instructions"]}}}`, Want: schemas.ContentFiltered},
		{Status: 403, Body: `{"error":{"code":403,"message":"Your chosen model requires moderation and your input was flagged","metadata":{"reasons":["violence"],"flagged_input":"my insufficient_quota","provider_name":"x","model_slug":"x"}}}`, Want: schemas.ContentFiltered},
		{Status: 403, Body: `{"error":{"code":403,"message":"This key may not","metadata":{"reasons":null}}}`, Want: schemas.Permission},
		{Status: 408, Body: `{"error":{"code":408,"message":"Operation timed out. Please try again later."}}`, Want: schemas.UpstreamError},
		{Status: 422, Body: `{"error":{"code":422,"message":"Invalid argument"}}`, Want: schemas.InvalidRequest},
		{Status: 429, Header: map[string]string{"Retry-After": "60"}, Body: `{"error":{"code":429,"message":"Rate limit exceeded","metadata":{"error_type":"rate_limit_exceeded","provider_code":"rate_limited"}}}`, Want: schemas.RateLimited, Retry: time.Minute},
		{Status: 502, Body: `{"error":{"code":502,"message":"Provider returned error"}}`, Want: schemas.UpstreamError},
		{Status: 503, Body: `{"error":{"code":503,"message":"Service temporarily unavailable"}}`, Want: schemas.Overloaded},
		{Status: 529, Body: `{"error":{"code":529,"message":"Provider returned error"}}`, Want: schemas.Overloaded},
		{
			Status: 429, Want: schemas.Overloaded, Retry: 40 * time.Second,
			Body: `{"error":{"message":"All providers for anthropic/claude-sonnet-4.5 are at capacity. Retry after 40 seconds.","error_type":"rate_limit_exceeded","http_status":429,"availability":{"code":"capacity_exhausted","retryable":true,"retry_after":40,"requested_models":["anthropic/claude-sonnet-4.5"]},"metadata":{"previous_errors":[{"provider":"anthropic","code":"capacity_exhausted","status":429}]}}}`,
		},
		{
			Status: 400, Want: schemas.ModelNotFound,
			Body: `{"error":{"message":"acme/fake-1.0 cannot be had","error_type":"invalid_request","http_status":400,"availability":{"code":"model_not_found","retryable":false,"requested_models":["acme/fake-1.0"]}}}`,
		},
		{Status: 400, Body: `{"error":{"message":"acme/fake-1.0 is not a valid model ID","code":400}}`, Want: schemas.ModelNotFound},
		{Status: 400, Body: `{"error":{"code":400,"message":"Too much","metadata":{"error_type":"context_length_exceeded"}}}`, Want: schemas.ContextOverflow},
		{
			Status: 200, Want: schemas.RateLimited,
			Body: `data: {"id":"gen-abc123","object":"chat.completion.chunk","created":1234567890,"model":"openai/gpt-4o","provider":"OpenAI","error":{"code":429,"message":"Rate limit exceeded","metadata":{"error_type":"rate_limit_exceeded"}},"choices":[{"index":0,"delta":{"content":""},"finish_reason":"error"}]}` + "\n\n",
		},
		{
			Status: 200, Want: schemas.Overloaded,
			Body: `data: {"choices":[{"message":{"role":"assistant","content":"partial output..."},"finish_reason":"error","error":{"code":503,"message":"Provider disconnected mid-stream","metadata":{"error_type":"provider_overloaded"}}}]}` + "\n\n",
		},
		{Status: 200, Body: `data: {"error":{"message":"at the end of its wits","error_type":"rate_limit_exceeded","http_status":429}}` + "\n\n", Want: schemas.RateLimited},
	}
}

func togetherKind() providertest.Kind {
	const chunk = `data: {"id":"oRx-1","object":"chat.completion.chunk","created":1700000000,"model":"mistralai/Mixtral-8x7B-Instruct-v0.1","choices":[{"index":0,"delta":%s,"logprobs":null,"finish_reason":null,"seed":null}],"usage":null}` + "\n\n"
	v := vendor{
		base: "/v1", chunk: chunk,
		last: strings.NewReplacer(`"finish_reason":null,"seed":null`, `"finish_reason":"%[2]s","seed":1234`, "%s", "%[1]s", `"usage":null`, `"usage":{"prompt_tokens":10,"completion_tokens":5,"total_tokens":15}`).Replace(chunk) + "data: [DONE]\n\n",
	}
	const end = `{"token_id":2,"role":"assistant","content":""}`
	eos := v.chat("", "", v.stream("eos", `{"token_id":330,"role":"assistant","content":"A","tool_calls":null}`, end),
		`{"choices":[{"message":{"role":"assistant","content":"A"},"finish_reason":"stop"}],"usage":{"total_tokens":15}}`)
	thinks := v.chat(providertest.Reasoning, toThink, v.stream("stop", `{"role":"assistant","reasoning":"Hm"}`, `{"content":"Yes"}`, end), `{"choices":[{"message":{"content":"Yes","reasoning_content":"Hm"}}]}`)
	return providertest.Kind{
		Name:    providers.KindTogether,
		Dialect: openAIStream(),
		Server: func() http.Handler {
			entry := func(id, kind string) string {
				return `{"id":"` + id + `","object":"model","created":1692896905,"type":"` + kind + `","display_name":"x","organization":"x","link":"https://huggingface.co/x","license":"other","context_length":2048,"pricing":{"hourly":0,"input":0.3,"output":0.3,"base":0,"finetune":0}}`
			}
			return providertest.Routes(map[string]string{"GET /v1/models": "[" + strings.Join([]string{
				entry("Austism/chronos-hermes-13b", "chat"), entry("x/base", "language"), entry("x/coder", "code"), entry("BAAI/m2", "embedding"),
				entry("black-forest-labs/FLUX.1", "image"), entry("meta/guard", "moderation"), entry("Salesforce/rank", "rerank"),
				`{"id":"x/bge-of-no-type","object":"model","created":1}`,
			}, ",") + "]"})
		},
		Models: []providers.Model{
			remote("Austism/chronos-hermes-13b", text, 2048, nil),
			remote("x/base", []schemas.Kind{schemas.Completion}, 2048, nil), remote("x/coder", []schemas.Kind{schemas.Completion}, 2048, nil),
			remote("BAAI/m2", embedding, 2048, nil), remote("x/bge-of-no-type", embedding, 0, nil),
		},
		Empty:     map[string]string{"GET /v1/models": `[]`},
		Exchanges: append(v.chats(end), v.tools(end), thinks, v.completion("eos"), v.embeddings(""), eos),
		Failures: []providertest.Failure{
			{Status: 401, Body: `{"id":"x","error":{"message":"Invalid API key provided.","type":"invalid_request_error","param":null,"code":"invalid_api_key"}}`, Want: schemas.Auth},
			{Status: 404, Body: `{"id":"x","error":{"message":"Unable to access model x. Please visit https://api.together.ai/models to view the list of supported models.","type":"invalid_request_error","param":null,"code":"model_not_available"}}`, Want: schemas.ModelNotFound},
			{Status: 400, Body: `{"id":"x","error":{"message":"Unable to access non-serverless model x.","type":"invalid_request_error","param":null,"code":"model_not_available"}}`, Want: schemas.ModelNotFound},
			{Status: 429, Header: map[string]string{"X-Ratelimit-Remaining": "0", "X-Ratelimit-Reset": "1"}, Body: `{"error":{"message":"x","type":"dynamic_request_limited","param":null,"code":null}}`, Want: schemas.RateLimited, Retry: time.Second},
			{Status: 429, Header: map[string]string{"X-Tokenlimit-Remaining": "0", "X-Ratelimit-Reset": "2"}, Body: `{"error_type":"dynamic_token_limited","error":{"message":"x","type":"rate_limit"}}`, Want: schemas.RateLimited, Retry: 2 * time.Second},
			{Status: 503, Body: `{"error":{"message":"The server is overloaded or not ready yet.","type":"service_unavailable","param":null,"code":null}}`, Want: schemas.Overloaded},
			{Status: 402, Body: `{"error":{"message":"Credit limit exceeded","type":"credit_limit"}}`, Want: schemas.QuotaExhausted},
		},
	}
}

func liteLLMKind() providertest.Kind {
	v := vendor{
		base:  "/v1",
		chunk: `data: {"id":"chatcmpl-528d033d","model":"gpt-oss-20b","object":"chat.completion.chunk","choices":[{"index":0,"delta":%s}]}` + "\n\n",
		last: `data: {"id":"chatcmpl-528d033d","model":"gpt-oss-20b","object":"chat.completion.chunk","choices":[{"index":0,"delta":%s,"finish_reason":"%s"}]}` + "\n\n" +
			`data: {"id":"chatcmpl-528d033d","model":"gpt-oss-20b","object":"chat.completion.chunk","choices":[{"index":0,"delta":{}}],"usage":{"prompt_tokens":4,"completion_tokens":2,"total_tokens":6}}` + "\n\ndata: [DONE]\n\n",
	}
	thinks := v.chat(providertest.Reasoning, toThink, v.stream("stop", `{"role":"assistant","reasoning_content":"Hm","thinking_blocks":[{"type":"thinking","thinking":"Hm"}]}`, `{"content":"Yes"}`, "{}"), `{"choices":[{"message":{"content":"Yes","reasoning_content":"Hm"}}]}`)
	d := openAIStream()
	d.Error = `data: {"error": {"message": "litellm.APIError: it broke\nTraceback", "type": "None", "param": "None", "code": "500"}}` + "\n\n"
	const none = `{"data":[],"object":"list"}`
	return providertest.Kind{
		Name:    providers.KindLiteLLM,
		Dialect: d,
		Server:  liteLLMServer,
		Models: []providers.Model{
			remote("gpt-4o", text, 64000, []providers.Ability{providers.Tools}),
			remote("ada", embedding, 8191, []providers.Ability{}),
			remote("an-alias", text, 0, nil),
			remote("fake", text, 0, nil),
		},
		Empty:     map[string]string{"GET /v1/models": none, "GET /v1/model/info": `{"data":[]}`},
		Exchanges: append(v.chats("{}"), v.tools("{}"), thinks, v.completion("stop"), v.embeddings(twoTokens)),
		Failures: []providertest.Failure{
			{Status: 404, Body: `{"error":{"message":"litellm.NotFoundError: BedrockException - {\"error\":{\"code\":\"not_found_error\",\"message\":\"The model 'us-gov-west-1/xai.grok-4.3' does not exist\",\"param\":null,\"type\":\"invalid_request_error\"}}. Received Model Group=mantle-gov-grok-prefixed\nAvailable Model Group Fallbacks=None","type":"invalid_request_error","param":null,"code":"404"}}`, Want: schemas.ModelNotFound},
			{Status: 429, Body: `{"error":{"message":"litellm.RateLimitError: AzureException RateLimitError - Error code: 429 - {'error': {'code': '429', 'message': 'Requests to the ChatCompletions_Create Operation have exceeded token rate limit of your current AIServices S0 pricing tier. Please retry after 86400 seconds.'}}\nReceived Model Group=azure-gpt-4o-mini","type":"throttling_error","param":null,"code":"429"}}`, Want: schemas.RateLimited},
			{Status: 400, Body: "{\"error\":{\"message\":\"/chat/completions: Invalid model name passed in model=x. Call `/v1/models` to view available models for your key.\",\"type\":\"invalid_request_error\",\"param\":\"model\",\"code\":\"400\"}}", Want: schemas.ModelNotFound},
			{Status: 400, Body: `{"error":{"message":"Budget has been exceeded! Current cost: 1.2, Max budget: 1.0","type":"budget_exceeded","param":null,"code":"400"}}`, Want: schemas.QuotaExhausted},
			{Status: 401, Body: `{"error":{"message":"Authentication Error, Invalid proxy server token passed.","type":"token_not_found_in_db","param":"key","code":"401"}}`, Want: schemas.Auth},
			{Status: 503, Body: `{"detail":"Service Unhealthy (x)"}`, Want: schemas.Overloaded},
			{Status: 200, Body: `data: {"error": {"message": "x", "type": "None", "param": "None", "code": "429"}}` + "\n\n", Want: schemas.RateLimited},
			{Status: 200, Body: `data: {"error": {"message": "x", "type": "None", "param": "None", "code": "500"}}` + "\n\n", Want: schemas.UpstreamError},
		},
	}
}

// liteLLMServer knows two deployments by the name gpt-4o, and nothing of the last
// models.
func liteLLMServer() http.Handler {
	info := func(name, more string) string {
		return `{"model_name":"` + name + `","litellm_params":{"model":"openai/` + name + `"},"model_info":{"id":"112f","db_model":false` + more + `}}`
	}
	const gpt = `,"key":"gpt-4o","max_tokens":16384,"max_output_tokens":16384,"input_cost_per_token":2.5e-06,"output_cost_per_token":1e-05,"litellm_provider":"openai","mode":"chat","supports_function_calling":true,"supports_native_streaming":null,"tpm":null`
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/health") {
			panic("its health is asked: that runs every model")
		}
		providertest.Routes(map[string]string{
			"GET /v1/models": `{"data":[{"id":"gpt-4o","object":"model","created":1677610602,"owned_by":"openai"},{"id":"ada","object":"model","created":1677610602,"owned_by":"openai"},{"id":"an-alias","object":"model"},{"id":"fake","object":"model"},{"id":"paints","object":"model"},{"id":"whisper","object":"model"},{"id":"openai/*","object":"model"}],"object":"list"}`,
			"GET /v1/model/info": `{"data":[` + strings.Join([]string{
				info("gpt-4o", gpt+`,"max_input_tokens":64000,"supports_vision":false,"supports_reasoning":false`),
				info("gpt-4o", gpt+`,"max_input_tokens":128000,"supports_vision":true,"supports_reasoning":false`),
				info("ada", `,"mode":"embedding","max_input_tokens":8191,"supports_vision":false`),
				info("fake", ""), info("paints", `,"mode":"image_generation"`), info("not for this key", gpt),
			}, ",") + `]}`,
		}).ServeHTTP(w, r)
	})
}
