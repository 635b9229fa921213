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

// events writes data as Anthropic does: each with the name of its type.
func events(data ...string) string {
	var b strings.Builder
	for _, d := range data {
		_, rest, _ := strings.Cut(strings.ReplaceAll(d, `": "`, `":"`), `"type":"`)
		name, _, _ := strings.Cut(rest, `"`)
		fmt.Fprintf(&b, "event: %s\ndata: %s\n\n", name, d)
	}
	return b.String()
}

const anthropicPing = `{"type": "ping"}`

// anthropicEvents is a stream with all events and deltas that are documented, in
// the form in which they were recorded: the blanks at the end of some are real.
var anthropicEvents = events(
	`{"type":"message_start","message":{"model":"claude-sonnet-5","id":"msg_011CdZqGg4K3tq97K7RDtTw7","type":"message","role":"assistant","content":[],"stop_reason":null,"stop_sequence":null,"stop_details":null,"usage":{"input_tokens":47,"cache_creation_input_tokens":0,"cache_read_input_tokens":0,"cache_creation":{"ephemeral_5m_input_tokens":0,"ephemeral_1h_input_tokens":0},"output_tokens":2,"service_tier":"standard","inference_geo":"global"}}  }`,
	`{"type":"content_block_start","index":0,"content_block":{"type":"thinking","thinking":"","signature":""}}`,
	anthropicPing,
	`{"type":"content_block_delta","index":0,"delta":{"type":"thinking_delta","thinking":"I"}          }`,
	`{"type":"content_block_delta","index":0,"delta":{"type":"thinking_delta","thinking":"'m working through the \"Euclidean\" algorithm"}        }`,
	`{"type":"content_block_delta","index":0,"delta":{"type":"signature_delta","signature":"EsECCokBCBAYAipA9i3HF1aHpQITkdN8OvLd33gd"}       }`,
	`{"type":"content_block_stop","index":0        }`,
	`{"type":"content_block_start","index":1,"content_block":{"type":"redacted_thinking","data":"EmwKAhgBEgy3va3pzix/LafPsn4a"}}`,
	`{"type":"content_block_stop","index":1}`,
	`{"type":"content_block_start","index":2,"content_block":{"type":"text","text":""}}`,
	`{"type":"content_block_delta","index":2,"delta":{"type":"text_delta","text":"gcd = 21, \"wörld\" \\ \ud83d\ude00"}   }`,
	`{"type":"content_block_delta","index":2,"delta":{"type":"citations_delta","citation":{"type":"char_location","cited_text":"x","document_index":0}}}`,
	`{"type":"content_block_delta","index":2,"delta":{"type":"text_delta","text":"\n😀"}}`,
	`{"type":"content_block_stop","index":2       }`,
	`{"type":"content_block_start","index":3,"content_block":{"type":"server_tool_use","id":"srvtoolu_1","name":"web_search","input":{}}}`,
	`{"type":"content_block_delta","index":3,"delta":{"type":"input_json_delta","partial_json":"{\"query\":1}"}}`,
	`{"type":"content_block_stop","index":3}`,
	`{"type":"an_event_of_tomorrow","delta":{"type":"text_delta","text":"no"}}`,
	`{"type":"content_block_start","index":4,"content_block":{"type":"tool_use","id":"toolu_01T1x1fJ34qAmk2tNTrN7Up6","name":"get_weather","input":{}}}`,
	`{"type":"content_block_delta","index":4,"delta":{"type":"input_json_delta","partial_json":""}}`,
	`{"type":"content_block_delta","index":4,"delta":{"type":"input_json_delta","partial_json":"{\"location\":"}}`,
	`{"type":"content_block_delta","index":4,"delta":{"type":"input_json_delta","partial_json":" \"San Francisco, CA\"}"}}`,
	`{"type":"content_block_stop","index":4}`,
	`{"type":"message_delta","delta":{"stop_reason":"tool_use","stop_sequence":null,"stop_details":null},"usage":{"input_tokens":61,"cache_creation_input_tokens":8,"cache_read_input_tokens":1024,"output_tokens":373,"output_tokens_details":{"thinking_tokens":62}}    }`,
	`{"type":"message_stop"               }`,
)

