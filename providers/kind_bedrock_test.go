package providers_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"net/http"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws/protocol/eventstream"

	"github.com/vramjet/vramjet/providers"
	"github.com/vramjet/vramjet/providers/providertest"
	"github.com/vramjet/vramjet/schemas"
)

// bedrockFrame is a message of an event stream, as AWS's own encoder writes it.
func bedrockFrame(kind, name, payload string) string {
	var m eventstream.Message
	m.Headers.Set(":"+kind+"-type", eventstream.StringValue(name))
	m.Headers.Set(":content-type", eventstream.StringValue("application/json"))
	m.Headers.Set(":message-type", eventstream.StringValue(kind))
	m.Payload = []byte(payload)
	var b bytes.Buffer
	if err := eventstream.NewEncoder().Encode(&b, m); err != nil {
		panic(err)
	}
	return b.String()
}

// bedrockEvents writes events, each as its name, a space and its payload.
func bedrockEvents(events ...string) string {
	var b strings.Builder
	for _, e := range events {
		name, payload, _ := strings.Cut(e, " ")
		b.WriteString(bedrockFrame("event", name, payload))
	}
	return b.String()
}

// sealFrames sums all frames of a part anew.
func sealFrames(part string) string {
	b := []byte(part)
	for rest := b; len(rest) > 0; {
		n := binary.BigEndian.Uint32(rest)
		binary.BigEndian.PutUint32(rest[8:], crc32.ChecksumIEEE(rest[:8]))
		binary.BigEndian.PutUint32(rest[n-4:], crc32.ChecksumIEEE(rest[:n-4]))
		rest = rest[n:]
	}
	return string(b)
}

const (
	bedrockBegin = `messageStart {"p":"abcdefghijklmn","role":"assistant"}`
	bedrockEnd   = `messageStop {"p":"abcdefghijklmnopqrstu","stopReason":"end_turn"}`
	bedrockUsage = `metadata {"metrics":{"latencyMs":551},"p":"abcdef","usage":{"inputTokens":12,"outputTokens":4,"totalTokens":16}}`
)

func bedrockText(text string) string {
	return `contentBlockDelta {"contentBlockIndex":0,"delta":{"text":` + quoted(text) + `},"p":"abc"}`
}

func bedrockStream() providertest.Dialect {
	return providertest.Dialect{
		ContentType: "application/vnd.amazon.eventstream",
		Chunk:       func(text string) string { return bedrockEvents(bedrockText(text)) },
		End:         bedrockEvents(`contentBlockStop {"contentBlockIndex":0}`, bedrockEnd, bedrockUsage),
		Error:       bedrockFrame("exception", "internalServerException", `{"message":"The system encountered an unexpected error during processing. Try your request again."}`),
		Comment:     bedrockEvents(`anEventOfTomorrow {"contentBlockIndex":0,"delta":{"text":"no"}}`),
		Seal:        sealFrames,
	}
}

