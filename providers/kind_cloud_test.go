package providers_test

import (
	"net/http"
	"strings"
	"time"

	"github.com/vramjet/vramjet/providers"
	"github.com/vramjet/vramjet/providers/providertest"
	"github.com/vramjet/vramjet/schemas"
)

// cloudKinds are Azure and Bedrock, each by both of its ways.
func cloudKinds() []providertest.Kind {
	return []providertest.Kind{
		azureKind("", "/openai/v1", "/openai/v1", "", "/openai/v1/models"),
		azureKind("azure (deployments)", "/?api-version=2024-10-21", "/openai/deployments/m", "?api-version=2024-10-21", "/openai/models?api-version=2024-10-21"),
		bedrockKind(), mantleKind(),
	}
}

// azureKind is Azure with that URL, whose requests go to base and query, and whose
// list is elsewhere.
func azureKind(label, url, base, query, list string) providertest.Kind {
	const (
		hate     = `{"hate":{"filtered":false,"severity":"safe"},"jailbreak":{"filtered":false,"detected":false}}`
		envelope = `"created":1762317021,"id":"chatcmpl-CYPS1lijGoK8gd9lYzY3r9Sx50nbt","model":"gpt-5-nano-2025-08-07","obfuscation":"x","object":"chat.completion.chunk","system_fingerprint":null,"usage":`
		between  = `data: {"id":"","object":"","created":0,"model":"","choices":[{"index":0,"finish_reason":%s,"content_filter_results":{"hate":{"filtered":false,"severity":"safe"}},"content_filter_offsets":{"check_offset":506,"start_offset":44,"end_offset":571}}],"usage":null} ` + "\n\n"
	)
	v := vendor{
		base: base, query: query,
		head:  `data: {"choices":[],"created":0,"id":"","model":"","object":"","prompt_filter_results":[{"prompt_index":0,"content_filter_results":` + hate + `}]}` + "\n\n",
		chunk: `data: {"choices":[{"content_filter_results":{},"delta":%s,"finish_reason":null,"index":0,"logprobs":null}],` + envelope + "null}\n\n",
		last: `data: {"choices":[{"content_filter_results":{},"delta":%s,"finish_reason":"%s","index":0,"logprobs":null}],` + envelope + "null}\n\n" +
			`data: {"choices":[],` + envelope + `{"completion_tokens":78,"completion_tokens_details":{"reasoning_tokens":64},"prompt_tokens":15,"prompt_tokens_details":{"audio_tokens":0,"cached_tokens":0},"total_tokens":93}}` + "\n\ndata: [DONE] \n\n",
	}
	whole := v.stream("stop", `{"content":"Copenhagen"}`, "{}")
	late := func(finish string) string {
		return strings.Replace(whole, "data: [DONE]", strings.Replace(between, "%s", finish, 1)+"data: [DONE]", 1)
	}
	filtered := v.chat("", "", late("null"),
		`{"id":"chatcmpl-CYPS1lijGoK8gd9lYzY3r9Sx50nbt","created":1762317021,"model":"gpt-5-nano-2025-08-07","prompt_filter_results":[{"prompt_index":0}],"choices":[{"message":{"content":"Copenhagen"},"finish_reason":"stop"}],"usage":{"total_tokens":93}}`)
	corrected := v.chat("", "", late(`"content_filter"`), `{"choices":[{"message":{"content":"Copenhagen"},"finish_reason":"content_filter"}]}`)
	d := openAIStream()
	d.End = strings.Replace(d.End, "[DONE]", "[DONE] ", 1)
	return providertest.Kind{
		Name: providers.KindAzure, Label: label,
		Config:    providers.Config{URL: url, Models: []string{"my-gpt", "my-embedding", "gpt-*"}},
		Dialect:   d,
		Server:    func() http.Handler { return queried(map[string]string{"GET " + list: azureCatalogue}) },
		Models:    []providers.Model{remote("my-gpt", text, 0, nil), remote("my-embedding", embedding, 0, nil)},
		Exchanges: append(v.chats("{}"), v.tools("{}"), v.thinks("{}"), v.completion("stop"), v.embeddings(twoTokens), filtered, corrected),
		Failures:  azureFailures(),
	}
}

