package providers

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strings"

	"github.com/vramjet/vramjet/schemas"
)

// Detect finds out what kind of server is at a URL. It never makes the server
// load anything. client may be nil. A server that cannot be reached is an error
// with the code schemas.Unreachable; one that answers, but like none of those
// known, is an error with the code schemas.Unsupported.
//
// It also tells the two ways of llama-server apart, so it is worth asking where
// the configuration says KindLlamaCpp.
func Detect(ctx context.Context, address string, client *http.Client) (string, error) {
	if client == nil {
		transport := newTransport(0)
		defer transport.CloseIdleConnections()
		client = &http.Client{Transport: transport}
	}
	s := newServer(Config{Name: shownURL(address), URL: address, HTTP: client})
	for _, probe := range []func(context.Context, *server) (string, error){
		isLMStudio, // it answers to everything
		isSim, isLlamaSwap, isLlama,
		isTGI, isLocalAI, byOwner, // they have Ollama's paths, or may have
		isOllama, isOpenAI,
	} {
		kind, err := probe(ctx, &s)
		if kind != "" {
			return kind, nil
		}
		if ctx.Err() != nil {
			return "", context.Cause(ctx)
		}
		if err != nil && schemas.AsError(err).Code == schemas.Unreachable {
			return "", err
		}
	}
	return "", schemas.Errorf(schemas.Unsupported, "%s: the server is none that we know", s.name)
}

func isSim(ctx context.Context, s *server) (string, error) {
	var state simState
	if err := s.call(ctx, http.MethodGet, s.root+"/sim/state", nil, &state); err != nil || state.Models == nil {
		return "", err
	}
	return KindSim, nil
}

func isLlamaSwap(ctx context.Context, s *server) (string, error) {
	var now running
	if err := s.call(ctx, http.MethodGet, s.root+"/running", nil, &now); err != nil || now.Running == nil {
		return "", err
	}
	return KindLlamaSwap, nil
}

// isLlama also knows a llama-server that still loads, and one that wants a key: it
// tells its health without, and signs. It is taken for one with a model then.
func isLlama(ctx context.Context, s *server) (string, error) {
	var p props
	err := s.call(ctx, http.MethodGet, s.root+"/props", nil, &p)
	switch {
	case err != nil && schemas.AsError(err).Code == schemas.ModelLoading:
		return KindLlamaCpp, nil
	case err != nil && schemas.AsError(err).Code == schemas.Auth:
		resp, err := s.open(ctx, http.MethodGet, s.root+"/health", nil)
		if err != nil {
			return "", err
		}
		resp.Body.Close()
		if resp.Header.Get("Server") == "llama.cpp" {
			return KindLlamaCpp, nil
		}
		return "", nil
	case err != nil:
		return "", err
	case p.Role == "router":
		return KindLlamaRouter, nil
	case p.TotalSlots > 0:
		return KindLlamaCpp, nil
	default:
		return "", nil
	}
}

func isOllama(ctx context.Context, s *server) (string, error) {
	var version struct {
		Version string `json:"version"`
	}
	if err := s.call(ctx, http.MethodGet, s.root+"/api/version", nil, &version); err != nil || version.Version == "" {
		return "", err
	}
	var tags struct {
		Models []json.RawMessage `json:"models"`
	}
	if err := s.call(ctx, http.MethodGet, s.root+"/api/tags", nil, &tags); err != nil {
		return "", err
	}
	return KindOllama, nil
}

func isTGI(ctx context.Context, s *server) (string, error) {
	if _, err := s.info(ctx); err != nil {
		return "", err
	}
	return KindTGI, nil
}

// isLMStudio also knows versions before 0.4, and one that wants a key.
func isLMStudio(ctx context.Context, s *server) (string, error) {
	list, err := s.studioList(ctx)
	switch {
	case err == nil && !slices.ContainsFunc(list, func(m studioModel) bool { return m.Key == "" }):
		return KindLMStudio, nil
	case err == nil:
		return "", nil
	case says(err, "LM Studio API token"):
		return KindLMStudio, nil
	case !says(err, "Unexpected endpoint"):
		return "", err
	}
	old, err := s.oldStudioList(ctx)
	if err != nil || slices.ContainsFunc(old, func(m oldStudioModel) bool { return m.Format == "" }) {
		return "", err
	}
	return KindLMStudio, nil
}

// isLocalAI also knows versions without the page that says what they are.
func isLocalAI(ctx context.Context, s *server) (string, error) {
	var page struct {
		Endpoints map[string]json.RawMessage `json:"endpoints"`
	}
	if err := s.call(ctx, http.MethodGet, s.root+"/.well-known/localai.json", nil, &page); err == nil && len(page.Endpoints) > 0 {
		return KindLocalAI, nil
	}
	list, err := s.localList(ctx)
	if err != nil || !slices.ContainsFunc(list, func(m localModel) bool { return m.Capabilities != nil }) {
		return "", err
	}
	return KindLocalAI, nil
}

// byOwner tells by who owns the models. A server that shows its list only to who
// has a key may still show its metrics.
func byOwner(ctx context.Context, s *server) (string, error) {
	p := OpenAI{server: *s}
	list, err := p.list(ctx)
	if err != nil {
		if schemas.AsError(err).Code == schemas.Auth {
			return byMetrics(ctx, s), nil
		}
		return "", err
	}
	for _, m := range list {
		switch m.OwnedBy {
		case "vllm":
			return KindVLLM, nil
		case "sglang":
			return KindSGLang, nil
		case "llamacpp":
			return KindLlamaCpp, nil
		case "organization_owner":
			return KindLMStudio, nil
		}
	}
	return "", nil
}

// byMetrics tells by what the metrics are called; "": they don't tell.
func byMetrics(ctx context.Context, s *server) string {
	m, err := s.metrics(ctx, s.root+"/metrics")
	if err != nil {
		return ""
	}
	for name := range m {
		switch owner, _, _ := strings.Cut(name, ":"); owner {
		case "vllm":
			return KindVLLM
		case "sglang":
			return KindSGLang
		}
	}
	return ""
}

func isOpenAI(ctx context.Context, s *server) (string, error) {
	p := OpenAI{server: *s}
	if _, err := p.list(ctx); err != nil && schemas.AsError(err).Code != schemas.Auth { // who asks for a key has something to offer
		return "", err
	}
	return KindOpenAI, nil
}
