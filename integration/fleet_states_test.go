package integration

import (
	"encoding/json"
	"fmt"
	"sync"

	"github.com/nats-io/nats.go"

	"github.com/vramjet/vramjet/schemas"
)

// followed is what nodes said of themselves.
type followed struct {
	mu   sync.Mutex
	last map[string]*schemas.NodeState
	over string // the first device of which more was promised than it has; "": none
}

// follow listens to all states from now on.
func (u *user) follow() *followed {
	u.Helper()
	f := &followed{last: map[string]*schemas.NodeState{}}
	_, err := u.nc.Subscribe(schemas.NodeSubject("*", "state"), func(m *nats.Msg) {
		var s schemas.NodeState
		if err := json.Unmarshal(m.Data, &s); err != nil {
			u.Error(err)
			return
		}
		f.take(&s)
	})
	if err != nil {
		u.Fatal(err)
	}
	return f
}

func (f *followed) take(s *schemas.NodeState) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.last[s.Node] = s
	for _, d := range s.Devices {
		// What is promised may be that of models which are about to go.
		if margin := schemas.SafetyMargin(d.Total); d.Promised+margin > d.Total.Bytes && f.over == "" {
			f.over = fmt.Sprintf("%s of %s: %s of its %s are promised: %+v", d.ID, s.Node, d.Promised, d.Total, d)
		}
	}
}

// reservations is how many there are now.
func (f *followed) reservations() (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, s := range f.last {
		n += len(s.Reservations)
	}
	return n
}

func (f *followed) overcommitted() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.over
}
