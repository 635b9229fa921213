package broker

import (
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/vramjet/vramjet/schemas"
)

// offerHeaders are those that a dispatcher adds to a job's own when it offers it.
var offerHeaders = []string{
	schemas.HeaderTenant, schemas.HeaderModel, schemas.HeaderBackend, schemas.HeaderEvict,
	schemas.HeaderWaited, schemas.HeaderFlow, schemas.HeaderAttempt, schemas.HeaderLater,
}

// DeadLetter returns the message that keeps a job which will never run, and why.
// job is the job as it stands in the queue, or as it was offered, with the
// queue's subject; id is its id. Publish it with PublishStored.
func DeadLetter(job *nats.Msg, id string, why *schemas.Error, at time.Time) *nats.Msg {
	header := nats.Header{}
	for k, v := range job.Header {
		// The server's own headers were for the queue: an expected sequence, say.
		if k == schemas.HeaderMsgID || (!strings.HasPrefix(k, "Nats-") && !slices.Contains(offerHeaders, k)) {
			header[k] = v
		}
	}
	if job.Header.Get(schemas.HeaderLater) != "" { // then the other one is of its move into the queue
		header.Set(schemas.HeaderMsgID, id)
	}
	header.Set(schemas.HeaderJob, id)
	header.Set(schemas.HeaderDeadCode, string(why.Code))
	header.Set(schemas.HeaderDeadMessage, oneLine(why.Message))
	header.Set(schemas.HeaderDeadAt, at.UTC().Format(time.RFC3339))
	return &nats.Msg{
		Subject: schemas.DeadPrefix + strings.TrimPrefix(job.Subject, schemas.JobsPrefix),
		Header:  header,
		Data:    job.Data,
	}
}

// oneLine makes a text fit for a header, or for the reason of a Term: one line,
// of 500 bytes at most.
func oneLine(s string) string {
	const most = 500
	s = strings.Join(strings.Fields(s), " ")
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "…"
	}
	return s
}
