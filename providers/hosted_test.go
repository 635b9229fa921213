package providers_test

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/vramjet/vramjet/providers"
	"github.com/vramjet/vramjet/schemas"
)

// A recorder notes where requests go, and answers them all alike.
type recorder struct {
	asked  []string
	status int
	body   string
}

func (r *recorder) RoundTrip(req *http.Request) (*http.Response, error) {
	r.asked = append(r.asked, req.URL.String())
	return &http.Response{StatusCode: r.status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(r.body)), Request: req}, nil
}

// URLs as people paste them: where a chat goes, and where the list is asked for.
func TestVendorURLs(t *testing.T) {
	const (
		azure   = "https://res.openai.azure.com/openai"
		dated   = "?api-version=2024-10-21"
		runtime = "https://bedrock-runtime.us-east-1.amazonaws.com"
		mantle  = "https://bedrock-mantle.us-east-1.api.aws"
		gemini  = "https://generativelanguage.googleapis.com"
		vertex  = "https://us-central1-aiplatform.googleapis.com/v1/projects/p/locations/us-central1"
		chat    = "/chat/completions"
	)
	for _, c := range []struct {
		kind       string
		urls       []string
		chat, list string
	}{
		{"openai", []string{"", "https://api.openai.com", "https://api.openai.com/v1/", "https://api.openai.com/v1/chat/completions"}, "https://api.openai.com/v1" + chat, "https://api.openai.com/v1/models"},
		{"openai", []string{"http://127.0.0.1:9", "http://127.0.0.1:9/v1/chat/completions"}, "http://127.0.0.1:9/v1" + chat, "http://127.0.0.1:9/v1/models"},
		{"openai", []string{"https://ec2-1.compute.amazonaws.com", "https://ec2-1.compute.amazonaws.com/v1"}, "https://ec2-1.compute.amazonaws.com/v1" + chat, "https://ec2-1.compute.amazonaws.com/v1/models"},
		{"openrouter", []string{"", "https://openrouter.ai", "https://openrouter.ai/api", "https://openrouter.ai/api/v1/"}, "https://openrouter.ai/api/v1" + chat, "https://openrouter.ai/api/v1/models?output_modalities=all"},
		{"openai", []string{"https://openrouter.ai/"}, "https://openrouter.ai/api/v1" + chat, "https://openrouter.ai/api/v1/models"},
		{"together", []string{"https://api.together.ai"}, "https://api.together.ai/v1" + chat, "https://api.together.ai/v1/models"},
		{"azure", []string{"https://res.openai.azure.com", azure, azure + "/", azure + "/v1", azure + "/v1/", azure + "/v1" + chat, azure + "/deployments/x" + chat}, azure + "/v1" + chat, azure + "/v1/models"},
		{"azure", []string{"https://res.openai.azure.com/?api-version=preview", azure + "/v1?api-version=preview"}, azure + "/v1" + chat + "?api-version=preview", azure + "/v1/models?api-version=preview"},
		{"azure", []string{"https://res.openai.azure.com" + dated, "https://res.openai.azure.com/" + dated, azure + "/deployments/x" + chat + dated}, azure + "/deployments/a%2Fb" + chat + dated, azure + "/models" + dated},
		{"azure", []string{"https://res.services.ai.azure.com/"}, "https://res.services.ai.azure.com/openai/v1" + chat, "https://res.services.ai.azure.com/openai/v1/models"},
		{"azure", []string{"https://gateway.example/llm/v1"}, "https://gateway.example/llm/v1" + chat, "https://gateway.example/llm/v1/models"},
		{"bedrock", []string{runtime, runtime + "/"}, runtime + "/model/a%2Fb/converse-stream", "https://bedrock.us-east-1.amazonaws.com/foundation-models"},
		{"bedrock", []string{runtime + "/openai", runtime + "/openai/v1"}, runtime + "/openai/v1" + chat, runtime + "/v1/models"},
		{"bedrock", []string{mantle, mantle + "/v1"}, mantle + "/v1" + chat, mantle + "/v1/models"},
		{"bedrock", []string{mantle + "/openai", mantle + "/openai/v1"}, mantle + "/openai/v1" + chat, mantle + "/v1/models"},
		{"vertex", []string{gemini, gemini + "/v1beta", gemini + "/v1beta/openai", gemini + "/v1beta/openai/"}, gemini + "/v1beta/openai" + chat, gemini + "/v1beta/openai/models"},
		{"vertex", []string{vertex, vertex + "/endpoints", vertex + "/endpoints/openapi/", vertex + "/endpoints/openapi" + chat}, vertex + "/endpoints/openapi" + chat, vertex + "/endpoints/openapi/models"},
	} {
		for _, u := range c.urls {
			r := &recorder{status: http.StatusTeapot}
			p, err := providers.New(providers.Config{Kind: c.kind, URL: u, HTTP: &http.Client{Transport: r}})
			if err != nil {
				t.Errorf("%s: %v", u, err)
				continue
			}
			_, _ = p.Generate(t.Context(), providers.Request{Kind: schemas.Chat, Model: "a/b", Body: []byte(`{"messages":[{"role":"user","content":"hi"}]}`)}, nil)
			_, _ = p.Models(t.Context())
			if d := cmp.Diff([]string{c.chat, c.list}, r.asked); d != "" {
				t.Errorf("%s at %q: %s", c.kind, u, d)
			}
		}
	}
	for _, c := range []struct{ kind, url, hint string }{
		{"azure", "", "https://RESOURCE.openai.azure.com/openai/v1"},
		{"bedrock", "bedrock-runtime.us-east-1.amazonaws.com", "https://bedrock-runtime.REGION.amazonaws.com/openai/v1"},
		{"bedrock", runtime + "/model/x/converse", runtime + "/openai/v1"},
		{"bedrock", runtime + "/v1", runtime + "/openai/v1"},
		{"vertex", gemini + "/v1beta/models/gemini-2.5-flash:generateContent", gemini + "/v1beta/openai"},
		{"vertex", "https://us-central1-aiplatform.googleapis.com", "projects/*/locations/*/endpoints/openapi"},
		{"openrouter", "https://openrouter.ai/v1", "https://openrouter.ai/api/v1"},
		{"openai", gemini + "/v1beta/openai", "kind vertex"},
		{"openai", azure, "kind azure"},
		{"azure", "https://api.openai.com", "kind openai"},
	} {
		if p, err := providers.New(providers.Config{Name: "x", Kind: c.kind, URL: c.url}); err == nil || p != nil || !strings.Contains(err.Error(), c.hint) || !strings.HasPrefix(err.Error(), "backend x: ") {
			t.Errorf("%s at %q: %v", c.kind, c.url, err)
		}
	}
}

