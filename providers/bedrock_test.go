package providers_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/vramjet/vramjet/providers"
	"github.com/vramjet/vramjet/schemas"
)

// asked answers requests by "METHOD URL", as a Failure would, and notes them.
type asked struct {
	answers map[string]string // a body that begins with a status and a space has it
	got     []*http.Request
}

// RoundTrip implements http.RoundTripper.
func (a *asked) RoundTrip(r *http.Request) (*http.Response, error) {
	a.got = append(a.got, r)
	status, body := http.StatusNotFound, `{"message":"not here"}`
	if b, ok := a.answers[r.Method+" "+r.URL.String()]; ok {
		status, body = http.StatusOK, b
		if denied, cut := strings.CutPrefix(b, "403 "); cut {
			status, body = http.StatusForbidden, denied
		}
	}
	return &http.Response{StatusCode: status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body)), Request: r}, nil
}

const bedrockURL = "https://bedrock-runtime.eu-central-1.amazonaws.com"

func bedrockAt(t *testing.T, a *asked, cfg providers.Config) providers.Provider {
	t.Helper()
	cfg.Name, cfg.Kind, cfg.HTTP = "aws", providers.KindBedrock, &http.Client{Transport: a}
	if cfg.URL == "" {
		cfg.URL = bedrockURL
	}
	p, err := providers.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func names(models []providers.Model) (list []string) {
	for _, m := range models {
		list = append(list, m.Name)
	}
	return list
}

// Models are listed by the region's control plane, and who may not see the list
// still has what the configuration names.
func TestBedrockModels(t *testing.T) {
	const (
		control  = "GET https://bedrock.eu-central-1.amazonaws.com"
		profiles = control + "/inference-profiles?maxResults=1000&type=SYSTEM_DEFINED"
		arn      = "arn:aws:bedrock:eu-central-1:1:application-inference-profile/x1"
		model    = `{"modelId":"nova","outputModalities":["TEXT"],"inferenceTypesSupported":["ON_DEMAND"],"responseStreamingSupported":true}`
		denied   = `403 {"Message":"User: arn:aws:iam::1:user/x is not authorized to perform: bedrock:ListFoundationModels because no identity-based policy allows it"}`
	)
	listed := map[string]string{control + "/foundation-models": `{"modelSummaries":[` + model + `]}`, profiles: `{"inferenceProfileSummaries":[]}`}
	for name, c := range map[string]struct {
		answers map[string]string
		named   []string
		want    []string
		code    schemas.Code
	}{
		"listed":                  {answers: listed, want: []string{"nova"}},
		"listed and named":        {answers: listed, named: []string{"nova", "n*", arn}, want: []string{"nova", arn}},
		"profiles are denied":     {answers: map[string]string{control + "/foundation-models": listed[control+"/foundation-models"], profiles: denied}, want: []string{"nova"}},
		"denied":                  {answers: map[string]string{control + "/foundation-models": denied}, code: schemas.Permission},
		"denied and named":        {answers: map[string]string{control + "/foundation-models": denied}, named: []string{arn}, want: []string{arn}},
		"no list":                 {code: schemas.ModelNotFound},
		"no list, only patterns":  {named: []string{"n*"}, code: schemas.ModelNotFound},
		"no list and named":       {named: []string{arn}, want: []string{arn}},
		"a wrong key":             {answers: map[string]string{control + "/foundation-models": `403 {"Message":"Authentication failed: Please make sure your API Key is valid."}`}, named: []string{arn}, code: schemas.Auth},
		"something else is there": {answers: map[string]string{control + "/foundation-models": `{}`}, named: []string{arn}, code: schemas.UpstreamError},
	} {
		t.Run(name, func(t *testing.T) {
			models, err := bedrockAt(t, &asked{answers: c.answers}, providers.Config{Models: c.named}).Models(t.Context())
			if diff := cmp.Diff(c.want, names(models)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if err != nil != (c.code != "") || err != nil && schemas.AsError(err).Code != c.code {
				t.Errorf("the error is %v, want the code %q", err, c.code)
			}
		})
	}
}

func chatOn(ctx context.Context, p providers.Provider, model string) error {
	req := providers.Request{Kind: schemas.Chat, Model: model, Body: []byte(`{"messages":[{"role":"user","content":"hi"}]}`)}
	_, err := p.Generate(ctx, req, func([]byte) error { return nil })
	return err
}

// The names of models hold characters that mean something in a path.
func TestBedrockPath(t *testing.T) {
	for model, want := range map[string]string{
		"amazon.nova-lite-v1:0": "amazon.nova-lite-v1%3A0",
		"arn:aws:bedrock:eu-central-1:1:application-inference-profile/x1": "arn%3Aaws%3Abedrock%3Aeu-central-1%3A1%3Aapplication-inference-profile%2Fx1",
	} {
		a := &asked{answers: map[string]string{"POST " + bedrockURL + "/model/" + want + "/converse-stream": bedrockSays("x")}}
		if err := chatOn(t.Context(), bedrockAt(t, a, providers.Config{}), model); err != nil {
			t.Errorf("%s: %v, asked for %s", model, err, a.got[0].URL)
		}
	}
}

// Where the URL has a path, it is that of Bedrock's API like OpenAI's.
func TestBedrockLikeOpenAI(t *testing.T) {
	a := &asked{}
	_ = chatOn(t.Context(), bedrockAt(t, a, providers.Config{URL: bedrockURL + "/openai/v1"}), "m")
	if got, want := a.got[0].URL.String(), bedrockURL+"/openai/v1/chat/completions"; got != want {
		t.Errorf("it went to %s, want %s", got, want)
	}
}

// A request is signed as it goes out, unless there is a key for it; what is signed
// with stays out of messages.
func TestSignedRequests(t *testing.T) {
	a := &asked{answers: map[string]string{"POST " + bedrockURL + "/model/m/converse-stream": `403 {"message":"the canonical string should have been: x-amz-security-token:token-1"}`}}
	var signed string
	cfg := providers.Config{Sign: func(r *http.Request, body []byte) error {
		signed = string(body)
		r.Header.Set("X-Amz-Security-Token", "token-1")
		r.Header.Set("Authorization", "AWS4-HMAC-SHA256 …")
		return nil
	}}
	err := chatOn(t.Context(), bedrockAt(t, a, cfg), "m")
	if err == nil || strings.Contains(err.Error(), "token-1") || !strings.Contains(err.Error(), "[key]") {
		t.Errorf("the error is %v", err)
	}
	sent, _ := io.ReadAll(a.got[0].Body)
	if signed == "" || signed != string(sent) || !strings.HasPrefix(a.got[0].Header.Get("Authorization"), "AWS4") {
		t.Errorf("signed %q, sent %q with %v", signed, sent, a.got[0].Header)
	}
	cfg.Keys = []providers.Key{{Secret: func() string { return "k" }}}
	_ = chatOn(t.Context(), bedrockAt(t, a, cfg), "m")
	if got := a.got[len(a.got)-1].Header.Get("Authorization"); got != "Bearer k" {
		t.Errorf("with a key: %s", got)
	}
	before := len(a.got)
	err = chatOn(t.Context(), bedrockAt(t, a, providers.Config{Sign: func(*http.Request, []byte) error { return errors.New("no credentials") }}), "m")
	if e := schemas.AsError(err); e == nil || e.Code != schemas.Unreachable || !strings.Contains(e.Message, "no credentials") || len(a.got) != before {
		t.Errorf("without credentials: %v", err)
	}
}
