package providers

import (
	"strings"
	"time"

	"github.com/vramjet/vramjet/schemas"
)

// A priority is what becomes of the member "priority" of a request's body. The zero
// one leaves it as it is.
type priority struct {
	ours  bool // the body's own is left out: a job could jump over its class by it
	value int  // what the server gets instead; 0: nothing
}

// lowFirst is a class for servers that take the lowest first, and requests that say
// nothing as 0: so do ours of the class normal.
func lowFirst(c schemas.Class) priority {
	switch c {
	case schemas.Interactive:
		return priority{ours: true, value: -1}
	case schemas.Batch:
		return priority{ours: true, value: 1}
	default:
		return priority{ours: true}
	}
}

// refusedFor is how long a server gets no priorities that turned one down. It may be
// started anew so that it takes them.
const refusedFor = 10 * time.Minute

// inClass runs a request with the priority of its class, and once more without where
// the server turns it down for that: one that was not started with
// --scheduling-policy priority may do so. What run has begun to answer, which it
// reports, is not run again.
func (p *VLLM) inClass(req Request, run func(Request) (a Answer, begun bool, err error)) (Answer, error) {
	req.priority = lowFirst(req.Class)
	if at := p.refused.Load(); at != 0 && time.Since(time.Unix(0, at)) < refusedFor {
		req.priority.value = 0
	}
	a, begun, err := run(req)
	if begun || req.priority.value == 0 || !aboutPriority(err) {
		return a, err
	}
	req.priority.value = 0
	if a, _, err = run(req); !aboutPriority(err) { // else it was about something that the caller wrote
		p.refused.Store(time.Now().UnixNano())
	}
	return a, err
}

// aboutPriority reports whether a server may have turned a request down for its
// priority.
func aboutPriority(err error) bool {
	if err == nil {
		return false
	}
	e := schemas.AsError(err)
	return (e.Code == schemas.InvalidRequest || e.Code == schemas.Unsupported) && strings.Contains(strings.ToLower(e.Message), "priority")
}

// inClass returns a request with the priority of its class, as far as the server was
// heard to order by priorities: then it takes requests without one last. The steps are
// far below the threshold by which it interrupts what already runs.
func (p *SGLang) inClass(req Request) Request {
	req.priority = priority{ours: true}
	info := p.said.last()
	if info == nil || !info.Priorities {
		return req
	}
	req.priority.value = 2 - lowFirst(req.Class).value
	if info.LowFirst {
		req.priority.value *= -1
	}
	return req
}