const azureCatalogue = `{"data":[{"status":"succeeded","capabilities":{"fine_tune":true,"inference":true,"completion":true,"chat_completion":false,"embeddings":false},"lifecycle_status":"generally-available","deprecation":{"fine_tune":1677662127,"inference":1709284527},"id":"curie","created_at":1646126127,"object":"model"}],"object":"list"}`

func azureFailures() []providertest.Failure {
	return []providertest.Failure{
		{Status: 400, Body: `{"error":{"message":"The response was filtered due to the prompt triggering Azure OpenAI's content management policy. Please modify your prompt and retry.","type":null,"param":"prompt","code":"content_filter","status":400,"innererror":{"code":"ResponsibleAIPolicyViolation","content_filter_result":{"sexual":{"filtered":true,"severity":"high"}}}}}`, Want: schemas.ContentFiltered},
		{Status: 404, Body: `{"error":{"type":"invalid_request_error","code":"DeploymentNotFound","message":"The API deployment for this resource does not exist. If you created the deployment within the last 5 minutes, please wait a moment and try again."}}`, Want: schemas.ModelNotFound},
		{Status: 404, Body: `{"error":{"code":"404","message": "Resource not found"}}`, Want: schemas.Unsupported},
		{Status: 401, Body: `{"error":{"code":"401","message":"Access denied due to invalid subscription key or wrong API endpoint. Make sure to provide a valid key for an active subscription and use a correct regional API endpoint for your resource."}}`, Want: schemas.Auth},
		{
			Status: 429, Want: schemas.RateLimited, Retry: time.Second,
			Header: map[string]string{"Retry-After": "1", "Retry-After-Ms": "0", "X-Ratelimit-Remaining-Requests": "4", "X-Ratelimit-Remaining-Tokens": "0", "X-Ratelimit-Reset-Requests": "12", "X-Ratelimit-Reset-Tokens": "0"},
			Body:   `{"error":{"code":"429","message":"Rate limit is exceeded. Try again in 2 seconds."}}`,
		},
		{
			Status: 429, Want: schemas.RateLimited, Retry: 12 * time.Second,
			Header: map[string]string{"X-Ratelimit-Remaining-Requests": "0", "X-Ratelimit-Reset-Requests": "12"},
			Body:   `{"error":{"code":"429","message":"Requests to the ChatCompletions_Create Operation under Azure OpenAI API version 2024-05-01-preview have exceeded token rate limit of your current OpenAI S0 pricing tier. Please retry after 86400 seconds."}}`,
		},
	}
}

// bedrockVendor is how Bedrock streams, by either of its ways.
func bedrockVendor(base string) vendor {
	const chunk = `data: {"id":"chatcmpl-92abcdef","object":"chat.completion.chunk","created":1757000000,"model":"openai.gpt-oss-20b-1:0","service_tier":"default","choices":[{"index":0,"delta":%s,"finish_reason":null}]}` + "\n\n"
	return vendor{
		base: base, chunk: chunk,
		last: strings.NewReplacer(`"finish_reason":null`, `"finish_reason":"%[2]s"`, "%s", "%[1]s").Replace(chunk) +
			`data: {"id":"chatcmpl-92abcdef","object":"chat.completion.chunk","created":1757000000,"model":"openai.gpt-oss-20b-1:0","choices":[],"usage":{"prompt_tokens":7,"completion_tokens":3,"total_tokens":10}}` + "\n\ndata: [DONE]\n\n",
	}
}

// bedrockKind is bedrock-runtime: it has no list of models.
func bedrockKind() providertest.Kind {
	v := bedrockVendor("/openai/v1")
	thinks := v.chat(providertest.Reasoning, toThink, v.stream("stop", `{"role":"assistant","content":"<reasoning>We just reply"}`, `{"content":"</reasoning>pong"}`, "{}"),
		`{"choices":[{"message":{"content":"<reasoning>We just reply</reasoning>pong"}}]}`) // as it comes
	return providertest.Kind{
		Name:    providers.KindBedrock,
		Config:  providers.Config{URL: "/openai/v1", Models: []string{"openai.gpt-oss-20b-1:0", "us.openai.gpt-5.6-terra"}},
		Dialect: openAIStream(),
		Server: func() http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("X-Amzn-Errortype", "UnknownOperationException:http://internal.amazon.com/coral/com.amazon.coral.service/")
				w.WriteHeader(http.StatusNotFound)
				_, _ = w.Write([]byte(`{"Message":null}`))
			})
		},
		Models:    []providers.Model{remote("openai.gpt-oss-20b-1:0", chatOnly, 0, nil), remote("us.openai.gpt-5.6-terra", chatOnly, 0, nil)},
		Exchanges: append(v.chats("{}"), v.tools("{}"), thinks),
		Failures:  bedrockOpenAIFailures(),
	}
}

