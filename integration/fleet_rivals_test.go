package integration

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"sync"
	"testing"
	"time"
)

// A chooser says which server gets the next request for a model: open is how many
// each has that did not end, home where the model was served last (-1: nowhere).
type chooser func(open []int, home int) int

// leastLoaded takes the server with the fewest requests, as load balancers do.
func leastLoaded(open []int, _ int) int {
	best := 0
	for i, n := range open {
		if n < open[best] {
			best = i
		}
	}
	return best
}

// whereItWas stays with the server that served the model last, as long as that has
// no more than its share: a balancer that hashes by model, in front of servers that
// make room for what is asked by dropping what was used least recently.
func whereItWas(open []int, home int) int {
	sum := 0
	for _, n := range open {
		sum += n
	}
	if home >= 0 && open[home] <= 2*(sum/len(open)+1) {
		return home
	}
	return leastLoaded(open, home)
}

// inFlight bounds how many requests a server has at once; the others wait in front
// of it, in their order.
const inFlight = 64

// fleetOfReactions puts the jobs of a trace through servers that load what is asked
// of them and make room by themselves.
func fleetOfReactions(t *testing.T, x *trace, choose chooser) {
	fleet := newFleet(t, x, true)
	stop := make(chan struct{})
	var others sync.WaitGroup
	others.Go(func() { disturb(x, fleet, stop) })
	defer others.Wait()
	defer close(stop)

	var mu sync.Mutex
	open, homes, failed := make([]int, len(fleet)), map[int]int{}, 0
	queues := make([]chan int, len(fleet))
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: inFlight}}
	defer client.CloseIdleConnections()
	var workers sync.WaitGroup
	for i := range fleet {
		queues[i] = make(chan int, len(x.jobs))
		for range inFlight {
			workers.Go(func() {
				for job := range queues[i] {
					ok := post(client, fleet[i].url, x.models[job].name)
					mu.Lock()
					open[i]--
					if !ok {
						failed++
					}
					mu.Unlock()
				}
			})
		}
	}
	began := time.Now()
	for _, job := range x.jobs {
		mu.Lock()
		home, known := homes[job]
		if !known {
			home = -1
		}
		to := choose(open, home)
		homes[job] = to
		open[to]++
		mu.Unlock()
		queues[to] <- job
	}
	for _, q := range queues {
		close(q)
	}
	workers.Wait()
	t.Logf("%d jobs in %s, %d not ok; %s", len(x.jobs), time.Since(began).Round(time.Millisecond), failed, billOf(x, fleet))
}

// post asks a server until it has an answer, four times at most, as jobs do.
func post(client *http.Client, url, model string) bool {
	body := fmt.Sprintf(`{"model":%q,"messages":[{"role":"user","content":"hi"}]}`, model)
	for range 4 {
		resp, err := client.Post(url+"/v1/chat/completions", "application/json", bytes.NewBufferString(body))
		if err != nil {
			continue
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		if resp.StatusCode == http.StatusOK {
			return true
		}
	}
	return false
}
