package sim

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"net/http"
	"strings"
	"time"

	"github.com/vramjet/vramjet/schemas"
)

func (s *Server) routes() {
	s.mux.HandleFunc("GET /health", health)
	s.mux.HandleFunc("GET /v1/models", s.listModels)
	s.mux.HandleFunc("GET /models", s.listModels)
	s.mux.HandleFunc("GET /props", s.props)
	s.mux.HandleFunc("POST /models/load", s.orderLoad)
	s.mux.HandleFunc("POST /models/unload", s.orderUnload)
	s.mux.HandleFunc("POST /v1/chat/completions", s.openAI(schemas.Chat))
	s.mux.HandleFunc("POST /v1/completions", s.openAI(schemas.Completion))
	s.mux.HandleFunc("POST /v1/embeddings", s.openAI(schemas.Embedding))
	s.mux.HandleFunc("GET /sim/state", s.showState)

	s.mux.HandleFunc("GET /api/version", version)
	s.mux.HandleFunc("GET /api/tags", s.tags)
	s.mux.HandleFunc("GET /api/ps", s.ps)
	s.mux.HandleFunc("POST /api/show", s.show)
	s.mux.HandleFunc("POST /api/chat", s.ollama(schemas.Chat))
	s.mux.HandleFunc("POST /api/generate", s.ollama(schemas.Completion))
	s.mux.HandleFunc("POST /api/embed", s.ollama(schemas.Embedding))
}

// write answers with JSON.
func write(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // a client that left needs no answer
}

func health(w http.ResponseWriter, _ *http.Request) {
	write(w, http.StatusOK, map[string]string{"status": "ok"})
}

func (s *Server) props(w http.ResponseWriter, _ *http.Request) {
	write(w, http.StatusOK, map[string]any{"role": "router", "models_autoload": !s.cfg.NoAutoload, "build_info": "sim"})
}

// refuse answers with an error as llama-server does.
func refuse(w http.ResponseWriter, err error) {
	var p *problem
	if !errors.As(err, &p) {
		p = &problem{status: 499, text: "request canceled", kind: "server_error"}
	}
	if p.retryAfter != "" {
		w.Header().Set("Retry-After", p.retryAfter)
	}
	if p.raw != "" {
		w.WriteHeader(p.status)
		_, _ = w.Write([]byte(p.raw)) // a client that left needs no answer
		return
	}
	write(w, p.status, map[string]any{"error": map[string]any{"code": p.status, "message": p.text, "type": p.kind}})
}

// routerStatus are the names that llama-server's router has for states.
var routerStatus = map[schemas.ModelState]string{
	schemas.Installed: "unloaded", schemas.Loading: "loading", schemas.Resident: "loaded",
}

func (s *Server) listModels(w http.ResponseWriter, _ *http.Request) {
	s.mu.Lock()
	list := make([]any, 0, len(s.models))
	for _, m := range s.models {
		status := map[string]any{"value": routerStatus[m.state], "args": []string{}}
		if m.failed != "" {
			status["failed"], status["exit_code"], status["log"] = true, 1, m.failed
		}
		list = append(list, map[string]any{
			"id": m.Name, "object": "model", "owned_by": "sim", "created": 0,
			"status": status, "context_length": m.Context,
		})
	}
	s.mu.Unlock()
	write(w, http.StatusOK, map[string]any{"object": "list", "data": list})
}

// showState tells what no real server tells.
func (s *Server) showState(w http.ResponseWriter, _ *http.Request) {
	s.mu.Lock()
	devices := make([]schemas.Device, 0, len(s.cfg.Devices))
	for i, d := range s.cfg.Devices {
		ours := s.used(i)
		used := ours + s.foreign[d.ID]
		devices = append(devices, schemas.Device{
			ID: d.ID, Name: "simulated", Kind: "sim", Total: schemas.Known(d.Memory),
			Used: schemas.Known(used), Free: schemas.Known(d.Memory.Minus(used)), Reserved: schemas.Known(0),
			Ours: schemas.Known(ours), Others: schemas.Known(used - ours),
		})
	}
	models := make([]schemas.Model, 0, len(s.models))
	for _, m := range s.models {
		sm := schemas.Model{
			Name: m.Name, Kinds: m.Kinds, State: m.state, Need: schemas.Known(m.VRAM),
			Slots: m.Slots, Busy: m.busy, Context: m.Context,
		}
		if m.state == schemas.Resident {
			sm.VRAM = schemas.Known(m.VRAM)
		}
		models = append(models, sm)
	}
	s.mu.Unlock()
	write(w, http.StatusOK, map[string]any{"devices": devices, "models": models})
}

func (s *Server) orderLoad(w http.ResponseWriter, r *http.Request) {
	s.order(w, r, func(m *model) error {
		if m.state != schemas.Installed {
			return invalid("model is already running")
		}
		return s.beginLoad(m)
	})
}

func (s *Server) orderUnload(w http.ResponseWriter, r *http.Request) {
	s.order(w, r, func(m *model) error {
		if m.state == schemas.Installed {
			return invalid("model is not running")
		}
		m.unload()
		return nil
	})
}