// bedrockServer lists its models to those who have the key: on two pages, where
// AWS has them.
func bedrockServer(w http.ResponseWriter, r *http.Request) {
	fail := func(status int, kind, message string) {
		w.Header().Set("X-Amzn-Errortype", kind+":http://internal.amazon.com/coral/com.amazon.bedrock/")
		w.WriteHeader(status)
		fmt.Fprintf(w, `{"message":%q}`, message)
	}
	model := func(id, input, output, types, stream string) string {
		return fmt.Sprintf(`{"modelArn":"arn:aws:bedrock:us-east-1::foundation-model/%[1]s","modelId":"%[1]s","modelName":"x","providerName":"y","inputModalities":[%[2]s],"outputModalities":["%[3]s"],"customizationsSupported":[],"inferenceTypesSupported":["%[4]s"],"modelLifecycle":{"status":"ACTIVE"},"responseStreamingSupported":%[5]s}`, id, input, output, types, stream)
	}
	profile := func(id, model, status string) string {
		return fmt.Sprintf(`{"inferenceProfileArn":"arn:aws:bedrock:us-east-1:1:inference-profile/%[1]s","inferenceProfileId":"%[1]s","inferenceProfileName":"x","status":"%[3]s","type":"SYSTEM_DEFINED","models":[{"modelArn":"arn:aws:bedrock:us-east-1::foundation-model/%[2]s"},{"modelArn":"arn:aws:bedrock:us-west-2::foundation-model/%[2]s"}]}`, id, model, status)
	}
	const claude = "anthropic.claude-sonnet-4-5-20250929-v1:0"
	switch q := r.URL.Query(); {
	case r.Header.Get("Authorization") != "Bearer bedrock-api-key-x":
		fail(http.StatusForbidden, "AccessDeniedException", "Authentication failed: Please make sure your API Key is valid.")
	case r.Method == http.MethodGet && r.URL.Path == "/foundation-models":
		fmt.Fprintf(w, `{"modelSummaries":[%s]}`, strings.Join([]string{
			model("amazon.nova-lite-v1:0", `"TEXT","IMAGE","VIDEO"`, "TEXT", "ON_DEMAND", "true"),
			model("amazon.nova-lite-v1:0:24k", `"TEXT","IMAGE"`, "TEXT", "PROVISIONED", "true"),
			model(claude, `"TEXT","IMAGE"`, "TEXT", "INFERENCE_PROFILE", "true"),
			model("openai.gpt-oss-120b-1:0", `"TEXT"`, "TEXT", "ON_DEMAND", "true"),
			model("amazon.titan-embed-text-v2:0", `"TEXT"`, "EMBEDDING", "ON_DEMAND", "null"),
			model("amazon.nova-canvas-v1:0", `"TEXT","IMAGE"`, "IMAGE", "ON_DEMAND", "false"),
			model("ai21.j2-mid-v1", `"TEXT"`, "TEXT", "ON_DEMAND", "false"),
		}, ","))
	case r.Method != http.MethodGet || r.URL.Path != "/inference-profiles":
		fail(http.StatusNotFound, "UnknownOperationException", "")
	case q.Get("maxResults") != "1000" || q.Get("type") != "SYSTEM_DEFINED":
		fail(http.StatusBadRequest, "ValidationException", "what is this?")
	case q.Get("nextToken") == "":
		fmt.Fprintf(w, `{"inferenceProfileSummaries":[%s,%s],"nextToken":"a+b="}`, profile("us."+claude, claude, "ACTIVE"), profile("us.old", claude, "DELETED"))
	case q.Get("nextToken") == "a+b=":
		fmt.Fprintf(w, `{"inferenceProfileSummaries":[%s,%s]}`, profile("global."+claude, claude, "ACTIVE"), profile("us.elsewhere", "not.here", "ACTIVE"))
	}
}

func bedrockKinds() []providertest.Kind {
	chat, sees := []schemas.Kind{schemas.Chat}, []providers.Ability{providers.Vision}
	return []providertest.Kind{{
		Name:  providers.KindBedrock,
		Label: "bedrock (Converse)",
		Config: providers.Config{
			Keys: []providers.Key{{Name: "AWS_BEARER_TOKEN_BEDROCK", Secret: func() string { return "bedrock-api-key-x" }}},
		},
		Dialect: bedrockStream(),
		Server:  func() http.Handler { return http.HandlerFunc(bedrockServer) },
		Models: []providers.Model{
			{Name: "amazon.nova-lite-v1:0", Kinds: chat, State: schemas.Remote, Abilities: sees},
			{Name: "openai.gpt-oss-120b-1:0", Kinds: chat, State: schemas.Remote},
			{Name: "us.anthropic.claude-sonnet-4-5-20250929-v1:0", Kinds: chat, State: schemas.Remote, Abilities: sees},
			{Name: "global.anthropic.claude-sonnet-4-5-20250929-v1:0", Kinds: chat, State: schemas.Remote, Abilities: sees},
		},
		Empty:     map[string]string{"GET /foundation-models": `{"modelSummaries":[]}`, "GET /inference-profiles": `{"inferenceProfileSummaries":[]}`},
		Exchanges: append(bedrockExchanges(), bedrockRefusals()...),
		Failures:  bedrockFailures(),
	}}
}

