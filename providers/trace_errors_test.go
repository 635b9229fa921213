package providers_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/vramjet/vramjet/providers"
	"github.com/vramjet/vramjet/providers/providertest"
	"github.com/vramjet/vramjet/schemas"
)

// failed says of each recorded case which of its exchanges failed, and what that
// is to us. A case that is not here fails TestFailuresRecorded, and so does an
// exchange that fails and is not listed.
var failed = map[string]map[string]schemas.Code{
	"llama-server-b11669/api_key.json": {
		"none":   schemas.Auth,
		"wrong":  schemas.Auth,
		"models": schemas.Auth,
		"props":  schemas.Auth,
		"slots":  schemas.Auth,
	},
	"llama-server-b11669/cancel_nonstream.json": {},
	"llama-server-b11669/cancel_nonstream_traffic.json": {
		"other-stream": schemas.StreamBroken,
	},
	"llama-server-b11669/cancel_stream.json": {
		"stream": schemas.StreamBroken,
	},
	"llama-server-b11669/chat.json":                {},
	"llama-server-b11669/chat_json_schema.json":    {},
	"llama-server-b11669/chat_logprobs.json":       {},
	"llama-server-b11669/chat_n2.json":             {},
	"llama-server-b11669/chat_stop.json":           {},
	"llama-server-b11669/chat_stream.json":         {},
	"llama-server-b11669/chat_stream_stop.json":    {},
	"llama-server-b11669/chat_stream_timings.json": {},
	"llama-server-b11669/chat_stream_usage.json":   {},
	"llama-server-b11669/completion.json":          {},
	"llama-server-b11669/completion_stream.json":   {},
	"llama-server-b11669/ctx_to_end.json":          {},
	"llama-server-b11669/embeddings.json": {
		"too-long": schemas.ContextOverflow,
		"empty":    schemas.InvalidRequest,
	},
	"llama-server-b11669/embeddings_disabled.json": {
		"1.1": schemas.Unsupported,
	},
	"llama-server-b11669/err_bad_json.json": {
		"1.1": schemas.InvalidRequest,
		"2.1": schemas.InvalidRequest,
	},
	"llama-server-b11669/err_bad_request.json": {
		"no-messages":        schemas.InvalidRequest,
		"messages-not-array": schemas.InvalidRequest,
		"max_tokens-string":  schemas.InvalidRequest,
		"no-prompt":          schemas.InvalidRequest,
		"empty-body":         schemas.InvalidRequest,
		"bad-role-content":   schemas.InvalidRequest,
	},
	"llama-server-b11669/err_context_overflow.json": {
		"1.1": schemas.ContextOverflow,
		"2.1": schemas.ContextOverflow,
		"3.1": schemas.ContextOverflow,
	},
	"llama-server-b11669/err_paths.json": {
		"1.1": schemas.Unsupported,
		"2.1": schemas.Unsupported,
		"3.1": schemas.Unsupported,
		"4.1": schemas.Unsupported,
		"5.1": schemas.Unsupported,
	},
	"llama-server-b11669/health.json": {},
	"llama-server-b11669/image_input.json": {
		"1.1": schemas.Unsupported,
	},
	"llama-server-b11669/kill9_midstream.json": {
		"stream": schemas.StreamBroken,
	},
	"llama-server-b11669/loading_503.json": {
		"models#6":  schemas.ModelLoading,
		"health#20": schemas.ModelLoading,
		"props#5":   schemas.ModelLoading,
		"chat#7":    schemas.ModelLoading,
		"slots#5":   schemas.ModelLoading,
	},
	"llama-server-b11669/metrics.json":         {},
	"llama-server-b11669/models.json":          {},
	"llama-server-b11669/no_content_type.json": {},
	"llama-server-b11669/parallel_two.json": {
		"slots-fail-on-no-slot": schemas.Overloaded,
	},
	"llama-server-b11669/props.json": {},
	"llama-server-b11669/queue_three_on_two.json": {
		"slots-fail-on-no-slot": schemas.Overloaded,
	},
	"llama-server-b11669/sigterm_midstream.json": {
		"stream": schemas.StreamBroken,
	},
	"llama-server-b11669/sleep_idle.json": {},
	"llama-server-b11669/slots_idle.json": {},
	"llama-server-b11669/slots_metrics_off.json": {
		"2.1": schemas.Unsupported,
		"3.1": schemas.Unsupported,
		"4.1": schemas.Unsupported,
	},
	"llama-server-b11669/tokenize.json":               {},
	"llama-server-b11669/unknown_model.json":          {},
	"llama-server-b11669/v1_completions.json":         {},
	"llama-server-b11669/v1_completions_stream.json":  {},
	"llama-server-b11669/v1_messages_stream.json":     {},
	"llama-server-b11669/v1_responses.json":           {},
	"llama-server-router-b11669/router_autoload.json": {},
	"llama-server-router-b11669/router_autoload_off.json": {
		"chat": schemas.ModelLoading,
	},
	"llama-server-router-b11669/router_cancel.json": {
		"stream": schemas.StreamBroken,
	},
	"llama-server-router-b11669/router_child_killed.json": {
		"stream":    schemas.UpstreamError,
		"nonstream": schemas.UpstreamError,
	},
	"llama-server-router-b11669/router_errors.json": {
		"unknown":        schemas.ModelNotFound,
		"unknown-stream": schemas.ModelNotFound,
		"no-model":       schemas.InvalidRequest,
		"bad-json":       schemas.InvalidRequest,
		"load-unknown":   schemas.Unsupported,
		"unload-unknown": schemas.ModelNotFound,
		"load-bad-json":  schemas.InvalidRequest,
		"load-no-model":  schemas.Unsupported,
		"path":           schemas.Unsupported,
		"overflow":       schemas.ContextOverflow,
		"embeddings-off": schemas.Unsupported,
	},
	"llama-server-router-b11669/router_failed_load.json": {
		"chat": schemas.UpstreamError,
	},
	"llama-server-router-b11669/router_idle.json": {
		"6.1":                schemas.InvalidRequest,
		"7.1":                schemas.InvalidRequest,
		"slots-autoload-off": schemas.ModelLoading,
		"props-autoload-off": schemas.ModelLoading,
	},
	"llama-server-router-b11669/router_load_at_limit.json": {},
	"llama-server-router-b11669/router_load_unload.json": {
		"load-again":   schemas.InvalidRequest,
		"unload-again": schemas.InvalidRequest,
	},
	"llama-server-router-b11669/router_parallel_models.json": {},
	"llama-server-router-b11669/router_reload.json":          {},
	"llama-server-router-b11669/router_sigterm_midstream.json": {
		"stream": schemas.StreamBroken,
	},
	"llama-server-router-b11669/router_sse.json":       {},
	"llama-server-router-b11669/router_swap_busy.json": {},
	"llama-server-router-b11669/router_swap_idle.json": {},
	"llama-server-router-b11669/router_two_cold.json":  {},
	"llama-server-router-b11669/router_unload_busy.json": {
		"busy":           schemas.UpstreamError,
		"busy-nonstream": schemas.UpstreamError,
	},
	"llama-swap-v250/swap_broken_model.json": {
		"chat":   schemas.UpstreamError,
		"stream": schemas.UpstreamError,
	},
	"llama-swap-v250/swap_cancel.json": {
		"stream": schemas.StreamBroken,
	},
	"llama-swap-v250/swap_cancel_cold.json": {},
	"llama-swap-v250/swap_child_killed.json": {
		"stream":    schemas.StreamBroken,
		"nonstream": schemas.UpstreamError,
	},
	"llama-swap-v250/swap_cold_chat.json": {},
	"llama-swap-v250/swap_concurrency_limit.json": {
		"two":   schemas.RateLimited,
		"three": schemas.RateLimited,
	},
	"llama-swap-v250/swap_errors.json": {
		"unknown":        schemas.ModelNotFound,
		"unknown-stream": schemas.ModelNotFound,
		"no-model":       schemas.InvalidRequest,
		"bad-json":       schemas.InvalidRequest,
		"empty":          schemas.InvalidRequest,
		"overflow":       schemas.ContextOverflow,
		"upstream-error": schemas.InvalidRequest,
		"get-chat":       schemas.Unsupported,
		"embeddings-off": schemas.Unsupported,
	},
	"llama-swap-v250/swap_events.json": {},
	"llama-swap-v250/swap_idle.json": {
		"nope": schemas.Unsupported,
		"ui":   schemas.Unsupported,
	},
	"llama-swap-v250/swap_loading_state.json":     {},
	"llama-swap-v250/swap_sigterm_midstream.json": {},
	"llama-swap-v250/swap_stream.json":            {},
	"llama-swap-v250/swap_switch_busy.json":       {},
	"llama-swap-v250/swap_switch_idle.json":       {},
	"llama-swap-v250/swap_ttl.json":               {},
	"llama-swap-v250/swap_two_cold.json":          {},
	"llama-swap-v250/swap_unload.json": {
		"unload-unknown": schemas.ModelNotFound,
	},
	"llama-swap-v250/swap_unload_busy.json": {
		"busy":           schemas.StreamBroken,
		"busy-nonstream": schemas.UpstreamError,
	},
	"llama-swap-v250/swap_upstream.json": {
		"unknown": schemas.ModelNotFound,
	},
	"ollama-0.17.4/cancel_nonstream.json": {},
	"ollama-0.17.4/cancel_stream.json": {
		"stream": schemas.StreamBroken,
	},
	"ollama-0.17.4/cancel_while_loading.json": {},
	"ollama-0.17.4/chat.json":                 {},
	"ollama-0.17.4/chat_stream.json":          {},
	"ollama-0.17.4/copy_create.json": {
		"copy-missing": schemas.ModelNotFound,
	},
	"ollama-0.17.4/ctx_overflow.json": {
		"generate-no-truncate": schemas.ContextOverflow,
		"chat-no-truncate":     schemas.ContextOverflow,
	},
	"ollama-0.17.4/ctx_to_end.json": {},
	"ollama-0.17.4/embed.json": {
		"empty-list": schemas.UpstreamError, "no-input": schemas.UpstreamError, // no vectors: we would not have asked
		"too-long-no-truncate": schemas.ContextOverflow,
	},
	"ollama-0.17.4/embed_model.json": {
		"too-long-no-truncate": schemas.ContextOverflow,
		"chat":                 schemas.Unsupported,
		"generate":             schemas.Unsupported,
	},
	"ollama-0.17.4/err_bad_json.json": {
		"bad":            schemas.InvalidRequest,
		"empty":          schemas.InvalidRequest,
		"type":           schemas.InvalidRequest,
		"generate-bad":   schemas.InvalidRequest,
		"option-type":    schemas.InvalidRequest,
		"v1-bad":         schemas.InvalidRequest,
		"v1-no-messages": schemas.InvalidRequest,
	},
	"ollama-0.17.4/err_capabilities.json": {
		"tools":    schemas.Unsupported,
		"think":    schemas.Unsupported,
		"suffix":   schemas.Unsupported,
		"v1-tools": schemas.Unsupported,
	},
	"ollama-0.17.4/err_missing_model.json": {
		"chat":           schemas.ModelNotFound,
		"chat-nostream":  schemas.ModelNotFound,
		"generate":       schemas.ModelNotFound,
		"embed":          schemas.ModelNotFound,
		"no-model-field": schemas.InvalidRequest,
		"bad-name":       schemas.InvalidRequest,
		"unload-missing": schemas.ModelNotFound,
		"v1":             schemas.ModelNotFound,
	},
	"ollama-0.17.4/err_paths.json": {
		"1.1": schemas.Unsupported,
		"2.1": schemas.Unsupported,
		"3.1": schemas.Unsupported,
		"4.1": schemas.Unsupported,
		"5.1": schemas.Unsupported,
		"6.1": schemas.Permission,
	},
	"ollama-0.17.4/generate.json":                   {},
	"ollama-0.17.4/generate_cold.json":              {},
	"ollama-0.17.4/generate_raw_json_logprobs.json": {},
	"ollama-0.17.4/generate_slow_stream.json":       {},
	"ollama-0.17.4/generate_stop.json":              {},
	"ollama-0.17.4/generate_stream.json":            {},
	"ollama-0.17.4/keep_alive_env.json":             {},
	"ollama-0.17.4/keep_alive_values.json": {
		"bad": schemas.InvalidRequest,
	},
	"ollama-0.17.4/kill9_midstream.json": {
		"stream": schemas.StreamBroken,
	},
	"ollama-0.17.4/load_empty_prompt.json": {},
	"ollama-0.17.4/load_failures.json": {
		"too-big":    schemas.OutOfMemory,
		"too-big-v1": schemas.OutOfMemory,
		"broken":     schemas.UpstreamError,
	},
	"ollama-0.17.4/loading_ps.json":     {},
	"ollama-0.17.4/num_ctx_reload.json": {},
	"ollama-0.17.4/num_predict_zero.json": {
		"1.1": schemas.StreamBroken,
	},
	"ollama-0.17.4/other_model_while_busy.json": {},
	"ollama-0.17.4/parallel_two.json":           {},
	"ollama-0.17.4/ps_empty.json":               {},
	"ollama-0.17.4/ps_two_models.json":          {},
	"ollama-0.17.4/pull_missing.json": {
		"stream":   schemas.UpstreamError,
		"nostream": schemas.UpstreamError,
	},
	"ollama-0.17.4/pull_ok.json": {
		"delete-again": schemas.ModelNotFound,
	},
	"ollama-0.17.4/pull_progress.json": {},
	"ollama-0.17.4/pull_unreachable.json": {
		"stream":   schemas.UpstreamError,
		"nostream": schemas.UpstreamError,
		"bad-name": schemas.InvalidRequest,
	},
	"ollama-0.17.4/queue_full_503.json": {
		"other3":    schemas.Overloaded,
		"other4":    schemas.Overloaded,
		"other5-v1": schemas.Overloaded,
	},
	"ollama-0.17.4/queue_three_on_one.json": {},
	"ollama-0.17.4/root_version.json":       {},
	"ollama-0.17.4/runner_killed_midstream.json": {
		"stream": schemas.UpstreamError,
	},
	"ollama-0.17.4/runner_killed_nonstream.json": {
		"nonstream": schemas.UpstreamError,
		"v1-stream": schemas.StreamBroken,
	},
	"ollama-0.17.4/show.json": {
		"missing": schemas.ModelNotFound,
		"empty":   schemas.InvalidRequest,
	},
	"ollama-0.17.4/sigterm_midstream.json": {
		"stream": schemas.StreamBroken,
	},
	"ollama-0.17.4/swap_max_loaded_1.json":   {},
	"ollama-0.17.4/tags.json":                {},
	"ollama-0.17.4/unload_keep_alive_0.json": {},
	"ollama-0.17.4/v1_chat.json":             {},
	"ollama-0.17.4/v1_chat_stream.json":      {},
	"ollama-0.17.4/v1_messages.json":         {},
	"ollama-0.17.4/v1_other.json": {
		"3.1": schemas.ModelNotFound,
	},
}