func anthropicStream() providertest.Dialect {
	return providertest.Dialect{
		ContentType: "text/event-stream; charset=utf-8",
		Chunk: func(text string) string {
			return events(fmt.Sprintf(`{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":%s}}`, quoted(text)))
		},
		End: events(`{"type":"content_block_stop","index":0}`,
			`{"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null},"usage":{"input_tokens":12,"cache_creation_input_tokens":0,"cache_read_input_tokens":0,"output_tokens":30}}`,
			`{"type":"message_stop"}`),
		Error:   events(`{"type": "error", "error": {"type": "api_error", "message": "Internal server error"}}`),
		Comment: events(anthropicPing),
		Stream:  anthropicEvents,
		Text:    "gcd = 21, \"wörld\" \\ 😀\n😀",
	}
}

// anthropicServer lists its models on two pages, to those who have the key.
func anthropicServer(w http.ResponseWriter, r *http.Request) {
	fail := func(status int, kind, message string) {
		w.WriteHeader(status)
		fmt.Fprintf(w, `{"type":"error","error":{"type":%q,"message":%q},"request_id":"req_011CSHoEeqs5C35K2UUqR7Fy"}`, kind, message)
	}
	can := func(images, thinking bool) string {
		return fmt.Sprintf(`{"batch":{"supported":true},"effort":{"supported":true,"low":{"supported":true},"xhigh":null},"image_input":{"supported":%t},"pdf_input":{"supported":true},"structured_outputs":{"supported":true},"thinking":{"supported":%t,"types":{"adaptive":{"supported":%t},"enabled":{"supported":%t}}}}`, images, thinking, thinking, thinking)
	}
	switch q := r.URL.Query(); {
	case r.Header.Get("X-Api-Key") != "sk-ant-test" || r.Header.Get("Authorization") != "":
		fail(http.StatusUnauthorized, "authentication_error", "invalid x-api-key")
	case r.Header.Get("Anthropic-Version") != "2023-06-01" || q.Get("limit") != "1000":
		fail(http.StatusBadRequest, "invalid_request_error", "what is this?")
	case r.Method != http.MethodGet || r.URL.Path != "/v1/models":
		fail(http.StatusNotFound, "not_found_error", "The requested resource could not be found.")
	case q.Get("after_id") == "":
		fmt.Fprintf(w, `{"data":[{"type":"model","id":"claude-opus-4-6","display_name":"Claude Opus 4.6","created_at":"2026-02-04T00:00:00Z","max_input_tokens":1000000,"max_tokens":128000,"capabilities":%s},
{"type":"model","id":"claude-small","display_name":"Small","created_at":"2025-02-04T00:00:00Z","max_input_tokens":200000,"max_tokens":8192,"capabilities":%s}],"has_more":true,"first_id":"claude-opus-4-6","last_id":"claude-small"}`, can(true, true), can(false, false))
	case q.Get("after_id") == "claude-small":
		fmt.Fprint(w, `{"data":[{"type":"model","id":"claude-old","display_name":"Old","created_at":"2024-02-04T00:00:00Z","max_input_tokens":null,"max_tokens":null,"capabilities":null}],"has_more":false,"first_id":"claude-old","last_id":"claude-old"}`)
	default:
		fail(http.StatusBadRequest, "invalid_request_error", "after_id: no such model")
	}
}

