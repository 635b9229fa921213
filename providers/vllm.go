package providers

import (
	"context"
	"encoding/json"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/vramjet/vramjet/schemas"
)

// settleTime is how long a server may take to tell that it sleeps, once it said that
// it is done.
const settleTime = 30 * time.Second

// VLLM is a vLLM server. It holds the model that it was started with, and the LoRA
// adapters of that, for as long as it runs. It can be told to sleep, with all of
// them and with the weights in the host's memory, if it was started with
// --enable-sleep-mode and with VLLM_SERVER_DEV_MODE=1 in its environment.
type VLLM struct {
	*OpenAI
	sleeps  last[bool]
	refused atomic.Int64 // when it turned a priority down, in Unix ns; 0: never
}

// Generate implements Provider.
func (p *VLLM) Generate(ctx context.Context, req Request, emit func([]byte) error) (Answer, error) {
	return p.inClass(req, func(req Request) (a Answer, begun bool, err error) {
		a, err = p.OpenAI.Generate(ctx, req, func(chunk []byte) error {
			begun = true
			return emit(chunk)
		})
		return a, begun, err
	})
}

// Embed implements Embedder.
func (p *VLLM) Embed(ctx context.Context, req Request) (Answer, error) {
	return p.inClass(req, func(req Request) (Answer, bool, error) {
		a, err := p.OpenAI.Embed(ctx, req)
		return a, false, err
	})
}

// Models implements Provider. An adapter has the context of its model.
func (p *VLLM) Models(ctx context.Context) ([]Model, error) {
	list, err := p.list(ctx)
	if err != nil {
		return nil, err
	}
	short, stop := aside(ctx)
	defer stop()
	asleep := p.sleeps.learn(p.asleep(short))
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	contexts := map[string]int{}
	models := make([]Model, 0, len(list))
	for i := range list {
		contexts[list[i].ID] = list[i].MaxModelLen
		m := list[i].model()
		if asleep {
			m.State = schemas.Installed
		}
		models = append(models, m)
	}
	for i := range models {
		if models[i].Context == 0 {
			models[i].Context = contexts[list[i].Parent]
		}
	}
	return models, nil
}

// asleep reports whether the server sleeps: only one in development mode has the
// path, and only newer ones have the metric.
func (p *VLLM) asleep(ctx context.Context) (bool, error) {
	var now struct {
		Sleeping *bool `json:"is_sleeping"`
	}
	err := p.call(ctx, http.MethodGet, p.root+"/is_sleeping", nil, &now)
	switch {
	case err == nil && now.Sleeping != nil:
		return *now.Sleeping, nil
	case err != nil && !absent(err):
		return false, err
	}
	deep, light, err := p.sleepState(ctx)
	return deep || light, err
}

// sleepState reads from the metrics how the server sleeps: deep means that the
// weights are gone, light that they are in the host's memory.
func (p *VLLM) sleepState(ctx context.Context) (deep, light bool, err error) {
	m, err := p.metrics(ctx, p.root+"/metrics")
	if err != nil {
		if absent(err) {
			err = nil
		}
		return false, false, err
	}
	states := m["vllm:engine_sleep_state"]
	for i := range states {
		if states[i].value > 0 {
			switch states[i].label("sleep_state") {
			case "discard_all":
				deep = true
			case "weights_offloaded":
				light = true
			}
		}
	}
	return deep, light, nil
}

// Load implements Loader: it wakes the server up. One that threw its weights away
// would wake up with none, and answer nonsense: such a sleep is refused as it is
// none of ours.
func (p *VLLM) Load(ctx context.Context, model string) error {
	m, err := p.find(ctx, p, model)
	if err != nil || m.State == schemas.Resident {
		return err
	}
	deep, _, err := p.sleepState(ctx)
	switch {
	case err != nil:
		return err
	case deep:
		return schemas.Errorf(schemas.Unsupported, "%s: somebody had it sleep at level 2, which throws the weights away: start it again", p.name)
	}
	if err := p.order(ctx, "/wake_up"); err != nil {
		return err
	}
	return p.await(ctx, p, model, schemas.Resident)
}

// Unload implements Loader: the server sleeps, with all its models.
func (p *VLLM) Unload(ctx context.Context, model string) error {
	m, err := p.find(ctx, p, model)
	if err != nil || m.State == schemas.Installed {
		return err
	}
	if err := p.allIdle(ctx, p, model); err != nil {
		return err
	}
	off := schemas.Errorf(schemas.Unsupported, "%s: it cannot sleep: start it with --enable-sleep-mode and with VLLM_SERVER_DEV_MODE=1 in its environment", p.name)
	if able, err := p.canSleep(ctx); err != nil || !able {
		if err == nil {
			err = off
		}
		return err
	}
	// Newer versions let requests finish that came in the meantime, older ones
	// know no modes.
	if err := p.order(ctx, "/sleep?level=1&mode=wait"); err != nil {
		return err
	}
	ctx, stop := context.WithTimeoutCause(ctx, settleTime, off)
	defer stop()
	return p.await(ctx, p, model, schemas.Installed)
}

// canSleep asks the server for its configuration. Without --enable-sleep-mode it
// would take the order, say that it sleeps, and free nothing. Versions that don't
// tell are taken at their word.
func (p *VLLM) canSleep(ctx context.Context) (bool, error) {
	var info struct {
		Config json.RawMessage `json:"vllm_config"` // older versions have a text there
	}
	if err := p.call(ctx, http.MethodGet, p.root+"/server_info?config_format=json", nil, &info); err != nil {
		if absent(err) {
			err = nil
		}
		return err == nil, err
	}
	var config struct {
		Model struct {
			Sleep *bool `json:"enable_sleep_mode"`
		} `json:"model_config"`
	}
	_ = json.Unmarshal(info.Config, &config)
	return config.Model.Sleep == nil || *config.Model.Sleep, nil
}

func (p *VLLM) order(ctx context.Context, path string) error {
	err := p.call(ctx, http.MethodPost, p.root+path, nil, nil)
	if absent(err) {
		return schemas.Errorf(schemas.Unsupported, "%s: it takes no orders: start it with --enable-sleep-mode and with VLLM_SERVER_DEV_MODE=1 in its environment", p.name)
	}
	return err
}

// Pressure implements PressureReporter. An adapter's requests are its model's: all
// share the same batch.
func (p *VLLM) Pressure(ctx context.Context, _ string) (Pressure, error) {
	m, err := p.metrics(ctx, p.root+"/metrics")
	if err != nil && !absent(err) {
		return Pressure{}, err
	}
	if _, ok := m["vllm:num_requests_running"]; !ok {
		return Pressure{}, schemas.Errorf(schemas.Unsupported, "%s: its metrics say nothing: start it without --disable-log-stats", p.name)
	}
	return Pressure{
		Running: int(m.sum("vllm:num_requests_running", -1)),
		Waiting: int(m.sum("vllm:num_requests_waiting", -1)),
		KVUsed:  m.max("vllm:kv_cache_usage_perc", "", m.max("vllm:gpu_cache_usage_perc", "", -1)),
	}, nil
}