// Every error that was ever recorded, in the head of an answer or in its middle,
// has its code.
func TestFailuresRecorded(t *testing.T) {
	all := allTraces(t)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		want, ok := failed[name]
		if !ok {
			t.Errorf("%s is not in the table: say which of its exchanges fail", name)
		}
		seen := map[string]bool{}
		for _, x := range all[name].Exchanges {
			if x.Response == nil {
				continue // the server was not there, or the recorder left before it answered
			}
			seen[x.ID] = true
			t.Run(name+"/"+x.ID, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { x.failsWith(t, name, want[x.ID]) })
			})
		}
		for id := range want {
			if !seen[id] {
				t.Errorf("%s has no exchange %s that was answered", name, id)
			}
		}
	}
	for name := range failed {
		if _, ok := all[name]; !ok {
			t.Errorf("%s is in the table, and was never recorded", name)
		}
	}
	if !t.Failed() {
		for _, kind := range recordedKinds {
			proofs.Add(kind, providertest.Errors, providertest.Recorded)
		}
	}
}

// recordedKinds are the kinds of the servers that were recorded, by the directory.
var recordedKinds = map[string]string{
	"llama-server-b11669": providers.KindLlamaCpp, "llama-server-router-b11669": providers.KindLlamaRouter,
	"llama-swap-v250": providers.KindLlamaSwap, "ollama-0.17.4": providers.KindOllama,
}

