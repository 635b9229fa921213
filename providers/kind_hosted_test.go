package providers_test

import (
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/vramjet/vramjet/providers"
	"github.com/vramjet/vramjet/providers/providertest"
	"github.com/vramjet/vramjet/schemas"
)

// hostedKinds are the hosted APIs that speak OpenAI's, but for Google's and the
// clouds'.
func hostedKinds() []providertest.Kind {
	return append([]providertest.Kind{openAIKind(), openRouterKind(), togetherKind(), liteLLMKind()}, cloudKinds()...)
}

// A vendor is how a hosted API writes streams.
type vendor struct {
	base, query string // of its URLs, around the path
	head        string // what comes before all chunks
	chunk       string // takes a delta
	last        string // takes a delta and a finish reason, and ends the stream
}

// stream returns a whole stream of those deltas.
func (v *vendor) stream(finish string, deltas ...string) string {
	var b strings.Builder
	b.WriteString(v.head)
	for _, d := range deltas[:len(deltas)-1] {
		fmt.Fprintf(&b, v.chunk, d)
	}
	fmt.Fprintf(&b, v.last, deltas[len(deltas)-1], finish)
	return b.String()
}

// chat is an exchange of a chat: members are what the request has beside its
// messages, and must reach the vendor as they are.
func (v *vendor) chat(proves providertest.Ability, members, answer, want string) providertest.Exchange {
	body := `"messages":[{"role":"user","content":"hi"}]` + members
	if strings.Contains(members, `"messages"`) {
		body = strings.TrimPrefix(members, ",")
	}
	return providertest.Exchange{
		Proves:  proves,
		Request: "{" + body + "}",
		Path:    v.base + "/chat/completions" + v.query,
		Sent:    `{"model":"m","stream":true,"stream_options":{"include_usage":true},` + body + "}",
		Answer:  answer,
		Want:    want,
	}
}

// The members of requests for what not every model can do.
const (
	offersTools = `,"tools":[{"type":"function","function":{"name":"get","parameters":{"type":"object"}}}],"tool_choice":"auto"`
	showsImage  = `,"messages":[{"role":"user","content":[{"type":"text","text":"what?"},{"type":"image_url","image_url":{"url":"data:image/png;base64,AAEC"}}]}]`
	wantsSchema = `,"response_format":{"type":"json_schema","json_schema":{"name":"n","strict":true,"schema":{"type":"object"}}}`
	toThink     = `,"reasoning_effort":"low"`
)

// chats are what all vendors can do. end is the delta that a finish reason comes
// with.
func (v *vendor) chats(end string) []providertest.Exchange {
	return []providertest.Exchange{
		v.chat(providertest.Chat, `,"max_completion_tokens":9,"seed":1,"member_of_tomorrow":{"x":[1]}`,
			v.stream("stop", `{"role":"assistant","content":"","refusal":null}`, `{"content":"Hel"}`, `{"content":"lo"}`, end),
			`{"object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant","content":"Hello"},"finish_reason":"stop"}]}`),
		v.chat(providertest.Vision, showsImage, v.stream("stop", `{"content":"A dot."}`, end), `{"choices":[{"message":{"content":"A dot."}}]}`),
		v.chat(providertest.Schema, wantsSchema, v.stream("stop", `{"content":"{\"a\":1}"}`, end), `{"choices":[{"message":{"content":"{\"a\":1}"}}]}`),
	}
}

// tools is an exchange of parallel tool calls, as OpenAI streams them: by their
// index, in pieces.
func (v *vendor) tools(end string) providertest.Exchange {
	return v.chat(providertest.Tools, offersTools,
		v.stream("tool_calls",
			`{"role":"assistant","content":null,"tool_calls":[{"index":0,"id":"call_a","type":"function","function":{"name":"get","arguments":""}}]}`,
			`{"tool_calls":[{"index":0,"function":{"arguments":"{\"city\":"}}]}`, `{"tool_calls":[{"index":0,"function":{"arguments":"\"Oslo\"}"}}]}`,
			`{"tool_calls":[{"index":1,"id":"call_b","type":"function","function":{"name":"get","arguments":"{}"}}]}`, end),
		`{"choices":[{"message":{"content":null,"tool_calls":[{"id":"call_a","type":"function","function":{"name":"get","arguments":"{\"city\":\"Oslo\"}"}},{"id":"call_b","type":"function","function":{"name":"get","arguments":"{}"}}]},"finish_reason":"tool_calls"}]}`)
}

