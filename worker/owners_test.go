package worker

import (
	"errors"
	"testing"

	"github.com/vramjet/vramjet/broker/brokertest"
	"github.com/vramjet/vramjet/gpu"
	"github.com/vramjet/vramjet/schemas"
)

// TestOwners: what processes hold is told apart only where all of the node's servers
// can be found, and is looked for only where a device tells of processes.
func TestOwners(t *testing.T) {
	known := schemas.Known
	looks := 0
	servers := map[string]map[int]bool{"a": {1: true, 2: true}, "b": {3: true}}
	o := newOwners(brokertest.Log(t))
	o.find = func(addr string) (map[int]bool, error) {
		looks++
		if servers[addr] == nil {
			return map[int]bool{}, errors.New("it runs elsewhere")
		}
		return servers[addr], nil
	}
	o.add(Backend{Local: "a"})
	o.add(Backend{}) // a hosted API
	o.look()
	if looks > 0 {
		t.Error("it is looked for processes that no device tells of")
	}
	on := []gpu.Process{{PID: 1, Bytes: known(10)}, {PID: 3, Bytes: known(5)}, {PID: 9, Bytes: known(70)}}
	held := func(processes []gpu.Process) schemas.Amount {
		o.held(processes)
		o.look()
		return o.held(processes)
	}
	if got := held(nil); got.Known {
		t.Errorf("of a device that tells of no processes: %s", got)
	}
	if got := held(on); got != known(10) {
		t.Errorf("one server holds %s", got)
	}
	o.add(Backend{Local: "b"})
	if got := held(on); got != known(15) {
		t.Errorf("both hold %s", got)
	}
	if got := held(append(on, gpu.Process{PID: 2})); got.Known {
		t.Errorf("with a process that does not tell: %s", got)
	}
	if got := held([]gpu.Process{}); got != known(0) {
		t.Errorf("of an empty device: %s", got)
	}
	o.add(Backend{Local: "c"})
	if got := held(on); got.Known {
		t.Errorf("with a server that cannot be found: %s", got)
	}
}
