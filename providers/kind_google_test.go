package providers_test

import (
	"net/http"
	"time"

	"github.com/vramjet/vramjet/providers"
	"github.com/vramjet/vramjet/providers/providertest"
	"github.com/vramjet/vramjet/schemas"
)

// googleKinds are Vertex AI, which has no list of models, and the Gemini API,
// which has.
func googleKinds() []providertest.Kind {
	return []providertest.Kind{vertexKind(), geminiKind()}
}

// googleVendor is how Google streams: no finish reason is null, and the last chunk
// brings it and what was used. The thoughts are in no number but the total.
func googleVendor(base string) vendor {
	const envelope = `"created":1788465147,"id":"FXzc","model":"gemini-2.5-flash","object":"chat.completion.chunk"`
	return vendor{
		base:  base,
		chunk: `data: {"choices":[{"delta":%s,"index":0}],` + envelope + `}` + "\n\n",
		last:  `data: {"choices":[{"delta":%s,"finish_reason":"%s","index":0}],` + envelope + `,"usage":{"completion_tokens":24,"prompt_tokens":11,"total_tokens":561}}` + "\n\ndata: [DONE]\n\n",
	}
}

// googleExchanges are what both can do.
func googleExchanges(v *vendor) []providertest.Exchange {
	const (
		end   = `{"role":"assistant"}`
		first = `{"id":"function-call-1","type":"function","function":{"name":"get","arguments":"{\"city\":\"Oslo\"}"}`
	)
	parallel := v.chat(providertest.Tools, offersTools,
		v.stream("stop", // although it calls
			`{"role":"assistant","tool_calls":[{"function":{"arguments":"{\"city\":\"Oslo\"}","name":"get"},"id":"function-call-1","type":"function"}]}`,
			`{"role":"assistant","tool_calls":[{"function":{"arguments":"{}","name":"get"},"id":"function-call-2","type":"function"}]}`),
		`{"choices":[{"message":{"content":null,"tool_calls":[`+first+`},{"id":"function-call-2","type":"function","function":{"name":"get","arguments":"{}"}}]},"finish_reason":"tool_calls"}]}`)
	nameless := v.chat("", offersTools,
		v.stream("tool_calls",
			`{"role":"assistant","tool_calls":[{"function":{"arguments":"{\"city\":\"Oslo\"}","name":"get"},"id":"","type":"function"}]}`,
			`{"role":"assistant","tool_calls":[{"function":{"arguments":"{}","name":"get"},"id":"","type":"function"}]}`),
		`{"choices":[{"message":{"tool_calls":[{"function":{"name":"get","arguments":"{\"city\":\"Oslo\"}"}},{"function":{"name":"get","arguments":"{}"}}]},"finish_reason":"tool_calls"}]}`)
	const signature = `"extra_content":{"google":{"thought_signature":"EjQKMgEMOdbHJChLX75QUCJjyYlm"}}`
	signed := v.chat("", `,"messages":[{"role":"user","content":"hi"},{"role":"assistant","tool_calls":[`+first+`,`+signature+`}]},{"role":"tool","tool_call_id":"function-call-1","content":"rain"}]`,
		v.stream("stop", `{"role":"assistant","tool_calls":[{`+signature+`,"function":{"arguments":"{}","name":"get"},"id":"jm4owj31","type":"function"}]}`),
		`{"choices":[{"message":{"tool_calls":[{"id":"jm4owj31",`+signature+`,"function":{"name":"get","arguments":"{}"}}]}}]}`)
	thinks := v.chat(providertest.Reasoning, toThink, v.stream("stop", `{"role":"assistant","content":"Ye"}`, `{"content":"s"}`),
		`{"choices":[{"message":{"content":"Yes"}}],"usage":{"prompt_tokens":11,"completion_tokens":24,"total_tokens":561}}`)
	empty := v.chat("", "", v.stream("stop", end), `{"choices":[{"message":{"role":"assistant","content":null},"finish_reason":"stop"}]}`)
	return append(v.chats(end), parallel, nameless, signed, thinks, empty)
}

func vertexKind() providertest.Kind {
	const base = "/v1/projects/p/locations/global/endpoints/openapi"
	v := googleVendor(base)
	return providertest.Kind{
		Name:    providers.KindVertex,
		Config:  providers.Config{URL: base, Models: []string{"google/gemini-2.5-flash", "meta/llama-4"}},
		Dialect: openAIStream(),
		Server: func() http.Handler {
			return providertest.Routes(map[string]string{"GET " + base + "/models": "404 <!DOCTYPE html><title>Error 404 (Not Found)!!1</title>"})
		},
		Models:    []providers.Model{remote("google/gemini-2.5-flash", chatOnly, 0, nil), remote("meta/llama-4", chatOnly, 0, nil)},
		Exchanges: googleExchanges(&v),
		Failures:  googleFailures(),
	}
}

