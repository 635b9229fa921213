package providers_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vramjet/vramjet/providers"
	"github.com/vramjet/vramjet/schemas"
)

// A vLLM that was not started with priorities turns them down in one of these ways.
// Requests go on without, and it is asked again after a while.
func TestVLLMRefusesPriorities(t *testing.T) {
	const not = "Got priority 1 but Priority scheduling is not enabled."
	for name, refuse := range map[string]http.HandlerFunc{
		"at once":        says(http.StatusBadRequest, `{"object":"error","message":"`+not+`","type":"BadRequestError","param":null,"code":400}`),
		"in the stream":  says(http.StatusOK, `data: {"object":"error","message":"`+not+`","type":"BadRequestError","param":null,"code":400}`+"\n\ndata: [DONE]\n\n"),
		"the first V1":   says(http.StatusBadRequest, `{"object":"error","message":"V1 does not support priority yet.","type":"BadRequestError","param":null,"code":400}`),
		"before it came": says(http.StatusBadRequest, `{"object":"error","message":"[{'type': 'extra_forbidden', 'loc': ('body', 'priority'), 'msg': 'Extra inputs are not permitted', 'input': 1}]","type":"BadRequestError","param":null,"code":400}`),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var got []string
				p := scripted(t, providers.KindVLLM, priorityTaker(&got, refuse))
				ask := func(class schemas.Class, want ...string) {
					t.Helper()
					got = nil
					req := providers.Request{Kind: schemas.Chat, Model: "m", Class: class, Body: []byte(`{"messages":[]}`)}
					if _, err := p.Generate(t.Context(), req, func([]byte) error { return nil }); err != nil {
						t.Error(err)
					}
					if !slices.Equal(got, want) {
						t.Errorf("the server got the priorities %q, want %q", got, want)
					}
				}
				ask(schemas.Normal, "")
				ask(schemas.Batch, "1", "")
				ask(schemas.Interactive, "")
				if err := p.(providers.Breaker).Open(); err != nil { //nolint:forcetypeassert // every provider is one
					t.Error(err)
				}
				time.Sleep(11 * time.Minute)
				ask(schemas.Interactive, "-1", "")
			})
		})
	}
}

// priorityTaker answers requests without a priority, and notes what they had.
func priorityTaker(got *[]string, refuse http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		raw, _ := io.ReadAll(r.Body)
		var body struct{ Priority json.RawMessage }
		_ = json.Unmarshal(raw, &body)
		*got = append(*got, string(body.Priority))
		switch {
		case body.Priority != nil:
			refuse(w, r)
		case strings.HasSuffix(r.URL.Path, "/embeddings"):
			_, _ = io.WriteString(w, `{"object":"list","data":[{"index":0,"embedding":[1]}],"usage":{"prompt_tokens":1,"total_tokens":1}}`)
		default:
			whole(w, r)
		}
	}
}

// Embeddings take priorities too.
func TestVLLMRefusesPrioritiesOfEmbeddings(t *testing.T) {
	var got []string
	p := scripted(t, providers.KindVLLM, priorityTaker(&got, says(http.StatusBadRequest, `{"message":"no priority","code":400}`)))
	req := providers.Request{Kind: schemas.Embedding, Model: "m", Class: schemas.Batch, Body: []byte(`{"input":"x","priority":-5}`)}
	if _, err := p.(providers.Embedder).Embed(t.Context(), req); err != nil { //nolint:forcetypeassert // vLLM embeds
		t.Error(err)
	}
	if want := []string{"1", ""}; !slices.Equal(got, want) {
		t.Errorf("the server got the priorities %q, want %q", got, want)
	}
}

// What is not about the priority of a request is no reason to leave it out.
func TestVLLMKeepsPriorities(t *testing.T) {
	for name, c := range map[string]struct {
		answer http.HandlerFunc
		sent   []string // of two requests
	}{
		"a word of the caller's": {says(http.StatusBadRequest, `{"message":"the tool priority_list is not known","code":400}`), []string{"1", "", "1", ""}},
		"something else":         {says(http.StatusBadRequest, `{"message":"messages: Field required","code":400}`), []string{"1", "1"}},
		"a failure":              {says(http.StatusInternalServerError, `{"message":"the priority queue broke","code":500}`), []string{"1", "1"}},
		"within the answer":      {says(http.StatusOK, oneChunk+`data: {"error":{"message":"no priority","code":400}}`+"\n\n"), []string{"1", "1"}},
	} {
		t.Run(name, func(t *testing.T) {
			var got []string
			p := scripted(t, providers.KindVLLM, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				priorityTaker(&got, c.answer)(httptest.NewRecorder(), r)
				c.answer(w, r)
			}))
			for range 2 {
				req := providers.Request{Kind: schemas.Chat, Model: "m", Class: schemas.Batch, Body: []byte(`{"messages":[]}`)}
				if _, err := p.Generate(t.Context(), req, func([]byte) error { return nil }); err == nil {
					t.Error("no error")
				}
			}
			if !slices.Equal(got, c.sent) {
				t.Errorf("the server got the priorities %q, want %q", got, c.sent)
			}
		})
	}
}
