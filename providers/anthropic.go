package providers

import (
	"bufio"
	"context"
	"net/http"
	"net/url"
	"strings"

	"github.com/vramjet/vramjet/schemas"
)

// Anthropic is Anthropic's API, spoken to in its own dialect, Messages: the one
// like OpenAI's at the same address leaves out what a model thought, and ignores
// without a word what it cannot do.
//
// It chats. It has neither completions nor embeddings.
type Anthropic struct {
	server
}

// maxPages is how many pages of 1000 models are read.
const maxPages = 20

// An anthropicPage is a page of the list of models.
type anthropicPage struct {
	Data []anthropicModel `json:"data"`
	More bool             `json:"has_more"`
	Last string           `json:"last_id"`
}

// An anthropicModel is a model in the list.
type anthropicModel struct {
	ID      string `json:"id"`
	Context int    `json:"max_input_tokens"`
	Can     *struct {
		Images   supported `json:"image_input"`
		Thinking supported `json:"thinking"`
	} `json:"capabilities"`
}

type supported struct {
	Supported bool `json:"supported"`
}

// Models implements Provider.
func (p *Anthropic) Models(ctx context.Context) ([]Model, error) {
	models := []Model{}
	after := ""
	for range maxPages {
		page, err := p.page(ctx, after)
		if err != nil {
			return nil, err
		}
		for i := range page.Data {
			models = append(models, page.Data[i].model())
		}
		if !page.More {
			return models, nil
		}
		after = page.Last
	}
	return nil, schemas.Errorf(schemas.UpstreamError, "%s: the list of models has no end: %d pages so far", p.name, maxPages)
}

// page returns the models that follow the one with the id after; "": the first.
func (p *Anthropic) page(ctx context.Context, after string) (anthropicPage, error) {
	query, err := url.ParseQuery(strings.TrimPrefix(p.query, "?"))
	if err != nil {
		return anthropicPage{}, schemas.Errorf(schemas.Internal, "%s: the url: %s", p.name, err)
	}
	query.Set("limit", "1000")
	if after != "" {
		query.Set("after_id", after)
	}
	var page anthropicPage
	if err := p.call(ctx, http.MethodGet, p.v1+"/models?"+query.Encode(), nil, &page); err != nil {
		return anthropicPage{}, err
	}
	if page.Data == nil {
		return anthropicPage{}, schemas.Errorf(schemas.UpstreamError, "%s: the list of models is none", p.name)
	}
	return page, nil
}

// model returns what the list says of a model. It does not say that a model calls
// tools, as all of them do.
func (l *anthropicModel) model() Model {
	m := Model{Name: l.ID, Kinds: []schemas.Kind{schemas.Chat}, State: schemas.Remote, Context: l.Context}
	if l.Can == nil {
		return m
	}
	m.Abilities = []Ability{Tools}
	if l.Can.Images.Supported {
		m.Abilities = append(m.Abilities, Vision)
	}
	if l.Can.Thinking.Supported {
		m.Abilities = append(m.Abilities, Reasoning)
	}
	return m
}

// Generate implements Provider.
func (p *Anthropic) Generate(ctx context.Context, req Request, emit func([]byte) error) (Answer, error) {
	if err := p.chats(req.Kind, "Anthropic"); err != nil {
		return Answer{}, err
	}
	body, err := toAnthropic(req)
	if err != nil {
		return Answer{}, err
	}
	run := newAnthropicRun(req)
	err = p.stream(ctx, req, p.at(req.Model, "/messages"), body, func(r *bufio.Reader, chunk func()) error {
		events := sseReader{lines: lineReader{r: r}}
		return p.retell(events.next, run, chunk, emit)
	})
	if err != nil {
		return Answer{}, err
	}
	return run.answer.whole(req.Kind, run.prompt), nil
}