func anthropicKinds() []providertest.Kind {
	chat := []schemas.Kind{schemas.Chat}
	return []providertest.Kind{{
		Name:    providers.KindAnthropic,
		Config:  providers.Config{Keys: []providers.Key{{Name: "ANTHROPIC_API_KEY", Secret: func() string { return "sk-ant-test" }}}},
		Dialect: anthropicStream(),
		Server:  func() http.Handler { return http.HandlerFunc(anthropicServer) },
		Models: []providers.Model{
			{Name: "claude-opus-4-6", Kinds: chat, State: schemas.Remote, Context: 1000000, Abilities: []providers.Ability{providers.Tools, providers.Vision, providers.Reasoning}},
			{Name: "claude-small", Kinds: chat, State: schemas.Remote, Context: 200000, Abilities: []providers.Ability{providers.Tools}},
			{Name: "claude-old", Kinds: chat, State: schemas.Remote},
		},
		Empty:     map[string]string{"GET /v1/models": `{"data":[],"has_more":false,"first_id":null,"last_id":null}`},
		Exchanges: append(anthropicExchanges(), anthropicRefusals()...),
		Failures:  anthropicFailures(),
	}}
}

// anthropicSays is a stream that says that text.
func anthropicSays(text string) string {
	return events(
		`{"type":"message_start","message":{"model":"claude-sonnet-4-5-20250929","id":"msg_01QC4g3HwBThD4BaNtBckFDJ","type":"message","role":"assistant","content":[],"stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":12,"output_tokens":1}}}`,
		`{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}`,
		anthropicPing,
		`{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":`+quoted(text)+`}}`,
		`{"type":"content_block_stop","index":0}`,
		`{"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null},"usage":{"input_tokens":12,"cache_creation_input_tokens":3,"cache_read_input_tokens":5,"output_tokens":4}}`,
		`{"type":"message_stop"}`)
}

