package providers

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/vramjet/vramjet/schemas"
)

// Bedrock is AWS's Bedrock, spoken to in its own dialect, Converse: the one like
// OpenAI's at the same address serves few of its models.
//
// It chats. Converse has neither completions nor embeddings.
type Bedrock struct {
	server
	control string   // where its models are listed
	named   []string // what the configuration says that it serves
}

// newBedrock returns the provider for Bedrock's runtime in a region. The list of
// models is at another address; where there is none to see, at the same.
func newBedrock(cfg Config) *Bedrock {
	p := &Bedrock{server: newServer(cfg), named: cfg.named()}
	p.control = strings.Replace(p.root, "://bedrock-runtime", "://bedrock", 1)
	return p
}

// A bedrockModel is a model in the list.
type bedrockModel struct {
	ID     string   `json:"modelId"`
	Input  []string `json:"inputModalities"`
	Output []string `json:"outputModalities"`
	Types  []string `json:"inferenceTypesSupported"`
	Stream bool     `json:"responseStreamingSupported"`
}

// A bedrockProfile is another name for a model, by which AWS runs it in any of
// several regions. Newer models go by no other.
type bedrockProfile struct {
	ID     string `json:"inferenceProfileId"`
	Status string `json:"status"`
	Models []struct {
		ARN string `json:"modelArn"`
	} `json:"models"`
}

// Models implements Provider. It lists the names by which a request can be sent to
// models that write text and stream it, and what the configuration names beside,
// such as the ARN of a model of one's own. To those who may run models and not list
// them, that alone.
func (p *Bedrock) Models(ctx context.Context) ([]Model, error) {
	models, err := p.list(ctx)
	if err != nil && (len(p.named) == 0 || !kept(err)) {
		return nil, err
	}
	for _, name := range p.named {
		if !slices.ContainsFunc(models, func(m Model) bool { return m.Name == name }) {
			models = append(models, Model{Name: name, Kinds: []schemas.Kind{schemas.Chat}, State: schemas.Remote})
		}
	}
	return models, nil
}

// kept reports whether the server is there and keeps a list to itself.
func kept(err error) bool {
	code := schemas.AsError(err).Code
	return code == schemas.Permission || code == schemas.Unsupported || code == schemas.ModelNotFound
}

func (p *Bedrock) list(ctx context.Context) ([]Model, error) {
	var whole struct {
		Models []bedrockModel `json:"modelSummaries"`
	}
	if err := p.call(ctx, http.MethodGet, p.control+"/foundation-models", nil, &whole); err != nil {
		return nil, err
	}
	if whole.Models == nil {
		return nil, schemas.Errorf(schemas.UpstreamError, "%s: the list of models is none", p.name)
	}
	models := []Model{}
	known := map[string]*bedrockModel{}
	for i := range whole.Models {
		m := &whole.Models[i]
		if !m.Stream || !slices.Contains(m.Output, "TEXT") {
			continue
		}
		known[m.ID] = m
		if slices.Contains(m.Types, "ON_DEMAND") {
			models = append(models, m.model(m.ID))
		}
	}
	profiles, err := p.profiles(ctx)
	if err != nil && !kept(err) {
		return nil, err
	}
	for _, f := range profiles {
		if m := known[f.model()]; m != nil && f.Status == "ACTIVE" {
			models = append(models, m.model(f.ID))
		}
	}
	return models, nil
}

// profiles returns AWS's inference profiles. Those of one's own go by their ARNs:
// the configuration may name them.
func (p *Bedrock) profiles(ctx context.Context) ([]bedrockProfile, error) {
	var all []bedrockProfile
	query := url.Values{"maxResults": {"1000"}, "type": {"SYSTEM_DEFINED"}}
	for range maxPages {
		var page struct {
			Profiles []bedrockProfile `json:"inferenceProfileSummaries"`
			Next     string           `json:"nextToken"`
		}
		if err := p.call(ctx, http.MethodGet, p.control+"/inference-profiles?"+query.Encode(), nil, &page); err != nil {
			return nil, err
		}
		all = append(all, page.Profiles...)
		if page.Next == "" {
			return all, nil
		}
		query.Set("nextToken", page.Next)
	}
	return nil, schemas.Errorf(schemas.UpstreamError, "%s: the list of inference profiles has no end: %d pages so far", p.name, maxPages)
}

// model returns the id of the model that the profile is of.
func (f *bedrockProfile) model() string {
	if len(f.Models) == 0 {
		return ""
	}
	_, id, _ := strings.Cut(f.Models[0].ARN, "foundation-model/")
	return id
}

// model returns what the list says of the model, by that name. Of what models can
// do it says only whether they take images.
func (m *bedrockModel) model(name string) Model {
	out := Model{Name: name, Kinds: []schemas.Kind{schemas.Chat}, State: schemas.Remote}
	if slices.Contains(m.Input, "IMAGE") {
		out.Abilities = []Ability{Vision}
	}
	return out
}

// Generate implements Provider.
func (p *Bedrock) Generate(ctx context.Context, req Request, emit func([]byte) error) (Answer, error) {
	if err := p.chats(req.Kind, "Bedrock's Converse"); err != nil {
		return Answer{}, err
	}
	body, err := toBedrock(req)
	if err != nil {
		return Answer{}, err
	}
	run := newBedrockRun(p.name, req)
	model := strings.ReplaceAll(url.PathEscape(req.Model), ":", "%3A") // as AWS's own clients write it
	err = p.stream(ctx, req, p.root+"/model/"+model+"/converse-stream", body, func(r *bufio.Reader, chunk func()) error {
		return p.relay(r, run, chunk, emit)
	})
	if err != nil {
		return Answer{}, err
	}
	return run.answer.whole(req.Kind, run.prompt), nil
}

// relay reads events until the one with the counts, which is the last. Without it
// the answer is whole, too, if the end of the message came before the end of the
// stream.
func (p *Bedrock) relay(r *bufio.Reader, run *bedrockRun, chunk func(), emit func([]byte) error) error {
	frames := frameReader{r: r}
	for !run.done {
		f, err := frames.next()
		switch {
		case errors.Is(err, io.EOF) && run.answer.finished():
			return nil
		case err != nil:
			return err
		case string(f.kind) != "event":
			return p.exception(&f)
		}
		made, err := run.chunk(&f)
		if err != nil {
			return err
		}
		if made != nil {
			chunk()
			if err := run.send(made, emit); err != nil {
				return err
			}
		}
	}
	return run.send(run.usage(), emit)
}

// exceptions are the statuses that exceptions would have had before the stream.
var exceptions = map[string]int{
	"validationException":         http.StatusBadRequest,
	"modelTimeoutException":       http.StatusRequestTimeout,
	"modelStreamErrorException":   http.StatusFailedDependency,
	"throttlingException":         http.StatusTooManyRequests,
	"internalServerException":     http.StatusInternalServerError,
	"serviceUnavailableException": http.StatusServiceUnavailable,
}

// exception turns a frame that ends the stream into an error.
func (p *Bedrock) exception(f *frame) error {
	name, body := string(f.name), f.payload
	if len(f.message) > 0 {
		body = f.message
	}
	status := exceptions[name]
	if status == 0 {
		status = http.StatusInternalServerError
	}
	return p.failure(status, http.Header{"X-Amzn-Errortype": {name}}, body)
}
