package providers_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"testing"

	"go.uber.org/goleak"

	"github.com/vramjet/vramjet/providers"
	"github.com/vramjet/vramjet/providers/providertest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newOf(kind string) func(*testing.T, string, *http.Client) providers.Provider {
	return func(t *testing.T, url string, client *http.Client) providers.Provider {
		t.Helper()
		p, err := providers.New(providers.Config{Name: "test", Kind: kind, URL: url, HTTP: client})
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
}

func quoted(text string) string {
	b, err := json.Marshal(text)
	if err != nil {
		panic(err)
	}
	return string(b)
}

func openAIDialect(kind string) providertest.Dialect {
	return providertest.Dialect{
		New: newOf(kind), ContentType: "text/event-stream",
		Chunk: func(text string) string {
			return fmt.Sprintf("data: {\"id\":\"1\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{\"content\":%s},\"finish_reason\":null}]}\n\n", quoted(text))
		},
		End:     "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n",
		Error:   "data: {\"error\":{\"message\":\"it broke\",\"type\":\"server_error\",\"code\":500}}\n\n",
		Comment: ": ping\n\n",
	}
}

func ollamaDialect() providertest.Dialect {
	return providertest.Dialect{
		New: newOf(providers.KindOllama), ContentType: "application/x-ndjson",
		Chunk: func(text string) string {
			return fmt.Sprintf("{\"model\":\"m\",\"created_at\":\"2026-11-23T05:10:20Z\",\"message\":{\"role\":\"assistant\",\"content\":%s},\"done\":false}\n", quoted(text))
		},
		End:     "{\"model\":\"m\",\"message\":{\"role\":\"assistant\",\"content\":\"\"},\"done\":true,\"done_reason\":\"stop\",\"prompt_eval_count\":5,\"eval_count\":3}\n",
		Error:   "{\"error\":\"an error was encountered while running the model: unexpected EOF\"}\n",
		Comment: "\n",
	}
}

func TestContract(t *testing.T) {
	for _, kind := range []string{providers.KindOpenAI, providers.KindSim} {
		t.Run(kind, func(t *testing.T) { providertest.Run(t, openAIDialect(kind)) })
	}
	t.Run("ollama", func(t *testing.T) { providertest.Run(t, ollamaDialect()) })
}

// The suite again, over streams that real servers sent.
func TestContractRecorded(t *testing.T) {
	for name, d := range map[string]providertest.Dialect{
		"llama-server-b11669/chat_stream_usage.json": openAIDialect(providers.KindLlamaCpp),
		"llama-swap-v250/swap_stream.json":           openAIDialect(providers.KindLlamaSwap),
		"ollama-0.17.4/chat_stream.json":             ollamaDialect(),
	} {
		t.Run(name, func(t *testing.T) {
			for _, x := range readTrace(t, name).Exchanges {
				if p := x.path(); p != "/v1/chat/completions" && p != "/api/chat" {
					continue // the suite chats
				}
				d.Stream = x.Response.text()
				d.Text, _ = x.said(t)
				providertest.Run(t, d)
			}
		})
	}
}