func anthropicExchanges() []providertest.Exchange {
	const thought = `{"type":"thinking","thinking":"I'm working through the \"Euclidean\" algorithm","signature":"EsECCokBCBAYAipA9i3HF1aHpQITkdN8OvLd33gd"},{"type":"redacted_thinking","data":"EmwKAhgBEgy3va3pzix/LafPsn4a"}`
	return []providertest.Exchange{
		{
			Proves: providertest.Chat,
			Request: `{"messages":[{"role":"system","content":"Be brief."},{"role":"developer","content":[{"type":"text","text":"And kind.","cache_control":{"type":"ephemeral"}}]},{"role":"user","content":"hi"},{"role":"user","content":"there"},` +
				`{"role":"assistant","content":"Yes?"},{"role":"system","content":"Be briefer."},{"role":"user","content":"now"}],` +
				`"max_completion_tokens":9,"temperature":0,"top_p":0.5,"top_k":3,"stop":"x","user":"u","service_tier":"default","n":1,"presence_penalty":0,"stream":false,"response_format":{"type":"text"}}`,
			Path: "/v1/messages",
			Sent: `{"model":"m","stream":true,"max_tokens":9,"temperature":0,"top_p":0.5,"top_k":3,"stop_sequences":["x"],"metadata":{"user_id":"u"},"service_tier":"standard_only",` +
				`"system":[{"type":"text","text":"Be brief."},{"type":"text","text":"And kind.","cache_control":{"type":"ephemeral"}},{"type":"text","text":"Be briefer."}],` +
				`"messages":[{"role":"user","content":[{"type":"text","text":"hi"},{"type":"text","text":"there"}]},{"role":"assistant","content":[{"type":"text","text":"Yes?"}]},{"role":"user","content":[{"type":"text","text":"now"}]}]}`,
			Absent: []string{"user", "max_completion_tokens", "stop", "n", "presence_penalty", "response_format", "output_config", "thinking"},
			Answer: anthropicSays("Hello"),
			Want: `{"id":"msg_01QC4g3HwBThD4BaNtBckFDJ","object":"chat.completion","model":"claude-sonnet-4-5-20250929","choices":[{"index":0,"message":{"role":"assistant","content":"Hello"},"finish_reason":"stop"}],` +
				`"usage":{"prompt_tokens":20,"completion_tokens":4,"total_tokens":24,"prompt_tokens_details":{"cached_tokens":5}}}`,
		},
		{
			Proves: providertest.Tools,
			Request: `{"messages":[{"role":"user","content":"weather?"},{"role":"assistant","content":null,"tool_calls":[{"id":"c1","type":"function","function":{"name":"get","arguments":"{\"city\":\"Oslo\"}"}},{"id":"c2","type":"function","function":{"name":"now","arguments":""}}]},` +
				`{"role":"tool","tool_call_id":"c1","content":"rain"},{"role":"tool","tool_call_id":"c2","content":[{"type":"text","text":"noon"}]},{"role":"user","content":"So?"}],` +
				`"tools":[{"type":"function","function":{"name":"get","description":"Gets","strict":true,"parameters":{"type":"object","properties":{"city":{"type":"string"}}}}},{"type":"function","function":{"name":"now"}}],"tool_choice":"required","parallel_tool_calls":false}`,
			Sent: `{"messages":[{"role":"user","content":[{"type":"text","text":"weather?"}]},` +
				`{"role":"assistant","content":[{"type":"tool_use","id":"c1","name":"get","input":{"city":"Oslo"}},{"type":"tool_use","id":"c2","name":"now","input":{}}]},` +
				`{"role":"user","content":[{"type":"tool_result","tool_use_id":"c1","content":[{"type":"text","text":"rain"}]},{"type":"tool_result","tool_use_id":"c2","content":[{"type":"text","text":"noon"}]},{"type":"text","text":"So?"}]}],` +
				`"tools":[{"name":"get","description":"Gets","strict":true,"input_schema":{"type":"object","properties":{"city":{"type":"string"}}}},{"name":"now","input_schema":{"type":"object"}}],` +
				`"tool_choice":{"type":"any","disable_parallel_tool_use":true},"max_tokens":8192}`,
			Absent: []string{"parallel_tool_calls", "system"},
			Answer: events(
				`{"type":"message_start","message":{"id":"msg_014p7gG3wDgGV9EUtLvnow3U","type":"message","role":"assistant","model":"claude-opus-4-1-20250805","stop_sequence":null,"usage":{"input_tokens":472,"output_tokens":2},"content":[],"stop_reason":null}}`,
				`{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}`,
				`{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Okay"}}`,
				`{"type":"content_block_stop","index":0}`,
				`{"type":"content_block_start","index":1,"content_block":{"type":"tool_use","id":"toolu_01T1x1fJ34qAmk2tNTrN7Up6","name":"get","input":{}}}`,
				`{"type":"content_block_delta","index":1,"delta":{"type":"input_json_delta","partial_json":""}}`,
				`{"type":"content_block_delta","index":1,"delta":{"type":"input_json_delta","partial_json":"{\"city\":"}}`,
				`{"type":"content_block_delta","index":1,"delta":{"type":"input_json_delta","partial_json":" \"Bergen\"}"}}`,
				`{"type":"content_block_stop","index":1}`,
				`{"type":"content_block_start","index":2,"content_block":{"type":"tool_use","id":"toolu_01QE1WLsSVp5hy5Q3GmGTmjP","name":"now","input":{}}}`,
				`{"type":"ping"}`,
				`{"type":"content_block_delta","index":2,"delta":{"type":"input_json_delta","partial_json":""}}`,
				`{"type":"content_block_stop","index":2}`,
				`{"type":"message_delta","delta":{"stop_reason":"tool_use","stop_sequence":null},"usage":{"output_tokens":89}}`,
				`{"type":"message_stop"}`),
			Want: `{"choices":[{"message":{"content":"Okay","tool_calls":[{"id":"toolu_01T1x1fJ34qAmk2tNTrN7Up6","type":"function","function":{"name":"get","arguments":"{\"city\": \"Bergen\"}"}},` +
				`{"id":"toolu_01QE1WLsSVp5hy5Q3GmGTmjP","type":"function","function":{"name":"now","arguments":"{}"}}]},"finish_reason":"tool_calls"}],"usage":{"prompt_tokens":472,"completion_tokens":89,"total_tokens":561}}`,
		},
		{
			Proves: providertest.Vision,
			Request: `{"messages":[{"role":"user","content":[{"type":"text","text":"what?"},{"type":"image_url","image_url":{"url":"data:image/png;base64,AAEC"}},{"type":"image_url","image_url":{"url":"https://example.com/a.jpg"}}]},` +
				`{"role":"assistant","content":"Look:","tool_calls":[{"id":"c1","type":"function","function":{"name":"shot","arguments":"{}"}}]},{"role":"tool","tool_call_id":"c1","content":[{"type":"image_url","image_url":{"url":"data:image/webp;base64,AAEC"}}]}]}`,
			Sent: `{"messages":[{"role":"user","content":[{"type":"text","text":"what?"},{"type":"image","source":{"type":"base64","media_type":"image/png","data":"AAEC"}},{"type":"image","source":{"type":"url","url":"https://example.com/a.jpg"}}]},` +
				`{"role":"assistant","content":[{"type":"text","text":"Look:"},{"type":"tool_use","id":"c1","name":"shot","input":{}}]},{"role":"user","content":[{"type":"tool_result","tool_use_id":"c1","content":[{"type":"image","source":{"type":"base64","media_type":"image/webp","data":"AAEC"}}]}]}]}`,
			Answer: anthropicSays("A dot."),
			Want:   `{"choices":[{"message":{"content":"A dot."}}]}`,
		},
		{
			// Thoughts come with their signatures, and go back with them, before all else.
			Proves: providertest.Reasoning,
			Request: `{"messages":[{"role":"user","content":"gcd?"},{"role":"assistant","content":"Let me see.","reasoning_content":"I'm working","thinking_blocks":[` + thought + `],"tool_calls":[{"id":"c1","type":"function","function":{"name":"gcd","arguments":"{}"}}]},` +
				`{"role":"tool","tool_call_id":"c1","content":"21"}],"reasoning_effort":"high","tools":[{"type":"function","function":{"name":"gcd"}}],"tool_choice":"auto"}`,
			Sent: `{"thinking":{"type":"adaptive","display":"summarized"},"output_config":{"effort":"high"},"tool_choice":{"type":"auto"},` +
				`"messages":[{"role":"user","content":[{"type":"text","text":"gcd?"}]},{"role":"assistant","content":[` + thought + `,{"type":"text","text":"Let me see."},{"type":"tool_use","id":"c1","name":"gcd","input":{}}]},` +
				`{"role":"user","content":[{"type":"tool_result","tool_use_id":"c1","content":[{"type":"text","text":"21"}]}]}]}`,
			Absent: []string{"reasoning_effort"},
			Answer: anthropicEvents,
			Want: `{"model":"claude-sonnet-5","choices":[{"message":{"role":"assistant","content":"gcd = 21, \"wörld\" \\ 😀\n😀","reasoning_content":"I'm working through the \"Euclidean\" algorithm","thinking_blocks":[` + thought + `],` +
				`"tool_calls":[{"id":"toolu_01T1x1fJ34qAmk2tNTrN7Up6","type":"function","function":{"name":"get_weather","arguments":"{\"location\": \"San Francisco, CA\"}"}}]},"finish_reason":"tool_calls"}],` +
				`"usage":{"prompt_tokens":1093,"completion_tokens":373,"total_tokens":1466,"prompt_tokens_details":{"cached_tokens":1024},"completion_tokens_details":{"reasoning_tokens":62}}}`,
		},
		{
			Proves:  providertest.Schema,
			Request: `{"messages":[{"role":"user","content":"hi"}],"response_format":{"type":"json_schema","json_schema":{"name":"n","strict":true,"schema":{"type":"object"}}},"reasoning_effort":"none"}`,
			Sent:    `{"output_config":{"format":{"type":"json_schema","schema":{"type":"object"}}},"thinking":{"type":"disabled"}}`,
			Absent:  []string{"response_format"},
			Answer:  anthropicSays("{}"),
			Want:    `{"choices":[{"message":{"content":"{}"}}]}`,
		},
		{
			// The model refuses before it says a word.
			Request: `{"messages":[{"role":"user","content":"hi"}]}`,
			Answer: events(
				`{"type":"message_start","message":{"model":"claude-fable-5","id":"msg_01RefusalStreamAbcdefghijk","type":"message","role":"assistant","content":[],"stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":18,"cache_creation_input_tokens":0,"cache_read_input_tokens":0,"output_tokens":1}}}`,
				`{"type":"ping"}`,
				`{"type":"message_delta","delta":{"stop_reason":"refusal","stop_sequence":null,"stop_details":{"type":"refusal","category":"cyber","explanation":"This request triggered restrictions.","recommended_model":"claude-fable-5"}},"usage":{"input_tokens":18,"cache_creation_input_tokens":0,"cache_read_input_tokens":0,"output_tokens":5}}`,
				`{"type":"message_stop"}`),
			Want: `{"choices":[{"message":{"role":"assistant","content":null,"refusal":"This request triggered restrictions."},"finish_reason":"content_filter"}],"usage":{"prompt_tokens":18,"completion_tokens":5,"total_tokens":23}}`,
		},
	}
}