// kindOf returns which kind's provider reads the exchange. Ollama also speaks
// OpenAI's dialect.
func (x *exchange) kindOf(name string) string {
	dir, _, _ := strings.Cut(name, "/")
	kind := recordedKinds[dir]
	if kind == providers.KindOllama && strings.HasPrefix(x.path(), "/v1/") {
		return providers.KindOpenAI
	}
	return kind
}

// failsWith checks that the exchange, replayed with its pauses, fails with a code;
// "" means that it doesn't fail. What no provider asks for is only classified.
func (x *exchange) failsWith(t *testing.T, name string, want schemas.Code) {
	err := x.failure(t, name)
	switch {
	case want == "" && err != nil:
		t.Errorf("%d %.300s fails with %v, and is not in the table", x.Response.Status, x.Response.text(), err)
	case want != "" && (err == nil || schemas.AsError(err).Code != want):
		t.Errorf("%d %.300s is %v, want %s", x.Response.Status, x.Response.text(), err, want)
	case want == schemas.RateLimited && fmt.Sprint(schemas.AsError(err).RetryAfter) != "1s":
		t.Errorf("retry after %s", schemas.AsError(err).RetryAfter)
	}
}

func (x *exchange) failure(t *testing.T, name string) error {
	kind := x.kindOf(name)
	p := newReplay(t, kind, x)
	req := providers.Request{Model: "m", Kind: schemas.Chat, Body: []byte(`{"messages":[{"role":"user","content":"hi"}]}`)}
	switch x.path() {
	case "/api/chat", "/v1/chat/completions":
	case "/api/generate", "/v1/completions":
		req.Kind, req.Body = schemas.Completion, []byte(`{"prompt":"hi"}`)
	case "/api/embed", "/v1/embeddings":
		req.Kind, req.Body = schemas.Embedding, x.inputs()
	default:
		if x.Response.Status < 400 && (x.path() != "/api/pull" || !strings.Contains(x.lastLine(), `"error"`)) {
			return nil
		}
		return providers.ClassifyForTest(x.Response.Status, x.Response.header(), []byte(x.lastLine()))
	}
	if x.Response.Status == 200 && !x.streamed() && req.Kind != schemas.Embedding {
		return nil // a provider always streams
	}
	if req.Kind == schemas.Embedding {
		_, err := p.(providers.Embedder).Embed(t.Context(), req)
		return err
	}
	_, err := p.Generate(t.Context(), req, func([]byte) error { return nil })
	return err
}

// lastLine is where a stream of progress says that it failed.
func (x *exchange) lastLine() string {
	text := strings.TrimSpace(x.Response.text())
	if x.path() == "/api/pull" {
		text = text[strings.LastIndex(text, "\n")+1:]
	}
	return text
}
