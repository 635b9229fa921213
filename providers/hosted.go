package providers

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"

	"github.com/vramjet/vramjet/schemas"
)

// An endpoint is where a vendor has OpenAI's API.
type endpoint struct {
	kind string
	host string // a pattern of path.Match, as are the path's pieces
	path string
}

// The endpoints of the vendors that have it elsewhere than at "/v1" of their host,
// or whose hosts are known. Where a host has two, what is there of a path decides.
//
// Bedrock has two. Where its URL names the one like OpenAI's, bodies pass through as
// they are. Its host alone means Converse, which has more models, but every request
// is translated: see Bedrock.
var endpoints = []endpoint{
	{KindOpenAI, "*api.openai.com", "/v1"},
	{KindOpenRouter, "openrouter.ai", "/api/v1"},
	{KindTogether, "api.together.*", "/v1"},
	{KindAzure, "*.openai.azure.*", "/openai/v1"},
	{KindAzure, "*.services.ai.azure.com", "/openai/v1"},
	{KindAzure, "*.cognitiveservices.azure.*", "/openai/v1"},
	{KindBedrock, "bedrock-runtime*.amazonaws.com*", "/openai/v1"},
	{KindBedrock, "bedrock-mantle.*.api.aws", "/v1"},
	{KindBedrock, "bedrock-mantle.*.api.aws", "/openai/v1"}, // some models are only there
	{KindVertex, "generativelanguage.googleapis.com", "/v1beta/openai"},
	{KindVertex, "*aiplatform*.googleapis.com", "/v1*/projects/*/locations/*/endpoints/openapi"},
}

// complete returns the URL of a server's API, for a URL as people paste it: of the
// vendor's host alone, of a part of the way, or of one of the requests. A host that
// is no vendor's is taken at its word.
func complete(kind string, u *url.URL) (string, error) {
	given := strings.TrimRight(u.Path, "/")
	for _, request := range []string{"/chat/completions", "/completions", "/embeddings", "/models"} {
		given = strings.TrimSuffix(given, request)
	}
	if kind == KindBedrock && given == "" && !strings.HasPrefix(u.Hostname(), "bedrock-mantle.") {
		return u.String(), nil
	}
	whole := *u
	whole.Path, whole.RawPath = given, ""
	wanted := ""
	for _, e := range endpoints {
		if ok, _ := path.Match(e.host, u.Hostname()); !ok {
			continue
		}
		if quirks[e.kind].bare != quirks[kind].bare || quirks[e.kind].header != quirks[kind].header {
			return "", fmt.Errorf("%s is of the kind %s", u.Host, e.kind)
		}
		if e.kind == KindAzure {
			given, _, _ = strings.Cut(given, "/deployments/")
		}
		if p, ok := e.fill(given); ok {
			whole.Path = p
			return whole.String(), nil
		}
		wanted = "https://" + u.Host + e.path
	}
	if wanted != "" {
		return "", fmt.Errorf("the url %q is not like %s", shownURL(u.String()), wanted)
	}
	return whole.String(), nil
}

// fill adds what a path lacks of the endpoint's, false where it is another.
func (e *endpoint) fill(given string) (string, bool) {
	var pieces []string
	if given != "" {
		pieces = strings.Split(given[1:], "/")
	}
	wanted := strings.Split(e.path[1:], "/")
	if len(pieces) > len(wanted) {
		return "", false
	}
	for i, w := range wanted {
		if i == len(pieces) {
			pieces = append(pieces, w)
		}
		if ok, _ := path.Match(w, pieces[i]); !ok || strings.Contains(pieces[i], "*") {
			return "", false
		}
	}
	return "/" + strings.Join(pieces, "/"), true
}

// mute are words in the names of models that neither chat nor embed.
var mute = []string{"whisper", "dall-e", "gpt-image", "tts", "transcribe", "realtime", "moderation", "sora-", "imagen-", "veo-", "lyria-"}

// isMute reports whether a model's name says that it makes or hears something else
// than text, where a server's list says no more.
func isMute(l listed) bool {
	return l.Type == "" && slices.ContainsFunc(mute, func(w string) bool { return strings.Contains(strings.ToLower(l.ID), w) })
}

// kindsByType are what models do, by the types that Together names and the modes
// that LiteLLM does. Those of no kind of ours are there to be left out.
var kindsByType = map[string][]schemas.Kind{
	"chat":       {schemas.Chat, schemas.Completion},
	"responses":  {schemas.Chat, schemas.Completion},
	"language":   {schemas.Completion},
	"code":       {schemas.Completion},
	"completion": {schemas.Completion},
	"embedding":  {schemas.Embedding},

	"image": {}, "image_generation": {}, "image_edit": {}, "video": {}, "video_generation": {}, "audio": {}, "audio_speech": {},
	"audio_transcription": {}, "transcribe": {}, "moderation": {}, "rerank": {}, "search": {}, "ocr": {},
}

// LiteLLM is a LiteLLM proxy. It tells more of its models than its list does. Its
// /health is never asked: that runs every model once.
type LiteLLM struct {
	*OpenAI
	known last[[]json.RawMessage] // a deployment each
}

// A deployment is a model that a LiteLLM proxy knows by a name. Several may have
// the same name: any of them gets the request.
type deployment struct {
	Name string `json:"model_name"`
	Info struct {
		Mode      string `json:"mode"`
		Context   int    `json:"max_input_tokens"`
		Tools     *bool  `json:"supports_function_calling"` // nil: it doesn't know
		Vision    *bool  `json:"supports_vision"`
		Reasoning *bool  `json:"supports_reasoning"`
	} `json:"model_info"`
}

// Models implements Provider: the models that the key may use, with what the proxy
// knows of them. It may keep that to itself.
func (p *LiteLLM) Models(ctx context.Context) ([]Model, error) {
	list, err := p.list(ctx)
	if err != nil {
		return nil, err
	}
	list = slices.DeleteFunc(list, func(l listed) bool { return strings.Contains(l.ID, "*") }) // a pattern, for what it does not know
	short, stop := aside(ctx)
	defer stop()
	var known struct {
		Data []json.RawMessage `json:"data"`
	}
	err = p.call(short, http.MethodGet, p.v1+"/model/info", nil, &known)
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	for _, raw := range p.known.learn(known.Data, err) {
		var d deployment
		if json.Unmarshal(raw, &d) != nil {
			continue
		}
		if i := slices.IndexFunc(list, func(l listed) bool { return l.ID == d.Name }); i >= 0 {
			list[i].learn(&d)
		}
	}
	return p.describe(slices.DeleteFunc(list, isMute)), nil
}

// learn adds what a proxy knows of a deployment. A name promises what all of its
// deployments can do.
func (l *listed) learn(d *deployment) {
	l.Type = d.Info.Mode
	if d.Info.Context > 0 && (l.ContextLength == 0 || d.Info.Context < l.ContextLength) {
		l.ContextLength = d.Info.Context
	}
	var can []Ability
	for _, a := range []struct {
		ability Ability
		told    *bool
	}{{Tools, d.Info.Tools}, {Vision, d.Info.Vision}, {Reasoning, d.Info.Reasoning}} {
		if a.told == nil {
			continue
		}
		if can == nil {
			can = []Ability{}
		}
		if *a.told {
			can = append(can, a.ability)
		}
	}
	if l.known {
		can = slices.DeleteFunc(can, func(a Ability) bool { return !slices.Contains(l.can, a) })
	}
	l.can, l.known = can, true
}
