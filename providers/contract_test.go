package providers_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"testing"

	"go.uber.org/goleak"

	"github.com/vramjet/vramjet/providers"
	"github.com/vramjet/vramjet/providers/providertest"
)

var update = flag.Bool("update", false, "write the table of proofs in docs/providers.md")

// proofs is what the tests of this package proved: all kinds but the one that speaks
// NATS.
var proofs = providertest.Proofs{Row: func(kind string) bool { return kind != providers.KindRPC }}

// TestMain holds the table of proofs to what was proven, where all tests ran.
func TestMain(m *testing.M) {
	code := m.Run()
	if all := flag.Lookup("test.run").Value.String() == "" && flag.Lookup("test.list").Value.String() == ""; code == 0 && all && !flag.Lookup("test.short").Value.(flag.Getter).Get().(bool) {
		sources := []providertest.Source{providertest.Scripted}
		if tracesDir() != "" {
			sources = append(sources, providertest.Recorded)
		}
		if err := proofs.Check("../docs/providers.md", *update, sources...); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// allKinds are the kinds that the suite runs on, each with the server that speaks
// as its vendor documents it.
func allKinds() []providertest.Kind {
	return slices.Concat(ollamaKinds(), llamaKinds(), openAIKinds(), localKinds(), tgiKinds(), anthropicKinds(), bedrockKinds(), hostedKinds(), googleKinds())
}

func TestContract(t *testing.T) {
	tested := map[string]bool{providers.KindRPC: true} // in providers/rpc: it speaks NATS
	for _, k := range allKinds() {
		tested[k.Name] = true
		name := k.Name
		if k.Label != "" {
			name = k.Label
		}
		t.Run(name, func(t *testing.T) {
			providertest.Run(t, k, &proofs, providertest.Scripted)
		})
	}
	for _, kind := range providers.Kinds() {
		if !tested[kind] {
			t.Errorf("the kind %s is not under the contract: %v are", kind, slices.Sorted(maps.Keys(tested)))
		}
	}
}

func quoted(text string) string {
	b, err := json.Marshal(text)
	if err != nil {
		panic(err)
	}
	return string(b)
}

// openAIStream is the dialect of all that stream as OpenAI does.
func openAIStream() providertest.Dialect {
	return providertest.Dialect{
		ContentType: "text/event-stream",
		Chunk: func(text string) string {
			return fmt.Sprintf("data: {\"id\":\"1\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{\"content\":%s},\"finish_reason\":null}]}\n\n", quoted(text))
		},
		End:     "data: {\"id\":\"1\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n",
		Error:   "data: {\"error\":{\"message\":\"it broke\",\"type\":\"server_error\",\"code\":500}}\n\n",
		Comment: ": ping\n\n",
	}
}

// The suite again, over streams that real servers sent.
func TestContractRecorded(t *testing.T) {
	for name, k := range map[string]providertest.Kind{
		"llama-server-b11669/chat_stream_usage.json": {Name: providers.KindLlamaCpp, Dialect: openAIStream()},
		"llama-swap-v250/swap_stream.json":           {Name: providers.KindLlamaSwap, Dialect: openAIStream()},
		"ollama-0.17.4/chat_stream.json":             {Name: providers.KindOllama, Dialect: ollamaStream()},
	} {
		t.Run(name, func(t *testing.T) {
			for _, x := range readTrace(t, name).Exchanges {
				if p := x.path(); p != "/v1/chat/completions" && p != "/api/chat" {
					continue // the suite chats
				}
				k.Dialect.Stream = x.Response.text()
				k.Dialect.Text, _ = x.said(t)
				providertest.Run(t, k, new(providertest.Proofs), providertest.Recorded)
			}
		})
	}
}
