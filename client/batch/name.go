package batch

import (
	"crypto/rand"
	"strconv"
	"strings"
)

// idPrefix begins the id of each batch.
const idPrefix = "batch_"

// newID returns the id of a new batch.
func newID() string {
	const length = 16 // of 32 characters each: 80 bits
	return idPrefix + strings.ToLower(rand.Text()[:length])
}

// ValidID reports whether a text looks like the id of a batch.
func ValidID(id string) bool {
	rest, ok := strings.CutPrefix(id, idPrefix)
	return ok && rest != "" && !strings.ContainsFunc(rest, func(r rune) bool { return (r < 'a' || r > 'z') && (r < '0' || r > '9') })
}

// A jobName is what the id of a job says: of which batch and line it is, and in which
// round of the line's failures.
type jobName struct {
	batch string
	line  int
	round int // 0: the first
}

// String returns the job's id.
func (n jobName) String() string {
	id := n.batch + "-" + strconv.Itoa(n.line)
	if n.round > 0 {
		id += "-" + strconv.Itoa(n.round)
	}
	return id
}

// parseJobID reads the id of a job. It reports false where it is none of a batch's.
func parseJobID(id string) (jobName, bool) {
	batch, rest, ok := strings.Cut(id, "-")
	if !ok || !ValidID(batch) {
		return jobName{}, false
	}
	number, round, again := strings.Cut(rest, "-")
	n := jobName{batch: batch}
	var err error
	if n.line, err = strconv.Atoi(number); err != nil || n.line < 1 || n.line > maxLines {
		return jobName{}, false
	}
	if again {
		if n.round, err = strconv.Atoi(round); err != nil || n.round < 1 {
			return jobName{}, false
		}
	}
	return n, n.String() == id
}

// maxLines is the most lines that a batch may have.
const maxLines = 10_000_000