// Where there is no list to go by, the configuration's is, and its lack is an
// error that says what to do.
func TestNamedModels(t *testing.T) {
	const list = `{"data":[{"id":"curie"}]}`
	for _, c := range []struct {
		kind   string
		status int
		body   string
		want   schemas.Code // without names
		named  bool         // names are taken
	}{
		{"azure", http.StatusOK, list, schemas.Unsupported, true},
		{"azure", http.StatusUnauthorized, `{"error":{"code":"401","message":"Access denied"}}`, schemas.Auth, false},
		{"azure", http.StatusOK, `<html>`, schemas.UpstreamError, false},
		{"bedrock", http.StatusNotFound, `{"message":"x"}`, schemas.ModelNotFound, true},
		{"vertex", http.StatusNotFound, `<html>page not found</html>`, schemas.Unsupported, true},
		{"openai", http.StatusForbidden, `{"error":{"message":"You have insufficient permissions for this operation. Missing scopes: api.model.read."}}`, schemas.Permission, true},
		{"together", http.StatusBadGateway, ``, schemas.UpstreamError, false},
	} {
		for _, names := range [][]string{nil, {"gpt-*"}, {"mine", "gpt-*"}} {
			r := &recorder{status: c.status, body: c.body}
			p, err := providers.New(providers.Config{Kind: c.kind, URL: "http://test.invalid/v1", Models: names, HTTP: &http.Client{Transport: r}})
			if err != nil {
				t.Fatal(err)
			}
			models, err := p.Models(t.Context())
			if len(names) == 2 && c.named {
				if err != nil || len(models) != 1 || models[0].Name != "mine" || models[0].State != schemas.Remote {
					t.Errorf("%s %d: %v, %v", c.kind, c.status, models, err)
				}
				continue
			}
			if err == nil || schemas.AsError(err).Code != c.want || models != nil || c.named != strings.Contains(err.Error(), "`models:`") {
				t.Errorf("%s %d with the names %v: %v, %v", c.kind, c.status, names, models, err)
			}
		}
	}
}
