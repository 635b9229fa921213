package providers

import (
	"context"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/vramjet/vramjet/schemas"
)

// orderLimit is how long SGLang may take for an order.
const orderLimit = 5 * time.Minute

// SGLang is an SGLang server. It holds the model that it was started with. It can be
// told to release its memory if it was started with --enable-memory-saver and
// --enable-weights-cpu-backup. It does not tell whether it did, and it ends if it is
// told so twice, or to resume what it did not release: so that is remembered here.
type SGLang struct {
	*OpenAI
	turn chan struct{} // holds one while an order is carried out

	mu       sync.Mutex // guards released
	released string     // which start of the server released its memory: see sglangInfo.start; "": none
}

func newSGLang(cfg Config) *SGLang {
	return &SGLang{OpenAI: NewOpenAI(cfg), turn: make(chan struct{}, 1)}
}

// A sglangInfo is what the server says of how it was started. It says its key too,
// so nothing else of that is kept.
type sglangInfo struct {
	Seed       *int64 `json:"random_seed"` // drawn at each start, if nobody sets it
	Saver      bool   `json:"enable_memory_saver"`
	Backup     bool   `json:"enable_weights_cpu_backup"`
	Tools      string `json:"tool_call_parser"`
	Reasoning  string `json:"reasoning_parser"`
	MaxRunning int    `json:"max_running_requests"`
}

// A sglangModel is what the server says of its model.
type sglangModel struct {
	Generates *bool `json:"is_generation"`
	Vision    *bool `json:"has_image_understanding"`
}

// start tells one start of a server from another.
func (i *sglangInfo) start() string {
	if i.Seed == nil {
		return "unknown"
	}
	return strconv.FormatInt(*i.Seed, 10)
}

// Models implements Provider. It never asks for the health: for that the server
// generates something.
func (p *SGLang) Models(ctx context.Context) ([]Model, error) {
	models, err := p.OpenAI.Models(ctx)
	if err != nil {
		return nil, err
	}
	var about sglangModel
	if _, err := p.either(ctx, &about, "/model_info", "/get_model_info"); err != nil {
		return nil, err
	}
	info, err := p.info(ctx)
	if err != nil {
		return nil, err
	}
	gone := p.gone(info)
	for i := range models {
		m := &models[i]
		if gone {
			m.State = schemas.Installed
		}
		if about.Generates != nil && !*about.Generates {
			m.Kinds = []schemas.Kind{schemas.Embedding}
		} else if about.Generates != nil {
			m.Kinds = []schemas.Kind{schemas.Chat, schemas.Completion}
		}
		if info != nil {
			m.Slots, m.Abilities = max(0, info.MaxRunning), sglangAbilities(info, &about)
		}
	}
	return models, nil
}

func sglangAbilities(info *sglangInfo, about *sglangModel) []Ability {
	can := []Ability{}
	if info.Tools != "" {
		can = append(can, Tools)
	}
	if about.Vision != nil && *about.Vision {
		can = append(can, Vision)
	}
	if info.Reasoning != "" {
		can = append(can, Reasoning)
	}
	return can
}

// either asks for the first of the paths that the server has, and reports whether
// it has one.
func (p *SGLang) either(ctx context.Context, out any, paths ...string) (bool, error) {
	for _, path := range paths {
		if err := p.call(ctx, http.MethodGet, p.root+path, nil, out); !absent(err) {
			return err == nil, err
		}
	}
	return false, nil
}

// info returns how the server was started; nil: it doesn't tell.
func (p *SGLang) info(ctx context.Context) (*sglangInfo, error) {
	var info sglangInfo
	if told, err := p.either(ctx, &info, "/server_info", "/get_server_info"); err != nil || !told {
		return nil, err
	}
	return &info, nil
}

// gone reports whether the server's memory is released. A server that was started
// again since then has it.
func (p *SGLang) gone(info *sglangInfo) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if info != nil && p.released != info.start() {
		p.released = ""
	}
	return p.released != ""
}

// alone runs an order while no other runs, and to its end even where ctx ends
// before: else nobody would know whether it was carried out.
func (p *SGLang) alone(ctx context.Context, order func(context.Context) error) error {
	select {
	case p.turn <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	done := make(chan error, 1)
	go func() {
		long, stop := context.WithTimeout(context.WithoutCancel(ctx), orderLimit)
		defer stop()
		err := order(long)
		<-p.turn
		done <- err
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// order has the server do something and remembers it. The server wants a body.
func (p *SGLang) order(ctx context.Context, path, released string) error {
	if err := p.call(ctx, http.MethodPost, p.root+path, []byte("{}"), nil); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.released = released
	return nil
}

// Load implements Loader: the server takes back the memory that it released.
func (p *SGLang) Load(ctx context.Context, model string) error {
	return p.alone(ctx, func(ctx context.Context) error {
		m, err := p.find(ctx, p, model)
		if err != nil || m.State == schemas.Resident {
			return err
		}
		return p.order(ctx, "/resume_memory_occupation", "")
	})
}

// Unload implements Loader: the server releases its memory. It would end if anybody
// used it, so it must tell that nobody does.
func (p *SGLang) Unload(ctx context.Context, model string) error {
	return p.alone(ctx, func(ctx context.Context) error {
		m, err := p.find(ctx, p, model)
		if err != nil || m.State == schemas.Installed {
			return err
		}
		info, err := p.info(ctx)
		if err != nil {
			return err
		}
		if info == nil || !info.Saver || !info.Backup { // it would free nothing, or lose its weights
			return schemas.Errorf(schemas.Unsupported, "%s: it cannot release its memory: start it with --enable-memory-saver and --enable-weights-cpu-backup", p.name)
		}
		if _, err := p.Pressure(ctx, model); err != nil {
			return err
		}
		if err := p.allIdle(ctx, p, model); err != nil {
			return err
		}
		return p.order(ctx, "/release_memory_occupation", info.start())
	})
}

// Pressure implements PressureReporter. All ranks of tensor parallelism tell the
// same, and where priorities are on there is a series of all of them together.
func (p *SGLang) Pressure(ctx context.Context, _ string) (Pressure, error) {
	m, err := p.metrics(ctx, p.root+"/metrics")
	if err != nil && !absent(err) {
		return Pressure{}, err
	}
	if _, ok := m["sglang:num_running_reqs"]; !ok {
		return Pressure{}, schemas.Errorf(schemas.Unsupported, "%s: it has no metrics: start it with --enable-metrics", p.name)
	}
	return Pressure{
		Running: int(m.max("sglang:num_running_reqs", "dp_rank", -1)),
		Waiting: int(m.max("sglang:num_queue_reqs", "dp_rank", -1)),
		KVUsed:  m.max("sglang:token_usage", "", -1),
	}, nil
}
