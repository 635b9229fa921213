package batch

import (
	"encoding/json"
	"fmt"
	"os"
	"sync"
)

// A next is a request that was read, or why no more can be.
type next struct {
	*request
	err error
}

// read reads the requests of a file that was checked, one ahead of who takes them.
func read(path string) (requests <-chan next, closeFile func(), err error) {
	in, err := os.Open(path)
	if err != nil {
		return nil, nil, fmt.Errorf("open the batch: %w", err)
	}
	out, stop := make(chan next), make(chan struct{})
	var ended sync.WaitGroup
	ended.Go(func() {
		defer in.Close()
		defer close(out)
		readAll(in, func(n next) bool {
			select {
			case out <- n:
				return true
			case <-stop:
				return false
			}
		})
	})
	return out, func() { close(stop); ended.Wait() }, nil
}

// readAll reads requests until there are no more, or send says so.
func readAll(in *os.File, send func(next) bool) {
	for l, err := range lines(in) {
		if len(l.text) == 0 && err == nil {
			continue
		}
		q := &request{line: l.number}
		if err == nil {
			err = json.Unmarshal(l.text, q)
		}
		if err != nil {
			send(next{err: fmt.Errorf("the batch changed since it was checked: line %d: %w", l.number, err)})
			return
		}
		if !send(next{request: q}) {
			return
		}
	}
}
