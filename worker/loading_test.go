package worker

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/vramjet/vramjet/providers"
	"github.com/vramjet/vramjet/schemas"
)

// A llama-server that still loads its model says so on every path; some versions
// list their model all the same.
func TestServerThatStillLoads(t *testing.T) {
	for name, lists := range map[string]bool{"all closed": false, "lists its model": true} {
		t.Run(name, func(t *testing.T) {
			var ready atomic.Bool
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
				switch list := req.URL.Path == "/v1/models"; {
				case !ready.Load() && (!list || !lists):
					w.WriteHeader(http.StatusServiceUnavailable)
					_, _ = w.Write([]byte(`{"error":{"message":"Loading model","type":"unavailable_error","code":503}}`))
				case list:
					_, _ = w.Write([]byte(`{"object":"list","data":[{"id":"m","object":"model","meta":null}]}`))
				default:
					_, _ = w.Write([]byte(`{"total_slots":3,"default_generation_settings":{"n_ctx":512}}`))
				}
			}))
			t.Cleanup(srv.Close)
			transport := &http.Transport{}
			t.Cleanup(transport.CloseIdleConnections)
			p, err := providers.New(providers.Config{Name: "llama", Kind: "llamacpp", URL: srv.URL, HTTP: &http.Client{Transport: transport}})
			if err != nil {
				t.Fatal(err)
			}
			r := newRig(t, nil)
			if err := r.worker.AddBackend(t.Context(), Backend{Name: "llama", Kind: "llamacpp", Provider: p}); err != nil {
				t.Fatal(err)
			}
			s := r.await(func(s *schemas.NodeState) bool {
				return len(s.Backends) == 2 && strings.Contains(s.Backends[1].Error, "Loading model")
			})
			if b := s.Backends[1]; b.Healthy || len(b.Models) != 0 {
				t.Errorf("while it loads: %+v", b)
			}
			ready.Store(true)
			s = r.await(func(s *schemas.NodeState) bool { return s.Backends[1].Healthy })
			if b := s.Backends[1]; b.Error != "" || len(b.Models) != 1 || b.Models[0].Slots != 3 {
				t.Errorf("once it has loaded: %+v", b)
			}
		})
	}
}
