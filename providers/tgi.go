package providers

import (
	"bufio"
	"context"
	"net/http"

	"github.com/vramjet/vramjet/schemas"
)

// TGI is a Hugging Face Text Generation Inference server. It holds the one model
// that it was started with. It chats in its own reading of OpenAI's API, and
// completes in its own dialect, which has all that the model can do: its
// /v1/completions knows neither logprobs nor grammars.
type TGI struct {
	server
	openAI *OpenAI // for chats; not embedded, as TGI computes no embeddings
}

// NewTGI returns the provider for a Text Generation Inference server.
func NewTGI(cfg Config) *TGI {
	p := NewOpenAI(cfg)
	return &TGI{server: p.server, openAI: p}
}

// tgiInfo is what the server says of itself.
type tgiInfo struct {
	ModelID   string `json:"model_id"`
	ModelSHA  string `json:"model_sha"`
	Pipeline  string `json:"model_pipeline_tag"`
	MaxTokens int    `json:"max_total_tokens"` // of a prompt and its answer
}

// info asks a server what it is. Others have such a page, too, with other
// members: that for embeddings, above all.
func (s *server) info(ctx context.Context) (tgiInfo, error) {
	var info tgiInfo
	err := s.call(ctx, http.MethodGet, s.root+"/info", nil, &info)
	if err == nil && (info.ModelID == "" || info.MaxTokens == 0) {
		err = schemas.Errorf(schemas.UpstreamError, "%s: /info is not like that of Text Generation Inference", s.name)
	}
	return info, err
}

// Models implements Provider. /info answers even where the model is dead, so the
// server's health is asked, too.
//
// The server does not tell how many jobs it runs at once: max_concurrent_requests
// is how many it takes in before it turns others away, and most of them may wait.
func (p *TGI) Models(ctx context.Context) ([]Model, error) {
	info, err := p.info(ctx)
	if err != nil {
		return nil, err
	}
	if err := p.call(ctx, http.MethodGet, p.root+"/health", nil, nil); err != nil {
		return nil, err
	}
	m := Model{
		Name:    info.ModelID,
		Kinds:   []schemas.Kind{schemas.Chat, schemas.Completion},
		State:   schemas.Resident,
		Context: info.MaxTokens,
		Digest:  info.ModelSHA,
	}
	if info.Pipeline == "image-text-to-text" {
		m.Abilities = []Ability{Vision}
	}
	return []Model{m}, nil
}

// Pressure implements PressureReporter. A gauge is there once it was set first,
// which the first request does: a server that runs TGI's own engine, and has told
// its size, has had none until then.
func (p *TGI) Pressure(ctx context.Context, _ string) (Pressure, error) {
	m, err := p.metrics(ctx, p.root+"/metrics")
	if err != nil {
		return Pressure{}, err
	}
	size := m.sum("tgi_batch_max_total_tokens", 0)
	unset := -1.0
	if size > 0 {
		unset = 0
	}
	now := Pressure{
		Running: int(m.sum("tgi_batch_current_size", unset)),
		Waiting: int(m.sum("tgi_queue_size", unset)),
		KVUsed:  -1,
	}
	if size > 0 {
		now.KVUsed = min(1, m.sum("tgi_batch_current_max_tokens", unset)/size)
	}
	return now, nil
}

// Generate implements Provider.
func (p *TGI) Generate(ctx context.Context, req Request, emit func([]byte) error) (Answer, error) {
	switch req.Kind {
	case schemas.Chat:
		body, err := toTGIChat(req)
		if err != nil {
			return Answer{}, err
		}
		req.Body = body
		return p.openAI.Generate(ctx, req, emit)
	case schemas.Completion:
		return p.complete(ctx, req, emit)
	default:
		return Answer{}, schemas.Errorf(schemas.InvalidRequest, "%s: a job of the kind %q generates nothing", p.name, req.Kind)
	}
}

// complete runs a completion. The last event is the one that holds the whole text;
// there is no [DONE].
func (p *TGI) complete(ctx context.Context, req Request, emit func([]byte) error) (Answer, error) {
	body, logprobs, err := toTGI(req)
	if err != nil {
		return Answer{}, err
	}
	run := tgiRun{retold: newRetold(req), model: quote(req.Model), logprobs: logprobs}
	err = p.stream(ctx, req, p.root+"/generate_stream", body, func(r *bufio.Reader, chunk func()) error {
		events := sseReader{lines: lineReader{r: r}}
		return p.retell(events.next, &run, chunk, emit)
	})
	if err != nil {
		return Answer{}, err
	}
	return run.answer.whole(req.Kind, run.prompt), nil
}