// bedrockSays is a stream that says that text.
func bedrockSays(text string) string {
	return bedrockEvents(bedrockBegin, bedrockText(text), `contentBlockStop {"contentBlockIndex":0,"p":"ab"}`, bedrockEnd, bedrockUsage)
}

func bedrockExchanges() []providertest.Exchange {
	const hi = `{"messages":[{"role":"user","content":"hi"}]`
	return []providertest.Exchange{
		{
			Proves: providertest.Chat,
			Request: `{"messages":[{"role":"system","content":"Be brief."},{"role":"developer","content":[{"type":"text","text":"And kind.","cache_control":{"type":"ephemeral","ttl":"1h"}}]},{"role":"user","content":"hi"},{"role":"user","content":"there"},` +
				`{"role":"assistant","content":"Yes?"},{"role":"user","content":"now"}],"max_completion_tokens":9,"max_tokens":8,"temperature":0,"top_p":0.5,"stop":"x","user":"u","n":1,"stream":false,"service_tier":"priority",` +
				`"response_format":{"type":"text"},"additionalModelRequestFields":{"top_k":3},"guardrailConfig":{"guardrailIdentifier":"g","guardrailVersion":"1"},"performanceConfig":{"latency":"optimized"},"requestMetadata":{"a":"b"}}`,
			Path: "/model/m/converse-stream",
			Sent: `{"system":[{"text":"Be brief."},{"text":"And kind."},{"cachePoint":{"type":"default","ttl":"1h"}}],` +
				`"messages":[{"role":"user","content":[{"text":"hi"},{"text":"there"}]},{"role":"assistant","content":[{"text":"Yes?"}]},{"role":"user","content":[{"text":"now"}]}],` +
				`"inferenceConfig":{"maxTokens":9,"temperature":0,"topP":0.5,"stopSequences":["x"]},"serviceTier":{"type":"priority"},` +
				`"additionalModelRequestFields":{"top_k":3},"guardrailConfig":{"guardrailIdentifier":"g","guardrailVersion":"1"},"performanceConfig":{"latency":"optimized"},"requestMetadata":{"a":"b"}}`,
			Absent: []string{"model", "stream", "user", "max_tokens", "temperature", "n", "toolConfig", "outputConfig"},
			Answer: bedrockEvents(bedrockBegin, bedrockText("Hel"), bedrockText("lo"), `contentBlockStop {"contentBlockIndex":0}`, bedrockEnd,
				`metadata {"metrics":{"latencyMs":1},"usage":{"inputTokens":12,"outputTokens":4,"totalTokens":24,"cacheReadInputTokens":5,"cacheWriteInputTokens":3,"serverToolUsage":{}}}`),
			Want: `{"object":"chat.completion","model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"Hello"},"finish_reason":"stop"}],` +
				`"usage":{"prompt_tokens":20,"completion_tokens":4,"total_tokens":24,"prompt_tokens_details":{"cached_tokens":5}}}`,
		},
		{
			Proves: providertest.Tools,
			Request: `{"messages":[{"role":"user","content":"weather?"},{"role":"assistant","content":null,"tool_calls":[{"id":"c1","type":"function","function":{"name":"get","arguments":"{\"city\":\"Oslo\"}"}},{"id":"c2","type":"function","function":{"name":"now","arguments":""}}]},` +
				`{"role":"tool","tool_call_id":"c1","content":"rain"},{"role":"tool","tool_call_id":"c2","content":[{"type":"text","text":"noon","cache_control":{"type":"ephemeral"}}]},{"role":"user","content":"So?"}],` +
				`"tools":[{"type":"function","function":{"name":"get","description":"Gets","strict":true,"parameters":{"type":"object","properties":{"city":{"type":"string"}}}}},{"type":"function","function":{"name":"now"},"cache_control":{"type":"ephemeral"}}],"tool_choice":"required","parallel_tool_calls":true}`,
			Sent: `{"messages":[{"role":"user","content":[{"text":"weather?"}]},{"role":"assistant","content":[{"toolUse":{"toolUseId":"c1","name":"get","input":{"city":"Oslo"}}},{"toolUse":{"toolUseId":"c2","name":"now","input":{}}}]},` +
				`{"role":"user","content":[{"toolResult":{"toolUseId":"c1","content":[{"text":"rain"}]}},{"toolResult":{"toolUseId":"c2","content":[{"text":"noon"}]}},{"cachePoint":{"type":"default"}},{"text":"So?"}]}],` +
				`"toolConfig":{"tools":[{"toolSpec":{"name":"get","description":"Gets","strict":true,"inputSchema":{"json":{"type":"object","properties":{"city":{"type":"string"}}}}}},{"toolSpec":{"name":"now","inputSchema":{"json":{"type":"object"}}}},{"cachePoint":{"type":"default"}}],"toolChoice":{"any":{}}}}`,
			Absent: []string{"tools", "tool_choice", "toolChoice", "parallel_tool_calls"},
			Answer: bedrockEvents(bedrockBegin, bedrockText("I look."), `contentBlockStop {"contentBlockIndex":0}`,
				`contentBlockStart {"contentBlockIndex":1,"start":{"toolUse":{"name":"get","toolUseId":"tooluse_a"}}}`,
				`contentBlockDelta {"contentBlockIndex":1,"delta":{"toolUse":{"input":""}}}`,
				`contentBlockDelta {"contentBlockIndex":1,"delta":{"toolUse":{"input":"{\"city\":"}}}`,
				`contentBlockDelta {"contentBlockIndex":1,"delta":{"toolUse":{"input":" \"Bergen\"}"}}}`,
				`contentBlockStop {"contentBlockIndex":1}`,
				`contentBlockStart {"contentBlockIndex":2,"start":{"toolUse":{"name":"search","toolUseId":"srv_1","type":"server_tool_use"}}}`,
				`contentBlockDelta {"contentBlockIndex":2,"delta":{"toolUse":{"input":"{}"}}}`,
				`contentBlockStop {"contentBlockIndex":2}`,
				`contentBlockStart {"contentBlockIndex":3,"start":{"toolUse":{"name":"now","toolUseId":"tooluse_b"}}}`,
				`contentBlockStop {"contentBlockIndex":3}`,
				`messageStop {"stopReason":"tool_use"}`, bedrockUsage),
			Want: `{"choices":[{"message":{"content":"I look.","tool_calls":[{"id":"tooluse_a","type":"function","function":{"name":"get","arguments":"{\"city\": \"Bergen\"}"}},{"id":"tooluse_b","type":"function","function":{"name":"now","arguments":"{}"}}]},"finish_reason":"tool_calls"}]}`,
		},
		{
			Request: hi + `,"tools":[{"type":"function","function":{"name":"get"}}],"tool_choice":{"type":"function","function":{"name":"get"}}}`,
			Sent:    `{"toolConfig":{"tools":[{"toolSpec":{"name":"get"}}],"toolChoice":{"tool":{"name":"get"}}}}`,
			Answer:  bedrockSays("x"),
		},
		{
			Request: hi + `,"tools":[{"type":"function","function":{"name":"get"}}],"tool_choice":"none"}`,
			Absent:  []string{"toolConfig", "tools"},
			Answer:  bedrockSays("x"),
		},
		{
			Proves:  providertest.Vision,
			Request: `{"messages":[{"role":"user","content":[{"type":"text","text":"what?"},{"type":"image_url","image_url":{"url":"data:image/png;base64,AAEC"}}]}]}`,
			Sent:    `{"messages":[{"role":"user","content":[{"text":"what?"},{"image":{"format":"png","source":{"bytes":"AAEC"}}}]}]}`,
			Answer:  bedrockSays("A dot."),
			Want:    `{"choices":[{"message":{"content":"A dot."}}]}`,
		},
		{
			Proves: providertest.Reasoning,
			Request: `{"messages":[{"role":"user","content":"hi"},{"role":"assistant","content":"Yes","reasoning_content":"Hm","thinking_blocks":[{"type":"thinking","thinking":"Hm \"a\"","signature":"Es+C/Q=="},{"type":"redacted_thinking","data":"EmwK"}]},{"role":"user","content":"why?"}],` +
				`"reasoning_effort":"minimal","additionalModelRequestFields":{"thinking":{"type":"enabled","budget_tokens":1024}}}`,
			Sent: `{"outputConfig":{"effort":"low"},"additionalModelRequestFields":{"thinking":{"type":"enabled","budget_tokens":1024}},` +
				`"messages":[{},{"role":"assistant","content":[{"reasoningContent":{"reasoningText":{"text":"Hm \"a\"","signature":"Es+C/Q=="}}},{"reasoningContent":{"redactedContent":"EmwK"}},{"text":"Yes"}]},{}]}`,
			Absent: []string{"reasoning_effort", "effort"},
			Answer: bedrockEvents(bedrockBegin,
				`contentBlockDelta {"contentBlockIndex":0,"delta":{"reasoningContent":{"text":"Because"}}}`,
				`contentBlockDelta {"contentBlockIndex":0,"delta":{"reasoningContent":{"text":" \"so\""}}}`,
				`contentBlockDelta {"contentBlockIndex":0,"delta":{"reasoningContent":{"signature":"EsEC"}}}`,
				`contentBlockDelta {"contentBlockIndex":0,"delta":{"reasoningContent":{"signature":"QQ=="}}}`,
				`contentBlockStop {"contentBlockIndex":0}`,
				`contentBlockDelta {"contentBlockIndex":1,"delta":{"reasoningContent":{"redactedContent":"EmwKAg=="}}}`,
				`contentBlockDelta {"contentBlockIndex":1,"delta":{"reasoningContent":{"redactedContent":"AAEC"}}}`,
				`contentBlockStop {"contentBlockIndex":1}`,
				`contentBlockDelta {"contentBlockIndex":2,"delta":{"text":"Yes"}}`,
				`contentBlockStop {"contentBlockIndex":2}`, bedrockEnd, bedrockUsage),
			Want: `{"choices":[{"message":{"content":"Yes","reasoning_content":"Because \"so\"","thinking_blocks":[{"type":"thinking","thinking":"Because \"so\"","signature":"EsECQQ=="},{"type":"redacted_thinking","data":"EmwKAgABAg=="}]}}]}`,
		},
		{
			Proves:  providertest.Schema,
			Request: hi + `,"response_format":{"type":"json_schema","json_schema":{"name":"n","description":"d","strict":true,"schema":{"type":"object"}}}}`,
			Sent:    `{"outputConfig":{"textFormat":{"type":"json_schema","structure":{"jsonSchema":{"name":"n","description":"d","schema":"{\"type\":\"object\"}"}}}}}`,
			Absent:  []string{"response_format", "textFormat"},
			Answer:  bedrockSays("{}"),
			Want:    `{"choices":[{"message":{"content":"{}"}}]}`,
		},
		{ // cut off, and without counts
			Request: hi + `}`,
			Answer:  bedrockEvents(bedrockBegin, bedrockText("x"), `messageStop {"stopReason":"max_tokens"}`),
			Want:    `{"choices":[{"message":{"content":"x"},"finish_reason":"length"}]}`,
		},
		{
			Request: hi + `}`,
			Answer:  bedrockEvents(bedrockBegin, bedrockText("Sorry."), `messageStop {"stopReason":"guardrail_intervened"}`, bedrockUsage),
			Want:    `{"choices":[{"message":{"content":"Sorry."},"finish_reason":"content_filter"}]}`,
		},
	}
}

