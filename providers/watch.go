package providers

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"

	"github.com/vramjet/vramjet/schemas"
)

// follow reads a stream of server-sent events until ctx or the stream ends, and
// calls changed for each event that matters.
func (s *server) follow(ctx context.Context, target string, matters func(event []byte) bool, changed func()) error {
	resp, err := s.open(ctx, http.MethodGet, target, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	events := sseReader{lines: lineReader{r: bufio.NewReader(resp.Body)}}
	for {
		data, err := events.next()
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.Is(err, io.EOF):
			return schemas.Errorf(schemas.StreamBroken, "%s: the events ended", s.name)
		case err != nil:
			return schemas.Errorf(schemas.StreamBroken, "%s: the events broke off: %s", s.name, err)
		case matters(data):
			changed()
		}
	}
}

// Watch implements Watcher. Events of a load's progress change nothing.
func (p *LlamaRouter) Watch(ctx context.Context, changed func()) error {
	return p.follow(ctx, p.root+"/models/sse", func(event []byte) bool {
		return !bytes.Contains(event, []byte(`"progress":`))
	}, changed)
}

// Watch implements Watcher. Among llama-swap's events are also lines of its logs
// and requests.
func (p *LlamaSwap) Watch(ctx context.Context, changed func()) error {
	return p.follow(ctx, p.root+"/api/events", func(event []byte) bool {
		var e struct {
			Type string `json:"type"`
		}
		return json.Unmarshal(event, &e) == nil && e.Type == "modelStatus"
	}, changed)
}