func geminiKind() providertest.Kind {
	v := googleVendor("/v1beta/openai")
	return providertest.Kind{
		Name: providers.KindVertex, Label: "vertex (Gemini API)",
		Config:  providers.Config{URL: "/v1beta/openai/"},
		Dialect: openAIStream(),
		Server: func() http.Handler {
			return providertest.Routes(map[string]string{"GET /v1beta/openai/models": `{"object":"list","data":[{"id":"models/gemini-2.5-flash","object":"model","owned_by":"google","display_name":"Gemini 2.5 Flash"},{"id":"models/gemini-embedding-001","object":"model","owned_by":"google"},{"id":"models/imagen-4.0-generate-001","object":"model","owned_by":"google"},{"id":"models/gemini-2.5-flash-preview-tts","object":"model","owned_by":"google"}]}`})
		},
		Models:    []providers.Model{remote("gemini-2.5-flash", chatOnly, 0, nil), remote("gemini-embedding-001", embedding, 0, nil)},
		Empty:     map[string]string{"GET /v1beta/openai/models": `{"object":"list","data":[]}`},
		Exchanges: append(googleExchanges(&v), v.embeddings("")),
		Failures:  googleFailures(),
	}
}

func googleFailures() []providertest.Failure {
	const spent = `[{"error":{"code":429,"message":"You exceeded your current quota, please check your plan and billing details. … Please retry in 34.4s.","status":"RESOURCE_EXHAUSTED","details":[
 {"@type":"type.googleapis.com/google.rpc.QuotaFailure","violations":[{"quotaMetric":"generativelanguage.googleapis.com/generate_content_free_tier_requests","quotaId":"GenerateRequestsPer`
	const more = `PerProjectPerModel-FreeTier","quotaDimensions":{"location":"global","model":"gemini-3-pro"},"quotaValue":"5"}]},
 {"@type":"type.googleapis.com/google.rpc.Help","links":[{"description":"Learn more about Gemini API quotas","url":"https://ai.google.dev/gemini-api/docs/rate-limits"}]},
 {"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"34.4s"}]}}]`
	return []providertest.Failure{
		{Status: 429, Body: "[{\n  \"error\": {\n    \"code\": 429,\n    \"message\": \"Resource has been exhausted (e.g. check quota).\",\n    \"status\": \"RESOURCE_EXHAUSTED\"\n  }\n}\n]", Want: schemas.RateLimited},
		{Status: 429, Body: spent + "Minute" + more, Want: schemas.RateLimited, Retry: 34400 * time.Millisecond},
		{Status: 429, Body: spent + "Day" + more, Want: schemas.QuotaExhausted},
		{Status: 429, Body: `[{"error":{"code":429,"message":"You exceeded your current quota.\n* Quota exceeded for metric: generativelanguage.googleapis.com/generate_content_free_tier_requests, limit: 0, model: gemini-3-pro","status":"RESOURCE_EXHAUSTED","details":[{"violations":[{"quotaId":"GenerateRequestsPerMinutePerProjectPerModel-FreeTier"}]},{"retryDelay":"2.500s"}]}}]`, Want: schemas.QuotaExhausted},
		{Status: 429, Body: `[{"error":{"code":429,"message":"Resource exhausted. Please try again later. Please refer to https://cloud.google.com/vertex-ai/generative-ai/docs/error-code-429 for more details.","status":"RESOURCE_EXHAUSTED"}}]`, Want: schemas.RateLimited},
		{Status: 400, Body: `[{"error":{"code":400,"message":"API key not valid. Please pass a valid API key.","status":"INVALID_ARGUMENT","details":[{"@type":"type.googleapis.com/google.rpc.ErrorInfo","reason":"API_KEY_INVALID","domain":"googleapis.com"}]}}]`, Want: schemas.Auth},
		{Status: 401, Body: `[{"error":{"code":401,"message":"Request had invalid authentication credentials. Expected OAuth 2 access token, login cookie or other valid authentication credential.","status":"UNAUTHENTICATED"}}]`, Want: schemas.Auth},
		{Status: 400, Body: `[{"error":{"code":400,"message":"Function call is missing a thought_signature in functionCall parts","status":"INVALID_ARGUMENT"}}]`, Want: schemas.InvalidRequest},
		{Status: 400, Body: `[{"error":{"code":400,"message":"The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).","status":"INVALID_ARGUMENT"}}]`, Want: schemas.ContextOverflow},
		{Status: 404, Body: `[{"error":{"code":404,"message":"models/gemini-pro is not found for API version v1beta, or is not supported for generateContent. Call ListModels to see the list of available models and their supported methods.","status":"NOT_FOUND"}}]`, Want: schemas.ModelNotFound},
		{Status: 503, Body: `[{"error":{"code":503,"message":"The model is overloaded. Please try again later.","status":"UNAVAILABLE"}}]`, Want: schemas.Overloaded},
		{Status: 504, Body: `[{"error":{"code":504,"message":"Deadline expired before operation could complete.","status":"DEADLINE_EXCEEDED"}}]`, Want: schemas.UpstreamError},
	}
}