func bedrockRefusals() []providertest.Exchange {
	var list []providertest.Exchange
	for _, r := range []struct{ member, value string }{
		{"n", "2"},
		{"logit_bias", `{"1":2}`},
		{"seed", "1"},
		{"frequency_penalty", "0.5"},
		{"parallel_tool_calls", "false"},
		{"logprobs", "true"},
		{"response_format", `{"type":"json_object"}`},
		{"reasoning_effort", `"none"`},
		{"service_tier", `"scale"`},
		{"tool_choice", `{"type":"allowed_tools"}`},
		{"tools", `[{"type":"custom","custom":{"name":"x"}}]`},
		{"messages", `[{"role":"user","content":[{"type":"image_url","image_url":{"url":"https://example.com/a.png"}}]}]`},
		{"messages", `[{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:image/bmp;base64,AAEC"}}]}]`},
		{"messages", `[{"role":"system","content":[{"type":"image_url","image_url":{"url":"data:image/png;base64,AAEC"}}]}]`},
		{"messages", `[{"role":"user","content":[{"type":"text","text":"x","cache_control":{"type":"forever"}}]}]`},
		{"messages", `[{"role":"function","content":"x"}]`},
		{"additionalModelResponseFieldPaths", `["/stop_sequence"]`},
		{"a_member_of_tomorrow", "1"},
	} {
		body := `{"messages":[{"role":"user","content":"hi"}],"` + r.member + `":` + r.value + `}`
		if r.member == "messages" {
			body = `{"messages":` + r.value + `}`
		}
		list = append(list, providertest.Exchange{Request: body, Code: schemas.Unsupported, Param: r.member})
	}
	wrong := func(member, body string) {
		list = append(list, providertest.Exchange{Request: body, Code: schemas.InvalidRequest, Param: member})
	}
	wrong("messages", `{"messages":[]}`)
	wrong("messages", `{"messages":[{"role":"tool","content":"x"}]}`)
	wrong("messages", `{"messages":[{"role":"assistant","tool_calls":[{"id":"a","function":{"name":"b","arguments":"1"}}]}]}`)
	wrong("messages", `{"messages":[{"role":"assistant","content":"x","thinking_blocks":[{"type":"text"}]}]}`)
	wrong("max_tokens", `{"messages":[{"role":"user","content":"hi"}],"max_tokens":0}`)
	wrong("stop", `{"messages":[{"role":"user","content":"hi"}],"stop":1}`)
	wrong("response_format", `{"messages":[{"role":"user","content":"hi"}],"response_format":{"type":"json_schema"}}`)
	return append(list, providertest.Exchange{Kind: schemas.Completion, Request: `{"prompt":"hi"}`, Code: schemas.Unsupported, Param: "prompt"})
}