// anthropicRefusals are requests that Anthropic could not do as they are meant.
func anthropicRefusals() []providertest.Exchange {
	var list []providertest.Exchange
	refused := func(code schemas.Code, param, request string) {
		list = append(list, providertest.Exchange{Request: request, Code: code, Param: param})
	}
	for _, m := range [][2]string{
		{"n", "2"},
		{"seed", "1"},
		{"logprobs", "true"},
		{"top_logprobs", "2"},
		{"logit_bias", `{"1":2}`},
		{"presence_penalty", "0.5"},
		{"frequency_penalty", "-1"},
		{"min_p", "0.1"},
		{"audio", `{"voice":"x"}`},
		{"modalities", `["text","audio"]`},
		{"store", "true"},
		{"response_format", `{"type":"json_object"}`},
		{"service_tier", `"flex"`},
		{"functions", "[{}]"},
		{"tool_choice", `{"type":"allowed_tools"}`},
		{"tools", `[{"type":"web_search_20250305","name":"web_search"}]`},
		{"a_member_of_tomorrow", "1"},
	} {
		refused(schemas.Unsupported, m[0], `{"messages":[{"role":"user","content":"hi"}],"`+m[0]+`":`+m[1]+`}`)
	}
	for _, m := range []string{
		`{"role":"user","content":[{"type":"input_audio","input_audio":{}}]}`,
		`{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:image/tiff;base64,AAEC"}}]}`,
		`{"role":"user","content":[{"type":"image_url","image_url":{"url":"gs://bucket/a.png"}}]}`,
		`{"role":"system","content":[{"type":"image_url","image_url":{"url":"https://example.com/a.png"}}]}`,
		`{"role":"function","name":"f","content":"1"}`,
		`{"role":"assistant","content":null,"function_call":{"name":"f","arguments":"{}"}}`,
	} {
		refused(schemas.Unsupported, "messages", `{"messages":[{"role":"user","content":"hi"},`+m+`]}`)
	}
	refused(schemas.InvalidRequest, "messages", `{"messages":[{"role":"system","content":"alone"}]}`)
	refused(schemas.InvalidRequest, "max_tokens", `{"messages":[{"role":"user","content":"hi"}],"max_tokens":0}`)
	return append(list, providertest.Exchange{Kind: schemas.Completion, Request: `{"prompt":"Once"}`, Code: schemas.Unsupported, Param: "prompt"})
}

