package sim

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/vramjet/vramjet/schemas"
)

func version(w http.ResponseWriter, _ *http.Request) {
	write(w, http.StatusOK, map[string]string{"version": "0.32.15"})
}

// refuseOllama answers with an error as Ollama does.
func refuseOllama(w http.ResponseWriter, err error) {
	var p *problem
	if errors.As(err, &p) && p.raw == "" {
		body, _ := json.Marshal(map[string]string{"error": p.text}) // a string only
		plain := *p
		plain.raw = string(body)
		if strings.HasSuffix(p.text, " not found") {
			plain.status = http.StatusNotFound
		}
		err = &plain
	}
	refuse(w, err)
}

// digest is the name of a model's content.
func digest(name string) string {
	var h []byte
	for _, v := range vector(name) {
		h = fmt.Appendf(h, "%08x", uint32(int64(v*(1<<31))))
	}
	return string(h)
}

func (m *Model) capabilities() []string {
	if slices.Contains(m.Kinds, schemas.Embedding) {
		return []string{"embedding"}
	}
	return []string{"completion"}
}

func (s *Server) tags(w http.ResponseWriter, _ *http.Request) {
	list := make([]any, 0, len(s.cfg.Models))
	for _, m := range s.models { // what is shown of them never changes
		list = append(list, map[string]any{
			"name": m.Name, "model": m.Name, "size": m.VRAM, "digest": digest(m.Name), "modified_at": time.Unix(0, 0).UTC(),
			"details": map[string]any{"format": "gguf", "family": "sim"}, "capabilities": m.capabilities(),
		})
	}
	write(w, http.StatusOK, map[string]any{"models": list})
}

func (s *Server) ps(w http.ResponseWriter, _ *http.Request) {
	s.mu.Lock()
	list := []any{}
	for _, m := range s.models {
		if m.state == schemas.Resident {
			list = append(list, map[string]any{
				"name": m.Name, "model": m.Name, "size": m.VRAM, "size_vram": m.VRAM, "digest": digest(m.Name),
				"context_length": m.Context, "expires_at": time.Now().AddDate(1, 0, 0).UTC(),
			})
		}
	}
	s.mu.Unlock()
	write(w, http.StatusOK, map[string]any{"models": list})
}

func (s *Server) show(w http.ResponseWriter, r *http.Request) {
	b, err := readBody(r)
	if err != nil {
		refuseOllama(w, err)
		return
	}
	s.mu.Lock()
	m := s.find(b.Model)
	s.mu.Unlock()
	if m == nil {
		refuseOllama(w, noModel(b.Model))
		return
	}
	write(w, http.StatusOK, map[string]any{
		"capabilities": m.capabilities(), "details": map[string]any{"format": "gguf", "family": "sim"},
		"model_info": map[string]any{"general.architecture": "sim", "sim.context_length": m.Context},
	})
}

func (s *Server) ollama(kind schemas.Kind) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		b, err := readBody(r)
		if err != nil {
			refuseOllama(w, err)
			return
		}
		if kind != schemas.Embedding && len(b.Messages) == 0 && len(texts(b.Prompt)) == 0 {
			s.keep(w, r, b)
			return
		}
		q, err := b.request(kind, true)
		if err != nil {
			refuseOllama(w, err)
			return
		}
		err = s.serve(r, q, func(at *seat) outcome { return ollamaAnswer(w, r, q, at) })
		if err != nil {
			refuseOllama(w, err)
		}
	}
}

func ollamaAnswer(w http.ResponseWriter, r *http.Request, q *request, at *seat) outcome {
	if q.kind == schemas.Embedding {
		vectors := make([][]float64, 0, len(q.inputs))
		for _, text := range q.inputs {
			vectors = append(vectors, vector(text))
		}
		write(w, http.StatusOK, map[string]any{"model": q.model, "embeddings": vectors, "prompt_eval_count": count(q.text)})
		return whole
	}
	tokens, finish := q.plan(&at.model)
	if q.stream {
		out := writer{w: w, out: http.NewResponseController(w), f: ollamaFrames(q, len(tokens), finish), seat: at}
		return out.stream(r.Context(), tokens)
	}
	end := map[string]any{
		"model": q.model, "created_at": time.Now().UTC(), "done": true, "done_reason": finish,
		"prompt_eval_count": count(q.text), "eval_count": len(tokens),
	}
	if q.kind == schemas.Chat {
		end["message"] = map[string]string{"role": "assistant", "content": strings.Join(tokens, "")}
	} else {
		end["response"] = strings.Join(tokens, "")
	}
	write(w, http.StatusOK, end)
	return whole
}

func ollamaFrames(q *request, tokens int, finish string) *frames {
	head := fmt.Sprintf(`{"model":%q,"created_at":%q,`, q.model, time.Now().UTC().Format(time.RFC3339Nano))
	before, after := `"message":{"role":"assistant","content":"`, `"}`
	if q.kind == schemas.Completion {
		before, after = `"response":"`, `"`
	}
	return &frames{
		kind:    "application/x-ndjson",
		before:  []byte(head + before),
		after:   []byte(after + `,"done":false}` + "\n"),
		failure: []byte(`{"error":"an error was encountered while running the model: simulated failure"}` + "\n"),
		last: fmt.Appendf(nil, `%s%s%s,"done":true,"done_reason":%q,"total_duration":1,"load_duration":1,"prompt_eval_count":%d,"eval_count":%d}`+"\n",
			head, before, after, finish, count(q.text), tokens),
	}
}

// keep loads or unloads a model: that is what a request without a prompt does.
func (s *Server) keep(w http.ResponseWriter, r *http.Request, b *body) {
	reason := "load"
	s.mu.Lock()
	m := s.find(b.Model)
	var err error
	switch {
	case m == nil:
		err = noModel(b.Model)
	case isZero(b.KeepAlive):
		reason = "unload"
		if m.state != schemas.Installed && m.busy == 0 {
			m.unload()
		} else {
			m.expire = m.state != schemas.Installed // running requests end first
		}
	default:
		err = s.load(r.Context(), m)
	}
	s.mu.Unlock()
	if err != nil {
		refuseOllama(w, err)
		return
	}
	write(w, http.StatusOK, map[string]any{"model": b.Model, "created_at": time.Now().UTC(), "response": "", "done": true, "done_reason": reason})
}

// isZero reports whether a keep_alive means not at all.
func isZero(keep json.RawMessage) bool {
	switch string(keep) {
	case "0", `"0"`, `"0s"`:
		return true
	default:
		return false
	}
}