// completion is an exchange of a completion, embeddings one of embeddings.
func (v *vendor) completion(finish string) providertest.Exchange {
	const chunk = `data: {"id":"cmpl-1","object":"text_completion","created":1,"model":"m","choices":[{"text":%q,"index":0,"logprobs":null,"finish_reason":%s}]%s}` + "\n\n"
	return providertest.Exchange{
		Proves: providertest.Completion, Kind: schemas.Completion,
		Request: `{"prompt":"Once","max_tokens":3}`,
		Path:    v.base + "/completions" + v.query,
		Sent:    `{"model":"m","stream":true,"prompt":"Once","max_tokens":3}`,
		Answer:  fmt.Sprintf(chunk, " upon", "null", "") + fmt.Sprintf(chunk, " a", quoted(finish), `,"usage":{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3}`) + "data: [DONE]\n\n",
		Want:    `{"object":"text_completion","choices":[{"text":" upon a","finish_reason":"stop"}],"usage":{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3}}`,
	}
}

func (v *vendor) embeddings(usage string) providertest.Exchange {
	return providertest.Exchange{
		Proves: providertest.Embeddings, Kind: schemas.Embedding,
		Request: `{"input":["a","b"],"dimensions":2}`,
		Path:    v.base + "/embeddings" + v.query,
		Sent:    `{"model":"m","input":["a","b"],"dimensions":2}`,
		Answer:  `{"object":"list","data":[{"object":"embedding","embedding":[0.5,-1],"index":0},{"object":"embedding","embedding":[2,3],"index":1}],"model":"m"` + usage + `}`,
		Want:    `{"object":"list","model":"m","data":[{"index":0,"embedding":[0.5,-1]},{"index":1,"embedding":[2,3]}],"usage":{"prompt_tokens":2,"total_tokens":2}}`,
	}
}

const twoTokens = `,"usage":{"prompt_tokens":2,"total_tokens":2}`

// A remote model is one of a hosted API.
func remote(name string, kinds []schemas.Kind, context int, abilities []providers.Ability) providers.Model {
	return providers.Model{Name: name, Kinds: kinds, State: schemas.Remote, Context: context, Abilities: abilities}
}

var (
	chatOnly  = []schemas.Kind{schemas.Chat}
	embedding = []schemas.Kind{schemas.Embedding}
)

func openAIVendor() vendor {
	const chunk = `data: {"id":"chatcmpl-D8Z5oo6uDh67AD85p73ksdT1KxhE0","object":"chat.completion.chunk","created":1770933892,"model":"gpt-4.1-nano-2025-04-14","service_tier":"default","system_fingerprint":"fp_de604bd877","choices":[{"index":0,"delta":%s,"logprobs":null,"finish_reason":null}],"usage":null,"obfuscation":"Qup1BsQ3"}` + "\n\n"
	return vendor{
		base: "/v1", chunk: chunk,
		last: strings.Replace(chunk, `"finish_reason":null`, `"finish_reason":"%s"`, 1) +
			`data: {"id":"chatcmpl-D8Z5oo6uDh67AD85p73ksdT1KxhE0","object":"chat.completion.chunk","created":1770933892,"model":"gpt-4.1-nano-2025-04-14","service_tier":"default","system_fingerprint":"fp_de604bd877","choices":[],"usage":{"prompt_tokens":16,"completion_tokens":300,"total_tokens":316,"prompt_tokens_details":{"cached_tokens":0,"audio_tokens":0},"completion_tokens_details":{"reasoning_tokens":64,"audio_tokens":0,"accepted_prediction_tokens":0,"rejected_prediction_tokens":0}},"obfuscation":"h9RiQLL"}` + "\n\ndata: [DONE]\n\n",
	}
}

// thinks is an exchange of a model whose thoughts are only counted.
func (v *vendor) thinks(end string) providertest.Exchange {
	return v.chat(providertest.Reasoning, toThink, v.stream("stop", `{"content":"Yes"}`, end), `{"choices":[{"message":{"content":"Yes"}}],"usage":{"completion_tokens_details":{"reasoning_tokens":64}}}`)
}