// mantleKind is bedrock-mantle, with models that are below "/openai" only: its list
// is not.
func mantleKind() providertest.Kind {
	v := bedrockVendor("/openai/v1")
	return providertest.Kind{
		Name: providers.KindBedrock, Label: "bedrock (mantle)",
		Config:  providers.Config{URL: "/openai/v1"},
		Dialect: openAIStream(),
		Server: func() http.Handler {
			return providertest.Routes(map[string]string{"GET /v1/models": `{"object":"list","data":[{"id":"openai.gpt-oss-120b","object":"model","created":1764288000,"owned_by":"system"},{"id":"mistral.devstral-2-123b","object":"model"},{"id":"amazon.titan-embed-text-v2","object":"model"}]}`})
		},
		Models:    []providers.Model{remote("openai.gpt-oss-120b", chatOnly, 0, nil), remote("mistral.devstral-2-123b", chatOnly, 0, nil)},
		Empty:     map[string]string{"GET /v1/models": `{"object":"list","data":[]}`},
		Exchanges: append(v.chats("{}"), v.tools("{}")),
		Failures:  bedrockOpenAIFailures(),
	}
}

func bedrockOpenAIFailures() []providertest.Failure {
	amazon := func(kind string) map[string]string {
		return map[string]string{"X-Amzn-Errortype": kind + ":http://internal.amazon.com/coral/com.amazon.bedrock/", "X-Amzn-Requestid": "1"}
	}
	return []providertest.Failure{
		{Status: 403, Body: `{"Message":"User: arn:aws:iam::123456789012:user/x is not authorized to perform: bedrock:InvokeModel on resource: arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.anthropic.claude-haiku-4-5-20251001-v1:0 because no identity-based policy allows the bedrock:InvokeModel action"}`, Want: schemas.Permission},
		{Status: 403, Header: amazon("UnrecognizedClientException"), Body: `{"message":"The security token included in the request is invalid."}`, Want: schemas.Auth},
		{Status: 400, Header: amazon("NotAuthorized"), Body: `{"message":"x"}`, Want: schemas.Permission},
		{Status: 429, Header: amazon("ThrottlingException"), Body: `{"message":"Too many requests, please wait before trying again."}`, Want: schemas.RateLimited},
		{Status: 400, Header: amazon("ThrottlingException"), Body: `{"message":"x"}`, Want: schemas.RateLimited},
		{Status: 400, Header: amazon("ServiceQuotaExceededException"), Body: `{"message":"x"}`, Want: schemas.QuotaExhausted},
		{Status: 503, Header: amazon("ServiceUnavailable"), Body: `{"message":"x"}`, Want: schemas.Overloaded},
		{Status: 500, Header: amazon("InternalFailure"), Body: `{"message":"x"}`, Want: schemas.UpstreamError},
		{Status: 400, Header: amazon("ValidationException"), Body: `{"message":"x"}`, Want: schemas.InvalidRequest},
		{Status: 404, Body: `{"error":{"code":"not_found_error","message":"The model 'us-gov-west-1/xai.grok-4.3' does not exist","param":null,"type":"invalid_request_error"}}`, Want: schemas.ModelNotFound},
		{Status: 400, Body: `{"error":{"message":"The model 'openai.gpt-5.6-terra' does not support the '/v1/chat/completions' API","type":"invalid_request_error"}}`, Want: schemas.Unsupported},
		{Status: 404, Body: "{\"error\":{\"message\":\"model `x` isn't supported on this route\",\"type\":\"invalid_request_error\"}}", Want: schemas.Unsupported},
	}
}
