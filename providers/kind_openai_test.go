package providers_test

import (
	"net/http"
	"time"

	"github.com/vramjet/vramjet/providers"
	"github.com/vramjet/vramjet/providers/providertest"
	"github.com/vramjet/vramjet/providers/sim"
	"github.com/vramjet/vramjet/schemas"
)

// text is what a model does that chats.
var text = []schemas.Kind{schemas.Chat, schemas.Completion}

// openAIKinds are the kinds that speak OpenAI's API and nothing else.
func openAIKinds() []providertest.Kind {
	return []providertest.Kind{simKind()}
}

func simKind() providertest.Kind {
	return providertest.Kind{
		Name:    providers.KindSim,
		Dialect: openAIStream(),
		Server: func() http.Handler {
			return sim.New(sim.Config{
				Devices: []sim.Device{{ID: "sim-0", Memory: 10 * schemas.GiB}},
				Models:  []sim.Model{{Name: "m", VRAM: 6 * schemas.GiB, Slots: 4, LoadTime: time.Second}},
			})
		},
		Models:    []providers.Model{{Name: "m", Kinds: text, State: schemas.Installed, Need: schemas.Known(6 * schemas.GiB), Slots: 4, Context: 4096}},
		Exchanges: llamaExchanges()[:3],
		Load:      "m",
		Pressure:  &providers.Pressure{Waiting: -1, Slots: 4, KVUsed: -1},

		Priorities: map[schemas.Class]string{schemas.Interactive: "-1", schemas.Normal: "", "": "", schemas.Batch: "1"},
	}
}
