package bench

import (
	"context"

	"github.com/vramjet/vramjet/providers"
	"github.com/vramjet/vramjet/schemas"
)

// instant is a model that the worker's own process answers for at once, without HTTP: what
// its jobs take is vramjet's and NATS's alone.
type instant string

// Models lists the one model.
func (i instant) Models(context.Context) ([]providers.Model, error) {
	return []providers.Model{{Name: string(i), Kinds: []schemas.Kind{schemas.Chat}, State: schemas.Resident, Slots: outstanding / 2}}, nil
}

// Generate answers with one token.
func (instant) Generate(_ context.Context, _ providers.Request, emit func(chunk []byte) error) (providers.Answer, error) {
	if err := emit(Chunk("").Data); err != nil {
		return providers.Answer{}, err
	}
	return providers.Answer{
		Body:  []byte(`{"id":"chatcmpl-1","object":"chat.completion","created":1767225600,"model":"bench","choices":[{"index":0,"message":{"role":"assistant","content":" word"},"finish_reason":"length"}],"usage":{"prompt_tokens":12,"completion_tokens":1,"total_tokens":13}}`),
		Usage: schemas.Usage{PromptTokens: 12, CompletionTokens: 1, TotalTokens: 13},
	}, nil
}