func openAIKind() providertest.Kind {
	v := openAIVendor()
	refusal := v.chat("", "", v.stream("stop", `{"role":"assistant","content":null,"refusal":""}`, `{"refusal":"I'm sorry, "}`, `{"refusal":"no."}`, "{}"),
		`{"choices":[{"message":{"content":null,"refusal":"I'm sorry, no."},"finish_reason":"stop"}]}`)
	return providertest.Kind{
		Name:    providers.KindOpenAI,
		Dialect: openAIStream(),
		Server: func() http.Handler {
			return providertest.Routes(map[string]string{"GET /v1/models": `{"object":"list","data":[{"id":"gpt-4.1-nano","object":"model","created":1686935002,"owned_by":"openai","shutdown_date":null},` +
				`{"id":"text-embedding-3-small","object":"model","created":1705948997,"owned_by":"system"},{"id":"whisper-1","object":"model","created":1677532384,"owned_by":"openai-internal"},{"id":"tts-1-hd","object":"model"},` +
				`{"id":"dall-e-3","object":"model"},{"id":"gpt-image-1","object":"model"},{"id":"gpt-4o-transcribe","object":"model"},{"id":"gpt-realtime","object":"model"},{"id":"omni-moderation-latest","object":"model"},{"id":"sora-2","object":"model"}]}`})
		},
		Models:    []providers.Model{remote("gpt-4.1-nano", text, 0, nil), remote("text-embedding-3-small", embedding, 0, nil)},
		Empty:     map[string]string{"GET /v1/models": `{"object":"list","data":[]}`},
		Exchanges: append(v.chats("{}"), v.tools("{}"), v.thinks("{}"), v.completion("stop"), v.embeddings(twoTokens), refusal),
		Failures:  openAIFailures(),
	}
}

func openAIFailures() []providertest.Failure {
	return []providertest.Failure{
		{Status: 401, Body: `{"error":{"message":"Incorrect API key provided: sk-abc***xyz. You can find your API key at https://platform.openai.com/account/api-keys.","type":"invalid_request_error","param":null,"code":"invalid_api_key"}}`, Want: schemas.Auth},
		{Status: 429, Body: `{"error":{"message":"You exceeded your current quota, please check your plan and billing details. For more information on this error, read the docs: https://platform.openai.com/docs/guides/error-codes/api-errors.","type":"insufficient_quota","param":null,"code":"insufficient_quota"}}`, Want: schemas.QuotaExhausted},
		{Status: 429, Header: map[string]string{"X-Ratelimit-Remaining-Tokens": "0", "X-Ratelimit-Reset-Tokens": "6m0s"}, Body: `{"error":{"message":"Rate limit reached for gpt-4o in organization org-x on tokens per min (TPM): Limit 30000, Used 29000, Requested 2000. Please try again in 2s.","type":"tokens","param":null,"code":"rate_limit_exceeded"}}`, Want: schemas.RateLimited, Retry: 6 * time.Minute},
		{Status: 429, Header: map[string]string{"Retry-After": "20", "Retry-After-Ms": "20500"}, Body: `{"error":{"message":"Rate limit reached","type":"requests","param":null,"code":"rate_limit_exceeded"}}`, Want: schemas.RateLimited, Retry: 20500 * time.Millisecond},
		{Status: 429, Body: `{"error":{"message":"Request too large for gpt-4o in organization org-x on tokens per min (TPM): Limit 30000, Requested 45000.","type":"tokens","param":null,"code":"rate_limit_exceeded"}}`, Want: schemas.Unsupported},
		{Status: 400, Body: `{"error":{"message":"This model's maximum context length is 128000 tokens. However, your messages resulted in 130000 tokens.","type":"invalid_request_error","param":"messages","code":"context_length_exceeded"}}`, Want: schemas.ContextOverflow},
		{Status: 404, Body: "{\"error\":{\"message\":\"The model `gpt-9` does not exist or you do not have access to it.\",\"type\":\"invalid_request_error\",\"param\":null,\"code\":\"model_not_found\"}}", Want: schemas.ModelNotFound},
		{Status: 404, Body: `{"error":{"message":"This is a chat model and not supported in the v1/completions endpoint. Did you mean to use v1/chat/completions?","type":"invalid_request_error","param":"model","code":null}}`, Want: schemas.Unsupported},
		{Status: 400, Body: `{"error":{"message":"Invalid prompt: your prompt was flagged as potentially violating our usage policy.","type":"invalid_request_error","param":null,"code":"invalid_prompt"}}`, Want: schemas.ContentFiltered},
		{Status: 400, Body: `{"error":{"message":"Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.","type":"invalid_request_error","param":"max_tokens","code":"unsupported_parameter"}}`, Want: schemas.Unsupported},
		{Status: 503, Body: `{"error":{"message":"The engine is currently overloaded, please try again later","type":"server_error","param":null,"code":null}}`, Want: schemas.Overloaded},
		{Status: 200, Body: `data: {"error":{"message":"The server had an error while processing your request. Sorry about that!","type":"server_error","param":null,"code":null}}` + "\n\n", Want: schemas.UpstreamError},
	}
}