func anthropicFailures() []providertest.Failure {
	fail := func(status int, kind, message string, want schemas.Code) providertest.Failure {
		return providertest.Failure{Status: status, Want: want, Body: fmt.Sprintf(`{"type":"error","error":{"type":%q,"message":%s},"request_id":"req_011CSHoEeqs5C35K2UUqR7Fy"}`, kind, quoted(message))}
	}
	limited := fail(429, "rate_limit_error", "This request would exceed your organization's rate limit of 40,000 input tokens per minute.", schemas.RateLimited)
	limited.Header, limited.Retry = map[string]string{"Retry-After": "12"}, 12*time.Second
	reset := limited // without retry-after, the headers tell; the bubble's clock begins with the year 2000
	reset.Header = map[string]string{"Anthropic-Ratelimit-Input-Tokens-Remaining": "0", "Anthropic-Ratelimit-Input-Tokens-Reset": "2000-01-01T00:00:30Z"}
	reset.Retry = 30 * time.Second
	return []providertest.Failure{
		limited, reset,
		{Status: 429, Body: `{"type":"error","error":{"type":"rate_limit_error","message":"You have reached your API usage limits: your organization has crossed its monthly API usage threshold, set based on your organization's API tier. You will regain access on 2026-09-01 at 00:00 UTC.","details":{"error_code":"enforced_spend_limit_reached"}},"request_id":"req_018EeWyXxfu5pfWkrYcMdjWG"}`, Want: schemas.QuotaExhausted},
		fail(400, "invalid_request_error", "You have reached your specified API usage limits. You will regain access on 2026-12-01 at 00:00 UTC.", schemas.QuotaExhausted),
		fail(400, "invalid_request_error", "You have reached your specified workspace API usage limits. You will regain access on 2026-12-01 at 00:00 UTC.", schemas.QuotaExhausted),
		fail(400, "invalid_request_error", "Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing to upgrade or purchase credits.", schemas.QuotaExhausted),
		fail(402, "billing_error", "There's an issue with your billing or payment information.", schemas.QuotaExhausted),
		fail(400, "invalid_request_error", `messages: roles must alternate between "user" and "assistant"`, schemas.InvalidRequest),
		fail(400, "invalid_request_error", "prompt is too long: 208310 tokens > 200000 maximum", schemas.ContextOverflow),
		fail(400, "invalid_request_error", "input length and `max_tokens` exceed context limit: 199000 + 8192 > 200000, decrease input length or `max_tokens` and try again", schemas.ContextOverflow),
		fail(400, "invalid_request_error", "Output blocked by content filtering policy", schemas.ContentFiltered),
		fail(401, "authentication_error", "invalid x-api-key", schemas.Auth),
		fail(403, "permission_error", "Your API key does not have permission to use the specified resource.", schemas.Permission),
		fail(404, "not_found_error", "model: claude-nope", schemas.ModelNotFound),
		fail(413, "request_too_large", "Request exceeds the maximum allowed number of bytes.", schemas.InvalidRequest),
		{Status: 413, Body: "<html><center><h1>413 Request Entity Too Large</h1></center><hr><center>cloudflare</center></html>", Want: schemas.InvalidRequest},
		fail(500, "api_error", "Internal server error", schemas.UpstreamError),
		fail(504, "timeout_error", "The request timed out.", schemas.UpstreamError),
		fail(529, "overloaded_error", "Overloaded", schemas.Overloaded),
		{Status: 200, Body: events(`{"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}`), Want: schemas.Overloaded},
		{Status: 200, Body: events(`{"type":"error","error":{"details":null,"type":"rate_limit_error","message":"Too many"},"request_id":"req_1"}`), Want: schemas.RateLimited},
		{Status: 200, Body: events(`{"type":"message_stop"}`)[:20], Want: schemas.StreamBroken},
	}
}
