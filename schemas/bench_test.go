package schemas

import (
	"encoding/json"
	"fmt"
	"testing"
)

// BenchmarkNodeState reads the state of a node with eight devices: what a dispatcher
// does most where a fleet is large.
func BenchmarkNodeState(b *testing.B) {
	state := goldenState
	state.Devices, state.Backends, state.Running = nil, nil, nil
	for i := range 8 {
		device, backend := goldenState.Devices[0], goldenState.Backends[0]
		device.ID, backend.Name = fmt.Sprint("GPU-", i), fmt.Sprint("backend-", i)
		state.Devices = append(state.Devices, device)
		state.Backends = append(state.Backends, backend)
	}
	body, err := json.Marshal(&state)
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		var s NodeState
		if err := json.Unmarshal(body, &s); err != nil {
			b.Fatal(err)
		}
	}
}