// order has do done with the model that the body names, with the mutex held.
func (s *Server) order(w http.ResponseWriter, r *http.Request, do func(*model) error) {
	b, err := readBody(r)
	if err == nil {
		s.mu.Lock()
		if m := s.find(b.Model); m == nil {
			err = &problem{status: http.StatusNotFound, text: "File Not Found", kind: "not_found_error"}
		} else {
			err = do(m)
		}
		s.mu.Unlock()
	}
	if err != nil {
		refuse(w, err)
		return
	}
	write(w, http.StatusOK, map[string]bool{"success": true})
}

// serve runs a request: answer writes the answer from the seat.
func (s *Server) serve(r *http.Request, q *request, answer func(*seat) outcome) error {
	s.mu.Lock()
	m := s.find(q.model)
	s.mu.Unlock()
	if m == nil {
		return noModel(q.model)
	}
	if err := q.check(&m.Model); err != nil {
		return err
	}
	got, err := s.sit(r.Context(), q.model, q.priority)
	if err != nil {
		return err
	}
	end := broken // also of an answer that panics, to break its connection
	defer func() { s.leave(q.model, end) }()
	if f := got.failure; f.Status != 0 {
		return &problem{status: f.Status, text: "simulated failure", kind: "server_error", raw: f.Body, retryAfter: f.RetryAfter}
	}
	end = answer(&got)
	return nil
}

func (s *Server) openAI(kind schemas.Kind) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		b, err := readBody(r)
		if err != nil {
			refuse(w, err)
			return
		}
		q, err := b.request(kind, false)
		if err != nil {
			refuse(w, err)
			return
		}
		err = s.serve(r, q, func(at *seat) outcome { return openAIAnswer(w, r, q, at) })
		if err != nil {
			refuse(w, err)
		}
	}
}

func openAIAnswer(w http.ResponseWriter, r *http.Request, q *request, at *seat) outcome {
	if q.kind == schemas.Embedding {
		return openAIEmbed(w, q)
	}
	tokens, finish := q.plan(&at.model)
	if q.stream {
		out := writer{w: w, out: http.NewResponseController(w), f: openAIFrames(q, len(tokens), finish), seat: at}
		return out.stream(r.Context(), tokens)
	}
	write(w, http.StatusOK, openAIWhole(q, tokens, finish))
	return whole
}

func (q *request) id() string {
	h := fnv.New64a()
	_, _ = h.Write([]byte(q.model + q.text)) // never fails
	return fmt.Sprintf("simcmpl-%016x", h.Sum64())
}

func (q *request) counts(tokens int) map[string]int {
	n := count(q.text)
	return map[string]int{"prompt_tokens": n, "completion_tokens": tokens, "total_tokens": n + tokens}
}

func openAIFrames(q *request, tokens int, finish string) *frames {
	object, delta, after, empty := "chat.completion.chunk", `"delta":{"content":"`, `"}`, `"delta":{}`
	if q.kind == schemas.Completion {
		object, delta, after, empty = "text_completion", `"text":"`, `"`, `"text":""`
	}
	head := fmt.Sprintf(`data: {"id":%q,"object":%q,"created":%d,"model":%q,"choices":[`, q.id(), object, time.Now().Unix(), q.model)
	f := &frames{
		kind:    "text/event-stream",
		before:  []byte(head + `{"index":0,` + delta),
		after:   []byte(after + `,"finish_reason":null}]}` + "\n\n"),
		failure: []byte("data: {\"error\":{\"code\":500,\"message\":\"simulated failure\",\"type\":\"server_error\"}}\n\ndata: [DONE]\n\n"),
	}
	if q.kind == schemas.Chat {
		f.first = []byte(head + `{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}` + "\n\n")
	}
	last := head + `{"index":0,` + empty + `,"finish_reason":"` + finish + `"}]}` + "\n\n"
	if q.usage {
		usage, _ := json.Marshal(q.counts(tokens)) // numbers only
		last += head + `],"usage":` + string(usage) + "}\n\n"
	}
	f.last = []byte(last + "data: [DONE]\n\n")
	return f
}

func openAIWhole(q *request, tokens []string, finish string) any {
	choice := map[string]any{"index": 0, "finish_reason": finish}
	object := "chat.completion"
	if q.kind == schemas.Completion {
		object = "text_completion"
		choice["text"] = strings.Join(tokens, "")
	} else {
		choice["message"] = map[string]any{"role": "assistant", "content": strings.Join(tokens, "")}
	}
	return map[string]any{
		"id": q.id(), "object": object, "created": time.Now().Unix(), "model": q.model,
		"choices": []any{choice}, "usage": q.counts(len(tokens)),
	}
}

func openAIEmbed(w http.ResponseWriter, q *request) outcome {
	data := make([]any, 0, len(q.inputs))
	for i, text := range q.inputs {
		data = append(data, map[string]any{"object": "embedding", "index": i, "embedding": vector(text)})
	}
	n := count(q.text)
	write(w, http.StatusOK, map[string]any{
		"object": "list", "model": q.model, "data": data, "usage": map[string]int{"prompt_tokens": n, "total_tokens": n},
	})
	return whole
}