func bedrockFailures() []providertest.Failure {
	said := func(status int, kind, body string, want schemas.Code) providertest.Failure {
		return providertest.Failure{Status: status, Header: map[string]string{"X-Amzn-Errortype": kind}, Body: body, Want: want}
	}
	exception := func(name, message string, want schemas.Code) providertest.Failure {
		return providertest.Failure{Status: http.StatusOK, Body: bedrockFrame("exception", name, `{"message":"`+message+`"}`), Want: want}
	}
	throttled := said(429, "ThrottlingException:http://internal.amazon.com/coral/com.amazon.bedrock/", `{"message":"Too many tokens, please wait before trying again."}`, schemas.RateLimited)
	throttled.Header["Retry-After"], throttled.Retry = "3", 3*time.Second
	return []providertest.Failure{
		throttled,
		said(400, "ThrottlingException", `{"message":"Too many requests, please wait before trying again."}`, schemas.RateLimited),
		said(429, "ModelNotReadyException", `{"message":"The model is not ready for inference."}`, schemas.ModelLoading),
		said(400, "ServiceQuotaExceededException", `{"message":"Your request exceeds the service quota for your account."}`, schemas.QuotaExhausted),
		said(400, "ValidationException", `{"message":"The model returned the following errors: Input is too long for requested model."}`, schemas.ContextOverflow),
		said(400, "ValidationException", `{"message":"The model returned the following errors: prompt is too long: 227255 tokens > 200000 maximum"}`, schemas.ContextOverflow),
		said(400, "ValidationException", `{"message":"The maximum tokens you requested exceeds the model limit of 32768. Try again with a maximum tokens value that is lower than 32768."}`, schemas.InvalidRequest),
		said(400, "ValidationException", `{"message":"The provided model identifier is invalid."}`, schemas.ModelNotFound),
		said(400, "ValidationException", `{"message":"Invocation of model ID anthropic.claude-sonnet-4-20250514-v1:0 with on-demand throughput isn’t supported. Retry your request with the ID or ARN of an inference profile that contains this model."}`, schemas.ModelNotFound),
		said(400, "ValidationException", `{"message":"This model doesn't support tool use in streaming mode."}`, schemas.Unsupported),
		said(403, "AccessDeniedException", `{"message":"You don't have access to the model with the specified model ID."}`, schemas.Permission),
		said(403, "AccessDeniedException", `{"Message":"User: arn:aws:iam::123456789012:user/x is not authorized to perform: bedrock:InvokeModel on resource: arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.anthropic.claude-haiku-4-5-20251001-v1:0 because no identity-based policy allows the bedrock:InvokeModel action"}`, schemas.Permission),
		said(403, "", `{"Message":"Authentication failed: Please make sure your API Key is valid."}`, schemas.Auth),
		said(403, "UnrecognizedClientException", `{"message":"The security token included in the request is invalid."}`, schemas.Auth),
		said(403, "ExpiredTokenException", `{"message":"The security token included in the request is expired"}`, schemas.Auth),
		said(403, "InvalidSignatureException", `{"message":"The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key and signing method."}`, schemas.Auth),
		said(404, "ResourceNotFoundException", `{"message":"Could not resolve the foundation model from the provided model identifier."}`, schemas.ModelNotFound),
		said(408, "ModelTimeoutException", `{"message":"Model has timed out in processing the request. Try your request again."}`, schemas.UpstreamError),
		said(424, "ModelErrorException", `{"message":"The system encountered an unexpected error during processing. Try your request again.","originalStatusCode":500}`, schemas.UpstreamError),
		said(500, "InternalServerException", `{"message":"The system encountered an unexpected error during processing. Try your request again."}`, schemas.UpstreamError),
		said(503, "ServiceUnavailableException", `{"message":"Bedrock is unable to process your request."}`, schemas.Overloaded),
		exception("throttlingException", "Too many tokens, please wait before trying again.", schemas.RateLimited),
		exception("modelStreamErrorException", "The system encountered an unexpected error during processing. Try your request again.", schemas.StreamBroken),
		exception("modelTimeoutException", "Model has timed out in processing the request.", schemas.UpstreamError),
		exception("serviceUnavailableException", "Bedrock is unable to process your request.", schemas.Overloaded),
		exception("validationException", "Input is too long for requested model.", schemas.ContextOverflow),
		exception("validationException", "The format of the value is wrong.", schemas.InvalidRequest),
		exception("exceptionOfTomorrow", "Well.", schemas.UpstreamError),
		{Status: http.StatusOK, Body: bedrockEvents(`messageStop {"stopReason":"malformed_tool_use"}`), Want: schemas.UpstreamError},
	}
}
