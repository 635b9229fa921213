package integration

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracing "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/vramjet/vramjet/client"
	"github.com/vramjet/vramjet/schemas"
)

// spans is a collector of traces.
type spans struct {
	mu  sync.Mutex
	all []*tracing.Span
}

func (s *spans) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	var req collector.ExportTraceServiceRequest
	if err != nil || proto.Unmarshal(body, &req) != nil {
		http.Error(w, "no trace", http.StatusBadRequest)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, of := range req.GetResourceSpans() {
		for _, in := range of.GetScopeSpans() {
			s.all = append(s.all, in.GetSpans()...)
		}
	}
}

// of returns the spans of a trace by their names.
func (s *spans) of(trace string) map[string]*tracing.Span {
	s.mu.Lock()
	defer s.mu.Unlock()
	found := map[string]*tracing.Span{}
	for _, span := range s.all {
		if fmt.Sprintf("%x", span.GetTraceId()) == trace {
			found[span.GetName()] = span
		}
	}
	return found
}

// attribute returns an attribute of a span as text; "" where it has none of that name.
func attribute(s *tracing.Span, name string) string {
	for _, a := range s.GetAttributes() {
		if a.GetKey() == name {
			if v := a.GetValue().GetStringValue(); v != "" {
				return v
			}
			return fmt.Sprint(a.GetValue().GetIntValue())
		}
	}
	return ""
}

// TestOneTrace: a job's way is one trace, from whoever submitted it to the model server.
func TestOneTrace(t *testing.T) {
	got := &spans{}
	srv := httptest.NewServer(got)
	t.Cleanup(srv.Close)
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", srv.URL)
	t.Setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
	url, p := up(t)
	u := connect(t, url)
	u.serves("sim-fast", 1)

	const trace, parent = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
	job := client.Chat("sim-fast", "a secret prompt")
	job.Trace = "00-" + trace + "-" + parent + "-01"
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	events, err := u.nc.SubscribeSync(schemas.ResultSubjects(schemas.DefaultTenant, "traced"))
	if err != nil {
		t.Fatal(err)
	}
	job.ID = "traced"
	if _, err := u.Submit(ctx, job); err != nil {
		t.Fatal(err)
	}
	for kind := ""; kind != string(schemas.EventEnd); {
		m, err := events.NextMsg(patience)
		if err != nil {
			t.Fatal(err)
		}
		kind = m.Header.Get(schemas.HeaderEvent)
		if of := m.Header.Get(schemas.HeaderTrace); !strings.Contains(of, trace) {
			t.Errorf("the event %s is of the trace %q", kind, of)
		}
	}
	want := []string{"queue sim-fast", "run sim-fast", "load sim-fast", "chat sim-fast"}
	var all map[string]*tracing.Span
	within(t, patience, "the trace", func() bool {
		all = got.of(trace)
		return !slices.ContainsFunc(want, func(name string) bool { return all[name] == nil })
	})
	parents := map[string]string{"queue sim-fast": parent}
	for child, of := range map[string]string{"run sim-fast": "queue sim-fast", "load sim-fast": "run sim-fast", "chat sim-fast": "run sim-fast"} {
		parents[child] = fmt.Sprintf("%x", all[of].GetSpanId())
	}
	for name, id := range parents {
		if got := fmt.Sprintf("%x", all[name].GetParentSpanId()); got != id {
			t.Errorf("%s is a part of %s, want %s", name, got, id)
		}
	}
	chat := all["chat sim-fast"]
	for name, v := range map[string]string{"gen_ai.operation.name": "chat", "gen_ai.request.model": "sim-fast", "gen_ai.provider.name": "sim"} {
		if got := attribute(chat, name); got != v {
			t.Errorf("%s is %q, want %q", name, got, v)
		}
	}
	if attribute(chat, "gen_ai.usage.output_tokens") == "0" || len(chat.GetEvents()) != 1 {
		t.Errorf("the call says %v", chat)
	}
	if text := fmt.Sprint(all); strings.Contains(text, "secret prompt") {
		t.Error("the prompt is in the trace")
	}
	p.signal(syscall.SIGTERM)
	<-p.done
}
