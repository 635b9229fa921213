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
//
// What another process had it release shows nowhere: it is listed as resident. So it
// is told to release only where it must have its memory, as this provider saw it
// answer a request, take its memory back, or start again.
type SGLang struct {
	*OpenAI
	turn  chan struct{} // holds one while an order is carried out
	about last[sglangModel]
	said  last[*sglangInfo]

	mu       sync.Mutex // guards what follows
	released string     // which start of the server released its memory: see sglangInfo.start; "": none
	there    bool       // it was seen to have its memory
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
	Priorities bool   `json:"enable_priority_scheduling"`
	LowFirst   bool   `json:"schedule_low_priority_values_first"`
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
	short, stop := aside(ctx)
	defer stop()
	var now sglangModel
	_, err = p.either(short, &now, "/model_info", "/get_model_info")
	about, info := p.about.learn(now, err), p.said.learn(p.info(short))
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
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

// Generate implements Provider.
func (p *SGLang) Generate(ctx context.Context, req Request, emit func([]byte) error) (Answer, error) {
	a, err := p.OpenAI.Generate(ctx, p.inClass(req), emit)
	return a, p.answered(err)
}

// Embed implements Embedder.
func (p *SGLang) Embed(ctx context.Context, req Request) (Answer, error) {
	a, err := p.OpenAI.Embed(ctx, p.inClass(req))
	return a, p.answered(err)
}

// answered notes that a server has its memory that answered without an error.
func (p *SGLang) answered(err error) error {
	if err == nil {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.there = p.released == ""
	}
	return err
}

// gone reports whether the server's memory is released. A server that was started
// again since then has it.
func (p *SGLang) gone(info *sglangInfo) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if info != nil && p.released != "" && p.released != info.start() {
		p.released, p.there = "", true
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
	p.released, p.there = released, released == ""
	return nil
}

// Load implements Loader: the server takes back the memory that it released.
func (p *SGLang) Load(ctx context.Context, model string) error {
	return p.alone(ctx, func(ctx context.Context) error {
		info, err := p.freshInfo(ctx, model)
		if err != nil || !p.gone(info) {
			return err
		}
		return p.order(ctx, "/resume_memory_occupation", "")
	})
}

// Unload implements Loader: the server releases its memory. It would end if anybody
// used it, so it must tell that nobody does. One that may have released it before is
// told nothing: that is refused until it has answered a request.
func (p *SGLang) Unload(ctx context.Context, model string) error {
	return p.alone(ctx, func(ctx context.Context) error {
		info, err := p.freshInfo(ctx, model)
		if err != nil || p.gone(info) {
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
		if !p.hasMemory() {
			return schemas.Errorf(schemas.Unsupported, "%s: another process may have had it release its memory, and it ends if that is asked of it twice: it can be unloaded once it has answered a request", p.name)
		}
		return p.order(ctx, "/release_memory_occupation", info.start())
	})
}

// freshInfo returns how the server was started that serves the model now: an order
// that is for another start would be the end of this one.
func (p *SGLang) freshInfo(ctx context.Context, model string) (*sglangInfo, error) {
	if _, err := p.find(ctx, p, model); err != nil {
		return nil, err
	}
	return p.info(ctx)
}

func (p *SGLang) hasMemory() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.there
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
